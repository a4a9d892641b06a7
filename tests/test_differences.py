"""Paired differences between detectors on the same examples: runs made by hand, against
a plain loop and with planted truths.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import EMPTY, make
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from membench.boards.collect import collect, collect_kinds
from membench.boards.differences import COLUMNS, differences, named
from membench.boards.identity import BOARD
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.errors import UserError
from membench.metrics.complexity import size_bins
from membench.metrics.detection import tpr_at_fpr
from membench.metrics.intervals import class_weights, detection_intervals
from membench.metrics.levels import holm, mover, p_value, two_level, two_level_interval
from membench.metrics.rows import Metric
from membench.metrics.table import long_form
from membench.reports.board_tables import differences_table
from membench.runs.finished import Run

LABELS = np.tile([0, 1], 120)
# 40 of 3 examples in each class
GROUPS = np.array([f"g{label}/{i // 6}" for i, label in enumerate(LABELS)])
IDS = np.array([f"c{i:03d}" for i in range(240)])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make(tmp_path_factory.mktemp("runs"), [])


def effects(seed: int = 0) -> np.ndarray:
    """What the examples of a group have in common, of each example."""
    of = dict(zip(sorted(set(GROUPS)), np.random.default_rng(seed).normal(size=80), strict=True))
    return np.array([of[group] for group in GROUPS])


def scored(
    template: Run,
    detector: str,
    score: np.ndarray,
    *,
    seed: int = 0,
    failed: int = 0,
    groups: np.ndarray = GROUPS,
    png_bits: np.ndarray | float = np.nan,
    **parts: object,
) -> Run:
    """A run with these scores of the 240 examples, of which the first ``failed`` are
    failed.
    """
    status = np.where(np.arange(240) < failed, "failed: NaN", "ok")
    scores = pd.DataFrame(
        {
            "id": IDS,
            "score": score,
            "label": LABELS,
            "group": groups,
            "status": status,
            "prompt": "a mug",
        }
    )
    scores = scores.assign(
        kind=np.where(LABELS, np.where(np.arange(240) % 4 == 1, "MV", "TV"), "N"),
        source="s",
        png_bits=png_bits,
    )
    scores = scores.reindex(columns=EMPTY.columns)
    known = template.info["key_parts"] | {"detector": detector, "seed": seed} | parts
    name = "-".join(map(str, [detector, seed, *parts.values()]))
    info = (
        template.info
        | {name: known[name] for name in ("detector", "seed", "control")}
        | {"key_parts": known, "key": name}
    )
    metrics = [
        Metric(metric, None, None, value, *interval, 240, subset)
        for subset in ("all", "kind=MV")
        for metric, value, interval in _metrics(
            scores[(scores.label == 0) | scores.kind.eq("MV") | (subset == "all")]
        )
    ]
    metrics = long_form(metrics).astype({"low": float, "high": float})
    return replace(template, path=Path(name), info=info, scores=scores, metrics=metrics)


def _metrics(scores: pd.DataFrame) -> list[tuple[str, float, tuple]]:
    """The two that the tests read, without the others' cost."""
    score, label, group = (scores[name].to_numpy() for name in ("score", "label", "group"))
    interval = detection_intervals(score, label, group, resamples=30)["auroc"] or (None, None)
    return [
        ("auroc", roc_auc_score(label, score), interval),
        ("tpr_at_fpr_0.01", tpr_at_fpr(score, label, 0.01), (None, None)),
    ]


def compared(runs: list[Run], resamples: int = 500, **arguments: object) -> pd.DataFrame:
    return differences(collect(runs), runs, resampler=Resampler(resamples=resamples), **arguments)


@pytest.fixture(scope="module")
def correlated(template: Run) -> Callable[..., list[Run]]:
    """Makes detectors a and b, which find the same groups of examples easy; b separates
    the classes more by ``better``.
    """

    @functools.cache
    def made(seeds: int = 1, better: float = 0.0) -> list[Run]:
        shared, runs = LABELS + 1.5 * effects(), []
        for k, detector in enumerate("ab"):
            for seed in range(seeds):
                noise = 0.4 * np.random.default_rng([k, seed]).normal(size=240)
                runs.append(
                    scored(template, detector, shared + k * better * LABELS + noise, seed=seed)
                )
        return runs

    return made


def test_of_one_seed_it_is_the_paired_bootstrap(correlated):
    """Against scikit-learn on the rows of each resample, drawn out one by one."""
    runs = correlated()
    found = compared(runs, resamples=30, metrics=("auroc", "average_precision"))
    [weights] = class_weights(LABELS, GROUPS, 30, 0)
    for metric, of in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        a, b = (run.scores.score.to_numpy() for run in runs)
        value = of(LABELS, a) - of(LABELS, b)
        rows = [np.repeat(np.arange(240), w) for w in weights]
        loop = np.array([of(LABELS[r], a[r]) - of(LABELS[r], b[r]) for r in rows])
        loop, sign = (loop, 1) if value >= 0 else (-loop, -1)
        [row] = found[found.metric == metric].itertuples()
        assert (row.a, row.b) == (("a", "b") if sign == 1 else ("b", "a")) and (
            row.n,
            row.seeds,
        ) == (240, 1)
        assert row.difference == pytest.approx(abs(value)) and row.p == p_value(loop) == row.p_holm
        assert (row.low, row.high) == pytest.approx(np.quantile(loop, [0.025, 0.975]))


def test_of_several_seeds_it_is_over_both_levels(correlated):
    runs = correlated(seeds=3, better=0.3)
    [row] = compared(runs, metrics=["auroc"]).itertuples()
    values = np.array([roc_auc_score(LABELS, run.scores.score) for run in runs]).reshape(2, 3)
    assert (row.a, row.b, row.seeds) == ("b", "a", 3) and row.difference == pytest.approx(
        (values[1] - values[0]).mean()
    )
    drawn = [of["auroc"].resampled for of in Resampler(resamples=500).detection(runs)]
    spread = two_level(values[1] - values[0], np.stack(drawn[3:]) - np.stack(drawn[:3]))
    assert (row.low, row.high) == pytest.approx(
        np.quantile(spread, [0.025, 0.975])
    ) and row.p == p_value(spread)


def test_pairing_narrows_the_interval(correlated):
    """Detectors that find the same examples easy: less than half of what two separate
    intervals would give.
    """
    runs = correlated()
    [row] = compared(runs, metrics=["auroc"]).itertuples()
    of = collect(runs).set_index("detector")
    a, b = ((of.auroc[name], (of.auroc_low[name], of.auroc_high[name])) for name in (row.a, row.b))
    low, high = mover(*a, *b)
    assert row.high - row.low < (high - low) / 2


def test_a_detector_is_no_better_than_itself(template):
    score = LABELS + effects()
    runs = [scored(template, name, score, seed=seed) for name in "ab" for seed in range(2)]
    found = compared(runs)
    assert set(found.metric) == {"auroc", "tpr_at_fpr_0.01", "average_precision"}
    assert (found[["difference", "low", "high"]] == 0).all(axis=None) and (
        found[["p", "p_holm"]] == 1
    ).all(axis=None)


@pytest.mark.parametrize("groups", [3, 9])
def test_p_of_one_and_nothing_is_the_sign_tests(template, groups):
    """No resample of 1 and 0 differs from the next, of however few groups: what they show
    is that so many say the same, as binomtest counts it.
    """
    of = np.array([f"g{label}/{i // 2 % groups}" for i, label in enumerate(LABELS)])
    runs = [
        scored(template, name, score, groups=of)
        for name, score in zip("ab", [LABELS, -LABELS], strict=True)
    ]
    found = compared(runs, metrics=["auroc"]).iloc[0]
    wanted = binomtest(groups, groups).pvalue
    assert (found.difference, found.p) == (1.0, pytest.approx(max(wanted, 2 / 501)))
    assert (found.low > 0) == (wanted < 0.05)  # the interval says the same


def test_a_planted_better_detector_is_found_and_the_others_are_not(template):
    """Holm's adjustment over all pairs of a board, each metric by itself."""
    rng = np.random.default_rng(5)
    shared = 0.5 * LABELS + effects()
    runs = [
        scored(template, f"d{k}", shared + (k == 3) * 1.5 * LABELS + 0.3 * rng.normal(size=240))
        for k in range(5)
    ]
    found = compared(runs, resamples=2000, metrics=["auroc"])
    assert (
        len(found) == 10
        and found.p_holm.tolist() == holm(found.p.tolist())
        and (found.p_holm >= found.p).all()
    )
    sure = found[found.p_holm < 0.05]
    assert len(sure) == 4 and set(sure.a) == {"d3"} and (sure.low > 0).all()
    assert (found.difference >= 0).all() and set(
        map(frozenset, zip(found.a, found.b, strict=True))
    ) == set(map(frozenset, itertools.combinations((f"d{k}" for k in range(5)), 2)))


def test_adjusted_for_a_boards_own_pairs_alone(template, correlated):
    """Detectors on other examples, or on the control model, are not compared, and do
    not count.
    """
    on_model, here = correlated(better=0.2), template.info["key_parts"]
    hashes, own = here["hashes"] | {"weights": "b" * 64}, here["examples"][:8]
    on_control = [
        scored(template, r.info["detector"], r.scores.score.to_numpy(), control=True, hashes=hashes)
        for r in on_model
    ]
    others = [scored(template, name, effects(k), examples="f" * 64) for k, name in enumerate("abc")]
    found = compared([*on_model, *on_control, *others], metrics=["auroc"])
    assert found.groupby(["control", "examples"]).size().to_dict() == {
        (False, own): 1,
        (False, "f" * 8): 3,
        (True, own): 1,
    }
    alone = compared(on_model, metrics=["auroc"])
    assert list(found.columns) == [*BOARD, *COLUMNS]
    pd.testing.assert_frame_equal(
        found[~found.control & (found.examples == own)].reset_index(drop=True), alone
    )


def test_only_common_seeds_and_examples_count(template, correlated):
    """Whatever the others' scores are."""
    runs = correlated(seeds=3)
    a, b = runs[:3], runs[3:]
    more = scored(template, "b", np.where(LABELS, -9.0, 9.0), seed=7)
    failed = scored(template, "a", a[2].scores.score.to_numpy(), seed=2, failed=30)
    pd.testing.assert_frame_equal(
        compared([*a[:2], *b, more], 100), compared([*a[:2], *b[:2]], 100)
    )
    found = compared([*a[:2], failed, *b], 100, metrics=["auroc"]).iloc[0]
    kept = slice(30, None)
    values = [roc_auc_score(LABELS[kept], run.scores.score[kept]) for run in (*a, *b)]
    assert (
        found.n == 210
        and found.seeds == 3
        and found.difference == pytest.approx(abs(np.mean(values[:3]) - np.mean(values[3:])))
    )
    apart = compared([a[0], b[1]])
    assert apart.empty and list(apart.columns) == [*BOARD, *COLUMNS]


def test_the_order_of_runs_and_rows_does_not_matter(template, correlated):
    runs = [
        *correlated(seeds=2),
        scored(template, "c", effects(3)),
        scored(template, "d", effects(3)),
    ]
    shuffled = [
        replace(run, scores=run.scores.sample(frac=1, random_state=i, ignore_index=True))
        for i, run in enumerate(runs)
    ]
    frame = collect(shuffled).iloc[::-1]
    found = differences(frame, shuffled[::-1], resampler=Resampler(resamples=200))
    pd.testing.assert_frame_equal(found, compared(runs, 200))
    # A tie: by name
    assert found[(found.difference == 0)][["a", "b"]].drop_duplicates().to_numpy().tolist() == [
        ["c", "d"]
    ]


def test_runs_with_groups_of_their_own_are_resampled_by_those_of_both(template, correlated):
    """As of groups by the images that each run has drawn: what either joins is one
    group.
    """
    runs = correlated()
    fine = [IDS.copy(), IDS.copy()]
    for groups, first in zip(fine, (0, 60), strict=True):  # either knows half of the groups
        groups[first * 2 : first * 2 + 120] = GROUPS[first * 2 : first * 2 + 120]
    halves = [
        scored(template, run.info["detector"], run.scores.score.to_numpy(), groups=own)
        for run, own in zip(runs, fine, strict=True)
    ]
    whole, joined = (Resampler(resamples=400).detection(of) for of in (runs, halves))
    spread, expected = (
        np.std(of[0]["auroc"].resampled - of[1]["auroc"].resampled) for of in (joined, whole)
    )
    assert spread == pytest.approx(expected, rel=0.15)
    single = [
        np.std(Resampler(resamples=400).detection([run])[0]["auroc"].resampled) for run in halves
    ]
    assert np.std(joined[0]["auroc"].resampled) > max(single)
    # One resample for both
    assert np.corrcoef(joined[0]["auroc"].resampled, joined[1]["auroc"].resampled)[0, 1] > 0.8


def test_the_matched_auroc_is_resampled_alike_whatever_the_bins(template):
    """Sizes are of images that each run has drawn itself, so a run's bins are its own,
    and so are the bins that hold both classes.
    """
    rng = np.random.default_rng(1)
    runs = [
        scored(
            template,
            name,
            LABELS + effects(),
            png_bits=rng.integers(9, 20, size=240) + 6.0 * k * LABELS,
        )
        for k, name in enumerate("ab")
    ]
    [weights] = class_weights(LABELS, GROUPS, 20, 0)
    for run, found in zip(runs, Resampler(resamples=20).detection(runs), strict=True):
        score, bins = run.scores.score.to_numpy(), size_bins(run.scores.png_bits.to_numpy())
        pairs = (LABELS[:, None] == 1) & (LABELS == 0) & (bins[:, None] == bins)
        wins = pairs * ((score[:, None] > score) + (score[:, None] == score) / 2)
        assert found["auroc_complexity_matched"].value == pytest.approx(wins.sum() / pairs.sum())
        assert found["auroc_complexity_matched"].resampled == pytest.approx(
            [w @ wins @ w / (w @ pairs @ w) for w in weights]
        )
    # Of the second: some negatives do not count
    assert not np.isin(bins[LABELS == 0], bins[LABELS == 1]).all()


def test_what_cannot_be_resampled_is_left_out(template, correlated):
    one_group = np.where(LABELS == 1, "g", GROUPS)
    runs = [scored(template, name, effects(k), groups=one_group) for k, name in enumerate("ab")]
    assert compared(runs).empty
    assert compared([make_unscored(template), *correlated()]).a.isin(["a", "b"]).all()
    # 120 negatives
    assert "tpr_at_fpr_0.001" not in Resampler(resamples=50).detection(correlated())[0]


def make_unscored(template: Run) -> Run:
    run = scored(template, "alone", effects())
    return replace(run, scores=EMPTY, metrics=run.metrics[:0])


def test_the_table(template, correlated):
    runs = correlated(seeds=2, better=2.0)
    runs.append(scored(template, "c", runs[0].scores.score.to_numpy(), seed=0))
    out, [note] = differences_table(compared(runs, resamples=2500))
    assert list(out.columns) == [
        "better",
        "worse",
        "difference in AUROC",
        "p",
        "p (Holm)",
        "significant",
        "n",
        "seeds",
    ]
    assert "Holm (1979) for 3 pairs" in note and len(out) == 3
    assert out.better.tolist()[:2] == ["b", "b"] and out.n.eq("240").all()
    same = out[out["difference in AUROC"].str.startswith("0.000")].iloc[0]
    assert (same.better, same.worse, same.p, same.significant, same.seeds) == (
        "a",
        "c",
        "1.000",
        "no",
        "1",
    )
    best = out[(out.worse == "c")].iloc[0]
    assert best.p == "< 0.001" and best.significant == "yes"
    empty, notes = differences_table(compared(runs)[:0])
    assert empty.empty and len(notes) == 1


def test_over_seeds_of_these_runs(correlated):
    """The same resamples, and per kind those of its positives with all negatives."""
    runs = correlated(seeds=3)[:3]
    resampler = Resampler(resamples=300)
    row = over_seeds(collect(runs), runs, resampler).iloc[0]
    drawn = [of["tpr_at_fpr_0.01"] for of in resampler.detection(runs)]
    spread = two_level([d.value for d in drawn], np.stack([d.resampled for d in drawn]))
    assert (row["tpr_at_fpr_0.01_low"], row["tpr_at_fpr_0.01_high"]) == pytest.approx(
        np.quantile(spread, [0.025, 0.975]).clip(0, 1)
    )
    drawn = [of["auroc"] for of in resampler.detection(runs)]
    expected = two_level_interval(
        [d.value for d in drawn], np.stack([d.resampled for d in drawn]), logit=True
    )
    assert len({d.value for d in drawn}) == 3 and (row.auroc_low, row.auroc_high) == pytest.approx(
        expected, abs=1e-9
    )
    kinds = over_seeds(collect_kinds(runs), runs, resampler).set_index("kind")
    assert kinds.auroc["all"] == row.auroc and kinds.auroc_low["all"] == row.auroc_low
    part = [run.scores[(run.scores.label == 0) | (run.scores.kind == "MV")] for run in runs]
    assert kinds.auroc["MV"] == pytest.approx(
        np.mean([roc_auc_score(of.label, of.score) for of in part])
    )
    assert kinds.auroc_low["MV"] < kinds.auroc["MV"] < kinds.auroc_high["MV"]
    # Half the positives
    assert (
        kinds.auroc_high["MV"] - kinds.auroc_low["MV"]
        > kinds.auroc_high["all"] - kinds.auroc_low["all"]
    )


def test_groups_must_be_known(correlated):
    with pytest.raises(UserError, match="unknown grouping 'prompt'"):
        Resampler("prompt").detection(correlated())


def test_two_versions_of_one_detector_have_two_names(tmp_path: Path) -> None:
    """Of one name, the sentence would compare a setting with itself."""

    def scoring(separation: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda scores: scores.assign(
            score=separation * scores.label + np.arange(len(scores)) % 3
        )

    runs = [
        make(
            tmp_path,
            [None] * 40,
            detector="mine",
            more_parts={"detector_version": version},
            change=scoring(separation),
        )
        for version, separation in ((1, 0.0), (2, 9.0))
    ]
    runs.append(make(tmp_path, [None] * 40, detector="other", change=scoring(1.0)))
    table = differences(collect(runs), runs)
    assert set(named(table, "a")) | set(named(table, "b")) == {"mine", "mine (2)", "other"}
    best = table[table.metric == "auroc"].sort_values("difference").iloc[-1]
    names = {best.a_options, best.b_options}
    assert names == {"", "(2)"} and (best.a, best.b) == ("mine", "mine")
