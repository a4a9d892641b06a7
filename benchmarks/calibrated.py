"""What a reference model gains, on the same negatives, and what is not counted.

    membench run --config results/calibrated.runs.yaml --runs RUNS
    python benchmarks/calibrated.py RUNS

A detector alone is scored against held-out examples of which the reference has seen some;
``calibrated`` leaves these out. Of each half: AUROC of both against what is left, and of
``calibrated`` against the mirror's own examples, which the reference has memorized.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from membench.boards.mirror import half_of
from membench.reports.output import markdown
from membench.runs.finished import read_runs


def auroc(scores: pd.Series, positive: pd.Index, negative: pd.Index) -> str:
    """Of the scores by example; ``n/a`` without a negative."""
    if negative.empty:
        return "n/a"
    chosen = positive.append(negative)
    return f"{roc_auc_score(chosen.isin(positive), scores[chosen]):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path)
    args = parser.parse_args()
    found = {
        (run.info["task"], half_of(run), run.info["detector"]): run.scores.set_index("id")
        for run in read_runs([args.runs]).runs
    }
    rows = []
    for (task, half, name), own in sorted(found.items()):
        if name == "calibrated":
            continue
        both = found[task, half, "calibrated"]
        known = both.index[both.label == 1]
        unseen = both.index[(both.label == 0) & (both.source == "held_out")]
        rows.append(
            {
                "task": task,
                "half": half,
                "detector": name,
                "alone": auroc(own.score, known, unseen),
                "calibrated": auroc(both.score, known, unseen),
                "against the mirror's": auroc(
                    both.score, known, both.index[both.source == "mirror"]
                ),
            }
        )
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
