"""Convolutions over one to three spatial axes, transposed ones, and the gradient by the filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from einkorn.autocast import low_precision
from einkorn.convert import as_choice, as_int, as_tensor
from einkorn.functions.elementwise import add
from einkorn.functions.manipulation import flip, moveaxis
from einkorn.ir.conv_rules import MAX_SPATIAL, Axis, axes_of
from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Ints = tuple[int, ...]
Sizes = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]

_LAST = ("NWC", "NHWC", "NDHWC")
_FIRST = ("NCW", "NCHW", "NCDHW")

MSG_CHANNELS = (
    "{what}: x {x} has {channels} channels and the filter {w} takes {taken}: the last axis of the "
    "filter (out, window..., in / groups) times groups={groups} must be the channels of x.{hint}"
)
MSG_PADDING = (
    '{what}: padding is "valid", "same", an integer, one integer for each of the {spatial} spatial '
    "axes, or a pair (low, high) for each; got {padding!r}"
)


@dataclass(frozen=True, slots=True)
class _Call:
    """The operands of a convolution, with channels last, and its options.

    Attributes:
        what: the function that the user called.
        first: whether the user has channels first.
    """

    what: str
    x: Tensor
    w: Tensor
    groups: int
    first: bool

    @property
    def spatial(self) -> int:
        return self.x.ndim - 2

    def sizes(self, name: str, value: Any) -> Ints:
        """One positive integer for each spatial axis."""
        return _sizes(self.what, name, value, self.spatial)

    def back(self, found: Tensor) -> Tensor:
        """A result as the user wants it."""
        return moveaxis(found, -1, 1) if self.first else found


@low_precision
def conv(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
    input_dilation: Sizes = 1,
    data_format: str = "NHWC",
) -> Tensor:
    """A convolution (cross-correlation) over one to three spatial axes.

    out[n, o, c] = b[c] + sum over k, i of x[n, o * stride + k * dilation - low, i] * w[c, k, i],
    where i runs over the channels of the group of c and x counts as 0 outside. An axis of s
    elements gives (s + low + high - (k - 1) * dilation - 1) // stride + 1 results.

    Args:
        x: (n, s..., in).
        w: (out, k..., in / groups), also with channels first in x.
        b: (out,), added to every result.
        stride, dilation: one integer, or one for each spatial axis.
        padding: "valid" (none); "same", with ceil(s / stride) results (the odd zero comes last, as
            in TensorFlow and JAX); an integer, one for each axis, or a pair (low, high) for each.
            Negative padding cuts off.
        groups: channels are cut into so many groups, each with a part of the filter of its own.
        input_dilation: puts so many minus one positions between the elements of x.
        data_format: "NHWC" for channels last or "NCHW" for channels first, in x and in the result;
            the same words serve every number of axes, as do NWC, NDHWC, NCW and NCDHW.

    Raises:
        ShapeError: for operands and options that do not belong together.
        DTypeError: for different dtypes, or bool.
    """
    call = _operands("conv", x, w, groups, data_format)
    steps, apart = call.sizes("stride", stride), call.sizes("dilation", dilation)
    gaps = tuple(n - 1 for n in call.sizes("input_dilation", input_dilation))
    low, high = _around(call, padding, steps, apart, gaps)
    found = _convolved(call, call.w, steps, low, high, gaps, apart)
    return call.back(_with_bias(call, found, b))


@low_precision
def conv_transpose(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "valid",
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    data_format: str = "NHWC",
) -> Tensor:
    """A transposed convolution: what the gradient of `conv` by its input computes.

    out[n, i * stride + k * dilation - low, c] += x[n, i, j] * w[c, k, j]. An axis of s elements
    gives (s - 1) * stride - low - high + (k - 1) * dilation + 1 + output_padding results. PyTorch's
    weights (in, out / groups, k...) are those here with other axes first: moveaxis(v, 0, -1) for
    one group.

    Args:
        x: (n, s..., in).
        w: (out, k..., in / groups).
        b: (out,), added to every result.
        padding: as for `conv`, but it cuts off what it would have added there; "same" gives
            s * stride results.
        output_padding: further results at the end of each axis, less than stride or dilation.
        stride, dilation, groups, data_format: as for `conv`.

    Raises:
        ShapeError: for operands and options that do not belong together.
        DTypeError: for different dtypes, or bool.
    """
    call = _operands("conv_transpose", x, w, groups, data_format)
    steps, apart = call.sizes("stride", stride), call.sizes("dilation", dilation)
    more = _sizes(call.what, "output_padding", output_padding, call.spatial, least=0)
    if any(n >= max(a, b) for n, a, b in zip(more, steps, apart)):
        raise ShapeError(
            f"conv_transpose: output_padding {more} must be less than the stride {steps} or the "
            f"dilation {apart} on each axis; more results there would only be the bias"
        )
    spans = tuple((k - 1) * d + 1 for k, d in zip(call.w.shape[1:-1], apart))
    if _named(call, padding) == "same":
        surplus = tuple(max(span - step, 0) for span, step in zip(spans, steps))
        low = tuple(n // 2 for n in surplus)
        high = tuple(n - m for n, m in zip(surplus, low))
        more = tuple(max(step - span, n) for span, step, n in zip(spans, steps, more))
    else:
        low, high = _around(call, padding, steps, apart, (0,) * call.spatial)
    found = _convolved(
        call,
        flip(call.w, axis=tuple(range(1, call.w.ndim - 1))),
        (1,) * call.spatial,
        tuple(span - 1 - n for span, n in zip(spans, low)),
        tuple(span - 1 - n + m for span, n, m in zip(spans, high, more)),
        tuple(step - 1 for step in steps),
        apart,
    )
    return call.back(_with_bias(call, found, b))


@low_precision
def conv_filter(
    x: Any,
    g: Any,
    window: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
    input_dilation: Sizes = 1,
    data_format: str = "NHWC",
) -> Tensor:
    """The gradient of `conv` by its filter: (out, k..., in / groups).

    dw[c, k, i] = sum over n, o of x[n, o * stride + k * dilation - low, i] * g[n, o, c].

    Args:
        x: (n, s..., in), the input of the convolution.
        g: (n, so..., out), the cotangent of its result.
        window: k..., one integer or one for each spatial axis.
        stride, padding, dilation, groups, input_dilation, data_format: those of the convolution.

    Raises:
        ShapeError: when `g` has not the shape of the convolution's result.
        DTypeError: for different dtypes, or bool.
    """
    what = "conv_filter"
    call = _operands(what, x, g, groups, data_format, is_filter=False)
    sizes, steps = call.sizes("window", window), call.sizes("stride", stride)
    apart = call.sizes("dilation", dilation)
    gaps = tuple(n - 1 for n in call.sizes("input_dilation", input_dilation))
    low, high = _padding(call, sizes, padding, steps, apart, gaps)
    axes = axes_of(call.x.shape[1:-1], sizes, steps, low, high, gaps, apart)
    wanted = (call.x.shape[0], *(axis.results for axis in axes))
    if call.w.shape[:-1] != wanted or call.w.shape[-1] % call.groups:
        raise ShapeError(
            f"{what}: g must have the shape of the convolution's result, {wanted} and then a "
            f"multiple of groups={call.groups} channels (channels last), got {call.w._type}"
        )
    return apply(
        Op.CONV_FILTER,
        call.x,
        call.w,
        window=sizes,
        strides=steps,
        low=low,
        high=high,
        interior=gaps,
        dilation=apart,
        groups=call.groups,
    )


# -- checks ----------------------------------------------------------------------------------------


def _operands(
    what: str, x: Any, w: Any, groups: Any, data_format: Any, is_filter: bool = True
) -> _Call:
    """The operands with channels last; `is_filter`: whether the second one is a filter."""
    tensor, other = as_tensor(x, what), as_tensor(w, what)
    name = "the filter" if is_filter else "g"
    if not 3 <= other.ndim <= MAX_SPATIAL + 2:
        form = "(out, window..., in / groups)" if is_filter else "(n, so..., out)"
        raise ShapeError(
            f"{what}: {name} must be {form} with one to {MAX_SPATIAL} axes in the middle, got "
            f"{other._type}"
        )
    if tensor.ndim != other.ndim:
        raise ShapeError(
            f"{what}: x must have as many axes as {name} (n, one for each axis of the window, "
            f"channels), got {tensor._type} and {other._type}; x[None] adds the first axis"
        )
    if tensor.dtype is not other.dtype:
        raise DTypeError(
            f"{what}: x is {tensor._type} but {name} is {other._type}; cast one of them, for "
            f"example x.astype({other.dtype.name!r})"
        )
    if tensor.dtype is bool_:
        raise DTypeError(f"{what}: bool has no arithmetic; cast with .astype('float32')")
    choice = as_choice(what, "data_format", data_format, (*_LAST, *_FIRST))
    _check_rank_of_format(what, choice, tensor)
    first = choice in _FIRST
    count = as_int(what, groups, "groups is an integer")
    call = _Call(
        what,
        moveaxis(tensor, 1, -1) if first else tensor,
        moveaxis(other, 1, -1) if first and not is_filter else other,
        count,
        first,
    )
    _check_groups(call, is_filter)
    return call


def _check_rank_of_format(what: str, choice: str, x: Tensor) -> None:
    """NHWC and NCHW serve every rank; the others only their own."""
    if len(choice) != 4 and len(choice) != x.ndim:
        raise ShapeError(
            f"{what}: data_format {choice!r} has {len(choice)} axes, but x is {x._type}; "
            '"NHWC" (channels last) and "NCHW" (channels first) fit every number of axes'
        )


def _check_groups(call: _Call, is_filter: bool) -> None:
    """Channels, filter and groups belong together."""
    channels, groups = call.x.shape[-1], call.groups
    if groups < 1 or channels % groups:
        raise ShapeError(
            f"{call.what}: groups must be at least 1 and divide the {channels} channels of x "
            f"{call.x._type}, got {groups}"
        )
    if not is_filter:
        return
    w = call.w
    if w.shape[-1] * groups != channels:
        raise ShapeError(
            MSG_CHANNELS.format(
                what=call.what,
                x=call.x._type,
                w=w._type,
                channels=channels,
                taken=w.shape[-1] * groups,
                groups=groups,
                hint=_hint(call),
            )
        )
    if w.shape[0] % groups:
        raise ShapeError(
            f"{call.what}: groups={groups} must divide the {w.shape[0]} results of the filter "
            f"{w._type}"
        )
    if 0 in w.shape[1:-1]:
        raise ShapeError(f"{call.what}: the window of the filter {w._type} is empty")


def _hint(call: _Call) -> str:
    """What may have been meant by operands whose channels differ."""
    taken = call.w.shape[-1] * call.groups
    if call.w.shape[1] * call.groups == call.x.shape[-1]:
        return " PyTorch's filters (out, in / groups, window...) fit after ek.moveaxis(w, 1, -1)."
    if call.x.shape[1] == taken and not call.first:
        return ' For channels first, say data_format="NCHW".'
    if call.first and call.x.shape[-2] == taken:
        return ' For channels last, say data_format="NHWC".'
    return ""


def _sizes(what: str, name: str, value: Any, spatial: int, least: int = 1) -> Ints:
    """One integer for each spatial axis, of at least `least`."""
    rule = f"{name} is an integer, or one for each of the {spatial} spatial axes"
    if isinstance(value, (tuple, list)):
        found = tuple(as_int(what, n, rule) for n in value)
        if len(found) != spatial:
            raise ShapeError(f"{what}: {rule}, got {value!r}")
    else:
        found = (as_int(what, value, rule),) * spatial
    if min(found) < least:
        raise ShapeError(f"{what}: {name} must be at least {least}, got {value!r}")
    return found


def _named(call: _Call, padding: Any) -> str | None:
    """The padding's name, if it has one."""
    if not isinstance(padding, str):
        return None
    if padding.lower() not in ("valid", "same"):
        raise ShapeError(MSG_PADDING.format(what=call.what, spatial=call.spatial, padding=padding))
    return padding.lower()


def _padding(
    call: _Call, window: Ints, padding: Any, steps: Ints, apart: Ints, gaps: Ints
) -> tuple[Ints, Ints]:
    """How far each spatial axis is extended at its ends."""
    name = _named(call, padding)
    nothing = (0,) * call.spatial
    if name == "valid":
        return nothing, nothing
    if name == "same":
        axes = axes_of(call.x.shape[1:-1], window, steps, nothing, nothing, gaps, apart)
        rows = [_same(axis) for axis in axes]
    else:
        rows = _pairs(call, padding)
    return tuple(low for low, _ in rows), tuple(high for _, high in rows)


def _same(axis: Axis) -> tuple[int, int]:
    """The padding with ceil(size / stride) results."""
    results = -(-axis.extended // axis.stride)
    total = max((results - 1) * axis.stride + axis.span - axis.extended, 0)
    return total // 2, total - total // 2


def _pairs(call: _Call, padding: Any) -> list[tuple[int, int]]:
    """Padding in numbers, as a pair for each axis."""
    message = MSG_PADDING.format(what=call.what, spatial=call.spatial, padding=padding)
    if not isinstance(padding, (tuple, list)):
        try:
            width = as_int(call.what, padding)
        except DTypeError:
            raise DTypeError(message) from None
        return [(width, width)] * call.spatial
    if len(padding) != call.spatial:
        raise ShapeError(message)
    found: list[tuple[int, int]] = []
    for item in padding:
        ends = item if isinstance(item, (tuple, list)) else (item, item)
        if len(ends) != 2:
            raise ShapeError(message)
        try:
            found.append((as_int(call.what, ends[0]), as_int(call.what, ends[1])))
        except DTypeError:
            raise DTypeError(message) from None
    return found


def _around(call: _Call, padding: Any, steps: Ints, apart: Ints, gaps: Ints) -> tuple[Ints, Ints]:
    """The padding for the window of the filter."""
    return _padding(call, call.w.shape[1:-1], padding, steps, apart, gaps)


def _convolved(
    call: _Call, w: Tensor, steps: Ints, low: Ints, high: Ints, gaps: Ints, apart: Ints
) -> Tensor:
    """The op itself; ShapeError where the window does not fit."""
    axes = axes_of(call.x.shape[1:-1], w.shape[1:-1], steps, low, high, gaps, apart)
    if any(axis.results < 1 for axis in axes):
        sizes = tuple(axis.extended for axis in axes)
        raise ShapeError(
            f"{call.what}: the window covers {tuple(axis.span for axis in axes)} positions (with "
            f"dilation), but x {call.x._type} has {sizes} with its padding, so there is no result; "
            'pad x, for example padding="same", or take a smaller window'
        )
    attrs = {"low": low, "high": high, "interior": gaps, "dilation": apart}
    return apply(Op.CONV, call.x, w, strides=steps, **attrs, groups=call.groups)


def _with_bias(call: _Call, found: Tensor, b: Any) -> Tensor:
    if b is None:
        return found
    bias = as_tensor(b, call.what)
    if bias.shape != call.w.shape[:1] or bias.dtype is not call.w.dtype:
        raise ShapeError(
            f"{call.what}: the bias of the filter {call.w._type} must be one {call.w.dtype.name} "
            f"for each of its {call.w.shape[0]} results, got {bias._type}"
        )
    return add(found, bias)
