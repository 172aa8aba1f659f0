"""Leaves that are made while a function is traced: new in each call, unless they are kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from einkorn.ir.node import Node, alias, constant, make
from einkorn.ir.ops import Op
from einkorn.leaf import Leaf
from einkorn.recording import result

State = tuple[Leaf, Node | None, list[Any]]


class OwnLeaves:
    """The leaves that one trace made.

    Attributes:
        nodes: the first value of each that belongs to the trace alone.
        kept: those that are held elsewhere when the trace has ended.
    """

    def __init__(self) -> None:
        self.nodes: dict[Leaf, Node] = {}
        self.kept: list[Leaf] = []

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, Leaf) and value in self.nodes

    def add(self, trace: Any, leaf: Leaf) -> None:
        """Note a leaf, which has the value now that it has at first in every call."""
        array = leaf._array
        assert array is not None
        first = array.reshape(-1)[:1]
        if array.size and array.tobytes() == first.tobytes() * array.size:
            node = constant(leaf.dtype, first[0])
            if array.shape:
                node = make(Op.BROADCAST, node, shape=array.shape)
        else:
            node = trace.node_of(result(leaf._type, array.copy()))
        self.nodes[leaf] = alias(node)

    def all(self) -> list[Leaf]:
        """Every one, when the trace has ended."""
        return [*self.nodes, *self.kept]

    def release(
        self, current: dict[Leaf, Node], grads: dict[Leaf, Any], collects: bool
    ) -> list[State]:
        """Let go of leaves that were written: those that are held elsewhere become state.

        An optimizer that the first call makes has such: its slots start as they were made, and
        what the call leaves in them is written.

        Args:
            current: the last value of each leaf that was written; loses these leaves.
            grads: the gradients of leaves, the same.
            collects: whether objects that hold themselves count as gone.

        Returns:
            Those held elsewhere, with their last value and their gradient in a list, if they have.
        """
        rows: list[Any] = []
        for leaf in list(self.nodes):
            if leaf in current or leaf in grads:
                del self.nodes[leaf]
                rows.append((weakref.ref(leaf), current.pop(leaf, None), _taken(grads, leaf)))
            del leaf
        if collects and any(kept() is not None for kept, *_ in rows):
            gc.collect()
        found = [(leaf, last, grad) for kept, last, grad in rows if (leaf := kept()) is not None]
        self.kept += [leaf for leaf, *_ in found]
        return found


def _taken(found: dict[Any, Any], key: Any) -> list[Any]:
    return [found.pop(key)] if key in found else []
