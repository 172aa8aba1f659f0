"""Whether lists and dicts hold what a trace saw in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.same import kept_contents, unchanged


class AlwaysEqual:
    """Compares as equal, and as an error, to anything else."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __eq__(self, other: object) -> Any:
        if self._answer is None:
            raise ValueError("not comparable")
        return self._answer

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("new", [ek.nn.Linear(3, 3), np.ones(3), ek.tensor([1.0, 2.0]), 1.0, "a"])
def test_items_that_compare_in_their_own_way_are_other_items(new: Any) -> None:
    old: list[Any] = [ek.nn.Identity(), "a", None]
    items = kept_contents(old)
    assert unchanged(old, items)
    for place in range(3):
        now = list(old)
        now[place] = new
        assert unchanged(now, items) == (new == "a" if place == 1 and type(new) is str else False)
    assert not unchanged(old[:2], items)
    assert not unchanged([AlwaysEqual(None), "a", None], items)


def test_numbers_in_lists_are_compared_by_type_and_bits() -> None:
    for then, now in ((1, True), (1, 1.0), (0.0, -0.0)):
        assert not unchanged([now], kept_contents([then]))
    assert unchanged([float("nan")], kept_contents([float("nan")]))
