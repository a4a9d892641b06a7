"""Numbers of a board's rows that a run with failures, without labels or with derivatives
tells from another, by hand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make

from membench.boards.collect import affordable, collect
from membench.boards.differences import differences
from membench.boards.leaders import leaders
from membench.boards.mirror import collect_mirror, paired
from membench.boards.quality import with_mirror
from membench.boards.resampling import Drawn, Resampler
from membench.boards.seeds import _drawn, over_seeds
from membench.boards.verdict import Reached, mirror_verdict, verdict
from membench.metrics.levels import two_level_interval
from membench.runs.check import evaluations_of_images
from membench.runs.finished import evaluations_per_example


def test_examples_are_counted_by_label_where_they_have_a_score(tmp_path) -> None:
    """Of twelve, six memorized: two lose their label, and of each kind one fails."""

    def change(scores: pd.DataFrame) -> pd.DataFrame:
        scores.loc[[0, 1], "label"] = -1
        failed = [1, 2, 3]  # of label -1, 0 and 1
        scores.loc[failed, ["score", "png_bits"]] = np.nan
        scores.loc[failed, "status"] = "failed"
        scores.loc[failed, "error"] = "NaN"
        return scores

    partial = {"failed": {"scores": 3, "samples": 0}, "status": "partial"}
    make(tmp_path, [*COPIED, *COPIED[:4]], change=change, extra=partial)
    [row] = collect(tmp_path).itertuples()
    assert (row.scored, row.positives, row.negatives, row.unlabelled) == (9, 4, 4, 1)


def test_an_image_costs_what_all_cost_that_were_drawn(tmp_path) -> None:
    make(tmp_path, COPIED, failed=2, price=10)
    [row] = collect(tmp_path).itertuples()
    assert (row.n_g, row.n_ok, row.sample_forwards, row.forwards_per_image) == (8, 6, 80, 10.0)


def test_a_preparation_that_pays_for_all_images_is_compared_at_its_own_cost(tmp_path) -> None:
    """The cheapest of the board: all that it has made."""
    make(tmp_path, COPIED[:5], detector="filter", price=0, prepare={"forwards": 30})
    make(tmp_path, COPIED, price=10)
    frame = collect(tmp_path).set_index("detector")
    assert set(frame.equal_cost) == {30}
    assert frame.images_at_equal_cost.to_dict() == {"filter": 5, "random": 3}
    assert frame.copied_at_equal_cost["filter"] == pytest.approx(2)
    assert affordable(30, 30, 0, 5) == 5


def test_what_came_back_is_counted_by_the_nearest_alone(tmp_path) -> None:
    """As equal terms are, and as ``ums_nearest`` is: near-duplicates of a training image
    that is copied are no more of them.
    """
    run = make(tmp_path, COPIED)
    metrics = run.metrics.copy()
    metrics.loc[metrics.metric == "ums_cumulative", "value"] *= 2
    [row] = collect([replace(run, metrics=metrics)]).itertuples()
    assert (row.unique_copies, row.ums_cumulative) == (3, 6 / 8)


def test_seeds_share_the_metrics_that_all_of_them_have(tmp_path) -> None:
    """A metric that one run lacks has no interval over seeds; copies that one lacks,
    neither.
    """
    runs = [make(tmp_path, COPIED, seed=seed) for seed in range(3)]
    drawn = Drawn(0.5, np.zeros(3))

    class Given(Resampler):
        def __init__(self, detected: list[dict[str, Drawn]], copies: list[Drawn | None]) -> None:
            self.given, self.of_copies = detected, iter(copies)

        def detection(self, runs, subset):
            return self.given

        def copies(self, run, space):
            return next(self.of_copies)

    both, one = {"auroc": drawn, "average_precision": drawn}, {"auroc": drawn}
    for detected, copies, names in (
        ([both] * 3, [drawn] * 3, {*both, "ams_cumulative"}),
        ([both, one, both], [drawn] * 3, {"auroc", "ams_cumulative"}),
        ([one, both, both], [drawn, None, drawn], {"auroc"}),
        ([one, {"auroc": Drawn(0.5, None)}, one], [None, drawn, drawn], set()),
    ):
        found = _drawn(runs, "all", True, Given(detected, copies))
        assert {*found} == names and all(len(each) == 3 for each in found.values())


def test_figures_of_two_mirrors_are_nobodys() -> None:
    """With one control of a setting its figures stand beside the model's; with two, nobody
    knows whose.
    """
    frame = pd.DataFrame(
        {
            "pair_settings": ["one", "one", "two", "two", "two"],
            "control": [False, True, False, True, True],
            "fd_training@pixels": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    found = with_mirror(frame)["control_fd_training@pixels"]
    assert found[0] == 2.0 and found[2:].isna().all() and len(found) == len(frame)


def test_a_derivative_is_an_evaluation(tmp_path) -> None:
    run = make(tmp_path, COPIED, price=10)
    phases = run.info["phases"]
    jvps = {"samples": {"jvps": 5}, "scores": {"jvps": 8}}
    phases = phases | {name: phases[name] | more for name, more in jvps.items()}
    run = replace(run, info=run.info | {"phases": phases})
    [row] = collect([run]).itertuples()
    assert (row.sample_forwards, row.sample_evaluations, row.equal_cost) == (80, 85, 85)
    assert evaluations_per_example(run) == (16 + 8) / 8
    costs = {"prepare": {"forwards": 1, "jvps": 2}, "samples": {"forwards": 4, "jvps": 8}}
    others = {"scores": {"forwards": 16}, "samples": {"forwards": 3, "backwards": 7}}
    assert evaluations_of_images(costs) == 15 and evaluations_of_images(others) == 3


def test_images_say_nothing_of_a_detector_that_only_scores(tmp_path) -> None:
    """Its confidence in them is its own."""
    names = ["ams_cumulative", "ums_nearest_cumulative", "best_p95", "ams_in_high", "unique_copies"]
    for attack in (True, False):
        make(tmp_path, [*COPIED, *COPIED], detector=f"d{attack}", extra={"attack": attack})
    frame = collect(tmp_path).set_index("detector")
    assert frame.loc["dTrue", [*names, "precision_at_10"]].notna().all()
    assert frame.loc["dFalse", names].isna().all()
    assert frame.precision_at_10["dFalse"] == frame.precision_at_10["dTrue"]


def test_two_control_models_are_no_control(tmp_path) -> None:
    """Which of them a run is compared with, nothing says."""
    hashes = {"data": "d" * 64, "prompts": "p" * 64, "weights": "c" * 64}
    make(tmp_path, COPIED)
    make(tmp_path, [None] * 8, control=True)
    [row] = (r for r in collect(tmp_path).itertuples() if not r.control)
    assert (row.control_ams, row.excess_ams, row.control_weights) == (0, 6 / 8, "b" * 8)
    make(tmp_path, [None] * 8, control=True, more_parts={"hashes": hashes})
    [row] = (r for r in collect(tmp_path).itertuples() if not r.control)
    assert np.isnan([row.control_ams, row.excess_ams]).all() and row.control_weights is None


def test_runs_on_control_models_are_no_mirror_pair(tmp_path) -> None:
    """They ask each half's model about the other half, so they would be a row below 0.5."""
    runs = []
    for half, weights in (("a", "a"), ("b", "b")):
        hashes = {"data": half * 64, "prompts": "p" * 64}
        for control in (False, True):
            of = {"a": "b", "b": "a"}[weights] if control else weights
            run = make(
                tmp_path,
                [],
                detector="cfg_norm",
                control=control,
                more_parts={"hashes": hashes | {"weights": of * 64}},
                extra={"task_options_passed": [f"half={half}"]},
                change=lambda s, b=half == "b": s.assign(label=1 - s.label) if b else s,
            )
            runs.append(run)
    b = runs[2].info["phases"]
    b = {"phases": b | {"scores": b["scores"] | {"forwards": 32}}}
    runs[2] = replace(runs[2], info=runs[2].info | b)
    [row] = collect_mirror(runs).query("kind == 'all'").itertuples()
    assert row.weights == f"{'a' * 8}|{'b' * 8}" and not row.control
    assert row.evaluations_per_example == 3  # 16 and 32, of 8 examples
    assert [[r.info["control"] for r in part] for part in paired(runs)] == [[False] * 2, [True] * 2]


def test_over_seeds_an_auroc_is_on_the_logit_scale(tmp_path) -> None:
    """Near 1 it can lose more than it can gain."""
    runs = []
    for seed, noise in enumerate((0.2, 0.9, 0.6)):
        rng = np.random.default_rng(seed)

        def change(s: pd.DataFrame, by=noise, rng=rng) -> pd.DataFrame:
            return s.assign(score=s.label + by * rng.normal(size=len(s)))

        runs.append(make(tmp_path, COPIED * 5, seed=seed, change=change))
    [row] = over_seeds(collect(runs), runs).itertuples()
    drawn = [of["auroc"] for of in Resampler().detection(runs)]
    values, resampled = [d.value for d in drawn], np.stack([d.resampled for d in drawn])
    wanted = two_level_interval(values, resampled, logit=True)
    assert (row.auroc_low, row.auroc_high) == pytest.approx(wanted)
    assert wanted != pytest.approx(two_level_interval(values, resampled), abs=0.01)


def test_a_mean_over_seeds_of_which_one_is_a_lower_bound_is_one(tmp_path) -> None:
    """In seed 0 the cost pays for more images than did not fail."""
    for seed, failed in ((0, 2), (1, 0)):
        make(tmp_path, COPIED, seed=seed, failed=failed)
        make(tmp_path, COPIED, seed=seed, detector="side", prepare={"forwards": 20})
    frame = collect(tmp_path)
    found = over_seeds(frame).set_index("detector").equal_cost_capped
    one = frame.set_index(["detector", "seed"]).equal_cost_capped
    assert one["random"].tolist() == [True, False] and found["random"] and not found["side"]


def test_a_mean_of_which_one_seed_was_of_uncommitted_code_is_marked(tmp_path) -> None:
    for seed, dirty in ((0, True), (1, False)):
        commit = {"commit": "ef"[seed] * 40, "dirty": dirty}
        make(tmp_path, COPIED, seed=seed, extra={"membench": commit})
    [row] = over_seeds(collect(tmp_path)).itertuples()
    assert row.dirty and row.commit == "eeeeeeee+dirty ffffffff"


def test_a_pair_is_deterministic_where_both_are(tmp_path) -> None:
    runs = []
    for seed in (0, 1):
        for name, by in (("a", 0.0), ("b", 0.0), ("c", 0.1 * seed)):
            runs.append(
                make(
                    tmp_path,
                    [],
                    detector=name,
                    seed=seed,
                    change=lambda s, by=by: s.assign(score=s.score + by * np.arange(len(s))),
                )
            )
    table = differences(collect(runs), runs, metrics=["auroc"])
    told = {frozenset((r.a, r.b)): r.deterministic for r in table.itertuples()}
    assert told == {frozenset("ab"): True, frozenset("ac"): False, frozenset("bc"): False}


def test_a_source_of_negatives_is_resampled_against_every_positive(tmp_path) -> None:
    """Of 16 examples half are memorized; of the others every second is of the source."""
    odd = np.where(np.arange(16) % 4 == 0, "far", "near miss")

    def change(s: pd.DataFrame) -> pd.DataFrame:
        return s.assign(source=np.where(s.label == 1, "planted", odd))

    run = make(tmp_path, COPIED * 2, change=change)
    found = Resampler().examples(run, "source=far").frame
    assert (found.label == 1).sum() == 8 and (found.label == 0).sum() == 4


def test_who_leads_is_ahead_on_average_of_those_it_is_compared_with() -> None:
    """x is ahead of two by 0.1 each; y of one alone, by 0.15."""
    pairs = [("x", "u", 0.1), ("x", "v", 0.1), ("y", "u", 0.15)]
    rows = pd.DataFrame(pairs, columns=["a", "b", "difference"])
    rows = rows.assign(a_options="", b_options="", p_holm=0.01, metric="auroc")
    assert leaders(rows) == (
        "y leads: significantly better than u (Holm p ≤ 0.01); not compared with y, for want of a"
        " common seed: v and x"
    )


@pytest.mark.parametrize(
    ("difference", "level"),
    [((0.02, -0.05, 0.12), "unsure"), ((0.0, -0.02, 0.04), "content"), ((0.2, 0.1, 0.3), "finds")],
)
def test_content_explains_what_the_whole_interval_says(difference: tuple, level: str) -> None:
    reached = Reached("loss", (0.7, 0.6, 0.8), float("nan"))
    assert verdict(reached, "images", "the mirror model", 0.68, difference).level == level


def test_the_difference_of_a_mirror_pair_is_twice_what_is_above_chance() -> None:
    """AUROC 0.8 on one half and, of the other's labels, 0.2 by the mirror: 0.6 apart."""
    row = {"detector": "loss", "mirrored": 0.8, "mirrored_low": 0.7, "mirrored_high": 0.9}
    for half in "ab":
        row |= {f"auroc_{half}": 0.8, f"auroc_{half}_low": 0.7, f"auroc_{half}_high": 0.9}
        row |= {f"tpr_{half}": 0.1}
    found = mirror_verdict(pd.Series(row), "images", "a")
    assert found.level == "finds" and found.difference == pytest.approx((0.6, 0.4, 0.8))
