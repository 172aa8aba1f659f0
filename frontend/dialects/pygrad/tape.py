"""The tape: what a tensor was computed from, and how gradients go back.

A result keeps its operands and one pull-back for all of them, which `ek.vjp` gives. Gradients are
added to the tensors themselves, so that what a tensor already had can be sent on once more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from einkorn.functions import elementwise as ew
from einkorn.functions.creation import ones, zeros
from einkorn.recording import no_grad
from einkorn.transforms.products import vjp

if TYPE_CHECKING:
    from einkorn.dialects.pygrad.tensor import Tensor

# Whether operations note where their results come from.
_recording: ContextVar[bool] = ContextVar("einkorn_pygrad_recording", default=True)


def is_recording() -> bool:
    """Whether operations note where their results come from."""
    return _recording.get()


@contextmanager
def values_only() -> Generator[None]:
    """Within the block operations compute values and nothing else."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def evaluate(
    fn: Callable[..., Any], operands: Sequence[Tensor]
) -> tuple[Any, Callable[[Any], None]]:
    """fn(operands), and what adds to their gradients that of the result."""
    wanted = [x for x in operands if x.learnable]
    if not wanted or not _recording.get():
        return fn(*(x.data for x in operands)), lambda grad: None

    def of_wanted(*values: Any) -> Any:
        given = iter(values)
        return fn(*(next(given) if x.learnable else x.data for x in operands))

    value, pull = vjp(of_wanted, *(x.data for x in wanted))

    def send(grad: Any) -> None:
        for operand, part in zip(wanted, pull(grad), strict=True):
            operand.add_grad(part)

    return value, send


def ordered(root: Tensor) -> list[Tensor]:
    """The tensors that gradients reach, operands first and the root last."""
    found: list[Tensor] = []
    seen = {id(root)}
    stack = [(root, iter(root._prev))]
    while stack:
        node, operands = stack[-1]
        following = next((x for x in operands if x.learnable and id(x) not in seen), None)
        if following is None:
            found.append(node)
            stack.pop()
        else:
            seen.add(id(following))
            stack.append((following, iter(following._prev)))
    return found


def backward(root: Tensor, reset: Iterable[Tensor]) -> None:
    """Send a gradient of ones back from the root, after the gradients of some were cleared."""
    with no_grad():
        for tensor in reset:
            tensor.reset_grad()
        root.set_grad(ones(root.shape, dtype=root.dtype))
        for tensor in reversed(root.topo or []):
            tensor.bpass()


def no_gradient(shape: tuple[int, ...], dtype: Any) -> Any:
    """A gradient of zeros."""
    return zeros(shape, dtype=dtype)


def added(old: Any, new: Any) -> Any:
    """The sum of two gradients."""
    return ew.add(old, new)
