"""Host functions: pure NumPy functions that a step calls from inside its one native call.

`HOST` is the closed registry: the op `host` names one of them, so that a graph, its text and its
program stay data. A function takes dense arrays and the op's integer parameters, and gives an
array, or a tuple of arrays for several results. It may raise `np.linalg.LinAlgError`.

What runs here has NumPy's numerics, on dense operands of the node's own types, in every mode.
"""

from __future__ import annotations

from typing import Any

from einkorn.ir.errors import IRError
from einkorn.ir.host import complex_numbers, fourier, linalg
from einkorn.ir.host.rule import HostFunction
from einkorn.ir.types import TensorType, Type

Ints = tuple[int, ...]

HOST: dict[str, HostFunction] = {
    **complex_numbers.FUNCTIONS,
    **fourier.FUNCTIONS,
    **linalg.FUNCTIONS,
}


def host_function(name: str) -> HostFunction:
    """The function of that name; IRError when there is none."""
    found = HOST.get(name)
    if found is None:
        raise IRError(f"there is no host function {name!r}; there are {', '.join(HOST)}")
    return found


def infer(*types: TensorType, function: str, params: Ints = ()) -> Type:
    """The shape rule of the op `host`."""
    return host_function(function).infer(*types, *params)


def run(*arrays: Any, function: str, params: Ints = ()) -> Any:
    """The reference of the op `host`: the function itself."""
    return host_function(function).run(*arrays, *params)


__all__ = ["HOST", "HostFunction", "host_function", "infer", "run"]
