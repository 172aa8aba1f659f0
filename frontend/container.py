"""`Container`: a nested dict of tensors with attribute access, paths and recursive arithmetic."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from einkorn.convert import as_operand, as_tensor
from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace, no_grad, result

MSG_FROZEN = (
    "this Container shows the live {what} and keeps its structure: write a value with "
    "c.{key}.value = ..., or take a snapshot that can be changed with c.copy()"
)
MSG_KEY = "a Container's keys are strings that are not empty, got {key!r}"

_NOTHING = object()
# Up to this many elements a value is printed, above it only its shape.
_PRINT_LIMIT = 10


class UnknownKeyError(EinkornError, AttributeError, KeyError):
    """A name or path that a Container does not have."""

    __str__ = Exception.__str__


def snapshot(x: Any) -> Any:
    """The value of `x` as it is now, with no gradient and of no further change."""
    if isinstance(x, np.ndarray):
        return x.copy()
    if not isinstance(x, Value):
        return x
    if current_trace.get() is not None:
        with no_grad():
            return x.detach()  # type: ignore[attr-defined] # every Value that users hold is a Tensor
    return result(x._type, x._shared(), node=None if isinstance(x, Leaf) else x._node)


class Container(dict[str, Any]):
    """A dict whose items are Containers, and tensors or anything else at the ends.

    `c.a.b`, `c["a"]["b"]` and `c["a/b"]` are the same. Arithmetic applies to the ends and gives
    plain Tensors; two Containers must have the same keys. A name that dict or this class also uses,
    such as `items`, is reached with `c["items"]`.
    """

    __slots__ = ("_aliases", "_live")
    __hash__ = None  # type: ignore[assignment] # == is elementwise, as it is for tensors
    __array_ufunc__ = None  # so that NumPy leaves `array + container` to __radd__

    _aliases: dict[str, Any]
    _live: str

    def __init__(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any
    ) -> None:
        super().__init__()
        object.__setattr__(self, "_aliases", {})
        object.__setattr__(self, "_live", "")
        self.update(items, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    # -- access --------------------------------------------------------------------------------

    def _reach(self, path: Any) -> Any:
        """What a key or path leads to, other names of shared values included."""
        node: Any = self
        for key in path.split("/") if isinstance(path, str) else (path,):
            if not isinstance(node, dict):
                return _NOTHING
            found = dict.get(node, key, _NOTHING)
            if found is _NOTHING and isinstance(node, Container):
                found = node._aliases.get(key, _NOTHING)
            if found is _NOTHING:
                return _NOTHING
            node = found
        return node

    def __missing__(self, path: str) -> Any:
        found = self._reach(path)
        if found is _NOTHING:
            raise self._unknown(path, "key")
        return found

    def __getattr__(self, name: str) -> Any:
        found = _NOTHING if name.startswith("__") else self._reach(name)
        if found is _NOTHING:
            raise self._unknown(name, "attribute")
        return found

    def _unknown(self, path: Any, kind: str) -> UnknownKeyError:
        known = [*self, *self.key_chains()]
        close = difflib.get_close_matches(str(path), known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(self)}"
        return UnknownKeyError(f"this Container has no {kind} {path!r}; {hint}")

    def __contains__(self, path: object) -> bool:
        return dict.__contains__(self, path) or self._reach(path) is not _NOTHING

    def get(self, path: str, default: Any = None) -> Any:
        """What a key or path leads to, or `default`."""
        found = self._reach(path)
        return default if found is _NOTHING else found

    def __setitem__(self, path: str, value: Any) -> None:
        if self._live:
            self._refuse(path)
        if not isinstance(path, str) or not all(path.split("/")):
            raise EinkornError(MSG_KEY.format(key=path))
        key, _, rest = path.partition("/")
        if rest:
            inner = dict.get(self, key)
            if not isinstance(inner, Container):
                inner = Container()
                dict.__setitem__(self, key, inner)
            inner[rest] = value
        else:
            dict.__setitem__(self, key, Container(value) if type(value) is dict else value)

    def __setattr__(self, name: str, value: Any) -> None:
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

    # -- structure -----------------------------------------------------------------------------

    def flat_items(self) -> Iterator[tuple[str, Any]]:
        """The path and value of every end, in order."""
        for key, value in self.items():
            if isinstance(value, Container):
                yield from ((f"{key}/{rest}", end) for rest, end in value.flat_items())
            else:
                yield key, value

    def key_chains(self) -> list[str]:
        """The path of every end, in order."""
        return [path for path, _ in self.flat_items()]

    def to_flat_list(self) -> list[Any]:
        """Every end, in order."""
        return [end for _, end in self.flat_items()]

    def map(self, fn: Callable[..., Any], *others: Mapping[str, Any]) -> Container:
        """Apply `fn` to every end, together with those of other Containers of the same keys."""
        nested = [check_structure(self, other, "Container") for other in others]
        return _map(fn, self, nested)

    def filter(self, keep: Callable[[Any], bool]) -> Container:
        """The ends for which `keep` is true, without the Containers that become empty."""
        return Container({path: end for path, end in self.flat_items() if keep(end)})

    def copy(self) -> Container:
        """A snapshot: plain Tensors of the values as they are now, in a structure of its own."""
        return self.map(snapshot)

    def __copy__(self) -> Container:
        return self.copy()

    # -- text ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return _text(self, "")

    # -- arithmetic ----------------------------------------------------------------------------

    def _with(self, op: Callable[[Any, Any], Any], other: Any) -> Container:
        if isinstance(other, dict):
            return self.map(lambda a, b: _applied(op, a, b), other)
        if not as_operand(other):
            return NotImplemented
        return self.map(lambda a: _applied(op, a, other))

    def _under(self, op: Callable[[Any, Any], Any], other: Any) -> Container:
        return self._with(lambda a, b: op(b, a), other)

    def _each(self, op: Callable[[Any], Any]) -> Container:
        return self.map(lambda a: as_tensor(op(_operand(a)), "Container"))

    def __neg__(self) -> Container:
        return self._each(operator.neg)

    def __pos__(self) -> Container:
        return self._each(operator.pos)

    def __abs__(self) -> Container:
        return self._each(operator.abs)

    def __invert__(self) -> Container:
        return self._each(operator.invert)

    def __add__(self, other: Any) -> Container:
        return self._with(operator.add, other)

    def __radd__(self, other: Any) -> Container:
        return self._under(operator.add, other)

    def __sub__(self, other: Any) -> Container:
        return self._with(operator.sub, other)

    def __rsub__(self, other: Any) -> Container:
        return self._under(operator.sub, other)

    def __mul__(self, other: Any) -> Container:
        return self._with(operator.mul, other)

    def __rmul__(self, other: Any) -> Container:
        return self._under(operator.mul, other)

    def __truediv__(self, other: Any) -> Container:
        return self._with(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> Container:
        return self._under(operator.truediv, other)

    def __floordiv__(self, other: Any) -> Container:
        return self._with(operator.floordiv, other)

    def __rfloordiv__(self, other: Any) -> Container:
        return self._under(operator.floordiv, other)

    def __mod__(self, other: Any) -> Container:
        return self._with(operator.mod, other)

    def __rmod__(self, other: Any) -> Container:
        return self._under(operator.mod, other)

    def __pow__(self, other: Any) -> Container:
        return self._with(operator.pow, other)

    def __rpow__(self, other: Any) -> Container:
        return self._under(operator.pow, other)

    def __matmul__(self, other: Any) -> Container:
        return self._with(operator.matmul, other)

    def __rmatmul__(self, other: Any) -> Container:
        return self._under(operator.matmul, other)

    def __and__(self, other: Any) -> Container:
        return self._with(operator.and_, other)

    def __rand__(self, other: Any) -> Container:
        return self._under(operator.and_, other)

    def __or__(self, other: Any) -> Container:  # type: ignore[override] # dict's would merge
        return self._with(operator.or_, other)

    def __ror__(self, other: Any) -> Container:  # type: ignore[override]
        return self._under(operator.or_, other)

    def __ior__(self, other: Any) -> Container:  # type: ignore[override]
        return self._with(operator.or_, other)

    def __xor__(self, other: Any) -> Container:
        return self._with(operator.xor, other)

    def __rxor__(self, other: Any) -> Container:
        return self._under(operator.xor, other)

    def __lt__(self, other: Any) -> Container:
        return self._with(operator.lt, other)

    def __le__(self, other: Any) -> Container:
        return self._with(operator.le, other)

    def __gt__(self, other: Any) -> Container:
        return self._with(operator.gt, other)

    def __ge__(self, other: Any) -> Container:
        return self._with(operator.ge, other)

    def __eq__(self, other: object) -> Any:
        return self._with(operator.eq, other)

    def __ne__(self, other: object) -> Any:
        return self._with(operator.ne, other)


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


def check_structure(container: Container, other: Mapping[str, Any], what: str) -> Container:
    """`other` as a Container of the same keys; EinkornError naming the first that differs."""
    if not isinstance(other, dict):
        raise EinkornError(f"{what} needs a Container or dict, got {type(other).__name__}")
    second = other if isinstance(other, Container) else Container(other)
    difference = _difference(container, second, "")
    if difference:
        raise EinkornError(f"{what}: the structures differ at {difference}")
    return second


def _difference(a: Container, b: Container, path: str) -> str:
    """Where two Containers differ first, or nothing."""
    for key in a:
        if not dict.__contains__(b, key):
            close = difflib.get_close_matches(key, [k for k in b if k not in a], n=1)
            return f"{path + key!r}: the second has none" + (
                f", but has {path + close[0]!r}" if close else ""
            )
        inner, other = a[key], b[key]
        if isinstance(inner, Container) != isinstance(other, Container):
            first = "first" if isinstance(inner, Container) else "second"
            return f"{path + key!r}: only the {first} is nested there"
        deeper = _difference(inner, other, f"{path}{key}/") if isinstance(inner, Container) else ""
        if deeper:
            return deeper
    for key in b:
        if not dict.__contains__(a, key):
            return f"{path + key!r}: the first has none"
    return ""


def _map(fn: Callable[..., Any], a: Container, others: list[Container]) -> Container:
    new = Container()
    for key, value in a.items():
        rest = [other[key] for other in others]
        if isinstance(value, Container):
            dict.__setitem__(new, key, _map(fn, value, rest))
        else:
            dict.__setitem__(new, key, fn(value, *rest))
    return new


def _operand(x: Any) -> Any:
    """What an operator takes: tensors, and Python numbers, which stay weak."""
    return x if isinstance(x, Value) or type(x) in (bool, int, float) else as_tensor(x, "Container")


def _applied(op: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    return as_tensor(op(_operand(a), _operand(b)), "Container")


def _text(container: Container, indent: str) -> str:
    if not container:
        return "{}"
    inner = indent + " " * 4
    lines: list[str] = []
    for key, value in container.items():
        head = f"{inner}{key}: "
        body = _text(value, inner) if isinstance(value, Container) else _end_text(value, head)
        lines.append(head + body)
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _end_text(value: Any, head: str) -> str:
    if not isinstance(value, Value):
        return repr(value)
    if value._array is None or value._type.size > _PRINT_LIMIT:
        return f"(<class einkorn.Tensor> shape={list(value._type.shape)})"
    prefix = f"{head}Tensor("
    body = np.array2string(value._array, separator=", ", precision=3, prefix=prefix)
    return f"Tensor({body})"
