"""JAX: the whole step in one `jax.jit`, parameters and optimizer state donated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.definition import Optimizer, Workload
from benchmarks.peers import Running
from benchmarks.peers.jax_networks import Functions
from benchmarks.peers.networks import models
from benchmarks.peers.operators import OPERATORS

VERSION = jax.__version__
jax.devices()  # start the CPU client: part of the import, not of the first step

Update = Callable[[Any, Any, Any], tuple[Any, Any]]


def tanh_mlp(params: Any, x: Any, y: Any) -> Any:
    """One hidden layer, mean squared error."""
    weight0, bias0, weight1, bias1 = params
    error = jnp.tanh(x @ weight0 + bias0) @ weight1 + bias1 - y
    return jnp.mean(error * error)


def relu_mlp(params: Any, x: Any) -> Any:
    """The logits."""
    *hidden, (weight, bias) = zip(params[::2], params[1::2])
    for weight_k, bias_k in hidden:
        x = jax.nn.relu(x @ weight_k + bias_k)
    return x @ weight + bias


def relu_mlp_loss(params: Any, x: Any, labels: Any) -> Any:
    """Mean cross-entropy of the logits."""
    logarithms = jax.nn.log_softmax(relu_mlp(params, x))
    return -jnp.take_along_axis(logarithms, labels[:, None], axis=1).mean()


def chain(params: Any) -> Any:
    """mean(tanh(a x + b) sigmoid(x) + exp(-x x))."""
    x, a, b = params
    return jnp.mean(jnp.tanh(a * x + b) * jax.nn.sigmoid(x) + jnp.exp(-x * x))


def norm_softmax(params: Any, w: Any) -> Any:
    """sum(softmax(layernorm(x) gamma + beta) w) / rows."""
    x, gamma, beta = params
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return jnp.sum(jax.nn.softmax(centred * scale * gamma + beta) * w) / len(x)


MODELS: dict[str, Any] = {
    **OPERATORS,
    **models(Functions()),
    "tanh_mlp": tanh_mlp,
    "relu_mlp": relu_mlp,
    "relu_mlp_loss": relu_mlp_loss,
    "chain": chain,
    "norm_softmax": norm_softmax,
    "exp": lambda params, x, y: jnp.exp(x),
}


def updater(params: list[Any], optimizer: Optimizer) -> tuple[Any, Update]:
    """The first state, and (parameters, gradients, state) -> (parameters, state)."""
    rates, beta1, beta2 = optimizer.rates, optimizer.beta1, optimizer.beta2
    decay = optimizer.weight_decay if optimizer.kind == "adamw" else 0.0

    def sgd(params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        return [p - rate * g for p, g, rate in zip(params, gradients, rates)], state

    def momentum(params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        speeds = [optimizer.momentum * speed + g for speed, g in zip(state, gradients)]
        return sgd(params, speeds, speeds)

    def adam(params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        count, moments = state
        count += 1
        first = -jnp.expm1(count * np.log(beta1))
        second = jnp.sqrt(-jnp.expm1(count * np.log(beta2)))
        new_params: list[Any] = []
        new_moments: list[Any] = []
        for p, g, (m, v), rate in zip(params, gradients, moments, rates):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            p = p * (1 - rate * decay) if decay else p
            new_params.append(p - rate / first * m / (jnp.sqrt(v) / second + optimizer.eps))
            new_moments.append((m, v))
        return new_params, (count, new_moments)

    if optimizer.kind == "sgd":
        return (), sgd
    if optimizer.kind == "momentum":
        return [jnp.zeros_like(p) for p in params], momentum
    moments = [(jnp.zeros_like(p), jnp.zeros_like(p)) for p in params]
    return (jnp.zeros(()), moments), adam


def _weight(values: np.ndarray[Any, Any]) -> Any:
    """A parameter; filters as (height, width, in, out)."""
    return jnp.array(values.transpose(1, 2, 3, 0) if values.ndim == 4 else values)


def _arrays(batch: tuple[np.ndarray[Any, Any], ...]) -> tuple[Any, ...]:
    """A batch on JAX's side; labels as its usual int32."""
    return tuple(jnp.array(x.astype(np.int32) if x.dtype == np.int64 else x) for x in batch)


def _build_call(workload: Workload, params: list[Any]) -> Running:
    """The model applied; arrays go in and come out as the task says."""
    last: Any = None
    compiled = jax.jit(MODELS[workload.model])
    to_numpy = workload.task == "infer"
    batches = cycle(workload.batches if to_numpy else list(map(_arrays, workload.batches)))

    def call() -> None:
        nonlocal last
        result = compiled(params, *next(batches))
        last = np.asarray(result) if to_numpy else result

    return Running(
        call, lambda: float(np.abs(np.asarray(last)).mean()), lambda: jax.block_until_ready(last)
    )


def _whole(model: Callable[..., Any], update: Update) -> Callable[..., Any]:
    """(parameters, state of the optimizer, kept arrays, batch) -> the next of each, and loss."""

    def with_kept(params: Any, kept: Any, batch: Any) -> Any:
        kept = list(kept)
        loss = model(params, *batch, state=kept) if kept else model(params, *batch)
        return loss, kept

    def whole(params: Any, state: Any, kept: Any, batch: Any) -> Any:
        differentiated = jax.value_and_grad(with_kept, has_aux=True)
        (loss, kept), gradients = differentiated(params, kept, batch)
        return *update(params, gradients, state), kept, loss

    return whole


def build(workload: Workload, mode: str, threads: int) -> Running:
    """Set up a workload; XLA takes as many threads as the process has CPUs."""
    params: Any = [_weight(values) for values in workload.params.values()]
    if workload.task in ("call", "infer"):
        return _build_call(workload, params)
    batches = cycle(list(map(_arrays, workload.batches)))
    state, update = updater(params, workload.optimizer)
    last: Any = None
    if workload.task == "update":
        apply = jax.jit(update, donate_argnums=(0, 2))

        def update_step() -> None:
            nonlocal params, state
            params, state = apply(params, list(next(batches)), state)

        def size() -> float:
            return float(np.mean([float(jnp.abs(p).mean()) for p in params]))

        return Running(update_step, size, lambda: jax.block_until_ready((params, state)))
    kept = [jnp.array(values) for values in workload.state]
    compiled = jax.jit(_whole(MODELS[workload.model], update), donate_argnums=(0, 1, 2))

    def train() -> None:
        nonlocal params, state, kept, last
        params, state, kept, last = compiled(params, state, kept, next(batches))

    return Running(train, lambda: float(last), lambda: jax.block_until_ready((params, state, last)))
