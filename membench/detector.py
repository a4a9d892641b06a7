"""What a detector is: a class that scores examples, extracts images, or both.

A subclass of :class:`Detector` overrides what it does and inherits the rest.
``membench.testing.check_detector`` runs it on tiny models and checks all that the
harness relies on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from membench.types import Access, Condition, NoOptions, Request, Sample

if TYPE_CHECKING:
    import numpy as np

    from membench.models.denoiser import Denoiser
    from membench.storage.workspace import Workspace


class Detector:
    """Scores examples and extracts images. One file a paper, under ``detectors/``.

    A detector sees conditions and the model, never a label or a training image, unless
    ``access`` says so. The harness owns the loop, seeds, batches, storage and metrics.

    Options: a frozen dataclass; each field has a default and ``metadata={"help":
    ...}``; without one it has no options. version: goes up with every change that changes
    a number. access: what the detector looks at. It does not change after construction.
    presets: named sets of options; one that is called like a profile is that profile's
    default. alone: it changes the network, so it shares no evaluation with another
    detector. attack: how it chooses or guides the images that it extracts is its own, so
    that the share of copies among them says something of it; the images of other
    detectors are the task's. tuning: of "prompts" and "images", the values of each option
    that ``membench tune`` may try; none of those that only buy precision by more
    evaluations. failure: why a score is not finite, in the words of ``scores.parquet``.
    holds: other detectors inside this one, by name: what they are is part of
    a run's key, as it is.
    """

    Options: ClassVar[type] = NoOptions
    version: ClassVar[int]
    access: Access = Access()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    alone: ClassVar[bool] = False
    attack: ClassVar[bool] = False
    tuning: ClassVar[Mapping[str, Mapping[str, Sequence[Any]]]] = MappingProxyType({})
    failure: ClassVar[str] = "the network returned NaN or infinity"
    holds: Mapping[str, Detector] = MappingProxyType({})
    # Of files that the options name, their hashes: part of a run's key
    reads: Mapping[str, str] = MappingProxyType({})

    def __init__(self, options: Any, *, seed: int, sampling: Mapping[str, Any]) -> None:
        """options: of ``Options``. seed: of the run. sampling: of the task, how it
        samples (``steps``, ``guidance``), what its ``examples`` are, "prompts" (the
        default) or "images", and of a run its ``profile`` and whether it is
        ``extract_only``: nothing is scored then.

        A ValueError is reported to the user as a refusal.
        """
        self.options: Any = options
        self.seed = seed
        self.examples: Literal["prompts", "images"] = sampling.get("examples", "prompts")

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        """Raises :class:`~membench.errors.UserError`, in one line, where model,
        examples or options do not suit.

        Called before any work.
        """

    def fit(
        self, conditions: Sequence[Condition], labels: Sequence[int], groups: Sequence[str]
    ) -> None:
        """Learns from labels; called, before any example is scored, where
        ``access.labels`` is true.

        conditions: every example of the run. labels: 1 memorized, 0 not, -1 unknown.
        What it learns must not depend on the order, and no example may be scored by
        what was learned from its own label or group. Raises
        :class:`~membench.errors.UserError` where it cannot learn from these.
        """
        raise TypeError(f"{type(self).__name__} declares Access(labels=True) and has no fit")

    def refer(self, load: Callable[[], Denoiser]) -> None:
        """Takes the reference model, which ``load`` loads; called before ``check``
        where ``access.second_model`` is true.
        """
        raise TypeError(
            f"{type(self).__name__} declares Access(second_model=True) and has no refer"
        )

    def show(self, copied: Callable[[np.ndarray], np.ndarray]) -> None:
        """Takes the truth about images; called before ``prepare`` where
        ``access.training_data`` is true.

        copied: ``uint8`` [n, h, w, 3] -> int [n], the position of the training image that
        each copies, -1 where it copies none.
        """
        raise TypeError(
            f"{type(self).__name__} declares Access(training_data=True) and has no show"
        )

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        """Work before planning, such as training a surrogate, in cached stages of
        ``workspace``; once a process.

        Returns what run.json shall say of it. Refuses with
        :class:`~membench.errors.UserError`.
        """
        return {}

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        """Evaluations of the target that ``prepare`` takes, known before it begins."""
        return 0

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        """Which images to extract, in any order, none twice. May be empty."""
        return []

    def image_forwards(self, model: Denoiser, request: Request) -> int | None:
        """Evaluations of the target for one extracted image; None where it cannot be
        said, which ``--budget`` refuses.
        """
        return None

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """One sample a request, in order.

        A non-finite confidence marks a failed sample.
        """
        return []

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> Sequence[float]:
        """One float a condition, in order; higher = more memorized; a non-finite one
        marks a failed example.

        extracted: the detector's own samples by condition id, all those of ``plan``,
        decoded when looked up; their conditions have id and prompt alone.
        """
        raise NotImplementedError


def prepares(detector: Detector) -> bool:
    """Whether it works before it scores, in stages of the workspace."""
    return detector.alone or type(detector).prepare is not Detector.prepare


OWN = ("version", "score")  # what every detector defines itself
METHODS = (
    "check",
    "fit",
    "refer",
    "show",
    "prepare",
    "preparation_forwards",
    "plan",
    "image_forwards",
    "extract",
    "score",
)


def missing(cls: type) -> list[str]:
    """What a class lacks of a detector, by name."""
    own = vars(Detector)
    return [
        name for name in OWN if inspect.getattr_static(cls, name, None) in (None, own.get(name))
    ]


@functools.cache
def adopted(cls: type) -> type[Detector]:
    """The class itself, or, of a plain class with a detector's methods, one that has
    the base class's defaults, too.

    Raises TypeError, in one line, naming what is missing, of another kind, or takes
    other arguments.
    """
    name = cls.__name__
    if lacks := missing(cls):
        raise TypeError(f"{name} lacks {', '.join(lacks)}")
    found: type[Detector] = cls if issubclass(cls, Detector) else _completed(cls)
    if not (isinstance(found.Options, type) and is_dataclass(found.Options)):
        raise TypeError(f"{name}.Options is not a dataclass")
    if not isinstance(found.version, int) or isinstance(found.version, bool) or found.version < 1:
        raise TypeError(f"{name}.version is {found.version!r}, not a whole number from 1")
    if not isinstance(found.access, Access):
        raise TypeError(f"{name}.access is {found.access!r}, not membench.types.Access")
    for method in METHODS:
        wanted = list(inspect.signature(getattr(Detector, method)).parameters)
        raw = inspect.getattr_static(found, method)
        if inspect.iscoroutinefunction(getattr(found, method)):
            raise TypeError(f"{name}.{method} is async, and nobody awaits it; make it a plain def")
        given = wanted[1:] if isinstance(raw, staticmethod | classmethod) else wanted
        if not _takes(getattr(found, method), len(given)):
            raise TypeError(
                f"{name}.{method} takes other arguments than a detector's ({', '.join(wanted)})"
            )
    if not _takes(found.__init__, 2, seed=0, sampling={}):
        raise TypeError(
            f"{name}.__init__ takes other arguments than a detector's (self, options, *, seed,"
            " sampling)"
        )
    return found


def _completed(cls: type) -> type[Detector]:
    """A plain class with the base class behind it, whose own ``__init__`` runs after
    the base's.
    """

    own_init: Any = cls.__init__  # type: ignore[misc]  # of this very class

    def begin(self: Any, options: Any, *, seed: int, sampling: Mapping[str, Any]) -> None:
        Detector.__init__(self, options, seed=seed, sampling=sampling)
        if own_init is not object.__init__:
            own_init(self, options, seed=seed, sampling=sampling)

    own: dict[str, Any] = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    if own_init is object.__init__ or _takes(own_init, 2, seed=0, sampling={}):
        own["__init__"] = begin
    try:
        return type(cls.__name__, (cls, Detector), own)
    # Of a class whose own class makes others: an Enum, one with slots or a metaclass
    except Exception as error:
        raise TypeError(
            f"{cls.__name__} cannot be completed to a detector ({str(error)[:100]}); derive it from"
            " membench.detector.Detector"
        ) from None


def _takes(function: Any, positional: int, **keywords: Any) -> bool:
    try:
        inspect.signature(function).bind(*[None] * positional, **keywords)
    except (TypeError, ValueError):  # other arguments; not a function
        return False
    return True
