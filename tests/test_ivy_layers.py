"""Layers, activations and losses of the dialect `ivy`: those of einkorn with arguments of Ivy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import both
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.dialects import ivy
from einkorn.ir.errors import DTypeError, EinkornError

DRAW = np.random.default_rng(7)


def floats(*shape: int) -> Any:
    return DRAW.normal(size=shape).astype("float32")


ROW, MAP, BOX = floats(2, 9, 3), floats(2, 8, 7, 3), floats(1, 5, 6, 4, 2)

# An Ivy layer, the layer of einkorn that it must equal, and an input.
LAYERS: dict[str, tuple[Callable[..., Any], Callable[[], nn.Module], Any]] = {
    "Conv1D": (
        lambda **o: ivy.Conv1D(3, 4, 2, 2, "VALID", dilations=2, **o),
        lambda: nn.Conv1D(3, 4, 2, stride=2, dilation=2),
        ROW,
    ),
    "Conv2D": (
        lambda **o: ivy.Conv2D(3, 4, [3, 2], [2, 1], "SAME", **o),
        lambda: nn.Conv2D(3, 4, (3, 2), stride=(2, 1), padding="same"),
        MAP,
    ),
    "Conv2D first": (
        lambda **o: ivy.Conv2D(8, 4, 3, 1, [(1, 0), (0, 2)], data_format="NCHW", **o),
        lambda: nn.Conv2D(8, 4, 3, padding=[(1, 0), (0, 2)], data_format="NCHW"),
        MAP,
    ),
    "Conv3D": (
        lambda **o: ivy.Conv3D(2, 3, 2, 1, "VALID", **o),
        lambda: nn.Conv3D(2, 3, 2),
        BOX,
    ),
    "Conv1DTranspose": (
        lambda **o: ivy.Conv1DTranspose(3, 4, 3, 2, "SAME", **o),
        lambda: nn.Conv1DTranspose(3, 4, 3, stride=2, padding="same"),
        ROW,
    ),
    "Conv2DTranspose": (
        lambda **o: ivy.Conv2DTranspose(3, 4, [3, 2], 2, "VALID", **o),
        lambda: nn.Conv2DTranspose(3, 4, (3, 2), stride=2),
        MAP,
    ),
    "Conv3DTranspose": (
        lambda **o: ivy.Conv3DTranspose(2, 3, 2, 1, "VALID", **o),
        lambda: nn.Conv3DTranspose(2, 3, 2),
        BOX,
    ),
    "DepthwiseConv2D": (
        lambda **o: ivy.DepthwiseConv2D(3, [3, 3], 1, "SAME", **o),
        lambda: nn.DepthwiseConv2D(3, 3, padding="same"),
        MAP,
    ),
    "MultiHeadAttention": (
        lambda **o: ivy.MultiHeadAttention(3, num_heads=2, head_dim=4, use_proj_bias=False, **o),
        lambda: nn.MultiHeadAttention(3, 2, head_dim=4, with_bias=False),
        ROW,
    ),
    "Embedding": (
        lambda **o: ivy.Embedding(10, 4, 2, 1.5, **o),
        lambda: nn.Embedding(10, 4, padding_idx=2, max_norm=1.5),
        np.array([[1, 2], [9, 0]]),
    ),
    "LayerNorm": (
        lambda **o: ivy.LayerNorm([7, 3], eps=1e-3, **o),
        lambda: nn.LayerNorm((7, 3), eps=1e-3),
        MAP,
    ),
    "BatchNorm1D": (
        lambda **o: ivy.BatchNorm1D(3, momentum=0.2, **o),
        lambda: nn.BatchNorm1D(3, momentum=0.2),
        ROW,
    ),
    "BatchNorm2D": (
        lambda **o: ivy.BatchNorm2D(8, data_format="NCS", **o),
        lambda: nn.BatchNorm2D(8, data_format="NCHW"),
        MAP,
    ),
    "BatchNorm3D": (lambda **o: ivy.BatchNorm3D(2, **o), lambda: nn.BatchNorm3D(2), BOX),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_one_of_einkorn(name: str) -> None:
    made, native, x = LAYERS[name]
    layer, want = made(), native()
    assert isinstance(layer, ivy.Module)
    assert isinstance(layer.v, ivy.Container)
    want.v = layer.v
    assert_same_bits(layer(x), want(x))
    assert repr(layer) == repr(want).replace(type(want).__name__, type(layer).__name__)
    for own, other in zip(layer.buffers.to_flat_list(), want.buffers.to_flat_list(), strict=True):
        assert_same_bits(own, other)

    def loss() -> Any:
        return (layer(x) ** 2).sum()

    both(lambda: ek.value_and_grad(loss, layer)(), leaves=layer.buffers.to_flat_list())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_variables_a_device_and_a_dtype(name: str) -> None:
    made, _, _ = LAYERS[name]
    values = made().v.copy() * 2.0
    assert made(v=values, device="cpu").v.identical(values)
    assert made(dev="cpu", training=False).training is False
    assert {x.dtype for x in made(dtype="float64").parameters()} == {ek.float64}
    with pytest.raises(DTypeError, match="device 'gpu:0' is not available"):
        made(device="gpu:0")
    with pytest.raises(EinkornError, match="the structures differ"):
        made(v={"nothing": ek.ones(1)})


POOLS: dict[str, tuple[nn.Module, nn.Module, Any]] = {
    "MaxPool1D": (ivy.MaxPool1D(3, 2, "SAME"), nn.MaxPool1D(3, 2, "same"), ROW),
    "MaxPool2D": (ivy.MaxPool2D([2, 3], 1, "VALID"), nn.MaxPool2D((2, 3), 1), MAP),
    "MaxPool3D": (ivy.MaxPool3D(2, 2, 0), nn.MaxPool3D(2, 2), BOX),
    "AvgPool1D": (
        ivy.AvgPool1D(3, 1, "SAME"),
        nn.AvgPool1D(3, 1, "same", count_include_pad=False),
        ROW,
    ),
    "AvgPool2D": (
        ivy.AvgPool2D(2, 2, "VALID", data_format="NCHW"),
        nn.AvgPool2D(2, 2, data_format="NCHW"),
        MAP,
    ),
    "AvgPool3D": (ivy.AvgPool3D(2, 1, "VALID"), nn.AvgPool3D(2, 1), BOX),
    "AdaptiveAvgPool1d": (
        ivy.AdaptiveAvgPool1d(2),
        nn.AdaptiveAvgPool1D(2, data_format="NCW"),
        ROW,
    ),
    "AdaptiveAvgPool2d": (ivy.AdaptiveAvgPool2d((3, 2)), nn.AdaptiveAvgPool2D((3, 2)), MAP),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    layer, want, x = POOLS[name]
    assert isinstance(layer, ivy.Module)
    assert_same_bits(layer(x), want(x))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("sizes", [(8, 7), (7, 6)])
@pytest.mark.parametrize("last", [True, False])
def test_the_shape_of_a_transposed_convolution_may_be_given(
    padding: str, sizes: tuple[int, int], last: bool
) -> None:
    """It is the adjoint of the convolution that takes this shape to that of its input."""
    window, stride = (3, 2), 2
    conv = nn.Conv2D(4, 5, window, stride=stride, padding=padding.lower(), with_bias=False)
    y = floats(2, *sizes, 4)
    x = floats(*conv(y).shape)
    order = (0, 1, 2, 3) if last else (0, 3, 1, 2)
    layer = ivy.Conv2DTranspose(
        5, 4, window, stride, padding, output_shape=sizes, data_format="NHWC" if last else "NCHW"
    )
    layer.v = {"w": ek.permute_dims(conv.w, (3, 1, 2, 0)), "b": ek.zeros(4)}
    out = layer(x.transpose(order))
    assert out.shape == y.transpose(order).shape
    product = float((out * y.transpose(order)).sum())
    np.testing.assert_allclose(product, float((conv(y) * x).sum()), rtol=1e-4)
    whole = ivy.Conv2DTranspose(
        5, 4, window, stride, padding, output_shape=(2, *sizes, 4), v=layer.v
    )
    assert whole(x).shape == y.shape


def test_an_lstm_has_a_state_for_each_layer() -> None:
    layer = ivy.LSTM(3, 4, num_layers=2)
    want = nn.LSTM(3, 4, 2, return_state=True, with_bias=False)
    want.v = layer.v
    x = floats(2, 5, 6, 3)
    out, (h, c) = layer(x)
    flat, ends = want(x.reshape(10, 6, 3))
    assert_same_bits(out, flat.reshape(2, 5, 6, 4))
    for got, end in ((h, ends[0]), (c, ends[1])):
        assert len(got) == 2
        for k in range(2):
            assert_same_bits(got[k], end[k].reshape(2, 5, 4))
    start = layer.get_initial_state((2, 5))
    assert [part.shape for part in (*start[0], *start[1])] == [(2, 5, 4)] * 4
    assert layer.get_initial_state([3], dtype="float64")[1][0].dtype == ek.float64
    first, state = layer(x[:, :, :3])
    second, (h2, _) = layer(x[:, :, 3:], initial_state=state)
    assert_same_bits(ek.concat([first, second], axis=-2), out)
    assert_same_bits(h2[1], h[1])
    last = ivy.LSTM(3, 4, num_layers=2, return_sequence=False, return_state=False, v=layer.v)
    assert_same_bits(last(x), out[..., -1, :])


def test_what_layers_have_besides() -> None:
    x = floats(4, 6)
    norm, plain = ivy.LayerNorm(6, new_std=2.0), nn.LayerNorm(6)
    np.testing.assert_allclose(norm(x).numpy(), 2 * plain(x).numpy(), rtol=1e-6)
    norm.v = {"w": ek.full(6, 3.0), "b": ek.ones(6)}
    np.testing.assert_allclose(norm(x).numpy(), 6 * plain(x).numpy() + 1, rtol=1e-5)
    bare = ivy.LayerNorm(6, new_std=2.0, elementwise_affine=False)
    assert_same_bits(bare(x), plain(x) * 2.0)
    query, mask = floats(2, 5, 8), np.tril(np.ones((5, 5), bool))
    layer = ivy.MultiHeadAttention(8, num_heads=2, key_dim=3, value_dim=6, scale=0.1)
    arguments = query, floats(2, 5, 3), floats(2, 5, 6)
    masked = layer(*arguments, attention_mask=mask)
    assert_same_bits(layer(*arguments, is_causal=True), masked)
    usual = ivy.MultiHeadAttention(8, num_heads=2, key_dim=3, value_dim=6, v=layer.v)
    assert not np.array_equal(masked, usual(*arguments, is_causal=True))
    with pytest.raises(EinkornError, match="scale is a number"):
        nn.MultiHeadAttention(8, 2, scale="large")  # type: ignore[arg-type]
    dropout = ivy.Dropout(0.5, scale=False)
    assert set(np.unique(dropout(np.ones(200, "float32")))) == {0.0, 1.0}
    assert dropout.eval()(x) is not None
    assert ivy.Identity()(3) == 3


def test_the_scale_of_attention_multiplies_scores() -> None:
    x = floats(2, 5, 8)
    layer = nn.MultiHeadAttention(8, 2)
    other = nn.MultiHeadAttention(8, 2, scale=1 / np.sqrt(4.0))
    other.v = layer.v
    assert_same_bits(other(x), layer(x))
    flat = nn.MultiHeadAttention(8, 2, scale=0.0)
    flat.v = layer.v
    mean = flat(x).numpy()
    np.testing.assert_allclose(mean, np.broadcast_to(mean[:, :1], mean.shape), rtol=1e-4, atol=1e-6)


# -- activations and losses ------------------------------------------------------------------------


def test_activations_have_the_numbers_of_ivy() -> None:
    x = ek.asarray([-2.0, -0.5, 0.0, 1.0, 30.0])
    np.testing.assert_allclose(ivy.LeakyReLU()(x).numpy()[:2], [-0.4, -0.1])
    assert_same_bits(ivy.leaky_relu(x), ivy.LeakyReLU()(x))
    assert_same_bits(ivy.leaky_relu(x, alpha=0.01), nn.leaky_relu(x))
    assert_same_bits(ivy.PReLU(ek.asarray([0.5]))(x), ek.where(x > 0, x, 0.5 * x))
    assert ivy.PReLU(0.5).v.key_chains() == []
    assert_same_bits(ivy.SeLU()(x), nn.selu(x))
    assert_same_bits(ivy.logsigmoid(x), nn.log_sigmoid(x))
    for approximate in (False, True):
        want = nn.gelu(x, approximate="tanh" if approximate else "none")
        assert_same_bits(ivy.gelu(x, approximate=approximate), want)
        assert_same_bits(ivy.GELU(approximate=approximate)(x), want)
    assert_same_bits(ivy.softplus(x), nn.softplus(x))
    assert_same_bits(ivy.softplus(x, beta=2.0, threshold=10.0), ivy.Softplus(2.0, 10.0)(x))
    assert ivy.softplus(x, beta=2.0, threshold=10.0)[4].item() == 30.0
    assert_same_bits(ivy.Softplus(None)(x), nn.softplus(x))
    for name in ("ReLU", "ReLU6", "Mish", "SiLU", "Sigmoid", "Tanh", "Hardswish", "LogSigmoid"):
        assert getattr(ivy, name) is getattr(nn, name)
    for name in ("GEGLU", "Softmax", "LogSoftmax", "Logit", "ELU", "Identity"):
        assert getattr(ivy, name) is getattr(nn, name)


def test_dropout_as_a_function() -> None:
    x = np.ones(1000, "float32")
    assert ivy.dropout(x, 0.5, training=False).numpy().sum() == 1000
    assert set(np.unique(ivy.dropout(x, 0.75))) == {0.0, 4.0}
    first = ivy.dropout(x, 0.5, scale=False, seed=3, dtype="float64")
    assert first.dtype == ek.float64
    assert set(np.unique(first)) == {0.0, 1.0}
    assert_same_bits(first, ivy.dropout(x, 0.5, scale=False, seed=3, dtype="float64"))


TRUE, PRED = np.float32([[0, 0, 1], [1, 0, 0]]), np.float32([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])


def test_cross_entropies_are_of_what_is_true_and_what_is_predicted() -> None:
    rows = -np.log(np.float32([0.7, 0.5]))
    np.testing.assert_allclose(ivy.CrossEntropyLoss()(TRUE, PRED).numpy(), rows, rtol=1e-6)
    mean = ivy.cross_entropy(TRUE, PRED)
    np.testing.assert_allclose(mean.numpy(), rows / 3, rtol=1e-6)
    assert_same_bits(ivy.CrossEntropyLoss()(TRUE, PRED, reduction="mean"), mean)
    whole = ivy.cross_entropy(TRUE, PRED, axis=None, reduction="sum")
    np.testing.assert_allclose(whole.item(), rows.sum(), rtol=1e-6)
    assert_same_bits(ivy.sparse_cross_entropy([2, 0], PRED), mean)
    wrong = ivy.cross_entropy([0.0, 1.0], [1.0, 0.0], epsilon=1e-3, reduction="none")
    np.testing.assert_allclose(wrong.numpy(), [0, -np.log(1e-3)], rtol=1e-5)
    with pytest.raises(EinkornError, match="reduction"):
        ivy.cross_entropy(TRUE, PRED, reduction="most")
    with pytest.raises(EinkornError, match="CrossEntropyLoss has the settings axis, epsilon, redu"):
        ivy.CrossEntropyLoss()(TRUE, PRED, from_logits=True)
    assert repr(ivy.CrossEntropyLoss()) == (
        "CrossEntropyLoss(axis=-1, epsilon=1e-07, reduction='sum')"
    )


def test_binary_cross_entropy() -> None:
    true, pred = np.float32([0, 1, 1, 0]), np.float32([0.2, 0.8, 1.0, 0.0])
    want = [-np.log(0.8), -np.log(0.8), 0, 0]
    losses = ivy.BinaryCrossEntropyLoss()(true, pred)
    np.testing.assert_allclose(losses.numpy(), want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ivy.binary_cross_entropy(true, pred).item(), np.mean(want))
    limited = ivy.binary_cross_entropy([1], pred[3:], epsilon=0.01, reduction="none")
    np.testing.assert_allclose(limited.numpy(), [-np.log(0.01)], rtol=1e-5)
    logits = np.float32([-3, 2])
    found = ivy.BinaryCrossEntropyLoss(from_logits=True, pos_weight=2.0, reduction="sum")(
        [1, 1], logits
    )
    np.testing.assert_allclose(found.item(), 2 * np.log1p(np.exp(-logits)).sum(), rtol=1e-6)


def test_other_losses() -> None:
    true, pred = np.float32([0, 2, 3]), np.float32([0.1, 0.5, 1.0])
    plain = np.exp(pred) - true * pred
    np.testing.assert_allclose(ivy.LogPoissonLoss()(true, pred).numpy(), plain, rtol=1e-6)
    stirling = true * np.log(true + 1e-30) - true + 0.5 * np.log(2 * np.pi * true + 1e-30)
    full = ivy.log_poisson_loss(true, pred, compute_full_loss=True, reduction="sum")
    want = plain.sum() + stirling[true > 1].sum()
    np.testing.assert_allclose(full.item(), want, rtol=1e-5)
    assert_same_bits(ivy.huber_loss(true, pred, delta=0.5), nn.huber_loss(pred, true, delta=0.5))
    np.testing.assert_allclose(ivy.wasserstein_loss_generator(pred).item(), -pred.mean())
    np.testing.assert_allclose(
        ivy.wasserstein_loss_discriminator(true, pred).item(), pred.mean() - true.mean(), rtol=1e-6
    )
    both(lambda t, p: ivy.LogPoissonLoss(reduction="mean")(t, p), true, pred)
