"""Models whose forward writes attributes, and how what they hold is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from compile_checks import assert_same_nest

import einkorn as ek
from einkorn import nn

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


@dataclass
class Pair:
    """A dataclass as the value of an attribute."""

    mean: Any
    count: int


def attributes(model: nn.Module) -> dict[str, Any]:
    """All that a model holds, by path, bookkeeping aside."""
    return {
        f"{path}.{name}": value.numpy().copy() if isinstance(value, ek.nn.Parameter) else value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_ek_") and not _holds_modules(value)
    }


def _holds_modules(value: Any) -> bool:
    return any(isinstance(end, nn.Module) for end in ek.tree_leaves(value))


def assert_same_attributes(got: nn.Module, want: nn.Module) -> None:
    a, b = attributes(got), attributes(want)
    assert a.keys() == b.keys()
    for name in a:
        assert type(a[name]) is type(b[name]), name
        assert_same_nest(a[name], b[name])


class Counts(nn.Module):
    def __init__(self) -> None:
        self.steps = 0

    def forward(self, x: Any) -> Any:
        self.steps += 1
        return x * self.steps


class Averages(nn.Module):
    def __init__(self) -> None:
        self.mean, self.seen = 0.0, 0

    def forward(self, x: Any) -> Any:
        self.seen = self.seen + x.shape[0]
        self.mean = 0.9 * self.mean + 0.1 * 3.5 - 1
        return x * self.mean + self.seen / 3


class Keeps(nn.Module):
    def __init__(self) -> None:
        self.last: Any = None
        self.text, self.flag = "none", False

    def forward(self, x: Any) -> Any:
        self.last = x * 2
        self.text, self.flag = "some", True
        return self.last.sum()


class Remembers(nn.Module):
    def __init__(self) -> None:
        self.h: Any = ek.asarray(np.zeros((3, 4), np.float32))

    def forward(self, x: Any) -> Any:
        self.h = 0.5 * self.h + x
        return self.h.sum()


class Starts(nn.Module):
    def __init__(self) -> None:
        self.h: Any = None

    def forward(self, x: Any) -> Any:
        if self.h is None:
            self.h = ek.zeros_like(x)
        self.h = self.h * self.h + x
        return self.h


class Nests(nn.Module):
    def __init__(self) -> None:
        self.pair: Any = (ek.asarray(X), 1)
        self.rows: Any = [ek.asarray(X), {"a": ek.asarray(X[0])}]
        self.named: Any = {}
        self.both: Any = None

    def forward(self, x: Any) -> Any:
        self.pair = (self.pair[0] + x, self.pair[1])
        self.rows = [self.rows[0] * 2, {"a": self.rows[1]["a"] - 1}]
        self.named = {"x": x, "n": 3, "y": [x + 1, None]}
        self.both = Pair(x.mean(), 7)
        return self.pair[0].sum() + self.rows[1]["a"].sum() + self.named["y"][0]


class Grows(nn.Module):
    def __init__(self) -> None:
        self.cache: Any = ek.asarray(X[:0])

    def forward(self, x: Any) -> Any:
        self.cache = ek.concat([self.cache, x])
        return self.cache.mean(axis=0)


class Alternates(nn.Module):
    def __init__(self) -> None:
        self.turn = "a"

    def forward(self, x: Any) -> Any:
        self.turn = "b" if self.turn == "a" else "a"
        return x * (2 if self.turn == "a" else 3)


class Every(nn.Module):
    def __init__(self) -> None:
        self.steps, self.late = 0, 0.0

    def forward(self, x: Any) -> Any:
        self.steps += 1
        if self.steps % 3 == 0:
            self.late = self.late + 1.0
            return x * self.late
        return x - self.steps // 2 if self.late > 1 else x


class Parts(nn.Module):
    def __init__(self) -> None:
        self.one, self.two, self.rows = Counts(), Counts(), [Counts(), Remembers()]

    def forward(self, x: Any) -> Any:
        x = self.two(self.one(self.one(x)))
        self.total = self.one.steps + self.two.steps
        for row in self.rows:
            x = x + row(x)
        return x * self.total


class Property(nn.Module):
    def __init__(self) -> None:
        self._n = 0

    @property
    def n(self) -> int:
        return self._n

    @n.setter
    def n(self, value: int) -> None:
        self._n = value

    def forward(self, x: Any) -> Any:
        self.n += 2
        return x * self.n


class Twice(nn.Module):
    def __init__(self) -> None:
        self.a, self.b = 1, 2

    def forward(self, x: Any) -> Any:
        self.a, self.b = self.b, self.a
        self.a += 1
        self.sum = self.a + self.b
        self.sum = self.sum * 2
        return x * self.sum


CLASSES = [
    Counts, Averages, Keeps, Remembers, Starts, Nests, Grows, Alternates, Every, Parts, Property,
    Twice,
]  # fmt: skip
# How many traces are enough, whatever the number of calls.
ENOUGH = {Starts: 2, Keeps: 1, Grows: 6, Alternates: 2, Every: 6}
