"""PyTorch, in three modes.

eager   autograd and the fused optimizers
loss    the loss compiled, autograd for its backward, the fused optimizers: the usual recipe
step    forward, gradients and optimizer traced as one graph and compiled
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch._dynamo  # the first optimizer imports it in any case
import torch.nn.functional as functional
from torch._inductor import config as inductor_config

from benchmarks.definition import Optimizer, Workload
from benchmarks.peers import Running
from benchmarks.peers.networks import models
from benchmarks.peers.operators import OPERATORS
from benchmarks.peers.torch_networks import Functions, Traceable

VERSION = torch.__version__


def tanh_mlp(params: Any, x: Any, y: Any) -> Any:
    """One hidden layer, mean squared error."""
    weight0, bias0, weight1, bias1 = params
    hidden = torch.tanh(torch.addmm(bias0, x, weight0))
    return functional.mse_loss(torch.addmm(bias1, hidden, weight1), y)


def relu_mlp(params: Any, x: Any) -> Any:
    """The logits."""
    *hidden, (weight, bias) = zip(params[::2], params[1::2])
    for weight_k, bias_k in hidden:
        x = torch.relu(torch.addmm(bias_k, x, weight_k))
    return torch.addmm(bias, x, weight)


def relu_mlp_loss(params: Any, x: Any, labels: Any) -> Any:
    """Mean cross-entropy of the logits."""
    return functional.cross_entropy(relu_mlp(params, x), labels)


def chain(params: Any) -> Any:
    """mean(tanh(a x + b) sigmoid(x) + exp(-x x))."""
    x, a, b = params
    return torch.mean(torch.tanh(a * x + b) * torch.sigmoid(x) + torch.exp(-x * x))


def norm_softmax(params: Any, w: Any) -> Any:
    """sum(softmax(layernorm(x) gamma + beta) w) / rows."""
    x, gamma, beta = params
    z = functional.layer_norm(x, (x.shape[1],), gamma, beta, 1e-5)
    return torch.sum(torch.softmax(z, -1) * w) / x.shape[0]


MODELS: dict[str, Any] = {
    **OPERATORS,
    **models(Functions()),
    "tanh_mlp": tanh_mlp,
    "relu_mlp": relu_mlp,
    "relu_mlp_loss": relu_mlp_loss,
    "chain": chain,
    "norm_softmax": norm_softmax,
    "exp": lambda params, x, y: torch.exp(x),
}
TRACEABLE: dict[str, Any] = {**MODELS, **models(Traceable())}
CHANNELS_LAST = {"residual_network"}  # LeNet is faster with channels first


def _placed(values: Any, workload: Workload) -> Any:
    """A tensor; images and filters in the layout that suits the model."""
    tensor = torch.tensor(values)
    if tensor.ndim != 4:
        return tensor
    moved = tensor.permute(0, 3, 1, 2)
    return moved if workload.model in CHANNELS_LAST else moved.contiguous()


def fused(params: list[Any], optimizer: Optimizer) -> Any:
    """An optimizer of torch.optim."""
    groups = [{"params": [p], "lr": rate} for p, rate in zip(params, optimizer.rates)]
    if len(set(optimizer.rates)) == 1:
        groups = [{"params": params, "lr": optimizer.rates[0]}]
    if optimizer.kind in ("sgd", "momentum"):
        momentum = optimizer.momentum if optimizer.kind == "momentum" else 0.0
        return torch.optim.SGD(groups, momentum=momentum, fused=True)
    options = {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps, "fused": True}
    if optimizer.kind == "adam":
        return torch.optim.Adam(groups, **options)
    return torch.optim.AdamW(groups, weight_decay=optimizer.weight_decay, **options)


def traceable(params: list[Any], optimizer: Optimizer) -> Callable[[Any], None]:
    """The update with in-place operations that a whole-step graph can hold."""

    def sgd(gradients: Any) -> None:
        for p, g, rate in zip(params, gradients, optimizer.rates):
            p.sub_(rate * g)

    if optimizer.kind == "sgd":
        return sgd
    if optimizer.kind == "momentum":
        return _traceable_momentum(params, optimizer)
    decay = optimizer.weight_decay if optimizer.kind == "adamw" else 0.0
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]
    count = torch.zeros(())

    def adam(gradients: Any) -> None:
        count.add_(1)
        first = -torch.expm1(count * float(np.log(beta1)))
        second = torch.sqrt(-torch.expm1(count * float(np.log(beta2))))
        for p, g, (m, v), rate in zip(params, gradients, moments, optimizer.rates):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            if decay:
                p.mul_(1 - rate * decay)
            p.sub_(rate / first * m / (torch.sqrt(v) / second + optimizer.eps))

    return adam


def _traceable_momentum(params: list[Any], optimizer: Optimizer) -> Callable[[Any], None]:
    speeds = [torch.zeros_like(p) for p in params]

    def momentum(gradients: Any) -> None:
        for p, g, speed, rate in zip(params, gradients, speeds, optimizer.rates):
            speed.mul_(optimizer.momentum).add_(g)
            p.sub_(rate * speed)

    return momentum


def compiled(function: Any) -> Any:
    """One graph for the shapes that it sees."""
    return torch.compile(function, fullgraph=True, dynamic=False)


class _Frozen(torch.nn.Module):
    """A model whose parameters the compiler may take as constants."""

    def __init__(self, model: Any, params: list[Any]) -> None:
        super().__init__()
        self.model, self.count = model, len(params)
        for k, param in enumerate(params):
            self.register_buffer(f"p{k}", param)

    def forward(self, *batch: Any) -> Any:
        return self.model([getattr(self, f"p{k}") for k in range(self.count)], *batch)


def _build_call(workload: Workload, mode: str, params: list[Any]) -> Running:
    """The model applied; arrays go in and come out as the task says."""
    model, last = MODELS[workload.model], None
    to_numpy = workload.task == "infer"
    apply = lambda *batch: model(params, *batch)  # noqa: E731
    if mode != "eager":
        inductor_config.freezing = to_numpy
        apply = compiled(_Frozen(model, params).eval() if to_numpy else apply)
    given = workload.batches
    batches = cycle(given if to_numpy else [tuple(map(torch.tensor, batch)) for batch in given])
    # Freezing is off in inference mode.
    no_history = torch.inference_mode if mode == "eager" else torch.no_grad

    def call() -> None:
        nonlocal last
        with no_history():
            batch = next(batches)
            if to_numpy:
                last = apply(*map(torch.from_numpy, batch)).numpy()
            else:
                last = apply(*batch)

    return Running(call, lambda: float(np.abs(np.asarray(last)).mean()))


def _model(models: dict[str, Any], workload: Workload) -> Any:
    """(params, *batch) -> loss; what the workload keeps is bound, and written in place."""
    model = models[workload.model]
    if not workload.state:
        return model
    return partial(model, state=[torch.tensor(values) for values in workload.state])


def _build_step(workload: Workload, params: list[Any], batches: Any) -> Running:
    """The whole step as one graph."""
    model, last = _model(TRACEABLE, workload), None
    update = traceable(params, workload.optimizer)

    def whole(*batch: Any) -> Any:
        gradients, loss = torch.func.grad_and_value(lambda p: model(p, *batch))(params)
        update(gradients)
        return loss

    step = compiled(whole)

    def train() -> None:
        nonlocal last
        with torch.no_grad():
            last = step(*next(batches))

    return Running(train, lambda: float(last))


def _build_update(workload: Workload, mode: str, params: list[Any], gradients: Any) -> Running:
    """The optimizer alone."""

    def size() -> float:
        return float(np.mean([p.detach().abs().mean().item() for p in params]))

    if mode == "eager":
        for param, gradient in zip(params, gradients):
            param.grad = gradient
        return Running(fused(params, workload.optimizer).step, size)
    update = compiled(traceable(params, workload.optimizer))

    def step() -> None:
        with torch.no_grad():
            update(gradients)

    return Running(step, size)


def build(workload: Workload, mode: str, threads: int) -> Running:
    """Set up a workload."""
    torch.set_num_threads(threads)
    params = [_placed(values, workload) for values in workload.params.values()]
    if workload.task in ("call", "infer"):
        return _build_call(workload, mode, params)
    tensors = [tuple(_placed(x, workload) for x in batch) for batch in workload.batches]
    if workload.task == "update":
        return _build_update(workload, mode, params, tensors[0])
    batches = cycle(tensors)
    if mode == "step":
        return _build_step(workload, params, batches)
    model, last = _model(TRACEABLE if mode == "loss" else MODELS, workload), None
    loss_fn = compiled(model) if mode == "loss" else model
    for param in params:
        param.requires_grad_()
    optimizer = fused(params, workload.optimizer)

    def train() -> None:
        nonlocal last
        optimizer.zero_grad(set_to_none=True)
        last = loss_fn(params, *next(batches))
        last.backward()
        optimizer.step()

    return Running(train, lambda: float(last.detach()))
