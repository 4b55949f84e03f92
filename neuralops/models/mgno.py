"""MgNO: neural operators whose linear maps are multigrid cycles (He, Liu and Xu, ICLR 2024, arXiv 2310.19809).

A layer maps functions to functions as a neuron maps numbers,

    O_i(u) = sigma(sum_j W_ij u_j + B_ij),

with all W_ij together one multigrid cycle (`nn.MultigridConv`). The first layer lifts and the last map projects, so
there are no pointwise networks at the ends; boundary conditions are built into the cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.grid import per_axis
from neuralops.nn.kernel_factors import Compress
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.multigrid import MultigridConv
from neuralops.nn.norm import LayerNorm
from neuralops.nn.pointwise import Linear, activation_named
from neuralops.operator import Envelope


class MgNOLayer(eqx.Module):
    """sigma(norm(W u + C u + b)): a cycle, a linear map of the channels with bias, a norm; both may be absent."""

    cycle: MultigridConv
    skip: Linear | None
    norm: LayerNorm | None

    def channels_last(self, u: Float[Array, "*grid channels"], activation: str) -> Float[Array, "*grid channels_out"]:
        v = self.cycle.channels_last(u)
        v = v if self.skip is None else v + self.skip.channels_last(u)
        v = v if self.norm is None else self.norm.channels_last(v)
        return activation_named(activation)(v)


class MgNO(AbstractLayer):
    """A multigrid neural operator in 1-D, 2-D or 3-D.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `hidden_channels`: functions per hidden layer.
    - `n_layers`: number of layers.
    - `sweeps`: smoothing steps (before, after the correction) per level, the finest first; their number is that of
      the levels. To reach across the domain, take about log2 of the points per axis.
    - `ndim`: number of space dimensions.
    - `boundary`, `centering`: as in `Grid`; see `MultigridConv` for the sizes that are exact at the boundary.
    - `multiples`, `transfer`, `coarse_init`, `kept`, `up_taps`, `up_ghosts`, `sharing`, `use_bias`: see
      `MultigridConv`.
    - `skip`: `"linear"` adds a linear map of the channels with bias to each cycle, `None` does not.
    - `activation`: `"gelu"`, `"relu"`, `"silu"`, `"tanh"`, `"sin"` or `"identity"`.
    - `norm`: `None`, `"cycle"` (layer norm inside each cycle, after each correction) or `"layer"` (after each
      cycle); the last two need `num_points` and lock the model to that grid.
    - `head`: the last map, `"linear"` in the channels or one more `"cycle"`.
    - `residual`: adds the input to the output, as for one step in time; needs equal channel counts.
    - `first_system`, `init`, `compress`: see `MultigridConv`; `paper` models start with `"uniform"` kernels.
    - `checkpoint_layers`: recompute each layer in the backward pass instead of storing it.

    Input `(in_channels, *grid)`, output `(out_channels, *grid)`, any grid.

    Refinement: *spacing-locked*: it runs on every grid, but its kernels count points, so that on a finer grid it is
    another function; *grid-locked* with a norm. To evaluate on other points, `resample` to the trained ones and back.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    layers: tuple[MgNOLayer, ...]
    last: Linear | MultigridConv
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    sweeps: tuple[tuple[int, int], ...] = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    multiples: tuple[int, ...] | None = eqx.field(static=True)
    transfer: str = eqx.field(static=True)
    coarse_init: str = eqx.field(static=True)
    kept: str = eqx.field(static=True)
    up_taps: tuple[int, ...] = eqx.field(static=True)
    up_ghosts: str = eqx.field(static=True)
    sharing: str = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    skip: str | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    num_points: tuple[int, ...] | None = eqx.field(static=True)
    head: str = eqx.field(static=True)
    residual: bool = eqx.field(static=True)
    first_system: bool = eqx.field(static=True)
    init: str = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)
    checkpoint_layers: bool = eqx.field(static=True)

    derived = ("layers", "last")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        n_layers: int = 4,
        sweeps: Sequence[Sequence[int]] = ((1, 0),) * 5 + ((2, 0),),
        ndim: int = 2,
        boundary: Any = "dirichlet",
        centering: Any = "node",
        multiples: Sequence[int] | None = None,
        transfer: Literal["source", "residual"] = "source",
        coarse_init: Literal["project", "zero"] = "project",
        kept: Literal["even", "odd"] = "even",
        up_taps: int | Sequence[int] | None = None,
        up_ghosts: Literal["boundary", "zero"] = "boundary",
        sharing: Literal["none", "sweeps", "levels"] = "none",
        use_bias: bool = False,
        skip: Literal["linear"] | None = "linear",
        activation: str = "gelu",
        norm: Literal["cycle", "layer"] | None = None,
        num_points: int | Sequence[int] | None = None,
        head: Literal["linear", "cycle"] = "linear",
        residual: bool = False,
        first_system: bool = False,
        init: Literal["interpolation", "uniform"] = "interpolation",
        compress: Compress | None = None,
        checkpoint_layers: bool = False,
        key: Array,
    ) -> None:
        in_channels, out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        hidden_channels, n_layers = count(hidden_channels, "hidden_channels"), count(n_layers, "n_layers")
        residual = flag(residual, "residual")
        checkpoint_layers = flag(checkpoint_layers, "checkpoint_layers")
        for name, word, allowed in (
            ("skip", skip, ("linear", None)),
            ("norm", norm, (None, "cycle", "layer")),
            ("head", head, ("linear", "cycle")),
        ):
            if word not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {word!r}; use one of these.")
        if residual and in_channels != out_channels:
            raise ValueError(
                f"residual: expected equal channel counts, got {in_channels} in and {out_channels} out; use "
                "residual=False."
            )
        if (norm is None) != (num_points is None):
            raise ValueError(
                f"num_points: expected the grid if and only if there is a norm, got norm={norm!r} and "
                f"num_points={num_points!r}; give both or neither."
            )
        activation_named(activation)
        keys = jax.random.split(key, 2 * n_layers + 1)

        def cycle(c_in: int, c_out: int, key: Array, inner_norm: bool = False) -> MultigridConv:
            return MultigridConv(
                c_in,
                c_out,
                sweeps,
                ndim=ndim,
                multiples=multiples,
                transfer=transfer,
                coarse_init=coarse_init,
                boundary=boundary,
                centering=centering,
                kept=kept,
                up_taps=up_taps,
                up_ghosts=up_ghosts,
                sharing=sharing,
                use_bias=use_bias,
                norm="layer_norm" if inner_norm else None,
                num_points=num_points if inner_norm else None,
                first_system=first_system,
                init=init,
                compress=compress,
                key=key,
            )

        grid = () if num_points is None else per_axis(num_points, ndim, "num_points")
        grid = tuple(count(n, "num_points") for n in grid)
        layers = []
        for i in range(n_layers):
            c_in = in_channels if i == 0 else hidden_channels
            W = cycle(c_in, hidden_channels, keys[2 * i], inner_norm=norm == "cycle")
            C = Linear(c_in, hidden_channels, key=keys[2 * i + 1]) if skip else None
            layers.append(MgNOLayer(W, C, LayerNorm(hidden_channels, grid) if norm == "layer" else None))
        self.layers = tuple(layers)
        if head == "cycle":
            self.last = cycle(hidden_channels, out_channels, keys[-1])
        else:
            self.last = Linear(hidden_channels, out_channels, use_bias=False, key=keys[-1])
        W = layers[0].cycle
        self.in_channels, self.out_channels, self.hidden_channels = in_channels, out_channels, hidden_channels
        self.n_layers, self.sweeps, self.ndim, self.multiples = n_layers, W.sweeps, W.ndim, W.multiples
        self.boundary, self.centering, self.kept = W.boundary, W.centering, W.kept
        self.transfer, self.coarse_init = W.transfer, W.coarse_init
        self.up_taps, self.up_ghosts, self.sharing, self.use_bias = W.up_taps, W.up_ghosts, W.sharing, W.use_bias
        self.skip, self.activation, self.norm, self.head = skip, activation, norm, head
        self.num_points = grid or None
        self.residual, self.first_system, self.init = residual, W.first_system, W.init
        self.compress, self.checkpoint_layers = W.compress, checkpoint_layers

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> MgNO:
        """A model of the released code (repository xlliu2017/MgNO), with its parameter count.

        | name | grid | configuration | parameters |
        | --- | --- | --- | --- |
        | `"darcy_rough"` | 256 x 256 | 4 layers, 24 channels, 6 levels; also for multiscale coefficients | 572,661 |
        | `"darcy_smooth"` | 211 x 211 | the same with 5 layers | 678,093 |
        | `"pipe"` | 128 x 128 | 5 layers, 2 input channels | 783,876 |
        | `"navier_stokes"` | 64 x 64, locked | 5 layers, 32 channels, norms in the cycles, a time step | 2,885,194 |
        | `"helmholtz"` | 101 x 101, locked | 4 layers, 20 to 100 channels, norms, a cycle at the end | 5,351,806 |

        The transposed convolutions of `"navier_stokes"` and `"helmholtz"` read zeros beyond the edge, as released;
        `up_ghosts="boundary"` puts that right. `changes` override single arguments.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        return cls(**{"init": "uniform", **_PAPER[name], **changes}, key=key)

    @property
    def envelope(self) -> Envelope:
        inner = self.layers[0].cycle.envelope
        return Envelope(inner.ndim, inner.boundary, "spacing-locked" if self.norm is None else "grid-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        v = u
        for layer in self.layers:
            run = lambda layer, v: layer.channels_last(v, self.activation)
            # The layer is an argument of the checkpointed function, so its parameters stay differentiable.
            v = jax.checkpoint(run)(layer, v) if self.checkpoint_layers else run(layer, v)
        v = self.last.channels_last(v)
        return u + v if self.residual else v


_DARCY: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "hidden_channels": 24, "sweeps": ((1, 0),) * 5 + ((2, 0),), "up_taps": 4,
}  # fmt: skip
_PAPER: dict[str, dict[str, Any]] = {
    "darcy_rough": {**_DARCY, "n_layers": 4},
    "darcy_smooth": {**_DARCY, "n_layers": 5, "up_taps": (3, 4, 3, 3, 4)},
    "pipe": {**_DARCY, "in_channels": 2, "n_layers": 5, "sweeps": ((1, 0),) * 4 + ((1, 1), (2, 0))},
    "navier_stokes": {
        "in_channels": 1, "out_channels": 1, "hidden_channels": 32, "n_layers": 5, "boundary": "periodic",
        "sweeps": ((1, 0),) * 3 + ((2, 0),) * 2, "up_taps": 4, "up_ghosts": "zero", "use_bias": True, "skip": None,
        "norm": "cycle", "num_points": 64, "residual": True,
    },
    "helmholtz": {
        "in_channels": 1, "out_channels": 1, "hidden_channels": 20, "n_layers": 4, "boundary": "neumann",
        "sweeps": ((1, 0),) * 4 + ((2, 0),), "multiples": (1, 2, 3, 4, 5), "kept": "odd", "up_taps": (3, 4, 4, 3),
        "up_ghosts": "zero", "use_bias": True, "skip": None, "norm": "layer", "num_points": 101, "head": "cycle",
        "first_system": True,
    },
}  # fmt: skip
