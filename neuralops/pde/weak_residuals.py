"""Weak residuals of equations, for training and inversion without labels (the DGNO line)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.pde.derivatives import Field, value_and_gradient
from neuralops.pde.random_fields import check_number
from neuralops.pde.weak_form import Patches, TestFunctions

FORMS = ("mixed", "primal")


class _Weak:
    """What the weak residuals share: their test functions, from the words of the constructor."""

    tests: TestFunctions

    def draw(self, key: Array, dtype: Any = None) -> Patches:
        """Draws the test functions, see `TestFunctions.draw`."""
        return self.tests.draw(key, dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False)
class WeakDarcy(_Weak):
    """Weak residuals of -div(a grad u) = forcing, in one to three dimensions, for one sample.

    `form="primal"` needs `fields["u"]`:

    - `"balance"`: r = mean(a grad u . grad v) - mean(forcing v), `(centers,)`.

    `form="mixed"` needs `fields["u"]` and `fields["flux"]`, `(ndim, *points)`, the flux s = a grad u:

    - `"constitutive"`: mean |s - a grad u|^2 over the points of the ball, `(centers,)`;
    - `"balance"`: r = mean(s . grad v) - mean(forcing v), `(centers,)`, not squared.

    Take the mixed form where a jumps: there s . n is continuous, grad u is not. The primal form of a jumping a
    needs `rule="difference"` and balls that are not small against the pixels of a.

    **Arguments:**

    - `domain`: a pair (low, high) per axis.
    - `forcing`: a number, or a hashable function from points `(ndim, *points)` to `(*points,)`.
    - `form`: `"mixed"` or `"primal"`.
    - `**tests`: further arguments of `TestFunctions`.

    **Raises:** `ValueError` on values out of range.
    """

    tests: TestFunctions
    forcing: float | Callable[[Array], Array]
    form: str

    def __init__(
        self,
        domain: Any,
        *,
        forcing: float | Callable[[Array], Array] = 10.0,
        form: str = "mixed",
        **tests: Any,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form: expected one of {FORMS}, got {form!r}; use one of these words.")
        _put(self, tests=_in_space(domain, tests), forcing=check_source(forcing), form=form)

    def residuals(self, patches: Patches, a: Field, fields: Mapping[str, Field]) -> dict[str, Array]:
        """One array per residual, for one sample.

        **Arguments:**

        - `patches`: a draw of this equation's test functions.
        - `a`: the coefficient, a field function of one channel.
        - `fields`: field functions by name.
        """
        mixed = self.form == "mixed"
        u, *flux = take(fields, ("u", "flux") if mixed else ("u",))

        def terms(x: Array) -> tuple[Any, Array, Any]:
            gradient = a(x)[0] * value_and_gradient(u, x)[1][:, 0]
            source = -source_at(self.forcing, x)
            if not mixed:
                return source, gradient, None
            s = flux[0](x)
            return source, s, jnp.sum((s - gradient) ** 2, axis=0)

        balance, mismatch = patches.test(terms)
        return {"constitutive": patches.mean(mismatch), "balance": balance} if mixed else {"balance": balance}


def _put(self: Any, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(self, name, value)


def _in_space(domain: Any, tests: dict[str, Any]) -> TestFunctions:
    made = TestFunctions(domain, **tests)
    if made.space != made.ndim:
        raise ValueError(
            f"space: expected all {made.ndim} axes, got {made.space}; this equation has no time, leave it out."
        )
    return made


def check_source(forcing: Any, name: str = "forcing") -> Any:
    """A number or a function of points, or a `ValueError`."""
    return forcing if callable(forcing) else check_number(forcing, name)


def source_at(forcing: Any, x: Float[Array, " ndim *points"]) -> Float[Array, " *points"]:
    """The forcing at points."""
    value = jnp.asarray(forcing(x) if callable(forcing) else forcing, x.dtype)
    return jnp.broadcast_to(value.reshape(x.shape[1:]) if value.size == x[0].size else value, x.shape[1:])


def take(fields: Mapping[str, Field], names: tuple[str, ...]) -> list[Field]:
    """The field functions of these names, or a `ValueError` that says which are missing."""
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(
            f"fields: expected field functions {names}, got {tuple(fields)}; add {', '.join(map(repr, missing))}."
        )
    return [fields[name] for name in names]
