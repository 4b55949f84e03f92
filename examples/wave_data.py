"""Waves as a data set: trajectories in four media in one file each, and the three tasks they are good for. A picture.

    python examples/wave_data.py                          # about a minute on two cores
    python examples/wave_data.py --num-samples 100 --num-points 128

Every file holds pressure and velocity at some times, the medium, what receivers on a circle hear, and for each sample
an estimate of its discretisation error. Killed, it goes on from its last shard. Report, files and figure lie under
--output; `datasets/wave.py` makes the full sets.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import neuralops as no
from neuralops.pde import waves

MEDIA = {
    "homogeneous": waves.Homogeneous(),
    "layered": waves.Layered((1.0, 2.0), density=(0.5, 2.0)),
    "inclusions": waves.Inclusions((1.5, 2.5), density=(1.0, 3.0), radius=(0.06, 0.2)),
    "maze": waves.Maze(6),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/wave_data"))
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument("--num-points", type=int, default=80, help="cells per side of the box of 2 x 2")
    parser.add_argument("--num-times", type=int, default=9)
    parser.add_argument("--final-time", type=float, default=1.6)
    parser.add_argument("--num-receivers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def problem(medium: waves.Medium, args: argparse.Namespace) -> no.pde.Wave:
    angles = 2 * math.pi * np.arange(args.num_receivers) / args.num_receivers
    circle = np.stack([1 + 0.9 * np.cos(angles), 1 + 0.9 * np.sin(angles)], axis=1)
    return no.pde.Wave(
        (args.num_points, args.num_points),
        domain_extent=2.0,
        walls=("neumann", "absorbing"),
        medium=medium,
        initial=waves.Rings(width=0.1, margin=0.4),
        rigid_above=500.0 if isinstance(medium, waves.Maze) else None,
        final_time=args.final_time,
        num_times=args.num_times,
        velocities=True,
        receivers=circle.tolist(),
        records_per_frame=8,
        rtol=0.02,
    )


def tasks(source: no.data.HDF5Source) -> dict[str, no.data.Samples]:
    """Forward, back in time, and from what is heard to what was there."""
    medium = ["sound_speed", "density"] if "density" in source.lazy().extras else ["sound_speed"]
    return {
        "forward": no.data.pairs(source, inputs=[("pressure", 0), *medium], outputs=("pressure", -1)).load(),
        "time reversal": no.data.pairs(source, inputs=[("pressure", -1), *medium], outputs=("pressure", 0)).load(),
        "inverse source": no.data.pairs(source, inputs="records", outputs=("pressure", 0)).load(),
    }


def draw(sources: dict[str, no.data.HDF5Source], path: Path) -> None:
    shown = 4  # frames
    figure = Figure(figsize=(2.1 * (shown + 2), 2.2 * len(sources)), layout="constrained")
    axes = figure.subplots(len(sources), shown + 2, squeeze=False)
    for row, (name, source) in zip(axes, sources.items(), strict=True):
        sample = source[0]
        times, extras = source.times, sample["extras"]
        medium = extras["sound_speed"] * extras.get("density", 1.0)
        box = {"origin": "lower", "extent": (0, 2, 0, 2)}
        image = row[0].imshow(np.minimum(medium, 10).T, cmap="viridis", **box)
        figure.colorbar(image, ax=row[0], shrink=0.7)
        row[0].set_title("impedance" if "density" in extras else "sound speed", fontsize=8)
        row[0].set_ylabel(name)
        picked = np.linspace(0, len(times) - 1, shown).round().astype(int)
        for axis, i in zip(row[1:-1], picked, strict=True):
            u = sample["inputs"][i, 0]
            size = np.abs(u).max() or 1.0
            axis.imshow(u.T, cmap="RdBu_r", vmin=-size, vmax=size, **box)
            axis.set_title(f"t = {times[i]:.2g}, max {size:.2g}", fontsize=8)
        records = extras["records"]
        size = np.abs(records).max()
        row[-1].imshow(
            records.T, aspect="auto", cmap="RdBu_r", vmin=-size, vmax=size, origin="lower",
            extent=(0, len(records), 0, times[-1]),
        )  # fmt: skip
        row[-1].set_title("receivers, time upwards", fontsize=8)
        for axis in row[:-1]:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(path, dpi=75)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    sources, lines = (
        {},
        ["| medium | samples | seconds | largest error estimate | task | inputs | outputs |", "| --- " * 7 + "|"],
    )
    for name, medium in MEDIA.items():
        started, law = time.perf_counter(), problem(medium, args)
        path = args.output / f"wave_{name}.h5"
        source = no.data.generate(
            law, key=args.seed, num_samples=args.num_samples, path=path, shard_size=2, trajectories=law.frame_fields,
            progress=not args.quiet,
        )  # fmt: skip
        no.data.validate(path)
        assert no.pde.Wave(**source.parameters) == law  # the file knows its problem
        seconds, sources[name] = time.perf_counter() - started, source
        for task, samples in tasks(source).items():
            shapes = [x.shape[1:] for x in (samples.inputs, samples.outputs)]
            error = f"{source.residual_norm.max():.1e}"
            lines.append(f"| {name} | {len(source)} | {seconds:.0f} | {error} | {task} | {shapes[0]} | {shapes[1]} |")
    draw(sources, args.output / "wave_data.png")
    report = "\n".join(lines) + "\n"
    (args.output / "report.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
