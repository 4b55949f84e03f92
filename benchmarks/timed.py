"""What benchmarks of training share: training for a given time, a record that a killed run goes on from, a table."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import neuralops as no
from neuralops.data import Samples


def train_for(
    op: Any, train: Samples, objective: Any, *, seconds: float, batch_size: int, learning_rate: float, seed: int,
    progress: bool = False, clock: Callable[[], float] = time.perf_counter,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Trains with AdamW for as many epochs as fit into the time, as steps of three short epochs before tell.

    The learning rate falls as a cosine to the end. On a machine with other work `clock=time.process_time` counts only
    what this process has used. **Returns:** the operator, and parameters, steps and seconds.
    """
    size, steps = sum(leaf.size for leaf in jax.tree.leaves(op)), len(train) // batch_size
    fit = functools.partial(
        no.fit, objective=objective, batch_size=batch_size, key=jax.random.key(100 + seed), drop_last=True,
        progress=progress,
    )  # fmt: skip
    few, ends = train[: 20 * batch_size], []
    fit(op, few, optimizer=optax.adam(1e-9), num_epochs=3, callback=lambda *_: ends.append(clock()))
    step = float(np.diff(ends).min()) / (len(few) // batch_size)
    epochs = max(round(seconds / (steps * step)), 1)
    rate = optax.cosine_decay_schedule(learning_rate, epochs * steps)
    began = clock()
    op, _ = fit(op, train, optimizer=optax.adamw(rate, weight_decay=1e-4), num_epochs=epochs)
    seconds = clock() - began
    return op, {"parameters": size, "steps": epochs * steps, "seconds": round(seconds, 1)}


class Record:
    """Lines of JSON, one for each thing done, of one choice of settings; what is on record is not done again."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if not self.rows:
            self.add(stage="settings", **settings)
        elif self.find(stage="settings", **settings) is None:
            raise SystemExit(f"--output: expected a record of these settings in {path}, got others; name another.")

    def find(self, **what: Any) -> dict[str, Any] | None:
        return next((row for row in self.rows if what.items() <= row.items()), None)

    def add(self, **row: Any) -> dict[str, Any]:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def runs(record: Path, wanted: list[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """All that is on record, after `run(**what)` of each of `wanted` that is not, printed and recorded as it ends."""
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    for what in wanted:
        if any(what.items() <= row.items() for row in rows):
            continue
        rows.append({**what, **run(**what)})
        print(rows[-1], flush=True)
        with record.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    return rows


def table(
    rows: list[dict[str, Any]], trivial: list[dict[str, Any]], errors: Mapping[str, str], labelled: Container[str]
) -> str:
    """Means over seeds with their deviations, in %; `errors` has the headings of the entries that are errors."""
    lines = [
        f"| method | labels | parameters | steps | seconds | {' | '.join(errors.values())} |",
        "| --- | --- | --- | --- | --- |" + " --- |" * len(errors),
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        found = []
        for name in errors:
            e = 100 * np.array([row[name] for row in own])
            found.append(f"{e.mean():.2f}" + (f" ± {e.std(ddof=1):.2f}" if len(e) > 1 else ""))
        labels = "yes" if method in labelled else "no"
        steps, seconds = (f"{np.mean([row[name] for row in own]):,.0f}" for name in ("steps", "seconds"))
        lines.append(f"| {method} | {labels} | {own[0]['parameters']:,} | {steps} | {seconds} | {' | '.join(found)} |")
    for row in trivial:
        found = [f"{100 * row[name]:.2f}" for name in errors]
        labels = "yes" if row.get("labels", True) else "no"
        lines.append(f"| {row['method']} | {labels} | | | | {' | '.join(found)} |")
    return "\n".join(lines)
