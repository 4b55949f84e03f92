"""Operators on disk: what is written comes back to the bit, and nothing else is let in."""

import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neuralops import checkpoint
from neuralops.checkpoint import description
from neuralops.data import Normalized, Normalizer
from neuralops.models import FNO
from neuralops.operator import AbstractOperator, Envelope, Partitioned, as_operator, named_leaves
from neuralops.wrappers import Rollout, at


class Pointwise(AbstractOperator):
    """A linear map of the channels; it is not among the library's classes."""

    weight: jax.Array
    function: object = eqx.field(static=True)

    def __init__(self, channels, *, function=None, key):
        self.weight = jax.random.normal(key, (channels, channels))
        self.function = function

    @property
    def envelope(self):
        return Envelope((1, 2, 3), ("periodic",), "exact")

    def __call__(self, u, /, *, key=None):
        return jnp.tensordot(self.weight, u, 1)


def small_fno(key, **changes):
    config = {"n_modes": (4, 6), "in_channels": 1, "out_channels": 2, "hidden_channels": 8, "n_layers": 1}
    return FNO(**{**config, **changes}, key=key)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def fno(getkey):
    return small_fno(getkey())


@pytest.fixture
def path(tmp_path, fno):
    checkpoint.save(tmp_path / "op.safetensors", fno)
    return tmp_path / "op.safetensors"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"boundary": ("periodic", "neumann"), "factorization": "tucker", "rank": 0.5, "activation": "relu"},
        {"boundary": (("dirichlet", "neumann"), "periodic"), "centering": ("cell", "node"), "norm": "group_norm"},
        {"domain_padding": 0.1, "n_modes": [4, 6]},
    ],
)
def test_an_operator_comes_back_to_the_bit(tmp_path, getkey, changes, counted):
    op = small_fno(getkey(), **changes)
    checkpoint.save(tmp_path / "deep" / "op.safetensors", op)
    back = checkpoint.load(tmp_path / "deep" / "op.safetensors")
    assert_same(back, op)
    u = jax.random.normal(getkey(), (1, 8, 10))
    fn, traces = counted(lambda op, u: op(u))
    run = jax.jit(fn)
    np.testing.assert_array_equal(run(back, u), run(op, u))
    assert len(traces) == 1  # the same structure, static fields included
    stored = load_file(tmp_path / "deep" / "op.safetensors")  # any safetensors reader sees the same names
    assert {name: x.shape for name, x in stored.items()} == {name: x.shape for name, x in named_leaves(op).items()}


def test_wrapped_operators_and_statistics_come_back(tmp_path, fno):
    op = Normalized(fno, Normalizer((0.1,), (1e-300,), 2), Normalizer((1 / 3, -2.0), (2.0, 5e7), 2))
    checkpoint.save(tmp_path / "op", op)
    back = checkpoint.load(tmp_path / "op")
    assert_same(back, op)
    assert back.inputs == op.inputs
    assert back.outputs == op.outputs


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_comes_back(tmp_path, fno, dtype):
    op = jax.tree.map(lambda x: x.astype(dtype), fno)
    checkpoint.save(tmp_path / "op", op)
    assert_same(checkpoint.load(tmp_path / "op"), op)


def test_double_precision_is_never_narrowed(tmp_path, getkey):
    with jax.enable_x64(True):
        op = jax.tree.map(lambda x: x.astype(jnp.float64) + 1e-12, small_fno(getkey()))
        checkpoint.save(tmp_path / "op", op)
        assert_same(checkpoint.load(tmp_path / "op"), op)
    with pytest.raises(ValueError, match="enable_x64"):
        checkpoint.load(tmp_path / "op")


def save_with_warning(path, op, reason):
    """The warning names the reason, what `load` will need, and the line of the user."""
    with pytest.warns(UserWarning, match=rf"holds arrays only \(.*{reason}.*load\(path, like=op\)") as caught:
        checkpoint.save(path, op)
    assert [w.filename for w in caught] == [__file__]


def test_an_operator_of_foreign_parts_is_read_into_a_skeleton(tmp_path, getkey):
    op, other = Pointwise(2, key=getkey()), Pointwise(2, key=getkey())
    save_with_warning(tmp_path / "op", op, "Pointwise is not a class of this library")
    with pytest.raises(ValueError, match=r"Pointwise is not a class of this library.*like=op"):
        checkpoint.load(tmp_path / "op")
    assert_same(checkpoint.load(tmp_path / "op", like=other), op)
    wrapped = Normalized(Pointwise(2, key=getkey()))
    save_with_warning(tmp_path / "op", wrapped, "Pointwise is not a class")
    assert_same(checkpoint.load(tmp_path / "op", like=Normalized(other)), wrapped)
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}}
    partial = jax.tree_util.Partial(lambda p, u: u, params)
    save_with_warning(tmp_path / "op", partial, "Partial is not a class")
    assert_same(checkpoint.load(tmp_path / "op", like=jax.tree.map(jnp.ones_like, partial)), partial)


def test_a_module_with_functions_among_its_leaves_is_read_into_another(tmp_path):
    """What `as_operator` makes of an Equinox module: given and taken as the module, or as the operator."""
    op, other = (eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(i)) for i in range(2))
    x = jnp.array([0.3, -0.4])
    save_with_warning(tmp_path / "op", op, "MLP is not a class of this library")
    back = checkpoint.load(tmp_path / "op", like=other)
    assert type(back) is eqx.nn.MLP
    assert jnp.array_equal(back(x), op(x))
    save_with_warning(tmp_path / "op2", as_operator(op), "MLP is not a class of this library")
    assert (tmp_path / "op").read_bytes() == (tmp_path / "op2").read_bytes()
    assert isinstance(checkpoint.load(tmp_path / "op2", like=as_operator(other)), Partitioned)


@pytest.mark.parametrize("axes", [(3,), (2, 3)])
def test_an_ensemble_comes_back_alone(tmp_path, fno, axes):
    keys = jax.random.split(jax.random.key(0), axes)
    make = small_fno
    for _ in axes:
        make = jax.vmap(make)
    ensemble = make(keys)
    checkpoint.save(tmp_path / "op", ensemble)
    back = checkpoint.load(tmp_path / "op")
    assert_same(back, ensemble)
    assert_same(checkpoint.load(tmp_path / "op", like=ensemble), ensemble)
    about = checkpoint.describe(ensemble)
    assert about == {**checkpoint.describe(fno), "ensemble": list(axes)}
    one = jax.tree.map(lambda x: x[(1,) * len(axes)], back)
    assert_same(one, small_fno(keys[(1,) * len(axes)]))


def test_a_wrapped_ensemble_comes_back_alone(tmp_path):
    ensemble = jax.vmap(lambda key: Rollout(small_fno(key, out_channels=1), 2))(jax.random.split(jax.random.key(0), 3))
    checkpoint.save(tmp_path / "op", ensemble)
    assert_same(checkpoint.load(tmp_path / "op"), ensemble)


def parts_replaced(fno):
    """By where the part lies: an operator with another part there, and how many parts the file should tell."""
    other = small_fno(jax.random.key(7), factorization="tucker", rank=0.5, activation="relu")
    spectral = other.blocks[0].spectral
    swapped = eqx.tree_at(lambda op: op.blocks[0].spectral, fno, spectral)
    return {
        "a layer": (swapped, 1),
        "two layers": (eqx.tree_at(lambda op: op.lifting, swapped, other.projection), 2),
        "inside a wrapper": (Rollout(Normalized(swapped), 2), 1),
        "an array of another size": (eqx.tree_at(lambda op: op.blocks[0].gate.weight, fno, jnp.ones((8, 5))), 1),
    }


@pytest.mark.parametrize("case", ["a layer", "two layers", "inside a wrapper", "an array of another size"])
def test_a_replaced_part_comes_back_alone(tmp_path, fno, case):
    op, count = parts_replaced(fno)[case]
    assert jax.tree.structure(op) != jax.tree.structure(fno) or case == "an array of another size"
    checkpoint.save(tmp_path / "op", op)
    assert_same(checkpoint.load(tmp_path / "op"), op)
    parts = checkpoint.describe(op)["parts"]
    assert len(parts) == count


def test_an_ensemble_with_a_replaced_part_comes_back_alone(tmp_path, fno):
    op, _ = parts_replaced(fno)["a layer"]
    ensemble = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), op)
    checkpoint.save(tmp_path / "op", ensemble)
    assert_same(checkpoint.load(tmp_path / "op"), ensemble)
    assert checkpoint.describe(ensemble)["ensemble"] == [3]


def test_a_part_of_the_users_own_class_needs_a_skeleton(tmp_path, fno):
    op = eqx.tree_at(lambda op: op.blocks[0].gate, fno, Pointwise(8, key=jax.random.key(1)))
    save_with_warning(tmp_path / "op", op, "blocks.0.gate is .*Pointwise")
    with pytest.raises(ValueError, match=r"Pointwise.*like=op"):
        checkpoint.load(tmp_path / "op")
    assert_same(checkpoint.load(tmp_path / "op", like=jax.tree.map(jnp.zeros_like, op)), op)


@pytest.mark.parametrize("dtype", ["bool", "float64", "float32", "int32"])
def test_fixed_arrays_come_back_alone(tmp_path, fno, dtype):
    """A mask that `at` fixed is structure: its numbers stand in the description."""
    mask = (np.arange(80).reshape(8, 10) % 3 / 3).astype(dtype)
    op = at(Normalized(fno), mask=mask)
    checkpoint.save(tmp_path / "op", op)
    back = checkpoint.load(tmp_path / "op")
    assert_same(back, op)
    assert back.mask.array.dtype == dtype
    assert np.array_equal(back.mask.array, mask)
    save_with_warning(tmp_path / "op", at(Normalized(fno), mask=np.ones((8, 2**20))), "does not go into a header")


def test_a_failed_write_leaves_the_old_file(path, fno, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, jax.tree.map(lambda x: x + 1, fno))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def rewrite(path, *, about=None, arrays=None):
    """The same file with another description or other arrays, in valid safetensors."""
    stored = load_file(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    old = json.loads(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["neuralops"])
    new = old if about is None else about(old)
    save_file(stored if arrays is None else arrays(stored), path, metadata={"neuralops": json.dumps(new)})


def config(**changes):
    return lambda about: {**about, "config": {**about["config"], **changes}}


HOSTILE = {
    "another program's class": (lambda a: {**a, "class": "os.system", "config": {"command": "touch owned"}}, "class"),
    "a dotted path of ours": (lambda a: {**a, "class": "neuralops.checkpoint.save"}, "class: expected one of"),
    "an abstract class": (lambda a: {**a, "class": "AbstractOperator", "config": {}}, "class: expected one of"),
    "a class that is no word": (lambda a: {**a, "class": ["FNO"]}, "class: expected one of"),
    "a class that is no operator": (lambda a: {**a, "class": "Grid", "config": {"num_points": 4}}, "do not fit"),
    "a list for arguments": (lambda a: {**a, "config": [1, 2]}, "config: expected the arguments"),
    "an unknown argument": (config(evil=1), "has no arguments"),
    "a key": (config(key=0), "has no arguments"),
    "a missing argument": (lambda a: {**a, "config": {"n_modes": [4, 6]}}, "refused"),
    "a huge width": (config(hidden_channels=10**15), "no use for the number"),
    "a huge depth": (config(n_layers=10**12), "no use for the number"),
    "a wide network": (config(hidden_channels=10**5), "do not fit"),
    "a refused word": (config(boundary="open"), "refused"),
    "an unknown nested class": (config(activation={"$class": "eval", "config": {}}), "class: expected one of"),
    "an unknown tag": (config(activation={"$code": "1"}), "expected plain values"),
    "another activation type": (config(activation=3), "refused"),
    "a part that is not there": (lambda a: {**a, "parts": [[["blocks", 7], None]]}, "has no part 7"),
    "a part behind the scenes": (lambda a: {**a, "parts": [[["__class__"], None]]}, "has no part '__class__'"),
    "a part without a place": (lambda a: {**a, "parts": [[[], None]]}, "place of a part"),
    "a part of no known class": (
        lambda a: {**a, "parts": [[["blocks"], {"$class": "eval", "config": {}}]]},
        "class: exp",
    ),
    "parts that are no pairs": (lambda a: {**a, "parts": 3}, "refused"),
    "too many parts": (lambda a: {**a, "parts": [[["blocks"], None]] * 9999}, "at most 1000"),
    "a huge ensemble": (lambda a: {**a, "ensemble": [10**15]}, "ensemble: expected an integer from 1"),
    "an ensemble without axes": (lambda a: {**a, "ensemble": "3"}, "ensemble: expected at most"),
    "a wrong ensemble": (lambda a: {**a, "ensemble": [2]}, "do not fit"),
    "a constant of objects": (
        config(activation={"$constant": "AAAA", "dtype": "O", "shape": [1]}),
        "an array of one of",
    ),
    "a constant too short": (config(activation={"$constant": "AAAA", "dtype": "int8", "shape": [4]}), "refused"),
    "no class": (lambda a: {**a, "class": None}, "arrays only"),
    "a future format": (lambda a: {**a, "format": 99}, "update the library"),
    "another kind": (lambda a: {**a, "kind": "training state"}, "name the other file"),
    "no description": (lambda a: 7, "another program"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_description_is_refused(path, case, monkeypatch):
    monkeypatch.chdir(path.parent)
    change, words = HOSTILE[case]
    rewrite(path, about=change)
    with pytest.raises(ValueError, match=words):
        checkpoint.load(path)
    assert not (path.parent / "owned").exists()


FIRST = "blocks.0.gate.weight"
WRONG_ARRAYS = {
    "a missing leaf": (lambda x: {k: v for k, v in x.items() if k != FIRST}, "missing"),
    "an unknown leaf": (lambda x: {**x, "evil": np.ones(2, np.float32)}, "unknown"),
    "a wrong shape": (lambda x: {**x, FIRST: x[FIRST][:-1]}, "should have shape"),
    "integers": (lambda x: {**x, FIRST: x[FIRST].astype(np.int32)}, "real floating arrays"),
    "no arrays": (lambda x: {}, "missing"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_arrays_that_do_not_fit_are_refused(path, fno, case):
    assert FIRST in named_leaves(fno)
    change, words = WRONG_ARRAYS[case]
    rewrite(path, arrays=change)
    for like in (None, fno):
        with pytest.raises(ValueError, match=words):
            checkpoint.load(path, like=like)


def test_a_damaged_file_is_refused_wherever_it_is_cut(path):
    whole = path.read_bytes()
    for length in (0, 4, 8, 9, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut[\s]short"):
            checkpoint.load(path)
    for damaged in (
        whole + b"0",
        b"PK\x03\x04" + whole,
        (2**62).to_bytes(8, "little") + whole[8:],
        whole[:8] + b"[" + whole[9:],
        (8).to_bytes(8, "little") + b"[[[[[[[[",
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cut[\s]short"):
            checkpoint.load(path)


def test_foreign_and_missing_files_are_refused(tmp_path, fno):
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "torch.safetensors")
    with pytest.raises(ValueError, match="another program"):
        checkpoint.load(tmp_path / "torch.safetensors")
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "bad.safetensors", metadata={"neuralops": "{"})
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match="not there"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    for call in (lambda: checkpoint.load(3), lambda: checkpoint.save(None, fno)):
        with pytest.raises(ValueError, match="path: expected a path"):
            call()
    with pytest.raises(ValueError, match="op: expected a callable pytree with arrays"):
        checkpoint.save(tmp_path / "op", jax.tree_util.Partial(jnp.sin))
    with pytest.raises(ValueError, match="op: expected real floating leaves, got int32"):
        checkpoint.save(tmp_path / "op", jax.tree_util.Partial(jnp.add, jnp.arange(3)))


def test_loading_imports_nothing_and_unpickles_nothing(path):
    """In a fresh process: no module outside the library is pulled in by the file, and pickle is not touched."""
    rewrite(path, about=lambda a: {**a, "class": "antigravity", "config": {}})
    code = (
        "import sys, pickle, neuralops.checkpoint as c\n"
        "pickle.loads = pickle.load = pickle.Unpickler = None\n"
        "c.description.classes(); before = set(sys.modules)\n"
        f"\ntry: c.load({str(path)!r})\nexcept ValueError: pass\nelse: raise SystemExit(3)\n"
        "assert 'antigravity' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), timeout=120).returncode == 0


def test_class_names_are_unambiguous():
    seen = {}
    for room in description.ROOMS:
        for value in vars(__import__(f"neuralops.{room}", fromlist=["x"])).values():
            if isinstance(value, type) and value.__module__.startswith("neuralops."):
                assert seen.setdefault(value.__name__, value) is value
    assert {"FNO", "Normalized", "Normalizer", "Grid"} <= set(description.classes())
