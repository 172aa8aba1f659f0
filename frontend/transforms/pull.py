"""Cotangents back and tangents forward through what was recorded or traced.

In eager mode the recording is differentiated at once and the derivative's ops are run; inside a
trace `grad` nodes are recorded, which the pass `expand-autodiff` expands. Both add up in the same
order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from einkorn.ir.node import Node, alias, constant, make, project
from einkorn.ir.ops import Op
from einkorn.ir.sizes import has_size
from einkorn.ir.types import TensorType
from einkorn.passes.autodiff import jvp, vjp
from einkorn.recording import (
    Record,
    Value,
    current_region,
    current_trace,
    result,
    spread,
    tape,
    traced,
)
from einkorn.runtime.evaluate import evaluate
from einkorn.tensor import Tensor
from einkorn.transforms.targets import depth

Array = np.ndarray[Any, Any]


def ones(type: TensorType) -> Tensor:
    """1 at every element, as a constant."""
    return _filled(type, 1)


def zeros(type: TensorType) -> Tensor:
    """0 at every element, as a constant."""
    return _filled(type, 0)


def _filled(type: TensorType, value: int) -> Tensor:
    node = spread(constant(type.dtype, value), type.shape)
    if has_size(type.shape):
        return result(type, node=node)
    return result(type, np.full(type.shape, value, type.dtype.numpy), node=node)


def pull(
    outputs: Sequence[Value],
    cotangents: Sequence[Tensor],
    nodes: Sequence[Node],
    types: Sequence[TensorType],
) -> list[Tensor]:
    """The cotangents of nodes of the recording or the trace from those of outputs.

    They are recorded themselves inside of another derivative.

    Args:
        outputs: what was computed.
        cotangents: one for each output, of its type.
        nodes: what to differentiate by.
        types: the types of `nodes`.
    """
    trace = current_trace.get()
    if trace is not None:
        rows = [(x, ct) for x, ct in zip(outputs, cotangents) if trace.tracks(x)]
        if not rows:
            return [zeros(type) for type in types]
        seeds = [trace.operand(ct, depth() > 0) for _, ct in rows]
        return grad_nodes(trace, [trace.node_of(x) for x, _ in rows], seeds, nodes)
    roots, kept = tracked_roots(outputs)
    seeds = [_operand(cotangents[k]) for k in kept]
    found = vjp([root.node for root in roots], [seed.node for seed in seeds], nodes)
    return _computed(found, types, roots, seeds)


def push(
    outputs: Sequence[Value],
    nodes: Sequence[Node],
    tangents: Sequence[Tensor],
) -> list[Tensor]:
    """The tangents of outputs from those of nodes of the recording or the trace."""
    types = [x._type for x in outputs]
    trace = current_trace.get()
    if trace is not None:
        return _push_traced(trace, outputs, nodes, tangents)
    roots, kept = tracked_roots(outputs)
    seeds = [_operand(tangent) for tangent in tangents]
    through: list[Node | None] = [None] * len(outputs)
    found = jvp([root.node for root in roots], nodes, [seed.node for seed in seeds])
    for k, node in zip(kept, found):
        through[k] = node
    return _computed(through, types, roots, seeds)


def _push_traced(
    trace: Any, outputs: Sequence[Value], nodes: Sequence[Node], tangents: Sequence[Tensor]
) -> list[Tensor]:
    found = [zeros(x._type) for x in outputs]
    kept = [k for k, x in enumerate(outputs) if trace.tracks(x)]
    if not kept or not nodes:
        return found
    roots = [trace.node_of(outputs[k]) for k in kept]
    seeds = [trace.operand(tangent, depth() > 0) for tangent in tangents]
    attrs = {"outputs": len(roots)} if len(roots) > 1 else {}
    node = make(Op.GRAD, *roots, *nodes, *seeds, **attrs, forward=1)
    trace.note(node)
    for index, k in enumerate(kept):
        found[k] = traced(project(node, index), trace, tracks=depth() > 0)
    return found


def unknown(trace: Any, type: TensorType) -> Tensor:
    """A value to be linear in: its derivative is wanted, not its value."""
    return traced(alias(spread(constant(type.dtype, 0), type.shape)), trace, tracks=True)


def grad_nodes(
    trace: Any,
    outputs: Sequence[Node],
    seeds: Sequence[Node],
    wrt: Sequence[Node],
    tracks: bool | None = None,
) -> list[Tensor]:
    """A `grad` node in the trace and its results, tracked inside of another derivative."""
    if not wrt:
        return []
    attrs = {"outputs": len(outputs)} if len(outputs) > 1 else {}
    node = make(Op.GRAD, *outputs, *seeds, *wrt, **attrs)
    trace.note(node)
    tracks = depth() > 0 if tracks is None else tracks
    return [traced(project(node, k), trace, tracks=tracks) for k in range(len(wrt))]


def known_values(records: Iterable[Record]) -> dict[Any, Any]:
    """The values of every node that records stand for."""
    known: dict[Any, Any] = {}
    for record in records:
        assert record.array is not None
        known[record.node] = record.array
        if record.known:
            known.update(record.known)
    return known


def tracked_roots(outputs: Sequence[Value]) -> tuple[list[Record], list[int]]:
    """The records of the outputs that are tracked, and which those are."""
    region = current_region.get()
    roots: list[Record] = []
    kept: list[int] = []
    for k, output in enumerate(outputs):
        record = output._tracked()
        if record is not None:
            roots.append(record if region is None else region.bring(record))
            kept.append(k)
    return roots, kept


def _operand(value: Tensor) -> Record:
    """The record of a cotangent or tangent; one that nothing will be recorded of stays outside."""
    record = value._as_record()
    region = current_region.get()
    return record if region is None or depth() == 0 else region.bring(record)


def _computed(
    nodes: Sequence[Node | None],
    types: Sequence[TensorType],
    roots: Sequence[Record],
    seeds: Sequence[Record],
) -> list[Tensor]:
    """The values of derivative nodes as tensors, zeros for None."""
    nested, region = depth() > 0, current_region.get()
    known = {**known_values(tape(roots)), **known_values(seeds)}
    kept: dict[Any, Any] = {}
    wanted = [node for node in nodes if node is not None]
    arrays = iter(evaluate(wanted, known, kept if nested else None))
    parents = (*roots, *seeds)
    found: list[Tensor] = []
    for node, type in zip(nodes, types):
        if node is None:
            found.append(zeros(type))
            continue
        array = next(arrays)
        record = Record(node, array, parents, known=kept) if nested else None
        if record is not None and region is not None:
            region.add(record)
        found.append(result(type, array, record=record))
    return found
