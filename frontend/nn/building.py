"""Building: a module whose class has a method `build` makes parameters for its first inputs.

`build` is called once, with the arguments of the first call, before `forward`. Also while something
is traced it runs as it would outside: parameters are made at once, by draws of the global
generator, and belong to no trace.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from einkorn.ir.errors import StateError
from einkorn.leaf import Leaf
from einkorn.recording import current_region, current_trace
from einkorn.runtime.locks import LOCKS
from einkorn.tunable import module_path

# The entry of a module's `__dict__` that says that `build` is still to be called.
PENDING = "_ek_pending"

MSG_NOT_BUILT = (
    "the parameters of {owner} are asked for, but {path} has none yet: its sizes are those of the "
    "first input. Call the model once with an example before, or give all sizes when making it"
)


def built(module: Any) -> None:
    """Note that `build` has nothing left to do."""
    module.__dict__.pop(PENDING, None)


def check_built(owner: str, modules: Mapping[str, Any]) -> None:
    """StateError when one of the modules inside of `owner`, by path, is still to be built."""
    for path, module in modules.items():
        if PENDING in module.__dict__:
            place = f"{path or 'it'} ({module})"
            raise StateError(MSG_NOT_BUILT.format(owner=owner, path=place))


@contextmanager
def outside() -> Generator[None]:
    """Within the block nothing is traced."""
    trace, region = current_trace.set(None), current_region.set(None)
    try:
        yield
    finally:
        current_region.reset(region)
        current_trace.reset(trace)


def build(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call `module.build` unless another thread has; when it raises it is still to be called."""
    with LOCKS.tracing, outside():
        state = module.__dict__
        if PENDING not in state:
            return
        before = set(state)
        module.build(*args, **kwargs)
        if not module.training and state.keys() - before:
            module.eval()  # the modules that were made, too
        del state[PENDING]
        _, _, inner = module_path.get().partition("/")
        for name, value in state.items():
            if isinstance(value, Leaf) and not value.name:
                value.name = f"{inner}/{name}".lstrip("/").replace("/", ".")
