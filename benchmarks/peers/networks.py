"""The networks of W3, W4, W5 and W9, over the functions that each framework offers for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

BESIDE_THE_LAYERS, IN_A_LAYER = 5, 12  # parameters of the transformer


class Functions(Protocol):
    """What a framework has to offer.

    Images are [batch, height, width, channels], or what the framework made of them when it set the
    workload up; so are the weights of convolutions. Kernels and windows are square.
    """

    def dense(self, x: Any, weight: Any, bias: Any) -> Any:
        """x @ weight + bias."""

    def relu(self, x: Any) -> Any:
        """max(x, 0)."""

    def gelu(self, x: Any) -> Any:
        """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))."""

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """The mean over rows."""

    def conv(self, x: Any, weight: Any, bias: Any = None, stride: int = 1, pad: int = 0) -> Any:
        """A convolution, `pad` zeros on each side."""

    def max_pool(self, x: Any) -> Any:
        """Over windows of 2x2 that do not overlap."""

    def features(self, images: Any) -> Any:
        """Rows of height * width * channels elements, in that order."""

    def mean_features(self, images: Any) -> Any:
        """The means over height and width."""

    def batch_norm(self, x: Any, scale: Any, shift: Any, state: list[Any], k: int) -> Any:
        """By the batch's statistics, which move those at k and k + 1 in the state by a tenth."""

    def layer_norm(self, x: Any, scale: Any, shift: Any) -> Any:
        """Along rows."""

    def embedding(self, table: Any, tokens: Any) -> Any:
        """The table's rows."""

    def attention(self, qkv: Any, batch: int) -> Any:
        """Causal attention of all heads: [batch * length, 3 * width] -> [batch * length, width]."""

    def lstm(self, x: Any, by_input: Any, by_hidden: Any, bias: Any) -> Any:
        """The last hidden values, x [length, batch, inputs]; gates in the order i, f, g, o."""


def lenet(functions: Functions, params: Sequence[Any], x: Any, labels: Any) -> Any:
    """Convolution, ReLU and pooling twice, then three layers."""
    filter0, shift0, filter1, shift1, *layers = params
    x = functions.max_pool(functions.relu(functions.conv(x, filter0, shift0, pad=2)))
    x = functions.max_pool(functions.relu(functions.conv(x, filter1, shift1)))
    x = functions.features(x)
    *hidden, last = zip(layers[::2], layers[1::2])
    for weight, bias in hidden:
        x = functions.relu(functions.dense(x, weight, bias))
    return functions.cross_entropy(functions.dense(x, *last), labels)


def residual_network(
    functions: Functions, params: Sequence[Any], x: Any, labels: Any, *, state: list[Any]
) -> Any:
    """A stem, then blocks of two convolutions beside a shortcut."""
    *convolutions, weight, bias = params
    place = 0

    def normed(x: Any, stride: int = 1, pad: int = 1) -> Any:
        """The next convolution and its batch norm."""
        nonlocal place
        kernel, scale, shift = convolutions[3 * place : 3 * place + 3]
        y = functions.conv(x, kernel, stride=stride, pad=pad)
        y = functions.batch_norm(y, scale, shift, state, 2 * place)
        place += 1
        return y

    x = functions.relu(normed(x))
    while 3 * place < len(convolutions):
        stride = 1 if len(convolutions[3 * place + 1]) == len(convolutions[3 * place - 2]) else 2
        inner = functions.relu(normed(x, stride))
        inner = normed(inner)
        x = functions.relu((x if stride == 1 else normed(x, stride, pad=0)) + inner)
    return functions.cross_entropy(
        functions.dense(functions.mean_features(x), weight, bias), labels
    )


def transformer(functions: Functions, params: Sequence[Any], tokens: Any, labels: Any) -> Any:
    """Layers of attention and of two products, each behind a layer norm; rows are positions."""
    take = iter(params)
    batch, length = tokens.shape
    x = functions.embedding(next(take), tokens) + next(take)
    x = x.reshape(batch * length, x.shape[-1])

    def normed(x: Any) -> Any:
        return functions.layer_norm(x, next(take), next(take))

    def dense(x: Any) -> Any:
        return functions.dense(x, next(take), next(take))

    for _ in range((len(params) - BESIDE_THE_LAYERS) // IN_A_LAYER):
        x = x + dense(functions.attention(dense(normed(x)), batch))
        x = x + dense(functions.gelu(dense(normed(x))))
    return functions.cross_entropy(normed(x) @ next(take), labels.reshape(-1))


def lstm(functions: Functions, params: Sequence[Any], x: Any, labels: Any) -> Any:
    """A linear layer behind the last hidden values."""
    *recurrent, weight, bias = params
    hidden = functions.lstm(x, *recurrent)
    return functions.cross_entropy(functions.dense(hidden, weight, bias), labels)


def models(functions: Functions) -> dict[str, Callable[..., Any]]:
    """By the names of the workloads' models: (params, *batch) -> loss."""
    return {
        network.__name__: partial(network, functions)
        for network in (lenet, residual_network, transformer, lstm)
    }
