"""Values, recordings and the one way in which an op is applied to them.

A `Value` is what users know as a Tensor. In eager mode it has an array, and a `Record` when it
depends on something tracked; while a function is traced it has a node of that trace instead.
`apply` and `apply_elementwise` run the op now and record it, or add it to the trace.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import EinkornError, ShapeError, StateError
from einkorn.ir.graph import Origin
from einkorn.ir.node import Node, alias, constant, infer, make, placeholder, project
from einkorn.ir.ops import OPS, Op
from einkorn.ir.shape_rules import common_shape
from einkorn.ir.types import TensorType, TupleType, same_shape
from einkorn.runtime.eager import run_cast, run_host, run_op
from einkorn.runtime.locks import LOCKS

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

MSG_FREED = (
    "the recording behind this value was freed by an earlier backward(); call "
    "backward(retain_graph=True) the first time to use it again"
)
MSG_ESCAPED = (
    "{what} while {trace} was being traced and has no value outside of it; return it from the "
    "function, or assign it to a leaf with leaf.value = ..."
)

_NO_LOCK = nullcontext()


class Record:
    """One recorded value: its node, its array, and the records it was made from.

    Attributes:
        node: what was computed, in terms of the records' nodes.
        array: its value; None when freed.
        parents: the records of the operands.
        leaf: the leaf whose value this is, if it is one.
        known: values of further nodes behind `node`, when it stands for more than one op. Those
            inside a `call` stand in a dict of their own under the call's id: one region may be
            called several times.
    """

    __slots__ = ("__weakref__", "array", "known", "leaf", "node", "parents")

    def __init__(
        self,
        node: Node,
        array: Array | None,
        parents: tuple[Record, ...] = (),
        leaf: Any = None,
        known: dict[Any, Any] | None = None,
    ) -> None:
        self.node, self.array, self.parents = node, array, parents
        self.leaf, self.known = leaf, known


class Region:
    """An eager call of a compiled function: it sees its operands under names of its own.

    The names become the params of a `call` node, so that gradients add up inside the region first,
    exactly as they do when the function is compiled.

    Attributes:
        params: records of the outside, each with the one that stands for it inside.
    """

    def __init__(self, outer: Region | None) -> None:
        self.outer = outer
        self.params: list[tuple[Record, Record]] = []
        self._brought: dict[Record, Record] = {}
        self._inside: WeakSet[Record] = WeakSet()

    def bring(self, record: Record) -> Record:
        """The record inside this region for one that may come from outside."""
        if record in self._inside or _is_constant(record.node):
            return record
        if record not in self._brought:
            outside = record if self.outer is None else self.outer.bring(record)
            if outside not in self._brought:
                inside = Record(placeholder(record.node.tensor), record.array, leaf=record.leaf)
                self._brought[outside] = inside
                self._inside.add(inside)
                self.params.append((outside, inside))
            self._brought[record] = self._brought[outside]
        return self._brought[record]

    def argument(self, record: Record) -> Record:
        """The record inside for an argument: one of its own, even if it is also captured."""
        outside = record if self.outer is None else self.outer.bring(record)
        inside = Record(placeholder(record.node.tensor), record.array, leaf=record.leaf)
        self._inside.add(inside)
        self.params.append((outside, inside))
        return inside

    def add(self, record: Record) -> Record:
        """Note that a record was made inside."""
        self._inside.add(record)
        return record


def _is_constant(node: Node) -> bool:
    return node.op is Op.ALIAS and node.inputs[0].op in (Op.CONST, Op.BROADCAST)


current_region: ContextVar[Region | None] = ContextVar("einkorn_region", default=None)
current_trace: ContextVar[Any] = ContextVar("einkorn_trace", default=None)
_recording: ContextVar[bool] = ContextVar("einkorn_recording", default=True)


class Value:
    """The base of Tensor: a type, and an array or a node."""

    __slots__ = (
        "__weakref__",
        "_array",
        "_node",
        "_own",
        "_record",
        "_trace",
        "_tracks",
        "_type",
        "_weak",
    )

    _result_class: type[Any]  # Tensor: the class of results, set when it is defined
    _number_class: type[Any]  # Number: the class of Python numbers of the run

    def __init_subclass__(cls, results: bool = False) -> None:
        super().__init_subclass__()
        if results:
            Value._result_class = cls

    _is_cell = False  # whether steps write the array; they do so under the state lock

    _type: TensorType
    _array: Array | None
    _node: Node | None
    _record: Record | None
    _own: Record | None
    _trace: Any
    _tracks: bool
    _weak: bool

    def _eager(self) -> Array:
        """The array of an eager value."""
        if self._array is None:
            raise escaped(self)
        return self._array

    def _tracked(self) -> Record | None:
        """The record of a value that depends on something tracked."""
        return self._record

    def _as_record(self) -> Record:
        """A record of this value, made as a constant when it is not tracked."""
        record = self._tracked()
        if record is not None:
            return record
        if self._node is not None:  # each use of a constant is one of its own, as in a trace
            return Record(alias(self._node), self._eager())
        if self._own is None:
            self._own = Record(placeholder(self._type), self._eager())
        return self._own

    def _lend(self) -> None:
        """Say that the array is now shared with something that outlives this call."""

    def _shared(self) -> Array:
        """The array of an eager value, lent."""
        return self._eager()


def escaped(value: Value) -> EinkornError:
    """The error of a tensor of a trace that is used outside of it, with the line that made it."""
    trace, node = value._trace, value._node
    name, origin = trace.names.get(node), trace.origins.get(node)
    what = f"this {value._type} was made"
    if name is not None:
        what = f"this {value._type} stood for {name}"
    elif origin is not None:
        what = f"this {value._type} was made at {origin}"
    return EinkornError(MSG_ESCAPED.format(what=what, trace=trace.name))


def result(
    type: TensorType,
    array: Array | None = None,
    node: Node | None = None,
    record: Record | None = None,
    trace: Any = None,
    weak: bool = False,
    tracks: bool = False,
) -> Tensor:
    """A new Tensor that is not a leaf; `tracks` says whether a traced one is tracked."""
    value: Any = object.__new__(Value._number_class if weak else Value._result_class)
    value._type, value._array, value._node = type, array, node
    value._record, value._own, value._trace, value._weak = record, None, trace, weak
    value._tracks = tracks
    return value


def as_number(value: Any) -> Any:
    """The same Tensor as a Python number of the run."""
    value._weak = True
    object.__setattr__(value, "__class__", Value._number_class)
    return value


def traced(node: Node, trace: Any, weak: bool = False, tracks: bool = False) -> Tensor:
    """A Tensor that stands for a node of `trace`."""
    trace.note(node)
    return result(node.tensor, node=node, trace=trace, weak=weak, tracks=tracks)


def scalar(dtype: DType, number: Any) -> Tensor:
    """A constant scalar, rounded once to `dtype`."""
    with np.errstate(over="ignore"):
        node = constant(dtype, number)
        return result(node.tensor, array=np.asarray(number).astype(dtype.numpy), node=node)


@contextmanager
def no_grad() -> Generator[None]:
    """Within the block nothing is recorded for differentiation."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def recorded() -> Generator[None]:
    """Within the block tracked values are recorded, whatever is in force around it."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def entered(trace: Any) -> Generator[None]:
    """Within the block ops are added to another open trace, around the current one."""
    token = current_trace.set(trace)
    try:
        yield
    finally:
        current_trace.reset(token)


def is_recording() -> bool:
    """Whether ops on tracked values are recorded here."""
    return _recording.get()


# -- applying ops ----------------------------------------------------------------------------------


def apply(op: Op, *operands: Value, **attrs: Any) -> Tensor:
    """The result of one op; operands must already agree as its shape rule demands."""
    trace = current_trace.get()
    if trace is not None:
        return _in_trace(trace, op, operands, attrs)
    types = [x._type for x in operands]
    type = infer(op, types, attrs)
    with _still(operands):
        arrays = [x._eager() for x in operands]
        if op is Op.CAST:
            array = run_cast(arrays[0], types[0], attrs["dtype"])
        else:
            array = run_op(op, types, arrays, attrs)
        if OPS[op].view or (arrays and array is arrays[0]):
            for x in operands:
                x._lend()
        return _recorded(op, operands, attrs, type, array)


def apply_elementwise(op: Op, *operands: Value, **attrs: Any) -> Tensor:
    """The result of an elementwise op on operands of one dtype whose shapes broadcast."""
    trace = current_trace.get()
    shape = broadcast_shape(op, [x._type for x in operands])
    if trace is not None:
        return _in_trace(trace, op, operands, attrs, shape)
    types = [x._type for x in operands]
    spread_types = [t if same_shape(t.shape, shape) else t.with_shape(shape) for t in types]
    type = infer(op, spread_types, attrs)
    with _still(operands):
        array = run_op(op, types, [x._eager() for x in operands], attrs)
        return _recorded(op, operands, attrs, type, array, shape)


def apply_several(op: Op, *operands: Value, **attrs: Any) -> list[Tensor]:
    """The results of an op that has several."""
    trace = current_trace.get()
    if trace is not None:
        tracks = _recording.get() and any(map(trace.tracks, operands))
        node = make(op, *(trace.operand(x, tracks) for x in operands), **attrs)
        trace.note(node)
        return [traced(part, trace, tracks=tracks and is_inexact(part)) for part in parts_of(node)]
    types = [x._type for x in operands]
    found = infer(op, types, attrs)
    with _still(operands):
        arrays = run_host(op, types, [x._eager() for x in operands], attrs)
        if not (_recording.get() and any(x._tracked() is not None for x in operands)):
            return [result(type, array) for type, array in zip(found.items, arrays)]
        records = tuple(x._as_record() for x in operands)
        region = current_region.get()
        if region is not None:
            records = tuple(map(region.bring, records))
        node = make(op, *(record.node for record in records), **attrs)
        for x in operands:
            x._lend()
    parts = parts_of(node)
    known: dict[Any, Any] = dict(zip(parts, arrays))
    results: list[Tensor] = []
    for part, array in zip(parts, arrays):
        record = Record(part, array, records, known=known) if is_inexact(part) else None
        if region is not None and record is not None:
            region.add(record)
        results.append(result(part.tensor, array, record=record))
    return results


def parts_of(node: Node) -> list[Node]:
    """The projections of a node with several results."""
    assert isinstance(node.type, TupleType)
    return [project(node, k) for k in range(len(node.type.items))]


def is_inexact(node: Node) -> bool:
    """Whether a node has values for which there are gradients."""
    return node.dtype.is_inexact


def _still(operands: Sequence[Value]) -> AbstractContextManager[Any]:
    """Within the block no step of another thread writes an operand."""
    return LOCKS.state if any([x._is_cell for x in operands]) else _NO_LOCK


def _in_trace(
    trace: Any,
    op: Op,
    operands: Sequence[Value],
    attrs: dict[str, Any],
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Add a node to the trace.

    What is not tracked enters a tracked op under a name of its own, one for each Value, as it does
    in eager mode: equal untracked values do not merge there, and merging decides how the
    contributions to a gradient are grouped.
    """
    tracks = _recording.get() and op is not Op.STOP_GRADIENT and any(map(trace.tracks, operands))
    nodes = [trace.operand(x, tracks) for x in operands]
    if shape is not None:
        nodes = [spread(node, shape) for node in nodes]
    return traced(make(op, *nodes, **attrs), trace, tracks=tracks)


def _recorded(
    op: Op,
    operands: Sequence[Value],
    attrs: dict[str, Any],
    type: TensorType,
    array: Array,
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Wrap an eager result, with a record when an operand is tracked and a gradient can flow."""
    tracked = _recording.get() and any(x._tracked() is not None for x in operands)
    if not tracked or op is Op.STOP_GRADIENT:  # what was detached keeps no recording alive
        return result(type, array)
    records = tuple(x._as_record() for x in operands)
    region = current_region.get()
    if region is not None:
        records = tuple(map(region.bring, records))
    nodes = [record.node if shape is None else spread(record.node, shape) for record in records]
    node = make(op, *nodes, **attrs)
    for x in operands:
        x._lend()
    record = Record(node, array, records)
    return result(type, array, record=record if region is None else region.add(record))


def spread(node: Node, shape: tuple[int, ...]) -> Node:
    """The node broadcast to a shape; itself when it has that shape."""
    return node if same_shape(node.shape, shape) else make(Op.BROADCAST, node, shape=shape)


def broadcast_shape(op: Op, types: Sequence[TensorType]) -> tuple[int, ...]:
    """The common shape of operands; ShapeError naming them when there is none."""
    first = types[0].shape
    if all(same_shape(type.shape, first) for type in types):
        return first
    shape = common_shape(*types)
    if shape is None:
        got = " and ".join(map(str, types))
        raise ShapeError(
            f"{op.name.lower()}: {got} do not broadcast: counted from the last axis, sizes must "
            "be equal or 1; use reshape or x[:, None] to line them up"
        )
    return shape


@lru_cache(maxsize=4096)
def _is_passed_over(module: str) -> bool:
    return module.partition(".")[0] in ("einkorn", "contextlib", "functools")


def user_frame() -> FrameType | None:
    """The innermost frame outside of einkorn."""
    frame = sys._getframe(1)
    while frame is not None and _is_passed_over(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return frame


def user_origin(module: str = "") -> Origin | None:
    """The file and line of the innermost frame outside of einkorn."""
    frame = user_frame()
    return frame and Origin(frame.f_code.co_filename, frame.f_lineno, module)


def tape(roots: Iterable[Record]) -> list[Record]:
    """Every record behind the roots, roots included; StateError when one was freed."""
    found: list[Record] = []
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        record = stack.pop()
        if id(record) in seen:
            continue
        seen.add(id(record))
        if record.array is None:
            raise StateError(MSG_FREED)
        found.append(record)
        stack.extend(record.parents)
    return found


def free(records: Iterable[Record]) -> None:
    """Let go of everything that results recorded; leaves and constants keep their values."""
    for record in records:
        if record.parents:
            record.array, record.parents, record.known = None, (), None
