"""Nests of arguments and results: what is an end, and how the rest is rebuilt."""

from __future__ import annotations

import gc
import weakref
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from compile_checks import traces

import einkorn as ek
from einkorn.container import Container
from einkorn.ir.errors import EinkornError
from einkorn.tree import flatten, unflatten

X = np.arange(3, dtype=np.float32)


def again(nest: Any) -> Any:
    ends, structure = flatten(nest)
    return unflatten(structure, ends)


# -- ends ------------------------------------------------------------------------------------------


def test_dtypes_types_modules_and_tensors_are_ends() -> None:
    @dataclass
    class Net(ek.Module):
        width: int = 3

    ends = [ek.float32, ek.tensor(1.0), ek.asarray(X), ek.asarray(X)._type, Net(), Net]
    found = ek.tree_leaves(ends)
    assert len(found) == len(ends)
    assert all(a is b for a, b in zip(found, ends))


def test_dtypes_are_static_arguments_and_results() -> None:
    cast = ek.compile(lambda x, d: x.astype(d))
    assert cast(X, ek.float64).dtype is ek.float64
    assert cast(X, ek.int32).dtype is ek.int32
    assert ek.compile(lambda x: (x, x.dtype))(X)[1] is ek.float32


# -- dataclasses -----------------------------------------------------------------------------------


@dataclass
class Batch:
    x: Any
    label: str = "a"
    size: int = field(init=False, default=0)
    made: int = 0

    def __post_init__(self) -> None:
        self.size = 7
        self.made += 1


@dataclass(frozen=True, slots=True)
class Pair:
    a: Any
    b: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "b", (self.b, "seen"))


def test_dataclasses_are_rebuilt_without_their_init() -> None:
    batch = Batch(X)
    batch.size, batch.note = 9, "n"  # type: ignore[attr-defined]
    twin = again(batch)
    assert type(twin) is Batch
    assert vars(twin) == vars(batch)
    assert again(Pair(1, 2)) == Pair(1, 2)
    half = object.__new__(Pair)
    assert flatten(half)[0] == []


def test_dataclasses_pass_through_compiled_functions() -> None:
    @ek.compile
    def double(batch: Batch) -> Batch:
        batch.x = batch.x * 2
        return batch

    batch = Batch(X)
    got = double(batch)
    assert (got.label, got.size, got.made) == ("a", 7, 1)
    assert batch.x is X
    np.testing.assert_array_equal(got.x.numpy(), X * 2)


def test_the_object_of_a_compiled_method_is_not_copied() -> None:
    @dataclass
    class Trainer:
        w: Any
        seen: list[int] = field(default_factory=list)

        @ek.compile
        def step(self, x: Any) -> Any:
            self.seen.append(id(self))
            self.w.value = self.w + x
            return self.w * 1

    trainer = Trainer(ek.tensor(X, trainable=False))
    for _ in range(2):
        trainer.step(X)
    with ek.eager():
        trainer.step(X)
    np.testing.assert_array_equal(trainer.w.numpy(), X * 4)
    assert set(trainer.seen) == {id(trainer)}
    assert traces(Trainer.step) == 1


# -- dicts and named tuples ------------------------------------------------------------------------


class Named(NamedTuple):
    a: Any
    b: Any = 3


class Doubling(namedtuple("Doubling", "a b")):
    def __new__(cls, a: Any) -> Doubling:
        return super().__new__(cls, a, a)


class Tagged(dict[str, Any]):
    def __init__(self, tag: str, **items: Any) -> None:
        super().__init__(items)
        self.tag = tag


@pytest.mark.parametrize(
    "nest",
    [
        Counter(a=3, b=1),
        OrderedDict(b=1, a=2),
        {"a": [1, (2,)], 3: {}},
        Named(1, [2]),
        Doubling(4),
        Tagged("t", a=1),
        [(), [], {}],
    ],
)
def test_classes_are_kept(nest: Any) -> None:
    twin = again(nest)
    assert type(twin) is type(nest)
    assert twin == nest
    assert getattr(twin, "__dict__", {}) == getattr(nest, "__dict__", {})


def test_defaultdicts_keep_their_factory() -> None:
    nest: Any = defaultdict(list, a=[1])
    twin = again(nest)
    assert twin == nest
    twin["b"].append(2)
    assert "b" not in nest


def test_dict_classes_pass_through_compiled_functions() -> None:
    got = ek.compile(lambda c: Counter({k: v * 2 for k, v in c.items()}))(Counter(a=X))
    assert type(got) is Counter
    np.testing.assert_array_equal(got["a"].numpy(), X * 2)


def test_containers_stay_containers() -> None:
    nest = Container({"a/b": 1, "c": 2})
    twin = again(nest)
    assert type(twin) is Container
    assert twin.key_chains() == nest.key_chains()


# -- errors ----------------------------------------------------------------------------------------


def cyclic(kind: str) -> Any:
    nest: Any = [] if kind == "list" else {}
    if kind == "list":
        nest.append(nest)
    else:
        nest["a"] = (nest,)
    return nest


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_cycles_are_refused(kind: str) -> None:
    with pytest.raises(EinkornError, match=f"a nested {kind} contains itself"):
        ek.tree_leaves(cyclic(kind))
    with pytest.raises(EinkornError, match="contains itself"):
        ek.compile(lambda x: 1)(cyclic(kind))
    with pytest.raises(EinkornError, match="contains itself"):
        ek.compile(lambda: cyclic(kind))()


def test_tree_map_needs_a_function() -> None:
    with pytest.raises(EinkornError, match="tree_map takes a function and then the nests"):
        ek.tree_map([1], lambda x: x)  # type: ignore[arg-type]


# -- static arguments ------------------------------------------------------------------------------


def test_static_tuples_of_plain_values_are_equal_by_value() -> None:
    step = ek.compile(lambda x, shape: x.reshape(shape), static_argnames=("shape",))
    for _ in range(3):
        assert step(X, tuple([3, 1])).shape == (3, 1)
    assert traces(step) == 1
    assert step(X, (1, 3)).shape == (1, 3)
    assert traces(step) == 2
    scale = ek.compile(lambda x, c: x * c[0][0], static_argnames="c")
    assert (scale(X, ((1,),)).dtype, scale(X, ((1.0,),)).dtype) == (ek.float32, ek.float32)
    assert traces(scale) == 2


@pytest.mark.parametrize("value", [[1, 3], {"a": 1}, {1}, X, ek.asarray(X)])
def test_static_arguments_that_can_change_are_refused(value: Any) -> None:
    step = ek.compile(lambda x, s: x, static_argnames="s", name="step")
    for call in (lambda: step(X, value), lambda: step(X, s=value)):
        with pytest.raises(EinkornError, match=r"step: a static argument is a constant.*a tuple"):
            call()


def test_traces_do_not_keep_static_objects_alive() -> None:
    class Model(ek.Module):
        def __init__(self) -> None:
            self.w = ek.Parameter(X)
            self.parts = [ek.nn.ReLU()]

        @ek.compile
        def step(self, x: Any) -> Any:
            return self.parts[0](self.w * x) if self.training else x

    models = [Model() for _ in range(3)]
    for model in models:
        model.step(X)
    gone = [weakref.ref(x) for model in models[:2] for x in (model, model.w)]
    kept = models.pop()
    del model, models
    gc.collect()
    assert gone[0]() is None
    assert gone[2]() is None
    kept.w = ek.Parameter(X + 1)
    np.testing.assert_array_equal(kept.step(X).numpy(), (X + 1) * X)
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


def test_an_object_in_the_place_of_one_that_is_gone_is_another() -> None:
    class Scale:
        def __init__(self, by: float) -> None:
            self.by = by

    step = ek.compile(lambda x, s: x * s.by, on_retrace="allow")
    for k in range(20):
        np.testing.assert_array_equal(step(X, Scale(float(k))).numpy(), X * np.float32(k))


# -- functions of nests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ({"w": [1, {"x": 2}]}, {"w": [1, {"y": 2}]}, r"'w/1/x' \(the second has none\)"),
        ({"w": [1]}, {"w": [1, 2]}, r"'w/1' \(the first has none\)"),
        ({"w": [1]}, {"w": (1,)}, r"'w' \(a list and a tuple\)"),
        ((1, 2), 3, r"the top \(a tuple and an end\)"),
        ({"a": 1, "b": 2}, {"b": 1, "a": 2}, r"the top \(key order\)"),
    ],
)
def test_tree_map_names_the_first_difference(a: Any, b: Any, where: str) -> None:
    with pytest.raises(EinkornError, match=f"the structures differ at {where}"):
        ek.tree_map(lambda x, y: x, a, b)


def test_tree_functions_take_any_nesting() -> None:
    nest = {"a": [1, (2,)], "c": Container(w={"x": 3}), "n": Named(4, 5)}
    named = ek.tree_map_with_path(lambda path, x, y: f"{path} {x + y}", nest, nest)
    assert ek.tree_leaves(named) == ["a/0 2", "a/1/0 4", "c/w/x 6", "n/0 8", "n/1 10"]
    assert type(named["c"]) is Container
    assert ek.tree_reduce(lambda x, y: x + y, nest) == 15
    assert ek.tree_reduce(lambda x, y: x + y, [], 7) == 7
    with pytest.raises(EinkornError, match="no ends and no initial value"):
        ek.tree_reduce(max, {})
    with pytest.raises(EinkornError, match="takes a function first"):
        ek.tree_map_with_path(nest, nest)
