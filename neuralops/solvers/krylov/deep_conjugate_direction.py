"""The deep conjugate direction method: conjugate directions proposed by a network (Kaneda et al. 2023)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from neuralops.arguments import count, flag
from neuralops.operator import as_operator
from neuralops.solvers.algebra.vectors import Dot, apply, sized, sub
from neuralops.solvers.krylov.directions import (
    Directions,
    Search,
    no_directions,
    orthogonalised,
    remember,
    search,
    stepped,
)  # fmt: skip
from neuralops.solvers.krylov.iteration import RUNNING, Step, check_dot, check_stopping, iterate
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, System

__all__ = ["DeepConjugateDirection"]


class _Memory(NamedTuple):
    kept: Directions
    steps: Int[Array, ""]  # of this round


class DeepConjugateDirection(AbstractMethod):
    """The deep conjugate direction method, DCDM (Kaneda, Akar, Chen, Trevino Kala, Hyde and Teran, ICML 2023).

    ```python
    network = no.load("direction.safetensors")
    solution = no.solve(A, b, no.DeepConjugateDirection(network, memory=2, rtol=1e-4))
    ```

    At each step, with r = b - A x,

        q = f(r / ||r||)                                     the network sees a residual of unit 2-norm
        d = q - sum_i (q . A d_i) / (d_i . A d_i) d_i        over the last `memory` directions, two in the paper
        x <- x + (d . r) / (d . A d) d                       the exact line search

    and r is formed anew from x. The size and sign of what the network returns do not matter. Whatever it returns, the
    error in the energy norm never grows: an answer that is NaN, infinite or zero, or whose direction has no positive
    curvature beyond rounding, is replaced by the residual within the step, and `Solution.num_rejected` counts these.
    The 2-norm of the residual, on which the solve stops, may grow in between.

    With the identity as network the iterates are those of CG, with a fixed symmetric positive definite map those of
    preconditioned CG, with any multiple of the inverse the solve takes one step. `FlexibleCG` takes any map too; here
    the residual is normalised and recomputed, and a poor answer that does no harm is not rejected.

    On a singular operator that knows its null space (walls of Neumann type, points outside a mask) the answer is first
    freed of it: zero mean on each component, zero outside.

    Per step one network, two products with A (one more for a rejected answer), 2 `memory` vectors kept.

    **Arguments:**

    - `network`: a map from a residual to a direction: an operator, a Flax module, any function. It gets the residual
      in the shape of `b`; one built for a single channel also serves fields without a channel axis.
    - `rtol`, `atol`, `max_steps`, `history`, `dot`: as in `CG`.
    - `memory`: how many earlier directions the new one is made A-orthogonal to; 0 leaves it as proposed.
    - `normalize`: `False` hands the network the residual as it is.
    - `network_dtype`: `"float32"`, `"bfloat16"` or `"float64"`: the precision the network computes in, whose arrays
      are cast. By default that of its arrays, if it has any.
    - `true_residual_every`: after how many steps the residual is formed from x again; in between, and always with 0,
      it is updated, which saves a product. Before a solve ends, the true residual is asked in any case.

    **Raises:** `ValueError` on negative tolerances, limits or counts, an unknown dtype, or a network that cannot be
    called.
    """

    network: Any
    rtol: Any
    atol: Any
    max_steps: Any
    memory: int = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    network_dtype: str | None = eqx.field(static=True)
    true_residual_every: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    dot: str | None = eqx.field(static=True)

    def __init__(
        self,
        network: Any,
        rtol: Any = 1e-6,
        atol: Any = 0.0,
        *,
        memory: int = 2,
        max_steps: Any = None,
        normalize: bool = True,
        network_dtype: str | None = None,
        true_residual_every: int = 1,
        history: bool | int = False,
        dot: str | None = None,
    ):
        if isinstance(network, type) or not callable(network):
            raise ValueError(
                f"network: expected a callable from residual to direction, got {network!r}; use an operator such as "
                "DirectionNet.paper('from_64', key=key)."
            )
        check_stopping(self, rtol, atol, max_steps, history)
        if network_dtype not in (None, "bfloat16", "float32", "float64"):
            raise ValueError(
                f"network_dtype: expected None, 'bfloat16', 'float32' or 'float64', got {network_dtype!r}; use one of "
                "these."
            )
        self.network, self.network_dtype = as_operator(network), network_dtype
        self.memory = count(memory, "memory", 0)
        self.true_residual_every = count(true_residual_every, "true_residual_every", 0)
        self.normalize, self.dot = flag(normalize, "normalize"), check_dot(dot)

    def run(self, system: System) -> Outcome:
        A, dot = system.matvec, Dot(system.dot.mesh_axes, self.dot)
        propose = _proposals(self.network, self.network_dtype)

        def begin(r: Any, dtype: Any) -> _Memory:
            return _Memory(no_directions(A, self.memory, r, dtype, dot), jnp.zeros((), jnp.int32))

        def step(at: Step) -> Step:
            kept, steps = at.memory
            unit = jax.tree.map(lambda v: v / jnp.sqrt(at.squared).astype(v.dtype), at.r)
            answer = apply("network", propose, unit if self.normalize else at.r)
            # Its size is free, so a power of two keeps products of tiny or huge answers in range.
            answer, _ = sized(answer, dot.mesh_axes)
            if system.null_space is not None:
                answer = system.null_space.fix_gauge(answer)
            look = lambda z: search(A, kept.unit, orthogonalised(kept, z, dot), at.r, dot)
            found = look(answer)
            rejected = ~found.usable
            found = Search(*lax.cond(rejected, lambda: look(unit), lambda: found))
            x = stepped(found, at.x, found.alpha, found.d)
            updated = lambda: stepped(found, at.r, -found.fall, found.q)
            if self.true_residual_every == 0:
                r = updated()
            elif self.true_residual_every == 1:
                r = sub(system.b, A(x))
            else:
                due = (steps + 1) % self.true_residual_every == 0
                r = lax.cond(due, lambda: sub(system.b, A(x)), updated)
            ended = jnp.where(found.finite, Result.breakdown, Result.nonfinite)
            code = jnp.where(found.usable, RUNNING, ended).astype(jnp.int32)
            return Step(x, r, dot(r, r), _Memory(remember(kept, found), steps + 1), code, rejected)

        return iterate(system._replace(dot=dot), self, begin, step)


def _proposals(network: Any, dtype: str | None) -> Any:
    """The network in its own precision, fed with a channel axis if it wants one."""
    arrays = [leaf for leaf in jax.tree.leaves(network) if eqx.is_inexact_array(leaf)]
    if dtype is not None:
        network = jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, network)
    kind = dtype or (jnp.result_type(*arrays) if arrays else None)
    ndim = getattr(network, "ndim", None) if getattr(network, "in_channels", None) == 1 else None

    def propose(r: Any) -> Any:
        if kind is not None:
            r = jax.tree.map(lambda leaf: leaf.astype(kind), r)
        bare = ndim is not None and getattr(r, "ndim", None) == ndim
        return network(r[None])[0] if bare else network(r)

    return propose
