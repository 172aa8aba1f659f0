"""Ivy's Module: variables come from `_create_variables`, the call is `_forward`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from einkorn import nn
from einkorn.convert import check_device
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.initializers import GlorotUniform, Zeros
from einkorn.functions.linear_algebra import linear
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Leaf, Parameter
from einkorn.tensor import Tensor


class Module(nn.Module):
    """A module whose `__init__` is called last in that of a subclass, and makes its variables.

    Args:
        dev: "cpu" or None; `device` is the same.
        v: values for the variables, in the structure of `self.v`.
        with_partial_v: whether `v` may lack some of them.
    """

    _ek_container: ClassVar[type[Container]] = Container

    def __init__(
        self,
        dev: Any = None,
        v: Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        dtype: Any = "float32",
        training: bool = True,
        with_partial_v: bool = False,
    ) -> None:
        check_device(type(self).__name__, dev or device)
        created = self._create_variables(*_arguments(self._create_variables, dev or device, dtype))
        for name, value in created.items():
            if name in self.__dict__:
                raise EinkornError(
                    f"{type(self).__name__}._create_variables: {name!r} is also the name of an "
                    "attribute; rename one"
                )
            setattr(self, name, _as_variables(value))
        if v is not None and with_partial_v:
            self.set_parameters(v)
        elif v is not None:
            self.v = v
        self.train(training)

    def _create_variables(self, dev: Any) -> Mapping[str, Any]:
        """The variables of this module alone, by name; none unless a subclass makes some."""
        return {}

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise EinkornError(f"{type(self).__name__} has no _forward method")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """`_forward`, which is what subclasses define."""
        return self._forward(*args, **kwargs)


def _arguments(method: Any, dev: Any, dtype: Any) -> list[Any]:
    """What a `_create_variables` takes: the device, and a dtype when it names one."""
    names = inspect.signature(method).parameters
    return [dtype if name == "dtype" else dev for name in names]


def _as_variables(value: Any) -> Any:
    """Values, nested or not, as parameters."""
    if isinstance(value, Mapping):
        return {key: _as_variables(item) for key, item in value.items()}
    return value if isinstance(value, Leaf) else Parameter(value)


class Linear(Module):
    """x @ w.T + b, with `w` of shape (output_channels, input_channels)."""

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        weight_initializer: Any = None,
        bias_initializer: Any = None,
        with_bias: bool = True,
        dev: Any = None,
        v: Mapping[str, Any] | None = None,
    ) -> None:
        self._input_channels, self._output_channels = input_channels, output_channels
        self._w_init = weight_initializer or GlorotUniform()
        self._b_init = bias_initializer or Zeros()
        self._with_bias = with_bias
        Module.__init__(self, dev, v)

    def _create_variables(self, dev: Any) -> Mapping[str, Any]:
        out, into = self._output_channels, self._input_channels
        v = {"w": self._w_init.create_variables((out, into), dev, out, into)}
        if self._with_bias:
            v["b"] = self._b_init.create_variables((out,), dev, out, into)
        return v

    def _forward(self, x: Any) -> Tensor:
        return linear(x, self.v.w, self.v.b if self._with_bias else None)


class Sequential(Module, nn.Sequential):
    """Each module is called with the result of the one before."""

    def __init__(self, *modules: nn.Module, dev: Any = None, v: Any = None) -> None:
        nn.Sequential.__init__(self, *modules)
        Module.__init__(self, dev, v)

    def _forward(self, x: Any) -> Any:
        return nn.Sequential.forward(self, x)
