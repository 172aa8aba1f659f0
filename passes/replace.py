"""Which result of a launch may be written over which operand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from einkorn.ir.loops import Access, Batched, LoopKernel, SkinnyDot, TiledDot
from einkorn.passes.launches import Buffer, Launch

_DOT_AXES = 4  # outer batch, inner batch, and the two of the result

# Which part of the launch, bytes of the buffer, byte offset, bytes of an element, strides.
Touch = tuple[int, int, int, int, tuple[int, ...]]


def touches(launch: Launch) -> dict[Buffer, Touch]:
    """How a launch touches its results, and the operands that they may replace.

    A result may be written over an operand that is touched alike: then each element of it is
    written exactly where the operand is read for it, and nowhere else.
    """
    operands = (*launch.reads, *launch.writes)
    times = Counter(buffer for buffer, _ in operands)
    found: dict[Buffer, Touch] = {}
    for number, part, access, strides in _accesses(launch):
        buffer, offset = operands[number]
        if times[buffer] == 1 and (buffer in launch.in_step or number >= len(launch.reads)):
            found[buffer] = part, buffer.nbytes, offset, access.dtype.itemsize, strides
    return found


def _accesses(launch: Launch) -> Iterable[tuple[int, int, Access, tuple[int, ...]]]:
    """Of operands that are touched element by element: number, part, access and strides."""
    kernel, params = launch.kernel, launch.params
    first = len(launch.reads)
    if isinstance(kernel, LoopKernel):
        yield from _rows(kernel.loads, kernel.stores, kernel.rank, params, (0, first))
    elif isinstance(kernel, TiledDot | SkinnyDot):
        loads, stores = kernel.epilogue.loads, kernel.epilogue.stores
        axes = 3 + kernel.row_axes if isinstance(kernel, TiledDot) else _DOT_AXES
        yield from _rows(loads, stores, axes, params, (first - len(loads), first))
    elif isinstance(kernel, Batched):
        loads, stores = kernel.kernel.loads, kernel.kernel.stores
        length = 1 + len(loads) + len(stores)
        for part in range(params[0]):
            end = 2 + params[0] + (part + 1) * length
            places = part * len(loads), first + part * len(stores)
            for number, _, access, strides in _rows(loads, stores, 1, params[:end], places):
                yield number, part, access, strides


def _rows(
    loads: Sequence[Access],
    stores: Sequence[tuple[Access, int]],
    rank: int,
    params: tuple[int, ...],
    places: tuple[int, int],
) -> Iterable[tuple[int, int, Access, tuple[int, ...]]]:
    """The accesses of one kernel, whose strides are the last of its parameters."""
    accesses = (*loads, *(access for access, _ in stores))
    at = len(params) - rank * len(accesses)
    for k, access in enumerate(accesses):
        number = places[0] + k if k < len(loads) else places[1] + k - len(loads)
        yield number, 0, access, params[at + k * rank : at + (k + 1) * rank]
