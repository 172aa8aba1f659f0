"""Random numbers from a counter-based generator: the same in every mode and thread count.

Each draw takes the generator's key and counter and moves the counter by one; element i of a draw
depends on (key, counter, i) alone. The global generator is a pair of leaves, so a compiled step
carries it as state.
"""

from __future__ import annotations

import math
from typing import Any

from einkorn.convert import as_shape, check_dtype, in_dtype
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float32, float64, uint64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.leaf import Leaf
from einkorn.recording import apply, scalar
from einkorn.tensor import Tensor

Key = tuple[Any, Any]


class Generator:
    """A key and a counter. `seed(n)` starts its stream again."""

    def __init__(self, seed: int = 0) -> None:
        self.key = Leaf(0, "uint64", name="random.key")
        self.draw = Leaf(0, "uint64", name="random.draw")
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the stream that belongs to `seed`, 0 <= seed < 2**64."""
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
            raise EinkornError(f"a seed is an integer from 0 to 2**64 - 1, got {seed!r}")
        self.key.value = _u64(seed)
        self.draw.value = _u64(0)

    def next(self) -> Key:
        """The key and counter of the next draw."""
        pair = self.key, apply(Op.STOP_GRADIENT, self.draw)
        self.draw.value = ew.add(self.draw, 1)
        return pair


def _u64(number: int) -> Tensor:
    return scalar(uint64, number)


_global = Generator()


def seed(n: int) -> None:
    """Start the global generator's stream that belongs to `n`."""
    _global.seed(n)


def default_generator() -> Generator:
    """The global generator."""
    return _global


def key(n: int) -> Key:
    """An explicit key: pass it to a draw, split it, or fold a number in."""
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 64:
        raise EinkornError(f"a key is made from an integer from 0 to 2**64 - 1, got {n!r}")
    return _u64(n), _u64(0)


def split(key: Key, n: int = 2) -> list[Key]:
    """`n` keys whose streams are independent of each other and of `key`'s own draws."""
    bits = apply(Op.RANDOM_BITS, key[0], ew.bitwise_xor(key[1], 1 << 63), shape=(2 * n,))
    wide = ew.astype(bits, uint64)
    halves = [(wide[2 * k], wide[2 * k + 1]) for k in range(n)]
    zero = _u64(0)
    return [(ew.bitwise_or(ew.bitwise_left_shift(a, 32), b), zero) for a, b in halves]


def fold_in(key: Key, number: int) -> Key:
    """A new key from a key and a number, such as a step or a layer index."""
    mixed = ew.bitwise_xor(key[0], number)
    return split((mixed, key[1]), 1)[0]


def bits(shape: Any, key: Key | None = None) -> Tensor:
    """Uniform 32-bit words."""
    listed = _shape(shape)
    word, counter = key if key is not None else _global.next()
    return apply(Op.RANDOM_BITS, word, counter, shape=listed)


def uniform(
    shape: Any = (),
    low: Any = 0.0,
    high: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Uniform numbers in [low, high), from the upper 24 bits of a word (53 bits for float64)."""
    dtype = _float(dtype)
    unit = _unit(_shape(shape), dtype, key)
    if type(low) is float and type(high) is float and (low, high) == (0.0, 1.0):
        return unit
    return ew.add(ew.multiply(unit, ew.subtract(high, low)), low)


def _unit(shape: tuple[int, ...], dtype: Any, key: Key | None) -> Tensor:
    if dtype is float64:
        words = ew.astype(bits((*shape, 2), key), uint64)
        upper = ew.bitwise_left_shift(words[..., 0], 21)
        wide = ew.bitwise_or(upper, ew.bitwise_right_shift(words[..., 1], 11))
        return ew.multiply(ew.astype(wide, float64), 2.0**-53)
    top = ew.bitwise_right_shift(bits(shape, key), 8)
    return ew.astype(ew.multiply(ew.astype(top, float32), 2.0**-24), dtype)


def normal(
    shape: Any = (),
    mean: Any = 0.0,
    std: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Normal numbers by the Box-Muller transform (1958) of two uniform ones."""
    dtype = _float(dtype)
    listed = _shape(shape)
    wide = dtype if dtype is float64 else float32
    pair = _unit((2, *listed), wide, key)
    radius = ew.sqrt(ew.multiply(ew.log1p(ew.negative(pair[0])), -2.0))
    value = ew.multiply(radius, ew.cos(ew.multiply(pair[1], 2 * math.pi)))
    value = ew.add(ew.multiply(value, std), mean)
    return ew.astype(value, dtype)


def bernoulli(p: Any, shape: Any = (), *, key: Key | None = None) -> Tensor:
    """True with probability p, to within 2**-32."""
    limit = ew.astype(ew.multiply(_as_f64(p), 2.0**32), uint64)
    return ew.less(ew.astype(bits(shape, key), uint64), limit)


def _as_f64(p: Any) -> Any:
    """The probability in float64: Python floats already are, tensors are cast."""
    if isinstance(p, (int, float)):
        if not 0 <= p <= 1:
            raise EinkornError(f"a probability is between 0 and 1, got {p}")
        return scalar(float64, p)
    return in_dtype("bernoulli", p, float64)


def randint(
    low: int, high: int, shape: Any = (), *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """Integers in [low, high), by multiplying a word with the span; spans up to 2**32."""
    span = high - low
    if not 0 < span <= 1 << 32:
        raise EinkornError(
            f"randint needs low < high and a span of at most 2**32, got {low} and {high}"
        )
    wide = ew.multiply(ew.astype(bits(shape, key), uint64), span)
    offset = ew.astype(ew.bitwise_right_shift(wide, 32), check_dtype("int64"))
    return ew.astype(ew.add(offset, low), check_dtype(dtype))


def _shape(shape: Any) -> tuple[int, ...]:
    listed = as_shape("random", shape)
    if any(n < 0 for n in listed):
        raise ShapeError(f"a shape has no negative sizes, got {listed}")
    return listed


def _float(dtype: Any) -> Any:
    found = check_dtype(dtype)
    if not found.is_float:
        raise DTypeError(f"a floating-point dtype is needed, got {found}")
    return found
