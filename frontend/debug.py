"""Tools to look into compiled functions while they run."""

from __future__ import annotations

import builtins
from typing import Any

from einkorn.callback import callback


def breakpoint(**values: Any) -> None:
    """Stop in the debugger at each call, with the values of these tensors in `values`."""

    def stop(arrays: dict[str, Any]) -> None:
        values = arrays  # what the debugger shows
        builtins.breakpoint()
        del values

    callback(stop, None, values)
