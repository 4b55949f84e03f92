"""Do compressed convolutions learn waves as well as ordinary ones? Error against parameters, with few samples.

    python benchmarks/wave_compression.py --out out/waves              # goes on where it was stopped
    python benchmarks/wave_compression.py --out out/waves --plan       # what is to be trained, and how long it takes
    python benchmarks/wave_compression.py --out out/waves --costs      # step times and memory of all kinds
    python benchmarks/wave_compression.py --out out/waves --report --figure docs/images/wave_compression.png

A zone of 12 x 12 points in a larger box of random sound speed, whose walls absorb. Waves start from pulses at rest
inside and outside the zone. Given: the field on the faces of the block of 12 x 12 points by 12 frames (the walls of
the zone at all times, and the first frame), which with the sound speed determine it. Wanted: the field inside.
The network: a linear map to `--channels`, five blocks v + gelu(convolution of v) over x, y and t with zeros outside
and dilations 1, 2, 4, 2, 1, a linear map to the field. The convolutions are ordinary ones, or `nn.SeparableConv` in
one of its variants, or ordinary ones in a narrower network. All take equally many steps of AdamW, for one seed on the
same batches. The error is the relative L2 norm over the points that are not given.

Data are computed once. Each network trained is a line in `cells.jsonl`; what stands there is not done again. Times are
the processor's: run it on one core.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from timed import Record

import neuralops as no
from neuralops.data import Samples
from neuralops.nn import SeparableConv, conv_counts
from neuralops.nn.pointwise import Linear, gelu
from neuralops.pde import waves

DILATIONS = (1, 2, 4, 2, 1)
NUM_TEST = 200
VARIANTS = ("kernel", "cp", "depthwise")
# Per kernel size, chosen with `--rates` at 500 samples on 200 others that are neither for training nor for the test.
RATES = {
    3: {"dense": 1e-2, "narrow": 1e-2, "kernel": 4e-2, "cp": 4e-2, "depthwise": 4e-2},
    5: {"dense": 2.5e-3, "narrow": 5e-3, "kernel": 2e-2, "cp": 4e-2, "depthwise": 4e-2},
}


# ---- data


class Zone(NamedTuple):
    """Points of the zone per axis, spaced by two points of the simulation, frames, and points around it."""

    points: int = 12
    frames: int = 12
    margin: int = 20


def simulate(zone: Zone, keys: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Sound speed `(samples, x, y)` and field `(samples, x, y, t)` in the zone.

    Lengths in units of the spacing of the zone, times in those in which the median speed crosses it.
    """
    n = 2 * (zone.points + zone.margin)
    extent = n / 2
    medium = waves.LogNormal(1.0, deviation=0.2, correlation_length=5.0, bounds=(0.6, 1.6))
    options = {"max_sound_speed": 1.6, "domain_extent": (extent, extent), "order": 4}
    options["layer"] = waves.AbsorbingLayer(wavelength=12.0, reflection=1e-3)
    every = math.ceil(1 / waves.WaveEquation((n, n), **options).dt)
    equation = waves.WaveEquation((n, n), dt=1 / every, **options)
    inside = slice(zone.margin, zone.margin + 2 * zone.points, 2)
    low, high = extent / 2 - 0.9 * zone.points, extent / 2 + 0.9 * zone.points

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_medium, of_centres, of_shape, of_height, of_count = jax.random.split(key, 5)
        c = medium.sample(of_medium, equation.grid)[0]
        centres = jax.random.uniform(of_centres, (2, 4), minval=low, maxval=high)
        radius, width = jax.random.uniform(of_shape, (2, 4), minval=jnp.array([[0.0], [1.8]]),
                                           maxval=jnp.array([[3.0], [2.6]]))  # fmt: skip
        height = jax.random.uniform(of_height, (4,), minval=-1.0, maxval=1.0)
        present = jnp.arange(4) < jax.random.randint(of_count, (), 2, 5)
        start = waves.rings(equation.grid, centres, radius, width, height * present)
        frames = equation.run(c, start, num_steps=every * (zone.frames - 1), every=every).frames
        return c[inside, inside], jnp.moveaxis(frames[:, inside, inside], 0, -1)

    c, u = lax.map(one, keys, batch_size=8)
    return np.asarray(c, np.float32), np.asarray(u, np.float32)


def faces(zone: Zone) -> np.ndarray:
    """True where the field is given, `(x, y, t)`."""
    given = np.ones((zone.points, zone.points, zone.frames), bool)
    given[1:-1, 1:-1, 1:] = False
    return given


def samples_of(zone: Zone, c: np.ndarray, u: np.ndarray, scaled: bool = True) -> Samples:
    """Inputs: the field on the faces and zero inside, where it is given, log c.

    `scaled`: each sample in units of the root mean square of what is given, which the equation, being linear, allows.
    Otherwise in one unit for all: samples in which pulses nearly cancel then have gradients of the relative error up to
    30 times the usual ones, and more samples made worse networks.
    """
    given = faces(zone)
    unit = np.sqrt(np.mean(u[:, given] ** 2, axis=1))[:, None, None, None] if scaled else 0.25
    u = (u / unit)[:, None]
    known = np.broadcast_to(given, u.shape)
    speed = np.broadcast_to(5 * np.log(c)[:, None, ..., None], u.shape)
    return Samples(np.concatenate([u * known, known, speed], 1).astype(np.float32), u.astype(np.float32))


def load(folder: Path, zone: Zone, num_train: int, num_test: int, scaled: bool = True) -> tuple[Samples, Samples]:
    path = folder / f"waves_{'x'.join(map(str, zone))}_{num_train}_{num_test}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        c, u = simulate(zone, jax.random.split(jax.random.key(0), num_train + num_test))
        print(f"{len(u)} simulations in {time.process_time() - start:.0f} s of processor time", flush=True)
        np.savez(path.with_suffix(".part.npz"), c=c, u=u)
        path.with_suffix(".part.npz").rename(path)
    with np.load(path) as file:
        every = samples_of(zone, file["c"], file["u"], scaled)
    return every[:num_train], every[num_train:]


def interpolated(u: jax.Array) -> jax.Array:
    """The field on the walls of the zone, continued into it bilinearly blended (Coons), frame by frame."""
    v = u[:1]
    s = jnp.linspace(0, 1, v.shape[1])[:, None, None]
    r = jnp.linspace(0, 1, v.shape[2])[None, :, None]
    along_x = (1 - s) * v[:, :1] + s * v[:, -1:]
    along_y = (1 - r) * v[:, :, :1] + r * v[:, :, -1:]
    both = (1 - s) * along_y[:, :1] + s * along_y[:, -1:]
    return along_x + along_y - both


# ---- networks


def stacked(u: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """The 3-D convolution, zeros outside, as one in 2-D that has the taps of the first axis as channels.

    The same map as `lax.conv_general_dilated` in 3-D, which XLA computes several times as slowly on a CPU.
    """
    k, n = kernel.shape[0], u.shape[0]
    reach = dilation * (k // 2)
    wide = jnp.pad(u, ((reach, reach), (0, 0), (0, 0), (0, 0)))
    u = jnp.concatenate([lax.slice_in_dim(wide, dilation * t, dilation * t + n, 1, 0) for t in range(k)], -1)
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    padding, numbers = ((reach, reach), (reach, reach)), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(u, kernel, (1, 1), padding, rhs_dilation=(dilation,) * 2, dimension_numbers=numbers)


class Kind(NamedTuple):
    """Which convolutions a network has: `"dense"` of so many channels, or a variant of `SeparableConv` and its rank."""

    kernel: int
    variant: str
    rank: int  # channels, where the variant is "dense"

    def name(self) -> str:
        return f"ordinary, {self.rank} channels" if self.variant == "dense" else f"`{self.variant}`, rank {self.rank}"


class Dense(eqx.Module):
    kernel: jax.Array
    bias: jax.Array
    dilation: int = eqx.field(static=True)

    def __init__(self, channels: int, k: int, dilation: int, key: jax.Array) -> None:
        std = math.sqrt(2 / (channels * k**3))  # that of SeparableConv
        self.kernel, self.bias = std * jax.random.normal(key, (k, k, k, channels, channels)), jnp.zeros(channels)
        self.dilation = dilation


class Net(eqx.Module):
    """From `(3, x, y, t)` to `(1, x, y, t)`."""

    lift: Linear
    convolutions: tuple[Any, ...]
    last: Linear  # not "project", which `fit` would call
    chained: bool = eqx.field(static=True)

    def __init__(self, kind: Kind, channels: int, *, chained: bool = False, key: jax.Array) -> None:
        first, last, *keys = jax.random.split(key, 2 + len(DILATIONS))
        width = kind.rank if kind.variant == "dense" else channels
        self.lift, self.last = Linear(3, width, key=first), Linear(width, 1, key=last)
        self.chained = chained
        self.convolutions = tuple(
            Dense(width, kind.kernel, d, k) if kind.variant == "dense" else
            SeparableConv(width, width, kind.kernel, kind.rank, variant=kind.variant, ndim=3, dilation=d,
                          evaluation="chain" if chained else "rebuilt", key=k)
            for d, k in zip(DILATIONS, keys, strict=True)
        )  # fmt: skip

    def __call__(self, u: jax.Array) -> jax.Array:
        v = self.lift.channels_last(jnp.moveaxis(u, 0, -1))
        for layer, dilation in zip(self.convolutions, DILATIONS, strict=True):
            if self.chained:
                v = v + gelu(layer.channels_last(v))
            else:
                kernel = layer.kernel if isinstance(layer, Dense) else layer.to_dense_kernel()
                v = v + gelu(stacked(v, kernel, dilation) + layer.bias)
        return jnp.moveaxis(self.last.channels_last(v), -1, 0)


def size(net: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(net))


# ---- what is trained


def num_parameters(kind: Kind, channels: int) -> int:
    """Of the network, by formula."""
    width, k = kind.rank if kind.variant == "dense" else channels, (kind.kernel,) * 3
    if kind.variant == "dense":
        layer = width**2 * kind.kernel**3 + width
    else:
        layer = conv_counts(width, width, k, kind.rank, variant=kind.variant).parameters
    return 4 * width + len(DILATIONS) * layer + width + 1


def narrowed(kind: Kind, channels: int) -> Kind:
    """The ordinary network with the fewest channels that has at least as many parameters."""
    wanted, width = num_parameters(kind, channels), 1
    while num_parameters(Kind(kind.kernel, "dense", width), channels) < wanted:
        width += 1
    return Kind(kind.kernel, "dense", width)


def all_kinds(k: int, channels: int) -> list[Kind]:
    """Ranks 1 to k (of `"cp"` in units of the channels), the ordinary network, and its narrower ones."""
    compressed = [Kind(k, v, r * (channels if v == "cp" else 1)) for v in VARIANTS for r in range(1, k + 1)]
    narrow = {narrowed(kind, channels) for kind in compressed}
    widths = sorted({kind.rank for kind in narrow if kind.rank < channels}, reverse=True)
    return [*(Kind(k, "dense", w) for w in (channels, *widths)), *compressed]


def core(k: int, channels: int) -> list[Kind]:
    """What the claim rests on: the ordinary network, compressed ones of up to 40 % of its parameters, narrower ones."""
    compressed = [Kind(k, "kernel", 1), Kind(k, "cp", channels), Kind(k, "depthwise", k)]
    if k > 3:
        compressed.append(Kind(k, "kernel", 3))
    narrow = sorted({narrowed(kind, channels).rank for kind in compressed})
    return [Kind(k, "dense", channels), *compressed, *(Kind(k, "dense", width) for width in narrow)]


class Cell(NamedTuple):
    kind: Kind
    samples: int
    seed: int
    steps: int

    def words(self) -> dict[str, Any]:
        return {**self.kind._asdict(), "samples": self.samples, "seed": self.seed, "steps": self.steps}


def plan(args: argparse.Namespace) -> list[Cell]:
    """In the order of what the claim needs most; seeds of a network after one another, which share a compilation."""
    counts, first, C = args.samples, args.samples[len(args.samples) // 2], args.channels
    cells: list[Cell] = []

    def add(kinds: list[Kind], counts: list[int], seeds: list[int], steps: int = args.steps) -> None:
        new = [Cell(kind, n, seed, steps) for n in counts for kind in kinds for seed in seeds]
        cells.extend(cell for cell in new if cell not in cells)

    if args.full:
        for k in args.kernels:
            add(all_kinds(k, C), counts, args.seeds)
        return cells
    (k, *wide), others = args.kernels, [n for n in counts if n != first]
    equal = narrowed(Kind(k, "kernel", 1), C)
    few = [kind for kind in core(k, C) if kind.variant != "dense" or kind in (Kind(k, "dense", C), equal)]
    add(core(k, C), [first], args.seeds)
    for w in wide:
        add(core(w, C), [first], args.seeds[:1])
    add(few, others, args.seeds)
    add([kind for kind in few if kind.variant != "cp"], [first], args.seeds[:1], 4 * args.steps)
    add(all_kinds(k, C), [first], args.seeds[:1])
    for w in wide:
        add(all_kinds(w, C), [first], args.seeds[:1])
        add(core(w, C), [first], args.seeds)
        add(core(w, C), others, args.seeds[:1])
    add(core(k, C), others, args.seeds)
    return cells


def optimizer(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, max(steps // 20, 1), steps), weight_decay=1e-4)


def rate_of(kind: Kind, channels: int) -> float:
    word = "narrow" if kind.variant == "dense" and kind.rank < channels else kind.variant
    return RATES[min(RATES, key=lambda k: abs(k - kind.kernel))][word]


def train(
    cell: Cell, data: Samples, test: Samples, loss: Any, rule: optax.GradientTransformation, args: argparse.Namespace
) -> dict[str, Any]:
    net = Net(cell.kind, args.channels, key=jax.random.key(cell.seed))
    data = data[: cell.samples]
    ends: list[float] = []
    start = time.process_time()
    net, _ = no.fit(
        net, data, loss=loss, optimizer=rule, num_epochs=cell.steps * args.batch_size // cell.samples,
        batch_size=args.batch_size, drop_last=True, key=jax.random.key(100 + cell.seed), progress=False,
        callback=lambda *_: ends.append(time.process_time()),
    )  # fmt: skip
    seconds = time.process_time() - start
    error = lambda of: float(no.evaluate(net, of, metrics={"error": loss})["error"].mean())
    epoch = float(np.median(np.diff(ends))) if len(ends) > 1 else seconds
    return {
        "parameters": size(net), "train": error(data[:NUM_TEST]), "test": error(test), "seconds": round(seconds, 1),
        "ms": round(1e3 * epoch / (cell.samples // args.batch_size), 1),
    }  # fmt: skip


def costs(kind: Kind, channels: int, batch: Samples, loss: Any, repeats: int = 5) -> dict[str, Any]:
    """Milliseconds of a training step and MiB that its program asks for, with the kernel rebuilt and as a chain."""
    found: dict[str, Any] = {}
    rule, batch = optax.adamw(1e-3), batch.map(jnp.asarray)

    def one(net: Any, state: Any, u: Any, v: Any) -> Any:
        slope = jax.grad(lambda net: jnp.mean(jax.vmap(lambda u, v: loss(net(u), v))(u, v)))(net)
        updates, state = rule.update(slope, state, net)
        return optax.apply_updates(net, updates), state

    for way in ("rebuilt",) if kind.variant in ("dense", "kernel") else ("rebuilt", "chain"):
        net = Net(kind, channels, chained=way == "chain", key=jax.random.key(0))
        arguments = (net, rule.init(net), batch.inputs, batch.outputs)
        program = jax.jit(one).lower(*arguments).compile()
        times = []
        for _ in range(1 + repeats):
            start = time.process_time()
            jax.block_until_ready(program(*arguments))
            times.append(1e3 * (time.process_time() - start))
        found[f"ms_{way}"] = round(float(np.median(times[1:])), 1)
        found[f"mib_{way}"] = round(program.memory_analysis().temp_size_in_bytes / 2**20, 1)
    return {"parameters": size(net), **found}


def trivial(train: Samples, test: Samples, loss: Any, counts: list[int]) -> dict[str, list[float]]:
    """Errors of what is no network, per number of samples."""
    linear = lambda most: lambda data: no.baselines.linear_pod(data, num_modes=min(most, len(data) - 1))
    make = {
        "training mean": no.baselines.training_mean,
        "nearest neighbour": no.baselines.nearest_neighbour,
        "linear map, 32 components": linear(32),
        "linear map, 150 components": linear(150),
        "walls interpolated": lambda data: interpolated,
    }
    error = lambda op: float(no.evaluate(op, test, metrics={"error": loss})["error"].mean())
    return {name: [error(of(train[:n])) for n in counts] for name, of in make.items()}


# ---- what was found


def expected(cell: Cell, done: list[dict[str, Any]]) -> float:
    """Seconds, from networks trained before; without any, from measurements of 8 channels on one core."""
    known = [row for row in done if row["kernel"] == cell.kind.kernel]
    same = [row for row in known if (row["variant"], row["rank"]) == (cell.kind.variant, cell.kind.rank)]
    if same or known:
        return float(np.median([row["seconds"] / row["steps"] for row in same or known])) * cell.steps
    return (0.03 if cell.kind.kernel == 3 else 0.06) * cell.steps


def show(cells: list[Cell], done: list[dict[str, Any]]) -> None:
    left = [cell for cell in cells if not any(cell.words().items() <= row.items() for row in done)]
    for cell in cells:
        mark = "left" if cell in left else "done"
        print(f"{mark}  k = {cell.kind.kernel}, {cell.kind.name()}, {cell.samples} samples, seed {cell.seed}, "
              f"{cell.steps} steps")  # fmt: skip
    seconds = sum(expected(cell, done) for cell in left)
    print(f"{len(cells)} networks, {len(left)} left, about {seconds / 60:.0f} minutes of processor time")


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{100 * np.mean(values):.1f}" + (f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def chosen(done: list[dict[str, Any]], kind: Kind, **what: Any) -> list[dict[str, Any]]:
    what = {**kind._asdict(), **what}
    return [row for row in done if what.items() <= row.items()]


def table(args: argparse.Namespace, record: Record, k: int) -> list[str]:
    """Test error, and test less training error, in % per number of samples; share and ratio to the ordinary network."""
    done = [row for row in record.rows if row["stage"] == "cell" and row["steps"] == args.steps]
    head = "".join(f" {n} samples | gap |" for n in args.samples)
    lines = [
        f"| k = {k} | parameters | share |{head} step, ms (chain) | MiB (chain) |",
        "| --- | --- | --- |" + " --- | --- |" * len(args.samples) + " --- | --- |",
    ]
    dense = chosen(done, Kind(k, "dense", args.channels))
    for kind in all_kinds(k, args.channels):
        rows = chosen(done, kind)
        if not rows:
            continue
        share = rows[0]["parameters"] / dense[0]["parameters"] if dense else math.nan
        errors = ""
        for n in args.samples:
            own = [row for row in rows if row["samples"] == n]
            gaps = [row["test"] - row["train"] for row in own]
            errors += f" {spread([row['test'] for row in own])} | {f'{100 * np.mean(gaps):.1f}' if own else ''} |"
        cost = record.find(stage="costs", **kind._asdict()) or {}
        bracket = lambda what, cost=cost: f" ({cost[f'{what}_chain']})" if f"{what}_chain" in cost else ""
        last = [f"{np.median([row['ms'] for row in rows]):.0f}{bracket('ms')}"]
        last.append(f"{cost.get('mib_rebuilt', '')}{bracket('mib')}")
        lines.append(
            f"| {kind.name()} | {rows[0]['parameters']:,} | {100 * share:.0f} % |{errors} {last[0]} | {last[1]} |"
        )
    return lines


def verdicts(args: argparse.Namespace, record: Record) -> list[str]:
    """For each kernel and number of samples the compressed networks of at most 40 % of the parameters, best first."""
    done, lines = [row for row in record.rows if row["stage"] == "cell"], []
    mean = lambda rows: float(np.mean([row["test"] for row in rows]))
    for k in args.kernels:
        for n in args.samples:
            for steps in sorted({row["steps"] for row in done}):
                dense = chosen(done, Kind(k, "dense", args.channels), samples=n, steps=steps)
                found = []
                for kind in all_kinds(k, args.channels):
                    # The same seeds on both sides.
                    seeds = {row["seed"] for row in chosen(done, kind, samples=n, steps=steps)}
                    both = [row for row in dense if row["seed"] in seeds]
                    own = [row for row in chosen(done, kind, samples=n, steps=steps) if row["seed"] in
                           {row["seed"] for row in both}]  # fmt: skip
                    if own and own[0]["parameters"] <= 0.4 * both[0]["parameters"]:
                        found.append((mean(own) / mean(both), kind.name(), own[0]["parameters"], len(own)))
                for ratio, name, parameters, seeds in sorted(found):
                    lines.append(f"k = {k}, {n} samples, {steps} steps: {name}, {parameters:,} parameters: "
                                 f"{ratio:.3f} of the ordinary error, {seeds} seed(s)")  # fmt: skip
    return lines


def draw(args: argparse.Namespace, record: Record) -> None:
    from matplotlib.figure import Figure

    done = [row for row in record.rows if row["stage"] == "cell" and row["steps"] == args.steps]
    colours = {"dense": "#222222", "kernel": "#d1495b", "cp": "#30638e", "depthwise": "#edae49"}
    names = {"dense": "ordinary, narrowed", **{v: f'"{v}"' for v in VARIANTS}}
    figure = Figure(figsize=(4.2 * len(args.samples), 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(args.samples), sharex=True, sharey=True))
    for axis, n in zip(axes, args.samples, strict=True):
        for k, line, marker in zip(args.kernels, ("-", "--", ":"), "os^", strict=False):
            for variant, colour in colours.items():
                points = []
                for kind in all_kinds(k, args.channels):
                    rows = chosen(done, kind, samples=n) if kind.variant == variant else []
                    if rows:
                        test = [100 * row["test"] for row in rows]
                        points.append((rows[0]["parameters"], np.mean(test), np.std(test)))
                if points:
                    x, y, e = np.array(sorted(points)).T
                    axis.errorbar(x, y, e, color=colour, linestyle=line, marker=marker, markersize=5, capsize=2,
                                  markerfacecolor=colour if k == args.kernels[0] else "white",
                                  label=f"{names[variant]}, k = {k}")  # fmt: skip
        axis.set(xscale="log", xlabel="parameters", title=f"{n} training samples")
        axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test error, % of the field inside")
    handles: dict[str, Any] = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=8)
    args.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.figure, dpi=110)


def report(args: argparse.Namespace, record: Record) -> None:
    for k in args.kernels:
        print("\n".join(table(args, record, k)) + "\n")
    base = record.find(stage="trivial")
    if base:
        print(f"| no network | {' | '.join(f'{n} samples' for n in args.samples)} |")
        print("| --- |" + " --- |" * len(args.samples))
        for name, errors in base["errors"].items():
            print(f"| {name} | {' | '.join(f'{100 * e:.1f}' for e in errors)} |")
    print("\n" + "\n".join(verdicts(args, record)))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data and of what was found")
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 500, 1000])
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--test", type=int, default=NUM_TEST)
    parser.add_argument("--zone", type=int, nargs=3, default=list(Zone()), help="points, frames, points around it")
    parser.add_argument("--full", action="store_true", help="every kind with every number of samples and every seed")
    parser.add_argument("--cells", type=int, help="train at most so many networks")
    parser.add_argument("--as-drawn", action="store_true", help="does not scale samples (see `samples_of`)")
    for word in ("plan", "costs", "report"):
        parser.add_argument(f"--{word}", action="store_true")
    parser.add_argument("--rates", type=float, nargs="+", help="compares these learning rates, with no cell trained")
    parser.add_argument("--figure", type=Path)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> Record:
    args = parse(arguments)
    zone, cells = Zone(*args.zone), plan(args)
    settings = {"zone": args.zone, "channels": args.channels, "batch_size": args.batch_size, "test": args.test,
                "most": max(args.samples)}  # fmt: skip
    settings |= {} if args.as_drawn else {"scaled": True}
    record = Record(args.out / "cells.jsonl", settings)
    done = lambda: [row for row in record.rows if row["stage"] == "cell"]
    if args.plan:
        show(cells, done())
    elif not args.report:
        train_set, test_set = load(args.out, zone, max(args.samples), args.test, not args.as_drawn)
        loss = no.losses.l2(mask=~faces(zone))
        if record.find(stage="trivial") is None:
            record.add(stage="trivial", errors=trivial(train_set, test_set, loss, args.samples))
        if args.costs:
            for kind in dict.fromkeys(kind for k in args.kernels for kind in all_kinds(k, args.channels)):
                if record.find(stage="costs", **kind._asdict()) is None:
                    record.add(stage="costs", **kind._asdict(),
                               **costs(kind, args.channels, train_set[: args.batch_size], loss))  # fmt: skip
        elif args.rates:
            judge, C, k = train_set[-NUM_TEST:], args.channels, args.kernels[0]
            kinds = [
                Kind(k, "dense", C),
                Kind(k, "dense", C // 2),
                *(Kind(k, v, r) for v, r in zip(VARIANTS, (1, C, k), strict=True)),
            ]
            for kind, rate in itertools.product(kinds, args.rates):
                cell = Cell(kind, args.samples[len(args.samples) // 2], 9, args.steps)
                if record.find(stage="rate", rate=rate, **cell.words()) is None:
                    found = train(cell, train_set, judge, loss, optimizer(rate, args.steps), args)
                    print(record.add(stage="rate", rate=rate, **cell.words(), **found), flush=True)
        else:
            left = [cell for cell in cells if record.find(stage="cell", **cell.words()) is None]
            rules: dict[Any, Any] = {}  # one object each, so that seeds share a compilation
            for cell in left[: args.cells]:
                what = (rate_of(cell.kind, args.channels), cell.steps)
                rules[what] = rules.get(what) or optimizer(*what)
                row = record.add(
                    stage="cell", **cell.words(), **train(cell, train_set, test_set, loss, rules[what], args)
                )
                print(row, flush=True)
    if args.report:
        report(args, record)
    if args.figure:
        draw(args, record)
    return record


if __name__ == "__main__":
    main()
