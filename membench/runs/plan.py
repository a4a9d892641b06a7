"""What a run will do: the detector checked against the task, its images planned, the
budget kept.
"""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.plain import say
from membench.runs import contract
from membench.runs.job import Job, told
from membench.runs.matching import copied
from membench.runs.shards import SHARD
from membench.runs.spec import Spec
from membench.types import Condition, Cost, Example, Request

# Target evaluations an image beyond which --detector all leaves a detector out;
# diffusers' slowest default takes 100
EXPENSIVE = 500


def suits(job: Job, model: Denoiser) -> None:
    """Checks a detector, and shows one that learns from labels the examples.

    Raises :class:`UserError` where it does not suit them.
    """
    detector = job.detector
    contract.check(detector, model, job.conditions)
    if job.spec.extract_only and not detector.access.model:
        raise UserError(
            "it sees no model, so it extracts no image, and is here to score nothing; leave"
            " --extract-only and --budget out"
        )
    if detector.access.training_data:
        if not job.task.training.ids:
            raise UserError(
                "it is told which images are copies, and the task's training images are not at hand"
            )
        contract.show(detector, lambda images: copied(images, job.task))
    if detector.access.labels:
        contract.fit(detector, job.examples)


def unsuited(job: Job, model: Denoiser) -> str:
    """Why ``--detector all`` leaves a detector out, in a line; empty for one that suits
    the task.
    """
    detector = job.detector
    try:
        suits(job, model)
    except UserError as error:
        return str(error)
    price = contract.price(detector, model, Request(job.conditions[0].bare, 0)) or 0
    if price > EXPENSIVE:
        return (
            f"it takes {price:,} evaluations an image of this model, more than {EXPENSIVE:,}; name"
            " it to run it all the same"
        )
    return ""


def affordable(spec: Spec, forwards: int, what: str) -> None:
    if spec.budget is not None and forwards >= spec.budget:
        raise UserError(
            f"--budget {spec.budget}: the {what} alone takes {forwards:,} target evaluations; raise"
            " the budget"
        )


def within_budget(
    spec: Spec, detector: Detector, model: Denoiser, spent: int, requests: Sequence[Request]
) -> list[Request]:
    """The first requests that the budget pays for.

    Raises :class:`UserError` if it pays for none.
    """
    if spec.budget is None:
        return list(requests)
    prices = []
    for request in requests:
        if (price := contract.price(detector, model, request)) is None:
            raise UserError(
                "it does not say what an image costs (image_forwards), so --budget cannot cap it;"
                " leave --budget out"
            )
        prices.append(price)
    total = list(itertools.accumulate(prices, initial=spent))[1:]
    paid = bisect.bisect_right(total, spec.budget)
    if requests and not paid:
        if spent:
            affordable(spec, total[0], "preparation with one image")
        raise UserError(
            f"--budget {spec.budget} pays for no image; one takes {prices[0]} target evaluations"
        )
    return list(requests[:paid])


def not_shortened(job: Job, model: Denoiser, forwards: int) -> str:
    """A line where ``--limit`` leaves the preparation as long as it is; else empty.

    forwards: evaluations that it takes with the limit.
    """
    every = [example.condition for example in job.task.examples]
    if not forwards or len(job.examples) == len(every):
        return ""
    if forwards < contract.preparation_forwards(job.detector, model, every):
        return ""
    name = job.spec.detector
    return (
        f"{name}: --limit does not shorten its preparation of {forwards:,} evaluations; its options"
        f" do (membench show {name})"
    )


class Unprepared(UserError):
    """The preparation of a job's detector has refused."""

    def __init__(self, job: Job, error: UserError) -> None:
        super().__init__(f"detector {job.spec.detector}: {error}")
        self.job = job


# ---------------------------------------------------------------------------- executing


def encode(model: Denoiser, conditions: Sequence[Condition]) -> int:
    """Encodes every prompt, so that no detector is the one that pays for it; returns
    how many were too long, and tells.
    """
    for start in range(0, len(conditions), SHARD):
        model.condition(conditions[start : start + SHARD])
    truncated = len(getattr(model, "truncated", ()))
    if truncated:
        many = "1 prompt is" if truncated == 1 else f"{truncated} prompts are"
        print(
            f"membench: {many} longer than the tokenizer's limit; what is beyond it was cut off",
            file=sys.stderr,
        )
    return truncated


def tell_alike(model: Denoiser, examples: Sequence[Example]) -> None:
    """Says where a memorized prompt and another are the same to the model, since the
    tokenizer cuts what they differ by: no score can tell one from the other.
    """
    if not getattr(model, "truncated", ()):
        return
    labels: dict[bytes, dict[int, str]] = {}
    for start in range(0, len(examples), SHARD):
        block = examples[start : start + SHARD]
        keys = model.condition([example.condition for example in block]).keys or ()
        for example, key in zip(block, keys, strict=False):
            labels.setdefault(key, {}).setdefault(example.memorized, example.condition.prompt or "")
    both = [of for of in labels.values() if {0, 1} <= {*of}]
    if both:
        say(
            f"of {len(both)} text{'' if len(both) == 1 else 's'} one prompt is labelled memorized"
            " and another not, and they differ only beyond the tokenizer's limit, so the model is"
            f" told the same of both ({both[0][1][:60]!r} ...); remove one of each"
        )


def planned(job: Job, model: Denoiser) -> tuple[list[Request], dict[str, Any]]:
    """The images to extract, as far as the budget goes, and what the preparation says
    of itself.
    """
    spec, detector = job.spec, job.detector
    if detector.access.images:
        model.ready_images()
    forwards = told(job, lambda: contract.preparation_forwards(detector, model, job.conditions))
    told(job, lambda: affordable(spec, forwards, "preparation"))
    if job.workspace.progress and (line := not_shortened(job, model, forwards)):
        say(line)
    # Planned anew where another of the command has refused
    job.workspace.cost, job.workspace.seconds = Cost(), 0.0
    try:
        prepared = contract.prepare(detector, model, job.conditions, job.workspace)
    except UserError as error:
        raise Unprepared(job, error) from error
    requests = told(job, lambda: contract.plan(detector, job.conditions))
    if requests:
        model.ready_images()
    spent = job.workspace.cost.forwards + job.workspace.cost.jvps
    return told(job, lambda: within_budget(spec, detector, model, spent, requests)), prepared
