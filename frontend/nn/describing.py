"""How a Module shows what is inside: its text, its tree, where it is itself, its summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.leaf import Leaf
from einkorn.nn.structure import INTERNAL, PARENT, listed

if TYPE_CHECKING:
    from einkorn.nn.structure import Structure
    from einkorn.nn.summary_table import Summary


class Place:
    """A property that an attribute of the same name replaces: users have parents and paths too."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self._get, self.__doc__ = get, get.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._get(instance)


class Described:
    """The part of Module that is about reading it."""

    if TYPE_CHECKING:
        __dict__: dict[str, Any]

        def _ek_found(self) -> Structure: ...

    # -- text ----------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed form, such as sizes."""
        return ""

    def __repr__(self) -> str:
        return self._ek_text("", ())

    def _ek_text(self, indent: str, outer: tuple[int, ...]) -> str:
        head = f"{type(self).__name__}({self.extra_repr()}"
        if id(self) in outer:
            return head + "...)"
        inner = indent + "  "
        lines = [
            f"{inner}({name}): {child._ek_text(inner, (*outer, id(self)))}"
            for name, child in children(self)
        ]
        return head + ("\n" + "\n".join(lines) + f"\n{indent})" if lines else ")")

    def tree(self, depth: int | None = None, mark: Any = None) -> str:
        """The modules inside as a tree, with the number of parameters of each.

        One that was shown before is named by its first path.

        Args:
            depth: how many levels are shown.
            mark: a module whose part of the tree has ">" in front of its lines.
        """
        check_depth("tree", depth)
        lines = list(_branches(self, "", depth, {}, mark))
        if mark is None:
            return "\n".join(text for text, _ in lines)
        return "\n".join(f"{'>' if is_marked else ' '} {text}" for text, is_marked in lines)

    def sub_mods(self, depth: int | None = None) -> dict[str, Any]:
        """The modules inside by their paths, each once, down to some depth."""
        check_depth("sub_mods", depth)
        found: dict[str, Any] = {}
        level: list[tuple[str, Any]] = [("", self)]
        seen = {id(self)}
        while level and (depth is None or depth > 0):
            depth = None if depth is None else depth - 1
            below: list[tuple[str, Any]] = []
            for path, module in level:
                for name, child in children(module):
                    if id(child) not in seen:
                        seen.add(id(child))
                        below.append((f"{path}/{name}" if path else name, child))
            found.update(below)
            level = below
        return found

    # -- place ---------------------------------------------------------------------------------

    @Place
    def parent(self) -> Any:
        """The module that holds this one, the first one when there are several; None without."""
        held = self.__dict__.get(PARENT)
        above = None if held is None else held()
        if above is None or not any(child is self for _, child in children(above)):
            return None
        return above

    @Place
    def root(self) -> Any:
        """The outermost module that holds this one; itself when none does."""
        module, seen = self, {id(self)}
        while True:
            above = type(module).parent.__get__(module)
            if above is None or id(above) in seen:
                return module
            seen.add(id(above))
            module = above

    @Place
    def path(self) -> str:
        """Where this module is in the outermost one: "encoder/layers/v0"; "" for that itself."""
        found = type(self).root.__get__(self)._ek_found().modules
        return next((path for path, module in found.items() if module is self), "")

    # -- what it does --------------------------------------------------------------------------

    def graph(self, *inputs: Any, **named: Any) -> Graph:
        """The IR of a call with these inputs; nothing is run and no state changes."""
        from einkorn.compile import trace  # which is not needed to make modules

        return trace(self)(*inputs, **named)  # type: ignore[arg-type] # a Module

    def summary(
        self, *inputs: Any, depth: int | None = None, measure: bool = True, **named: Any
    ) -> Summary:
        """A table of the modules inside, for a call with these inputs; no state changes.

        For each: the output's shape and dtype, parameters and their bytes, operations by the cost
        model of the compiler and, where it can be called alone, the time of a compiled call.

        Args:
            inputs: example inputs, arrays or tensors.
            depth: how many levels are shown.
            measure: whether each module is compiled and timed by itself.
            named: further inputs.
        """
        from einkorn.nn.summary import summary

        return summary(self, inputs, named, depth, measure)


def check_depth(what: str, depth: Any) -> None:
    """EinkornError unless `depth` is None or a number of levels."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise EinkornError(f"{what}: depth is a number of levels, got {depth!r}")


def children(holder: Any, nests: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The modules directly inside, with the paths under which they are held."""
    if isinstance(holder, Described):
        holder = holder.__dict__
    for raw, value in list(holder.items()) if isinstance(holder, dict) else listed(holder):
        key = str(raw).lstrip("_")
        if raw in INTERNAL or id(value) in nests:
            continue
        if isinstance(value, Described):
            yield key, value
        elif isinstance(value, (list, tuple, dict)):
            yield from ((f"{key}/{k}", x) for k, x in children(value, (*nests, id(value))))


def own_leaves(module: Any) -> list[Leaf]:
    """Every parameter of a module and of those inside, built or not."""
    return module._ek_found().v.to_flat_list()


def _branches(
    module: Any, path: str, depth: int | None, seen: dict[int, str], mark: Any
) -> Iterator[tuple[str, bool]]:
    """The lines of a tree below a module, each with whether it is marked."""
    seen[id(module)] = path
    count = sum(leaf.size for leaf in own_leaves(module))
    is_marked = module is mark
    yield f"{type(module).__name__}({module.extra_repr()})  {count:,}", is_marked
    inside = list(children(module)) if depth is None or depth > 0 else []
    for k, (name, child) in enumerate(inside):
        last = k == len(inside) - 1
        stem, more = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if id(child) in seen:
            first = seen[id(child)] or "the root"
            yield f"{stem}{name}: {type(child).__name__}, the same as {first}", is_marked
            continue
        below = None if depth is None else depth - 1
        inner = _branches(child, f"{path}/{name}" if path else name, below, seen, mark)
        for number, (text, flag) in enumerate(inner):
            head = f"{stem}{name}: " if number == 0 else more
            yield head + text, flag or is_marked
