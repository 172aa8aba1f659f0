"""Writes to several leaves at once: everything is checked before the first one changes."""

from __future__ import annotations

import difflib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from einkorn.ir.errors import EinkornError, StateError, TraceError
from einkorn.leaf import Leaf
from einkorn.recording import current_trace
from einkorn.snapshot import snapshot
from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

MSG_KEYS = "{what}: {details}; {remedy}"
REMEDY = "pass strict=False to take only what fits"
MSG_TRACED = (
    "{source} was to be read while {trace} was being traced; a compiled call would not read it "
    "again. Load outside of the compiled function"
)
MSG_CONFLICT = (
    "{what}: {first!r} and {second!r} are names of one shared leaf here, but differ in value; "
    "leave one of them out"
)
# So many keys are named in an error.
_SHOWN = 8


class LoadResult(NamedTuple):
    """What loading with `strict=False` left out."""

    missing: list[str]
    unknown: list[str]


def fitting(leaf: Leaf, value: Any, path: str) -> Tensor:
    """The value as a Tensor of the leaf's type; an error names the path."""
    try:
        return leaf._checked(value, traced=current_trace.get() is not None)
    except EinkornError as error:
        raise type(error)(f"{path!r}: {error}") from None


def write_all(items: Iterable[tuple[Leaf, Any, str]]) -> None:
    """Copy values into leaves, named by a path; the values may be the leaves themselves."""
    checked = [(leaf, snapshot(fitting(leaf, value, path))) for leaf, value, path in items]
    for leaf, value in checked:
        leaf.value = value


def load_leaves(
    what: str,
    leaves: Mapping[str, Leaf],
    values: Mapping[str, Any],
    strict: bool,
    shared: Callable[[str], Leaf | None] = lambda key: None,
    sources: Mapping[str, str] | None = None,
    remedy: str = REMEDY,
) -> LoadResult:
    """Copy named values into leaves.

    Args:
        what: who asks, for errors.
        leaves: by key.
        values: by the same keys, or by other names of shared leaves; equal ones if by several.
        strict: refuse unknown and missing keys; otherwise they are returned.
        shared: the leaf behind a key that is not among `leaves`.
        sources: what users call the values of keys, where that is something else.
        remedy: what to do about unknown and missing keys, for errors.
    """
    if not isinstance(values, Mapping):
        raise EinkornError(f"{what} needs a dict of arrays, got {type(values).__name__}")
    for key in values:
        if not isinstance(key, str):
            raise EinkornError(f"{what}: keys are paths such as 'hidden.w', got {key!r}")
    chosen: dict[Leaf, str] = {}
    unknown: list[str] = []
    for key in values:
        leaf = leaves[key] if key in leaves else shared(key)
        if leaf is None:
            unknown.append(key)
        elif leaf not in chosen:
            chosen[leaf] = key
        elif not _same(values[key], values[chosen[leaf]]):
            raise StateError(MSG_CONFLICT.format(what=what, first=chosen[leaf], second=key))
    missing = [key for key, leaf in leaves.items() if leaf not in chosen]
    if strict and (unknown or missing):
        details = _details(unknown, missing, sources or {})
        raise StateError(MSG_KEYS.format(what=what, details=details, remedy=remedy))
    write_all((leaf, values[key], key) for leaf, key in chosen.items())
    return LoadResult(missing, unknown)


def _same(a: Any, b: Any) -> bool:
    """Whether two values of one leaf are known to be equal; NaNs are."""
    if a is b:
        return True
    if current_trace.get() is not None:
        return False
    x, y = np.asarray(a), np.asarray(b)
    return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def _details(unknown: list[str], missing: list[str], sources: Mapping[str, str]) -> str:
    parts: list[str] = []
    if unknown:
        texts: list[str] = []
        for key in unknown[:_SHOWN]:
            close = difflib.get_close_matches(key, missing, n=1)
            name = sources.get(key, key)
            notes = [f"renamed {key!r}"] * (name != key) + [f"perhaps {x!r}" for x in close]
            texts.append(f"{name!r} ({', '.join(notes)})" if notes else repr(name))
        parts.append(f"{_count(unknown, 'unknown')} {', '.join(texts)}")
    if missing:
        parts.append(f"{_count(missing, 'missing')} {', '.join(map(repr, missing[:_SHOWN]))}")
    return "; ".join(parts)


def _count(keys: list[str], kind: str) -> str:
    if len(keys) > _SHOWN:
        return f"{len(keys)} {kind} keys, such as"
    return f"{kind} key{'s' if len(keys) > 1 else ''}"


# -- files -----------------------------------------------------------------------------------------


def write_file(path: Any, values: dict[str, Array], metadata: dict[str, str] | None = None) -> None:
    """Write arrays and text to a safetensors file; an old one stays until the end."""
    from safetensors.numpy import save  # loaded on first use: `import einkorn` stays quick

    target = os.path.realpath(_as_path("save", path))
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):  # the name of the temporary file would be no help
        raise FileNotFoundError(errno.ENOENT, "save: there is no such folder", folder)
    data = save(values, metadata)
    temporary = f"{target}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:  # with the permissions of a new file
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def read_file(path: Any) -> dict[str, Array]:
    """The arrays of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    source = _as_path("load", path)
    _check_not_traced(source)
    with open(source, "rb"):  # what Python says when there is no such file
        pass
    try:
        return load_file(source)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StateError(f"{source} is not a safetensors file that can be read: {error}") from None


def read_text(path: Any) -> dict[str, str]:
    """The text that stands in a safetensors file beside its arrays."""
    from safetensors import SafetensorError, safe_open

    source = _as_path("load", path)
    _check_not_traced(source)
    with open(source, "rb"):  # what Python says when there is no such file
        pass
    try:
        with safe_open(source, "numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise StateError(f"{source} is not a safetensors file that can be read: {error}") from None


def _check_not_traced(source: str) -> None:
    trace = current_trace.get()
    if trace is not None:
        raise TraceError(MSG_TRACED.format(source=source, trace=trace.name))


def _as_path(what: str, path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise EinkornError(f"{what} needs the path of a file, got {path!r}") from None
