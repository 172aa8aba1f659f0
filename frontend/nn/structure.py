"""What a Module holds: its leaves and modules, found in attributes and nests of them.

Each is found once. Further ways to it become aliases of the Containers, so that every path works.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from types import FunctionType, MethodType
from typing import Any

from einkorn.container import Container, frozen
from einkorn.epochs import EPOCHS
from einkorn.ir.errors import StateError
from einkorn.leaf import Leaf, Parameter
from einkorn.nn.building import BUILT, PENDING, check_built
from einkorn.nn.making import MADE
from einkorn.same import holds_items, kept_contents, unchanged
from einkorn.seen import CARRIED, OBSERVED
from einkorn.watched import BIRTH

# Entries of a module's `__dict__` that are its own bookkeeping.
PARENT = "_ek_parent"  # a weak reference to the module in which it was found first
INTERNAL = frozenset(
    {OBSERVED, CARRIED, BIRTH, PENDING, BUILT, MADE, PARENT, "_ek_structure", "_ek_name"}
)

# The types of most attributes: asking first for these is quick.
_HOLDS_NOTHING = frozenset({int, float, bool, str, bytes, type(None), FunctionType, MethodType})

MSG_KEY_TWICE = (
    "{owner}: {first!r} and {second!r} both become the key {key!r} (leading underscores and the "
    "kind of dict keys are not part of it); rename one"
)
MSG_KEY_TEXT = (
    "{owner}: the dict key {key!r} cannot be part of a parameter's path: it is empty or contains "
    "'/' or '.'; use another key"
)

# Leaves of no Parameter class that freeze() made untrainable: they remain parameters.
_kept: set[int] = set()


def is_parameter(leaf: Leaf) -> bool:
    """Whether a leaf belongs to `model.v`; the others are buffers."""
    return leaf._trainable or isinstance(leaf, Parameter) or leaf.id in _kept


def set_trainable(leaf: Leaf, on: bool) -> None:
    """Freeze or unfreeze a leaf; it stays a parameter."""
    if not isinstance(leaf, Parameter):
        _kept.add(leaf.id)
    leaf.trainable = on


class Structure:
    """The leaves and modules behind a module, as they were found.

    Attributes:
        v: the parameters, live.
        buffers: the other leaves, live.
        modules: every module by its path; the root has the path "".
        nests: the lists and dicts on the way, and what they held.
        pending: whether a module was still to be built.
    """

    def __init__(self, root: Any, is_module: Callable[[Any], bool]) -> None:
        self._kind: type[Container] = getattr(root, "_ek_container", Container)
        self.v, self.buffers = self._kind(), self._kind()
        self.modules: dict[str, Any] = {"": root}
        self._is_module = is_module
        self._seen: dict[int, Any] = {id(root): (self.v, self.buffers)}
        self.nests: list[tuple[Any, tuple[Any, ...]]] = []
        self._targets: Container | None = None
        self._owner, self._at = type(root).__name__, root
        self._enter(root, "", "", self.v, self.buffers)
        frozen(self.v, "parameters")
        frozen(self.buffers, "buffers")
        self.pending = any(PENDING in module.__dict__ for module in self.modules.values())
        self._stamp = EPOCHS.modules
        for path, leaf in (*self.v.flat_items(), *self.buffers.flat_items()):
            leaf.name = leaf.name or path.replace("/", ".")

    def check_built(self) -> None:
        """StateError when a module is still to be built."""
        check_built(self._owner, self.modules)
        self.pending = False

    @property
    def targets(self) -> Container:
        """The trainable leaves."""
        if self._targets is None:
            every = all(leaf._trainable for leaf in self.v.to_flat_list())
            chosen = self.v if every else self.v.filter(lambda leaf: leaf._trainable)
            self._targets = frozen(chosen, "parameters")
        return self._targets

    def current(self) -> bool:
        """Whether nothing was changed since."""
        if self._stamp != EPOCHS.modules:
            return False
        return all(unchanged(nest, items) for nest, items in self.nests)

    def _enter(self, holder: Any, path: str, local: str, v: Container, buffers: Container) -> None:
        names: dict[str, Any] = {}
        for raw, value in self._items(holder):
            kind = type(value)
            if kind in _HOLDS_NOTHING:
                continue
            key = str(raw).lstrip("_") or str(raw)
            if Leaf in kind.__mro__:  # what isinstance finds, too, but later
                self._add(value, key, v if is_parameter(value) else buffers)
            elif not isinstance(value, (list, tuple, dict)) and not self._is_module(value):
                continue
            elif not self._visit(value, key, path, local, v, buffers):
                continue
            owner = path or type(holder).__name__
            if not key or "/" in key or "." in key:
                raise StateError(MSG_KEY_TEXT.format(owner=owner, key=raw))
            if key in names:
                first = names[key]
                raise StateError(
                    MSG_KEY_TWICE.format(owner=owner, first=first, second=raw, key=key)
                )
            names[key] = raw

    def _items(self, holder: Any) -> Iterator[tuple[Any, Any]]:
        if self._is_module(holder):
            names = [k for k in holder.__dict__ if k not in INTERNAL]
            if self._kind.alphabetical_keys:
                names.sort(key=lambda name: name.lstrip("_"))
            yield from [(k, holder.__dict__[k]) for k in names]
            return
        if not isinstance(holder, tuple):
            self.nests.append((holder, kept_contents(holder)))
        items = holder.items() if isinstance(holder, dict) else listed(holder)
        ordered = isinstance(holder, dict) and self._kind.alphabetical_keys
        yield from sorted(items, key=lambda item: str(item[0])) if ordered else items

    def _add(self, leaf: Leaf, key: str, home: Container) -> None:
        if id(leaf) in self._seen:
            home._aliases[key] = leaf
        else:
            dict.__setitem__(home, key, leaf)
            self._seen[id(leaf)] = leaf

    def _visit(
        self, value: Any, key: str, path: str, local: str, v: Container, buffers: Container
    ) -> bool:
        """Add what a module or nest holds; whether it holds anything."""
        if id(value) in self._seen:
            inner_v, inner_buffers = self._seen[id(value)]
            v._aliases[key], buffers._aliases[key] = inner_v, inner_buffers
            return self._holds(value, inner_v, inner_buffers)
        inner_v, inner_buffers = self._seen[id(value)] = (self._kind(), self._kind())
        path, local = _join(path, key), _join(local, key)
        if self._is_module(value):
            self.modules[path] = value
            held = value.__dict__.get(PARENT)
            above = None if held is None else held()
            if above is None or above is self._at:  # and not in another model, too
                value.__dict__.update({PARENT: weakref.ref(self._at), "_ek_name": local})
            local = ""
        above = self._at
        self._at = value if self._is_module(value) else above
        self._enter(value, path, local, inner_v, inner_buffers)
        self._at = above
        for outer, inner in ((v, inner_v), (buffers, inner_buffers)):
            if inner:
                dict.__setitem__(outer, key, inner)
            elif inner._aliases:
                outer._aliases[key] = inner
        return self._holds(value, inner_v, inner_buffers)

    def _holds(self, value: Any, *inner: Container) -> bool:
        return self._is_module(value) or any(x or x._aliases for x in inner)


class Outline:
    """The leaves and modules inside of a module, as a condition of a trace: the same ones."""

    def __init__(self, root: Any) -> None:
        self._root, self._kind = weakref.ref(root), type(root).__name__
        found: Structure = root._ek_found()
        self._filled = holds_items(found.nests)
        self._has_nests = bool(found.nests)
        self._rows = [(path, weakref.ref(x), mark) for path, x, mark in _marked(found)]

    def holds(self) -> bool:
        root = self._root()
        if root is None:
            return False
        found: Structure = root._ek_found()
        now = list(_marked(found))
        if not self._holds_the_same(now) or [x[2] for x in now] != [x[2] for x in self._rows]:
            return False
        self._filled = holds_items(found.nests)
        return True

    def _holds_the_same(self, now: list[tuple[str, Any, str]]) -> bool:
        """Whether the same modules and leaves are there, frozen or not."""
        pairs = zip(self._rows, now)
        found = (ref() is x and path == place for (path, ref, _), (place, x, _) in pairs)
        return len(now) == len(self._rows) and all(found)

    def is_filled_as_before(self) -> bool:
        """Whether the lists and dicts, which announce nothing, hold what they held."""
        return self._filled()

    def why_not(self) -> str:
        return f"the parameters or modules in {self._kind} are others"

    def shown(self) -> Iterable[str]:
        return ()

    @property
    def polled(self) -> tuple[Callable[[], bool], str] | None:
        if not self._has_nests:
            return None
        return self.is_filled_as_before, f"the lists and dicts of {self._kind}"

    @property
    def may_return(self) -> bool:
        """Whether they are only frozen, or trained, for now."""
        root = self._root()
        return root is not None and self._holds_the_same(list(_marked(root._ek_found())))


def _marked(found: Structure) -> Iterator[tuple[str, Any, str]]:
    """Every module and leaf of a structure by its path, and what it is there."""
    yield from ((path, module, "module") for path, module in found.modules.items())
    for path, leaf in found.v.flat_items():
        yield path, leaf, "trained" if leaf._trainable else "frozen"
    yield from ((path, leaf, "buffer") for path, leaf in found.buffers.flat_items())


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def every_path(nest: Container, outer: tuple[Container, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The paths and ends of a Container, those under further names of shared ones included."""
    for key, value in (*nest.items(), *nest._aliases.items()):
        if not isinstance(value, Container):
            yield key, value
        elif not any(value is around for around in (*outer, nest)):
            yield from ((f"{key}/{path}", end) for path, end in every_path(value, (*outer, nest)))


def listed(items: Any) -> Iterator[tuple[str, Any]]:
    """The keys and items of a list."""
    return ((f"v{k}", item) for k, item in enumerate(items))


def replaced(
    value: Any, new: dict[int, Any], is_module: Callable[[Any], bool], inside: tuple[int, ...] = ()
) -> Any:
    """The attribute with leaves exchanged by their ids; itself when it holds none of them."""
    if isinstance(value, Leaf):
        return new.get(id(value), value)
    if is_module(value) or not isinstance(value, (list, tuple, dict)) or id(value) in inside:
        return value
    inside = (*inside, id(value))
    if isinstance(value, dict):
        items = {key: replaced(item, new, is_module, inside) for key, item in value.items()}
        if all(items[key] is value[key] for key in items):
            return value
        other = copy(value)  # of its class
        for key, item in items.items():
            other[key] = item
        return other
    row = [replaced(item, new, is_module, inside) for item in value]
    if all(map(operator.is_, row, value)):
        return value
    if isinstance(value, list):
        other = copy(value)
        other[:] = row
        return other
    return type(value)(*row) if hasattr(value, "_fields") else type(value)(row)
