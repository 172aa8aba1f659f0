"""What a trace does when it is called, whoever runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
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
    """

    graph: Graph
    kinds: Sequence[Any]
    captures: Sequence[Capture]
    updated: Sequence[Leaf]
    with_grad: Sequence[Leaf]
    cleared: Sequence[Leaf]
    count: int
    checks: tuple[Node, ...] = ()

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

    @property
    def stateful(self) -> bool:
        """Whether it reads or writes leaves, and so is run under the state lock."""
        return any(capture.kind == "leaf" for capture in self.captures)

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
    if capture.kind == "setting":
        owner, name = capture.source
        return result(_FLOAT, np.asarray(owner.__dict__[name], np.float64))
    return capture.source._grad if capture.kind == "grad" else capture.source
