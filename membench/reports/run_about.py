"""What a run was: its options, model, data, cost and versions, for its page."""

from __future__ import annotations

from typing import Any

from membench.reports.page import Section, Table
from membench.types import sees

PHASES = ("prepare", "samples", "scores", "matches", "metrics")


COSTS = ("seconds", "forwards", "backwards", "jvps", "decodes", "encodes")


def about(info: dict[str, Any]) -> Section:
    """Options, costs, what the detector prepared, and where the numbers come from."""
    parts, made, phases = info["key_parts"], info["membench"], info["phases"]
    passed = dict(word.partition("=")[::2] for word in info["options_passed"])
    options = [
        (name, _text(value), _text(passed.get(name, "default")))
        for name, value in info["options"].items()
    ]
    every = dict.fromkeys([*COSTS, *(k for p in phases.values() for k in p)])
    # What costs nothing anywhere is left out
    kinds = [k for k in every if any(p.get(k) for p in phases.values())]
    order = sorted(phases, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    costs = [[name, *(_text(phases[name].get(kind, "")) for kind in kinds)] for name in order]
    facts = {
        "run": info["key"],
        "task": f"{info['task']} v{info['task_version']}, {info['profile']} profile",
        "preset, budget": ", ".join(
            f"{name} {_text(info[name])}"
            for name in ("preset", "budget")
            if info.get(name) is not None
        ),
        "task options passed": " ".join(info["task_options_passed"]) or "none",
        "model": "CONTROL: never saw the examples" if info["control"] else "",
        "sampling": parts["sampling"],
        "examples": f"{info['n_examples']} of {info['n_task_examples']}; hash {parts['examples']}",
        "images": info["n_images"],
        "failed": info["failed"],
        "prompts cut by the tokenizer": info["truncated_prompts"],
        **{f"hash of {name}": value for name, value in info["hashes"].items()},
        "detector version": parts["detector_version"],
        "detector looks at": ", ".join(sees(info["access"])),
        "membench": (
            (made["commit"] or "an installed package, commit unknown")
            + (", with uncommitted changes" if made["dirty"] else "")
        ),
        "versions": info["versions"],
        "finished": info.get("finished", "date not stored"),
        "device": f"{info['device']}, {info['dtype']}, batch size {info['batch_size']}",
        "seconds, peak memory": f"{info['seconds']:,.1f} s, {info['peak_memory_mb']:,} MB",
        "resumed": (
            f"{len(info['earlier'])} earlier sessions with other versions or settings"
            if info.get("earlier")
            else ""
        ),
    }
    tables = [
        Table("Options", ("option", "value", "passed"), options),
        Table(
            "Costs",
            ("phase", *(kind.replace("_", " ") for kind in kinds)),
            costs,
            "Network evaluations; a guided step costs two.",
        ),
        Table(
            "Preparation",
            (),
            [(name, _text(value)) for name, value in (info.get("prepared") or {}).items()],
        ),
        Table(
            "Provenance", (), [(name, _text(value)) for name, value in facts.items() if value != ""]
        ),
    ]
    return Section("How it was made", tables=[t for t in tables if t.rows], folded=True)


def _text(value: Any) -> str:
    """A fact for people: short numbers, lists and mappings on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(of)}" for name, of in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(of) for of in value[:50]) + (
            f" … ({len(value)} in all)" if len(value) > 50 else ""
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            f"{value:,}"
            if isinstance(value, int)
            else f"{value:,.1f}"
            if abs(value) >= 1000
            else f"{value:.4g}"
        )
    return str(value)
