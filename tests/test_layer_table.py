"""Every layer: the same bits eager and compiled, gradients, inferred sizes, state."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from layer_checks import check_bits, check_gradients, check_inferred, check_state

import einkorn as ek

nn = ek.nn
rng = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


class Case(NamedTuple):
    """A layer with all sizes, the same without those of its input, and inputs for it."""

    layer: Any
    shorter: Any
    inputs: tuple[Any, ...]

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.layer.keywords.items())
        args = ", ".join((*map(str, self.layer.args), *[options] * bool(options)))
        return f"{self.layer.func.__name__}({args})"


def case(layer: Any, *args: Any, on: Any, short: tuple[Any, ...] | None = None, **kw: Any) -> Case:
    inputs = on if isinstance(on, tuple) else (on,)
    shorter = None if short is None else partial(layer, *short, **kw)
    return Case(partial(layer, *args, **kw), shorter, inputs)


LINE, IMAGE, CUBE, ROWS = floats(2, 7, 4), floats(2, 6, 5, 4), floats(2, 4, 3, 5, 2), floats(5, 4)

CASES = [
    case(nn.Linear, 4, 3, on=ROWS, short=(3,)),
    case(nn.Linear, 4, 3, False, on=LINE, short=(3, None, False)),
    # normalisation
    case(nn.BatchNorm, 4, on=ROWS, short=()),
    case(nn.BatchNorm, 6, on=IMAGE, short=(), data_format="NCHW", momentum=0.3),
    case(nn.BatchNorm, 4, on=ROWS, affine=False, short=()),
    case(nn.BatchNorm, 4, on=ROWS, track_running_stats=False, short=()),
    case(nn.BatchNorm1D, 4, on=LINE, short=()),
    case(nn.BatchNorm2D, 4, on=IMAGE, short=()),
    case(nn.BatchNorm3D, 2, on=CUBE, short=()),
    case(nn.LayerNorm, 4, on=LINE, short=()),
    case(nn.LayerNorm, (7, 4), on=LINE, affine=False),
    case(nn.RMSNorm, 4, on=LINE, short=()),
    case(nn.GroupNorm, 2, 4, on=IMAGE, short=(2,)),
    case(nn.InstanceNorm, 4, on=IMAGE, short=()),
    # convolution
    case(nn.Conv1D, 4, 3, 3, on=LINE, short=(3, 3), padding="same", dilation=2),
    case(nn.Conv2D, 4, 6, (3, 2), on=IMAGE, short=(6, (3, 2)), stride=2, groups=2, padding=1),
    case(nn.Conv2D, 6, 3, 3, on=IMAGE, short=(3, 3), data_format="NCHW", with_bias=False),
    case(nn.Conv2D, 4, 3, 3, on=IMAGE, short=(3, 3), mask=np.tri(3)[:, :, None]),
    case(nn.Conv3D, 2, 3, 2, on=CUBE, short=(3, 2)),
    case(nn.Conv1DTranspose, 4, 3, 3, on=LINE, short=(3, 3), stride=2, output_padding=1),
    case(nn.Conv2DTranspose, 4, 3, 3, on=IMAGE, short=(3, 3), stride=2, padding="same"),
    case(nn.Conv3DTranspose, 2, 3, 2, on=CUBE, short=(3, 2)),
    case(nn.DepthwiseConv1D, 4, 3, on=LINE, short=(3,)),
    case(nn.DepthwiseConv2D, 4, 3, on=IMAGE, short=(3,), multiplier=2, padding="same"),
    case(nn.DepthwiseConv3D, 2, 2, on=CUBE, short=(2,)),
    # pooling
    case(nn.MaxPool1D, 2, on=LINE),
    case(nn.MaxPool2D, 3, 2, "same", on=IMAGE),
    case(nn.MaxPool3D, 2, on=CUBE),
    case(nn.AvgPool1D, 3, 1, 1, on=LINE, count_include_pad=False),
    case(nn.AvgPool2D, (2, 3), on=IMAGE, ceil_mode=True),
    case(nn.AvgPool3D, 2, on=CUBE),
    case(nn.AdaptiveMaxPool1D, 3, on=LINE),
    case(nn.AdaptiveMaxPool2D, (2, 3), on=IMAGE, data_format="NCHW"),
    case(nn.AdaptiveMaxPool3D, 2, on=CUBE),
    case(nn.AdaptiveAvgPool1D, 3, on=LINE),
    case(nn.AdaptiveAvgPool2D, (2, 3), on=IMAGE),
    case(nn.AdaptiveAvgPool3D, 2, on=CUBE),
    case(nn.GlobalMaxPool, on=IMAGE),
    case(nn.GlobalAvgPool, on=CUBE, data_format="NCHW"),
    # shapes
    case(nn.Identity, on=ROWS),
    case(nn.Flatten, on=IMAGE),
    case(nn.Reshape, (2, -1, 4), on=IMAGE),
    case(nn.Upsample, 2, on=IMAGE),
    case(nn.Dropout, 0.4, on=LINE),
    # tables and positions
    case(nn.Embedding, 6, 3, on=np.array([[0, 1], [5, 1]]), padding_idx=2),
    case(nn.Embedding, 6, 3, on=np.array([1, 1, 4]), max_norm=0.05),
    case(nn.SinusoidalPositions, on=LINE),
    case(nn.RotaryEmbedding, on=LINE),
    case(nn.LearnedPositions, 9, 4, on=LINE, short=(9,)),
    # recurrent
    case(nn.LSTMCell, 4, 3, on=ROWS, short=(3,)),
    case(nn.GRUCell, 4, 3, on=ROWS, short=(3,)),
    case(nn.RNNCell, 4, 3, False, on=ROWS, short=(3, None, False), activation="relu"),
    case(nn.LSTM, 4, 3, on=(LINE, (floats(1, 2, 3), floats(1, 2, 3))), return_state=True),
    case(nn.LSTM, 4, 3, 2, on=LINE, short=(3, None, 2), bidirectional=True, dropout=0.3),
    case(nn.LSTM, 4, 3, on=LINE, short=(3,), return_sequence=False, with_bias=False),
    case(nn.GRU, 4, 3, on=LINE, short=(3,), return_state=True),
    case(nn.GRU, 4, 3, on=LINE, bidirectional=True, return_sequence=False),
    case(nn.RNN, 4, 3, on=LINE, short=(3,)),
    # attention
    case(nn.MultiHeadAttention, 4, 2, on=LINE, short=(None, 2), dropout=0.2, causal=True),
    case(nn.MultiHeadAttention, 4, 2, on=(LINE, floats(2, 3, 5), floats(2, 3, 6)),
         short=(None, 2), key_features=5, value_features=6, head_dim=3, out_features=5),
    case(nn.MultiHeadAttention, 4, 4, on=LINE, kv_heads=2, head_dim=2, rotary=True),
    case(nn.FeedForward, 4, 3, on=LINE, short=(None, 3), activation="swiglu"),
    case(nn.TransformerEncoderBlock, 4, 2, on=LINE, short=(None, 2), dropout=0.1),
    case(nn.TransformerEncoderBlock, 4, 2, on=LINE, norm_first=False, norm="rms", hidden=3),
    case(nn.TransformerDecoderBlock, 4, 2, on=(LINE, floats(2, 3, 4)), short=(None, 2), hidden=5),
    case(nn.TransformerEncoder, 2, 4, 2, on=LINE, short=(2, None, 2), hidden=3),
    case(nn.TransformerDecoder, 1, 4, 2, on=(LINE, floats(2, 3, 4)), norm_first=False, hidden=3),
    case(nn.Transformer, 4, 2, 1, 1, on=(LINE, floats(2, 3, 4)), short=(None, 2, 1, 1), hidden=3),
    # activations
    *(case(getattr(nn, name), on=ROWS) for name in (
        "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
        "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid",
        "Softmax", "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
        "GLU", "GEGLU", "SwiGLU",
    )),
    case(nn.PReLU, 5, on=IMAGE.swapaxes(1, 2), data_format="NCHW"),
    case(nn.Softplus, 2.0, 1.0, on=ROWS),
    case(nn.GELU, "tanh", on=ROWS),
    case(nn.Threshold, 0.1, 2.0, on=ROWS),
    case(nn.Logit, on=1 / (1 + np.exp(-ROWS))),
    case(nn.Logit, 0.1, on=1 / (1 + np.exp(-ROWS))),
]  # fmt: skip

ELSEWHERE = {"Module", "Sequential", "FunctionModule", "Loss", "ExponentialMovingAverage"}


def test_every_layer_is_in_the_table() -> None:
    found = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    found = {name for name in found if issubclass(getattr(nn, name), nn.Module)}
    found -= {name for name in found if name.endswith("Loss")} | ELSEWHERE
    assert found == {item.layer.func.__name__ for item in CASES}


@pytest.mark.parametrize("item", CASES, ids=repr)
def test_layers(item: Case) -> None:
    check_gradients(item.layer, item.inputs)
    check_bits(item.layer, item.inputs)
    check_state(item.layer, item.inputs)
    if item.shorter is not None:
        check_inferred(item.layer, item.shorter, item.inputs)
