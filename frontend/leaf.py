"""Leaves: mutable cells of state that tensors are computed from and compiled steps write to.

A leaf owns its storage and only einkorn writes to it. Handing the storage out (a recording, a NumPy
view) marks it lent; whoever writes next takes fresh storage, so what was handed out never changes.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from einkorn.convert import as_tensor, is_known, to_array
from einkorn.epochs import modules_changed, structure_changed
from einkorn.ir.dtypes import as_dtype
from einkorn.ir.errors import DTypeError, ShapeError, StateError, TraceError
from einkorn.ir.node import placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import Record, Value, apply, current_trace
from einkorn.runtime.locks import LOCKS
from einkorn.runtime.memory import address_of, aligned_bytes
from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

MSG_IN_PLACE = (
    "a leaf is not changed by an operator: `{name} {op}= y` would only rebind the name; write "
    "{name}.value = {name} {op} y"
)

MSG_NOT_FLOAT = (
    "only floating-point leaves can be trained, got {type}; write the numbers as floats, such as "
    "[1., 2.] for [1, 2], or give dtype='float32'"
)

MSG_SIZE = "a leaf of shape {shape} does not fit in memory; choose smaller sizes"
MSG_TRAINABLE = (
    "{name}.trainable was set while {trace} was being traced, which a compiled call would not "
    "repeat; freeze and unfreeze outside, or use ek.stop_gradient({name}) here"
)

MSG_IN_STEP = (
    "{name} was written in a callback of a step that uses it; the step would mix the values from "
    "before and after. Return what is new from the callback and assign it in the step"
)

_ids = itertools.count(1)
_kept: list[frozenset[int]] = []  # the leaves of each step in progress that may call users back


Storage = tuple[Array, int]  # with its address


class Watcher(Protocol):
    """What binds the storage of leaves and wants to know when it is no longer the right one."""

    stale: bool


def new_storage(type: TensorType) -> Storage:
    """Uninitialised, aligned memory for a leaf."""
    storage = aligned_bytes(type.nbytes).view(type.dtype.numpy).reshape(type.shape)
    return storage, address_of(storage)


@contextmanager
def kept_still(leaves: frozenset[int]) -> Generator[None]:
    """Within the block, under the state lock, the leaves of these ids are not written."""
    before = len(_kept)
    try:
        _kept.append(leaves)  # inside, for an interrupt can come right behind it
        yield
    finally:
        del _kept[before:]


def check_free(leaves: Iterable[Leaf]) -> None:
    """StateError when a step in progress, whose callback this runs in, uses one of the leaves."""
    for leaf in leaves if _kept else ():
        if any(leaf.id in ids for ids in _kept):
            raise StateError(MSG_IN_STEP.format(name=f"leaf {leaf.name or leaf.id}"))


class Leaf(Tensor):
    """A cell that holds a tensor. `leaf.value = a` copies a in: same shape and dtype.

    Attributes:
        trainable: whether gradients flow to it; only floats can be.
        name: for printed IR; a Module sets its path when it has none.
        id: a number no other leaf has.
    """

    _is_cell = True

    __slots__ = ("_address", "_grad", "_lent", "_spare", "_trainable", "_watchers", "id", "name")

    def __init__(
        self, value: Any, dtype: Any = None, *, trainable: bool = False, name: str = ""
    ) -> None:
        wanted = None if dtype is None else as_dtype(dtype)
        try:
            known = np.asarray(value) if isinstance(value, Value) else value
            array = to_array(known, wanted, "leaf")
            self._type = TensorType(as_dtype(array.dtype), array.shape)
            self._array, self._address = new_storage(self._type)
        except MemoryError:
            raise ShapeError(MSG_SIZE.format(shape=getattr(value, "shape", ()))) from None
        if trainable and not self._type.dtype.is_inexact:
            raise DTypeError(MSG_NOT_FLOAT.format(type=self._type))
        self._node = self._record = self._own = self._trace = self._grad = None
        self._weak, self._lent = False, False
        self._watchers: tuple[weakref.ref[Watcher], ...] = ()
        self._spare: Storage | None = None
        np.copyto(self._array, array)
        self._trainable, self.name, self.id = trainable, name, next(_ids)
        trace = current_trace.get()
        if trace is not None:
            trace.own.add(trace, self)

    # -- storage -------------------------------------------------------------------------------

    # What was recorded of a leaf is lent. So one that is not lent can be written in place without
    # another word: nothing refers to its storage, and no record to its value.

    def _lend(self) -> None:
        with LOCKS.state:  # not while a step is writing in place
            if not self._lent:
                self._lent = True
                self._tell(None)

    def _shared(self) -> Array:
        with LOCKS.state:
            self._lend()
            return self._eager()

    def _concrete(self, what: str) -> Array:
        trace = current_trace.get()
        if trace is not None:  # the value is that of each call
            raise trace.unknown(what, trace.node_of(self))
        return self._shared()

    def __bool__(self) -> bool:
        trace = current_trace.get()
        outcome = None if trace is None or self.size != 1 else trace.branch(self)
        return super().__bool__() if outcome is None else outcome

    def _tracked(self) -> Record | None:
        if not self._trainable:
            return None
        if self._record is None:
            with LOCKS.state:
                self._record = Record(placeholder(self._type), self._shared(), leaf=self)
        return self._record

    def _as_record(self) -> Record:
        with LOCKS.state:
            self._lend()
            return super()._as_record()

    def _watch(self, watcher: Watcher) -> None:
        """Tell `watcher` from now on when the storage is exchanged or lent."""
        living = [held for held in self._watchers if held() is not None]
        self._watchers = (*living, weakref.ref(watcher))

    def _tell(self, by: Watcher | None) -> None:
        for held in self._watchers:
            watcher = held()
            if watcher is not None and watcher is not by:
                watcher.stale = True

    def _fresh(self) -> Storage:
        """Storage for the next value: the spare one when there is one."""
        spare, self._spare = self._spare, None
        return new_storage(self._type) if spare is None else spare

    def _replace(self, storage: Storage, by: Watcher | None = None) -> None:
        """Make `storage`, already written, the value; once more does no harm.

        Args:
            storage: taken from `_fresh`.
            by: who does it and need not be told.
        """
        array, address = storage
        if not self._lent and self._array is not array:
            self._spare = (self._eager(), self._address)
        self._array, self._address, self._lent = array, address, False
        self._record = self._own = None
        self._tell(by)

    def _write(self, array: Array) -> None:
        with LOCKS.state:
            check_free((self,))
            if self._lent:
                fresh = self._fresh()
                np.copyto(fresh[0], array)
                self._replace(fresh)
            else:
                np.copyto(self._eager(), array)

    # -- value and gradient --------------------------------------------------------------------

    @property
    def value(self) -> Any:
        """The value as a read-only array; inside a trace a tensor without gradient."""
        if current_trace.get() is not None:
            return apply(Op.STOP_GRADIENT, self)
        return self.numpy()

    @value.setter
    def value(self, new: Any) -> None:
        trace = current_trace.get()
        tensor = self._checked(new, traced=trace is not None)
        if trace is not None:
            trace.assign(self, tensor)
        else:
            self._write(tensor._eager())

    def _checked(self, new: Any, traced: bool) -> Tensor:
        """The new value as a Tensor of this leaf's type."""
        what = f"leaf {self.name or self.id}"
        if is_known(new) or isinstance(new, (list, tuple)):
            new = to_array(new, self.dtype, what)
        tensor = as_tensor(new, what)
        if tensor._type.dtype is not self.dtype:
            raise DTypeError(
                f"{what} holds {self._type}, got {tensor._type}; cast it with "
                f".astype('{self.dtype}') first"
            )
        if tensor._type.shape != self.shape:
            raise ShapeError(
                f"{what} holds {self._type}, got {tensor._type}; a leaf keeps its shape; make a "
                "new one for another"
            )
        return tensor

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() has added up, or None."""
        trace = current_trace.get()
        return self._grad if trace is None else trace.grad_of(self)

    @grad.setter
    def grad(self, new: Tensor | None) -> None:
        trace = current_trace.get()
        if new is not None and new._type != self._type:
            raise ShapeError(f"the gradient of {self._type} must have its type, got {new._type}")
        if trace is not None:
            trace.set_grad(self, new)
        else:
            self._grad = new

    def zero_grad(self) -> None:
        """Set the gradient to None."""
        self.grad = None

    @property
    def trainable(self) -> bool:
        trace = current_trace.get()
        if trace is not None:
            trace.seen.leaf(self)
        return self._trainable

    @trainable.setter
    def trainable(self, on: bool) -> None:
        if not isinstance(on, bool):
            raise DTypeError(f"{self.name or 'leaf'}.trainable is True or False, got {on!r}")
        if on and not self.dtype.is_inexact:
            raise DTypeError(MSG_NOT_FLOAT.format(type=self._type))
        if on != self._trainable:
            trace = current_trace.get()
            if trace is not None:
                name = self.name or f"leaf{self.id}"
                raise TraceError(MSG_TRAINABLE.format(name=name, trace=trace.name))
            self._trainable = on
            self._record = self._own = None
            modules_changed()
            structure_changed()

    @property
    def requires_grad(self) -> bool:
        """The same as `trainable`."""
        return self._trainable

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.trainable = on

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]}, name={self.name!r})" if self.name else text

    def __reduce__(self) -> tuple[Any, ...]:
        """A leaf is stored as its value: a copy has storage and an identity of its own."""
        return _restore, (type(self), self.numpy().copy(), self._trainable, self.name)

    def __copy__(self) -> Leaf:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Leaf:
        with LOCKS.state:
            twin = type(self)(
                self._concrete("a copy of a leaf"), trainable=self._trainable, name=self.name
            )
        memo[id(self)] = twin
        return twin

    def _refuse(self, op: str) -> StateError:
        return StateError(MSG_IN_PLACE.format(name=self.name or "leaf", op=op))

    def __iadd__(self, other: Any) -> Any:
        raise self._refuse("+")

    def __isub__(self, other: Any) -> Any:
        raise self._refuse("-")

    def __imul__(self, other: Any) -> Any:
        raise self._refuse("*")

    def __itruediv__(self, other: Any) -> Any:
        raise self._refuse("/")

    def __ipow__(self, other: Any) -> Any:
        raise self._refuse("**")

    def __imatmul__(self, other: Any) -> Any:
        raise self._refuse("@")

    def __ifloordiv__(self, other: Any) -> Any:
        raise self._refuse("//")

    def __imod__(self, other: Any) -> Any:
        raise self._refuse("%")

    def __ilshift__(self, other: Any) -> Any:
        raise self._refuse("<<")

    def __irshift__(self, other: Any) -> Any:
        raise self._refuse(">>")

    def __iand__(self, other: Any) -> Any:
        raise self._refuse("&")

    def __ior__(self, other: Any) -> Any:
        raise self._refuse("|")

    def __ixor__(self, other: Any) -> Any:
        raise self._refuse("^")


class Parameter(Leaf):
    """A trainable leaf."""

    __slots__ = ()

    def __init__(
        self, value: Any, dtype: Any = None, *, trainable: bool = True, name: str = ""
    ) -> None:
        super().__init__(value, dtype, trainable=trainable, name=name)


class Counter(Leaf):
    """A number that only grows: examples of a batch that count apart leave the largest."""

    __slots__ = ()


def tensor(value: Any, dtype: Any = None, *, trainable: bool | None = None, name: str = "") -> Leaf:
    """A new leaf holding `value`; floats are trainable unless told otherwise.

    Args:
        value: an array, Tensor, number or nested list.
        dtype: the dtype to convert to; that of the value by default.
        trainable: whether gradients flow to it.
        name: for printed IR.
    """
    leaf = Leaf(value, dtype, name=name)
    leaf._trainable = leaf.dtype.is_inexact if trainable is None else trainable
    if leaf._trainable and not leaf.dtype.is_inexact:
        raise DTypeError(MSG_NOT_FLOAT.format(type=leaf._type))
    return leaf


def _restore(kind: type[Leaf], value: Array, trainable: bool, name: str) -> Leaf:
    return kind(value, trainable=trainable, name=name)
