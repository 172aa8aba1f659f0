"""A compiled function run eagerly: op by op, yet one `call` region for differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.arguments import Arguments
from einkorn.ir.errors import StateError
from einkorn.ir.graph import Graph
from einkorn.ir.node import make_call, project
from einkorn.leaf import Leaf
from einkorn.recording import (
    Record,
    Region,
    Value,
    current_region,
    is_recording,
    result,
    tape,
)
from einkorn.tree import flatten, unflatten


def _is_recorded(record: Record | None) -> bool:
    """Whether everything behind a record is there still: a backward() in the region frees it."""
    try:
        return record is not None and bool(tape([record]))
    except StateError:
        return False


def run_region(name: str, fn: Callable[..., Any], arguments: Arguments) -> Any:
    """Call `fn`; what it returns is recorded as results of one `call` of what it recorded."""
    if not is_recording():
        args, kwargs = arguments.eager()
        return fn(*args, **kwargs)
    outer = current_region.get()
    region = Region(outer)
    token = current_region.set(region)
    try:
        args, kwargs = arguments.eager()
        returned = fn(*args, **kwargs)
    finally:
        current_region.reset(token)
    ends, structure = flatten(returned)
    tracked = [
        k
        for k, x in enumerate(ends)
        if isinstance(x, Value) and not isinstance(x, Leaf) and _is_recorded(x._tracked())
    ]
    if not tracked:
        return returned
    inner = [region.bring(ends[k]._tracked()) for k in tracked]
    params = tuple(inside.node for _, inside in region.params)
    graph = Graph(name, params, (), tuple(record.node for record in inner))
    outside = tuple(record for record, _ in region.params)
    node = make_call(graph, [record.node for record in outside])
    inside: dict[Any, Any] = {}
    for record in tape(inner):
        inside[record.node] = record.array
        inside.update(record.known or {})
    known = {node.attr("id"): inside}
    for index, (k, _) in enumerate(zip(tracked, inner)):
        value = ends[k]
        record = Record(project(node, index), value._eager(), outside, known=known)
        if outer is not None:
            outer.add(record)
        ends[k] = result(value._type, value._eager(), record=record)
    return unflatten(structure, ends)
