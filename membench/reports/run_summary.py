"""What is said of one finished run: what it compared with, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from membench.plain import plain
from membench.runs.finished import Run

COUNTED = ("forwards", "backwards", "jvps", "decodes", "encodes")


def run_summary(run: Run) -> str:
    info = run.info
    costs = [text for name, phase in info["phases"].items() if (text := _cost(name, phase))]
    lines = [
        f"{info['detector']}: "
        + ", ".join([*costs, f"{info['seconds']:.0f} s in all"])
        + f", peak memory {info['peak_memory_mb']:,} MB",
        f"files: {run.path}",
        f"report: {run.path / 'report.html'}",
    ]
    if truth := info.get("provenance", {}).get("ground_truth"):
        lines.append(ground_truth_line(truth))
    if reference := info.get("provenance", {}).get("reference"):
        lines.append(reference_line(reference))
    if info["status"] != "complete":
        lines.insert(0, f"PARTIAL RUN ({lacking([info])}): not comparable with whole runs")
    if info.get("extract_only"):
        lines.insert(0, "extraction only: no example was scored")
    return "\n".join(map(plain, lines)) + "\n"


def lacking(infos: Sequence[Mapping[str, Any]]) -> str:
    """What partial runs lack, by their run.json: examples, of the first that has too few,
    and rows that failed, in all.
    """
    short = next((i for i in infos if i["n_examples"] < i["n_task_examples"]), None)
    why = [f"{short['n_examples']} of {short['n_task_examples']} examples"] if short else []
    failed = sum(sum(info["failed"].values()) for info in infos)
    why += [f"{failed} failed rows"] if failed else []
    return ", ".join(why)


def ground_truth_line(truth: Mapping[str, int]) -> str:
    """How much of what could be copied is at hand: copies of anything else cannot be
    found.
    """
    kind = "memorized" if "memorized prompts" in truth else "unlabelled"
    held, of = truth["of them with an image"], truth[f"{kind} prompts"]
    return (
        f"ground truth: {truth['images']:,} images, of {held:,} of {of:,} {kind} prompts;"
        " copies of other images are not found"
    )


def reference_line(reference: Mapping[str, Any]) -> str:
    """Which descriptors images were compared with, and whether counts are exact."""
    of = f"reference: {reference['descriptors']:,} descriptors"
    if "recall" not in reference:
        return f"{of}, exact search; copies of other images are not found"
    return (
        f"{of}, approximate search ({reference['search']}) that finds the nearest of"
        f" {reference['recall']:.1%} of a sample of queries: counts are lower bounds"
    )


def _cost(name: str, phase: Mapping[str, Any]) -> str:
    """``prepare 100 forwards and 20 backwards + 3,000 surrogate forwards ... in 2 s``;
    empty for a phase without evaluations.
    """
    parts, shared = [], f" ({phase['shared']:,} shared)" if phase.get("shared") else ""
    for network in ("", "surrogate_"):
        counts = [
            (phase.get(network + kind, 0), network.replace("_", " ") + kind) for kind in COUNTED
        ]
        text = " and ".join(
            f"{count:,} {what}{shared if what == 'forwards' else ''}"
            for count, what in counts
            if count
        )
        parts += [text] if text else []
    return f"{name} {' + '.join(parts)} in {phase['seconds']:.0f} s" if parts else ""
