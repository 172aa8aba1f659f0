"""What single layers do: statistics, modes, settings, states, masks, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.errors import BoundsError, DTypeError, EinkornError, ShapeError

nn = ek.nn
rng = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


# -- normalisation ---------------------------------------------------------------------------------


def test_statistics_are_buffers_updated_once_in_each_training_call() -> None:
    x = 3 * floats(8, 4) + 1
    mean, var = np.zeros(4), np.ones(4)
    layer = nn.BatchNorm(4, momentum=0.3)
    assert layer.buffers.key_chains() == ["running_mean", "running_var"]

    @ek.compile
    def step() -> Any:
        return ek.value_and_grad(lambda: layer(x).sum(), layer)()

    for call in (step, step, lambda: layer(x), step):
        call()
        mean = 0.7 * mean + 0.3 * x.mean(0)
        var = 0.7 * var + 0.3 * x.var(0, ddof=1)
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(layer.running_var, var, rtol=1e-5)
    before = layer.state_dict()
    layer.eval()
    want = (x - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-5)
    step()
    for key, value in layer.state_dict().items():
        assert_same_bits(value, before[key])


def test_a_new_momentum_is_seen_without_a_new_trace() -> None:
    layer, x = nn.BatchNorm(4), floats(8, 4)
    step = ek.compile(lambda: layer(x))
    step()
    layer.momentum = 1.0
    step()
    np.testing.assert_allclose(layer.running_mean, x.mean(0), rtol=1e-5, atol=1e-6)
    assert len(step.explain().traces) == 1


def test_half_precision_keeps_wide_statistics() -> None:
    layer = nn.BatchNorm(4, dtype="float16")
    out = layer(floats(8, 4).astype(np.float16))
    assert (out.dtype, layer.w.dtype, layer.running_mean.dtype) == ("float16", "float16", "float32")


# -- modes and settings ----------------------------------------------------------------------------


def test_dropout_rates_that_become_or_leave_zero_are_seen() -> None:
    layer, x = nn.Dropout(0.0), np.ones((50, 50), np.float32)
    step = ek.compile(lambda: layer(x))
    for rate in (0.0, 0.5, 0.25, 0.0):
        layer.rate = rate
        assert abs(float((np.asarray(step()) == 0).mean()) - rate) < 0.05
    assert layer.rate == 0


def test_modules_made_by_build_have_the_mode_of_their_owner() -> None:
    block = nn.TransformerEncoderBlock(num_heads=2, dropout=0.5).eval()
    x = floats(2, 3, 4)
    assert_same_bits(block(x), block(x))
    assert not block.attention.training
    block.train()
    assert block.attention.training


def test_moving_average() -> None:
    layer, first, second = nn.ExponentialMovingAverage(0.9), floats(3), floats(3)
    step = ek.compile(lambda x: layer(x))
    np.testing.assert_allclose(step(first), first, rtol=1e-5)
    want = (0.9 * 0.1 * first + 0.1 * second) / (1 - 0.81)
    np.testing.assert_allclose(step(second), want, rtol=1e-5)
    np.testing.assert_allclose(layer.eval()(first), want, rtol=1e-5)
    plain = nn.ExponentialMovingAverage(0.9, debias=False)
    np.testing.assert_allclose(plain(first), 0.1 * first, rtol=1e-5)
    assert np.isfinite(np.asarray(nn.ExponentialMovingAverage().eval()(first))).all()
    with pytest.raises(ShapeError, match=r"takes inputs f32\[3\], got f32\[4\]"):
        plain(floats(4))
    with pytest.raises(EinkornError, match=r"decay is a number in \[0, 1\)"):
        nn.ExponentialMovingAverage(1.0)


# -- states and masks ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_sequence_in_two_parts_goes_on_from_the_state(kind: Any) -> None:
    layer, x = kind(3, 5, 2, return_state=True), floats(2, 6, 3)
    whole, last = layer(x)
    first, state = layer(x[:, :4])
    second, end = layer(x[:, 4:], state)
    np.testing.assert_allclose(ek.concat([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)
    for one, other in zip(ek.tree_leaves(end), ek.tree_leaves(last), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    start = layer.get_initial_state(2)
    assert_same_bits(layer(x, start)[0], whole)
    layer.return_sequence = layer.return_state = False
    np.testing.assert_allclose(layer(x), whole[:, -1], rtol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_cell_is_one_step_of_its_layer(kind: Any) -> None:
    layer, x = kind(3, 4, return_state=True), floats(2, 1, 3)
    out, state = layer(x)
    one, carry = layer.cells[0](x[:, 0])
    np.testing.assert_allclose(one, out[:, 0], rtol=1e-6, atol=1e-7)
    for a, b in zip(ek.tree_leaves(carry), ek.tree_leaves(state), strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-6, atol=1e-7)
    start = layer.cells[0].get_initial_state(2)
    assert_same_bits(layer.cells[0](x[:, 0], start)[0], one)


def test_the_second_direction_reads_backwards() -> None:
    layer, x = nn.GRU(3, 4, bidirectional=True), floats(2, 5, 3)
    out = np.asarray(layer(x))
    alone = nn.GRU(3, 4)
    alone.cells[0].v = layer.cells[1].v
    np.testing.assert_allclose(out[..., 4:], np.asarray(alone(x[:, ::-1]))[:, ::-1], rtol=1e-5)
    layer.return_sequence = False
    np.testing.assert_allclose(
        layer(x), np.concatenate([out[:, -1, :4], out[:, 0, 4:]], -1), rtol=1e-6
    )


def test_masks_of_attention() -> None:
    layer, x = nn.MultiHeadAttention(4, 2), floats(3, 5, 4)
    causal = layer(x, causal=True)
    lower = np.tri(5).astype(bool)
    for mask in (lower, np.broadcast_to(lower, (3, 5, 5)), lower[None, None]):
        np.testing.assert_allclose(layer(x, mask=mask), causal, rtol=1e-5, atol=1e-6)
    padding = np.arange(5) < 3
    short = layer(x, x[:, :3])
    np.testing.assert_allclose(
        layer(x, mask=np.broadcast_to(padding, (3, 1, 5))), short, rtol=1e-5, atol=1e-6
    )


def test_a_decoder_sees_no_later_tokens() -> None:
    model = nn.Transformer(8, 2, 1, 2, dropout=0.0, hidden=8)
    source, target = floats(1, 4, 8), floats(1, 5, 8)
    out = np.asarray(model(source, target))
    changed = target.copy()
    changed[:, 3:, 0] += 1
    again = np.asarray(model(source, changed))
    np.testing.assert_allclose(again[:, :3], out[:, :3], rtol=1e-5, atol=1e-6)
    assert not np.allclose(again[:, 3:], out[:, 3:])


def test_a_masked_filter_has_no_gradient_where_it_is_masked() -> None:
    layer = nn.Conv1D(2, 3, 3, mask=np.array([[1.0], [0.0], [1.0]]))
    gradient = ek.grad(lambda: layer(floats(1, 6, 2)).sum(), layer)()
    assert not np.asarray(gradient.w[:, 1]).any()
    assert "mask" in layer.buffers.key_chains()


def test_padding_rows_of_a_table() -> None:
    layer = nn.Embedding(4, 3, padding_idx=-1)
    assert not np.asarray(layer.w)[3].any()
    gradient = np.asarray(ek.grad(lambda: layer(np.array([0, 3])).sum(), layer)().w)
    assert gradient[0].all()
    assert not gradient[3].any()
    limited = nn.Embedding(4, 3, max_norm=1e-3)
    lengths = np.linalg.norm(np.asarray(limited(np.arange(4))), axis=-1)
    np.testing.assert_allclose(lengths, 1e-3, rtol=1e-5)


# -- bad input -------------------------------------------------------------------------------------

X = floats(2, 7, 4)
REFUSED = [
    (lambda: nn.Linear(3)(ek.asarray(1.0)), ShapeError, "needs an axis"),
    (lambda: nn.Linear(), EinkornError, r"Linear needs out_features: write Linear\(out_features\)"),
    (lambda: nn.Linear(5, 3)(X), ShapeError, r"takes 5 features in axis -1 .*w f32\[3,5\] says"),
    (lambda: nn.Conv2D(4, 3, 3)(X), ShapeError, r"takes inputs \(N, H, W, C\), got f32\[2,7,4\]"),
    (lambda: nn.Conv1D(5, 3, 3)(X), ShapeError, "takes 5 channels in axis -1"),
    (lambda: nn.Conv1D(3, 3, data_format="NCW")(X[0]), ShapeError, r"takes inputs \(N, C, W\)"),
    (lambda: nn.Conv1D(4, 3, 3)(X.astype("float64")), DTypeError, "has parameters of float32"),
    (lambda: nn.Conv1D(4, 3, (3, 3)), EinkornError, "one for each of 1 axes"),
    (lambda: nn.Conv1D(4, 3, 3, groups=2), EinkornError, "3 output channels are no 2 equal groups"),
    (lambda: nn.Conv1D(3, 4, 3, groups=2), EinkornError, "3 input channels are no 2 equal groups"),
    (lambda: nn.Conv1D(4, 3, 3, padding="full"), EinkornError, "padding is 'valid' or 'same'"),
    (lambda: nn.Conv1D(4, 3, 3, data_format="NSC"), EinkornError, "data_format is 'NWC' or"),
    (lambda: nn.Conv1D(4, 3, 3, mask=np.ones(2)), ShapeError, "mask broadcasts to the weights"),
    (lambda: nn.Conv2D(3), EinkornError, "Conv2D needs kernel_size"),
    (lambda: nn.DepthwiseConv2D(3, groups=2), EinkornError, "leave groups out"),
    (lambda: nn.BatchNorm2D()(X), ShapeError, r"takes inputs \[N, s..., C\] with axes: \(4,\)"),
    (lambda: nn.BatchNorm(4)(X[:1, 0]), ShapeError, "training needs more than one value"),
    (lambda: nn.BatchNorm(4, eps=-1.0), EinkornError, "eps is a number of at least 0"),
    (lambda: nn.LayerNorm((3, 4))(X), ShapeError, "takes 3 features in axis -2"),
    (lambda: nn.LayerNorm(()), EinkornError, "shape has at least one size"),
    (lambda: nn.GroupNorm(3)(X), EinkornError, "4 channels are no 3 equal groups"),
    (lambda: nn.MaxPool2D(2)(X), ShapeError, r"takes inputs \(N, H, W, C\)"),
    (lambda: nn.GlobalAvgPool()(X[0]), ShapeError, "one spatial axis or more"),
    (lambda: nn.Reshape((5, -1))(X), ShapeError, r"needs \(5, -1\) for \(7, 4\)"),
    (lambda: nn.Upsample(), EinkornError, "give either scale or size"),
    (lambda: nn.Embedding(4, 3)(np.array([4])), BoundsError, "index"),
    (lambda: nn.Embedding(4, 3)(X), DTypeError, "indices must be integers"),
    (lambda: nn.Embedding(4, 3, padding_idx=4), EinkornError, "padding_idx 4 is no row of 4"),
    (lambda: nn.LearnedPositions(6)(X), ShapeError, "with T up to 6"),
    (lambda: nn.SinusoidalPositions()(X[0, 0]), ShapeError, r"takes floats \[..., T, features\]"),
    (lambda: nn.LSTM(4, 3)(X[0]), ShapeError, r"takes inputs \(N, T, in\)"),
    (lambda: nn.LSTM(4, 3)(X[:, :0]), ShapeError, "needs a step"),
    (lambda: nn.LSTM(4, 3)(X, floats(1, 2, 3)), ShapeError, "takes a state of 2 tensors"),
    (lambda: nn.GRU(4, 3)(X, np.zeros((1, 2, 3))), DTypeError, r"in float32, got f64\[1,2,3\]"),
    (lambda: nn.RNN(4, 3, activation="sin"), EinkornError, "activation is 'tanh' or 'relu'"),
    (lambda: nn.LSTM(4, 3, dropout=1.0), EinkornError, "dropout is a number in"),
    (lambda: nn.MultiHeadAttention(4, 3), EinkornError, "4 features are no 3 equal heads"),
    (lambda: nn.MultiHeadAttention(6, 6, rotary=True), EinkornError, "heads of even size"),
    (lambda: nn.MultiHeadAttention(8, 4, kv_heads=3), EinkornError, "3 kv_heads do not divide 4"),
    (lambda: nn.MultiHeadAttention(8, 2)(X), ShapeError, "takes 8 features .*wq"),
    (lambda: nn.TransformerEncoder(0), EinkornError, "num_layers is an integer of at least 1"),
    (lambda: nn.Transformer(4, 2, causal=True), EinkornError, "the decoder is causal"),
    (lambda: nn.FeedForward(4, activation="sin"), EinkornError, "activation is 'relu' or"),
    (lambda: nn.Softplus(0.0), EinkornError, "beta is positive"),
    (lambda: nn.Hardtanh(1.0, 0.0), EinkornError, "low <= high"),
    (lambda: nn.PReLU(3)(X), ShapeError, "takes 3 channels in axis -1 .*a f32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), REFUSED, ids=lambda x: x if isinstance(x, str) else ""
)
def test_bad_input(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
