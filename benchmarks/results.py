"""From samples to figures: medians of rounds, ratios within rounds, errors of the losses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.definition import Workload

CACHE = 64 * 2**20  # bytes; a workload with less is taken to stay in the last-level cache
TOLERANCE = 1e-3  # relative, for the losses of the first steps
DISTURBED = 0.15  # CPUs that others used during a turn
OURS = "einkorn"
NOT_A_RIVAL = ("einkorn", "einkorn-eager")

Facts = dict[str, Any]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def loss_error(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest relative difference; infinite when a loss is not a number."""
    errors = [
        abs(loss - expected) / max(abs(expected), 1e-12)
        for loss, expected in zip(losses, reference, strict=True)
    ]
    return max(error if math.isfinite(error) else math.inf for error in errors)


def summary(facts: Facts, reference: Sequence[float] | None) -> Facts:
    """The figures of one peer on one workload; "error" or "unsupported" stay as they are."""
    if "error" in facts or not facts.get("rounds"):
        return {key: facts[key] for key in ("error", "unsupported") if key in facts}
    rounds = facts["rounds"]
    medians = [statistics.median(turn["samples"]) for turn in rounds]
    samples = [sample for turn in rounds for sample in turn["samples"]]
    others = [turn["others"] for turn in rounds if turn["others"] is not None]
    error = None if reference is None else loss_error(facts["losses"], reference)
    return {
        "version": facts["version"],
        "step_s": statistics.median(medians),
        "round_medians_s": medians,
        "least_s": min(samples),
        "p10_s": quantile(samples, 0.1),
        "p90_s": quantile(samples, 0.9),
        "cold_s": statistics.median(facts["all_cold_s"]),
        "import_s": statistics.median(facts["all_import_s"]),
        "all_cold_s": facts["all_cold_s"],
        "import_mb": facts["import_mb"],
        "peak_mb": max(turn["peak_mb"] for turn in rounds),
        "cpus": statistics.median(turn["cpus"] for turn in rounds),
        "others": max(others) if others else None,
        "faults": rounds[-1]["faults"],
        "losses": facts["losses"],
        "loss_error": error,
        "loss_ok": error is None or error <= TOLERANCE,
    }


def best_rival(peers: Mapping[str, Facts]) -> str | None:
    """The fastest of the other frameworks among those whose losses are right."""
    right = [
        name
        for name, facts in peers.items()
        if name not in NOT_A_RIVAL and "step_s" in facts and facts["loss_ok"]
    ]
    return min(right, key=lambda name: peers[name]["step_s"], default=None)


def add_ratios(peers: dict[str, Facts], best: str | None) -> None:
    """Give every peer its time over that of the best rival: the median of the rounds' ratios."""
    if best is None:
        return
    base = peers[best]["round_medians_s"]
    for facts in peers.values():
        if "step_s" in facts:
            ratios = [mine / its for mine, its in zip(facts["round_medians_s"], base)]
            facts["ratio"] = statistics.median(ratios)


def estimate(workload: Workload, machine: Mapping[str, float] | None) -> float | None:
    """Seconds at NumPy's rates: products, then memory or exp, whichever takes longer.

    Fused code computes exponentials while it waits for memory.
    """
    if not machine:
        return None
    rate = max(machine["matmul512_gflops"], machine["matmul2048_gflops"])
    in_cache = workload.footprint < CACHE
    memory = workload.least_bytes / machine["cached_copy_gbs" if in_cache else "copy_gbs"]
    exponentials = workload.exponentials / machine["exp_gs"]
    return (workload.matmul_flops / rate + max(memory, exponentials)) / 1e9


def entry(
    group: str,
    workload: Workload,
    threads: int,
    found: Mapping[str, Facts],
    reference: Sequence[float] | None,
    machine: Mapping[str, float] | None,
) -> Facts:
    """One workload on so many threads, as it is written to JSON."""
    peers = {name: summary(facts, reference) for name, facts in found.items()}
    supported = {name: facts for name, facts in peers.items() if "unsupported" not in facts}
    best = best_rival(supported)
    add_ratios(supported, best)
    return {
        "group": group,
        "workload": workload.name,
        "title": workload.title,
        "threads": threads,
        "matmul_flops": workload.matmul_flops,
        "estimate_s": estimate(workload, machine),
        "best": best,
        "peers": supported,
    }
