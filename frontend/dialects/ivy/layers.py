"""Ivy's layers, under its names and with its arguments: einkorn's, which are Ivy's modules as well.

Their weights have einkorn's names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

from einkorn import nn
from einkorn.convert import as_tensor
from einkorn.dialects.ivy.functions import layer_norm, linear
from einkorn.dialects.ivy.initializers import GlorotUniform, KaimingNormal, Zeros
from einkorn.dialects.ivy.modules import Module
from einkorn.functions.creation import zeros
from einkorn.functions.manipulation import stack, to_shape, unstack
from einkorn.ir.dtypes import float32
from einkorn.tensor import Tensor

State = tuple[list[Tensor], list[Tensor]]


class Layer(Module):
    """The base of layers that a class of einkorn, `native`, does the work of.

    Args:
        options: those of `Module`: dev or device, v, training.
    """

    native: ClassVar[Any]

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.native.forward(self, *args, **kwargs)

    def _extra_repr(self) -> str:
        return self.native.extra_repr(self)


class Linear(Module):
    """x @ w.T + b, with `w` of shape (output_channels, input_channels)."""

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        weight_initializer: Any = None,
        bias_initializer: Any = None,
        with_bias: bool = True,
        dev: Any = None,
        v: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._input_channels, self._output_channels = input_channels, output_channels
        self._w_init = weight_initializer or GlorotUniform()
        self._b_init = bias_initializer or Zeros()
        self._with_bias = with_bias
        Module.__init__(self, dev=dev, v=v, **options)

    def _create_variables(self, *, device: Any = None, dtype: Any = None) -> Mapping[str, Any]:
        out, into = self._output_channels, self._input_channels
        v = {"w": self._w_init.create_variables((out, into), device, out, into, dtype=dtype)}
        if self._with_bias:
            v["b"] = self._b_init.create_variables((out,), device, out, into, dtype=dtype)
        return v

    def _forward(self, x: Any) -> Tensor:
        return linear(x, self.v.w, self.v.b if self._with_bias else None)

    def _extra_repr(self) -> str:
        bias = "" if self._with_bias else ", with_bias=False"
        return f"{self._input_channels}, {self._output_channels}{bias}"


class Dropout(Layer, nn.Dropout):
    """Zeroes each element with probability `prob` while training.

    Args:
        scale: divide what remains by 1 - prob.
    """

    native = nn.Dropout

    def __init__(self, prob: float, scale: bool = True, **options: Any) -> None:
        nn.Dropout.__init__(self, prob, scale)
        Module.__init__(self, **options)


class MultiHeadAttention(Layer, nn.MultiHeadAttention):
    """Several attentions side by side: [..., T, embed_dim] -> the same.

    Args:
        key_dim, value_dim: features of keys and values; embed_dim by default.
        head_dim: features of a head; embed_dim / num_heads by default.
        dropout_rate: of the weights, while training.
        use_proj_bias: whether there are biases.
        scale: what scores are multiplied by; 1 / sqrt(head_dim) by default.
    """

    native = nn.MultiHeadAttention

    def __init__(
        self,
        embed_dim: int = 512,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        num_heads: int = 8,
        head_dim: int | None = None,
        dropout_rate: float = 0.0,
        use_proj_bias: bool = True,
        scale: float | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        nn.MultiHeadAttention.__init__(
            self,
            embed_dim,
            num_heads,
            head_dim=head_dim,
            key_features=key_dim,
            value_features=value_dim,
            dropout=dropout_rate,
            with_bias=use_proj_bias,
            scale=scale,
            dtype=dtype or float32,
        )
        Module.__init__(self, dtype=dtype, **options)

    def _forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        *,
        attention_mask: Any = None,
        is_causal: bool = False,
    ) -> Tensor:
        return self.native.forward(
            self, query, key, value, mask=attention_mask, causal=is_causal or None
        )


class Embedding(Layer, nn.Embedding):
    """Rows of a table for integers of any shape: [...] -> [..., embedding_dim].

    Args:
        padding_idx: a row that is zero and gets no gradient.
        max_norm: longer rows are scaled to this length when they are looked up.
    """

    native = nn.Embedding

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        *,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        nn.Embedding.__init__(
            self,
            num_embeddings,
            embedding_dim,
            padding_idx=padding_idx,
            max_norm=max_norm,
            weight_initializer=KaimingNormal(fan_mode="fan_in"),  # of embedding_dim
            dtype=dtype or float32,
        )
        Module.__init__(self, dtype=dtype, **options)


class LSTM(Layer, nn.LSTM):
    """Layers of LSTM cells without biases: [..., T, in] -> [..., T, out].

    Args:
        return_sequence: return the results of all steps, or of the last one.
        return_state: return (results, (h, c)), where h and c are lists of one [..., out] for each
            layer, as `initial_state` is.
    """

    native = nn.LSTM

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        *,
        weight_initializer: Any = None,
        num_layers: int = 1,
        return_sequence: bool = True,
        return_state: bool = True,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        nn.LSTM.__init__(
            self,
            input_channels,
            output_channels,
            num_layers,
            return_sequence=return_sequence,
            return_state=True,
            with_bias=False,
            dtype=dtype or float32,
            weight_initializer=weight_initializer or GlorotUniform(),
        )
        self._with_state = return_state
        Module.__init__(self, dtype=dtype, **options)

    def get_initial_state(  # type: ignore[override] # as Ivy has it
        self, batch_shape: Sequence[int], dtype: Any = None
    ) -> State:
        """Zeros."""
        shape, layers = (*batch_shape, self.hidden), range(self.num_layers)
        first, second = ([zeros(shape, dtype=dtype or float32) for _ in layers] for _ in range(2))
        return first, second

    def _forward(self, inputs: Any, initial_state: State | None = None) -> Any:
        x = as_tensor(inputs, "LSTM")
        outer, steps = x.shape[:-2], x.shape[-2:]
        state = initial_state or self.get_initial_state(outer, x.dtype)
        flat = (prod(outer), self.hidden)
        given = tuple(stack([to_shape(part, flat) for part in parts]) for parts in state)
        out, ends = nn.LSTM.forward(self, to_shape(x, (flat[0], *steps)), given)
        found = to_shape(out, (*outer, *out.shape[1:]))
        if not self._with_state:
            return found
        h, c = ([to_shape(x, (*outer, self.hidden)) for x in unstack(part)] for part in ends)
        return found, (h, c)


class LayerNorm(Layer, nn.LayerNorm):
    """(x - mean) / sqrt(variance + eps) * new_std * w + b over the last axes.

    Args:
        normalized_shape: the size of the last axis, or of the last ones.
        elementwise_affine: whether there are `w` and `b`.
    """

    native = nn.LayerNorm

    def __init__(
        self,
        normalized_shape: Any,
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        new_std: float = 1.0,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        affine = elementwise_affine
        nn.LayerNorm.__init__(
            self, normalized_shape, eps=eps, affine=affine, dtype=dtype or float32
        )
        self.new_std = new_std
        Module.__init__(self, dtype=dtype, **options)

    def _forward(self, x: Any) -> Tensor:
        tensor, axes = self._checked(x)
        return layer_norm(
            tensor, axes, scale=self.w, offset=self.b, eps=self.eps, new_std=self.new_std
        )


class BatchNorm(Layer):
    """Each channel normalised over all other axes; running statistics are buffers.

    Args:
        data_format: "NSC" for channels last, "NCS" for axis 1.
        affine: whether there are `w` and `b`.
        track_running_stats: keep means and variances of the batches, for eval mode.
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        data_format: str = "NSC",
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        self.native.__init__(
            self,
            num_features,
            eps=eps,
            momentum=momentum,
            data_format={"NSC": "NHWC", "NCS": "NCHW"}.get(data_format, data_format),
            affine=affine,
            track_running_stats=track_running_stats,
            dtype=dtype or float32,
        )
        Module.__init__(self, dtype=dtype, **options)


class BatchNorm1D(BatchNorm, nn.BatchNorm1D):
    """`BatchNorm` of [N, C] or [N, T, C]."""

    native = nn.BatchNorm1D


class BatchNorm2D(BatchNorm, nn.BatchNorm2D):
    """`BatchNorm` of [N, H, W, C]."""

    native = nn.BatchNorm2D


class BatchNorm3D(BatchNorm, nn.BatchNorm3D):
    """`BatchNorm` of [N, D, H, W, C]."""

    native = nn.BatchNorm3D
