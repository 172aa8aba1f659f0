"""Whose code it is (the user's, or that of einkorn, of Python or of a library), and its names."""

from __future__ import annotations

import sys
import sysconfig
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

from einkorn.ir.graph import Origin

_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


@lru_cache(maxsize=4096)
def is_user_file(path: str) -> bool:
    """Whether a source file belongs to the user; installed libraries do not."""
    if path.startswith("<"):  # typed in, or a cell of a notebook; Python's own are "<frozen ...>"
        return not path.startswith("<frozen")
    return not path.startswith(_LIBRARIES) and "site-packages" not in path


def is_user_space(names: dict[str, Any]) -> bool:
    """Whether the globals of code are those of a module outside of einkorn."""
    return str(names.get("__name__", "")).partition(".")[0] != "einkorn"


def is_user_function(fn: FunctionType) -> bool:
    """Whether a Python function was written by the user."""
    return is_user_space(fn.__globals__) and is_user_file(fn.__code__.co_filename)


def is_user_module(module: ModuleType) -> bool:
    """Whether a module was written by the user."""
    path = getattr(module, "__file__", None)
    if path is None:
        return module.__name__ == "__main__"
    return module.__name__.partition(".")[0] != "einkorn" and is_user_file(path)


def is_users(kind: type[Any]) -> bool:
    """Whether a class was written by the user."""
    name = kind.__module__
    first = name.partition(".")[0]
    if first == "einkorn" or first in sys.builtin_module_names:  # as itertools, which has no file
        return False
    module = sys.modules.get(name)
    return module is None or is_user_module(module) or not hasattr(module, "__file__")


def name_of(fn: Any) -> str:
    """An identifier for a function, or for an object that is called like one."""
    name = getattr(fn, "__name__", None) or type(fn).__name__.lower()
    return name if name.isidentifier() else "compiled"


def label_of(fn: Any) -> str:
    """The name of a function for people: that of a lambda is its line."""
    code = getattr(fn, "__code__", None)
    if code is None or code.co_name != "<lambda>":
        return name_of(fn)
    return f"<lambda> at {Origin(code.co_filename, code.co_firstlineno)}"
