"""Hooks: what code inside `forward` tells whoever runs the model, and what it asks for.

A value that is added goes to the innermost `ek.nn.collect()`; without one it is dropped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from einkorn.collector import LOSSES, METRICS, SUMMARIES, current_collector
from einkorn.convert import as_flag, as_tensor, snapshot
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.nn.module import Module
from einkorn.random.generator import Key, next_key
from einkorn.recording import Value
from einkorn.running import current_call
from einkorn.surroundings import surrounded, surroundings
from einkorn.tree import tree_map

MSG_NAME = "{what}: a name is text that is not empty, got {name!r}"
MSG_LOSS = "ek.add_loss({name!r}): a loss is a floating-point scalar, got {type}; {instead}"


def add_loss(name: str, value: Any) -> None:
    """Add a term to the loss: a regularizer of a layer's activations, say.

    Args:
        name: gets "_loss" at its end unless it ends in "loss", and the module's path in front.
            Values added under one name are summed.
        value: a floating-point scalar; gradients flow through it.
    """
    name = _checked("ek.add_loss", name)
    collector = current_collector()
    if collector is None:
        return
    collector.check(f"ek.add_loss({name!r})")
    loss = snapshot(as_tensor(value, "add_loss"))
    if not loss.dtype.is_float:
        raise DTypeError(MSG_LOSS.format(name=name, type=loss._type, instead="cast it to a float"))
    if loss.shape:
        instead = "take .mean() or .sum() first"
        raise ShapeError(MSG_LOSS.format(name=name, type=loss._type, instead=instead))
    collector.add(LOSSES, name if name.endswith("loss") else f"{name}_loss", loss)


def add_metric(name: str, value: Any) -> None:
    """Report a tensor, with no gradient.

    Args:
        name: gets the module's path in front, and a number behind when it is taken: acc, acc_1.
        value: a tensor, an array or a number.
    """
    name = _checked("ek.add_metric", name)
    collector = current_collector()
    if collector is None:
        return
    collector.check(f"ek.add_metric({name!r})")
    collector.add(METRICS, name, as_tensor(value, "add_metric").detach())


def add_summary(name_or_module: Any, value: Any) -> None:
    """Keep something to look at: activations, an image.

    Args:
        name_or_module: a name, which gets the module's path in front, or a module: its name then.
        value: a nest of tensors and anything else.
    """
    name = name_or_module
    if isinstance(name, Module):
        name = name.__dict__.get("_ek_name") or type(name).__name__.lower()
    name = _checked("ek.add_summary", name)
    collector = current_collector()
    if collector is None:
        return
    collector.check(f"ek.add_summary({name!r})")
    kept = tree_map(lambda x: as_tensor(x, "add_summary").detach() if _is_data(x) else x, value)
    collector.add(SUMMARIES, name, kept)


def training() -> bool:
    """Whether the module whose forward is running trains; True outside of modules."""
    call = current_call.get()
    if call is not None:
        return call.module.training
    return surroundings.get().training is not False


def training_context(training: bool) -> AbstractContextManager[None]:
    """Within the block all modules train, or none, whatever `train()` and `eval()` said.

    It belongs to the thread or the asyncio task; a compiled function has a trace for each mode.
    """
    flag = as_flag("training_context", "training", training)
    return surrounded(surroundings.get()._replace(training=flag))


def next_rng_key() -> Key:
    """A key that was never given before: pass it to draws, `ek.random.split` or `fold_in`.

    It comes from the global generator, whose counter moves on by one, as by a draw.
    """
    return next_key()


def _checked(what: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise EinkornError(MSG_NAME.format(what=what, name=name))
    return name


def _is_data(x: Any) -> bool:
    return isinstance(x, Value) or hasattr(x, "__array__")
