"""What a Module writes to files and reads from them, or takes from other libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, read_file, write_file
from einkorn.nn.importing import ImportReport, import_weights

if TYPE_CHECKING:
    from einkorn.nn.structure import Structure

Array = np.ndarray[Any, Any]


class Saved:
    """The part of Module that is about files."""

    if TYPE_CHECKING:

        def _ek_built(self) -> Structure: ...

    def _ek_named_leaves(self) -> dict[str, Leaf]:
        found = self._ek_built()
        items = (*found.v.flat_items(), *found.buffers.flat_items())
        return {path.replace("/", "."): leaf for path, leaf in items}

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by their path, such as "hidden.w"."""
        return {key: np.array(leaf.numpy()) for key, leaf in self._ek_named_leaves().items()}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into parameters and buffers: all of them or, when one does not fit, none.

        Args:
            values: by path, as `state_dict` gives them; shared ones may come under each name.
            strict: refuse unknown and missing keys; otherwise they are returned.
        """
        what = f"{type(self).__name__}.load_state_dict"
        return load_leaves(what, self._ek_named_leaves(), values, strict, self._ek_shared)

    def _ek_shared(self, key: str) -> Leaf | None:
        """The leaf behind another name of a shared one."""
        path = key.replace(".", "/")
        found = self._ek_built()
        leaf = found.v.get(path, found.buffers.get(path))
        return leaf if isinstance(leaf, Leaf) else None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and buffers to a safetensors file; an old one stays until the end."""
        write_file(path, self.state_dict())

    def load(self, path: str | os.PathLike[str], strict: bool = True) -> LoadResult:
        """Read parameters and buffers from a safetensors file, as `load_state_dict` does."""
        return self.load_state_dict(read_file(path), strict)

    def import_weights(
        self,
        source: Mapping[str, Any] | str | os.PathLike[str],
        *,
        rename: Any = (),
        transpose: Any = (),
        ignore: Any = (),
        strict: bool = True,
    ) -> ImportReport:
        """Copy weights of another library into parameters and buffers: all of them, or none.

        Args:
            source: arrays or tensors by name, such as a `state_dict` of PyTorch, or the path of a
                safetensors file. Floats are cast to the dtype of the parameter.
            rename: pairs (or a dict) of a regular expression and what takes its place, applied to
                each name in order; or a function of a name. The result is a path of this module,
                with "." or "/" between its parts.
            transpose: a dict of patterns of paths, such as "conv*/w", and the axes of the source
                in their new order; or a list of patterns, whose axes are reversed.
            ignore: patterns of names of the source that are left out.
            strict: refuse names that lead nowhere and parameters that get nothing; otherwise the
                report lists them.
        """
        return import_weights(
            f"{type(self).__name__}.import_weights",
            self._ek_named_leaves(),
            source,
            rename=rename,
            transpose=transpose,
            ignore=ignore,
            strict=strict,
            shared=self._ek_shared,
        )
