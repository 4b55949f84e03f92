"""Compressed convolutions: equal to the dense one with the composed kernel, and what low rank can and cannot be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

import neuralops as no
from neuralops.continuation import continued, end_rules
from neuralops.models.lsm import DoubleConv
from neuralops.nn import MultigridConv, SeparableConv, conv_counts
from neuralops.nn.kernel_decomposition import cp_factors, cp_tensor
from neuralops.nn.kernel_factors import VARIANTS, KernelFactors

KEY = jax.random.key(5)
RNG = np.random.default_rng(5)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def wide(op):
    return jax.tree.map(lambda p: p.astype(jnp.float64), op)


def reference_line(u, axis, boundary, centering, margin):
    """The continuation of a NumPy field along one axis, as a stretch of its periodic image."""
    line = np.moveaxis(u, axis, 0)
    n, zero, back = len(line), 0 * line[:1], line[::-1]
    ends = (boundary, boundary) if isinstance(boundary, str) else boundary
    images = {
        ("zero", "node"): [line, 0 * line],
        ("zero", "cell"): [line, 0 * line],
        ("periodic", "node"): [line],
        ("periodic", "cell"): [line],
        ("dirichlet", "node"): [line, zero, -back, zero],
        ("dirichlet", "cell"): [line, -back],
        ("neumann", "node"): [line, back[1:-1]],
        ("neumann", "cell"): [line, back],
    }
    low, high = (np.concatenate(images[end, centering]) for end in ends)
    before, behind = range(-margin[0], 0), range(n, n + margin[1])
    parts = [low[[i % len(low) for i in before]], line, high[[i % len(high) for i in behind]]]
    return np.moveaxis(np.concatenate(parts), 0, axis)


def reference(u, kernel, op):
    """The sum over taps, channels first, in NumPy."""
    margins = op.padding
    if margins in ("same", "valid"):
        spans = [d * (k - 1) for d, k in zip(op.dilation, op.kernel_size, strict=True)]
        margins = [(0, 0) if margins == "valid" else (s // 2, s - s // 2) for s in spans]
    for axis, margin in enumerate(margins):
        u = reference_line(u, axis + 1, op.boundary[axis], op.centering[axis], margin)
    outs = []
    for taps in itertools.product(*map(range, op.kernel_size)):
        places = []
        for n, k, t, s, d in zip(u.shape[1:], op.kernel_size, taps, op.stride, op.dilation, strict=True):
            m = (n - d * (k - 1) - 1) // s + 1
            places.append(slice(d * t, d * t + s * (m - 1) + 1, s))
        outs.append(np.einsum("i...,io->o...", u[(slice(None), *places)], kernel[taps]))
    return sum(outs)


WORDS = [("zero", "node"), *itertools.product(("periodic", "dirichlet", "neumann"), ("node", "cell"))]
LINES = [
    {"boundary": boundary, "centering": centering, "stride": stride, "dilation": dilation, "padding": padding}
    for boundary, centering in WORDS
    for stride, dilation, padding in [
        (1, 1, "same"), (2, 1, "same"), (1, 2, "same"), (3, 2, ((1, 3),)), (1, 1, "valid"), (2, 1, 2)
    ]
]  # fmt: skip
LINES += [{"boundary": (ends,)} for ends in (("zero", "neumann"), ("dirichlet", "zero"), ("dirichlet", "neumann"))]
PLANES = [
    {"boundary": ("zero", "zero")},
    {"boundary": ("periodic", "dirichlet"), "stride": (1, 2), "kernel_size": (3, 3)},
    {"boundary": ("neumann", ("zero", "neumann")), "dilation": (2, 1), "stride": 2},
    {"boundary": ("dirichlet", "periodic"), "centering": "cell", "padding": ((0, 2), 1), "kernel_size": (1, 5)},
    {"boundary": ("neumann", "zero"), "centering": ("cell", "node"), "padding": "valid", "dilation": 2},
]
BOXES = [
    {"boundary": ("zero", "periodic", "neumann"), "kernel_size": 3},
    {"boundary": ("dirichlet", "zero", "periodic"), "stride": (1, 2, 1), "dilation": (1, 1, 2)},
    {"boundary": "neumann", "centering": "cell", "padding": (1, 0, (2, 1)), "stride": 2},
]
GRIDS = {1: (9,), 2: (7, 8), 3: (6, 5, 7)}
SIZES = {1: 4, 2: (3, 4), 3: (3, 2, 4)}


@every_variant
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_equal_to_the_dense_convolution_with_the_composed_kernel(variant, ndim):
    cases = {1: LINES, 2: PLANES, 3: BOXES}[ndim]
    ways = ("rebuilt",) if variant == "kernel" else ("chain", "rebuilt")
    made = [
        SeparableConv(2, 3, rank=2, variant=variant, ndim=ndim, evaluation=way, key=KEY,
                      **{"kernel_size": SIZES[ndim], **options})
        for options in cases
        for way in (ways if ndim > 1 else ways[:1])
    ]  # fmt: skip
    field = RNG.normal(size=(2, *GRIDS[ndim]))
    run = jax.jit(lambda ops, u: [op(u) for op in ops])
    single = run(made, jnp.asarray(field, jnp.float32))
    with jax.enable_x64(True):
        double = run([wide(op) for op in made], jnp.asarray(field))
        for op, f32, f64 in zip(made, single, double, strict=True):
            kernel = np.asarray(wide(op).to_dense_kernel())
            expected = reference(field, kernel, op)
            size = np.abs(expected).max()
            assert f32.shape == f64.shape == expected.shape
            assert f64.dtype == jnp.float64
            np.testing.assert_allclose(f64, expected, rtol=0, atol=1e-12 * size)
            np.testing.assert_allclose(f32, expected, rtol=0, atol=1e-6 * size)


def test_continuation_goes_on_beyond_the_whole_field(x64):
    """A wave of each boundary is continued as the function goes on, over several lengths of the axis."""
    waves = {
        "periodic": lambda x: np.cos(2 * np.pi * x),
        "dirichlet": lambda x: np.sin(np.pi * x),
        "neumann": lambda x: np.cos(np.pi * x),
        ("dirichlet", "neumann"): lambda x: np.sin(np.pi * x / 2),
    }
    for (word, wave), centering in itertools.product(waves.items(), ("node", "cell")):
        grid = no.Grid(4, boundary=(word,), centering=centering)
        x, h = grid.points(0), grid.spacing[0]
        out = continued(jnp.asarray(wave(x))[:, None], 0, end_rules(word, centering), (11, 13))[:, 0]
        np.testing.assert_allclose(out, wave(x[0] + h * np.arange(-11, 17)), atol=1e-14)


@every_variant
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_full_rank_reproduces_any_kernel(x64, variant, ndim):
    taps = (3, 4, 2)[:ndim]
    kernel = RNG.normal(size=(*taps, 2, 3))
    dims = {"kernel": taps, "cp": (*taps, 2, 3), "depthwise": (*taps, 3)}[variant]
    rank = int(np.prod(dims)) // max(dims)
    bias = np.arange(3.0)
    op = SeparableConv.from_dense_kernel(kernel, rank, variant=variant, bias=bias, boundary="periodic")
    np.testing.assert_allclose(op.to_dense_kernel(), kernel, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(op.bias, bias)
    more = SeparableConv.from_dense_kernel(kernel.astype(np.float32), rank + 1, variant=variant)
    np.testing.assert_allclose(more.to_dense_kernel(), kernel, rtol=0, atol=2e-6)
    assert more.to_dense_kernel().dtype == jnp.float32
    assert more.bias is None


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_error_at_low_rank_is_that_of_the_discarded_singular_values(x64, rank):
    kernel = RNG.normal(size=(5, 4, 3, 2))
    found = SeparableConv.from_dense_kernel(kernel, rank).to_dense_kernel()
    s = np.linalg.svd(kernel.transpose(2, 3, 0, 1), compute_uv=False)
    error = np.linalg.norm(kernel - found, axis=(0, 1))
    np.testing.assert_allclose(error, np.sqrt(np.sum(s[..., rank:] ** 2, -1)), rtol=1e-12)


def test_alternating_least_squares_finds_what_was_planted(x64):
    """The chain of factors, the kernels of an input channel, and each kernel in 3-D, at ranks far below the exact."""
    for i, (variant, channels) in enumerate(itertools.product(VARIANTS, ((2, 3), (3, 2)))):
        op = wide(SeparableConv(*channels, 3, 2, variant=variant, ndim=3, key=jax.random.key(i)))
        kernel = op.to_dense_kernel()
        again = SeparableConv.from_dense_kernel(kernel, 2, variant=variant, max_steps=2000)
        assert np.linalg.norm(again.to_dense_kernel() - kernel) < 1e-6 * np.linalg.norm(kernel)
    tensors = RNG.normal(size=(5, 3, 3, 3))  # every real one has rank five or less
    assert np.linalg.norm(cp_tensor(cp_factors(tensors, 5)) - tensors) < 1e-8 * np.linalg.norm(tensors)
    errors = [np.linalg.norm(cp_tensor(cp_factors(tensors, rank, max_steps=60)) - tensors) for rank in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    np.testing.assert_array_equal(cp_tensor(cp_factors(np.zeros((2, 3, 3, 3)), 2)), 0)


@every_variant
@pytest.mark.parametrize("use_bias", [False, True])
def test_counts_equal_the_formulas(variant, use_bias):
    for sizes, rank in (((5,), 2), ((3, 3), 1), ((3, 5), 3), ((3, 4, 5), 2)):
        c_in, c_out, k = 4, 6, sum(sizes)
        op = SeparableConv(c_in, c_out, sizes, rank, variant=variant, ndim=len(sizes), use_bias=use_bias, key=KEY)
        wanted = {
            "kernel": c_in * c_out * rank * k,
            "cp": rank * (c_in + k + c_out),
            "depthwise": c_in * rank * k + c_in * rank * c_out,
        }[variant]
        operations = {
            "kernel": 2 * c_in * c_out * rank * k,
            "cp": 2 * rank * (c_in + k + c_out),
            "depthwise": 2 * c_in * rank * (k + c_out),
        }[variant]
        bias, dense = c_out * use_bias, c_in * c_out * int(np.prod(sizes))
        assert sum(x.size for x in jax.tree.leaves(op)) == wanted + bias
        assert op.counts() == (wanted + bias, operations, dense + bias, 2 * dense)


def test_ratios_of_the_fact_sheet():
    ratio = lambda ndim, k, rank=1: (
        (c := conv_counts(7, 7, (k,) * ndim, rank, use_bias=False)).parameters / c.dense_parameters
    )
    np.testing.assert_allclose([ratio(2, k) for k in (3, 5, 7)], [6 / 9, 10 / 25, 14 / 49])
    np.testing.assert_allclose([ratio(3, k) for k in (3, 5, 7)], [9 / 27, 15 / 125, 21 / 343])
    assert ratio(2, 3, 2) > 1  # full rank has more parameters than the kernel
    assert ratio(3, 3, 3) == 1
    assert ratio(3, 5, 8) < 1 < ratio(3, 5, 9)


@every_variant
def test_a_fraction_is_the_most_terms_that_fit(variant):
    for fraction in (0.9, 0.5, 0.01):
        op = SeparableConv(6, 5, 5, fraction, variant=variant, ndim=3, use_bias=False, key=KEY)
        counts = op.counts()
        assert op.rank == fraction
        assert sum(x.size for x in jax.tree.leaves(op)) == counts.parameters
        one = conv_counts(6, 5, (5, 5, 5), 1, variant=variant, use_bias=False).parameters
        terms = counts.parameters // one
        assert terms == 1 or terms * one <= fraction * counts.dense_parameters < (terms + 1) * one
    assert SeparableConv(1, 1, 3, np.float32(0.5), key=KEY).rank == 0.5
    assert type(SeparableConv(1, 1, 3, jnp.asarray(2), key=KEY).rank) is int


@every_variant
@pytest.mark.parametrize("boundary", ["zero", "dirichlet"])
def test_gradients_by_finite_differences(x64, variant, boundary):
    way = "auto" if variant == "kernel" else "chain"
    op = wide(SeparableConv(2, 3, 3, 2, variant=variant, boundary=boundary, stride=(1, 2), evaluation=way, key=KEY))
    u = jnp.asarray(RNG.normal(size=(2, 5, 6)))
    check_grads(jax.jit(lambda op, u: jnp.sin(op(u))), (op, u), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)
    check_grads(jax.jit(lambda op: jnp.sin(op(u))), (op,), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)


@every_variant
def test_second_derivatives_and_the_chain_equal_those_of_the_composed_kernel(x64, variant):
    way = "auto" if variant == "kernel" else "chain"
    op = wide(SeparableConv(2, 2, 3, 2, variant=variant, boundary="periodic", evaluation=way, key=KEY))
    u, v = (jnp.asarray(RNG.normal(size=(2, 5, 4))) for _ in range(2))
    composed = SeparableConv.from_dense_kernel(np.asarray(op.to_dense_kernel()), 3, boundary="periodic")
    loss = lambda op, u: jnp.sum(jnp.sin(op(u)) ** 2)
    ours, theirs = (
        jax.jit(lambda op: jax.jvp(lambda u: jax.grad(loss, 1)(op, u), (u,), (v,)))(op) for op in (op, composed)
    )
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-11)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-11)


@pytest.mark.parametrize(
    ("ndim", "variant", "rank"),
    [(2, "kernel", 1), (2, "kernel", 2), (2, "cp", 48), (2, "depthwise", 1), (2, "depthwise", 3), (3, "kernel", 1),
     (3, "cp", 48), (3, "depthwise", 4)],
)  # fmt: skip
def test_the_start_keeps_the_variance_from_layer_to_layer(ndim, variant, rank):
    """The mean square before each ReLU of five layers, over the draws of sixteen networks."""
    grid, width, layers = ((8, 8), 32, 5) if ndim == 2 else ((5, 5, 5), 24, 5)

    def layer(u, key):
        op = SeparableConv(width, width, 3, rank, variant=variant, ndim=ndim, boundary="periodic", key=key)
        u = op(jax.nn.relu(u))
        return u, jnp.mean(u**2)

    start = jax.random.normal(KEY, (16, width, *grid))
    found = jax.jit(jax.vmap(lambda u, key: jax.lax.scan(layer, u, jax.random.split(key, layers))[1]))(
        start, jax.random.split(KEY, 16)
    )
    sizes = np.mean(found, 0)
    assert 0.8 < (sizes[-1] / sizes[0]) ** (1 / (layers - 1)) < 1.2
    assert 0.8 < sizes[0] < 1.2


@every_variant
def test_entries_of_the_start_have_the_variance_of_the_ordinary_initialiser(variant):
    draw = lambda key: SeparableConv(8, 8, 3, 2, variant=variant, key=key).to_dense_kernel()
    kernels = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 1000))
    np.testing.assert_allclose(np.mean(kernels**2), 2 / (8 * 9), rtol=0.03)
    assert abs(np.mean(kernels)) < 0.03 * np.std(kernels)
    assert abs(np.mean(kernels[:, 0] * kernels[:, 1])) < 0.03 * np.mean(kernels**2)


SOBEL = np.outer([1.0, 2, 1], [1, 0, -1])
GAUSSIAN = np.exp(-0.5 * (np.add.outer(np.arange(-2.0, 3) ** 2, np.arange(-2.0, 3) ** 2)))
FIVE_POINTS = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])


def learned(target, rank, variant="kernel", steps=2000):
    """The relative error of the kernel learned from the response to one impulse, whose norm is that of the kernel."""
    ndim = target.ndim
    op = wide(SeparableConv(1, 1, target.shape, rank, variant=variant, ndim=ndim, boundary="periodic", use_bias=False,
                            key=jax.random.key(2)))  # fmt: skip
    impulse = jnp.zeros((1, *(8,) * ndim)).at[(0, *(4,) * ndim)].set(1.0)
    dense = SeparableConv.from_dense_kernel(target[..., None, None], 9, variant="kernel", boundary="periodic")
    wanted = dense(impulse)
    start, back = ravel_pytree(op)
    loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum((back(x)(impulse) - wanted) ** 2) / jnp.sum(wanted**2)))
    options = {"maxiter": steps, "maxfun": 10 * steps, "ftol": 0, "gtol": 1e-14}
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return np.sqrt(found.fun), back(found.x)


@every_variant
@pytest.mark.parametrize("target", [SOBEL, GAUSSIAN], ids=["sobel", "gaussian"])
def test_products_are_learned_by_rank_one(x64, target, variant):
    assert learned(target, 1, variant)[0] < 1e-5


def test_the_five_point_laplacian_needs_rank_two(x64):
    s = np.linalg.svd(FIVE_POINTS, compute_uv=False)
    np.testing.assert_allclose(s, [4.4495, 0.4495, 0], atol=5e-5)
    best = s[1] / np.linalg.norm(s)
    np.testing.assert_allclose(best, 0.1005, atol=5e-5)
    np.testing.assert_allclose(learned(FIVE_POINTS, 1)[0], best, rtol=1e-6)
    assert learned(FIVE_POINTS, 2)[0] < 1e-5
    given = FIVE_POINTS[..., None, None]
    one, two = (SeparableConv.from_dense_kernel(given, rank).to_dense_kernel() for rank in (1, 2))
    np.testing.assert_allclose(np.linalg.norm(one - given) / np.linalg.norm(given), best, rtol=1e-12)
    np.testing.assert_allclose(two, given, atol=1e-14)


H, E = np.array([1.0, -2, 1]), np.array([0.0, 1, 0])
SEVEN_POINTS = sum(np.einsum("a,b,c->abc", *axes) for axes in ((H, E, E), (E, H, E), (E, E, H)))


def largest(op):
    return max(float(jnp.linalg.norm(factor)) for factor in op.kernel.factors)


def distance(op, target):
    return float(np.linalg.norm(op.to_dense_kernel()[..., 0, 0] - target) / np.linalg.norm(target))


def test_the_seven_point_laplacian_has_rank_three_and_border_rank_two(x64):
    given = SEVEN_POINTS[..., None, None]
    assert distance(SeparableConv.from_dense_kernel(given, 3), SEVEN_POINTS) < 1e-12
    # ((E + t H)^3 - E^3) / t, the cubes being outer products, is of rank two and of the error t.
    errors, norms = [], []
    for t in (1e-1, 1e-2, 1e-3):
        a, b = (E + t * H) / t ** (1 / 3), -E / t ** (1 / 3)
        near = cp_tensor([np.stack([a, b], -1)[None]] * 3)[0]
        errors.append(np.linalg.norm(near - SEVEN_POINTS))
        norms.append(np.linalg.norm(a) + np.linalg.norm(b))
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 10, rtol=0.1)
    np.testing.assert_allclose(np.array(norms[1:]) / norms[:-1], 10 ** (1 / 3), rtol=0.2)
    # The search and training both go that way, without end: the error falls and the factors grow.
    searched = [SeparableConv.from_dense_kernel(given, 2, max_steps=steps) for steps in (20, 100, 600)]
    trained = [learned(SEVEN_POINTS, 2, steps=steps)[1] for steps in (60, 150, 400)]
    for ops in (searched, trained):
        errors, norms = [distance(op, SEVEN_POINTS) for op in ops], [largest(op) for op in ops]
        assert errors[0] > 1.1 * errors[1] > 1.2 * errors[2] > 1e-6
        assert norms[0] < 0.98 * norms[1] < 0.97 * norms[2]


@every_variant
def test_a_batch_is_its_samples(variant):
    way = "auto" if variant == "kernel" else "chain"
    op = SeparableConv(2, 3, 3, 2, variant=variant, boundary="neumann", evaluation=way, key=KEY)
    batch = jnp.asarray(RNG.normal(size=(4, 2, 6, 7)), jnp.float32)
    alone = np.stack([jax.jit(op)(u) for u in batch])
    np.testing.assert_allclose(jax.jit(jax.vmap(op))(batch), alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(op))(batch[::-1])[::-1], alone, rtol=1e-5, atol=1e-6)
    loss = lambda op, batch: jnp.mean(jax.vmap(op)(batch) ** 2)
    whole = jax.jit(jax.grad(loss))(op, batch)
    parts = [jax.jit(jax.grad(loss))(op, u[None]) for u in batch]
    for a, *b in zip(jax.tree.leaves(whole), *map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_allclose(a, np.mean(b, 0), rtol=1e-4, atol=1e-5)


# In the models.


def is_kernel(x):
    return isinstance(x, KernelFactors)


def composed(op, dense):
    """The model without compression whose kernels are the products."""
    whole = jax.tree.map(lambda x: x.array() if is_kernel(x) else x, op, is_leaf=is_kernel)
    return no.operator.with_leaves(dense, no.operator.named_leaves(whole))


SMALL = {"n_levels": 2, "n_heads": 2, "n_tokens": 2, "n_basis": 2}
SWEEPS = ((1, 1), (2, 0))
MODELS = {
    "fno": (lambda **o: no.FNO((4, 3), 1, 2, 4, n_layers=2, skip="local", **o, key=KEY), (1, 7, 8)),
    "fno, walls": (
        lambda **o: no.FNO((3, 3, 3), 1, 1, 3, n_layers=1, skip="local", boundary=("neumann", "dirichlet", "periodic"),
                           centering=("node", "cell", "node"), preactivation=True, **o, key=KEY), (1, 5, 4, 5)),
    "mgno": (lambda **o: no.MgNO(1, 2, 3, n_layers=2, sweeps=SWEEPS, boundary="dirichlet", **o, key=KEY), (1, 9, 8)),
    "mgno, residual": (
        lambda **o: no.MgNO(2, 1, 3, n_layers=1, sweeps=SWEEPS, boundary=("periodic", "neumann"), centering="cell",
                            transfer="residual", coarse_init="zero", sharing="levels", head="cycle", use_bias=True, **o,
                            key=KEY), (2, 8, 6)),
    "mgno, 3-D": (
        lambda **o: no.MgNO(1, 1, 2, n_layers=1, sweeps=SWEEPS, ndim=3, init="uniform", **o, key=KEY), (1, 5, 5, 5)),
    "lsm": (lambda **o: no.LSM(1, 2, 4, ndim=1, **SMALL, **o, key=KEY), (1, 9)),
    "lsm, 2-D": (lambda **o: no.LSM(1, 1, 2, **SMALL, norm=None, **o, key=KEY), (1, 8, 7)),
}  # fmt: skip
every_model = pytest.mark.parametrize("name", MODELS)


@every_variant
@every_model
def test_a_compressed_model_is_the_dense_one_with_the_composed_kernels(x64, name, variant):
    make, shape = MODELS[name]
    op, plain = wide(make(compress=(variant, 2))), wide(make())
    dense = composed(op, plain)
    u = jnp.asarray(RNG.normal(size=shape))
    run = jax.jit(lambda op, u: op(u))
    out = run(op, u)
    np.testing.assert_allclose(out, run(dense, u), rtol=0, atol=1e-12 * np.abs(out).max())
    kernels = [x for x in jax.tree.leaves(op, is_leaf=is_kernel) if is_kernel(x)]
    assert kernels
    for kernel in kernels:
        *taps, c_in, c_out = kernel.shape
        formula = conv_counts(c_in, c_out, taps, 2, variant=variant, use_bias=False).parameters
        assert sum(x.size for x in kernel.factors) == formula


@every_model
def test_a_compressed_model_is_saved_with_its_arguments(tmp_path, name):
    make, _ = MODELS[name]
    op = make(compress=["cp", np.float64(0.4)])
    assert op.compress == ("cp", 0.4)
    no.save(tmp_path / "op.safetensors", op)
    again = no.load(tmp_path / "op.safetensors")
    assert jax.tree.structure(again) == jax.tree.structure(op)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(op), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **o: no.FNO((3,), 1, 1, 3, n_layers=1, skip="local", **o, key=KEY), (1, 7)),
        (lambda **o: no.MgNO(1, 1, 3, n_layers=1, sweeps=[(2, 0), (1, 0)], ndim=1, **o, key=KEY), (1, 8)),
        (lambda **o: no.LatentUNet(2, ndim=1, **SMALL, **o, key=KEY), (2, 8)),
    ],
    ids=["fno", "mgno", "lsm"],
)
def test_a_compressed_model_trains(make, shape):
    op = make(compress=("depthwise", 2))
    u = jnp.asarray(RNG.normal(size=shape), jnp.float32)

    @jax.jit
    def step(op):
        loss, slope = jax.value_and_grad(lambda op: jnp.mean((op(u) - 1) ** 2))(op)
        size = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(slope)))
        return loss, slope, jax.tree.map(lambda p, g: p - 1e-3 * g / size, op, slope)

    before, slope, op = step(op)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    kernels = [x for x in jax.tree.leaves(slope, is_leaf=is_kernel) if is_kernel(x)]
    assert kernels
    assert all(np.any(np.asarray(factor) != 0) for kernel in kernels for factor in kernel.factors)
    assert step(op)[0] < before


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: no.FNO((2, 2), 1, 1, 16, n_layers=3, skip="local", **o, key=KEY),
        lambda **o: MultigridConv(12, 12, [(2, 0)] * 3, init="uniform", **o, key=KEY),
        lambda **o: MultigridConv(12, 12, [(2, 0)] * 3, centering="cell", **o, key=KEY),
        lambda **o: DoubleConv(12, 16, 12, ndim=2, norm=None, **o, key=KEY),
    ],
    ids=["fno", "mgno, uniform", "mgno, interpolation", "lsm"],
)
def test_kernels_of_compressed_models_start_with_the_size_of_the_ordinary_ones(make):
    dense = no.operator.named_leaves(make())
    for compress in (("kernel", 1), ("cp", 24), ("depthwise", 2)):
        op = make(compress=compress)
        whole = jax.tree.map(lambda x: x.array() if is_kernel(x) else x, op, is_leaf=is_kernel)
        kernels = {name for name, x in no.operator.named_leaves(whole).items() if np.shape(x)[:2] in ((3, 3), (4, 4))}
        found, wanted = (
            sum(float(jnp.sum(leaves[name] ** 2)) for name in kernels)
            for leaves in (no.operator.named_leaves(whole), dense)
        )
        np.testing.assert_allclose(found, wanted, rtol=0.15)


def test_local_skips_are_declared_and_default_to_linear():
    op = no.FNO((3,), 1, 1, 3, n_layers=1, skip="local", key=KEY)
    assert op.envelope.refinement == op.blocks[0].envelope.refinement == "spacing-locked"
    plain = no.FNO((3,), 1, 1, 3, n_layers=1, key=KEY)
    assert plain.envelope.refinement == "consistent"
    assert (plain.skip, plain.compress) == ("linear", None)
    # The centre tap alone is the linear skip.
    weight = plain.blocks[0].skip.weight
    kernel = jnp.stack([0 * weight.T, weight.T, 0 * weight.T])
    leaves = {**no.operator.named_leaves(plain), "blocks.0.skip.kernel": kernel}
    leaves.pop("blocks.0.skip.weight")
    u = jnp.asarray(RNG.normal(size=(1, 7)), jnp.float32)
    np.testing.assert_allclose(no.operator.with_leaves(op, leaves)(u), plain(u), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("compress", "message"),
    [
        ("kernel", r"^compress: expected None or a pair"),
        (("svd", 1), r"^compress: expected None or a pair"),
        (("cp", 0), r"^compress: expected a positive integer"),
        (("cp", 1.5), r"^compress: expected a positive integer"),
        (("cp", True), r"^compress: expected a positive integer"),
    ],
)
@pytest.mark.parametrize("name", ["fno", "mgno", "lsm"])
def test_other_words_are_refused(name, compress, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name][0](compress=compress)


def test_traced_and_foreign_kernels_are_refused():
    with pytest.raises(ValueError, match=r"^kernel: expected an array of numbers, got a traced one; .*outside"):
        jax.jit(lambda k: SeparableConv.from_dense_kernel(k, 1).to_dense_kernel())(jnp.ones((3, 3, 1, 1)))
    for bad in (np.ones((3, 3)), np.ones((3, 1, 1), int), np.ones((3, 0, 1))):
        with pytest.raises(ValueError, match=r"^kernel: expected a real floating array"):
            SeparableConv.from_dense_kernel(bad, 1)
    with pytest.raises(ValueError, match=r"^bias: expected one number per output channel \(2\), got"):
        SeparableConv.from_dense_kernel(np.ones((3, 1, 2)), 1, bias=np.ones(3))
