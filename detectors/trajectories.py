"""What detectors of the model's own way from noise to an image share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import pure_noise, timesteps
from membench.options import refuse_unread
from membench.types import Condition, Request, Sample

from .base import Draws, own_draws, refuse_untold, samples

# Of options
TRAJECTORY = {"help": "DDIM steps of the whole trajectory", "min": 1, "max": 1000}
GUIDANCE = {"help": "guidance weight of the trajectory", "min": 0.0}
IMAGES = {
    "help": "images to extract per condition, ranked by their own trajectory; 0: none",
    "min": 0,
    "max": 10_000,
}

Rows = Sequence[tuple[Condition, int]]
Followed = tuple["torch.Tensor | None", "torch.Tensor"]


class OwnTrajectory(Draws):
    """Scores a condition by its trajectories: the mean over its noises.

    Options: ``draws`` noises of a prompt, each on a trajectory of ``trajectory`` steps
    with weight ``guidance``, where the score depends on it; ``images`` to extract. A
    generated image has one noise, its own, and the steps and the weight of the task,
    which made it; one whose caption alone is known has ``draws`` noises there. An
    extracted image is as sure as its own trajectory. Steps are counted after those from
    pure noise (zero terminal SNR), where eps is x_t whatever the network says.
    """

    compares: ClassVar[bool] = False  # whether the score is of a condition against null
    text_only: ClassVar[bool] = False  # whether it reads what only a network of captions has

    def follow(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        """Of a batch of rows the state that the trajectories end in, or None where it
        does not go to the end, and what each of them gives, [n].

        whole: the state is wanted. Otherwise nobody reads it.
        """
        raise NotImplementedError

    def least(self) -> int:
        """How many steps, those from pure noise apart, a trajectory must have."""
        return 1

    def way(self) -> tuple[int, float]:
        """Steps and weight of the trajectory that an example is scored on."""
        if self.examples == "images":
            return self.steps, self.weight
        return self.options.trajectory, getattr(self.options, "guidance", 1.0)

    def ways(self) -> list[tuple[int, float]]:
        """Those, and of the trajectories that images are extracted on."""
        of_task = [(self.steps, self.weight)] if self.options.images else []
        return sorted({self.way(), *of_task})

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if self.text_only and not model.takes_text:
            raise UserError(
                "this model takes no captions, and this score reads what one does; choose flipd"
            )
        if not model.has_condition:
            raise UserError(
                "this model has no condition, and the score is of what a condition makes of noise; "
                "choose flipd or score_norm"
            )
        started = own_draws(conditions, 2) == 1
        if self.examples == "images":
            refuse_untold(
                conditions, "the score is of what a condition makes of noise; choose flipd"
            )
            # Where only its caption is known, an image has ``draws`` noises
            unread = ("trajectory", "guidance", *(("draws",) if started else ()))
            why = "an image is scored on the trajectory that generated it, as the task samples"
            refuse_unread(self.options, unread, why)
        for steps, guidance in self.ways():
            if not model.has_null and (self.compares or guidance != 1):
                raise UserError(
                    "this model has no null class, so there is nothing to compare or guide its "
                    "classes with; choose flipd"
                )
            if (found := len(timesteps(model, steps)) - pure_noise(model, steps)) < self.least():
                raise UserError(
                    f"a trajectory of {steps} steps has {found} that are not from pure noise, and "
                    f"the score takes {self.least()}; take more steps"
                )

    def _followed(
        self, model: Denoiser, rows: Rows, steps: int, guidance: float, *, whole: bool
    ) -> Followed:
        # A batch at a time: what is kept of each step would fill the memory.
        parts = [
            self.follow(model, rows[start : start + model.batch_size], steps, guidance, whole=whole)
            for start in range(0, len(rows), model.batch_size)
        ]
        states = [x for x, _ in parts if x is not None]
        return torch.cat(states) if states else None, torch.cat([values for _, values in parts])

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        n = own_draws(conditions, self.options.draws)
        rows = [(c, draw) for c in conditions for draw in range(n)]
        _, values = self._followed(model, rows, *self.way(), whole=False)
        return values.view(len(conditions), n).mean(dim=1).tolist()

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Samples as the task samples, each as sure as its own trajectory."""
        rows = [(r.condition, r.draw) for r in requests]
        x, values = self._followed(model, rows, self.steps, self.weight, whole=True)
        x = self.draw(model, requests) if x is None else x
        return samples(requests, x, model.decode(x), values.tolist())
