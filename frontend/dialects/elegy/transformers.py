"""Elegy's attention and transformers: those of `ek.nn`, each part normalised behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn import nn
from einkorn.convert import as_tensor
from einkorn.dialects.elegy.initializers import OfLayer
from einkorn.dialects.elegy.modules import Module
from einkorn.functions.activations import gelu
from einkorn.functions.elementwise import not_equal, relu, silu
from einkorn.initializers import VarianceScaling, Zeros
from einkorn.ir.dtypes import bool_, float32
from einkorn.ir.errors import EinkornError
from einkorn.tensor import Tensor

MSG_ACTIVATION = "{name}: the activation is jax.nn.relu, gelu or silu, or its name, got {given!r}"
MSG_COEFFICIENTS = "MultiHeadAttention: the coefficients are not kept; return_attn_coef is False"
_ACTIVATIONS = {relu: "relu", gelu: "gelu", silu: "silu"}


def _activation(what: str, given: Any) -> str:
    inner = getattr(given, "__wrapped__", given)
    name = given if isinstance(given, str) else _ACTIVATIONS.get(inner, "")
    if name not in _ACTIVATIONS.values():
        raise EinkornError(MSG_ACTIVATION.format(name=what, given=given))
    return name


def _allowed(mask: Any) -> Tensor | None:
    """A mask with numbers that are not 0 where a query may attend, as bools."""
    if mask is None:
        return None
    given = as_tensor(mask, "a mask")
    return given if given.dtype is bool_ else not_equal(given, 0)


class MultiHeadAttention(nn.MultiHeadAttention, Module):
    """`ek.nn.MultiHeadAttention` for as many features as the first inputs have.

    Args:
        head_size: features of a head.
        output_size: those of the value by default.
        use_projection_bias: whether the last product has a bias; the others have none.
    """

    def __init__(
        self,
        head_size: int,
        num_heads: int,
        output_size: int | None = None,
        dropout: float = 0.0,
        use_projection_bias: bool = True,
        return_attn_coef: bool = False,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        if return_attn_coef:
            raise EinkornError(MSG_COEFFICIENTS)
        Module.__init__(self, name, dtype)
        nn.MultiHeadAttention.__init__(
            self,
            None,
            num_heads,
            head_dim=head_size,
            out_features=output_size,
            dropout=dropout,
            with_bias=use_projection_bias,
            weight_initializer=OfLayer(kernel_initializer or VarianceScaling(2.0)),
            bias_initializer=Zeros if bias_initializer is None else bias_initializer,
            dtype=dtype,
        )

    def build(self, query: Any, key: Any = None, value: Any = None, *_: Any, **__: Any) -> None:
        """Make the parameters for the features of inputs."""
        *known, out = self._given
        last = next(x for x in (value, key, query) if x is not None)
        self._given = (*known, out or as_tensor(last, "MultiHeadAttention").shape[-1])
        nn.MultiHeadAttention.build(self, query, key, value)
        self.bq = self.bk = self.bv = None

    def call(self, query: Any, key: Any = None, value: Any = None, mask: Any = None) -> Tensor:
        """Attend; a mask has 1 where a query may."""
        return nn.MultiHeadAttention.forward(self, query, key, value, mask=_allowed(mask))


def _block_options(what: str, head_size: int, dropout: float, activation: Any) -> dict[str, Any]:
    return {
        "head_dim": head_size,
        "dropout": dropout,
        "activation": _activation(what, activation),
        "norm_first": False,
        "causal": False,
    }


class TransformerEncoderLayer(nn.TransformerEncoderBlock, Module):
    """Self-attention and two products, each added to its input and then normalised.

    Args:
        head_size, num_heads: of the attention.
        output_size: features between the products; those of the input by default.
    """

    def __init__(
        self,
        head_size: int,
        num_heads: int,
        output_size: int | None = None,
        dropout: float = 0.0,
        activation: Any = relu,
        name: str | None = None,
    ) -> None:
        Module.__init__(self, name)
        options = _block_options("TransformerEncoderLayer", head_size, dropout, activation)
        nn.TransformerEncoderBlock.__init__(self, None, num_heads, hidden=output_size, **options)

    def _make(self, size: int) -> None:
        self._forward_options["hidden"] = self._forward_options["hidden"] or size
        nn.TransformerEncoderBlock._make(self, size)

    def call(self, src: Any, mask: Any = None) -> Tensor:
        """The input with what the parts add; a mask has 1 where a query may attend."""
        return nn.TransformerEncoderBlock.forward(self, src, mask=_allowed(mask))


class TransformerDecoderLayer(nn.TransformerDecoderBlock, Module):
    """Self-attention, attention to a memory and two products; see `TransformerEncoderLayer`."""

    def __init__(
        self,
        head_size: int,
        num_heads: int,
        output_size: int = 2048,
        dropout: float = 0.1,
        activation: Any = relu,
        name: str | None = None,
    ) -> None:
        Module.__init__(self, name)
        options = _block_options("TransformerDecoderLayer", head_size, dropout, activation)
        nn.TransformerDecoderBlock.__init__(self, None, num_heads, hidden=output_size, **options)

    def call(self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None) -> Tensor:
        """The input with what the parts add; masks have 1 where a query may attend."""
        masks = {"mask": _allowed(tgt_mask), "memory_mask": _allowed(memory_mask)}
        return nn.TransformerDecoderBlock.forward(self, tgt, memory, **masks)


class _Layers(Module):
    def __init__(
        self,
        layer: Callable[[], Module],
        num_layers: int,
        norm: Callable[[], Module] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.layer, self.num_layers, self.norm = layer, num_layers, norm

    def _run(self, x: Any, *others: Any) -> Any:
        for _ in range(self.num_layers):
            x = self.layer()(x, *others)
        return x if self.norm is None else self.norm()(x)


class TransformerEncoder(_Layers):
    """Layers that a function makes, in a row, and a norm that another one makes."""

    def call(self, src: Any, mask: Any = None) -> Any:
        """What the last layer gives."""
        return self._run(src, mask)


class TransformerDecoder(_Layers):
    """Layers that a function makes, in a row, and a norm that another one makes."""

    def call(self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None) -> Any:
        """What the last layer gives."""
        return self._run(tgt, memory, tgt_mask, memory_mask)


class Transformer(Module):
    """An encoder and a decoder that attends to its results (Vaswani et al., 2017).

    Args:
        head_size, num_heads, output_size, dropout, activation: of all layers.
        custom_encoder, custom_decoder: modules in the place of those.
    """

    def __init__(
        self,
        head_size: int = 512,
        num_heads: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        output_size: int = 2048,
        dropout: float = 0.1,
        activation: Any = relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        shared = (head_size, num_heads, output_size, dropout, activation)
        self.encoder = custom_encoder or TransformerEncoder(
            lambda: TransformerEncoderLayer(*shared), num_encoder_layers
        )
        self.decoder = custom_decoder or TransformerDecoder(
            lambda: TransformerDecoderLayer(*shared), num_decoder_layers
        )

    def call(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
    ) -> Any:
        """The target, having attended to the source; masks have 1 where a query may attend."""
        memory = self.encoder(src, src_mask)
        return self.decoder(tgt, memory, tgt_mask, memory_mask)
