"""Caption controls: scores that read the prompt and ask no model anything.

What these reach, the captions give away: on the prompt sets in use the share of capital
letters alone separates memorized prompts from COCO captions with AUROC 0.99
(docs/captions.md). They cost no evaluation, load no model and extract no image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from membench.detector import Detector
from membench.errors import UserError
from membench.metrics.captions import FOLDS, case_share, length, ngram_scores
from membench.models.denoiser import Denoiser
from membench.types import Access, Condition, Request, Sample


@dataclass(frozen=True)
class CaptionNgramsOptions:
    folds: int = field(
        default=FOLDS,
        metadata={
            "help": "of the cross-validation; at most as many as the rarer label has groups",
            "min": 2,
            "max": 100,
        },
    )


class _Captions(Detector):
    """Extracts nothing and asks no model; the scores are those of
    ``membench.metrics.captions``.
    """

    version = 1
    access = Access(model=False)

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if any(c.prompt is None for c in conditions):
            raise UserError(
                "these examples have no captions to read; png_size is the control of images"
            )

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return 0


class CaptionCase(_Captions):
    """Caption control: the share of a prompt's characters that are upper-case letters."""

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        return case_share([c.prompt or "" for c in conditions]).tolist()


class CaptionLength(_Captions):
    """Caption control: the number of a prompt's characters."""

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        return length([c.prompt or "" for c in conditions]).tolist()


class CaptionNgrams(_Captions):
    """Caption control that learns from labels: naive Bayes on character trigrams,
    cross-validated by group.

    The folds are the same for every seed, as the line under a leaderboard takes them:
    no noise of a model is in this score.
    """

    Options: ClassVar[type] = CaptionNgramsOptions
    access = Access(labels=True, model=False)

    def __init__(
        self, options: CaptionNgramsOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self._scores: dict[str, float] = {}

    def fit(
        self, conditions: Sequence[Condition], labels: Sequence[int], groups: Sequence[str]
    ) -> None:
        """The score of every example, each by what groups other than its own have
        taught.
        """
        found = ngram_scores(
            [c.prompt or "" for c in conditions], labels, groups, folds=self.options.folds
        )
        self._scores = {c.id: score for c, score in zip(conditions, found.tolist(), strict=True)}

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        return [self._scores[c.id] for c in conditions]
