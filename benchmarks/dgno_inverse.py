"""Coefficients of Darcy's equation from noisy values of the solution at few points: estimates and posteriors.

    python benchmarks/dgno_inverse.py two_phase outputs/dgno/two_phase_dgno_balanced_0.safetensors
    python benchmarks/dgno_inverse.py smooth outputs/dgno/smooth_dgno_0.safetensors --snr 20 25 50

For each held-out medium, number of points and noise: the published point estimate, with its physics term, and the
posterior by Hamiltonian Monte Carlo. The prior is fitted to the codes of training media. The error of the operator
itself, measured on 100 solved media that are not among those that are judged, is a part of the stated covariance.
Tables: relative L2 error of the coefficient (mean over media, and standard deviation), how much of the truth the 90 %
bands hold beside how much they should, convergence, and how often a deviation stated wrongly by a factor of 2 is
noticed. Runs on record are not repeated.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import neuralops as no
from neuralops import inverse

NUM_KNOWN = 100  # solved media for the operator's own error
LEVEL, SQUARE = 0.9, ((0.0, 1.0), (0.0, 1.0))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def solved(problem: no.pde.NodalDarcy, num_samples: int) -> tuple[no.data.Samples, no.data.Samples]:
    """Media to measure the operator's own error with, and those that are inferred."""
    samples = no.data.generate(problem, key=5, num_samples=NUM_KNOWN + num_samples, progress=False)
    samples = samples.map(lambda x: np.asarray(x, np.float32))
    return samples[:NUM_KNOWN], samples[NUM_KNOWN:]


def own_errors(op: no.DGNO, known: no.data.Samples) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the decoded solution `(solves, nodes)`, and root mean square errors of the coefficient at the nodes."""
    u = jax.jit(jax.vmap(op))(known.inputs)
    a = jax.jit(jax.vmap(lambda a: op.decode_input(op.encode(a))))(known.inputs)
    return (known.outputs - np.asarray(u)).reshape(len(known), -1), np.sqrt(
        np.mean((np.asarray(a) - known.inputs) ** 2, axis=0)
    )


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def weak_norm(op: no.DGNO, code: jax.Array, *, key: jax.Array) -> jax.Array:
    """The published term of a smooth medium: the 2-norm of weak residuals of the decoded fields."""
    weak = no.pde.WeakDarcy(SQUARE, forcing=10.0, form="primal", num_points=4)
    fields = {"u": lambda x: op.decode(code, x)}
    return jnp.linalg.norm(
        weak.residuals(weak.draw(key, code.dtype), lambda x: op.decode_input(code, x), fields)["balance"]
    )


def constitutive(op: no.DGNO, code: jax.Array, *, key: jax.Array) -> jax.Array:
    """That of two phases, for the flux that balances by construction."""
    equation = no.pde.BalancedDarcy(SQUARE, forcing=10.0)
    fields = {"u": lambda x: op.decode(code, x), "potential": lambda x: op.decode_flux(code, x)}
    points = equation.draw(key, code.dtype)
    return jnp.mean(equation.residuals(points, lambda x: op.decode_input(code, x), fields)["constitutive"])


PHYSICS = {"smooth": weak_norm, "two_phase": constitutive}


def sampled(posterior: inverse.Posterior, key: jax.Array, args: argparse.Namespace) -> inverse.Draws:
    fixed = {} if args.gradients is None else {"method": "hmc", "num_integration_steps": args.gradients}
    return inverse.hmc(
        posterior, key=key, num_warmup=args.num_warmup, num_samples=args.num_samples, progress=False, **fixed
    )


def experiment(op, prior, seen, errors, truth, u, query, args, key, deviation) -> dict:
    """One medium, seen at one set of points."""
    began = time.perf_counter()
    posterior = inverse.Posterior(op, prior, seen)
    draws = sampled(posterior, key, args)
    report = inverse.summary(draws, posterior, query, truth=truth, level=LEVEL, deviation=deviation)
    seconds = time.perf_counter() - began
    estimate = inverse.point_estimate(
        op, seen, key=key, case=f"darcy_{args.medium}", bounded=op.code == "tanh", physics=PHYSICS[args.medium],
        progress=False,
    )  # fmt: skip
    fields = posterior.fields(draws.thinned(400).reshape(-1, posterior.size), query, of="solution")
    row = {
        "a": report.relative_error,
        "a_point": relative(np.asarray(op.decode_input(estimate.code, query)), truth),
        "u": relative(np.asarray(fields.mean(0)), u),
        "coverage": report.coverage,
        "band_mass": report.band_mass,
        "rhat": float(np.max(report.rhat)),
        "field_rhat": report.field_rhat,
        "ess": float(np.min(report.ess)),
        "divergences": report.divergences,
        "noise_ok": bool(report.noise_ok),
        "noise_ratio": report.noise_ratio,
        "seconds": round(seconds, 1),
    }
    if report.phase_probability is not None:
        row["reliability"] = reliability(report.phase_probability, truth)
        row["randomised"] = randomised(report.phase_probability, truth)
    for name, factor in (("halved", 0.5), ("doubled", 2.0)) if args.wrong_noise else ():
        stated = inverse.PointMeasurement(
            seen.points, seen.values, noise=factor * seen.noise, model_error=factor * errors
        )
        wrong = inverse.Posterior(op, prior, stated)
        row[f"noticed_{name}"] = not inverse.summary(sampled(wrong, key, args), wrong, query, level=LEVEL).noise_ok
    return row


def reliability(share: np.ndarray, truth: np.ndarray) -> list:
    """Counts of pixels, and of those in the second phase, by the probability that the posterior gives them."""
    bins = np.clip((share * 10).astype(int), 0, 9).ravel()
    high = (truth > 7.5).ravel()
    return [np.bincount(bins, minlength=10).tolist(), np.bincount(bins, weights=high, minlength=10).tolist()]


def randomised(share: np.ndarray, truth: np.ndarray) -> float:
    """How much of the truth randomised bands hold: of a two-valued pixel they alone hold `LEVEL` exactly."""
    draw = np.random.default_rng(0).uniform(size=share.shape)
    place = np.where(truth > 7.5, 1 - share + draw * share, draw * (1 - share))
    return float(np.mean(np.abs(place - 0.5) < LEVEL / 2))


def line(runs: list[dict]) -> str:
    """The cells of one number of points and one noise."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in runs], float)

    cells = [f"{column(name).mean():.4f} ± {column(name).std(ddof=1):.4f}" for name in ("a", "a_point", "u")]
    names = ("coverage", "band_mass", "randomised") if "randomised" in runs[0] else ("coverage", "band_mass")
    cells.append(", ".join(f"{100 * column(name).mean():.1f} %" for name in names))
    cells.append(", ".join(f"{(column(name) < 1.05).sum()}/{len(runs)}" for name in ("rhat", "field_rhat")))
    cells.append(f"{column('noise_ok').sum():.0f}/{len(runs)}")
    noticed = [name for name in ("noticed_halved", "noticed_doubled") if name in runs[0]]
    cells.append(", ".join(f"{column(name).sum():.0f}/{len(runs)}" for name in noticed))
    return " | ".join([*cells, f"{np.median(column('seconds')):.0f}"])


def table(rows: list[dict]) -> str:
    lines = [
        "| points | SNR | a, posterior mean | a, point estimate | u | 90 % bands hold, should, randomised "
        "| R-hat below 1.05 (code, coefficient) | noise accepted | halved, doubled noticed | seconds |",
        "| --- |" + " --- |" * 9,
    ]
    for points, snr in dict.fromkeys((row["points"], row["snr"]) for row in rows):
        lines.append(f"| {points} | {snr:g} | {line([r for r in rows if (r['points'], r['snr']) == (points, snr)])} |")
    if rows and "reliability" in rows[0]:
        counts, high = (np.sum([row["reliability"][i] for row in rows], axis=0) for i in (0, 1))
        cells = " | ".join(f"{100 * h / max(c, 1):.0f} %" for c, h in zip(counts, high, strict=True))
        lines += ["", "| probability of the second phase | " + " | ".join(f"{k / 10:.1f}" for k in range(10)) + " |",
                  "| --- |" + " --- |" * 10, f"| observed frequency | {cells} |"]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", choices=("smooth", "two_phase"))
    parser.add_argument("operator", type=Path)
    parser.add_argument("--num-media", type=int, default=20)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 25])
    parser.add_argument("--snr", type=float, nargs="+", default=[25.0])
    parser.add_argument("--share", type=float, default=0.99, help="of the variance of the codes, kept by the prior")
    parser.add_argument("--num-warmup", type=int, default=500)
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--gradients", type=int, help="of a draw by HMC; the no-U-turn sampler without")
    parser.add_argument("--wrong-noise", action="store_true")
    parser.add_argument("--own-data", type=int, default=0, help="experiments on data of the model itself (calibration)")
    parser.add_argument("--output", type=Path, default=Path("outputs/dgno_inverse"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    op = no.load(args.operator)
    problem = no.pde.NodalDarcy((29, 29), medium=args.medium)
    known, judged = solved(problem, args.num_media)
    errors, deviation = own_errors(op, known)
    media = jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(1), 4000)).astype(np.float32)
    codes = jax.jit(jax.vmap(op.encode))(media)
    prior = inverse.Gaussian.fit(codes, share=args.share, bounded=op.code == "tanh")
    print(f"{prior.size} unknowns hold {100 * prior.share:.1f} % of the codes; errors of the operator itself: "
          f"u {rms(errors):.3g}, a {rms(deviation):.3g}")  # fmt: skip
    query = jnp.asarray(problem.grid.coordinates(), jnp.float32)
    nodes = np.asarray(query).reshape(2, -1)
    inside = np.flatnonzero((nodes > 1e-6).all(0) & (nodes < 1 - 1e-6).all(0))
    record = args.output / f"{args.medium}.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    for points in args.points:
        chosen = np.random.default_rng(points).choice(inside, points, replace=False)
        for snr in args.snr:
            for i in range(args.num_media):
                if any((row["points"], row["snr"], row["medium"]) == (points, snr, i) for row in rows):
                    continue
                truth, u = judged.inputs[i], judged.outputs[i]
                sensor = inverse.PointMeasurement(
                    nodes[:, chosen], noise=inverse.noise_of(u, snr), model_error=errors[:, chosen]
                )
                keys = jax.random.split(jax.random.fold_in(jax.random.key(7), i))
                seen = sensor.simulate(u.reshape(-1)[chosen], key=keys[0])
                spread = deviation if args.medium == "smooth" else 0.0
                row = experiment(op, prior, seen, errors[:, chosen], truth, u, query, args, keys[1], spread)
                rows.append({"points": points, "snr": snr, "medium": i, **row})
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "reliability"}), flush=True)
                with record.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n" + table(rows))
    if args.own_data:
        chosen = np.random.default_rng(100).choice(inside, 100, replace=False)
        noise = inverse.noise_of(judged.outputs, 25.0)
        blank = inverse.PointMeasurement(nodes[:, chosen], np.zeros(100, np.float32), noise=noise)
        study = functools.partial(inverse.coverage_study, inverse.Posterior(op, prior, blank), query[:, ::4, ::4])
        print(
            study(key=jax.random.key(9), num_experiments=args.own_data, num_chains=2, num_warmup=300, num_samples=300)
        )


if __name__ == "__main__":
    main()
