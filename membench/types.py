"""The vocabulary on one page. Imports no torch: ``membench list`` and ``--help`` read it.

An **example** is the thing under test. A detector never sees it: it sees the example's **condition** only, so that
no label, kind or training image can leak into a score; one that learns from labels declares it (``Access.labels``). **Higher score = more
memorized**, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from membench.denoiser import Denoiser
    from membench.similarity.criterion import Match
    from membench.workspace import Workspace


@dataclass(frozen=True)
class Condition:
    """What a detector may know of an example.

    id: hash of the content, the same in every run; seeds are made from it.
    prompt: the caption; label: the class. Without either it asks for the unconditional model. image: ``uint8`` [h, w, 3], where
    the example is an image: one that the model has drawn, or one that it may have been trained on; None where it is a prompt. start: of
    an image that was drawn, the words whose hash is the seed of its noise; None where it is not known.
    """

    id: str
    prompt: str | None = None
    image: np.ndarray | None = field(default=None, compare=False, repr=False)  # the id is made from it
    label: int | None = None
    start: tuple[str, ...] | None = None

    @property
    def bare(self) -> Condition:
        """What the model is told, without the image: the condition to draw more images from. A prompt is its own."""
        if self.image is None:
            return self
        if self.prompt is not None:
            return Condition(f"prompt/{self.prompt}", self.prompt)
        return Condition("unconditional" if self.label is None else f"class/{self.label}", label=self.label)


@dataclass(frozen=True)
class Example:
    """A condition with what the benchmark knows about it.

    label: 1 memorized, 0 not. kind: why (MV, TV, RV, N, held_out ...). group: near-duplicates share one; intervals
    resample groups. source: where it comes from (negatives are reported per source). similarity, nearest: of an example that is
    an image, to its nearest training image, and the id of that image; its label was made from it.
    """

    condition: Condition
    label: int
    kind: str
    group: str
    source: str
    similarity: float | None = None
    nearest: str | None = None

    @property
    def id(self) -> str:
        return self.condition.id


@dataclass(frozen=True)
class Sample:
    """One extracted image. image: ``uint8`` [h, w, 3]; confidence: higher = more surely a training copy."""

    condition: Condition
    draw: int
    image: np.ndarray
    confidence: float


@dataclass(frozen=True)
class Request:
    """An image to draw: its noise comes from hash(seed, condition.id, draw)."""

    condition: Condition
    draw: int


@dataclass(frozen=True)
class Access:
    """What a detector looks at besides the model's outputs; stands on every leaderboard row.

    It must be right before ``plan`` as far as ``labels`` and ``model`` go: they say how the detector is run.
    """

    gradients: bool = False
    images: bool = False  # scores by its own extracted images, whose cost then counts for the score
    training_data: bool = False
    labels: bool = False  # those of other examples; it is given them as ``Supervised``
    model: bool = True  # False: it sees conditions alone, gets no model, and none is loaded for it

    def record(self) -> dict[str, bool]:
        """As run.json holds it. ``labels`` and ``model`` stand there where they are unusual: older runs know neither."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default or f.name in _ALWAYS}


_ALWAYS = ("gradients", "images", "training_data")


def sees(access: Mapping[str, bool]) -> list[str]:
    """What a run's detector looked at, from the ``access`` of its run.json: "outputs" of the model, or, of one that was given no
    model, "condition"; then what else."""
    return ["outputs" if access.get("model", True) else "condition", *(name for name, used in access.items() if used and name != "model")]


@dataclass
class Cost:
    """Evaluations, counted per image in the batch (a pair conditional + unconditional counts 2).

    forwards, backwards, jvps, decodes: of the target model, adapted by LoRA or not. surrogate_*: of a network of the
    detector's own, such as SIDE's classifier. jvps: forward-mode Jacobian-vector products, each of which is a pass over
    the network too. shared: those of the forwards that had been made already, as a rule for another detector of the same
    command; shared_seconds: what they took.
    """

    forwards: int = 0
    backwards: int = 0
    jvps: int = 0
    decodes: int = 0
    encodes: int = 0
    surrogate_forwards: int = 0
    surrogate_backwards: int = 0
    shared: int = 0
    shared_seconds: float = 0.0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f) - getattr(other, f) for f in self.__dataclass_fields__))

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


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


@dataclass(frozen=True)
class Band:
    """A half-open interval of similarity [low, high). For a distance, ``low`` is the nearer end."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Space:
    """How generated and training images are compared.

    id: names measure and settings, since values of two settings are not comparable. higher_is_closer: False for a distance.
    copy: the threshold of a copy. floor: pairs beyond it are not stored (the nearest of each image always is).
    """

    id: str
    higher_is_closer: bool
    bands: tuple[Band, ...]
    copy: float
    floor: float
    source: str


@dataclass(frozen=True)
class TaskInfo:
    """A task's declaration: what ``membench show`` prints without loading anything."""

    name: str
    version: int
    summary: str
    profiles: tuple[str, ...]
    space: Space
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedTask:
    """A task ready to run: examples, training images and a model, with the hashes of each."""

    info: TaskInfo
    profile: str
    examples: Sequence[Example]
    training_images: Callable[[], np.ndarray]  # unique pictures, uint8 [n, h, w, 3]; drawn or read when called
    training_ids: Sequence[str]  # none: the pictures are not at hand, and extracted images are compared with nothing
    training_copies: Sequence[int]  # rows in the training set of each unique picture
    model: Callable[[], Denoiser]
    hashes: Mapping[str, str]  # data, prompts, weights
    control: bool = False
    training_kinds: Sequence[str] = ()  # "x1", "near" ... of each unique picture; empty: made from training_copies
    match: Match | None = None  # what the space measures; None: normalised L2 to the training images
    owners: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of a prompt's id the rows of its own training pictures
    names: Mapping[str, str] = field(default_factory=dict)  # "model", "data": as a published table words them
    provenance: Mapping[str, Any] = field(default_factory=dict)  # where prompts, model and pictures are from; into run.json, not the key


class Task(Protocol):
    """Declares itself and loads. One file a task, under ``tasks/``."""

    info: ClassVar[TaskInfo]
    Options: ClassVar[type]

    def __init__(self, options: Any = ...) -> None: ...

    def load(
        self, profile: str, *, control: bool = False, device: str = "cpu", dtype: str = "float32", batch_size: int = 64
    ) -> LoadedTask: ...
