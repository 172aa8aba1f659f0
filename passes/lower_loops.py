"""Lowering of groups that are loop nests: maps, and reductions with all that is fused with them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import prod

from einkorn.ir.loops import (
    COLUMN_BLOCK,
    COLUMN_CHUNK,
    PARTIALS,
    REDUCTIONS,
    ROW_BLOCK,
    Over,
    Sequence,
)
from einkorn.ir.node import Node, constant
from einkorn.ir.ops import Op
from einkorn.passes.costs import LAUNCH_NS
from einkorn.passes.launches import Buffer, Group
from einkorn.passes.loop_launches import Loop, LoopOperand, emit_loop
from einkorn.passes.lower import Lowering, expression
from einkorn.passes.views import View, dense_strides, merge_axes, reshaped_strides

Ints = tuple[int, ...]
_EMPTY = {Op.SUM: 0, Op.PROD: 1}


def loops(lowering: Lowering, group: Group) -> None:
    """Emit the kernel of a group, and what joins the parts of its reductions."""
    if prod(group.space) == 0:
        for node in group.results:
            lowering.result(node)
        return
    axes = _Axes(lowering, group)
    body, loads, number = expression(lowering, group.members, place=axes.load, over=axes.over)
    stores: list[tuple[LoopOperand, int]] = []
    partials: list[tuple[Node, Buffer, Buffer]] = []
    for node in group.results:
        buffer = target = lowering.result(node)
        if axes.parts(node) > 1:
            target = Buffer("partial results", node.tensor.nbytes * axes.parts(node))
            partials.append((node, target, buffer))
        strides = axes.store(node)
        stores.append((LoopOperand(target, View(node, 0, axes.shape, strides)), number[node]))
    reads = [LoopOperand(lowering.buffer(view.base), view) for view in loads]
    kind = None if group.kind == "map" else group.kind
    label = lowering.label(group.results[-1], group.members)
    emit_loop(lowering, Loop(kind, axes.shape, axes.cuts, reads, stores, body, label))
    for node, source, buffer in partials:
        _join(lowering, node, source, buffer, axes.parts(node))


def _join(lowering: Lowering, node: Node, source: Buffer, buffer: Buffer, parts: int) -> None:
    """Combine the partial results of a reduction in order."""
    shape = node.inputs[0].shape
    outer, inner = (shape[0], shape[2]) if len(shape) == 3 else (1, 1)
    work = outer * -(-inner // COLUMN_CHUNK)
    cost = LAUNCH_NS + outer * -(-inner // PARTIALS) * parts * 1.5
    kernel = Sequence(node.op, node.dtype)
    params = (outer, parts, inner)
    lowering.launch(kernel, [(source, 0)], buffer, params, work, cost, node, " join")


def empty_reduction(lowering: Lowering, node: Node) -> None:
    """A sum or product over no elements."""
    if node.tensor.size:
        buffer = lowering.result(node)
        lowering.fill(constant(node.dtype, _EMPTY[node.op]), buffer, lowering.views[node])


class _Axes:
    """The axes of a group's index space, and how its members read and write along them.

    Attributes:
        shape: axes as fine as the members have them.
        cuts: where outer, reduced and inner axes end (as of `Loop`).
    """

    def __init__(self, lowering: Lowering, group: Group) -> None:
        self._lowering, self._group = lowering, group
        self.shape, self.cuts = _natural(group)

    def over(self, node: Node) -> Over | None:
        """What a member that is a reduction goes over."""
        if node.op not in REDUCTIONS:
            return None
        if node in self._group.of_rows:
            return Over.ROW
        return Over.COLUMN if len(node.inputs[0].shape) == 3 else Over.WHOLE

    def parts(self, node: Node) -> int:
        """The number of partial results of each element of a member."""
        over = self.over(node)
        if over is Over.COLUMN:
            return -(-node.inputs[0].shape[1] // COLUMN_BLOCK)
        return -(-prod(self.shape) // ROW_BLOCK) if over is Over.WHOLE else 1

    def load(self, node: Node, x: Node) -> View:
        """How member `node` reads `x` along the axes of the space."""
        of_rows = node in self._group.of_rows and node.op not in REDUCTIONS
        shape = self.shape[: self.cuts[0]] if of_rows else self.shape
        view = self._along(self._lowering.view(x), shape)
        if view is None or not (of_rows or self._is_even(view)):
            view = self._along(self._lowering.dense(x), shape)
        assert view is not None
        if of_rows:
            rest = (0,) * (len(self.shape) - len(shape))
            view = View(view.base, view.offset, self.shape, (*view.strides, *rest))
        return view

    def _along(self, view: View, shape: Ints) -> View | None:
        if view.shape == shape:
            return view
        strides = reshaped_strides(view.shape, view.strides, shape)
        return None if strides is None else View(view.base, view.offset, shape, strides)

    def _is_even(self, view: View) -> bool:
        """Whether one stride leads through the reduced axes, and one through the inner ones."""
        if self._group.kind == "map":
            return True
        bounds = [*(self.cuts or (0,)), len(self.shape)]
        return all(len(_one_part(view, a, b)) == 1 for a, b in pairwise(bounds))

    def store(self, node: Node) -> Ints:
        """The strides of a result; those of partial results do not count."""
        if node in self._group.of_rows:
            outer = dense_strides(self.shape[: self.cuts[0]])
            return (*outer, *[0] * (len(self.shape) - len(outer)))
        if self.over(node) is None:
            return dense_strides(self.shape)
        inner = dense_strides(self.shape[self.cuts[-1] :]) if self.cuts else (0,)
        return (*[0] * (len(self.shape) - len(inner)), *inner)


def _one_part(view: View, a: int, b: int) -> Ints:
    return merge_axes(view.shape[a:b], [view.strides[a:b]])[0]


def _natural(group: Group) -> tuple[Ints, Ints]:
    """The commonest shape among members over the whole space that its parts cut between axes."""
    lanes = [
        node.shape
        for node in group.members
        if node not in group.of_rows and node.op not in REDUCTIONS
    ]
    for shape, _ in Counter(lanes).most_common():
        cuts = _cuts(shape, group)
        if cuts is not None:
            return shape, cuts
    cuts = _cuts(group.space, group)
    assert cuts is not None
    return group.space, cuts


def _cuts(shape: Ints, group: Group) -> Ints | None:
    """Where the parts of the space end in `shape`; None when one ends inside an axis."""
    if group.kind in ("map", "blocks"):
        return ()
    cuts: list[int] = []
    axis = 0
    for size in group.space[:-1]:
        total = 1
        while axis < len(shape) and total < size:
            total *= shape[axis]
            axis += 1
        if total != size:
            return None
        cuts.append(axis)
    return tuple(cuts) if prod(shape[axis:]) == group.space[-1] else None
