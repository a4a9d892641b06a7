"""What a detector is: plan, extract, score, and the optional hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from membench.types import Access, Condition, Request, Sample

if TYPE_CHECKING:
    from membench.models.denoiser import Denoiser
    from membench.storage.workspace import Workspace


@runtime_checkable
class Detector(Protocol):
    """Scores examples and extracts images. One file a paper, under ``detectors/``.

    ``Options`` is a frozen dataclass; each field has a default and ``metadata={"help": ...}``. ``version`` goes up with
    every change that changes a number. The harness owns the loop, seeds, batching, caching and metrics.

    sampling: the task's own ``steps`` and ``guidance``. A ValueError from the constructor is told to the user.
    """

    Options: ClassVar[type]
    version: ClassVar[int]
    access: ClassVar[Access]
    options: Any

    def __init__(self, options: Any, *, seed: int, sampling: Mapping[str, float]) -> None: ...

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        """Which images to extract; any order, no duplicates. May be empty."""
        ...

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """One sample a request, in order. A non-finite confidence marks a failed sample."""
        ...

    def score(self, model: Denoiser, conditions: Sequence[Condition], extracted: Mapping[str, Sequence[Sample]]) -> Sequence[float]:
        """One float a condition, in order; higher = more memorized; non-finite = failed.

        extracted: the detector's own samples by condition id (all those of ``plan``, decoded when looked up), which an
        extractor scores by.
        """
        ...


@runtime_checkable
class Prepares(Protocol):
    """A detector with work to do before it can plan: SIDE trains a surrogate. Called once a process, before ``plan``.

    It may change the network while it extracts and scores: it never shares evaluations with another detector.
    """

    def prepare(self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace) -> dict[str, Any]:
        """Does the work in cached stages of ``workspace`` and returns what run.json shall say of it."""
        ...

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        """Target evaluations that ``prepare`` takes, known before it begins: ``--budget`` refuses what it cannot pay."""
        ...


@runtime_checkable
class Supervised(Protocol):
    """A detector that learns from labels, such as the control ``caption_ngrams``. Its ``access`` must say ``labels=True``."""

    def fit(self, conditions: Sequence[Condition], labels: Sequence[int], groups: Sequence[str]) -> None:
        """Given every example of the run before any is scored, once a process: all conditions, in one order, with their labels
        (1 memorized, 0 not, -1 unknown) and groups.

        What it learns must not depend on the order, and no example may be scored by what was learned from its own label or group.
        Raises :class:`~membench.errors.UserError` in one line where it cannot learn from these.
        """
        ...


@runtime_checkable
class Checks(Protocol):
    """A detector that not every model, example or option suits, and that says so before any work."""

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        """Raises :class:`~membench.errors.UserError` in one line: what does not fit, and what to choose instead."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A detector that says beforehand what an image costs, as ``--budget`` needs."""

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        """Target evaluations of one extracted image."""
        ...
