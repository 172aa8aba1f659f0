"""Counters by which changes are announced to compiled functions, which then look again."""

from __future__ import annotations

import itertools

_numbers = itertools.count(1)


class Epochs:
    """Numbers that are other ones after each change.

    Attributes:
        structure: of something that traces saw in a module, optimizer or leaf; each trace then
            looks whether what it saw is as it was (`einkorn.seen`).
        modules: of what any module holds, and of which leaves are trained.
        settings: of a setting or mode that is not a float before and after.
    """

    __slots__ = ("modules", "settings", "structure")

    def __init__(self) -> None:
        self.modules = self.settings = self.structure = 0


EPOCHS = Epochs()


def structure_changed() -> None:
    """Tell compiled functions that something they saw may be different: they look at it again."""
    EPOCHS.structure = next(_numbers)


def modules_changed() -> None:
    """Note that what a module holds was changed, or which leaves are trained."""
    EPOCHS.modules = next(_numbers)


def settings_changed() -> None:
    """Tell compiled functions that a setting or mode was changed: they check those they read."""
    EPOCHS.settings = next(_numbers)
