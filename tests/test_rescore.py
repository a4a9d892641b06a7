"""A run under other bands and another copy threshold is the run whose task had them
from the start.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, L2, make
from sklearn.metrics import roc_auc_score

from membench.boards.rescore import parse_bands, relabelled, rescored
from membench.errors import UserError
from membench.metrics.table import run_metrics
from membench.runs.finished import Run
from membench.types import Band, Space

BANDS = parse_bands(["near=0:0.3", "mid=0.3:0.8", "far=0.9:1.3"])
COSINE = Space(
    "cosine/test",
    True,
    (Band("high", 0.6, 1.0), Band("low", 0.4, 0.6)),
    copy=0.5,
    floor=0.3,
    source="test",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of prompts: 12 images, one of which failed, with one to three pairs each at
    random distances up to 1.4.
    """
    made = make(
        tmp_path_factory.mktemp("runs"), [0] * 12, failed=1, seed=3, prepare={"forwards": 15}
    )
    rng = np.random.default_rng(4)
    rows = []
    for name in made.samples.sample_id[made.samples.status == "ok"]:
        values = np.sort(rng.integers(1, 29, size=rng.integers(1, 4))) / 20
        pictures = rng.choice(6, size=len(values), replace=False)
        rows += [
            (name, f"t{j}", j, value, rank)
            for rank, (j, value) in enumerate(zip(pictures, values, strict=True))
        ]
    matches = pd.DataFrame(
        rows, columns=["sample_id", "training_id", "training", "similarity", "rank"]
    )
    return replace(made, matches=matches.astype({"similarity": "float32", "training": "int32"}))


def sorted_rows(metrics: pd.DataFrame) -> pd.DataFrame:
    keys = ["metric", "band", "threshold", "subset", "n"]
    return metrics.astype({"band": object}).sort_values(keys, ignore_index=True)[
        [*keys, "value", "low", "high"]
    ]


@pytest.mark.parametrize(("bands", "copy"), [((), 0.45), (BANDS, None), (BANDS, 0.8)])
def test_the_numbers_are_those_of_a_task_with_these_thresholds(
    run: Run, bands: tuple[Band, ...], copy: float | None
) -> None:
    space = replace(L2, bands=bands or L2.bands, copy=L2.copy if copy is None else copy)
    found = rescored(run, bands, copy)
    good = run.samples[run.samples.status == "ok"]
    spent = 10 * 12 + 15  # what the images cost, and the preparation
    expected = run_metrics(run.scores, good, run.matches, space, evaluations=spent, seed=3)
    extraction = expected.metric.str.match("ams|ums|best_p|precision|unique|chao1|rarefaction")
    assert {"ams", "ums_nearest_cumulative", "unique_per_1000_evaluations", "rarefaction"} <= set(
        expected.metric[extraction]
    )
    mine = found.metrics.metric.isin(expected.metric[extraction])
    pd.testing.assert_frame_equal(
        sorted_rows(found.metrics[mine]),
        sorted_rows(expected[extraction]),
        check_dtype=False,
        check_column_type=False,
    )
    # Prompts keep their labels, and so their detection, bit for bit.
    detection = ~run.metrics.metric.isin(expected.metric[extraction])
    pd.testing.assert_frame_equal(
        found.metrics[~mine].reset_index(drop=True), run.metrics[detection].reset_index(drop=True)
    )
    assert found.space == space and found.info["space"] == asdict(space)
    assert {k: v for k, v in found.info.items() if k != "space"} == {
        k: v for k, v in run.info.items() if k != "space"
    }
    assert found.scores is run.scores and found.matches is run.matches and found.path == run.path


def test_by_hand(tmp_path) -> None:
    """Distances 0.5 of copies and 1.2 of the others; at 0.4 nothing is a copy, at 1.3
    all are, of 4 images.
    """
    run = make(tmp_path, COPIED)

    def value(found: Run, metric: str, band: str | None = None) -> float:
        m = found.metrics[(found.metrics.metric == metric) & (found.metrics.subset == "all")]
        [only] = m[m.band.isna() if band is None else m.band == band].value
        return only

    none, every = rescored(run, (), 0.4), rescored(run, (), 1.3)
    assert (
        value(none, "ams_cumulative") == 0 == value(none, "ums_cumulative")
        and value(run, "ams_cumulative") == 6 / 8
    )
    assert value(every, "ams_cumulative") == 1 and value(every, "ums_cumulative") == 4 / 8
    assert value(every, "unique_per_1000_evaluations") == 1000 * 4 / 80
    # Half-open: 0.5 lies in b, 1.2 in none
    split = rescored(run, parse_bands(["a=0:0.5", "b=0.5:1.2"]), None)
    assert [value(split, "ams", band) for band in "ab"] == [0, 6 / 8] and value(
        split, "ams_cumulative"
    ) == 6 / 8
    assert set(split.metrics.band.dropna()) == {"a", "b"}


def test_the_same_bands_change_nothing(run: Run) -> None:
    assert rescored(run, (), None) is run and rescored(run, L2.bands, L2.copy) is run
    with pytest.raises(UserError, match="not stored"):
        rescored(run, (), 1.45)


def test_shares_of_pictures_fall_away_with_the_copy_threshold_alone(run: Run) -> None:
    """They are of a kind of training image, which is not stored."""
    row = {
        "metric": "extracted_share",
        "band": None,
        "threshold": 1.0,
        "subset": "kind=x4",
        "value": 0.5,
        "low": 0.1,
        "high": 0.9,
        "n": 4,
    }
    with_share = replace(
        run,
        metrics=pd.concat([run.metrics, pd.DataFrame([row, row | {"metric": "copies_per_image"}])]),
    )
    kept = rescored(with_share, BANDS, None).metrics
    assert {"extracted_share", "copies_per_image"} <= set(kept.metric)
    assert not {"extracted_share", "copies_per_image"} & set(
        rescored(with_share, (), 0.9).metrics.metric
    )


# ------------------------------------------------------------- examples that are images


def pictures(space: Space) -> pd.DataFrame:
    """Eight examples that are images, as ``pool._examples`` labels them, and one
    unlabelled, one without a similarity.
    """
    values = (
        [0.2, 0.55, 0.6, 0.95, 1.0, 1.2, 1.39, 0.6]
        if not space.higher_is_closer
        else [0.99, 0.7, 0.6, 0.55, 0.5, 0.45, 0.35, 0.6]
    )
    rows = []
    for i, value in enumerate(values):
        picture = "ABABCCDD"[i]
        copied = value >= space.copy if space.higher_is_closer else value <= space.copy
        miss = value >= 0.4 if space.higher_is_closer else value <= 1.4
        kind = {"A": "x1", "B": "x64", "C": "x4", "D": "x16"}[picture] if copied else "novel"
        source = "pool" if copied else "near miss" if miss else "far"
        rows.append(
            (
                f"e{i}",
                i * 0.1,
                int(copied),
                kind,
                picture if copied else f"not {picture}",
                source,
                value,
                picture,
            )
        )
    columns = ["id", "score", "label", "kind", "group", "source", "similarity", "nearest"]
    other = pd.DataFrame(
        [
            ("u", 0.3, -1, "none", "gu", "mine", values[0], "A"),
            ("p", 0.4, 1, "MV", "gp", "planted", None, None),
        ],
        columns=columns,
    )
    frame = pd.concat([pd.DataFrame(rows, columns=columns), other], ignore_index=True)
    return frame.assign(
        prompt=None,
        status="ok",
        error=None,
        png_bits=np.arange(10) * 100.0,
        similarity=frame.similarity.astype("float32"),
    )


@pytest.mark.parametrize(
    ("space", "copy"),
    [(L2, 0.55), (L2, 1.2), (L2, 0.0), (COSINE, 0.6), (COSINE, 0.45), (COSINE, 1.0)],
)
def test_labels_of_images_are_made_anew(space: Space, copy: float) -> None:
    """As the pool would have labelled them; but an image of which nothing was a copy
    has no kind.
    """
    before, after = pictures(space), pictures(replace(space, copy=copy))
    found = relabelled(before, replace(space, copy=copy))
    unknown = (
        (after.label == 1)
        & (before.label == 0)
        & ~after.nearest.isin(before.nearest[before.label == 1])
    )
    after.loc[unknown, "kind"] = "copy"
    assert (before.label != after.label).any()
    pd.testing.assert_frame_equal(found[after.columns], after)
    # No label, no similarity
    assert list(found[8:].label) == [-1, 1] and list(found[8:].kind) == ["none", "MV"]


def test_detection_follows_the_labels(run: Run) -> None:
    scores = pictures(L2)
    metrics = run_metrics(
        scores, run.samples[run.samples.status == "ok"], run.matches, L2, evaluations=135, seed=3
    )
    mine = replace(run, scores=scores, metrics=metrics)
    found = rescored(mine, (), 0.6)
    labels = scores.label.where(
        scores.label < 0, (scores.similarity <= np.float32(0.6)).astype(int)
    ).where(scores.id != "p", 1)
    kept = labels >= 0
    expected = roc_auc_score(labels[kept], scores.score[kept])
    m = found.metrics[(found.metrics.metric == "auroc") & (found.metrics.subset == "all")]
    assert (
        m.value.item()
        == pytest.approx(expected)
        != metrics[(metrics.metric == "auroc") & (metrics.subset == "all")].value.item()
    )
    again = run_metrics(
        found.scores,
        run.samples[run.samples.status == "ok"],
        run.matches,
        replace(L2, copy=0.6),
        evaluations=135,
        seed=3,
    )
    pd.testing.assert_frame_equal(
        sorted_rows(found.metrics), sorted_rows(again), check_dtype=False, check_column_type=False
    )
    # Other bands alone change no label.
    assert rescored(mine, BANDS, None).scores is scores


def test_one_label_is_no_detection(run: Run) -> None:
    scores = pictures(L2)[:8]
    mine = replace(
        run,
        scores=scores,
        metrics=run_metrics(
            scores,
            run.samples[run.samples.status == "ok"],
            run.matches,
            L2,
            evaluations=135,
            seed=3,
        ),
    )
    assert "auroc" in set(mine.metrics.metric)
    found = rescored(mine, (), 0.1).metrics  # nothing is a copy
    assert not found.metric.str.match(
        "auroc|average_precision|tpr|balanced"
    ).any() and "spearman_png_bits" in set(found.metric)


def test_nothing_of_the_old_threshold_stays(run: Run) -> None:
    """Where every image copies its own prompt's, there is no AUROC of images."""
    samples = run.samples.copy()
    good = samples.status == "ok"
    truth = np.where(np.arange(good.sum()) % 2, 0.3, 0.9)
    samples.loc[good, "truth_similarity"] = truth
    samples.loc[good, "confidence"] = np.arange(good.sum(), dtype=float)
    made = replace(run, samples=samples)
    table = rescored(made, (), 0.5).metrics
    held = table[(table.metric == "auroc_of_generations") & (table.subset == "all")]
    assert len(held) == 1 and held.threshold.iloc[0] == 0.5
    for copy, share in ((0.95, 1.0), (0.2, 0.0)):
        table = rescored(replace(made, metrics=table), (), copy).metrics
        assert "auroc_of_generations" not in set(table.metric)
        own = table[(table.metric == "own_copies") & (table.subset == "all")]
        assert own.value.tolist() == [share] and own.threshold.tolist() == [copy]
