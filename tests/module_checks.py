"""A network whose parts are shared, for tests of calls of modules."""

from __future__ import annotations

from typing import Any

import numpy as np
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


class Block(nn.Module):
    def __init__(self) -> None:
        self.linear = nn.Linear(4, 4)
        self.act = nn.Tanh()

    def forward(self, x: Any) -> Any:
        return self.act(self.linear(x))


class Net(nn.Module):
    """Calls one block twice, under two names, and counts its calls."""

    def __init__(self) -> None:
        self.first = Block()
        self.blocks = [Block(), self.first]
        self.scales = {"out": ek.Parameter(2.0, "float32")}
        self.add_buffer("calls", 0)
        self.fails = False

    def forward(self, x: Any) -> Any:
        self.calls.value = self.calls.value + 1
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        if self.fails:
            raise ValueError("not today")
        return {"out": x * self.scales["out"], "calls": self.calls.value}


ORDER = [
    *("first/linear", "first/act", "first"),
    *("blocks/v0/linear", "blocks/v0/act", "blocks/v0"),
    *("first/linear#2", "first/act#2", "first#2"),
]


def net(seed: int = 0) -> Net:
    ek.random.seed(seed)
    return Net()


def same(got: Any, want: Any) -> None:
    pairs = zip(ek.tree_leaves(got), ek.tree_leaves(want), strict=True)
    for one, other in pairs:
        assert_same_bits(one, other)
