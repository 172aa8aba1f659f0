"""Gradient rules against finite differences, and what the autodiff driver promises."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from op_samples import SAMPLES, Sample

from einkorn.ir.dtypes import FLOATS, float32, float64, int32
from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, is_const, make, placeholder, project, toposort
from einkorn.ir.ops import CONTROL, OPS, Op
from einkorn.ir.types import TensorType
from einkorn.passes.autodiff import call_vjp, expand, expand_grads, vjp
from einkorn.passes.build import add, filled, mul, sum_over
from einkorn.passes.gradients import GRADIENTS, NOT_DIFFERENTIABLE

Array = np.ndarray[Any, Any]
VECTOR = TensorType(float64, (3,))
SCALAR = TensorType(float64, ())


def evaluate(results: Sequence[Node], env: dict[Node, Any]) -> list[Array]:
    """The values of nodes, by the NumPy reference; regions are evaluated in place."""
    env = dict(env)
    with np.errstate(all="ignore"):
        for node in toposort(results):
            operands = [env[x] for x in node.inputs] if node not in env else []
            if node.op is Op.PROJECT:
                env[node] = operands[0][node.attr("index")]
            elif node.op is Op.CALL:
                graph = node.attr("graph")
                env[node] = evaluate(graph.outputs, dict(zip(graph.params, operands)))
            elif node not in env:
                env[node] = np.asarray(OPS[node.op].numpy(*operands, **dict(node.attrs)))
    return [env[node] for node in results]


def run(graph: Graph, *arrays: Any) -> list[Array]:
    return evaluate(graph.results, dict(zip(graph.params, map(np.asarray, arrays))))


def gradient(output: Node, wrt: Sequence[Node], cotangent: Node | None = None) -> list[Node]:
    """The projected results of a `grad` region."""
    cotangent = cotangent or filled(output.tensor, 1)
    region = make(Op.GRAD, output, cotangent, *wrt)
    return [project(region, k) for k in range(len(wrt))]


def total(x: Node) -> Node:
    return sum_over(x, tuple(range(len(x.shape))))


# -- rules -----------------------------------------------------------------------------------------


def test_every_op_has_a_rule_or_a_reason() -> None:
    assert GRADIENTS.keys() | NOT_DIFFERENTIABLE.keys() == set(Op)
    assert not GRADIENTS.keys() & NOT_DIFFERENTIABLE.keys()


def test_every_differentiable_op_is_sampled() -> None:
    differentiated = {sample.op for sample in SAMPLES if sample.grad_order}
    assert GRADIENTS.keys() == differentiated | {Op.STOP_GRADIENT}


def test_samples_cover_every_op_under_different_names() -> None:
    assert {s.op for s in SAMPLES} == set(Op) - {
        Op.INPUT,
        Op.SIZE,
        Op.CALLBACK,
        Op.PROJECT,
        Op.GRAD,
        Op.CALL,
        *CONTROL,
    }
    assert len({str(sample) for sample in SAMPLES}) == len(SAMPLES)


DIFFERENTIABLE = [sample for sample in SAMPLES if sample.grad_order]


@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=str)
def test_gradient_agrees_with_finite_differences(sample: Sample) -> None:
    arrays = sample.arrays(float64)
    node, inputs = sample.build(arrays)
    point = dict(zip(inputs, arrays))
    rng = np.random.default_rng(1)
    outputs = [node]
    for _ in range(sample.grad_order):
        floats = [x for x in point if x.dtype is float64]
        cotangents = [placeholder(x.tensor) for x in outputs]
        found = vjp(outputs, cotangents, floats)
        assert all(ct is None or ct.type == x.type for x, ct in zip(floats, found))
        weights = {ct: rng.normal(size=ct.shape) for ct in cotangents}
        _check_directions(sample, outputs, point, found, weights)
        point |= weights
        outputs = [ct for ct in found if ct is not None]


def _check_directions(
    sample: Sample,
    outputs: list[Node],
    point: dict[Node, Array],
    found: list[Node | None],
    weights: dict[Node, Array],
) -> None:
    """The derivative along random directions: from the gradients, and from differences."""
    rng, h = np.random.default_rng(2), 1e-5
    floats = [x for x in point if x.dtype is float64]
    kept = [ct for ct in found if ct is not None]
    gradients = dict(zip(kept, evaluate(kept, point | weights)))
    for _ in range(2):
        step = {x: rng.normal(size=x.shape) for x in floats}
        up = evaluate(outputs, point | {x: point[x] + h * step[x] for x in floats})
        down = evaluate(outputs, point | {x: point[x] - h * step[x] for x in floats})
        parts = [w * (a - b) / (2 * h) for w, a, b in zip(weights.values(), up, down)]
        rows = [gradients[ct] * step[x] for x, ct in zip(floats, found) if ct is not None]
        want, got = (sum(float(np.sum(part)) for part in side) for side in (parts, rows))
        size = sum(float(np.sum(np.abs(part))) for side in (parts, rows) for part in side)
        assert abs(got - want) <= sample.tol * (1 + size), f"{sample}: got {got}, want {want}"


@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=str)
def test_contributions_have_the_types_of_their_operands(sample: Sample) -> None:
    for dtype in set(sample.dtypes) & set(FLOATS):
        node, inputs = sample.build(sample.arrays(dtype))
        if not node.dtype.is_float:
            continue
        parts = GRADIENTS[sample.op](node, placeholder(node.tensor))
        assert len(parts) == len(inputs)
        assert all(part is None or part.type == x.type for x, part in zip(inputs, parts))


def derivative(op: Op, *values: Any, order: int = 1, **attrs: Any) -> list[list[float]]:
    """The elementwise derivative of `order` of an op by each of its operands alone."""
    arrays = [np.asarray(value, np.float64) for value in values]
    inputs = [placeholder(TensorType(float64, a.shape)) for a in arrays]
    result: list[list[float]] = []
    for x in inputs:
        node: Node | None = make(op, *inputs, **attrs)
        for _ in range(order):
            node = vjp([node], [filled(node.tensor, 1)], [x])[0] if node else None
        found = evaluate([node], dict(zip(inputs, arrays)))[0] if node else np.zeros(x.shape)
        result.append(found.tolist())
    return result


def test_kinks_and_ties_follow_pytorch() -> None:
    assert derivative(Op.ABS, [-2, 0, 3]) == [[-1, 0, 1]]
    assert derivative(Op.MAXIMUM, [1, 2, 3], [2, 2, 2]) == [[0, 0.5, 1], [1, 0.5, 0]]
    assert derivative(Op.MINIMUM, [1, 2, 3], [2, 2, 2]) == [[1, 0.5, 0], [0, 0.5, 1]]
    assert derivative(Op.MAX, [3, 1, 3, 2], axes=(0,)) == [[0.5, 0, 0.5, 0]]
    assert derivative(Op.MIN, [[1, 1], [5, 1]], axes=(0, 1)) == [[[1 / 3, 1 / 3], [0, 1 / 3]]]
    assert derivative(Op.MAX, [1, np.nan, 2], axes=(0,)) == [[0, 1, 0]]


def test_relu_as_a_select_has_gradient_zero_at_zero() -> None:
    x = placeholder(VECTOR)
    zero = filled(VECTOR, 0)
    relu = make(Op.SELECT, make(Op.GT, x, zero), x, zero)
    (slope,) = vjp([relu], [filled(VECTOR, 1)], [x])
    assert slope is not None
    assert evaluate([slope], {x: np.array([-1.0, 0, 2])})[0].tolist() == [0, 0, 1]


def test_pow_is_finite_where_its_derivative_is() -> None:
    base, exponent = [0.0, 0, 0, 0, 2, -2], [0.0, 1, 2, 3, 0, 0]
    assert derivative(Op.POW, base, exponent)[0] == [0, 1, 0, 0, 0, 0]
    by_base = derivative(Op.POW, base, exponent, order=2)[0]
    assert by_base == [0, 0, 2, 0, 0, 0]
    assert derivative(Op.POW, base[:4], exponent[:4])[1] == [0, 0, 0, 0]
    assert derivative(Op.POW, base[:4], exponent[:4], order=2)[1] == [0, 0, 0, 0]
    (mixed,) = _mixed_pow(2.0, 0.0)
    assert mixed == 0.5  # d/db (b a**(b - 1)) = 1 / a at b = 0


def _mixed_pow(a: float, b: float) -> list[float]:
    x, y = placeholder(SCALAR), placeholder(SCALAR)
    one = filled(SCALAR, 1)
    (by_base,) = vjp([make(Op.POW, x, y)], [one], [x])
    assert by_base is not None
    (mixed,) = vjp([by_base], [one], [y])
    assert mixed is not None
    return [float(evaluate([mixed], {x: np.asarray(a), y: np.asarray(b)})[0])]


def test_prod_is_exact_at_zeros_to_second_order() -> None:
    x = placeholder(VECTOR)
    value = {x: np.array([0.0, 0.0, 5.0])}
    (first,) = vjp([make(Op.PROD, x, axes=(0,))], [filled(SCALAR, 1)], [x])
    assert first is not None
    pick = placeholder(VECTOR)
    (second,) = vjp([first], [pick], [x])
    assert second is not None
    assert evaluate([first], value)[0].tolist() == [0, 0, 0]
    row = evaluate([second], {**value, pick: np.array([1.0, 0, 0])})[0]
    assert row.tolist() == [0, 5, 0]


def test_scatter_set_gives_only_the_last_update_a_gradient() -> None:
    x, at = placeholder(VECTOR), placeholder(TensorType(int32, (4,)))
    updates = placeholder(TensorType(float64, (4,)))
    node = make(Op.SCATTER_SET, x, at, updates, axis=0)
    found = vjp([node], [filled(VECTOR, 1)], [x, updates])
    where = np.array([0, 2, -1, 0], np.int32)
    kept, taken = evaluate([ct for ct in found if ct is not None], {at: where})
    assert kept.tolist() == [0, 1, 0]
    assert taken.tolist() == [0, 0, 1, 1]


def test_casts_return_the_cotangent_in_the_operand_dtype() -> None:
    x = placeholder(TensorType(float32, (3,)))
    wide = make(Op.CAST, x, dtype=float64)
    (back,) = vjp([wide], [filled(wide.tensor, 1)], [x])
    assert back is not None
    assert back.type == x.type
    through_int = make(Op.CAST, make(Op.CAST, x, dtype=int32), dtype=float32)
    assert vjp([through_int], [filled(x.tensor, 1)], [x]) == [None]


# -- the reverse walk ------------------------------------------------------------------------------


def test_contributions_are_added_in_postorder() -> None:
    x, g = placeholder(VECTOR), placeholder(VECTOR)
    weights = [filled(VECTOR, value) for value in (2, 3, 4)]
    a, b, c = (mul(x, weight) for weight in weights)
    # c is made last but comes first in the postorder c, a, b, a + b, c + (a + b).
    (found,) = vjp([add(c, add(a, b)), x], [g, g], [x])
    two, three, four = (mul(g, weight) for weight in weights)
    assert found is add(add(add(g, four), two), three)


def test_contributions_of_one_consumer_are_added_in_operand_order() -> None:
    x, g = placeholder(VECTOR), placeholder(VECTOR)
    (found,) = vjp([make(Op.SUB, x, x)], [g], [x])
    assert found is add(g, make(Op.NEG, g))


def test_several_outputs_that_are_one_node_add_their_cotangents_in_order() -> None:
    x, g, h = placeholder(VECTOR), placeholder(VECTOR), placeholder(VECTOR)
    assert vjp([x, x, x], [g, None, h], [x]) == [add(g, h)]


def test_order_does_not_depend_on_the_history_of_other_values() -> None:
    x, g, c = placeholder(VECTOR), placeholder(VECTOR), placeholder(VECTOR)

    def loss(other: Node) -> Node:
        return add(mul(other, make(Op.SIN, x)), mul(make(Op.EXP, x), other))

    history = make(Op.TANH, make(Op.EXP, c))
    (with_history,) = vjp([loss(history)], [g], [x])
    (plain,) = vjp([loss(c)], [g], [x])
    assert with_history is not None
    assert plain is not None
    renamed = Graph("f", (), (), (with_history,)).map(lambda node: c if node is history else node)
    assert renamed.outputs == (plain,)


def test_wrt_nodes_are_independent() -> None:
    x, g = placeholder(VECTOR), placeholder(VECTOR)
    y = alias(make(Op.EXP, x))
    assert vjp([mul(y, y)], [g], [x, y])[0] is None
    through, direct = vjp([mul(y, x)], [g], [x, y])
    assert through is mul(g, y)
    assert direct is mul(g, x)


def test_zeros_are_symbolic() -> None:
    x, other, g = placeholder(VECTOR), placeholder(VECTOR), placeholder(VECTOR)
    count = placeholder(TensorType(int32, (3,)))
    assert vjp([make(Op.EXP, x)], [g], [other, x, count])[0::2] == [None, None]
    assert vjp([make(Op.FLOOR, x)], [g], [x]) == [None]
    assert vjp([make(Op.EXP, x)], [None], [x]) == [None]
    gated = make(Op.SELECT, make(Op.GT, x, other), other, other)
    assert vjp([gated], [g], [x]) == [None]


def test_stop_gradient_cuts_one_path() -> None:
    x, g = placeholder(VECTOR), placeholder(VECTOR)
    held = make(Op.STOP_GRADIENT, make(Op.EXP, x))
    assert vjp([mul(x, held)], [g], [x]) == [mul(g, held)]
    assert vjp([held], [g], [x]) == [None]


def test_a_cotangent_of_another_type_is_refused() -> None:
    x, g = placeholder(VECTOR), placeholder(SCALAR)
    with pytest.raises(IRError, match=r"cotangent of f64\[3\]"):
        vjp([make(Op.EXP, x)], [g], [x])


def test_vjp_refuses_a_grad_that_was_not_expanded() -> None:
    x = placeholder(SCALAR)
    (slope,) = gradient(make(Op.EXP, x), [x])
    with pytest.raises(IRError, match="must be expanded"):
        vjp([slope], [filled(SCALAR, 1)], [x])


def test_origins_pass_to_gradient_nodes() -> None:
    x = placeholder(VECTOR)
    sine, loss = make(Op.SIN, x), total(make(Op.SIN, x))
    here, there = Origin("model.py", 3, "model/hidden"), Origin("model.py", 9)
    (slope,) = gradient(loss, [x])
    result = expand(Graph("f", (x,), (), (slope,), origins={sine: here, loss: there}))
    assert result.origins[make(Op.COS, x)] is here
    assert result.origins[result.outputs[0]] is here
    assert result.origins[filled(VECTOR, 1)] is there


def test_a_long_chain_takes_linear_time() -> None:
    def seconds(length: int) -> float:
        x = placeholder(VECTOR)
        y = x
        for _ in range(length):
            y = make(Op.SIN, y)
        (slope,) = gradient(total(y), [x])
        graph = Graph("f", (x,), (), (slope,))
        start = time.process_time()
        assert len(expand(graph).nodes) > 3 * length
        return time.process_time() - start

    short, long = seconds(6_000), seconds(48_000)
    assert long < 30 * short  # 64 times if the walk were quadratic


# -- regions ---------------------------------------------------------------------------------------


def square_and_product() -> Graph:
    """f(a, b) = (a * a, a * b, b)"""
    a, b = placeholder(SCALAR), placeholder(SCALAR)
    return Graph("f", (a,), (b,), (mul(a, a), mul(a, b), b))


def called(graph: Graph, *operands: Node) -> list[Node]:
    call = make(Op.CALL, *operands, graph=graph)
    return [project(call, k) for k in range(len(graph.outputs))]


def test_grad_of_a_call() -> None:
    x, y = placeholder(SCALAR), placeholder(SCALAR)
    square, product, same = called(square_and_product(), make(Op.SIN, x), y)
    loss = add(add(mul(square, same), product), square)  # s² y + s y + s²
    graph = Graph("g", (x, y), (), (loss, *gradient(loss, [x, y])))
    result = expand(graph)
    assert not {Op.CALL, Op.GRAD, Op.PROJECT} & {node.op for node in result.nodes}
    s, c, v = np.sin(0.7), np.cos(0.7), 1.5
    want = [s * s * v + s * v + s * s, (2 * s * v + v + 2 * s) * c, s * s + s]
    np.testing.assert_allclose(run(result, 0.7, v), want, rtol=1e-14)
    np.testing.assert_allclose(run(expand_grads(graph), 0.7, v), want, rtol=1e-14)


def test_calls_group_their_sums() -> None:
    a, x, g = placeholder(VECTOR), placeholder(VECTOR), placeholder(VECTOR)
    body = Graph("twice", (a,), (), (add(make(Op.EXP, a), make(Op.SIN, a)),))
    (y,) = called(body, x)
    loss = add(make(Op.COS, x), y)
    (found,) = vjp([loss], [g], [x])
    assert found is not None
    (flat,) = expand(Graph("f", (x, g), (), (found,))).outputs
    outside = make(Op.NEG, mul(g, make(Op.SIN, x)))
    inside = add(mul(g, make(Op.EXP, x)), mul(g, make(Op.COS, x)))
    assert flat is add(outside, inside)


def test_unused_and_unwanted_results_cost_nothing() -> None:
    graph = square_and_product()
    assert call_vjp(graph, (False, True), (True, False, False)).params == ()
    backward = call_vjp(graph, (True, True), (True, True, False))
    assert backward.params == (0, 1)
    assert backward.graph.inputs[:2] == graph.params
    assert len(backward.graph.inputs) == 4
    assert call_vjp(graph, (True, True), (True, True, False)) is backward
    x, y = placeholder(SCALAR), placeholder(SCALAR)
    square, *_ = called(graph, x, y)
    assert vjp([square], [filled(SCALAR, 1)], [y]) == [None]
    assert vjp([called(graph, x, y)[2]], [x], [x, y])[0] is None


def test_backward_graphs_do_not_outlive_their_region() -> None:
    graph = square_and_product()
    ct = call_vjp(graph, (True, True), (True, True, True)).graph
    region = weakref.ref(graph)
    del graph
    gc.collect()
    assert region() is None
    assert ct.outputs


def test_nested_calls_and_operands_that_are_the_callee_placeholders() -> None:
    inner = square_and_product()
    a, b = inner.params
    swapped = called(inner, b, a)  # f(b, a) = (b b, b a, a)
    outer = Graph("outer", (a, b), (), (add(swapped[0], mul(swapped[1], swapped[2])),))
    x, y = placeholder(SCALAR), placeholder(SCALAR)
    (loss,) = called(outer, x, y)  # y² + x² y
    result = expand(Graph("f", (x, y), (), (loss, *gradient(loss, [x, y]))))
    np.testing.assert_allclose(run(result, 3.0, 5.0), [25 + 45, 30, 10 + 9])


def test_grad_of_grad() -> None:
    x = placeholder(SCALAR)
    node, want = make(Op.SIN, x), [np.sin, np.cos, lambda v: -np.sin(v), lambda v: -np.cos(v)]
    outputs = [node]
    for _ in range(3):
        outputs += gradient(outputs[-1], [x])
    result = expand(Graph("f", (x,), (), tuple(outputs)))
    np.testing.assert_allclose(run(result, 0.3), [f(0.3) for f in want], rtol=1e-14)


def test_grad_in_a_call_in_a_grad() -> None:
    a = placeholder(SCALAR)
    slope = Graph("slope", (a,), (), tuple(gradient(make(Op.INTEGER_POW, a, exponent=3), [a])))
    x = placeholder(SCALAR)
    (first,) = called(slope, make(Op.EXP, x))  # 3 exp(2 x)
    (second,) = gradient(first, [x])  # 6 exp(2 x)
    (third,) = gradient(second, [x])
    result = expand(Graph("f", (x,), (), (first, second, third)))
    power = np.exp(0.5)
    np.testing.assert_allclose(run(result, 0.25), [3 * power, 6 * power, 12 * power], rtol=1e-14)
    assert not {Op.CALL, Op.GRAD} & {node.op for node in result.nodes}


def test_second_order_through_a_call_shares_the_forward_nodes() -> None:
    a = placeholder(SCALAR)
    body = Graph("f", (a,), (), (make(Op.EXP, make(Op.SIN, a)),))
    x = placeholder(SCALAR)
    (y,) = called(body, x)
    (slope,) = gradient(y, [x])
    (curve,) = gradient(slope, [x])
    result = expand(Graph("g", (x,), (), (y, slope, curve)))
    s, c = np.sin(0.4), np.cos(0.4)
    np.testing.assert_allclose(run(result, 0.4)[2], np.exp(s) * (c * c - s), rtol=1e-14)
    assert sum(node.op is Op.EXP for node in result.nodes) == 1


def test_grad_gives_zeros_where_nothing_depends() -> None:
    x, y = placeholder(VECTOR), placeholder(VECTOR)
    first, second = gradient(total(make(Op.EXP, x)), [x, y])
    result = expand(Graph("f", (x, y), (), (first, second)))
    assert is_const(result.outputs[1], 0)
    assert result.outputs[1].type == y.type


def test_updates_and_unchanged_graphs() -> None:
    w = placeholder(VECTOR)
    (slope,) = gradient(total(mul(w, w)), [w])
    graph = Graph("step", (), (w,), (), updates=((w, make(Op.SUB, w, slope)),))
    result = expand(graph)
    assert result.updates[0][0] is w
    np.testing.assert_array_equal(run(result, [1.0, 2, 3])[0], [-1.0, -2, -3])
    assert expand(result) is result


def test_dot_gradients_need_no_transpose() -> None:
    a, b = placeholder(TensorType(float32, (4, 3))), placeholder(TensorType(float32, (5, 4)))
    node = make(Op.DOT, a, b, contract=(0, 1))
    found = vjp([node], [filled(node.tensor, 1)], [a, b])
    ops = {node.op for node in toposort([ct for ct in found if ct is not None])}
    assert ops == {Op.INPUT, Op.CONST, Op.BROADCAST, Op.DOT}
