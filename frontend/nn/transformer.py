"""Blocks of transformers (Vaswani et al., 2017), and stacks of them.

Each part is x + dropout(part(norm(x))), which trains stably (Xiong et al., 2020), or
norm(x + dropout(part(x))) with norm_first=False. Inputs are [..., T, width]; a width that is left
out is that of the first input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from einkorn.convert import as_tensor
from einkorn.functions import activations as fa
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.nn.dropout import Dropout
from einkorn.nn.linear import Linear
from einkorn.nn.module import Module
from einkorn.nn.multi_head_attention import MultiHeadAttention
from einkorn.nn.normalization import LayerNorm, RMSNorm
from einkorn.nn.settings import check_flag, check_size, check_word
from einkorn.nn.sized import Sized
from einkorn.tensor import Tensor
from einkorn.tunable import module_path

ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {
    "relu": ew.relu,
    "gelu": fa.gelu,
    "silu": ew.silu,
    "geglu": fa.geglu,
    "swiglu": fa.swiglu,
}
NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class FeedForward(Sized):
    """out(dropout(activation(inner(x)))): [..., width] -> [..., width].

    Args:
        hidden: features inside; 4 * width by default.
        activation: "relu", "gelu", "silu", or "geglu" or "swiglu", whose `inner` has 2 * hidden
            features (Shazeer, 2020).
    """

    _size_name = "width"

    def __init__(
        self,
        width: int | None = None,
        hidden: int | None = None,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        with_bias: bool = True,
        dtype: Any = float32,
    ) -> None:
        self.activation = check_word("FeedForward", "activation", activation, tuple(ACTIVATIONS))
        self.hidden = None if hidden is None else check_size("FeedForward", "hidden", hidden)
        self._options = {"with_bias": with_bias, "dtype": dtype}
        self._rate = dropout
        self._begin(width)

    def _make(self, size: int) -> None:
        hidden = self.hidden or 4 * size
        gated = self.activation.endswith("glu")
        self.inner = Linear(size, hidden * (1 + gated), **self._options)
        self.dropout = Dropout(self._rate)
        self.out = Linear(hidden, size, **self._options)

    def forward(self, x: Any) -> Tensor:
        return self.out(self.dropout(ACTIVATIONS[self.activation](self.inner(x))))

    def extra_repr(self) -> str:
        return f"{self._shown_size()}, {self.activation!r}"


class _Block(Sized):
    _size_name = "width"
    crossed: ClassVar[bool] = False

    def __init__(
        self,
        width: int | None = None,
        num_heads: int = 8,
        *,
        hidden: int | None = None,
        dropout: float = 0.0,
        activation: str = "gelu",
        norm: str = "layer",
        norm_first: bool = True,
        with_bias: bool = True,
        dtype: Any = float32,
        **attention: Any,
    ) -> None:
        name = type(self).__name__
        self.num_heads = check_size(name, "num_heads", num_heads)
        self.norm_first = check_flag(name, "norm_first", norm_first)
        self._norm = check_word(name, "norm", norm, tuple(NORMS))
        self._shared = {"with_bias": check_flag(name, "with_bias", with_bias), "dtype": dtype}
        self._forward_options = {"hidden": hidden, "activation": activation, "dropout": dropout}
        self._attention_options = {"dropout": dropout, **attention}
        self._rate = dropout
        self._begin(width)

    def _make(self, size: int) -> None:
        self.attention = self._attention(size, **self._attention_options)
        self.attention_norm = self._new_norm(size)
        if self.crossed:
            plain = {**self._attention_options, "causal": False, "rotary": False}
            self.cross_attention = self._attention(size, **plain)
            self.cross_norm = self._new_norm(size)
        self.feed_forward = FeedForward(size, **self._forward_options, **self._shared)
        self.feed_forward_norm = self._new_norm(size)
        self.dropout = Dropout(self._rate)

    def _attention(self, size: int, **options: Any) -> MultiHeadAttention:
        return MultiHeadAttention(size, self.num_heads, **options, **self._shared)

    def _new_norm(self, size: int) -> Module:
        return NORMS[self._norm](size, dtype=self._shared["dtype"])

    def _with(self, x: Any, norm: Module, part: Callable[[Any], Any]) -> Any:
        """x and what a part of the block adds to it."""
        if self.norm_first:
            return ew.add(x, self.dropout(part(norm(x))))
        return norm(ew.add(x, self.dropout(part(x))))

    def extra_repr(self) -> str:
        return f"{self._shown_size()}, num_heads={self.num_heads}"


class TransformerEncoderBlock(_Block):
    """Self-attention, then a `FeedForward`, each with a residual: [..., T, width] -> the same.

    With `causal=True` this is a block of a language model without an encoder.

    Args:
        width: features; those of the first input when left out.
        num_heads: of the attention.
        hidden: features inside the feed-forward part; 4 * width by default.
        activation: see `FeedForward`.
        norm: "layer" or "rms".
        norm_first: normalise the input of each part, not its result.
        attention: further options of `MultiHeadAttention`, such as causal, rotary, kv_heads.
    """

    def forward(self, x: Any, *, mask: Any = None) -> Tensor:
        x = self._with(x, self.attention_norm, lambda y: self.attention(y, mask=mask))
        return self._with(x, self.feed_forward_norm, self.feed_forward)


class TransformerDecoderBlock(_Block):
    """Causal self-attention, attention to a memory, then a `FeedForward`, each with a residual.

    x [..., T, width], memory [..., S, width] -> [..., T, width]. The arguments are those of
    `TransformerEncoderBlock`, but self-attention is causal unless causal=False is given.
    """

    crossed = True

    def __init__(
        self, width: int | None = None, num_heads: int = 8, *, causal: bool = True, **options: Any
    ) -> None:
        super().__init__(width, num_heads, causal=causal, **options)

    def forward(self, x: Any, memory: Any, *, mask: Any = None, memory_mask: Any = None) -> Tensor:
        x = self._with(x, self.attention_norm, lambda y: self.attention(y, mask=mask))
        x = self._with(
            x, self.cross_norm, lambda y: self.cross_attention(y, memory, mask=memory_mask)
        )
        return self._with(x, self.feed_forward_norm, self.feed_forward)


class _Stack(Module):
    """Blocks in a row, and a norm behind them when each normalises its input."""

    _block: ClassVar[type[_Block]] = _Block

    def __init__(
        self, num_layers: int, width: int | None = None, num_heads: int = 8, **options: Any
    ) -> None:
        name = type(self).__name__
        count = check_size(name, "num_layers", num_layers)
        self.blocks = [self._block(width, num_heads, **options) for _ in range(count)]
        norm = NORMS[options.get("norm", "layer")]
        first = options.get("norm_first", True)
        self.norm = norm(width, dtype=options.get("dtype", float32)) if first else None

    def _normed(self, x: Any) -> Any:
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """So many `TransformerEncoderBlock`s and a last norm: [..., T, width] -> the same.

    Args:
        num_layers: how many blocks; the other arguments are theirs.
    """

    _block = TransformerEncoderBlock

    def forward(self, x: Any, *, mask: Any = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask=mask)
        return self._normed(x)


class TransformerDecoder(_Stack):
    """So many `TransformerDecoderBlock`s and a last norm; see there.

    Args:
        num_layers: how many blocks; the other arguments are theirs.
    """

    _block = TransformerDecoderBlock

    def forward(self, x: Any, memory: Any, *, mask: Any = None, memory_mask: Any = None) -> Tensor:
        for block in self.blocks:
            x = block(x, memory, mask=mask, memory_mask=memory_mask)
        return self._normed(x)


class Transformer(Module):
    """An encoder and a decoder that attends to its results (Vaswani et al., 2017).

    source [..., S, width], target [..., T, width] -> [..., T, width].

    Args:
        width, num_heads: of all blocks.
        encoder_layers, decoder_layers: how many blocks.
        options: those of the blocks.
    """

    def __init__(
        self,
        width: int | None = None,
        num_heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        **options: Any,
    ) -> None:
        if "causal" in options:
            raise EinkornError("Transformer: the decoder is causal and the encoder is not")
        self.encoder = TransformerEncoder(encoder_layers, width, num_heads, **options)
        self.decoder = TransformerDecoder(decoder_layers, width, num_heads, **options)

    def forward(
        self,
        source: Any,
        target: Any,
        *,
        source_mask: Any = None,
        target_mask: Any = None,
        memory_mask: Any = None,
    ) -> Tensor:
        a, b = as_tensor(source, "Transformer"), as_tensor(target, "Transformer")
        if a.shape[-1:] != b.shape[-1:]:
            raise ShapeError(
                f"{module_path.get()}: Transformer needs a source and a target of one width, got "
                f"{a._type} and {b._type}"
            )
        memory = self.encoder(a, mask=source_mask)
        return self.decoder(b, memory, mask=target_mask, memory_mask=memory_mask)
