"""Several Containers into one, and one into several.

As with comparisons, `c.combine(d)`, `Container.combine(c, d)` and `Container.combine([c, d])` are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from einkorn.container.base import Nest, check_structure, several
from einkorn.functions.manipulation import concat, split, stack, unstack
from einkorn.ir.errors import EinkornError, ShapeError


class Joining(Nest):
    """Methods that join and part Containers."""

    __slots__ = ()

    def combine(*containers: Any) -> Any:
        """The ends of all; where several have one key chain, that of the last counts."""
        first, *others = several(containers, "combine", 1)
        for other in others:
            first = first.set_at_key_chains(other)
        return first

    def multi_map(
        fn: Callable[[list[Any], str], Any],  # type: ignore[misc] # a static method
        containers: Sequence[Any],
    ) -> Any:
        """Apply `fn(values, key_chain)` to the ends of several Containers of the same keys."""
        if isinstance(fn, Nest) or not callable(fn):
            raise EinkornError("multi_map is called as Container.multi_map(fn, containers)")
        return _multi_map(fn, several((containers,), "multi_map", 1))

    multi_map = staticmethod(multi_map)

    def reduce(*containers: Any, fn: Callable[[list[Any]], Any]) -> Any:
        """Apply `fn` to the list of the values at each key chain."""
        return _multi_map(lambda xs, path: fn(xs), several(containers, "reduce", 1))

    def list_join(*containers: Any) -> Any:
        """Join the lists at each key chain."""
        found = several(containers, "list_join", 1)
        return _multi_map(lambda xs, path: [item for x in xs for item in x], found)

    def list_stack(*containers: Any) -> Any:
        """A list of the values at each key chain."""
        return _multi_map(lambda xs, path: list(xs), several(containers, "list_stack", 1))

    def concat(*containers: Any, axis: int = 0) -> Any:
        """Join the arrays at each key chain along an axis."""
        found = several(containers, "concat", 1)
        return _multi_map(lambda xs, path: concat(xs, axis=axis), found)

    def stack(*containers: Any, axis: int = 0) -> Any:
        """Join the arrays at each key chain along a new axis."""
        found = several(containers, "stack", 1)
        return _multi_map(lambda xs, path: stack(xs, axis=axis), found)

    def unstack(self, axis: int = 0) -> list[Self]:
        """One Container for each position along an axis, which all arrays must have in common."""
        return self._parts("unstack", lambda x: unstack(x, axis=axis))

    def split(self, sections: int | Sequence[int], axis: int = 0) -> list[Self]:
        """Containers of sections of every array, as `ek.split` makes them."""
        return self._parts("split", lambda x: split(x, sections, axis=axis))

    def _parts(self, what: str, fn: Callable[[Any], Sequence[Any]]) -> list[Self]:
        parts = {path: fn(value) for path, value in self.flat_items()}
        counts = {len(part) for part in parts.values()}
        if len(counts) != 1:
            raise ShapeError(
                f"{what}: every end must have the same number of parts, got {sorted(counts)}"
            )
        return [
            self._from_paths((path, part[k]) for path, part in parts.items())
            for k in range(counts.pop())
        ]


def _multi_map(fn: Callable[[list[Any], str], Any], containers: list[Any]) -> Any:
    first, *others = containers
    for other in others:
        check_structure(first, other, "Container")
    return first._from_paths(
        (path, fn([value, *(other[path] for other in others)], path))
        for path, value in first.flat_items()
    )
