"""Windows over spatial axes: sixteen channels side by side, the taps of a window in order.

A window whose taps all lie inside is written out tap by tap when it is small; any other goes
through loops over the taps that are inside, so padding is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    divmod_,
    element,
    larger,
    load,
    param,
    pointer,
    register,
    round_down,
    round_to,
    signature,
    smaller,
    store,
    store_lanes,
    sweep,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import PARTIALS
from einkorn.ir.windows import WINDOW_CHUNK, WindowPick, WindowPlace, WindowSum

UNROLLED = 16  # taps up to which a window inside is written out

Taps = list[Value]
TapBody = Callable[[Value, Value, Taps], Taps]
"""(element offset of the tap without the channel, number of the tap, carried) -> carried"""


@dataclass(frozen=True, slots=True)
class _Axis:
    """The parameters of one spatial axis, and what is constant about its windows."""

    size: Value
    count: Value
    stride: Value
    low: Value
    window: int
    dilation: int
    base: int


@dataclass(frozen=True, slots=True)
class _Span:
    """One window along one axis: tap w lies at start + w * dilation, inside for first <= w < stop.

    With a base, taps inside are those that fall on an element, `step` apart.
    """

    axis: _Axis
    start: Value
    first: Value
    stop: Value
    step: int


def _axes(
    w: Writer, params: Value, window: Sequence[int], dilation: Sequence[int], base: Sequence[int]
) -> list[_Axis]:
    axes: list[_Axis] = []
    for k, row in enumerate(zip(window, dilation, base)):
        size, count, stride, low = (param(w, params, 4 * k + i) for i in range(4))
        axes.append(_Axis(size, count, stride, low, *row))
    return axes


def _ceil_div(w: Writer, a: Value, b: int) -> Value:
    """ceil(max(a, 0) / b)"""
    positive = larger(w, a, w.i64(0))
    return positive if b == 1 else w.binary("udiv", w.add(positive, w.i64(b - 1)), w.i64(b))


def _span(w: Writer, axis: _Axis, index: Value) -> _Span:
    """Window `index` of an axis."""
    start = w.sub(w.mul(index, axis.stride), axis.low)
    length = axis.size
    if axis.base != 1:
        length = w.add(w.mul(w.sub(axis.size, w.i64(1)), w.i64(axis.base)), w.i64(1))
    first = _ceil_div(w, w.sub(w.i64(0), start), axis.dilation)
    stop = smaller(w, _ceil_div(w, w.sub(length, start), axis.dilation), w.i64(axis.window))
    step = axis.base // gcd(axis.base, axis.dilation)
    if axis.base != 1:
        first = _first_on_element(w, axis, start, first, stop, step)
    return _Span(axis, start, first, stop, step)


def _first_on_element(
    w: Writer, axis: _Axis, start: Value, first: Value, stop: Value, step: int
) -> Value:
    """The first tap from `first` on that falls on an element, else `stop`."""
    found = stop
    for ahead in reversed(range(step)):
        tap = w.add(first, w.i64(ahead))
        place = w.add(start, w.mul(tap, w.i64(axis.dilation)))
        # `first` is such that place >= 0.
        rest = w.binary("urem", place, w.i64(axis.base))
        fits = w.and_(w.icmp("eq", rest, w.i64(0)), w.icmp("slt", tap, stop))
        found = w.select(fits, tap, found)
    return found


def _place(w: Writer, span: _Span, tap: Value) -> Value:
    """The element that a tap inside reads."""
    place = w.add(span.start, w.mul(tap, w.i64(span.axis.dilation)))
    return place if span.axis.base == 1 else w.binary("udiv", place, w.i64(span.axis.base))


def _is_whole(w: Writer, spans: Sequence[_Span]) -> Value:
    """Whether all taps of a window are inside."""
    whole = w.const("i1", True)
    for span in spans:
        whole = w.and_(whole, w.icmp("eq", span.first, w.i64(0)))
        whole = w.and_(whole, w.icmp("eq", span.stop, w.i64(span.axis.window)))
    return whole


def _each_tap(
    w: Writer, spans: Sequence[_Span], row: Value, channels: Value, carried: Taps, body: TapBody
) -> Taps:
    """Write `body` for the taps inside a window, in order, with loops.

    Args:
        row: the example, as an index of what comes before the spatial axes.
    """

    def along(k: int, at: Value, number: Value, carried: Taps) -> Taps:
        if k == len(spans):
            return body(w.mul(at, channels), number, carried)
        span = spans[k]
        before = w.mul(at, span.axis.size)
        with w.loop(span.first, span.stop, span.step, carried) as loop:
            here = w.add(before, _place(w, span, loop.index))
            tap = w.add(w.mul(number, w.i64(span.axis.window)), loop.index)
            loop.next = along(k + 1, here, tap, loop.carried)
        return loop.results

    return along(0, row, w.i64(0), carried)


def _every_tap(
    w: Writer, spans: Sequence[_Span], row: Value, channels: Value, carried: Taps, body: TapBody
) -> Taps:
    """`_each_tap` of a small window that is whole, written out."""
    at = row
    for span in spans:
        at = w.add(w.mul(at, span.axis.size), span.start)
    strides: list[Value] = [channels]
    for span in reversed(spans[1:]):
        strides.insert(0, w.mul(strides[0], span.axis.size))
    origin = w.mul(at, channels)
    for number, taps in enumerate(product(*(range(span.axis.window) for span in spans))):
        place = origin
        for tap, span, stride in zip(taps, spans, strides):
            if tap:
                place = w.add(place, w.mul(stride, w.i64(tap * span.axis.dilation)))
        carried = body(place, w.i64(number), carried)
    return carried


def _taps(
    w: Writer, spans: Sequence[_Span], padded: bool,
    write: Callable[[Callable[[Taps, TapBody], Taps]], None], row: Value, channels: Value,
) -> None:  # fmt: skip
    """Write `write(run)` once for whole windows and once for others; `run` goes over the taps."""

    def in_loops(carried: Taps, body: TapBody) -> Taps:
        return _each_tap(w, spans, row, channels, carried, body)

    def written_out(carried: Taps, body: TapBody) -> Taps:
        return _every_tap(w, spans, row, channels, carried, body)

    small = prod(span.axis.window for span in spans) <= UNROLLED
    if not small or any(span.axis.base != 1 for span in spans):
        write(in_loops)
        return
    if not padded:
        write(written_out)
        return
    with w.if_else(_is_whole(w, spans)) as branches:
        write(written_out)
        branches.otherwise()
        write(in_loops)


def _for_windows(
    w: Writer, axes: Sequence[_Axis], chunks: Value, begin: Value, end: Value,
    body: Callable[[Value, list[_Span], Value], None],
) -> None:  # fmt: skip
    """Write `body(example, spans, number of the window)` for the windows of work items."""
    with w.loop(begin, end) as loop:
        rest, chunk = divmod_(w, loop.index, chunks)
        rows = rest
        outer: list[_Span] = []
        for axis in reversed(axes[:-1]):
            rest, index = divmod_(w, rest, axis.count)
            outer.insert(0, _span(w, axis, index))
        last = axes[-1]
        first = w.mul(chunk, w.i64(WINDOW_CHUNK))
        stop = smaller(w, w.add(first, w.i64(WINDOW_CHUNK)), last.count)
        with w.loop(first, stop) as each:
            number = w.add(w.mul(rows, last.count), each.index)
            body(rest, [*outer, _span(w, last, each.index)], number)


def _for_channels(
    w: Writer, kind: int, channels: Value, body: Callable[[int, Value], None]
) -> None:
    """Write `body(width, channel)` for all channels: 16 at once, then 8, 4, 2 and 1.

    What is stored by a mask cannot be read again soon, so there are no masks.
    """
    at = w.i64(0)
    if kind >= PARTIALS:
        at = round_down(w, channels, PARTIALS)
        with w.loop(w.i64(0), at, PARTIALS) as loop:
            body(PARTIALS, loop.index)
    for width in (8, 4, 2, 1):
        if kind % PARTIALS & width:
            body(width, at)
            at = w.add(at, w.i64(width))


def window_pick(kernel: WindowPick, lanes: int) -> str:
    """LLVM text of WindowPick.

    for n, o... in windows(begin, end):
        for c in channels:                            # 16 at once, the rest by powers of two
            best, found = keys[first tap inside, c], values[first tap inside, c]
            for tap in taps inside:
                if better(keys[tap, c], best): best, found = keys[tap, c], values[tap, c]
            out[n, o..., c] = found
    """
    w = Writer()
    dtype = kernel.dtype
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        keys, out = pointer(w, pointers, 0), pointer(w, pointers, 1 if kernel.same else 2)
        values = keys if kernel.same else pointer(w, pointers, 1)
        rank = len(kernel.window)
        axes = _axes(w, params, kernel.window, kernel.dilation, (1,) * rank)
        channels, chunks = param(w, params, 4 * rank), param(w, params, 4 * rank + 1)

        def window(n: Value, spans: list[_Span], number: Value) -> None:
            def lanes_of(run: Callable[[Taps, TapBody], Taps]) -> None:
                def some(width: int, c: Value) -> None:
                    def better(place: Value, tap: Value, carried: Taps) -> Taps:
                        at = w.add(place, c)
                        key = load(w, dtype, element(w, dtype, keys, at), width)
                        wins = _better(w, dtype, key, carried[0])
                        if kernel.same:
                            return [w.select(wins, key, carried[0])]
                        value = load(w, dtype, element(w, dtype, values, at), width)
                        pairs = zip((key, value), carried)
                        return [w.select(wins, new, old) for new, old in pairs]

                    at = w.add(_first_place(w, spans, n, channels), c)
                    sources = (keys,) if kernel.same else (keys, values)
                    first = [load(w, dtype, element(w, dtype, p, at), width) for p in sources]
                    found = run(first, better)[-1]
                    target = w.add(w.mul(number, channels), c)
                    store(w, dtype, found, element(w, dtype, out, target))

                _for_channels(w, kernel.channels, channels, some)

            _taps(w, spans, kernel.padded, lanes_of, n, channels)

        _for_windows(w, axes, chunks, begin, end, window)
    return w.module()


def _first_place(w: Writer, spans: Sequence[_Span], row: Value, channels: Value) -> Value:
    """The element offset of the first tap inside a window."""
    at = row
    for span in spans:
        at = w.add(w.mul(at, span.axis.size), _place(w, span, span.first))
    return w.mul(at, channels)


def _better(w: Writer, dtype: DType, key: Value, best: Value) -> Value:
    """Whether `key` replaces `best`: larger, or the first NaN."""
    if dtype.is_float:
        return w.and_(w.fcmp("ugt", key, best), w.fcmp("ord", best, best))
    return w.icmp("sgt" if dtype.kind == "i" else "ugt", key, best)


def window_sum(kernel: WindowSum, lanes: int) -> str:
    """LLVM text of WindowSum.

    for n, o... in windows(begin, end):
        for c in channels:                            # 16 at once, the rest by powers of two
            total = +0
            for tap in taps inside: total += x[tap, c]
            out[n, o..., c] = total
    """
    w = Writer()
    dtype = kernel.dtype
    wide = register(accumulator(dtype))
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        rank = len(kernel.window)
        axes = _axes(w, params, kernel.window, kernel.dilation, kernel.base)
        channels, chunks = param(w, params, 4 * rank), param(w, params, 4 * rank + 1)

        def window(n: Value, spans: list[_Span], number: Value) -> None:
            def lanes_of(run: Callable[[Taps, TapBody], Taps]) -> None:
                def some(width: int, c: Value) -> None:
                    def add(place: Value, tap: Value, carried: Taps) -> Taps:
                        at = element(w, dtype, x, w.add(place, c))
                        return [w.add(carried[0], load(w, dtype, at, width))]

                    (total,) = run([w.const(vector(width, wide), 0)], add)
                    target = element(w, dtype, out, w.add(w.mul(number, channels), c))
                    store(w, dtype, round_to(w, dtype, total), target)

                _for_channels(w, kernel.channels, channels, some)

            _taps(w, spans, kernel.padded, lanes_of, n, channels)

        _for_windows(w, axes, chunks, begin, end, window)
    return w.module()


def window_place(kernel: WindowPlace, lanes: int) -> str:
    """LLVM text of WindowPlace.

    for n, block in items(begin, end):
        out[n, rows of the block, ...] = +0
        for o... in windows of the block:
            for c in channels:                        # 16 at once, the rest by powers of two
                winner = the number of the first tap whose key is largest, for each lane
                for tap in taps inside: out[tap, c] += updates[n, o..., c] if winner == tap else +0
    """
    w = Writer()
    wide = accumulator(kernel.dtype)
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        keys, updates, out = (pointer(w, pointers, k) for k in range(3))
        rank = len(kernel.window)
        axes = _axes(w, params, kernel.window, kernel.dilation, (1,) * rank)
        channels, rows, blocks = (param(w, params, 4 * rank + k) for k in range(3))
        with w.loop(begin, end) as item:
            n, block = divmod_(w, item.index, blocks)
            start = w.mul(block, rows)
            stop = smaller(w, w.add(start, rows), axes[0].count)
            _clear(w, wide, out, n, start, stop, axes, channels)

            def along(k: int, number: Value, spans: list[_Span]) -> None:
                if k == rank:
                    _place_window(w, kernel, (keys, updates, out), n, spans, number, channels)
                    return
                bounds = (start, stop) if k == 0 else (w.i64(0), axes[k].count)
                before = w.mul(number, axes[k].count)
                with w.loop(*bounds) as loop:
                    span = _span(w, axes[k], loop.index)
                    along(k + 1, w.add(before, loop.index), [*spans, span])

            along(0, n, [])
    return w.module()


def _clear(
    w: Writer, dtype: DType, out: Value, n: Value, start: Value, stop: Value,
    axes: Sequence[_Axis], channels: Value,
) -> None:  # fmt: skip
    """Zero the rows that windows [start, stop) of the first axis own: up to those of the next."""
    first = axes[0]
    size = first.size

    def edge(index: Value, end: Value, otherwise: Value) -> Value:
        row = w.sub(w.mul(index, first.stride), first.low)
        inside = smaller(w, larger(w, row, w.i64(0)), size)
        return w.select(w.icmp("eq", index, end), otherwise, inside)

    inner = channels
    for axis in axes[1:]:
        inner = w.mul(inner, axis.size)
    base = w.mul(n, size)
    begin = w.mul(w.add(base, edge(start, w.i64(0), w.i64(0))), inner)
    end = w.mul(w.add(base, edge(stop, first.count, size)), inner)
    zero = w.const(vector(PARTIALS, register(dtype)), 0)

    def body(at: Value, mask: Value | None, _: Taps) -> Taps:
        store_lanes(w, dtype, zero, element(w, dtype, out, at), mask)
        return []

    sweep(w, begin, end, [], body)


def _place_window(
    w: Writer, kernel: WindowPlace, buffers: tuple[Value, Value, Value], n: Value,
    spans: list[_Span], number: Value, channels: Value,
) -> None:  # fmt: skip
    """One window of WindowPlace."""
    keys, updates, out = buffers
    dtype, wide = kernel.dtype, accumulator(kernel.dtype)

    def lanes_of(run: Callable[[Taps, TapBody], Taps]) -> None:
        def some(width: int, c: Value) -> None:
            def better(place: Value, tap: Value, carried: Taps) -> Taps:
                at = element(w, dtype, keys, w.add(place, c))
                key = load(w, dtype, at, width)
                wins = _better(w, dtype, key, carried[0])
                here = w.splat(w.cast("trunc", tap, "i32"), width)
                return [w.select(wins, key, carried[0]), w.select(wins, here, carried[1])]

            at = w.add(_first_place(w, spans, n, channels), c)
            key = load(w, dtype, element(w, dtype, keys, at), width)
            tap = w.splat(w.cast("trunc", _first_number(w, spans), "i32"), width)
            winner = run([key, tap], better)[1]
            given = w.add(w.mul(number, channels), c)
            update = load(w, dtype, element(w, dtype, updates, given), width)
            zero = w.const(update.type, 0)

            def add(place: Value, tap: Value, carried: Taps) -> Taps:
                target = element(w, wide, out, w.add(place, c))
                here = w.splat(w.cast("trunc", tap, "i32"), width)
                given = w.select(w.icmp("eq", winner, here), update, zero)
                held = load(w, wide, target, width)
                store(w, wide, w.add(held, given), target)
                return []

            run([], add)

        _for_channels(w, kernel.channels, channels, some)

    _taps(w, spans, kernel.padded, lanes_of, n, channels)


def _first_number(w: Writer, spans: Sequence[_Span]) -> Value:
    """The number of the first tap inside a window."""
    number = w.i64(0)
    for span in spans:
        number = w.add(w.mul(number, w.i64(span.axis.window)), span.first)
    return number
