"""The work of compiling a deep model grows linearly with its depth: counted, not timed."""

from __future__ import annotations

from cProfile import Profile
from pstats import Stats
from typing import Any, NamedTuple

import numpy as np

import einkorn as ek

WIDTH, HEADS, TIME, BATCH, WORDS = 16, 2, 4, 2, 7


class Size(NamedTuple):
    nodes: int
    launches: int
    kernels: int
    calls: int  # Python calls from the trace to the program


def _leaf(rng: Any, *shape: int) -> ek.Parameter:
    return ek.Parameter((rng.standard_normal(shape) * 0.1).astype("float32"))


def _model(layers: int) -> Any:
    rng, d = np.random.default_rng(0), WIDTH
    shapes = {
        "g1": (d,), "b1": (d,), "wqkv": (d, 3 * d), "wo": (d, d), "g2": (d,), "b2": (d,),
        "w1": (d, 4 * d), "c1": (4 * d,), "w2": (4 * d, d), "c2": (d,),
    }  # fmt: skip
    blocks = {
        f"l{k}": ek.Container({name: _leaf(rng, *shape) for name, shape in shapes.items()})
        for k in range(layers)
    }
    return ek.Container(words=_leaf(rng, WORDS, d), head=_leaf(rng, d, WORDS), blocks=blocks)


def _norm(x: Any, gain: Any, bias: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / ek.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias


def _block(h: Any, p: Any) -> Any:
    qkv = (_norm(h, p.g1, p.b1) @ p.wqkv).reshape(BATCH, TIME, 3, HEADS, WIDTH // HEADS)
    q, k, v = (ek.permute_dims(qkv, (2, 0, 3, 1, 4))[n] for n in range(3))
    mixed = ek.nn.softmax(q @ ek.matrix_transpose(k) * 0.35) @ v
    h = h + ek.permute_dims(mixed, (0, 2, 1, 3)).reshape(BATCH, TIME, WIDTH) @ p.wo
    return h + ek.nn.gelu(_norm(h, p.g2, p.b2) @ p.w1 + p.c1) @ p.w2 + p.c2


def _size(layers: int) -> Size:
    model = _model(layers)
    opt = ek.optim.AdamW(model, lr=1e-3)

    def loss(x: Any) -> Any:
        h = model.words[x]
        for block in model.blocks.values():
            h = _block(h, block)
        return ek.nn.cross_entropy((h @ model.head).reshape(-1, WORDS), x.reshape(-1))

    @ek.compile
    def step(x: Any) -> Any:
        value, grads = ek.value_and_grad(loss, model)(x)
        opt.step(grads)
        return value

    x = ek.asarray(np.zeros((BATCH, TIME), "int64"))
    profile = Profile()
    profile.enable()
    low = step.lower(x)
    program = low.program
    profile.disable()
    calls: int = Stats(profile).total_calls  # type: ignore[attr-defined] # pstats has no stub of it
    return Size(len(low.graph.nodes), len(program.instructions), len(program.kernels), calls)


def test_work_grows_linearly_with_depth() -> None:
    _size(1)  # what is imported and cached once
    two, three, four = map(_size, (2, 3, 4))
    assert two.kernels == three.kernels == four.kernels
    for name in ("nodes", "launches"):
        a, b, c = (getattr(size, name) for size in (two, three, four))
        assert c - b == b - a, name
    assert four.calls - three.calls < 1.1 * (three.calls - two.calls)
