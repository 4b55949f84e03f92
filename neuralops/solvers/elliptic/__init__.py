"""Elliptic operators on grids: the finite-volume `Diffusion`, its stencil and its control volumes."""
