"""What a task is: its declaration, and what it loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from membench.types import Example, Space

if TYPE_CHECKING:
    import numpy as np

    from membench.models.denoiser import Denoiser
    from membench.similarity.criterion import Match


def picture_kinds(task: LoadedTask) -> list[str]:
    """The kind of each unique training picture; where the task names none, ``x`` and the number of its rows.

    Raises ValueError where there are more or fewer kinds than pictures.
    """
    kinds = list(task.training_kinds) or [f"x{copies}" for copies in task.training_copies]
    if len(kinds) != len(task.training_ids):
        raise ValueError(f"{len(kinds)} kinds for {len(task.training_ids)} training pictures")
    return kinds


@dataclass(frozen=True)
class TaskInfo:
    """A task's declaration: what ``membench show`` prints without loading anything."""

    name: str
    version: int
    summary: str
    profiles: tuple[str, ...]
    space: Space
    examples: Literal["prompts", "images"] = "prompts"
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
