"""What traces saw of modules, optimizers and leaves: a change is noticed, by those that saw it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn import nn

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


class Net(nn.Module):
    """Has a number, a text, a list of modules, and reads an attribute that may be missing."""

    def __init__(self) -> None:
        self.scale, self.kind, self.note = 2.0, "sum", "nobody reads this"
        self.first = nn.Linear(4, 4)
        self.rows = [nn.Linear(4, 4)]
        self.w = ek.Parameter(X[0])

    def forward(self, x: Any) -> Any:
        h = self.first(x) * self.scale
        for row in self.rows:
            h = row(h)
        if hasattr(self, "shift"):
            h = h + self.shift
        h = h * self.w if self.w.trainable else h
        return h.sum() if self.kind == "sum" else h.mean()


def gradients(model: Any) -> Any:
    return ek.compile(ek.value_and_grad(lambda x: model(x), model), on_retrace="allow")


def agree(step: Any, *args: Any) -> None:
    with ek.eager():
        want = step(*args)
    assert_same_nest(step(*args), want)


CHANGES: dict[str, Callable[[Any, random.Random], Any]] = {
    "number": lambda net, rng: setattr(net, "scale", rng.choice([1.0, 2.0, 3])),
    "text": lambda net, rng: setattr(net, "kind", rng.choice(["sum", "mean"])),
    "module": lambda net, rng: setattr(net, "first", nn.Linear(4, 4)),
    "list": lambda net, rng: setattr(net, "rows", list(net.rows)),
    "longer list": lambda net, rng: net.rows.append(nn.Linear(4, 4)),
    "shorter list": lambda net, rng: net.rows.pop() if len(net.rows) > 1 else None,
    "item of a list": lambda net, rng: net.rows.__setitem__(0, nn.Linear(4, 4)),
    "missing": lambda net, rng: setattr(net, "shift", rng.choice([0.5, None]) or 1),
    "gone": lambda net, rng: delattr(net, "shift") if hasattr(net, "shift") else None,
    "leaf": lambda net, rng: setattr(net, "w", ek.Parameter(X[1])),
    "leaf of a part": lambda net, rng: setattr(net.first, "w", ek.Parameter(X[:1].repeat(4, 0))),
    "frozen": lambda net, rng: net.freeze(rng.choice(["*", "w", "first/*", "rows/*"])),
    "trained": lambda net, rng: net.unfreeze(rng.choice(["*", "w", "first/*"])),
    "frozen leaf": lambda net, rng: setattr(net.first.b, "trainable", rng.random() < 0.5),
    "other": lambda net, rng: setattr(net, "note", rng.random()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    net, rng = Net(), random.Random(1)
    steps = [ek.compile(net, on_retrace="allow"), gradients(net)]
    for _ in range(3):
        for step in steps:
            agree(step, X)
            agree(step, X)
        CHANGES[name](net, rng)


@pytest.mark.parametrize("seed", range(6))
def test_changes_in_any_order_are_seen(seed: int) -> None:
    net, rng = Net(), random.Random(seed)
    steps = [ek.compile(net, on_retrace="allow"), gradients(net)]
    for _ in range(12):
        for name in rng.sample(sorted(CHANGES), k=2):
            CHANGES[name](net, rng)
        for step in rng.sample(steps, k=2):
            agree(step, X)


def test_attributes_that_are_read_through_the_dict_are_seen() -> None:
    class Late(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * vars(self).get("factor", 1) * self.__dict__.get("other", 1)

    late = Late()
    step = ek.compile(late, on_retrace="allow")
    for name, value in (("other", 4), ("factor", 2.0), ("factor", 3.0)):
        agree(step, X)
        setattr(late, name, value)
    agree(step, X)


def test_only_what_read_a_model_is_traced_again() -> None:
    one, two = Net(), Net()
    steps = {net: ek.compile(net, on_retrace="error") for net in (one, two)}
    other = ek.compile(lambda x: x * 2, on_retrace="error")
    for step in (*steps.values(), other):
        step(X)
    one.freeze()
    one.scale = 3.0
    two.note = "as before"
    two.new = 1
    for step in (steps[two], other):
        step(X)
    with pytest.raises(ek.TraceError, match=r"on_retrace='error' forbids: Net\.scale was 2\.0"):
        steps[one](X)


@pytest.mark.parametrize("way", ["leaf", "model", "part"])
def test_freezing_retraces_the_steps_of_its_model_alone(way: str) -> None:
    nets = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)) for _ in range(2)]
    steps: list[Any] = []
    for net in nets:
        opt = ek.optim.SGD(net, lr=0.1)

        def train(x: Any, net: Any = net, opt: Any = opt) -> Any:
            loss, grads = ek.value_and_grad(lambda: net(x).sum(), net)()
            opt.step(grads)
            return loss

        steps.append(ek.compile(train, on_retrace="allow"))
        steps[-1](X)
    if way == "leaf":
        nets[0].parameters()[0].trainable = False
    else:
        (nets[0] if way == "model" else nets[0].modules()[1]).freeze()
    frozen = [leaf for leaf in nets[0].parameters() if not leaf.trainable]
    before = [leaf.numpy().copy() for leaf in frozen]
    if way != "model":  # with nothing to train there is no step
        steps[0](X)
        assert traces(steps[0]) == 2
        assert_same_nest([leaf.numpy() for leaf in frozen], before)
    steps[1](X)
    assert traces(steps[1]) == 1
    nets[0].unfreeze()
    steps[0](X)
    assert traces(steps[0]) == (1 if way == "model" else 2)  # the first one is right again


def test_values_that_come_back_find_their_trace() -> None:
    net = Net()
    step = ek.compile(net, on_retrace="allow")
    for kind in ("sum", "mean", "sum", "mean", "sum"):
        net.kind = kind
        agree(step, X)
    assert traces(step) == 2
    assert step.explain().reasons == ("Net.kind was 'sum' and is 'mean' now",)
    assert "Net.kind was 'mean'" in str(step.explain())


def test_reasons_name_what_changed() -> None:
    net = Net()
    step = ek.compile(net, on_retrace="allow")
    step(X)
    changes: list[tuple[Callable[[], Any], str]] = [
        (lambda: setattr(net, "shift", 1.0), "Net.shift was not there and is 1.0 now"),
        (lambda: delattr(net, "shift"), "Net.shift was 1.0 and is gone"),
        (lambda: setattr(net, "first", nn.Linear(4, 4)), "Net.first was a Linear and is a Linear"),
        (lambda: net.freeze("first/w"), "first.w was trained and is frozen now"),
    ]
    for change, reason in changes:
        change()
        step(X)
        assert reason in step.explain().reasons[-1]


def test_a_setting_that_a_group_gets_later_is_seen() -> None:
    w = ek.Parameter(X[0])
    model = nn.Sequential(nn.Linear(4, 4))
    opt = ek.optim.SGD(model, lr=0.5, groups={"*b": {"weight_decay": 0.5}})
    step = ek.compile(lambda g: opt.step(g), on_retrace="allow")
    grads = model.v.map(lambda leaf: np.ones(leaf.shape, np.float32))
    step(grads)
    opt.groups["*b"].lr = 0.0
    before = [leaf.numpy().copy() for leaf in model.parameters()]
    step(grads)
    after = [leaf.numpy() for leaf in model.parameters()]
    assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert w.trainable
