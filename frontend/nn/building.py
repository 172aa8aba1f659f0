"""Building: a module whose class has a method `build` makes parameters for its first inputs.

`build` is called once, with the arguments of the first call, before `forward`; or by the user.
Also while something is traced it runs as it would outside: parameters are made at once and belong
to no trace. Their draws are counted apart from those of the model itself, which a compiled first
call makes later than an eager one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from einkorn.collector import open_collector
from einkorn.ir.errors import StateError
from einkorn.leaf import Leaf
from einkorn.random.generator import apart
from einkorn.recording import current_region, current_trace
from einkorn.running import current_call
from einkorn.runtime.locks import LOCKS
from einkorn.tunable import module_path
from einkorn.watched import made_in

# The entry of a module's `__dict__` that says that `build` is still to be called.
PENDING = "_ek_pending"
RUNNING = "running"  # its value while it runs
# The entry that says what `build` has set: each name, whether there was a value, and which.
BUILT = "_ek_built_names"

MSG_NOT_BUILT = (
    "the parameters of {owner} are asked for, but {path} has none yet: its sizes are those of the "
    "first input. Call the model once with an example before, or model.build(x), which runs "
    "nothing; or give all sizes when making it"
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
    """Within the block nothing is traced or collected, and no `forward` is running."""
    variables = (current_trace, current_region, current_call, open_collector)
    tokens = [variable.set(None) for variable in variables]
    try:
        with apart():
            yield
    finally:
        for variable, token in zip(variables, tokens):
            variable.reset(token)  # type: ignore[arg-type] # each its own


def build(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call `module.build` unless another thread has; when it raises it is still to be called."""
    state, trace = module.__dict__, current_trace.get()
    is_new = trace is not None and made_in(state, trace)  # and so are its parameters
    with LOCKS.tracing_turn(), nullcontext() if is_new else outside():
        if PENDING not in state:
            return
        before = dict(state)
        state[PENDING] = RUNNING
        try:
            module.build(*args, **kwargs)
        except BaseException:
            state[PENDING] = True
            for name in set(state) - set(before):
                delattr(module, name)
            raise
        if not state["training"] and state.keys() - before.keys():
            module.eval()  # the modules that were made, too
        del state[PENDING]
        state[BUILT] = tuple(
            (name, name in before, before.get(name))
            for name, value in state.items()
            if not name.startswith("_ek_") and (name not in before or before[name] is not value)
        )
        _, _, inner = module_path.get().partition("/")
        for name, value in state.items():
            if isinstance(value, Leaf) and not value.name:
                value.name = f"{inner}/{name}".lstrip("/").replace("/", ".")


def undo_build(module: Any) -> None:
    """Take away what `build` has made; it is to be called again."""
    state = module.__dict__
    if BUILT not in state:
        return
    for name, was_there, value in state.pop(BUILT):
        if was_there:
            setattr(module, name, value)
        elif name in state:
            delattr(module, name)
    state[PENDING] = True


def once(own: Callable[..., None]) -> Callable[..., None]:
    """A class's `build` as users may call it: it builds once, and all parts inside as well."""

    @functools.wraps(own)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.__dict__.get(PENDING) is RUNNING:
            own(self, *args, **kwargs)
            return
        build(self, args, kwargs)
        if args or kwargs:
            build_parts(self, args, kwargs)

    return checked


def build_parts(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run `module` on the types of some inputs: everything inside is built, nothing computed.

    A module that has nothing to build may still make modules in its forward.
    """
    from einkorn.compile import trace  # which is not needed to make modules

    with outside():
        trace(module)(*args, **kwargs)
