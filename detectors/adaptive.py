"""Noises until a score is decided (membench's own; sequential sampling, Wald 1945).

Most prompts lie far from where a decision falls, and a few draws of noise tell them
from it. So a detector's score s is drawn again with noises of its own,

    m_n = mean of s_1 ... s_n,    until | m_n - threshold | > t_(n-1) sd_n / sqrt(n)

or n = ``rounds``: Student's interval of the mean leaves out the threshold. d = m_n. The
first round is the detector's own score, of the run's seed. ``threshold`` is the score at
which somebody decides, found on other examples (of the development world, say); scores
far from it are means of fewer noises than those near it, so a ranking by them is rough
where nobody looks.

Looking again and again, each time with the level of one look, decides too early more
often than 1 - ``level`` says; ``benchmarks/adaptive.py`` measures what it costs and saves
(docs/scale.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.options import refuse_unread
from membench.seeds import seed_of
from membench.types import Condition, Sample

from .within import made, scored, suits


@dataclass(frozen=True)
class AdaptiveOptions:
    detector: str = field(default="cfg_norm", metadata={"help": "whose score is drawn again"})
    settings: tuple[str, ...] = field(
        default=(), metadata={"help": "its options: KEY=VALUE; draws=1 where it has draws"}
    )
    threshold: float | None = field(
        default=None, metadata={"help": "the score that decides; must be given"}
    )
    rounds: int = field(
        default=16, metadata={"help": "scores of an example, at most", "min": 2, "max": 1000}
    )
    least: int = field(default=3, metadata={"help": "at least; two hardly show a spread", "min": 2})
    level: float = field(
        default=0.99, metadata={"help": "of the interval, in (0, 1)", "min": 0.5, "max": 0.999999}
    )

    def __post_init__(self) -> None:
        if self.least > self.rounds:
            raise ValueError(f"least={self.least} is more than rounds={self.rounds}")


def decided(scores: np.ndarray, threshold: float, level: float) -> bool:
    """Whether the interval of the mean of scores [n], n from 2, leaves out the threshold.
    Of an example that has failed there is nothing more to find: True.
    """
    from scipy.special import stdtrit  # it looks for torch, which `membench list` leaves unread

    if not np.isfinite(scores).all():
        return True
    spread = scores.std(ddof=1) / math.sqrt(len(scores))
    width = stdtrit(len(scores) - 1, (1 + level) / 2) * spread
    return bool(abs(scores.mean() - threshold) > width)


class Adaptive(Detector):
    """A detector's score, drawn again until it is decided (membench's own)."""

    Options: ClassVar[type] = AdaptiveOptions
    version = 1

    def __init__(self, options: AdaptiveOptions, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        if options.detector == "adaptive":
            raise ValueError("detector=adaptive: name the detector whose score is drawn again")
        seeds = [seed] + [seed_of(seed, "round", k) for k in range(1, options.rounds)]
        self.parts = [made(options.detector, options.settings, s, sampling) for s in seeds]
        self.holds = {options.detector: self.parts[0]}
        self.access = self.parts[0].access

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        name = self.options.detector
        if self.options.threshold is None:
            raise UserError(
                f"threshold: give the score of {name} at which you decide, found on other examples"
            )
        if not self.access.model:
            raise UserError(f"{name} asks no model, so its score would be the same again")
        if self.access.images:
            raise UserError(
                f"{name} scores a prompt by images that it samples, which are not drawn again;"
                " raise its images, or choose a detector that needs none, such as cfg_norm"
            )
        if self.options.least == self.options.rounds:
            why = "with least=rounds nothing is decided before the last; lower least"
            refuse_unread(self.options, ("level",), why)
        suits(name, self.parts[0], model, conditions)

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        o = self.options
        found: list[list[float]] = [[] for _ in conditions]
        left = list(range(len(conditions)))
        for k, part in enumerate(self.parts, start=1):
            again = scored(part, model, [conditions[i] for i in left])
            for i, value in zip(left, again, strict=True):
                found[i].append(value)
            if k >= o.least:
                left = [i for i in left if not decided(np.array(found[i]), o.threshold, o.level)]
            if not left:
                break
        return [math.fsum(values) / len(values) for values in found]
