"""DLPack: tensors handed to other libraries, and taken from them, without a copy where possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_flag, check_device, to_array
from einkorn.functions.creation import asarray
from einkorn.ir.dtypes import as_dtype, bfloat16
from einkorn.ir.errors import DTypeError, ExchangeError
from einkorn.ir.types import TensorType
from einkorn.recording import Value, result

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

CPU = (1, 0)  # kDLCPU, device 0

MSG_OLD = (
    "this importer (max_version={version}) knows no read-only memory and might write into the "
    "tensor, so copy=False is refused; leave copy out, or import t.numpy()"
)


def to_dlpack(
    x: Tensor,
    stream: Any,
    max_version: tuple[int, int] | None,
    dl_device: tuple[Any, int] | None,
    copy: bool | None,
) -> Any:
    """`Tensor.__dlpack__`.

    Memory is shared, marked read-only, with importers that know such memory (DLPack 1.0); others
    get a copy.
    """
    if stream is not None:
        raise ExchangeError(f"__dlpack__: the CPU has no streams, got stream={stream!r}")
    if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != CPU:
        raise ExchangeError(f"__dlpack__: only device {CPU}, the CPU, is available: {dl_device}")
    if x.dtype is bfloat16:
        raise ExchangeError(
            "__dlpack__: NumPy, which makes the capsules, has no bfloat16; use "
            "t.astype('float32'), which holds every bfloat16"
        )
    copy = None if copy is None else as_flag("__dlpack__", "copy", copy)
    if max_version is None or max_version[0] < 1:
        if copy is False:
            raise ExchangeError(MSG_OLD.format(version=max_version))
        return x._concrete("__dlpack__").copy().__dlpack__()
    array = x._concrete("__dlpack__").copy() if copy else x.numpy()
    return array.__dlpack__(max_version=max_version)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor of the values of an object that has `__dlpack__`.

    The memory is shared unless it has to be converted, so do not write to it while the tensor is
    in use.

    Args:
        copy: True never shares the memory, False raises when it cannot be shared.
    """
    check_device("from_dlpack", device)
    if isinstance(x, Value):
        return asarray(x, copy=copy)
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(
            f"from_dlpack: needs an object that has __dlpack__, got {type(x).__name__}; use "
            "ek.asarray"
        )
    try:
        array = np.from_dlpack(x)
    except (BufferError, RuntimeError, AttributeError) as error:
        raise ExchangeError(f"from_dlpack: {type(x).__name__}: {error}") from None
    if copy is not None:
        return asarray(array, copy=copy)
    array = to_array(array, what="from_dlpack")
    return result(TensorType(as_dtype(array.dtype), array.shape), array=array)
