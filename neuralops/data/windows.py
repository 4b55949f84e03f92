"""Trajectories cut into pairs: some frames in, the frames that follow out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from neuralops.arguments import count
from neuralops.data.files.source import HDF5Source
from neuralops.data.samples import POINTS, Samples, checked_index, shared_fields


class Windows:
    """Pairs of consecutive frames of trajectories, cut when they are read; built by `windows`.

    With `len` and indexing over samples: an integer gives one sample, a slice or numbers give `Samples`; `load()`
    gives all of them. Window `i` begins at frame `i % per_trajectory * stride` of trajectory `i // per_trajectory`.
    `constants` is the number of channels in front of the frames of an input.
    """

    def __init__(
        self,
        trajectories: Samples,
        history: int,
        horizon: int,
        stride: int,
        leading: int = 0,
        media: Sequence[str] = (),
    ) -> None:
        self.media = {name: trajectories.extras[name] for name in media}
        kept = {name: x for name, x in trajectories.extras.items() if name not in self.media}
        self.trajectories = trajectories.replace(extras=kept)
        self.history, self.horizon, self.stride, self.leading = history, horizon, stride, leading
        same_rank = len(trajectories.inputs.shape) - 1  # (trajectories, channels, *grid)
        self.constants = leading + sum(x.shape[1] if len(x.shape) == same_rank else 1 for x in self.media.values())
        self.per_trajectory = (trajectories.inputs.shape[1] - history - horizon) // stride + 1

    def __len__(self) -> int:
        return len(self.trajectories) * self.per_trajectory

    def __getitem__(self, index: Any) -> Samples:
        chosen = np.arange(len(self))[checked_index(index, len(self))]
        if np.ndim(chosen) == 0:
            return self._rest[int(chosen) // self.per_trajectory].replace(
                **self._frames(int(chosen)), shared=self._shared
            )
        if not len(chosen):
            raise ValueError(f"index: expected at least one window, got {index!r}; choose among {len(self)}.")
        parts = [self._frames(int(i)) for i in chosen]
        stacked = {name: np.stack([part[name] for part in parts]) for name in ("inputs", "outputs")}
        return self._rest[chosen // self.per_trajectory].replace(**stacked, shared=self._shared)

    @property
    def _shared(self) -> tuple[str, ...]:
        return self.trajectories.shared

    @property
    def _rest(self) -> Samples:
        """All that belongs to a trajectory but its frames, which are read only where they are wanted."""
        return self.trajectories.replace(inputs=np.arange(len(self.trajectories)), shared=self._shared)

    def _frames(self, index: int) -> dict[str, np.ndarray]:
        which, start = divmod(index, self.per_trajectory)
        start *= self.stride
        frames = np.asarray(self.trajectories.inputs[which, start : start + self.history + self.horizon])
        grid = frames.shape[2:]
        fixed = [np.asarray(x[which], frames.dtype).reshape(-1, *grid) for x in self.media.values()]
        if self.leading:
            fixed, frames = [*fixed, frames[0, : self.leading]], frames[:, self.leading :]
        stacked = frames.reshape(-1, *grid)  # time-major: all channels of a frame, then the next frame
        cut = self.history * frames.shape[1]
        inputs = np.concatenate([*fixed, stacked[:cut]]) if fixed else stacked[:cut]
        return {"inputs": inputs, "outputs": stacked[cut:]}

    def load(self) -> Samples:
        """All windows in memory."""
        return self[:]

    def __repr__(self) -> str:
        return f"Windows({len(self)} of {self.history} + {self.horizon} frames)"


def windows(
    trajectories: Any, *, history: int = 1, horizon: int = 1, stride: int = 1, constants: int | str | Sequence[str] = 0
) -> Windows:
    """Pairs for learning to predict, from trajectories that stay as they are.

    ```python
    pairs = no.data.windows(trajectories, history=2, horizon=1)  # two frames in, the next one out
    op, _ = no.fit(op, pairs, loss=no.losses.l2(), ...)
    ```

    **Arguments:**

    - `trajectories`: `(samples, time, channels, *grid)`, an array or whatever is indexed like one (an HDF5 data set);
      or `Samples` that hold such inputs, with points, masks and extras of each trajectory or shared by all; or what
      `data.open` returns, of which only the frames of a window are read.
    - `history`: frames in the input, stacked in its channels: `(history * channels, *grid)`, the oldest first.
    - `horizon`: frames in the output, stacked alike. `losses.rollout(horizon, loss)` and `metrics.per_step` take
      them apart again.
    - `stride`: frames between the beginnings of two windows. For fewer frames a time, thin out the trajectories.
    - `constants`: what stays the same in time, such as a medium, and stands once, in front of the frames of the input:
      the first so many channels of each frame, or names of extras, `(samples, *grid)` or `(samples, channels, *grid)`
      and in that order. Windows tell the number of such channels, `windows(...).constants`, which `Rollout` and
      `losses.rollout` want.

    **Returns:** a source that `fit` and `evaluate` read window by window; `load()` gives `Samples`.

    **Raises:** `ValueError` when there are fewer frames than one window needs, the rank is wrong, or what should stay
    the same in time does not.
    """
    sizes = {"history": history, "horizon": horizon, "stride": stride}
    history, horizon, stride = (count(value, name) for name, value in sizes.items())
    if isinstance(trajectories, HDF5Source):
        trajectories = trajectories.lazy()
    samples = trajectories if isinstance(trajectories, Samples) else Samples(trajectories)
    shape = tuple(getattr(samples.inputs, "shape", ()))
    if len(shape) < 4 or not jnp.issubdtype(samples.inputs.dtype, jnp.floating):
        raise ValueError(
            "trajectories: expected a floating array (samples, time, channels, *grid), got "
            f"{type(samples.inputs).__name__} of shape {shape}; add the channel axis with x[:, :, None]."
        )
    if samples.outputs is not None:
        raise ValueError("trajectories: expected frames in inputs alone, got outputs too; leave them out.")
    if shape[1] < history + horizon or shape[0] < 1:
        raise ValueError(
            f"trajectories: expected at least {history + horizon} frames for history={history} and horizon={horizon}, "
            f"got {shape[0]} trajectories of {shape[1]}; take shorter windows."
        )
    leading, media = _constants(samples, constants)
    # Ranks mean other things here than in plain samples: there is an axis of time.
    samples = samples.replace(shared=shared_fields(samples, lead=3))
    for field in POINTS:
        x = getattr(samples, field)
        if x is None:
            continue
        lead = (() if field in samples.shared else shape[:1]) + (() if field.endswith("mask") else (None,))
        wanted, got = (*lead, *shape[3:]), tuple(getattr(x, "shape", ()))
        if len(got) != len(wanted) or any(n is not None and n != m for n, m in zip(wanted, got, strict=True)):
            said = ", ".join("ndim" if n is None else str(n) for n in wanted)
            raise ValueError(
                f"trajectories.{field}: expected shape ({said}) beside frames on {shape[3:]}, got {got}; points stay "
                "where they are in time, one set for each trajectory or for all."
            )
    for field, x in {"residual_norm": samples.residual_norm, **samples.extras}.items():
        if x is not None and (getattr(x, "shape", None) or (0,))[0] != shape[0]:
            raise ValueError(
                f"trajectories.{field}: expected one for each of {shape[0]} trajectories, got shape "
                f"{getattr(x, 'shape', None)}; leave it out."
            )
    return Windows(samples, history, horizon, stride, leading, media)


def _constants(samples: Samples, constants: Any) -> tuple[int, tuple[str, ...]]:
    """How many leading channels of the frames stay, or the names of the extras that do."""
    frames = samples.inputs
    if not isinstance(constants, str) and not isinstance(constants, Sequence):
        leading = count(constants, "constants", least=0, hint="give a number of channels, or names of extras.")
        if leading >= frames.shape[2]:
            raise ValueError(
                f"constants: expected fewer than the {frames.shape[2]} channels of a frame, got {leading}; what moves "
                "follows the channels that stay."
            )
        if leading:
            first, last = (np.asarray(frames[0, i : i + 1])[0, :leading] for i in (0, frames.shape[1] - 1))
            for channel, (a, b) in enumerate(zip(first, last, strict=True)):
                if not np.array_equal(a, b, equal_nan=True):
                    raise ValueError(
                        f"constants: expected {leading} channel(s) that stay the same in time, got channel {channel}, "
                        "which changes in the first trajectory; put the constants first, or give a smaller number."
                    )
        return leading, ()
    names = (constants,) if isinstance(constants, str) else tuple(constants)
    grid = tuple(frames.shape[3:])
    for name in names:
        shape = tuple(getattr(samples.extras.get(name), "shape", ()))
        if name not in samples.extras or len(set(names)) < len(names):
            raise ValueError(
                f"constants: expected a number, or names among the extras {sorted(samples.extras)}, each once, got "
                f"{constants!r}; give Samples with extras, or put the channels in front of those of each frame."
            )
        if shape[1:] != grid and (len(shape) != len(grid) + 2 or shape[2:] != grid):
            raise ValueError(
                f"constants: expected {name!r} to be (samples, *grid) or (samples, channels, *grid) on {grid}, got "
                f"{shape}; bring it to the grid of the frames."
            )
    return 0, names
