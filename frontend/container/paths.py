"""Parts of a Container by key chain, and Containers with parts set, renamed, cut or left out.

Nothing here changes a Container: every method returns a new one with the same ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from einkorn.container.base import NOTHING, Nest, UnknownKeyError
from einkorn.ir.errors import EinkornError


class Paths(Nest):
    """Methods that choose or change ends by their key chains."""

    __slots__ = ()

    def map_with_key_chains(
        self,
        fn: Callable[[Any, str], Any],
        key_chains: Iterable[str] | None = None,
        to_apply: bool = True,
        prune_unapplied: bool = False,
    ) -> Self:
        """Apply `fn(value, key_chain)` to ends.

        Args:
            key_chains: only the ends at or under these; all by default.
            to_apply: False to apply it to all but these.
            prune_unapplied: leave the other ends out.
        """
        chosen = None if key_chains is None else _chains(key_chains)
        items: list[tuple[str, Any]] = []
        for path, value in self.flat_items():
            applies = chosen is None or _under(path, chosen) is to_apply
            if applies or not prune_unapplied:
                items.append((path, fn(value, path) if applies else value))
        return self._from_paths(items)

    def filter(self, keep: Callable[[Any], bool]) -> Self:
        """The ends for which `keep` is true, without the Containers that become empty."""
        return self._from_paths((path, end) for path, end in self.flat_items() if keep(end))

    def at_key_chain(self, key_chain: str) -> Any:
        """What is at a key chain; UnknownKeyError when there is nothing."""
        return self[key_chain]

    def at_key_chains(self, key_chains: Iterable[str]) -> Self:
        """A Container of what is at some key chains."""
        return self._from_paths((path, self[path]) for path in _chains(key_chains))

    def at_keys(self, keys: Iterable[str], containing: bool = False) -> Self:
        """A Container of what has one of some keys, at any depth.

        Args:
            containing: whether a key that only contains one of them counts too.
        """
        wanted = _chains(keys)
        return self._chosen(lambda path: _matches(path, wanted, containing))

    def set_at_key_chain(self, key_chain: str, value: Any) -> Self:
        """The same with a value at a key chain, which may be new."""
        return self.set_at_key_chains({key_chain: value})

    def set_at_key_chains(self, values: Mapping[str, Any]) -> Self:
        """The same with values at several key chains, which may be new."""
        new = self._same()
        for path, value in _flat(self, values):
            new[path] = value
        return new

    def set_at_keys(self, values: Mapping[str, Any]) -> Self:
        """The same with a value wherever one of some keys occurs, at any depth."""
        new = self._same()
        for _, nest in list(new.nests()):
            for key in [key for key in nest if key in values]:
                nest[key] = values[key]
        return new

    def overwrite_at_key_chain(self, key_chain: str, value: Any) -> Self:
        """The same with another value at a key chain, which must exist."""
        return self.overwrite_at_key_chains({key_chain: value})

    def overwrite_at_key_chains(self, values: Mapping[str, Any]) -> Self:
        """The same with other values at several key chains, which must exist."""
        for path, _ in _flat(self, values):
            if self._reach(path) is NOTHING:
                raise self._unknown(path, "key chain")
        return self.set_at_key_chains(values)

    def prune_key(self, key: str) -> Self:
        """The same without a key, at any depth."""
        return self.prune_keys([key])

    def prune_keys(self, keys: Iterable[str], containing: bool = False) -> Self:
        """The same without some keys, at any depth."""
        unwanted = _chains(keys)
        return self._chosen(lambda path: not _matches(path, unwanted, containing))

    def prune_key_chain(self, key_chain: str) -> Self:
        """The same without what is at a key chain; nothing is also fine."""
        return self.prune_key_chains([key_chain])

    def prune_key_chains(self, key_chains: Iterable[str]) -> Self:
        """The same without what is at some key chains."""
        unwanted = _chains(key_chains)
        return self._chosen(lambda path: not _under(path, unwanted))

    def prune_empty(self) -> Self:
        """The same without Containers that hold no end."""
        return self._from_paths(self.flat_items())

    def has_key(self, key: str, containing: bool = False) -> bool:
        """Whether a key occurs at any depth."""
        keys = (name for _, nest in self.nests() for name in nest)
        return any(key in name if containing else key == name for name in keys)

    def has_key_chain(self, key_chain: str) -> bool:
        """Whether there is something at a key chain."""
        return self._reach(key_chain) is not NOTHING

    def all_key_chains(self) -> list[str]:
        """The key chain of every end, in order."""
        return self.key_chains()

    def flatten_key_chains(
        self, separator: str = "__", above_height: int = 0, below_depth: int = 0
    ) -> Self:
        """One level of keys joined by a separator: {a: {b: 1}} becomes {a__b: 1}.

        Args:
            above_height: so many of the last keys of a chain stay levels of their own.
            below_depth: so many of the first keys stay levels of their own.
        """
        items: dict[str, Any] = {}
        for path, value in self.flat_items():
            keys = path.split("/")
            stop = max(len(keys) - above_height, below_depth)
            joined = separator.join(keys[below_depth:stop])
            parts = [*keys[:below_depth], *([joined] if joined else []), *keys[stop:]]
            flat = "/".join(parts)
            if flat in items:
                raise EinkornError(f"flatten_key_chains: two ends become {flat!r}")
            items[flat] = value
        return self._from_paths(items.items())

    def restructure(
        self, mapping: Mapping[str, Any], keep_orig: bool = True, replace: bool = True
    ) -> Self:
        """Move what is at key chains to others.

        Args:
            mapping: from old key chains to new ones, or to pairs of a new one and a function that
                is applied to every end moved.
            keep_orig: keep what is not moved.
            replace: remove what was moved from its old place.
        """
        new = self._same() if keep_orig else self._empty()
        moved: list[tuple[str, Any]] = []
        for old, target in mapping.items():
            path, fn = target if isinstance(target, tuple) else (target, None)
            value = self[old]
            if fn is not None:
                value = value.map(fn) if isinstance(value, Nest) else fn(value)
            moved.append((path, value))
            if replace and keep_orig:
                del new[old]
        for path, value in moved:
            new[path] = value
        return new

    def restructure_key_chains(
        self, mapping: Mapping[str, str], keep_orig: bool = True, replace: bool = True
    ) -> Self:
        """Move what is at key chains to others; see `restructure`."""
        return self.restructure(mapping, keep_orig, replace)

    def sort_by_key(self) -> Self:
        """The same with the keys of every level in alphabetical order."""
        new = self._empty()
        for key in sorted(self):
            value = self[key]
            inner = value.sort_by_key() if isinstance(value, Paths) else value
            dict.__setitem__(new, key, inner)
        return new

    def slice_keys(self, keys: slice, all_depths: bool = False) -> Self:
        """The items of some consecutive keys.

        Args:
            keys: a slice of positions, or of two keys, both included.
            all_depths: whether the Containers inside are cut too.
        """
        names = list(self)
        new = self._empty()
        for key in names[_positions(names, keys)]:
            value = self[key]
            inner = all_depths and isinstance(value, Paths)
            dict.__setitem__(new, key, value.slice_keys(keys, True) if inner else value)
        return new

    def cutoff_at_depth(self, depth: int) -> Self:
        """The same with every Container at a depth, 0 for this one, emptied."""
        return self._cut(lambda nest, at: at >= depth, 0)

    def cutoff_at_height(self, height: int) -> Self:
        """The same with every Container that has at most so many levels emptied."""
        return self._cut(lambda nest, at: nest.max_depth <= height, 0)

    # -- helpers -------------------------------------------------------------------------------

    def _same(self) -> Self:
        """The same ends in a structure of its own."""
        return self.map(lambda x: x)

    def _chosen(self, keep: Callable[[str], bool]) -> Self:
        return self._from_paths((path, end) for path, end in self.flat_items() if keep(path))

    def _cut(self, empty: Callable[[Any, int], bool], at: int) -> Self:
        new = self._empty()
        if not empty(self, at):
            for key, value in self.items():
                inner = value._cut(empty, at + 1) if isinstance(value, Paths) else value
                dict.__setitem__(new, key, inner)
        return new


def _chains(given: Any) -> list[str]:
    """Key chains, from one, several, or those of a nest."""
    if isinstance(given, str):
        return [given]
    return given.key_chains() if isinstance(given, Nest) else list(given)


def _flat(like: Nest, values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return values.flat_items() if isinstance(values, Nest) else list(values.items())


def _under(path: str, chains: Iterable[str]) -> bool:
    """Whether a path is one of some key chains or leads on from one."""
    return any(path == chain or path.startswith(chain + "/") for chain in chains)


def _matches(path: str, keys: Iterable[str], containing: bool) -> bool:
    """Whether a path has one of some keys."""
    names = path.split("/")
    return any(any(k in n for n in names) if containing else k in names for k in keys)


def _positions(names: list[str], keys: slice) -> slice:
    """A slice of positions from one that may name keys."""
    if not isinstance(keys, slice):
        raise EinkornError(f"slice_keys needs a slice of positions or of keys, got {keys!r}")
    ends = [keys.start, keys.stop]
    for k, end in enumerate(ends):
        if isinstance(end, str):
            if end not in names:
                raise UnknownKeyError(f"slice_keys: there is no key {end!r}; it has {names}")
            ends[k] = names.index(end) + k
    return slice(*ends)
