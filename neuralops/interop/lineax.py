"""Solvers of this library inside lineax (and so optimistix and diffrax), and its operators as lineax operators.

The other way needs nothing: `neuralops.solve` takes a lineax operator that is tagged as symmetric or definite.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array

from neuralops.interop import grid_of
from neuralops.operator import as_operator
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.linear_solve import solve as solve_with_jax
from neuralops.solvers.solution import AbstractMethod, Result

__all__ = ["Solver", "to_lineax"]


class Solver(lx.AbstractLinearSolver):
    """A method of this library as a lineax solver.

    ```python
    operator = lx.FunctionLinearOperator(f, jax.eval_shape(lambda: b), lx.positive_semidefinite_tag)
    solver = no.interop.lineax.Solver(no.CG(rtol=1e-6, preconditioner=no.FastPoisson(grid)))
    solution = lx.linear_solve(operator, b, solver)
    ```

    Tolerances are those of the method: on the true residual in the 2-norm, relative to the right-hand side (not
    lineax's, on residual and update entry by entry). lineax differentiates, by its own implicit rule, in `b` and the
    operator; tangents and cotangents are solved by the same method, and a failure of such a solve raises, as lineax
    has nowhere to report it.

    **Arguments:**

    - `method`: `CG(...)`, `FlexibleCG(...)`, `Refinement(...)`, or an approximate inverse such as
      `Multigrid(A)`. It carries its own preconditioner, which may be anything this library takes: lineax's rule
      that a preconditioner be a linear operator binds only the one given as an option. No gradient flows to it.

    `options` of `lineax.linear_solve`: `y0`, the start, and `preconditioner`, a positive semidefinite lineax operator,
    for a method that has none.

    Results are lineax's: a stagnated solve is `RESULTS.stagnation`, an incompatible right-hand side
    `RESULTS.singular`. `solution.stats` holds `num_steps`, `max_steps` and the true relative residual `residual_norm`.

    **Raises:** `ValueError` on an operator that is not square, real and tagged positive or negative semidefinite,
    on unknown options, and on two preconditioners.
    """

    method: Any

    def __init__(self, method: Any):
        if isinstance(method, type) or not (isinstance(method, AbstractMethod) or callable(method)):
            raise ValueError(f"method: expected one such as CG(rtol=1e-6), got {method!r}; call its constructor.")
        # lineax refuses to differentiate anything but operator and vector; a preconditioner made of what is being
        # differentiated must not count.
        method = method if isinstance(method, AbstractMethod) else as_operator(method)
        self.method = jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, method)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple[Any, Any]:
        _check_options(options)
        _check_operator(operator)
        return lx.linearise(operator), _Sign(not lx.is_positive_semidefinite(operator))

    def compute(self, state: tuple[Any, Any], vector: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        operator, sign = state
        method, preconditioner = self.method, options.get("preconditioner")
        if preconditioner is not None:
            method = _with_preconditioner(method, preconditioner)
        A = as_linear_map(operator)
        if sign.negative:
            vector = jax.tree.map(jnp.negative, vector)
            A = _Negated(A)
        solution = solve_with_jax(A, vector, method, x0=options.get("y0"))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(vector)]))
        stats = {
            "num_steps": solution.num_steps,
            "max_steps": getattr(method, "max_steps", None),
            "residual_norm": solution.residual_norm,
        }
        return solution.value, _result(solution.result, finite), stats

    def transpose(self, state: tuple[Any, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        operator, sign = state
        kept = {"preconditioner": options["preconditioner"].transpose()} if "preconditioner" in options else {}
        return (operator.transpose(), sign), kept  # the start belongs to the vector as given

    def conj(self, state: tuple[Any, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return state, options  # all is real

    def assume_full_rank(self) -> bool:
        return True


def to_lineax(A: Any, like: Any = None) -> lx.FunctionLinearOperator:
    """An operator of this library as a lineax operator, tagged positive semidefinite.

    ```python
    solution = lx.linear_solve(to_lineax(A), b, lx.CG(1e-6, 1e-6), options={"preconditioner": to_lineax(multigrid, b)})
    ```

    **Arguments:**

    - `A`: a `Diffusion`, `FastPoisson`, `Multigrid`, or another symmetric positive semidefinite linear map.
    - `like`: a field such as the operator takes, or its `jax.ShapeDtypeStruct`; by default on the
      grid that `A` lives on, in the precision of its arrays.

    **Raises:** `ValueError` when the field is not known, or `A` does not map it to its like.
    """
    A = as_linear_map(as_operator(A) if callable(A) else A)
    if like is None:
        grid = grid_of(A)
        if grid is None:
            raise ValueError(
                f"like: expected a field, got None for {type(A).__name__}, which names no grid; pass like=b."
            )
        leaves = jax.tree.leaves(A)
        like = jax.ShapeDtypeStruct(grid.shape, leaves[0].dtype if leaves else jnp.zeros(()).dtype)
    field = jax.eval_shape(lambda: like) if not isinstance(like, jax.ShapeDtypeStruct) else like
    out = jax.eval_shape(lambda v: A(v), field)
    if _signature(out) != _signature(field):
        raise ValueError(f"A: expected a map from {field} to the same, got {out}; pass like=, a field that it takes.")
    # Not closure-converted: the operator's arrays stay its leaves, and new values do not recompile.
    return lx.FunctionLinearOperator(A, field, lx.positive_semidefinite_tag, closure_convert=False)


class _Sign(eqx.Module):
    negative: bool = eqx.field(static=True)


class _Negated(eqx.Module):
    A: Any

    def __call__(self, v: Any, /) -> Any:
        return jax.tree.map(jnp.negative, self.A(v))


class _Preconditioner(eqx.Module):
    operator: lx.AbstractLinearOperator

    def __call__(self, r: Any, /) -> Any:
        return self.operator.mv(r)


def _signature(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(tuple(leaf.shape), leaf.dtype) for leaf in leaves]


def _check_options(options: dict[str, Any]) -> None:
    unknown = sorted(set(options) - {"preconditioner", "y0"})
    if unknown:
        raise ValueError(f"options: expected 'preconditioner' and 'y0' only, got {unknown}; leave the others out.")


def _check_operator(operator: lx.AbstractLinearOperator) -> None:
    inside, outside = operator.in_structure(), operator.out_structure()
    if _signature(inside) != _signature(outside):
        raise ValueError(f"operator: expected a square one, got one from {inside} to {outside}; use lineax.LSMR.")
    for leaf in jax.tree.leaves(inside):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"operator: expected a real one, got {leaf.dtype}; use lineax.GMRES.")
    if not (lx.is_positive_semidefinite(operator) or lx.is_negative_semidefinite(operator)):
        raise ValueError(
            f"operator: expected one tagged positive or negative semidefinite, got {type(operator).__name__} without; "
            "build it with lineax.positive_semidefinite_tag if it is, else use lineax.GMRES."
        )


def _with_preconditioner(method: Any, preconditioner: Any) -> Any:
    if not isinstance(preconditioner, lx.AbstractLinearOperator) or not lx.is_positive_semidefinite(preconditioner):
        raise ValueError(
            "options['preconditioner']: expected a lineax operator tagged positive semidefinite, got "
            f"{type(preconditioner).__name__}; give any other, nonlinear ones included, to the method: "
            "Solver(FlexibleCG(preconditioner=...))."
        )
    if getattr(method, "preconditioner", method) is not None:
        raise ValueError(
            f"options['preconditioner']: expected none, since {type(method).__name__} has one or takes none, got "
            f"{type(preconditioner).__name__}; give it in one place."
        )
    fields: dict[str, Any] = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return type(method)(**fields | {"preconditioner": _Preconditioner(preconditioner)})


def _result(code: Array, finite: Array) -> Any:
    names = {
        Result.max_steps: lx.RESULTS.max_steps_reached,
        Result.stagnated: lx.RESULTS.stagnation,
        Result.breakdown: lx.RESULTS.breakdown,
        Result.incompatible: lx.RESULTS.singular,
    }
    result = lx.RESULTS.where(code == Result.converged, lx.RESULTS.successful, lx.RESULTS.singular)
    result = lx.RESULTS.where((code == Result.nonfinite) & ~finite, lx.RESULTS.nonfinite_input, result)
    for ours, theirs in names.items():
        result = lx.RESULTS.where(code == ours, theirs, result)
    return result
