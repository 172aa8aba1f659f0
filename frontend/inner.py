"""Functions recorded as a closed graph and then applied: what vmap and Jacobians are made of.

An `Inner` trace is like that of a compiled function, but its graph is applied at once, op by op,
where the call stands: in eager mode the ops run, inside a trace they are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.closed import apply_control
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import TraceError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant_value, make_call, new_id, project
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.leaf import Leaf
from einkorn.passes.autodiff import expand
from einkorn.recording import (
    Record,
    Value,
    apply,
    apply_several,
    current_region,
    current_trace,
    is_recording,
    no_grad,
    result,
    traced,
)
from einkorn.tensor import Tensor
from einkorn.tracing import Trace, carries_gradient, tracing

MSG_UNKNOWN = (
    "{what} needs the value of a tensor, but {transform} records {trace} once, before there are "
    "values{where}. Use ek.where(condition, a, b) to choose by value; shapes must not depend on "
    "values; or compute it outside of {transform}."
)


@dataclass(eq=False)
class Inner(Trace):
    """A function being recorded by a transform.

    Attributes:
        transform: its name, for messages.
    """

    transform: str = "the transform"

    def example(self, like: Value, name: str, type: TensorType | None = None) -> Tensor:
        """A new input for a value of the outside, tracked as that is."""
        tracks = like._tracked() is not None if self.outer is None else self.outer.tracks(like)
        return self.argument(type or like._type, name, tracks=tracks)

    def unknown(self, what: str, node: Node | None) -> TraceError:
        text = MSG_UNKNOWN.format(
            what=what, transform=self.transform, trace=self.name, where=self.where(node)
        )
        return TraceError(text)


@contextmanager
def recording(transform: str, fn: Callable[..., Any]) -> Generator[Inner]:
    """Within the block ops are recorded in a new trace."""
    name = getattr(fn, "__name__", None) or type(fn).__name__.lower()
    name = name if name.isidentifier() else "fn"
    trace = Inner(name, outer=current_trace.get(), transform=transform)
    token = current_region.set(None)
    try:
        with tracing(trace):
            yield trace
    finally:
        current_region.reset(token)


@dataclass(frozen=True, slots=True)
class Closed:
    """A recorded function.

    Attributes:
        trace: where it was recorded.
        graph: its outputs, then the gradients and the new values that it left in leaves.
        tracked: for each output whether it is tracked.
        with_grad: the leaves that got gradients.
        updated: the leaves that were assigned.
    """

    trace: Inner
    graph: Graph
    tracked: tuple[bool, ...]
    with_grad: Sequence[Leaf]
    updated: Sequence[Leaf]

    @property
    def captured(self) -> list[Any]:
        """What stands for each capture where the function is applied."""
        return [_outside(capture) for capture in self.trace.captures]

    def commit(self, values: Iterable[Tensor]) -> None:
        """Assign to leaves what the function assigned: gradients, then values."""
        found = iter(values)
        for leaf in self.with_grad:
            leaf.grad = next(found).detach()
        for leaf in self.trace.cleared_grads:
            leaf.grad = None
        for leaf in self.updated:
            leaf.value = next(found)


def close(trace: Inner, outputs: list[Tensor]) -> Closed:
    """What was recorded, with these outputs."""
    graph, updated, with_grad = trace.finish(outputs)
    closed = Graph(
        graph.name, graph.inputs, graph.captures, graph.results, (), graph.names, graph.origins
    )
    tracked = tuple(trace.tracks(x) for x in outputs)
    return Closed(trace, closed, tracked, with_grad, updated)


def _outside(capture: Any) -> Any:
    if capture.kind == "grad":
        return capture.source.grad
    if capture.kind != "setting":
        return capture.source
    value, outer = capture.source.value, current_trace.get()
    if outer is not None:
        return outer.setting(capture.source.held(), capture.source.name, value)
    return result(TensorType(float64, ()), np.asarray(value, np.float64))


def replay(graph: Graph, values: Sequence[Value]) -> list[Tensor]:
    """The outputs of a graph without `grad`, its ops applied where the call stands."""
    trace = current_trace.get()
    env: dict[Node, Any] = dict(zip(graph.params, values))
    ids: dict[int, int] = {}  # variants of one loop share theirs
    for node in graph.nodes:
        if node in env:
            continue
        operands = [env[x] for x in node.inputs]
        if node.op is Op.CALL:
            attrs = {name: x for name, x in node.attrs if name not in ("id", "graph")}
            env[node] = apply_region(node.attr("graph"), operands, **attrs)
        elif node.op in CONTROL:
            attrs = dict(node.attrs)
            attrs["id"] = ids.setdefault(attrs["id"], new_id())
            env[node] = apply_control(node.op, operands, **attrs)
        elif node.op is Op.PROJECT:
            env[node] = operands[0][node.attr("index")]
        elif node.op is Op.HOST and isinstance(node.type, TupleType):
            env[node] = apply_several(node.op, *operands, **dict(node.attrs))
        else:
            env[node] = _applied(node, operands)
            if trace is not None and node in graph.origins:
                trace.origins[env[node]._node] = graph.origins[node]
    return [env[node] for node in graph.outputs]


def _applied(node: Node, operands: Sequence[Value]) -> Value:
    if node.op is Op.CONST:
        return result(node.tensor, np.asarray(constant_value(node)), node=node)
    if node.op is Op.ALIAS:
        return operands[0]
    return apply(node.op, *operands, **dict(node.attrs))


def apply_region(graph: Graph, values: Sequence[Value], **attrs: Any) -> list[Tensor]:
    """The outputs of a closed graph, one region for differentiation; see `make_call` for `attrs`.

    Inside a trace one `call`. In eager mode its ops run and only the call is recorded, with the
    results that its derivative takes; what is recorded of the forward pass itself is nothing.
    """
    trace = current_trace.get()
    if trace is not None:
        tracks = is_recording() and any(map(trace.tracks, values))
        node = make_call(graph, [trace.operand(x, tracks) for x in values], **attrs)
        trace.note(node)
        return [
            traced(project(node, k), trace, tracks=tracks and carries_gradient(x))
            for k, x in enumerate(graph.outputs)
        ]
    tracks = is_recording() and any(x._tracked() is not None for x in values)
    with no_grad():
        found = replay(expand(graph), values)
    if not tracks:
        return found
    region = current_region.get()
    for x in values:
        x._lend()
    parents = tuple(x._as_record() for x in values)
    if region is not None:
        parents = tuple(map(region.bring, parents))
    node = make_call(graph, [record.node for record in parents], **attrs)
    known = {project(node, k): x._eager() for k, x in enumerate(found)}
    outputs: list[Tensor] = []
    for k, x in enumerate(found):
        if not carries_gradient(graph.outputs[k]):
            outputs.append(x)
            continue
        record = Record(project(node, k), x._eager(), parents, known=known)
        outputs.append(result(x._type, x._eager(), record=region.add(record) if region else record))
    return outputs
