"""Grids divided over simulated devices: the same steps and values, by exchange of layers alone."""

import os
import re
import subprocess
import sys

import pytest

SCRIPT = """
import re, sys
import jax, jax.numpy as jnp, numpy as np
from neuralops import sharding
from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, Multigrid, solve

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
for boundary, centering, coarsening in (
    (("dirichlet", "neumann"), "cell", "cells"), (("neumann", "periodic"), "node", "nodes")
):
    grid = Grid((96, 80), boundary=boundary, centering=centering)  # one level to divide, the next is gathered
    A = Diffusion.from_coefficient(grid, jnp.asarray(np.exp(rng.normal(size=grid.shape))))
    b = A.to_range(A.load(jnp.asarray(rng.normal(size=grid.shape))))
    method = lambda A: CG(1e-8, preconditioner=Multigrid(A, coarsening=coarsening))
    alone = jax.jit(lambda A, b: solve(A, b, method(A)))(A, b)
    for shape, axes in eval(sys.argv[1]):
        devices = jax.devices()[: int(np.prod(shape))]
        mesh = jax.make_mesh(shape, ("x", "y")[: len(shape)], devices=devices)
        run = jax.jit(lambda A, b: sharding.solve(A, b, method, mesh=mesh, axes=axes))
        text = run.lower(A, b).compile().as_text()
        shapes = re.findall(r"f64.([0-9,]+).\\S* all-gather", text)
        gathered = [np.prod([int(n) for n in dims.split(",")]) for dims in shapes]
        s = run(A, b)
        error = float(jnp.abs(s.value - alone.value).max() / jnp.abs(alone.value).max())
        print("ROW", int(s.num_steps) - int(alone.num_steps), int(s.result), error, text.count("collective-permute("),
              max(gathered, default=0), grid.num_points[0] * grid.num_points[1])
if len(sys.argv) > 2:
    def loss(a):
        A = Diffusion.from_coefficient(grid, a)
        return jnp.sum(jnp.sin(1e3 * sharding.solve(A, b, lambda A: CG(1e-12), mesh=mesh, axes=axes).value))
    def here(a):
        A = Diffusion.from_coefficient(grid, a)
        return jnp.sum(jnp.sin(1e3 * solve(A, b, CG(1e-12)).value))
    a = jnp.ones(grid.shape)
    found, expected = jax.jit(jax.grad(loss))(a), jax.jit(jax.grad(here))(a)
    print("GRADIENT", float(jnp.abs(found - expected).max() / jnp.abs(expected).max()))
"""


def rows(meshes, *flags):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, meshes, *flags], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check(output, count):
    found = re.findall(r"ROW (.+)", output)
    assert len(found) == count
    for row in found:
        more, result, error, permutes, gathered, points = row.split()
        assert abs(int(more)) <= 1
        assert int(result) == 0
        assert float(error) < 1e-7
        assert int(permutes) > 0
        assert int(gathered) < int(points) / 1.5  # coarse levels alone: never the fine grid


@pytest.mark.slow
def test_four_devices_in_two_directions():
    output = rows('[((2, 2), ("x", "y"))]', "gradient")
    check(output, 2)
    assert float(re.search(r"GRADIENT (\S+)", output)[1]) < 1e-6


@pytest.mark.slow
def test_one_to_eight_devices():
    check(rows('[((1,), ("x", None)), ((2,), (None, "x")), ((4,), ("x", None)), ((4, 2), ("x", "y"))]'), 8)


def test_refusals():
    import jax
    import jax.numpy as jnp

    from neuralops import sharding
    from neuralops.grid import Grid
    from neuralops.solvers import CG, Diffusion

    mesh = jax.make_mesh((1,), ("x",))
    A = Diffusion(Grid((6, 6), boundary="dirichlet"))
    with pytest.raises(ValueError, match="axes: expected 2 names"):
        sharding.solve(A, jnp.ones((6, 6)), CG(), mesh=mesh, axes=("x",))
    with pytest.raises(ValueError, match="axes: expected 2 names"):
        sharding.solve(A, jnp.ones((6, 6)), CG(), mesh=mesh, axes=("z", None))
    with pytest.raises(ValueError, match="A: expected a Diffusion"):
        sharding.solve(lambda v: v, jnp.ones((6, 6)), CG(), mesh=mesh, axes=("x", None))
    open_ = Diffusion.from_coefficient(Grid((6, 6)), jnp.ones((6, 6)), mask=jnp.ones((6, 6), bool))
    with pytest.raises(ValueError, match="promise"):
        sharding.solve(open_, jnp.ones((6, 6)), CG(), mesh=mesh, axes=("x", None))
