"""Which method is measured on which system: the contenders always, the rest when asked for."""

from __future__ import annotations

__all__ = ["ITERATION", "every_method", "planned"]

ITERATION = "cg-per-iteration"

BOTH = "ours-mg11 ours-mg22"
SINES = "ours-fast scipy-dstn scipy-dstn-2"
FORTH_AND_BACK = "pyamg-rs-fb pyamg-sa-fb"
SOLVAX = "solvax-mg22 solvax-sum22"
SOLVAX_MORE = "solvax-mg11 solvax-sum11 solvax-sum22-f32"

# (problem, methods always, methods with --all)
PLAN: list[tuple[str, str, str]] = [
    ("node2d-256", SINES, "ours-mg22"),
    ("cell2d-256", SINES, "ours-mg22"),
    ("node2d-511", f"{BOTH} solvax-mg22", "ours-mg22-f32 solvax-mg11 solvax-mg22-f32 jno-mg22"),
    (
        "node2d-512",
        f"ours-mg22 {SINES} ours-cg jax-cg lineax-cg scipy-cg pyamg-rs pyamg-sa amjax-sa jno-mg22 solvax-mg22",
        f"ours-mg11 ours-mg22-alone ours-mg22-f32 solvax-cg {FORTH_AND_BACK} amjax-rs jno-mg11 scipy-splu",
    ),
    ("node2d-1023", "ours-mg22 solvax-mg22", "ours-mg11 ours-mg22-f32 solvax-mg11"),
    ("node2d-1024", f"{BOTH} {SINES} pyamg-rs {ITERATION}", "ours-mg22-f32 pyamg-sa jno-mg22 ours-cg jax-cg"),
    (
        "cell2d-512",
        f"{BOTH} ours-mg22-f32 {SINES} {SOLVAX} solvax-flux solvax-fast pyamg-rs",
        f"{SOLVAX_MORE} {FORTH_AND_BACK} pyamg-sa amjax-sa jno-mg22",
    ),
    ("cell2d-1024", f"ours-mg22 {SINES} {SOLVAX} solvax-fast pyamg-rs", "ours-mg11 ours-mg22-f32 solvax-flux pyamg-sa"),
    ("node3d-63", "ours-mg22 solvax-mg22", "ours-mg11 ours-mg22-f32 solvax-mg11 jno-mg22"),
    (
        "node3d-64",
        f"{BOTH} {SINES} pyamg-rs amjax-sa",
        f"ours-mg22-f32 {FORTH_AND_BACK} pyamg-sa amjax-rs jno-mg22 ours-cg jax-cg lineax-cg solvax-cg scipy-cg",
    ),
    ("node3d-127", "ours-mg22 solvax-mg22", "ours-mg11 ours-mg22-f32 solvax-mg11"),
    (
        "node3d-128",
        f"ours-mg22 {SINES} pyamg-rs {ITERATION}",
        "ours-mg11 ours-mg22-f32 ours-cg jax-cg scipy-cg pyamg-sa",
    ),
    ("cell3d-64", f"ours-mg22 {SINES} {SOLVAX} solvax-fast", f"ours-mg11 ours-mg22-f32 {SOLVAX_MORE} solvax-flux"),
    ("cell3d-128", f"ours-mg22 {SINES} solvax-sum22 solvax-fast", "ours-mg11 ours-mg22-f32 solvax-mg22"),
    (
        "lognormal-512",
        f"{BOTH} ours-mg22-f32 ours-cg-fast {SOLVAX} solvax-flux pyamg-rs pyamg-sa amjax-sa jno-mg22",
        f"ours-mg11-f32 {SOLVAX_MORE} {FORTH_AND_BACK} amjax-rs jax-cg",
    ),
    (
        "lognormal-1024",
        f"ours-mg22 solvax-sum22 pyamg-rs {ITERATION}",
        "ours-mg11 ours-mg22-f32 ours-cg-fast solvax-mg22 pyamg-sa jno-mg22",
    ),
    (
        "white-512",
        f"{BOTH} {SOLVAX} pyamg-sa",
        f"ours-mg22-f32 {SOLVAX_MORE} solvax-flux {FORTH_AND_BACK} pyamg-rs jno-mg22",
    ),
    ("white-1024", "ours-mg22 solvax-sum22 pyamg-sa", "ours-mg11 ours-mg22-f32 solvax-mg22"),
    (
        "squares-512",
        f"{BOTH} solvax-sum22 pyamg-rs jno-mg22",
        f"ours-mg22-f32 {SOLVAX_MORE} solvax-mg22 solvax-flux pyamg-sa",
    ),
    ("squares-1024", "ours-mg22 solvax-sum22 pyamg-rs", "ours-mg11 ours-mg22-f32 solvax-sum11"),
    ("cells-512", "ours-mg22 solvax-sum22", "ours-mg11 ours-mg22-f32 solvax-mg22 pyamg-rs pyamg-sa"),
    ("coin-512", "ours-mg22 solvax-sum22 pyamg-sa", "ours-mg11 ours-mg22-f32 pyamg-rs jno-mg22"),
    (
        "balls2d-256",
        f"{BOTH} ours-cg solvax-sum22 solvax-flux pyamg-rs pyamg-sa jno-mg22",
        f"ours-mg11-f32 ours-mg22-f32 solvax-sum11 {FORTH_AND_BACK} amjax-rs jax-cg",
    ),
    ("balls2dglobal-256", f"{BOTH} solvax-sum22 pyamg-rs pyamg-sa", "ours-cg amjax-rs jno-mg22 jax-cg"),
    ("balls3d-64", f"{BOTH} solvax-sum22 pyamg-sa", "ours-mg22-f32 pyamg-rs"),
    ("balls3dglobal-64", "ours-mg22 pyamg-sa", "ours-mg11 solvax-sum22"),
]
TINY = {511: 63, 512: 64, 1023: 127, 1024: 128, 256: 64, 63: 15, 64: 16, 127: 31, 128: 32}


def planned(everything: bool, quick: bool) -> list[tuple[str, str]]:
    """(problem, method) of every row; the tiny sizes with `quick`."""
    rows = []
    for name, always, more in PLAN:
        kind, _, n = name.rpartition("-")
        methods = f"{always} {more}" if everything else always
        rows += [(f"{kind}-{TINY[int(n)]}" if quick else name, method) for method in methods.split()]
    return rows


def every_method() -> list[str]:
    return list(dict.fromkeys(method for _, always, more in PLAN for method in f"{always} {more}".split()))
