"""What PyTorch offers for the networks; images and their weights are channels first by shape."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional

from benchmarks.networks import HEADS


class Functions:
    """PyTorch's functions, and its fused LSTM."""

    relu = staticmethod(torch.relu)
    cross_entropy = staticmethod(functional.cross_entropy)

    def dense(self, x: Any, weight: Any, bias: Any) -> Any:
        return torch.addmm(bias, x, weight)

    def gelu(self, x: Any) -> Any:
        return functional.gelu(x, approximate="tanh")

    def conv(self, x: Any, weight: Any, bias: Any = None, stride: int = 1, pad: int = 0) -> Any:
        return functional.conv2d(x, weight, bias, stride=stride, padding=pad)

    def max_pool(self, x: Any) -> Any:
        return functional.max_pool2d(x, 2)

    def features(self, images: Any) -> Any:
        return images.permute(0, 2, 3, 1).flatten(1)

    def mean_features(self, images: Any) -> Any:
        return images.mean((2, 3))

    def batch_norm(self, x: Any, scale: Any, shift: Any, state: list[Any], k: int) -> Any:
        return functional.batch_norm(x, state[k], state[k + 1], scale, shift, True, 0.1, 1e-5)

    def layer_norm(self, x: Any, scale: Any, shift: Any) -> Any:
        return functional.layer_norm(x, (x.shape[1],), scale, shift, 1e-5)

    def embedding(self, table: Any, tokens: Any) -> Any:
        return functional.embedding(tokens, table)

    def attention(self, qkv: Any, batch: int) -> Any:
        rows, width = qkv.shape[0], qkv.shape[1] // 3
        parts = qkv.view(batch, rows // batch, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        return mixed.transpose(1, 2).reshape(rows, width)

    def lstm(self, x: Any, by_input: Any, by_hidden: Any, bias: Any) -> Any:
        """The kernel behind nn.LSTM; the second of its two biases is zero."""
        start = torch.zeros(1, x.shape[1], by_hidden.shape[0])
        weights = [by_input.t(), by_hidden.t(), bias, torch.zeros_like(bias)]
        # With biases, one layer, no dropout, training, one direction, time first.
        options = (True, 1, 0.0, True, False, False)
        return torch._VF.lstm(x, (start, start), weights, *options)[1][0]


class Traceable(Functions):
    """The LSTM step by step, for a compiler that cannot look into the fused one."""

    def lstm(self, x: Any, by_input: Any, by_hidden: Any, bias: Any) -> Any:
        length, batch = x.shape[:2]
        hidden = cell = torch.zeros(batch, by_hidden.shape[0])
        of_inputs = torch.addmm(bias, x.reshape(length * batch, -1), by_input)
        for gates in of_inputs.view(length, batch, -1).unbind(0):
            i, f, g, o = torch.addmm(gates, hidden, by_hidden).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden
