"""Counters by which changes are announced to compiled functions, which then look again."""

from __future__ import annotations

import itertools

_numbers = itertools.count(1)


class Epochs:
    """Numbers that are other ones after each change.

    Attributes:
        structure: of a module, optimizer or leaf that traces read; they are made anew.
        settings: of a setting or mode that is not a float before and after.
    """

    __slots__ = ("settings", "structure")

    def __init__(self) -> None:
        self.settings = self.structure = 0


EPOCHS = Epochs()


def structure_changed() -> None:
    """Tell compiled functions that a module they read was changed: they look at it again."""
    EPOCHS.structure = next(_numbers)


def settings_changed() -> None:
    """Tell compiled functions that a setting or mode was changed: they check those they read."""
    EPOCHS.settings = next(_numbers)


def structure_epoch() -> int:
    """A number that changes whenever a module that was traced is changed."""
    return EPOCHS.structure
