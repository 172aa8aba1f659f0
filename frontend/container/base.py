"""What every part of a Container builds on: its items, paths to them, and one walk over them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn, Self

from einkorn.container.text import Format, text
from einkorn.ir.errors import EinkornError, StateError
from einkorn.recording import Value

MSG_FROZEN = (
    "this Container shows the live {what} and keeps its structure: write a value with "
    "c.{key}.value = ..., or take a snapshot that can be changed with c.copy()"
)
MSG_KEY = "a Container's keys are strings that are not empty, got {key!r}"
MSG_METHOD = (
    "{key!r} is a method or property of every Container, so that c.{key} could not read the item "
    "back; write c[{key!r}] = ..."
)

NOTHING = object()


class UnknownKeyError(EinkornError, AttributeError, KeyError):
    """A name or path that a Container does not have."""

    __str__ = Exception.__str__


class Nest(dict[str, Any]):
    """The items of a Container: access, paths, and changes in place."""

    __slots__ = ("_aliases", "_format", "_live")

    # Whether the keys of a new Container, and those of a Module's, are put in order.
    alphabetical_keys: ClassVar[bool] = False
    default_format: ClassVar[Format] = Format()

    _aliases: dict[str, Any]
    _format: Format
    _live: str

    def __init__(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any
    ) -> None:
        super().__init__()
        object.__setattr__(self, "_aliases", {})
        object.__setattr__(self, "_format", self.default_format)
        object.__setattr__(self, "_live", "")
        if named or items or type(items) is not tuple:
            self.update(items, **named)
        if self.alphabetical_keys:
            for key in sorted(self):
                dict.__setitem__(self, key, dict.pop(self, key))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def __repr__(self) -> str:
        return text(self)

    # -- access --------------------------------------------------------------------------------

    def _reach(self, path: Any) -> Any:
        """What a key or path leads to, other names of shared values included."""
        node: Any = self
        for key in path.split("/") if isinstance(path, str) else (path,):
            if not isinstance(node, dict):
                return NOTHING
            found = dict.get(node, key, NOTHING)
            if found is NOTHING and isinstance(node, Nest):
                found = node._aliases.get(key, NOTHING)
            if found is NOTHING:
                return NOTHING
            node = found
        return node

    def __missing__(self, path: str) -> Any:
        found = self._reach(path)
        if found is NOTHING:
            raise self._unknown(path, "key")
        return found

    def __getattr__(self, name: str) -> Any:
        found = NOTHING if name.startswith("__") else self._reach(name)
        if found is NOTHING:
            raise self._unknown(name, "attribute")
        return found

    def _unknown(self, path: Any, kind: str) -> UnknownKeyError:
        known = [*self, *self.key_chains()]
        close = difflib.get_close_matches(str(path), known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(self)}"
        return UnknownKeyError(f"this Container has no {kind} {path!r}; {hint}")

    def __contains__(self, path: object) -> bool:
        return dict.__contains__(self, path) or self._reach(path) is not NOTHING

    def get(self, path: str, default: Any = None) -> Any:
        """What a key or path leads to, or `default`."""
        found = self._reach(path)
        return default if found is NOTHING else found

    # -- changes in place ----------------------------------------------------------------------

    def __setitem__(self, path: str, value: Any) -> None:
        if self._live:
            self._refuse(path)
        if not isinstance(path, str) or not all(path.split("/")):
            raise EinkornError(MSG_KEY.format(key=path))
        key, _, rest = path.partition("/")
        if rest:
            inner = dict.get(self, key)
            if not isinstance(inner, Nest):
                inner = self._empty()
                dict.__setitem__(self, key, inner)
            inner[rest] = value
        else:
            dict.__setitem__(self, key, type(self)(value) if type(value) is dict else value)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise EinkornError(MSG_METHOD.format(key=name))
        self[name] = value

    def __delitem__(self, path: str) -> None:
        if self._live:
            self._refuse(path)
        outer, _, key = path.rpartition("/")
        holder = self[outer] if outer else self
        if not dict.__contains__(holder, key):
            raise self._unknown(path, "key")
        dict.__delitem__(holder, key)

    def __delattr__(self, name: str) -> None:
        del self[name]

    def _refuse(self, key: Any) -> NoReturn:
        raise StateError(MSG_FROZEN.format(what=self._live, key=str(key).replace("/", ".")))

    def update(self, items: Any = (), /, **named: Any) -> None:
        """Set the items of a mapping or of pairs; keys may be paths."""
        try:
            new = dict(items, **named)
        except (TypeError, ValueError):
            raise EinkornError(
                f"a Container is made from a dict or from pairs of a key and a value, got {items!r}"
            ) from None
        for key, value in new.items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The item, set to `default` when there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove an item and return it."""
        if default and key not in self:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last item and return its key and value."""
        if self._live:
            self._refuse("key")
        if not self:
            raise UnknownKeyError("popitem(): this Container is empty")
        return dict.popitem(self)

    def clear(self) -> None:
        """Remove every item."""
        if self._live:
            self._refuse("key")
        dict.clear(self)

    # -- walks ---------------------------------------------------------------------------------

    def _empty(self) -> Self:
        """A Container with nothing in it that prints as this one does."""
        new = type(self)()
        object.__setattr__(new, "_format", self._format)
        return new

    def flat_items(self) -> Iterator[tuple[str, Any]]:
        """The path and value of every end, in order."""
        for key, value in self.items():
            if isinstance(value, Nest):
                yield from ((f"{key}/{rest}", end) for rest, end in value.flat_items())
            else:
                yield key, value

    def key_chains(self) -> list[str]:
        """The path of every end, in order."""
        return [path for path, _ in self.flat_items()]

    def nests(self) -> Iterator[tuple[str, Nest]]:
        """The path and Container of this one, whose path is empty, and of every one inside."""
        yield "", self
        for key, value in self.items():
            if isinstance(value, Nest):
                yield from (
                    (f"{key}/{path}" if path else key, inner) for path, inner in value.nests()
                )

    def _from_paths(self, items: Iterable[tuple[str, Any]]) -> Self:
        """A Container like this one of paths and values, which are kept as they are."""
        new = self._empty()
        for path, value in items:
            holder: Nest = new
            *outer, key = path.split("/")
            for name in outer:
                inner = dict.get(holder, name)
                if not isinstance(inner, Nest):
                    inner = new._empty()
                    dict.__setitem__(holder, name, inner)
                holder = inner
            dict.__setitem__(holder, key, value)
        return new

    def map(self, fn: Callable[..., Any], *others: Mapping[str, Any]) -> Self:
        """Apply `fn` to every end, together with those of other Containers of the same keys.

        Other names of shared ends lead to the new ones.
        """
        nested = [check_structure(self, other, "Container") for other in others]
        pairs: list[tuple[Nest, Nest]] = []
        new = _mapped(fn, self, nested, pairs)
        if any(old._aliases for old, _ in pairs):
            _carry_aliases(pairs)
        return new


def _mapped(
    fn: Callable[..., Any], a: Any, others: list[Any], pairs: list[tuple[Nest, Nest]]
) -> Any:
    new = a._empty()
    pairs.append((a, new))
    for key, value in a.items():
        rest = [other[key] for other in others]
        done = _mapped(fn, value, rest, pairs) if isinstance(value, Nest) else fn(value, *rest)
        dict.__setitem__(new, key, done)
    return new


def _carry_aliases(pairs: list[tuple[Nest, Nest]]) -> None:
    """Let the aliases of old Containers lead to what became of their targets."""
    became: dict[int, Any] = {id(old): new for old, new in pairs}
    for old, new in pairs:
        for key, value in old.items():
            became.setdefault(id(value), dict.__getitem__(new, key))
    for old, new in pairs:
        for key, target in old._aliases.items():
            if id(target) in became:
                new._aliases[key] = became[id(target)]


def as_nest(like: Nest, other: Any, what: str) -> Nest:
    """`other`, which must be a Container or dict, as a Container of the class of `like`."""
    if not isinstance(other, dict):
        raise EinkornError(f"{what} needs a Container or dict, got {type(other).__name__}")
    return other if isinstance(other, Nest) else type(like)(other)


def check_structure(container: Nest, other: Any, what: str) -> Any:
    """`other` as a Container of the same keys; EinkornError naming the first that differs."""
    second = as_nest(container, other, what)
    found = difference(container, second)
    if found:
        raise EinkornError(f"{what}: the structures differ at {found}")
    return second


def difference(a: Nest, b: Nest, path: str = "") -> str:
    """Where the structures of two Containers differ first, or nothing."""
    for key in a:
        if not dict.__contains__(b, key):
            close = difflib.get_close_matches(key, [k for k in b if k not in a], n=1)
            return f"{path + key!r}: the second has none" + (
                f", but has {path + close[0]!r}" if close else ""
            )
        inner, other = a[key], b[key]
        if isinstance(inner, Nest) != isinstance(other, Nest):
            first = "first" if isinstance(inner, Nest) else "second"
            return f"{path + key!r}: only the {first} is nested there"
        deeper = difference(inner, other, f"{path}{key}/") if isinstance(inner, Nest) else ""
        if deeper:
            return deeper
    for key in b:
        if not dict.__contains__(a, key):
            return f"{path + key!r}: the first has none"
    return ""


def several(containers: tuple[Any, ...], what: str, least: int = 2) -> list[Any]:
    """The Containers of a call `c.what(d)`, `Container.what(c, d)` or `Container.what([c, d])`."""
    if len(containers) == 1 and isinstance(containers[0], (list, tuple)):
        containers = tuple(containers[0])
    if len(containers) < least:
        raise EinkornError(f"{what} needs at least {least} Containers, got {len(containers)}")
    first = next((c for c in containers if isinstance(c, Nest)), None)
    if first is None:
        raise EinkornError(f"{what} needs Containers, got {type(containers[0]).__name__}")
    return [as_nest(first, c, what) for c in containers]


def is_array(x: Any) -> bool:
    """Whether an end has a shape and a dtype."""
    return isinstance(x, Value) or (hasattr(x, "__array__") and hasattr(x, "dtype"))
