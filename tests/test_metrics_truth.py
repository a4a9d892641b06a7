"""Metrics of generations against their own prompt's image: by hand, by loops and by
scikit-learn.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from membench.metrics.table import run_metrics
from membench.metrics.truth import truth_table
from membench.types import Band, Space

SSCD = Space(
    "cosine/x",
    True,
    (Band("high", 0.6, 1.0), Band("mid", 0.5, 0.6), Band("low", 0.4, 0.5)),
    0.5,
    0.35,
    "",
)
L2 = Space("l2", False, (Band("high", 0.0, 0.7),), 1.0, 1.5, "")


def frame(
    similarity: list[list[float | None]], confidence: list[list[float]] | None = None
) -> pd.DataFrame:
    """A row a draw; similarity: of each prompt's draws."""
    rows = [(f"p{i}", k, s) for i, draws in enumerate(similarity) for k, s in enumerate(draws)]
    found = pd.DataFrame(rows, columns=["condition", "draw", "truth_similarity"]).astype(
        {"truth_similarity": float}
    )
    return found.assign(
        confidence=np.ravel(confidence) if confidence else 0.0,
        sample_id=found.condition + "/" + found.draw.astype(str),
    )


def table(
    samples: pd.DataFrame, space: Space = SSCD, kinds: str = "", groups: str = ""
) -> dict[tuple[str, str], tuple]:
    number = samples.condition.str.removeprefix("p").astype(int)
    kind = number.map(lambda i: kinds[i] if kinds else "A")
    group = number.map(lambda i: groups[i] if groups else str(i))
    return {
        (m.name, m.subset): (m.value, m.low, m.high, m.n)
        for m in truth_table(samples, group, kind, space, resamples=500)
    }


def test_by_hand() -> None:
    samples = frame(
        [[0.9, 0.2], [0.1, 0.5], [0.3, 0.49], [None, None]],
        [[3.0, 1.0], [0.0, 2.5], [2.0, 0.5], [9.0, 9.0]],
    )
    found = table(samples, kinds="AABB")
    # 0.5 is a copy; no truth, no label
    assert found["own_copies", "all"][0] == 2 / 6 and found["own_copies", "all"][3] == 6
    assert found["prompts_returned", "all"][0] == 2 / 3 and found["prompts_returned", "all"][3] == 3
    # copies have 3.0 and 2.5: above all of 1.0, 0.0, 2.0, 0.5
    assert found["auroc_of_generations", "all"][0] == 1.0
    assert found["own_copies", "kind=A"][0] == 0.5 and found["own_copies", "kind=B"][0] == 0.0
    assert ("auroc_of_generations", "kind=B") not in found  # one label only
    assert found["own_copies", "kind=B"][1:3] == (None, None)  # one group


def test_a_distance_counts_downwards() -> None:
    found = table(frame([[0.2, 1.0], [1.1, 3.0]]), L2)
    assert found["own_copies", "all"][0] == 0.5 and found["prompts_returned", "all"][0] == 0.5


def test_nothing_is_known() -> None:
    assert table(frame([[None], [None]])) == {} and table(frame([[0.9], [0.9]]).iloc[:0]) == {}
    same = table(frame([[0.9], [0.1]]))
    # Every confidence is the same: there is nothing to rank
    assert ("auroc_of_generations", "all") not in same


def test_intervals_are_over_groups(subtests: pytest.Subtests) -> None:
    rng = np.random.default_rng(3)
    similarity = rng.uniform(0.2, 0.8, size=(40, 3))
    confidence = similarity + rng.normal(0, 0.2, size=similarity.shape)
    samples = frame(similarity.tolist(), confidence.tolist())
    alone, together = (
        table(samples),
        table(samples, groups="".join("abcdefgh"[i // 5] for i in range(40))),
    )
    for name in ("own_copies", "prompts_returned", "auroc_of_generations"):
        with subtests.test(name):
            value, low, high, _ = alone[name, "all"]
            assert low < value < high and together[name, "all"][0] == value
    # Slow: resample prompts, and take scikit-learn's AUROC of the rows drawn.
    values = []
    for _ in range(400):
        rows = samples.set_index("condition").loc[[f"p{i}" for i in rng.integers(40, size=40)]]
        values.append(roc_auc_score(rows.truth_similarity >= 0.5, rows.confidence))
    value, low, high, _ = alone["auroc_of_generations", "all"]
    assert value == pytest.approx(
        roc_auc_score(samples.truth_similarity >= 0.5, samples.confidence)
    )
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.02)
    shuffled = table(samples.sample(frac=1, random_state=1))
    for key, row in alone.items():
        assert shuffled[key][:3] == pytest.approx(row[:3])


def test_they_are_in_the_runs_table() -> None:
    samples = frame([[0.9, 0.2], [0.1, 0.1]], [[1.0, 0.5], [0.1, 0.2]]).assign(
        prompt="a", status="ok"
    )
    examples = pd.DataFrame({"id": ["p0", "p1"], "group": ["a", "b"], "kind": ["MV", "N"]})
    empty = pd.DataFrame(
        columns=["id", "score", "label", "kind", "group", "source", "status", "png_bits"]
    ).astype({"score": float})
    matches = pd.DataFrame(
        {
            "sample_id": samples.sample_id,
            "training": np.arange(4),
            "similarity": [0.9, 0.2, 0.1, 0.1],
            "rank": 0,
        }
    )
    metrics = (
        run_metrics(empty, samples, matches, SSCD, evaluations=8, examples=examples)
        .set_index(["metric", "subset"])
        .value
    )
    assert metrics["own_copies", "all"] == 0.25 and metrics["prompts_returned", "kind=MV"] == 1.0


def test_prompts_of_one_group_come_and_go_together() -> None:
    """Of two groups all of one return and none of the other: nothing is known of the share."""
    found = table(frame([[0.9]] * 8 + [[0.1]] * 8), groups="a" * 8 + "b" * 8)
    assert found["prompts_returned", "all"] == (0.5, 0.0, 1.0, 16)
