"""`ek.print`: values printed by each call of a compiled function, as by eager code.

Inside a trace the tensors become outputs of the step. They are printed when the step has succeeded,
in the order of the program; a step that is refused prints nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from einkorn.ir.dtypes import int64
from einkorn.ir.errors import TraceError
from einkorn.ir.sizes import Size
from einkorn.leaf import Leaf
from einkorn.lengths import sized_number
from einkorn.number import Number
from einkorn.recording import current_trace, result, traced, user_origin
from einkorn.tensor import TRACED, Tensor
from einkorn.tree import flatten, unflatten

MSG_INSIDE = (
    "ek.print at {where}: inside of {name}, a function that a loop, a branch or a transform of "
    "einkorn records, there is no moment of printing; return the values (a scan stacks them) and "
    "print them outside"
)
MSG_TEXT = (
    "ek.print at {where}: the text {text!r} was made of a tensor, which has no value before {name} "
    "runs; pass the tensor itself: ek.print('loss', loss) in place of ek.print(f'loss {{loss}}')"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One call of `ek.print` in a trace.

    Attributes:
        ends: what is printed, with tensors that stand for themselves.
        structure: how it is nested, in a tuple of the parts.
        leaves: by position the class and name of those tensors that were leaves.
        sep, end, file: as of Python's print.
    """

    ends: Sequence[Any]
    structure: Any
    leaves: Mapping[int, tuple[type[Leaf], str]]
    sep: str
    end: str
    file: Any

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the ends."""
        return [x for x in self.ends if isinstance(x, (Tensor, Number))]

    def with_tensors(self, tensors: Sequence[Any]) -> Line:
        """The same with other tensors, or values of them, in their places."""
        found = iter(tensors)
        ends = [next(found) if isinstance(x, (Tensor, Number)) else x for x in self.ends]
        return replace(self, ends=ends)

    def show(self, arrays: Iterator[np.ndarray[Any, Any]]) -> None:
        """Print it, with these values of its tensors."""
        values: list[Any] = []
        for k, x in enumerate(self.ends):
            if isinstance(x, (Tensor, Number)):
                array = np.asarray(next(arrays)).copy()
                values.append(self._value(k, x, array))
        parts = unflatten(self.structure, self.with_tensors(values).ends)
        write(parts, self.sep, self.end, self.file)

    def _value(self, k: int, x: Any, array: np.ndarray[Any, Any]) -> Any:
        if type(x) is Number:
            return array.item()
        if k in self.leaves:
            kind, name = self.leaves[k]
            return kind(array, name=name)
        return result(x._type.with_shape(array.shape), array)


def write(parts: Sequence[Any], sep: str, end: str, file: Any) -> None:
    """What Python's print does with values that are known."""
    (sys.stdout if file is None else file).write(sep.join(map(str, parts)) + end)


def print(*values: Any, sep: str = " ", end: str = "\n", file: Any = None) -> None:
    """Print values, as Python's `print` does; tensors of a compiled function at each call.

    Args:
        values: tensors, nests of them and anything else; anything else, as a text that was made of
            a tensor, is what it was when the function was traced.
        sep: between the values.
        end: behind them.
        file: an open text file; standard output by default.
    """
    trace = current_trace.get()
    if trace is None:
        write(values, sep, end, file)
    elif trace.lines is None:
        raise TraceError(MSG_INSIDE.format(where=user_origin(), name=trace.name))
    else:
        ends, structure = flatten(values)
        kinds = {k: (type(x), x.name) for k, x in enumerate(ends) if isinstance(x, Leaf)}
        ends = [_as_now(trace, x) for x in ends]
        trace.lines.append(Line(ends, structure, kinds, sep, end, file))


def _as_now(trace: Any, value: Any) -> Any:
    """What stands for a value in a line: a leaf's value, a number for a size of the run."""
    if isinstance(value, Leaf):
        return traced(trace.node_of(value), trace)
    if isinstance(value, str) and TRACED in value:
        raise TraceError(MSG_TEXT.format(where=user_origin(), text=value, name=trace.name))
    return sized_number(value, int64, weak=True) if isinstance(value, Size) else value


def show_lines(lines: Sequence[Line], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Print the lines of a step, whose tensors have these values."""
    found = iter(arrays)
    for line in lines:
        line.show(found)
