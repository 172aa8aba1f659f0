"""Multi-head attention."""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions import attention as fn
from einkorn.functions.linear_algebra import linear
from einkorn.functions.manipulation import moveaxis, to_shape
from einkorn.initializers import GlorotUniform, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.nn.building import built
from einkorn.nn.module import Module
from einkorn.nn.settings import Rate, check_flag, check_number, check_size
from einkorn.nn.sized import check_dtype_of, check_width, headline, parameter
from einkorn.tensor import Tensor
from einkorn.tunable import module_path


class MultiHeadAttention(Module):
    """Several attentions side by side (Vaswani et al., 2017): [..., T, embed] -> [..., T, out].

    wo concat(softmax(q_h k_h^T * scale) v_h) with q = wq x, k = wk key, v = wv value cut
    into heads. Weights: `wq` (heads * head_dim, embed), `wk` and `wv` (kv_heads * head_dim, ...),
    `wo` (out, heads * head_dim), and biases `bq bk bv bo`.

    Args:
        embed_dim: features of the queries; those of the first input when left out.
        num_heads: how many heads.
        head_dim: features of a head; embed_dim / num_heads by default.
        kv_heads: heads of keys and values, each shared by adjacent heads (Ainslie et al., 2023).
        key_features, value_features: embed_dim by default.
        out_features: embed_dim by default.
        dropout: of the weights, while training.
        with_bias: whether there are biases.
        causal: query i attends to keys 0 to i.
        rotary: turn queries and keys by their positions; True, or the base of the angles.
        scale: 1 / sqrt(head_dim) by default.
    """

    dropout = Rate()

    def __init__(
        self,
        embed_dim: int | None = None,
        num_heads: int = 8,
        *,
        head_dim: int | None = None,
        kv_heads: int | None = None,
        key_features: int | None = None,
        value_features: int | None = None,
        out_features: int | None = None,
        dropout: float = 0.0,
        with_bias: bool = True,
        causal: bool = False,
        rotary: bool | float = False,
        scale: float | None = None,
        weight_initializer: Any = GlorotUniform,
        bias_initializer: Any = Zeros,
        dtype: Any = float32,
    ) -> None:
        name = "MultiHeadAttention"
        self.num_heads = check_size(name, "num_heads", num_heads)
        self.kv_heads = check_size(name, "kv_heads", kv_heads or num_heads)
        if self.num_heads % self.kv_heads:
            raise EinkornError(f"{name}: {kv_heads} kv_heads do not divide {num_heads} heads")
        self.dropout = dropout
        self.with_bias = check_flag(name, "with_bias", with_bias)
        self.causal = check_flag(name, "causal", causal)
        base = 10000.0 if rotary is True else rotary
        self.rotary = None if rotary is False else check_number(name, "rotary", base, 1.0)
        self.scale = None if scale is None else check_number(name, "scale", scale)
        self._given = (head_dim, key_features, value_features, out_features)
        self._how = (weight_initializer, bias_initializer, dtype)
        self.embed_dim: int | None = None
        if embed_dim is not None:
            self._make(check_size(name, "embed_dim", embed_dim), key_features, value_features)
            built(self)

    def _make(self, embed: int, key: int | None, value: int | None) -> None:
        name, (weight, bias, dtype) = type(self).__name__, self._how
        head, _, _, out = self._given
        if head is None and embed % self.num_heads:
            raise EinkornError(
                f"{name}: {embed} features are no {self.num_heads} equal heads; give head_dim"
            )
        head = check_size(name, "head_dim", head or embed // self.num_heads)
        rows, few = self.num_heads * head, self.kv_heads * head
        if self.rotary is not None and head % 2:
            raise EinkornError(f"{name}: rotary needs heads of even size, got head_dim={head}")
        end = check_size(name, "out_features", out or embed)
        self.wq = parameter(weight, (rows, embed), dtype)
        self.wk = parameter(weight, (few, check_size(name, "key_features", key or embed)), dtype)
        self.wv = parameter(
            weight, (few, check_size(name, "value_features", value or embed)), dtype
        )
        self.wo = parameter(weight, (end, rows), dtype)
        for letter, size in (("q", rows), ("k", few), ("v", few), ("o", end)):
            made = parameter(bias, (size,), dtype) if self.with_bias else None
            setattr(self, f"b{letter}", made)
        self.head_dim, self.embed_dim = head, embed

    def build(self, query: Any, key: Any = None, value: Any = None, **_: Any) -> None:
        """Make the parameters for the features of inputs."""
        if self.embed_dim is not None:
            return
        of_query, of_key, of_value = self._three(query, key, value)
        known_key, known_value = self._given[1:3]
        self._make(
            of_query.shape[-1],
            known_key or of_key.shape[-1],
            known_value or of_value.shape[-1],
        )

    def _three(self, query: Any, key: Any, value: Any) -> tuple[Tensor, Tensor, Tensor]:
        first = as_tensor(query, "MultiHeadAttention")
        second = first if key is None else as_tensor(key, "MultiHeadAttention")
        third = second if value is None else as_tensor(value, "MultiHeadAttention")
        for x in (first, second, third):
            if x.ndim < 2 or not x.shape[-1]:
                raise ShapeError(
                    f"{module_path.get()}: {headline(self)} takes [..., T, features], got {x._type}"
                )
        return first, second, third

    def forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        *,
        mask: Any = None,
        causal: bool | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            key: [..., S, key_features]; the query by default.
            value: [..., S, value_features]; the key by default.
            mask: [T, S], or with leading axes, [..., T, S] for all heads alike or
                [..., heads, T, S]: bool, True where a query may attend, or floats that are added.
            causal: in place of the layer's own.
        """
        of_query, of_key, of_value = self._three(query, key, value)
        for x, name in ((of_query, "wq"), (of_key, "wk"), (of_value, "wv")):
            w = getattr(self, name)
            check_width(self, x, w.shape[1], name=name)
            check_dtype_of(self, x, w, name)
        q = self._heads(linear(of_query, self.wq, self.bq), self.num_heads)
        k = self._heads(linear(of_key, self.wk, self.bk), self.kv_heads)
        v = self._heads(linear(of_value, self.wv, self.bv), self.kv_heads)
        if self.rotary is not None:
            q, k = (fn.rotary_embedding(x, base=self.rotary) for x in (q, k))
        mixed = fn.attention(
            q,
            k,
            v,
            mask=self._mask(mask, q.ndim),
            causal=self.causal if causal is None else causal,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        joined = moveaxis(mixed, -3, -2)
        sizes = (*joined.shape[:-2], self.num_heads * self.head_dim)
        return linear(to_shape(joined, sizes), self.wo, self.bo)

    bq: Any
    bk: Any
    bv: Any
    bo: Any

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """[..., T, heads * head_dim] as [..., heads, T, head_dim]."""
        return moveaxis(to_shape(x, (*x.shape[:-1], heads, self.head_dim)), -2, -3)

    def _mask(self, mask: Any, ndim: int) -> Tensor | None:
        if mask is None:
            return None
        given = as_tensor(mask, "MultiHeadAttention")
        if 2 < given.ndim < ndim:
            sizes = (*given.shape[:-2], 1, *given.shape[-2:])
            return to_shape(given, sizes)
        return given

    def extra_repr(self) -> str:
        embed = "?" if self.embed_dim is None else self.embed_dim
        return f"{embed}, num_heads={self.num_heads}" + (", causal=True" if self.causal else "")
