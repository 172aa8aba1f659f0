"""What one launch of a kernel does: floating-point operations and bytes, from its parameters.

One function per kernel class, in one table. An operation is one arithmetic op, comparison or
selection on one element, whatever its dtype and however long it takes; constants, indices, casts
and random bits count none, and a fused multiply-add counts two. Bytes are those of every element
that is read or written, each counted once: what has to move when caches lose nothing in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from einkorn.ir.dtypes import DType, float32, int64
from einkorn.ir.host import host_function
from einkorn.ir.loops import (
    COLUMN_BLOCK,
    ROW_BLOCK,
    Access,
    ArgReduce,
    ArgSort,
    Batched,
    Branch,
    Check,
    Epilogue,
    Gather,
    HostCall,
    Kernel,
    LoopKernel,
    Over,
    Pack,
    RandomBits,
    Scan,
    ScanLoop,
    Scatter,
    Sequence,
    SkinnyDot,
    TiledDot,
    levels,
)
from einkorn.ir.ops import Op
from einkorn.ir.program import NESTED_WORDS, Instruction
from einkorn.ir.windows import WindowPick, WindowPlace, WindowSum

Ints = tuple[int, ...]

COMPLEX_FLOPS = 6.0  # of an op on one complex element
FREE = frozenset({Op.CONST, Op.IOTA, Op.CAST})


@dataclass(frozen=True, slots=True)
class Work:
    """The operations of a launch, and the bytes that it reads and writes."""

    flops: int
    read: int
    written: int

    @property
    def bytes(self) -> int:
        return self.read + self.written


def work_of(kernel: Kernel | None, params: Ints) -> Work:
    """What a launch with these parameters does; nothing for a commit point."""
    rule = WORK.get(type(kernel))
    return rule(kernel, params) if rule else Work(0, 0, 0)


def _distinct(extents: Ints, strides: Ints) -> int:
    """How many elements an access touches: axes of stride 0 read the same ones again."""
    return prod(n for n, stride in zip(extents, strides) if stride)


def _loops(kernel: LoopKernel, params: Ints) -> Work:
    rank, count = kernel.rank, len(kernel.loads)
    extents = params[:rank]
    rows = [params[k : k + rank] for k in range(rank, len(params), rank)]
    flops = 0
    for step, level in zip(kernel.body, levels(kernel)[count:]):
        along = level.varies or step.over is not None
        flops += (step.op not in FREE) * prod(extents if along else extents[:-1])
    read = sum(
        access.dtype.itemsize * _distinct(extents, row) for access, row in zip(kernel.loads, rows)
    )
    written = sum(
        access.dtype.itemsize * _results(kernel, extents, access, number)
        for access, number in kernel.stores
    )
    return Work(flops, read, written)


def _results(kernel: LoopKernel, extents: Ints, access: Access, number: int) -> int:
    """How many elements a store of a loop nest writes."""
    over = kernel.over(number)
    if over is Over.WHOLE:
        return -(-prod(extents) // ROW_BLOCK)
    if over is Over.COLUMN:
        outer = prod(extents[:-2]) if kernel.reduction == "columns" else 1
        rows = extents[-2] if kernel.reduction == "columns" else prod(extents[:-1])
        return outer * -(-rows // COLUMN_BLOCK) * extents[-1]
    return prod(extents[:-1] if access.inner == "zero" else extents)


def _batched(kernel: Batched, params: Ints) -> Work:
    count, each = params[0], 1 + len(kernel.kernel.loads) + len(kernel.kernel.stores)
    rows = params[count + 2 :]
    return _total(_loops(kernel.kernel, rows[k * each : (k + 1) * each]) for k in range(count))


def _sequence(kernel: Sequence, params: Ints) -> Work:
    outer, _, inner = params
    size = kernel.dtype.itemsize
    return Work(prod(params), size * prod(params), size * outer * inner)


def _check(kernel: Check, params: Ints) -> Work:
    return Work(0, 1, 1)


def _random_bits(kernel: RandomBits, params: Ints) -> Work:
    (n,) = params
    return Work(0, 16, 4 * n)


def _scan(kernel: Scan, params: Ints) -> Work:
    nbytes = kernel.dtype.itemsize * prod(params)
    return Work(prod(params), nbytes, nbytes)


def _arg_reduce(kernel: ArgReduce, params: Ints) -> Work:
    outer, n, inner = params
    elements = outer * n * inner
    return Work(elements, kernel.dtype.itemsize * elements, int64.itemsize * outer * inner)


def _arg_sort(kernel: ArgSort, params: Ints) -> Work:
    """Passes of comparisons over keys and places that stay in working space."""
    rows, n, passes = params
    return Work(rows * n * passes, kernel.dtype.itemsize * rows * n, int64.itemsize * rows * n)


def _gather(kernel: Gather, params: Ints) -> Work:
    outer, _, count, inner = params
    moved = kernel.itemsize * outer * count * inner
    return Work(0, moved + kernel.index.itemsize * count, moved)


def _scatter(kernel: Scatter, params: Ints) -> Work:
    outer, _, count, inner = params
    elements = outer * count * inner
    adds = kernel.op is Op.SCATTER_ADD
    moved = kernel.dtype.itemsize * elements
    return Work(elements * adds, moved * (1 + adds) + kernel.index.itemsize * count, moved)


def _windows(kernel: WindowPick | WindowSum | WindowPlace, params: Ints) -> Work:
    """A comparison or an add for each tap of each window; placing compares, then adds."""
    rank, examples = len(kernel.window), params[-1]
    axes = params[: 4 * rank]
    outside, inside = (examples * prod(axes[k::4]) * params[4 * rank] for k in (0, 1))
    places = isinstance(kernel, WindowPlace)
    flops = inside * prod(kernel.window) * (2 if places else 1)
    if isinstance(kernel, WindowSum):
        flops //= prod(kernel.base)
    size = kernel.dtype.itemsize
    twice = isinstance(kernel, WindowPick) and not kernel.same
    read = outside * (2 if twice else 1) + (inside if places else 0)
    return Work(flops, size * read, size * (outside if places else inside))


def _pack(kernel: Pack, params: Ints) -> Work:
    *extents, lines, k = params[:5]
    batch, rows = prod(extents[:2]), extents[2]
    read = kernel.dtype.itemsize * _distinct(params[:5], params[5:10])
    return Work(0, read, _wide(kernel.dtype) * batch * _padded(rows, kernel.width) * lines * k)


def _tiled_dot(kernel: TiledDot, params: Ints) -> Work:
    """An operand whose rows and steps overlap, as windows do, counts as if they did not."""
    depth, axes = kernel.depth, kernel.row_axes
    outer, inner, m, n = params[:4]
    k = prod(params[4 : 4 + depth])
    left = 5 + depth + (2 if kernel.run else 0) + kernel.unfinished
    right = left + 2 + max(axes, 2) + depth + 1
    epilogue = right + 4 + depth
    if kernel.run:
        around = params[5 + depth : 7 + depth]
        rows = (m // prod(around), *around)
    else:
        rows = (_padded(m, kernel.rows) if params[left + 2] == k else m,)
    columns = _padded(n, kernel.columns) if params[right + 2] == k else n
    read = _distinct((outer, inner, *rows), params[left : left + 2 + axes])
    read += _distinct((outer, inner, columns), params[right : right + 3])
    dot = Work(2 * outer * inner * m * n * k, read * k * kernel.dtype.itemsize, 0)
    extents = (outer, inner, *(rows if kernel.run else (m,)), n)
    return _finished(kernel.epilogue, dot, extents, params[epilogue:])


def _skinny_dot(kernel: SkinnyDot, params: Ints) -> Work:
    outer, inner, many, k = params[:4]
    few = _distinct((outer, inner, kernel.rows, k), params[4:8])
    others = _distinct((outer, inner, many, k), params[8:12])
    flops = 2 * outer * inner * kernel.rows * many * k
    dot = Work(flops, kernel.dtype.itemsize * (few + others), 0)
    return _finished(kernel.epilogue, dot, (outer, inner, kernel.rows, many), params[12:])


def _finished(epilogue: Epilogue, dot: Work, extents: Ints, strides: Ints) -> Work:
    """The dot, and what its epilogue computes, reads and writes."""
    steps = sum(step.op not in FREE for step in epilogue.body)
    axes = len(extents)
    rows = [strides[k : k + axes] for k in range(0, len(strides), axes)]
    read = sum(
        access.dtype.itemsize * _distinct(extents, row) for access, row in zip(epilogue.loads, rows)
    )
    written = sum(access.dtype.itemsize * prod(extents) for access, _ in epilogue.stores)
    return Work(dot.flops + steps * prod(extents), dot.read + read, written)


def _host_call(kernel: HostCall, params: Ints) -> Work:
    """What a function on the host does by its own estimate, and its operands and results."""
    read, written = (sum(x.nbytes for x in types) for types in (kernel.operands, kernel.results))
    return Work(round(host_flops(kernel)), read, written)


def host_flops(kernel: HostCall) -> float:
    """About how many floating-point operations a call of the host does."""
    attrs: dict[str, Any] = dict(kernel.attrs)
    if kernel.op is Op.HOST:
        return host_function(attrs["function"]).flops(*kernel.operands)
    inner = 1
    if kernel.op is Op.DOT:
        axis: int = attrs["contract"][0]
        inner = kernel.operands[0].shape[axis]
    largest = max(x.size for x in (*kernel.operands, *kernel.results))
    return COMPLEX_FLOPS * largest * inner


def _padded(rows: int, width: int) -> int:
    """Rows in whole panels."""
    return -(-rows // width) * width


def _wide(dtype: DType) -> int:
    """Bytes of a packed element: half types are widened."""
    return float32.itemsize if dtype.is_float and dtype.itemsize == 2 else dtype.itemsize


def instruction_work(row: Instruction) -> Work:
    """What an instruction does: that of a scan all its steps, that of a while loop one step.

    That of a branch as much as the branch that does the most.
    """
    if not row.inner:
        return work_of(row.kernel, row.params)
    inner = [_total([instruction_work(x) for x in part.instructions]) for part in row.inner]
    if isinstance(row.kernel, Branch):
        return max(inner, key=lambda work: (work.flops, work.bytes))
    steps = row.params[1 + NESTED_WORDS] if isinstance(row.kernel, ScanLoop) else 1
    found = _total(inner)
    return Work(steps * found.flops, steps * found.read, steps * found.written)


def _total(parts: Iterable[Work]) -> Work:
    rows = [(work.flops, work.read, work.written) for work in parts]
    return Work(*(sum(column) for column in zip((0, 0, 0), *rows)))


WORK: dict[type, Callable[[Any, Ints], Work]] = {
    LoopKernel: _loops,
    Batched: _batched,
    Check: _check,
    RandomBits: _random_bits,
    Scan: _scan,
    ArgReduce: _arg_reduce,
    ArgSort: _arg_sort,
    Gather: _gather,
    Scatter: _scatter,
    Sequence: _sequence,
    Pack: _pack,
    TiledDot: _tiled_dot,
    SkinnyDot: _skinny_dot,
    WindowPick: _windows,
    WindowPlace: _windows,
    WindowSum: _windows,
    HostCall: _host_call,
}
