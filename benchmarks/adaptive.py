"""What noises that stop where a score is decided save, and what they cost: ``adaptive``
beside the same detector with a fixed number of noises.

    python benchmarks/adaptive.py [--task sd_webster] [--detector cfg_norm]
        [--settings draws=1,images=0] [--rounds 16] [--false-alarms 0.01] [--limit N]
        [--output FILE]

The threshold is the score that so many of half b's negatives are above, by ``--rounds``
noises. On half a each strategy decides every example; what is right is said by as many
noises again as ``--rounds`` has, times four, of which no strategy sees one. Every score
of one noise is computed once, and all strategies read the same ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from membench.detectors.adaptive import Adaptive, AdaptiveOptions, decided
from membench.metrics.multiplicity import wilson
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.runs.job import load_task
from membench.runs.spec import Spec
from membench.types import Example

BLOCK, SEEN = 64, 4  # examples at a time; noises of the truth for one of a strategy
LEVELS = (0.9, 0.95, 0.99, 0.999)


def drawn(args: argparse.Namespace, half: str, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, rounds] of one noise each, and labels [n], of the examples with a label."""
    task = load_task(Spec(args.detector, args.task, task_options=(f"half={half}",)))
    found = [e for e in task.examples if e.memorized in (0, 1)]
    examples: list[Example] = found[:: max(1, len(found) // args.limit)] if args.limit else found
    sampling = {**task.info.sampling, "examples": task.info.examples, "profile": "mini"}
    settings = tuple(args.settings.split(",")) if args.settings else ()
    options = Adaptive.Options(args.detector, settings, threshold=0.0, rounds=rounds)
    of, model = Adaptive(options, seed=0, sampling=sampling), task.model()
    conditions = [e.condition for e in examples]
    of.check(model, conditions)
    scores = np.empty((len(examples), rounds))
    for at in range(0, len(examples), BLOCK):
        part = slice(at, at + BLOCK)
        for k, again in enumerate(of.parts):
            scores[part, k] = again.score(model, conditions[part], {})
    return scores, np.array([e.memorized for e in examples])


def taken(scores: np.ndarray, threshold: float, level: float) -> int:
    """How many of an example's scores [rounds] ``adaptive`` looks at."""
    for n in range(AdaptiveOptions.least, len(scores)):
        if decided(scores[:n], threshold, level):
            return n
    return len(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sd_webster")
    parser.add_argument("--detector", default="cfg_norm")
    parser.add_argument("--settings", default="draws=1,images=0")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--false-alarms", type=float, default=0.01)
    parser.add_argument("--limit", type=int, help="about so many examples a half")
    parser.add_argument("--output", type=Path, help="every row, as Parquet")
    args = parser.parse_args()
    other, labels = drawn(args, "b", args.rounds)
    threshold = float(np.quantile(other[labels == 0].mean(axis=1), 1 - args.false_alarms))
    scores, labels = drawn(args, "a", (1 + SEEN) * args.rounds)
    true = scores[:, args.rounds :].mean(axis=1) > threshold
    scores = scores[:, : args.rounds]
    sizes: dict[str, list[int]] = {
        f"{n}": [n] * len(scores) for n in (1, 2, 4, 8, 16, 32) if n <= args.rounds
    }
    for level in LEVELS:
        name = f"up to {args.rounds}, level {level:g}"
        sizes[name] = [taken(row, threshold, level) for row in scores]
    rows = []
    for name, counts in sizes.items():
        means = np.array([row[:n].mean() for row, n in zip(scores, counts, strict=True)])
        above = means > threshold
        rows.append(
            {
                "detector": args.detector,
                "task": args.task,
                "settings": args.settings,
                "threshold": threshold,
                "strategy": name,
                "noises": np.mean(counts),
                "examples": len(labels),
                "otherwise": int(np.sum(above != true)),
                "memorized": int(np.sum(labels == 1)),
                "found": int(np.sum(above[labels == 1])),
                "negatives": int(np.sum(labels == 0)),
                "false_alarms": int(np.sum(above[labels == 0])),
                "auroc": roc_auc_score(labels, means),
            }
        )
    frame = pd.DataFrame(rows)
    if args.output:
        frame.to_parquet(args.output)
    print(f"{args.detector} on {args.task}, threshold {threshold:.4g}, {len(scores):,} examples")
    print(markdown(tabulated(frame)))


def tabulated(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a strategy; 95 % intervals of Wilson."""
    rows = [
        {
            "noises": row.strategy,
            "on average": f"{row.noises:.2f}",
            "decided otherwise %": _share(row.otherwise, row.examples),
            "found %": _share(row.found, row.memorized),
            "false alarms %": _share(row.false_alarms, row.negatives),
            "AUROC": f"{row.auroc:.3f}",
        }
        for row in frame.itertuples()
    ]
    return pd.DataFrame(rows)


def _share(hits: int, n: int) -> str:
    return interval(*(100 * v for v in (hits / n, *wilson(hits, n))), digits=1)


if __name__ == "__main__":
    main()
