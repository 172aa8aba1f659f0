"""What to differentiate by, `wrt`: arguments under new names, leaves, Modules, Containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from einkorn.convert import as_tensor, in_dtype, is_weak
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.node import Node, alias
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.recording import (
    Record,
    Value,
    current_region,
    current_trace,
    recorded,
    result,
    traced,
)
from einkorn.tensor import Tensor
from einkorn.tree import alike, describe, flatten, paths, unflatten

# How many functional derivatives are being taken around this point: only then are their results
# recorded themselves, for a derivative of higher order.
_depth: ContextVar[int] = ContextVar("einkorn_grad_depth", default=0)

MSG_WRT = "wrt is an argument's number, a leaf, a Module, or several of those; got {got}"
MSG_DISCRETE = (
    "{what}: cannot differentiate by {type}: integers and bool have no gradient; cast it to a "
    "float dtype, or {instead}"
)
CHOOSE = "choose another argument with wrt"
MSG_PAIR = "{what}: with has_aux=True the function must return a pair ({result}, aux), got {got}"
MSG_STRUCTURE = "{what}: {name} must have the structure {want} of {of}, got {got}"
MSG_TYPE = "{what}: {name}{where} must be {want} like {of}, got {got}"


def depth() -> int:
    """How many functional derivatives enclose this point."""
    return _depth.get()


def run_recorded(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What `fn` returns, recorded so that it can be differentiated."""
    token = _depth.set(_depth.get() + 1)
    try:
        with recorded():  # also inside no_grad(): a derivative was asked for
            return fn(*args, **kwargs)
    finally:
        _depth.reset(token)


def check_callable(what: str, fn: Any) -> None:
    """EinkornError unless `fn` can be called."""
    if not callable(fn):
        raise EinkornError(f"{what}: a function is needed as the first argument, got {fn!r}")


def split_aux(what: str, out: Any, has_aux: bool, name: str = "result") -> tuple[Any, Any]:
    """What a function returned as (result, aux)."""
    if not has_aux:
        return out, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise EinkornError(MSG_PAIR.format(what=what, result=name, got=type(out).__name__))
    return out


def settle(values: Sequence[Tensor]) -> list[Tensor]:
    """The values as a caller gets them: without history, unless a derivative is taken around."""
    return list(values) if depth() else [value.detach() for value in values]


def place(path: Sequence[Any]) -> str:
    """Where something is in a nest, for messages: " at 0/w"."""
    return f" at {'/'.join(map(str, path))}" if path else ""


def read_like(
    what: str, name: str, nest: Any, of: str, structure: Any, types: Sequence[TensorType]
) -> list[Tensor]:
    """The ends of `nest`, which must have a structure and types; Python numbers take the dtype.

    Args:
        what: the transform, for messages.
        name: what `nest` is.
        nest: what the user gave.
        of: what it must be like.
        structure: the structure of that.
        types: the types of its ends.
    """
    ends, got = flatten(nest)
    if not alike(structure, got):
        want, found = describe(structure), describe(got)
        raise EinkornError(MSG_STRUCTURE.format(what=what, name=name, want=want, of=of, got=found))
    return [
        _like(what, name, end, of, type, path)
        for end, type, path in zip(ends, types, paths(structure))
    ]


def _like(what: str, name: str, end: Any, of: str, type: TensorType, path: Sequence[Any]) -> Tensor:
    tensor = in_dtype(what, end, type.dtype) if is_weak(end) else as_tensor(end, what)
    if tensor._type != type:
        kind = DTypeError if tensor.shape == type.shape else ShapeError
        raise kind(
            MSG_TYPE.format(
                what=what, name=name, where=place(path), want=type, of=of, got=tensor._type
            )
        )
    return tensor


class Targets:
    """What to differentiate by: arguments under new names, and leaves.

    Attributes:
        args: the arguments to call the function with.
        values: every value to differentiate by.
        nodes: what they are in the recording or the trace.
    """

    def __init__(
        self,
        what: str,
        wrt: Any,
        args: Sequence[Any],
        instead: str = CHOOSE,
        growing: bool = False,
    ) -> None:
        """
        Args:
            what: the transform, for messages.
            wrt: what the user gave.
            args: the arguments of the function.
            instead: what to do about a value that has no gradient.
            growing: whether Modules may lack parameters until `grown` is called.
        """
        self._what, self._instead, self._wrt, self._growing = what, instead, wrt, growing
        self.args = list(args)
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self._renamed: dict[int, Any] = {}
        self._modules: list[tuple[Any, Any]] = []  # and their leaves
        self._plan = self._resolve(wrt)

    def grown(self) -> None:
        """Take up the parameters that Modules have made since, in their first forward."""
        self._growing = False
        if all(module._gradient_targets() is leaves for module, leaves in self._modules):
            return
        before = {id(value): node for value, node in zip(self.values, self.nodes)}
        self.values, self.nodes, self._modules = [], [], []
        self._plan = self._resolve(self._wrt)
        pairs = zip(self.values, self.nodes)
        self.nodes = [before.get(id(value), node) for value, node in pairs]

    def _leaves(self, module: Any) -> Any:
        """The trainable leaves of a Module."""
        leaves = module._gradient_targets(self._growing)
        self._modules.append((module, leaves))
        return leaves

    @property
    def types(self) -> list[TensorType]:
        return [value._type for value in self.values]

    def _resolve(self, wrt: Any) -> Any:
        if isinstance(wrt, (tuple, list)):
            return type(wrt), [self._resolve(item) for item in wrt]
        if isinstance(wrt, bool) or wrt is None or isinstance(wrt, (str, float)):
            raise EinkornError(MSG_WRT.format(got=repr(wrt)))
        if isinstance(wrt, int):
            return self._argument(wrt)
        if hasattr(wrt, "_gradient_targets"):  # a Module: its trainable leaves
            wrt = self._leaves(wrt)
        ends, structure = flatten(wrt)
        for end in ends:
            if not isinstance(end, Leaf):
                raise EinkornError(MSG_WRT.format(got=type(end).__name__))
            self._add(end)
        return structure, len(ends)

    def _argument(self, number: int) -> Any:
        if not -len(self.args) <= number < len(self.args):
            raise EinkornError(
                f"wrt={number}: the function was called with {len(self.args)} positional arguments"
            )
        number %= len(self.args)
        if hasattr(self.args[number], "_gradient_targets"):
            return self._resolve(self.args[number])
        ends, structure = flatten(self.args[number])
        if number in self._renamed:
            for x in ends:
                self._add(x)
            return structure, len(ends)
        self.args[number] = unflatten(structure, [self._rename(x) for x in ends])
        self._renamed[number] = structure
        return structure, len(ends)

    def _rename(self, x: Any) -> Tensor:
        """The argument as a tensor with a node of its own, so that other uses of it stay apart.

        A trainable leaf stays itself: as argument and as capture it has one gradient.
        """
        if isinstance(x, Leaf) and x.trainable:
            self._add(x)
            return x
        tensor = as_tensor(x, self._what)
        if not tensor.dtype.is_inexact:
            raise DTypeError(
                MSG_DISCRETE.format(what=self._what, type=tensor._type, instead=self._instead)
            )
        trace = current_trace.get()
        if trace is not None:
            new = traced(alias(trace.operand(tensor, True)), trace, tracks=True)
        else:
            record = tensor._as_record()
            region = current_region.get()
            record = record if region is None else region.bring(record)
            tensor._lend()
            inner = Record(alias(record.node), record.array, (record,))
            new = result(tensor._type, tensor._eager(), record=inner)
            if region is not None:
                region.add(inner)
        self._add(new)
        return new

    def _add(self, value: Value) -> None:
        trace = current_trace.get()
        if not value._type.dtype.is_inexact:
            raise DTypeError(
                f"cannot differentiate by {value._type}: it is not floating-point; cast it with "
                ".astype('float32')"
            )
        if isinstance(value, Leaf) and not value.trainable:
            raise EinkornError(
                f"leaf {value.name or value.id} is not trainable; set leaf.trainable = True"
            )
        if trace is not None:
            node = trace.node_of(value)
        else:
            record = value._tracked() or value._as_record()
            region = current_region.get()
            node = (record if region is None else region.bring(record)).node
        self.values.append(value)
        self.nodes.append(node)

    def rebuild(self, ends: Sequence[Any]) -> Any:
        """The structure of wrt with one end for each value."""
        return self._build(self._plan, iter(ends))

    def _build(self, plan: Any, ends: Iterator[Any]) -> Any:
        head, tail = plan
        if isinstance(tail, list):
            return head(self._build(part, ends) for part in tail)
        return unflatten(head, [next(ends) for _ in range(tail)])

    def read(self, name: str, nests: Sequence[Any], of: str) -> list[Tensor]:
        """One tensor for each value, from a nest for each of several wrt."""
        _, parts = self._plan
        types = iter(self.types)
        found: list[Tensor] = []
        for k, ((structure, count), nest) in enumerate(zip(parts, nests)):
            some = [next(types) for _ in range(count)]
            where = f"{of} {k}"
            found += read_like(self._what, f"{name} {k}", nest, where, structure, some)
        return found
