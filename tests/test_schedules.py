"""Learning rates against PyTorch's, as it printed them."""

import jax
import numpy as np
import optax
import pytest

from neuralops.training.schedules import one_cycle

# torch 2.13.0: OneCycleLR(optimizer, max_lr=5e-4, div_factor=2, final_div_factor=100, pct_start=0.2, total_steps=10)
TORCH = [
    0.00025,
    0.0005,
    0.000481065,
    0.0004271428,
    0.0003464425,
    0.00025125,
    0.0001560575,
    7.535719e-05,
    2.143497e-05,
    2.5e-06,
]


def test_equals_torch():
    rate = one_cycle(5e-4, 10, 7, pct_start=0.2, div_factor=2, final_div_factor=100)
    np.testing.assert_allclose([rate(7 * epoch + 3) for epoch in range(10)], TORCH, rtol=1e-5)
    np.testing.assert_allclose(rate(1000), TORCH[-1], rtol=1e-5)


def test_drives_an_optimiser_under_jit():
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(one_cycle(1.0, 4, 2)))
    p = np.float32(2.0)
    state = optimizer.init(p)
    update, state = jax.jit(optimizer.update)(np.float32(1.0), state, p)
    np.testing.assert_allclose(update, -(1.0 / 25) * 1.2, rtol=1e-3)


@pytest.mark.parametrize("change", [{"num_epochs": 0}, {"pct_start": 1.0}, {"div_factor": -1.0}])
def test_bad_arguments(change):
    with pytest.raises(ValueError, match=next(iter(change))) as error:
        one_cycle(**{"max_value": 1.0, "num_epochs": 4, "steps_per_epoch": 2, **change})
    assert ";" in str(error.value)
