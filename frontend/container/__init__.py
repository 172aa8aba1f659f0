"""`Container`: a nested dict of tensors with attribute access, paths and recursive arithmetic."""

from einkorn.container.base import Nest, UnknownKeyError, check_structure, difference
from einkorn.container.whole import Container, as_mapping, frozen

__all__ = [
    "Container",
    "Nest",
    "UnknownKeyError",
    "as_mapping",
    "check_structure",
    "difference",
    "frozen",
]
