"""The printed form of a Container: one key a line, small values in full, large ones by shape.

{
    b: Tensor([0.]),
    w: (<class einkorn.Tensor> shape=[1, 64])
}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.recording import Value

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Format:
    """How a Container prints.

    Attributes:
        print_limit: up to this many elements a value is printed, above it only its shape.
        print_indent: the spaces for each level.
        print_line_spacing: the empty lines between items.
        key_length_limit: longer keys are cut to this many characters; None for never.
        array_name: what stands before the values of a tensor.
        class_name: the class that is named in place of values.
    """

    print_limit: int = 10
    print_indent: int = 4
    print_line_spacing: int = 0
    key_length_limit: int | None = None
    array_name: str = "Tensor"
    class_name: str = "einkorn.Tensor"


def text(container: Any, colour: bool = False) -> str:
    """The printed form of a Container; with colour the keys are green."""
    return _nest(container, "", container._format, colour)


def _nest(container: Any, indent: str, form: Format, colour: bool) -> str:
    if not container:
        return "{}"
    inner = indent + " " * form.print_indent
    lines: list[str] = []
    for key, value in container.items():
        name = shortened(key, form.key_length_limit)
        head = f"{inner}{name}: "
        nested = isinstance(value, dict) and hasattr(value, "_format")
        body = _nest(value, inner, form, colour) if nested else end_text(value, len(head), form)
        shown = f"{inner}{GREEN}{name}{PLAIN}: " if colour else head
        lines.append(shown + body)
    separator = "," + "\n" * (1 + form.print_line_spacing)
    return "{\n" + separator.join(lines) + f"\n{indent}}}"


def shortened(key: str, limit: int | None) -> str:
    """A key of at most so many characters."""
    return key if limit is None or len(key) <= limit else key[:limit] + ".."


def end_text(value: Any, column: int, form: Format) -> str:
    """One end, whose text starts at a column."""
    if isinstance(value, Value):
        array, kind, name = value._array, form.class_name, form.array_name
        shape, size = value._type.shape, value._type.size
    elif isinstance(value, np.ndarray):
        array, kind, name = value, "numpy.ndarray", "array"
        shape, size = value.shape, value.size
    else:
        return repr(value)
    if array is None or size > form.print_limit:
        return f"(<class {kind}> shape={list(shape)})"
    return f"{name}({_rows(np.asarray(array), column + len(name) + 1)})"


def _rows(array: Any, column: int) -> str:
    """The values of an array, rows below each other."""
    if array.ndim == 0:
        return number(array[()])
    if array.ndim == 1:
        return f"[{', '.join(number(x) for x in array)}]"
    separator = ",\n" + " " * (column + 1)
    return f"[{separator.join(_rows(row, column + 1) for row in array)}]"


def number(x: Any) -> str:
    """One number to three decimals: 0.25, 1., -3; far from 1 with an exponent."""
    if x.dtype.kind in "biu":
        return str(x)
    if x.dtype.kind == "c":
        return np.array2string(x, precision=3)
    value = float(x)
    if value and np.isfinite(value) and not 1e-3 <= abs(value) < 1e8:
        return np.format_float_scientific(value, precision=3, trim=".")
    return np.format_float_positional(value, precision=3, trim=".")
