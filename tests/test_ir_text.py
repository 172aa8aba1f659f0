"""Printed graphs: the form, and that `parse` restores them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs

from einkorn.ir.diff import diff
from einkorn.ir.dtypes import (
    ALL,
    DType,
    bfloat16,
    bool_,
    float32,
    float64,
    int8,
    uint8,
)
from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, constant, make, placeholder, project
from einkorn.ir.ops import Op
from einkorn.ir.parse import parse
from einkorn.ir.text import const_bits, const_text, print_graph
from einkorn.ir.types import TensorType
from einkorn.passes.simplify import simplify


def vector(size: int = 4) -> Node:
    return placeholder(TensorType(float32, (size,)))


def assert_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    restored = parse(text)
    assert print_graph(restored) == text
    assert restored.key == graph.key


def step() -> Graph:
    x, w = placeholder(TensorType(float32, (2, 3))), placeholder(TensorType(float32, (4, 3)))
    y = make(Op.DOT, x, w, contract=(1, 1))
    bias = make(Op.BROADCAST, constant(float32, -0.0), shape=(2, 4))
    z = make(Op.ADD, y, bias)
    new = make(Op.SUB, w, w)
    origins = {y: Origin("/home/me/digits.py", 31, "model.fc1"), z: Origin("digits.py", 7)}
    names = {x: "x", w: "model.fc1.w"}
    return Graph("train_step", (x,), (w,), (z,), ((w, new),), names, origins)


STEP = """\
graph train_step(x: f32[2,3]) captures(w: f32[4,3] = model.fc1.w) {
  %0: f32[2,4] = dot(x, w) contract=(1,1)  # model.fc1  digits.py:31
  %1: f32[] = const -0.0
  %2: f32[2,4] = broadcast(%1) shape=(2,4)
  %3: f32[2,4] = add(%0, %2)               # digits.py:7
  %4: f32[4,3] = sub(w, w)
  return %3  update w <- %4
}"""


def test_printed_form() -> None:
    assert str(step()) == STEP
    assert_round_trip(step())


def test_parse_restores_side_tables() -> None:
    graph = parse(STEP)
    assert [graph.name_of(node) for node in graph.params] == ["x", "model.fc1.w"]
    origin = graph.origins[graph.nodes[2]]
    assert origin == Origin("digits.py", 31, "model.fc1")


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_round_trip(graph: Graph) -> None:
    assert_round_trip(graph)


@given(st.sampled_from(ALL), st.integers(0, 2**64 - 1))
def test_constants_round_trip_to_the_bit(dtype: DType, bits: int) -> None:
    bits %= 2 if dtype is bool_ else 1 << dtype.bits
    assert const_bits(dtype, const_text(dtype, bits)) == bits


@pytest.mark.parametrize(
    ("dtype", "bits", "text"),
    [
        (float32, 0x3DCCCCCD, "0.1"),
        (float32, 0x80000000, "-0.0"),
        (float32, 0x7FC00000, "nan"),
        (float32, 0x7FC00001, "0x7fc00001"),
        (float32, 0xFF800000, "-inf"),
        (float64, 1, "5e-324"),
        (bfloat16, 0x7F80, "inf"),
        (bfloat16, 0xFFC0, "0xffc0"),
        (int8, 0x80, "-128"),
        (uint8, 0x80, "128"),
        (bool_, 1, "true"),
    ],
)
def test_constants(dtype: DType, bits: int, text: str) -> None:
    assert const_text(dtype, bits) == text
    assert const_bits(dtype, text) == bits


def test_odd_names_become_identifiers() -> None:
    nodes = [vector() for _ in range(8)]
    names = ["w", "model.w", "layers.0", 'a["b c"].w\n', "", "update", "w_1", "class é"]
    total = nodes[0]
    for node in nodes[1:]:
        total = make(Op.ADD, total, node)
    graph = Graph("<lambda>", tuple(nodes), (), (total,), (), dict(zip(nodes, names)))
    header = str(graph)
    assert header.startswith("graph _lambda_(\n  w: f32[4],\n  w_1: f32[4] = model.w,\n")
    assert_round_trip(graph)
    restored = parse(header)
    assert [name for name in map(restored.name_of, restored.params) if name != "x"] == [
        name for name in names if name
    ]


def test_called_graphs_stand_before_and_have_unique_names() -> None:
    def inner(op: Op) -> Graph:
        a = vector()
        return Graph("f", (a,), (), (make(op, a),), (), {a: "a"})

    x = vector()
    calls = [make(Op.CALL, x, graph=graph) for graph in (inner(Op.EXP), inner(Op.LOG))]
    y = make(Op.ADD, project(calls[0], 0), project(calls[1], 0))
    graph = Graph("f", (x,), (), (y,), (), {x: "x"})
    text = str(graph)
    assert [line for line in text.splitlines() if line.startswith("graph")] == [
        "graph f_1(a: f32[4]) {",
        "graph f_2(a: f32[4]) {",
        "graph f(x: f32[4]) {",
    ]
    assert "%0: (f32[4]) = call(x) graph=@f_1" in text
    assert_round_trip(graph)


def test_aliases_stay_apart_and_print_without_ids() -> None:
    x = vector()
    graph = Graph("f", (x,), (), (make(Op.ADD, alias(x), alias(x)),))
    assert "id=" not in str(graph)
    assert len(parse(str(graph)).nodes) == 4
    assert_round_trip(graph)


def test_grad_and_empty_results() -> None:
    x = vector()
    y = make(Op.EXP, x)
    gradient = make(Op.GRAD, y, y, x)
    assert_round_trip(Graph("f", (x,), (), (project(gradient, 0),)))
    assert_round_trip(Graph("f", (), (), ()))
    assert_round_trip(Graph("f", (), (x,), (), ((x, y),)))


def test_many_parameters_and_updates_take_a_line_each() -> None:
    nodes = [vector() for _ in range(20)]
    updates = tuple((node, make(Op.NEG, node)) for node in nodes)
    graph = Graph("f", (), tuple(nodes), (), updates)
    assert max(map(len, str(graph).splitlines())) <= 100
    assert_round_trip(graph)


def test_deep_graphs() -> None:
    x = node = vector()
    for k in range(50_000):
        node = make(Op.NEG if k % 2 else Op.EXP, node)
    graph = Graph("deep", (x,), (), (node,))
    assert_round_trip(graph)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dot(x, w)", "dott(x, w)", r"line 2: expected an op, got `dott`"),
        ("add(%0, %2)", "add(%0, %9)", r"line 5: expected a parameter or a node defined before"),
        ("add(%0, %2)", "add(%0, x)", r"line 5: add: operands must agree"),
        ("%4: f32[4,3]", "%4: f32[4,4]", r"line 6: expected a node of type f32\[4,4\]"),
        ("%4:", "%3:", r"line 6: expected a name that is neither"),
        ("const -0.0", "const zero", r"line 3: expected a constant of float32"),
        ("const -0.0", "const 1e99", r"line 3: expected a constant of float32"),
        ("contract=(1,1)", "contract=", r"line 3: expected a number"),
        ("contract=(1,1)", "axis=1", r"line 2: .*unexpected keyword"),
        ("}", "", r"line 8: expected `}` after the `return` of line 7, got the end"),
        ("return", "yield", r"line 7: expected a node or `return`, got `yield`"),
        ("x: f32", "x; f32", r"line 1: expected a token"),
        ("x: f32", "x: f33", r"line 1: expected a type such as"),
    ],
)
def test_errors_name_the_line(old: str, new: str, message: str) -> None:
    assert old in STEP
    with pytest.raises(IRError, match=message):
        parse(STEP.replace(old, new, 1))


def test_diff_ignores_renumbering() -> None:
    graph = parse(STEP)
    assert diff(STEP, str(graph)) == ""
    changed = diff(STEP, str(simplify(graph)))
    removed = [line for line in changed.splitlines() if line.startswith("-  %")]
    assert len(removed) == 3
    assert "+  return %0  update w <- %4" in changed
    assert "-  %4" not in changed
    assert diff("", "") == ""


def test_integers_and_bits_out_of_range_are_refused() -> None:
    for dtype, text in ((uint8, "-1"), (int8, "128"), (bool_, "2"), (float32, "0x1ffffffff")):
        with pytest.raises(ValueError, match=text):
            const_bits(dtype, text)
