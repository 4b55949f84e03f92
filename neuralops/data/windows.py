"""Trajectories cut into pairs: some frames in, the frames that follow out."""

from __future__ import annotations

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
    """

    def __init__(self, trajectories: Samples, history: int, horizon: int, stride: int) -> None:
        self.trajectories, self.history, self.horizon, self.stride = trajectories, history, horizon, stride
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
        stacked = frames.reshape(-1, *frames.shape[2:])  # time-major: all channels of a frame, then the next frame
        cut = self.history * frames.shape[1]
        return {"inputs": stacked[:cut], "outputs": stacked[cut:]}

    def load(self) -> Samples:
        """All windows in memory."""
        return self[:]

    def __repr__(self) -> str:
        return f"Windows({len(self)} of {self.history} + {self.horizon} frames)"


def windows(trajectories: Any, *, history: int = 1, horizon: int = 1, stride: int = 1) -> Windows:
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

    **Returns:** a source that `fit` and `evaluate` read window by window; `load()` gives `Samples`.

    **Raises:** `ValueError` when there are fewer frames than one window needs, or the rank is wrong.
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
    return Windows(samples, history, horizon, stride)
