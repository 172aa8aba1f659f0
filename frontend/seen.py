"""What a trace saw of modules, optimizers and leaves, which announce when it changes.

A call looks at one number, `EPOCHS.structure`. When that is another one, something that some trace
saw was changed, and each trace looks whether it is among what it saw itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from einkorn.same import ABSENT, PLAIN, held, same, shown, target

# The entry of an object's `__dict__` with the names of what traces saw of it.
OBSERVED = "_ek_observed"
STRUCTURE = ""  # stands among these names for the leaves and modules inside
WHOLE = "*"  # and this for every attribute
STATE = "="  # before the name of one that is read at each call
CARRIED = "_ek_carried"  # the entry with the names of attributes that steps write

Objects = Mapping[str, Any]


class Condition(Protocol):
    """Something that has to be as it was."""

    def holds(self) -> bool: ...

    def why_not(self) -> str:
        """What is different now, for people."""
        ...

    def shown(self) -> Iterable[str]:
        """What is worth telling, for people."""
        ...

    @property
    def polled(self) -> tuple[Callable[[], bool], str] | None:
        """What has to be asked at each call, because nothing announces it, and its name."""
        ...

    @property
    def may_return(self) -> bool:
        """Whether what does not hold now may hold again."""
        ...


class Kind(Protocol):
    """What has to stay the same of an attribute that is read at each call."""

    def __init__(self, value: Any) -> None: ...

    def fits(self, now: Any) -> bool: ...


def observe(owner: Any, name: str) -> None:
    """From now on a change of this attribute of an object is announced."""
    object.__getattribute__(owner, "__dict__").setdefault(OBSERVED, set()).add(name)


def is_observed(state: Objects, name: str) -> bool:
    """Whether a trace saw this attribute of an object, given by its `__dict__`."""
    return STATE + name in state.get(OBSERVED, ()) or is_constant_of(state, name)


def is_constant_of(state: Objects, name: str) -> bool:
    """Whether the value of this attribute is part of a trace."""
    names = state.get(OBSERVED, ())
    return name in names or WHOLE in names


class Seen:
    """What one trace saw, those around it and inside it included.

    Attributes:
        renewed: by their ids the leaves that were made in the trace and written there, so that each
            call makes and writes others.
    """

    def __init__(self) -> None:
        self.renewed: dict[int, Any] = {}
        self._owners: dict[int, Attributes] = {}
        self._structures: dict[int, tuple[Any, Callable[[Any], Condition]]] = {}
        self._leaves: dict[int, Any] = {}

    def attribute(self, owner: Any, name: str) -> None:
        """An attribute of a module or optimizer was read, or looked for."""
        observe(owner, name)
        self._of(owner).names[name] = None

    def state(self, owner: Any, name: str, kind: Kind) -> None:
        """An attribute was read that is read at each call: only its kind matters."""
        observe(owner, STATE + name)
        self._of(owner).names.setdefault(name, kind)

    def whole(self, owner: Any) -> None:
        """All attributes were read."""
        observe(owner, WHOLE)
        self._of(owner).is_whole = True

    def structure(self, root: Any, outline: Callable[[Any], Condition]) -> None:
        """The leaves and modules inside of a module were looked for; `outline` notes them."""
        self._structures[id(root)] = root, outline

    def leaf(self, leaf: Any) -> None:
        """Whether a leaf is trained was looked at."""
        self._leaves[id(leaf)] = leaf

    def forget(self, leaf: Any) -> None:
        """A leaf was made in the trace: it has nothing to be a condition."""
        self._leaves.pop(id(leaf), None)

    def _of(self, owner: Any) -> Attributes:
        found = self._owners.get(id(owner))
        if found is None:
            found = self._owners[id(owner)] = Attributes(owner)
        return found

    def conditions(self, leaves: Iterable[Any]) -> list[Condition]:
        """The conditions, with what is there at the end of the trace.

        Args:
            leaves: the leaves that the trace captured.
        """
        for leaf in leaves:
            self.leaf(leaf)
        for attributes in self._owners.values():
            attributes.settle()
        outlines = [outline(root) for root, outline in self._structures.values()]
        return [*self._owners.values(), *outlines, Trained(self._leaves.values())]


class Attributes:
    """The attributes of one object that a trace read: each is what it was."""

    def __init__(self, owner: Any) -> None:
        self.names: dict[str, Kind | None] = {}
        self.is_whole = False
        self._owner: Any = held(owner)
        self._kind = type(owner).__name__
        self._values: dict[str, Any] = {}
        self._kinds: dict[str, Kind] = {}

    def settle(self) -> None:
        """Note the values as they are."""
        state = self._state()
        names = _public(state) if self.is_whole else self.names
        self._values = {name: held(state.get(name, ABSENT)) for name in names}
        self._kinds = (
            {} if self.is_whole else {k: x for k, x in self.names.items() if x is not None}
        )

    def _state(self) -> Objects:
        return getattr(target(self._owner), "__dict__", {})

    def _different(self) -> Iterator[str]:
        state = self._state()
        for name, value in self._values.items():
            now, kind = state.get(name, ABSENT), self._kinds.get(name)
            if not (now is target(value) or same(now, value) if kind is None else kind.fits(now)):
                yield name
        if self.is_whole:
            yield from _public(state) - self._values.keys()

    def holds(self) -> bool:
        return next(self._different(), None) is None

    def why_not(self) -> str:
        name = next(self._different())
        kind = self._kinds.get(name)
        if kind is not None:
            was, now = str(kind), str(type(kind)(self._state().get(name)))
            if was == now:
                return f"{self._kind}.{name} is {now} with other kinds of tensors now"
            return f"{self._kind}.{name} was {was} and is {now} now"
        was, now = self._values.get(name, ABSENT), self._state().get(name, ABSENT)
        before = "was not there" if was is ABSENT else f"was {shown(target(was))}"
        after = "is gone" if now is ABSENT else f"is {shown(now)} now"
        return f"{self._kind}.{name} {before} and {after}"

    def shown(self) -> Iterable[str]:
        for name, value in self._values.items():
            if name in self._kinds:
                yield f"{self._kind}.{name} is read at each call"
            elif isinstance(value, PLAIN) and not name.startswith("_"):
                yield f"{self._kind}.{name} was {value!r}"

    @property
    def polled(self) -> None:
        return None

    @property
    def may_return(self) -> bool:
        return all(isinstance(self._values.get(name), PLAIN) for name in self._different())


class Trained:
    """Leaves of which each is trained, or frozen, as it was."""

    def __init__(self, leaves: Iterable[Any]) -> None:
        self._rows = [(weakref.ref(leaf), leaf._trainable) for leaf in leaves]

    def _different(self) -> Iterator[Any]:
        for ref, was in self._rows:
            leaf = ref()
            if leaf is not None and leaf._trainable is not was:
                yield leaf

    def holds(self) -> bool:
        return next(self._different(), None) is None

    def why_not(self) -> str:
        leaf = next(self._different())
        was, now = ("frozen", "trained") if leaf._trainable else ("trained", "frozen")
        return f"{leaf.name or 'a leaf'} was {was} and is {now} now"

    def shown(self) -> Iterable[str]:
        return ()

    @property
    def polled(self) -> None:
        return None

    @property
    def may_return(self) -> bool:
        return True


def _public(state: Objects) -> set[str]:
    return {name for name in state if not name.startswith("_ek_")}
