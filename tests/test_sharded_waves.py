"""Waves on a divided grid: the run of one device, one exchange a step, blocks alone.

The longer comparisons run on four simulated devices, in a process of their own: this file as a script.
"""

import os
import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import sharding
from neuralops.pde.waves import AbsorbingLayer, ExtendedSources, Sources, WaveEquation, WaveState

THIN = AbsorbingLayer(0.2, 0.1)  # 5 points at the spacings below: fewer than order 8 reaches
SLANTED = (("dirichlet", "neumann"), ("neumann", "dirichlet"))

pytestmark = pytest.mark.skipif(len(jax.devices()) < 2, reason="one device")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def mesh_of(*shape, kind="explicit"):
    devices = np.array(jax.devices()[: int(np.prod(shape))])
    names = ("x", "y")[: len(shape)]
    if kind == "auto":
        return jax.sharding.Mesh(devices.reshape(shape), names)
    return jax.make_mesh(shape, names, devices=devices)


def build(num_points, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # layers for waves as long as a small box
        return WaveEquation(num_points, max_sound_speed=1.0, **{"walls": "neumann", **options})


def given(equation, num_steps, sources="resting"):
    """Arguments of a run that leave nothing out: rough fields, and points next to walls and to where blocks meet."""
    rng, shape = np.random.default_rng(0), equation.num_points
    ndim = len(shape)
    size = np.reshape(equation.domain_extent, (ndim, 1))
    points = size * np.concatenate([rng.random((ndim, 3)), *(np.full((ndim, 1), x) for x in (1e-3, 0.5, 0.999))], 1)
    f = rng.standard_normal((6, num_steps))
    arguments = {
        "sound_speed": jnp.asarray(0.5 + 0.5 * rng.random(shape)),
        "initial": jnp.asarray(rng.standard_normal(shape)),
        "initial_rate": jnp.asarray(rng.standard_normal(shape)),
        "num_steps": num_steps,
        "every": 5,
        "receivers": points[:, ::-1],
        "sources": Sources(points, f),
        "gradient": "stored",
    }
    if sources == "moving":
        path = np.linspace(0, 1, num_steps)
        arguments["sources"] = Sources(points[..., None] * (1 - path) + points[:, ::-1, None] * path, f)
    elif sources == "extended":
        arguments["sources"] = ExtendedSources(rng.standard_normal((6, *shape)), f)
    if equation.density == "variable":
        arguments["density"] = jnp.asarray(1 + rng.random(shape))
    if equation.obstacle is not None:
        mask = np.ones(shape)
        mask[tuple(slice(n // 3, n // 2 + 2) for n in shape)] = 0  # across where blocks meet
        arguments["mask"] = jnp.asarray(mask)
    return arguments


def error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    return np.abs(found - expected).max() / np.abs(expected).max()


def worst(equation, mesh, axes, num_steps=12, sources="resting", **more):
    """The largest relative error of a divided run, in anything it returns."""
    arguments = {**given(equation, num_steps, sources), **more}
    alone = equation.run(**arguments)
    both = sharding.run(equation, **arguments, mesh=mesh, axes=axes)
    assert both.final.sharding.shard_shape(both.final.shape) == tuple(
        n // (mesh.shape[name] if name else 1) for n, name in zip(equation.num_points, axes, strict=True)
    )
    pairs = [(both[i], alone[i]) for i in (0, 1, 2, 4) if alone[i] is not None]
    return max(error(found, expected) for found, expected in pairs)


def slope_error(equation, mesh, axes, gradient, num_steps=12, **more):
    arguments = {**given(equation, num_steps), "gradient": gradient, **more}
    c = arguments.pop("sound_speed")

    def slope(run):
        def loss(c):
            out = run(c)
            return sum(jnp.sum(x**2) for x in (out.final, out.frames, out.records) if x is not None)

        return jax.jit(jax.grad(loss))(c)

    alone = slope(lambda c: equation.run(c, **arguments))
    return error(slope(lambda c: sharding.run(equation, c, **arguments, mesh=mesh, axes=axes)), alone)


# ---- two devices, quick


@pytest.mark.parametrize(
    ("num_points", "axes", "options"),
    [
        ((12, 9), ("x", None), {"order": 2, "walls": "periodic"}),
        ((9, 16), (None, "x"), {"order": 4, "time_order": 4, "walls": SLANTED, "centering": "node"}),
        ((24,), ("x",), {"order": 8, "walls": (("neumann", "absorbing"),), "layer": THIN}),
    ],
)
def test_two_devices_give_the_run_of_one(num_points, axes, options):
    assert worst(build(num_points, **options), mesh_of(2), axes, num_steps=10) < 1e-13


def test_one_exchange_a_step_and_blocks_alone():
    """Of two layers with order 4, there and back; the records are summed after the last step."""
    equation, mesh = build((64, 48), order=4), mesh_of(2)
    arguments = {"num_steps": 20, "sources": Sources(np.full((2, 1), 0.5), np.ones((1, 20))), "gradient": "stored"}
    run = lambda c: sharding.run(
        equation, c, c, receivers=np.full((2, 3), 0.5), mesh=mesh, axes=("x", None), **arguments
    )
    text = jax.jit(run).lower(jnp.ones((64, 48))).compile().as_text()
    loops = [
        re.search(rf"^%?{re.escape(name)} .*?^}}", text, re.M | re.S)[0]
        for name in re.findall(r"body=%?([\w.-]+)", text)
    ]
    (body,) = [loop for loop in loops if "collective-permute" in loop]  # the others scatter
    assert re.findall(r"f64\[([0-9,]+)\]\S* collective-permute\(", body) == ["2,48"] * 4  # the body is two steps
    assert not re.search(r"all-reduce|all-gather|all-to-all", body)
    assert not re.search(r"all-gather|all-to-all", text)
    sizes = [np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"f64\[([0-9,]+)\]", text)]
    assert max(sizes) <= (32 + 3 * 4) * 48  # a block and its margins, and never 64 * 48


def test_the_gradient_is_that_of_one_device():
    few = {"every": None, "sources": None, "initial_rate": None}
    assert slope_error(build((24,), order=4), mesh_of(2), ("x",), "stored", num_steps=6, **few) < 1e-12


def test_a_state_goes_on_and_is_that_of_one_device():
    equation, mesh = build((16,), order=4), mesh_of(2)
    c, u = (given(equation, 1)[name] for name in ("sound_speed", "initial"))
    run = lambda u, n, state=None: sharding.run(equation, c, u, state=state, num_steps=n, mesh=mesh, axes=("x",))
    alone, half = equation.run(c, u, num_steps=20), run(u, 10)
    both = run(None, 10, half.state)
    for found, expected in zip(both.state[:2], alone.state[:2], strict=True):
        assert error(found, expected) < 1e-13
    back = run(None, 10, WaveState(both.state.current, both.state.previous))
    assert error(back.state.current, half.state.previous) < 1e-12


def test_a_state_with_layers_goes_on():
    equation, mesh = build((24,), order=4, walls=("absorbing",), layer=THIN), mesh_of(2)
    c, u = (given(equation, 1)[name] for name in ("sound_speed", "initial"))
    run = lambda u, state=None: sharding.run(equation, c, u, state=state, num_steps=10, mesh=mesh, axes=("x",))
    both = run(None, run(u).state)
    alone = equation.run(c, u, num_steps=20)
    assert error(both.final, alone.final) < 1e-13
    assert both.state.current.shape == (2 * (12 + 2 * 5),)
    filled = np.asarray(both.state.current).reshape(2, 22)
    assert error(np.concatenate([filled[0, :17], filled[1, 5:]]), alone.state.current) < 1e-13
    assert not filled[0, 17:].any()
    with pytest.raises(ValueError, match=r"state: expected that of a run .* shape \(44,\)"):
        run(None, alone.state)


def test_a_speed_out_of_range_anywhere_gives_nan_everywhere():
    equation, mesh = build((16,), order=2), mesh_of(2)
    c = jnp.ones(16).at[3].set(1.5)
    run = jax.jit(lambda c: sharding.run(equation, c, jnp.ones(16), num_steps=1, mesh=mesh, axes=("x",)).final)
    assert np.isnan(run(c)).all()


@pytest.mark.parametrize(
    ("options", "axes", "more", "message"),
    [
        ({}, ("x",), {}, "axes: expected 2 names"),
        ({}, ("z", None), {}, "axes: expected 2 names"),
        ({}, ("x", "x"), {}, "axes: expected 2 names"),
        ({}, (None, "x"), {}, "axes: expected a number of points divisible by the 2 devices of 'x' on axis 1, got 21"),
        ({"order": 8, "density": "variable", "time_order": 4}, ("x", None), {"density": 1},
         "axes: expected blocks of at least 14 points along axis 0, .* reaches 14, got 10"),
        ({"order": 8, "walls": "periodic", "time_order": 4}, ("x", None), {}, "axes: expected blocks of at least 16"),
        ({"order": "spectral"}, ("x", None), {}, "order: modes reach over the whole axis"),
        ({"walls": "prescribed"}, ("x", None), {}, "walls: prescribed values are not divided"),
        ({}, ("x", None), {"num_steps": 0}, "num_steps: expected a positive integer"),
        ({}, ("x", None), {"initial": np.ones((10, 21))}, "initial: expected a field on the grid"),
        ({}, ("x", None), {"receivers": np.ones((3, 2))}, r"receivers: expected positions \(2, points\)"),
        ({}, ("x", None), {"sources": Sources(np.ones((2, 1)), np.ones((1, 4)))}, "sources: expected positions"),
        ({}, ("x", None), {"sources": ExtendedSources(np.ones((1, 20, 20)), np.ones((1, 5)))},
         r"sources: expected profiles \(sources, 20, 21\)"),
        ({}, ("x", None), {"state": WaveState(*np.ones((2, 10, 21)))}, "state: expected that of a run"),
    ],
)  # fmt: skip
def test_refusals(options, axes, more, message):
    equation = build((20, 21), **options)
    arguments = {"num_steps": 5, "mesh": mesh_of(2), "axes": axes, **more}
    if "density" in more:
        arguments["density"] = np.ones((20, 21))
    with pytest.raises(ValueError, match=message):
        sharding.run(equation, np.ones((20, 21)), **arguments)


def test_another_operator_is_refused():
    with pytest.raises(ValueError, match="equation: expected a WaveEquation"):
        sharding.run(lambda c: c, np.ones(8), num_steps=1, mesh=mesh_of(2), axes=("x",))


# ---- four devices, slow


MESHES = {
    "1": ((1,), ("x", None)),
    "2": ((2,), (None, "x")),
    "4": ((4,), ("x", None)),
    "2x2": ((2, 2), ("x", "y")),
    "line": ((4,), ("x",)),
    "box": ((2, 2), ("y", None, "x")),
}
ABSORBING = {"walls": "absorbing", "layer": THIN}
MIXED = {"walls": (("absorbing", "neumann"), ("dirichlet", "absorbing")), "layer": THIN, "density": "variable"}
RUNS = [
    # meshes, points, the equation, the run
    ("1 2 4 2x2", (32, 24), {"order": 4}, {}),
    ("2x2", (32, 32), {"order": 2, "walls": "periodic"}, {"sources": "moving"}),
    ("2x2", (32, 24), {"order": 8, "walls": "periodic", "density": "variable"}, {}),
    ("2x2", (32, 32), {"order": 4, "walls": "periodic", "time_order": 4, "centering": "node"}, {}),
    ("2x2", (40, 40), {"order": 4, "walls": "periodic", "time_order": 4, "density": "variable"}, {"sources": "moving"}),
    ("2x2", (32, 32), {"order": 8, "walls": ("dirichlet", "neumann"), "time_order": 4}, {}),
    ("2x2", (32, 32), {"order": 6, "walls": SLANTED, "time_order": 4, "density": "variable"}, {"sources": "extended"}),
    ("2x2", (32, 32), {"order": 4, "walls": SLANTED, "time_order": 4, "centering": "node", "density": "variable"}, {}),
    ("2x2", (32, 32), {"order": 6, "walls": SLANTED, "density": "variable", "obstacle": "neumann"}, {}),
    ("2x2", (32, 32), {"order": 4, "walls": SLANTED, "time_order": 4, "obstacle": "neumann", "centering": "node"}, {}),
    ("2x2", (32, 32), {"order": 4, "obstacle": "dirichlet"}, {"sources": "extended"}),
    ("2x2", (32, 24), {"order": 2, **ABSORBING}, {}),
    ("4 2x2", (32, 24), {"order": 8, "density": "variable", **ABSORBING}, {"velocities": True}),
    ("2x2", (32, 24), {"order": 4, "centering": "node", **MIXED}, {"sources": "moving"}),
    ("2x2", (32, 24), {"order": 4, "walls": "dirichlet"}, {"velocities": True}),
    ("2x2", (32, 24), {"order": 4, "walls": "periodic", "time_order": 4}, {"velocities": True}),
    ("line", (64,), {"order": 4, "walls": "absorbing", "layer": AbsorbingLayer(0.2, 1e-3)}, {}),
    ("box", (16, 14, 18), {"order": 4, "walls": ("absorbing", "periodic", "neumann"), "layer": THIN}, {}),
]
SLOPES = [
    ("2x2", (24, 24), {"order": 4, **MIXED}, "recomputed"),
    ("4", (32, 10), {"order": 4, "time_order": 4, "walls": SLANTED, "centering": "node"}, "stored"),
    ("2x2", (24, 24), {"order": 4, "walls": ("neumann", "periodic"), "density": "variable"}, "reversed"),
]


def on_four_devices(what, indices):
    flags = os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=4")
    done = subprocess.run(
        [sys.executable, __file__, what, *map(str, indices)], capture_output=True, text=True, check=False,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [float(x) for x in re.findall(r"ROW (\S+)", done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_four_devices_give_the_run_of_one(half):
    indices = range(len(RUNS))[half::2]
    errors = on_four_devices("runs", indices)
    assert len(errors) == sum(len(RUNS[i][0].split()) for i in indices)
    assert max(errors) < 1e-12


@pytest.mark.slow
def test_gradients_on_four_devices():
    errors = on_four_devices("slopes", range(len(SLOPES)))
    assert len(errors) == len(SLOPES)
    assert max(errors) < 1e-10


@pytest.mark.slow
def test_batches_and_meshes_of_both_kinds():
    equation, c = build((16, 9), order=4), jnp.asarray(0.5 + 0.5 * np.random.default_rng(0).random((3, 16, 9)))
    alone = jax.vmap(lambda c: equation.run(c, c, num_steps=7).final)(c)
    for kind in ("auto", "explicit"):
        f = lambda c, kind=kind: sharding.run(equation, c, c, num_steps=7, mesh=mesh_of(2, kind=kind), axes=("x", None))
        assert error(jax.jit(jax.vmap(lambda c: f(c).final))(c), alone) < 1e-13  # noqa: B023
        assert error(f(c[0]).final, alone[0]) < 1e-13


def main(what, *indices):
    jax.config.update("jax_enable_x64", True)
    for i in map(int, indices):
        names, num_points, options, more = (RUNS if what == "runs" else SLOPES)[i]
        for name in names.split():
            shape, axes = MESHES[name]
            measure = (lambda *a, **more: worst(*a, **more)) if what == "runs" else slope_error
            arguments = more if what == "runs" else {"gradient": more}
            kind = "auto" if i % 2 else "explicit"
            found = measure(build(num_points, **options), mesh_of(*shape, kind=kind), axes, **arguments)
            print("ROW", found, name, options, more, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
