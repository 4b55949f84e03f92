"""Draws `docs/images/architecture.png` and `architecture_solvers.png`: the rooms of the package and who imports whom.

python docs/figures/architecture.py

The floors come from the contracts in `pyproject.toml`, the rooms from the folders, the lines from the imports.
"""

import ast
import textwrap
import tomllib
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

ROOT = Path(__file__).parents[2]
INK = "#2b2d42"
LEARNED, CLASSICAL = ("#dbe9f6", "#2f6fab"), ("#fbe3d6", "#c8553d")
SHARED, GROUND = ("#e6f0e0", "#5b8c4a"), ("#ece8e1", "#85796a")
# Where a room stands from left to right (0 to 12), and its colour; the floor is the contract's.
HOUSE = {
    "plotting": (4.0, 8.0, SHARED), "training": (0.0, 12.0, SHARED), "interop": (8.6, 12.0, SHARED),
    "wrappers": (1.9, 4.2, SHARED), "checkpoint": (4.4, 6.8, SHARED), "sharding": (9.1, 12.0, CLASSICAL),
    "inverse": (5.3, 7.95, SHARED), "models": (0.0, 3.1, LEARNED), "pde": (9.6, 12.0, CLASSICAL),
    "nn": (0.0, 3.9, LEARNED), "data": (4.3, 6.7, SHARED), "solvers": (8.1, 12.0, CLASSICAL),
    "operator": (0.0, 6.4, GROUND), "grid": (8.1, 11.0, GROUND), "transforms": (9.45, 11.0, GROUND),
    "continuation": (7.7, 9.3, GROUND),
    "arguments": (0.0, 4.3, GROUND), "extras": (4.45, 7.15, GROUND), "transposition": (7.3, 9.5, GROUND),
    "scale": (9.65, 12.0, GROUND),
}  # fmt: skip
SOLVERS = {
    "inverse": (0.0, 5.9, SHARED), "learning": (6.1, 12.0, LEARNED), "linear_solve": (0.0, 12.0, SHARED),
    "krylov": (0.0, 3.9, CLASSICAL), "multigrid": (4.05, 7.95, CLASSICAL), "direct": (8.1, 12.0, CLASSICAL),
    "solution": (0.0, 3.9, GROUND), "elliptic": (4.05, 12.0, GROUND), "algebra": (0.0, 12.0, GROUND),
}  # fmt: skip


def floors(package: str) -> list[list[str]]:
    """The rooms of a package by floor, the highest first, as the contract says."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers" and c["containers"] == [package])
    named = [[room.strip(" ()") for room in layer.split("|")] for layer in layers]
    return [[room for room in floor if home(package, room).exists()] for floor in named]


def home(package: str, room: str) -> Path:
    folder = ROOT / package.replace(".", "/") / room
    return folder if folder.is_dir() else folder.with_suffix(".py")


def files(package: str, room: str) -> list[Path]:
    place = home(package, room)
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def about(package: str, room: str) -> str:
    """The first clause of what a room says of itself."""
    place = home(package, room)
    text = ast.get_docstring(ast.parse((place / "__init__.py" if place.is_dir() else place).read_text()))
    sentence = text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".").replace("`", "")
    clause = sentence.split(":")[0].split(";")[0]
    return clause if " " in clause else sentence


def contents(package: str, room: str) -> str:
    place = home(package, room)
    inside = place.iterdir() if place.is_dir() else []
    return "  ".join(sorted(p.stem for p in inside if not p.stem.startswith("__")))


def imports(package: str, rooms: list[str]) -> dict[tuple[str, str], int]:
    """How many import statements of one room name another."""
    found: dict[tuple[str, str], int] = {}
    for room in rooms:
        for node in (n for file in files(package, room) for n in ast.walk(ast.parse(file.read_text()))):
            if isinstance(node, ast.ImportFrom):
                full = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                full = [alias.name for alias in node.names]
            else:
                continue
            named = {name[len(package) + 1 :].split(".")[0] for name in full if name.startswith(package + ".")}
            for other in named & set(rooms) - {room}:
                found[room, other] = found.get((room, other), 0) + 1
    return found


def not_implied(edges: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The imports that no chain of other imports implies."""
    reach = set(edges)
    rooms = {room for edge in edges for room in edge}
    for b, a, c in product(rooms, repeat=3):
        if (a, b) in reach and (b, c) in reach:
            reach.add((a, c))
    return {(a, c): n for (a, c), n in edges.items() if not any((a, b) in reach and (b, c) in reach for b in rooms)}


def words(package: str, room: str, width: float) -> list[tuple[str, bool]]:
    """The lines in a box, and whether they list files."""
    said = textwrap.wrap(about(package, room), int(width * 9.5))
    return [(line, False) for line in said] + [
        (line, True) for line in textwrap.wrap(contents(package, room), int(width * 10.5))
    ]


def draw(package: str, places: dict, name: str, title: str, roof: bool) -> None:
    rows = [floor for floor in floors(package) if floor]
    rooms = [room for floor in rows for room in floor]
    inside = {room: words(package, room, places[room][1] - places[room][0]) for room in rooms}
    bottom, top, height = {}, {}, 0.0
    for floor in reversed(rows):
        tall = 0.62 + 0.22 * max(len(inside[room]) for room in floor)
        bottom |= dict.fromkeys(floor, height)
        top |= dict.fromkeys(floor, height + tall)
        height += tall + 0.62
    height -= 0.62
    eaves = bottom[rows[0][0]] - 0.28
    high = eaves + 2.9 if roof else height + 0.1
    figure = Figure(figsize=(11, 0.78 * (high + 1.0)), layout="constrained")
    ax = figure.subplots()
    ax.set_axis_off()
    if roof:
        wall, fill = "#b9ab9a", "#f7f1ea"
        gable = [(-0.9, eaves), (12.9, eaves), (6, high)]
        ax.add_patch(Polygon(gable, facecolor=fill, edgecolor=wall, lw=2, joinstyle="round", zorder=0))
        ax.plot([-0.4, -0.4, 12.4, 12.4], [eaves, -0.35, -0.35, eaves], color=wall, lw=2, zorder=0)
        ax.plot([-0.9, 12.9], [-0.35, -0.35], color=wall, lw=3, zorder=0)
        ax.text(6, (high + height) / 2 + 0.12, title, ha="center", va="center", fontsize=17, weight="bold", color=INK)
        legend = {"learned tower": LEARNED, "classical tower": CLASSICAL, "where they meet": SHARED, "ground": GROUND}
        for i, (text, (_, colour)) in enumerate(legend.items()):
            ax.text(1.5 + 3 * i, -0.68, f"\u25a0 {text}", ha="center", va="center", fontsize=10, color=colour)
    else:
        ax.set_title(title, color=INK, fontsize=14, weight="bold")
    lines = not_implied(imports(package, rooms))
    middle = lambda room: sum(places[room][:2]) / 2

    def free(room: str, other: str, low: float, far: float) -> list[float]:
        """Where between `low` and `far` a straight line from one floor to the other meets no third room."""
        between = sorted((bottom[room], bottom[other]))
        hidden = [places[r] for r in rooms if between[0] < bottom[r] < between[1]]
        steps = [x / 20 for x in range(round(20 * low) + 3, round(20 * far) - 2)]
        return [x for x in steps if not any(h[0] - 0.25 < x < h[1] + 0.25 for h in hidden)]

    def ends(a: str, b: str) -> tuple[float, float]:
        """Where a line leaves a room and meets the other: straight, or sideways below the one that it leaves."""
        low, far = max(places[a][0], places[b][0]), min(places[a][1], places[b][1])
        if straight := free(a, b, low, far):
            x = min(straight, key=lambda x: abs(x - (low + far) / 2))
            return x, x
        share = lambda room, other, crowd: (
            places[room][0]
            + (places[room][1] - places[room][0])
            * ((sorted(crowd, key=middle).index(other) + 0.5) / (len(crowd) + 0.6))
        )
        x0, x1 = share(a, b, [d for c, d in lines if c == a]), share(b, a, [c for c, d in lines if d == b])
        sideways = free(a, b, *places[b][:2])
        if not sideways:  # drawn behind a third room, the line would seem to be that room's
            raise ValueError(f"places: no way from {a} to {b} beside those between; narrow one.")
        return x0, min(sideways, key=lambda x: abs(x - x1))

    for (a, b), n in lines.items():
        (x0, x1), y0, y1 = ends(a, b), bottom[a], top[b] + 0.06
        lane, r = y0 - 0.3 - 0.05 * (rooms.index(a) % 3 - 1), 0.14 if x1 > x0 else -0.14
        path = [(x0, y0), (x0, lane + 0.14), (x0, lane), (x0 + r, lane), (x1 - r, lane), (x1, lane), (x1, lane - 0.14)]
        curve = Curve([*path, (x1, y1)], [1, 2, 3, 3, 2, 3, 3, 2]) if x0 != x1 else Curve([(x0, y0), (x1, y1)])
        colour = places[a][2][1]
        ax.add_patch(PathPatch(curve, fill=False, edgecolor=colour, lw=0.9 + 0.45 * n**0.5, alpha=0.85, zorder=1))
        ax.plot(x1, y1 + 0.02, marker="v", color=colour, markersize=6, zorder=3)
    for room in rooms:
        left, right, (fill, edge) = places[room]
        low, tall = bottom[room], top[room] - bottom[room]
        look = {"boxstyle": "round,pad=0,rounding_size=0.14", "fc": fill, "ec": edge, "lw": 1.4}
        ax.add_patch(FancyBboxPatch((left, low), right - left, tall, zorder=2, **look))
        x, y = middle(room), low + tall / 2 + 0.11 * len(inside[room])
        ax.text(x, y, room, ha="center", va="center", fontsize=12, weight="bold", color=edge, zorder=4)
        for i, (line, small) in enumerate(inside[room]):
            look = {"fontsize": 7.2, "color": edge, "family": "monospace"} if small else {"fontsize": 8.8, "color": INK}
            ax.text(x, y - 0.28 - 0.22 * i, line, ha="center", va="center", zorder=4, **look)
    ax.set(xlim=(-1.0, 13.0), ylim=(-0.9 if roof else -0.1, high))
    figure.savefig(ROOT / "docs" / "images" / f"{name}.png", dpi=100)


def main() -> None:
    draw("neuralops", HOUSE, "architecture", "neuralops", roof=True)
    draw("neuralops.solvers", SOLVERS, "architecture_solvers", "The rooms of neuralops/solvers", roof=False)


if __name__ == "__main__":
    main()
