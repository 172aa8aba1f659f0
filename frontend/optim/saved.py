"""What an optimizer saves: its state, its settings, and the state of what belongs to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import REMEDY, LoadResult, load_leaves

if TYPE_CHECKING:
    from einkorn.optim.base import Optimizer

PREFIX = "settings."


class Setting(NamedTuple):
    """A float setting and the optimizer or group that has it."""

    owner: Optimizer
    name: str
    value: float


def saved_leaves(optimizer: Optimizer) -> dict[str, Leaf]:
    """By key: slots and count, the leaves of learning rates, the average of the parameters."""
    found = {path.replace("/", "."): leaf for path, leaf in optimizer.state.flat_items()}
    for prefix, owner in _owners(optimizer):
        found.update(_leaves_of_rate(f"{prefix}lr", owner.__dict__.get("lr")))
    if optimizer.ema is not None:
        found.update({f"ema.{key}": leaf for key, leaf in optimizer.ema.leaves().items()})
    return found


def _leaves_of_rate(key: str, lr: Any) -> dict[str, Leaf]:
    if isinstance(lr, Leaf):
        return {key: lr}
    leaves: Mapping[str, Leaf] = lr.leaves() if hasattr(lr, "leaves") else {}
    return {f"{key}.{name}": leaf for name, leaf in leaves.items()}


def saved_settings(optimizer: Optimizer) -> dict[str, Setting]:
    """By key: the settings that are floats, of the optimizer and of its groups."""
    return {
        f"{prefix}{name}": Setting(owner, name, value)
        for prefix, owner in _owners(optimizer)
        for name in optimizer._settings()
        if type(value := owner.__dict__.get(name)) is float
    }


def _owners(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    yield PREFIX, optimizer
    for pattern, group in optimizer.groups.items():
        yield f"{PREFIX}{pattern}.", group


def load_settings(
    what: str, optimizer: Optimizer, values: Mapping[str, Any], strict: bool
) -> LoadResult:
    """Copy in leaves and settings: everything is checked before the first one changes."""
    if not isinstance(values, Mapping):
        raise EinkornError(f"{what} needs a dict of arrays, got {type(values).__name__}")
    settings, rest = checked_settings(what, optimizer, values, strict)
    result = load_leaves(what, saved_leaves(optimizer), rest, strict)
    apply_settings(settings)
    return result


def checked_settings(
    what: str,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    strict: bool,
    remedy: str = REMEDY,
) -> tuple[list[Setting], dict[str, Any]]:
    """The settings among values, checked; and the other values, which are those of leaves."""
    known = saved_settings(optimizer)
    chosen = {key: values[key] for key in values if key in known}
    settings = [
        known[key]._replace(value=_number(what, known[key], key, x)) for key, x in chosen.items()
    ]
    rest = {key: x for key, x in values.items() if key not in known}
    if strict:
        _refuse_unknown(what, rest, optimizer, known, remedy)
    return settings, rest


def apply_settings(settings: Iterable[Setting]) -> None:
    """Give optimizers and groups these settings."""
    for setting in settings:
        setattr(setting.owner, setting.name, setting.value)


def _number(what: str, setting: Setting, key: str, value: Any) -> float:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "fiu":
        raise StateError(f"{what}: {key!r} is one number, got {array.dtype} of shape {array.shape}")
    return getattr(type(setting.owner), setting.name).checked(setting.owner, array.item())


def _refuse_unknown(
    what: str,
    values: Mapping[str, Any],
    optimizer: Optimizer,
    known: Mapping[str, Setting],
    remedy: str,
) -> None:
    """A setting that this optimizer has as something else, or not at all."""
    leaves = saved_leaves(optimizer)
    for key in values:
        if isinstance(key, str) and key.startswith(PREFIX) and key not in leaves:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (perhaps {close[0]!r})" if close else ""
            raise StateError(
                f"{what}: {key!r} is no number that this optimizer has{hint}; {remedy}"
            )
