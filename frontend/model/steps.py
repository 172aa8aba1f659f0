"""The steps of a `Model`, and the parts that they are made from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.collector import collect
from einkorn.compile import Compiled
from einkorn.convert import as_flag, as_tensor
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import EinkornError, StateError
from einkorn.metrics.base import Mean, Metric
from einkorn.model.checkpoint import Progress
from einkorn.model.injection import call_module
from einkorn.model.logs import Logs, Packing
from einkorn.model.parts import MetricSet, terms_of, unique
from einkorn.nn.building import outside
from einkorn.nn.hooks import training_context
from einkorn.nn.module import Module
from einkorn.optim.adam import Adam
from einkorn.optim.base import Optimizer
from einkorn.recording import no_grad
from einkorn.tensor import Tensor
from einkorn.transforms.gradients import value_and_grad
from einkorn.tree import flatten, tree_map

MSG_MODULE = "ek.Model needs an ek.nn.Module, or a class of one, got {module!r}"
MSG_OPTIMIZER = (
    "the optimizer of a Model is an ek.optim.Optimizer, or a function that makes one from the "
    "module, such as lambda module: ek.optim.SGD(module, lr=0.1); got {optimizer!r}"
)
MSG_NO_LOSS = (
    "{what}: there is nothing to minimise: give the Model a loss, or call ek.add_loss in a forward"
)
MSG_FOREIGN = (
    "fit: the optimizer {optimizer} was made for other parameters: its {path} is none of the "
    "module {module}; make one for model.module and assign it to model.optimizer"
)
NOTICE = "ek.Model was given no optimizer: it trains with ek.optim.Adam(module, lr=1e-3)\n"
_PARTS = ("module", "loss", "metrics", "optimizer", "run_eagerly")


class Steps:
    """What one step of training, evaluation or prediction computes, and how it is called."""

    if TYPE_CHECKING:
        module: Module
        optimizer: Any
        run_eagerly: bool
        progress: Progress
        _is_built: bool
        _make_optimizer: Any
        _means: dict[str, Mean]
        _metrics: MetricSet
        _steps: dict[Any, Any]
        _terms: list[Any]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: all but the compiled steps, which it makes anew, and the callbacks."""
        return {**self.__dict__, "_steps": {}, "_callbacks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARTS:
            value = getattr(self, f"_checked_{name}")(value)
            self.__dict__["_steps"] = {}
        object.__setattr__(self, name, value)

    def _checked_module(self, module: Any) -> Module:
        made = module() if isinstance(module, type) and issubclass(module, Module) else module
        if not isinstance(made, Module):
            raise EinkornError(MSG_MODULE.format(module=module))
        self.__dict__["_is_built"] = False
        return made

    def _checked_loss(self, loss: Any) -> Any:
        self.__dict__["_terms"] = terms_of(loss)
        self.__dict__["_means"] = dict[str, Mean]()
        return loss

    def _checked_metrics(self, metrics: Any) -> Any:
        self.__dict__["_metrics"] = MetricSet(metrics)
        return metrics

    def _checked_optimizer(self, optimizer: Any) -> Any:
        self.__dict__["_make_optimizer"] = None
        if optimizer is None or isinstance(optimizer, Optimizer):
            return optimizer
        if not callable(optimizer):
            raise EinkornError(MSG_OPTIMIZER.format(optimizer=optimizer))
        self.__dict__["_make_optimizer"] = optimizer
        return None

    def _checked_run_eagerly(self, flag: Any) -> bool:
        return as_flag("Model", "run_eagerly", flag)

    # -- what may be overridden: these run inside of the compiled steps ------------------------

    def call(self, x: Any, training: bool) -> Any:
        """The predictions for inputs."""
        return call_module(self.module, x, self._injected(training))

    def _injected(self, training: bool) -> dict[str, Any]:
        """What a module may ask for besides inputs."""
        known = self.module._ek_found()  # in the first call some sizes are still unknown
        return {"training": training, "parameters": known.v, "states": known.buffers}

    def loss_fn(
        self, x: Any, y_true: Any, sample_weight: Any, class_weight: Any, training: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """The loss, and what it was computed from: `y_pred`, its `terms`, metrics of hooks."""
        with collect() as found:
            y_pred = self.call(x, training)
        values = {
            "x": x,
            "y_true": y_true,
            "y_pred": y_pred,
            "sample_weight": sample_weight,
            "class_weight": class_weight,
            "training": training,
            "parameters": self.module.v,
            "states": self.module.buffers,
        }
        terms = [pair for term in self._terms for pair in term(values)]
        terms += list(found.losses.items())
        if not terms:
            raise StateError(MSG_NO_LOSS.format(what="fit" if training else "evaluate"))
        total = terms[0][1]
        for _, loss in terms[1:]:
            total = ew.add(total, loss)
        seen: dict[str, Any] = {}
        for name, loss in terms if len(terms) > 1 else ():
            seen[name] = ew.add(seen[name], loss) if name in seen else loss
        return total, {"y_pred": y_pred, "terms": seen, "hooked": dict(found.metrics)}

    def train_step(self, x: Any, y_true: Any, sample_weight: Any, class_weight: Any) -> Any:
        """One step of training: gives the logs, a dict of tensors."""

        def total() -> Any:
            return self.loss_fn(x, y_true, sample_weight, class_weight, training=True)

        (loss, found), grads = value_and_grad(total, self.module, has_aux=True)()
        self._check_optimizer()
        self.optimizer.step(grads)
        return self.update_metrics(x, y_true, sample_weight, loss, found)

    def test_step(self, x: Any, y_true: Any, sample_weight: Any, class_weight: Any) -> Any:
        """The evaluation of one batch: gives the logs, a dict of tensors."""
        loss, found = self.loss_fn(x, y_true, sample_weight, class_weight, training=False)
        return self.update_metrics(x, y_true, sample_weight, loss, found)

    def predict_step(self, x: Any) -> Any:
        """The predictions for one batch."""
        return self.call(x, training=False)

    def update_metrics(
        self, x: Any, y_true: Any, sample_weight: Any, loss: Any, found: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Move loss and metrics on by one batch; gives their values so far."""
        size = float(_samples(x))
        numbers = {"loss": loss, **found["terms"], **found["hooked"]}
        logs: dict[str, Any] = {}
        with no_grad():
            for name, value in numbers.items():
                mean = self._metric_named(f"mean/{name}")
                mean.update(value, size if not np.shape(value) else None)
                logs[name] = mean.compute()
            self._metrics.update(
                {
                    "x": x,
                    "y_true": y_true,
                    "y_pred": found["y_pred"],
                    "sample_weight": sample_weight,
                    "parameters": self.module.v,
                    "states": self.module.buffers,
                }
            )
            for name, value in self._metrics.compute().items():
                logs[unique(name, logs)] = value
        return logs

    def _check_optimizer(self) -> None:
        """Refuse an optimizer of another module: it would train that one."""
        own = {id(leaf) for leaf in self.module.parameters()}
        for path, leaf in self.optimizer._params.flat_items():
            if id(leaf) not in own:
                name, kind = type(self.optimizer).__name__, type(self.module).__name__
                raise StateError(MSG_FOREIGN.format(optimizer=name, path=path, module=kind))

    # -- steps ---------------------------------------------------------------------------------

    def _step(self, kind: str) -> Callable[..., Any]:
        """The function that runs a step of a kind: "train", "test" or "predict"."""
        key = (kind, self.run_eagerly)
        if key not in self._steps:
            self._steps[key] = self._new_step(kind)
        return self._steps[key][0]

    def _new_step(self, kind: str) -> tuple[Callable[..., Any], Any]:
        packing, method = Packing(), getattr(self, f"{kind}_step")

        def logged(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Any:
            return packing.pack(method(x, y, sample_weight, class_weight))

        plain = method if kind == "predict" else logged
        run = plain if self.run_eagerly else Compiled(plain, name=f"{kind}_step")

        def step(*args: Any) -> Any:
            with no_grad():
                return run(*args)

        def logged_step(*args: Any) -> Logs:
            with no_grad():
                return packing.logs(run(*args))

        return (step if kind == "predict" else logged_step), run

    @contextmanager
    def _own_metrics(self) -> Generator[None]:
        """Within the block metrics start anew; an epoch that is not complete gets its own back."""
        leaves = [x for m in self._all_metrics().values() for x in m.buffers.to_flat_list()]
        kept = [(leaf, np.array(leaf.numpy())) for leaf in leaves] if self.progress.batch else []
        self.reset_metrics()
        try:
            yield
        finally:
            for leaf, value in kept:
                leaf.value = value

    def reset_metrics(self) -> None:
        """Forget what loss and metrics have seen."""
        for metric in self._all_metrics().values():
            metric.reset()

    def _all_metrics(self) -> dict[str, Metric]:
        return {**self._means, **self._metrics.metrics}

    def _metric_named(self, name: str) -> Mean:
        """The mean of a loss or of a value of a hook, made when it is needed first."""
        if name not in self._means and name.startswith("mean/"):
            with outside():
                self._means[name] = Mean(name=name)
        return self._means.get(name) or self._metrics.metrics[name]  # type: ignore[return-value]

    def build(self, x: Any) -> None:
        """Make what the first input decides: sizes of parameters, and with them the optimizer."""
        if not self._is_built:
            with no_grad(), training_context(False), collect():
                self.call(tensors(x), training=False)
            self.__dict__["_is_built"] = True
        if self.optimizer is None:
            make = self._make_optimizer
            if make is None:
                sys.stderr.write(NOTICE)
                make = _default_optimizer
            found = make(self.module)
            if not isinstance(found, Optimizer):
                raise EinkornError(MSG_OPTIMIZER.format(optimizer=found))
            self.optimizer = found


def _default_optimizer(module: Module) -> Optimizer:
    return Adam(module, lr=1e-3)


def _samples(x: Any) -> int:
    """How many samples inputs hold."""
    ends = [end for end in flatten(x)[0] if hasattr(end, "shape")]
    return ends[0].shape[0] if ends and ends[0].shape else 1


def tensors(x: Any) -> Any:
    """Inputs as a step sees them."""
    return tree_map(lambda end: end if end is None else as_tensor(end, "a batch"), x)
