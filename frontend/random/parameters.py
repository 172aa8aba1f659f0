"""What draws have in common: their shapes, dtypes, parameters and words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.convert import as_tensor, check_dtype, in_dtype, is_known, is_weak
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import as_sizes, common_shape
from einkorn.ir.dtypes import DType, bfloat16, float16, float32, float64, uint64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.random.generator import Key, joined
from einkorn.recording import apply, current_trace
from einkorn.tensor import Tensor

Shape = tuple[int, ...]

MSG_SPREAD = (
    "{what}: {name} {type} does not broadcast to the shape {shape} of the draw; give a shape that "
    "has the axes of the parameters, or leave it out"
)
MSG_RANGE = "{what}: {name} must be {rule}, got {value}"


def shape_of(what: str, shape: Any, words: int = 2) -> Shape:
    """The shape of a draw that takes so many words of 64 bits for each element."""
    return as_sizes(what, (*as_sizes(what, shape, uint64), words), uint64)[:-1]


def float_dtype(what: str, dtype: Any) -> DType:
    """A floating-point dtype."""
    found = check_dtype(dtype)
    if not found.is_float:
        raise DTypeError(f"{what}: a floating-point dtype is needed, got {found}")
    return found


def integer_dtype(what: str, dtype: Any) -> DType:
    """An integer dtype."""
    found = check_dtype(dtype)
    if not found.is_integer:
        raise DTypeError(f"{what}: an integer dtype is needed, got {found}")
    return found


def wide(dtype: DType) -> DType:
    """The dtype in which a draw computes: float32 for half types, which round once at the end."""
    return dtype if dtype is float64 else float32


def own_dtype(what: str, dtype: Any, *parameters: Any) -> DType:
    """The dtype asked for, or that of the parameters; float32 for numbers and integers."""
    if dtype is not None:
        return float_dtype(what, dtype)
    found = float32
    tensors = [as_tensor(x, what) for x in parameters if not is_weak(x)]
    floats = [x.dtype for x in tensors if x.dtype.is_float]
    if floats:
        found = max(floats, key=lambda dtype: dtype.itemsize)
        mixed = {found, *floats} == {float16, bfloat16}
        found = float32 if mixed else found
    return found


class Limits:
    """A range that a parameter must lie in, where its value is known."""

    def __init__(self, rule: str, holds: Callable[[Any], Any]) -> None:
        self.rule, self.holds = rule, holds

    def check(self, what: str, name: str, value: Any) -> None:
        """EinkornError when `value` is known and lies outside."""
        known = value if is_known(value) else None
        if known is None and not is_weak(value) and current_trace.get() is None:
            known = as_tensor(value, what)._array
        if known is None:
            return
        array = np.asarray(known, np.float64)
        if not np.all(self.holds(array)):
            shown = value if is_known(value) else as_tensor(value, what)
            raise EinkornError(
                MSG_RANGE.format(what=what, name=name, rule=self.rule, value=repr(shown))
            )


POSITIVE = Limits("above 0", lambda x: x > 0)
NOT_NEGATIVE = Limits("at least 0", lambda x: x >= 0)
PROBABILITY = Limits("between 0 and 1", lambda x: (x >= 0) & (x <= 1))
CHANCE = Limits("above 0 and at most 1", lambda x: (x > 0) & (x <= 1))
ANY = Limits("a number", lambda x: True)

Parameters = dict[str, tuple[Any, Limits]]


def read(
    what: str, dtype: DType, shape: Any, parameters: Parameters, words: int = 2
) -> tuple[Shape, list[Tensor]]:
    """The shape of a draw, and its parameters in `dtype`.

    Args:
        shape: None for that of the parameters, broadcast.
        parameters: the value and the range of each, by name.
        words: how many words of 64 bits an element takes.
    """
    tensors: list[Tensor] = []
    for name, (value, limits) in parameters.items():
        tensor = in_dtype(what, value, dtype) if is_weak(value) else as_tensor(value, what)
        real = tensor.dtype.is_float or tensor.dtype.is_integer
        if not real or isinstance(value, bool):
            raise DTypeError(f"{what}: {name} is a number, got {value!r}")
        limits.check(what, name, value)
        tensors.append(ew.cast(tensor, dtype))
    if shape is None:
        return shape_of(what, common_shape(what, *tensors), words), tensors
    sizes = shape_of(what, shape, words)
    for name, tensor in zip(parameters, tensors):
        check_spreads(what, name, tensor, sizes)
    return sizes, tensors


def check_spreads(what: str, name: str, tensor: Tensor, sizes: Shape) -> None:
    """ShapeError when a parameter does not broadcast to the shape of the draw."""
    tail = sizes[len(sizes) - tensor.ndim :]
    fits = tensor.ndim <= len(sizes) and all(a in (1, b) for a, b in zip(tensor.shape, tail))
    if not fits:
        raise ShapeError(MSG_SPREAD.format(what=what, name=name, type=tensor._type, shape=sizes))


# -- words -----------------------------------------------------------------------------------------

_DIGITS = {float16: 11, bfloat16: 8, float32: 24, float64: 53}


def lanes(pair: Key, sizes: Shape, count: int, dtype: DType) -> list[Tensor]:
    """`count` random words for each element: of 64 bits for float64, else of 32.

    Those of element i stand side by side, so they depend on i alone, not on the shape.
    """
    if dtype is float64:
        words = joined(apply(Op.RANDOM_BITS, *pair, shape=(*sizes, count, 2)))
    elif count == 1:
        return [apply(Op.RANDOM_BITS, *pair, shape=sizes)]
    else:
        words = apply(Op.RANDOM_BITS, *pair, shape=(*sizes, count))
    return [words[..., k] for k in range(count)]


def unit(lane: Tensor, dtype: DType) -> Tensor:
    """Multiples of the spacing below 1, in [0, 1), by the upper bits of a word."""
    digits = _DIGITS[dtype]
    top = ew.bitwise_right_shift(lane, lane.dtype.bits - digits)
    compute = wide(dtype)
    return ew.cast(ew.multiply(ew.cast(top, compute), 2.0**-digits), dtype)


def halves(lane: Tensor, dtype: DType) -> tuple[Tensor, Tensor]:
    """A number in (0, 1/2], and whether it counts from 1 downwards, by all bits of a word.

    Both ends of the unit interval are so resolved to 2**-33, in float64 to 2**-65.
    """
    bits = lane.dtype.bits
    upper = ew.greater_equal(lane, 1 << (bits - 1))
    number = ew.where(upper, ew.bitwise_invert(lane), lane)
    return ew.multiply(ew.add(ew.cast(number, dtype), 0.5), 2.0**-bits), upper


def exponential_of(lane: Tensor, dtype: DType) -> Tensor:
    """An exponential number, positive and finite, by all bits of a word."""
    u, upper = halves(lane, dtype)
    return ew.negative(ew.where(upper, ew.log(u), ew.log1p(ew.negative(u))))


def normal_of(radius: Tensor, angle: Tensor, dtype: DType) -> Tensor:
    """A normal number by the Box-Muller transform (1958) of two words."""
    logs = ew.log1p(ew.negative(unit(radius, dtype)))
    length = ew.sqrt(ew.multiply(logs, -2.0))
    return ew.multiply(length, ew.cos(ew.multiply(unit(angle, dtype), 2 * np.pi)))
