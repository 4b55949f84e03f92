"""Weak residuals of equations, for training and inversion without labels (the DGNO line)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.pde.residuals.derivatives import Field, value_and_gradient
from neuralops.pde.weak_form import Patches, TestFunctions

FORMS = ("mixed", "primal")
PLACES = ("ball", "center")


class _Weak:
    """What the weak residuals share: their test functions, from the words of the constructor."""

    tests: TestFunctions
    reduction: ClassVar[str] = "norm"  # how an objective sums the residuals up, unless it is told
    squared: ClassVar[tuple[str, ...]] = ("constitutive", "divergence")  # those that are means of squares already

    @property
    def domain(self) -> Any:
        """A pair (low, high) per axis."""
        return self.tests.domain

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

    @property
    def reduction(self) -> str:  # type: ignore[override]
        return "norm" if self.form == "primal" else "mean_square"

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
            y = _fixed(x) if mixed else x
            gradient = a(y)[0] * value_and_gradient(u, y)[1][:, 0]
            source = -source_at(self.forcing, x)
            if not mixed:
                return source, gradient, None
            s = flux[0](x)
            return source, s, jnp.sum((s - gradient) ** 2, axis=0)

        balance, mismatch = patches.test(terms)
        return {"constitutive": patches.mean(mismatch), "balance": balance} if mixed else {"balance": balance}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False)
class WeakBurgers(_Weak):
    """Weak residual of u_t + u u_x = viscosity u_xx in space and time, for one sample.

    Points are `(2, *points)`, x first and time second; the test functions act in x alone. Needs `fields["u"]`.

    - `"balance"`: r = mean(u_t v + u u_x v + viscosity u_x v_x), `(centers,)`.

    The input of the problem, u at time 0, does not enter it.

    **Arguments:**

    - `domain`: the pairs (low, high) of x and of time.
    - `viscosity`: above 0.
    - `**tests`: further arguments of `TestFunctions`.

    **Raises:** `ValueError` on values out of range.
    """

    tests: TestFunctions
    viscosity: float

    def __init__(
        self, domain: Any = ((-1.0, 1.0), (0.0, 1.0)), *, viscosity: float = 0.1 / math.pi, **tests: Any
    ) -> None:
        made = TestFunctions(domain, **{"space": 1, **tests})
        if (made.ndim, made.space) != (2, 1):
            raise ValueError(f"domain: expected the pairs of x and of time, got {domain!r}; give two, and space=1.")
        _put(self, tests=made, viscosity=check_number(viscosity, "viscosity", above=0.0))

    def residuals(self, patches: Patches, a: Any, fields: Mapping[str, Field]) -> dict[str, Array]:
        """As in `WeakDarcy.residuals`; `a` is not used and may be `None`."""
        (u,) = take(fields, ("u",))

        def terms(x: Array) -> tuple[Array, Array, None]:
            value, (slope, rate) = value_and_gradient(u, x)
            return (rate + value * slope)[0], self.viscosity * slope, None

        return {"balance": patches.test(terms)[0]}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False)
class WeakStokes(_Weak):
    """Weak residuals of slow viscous flow in two dimensions in first-order form, for one sample.

    With velocity (u, v), pressure p and the stress s = (s11, s22, s12),

        div s = 0,   s11 = -p + 2 mu u_x,   s22 = -p + 2 mu v_y,   s12 = mu (u_y + v_x).

    Needs `fields["pressure"]`, one channel, `fields["stress"]`, three, and either `fields["psi"]`, one channel, the
    stream function (u = psi_y, v = -psi_x), or `fields["velocity"]`, two.

    - `"momentum"`: mean(s11 v_x + s12 v_y) and mean(s12 v_x + s22 v_y), `(2, centers)`;
    - `"constitutive"`: over the points of the ball the mean of the squares of s11 + p - 2 mu u_x, of
      s22 + p - 2 mu v_y, of s12 - mu (u_y + v_x) and of p + (s11 + s22)/2, all four added, `(centers,)`;
    - `"divergence"`: mean of (u_x + v_y)^2, `(centers,)`, with `"velocity"` only.

    Around an obstacle give `inside=` and `refined=` of `TestFunctions`; values at the walls are for another term.

    **Arguments:**

    - `domain`: two pairs (low, high).
    - `viscosity`: mu, above 0.
    - `laws`: where the squares are taken, over the points of each `"ball"`, as published, or at its `"center"` alone:
      they hold at every point, and the second derivatives of a stream function cost the most.
    - `**tests`: further arguments of `TestFunctions`.

    **Raises:** `ValueError` on values out of range.
    """

    reduction: ClassVar[str] = "mean_square"

    tests: TestFunctions
    viscosity: float
    laws: str

    def __init__(
        self,
        domain: Any = ((0.0, 2.0), (0.0, 1.0)),
        *,
        viscosity: float = 0.01,
        laws: str = "ball",
        **tests: Any,
    ) -> None:
        made = _in_space(domain, tests)
        if made.ndim != 2:
            raise ValueError(f"domain: expected two axes, got {made.ndim}; give two pairs (low, high).")
        if laws not in PLACES:
            raise ValueError(f"laws: expected one of {PLACES}, got {laws!r}; use one of these words.")
        _put(self, tests=made, viscosity=check_number(viscosity, "viscosity", above=0.0), laws=laws)

    def residuals(self, patches: Patches, a: Any, fields: Mapping[str, Field]) -> dict[str, Array]:
        """As in `WeakDarcy.residuals`; `a`, the flow at the inlet, is not used and may be `None`."""
        given = "psi" if "psi" in fields else "velocity"
        flow, pressure, stress = take(fields, (given, "pressure", "stress"))
        velocity = curl(flow) if given == "psi" else flow
        mu = self.viscosity

        def squares(y: Array, components: Array) -> tuple[Array, Array]:
            (u_x, v_x), (u_y, v_y) = value_and_gradient(velocity, y)[1]
            s11, s22, s12 = components
            (p,) = pressure(y)
            laws = (s11 + p - 2 * mu * u_x, s22 + p - 2 * mu * v_y, s12 - mu * (u_y + v_x), p + (s11 + s22) / 2)
            return jnp.sum(jnp.stack(laws) ** 2, axis=0), (u_x + v_y) ** 2

        def terms(x: Array) -> tuple[float, Array, Any]:
            s11, s22, s12 = components = stress(x)
            rows = jnp.stack([jnp.stack([s11, s12]), jnp.stack([s12, s22])])
            return 0.0, rows, squares(_fixed(x), components) if self.laws == "ball" else None

        momentum, more = patches.test(terms)
        if self.laws == "center":
            middle = patches.centers[:, :, None]
            more = squares(middle, stress(middle))
        mismatch, spread = more
        found = {"momentum": momentum, "constitutive": patches.mean(mismatch)}
        return found if given == "psi" else {**found, "divergence": patches.mean(spread)}


def curl(psi: Field) -> Field:
    """The velocity (psi_y, -psi_x) of a stream function, as a field function of two channels."""

    def velocity(x: Array) -> Array:
        ((psi_x,), (psi_y,)) = value_and_gradient(psi, x)[1]
        return jnp.stack([psi_y, -psi_x])

    return velocity


def _fixed(x: Array) -> Array:
    """Points for what is wanted at them alone, so that no derivative along the ball is traced for it."""
    return jax.lax.stop_gradient(x)


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
