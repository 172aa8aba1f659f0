"""Weights of other libraries: names and axes brought into the form of a module's own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from einkorn.convert import to_array
from einkorn.ir.dtypes import as_dtype
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import load_leaves, read_file
from einkorn.recording import Value

Array = np.ndarray[Any, Any]

MSG_TWICE = (
    "{what}: {first!r} and {second!r} of the source both become {path!r}; make the rules of "
    "rename= tell them apart, or ignore= one"
)
MSG_PATTERNS = "{what}: {option}= takes patterns of names, which are text, got {given!r}"
MSG_UNUSED = (
    "{what}: {pattern!r} of transpose= fits no path that the source leads to; {known}; patterns "
    "are those of this module's paths, after rename="
)
MSG_RANGE = (
    "{what}: {name!r} holds finite values that {dtype} cannot hold; scale or clip them first"
)
MSG_RENAME = (
    "{what}: rename= is a dict or a list of pairs of a regular expression and its replacement, or "
    "a function of a name; got {given!r}"
)
MSG_AXES = "{what}: {path!r} has shape {shape} in the source, whose axes cannot be ordered {axes}"
MSG_SHAPE = "{what}: {path!r} holds {own}, but {name!r} has shape {shape}{hint}"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        loaded: the path of each parameter or buffer that was written, and its name in the source.
        transposed: the paths whose axes were put in another order.
        cast: the paths whose values got another dtype.
        missing: the paths that got nothing.
        unexpected: the names of the source that lead nowhere.
        ignored: the names that were left out by `ignore=`.
    """

    loaded: dict[str, str]
    transposed: list[str]
    cast: list[str]
    missing: list[str]
    unexpected: list[str]
    ignored: list[str]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded, {len(self.transposed)} of them transposed"]
        lines += [f"  {path} <- {name}" for path, name in self.loaded.items()]
        for kind in ("cast", "missing", "unexpected", "ignored"):
            names = getattr(self, kind)
            if names:
                lines.append(f"{len(names)} {kind}: {', '.join(names)}")
        return "\n".join(lines)


def import_weights(
    what: str,
    leaves: Mapping[str, Leaf],
    source: Any,
    *,
    rename: Any,
    transpose: Any,
    ignore: Any,
    strict: bool,
    shared: Callable[[str], Leaf | None],
) -> ImportReport:
    """Copy arrays into leaves by rules; see `Module.import_weights`.

    Args:
        what: who asks, for errors.
        leaves: by key, with "." between its parts.
        source: arrays by name, or a file.
        rename: rules for names.
        transpose: rules for axes.
        ignore: patterns of names to leave out.
        strict: refuse unknown and missing keys.
        shared: the leaf behind a key that is not among `leaves`.
    """
    given = _read(what, source)
    skipped = _patterns(what, "ignore", ignore)
    ignored = [x for x in given if any(fnmatchcase(x, p) for p in skipped)]
    names = _renamed(what, _rules(what, rename), [x for x in given if x not in ignored])
    orders = _orders(what, transpose, names)
    values = {key: _array(what, given[name], name) for key, name in names.items()}
    transposed: list[str] = []
    cast: list[str] = []
    for key, name in names.items():
        leaf, path = leaves[key] if key in leaves else shared(key), _path(key)
        if leaf is None:
            continue
        array = values[key]
        if key in orders:
            array = _transposed(what, path, array, orders[key])
            transposed.append(path)
        _check_shape(what, path, leaf, name, array)
        if as_dtype(array.dtype) is not leaf.dtype and as_dtype(array.dtype).is_float:
            if leaf.dtype.is_float:
                array = _cast(what, leaf, name, array)
                cast.append(path)
        values[key] = array
    result = load_leaves(what, leaves, values, strict, shared, names)
    loaded = {_path(key): name for key, name in names.items() if key not in result.unknown}
    missing = [_path(key) for key in result.missing]
    unexpected = [names[key] for key in result.unknown]
    return ImportReport(loaded, transposed, cast, missing, unexpected, ignored)


def _path(key: str) -> str:
    return key.replace(".", "/")


def _read(what: str, source: Any) -> Mapping[str, Any]:
    if isinstance(source, (str, os.PathLike)):
        return read_file(source)
    if not isinstance(source, Mapping):
        raise EinkornError(
            f"{what} needs a dict of arrays or the path of a safetensors file, got "
            f"{type(source).__name__}"
        )
    for name in source:
        if not isinstance(name, str):
            raise EinkornError(f"{what}: names of the source are text, got {name!r}")
    return source


def _array(what: str, value: Any, name: str) -> Array:
    """An array of what another library gives."""
    if not isinstance(value, Value) and hasattr(value, "detach"):  # a tensor of PyTorch
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):  # which NumPy lacks; float32 holds the same values
            value = value.float()
    return to_array(np.asarray(value), what=f"{what}: {name}")


def _cast(what: str, leaf: Leaf, name: str, array: Array) -> Array:
    with np.errstate(over="ignore"):
        found = array.astype(leaf.dtype.numpy)
    if not np.array_equal(np.isfinite(found), np.isfinite(array)):
        raise DTypeError(MSG_RANGE.format(what=what, name=name, dtype=leaf.dtype))
    return found


def _patterns(what: str, option: str, given: Any) -> list[str]:
    """The patterns of an option: one, several, or the keys of a dict."""
    found: list[Any] = [given] if isinstance(given, str) else []
    if not found and isinstance(given, Iterable):
        found = list(given)
    elif not found:
        found = [given]
    if not all(isinstance(pattern, str) for pattern in found):
        raise EinkornError(MSG_PATTERNS.format(what=what, option=option, given=given))
    return found


def _rules(what: str, rename: Any) -> Callable[[str], Any]:
    if callable(rename):
        return rename
    pairs = rename.items() if isinstance(rename, Mapping) else rename
    rules: list[tuple[re.Pattern[str], str]] = []
    try:
        for pattern, replacement in pairs:
            rules.append((re.compile(pattern), str(replacement)))
    except (TypeError, ValueError, re.error):
        raise EinkornError(MSG_RENAME.format(what=what, given=rename)) from None

    def apply(name: str) -> str:
        for pattern, replacement in rules:
            name = pattern.sub(replacement, name)
        return name

    return apply


def _renamed(what: str, renamed: Callable[[str], Any], given: Iterable[str]) -> dict[str, str]:
    """The names of the source by the keys that they become."""
    names: dict[str, str] = {}
    for name in given:
        key = _key(what, renamed, name)
        if key in names:
            text = MSG_TWICE.format(what=what, first=names[key], second=name, path=_path(key))
            raise StateError(text)
        names[key] = name
    return names


def _key(what: str, renamed: Callable[[str], Any], name: str) -> str:
    try:
        key = renamed(name)
    except (re.error, IndexError):
        raise EinkornError(
            f"{what}: a replacement of rename= cannot be applied to {name!r}"
        ) from None
    if not isinstance(key, str) or not key:
        raise EinkornError(f"{what}: rename= makes {key!r} of {name!r}; a path is text")
    return key.replace("/", ".")


def _orders(what: str, transpose: Any, keys: Iterable[str]) -> dict[str, Any]:
    """The new order of the axes of some keys; () for reversed. Every pattern has to fit one."""
    patterns = _patterns(what, "transpose", transpose)
    paths = {key: _path(key) for key in keys}
    found: dict[str, Any] = {}
    for pattern in patterns:
        fitting = [key for key, path in paths.items() if fnmatchcase(path, pattern)]
        if not fitting:
            near = difflib.get_close_matches(pattern, paths.values(), n=3)
            known = f"did you mean {' or '.join(near)}?" if near else f"such as {_some(paths)}"
            raise EinkornError(MSG_UNUSED.format(what=what, pattern=pattern, known=known))
        axes = transpose[pattern] if isinstance(transpose, Mapping) else ()
        found.update((key, axes) for key in fitting if key not in found)
    return {key: axes for key, axes in found.items() if axes is not None}


def _some(paths: Mapping[str, str]) -> str:
    return ", ".join(list(paths.values())[:8])


def _transposed(what: str, path: str, array: Array, axes: Any) -> Array:
    try:
        order = tuple(axes) or tuple(reversed(range(array.ndim)))
        return np.ascontiguousarray(np.transpose(array, order))
    except (TypeError, ValueError):
        message = MSG_AXES.format(what=what, path=path, shape=array.shape, axes=axes)
        raise ShapeError(message) from None


def _check_shape(what: str, path: str, leaf: Leaf, name: str, array: Array) -> None:
    if array.shape == leaf.shape:
        return
    hint = "; give the shape of the other model, or ignore= this name"
    if array.shape[::-1] == leaf.shape:
        hint = f"; its axes are the other way round: transpose=[{path!r}]"
    elif sorted(array.shape) == sorted(leaf.shape):
        hint = f"; its axes have another order: transpose={{{path!r}: (...)}}"
    raise ShapeError(
        MSG_SHAPE.format(
            what=what, path=path, own=leaf._type, name=name, shape=array.shape, hint=hint
        )
    )
