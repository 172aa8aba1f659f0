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


class Peer(torch.nn.Module):
    """The network of the example, made of PyTorch's layers."""

    def __init__(self, alphabet: int) -> None:
        super().__init__()
        self.characters = torch.nn.Embedding(alphabet, WIDTH)
        self.positions = torch.nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        block = torch.nn.TransformerEncoderLayer(
            WIDTH, WIDTH // 32, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = torch.nn.LayerNorm(WIDTH)
        self.blocks = torch.nn.TransformerEncoder(block, LAYERS, norm, enable_nested_tensor=False)
        self.out = torch.nn.Linear(WIDTH, alphabet)

    def forward(self, x: Any) -> Any:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        x = self.characters(x) + self.positions
        return self.out(self.blocks(x, mask=mask, is_causal=True))

    def take(self, ours: dict[str, Any]) -> None:
        """Copy the weights of the example's network."""
        theirs = {
            "characters.weight": ours["characters.w"],
            "positions": ours["positions.w"],
            "out.weight": ours["out.w"],
            "out.bias": ours["out.b"],
            "blocks.norm.weight": ours["blocks.norm.w"],
            "blocks.norm.bias": ours["blocks.norm.b"],
        }
        pairs = {
            "self_attn.out_proj": ("attention.wo", "attention.bo"),
            "linear1": ("feed_forward.inner.w", "feed_forward.inner.b"),
            "linear2": ("feed_forward.out.w", "feed_forward.out.b"),
            "norm1": ("attention_norm.w", "attention_norm.b"),
            "norm2": ("feed_forward_norm.w", "feed_forward_norm.b"),
        }
        for k in range(LAYERS):
            here, there = f"blocks.blocks.v{k}.", f"blocks.layers.{k}."
            for name, (w, b) in pairs.items():
                theirs[f"{there}{name}.weight"] = ours[here + w]
                theirs[f"{there}{name}.bias"] = ours[here + b]
            for name, letter in (("weight", "w"), ("bias", "b")):
                parts = [ours[f"{here}attention.{letter}{x}"] for x in "qkv"]
                theirs[f"{there}self_attn.in_proj_{name}"] = np.concatenate(parts)
        self.load_state_dict({name: torch.tensor(x) for name, x in theirs.items()})


def loss_in_torch(peer: Peer, x: Any, y: Any) -> Any:
    logits = peer(torch.tensor(x)).flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(y).flatten())


def train_in_torch(peer: Peer, batches: list[Any]) -> list[float]:
    """AdamW with clipping; a twentieth of the steps warms up, half a cosine follows."""
    warm = STEPS // 20

    def factor(n: int) -> float:
        return n / warm if n < warm else (1 + math.cos(math.pi * (n - warm) / (STEPS - warm))) / 2

    opt = torch.optim.AdamW(peer.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, factor)
    losses = []
    for x, y in batches:
        opt.zero_grad()
        loss = loss_in_torch(peer, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
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
    network = characters.Network(len(alphabet), CONTEXT, WIDTH, LAYERS)
    peer = Peer(len(alphabet))
    peer.take(network.state_dict())
    step = characters.training_step(network, STEPS, RATE)
    ours = [float(step(x, y)) for x, y in batches]
    theirs = train_in_torch(peer, batches)
    assert ours[-1] < ours[0] - 1
    np.testing.assert_allclose(ours[:5], theirs[:5], rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    mine = float(ek.nn.cross_entropy(network(test[0]), test[1]))
    with torch.no_grad():
        assert mine == pytest.approx(float(loss_in_torch(peer, *test)), rel=0.02)
