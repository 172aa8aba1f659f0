"""Sizes that are known when a step runs: arithmetic of polynomials, and what is decided of them."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einkorn.ir.dtypes import float32
from einkorn.ir.errors import SizeError
from einkorn.ir.sizes import Length, Size, has_size, plain, size_of
from einkorn.ir.types import TensorType, same_shape

A, B = Length("x.shape[0]", 5, 8), Length("y.shape[1]", 9, 16)
N, M = size_of(A), size_of(B)


def value(size: Any, a: int, b: int) -> int:
    return size.at({A: a, B: b}) if isinstance(size, Size) else size


expressions = st.recursive(
    st.one_of(st.just(N), st.just(M), st.integers(-4, 9)),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda row: {"+": row[1] + row[2], "-": row[1] - row[2], "*": row[1] * row[2]}[row[0]]
    ),
    max_leaves=5,
)


@given(expressions, expressions, st.integers(5, 8), st.integers(9, 16))
def test_arithmetic_is_that_of_the_numbers(x: Any, y: Any, a: int, b: int) -> None:
    p, q = value(x, a, b), value(y, a, b)
    assert value(x + y, a, b) == p + q
    assert value(x - y, a, b) == p - q
    assert value(x * y, a, b) == p * q
    assert value(-x, a, b) == -p
    assert (x + y) - y == x
    low, high = x.bounds() if isinstance(x, Size) else (x, x)
    assert low <= p <= high


@given(expressions, expressions, st.integers(5, 8), st.integers(9, 16))
def test_what_is_decided_holds_for_every_number(x: Any, y: Any, a: int, b: int) -> None:
    p, q = value(x, a, b), value(y, a, b)
    for found, want in (
        (lambda: x < y, p < q),
        (lambda: x <= y, p <= q),
        (lambda: x > y, p > q),
        (lambda: x >= y, p >= q),
    ):
        try:
            assert found() is want
        except SizeError:
            assert isinstance(x, Size) or isinstance(y, Size)
    if isinstance(x, Size) and (equal := x.equals(y)) is not None:
        assert equal is (p == q)


@given(expressions, st.integers(1, 5), st.integers(5, 8), st.integers(9, 16))
def test_division_is_exact_or_refused(x: Any, k: int, a: int, b: int) -> None:
    try:
        quotient, rest = divmod(x, k)
    except SizeError:
        return
    assert (value(quotient, a, b), value(rest, a, b)) == divmod(value(x, a, b), k)


def test_division_by_a_size() -> None:
    assert (N * M * 3) // N == M * 3
    assert (N * 6) // (N * 2) == 3
    assert (N * 6 + 1) % N == 1
    assert -(-(N - 1) // 1) == N - 1
    assert divmod(3, N) == (0, 3)
    assert divmod(2, N - 1) == (0, 2)
    assert ((N + 2) * (N + 2)) // (N + 2) == N + 2
    assert divmod((N + 2) * (3 * M - 1) + 2, 3 * M - 1) == (N + 2, 2)
    for wrong in (lambda: N // 2, lambda: M // N, lambda: (N + M) // N):
        with pytest.raises(SizeError, match=r"needs the number"):
            wrong()
    with pytest.raises(SizeError):
        N // 0


def test_a_size_without_a_length_is_an_int() -> None:
    assert type(N - N) is int
    assert type((N * 4) // N) is int
    assert size_of(Length("x", 7, 7)) == 7
    assert sum((N, 1, M)) == N + M + 1
    assert prod((2, N, M)) == 2 * N * M


def test_equality_within_the_range() -> None:
    assert N != 4
    assert N != 9
    assert N != 1
    assert N != M
    assert N == N + 0
    with pytest.raises(SizeError, match=r"whether x\.shape\[0\] equals 7 .* from 5 to 8"):
        assert N != 7
    assert N.equals(7) is None
    assert N.equals(7.0) is None
    assert N.equals(7.5) is False
    with pytest.raises(SizeError, match=r"whether x\.shape\[0\]-4 equals 1 .* from 5 to 8"):
        assert N - 4 != 1
    assert (N, 3) in {(N, 3): 1}


def test_order_that_no_range_decides() -> None:
    assert N > 4
    assert N <= 8
    assert N < M
    with pytest.raises(SizeError, match=r"whether x\.shape\[0\] is less than 7"):
        assert N < 7


@pytest.mark.parametrize("use", [int, float, range, [1].__mul__, bytes, "%d".__mod__])
def test_the_number_itself_is_refused(use: Any) -> None:
    with pytest.raises(SizeError, match=r"needs the number that x\.shape\[0\] is"):
        use(N)


def test_an_open_question_is_answered_around_the_length_of_a_call() -> None:
    with pytest.raises(SizeError) as caught:
        assert 2 * M - 1 > 23
    question = caught.value.open
    assert question.range_around({B: 14}) == Length("y.shape[1]", 13, 16)
    assert question.range_around({B: 12}) == Length("y.shape[1]", 9, 12)
    with pytest.raises(SizeError) as caught:
        assert N == 6
    parts = [caught.value.open.range_around({A: n}) for n in (5, 6, 7, 8)]
    assert [(x.low, x.high) for x in parts] == [(5, 5), (6, 6), (7, 8), (7, 8)]
    with pytest.raises(SizeError) as caught:
        assert N + M > 20
    assert caught.value.open.range_around({A: 5, B: 9}) == Length("y.shape[1]", 9, 9)


def test_shapes_of_other_ranks_ask_nothing() -> None:
    assert not same_shape((N, 6), (6,))
    assert same_shape((N, 6), (N, 6))
    with pytest.raises(SizeError):
        same_shape((N, 6), (6, 6))


def test_types_tell_lengths_and_numbers_apart() -> None:
    type = TensorType(float32, (N, 3))
    assert type != TensorType(float32, (9, 3))
    assert type == TensorType(float32, (N, 3))
    assert type.size == 3 * N
    assert str(type) == "f32[x.shape[0],3]"
    assert plain(type.shape, lambda size: size.padded) == (8, 3)
    assert has_size(type.shape)
    assert not has_size((7, 3))
    assert str(2 * N * M - N + 1) == "2*x.shape[0]*y.shape[1]-x.shape[0]+1"
