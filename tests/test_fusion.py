"""What `fuse` puts into one kernel, and what it keeps apart, told from stages of small steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.ir.loops import COLUMN_BLOCK, LoopKernel
from einkorn.lowered import Lowered
from einkorn.passes.costs import SCRATCH_BYTES
from einkorn.passes.fuse_rules import ALONE, MAX_BUFFERS, MAX_MEMBERS, MAX_ROW, PARALLEL
from einkorn.passes.launches import Group

Array = np.ndarray[Any, Any]


def numbers(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


X, Y = numbers(512, 64), numbers(512, 64)


def low(fn: Callable[..., Any], *args: Any) -> Lowered:
    return ek.compile(fn).lower(*args)


def groups(lowered: Lowered) -> tuple[Group, ...]:
    return lowered.stages["fuse"].groups


def shown(fn: Callable[..., Any], *args: Any) -> list[str]:
    """Each group as its kind and sizes, with its ops in order of their names."""
    return [
        f"{group.kind}[{'x'.join(map(str, group.space))}] "
        + " ".join(sorted(node.op.name.lower() for node in group.members))
        for group in groups(low(fn, *args))
    ]


def kinds(fn: Callable[..., Any], *args: Any) -> list[str]:
    return [group.kind for group in groups(low(fn, *args))]


def kernels(lowered: Lowered) -> list[str]:
    """The class of the kernel of each instruction."""
    return [type(row.kernel).__name__ for row in lowered.program.instructions]


def layer_norm(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / ek.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


# -- maps ------------------------------------------------------------------------------------------


def test_elementwise_ops_are_one_kernel_through_reshapes() -> None:
    def chain(x: Any) -> Any:
        return ek.exp((x * 2).reshape(-1) + 1).reshape(64, 8, 64) - 1

    assert shown(chain, X) == ["map[32768] add exp mul sub"]
    assert kernels(low(chain, X)) == ["LoopKernel"]


def test_several_results_of_one_size_are_one_kernel() -> None:
    def pair(x: Any, y: Any) -> Any:
        return ek.exp(x) * y, (x + y).reshape(-1), x > y

    assert shown(pair, X, Y) == ["map[32768] add exp gt mul"]


def test_scalars_are_one_kernel() -> None:
    """What a learning rate and a step counter give, before the kernels that use it."""

    def step(x: Any, rate: Any, count: Any) -> Any:
        return x * (rate / (1 - 0.9 ** (count + 1))), count + 1

    first, second = groups(low(step, X, np.float32(0.1), np.float32(3)))
    assert (first.kind, first.space) == ("map", (1,))
    assert (second.kind, len(second.members)) == ("map", 1)


@pytest.mark.parametrize("move", [lambda x: x.T, lambda x: x[::-1], lambda x: x[:, ::-1]])
def test_a_value_that_is_read_in_another_order_is_stored(move: Callable[[Any], Any]) -> None:
    x = numbers(64, 64)
    assert kinds(lambda x: move(ek.exp(x)) + x, x) == ["map", "map"]
    assert kinds(lambda x: ek.exp(move(x)) + x, x) == ["map"]


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "ops"),
    [
        (lambda x: x - x.mean(-1, keepdims=True), "div sub sum"),
        (lambda x: x.var(-1), "div div mul sub sum sum"),
        (layer_norm, "add div div div mul sqrt sub sum sum"),
        (lambda x: ek.nn.softmax(x), "div exp max sub sum"),
        (lambda x: ek.nn.log_softmax(x), "exp log max sub sub sum"),
        (lambda x: (x.sum(-1), x.max(-1), x.min(-1), x * 2), "max min mul sum"),
        (lambda x: ek.tanh((x * x).sum(-1)), "mul sum tanh"),
        (lambda x: (x.reshape(512, 8, 8) * 2).sum((1, 2)), "mul sum"),
    ],
    ids=["mean", "variance", "layer norm", "softmax", "log softmax", "four", "ends", "two axes"],
)
def test_a_row_with_all_that_is_computed_from_it_is_one_kernel(
    fn: Callable[..., Any], ops: str
) -> None:
    assert shown(fn, X) == [f"rows[512x64] {ops}"]
    assert kernels(low(fn, X)) == ["LoopKernel"]


def test_softmax_of_a_layer_norm_is_one_kernel() -> None:
    assert kinds(lambda x: ek.nn.softmax(layer_norm(x) * 2), X) == ["rows"]


def test_what_belongs_to_rows_is_computed_once_for_each() -> None:
    """A map over rows becomes part of the kernel of the rows that it is spread over."""

    def fn(x: Any, scale: Any) -> Any:
        return x * ek.exp(scale)[:, None]

    (group,) = groups(low(fn, X, numbers(512)))
    assert (group.kind, group.space) == ("rows", (512, 64))
    assert [node.op.name for node in group.of_rows] == ["EXP"]


def test_long_rows_are_not_passed_over_again() -> None:
    def normed(x: Any) -> Any:
        return x / x.sum(-1, keepdims=True)

    assert kinds(normed, numbers(PARALLEL, MAX_ROW)) == ["rows"]
    assert kinds(normed, numbers(PARALLEL, MAX_ROW + 1)) == ["rows", "map"]


def test_few_rows_do_not_take_in_the_map_before_them() -> None:
    """The map is split over threads, and the rows cannot be."""

    def fn(x: Any) -> Any:
        return ek.exp(x).sum(-1)

    assert kinds(fn, numbers(2, ALONE // 2)) == ["rows"]
    assert kinds(fn, numbers(2, ALONE // 2 + 1)) == ["map", "rows"]
    assert kinds(fn, numbers(PARALLEL, ALONE)) == ["rows"]


def test_a_reduction_that_is_read_through_a_transpose_is_stored() -> None:
    def turned(x: Any) -> Any:
        return x + x.sum(-1).reshape(8, 64).T.reshape(512, 1)

    assert kinds(turned, X) == ["rows", "map"]
    assert kinds(lambda x: x + x.sum(-1), numbers(64, 64)) == ["rows", "map"]


# -- columns, and all elements ---------------------------------------------------------------------


def test_a_bias_gradient_takes_in_the_ops_before_it() -> None:
    def backward(g: Any, y: Any) -> Any:
        inner = g * (1 - y * y)
        return inner, inner.sum(0)

    assert shown(backward, X, Y) == ["columns[1x512x64] mul mul sub sum"]


def test_sums_over_columns_that_are_used_again_end_a_kernel() -> None:
    assert kinds(lambda x: x - x.sum(0), X) == ["columns", "map"]


def test_few_bands_of_columns_do_not_take_in_the_map_before_them() -> None:
    def fn(x: Any) -> Any:
        return ek.exp(x).sum(0)

    assert kinds(fn, numbers(COLUMN_BLOCK * PARALLEL, 20)) == ["columns"]
    assert kinds(fn, numbers(COLUMN_BLOCK * (PARALLEL - 1), 20)) == ["map", "columns"]
    assert kinds(fn, numbers(ALONE // 20, 20)) == ["columns"]


def test_all_elements_are_reduced_in_blocks_with_what_comes_before() -> None:
    def fn(x: Any) -> Any:
        return ek.exp(x).sum(), x.max(), x * 2

    lowered = low(fn, numbers(1 << 20))
    (group,) = groups(lowered)
    assert (group.kind, len(group.members), len(group.results)) == ("blocks", 4, 3)
    assert kernels(lowered) == ["LoopKernel", "Sequence", "Sequence"]


def test_few_elements_are_one_row() -> None:
    assert shown(lambda x: (x * x).mean() + 1, numbers(8192)) == ["rows[1x8192] add div mul sum"]
    assert kinds(lambda x: (x * x).sum(), numbers(8193)) == ["blocks"]


# -- bands -----------------------------------------------------------------------------------------


def test_sums_over_rows_and_columns_of_the_same_values_share_a_kernel() -> None:
    def fn(x: Any) -> Any:
        y = ek.exp(x)
        return y.sum(-1), y.sum(0)

    assert kinds(fn, X) == ["bands"]
    rows = COLUMN_BLOCK * (PARALLEL - 1)  # too few bands for threads, too many elements for one
    assert kinds(fn, numbers(rows, 64)) == ["rows", "columns"]
    assert kinds(fn, numbers(rows + 1, 64)) == ["bands"]


@pytest.mark.parametrize(("n", "found"), [(64, ["bands"]), (24, ["rows", "rows"])])
def test_all_elements_join_rows_that_fill_blocks(n: int, found: list[str]) -> None:
    def fn(x: Any) -> Any:
        y = ek.nn.softmax(x)
        return y, (y * y).sum()

    assert kinds(fn, numbers(100, n)) == found


def test_rows_of_another_length_do_not_join() -> None:
    """Rows [1, 1024] and rows [16, 64] have the same elements, but not the same sums."""

    def fn(x: Any) -> Any:
        y = ek.nn.sigmoid(x)
        return y.sum(), y.sum(-1)

    assert kinds(fn, numbers(16, 64)) == ["rows", "rows"]
    x = numbers(16, 64)
    got = ek.compile(fn)(x)
    with ek.eager():
        want = ek.compile(fn)(x)
    assert [a.numpy().tobytes() for a in got] == [b.numpy().tobytes() for b in want]


def test_layer_norm_softmax_loss_and_their_gradients_are_one_kernel() -> None:
    scale, shift = ek.Parameter(numbers(64)), ek.Parameter(numbers(64))

    def step(x: Any, y: Any) -> Any:
        def loss_of() -> Any:
            logs = ek.nn.log_softmax(layer_norm(x) * scale + shift)
            return -(logs * y).sum(-1).mean()

        loss, grads = ek.value_and_grad(loss_of, [scale, shift])()
        for leaf, grad in zip((scale, shift), grads):
            leaf.value = leaf - 0.1 * grad
        return loss

    lowered = low(step, X, Y)
    first, *others = groups(lowered)
    assert (first.kind, first.space) == ("bands", (512, 64))
    assert max(len(group.members) for group in others) <= 3
    assert max(group.space[-1] for group in others) <= 512
    assert kernels(lowered).count("LoopKernel") == 2
    assert kernels(lowered).count("Sequence") == 2
    assert kernels(lowered).count("Batched") == 1


# -- dots ------------------------------------------------------------------------------------------

W, B = numbers(64, 32), numbers(32)


def test_a_dot_finishes_its_elements() -> None:
    def layer(x: Any, w: Any, b: Any, r: Any) -> Any:
        return ek.tanh(x @ w + b) * 2 + r

    assert shown(layer, X, W, B, numbers(512, 32)) == ["dot[16384] add add dot mul tanh"]
    assert kernels(low(layer, X, W, B, numbers(512, 32))) == ["TiledDot"]


def test_relu_stores_its_mask_beside_its_result() -> None:
    w, b, v = ek.Parameter(W), ek.Parameter(B), numbers(32, 8)

    def grads(x: Any) -> Any:
        def loss_of() -> Any:
            return (ek.nn.relu(x @ w + b) @ v).sum()

        return ek.value_and_grad(loss_of, [w, b])()

    first = groups(low(grads, X))[0]
    assert first.kind == "dot"
    assert sorted(str(node.type) for node in first.results) == ["bool[512,32]", "f32[512,32]"]


def test_operands_of_a_dot_are_stored() -> None:
    assert shown(lambda x, w: (x * 2) @ w, X, W) == ["map[32768] mul", "dot[16384] dot"]
    assert kinds(lambda x, w, v: ek.tanh(x @ w) @ v, X, W, numbers(32, 8)) == ["dot", "dot"]


def test_a_dot_that_is_read_in_another_order_is_stored() -> None:
    x = numbers(64, 64)
    assert kinds(lambda x: (x @ x)[::-1] + x, x) == ["dot", "map"]
    assert kinds(lambda x: ek.nn.softmax(x @ x), x) == ["dot", "rows"]


def test_a_transposed_product_is_computed_turned() -> None:
    x = numbers(64, 64)
    assert kinds(lambda x, y: (x @ y).T + x, x, x) == ["dot"]


# -- optimizers ------------------------------------------------------------------------------------

SIZES = ((64, 32), (32,), (7,), (100, 100))


class Net(ek.nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        self.first, self.last = ek.nn.Linear(64, 32), ek.nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        return self.last(ek.nn.relu(self.first(x)))


@pytest.mark.parametrize("name", ["SGD", "Momentum", "RMSProp", "Adagrad", "Adam", "AdamW"])
def test_the_updates_of_all_parameters_are_one_launch(name: str) -> None:
    net = Net()
    opt = getattr(ek.optim, name)(net, lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: ek.nn.cross_entropy(net(x), y), net)()
        opt.step(grads)
        return loss

    lowered = low(step, numbers(128, 64), np.zeros(128, np.int32))
    assert kernels(lowered).count("Batched") == 1
    (row,) = [k for k in lowered.program.instructions if type(k.kernel).__name__ == "Batched"]
    assert row.label.startswith("4 x ")
    assert len(lowered.program.in_place) >= 4
    assert [group.kind for group in groups(lowered)].count("map") <= 2 + 4  # scalars, indices


def test_updates_do_not_join_the_dots_of_their_gradients() -> None:
    net = Net()
    parameters = [net.first.w, net.first.b, net.last.w, net.last.b]

    def step(x: Any, y: Any) -> Any:
        def loss_of() -> Any:
            return ((net(x) - y) ** 2).sum()

        loss, grads = ek.value_and_grad(loss_of, parameters)()
        for leaf, grad in zip(parameters, grads):
            leaf.value = leaf - 0.1 * grad
        return loss

    lowered = low(step, numbers(128, 64), numbers(128, 10))
    state = {value for _, value in lowered.stages["dce"].updates}
    for group in groups(lowered):
        assert group.kind == "map" or state.isdisjoint(group.members)
    assert kernels(lowered).count("Batched") == 1


def test_updates_by_different_rules_are_launches_of_their_own() -> None:
    leaves = [ek.Parameter(numbers(*shape)) for shape in SIZES]

    def step(rate: Any) -> None:
        for k, leaf in enumerate(leaves):
            leaf.value = leaf - rate if k % 2 else leaf * rate

    assert kernels(low(step, np.float32(2))) == ["Batched", "Batched"]


# -- limits ----------------------------------------------------------------------------------------


def test_a_kernel_has_a_limited_number_of_ops() -> None:
    def deep(x: Any) -> Any:
        for _ in range(400):
            x = x * 1.001 + 0.1
        return x

    x = numbers(33)
    found = groups(low(deep, x))
    assert sum(len(group.members) for group in found) == 800
    assert max(len(group.members) for group in found) <= MAX_MEMBERS
    assert len(found) == -(-800 // MAX_MEMBERS)
    assert ek.compile(deep)(x).numpy().tobytes() == deep(ek.asarray(x)).numpy().tobytes()


def test_a_kernel_has_a_limited_number_of_operands() -> None:
    many = [numbers(5, 7) + k for k in range(150)]

    def total(*xs: Any) -> Any:
        found = xs[0]
        for x in xs[1:]:
            found = found * 0.5 + ek.tanh(x)
        return found

    def apart(*xs: Any) -> Any:
        return tuple(ek.exp(x) for x in xs)

    def for_dots(x: Any) -> Any:
        return sum((x * float(k) + 1) @ x for k in range(90))

    cases = ((total, many), (apart, many), (for_dots, [numbers(16, 16)]))
    for fn, args in cases:
        for row in low(fn, *args).program.instructions:
            assert len(row.operands) <= MAX_BUFFERS
    got = ek.compile(total)(*many).numpy()
    assert got.tobytes() == total(*map(ek.asarray, many)).numpy().tobytes()


def test_expensive_values_of_a_row_are_kept_while_there_is_room() -> None:
    def chain(x: Any) -> Any:
        for _ in range(6):
            x = ek.nn.softmax(ek.tanh(x) * 3)
        return x

    groups: list[int] = []
    for n in (64, 1024, 4096, 16384):
        found = low(chain, numbers(8, n))
        groups.append(len(found.stages["fuse"].groups))
        kernels = [kernel for kernel in found.kernels if isinstance(kernel, LoopKernel)]
        assert all(4 * n * len(kernel.kept) <= SCRATCH_BYTES for kernel in kernels)
        assert any(kernel.kept for kernel in kernels) == (n <= 4096)
    assert groups == sorted(groups)
    assert groups[0] == 1 < groups[-1]


def test_dear_ops_keep_out_of_rows_shorter_than_a_vector() -> None:
    def total(x: Any) -> Any:
        return ek.sum(ek.tanh(x), axis=-1)

    assert len(low(total, numbers(4096, 3)).stages["fuse"].groups) == 2
    assert len(low(total, numbers(4096, 16)).stages["fuse"].groups) == 1
    assert len(low(total, numbers(64, 3)).stages["fuse"].groups) == 1  # too small to matter
