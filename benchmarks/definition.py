"""What a workload is: arrays, optimizer and the amount of work, without saying how to compute it.

A workload names a model; every peer has a function of that name in its table of models, or leaves
the workload out. All arrays are float32, but for labels. Step number i takes batch i modulo the
number of batches. Images are [batch, height, width, channels], the weights of convolutions
(out, height, width, in); a peer that computes in another layout converts when it sets up.

task    one step is
train   the loss and its gradients by all parameters, and the optimizer's update
update  the optimizer's update alone; the batch holds the gradients
call    the model applied to the batch, results in the peer's own arrays
infer   the same, from NumPy arrays to a NumPy array
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer:
    """How a parameter p follows its gradient g.

    kind       formula
    sgd        p -= rate g
    momentum   v = momentum v + g; p -= rate v
    adam       eps stands beside the corrected root
    adamw      p *= 1 - rate weight_decay, then as adam
    none       not at all

    Attributes:
        rates: the learning rates, one for each parameter.
    """

    kind: str = "none"
    rates: tuple[float, ...] = ()
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.01

    @property
    def slots(self) -> int:
        """Arrays that are kept beside each parameter."""
        return {"momentum": 1, "adam": 2, "adamw": 2}.get(self.kind, 0)


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Attributes:
        state: arrays that a step writes without gradients: means and variances in turn.
        matmul_flops: multiplications and additions of the products and convolutions of a step.
        least_bytes: what has to move if everything that can be fused is fused.
        exponentials: exp and tanh to evaluate.
    """

    name: str
    title: str
    model: str
    task: str
    params: dict[str, Array]
    batches: list[Arrays]
    optimizer: Optimizer = Optimizer()
    matmul_flops: float = 0.0
    least_bytes: float = 0.0
    exponentials: float = 0.0
    state: list[Array] = field(default_factory=list[Array])

    @property
    def footprint(self) -> int:
        """The bytes of all arrays that outlive a step."""
        kept = sum(values.nbytes for values in self.params.values())
        given = sum(x.nbytes for batch in self.batches for x in batch)
        return (1 + self.optimizer.slots) * kept + given


def normal(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Drawn in float32, so that no float64 copy counts in the peak memory of a peer."""
    values = generator.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return values


def size(params: dict[str, Array]) -> int:
    """The number of all elements."""
    return sum(values.size for values in params.values())
