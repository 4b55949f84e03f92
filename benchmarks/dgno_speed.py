"""Time of a training step of DGNO without labels: beside one with labels, and beside PyTorch with the authors' code.

    git clone https://github.com/yaohua32/DGenNO && git -C DGenNO checkout f6e939e
    python benchmarks/dgno_speed.py turns --checkout DGenNO --torch-python TORCH/bin/python --out outputs/dgno_speed

A step is loss, gradient and Adam's update, on test functions drawn anew. The halves may live in two environments:
`torch` needs torch, scipy, matplotlib and scienceplots (the authors' tools import them), `jax` needs neuralops. `turns`
calls both in rounds, the one after the other, and prints the table; or, by hand,

    TORCH/bin/python benchmarks/dgno_speed.py torch --checkout DGenNO --out theirs.json
    python benchmarks/dgno_speed.py jax --theirs theirs.npz --out ours.json
    python benchmarks/dgno_speed.py table theirs.json ours.json

Two problems of published sizes: `smooth` Darcy in primal form (batch 50, 45 quadrature points a ball) and `two_phase`
Darcy in mixed form (batch 25, 25 points), 100 balls of radius 1e-4. Theirs: `published`, the networks that take the
points of every sample anew, with their interpolator, as the notebooks call them; `shared`, their networks for a
Cartesian product, the points taken once, slopes in forward mode and the interpolator's matrix factored once, the best
that we could make of their code; `compiled`, the networks of `published` by `torch.compile` with the interpolator of
`shared` (forward mode does not compile in PyTorch 2.14). Both sides encode a batch once a step.

`theirs.npz` has weights, centres and inputs of a small batch; `jax` says how far the two losses are apart on it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from dgno_peer import FORCING, FORMS, NODES, PROBLEMS, RADIUS, TOP, clock, coefficients, media, peer
from turns import ALLOCATORS

BAR = 0.7  # our step at most this share of theirs, at the same points


# The half with JAX.


def objective(problem: str, num_centers: int, equation: Any = None, **ball: Any) -> Any:
    """The published loss; an equation of its own takes the place of the weak form."""
    import neuralops as no

    smooth = problem == "smooth"
    if equation is None:
        equation = weak(problem, num_centers, **ball)
    kind = {"top": TOP} if smooth else {"order": 0, "weights": {"balance": num_centers**0.5}}
    if isinstance(equation, no.pde.BalancedDarcy):
        kind = {"order": 0}
    terms = {"pde": no.losses.virtual_observables(equation, **kind), "data": no.losses.reconstruction()}
    return no.losses.weighted_sum(terms, {"data": PROBLEMS[problem]["data"]})


def weak(problem: str, num_centers: int, rule: str, **ball: Any) -> Any:
    import neuralops as no

    published = {"num_points": PROBLEMS[problem]["across"], "corrected": False, "radius": RADIUS}
    tests = {"num_centers": num_centers, "rule": rule, **published, **ball}
    form = "primal" if problem == "smooth" else "mixed"
    return no.pde.WeakDarcy(((0.0, 1.0), (0.0, 1.0)), forcing=FORCING, form=form, **tests)


def steps(problem: str, num_centers: int) -> Iterator[tuple[str, Any, Any]]:
    """Name, operator and objective of our rows."""
    import jax

    import neuralops as no

    keys = jax.random.split(jax.random.key(0))
    op = no.DGNO.paper(f"darcy_{problem}", key=keys[0])
    yield "with labels", op, no.losses.supervised(no.losses.l2())
    yield "difference", op, objective(problem, num_centers, rule="difference")
    yield "derivative", op, objective(problem, num_centers, rule="derivative")
    few = {"num_points": 4, "corrected": True, "radius": 1e-2}
    yield "four points a ball", op, objective(problem, num_centers, rule="difference", **few)
    if problem == "two_phase":
        potential = no.MultiONet.paper("width100_l4", key=keys[1])
        balanced = no.pde.BalancedDarcy(((0.0, 1.0), (0.0, 1.0)), forcing=FORCING, num_points=4 * num_centers)
        op = no.DGNO.paper(f"darcy_{problem}", key=keys[0], flux=potential)
        yield "balanced flux", op, objective(problem, num_centers, balanced)


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    from neuralops.data import Samples

    optimizer, rows = optax.adam(5e-4), {}
    for problem in args.problems:
        a = jnp.asarray(coefficients(problem, args.batch or PROBLEMS[problem]["batch"]), jnp.float32)[:, None]
        batch, rows[problem] = Samples(a, jnp.sin(a)), {}
        for name, op, goal in steps(problem, args.num_centers):

            def one(state: Any, key: Any, batch: Any, goal: Any = goal) -> Any:
                op, moments = state
                key, now = jax.random.split(key)

                def value(op: Any) -> Any:
                    out = goal(op, batch, key=now)
                    return out[0] if isinstance(out, tuple) else out

                loss, grad = jax.value_and_grad(value)(op)
                updates, moments = optimizer.update(grad, moments, op)
                return (optax.apply_updates(op, updates), moments), key, loss

            run = jax.jit(one, donate_argnums=(0, 1))
            state = jax.tree.map(jnp.copy, (op, optimizer.init(op))), jax.random.key(1)

            def step(run: Any = run, batch: Any = batch) -> None:
                nonlocal state
                *rest, _ = jax.block_until_ready(run(*state, batch))
                state = tuple(rest)

            rows[problem][name] = clock(step, args.repeats, args.seconds)
            print(problem, name, rows[problem][name], file=sys.stderr, flush=True)
    result = {"side": "ours", "versions": f"jax {jax.__version__}", "ms": rows}
    return result | {"loss": agreement(args)} if args.theirs else result


@dataclasses.dataclass(frozen=True)
class Fixed:
    """An equation whose test functions are given."""

    equation: Any
    patches: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.equation, name)

    def draw(self, key: Any, dtype: Any = None) -> Any:
        return self.patches

    def residuals(self, *given: Any) -> Any:
        return self.equation.residuals(*given)


def agreement(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Relative differences from their loss in float64, for the same weights, centres and inputs."""
    import jax
    import jax.numpy as jnp

    import neuralops as no
    from neuralops.data import Samples

    with np.load(args.theirs, allow_pickle=False) as file:
        kept = dict(file)
    found: dict[str, dict[str, float]] = {}

    def mine(problem: str, medium: str, rule: str, dtype: str) -> float:
        weights = {
            name.split("|")[2]: x.astype(dtype) for name, x in kept.items() if name.startswith(f"{problem}|weight|")
        }
        centers = jnp.asarray(kept[f"{problem}|centers"], dtype)
        equation = weak(problem, centers.shape[1], rule)
        patches = no.pde.Patches(centers, jnp.ones(centers.shape[1], dtype), equation.tests)
        a = jnp.asarray(kept[f"{problem}|input|{medium}"], dtype)[:, None]
        goal = objective(problem, centers.shape[1], Fixed(equation, patches))
        return float(goal(loaded(problem, weights), Samples(a), key=jax.random.key(0))[0])

    for problem in args.problems:
        for medium in media(problem):
            theirs = {name: float(x) for name, x in kept.items() if name.startswith(f"{problem}|loss|{medium}|")}
            theirs = {name.split("|", 3)[3]: x for name, x in theirs.items()}
            exact = theirs.pop("published|float64")
            row = {f"theirs, {name}": abs(x - exact) / exact for name, x in theirs.items()}
            for rule, dtype in (("difference", "float64"), ("difference", "float32"), ("derivative", "float32")):
                with jax.enable_x64(dtype == "float64"):
                    row[f"ours, {rule}|{dtype}"] = abs(mine(problem, medium, rule, dtype) - exact) / exact
            found[f"{problem}, {medium} input"] = row
            print(problem, medium, exact, row, file=sys.stderr, flush=True)
    return found


def loaded(problem: str, weights: dict[str, np.ndarray]) -> Any:
    """Our operator with their weights."""
    import neuralops as no

    official = no.interop.official
    tanh = {"trunk_activation": "Tanh_Sin", "branch_activation": "Tanh_Sin"}
    decoder = lambda name, **more: official.multionet(weights, prefix=f"{name}.", **{**tanh, **more})
    encoder = official.encoder(weights, prefix="enc.", sensors=(NODES, NODES))
    u = decoder("u", factor="both")
    if problem == "smooth":
        return no.DGNO(encoder, u, decoder("a"))
    medium = decoder("a", trunk_activation="SiLU_Sin", branch_activation="SiLU_Id")
    return no.DGNO(encoder, u, medium, (decoder("s1"), decoder("s2")), phases=(5.0, 10.0))


# Both.


def table(paths: list[Path]) -> str:
    """Medians over files; of theirs under the better allocator."""
    files = [json.loads(path.read_text()) for path in paths]
    halves: dict[str, dict[tuple[str, str], float]] = {}
    for side in ("ours", "theirs"):
        mine = [file for file in files if file["side"] == side]
        names = dict.fromkeys((p, row) for file in mine for p, rows in file["ms"].items() for row in rows)
        halves[side] = {}
        for p, row in names:
            rounds: dict[str, list[float]] = {}
            for file in mine:
                if row in file["ms"].get(p, {}):
                    rounds.setdefault(file.get("allocator", ""), []).append(file["ms"][p][row])
            halves[side][p, row] = min(float(np.median(x)) for x in rounds.values())
    theirs = halves["theirs"]
    forms = [form for form in FORMS if any(form == row for _, row in theirs)]
    share = lambda x, of: f"{x / of:.2f}" if of else ""
    head = ["problem", "step", "ms", "of ours with labels", *(f"of theirs, {form}" for form in forms)]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for side, rows in halves.items():
        for (p, row), ms in rows.items():
            cells = [p, f"{side}, {row}", f"{ms:.1f}", share(ms, halves["ours"].get((p, "with labels")))]
            lines.append(f"| {' | '.join(cells + [share(ms, theirs.get((p, form))) for form in forms])} |")
    lines += ["", f"Bar at the published points: at most {BAR} of theirs."]
    for p in dict.fromkeys(p for p, _ in theirs):
        mine = [ms for rule in ("difference", "derivative") if (ms := halves["ours"].get((p, rule)))]
        for form in forms if mine else []:
            if (p, form) in theirs:
                ratios = [ms / theirs[p, form] for ms in mine]
                verdict = "met" if max(ratios) <= BAR else "met by one rule" if min(ratios) <= BAR else "missed"
                lines.append(f"- {p}, {form}: {verdict}.")
    losses = {name: row for file in files for name, row in file.get("loss", {}).items()}
    if losses:
        lines += ["", "Relative difference of the loss from theirs in float64, the same weights, centres and inputs:"]
        for name, row in losses.items():
            lines.append(f"- {name}: {'; '.join(f'{what} {x:.1e}' for what, x in row.items())}.")
    versions = ", ".join(dict.fromkeys(file["versions"] for file in files))
    return "\n".join([*lines, "", f"{versions}; {os.cpu_count()} cores; float32."])


def turns(args: argparse.Namespace) -> None:
    """Rounds: the half with PyTorch under every allocator, then ours."""
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--repeats", args.repeats, "--seconds", args.seconds, "--threads", args.threads]
    common += ["--num-centers", args.num_centers, "--problems", *args.problems]
    common += ["--batch", args.batch] if args.batch else []
    made: list[Path] = []

    def call(python: str, half: str, allocator: str, name: str, *given: Any) -> None:
        path = args.out / name
        command = [python, __file__, half, *common, "--allocator", allocator, "--out", path, *given]
        subprocess.run(list(map(str, command)), env={**os.environ, **ALLOCATORS[allocator]}, check=True)
        made.append(path)

    for number in range(args.rounds):
        for i, allocator in enumerate(ALLOCATORS):
            given = ("--checkout", args.checkout, "--forms", *args.forms)
            call(args.torch_python, "torch", allocator, f"theirs_{number}_{i}.json", *given)
        check = () if number else ("--theirs", args.out / "theirs_0_0.npz")
        call(sys.executable, "jax", next(iter(ALLOCATORS)), f"ours_{number}.json", *check)
    print(table(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("torch", "jax", "table", "turns"))
    parser.add_argument("files", type=Path, nargs="*", help="of table: .json files of both halves")
    parser.add_argument("--checkout", type=Path, help="a checkout of DGenNO")
    parser.add_argument("--torch-python", default=sys.executable, help="the interpreter of the half with PyTorch")
    parser.add_argument("--theirs", type=Path, help="the .npz file of the half with PyTorch, to compare losses")
    parser.add_argument("--out", type=Path, default=Path("outputs/dgno_speed"), help=".json file; of turns a folder")
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--batch", type=int, help="instead of the published one")
    parser.add_argument("--num-centers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15, help="of a step, in a round")
    parser.add_argument("--seconds", type=float, default=20, help="of a row and round, after which three repeats do")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.half == "table":
        print(table(args.files))
        return
    if args.half in ("torch", "turns") and args.checkout is None:
        parser.error("the half with PyTorch needs --checkout")
    if args.half == "turns":
        turns(args)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    result = {"torch": peer, "jax": ours}[args.half](args) | {"allocator": args.allocator}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
