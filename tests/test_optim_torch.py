"""Optimizers and schedules against those of PyTorch, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einkorn.leaf import Parameter
from einkorn.optim import (
    EMA,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    Momentum,
    RAdam,
    RMSProp,
    clip_by_global_norm,
    schedules,
)

torch: Any = pytest.importorskip("torch")

CASES: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda p: SGD(p, 0.1, 0.2), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.2)),
    "nesterov": (
        lambda p: Momentum(p, 0.1, 0.8, True, 0.2),
        lambda p: torch.optim.SGD(p, 0.1, 0.8, weight_decay=0.2, nesterov=True),
    ),
    "rmsprop": (
        lambda p: RMSProp(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.RMSprop(p, 0.1, weight_decay=0.2),
    ),
    "adagrad": (
        lambda p: Adagrad(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.2),
    ),
    "adadelta": (
        lambda p: Adadelta(p, 0.5, weight_decay=0.2),
        lambda p: torch.optim.Adadelta(p, 0.5, weight_decay=0.2),
    ),
    "adam": (
        lambda p: Adam(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.2),
    ),
    "adamw": (
        lambda p: AdamW(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2),
    ),
    "amsgrad": (
        lambda p: AMSGrad(p, 0.1, weight_decay=0.2, decoupled=True),
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2, amsgrad=True),
    ),
    "adamax": (
        lambda p: Adamax(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.Adamax(p, 0.1, weight_decay=0.2),
    ),
    "radam": (
        lambda p: RAdam(p, 0.1, weight_decay=0.2),
        lambda p: torch.optim.RAdam(p, 0.1, weight_decay=0.2),
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=CASES)
def test_steps_agree(ours: Any, theirs: Any) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 5))
    mine = Parameter(start, "float64")
    other = torch.tensor(start, requires_grad=True)
    optimizer, peer = ours([mine]), theirs([other])
    for _ in range(12):
        grad = rng.normal(size=(4, 5)) * 3
        optimizer.step([grad])
        other.grad = torch.tensor(grad)
        peer.step()
        np.testing.assert_allclose(np.asarray(mine), other.detach().numpy(), 1e-6, 1e-9)


def test_clipping_agrees() -> None:
    grads = [np.random.default_rng(k).normal(size=(4, 5)) for k in range(2)]
    others = [torch.zeros(4, 5, dtype=torch.float64) for _ in grads]
    for other, grad in zip(others, grads, strict=True):
        other.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_norm_(others, 2.0)  # adds 1e-6 to the norm
    for mine, other in zip(clip_by_global_norm(grads, 2.0), others, strict=True):
        np.testing.assert_allclose(np.asarray(mine), other.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_schedules_agree(mode: str) -> None:
    weight = torch.zeros(1, requires_grad=True)

    def rates(make: Any, steps: int = 30) -> list[float]:
        peer = torch.optim.SGD([weight], 0.4)
        schedule = make(peer)
        found = []
        for _ in range(steps):
            found.append(peer.param_groups[0]["lr"])
            peer.step()
            schedule.step()
        return found

    library = torch.optim.lr_scheduler
    for mine, peer in [
        (schedules.Step(0.4, 7, 0.3), lambda o: library.StepLR(o, 7, 0.3)),
        (schedules.Exponential(0.4, 0.9), lambda o: library.ExponentialLR(o, 0.9)),
        (schedules.Polynomial(0.4, 20, power=2), lambda o: library.PolynomialLR(o, 20, 2.0)),
        (
            schedules.Cosine(0.4, 10, restarts=True),
            lambda o: library.CosineAnnealingWarmRestarts(o, 10),
        ),
        (schedules.OneCycle(0.4, 30), lambda o: library.OneCycleLR(o, 0.4, total_steps=31)),
    ]:
        if isinstance(mine, schedules.OneCycle):
            mine.steps = 31.0
        np.testing.assert_allclose([float(mine(n)) for n in range(30)], rates(peer), rtol=1e-9)
    ours = schedules.ReduceOnPlateau(0.4, 0.5, 2, 1e-2, 3, mode=mode)
    peer = torch.optim.SGD([weight], 0.4)
    theirs = library.ReduceLROnPlateau(peer, mode, 0.5, 2, 1e-2, cooldown=3)
    for measure in np.abs(np.random.default_rng(0).normal(1, 0.2, 50)):
        ours.update(float(measure))
        theirs.step(float(measure))
        np.testing.assert_allclose(float(ours(0)), peer.param_groups[0]["lr"], rtol=1e-12)


def test_the_average_agrees() -> None:
    mine, other = Parameter([1.0, 2.0], "float64"), torch.nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        other.weight.copy_(torch.tensor([[1.0, 2.0]]))
    average = torch.optim.swa_utils.AveragedModel(
        other, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    average.update_parameters(other)  # the first update copies
    ema = EMA([mine], 0.9)
    for k in range(5):
        mine.value = np.array([k * 1.0, 2.0])
        ema.update()
        with torch.no_grad():
            other.weight.copy_(torch.tensor([[k * 1.0, 2.0]]))
        average.update_parameters(other)
    found = average.module.weight.detach().numpy()[0]
    np.testing.assert_allclose(np.asarray(ema.average.v0), found, rtol=1e-12)
