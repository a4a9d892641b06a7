"""What scorers have in common: they generate images as the task does, and say of each
how sure they are of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from membench.detector import Detector
from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, step_forwards
from membench.storage.pixels import Pixels
from membench.types import Access, Condition, Request, Sample

# Of options
IMAGES = {
    "help": "images to extract per condition; a prompt's score is the mean over them",
    "min": 0,
    "max": 10_000,
}

CONDITION = {"help": "auto: conditional; unconditional of a model without a condition"}


def requests(conditions: Sequence[Condition], times: int) -> list[Request]:
    """``times`` images of each condition, every condition once, then again: what a
    budget pays for is spread over all of them.

    Of examples that are images, as many images of what the model was told of them:
    their own noises would give them again.
    """
    asked: Counter[str] = Counter()
    found = []
    for condition in [c.bare for _ in range(times) for c in conditions]:
        found.append(Request(condition, asked[condition.id]))
        asked[condition.id] += 1
    return found


def own_draws(conditions: Sequence[Condition], draws: int) -> int:
    """Noises of a condition: ``draws``, or the single one that a generated image
    started from.

    Raises :class:`UserError` for an image of which neither noise nor prompt is known.
    """
    if any(unstarted(c) for c in conditions):
        raise UserError(
            "the noise that these images were sampled from is not known, so their trajectory cannot"
            " be followed; choose flipd or score_norm"
        )
    started = {c.start is not None for c in conditions}
    if len(started) > 1:
        raise UserError(
            "some examples are images and some are prompts, which are not scored alike; run them"
            " apart"
        )
    return 1 if started == {True} else draws


def own_images(conditions: Sequence[Condition]) -> np.ndarray:
    """The images of examples that are images: ``uint8`` [n, h, w, 3]."""
    return np.stack([c.image for c in conditions if c.image is not None])


def drawn_pixels(extracted: Mapping[str, Sequence[Sample]]) -> Pixels:
    """The extracted images that did not fail, to compare examples with in blocks."""
    good = (s for name in extracted for s in extracted[name] if math.isfinite(s.confidence))
    return Pixels(s.image for s in good)


def image_shape(model: Denoiser, conditions: Sequence[Condition]) -> tuple[int, ...]:
    """(height, width, 3) of the task's images: of a given one or, of prompts, of what the
    model decodes, which is not counted.
    """
    for image in (c.image for c in conditions if c.image is not None):
        return image.shape
    before = replace(model.cost)
    shape = model.decode(torch.zeros(1, *model.shape, device=model.device)).shape
    vars(model.cost).update(vars(before))
    return shape[1:]


def unstarted(condition: Condition) -> bool:
    """Whether the example is an image of which the noise is not known, as of a training
    image.
    """
    return condition.image is not None and condition.start is None and condition.prompt is None


def with_noise(
    model: Denoiser, x0: torch.Tensor, keys: Sequence[tuple[str, int]], t: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t = alpha x0 + sigma noise, and the noise of each key (name, draw): [n, *shape]
    each. Detectors that use the same keys share evaluations.
    """
    alpha, sigma = model.alpha_sigma(t)
    noise = model.noise(keys, seed)
    return alpha * x0 + sigma * noise, noise


def noised(
    model: Denoiser, images: np.ndarray, names: Sequence[str], *, t: int, draws: int, seed: int
) -> torch.Tensor:
    """alpha_t x + sigma_t noise of each image (``uint8`` [n, h, w, 3]), [n draws,
    *shape]; the ``draws`` of an image stand together.

    names: of each image, fix its noises.
    """
    x0 = model.encode(images).repeat_interleave(draws, dim=0)
    keys = [(f"noised/{name}", draw) for name in names for draw in range(draws)]
    return with_noise(model, x0, keys, t, seed)[0]


def refuse_untold(conditions: Sequence[Condition], why: str) -> None:
    """Raises :class:`UserError` if an image has neither a prompt nor a class: a score of
    what a condition changes would be exactly 0 for it, below all others.
    """
    untold = sum(c.class_label is None and c.prompt is None for c in conditions)
    if untold:
        which = "these" if untold == len(conditions) else f"{untold} of these"
        raise UserError(f"{which} images were generated without a condition, and {why}")


class Draws(Detector):
    """Extracts ``options.images`` images of each condition with the task's own
    sampling, every condition once, then again.
    """

    def __init__(self, options: Any, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.steps, self.weight = int(sampling["steps"]), float(sampling["guidance"])

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        return requests(conditions, self.options.images)

    def sampling_forwards(self, model: Denoiser, request: Request) -> int:
        return self.steps * step_forwards(model.condition([request.condition]), self.weight)

    def draw(self, model: Denoiser, requests: Sequence[Request]) -> torch.Tensor:
        """Final states [n, *shape]."""
        x = model.starts([(r.condition, r.draw) for r in requests], self.seed)
        return ddim(
            model,
            x,
            model.condition([r.condition for r in requests]),
            steps=self.steps,
            guidance=self.weight,
        )


def samples(
    requests: Sequence[Request], x: torch.Tensor, images: np.ndarray, confidences: Sequence[float]
) -> list[Sample]:
    """One sample a request; one whose state ``x`` is not finite has failed, whatever
    its decoded image scores.
    """
    finite = x.flatten(1).isfinite().all(dim=1).tolist()
    rows = zip(requests, images, confidences, finite, strict=True)
    return [
        Sample(r.condition, r.draw, image, float(c) if ok else math.nan) for r, image, c, ok in rows
    ]


class MeasuresImages(Draws):
    """A detector that measures an image: an example's own one or, where the example is
    a prompt, the mean over those generated for it.
    """

    access: Access = Access(images=True)

    def __init__(self, options: Any, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        # An example that is an image is scored without the images that are extracted:
        # their cost is not the score's.
        self.access = replace(self.access, images=self.access.images and self.examples == "prompts")

    def measure(
        self,
        model: Denoiser,
        images: np.ndarray,
        conditions: Sequence[Condition],
        names: Sequence[str],
    ) -> Sequence[float]:
        """The score of each of ``images`` (``uint8`` [n, h, w, 3]) under its condition.
        names: fix what is random in it.
        """
        raise NotImplementedError

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if not self.options.images and self.access.images:
            raise UserError(
                "an example that is a prompt is measured by images generated for it: images must be"
                " at least 1"
            )
        given = [c.image for c in conditions if c.image is not None]
        if self.examples == "images" and len(given) < len(conditions):
            raise UserError("the task declares that its examples are images, and some have none")
        for one_of_a_size in {image.shape: image for image in given}.values():
            model.encode(one_of_a_size[None])  # refuses a size that is not the model's

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        x = self.draw(model, requests)
        images = model.decode(x)
        names = [f"{r.condition.id}/{r.draw}" for r in requests]
        return samples(
            requests, x, images, self.measure(model, images, [r.condition for r in requests], names)
        )

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        if self.examples == "prompts":
            return [_mean([s.confidence for s in extracted[c.id]]) for c in conditions]
        return list(
            self.measure(model, own_images(conditions), conditions, [c.id for c in conditions])
        )


class ByCondition(MeasuresImages):
    """A detector with a variant for each way to ask the model: ``options.condition``,
    of which "auto" is resolved here.
    """

    # "auto" for a text-to-image model; of a model with classes, whose images are
    # generated unguided, it is "conditional". An image without its prompt or class is
    # refused there: scored by the null condition, it would be measured otherwise than its
    # neighbours, and in silence
    usual: ClassVar[str]

    def variant(self, model: Denoiser) -> str:
        wanted = self.options.condition
        if wanted != "auto":
            return wanted
        if not model.has_condition:
            return "unconditional"
        return self.usual if model.takes_text and model.has_null else "conditional"

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        super().check(model, conditions)
        wanted = self.variant(model)
        if wanted != "conditional" and not model.has_null:
            raise UserError(
                f"this model has no null class, so condition={wanted} is not defined for it; choose"
                " condition=conditional"
            )
        if wanted != "unconditional" and not model.has_condition:
            raise UserError(
                f"this model has no condition, so condition={wanted} is not defined for it; choose"
                " condition=unconditional"
            )
        if wanted != "unconditional" and any(
            c.image is not None and c.prompt is None and c.class_label is None for c in conditions
        ):
            raise UserError(
                f"these images have no prompt and no class, so condition={wanted} is not defined"
                " for them; choose condition=unconditional"
            )

    def told(self, model: Denoiser, conditions: Sequence[Condition]) -> Conditioning:
        """What the network is given for each image: its condition, or the null
        condition where the variant is "unconditional".
        """
        told = model.condition(conditions)
        return (
            model.null_like(told, len(conditions))
            if self.variant(model) == "unconditional"
            else told
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
