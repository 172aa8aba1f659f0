"""Random numbers from a counter-based generator: the same in every mode and thread count.

Each draw takes the generator's key and counter and moves the counter by one; element i of a draw
depends on (key, counter, i) alone. The global generator is a pair of leaves, so a compiled step
carries it as state.
"""

from __future__ import annotations

import math
from collections.abc import Generator as Yields
from contextlib import contextmanager
from typing import Any

import numpy as np

from einkorn.convert import as_int, as_tensor, check_dtype, in_dtype, is_weak, shown
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import as_sizes
from einkorn.ir.dtypes import bfloat16, float16, float32, float64, int64, uint64
from einkorn.ir.errors import DTypeError, EinkornError
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.leaf import Counter, Leaf
from einkorn.recording import Value, apply, current_trace, scalar
from einkorn.runtime.locks import LOCKS
from einkorn.tensor import Tensor

Key = tuple[Any, Any]

MSG_KEY = (
    "{what}: a key is made by ek.random.key(n), ek.random.split or ek.random.fold_in, got {key!r}"
)
WORD = 1 << 64


class Generator:
    """A key and a counter. `seed(n)` starts its stream again."""

    def __init__(self, seed: int = 0) -> None:
        self.key = Leaf(0, "uint64", name="random.key")
        self.draw = Counter(0, "uint64", name="random.draw")
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the stream that belongs to `seed`, 0 <= seed < 2**64."""
        number = _word("a seed is", seed)
        self.key.value = _u64(number)
        self.draw.value = _u64(0)

    @contextmanager
    def drawing(self) -> Yields[Key]:
        """The key and counter of the next draw; one that raises leaves the stream where it was."""
        with LOCKS.draws:
            yield self.key, apply(Op.STOP_GRADIENT, self.draw)
            self.draw.value = ew.add(self.draw, 1)


def _u64(number: int) -> Tensor:
    return scalar(uint64, number)


def _word(what: str, number: Any) -> int:
    """A Python integer of 64 bits."""
    known = as_int("random", number, f"{what} an integer from 0 to 2**64 - 1")
    if not 0 <= known < WORD:
        raise EinkornError(f"{what} an integer from 0 to 2**64 - 1, got {shown(known)}")
    return known


_global = Generator()


@contextmanager
def _drawing(key: Key | None) -> Yields[Key]:
    """The key and counter of one draw, from the global generator without a key."""
    if key is not None:
        yield _checked("random", key)
        return
    with _global.drawing() as pair:
        yield pair


def _checked(what: str, key: Any) -> Key:
    """A key; DTypeError for anything else."""
    if isinstance(key, (tuple, list)) and len(key) == 2:
        word, counter = key
        wanted = TensorType(uint64, ())
        if all(isinstance(x, Value) and x._type == wanted for x in (word, counter)):
            return word, counter
    raise DTypeError(MSG_KEY.format(what=what, key=key))


def seed(n: int) -> None:
    """Start the global generator's stream that belongs to `n`."""
    _global.seed(n)


def default_generator() -> Generator:
    """The global generator."""
    return _global


def key(n: int) -> Key:
    """An explicit key: pass it to a draw, split it, or fold a number in."""
    return _u64(_word("a key is made from", n)), _u64(0)


def split(key: Key, n: int = 2) -> list[Key]:
    """`n` keys whose streams are independent of each other and of `key`'s own draws."""
    word, counter = _checked("split", key)
    count = as_int("split", n, "the number of keys is an integer")
    shape = as_sizes("split", (2 * count,), uint64)
    words = apply(Op.RANDOM_BITS, word, ew.bitwise_xor(counter, 1 << 63), shape=shape)
    wide = ew.cast(words, uint64)
    halves = [(wide[2 * k], wide[2 * k + 1]) for k in range(count)]
    zero = _u64(0)
    return [(ew.bitwise_or(ew.bitwise_left_shift(a, 32), b), zero) for a, b in halves]


def fold_in(key: Key, number: int) -> Key:
    """A new key from a key and an integer, such as a step or a layer index, modulo 2**64."""
    word, counter = _checked("fold_in", key)
    if isinstance(number, Value):
        if not number._type.dtype.is_integer or number._type.shape:
            raise DTypeError(f"fold_in: the number is one integer, got {number._type}")
        folded = apply(Op.CAST, number, dtype=uint64)
    else:
        folded = _u64(as_int("fold_in", number, "the number is an integer") % WORD)
    return split((ew.bitwise_xor(word, folded), counter), 1)[0]


def bits(shape: Any, key: Key | None = None) -> Tensor:
    """Uniform 32-bit words."""
    with _drawing(key) as pair:
        return _bits(_shape("bits", shape), pair)


def _bits(shape: tuple[int, ...], pair: Key) -> Tensor:
    return apply(Op.RANDOM_BITS, *pair, shape=shape)


def uniform(
    shape: Any = (),
    low: Any = 0.0,
    high: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Uniform numbers in [low, high), from as many bits of a word as the dtype has digits.

    What would round to `high` is `low`.
    """
    dtype = _float(dtype)
    sizes = _shape("uniform", shape)
    _check_bounds(low, high)
    with _drawing(key) as pair:
        unit = _unit(sizes, dtype, pair)
        if type(low) is float and type(high) is float and (low, high) == (0.0, 1.0):
            return unit
        value = ew.add(ew.multiply(unit, ew.subtract(high, low)), low)
        return ew.where(ew.less(value, high), value, low)


def _check_bounds(low: Any, high: Any) -> None:
    """Numbers must be finite and in order; tensors are not looked at."""
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        if not (low <= high and math.isfinite(low) and math.isfinite(high)):
            raise EinkornError(
                f"uniform: low and high are finite and low <= high, got {shown(low)} and "
                f"{shown(high)}"
            )


_DIGITS = {float16: 11, bfloat16: 8, float32: 24}


def _unit(shape: tuple[int, ...], dtype: Any, pair: Key) -> Tensor:
    """Multiples of the spacing below 1, in [0, 1)."""
    if dtype is float64:
        words = ew.cast(_bits((*shape, 2), pair), uint64)
        upper = ew.bitwise_left_shift(words[..., 0], 21)
        wide = ew.bitwise_or(upper, ew.bitwise_right_shift(words[..., 1], 11))
        return ew.multiply(ew.cast(wide, float64), 2.0**-53)
    digits = _DIGITS[dtype]
    top = ew.bitwise_right_shift(_bits(shape, pair), 32 - digits)
    return ew.cast(ew.multiply(ew.cast(top, float32), 2.0**-digits), dtype)


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
    listed = _shape("normal", shape)
    wide = dtype if dtype is float64 else float32
    with _drawing(key) as pair:
        units = _unit((2, *listed), wide, pair)
        radius = ew.sqrt(ew.multiply(ew.log1p(ew.negative(units[0])), -2.0))
        value = ew.multiply(radius, ew.cos(ew.multiply(units[1], 2 * math.pi)))
        value = ew.add(ew.multiply(value, std), mean)
        return ew.cast(value, dtype)


def bernoulli(p: Any, shape: Any = (), *, key: Key | None = None) -> Tensor:
    """True with probability p, to within 2**-32.

    A probability that is known must lie in [0, 1]; one that a compiled step brings counts as the
    nearest that does, and NaN as 0.
    """
    sizes = _shape("bernoulli", shape)
    limit = ew.cast(ew.multiply(_as_f64(p), 2.0**32), uint64)
    with _drawing(key) as pair:
        return ew.less(ew.cast(_bits(sizes, pair), uint64), limit)


def _as_f64(p: Any) -> Any:
    """The probability in float64: Python floats already are, tensors are cast."""
    if isinstance(p, (int, float)):
        if not 0 <= p <= 1:
            raise EinkornError(f"a probability is between 0 and 1, got {shown(p)}")
        return scalar(float64, p)
    if is_weak(p):
        return in_dtype("bernoulli", p, float64)
    tensor = as_tensor(p, "bernoulli")
    known = tensor._array
    if known is not None and current_trace.get() is None:
        if not np.all((known >= 0) & (known <= 1)):
            raise EinkornError(f"probabilities are between 0 and 1, got {tensor!r}")
    return ew.cast(tensor, float64)


def randint(
    low: int, high: int, shape: Any = (), *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """Integers in [low, high), by multiplying a word with the span; spans up to 2**32."""
    wanted = check_dtype(dtype)
    first, end = (as_int("randint", x, "low and high are integers") for x in (low, high))
    _check_range(first, end, wanted)
    sizes = _shape("randint", shape)
    with _drawing(key) as pair:
        wide = ew.multiply(ew.cast(_bits(sizes, pair), uint64), end - first)
        offset = ew.bitwise_right_shift(wide, 32)
        if wanted is not uint64:
            offset = ew.cast(offset, int64)
        return ew.cast(ew.add(offset, first), wanted)


def _check_range(low: int, high: int, dtype: Any) -> None:
    """EinkornError unless randint can draw every integer in [low, high) and `dtype` holds them."""
    if not 0 < high - low <= 1 << 32:
        raise EinkornError(
            f"randint needs low < high and a span of at most 2**32, got {shown(low)} and "
            f"{shown(high)}"
        )
    if not dtype.is_integer:
        raise DTypeError(f"randint: an integer dtype is needed, got {dtype}")
    info = np.iinfo(dtype.numpy)
    if low < info.min or high - 1 > info.max:
        raise DTypeError(
            f"randint: [{shown(low)}, {shown(high)}) does not fit {dtype} ({info.min} to "
            f"{info.max})"
        )


def _shape(what: str, shape: Any) -> tuple[int, ...]:
    """The shape of a draw, of which there may be two words of 64 bits for each element."""
    return as_sizes(what, (*as_sizes(what, shape, uint64), 2), uint64)[:-1]


def _float(dtype: Any) -> Any:
    found = check_dtype(dtype)
    if not found.is_float:
        raise DTypeError(f"a floating-point dtype is needed, got {found}")
    return found
