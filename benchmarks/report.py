"""Tables for people from the JSON of a run, aligned text or markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.results import DISTURBED, OURS

Rows = list[list[str]]
Entry = dict[str, Any]

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

NOTES = """\
Time of a step: median over rounds of each round's median. Ratio: einkorn's time over the best
peer's, formed within each round, then the median. `!`: losses differ from the float64 reference.
`?`: something else used the machine in some round. Estimate: the work at NumPy's rates above."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], markdown: bool) -> str:
    """The first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    aligned = [
        [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(pairs)
        ]
        for pairs in (list(zip(line, widths)) for line in lines)
    ]
    if not markdown:
        rule = ["-" * width for width in widths]
        return "\n".join("  ".join(line).rstrip() for line in [aligned[0], rule, *aligned[1:]])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def duration(seconds: float | None) -> str:
    """With the unit that fits, and three digits."""
    if seconds is None:
        return "–"
    size, unit = next((row for row in UNITS if seconds >= row[0]), UNITS[-1])
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed decimals, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def _peers(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry["peers"]))


def _marks(facts: dict[str, Any]) -> str:
    """What a reader has to know of a time."""
    disturbed = (facts["others"] or 0.0) > DISTURBED
    return ("" if facts["loss_ok"] else " !") + (" ?" if disturbed else "")


def _cell(facts: dict[str, Any] | None, show: Callable[[dict[str, Any]], str]) -> str:
    """What a peer reached, if it took part."""
    if facts is None:
        return ""
    return show(facts) if "step_s" in facts else "failed"


def _columns(
    entries: list[Entry], show: Callable[[Entry, dict[str, Any]], str]
) -> tuple[list[str], Rows]:
    """One row for each workload, one column for each peer."""
    names = _peers(entries)
    rows: Rows = []
    for entry in entries:
        cells = [_cell(entry["peers"].get(name), lambda f, e=entry: show(e, f)) for name in names]
        rows.append([entry["workload"], *cells])
    return names, rows


def _ratio(entry: Entry) -> str:
    return number(entry["peers"].get(OURS, {}).get("ratio"))


def steps(entries: list[Entry], markdown: bool) -> str:
    """Time for a step."""
    names, rows = _columns(entries, lambda _, f: duration(f["step_s"]) + _marks(f))
    for row, entry in zip(rows, entries):
        row += [entry["best"] or "–", _ratio(entry), duration(entry["estimate_s"])]
    return table(["", *names, "best peer", "ratio", "estimate"], rows, markdown)


def starts(entries: list[Entry], markdown: bool) -> str:
    """From the end of the import to the first result, in seconds."""
    names, rows = _columns(entries, lambda _, f: number(f["cold_s"]))
    imports: list[str] = ["import"]
    for name in names:
        seconds = [entry["peers"].get(name, {}).get("import_s") for entry in entries]
        known = sorted(value for value in seconds if value is not None)
        imports.append(number(known[len(known) // 2]) if known else "")
    return table(["", *names], [*rows, imports], markdown)


def memory(entries: list[Entry], markdown: bool) -> str:
    """The peak of the process, in MB."""
    names, rows = _columns(entries, lambda _, f: number(f["peak_mb"], 0))
    return table(["", *names], rows, markdown)


def products(entries: list[Entry], markdown: bool) -> str:
    """GFLOP/s, and einkorn's over NumPy's."""

    def rate(entry: Entry, facts: dict[str, Any]) -> str:
        return number(entry["matmul_flops"] / facts["step_s"] / 1e9, 1) + _marks(facts)

    names, rows = _columns(entries, rate)
    for row, entry in zip(rows, entries):
        ours, theirs = (entry["peers"].get(name, {}).get("step_s") for name in (OURS, "numpy"))
        row.append(number(theirs / ours if ours and theirs else None))
    return table(["", *names, "einkorn/numpy"], rows, markdown)


def calls(entries: list[Entry], markdown: bool) -> str:
    """Microseconds for a call."""
    names, rows = _columns(entries, lambda _, f: number(f["step_s"] * 1e6) + _marks(f))
    return table(["", *names], rows, markdown)


def machine(run: dict[str, Any], markdown: bool) -> str:
    """Where the run took place, and what the machine can do."""
    facts = run["machine"]
    versions = {
        name: peer["version"]
        for entry in run["results"]
        for name, peer in entry["peers"].items()
        if "version" in peer
    }
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{run['date']}, {facts['processor']}, {facts['cpus']} CPUs, {facts['system']}, "
        f"Python {facts['python']}; {named or 'no peers'}.",
        "",
    ]
    header = ["threads", "when", "copy, GB/s", "in cache"]
    header += ["matmul 512, GFLOP/s", "matmul 2048", "exp, G/s"]
    rows: Rows = [
        [
            str(row["threads"]),
            row["when"],
            number(row["copy_gbs"], 1),
            number(row["cached_copy_gbs"], 1),
            number(row["matmul512_gflops"], 0),
            number(row["matmul2048_gflops"], 0),
            number(row["exp_gs"]),
        ]
        for row in run["limits"]
    ]
    return "\n".join([*lines, table(header, rows, markdown)] if rows else lines)


def failures(entries: list[Entry]) -> list[str]:
    """What went wrong, a line each."""
    return [
        f"{entry['workload']} on {entry['threads']}, {name}: {facts['error']}"
        for entry in entries
        for name, facts in entry["peers"].items()
        if "error" in facts
    ]


def report(run: dict[str, Any], *, markdown: bool = False) -> str:
    """All tables of a run."""
    parts = [machine(run, markdown)]

    def add(title: str, part: str) -> None:
        parts.append(f"### {title}\n\n{part}" if markdown else f"{title}\n\n{part}")

    for threads in dict.fromkeys(entry["threads"] for entry in run["results"]):
        entries = [entry for entry in run["results"] if entry["threads"] == threads]
        multiplied = [entry for entry in entries if entry["group"] == "matmul"]
        called = [entry for entry in entries if entry["group"] == "calls"]
        steady = [entry for entry in entries if entry["group"] == entry["workload"]]
        on = f"{threads} thread{'s' if threads > 1 else ''}"
        if steady:
            add(f"Time of a step, {on}", steps(steady, markdown))
            add(f"First result after the import, seconds, {on}", starts(steady, markdown))
            add(f"Peak memory, MB, {on}", memory(steady, markdown))
        if multiplied:
            add(f"Matrix products, GFLOP/s, {on}", products(multiplied, markdown))
        if called:
            add(f"Calls, µs, {on}", calls(called, markdown))
    titles = {e["workload"]: e["title"] for e in run["results"] if e["group"] != "matmul"}
    bullet = "- " if markdown else ""
    ends = ["\n".join(f"{bullet}{name}: {title}" for name, title in titles.items()), NOTES]
    ends += [f"Failed: {line}" for line in failures(run["results"])]
    return "\n\n".join([*parts, *(end for end in ends if end)])
