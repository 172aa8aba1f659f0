"""The character model of the examples learns as the same one in PyTorch does."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek

torch = pytest.importorskip("torch", reason="compares with PyTorch")
pytest.importorskip("matplotlib", reason="the example saves pictures")

FILE = Path(__file__).parent.parent / "examples" / "characters.py"
STEPS, BATCH, CONTEXT, WIDTH, LAYERS, RATE = 60, 16, 32, 64, 2, 3e-3


def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("characters", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def turned(x: Any) -> Any:
    """Queries or keys [..., T, D] turned by their position (Su et al., 2021)."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 10000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def peer(weights: dict[str, Any], x: Any) -> Any:
    """The logits of the example's network, by PyTorch's functions and weights of its names."""
    functional = torch.nn.functional

    def linear(name: str, x: Any, part: str = "") -> Any:
        return functional.linear(x, weights[f"{name}.w{part}"], weights[f"{name}.b{part}"])

    def norm(name: str, x: Any) -> Any:
        return functional.layer_norm(x, (WIDTH,), weights[f"{name}.w"], weights[f"{name}.b"])

    def heads(x: Any) -> Any:
        return x.unflatten(-1, (-1, 32)).transpose(1, 2)

    x = weights["characters.w"][x]
    for k in range(LAYERS):
        block = f"blocks.blocks.v{k}"
        inner = norm(f"{block}.attention_norm", x)
        q, key, v = (heads(linear(f"{block}.attention", inner, part)) for part in "qkv")
        mixed = functional.scaled_dot_product_attention(turned(q), turned(key), v, is_causal=True)
        x = x + linear(f"{block}.attention", mixed.transpose(1, 2).flatten(-2), "o")
        inner = linear(f"{block}.feed_forward.inner", norm(f"{block}.feed_forward_norm", x))
        x = x + linear(f"{block}.feed_forward.out", functional.gelu(inner))
    return linear("out", norm("blocks.norm", x))


def loss_in_torch(weights: dict[str, Any], x: Any, y: Any) -> Any:
    logits = peer(weights, torch.tensor(x)).flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(y).flatten())


def train_in_torch(weights: dict[str, Any], batches: list[Any]) -> list[float]:
    """AdamW with clipping; a twentieth of the steps warms up, half a cosine follows."""
    warm = STEPS // 20

    def factor(n: int) -> float:
        return n / warm if n < warm else (1 + math.cos(math.pi * (n - warm) / (STEPS - warm))) / 2

    opt = torch.optim.AdamW(weights.values(), RATE, betas=(0.9, 0.99), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, factor)
    losses = []
    for x, y in batches:
        opt.zero_grad()
        loss = loss_in_torch(weights, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        opt.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def test_the_same_weights_and_batches_reach_the_same_loss() -> None:
    characters = example()
    codes, held_out, alphabet = characters.load()
    rng = np.random.default_rng(0)
    batches = [characters.batch(codes, BATCH, CONTEXT, rng) for _ in range(STEPS)]
    test = characters.batch(held_out, 64, CONTEXT, rng)
    ek.random.seed(0)
    network = characters.Network(len(alphabet), WIDTH, LAYERS)
    weights = {name: torch.tensor(x) for name, x in network.state_dict().items()}
    for weight in weights.values():
        weight.requires_grad_()
    step = characters.training_step(network, STEPS, RATE)
    ours = [float(step(x, y)) for x, y in batches]
    theirs = train_in_torch(weights, batches)
    assert ours[-1] < ours[0] - 1
    np.testing.assert_allclose(ours[:5], theirs[:5], rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    mine = float(ek.nn.cross_entropy(network(test[0]), test[1]))
    with torch.no_grad():
        assert mine == pytest.approx(float(loss_in_torch(weights, *test)), rel=0.02)
