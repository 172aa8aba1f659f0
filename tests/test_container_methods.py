"""The methods of Container that choose, compare, join and exchange ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.container import Container, UnknownKeyError
from einkorn.ir.errors import EinkornError, ShapeError, StateError


def example() -> Container:
    return Container(b={"x": 1, "y": {"z": 2}}, a=3)


def plain(container: Container) -> dict[str, Any]:
    return dict(container.flat_items())


CASES: dict[str, tuple[Callable[[Container], Any], Any]] = {
    "map": (
        lambda c: c.map_with_key_chains(lambda x, p: p + str(x)),
        {"b/x": "b/x1", "b/y/z": "b/y/z2", "a": "a3"},
    ),
    "map some": (lambda c: c.cont_map(lambda x, p: -x, ["b"]), {"b/x": -1, "b/y/z": -2, "a": 3}),
    "map others": (
        lambda c: c.cont_map(lambda x, p: -x, ["b"], to_apply=False),
        {"b/x": 1, "b/y/z": 2, "a": -3},
    ),
    "map pruned": (
        lambda c: c.cont_map(lambda x, p: -x, "b/y", prune_unapplied=True),
        {"b/y/z": -2},
    ),
    "filter": (lambda c: c.filter(lambda x: x > 1), {"b/y/z": 2, "a": 3}),
    "at key chains": (lambda c: c.at_key_chains(["a", "b/y"]), {"a": 3, "b/y/z": 2}),
    "at keys": (lambda c: c.at_keys(["y"]), {"b/y/z": 2}),
    "at keys containing": (
        lambda c: Container(bias=1, c={"bi": 2, "w": 3}).at_keys("bi", containing=True),
        {"bias": 1, "c/bi": 2},
    ),
    "set": (lambda c: c.set_at_key_chain("b/n/m", 9), {"b/x": 1, "b/y/z": 2, "b/n/m": 9, "a": 3}),
    "set keys": (lambda c: c.set_at_keys({"z": 8, "a": 7}), {"b/x": 1, "b/y/z": 8, "a": 7}),
    "overwrite": (lambda c: c.overwrite_at_key_chain("a", 0), {"b/x": 1, "b/y/z": 2, "a": 0}),
    "prune key": (lambda c: c.prune_key("y"), {"b/x": 1, "a": 3}),
    "prune containing": (
        lambda c: Container(ab=1, c={"b": 2, "d": 3}).prune_keys("b", containing=True),
        {"c/d": 3},
    ),
    "prune chain": (lambda c: c.prune_key_chain("b/y"), {"b/x": 1, "a": 3}),
    "prune nothing": (lambda c: c.prune_key_chains(["q"]), {"b/x": 1, "b/y/z": 2, "a": 3}),
    "flatten": (lambda c: c.flatten_key_chains(), {"b__x": 1, "b__y__z": 2, "a": 3}),
    "flatten above": (
        lambda c: c.flatten_key_chains(above_height=1),
        {"b/x": 1, "b__y/z": 2, "a": 3},
    ),
    "flatten below": (
        lambda c: c.flatten_key_chains(below_depth=1),
        {"b/x": 1, "b/y__z": 2, "a": 3},
    ),
    "restructure": (
        lambda c: c.restructure_key_chains({"b/y": "q", "a": "b/a"}),
        {"b/x": 1, "b/a": 3, "q/z": 2},
    ),
    "restructure fn": (
        lambda c: c.restructure({"b": ("n", lambda x: x * 10)}, keep_orig=False),
        {"n/x": 10, "n/y/z": 20},
    ),
    "swap": (lambda c: Container(a=1, b=2).restructure({"a": "b", "b": "a"}), {"b": 1, "a": 2}),
    "slice": (lambda c: c.slice_keys(slice(0, 1)), {"b/x": 1, "b/y/z": 2}),
    "slice keys": (
        lambda c: Container(a=1, b=2, c=3).slice_keys(slice("a", "b")),
        {"a": 1, "b": 2},
    ),
    "depth": (lambda c: c.cutoff_at_depth(1), {"a": 3}),
    "height": (lambda c: c.cutoff_at_height(1), {"b/x": 1, "a": 3}),
    "combine": (lambda c: c.combine({"a": 4, "n": 5}), {"b/x": 1, "b/y/z": 2, "a": 4, "n": 5}),
    "diff": (
        lambda c: c.diff({"b": {"x": 1, "y": {"z": 0}}}, mode="diff_only"),
        {"b/y/z/diff_0": 2, "b/y/z/diff_1": 0, "a/diff_0": 3},
    ),
    "same": (lambda c: c.diff({"b": {"x": 1, "y": {"z": 0}}}, mode="same_only"), {"b/x": 1}),
    "structural": (
        lambda c: Container.structural_diff([c, c.prune_key("y")], mode="diff_only"),
        {"b/y/diff_0": Container(z=2)},
    ),
    "list stack": (lambda c: Container.list_stack(Container(a=1), Container(a=2)), {"a": [1, 2]}),
    "list join": (
        lambda c: Container.cont_list_join([Container(a=[1]), Container(a=[2, 3])]),
        {"a": [1, 2, 3]},
    ),
    "reduce": (lambda c: Container.reduce(c, c, fn=sum), {"b/x": 2, "b/y/z": 4, "a": 6}),
    "multi map": (
        lambda c: Container.multi_map(lambda xs, p: (p, *xs), [Container(a=1), {"a": 2}]),
        {"a": ("a", 1, 2)},
    ),
    "flat list": (lambda c: c.from_flat_list([7, 8, 9]), {"b/x": 7, "b/y/z": 8, "a": 9}),
}


@pytest.mark.parametrize("case", CASES)
def test_new_containers(case: str) -> None:
    fn, expected = CASES[case]
    before = example()
    got = fn(before)
    assert isinstance(got, Container)
    found = plain(got) if case != "structural" else {"b/y/diff_0": got["b/y/diff_0"]}
    assert str(found) == str(expected)
    assert plain(before) == plain(example())  # nothing is changed in place


def test_order_and_levels() -> None:
    c = example()
    assert list(c.sort_by_key()) == ["a", "b"]
    assert c.to_nested_list() == [[1, [2]], 3]
    assert c.to_dict() == {"b": {"x": 1, "y": {"z": 2}}, "a": 3}
    assert type(c.to_dict()["b"]) is dict
    assert list(c.to_iterator_keys()) == c.all_key_chains() == ["b/x", "b/y/z", "a"]
    assert list(c.to_iterator_values()) == [1, 2, 3]
    assert (c.max_depth, c.b.y.max_depth, Container().max_depth) == (3, 1, 0)
    assert Container(a={}, b=1).prune_empty().to_dict() == {"b": 1}
    assert c.cutoff_at_depth(1).to_dict() == {"b": {}, "a": 3}
    assert c.at_key_chain("b/y") is c.b.y


def test_questions() -> None:
    c = example()
    assert c.has_key("z")
    assert not c.has_key("b/x")
    assert c.has_key("z", containing=True)
    assert c.has_key_chain("b/y")
    assert not c.has_key_chain("b/z")
    assert c.find_sub_container({"z": 2}) == "b/y"
    assert c.find_sub_container(c) == ""
    assert c.find_sub_container({"z": 3}) is None
    assert c.contains_sub_container({"x": 1}, partial=True)
    assert not c.contains_sub_container({"x": 1})
    assert c.find_sub_structure({"z": 0}) == "b/y"
    assert c.contains_sub_structure({"z": 0})
    assert Container(a=1, b=True).all_true()
    assert not Container(a=1, b={"c": np.array([1, 0])}).all_true()


def test_identity_is_that_of_types_and_bits() -> None:
    a = Container(w=ek.asarray([1.0, float("nan")]))
    assert a.identical(Container(w=ek.asarray([1.0, float("nan")])))
    assert not a.identical(Container(w=np.array([1.0, np.nan])))  # float64
    assert not a.identical(Container(w=ek.asarray([2.0, float("nan")])))
    assert a.identical_structure(Container(w=np.zeros(2)))
    assert not a.identical_structure(Container(w=np.zeros(3)))
    assert a.identical_structure(Container(w=np.zeros(3)), check_shapes=False)
    with pytest.raises(StateError, match="differ at 'w'"):
        a.assert_identical(Container(w=ek.asarray([2.0, 1.0])))
    with pytest.raises(StateError, match="differ at 'w': the second has none, but has 'ww'"):
        Container.assert_identical_structure(a, Container(ww=1))


def test_arrays() -> None:
    x, y = ek.zeros((2, 3)), ek.ones((2, 4))
    c = Container(a=x, b={"c": y, "d": x}, n=None)
    assert c.num_arrays() == 3
    assert c.shape == (2, None)
    assert c.shapes.b.c == (2, 4)
    assert c.dtype is ek.float32
    assert Container(a=x, b=ek.arange(3)).dtype is None
    assert c.duplicate_array_keychains() == [["a", "b/d"]]
    assert list(c.size_ordered_arrays()) == ["a", "b__d", "b__c"]


def test_joining_and_parting_arrays() -> None:
    a, b = Container(w={"x": ek.zeros((2, 3))}), Container(w={"x": ek.ones((2, 3))})
    assert Container.concat(a, b).w.x.shape == (4, 3)
    assert a.concat(b, axis=1).w.x.shape == (2, 6)
    stacked = Container.stack([a, b])
    assert stacked.w.x.shape == (2, 2, 3)
    assert stacked.unstack()[1].identical(b)
    assert [part.w.x.shape for part in stacked.split(2, axis=1)] == [(2, 1, 3)] * 2
    with pytest.raises(ShapeError, match="same number of parts"):
        Container(a=ek.zeros(2), b=ek.zeros(3)).unstack()


def test_files(tmp_path: Path) -> None:
    c = Container(b={"x": ek.arange(3), "y": 2.5}, a=ek.ones((2, 2)))
    c.save(tmp_path / "c.safetensors")
    again = Container.load(tmp_path / "c.safetensors")
    assert again.key_chains() == ["a", "b/x", "b/y"]
    assert again.b.x.dtype is ek.int64
    assert again.at_key_chains(["a", "b/x"]).identical(c.at_key_chains(["a", "b/x"]))


def test_other_names_of_shared_ends_stay() -> None:
    class Net(ek.Module):
        def __init__(self) -> None:
            self.first = ek.nn.Linear(2, 2)
            self.all = [self.first, ek.nn.Linear(2, 2)]

    v = Net().v
    assert v["all/v0/w"] is v.first.w
    moved = v - v * 0.5
    assert moved["all/v0/w"] is moved.first.w
    assert moved.key_chains() == v.key_chains()


def test_every_method_has_its_second_name() -> None:
    c = example()
    assert c.cont_has_key("z")
    assert c.cont_max_depth == 3
    assert c.cont_copy().cont_to_dict() == c.to_dict()
    names = [name for name in dir(Container) if name.startswith("cont_")]
    assert len(names) >= 45
    assert all(hasattr(Container, name.removeprefix("cont_")) for name in names)


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    c = Container(layer={"w": ek.asarray([[-0.7291, 0.5], [-1.0, 1e-9]])}, big=ek.zeros((3, 5)))
    c.show()
    expected = (
        "{\n"
        "    layer: {\n"
        "        w: Tensor([[-0.729, 0.5],\n"
        "                   [-1., 1.e-09]])\n"
        "    },\n"
        "    big: (<class einkorn.Tensor> shape=[3, 5])\n"
        "}\n"
    )
    assert capsys.readouterr().out == expected
    c.show_sub_container("layer/w")
    assert "big" not in capsys.readouterr().out
    assert "Tensor([[0., 0." in str(c.with_print_limit(15))
    assert "\n  layer" in str(c.with_print_indent(2))
    assert "lay..:" in str(c.with_key_length_limit(3))
    assert "},\n\n" in str(c.with_print_line_spacing(1))
    assert (c.with_print_limit(3) * 2).config["print_limit"] == 3


def test_tensors_of_a_trace_pass_through() -> None:
    @ek.compile
    def step(c: Container) -> Container:
        return c.set_at_key_chain("n", c.at_key_chain("b/x") * 2).prune_key("y")

    c = Container(b={"x": ek.ones(2), "y": ek.zeros(1)})
    got = step(c)
    assert got.key_chains() == ["b/x", "n"]
    np.testing.assert_array_equal(got.n.numpy(), [2, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.overwrite_at_key_chain("b/q", 1), "no key chain 'b/q'"),
        (lambda c: c.at_key_chains(["q"]), "no key 'q'"),
        (lambda c: c.restructure({"q": "a"}), "no key 'q'"),
        (lambda c: c.combine(3), "needs a Container or dict, got int"),
        (lambda c: Container.diff(), "at least 2"),
        (lambda c: Container.diff([{}, {}]), "needs Containers"),
        (lambda c: c.diff(c, mode="some"), "mode is"),
        (lambda c: c.from_flat_list([1]), "needs 3 ends, got 1"),
        (lambda c: c.slice_keys(3), "needs a slice"),
        (lambda c: c.slice_keys(slice("q", None)), "no key 'q'"),
        (lambda c: c.with_config(colour=1), "no setting 'colour'"),
        (lambda c: Container(a={"b": 1}, a__b=2).flatten_key_chains(), "two ends become"),
        (lambda c: Container.list_join(c, Container(a=1)), "differ at 'b'"),
        (lambda c: setattr(c, "items", 3), "method or property of every Container"),
        (lambda c: Container.multi_map(c, [c]), "is called as"),
    ],
)
def test_bad_input_is_refused(call: Callable[[Container], Any], message: str) -> None:
    c = example()
    with pytest.raises(EinkornError, match=message):
        call(c)
    assert plain(c) == plain(example())
    assert issubclass(UnknownKeyError, KeyError)


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/containers.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, flags=re.DOTALL)
    assert sum(kind == "python" for kind, _ in blocks) >= 5
    for kind, body in blocks:
        if kind == "python":
            exec(body, names)
        else:
            assert capsys.readouterr().out == body
