"""The call of a trace by the NumPy reference, op by op."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.leaf import check_free, kept_still
from einkorn.runtime.compiler import run_reference
from einkorn.step import Step

Array = np.ndarray[Any, Any]


class ReferenceCalls:
    """The calls of a step without a compiler."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def call(self, arguments: Arguments, threads: int) -> list[Array] | None:
        """Run the step and commit it: its outputs; None when a branch goes elsewhere."""
        check_free(self._step.updated)
        if not self._step.reads_fit():
            return None
        arrays = [value._eager() for value in self._step.values(arguments)]
        with kept_still(frozenset(x.source.id for x in self._step.captures if x.kind == "leaf")):
            outputs, updates = run_reference(self._step.graph, arrays)
        found = dict(zip(self._step.graph.outputs, outputs))
        if any(bool(found[node]) is not node.attr("expected") for node in self._step.checks):
            return None
        fresh = [leaf._fresh() for leaf in self._step.updated]
        for storage, value in zip(fresh, updates):
            np.copyto(storage[0], value)
        for leaf, storage in zip(self._step.updated, fresh):
            leaf._replace(storage)
        self._step.commit_gradients(outputs)
        self._step.commit_attributes(outputs)
        return outputs
