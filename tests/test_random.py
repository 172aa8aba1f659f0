"""The generator: reference words, the same draws in every mode, and the moments of draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einkorn as ek


def words(key: int, draw: int, n: int) -> np.ndarray:
    """Philox4x32-10 of one draw, computed with Python integers (Salmon et al., 2011)."""
    mask = (1 << 32) - 1
    found: list[int] = []
    for block in range(-(-n // 4)):
        c = [block & mask, block >> 32, draw & mask, draw >> 32]
        k = [key & mask, key >> 32]
        for _ in range(10):
            high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
            high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
            c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
            k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
        found.extend(c)
    return np.array(found[:n], np.uint32)


@pytest.mark.parametrize("n", [1, 4, 63, 64, 65, 1000])
def test_words_are_philox_of_key_draw_and_position(n: int) -> None:
    ek.random.seed(2**63 + 12345)
    first, second = ek.random.bits((n,)), ek.random.bits((n,))
    np.testing.assert_array_equal(np.asarray(first), words(2**63 + 12345, 0, n))
    np.testing.assert_array_equal(np.asarray(second), words(2**63 + 12345, 1, n))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.4, 0.6, 1 / 3])
def test_a_run_time_probability_draws_what_a_constant_draws(rate: float) -> None:
    """A rate rounded to float32 on the way moves about one element in 10 million."""
    draw = ek.compile(lambda p: ek.random.bernoulli(p, (1 << 22,)))
    for seed in range(4):
        ek.random.seed(seed)
        compiled = np.asarray(draw(rate))
        ek.random.seed(seed)
        np.testing.assert_array_equal(compiled, np.asarray(ek.random.bernoulli(rate, (1 << 22,))))


def test_compiled_and_eager_draws_advance_the_generator_alike() -> None:
    def step() -> ek.Tensor:
        return ek.random.normal((5,)) + ek.random.uniform((5,)) + ek.random.randint(0, 9, (5,))

    ek.random.seed(7)
    eager = [np.asarray(step()) for _ in range(4)]
    ek.random.seed(7)
    compiled = ek.compile(step)
    mixed = [np.asarray(compiled()), np.asarray(step()), np.asarray(compiled()), np.asarray(step())]
    for a, b in zip(eager, mixed):
        assert a.tobytes() == b.tobytes()
    assert len({a.tobytes() for a in eager}) == 4


def test_moments() -> None:
    ek.random.seed(1)
    n = 200_000
    uniform = np.asarray(ek.random.uniform((n,)))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    normal = np.asarray(ek.random.normal((n,), mean=2.0, std=3.0))
    assert abs(normal.mean() - 2) < 5 * 3 / np.sqrt(n)
    assert abs(normal.std() - 3) < 0.05
    whole = np.asarray(ek.random.randint(-3, 4, (n,)))
    assert set(np.unique(whole)) == set(range(-3, 4))
    assert abs(whole.mean()) < 5 * 2 / np.sqrt(n)
    wide = np.asarray(ek.random.uniform((n,), dtype="float64"))
    assert len(np.unique(wide)) == n


def test_explicit_keys_are_reproducible_and_independent() -> None:
    key = ek.random.key(3)
    a, b = ek.random.split(key)
    ek.random.seed(0)
    before = np.asarray(ek.random.uniform((4,)))
    x, y = (np.asarray(ek.random.uniform((1000,), key=k)) for k in (a, b))
    ek.random.seed(0)
    np.testing.assert_array_equal(before, np.asarray(ek.random.uniform((4,))))
    np.testing.assert_array_equal(x, np.asarray(ek.random.uniform((1000,), key=a)))
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15
    other = np.asarray(ek.random.uniform((1000,), key=ek.random.fold_in(a, 1)))
    assert not np.array_equal(x, other)


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, True, "1"])
def test_bad_seeds_are_refused(bad: object) -> None:
    with pytest.raises(ek.EinkornError, match="seed"):
        ek.random.seed(bad)  # type: ignore[arg-type] # on purpose


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ek.EinkornError, match="between 0 and 1"):
        ek.random.bernoulli(1.5)
    with pytest.raises(ek.EinkornError, match="low < high"):
        ek.random.randint(3, 3)
    with pytest.raises(ek.ShapeError, match="negative"):
        ek.random.uniform((-1,))
    with pytest.raises(ek.DTypeError, match="floating"):
        ek.random.normal((2,), dtype="int32")


def test_examples_of_a_batch_draw_as_each_does_alone() -> None:
    """Loops that reject go on for as long as one example needs, and change no other."""
    random, zero = ek.random, ek.asarray(np.uint64(0))

    def draws(word: Any, rate: Any) -> list[Any]:
        key = (word, zero)
        return [
            random.gamma(rate, (5,), key=key),
            random.beta(rate, 0.3, (2,), key=key),
            random.poisson(rate * 3, (5,), key=key),
            random.binomial(80, 0.3, (3,), key=key),
            random.multinomial(20, [0.2, 0.3, 0.5], key=key),
            random.randint(0, 100, (3,), key=key),
            random.categorical(np.zeros(4, "float32"), (5,), key=key),
            random.permutation(6, key=key),
            random.choice(6, (3,), replace=False, key=key),
            random.multivariate_normal([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]], key=key),
            ek.grad(lambda rate: random.gamma(rate, (5,), key=key).sum())(rate),
        ]

    words = ek.stack([word for word, _ in random.split(random.key(7), 3)])
    rates = np.array([0.5, 3.0, 40.0], "float32")
    alone = [draws(words[k], ek.asarray(rates[k])) for k in range(3)]
    for run in (ek.vmap(draws), ek.compile(ek.vmap(draws))):
        for k, got in enumerate(run(words, rates)):
            want = np.stack([np.asarray(row[k]) for row in alone])
            assert np.asarray(got).tobytes() == want.tobytes()
