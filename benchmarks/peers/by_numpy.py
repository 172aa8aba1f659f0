"""NumPy by hand: the gradients written out, buffers reused where it is easy.

The dtype is that of the workload's arrays, so that the same code in float64 is the reference that
the losses of all peers are checked against.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.definition import Array, Optimizer, Workload
from benchmarks.peers import Running

VERSION = np.__version__
EPS = 1e-5  # of the layer norm

Params = list[Array]
Gradients = tuple[Any, Params]


def tanh_mlp(params: Params, x: Array, y: Array) -> Gradients:
    """One hidden layer, mean squared error."""
    weight0, bias0, weight1, bias1 = params
    hidden = np.tanh(x @ weight0 + bias0)
    error = hidden @ weight1 + bias1 - y
    loss = np.mean(error * error)
    error *= 2 / error.size
    behind = (error @ weight1.T) * (1 - hidden * hidden)
    return loss, [x.T @ behind, behind.sum(0), hidden.T @ error, error.sum(0)]


def _activations(params: Params, x: Array) -> list[Array]:
    """The input of every layer, and the logits."""
    values = [x]
    layers = list(zip(params[::2], params[1::2]))
    for k, (weight, bias) in enumerate(layers):
        z = values[-1] @ weight
        z += bias
        if k < len(layers) - 1:
            np.maximum(z, 0, out=z)
        values.append(z)
    return values


def relu_mlp_loss(params: Params, x: Array, labels: Array) -> Gradients:
    """Mean cross-entropy of the logits."""
    *inputs, logits = _activations(params, x)
    rows = np.arange(len(labels))
    logits -= logits.max(1, keepdims=True)
    probabilities = np.exp(logits)
    total = probabilities.sum(1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) - logits[rows, labels])
    probabilities /= total
    probabilities[rows, labels] -= 1
    behind = probabilities / len(labels)
    gradients: Params = []
    for k in reversed(range(len(inputs))):
        gradients += [behind.sum(0), inputs[k].T @ behind]
        if k:
            behind = behind @ params[2 * k].T
            behind *= inputs[k] > 0
    return loss, gradients[::-1]


def chain(params: Params) -> Gradients:
    """mean(tanh(a x + b) sigmoid(x) + exp(-x x))."""
    x, a, b = params
    bent = np.tanh(a * x + b)
    gate = 1 / (1 + np.exp(-x))
    bell = np.exp(-x * x)
    loss = np.mean(bent * gate + bell)
    inner = gate * (1 - bent * bent)
    by_x = inner * a + bent * gate * (1 - gate) - 2 * x * bell
    by_x /= x.size
    return loss, [by_x, np.asarray(np.dot(inner, x) / x.size), np.asarray(np.mean(inner))]


def norm_softmax(params: Params, w: Array) -> Gradients:
    """sum(softmax(layernorm(x) gamma + beta) w) / rows."""
    x, gamma, beta = params
    centred = x - x.mean(1, keepdims=True)
    scale = 1 / np.sqrt(np.mean(centred * centred, 1, keepdims=True) + EPS)
    unit = np.multiply(centred, scale, out=centred)
    z = unit * gamma + beta
    z -= z.max(1, keepdims=True)
    p = np.exp(z, out=z)
    p /= p.sum(1, keepdims=True)
    weighted = p * w
    total = weighted.sum(1, keepdims=True)
    by_z = (weighted - p * total) / len(x)
    gradients = [(by_z * unit).sum(0), by_z.sum(0)]
    by_z *= gamma
    by_z -= by_z.mean(1, keepdims=True) + unit * np.mean(by_z * unit, 1, keepdims=True)
    by_z *= scale
    return total.sum() / len(x), [by_z, *gradients]


TRAINED: dict[str, Callable[..., Gradients]] = {
    "tanh_mlp": tanh_mlp,
    "relu_mlp_loss": relu_mlp_loss,
    "chain": chain,
    "norm_softmax": norm_softmax,
}


def add_all(params: Params, x: Array, y: Array) -> Array:
    """x + y and every parameter."""
    total = x + y
    for param in params:
        total += param
    return total


APPLIED: dict[str, Callable[..., Array]] = {
    "relu_mlp": lambda params, x: _activations(params, x)[-1],
    "product": lambda params, a, b, out: np.matmul(a, b, out=out),
    "add_all": add_all,
    "add": lambda params, x, y: x + y,
    "exp": lambda params, x, y: np.exp(x),
}
MODELS = {**TRAINED, **APPLIED, "none": None}


def updater(params: Params, optimizer: Optimizer) -> Callable[[Params], None]:
    """A function that applies gradients to the parameters, in place."""
    rates, beta1, beta2 = optimizer.rates, optimizer.beta1, optimizer.beta2

    def sgd(gradients: Params) -> None:
        for param, gradient, rate in zip(params, gradients, rates, strict=True):
            param -= rate * gradient

    if optimizer.kind == "sgd":
        return sgd
    speeds = [np.zeros_like(param) for param in params]

    def momentum(gradients: Params) -> None:
        for param, gradient, speed, rate in zip(params, gradients, speeds, rates, strict=True):
            speed *= optimizer.momentum
            speed += gradient
            param -= rate * speed

    if optimizer.kind == "momentum":
        return momentum
    decay = optimizer.weight_decay if optimizer.kind == "adamw" else 0.0
    state = [tuple(np.zeros_like(param) for _ in range(4)) for param in params]
    count = 0

    def adam(gradients: Params) -> None:
        nonlocal count
        count += 1
        first, second = 1 - beta1**count, 1 - beta2**count
        rows = zip(params, gradients, state, rates, strict=True)
        for param, gradient, (m, v, root, move), rate in rows:
            m *= beta1
            m += np.multiply(gradient, 1 - beta1, out=move)
            v *= beta2
            np.multiply(gradient, gradient, out=move)
            move *= 1 - beta2
            v += move
            np.divide(v, second, out=root)
            np.sqrt(root, out=root)
            root += optimizer.eps
            np.divide(m, root, out=move)
            move *= rate / first
            if decay:
                param *= 1 - rate * decay
            param -= move

    return adam


def train(workload: Workload, model: Callable[..., Gradients]) -> Running:
    """Set up the training of a model that gives its loss and the gradients."""
    params = [values.copy() for values in workload.params.values()]
    batches = cycle(workload.batches)
    update = updater(params, workload.optimizer)
    kept = {"state": [values.copy() for values in workload.state]} if workload.state else {}
    last: Any = None

    def step() -> None:
        nonlocal last
        last, gradients = model(params, *next(batches), **kept)
        update(gradients)

    return Running(step, lambda: float(last))


def build(workload: Workload, mode: str, threads: int) -> Running:
    """Set up a workload in the dtype of its arrays."""
    params = [values.copy() for values in workload.params.values()]
    batches = cycle(workload.batches)
    last: Any = None
    if workload.task == "train":
        return train(workload, TRAINED[workload.model])
    if workload.task in ("call", "infer"):
        apply = APPLIED[workload.model]
        if workload.model == "product":
            a, b = workload.batches[0]
            batches = cycle([(a, b, a @ b)])

        def call() -> None:
            nonlocal last
            last = apply(params, *next(batches))

        return Running(call, lambda: float(np.abs(last).mean()))
    update = updater(params, workload.optimizer)
    gradients = list(workload.batches[0])
    return Running(
        lambda: update(gradients), lambda: float(np.mean([np.abs(p).mean() for p in params]))
    )
