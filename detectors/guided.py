"""What scorers on the guided trajectory from noise have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import both, ddim, ddim_step, pure_noise, timesteps
from membench.types import Condition, Request, Sample

from .base import Draws, own_draws, refuse_unread, samples

# Of options.
TRAJECTORY = {"help": "DDIM steps of the whole trajectory", "min": 1, "max": 1000}
GUIDANCE = {"help": "guidance weight of the trajectory", "min": 0.0}
IMAGES = {"help": "images to extract per condition; 0: none", "min": 0}

Rows = Sequence[tuple[Condition, int]]
Followed = tuple["torch.Tensor | None", "torch.Tensor"]
# (number of the step, timestep, x_t, raw prediction for null, for the condition)
Visit = Callable[[int, int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]


class Guided(Draws):
    """Scores a prompt on the paper's trajectory, an image on the very one that drew it.

    ``options`` has draws, trajectory, guidance and images. A step from pure noise (zero
    terminal SNR) is not looked at: there eps is x_t, whatever the condition.
    """

    text_only: ClassVar[bool] = False  # whether it reads what only a network of captions has

    def way(self) -> tuple[int, float]:
        """Steps and weight of the trajectory that is scored."""
        if self.examples == "images":
            return self.steps, self.weight
        return self.options.trajectory, self.options.guidance

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if self.text_only and not model.takes_text:
            raise UserError(
                "this model takes no captions, and this score reads what one does; choose flipd"
            )
        if not model.has_condition:
            raise UserError(
                "this model has no condition, and this score is of what one changes; choose flipd"
            )
        if not model.has_null:
            raise UserError(
                "this model has no null class to compare its classes with; choose flipd"
            )
        if own_draws(conditions, 2) == 1 and all(
            c.class_label is None and c.prompt is None for c in conditions
        ):
            raise UserError("these images were drawn without a condition; choose flipd")
        if self.examples == "images":
            why = "an image is scored on the trajectory that drew it, as the task samples"
            refuse_unread(self.options, ("draws", "guidance", "trajectory"), why)
        for steps in {self.way()[0], *([self.steps] if self.options.images else [])}:
            if pure_noise(model, steps) == len(timesteps(model, steps)):
                raise UserError(
                    f"each of the {steps} steps begins at pure noise (abar = 0); take more"
                )

    def follow(self, model: Denoiser, rows: Rows, steps: int, guidance: float) -> Followed:
        """Of a batch of (condition, draw): final states, if it goes to the end, and
        scores [n].
        """
        raise NotImplementedError

    def price(self, model: Denoiser, steps: int) -> int:
        """Evaluations of :meth:`follow` for one row, JVPs among them."""
        raise NotImplementedError

    def goes_to_the_end(self) -> bool:
        return False

    def _followed(self, model: Denoiser, rows: Rows, steps: int, guidance: float) -> Followed:
        # A batch at a time: what is kept of each step would fill the memory.
        parts = [
            self.follow(model, rows[start : start + model.batch_size], steps, guidance)
            for start in range(0, len(rows), model.batch_size)
        ]
        states = [x for x, _ in parts if x is not None]
        return torch.cat(states) if states else None, torch.cat([score for _, score in parts])

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        n = own_draws(conditions, self.options.draws)
        rows = [(c, draw) for c in conditions for draw in range(n)]
        _, scores = self._followed(model, rows, *self.way())
        return scores.view(len(conditions), n).mean(dim=1).tolist()

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        sampled = 0 if self.goes_to_the_end() else self.sampling_forwards(model, request)
        return sampled + self.price(model, self.steps)

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Samples as the task samples, each as sure as the score of its own trajectory."""
        rows = [(r.condition, r.draw) for r in requests]
        x, sure = self._followed(model, rows, self.steps, self.weight)
        x = self.draw(model, requests) if x is None else x
        return samples(requests, x, model.decode(x), sure.tolist())


def walk(
    model: Denoiser,
    rows: Rows,
    seed: int,
    *,
    steps: int,
    guidance: float,
    visit: Visit,
    stop: int | None = None,
) -> torch.Tensor:
    """The first ``stop`` (default: all) of ``steps`` guided steps from the rows' own
    noise.

    Each state is handed out before its update. Returns the last one, [n, *shape].
    """
    x, told = model.starts(rows, seed), model.condition([c for c, _ in rows])
    times = timesteps(model, steps)
    for k, t in enumerate(times[:stop]):
        null, conditional = both(model, x, t, told)
        visit(k, t, x, null, conditional)
        raw, before = null + guidance * (conditional - null), (*times, None)[k + 1]
        if stop is None or k + 1 < stop:
            x = ddim_step(model, x, raw, t, before)
    return x


def first_state(
    model: Denoiser,
    rows: Rows,
    seed: int,
    *,
    steps: int,
    guidance: float,
) -> tuple[torch.Tensor, int]:
    """x_t [n, *shape] and t of the trajectory's first step that is not from pure noise."""
    x, told = model.starts(rows, seed), model.condition([c for c, _ in rows])
    blind = pure_noise(model, steps)
    x = ddim(model, x, told, steps=steps, guidance=guidance, stop=blind)
    return x, timesteps(model, steps)[blind]
