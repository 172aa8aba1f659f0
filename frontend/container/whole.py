"""`Container`, put together from its groups of methods."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

from einkorn.container.arithmetic import Arithmetic
from einkorn.container.comparing import Comparing
from einkorn.container.exchange import Exchange
from einkorn.container.joining import Joining
from einkorn.container.paths import Paths
from einkorn.ir.errors import EinkornError
from einkorn.snapshot import snapshot

_GROUPS = (Paths, Comparing, Joining, Exchange)


class Container(Arithmetic, Paths, Comparing, Joining, Exchange):
    """A dict whose items are Containers, and tensors or anything else at the ends.

    `c.a.b`, `c["a"]["b"]` and `c["a/b"]` are the same. Arithmetic applies to the ends and gives
    plain Tensors; two Containers must have the same keys. A name that dict or this class also uses,
    such as `items`, is reached with `c["items"]`. Methods that take apart, compare and join have
    the prefix `cont_` as a second name.
    """

    __slots__ = ()

    def copy(self) -> Self:
        """A snapshot: plain Tensors of the values as they are now, in a structure of its own."""
        return self.map(snapshot)

    def __copy__(self) -> Self:
        return self.copy()

    def deep_copy(self) -> Self:
        """A copy of everything: leaves become leaves of their own."""
        return deepcopy(self)


def _add_second_names() -> None:
    """Each method as `cont_` and its name; `cont_map` also gives the function the key chain."""
    for group in _GROUPS:
        for name, member in vars(group).items():
            if not name.startswith("_"):
                setattr(Container, f"cont_{name}", member)
    for name in ("copy", "deep_copy", "key_chains"):
        setattr(Container, f"cont_{name}", getattr(Container, name))
    setattr(Container, "cont_map", Container.map_with_key_chains)  # noqa: B010


_add_second_names()


def as_mapping(values: Any, what: str) -> Container:
    """A Container of what a user gave as one, or as a dict."""
    if not isinstance(values, Mapping):
        raise EinkornError(f"{what} needs a Container or dict, got {type(values).__name__}")
    return values if isinstance(values, Container) else Container(values)


def frozen(container: Container, what: str) -> Container:
    """Forbid changes of a Container's structure at every depth; its leaves can still be written."""
    for value in container.values():
        if isinstance(value, Container):
            frozen(value, what)
    object.__setattr__(container, "_live", what)
    return container
