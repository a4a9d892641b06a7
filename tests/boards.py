"""Run folders made by hand, for the tests of the leaderboard."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from frames import samples as sample_rows

from membench.boards.board import Board, By, board
from membench.metrics.table import run_metrics
from membench.runs.finished import Run, load
from membench.runs.folder import RunFolder
from membench.runs.images import Samples
from membench.storage.hashing import content_key, json_hash
from membench.storage.tables import SCHEMAS
from membench.types import Band, Space

L2 = Space(
    "l2", False, (Band("high", 0.0, 1.0), Band("low", 1.0, 1.4)), copy=1.0, floor=1.4, source="test"
)
EMPTY = SCHEMAS["scores"].empty_table().to_pandas()


def scores_of(conditions: list[str]) -> pd.DataFrame:
    """Half memorized; a score that tells, but not always."""
    n = len(conditions)
    label = np.arange(n) % 2
    frame = pd.DataFrame(
        {
            "id": conditions,
            "score": label + np.arange(n) % 3 * 0.6,
            "label": label,
            "kind": np.where(label, "MV", "N"),
        }
    )
    frame = frame.assign(
        group=conditions,
        source=np.where(label, "planted", "held_out"),
        prompt="a mug",
        status="ok",
        error=None,
    )
    return frame.assign(png_bits=800.0 + np.arange(n) // 2)


def make(
    root: Path,
    copied: list[int | None],
    *,
    detector: str = "random",
    control: bool = False,
    seed: int = 0,
    scored: bool = True,
    price: int = 10,
    failed: int = 0,
    prepare: dict | None = None,
    options: tuple[str, ...] = (),
    images: bool = False,
    extra: dict | None = None,
    task: str = "t",
    more_parts: dict | None = None,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda scores: scores,
) -> Run:
    """A run of one image a condition: which training image it copies, or None.

    The last ``failed`` images have failed. more_parts: parts of the key that are other
    than these.
    """
    conditions = [f"c{i}" for i in range(max(len(copied), 8))]
    ids = [f"c{i}/0" for i in range(len(copied))]
    samples = sample_rows(*ids) if ids else SCHEMAS["samples"].empty_table().to_pandas()
    good = len(ids) - failed
    samples = samples.assign(
        status=["ok"] * good + ["failed: NaN"] * failed, truth_similarity=None, truth_label=None
    )
    matches = pd.DataFrame(
        {
            "sample_id": ids[:good],
            "training_id": [f"t{j}" for j in copied[:good]],
            "training": [99 if j is None else j for j in copied[:good]],
            "similarity": [1.2 if j is None else 0.5 for j in copied[:good]],
            "rank": 0,
        }
    )
    scores = change(scores_of(conditions)) if scored else EMPTY
    phases = {"samples": {"forwards": price * len(ids), "seconds": 2.0}} if ids else {}
    phases |= {"scores": {"forwards": 2 * len(conditions), "seconds": 1.0}} if scored else {}
    phases |= {"prepare": {"seconds": 2.0} | prepare} if prepare else {}
    asked = dict(option.partition("=")[::2] for option in options)
    parts = {
        "task": task,
        "task_version": 1,
        "profile": "mini",
        "control": control,
        "detector": detector,
        "options": asked,
        "sampling": {"steps": 10},
        "space": asdict(L2),
        "detector_version": 1,
        "hashes": {
            "data": "d" * 64,
            "prompts": "p" * 64,
            "weights": ("b" if control else "a") * 64,
        },
        "examples": json_hash(sorted(conditions)),
        "seed": seed,
        "dtype": "float32",
        **(more_parts or {}),
    } | ({"extract_only": True} if not scored else {})
    twice = (
        "task",
        "task_version",
        "profile",
        "control",
        "detector",
        "seed",
        "dtype",
        "hashes",
        "options",
        "space",
    )
    info = {name: parts[name] for name in twice} | {
        "status": "partial" if failed else "complete",
        "failed": {"scores": 0, "samples": failed},
        "options_passed": list(options),
        "task_options_passed": [],
        "access": {
            "gradients": False,
            "images": images,
            "training_data": False,
            "labels": False,
            "model": True,
        },
        "n_images": len(ids),
        "truncated_prompts": 0,
        "versions": {"numpy": "2"},
        "device": "cpu",
        "batch_size": 64,
        "n_examples": len(conditions),
        "n_task_examples": len(conditions),
        "phases": phases,
        "seconds": 5.0,
        "peak_memory_mb": 100,
        "membench": {"commit": "f" * 40, "dirty": False},
        **({"extract_only": True} if not scored else {}),
        "attack": True,
        **(extra or {}),
    }
    evaluations = sum(
        phases.get(name, {}).get(kind, 0)
        for name in ("prepare", "samples")
        for kind in ("forwards", "jvps")
    )
    scores = scores.reindex(columns=SCHEMAS["scores"].names)
    tables = {"scores": scores, "matches": matches}
    tables["metrics"] = run_metrics(
        scores, samples[samples.status == "ok"], matches, L2, evaluations=evaluations, resamples=100
    )
    with RunFolder.open(
        root, task, parts["profile"], detector, content_key(parts), parts
    ) as folder:
        folder.finish(tables, Samples.of([samples]), info)
        return load(folder.path)


def board_once() -> Callable[..., Board]:
    """``board``, which makes each board once, for tests that show it in several ways."""
    made: dict[str, Board] = {}

    def kept(runs: Sequence[Run], by: By, **how: object) -> Board:
        key = repr(([str(run.path) for run in runs], by, how))
        if key not in made:
            made[key] = board(runs, by, **how)
        return copy.deepcopy(made[key])

    return kept


COPIED = [0, 0, 0, 1, 1, 2, None, None]


def row(frame: pd.DataFrame, detector: str, control: bool = False) -> pd.Series:
    [(_, found)] = frame[(frame.detector == detector) & (frame.control == control)].iterrows()
    return found
