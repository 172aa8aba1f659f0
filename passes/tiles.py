"""How a dot is done, by its shape: the one place that chooses tiles and decides what is packed.

The choice is the least estimated time. A tile of r rows and v vectors does r * v multiply-adds for
every k, two in a cycle, and loads r + v operands, two in a cycle; each result waits four cycles for
the one before it. So large tiles are better, until they stand out over the edges of the result.

An operand is packed when it has to be (the columns of the right one are not adjacent, half types)
or when the copy pays: when it is larger than what stays near and every tile of the other side reads
it again, with strides.

Nothing here can change a bit. Figures: one core with AVX-512 at 3 GHz, measured with the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

from einkorn.ir.dtypes import DType
from einkorn.ir.loops import PARTIALS
from einkorn.ir.machine import Machine

# (rows, vectors) of a tile, by the number of vector registers: accumulators, a row of the right
# operand and one element of the left one fill them. With 16 registers LLVM keeps some of twelve
# rows of one vector in memory, which takes 1.5 times as long as (6, 2).
_TILES = {
    32: ((14, 2), (12, 2), (8, 2), (6, 4), (4, 4), (4, 2), (14, 1), (8, 1), (4, 1)),
    16: ((6, 2), (4, 2), (8, 1), (4, 1)),
}
_INTEGER_TILES = ((8, 2), (4, 2), (8, 1), (4, 1))  # their products need registers too
_CYCLE_NS = 0.335
_LATENCY = 4.0  # cycles from one multiply-add to the next one of the same result
_STEP = 0.5  # cycles of each k beside the multiply-adds
_TILE = 60.0  # cycles of each tile beside its steps
_VECTOR = 3.0  # cycles to start and to store each vector of a tile
_REFILL = 0.3  # cycles of each k, by vectors of a row squared: the right side comes from afar
_PACK_NS = (0.02, 0.05, 0.09)  # for each byte written to panels: in first-, second-level cache, far
_SKINNY_FAR_NS = 0.006  # more for each byte of the long side that comes from beyond _SECOND
_FIRST = 1 << 15  # bytes that stay in the first-level cache beside what else is used
_SECOND = 1 << 20  # the same for the second level
_ACROSS = 1 << 18  # the same for a left operand whose rows are adjacent: other lines for each k
_PAGE = 4096  # rows this far apart share one set of the first-level cache
_WAYS = 10  # and more of them than this, beside the right operand, push each other out
_SET_WAYS = 8  # lines in a set where caches are small
_CONFLICT = 0.2  # cycles of each k, for each such row
_BEYOND = 1.5  # how much longer steps take with a strided operand that does not stay there
_SET = 3.0  # cycles of each line of 64 bytes whose set of the first-level cache is overfull
_PART_BYTES = 1 << 15  # of a panel between two visits of a tile
_PART_BLOCK = 16  # tiles of rows in a block, then
PIECES_OF_PARTS = 8  # sets of tiles that are visited together: each reads one side from afar
_BESIDE = 1.18  # the same for the left operand beyond _ACROSS


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a choice depends on of an operand: its rows (M or N) and its strides."""

    rows: int
    row: int
    k: int

    @property
    def adjacent_rows(self) -> bool:
        return self.row == 1 or self.rows == 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A tile and a block as TiledDot (ir/loops.py) has them, and what they cost for one batch.

    Attributes:
        dot_ns: the time of the dot itself.
        pack_left_ns, pack_right_ns: the times of the copies; 0 for an operand in place.
        part: steps of k between two visits of a tile (see "unfinished sums"); 0: all at once.
    """

    rows: int
    columns: int
    masked: bool
    block: int
    dot_ns: float
    pack_left_ns: float
    pack_right_ns: float
    part: int = 0

    @property
    def total_ns(self) -> float:
        return self.dot_ns + self.pack_left_ns + self.pack_right_ns


@dataclass(frozen=True, slots=True)
class Strip:
    """How a SkinnyDot (ir/loops.py) goes along its long side."""

    columns: int
    adjacent: str
    masked: bool
    dot_ns: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """A product of matrices: bytes of an element of the kernel, and elements of a vector.

    Attributes:
        small_cache: the machine has vectors of 8, and caches as they are common beside those.
    """

    left: Matrix
    right: Matrix
    k: int
    size: int
    lanes: int
    small_cache: bool = False

    def fits(self, vectors: int, machine: Machine) -> bool:
        """Whether that many vectors of columns can be read in place; masks need 16 lanes."""
        return vectors * self.lanes <= self.right.rows or (vectors == 1 and machine.lanes == 16)


@lru_cache(maxsize=4096)
def choose(machine: Machine, dtype: DType, left: Matrix, right: Matrix, k: int) -> Choice:
    """The fastest way to do one product of matrices of `dtype` with register tiles."""
    size, half = _wide_size(dtype), dtype.is_float and dtype.itemsize == 2
    small_cache = machine.registers == 16
    problem = _Problem(left, right, k, size, _lanes(machine, size), small_cache)
    lefts = (True,) if half else (False, True)
    rights = (True,) if half or not right.adjacent_rows else (False, True)
    tiles = _TILES[machine.registers] if dtype.is_float else _INTEGER_TILES
    found = (
        _estimate(problem, tile, (pack_left, pack_right))
        for tile in tiles
        for pack_left in lefts
        for pack_right in rights
        if (pack_left or tile[0] <= left.rows) and (pack_right or problem.fits(tile[1], machine))
    )
    return min(found, key=lambda choice: choice.total_ns)


def _estimate(problem: _Problem, tile: tuple[int, int], pack: tuple[bool, bool]) -> Choice:
    rows, vectors = tile
    columns = vectors * problem.lanes
    m, n, line = problem.left.rows, problem.right.rows, problem.k * problem.size
    down, across = ceil(m / rows), ceil(n / columns)
    step = max(rows * vectors / 2, (rows + vectors) / 2, _LATENCY) + _STEP
    part = _part(problem, columns) if all(pack) else 0
    if n * line > _FIRST and not part:
        step += _REFILL * vectors**2
    if not pack[1] and down > 1 and problem.small_cache and _overfull(problem):
        step += _SET * columns * problem.size / 64
    if not pack[1] and n * line > _SECOND and down > 1:
        step *= _BEYOND
    if not pack[0] and problem.left.row == 1 and across > 1:
        step *= _BEYOND if m * line > _SECOND else _BESIDE if m * line > _ACROSS else 1.0
    if not pack[0] and problem.left.row * problem.size % _PAGE == 0 and rows > _WAYS:
        step += _CONFLICT * rows
    cycles = _TILE + _VECTOR * rows * vectors + problem.k * step
    return Choice(
        rows,
        columns,
        not pack[1] and n < columns,
        _PART_BLOCK if part else _block(rows * line, n * line, down),
        down * across * cycles * _CYCLE_NS,
        _packing(down * rows * line) if pack[0] else 0.0,
        _packing(across * columns * line) if pack[1] else 0.0,
        part,
    )


def _part(problem: _Problem, columns: int) -> int:
    """Steps of k between two visits of a tile, for operands of which both are far; 0 for all."""
    part = max(1, _PART_BYTES // (columns * problem.size))
    line = problem.k * problem.size
    far = min(problem.left.rows, problem.right.rows) * line > 4 * _SECOND
    return part if far and part < problem.k else 0


def _overfull(problem: _Problem) -> bool:
    """Whether the rows of the right operand share so few sets that they push each other out."""
    sets = _PAGE // gcd(_PAGE, problem.right.k * problem.size)
    return problem.k > sets * _SET_WAYS


def _packing(nbytes: int) -> float:
    near, middle, far = _PACK_NS
    return 20.0 + nbytes * (near if nbytes <= _FIRST else middle if nbytes <= _SECOND else far)


def _block(row_bytes: int, right_bytes: int, down: int) -> int:
    """Tiles of rows that go through all columns together, so that both sides stay near.

    One while the whole right side stays; else as many as stay beside a tile's columns.
    """
    if right_bytes <= _SECOND:
        return 1
    return max(1, min(down, _SECOND * 3 // 4 // row_bytes))


def skinny(machine: Machine, dtype: DType, few: int, many: Matrix, k: int) -> Strip:
    """Vectors of columns where the rows of the long side are adjacent, else vectors of k.

    A strip has as many vectors as leave strips for other threads; chains are held in half of the
    registers.
    """
    size = _wide_size(dtype)
    lanes = _lanes(machine, size)
    nbytes = many.rows * k * size
    far = nbytes * _SKINNY_FAR_NS if nbytes > _SECOND else 0.0
    if many.row != 1 or (many.k == 1 and many.rows < lanes):
        steps = ceil(k / PARTIALS) * PARTIALS * size / 64
        each = 4.0 + steps * 0.35 + few * (2.0 + steps * 0.15)  # load the row, then for each result
        return Strip(PARTIALS, "k", False, many.rows * each + far)
    most = machine.registers // 2 // few
    wanted = 8 if many.rows >= 32 * lanes else 4
    fitting = [v for v in (1, 2, 4, 8) if v <= min(wanted, most) and v * lanes <= many.rows]
    vectors = max(fitting, default=1)
    columns = vectors * lanes
    each = 30.0 + few * 15.0 + k * (0.4 + few * 0.2)  # join the chains; load, then multiply
    cost = ceil(many.rows / columns) * vectors * each + far
    return Strip(columns, "many", many.rows < columns, cost)


def _wide_size(dtype: DType) -> int:
    """Bytes of an accumulator."""
    return max(dtype.itemsize, 4) if dtype.is_float else dtype.itemsize


def _lanes(machine: Machine, size: int) -> int:
    """Elements in a vector; narrow integers take as many as float32."""
    return machine.lanes * 4 // max(size, 4)
