"""The half of `dgno_speed.py` with PyTorch: DGNO's loss without labels, in our words on the authors' networks.

Their loss stands in notebooks; their networks, test functions, centres and interpolator are modules, imported from a
checkout. Also what both halves share: sizes, inputs and the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

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


def media(problem: str) -> tuple[str, ...]:
    """Inputs on which the losses are compared."""
    return ("smooth", "bilinear") if problem == "smooth" else ("two_phase",)


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


def centers_of(tools: Any, number: int) -> tuple[Any, Any]:
    """Their centres, `(centres, 1, 2)`, and radii, `(centres, 1, 1)`."""
    return tools.points.weight_centers(n_center=number, R_max=RADIUS, R_min=RADIUS)


def nodes(dtype: Any) -> Any:
    import torch

    axis = torch.linspace(0, 1, NODES, dtype=dtype)
    return torch.cartesian_prod(axis, axis)


def networks(problem: str, form: str) -> Any:
    """Encoder and decoders with the published sizes; the weights that start at zero are drawn too."""
    import torch
    from Networks.EncoderNet import EncoderCNNet2d, EncoderFCNet
    from Networks.MultiONets import MultiONetBatch, MultiONetCartesianProd

    def decoder(width: int | None = None, trunk: str = "Tanh_Sin", branch: str = "Tanh_Sin") -> Any:
        widths = [width or w for w in PROBLEMS[problem]["widths"]]
        kind = MultiONetCartesianProd if form == "shared" else MultiONetBatch
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


def peer_loss(problem: str, nets: Any, tools: Tools, form: str) -> Callable[[Any, Any, Any], Any]:
    """Their loss of inputs `(batch, nodes, 1)` on balls around centres, in our words."""
    import torch

    smooth, shared = problem == "smooth", form == "shared"
    xi, v, slope = tools.tests
    mesh = nodes(xi.dtype)

    def u_at(x: Any, code: Any) -> Any:
        return nets["u"](x, code) * torch.sin(torch.pi * x[..., 0]) * torch.sin(torch.pi * x[..., 1])

    def gradient(x: Any, code: Any) -> Any:
        """Of u, `(batch, points, 2)`."""
        if form == "published":
            x = x.requires_grad_()
            return torch.autograd.grad(u_at(x, code).sum(), x, create_graph=True)[0]
        if form == "compiled":  # as a function, which is what the compiler can differentiate twice
            u, back = torch.func.vjp(lambda y: u_at(y, code), x)
            return back(torch.ones_like(u))[0]
        axes = torch.eye(2, dtype=x.dtype)[:, None].expand(2, *x.shape)
        along = lambda e: torch.func.jvp(lambda y: u_at(y, code), (x,), (e,))[1]
        return torch.func.vmap(along)(axes).movedim(0, -1)

    def medium(x: Any, a: Any) -> Any:
        """The input at points `(points, 2)`, `(batch, points, 1)`."""
        if not smooth:
            row, column = torch.floor(x * (NODES - 1) + 0.5).long().unbind(-1)
            place = row * NODES + column
            return a[:, place]
        rbf = tools.interpolator
        if form == "published":
            return rbf(x.repeat(len(a), 1, 1), a)
        values = torch.nn.functional.pad(a[..., 0].T, (0, 0, 0, rbf.n_monos))
        kernels = rbf.kernel_matrix(x * rbf.eps, rbf.x_eps_mesh)
        monomials = rbf.polynomial_matrix((x - rbf.shift) / rbf.scale, rbf.powers)
        return (torch.cat([kernels, monomials], -1) @ torch.linalg.lu_solve(*tools.factors, values)).T[..., None]

    def weigh(a: Any, flat: Any, values: Any, radius: Any) -> Any:
        batch, balls = len(a), len(radius)
        code = torch.tanh(nets["enc"](a if smooth else (a - 7.5) / 2.5))
        x = flat if shared else flat.repeat(batch, 1, 1)
        flux = values * gradient(x, code)
        test_slope = (slope / radius).reshape(-1, 2)
        mean = lambda terms: terms.reshape(batch, balls, len(xi)).mean(-1)
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

    weighed = torch.compile(weigh, dynamic=False) if form == "compiled" else weigh

    def loss(a: Any, centers: Any, radius: Any) -> Any:
        flat = (centers + radius * xi).reshape(-1, 2)
        return weighed(a, flat, medium(flat, a), radius)

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
            nets = networks(problem, form)
            optimizer = torch.optim.Adam(nets.parameters(), 5e-4, fused=form != "published")
            loss = peer_loss(problem, nets, tools, form)

            def step(optimizer: Any = optimizer, loss: Any = loss, a: Any = a, tools: Tools = tools) -> None:
                optimizer.zero_grad()
                loss(a, *centers_of(tools, args.num_centers)).backward()
                optimizer.step()

            rows[problem][form] = clock(step, args.repeats, args.seconds)
            print(problem, form, rows[problem][form], file=sys.stderr, flush=True)
        kept |= to_compare(problem)
    np.savez_compressed(args.out.with_suffix(".npz"), **kept)
    return {"side": "theirs", "versions": f"torch {torch.__version__}", "ms": rows}


def to_compare(problem: str) -> dict[str, np.ndarray]:
    """Weights, centres and inputs of a small batch, and what their loss makes of them."""
    import torch

    tools = tools_of(problem, torch.float64)
    centers, radius = centers_of(tools, 20)
    kept = {f"{problem}|centers": centers[:, 0].T.numpy()}
    for name, x in networks(problem, "published").state_dict().items():
        kept[f"{problem}|weight|{name}"] = x.numpy()
    for medium in media(problem):
        a = coefficients(medium, 4, seed=1)
        kept[f"{problem}|input|{medium}"] = a
        for form, dtype in (("published", "float64"), ("shared", "float64"), ("published", "float32")):
            kind = getattr(torch, dtype)
            nets = networks(problem, form).to(kind)
            loss = peer_loss(problem, nets, tools_of(problem, kind), form)
            values = torch.tensor(a, dtype=kind).reshape(len(a), -1, 1)
            value = loss(values, centers.to(kind), radius.to(kind))
            kept[f"{problem}|loss|{medium}|{form}|{dtype}"] = value.detach().numpy()
    return kept
