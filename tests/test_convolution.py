"""Convolutions with boundaries against SciPy, against plain sums over ghost points, and by their derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from neuralops.nn import convolution
from neuralops.nn.convolution import coarse_points, ghost_rule

# As one program each, not one for each operation.
convolve = jax.jit(convolution.convolve, static_argnums=2)
coarsen = jax.jit(convolution.coarsen, static_argnums=(2, 3))
refine = jax.jit(convolution.refine, static_argnums=(2, 3, 4))

RULES = {"wrap": "grid-wrap", "zero": "grid-constant", "reflect": "mirror", "even": "reflect"}
RNG = np.random.default_rng(3)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def continued(x, rules):
    """A NumPy line with one ghost value at each end."""

    def ghost(rule, first, second, other):
        return {"zero": 0 * first, "odd": -first, "even": first, "reflect": second, "wrap": other}[rule]

    low, high = ghost(rules[0], x[0], x[1], x[-1]), ghost(rules[1], x[-1], x[-2], x[0])
    return np.concatenate([[low], x, [high]])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(9,), (6, 7), (4, 5, 6)])
def test_same_grid_against_scipy(x64, rule, shape):
    u, kernel = normal(*shape, 2), normal(*(3,) * len(shape), 2, 3)
    out = convolve(u, kernel, ((rule, rule),) * len(shape))
    expected = np.stack(
        [
            sum(scipy.ndimage.correlate(u[..., i], kernel[..., i, o], mode=RULES[rule]) for i in range(2))
            for o in range(3)
        ],
        -1,
    )
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", ["even", "odd"])
@pytest.mark.parametrize("rules", [("zero", "zero"), ("odd", "reflect"), ("even", "zero"), ("wrap", "wrap")])
@pytest.mark.parametrize("n", [3, 6])
def test_every_second_point(x64, rules, n, kept):
    u, kernel = normal(n, n + 1, 2), normal(3, 3, 2, 2)
    every = convolve(u, kernel, (rules, rules))
    out = coarsen(u, kernel, (rules, rules), kept)
    start = int(kept == "odd")
    m = [coarse_points(k, kept) for k in (n, n + 1)]
    assert out.shape == (*m, 2)
    np.testing.assert_allclose(out, every[start::2, start::2][: m[0], : m[1]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", ["even", "odd"])
@pytest.mark.parametrize("taps", [3, 4])
@pytest.mark.parametrize("rules", [("zero", "zero"), ("odd", "reflect"), ("even", "odd"), ("wrap", "wrap")])
@pytest.mark.parametrize("n", [5, 8])
def test_back_to_the_fine_grid_is_a_sum_over_coarse_points(x64, rules, n, taps, kept):
    m = coarse_points(n, kept)
    u, kernel = RNG.normal(size=m), RNG.normal(size=taps)
    wide = continued(u, rules)
    expected = np.zeros(n)
    for i, tap in itertools.product(range(-1, m + 1), range(taps)):
        point = 2 * i + tap - (kept == "even")
        if 0 <= point < n:
            expected[point] += wide[i + 1] * kernel[tap]
    out = refine(jnp.asarray(u)[:, None], jnp.asarray(kernel)[:, None, None], (rules,), kept, (n,))
    np.testing.assert_allclose(out[:, 0], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n", [(8, 9), (7, 6)])
@pytest.mark.parametrize("kept", ["even", "odd"])
def test_back_in_two_dimensions_is_the_transpose(x64, n, kept):
    """With zeros outside and three taps, spreading is the transpose of gathering."""
    zero = (("zero", "zero"),) * 2
    m = tuple(coarse_points(k, kept) for k in n)
    kernel, u, v = normal(3, 3, 2, 4), normal(*n, 2), normal(*m, 4)
    there = np.vdot(coarsen(u, kernel, zero, kept), v)
    back = np.vdot(u, refine(v, kernel.swapaxes(2, 3), zero, kept, n))
    np.testing.assert_allclose(there, back, rtol=1e-12)


@pytest.mark.parametrize(
    "rules", [("zero", "zero"), ("odd", "reflect"), pytest.param(("wrap", "wrap"), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["convolve", "coarsen even", "coarsen odd", "refine 3", "refine 4"])
def test_derivatives(x64, kind, rules):
    """Reverse against forward mode, whose forms differ, and forward mode against finite differences; batched."""
    name, _, option = kind.partition(" ")
    grid, taps = ((4, 3), int(option)) if name == "refine" else ((7, 6), 3)
    call = {
        "convolve": lambda u, k: convolve(u, k, (rules,) * 2),
        "coarsen": lambda u, k: coarsen(u, k, (rules,) * 2, option),
        "refine": lambda u, k: refine(u, k, (rules,) * 2, "even", (7, 6)),
    }[name]
    f = jax.jit(jax.vmap(call, (0, None)))
    u, k, du, dk = normal(2, *grid, 2), normal(taps, taps, 2, 3), normal(2, *grid, 2), normal(taps, taps, 2, 3)
    out, tangent = jax.jit(lambda *args: jax.jvp(f, args[:2], args[2:]))(u, k, du, dk)
    np.testing.assert_allclose(tangent, f(du, k) + f(u, dk), rtol=1e-10, atol=1e-10)  # bilinear
    alone = jax.jit(lambda u, k, dk: jax.jvp(lambda k: f(u, k), (k,), (dk,))[1])(u, k, dk)
    np.testing.assert_allclose(alone, f(u, dk), rtol=1e-10, atol=1e-10)
    v = normal(*out.shape)
    ubar, kbar = jax.jit(lambda u, k, v: jax.vjp(f, u, k)[1](v))(u, k, v)
    np.testing.assert_allclose(np.vdot(ubar, du), np.vdot(v, f(du, k)), rtol=1e-10)
    np.testing.assert_allclose(np.vdot(kbar, dk), np.vdot(v, f(u, dk)), rtol=1e-10)
    if kind == "coarsen even":
        jax.jit(jax.hessian(lambda k: jnp.sum(f(u, k) ** 2)))(k)


def test_ghosts_are_those_of_the_boundary(x64):
    """A mode of each boundary, sampled by a grid, is continued as the function goes on."""
    import neuralops as no

    waves = {"periodic": lambda x: np.cos(2 * np.pi * x), "dirichlet": lambda x: np.sin(np.pi * x),
             "neumann": lambda x: np.cos(np.pi * x)}  # fmt: skip
    shift = jnp.asarray([1.0, 0.0, 0.0])[:, None, None], jnp.asarray([0.0, 0.0, 1.0])[:, None, None]
    for (word, wave), centering in itertools.product(waves.items(), ("node", "cell")):
        grid = no.Grid(8, boundary=word, centering=centering)
        x, h = grid.points(0), grid.spacing[0]
        rule = (ghost_rule(word, centering),)
        for kernel, step in zip(shift, (-h, h), strict=True):
            moved = convolve(jnp.asarray(wave(x))[:, None], kernel, rule)[:, 0]
            np.testing.assert_allclose(moved, wave(x + step), atol=1e-14)
