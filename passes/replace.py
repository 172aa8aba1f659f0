"""Which result of a launch may be written over which operand."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.loops import Access, LoopKernel, SkinnyDot, TiledDot
from einkorn.passes.launches import Buffer, Launch

_DOT_AXES = 4  # outer batch, inner batch, and the two of the result

Touch = tuple[int, int, tuple[int, ...]]  # byte offset, bytes of an element, strides


def may_replace(launch: Launch, operand: Buffer, result: Buffer) -> bool:
    """Whether each element of `result` is written exactly where `operand` is read for it, once."""
    if operand not in launch.in_step or operand.nbytes != result.nbytes:
        return False
    touches = _touches(launch)
    buffers = [buffer for buffer, _ in (*launch.reads, *launch.writes)]
    first = len(buffers) - len(touches)
    of_operand = [touch for buffer, touch in zip(buffers[first:], touches) if buffer is operand]
    of_result = [touch for buffer, touch in zip(buffers[first:], touches) if buffer is result]
    alone = buffers.count(operand) == 1 and buffers.count(result) == 1
    return alone and bool(of_operand) and of_operand == of_result


def _touches(launch: Launch) -> Sequence[Touch]:
    """How a launch reads and writes its last operands, in the order of the kernel."""
    kernel = launch.kernel
    if isinstance(kernel, LoopKernel):
        stores = [access for access, _ in kernel.stores]
        return _rows(launch, (*kernel.loads, *stores), kernel.rank)
    if isinstance(kernel, TiledDot | SkinnyDot):
        stores = [access for access, _ in kernel.epilogue.stores]
        return _rows(launch, (*kernel.epilogue.loads, *stores), _DOT_AXES)
    return ()


def _rows(launch: Launch, accesses: Sequence[Access], rank: int) -> Sequence[Touch]:
    """The accesses with their strides, which are the last of the parameters."""
    count = len(accesses)
    strides = launch.params[len(launch.params) - count * rank :]
    offsets = [offset for _, offset in (*launch.reads, *launch.writes)][-count:]
    return [
        (offset, access.dtype.itemsize, strides[k * rank : (k + 1) * rank])
        for k, (offset, access) in enumerate(zip(offsets, accesses))
    ]
