"""`rewrite`, and each rule of simplify, fold and dce: what it does and what it must not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs, random_arrays

from einkorn.codegen.reference import run
from einkorn.ir.dtypes import (
    ALL,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint32,
)
from einkorn.ir.errors import BoundsError, IRError, ShapeError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, constant, is_const, make, placeholder, project
from einkorn.ir.ops import Op
from einkorn.ir.rewrite import Fuel, rewrite
from einkorn.ir.types import TensorType
from einkorn.ir.verify import verify
from einkorn.passes.dce import dce
from einkorn.passes.fold import fold
from einkorn.passes.simplify import ALGEBRA, filled, simplify, widens

Build = Callable[..., Node]
F, D, I, U, B = float32, float64, int32, uint8, bool_  # noqa: E741


def c(dtype: DType, value: float) -> Node:
    """A constant of shape [2,3]."""
    return filled(constant(dtype, value), (2, 3))


def op(name: str) -> Build:
    return lambda *inputs, **attrs: make(Op[name.upper()], *inputs, **attrs)


add, sub, mul, div, neg, sin = map(op, ("add", "sub", "mul", "div", "neg", "sin"))
cast, select, not_, abs_ = map(op, ("cast", "select", "not", "abs"))
reshape, broadcast, transpose = map(op, ("reshape", "broadcast", "transpose"))
slice_, flip, pad, concat = map(op, ("slice", "flip", "pad", "concat"))


def check_rewrite(
    before: Build,
    after: Build,
    *dtypes: DType,
    shape: tuple[int, ...] = (2, 3),
    run_pass: Callable[[Graph], Graph] = simplify,
) -> None:
    """`before` of inputs of these dtypes becomes `after` of them: the same node."""
    inputs = [placeholder(TensorType(dtype, shape)) for dtype in dtypes]
    graph = run_pass(Graph("f", tuple(inputs), (), (before(*inputs),)))
    assert graph.outputs[0] is after(*inputs), f"got\n{graph}"


def check_kept(
    before: Build,
    *dtypes: DType,
    shape: tuple[int, ...] = (2, 3),
    run_pass: Callable[[Graph], Graph] = simplify,
) -> None:
    check_rewrite(before, before, *dtypes, shape=shape, run_pass=run_pass)


REWRITES: dict[str, tuple[Build, Build, Sequence[DType]]] = {
    "add -0.0": (lambda x: add(x, c(F, -0.0)), lambda x: x, [F]),
    "add 0": (lambda x: add(c(I, 0), x), lambda x: x, [I]),
    "add neg": (lambda x, y: add(x, neg(y)), lambda x, y: sub(x, y), [F, F]),
    "neg add": (lambda x, y: add(neg(x), y), lambda x, y: sub(y, x), [F, F]),
    "sub 0": (lambda x: sub(x, c(F, 0.0)), lambda x: x, [F]),
    "sub neg": (lambda x, y: sub(x, neg(y)), lambda x, y: add(x, y), [F, F]),
    "sub self": (lambda x: sub(x, x), lambda x: c(I, 0), [I]),
    "mul 1": (lambda x: mul(c(F, 1), x), lambda x: x, [F]),
    "mul -1": (lambda x: mul(x, c(F, -1)), lambda x: neg(x), [F]),
    "mul 0": (lambda x: mul(x, c(U, 0)), lambda x: c(U, 0), [U]),
    "div 1": (lambda x: div(x, c(F, 1)), lambda x: x, [F]),
    "floor_div 1": (lambda x: op("floor_div")(x, c(I, 1)), lambda x: x, [I]),
    "pow 1": (lambda x: op("integer_pow")(x, exponent=1), lambda x: x, [F]),
    "neg neg": (lambda x: neg(neg(x)), lambda x: x, [F]),
    "not not": (lambda x: not_(not_(x)), lambda x: x, [B]),
    "abs abs": (lambda x: abs_(abs_(x)), lambda x: abs_(x), [F]),
    "abs neg": (lambda x: abs_(neg(x)), lambda x: abs_(x), [I]),
    "abs unsigned": (lambda x: abs_(x), lambda x: x, [U]),
    "sign sign": (lambda x: op("sign")(op("sign")(x)), lambda x: op("sign")(x), [F]),
    "floor ceil": (lambda x: op("floor")(op("ceil")(x)), lambda x: op("ceil")(x), [F]),
    "max self": (lambda x: op("maximum")(x, x), lambda x: x, [F]),
    "and self": (lambda x: op("and")(x, x), lambda x: x, [U]),
    "and ones": (lambda x: op("and")(x, c(U, 255)), lambda x: x, [U]),
    "and true": (lambda x: op("and")(c(B, 1), x), lambda x: x, [B]),
    "and 0": (lambda x: op("and")(x, c(I, 0)), lambda x: c(I, 0), [I]),
    "or 0": (lambda x: op("or")(x, c(I, 0)), lambda x: x, [I]),
    "or ones": (lambda x: op("or")(x, c(I, -1)), lambda x: c(I, -1), [I]),
    "xor 0": (lambda x: op("xor")(x, c(I, 0)), lambda x: x, [I]),
    "xor self": (lambda x: op("xor")(x, x), lambda x: c(I, 0), [I]),
    "shift 0": (lambda x: op("shift_left")(x, c(I, 0)), lambda x: x, [I]),
    "eq self": (lambda x: op("eq")(x, x), lambda x: c(B, 1), [I]),
    "lt self": (lambda x: op("lt")(x, x), lambda x: c(B, 0), [F]),
    "select true": (lambda x, y: select(c(B, 1), x, y), lambda x, y: x, [F, F]),
    "select false": (lambda x, y: select(c(B, 0), x, y), lambda x, y: y, [F, F]),
    "select same": (lambda m, x: select(m, x, x), lambda m, x: x, [B, F]),
    "select not": (
        lambda m, x, y: select(not_(m), x, y),
        lambda m, x, y: select(m, y, x),
        [B, F, F],
    ),
    "cast same": (lambda x: cast(x, dtype=F), lambda x: x, [F]),
    "cast and back": (lambda x: cast(cast(x, dtype=D), dtype=F), lambda x: x, [F]),
    "cast sign and back": (lambda x: cast(cast(x, dtype=uint32), dtype=I), lambda x: x, [I]),
    "cast chain": (
        lambda x: cast(cast(x, dtype=F), dtype=D),
        lambda x: cast(x, dtype=D),
        [float16],
    ),
    "reshape same": (lambda x: reshape(x, shape=(2, 3)), lambda x: x, [F]),
    "reshape twice": (
        lambda x: reshape(reshape(x, shape=(6,)), shape=(3, 2)),
        lambda x: reshape(x, shape=(3, 2)),
        [F],
    ),
    "reshape of a constant": (
        lambda x: reshape(c(F, 2), shape=(6,)),
        lambda x: filled(constant(F, 2), (6,)),
        [F],
    ),
    "broadcast twice": (
        lambda x: broadcast(broadcast(x, shape=(4, 2, 3)), shape=(5, 4, 2, 3)),
        lambda x: broadcast(x, shape=(5, 4, 2, 3)),
        [F],
    ),
    "transpose back": (
        lambda x: transpose(transpose(x, axes=(1, 0)), axes=(1, 0)),
        lambda x: x,
        [F],
    ),
    "slice all": (
        lambda x: slice_(x, starts=(0, 0), stops=(2, 3), steps=(1, 1)),
        lambda x: x,
        [F],
    ),
    "slice twice": (
        lambda x: slice_(
            slice_(x, starts=(0, 0), stops=(2, 3), steps=(1, 2)),
            starts=(1, 1), stops=(2, 2), steps=(1, 3),
        ),
        lambda x: slice_(x, starts=(1, 2), stops=(2, 3), steps=(1, 6)),
        [F],
    ),
    "flip nothing": (lambda x: flip(x, axes=()), lambda x: x, [F]),
    "flip twice": (
        lambda x: flip(flip(x, axes=(0, 1)), axes=(0,)),
        lambda x: flip(x, axes=(1,)),
        [F],
    ),
    "pad nothing": (
        lambda x: pad(x, constant(F, 0), low=(0, 0), high=(0, 0), interior=(0, 0)),
        lambda x: x,
        [F],
    ),
    "concat one": (lambda x: concat(x, axis=0), lambda x: x, [F]),
    "concat empty": (
        lambda x: concat(filled(constant(F, 0), (0, 3)), x, axis=0),
        lambda x: x,
        [F],
    ),
    "sum over nothing": (lambda x: op("sum")(x, axes=()), lambda x: x, [F]),
    "max over one": (
        lambda x: op("max")(reshape(x, shape=(2, 1, 3)), axes=(1,)),
        lambda x: x,
        [F],
    ),
    "cumsum of one": (
        lambda x: op("cumsum")(reshape(x, shape=(1, 6)), axis=0),
        lambda x: reshape(x, shape=(1, 6)),
        [F],
    ),
    "alias": (lambda x: alias(x), lambda x: x, [F]),
    "stop_gradient": (lambda x: op("stop_gradient")(x), lambda x: x, [F]),
}  # fmt: skip


@pytest.mark.parametrize("name", REWRITES)
def test_rule(name: str) -> None:
    before, after, dtypes = REWRITES[name]
    check_rewrite(before, after, *dtypes)


KEPT: dict[str, tuple[Build, Sequence[DType]]] = {
    "-0.0 + 0.0 is 0.0": (lambda x: add(x, c(F, 0.0)), [F]),
    "-0.0 - -0.0 is 0.0": (lambda x: sub(x, c(F, -0.0)), [F]),
    "inf - inf is NaN": (lambda x: sub(x, x), [F]),
    "NaN * 0 is NaN": (lambda x: mul(x, c(F, 0)), [F]),
    "x / x": (lambda x: div(x, x), [F]),
    "mul by almost 1": (lambda x: mul(x, c(F, 1 + 2**-23)), [F]),
    "1 / x": (lambda x: div(c(F, 1), x), [F]),
    "0 - x is not -x at 0": (lambda x: sub(c(F, 0), x), [F]),
    "float // 1 rounds": (lambda x: op("floor_div")(x, c(F, 1)), [F]),
    "x ** 2": (lambda x: op("integer_pow")(x, exponent=2), [F]),
    "neg of abs": (lambda x: neg(abs_(x)), [F]),
    "abs of the smallest": (lambda x: neg(abs_(x)), [I]),
    "255 is no ones of i32": (lambda x: op("and")(x, c(I, 255)), [I]),
    "NaN == NaN is false": (lambda x: op("eq")(x, x), [F]),
    "NaN <= NaN is false": (lambda x: op("le")(x, x), [F]),
    "select by data": (lambda m, x, y: select(m, x, y), [B, F, F]),
    "narrow and back": (lambda x: cast(cast(x, dtype=F), dtype=D), [D]),
    "i32 through f32": (lambda x: cast(cast(x, dtype=F), dtype=I), [I]),
    "f16 through bf16": (lambda x: cast(cast(x, dtype=bfloat16), dtype=float16), [float16]),
    "saturates, not wraps": (lambda x: cast(cast(x, dtype=F), dtype=U), [int8]),
    "through bool": (lambda x: cast(cast(x, dtype=B), dtype=U), [U]),
    "reshape that moves": (lambda x: reshape(x, shape=(3, 2)), [F]),
    "transpose": (lambda x: transpose(x, axes=(1, 0)), [F]),
    "slice of a part": (lambda x: slice_(x, starts=(0, 0), stops=(2, 3), steps=(1, 2)), [F]),
    "flip": (lambda x: flip(x, axes=(1,)), [F]),
    "pad": (lambda x: pad(x, constant(F, 0), low=(0, 0), high=(0, 1), interior=(0, 0)), [F]),
    "sum": (lambda x: op("sum")(x, axes=(1,)), [F]),
    "cumsum": (lambda x: op("cumsum")(x, axis=1), [F]),
}


@pytest.mark.parametrize("name", KEPT)
def test_no_rule(name: str) -> None:
    before, dtypes = KEPT[name]
    check_kept(before, *dtypes)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("target", ALL)
def test_widens_means_that_values_survive(source: DType, target: DType) -> None:
    if not widens(source, target):
        return
    raw = np.random.default_rng(0).integers(0, 256, 64 * source.itemsize, np.uint8)
    if source is bool_:
        raw &= 1
    values = np.frombuffer(raw.tobytes(), source.numpy)
    with np.errstate(all="ignore"):
        back = values.astype(target.numpy).astype(source.numpy)
        assert bits(back) == bits(values)


def test_widens_excludes() -> None:
    pairs = [(int64, float64), (float16, bfloat16), (int8, uint8), (int16, float16), (D, F), (F, I)]
    assert not any(widens(source, target) for source, target in pairs)


def test_shared_operands_survive_their_rewritten_user() -> None:
    x, y = (placeholder(TensorType(F, (2, 3))) for _ in range(2))
    negative = neg(y)
    graph = simplify(Graph("f", (x, y), (), (add(x, negative), negative)))
    assert graph.outputs == (sub(x, y), negative)


# -- the sweep -------------------------------------------------------------------------------------


def _chain(steps: int) -> Graph:
    x = node = placeholder(TensorType(F, (2, 3)))
    for _ in range(steps):
        node = mul(sin(node), c(F, 1))
    return Graph("f", (x,), (), (node,))


def test_rules_apply_until_none_matches_and_deep_graphs_pass() -> None:
    graph = simplify(_chain(20_000))
    assert sum(node.op is Op.SIN for node in graph.nodes) == 20_000
    assert not any(node.op is Op.MUL for node in graph.nodes)


def test_a_graph_that_nothing_matches_is_the_same_graph() -> None:
    graph = simplify(_chain(3))
    assert simplify(graph) is graph


def test_fuel_allows_the_first_rewrites_only() -> None:
    fuel = Fuel(2)
    graph = simplify(_chain(5), allow=fuel)
    assert sum(node.op is Op.MUL for node in graph.nodes) == 3
    assert fuel.used == ["multiply_one", "multiply_one"]


def test_rules_that_undo_each_other_are_an_error() -> None:
    def to_sin(node: Node) -> Node | None:
        return sin(node.inputs[0])

    def to_neg(node: Node) -> Node | None:
        return neg(node.inputs[0])

    with pytest.raises(IRError, match=r"does not end: .* times of to_neg, to_sin"):
        rewrite(_chain(1), {Op.SIN: [to_neg], Op.NEG: [to_sin]})


def test_a_rule_that_changes_the_type_is_an_error() -> None:
    def widen(node: Node) -> Node | None:
        return cast(node, dtype=D)

    with pytest.raises(IRError, match=r"the rule widen .* the type differs"):
        rewrite(_chain(1), {Op.SIN: [widen]})


def test_origins_follow() -> None:
    x = placeholder(TensorType(F, (2, 3)))
    before = mul(sin(x), c(F, 1))
    result = add(before, x)
    lines = {node: Origin("a.py", k) for k, node in enumerate((sin(x), before, result))}
    graph = simplify(Graph("f", (x,), (), (result,), origins=lines))
    assert graph.origins == {sin(x): lines[sin(x)], graph.outputs[0]: lines[result]}


# -- fold and dce ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda: add(c(F, 1), c(F, 2)), lambda: c(F, 3)),
        (lambda: add(constant(F, 0.1), constant(F, 0.2)), lambda: constant(F, np.float32(0.3))),
        (lambda: add(c(U, 255), c(U, 1)), lambda: c(U, 0)),
        (lambda: mul(c(F, -1), c(F, 0)), lambda: c(F, -0.0)),
        (lambda: div(c(F, 0), c(F, 0)), lambda: c(F, np.nan)),
        (lambda: op("lt")(c(F, 1), c(F, np.nan)), lambda: c(B, 0)),
        (lambda: select(c(B, 1), c(F, 1), c(F, 2)), lambda: c(F, 1)),
        (lambda: cast(c(float16, 0.5), dtype=D), lambda: c(D, 0.5)),
        (lambda: add(c(bfloat16, 1), c(bfloat16, 2**-8)), lambda: c(bfloat16, 1)),
        (lambda: neg(add(c(F, 1), c(F, 1))), lambda: c(F, -2)),
    ],
)
def test_fold(before: Build, after: Build) -> None:
    check_rewrite(before, after, run_pass=fold)


@pytest.mark.parametrize(
    ("before", "dtypes"),
    [
        (lambda: op("exp")(c(F, 1)), []),
        (lambda: cast(c(D, 0.1), dtype=F), []),
        (lambda: cast(c(F, np.nan), dtype=I), []),
        (lambda: alias(c(F, 1)), []),
        (lambda x: add(x, c(F, 1)), [F]),
    ],
)
def test_not_folded(before: Build, dtypes: Sequence[DType]) -> None:
    inputs = [placeholder(TensorType(dtype, (2, 3))) for dtype in dtypes]
    graph = Graph("f", tuple(inputs), (), (before(*inputs),))
    assert fold(graph) is graph


def test_dce_drops_what_does_not_matter() -> None:
    x, y, w, v, u = (placeholder(TensorType(F, (2, 3))) for _ in range(5))
    names = dict(zip((x, y, w, v, u, neg(u)), "xywvun"))
    updates = ((w, neg(x)), (v, v), (x, x))
    origins = {neg(u): Origin("a.py", 1), neg(x): Origin("a.py", 2)}
    graph = dce(Graph("f", (x, y), (w, v, u), (sin(x),), updates, names, origins))
    assert graph.inputs == (x, y)
    assert graph.captures == (w, v, u)  # the signature: callers bind all of them
    assert graph.updates == updates
    assert sorted(graph.names.values()) == ["u", "v", "w", "x", "y"]
    assert list(graph.origins) == [neg(x)]
    verify(graph)


# -- the reference target, and all passes on random graphs -----------------------------------------


def bits(array: Any) -> tuple[Any, ...]:
    """What must be equal: dtype, shape and bits, all NaNs counting as one."""
    if array.dtype.kind not in "iub":
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.dtype.name, array.shape, array.tobytes()


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 2**16))
def test_passes_keep_every_bit(graph: Graph, seed: int) -> None:
    arrays = random_arrays(Random(seed), graph)
    outputs, values = run(graph, arrays)
    given_value = dict(zip(graph.params, arrays))
    stage = graph
    for one_pass in (simplify, fold, simplify, dce):
        stage = one_pass(stage)
        verify(stage)
        got, updates = run(stage, [given_value[node] for node in stage.params])
        assert list(map(bits, got)) == list(map(bits, outputs)), f"\n{graph}\n\n{stage}"
        held = {leaf: value for (leaf, _), value in zip(stage.updates, updates)}
        for (leaf, _), value in zip(graph.updates, values):
            assert bits(held.get(leaf, given_value[leaf])) == bits(value), f"\n{graph}\n\n{stage}"


def test_reference_runs_calls_and_refuses() -> None:
    a = placeholder(TensorType(F, (3,)))
    callee = Graph("g", (a,), (), (neg(a), sin(a)))
    x, i = placeholder(TensorType(F, (3,))), placeholder(TensorType(I, (1,)))
    result = project(make(Op.CALL, x, graph=callee), 0)
    taken = make(Op.GATHER, result, i, axis=0)
    graph = Graph("f", (x, i), (), (taken,), ((x, result),))
    data = np.arange(3, dtype=np.float32)
    outputs, updates = run(graph, [data, np.array([-1], np.int32)])
    assert outputs[0].tolist() == [-2.0]
    assert updates[0].tolist() == [-0.0, -1.0, -2.0]
    with pytest.raises(BoundsError, match="gather: index 3 is out of range for an axis of 3"):
        run(graph, [data, np.array([3], np.int32)])
    with pytest.raises(ShapeError, match="f takes 2 arrays, got 1"):
        run(graph, [data])
    with pytest.raises(IRError, match="expand-autodiff"):
        run(Graph("h", (x,), (), (project(make(Op.GRAD, x, x, x), 0),)), [data])


def test_every_rule_of_simplify_is_tested() -> None:
    fired = Fuel(10**6)
    for before, _, dtypes in REWRITES.values():
        inputs = [placeholder(TensorType(dtype, (2, 3))) for dtype in dtypes]
        simplify(Graph("f", tuple(inputs), (), (before(*inputs),)), allow=fired)
    rules = {rule.__name__ for rules in ALGEBRA.values() for rule in rules}
    assert rules - set(fired.used) == set()


def test_constants_are_found_by_bits() -> None:
    assert is_const(c(F, -0.0), -0.0)
    assert not is_const(c(F, -0.0), 0)
