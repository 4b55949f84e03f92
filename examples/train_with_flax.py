"""One FNO trained as an NNX module, as a Linen module and by `fit`; and a Flax network trained as an operator.

    python examples/train_with_flax.py                # well under a minute on two cores

The operator maps the source of Poisson's equation to its solution. Every loop starts from the same key and takes
the whole training set in each step, so the order of the samples does not matter and the losses agree to rounding.
The table, the figure and the Flax network's parameters lie under --output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from neuralops.training.losses import relative_l2

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/train_with_flax"))
    parser.add_argument("--num-points", type=int, default=32, help="points per side")
    parser.add_argument("--num-train", type=int, default=48)
    parser.add_argument("--num-test", type=int, default=32)
    parser.add_argument("--num-epochs", type=int, default=60)
    parser.add_argument("--hidden-channels", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Mixer(nn.Module):
    """Somebody's Linen network, channels last: it mixes rows, columns and channels in turn."""

    channels: int = 12
    blocks: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.channels)(x)
        for _ in range(self.blocks):
            for axis in range(x.ndim):
                mixed = nn.Dense(x.shape[axis])(nn.gelu(jnp.moveaxis(x, axis, -1)))
                x = x + jnp.moveaxis(mixed, -1, axis)
        return nn.Dense(1)(x)


def mean_loss(call: Any, data: Samples) -> jax.Array:
    return jnp.mean(jax.vmap(lambda u, v: relative_l2(call(u), v))(data.inputs, data.outputs))


def train_nnx(op: Any, data: Samples, optimizer: Any, num_epochs: int) -> tuple[Any, np.ndarray]:
    """The loop of an NNX user. Any operator will do."""
    model = to_nnx(op)
    state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, state: Any, data: Samples) -> jax.Array:
        value, grads = nnx.value_and_grad(lambda model: mean_loss(model, data))(model)
        state.update(model, grads)
        return value

    losses = [step(model, state, data) for _ in range(num_epochs)]
    return from_nnx(model), np.array(losses)


def train_linen(build: Any, key: jax.Array, data: Samples, optimizer: Any, num_epochs: int) -> tuple[Any, np.ndarray]:
    """The loop of a Linen user."""
    module = to_linen(build)
    variables = module.init(key, data.inputs[0])
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optimizer)

    @jax.jit
    def step(state: Any, data: Samples) -> tuple[Any, jax.Array]:
        objective = lambda params: mean_loss(lambda u: state.apply_fn({"params": params}, u), data)
        value, grads = jax.value_and_grad(objective)(state.params)
        return state.apply_gradients(grads=grads), value

    losses = []
    for _ in range(num_epochs):
        state, value = step(state, data)
        losses.append(value)
    return from_linen(module, state.params), np.array(losses)


def draw(losses: dict[str, np.ndarray], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    styles = {"fit": {"lw": 5, "alpha": 0.35}, "NNX loop": {"lw": 2}, "Linen loop": {"lw": 1.5, "ls": "--"}}
    for name, values in losses.items():
        left.semilogy(values, label=name, **styles.get(name, {"color": "0.5"}))
    left.set(xlabel="epoch", ylabel="training loss (relative L2)", title="The same FNO three ways, and a Flax mixer")
    left.legend()
    floor = np.finfo(np.float32).eps
    for name, style in (("NNX loop", {"color": "C1", "marker": "o", "mfc": "none", "ms": 8}),
                        ("Linen loop", {"color": "C2", "marker": ".", "ms": 5})):  # fmt: skip
        difference = np.abs(losses[name] - losses["fit"]) / losses["fit"]
        right.semilogy(np.maximum(difference, floor / 8), ls="", label=name, **style)
    right.annotate("equal to the bit", (0.98, floor / 8), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                   xytext=(0, 3), textcoords="offset points", color="0.4")  # fmt: skip
    right.axhline(floor, color="0.5", lw=1)
    right.annotate("float32 rounding", (0.98, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                   color="0.4")  # fmt: skip
    right.set(xlabel="epoch", ylabel="relative difference", title="Loss of the Flax loops against fit")
    right.legend(loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    n = args.num_points
    problem = no.pde.Poisson((n, n))
    train = no.data.generate(problem, key=args.seed, num_samples=args.num_train, progress=False)
    test = no.data.generate(problem, key=args.seed + 1, num_samples=args.num_test, progress=False)
    train, test = (Samples(*(jnp.asarray(x) for x in (data.inputs, data.outputs))) for data in (train, test))
    scales = Normalizer.fit(train.inputs), Normalizer.fit(train.outputs)

    def build(*, key: jax.Array) -> Any:
        """The operator to train: an FNO in the sine basis, between scaled fields."""
        modes = min(16, n)
        network = no.FNO((modes, modes), 1, 1, args.hidden_channels, n_layers=2, boundary="dirichlet",
                         centering="cell", key=key)  # fmt: skip
        return Normalized(network, *scales)

    key, optimizer = jax.random.key(args.seed), optax.adam(args.learning_rate)
    settings = {
        "loss": relative_l2, "optimizer": optimizer, "num_epochs": args.num_epochs, "batch_size": args.num_train,
        "key": key, "progress": False,
    }  # fmt: skip

    mixer = Mixer()
    params = mixer.init(key, jnp.zeros((n, n, 1)))["params"]
    foreign = Normalized(from_linen(mixer, params, channels_last=True), *scales)

    def by_fit(op: Any) -> tuple[Any, np.ndarray]:
        op, history = no.fit(op, train, **settings)
        return op, history.loss

    runs = {
        "fit": lambda: by_fit(build(key=key)),
        "NNX loop": lambda: train_nnx(build(key=key), train, optimizer, args.num_epochs),
        "Linen loop": lambda: train_linen(build, key, train, optimizer, args.num_epochs),
        "Flax mixer by fit": lambda: by_fit(foreign),
    }
    ops, losses, lines = {}, {}, []
    for name, run in runs.items():
        ops[name], losses[name] = run()
        error = no.evaluate(ops[name], test, metrics=(relative_l2,))["relative_l2"].mean()
        lines.append(f"| {name} | {losses[name][0]:.6f} | {losses[name][-1]:.6f} | {error:.4f} |")
    mean_error = no.evaluate(no.baselines.training_mean(train), test, metrics=(relative_l2,))["relative_l2"].mean()
    lines.append(f"| training mean | | | {mean_error:.4f} |")
    header = ["| | loss, first epoch | last epoch | test relative L2 |", "| --- | --- | --- | --- |"]
    for name in ("NNX loop", "Linen loop"):
        difference = np.abs(losses[name] - losses["fit"]) / losses["fit"]
        lines.append(
            f"\n{name}: the losses differ from those of fit by at most {difference[:5].max():.1e} in the first five "
            f"epochs and {difference.max():.1e} in all {args.num_epochs}, relative."
        )
    table = "\n".join(header + lines)
    print(table)

    path = args.output / "mixer.safetensors"
    no.save(path, ops["Flax mixer by fit"].op)  # arrays only: the network itself is Python
    back = no.load(path, like=foreign.op)
    u = train.inputs[0]
    assert np.array_equal(back(u), ops["Flax mixer by fit"].op(u))
    (args.output / "table.md").write_text(table + "\n")
    draw(losses, args.output / "losses.png")
    print(f"\nfigure, table and the network's parameters: {args.output}")


if __name__ == "__main__":
    main()
