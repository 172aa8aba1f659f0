"""Recurrent layers: (N, T, in) -> (N, T, hidden), one step after the other.

Inputs are multiplied for all steps at once; `einkorn.scan` runs the steps. Weights start uniform
within 1 / sqrt(hidden).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from einkorn import random
from einkorn.control import scan
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import zeros
from einkorn.functions.linear_algebra import linear
from einkorn.functions.manipulation import concat, moveaxis, split, stack
from einkorn.initializers import RandomUniform
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.nn.module import Module
from einkorn.nn.settings import Rate, check_flag, check_size, check_word
from einkorn.nn.sized import Sized, check_dtype_of, check_rank, check_width, parameter, shifted
from einkorn.tensor import Tensor
from einkorn.tunable import module_path

MSG_STATE = (
    "{path}: {layer} takes a state of {count} tensors {shape} in {dtype}, got {got}; "
    "get_initial_state gives one of zeros"
)

State = tuple[Tensor, ...]


class _Cell(Sized):
    """One step of a recurrence: `forward(x, state=None)` gives (out, new state).

    Weights `wx` (gates * hidden, in) and `wh` (gates * hidden, hidden), one bias `b`.
    """

    _size_name = "in_features"
    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int | None = None,
        hidden: int | None = None,
        with_bias: bool = True,
        *,
        weight_initializer: Any = None,
        dtype: Any = float32,
    ) -> None:
        name = type(self).__name__
        known, size = shifted(name, ("in_features", "hidden"), in_features, hidden)
        self.hidden = check_size(name, "hidden", size)
        self.with_bias = check_flag(name, "with_bias", with_bias)
        bound = 1 / math.sqrt(self.hidden)
        self._how = (weight_initializer or RandomUniform(-bound, bound), dtype)
        self._begin(known)

    def _make(self, size: int) -> None:
        initializer, dtype = self._how
        rows = self.gates * self.hidden
        self.wx = parameter(initializer, (rows, size), dtype)
        self.wh = parameter(initializer, (rows, self.hidden), dtype)
        self.b = parameter(initializer, (rows,), dtype) if self.with_bias else None

    def get_initial_state(self, batch: int) -> Any:
        """Zeros (batch, hidden); a pair of them for an LSTM."""
        count = check_size(type(self).__name__, "batch", batch, 0)
        found = _zeros((count, self.hidden), self._how[1], self.states)
        return found[0] if self.states == 1 else found

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        tensor = as_tensor(x, type(self).__name__)
        check_rank(self, tensor, (2,), "(N, in)")
        gates = self.project(tensor)
        shape = (tensor.shape[0], self.hidden)
        new = self.step(gates, _states(self, state, self.states, shape, tensor))
        return new[0], new[0] if self.states == 1 else new

    def project(self, x: Tensor) -> Tensor:
        """What inputs [..., in] add to the gates."""
        check_width(self, x, self.wx.shape[1], name="wx")
        check_dtype_of(self, x, self.wx, "wx")
        return linear(x, self.wx, self.b)

    def step(self, gates: Tensor, state: State) -> State:
        """The next state, of which the first tensor is the output."""
        new = self._next(gates, state)
        return tuple(ew.cast(x, old.dtype) for x, old in zip(new, state))

    def _next(self, gates: Tensor, state: State) -> State:
        raise NotImplementedError

    def extra_repr(self) -> str:
        bias = "" if self.with_bias else ", with_bias=False"
        return f"{self._shown_size()}, {self.hidden}{bias}"


class LSTMCell(_Cell):
    """One step of an `LSTM`: x (N, in), state (h, c) of (N, hidden) -> (h, (h, c))."""

    gates, states = 4, 2

    def _next(self, gates: Tensor, state: State) -> State:
        hidden, cell = state
        i, f, g, o = split(ew.add(gates, linear(hidden, self.wh)), 4, axis=-1)
        kept = ew.multiply(ew.sigmoid(f), cell)
        cell = ew.add(kept, ew.multiply(ew.sigmoid(i), ew.tanh(g)))
        return ew.multiply(ew.sigmoid(o), ew.tanh(cell)), cell


class GRUCell(_Cell):
    """One step of a `GRU`: x (N, in), state (N, hidden) -> (h, h).

    The part of the candidate that is reset has a bias of its own, `bh` (hidden,).
    """

    gates = 3

    def _make(self, size: int) -> None:
        super()._make(size)
        initializer, dtype = self._how
        self.bh = parameter(initializer, (self.hidden,), dtype) if self.with_bias else None

    def _next(self, gates: Tensor, state: State) -> State:
        (hidden,) = state
        of_input = split(gates, 3, axis=-1)
        of_hidden = split(linear(hidden, self.wh), 3, axis=-1)
        reset, update = (ew.sigmoid(ew.add(a, b)) for a, b in zip(of_input[:2], of_hidden[:2]))
        again = of_hidden[2] if self.bh is None else ew.add(of_hidden[2], self.bh)
        candidate = ew.tanh(ew.add(of_input[2], ew.multiply(reset, again)))
        moved = ew.multiply(update, ew.subtract(hidden, candidate))
        return (ew.add(candidate, moved),)


class RNNCell(_Cell):
    """One step of an `RNN`: x (N, in), state (N, hidden) -> (h, h)."""

    def __init__(
        self,
        in_features: int | None = None,
        hidden: int | None = None,
        with_bias: bool = True,
        *,
        activation: str = "tanh",
        weight_initializer: Any = None,
        dtype: Any = float32,
    ) -> None:
        self.activation = check_word("RNNCell", "activation", activation, ("tanh", "relu"))
        super().__init__(
            in_features, hidden, with_bias, weight_initializer=weight_initializer, dtype=dtype
        )

    def _next(self, gates: Tensor, state: State) -> State:
        total = ew.add(gates, linear(state[0], self.wh))
        return (ew.tanh(total) if self.activation == "tanh" else ew.relu(total),)


class _Recurrent(Sized):
    """Layers of cells, each of which reads the results of the one before."""

    _size_name = "in_features"
    in_features: Any
    _cell: ClassVar[type[_Cell]] = _Cell
    dropout = Rate()

    def __init__(
        self,
        in_features: int | None = None,
        hidden: int | None = None,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        return_sequence: bool = True,
        return_state: bool = False,
        dropout: float = 0.0,
        with_bias: bool = True,
        dtype: Any = float32,
        **cell: Any,
    ) -> None:
        name = type(self).__name__
        known, size = shifted(name, ("in_features", "hidden"), in_features, hidden)
        self.hidden = check_size(name, "hidden", size)
        self.num_layers = check_size(name, "num_layers", num_layers)
        self.directions = 1 + check_flag(name, "bidirectional", bidirectional)
        self.return_sequence = check_flag(name, "return_sequence", return_sequence)
        self.return_state = check_flag(name, "return_state", return_state)
        self.dropout = dropout
        self._options = {"with_bias": check_flag(name, "with_bias", with_bias), "dtype": dtype}
        self._options.update(cell)
        self._begin(known)

    def _make(self, size: int) -> None:
        cells: list[_Cell] = []
        for layer in range(self.num_layers):
            width = size if layer == 0 else self.hidden * self.directions
            for _ in range(self.directions):
                cells.append(self._cell(width, self.hidden, **self._options))
        self.cells = cells

    def get_initial_state(self, batch: int) -> Any:
        """Zeros (num_layers * directions, batch, hidden); a pair of them for an LSTM."""
        count = check_size(type(self).__name__, "batch", batch, 0)
        shape = (self.num_layers * self.directions, count, self.hidden)
        found = _zeros(shape, self._options["dtype"], self._cell.states)
        return found[0] if len(found) == 1 else found

    def forward(self, x: Any, state: Any = None) -> Any:
        tensor = as_tensor(x, type(self).__name__)
        check_rank(self, tensor, (3,), "(N, T, in)")
        check_width(self, tensor, self.in_features)
        check_dtype_of(self, tensor, self.cells[0].wx, "cells.v0.wx")
        if not tensor.shape[1]:
            raise ShapeError(f"{module_path.get()}: {self} needs a step, got {tensor._type}")
        shape = (len(self.cells), tensor.shape[0], self.hidden)
        given = _states(self, state, self._cell.states, shape, tensor)
        out, ends = moveaxis(tensor, 1, 0), list[State]()
        for layer in range(self.num_layers):
            if layer:
                out = self._dropped(out)
            cells = self.cells[layer * self.directions :][: self.directions]
            start = layer * self.directions
            runs = [
                _run(cell, out, tuple(part[start + k] for part in given), k == 1)
                for k, cell in enumerate(cells)
            ]
            ends += [end for end, _ in runs]
            out = runs[0][1] if len(runs) == 1 else concat([ys for _, ys in runs], axis=-1)
        return self._returned(out, ends)

    def _dropped(self, x: Tensor) -> Tensor:
        """Dropout between layers (Srivastava et al., 2014)."""
        rate = self.dropout
        if not self.training or isinstance(rate, int):
            return x
        kept = 1.0 - rate
        return ew.where(random.bernoulli(kept, x.shape), ew.divide(x, kept), 0)

    def _returned(self, out: Tensor, ends: Sequence[State]) -> Any:
        if self.return_sequence:
            found = moveaxis(out, 0, 1)
        else:
            last = [end[0] for end in ends[-self.directions :]]
            found = last[0] if len(last) == 1 else concat(last, axis=-1)
        if not self.return_state:
            return found
        parts = tuple(stack(part) for part in zip(*ends))
        return found, parts[0] if len(parts) == 1 else parts

    def extra_repr(self) -> str:
        layers = "" if self.num_layers == 1 else f", num_layers={self.num_layers}"
        both = "" if self.directions == 1 else ", bidirectional=True"
        return f"{self._shown_size()}, {self.hidden}{layers}{both}"


def _run(cell: _Cell, xs: Tensor, state: State, reverse: bool) -> tuple[State, Tensor]:
    """The last state of a cell over (T, N, in), and its outputs (T, N, hidden)."""

    def step(carry: State, gates: Tensor) -> tuple[State, Tensor]:
        new = cell.step(gates, carry)
        return new, new[0]

    return scan(step, state, cell.project(xs), reverse=reverse)


def _zeros(shape: tuple[int, ...], dtype: Any, count: int) -> State:
    return tuple(zeros(shape, dtype=dtype) for _ in range(count))


def _states(layer: Module, given: Any, count: int, shape: tuple[int, ...], like: Tensor) -> State:
    """The state that was given, as so many tensors; zeros for None."""
    if given is None:
        return _zeros(shape, like.dtype, count)
    alone = count == 1 and not isinstance(given, (tuple, list))
    parts = [as_tensor(x, type(layer).__name__) for x in ([given] if alone else given)]
    if len(parts) != count or any(x.shape != shape for x in parts):
        got = " and ".join(str(x._type) for x in parts)
        kind: type[EinkornError] = ShapeError
    elif any(x.dtype is not like.dtype for x in parts):
        got = " and ".join(str(x._type) for x in parts)
        kind = DTypeError
    else:
        return tuple(parts)
    raise kind(
        MSG_STATE.format(
            path=module_path.get(), layer=layer, count=count, shape=shape, dtype=like.dtype, got=got
        )
    )


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997), (N, T, in) -> (N, T, hidden).

    i, f, g, o = wx x + wh h + b; c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c).
    Both directions of a bidirectional one stand side by side: (N, T, 2 hidden). `forward` takes a
    state (h, c) of (num_layers * directions, N, hidden), zeros by default.

    Args:
        in_features: those of the first input when left out, as in LSTM(64).
        num_layers: how many follow each other.
        return_sequence: the results of all steps; otherwise the last one of each direction,
            (N, hidden * directions).
        return_state: return (results, (h, c)).
        dropout: between layers, while training.

    Raises:
        ShapeError: an input or state of another shape, or without a step.
        DTypeError: an input or state of another dtype than the weights.
    """

    _cell = LSTMCell


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al., 2014), (N, T, in) -> (N, T, hidden).

    r, z = sigmoid(wx x + wh h + b); n = tanh(wx x + b + r (wh h + bh)); h = (1 - z) n + z h. The
    state is h alone; the arguments are those of `LSTM`.
    """

    _cell = GRUCell


class RNN(_Recurrent):
    """h = tanh(wx x + wh h + b) (Elman, 1990), (N, T, in) -> (N, T, hidden).

    The state is h alone; the arguments are those of `LSTM`, and

    Args:
        activation: "tanh" or "relu".
    """

    _cell = RNNCell
