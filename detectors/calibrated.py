"""A score calibrated by a reference model (difficulty calibration, Watson et al., ICLR
2022).

"On the Importance of Difficulty Calibration in Membership Inference Attacks": some
examples score high on any model, so

    d = s(example; model) - s(example; reference)

of a reference that has not seen what the model may have memorized: LiRA's idea with a
single model. s is any detector that looks at prompts, or at given images; its noise is
the same on both. It costs twice what s does. Whoever has a second model knows more than
the model under test says, so the run's access says second_model, and its board is one
of its own.

The reference is the task's control model: on the mini profiles the one that was trained
on the other half. ``reference`` names another, as the task's option control_model does.
Examples that the reference was trained on have no label in such a run: they would be
negatives of which d says loudly that the *reference* has memorized them, and AUROC would
be near 1 for a detector that tells nothing of the others. What counts are examples that
neither model was trained on.

arXiv 2111.08440.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.types import Access, Condition, Sample

from .within import made, scored, suits


@dataclass(frozen=True)
class CalibratedOptions:
    detector: str = field(default="cfg_norm", metadata={"help": "whose score is calibrated"})
    settings: tuple[str, ...] = field(default=(), metadata={"help": "its options: KEY=VALUE"})
    reference: str = field(
        default="", metadata={"help": "folder or hub id; empty: the task's control model"}
    )


class Calibrated(Detector):
    """A detector's score less its score on a reference model (Watson et al., ICLR
    2022).
    """

    Options: ClassVar[type] = CalibratedOptions
    version = 2
    access = Access(second_model=True)

    def __init__(
        self, options: CalibratedOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.part = made(options.detector, options.settings, seed, sampling)
        self.holds = {options.detector: self.part}
        self.access = replace(self.part.access, second_model=True)
        self._load: Callable[[], Denoiser] | None = None
        self._reference: Denoiser | None = None

    def refer(self, load: Callable[[], Denoiser]) -> None:
        self._load, self._reference = load, None

    def reference(self) -> Denoiser:
        if self._reference is None:
            assert self._load is not None, "the harness calls refer"
            self._reference = self._load()
        return self._reference

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        name = self.options.detector
        if not self.part.access.model:
            raise UserError(f"{name} asks no model, so there is nothing to calibrate")
        if self.part.access.images:
            raise UserError(
                f"{name} scores a prompt by images that it samples, and two models sample "
                "different ones; choose a detector that needs none, such as cfg_norm"
            )
        suits(name, self.part, model, conditions)
        other = self.reference()
        if other.shape != model.shape or other.takes_text != model.takes_text:
            raise UserError(f"the reference model is of states {other.shape}, not {model.shape}")
        suits(name, self.part, other, conditions)

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        other = self.reference()
        own = np.array(scored(self.part, model, conditions))
        before = replace(other.cost)
        theirs = np.array(scored(self.part, other, conditions))
        # Counted like the model's: a number costs what both have taken.
        vars(model.cost).update(vars(model.cost + (other.cost - before)))
        return (own - theirs).tolist()
