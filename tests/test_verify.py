"""The verifier: one broken graph for each rule, and that sound graphs pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from random_graphs import graphs

from einkorn.ir.dtypes import float32, int32
from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, placeholder, project
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.ir.verify import verify

VECTOR = TensorType(float32, (4,))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_sound_graphs_pass(graph: Graph) -> None:
    verify(graph)


def _of(node: Node, *inputs: Node) -> Graph:
    return Graph("f", inputs, (), (node,))


def unbound() -> Graph:
    return _of(make(Op.NEG, placeholder(VECTOR)))


def wrong_type() -> Graph:
    x = placeholder(VECTOR)
    return _of(Node(Op.NEG, (x,), (), TensorType(float32, (5,))), x)


def too_many_operands() -> Graph:
    x = placeholder(VECTOR)
    return _of(Node(Op.NEG, (x, x), (), VECTOR), x)


def too_few_operands() -> Graph:
    x = placeholder(VECTOR)
    return _of(Node(Op.MAXIMUM, (x,), (), VECTOR), x)


def missing_attribute() -> Graph:
    x = placeholder(VECTOR)
    return _of(Node(Op.SUM, (x,), (), VECTOR), x)


def numpy_attribute() -> Graph:
    x = placeholder(VECTOR)
    return _of(Node(Op.CUMSUM, (x,), (("axis", np.int64(0)),), VECTOR), x)


def listed_twice() -> Graph:
    x = placeholder(VECTOR)
    return _of(make(Op.NEG, x), x, x)


def no_input_node() -> Graph:
    x = placeholder(VECTOR)
    return Graph("f", (x,), (make(Op.NEG, x),), (x,))


def tuple_operand() -> Graph:
    x = placeholder(VECTOR)
    gradient = make(Op.GRAD, x, x, x)
    return _of(Node(Op.NEG, (gradient,), (), VECTOR), x)


def tuple_result() -> Graph:
    x = placeholder(VECTOR)
    return _of(make(Op.GRAD, x, x, x), x)


def bad_projection() -> Graph:
    x = placeholder(VECTOR)
    gradient = make(Op.GRAD, x, x, x)
    return _of(Node(Op.PROJECT, (gradient,), (("index", 1),), VECTOR), x)


def grad_of_nothing() -> Graph:
    x = placeholder(VECTOR)
    gradient = make(Op.GRAD, x, x)
    return Graph("f", (x,), (), (Node(Op.PROJECT, (gradient,), (("index", 0),), VECTOR),))


def update_of_a_stranger() -> Graph:
    x = placeholder(VECTOR)
    return Graph("f", (x,), (), (), ((placeholder(VECTOR), x),))


def update_twice() -> Graph:
    x = placeholder(VECTOR)
    return Graph("f", (x,), (), (), ((x, x), (x, make(Op.NEG, x))))


def update_of_another_type() -> Graph:
    x = placeholder(VECTOR)
    return Graph("f", (x,), (), (), ((x, make(Op.CAST, x, dtype=int32)),))


def broken_callee() -> Graph:
    x = placeholder(VECTOR)
    callee = Graph("g", (), (), (make(Op.NEG, placeholder(VECTOR)),))
    return _of(project(make(Op.CALL, graph=callee), 0), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (unbound, r"graph f: input: is neither an input nor a capture"),
        (wrong_type, r"neg: its type should be f32\[4\], is f32\[5\]"),
        (too_many_operands, r"neg: takes 1 operands, got 2"),
        (too_few_operands, r"maximum: takes 2 operands, got 1"),
        (missing_attribute, r"sum: .*axes"),
        (numpy_attribute, r"cumsum: the attribute axis=.* is a int64, not plain data"),
        (listed_twice, r"is listed 2 times"),
        (no_input_node, r"is not an input node"),
        (tuple_operand, r"neg: takes a tuple"),
        (tuple_result, r"a result is the tuple"),
        (bad_projection, r"project: no result 1"),
        (grad_of_nothing, r"grad: takes an output, a cotangent and what"),
        (update_of_a_stranger, r"does not name an input or capture"),
        (update_twice, r"is updated 2 times"),
        (update_of_another_type, r"f32\[4\] <- i32\[4\]"),
        (broken_callee, r"graph g: input: is neither"),
    ],
)
def test_refused(build: Callable[[], Graph], message: str) -> None:
    with pytest.raises(IRError, match=message) as caught:
        verify(build())
    assert "graph " in caught.value.__notes__[-1]


def test_the_note_shows_the_lines_around_the_node() -> None:
    x = node = placeholder(VECTOR)
    for k in range(40):
        node = make(Op.NEG if k % 2 else Op.EXP, node)
        if k == 20:
            node = Node(Op.NEG, (node,), (), TensorType(float32, (5,)))
    with pytest.raises(IRError) as caught:
        verify(Graph("f", (x,), (), (node,)))
    lines = caught.value.__notes__[-1].splitlines()
    assert len(lines) == 23
    assert [line for line in lines if line.startswith(">")] == [">   %21: f32[5] = neg(%20)"]
