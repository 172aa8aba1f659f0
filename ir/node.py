"""The one IR node, and the one function that makes it.

Nodes are frozen and interned: structurally equal nodes are the same object, so `is` is equality
and common subexpressions merge by construction. What differs between two uses of a node (its
source line, a user's name) belongs to the `Graph` that owns the trace.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import EinkornError
from einkorn.ir.ops import OPS, Op
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType, TupleType, Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Node:
    """One op applied to inputs. Interned: structurally equal nodes are the same object."""

    op: Op
    inputs: tuple[Node, ...]
    attrs: tuple[tuple[str, Any], ...]
    type: Type

    def attr(self, name: str) -> Any:
        """The attribute `name`; KeyError when the op has none of that name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(name)

    @property
    def tensor(self) -> TensorType:
        """The type of a node that is known to be a tensor."""
        assert isinstance(self.type, TensorType), f"{self.op.name.lower()} gives a tuple"
        return self.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    def __repr__(self) -> str:
        attrs = "".join(f" {name}={value}" for name, value in self.attrs)
        return f"<{self.op.name.lower()}{attrs}: {self.type}>"


_interned: WeakValueDictionary[Any, Node] = WeakValueDictionary()
_lock = [threading.RLock()]  # held while a node is entered: its `setdefault` is several steps
_ids = itertools.count(1)


def make(op: Op, *inputs: Node, **attrs: Any) -> Node:
    """Build (or find) a node. The only constructor: every node has passed its shape rule."""
    frozen = tuple(sorted(attrs.items())) if len(attrs) > 1 else tuple(attrs.items())
    key = (op, inputs, frozen)
    if (known := _interned.get(key)) is not None:
        return known
    type = infer(op, [x.type for x in inputs], attrs)
    with _lock[0]:
        return _interned.setdefault(key, Node(op, inputs, frozen, type))


def infer(op: Op, types: Sequence[Type], attrs: Mapping[str, Any]) -> Any:
    """The result type of an op by its shape rule, whose errors are given the op's name."""
    try:
        return OPS[op].infer(*types, **attrs)
    except EinkornError as error:
        error.args = (f"{attrs.get('function', op.name.lower())}: {error}",)
        raise


def remake(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The node with other inputs, types inferred again; the node itself when nothing differs."""
    if all(a is b for a, b in zip(node.inputs, inputs)):
        return node
    return make(node.op, *inputs, **dict(node.attrs))


def placeholder(type: TensorType) -> Node:
    """A new `input` node, different from every other one."""
    return make(Op.INPUT, dtype=type.dtype, shape=type.shape, id=next(_ids))


def alias(node: Node) -> Node:
    """A new name for `node`, different from every other one: a boundary that autodiff respects."""
    return make(Op.ALIAS, node, id=next(_ids))


def constant(dtype: DType, value: Any) -> Node:
    """A scalar constant, keyed by its bits: -0.0 and 0.0, 1 and True are different constants.

    What stands for a size that is known when a step runs is no constant, but the op `size`.
    """
    if isinstance(value, Size):
        return make(Op.SIZE, size=value, dtype=dtype)
    raw = np.asarray(value).astype(dtype.numpy).tobytes()
    return make(Op.CONST, bits=int.from_bytes(raw, "little"), dtype=dtype)


def constant_value(node: Node) -> Any:
    """The NumPy scalar of a `const` node."""
    dtype: DType = node.attr("dtype")
    raw = node.attr("bits").to_bytes(dtype.itemsize, "little")
    return np.frombuffer(raw, dtype.numpy)[0]


def is_const(node: Node, value: float | int) -> bool:
    """Whether `node` is that constant to the bit, also when broadcast to a shape."""
    while node.op is Op.BROADCAST:
        node = node.inputs[0]
    return node.op is Op.CONST and node is constant(node.dtype, value)


def make_call(graph: Any, operands: Sequence[Node], **attrs: Any) -> Node:
    """A call of `graph`, different from every other one: calls are regions of their own.

    Attributes say how it is differentiated; see `_call_contributions` in passes/autodiff.py.
    """
    return make_region(Op.CALL, operands, graph=graph, **attrs)


def make_region(op: Op, operands: Sequence[Node], **attrs: Any) -> Node:
    """A node that applies graphs, different from every other one."""
    return make(op, *operands, **attrs, id=new_id())


def new_id() -> int:
    """A number for the attribute `id` that no other node has."""
    return next(_ids)


def project(node: Node, index: int) -> Node:
    """Result `index` of a node with several results."""
    assert isinstance(node.type, TupleType)
    return make(Op.PROJECT, node, index=index)


def toposort(roots: Iterable[Node], into: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node that the roots need, inputs first: a depth-first postorder, iterative.

    `into(node)` false keeps the walk from entering that node's inputs.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(root.inputs if into is None or into(root) else ()))]
        while stack:
            node, pending = stack[-1]
            for child in pending:
                if child not in seen:
                    seen.add(child)
                    inputs = child.inputs if into is None or into(child) else ()
                    stack.append((child, iter(inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def substitute(roots: Iterable[Node], known: dict[Node, Node]) -> list[Node]:
    """The roots with every node of `known` replaced; `known` also collects what was rebuilt."""
    roots = list(roots)
    for node in toposort(roots, into=lambda node: node not in known):
        if node not in known:
            known[node] = remake(node, tuple(known[x] for x in node.inputs))
    return [known[root] for root in roots]


__all__ = [
    "Node",
    "alias",
    "constant",
    "constant_value",
    "infer",
    "is_const",
    "make",
    "make_call",
    "make_region",
    "new_id",
    "placeholder",
    "project",
    "remake",
    "substitute",
    "toposort",
]


def _unlock() -> None:
    """In a forked child: another thread's lock would stay locked for ever."""
    _lock[0] = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
