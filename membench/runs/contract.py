"""What a detector or a task returns, checked where it is used: a plug-in's mistake is
one line, not a wrong table.

Each function calls one method and raises :class:`ContractError`, which names the class
and the rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np

from membench.detector import Detector
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.task import LoadedTask, Task
from membench.types import Access, Condition, Request, Sample


class ContractError(UserError):
    """A detector or task that does not do what the harness relies on.

    ``membench.testing`` checks it beforehand.
    """


def require(kept: bool, message: str) -> None:
    """Raises :class:`ContractError` where a rule is not kept."""
    if not kept:
        raise ContractError(message)


@contextmanager
def calling(owner: object, method: str) -> Iterator[str]:
    """Yields ``"Class.method"``; a plug-in that ends the process in it is refused like
    any other mistake.
    """
    name = f"{type(owner).__name__ if not isinstance(owner, type) else owner.__name__}.{method}"
    try:
        yield name
    except SystemExit as error:
        raise ContractError(
            f"{name} ends the process (exit {error.code}); raise membench.errors.UserError in its"
            " place"
        ) from None


def construct(
    cls: type[Detector], options: Any, *, seed: int, sampling: Mapping[str, Any]
) -> Detector:
    """The detector, with what the base class sets. A ValueError of its options passes."""
    with calling(cls, "__init__") as name:
        detector = cls(options, seed=seed, sampling=sampling)
    begun = {"options", "seed", "examples"} <= vars(detector).keys()
    require(begun, f"{name} does not call super().__init__(options, seed=seed, sampling=sampling)")
    require(
        isinstance(detector.access, Access),
        f"{name} sets access to {detector.access!r}, not membench.types.Access",
    )
    return detector


def check(detector: Detector, model: Denoiser, conditions: Sequence[Condition]) -> None:
    with calling(detector, "check"):
        detector.check(model, conditions)


def prepare(
    detector: Detector, model: Denoiser, conditions: Sequence[Condition], workspace: Any
) -> dict[str, Any]:
    with calling(detector, "prepare") as name:
        found = detector.prepare(model, conditions, workspace)
    require(
        isinstance(found, dict),
        f"{name} returns {_kind(found)}; it must return a dict, for run.json",
    )
    return found


def plan(detector: Detector, conditions: Sequence[Condition]) -> list[Request]:
    """The requests, each of another image."""
    with calling(detector, "plan") as name:
        found = detector.plan(conditions)
        right = isinstance(found, Sequence) and all(isinstance(r, Request) for r in found)
    require(
        right, f"{name} returns {_kind(found)}; it must return a list of membench.types.Request"
    )
    times = Counter((r.condition.id, r.draw) for r in found)
    twice = next((f"{id_}, draw {draw}" for (id_, draw), n in times.items() if n > 1), "")
    require(
        not twice,
        f"{name} asks for the same image twice ({twice}); number the draws of a condition",
    )
    return list(found)


def price(detector: Detector, model: Denoiser, request: Request) -> int | None:
    """Evaluations of the target for one image; None where the detector does not say."""
    with calling(detector, "image_forwards") as name:
        found = detector.image_forwards(model, request)
    right = found is None or (isinstance(found, Integral) and found >= 0)
    require(right, f"{name} returns {found!r}; it must return a whole number from 0, or None")
    return None if found is None else int(found)


def extract(detector: Detector, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
    """One sample a request, in order, each with an image."""
    with calling(detector, "extract") as name:
        found = detector.extract(model, requests)
        right = isinstance(found, Sequence) and all(isinstance(s, Sample) for s in found)
    require(right, f"{name} returns {_kind(found)}; it must return a list of membench.types.Sample")
    require(
        len(found) == len(requests),
        f"{name} returns {len(found)} samples for {len(requests)} requests; it must return one"
        " each",
    )
    for request, sample in zip(requests, found, strict=True):
        same = (sample.condition.id, sample.draw) == (request.condition.id, request.draw)
        require(same, f"{name} returns samples in another order than was asked for")
        image, sure = sample.image, sample.confidence
        right = (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
        )
        require(
            right, f"{name} returns an image of {_kind(image)}; it must be a uint8 array [h, w, 3]"
        )
        require(
            isinstance(sure, Real),
            f"{name} returns a confidence of {_kind(sure)}; it must be a float",
        )
    return list(found)


def score(
    detector: Detector,
    model: Denoiser,
    conditions: Sequence[Condition],
    extracted: Mapping[str, Sequence[Sample]],
) -> list[float]:
    """One float a condition, in order."""
    with calling(detector, "score") as name:
        found = detector.score(model, conditions, extracted)
    right = (
        isinstance(found, Sequence | np.ndarray)
        and not isinstance(found, str)
        and all(isinstance(v, Real) for v in found)
    )
    require(
        right,
        f"{name} returns {_kind(found)}; it must return a list of floats, such as tensor.tolist()",
    )
    many = (
        f"{name} returns {len(found)} values for {len(conditions)} conditions; it must return one"
        " each, in order"
    )
    require(len(found) == len(conditions), many)
    return [float(v) for v in found]


def load(task: Task, profile: str, **how: Any) -> LoadedTask:
    """The loaded task, whose examples are what its declaration says."""
    with calling(task, "load") as name:
        found = task.load(profile, **how)
    require(
        isinstance(found, LoadedTask),
        f"{name} returns {_kind(found)}; it must return a membench.task.LoadedTask",
    )
    of_images = found.info.examples == "images"
    wrong = next(
        (e.id for e in found.examples if (e.condition.image is not None) != of_images), None
    )
    require(
        wrong is None,
        f"{name}: info says examples={found.info.examples!r}, and example {wrong} is"
        f" {'not ' * of_images}an image",
    )
    return found


def _kind(value: object) -> str:
    """``"a list of str"``, ``"an array of shape [2, 1]"``, ``"None"``: what a wrong
    value is.
    """
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} of {', '.join(sorted({type(v).__name__ for v in value}))}"
    return f"an object of type {type(value).__name__}"
