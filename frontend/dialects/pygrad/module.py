"""`Module`: a model that finds its weights by one call, and calls with batches of any size."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from einkorn.dialects.pygrad import tape
from einkorn.dialects.pygrad.tensor import Tensor
from einkorn.functions.manipulation import broadcast_to, expand_dims
from einkorn.ir.errors import EinkornError, StateError
from einkorn.transforms.products import vjp
from einkorn.vectorize import vmap

MSG_INPUT = "{owner}: the input {name} is a weight; make it with Tensor(..., leaf=True)"
MSG_NO_CALL = "{owner}.model_copy shows the last call of the model, and there was none"
MSG_RESULT = "{owner}.forward gives one Tensor, got {kind}"


class Module:
    """The base of models: define `forward`, and call `super().__init__(x=sample)` at the end.

    Weights keep their shapes, whatever the batch: what a batch needs of them is broadcast.

    Attributes:
        weights: what `forward` learns, found by one call with the sample inputs.
        params: all tensors of that call.
        model_copy: the model as the last batch saw it; `copy` is the same. Its weights have a
            leading batch axis, and the gradient of each example.
    """

    _last: tuple[dict[str, Any], Tensor] | None = None

    def __init__(self, **inputs: Any) -> None:
        self.params, self.weights = self.parameters(**inputs)

    def forward(self, *args: Any, **inputs: Any) -> Tensor:
        """What the model computes."""
        raise EinkornError(f"{type(self).__name__} has no forward method")

    def parameters(self, **inputs: Any) -> tuple[list[Tensor], list[Tensor]]:
        """All tensors of a call with these inputs, and the weights among them."""
        return self._output(inputs).create_graph()

    def __call__(self, *args: Any, **inputs: Any) -> Tensor:
        """Run `forward`; tensors among the inputs have `leaf=True`."""
        named = inspect.signature(self.forward).bind(*args, **inputs).arguments
        out = self._output(named)
        batch = _batch_of(named)
        for weight in self.weights:
            weight._examples = batch
        self._last = (named, out)
        return out

    def call_slow(self, *args: Any, **inputs: Any) -> Tensor:
        """The same as calling the model."""
        self.model_reset()
        return self(*args, **inputs)

    def model_reset(self) -> None:
        """Forget the last batch and the gradients that it left."""
        self._last = None
        for weight in self.weights:
            weight.reset_grad()
            weight._examples = 1

    def _output(self, inputs: dict[str, Any]) -> Tensor:
        for name, x in inputs.items():
            if isinstance(x, Tensor) and x.learnable and not x.leaf:
                raise EinkornError(MSG_INPUT.format(owner=type(self).__name__, name=name))
        out = self.forward(**inputs)
        if not isinstance(out, Tensor):
            kind = type(out).__name__
            raise EinkornError(MSG_RESULT.format(owner=type(self).__name__, kind=kind))
        return out

    @property
    def model_copy(self) -> Any:
        """The model as the last batch saw it."""
        if self._last is None:
            raise StateError(MSG_NO_CALL.format(owner=type(self).__name__))
        return _Copy(self, self)

    @property
    def copy(self) -> Any:
        """The same as `model_copy`."""
        return self.model_copy

    def example_grads(self) -> list[Any]:
        """For each weight the gradients of the examples of the last batch, [B, ...].

        They come from the gradient of the output of the model, so `backward` goes before.
        """
        if self._last is None:
            raise StateError(MSG_NO_CALL.format(owner=type(self).__name__))
        inputs, out = self._last
        batch = _batch_of(inputs)
        moving = {k: x.data for k, x in inputs.items() if _is_batched(x, batch)}
        rest = {k: x for k, x in inputs.items() if k not in moving}

        def of_example(values: dict[str, Any], cotangent: Any) -> Any:
            def output(*weights: Any) -> Any:
                given = {k: Tensor.result(expand_dims(x, axis=0)) for k, x in values.items()}
                with tape.values_only(), _substituted(self.weights, weights):
                    return self.forward(**given, **rest).data

            _, pull = vjp(output, *(x.data for x in self.weights))
            found = pull(expand_dims(cotangent, axis=0))
            return tuple(x[0] if x.shape[:1] == (1,) else x for x in found)

        return list(vmap(of_example)(moving, out._grad))


@contextmanager
def _substituted(weights: list[Tensor], values: tuple[Any, ...]) -> Generator[None]:
    """Within the block weights have other values."""
    kept = [x._data for x in weights]
    try:
        for x, value in zip(weights, values, strict=True):
            x._data = value
        yield
    finally:
        for x, value in zip(weights, kept, strict=True):
            x._data = value


def _batch_of(inputs: dict[str, Any]) -> int:
    """The size of a batch: the first axis of the first tensor."""
    shapes = [x.shape for x in inputs.values() if isinstance(x, Tensor) and x.shape]
    return shapes[0][0] if shapes else 1


def _is_batched(x: Any, batch: int) -> bool:
    return isinstance(x, Tensor) and x.shape[:1] == (batch,)


class _Copy:
    """A view of a model, a layer or a list of these, in which weights have a batch axis."""

    def __init__(self, model: Module, part: Any) -> None:
        self._model, self._part = model, part

    @property
    def weights(self) -> list[_Weight]:
        """The weights of the model as the last batch saw them."""
        return [_Weight(self._model, x) for x in self._model.weights]

    def __getattr__(self, name: str) -> Any:
        return _seen(self._model, getattr(self._part, name))

    def __getitem__(self, key: Any) -> Any:
        return _seen(self._model, self._part[key])

    def __repr__(self) -> str:
        return f"copy of {self._part!r}"


def _seen(model: Module, value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Weight(model, value) if any(value is x for x in model.weights) else value
    nested = isinstance(value, (list, tuple, dict)) or hasattr(value, "__dict__")
    return _Copy(model, value) if nested and not inspect.isroutine(value) else value


class _Weight:
    """A weight as a batch saw it."""

    def __init__(self, model: Module, weight: Tensor) -> None:
        self._model, self._weight, self.label = model, weight, weight.label

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, ...]."""
        own = self._weight.shape
        return (self._weight._examples, *(own[1:] if own[:1] == (1,) else own))

    @property
    def value(self) -> Any:
        """The value, the same for each example."""
        data = self._weight.data
        return broadcast_to(data, self.shape).numpy()

    @property
    def grad(self) -> Any:
        """The gradient of each example."""
        number = next(k for k, x in enumerate(self._model.weights) if x is self._weight)
        return self._model.example_grads()[number].numpy()
