"""Groups of parameters: settings of their own for the parameters whose path fits a pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from einkorn.ir.errors import EinkornError
from einkorn.watched import note_birth

if TYPE_CHECKING:
    from einkorn.optim.base import Optimizer

MSG_GROUPS = (
    "{name}: groups is a dict of a pattern and settings, such as "
    '{{"*/b": {{"weight_decay": 0.0}}}}, got {found!r}'
)
MSG_PATTERN = "{name}: no parameter fits the pattern {pattern!r} of groups; there are {known}"
MSG_WHOLE = "{name}: {setting} is a setting of the whole optimizer, not of the group {pattern!r}"


def made_groups(whole: Optimizer, groups: Any, paths: Iterable[str]) -> dict[str, Optimizer]:
    """One stand-in of the optimizer for each pattern, with the settings that the group has."""
    name, known = type(whole).__name__, list(paths)
    if not isinstance(groups, Mapping):
        raise EinkornError(MSG_GROUPS.format(name=name, found=groups))
    made: dict[str, Optimizer] = {}
    for pattern, settings in groups.items():
        if not isinstance(pattern, str) or not isinstance(settings, Mapping):
            raise EinkornError(MSG_GROUPS.format(name=name, found={pattern: settings}))
        if not any(fnmatchcase(path, pattern) for path in known):
            raise EinkornError(
                MSG_PATTERN.format(name=name, pattern=pattern, known=", ".join(known[:8]))
            )
        made[pattern] = _group(whole, pattern, settings)
    return made


def _group(whole: Optimizer, pattern: str, settings: Mapping[str, Any]) -> Optimizer:
    """An optimizer of the same class that looks for what it does not have in `whole`."""
    group: Any = whole.__new__(type(whole))
    note_birth(group)
    vars(group).update(_whole=whole, _ek_complete=True)
    for setting, value in settings.items():
        if setting in whole.of_the_whole:
            raise EinkornError(
                MSG_WHOLE.format(name=type(whole).__name__, setting=setting, pattern=pattern)
            )
        if setting not in whole._settings() and setting not in whole.__dict__:
            raise EinkornError(whole._unknown_setting(setting))
        setattr(group, setting, value)
    return group


def group_of(whole: Optimizer, groups: Mapping[str, Optimizer], path: str) -> Optimizer:
    """The group of the first pattern that fits a path, else the whole optimizer."""
    return next((x for pattern, x in groups.items() if fnmatchcase(path, pattern)), whole)
