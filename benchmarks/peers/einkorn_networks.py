"""What einkorn offers for the networks."""

from __future__ import annotations

from typing import Any

import einkorn as ek
from benchmarks.networks import HEADS


class Functions:
    """Mostly those of `einkorn.nn`."""

    relu = staticmethod(ek.nn.relu)
    cross_entropy = staticmethod(ek.nn.cross_entropy)
    layer_norm = staticmethod(ek.nn.layer_norm)

    def dense(self, x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    def gelu(self, x: Any) -> Any:
        return ek.nn.gelu(x, approximate="tanh")

    def conv(self, x: Any, weight: Any, bias: Any = None, stride: int = 1, pad: int = 0) -> Any:
        return ek.nn.conv(x, weight, bias, stride=stride, padding=((pad, pad), (pad, pad)))

    def max_pool(self, x: Any) -> Any:
        return ek.nn.max_pool(x, 2)

    def features(self, images: Any) -> Any:
        return images.reshape(images.shape[0], -1)

    def mean_features(self, images: Any) -> Any:
        return ek.mean(images, axis=(1, 2))

    def batch_norm(self, x: Any, scale: Any, shift: Any, state: list[Any], k: int) -> Any:
        y, mean, variance = ek.nn.batch_norm(x, state[k], state[k + 1], scale, shift, training=True)
        state[k].value, state[k + 1].value = mean, variance
        return y

    def embedding(self, table: Any, tokens: Any) -> Any:
        return ek.take(table, tokens, axis=0)

    def attention(self, qkv: Any, batch: int) -> Any:
        rows, width = qkv.shape[0], qkv.shape[1] // 3
        length, depth = rows // batch, width // HEADS
        parts = qkv.reshape(batch, length, 3, HEADS, depth)
        q, k, v = (parts[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
        mixed = ek.nn.attention(q, k, v, causal=True)
        return mixed.transpose(0, 2, 1, 3).reshape(rows, width)

    def lstm(self, x: Any, by_input: Any, by_hidden: Any, bias: Any) -> Any:
        def step(carry: Any, of_inputs: Any) -> Any:
            hidden, cell = carry
            i, f, g, o = ek.split(of_inputs + hidden @ by_hidden, 4, axis=1)
            cell = ek.nn.sigmoid(f) * cell + ek.nn.sigmoid(i) * ek.tanh(g)
            return (ek.nn.sigmoid(o) * ek.tanh(cell), cell), None

        start = ek.zeros((x.shape[1], by_hidden.shape[0]), dtype=x.dtype)
        return ek.scan(step, (start, start), x @ by_input + bias)[0][0]
