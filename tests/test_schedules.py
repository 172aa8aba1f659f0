"""Schedules of learning rates against their formulas, and inside of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Parameter
from einkorn.optim import SGD
from einkorn.optim import schedules as sc


def cosine(a: float, b: float, part: float) -> float:
    return b + (a - b) * (1 + math.cos(math.pi * part)) / 2


def one_cycle(n: int) -> float:
    top, last = 0.3 * 20 - 1, 19
    if n < top:
        return cosine(0.4 / 25, 0.4, n / top)
    return cosine(0.4, 0.4 / 25 / 1e4, min((n - top) / (last - top), 1.0))


def warmed(n: int) -> float:
    return 0.01 + (0.1 - 0.01) * n / 4 if n < 4 else cosine(0.1, 0.001, min((n - 4) / 10, 1))


CASES: list[tuple[sc.Schedule, Callable[[int], float]]] = [
    (sc.Constant(0.1), lambda n: 0.1),
    (sc.Step(0.1, every=4, factor=0.5), lambda n: 0.1 * 0.5 ** (n // 4)),
    (sc.Exponential(0.1, 0.9, every=2), lambda n: 0.1 * 0.9 ** (n / 2)),
    (sc.Piecewise([0.3, 0.2, 0.1], [3, 7]), lambda n: 0.3 if n < 3 else 0.2 if n < 7 else 0.1),
    (
        sc.Piecewise([0.3, sc.Exponential(0.2, 0.5)], [3]),
        lambda n: 0.3 if n < 3 else 0.2 * 0.5 ** (n - 3),
    ),
    (sc.Polynomial(0.1, 8), lambda n: 0.1 * (1 - min(n, 8) / 8)),
    (
        sc.Polynomial(0.1, 8, end=0.01, power=2.0),
        lambda n: 0.01 + 0.09 * (1 - min(n, 8) / 8) ** 2,
    ),
    (sc.Cosine(0.1, 10, end=0.02), lambda n: cosine(0.1, 0.02, min(n / 10, 1))),
    (sc.Cosine(0.1, 5, restarts=True), lambda n: cosine(0.1, 0.0, (n % 5) / 5)),
    (sc.WarmUp(sc.Cosine(0.1, 10, end=0.001), 4, start=0.01), warmed),
    (sc.WarmUp(0.1, 5), lambda n: 0.1 * min(n / 5, 1)),
    (sc.OneCycle(0.4, 20), one_cycle),
    (
        sc.InverseSquareRoot(0.1, 4),
        lambda n: 0.1 * min((n + 1) / 4, math.sqrt(4 / (n + 1))),
    ),
    (sc.Scaled(sc.Step(0.1, every=4), 0.5), lambda n: 0.05 * 0.1 ** (n // 4)),
]
NAMES = [f"{k}-{type(schedule).__name__}" for k, (schedule, _) in enumerate(CASES)]


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=NAMES)
def test_schedules_follow_their_formulas(schedule: sc.Schedule, formula: Any) -> None:
    for n in range(24):
        found = schedule(n)
        assert found.dtype == "float64"
        assert found.shape == ()
        np.testing.assert_allclose(float(found), formula(n), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=NAMES)
def test_schedules_run_inside_of_one_trace(schedule: sc.Schedule, formula: Any) -> None:
    compiled, eager = Parameter(np.zeros((), "float64")), Parameter(np.zeros((), "float64"))
    one, two = SGD(compiled, schedule), SGD(eager, schedule)
    step = ek.compile(lambda: one.step(np.float64(-1.0)))
    for _ in range(12):
        step()
        two.step(np.float64(-1.0))
        assert compiled.value.tobytes() == eager.value.tobytes()
    assert len(step.explain().traces) == 1
    np.testing.assert_allclose(float(compiled), sum(map(formula, range(12))), rtol=1e-12)


def test_numbers_of_a_schedule_change_without_a_new_trace() -> None:
    w = Parameter(np.zeros((), "float64"))
    opt = SGD(w, sc.WarmUp(sc.Constant(0.5), 1))
    step = ek.compile(lambda: opt.step(np.float64(-1.0)))
    step()
    step()
    assert float(w) == 0.5
    opt.lr.inner.lr = 0.25
    step()
    assert float(w) == 0.75
    assert len(step.explain().traces) == 1
    opt.lr = sc.Constant(1.0)
    step()
    opt.lr = 2.0
    step()
    opt.lr = ek.tensor(4.0, "float64")
    step()
    assert float(w) == 7.75


# -- plateaus --------------------------------------------------------------------------------------


def plateau_formula(measures: list[float], largest: bool, relative: bool) -> list[float]:
    """The rates after each measure, with patience 1 and cooldown 2."""
    lr, best, bad, quiet, rates = 1.0, (-math.inf if largest else math.inf), 0, 0, []
    for x in measures:
        if math.isinf(best):
            better = not math.isnan(x)
        else:
            margin = 0.1 * abs(best) if relative else 0.1
            better = x > best + margin if largest else x < best - margin
        best, bad = (x, 0) if better else (best, bad + 1)
        if quiet > 0:
            quiet, bad = quiet - 1, 0
        if bad > 1:
            lr, bad, quiet = max(lr * 0.5, 0.2), 0, 2
        rates.append(lr)
    return rates


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateaus_reduce_the_rate(mode: str, relative: bool) -> None:
    rng = np.random.default_rng(3)
    measures = [float(x) for x in np.abs(rng.normal(1.0, 0.3, 40))]
    measures[5] = math.nan
    expected = plateau_formula(measures, mode == "max", relative)
    assert len(set(expected)) == 4

    def made() -> sc.ReduceOnPlateau:
        return sc.ReduceOnPlateau(1.0, 0.5, 1, 0.1, 2, 0.2, mode, relative)

    eager, compiled = made(), made()
    update = ek.compile(lambda x: compiled.update(x))
    for measure, rate in zip(measures, expected, strict=True):
        eager.update(measure)
        update(np.float64(measure))
        assert float(eager(0)) == float(compiled(0)) == rate
    assert len(update.explain().traces) == 1
    other = made()
    other.load_state_dict(eager.state_dict())
    assert float(other(0)) == expected[-1]


def test_plateaus_scale_schedules() -> None:
    plateau = sc.ReduceOnPlateau(sc.Step(1.0, every=2), factor=0.5, patience=0)
    plateau.update(1)
    plateau.update(np.float32(2.0))
    assert [float(plateau(n)) for n in (0, 2)] == [0.5, 0.05]
    nested = sc.Piecewise([plateau, sc.ReduceOnPlateau(plateau)], [3])
    assert list(nested.leaves())[::4] == ["0.scale", "1.scale", "1.inner.scale"]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sc.Constant("fast"), "lr is a number"),
        (lambda: sc.Step(0.1, every=0), "every is above 0, got 0"),
        (lambda: sc.Piecewise([0.1], [1]), "1 values need 0 boundaries, got 1"),
        (lambda: sc.Piecewise([1, 2, 3], [2, 2]), "boundaries are numbers of steps that grow"),
        (lambda: sc.Piecewise([1, 2], ["a"]), "boundaries are numbers of steps"),
        (lambda: sc.WarmUp("fast", 2), "lr is a number or a schedule"),
        (lambda: sc.Cosine(0.1, math.nan), "steps is above 0"),
        (lambda: sc.ReduceOnPlateau(0.1, factor=1.0), "factor is at least 0 and below 1"),
        (lambda: sc.ReduceOnPlateau(0.1, mode="least"), "mode is 'min' or 'max', got 'least'"),
    ],
)
def test_schedules_check_their_numbers(make: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        make()


def test_schedules_need_one_count_and_plateaus_one_measure() -> None:
    with pytest.raises(ShapeError, match="Constant needs one step count"):
        sc.Constant(0.1)(np.ones(2))
    with pytest.raises(ShapeError, match="needs one number"):
        sc.ReduceOnPlateau(0.1).update([1.0, 2.0])


def test_schedules_print_their_settings() -> None:
    schedule = sc.WarmUp(sc.Cosine(0.1, 10), 4)
    assert repr(schedule) == (
        "WarmUp(Cosine(lr=0.1, end=0.0, steps=10.0, restarts=False), steps=4.0, start=0.0)"
    )
    assert repr(sc.Piecewise([1, 2], [3])) == (
        "Piecewise([Constant(lr=1.0), Constant(lr=2.0)], [3.0])"
    )
