"""A training step with every kind of state, and each way in which its run can be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from same_bits import bits

import einkorn as ek

X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
Y = np.linspace(1, 0, 8, dtype=np.float32).reshape(4, 2)
GOOD = np.eye(4, dtype=np.float32) * 2
NAN = np.full((4, 4), np.nan, np.float32)
OUTSIDE = GOOD * 1000
LATE = GOOD.copy()
LATE[3, 3] = 1000  # only the last of the indices on the diagonal is outside


class Mine(Exception):
    pass


def index(probe: Any) -> Any:
    """0 for what is good, far outside for OUTSIDE."""
    return (probe[0, 0] - 2).astype("int64")


def indices(probe: Any) -> Any:
    return (probe.reshape(16)[::5] - 2).astype("int64")


def host(x: Any) -> Any:
    """Refuses everything but GOOD, in several ways."""
    first = x[0, 0]
    if np.isnan(first):
        raise KeyboardInterrupt("stop")
    if first == 0:
        raise Mine("from the callback")
    return np.zeros(3 if first < 0 else (), np.float32)


def called(w: Any, probe: Any) -> Any:
    return ek.callback(host, ek.ShapeDtype((), "float32"), probe + 0 * w[:4, :4])


def branch(w: Any, probe: Any) -> Any:
    if probe[0, 0] < 1:
        raise Mine("on a branch")
    return w.sum()


def scanned(w: Any, probe: Any) -> Any:
    return ek.scan(lambda c, i: (c + w[i, 0], c), w[0, 0], indices(probe))[0]


def nested(w: Any, probe: Any) -> Any:
    def inner(c: Any, i: Any) -> Any:
        row = ek.scan(lambda d, k: (d * 0.5 + w[i * k, 0], None), c, np.arange(1, 3))[0]
        return ek.cond(i < 5, lambda: row, lambda: row + w[i, 0]), None

    return ek.scan(inner, w[0, 0], indices(probe))[0]


def looped(w: Any, probe: Any) -> Any:
    """Two steps with GOOD; with OUTSIDE one more than there are rows."""
    most = ek.minimum(probe[0, 0].astype("int64"), w.shape[0] + 1)
    found = ek.while_loop(lambda c: c[0] < most, lambda c: (c[0] + 1, c[1] + w[c[0], 0]),
                          (ek.asarray(0), w[0, 0]))  # fmt: skip
    return ek.stop_gradient(found[1])  # it has no gradient backwards


def counted(w: Any, probe: Any) -> Any:
    at = indices(probe)
    return ek.fori_loop(0, 4, lambda k, c: c + w.at[at[k], 0].set(c)[0, 0], w[0, 0])


def solved(w: Any, probe: Any) -> Any:
    """Inverts GOOD three times, and what is left of it in a last step."""
    return ek.scan(
        lambda c, k: (c + ek.linalg.inv(ek.where(k < 3, ek.eye(4) * 2, probe)).sum(), None),
        w[0, 0],
        np.arange(4),
    )[0]


def chosen(w: Any, probe: Any) -> Any:
    return ek.cond(probe[0, 0] > 1, lambda: w.sum(), lambda: ek.linalg.inv(probe).sum() + w[0, 0])


Way = tuple[Callable[[Any, Any], Any], Any, type[BaseException], str]
ZEROS = GOOD * 0
WAYS: dict[str, Way] = {
    "gather": (lambda w, p: w[index(p)].sum(), OUTSIDE, ek.BoundsError, "index"),
    "gather-many": (lambda w, p: w[indices(p)].sum(), LATE, ek.BoundsError, "index"),
    "set": (lambda w, p: w.at[index(p)].set(1.0).sum(), OUTSIDE, ek.BoundsError, "index"),
    "add": (lambda w, p: w.at[indices(p)].add(w[0]).sum(), LATE, ek.BoundsError, "index"),
    "singular": (
        lambda w, p: ek.linalg.inv(p + 0 * w[:4, :4]).sum(), ZEROS, ek.LinAlgError, "singular",
    ),
    "indefinite": (
        lambda w, p: ek.linalg.cholesky(p).sum() + w[0, 0], -GOOD, ek.LinAlgError, "definite",
    ),
    "divergent": (lambda w, p: ek.linalg.svd(p)[1].sum() + w[0, 0], NAN, ek.LinAlgError, "SVD"),
    "callback": (called, ZEROS, Mine, "from the callback"),
    "callback-interrupted": (called, NAN, KeyboardInterrupt, "^stop$"),
    "callback-of-other-shape": (called, -GOOD, ek.HostError, "declared"),
    "branch": (branch, ZEROS, Mine, "on a branch"),
    "scan": (scanned, LATE, ek.BoundsError, "index"),
    "nested-scan": (nested, LATE, ek.BoundsError, "index"),
    "while": (looped, OUTSIDE, ek.BoundsError, "index"),
    "fori-set": (counted, LATE, ek.BoundsError, "index"),
    "scan-singular": (solved, ZEROS, ek.LinAlgError, "singular"),
    "cond-singular": (chosen, ZEROS, ek.LinAlgError, "singular"),
}  # fmt: skip
PLACES = ("loss", "between", "end")


class Net(ek.nn.Module):
    def __init__(self) -> None:
        self.hidden = ek.nn.Linear(5, 6)
        self.out = ek.nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        return self.out(ek.tanh(self.hidden(x)))


class Rig:
    """A model, its optimizer, buffers, gradients, arrays of NumPy, and the global generator."""

    def __init__(self, way: str, place: str, **options: Any) -> None:
        ek.random.seed(7)
        self.net, self.scale = Net(), ek.tensor(np.float32(0.5), name="scale")
        self.opt = ek.optim.Adam(self.net, 0.1)
        self.mean = ek.tensor(np.zeros(2, np.float32), trainable=False, name="mean")
        self.count = ek.tensor(0, name="count")
        self.table = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
        self.step = ek.compile(self._step, on_retrace="allow", **options)
        self.refuse, self.place = WAYS[way][0], place
        self.net.out.b.grad = ek.ones(2)

    def _step(self, x: Any, y: Any, probe: Any) -> Any:
        noise = ek.random.uniform(x.shape)
        extra = ek.asarray(np.float32(0))

        def loss_fn(x: Any) -> Any:
            pred = self.net(x + noise * 0.1)
            loss = ek.nn.mse_loss(pred, y)
            if self.place == "loss":
                loss = loss + self.refuse(self.net.hidden.w, probe) * 0.01
            return loss, pred

        (loss, pred), grads = ek.value_and_grad(loss_fn, self.net, has_aux=True)(x)
        self.count.value = self.count + 1
        self.net.out.b.grad = grads["out"]["b"]
        if self.place == "between":
            self.net.hidden.b.value = self.net.hidden.b * 0.5
            extra = self.refuse(self.net.hidden.w * self.net.hidden.b[:, None], probe)
        self.opt.step(grads)
        self.mean.value = self.mean * 0.9 + (pred.mean(axis=0) + self.table[2]) * 0.1
        if self.place == "end":
            extra = self.refuse(self.net.hidden.w, probe)
        ek.print("step", self.count)
        return loss, extra, (x * x).sum()

    def state(self) -> list[Any]:
        """The bits of everything that a step could change."""
        generator = ek.random.default_generator()
        leaves = [*self.net.v.to_flat_list(), *self.opt.state.to_flat_list(), self.mean]
        leaves += [self.count, self.scale, generator.key, generator.draw]
        gradients = [leaf.grad for leaf in (*self.net.v.to_flat_list(), self.scale)]
        return [
            *(bits(leaf.numpy()) for leaf in leaves),
            *(None if grad is None else bits(grad.numpy()) for grad in gradients),
            bits(self.table),
        ]
