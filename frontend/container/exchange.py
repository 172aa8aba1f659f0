"""Containers as lists, dicts, iterators, files; and what their ends have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np

from einkorn.container.base import Nest, is_array
from einkorn.container.text import text
from einkorn.convert import as_tensor
from einkorn.ir.errors import EinkornError
from einkorn.loading import read_file, write_file


class Exchange(Nest):
    """Methods that bring a Container into other forms, and properties of its ends."""

    __slots__ = ()

    # -- other forms ---------------------------------------------------------------------------

    def to_flat_list(self) -> list[Any]:
        """Every end, in order."""
        return [end for _, end in self.flat_items()]

    def from_flat_list(self, ends: Iterable[Any]) -> Self:
        """A Container of this structure with other ends, in order."""
        values = list(ends)
        if len(values) != len(self.key_chains()):
            raise EinkornError(
                f"from_flat_list needs {len(self.key_chains())} ends, got {len(values)}"
            )
        given = iter(values)
        return self.map(lambda _: next(given))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts of the same keys and ends."""
        return {k: x.to_dict() if isinstance(x, Exchange) else x for k, x in self.items()}

    def to_nested_list(self) -> list[Any]:
        """Lists of the ends, nested as they are here, without the keys."""
        return [x.to_nested_list() if isinstance(x, Exchange) else x for x in self.values()]

    def to_iterator(self) -> Iterator[tuple[str, Any]]:
        """The key chain and value of every end."""
        return self.flat_items()

    def to_iterator_keys(self) -> Iterator[str]:
        """The key chain of every end."""
        return (path for path, _ in self.flat_items())

    def to_iterator_values(self) -> Iterator[Any]:
        """The value of every end."""
        return (end for _, end in self.flat_items())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every end, which must be an array or a number, to a safetensors file."""
        write_file(path, {key: np.array(as_tensor(x, "save")) for key, x in self.flat_items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The Container that `save` wrote, with keys in alphabetical order."""
        values = read_file(path)
        return cls((key, as_tensor(values[key], "load")) for key in sorted(values))

    # -- the ends ------------------------------------------------------------------------------

    @property
    def max_depth(self) -> int:
        """How many keys the longest key chain has."""
        inner = (x.max_depth if isinstance(x, Exchange) else 0 for x in self.values())
        return 1 + max(inner) if self else 0

    @property
    def shapes(self) -> Self:
        """The shape of every array."""
        return self.map(lambda x: tuple(x.shape) if is_array(x) else None)

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """The shape of all arrays, None for sizes that differ; None when their ranks differ."""
        shapes = [tuple(x.shape) for x in self.to_flat_list() if is_array(x)]
        if len({len(shape) for shape in shapes}) != 1:
            return None
        return tuple(row[0] if len(set(row)) == 1 else None for row in zip(*shapes))

    @property
    def dtype(self) -> Any:
        """The dtype of all arrays, or None when they differ."""
        found = {str(x.dtype): x.dtype for x in self.to_flat_list() if is_array(x)}
        return next(iter(found.values())) if len(found) == 1 else None

    def num_arrays(self) -> int:
        """How many ends are arrays."""
        return sum(map(is_array, self.to_flat_list()))

    def size_ordered_arrays(self) -> Self:
        """The arrays by their key chains joined with "__", the smallest first."""
        found = [(path.replace("/", "__"), x) for path, x in self.flat_items() if is_array(x)]
        return self._from_paths(sorted(found, key=lambda item: int(np.prod(item[1].shape))))

    def duplicate_array_keychains(self) -> list[list[str]]:
        """The key chains that lead to one and the same array, for each such array."""
        found: dict[int, list[str]] = {}
        for path, x in self.flat_items():
            if is_array(x):
                found.setdefault(id(x), []).append(path)
        return [paths for paths in found.values() if len(paths) > 1]

    def all_true(self) -> bool:
        """Whether every end, and every element of it, is true."""
        return all(bool(np.all(np.asarray(x))) for x in self.to_flat_list())

    # -- the printed form ----------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """How this Container prints."""
        return asdict(self._format)

    def with_config(self, **settings: Any) -> Self:
        """The same ends, printed in another way; `config` lists the settings."""
        unknown = [name for name in settings if name not in self.config]
        if unknown:
            known = ", ".join(self.config)
            raise EinkornError(f"a Container has no setting {unknown[0]!r}; it has {known}")
        new = self.map(lambda x: x)
        object.__setattr__(new, "_format", replace(self._format, **settings))
        return new

    def with_print_limit(self, limit: int) -> Self:
        """The same, printing values of up to so many elements in full."""
        return self.with_config(print_limit=limit)

    def with_print_indent(self, indent: int) -> Self:
        """The same, printing so many spaces for each level."""
        return self.with_config(print_indent=indent)

    def with_print_line_spacing(self, lines: int) -> Self:
        """The same, printing so many empty lines between items."""
        return self.with_config(print_line_spacing=lines)

    def with_key_length_limit(self, limit: int | None) -> Self:
        """The same, printing at most so many characters of a key."""
        return self.with_config(key_length_limit=limit)

    def show(self) -> None:
        """Print this Container, with green keys on a terminal."""
        sys.stdout.write(text(self, sys.stdout.isatty()) + "\n")

    def show_sub_container(self, key_chain: str) -> None:
        """Print only what leads to a key chain, and what is there."""
        part = self[key_chain]
        sys.stdout.write(text(self._from_paths([(key_chain, part)]), sys.stdout.isatty()) + "\n")
