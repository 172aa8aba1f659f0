"""Donated arguments: tensors that a compiled call uses up, so that results can have their memory.

While the call runs, each donated tensor is the storage of a hidden leaf. Results of its type are
assigned to that leaf, and so written in place where the plan of the program allows it, as all
updates of leaves are; afterwards they take the storage with them. What was donated refuses any
further use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from einkorn.convert import is_weak
from einkorn.functions.creation import asarray
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, StateError
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace, no_grad, result
from einkorn.runtime.locks import LOCKS
from einkorn.runtime.memory import address_of
from einkorn.runtime.outputs import can_count
from einkorn.tensor import Tensor
from einkorn.tree import flatten, paths, unflatten

Array = np.ndarray[Any, Any]

MSG_USED_UP = (
    "this {type} was donated to a compiled call, which used it up; use what the call returned, or "
    "donate a copy: ek.asarray(x, copy=True)"
)
MSG_LEAF = (
    "{name}: a leaf cannot be donated, since others refer to it; assign to it inside of the "
    "function (leaf.value = ...), which writes in place, or pass leaf.detach()"
)
MSG_RECORDED = (
    "{name}: this {type} cannot be donated, since a backward pass may need it; compute the "
    "gradient inside of the function (ek.value_and_grad), or donate x.detach()"
)
MSG_TWICE = (
    "compile: {names} cannot be donated, since static_argnames or buckets name them, too; such an "
    "argument is no storage that a result could have"
)
MSG_NAMES = "compile: donate names {unknown}, but {function} has the parameters {known}"

MOST_KINDS = 16  # of donated arguments, for which there are leaves


class UsedUp(Tensor):
    """A tensor that was donated."""

    __slots__ = ()

    def _refuse(self) -> Any:
        raise StateError(MSG_USED_UP.format(type=self._type))

    def _eager(self) -> Any:
        return self._refuse()

    def _tracked(self) -> Any:
        return self._refuse()

    def _as_record(self) -> Any:
        return self._refuse()

    def __repr__(self) -> str:
        return f"Tensor({self._type}, donated)"


class Hole:
    """Stands among the arguments for a donated tensor, which is in the storage of a leaf.

    Attributes:
        leaf: a leaf that nobody else knows.
        count: counts the calls that were committed, for all arguments of a call.
    """

    __slots__ = ("__weakref__", "count", "leaf")

    def __init__(self, type: TensorType, count: Leaf) -> None:
        self.leaf = Leaf(np.zeros(type.shape, type.dtype.numpy), name="donated")
        self.count = count

    def fill(self, array: Array, is_alone: bool) -> None:
        """Make an array the storage of the leaf, or copy it when others refer to it."""
        leaf = self.leaf
        if is_alone and leaf._array is array:
            return  # what the last call left here came back
        leaf._lent = True  # the last result may be alive
        if is_alone:
            leaf._replace((array, address_of(array)))
        else:
            leaf._write(array)


class Donation:
    """The donated arguments of one compiled function."""

    def __init__(
        self,
        donate: Sequence[str] | str,
        name: str,
        parameters: Sequence[str],
        others: Iterable[str] = (),
    ) -> None:
        """
        Args:
            donate: the names of parameters.
            name: of the function, for people.
            parameters: all of its parameters.
            others: those that options name which leave no tensor to donate.
        """
        names = [donate] if isinstance(donate, str) else list(donate)
        unknown = [x for x in names if x not in parameters]
        if unknown:
            listed = ", ".join(parameters)
            raise EinkornError(MSG_NAMES.format(unknown=unknown, function=name, known=listed))
        twice = sorted(set(names) & {x.partition(".")[0] for x in others})
        if twice:
            raise EinkornError(MSG_TWICE.format(names=twice))
        self._name, self._names = name, frozenset(names)
        self._positions = frozenset(k for k, x in enumerate(parameters) if x in self._names)
        self._named: dict[Any, list[int]] = {}
        self._idle: dict[Any, list[list[Hole]]] = {}

    def clear(self) -> None:
        """Forget the leaves, and with them the memory of the last results."""
        self._named, self._idle = {}, {}

    def wrapped(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function with holes among its arguments, whose results are put into them."""

        @functools.wraps(fn)
        def filled(*args: Any, **kwargs: Any) -> Any:
            ends, structure = flatten((args, kwargs))
            holes = [x for x in ends if isinstance(x, Hole)]
            if not holes:
                return fn(*args, **kwargs)
            count = holes[0].count
            ends = [x.leaf.detach() if isinstance(x, Hole) else x for x in ends]
            inner_args, inner_kwargs = unflatten(structure, ends)
            returned, shape = flatten(fn(*inner_args, **inner_kwargs))
            for k, end in enumerate(returned):
                hole = next((x for x in holes if _fits(x, end)), None)
                if hole is not None:
                    hole.leaf.value = end
                    returned[k] = hole
                    holes.remove(hole)
            count.value = count + 1
            return unflatten(shape, returned)

        return filled

    def call(
        self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a compiled function of `wrapped`, and use up what is donated when it succeeds.

        Nothing is recorded for a backward pass.
        """
        ends, structure = flatten((args, kwargs))
        named = self._named.get(structure)
        if named is None:
            named = self._named[structure] = self._named_in(structure)
        places = [
            k for k in named if isinstance(ends[k], (np.ndarray, Value)) and not is_weak(ends[k])
        ]
        for k in places:
            ends[k] = self._checked(ends[k])
        given = [ends[k] for k in places]
        types = tuple([x._type for x in given])
        waiting = self._waiting((structure, tuple(places), types))
        try:
            holes = waiting.pop()
        except IndexError:
            count = Leaf(0, "int64", name="donated.count")
            holes = [Hole(type, count) for type in types]
        tensors = list({id(x): x for x in given}.values())
        before = _committed(holes)
        arrays = _take(given, ends, holes, tensors)
        try:
            for k, hole in zip(places, holes):
                ends[k] = hole
            inner_args, inner_kwargs = unflatten(structure, ends)
            with no_grad():
                returned, shape = flatten(run(inner_args, inner_kwargs))
            found = [_taken(x) if isinstance(x, Hole) else x for x in returned]
        except BaseException:
            if _committed(holes) == before:  # else the memory has new values
                for x, array in zip(tensors, arrays):
                    _revive(x, array)
                for hole in holes:  # its storage may be that of an argument again
                    hole.leaf._lend()
            raise
        finally:
            waiting.append(holes)  # from now on other calls fill them
        return unflatten(shape, found)

    def _waiting(self, kind: Any) -> list[list[Hole]]:
        """The leaves for one kind of arguments that no call is using."""
        found = self._idle.get(kind)
        if found is None:
            for old in list(self._idle)[: 1 - MOST_KINDS]:
                self._idle.pop(old, None)
            found = self._idle.setdefault(kind, [])
        return found

    def _named_in(self, structure: Any) -> list[int]:
        """The places of the ends of arguments that belong to the parameters."""
        rows = enumerate(paths(structure))
        return [
            k
            for k, (side, key, *_) in rows
            if (key in self._names if side else key in self._positions)
        ]

    def _checked(self, x: Any) -> Tensor:
        """A donated argument as a tensor; NumPy's arrays are copied."""
        if isinstance(x, Leaf):
            raise EinkornError(MSG_LEAF.format(name=self._name))
        tensor = x if isinstance(x, Tensor) else asarray(x, copy=True)
        if tensor._tracked() is not None:
            raise EinkornError(MSG_RECORDED.format(name=self._name, type=tensor._type))
        return tensor


def _take(
    given: list[Tensor], ends: list[Any], holes: list[Hole], tensors: list[Tensor]
) -> list[Array]:
    """Fill holes with what is given; the arrays of the tensors, which have none from now on.

    Args:
        given: what is donated.
        ends: all arguments; a tensor that is donated and passed on besides becomes another object.
        holes: one for each.
        tensors: what is given, each once.
    """
    alone = {id(x): _is_alone(x, sum(x is end for end in ends), holes) for x in tensors}
    arrays = [x._eager() for x in tensors]
    for k, end in enumerate(ends):
        if id(end) in alone:
            ends[k] = result(end._type, end._eager())
    with LOCKS.state:
        for x, hole in zip(given, holes):
            hole.fill(x._eager(), alone[id(x)])
    for x in tensors:
        x._array, x._node, x._own = None, None, None
        object.__setattr__(x, "__class__", UsedUp)
    return arrays


def _fits(hole: Hole, end: Any) -> bool:
    """Whether a result of the trace can have the storage of a hole."""
    is_result = isinstance(end, Value) and not isinstance(end, Leaf) and not end._weak
    return is_result and end._trace is current_trace.get() and end._type == hole.leaf._type


def _is_alone(x: Any, times: int, holes: Iterable[Hole]) -> bool:
    """Whether nobody but a tensor, and perhaps a hole, refers to its array or to what owns that."""
    array = x._array
    if times > 1 or x._own is not None or type(x) is not Tensor or array is None:
        return False
    if not (array.flags.c_contiguous and array.flags.writeable):
        return False
    known = sum(hole.leaf._array is array for hole in holes)
    del array
    if not can_count or _references(x) != _ALONE + known:
        return False
    return x._eager().base is None or _references_of_base(x) == _BASE_ALONE


def _references(x: Any) -> int:
    array = x._array
    return getrefcount(array)


def _references_of_base(x: Any) -> int:
    base = x._array.base
    return getrefcount(base)


def _with(array: Array) -> Tensor:
    return result(TensorType(float32, array.shape), array)


# What the counts are when nobody else refers to an array, or to the one that owns its memory.
_ALONE = _references(_with(np.empty(1, np.float32)))
_BASE_ALONE = _references_of_base(_with(np.empty(2, np.float32)[1:]))


def _committed(holes: Sequence[Hole]) -> Any:
    """How many calls were committed with these leaves."""
    return holes[0].count._eager().item() if holes else 0


def _revive(x: Any, array: Array) -> None:
    object.__setattr__(x, "__class__", Tensor)
    x._array = array


def _taken(hole: Hole) -> Tensor:
    """A result: the storage of the leaf, which is filled again before it is used."""
    return result(hole.leaf._type, hole.leaf._eager())
