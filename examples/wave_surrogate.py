"""Learned steps of waves in media, rolled out far beyond training: which form of a step helps, and by how much.

    python examples/wave_surrogate.py                 # three forms, two minutes on two cores
    python examples/wave_surrogate.py --full          # all ten

Trajectories of pulses in log-normal media between rigid walls, where energy stays. A Fourier neural operator makes the
next frame of the medium and the last two frames, with as many updates in each of the forms that are compared. Rollouts
run over twice the time that training has seen. Report, a strip of frames, an animation and the errors lie under
--output.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import neuralops as no
from neuralops.data import Normalized, Normalizer
from neuralops.pde import waves

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "noise": {"noise": 0.01},
    "unrolled, 4 steps": {"unroll": 4},
    "truncated": {"truncate": True},
    "residual": {"residual": True},
    "residual, contraction": {"residual": True, "contraction": 0.99},
    "residual, noise": {"residual": True, "noise": 0.003},
    "residual, unrolled": {"residual": True, "unroll": 4},
    "residual, unrolled, truncated": {"residual": True, "unroll": 4, "truncate": True},
    "all": {"residual": True, "contraction": 0.99, "noise": 0.003, "unroll": 4, "truncate": True},
}
SHOWN = ("plain", "residual", "all")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/wave_surrogate"))
    parser.add_argument("--num-points", type=int, default=24, help="cells per side")
    parser.add_argument("--num-train", type=int, default=48, help="trajectories")
    parser.add_argument("--num-test", type=int, default=16)
    parser.add_argument("--num-steps", type=int, default=20, help="steps seen in training; rollouts take twice as many")
    parser.add_argument("--dt", type=float, default=0.05, help="time between two frames")
    parser.add_argument("--updates", type=int, default=200, help="of each network")
    parser.add_argument("--forms", nargs="+", default=list(SHOWN), choices=list(FORMS), metavar="FORM")
    parser.add_argument("--full", action="store_const", dest="forms", const=list(FORMS), help="compares every form")
    parser.add_argument("--threshold", type=float, default=0.2, help="a prediction is valid up to this relative error")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def problem(args: argparse.Namespace) -> no.pde.Wave:
    return no.pde.Wave(
        (args.num_points,) * 2,
        walls="neumann",
        medium=waves.LogNormal(1.0, deviation=0.25, correlation_length=0.2),
        initial=waves.Rings(count=(1, 3), radius=(0.0, 0.15), width=0.12),
        final_time=args.dt * (2 * args.num_steps + 1),
        num_times=2 * args.num_steps + 2,
        rtol=0.02,
    )


def step_of(form: dict[str, Any], frames: no.data.Samples, args: argparse.Namespace, seed: int) -> Any:
    """The medium and two frames to the next one, (3, x, y) to (1, x, y), in one of the forms."""
    network = no.FNO((12, 12), 3, 1, 16, n_layers=3, boundary="neumann", centering="cell", key=jax.random.key(seed))
    u, c = frames.inputs, np.repeat(frames.extras["sound_speed"][:, None], frames.inputs.shape[1] - 2, axis=1)
    states = np.concatenate([c[:, :, None], u[:, :-2], u[:, 1:-1]], axis=2)
    target = u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2] if form.get("residual") else u[:, 2:]
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    op: Any = Normalized(network, Normalizer.fit(flat(states)), Normalizer.fit(flat(target)))
    if form.get("residual"):
        op = no.Residual(op, order=1, contraction=form.get("contraction"))
    if form.get("truncate"):
        op = no.Truncated(op, (12, 12), boundary="neumann", centering="cell")
    return op


def train(form: dict[str, Any], frames: no.data.Samples, args: argparse.Namespace, seed: int) -> tuple[Any, float]:
    num_steps, batch_size = form.get("unroll", 1), 24
    pairs = no.data.windows(frames, history=2, horizon=num_steps, constants="sound_speed")
    updates = len(pairs) // batch_size  # an epoch
    epochs = max(1, round(args.updates / updates))
    begin = time.perf_counter()
    op, _ = no.fit(
        step_of(form, frames, args, seed),
        pairs.load(),
        objective=no.losses.rollout(num_steps, no.losses.l2(), constants=1, noise=form.get("noise", 0.0)),
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, epochs * updates)),
        num_epochs=epochs,
        batch_size=batch_size,
        key=jax.random.key(seed + 1),
        drop_last=True,
        progress=False,
    )
    return op, time.perf_counter() - begin


def judge(prediction: np.ndarray, truth: np.ndarray, c: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """Relative L2 of each step, valid time and drift of the energy: means over the trajectories."""
    n, h = truth.shape[1], 1 / args.num_points

    def one(p: jax.Array, t: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
        def energy(pair: jax.Array) -> jax.Array:  # |u_t|^2 / c^2 + |grad u|^2 between two frames
            middle = pair.mean(axis=0)
            slopes = sum(jnp.sum(jnp.diff(middle, axis=axis) ** 2) for axis in (0, 1)) / h**2
            return jnp.sum(((pair[1] - pair[0]) / args.dt / c) ** 2) + slopes

        errors = no.metrics.per_step(no.metrics.relative_l2, n)(p, t)
        valid = no.metrics.valid_time(n, args.threshold, args.dt)(p, t)
        return errors, valid, no.metrics.energy_drift(n, energy, frames=2)(p, t)

    errors, valid, drift = jax.jit(jax.vmap(one))(prediction, truth, c)
    return {
        "errors": np.asarray(errors).mean(axis=0),
        "valid": float(valid.mean()),
        "drift": float(jnp.median(drift[:, -1])),
    }


def table(results: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> str:
    n = 2 * args.num_steps
    picked = sorted({1, args.num_steps // 2, args.num_steps, n} - {0})
    head = ["relative L2 in %", *(f"step {i}" for i in picked), "valid time", "energy at the end", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    spread = lambda x, digits: f"{np.mean(x):.{digits}f}" + (f" ± {np.std(x):.{digits}f}" if len(x) > 1 else "")
    for name, runs in results.items():
        cells = [spread([100 * run["errors"][i - 1] for run in runs], 1) for i in picked]
        cells += [spread([run["valid"] for run in runs], 2), spread([100 * run["drift"] for run in runs], 0) + " %"]
        seconds = np.mean([run["seconds"] for run in runs])
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def strip(fields: dict[str, np.ndarray], results: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> Figure:
    """Frames of one trajectory, one row a form; below, the errors over time."""
    n = 2 * args.num_steps
    picked = [i for i in (args.num_steps // 4, args.num_steps // 2, args.num_steps, 3 * n // 4, n) if i > 0]
    figure = Figure(figsize=(2 * len(picked), 2 * len(fields) + 3.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2 * len(fields), 3.2))
    axes = upper.subplots(len(fields), len(picked), squeeze=False)
    for row, (name, frames) in zip(axes, fields.items(), strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for axis, i in zip(row, picked, strict=True):
            size = np.abs(fields["solver"][i - 1]).max()  # one scale for a column
            axis.imshow(frames[i - 1].T, origin="lower", cmap="RdBu_r", vmin=-size, vmax=size)
            axis.set(xticks=[], yticks=[])
            if name == "solver":
                late = ", not trained" if i > args.num_steps else ""
                axis.set_title(f"t = {i * args.dt:.2g}{late}", fontsize=9)
    axis, after = lower.subplots(), args.dt * np.arange(1, n + 1)
    for name, runs in results.items():
        if name in (*SHOWN, "residual, unrolled", "line through two frames"):
            axis.semilogy(after, 100 * np.mean([run["errors"] for run in runs], axis=0), label=name)
    axis.axvline(args.dt * args.num_steps, color="grey", linestyle=":", linewidth=0.8)
    axis.set(xlabel="time; left of the dotted line as in training", ylabel="relative L2 in %", ylim=(None, 400))
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8, ncols=2)
    return figure


def animation(fields: dict[str, np.ndarray], path: Path, args: argparse.Namespace) -> None:
    figure = Figure(figsize=(2.4 * len(fields), 2.7), layout="constrained")
    axes, size = figure.subplots(1, len(fields), squeeze=False)[0], np.abs(fields["solver"]).max() * 0.7
    images = []
    for axis, (name, frames) in zip(axes, fields.items(), strict=True):
        images.append(axis.imshow(frames[0].T, origin="lower", cmap="RdBu_r", vmin=-size, vmax=size))
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, fontsize=9)

    def show(i: int) -> list[Any]:
        for image, frames in zip(images, fields.values(), strict=True):
            image.set_data(frames[i].T)
        figure.suptitle(f"t = {(i + 1) * args.dt:.2f}", fontsize=9)
        return images

    FuncAnimation(figure, show, frames=2 * args.num_steps).save(path, writer=PillowWriter(fps=8))


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    law, n = problem(args), 2 * args.num_steps
    make = lambda key, count: no.data.generate(
        law, key=key, num_samples=count, trajectories="pressure", dtype="float32", progress=not args.quiet
    )
    train_set, test = make(0, args.num_train), make(1, args.num_test)
    seen = train_set.replace(inputs=train_set.inputs[:, : args.num_steps + 2])
    c, start, truth = test.extras["sound_speed"], test.inputs[:, :2, 0], test.inputs[:, 2:, 0]
    states = np.concatenate([c[:, None], start], axis=1)

    results: dict[str, list[dict[str, Any]]] = {}
    fields = {"solver": truth[0]}
    bar = tqdm([(name, seed) for seed in range(args.seeds) for name in args.forms], disable=args.quiet)
    for name, seed in bar:
        bar.set_description(name)
        op, seconds = train(FORMS[name], seen, args, seed)
        rolled = np.asarray(jax.jit(jax.vmap(no.Rollout(op, n, constants=1)))(states))
        results.setdefault(name, []).append({**judge(rolled, truth, c, args), "seconds": seconds})
        if name in SHOWN and seed == 0:
            fields[name] = rolled[0]
        (args.output / "report.md").write_text(table(results, args) + "\n")  # what is there, if it is stopped
    line = start[:, 1:] + np.arange(1, n + 1).reshape(-1, 1, 1) * (start[:, 1:] - start[:, :1])
    for name, guess in (("last frame stays", np.repeat(start[:, 1:], n, axis=1)), ("line through two frames", line)):
        results[name] = [{**judge(guess, truth, c, args), "seconds": 0.0}]
    text = table(results, args) + "\n"
    (args.output / "report.md").write_text(text)
    print(text)
    strip(fields, results, args).savefig(args.output / "wave_surrogate.png", dpi=100)
    animation(fields, args.output / "wave_surrogate.gif", args)


if __name__ == "__main__":
    main()
