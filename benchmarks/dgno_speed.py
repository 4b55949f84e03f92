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
that we could make of their code; `compiled`, the same by `torch.compile`. Both sides encode a batch once a step.

`theirs.npz` has weights, centres and inputs of a small batch; `jax` says how far the two losses are apart on it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from turns import ALLOCATORS

BAR = 0.7  # our step at most this share of theirs, at the same points
NODES, RADIUS, FORCING, TOP = 29, 1e-4, 10.0, 1000
PROBLEMS: dict[str, dict[str, Any]] = {
    "smooth": {"batch": 50, "across": 9, "widths": [100] * 6, "sum": 5, "data": 0.25},
    "two_phase": {"batch": 25, "across": 7, "widths": [100] * 5, "sum": 4, "data": 1.0},
}
FORMS = ("published", "shared", "compiled")


def coefficients(problem: str, number: int, seed: int = 0) -> np.ndarray:
    """Inputs at the nodes, `(number, n, n)`; the first axis is x. Every interpolant has `bilinear` right."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(0, 1, NODES)] * 2, indexing="ij")
    b = rng.uniform(0.5, 1.5, (4, number, 1, 1))
    if problem == "bilinear":
        return b[0] + b[1] * x + b[2] * y + b[3] * x * y
    waves = np.sin(2 * np.pi * b[0] * x) + np.cos(2 * np.pi * b[1] * y)
    return 2.1 + waves if problem == "smooth" else np.where(waves > 0, 10.0, 5.0)


def clock(step: Callable[[], Any], repeats: int, seconds: float) -> float:
    """The median in ms of so many calls, or of as many as fit into the time, at least three."""
    for _ in range(2):
        step()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < seconds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def centers_of(tools: Any, args: argparse.Namespace) -> tuple[Any, Any]:
    """Their centres, `(centres, 1, 2)`, and radii, `(centres, 1, 1)`."""
    return tools.points.weight_centers(n_center=args.num_centers, R_max=RADIUS, R_min=RADIUS)


# The half with PyTorch.


@dataclasses.dataclass
class Tools:
    """What the checkout has beside networks."""

    points: Any
    tests: tuple[Any, Any, Any]  # quadrature points (q, 2), test function (q, 1), its gradient (q, 2)
    interpolator: Any
    factors: Any


def tools_of(problem: str, dtype: Any) -> Tools:
    """Their interpolator solves one sample after the other: a batch of matrices hangs PyTorch 2.14 on two threads."""
    import torch
    from Utils.GenPoints import Point2D
    from Utils.RBFInterpolatorMesh import RBFInterpolator
    from Utils.TestFun_ParticleWNN import TestFun_ParticleWNN

    points = Point2D(x_lb=[0.0, 0.0], x_ub=[1.0, 1.0], dataType=dtype, random_seed=0)
    across = PROBLEMS[problem]["across"]
    tests = TestFun_ParticleWNN(fun_type="Wendland", dim=2, n_mesh_or_grid=across, dataType=dtype).get_testFun()
    if problem != "smooth":
        return Tools(points, tests, None, None)
    interpolator = RBFInterpolator(nodes(dtype), kernel="gaussian", eps=25.0, degree=6, smoothing=0.0, dtype=dtype)
    pad = lambda a: torch.nn.functional.pad(a, (0, 0, 0, interpolator.n_monos))
    interpolator.solve = lambda batch: torch.stack([torch.linalg.solve(interpolator.lhs, pad(a)) for a in batch])
    return Tools(points, tests, interpolator, torch.linalg.lu_factor(interpolator.lhs))


def nodes(dtype: Any) -> Any:
    import torch

    axis = torch.linspace(0, 1, NODES, dtype=dtype)
    return torch.cartesian_prod(axis, axis)


def networks(problem: str, shared: bool) -> Any:
    """Encoder and decoders with the published sizes; the weights that start at zero are drawn too."""
    import torch
    from Networks.EncoderNet import EncoderCNNet2d, EncoderFCNet
    from Networks.MultiONets import MultiONetBatch, MultiONetCartesianProd

    def decoder(width: int | None = None, trunk: str = "Tanh_Sin", branch: str = "Tanh_Sin") -> Any:
        widths = [width or w for w in PROBLEMS[problem]["widths"]]
        kind = MultiONetCartesianProd if shared else MultiONetBatch
        return kind(2, 128, widths, widths, trunk, branch, sum_layers=PROBLEMS[problem]["sum"])

    torch.manual_seed(0)
    if problem == "smooth":
        conv, dense = [1, 64, 64, 64], [256, 128, 128, 128]
        encoder = EncoderCNNet2d(conv, dense, "SiLU", "SiLU", NODES, NODES, kernel_size=(3, 3), stride=2)
        parts = {"enc": encoder, "u": decoder(), "a": decoder()}
    else:
        encoder = EncoderFCNet([NODES**2, 512, 256, 128], "SiLU")
        parts = {"enc": encoder, "u": decoder(), "a": decoder(256, "SiLU_Sin", "SiLU_Id")}
        parts |= {"s1": decoder(), "s2": decoder()}
    with torch.no_grad():
        for net in list(parts.values())[1:]:
            for weight in (*net.w, net.b):
                weight.copy_(0.1 * torch.randn(()))
    return torch.nn.ModuleDict(parts)


def peer_loss(problem: str, nets: Any, tools: Tools, shared: bool) -> Callable[[Any, Any, Any], Any]:
    """Their loss of inputs `(batch, nodes, 1)` on balls around centres, in our words."""
    import torch

    smooth = problem == "smooth"
    xi, v, slope = tools.tests
    mesh = nodes(xi.dtype)

    def u_at(x: Any, code: Any) -> Any:
        return nets["u"](x, code) * torch.sin(torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])

    def gradient(x: Any, code: Any) -> Any:
        """Of u, `(batch, points, 2)`."""
        if not shared:
            return torch.autograd.grad(u_at(x, code).sum(), x, create_graph=True)[0]
        axes = torch.eye(2, dtype=x.dtype)[:, None].expand(2, *x.shape)
        along = lambda e: torch.func.jvp(lambda y: u_at(y, code), (x,), (e,))[1]
        return torch.func.vmap(along)(axes).movedim(0, -1)

    def medium(x: Any, a: Any) -> Any:
        """The input at points, `(batch, points, 1)`."""
        if not smooth:
            row, column = torch.floor(x * (NODES - 1) + 0.5).long().unbind(-1)
            place = row * NODES + column
            return a[:, place] if shared else a.take_along_dim(place[..., None], 1)
        rbf = tools.interpolator
        if not shared:
            return rbf(x, a)
        values = torch.nn.functional.pad(a[..., 0].T, (0, 0, 0, rbf.n_monos))
        kernels = rbf.kernel_matrix(x * rbf.eps, rbf.x_eps_mesh)
        monomials = rbf.polynomial_matrix((x - rbf.shift) / rbf.scale, rbf.powers)
        return (torch.cat([kernels, monomials], -1) @ torch.linalg.lu_solve(*tools.factors, values)).T[..., None]

    def loss(a: Any, centers: Any, radius: Any) -> Any:
        batch, balls = len(a), len(centers)
        code = torch.tanh(nets["enc"](a if smooth else (a - 7.5) / 2.5))
        flat = (centers + radius * xi).reshape(-1, 2)
        x = flat if shared else flat.repeat(batch, 1, 1).requires_grad_()
        flux = medium(x.detach(), a) * gradient(x, code)
        test_slope = (slope / radius).reshape(-1, 2)
        mean = lambda values: values.reshape(-1, balls, len(xi)).mean(-1)
        source = FORCING * v.mean()
        if smooth:
            r = mean((flux * test_slope).sum(-1)) - source
            equation = r.norm(dim=1).mean() + torch.topk(r.square().flatten(), min(TOP, r.numel()))[0].sum()
        else:
            s = torch.stack([nets["s1"](x, code), nets["s2"](x, code)], -1)
            balance = mean((s * test_slope).sum(-1)) - source
            equation = mean((s - flux).square().sum(-1)).mean() + balls**0.5 * balance.square().mean()
        decoded = nets["a"](mesh if shared else mesh.repeat(batch, 1, 1), code)
        if smooth:
            data = (decoded - a[..., 0]).norm(dim=1).mean()
        else:
            data = torch.nn.functional.binary_cross_entropy(torch.sigmoid(decoded), (a[..., 0] - 5) / 5)
        return equation + PROBLEMS[problem]["data"] * data

    return loss


def peer(args: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(args.checkout))
    import torch

    torch.set_num_threads(args.threads)
    rows: dict[str, dict[str, float]] = {}
    kept: dict[str, np.ndarray] = {}
    for problem in args.problems:
        a = torch.tensor(coefficients(problem, args.batch or PROBLEMS[problem]["batch"]), dtype=torch.float32)
        a, tools, rows[problem] = a.reshape(len(a), -1, 1), tools_of(problem, torch.float32), {}
        for form in args.forms:
            nets = networks(problem, form != "published")
            optimizer = torch.optim.Adam(nets.parameters(), 5e-4, fused=form != "published")
            loss = peer_loss(problem, nets, tools, form != "published")
            loss = torch.compile(loss) if form == "compiled" else loss

            def step(optimizer: Any = optimizer, loss: Any = loss, a: Any = a, tools: Tools = tools) -> None:
                optimizer.zero_grad()
                loss(a, *centers_of(tools, args)).backward()
                optimizer.step()

            rows[problem][form] = clock(step, args.repeats, args.seconds)
            print(problem, form, rows[problem][form], file=sys.stderr, flush=True)
        kept |= shared_numbers(problem, args)
    np.savez_compressed(args.out.with_suffix(".npz"), **kept)
    return {"side": "theirs", "versions": f"torch {torch.__version__}", "ms": rows}


def shared_numbers(problem: str, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Weights, centres and inputs of a small batch, and what their loss makes of them."""
    import torch

    tools = tools_of(problem, torch.float64)
    args = argparse.Namespace(num_centers=20)
    centers, radius = centers_of(tools, args)
    kept = {f"{problem}|centers": centers[:, 0].T.numpy()}
    for name, x in networks(problem, False).state_dict().items():
        kept[f"{problem}|weight|{name}"] = x.numpy()
    for medium in media(problem):
        a = coefficients(medium, 4, seed=1)
        kept[f"{problem}|input|{medium}"] = a
        for form, dtype in (("published", "float64"), ("shared", "float64"), ("published", "float32")):
            kind = getattr(torch, dtype)
            nets = networks(problem, form == "shared").to(kind)
            loss = peer_loss(problem, nets, tools_of(problem, kind), form == "shared")
            values = torch.tensor(a, dtype=kind).reshape(len(a), -1, 1)
            value = loss(values, centers.to(kind), radius.to(kind))
            kept[f"{problem}|loss|{medium}|{form}|{dtype}"] = value.detach().numpy()
    return kept


def media(problem: str) -> tuple[str, ...]:
    """Inputs on which the losses are compared."""
    return ("smooth", "bilinear") if problem == "smooth" else ("two_phase",)


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
