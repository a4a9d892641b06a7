"""Means and intervals over seeds, of run folders made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make, row
from scipy import stats

from membench.boards.board import of_frame
from membench.boards.collect import collect, collect_kinds
from membench.boards.identity import apart, model_of
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.boards.views import COSTS, COUNTS, EQUAL_TERMS
from membench.cli.main import main
from membench.metrics.intervals import mean_resamples
from membench.metrics.levels import mover, two_level_interval, widened
from membench.reports.attack_tables import attack_tables
from membench.reports.output import write_boards
from membench.reports.seeds_tables import seeds_tables
from membench.storage.tables import read_table, write_table


def test_every_count_and_cost_of_a_run_is_a_mean_over_seeds(tmp_path):
    """As docs/columns.md says. Of a budget there is one."""
    make(tmp_path, COPIED, seed=0)
    make(tmp_path, COPIED[:6], seed=1, price=30)
    frame = collect(tmp_path)
    found = over_seeds(frame).iloc[0]
    for name, column in {**COUNTS, **EQUAL_TERMS, **COSTS}.items():
        if column.kind in ("count", "real"):
            assert found[name] == pytest.approx(frame[name].astype(float).mean()), name
    assert found.sample_forwards == (80 + 180) / 2 and found.images_at_equal_cost == (8 + 2) / 2


def test_over_seeds_without_the_runs(tmp_path):
    """As of a stored leaderboard: the runs' own intervals widened by Student's t over seeds,
    of every metric; a single seed keeps its own interval.
    """
    runs = {0: COPIED, 1: [0, 1, 2, 3, None, None, None, None], 2: [0] * 8}
    for seed, copied in runs.items():
        make(tmp_path, copied, seed=seed)
    make(tmp_path, [None] * 8, control=True, seed=1)
    make(tmp_path, COPIED, detector="side", options=("k=2",))
    frame = collect(tmp_path)
    found = over_seeds(frame)
    assert len(found) == 3 and "cut" not in found
    ours = row(found, "random")
    ams, ums = [0.75, 0.5, 1.0], [3 / 8, 4 / 8, 1 / 8]
    assert (
        ours.seeds == 3 and ours.seed_list == "0 1 2" and ours.ams_cumulative == pytest.approx(0.75)
    )
    own = frame[(frame.detector == "random") & ~frame.control].sort_values("seed")
    half = stats.t.ppf(0.975, 2) * np.std(ams, ddof=1) / np.sqrt(3)
    groups = 0.75 - own.ams_cumulative_low.mean()
    assert ours.ams_cumulative_low == pytest.approx(max(0.0, 0.75 - np.hypot(half, groups)))
    assert ours.ams_cumulative_high == 1.0  # beyond 1, and cut
    for metric, values in (("ums_cumulative", ums), ("auroc", own.auroc)):
        wanted = widened(values, own[f"{metric}_low"], own[f"{metric}_high"])
        most = 1.0 if metric == "auroc" else np.inf
        assert (ours[f"{metric}_low"], ours[f"{metric}_high"]) == pytest.approx(
            np.clip(wanted, 0, most)
        )
    # Never narrower than what the groups of a run leave open
    assert ours.auroc_high - ours.auroc_low >= (own.auroc_high - own.auroc_low).min() - 1e-12
    alone, one = row(frame, "side"), row(found, "side")
    assert one.seeds == 1 and one.ams_cumulative == 0.75
    for metric in ("ams_cumulative", "ums_cumulative", "auroc"):
        assert (one[f"{metric}_low"], one[f"{metric}_high"]) == (
            alone[f"{metric}_low"],
            alone[f"{metric}_high"],
        )


def test_over_seeds_with_the_runs(tmp_path):
    """Over groups and seeds: AMS from the resamples of its images' groups, detection
    from those of the examples'.
    """
    copies = [COPIED, [0, 1, 2, 3, None, None, None, None], [0] * 4 + [None] * 4]
    runs = [make(tmp_path, copied, seed=seed) for seed, copied in enumerate(copies)]
    frame, resampler = collect(tmp_path), Resampler(resamples=100)
    ours = over_seeds(frame, runs, resampler).iloc[0]
    hits = np.array([[copy is not None for copy in copied] for copied in copies], dtype=float)
    drawn = mean_resamples(hits.T, [f"c{i}" for i in range(8)], resamples=100).T
    assert (ours.ams_cumulative_low, ours.ams_cumulative_high) == pytest.approx(
        two_level_interval(hits.mean(axis=1), drawn)
    )
    by_run = resampler.detection(runs)
    for metric in ("auroc", "auroc_complexity_matched", "average_precision"):
        found = [of[metric] for of in by_run]
        drawn = np.stack([d.resampled for d in found])
        # A resample may leave no bin with both classes
        drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
        expected = two_level_interval([d.value for d in found], drawn, logit=True)
        assert (ours[f"{metric}_low"], ours[f"{metric}_high"]) == pytest.approx(expected) and ours[
            f"{metric}_seeds"
        ] == 3
    # Of one seed: its own, as stored
    single = over_seeds(frame[frame.seed == 1], runs, resampler).iloc[0]
    for metric in (
        "auroc",
        "average_precision",
        "auroc_complexity_matched",
        "ams_cumulative",
        "ums_cumulative",
    ):
        for end in ("", "_low", "_high"):
            assert single[metric + end] == pytest.approx(
                frame[frame.seed == 1].iloc[0][metric + end]
            )
    shuffled = over_seeds(frame.iloc[::-1], runs[::-1], Resampler(resamples=100)).iloc[0]
    assert shuffled[["auroc_low", "ams_cumulative_high"]].tolist() == pytest.approx(
        ours[["auroc_low", "ams_cumulative_high"]].tolist()
    )


def test_the_excess_over_the_control_is_that_of_the_means(tmp_path):
    """Also where the control has fewer seeds; of UMS only at equal N_G."""
    runs = [make(tmp_path, COPIED, seed=seed) for seed in range(3)]
    runs += [make(tmp_path, [0] + [None] * 7, control=True, seed=seed) for seed in range(2)]
    runs += [
        make(tmp_path, COPIED, detector="side"),
        make(tmp_path, [None] * 6, detector="side", control=True),
    ]
    found = over_seeds(collect(runs), runs, Resampler(resamples=100))
    ours, control = row(found, "random"), row(found, "random", control=True)
    assert ours.control_ams == control.ams_cumulative == 1 / 8 and ours.excess_ams == pytest.approx(
        6 / 8 - 1 / 8
    )
    ends = [(of.ams_cumulative_low, of.ams_cumulative_high) for of in (ours, control)]
    assert (ours.excess_ams_low, ours.excess_ams_high) == pytest.approx(
        mover(6 / 8, ends[0], 1 / 8, ends[1])
    )
    assert (
        ours.control_auroc == control.auroc
        and ours.control_auroc_low == control.auroc_low
        and "excess_auroc" not in found
    )
    assert ours.excess_ums == pytest.approx(3 / 8 - 1 / 8) and math.isnan(control.excess_ams)
    side = row(found, "side")
    assert (
        side.excess_ams == 0.75 and math.isnan(side.excess_ums) and math.isnan(side.excess_ums_low)
    )


def test_no_copy_in_any_seed_is_not_certainty(tmp_path):
    runs = [make(tmp_path, [None] * 8, seed=seed) for seed in range(3)]
    frame = collect(runs)
    ours = over_seeds(frame, runs, Resampler(resamples=100)).iloc[0]
    for metric in ("ams_cumulative", "ums_cumulative"):
        assert (ours[metric], ours[f"{metric}_low"]) == (0, 0) and ours[f"{metric}_high"] == frame[
            f"{metric}_high"
        ].mean() > 0.1


def test_detection_over_seeds_and_columns_that_no_row_has(tmp_path, capsys):
    for seed in range(3):
        make(tmp_path, COPIED, seed=seed)
    make(tmp_path, COPIED, control=True)
    make(tmp_path, [], detector="cfg_norm")
    for folder in tmp_path.glob("t/mini/cfg_norm/*"):  # a run of an older membench
        metrics = read_table(folder / "metrics.parquet", "metrics")
        old = metrics[~metrics.metric.isin(["auroc_complexity_matched", "spearman_png_bits"])]
        write_table(folder / "metrics.parquet", old, "metrics")
    frame = collect(tmp_path)
    found = over_seeds(frame)
    ours, old = row(found, "random"), row(found, "cfg_norm")
    for metric in ("average_precision", "auroc_complexity_matched"):
        values = frame[(frame.detector == "random") & ~frame.control][metric]
        assert (
            ours[metric] == pytest.approx(values.mean())
            and ours[f"{metric}_seeds"] == 3
            and 0 <= ours[f"{metric}_low"] <= 1
        )
    assert math.isnan(old.auroc_complexity_matched) and old.auroc_complexity_matched_seeds == 0
    assert ours["tpr_at_fpr_0.01_seeds"] == 0 and math.isnan(ours["tpr_at_fpr_0.01"])  # 4 negatives
    write_boards(of_frame(frame, "seeds"), "md", None)
    model, control = capsys.readouterr().out.split("CONTROL model")
    assert (
        "| AUROC | AUROC matched | TPR@1%FPR | AP | control AUROC | AMS copies %" in model
        and "excess AMS %" in model
    )
    assert "excess" not in control and "control AUROC" not in control
    [line] = [line for line in model.splitlines() if line.startswith("| cfg_norm")]
    # Matched: the others have it
    assert [cell.strip() for cell in line.split("|")[5:7]] == ["n/a", "n/a (needs ≥ 100 negatives)"]
    assert (
        model.count("TPR@0.1%FPR") == 1
        and "\nTPR@0.1%FPR: n/a (needs ≥ 1,000 negatives; here are 4)\n" in model
    )
    write_boards(of_frame(frame, "run"), "md", None)
    assert "| AUROC | AUROC matched | TPR@1%FPR | AP |" in capsys.readouterr().out
    supported = found.assign(
        **{"tpr_at_fpr_0.001": 0.5, "tpr_at_fpr_0.001_low": 0.4, "tpr_at_fpr_0.001_high": 0.6}
    )
    supported["tpr_at_fpr_0.001_seeds"] = supported.seeds
    supported.loc[
        supported.detector == "cfg_norm", ["tpr_at_fpr_0.001", "tpr_at_fpr_0.001_seeds"]
    ] = [np.nan, 0]
    [(_, text, notes)] = seeds_tables(supported[~supported.control])
    assert text["TPR@0.1%FPR"].to_dict() == {
        i: "n/a (needs ≥ 1,000 negatives)" if name == "cfg_norm" else "0.500 [0.400, 0.600]"
        for i, name in text.detector.items()
    }
    assert not any("TPR" in note for note in notes)


def test_seeds_that_agree_keep_the_width_of_their_own_intervals(tmp_path):
    """No copy with three seeds is not [0, 0]."""
    make(tmp_path, COPIED)
    one = collect(tmp_path)
    runs = pd.concat(
        [
            one.assign(
                seed=k, ams_cumulative=0.0, ams_cumulative_low=0.0, ams_cumulative_high=0.1 * k
            )
            for k in range(3)
        ]
    )
    found = over_seeds(runs).iloc[0]
    assert (found.ams_cumulative, found.ams_cumulative_low, found.seeds) == (
        0,
        0,
        3,
    ) and found.ams_cumulative_high == pytest.approx(0.1)


def test_kinds_over_seeds(tmp_path, capsys):
    """Each kind's own values of each run, not those of all."""
    for seed in range(2):
        make(tmp_path, COPIED, seed=seed)
    frame = collect_kinds(tmp_path)
    found = over_seeds(frame)
    assert (
        set(found.kind) > {"all"}
        and (found.seeds == 2).all()
        and not found.duplicated(["settings", "kind"]).any()
    )
    [folder, other] = sorted(tmp_path.glob("t/mini/*/*"))
    for kind in set(found.kind):
        subset = kind if kind == "all" else f"kind={kind}"
        values = []
        for run in (folder, other):
            m = read_table(run / "metrics.parquet", "metrics")
            values += m[(m.metric == "auroc") & (m.subset == subset)].value.tolist()
        assert len(values) == 2 and found[found.kind == kind].auroc.item() == pytest.approx(
            np.mean(values)
        )
    write_boards(of_frame(frame, "seeds"), "md", None)
    assert "| detector | options | kind | seeds | AUROC |" in capsys.readouterr().out


def test_boards_apart_say_which_field_differs(tmp_path):
    runs = [make(tmp_path, COPIED), make(tmp_path, COPIED, control=True)]
    frame = collect(runs)
    assert apart(frame) == []  # a control is no other board
    first = frame[~frame.control]
    [line] = apart(pd.concat([frame, first.assign(data="other", task_version=2)]))
    assert line.startswith("t: not comparable") and line.endswith(
        "other task_version (2, not 1), data (other, not dddddddd)"
    )
    [line] = apart(pd.concat([frame, first.assign(weights="cccccccc")]))
    assert line.endswith("other weights (cccccccc, not aaaaaaaa)")
    [line] = apart(pd.concat([frame, frame[frame.control].assign(weights="cccccccc")]))
    assert line.endswith("other weights (cccccccc, not bbbbbbbb)")  # than the first control's
    assert len(apart(pd.concat([frame, frame.assign(profile="full")]))) == 2
    assert apart(pd.concat([frame, frame.assign(task="u", data="other")])) == []


def test_counts_are_means_over_seeds_and_a_partial_control_is_marked(tmp_path):
    """A seed of which two scores failed has fewer examples."""

    def few(scores):
        return scores.assign(status=["failed"] * 2 + ["ok"] * (len(scores) - 2))

    runs = [make(tmp_path, COPIED), make(tmp_path, COPIED, seed=1)]
    runs[1] = replace(runs[1], scores=few(runs[1].scores))
    runs += [make(tmp_path, COPIED, control=True, seed=seed, failed=seed) for seed in (0, 1)]
    frame = over_seeds(collect(runs), runs, Resampler(resamples=50))
    ours = row(frame, "random")
    assert (ours.positives, ours.negatives, ours.unlabelled) == (3.5, 3.5, 0)
    assert ours.control_status == "partial"
    [(_, text, _)] = seeds_tables(frame[~frame.control])
    assert text["control AUROC"].iloc[0].startswith("PARTIAL 0.")
    tables = {what: body for what, body, _ in attack_tables(frame[~frame.control])}
    [mirror] = [body["mirror %"] for body in tables.values() if "mirror %" in body]
    assert mirror.iloc[0].startswith("PARTIAL ")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", "default"),
        ("google/ddpm-cifar10-32", "google/ddpm-cifar10-32"),
        ("/home/me/secret/mine", "mine"),
        ("~/mine/", "mine"),
        ("../mine", "mine"),
        ("work/models/mine", "mine"),
    ],
)
def test_a_board_does_not_tell_where_a_model_lies(given: str, named: str) -> None:
    options = [f"model={given}"] if given else []
    assert model_of({"profile": "full", "task_options_passed": options}) == named


def test_rows_of_one_name_and_several_settings_are_told(tmp_path, capsys):
    """As of a plug-in that was edited between two seeds: their rows looked like one
    detector's seeds, one of which was lost.
    """
    for seed, code in ((0, "a"), (1, "a"), (2, "b")):
        parts = {"plugin_code": {"detector": code * 64}}
        make(tmp_path / "runs", COPIED, seed=seed, more_parts=parts)
    words = "rows of random are of several settings"
    for by in ("run", "seeds"):
        assert main(["leaderboard", "--runs", str(tmp_path / "runs"), "--by", by]) == 0
        assert words in " ".join(capsys.readouterr().out.split())
    for seed in (0, 1):
        make(tmp_path / "same", COPIED, seed=seed)
    assert main(["leaderboard", "--runs", str(tmp_path / "same"), "--by", "seeds"]) == 0
    assert words not in " ".join(capsys.readouterr().out.split())
