"""What asks the model: screening and extraction, block by block, every block kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from membench import registry
from membench.auditing.store import Images, Scores, folder_of
from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.options import detector_options
from membench.runs import contract
from membench.runs.spec import described, held
from membench.storage.images import png_image
from membench.types import Condition, Request

BLOCK = 32  # conditions or images

# Of detectors that screen: one noise says enough to rank, and no image is needed
CHEAP = {"cfg_norm": ("draws=1", "images=0"), "dsm": ("images=0",)}


class Asked:
    """A detector with the model that it asks. parts: all that changes what it finds.

    profile: whose options the detector has where it has some of that name.
    """

    def __init__(
        self,
        name: str,
        model: Denoiser,
        weights: str,
        sampling: Mapping[str, Any],
        *,
        seed: int,
        dtype: str,
        profile: str,
        options: Sequence[str] = (),
    ) -> None:
        cls = registry.detectors().load(name)
        made = detector_options(name, cls, options, None, profile)
        try:
            # The profile is for detectors that hold others, whose presets are theirs, too
            self.detector: Detector = contract.construct(
                cls, made, seed=seed, sampling={**sampling, "profile": profile}
            )
        except ValueError as error:
            raise UserError(f"detector {name}: {error}") from None
        self.name, self.model = name, model
        known = registry.detectors()
        inside = {part: known.get(part).code for part, _ in held(self.detector)}
        self.parts = {
            "detector": name,
            "version": cls.version,
            "code": known.get(name).code,
            "options": repr(made),
            "weights": weights,
            "sampling": dict(sampling),
            "seed": seed,
            "dtype": dtype,
            **({"holds": described(self.detector), "held_code": inside} if inside else {}),
        }


def seconds_per_evaluation(model: Denoiser, condition: Condition) -> float:
    """Seconds of one evaluation of the model, measured on a full batch."""
    n = model.batch_size
    x = model.noise([("timing", k) for k in range(n)], 0)
    told = model.condition([condition] * n)
    t = model.timestep(0.5)
    model.eps(x, t, told, remember=False)  # the first is slower than those that follow
    start = time.monotonic()
    model.eps(x, t, told, remember=False)
    return max(time.monotonic() - start, 1e-6) / n


def screener(asked: Asked, conditions: Sequence[Condition]) -> str:
    """Why a detector cannot screen these conditions; "" where it can."""
    access = asked.detector.access
    if access.images or access.labels or access.second_model or access.references:
        return f"{asked.name} needs more than a caption and the model"
    try:
        contract.check(asked.detector, asked.model, conditions)
    except UserError as error:
        return str(error)
    return ""


def screen(asked: Asked, conditions: Sequence[Condition], progress: bool) -> dict[str, float]:
    """Scores by id, NaN for one that failed. What is stored costs nothing."""
    scores = Scores(folder_of("scores", asked.parts))
    wanted = [c for c in conditions if c.id not in scores.found]
    with tqdm(total=len(conditions), desc="screen", unit="cap", disable=not progress) as bar:
        bar.update(len(conditions) - len(wanted))
        for start in range(0, len(wanted), BLOCK):
            part = wanted[start : start + BLOCK]
            scores.add(part, contract.score(asked.detector, asked.model, part, {}))
            bar.update(len(part))
    return {c.id: scores.found[c.id] for c in conditions}


def price(asked: Asked, request: Request) -> int:
    """Evaluations of the model for an image. Raises :class:`UserError` for a detector
    that does not say.
    """
    found = contract.price(asked.detector, asked.model, request)
    if not found:
        raise UserError(f"{asked.name} does not say what an image costs")
    return found


def price_of_score(asked: Asked, condition: Condition) -> int:
    """Evaluations of a score, measured on one condition; a JVP is one, as in a run."""
    before = replace(asked.model.cost)
    contract.score(asked.detector, asked.model, [condition], {})
    spent = asked.model.cost - before
    return spent.forwards + spent.jvps


def images_of(asked: Asked) -> Images:
    """What is stored of an attack."""
    return Images(folder_of("images", asked.parts))


def extract(asked: Asked, requests: Sequence[Request], what: str, progress: bool) -> Images:
    """Generates what is not stored yet, a block at a time."""
    images = images_of(asked)
    wanted = images.missing(requests)
    with tqdm(total=len(requests), desc=what, unit="img", disable=not progress) as bar:
        bar.update(len(requests) - len(wanted))
        for start in range(0, len(wanted), BLOCK):
            part = wanted[start : start + BLOCK]
            images.add(contract.extract(asked.detector, asked.model, part))
            bar.update(len(part))
    return images


def pixels(images: Images, requests: Sequence[Request]) -> tuple[list[Request], np.ndarray]:
    """The requests that have an image, and the images ``uint8`` [n, h, w, 3]."""
    made = [(r, images.found[r.condition.id, r.draw]) for r in requests]
    good = [(r, png_image(png)) for r, png in made if png is not None]
    if not good:
        raise UserError("the model returned NaN or infinity for every image; try --dtype float32")
    return [r for r, _ in good], np.stack([image for _, image in good])
