"""Problems: a law for drawing inputs, the true solution operator, and a residual."""

from neuralops.pde import waves
from neuralops.pde.burgers import Burgers
from neuralops.pde.burgers_walls import BurgersWalls
from neuralops.pde.darcy import Darcy, solve_diffusion
from neuralops.pde.darcy_nodes import NodalDarcy
from neuralops.pde.helmholtz import Helmholtz
from neuralops.pde.navier_stokes import NavierStokes, enstrophy, kinetic_energy, velocity_from_vorticity
from neuralops.pde.perforated import Perforated
from neuralops.pde.poisson import Poisson
from neuralops.pde.poisson_directions import PoissonDirections
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField
from neuralops.pde.residuals.balanced import BalancedDarcy
from neuralops.pde.residuals.derivatives import second_derivatives, value_and_gradient
from neuralops.pde.residuals.strong import StrongBurgers, StrongDarcy, darcy_differences
from neuralops.pde.residuals.weak import WeakBurgers, WeakDarcy, WeakStokes
from neuralops.pde.wave import Wave
from neuralops.pde.weak_form import Patches, TestFunctions, wendland, wendland_gradient

__all__ = [
    "BalancedDarcy",
    "Burgers",
    "BurgersWalls",
    "Darcy",
    "GaussianRandomField",
    "Helmholtz",
    "NavierStokes",
    "NodalDarcy",
    "Patches",
    "Perforated",
    "Poisson",
    "PoissonDirections",
    "Problem",
    "StrongBurgers",
    "StrongDarcy",
    "TestFunctions",
    "Wave",
    "WeakBurgers",
    "WeakDarcy",
    "WeakStokes",
    "darcy_differences",
    "enstrophy",
    "kinetic_energy",
    "second_derivatives",
    "solve_diffusion",
    "value_and_gradient",
    "velocity_from_vorticity",
    "waves",
    "wendland",
    "wendland_gradient",
]
