"""Functions that control flow applies, traced once into closed graphs, in both modes.

What a function takes from outside becomes an operand: a captured leaf or tensor a const, a leaf
that the function assigns (also a generator's counter) a carry, whose last value is assigned when
the op has run. Functions that belong together, as the branches of a `cond`, share their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.captures import Capture
from einkorn.convert import as_tensor, in_dtype, is_weak
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import EinkornError, ShapeError, TraceError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, new_id, placeholder, project
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.leaf import Leaf
from einkorn.recording import (
    Record,
    Value,
    current_region,
    current_trace,
    is_recording,
    result,
    traced,
    user_origin,
)
from einkorn.runtime.evaluate import control
from einkorn.runtime.locks import LOCKS
from einkorn.tensor import Tensor
from einkorn.tracing import Trace, tracing
from einkorn.tree import Structure, alike, describe, flatten, paths, unflatten

MSG_GRAD = (
    "{what}: {name} calls backward() or sets .grad, which a step of control flow cannot; take "
    "ek.grad or ek.value_and_grad inside, or call backward() on the result"
)


@dataclass(frozen=True, slots=True)
class Nest:
    """A nested structure of tensors; None may stand at its ends, too.

    Attributes:
        tensors: the tensors, in order.
        present: for each end whether a tensor is there.
        structure: how the ends are nested.
        given: what the tensors were made of: Python numbers have no dtype of their own.
    """

    tensors: list[Tensor]
    present: list[bool]
    structure: Structure
    given: list[Any]

    def rebuild(self, tensors: Sequence[Any]) -> Any:
        """The same structure with other tensors."""
        found = iter(tensors)
        return unflatten(self.structure, [next(found) if x else None for x in self.present])

    @property
    def types(self) -> list[TensorType]:
        """The type of each tensor."""
        return [x._type for x in self.tensors]

    def settled(self, what: str, after: Nest) -> Nest | None:
        """The nest with Python numbers in the dtypes of `after`; None when none has another one."""
        if not alike(self.structure, after.structure) or self.present != after.present:
            return None
        rows = list(zip(self.given, self.tensors, after.tensors))
        if not any(_can_settle(x, old, new) for x, old, new in rows):
            return None
        tensors = [
            in_dtype(what, x, new.dtype) if _can_settle(x, old, new) else old
            for x, old, new in rows
        ]
        return Nest(tensors, self.present, self.structure, self.given)

    @property
    def labels(self) -> list[str]:
        """The path of each tensor: "['h'][0]"; "" for a structure that is one tensor."""
        found = zip(paths(self.structure), self.present)
        return ["".join(f"[{key!r}]" for key in path) for path, is_there in found if is_there]


def _can_settle(number: Any, old: Tensor, new: Tensor) -> bool:
    """Whether a Python number that became `old` may be of the dtype of `new` as well."""
    kinds = (old.dtype.kind, new.dtype.kind)
    return is_weak(number) and old.dtype is not new.dtype and kinds in (("i", "i"), ("f", "f"))


def nest(what: str, value: Any, like: Nest | None = None) -> Nest:
    """A structure as tensors; Python numbers get the dtype at the same place of `like`."""
    ends, structure = flatten(value)
    present = [x is not None for x in ends]
    same = like is not None and alike(structure, like.structure) and present == like.present
    types: list[Any] = like.types if same and like else [None] * sum(present)
    given = [x for x in ends if x is not None]
    tensors = [
        in_dtype(what, x, type.dtype) if type is not None and is_weak(x) else as_tensor(x, what)
        for x, type in zip(given, types)
    ]
    return Nest(tensors, present, structure, given)


def check_alike(what: str, role: str, before: Nest, after: Nest, where: Trace, how: str) -> None:
    """ShapeError naming the first tensor of `after` that is not as in `before`.

    Args:
        what: the function that was called.
        role: what the tensors are.
        before: what is wanted.
        after: what was found in the trace `where`.
        how: how the two belong together: "enters as {} and leaves as {}".
    """
    place = user_origin()
    at = f", at {place}" if place else ""
    if not alike(before.structure, after.structure) or before.present != after.present:
        kinds = how.format(describe(before.structure), describe(after.structure))
        raise ShapeError(f"{what}: the structure of the {role} differs: it {kinds}{at}")
    for label, x, y in zip(before.labels, before.tensors, after.tensors):
        if x._type != y._type:
            kinds = how.format(x._type, y._type)
            raise ShapeError(
                f"{what}: {role}{label} {kinds}{where.where(y._node)}{at}; shapes and dtypes must "
                "be equal: reshape it, or cast it with .astype"
            )


@dataclass(frozen=True, slots=True)
class Traced:
    """A function that was traced: its trace, the nodes of its arguments, and what it gave."""

    name: str
    trace: Trace
    inputs: list[Node]
    outputs: list[Tensor]


def trace_function(
    what: str,
    fn: Any,
    arguments: Sequence[tuple[str, TensorType]],
    run: Callable[[list[Tensor], Trace], Sequence[Tensor]],
) -> Traced:
    """Trace `run`, which calls the user's `fn`, on arguments of the given names and types."""
    if not callable(fn):
        raise EinkornError(f"{what} takes functions, got {type(fn).__name__}")
    found = getattr(fn, "__name__", "")
    name = found if found.isidentifier() else f"{what}_body"
    with LOCKS.tracing_turn():
        trace = Trace(name, outer=current_trace.get())
        region = current_region.set(None)
        try:
            with tracing(trace):
                given = [
                    trace.argument(type, label, tracks=type.dtype.is_inexact)
                    for label, type in arguments
                ]
                outputs = list(run(given, trace))
                for x in outputs:
                    trace.node_of(x)
        finally:
            current_region.reset(region)
    if trace._grads:
        raise TraceError(MSG_GRAD.format(what=what, name=name))
    return Traced(name, trace, list(trace.inputs), outputs)


# -- closing ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closed:
    """Traced functions as closed graphs over common operands.

    Attributes:
        graphs: take consts, the first arguments, the state, and the other arguments; give the
            first outputs, the state, and the other outputs.
        consts: what all of them take from outside.
        state: the leaves that one of them assigns.
    """

    graphs: list[Graph]
    consts: list[Value]
    state: list[Leaf]


def close(
    functions: Sequence[Traced], splits: tuple[int, int], gives_state: Sequence[bool]
) -> Closed:
    """The closed graphs of traced functions.

    Args:
        functions: what was traced.
        splits: how many arguments come before the state, and how many outputs.
        gives_state: for each function whether its graph gives the state.
    """
    outer, (before, first) = current_trace.get(), splits
    nodes: list[dict[Any, Node]] = []
    values: list[dict[Any, Node]] = []
    captures: dict[Any, Capture] = {}
    state: dict[Any, Leaf] = {}
    for function in functions:
        trace = function.trace
        graph, updated, _ = trace.finish(function.outputs)
        nodes.append({_key(x): x.node for x in trace.captures})
        values.append({("leaf", id(x)): y for x, (_, y) in zip(updated, graph.updates)})
        captures.update((_key(x), x) for x in trace.captures)
        state.update((("leaf", id(x)), x) for x in updated)
        if outer is not None:
            outer.reasons.extend(trace.reasons)
    keys = [key for key in captures if key not in state]
    graphs: list[Graph] = []
    for function, known, assigned, gives in zip(functions, nodes, values, gives_state):
        names = dict(function.trace.names)

        def operand(key: Any, known: dict[Any, Node] = known) -> Node:
            return known.get(key) or placeholder(captures[key].node.tensor)

        consts = [operand(key) for key in keys]
        held = {key: operand(key) for key in state}
        outputs = [function.trace.node_of(x) for x in function.outputs]
        after = [assigned.get(key, held[key]) for key in state] if gives else []
        inputs = (*consts, *function.inputs[:before], *held.values(), *function.inputs[before:])
        results = (*outputs[:first], *after, *outputs[first:])
        origins = function.trace.origins
        graphs.append(Graph(function.name, inputs, (), results, (), names, origins))
    return Closed(graphs, [outer_value(captures[key]) for key in keys], list(state.values()))


def _key(capture: Capture) -> Any:
    if capture.kind == "setting":
        return capture.kind, capture.source.key
    return capture.kind, id(capture.source)


def outer_value(capture: Capture) -> Value:
    """What a capture of a trace stands for around it."""
    outer = current_trace.get()
    if capture.kind == "setting":
        number = capture.source.value
        if outer is not None:
            return outer.setting(capture.source.held(), capture.source.name, number)
        return result(TensorType(float64, ()), np.asarray(number, np.float64))
    return capture.source.grad if capture.kind == "grad" else capture.source


# -- the op ----------------------------------------------------------------------------------------


def apply_control(op: Op, operands: Sequence[Value], **attrs: Any) -> list[Tensor]:
    """The results of a `cond`, `while` or `scan`: run now and recorded, or added to the trace.

    With an `id` it is the node of that id, else one different from every other.
    """
    attrs.setdefault("id", new_id())
    trace = current_trace.get()
    if trace is not None:
        tracks = is_recording() and any(map(trace.tracks, operands))
        node = make(op, *(trace.operand(x, tracks) for x in operands), **attrs)
        trace.note(node)
        return [traced(part, trace, tracks=tracks) for part in _parts(node)]
    arrays = [x._eager() for x in operands]
    for x in operands:
        x._lend()
    if not (is_recording() and any(x._tracked() is not None for x in operands)):
        node = make(op, *(placeholder(x._type) for x in operands), **attrs)
        found = control(node, arrays)
        return [result(part.tensor, np.asarray(x)) for part, x in zip(_parts(node), found)]
    region = current_region.get()
    records = tuple(x._as_record() for x in operands)
    if region is not None:
        records = tuple(map(region.bring, records))
    node = make(op, *(record.node for record in records), **attrs)
    parts = _parts(node)
    found = [np.asarray(x) for x in control(node, arrays)]
    results: list[Tensor] = []
    for part, array in zip(parts, found):
        record = Record(part, array, records)
        if region is not None:
            region.add(record)
        results.append(result(part.tensor, array, record=record))
    return results


def _parts(node: Node) -> list[Node]:
    assert isinstance(node.type, TupleType)
    return [project(node, k) for k in range(len(node.type.items))]


def assign(state: Sequence[Leaf], values: Sequence[Tensor]) -> None:
    """Give leaves that were assigned inside their last values."""
    for leaf, value in zip(state, values, strict=True):
        leaf.value = value
