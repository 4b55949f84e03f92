"""The published latent spectral models (PyTorch) and ours with the same weights: how far apart are they?

    git clone https://github.com/thuml/Latent-Spectral-Models && git -C Latent-Spectral-Models checkout d5a0b40
    python benchmarks/parity/lsm_official.py write outputs.npz --code Latent-Spectral-Models     # needs torch
    python benchmarks/parity/lsm_official.py compare outputs.npz                                 # needs neuralops

The two halves may run in different environments. `write` builds the authors' networks on grids and on points with
random weights (statistics and scales of the normalisation too) in evaluation mode, and keeps outputs in float32 and
float64. `compare` draws the same weights and inputs, reads them by `no.interop.official.lsm` and prints the relative
difference in the 2-norm in both precisions, and how far either side is in float32 from the published code in float64.
`write --fixture` keeps small networks in float64 alone, for `tests/test_official_latent.py`.

Where some axes need padding and some none their output is empty, because they cut with a slice to minus zero. There the
script cuts between their last two parts instead; `empty` marks those rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from published import distance, drawn, loaded, module, on_cpu, shapes_of

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# Name: the grid, or the number of points; channels in and out, and on the finest scale.
CASES: dict[str, dict[str, Any]] = {
    "Darcy, 85 x 85": {"grid": [85, 85], "channels": [1, 1, 64]},
    "Navier-Stokes, 64 x 64": {"grid": [64, 64], "channels": [10, 1, 64]},
    "airfoil, 221 x 51": {"grid": [221, 51], "channels": [2, 1, 32]},
    "pipe, 129 x 129": {"grid": [129, 129], "channels": [2, 1, 48]},
    "elasticity, 41 x 41": {"grid": [41, 41], "channels": [1, 1, 32]},
    "first axis not padded, 32 x 41": {"grid": [32, 41], "channels": [1, 2, 16]},
    "last axis not padded, 41 x 32": {"grid": [41, 32], "channels": [1, 2, 16]},
    "patches of 2 x 1 points, 39 x 45": {"grid": [39, 45], "channels": [3, 1, 16], "patch": [2, 1]},
    "seven basis functions, three tokens, 33 x 50": {"grid": [33, 50], "channels": [1, 1, 24], "latent": [3, 7]},
    "plasticity, 101 x 31 x 20": {"grid": [101, 31, 20], "channels": [1, 4, 32]},
    "odd, 17 x 33 x 21": {"grid": [17, 33, 21], "channels": [2, 3, 16]},
    "one axis not padded, 16 x 20 x 33": {"grid": [16, 20, 33], "channels": [1, 1, 16]},
    "972 points and a code": {"points": 972, "channels": [2, 1, 32], "code": True},
    "972 points, no code": {"points": 972, "channels": [2, 1, 32], "code": False},
    "700 points, others asked for": {"points": 700, "query": 333, "channels": [2, 1, 32], "code": True},
    "1001 points, not deformed": {"points": 1001, "channels": [2, 3, 16]},
    "8 x 6 modes on 48 x 64, 500 points": {
        "points": 500,
        "channels": [2, 1, 16],
        "code": True,
        "modes": [8, 6],
        "latent_points": [48, 64],
    },
}
SMALL: dict[str, dict[str, Any]] = {
    "2-D": {"grid": [17, 30], "channels": [2, 3, 8]},
    "not padded": {"grid": [16, 21], "channels": [1, 1, 8], "latent": [3, 5]},
    "patches": {"grid": [31, 12], "channels": [1, 1, 8], "patch": [2, 1]},
    "3-D": {"grid": [9, 16, 7], "channels": [1, 2, 8]},
    "points": {
        "points": 40,
        "query": 23,
        "channels": [2, 2, 8],
        "code": True,
        "modes": [3, 4],
        "latent_points": [16, 32],
    },
    "no code": {"points": 30, "channels": [2, 1, 8], "code": False, "modes": [4, 3], "latent_points": [16, 16]},
}


def padding_of(case: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Zeros per axis and the points of a patch: their rule, or patches of a given size."""
    patch = case.get("patch", [-(-n // 16) for n in case.get("grid", ())])
    return [-n % (16 * p) for n, p in zip(case.get("grid", ()), patch, strict=True)], patch


def inputs(case: dict[str, Any], seed: int, samples: int) -> dict[str, np.ndarray]:
    """Values, channels last as theirs; or places, a code and other places."""
    rng = np.random.default_rng([seed, 1])
    if "grid" in case:
        return {"u": (2 * rng.random((samples, *case["grid"], case["channels"][0])) - 1).astype(np.float32)}
    given = {"u": rng.random((samples, case["points"], 2))}
    if case.get("code"):
        given["code"] = rng.random((samples, 42))
    if "query" in case:
        given["query"] = rng.random((samples, case["query"], 2))
    return {name: x.astype(np.float32) for name, x in given.items()}


# The half with PyTorch.


def published(case: dict[str, Any], code: Path) -> dict[str, Any]:
    """Their networks of a case: the model, and on points what deforms."""
    padding, patch = padding_of(case)
    tokens, basis = case.get("latent", (4, 12))
    told = SimpleNamespace(
        in_dim=case["channels"][0],
        out_dim=case["channels"][1],
        d_model=case["channels"][2],
        num_token=tokens,
        num_basis=basis,
        patch_size=",".join(map(str, patch)),
        padding=",".join(map(str, reversed(padding))),  # theirs has the last axis first
    )
    if "grid" in case:
        return {"model": module(code, f"models.LSM_{len(case['grid'])}D").Model(told)}
    modes, latent = case.get("modes", (12, 12)), case.get("latent_points", (96, 96))
    told.padding, told.patch_size = "0,0", ",".join(str(n // 16) for n in latent)
    theirs = module(code, "models.LSM_Irregular_Geo")
    found = {"model": theirs.Model(told, modes1=modes[0], modes2=modes[1], s1=latent[0], s2=latent[1])}
    return found | ({"deformation": theirs.IPHI()} if "code" in case else {})


def run(case: dict[str, Any], networks: dict[str, Any], given: dict[str, Any]) -> tuple[Any, bool]:
    """Their output, `(samples, *points, channels)`, and whether it was empty as published."""
    import torch

    model = networks["model"]
    with torch.no_grad():
        if "points" in case:
            more = {"code": given.get("code"), "iphi": networks.get("deformation"), "x_out": given.get("query")}
            return model(given["u"], **more), False
        kept: list[Any] = []
        handle = model.outc.register_forward_hook(lambda _, __, out: kept.append(out))
        out = model(given["u"])
        handle.remove()
        if out.numel():
            return out, False
        inside = kept[0][(..., *(slice(0, n) for n in case["grid"]))].movedim(1, -1)
        return model.fc2(torch.nn.functional.gelu(model.fc1(inside))), True


def write(path: Path, cases: dict[str, dict[str, Any]], small: bool, code: Path) -> None:
    import torch

    kept: dict[str, np.ndarray] = {}
    for number, (title, case) in enumerate(cases.items()):
        for dtype in ("float64",) if small else ("float32", "float64"):
            with on_cpu(dtype):
                networks = published(case, code)
                case["shapes"] = {part: shapes_of(network) for part, network in networks.items()}
                for part, network in networks.items():
                    loaded(network, drawn(case["shapes"][part], number))
                given = inputs(case, number, 1 if small else 2)
                given = {name: torch.from_numpy(x).to(getattr(torch, dtype)) for name, x in given.items()}
                out, case["empty"] = run(case, networks, given)
            kept[f"{title}|{dtype}"] = out.numpy()
    kept["cases"] = np.array(json.dumps(cases))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)
    print(f"{len(kept)} arrays in {path}, {path.stat().st_size / 1e3:.0f} kB")


# The half with JAX.


def weights(case: dict[str, Any], seed: int, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """The same state dicts again."""
    to = lambda x: x.astype({"f": dtype, "c": {"float32": "complex64", "float64": "complex128"}[dtype]}[x.dtype.kind])
    return {
        part: {name: x if x.dtype.kind == "i" else to(x) for name, x in drawn(shapes, seed).items()}
        for part, shapes in case["shapes"].items()
    }


def ours(case: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]) -> Any:
    """The operator that the published weights make here."""
    from neuralops.interop import official

    if "grid" in case:
        return official.lsm(arrays["model"], patch_size=case.get("patch"))
    told = {"latent_points": case.get("latent_points", 96)}
    return official.lsm(arrays["model"], deformation=arrays.get("deformation"), **told)


def evaluate(case: dict[str, Any], op: Any, given: dict[str, np.ndarray], options: Any = None) -> Any:
    """Our output in the layout of theirs; `options` of the compiler."""
    import jax
    import jax.numpy as jnp

    first = lambda x: jnp.moveaxis(jnp.asarray(x, jax.tree.leaves(op)[0].dtype), -1, 1)
    u = first(given["u"])
    if "grid" in case:
        return jnp.moveaxis(jax.jit(jax.vmap(op), compiler_options=options)(u), 1, -1)
    more = {"code": jnp.asarray(given["code"], u.dtype)} if "code" in given else {}
    more |= {"query": first(given["query"])} if "query" in given else {}
    run = jax.jit(jax.vmap(lambda u, more: op(u, coords=u, **more)), compiler_options=options)
    return jnp.moveaxis(run(u, more), 1, -1)


def compare(path: Path, parity: Any, match: str = "", options: Any = None) -> bool:
    """Whether all outputs agree; `parity` has `ours`, `evaluate`, `inputs` and `weights`."""
    import jax

    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    print("| network | parameters | float32 | theirs rounded | ours rounded | float64 |")
    print("| --- | --- | --- | --- | --- | --- |")
    passed = True
    for number, (title, case) in enumerate(json.loads(str(kept["cases"])).items()):
        if match not in title:
            continue
        outputs: dict[str, np.ndarray] = {}
        for dtype in ("float32", "float64"):
            with jax.enable_x64(True):
                op = parity.ours(case, parity.weights(case, number, dtype))
                outputs[dtype] = np.asarray(parity.evaluate(case, op, parity.inputs(case, number, 2), options))
            assert outputs[dtype].dtype == dtype
        exact = kept[f"{title}|float64"]
        found = [
            distance(outputs["float32"], kept[f"{title}|float32"]),
            distance(kept[f"{title}|float32"], exact),
            distance(outputs["float32"], exact),
            distance(outputs["float64"], exact),
        ]
        size = sum(x.size for x in jax.tree.leaves(op))
        mark = ", empty" if case.get("empty") else ""
        print(f"| {title}{mark} | {size:,} | {' | '.join(f'{x:.1e}' for x in found)} |", flush=True)
        passed &= found[0] <= TOLERANCE["float32"] and found[-1] <= TOLERANCE["float64"]
    return passed


def main(parity: Any, *further: str) -> int:
    """The command line of a script; `further` checkouts beside --code."""
    parser = argparse.ArgumentParser(description=parity.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("write", "compare"))
    parser.add_argument("path", type=Path, help=".npz file between the halves")
    for name in ("code", *further):
        parser.add_argument(f"--{name}", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--fixture", action="store_true", help="small networks, float64 alone")
    parser.add_argument("--match", default="", help="compares the networks whose names hold this alone")
    parser.add_argument("--fast", action="store_true", help="compiles without optimisation, in a third of the time")
    args = parser.parse_args()
    if args.half == "compare":
        options = {"xla_backend_optimization_level": 0} if args.fast else None
        return 0 if compare(args.path, parity, args.match, options) else 1
    checkouts = [getattr(args, name) for name in ("code", *further)]
    if None in checkouts:
        parser.error(f"write needs --{' and --'.join(('code', *further))}")
    parity.write(args.path, parity.SMALL if args.fixture else parity.CASES, args.fixture, *checkouts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.modules[__name__]))
