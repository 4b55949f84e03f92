"""Draws `docs/images/mgno_cycle.png`: the learned cycle, level by level.

python docs/figures/mgno_cycle.py
"""

import itertools
from pathlib import Path

from matplotlib.figure import Figure

LEVELS, STEP, DROP = 4, 1.6, 1.25
BLUE, RED, GREY = "#1f77b4", "#d1495b", "#666666"


def main() -> None:
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    ax = figure.subplots()
    ax.set_axis_off()
    down = [(STEP * depth, -DROP * depth) for depth in range(LEVELS)]
    up = [(STEP * (2 * LEVELS - 2 - depth), -DROP * depth) for depth in range(LEVELS - 1)]
    arrow = lambda a, b, colour, style="-": ax.annotate(
        "",
        b,
        a,
        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, "ls": style, "shrinkA": 17, "shrinkB": 17},
    )
    for a, b in itertools.pairwise(down):
        arrow(a, b, BLUE)
        ax.text((a[0] + b[0]) / 2 - 0.12, (a[1] + b[1]) / 2 - 0.16, r"$R f$, $\Pi u$", color=BLUE, ha="right")
    for a, b in zip([down[-1], *reversed(up)], list(reversed(up)), strict=False):
        arrow(a, b, RED)
        ax.text((a[0] + b[0]) / 2 + 0.12, (a[1] + b[1]) / 2 - 0.16, r"$+\,P u$", color=RED, ha="left")
    for a, b in zip(down, up, strict=False):
        arrow(a, b, GREY, ":")
    ax.text((down[0][0] + up[0][0]) / 2, 0.1, r"$u$ and $f$ of the level are kept", color=GREY, ha="center", fontsize=9)
    for points, label in ((down, r"$\nu$"), (up, r"$\nu'$")):
        for depth, (x, y) in enumerate(points):
            ax.plot(x, y, "o", markersize=27, color="white", markeredgecolor="black", markeredgewidth=1.3, zorder=3)
            ax.text(x, y, f"{label[:-1]}_{depth + 1}$", ha="center", va="center", zorder=4)
    ax.annotate(r"$f$", down[0], (-1.3, 0), va="center", arrowprops={"arrowstyle": "-|>", "shrinkB": 17})
    ax.annotate("", (up[0][0] + 1.3, 0), up[0], arrowprops={"arrowstyle": "-|>", "shrinkA": 17})
    ax.text(up[0][0] + 1.4, 0, r"$u$", va="center")
    ax.text(STEP * (LEVELS - 1), 0.75, r"in a circle, so many times:  $u \leftarrow u + S\,(f - A\,u)$", ha="center")
    ax.set(xlim=(-1.6, STEP * (2 * LEVELS - 2) + 1.8), ylim=(-DROP * (LEVELS - 1) - 0.5, 1.05))
    figure.savefig(Path(__file__).parent.parent / "images" / "mgno_cycle.png", dpi=90)


if __name__ == "__main__":
    main()
