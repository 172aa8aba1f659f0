"""Elegy's networks."""

from einkorn.dialects.elegy.nets import resnet

__all__ = ["resnet"]
