"""Ivy's Container: keys in alphabetical order, tensors printed as `ivy.array`."""

from __future__ import annotations

from typing import ClassVar

from einkorn import container
from einkorn.container.text import Format


class Container(container.Container):
    """`ek.Container` as Ivy orders and prints it."""

    __slots__ = ()
    alphabetical_keys: ClassVar[bool] = True
    default_format: ClassVar[Format] = Format(
        array_name="ivy.array", class_name="ivy.array.array.Array"
    )
