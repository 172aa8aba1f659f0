"""The generator: a key and a counter, from which every draw takes one number.

Streams are kept apart by the upper bits of the counter: a draw reads the blocks of (key, counter),
`split` and `fold_in` those with the top bit set, and a draw that needs words in rounds takes a key
of its own from those with the next bit set. What `apart` draws has the third bit set.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Any

from einkorn.convert import as_int, shown
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import as_sizes
from einkorn.ir.dtypes import uint64
from einkorn.ir.errors import DTypeError, EinkornError
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.leaf import Counter, Leaf
from einkorn.recording import Value, apply, current_trace, scalar
from einkorn.runtime.locks import LOCKS
from einkorn.surroundings import Surroundings, surroundings
from einkorn.tensor import Tensor

Key = tuple[Any, Any]

MSG_KEY = (
    "{what}: a key is made by ek.random.key(n), ek.random.split or ek.random.fold_in, got {key!r}"
)
WORD = 1 << 64
SPLIT, FOLD, INNER = 1 << 63, 3 << 62, 1 << 62  # added to the counter
APART = 1 << 61
_is_apart: ContextVar[bool] = ContextVar("einkorn_draws_apart", default=False)


class Generator:
    """A key and a counter. `seed(n)` starts its stream again."""

    def __init__(self, seed: int = 0) -> None:
        self.key = Leaf(0, "uint64", name="random.key")
        self.draw = Counter(0, "uint64", name="random.draw")
        self.draw_apart = Counter(APART, "uint64", name="random.draw_apart")
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start the stream that belongs to `seed`, 0 <= seed < 2**64."""
        number = _word("a seed is", seed)
        with _alone():
            self.key.value = _u64(number)
            self.draw.value = _u64(0)
            self.draw_apart.value = _u64(APART)

    def next_key(self) -> Key:
        """A key that was never given before; the counter moves on by one, as by a draw."""
        with self.drawing() as pair:
            return _new_words(pair, SPLIT, 1)[0], _u64(0)

    @contextmanager
    def drawing(self) -> Yields[Key]:
        """The key and counter of the next draw; one that raises leaves the stream where it was."""
        with _alone():
            counter = self.draw_apart if _is_apart.get() else self.draw
            yield self.key, apply(Op.STOP_GRADIENT, counter)
            counter.value = ew.add(counter, 1)


@contextmanager
def apart() -> Yields[None]:
    """Within the block draws from generators are counted apart from all others."""
    token = _is_apart.set(True)
    try:
        yield
    finally:
        _is_apart.reset(token)


def _alone() -> AbstractContextManager[Any]:
    """Within the block no other thread draws; draws of a trace happen when it is run."""
    return LOCKS.state if current_trace.get() is None else nullcontext()


def _u64(number: int) -> Tensor:
    return scalar(uint64, number)


def _word(what: str, number: Any) -> int:
    """A Python integer of 64 bits."""
    known = as_int("random", number, f"{what} an integer from 0 to 2**64 - 1")
    if not 0 <= known < WORD:
        raise EinkornError(f"{what} an integer from 0 to 2**64 - 1, got {shown(known)}")
    return known


_global = Generator()
_used: ContextVar[Generator] = ContextVar("einkorn_generator", default=_global)


def put_in_use(generator: Generator) -> tuple[Token[Generator], Token[Surroundings]]:
    """Let draws without a key come from this generator from here on; what undoes it."""
    if not isinstance(generator, Generator):
        raise DTypeError(f"use takes an ek.random.Generator, got {generator!r}")
    number = 0 if generator is _global else generator.key.id
    around = surroundings.get()._replace(generator=number)
    return _used.set(generator), surroundings.set(around)


@contextmanager
def use(generator: Generator) -> Yields[None]:
    """Within the block draws without a key come from this generator, those of layers, too.

    It belongs to the thread or the asyncio task; a compiled function has a trace for each
    generator.
    """
    used, around = put_in_use(generator)
    try:
        yield
    finally:
        _used.reset(used)
        surroundings.reset(around)


@contextmanager
def drawing(what: str, key: Key | None) -> Yields[Key]:
    """The key and counter of one draw, from the generator in use without a key."""
    if key is not None:
        yield checked(what, key)
        return
    with _used.get().drawing() as pair:
        yield pair


def checked(what: str, key: Any) -> Key:
    """A key; DTypeError for anything else."""
    if isinstance(key, (tuple, list)) and len(key) == 2:
        word, counter = key
        wanted = TensorType(uint64, ())
        if all(isinstance(x, Value) and x._type == wanted for x in (word, counter)):
            return word, counter
    raise DTypeError(MSG_KEY.format(what=what, key=key))


def seed(n: int) -> None:
    """Start the stream that belongs to `n`, of the generator in use."""
    _used.get().seed(n)


def default_generator() -> Generator:
    """The generator in use: the global one, unless a block of `use` is around."""
    return _used.get()


def key(n: int) -> Key:
    """An explicit key: pass it to a draw, split it, or fold a number in."""
    return _u64(_word("a key is made from", n)), _u64(0)


def split(key: Key, n: int = 2) -> list[Key]:
    """`n` keys whose streams are independent of each other and of `key`'s own draws."""
    pair = checked("split", key)
    count = as_int("split", n, "the number of keys is an integer")
    as_sizes("split", (2 * count,), uint64)
    words = _new_words(pair, SPLIT, count)
    zero = _u64(0)
    return [(words[k], zero) for k in range(count)]


def fold_in(key: Key, number: int) -> Key:
    """A new key from a key and an integer, such as a step or a layer index, modulo 2**64."""
    pair = checked("fold_in", key)
    if isinstance(number, Value):
        if not number._type.dtype.is_integer or number._type.shape:
            raise DTypeError(f"fold_in: the number is one integer, got {number._type}")
        folded = apply(Op.CAST, number, dtype=uint64)
    else:
        folded = _u64(as_int("fold_in", number, "the number is an integer") % WORD)
    # Two steps: the number joined to the key itself would meet other keys' numbers.
    between = _new_words(pair, FOLD, 1)[0]
    return _new_words((between, folded), 0, 1)[0], _u64(0)


def next_key() -> Key:
    """A key of its own from the generator in use, whose counter moves on by one."""
    return _used.get().next_key()


def inner_words(pair: Key, count: int = 1) -> list[Tensor]:
    """Keys of a draw's own, for what it draws in rounds or in parts."""
    words = _new_words(pair, INNER, count)
    return [words[k] for k in range(count)]


def _new_words(pair: Key, mark: int, count: int) -> Tensor:
    """`count` words of 64 bits from the blocks of a marked counter."""
    word, counter = pair
    counter = ew.bitwise_xor(counter, mark) if mark else counter
    return joined(apply(Op.RANDOM_BITS, word, counter, shape=(count, 2)))


def joined(halves: Tensor) -> Tensor:
    """Words of 64 bits from pairs of 32 along the last axis, the upper half first."""
    wide = ew.cast(halves, uint64)
    return ew.bitwise_or(ew.bitwise_left_shift(wide[..., 0], 32), wide[..., 1])
