"""`WaveEquation` beside j-Wave, Devito, deepwave and NumPy: points stepped per second, in turns, on the same cores.

    python -m venv jwave && jwave/bin/pip install jwave              # 0.2.1 keeps JAX below 0.5
    python -m venv devito && devito/bin/pip install devito           # compiles C: needs gcc
    python -m venv deepwave && deepwave/bin/pip install deepwave torch
    python benchmarks/wave_peers.py --cores 1 --jwave jwave/bin/python --devito devito/bin/python \\
        --deepwave deepwave/bin/python --record rows.json

Each code waits in a process and an environment of its own (`rivals/wave_codes.py`), bound to `--cores` with as many
threads. First all step the same pulse in the same medium, from rest and away from walls, and the last field is compared
with ours: "difference" is the largest over the largest value. Then they take turns at noise: medians of the points
stepped in a second, and of the ratio within a turn. Compilation and a first run are not counted.

"of copy": bytes moved a second, at four words a point (two fields and the speed read, one written), over those of a
copy in NumPy on one core, of fields of the size stepped, so in the cache where they are. On one core processor time is
counted, so that other work there disturbs little. A warning says where processes waited for a core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

WORKER = Path(__file__).parent / "rivals" / "wave_codes.py"
ORDERS = (2, 4, 8, "spectral")
PACE = {"ours": 1.0, "ours, density": 0.5, "Devito": 2.0, "deepwave": 1.0, "NumPy": 0.3, "j-Wave": 0.1}
STEPS = {2: 200, 3: 80}  # of the pulse, which does not reach the walls in them
WORDS = 4
WAITED = 1.1  # wall over processor time from which a turn counts as disturbed


class Code:
    """A process that answers one line for each it is given."""

    def __init__(self, name: str, python: str, cores: str, threads: int) -> None:
        self.name = name
        own = name.startswith("ours") or name == "NumPy"
        path = str(Path(__file__).parents[1]) if own else ""
        more = {"OMP_NUM_THREADS": str(threads), "DEVITO_ARCH": "gcc", "DEVITO_LANGUAGE": "openmp"}
        command = ["taskset", "-c", cores, python, str(WORKER), name, "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **more, "DEVITO_LOGGING": "ERROR", "PYTHONPATH": path},
        )  # fmt: skip
        self.version = self._answer()["version"]

    def ask(self, **task: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer; run {WORKER.name} by hand to see why.")
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    codes: list[Code], shape: tuple[int, ...], order: Any, walls: str, point_steps: float, rounds: int, alone: bool
) -> list[dict[str, Any]]:
    """A row for each code that has such a scheme; `alone`: by processor time, as one thread has it."""
    points = math.prod(shape)
    case = {"shape": shape, "order": order, "walls": walls}
    fields: dict[str, np.ndarray] = {}
    steps: dict[str, int] = {}
    pace = 0.1 if order == "spectral" else 1.0
    with tempfile.TemporaryDirectory() as folder:
        for code in codes:
            answer = code.ask(do="prepare", **case, steps=STEPS[len(shape)], start="pulse")
            if "refused" in answer:
                continue
            path = str(Path(folder) / "field.npy")
            code.ask(do="field", path=path)
            fields[code.name] = np.load(path)
            share = 0.1 if code.name == "j-Wave" and order == "spectral" else pace * PACE[code.name]
            steps[code.name] = max(round(share * point_steps / points), 10)
            code.ask(do="prepare", **case, steps=steps[code.name], start="noise")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    waited: dict[str, list[float]] = {name: [] for name in steps}
    copies: list[float] = []
    taking = [code for code in codes if code.name in steps]
    for turn in range(rounds):
        for code in taking if turn % 2 == 0 else taking[::-1]:
            answer = code.ask(do="time")
            taken = answer["used" if alone else "seconds"]
            seconds[code.name].append(taken / (steps[code.name] * points))
            waited[code.name].append(answer["seconds"] / answer["used"])
        copies.append(codes[0].ask(do="copy", points=points, times=max(round(2e8 / points), 1))["seconds"] / points)
    rows = []
    for name in steps:
        ratios = [theirs / mine for theirs, mine in zip(seconds[name], seconds["ours"], strict=True)]
        of_copy = [WORDS / 2 * c / s for c, s in zip(copies, seconds[name], strict=True)]
        rows.append({
            **case, "code": name, "rate": 1e-6 / statistics.median(seconds[name]), "ratio": statistics.median(ratios),
            "ratios": [round(r, 2) for r in sorted(ratios)], "copy": statistics.median(of_copy),
            "gigabytes": 8e-9 / statistics.median(copies), "waited": statistics.median(waited[name]),
            "difference": float(np.abs(fields[name] - fields["ours"]).max() / np.abs(fields["ours"]).max()),
        })  # fmt: skip
    return rows


def line(row: dict[str, Any]) -> str:
    size = " x ".join(map(str, row["shape"]))
    numbers = [f"{row['rate']:.0f}", f"{row['ratio']:.2f}", f"{row['ratios'][0]} to {row['ratios'][-1]}"]
    numbers += [f"{row['difference']:.0e}", f"{row['copy']:.2f}"]
    return f"| {size} | {row['walls']} | {row['order']} | {row['code']} | {' | '.join(numbers)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("jwave", "devito", "deepwave"):
        parser.add_argument(f"--{name}", help="interpreter of its environment; left out without")
    parser.add_argument("--cores", default="0", help="as taskset takes them: 0, or 0,1")
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x512", "96x96x96"])
    parser.add_argument("--orders", nargs="+", default=[str(order) for order in ORDERS])
    parser.add_argument("--walls", nargs="+", default=["own", "absorbing"], choices=["own", "absorbing"])
    parser.add_argument("--point-steps", type=float, default=2e8, help="of one turn of ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", type=Path, help="keeps the rows as JSON")
    arguments = parser.parse_args()
    threads = len(arguments.cores.split(","))
    pythons = {"ours": sys.executable, "ours, density": sys.executable, "NumPy": sys.executable}
    pythons |= {"j-Wave": arguments.jwave, "Devito": arguments.devito, "deepwave": arguments.deepwave}
    codes = [Code(name, python, arguments.cores, threads) for name, python in pythons.items() if python]
    print(f"Cores {arguments.cores}; " + ", ".join(f"{code.name} {code.version}" for code in codes[2:]) + "\n")
    print("| grid | walls | order | code | million points a second | ours over it | turns | difference | of copy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        shape = tuple(map(int, size.split("x")))
        for walls in arguments.walls:
            for order in ORDERS:
                if str(order) not in arguments.orders or (walls == "absorbing" and order in (2, "spectral")):
                    continue
                new = measure(codes, shape, order, walls, arguments.point_steps, arguments.rounds, threads == 1)
                rows += new
                print("\n".join(map(line, new)), flush=True)
                for row in new:
                    if row["waited"] > WAITED:
                        print(f"{row['code']} waited for a core: {row['waited']:.2f}", file=sys.stderr)
                if arguments.record:
                    arguments.record.write_text(json.dumps(rows, indent=1))
    for code in codes:
        code.end()


if __name__ == "__main__":
    main()
