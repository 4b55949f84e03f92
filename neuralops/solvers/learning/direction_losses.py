"""How good a proposed search direction is: what networks for solvers are trained on.

All take one right-hand side `b` and the direction `g` proposed for it (for a batch use `jax.vmap`) and return a number.
Factors of `g` drop out wherever that is said; gradients flow through the step size.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.solvers.algebra.vectors import Dot, axpy, sized

__all__ = ["angle_loss", "energy_loss", "one_step_loss"]

DOT = Dot()


def one_step_loss(A: Any, b: Any, g: Any) -> Float[Array, ""]:
    """The squared relative residual ||b - alpha A g||^2 / ||b||^2 after one step along `g`, alpha = (b.g) / (g.A g).

    The self-supervised loss of the deep conjugate direction method (Kaneda et al. 2023), whose right-hand sides have
    unit norm: 0 if `g` is parallel to A^-1 b, 1 if it is orthogonal to `b`; it can exceed 1, since alpha minimises the
    error in the energy norm. The same for s g. Where g.A g is not positive the step is 0 and the loss 1.
    """
    (b, _), (g, _) = sized(b), sized(g)
    image, _ = sized(A(g))
    curvature, slope, size = DOT.many([(g, image), (b, g), (b, b)])
    usable = curvature > 0
    alpha = jnp.where(usable, slope / jnp.where(usable, curvature, 1), 0)
    rest = axpy(-alpha, image, b)
    return DOT(rest, rest) / jnp.where(size > 0, size, 1)


def energy_loss(A: Any, e: Any, g: Any) -> Float[Array, ""]:
    """The relative error ||g - e||_A / ||e||_A in the energy norm, `e` = A^-1 b being the exact answer.

    The quantity in Notay's theorem (2000): if it is below eps for every residual, flexible conjugate gradients reduce
    the error by eps per step (used for training by Rudikov et al., ICML 2024). It depends on the size of `g`.
    """
    e, unit = sized(e)
    error = axpy(jnp.asarray(-1.0), e, _over(unit, g))
    image, unit = sized(A(e))
    squared, size = DOT.many([(error, _over(unit, A(error))), (e, image)])
    return _root(squared / jnp.where(size > 0, size, 1))


def angle_loss(A: Any, e: Any, g: Any) -> Float[Array, ""]:
    """The factor by which the best step along `g` reduces the error in the energy norm, the sine of its angle to `e`.

    sqrt(1 - (g.A e)^2 / ((g.A g)(e.A e))): `energy_loss` of the best multiple of `g`, between 0 and 1, the same for
    s g. Where g.A g is not positive it is 1.
    """
    (e, _), (g, _) = sized(e), sized(g)
    image, unit = sized(A(e))
    curvature, overlap, size = DOT.many([(g, _over(unit, A(g))), (g, image), (e, image)])
    product = curvature * size
    usable = product > 0
    cosine = jnp.where(usable, overlap**2 / jnp.where(usable, product, 1), 0)
    return _root(1 - cosine)


def _over(unit: Array, u: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf / unit.astype(leaf.dtype), u)


def _root(squared: Array) -> Array:
    """The square root, with gradient 0 where rounding has left nothing or less."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
