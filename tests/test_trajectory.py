"""Trajectories: windows against loops, rollouts against loops, and training through both."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import losses, metrics
from neuralops.data import Samples, windows

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(3, 7, 2, 5)).astype(np.float32)  # 3 trajectories of 7 frames, 2 channels, 5 points


def by_loop(frames, history, horizon, stride):
    pairs = []
    for which, trajectory in enumerate(frames):
        start = 0
        while start + history + horizon <= len(trajectory):
            past = [trajectory[start + i] for i in range(history)]
            coming = [trajectory[start + history + i] for i in range(horizon)]
            pairs.append((which, np.concatenate(past), np.concatenate(coming)))
            start += stride
    return pairs


@pytest.mark.parametrize(
    ("history", "horizon", "stride"), [(1, 1, 1), (2, 3, 1), (3, 1, 2), (1, 2, 3), (4, 3, 1), (2, 2, 9)]
)
def test_windows_are_those_of_a_loop(history, horizon, stride):
    points, own = RNG.normal(size=(1, 5)).astype(np.float32), RNG.normal(size=(3, 4))
    inside = RNG.uniform(size=(3, 5)) < 0.7
    samples = Samples(FRAMES, coords=points, mask=inside, extras={"viscosity": own})
    source = windows(samples, history=history, horizon=horizon, stride=stride)
    wanted = by_loop(FRAMES, history, horizon, stride)
    assert len(source) == len(wanted)
    everything = no.data.check_samples(source.load())
    assert everything.shared == source[0].shared == ("coords",)
    assert everything.coords is points
    for i, (which, past, coming) in enumerate(wanted):
        for one in (source[i], everything[i], source[[i]][0], source[i - len(wanted)]):
            np.testing.assert_array_equal(one.inputs, past)
            np.testing.assert_array_equal(one.outputs, coming)
            np.testing.assert_array_equal(one.mask, inside[which])
            np.testing.assert_array_equal(one.extras["viscosity"], own[which])
    np.testing.assert_array_equal(source[::-1].inputs, everything.inputs[::-1])
    assert len(list(source)) == len(wanted)


def test_points_of_trajectories_are_told_apart_by_rank():
    """A mask (3, 5) could be that of each of 3 trajectories, or of all on a grid of 3 x 5, were it not for time."""
    flat, square = np.ones((3, 6, 1, 5), np.float32), np.ones((3, 6, 1, 3, 5), np.float32)
    each, one = np.ones((3, 5), bool), np.ones((3, 3, 5), bool)
    assert windows(Samples(flat, mask=each)).trajectories.shared == ()
    assert windows(Samples(square, mask=each)).trajectories.shared == ("mask",)
    assert windows(Samples(square, mask=one)).trajectories.shared == ()
    coords = np.zeros((3, 1, 5), np.float32)
    assert windows(Samples(flat, coords=coords)).trajectories.shared == ()
    assert windows(Samples(flat, coords=coords[0])).trajectories.shared == ("coords",)
    # Trajectories are cut along the samples before they are windows, too.
    assert Samples(flat, mask=each, coords=coords[0])[:2].mask.shape == (2, 5)
    assert Samples(flat, coords=coords[0])[:2].coords.shape == (1, 5)
    assert len(windows(Samples(flat, mask=each)[1:], horizon=5)) == 2


MEDIUM = RNG.normal(size=(3, 5)).astype(np.float64)
PAIR = RNG.normal(size=(3, 2, 5)).astype(np.float32)


def with_medium(frames, leading):
    """Frames behind channels that stay the same in time."""
    return np.concatenate([np.broadcast_to(leading[:, None], (*frames.shape[:2], *leading.shape[1:])), frames], axis=2)


@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (2, 3)])
def test_what_stays_stands_once_in_front_of_the_frames(history, horizon):
    extras = {"medium": MEDIUM, "pair": PAIR, "viscosity": np.arange(3.0)}
    leading = np.concatenate([PAIR, MEDIUM[:, None]], axis=1).astype(np.float32)
    sizes = {"history": history, "horizon": horizon}
    by_names = windows(Samples(FRAMES, extras=extras), **sizes, constants=("pair", "medium"))
    by_number = windows(with_medium(FRAMES, leading), **sizes, constants=3)
    plain = windows(FRAMES, **sizes)
    assert by_names.constants == by_number.constants == 3
    assert plain.constants == 0
    assert windows(Samples(FRAMES, extras=extras), constants="medium").constants == 1
    wanted = plain.load()
    for source in (by_names, by_number):
        assert len(source) == len(plain)
        everything = source.load()
        np.testing.assert_array_equal(everything.outputs, wanted.outputs)
        np.testing.assert_array_equal(everything.inputs[:, 3:], wanted.inputs)
        np.testing.assert_array_equal(
            everything.inputs[:, :3], leading[np.arange(len(source)) // source.per_trajectory]
        )
        assert everything.inputs.dtype == np.float32
        np.testing.assert_array_equal(source[-1].inputs, everything.inputs[-1])
    assert set(by_names[0].extras) == {"viscosity"}  # the others are inputs now


def test_a_medium_may_stay_in_its_file(tmp_path):
    options = {"name": "Waves", "input_fields": ["p", "q"], "grid": no.Grid(5), "times": np.arange(7.0)}
    extras = {"pair": PAIR, "medium": MEDIUM}
    with no.data.write(tmp_path / "waves.h5", Samples(FRAMES, extras=extras), **options) as file:
        source = windows(file, history=2, constants=("medium", "pair"))
        wanted = windows(Samples(FRAMES, extras=extras), history=2, constants=("medium", "pair"))
        for index in (4, [7, 0, 7], slice(None)):
            np.testing.assert_array_equal(source[index].inputs, wanted[index].inputs)
            np.testing.assert_array_equal(source[index].outputs, wanted[index].outputs)
        assert source.constants == 3


class Recorder:
    """An array that counts the numbers read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim, self.read = array, array.shape, array.dtype, array.ndim, 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        part = self.array[index]
        self.read += part.size
        return part


def test_windows_read_no_more_than_they_hold(tmp_path):
    record = Recorder(FRAMES)
    mask = np.ones((3, 5), bool)
    source = windows(Samples(record, mask=mask), history=2, horizon=1)
    assert record.read == 0
    window = source[3]
    assert record.read == window.inputs.size + window.outputs.size
    record.read = 0
    batch = source[[4, 0, 4]]  # neither sorted nor distinct, which files do not like
    assert record.read == batch.inputs.size + batch.outputs.size
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file["u"] = FRAMES
        lazy = windows(Samples(file["u"], mask=mask), history=2, horizon=1)
        for index in (3, [4, 0, 4], slice(None)):
            np.testing.assert_array_equal(lazy[index].inputs, source[index].inputs)
            np.testing.assert_array_equal(lazy[index].outputs, source[index].outputs)
        assert lazy[[4, 0]].mask.shape == (2, 5)
        assert len(windows(file["u"])) == 18


class Net(no.AbstractOperator):
    """tanh of a linear map of channels and neighbours: `history` frames in, `new` frames out."""

    weight: jax.Array

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("periodic",), "spacing-locked")

    def mean(self, u):
        return self(u)

    def __call__(self, u, /, *, key=None):
        near = jnp.concatenate([u, jnp.roll(u, 1, -1)])
        noise = 0 if key is None else jax.random.normal(key, (len(self.weight), u.shape[-1]))
        return jnp.tanh(self.weight @ near) + noise


def net(out, into, seed=0):
    return Net(jnp.asarray(np.random.default_rng(seed).normal(size=(out, 2 * into)) / np.sqrt(into), jnp.float32))


def by_hand(op, state, steps, keys=None):
    frames = []
    for i in range(steps):
        new = op(state) if keys is None else op(state, key=keys[i])
        frames.append(new)
        state = jnp.concatenate([state, new])[len(new) :]
    return jnp.stack(frames)


@pytest.mark.parametrize(("into", "out"), [(2, 2), (6, 2), (6, 4)], ids=["a frame", "three frames", "two of three new"])
def test_a_rollout_is_a_loop(into, out):
    op, start = net(out, into), jnp.asarray(RNG.normal(size=(into, 5)), jnp.float32)
    frames = no.rollout(op, start, 4)
    np.testing.assert_allclose(frames, by_hand(op, start, 4), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(no.Rollout(op, 4)(start), frames.reshape(4 * out, 5))


@pytest.mark.parametrize(("frames", "out"), [(2, 2), (6, 2), (2, 4)], ids=["a frame", "three frames", "two new"])
def test_constants_are_carried_along(frames, out):
    op, start = net(out, 3 + frames), jnp.asarray(RNG.normal(size=(3 + frames, 5)), jnp.float32)
    wanted, state = [], start[3:]
    for _ in range(4):
        new = op(jnp.concatenate([start[:3], state]))
        wanted.append(new)
        state = jnp.concatenate([state, new])[-frames:]
    got = no.rollout(op, start, 4, constants=3)
    np.testing.assert_allclose(got, jnp.stack(wanted), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(no.Rollout(op, 4, constants=3)(start), got.reshape(4 * out, 5))


def test_a_loss_of_rollouts_keeps_constants_and_their_noise_away():
    op = net(2, 7)
    pairs = windows(Samples(FRAMES, extras={"pair": PAIR, "medium": MEDIUM}), history=2, horizon=3,
                    constants=["pair", "medium"])  # fmt: skip
    batch = jax.tree.map(jnp.asarray, pairs[[0, 5]])
    value = losses.rollout(3, losses.mse, constants=pairs.constants)(op.mean, batch, key=KEY)
    targets = batch.outputs.reshape(2, 3, 2, 5)
    wanted = [no.rollout(op, u, 3, constants=3) for u in batch.inputs]
    np.testing.assert_allclose(value, jnp.mean((jnp.stack(wanted) - targets) ** 2), rtol=1e-5)
    seen = []

    def watched(u):
        jax.debug.callback(lambda u: seen.append(np.asarray(u)), u)
        return u[-2:]

    losses.rollout(3, losses.mse, constants=3, noise=0.1)(watched, batch[:1], key=KEY)
    jax.effects_barrier()
    first = min(seen, key=lambda u: np.abs(u - batch.inputs[0]).max())
    assert len(seen) == 3
    for u in seen:
        np.testing.assert_array_equal(u[:3], batch.inputs[0, :3])
    assert 0.01 < np.std(first[3:] - batch.inputs[0, 3:]) < 0.3


def test_each_step_draws_anew():
    op, start = net(2, 2), jnp.asarray(FRAMES[0, 0])
    keys = jax.random.split(KEY, 3)
    np.testing.assert_allclose(no.rollout(op, start, 3, key=KEY), by_hand(op, start, 3, keys), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(no.Rollout(op, 3)(start, key=KEY), no.rollout(op, start, 3, key=KEY).reshape(6, 5))

    def needy(u, *, key):  # does not run without
        return u + jax.random.normal(key, u.shape)

    steps = [jax.random.normal(k, start.shape) for k in keys]
    np.testing.assert_allclose(no.rollout(needy, start, 3, key=KEY)[-1], start + sum(steps), rtol=1e-5)
    np.testing.assert_array_equal(no.rollout(lambda u: 2 * u, start, 2, key=KEY)[1], 4 * start)  # draws nothing


def test_recomputing_gives_the_same_gradient_and_keeps_less():
    op, start = net(2, 2), jnp.asarray(FRAMES[0, 0])

    def energy(op, recompute):
        return jnp.sum(no.rollout(op, start, 20, recompute=recompute) ** 2)

    gradients = [jax.grad(energy)(op, recompute).weight for recompute in (False, True)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)
    kept = lambda r: jax.tree.leaves(jax.vjp(lambda op: energy(op, r), op)[1])  # what the backward pass holds
    sizes = [sum(x.size for x in kept(recompute)) for recompute in (False, True)]
    frames = 20 * start.size
    assert sizes[1] < 3 * frames < 4 * frames <= sizes[0]  # the state and the output of each step, and no more
    batch = Samples(jnp.asarray(FRAMES[:, 0]), jnp.asarray(FRAMES[:, 1:5].reshape(3, 8, 5)))
    loss = lambda op, r: losses.rollout(4, losses.mse, recompute=r)(op, batch, key=KEY)
    np.testing.assert_allclose(jax.grad(loss)(op, False).weight, jax.grad(loss)(op, True).weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("window", [None, 1, 2])
def test_gradients_stop_where_the_window_ends(window):
    op, batch = net(2, 4), windows(FRAMES, history=2, horizon=3)[[0, 4]]
    batch = jax.tree.map(jnp.asarray, batch)

    def hand(op):
        total = 0
        for start, target in zip(batch.inputs, batch.outputs.reshape(2, 3, 2, 5), strict=True):
            state = start
            for i in range(3):
                new = op(state)
                total += jnp.mean((new - target[i]) ** 2) / 6
                state = jnp.concatenate([state[2:], new])
                if window is not None and (i + 1) % window == 0:
                    state = jax.lax.stop_gradient(state)
        return total

    objective = losses.rollout(3, losses.mse, window=window)
    value, gradient = jax.jit(jax.value_and_grad(lambda op: objective(op.mean, batch, key=KEY)))(op)
    wanted, slope = jax.jit(jax.value_and_grad(hand))(op)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient.weight, slope.weight, rtol=1e-4, atol=1e-6)
    if window is not None:
        free = jax.grad(lambda op: losses.rollout(3, losses.mse)(op.mean, batch, key=KEY))(op)
        assert np.abs(free.weight - slope.weight).max() > 1e-3 * np.abs(slope.weight).max()


def test_noise_of_a_rollout_does_not_see_masked_points():
    """What masked points hold, and what an operator makes of them, changes nothing."""
    mask = np.arange(5) < 3
    frames = np.where(mask, FRAMES, np.nan)
    objective = losses.rollout(3, losses.mse, noise=0.5)

    def value(frames, spoil):
        batch = windows(Samples(frames, mask=mask), horizon=3)[:3]
        run = lambda u: jnp.where(mask, jnp.tanh(u), spoil)
        return jax.jit(lambda batch: objective(run, batch, key=KEY))(batch)

    np.testing.assert_allclose(value(frames, np.nan), value(np.where(mask, FRAMES, 1e6), 7.0), rtol=1e-6)


class Shift(no.AbstractOperator):
    """A periodic convolution with one free weight for each offset."""

    kernel: jax.Array

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("periodic",), "spacing-locked")

    def __call__(self, u, /, *, key=None):
        offsets = range(-2, 3)
        return sum(w * jnp.roll(u, s, -1) for w, s in zip(self.kernel, offsets, strict=True))


def test_training_through_rollouts_finds_the_shift():
    """Waves that travel one point a frame: the kernel has to become a one at offset 1."""
    waves = RNG.normal(size=(6, 1, 12)).astype(np.float32)
    frames = np.stack([np.roll(waves, i, -1) for i in range(7)], axis=1)
    pairs = windows(frames, horizon=3)
    start = Shift(jnp.full(5, 0.2))
    op, _ = no.fit(start, pairs, objective=losses.rollout(3, losses.mse), optimizer=optax.adam(0.03),
                         num_epochs=40, batch_size=8, key=KEY, progress=False)  # fmt: skip
    phase = lambda op: np.angle(np.exp(-1j * 2 * np.pi / 12 * np.arange(-2, 3)) @ np.asarray(op.kernel))
    assert phase(op) == pytest.approx(-2 * np.pi / 12, abs=0.02)  # the speed of the longest wave
    assert abs(phase(start) + 2 * np.pi / 12) > 0.2
    np.testing.assert_allclose(op.kernel, [0, 0, 0, 1, 0], atol=0.05)
    new = RNG.normal(size=(2, 1, 12)).astype(np.float32)
    fresh = windows(np.stack([np.roll(new, i, -1) for i in range(11)], axis=1), horizon=10)
    ten = no.evaluate(no.Rollout(op, 10), fresh)["relative_l2"]
    untrained = no.evaluate(no.Rollout(start, 10), fresh)["relative_l2"]
    assert ten.max() < 0.3 * untrained.min()
    by_loop = [metrics.relative_l2(by_hand(op, jnp.asarray(s.inputs), 10).reshape(10, 12), s.outputs) for s in fresh]
    np.testing.assert_allclose(ten, by_loop, rtol=1e-4)


U = jnp.asarray(FRAMES[0, 0])
BAD = {
    "too few frames": (lambda: windows(FRAMES, history=5, horizon=3), "at least 8 frames .*of 7"),
    "no channels": (lambda: windows(FRAMES[:, :, 0]), "trajectories: expected a floating array .*add the channel axis"),
    "integers": (lambda: windows(FRAMES.astype(int)), "trajectories: expected a floating array"),
    "outputs": (lambda: windows(Samples(FRAMES, FRAMES)), "expected frames in inputs alone"),
    "no stride": (lambda: windows(FRAMES, stride=0), "stride: expected a positive integer"),
    "half a frame": (lambda: windows(FRAMES, history=1.5), "history: expected a positive integer"),
    "another mask": (lambda: windows(Samples(FRAMES, mask=np.ones((2, 5), bool))), r"mask: expected shape"),
    "points in time": (
        lambda: windows(Samples(FRAMES, coords=np.ones((3, 7, 1, 5), np.float32))), "coords: .*stay where"
    ),
    "extras of frames": (
        lambda: windows(Samples(FRAMES, extras={"t": np.arange(7)})), "t: expected one for each of 3 trajectories"
    ),
    "no window": (lambda: windows(FRAMES)[[]], "index: expected at least one window"),
    "a name": (lambda: windows(FRAMES)["inputs"], "index: expected sample numbers"),
    "an unknown medium": (lambda: windows(FRAMES, constants="medium"), r"constants: expected a number, or names"),
    "a medium twice": (
        lambda: windows(Samples(FRAMES, extras={"c": MEDIUM}), constants=("c", "c")), "constants: .*each once"
    ),
    "a number for each": (
        lambda: windows(Samples(FRAMES, extras={"c": np.ones(3)}), constants="c"), "constants: expected 'c' to be"
    ),
    "nothing that moves": (lambda: windows(FRAMES, constants=2), "constants: expected fewer than the 2 channels"),
    "half a constant": (lambda: windows(FRAMES, constants=0.5), "constants: expected zero or a positive"),
    "a constant that changes": (lambda: windows(FRAMES, constants=1), "constants: .* stay the same in time, got ch"),
    "a state of constants": (lambda: no.rollout(net(2, 2), U, 2, constants=2), "constants: expected fewer than the 2"),
    "a batch of constants": (
        lambda: losses.rollout(1, losses.mse, constants=2)(net(2, 2).mean, windows(FRAMES).load(), key=KEY),
        "constants: expected fewer than the 2",
    ),
    "no steps": (lambda: no.rollout(net(2, 2), U, 0), "num_steps: expected a positive integer"),
    "another grid": (lambda: no.rollout(lambda u: u[:, ::2], U, 2), "op: expected an operator that stays on the grid"),
    "another dtype": (lambda: no.rollout(lambda u: u.astype("bfloat16"), U, 2), "op: expected an operator .* dtype"),
    "integer start": (lambda: no.rollout(net(2, 2), np.ones((2, 5), int), 2), "start: rollout expects a real floating"),
    "no start": (lambda: no.rollout(net(2, 2), [1.0, 2.0], 2), "start: rollout expects an array"),
    "a word": (lambda: no.Rollout(net(2, 2), 2, recompute="yes"), "recompute: expected True or False"),
    "no operator": (lambda: no.Rollout(3, 2), "op: expected a callable"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_what_does_not_fit_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert ";" in str(error.value)


def test_a_window_beyond_the_last_is_none():
    with pytest.raises(IndexError):
        windows(FRAMES)[18]
