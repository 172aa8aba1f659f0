"""Attention, and the positions that go with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from einkorn import random
from einkorn.autocast import low_precision
from einkorn.convert import as_flag, as_number, as_size, as_tensor, check_dtype, meet
from einkorn.functions.elementwise import (
    add,
    bitwise_and,
    cast,
    cos,
    divide,
    equal,
    exp,
    greater_equal,
    multiply,
    not_equal,
    sin,
    stop_gradient,
    subtract,
    where,
)
from einkorn.functions.linear_algebra import matmul
from einkorn.functions.manipulation import concat, spread_to, stack, to_shape
from einkorn.functions.statistical import softmax
from einkorn.ir.dtypes import bool_, float32, int32, int64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply
from einkorn.transforms.checkpoint import checkpoint

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

PLAIN_SCORES = 1 << 20  # scores of one head up to which they are computed at once
MAX_BLOCKS = 64  # blocks of queries at most


@low_precision
def attention(
    q: Any,
    k: Any,
    v: Any,
    /,
    *,
    mask: Any = None,
    causal: bool = False,
    scale: Any = None,
    dropout: Any = 0.0,
    bias: Any = None,
) -> Tensor:
    """softmax(q k^T * scale + bias) v (Vaswani et al., 2017): [..., T, D] from [..., T, D].

    A query that may attend to no key gives zeros, and its gradients are zero. With more than
    2**20 scores for a head, blocks of queries are computed one after the other, and again in the
    backward pass, so memory is that of one block.

    Args:
        q: queries [..., T, D]; k: keys [..., S, D]; v: values [..., S, E]. The leading axes
            broadcast. Axis -3 counts heads: k and v may have fewer, which divide those of q, and
            each is shared by as many adjacent heads of q.
        mask: broadcasts to [..., T, S]: bool, True where a query may attend to a key, or floats
            that are added to the scores.
        causal: query i attends to keys 0 to i.
        scale: 1 / sqrt(D) by default.
        dropout: the probability with which a weight is dropped; the others are divided by
            1 - dropout. Give 0 when not training.
        bias: floats added to the scores; broadcasts to [..., T, S].
    """
    what = "attention"
    a, b, c = meet(what, q, k, v)
    _check(a, b, c)
    factor = 1 / math.sqrt(a.shape[-1]) if scale is None and a.shape[-1] else scale
    rate = as_number(what, dropout, "dropout is a number")
    if not 0 <= rate < 1:
        raise ShapeError(f"{what}: dropout must be from 0 up to 1, got {dropout!r}")
    added = [as_tensor(x, what) for x in (mask, bias) if x is not None]
    for x in added:
        _check_mask(x, a, b)
    if bias is not None and not added[-1].dtype.is_float:
        raise DTypeError(f"{what}: bias is made of floats, got {added[-1]._type}")
    is_causal = as_flag(what, "causal", causal)
    queries, keys = a.shape[-2], b.shape[-2]
    if queries * keys <= PLAIN_SCORES:
        return _plain(a, b, c, added, factor, rate, 0 if is_causal else None)
    return _in_blocks(a, b, c, added, factor, rate, is_causal)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if not q.dtype.is_float:
        raise DTypeError(f"attention: needs floats, got {q._type}; use .astype('float32') first")
    fits = min(q.ndim, k.ndim, v.ndim) >= 2
    fits = fits and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
    if fits and min(q.ndim, k.ndim, v.ndim) >= 3:
        heads, shared, values = q.shape[-3], k.shape[-3], v.shape[-3]
        fits = shared == values or 1 in (shared, values)
        fits = fits and (heads == 1 or heads % max(shared, values, 1) == 0)
    if not fits:
        raise ShapeError(
            "attention: needs floats q [..., heads, T, D], k [..., heads, S, D] and "
            "v [..., heads, S, E], where the heads of k and v divide those of q, got "
            f"{q._type}, {k._type} and {v._type}"
        )


def _check_mask(mask: Tensor, q: Tensor, k: Tensor) -> None:
    wanted = (q.shape[-2], k.shape[-2])
    own = (1, 1, *mask.shape)[-2:]
    if not (mask.dtype is bool_ or mask.dtype.is_float) or any(
        n not in (1, m) for n, m in zip(own, wanted)
    ):
        raise ShapeError(
            f"attention: a mask is bool or floats and broadcasts to [..., {wanted[0]}, "
            f"{wanted[1]}], got {mask._type}"
        )


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T; heads of q that share one of k are rows of one product."""
    return _shared(q, k.mT)


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, where adjacent heads of a may share one of b."""
    if a.ndim < 3 or b.ndim < 3 or a.shape[-3] == b.shape[-3] or 1 in (a.shape[-3], b.shape[-3]):
        return matmul(a, b)
    heads, rows = a.shape[-3], a.shape[-2]
    groups = b.shape[-3]
    joined = to_shape(a, (*a.shape[:-3], groups, heads // groups * rows, a.shape[-1]))
    found = matmul(joined, b)
    return to_shape(found, (*found.shape[:-3], heads, rows, found.shape[-1]))


def _plain(
    q: Tensor, k: Tensor, v: Tensor, added: list[Tensor], scale: Any, rate: float, first: int | None
) -> Tensor:
    """All scores at once.

    Args:
        first: the position of the first query when attention is causal.
    """
    scores = _scores(q, k)
    if scale is not None:
        scores = multiply(scores, scale)
    allowed = None if first is None else _until(scores, first)
    for x in added:
        if x.dtype is bool_:
            allowed = x if allowed is None else bitwise_and(allowed, x)
            continue
        scores = add(scores, cast(x, scores.dtype))
        reachable = not_equal(x, -math.inf)
        allowed = reachable if allowed is None else bitwise_and(allowed, reachable)
    weights = softmax(scores, axis=-1, where=allowed)
    if rate:
        kept = random.bernoulli(1 - rate, weights.shape)
        weights = where(kept, divide(weights, 1 - rate), 0)
    return _shared(weights, v)


def _until(scores: Tensor, first: int) -> Tensor:
    """Whether key j is not behind query first + i, for every score: fused, it is never stored."""
    queries, keys = scores.shape[-2:]
    rows = add(apply(Op.IOTA, size=queries, dtype=int32), first)
    columns = apply(Op.IOTA, size=keys, dtype=int32)
    spread = (spread_to(x, scores.shape) for x in (to_shape(rows, (queries, 1)), columns))
    return greater_equal(*spread)


def _in_blocks(
    q: Tensor, k: Tensor, v: Tensor, added: list[Tensor], scale: Any, rate: float, causal: bool
) -> Tensor:
    """Blocks of queries, which the backward pass computes again; keys ahead are left out.

    The keys go from block to block, so that one waits for the other in both directions: the keys
    for the output of the block before, their cotangent for the backward pass of the block behind.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    rows = max(PLAIN_SCORES // keys, -(-queries // MAX_BLOCKS), 1)
    parts: list[Tensor] = []
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        seen = min(stop, keys) if causal else keys
        first = start if causal else None

        def block(
            k: Tensor, q: Tensor, v: Tensor, *added: Tensor, seen: int = seen, first: Any = first
        ) -> tuple[Tensor, Tensor]:
            visible = k[..., :seen, :], v[..., :seen, :]
            found = _plain(q, *visible, list(added), scale, rate, first)
            return _behind(k, found), found

        masks = [_rows(x, start, stop, seen) for x in added]
        k, part = checkpoint(block)(k, q[..., start:stop, :], v, *masks)
        parts.append(part)
    return concat(parts, axis=-2)


def _behind(x: Tensor, other: Tensor) -> Tensor:
    """x, to the bit, once `other` is known; no rewrite sees that the condition never holds."""
    if not other.size:
        return x
    t = stop_gradient(other[(0,) * other.ndim])
    return where(bitwise_and(not_equal(t, t), equal(t, t)), 0, x)


def _rows(mask: Tensor, start: int, stop: int, seen: int) -> Tensor:
    """The part of a mask for some queries and the keys that they see."""
    if mask.ndim >= 1 and mask.shape[-1] != 1:
        mask = mask[..., :seen]
    if mask.ndim >= 2 and mask.shape[-2] != 1:
        mask = mask[..., start:stop, :]
    return mask


# -- positions -------------------------------------------------------------------------------------


def _angles(what: str, positions: Tensor, width: int, base: Any, dtype: Any) -> Tensor:
    """position * base ** (-2 i / width) for i < width / 2, along a new last axis."""
    number = as_number(what, base, "base is a number")
    if not 0 < number < math.inf:
        raise ShapeError(f"{what}: base must be positive, got {base!r}")
    steps = apply(Op.IOTA, size=width // 2, dtype=dtype)
    rates = exp(multiply(steps, -2 * math.log(number) / width))
    return multiply(to_shape(cast(positions, dtype), (*positions.shape, 1)), rates)


def rotary_embedding(
    x: Any,
    positions: Any = None,
    /,
    *,
    base: Any = 10000.0,
    interleaved: bool = False,
) -> Tensor:
    """Pairs of features turned by angles that grow with their position (Su et al., 2021).

    Pair i at position p turns by p * base ** (-2 i / D). Angles are computed in float32, and in
    float64 for float64.

    Args:
        x: [..., T, D] with D even.
        positions: numbers that broadcast to [..., T]; 0 to T - 1 by default.
        interleaved: whether a pair is features 2 i and 2 i + 1; by default it is i and i + D / 2.
    """
    what = "rotary_embedding"
    tensor = as_tensor(x, what)
    if not tensor.dtype.is_float:
        raise DTypeError(f"{what}: needs floats, got {tensor._type}; use .astype('float32') first")
    if tensor.ndim < 2 or tensor.shape[-1] % 2:
        raise ShapeError(f"{what}: needs floats [..., T, D] with an even D, got {tensor._type}")
    dtype = float32 if tensor.dtype.itemsize == 2 else tensor.dtype
    count, width = tensor.shape[-2:]
    places = apply(Op.IOTA, size=count, dtype=int64) if positions is None else positions
    places = as_tensor(places, what)
    _check_positions(what, places, tensor)
    angles = _angles(what, places, width, base, dtype)
    wide = cast(tensor, dtype)
    half = width // 2
    if as_flag(what, "interleaved", interleaved):
        pairs = to_shape(wide, (*tensor.shape[:-1], half, 2))
        turned = stack(_turned(pairs[..., 0], pairs[..., 1], angles), axis=-1)
        return cast(to_shape(turned, tensor.shape), tensor.dtype)
    turned = concat(_turned(wide[..., :half], wide[..., half:], angles), axis=-1)
    return cast(turned, tensor.dtype)


def _check_positions(what: str, places: Tensor, x: Tensor) -> None:
    fits = places.ndim < x.ndim and places.dtype is not bool_
    if not fits or any(n not in (1, m) for n, m in zip(places.shape[::-1], x.shape[-2::-1])):
        raise ShapeError(
            f"{what}: positions are numbers that broadcast to {x.shape[:-1]}, got {places._type}"
        )


def _turned(first: Tensor, second: Tensor, angles: Tensor) -> list[Tensor]:
    """Each pair turned by its angle."""
    c, s = cos(angles), sin(angles)
    return [
        subtract(multiply(first, c), multiply(second, s)),
        add(multiply(second, c), multiply(first, s)),
    ]


def sinusoidal_positions(
    count: int, width: int, /, *, base: Any = 10000.0, dtype: Any = "float32"
) -> Tensor:
    """[count, width]: sin(p * base ** (-2 i / width)) in column 2 i, its cosine in column 2 i + 1.

    Vaswani et al., 2017. `width` is even.
    """
    what = "sinusoidal_positions"
    rows, columns = (as_size(what, n, "sizes are integers") for n in (count, width))
    wanted = check_dtype(dtype)
    if rows < 0 or columns < 2 or columns % 2 or not wanted.is_float:
        raise ShapeError(
            f"{what}: needs a count, an even width and a float dtype, got {count}, {width} and "
            f"{wanted}"
        )
    wide = float32 if wanted.itemsize == 2 else wanted
    angles = _angles(what, apply(Op.IOTA, size=rows, dtype=int64), columns, base, wide)
    pairs = stack([sin(angles), cos(angles)], axis=-1)
    return cast(to_shape(pairs, (rows, columns)), wanted)
