"""Layers beside PyTorch's with the same weights: values and gradients by inputs, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einkorn as ek

torch = pytest.importorskip("torch")
nn = ek.nn
rng = np.random.default_rng(0)
DOUBLE = {"dtype": "float64"}


def floats(*shape: int) -> Any:
    return rng.normal(size=shape)


def first(x: Any) -> Any:
    return x[0] if isinstance(x, tuple) else x


def to_first(x: Any) -> Any:
    """Channels from the last axis to the second."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def fill(theirs: Any, **values: Any) -> None:
    with torch.no_grad():
        for name, value in values.items():
            getattr(theirs, name).copy_(torch.from_numpy(np.array(value)))


def compare(ours: Any, theirs: Any, x: Any, moved: bool = False) -> None:
    """Both on x; PyTorch has channels second when they are moved."""
    out = first(ours(x))
    g = floats(*out.shape)
    gradient = ek.grad(lambda x: (first(ours(x)) * g).sum())(x)
    other = torch.from_numpy(to_first(x) if moved else x).requires_grad_()
    theirs = theirs.double()
    result = first(theirs(other))
    result.backward(torch.from_numpy(to_first(g) if moved else g))
    back = (lambda t: np.moveaxis(t, 1, -1)) if moved else (lambda t: t)
    np.testing.assert_allclose(out, back(result.detach().numpy()), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(gradient, back(other.grad.numpy()), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(spatial: int, transposed: bool) -> None:
    name = f"Conv{spatial}D" + "Transpose" * transposed
    more = {"output_padding": 1} if transposed else {"groups": 2}
    ours = getattr(nn, name)(4, 6, 3, stride=2, padding=1, **more, **DOUBLE)
    name = f"Conv{'Transpose' * transposed}{spatial}d"
    theirs = getattr(torch.nn, name)(4, 6, 3, stride=2, padding=1, **more).double()
    w = np.asarray(ours.w)
    w = np.moveaxis(w, -1, 0) if transposed else np.moveaxis(w, -1, 1)
    fill(theirs, weight=w, bias=ours.b)
    compare(ours, theirs, floats(2, *(5,) * spatial, 4), moved=True)


def gates(count: int, hidden: int, bias: Any, second: Any = None) -> Any:
    """PyTorch's second bias: zeros, but for a GRU's last gate."""
    zeros = np.zeros(count * hidden)
    if second is not None:
        zeros[-hidden:] = second
    return {"input": np.asarray(bias), "hidden": zeros}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind: str) -> None:
    ours = getattr(nn, kind)(3, 4, 2, bidirectional=True, **DOUBLE)
    theirs = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True, batch_first=True).double()
    for k, cell in enumerate(ours.cells):
        end = f"l{k // 2}" + "_reverse" * (k % 2)
        both = gates(cell.gates, 4, cell.b, getattr(cell, "bh", None))
        fill(
            theirs,
            **{
                f"weight_ih_{end}": cell.wx,
                f"weight_hh_{end}": cell.wh,
                f"bias_ih_{end}": both["input"],
                f"bias_hh_{end}": both["hidden"],
            },
        )
    compare(ours, theirs, floats(2, 5, 3))
    ours.return_state = True
    x = floats(2, 5, 3)
    ends = ek.tree_leaves(ours(x)[1])
    state = theirs(torch.from_numpy(x))[1]
    for one, other in zip(ends, state if kind == "LSTM" else [state], strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-9, atol=1e-10)


def test_attention() -> None:
    ours = nn.MultiHeadAttention(6, 3, **DOUBLE)
    theirs = torch.nn.MultiheadAttention(6, 3, batch_first=True).double()
    fill_attention(ours, theirs)
    module = torch.nn.Module()
    module.forward = lambda x: theirs(x, x, x, need_weights=False)
    compare(ours, module, floats(2, 5, 6))


def fill_attention(ours: Any, theirs: Any) -> None:
    for name in ("bq", "bk", "bv", "bo"):
        leaf = getattr(ours, name)
        leaf.value = floats(*leaf.shape)
    fill(
        theirs,
        in_proj_weight=np.concatenate([ours.wq, ours.wk, ours.wv]),
        in_proj_bias=np.concatenate([ours.bq, ours.bk, ours.bv]),
    )
    fill(theirs.out_proj, weight=ours.wo, bias=ours.bo)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_blocks(norm_first: bool) -> None:
    ours = nn.TransformerEncoderBlock(6, 2, hidden=8, norm_first=norm_first, **DOUBLE)
    theirs = torch.nn.TransformerEncoderLayer(
        6, 2, 8, 0.0, "gelu", batch_first=True, norm_first=norm_first
    ).double()
    fill_attention(ours.attention, theirs.self_attn)
    fill(theirs.linear1, weight=ours.feed_forward.inner.w, bias=ours.feed_forward.inner.b)
    fill(theirs.linear2, weight=ours.feed_forward.out.w, bias=ours.feed_forward.out.b)
    compare(ours, theirs, floats(2, 5, 6))


@pytest.mark.parametrize("training", [True, False])
def test_norms(training: bool) -> None:
    x = floats(3, 4, 5, 6)
    pairs = [
        (nn.BatchNorm(6, **DOUBLE), torch.nn.BatchNorm2d(6)),
        (nn.InstanceNorm(6, **DOUBLE), torch.nn.InstanceNorm2d(6, affine=True)),
        (nn.GroupNorm(3, 6, **DOUBLE), torch.nn.GroupNorm(3, 6)),
    ]
    for ours, theirs in pairs:
        ours.w.value, ours.b.value = floats(6), floats(6)
        fill(theirs.double(), weight=ours.w, bias=ours.b)
        compare(ours.train(training), theirs.train(training), x, moved=True)
    ours, theirs = nn.LayerNorm((5, 6), **DOUBLE), torch.nn.LayerNorm((5, 6))
    ours.w.value, ours.b.value = floats(5, 6), floats(5, 6)
    fill(theirs.double(), weight=ours.w, bias=ours.b)
    compare(ours, theirs, x)
    rms = nn.RMSNorm(6, **DOUBLE)
    compare(rms, torch.nn.RMSNorm(6, eps=1e-5), x)


def test_running_statistics() -> None:
    ours, theirs = nn.BatchNorm(4, **DOUBLE), torch.nn.BatchNorm1d(4).double()
    for _ in range(3):
        x = floats(5, 4)
        ours(x)
        theirs(torch.from_numpy(x))
    np.testing.assert_allclose(ours.running_mean, theirs.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.running_var, theirs.running_var.numpy(), rtol=1e-12)
