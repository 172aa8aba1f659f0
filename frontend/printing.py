"""`ek.print`: values printed by each call of a compiled function, as by eager code.

Inside a trace the tensors become outputs of the step. They are printed when the step has succeeded,
in the order of the program; a step that is refused prints nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.ir.dtypes import int64
from einkorn.ir.errors import TraceError
from einkorn.ir.sizes import Size
from einkorn.lengths import sized_number
from einkorn.number import Number
from einkorn.recording import current_trace, result, user_origin
from einkorn.tensor import Tensor

MSG_INSIDE = (
    "ek.print at {where}: inside of {name}, a function that a loop, a branch or a transform of "
    "einkorn records, there is no moment of printing; return the values (a scan stacks them) and "
    "print them outside"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One call of `ek.print` in a trace.

    Attributes:
        parts: what is printed; tensors stand for themselves.
        sep, end, file: as of Python's print.
    """

    parts: tuple[Any, ...]
    sep: str
    end: str
    file: Any

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the parts."""
        return [x for x in self.parts if isinstance(x, (Tensor, Number))]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Line:
        """The same with other tensors in their places."""
        found = iter(tensors)
        parts = tuple([next(found) if isinstance(x, (Tensor, Number)) else x for x in self.parts])
        return Line(parts, self.sep, self.end, self.file)

    def show(self) -> None:
        """Print it; every tensor has a value now."""
        texts = [x.item() if type(x) is Number else x for x in self.parts]
        file = sys.stdout if self.file is None else self.file
        file.write(self.sep.join(map(str, texts)) + self.end)


def print(*values: Any, sep: str = " ", end: str = "\n", file: Any = None) -> None:
    """Print values, as Python's `print` does; tensors of a compiled function at each call.

    Args:
        values: tensors and anything else; anything else is what it was when the function was
            traced.
        sep: between the values.
        end: behind them.
        file: an open text file; standard output by default.
    """
    trace = current_trace.get()
    line = Line(tuple(map(_printable, values)), sep, end, file)
    if trace is None:
        line.show()
    elif trace.lines is None:
        raise TraceError(MSG_INSIDE.format(where=user_origin(), name=trace.name))
    else:
        trace.lines.append(line)


def _printable(value: Any) -> Any:
    """What stands for a value in a line: a number for a size that is known when a step runs."""
    return sized_number(value, int64, weak=True) if isinstance(value, Size) else value


def show_lines(lines: Sequence[Line], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Print the lines of a step, whose tensors have these values."""
    found = iter(arrays)
    for line in lines:
        rows = [(x, np.asarray(next(found)).copy()) for x in line.tensors]
        tensors = [result(x._type.with_shape(a.shape), a, weak=x._weak) for x, a in rows]
        line.with_tensors(tensors).show()
