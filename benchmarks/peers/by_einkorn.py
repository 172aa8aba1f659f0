"""einkorn: the whole step as one compiled function, or op by op in the mode `eager`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np

import einkorn as ek
from benchmarks.definition import Optimizer, Workload
from benchmarks.peers import Running
from benchmarks.peers.einkorn_networks import Functions
from benchmarks.peers.networks import models
from benchmarks.peers.operators import OPERATORS, add_all

VERSION = ek.__version__


def tanh_mlp(params: Sequence[Any], x: Any, y: Any) -> Any:
    """One hidden layer, mean squared error."""
    weight0, bias0, weight1, bias1 = params
    return ek.nn.mse_loss(ek.tanh(x @ weight0 + bias0) @ weight1 + bias1, y)


def relu_mlp(params: Sequence[Any], x: Any) -> Any:
    """The logits."""
    *hidden, (weight, bias) = zip(params[::2], params[1::2])
    for weight_k, bias_k in hidden:
        x = ek.nn.relu(x @ weight_k + bias_k)
    return x @ weight + bias


def relu_mlp_loss(params: Sequence[Any], x: Any, labels: Any) -> Any:
    """Mean cross-entropy of the logits."""
    return ek.nn.cross_entropy(relu_mlp(params, x), labels)


def chain(params: Sequence[Any]) -> Any:
    """mean(tanh(a x + b) sigmoid(x) + exp(-x x))."""
    x, a, b = params
    return ek.mean(ek.tanh(a * x + b) * ek.nn.sigmoid(x) + ek.exp(-x * x))


def norm_softmax(params: Sequence[Any], w: Any) -> Any:
    """sum(softmax(layernorm(x) gamma + beta) w) / rows."""
    x, gamma, beta = params
    centred = x - ek.mean(x, axis=-1, keepdims=True)
    variance = ek.mean(centred * centred, axis=-1, keepdims=True)
    z = centred / ek.sqrt(variance + 1e-5) * gamma + beta
    return ek.sum(ek.nn.softmax(z, axis=-1) * w) / x.shape[0]


def capture_all(params: Sequence[Any], x: Any, y: Any) -> Any:
    """x + y; the parameters are bound at each call, and no kernel reads them."""
    add_all(params, x, y)
    return x + y


MODELS: dict[str, Any] = {
    **OPERATORS,
    **models(Functions()),
    "tanh_mlp": tanh_mlp,
    "relu_mlp": relu_mlp,
    "relu_mlp_loss": relu_mlp_loss,
    "chain": chain,
    "norm_softmax": norm_softmax,
    "capture_all": capture_all,
    "exp": lambda params, x, y: ek.exp(x),
}


def updater(leaves: list[Any], optimizer: Optimizer) -> Callable[[Sequence[Any]], None]:
    """A function that applies gradients to the leaves."""
    if optimizer.slots:
        (rate,) = set(optimizer.rates)
        betas = optimizer.beta1, optimizer.beta2
        if optimizer.kind == "momentum":
            return ek.optim.Momentum(leaves, rate, optimizer.momentum).step
        if optimizer.kind == "adam":
            return ek.optim.Adam(leaves, rate, *betas, optimizer.eps).step
        decay = optimizer.weight_decay
        return ek.optim.AdamW(leaves, rate, *betas, optimizer.eps, decay).step

    def sgd(gradients: Sequence[Any]) -> None:
        for leaf, gradient, rate in zip(leaves, gradients, optimizer.rates, strict=True):
            leaf.value = leaf - rate * gradient

    return sgd


def _as_it_is(function: Any) -> Any:
    return function


def _build_call(workload: Workload, leaves: list[Any], wrap: Callable[..., Any]) -> Running:
    """The model applied; arrays go in and come out as the task says."""
    model, last = MODELS[workload.model], None
    to_numpy = workload.task == "infer"

    @wrap
    def apply(*batch: Any) -> Any:
        with ek.no_grad():
            return model(leaves, *batch)

    given = workload.batches
    batches = cycle(given if to_numpy else [tuple(map(ek.asarray, batch)) for batch in given])

    def call() -> None:
        nonlocal last
        result = apply(*next(batches))
        last = np.asarray(result) if to_numpy else result

    return Running(call, lambda: float(np.abs(np.asarray(last)).mean()))


def build(workload: Workload, mode: str, threads: int) -> Running:
    """Set up a workload; the number of threads comes from the environment."""
    wrap = ek.compile if mode == "compiled" else _as_it_is
    leaves = [ek.Parameter(values, name=name) for name, values in workload.params.items()]
    if workload.task in ("call", "infer"):
        return _build_call(workload, leaves, wrap)
    update = updater(leaves, workload.optimizer)
    batches = cycle([tuple(map(ek.asarray, batch)) for batch in workload.batches])
    if workload.task == "update":

        @wrap
        def update_step(*gradients: Any) -> None:
            update(list(gradients))

        return Running(
            lambda: update_step(*next(batches)),
            lambda: float(np.mean([np.abs(leaf.value).mean() for leaf in leaves])),
        )
    model, last = MODELS[workload.model], None
    kept = {"state": [ek.Leaf(values) for values in workload.state]} if workload.state else {}

    def loss_fn(*batch: Any) -> Any:
        return model(leaves, *batch, **kept)

    @wrap
    def train_step(*batch: Any) -> Any:
        loss, gradients = ek.value_and_grad(loss_fn, wrt=leaves)(*batch)
        update(gradients)
        return loss

    def train() -> None:
        nonlocal last
        last = train_step(*next(batches))

    return Running(train, lambda: float(last))
