"""Weights of other libraries: names and axes brought into the form of a module's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from einkorn.convert import to_array
from einkorn.ir.dtypes import as_dtype
from einkorn.ir.errors import EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import load_leaves, read_file
from einkorn.recording import Value

Array = np.ndarray[Any, Any]

MSG_TWICE = (
    "{what}: {first!r} and {second!r} of the source both become {path!r}; make the rules of "
    "rename= tell them apart, or ignore= one"
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
    renamed = _rules(what, rename)
    ignored = [x for x in given if any(fnmatchcase(x, p) for p in _listed(ignore))]
    names: dict[str, str] = {}
    for name in given:
        if name in ignored:
            continue
        key = _key(what, renamed, name)
        if key in names:
            path = key.replace(".", "/")
            first = names[key]
            raise StateError(MSG_TWICE.format(what=what, first=first, second=name, path=path))
        names[key] = name
    values: dict[str, Any] = {}
    transposed: list[str] = []
    cast: list[str] = []
    for key, name in names.items():
        leaf, path = leaves[key] if key in leaves else shared(key), key.replace(".", "/")
        array = _array(what, given[name], name)
        if leaf is not None:
            axes = _axes(transpose, path)
            if axes is not None:
                array = _transposed(what, path, array, axes)
                transposed.append(path)
            _check_shape(what, path, leaf, name, array)
            if as_dtype(array.dtype) is not leaf.dtype and as_dtype(array.dtype).is_float:
                if leaf.dtype.is_float:
                    array = array.astype(leaf.dtype.numpy)
                    cast.append(path)
        values[key] = array
    result = load_leaves(what, leaves, values, strict, shared)
    loaded = {
        key.replace(".", "/"): name for key, name in names.items() if key not in result.unknown
    }
    missing = [key.replace(".", "/") for key in result.missing]
    unexpected = [names[key] for key in result.unknown]
    return ImportReport(loaded, transposed, cast, missing, unexpected, ignored)


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
    return to_array(np.asarray(value), what=f"{what}: {name}")


def _listed(patterns: Any) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


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


def _axes(transpose: Any, path: str) -> Any:
    """The order of axes that the rules have for a path: None for none, () for reversed."""
    if isinstance(transpose, Mapping):
        return next((axes for p, axes in transpose.items() if fnmatchcase(path, p)), None)
    patterns: Iterable[str] = _listed(transpose)
    return () if any(fnmatchcase(path, p) for p in patterns) else None


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
