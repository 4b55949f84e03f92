"""Linear solvers side by side: neuralops beside PyAMG, solvax, amjax, jNO, SciPy, jax.scipy and lineax.

Every row solves one system of `rivals/problems.py`, in float64 and with a white-noise right-hand side, to a true
relative residual of 1e-8 that is confirmed outside the method (whose own tolerance is tightened where it was too kind).

    python benchmarks/linear_solvers.py --table table.md              # the contenders, about twelve minutes
    python benchmarks/linear_solvers.py --table table.md --all        # everything that was tried, half an hour
    python benchmarks/linear_solvers.py --quick                       # the contenders on tiny grids
    python benchmarks/linear_solvers.py --problems 'lognormal-*' --methods 'ours-*,solvax-*'
    python benchmarks/linear_solvers.py --problems node2d-300 --methods ours-mg22   # a size that is not planned

Columns, in seconds: `first build` is the set-up in a fresh process, compilation included; `setup` the same once
compiled, as new coefficients of the same shape ask for it; `compile` the compilation of the solve; `solve` the median
of `--repeats` runs; `total` is setup + solve, or less where one compiled program of both (`compile all`) is faster.
Sparse matrices are handed over free. Every row runs in a process of its own; a crash, a refusal or a timeout is a row
that says so. With `--table`, rows are kept in a .json beside it and, unless they crashed, not measured again (`--redo`
does). The load average before each row is in the .json too: above the number of cores, times are not fair.

Needs, besides neuralops: pip install pyamg solvax amjax lineax jax-numerical-operators. Rows of missing ones say so.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import multiprocessing
import os
import platform
import time
import traceback
import warnings
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rivals.plan import ITERATION, every_method, planned
from rivals.problems import KINDS, problem

FILES = {
    "ours": "ours", "pyamg": "classical", "scipy": "classical", "solvax": "solvax_mg", "amjax": "amjax_mg",
    "jno": "jno_mg", "jax-cg": "jax_cg", "lineax": "jax_cg", "solvax-cg": "jax_cg",
}  # fmt: skip
PACKAGES = ("jax", "numpy", "scipy", "pyamg", "solvax", "amjax", "jax-numerical-operators", "lineax")
COLUMNS = {
    "first_build": "first build", "setup": "setup", "compile": "compile", "solve": "solve", "total": "total",
    "compile_whole": "compile all", "iterations": "steps", "residual": "true residual",
}  # fmt: skip


def row(name: str, method: str, repeats: int) -> dict[str, Any]:
    """Measures one row, in the process it is called in."""
    if method == ITERATION:
        from rivals.bandwidth import per_iteration

        return per_iteration(problem(name), repeats)
    from rivals.clock import Refused, measure

    module = importlib.import_module(f"rivals.{FILES.get(method) or FILES[method.partition('-')[0]]}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        p = problem(name)
        try:
            result = measure(p, module.METHODS[method](p), repeats)
        except Refused as reason:
            return {"note": f"refused: {reason}"}
    said = {" ".join(str(w.message).split()) for w in caught if w.category in (UserWarning, RuntimeWarning)}
    result["note"] = "; ".join([result["note"]] * bool(result["note"]) + [f"warned: {text}" for text in sorted(said)])
    return result


def child(pipe: Connection, name: str, method: str, repeats: int) -> None:
    start = time.perf_counter()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some libraries greet
    np.random.seed(0)  # noqa: NPY002  PyAMG draws from it
    try:
        result = row(name, method, repeats)
    except ImportError as error:
        result = {"note": f"not installed: {error}"}
    except Exception as error:
        traceback.print_exc()
        result = {"note": f"crashed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    pipe.send({**result, "row_seconds": time.perf_counter() - start})


def measured(context: Any, name: str, method: str, repeats: int, timeout: float) -> dict[str, Any]:
    """One row in a fresh process, whatever happens to it."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, name, method, repeats))
    process.start()
    sender.close()
    result: dict[str, Any] = {"note": f"timed out after {timeout:.0f} s"}
    try:
        if receiver.poll(timeout):
            result = receiver.recv()
    except EOFError:
        process.join()
        result = {"note": f"died with exit code {process.exitcode}"}
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    return result


def number(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "iterations":
        return str(value)
    return f"{value:.1e}" if key == "residual" else f"{value:.3g}"


def tables(rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"| problem | method | {' | '.join(COLUMNS.values())} | note |", "| --- " * (len(COLUMNS) + 3) + "|"]
    for key, result in rows.items():
        if "iteration" not in result:
            cells = " | ".join(number(column, result.get(column)) for column in COLUMNS)
            lines.append(f"| {key.replace('/', ' | ')} | {cells} | {result['note'].replace('|', '/')} |")
    iterations = {key.partition("/")[0]: result for key, result in rows.items() if "iteration" in result}
    if iterations:
        lines += ["", "One CG iteration in float64, by a model of 11 words per unknown (and 1 per axis of faces):", ""]
        lines += ["| problem | method | ms | GB/s by the model | of jax copy | of numpy copy |", "| --- " * 6 + "|"]
    for name, result in iterations.items():
        for method, seconds in result["iteration"].items():
            rate = result["bytes"] / seconds
            of = " | ".join(f"{rate / result['copy'][library]:.2f}" for library in ("jax", "numpy"))
            lines.append(f"| {name} | {method} | {1e3 * seconds:.3g} | {rate / 1e9:.3g} | {of} |")
        copies = ", ".join(f"{library} {rate / 1e9:.3g} GB/s" for library, rate in result["copy"].items())
        lines.append(f"| {name} | copy of 64 MB: {copies} | | | | |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} missing")
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}"


def save(table: Path, rows: dict[str, dict[str, Any]]) -> None:
    """The rows, in the order of the plan, and the table made of them."""
    order = {f"{name}/{method}": i for i, (name, method) in enumerate(planned(True, False) + planned(True, True))}
    rows = dict(sorted(rows.items(), key=lambda item: order.get(item[0], len(order))))
    texts = {table.with_suffix(".json"): json.dumps(rows, indent=1), table: f"{tables(rows)}\n{machine()}\n"}
    for path, text in texts.items():
        partial = path.with_suffix(path.suffix + ".part")
        partial.write_text(text)
        partial.replace(path)


def chosen(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Planned rows that match, and what is written out without being planned."""
    rows, problems, methods = [], arguments.problems.split(","), arguments.methods.split(",")
    matches = lambda name, patterns: any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    written = lambda names: [name for name in names if not set(name) & set("*?[")]
    plan = planned(arguments.all, arguments.quick)
    known = {name for name, _ in plan}
    for name in written(problems):
        new = written(methods) if name in known else every_method() + written(methods)
        rows += [(name, method) for method in new]
    rows = list(dict.fromkeys(plan + rows))
    return [row for row in rows if matches(row[0], problems) and matches(row[1], methods)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--methods", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per row, of which the median is shown")
    parser.add_argument("--table", type=Path, help="Markdown file to write; rows are kept in a .json beside it")
    parser.add_argument("--all", action="store_true", help="also the rows that are not contenders")
    parser.add_argument("--quick", action="store_true", help="tiny grids")
    parser.add_argument("--redo", action="store_true", help="measure finished rows again")
    parser.add_argument("--timeout", type=float, default=240, help="seconds a row may take")
    parser.add_argument("--list", action="store_true", help="only print the rows that would be measured")
    arguments = parser.parse_args()
    todo = chosen(arguments)
    for name in dict.fromkeys(name for name, _ in todo):
        kind, _, points = name.rpartition("-")
        if kind not in KINDS or not points.isdigit():
            parser.error(f"--problems: expected one of {', '.join(KINDS)} and -points, got {name!r}")
    if arguments.list:
        print("\n".join(f"{name} {method}" for name, method in todo))
        return
    # Read when the measuring processes start: double precision, large pages, no stored programs.
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    # Each row is forked from a server that has imported, but not yet used, the common libraries.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rivals.ours", "rivals.classical", "rivals.jax_cg"])
    rows: dict[str, dict[str, Any]] = {}
    if arguments.table and arguments.table.with_suffix(".json").exists():
        rows = json.loads(arguments.table.with_suffix(".json").read_text())
    start = time.perf_counter()
    for i, (name, method) in enumerate(todo, 1):
        key = f"{name}/{method}"
        failed = rows.get(key, {}).get("note", "").startswith(("crashed", "not installed"))
        if key in rows and not failed and not arguments.redo:
            continue
        result = rows[key] = measured(context, name, method, arguments.repeats, arguments.timeout)
        shown = {**COLUMNS, "row_seconds": "row"}
        said = ", ".join(f"{label} {number(k, result[k])}" for k, label in shown.items() if result.get(k) is not None)
        print(f"[{i}/{len(todo)}] {name} {method}: {said} {result.get('note', '')}", flush=True)
        if arguments.table:
            save(arguments.table, rows)
    print(f"\n{tables(rows)}\n{machine()}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
