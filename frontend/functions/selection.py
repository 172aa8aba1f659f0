"""What an index chooses of a tensor: integers, slices, new axes, arrays and masks, resolved.

The rules are NumPy's. In particular the axes that arrays give stand where the arrays stood, or
first when something else stood between them; an integer beside an array counts as an array.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from einkorn.convert import shown, to_array
from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import BoundsError, DTypeError, ShapeError, TraceError
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.recording import Value, current_trace

Shape = tuple[int, ...]
Index = Any  # an index array: a Tensor, or a NumPy array of integers

MSG_KIND = (
    "index: {item!r} is not an index; use integers, slices, None, ..., integer arrays or lists, "
    "or a boolean mask"
)
MSG_MASK = (
    "index: a boolean mask decides how many elements the result has, which must be known while "
    "{trace} is traced; use ek.where(mask, x, other) to keep the shape, or x.at[mask].set(value)"
)


class _Slot(Enum):
    """What one entry of an index does to the result's axes."""

    NEW = auto()
    KEPT = auto()
    INTEGER = auto()
    ARRAY = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Selection:
    """An index resolved for one shape.

    Attributes:
        starts, stops, steps: what is cut of each axis; steps are positive, and axes that arrays
            index are whole.
        flips: the axes whose elements come in reverse order.
        kept: the axes of x that the result keeps because a slice chose them.
        arrays: the index arrays and their axes.
        place: how many kept axes stand before the axes that the arrays give.
        layout: the entries in order, for the shape of the result.
        together: whether those axes stand where the arrays stood, and not first.
    """

    starts: Shape
    stops: Shape
    steps: Shape
    flips: Shape
    kept: Shape
    arrays: tuple[tuple[int, Index], ...]
    place: int
    layout: tuple[_Slot, ...]
    together: bool

    @property
    def sizes(self) -> Shape:
        """The sizes of the cut, every axis still there."""
        rows = zip(self.starts, self.stops, self.steps)
        return tuple(-(-(stop - start) // step) for start, stop, step in rows)

    def cuts(self, shape: Shape) -> bool:
        """Whether anything of the shape is left out."""
        return self.sizes != shape

    def is_one_axis(self, shape: Shape) -> bool:
        """Whether a single array indexes one axis and everything else stays as it is."""
        others = [slot for slot in self.layout if slot not in (_Slot.KEPT, _Slot.NOTHING)]
        return others == [_Slot.ARRAY] and not self.cuts(shape) and not self.flips

    def shape_with(self, given: Shape) -> Shape:
        """The shape of the result when the arrays broadcast to the shape `given`."""
        sizes = self.sizes
        kept = iter(self.kept)
        shape = [] if self.together else list(given)
        waiting = self.together
        for slot in self.layout:
            if slot is _Slot.NEW:
                shape.append(1)
            elif slot is _Slot.KEPT:
                shape.append(sizes[next(kept)])
            elif slot is not _Slot.NOTHING and waiting:
                shape.extend(given)
                waiting = False
        return tuple(shape)


def resolve(type: TensorType, index: Any) -> Selection:
    """The selection that `index` makes of a tensor of the given type."""
    cuts: list[tuple[int, int, int]] = []
    flips: list[int] = []
    kept: list[int] = []
    arrays: list[tuple[int, Index]] = []
    layout: list[_Slot] = []
    for entry in _expanded(type, index):
        axis = len(cuts)
        if entry is None or entry is Ellipsis:
            layout.append(_Slot.NEW if entry is None else _Slot.NOTHING)
        elif isinstance(entry, slice):
            start, stop, step = _bounds(entry, type.shape[axis])
            cuts.append((start, stop, abs(step)))
            kept.append(axis)
            if step < 0:
                flips.append(axis)
            layout.append(_Slot.KEPT)
        elif isinstance(entry, int):
            place = _integer(type, axis, entry)
            cuts.append((place, place + 1, 1))
            layout.append(_Slot.INTEGER)
        else:
            named = list(enumerate(_positions(type, axis, entry), axis))
            cuts.extend((0, type.shape[k], 1) for k, _ in named)
            arrays.extend(named)
            layout.extend(_Slot.ARRAY for _ in named)
    starts, stops, steps = zip(*cuts) if cuts else ((), (), ())
    first, together = _arrangement(layout)
    return Selection(
        starts,
        stops,
        steps,
        tuple(flips),
        tuple(kept),
        tuple(arrays),
        layout[:first].count(_Slot.KEPT) if together else 0,
        tuple(layout),
        together,
    )


def _arrangement(layout: Sequence[_Slot]) -> tuple[int, bool]:
    """Where the first integer or array stands, and whether all of them stand together."""
    places = [k for k, slot in enumerate(layout) if slot in (_Slot.INTEGER, _Slot.ARRAY)]
    if not places:
        return 0, True
    return places[0], places[-1] - places[0] == len(places) - 1


def _expanded(type: TensorType, index: Any) -> list[Any]:
    """The entries of an index, with slices for what it leaves out.

    An ellipsis that stands for no axis stays, because it still separates arrays.
    """
    entries = [_entry(item) for item in (index if isinstance(index, tuple) else (index,))]
    gaps = [k for k, entry in enumerate(entries) if entry is Ellipsis]
    used = sum(_width(entry) for entry in entries)
    if len(gaps) > 1:
        raise BoundsError("index: an index can only have one ellipsis ('...')")
    if used > type.rank:
        raise BoundsError(
            f"index: {used} indices for {type}, which has {type.rank} axes; give at most that many"
        )
    missing: list[Any] = [slice(None)] * (type.rank - used)
    if not gaps:
        return entries + missing
    return entries[: gaps[0]] + (missing or [Ellipsis]) + entries[gaps[0] + 1 :]


def _width(entry: Any) -> int:
    """The number of axes that an entry indexes."""
    if entry is None or entry is Ellipsis:
        return 0
    is_mask = isinstance(entry, np.ndarray) and entry.dtype == bool
    return entry.ndim if is_mask else 1


def _entry(item: Any) -> Any:
    """None, ..., a slice, an int, a Tensor of integers, or a NumPy array of integers or bool."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, Size):
        return item
    if isinstance(item, Value):
        return _tensor_entry(item)
    if isinstance(item, (list, tuple, range, np.ndarray)):
        return _array_entry(item)
    if not isinstance(item, bool):
        try:
            return operator.index(item)
        except TypeError:
            pass
    raise DTypeError(MSG_KIND.format(item=item))


def _tensor_entry(item: Value) -> Any:
    type = item._type
    if type.dtype.is_integer:
        return item
    if type.dtype is not bool_ or type.rank == 0:
        raise DTypeError(
            f"index: a tensor as an index holds integers or is a mask, got {type}; cast it with "
            ".astype('int64'), or compare it to make a mask"
        )
    trace = current_trace.get()
    if trace is not None:
        raise TraceError(MSG_MASK.format(trace=trace.name))
    return item._eager()


def _array_entry(item: Any) -> Any:
    if not isinstance(item, np.ndarray):
        # An empty list would become floats.
        item = np.asarray(item, np.int64) if len(item) == 0 or isinstance(item, range) else item
    array = to_array(item, what="index")
    if array.dtype.kind not in "iub" or (array.ndim == 0 and array.dtype == bool):
        raise DTypeError(
            f"index: an array as an index holds integers or is a mask, got {array.dtype} of shape "
            f"{array.shape}; convert it with .astype('int64'), or compare it to make a mask"
        )
    return int(array) if array.ndim == 0 else array


def _positions(type: TensorType, axis: int, entry: Any) -> Sequence[Index]:
    """The index arrays of an entry: itself, or the positions where a mask holds."""
    if isinstance(entry, Value) or entry.dtype != bool:
        return (entry,)
    if entry.shape != type.shape[axis : axis + entry.ndim]:
        raise BoundsError(
            f"index: a mask of shape {entry.shape} must have the sizes of the axes of {type} that "
            f"it indexes, {type.shape[axis : axis + entry.ndim]}"
        )
    return np.nonzero(entry)


def _integer(type: TensorType, axis: int, place: int) -> int:
    size = type.shape[axis]
    if not -size <= place < size:
        raise BoundsError(
            f"index: {shown(place)} is out of range for axis {axis} of {type}, which has {size} "
            "elements"
        )
    return place + size if place < 0 else place


def _bounds(item: slice, size: int) -> tuple[int, int, int]:
    """The first and last bound with 0 <= start <= stop <= size, and the signed step."""
    if any(isinstance(x, Size) for x in (size, item.start, item.stop, item.step)):
        return _sized_bounds(item, size)
    try:
        places = range(size)[item]
    except TypeError:
        raise DTypeError(f"index: {item} must be made of integers or None") from None
    except ValueError:
        raise ShapeError(f"index: the step of {item} must not be 0") from None
    if not len(places):
        return 0, 0, places.step
    low, high = min(places[0], places[-1]), max(places[0], places[-1])
    return low, high + 1, places.step


def _sized_bounds(item: slice, size: int) -> tuple[int, int, int]:
    """The same where a size is known when the step runs: decided for all of its values."""
    step = 1 if item.step is None else operator.index(item.step)
    if step < 0 and (item.start is not None or item.stop is not None):
        raise size.unknown(f"a slice with step {step}")  # type: ignore[attr-defined]
    start = 0 if item.start is None else _clamped(item.start, size)
    stop = size if item.stop is None else _clamped(item.stop, size)
    return (start, stop, step) if start < stop else (0, 0, step)


def _clamped(place: Any, size: int) -> int:
    """A bound of a slice, counted from the start and inside of the axis."""
    place = place if isinstance(place, Size) else operator.index(place)
    place = place + size if place < 0 else place
    if place < 0:
        return 0
    return place if place < size else size
