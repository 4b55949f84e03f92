"""The deep generative neural operator (Zang and Koutsourelakis 2025, J. Comput. Phys. 538, 114137; arXiv 2502.06250).

One latent code z stands behind an input a of an equation and its solution u. An encoder finds z from a; decoders give
a and u (and, for the mixed form, the flux) back at any points. Because both come from one code, the equation couples
them without labels, and an inverse problem becomes a search for z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.grid import Grid
from neuralops.models.branch_trunk import AbstractBranchTrunk
from neuralops.models.multionet import MultiONet
from neuralops.nn.encoder import ConvEncoder, MLPEncoder, check_given
from neuralops.operator import AbstractOperator, Envelope, check_field, envelope_of, keywords_of

CODES = ("tanh", "identity")


class DGNO(AbstractOperator):
    """An encoder and decoders around one latent code: a -> z, z -> u(x), z -> a(x), z -> flux(x).

    `op(a)` is the solution, `op(a, query=points)` the solution at points; `op.encode(a)` and
    `op.decode(code, points)`, `op.decode_input`, `op.decode_flux` are its halves. A decoder takes the code as a vector:
    it is an operator of `sensors=numbers`, such as `MultiONet(128, 1, 1, 100, key=key)`.

    The input is continuous (Gaussian about the decoded mean) or, with `phases`, a medium of two values (Bernoulli,
    whose logits are decoded). The code is z = tanh(e(a)), as published, or e(a) itself. A `variational` encoder gives
    mean and logarithm of the variance, and training draws z = mean + std * noise; the published one is deterministic.

    Input `(in_channels, *sensors)`, output `(out_channels, *points)`.

    **Arguments:**

    - `encoder`: an operator from the input to `(1, numbers)`, twice as many numbers as the code with `variational`.
      With `nn.PointEncoder` the input is a cloud of points, given with `coords=` and `mask=`.
    - `solution`: the decoder of u, or several whose outputs follow each other.
    - `medium`: the decoder of a; `None` where the input is the solution at some points, such as an initial condition.
    - `flux`: the decoder, or several, of what the equation balances (a grad u, the stress), or of its potential (see
      `pde.BalancedDarcy`); `()` without.
    - `stream_function`: whether the first output of `solution` is a stream function psi in two dimensions, of which the
      velocity (psi_y, -psi_x) takes the place: it has no divergence, exactly.
    - `phases`: the two values of the medium, or `None`.
    - `code`: `"tanh"` or `"identity"`.
    - `variational`: whether the encoder gives a Gaussian; then `code` must be `"identity"`.
    - `shift`, `scale`: the encoder sees (a - shift) / scale. By default two phases become -1 and 1, and a continuous
      input is left as it is.

    Refinement: as the encoder's; the output may be had at any points.

    **Raises:** `ValueError` on parts that do not fit together.
    """

    encoder: Any
    solution: tuple[Any, ...]
    medium: Any
    flux: tuple[Any, ...]
    stream_function: bool = eqx.field(static=True)
    phases: tuple[float, float] | None = eqx.field(static=True)
    code: str = eqx.field(static=True)
    variational: bool = eqx.field(static=True)
    shift: float = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        encoder: Any,
        solution: Any,
        medium: Any = None,
        flux: Any = (),
        *,
        stream_function: bool = False,
        phases: Sequence[float] | None = None,
        code: str = "tanh",
        variational: bool = False,
        shift: float | None = None,
        scale: float | None = None,
    ) -> None:
        self.variational = flag(variational, "variational")
        if code not in CODES:
            raise ValueError(f"code: expected one of {CODES}, got {code!r}; use one of these words.")
        if self.variational and code == "tanh":
            raise ValueError(
                "code: expected 'identity' for a variational encoder, whose code is a Gaussian, got 'tanh'; give "
                "code='identity'."
            )
        self.code, self.phases = code, _check_phases(phases)
        middle, half = 0.0, 1.0
        if self.phases is not None:
            middle, half = sum(self.phases) / 2, abs(self.phases[1] - self.phases[0]) / 2
        self.shift = middle if shift is None else float(shift)
        self.scale = half if scale is None else float(scale)
        if not (math.isfinite(self.shift) and math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale: expected a positive number, got {scale!r}; give the size of the input, e.g. 1.0.")
        numbers = getattr(encoder, "out_channels", None)
        if not isinstance(encoder, AbstractOperator) or numbers is None:
            raise ValueError(
                f"encoder: expected an operator to a code, got {type(encoder).__name__}; give nn.MLPEncoder(...) or "
                "nn.ConvEncoder(...)."
            )
        if self.variational and numbers % 2:
            raise ValueError(
                f"encoder: expected an even number of outputs, mean and variance, got {numbers}; give "
                "out_channels=2 * numbers of the code."
            )
        self.encoder, self.medium = encoder, medium
        self.solution, self.flux = (tuple(x) if isinstance(x, Sequence) else (x,) for x in (solution, flux))
        self.stream_function = flag(stream_function, "stream_function")
        if not self.solution:
            raise ValueError(
                f"solution: expected at least one decoder, got none; give MultiONet({self.num_codes}, ...)."
            )
        parts = [("solution", part) for part in self.solution] + [("flux", part) for part in self.flux]
        for name, part in parts + ([] if medium is None else [("medium", medium)]):
            if (
                not isinstance(part, AbstractBranchTrunk)
                or part.encoder is not None
                or part.sensors != (self.num_codes,)
            ):
                raise ValueError(
                    f"{name}: expected a decoder of codes of {self.num_codes} numbers, got {type(part).__name__}; give "
                    f"MultiONet({self.num_codes}, 1, ...)."
                )
            if part.domain != self.domain:
                raise ValueError(
                    f"{name}: expected the domain {self.domain}, as the solution's, got {part.domain}; give domain=."
                )
        if self.stream_function and len(self.domain) != 2:
            raise ValueError(
                f"stream_function: expected two dimensions, got {len(self.domain)}; decode the velocity itself."
            )
        if self.phases is not None and (medium is None or medium.out_channels != 1):
            raise ValueError("medium: two phases expect a decoder with one output; give MultiONet(..., 1, 1, ...).")

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> DGNO:
        """A configuration of the authors' code.

        | name | input | decoders | parameters |
        | --- | --- | --- | --- |
        | `"darcy_smooth"` | 29 x 29, convolutions | u and a: 6 layers of 100, L = 5 | 368,828 |
        | `"darcy_two_phase"` | 29 x 29, perceptron | u, two fluxes: 5 of 100, L = 4; a: 5 of 256 | 1,437,476 |
        | `"burgers"` | 128 points, perceptron | u(x, t): 6 layers of 100, L = 5 | 196,702 |
        | `"stokes"` | 256 points, perceptron | psi, p and, variant x, the stress: 6 layers of 100, L = 5 | 445,499 |

        `changes` override arguments of `DGNO`, such as whole parts.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        return cls(**{**_PAPER[name](key), **changes})

    @property
    def envelope(self) -> Envelope:
        return envelope_of(self.encoder)

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        """The box of the output's points."""
        return self.solution[0].domain

    @property
    def num_codes(self) -> int:
        """Numbers of the code."""
        return self.encoder.out_channels // (2 if self.variational else 1)

    @property
    def keywords(self) -> frozenset[str]:
        return frozenset({"query", "key"}) | (keywords_of(self.encoder) & {"coords", "mask"})

    def law(
        self, a: Float[Array, " channels *points"], **given: Any
    ) -> tuple[Float[Array, " code"], Float[Array, " code"]]:
        """Mean and logarithm of the variance of the code, for a variational encoder.

        **Arguments:** `a`, and `coords=` and `mask=` where the encoder takes them.

        **Raises:** `ValueError` when the encoder is deterministic.
        """
        if not self.variational:
            raise ValueError("law: this DGNO has a deterministic encoder; build it with variational=True.")
        mean, log_variance = jnp.split(self._encoded(a, given), 2)
        return mean, log_variance

    def encode(
        self, a: Float[Array, " channels *points"], *, key: Array | None = None, **given: Any
    ) -> Float[Array, " code"]:
        """The code of an input: its mean, or with a key a draw, where the encoder is variational.

        **Arguments:** `a`, and `coords=` and `mask=` where the encoder takes them.

        **Raises:** `ValueError` when `a` does not lie where the encoder reads it.
        """
        if self.variational:
            mean, log_variance = self.law(a, **given)
            if key is None:
                return mean
            return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        z = self._encoded(a, given)
        return jnp.tanh(z) if self.code == "tanh" else z

    def decode(self, code: Float[Array, " code"], query: Any = None) -> Float[Array, " out *points"]:
        """The solution at points `(ndim, *points)`; `None` means the grid of the input.

        **Raises:** `ValueError` on points outside the domain, as far as they are known before compilation.
        """
        query = self._query(query, code.dtype)
        values = lambda x: jnp.concatenate([part(code[None], query=x) for part in self.solution])
        if not self.stream_function:
            return values(query)
        query = jnp.asarray(query, code.dtype)
        along = lambda axis: jnp.zeros_like(query).at[axis].set(1)
        plain, push = jax.linearize(values, query)
        return jnp.concatenate([push(along(1))[:1], -push(along(0))[:1], plain[1:]])

    def decode_stream(self, code: Float[Array, " code"], query: Any = None) -> Float[Array, " 1 *points"]:
        """The stream function psi at points, of which `decode` gives the velocity (psi_y, -psi_x).

        **Raises:** `ValueError` when the solution is no stream function.
        """
        if not self.stream_function:
            raise ValueError("stream_function: this DGNO decodes its solution itself; build it with True.")
        return self.solution[0](code[None], query=self._query(query, code.dtype))[:1]

    def decode_input(self, code: Float[Array, " code"], query: Any = None) -> Float[Array, " channels *points"]:
        """The mean of the input at points: of two phases, the values weighted by their probabilities."""
        values = self.decode_logits(code, query)
        if self.phases is None:
            return values
        low, high = self.phases
        return low + (high - low) * jax.nn.sigmoid(values)

    def decode_logits(self, code: Float[Array, " code"], query: Any = None) -> Float[Array, " channels *points"]:
        """The output of the input's decoder as it is: of two phases, the log-odds of the second value.

        **Raises:** `ValueError` without such a decoder.
        """
        if self.medium is None:
            raise ValueError("medium: this DGNO has no decoder of its input; build it with one.")
        return self.medium(code[None], query=self._query(query, code.dtype))

    def sample_input(
        self, code: Float[Array, " code"], query: Any = None, *, key: Array, num_draws: int = 25
    ) -> Float[Array, " channels *points"]:
        """A draw of the input given its code; of two phases a relaxed one, differentiable (sheet, section 5).

        With uniform e_s at every point the second phase weighs sigmoid(mean_s logit(e_s) + logits): the noise has
        variance pi^2 / (3 num_draws), and the phases become hard as the logits grow. The mean of a continuous input is
        returned, whose variance is not modelled.
        """
        logits = self.decode_logits(code, query)
        if self.phases is None:
            return logits
        noise = jnp.mean(jax.random.logistic(key, (num_draws, *logits.shape), logits.dtype), 0)
        low, high = self.phases
        return low + (high - low) * jax.nn.sigmoid(noise + logits)

    def decode_flux(self, code: Float[Array, " code"], query: Any = None) -> Float[Array, " components *points"]:
        """The flux a grad u at points.

        **Raises:** `ValueError` without decoders of the flux.
        """
        if not self.flux:
            raise ValueError("flux: this DGNO has no decoders of the flux; build it with flux=(MultiONet(...), ...).")
        query = self._query(query, code.dtype)
        return jnp.concatenate([part(code[None], query=query) for part in self.flux])

    def __call__(
        self,
        u: Float[Array, " channels *points_in"],
        /,
        *,
        query: Float[Array, " ndim *points"] | None = None,
        coords: Any = None,
        mask: Any = None,
        key: Array | None = None,
    ) -> Float[Array, " out *points"]:
        given = {name: x for name, x in (("coords", coords), ("mask", mask)) if x is not None}
        return self.decode(self.encode(u, key=key, **given), query)

    def _encoded(self, a: Array, given: dict[str, Any]) -> Array:
        # Before the scaling, which would make floats of integers.
        check_field(a, channels=getattr(self.encoder, "in_channels", None), ndim=None, where="DGNO")
        check_given(given, keywords_of(self.encoder), "DGNO")
        return self.encoder((a - self.shift) / self.scale, **given).reshape(-1)

    def _query(self, query: Any, dtype: Any) -> Any:
        """The closed grid of the encoder's sensors over the domain, where no points are given."""
        if query is not None:
            return query
        sensors, domain = getattr(self.encoder, "sensors", None), self.domain
        if sensors is None or len(sensors) != len(domain) or min(sensors) < 2:
            raise ValueError(
                f"query: DGNO expects points ({len(domain)}, points) here, got none; give query=points, because the "
                "input does not lie on a grid of the output's domain."
            )
        axes = [low + (high - low) * Grid((n,), boundary=("neumann",)).points(0)
                for n, (low, high) in zip(sensors, domain, strict=True)]  # fmt: skip
        return jnp.stack(jnp.meshgrid(*(jnp.asarray(x, dtype) for x in axes), indexing="ij"))


def _check_phases(phases: Any) -> tuple[float, float] | None:
    if phases is None:
        return None
    try:
        low, high = (float(x) for x in phases)
    except (TypeError, ValueError) as error:
        raise ValueError(f"phases: expected two values, got {phases!r}; give a pair such as (5.0, 10.0).") from error
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise ValueError(f"phases: expected two different values, got {phases!r}; give a pair such as (5.0, 10.0).")
    return low, high


def _darcy_smooth(key: Array) -> dict[str, Any]:
    keys = jax.random.split(key, 3)
    return {
        "encoder": ConvEncoder((29, 29), 1, 128, (128, 128), key=keys[0]),
        "solution": MultiONet.paper("width100_l5", factor="both", key=keys[1]),
        "medium": MultiONet.paper("width100_l5", key=keys[2]),
    }


def _darcy_two_phase(key: Array) -> dict[str, Any]:
    keys = jax.random.split(key, 5)
    medium = {"hidden_channels": 256, "trunk_activation": "silu_sin", "branch_activation": "silu_id"}
    return {
        "encoder": MLPEncoder((29, 29), 1, 128, (512, 256), key=keys[0]),
        "solution": MultiONet.paper("width100_l4", factor="both", key=keys[1]),
        "medium": MultiONet.paper("width100_l4", key=keys[2], **medium),
        "flux": tuple(MultiONet.paper("width100_l4", key=k) for k in keys[3:]),
        "phases": (5.0, 10.0),
    }


def _burgers(key: Array) -> dict[str, Any]:
    keys = jax.random.split(key, 2)
    solution = {"domain": ((-1.0, 1.0), (0.0, 1.0)), "factor": ("both", None), "branch_activation": "silu_id"}
    return {
        "encoder": MLPEncoder(128, 1, 128, (256, 128, 64), key=keys[0]),
        "solution": MultiONet.paper("width100_l5", key=keys[1], **solution),
    }


def _stokes(key: Array) -> dict[str, Any]:
    keys = jax.random.split(key, 4)
    domain = ((0.0, 2.0), (0.0, 1.0))
    return {
        "encoder": MLPEncoder(256, 1, 128, (256, 128), key=keys[0]),
        "solution": tuple(MultiONet.paper("width100_l5", domain=domain, key=k) for k in keys[1:3]),
        "flux": MultiONet.paper("x_variant", domain=domain, key=keys[3]),
        "stream_function": True,
        "code": "identity",
    }


_PAPER: dict[str, Any] = {
    "burgers": _burgers,
    "darcy_smooth": _darcy_smooth,
    "darcy_two_phase": _darcy_two_phase,
    "stokes": _stokes,
}
