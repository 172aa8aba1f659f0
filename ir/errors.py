"""The one family of errors that einkorn raises on purpose."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np

# The path of the module whose forward is running: "model/hidden".
module_path: ContextVar[str] = ContextVar("einkorn_module_path", default="")

_BETWEEN = ("einkorn", "contextlib", "functools", "numpy")  # never the place of a mistake


class EinkornError(Exception):
    """The base of every error raised on purpose.

    A note says where it was raised: the innermost line of the user's, and the module whose
    `forward` was running. It follows the message wherever a traceback is printed.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        place = _users_place()
        if place:
            self.add_note(place)


def _users_place() -> str:
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _BETWEEN:
            code = frame.f_code
            file = code.co_filename.replace("\\", "/").rpartition("/")[2]
            path = module_path.get()
            inside = f", in the module {path}" if path else ""
            return f"raised for {file}:{frame.f_lineno} in {code.co_name}{inside}"
        frame = frame.f_back
    return ""


class ShapeError(EinkornError, ValueError):
    """Shapes, axes or sizes that an operation does not accept."""


class DTypeError(EinkornError, TypeError):
    """dtypes, or kinds of values, that an operation does not accept."""


class BoundsError(EinkornError, IndexError):
    """An index outside its axis."""


class HostError(EinkornError):
    """A function that a step calls on the host, outside of compiled kernels, has failed."""


class LinAlgError(HostError, np.linalg.LinAlgError):
    """A matrix for which a function of linear algebra has no result, such as a singular one."""


class ExchangeError(EinkornError, BufferError):
    """Memory that cannot be exchanged with another library as it was asked for."""


class IRError(EinkornError):
    """An operation was built, rewritten, parsed or verified in a form the IR does not allow."""


class TraceError(EinkornError):
    """Code under `@ek.compile` asked for something that only exists when the step runs."""


class SizeError(TraceError):
    """A trace that serves many sizes asked for the number that one of them is.

    Attributes:
        open: what it was asked for, when that can be answered for some of the sizes at a time.
    """

    open: Any = None


class StateError(EinkornError):
    """A leaf, module or recording was used in a way that its state forbids."""


class RankError(ShapeError, AttributeError):
    """An attribute that only tensors of a higher rank have; `hasattr` gives False."""


class NoGradientError(StateError, AttributeError):
    """`.grad` of a tensor that is not a leaf; `hasattr` gives False."""
