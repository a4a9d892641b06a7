"""What detectors and attacks give where a call of the network takes a few rows, as of
large images on a processor: what they give in whole batches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pixel_task import PixelTask

from membench import registry
from membench.models import pixel
from membench.runs.execute import execute_all
from membench.runs.finished import Run
from membench.runs.spec import Spec

SIDE = (
    *("synthetic=32", "clusters=2", "cohesion=-1", "keep=1", "min_members=1", "neighbours=3"),
    *("generations=6", "classifier_steps=3", "batch=8"),
)
ASKED = {
    "representation": ("images=0",),
    "loss": ("images=0", "noises=2"),
    "membership": ("images=0",),
    "flipd": ("images=0",),
    "score_norm": ("images=0",),
    "random": ("draws=2",),
    "side": SIDE,
}


def asked(out: Path) -> list[Run]:
    """Of each detector; of the attack its images alone."""
    task, runs = registry.tasks().of(PixelTask), []
    for attack in (False, True):
        specs = [
            Spec(name, task, options=options, limit=14, extract_only=attack)
            for name, options in ASKED.items()
            if (name == "side") == attack
        ]
        runs += execute_all(specs, out, progress=False).runs
    return runs


def test_they_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = asked(tmp_path / "whole")
    monkeypatch.setattr(pixel, "SMALL", 1)
    monkeypatch.setattr(pixel, "ROWS", 4)
    assert PixelTask().load("mini").model().rows_at_once == 4
    for one, two in zip(whole, asked(tmp_path / "few"), strict=True):
        name = one.info["detector"]
        assert two.info["failed"] == {"samples": 0, "scores": 0}, name
        if len(one.scores):
            a, b = (run.scores.set_index("id").score.sort_index() for run in (one, two))
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4, err_msg=name)
        assert len(one.samples) == len(two.samples), name
