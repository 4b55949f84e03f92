"""Solvers without iteration: transforms and sweeps along lines."""
