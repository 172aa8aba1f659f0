"""What a trace does when it is called, whoever runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.attribute_state import is_number, is_tensor
from einkorn.attribute_writes import Written
from einkorn.captures import Capture
from einkorn.ir.dtypes import float64, int64
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.recording import Value, result
from einkorn.runtime.locks import LOCKS

Array = np.ndarray[Any, Any]

_FLOAT, _INT = TensorType(float64, ()), TensorType(int64, ())


@dataclass(frozen=True, slots=True)
class Step:
    """What a traced function does, and where its operands and results belong.

    Attributes:
        graph: its outputs are those of the function, then gradients that it left behind.
        kinds: of each end of the arguments: a TensorType, "float", "int", or a Static.
        captures: what the graph's captures are bound to.
        updated: the leaves that the graph's updates are for.
        with_grad: the leaves that the gradients are for.
        cleared: the leaves whose gradient is set to None.
        count: how many outputs the function has.
        checks: the last outputs of the graph, which say how branches went.
        writes: the attributes that are written.
        name: of the function, for people.
    """

    graph: Graph
    kinds: Sequence[Any]
    captures: Sequence[Capture]
    updated: Sequence[Leaf]
    with_grad: Sequence[Leaf]
    cleared: Sequence[Leaf]
    count: int
    checks: tuple[Node, ...] = ()
    writes: Sequence[Written] = ()
    name: str = ""

    def with_outputs(self, more: Sequence[Node]) -> Step:
        """The same with further outputs behind its own."""
        graph = replace(self.graph, outputs=(*self.graph.outputs, *more))
        return replace(self, graph=graph)

    def commit_gradients(self, arrays: Sequence[Array]) -> None:
        """Set the gradients that the function left behind; once more does no harm."""
        for leaf, made in zip(self.with_grad, arrays[self.count :]):
            leaf._grad = result(leaf._type, made)
        for leaf in self.cleared:
            leaf._grad = None

    def commit_attributes(self, arrays: Sequence[Array]) -> None:
        """Set the attributes that the function wrote; once more does no harm."""
        if self.writes:
            types = [node.tensor for node in self.graph.outputs]
            for written in self.writes:
                written.commit(arrays, types)

    def reads_fit(self) -> bool:
        """Whether the attributes that are read at each call are of the kind that was traced.

        Another thread may have written them since the conditions of the trace were looked at.
        """
        return all([_fits(x) for x in self.captures if x.kind in ("number", "attribute")])

    @property
    def stateful(self) -> bool:
        """Whether it reads or writes what steps write, and so is run under the state lock."""
        kinds = ("leaf", "number", "attribute")
        # A list: an interrupt in a generator that `any` leaves behind would be lost.
        return bool(self.writes) or any([capture.kind in kinds for capture in self.captures])

    def lock(self) -> AbstractContextManager[Any]:
        """What is held while it runs."""
        return LOCKS.state if self.stateful else nullcontext()

    def values(self, arguments: Arguments) -> Iterable[Value]:
        """The value of every input and capture of the graph, in order."""
        yield from input_values(arguments)
        yield from map(captured_value, self.captures)


def input_values(arguments: Arguments) -> Iterable[Value]:
    """The value of every input of a trace."""
    for end, kind, value in zip(arguments.ends, arguments.kinds, arguments.values):
        if isinstance(kind, TensorType):
            yield value if value is not None else result(kind, end)
        elif isinstance(kind, str):
            type_ = _FLOAT if kind == "float" else _INT
            yield result(type_, np.asarray(end, type_.dtype.numpy))


def captured_value(capture: Capture) -> Value:
    """The value of a capture now."""
    if capture.kind in ("setting", "number"):
        type_ = capture.node.tensor
        return result(type_, np.asarray(capture.source.value, type_.dtype.numpy))
    if capture.kind == "attribute":
        return capture.source.value
    return capture.source._grad if capture.kind == "grad" else capture.source


def _fits(capture: Capture) -> bool:
    """Whether an attribute still is what the node that stands for it says."""
    value, type_ = capture.source.value, capture.node.tensor
    if capture.kind == "number":
        return is_number(value) and isinstance(value, float) is type_.dtype.is_float
    return is_tensor(value) and value._type == type_
