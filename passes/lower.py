"""Pass `lower`: the groups as kernel launches over buffers.

One `Lowering` walks the roots in order. Movement ops become strides of whoever reads them; an
operand that a template needs dense, or that strides cannot express, is copied first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from einkorn.ir.dtypes import DType, int64
from einkorn.ir.graph import Graph
from einkorn.ir.host_calls import host_name
from einkorn.ir.loops import Expr, Kernel, Over
from einkorn.ir.machine import Machine
from einkorn.ir.node import Node, constant
from einkorn.ir.ops import OPS, Op
from einkorn.ir.program import Program
from einkorn.ir.types import TensorType
from einkorn.passes.costs import grain_of
from einkorn.passes.launches import Buffer, Groups, Launch, Launches
from einkorn.passes.loop_launches import Loop, LoopOperand, emit_loop
from einkorn.passes.views import View, dense_strides, reach, scalar_constant, through, whole

Ints = tuple[int, ...]
WORD = 8  # bytes: complex numbers are moved as words
SHOWN_OPS = 8  # ops that a label lists; the `fuse` stage lists all


class Nested(NamedTuple):
    """How closed graphs that control flow applies become programs, in two steps.

    Attributes:
        launches: those of a graph, in any order that is valid.
        program: the program of launches.
    """

    launches: Callable[[Graph], Launches]
    program: Callable[[Launches], Program]


class Lowering:
    """The state of one lowering: buffers of stored nodes, views of all others, launches so far."""

    def __init__(
        self,
        groups: Groups,
        machine: Machine,
        nested: Nested | None = None,
    ) -> None:
        self.graph = groups.graph
        self.machine = machine
        self.nested = nested
        self.launches = Launches(groups.graph)
        self.views: dict[Node, View] = {}
        self.buffers: dict[Node, Buffer] = {}
        self._targets = _result_buffers(groups.graph)
        for role, nodes in (("input", self.graph.inputs), ("capture", self.graph.captures)):
            for index, node in enumerate(nodes):
                buffer = Buffer(self.graph.name_of(node), node.tensor.nbytes, role, index)
                self.buffers.setdefault(node, buffer)

    # -- operands ------------------------------------------------------------------------------

    def view(self, node: Node) -> View:
        """How to read `node`: through movement ops down to something stored."""
        if node in self.views:
            return self.views[node]
        chain = [node]
        while OPS[chain[-1].op].view and chain[-1].inputs[0] not in self.views:
            chain.append(chain[-1].inputs[0])
        for link in reversed(chain):
            found = whole(link)
            if OPS[link.op].view:
                found = through(link, self.views[link.inputs[0]]) or self._copied(link)
            self.views[link] = found
        return self.views[node]

    def _copied(self, node: Node) -> View:
        """Store a reshape that strides cannot express, as a dense copy of its operand."""
        source = self.views[node.inputs[0]]
        buffer = self.temporary(node.tensor, f"copy {node.tensor}")
        self.buffers[node] = buffer
        dense = View(node, 0, source.shape, dense_strides(source.shape))
        self.copy(source, buffer, dense, node)
        return whole(node)

    def buffer(self, base: Node) -> Buffer:
        """The buffer of a stored node; constants are stored at their first use as an operand."""
        if base not in self.buffers and base.tensor.size == 0:  # nothing was computed
            self.buffers[base] = self.temporary(base.tensor, "empty")
        if base not in self.buffers:
            assert base.op is Op.CONST, f"{base!r} was not computed before its use"
            buffer = self.temporary(base.tensor, "const")
            self.buffers[base] = buffer
            self.fill(base, buffer, whole(base))
        return self.buffers[base]

    def operand(self, view: View) -> tuple[Buffer, int]:
        """The buffer of a view and the byte offset of its first element."""
        return self.buffer(view.base), view.offset * view.base.dtype.itemsize

    def dense(self, node: Node) -> View:
        """A view of `node` whose elements are adjacent, copied when they are not."""
        view = self.view(node)
        if view.is_dense:
            return view
        buffer = self.temporary(node.tensor, f"copy {node.tensor}")
        stand_in = self._stand_in(node, buffer)
        self.copy(view, buffer, stand_in, node)
        self.views[node] = stand_in
        return stand_in

    def _stand_in(self, node: Node, buffer: Buffer) -> View:
        """A dense view of `node` in a buffer of its own."""
        self.buffers[node] = buffer
        return whole(node)

    def temporary(self, type: TensorType, label: str) -> Buffer:
        return Buffer(label, type.nbytes)

    def result(self, node: Node) -> Buffer:
        """The buffer that receives a root: its output or update if it is one, else a temporary."""
        targets = self._targets.get(node)
        buffer = targets[0] if targets else self.temporary(node.tensor, str(node.type))
        self.buffers[node] = buffer
        self.views[node] = whole(node)
        return buffer

    # -- launches ------------------------------------------------------------------------------

    def emit(self, launch: Launch) -> None:
        if launch.work > 0:
            self.launches.steps.append(launch)

    def launch(
        self,
        kernel: Kernel,
        reads: Sequence[tuple[Buffer, int]],
        buffer: Buffer,
        params: Ints,
        work: int,
        cost: float,
        node: Node,
        suffix: str = "",
        refuses: bool = False,
    ) -> None:
        """Emit the launch of a kernel that fills one buffer, on behalf of `node`."""
        writes = ((buffer, 0),)
        label = self.label(node) + suffix
        grain = grain_of(work, cost)
        row = Launch(kernel, tuple(reads), writes, params, work, grain, cost, label, refuses)
        self.emit(row)

    def label(self, node: Node, members: Sequence[Node] = ()) -> str:
        """Op names and the user's line, for people."""
        names = [host_name(x.op, dict(x.attrs)) for x in members or (node,)]
        if len(names) > SHOWN_OPS:
            names = [*names[: SHOWN_OPS - 2], "...", names[-1], f"({len(names)} ops)"]
        ops = " ".join(names)
        origin = self.graph.origins.get(node)
        return f"{ops}  {origin}" if origin else ops

    def copy(self, source: View, buffer: Buffer, target: View, node: Node) -> None:
        """Copy a view into a (part of a) buffer."""
        if source.base.op is Op.CONST:
            self.fill(source.base, buffer, target)
            return
        self.nest(target, buffer, [source], (), 0, self.label(node) + " copy")

    def fill(self, value: Node, buffer: Buffer, target: View) -> None:
        """Write one scalar (a constant, or a stored one) everywhere in a (part of a) buffer."""
        if value.op is Op.CONST:
            for dtype, bits, part in _words(value, target):
                body = (Expr(Op.CONST, (), dtype, (("bits", bits),)),)
                self.nest(part, buffer, [], body, 0, "fill")
            return
        scalar = self.view(value)
        spread = View(scalar.base, scalar.offset, target.shape, (0,) * len(target.shape))
        self.nest(target, buffer, [spread], (), 0, "fill")

    def nest(
        self,
        target: View,
        buffer: Buffer,
        loads: Sequence[View | tuple[Buffer, View]],
        body: tuple[Expr, ...],
        value: int,
        label: str,
    ) -> None:
        """Emit a map kernel: value number `value` of loads and body, stored into `target`.

        A load is a view of a stored node, or a buffer beside the view that says how to read it; a
        view's base then only tells the dtype, as that of `target` does.
        """
        if target.size == 0:
            return
        if target.base.dtype.is_complex:  # moved, not looked into
            loads = [
                (load[0], as_words(load[1]))
                if isinstance(load, tuple)
                else (self.buffer(load.base), as_words(load))
                for load in loads
            ]
            target = as_words(target)
        found = [
            LoopOperand(*load)
            if isinstance(load, tuple)
            else LoopOperand(self.buffer(load.base), load)
            for load in loads
        ]
        store = LoopOperand(buffer, target)
        emit_loop(self, Loop(None, target.shape, (), found, [(store, value)], body, label))

    def finish(self) -> Launches:
        """Copy results that live elsewhere to where they are expected."""
        for node, targets in self._targets.items():
            stored = self.buffers.get(node)
            for buffer in targets:
                if buffer is not stored:
                    view = self.view(node)
                    target = View(node, 0, view.shape, dense_strides(view.shape))
                    self.copy(view, buffer, target, node)
        return self.launches


def as_words(view: View) -> View:
    """A view of complex numbers as one of 64-bit words, with one more axis where they have two."""
    words = view.base.dtype.itemsize // WORD
    stand_in = constant(int64, 0)
    if words == 1:
        return View(stand_in, view.offset, view.shape, view.strides)
    strides = tuple(words * stride for stride in view.strides)
    return View(stand_in, words * view.offset, (*view.shape, words), (*strides, 1))


def _words(value: Node, target: View) -> list[tuple[DType, int, View]]:
    """A constant as dtype, bits and place; those of a complex one as 64-bit words."""
    bits: int = value.attr("bits")
    if not value.dtype.is_complex:
        return [(value.dtype, bits, target)]
    words = value.dtype.itemsize // WORD
    stand_in = constant(int64, 0)
    strides = tuple(words * stride for stride in target.strides)
    return [
        (
            int64,
            (bits >> (8 * WORD * k)) % (1 << 8 * WORD),
            View(stand_in, words * target.offset + k, target.shape, strides),
        )
        for k in range(words)
    ]


def _result_buffers(graph: Graph) -> dict[Node, list[Buffer]]:
    """The buffers in which each result is expected; state first, so that it needs no copy.

    A result that only has another shape than what is computed is that, in the same order.
    """
    targets: dict[Node, list[Buffer]] = {}
    for index, (leaf, value) in enumerate(graph.updates):
        buffer = Buffer(graph.name_of(leaf), value.tensor.nbytes, "update", index)
        targets.setdefault(_reshaped(value), []).append(buffer)
    for index, node in enumerate(graph.outputs):
        buffer = Buffer("", node.tensor.nbytes, "output", index)
        targets.setdefault(_reshaped(node), []).append(buffer)
    return targets


def _reshaped(node: Node) -> Node:
    """What a node shows with all its elements in order."""
    while node.op in (Op.RESHAPE, Op.ALIAS, Op.STOP_GRADIENT):
        node = node.inputs[0]
    return node


def expression(
    lowering: Lowering,
    members: Sequence[Node],
    given: Sequence[Node] = (),
    place: Callable[[Node, Node], View] | None = None,
    over: Callable[[Node], Over | None] = lambda node: None,
) -> tuple[tuple[Expr, ...], list[View], dict[Node, int]]:
    """The steps and loads that compute `members`, and the number of each member's value.

    Values are numbered: those of `given`, which the kernel has already, then loads, then steps.

    Args:
        place: how a member reads an operand from elsewhere; its own view by default.
        over: what a member that is a reduction goes over.
    """
    number: dict[Node, int] = {node: k for k, node in enumerate(given)}
    sources = _sources(members, {*members, *given}, place or (lambda _, x: lowering.view(x)))
    loads = {view: k for k, view in enumerate(dict.fromkeys(sources.values()), len(given))}
    body: list[Expr] = []
    constants: dict[Node, int] = {}

    def step(expr: Expr) -> int:
        body.append(expr)
        return len(given) + len(loads) + len(body) - 1

    def operand(node: Node, x: Node) -> int:
        if (node, x) in sources:
            return loads[sources[node, x]]
        fill = scalar_constant(x)
        if fill is None:
            return number[reach(x).base]
        if fill not in constants:
            attrs = (("bits", fill.attr("bits")),)
            constants[fill] = step(Expr(Op.CONST, (), fill.dtype, attrs))
        return constants[fill]

    for node in members:
        inputs = tuple(operand(node, x) for x in node.inputs)
        attrs = tuple((k, v) for k, v in node.attrs if isinstance(v, int))
        number[node] = step(Expr(node.op, inputs, node.dtype, attrs, over(node)))
    return tuple(body), list(loads), number


def _sources(
    members: Sequence[Node], inside: set[Node], place: Callable[[Node, Node], View]
) -> dict[tuple[Node, Node], View]:
    """How each member reads each operand from elsewhere that is no constant."""
    return {
        (node, x): place(node, x)
        for node in members
        for x in node.inputs
        if scalar_constant(x) is None and reach(x).base not in inside
    }
