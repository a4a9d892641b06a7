"""The board of mirror pairs: runs on both halves find each other, and nothing else does."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from membench.boards.board import board, read
from membench.boards.columns import to_arrow
from membench.boards.mirror import half_of
from membench.cli.main import main
from membench.errors import UserError
from membench.metrics.mirror import (
    is_mirrored,
    mirrored_auroc,
    mirrored_over_seeds,
    over_control,
)
from membench.reports.mirror_tables import mirror_tables
from membench.reports.output import in_markdown, save
from membench.reports.run_end import run_end
from membench.runs.finished import Run, read_runs

SETTING = ["sd_webster.examples=mirror", "sd_webster.half={half}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors that read captions alone, on both halves; one of them on one half."""
    folder = tmp_path_factory.mktemp("runs")
    for half, detectors in (("a", "caption_length,caption_case"), ("b", "caption_length")):
        args = [a for s in SETTING for a in ("--set", s.format(half=half))]
        run = ["run", "--detector", detectors, "--task", "sd_webster", "--quiet"]
        assert main([*run, "--runs", str(folder), *args]) == 0
    return folder


def test_a_row_is_of_both_models(runs: Path) -> None:
    found = read_runs([runs]).runs
    frame = board(found, "mirror").frame
    assert set(frame.detector) == {"caption_length"}  # the other has no run on half b
    assert frame.kind.tolist() == ["all", "MV", "RV", "TV"]
    a, b = sorted(
        (r for r in found if r.info["detector"] == "caption_length"),
        key=lambda r: "half=b" in " ".join(r.info["task_options_passed"]),
    )
    wanted = mirrored_auroc(a.scores, b.scores)
    for ours, theirs in (("mirrored", "mirrored"), ("auroc_a", "a"), ("mirrored_tpr", "tpr")):
        assert frame[ours].tolist() == pytest.approx(wanted[theirs].tolist())
    # The same score on both models, whose labels are exchanged
    assert frame.mirrored.tolist() == pytest.approx([0.5] * 4)
    assert (frame.auroc_a + frame.auroc_b).tolist() == pytest.approx([1.0] * 4)
    assert frame.weights.str.contains("|", regex=False).all()
    to_arrow(frame, "mirror")


def test_the_table_fits_80_columns(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = in_markdown(board(read_runs([runs]).runs, "mirror"))
    assert "| caption_length | 0.500 [0.500, 0.500] |" in text and "| MV | RV | TV |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) <= 80


def test_options_are_a_column_only_where_they_differ(runs: Path) -> None:
    frame = board(read_runs([runs]).runs, "mirror").frame
    [(_, alike, notes), _] = mirror_tables(frame.assign(options="images=0"))
    assert "options" not in alike and notes[0].endswith("; options: images=0")
    other = frame.assign(detector="caption_case", options="steps=5")
    [(_, differ, notes), _] = mirror_tables(pd.concat([frame, other]))
    assert set(differ.options) == {"", "steps=5"} and "options:" not in notes[0]


def test_a_run_of_one_half_stands_in_the_columns_of_pairs(runs: Path) -> None:
    """Where a command ends: one table, without empty columns."""
    found = [r for r in read_runs([runs]).runs if half_of(r) == "a"]
    text = run_end(found, runs, 80)
    [head] = [line for line in text.splitlines() if line.startswith("detector")]
    assert head.split("  ")[0] == "detector" and "a / b" in head
    [row] = [line for line in text.splitlines() if line.startswith("caption_case  ")]
    auroc = roc_auc_score(*by_label(found, "caption_case"))
    assert re.split(r"  +", row)[1:3] == ["needs half b", f"{auroc:.3f} / n/a"]
    alone = [run for run in found if run.info["detector"] == "caption_case"]
    assert f"{auroc:.3f} [" in run_end(alone, runs, 80)  # no pair: AUROC and its interval


def by_label(runs: list[Run], detector: str) -> tuple[np.ndarray, np.ndarray]:
    [run] = [run for run in runs if run.info["detector"] == detector]
    return run.scores.label.to_numpy(), run.scores.score.to_numpy()


def test_one_half_alone_is_refused(runs: Path) -> None:
    alone = [r for r in read_runs([runs]).runs if r.info["detector"] == "caption_case"]
    with pytest.raises(UserError, match="half=b"):
        board(alone, "mirror")


def test_seeds_share_each_resample() -> None:
    """Means over seeds; of twice the same seed, its own numbers."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    a = pd.DataFrame(
        {
            "id": [f"{i:02d}" for i in range(60)],
            "score": random.normal(labels),
            "label": labels,
            "kind": "x",
            "group": [str(i) for i in range(60)],
            "status": "ok",
        }
    )
    b = a.assign(score=random.normal(1 - labels), label=1 - labels)
    once, twice = mirrored_auroc(a, b), mirrored_over_seeds([(a, b), (a, b)])
    pd.testing.assert_frame_equal(once, twice)
    other = a.assign(score=random.normal(labels))
    both = mirrored_over_seeds([(a, b), (other, b)])
    alone = mirrored_auroc(other, b)
    assert both.mirrored[0] == pytest.approx((once.mirrored[0] + alone.mirrored[0]) / 2)
    with pytest.raises(ValueError, match="other examples"):
        mirrored_over_seeds([(a, b), (a.assign(id=[f"{i + 1:02d}" for i in range(60)]), b)])


def test_the_interval_holds_the_truth_over_new_seeds() -> None:
    """Seeds that move all examples at once: over groups alone it held in 40 %."""
    moves, worlds, seeds = 0.4, 60, 3
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    one = float(weights @ norm.cdf((1 + moves * nodes) / np.sqrt(2)) / weights.sum())
    truth = {"mirrored": one, "difference": one - 0.5}
    held = dict.fromkeys(truth, 0)
    labels = np.repeat([0, 1], 60)
    ids = [f"{i:03d}" for i in range(len(labels))]
    same = pd.DataFrame({"id": ids, "label": labels, "kind": "x", "group": ids, "status": "ok"})
    for world in range(worlds):
        random = np.random.default_rng(world)
        pairs, controls = [], []
        for _ in range(seeds):
            d = 1 + moves * random.normal()
            a = same.assign(score=random.normal(d * labels))
            b = same.assign(label=1 - labels, score=random.normal(d * (1 - labels)))
            pairs.append((a, b))
            controls.append((a, same.assign(score=random.normal(size=len(labels)))))
        row = mirrored_over_seeds(pairs, resamples=100).iloc[0]
        held["mirrored"] += row.low <= truth["mirrored"] <= row.high
        _, low, high = over_control(controls, resamples=100)
        held["difference"] += low <= truth["difference"] <= high
    assert min(held.values()) / worlds > 0.88


def test_a_stored_board_shows_the_same(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "mirror.parquet"
    made = board(read_runs([runs]).runs, "mirror")
    save(made.frame, "mirror", "parquet", file)
    assert in_markdown(read(file, "mirror")) == in_markdown(made)
    with pytest.raises(UserError, match="no finished run of it"):
        read(file, "mirror", detectors=["caption_case"])
    made.frame.assign(mirrored="high").to_parquet(file)
    with pytest.raises(UserError, match="column mirrored holds something other than numbers"):
        read(file, "mirror")
    made.frame.drop(columns="auroc_b").to_parquet(file)
    with pytest.raises(UserError, match="no column auroc_b"):
        read(file, "mirror")


def test_two_models_of_one_half_are_no_pair(runs: Path) -> None:
    """As of a folder that was trained again between two runs."""
    [one] = [r for r in read_runs([runs]).runs if r.info["detector"] == "caption_case"]
    parts = one.info["key_parts"]
    hashes = parts["hashes"] | {"weights": "0" * 64}
    again = replace(one, info=one.info | {"key_parts": parts | {"hashes": hashes}})
    with pytest.raises(UserError, match="no detector has runs on both models"):
        board([one, again], "mirror")


def test_of_two_runs_on_one_model_the_last_that_was_read_is_shown(runs: Path) -> None:
    """As of another commit. It has scored the other way round."""
    pair = [r for r in read_runs([runs]).runs if r.info["detector"] == "caption_length"]
    one, two = pair
    again = replace(one, scores=one.scores.assign(score=-one.scores.score))
    by_last = {}
    for name, made in {"again": [one, again, two], "first": [again, one, two]}.items():
        frame = board(made, "mirror").frame
        by_last[name] = frame[frame.kind == "all"].iloc[0]
    first = board(pair, "mirror").frame.iloc[0]
    half = "auroc_a" if half_of(one) == "a" else "auroc_b"
    assert by_last["first"][half] == first[half] != 0.5
    assert by_last["again"][half] == pytest.approx(1 - first[half])


@pytest.mark.parametrize("rows", ["a red mug,1\na blue boat,0\n", "a red mug,\na blue boat,\n"])
def test_prompts_of_ones_own_on_both_halves_are_two_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str
) -> None:
    """Their labels, or that they have none, are the same for both models."""
    (tmp_path / "own.csv").write_text(f"prompt,label\n{rows}")
    run = ["run", "--detector", "caption_length", "--task", "sd_webster"]
    run += ["--prompts", str(tmp_path / "own.csv"), "--runs", str(tmp_path / "runs")]
    for half in "ab":
        assert main([*run, "--set", f"sd_webster.half={half}"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("caption_length  ") for line in out) == 1
    assert main(["leaderboard", "--runs", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.count("\ncaption_length  ") == 2
    with pytest.raises(UserError, match=r"no mirror pair: .* prompts of one's own"):
        board(read_runs([tmp_path / "runs"]).runs, "mirror")


def test_a_few_examples_of_one_label_on_both_halves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--detector", "caption_length", "--task", "sd_webster", "--limit", "4"]
    for half in "ab":
        words = [*run, "--runs", str(tmp_path), "--set", f"sd_webster.half={half}"]
        assert main(words) == 0
    assert "PARTIAL caption_length" in capsys.readouterr().out


def test_what_is_a_mirror() -> None:
    def of(labels: str, status: str = "ok") -> pd.DataFrame:
        frame = pd.DataFrame({"id": [*map(str, range(len(labels)))], "label": [*map(int, labels)]})
        return frame.assign(score=0.5, kind="MV", group=frame.id, status=status)

    assert is_mirrored(of("1100"), of("0010"))
    for a, b in (("1100", "1100"), ("1100", "0000"), ("0000", "0000"), ("1100", "001")):
        assert not is_mirrored(of(a), of(b)), (a, b)
    # The first is memorized by both, the others by one of them
    assert not is_mirrored(of("1100"), of("1011"))
    with pytest.raises(ValueError, match="memorized by both"):
        mirrored_auroc(of("1100"), of("1011"))
    assert not is_mirrored(of("1100"), of("0010", status="failed: NaN"))


def test_after_prompts_of_ones_own_the_control_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half b has the same labels, so that it would say nothing; the control does."""
    draw = np.random.default_rng(0)
    rows = [
        f"{' '.join(f'w{n}' for n in draw.integers(1000, 10**6, 3 + 9 * label))},{label}"
        for label in [0, 1] * 60
    ]
    (tmp_path / "own.csv").write_text("\n".join(["prompt,label", *rows]))
    run = ["run", "--detector", "caption_length", "--task", "sd_webster"]
    run += ["--prompts", str(tmp_path / "own.csv"), "--runs", str(tmp_path / "runs")]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "Only the control model can tell" in out
    following = shlex.split(out.splitlines()[-1])
    assert following[:2] == ["next:", "membench"] and "--control" in following
    assert main([*following[2:], "--quiet"]) == 0
    capsys.readouterr()
    assert main(run) == 0
    assert "content alone explains it" in capsys.readouterr().out
