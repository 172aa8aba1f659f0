"""Calling a Module: with other values, with captured outputs."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
import pytest
from module_checks import ORDER, Block, X, net, same
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import EinkornError, ShapeError, StateError

Run = Callable[[Callable[..., Any]], Callable[..., Any]]


@pytest.fixture(params=["eager", "compiled", "eagerly compiled"])
def run(request: pytest.FixtureRequest) -> Generator[Run]:
    """How a function is called."""
    if request.param == "eagerly compiled":
        with ek.eager():
            yield ek.compile
    else:
        yield ek.compile if request.param == "compiled" else lambda fn: fn


@pytest.fixture
def switching() -> Generator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# -- other values ----------------------------------------------------------------------------------


def test_other_values_hold_for_one_call(run: Run) -> None:
    model, other = net(0), net(1)
    values = other.v.copy()
    call = run(lambda v, b, x: model(x, v=v, buffers=b))
    own, theirs = model(X)["out"], other(X)["out"]
    got = call(values, {"calls": 40}, X)
    assert_same_bits(got["out"], theirs)
    assert int(got["calls"]) == 41
    assert int(model.calls) == 1
    assert_same_bits(model(X)["out"], own)
    assert model.v.first.linear.w is model.first.linear.w is model.blocks[1].linear.w
    assert [int(x["calls"]) for x in (model(X), model(X))] == [3, 4]


def test_a_call_with_other_values_is_traced_once() -> None:
    model = net()
    step = ek.compile(lambda v, x: model(x, v=v)["out"].sum())
    for factor in (1.0, 2.0, 3.0):
        step(model.v * factor, X)
        model(X, v=model.v * factor)
    assert len(step.explain().traces) == 1


def test_a_call_that_raises_leaves_everything_as_it_was(run: Run) -> None:
    model = net()
    before, leaves = model.v.copy(), model.parameters()
    model.fails = True
    options: list[dict[str, Any]] = [
        {"v": model.v * 0.0},
        {"buffers": {"calls": 7}},
        {"v": model.v * 0.0, "buffers": {"calls": 7}, "capture": True},
    ]
    for given in options:
        with pytest.raises(ValueError, match="not today"):
            run(lambda x, given=given: model(x, **given))(X)
    model.fails = False
    assert all(a is b for a, b in zip(model.parameters(), leaves, strict=True))
    same(model.v, before)
    assert int(model.calls) <= 1  # the one call that may count, and eagerly does before it raises
    assert isinstance(model.first.linear.w, ek.Parameter)
    assert isinstance(model.scales["out"], ek.Parameter)


def test_some_values_only(run: Run) -> None:
    model = net()
    values = model.v.overwrite_at_key_chains({"scales/out": np.float32(0.0)})
    assert not np.asarray(run(lambda x: model(x, v=values)["out"])(X)).any()
    want = r"Net\(..., v=\): the structures differ at 'first'.*overwrite_at_key_chains"
    with pytest.raises(EinkornError, match=want):
        model(X, v={"scales": {"out": 1.0}})
    with pytest.raises(EinkornError, match=r"Net\(..., buffers=\): .*'calls'.*model.buffers.over"):
        model(X, buffers={})
    with pytest.raises(ShapeError, match="'scales/out'"):
        model(X, v=model.v.overwrite_at_key_chains({"scales/out": np.float32([1, 2])}))
    # what is not exchanged is the parameter itself, so it still trains
    _, grads = ek.value_and_grad(lambda: model(X, v=values)["out"].sum(), model)()
    assert not np.asarray(grads.first.linear.w).any()
    assert np.asarray(grads.scales.out) == 0
    values = model.v.overwrite_at_key_chains({"scales/out": np.float32(1.0)})
    _, grads = ek.value_and_grad(lambda: model(X, v=values)["out"].sum(), model)()
    assert np.asarray(grads.first.linear.w).any()


def test_nests_keep_their_classes(run: Run) -> None:
    class Named(NamedTuple):
        first: Any
        rest: Any

    class Nests(nn.Module):
        def __init__(self) -> None:
            self.ordered = OrderedDict(b=ek.Parameter(1.0), a=[ek.Parameter(2.0)])
            self.named = Named(ek.Parameter(3.0), Limited([ek.Parameter(4.0)]))
            self.kept = ek.Container(c=ek.Parameter(5.0))

        def forward(self, x: Any) -> Any:
            kinds = [type(n) for n in (self.ordered, self.named, self.named.rest, self.kept)]
            assert kinds == [OrderedDict, Named, Limited, ek.Container]
            return [self.ordered["b"] + 0, self.named.first + 0, self.kept.c + x]

    class Limited(list[Any]):
        def __init__(self, items: Any, limit: int = 3) -> None:
            super().__init__(items)
            self.limit = limit

    model = Nests()
    found = run(lambda v: model(np.float32(0), v=v))(model.v * 10.0)
    assert [float(x) for x in found] == [10, 30, 50]
    model.to("float64")
    assert model.named.rest.limit == 3
    assert [float(x) for x in model(np.float64(0))] == [1, 3, 5]


def test_none_is_no_other_value_and_anything_else_is_refused() -> None:
    model = net()
    same(model(X, v=None, buffers=None)["out"], model(X)["out"])
    for kind, value in (("list", [1.0]), ("int", 3), ("Linear", nn.Linear(1, 1))):
        message = rf"Net\(..., v=\) takes a Container or dict of values like Net.v, got {kind}"
        with pytest.raises(EinkornError, match=message):
            model(X, v=value)

    class Rest(nn.Module):
        def forward(self, x: Any, **rest: Any) -> Any:
            return rest

    assert Rest()(X, v=3, buffers=None, capture=None) == {"v": 3, "buffers": None}


def test_a_compiled_part_sees_the_other_values(run: Run) -> None:
    """Its traces know the parameters; a call with other values must not use them."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            self.part = net()
            self.step = ek.compile(self.part)

        def forward(self, x: Any) -> Any:
            return self.step(x)["out"]

    model = Holder()
    model(X)
    call = run(lambda v, x: model(x, v=v))
    assert not np.asarray(call(model.v * 0.0, X)).any()
    assert np.asarray(model(X)).any()
    options = {"buffers": {"part": {"calls": 10}}}
    again = run(lambda x: (model(x, **options), model.part.calls.value)[1])
    assert int(again(X)) == int(model.part.calls)


def test_what_a_module_shows_of_itself_within_such_a_call(run: Run) -> None:
    class Penalty(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(4, 2), nn.Linear(2, 2)
            self.again = self.a
            self.b.freeze()
            self.add_buffer("rate", np.float32(1.0))

        def forward(self, x: Any) -> Any:
            return {
                "v": ek.tree_map(ek.sum, dict(self.v.flat_items())),
                "alias": self.v.again.w.sum() - self.again.w.sum(),
                "parameters": sum(p.sum() for p in self.parameters()),
                "named": sum(p.sum() for _, p in self.named_parameters()),
                "trained": sum(p.sum() for p in self.get_parameters(True).to_flat_list()),
                "frozen": sum(p.sum() for p in self.get_parameters(False).to_flat_list()),
                "regularized": ek.regularizers.L2(1.0)(self),
                "buffers": self.buffers.rate.value,
            }

    model = Penalty()
    ones = model.v.map(lambda leaf: np.ones(leaf.shape, np.float32))
    found = run(lambda x: model(x, v=ones, buffers={"rate": np.float32(5.0)}))(X)
    assert {key: float(x) for key, x in found.pop("v").items()} == {
        "a/w": 8, "a/b": 2, "b/w": 4, "b/b": 2
    }  # fmt: skip
    assert {key: float(x) for key, x in found.items()} == {
        "alias": 0, "parameters": 16, "named": 16, "trained": 10, "frozen": 6,
        "regularized": 10, "buffers": 5,
    }  # fmt: skip
    assert model.buffers.rate is model.rate
    with pytest.raises(StateError, match="keeps its structure"):
        setattr(model.v, "extra", 1)  # noqa: B010 # it is no attribute for a checker


def test_calls_with_other_values_nest(run: Run) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner = nn.Linear(4, 4, with_bias=False)
            self.scale = ek.Parameter(np.float32(1.0))

        def forward(self, x: Any) -> Any:
            eye = {"w": np.eye(4, dtype=np.float32)}
            return (self.inner(x, v=eye) + 0 * self.inner(x)) * self.scale, self.inner(x)

    model = Outer()
    values = model.v.map(lambda leaf: np.full(leaf.shape, 3.0, np.float32))
    first, second = run(lambda x: model(x, v=values))(X)
    assert_same_bits(first, X * 3)
    np.testing.assert_allclose(np.asarray(second)[:, 0], X.sum(1) * 3, rtol=1e-6)


def test_layers_that_record_their_steps_take_other_values(run: Run) -> None:
    ek.random.seed(1)
    model, other = nn.LSTM(4, 3), nn.LSTM(4, 3)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    model(x)
    values = other.v.copy()
    assert_same_bits(run(lambda v, x: model(x, v=v))(values, x), other(x))


def test_other_values_for_every_example(run: Run) -> None:
    model = nn.Linear(4, 2)
    stacked = model.v.map(lambda leaf: np.stack([leaf.numpy() * k for k in range(3)]))
    call = run(lambda v, x: ek.vmap(lambda v, x: model(x, v=v))(v, x))
    out = np.asarray(call(stacked, X))
    for k in range(3):
        values = model.v.map(lambda leaf, k=k: leaf.numpy() * np.float32(k))
        np.testing.assert_allclose(out[k], np.asarray(model(X[k], v=values)), rtol=1e-6)


@pytest.mark.usefixtures("switching")
def test_threads_do_not_see_each_others_values() -> None:
    model = net()
    model.eval()
    part = model.first
    values = [None, model.v.first * 0.0, model.v.first * 0.0 + 1.0]
    wanted = [np.asarray(part(X, v=v) if v else part(X)) for v in values]
    differing: list[int] = []

    def work(k: int) -> None:
        for _ in range(300):
            out = part(X) if values[k] is None else part(X, v=values[k])
            if not np.array_equal(np.asarray(out), wanted[k]):
                differing.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing
    assert isinstance(part.linear.w, ek.Parameter)


# -- captured outputs ------------------------------------------------------------------------------


def test_outputs_come_by_path_in_order_of_calls(run: Run) -> None:
    model = net()
    out, found = run(lambda x: model(x, capture=True))(X)
    assert list(found) == ORDER
    first = model.first
    same([found["first"], found["first/linear"]], [first(X), first.linear(X)])
    same(found["first#2"], first(found["blocks/v0"]))
    same(out["out"], found["first#2"] * np.float32(2.0))


def test_patterns_choose_outputs(run: Run) -> None:
    model = net()

    def chosen(capture: Any) -> list[str]:
        return list(run(lambda x: model(x, capture=capture)[1])(X))

    assert chosen("first") == ["first", "first#2"]
    assert chosen("first#2") == ["first#2"]
    assert chosen(["*/act", "blocks/v0"]) == ["first/act", *ORDER[4:6], "first/act#2"]
    assert chosen("blocks/*") == ORDER[3:6]
    with pytest.raises(EinkornError, match=r"capture='head'\): no module .* called were first/l"):
        chosen("head")
    for given in (3, {"a": 1}, [1], b"first"):
        with pytest.raises(EinkornError, match=r"give True, or patterns of paths"):
            chosen(given)
    assert model(X, capture=False)["out"].shape == (3, 4)


def test_a_second_call_is_told_from_another_module() -> None:
    class Twice(nn.Module):
        def forward(self, x: Any) -> Any:
            first, second = nn.Linear(4), nn.Linear(4)
            return second(first(first(x)))

    model = Twice()
    found = model(X, capture=True)[1]
    assert list(found) == ["linear", "linear#2", "linear_1"]
    same(found["linear_1"], model.linear_1(found["linear#2"]))


def test_outputs_of_a_compiled_part_have_their_place(run: Run) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            self.part = net()
            self.head = nn.Linear(4, 2)
            self.step = ek.compile(self.part)

        def forward(self, x: Any) -> Any:
            return self.head(self.step(self.step(x)["out"])["out"])

    model = Holder()
    model(X)
    model.part.calls.value = 0
    out, found = run(lambda x: model(x, capture=True))(X)
    for call in (1, 2):  # of the part, which itself calls its first block twice
        names = [name.partition("#")[0] for name in ORDER]
        part = list(found)[10 * (call - 1) : 10 * call]
        assert [x.partition("#")[0] for x in part] == [*(f"part/{x}" for x in names), "part"]
        for block, number in (("blocks/v0", call), ("first", 2 * call)):
            assert f"part/{block}" + (f"#{number}" if number > 1 else "") in part
    assert list(found)[-1] == "head"
    same(found["head"], out)
    model.part.calls.value = 0
    with ek.eager():
        same(list(model(X, capture=True)[1].values()), list(found.values()))


def test_a_part_that_is_called_alone_is_the_root_of_its_paths(run: Run) -> None:
    model = net()
    model(X)
    for part in (model.blocks[0], model.first, Block()):
        found = run(lambda x, part=part: part(x, capture=True)[1])(X)
        assert list(found) == ["linear", "act"]
        assert part.summary(X, measure=False)["linear"].flops > 0

    class Adds(nn.Module):
        def forward(self, x: Any) -> Any:
            ek.add_metric("mean", x.mean())
            return x

    holder = nn.Sequential(nn.Sequential(Adds()))
    holder(X)
    for part, name in ((holder, "submodules/v0/submodules/v0/mean"), (holder[0][0], "mean")):
        with nn.collect() as collected:
            run(part)(X)
        assert list(collected.metrics) == [name]


def test_outputs_of_any_structure(run: Run) -> None:
    class Pair(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"a": (x, [x * 2]), "name": "pair"}

    class Whole(nn.Module):
        def __init__(self) -> None:
            self.pair = Pair()

        def forward(self, x: Any) -> Any:
            return self.pair(x)["a"][0]

    found = run(lambda x: Whole()(x, capture=True))(X)[1]
    assert found["pair"]["name"] == "pair"
    same(found["pair"]["a"], (X, [X * 2]))


def test_gradients_flow_through_captured_outputs(run: Run) -> None:
    model = net()

    def loss(x: Any) -> Any:
        return (model(x, capture="first")[1]["first"] ** 2).sum()

    value, grads = run(ek.value_and_grad(loss, model))(X)
    assert_same_bits(value, (model.first(X) ** 2).sum())
    assert np.asarray(grads.first.linear.w).any()
    assert not np.asarray(grads.blocks.v0.linear.w).any()


def test_nested_captures_see_their_own_part(run: Run) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            self.part = Block()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            out, inside = self.part(x, capture="act")
            return self.head(out), list(inside)

    model = Holder()
    (_, inside), found = run(lambda x: model(x, capture=True))(X)
    assert inside == ["act"]
    assert list(found) == ["part/linear", "part/act", "part", "head"]


def test_an_option_that_forward_has_itself_belongs_to_it() -> None:
    class Recorder(nn.Module):
        def forward(self, x: Any, capture: Any = None, atol: float = 0.0) -> Any:
            return x, capture, atol

    assert Recorder()(1, capture="all", atol=0.5) == (1, "all", 0.5)
