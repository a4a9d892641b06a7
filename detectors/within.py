"""Detectors inside another detector."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from membench import registry
from membench.detector import Detector, prepares
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.memo import Memo
from membench.options import detector_options
from membench.types import Condition, Sample

BLOCK = 64  # examples whose evaluations are remembered together


def made(name: str, settings: Sequence[str], seed: int, sampling: Mapping[str, Any]) -> Detector:
    """Another detector, with the options that a run of it on this profile has; settings:
    "key=value", over them.

    Raises :class:`UserError` for an unknown word, ValueError for one that compares two
    models.
    """
    sampling = {k: v for k, v in sampling.items() if k != "extract_only"}  # it is here to score
    cls = registry.detectors().load(name)
    options = detector_options(name, cls, joined(settings), None, sampling.get("profile", ""))
    try:
        found: Detector = cls(options, seed=seed, sampling=sampling)
    except ValueError as error:
        raise UserError(f"detector {name}: {error}") from None
    if found.access.second_model:
        raise ValueError(f"{name} compares two models, so it cannot be part of another detector")
    return found


def joined(settings: Sequence[str]) -> list[str]:
    """Settings whole again: a list of settings is split at commas, and so is the value of
    one that is a list itself ("t=90", "100").
    """
    found: list[str] = []
    for part in settings:
        if "=" in part or not found:
            found.append(part)
        else:
            found[-1] += f",{part}"
    return found


def suits(name: str, part: Detector, model: Denoiser, conditions: Sequence[Condition]) -> None:
    """Raises :class:`UserError` where the other detector does not suit, or not within
    this one.
    """
    why = ""
    if part.access.labels:
        why = "learns from labels itself"
    elif prepares(part):
        why = "prepares before it scores"
    elif part.examples == "images" and part.access.images:
        why = "scores an image by all images that a run of it generates"
    if why:
        raise UserError(f"{name} {why}, so it cannot be part of another detector; leave it out")
    try:
        part.check(model, conditions)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def scored(part: Detector, model: Denoiser, conditions: Sequence[Condition]) -> Sequence[float]:
    """What a run of the detector would score, its own images extracted where it asks
    for them.
    """
    extracted: dict[str, list[Sample]] = {c.id: [] for c in conditions}
    if part.access.images:
        for sample in part.extract(model, part.plan(conditions)):
            extracted.setdefault(sample.condition.id, []).append(sample)
    return part.score(model, conditions, extracted)


def table(
    parts: Collection[Detector], model: Denoiser, conditions: Sequence[Condition]
) -> list[list[float | None]]:
    """The detectors' scores of each condition, None where one has failed; evaluations that
    several need are made once.
    """
    found: list[list[float | None]] = []
    for start in range(0, len(conditions), BLOCK):
        block, before = conditions[start : start + BLOCK], model.memo
        model.memo = Memo() if before is None else before
        try:
            rows = np.array([scored(part, model, block) for part in parts], float).T.tolist()
        finally:
            model.memo = before
        found += [[value if np.isfinite(value) else None for value in row] for row in rows]
    return found
