"""The vocabulary on one page.

Imports no torch: ``membench list`` and ``--help`` read it.

An **example** is the thing under test. A detector never sees it: it sees the example's
**condition** only, so that no label, kind or training image can leak into a score; one
that learns from labels declares it (``Access.labels``). **Higher score = more
memorized**, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Condition:
    """What a detector may know of an example.

    id: hash of the content, the same in every run; seeds are made from it. prompt: the
    caption; class_label: the class, from 0. Without either it asks for the
    unconditional model. image: ``uint8`` [h, w, 3], read-only, where the example is an
    image: one that the model has generated, or one that it may have been trained on;
    None where it is a prompt. start: of a generated image, the words whose hash is the
    seed of the noise that it was sampled from; None where it is not known.
    """

    id: str
    prompt: str | None = None
    # The id is made from it
    image: np.ndarray | None = field(default=None, compare=False, repr=False)
    class_label: int | None = None
    start: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # Every detector of a process is shown the same image, and so is what hashes it
        if self.image is not None:
            object.__setattr__(self, "image", self.image.view())
            self.image.flags.writeable = False

    @property
    def bare(self) -> Condition:
        """What the model is told, without the image: the condition to generate more
        images from. A prompt is its own.
        """
        if self.image is None:
            return self
        if self.prompt is not None:
            return Condition(f"prompt/{self.prompt}", self.prompt)
        told = self.class_label
        return Condition("unconditional" if told is None else f"class/{told}", class_label=told)


UNLABELLED = -1  # of Example.memorized, where nobody knows


@dataclass(frozen=True)
class Example:
    """A condition with what the benchmark knows about it.

    memorized: 1 memorized, 0 not, -1 unknown; stored in the column ``label``. kind: why
    (MV, TV, RV, N, held_out ...). group: near-duplicates share one; intervals resample
    groups. source: where it comes from (negatives are reported per source). similarity,
    nearest: of an example that is an image, to its nearest training image, and the id
    of that image; ``memorized`` was made from it.
    """

    condition: Condition
    memorized: int
    kind: str
    group: str
    source: str
    similarity: float | None = None
    nearest: str | None = None

    @property
    def id(self) -> str:
        return self.condition.id


@dataclass(frozen=True)
class Training:
    """The different training images of a task's model, each once.

    images: ``uint8`` [n, h, w, 3], generated or read when called. ids: [n]; none where
    the images are not at hand, so that extracted images are compared with nothing.
    Of a reference set of descriptors there are ids and no image. copies: how many rows
    of the training set each is, [n]. kinds: "x1", "near" ..., [n]; empty: ``x`` and the
    number of copies. groups: near-duplicates share one, [n]; empty: each image is its
    own. classes: of the images, as a condition's ``class_label``, [n]; empty: they have
    none, or the model was told something else of them. hash: of all of it. Raises
    ValueError where these differ in number.
    """

    images: Callable[[], np.ndarray]
    ids: Sequence[str]
    copies: Sequence[int]
    kinds: Sequence[str] = ()
    groups: Sequence[str] = ()
    hash: str = ""
    classes: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not len(self.kinds):
            object.__setattr__(self, "kinds", [f"x{n}" for n in self.copies])
        if not len(self.groups):
            object.__setattr__(self, "groups", self.ids)
        for name in ("copies", "kinds", "groups", "classes"):
            found = len(getattr(self, name))
            if found != len(self.ids) and (found or name != "classes"):
                raise ValueError(f"{found} {name} for {len(self.ids)} training images")

    @classmethod
    def none(cls) -> Training:
        """Of a model whose training images are not at hand."""
        import numpy

        return cls(lambda: numpy.empty((0, 1, 1, 3), numpy.uint8), [], [], hash="none")


@dataclass(frozen=True)
class Sample:
    """One extracted image. image: ``uint8`` [h, w, 3]; confidence: higher = more surely
    a training copy.
    """

    condition: Condition
    draw: int
    image: np.ndarray
    confidence: float


@dataclass(frozen=True)
class Request:
    """An image to generate: its noise comes from hash(seed, condition.id, draw)."""

    condition: Condition
    draw: int


@dataclass(frozen=True)
class NoOptions:
    """Of a detector or task that has none."""


@dataclass(frozen=True)
class Access:
    """What a detector looks at besides the model's outputs; stands on every leaderboard
    row.

    A detector's access does not change after construction: ``labels`` and ``model`` say
    how it is run.
    """

    gradients: bool = False
    images: bool = False  # scores by its own extracted images, whose cost then counts for the score
    training_data: bool = False
    labels: bool = False  # those of other examples; it is given them by ``fit``
    references: bool = False  # prompts that are not examples and not memorized, to compare with
    internals: bool = False  # features or attention maps of the network's layers
    second_model: bool = False  # outputs of a reference model, too; it is handed over by ``refer``
    model: bool = True  # False: it sees conditions alone, gets no model, and none is loaded for it

    def record(self) -> dict[str, bool]:
        """As run.json holds it: words that its first version did not have only where
        they are true.
        """
        return {name: used for name, used in asdict(self).items() if used or name not in LATER}


LATER = ("references", "internals", "second_model")  # of Access


def sees(access: Mapping[str, bool]) -> list[str]:
    """What a run's detector looked at, from the ``access`` of its run.json: "outputs"
    of the model, or, of one that was given no model, "condition"; then what else.
    """
    return [
        "outputs" if access["model"] else "condition",
        *(name for name, used in access.items() if used and name != "model"),
    ]


@dataclass
class Cost:
    """Evaluations, counted per image in the batch (a pair conditional + unconditional
    counts 2).

    forwards, backwards, jvps, decodes: of the target model, adapted by LoRA or not.
    surrogate_*: of a network of the detector's own, such as SIDE's classifier. jvps:
    forward-mode Jacobian-vector products, each of which is a pass over the network too.
    shared: those of the forwards that had been made already, as a rule for another
    detector of the same command; shared_seconds: what they took.
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


@dataclass(frozen=True)
class Band:
    """A half-open interval of similarity [low, high).

    For a distance, ``low`` is the nearer end.
    """

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Space:
    """How generated and training images are compared.

    id: names measure and settings, since values of two settings are not comparable.
    higher_is_closer: False for a distance. copy: the threshold of a copy. floor: pairs
    beyond it are not stored (the nearest of each image always is).
    """

    id: str
    higher_is_closer: bool
    bands: tuple[Band, ...]
    copy: float
    floor: float
    source: str


class Tracker(Protocol):
    """Where numbers go while they are made (``--log``). It changes no result."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """name: such as ``train/loss``; step: from 0. A value that is not finite is
        left out.
        """
        ...

    def close(self) -> None:
        """Ends the record; what was told is kept."""
        ...
