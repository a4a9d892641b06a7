"""When a published number is reproduced, when not, and when nobody can tell."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from test_published import DETECTION, RUN

from membench.boards.published import SCHEMA, read
from membench.boards.published_table import published_table
from membench.boards.reproduced import COLUMNS, NOT_REPRODUCED, OPEN, REPRODUCED, judged, sentence
from membench.reports import beside_published as beside

NUMBER = DETECTION | {"value": 0.976, "n_positive": 500, "n_negative": 500}
OURS = RUN | {
    "auroc": 0.97,
    "auroc_low": 0.951,
    "auroc_high": 0.984,
    "positives": 500,
    "negatives": 499,
    "space": "none",
    "status": "complete",
}


def published(tmp_path: Path, *rows: dict[str, Any]) -> pd.DataFrame:
    path = tmp_path / "p.csv"
    made = [{name: row.get(name, "") for name in SCHEMA.names} for row in rows]
    pd.DataFrame(made).to_csv(path, index=False)
    return read(path)


def verdict(tmp_path: Path, ours: dict[str, Any] = OURS, **number: Any) -> tuple[str, str]:
    [row] = judged(published(tmp_path, NUMBER | number), pd.DataFrame([ours])).itertuples()
    return row.verdict, row.why


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.976, REPRODUCED),
        (0.984, REPRODUCED),  # at the end of the interval
        (0.950, REPRODUCED),  # of two digits: up to 0.955
        (0.94, NOT_REPRODUCED),
        (0.946, NOT_REPRODUCED),
        (0.985, NOT_REPRODUCED),
        (0.99, NOT_REPRODUCED),  # no less than 0.985
        (1.0, NOT_REPRODUCED),  # 1.00 at least, however it is stored
    ],
)
def test_the_interval_and_the_rounding_decide(tmp_path: Path, value: float, told: str) -> None:
    assert verdict(tmp_path, value=value)[0] == told


def test_the_digits_are_those_that_the_paper_prints(tmp_path: Path) -> None:
    """0.990 is stored as 0.99; beside a number of three digits it was 0.990."""
    ours = pd.DataFrame([OURS | {"auroc_high": 0.986}])
    alone = published(tmp_path, NUMBER | {"value": 0.99})
    assert judged(alone, ours).verdict.tolist() == [REPRODUCED]
    beside = NUMBER | {"value": 0.976, "options": '{"draws": 16, "steps": 1}'}
    found = judged(published(tmp_path, NUMBER | {"value": 0.99}, beside), ours)
    assert found.set_index("published").verdict[0.99] == NOT_REPRODUCED
    assert found.rounding.tolist() == [0.0005] * 2
    # Whichever of them comes last
    more = [(0.99, 1), (0.976, 4), (0.99, 9)]
    rows = [NUMBER | {"value": v, "options": f'{{"draws": {n}, "steps": 1}}'} for v, n in more]
    assert judged(published(tmp_path, *rows), ours).rounding.tolist() == [0.0005] * 3


def test_a_run_may_lack_one_example_in_a_hundred(tmp_path: Path) -> None:
    assert verdict(tmp_path, OURS | {"positives": 495, "negatives": 505})[0] == REPRODUCED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "other"}, "and this run is of other"),
        ({"data_name": "webster500 vs 500 LAION"}, "and this run is of webster500 vs 500 LAION"),
        ({"resolved": '{"draws": 1, "steps": 1}'}, "no run has draws=4"),
        ({"status": "partial"}, "the run is partial"),
        ({"control": True}, "control model"),
        ({"positives": 494}, "published of 500 positives, and 494 were scored"),
        ({"auroc": float("nan")}, "AUROC was not measured"),
        ({"auroc_low": float("nan")}, "has no interval"),
        ({"auroc_low": 0.88}, "is wider than 0.1"),
    ],
)
def test_what_keeps_a_number_from_being_judged(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    """Each would be reproduced without that one difference."""
    assert verdict(tmp_path)[0] == REPRODUCED
    told, reason = verdict(tmp_path, OURS | change)
    assert told == OPEN and why in reason


def test_an_option_that_the_source_leaves_open_is_never_ours(tmp_path: Path) -> None:
    told, why = verdict(tmp_path, options='{"draws": null, "steps": 1}')
    assert told == OPEN and why == "the source does not state draws"


def test_other_detectors_and_the_mini_profile_have_no_verdict(tmp_path: Path) -> None:
    for change in ({"detector": "dsm"}, {"profile": "mini"}):
        found = judged(published(tmp_path, NUMBER), pd.DataFrame([OURS | change]))
        assert found.empty and list(found) == list(COLUMNS)


def test_the_run_that_comes_nearest_counts(tmp_path: Path) -> None:
    far = OURS | {"resolved": '{"draws": 1, "steps": 1}'}
    for board in ([OURS, far], [far, OURS]):
        found = judged(published(tmp_path, NUMBER), pd.DataFrame(board))
        assert found.verdict.tolist() == [REPRODUCED]


def test_the_sentence_and_the_table(tmp_path: Path) -> None:
    tpr = NUMBER | {"metric": "tpr_at_fpr_0.01", "value": 0.896}
    other = NUMBER | {"data": "not stated"}
    numbers = published(tmp_path, NUMBER, tpr, other)
    tprs = {f"tpr_at_fpr_0.01{end}": v for end, v in (("", 0.8), ("_low", 0.77), ("_high", 0.83))}
    board = pd.DataFrame([OURS | tprs])
    assert sentence(judged(numbers, board)) == (
        "reproduced: 1 of 2 published numbers that can be judged; cannot be judged: 1"
    )
    found = published_table(numbers, board).set_index("data").verdict
    assert found[NUMBER["data"]] == ("not reproduced: TPR@1%FPR 0.896 is outside [0.770, 0.830]")
    assert found["not stated"].startswith("cannot be judged: published for not stated, and ")
    assert sentence(judged(numbers[numbers.metric == "tpr_at_fpr_0.01"], board)) == (
        "not reproduced: none of 1 published numbers"
    )
    alone = judged(numbers[numbers.data == "not stated"], board)
    assert sentence(alone).startswith("cannot be judged: published for not stated")


def test_runs_of_one_setting_that_disagree_judge_nothing(tmp_path: Path) -> None:
    """Whichever stands first; those that agree have their verdict."""
    worse = OURS | {"auroc": 0.9, "auroc_low": 0.87, "auroc_high": 0.93}
    table = published(tmp_path, NUMBER)
    for runs in ([OURS, worse], [worse, OURS]):
        [row] = judged(table, pd.DataFrame(runs)).itertuples()
        assert (row.verdict, row.why) == (OPEN, "2 runs of this setting disagree")
    [row] = judged(table, pd.DataFrame([OURS, OURS])).itertuples()
    assert row.verdict == REPRODUCED


def test_of_another_model_the_sentence_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = published(tmp_path, NUMBER, NUMBER | {"detector": "dsm", "value": 0.9})
    for model, lines in (("of my own", 1), (NUMBER["model"], 2)):
        found = judged(numbers, pd.DataFrame([OURS | {"model": model, "auroc": math.nan}]))
        assert found.asked.any() == (lines == 2) and set(found.verdict) == {OPEN}
        monkeypatch.setattr(beside, "collect", lambda runs: None)
        monkeypatch.setattr(beside, "over_seeds", lambda *_: pd.DataFrame({"space_id": []}))
        monkeypatch.setattr(beside, "judged", lambda *_, found=found: found)
        text = beside.beside_published([SimpleNamespace(info={"profile": "full"})], None)
        assert text.count("cannot be judged: ") >= lines
        assert (text.count("cannot be judged: ") == 1) == (lines == 1), text
