"""What JAX offers for the networks; images channels last, weights (height, width, in, out)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.networks import HEADS


class Functions:
    """jax.nn and jax.lax; pooling and attention in the forms that XLA runs fastest on CPUs."""

    relu = staticmethod(jax.nn.relu)

    def dense(self, x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    def gelu(self, x: Any) -> Any:
        return jax.nn.gelu(x, approximate=True)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        logarithms = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(logarithms, labels[:, None], axis=1).mean()

    def conv(self, x: Any, weight: Any, bias: Any = None, stride: int = 1, pad: int = 0) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(
            x, weight, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout
        )
        return y if bias is None else y + bias

    def max_pool(self, x: Any) -> Any:
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def features(self, images: Any) -> Any:
        return images.reshape(len(images), -1)

    def mean_features(self, images: Any) -> Any:
        return images.mean((1, 2))

    def batch_norm(self, x: Any, scale: Any, shift: Any, state: list[Any], k: int) -> Any:
        mean, count = x.mean((0, 1, 2)), x[..., 0].size
        variance = jnp.square(x - mean).mean((0, 1, 2))
        seen = mean, variance * (count / (count - 1))
        for place, value in zip((k, k + 1), seen):
            state[place] = 0.9 * state[place] + 0.1 * lax.stop_gradient(value)
        return (x - mean) * (lax.rsqrt(variance + 1e-5) * scale) + shift

    def layer_norm(self, x: Any, scale: Any, shift: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale + shift
        )

    def embedding(self, table: Any, tokens: Any) -> Any:
        return table[tokens]

    def attention(self, qkv: Any, batch: int) -> Any:
        rows, width = qkv.shape[0], qkv.shape[1] // 3
        length, depth = rows // batch, width // HEADS
        q, k, v = qkv.reshape(batch, length, 3, HEADS, depth).transpose(2, 0, 3, 1, 4)
        later = np.triu(np.full((length, length), -1e30, np.float32), 1)
        shares = jax.nn.softmax(q @ k.swapaxes(2, 3) * depth**-0.5 + later)
        return (shares @ v).swapaxes(1, 2).reshape(rows, width)

    def lstm(self, x: Any, by_input: Any, by_hidden: Any, bias: Any) -> Any:
        def step(carry: Any, of_inputs: Any) -> Any:
            hidden, cell = carry
            i, f, g, o = jnp.split(of_inputs + hidden @ by_hidden, 4, 1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None

        start = jnp.zeros((x.shape[1], by_hidden.shape[0]))
        return lax.scan(step, (start, start), x @ by_input + bias)[0][0]
