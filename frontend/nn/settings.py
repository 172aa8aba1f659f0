"""Settings of layers: numbers that compiled steps read at each call, and checks of the others."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from einkorn.functions.spatial import FIRST, LAST
from einkorn.ir.errors import EinkornError
from einkorn.tunable import Tunable, is_number


class Number(Tunable):
    """A number that compiled steps read at each call."""

    def __set__(self, instance: Any, value: Any) -> None:
        if not is_number(value):
            name = type(instance).__name__
            raise EinkornError(f"{name}: {self.name} is a number, got {value!r}")
        super().__set__(instance, float(value))


class Rate(Tunable):
    """A probability below 1; a new one takes effect in compiled steps at once.

    0 is kept as an integer, which is a condition of a trace: nothing is drawn for it.
    """

    def __set__(self, instance: Any, value: Any) -> None:
        if not is_number(value) or not 0 <= value < 1:
            name = type(instance).__name__
            raise EinkornError(f"{name}: {self.name} is a number in [0, 1), got {value!r}")
        super().__set__(instance, float(value) or 0)


def check_size(layer: str, name: str, value: Any, least: int = 1) -> int:
    """A size given to a layer: an integer of at least 1."""
    try:
        size = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = least - 1
    if size < least:
        raise EinkornError(f"{layer}: {name} is an integer of at least {least}, got {value!r}")
    return size


def check_sizes(layer: str, name: str, value: Any, count: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each of `count` axes, given as one for all or one for each."""
    if not isinstance(value, (tuple, list)):
        return (check_size(layer, name, value, least),) * count
    if len(value) != count:
        raise EinkornError(
            f"{layer}: {name} is one integer or one for each of {count} axes, got {value!r}"
        )
    return tuple(check_size(layer, name, n, least) for n in value)


def check_flag(layer: str, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise EinkornError(f"{layer}: {name} is True or False, got {value!r}")
    return value


def check_number(layer: str, name: str, value: Any, least: float | None = None) -> float:
    """A number that is, if wanted, not below `least`."""
    if not is_number(value) or not (least is None or value >= least):
        rule = "a number" if least is None else f"a number of at least {least:g}"
        raise EinkornError(f"{layer}: {name} is {rule}, got {value!r}")
    return float(value)


def check_axis(layer: str, value: Any) -> int:
    """An axis, which may be negative."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise EinkornError(f"{layer}: an axis is an integer, got {value!r}")
    return value


def check_word(layer: str, name: str, value: Any, words: Sequence[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in words:
        listed = " or ".join(map(repr, words))
        raise EinkornError(f"{layer}: {name} is {listed}, got {value!r}")
    return value


def check_data_format(layer: str, value: Any) -> bool:
    """Whether a data format has channels last."""
    return check_word(layer, "data_format", value, (*LAST, *FIRST)) in LAST
