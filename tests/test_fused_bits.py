"""What is fused has the bits of the ops one by one, whatever is reduced, broadcast and updated.

The oracle runs op by op what passes/decompose.py leaves, so the kernels of a softmax are under test
as well; tests/test_canonical_orders.py and tests/test_softmax.py hold single ops to their
definitions. A failure prints the seed and the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any

import numpy as np
import pytest
from fused_programs import arrays_for, fused_program
from guarded_run import guarded_run
from same_bits import assert_same_bits, bits, build, execute, split_finely

import einkorn as ek
from einkorn.codegen.llvm.target import LLVM
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Over
from einkorn.ir.rewrite import always
from einkorn.passes.decompose import decompose
from einkorn.passes.pipeline import stages
from einkorn.runtime.evaluate import evaluate
from einkorn.runtime.settings import override

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", autouse=True)
def _split() -> Generator[None]:
    with split_finely():
        yield


# -- random programs -------------------------------------------------------------------------------


def _op_by_op(graph: Graph, arrays: list[Array]) -> list[Array]:
    plain = decompose(graph)
    with override(threads=2):
        return evaluate(plain.results, dict(zip(plain.params, arrays)))


def _check(seed: int, steps: int) -> None:
    graph = fused_program(Random(seed), steps)
    about = f"fused_program(Random({seed}), {steps}), special={seed % 3 == 0}\n{graph}"
    arrays = arrays_for(seed, graph, seed % 3 == 0)
    want = _op_by_op(graph, arrays)
    program = build(graph)
    found = {
        "one thread": execute(program, graph, arrays, 1, False),
        "two, in place": execute(program, graph, arrays, 2, True),
        "three, guarded": guarded_run(program, graph, arrays, 3, bool(seed % 2)),
    }
    for how, got in found.items():
        for k, (x, y) in enumerate(zip(got, want, strict=True)):
            assert_same_bits(x, y, f"result {k} with {how} of {about}")


@pytest.mark.parametrize("first", range(0, 240, 20))
def test_random_programs(first: int) -> None:
    for seed in range(first, first + 20):
        _check(seed, 10)


@pytest.mark.parametrize("first", range(1000, 1012, 3))
def test_long_random_programs(first: int) -> None:
    for seed in range(first, first + 3):
        _check(seed, 60)


def test_random_programs_have_every_kind_of_kernel() -> None:
    """Each kind of group, several stages, and partial results inside of rows."""
    kinds: set[str] = set()
    overs: set[tuple[str, Over]] = set()
    for seed in range(120):
        stage: Any = fused_program(Random(seed), 10)
        for name, run in stages(LLVM.machine, always):
            stage = run(stage)
            if name == "fuse":
                kinds.update(group.kind for group in stage.groups)
            if name == "batch":
                kernels = [launch.kernel for launch in stage.steps]
                kinds.update(type(kernel).__name__ for kernel in kernels)
                for kernel in kernels:
                    for step in getattr(kernel, "body", ()):
                        if step.over is not None:
                            overs.add((kernel.reduction, step.over))
                break
    assert {"map", "rows", "bands", "blocks", "columns", "dot"} <= kinds
    assert {"Batched", "Sequence", "TiledDot", "SkinnyDot"} <= kinds
    assert overs == {
        ("rows", Over.ROW), ("bands", Over.ROW), ("bands", Over.COLUMN), ("bands", Over.WHOLE),
        ("blocks", Over.WHOLE), ("columns", Over.COLUMN),
    }  # fmt: skip


# -- through the public functions ------------------------------------------------------------------

Leaves = dict[str, Any]


def _numbers(*shape: int, dtype: str = "float32", special: bool = False) -> Array:
    x = np.random.default_rng([7, *shape]).standard_normal(shape).astype(dtype)
    if special and x.size:
        x.reshape(-1)[::97], x.reshape(-1)[::53], x.reshape(-1)[::11] = np.nan, np.inf, -0.0
    return x


def _state(fn: Callable[..., Any], start: dict[str, Array], args: Any, mode: int) -> list[Any]:
    """The bits of results and leaves after each of two calls; `mode` threads, 0 for eager."""
    leaves = {name: ek.Parameter(x.copy(), name=name) for name, x in start.items()}
    step = ek.compile(lambda *given: fn(leaves, *given))
    found: list[Any] = []
    for _ in range(2):
        if mode:
            with override(threads=mode):
                result = step(*args)
        else:
            with ek.eager():
                result = step(*args)
        values = result if isinstance(result, tuple) else () if result is None else (result,)
        found += [bits(x.numpy()) for x in (*values, *leaves.values())]
    return found


def _same(fn: Callable[..., Any], start: dict[str, Array], *args: Any) -> None:
    want = _state(fn, start, args, 0)
    for threads in (1, 2, 3):
        assert _state(fn, start, args, threads) == want, f"{threads} threads"


UPDATES: dict[str, Callable[[Any], Any]] = {
    "flip": lambda w: w[::-1] * 2,
    "roll": lambda w: w + w[::-1],
    "first row": lambda w: w - w[:1],
    "last column": lambda w: w * w[..., -1:],
    "first element": lambda w: w * w.reshape(-1)[0],
    "mean of columns": lambda w: w - w.mean(0),
    "mean of all": lambda w: w - w.mean(),
    "sum of rows": lambda w: w / w.sum(axis=-1, keepdims=True),
    "norm": lambda w: w / ek.sqrt((w * w).sum() + 1e-6),
    "rows and elements": lambda w: w / (1 + ek.abs(w).sum(-1, keepdims=True)) - w[..., :1],
    "twice centred": lambda w: w - w.mean(0) - w.mean(-1, keepdims=True) + w.mean(),
    "softmax": lambda w: ek.nn.softmax(w, axis=-1),
    "softmax of columns": lambda w: ek.nn.softmax(w, axis=0),
    "log softmax": lambda w: ek.nn.log_softmax(w, axis=-1) + w,
    "layer norm": lambda w: (w - w.mean(-1, keepdims=True)) / ek.sqrt(w.var(-1, keepdims=True) + 1),
    "softmax of layer norm": lambda w: ek.nn.softmax((w - w.mean(-1, keepdims=True)) * 0.5),
    "where": lambda w: ek.where(w > w.mean(-1, keepdims=True), w, -w),
    "maximum": lambda w: ek.maximum(w, w.max(-1, keepdims=True) * 0.5),
}
SQUARE: dict[str, Callable[[Any], Any]] = {
    "product with its transpose": lambda w: (w.T @ w) * 0.1,
    "transpose": lambda w: w.T + w,
    "product": lambda w: ek.tanh(w @ w) + w,
    "product, turned epilogue": lambda w: ek.tanh(w @ w.T) + w.T,
}
SHAPES = [
    (1,), (1, 1), (5, 5), (257, 3), (3, 257), (1, 300), (300, 1), (512, 64), (3, 4097), (2100, 16),
]  # fmt: skip


@pytest.mark.parametrize("name", UPDATES)
def test_a_leaf_is_updated_from_itself(name: str) -> None:
    def step(leaves: Leaves) -> None:
        leaves["w"].value = UPDATES[name](leaves["w"])

    for shape in SHAPES:
        _same(step, {"w": _numbers(*shape, special=len(shape) + shape[0] % 2 == 3)})


@pytest.mark.parametrize("name", SQUARE)
def test_a_matrix_is_updated_from_products_of_itself(name: str) -> None:
    def step(leaves: Leaves) -> None:
        leaves["w"].value = SQUARE[name](leaves["w"])

    for n in (1, 3, 16, 33, 64):
        _same(step, {"w": _numbers(n, n)})


@pytest.mark.parametrize("shape", [(1,), (5,), (300,), (64, 64)], ids=str)
def test_leaves_are_exchanged(shape: tuple[int, ...]) -> None:
    def scaled(leaves: Leaves) -> None:
        a, b = leaves["a"], leaves["b"]
        a.value, b.value = b * 2, a * 3

    def plain(leaves: Leaves) -> Any:
        a, b = leaves["a"], leaves["b"]
        a.value, b.value = b + 0, a + 0
        return a.sum(), b[0]

    def again(leaves: Leaves) -> None:
        a, b = leaves["a"], leaves["b"]
        a.value, b.value = a * b, a + b.sum()
        a.value = a * b - a.mean()

    for step in (scaled, plain, again):
        _same(step, {"a": _numbers(*shape), "b": _numbers(*shape) * 0.5})


def test_an_update_that_another_of_the_same_rule_depends_on() -> None:
    def step(leaves: Leaves) -> None:
        a, b = leaves["a"], leaves["b"]
        a.value = a * leaves["rate"]
        b.value = b * a[::-1].max()

    start = {"a": _numbers(300), "b": _numbers(50), "rate": np.array(1.5, np.float32)}
    _same(step, start)


def test_a_leaf_that_is_an_argument_too() -> None:
    def outcome(eager: bool) -> tuple[Any, ...]:
        w = ek.Parameter(_numbers(8, 16), name="w")

        @ek.compile
        def step(x: Any) -> Any:
            w.value = w - x.sum(axis=1, keepdims=True) * 0.1
            return (x * w).sum()

        if eager:
            with ek.eager():
                return bits(step(w).numpy()), bits(w.numpy())
        return bits(step(w).numpy()), bits(w.numpy())

    assert outcome(False) == outcome(True)


ROW_OPS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x - x.mean(),
    "prod": lambda x: x.prod() + x,
    "chain": lambda x: (ek.exp(x) * 2 + 1).reshape(-1),
    "sum of rows": lambda x: x.sum(axis=-1),
    "sum of columns": lambda x: x.sum(axis=0),
    "spread": lambda x: x.sum(axis=-1, keepdims=True) + x,
    "softmax": lambda x: ek.nn.softmax(x),
    "log softmax": lambda x: ek.nn.log_softmax(x),
}


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 0, 1), (1,), (1, 1, 1)], ids=str)
def test_shapes_of_few_elements(shape: tuple[int, ...]) -> None:
    chosen = [fn for name, fn in ROW_OPS.items() if shape or name in ("sum", "mean", "prod")]
    x = _numbers(*shape)
    for fn in chosen:
        _same(lambda leaves, x, fn=fn: (fn(x), fn(leaves["w"])), {"w": x}, x)


# -- training steps --------------------------------------------------------------------------------

START = {"scale": (64,), "shift": (64,), "w": (64, 10), "b": (10,)}


def _training_step(leaves: Leaves, x: Any, y: Any) -> Any:
    """Layer norm, a dense layer, cross-entropy; SGD."""

    def loss_of() -> Any:
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / ek.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        hidden = ek.nn.relu(normed * leaves["scale"] + leaves["shift"])
        return -(ek.nn.log_softmax(hidden @ leaves["w"] + leaves["b"]) * y).sum(-1).mean()

    loss, grads = ek.value_and_grad(loss_of, list(leaves.values()))()
    for leaf, grad in zip(leaves.values(), grads):
        leaf.value = leaf - 0.1 * grad
    return loss


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("rows", [1, 2, 16, 255, 256, 257, 512, 2304])
def test_training_steps(rows: int, dtype: str) -> None:
    start = {name: _numbers(*shape, dtype=dtype) for name, shape in START.items()}
    y = np.eye(10, dtype=dtype)[np.arange(rows) % 10]
    _same(_training_step, start, _numbers(rows, 64, dtype=dtype), y)
