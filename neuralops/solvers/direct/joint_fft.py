"""Several axes of a direct solver at once, by one real FFT over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.direct.line_ffts import makhoul_order, makhoul_signs, makhoul_twiddle, take
from neuralops.solvers.direct.line_modes import Line, stencil_eigenvalues

__all__ = ["divide_by_eigenvalues"]


def divide_by_eigenvalues(u: Array, lines: Sequence[Line], total: Array, inverse: Callable[[Array], Array]) -> Array:
    """Applies `inverse` to the sum of `total` and the eigenvalues of the trailing axes, in the modes of these.

    Each axis is periodic, or of cells between like walls. In Makhoul's order (see `line_ffts`) the samples of a walled
    axis have a spectrum V whose w_k V_k is C_k - i C'_k: two coefficients, of different eigenvalues. For real data they
    are its real and imaginary parts; for the complex data that another axis leaves, 2 C_k = w_k V_k + conj(w_k) V_-k.
    So between the FFT and its inverse all is one pass over half a spectrum, and no coefficient is ever stored.

    - `u`: samples; at most three axes, and the last one is periodic if any is: it has half a spectrum, in which V_-k is
      at hand for all axes together only.
    - `total`: what the other axes contribute, broadcastable against `u`.
    """
    dims = range(u.ndim - len(lines), u.ndim)
    last = dims[-1]
    line = dict(zip(dims, lines, strict=True))
    walled = [d for d in dims if line[d].axis.boundary != "periodic"]
    count = {d: line[d].axis.num_points for d in dims}

    def along(values: np.ndarray, dim: int) -> Array:
        dtype = jnp.result_type(u.dtype, jnp.complex64) if np.iscomplexobj(values) else u.dtype
        return jnp.asarray(values.reshape([-1] + [1] * (last - dim)), dtype)

    waves = {d: np.arange(count[d] // 2 + 1 if d == last else count[d]) for d in dims}
    eigenvalues = {d: [along(v, d) for v in _eigenvalues(line[d], waves[d])] for d in dims}
    twiddle = {d: along(makhoul_twiddle(count[d], len(waves[d])), d) for d in walled}
    for d in dims:
        if d not in walled:
            total = total + eigenvalues[d][0]

    def divide(images: dict[tuple[int, ...], Array], left: Sequence[int], total: Array, odd: bool) -> Array:
        """The spectrum divided by the eigenvalues; `images` holds it with the wavenumbers of the named axes turned."""
        if left:
            d, rest = left[0], left[1:]
            w, back = twiddle[d], twiddle[d].conj()
            pairs = {key: (w * v, back * images[(d, *key)]) for key, v in images.items() if d not in key}
            direct, mirrored = eigenvalues[d]
            even = divide({key: v + turned for key, (v, turned) in pairs.items()}, rest, total + direct, odd)
            odd_ = divide({key: v - turned for key, (v, turned) in pairs.items()}, rest, total + mirrored, not odd)
            return back / 2 * (even + odd_)
        if last not in walled:
            return images[()] * inverse(total)
        v, (real, imag) = twiddle[last] * images[()], eigenvalues[last][::-1] if odd else eigenvalues[last]
        return twiddle[last].conj() * lax.complex(v.real * inverse(total + real), v.imag * inverse(total + imag))

    for d in walled:
        order = makhoul_order(count[d])
        u = take(u, order, d) * along(_signs(line[d])[order], d)
    images: dict[tuple[int, ...], Array] = {(): jnp.fft.rfftn(u, axes=dims)}
    split = [d for d in walled if d != last]
    for d in reversed(split):
        images |= {(d, *key): take(v, -np.arange(count[d]) % count[d], d) for key, v in images.items()}
    u = jnp.fft.irfftn(divide(images, split, total, False), s=[count[d] for d in dims], axes=dims)
    for d in walled:
        u = take(u, np.argsort(makhoul_order(count[d])), d) * along(_signs(line[d]), d)
    return u


def _signs(line: Line) -> np.ndarray:
    n = line.axis.num_points
    return makhoul_signs(n) if line.axis.boundary == "dirichlet" else np.ones(n)


def _eigenvalues(line: Line, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per FFT wavenumber k the eigenvalues of C_k and of C'_k; they coincide on a periodic axis."""
    n = line.axis.num_points
    if line.axis.boundary == "periodic":
        same = stencil_eigenvalues(line, 2 * k)
        return same, same
    # C' has no entry at k = 0; any eigenvalue but zero will do there.
    half_waves = (n - k, np.where(k == 0, n, k)) if line.axis.boundary == "dirichlet" else (k, n - k)
    return stencil_eigenvalues(line, half_waves[0]), stencil_eigenvalues(line, half_waves[1])
