"""Text tables for reports: amounts, durations, and columns that line up."""

from __future__ import annotations

from collections.abc import Sequence


def amount(number: float) -> str:
    """Three digits and a factor: 999, 1.05k, 12.3M."""
    for factor in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or factor == "T":
            break
        number /= 1000
    return f"{number:.0f}" if not factor else f"{number:#.3g}".rstrip(".") + factor


def duration(nanoseconds: float) -> str:
    """Three digits and a unit: 180 ns, 1.05 us, 12.3 ms."""
    for unit in ("ns", "us", "ms", "s"):
        if nanoseconds < 999.5 or unit == "s":
            break
        nanoseconds /= 1000
    text = f"{nanoseconds:.0f}" if unit == "ns" else f"{nanoseconds:#.3g}".rstrip(".")
    return f"{text} {unit}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of columns under their titles; the last `left` columns start at their left edge."""
    lines = [titles, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(titles))]
    first = len(titles) - left
    return [
        "  ".join(
            cell.rjust(width) if k < first else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]
