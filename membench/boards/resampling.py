"""What a run's metrics are on all its examples, and under resamples of the groups: what
intervals over seeds and differences are made of.

The resamples of two runs on the same examples are the same, so that they can be
averaged over seeds and subtracted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from membench.boards.groups import regrouped
from membench.metrics.complexity import matched_resamples, size_bins
from membench.metrics.detection import FPR_LIMITS, check, of_kind, tpr_at_fpr
from membench.metrics.extraction import nearest_matches
from membench.metrics.intervals import class_weights, mean_resamples, weighted_statistics
from membench.metrics.regions import in_region
from membench.runs.finished import Run
from membench.runs.images import stored_images
from membench.similarity.near_duplicates import merged
from membench.storage.hashing import json_hash
from membench.types import Space

DETECTED = ("auroc", "average_precision", *(f"tpr_at_fpr_{x:g}" for x in FPR_LIMITS))
MATCHED = "auroc_complexity_matched"
RESAMPLES = 1000


@dataclass(frozen=True)
class Drawn:
    """A metric of one run. value: on all examples; resampled: float64 [r], None for
    fewer than 2 groups in a class.
    """

    value: float
    resampled: np.ndarray | None


@dataclass(frozen=True)
class Examples:
    """Examples of a run. ids, groups: hashes, of who they are and of how they are
    grouped; both: whether there are memorized ones and others.
    """

    frame: pd.DataFrame
    ids: str
    groups: str
    both: bool

    @staticmethod
    def of(frame: pd.DataFrame) -> Examples:
        frame, ids = frame[["id", "score", "label", "group", "bin"]], frame.id.tolist()
        groups = json_hash([ids, frame.group.tolist()])
        return Examples(frame, json_hash(ids), groups, set(frame.label) == {0, 1})


def same_scores(runs: Sequence[Run]) -> bool:
    """Whether every run gives every example the same score: whether a detector is
    deterministic in what they differ in.
    """
    first, *others = (run.scores.set_index("id").score.sort_index() for run in runs)
    return len(first) > 0 and all(first.equals(other) for other in others)


class Resampler:
    """Metrics of runs under common resamples. groups: how examples are grouped
    (``groups.regrouped``); seed: of the resamples; metrics: those of ``detection``, of
    DETECTED and MATCHED.
    """

    def __init__(
        self,
        groups: str = "task",
        resamples: int = RESAMPLES,
        seed: int = 0,
        metrics: Collection[str] = (*DETECTED, MATCHED),
    ) -> None:
        self.groups, self.resamples, self.seed, self.metrics = groups, resamples, seed, metrics
        self._weights: tuple[bytes, list[np.ndarray]] = (b"", [])
        self._found: dict[tuple[Path, str, str], dict[str, Drawn]] = {}
        self._examples: dict[tuple[Path, str], Examples] = {}

    def examples(self, run: Run, subset: str = "all") -> Examples:
        """The labelled examples that have a score, by id, with the groups asked for;
        ``kind=MV``: as ``of_kind``.
        """
        key = (run.path, subset)
        if key not in self._examples:
            self._examples[key] = Examples.of(self._read(run, subset))
        return self._examples[key]

    def common(self, runs: Sequence[Run], subset: str = "all") -> list[Examples]:
        """Of each run the examples that all of them have scored."""
        found = [self.examples(run, subset) for run in runs]
        if all(of.ids == found[0].ids for of in found):
            return found
        shared = set.intersection(*(set(of.frame.id) for of in found))
        return [Examples.of(of.frame[of.frame.id.isin(shared)]) for of in found]

    def _read(self, run: Run, subset: str) -> pd.DataFrame:
        read = partial(stored_images, run.path)
        scores = run.scores.assign(
            group=regrouped(run.scores, run.samples, self.groups, read), bin=-1
        )
        sized = (scores.status == "ok") & scores.png_bits.notna()
        if sized.any():
            scores.loc[sized, "bin"] = size_bins(scores.png_bits[sized].to_numpy())
        scores = scores[(scores.label >= 0) & (scores.status == "ok")].sort_values("id")
        name, _, value = subset.partition("=")
        if value:
            if name == "kind":
                return scores[of_kind(scores.label, scores.kind, value)]
            scores = scores[(scores.label == 1) | ((scores.label == 0) & (scores[name] == value))]
        return scores

    def detection(self, runs: Sequence[Run], subset: str = "all") -> list[dict[str, Drawn]]:
        """Of each run the metrics asked for, resampled alike: on the examples that all of
        them have scored.

        Values are on these examples too. Empty for runs without two classes; a TPR that
        the negatives cannot support is left out.
        """
        found = self.common(runs, subset)
        if not all(of.both for of in found):
            return [{} for _ in runs]
        # By images that each run has generated itself
        if any(of.groups != found[0].groups for of in found):
            joined = merged(*(of.frame.group.tolist() for of in found))
            found = [Examples.of(of.frame.assign(group=joined)) for of in found]
        keys = [(run.path, subset, of.groups) for run, of in zip(runs, found, strict=True)]
        for key, of in zip(keys, found, strict=True):
            if key not in self._found:
                self._found[key] = self._detection(of.frame)
        return [self._found[key] for key in keys]

    def _drawn_weights(self, labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
        """``intervals.class_weights``, kept for the next run on the same examples."""
        key = labels.tobytes() + groups.tobytes()
        if key != self._weights[0]:
            found = [
                weights.astype(np.min_scalar_type(weights.max()))  # most often a byte
                for weights in class_weights(labels, groups, self.resamples, self.seed)
            ]
            self._weights = (key, found)
        return self._weights[1]

    def _detection(self, frame: pd.DataFrame) -> dict[str, Drawn]:
        scores, labels, groups = check(
            *(frame[name].to_numpy() for name in ("score", "label", "group"))
        )
        drawn = self._drawn_weights(labels, groups)
        limits = tuple(x for x in FPR_LIMITS if f"tpr_at_fpr_{x:g}" in self.metrics)
        precision = "average_precision" in self.metrics
        parts = [
            weighted_statistics(scores, labels, weights, limits, precision=precision)
            for weights in drawn
        ]
        once = np.ones((1, len(labels)), dtype=np.int64)
        whole = weighted_statistics(scores, labels, once, limits, precision=precision)
        found = {}
        for name in (name for name in DETECTED if name in self.metrics):
            if (
                name.startswith("tpr")
                and tpr_at_fpr(scores, labels, float(name.rsplit("_", 1)[1])) is None
            ):
                continue
            found[name] = Drawn(
                float(whole[name][0]),
                np.concatenate([part[name] for part in parts]) if parts else None,
            )
        if MATCHED in self.metrics:
            bins = frame.bin.to_numpy()
            value, matched = matched_resamples(scores, labels, groups, bins, drawn=drawn)
            if value is not None:
                found[MATCHED] = Drawn(value, matched)
        return found

    def copies(self, run: Run, space: Space) -> Drawn | None:
        """AMS of the copies; None for a run without images."""
        good, matches = run.found()
        if good.empty:
            return None
        best = nearest_matches(matches, len(good))["similarity"].to_numpy()
        hits = in_region(best, space, space.copy)
        drawn = mean_resamples(
            hits[:, None], self._groups(run, good), resamples=self.resamples, seed=self.seed
        )
        return Drawn(float(hits.mean()), None if drawn is None else drawn[:, 0])

    def _groups(self, run: Run, images: pd.DataFrame) -> np.ndarray:
        """The group of each image, as is asked for: of its condition's prompt or first
        image. Copies and others are drawn together, so labels do not keep groups apart.
        """
        groups = run.groups(images)
        if self.groups == "task":
            return groups
        of = images.assign(group=groups, id=images.condition, label=0).drop_duplicates("id")
        new = regrouped(of, run.samples, self.groups, partial(stored_images, run.path))
        return images.condition.map(dict(zip(of.id, new, strict=True))).to_numpy(dtype=str)
