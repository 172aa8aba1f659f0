"""`Summary`: a row for each module, as data and as a table that fits its terminal."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from einkorn.ir.errors import EinkornError
from einkorn.passes.tables import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUTS = 3  # of a row that are shown
MOST = 160  # columns of the printed table
TITLES = ("layer", "output", "params", "bytes", "FLOPs", "ms")
GAP = 2  # between columns


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One module.

    Attributes:
        path: where it is; "" for the whole.
        layer: its class.
        depth: how many modules it is inside of.
        output: the shape and dtype of each tensor that it returns, in the first call.
        calls: how often it is called.
        parameters: how many numbers it trains or could train, those of modules inside included. A
            parameter that is held twice counts where it is found first.
        trainable: how many of them are trained.
        bytes: what parameters and buffers take.
        flops: operations of one call of the whole, those of modules inside included.
        milliseconds: the time of one compiled call of the module alone; None where unknown.
        same_as: the path under which the same module has a row above; None for a first row. The
            modules inside, calls and numbers are those of that row.
    """

    path: str
    layer: str
    depth: int
    output: tuple[str, ...] = ()
    calls: int = 0
    parameters: int = 0
    trainable: int = 0
    bytes: int = 0
    flops: int = 0
    milliseconds: float | None = None
    same_as: str | None = None


@dataclass(frozen=True)
class Summary:
    """A row for each module, the whole first; prints as a table as wide as the terminal allows.

    Attributes:
        rows: the modules, in the order of their attributes.
    """

    rows: tuple[SummaryRow, ...]

    def __getitem__(self, path: str) -> SummaryRow:
        """The row of a module."""
        for row in self.rows:
            if row.path == path:
                return row
        paths = [row.path for row in self.rows[1:]]
        near = difflib.get_close_matches(str(path), paths, n=3) or paths[:8]
        raise EinkornError(f"the summary has no module {path!r}, but {', '.join(near) or 'none'}")

    @property
    def parameters(self) -> int:
        """How many numbers the whole trains or could train."""
        return self.rows[0].parameters

    @property
    def flops(self) -> int:
        """Operations of one call of the whole."""
        return self.rows[0].flops

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text  # loaded on first use: `import einkorn` stays quick

        yield Text(_title(self.rows[0]))
        yield _table(self.rows, options.max_width)

    def __str__(self) -> str:
        from rich.console import Console

        width = min(MOST, max(80, shutil.get_terminal_size((80, 24)).columns))
        console = Console(width=width, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    __repr__ = __str__


def _title(whole: SummaryRow) -> str:
    trained = "" if whole.trainable == whole.parameters else f" ({whole.trainable:,} trained)"
    size = f", {amount(whole.bytes)} bytes" if whole.bytes else ""
    return f"{whole.layer}: {whole.parameters:,} parameters{trained}{size}"


def _table(rows: Sequence[SummaryRow], width: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    numbers = [_numbers(row) for row in rows]
    outputs = [_outputs(row) for row in rows]
    others = [*zip(*numbers), [x for lines in outputs for x in lines]]
    titles = (*TITLES[2:], TITLES[1])
    taken = sum(
        GAP + max(map(len, (title, *column))) for title, column in zip(titles, others, strict=True)
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    for k, title in enumerate(TITLES):
        widest = max(len(title), *(len(cells[k - 2]) for cells in numbers)) if k > 1 else None
        table.add_column(
            title, justify="right" if k > 1 else "left", no_wrap=True, min_width=widest
        )
    names = _names(rows)
    for row, name, lines, cells in zip(rows, names, outputs, numbers, strict=True):
        layer = _layer(row, name, width - taken)
        table.add_row(*map(Text, ("\n".join(layer), "\n".join(lines), *cells)))
    return table


def _names(rows: Sequence[SummaryRow]) -> list[str]:
    """What rows are called: paths below the parent's, without a part that all children share."""
    parents: list[SummaryRow] = []
    found: list[tuple[str, str]] = []  # the parent's path, and the path below it
    for row in rows:
        del parents[row.depth :]
        above = parents[-1].path if parents else ""
        found.append((above, row.path[len(above) :].lstrip("/")))
        parents.append(row)
    prefixes: dict[str, set[str]] = {}
    for above, name in found[1:]:
        prefixes.setdefault(above, set()).add(name.rpartition("/")[0])
    return [
        name.rpartition("/")[2] if len(prefixes.get(above, ())) == 1 else name
        for above, name in found
    ]


def _layer(row: SummaryRow, name: str, width: int) -> list[str]:
    """The first cell of a row, on two lines where one is not wide enough."""
    indent = "  " * row.depth
    kind = row.layer if row.same_as is None else f"the same as {row.same_as or 'the whole'}"
    kind += f" x{row.calls}" if row.calls > 1 else ""
    kind += ", frozen" if row.parameters and not row.trainable else ""
    if not row.depth:
        return [kind]
    line = f"{indent}{name}: {kind}"
    return [line] if len(line) <= width else [f"{indent}{name}:", f"{indent}    {kind}"]


def _outputs(row: SummaryRow) -> list[str]:
    more = len(row.output) - OUTPUTS
    return [*row.output[:OUTPUTS], *([f"and {more} more"] if more > 0 else [])] or ["-"]


def _numbers(row: SummaryRow) -> tuple[str, str, str, str]:
    time = row.milliseconds
    return (
        f"{row.parameters:,}" if row.parameters else "-",
        amount(row.bytes) if row.bytes else "-",
        amount(row.flops) if row.flops else "-",
        "-" if time is None else f"{time:.3f}" if time < 10 else f"{time:.1f}",
    )
