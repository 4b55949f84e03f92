"""Objectives and losses that are trees: their arrays are given to compiled programs, all else is compiled in.

A loss whose number changes in the course of a training (the gamma of `losses.proximal_matching`) is registered with JAX
as a tree with that number as a leaf; so is what holds such losses. Then one program serves all numbers. A function, and
anything else that JAX takes for a leaf, is compiled in as a whole and found again by value.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.operator import ByIdentity

_NUMBER = "number"  # stands where an array was


class Fixed:
    """A tree without its floating arrays: hashable, and equal to that of the same tree with other numbers."""

    def __init__(self, structure: Any, leaves: tuple[Any, ...], traced: tuple[bool, ...]) -> None:
        self.structure, self.leaves, self.traced = structure, leaves, traced

    def with_numbers(self, numbers: Any) -> Any:
        """The tree again, with these arrays."""
        given = iter(numbers)
        leaves = [
            next(given) if traced else ByIdentity.value_of(leaf)
            for leaf, traced in zip(self.leaves, self.traced, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def __hash__(self) -> int:
        return hash((self.structure, self.leaves, self.traced))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and (self.structure, self.leaves, self.traced) == (
            other.structure,
            other.leaves,
            other.traced,
        )


def split(tree: Any) -> tuple[Fixed, tuple[Any, ...]]:
    """What is compiled in, and the floating arrays. Python's numbers are compiled in."""
    leaves, structure = jax.tree.flatten(tree)
    try:
        hash(structure)
    except TypeError:  # arrays among what its class declares static
        leaves, structure = jax.tree.flatten(ByIdentity(tree))
    traced = tuple(
        isinstance(x, np.ndarray | np.generic | jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) for x in leaves
    )
    fixed = tuple(_NUMBER if t else ByIdentity.of(x) for x, t in zip(leaves, traced, strict=True))
    return Fixed(structure, fixed, traced), tuple(x for x, t in zip(leaves, traced, strict=True) if t)
