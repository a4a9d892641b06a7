"""Means and intervals over seeds, of run folders made by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make, row
from scipy import stats

from membench import leaderboard, store
from membench.seeds_table import over_seeds, t_interval


def test_over_seeds(tmp_path):
    runs = {0: COPIED, 1: [0, 1, 2, 3, None, None, None, None], 2: [0] * 8}
    for seed, copied in runs.items():
        make(tmp_path, copied, seed=seed)
    make(tmp_path, [None] * 8, control=True, seed=1)
    make(tmp_path, COPIED, detector="side", options=("k=2",))
    frame = leaderboard.collect(tmp_path)
    found = over_seeds(frame)
    assert len(found) == 3
    ours = row(found, "random")
    ams, ums = [0.75, 0.5, 1.0], [3 / 8, 4 / 8, 1 / 8]
    half = stats.t.ppf(0.975, 2) * np.std(ams, ddof=1) / np.sqrt(3)
    assert ours.seeds == 3 and ours.seed_list == "0 1 2" and ours.ams_cumulative == pytest.approx(0.75)
    assert ours.ams_cumulative_low == pytest.approx(0.75 - half) and ours.ams_cumulative_high == 1.0  # beyond 1, and told
    assert "ams_cumulative" in ours.cut.split()
    assert (ours.ums_cumulative_low, ours.ums_cumulative_high) == pytest.approx(
        (max(0, np.mean(ums) - stats.t.ppf(0.975, 2) * stats.sem(ums)), np.mean(ums) + stats.t.ppf(0.975, 2) * stats.sem(ums))
    )
    assert ours.excess_ams == 0.5 and ours.excess_ams_seeds == 1 and math.isnan(ours.excess_ams_low)
    one = row(found, "side")
    assert one.seeds == 1 and one.ams_cumulative == 0.75 and math.isnan(one.ams_cumulative_low) and one.cut == ""
    assert row(found, "random", control=True).seeds == 1


def test_detection_over_seeds_and_columns_that_no_row_has(tmp_path, capsys):
    for seed in range(3):
        make(tmp_path, COPIED, seed=seed)
    make(tmp_path, COPIED, control=True)
    make(tmp_path, [], detector="cfg_norm")
    for folder in tmp_path.glob("t/mini/cfg_norm/*"):  # a run of an older membench
        metrics = store.read_table(folder / "metrics.parquet", "metrics")
        old = metrics[~metrics.metric.isin(["auroc_complexity_matched", "spearman_png_bits"])]
        store.write_table(folder / "metrics.parquet", old, "metrics")
    frame = leaderboard.collect(tmp_path)
    found = over_seeds(frame)
    ours, old = row(found, "random"), row(found, "cfg_norm")
    for metric in ("average_precision", "auroc_complexity_matched"):
        values = frame[(frame.detector == "random") & ~frame.control][metric]
        assert ours[metric] == pytest.approx(values.mean()) and ours[f"{metric}_seeds"] == 3 and 0 <= ours[f"{metric}_low"] <= 1
    assert math.isnan(old.auroc_complexity_matched) and old.auroc_complexity_matched_seeds == 0
    assert ours["tpr_at_fpr_0.01_seeds"] == 0 and math.isnan(ours["tpr_at_fpr_0.01"])  # 4 negatives
    leaderboard.write(frame, "md", None, seeds=True)
    model, control = capsys.readouterr().out.split("CONTROL model")
    assert "| AUROC | AUROC matched | AP | AMS copies %" in model and "excess AMS %" in model and "TPR" not in model + control
    assert "excess" not in control
    [line] = [line for line in model.splitlines() if line.startswith("| cfg_norm")]
    assert line.split("|")[5].strip() == "n/a"  # the others have it
    leaderboard.write(frame, "md", None)
    assert "| AUROC | AUROC matched | TPR@1%FPR | AP |" in capsys.readouterr().out


def test_t_interval():
    values = [0.2, 0.5, 0.4, 0.45]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values)[1:3] == pytest.approx(expected) and t_interval(values)[3] == 4
    assert math.isnan(t_interval([])[0]) and t_interval([0.3])[0] == 0.3


def test_seeds_that_agree_keep_the_width_of_their_own_intervals(tmp_path):
    """No copy with three seeds is not [0, 0]."""
    make(tmp_path, COPIED)
    one = leaderboard.collect(tmp_path)
    runs = pd.concat([one.assign(seed=k, ams_cumulative=0.0, ams_cumulative_low=0.0, ams_cumulative_high=0.1 * k) for k in range(3)])
    found = over_seeds(runs).iloc[0]
    assert (found.ams_cumulative, found.ams_cumulative_low, found.seeds) == (0, 0, 3) and found.ams_cumulative_high == pytest.approx(0.1)


def test_kinds_over_seeds(tmp_path, capsys):
    """Each kind's own values of each run, not those of all."""
    for seed in range(2):
        make(tmp_path, COPIED, seed=seed)
    frame = leaderboard.collect_kinds(tmp_path)
    found = over_seeds(frame)
    assert set(found.kind) > {"all"} and (found.seeds == 2).all() and not found.duplicated(["settings", "kind"]).any()
    [folder, other] = sorted(tmp_path.glob("t/mini/*/*"))
    for kind in set(found.kind):
        subset = kind if kind == "all" else f"kind={kind}"
        values = []
        for run in (folder, other):
            m = store.read_table(run / "metrics.parquet", "metrics")
            values += m[(m.metric == "auroc") & (m.subset == subset)].value.tolist()
        assert len(values) == 2 and found[found.kind == kind].auroc.item() == pytest.approx(np.mean(values))
    leaderboard.write(frame, "md", None, seeds=True)
    assert "| detector | options | kind | seeds | AUROC |" in capsys.readouterr().out
