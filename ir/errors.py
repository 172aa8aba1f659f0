"""The one family of errors that einkorn raises on purpose."""

import numpy as np


class EinkornError(Exception):
    """The base of every error raised on purpose."""


class ShapeError(EinkornError, ValueError):
    """Shapes, axes or sizes that an operation does not accept."""


class DTypeError(EinkornError, TypeError):
    """dtypes, or kinds of values, that an operation does not accept."""


class BoundsError(EinkornError, IndexError):
    """An index outside its axis."""


class HostError(EinkornError):
    """A function that a step calls on the host, outside of compiled kernels, has failed."""


class LinAlgError(HostError, np.linalg.LinAlgError):
    """A matrix for which a function of linear algebra has no result, such as a singular one."""


class ExchangeError(EinkornError, BufferError):
    """Memory that cannot be exchanged with another library as it was asked for."""


class IRError(EinkornError):
    """An operation was built, rewritten, parsed or verified in a form the IR does not allow."""


class TraceError(EinkornError):
    """Code under `@ek.compile` asked for something that only exists when the step runs."""


class StateError(EinkornError):
    """A leaf, module or recording was used in a way that its state forbids."""


class RankError(ShapeError, AttributeError):
    """An attribute that only tensors of a higher rank have; `hasattr` gives False."""


class NoGradientError(StateError, AttributeError):
    """`.grad` of a tensor that is not a leaf; `hasattr` gives False."""
