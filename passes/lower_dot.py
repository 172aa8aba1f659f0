"""Lowering of contractions: which kernel, what is packed, and what is computed with the results.

When min(M, N) is at most SKINNY a dot is interleaved chains over a strip of its long side;
otherwise register tiles, with operands in place or packed as passes/tiles.py says. Elementwise
members of the group become the epilogue of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from einkorn.ir.dtypes import DType, float32
from einkorn.ir.loops import (
    SKINNY,
    Access,
    Epilogue,
    Kernel,
    LoopKernel,
    Pack,
    SkinnyDot,
    TiledDot,
)
from einkorn.ir.node import Node, constant, placeholder
from einkorn.ir.types import TensorType
from einkorn.passes.costs import LAUNCH_NS, grain_of, loop_cost
from einkorn.passes.launches import Buffer, Launch
from einkorn.passes.loop_launches import inner_class
from einkorn.passes.lower import Lowering, expression
from einkorn.passes.tiles import PIECES_OF_PARTS, Matrix, choose, skinny
from einkorn.passes.views import View, dense_strides, merge_axes, whole

Ints = tuple[int, ...]

_EVERYWHERE = (1 << 63) - 1  # the last first row of padded panels: none stands out


@dataclass(frozen=True, slots=True)
class Side:
    """An operand: where it starts, its rows (M or N), its strides outer, inner, row and k."""

    operand: tuple[Buffer, int]
    rows: int
    strides: Ints

    @property
    def matrix(self) -> Matrix:
        return Matrix(self.rows, *self.strides[2:])


@dataclass(frozen=True, slots=True)
class Finish:
    """An epilogue with its buffers, and the strides of each: outer, inner, m and n."""

    epilogue: Epilogue
    reads: tuple[tuple[Buffer, int], ...]
    writes: tuple[tuple[Buffer, int], ...]
    strides: tuple[Ints, ...]

    def oriented(self, across: int, swap: bool) -> Finish:
        """With the classes of its accesses; `swap`: for a kernel whose rows are the dot's columns.

        Args:
            across: the extent of the vector axis.
        """
        strides = tuple((*row[:2], row[3], row[2]) if swap else row for row in self.strides)
        kinds = ["unit" if across == 1 else inner_class(row) for row in strides]
        epilogue = self.epilogue
        first = len(epilogue.loads)
        loads = tuple(Access(x.dtype, kind) for x, kind in zip(epilogue.loads, kinds))
        stores = tuple(
            (Access(x.dtype, kind), number)
            for (x, number), kind in zip(epilogue.stores, kinds[first:])
        )
        return replace(self, epilogue=Epilogue(loads, epilogue.body, stores), strides=strides)


@dataclass(frozen=True, slots=True)
class Product:
    """A dot without views: two batch axes, M, N, K, both operands and the epilogue."""

    node: Node
    batch: Ints
    k: int
    left: Side
    right: Side
    finish: Finish
    label: str

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def matrices(self) -> int:
        return prod(self.batch)

    @property
    def epilogue_ns(self) -> float:
        """The time that the epilogue adds; a plain store is part of the dot."""
        epilogue = self.finish.epilogue
        loads = (Access(self.dtype, "zero"), *epilogue.loads)  # the result, in a register
        nest = LoopKernel(1, loads, epilogue.body, epilogue.stores[1:])
        return loop_cost(nest, self.node.tensor.size) - LAUNCH_NS


def dot(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """DOT, and the elementwise `members` computed with it; `results` get a buffer.

    Args:
        members: nodes of the dot's shape that follow from it, inputs first, without the dot.
        results: the dot or members; the dot alone when empty.
    """
    if node.tensor.size == 0:
        return
    stored = tuple(results) or (node,)
    if node.inputs[0].shape[node.attr("contract")[0]] == 0:
        _zeros(lowering, node, members, stored)
        return
    product = _product(lowering, node, members, stored)
    if min(product.left.rows, product.right.rows) <= SKINNY:
        _skinny(lowering, product)
    else:
        tiled(lowering, product)


def _zeros(
    lowering: Lowering, node: Node, members: Sequence[Node], results: Sequence[Node]
) -> None:
    """An empty contraction: zeros, and what the members make of them."""
    buffer = lowering.result(node)
    lowering.fill(constant(node.dtype, 0), buffer, lowering.views[node])
    body, loads, number = expression(lowering, members, [node])
    for result in results:
        if result is not node:
            target = lowering.result(result)
            rows = [lowering.views[node], *loads]
            label = lowering.label(result)
            lowering.nest(lowering.views[result], target, rows, body, number[result], label)


# -- operands --------------------------------------------------------------------------------------


def _product(
    lowering: Lowering, node: Node, members: Sequence[Node], results: Sequence[Node]
) -> Product:
    """The operands and the epilogue, with at most two batch axes that all of them cross evenly."""
    sides = [_by_row(lowering, *pair) for pair in zip(node.inputs, node.attr("contract"))]
    body, loads, number = expression(lowering, members, [node])
    views = [*sides, *loads]
    extents, batches = _batch(node, views)
    if len(extents) > 2:  # dense copies of all have one batch axis
        views = [copied(lowering, view) for view in views]
        extents, batches = _batch(node, views)
    operands = [lowering.operand(view) for view in views]
    strides = [(*batch, *view.strides[-2:]) for batch, view in zip(batches, views)]
    dense = (*batches[-1], *dense_strides(node.shape)[-2:])
    finish = Finish(
        Epilogue(
            tuple(Access(view.base.dtype, "") for view in loads),
            body,
            tuple((Access(result.dtype, ""), number[result]) for result in results),
        ),
        tuple(operands[2:]),
        tuple((lowering.result(result), 0) for result in results),
        (*strides[2:], *([dense] * len(results))),
    )
    left, right = (Side(operands[i], views[i].shape[-2], strides[i]) for i in (0, 1))
    label = lowering.label(node, (node, *members))
    return Product(node, extents, sides[0].shape[-1], left, right, finish, label)


def _batch(node: Node, views: Sequence[View]) -> tuple[Ints, list[Ints]]:
    """The batch axes, at least two, and the strides of each view and of a dense result."""
    rows = [view.strides[:-2] for view in views]
    extents, merged = merge_axes(node.shape[:-2], [*rows, dense_strides(node.shape)[:-2]])
    if len(extents) == 1:
        return (1, *extents), [(0, *row) for row in merged]
    return extents, merged


def _by_row(lowering: Lowering, source: Node, contract: int) -> View:
    """A matrix operand as [..., row, k]."""
    view = lowering.view(source)
    lead = range(len(view.shape) - 2)
    order = (*lead, 2 * len(view.shape) - 3 - contract, contract)
    shape = tuple(view.shape[axis] for axis in order)
    return View(view.base, view.offset, shape, tuple(view.strides[axis] for axis in order))


def copied(lowering: Lowering, view: View) -> View:
    """A dense copy of a view."""
    shape = TensorType(view.base.dtype, view.shape)
    stand_in = placeholder(shape)
    buffer = lowering.temporary(shape, f"copy {shape}")
    lowering.buffers[stand_in] = buffer
    lowering.copy(view, buffer, whole(stand_in), view.base)
    return whole(stand_in)


def launch_product(
    lowering: Lowering,
    product: Product,
    kernel: Kernel,
    finish: Finish,
    reads: Sequence[tuple[Buffer, int]],
    params: Ints,
    work: int,
    cost: float,
    sums: Buffer | None = None,
    grain: int = 0,
) -> None:
    """Emit the launch that finishes a product.

    Args:
        sums: the buffer of unfinished sums, if there is one.
        grain: work items that are claimed at once at least.
    """
    every = (*reads, *finish.reads)
    buffers = [buffer for buffer, _ in every]
    out = finish.strides[-1]
    in_step = {
        buffer
        for (buffer, offset), strides in zip(finish.reads, finish.strides)
        if strides == out and offset == 0 and buffers.count(buffer) == 1
    }
    cost += LAUNCH_NS + product.epilogue_ns
    every_stride = tuple(n for row in finish.strides for n in row)
    lowering.emit(
        Launch(
            kernel,
            every,
            (*finish.writes, *([(sums, 0)] if sums else [])),
            (*params, *every_stride),
            work,
            max(grain, grain_of(work, cost)),
            cost,
            product.label,
            in_step=frozenset(in_step),
        )
    )


# -- register tiles --------------------------------------------------------------------------------


def tiled(lowering: Lowering, product: Product) -> None:
    """A product by register tiles, with operands in place or packed."""
    node, k = product.node, product.k
    wide = float32 if node.dtype.is_float and node.dtype.itemsize == 2 else node.dtype
    left, right = product.left, product.right
    choice = choose(lowering.machine, node.dtype, left.matrix, right.matrix, k)
    finish = product.finish.oriented(right.rows, swap=False)
    rows, columns = choice.rows, choice.columns
    operands: list[tuple[Buffer, int]] = []
    places: list[Ints] = []  # outer, inner, tile, row, k, last
    for side, width, packing_ns in (
        (left, rows, choice.pack_left_ns),
        (right, columns, choice.pack_right_ns),
    ):
        if packing_ns:
            buffer, batches = packed(lowering, product, side, width, packing_ns)
            operands.append((buffer, 0))
            places.append((*batches, k, 1, width, _EVERYWHERE))
        else:
            row, step = side.strides[2:]
            operands.append(side.operand)
            places.append((*side.strides[:2], row, row, step, max(side.rows - width, 0)))
    adjacent = choice.pack_left_ns > 0 or left.matrix.adjacent_rows
    part = choice.part
    kernel = TiledDot(
        wide,
        node.dtype,
        rows,
        columns,
        adjacent,
        choice.masked,
        finish.epilogue,
        unfinished=part > 0,
    )
    sizes = (*product.batch, left.rows, right.rows, k, choice.block, *((part,) if part else ()))
    outer, inner, _, _, step, last = places[1]
    params = (*sizes, *places[0], outer, inner, k if choice.pack_right_ns else 1, step, last)
    work = product.matrices * -(-left.rows // rows) * -(-right.rows // columns)
    cost = product.matrices * choice.dot_ns
    sums, grain = None, 0
    if part:
        sums = Buffer("unfinished sums", work * rows * columns * wide.itemsize)
        grain = -(-work // PIECES_OF_PARTS)
    launch_product(lowering, product, kernel, finish, operands, params, work, cost, sums, grain)


def packed(
    lowering: Lowering,
    product: Product,
    side: Side,
    width: int,
    nanoseconds: float,
    lines: tuple[int, int] = (1, 0),
) -> tuple[Buffer, Ints]:
    """Panels of an operand, once for all batches that share it; their batch strides.

    Args:
        lines: extent and stride of an axis of k before the one that the operand states.
    """
    dtype, k = product.dtype, product.k
    batch = tuple(n if stride else 1 for n, stride in zip(product.batch, side.strides))
    panels = -(-side.rows // width)
    inside = lines[0], k // lines[0]
    wide = max(dtype.itemsize, 4) if dtype.is_float else dtype.itemsize
    buffer = Buffer("panels", prod(batch) * panels * width * k * wide)
    work, cost = prod(batch) * panels, LAUNCH_NS + prod(batch) * nanoseconds
    lowering.launch(
        Pack(dtype, width),
        (side.operand,),
        buffer,
        (*batch, side.rows, *inside, *side.strides[:3], lines[1], side.strides[3]),
        work,
        cost,
        product.node,
        suffix=" pack",
    )
    each = panels * width * k
    strides = (each * batch[1], each)
    return buffer, tuple(n if stride else 0 for n, stride in zip(strides, side.strides))


# -- few rows or columns ---------------------------------------------------------------------------


def _skinny(lowering: Lowering, product: Product) -> None:
    """A strip of the long side for each work item; the short side is copied when k is strided."""
    node, k = product.node, product.k
    few, many = product.left, product.right
    swap = few.rows > many.rows
    if swap:
        few, many = many, few
    strip = skinny(lowering.machine, node.dtype, few.rows, many.matrix, k)
    if strip.adjacent == "k":
        few, many = (_adjacent_k(lowering, product, side) for side in (few, many))
    finish = product.finish.oriented(many.rows, swap)
    columns, epilogue = strip.columns, finish.epilogue
    kernel = SkinnyDot(
        node.dtype, node.dtype, few.rows, columns, strip.adjacent, strip.masked, epilogue
    )
    params = (*product.batch, many.rows, k, *few.strides, *many.strides)
    work = product.matrices * -(-many.rows // columns)
    cost = product.matrices * strip.dot_ns
    launch_product(
        lowering, product, kernel, finish, (few.operand, many.operand), params, work, cost
    )


def _adjacent_k(lowering: Lowering, product: Product, side: Side) -> Side:
    """An operand with adjacent k: itself, or a dense copy."""
    if side.strides[3] == 1 or product.k == 1:
        return side
    batch = tuple(n if stride else 1 for n, stride in zip(product.batch, side.strides))
    shape = (*batch, side.rows, product.k)
    dense = dense_strides(shape)
    buffer, offset = side.operand
    size = product.dtype.itemsize
    source = View(constant(product.dtype, 0), offset // size, shape, side.strides)
    target = View(constant(product.dtype, 0), 0, shape, dense)
    copy = Buffer("matrix copy", prod(shape) * size)
    label = lowering.label(product.node) + " copy"
    lowering.nest(target, copy, [(buffer, source)], (), 0, label)
    batches = (n if stride else 0 for n, stride in zip(dense, side.strides[:2]))
    return Side((copy, 0), side.rows, (*batches, product.k, 1))
