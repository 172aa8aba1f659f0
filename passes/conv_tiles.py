"""How a convolution is done, by its shape: the tile, the runs of its rows, and the parts of k.

The choice is the least estimated time, as in passes/tiles.py, and can change no bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

from einkorn.ir.dtypes import DType
from einkorn.ir.machine import Machine

_ROWS = (14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)
_VECTORS = (2, 1, 4)
_HEADS = 6  # rows are found from so many pointers: more do not stay in registers
_CYCLE_NS = 0.335
_LATENCY = 4.0  # cycles from one multiply-add to the next one of the same result
_STEP = 0.5  # cycles of each step beside the multiply-adds
_LINE = 8.0  # cycles to start a line of k
_TILE = 80.0  # cycles of each tile beside its steps
_VECTOR = 3.0  # cycles to start and to store each vector of a tile
_MASKED = 0.5  # more for each masked load
_NEAR = 1 << 18  # bytes of both operands that stay near beside everything else
_LEAST_PART = 128  # steps that are worth putting sums down and taking them up again
_STREAM = 20.0  # bytes in a nanosecond that come from afar


@dataclass(frozen=True, slots=True)
class Shape:
    """What the choice depends on.

    Attributes:
        rows, columns: of the result of one batch.
        last: the extent of the last of several row axes; 0 where rows lie evenly.
        lines, steps: k: the axes before the last one, and the last one.
        adjacent: whether the rows of the left operand are adjacent.
        in_place: whether the right operand is read in place.
        diagonal: see TiledDot.
    """

    rows: int
    columns: int
    last: int
    lines: int
    steps: int
    adjacent: bool
    in_place: bool
    diagonal: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A tile, its runs (0: rows lie evenly), whether columns are masked, the time of one batch."""

    rows: int
    columns: int
    run: int
    masked: bool
    dot_ns: float


@lru_cache(maxsize=4096)
def choose_tile(machine: Machine, dtype: DType, shape: Shape) -> Choice:
    """The fastest tile."""
    lanes = machine.lanes * 4 // max(dtype.itemsize, 4)
    registers = machine.registers if dtype.is_float else machine.registers // 2
    found = [
        _estimate(shape, rows, vectors, lanes)
        for vectors in _VECTORS
        for rows in _ROWS
        if rows <= shape.rows
        and (rows + 1) * vectors + 1 <= registers
        and rows <= (14 if registers == 32 else 8)
        and _fits(shape, vectors, lanes)
        and _heads(shape, rows) <= _HEADS
    ]
    return min(found, key=lambda choice: choice.dot_ns)


def _fits(shape: Shape, vectors: int, lanes: int) -> bool:
    """Whether that many vectors can be read in place; one may be masked."""
    if vectors == 1:
        return True
    needed = shape.in_place or shape.diagonal
    return vectors * lanes <= shape.columns or not needed


def _run(shape: Shape, rows: int) -> int:
    return gcd(rows, shape.last)


def _heads(shape: Shape, rows: int) -> int:
    if shape.adjacent:
        return 1
    run = _run(shape, rows) or rows
    return rows // run * ceil(run / 4)


def _estimate(shape: Shape, rows: int, vectors: int, lanes: int) -> Choice:
    columns = vectors * lanes
    tiles = ceil(shape.rows / rows) * ceil(shape.columns / columns)
    masked = (shape.in_place or shape.diagonal) and shape.columns < columns
    loads = (rows * vectors if shape.diagonal else rows) + vectors
    loaded = loads / 2 + masked * _MASKED * (vectors + rows * shape.diagonal)
    step = max(rows * vectors / 2, loaded, _LATENCY) + _STEP + _heads(shape, rows) / 4
    cycles = _TILE + _VECTOR * rows * vectors + shape.lines * (_LINE + shape.steps * step)
    run = _run(shape, rows) if shape.last else 0
    return Choice(rows, columns, run, masked, tiles * cycles * _CYCLE_NS)


def block_of(row_bytes: int, rows: int) -> int:
    """Tiles of rows that go through all columns together: their operand stays near meanwhile."""
    return max(1, _NEAR // max(rows * row_bytes, 1))


def part_of(shape: Shape, line_bytes: int) -> int:
    """Lines between two visits of a tile; 0 when all of them can go at once."""
    if shape.lines * line_bytes <= 2 * _NEAR:
        return 0
    part = max(1, _NEAR // line_bytes, ceil(_LEAST_PART / shape.steps))
    return part if part < shape.lines else 0


def grain_for_parts(work: int, cost: float, nbytes: int) -> int:
    """Tiles that are visited together: every such set reads both operands once, from afar."""
    pieces = max(4, int(cost / 4 * _STREAM / nbytes))
    return ceil(work / pieces)
