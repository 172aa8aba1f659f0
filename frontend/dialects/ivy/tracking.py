"""Ivy's older helpers: where a module is, what is inside, what the modules inside return."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from einkorn.dialects.ivy.building import Base
from einkorn.dialects.ivy.containers import Container
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.nn.calling import ATOL, RTOL, check_outputs
from einkorn.nn.describing import children
from einkorn.recording import current_trace

MSG_TRACED = (
    "{owner}(..., track_submod_rets=True) keeps values, which {trace} has only when it runs; "
    "return them: out, outputs = model(x, capture=True)"
)


class Tracking(Base):
    """The part of Module that older programs use; `tree`, `parent`, `path` and `capture=` do it."""

    # -- place ---------------------------------------------------------------------------------

    def top_mod(self, depth: int | None = None) -> Any:
        """The module `depth` levels above, at most the outermost, which it is by default."""
        module: Any = self
        while module.parent is not None and (depth is None or depth > 0):
            module, depth = module.parent, None if depth is None else depth - 1
        return module

    def top_v(self, depth: int | None = None, flatten_key_chains: bool = False) -> Any:
        """The variables of `top_mod(depth)`."""
        return _flat(self.top_mod(depth).v, flatten_key_chains)

    def mod_depth(self) -> int:
        """How many modules are above."""
        return len(self._ek_above()) - 1

    def mod_height(self) -> int:
        """How many levels of modules are inside."""
        return _height(self)

    def _ek_above(self, depth: int | None = None) -> list[Any]:
        """The modules from `top_mod(depth)` to this one."""
        rows: list[Any] = [self]
        while rows[0].parent is not None and (depth is None or len(rows) <= depth):
            rows.insert(0, rows[0].parent)
        return rows

    def _ek_chain(self, depth: int | None = None) -> str:
        """The path of this module in `top_mod(depth)`."""
        rows = self._ek_above(depth)
        return "/".join(_name_in(outer, inner) for outer, inner in pairwise(rows))

    def get_mod_key(self, top_mod: Any = None) -> str:
        """The path of this module in one above, the outermost one by default."""
        if top_mod is None:
            return self._ek_chain()
        rows = self._ek_above()
        if top_mod not in rows:
            raise EinkornError(f"get_mod_key: {type(top_mod).__name__} is not above this module")
        return self._ek_chain(len(rows) - 1 - rows.index(top_mod))

    def mod_with_top_mod_key_chain(
        self, depth: int | None = None, flatten_key_chain: bool = False
    ) -> Any:
        """The names of the modules from `top_mod(depth)` to this one; joined by "__" if flat."""
        rows = self._ek_above(depth)
        names = [type(rows[0]).__name__, *map(_name_in, rows, rows[1:])]
        return "__".join(names) if flatten_key_chain else names

    def v_with_top_v_key_chains(
        self, depth: int | None = None, flatten_key_chains: bool = False
    ) -> Any:
        """The variables under the keys that they have in `top_v(depth)`."""
        chain = self._ek_chain(depth)
        return _flat(Container({chain: self.v}) if chain else self.v, flatten_key_chains)

    # -- contents ------------------------------------------------------------------------------

    if TYPE_CHECKING:
        sub_mods: Any  # whose arguments are Ivy's
    else:

        def sub_mods(
            self, show_v: bool = True, depth: int | None = None, flatten_key_chains: bool = False
        ) -> Any:
            """The modules inside by name, each as those inside it or, without any, its variables.

            Args:
                show_v: whether there are variables; otherwise "".
                depth: how many levels there are.
                flatten_key_chains: put all into one level, under joined keys.
            """
            return _flat(_inside(self, show_v, depth), flatten_key_chains)

    def show_structure(self) -> None:
        """Print the modules inside."""
        sys.stdout.write(f"{self.tree()}\n")

    def show_mod_in_top_mod(
        self, upper_depth: int | None = None, lower_depth: int | None = None
    ) -> None:
        """Print the modules inside `top_mod(upper_depth)`, with a mark at this one.

        Args:
            upper_depth: how many levels above.
            lower_depth: how many levels below.
        """
        top = self.top_mod(upper_depth)
        rows = len(self._ek_above(upper_depth)) - 1
        below = None if lower_depth is None else rows + lower_depth
        sys.stdout.write(f"{top.tree(below, mark=self)}\n")

    def show_v_in_top_v(self, depth: int | None = None) -> None:
        """Print `top_v(depth)` with these variables marked."""
        chain = self._ek_chain(depth)
        if chain:
            self.top_v(depth).show_sub_container(chain)
        else:
            self.v.show()

    # -- what the modules inside return --------------------------------------------------------

    @property
    def submod_rets(self) -> dict[str, Any]:
        """What the modules inside returned in the last call with track_submod_rets, by path."""
        return dict(self.__dict__.get("_ek_rets") or {})

    @property
    def submod_call_order(self) -> list[str]:
        """The paths of those modules in the order in which they returned."""
        return list(self.submod_rets)

    def _ek_tracked(
        self, found: dict[str, Any], depth: int | None, submods: Any
    ) -> Mapping[str, Any]:
        """What was asked for, of what the modules inside returned."""
        modules: dict[str, Any] = self._ek_found().modules
        wanted = None if submods is None else {id(x) for x in submods}
        own = self.mod_depth()
        kept: dict[str, Any] = {}
        for path, out in found.items():
            module = modules[path.partition("#")[0]]
            near = depth is None or len(Tracking._ek_above(module)) - 1 - own <= depth
            if near and (wanted is None or id(module) in wanted):
                kept[path] = out
        return MappingProxyType(kept)  # in which no leaves are looked for

    def _ek_with_rets(self, call: Any, expected: Any, depth: int | None, submods: Any) -> Any:
        """The result of a call whose parts are kept, and compared with those expected."""
        trace = current_trace.get()
        if trace is not None:
            raise TraceError(MSG_TRACED.format(owner=type(self).__name__, trace=trace.name))
        out, found = call(capture=True)
        vars(self)["_ek_rets"] = self._ek_tracked(found, depth, submods)
        for path, value in (expected or {}).items():
            own: Any = value if isinstance(value, Mapping) and "val" in value else {"val": value}
            rtol, atol = own.get("rtol") or RTOL, own.get("atol") or ATOL
            check_outputs(found, {path: own["val"]}, rtol, atol, owner=type(self).__name__)
        return out


def _flat(nest: Any, wanted: bool) -> Any:
    """A Container, in one level if that is wanted."""
    return nest.flatten_key_chains() if wanted and isinstance(nest, Container) else nest


def _name_in(outer: Any, inner: Any) -> str:
    """The name under which a module holds another one."""
    return next(name for name, child in children(outer) if child is inner)


def _inside(module: Any, show_v: bool, depth: int | None, outer: tuple[int, ...] = ()) -> Any:
    below = None if depth is None else depth - 1
    outer = (*outer, id(module))
    found = [] if depth == 0 else [(k, x) for k, x in children(module) if id(x) not in outer]
    if not found:
        return module.v if show_v else ""
    ordered = sorted(found, key=itemgetter(0))
    return Container((name, _inside(child, show_v, below, outer)) for name, child in ordered)


def _height(module: Any, outer: tuple[int, ...] = ()) -> int:
    outer = (*outer, id(module))
    inner = [_height(x, outer) for _, x in children(module) if id(x) not in outer]
    return 1 + max(inner) if inner else 0
