"""Gradients as Ivy asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from einkorn.container.base import is_array
from einkorn.dialects.ivy.containers import Container
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import ones_like, zeros_like
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Leaf, Parameter
from einkorn.recording import current_trace
from einkorn.tensor import Tensor
from einkorn.transforms import gradients
from einkorn.transforms.jacobians import jacobian
from einkorn.transforms.products import vjp
from einkorn.tree import tree_map

Chains = Sequence[Sequence[str | int]]

MSG_LOSS = (
    "execute_with_gradients: func returned {kind}; say with ret_grad_idxs=[[key]] which of it the "
    "gradients are of"
)
MSG_CHAIN = "execute_with_gradients: {what}={chain!r}: {kind} has no {step!r}"


def execute_with_gradients(
    func: Callable[[Any], Any],
    xs: Any,
    retain_grads: bool = False,
    xs_grad_idxs: Chains | None = None,
    ret_grad_idxs: Chains | None = None,
) -> tuple[Any, Any]:
    """What `func(xs)` returns, and its gradient.

    Args:
        xs: an array, or arrays in Containers, dicts, lists.
        retain_grads: of no effect: functions of gradients can always be differentiated.
        xs_grad_idxs: by which of `xs`, as chains of keys such as [["a", "w"], ["b"]]; all of them
            by default.
        ret_grad_idxs: the scalars of what `func` returns that gradients are wanted of, as such
            chains; by default all of it, or the first of a tuple or list.

    Returns:
        (what `func` returns, gradients). Gradients have the structure of `xs`; with xs_grad_idxs
        they are a Container of the chains if `xs` has keys, else a list. When ret_grad_idxs has
        several chains they are a Container of gradients by chain.
    """
    chains = None if xs_grad_idxs is None else [tuple(chain) for chain in xs_grad_idxs]
    targets = xs if chains is None else [_at("xs_grad_idxs", xs, chain) for chain in chains]

    def both(values: Any) -> tuple[Any, Any]:
        ret = func(values if chains is None else _with(xs, dict(zip(chains, values, strict=True))))
        wanted = _ret_chains(ret, ret_grad_idxs)
        found = [_at("ret_grad_idxs", ret, chain) for chain in wanted]
        return (found[0] if len(found) == 1 else found), ret

    if ret_grad_idxs is None or len(ret_grad_idxs) == 1:
        (_, ret), grads = gradients.value_and_grad(both, has_aux=True)(targets)
        return ret, _named(xs, chains, grads)
    losses, pull, ret = vjp(both, targets, has_aux=True)
    found = Container()
    for number, chain in enumerate(ret_grad_idxs):
        seeds = [(ones_like if k == number else zeros_like)(x) for k, x in enumerate(losses)]
        found["/".join(map(str, chain))] = _named(xs, chains, pull(seeds)[0])
    return ret, found


def _ret_chains(ret: Any, given: Chains | None) -> Chains:
    if given is not None:
        return given
    if isinstance(ret, Mapping):
        raise EinkornError(MSG_LOSS.format(kind=f"a {type(ret).__name__}"))
    return [[0]] if isinstance(ret, (tuple, list)) else [[]]


def _at(what: str, nest: Any, chain: Sequence[Any]) -> Any:
    """What a chain of keys leads to."""
    for step in chain:
        try:
            nest = nest[step]
        except (KeyError, IndexError, TypeError):
            kind = f"a {type(nest).__name__}"
            text = MSG_CHAIN.format(what=what, chain=list(chain), kind=kind, step=step)
            raise EinkornError(text) from None
    return nest


def _with(nest: Any, values: Mapping[tuple[Any, ...], Any], chain: tuple[Any, ...] = ()) -> Any:
    """A nest with other values at some chains of keys."""
    if chain in values:
        return values[chain]
    if isinstance(nest, dict):
        items = ((key, _with(x, values, (*chain, key))) for key, x in nest.items())
        return type(nest)(items)
    if isinstance(nest, (list, tuple)):
        return type(nest)(_with(x, values, (*chain, k)) for k, x in enumerate(nest))
    return nest


def _named(xs: Any, chains: list[tuple[Any, ...]] | None, grads: Any) -> Any:
    if chains is None or not isinstance(xs, Mapping):
        return grads
    keys = ("/".join(map(str, chain)) for chain in chains)
    return Container(zip(keys, grads, strict=True))


def grad(func: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that gives the gradient of `func` by some of its arguments."""
    wrt = argnums if isinstance(argnums, int) else tuple(argnums)
    return gradients.grad(func, wrt)


def value_and_grad(func: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """A function that gives the value of `func` and its gradient by the first argument."""
    return gradients.value_and_grad(func)


def jac(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func` by its first argument."""
    return jacobian(func)


def stop_gradient(x: Any, preserve_type: bool = True) -> Any:
    """x, an array or nested arrays, with no gradient flowing back through it."""
    return tree_map(lambda end: ew.stop_gradient(end) if is_array(end) else end, x)


def requires_gradient(x: Any) -> bool:
    """Whether gradients flow through an array."""
    trace = current_trace.get()
    if not isinstance(x, Tensor):
        return False
    return x.requires_grad if trace is None else trace.tracks(x)


def variable(x: Any, dtype: Any = None) -> Parameter:
    """A variable that holds x."""
    return Parameter(x, dtype)


def is_variable(x: Any, exclusive: bool = False) -> bool:
    """Whether x is a variable."""
    return isinstance(x, Leaf) and x.trainable
