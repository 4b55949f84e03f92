"""The one idea of the library: an operator is a callable pytree from functions to functions.

Every learned and every classical map follows the `Operator` protocol; the operators of this library
extend `AbstractOperator`, whose leaves are real floating arrays and nothing else, so that plain
`jax.jit`, `jax.grad`, `jax.vmap`, `jax.lax.scan`, `jax.checkpoint` and optax need no filter.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_native, check_plain

__all__ = [
    "AbstractOperator",
    "AbstractWrapper",
    "Envelope",
    "Operator",
    "Partitioned",
    "as_operator",
    "as_pair",
    "check_field",
    "config_of",
    "keywords_of",
    "named_leaves",
    "with_leaves",
]

EXTRAS = ("weights", "code", "time")  # those that `Samples` holds as extras of these names
KEYWORDS = ("coords", "query", "mask", *EXTRAS, "key")


@runtime_checkable
class Operator(Protocol):
    """What every function of the library accepts: one unbatched, channels-first field in, one out.

    Batches are made with `jax.vmap(op)`. `key` is for operators that draw random numbers; the others
    ignore it. Further inputs are keywords, and an operator names only those it has (`keywords_of(op)`):

    - `coords`: where the input is given, `(ndim, *points)`; the input is then `(channels, *points)`.
    - `query`: where the output is wanted, `(ndim, *points_out)`; by default where the input is given.
    - `mask`: `(*points)`, true where a point of the input counts; the others are padding.
    - `weights`: `(*points)`, quadrature weights of the points, in any unit; without them all count alike.
    - `code`: `(numbers,)`, what describes the sample as a whole, such as a shape or a parameter.
    - `time`: a scalar, for operators that give the state at any time.

    The order of points and what masked points hold change nothing. Mesh-free families also offer `encode(u, ...)`,
    once for an input, and `decode(code, query)`, for any points; `op(u, query=query)` is both. `no.at(op, coords=...)`
    fixes keywords and gives the form with one argument.
    """

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid_out"]: ...


@dataclasses.dataclass(frozen=True)
class Envelope:
    """Where an operator may be used, and what happens when the grid under it is refined.

    **Arguments:**

    - `ndim`: the numbers of space dimensions it takes.
    - `boundary`: the boundary words it takes, among `"periodic"`, `"dirichlet"`, `"neumann"`.
    - `refinement`: `"exact"` (a band-limited input gives the same output function on every grid that
      resolves it), `"consistent"` (outputs converge with `order`), `"spacing-locked"` (kernels count points: any
      number of points, but the map means the same only at one spacing) or `"grid-locked"` (one grid only).
    - `order`: the order of convergence when `refinement="consistent"`.
    - `min_points`: the fewest points per axis.
    """

    ndim: tuple[int, ...]
    boundary: tuple[str, ...]
    refinement: Literal["exact", "consistent", "spacing-locked", "grid-locked"]
    order: float | None = None
    min_points: int = 1


class AbstractOperator(eqx.Module):
    """Base class of the operators of this library.

    A concrete operator is final: it is varied by its arguments and by wrapping, never by subclassing.
    Its fields are either leaves (real floating arrays, all trainable) or static, and its static fields
    carry the names of the constructor's arguments, so that `config_of(op)` can rebuild it.

    Hash and equality are by identity, so `jax.jit(op)` works. It bakes the parameters into the compiled
    function as constants; while training, pass the operator as an argument instead.
    """

    __hash__ = object.__hash__  # arrays do not hash; eqx.Module's own hash would make jax.jit(op) raise

    # Fields that only the constructor sets, not its arguments (none unless an operator says so).
    derived: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    @abstractmethod
    def envelope(self) -> Envelope:
        """The grids this operator takes and its behaviour under refinement."""

    @property
    def keywords(self) -> frozenset[str]:
        """The extra inputs it names; wrappers hand on those of what they wrap."""
        return frozenset(KEYWORDS) & set(inspect.signature(type(self).__call__).parameters)

    @abstractmethod
    def __call__(self, u: Array, /, *, key: Array | None = None) -> Array: ...


class AbstractWrapper(AbstractOperator):
    """An operator around another one, `op`, whose declarations it hands on."""

    op: eqx.AbstractVar[Any]

    @property
    def envelope(self) -> Envelope:
        return envelope_of(self.op)

    @property
    def keywords(self) -> frozenset[str]:
        return keywords_of(self.op)

    @property
    def project(self) -> Any:
        """That of `op`; where it declares none, the wrapper has none either (`AttributeError`)."""
        project = self.op.project
        return lambda: eqx.tree_at(lambda wrapper: wrapper.op, self, project())


def as_operator(function: Any) -> Any:
    """Wraps a callable once, so that it can travel through JAX transformations and be trained.

    A plain function becomes a `jax.tree_util.Partial`. An Equinox module with leaves that are no floating arrays (the
    activation functions of an `eqx.nn.MLP`, counts), or a `Partial` over one, becomes `Partitioned`: its floating
    arrays train, the rest is fixed.
    A pytree of floating arrays (an operator, an NNX module, a `Partial`) is returned as it is.

    **Raises:** `ValueError` when `function` cannot be called.
    """
    if not callable(function):
        raise ValueError(
            f"op: expected a callable from field to field, got {type(function).__name__}; "
            "pass an operator, a function or jax.tree_util.Partial(apply, params)."
        )
    if jax.tree_util.all_leaves([function]):  # opaque to JAX: a function, a lambda, a bound method
        return jax.tree_util.Partial(_Closed(function) if isinstance(function, functools.partial) else function)
    fixed = [leaf for leaf in jax.tree.leaves(function) if not _is_parameter(leaf)]
    if isinstance(function, functools.partial):  # counts among parameters are a mistake, functions are not
        return Partitioned(function) if any(not hasattr(leaf, "dtype") for leaf in fixed) else function
    foreign = isinstance(function, eqx.Module) and not isinstance(function, AbstractOperator)
    return Partitioned(function) if foreign and fixed else function


def _is_parameter(leaf: Any) -> bool:
    """Shapes without values count too: skeletons of operators are made of them."""
    return hasattr(leaf, "shape") and jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact)


def keywords_of(op: Any) -> frozenset[str]:
    """The extra inputs that an operator names, among `KEYWORDS`.

    The field itself is no extra input, whatever its name; nor is what a `functools.partial` has bound.
    """
    if isinstance(op, AbstractOperator):
        return op.keywords
    try:
        parameters = list(inspect.signature(op).parameters.values())
    except (TypeError, ValueError):  # a builtin
        return frozenset()
    if parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        parameters = parameters[1:]
    bound = op.keywords if isinstance(op, functools.partial) else {}
    takes = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(KEYWORDS) & {p.name for p in parameters if p.kind in takes} - set(bound)


class ByIdentity:
    """A hashable stand-in for an object: its own hash where it has one (`ByIdentity.of`), else its identity."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def of(cls, value: Any) -> Any:
        try:
            hash(value)
        except TypeError:
            return cls(value)
        return value

    @staticmethod
    def value_of(value: Any) -> Any:
        return value.value if isinstance(value, ByIdentity) else value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value


class _Closed(ByIdentity):
    """A `functools.partial` that keeps its signature inside a `Partial` of JAX, without what it has bound."""

    def __init__(self, function: functools.partial[Any]) -> None:
        super().__init__(function)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # of a builtin
            return
        free = [x for name, x in signature.parameters.items() if name not in function.keywords]
        self.__signature__ = signature.replace(parameters=free)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.value(*args, **keywords)


class Partitioned(AbstractOperator):
    """A module of another library as an operator: its floating arrays are the leaves, all else is structure.

    `partitioned.module` is the module again, with the arrays as they are now. When the module declares `project()`, so
    does this.
    """

    arrays: Any
    rest: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __init__(self, module: Any) -> None:
        self.arrays, rest = eqx.partition(module, eqx.is_inexact_array)
        leaves, self.structure = jax.tree.flatten(rest)
        self.rest = tuple(map(ByIdentity.of, leaves))

    @property
    def project(self) -> Any:
        project = self.module.project  # missing here when it is missing there
        return lambda: Partitioned(project())

    def __reduce__(self) -> Any:  # a copied structure is not equal to the one it was copied from
        return Partitioned, (self.module,)

    @property
    def module(self) -> Any:
        return eqx.combine(self.arrays, jax.tree.unflatten(self.structure, map(ByIdentity.value_of, self.rest)))

    @property
    def keywords(self) -> frozenset[str]:
        return keywords_of(self.module)

    @property
    def envelope(self) -> Envelope:
        return envelope_of(self.module)

    def __call__(self, u: Array, /, **keywords: Any) -> Array:
        return self.module(u, **keywords)


def original(op: Any) -> Any:
    """The operator as its owner knows it: the module inside a `Partitioned`."""
    return op.module if isinstance(op, Partitioned) else op


def envelope_of(op: Any) -> Envelope:
    """The envelope of an operator inside a wrapper.

    **Raises:** `ValueError` when it declares none.
    """
    envelope = getattr(op, "envelope", None)
    if envelope is None:
        raise ValueError(
            f"op: expected an operator that declares its envelope, got {type(op).__name__}; "
            "a plain function has none, extend AbstractOperator to declare one."
        )
    return envelope


def check_field(u: Any, *, channels: int | None, ndim: int | None, name: str = "u", where: str = "operator") -> None:
    """Refuses a field of the wrong rank, channel count or dtype before anything is computed.

    **Arguments:**

    - `u`: the candidate, expected to be `(channels, *grid)`.
    - `channels`: the channel count wanted, `None` for any.
    - `ndim`: the number of space dimensions wanted, `None` for any.
    - `name`, `where`: the argument and the operator that the message names.

    **Raises:** `ValueError`, with what was expected, what came and the mend.
    """
    check_plain(u, name)
    check_native(u, name)
    shape = getattr(u, "shape", None)
    if shape is None or not hasattr(u, "dtype"):
        raise ValueError(
            f"{name}: {where} expects an array (channels, *grid), got {type(u).__name__}; convert it with jnp.asarray."
        )
    if ndim is not None and len(shape) != ndim + 1:
        if len(shape) == ndim + 2:
            mend = "it looks batched: use jax.vmap(op)(batch)."
        elif len(shape) == ndim:
            mend = "the channel axis is missing: use u[None]."
        else:
            mend = f"build the operator for {max(len(shape) - 1, 1)} space dimensions or reshape the field."
        raise ValueError(
            f"{name}: {where} expects (channels, *grid) with {ndim} space dimensions, got shape {tuple(shape)}; " + mend
        )
    if len(shape) < 2:
        raise ValueError(f"{name}: {where} expects (channels, *grid), got shape {tuple(shape)}; use u[None].")
    if channels is not None and shape[0] != channels:
        mend = (
            "channels come first: use jnp.moveaxis(u, -1, 0)."
            if shape[-1] == channels
            else (f"build the operator with in_channels={shape[0]} or give it {channels} channels.")
        )
        raise ValueError(f"{name}: {where} expects {channels} channel(s) first, got shape {tuple(shape)}; " + mend)
    if min(shape[1:]) < 1:
        raise ValueError(f"{name}: {where} got an empty grid, shape {tuple(shape)}; give at least one point.")
    if not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(
            f"{name}: {where} expects a real floating dtype, got {u.dtype}; "
            + (
                "pass real and imaginary parts as two channels."
                if jnp.issubdtype(u.dtype, jnp.complexfloating)
                else "use u.astype(jnp.float32)."
            )
        )


def config_of(op: AbstractOperator) -> dict[str, Any]:
    """The constructor's arguments, read back from the operator's static fields (without `key`)."""
    names = [
        name
        for name, parameter in inspect.signature(type(op).__init__).parameters.items()
        if name not in ("self", "key") and parameter.kind is not parameter.VAR_KEYWORD
    ]
    return {name: getattr(op, name) for name in names}


def _path_name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(k, "name", getattr(k, "idx", getattr(k, "key", k)))) for k in path)


def named_leaves(tree: Any) -> dict[str, Array]:
    """The leaves of a pytree by readable path, such as `"blocks.0.spectral.weight"`."""
    return {_path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(skeleton: Any, leaves: dict[str, Any]) -> Any:
    """A copy of `skeleton` whose leaves are taken from `leaves` by path.

    **Raises:** `ValueError` when a name is missing or unknown, or a shape or dtype kind differs.
    """
    wanted = named_leaves(skeleton)
    missing, unknown = sorted(set(wanted) - set(leaves)), sorted(set(leaves) - set(wanted))
    if missing or unknown:
        raise ValueError(
            f"leaves: expected exactly the {len(wanted)} arrays of {type(skeleton).__name__}; "
            f"missing {missing[:4]}, unknown {unknown[:4]}; build the skeleton with the same arguments."
        )
    for name, leaf in wanted.items():
        if tuple(leaf.shape) != tuple(leaves[name].shape):
            raise ValueError(
                f"leaves: {name} should have shape {tuple(leaf.shape)}, got {tuple(leaves[name].shape)}; "
                "build the skeleton with the same arguments."
            )
        if not jnp.issubdtype(leaves[name].dtype, jnp.floating):
            raise ValueError(
                f"leaves: {name} should be a real floating array, got {leaves[name].dtype}; "
                "complex weights are stored as real pairs."
            )
    flat, treedef = jax.tree_util.tree_flatten_with_path(skeleton)
    return jax.tree_util.tree_unflatten(treedef, [leaves[_path_name(path)] for path, _ in flat])


class Pair(NamedTuple):
    """A pure pair in the style of optax: `params = init(key)`, `v = apply(params, u)`."""

    init: Callable[[Array], dict[str, Array]]
    apply: Callable[..., Array]


def as_pair(constructor: Callable[..., Any], *args: Any, **kwargs: Any) -> Pair:
    """Turns an operator's constructor into pure `init` and `apply` over a flat dictionary of named arrays.

    ```python
    init, apply = no.as_pair(no.FNO, n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32)
    params = init(jax.random.key(0))
    v = jax.jit(apply)(params, u)
    ```
    """

    build = functools.partial(_build, constructor, args, kwargs)
    skeleton = eqx.filter_eval_shape(build, jax.random.key(0))  # the structure, without allocating weights
    return Pair(functools.partial(_init, build), functools.partial(_apply, skeleton))


def _build(constructor: Any, args: Any, kwargs: Any, key: Array) -> Any:
    return constructor(*args, key=key, **kwargs)


def _init(build: Any, key: Array) -> dict[str, Array]:
    return named_leaves(build(key))


def _apply(skeleton: Any, params: dict[str, Array], u: Array, /, **keywords: Any) -> Array:
    return with_leaves(skeleton, params)(u, **keywords)
