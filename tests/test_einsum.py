"""einsum against NumPy: values, both modes, gradients, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from function_checks import both, close, values

import einkorn as ek

CASES: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("i", ((3,),)),
    ("ij->ji", ((3, 4),)),
    ("ba", ((3, 4),)),
    ("ij->", ((3, 4),)),
    ("ii", ((4, 4),)),
    ("ii->i", ((4, 4),)),
    ("iij->ij", ((3, 3, 2),)),
    ("iji->j", ((3, 2, 3),)),
    ("iii->i", ((3, 3, 3),)),
    ("...ii->...", ((2, 3, 4, 4),)),
    ("ii->i", ((0, 0),)),
    ("i,i", ((5,), (5,))),
    ("i,j", ((5,), (4,))),
    ("i,i->i", ((5,), (5,))),
    ("ij,jk", ((3, 4), (4, 5))),
    ("ij,jk->ki", ((3, 4), (4, 5))),
    ("ij,jk->ik", ((3, 0), (0, 5))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("bhqd,bhkd->bhqk", ((2, 2, 3, 4), (2, 2, 5, 4))),
    ("ij,ij->i", ((3, 4), (3, 4))),
    ("ij,i->j", ((3, 4), (3,))),
    ("ijk,lk->", ((2, 3, 4), (5, 4))),
    ("i,,j->ji", ((3,), (), (4,))),
    ("...ij,...jk->...ik", ((5, 1, 2, 3), (4, 3, 2))),
    ("...ij,jk", ((5, 2, 3), (3, 2))),
    ("i...,i...->...", ((3, 2, 4), (3, 4))),
    ("ij,jk", ((3, 4), (1, 5))),
    ("i,i->i", ((1,), (4,))),
    ("i->i", ((1,),)),
    ("ab,bc,cd->ad", ((2, 9), (9, 3), (3, 4))),
    ("ij,jk,kl,lm->im", ((2, 3), (3, 4), (4, 5), (5, 2))),
    ("ea,fb,abcd,gc,hd->efgh", ((2, 3), (2, 3), (3, 3, 3, 3), (2, 3), (2, 3))),
    ("ii,ij,jj->j", ((3, 3), (3, 3), (3, 3))),
    (" i j , j -> i ", ((3, 4), (4,))),
]


@pytest.mark.parametrize(("subscripts", "shapes"), CASES, ids=[case[0] for case in CASES])
def test_einsum(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    for dtype in ("float64", "float32", "int32"):
        arrays = [values(shape, dtype, seed=k) for k, shape in enumerate(shapes)]
        got = both(lambda *ts: ek.einsum(subscripts, *ts), *arrays)
        want = np.einsum(subscripts, *(a.astype("float64") for a in arrays))
        close(got, np.asarray(want), dtype)


@pytest.mark.parametrize(("subscripts", "shapes"), CASES, ids=[case[0] for case in CASES])
def test_gradients_are_einsums_too(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    """For a function that is linear in each operand, <gradient, operand> is the value."""
    arrays = [values(shape, "float64", seed=k) for k, shape in enumerate(shapes)]
    wrt = tuple(range(len(arrays)))

    def value(*operands: Any) -> Any:
        result = ek.einsum(subscripts, *operands)
        return ek.sum(result * ek.reshape(ek.arange(result.size), result.shape))

    grads = both(ek.grad(value, wrt=wrt), *arrays)
    total = float(value(*arrays))
    for grad, array in zip(grads, arrays):
        assert grad.shape == array.shape
        assert abs(float(np.sum(np.asarray(grad) * array)) - total) <= 1e-9 * max(1, abs(total))


def test_pairs_are_chosen_by_size() -> None:
    """The wide axis goes first: a product of the narrow matrices comes last."""
    wide, narrow = np.ones((2, 4000), "float32"), np.ones((4000, 3), "float32")
    step = ek.compile(lambda a, b, c: ek.einsum("ab,bc,cd->ad", a, b, c))
    text = str(step.lower(wide, narrow, np.ones((3, 5), "float32")).stages["dce"])
    dots = [line for line in text.splitlines() if "dot" in line]
    assert len(dots) == 2
    assert "4000" not in dots[1].split(" = ")[0]


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ek.einsum("ij,jk->ik", np.ones((2, 3))), ek.ShapeError, "names 2 operands, but 1"),
    (lambda: ek.einsum("ij->i", np.ones(3)), ek.ShapeError, "'ij' labels 2 axes .* with 1"),
    (lambda: ek.einsum("i->i", np.ones((3, 3))), ek.ShapeError, "labels 1 axes .* with 2"),
    (lambda: ek.einsum("i->j", np.ones(3)), ek.ShapeError, "one of an operand"),
    (lambda: ek.einsum("i->ii", np.ones(3)), ek.ShapeError, "occur once"),
    (lambda: ek.einsum("ij,jk", np.ones((2, 3)), np.ones((4, 5))), ek.ShapeError, "3 and 4"),
    (lambda: ek.einsum("...i->i", np.ones((2, 3))), ek.ShapeError, "must have the '...'"),
    (lambda: ek.einsum("i1->i", np.ones((2, 3))), ek.ShapeError, "subscripts are letters"),
    (lambda: ek.einsum("i....->i", np.ones((2, 3))), ek.ShapeError, "subscripts are letters"),
    (lambda: ek.einsum("i->j->k", np.ones(2)), ek.ShapeError, "subscripts are letters"),
    (lambda: ek.einsum("i->", [True]), ek.DTypeError, "bool has no arithmetic"),
    (lambda: ek.einsum([0, 1], np.ones(2)), ek.DTypeError, "subscripts are letters"),  # pyright: ignore[reportArgumentType]
    (lambda: ek.einsum("i->"), ek.ShapeError, "at least one operand"),
]


@pytest.mark.parametrize(("use", "error", "message"), BAD)
def test_errors(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()
