"""Draws `docs/images/wave_media.png`: one row of samples for every law of an acoustic medium.

python docs/figures/wave_media.py
"""

from pathlib import Path

import jax
from matplotlib.figure import Figure

from neuralops.grid import Grid
from neuralops.pde.waves import Checkerboard, Fault, Inclusions, Layered, Lens, LogNormal, Maze

COLUMNS, POINTS = 4, 200
LAWS = {
    "Layered": Layered(roughness=0.02, min_thickness=0.06),
    "Fault": Fault(num_layers=(5, 9), min_thickness=0.05),
    "LogNormal": LogNormal(deviation=0.25, correlation_length=0.15),
    "Inclusions": Inclusions(num_inclusions=(4, 12), aspect=(1.0, 2.5)),
    "Checkerboard": Checkerboard(num_cells=6, shift=True),
    "Lens": Lens(),
    "Maze": Maze(8, wall_thickness=0.3),
}


def main() -> None:
    grid = Grid((POINTS, POINTS), 1.0, "neumann", "cell")
    figure = Figure(figsize=(1.5 * COLUMNS + 1.9, 1.55 * len(LAWS)), layout="constrained")
    rows = figure.subplots(len(LAWS), COLUMNS)
    for i, (row, (name, law)) in enumerate(zip(rows, LAWS.items(), strict=True)):
        channel = int(name.startswith("Maze"))
        keys = jax.random.split(jax.random.key(i), COLUMNS)
        fields = jax.vmap(lambda key, law=law: law.sample(key, grid))(keys)[:, channel]
        low, high = float(fields.min()), float(fields.max())
        for ax, field in zip(row, fields, strict=True):
            # The last axis points down, as depth does.
            image = ax.imshow(field.T, extent=(0, 1, 1, 0), cmap="viridis", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
        figure.colorbar(image, ax=row, shrink=0.9, label="density" if channel else "sound speed")
    figure.savefig(Path(__file__).parent.parent / "images" / "wave_media.png", dpi=90)


if __name__ == "__main__":
    main()
