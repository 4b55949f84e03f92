"""What objectives, losses and metrics will return, found without computing and remembered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from neuralops.operator import ByIdentity, keywords_of, original
from neuralops.training.numbers import split
from neuralops.training.objectives import split_report
from neuralops.training.predict import judged, predict


def check_objective(op: Any, objective: Any, batch: Any, taken: tuple[str, ...]) -> tuple[dict[str, Any], bool]:
    """Shapes and dtypes of loss and report, and whether the gradient runs well inside a device loop.

    Convolutions do not on a CPU (see steps.py).

    **Raises:** `ValueError` on an objective that is no real number, and on reports under names that are `taken`.
    """
    value, report, convolves = _objective(*_split(objective), *_kinds(op, batch))
    for name, x in {"objective": value, **report}.items():
        if getattr(x, "shape", None) != () or jnp.dtype(x.dtype).kind not in "biuf":
            raise ValueError(
                f"objective: expected one real number{'' if name == 'objective' else f' for {name!r}'}, got {x}; "
                "reduce it with jnp.mean."
            )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"objective: expected a floating number, got {value.dtype}; differentiate a real loss.")
    for name in report:
        if name in taken:
            raise ValueError(f"objective: expected reports under free names, got {name!r}; rename it.")
    log = {name: jax.ShapeDtypeStruct((), jnp.promote_types(x.dtype, jnp.float32))
           for name, x in {"loss": value, **report}.items()}  # fmt: skip
    return log, jax.default_backend() != "cpu" or not convolves


def check_judges(op: Any, batch: Any, judges: dict[str, Callable[..., Any]], name: str, scalar: bool = False) -> None:
    """Refuses an operator whose output is not shaped like the targets, and a judgement that is not made of numbers.

    **Raises:** `ValueError` that names the argument `name` which held the batch, or the judge.
    """
    kinds = _kinds(op, batch)
    prediction = _prediction(*kinds)
    shape, wanted = tuple(getattr(prediction, "shape", (None,)))[1:], tuple(batch.outputs.shape[1:])
    if shape != wanted:
        mend = "build the operator with these channels or bring the outputs to its grid."
        if batch.query is not None and "query" not in keywords_of(op):
            mend = "the samples have points of their own for the outputs (query), which this operator does not name."
        raise ValueError(
            f"{name}: expected outputs of shape {shape}, what op makes of {tuple(batch.inputs.shape[1:])}, got "
            f"{wanted}; {mend}"
        )
    for judge, function in judges.items():
        if not callable(function):
            raise ValueError(f"{judge}: expected a function (prediction, target), got {function!r}; use losses.l2().")
        value = _judgement(ByIdentity.of(function), prediction.shape, prediction.dtype, *kinds[2:])
        dtype = getattr(value, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or len(value.shape) > (1 if scalar else 2):
            raise ValueError(
                f"{judge}: expected one real number per sample, got {value}; reduce it with jnp.mean "
                "(batches are averaged for you)."
            )


def _kinds(op: Any, batch: Any) -> tuple[Any, ...]:
    """Structure, shapes and dtypes of operator and batch, as a key to remember by."""

    def kind(tree: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, tuple((tuple(x.shape), jnp.dtype(x.dtype)) for x in leaves)

    return *kind(op), *kind(batch)


def _split(objective: Any) -> tuple[Any, Any]:
    """An objective without its numbers, and their shapes and dtypes."""
    fixed, numbers = split(objective)
    return fixed, tuple((jnp.shape(x), jax.dtypes.canonicalize_dtype(x.dtype)) for x in numbers)


def _tree(structure: Any, kinds: Any) -> Any:
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*kind) for kind in kinds])


@functools.lru_cache(maxsize=64)
def _objective(
    goal: Any, numbers: Any, structure: Any, parameters: Any, form: Any, arrays: Any
) -> tuple[Any, Any, bool]:
    def value(numbers: Any, op: Any, batch: Any, key: Any) -> Any:
        return split_report(goal.with_numbers(numbers)(original(op), batch, key=key))

    given = [jax.ShapeDtypeStruct(*kind) for kind in numbers]
    arguments = given, _tree(structure, parameters), _tree(form, arrays), jax.eval_shape(lambda: jax.random.key(0))
    jaxpr, (loss, report) = jax.make_jaxpr(value, return_shape=True)(*arguments)
    return loss, report, "conv_general_dilated" in str(jaxpr)


@functools.lru_cache(maxsize=64)
def _prediction(structure: Any, parameters: Any, form: Any, arrays: Any) -> Any:
    op, batch = _tree(structure, parameters), _tree(form, arrays)
    return jax.eval_shape(lambda op, batch: predict(original(op), batch), op, batch)


@functools.lru_cache(maxsize=64)
def _judgement(function: Any, shape: Any, dtype: Any, form: Any, arrays: Any) -> Any:
    def value(prediction: Any, batch: Any) -> Any:
        one = functools.partial(judged, ByIdentity.value_of(function))
        return jax.vmap(one, (0, batch.axes))(prediction, batch)

    return jax.eval_shape(value, jax.ShapeDtypeStruct(shape, dtype), _tree(form, arrays))
