"""Operators as Flax modules, and Flax networks as operators, for NNX and for Linen.

Both sides are pytrees of named arrays under a static structure, so nothing is translated: the arrays change
hands as they are, and only the structure is dressed differently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import meta, unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.operator import AbstractOperator, Envelope, as_operator, check_field, named_leaves, with_leaves

__all__ = ["LinenModule", "LinenNetwork", "NNXModule", "NNXNetwork", "from_linen", "from_nnx", "to_linen", "to_nnx"]

Field = Float[Array, "channels *grid"]

# Nobody declared how a foreign network behaves when its grid is refined, so nothing is promised.
_UNDECLARED = Envelope((1, 2, 3), ("periodic", "dirichlet", "neumann"), "grid-locked")


# Operators as Flax modules


class NNXModule(nnx.Module):
    """An operator as an NNX module: one `nnx.Param` per leaf, the structure static. Made by `to_nnx`.

    **Fields:**

    - `params`: nested dictionaries of `nnx.Param` named as the leaves are: the leaf
      `blocks.0.skip.weight` is `params["blocks"]["0"]["skip"]["weight"]`.

    `module(u, **keywords)` is the operator on one unbatched, channels-first field; batches are made with
    `jax.vmap(module)`. `module.operator` is the operator with the current values.
    """

    def __init__(self, op: Any) -> None:
        leaves = named_leaves(op)
        _check_arrays(leaves, "op", "keep everything else in static fields.")
        alike = [name for name in leaves if any(other.startswith(name + ".") for other in leaves)]
        if alike or len(leaves) != len(jax.tree.leaves(op)):
            raise ValueError(
                f"op: expected leaves of distinct names, got {len(jax.tree.leaves(op))} leaves under {len(leaves)} "
                f"names, {alike} of them also the start of another; rename the keys that read alike."
            )
        self.params = nnx.data(unflatten_dict({name: nnx.Param(leaf) for name, leaf in leaves.items()}, sep="."))
        self.names = tuple(leaves)
        self.structure = jax.tree.structure(op)

    @property
    def operator(self) -> Any:
        """The operator, with the values that the parameters have now."""
        leaves = flatten_dict(self.params, sep=".")
        return jax.tree.unflatten(self.structure, [_value_of(leaves[name]) for name in self.names])

    def __call__(self, u: Field, /, **keywords: Any) -> Field:
        return self.operator(u, **keywords)


def to_nnx(op: Any) -> NNXModule:
    """An operator as an NNX module, which `nnx.Optimizer` trains and every NNX tool takes.

    ```python
    model = no.interop.flax.to_nnx(no.FNO((16, 16), 1, 1, 32, key=jax.random.key(0)))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    op = no.interop.flax.from_nnx(model)            # the operator again, values to the bit
    ```

    **Arguments:**

    - `op`: an operator, or any callable pytree whose leaves are real floating arrays.

    Works under `nnx.jit`, `nnx.grad`, `nnx.split` and `nnx.merge`, and under plain `jax.jit`, `jax.grad` and
    `jax.vmap`. The module has its own parameters: training it leaves `op` as it was.

    **Raises:** `ValueError` when `op` cannot be called, or has leaves that are not real floating arrays or share
    a name.
    """
    if isinstance(op, nnx.Module):
        raise ValueError(f"op: expected an operator, got the NNX module {type(op).__name__}; use it as it is.")
    return NNXModule(as_operator(op))


class _Recipe:
    """What a `LinenModule` is made of; compared by identity, so that it can be a static field."""

    def __init__(self, constructor: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name = getattr(constructor, "__name__", type(constructor).__name__)
        self.build = lambda key: constructor(*args, key=key, **kwargs)
        self.skeleton = eqx.filter_eval_shape(self.build, jax.random.key(0))  # shapes, no weights
        self.shapes = named_leaves(self.skeleton)

    def __repr__(self) -> str:
        return self.name


class LinenModule(nn.Module):
    """An operator's constructor as a Linen module over named arrays. Made by `to_linen`."""

    recipe: Any

    @nn.compact
    def __call__(self, u: Field, /, **keywords: Any) -> Field:
        shapes, start = self.recipe.shapes, {}
        if self.is_mutable_collection("params") and not all(self.has_variable("params", name) for name in shapes):
            start = named_leaves(self.recipe.build(self._params_key()))
        params = {  # of arrays that are there already Linen only wants to know the shape, so zeros do
            name: self.param(name, lambda _, name=name, x=x: start[name] if start else jnp.zeros(x.shape, x.dtype))
            for name, x in shapes.items()
        }
        return with_leaves(self.recipe.skeleton, params)(u, **keywords)

    def _params_key(self) -> Array:
        """The key of this module before Linen counts draws: at the top it is the user's own."""
        lazy = None if self.scope is None else self.scope.rngs.get("params")
        return self.make_rng("params") if lazy is None else lazy.as_jax_rng()


def to_linen(constructor: Callable[..., Any], *args: Any, **kwargs: Any) -> LinenModule:
    """The constructor of an operator as a Linen module.

    ```python
    module = no.interop.flax.to_linen(no.FNO, n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32)
    variables = module.init(jax.random.key(0), u)             # {"params": {"lifting.first.weight": ..., ...}}
    v = module.apply(variables, u)
    op = no.interop.flax.from_linen(module, variables["params"])
    ```

    The parameters are one flat dictionary of arrays with the names of the leaves. It is the dictionary of
    `as_pair`, and `module.init(key, u)["params"]` holds the values of `constructor(..., key=key)` when the module
    stands alone (inside another module Linen gives it a key of its own). `named_leaves(op)` turns a fitted
    operator into it.

    **Arguments:**

    - `constructor`: a class such as `FNO`, or a function, that takes `key=`.
    - `args`, `kwargs`: its other arguments.

    The module takes one unbatched, channels-first field and passes keywords on; batches are made with `jax.vmap`.

    **Raises:** `ValueError` when `constructor` is no constructor, does not take these arguments and `key=`, or gives
    no operator; what the constructor raises, at once.
    """
    if isinstance(constructor, AbstractOperator) or not callable(constructor):
        raise ValueError(
            f"constructor: expected a class or function that builds an operator, got {type(constructor).__name__}; "
            "give the class and its arguments: to_linen(FNO, n_modes=(16, 16), ...)."
        )
    if "key" in kwargs:
        raise ValueError("key: the module takes it at init, got one here; leave it out and use module.init(key, u).")
    try:
        inspect.signature(constructor).bind(*args, key=None, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"constructor: expected arguments that fit it with key=, got those of which it says {str(error)!r}; "
            "give its own arguments, and wrap one that takes no key in a function that does."
        ) from error
    recipe = _Recipe(constructor, args, kwargs)
    if not callable(recipe.skeleton):
        raise ValueError(
            f"constructor: expected one that builds an operator, got {recipe.name}, which builds "
            f"{type(recipe.skeleton).__name__}; give a class such as FNO."
        )
    _check_arrays(recipe.shapes, "constructor", "keep everything else in static fields.")
    return LinenModule(recipe)


# Flax networks as operators


class _Layout(NamedTuple):
    """How a network is called: its layout, and the static keywords of every call."""

    channels_last: bool
    batched: bool
    keywords: tuple[tuple[str, Any], ...]

    @classmethod
    def checked(cls, channels_last: Any, batched: Any, keywords: dict[str, Any]) -> _Layout:
        channels_last, batched = flag(channels_last, "channels_last"), flag(batched, "batched")
        for name, value in keywords.items():
            _check_static(value, name, "pass numbers, words or tuples.")
        return cls(channels_last, batched, tuple(sorted(keywords.items())))

    def check_unused(self, maker: str) -> None:
        if self != (False, False, ()):
            raise ValueError(
                f"channels_last, batched: expected neither, nor keywords, for a module made by {maker}, which is an "
                "operator inside and takes (channels, *grid); leave them out."
            )

    def call(self, network: Callable[..., Any], u: Array) -> Array:
        """Calls a network in its own layout, for a channels-first field."""
        x = jnp.moveaxis(u, 0, -1) if self.channels_last else u
        v = network(x[None] if self.batched else x, **dict(self.keywords))
        if not hasattr(v, "shape") or (self.batched and v.shape[:1] != (1,)):
            came = getattr(v, "shape", type(v).__name__)
            wanted = "one array with the batch axis of its input" if self.batched else "one array"
            raise ValueError(f"module: expected a network that returns {wanted}, got {came}; wrap it so that it does.")
        v = v[0] if self.batched else v
        return jnp.moveaxis(v, -1, 0) if self.channels_last else v


class NNXNetwork(AbstractOperator):
    """An NNX network as an operator. Made by `from_nnx`.

    **Fields:** `params`, the arrays of the network's `nnx.Param` by path, all trainable; the rest is static.
    `module` is the network again, with the current values.
    """

    params: dict[str, Array]
    paths: tuple[tuple[str, tuple[Any, ...]], ...] = eqx.field(static=True)
    graphdef: Any = eqx.field(static=True)
    layout: _Layout = eqx.field(static=True)

    def __init__(self, module: nnx.Module, layout: _Layout) -> None:
        graphdef, params, *rest = nnx.split(module, nnx.Param, ...)
        foreign = [f"{_dotted(path)} ({type(x).__name__})" for path, x in dict(nnx.to_flat_state(rest[0])).items()]
        if foreign:
            raise ValueError(
                "module: expected nnx.Param only, since an operator is a function of its parameters, got "
                f"{', '.join(foreign[:4])}{' and more' if len(foreign) > 4 else ''}; use LayerNorm or GroupNorm for "
                "BatchNorm, build Dropout without rngs, and make plain arrays nnx.Param."
            )
        flat = dict(nnx.to_flat_state(params))
        self.paths = tuple((_dotted(path), path) for path in flat)
        self.params = {_dotted(path): _value_of(x) for path, x in flat.items()}
        if len(self.params) != len(flat):
            raise ValueError(f"module: expected parameters of distinct names, got {[*flat]}; rename those alike.")
        _check_arrays(self.params, "module", "make each nnx.Param one real array.")
        _check_static(graphdef, "module", "keep tuples instead of lists and dictionaries in the module's attributes.")
        self.graphdef, self.layout = graphdef, layout

    @property
    def module(self) -> nnx.Module:
        """The network, with the values that the parameters have now."""
        return nnx.merge(self.graphdef, nnx.from_flat_state({path: self.params[name] for name, path in self.paths}))

    @property
    def envelope(self) -> Envelope:
        return _UNDECLARED

    def __call__(self, u: Field, /, *, key: Array | None = None) -> Field:
        check_field(u, channels=None, ndim=None, where="NNXNetwork")
        return self.layout.call(self.module, u)


def from_nnx(module: nnx.Module, *, channels_last: bool = False, batched: bool = False, **keywords: Any) -> Any:
    """An NNX module as an operator that `fit`, `evaluate`, `solve` and `save` take.

    A module made by `to_nnx` gives its operator back with the current values, to the bit. Any other network is
    wrapped in an `NNXNetwork`, whose `module` is the network with the fitted values.

    ```python
    op = no.interop.flax.from_nnx(CNN(rngs=nnx.Rngs(0)), channels_last=True)
    op, history = no.fit(op, data, ...)
    network = op.module
    ```

    **Arguments:**

    - `module`: the network; its state must be `nnx.Param` only, of real floating arrays.
    - `channels_last`: whether the network takes and gives `(*grid, channels)`. By default it is called on what
      an operator gets, `(channels, *grid)`.
    - `batched`: whether it needs a batch axis in front; a batch of one is put there and taken off again.
    - `keywords`: static arguments of every call, such as `deterministic=True`.

    The operator cannot be rebuilt from plain values, so `save` keeps its arrays only, and a file is read with
    `load(path, like=op)`; a cheap `like` is `from_nnx(nnx.eval_shape(lambda: CNN(rngs=nnx.Rngs(0))))`.

    **Raises:** `ValueError` on anything but a callable NNX module, on state other than `nnx.Param` (batch
    statistics, random streams, plain arrays), on parameters that are not real floating arrays, and on
    attributes or keywords that cannot be static.
    """
    if not isinstance(module, nnx.Module):
        raise _not_a("an NNX module", module)
    if not callable(module):
        raise ValueError(
            f"module: expected one that can be called, got {type(module).__name__}; give it a __call__ method."
        )
    layout = _Layout.checked(channels_last, batched, keywords)
    if isinstance(module, NNXModule):
        layout.check_unused("to_nnx")
        _check_arrays(named_leaves(module.operator), "module", "give the parameters real arrays again.")
        return module.operator
    return NNXNetwork(module, layout)


class LinenNetwork(AbstractOperator):
    """A Linen module and its parameters as an operator. Made by `from_linen`.

    **Fields:** `params`, the nested dictionaries of arrays that `module.apply({"params": params}, ...)` takes,
    all trainable; the rest is static.
    """

    params: dict[str, Any]
    module: nn.Module = eqx.field(static=True)
    layout: _Layout = eqx.field(static=True)

    def __init__(self, params: dict[str, Any], module: nn.Module, layout: _Layout) -> None:
        _check_arrays(named_leaves(params), "params", "give the dictionary that module.init(key, u)['params'] is.")
        if module.scope is not None:  # a bound module carries its arrays along
            module = module.clone(parent=None)
        _check_static(module, "module", "give it tuples instead of lists, dictionaries and arrays.")
        self.params, self.module, self.layout = params, module, layout

    @property
    def envelope(self) -> Envelope:
        return _UNDECLARED

    def __call__(self, u: Field, /, *, key: Array | None = None) -> Field:
        check_field(u, channels=None, ndim=None, where="LinenNetwork")

        def network(u: Array, **keywords: Any) -> Any:
            return self.module.apply({"params": self.params}, u, **keywords)

        return self.layout.call(network, u)


def from_linen(
    module: nn.Module, params: Any, *, channels_last: bool = False, batched: bool = False, **keywords: Any
) -> Any:
    """A Linen module with its parameters as an operator that `fit`, `evaluate`, `solve` and `save` take.

    A module made by `to_linen` gives the operator itself with these parameters. Any other network is wrapped in
    a `LinenNetwork`, whose `params` are the fitted ones in the module's own arrangement.

    ```python
    op = no.interop.flax.from_linen(module, state.params, channels_last=True, batched=True, train=False)
    ```

    **Arguments:**

    - `module`: the network, unbound.
    - `params`: its parameters, or the dictionary `{"params": ...}` that `module.init` returned; boxes of
      metadata (`nn.Partitioned`) are taken off.
    - `channels_last`, `batched`, `keywords`: as in `from_nnx`.

    `save` keeps the arrays only; a file is read with `load(path, like=op)`.

    **Raises:** `ValueError` on anything but a Linen module, on parameters that are not real floating arrays or
    (for `to_linen`) do not fit, on other collections (batch statistics), and on attributes or keywords that
    cannot be static.
    """
    if not isinstance(module, nn.Module):
        raise _not_a("a Linen module", module)
    if not isinstance(params, Mapping):
        raise ValueError(
            f"params: expected a dictionary of arrays, got {type(params).__name__}; give module.init(key, u)['params']."
        )
    layout = _Layout.checked(channels_last, batched, keywords)
    if isinstance(params.get("params"), Mapping):
        others = sorted(str(name) for name in params if name != "params" and jax.tree.leaves(params[name]))
        if others:
            raise ValueError(
                f"params: expected parameters only, since an operator is a function of them, got also {others}; "
                "use LayerNorm or GroupNorm for BatchNorm, and keep no other state."
            )
        params = params["params"]
    params = meta.unbox(unfreeze(params))
    if isinstance(module, LinenModule):
        layout.check_unused("to_linen")
        _check_arrays(params, "params", "give the dictionary that module.init(key, u)['params'] is.")
        return with_leaves(module.recipe.skeleton, params)
    return LinenNetwork(params, module, layout)


# What both sides share


def _not_a(wanted: str, module: Any) -> ValueError:
    if isinstance(module, type):
        mend = "build it first, e.g. Net(rngs=nnx.Rngs(0)) or Net(features=32)."
    elif isinstance(module, nn.Module | nnx.Module):
        mend = "use from_linen(module, params)." if isinstance(module, nn.Module) else "use from_nnx(module)."
    else:
        mend = "it is an operator already." if isinstance(module, AbstractOperator) else "give the network itself."
    came = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
    return ValueError(f"module: expected {wanted}, got {came}; {mend}")


def _dotted(path: Any) -> str:
    return ".".join(map(str, path))


def _value_of(leaf: Any) -> Any:
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _check_arrays(leaves: Mapping[str, Any], argument: str, mend: str) -> None:
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            came = getattr(leaf, "dtype", type(leaf).__name__)
            if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                mend = "store complex weights as real pairs."
            raise ValueError(f"{argument}: expected real floating arrays, got {came} for {name!r}; {mend}")


def _check_static(value: Any, argument: str, mend: str) -> None:
    try:
        hash(value)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{argument}: expected hashable attributes beside the arrays, got {reason}; {mend}") from error
