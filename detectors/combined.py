"""A logistic regression over the scores of other detectors (membench's own).

What all of them together know: with each score s_k standardised over the examples that
teach,

    d = sum_k w_k (s_k - mean_k) / spread_k

It learns from labels, so the groups of examples are dealt into folds, and each fold is
scored by what the others have taught. Where nothing may be learned from the examples
that are reported, it learns from a development half or world: the run on that says in
its run.json ("prepared") which ``weights`` to set in a run on the others.

It costs what its detectors cost together; evaluations that several need are made once.
An example on which one of them has failed has failed here, too, and teaches nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from membench.detector import Detector
from membench.metrics.captions import FOLDS
from membench.metrics.combination import as_text, combined, cross_fitted, from_text, refuse_few
from membench.models.denoiser import Denoiser
from membench.options import refuse_unread
from membench.storage.files import write_json
from membench.storage.workspace import Workspace
from membench.types import Access, Condition, Cost, Sample

from .within import joined, made, suits, table


@dataclass(frozen=True)
class CombinedOptions:
    detectors: tuple[str, ...] = field(
        default=("cfg_norm", "score_norm", "dcs"), metadata={"help": "whose scores are combined"}
    )
    settings: tuple[str, ...] = field(
        default=(), metadata={"help": "their options: DETECTOR.KEY=VALUE"}
    )
    folds: int = field(
        default=FOLDS,
        metadata={
            "help": "of the cross-validation; at most as many as the rarer label has groups",
            "min": 2,
            "max": 100,
        },
    )
    strength: float = field(
        default=1.0, metadata={"help": "inverse of the L2 regularisation", "min": 1e-6, "max": 1e6}
    )
    weights: tuple[str, ...] = field(
        default=(),
        metadata={"help": "DETECTOR:MEAN:SPREAD:WEIGHT, of a development run; none: learn here"},
    )


class Combined(Detector):
    """A logistic regression over the scores of named detectors (membench's own)."""

    Options: ClassVar[type] = CombinedOptions
    version = 1

    def __init__(self, options: CombinedOptions, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        names, settings = options.detectors, joined(options.settings)
        if len(names) < 2 or len(set(names)) < len(names) or "combined" in names:
            raise ValueError("detectors must name two or more other detectors, each once")
        if odd := [s for s in settings if s.partition(".")[0] not in names]:
            raise ValueError(f"settings={odd[0]}: write DETECTOR.KEY=VALUE, of {', '.join(names)}")
        self.holds = {
            name: made(
                name,
                [s.partition(".")[2] for s in settings if s.startswith(f"{name}.")],
                seed,
                sampling,
            )
            for name in names
        }
        self.given = from_text(options.weights, names) if options.weights else None
        accesses = [part.access for part in self.holds.values()]
        seen = {k: any(getattr(a, k) for a in accesses) for k in Access.__dataclass_fields__}
        self.access = Access(**{**seen, "labels": True})
        self.alone = self.given is None  # type: ignore[misc]  # then it prepares
        self._known: dict[str, tuple[int, str]] = {}
        self._scores: dict[str, float] = {}

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if self.given is not None:
            why = "with weights given nothing is learned; leave it out, or weights"
            refuse_unread(self.options, ("folds", "strength"), why)
        for name, part in self.holds.items():
            suits(name, part, model, conditions)

    def fit(
        self, conditions: Sequence[Condition], labels: Sequence[int], groups: Sequence[str]
    ) -> None:
        if self.given is None:
            refuse_few(labels, groups)
            rows = zip(conditions, labels, groups, strict=True)
            self._known = {c.id: (label, group) for c, label, group in rows}

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        if self.given is not None:
            return {}

        def make(folder: Path) -> tuple[Cost, float]:
            before, start = replace(model.cost), time.monotonic()
            write_json(
                folder / "scores.json",
                dict(zip(ids, table(self.holds.values(), model, conditions), strict=True)),
            )
            return model.cost - before, time.monotonic() - start

        ids = [c.id for c in conditions]
        what = {
            name: [part.version, asdict(part.options), dict(part.reads)]
            for name, part in self.holds.items()
        }
        stage = workspace.stage("combined", {"detectors": what, "ids": sorted(ids)}, make)
        found = json.loads((stage.path / "scores.json").read_text(encoding="utf-8"))
        ids = sorted(ids)  # the last bit of a sum depends on its order
        labels, groups = zip(*(self._known[id_] for id_ in ids), strict=True)
        raw, o = np.array([found[id_] for id_ in ids], float), self.options  # None: NaN
        scores, learned = cross_fitted(raw, labels, groups, folds=o.folds, strength=o.strength)
        self._scores = dict(zip(ids, scores.tolist(), strict=True))
        return {
            "weights": as_text(learned, list(self.holds)),
            "failed": int(np.isnan(scores).sum()),
        }

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        if self.given is None:
            return [self._scores[c.id] for c in conditions]
        return combined(
            np.array(table(self.holds.values(), model, conditions), float), self.given
        ).tolist()
