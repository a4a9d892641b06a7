"""What a detector or a task returns, checked where it is used: a plug-in's mistake is
one line, not a wrong table.

Each function calls one method and raises :class:`ContractError`, which names the class
and the rule. A method gets lists of its own, which it may change.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real
from typing import Any

import numpy as np

from membench.detector import Detector
from membench.errors import UserError, reason, told
from membench.models.denoiser import Denoiser
from membench.plugins import changed, settings, staying
from membench.runs.untouched import fingerprint
from membench.task import LoadedTask, Task
from membench.types import Access, Condition, Example, Request, Sample

LARGEST_DRAW = 2**31 - 1  # what the tables hold
LONGEST_CAUSE = 300  # characters that are shown of what a plug-in raises


class ContractError(UserError):
    """A detector or task that does not do what the harness relies on.

    ``membench.testing`` checks it beforehand.
    """


def require(kept: bool, message: str) -> None:
    """Raises :class:`ContractError` where a rule is not kept."""
    if not kept:
        raise ContractError(message)


@contextmanager
def calling(
    owner: object, method: str, *, passes: tuple[type[Exception], ...] = ()
) -> Iterator[str]:
    """Yields ``"Class.method"``; what a plug-in raises in it is one line that names the
    method and the place in the plug-in's file.

    An exception of a class that ships is a fault of membench and passes, as do
    UserError, ``passes``, a device that is out of memory and the user's Ctrl-C; the end
    of the process is refused of both.
    """
    cls = owner if isinstance(owner, type) else type(owner)
    name, ships = f"{cls.__name__}.{method}", cls.__module__.startswith("membench.")
    before = {} if ships else settings()
    try:
        with nullcontext() if ships else staying():
            yield name
    except SystemExit as error:
        raise ContractError(
            f"{name} ends the process (exit {error.code}); raise membench.errors.UserError in its"
            " place"
        ) from None
    except BaseException as error:
        ours = ships and isinstance(error, Exception)
        # Ctrl-C is no subclass; OutOfMemoryError is torch's, which is not imported here
        if ours or type(error) is KeyboardInterrupt or type(error).__name__ == "OutOfMemoryError":
            raise
        if isinstance(error, (UserError, *passes)):
            raise
        raise ContractError(
            f"{name} fails{_place(error, cls)}: {told(error)[:LONGEST_CAUSE]};"
            " MEMBENCH_TRACEBACK=1 shows the whole of it"
        ) from error
    left = changed(before)
    require(not left, f"{name} leaves {left}, for all that comes after it; restore it")


@contextmanager
def asking(detector: Detector, method: str, model: Any) -> Iterator[str]:
    """As :func:`calling`, of a method that is given the model: it leaves it as it was."""
    before = fingerprint(detector, model)
    with calling(detector, method) as name:
        yield name
    after = fingerprint(detector, model)
    other = next((what for what in before if after[what] != before[what]), "")
    require(
        not other,
        f"{name} changes the model's {other}, and other detectors are asked of the same model;"
        " restore them, and set alone = True",
    )


def _place(error: BaseException, cls: type) -> str:
    """`` at FILE:LINE`` of the innermost frame in the file of the class; empty where
    there is none.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" at {file}:{frames[-1].lineno}" if frames else ""


def construct(
    cls: type[Detector], options: Any, *, seed: int, sampling: Mapping[str, Any]
) -> Detector:
    """The detector, with what the base class sets. A ValueError of its options passes."""
    with calling(cls, "__init__", passes=(ValueError,)) as name:
        detector = cls(options, seed=seed, sampling=sampling)
    begun = {"options", "seed", "examples"} <= vars(detector).keys()
    require(begun, f"{name} does not call super().__init__(options, seed=seed, sampling=sampling)")
    require(
        isinstance(detector.access, Access),
        f"{name} sets access to {detector.access!r}, not membench.types.Access",
    )
    return detector


def check(detector: Detector, model: Denoiser, conditions: Sequence[Condition]) -> None:
    with asking(detector, "check", model):
        detector.check(model, list(conditions))


def prepare(
    detector: Detector, model: Denoiser, conditions: Sequence[Condition], workspace: Any
) -> dict[str, Any]:
    with asking(detector, "prepare", model) as name:
        found = detector.prepare(model, list(conditions), workspace)
    require(
        isinstance(found, dict),
        f"{name} returns {_kind(found)}; it must return a dict, for run.json",
    )
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ContractError(
            f"{name} returns what run.json cannot hold ({reason(error)}); return numbers that are"
            " finite, texts, lists and dicts of Python"
        ) from None
    return found


def preparation_forwards(
    detector: Detector, model: Denoiser, conditions: Sequence[Condition]
) -> int:
    """Evaluations of the target that the preparation takes."""
    with asking(detector, "preparation_forwards", model) as name:
        found = detector.preparation_forwards(model, list(conditions))
    right = isinstance(found, Integral) and found >= 0
    require(right, f"{name} returns {found!r}; it must return a whole number from 0")
    return int(found)


def refer(detector: Detector, model: Callable[[], Denoiser]) -> None:
    with calling(detector, "refer"):
        detector.refer(model)


def show(detector: Detector, copied: Callable[[np.ndarray], np.ndarray]) -> None:
    with calling(detector, "show"):
        detector.show(copied)


def fit(detector: Detector, examples: Sequence[Example]) -> None:
    with calling(detector, "fit"):
        detector.fit(
            [e.condition for e in examples],
            [e.memorized for e in examples],
            [e.group for e in examples],
        )


def plan(detector: Detector, conditions: Sequence[Condition]) -> list[Request]:
    """The requests, each of another image."""
    with calling(detector, "plan") as name:
        found = detector.plan(list(conditions))
        right = isinstance(found, Sequence) and all(isinstance(r, Request) for r in found)
    require(
        right, f"{name} returns {_kind(found)}; it must return a list of membench.types.Request"
    )
    require(
        not found or detector.access.model,
        f"{name} asks for images, and its access says model=False: there is nothing to draw them",
    )
    wrong = next((r for r in found if not _is_request(r)), None)
    require(
        wrong is None,
        f"{name} returns {str(wrong)[:200]}; a Request is a Condition and a draw from 0 to"
        f" {LARGEST_DRAW:,}",
    )
    times = Counter((r.condition.id, r.draw) for r in found)
    twice = next((f"{id_}, draw {draw}" for (id_, draw), n in times.items() if n > 1), "")
    require(
        not twice,
        f"{name} asks for the same image twice ({twice}); number the draws of a condition",
    )
    return list(found)


def _is_request(request: Request) -> bool:
    draw = request.draw
    return (
        isinstance(request.condition, Condition)
        and isinstance(draw, Integral)
        and 0 <= draw <= LARGEST_DRAW
    )


def price(detector: Detector, model: Denoiser, request: Request) -> int | None:
    """Evaluations of the target for one image; None where the detector does not say."""
    with calling(detector, "image_forwards") as name:
        found = detector.image_forwards(model, request)
    right = found is None or (isinstance(found, Integral) and found >= 0)
    require(right, f"{name} returns {found!r}; it must return a whole number from 0, or None")
    return None if found is None else int(found)


def extract(detector: Detector, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
    """One sample a request, in order, each with an image."""
    with asking(detector, "extract", model) as name:
        found = detector.extract(model, list(requests))
        right = isinstance(found, Sequence) and all(isinstance(s, Sample) for s in found)
    require(right, f"{name} returns {_kind(found)}; it must return a list of membench.types.Sample")
    require(
        len(found) == len(requests),
        f"{name} returns {len(found)} samples for {len(requests)} requests; it must return one"
        " each",
    )
    for request, sample in zip(requests, found, strict=True):
        same = isinstance(sample.condition, Condition) and (sample.condition.id, sample.draw) == (
            request.condition.id,
            request.draw,
        )
        require(same, f"{name} returns samples in another order than was asked for")
        image, sure = sample.image, sample.confidence
        right = (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.size > 0
        )
        require(
            right, f"{name} returns an image of {_kind(image)}; it must be a uint8 array [h, w, 3]"
        )
        require(
            _is_float(sure),
            f"{name} returns a confidence of {_kind(sure)}; it must be a float",
        )
    sizes = sorted({s.image.shape[:2] for s in found})
    require(
        len(sizes) < 2,
        f"{name} returns images of {' and '.join(f'{w}x{h}' for h, w in sizes[:2])}; they must"
        " be of one size",
    )
    return list(found)


def score(
    detector: Detector,
    model: Denoiser,
    conditions: Sequence[Condition],
    extracted: Mapping[str, Sequence[Sample]],
) -> list[float]:
    """One float a condition, in order."""
    with asking(detector, "score", model) as name:
        found = detector.score(model, list(conditions), extracted)
    right = (
        isinstance(found, Sequence | np.ndarray)
        and not isinstance(found, str)
        and all(map(_is_float, found))
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


def _is_float(value: object) -> bool:
    """Whether it is a number, and not one beyond what a float can be."""
    try:
        return isinstance(value, Real) and isinstance(float(value), float)
    except (OverflowError, ValueError):
        return False


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
