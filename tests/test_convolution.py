"""Convolutions: against the reference and PyTorch, in both modes, and what bad input is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conv_cases import attributes, results
from same_bits import assert_same_bits, split_finely

import einkorn as ek
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import OPS, Op
from einkorn.runtime.settings import override

Array = np.ndarray[Any, Any]
nn = ek.nn


def numbers(*shape: int, seed: int = 0, dtype: Any = "float32") -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def reference(x: Array, w: Array, **changed: Any) -> Array:
    attrs = attributes(x.ndim - 2, **changed)
    return OPS[Op.CONV].numpy(x.astype("f8"), w.astype("f8"), **attrs)  # type: ignore[misc]


def close(got: Any, want: Array, terms: int) -> None:
    """Within the error of a chain of `terms` products of normal numbers."""
    got = np.asarray(got)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-7 * (terms + 8))


# -- what it computes ------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_padding_and_sizes(spatial: int) -> None:
    sizes = (7, 6, 5)[:spatial]
    x, w = numbers(2, *sizes, 3), numbers(4, *(3, 2, 3)[:spatial], 3)
    terms = w[0].size
    ways: list[tuple[Any, Any]] = [
        ("valid", [(0, 0)] * spatial),
        (1, [(1, 1)] * spatial),
        ((2, 0, 1)[:spatial], [(2, 2), (0, 0), (1, 1)][:spatial]),
        ([(1, 2), (0, 1), (-1, 2)][:spatial], [(1, 2), (0, 1), (-1, 2)][:spatial]),
    ]
    for padding, pairs in ways:
        low, high = (tuple(pair[end] for pair in pairs) for end in (0, 1))
        close(nn.conv(x, w, padding=padding), reference(x, w, low=low, high=high), terms)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_has_a_result_for_each_stride(stride: int) -> None:
    for size in range(1, 9):
        for window, dilation in ((1, 1), (2, 1), (3, 2), (5, 1)):
            x, w = numbers(1, size, 2), numbers(3, window, 2)
            got = nn.conv(x, w, stride=stride, padding="same", dilation=dilation)
            count = -(-size // stride)
            total = max((count - 1) * stride + (window - 1) * dilation + 1 - size, 0)
            around = {"low": (total // 2,), "high": (total - total // 2,)}
            want = reference(x, w, strides=(stride,), dilation=(dilation,), **around)
            assert got.shape[1] == count
            close(got, want, w[0].size)


def test_channels_first_is_the_same_with_axes_moved() -> None:
    for rank in (3, 4, 5):
        x, w = numbers(2, *(6, 5, 4)[: rank - 2], 3), numbers(4, *(2,) * (rank - 2), 3)
        b = numbers(4)
        last = nn.conv(x, w, b)
        for name in ("NCHW", {3: "NCW", 4: "NCHW", 5: "NCDHW"}[rank]):
            first = nn.conv(np.moveaxis(x, -1, 1), w, b, data_format=name)
            assert_same_bits(np.asarray(first), np.ascontiguousarray(np.moveaxis(last, -1, 1)))
        assert_same_bits(np.asarray(nn.conv(x, w, b, data_format="NHWC")), np.asarray(last))


def test_gaps_take_no_part_and_padding_does() -> None:
    x, w = np.ones((1, 3, 1), "f4"), np.array([1, np.inf], "f4").reshape(1, 2, 1)
    spread = np.asarray(nn.conv(x, w, input_dilation=2))[0, :, 0]
    assert spread.tolist() == [1, np.inf, 1, np.inf]  # 1 w[0], 1 w[1], ...: no gap times infinity
    padded = np.asarray(nn.conv(x, w, padding=[(0, 1)]))[0, :, 0]
    assert padded[:2].tolist() == [np.inf, np.inf]
    assert np.isnan(padded[2])


def test_depthwise_convolutions_of_many_channels() -> None:
    for channels in (5, 24, 37):
        x, w = numbers(2, 7, 6, channels), numbers(channels, 3, 2, 1)
        for strides in ((1, 1), (2, 3)):
            attrs: Any = {"strides": strides, "groups": channels}
            want = reference(x, w, **attrs)
            close(nn.conv(x, w, stride=strides, groups=channels), want, 6)
            g = numbers(*want.shape)
            around = attributes(2, window=(3, 2), **attrs)
            exact = OPS[Op.CONV_FILTER].numpy(x.astype("f8"), g.astype("f8"), **around)  # type: ignore[misc]
            got = nn.conv_filter(x, g, (3, 2), stride=strides, groups=channels)
            close(got, exact, g[..., 0].size)


ODD = [
    dict(x=(2, 9, 3), w=(4, 3, 3), stride=1, padding=1),
    dict(x=(3, 14, 14, 6), w=(16, 5, 5, 6)),
    dict(x=(1, 28, 27, 1), w=(6, 5, 5, 1), padding=2),
    dict(x=(2, 8, 8, 32), w=(64, 3, 3, 32), stride=2, padding="same"),
    dict(x=(2, 9, 7, 8), w=(12, 3, 2, 2), groups=4, dilation=2, padding="same"),
    dict(x=(2, 10, 11, 24), w=(24, 3, 3, 1), groups=24, padding=1),
    dict(x=(1, 9, 9, 20), w=(40, 3, 3, 1), groups=20, padding=1, stride=2),
    dict(x=(1, 5, 6, 7, 3), w=(5, 2, 3, 2, 3), padding=[(1, 0), (0, 0), (1, 1)]),
    dict(x=(2, 6, 5, 4), w=(3, 1, 1, 4), stride=2),
    dict(x=(1, 4, 4, 3), w=(1, 4, 4, 3)),
]  # fmt: skip


def differentiable(case: dict[str, Any]) -> tuple[Callable[..., Any], list[Array]]:
    """A loss of a convolution with bias, residual and relu, and its operands."""
    options = {key: value for key, value in case.items() if key not in ("x", "w")}
    x, w = numbers(*case["x"]), numbers(*case["w"], seed=1)
    b = numbers(case["w"][0], seed=2)
    added = numbers(*nn.conv(x, w, b, **options).shape, seed=3)

    def run(x: Any, w: Any, b: Any) -> Any:
        y = nn.relu(nn.conv(x, w, b, **options) + added)
        return (y * y).sum(), y

    return run, [x, w, b]


@pytest.mark.parametrize("case", ODD, ids=lambda case: f"{case['x']}{case['w']}")
def test_eager_and_compiled_have_the_same_bits(case: dict[str, Any]) -> None:
    run, arrays = differentiable(case)
    step = ek.value_and_grad(run, (0, 1, 2), has_aux=True)
    (_, want), grads = step(*arrays)
    for threads in (1, 2, 3):
        with split_finely(), override(threads=threads):
            (_, got), found = ek.compile(step)(*arrays)
            for a, b in zip((got, *found), (want, *grads)):
                assert_same_bits(np.asarray(a), np.asarray(b))


# -- transposed ------------------------------------------------------------------------------------


def test_a_transposed_convolution_is_the_gradient_by_the_input() -> None:
    for stride, padding, dilation in ((1, 0, 1), (2, 1, 1), (3, 1, 2), (2, "same", 1)):
        x, w = numbers(2, 8, 6, 4), numbers(6, 3, 3, 2, seed=1)
        options: Any = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 2}

        def forward(x: Any, w: Array = w, options: Any = options) -> Any:
            return nn.conv(x, w, **options)

        y, pull = ek.vjp(forward, x)
        g = numbers(*y.shape, seed=2)
        (want,) = pull(g)
        swapped = w.reshape(2, 3, 3, 3, 2).swapaxes(1, 4).reshape(4, 3, 3, 3)
        more = tuple(
            n - m for n, m in zip((8, 6), nn.conv_transpose(g, swapped, **options).shape[1:])
        )
        got = np.asarray(nn.conv_transpose(g, swapped, output_padding=more, **options))
        np.testing.assert_array_equal(got, np.asarray(want))


def test_output_padding_adds_results_at_the_end() -> None:
    x, w = numbers(1, 4, 2), numbers(3, 3, 2)
    plain = np.asarray(nn.conv_transpose(x, w, stride=2))
    more = np.asarray(nn.conv_transpose(x, w, stride=2, output_padding=1))
    assert more.shape == (1, plain.shape[1] + 1, 3)
    np.testing.assert_array_equal(more[:, :-1], plain)
    same = nn.conv_transpose(x, numbers(3, 1, 2), numbers(3), stride=2, padding="same")
    assert same.shape == (1, 8, 3)


def test_vmap_over_either_operand_or_both() -> None:
    for groups in (1, 2):
        x, w = numbers(3, 2, 6, 5, 4), numbers(3, 6, 2, 3, 4 // groups)
        options: Any = {"padding": 1, "stride": (1, 2), "groups": groups}

        def both(x: Any, w: Any, options: Any = options) -> Any:
            loss = ek.grad(lambda x, w: (nn.conv(x, w, **options) ** 2).sum(), (0, 1))
            return nn.conv(x, w, **options), *loss(x, w)

        for axes in ((0, 0), (0, None), (None, 0)):
            one = (x if axes[0] == 0 else x[0], w if axes[1] == 0 else w[0])
            found = ek.vmap(both, in_axes=axes)(*one)
            for k in range(3):
                rows = (x[k] if axes[0] == 0 else x[0], w[k] if axes[1] == 0 else w[0])
                for got, want in zip(found, both(*rows)):
                    np.testing.assert_array_equal(np.asarray(got)[k], np.asarray(want))


# -- PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_agrees_with_pytorch(spatial: int) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    sizes, window = (9, 8, 7)[:spatial], (3, 2, 3)[:spatial]
    name = f"conv{spatial}d"
    for stride, padding, dilation, groups in ((1, 0, 1, 1), (2, 1, 1, 1), (3, 2, 2, 3)):
        options: Any = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        x, w = numbers(2, *sizes, 6), numbers(9, *window, 6 // groups, seed=1)
        b = numbers(9, seed=2)
        first = [torch.tensor(np.moveaxis(a, -1, 1)) for a in (x, w)]
        got = [np.asarray(nn.conv(x, w, b, **options))]
        double = [t.double() for t in (*first, torch.tensor(b))]
        want = [getattr(functional, name)(*double, **options)]
        theirs = [getattr(functional, name)(*first, torch.tensor(b), **options)]
        v = numbers(6, 12 // groups, *window, seed=3)  # PyTorch's layout
        split = v.reshape(groups, 6 // groups, 12 // groups, *window)
        order = (0, 2, *range(3, 3 + spatial), 1)
        ours = split.transpose(order).reshape(12, *window, 6 // groups)
        more = {**options, "output_padding": 1 if stride > 1 else 0}
        got.append(np.asarray(nn.conv_transpose(x, ours, **more)))
        call = getattr(functional, f"conv_transpose{spatial}d")
        want.append(call(first[0].double(), torch.tensor(v).double(), **more))
        theirs.append(call(first[0], torch.tensor(v), **more))
        for a, exact, other in zip(got, want, theirs):
            precise = np.moveaxis(exact.numpy(), 1, -1)
            error = np.sqrt(np.mean((a - precise) ** 2))
            allowed = 2 * np.sqrt(np.mean((np.moveaxis(other.numpy(), 1, -1) - precise) ** 2))
            assert error <= max(allowed, 1e-6), (error, allowed)


# -- bad input -------------------------------------------------------------------------------------

X, W = np.ones((2, 8, 8, 4), "f4"), np.ones((6, 3, 3, 4), "f4")

BAD: list[tuple[type[EinkornError], str, Callable[[], Any]]] = [
    (ShapeError, "as many axes as the filter", lambda: nn.conv(X[0], W)),
    (ShapeError, "the filter must be", lambda: nn.conv(X, W[0, 0])),
    (ShapeError, "1 channels and the filter", lambda: nn.conv(X[..., :1], W)),
    (ShapeError, "moveaxis", lambda: nn.conv(X, np.ones((6, 4, 3, 3), "f4"))),
    (ShapeError, "NCHW", lambda: nn.conv(np.ones((2, 4, 8, 8), "f4"), W)),
    (ShapeError, 'say data_format="NHWC"', lambda: nn.conv(X, W, data_format="NCHW")),
    (ShapeError, "has 3 axes, but x is", lambda: nn.conv(X, W, data_format="NCW")),
    (ShapeError, "data_format must be", lambda: nn.conv(X, W, data_format="HWCN")),
    (DTypeError, "cast one of them", lambda: nn.conv(X, W.astype("f8"))),
    (DTypeError, "bool has no arithmetic", lambda: nn.conv(X > 0, W > 0)),
    (ShapeError, "stride must be at least 1", lambda: nn.conv(X, W, stride=0)),
    (ShapeError, "one for each of the 2", lambda: nn.conv(X, W, stride=(1, 2, 3))),
    (DTypeError, "stride is an integer", lambda: nn.conv(X, W, stride=1.5)),
    (ShapeError, "dilation must be at least 1", lambda: nn.conv(X, W, dilation=-1)),
    (ShapeError, "divide the 4 channels", lambda: nn.conv(X, W, groups=3)),
    (ShapeError, "groups must be at least 1", lambda: nn.conv(X, W, groups=0)),
    (ShapeError, "must divide the 3 results", lambda: nn.conv(X, W[:3, :, :, :2], groups=2)),
    (ShapeError, "padding is", lambda: nn.conv(X, W, padding="full")),
    (ShapeError, "padding is", lambda: nn.conv(X, W, padding=(1, 2, 3))),
    (ShapeError, "padding is", lambda: nn.conv(X, W, padding=[(1, 2, 3), (0, 0, 0)])),
    (DTypeError, "padding is", lambda: nn.conv(X, W, padding=0.5)),
    (DTypeError, "padding is", lambda: nn.conv(X, W, padding=[(1, None), (0, 0)])),
    (ShapeError, "there is no result", lambda: nn.conv(X[:, :2], W)),
    (ShapeError, "is empty", lambda: nn.conv(X, W[:, :0])),
    (ShapeError, "the bias", lambda: nn.conv(X, W, np.ones(5, "f4"))),
    (ShapeError, "the bias", lambda: nn.conv(X, W, np.ones(6, "f8"))),
    (ShapeError, "output_padding", lambda: nn.conv_transpose(X, W, output_padding=1)),
    (ShapeError, "at least 0", lambda: nn.conv_transpose(X, W, output_padding=-1)),
    (ShapeError, "g must have the shape", lambda: nn.conv_filter(X, X, 3)),
    (ShapeError, "window must be at least 1", lambda: nn.conv_filter(X, X, 0)),
]


@pytest.mark.parametrize(("error", "text", "call"), BAD, ids=[text for _, text, _ in BAD])
def test_bad_input_is_told_what_to_do(
    error: type[EinkornError], text: str, call: Callable[[], Any]
) -> None:
    with pytest.raises(error, match=text):
        call()


def test_the_filters_gradient_has_a_function() -> None:
    x, w = numbers(2, 6, 7, 4), numbers(6, 3, 2, 2, seed=1)
    options: Any = {"stride": 2, "padding": 1, "groups": 2}
    y, pull = ek.vjp(lambda w: nn.conv(x, w, **options), w)
    g = numbers(*y.shape, seed=2)
    (want,) = pull(g)
    assert_same_bits(np.asarray(nn.conv_filter(x, g, (3, 2), **options)), np.asarray(want))
    first = [np.moveaxis(a, -1, 1) for a in (x, g)]
    got = nn.conv_filter(*first, (3, 2), data_format="NCHW", **options)
    assert_same_bits(np.asarray(got), np.asarray(want))
    attrs = attributes(2, strides=(2, 2), low=(1, 1), high=(1, 1), groups=2)
    assert results(x.shape, (3, 2), attrs) == y.shape[1:-1]
