"""The `reference` target: a graph evaluated node by node with the NumPy rule of each op.

The oracle that compiled targets are compared with. Every value is a dense array of its own, so
a result depends on operands' values alone and never on the memory order that views would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einkorn.ir.control import run_control
from einkorn.ir.errors import BoundsError, DTypeError, IRError, ShapeError
from einkorn.ir.graph import Graph
from einkorn.ir.host_calls import call_host, is_host_node, result_types
from einkorn.ir.node import Node
from einkorn.ir.ops import CONTROL, INDEXING, OPS, Op
from einkorn.ir.types import TensorType, TupleType

Array = np.ndarray[Any, Any]


def run(graph: Graph, arrays: Sequence[Any]) -> tuple[list[Array], list[Array]]:
    """The outputs and the new values of updates, for one array for each input and capture."""
    if len(arrays) != len(graph.params):
        raise ShapeError(f"{graph.name} takes {len(graph.params)} arrays, got {len(arrays)}")
    env: dict[Node, Any] = {}
    for node, value in zip(graph.params, arrays):
        env[node] = _checked(np.array(value), node.tensor, graph.name_of(node) or "an operand")
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node not in env:
                env[node] = _evaluate(node, env)
    results = [env[node].copy() for node in graph.results]
    return results[: len(graph.outputs)], results[len(graph.outputs) :]


def _evaluate(node: Node, env: Mapping[Node, Any]) -> Any:
    values = [env[x] for x in node.inputs]
    if node.op is Op.CALL:
        return run(node.attr("graph"), values)[0]
    if node.op in CONTROL:
        return run_control(node, values, lambda graph, arrays: run(graph, arrays)[0])
    if node.op is Op.PROJECT:
        return values[0][node.attr("index")]
    if node.op is Op.GRAD:
        raise IRError("the reference has no grad; expand-autodiff comes before")
    if node.op is Op.INPUT:
        raise IRError(f"{node!r} is neither an input nor a capture of the graph")
    if is_host_node(node):
        found = call_host(node.op, dict(node.attrs), values, result_types(node.type))
        return found if isinstance(node.type, TupleType) else found[0]
    if node.op in INDEXING:
        touched = values[2].size if len(values) > 2 else node.tensor.size
        if touched:
            _check_indices(node, values[1], values[0].shape[node.attr("axis")])
    rule = OPS[node.op].numpy
    assert rule is not None, f"{node.op.name.lower()} has no reference"
    result = rule(*values, **dict(node.attrs))
    return _checked(np.array(result, order="C"), node.tensor, node.op.name.lower())


def _check_indices(node: Node, indices: Array, size: int) -> None:
    """Stop at an index outside its axis, as a compiled step does."""
    wrong = [int(i) for i in indices.reshape(-1) if not -size <= int(i) < size]
    if wrong:
        raise BoundsError(
            f"{node.op.name.lower()}: index {wrong[0]} is out of range for an axis of {size} "
            f"elements; every index must be at least -{size} and less than {size}"
        )


def _checked(value: Array, type: TensorType, what: str) -> Array:
    if value.shape != type.shape:
        raise ShapeError(f"{what} must have shape {type.shape}, got {value.shape}")
    if value.dtype != type.dtype.numpy:
        raise DTypeError(f"{what} must be {type.dtype}, got {value.dtype}")
    return value
