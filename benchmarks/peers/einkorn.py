"""einkorn under the side-by-side harness: the whole step (forward, backward, update) as one compiled function.

`PEER_PATH=benchmarks/peers python compare.py -p einkorn,jax_jit -w W1` finds it. The harness puts this folder on
`sys.path`, where this file would hide the package of the same name; so the folder leaves the path first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != HERE]

SUPPORTS = {"W1", "W2", "W6", "W7", "W8", "W10", "W11"}


def preload(threads):
    os.environ["EINKORN_THREADS"] = str(threads)
    import einkorn  # noqa: F401


def layer_norm(ek, x, gamma, beta):
    centred = x - ek.mean(x, axis=-1, keepdims=True)
    variance = ek.mean(centred * centred, axis=-1, keepdims=True)
    return centred / ek.sqrt(variance + 1e-5) * gamma + beta


def loss_of(ek, workload, p):
    """The loss of one batch as a function of its arrays; `p` holds the parameters."""
    name, config = workload.name, workload.cfg
    if name == "W1":
        return lambda x, y: ek.nn.mse_loss(ek.tanh(x @ p["w0"] + p["b0"]) @ p["w1"] + p["b1"], y)
    if name in ("W2", "W10", "W11"):
        depth = len(config["dims"]) - 1

        def logits(x):
            for i in range(depth):
                x = x @ p[f"w{i}"] + p[f"b{i}"]
                if i < depth - 1:
                    x = ek.nn.relu(x)
            return x

        return logits if name == "W10" else lambda x, t: ek.nn.cross_entropy(logits(x), t)
    if name == "W6":
        x, a, b = p["x"], p["a"], p["b"]
        return lambda: ek.mean(ek.tanh(a * x + b) * ek.sigmoid(x) + ek.exp(-x * x))
    if name == "W7":
        x, g, b = p["x"], p["g"], p["b"]
        return lambda w: ek.sum(ek.softmax(layer_norm(ek, x, g, b), axis=-1) * w) / config["R"]
    raise NotImplementedError(name)


def make(name, threads):
    import einkorn as ek
    import workloads

    workload = workloads.get(name)
    p = {key: ek.Parameter(value, name=key) for key, value in workload.params.items()}
    batches = [tuple(ek.asarray(value[i]) for value in workload.data.values()) for i in range(workload.nb)]
    state = {"i": 0, "loss": None}

    if name == "W10":
        forward = ek.compile(loss_of(ek, workload, p))
        arrays = [workload.data["x"][i] for i in range(workload.nb)]

        def infer():
            state["loss"] = np.asarray(forward(arrays[state["i"]]))
            state["i"] = (state["i"] + 1) % len(arrays)

        return infer, lambda: float(np.abs(state["loss"]).mean())

    names, leaves, options = list(p), list(p.values()), workload.opt
    if options["kind"] == "adam":
        opt = ek.optim.Adam(leaves, options["lr"], options["b1"], options["b2"], options["eps"])

    def update(grads):
        if options["kind"] == "adam":
            opt.step(grads)
            return
        for key, leaf, grad in zip(names, leaves, grads, strict=True):
            leaf.value = leaf - workloads.lr_of(options, key) * grad

    if name == "W8":
        step_fn = ek.compile(lambda *grads: update(list(grads)))

        def step():
            step_fn(*batches[0])

        return step, lambda: float(np.mean([np.abs(leaf.value).mean() for leaf in leaves]))

    loss_fn = loss_of(ek, workload, p)

    @ek.compile
    def train_step(*batch):
        loss, grads = ek.value_and_grad(loss_fn, wrt=leaves)(*batch)
        update(grads)
        return loss

    def step():
        state["loss"] = train_step(*batches[state["i"]])
        state["i"] = (state["i"] + 1) % len(batches)

    return step, lambda: float(state["loss"])
