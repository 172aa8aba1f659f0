"""Container: access, structure, arithmetic and text."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from einkorn.container import Container, UnknownKeyError
from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf, Parameter
from einkorn.nn import Linear
from einkorn.tensor import Tensor
from einkorn.tree import flatten, tree_map, unflatten


def example() -> Container:
    return Container(a=np.float32([1, 2]), b={"c": np.float32([3]), "d": Parameter([4.0])})


def numbers(container: Container) -> dict[str, Any]:
    return {path: np.asarray(x).tolist() for path, x in container.flat_items()}


def test_every_form_of_access_finds_the_same_item() -> None:
    c = example()
    assert c.b.d is c["b"]["d"] is c["b/d"] is c.get("b/d")
    assert "b/d" in c
    assert "b/x" not in c
    assert c.get("b/x", 7) == 7
    assert c.key_chains() == ["a", "b/c", "b/d"]
    assert c.to_flat_list()[2] is c.b.d


def test_setting_by_attribute_and_path() -> None:
    c = Container()
    c.x = 1
    c["y/z"] = 2
    assert list(c.flat_items()) == [("x", 1), ("y/z", 2)]
    del c["y/z"]
    del c.x
    assert c.key_chains() == []


@pytest.mark.parametrize("key", ["", "a//b", 3])
def test_keys_are_names(key: Any) -> None:
    with pytest.raises(EinkornError, match="keys are strings"):
        Container()[key] = 1


def test_an_unknown_name_suggests_close_ones() -> None:
    c = Container(hidden=Container(weight=1))
    with pytest.raises(AttributeError, match="no attribute 'hiden'; did you mean hidden"):
        c.hiden  # noqa: B018
    with pytest.raises(KeyError, match="no key 'hidden/weigth'; did you mean hidden/weight"):
        c["hidden/weigth"]
    assert not hasattr(c, "other")
    assert issubclass(UnknownKeyError, EinkornError)


def test_arithmetic_gives_plain_tensors() -> None:
    c = example()
    result = 2 * c - c * 1.0 + Container(a=1.0, b={"c": 1.0, "d": 1.0})
    assert all(type(x) is Tensor for x in result.to_flat_list())
    assert numbers(result) == {"a": [2, 3], "b/c": [4], "b/d": [5]}
    assert numbers(-c) == {"a": [-1, -2], "b/c": [-3], "b/d": [-4]}
    assert numbers(c > 2.5) == {"a": [False, False], "b/c": [True], "b/d": [True]}
    assert numbers(c == c) == {"a": [True, True], "b/c": [True], "b/d": [True]}
    assert numbers(10 / c) == {"a": [10, 5], "b/c": [np.float32(10) / 3], "b/d": [2.5]}


def test_arrays_and_tensors_on_either_side() -> None:
    c = Container(a=np.float32([1, 2]))
    two = Leaf(np.float32([2, 2]))
    for result in (c * two, two * c, c * np.float32([2, 2]), np.float32([2, 2]) * c):
        assert numbers(result) == {"a": [2, 4]}


def test_other_objects_have_no_arithmetic_with_containers() -> None:
    assert (example() == None) is False  # noqa: E711
    with pytest.raises(TypeError, match="unsupported operand"):
        example() + "text"


def test_the_order_of_keys_does_not_matter_for_arithmetic() -> None:
    assert numbers(Container(a=1.0, b=2.0) - Container(b=1.0, a=1.0)) == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize(
    ("other", "where"),
    [
        ({"a": 1, "b": {"c": 1}}, "'b/d': the second has none"),
        ({"a": 1, "b": {"c": 1, "d": 1, "e": 1}}, "'b/e': the first has none"),
        ({"a": {"x": 1}, "b": {"c": 1, "d": 1}}, "'a': only the second is nested"),
        ({"a": 1, "b": {"c": 1, "dd": 1}}, "'b/d': the second has none, but has 'b/dd'"),
    ],
)
def test_other_structures_are_refused_at_the_first_difference(other: Any, where: str) -> None:
    with pytest.raises(EinkornError, match=f"differ at {where}"):
        example() + Container(other)


def test_a_copy_is_a_snapshot() -> None:
    c = example()
    twin = c.copy()
    c.b.d.value = [9.0]
    c.a[0] = 9
    assert numbers(twin) == {"a": [1, 2], "b/c": [3], "b/d": [4]}
    assert type(twin.b.d) is Tensor
    assert not twin.b.d.requires_grad
    deep = copy.deepcopy(c)
    assert isinstance(deep.b.d, Parameter)
    assert deep.b.d is not c.b.d


def test_trees_pass_through() -> None:
    c = example()
    ends, structure = flatten(c)
    again = unflatten(structure, ends)
    assert isinstance(again, Container)
    assert again.b.d is c.b.d
    assert numbers(tree_map(lambda x: np.asarray(x) * 2, c))["b/c"] == [6]


def test_map_and_filter() -> None:
    c = example()
    assert c.map(lambda x: x.shape).to_flat_list() == [(2,), (1,), (1,)]
    assert c.filter(lambda x: isinstance(x, Leaf)).key_chains() == ["b/d"]


def test_text() -> None:
    c = Container(b=np.float32([0, 1]), w=Parameter([[1.0, 2.0], [3.0, 4.0]]))
    c = c.map(lambda x: Leaf(x))
    assert str(Container(layer=c)) == (
        "{\n"
        "    layer: {\n"
        "        b: Tensor([0., 1.]),\n"
        "        w: Tensor([[1., 2.],\n"
        "                   [3., 4.]])\n"
        "    }\n"
        "}"
    )
    assert "shape=[4, 5]" in str(Linear(5, 4).v)
    assert str(Container()) == "{}"


@pytest.mark.parametrize("change", ["set", "delete", "clear", "pop", "update"])
def test_a_live_container_keeps_its_structure(change: str) -> None:
    v = Linear(2, 1).v
    with pytest.raises(StateError, match="live parameters"):
        {
            "set": lambda: v.__setitem__("w", 1),
            "delete": lambda: v.__delitem__("w"),
            "clear": lambda: v.clear(),
            "pop": lambda: v.pop("w"),
            "update": lambda: v.update(w=1),
        }[change]()
    assert v.key_chains() == ["w", "b"]
