"""Random graphs: eager ops near their references, compiled graphs equal to eager to the bit.

A failure prints the shrunken graph as SSA text and the seed of its arrays.
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_makers import EPS, LEAST
from op_samples import SAMPLES
from random_graphs import graphs, random_arrays, random_graph
from same_bits import assert_same_bits, build, execute, split_finely

from einkorn.codegen import reference
from einkorn.ir.dtypes import float32, int32
from einkorn.ir.errors import BoundsError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, placeholder
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType
from einkorn.runtime.evaluate import evaluate
from einkorn.runtime.settings import override

Array = np.ndarray[Any, Any]
ULPS = {op: max(row.ulps for row in SAMPLES if row.op is op) for op in {row.op for row in SAMPLES}}
ADDS = {Op.SUM, Op.CUMSUM, Op.DOT, Op.SCATTER_ADD}  # their terms may cancel
WITHOUT = [(), ("simplify",), ("fold",), ("dce",), ("simplify", "fold", "dce")]


class Case:
    """A graph and arrays for it; prints as SSA text and the seed of the arrays."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.arrays = graph, random_arrays(Random(seed), graph)
        self._text = f"arrays: random_arrays(Random({seed}), graph)\n{graph}"

    def __repr__(self) -> str:
        return self._text


@st.composite
def seeded(draw: st.DrawFn) -> Graph:
    """Graphs of all sizes from one seed; a failing one shrinks to its first ops."""
    return random_graph(Random(draw(st.integers(0, 1 << 20))), draw(st.integers(1, 40)))


CASES = st.builds(Case, graphs() | seeded() | seeded() | seeded(), st.integers(0, 99))


def _eager(graph: Graph, arrays: list[Array]) -> tuple[list[Array], dict[Node, Array]]:
    """The results of a graph op by op, and the value of every node."""
    kept = dict(zip(graph.params, arrays))
    return evaluate(graph.results, dict(kept), kept), kept


@pytest.fixture(scope="module", autouse=True)
def _split() -> Generator[None]:
    with split_finely():
        yield


@pytest.fixture
def in_units() -> Generator[None]:
    """Launches stay whole and are joined to units, of which several run side by side."""
    with split_finely(split_ns=1e9, handoff_ns=100.0):
        yield


@settings(max_examples=400)
@given(CASES)
def test_eager_ops_agree_with_the_reference(case: Case) -> None:
    graph = case.graph
    try:
        _, values = _eager(graph, case.arrays)
    except BoundsError:
        return
    for node in graph.nodes:
        if node.op in (Op.INPUT, Op.CALL, Op.PROJECT, Op.CONST):
            continue
        operands = [values[x] for x in node.inputs]
        with np.errstate(all="ignore"):
            rule = OPS[node.op].numpy
            assert rule is not None
            want = np.asarray(rule(*operands, **dict(node.attrs)))
        message = f"{node!r} of {operands}\n{case}"
        _check(node, values[node], want, operands, message)


def _check(node: Node, got: Array, want: Array, operands: list[Array], message: str) -> None:
    """Equal, or within what the op's samples allow relative to the terms that are added up."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), message
    if want.dtype.name not in EPS or (ULPS[node.op] == 0 and OPS[node.op].exact):
        assert_same_bits(got, want, message)
        return
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        terms = [np.abs(x.astype(np.float64)) for x in operands if x.dtype.name in EPS]
        finite = [x[np.isfinite(x)] for x in terms]
        size = np.abs(b)
        if node.op in ADDS:
            size = size + np.prod([x.max(initial=1) for x in finite]) * max(x.size for x in terms)
        if node.op is Op.LGAMMA:  # Python's own is less exact near its zeros
            size = np.maximum(size, 1)
        if node.op is Op.REMAINDER:  # exact while |x / y| < 2**23 only
            size = size + np.where(terms[0] / terms[1] < 2.0**23, 0, np.inf)
        allowed = (ULPS[node.op] + 1) * (EPS[want.dtype.name] * size + LEAST[want.dtype.name])
        close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= allowed)
        if node.op in (*ADDS, Op.PROD):  # which of them comes first depends on the order
            close |= ~np.isfinite(a) & ~np.isfinite(b)
        if node.op in (Op.SOFTMAX, Op.LOG_SOFTMAX):  # NaN, but 0 where the reference has logs
            infinite = np.isposinf(operands[0].astype(np.float64)).any(-1)
            close |= infinite[..., None]
    assert close.all(), f"got {got}\nwant {want}\n{message}"


@pytest.mark.parametrize("without", WITHOUT, ids=lambda names: "-".join(names) or "all-passes")
@settings(max_examples=120)
@given(case=CASES)
def test_compiled_equals_eager_to_the_bit(without: tuple[str, ...], case: Case) -> None:
    _compare(case.graph, case.arrays, without, repr(case))


@pytest.mark.usefixtures("in_units")
@pytest.mark.parametrize("first", range(60, 120, 12))
def test_units_of_launches(first: int) -> None:
    for seed in range(first, first + 12):
        rng = Random(seed)
        graph = random_graph(rng, 50)
        _compare(graph, random_arrays(rng, graph), (), f"random_graph(Random({seed}), 50)\n{graph}")


@pytest.mark.parametrize("first", range(0, 60, 6))
def test_large_graphs(first: int) -> None:
    for seed in range(first, first + 6):
        rng = Random(seed)
        graph = random_graph(rng, 60)
        _compare(graph, random_arrays(rng, graph), (), f"random_graph(Random({seed}), 60)\n{graph}")


def _compare(graph: Graph, arrays: list[Array], without: tuple[str, ...], about: str) -> None:
    program = build(graph, without=without)
    with override(threads=2):
        try:
            want = _eager(graph, arrays)[0]
        except BoundsError:
            with pytest.raises(BoundsError):
                reference.run(graph, arrays)
            with pytest.raises(BoundsError):
                execute(program, graph, arrays, 2)
            return
    for threads, in_place in ((1, False), (2, True), (3, False)):
        got = execute(program, graph, arrays, threads, in_place)
        for x, y in zip(got, want, strict=True):
            assert_same_bits(x, y, f"threads={threads}, in place={in_place}\n{about}")


def test_an_operand_without_elements_needs_no_kernel() -> None:
    x, i = placeholder(TensorType(float32, (1, 3))), placeholder(TensorType(int32, (0,)))
    nothing = make(Op.GATHER, x, i, axis=1)
    graph = Graph("f", (x, i), (), (make(Op.SCATTER_SET, x, i, nothing, axis=1), nothing))
    arrays = [np.ones((1, 3), np.float32), np.zeros(0, np.int32)]
    _compare(graph, arrays, (), str(graph))
