"""First values of parameters, and regularizers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import initializers as ini
from einkorn.initializers import fans
from einkorn.ir.errors import EinkornError, ShapeError


def test_fans_follow_the_layout_of_weights() -> None:
    assert fans((4, 3)) == (3, 4)
    assert fans((8, 3, 5, 2)) == (30, 120)
    assert fans((7,)) == (7, 7)
    assert fans(()) == (1, 1)


CASES = [
    (ini.GlorotUniform(), (2 / 500) ** 0.5),
    (ini.GlorotNormal(), (2 / 500) ** 0.5),
    (ini.KaimingNormal(), (2 / 300) ** 0.5),
    (ini.KaimingNormal(1.0, "fan_avg"), (1 / 250) ** 0.5),
    (ini.KaimingUniform(mode="fan_out"), (2 / 200) ** 0.5),
    (ini.LecunNormal(), (1 / 300) ** 0.5),
    (ini.LecunUniform(), (1 / 300) ** 0.5),
    (ini.RandomNormal(0.0, 0.3), 0.3),
    (ini.RandomUniform(-1.0, 1.0), 3**-0.5),
    (ini.TruncatedNormal(0.0, 0.3), 0.3 * ini.CUT_STD),
    (ini.VarianceScaling(2.0, "fan_out"), (2 / 200) ** 0.5),
    (ini.VarianceScaling(2.0, "fan_sum", "uniform"), (2 / 500) ** 0.5),
    (ini.UniformScaling(0.5), 0.5 * (1 / 300) ** 0.5),
    (ini.Uniform(), (6 / 500 / 3) ** 0.5),
    (ini.Uniform(3.0, "fan_in", 1.0, 2.0), 2 * 3 / 300 / 3**0.5),
    (ini.FirstLayerSiren(), 1 / 300 / 3**0.5),
    (ini.Siren(10.0), (6 / 300) ** 0.5 / 10 / 3**0.5),
]


@pytest.mark.parametrize(("initializer", "std"), CASES, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_initializers(initializer: Any, std: float, dtype: str) -> None:
    ek.random.seed(0)
    first = np.asarray(initializer((200, 300), dtype))
    ek.random.seed(0)
    assert_same_bits(np.asarray(initializer((200, 300), dtype)), first)
    assert first.dtype == dtype
    assert abs(first.std() / std - 1) < 0.02
    assert abs(first.mean()) < std / 50


@pytest.mark.parametrize("limit", [1.0, 0.05, 1e-30, 0.0])
def test_uniform_numbers_are_those_of_a_draw(limit: float) -> None:
    ek.random.seed(4)
    drawn = [ek.random.uniform(shape, -limit, limit) for shape in ((7, 300), (3,))]
    ek.random.seed(4)
    first = [ini.Uniform(limit, "fan_in", 1.0)(shape, fan_in=1) for shape in ((7, 300), (3,))]
    for one, other in zip(first, drawn):
        assert_same_bits(one, other)


def test_fans_may_be_given() -> None:
    wide = np.asarray(ini.KaimingUniform()((50, 50), fan_in=6))
    assert 0.97 < abs(wide).max() <= 1
    assert abs(np.asarray(ini.Siren()((3, 0)))).size == 0


@pytest.mark.parametrize("shape", [(4, 4), (3, 2, 2), (5, 2), (1, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = np.asarray(ini.Orthogonal(2.0)(shape, "float64")).reshape(shape[0], -1) / 2
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-12)


def test_bad_settings() -> None:
    for make in (
        lambda: ini.Constant("1"),  # type: ignore[arg-type]
        lambda: ini.RandomNormal(0.0, -1.0),
        lambda: ini.RandomUniform(1.0, 0.0),
        lambda: ini.VarianceScaling(mode="in"),
        lambda: ini.VarianceScaling(distribution="cauchy"),
        lambda: ini.KaimingNormal(mode="both"),
        lambda: ini.Siren(0.0),
        lambda: ini.UniformScaling(-1.0),
    ):
        with pytest.raises(EinkornError, match="got"):
            make()
    with pytest.raises(ShapeError, match="at least two axes"):
        ini.Orthogonal()((3,))


# -- regularizers ----------------------------------------------------------------------------------


def test_regularizers_of_modules_containers_and_nests() -> None:
    model = ek.nn.Linear(2, 3, bias_initializer=ek.initializers.Constant(0.5))
    w, b = np.asarray(model.w), np.asarray(model.b)
    first, second = abs(w).sum() + abs(b).sum(), (w * w).sum() + (b * b).sum()
    for parameters in (model, model.v, [model.w, {"b": model.b, "n": np.arange(3)}]):
        assert math.isclose(ek.regularizers.L1(0.1)(parameters), 0.1 * first, rel_tol=1e-6)
        assert math.isclose(ek.regularizers.L2(0.1)(parameters), 0.1 * second, rel_tol=1e-6)
        both = ek.regularizers.L1L2(0.1, 0.2)(parameters)
        assert math.isclose(both, 0.1 * first + 0.2 * second, rel_tol=1e-6)
    model.freeze("w")
    assert math.isclose(ek.regularizers.L1(1.0)(model), 1.5)


def test_a_new_strength_is_seen_by_compiled_steps() -> None:
    model, penalty = ek.nn.Linear(2, 3), ek.regularizers.L1L2(0.1, 0.2)

    @ek.compile
    def step() -> Any:
        return ek.value_and_grad(lambda: penalty(model), model)()

    for strength in (0.1, 0.7):
        penalty.l2 = strength
        eager = ek.value_and_grad(lambda: penalty(model), model)()
        for one, other in zip(ek.tree_leaves(step()), ek.tree_leaves(eager), strict=True):
            assert_same_bits(one, other)
    assert len(step.explain().traces) == 1
    assert repr(penalty) == "L1L2(l1=0.1, l2=0.7)"


def test_bad_regularizers() -> None:
    with pytest.raises(EinkornError, match="l1 is a number that is not negative, got -1"):
        ek.regularizers.L1(-1)
    with pytest.raises(EinkornError, match="no float parameters to regularize in Container"):
        ek.regularizers.L2(0.1)(ek.nn.ReLU().v)
