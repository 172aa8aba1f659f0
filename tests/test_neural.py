"""Neural functions against NumPy in float64, in every float dtype; bits, edges and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from function_checks import both
from hypothesis import given, settings
from hypothesis import strategies as st
from neural_checks import outcomes
from op_makers import EPS

import einkorn as ek
from einkorn.ir.dtypes import FLOATS, bfloat16, float32
from einkorn.ir.errors import BoundsError, DTypeError, EinkornError, ShapeError

nn = ek.nn
Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def near(got: Any, want: Array, dtype: Any, rounds: float = 8.0) -> None:
    """Equal up to some roundings of the largest element."""
    found = np.asarray(got)
    assert found.dtype == dtype.numpy
    assert found.shape == want.shape
    limit = rounds * EPS[dtype.name] * max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(found.astype("float64"), want, rtol=0, atol=limit)


# -- every dtype -----------------------------------------------------------------------------------


def np_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_layer_norm(x: Array, w: Array, b: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def np_pool(x: Array, fold: Function) -> Array:
    n, h, w, c = x.shape
    return fold(x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c), (2, 4))


def np_attention(q: Array, k: Array, v: Array) -> Array:
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    return np_softmax(np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)) @ v


def np_rotary(x: Array) -> Array:
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[-2])[:, None] * 10000.0 ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], -1)


def np_segments(x: Array, fold: Function) -> Array:
    ids = np.array([1, 0, 3, 1, 1, 7, -1])
    return np.stack([fold(x[ids == k], 0) for k in (0, 1, 3)])


IDS = np.array([1, 0, 3, 1, 1, 7, -1])
X = normal(2, 5, 6, 3)
CASES: dict[str, tuple[Function, Function, list[Array]]] = {
    "max_pool": (lambda x: nn.max_pool(x, 2), lambda x: np_pool(x, np.max), [X]),
    "avg_pool": (lambda x: nn.avg_pool(x, 2), lambda x: np_pool(x, np.mean), [X]),
    "adaptive": (
        lambda x: nn.adaptive_avg_pool(x, 1),
        lambda x: x.mean((1, 2), keepdims=True),
        [X],
    ),
    "layer_norm": (nn.layer_norm, np_layer_norm, [normal(4, 7), normal(7), normal(7, seed=1)]),
    "rms_norm": (
        nn.rms_norm,
        lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5),
        [normal(4, 7)],
    ),
    "group_norm": (
        lambda x: nn.group_norm(x, 2),
        lambda x: (
            np_layer_norm(
                x.reshape(3, 4, 2, 3).swapaxes(1, 2).reshape(3, 2, 12), np.ones(12), np.zeros(12)
            )
            .reshape(3, 2, 4, 3)
            .swapaxes(1, 2)
            .reshape(3, 4, 6)
        ),
        [normal(3, 4, 6)],
    ),
    "batch_norm": (
        lambda x: nn.batch_norm(x, None, None, training=True)[0],
        lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5),
        [normal(9, 3)],
    ),
    "attention": (
        lambda *x: nn.attention(*x, causal=True),
        np_attention,
        [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2)],
    ),
    "rotary": (nn.rotary_embedding, np_rotary, [normal(2, 5, 6)]),
    "segment_sum": (
        lambda x: nn.segment_sum(x, IDS, 4)[[0, 1, 3]],
        lambda x: np_segments(x, np.sum),
        [normal(7, 2)],
    ),
    "segment_mean": (
        lambda x: nn.segment_mean(x, IDS, 4)[[0, 1, 3]],
        lambda x: np_segments(x, np.mean),
        [normal(7, 2)],
    ),
    "segment_max": (
        lambda x: nn.segment_max(x, IDS, 4)[[0, 1, 3]],
        lambda x: np_segments(x, np.max),
        [normal(7, 2)],
    ),
    "segment_prod": (
        lambda x: nn.segment_prod(x, IDS, 4)[[0, 1, 3]],
        lambda x: np_segments(x, np.prod),
        [normal(7, 2)],
    ),
    "interpolate": (
        lambda x: nn.interpolate(x, 3, mode="linear", align_corners=True),
        lambda x: np.stack([x[:, 0], (x[:, 0] + x[:, 1]) / 2, x[:, 1]], 1),
        [normal(2, 2, 3)],
    ),
    "masked softmax": (
        lambda x: nn.softmax(x, where=np.array([True, False, True, True])),
        lambda x: np_softmax(np.where([True, False, True, True], x, -np.inf)),
        [normal(3, 4)],
    ),
    "cumulative_logsumexp": (
        nn.cumulative_logsumexp,
        lambda x: np.logaddexp.accumulate(x, -1),
        [normal(3, 7)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_in_every_float_dtype(name: str) -> None:
    ours, theirs, arrays = CASES[name]
    for dtype in FLOATS:
        given = [x.astype(dtype.numpy) for x in arrays]
        run = both if dtype in (bfloat16, float32) else lambda f, *x: f(*x)
        near(run(ours, *given), theirs(*(x.astype("float64") for x in given)), dtype)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    ours, theirs, arrays = CASES[name]
    cotangent = normal(*theirs(*arrays).shape, seed=9)
    _, *gradients = outcomes(ours, arrays, cotangent)
    for k, gradient in enumerate(gradients):
        direction = normal(*arrays[k].shape, seed=8)
        ends = [[*arrays[:k], arrays[k] + e * direction, *arrays[k + 1 :]] for e in (1e-5, -1e-5)]
        up, down = ((theirs(*end) * cotangent).sum() for end in ends)
        np.testing.assert_allclose((gradient * direction).sum(), (up - down) / 2e-5, rtol=1e-6)


def test_second_derivatives() -> None:
    """Rows of the Hessian against differences of the gradient."""
    for name in ("max_pool", "layer_norm", "attention", "segment_prod"):
        ours, _, arrays = CASES[name]
        x, *rest = (ek.asarray(a) for a in arrays)
        weight = ek.asarray(normal(*ours(x, *rest).shape, seed=3))

        def loss(x: Any, rest: Any = rest, ours: Any = ours, weight: Any = weight) -> Any:
            y = ours(x, *rest)
            return ek.sum(y * y * weight)

        direction = ek.asarray(normal(*x.shape, seed=4))
        second = ek.hvp(loss, (x,), (direction,))
        second = second[0] if isinstance(second, tuple) else second
        up, down = (ek.grad(loss)(x + e * direction) for e in (1e-6, -1e-6))
        np.testing.assert_allclose(second, (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


def test_the_largest_and_sorted_elements_have_gradients() -> None:
    x = np.array([[3.0, 1.0, 2.0], [0.5, 5.0, 4.0]])
    largest = outcomes(lambda x: ek.topk(x, 2).values, [x], np.array([[1.0, 2], [3, 4]]))[1]
    assert largest.tolist() == [[1, 0, 2], [0, 3, 4]]
    ordered = outcomes(ek.sort, [x], np.array([[1.0, 2, 3], [4, 5, 6]]))[1]
    assert ordered.tolist() == [[3, 1, 2], [4, 6, 5]]


def test_examples_side_by_side() -> None:
    """vmap of composed functions is the loop over examples."""
    functions: list[tuple[Function, Array]] = [
        (lambda x: nn.attention(x, x, x, causal=True), normal(3, 2, 5, 4)),
        (lambda x: nn.max_pool(x, 3, padding=1, stride=2), normal(3, 2, 7, 5, 2)),
        (lambda x: nn.interpolate(x, 4, mode="linear"), normal(3, 2, 7, 2)),
        (lambda x: nn.segment_max(x, IDS, 4), normal(3, 7, 2)),
        (lambda x: nn.layer_norm(x, axes=(0, 1)), normal(3, 4, 5)),
    ]
    for f, x in functions:
        one_by_one = np.stack([np.asarray(f(ek.asarray(row))) for row in x])
        np.testing.assert_array_equal(np.asarray(ek.vmap(f)(ek.asarray(x))), one_by_one)


# -- windows ---------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_pools_of_any_shape(data: st.DataObject) -> None:
    """Against the meaning, window by window."""
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rank, channels = draw(1, 2), draw(1, 19)
    sizes = tuple(draw(1, 8) for _ in range(rank))
    dilation = tuple(draw(1, 2) for _ in range(rank))
    window = tuple(draw(1, (n - 1) // d + 1) for n, d in zip(sizes, dilation))
    stride = tuple(draw(1, 4) for _ in range(rank))
    pads = tuple((draw(0, w // 2), draw(0, w // 2)) for w in window)
    x = normal(2, *sizes, channels).astype("float32")
    options = {"stride": stride, "padding": pads, "dilation": dilation}
    around = ((0, 0), *pads, (0, 0))
    gaps = [(w - 1) * d + 1 for w, d in zip(window, dilation)]
    for fill, pool, fold in ((-np.inf, nn.max_pool, np.max), (0.0, nn.avg_pool, np.mean)):
        padded = np.pad(x.astype("float64"), around, constant_values=fill)
        seen = np.lib.stride_tricks.sliding_window_view(padded, gaps, tuple(range(1, rank + 1)))
        steps = tuple(slice(None, None, s) for s in stride)
        taps = tuple(slice(None, None, d) for d in dilation)
        want = fold(seen[(slice(None), *steps, slice(None), *taps)], tuple(range(-rank, 0)))
        np.testing.assert_allclose(both(lambda x: pool(x, window, **options), x), want, 1e-5, 1e-6)  # noqa: B023


def test_the_gradient_goes_to_the_first_largest() -> None:
    x = ek.asarray(np.array([1.0, 1.0, 0.0, 0.0, np.nan, 2.0]).reshape(1, 6, 1))
    gradient = ek.grad(lambda x: ek.sum(nn.max_pool(x, 2)))(x)
    assert np.asarray(gradient).ravel().tolist() == [1, 0, 1, 0, 1, 0]
    overlapping = ek.grad(lambda x: ek.sum(nn.max_pool(x, 3, stride=1)))(ek.flip(x, axis=1))
    assert np.asarray(overlapping).ravel().tolist() == [0, 2, 0, 0, 2, 0]


def test_pools_of_integers() -> None:
    x = np.arange(12, dtype="int32").reshape(1, 6, 2)
    assert nn.max_pool(x, 2).dtype == ek.int32
    assert nn.avg_pool(x, 2).dtype == ek.float32
    assert np.asarray(nn.avg_pool(x, 2)).ravel().tolist() == [1, 2, 5, 6, 9, 10]


def test_channels_first() -> None:
    x = normal(2, 3, 6, 7).astype("float32")
    for f in (
        lambda x, d: nn.max_pool(x, (2, 3), padding="same", stride=2, data_format=d),
        lambda x, d: nn.avg_pool(x, 3, padding="same", data_format=d, count_include_pad=False),
        lambda x, d: nn.adaptive_max_pool(x, (4, None), data_format=d),
        lambda x, d: nn.interpolate(x, scale=2, data_format=d),
    ):
        last = np.asarray(f(np.moveaxis(x, 1, -1), "NHWC"))
        np.testing.assert_array_equal(np.asarray(f(x, "NCHW")), np.moveaxis(last, -1, 1))


# -- attention -------------------------------------------------------------------------------------


def test_a_query_without_keys_gives_zeros() -> None:
    q, k, v = (normal(2, 3, 4, seed=s).astype("float32") for s in range(3))
    mask = np.array([[True, False, True], [False] * 3, [True] * 3])
    added = np.where(mask, 0, -np.inf).astype("float32")
    for given_mask in (mask, added):
        found = outcomes(
            lambda q, k, v, m=given_mask: nn.attention(q, k, v, mask=m),
            [q, k, v],
            np.ones((2, 3, 4)),
        )
        assert not found[0][:, 1].any()
        assert not found[1][:, 1].any()
        assert all(np.isfinite(x).all() for x in found)


def test_long_attention_is_that_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of queries, with every kind of mask, as at once; also the gradients."""
    from einkorn.functions import attention as module

    q, k, v = (normal(2, 2, 12, 4, seed=s) for s in range(3))
    masks: list[dict[str, Any]] = [
        {"mask": normal(12, 12) > 0, "causal": True},
        {"mask": normal(1, 12) > -1, "bias": normal(2, 1, 12, 1)},
    ]
    for options in masks:
        f = lambda q, k, v, options=options: nn.attention(q, k, v, **options)  # noqa: E731
        whole = outcomes(f, [q, k, v], np.ones(q.shape))
        with monkeypatch.context() as patch:
            patch.setattr(module, "PLAIN_SCORES", 60)
            parts = outcomes(f, [q, k, v], np.ones(q.shape))
        for one, other in zip(whole, parts):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_long_attention_keeps_one_block_of_scores() -> None:
    q = ek.asarray(np.zeros((1, 1, 4096, 8), "float32"))
    step = ek.compile(lambda q: ek.grad(lambda q: ek.sum(nn.attention(q, q, q)))(q))
    assert step.lower(q).memory.peak_bytes < 4096 * 4096 * 4 / 2


def test_dropout_of_attention() -> None:
    q = np.zeros((4, 64, 8), "float32")
    v = np.ones((4, 64, 8), "float32")
    ek.random.seed(3)
    eager = np.asarray(nn.attention(q, q, v, dropout=0.25))
    ek.random.seed(3)
    compiled = np.asarray(ek.compile(lambda q, v: nn.attention(q, q, v, dropout=0.25))(q, v))
    np.testing.assert_array_equal(eager, compiled)
    assert abs(eager.mean() - 1) < 0.02
    assert eager.std() > 0.01


def test_positions() -> None:
    table = np.asarray(nn.sinusoidal_positions(6, 4, dtype="float64"))
    angle = np.arange(6)[:, None] / np.array([1.0, 100.0])
    np.testing.assert_allclose(table[:, ::2], np.sin(angle), atol=1e-12)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angle), atol=1e-12)
    x = normal(3, 5, 6)
    pairs = x.reshape(3, 5, 3, 2)
    joined = np.concatenate([pairs[..., 0], pairs[..., 1]], -1)
    turned = np.asarray(nn.rotary_embedding(joined)).reshape(3, 5, 2, 3).swapaxes(-1, -2)
    both_ways = np.asarray(nn.rotary_embedding(x, interleaved=True)).reshape(3, 5, 3, 2)
    np.testing.assert_allclose(both_ways, turned, atol=1e-12)
    later = np.asarray(nn.rotary_embedding(x[:, 2:3], np.array([2])))
    np.testing.assert_array_equal(later, np.asarray(nn.rotary_embedding(x))[:, 2:3])


# -- segments, losses ------------------------------------------------------------------------------


def test_empty_segments() -> None:
    x = np.array([[1.0, -2.0], [3.0, 5.0]], "float32")
    ids = np.array([2, 2])
    want = {"sum": 0, "mean": 0, "max": -np.inf, "min": np.inf, "prod": 1}
    for name, fill in want.items():
        found = np.asarray(both(lambda x, i, n=name: getattr(nn, f"segment_{n}")(x, i, 3), x, ids))
        assert (found[:2] == fill).all()
    assert np.asarray(nn.segment_max(x.astype("int8"), ids, 3))[0, 0] == -128
    assert nn.segment_max(x[:0], ids[:0], 3).shape == (3, 2)


def test_ties_of_segments_share_the_gradient() -> None:
    x = np.array([2.0, 2.0, 1.0, 2.0, -np.inf])
    gradient = ek.grad(lambda x: ek.sum(nn.segment_max(x, np.array([0, 0, 0, 0, 1]), 2)))
    np.testing.assert_allclose(gradient(x), [1 / 3, 1 / 3, 0, 1 / 3, 0])


def test_losses_at_the_ends() -> None:
    """Where other formulas give NaN or infinity."""
    ends = np.array([0.0, 1.0, 0.0, 1.0], "float32")
    target = np.array([0.0, 1.0, 1.0, 0.0], "float32")
    losses, gradient, _ = outcomes(
        lambda p, t: nn.binary_cross_entropy(p, t, reduction="none"), [ends, target], np.ones(4)
    )
    assert losses.tolist() == [0, 0, 100, 100]
    assert np.isfinite(gradient).all()
    far = np.array([-1e4, 1e4], "float32")
    sides = (far > 0).astype("float32")
    for f in (nn.binary_cross_entropy_with_logits, nn.huber_loss, nn.smooth_l1_loss):
        found = outcomes(lambda x, f=f: f(x, sides), [far], np.ones(()))
        assert all(np.isfinite(x).all() for x in found)
    endless = np.array([np.inf, 0.0], "float32")
    _, gradient = outcomes(lambda x: nn.huber_loss(x, sides), [endless], np.ones(()))
    assert gradient.tolist() == [0.5, -0.5]
    zeros = np.array([0.0, 1.0], "float32")
    found = outcomes(lambda x: nn.kl_div(x, zeros), [np.log(ends[:2] + 1)], np.ones(()))
    assert all(np.isfinite(x).all() for x in found)


ACTIVATIONS = (
    "celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid logit mish "
    "relu relu6 selu sigmoid silu softmax softmin softplus softshrink softsign tanhshrink"
)
LOSSES = (
    "binary_cross_entropy binary_cross_entropy_with_logits hinge_embedding_loss hinge_loss "
    "huber_loss kl_div l1_loss log_cosh_loss mse_loss poisson_nll_loss smooth_l1_loss "
    "soft_margin_loss"
)


def test_no_formula_makes_a_number_of_nan() -> None:
    x = np.array([[np.nan, 0.25], [0.5, 1.0]], "float32")
    y = np.ones((2, 2), "float32")
    for name in ACTIVATIONS.split():
        found, *_ = outcomes(getattr(nn, name), [x], np.ones((2, 2)))
        assert np.isnan(found[:, 0]).tolist() == [True, False], name
    for name in LOSSES.split():
        assert np.isnan(getattr(nn, name)(x, y).item()), name
    assert np.isnan(nn.cross_entropy(x, np.array([0, 1])).item())
    found = nn.triplet_margin_loss(x, y, 2 * y, reduction="none").numpy()
    assert np.isnan(found).tolist() == [True, False]
    assert np.isnan(nn.cosine_similarity(x, y).numpy()).tolist() == [True, False]


def test_embedding_out_of_range() -> None:
    table = ek.asarray(normal(4, 2))
    with pytest.raises(BoundsError):
        nn.embedding(np.array([0, 4]), table)
    step = ek.compile(lambda i: nn.embedding(i, table))
    with pytest.raises(BoundsError):
        np.asarray(step(ek.asarray(np.array([0, 4]))))


# -- bad input -------------------------------------------------------------------------------------

F = np.zeros((2, 4, 4, 3), "float32")
BAD: list[tuple[type[EinkornError], Function]] = [
    (ShapeError, lambda: nn.max_pool(F[0, 0], 2)),
    (ShapeError, lambda: nn.max_pool(F, 5)),
    (ShapeError, lambda: nn.max_pool(F, 0)),
    (ShapeError, lambda: nn.max_pool(F, (2, 2, 2))),
    (ShapeError, lambda: nn.max_pool(F, 2, stride=0)),
    (ShapeError, lambda: nn.max_pool(F, 2, padding=-1)),
    (ShapeError, lambda: nn.max_pool(F, 2, padding=3)),
    (ShapeError, lambda: nn.max_pool(F, 2, padding="full")),
    (ShapeError, lambda: nn.max_pool(F, 2, padding=((1, 1),))),
    (ShapeError, lambda: nn.max_pool(F, 2, data_format="CHWN")),
    (ShapeError, lambda: nn.max_pool(F[:, :0], 2)),
    (ShapeError, lambda: nn.avg_pool(F, 2, padding=2**40)),
    (DTypeError, lambda: nn.max_pool(F > 0, 2)),
    (DTypeError, lambda: nn.max_pool(F, 2.5)),
    (DTypeError, lambda: nn.max_pool(F, 2, ceil_mode=1)),
    (ShapeError, lambda: nn.adaptive_max_pool(F, 0)),
    (ShapeError, lambda: nn.adaptive_avg_pool(F[:, :0], 2)),
    (ShapeError, lambda: nn.window_place(F, F, window=2, strides=2, low=0, high=0, dilation=1)),
    (ShapeError, lambda: nn.interpolate(F)),
    (ShapeError, lambda: nn.interpolate(F, 2, 2)),
    (ShapeError, lambda: nn.interpolate(F, 0)),
    (ShapeError, lambda: nn.interpolate(F, scale=0.1)),
    (ShapeError, lambda: nn.interpolate(F, scale=(1, -1))),
    (ShapeError, lambda: nn.interpolate(F, 3, mode="trilinear")),
    (ShapeError, lambda: nn.interpolate(F, 3, mode="sinc")),
    (ShapeError, lambda: nn.interpolate(F, 3, align_corners=True)),
    (DTypeError, lambda: nn.interpolate(F.astype(int), 3, mode="bilinear")),
    (ShapeError, lambda: nn.layer_norm(F, np.ones(4, "float32"))),
    (ShapeError, lambda: nn.layer_norm(F, axes=(1, 1))),
    (ShapeError, lambda: nn.layer_norm(F, axes=4)),
    (ShapeError, lambda: nn.layer_norm(F, eps=-1)),
    (DTypeError, lambda: nn.layer_norm(F.astype(int))),
    (ShapeError, lambda: nn.group_norm(F, 2)),
    (ShapeError, lambda: nn.group_norm(F, 3, axis=0)),
    (ShapeError, lambda: nn.batch_norm(F, None, np.ones(3), training=True)),
    (ShapeError, lambda: nn.batch_norm(F[:1, :1, :1], None, None, training=True)),
    (DTypeError, lambda: nn.batch_norm(F, None, None, training=1)),
    (ShapeError, lambda: nn.attention(F, F[..., :2], F)),
    (ShapeError, lambda: nn.attention(F, F[:, :3], F[:, :3])),
    (ShapeError, lambda: nn.attention(F[0, 0, 0], F, F)),
    (ShapeError, lambda: nn.attention(F, F, F, mask=np.ones((3, 4), bool))),
    (ShapeError, lambda: nn.attention(F, F, F, mask=np.ones((4, 4), int))),
    (ShapeError, lambda: nn.attention(F, F, F, dropout=1.0)),
    (DTypeError, lambda: nn.attention(F, F, F, bias=np.ones((4, 4), bool))),
    (ShapeError, lambda: nn.rotary_embedding(F)),
    (ShapeError, lambda: nn.rotary_embedding(F[..., :2], np.arange(3))),
    (ShapeError, lambda: nn.sinusoidal_positions(4, 3)),
    (DTypeError, lambda: nn.embedding(F[0, 0, 0], F[0, 0])),
    (ShapeError, lambda: nn.embedding(np.array([0]), F[0])),
    (ShapeError, lambda: nn.embedding(np.array([0]), F[0, 0], padding_idx=4)),
    (ShapeError, lambda: nn.segment_sum(F, np.array([0, 1, 2]), 3)),
    (ShapeError, lambda: nn.segment_sum(F, np.array([0.0, 1.0]), 3)),
    (ShapeError, lambda: nn.segment_sum(F, np.array([0, 1]), -1)),
    (DTypeError, lambda: nn.segment_max(F > 0, np.array([0, 1]), 3)),
    (DTypeError, lambda: nn.segment_min(F + 0j, np.array([0, 1]), 3)),
    (DTypeError, lambda: nn.max_pool(F + 0j, 2)),
    (DTypeError, lambda: nn.rms_norm(F + 0j)),
    (ShapeError, lambda: nn.softmax(F, where=np.ones(5, bool))),
    (ShapeError, lambda: nn.softmax(F, where=F)),
    (ShapeError, lambda: nn.glu(F)),
    (ShapeError, lambda: nn.hardtanh(F, 1, 0)),
    (ShapeError, lambda: nn.gelu(F, approximate="erf")),
    (ShapeError, lambda: nn.l1_loss(F, F[0])),
    (DTypeError, lambda: nn.l1_loss(F.astype(int), F.astype(int))),
    (ShapeError, lambda: nn.l1_loss(F, F, reduction="total")),
    (ShapeError, lambda: nn.huber_loss(F, F, delta=0)),
    (ShapeError, lambda: nn.binary_cross_entropy(F, F, weight=np.ones((5, 2, 4, 4, 3)))),
    (ShapeError, lambda: nn.kl_div(F[0, 0, 0, 0], F[0, 0, 0, 0], reduction="batchmean")),
    (ShapeError, lambda: nn.cross_entropy(F[0, 0], np.zeros(4, int), weight=np.ones(4))),
    (ShapeError, lambda: nn.cross_entropy(F[0, 0], F[0, 0], ignore_index=1)),
    (BoundsError, lambda: nn.nll_loss(F[0, 0], np.full(4, 3))),
    (ShapeError, lambda: nn.nll_loss(F[0, 0], F[0, 0])),
    (ShapeError, lambda: nn.cosine_embedding_loss(F, F, F)),
    (ShapeError, lambda: nn.cosine_similarity(F, F, axis=4)),
    (ShapeError, lambda: nn.cumulative_logsumexp(F, axis=4)),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_input(index: int) -> None:
    error, call = BAD[index]
    with pytest.raises(error) as caught:
        call()
    assert len(str(caught.value)) > 20
