"""Elegy's regularizers: terms of a loss from all parameters of the module."""

from einkorn import regularizers


class GlobalL1(regularizers.L1):
    """l * sum(|w|)."""


class GlobalL2(regularizers.L2):
    """l * sum(w**2)."""


class GlobalL1L2(regularizers.L1L2):
    """l1 * sum(|w|) + l2 * sum(w**2)."""
