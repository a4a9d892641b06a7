"""Whose an image is, of a run that scores nothing: its intervals resample groups of
captions as those of a run with scores do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pixel_task import PixelTask

from membench import registry
from membench.boards.resampling import Resampler
from membench.boards.rescore import rescored
from membench.boards.thresholds import sweep_thresholds
from membench.detector import Detector
from membench.errors import UserError
from membench.runs.execute import execute_all
from membench.runs.finished import Run, load
from membench.runs.spec import Spec
from membench.task import LoadedTask
from membench.testing import tiny_text_model
from membench.types import Condition, Example, Request, Sample, Training

CAPTIONS, IN_A_GROUP = 40, 4
PATTERN = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


class Captions(PixelTask):
    """40 captions in 10 groups; the model is not asked."""

    info = replace(PixelTask.info, name="captions", examples="prompts")

    def load(self, profile: str, **given: Any) -> LoadedTask:
        examples = [
            Example(
                Condition(f"caption-{i:02d}", f"caption {i}"),
                int(i // IN_A_GROUP % 2 == 0),
                "MV" if i // IN_A_GROUP % 2 == 0 else "N",
                f"group {i // IN_A_GROUP}",
                "made",
            )
            for i in range(CAPTIONS)
        ]
        training = Training(lambda: PATTERN, ["0", "1"], [9, 9])
        task = super().load(profile, **given)
        return replace(task, examples=examples, training=training, model=tiny_text_model)


@dataclass(frozen=True)
class CopierOptions:
    pass


class Copier(Detector):
    """Copies a training image for every caption of every second group."""

    Options = CopierOptions
    version = 1
    attack = True

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return [Request(c, 0) for c in conditions]

    def extract(self, model: Any, requests: Sequence[Request]) -> list[Sample]:
        found = []
        for r in requests:
            i = int(r.condition.id.removeprefix("caption-"))
            noise = np.random.default_rng(i + 9).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = PATTERN[0] if i // IN_A_GROUP % 2 == 0 else noise
            found.append(Sample(r.condition, 0, image, 0.0))
        return found

    def score(self, model: Any, conditions: Sequence[Condition], extracted: Any) -> list[float]:
        return [0.0] * len(conditions)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Run]:
    """By whether the run extracts alone."""
    out = tmp_path_factory.mktemp("owners")
    spec = Spec(registry.detectors().of(Copier), registry.tasks().of(Captions))
    return {
        alone: execute_all([replace(spec, extract_only=alone)], out, progress=False).runs[0]
        for alone in (False, True)
    }


def test_groups_are_those_of_the_examples(runs: dict[bool, Run]) -> None:
    assert len(runs[True].scores) == 0 and len(runs[False].scores) == CAPTIONS
    for run in runs.values():
        good, _ = run.found()
        assert run.groups(good).tolist() == [f"group {i // IN_A_GROUP}" for i in range(CAPTIONS)]


def test_the_interval_of_copies_is_over_groups_with_and_without_scores(
    runs: dict[bool, Run],
) -> None:
    """Half of 10 groups are copied whole: an interval over 40 captions would be half as
    wide.
    """
    found = {}
    for alone, run in runs.items():
        drawn = Resampler(resamples=2000).copies(run, run.space)
        assert drawn is not None and drawn.value == 0.5 and drawn.resampled is not None
        found[alone] = np.quantile(drawn.resampled, (0.025, 0.975))
    assert found[True].tolist() == found[False].tolist()
    assert found[True][1] - found[True][0] > 0.5
    swept = sweep_thresholds(list(runs.values()), resamples=500)
    ams = swept[(swept.metric == "ams") & (swept.form == "cumulative")]
    ends = ams.groupby("alpha")[["low", "high"]].nunique(dropna=False)
    assert (ends == 1).all().all() and (ams.high - ams.low).max() > 0.5


def test_another_threshold_is_over_the_same_groups(runs: dict[bool, Run]) -> None:
    """Rows of the kinds, too, and every interval."""
    tables = {alone: rescored(run, (), 0.9).metrics for alone, run in runs.items()}
    extracted = [m[m.metric.str.match("ams|ums")].reset_index(drop=True) for m in tables.values()]
    pd.testing.assert_frame_equal(*extracted)
    assert {"all", "kind=MV", "kind=N"} == set(extracted[1].subset)


@pytest.mark.parametrize("owners", [[], {"a": "b"}, {"a": ["b"]}, {"a": ["b", 1]}])
def test_what_is_no_group_and_kind_is_named(
    owners: Any, runs: dict[bool, Run], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(runs[True].path, tmp_path / runs[True].path.name))
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"owners": owners}))
    with pytest.raises(UserError, match="no group and kind"):
        load(copy)
