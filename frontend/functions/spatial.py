"""What pooling and interpolation share: spatial axes, and options that have one entry for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from einkorn.convert import as_choice, as_int, as_tensor
from einkorn.functions.manipulation import moveaxis
from einkorn.ir.errors import ShapeError
from einkorn.ir.windows import MAX_SPATIAL, reach

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

LAST = ("NWC", "NHWC", "NDHWC")
FIRST = ("NCW", "NCHW", "NCDHW")
MSG_RANK = (
    "{what}: needs examples, 1 to {most} spatial axes and channels, {order}, got {got}; add an "
    "axis with x[None]"
)


def channels_last(what: str, x: Any, data_format: Any) -> Tensor:
    """`x` as [N, s..., C]; ShapeError unless it has one to three spatial axes."""
    as_choice(what, "data_format", data_format, (*LAST, *FIRST))
    tensor = as_tensor(x, what)
    if not 3 <= tensor.ndim <= 2 + MAX_SPATIAL:
        order = "[N, s..., C]" if data_format in LAST else "[N, C, s...]"
        raise ShapeError(
            MSG_RANK.format(what=what, most=MAX_SPATIAL, order=order, got=tensor._type)
        )
    return tensor if data_format in LAST else moveaxis(tensor, 1, -1)


def in_format(x: Tensor, data_format: str) -> Tensor:
    """[N, s..., C] in the order that the caller uses."""
    return x if data_format in LAST else moveaxis(x, -1, 1)


def per_axis(what: str, name: str, given: Any, count: int, least: int = 1) -> Ints:
    """One integer for each spatial axis, from one for all or a sequence."""
    listed = isinstance(given, (tuple, list))
    numbers = tuple(given) if listed else (given,) * count
    rule = f"{name} is an integer, or one for each spatial axis"
    found = tuple(as_int(what, n, rule) for n in numbers)
    if len(found) != count or any(n < least or n.bit_length() > 31 for n in found):
        raise ShapeError(
            f"{what}: {name} needs an integer from {least} to 2**31 for each of the {count} "
            f"spatial axes, or one for all, got {given!r}"
        )
    return found


def as_padding(
    what: str, padding: Any, sizes: Ints, window: Ints, strides: Ints, dilation: Ints
) -> Pairs:
    """(before, after) for each spatial axis, from "valid", "same", an integer, or one a side.

    "same" gives ceil(size / stride) windows, with the odd element of padding behind.
    """
    count = len(sizes)
    name = padding.lower() if isinstance(padding, str) else None
    if name == "valid":
        return ((0, 0),) * count
    if name == "same":
        rows = zip(sizes, window, strides, dilation)
        total = [max((max(-(-n // s), 1) - 1) * s + reach(w, d) - n, 0) for n, w, s, d in rows]
        return tuple((n // 2, n - n // 2) for n in total)
    if name is not None:
        raise ShapeError(f"{what}: padding is 'valid', 'same' or integers, got {padding!r}")
    return _pairs(what, padding, count)


def _pairs(what: str, padding: Any, count: int) -> Pairs:
    nested = isinstance(padding, (tuple, list)) and any(
        isinstance(item, (tuple, list)) for item in padding
    )
    if not nested:
        return tuple((n, n) for n in per_axis(what, "padding", padding, count, least=0))
    items: Sequence[Any] = padding
    if len(items) != count or any(
        not isinstance(item, (tuple, list)) or len(item) != 2 for item in items
    ):
        raise ShapeError(
            f"{what}: padding needs (before, after) for each of the {count} spatial axes, got "
            f"{padding!r}"
        )
    before, after = (
        per_axis(what, "padding", tuple(item[k] for item in items), count, least=0) for k in (0, 1)
    )
    return tuple(zip(before, after))
