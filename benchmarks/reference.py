"""The networks in NumPy, for their losses: gradients by reverse accumulation over recorded values.

Linnainmaa (1976). It is written to be checked, not to be fast: it takes no part in the timing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.definition import Array
from benchmarks.networks import HEADS
from benchmarks.peers.networks import models

Pull = Callable[[Array], Array]


def _unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Summed over what an operand of that shape was repeated along."""
    gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(k for k, n in enumerate(shape) if n == 1 and gradient.shape[k] != 1)
    return gradient.sum(repeated, keepdims=True)


def _has_arrays(key: Any) -> bool:
    return isinstance(key, np.ndarray) or (
        isinstance(key, tuple) and any(isinstance(part, np.ndarray) for part in key)
    )


class Value:
    """An array, and how a gradient by it becomes gradients by what it was computed from."""

    __array_ufunc__ = None  # array + value is left to the value

    def __init__(self, array: Any, *sources: tuple[Value, Pull]) -> None:
        self.array, self.sources = np.asarray(array), sources

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __add__(self, other: Any) -> Value:
        other = _value(other)
        return Value(self.array + other.array, (self, lambda g: g), (other, lambda g: g))

    def __sub__(self, other: Value) -> Value:
        return Value(self.array - other.array, (self, lambda g: g), (other, np.negative))

    def __mul__(self, other: Any) -> Value:
        other = _value(other)
        by_self, by_other = (lambda g: g * other.array), (lambda g: g * self.array)
        return Value(self.array * other.array, (self, by_self), (other, by_other))

    def __truediv__(self, other: Value) -> Value:
        return self * other**-1.0

    def __pow__(self, power: float) -> Value:
        return Value(self.array**power, (self, lambda g: g * power * self.array ** (power - 1)))

    def __matmul__(self, other: Value) -> Value:
        a, b = self.array, other.array
        by_self, by_other = (lambda g: g @ b.swapaxes(-1, -2)), (lambda g: a.swapaxes(-1, -2) @ g)
        return Value(a @ b, (self, by_self), (other, by_other))

    def __getitem__(self, key: Any) -> Value:
        def spread(gradient: Array) -> Array:
            whole = np.zeros_like(self.array)
            if _has_arrays(key):  # an index may be repeated
                np.add.at(whole, key, gradient)
            else:
                whole[key] = gradient
            return whole

        return Value(self.array[key], (self, spread))

    def reshape(self, *shape: int) -> Value:
        return Value(self.array.reshape(shape), (self, lambda g: g.reshape(self.shape)))

    def transpose(self, *axes: int) -> Value:
        back = np.argsort(axes)
        return Value(self.array.transpose(axes), (self, lambda g: g.transpose(back)))

    def sum(self, axis: Any) -> Value:
        """Reduced axes stay, with one element."""
        total = self.array.sum(axis, keepdims=True)
        return Value(total, (self, lambda g: np.broadcast_to(g, self.shape)))

    def mean(self, axis: Any) -> Value:
        total = self.sum(axis)
        return total * (total.array.size / self.array.size)

    def max(self, axis: Any) -> Value:
        """The gradient goes to all that are largest."""
        top = self.array.max(axis, keepdims=True)
        return Value(top, (self, lambda g: g * (self.array == top)))


def _value(x: Any) -> Value:
    return x if isinstance(x, Value) else Value(x)


def _map(function: Callable[[Array], Array], slope: Callable[[Array, Array], Array]) -> Any:
    """A function of each element; the slope is computed from argument and result."""

    def apply(x: Value) -> Value:
        y = function(x.array)
        return Value(y, (x, lambda g: g * slope(x.array, y)))

    return apply


exp = _map(np.exp, lambda x, y: y)
log = _map(np.log, lambda x, y: 1 / x)
tanh = _map(np.tanh, lambda x, y: 1 - y * y)
sigmoid = _map(lambda x: 1 / (1 + np.exp(-x)), lambda x, y: y * (1 - y))
relu = _map(lambda x: np.maximum(x, 0), lambda x, y: x > 0)


def _patches(x: Value, kernel: int, stride: int, pad: int) -> Value:
    """[batch, height, width, kernel, kernel, channels]: what each element of the result reads."""
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(x.array, border)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    patches = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    height, width = patches.shape[1:3]

    def gather(gradient: Array) -> Array:
        whole = np.zeros_like(padded)
        for i, j in np.ndindex(kernel, kernel):
            rows, columns = (
                slice(i, i + stride * height, stride),
                slice(j, j + stride * width, stride),
            )
            whole[:, rows, columns] += gradient[:, :, :, i, j]
        return whole[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]

    return Value(patches, (x, gather))


def _softmax(x: Value) -> Value:
    powers = exp(x - Value(x.array.max(-1, keepdims=True)))
    return powers / powers.sum(-1)


def _standard(x: Value, mean: Value, variance: Value) -> Value:
    return (x - mean) * (variance + 1e-5) ** -0.5


class Functions:
    """Over values; see the protocol in `peers.networks`."""

    relu = staticmethod(relu)

    def dense(self, x: Value, weight: Value, bias: Value) -> Value:
        return x @ weight + bias

    def gelu(self, x: Value) -> Value:
        return x * 0.5 * (tanh((x + x**3 * 0.044715) * (2 / np.pi) ** 0.5) + 1.0)

    def cross_entropy(self, logits: Value, labels: Array) -> Value:
        shifted = logits - Value(logits.array.max(-1, keepdims=True))
        chosen = shifted[np.arange(len(labels)), labels]
        return (log(exp(shifted).sum(-1)).reshape(-1) - chosen).mean(0).reshape()

    def conv(
        self, x: Value, weight: Value, bias: Value | None = None, stride: int = 1, pad: int = 0
    ) -> Value:
        outputs, kernel = weight.shape[:2]
        patches = _patches(_value(x), kernel, stride, pad)
        rows = patches.reshape(-1, weight.array[0].size)
        y = rows @ weight.reshape(outputs, -1).transpose(1, 0)
        y = y.reshape(*patches.shape[:3], outputs)
        return y if bias is None else y + bias

    def max_pool(self, x: Value) -> Value:
        batch, height, width, channels = x.shape
        windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        return windows.max((2, 4)).reshape(batch, height // 2, width // 2, channels)

    def features(self, images: Value) -> Value:
        return images.reshape(len(images), -1)

    def mean_features(self, images: Value) -> Value:
        return images.mean((1, 2)).reshape(len(images), -1)

    def batch_norm(self, x: Value, scale: Value, shift: Value, state: list[Array], k: int) -> Value:
        mean = x.mean((0, 1, 2))
        variance = ((x - mean) ** 2).mean((0, 1, 2))
        return _standard(x, mean, variance) * scale + shift

    def layer_norm(self, x: Value, scale: Value, shift: Value) -> Value:
        mean = x.mean(-1)
        return _standard(x, mean, ((x - mean) ** 2).mean(-1)) * scale + shift

    def embedding(self, table: Value, tokens: Array) -> Value:
        return table[tokens]

    def attention(self, qkv: Value, batch: int) -> Value:
        rows, width = qkv.shape[0], qkv.shape[1] // 3
        length, depth = rows // batch, width // HEADS
        parts = qkv.reshape(batch, length, 3, HEADS, depth).transpose(2, 0, 3, 1, 4)
        q, k, v = (parts[part] for part in range(3))
        scores = q @ k.transpose(0, 1, 3, 2) * depth**-0.5
        shares = _softmax(scores + np.triu(np.full((length, length), -np.inf), 1))
        return (shares @ v).transpose(0, 2, 1, 3).reshape(rows, width)

    def lstm(self, x: Array, by_input: Value, by_hidden: Value, bias: Value) -> Value:
        size = len(by_hidden)
        hidden = cell = Value(np.zeros((x.shape[1], size), x.dtype))
        for row in x:
            gates = Value(row) @ by_input + hidden @ by_hidden + bias
            i, f, g, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
            cell = sigmoid(f) * cell + sigmoid(i) * tanh(g)
            hidden = sigmoid(o) * tanh(cell)
        return hidden


def _order(result: Value) -> list[Value]:
    """Every value behind the result, sources before what reads them."""
    order: list[Value] = []
    seen: set[int] = set()
    stack = [(result, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack += [(source, False) for source, _ in value.sources]
    return order


def loss_and_gradients(
    model: Callable[..., Value], params: Sequence[Array], *batch: Array, **state: Any
) -> tuple[Any, list[Array]]:
    """The loss, and its gradients by the parameters."""
    given = [Value(param) for param in params]
    loss = model(given, *batch, **state)
    gradients: dict[int, Array] = {id(loss): np.ones(())}
    for value in reversed(_order(loss)):
        gradient = gradients.get(id(value)) if value in given else gradients.pop(id(value))
        for source, pull in value.sources:
            more = _unbroadcast(pull(gradient), source.shape)
            before = gradients.get(id(source))
            gradients[id(source)] = more if before is None else before + more
    return loss.array, [gradients[id(value)] for value in given]


TRAINED = {name: partial(loss_and_gradients, model) for name, model in models(Functions()).items()}
