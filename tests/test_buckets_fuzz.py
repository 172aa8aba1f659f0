"""Random programs on padded arrays: the bits of calls without buckets, or an error that says why.

A failure names the seed; `python tests/test_buckets_fuzz.py 0 1000` tries more of them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bucket_checks import POISON, check_padded

import einkorn as ek

MAX_REFUSED = 5  # of SEEDS programs: most of what is written here can be padded
SEEDS = 60

Fn = Callable[[Any], Any]

# Functions of an array of any rank from 1 on, most of which mix elements along some axis.
PARTS: dict[str, Fn] = {
    "exp": lambda x: ek.exp(x * 0.1),
    "square": lambda x: x * x,
    "reverse first": lambda x: x[::-1],
    "reverse last": lambda x: x[..., ::-1],
    "tail": lambda x: x[1:],
    "head": lambda x: x[..., :-1],
    "flat": lambda x: x.reshape(-1),
    "transpose": lambda x: ek.permute_dims(x, tuple(range(x.ndim))[::-1]),
    "sum first": lambda x: x.sum(axis=0) if x.ndim > 1 else x,
    "sum last": lambda x: x.sum(axis=-1) if x.ndim > 1 else x,
    "centre": lambda x: x - x.mean(axis=0),
    "softmax": ek.nn.softmax,
    "cumulative": lambda x: ek.cumulative_sum(x, axis=0),
    "join first": lambda x: ek.concat([x, x * 2], axis=0),
    "join last": lambda x: ek.concat([x, -x], axis=-1),
    "pad": lambda x: ek.pad(x, 1),
    "sort": lambda x: ek.sort(x, axis=0),
    "roll": lambda x: ek.roll(x, 2, axis=-1),
    "outer": lambda x: x[..., None] * ek.arange(2) if x.ndim < 4 else x,
    "repeat": lambda x: ek.repeat(x, 2, axis=-1),
    "rows": lambda x: x @ ek.matrix_transpose(x) if x.ndim > 1 else x,
    "columns": lambda x: ek.matrix_transpose(x) @ x if x.ndim > 1 else x,
    "new axis": lambda x: x[None] if x.ndim < 4 else x,
    "divide": lambda x: x / x.shape[0],
    "order": lambda x: x[ek.argsort(x.reshape((x.shape[0], -1))[:, 0])],
    "noise": lambda x: x + ek.random.uniform(x.shape),
    "deviation": lambda x: x / (1 + x.std(axis=-1, keepdims=True)),
    "scatter": lambda x: x.at[0].add(1.0),
    "largest": lambda x: x - x.max(axis=0),
    "half": lambda x: x.astype("float16").astype("float32"),
    "triangle": lambda x: ek.tril(x) if x.ndim > 1 else x,
    "scan": lambda x: ek.scan(lambda c, row: (c * 0.5 + row.sum(), c + row), 0.0, x)[1],
    "one hot": lambda x: ek.one_hot(ek.argmax(x, axis=-1) % 5, 5) * 1.5 if x.ndim < 4 else x,
    "linspace": lambda x: x * ek.linspace(0, 1, x.shape[-1]),
    "project": lambda x: ek.tensordot(x, ek.ones((x.shape[-1], 5)), axes=1),
    "product": lambda x: ek.cumulative_prod(ek.tanh(x), axis=-1),
    "logsumexp": lambda x: ek.logsumexp(x, axis=0, keepdims=True) + x,
}


def program(seed: int) -> tuple[Fn, Callable[[int], Any], Any, str]:
    """A function, what it is called with for a size, the axes of that size, and a description."""
    choose = random.Random(seed)
    rank = choose.choice([1, 2, 2, 3])
    axis = choose.randrange(rank)
    shape = [choose.choice([1, 2, 3, 5]) for _ in range(rank)]
    other = (axis + 1) % rank if rank > 1 and choose.random() < 0.3 else None
    names = [choose.choice(list(PARTS)) for _ in range(choose.randint(2, 5))]
    derives = choose.random() < 0.5

    def arrays(n: int) -> tuple[Any, ...]:
        sizes = list(shape)
        sizes[axis] = n
        if other is not None:
            sizes[other] = n + 2
        values = np.random.default_rng([seed, n]).normal(size=sizes)
        return ((np.round(values * 4) / 4).astype("float32"),)

    def apply(x: Any) -> Any:
        for name in names:
            x = PARTS[name](x)
        return x

    def run(x: Any) -> Any:
        return ek.grad(lambda y: (apply(y) ** 2).sum())(x) if derives else apply(x)

    axes = {axis: "pow2"} | ({} if other is None else {other: 8})
    return run, arrays, {"x": axes}, f"seed {seed}: {names} of {shape}, {axes}, grad={derives}"


def padded(seed: int) -> bool:
    """Whether a program can be padded; AssertionError when its bits are others then."""
    run, arrays, buckets, text = program(seed)
    try:
        check_padded(run, arrays, buckets, sizes=(5, 7, 8, 10), poison=[POISON[seed % 2]])
    except ek.SizeError:
        return False
    except Exception as error:
        error.add_note(text)
        raise
    return True


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_random_programs(first: int) -> None:
    refused = [seed for seed in range(first, first + 10) if not padded(seed)]
    assert len(refused) <= MAX_REFUSED * 10 / SEEDS + 1


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        if not padded(number):
            print(f"refused {program(number)[-1]}")  # noqa: T201 # a report
