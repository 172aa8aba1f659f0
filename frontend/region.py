"""A compiled function run eagerly: op by op, yet one `call` region for differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.arguments import Arguments
from einkorn.ir.errors import StateError
from einkorn.ir.graph import Graph
from einkorn.ir.node import make_call, project
from einkorn.leaf import Leaf
from einkorn.left_attributes import left_in, sets_noted
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
    """Call `fn`; what it returns is recorded as results of one `call` of what it recorded.

    So is what it leaves in attributes of modules and optimizers.
    """
    if not is_recording():
        args, kwargs = arguments.eager()
        return fn(*args, **kwargs)
    outer = current_region.get()
    region = Region(outer)
    token = current_region.set(region)
    try:
        with sets_noted() as found:
            args, kwargs = arguments.eager()
            returned = fn(*args, **kwargs)
    finally:
        current_region.reset(token)
    ends, structure = flatten(returned)
    tracked = [k for k, x in enumerate(ends) if _is_result(x)]
    values = [ends[k] for k in tracked]
    left = [(owner, key, *flatten(value)) for owner, key, value in left_in(found)]
    known = {id(x) for x in values}
    kept = [x for *_, row, _ in left for x in row if _is_result(x) and id(x) not in known]
    values += {id(x): x for x in kept}.values()
    results = _recorded(name, region, outer, values)
    outside = {id(x): new for x, new in reversed(list(zip(values, results)))}  # the first of each
    for owner, key, row, nest in left:
        if any(id(x) in outside for x in row):
            setattr(owner, key, unflatten(nest, [outside.get(id(x), x) for x in row]))
    if not tracked:
        return returned
    for k, new in zip(tracked, results):
        ends[k] = new
    return unflatten(structure, ends)


def _is_result(x: Any) -> bool:
    """Whether a value is a tensor that was recorded."""
    is_tensor = issubclass(type(x), Value) and not isinstance(x, Leaf)
    return is_tensor and _is_recorded(x._tracked())


def _recorded(name: str, region: Region, outer: Region | None, values: list[Any]) -> list[Any]:
    """Values of a region as results of one `call`, for those outside of it."""
    if not values:
        return []
    inner = [region.bring(x._tracked()) for x in values]
    params = tuple(inside.node for _, inside in region.params)
    graph = Graph(name, params, (), tuple(record.node for record in inner))
    outside = tuple(record for record, _ in region.params)
    node = make_call(graph, [record.node for record in outside])
    inside: dict[Any, Any] = {}
    for record in tape(inner):
        inside[record.node] = record.array
        inside.update(record.known or {})
    known = {node.attr("id"): inside}
    results: list[Any] = []
    for index, value in enumerate(values):
        record = Record(project(node, index), value._eager(), outside, known=known)
        if outer is not None:
            outer.add(record)
        results.append(result(value._type, value._eager(), record=record))
    return results
