"""Whether Containers are alike, where they differ, and whether one is part of another.

These methods take several Containers, also without a first one: `c.diff(d)`,
`Container.diff(c, d)` and `Container.diff([c, d])` are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.container.base import Nest, difference, is_array, several
from einkorn.ir.errors import EinkornError, StateError

Same = Callable[[Any, Any], bool]


class Comparing(Nest):
    """Methods that compare Containers."""

    __slots__ = ()

    def identical(*containers: Any, partial: bool = False) -> bool:
        """Whether keys, shapes, dtypes and values are the same; a NaN is the same as a NaN.

        Args:
            partial: whether the first may have ends that the others lack.
        """
        return not _mismatch(several(containers, "identical"), same_value, partial)

    def identical_structure(
        *containers: Any, check_shapes: bool = True, partial: bool = False
    ) -> bool:
        """Whether keys are the same and, unless told otherwise, shapes."""
        found = several(containers, "identical_structure")
        return not _mismatch(found, same_shape if check_shapes else _always, partial)

    def assert_identical(*containers: Any, partial: bool = False) -> None:
        """StateError naming the first end that is not the same."""
        found = _mismatch(several(containers, "assert_identical"), same_value, partial)
        if found:
            raise StateError(f"the Containers differ at {found}")

    def assert_identical_structure(
        *containers: Any, check_shapes: bool = True, partial: bool = False
    ) -> None:
        """StateError naming the first key chain that is not the same."""
        several_ = several(containers, "assert_identical_structure")
        found = _mismatch(several_, same_shape if check_shapes else _always, partial)
        if found:
            raise StateError(f"the structures differ at {found}")

    def diff(*containers: Any, mode: str = "all", diff_keys: str = "diff") -> Any:
        """A Container of what differs, under `diff_0`, `diff_1`, ..., and of what is the same.

        Args:
            mode: "all", "same_only" or "diff_only".
            diff_keys: what the keys of differing values start with.
        """
        return _checked_diff(several(containers, "diff"), mode, diff_keys, same_value)

    def structural_diff(*containers: Any, mode: str = "all", diff_keys: str = "diff") -> Any:
        """The same as `diff` by keys and shapes alone."""
        found = several(containers, "structural_diff")
        return _checked_diff(found, mode, diff_keys, same_shape)

    def find_sub_container(self, sub: Any, partial: bool = False) -> str | None:
        """The key chain of a Container inside that is identical to `sub`, "" for this one, or None.

        Args:
            partial: whether the one inside may have more ends than `sub`.
        """
        return _found(self, sub, same_value, partial)

    def contains_sub_container(self, sub: Any, partial: bool = False) -> bool:
        """Whether `sub` is identical to this Container or to one inside."""
        return self.find_sub_container(sub, partial) is not None

    def find_sub_structure(
        self, sub: Any, check_shapes: bool = True, partial: bool = False
    ) -> str | None:
        """The key chain of a Container inside that has the structure of `sub`, or None."""
        return _found(self, sub, same_shape if check_shapes else _always, partial)

    def contains_sub_structure(
        self, sub: Any, check_shapes: bool = True, partial: bool = False
    ) -> bool:
        """Whether this Container or one inside has the structure of `sub`."""
        return self.find_sub_structure(sub, check_shapes, partial) is not None


def same_value(a: Any, b: Any) -> bool:
    """Whether two ends have the same type and value."""
    if not (is_array(a) and is_array(b)):
        return type(a) is type(b) and bool(a == b)
    if not same_shape(a, b) or str(a.dtype) != str(b.dtype):
        return False
    x, y = np.asarray(a), np.asarray(b)
    return bool(np.all((x == y) | ((x != x) & (y != y))))


def same_shape(a: Any, b: Any) -> bool:
    """Whether two ends have the same shape, or neither has one."""
    if is_array(a) and is_array(b):
        return tuple(a.shape) == tuple(b.shape)
    return is_array(a) == is_array(b)


def _always(a: Any, b: Any) -> bool:
    return True


def _mismatch(containers: list[Any], same: Same, partial: bool) -> str:
    """Where the first end is that differs from that of the first Container, or nothing."""
    first, *others = containers
    for other in others:
        whole = first.at_key_chains(p for p in other.key_chains() if p in first)
        found = difference(whole if partial else first, other)
        if found:
            return found
        for path, value in other.flat_items():
            if not same(first[path], value):
                return f"{path!r}"
    return ""


def _found(container: Nest, sub: Any, same: Same, partial: bool) -> str | None:
    _, wanted = several((container, sub), "find_sub_container")
    for path, nest in container.nests():
        if not _mismatch([nest, wanted], same, partial):
            return path
    return None


def _checked_diff(containers: list[Any], mode: str, diff_keys: str, same: Same) -> Any:
    if mode not in ("all", "same_only", "diff_only"):
        raise EinkornError(f"mode is 'all', 'same_only' or 'diff_only', got {mode!r}")
    return _diff(containers, mode, diff_keys, same)


def _diff(containers: list[Any], mode: str, diff_keys: str, same: Same) -> Any:
    new = containers[0]._empty()
    for key in dict.fromkeys(key for c in containers for key in c):
        held = {k: c[key] for k, c in enumerate(containers) if dict.__contains__(c, key)}
        values = list(held.values())
        everywhere = len(held) == len(containers)
        if everywhere and all(isinstance(x, Nest) for x in values):
            part = _diff(values, mode, diff_keys, same)
            if part or not values[0]:
                dict.__setitem__(new, key, part)
        elif (
            everywhere
            and not any(isinstance(x, Nest) for x in values)
            and all(same(values[0], x) for x in values[1:])
        ):
            if mode != "diff_only":
                dict.__setitem__(new, key, values[0])
        elif mode != "same_only":
            parts = ((f"{diff_keys}_{k}", x) for k, x in held.items())
            dict.__setitem__(new, key, new._from_paths(parts))
    return new
