"""Time training steps with einkorn beside the other frameworks that are installed.

python -m benchmarks --quick                     a minute, to see that everything works
python -m benchmarks --json run.json             the whole comparison; takes long
python -m benchmarks -w W1,W6 -p einkorn,numpy   some of it
python -m benchmarks --report run.json --markdown
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.drive import Group, Plan, reference_losses
from benchmarks.machine import facts, limits
from benchmarks.peers import PEERS
from benchmarks.report import duration, report
from benchmarks.results import entry
from benchmarks.workloads import GROUPS, make

QUICK = Plan(rounds=2, seconds=0.1, starts=1, patience=0.0, checked=3)
QUICK_PEERS = ("einkorn", "numpy", "jax")  # importing torch for each workload takes too long
NOT_QUICK = ("W4", "W5")  # compiling them, and their reference, takes longest
ALL_PEERS = tuple(name for name in PEERS if name != "einkorn-eager")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-w", "--workloads", help=f"of {','.join(GROUPS)}; by default all, or what is quick")
    add("-p", "--peers", help=f"of {','.join(PEERS)}; by default those installed, not eager")
    add("-t", "--threads", help="thread counts in turn, as 2,1; default: all CPUs, then 1")
    add("--quick", action="store_true", help="short rounds, one start; without torch, W4, W5")
    add("--tiny", action="store_true", help="small sizes, to test the benchmarks themselves")
    add("--rounds", type=int, help=f"turns of each peer (default {Plan().rounds})")
    add("--seconds", type=float, help=f"length of a turn (default {Plan().seconds})")
    add("--starts", type=int, help=f"fresh processes for cold times (default {Plan().starts})")
    add("--patience", type=float, help="seconds to wait for a quiet machine (default 10)")
    add("--no-limits", action="store_true", help="do not measure the machine")
    add("--json", type=Path, metavar="FILE", help="write the results there, after each workload")
    add("--report", type=Path, metavar="FILE", help="print an earlier run instead")
    add("--markdown", action="store_true", help="print the tables as markdown")
    args = parser.parse_args(given)
    groups = [name for name in GROUPS if not (args.quick and name in NOT_QUICK)]
    args.workloads = _chosen(parser, args.workloads, GROUPS, groups)
    usual = [name for name in (QUICK_PEERS if args.quick else ALL_PEERS) if PEERS[name].installed]
    args.peers = _chosen(parser, args.peers, PEERS, usual)
    missing = [name for name in args.peers if not PEERS[name].installed]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    cpus = facts()["cpus"]
    usual_threads = [cpus] if args.quick or cpus == 1 else [cpus, 1]
    args.threads = [int(n) for n in args.threads.split(",")] if args.threads else usual_threads
    return args


def _chosen(
    parser: argparse.ArgumentParser, text: str | None, known: Any, usual: list[str]
) -> list[str]:
    """The names in a comma-separated list; an error when one is unknown."""
    names = text.split(",") if text else usual
    for name in names:
        if name not in known:
            parser.error(f"{name!r} is unknown; there are {', '.join(known)}")
    return names


def plan_of(args: argparse.Namespace) -> Plan:
    """How thoroughly to measure."""
    given = {name: getattr(args, name) for name in ("rounds", "seconds", "starts", "patience")}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(QUICK if args.quick else Plan(), tiny=args.tiny, **changes)


def write(run: dict[str, Any], path: Path | None) -> None:
    """Replace the file at once, so that an interrupt leaves a whole one."""
    if path is None:
        return
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(run, indent=1), encoding="utf-8")
    os.replace(part, path)


def tell(message: str) -> None:
    """Progress goes to standard error: standard output is the report."""
    print(message, file=sys.stderr, flush=True)


def run_group(run: dict[str, Any], group: str, threads: int, args: argparse.Namespace) -> None:
    """Measure the workloads that share processes, and add them to the run."""
    plan, start = plan_of(args), time.perf_counter()
    found = Group(GROUPS[group], args.peers, threads, plan).measure()
    machine = next((row for row in reversed(run["limits"]) if row["threads"] == threads), None)
    for name in GROUPS[group]:
        reference = reference_losses(name, plan)
        workload = make(name, tiny=plan.tiny)
        run["results"].append(entry(group, workload, threads, found[name], reference, machine))
        peers = run["results"][-1]["peers"]
        times = [f"{peer} {duration(peers[peer].get('step_s'))}" for peer in peers]
        tell(f"  {name}, on {threads}: {', '.join(times)}")
    tell(f"  {group} took {time.perf_counter() - start:.0f} s")
    write(run, args.json)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    run: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": facts(),
        "options": asdict(plan_of(args)),
        "limits": [],
        "results": [],
    }
    for threads in args.threads:
        if not args.no_limits:
            run["limits"].append({"threads": threads, "when": "before", **limits(threads)})
        for group in args.workloads:
            run_group(run, group, threads, args)
        if not args.no_limits and not args.quick:
            run["limits"].append({"threads": threads, "when": "after", **limits(threads)})
    write(run, args.json)
    return run


def main(given: Sequence[str] | None = None) -> int:
    """1 when a peer failed or its losses are wrong."""
    args = arguments(given)
    run = json.loads(args.report.read_text(encoding="utf-8")) if args.report else measure(args)
    print(report(run, markdown=args.markdown))
    peers = [facts for result in run["results"] for facts in result["peers"].values()]
    return int(any(not facts.get("loss_ok") for facts in peers))


if __name__ == "__main__":
    sys.exit(main())
