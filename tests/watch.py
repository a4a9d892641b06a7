"""What runs side by side ask of the network, what it is given, and what they count."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from membench.models.denoiser import Denoiser
from membench.runs import execute, shards
from membench.runs.finished import Run
from membench.storage.images import png_image

TABLES = ("scores", "samples", "matches", "metrics")


class Watch:
    """Evaluations through the door (not derivatives): what detectors ask for in each
    phase, and how many rows the network is given.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.asked: list[tuple[str, bytes]] = []
        self.evaluated = 0

    def __enter__(self) -> Watch:
        prediction, inner, in_step = Denoiser.prediction, Denoiser._predict, shards.in_step

        def phase(works, *args, **given):
            self.phase = works[0].phase
            in_step(works, *args, **given)

        def asking(model, x, t, condition, *, remember=True):
            rows = zip(x, condition.embeddings, strict=True)
            keys = [
                hashlib.sha256(b"%d" % t + row.numpy().tobytes() + c.numpy().tobytes()).digest()
                for row, c in rows
            ]
            self.asked += [(self.phase, key) for key in keys]
            return prediction(model, x, t, condition, remember=remember)

        def evaluating(model, x, t, condition):
            forward = model._forward

            def counted(x, t, condition):
                self.evaluated += len(x)
                return forward(x, t, condition)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model, "_forward", counted)
                return inner(model, x, t, condition)

        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(execute, "in_step", phase)
        self.patch.setattr(Denoiser, "prediction", asking)
        self.patch.setattr(Denoiser, "_predict", evaluating)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def counts(run: Run) -> dict[str, dict[str, int]]:
    """Every count of every phase but ``shared``."""
    phases = {
        phase: cost
        for phase, cost in run.info["phases"].items()
        if phase in ("prepare", "samples", "scores")
    }
    return {
        phase: {k: v for k, v in cost.items() if "seconds" not in k and k != "shared"}
        for phase, cost in phases.items()
    }


def shared(run: Run) -> dict[str, int]:
    return {phase: cost["shared"] for phase, cost in run.info["phases"].items() if "shared" in cost}


def forwards(run: Run) -> int:
    return sum(phase["forwards"] for phase in counts(run).values())


def same_tables(a: Run, b: Run) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    assert a.images(a.samples.sample_id) == b.images(b.samples.sample_id)


def grey_levels(a: Run, b: Run) -> int:
    """The largest difference of any pixel."""
    one, other = (run.images(run.samples.sample_id) for run in (a, b))
    return max(
        int(np.abs(png_image(png).astype(int) - png_image(other[name])).max())
        for name, png in one.items()
    )
