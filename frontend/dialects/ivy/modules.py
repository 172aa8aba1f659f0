"""Ivy's Module: variables come from `_create_variables`, the call is `_forward`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from einkorn import nn
from einkorn.compile import compile
from einkorn.convert import check_device
from einkorn.dialects.ivy.building import Building, Given
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.tracking import Tracking
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Leaf, Parameter
from einkorn.nn.describing import children
from einkorn.recording import no_grad

MSG_ARGUMENTS = (
    "{owner}: further arguments of Module.__init__ are those of _build, which {owner} does not "
    "define; got {found}"
)


class State(Container):
    """The parameters and buffers as Ivy nests them; called, what `state_dict` of einkorn gives."""

    __slots__ = ("_module",)

    def __call__(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies by their path, such as "hidden.w"."""
        return nn.Module.state_dict(self._module)


class Page(str):
    """A page of HTML that a notebook shows."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self)}" width="100%" height="600"></iframe>'


class Module(Tracking, Building, nn.Module):
    """A module whose `__init__` is called last in that of a subclass, and makes its variables.

    Args:
        args: those of `_build`; or, as older programs have it, the device and `v`.
        v: values for the variables, in the structure of `self.v`.
        buffers: values for buffers, by name; those that there are not are added.
        build_mode: "on_init", "explicit" (by `build()`) or "on_call": at the first call, with its
            arguments.
        store_vars: whether the module keeps its variables; otherwise each call is given them.
        with_partial_v: whether `v` may lack some of them.
        training: as it is after `train(training)`.
        dtype: that of the variables: float32 by default, that of the first input for "on_call".
        device: "cpu" or None; `dev` is the same.
        kwargs: those of `_build`.
    """

    _ek_container: ClassVar[type[Container]] = Container

    def __init__(
        self,
        *args: Any,
        v: Mapping[str, Any] | None = None,
        buffers: Mapping[str, Any] | None = None,
        build_mode: str = "on_init",
        store_vars: bool = True,
        with_partial_v: bool = False,
        training: bool = True,
        dtype: Any = None,
        device: Any = None,
        dev: Any = None,
        **kwargs: Any,
    ) -> None:
        place = _place([*args])
        inner = args if place is None else ()
        if place is not None:
            dev, v = place[0] or dev, v if place[1] is None else place[1]
        if (inner or kwargs) and type(self)._build is Building._build:
            found = ", ".join([*map(repr, inner), *kwargs])
            raise EinkornError(MSG_ARGUMENTS.format(owner=type(self).__name__, found=found))
        given = Given(inner, kwargs, v, buffers, with_partial_v, training)
        self._ek_begin(given, build_mode, store_vars, device or dev, dtype)

    # -- calling -------------------------------------------------------------------------------

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise EinkornError(f"{type(self).__name__} has no _forward method")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """`_forward`, which is what subclasses define."""
        return self._forward(*args, **kwargs)

    def __call__(
        self,
        *args: Any,
        with_grads: bool | None = None,
        track_submod_rets: bool = False,
        submod_depth: int | None = None,
        submods_to_track: Any = None,
        track_submod_call_order: bool = False,
        expected_submod_rets: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `_forward`.

        Args:
            with_grads: False records nothing for gradients.
            track_submod_rets: keep in `submod_rets` what the modules inside return, by path;
                `track_submod_call_order` is the same.
            submod_depth: of those at most so many levels inside.
            submods_to_track: of these modules.
            expected_submod_rets: what they should return, by path: arrays, or dicts of "val" and,
                if wanted, "rtol" and "atol"; a MismatchError names the first that differs.
            kwargs: those of `_forward`; and `v`, `buffers`, `capture` as `ek.nn.Module` has them.
        """
        self._ek_check_ready(kwargs.get("v"))
        call = self.__dict__.get("_ek_call") or partial(nn.Module.__call__, self)
        with no_grad() if with_grads is False else nullcontext():
            if track_submod_rets or track_submod_call_order or expected_submod_rets is not None:
                plain = partial(nn.Module.__call__, self, *args, **kwargs)
                return self._ek_with_rets(
                    plain, expected_submod_rets, submod_depth, submods_to_track
                )
            return call(*args, **kwargs)

    def trace_graph(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """Compile the calls of this module, from now on.

        Args:
            args: sample arguments for which it is compiled at once; otherwise at the next call.
            kwargs: as `args`.
            options: those of `ek.compile`.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            return nn.Module.__call__(self, *args, **kwargs)

        call.__name__ = type(self).__name__
        compiled = compile(call, **options)
        if args or kwargs:
            compiled.lower(*(args or ()), **(kwargs or {})).compile()
        vars(self)["_ek_call"] = compiled

    def show_graph(
        self,
        *args: Any,
        randomness_factor: float = 0.1,
        save_to_disk: bool = False,
        notebook: bool = False,
        with_edge_labels: bool = True,
        with_arg_labels: bool = True,
        with_output_labels: bool = True,
        output_connected_only: bool = True,
        highlight_subgraph: str = "",
        fname: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The graph of a call with these arguments as a page of HTML; nothing is run.

        Args:
            save_to_disk: write it, as "graph.html" without `fname`, and return the path.
            notebook: return what a notebook shows.
            with_edge_labels: whether there are shapes and dtypes.
            with_arg_labels, with_output_labels: whether inputs, variables and results have names.
            highlight_subgraph: the path of a module that is marked, or a pattern of paths.
            fname: write it there.
            randomness_factor, output_connected_only: of no effect.
        """
        names = with_arg_labels and with_output_labels
        graph = self.graph(*args, **kwargs)
        page = graph.to_html(types=with_edge_labels, names=names, mark=highlight_subgraph)
        if save_to_disk or fname is not None:
            path = Path("graph.html" if fname is None else fname)
            path.write_text(page, encoding="utf-8")
            return path
        return Page(page) if notebook else page

    def __getstate__(self) -> dict[str, Any]:
        own = super().__getstate__()
        return {key: own[key] for key in own.keys() - {"_ek_call", "_ek_rets"}}

    # -- variables -----------------------------------------------------------------------------

    def register_parameter(self, name: str, value: Any) -> None:
        """Add a variable."""
        self._ek_check_free(name, "parameter")
        setattr(self, name, value if isinstance(value, Leaf) else Parameter(value))

    def register_buffer(self, name: str, value: Any) -> None:
        """Add state that is not trained."""
        self.add_buffer(name, value)

    def to_device(self, device: Any) -> Module:
        """Nothing but a check, as there is one device."""
        check_device("to_device", device)
        return self

    def save_weights(self, weights_path: str | os.PathLike[str]) -> None:
        """Write the variables to a safetensors file, which `Container.load` reads."""
        folder = os.path.dirname(os.fspath(weights_path))
        if folder:
            os.makedirs(folder, exist_ok=True)
        self.v.save(weights_path)

    @property
    def state_dict(self) -> State:  # type: ignore[override] # it can be called like the method
        """Variables and buffers, nested; `state_dict()` gives copies by path, as einkorn's does."""
        found = self._ek_built()
        state = State((*found.v.flat_items(), *found.buffers.flat_items()))
        object.__setattr__(state, "_module", self)
        return state

    @property
    def module_dict(self) -> Container:
        """The modules inside that have none inside themselves, nested by their paths."""
        inner = self._ek_found().modules.items()
        return Container((path, x) for path, x in inner if path and not list(children(x)))

    def _extra_repr(self) -> str:
        """What stands between the parentheses of the printed form."""
        return ""

    def extra_repr(self) -> str:
        """`_extra_repr`, which is what subclasses define."""
        return self._extra_repr()


def _place(args: list[Any]) -> tuple[Any, Any] | None:
    """Positional arguments that are a device and variables; None for those of `_build`."""
    if not args or len(args) > 2 or not (args[0] is None or isinstance(args[0], str)):
        return None
    v = args[1] if len(args) == 2 else None
    return (args[0], v) if v is None or isinstance(v, Mapping) else None


class Sequential(Module, nn.Sequential):
    """Each module is called with the result of the one before."""

    def __init__(self, *modules: nn.Module, **options: Any) -> None:
        nn.Sequential.__init__(self, *modules)
        Module.__init__(self, **options)

    def _forward(self, x: Any) -> Any:
        return nn.Sequential.forward(self, x)

    def __getitem__(self, index: int | slice) -> Any:
        """One module, or a Sequential that shares the modules of a slice."""
        if isinstance(index, slice):
            return Sequential(*self._submodules[index])
        return nn.Sequential.__getitem__(self, index)
