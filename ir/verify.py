"""`verify`: whether a graph keeps the rules of the IR. Runs after every pass in tests."""

from __future__ import annotations

import inspect
from collections import Counter
from functools import cache
from typing import Any, cast

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.ir.text import print_around
from einkorn.ir.types import TensorType


def verify(graph: Graph) -> None:
    """Raise an IRError, with the lines around the offender as a note, unless the graph is sound.

    Every node has the type that its shape rule gives, plain attributes, and operands that are
    parameters or computed here; parameters are distinct `input` nodes; updates name a parameter
    once and keep its type; results are tensors. Called graphs are verified too.
    """
    for region in graph.regions:
        _verify_params(region)
        params = set(region.params)
        for node in region.nodes:
            reason = _complaint(node, params)
            if reason:
                raise _error(region, node, f"{node.op.name.lower()}: {reason}")
        _verify_results(region, params)


def _verify_params(graph: Graph) -> None:
    for node, count in Counter(graph.params).items():
        name = graph.name_of(node) or repr(node)
        if node.op is not Op.INPUT:
            raise _error(graph, node, f"the parameter {name} is not an input node")
        if count > 1:
            raise _error(graph, node, f"the parameter {name} is listed {count} times")
        if reason := _complaint(node, {node}):
            raise _error(graph, node, f"the parameter {name}: {reason}")


def _verify_results(graph: Graph, params: set[Node]) -> None:
    for node in graph.results:
        if not isinstance(node.type, TensorType):
            raise _error(graph, node, f"a result is the tuple {node.type}; return projections")
    for leaf, count in Counter(leaf for leaf, _ in graph.updates).items():
        name = graph.name_of(leaf) or repr(leaf)
        if leaf not in params:
            raise _error(graph, leaf, f"the update of {name} does not name an input or capture")
        if count > 1:
            raise _error(graph, leaf, f"{name} is updated {count} times")
    for leaf, value in graph.updates:
        if leaf.type != value.type:
            name = graph.name_of(leaf) or repr(leaf)
            raise _error(graph, value, f"the update of {name}: {leaf.type} <- {value.type}")


def _complaint(node: Node, params: set[Node]) -> str:
    """What is wrong with a node; empty when nothing is."""
    if node.op is Op.INPUT and node not in params:
        return "is neither an input nor a capture of the graph"
    for name, value in node.attrs:
        if not _is_plain(value):
            return f"the attribute {name}={value!r} is a {type(value).__name__}, not plain data"
    if node.op is not Op.PROJECT and any(not isinstance(x.type, TensorType) for x in node.inputs):
        return "takes a tuple; only project may"
    count = _operand_count(node.op)
    if count is not None and len(node.inputs) != count:
        return f"takes {count} operands, got {len(node.inputs)}"
    if node.op is Op.GRAD and len(node.inputs) <= 2 * dict(node.attrs).get("outputs", 1):
        return f"takes an output, a cotangent and what to differentiate, got {len(node.inputs)}"
    try:
        wanted = OPS[node.op].infer(*(x.type for x in node.inputs), **dict(node.attrs))
    except Exception as error:  # a rule may fail in any way on operands that `make` never saw
        return f"{error}"
    return "" if wanted == node.type else f"its type should be {wanted}, is {node.type}"


def _is_plain(value: Any) -> bool:
    """Whether an attribute has one printed form: np.int64(1), 1 and True are equal and have not."""
    if isinstance(value, tuple):
        items = cast(tuple[Any, ...], value)
        return all(_is_plain(item) for item in items)
    return type(value) in (int, str) or isinstance(value, DType | Graph)


@cache
def _operand_count(op: Op) -> int | None:
    """How many operands the reference takes; None when any number goes or the rule checks it."""
    reference = OPS[op].numpy
    if isinstance(reference, np.ufunc):
        return reference.nin
    if not OPS[op].elementwise or not inspect.isfunction(reference):
        return None
    parameters = inspect.signature(reference).parameters
    return sum(name not in ("id", "dtype", "exponent") for name in parameters)


def _error(graph: Graph, node: Node, reason: str) -> IRError:
    error = IRError(f"graph {graph.name}: {reason}")
    error.add_note(print_around(graph, node))
    return error
