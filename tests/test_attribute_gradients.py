"""Gradients through attributes that compiled functions write: those of the eager code."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from attribute_models import X, assert_same_attributes
from compile_checks import assert_same_nest

import einkorn as ek
from einkorn import nn


def test_gradients_flow_through_what_a_call_kept() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.w = ek.Parameter(X[0])
            self.penalty: Any = None

        def forward(self, x: Any) -> Any:
            self.penalty = (self.w**2).sum()
            return x * self.w

    net, twin = Net(), Net()
    step = ek.compile(net)
    for _ in range(2):
        for model, call in ((net, step), (twin, twin)):
            model.w.zero_grad()
            out = call(ek.asarray(X))
            (out.sum() + 3 * model.penalty).backward()
        assert_same_nest(net.w.grad, twin.w.grad)
        assert_same_attributes(net, twin)


@pytest.mark.parametrize("nest", [False, True])
def test_gradients_flow_through_what_earlier_calls_kept(nest: bool) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            self.w = ek.Parameter(X[0])
            self.h: Any = {"h": ek.zeros((3, 4))} if nest else ek.zeros((3, 4))

        def forward(self, x: Any) -> Any:
            h = self.h["h"] if nest else self.h
            h = h * self.w + x
            self.h = {"h": h} if nest else h
            return h * 2

    cells = [Cell() for _ in range(3)]
    step, region = ek.compile(cells[0]), ek.compile(cells[1])
    for k in range(5):
        x = X + k
        out = step(x)
        with ek.eager():
            want = region(x)
        plain = cells[2](ek.asarray(x))
        for cell, value in zip(cells, (out, want, plain)):
            cell.w.zero_grad()
            value.sum().backward(retain_graph=True)
        assert_same_nest(out, plain)
        assert_same_nest(cells[0].w.grad, cells[1].w.grad)
        np.testing.assert_allclose(cells[0].w.grad.numpy(), cells[2].w.grad.numpy(), rtol=1e-5)
    assert step.explain().made == 2  # without a history, and with one
    changed = (
        "is a dict with other kinds of tensors" if nest else "was f32[3,4] and is f32[3,4] with"
    )
    assert step.explain().reasons[0].startswith(f"Cell.h {changed}")


def test_a_gradient_around_a_compiled_call_ends_the_history_of_what_it_kept() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.w, self.last = ek.Parameter(X[0]), None

        def forward(self, x: Any) -> Any:
            self.last = x * self.w
            return self.last.sum()

    nets = [Net() for _ in range(3)]
    compiled, region = ek.compile(nets[0]), ek.compile(nets[1])
    found: list[Any] = []
    for net, call in zip(nets, (compiled, region, nets[2])):
        with ek.eager() if net is nets[1] else nullcontext():
            found.append(ek.value_and_grad(lambda call=call: call(ek.asarray(X)), net)())
        assert_same_nest(net.last, X * X[0])
        with pytest.raises(ek.EinkornError):
            net.last.sum().backward()
    assert_same_nest(found[0], found[1])
