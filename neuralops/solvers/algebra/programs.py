"""Functions as programs: traced once, what they close over made explicit, and recognised when they come again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["Program", "hoist"]

# Parameters that say how to differentiate, which running a program does not.
_RULES = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees", "transpose_thunk")


class Program:
    """A traced function: `program(closed, *args)`.

    Two programs are equal when they do the same operations in the same order; the arrays they close over are arguments
    and do not count. So a function of the user that is traced again, with other arrays, is recognised.
    """

    def __init__(self, jaxpr: Jaxpr, tree: Any):
        self.jaxpr, self.tree = jaxpr, tree

    def __call__(self, closed: list[Any], *args: Any) -> Any:
        return jax.tree.unflatten(self.tree, jax.core.eval_jaxpr(self.jaxpr, closed, *jax.tree.leaves(args)))

    def compiled(self, closed: list[Any], *args: Any) -> Any:
        """The same as one compiled call, which is kept for programs that are equal."""
        try:
            kept = _compiled(self)
        except TypeError:  # something in it does not hash
            kept = jax.jit(self.__call__)
        return kept(closed, *args)

    @functools.cached_property
    def _key(self) -> Any:
        return (_outline(self.jaxpr), self.tree)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self._key == other._key


@functools.lru_cache(maxsize=128)
def _compiled(program: Program) -> Any:
    return jax.jit(program.__call__)


def hoist(function: Any, *examples: Any) -> tuple[Program, list[Any], Any]:
    """A function as a program, the arrays it closes over, and the types of what it returns."""
    # A fresh function each time: JAX would take the trace of an earlier call, from before a variable changed.
    traced, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*examples)
    return Program(traced.jaxpr, jax.tree.structure(out)), list(traced.consts), out


class _Same:
    """Equal to itself only, and alive as long as anything compares with it."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing


def _outline(jaxpr: Jaxpr) -> Any:
    """The operations of a program as a value that compares, with variables numbered in order of appearance."""
    numbers: dict[Any, int] = {}

    def name(v: Any) -> Any:
        if isinstance(v, Literal):
            value = np.asarray(v.val)
            return (str(v.aval), value.dtype.str, value.tobytes())
        return numbers.setdefault(v, len(numbers))

    def parameter(value: Any) -> Any:
        if isinstance(value, ClosedJaxpr):
            return (_outline(value.jaxpr), tuple(_Same(c) for c in value.consts))
        if isinstance(value, Jaxpr):
            return _outline(value)
        if isinstance(value, tuple | list):
            return tuple(parameter(item) for item in value)
        if isinstance(value, dict):
            return tuple((key, parameter(item)) for key, item in value.items())
        if isinstance(value, jax.Array | np.ndarray):
            return _Same(value)
        return value

    inputs = tuple((name(v), str(v.aval)) for v in (*jaxpr.constvars, *jaxpr.invars))
    lines = []
    for line in jaxpr.eqns:
        parameters = tuple((key, parameter(v)) for key, v in sorted(line.params.items()) if key not in _RULES)
        ins, outs = tuple(name(v) for v in line.invars), tuple((name(v), str(v.aval)) for v in line.outvars)
        lines.append((line.primitive, ins, outs, parameters))
    return (inputs, len(jaxpr.constvars), tuple(lines), tuple(name(v) for v in jaxpr.outvars))
