"""What a task is: its declaration, and what it loads.

A subclass of :class:`Task` defines ``info`` and ``load`` and inherits the rest.
``membench.testing.check_task`` loads it and checks all that the harness relies on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from membench.errors import UserError
from membench.types import Example, NoOptions, Space, Tracker, Training

if TYPE_CHECKING:
    import numpy as np

    from membench.fetching.resources import Resource
    from membench.models.denoiser import Denoiser
    from membench.similarity.criterion import Match


@dataclass(frozen=True)
class TaskInfo:
    """A task's declaration: what ``membench show`` prints without loading anything.

    version: goes up with every change that changes a number. profiles: the first is
    tried by ``check_task``. space: how images are compared. sampling: how the task
    samples (``steps``, ``guidance``). examples: whether they are prompts or images.
    """

    name: str
    version: int
    profiles: tuple[str, ...]
    space: Space
    sampling: Mapping[str, Any] = field(default_factory=dict)
    examples: Literal["prompts", "images"] = "prompts"


@dataclass(frozen=True)
class LoadedTask:
    """A task ready to run.

    examples: what detectors score. training: what extracted images are compared with.
    model: loads the network, when called. hashes: of "data", "prompts" and "weights";
    they enter the run's key. control: whether ``model`` is the control model. match:
    how images are compared; None: normalised L2 to the training images. owners: by
    example id the positions of the prompt's own training images. names: "model" and
    "data" as a published table words them. provenance: where prompts, model and images
    are from; it goes into run.json and not into the key. held_out: at most n images ``uint8``
    [n, h, w, 3] of the kind of the training images, which neither the model nor its
    control was trained on; None: none are known. held_out_classes: theirs, [n], where
    ``training`` has classes. control_saw: ids of the examples that the control model was
    trained on: to a detector that sees both they are no plain negatives.
    """

    info: TaskInfo
    profile: str
    examples: Sequence[Example]
    training: Training
    model: Callable[[], Denoiser]
    hashes: Mapping[str, str]
    control: bool = False
    match: Match | None = None
    owners: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    held_out: Callable[[int], np.ndarray] | None = None
    held_out_classes: Callable[[int], Sequence[int]] | None = None
    control_saw: Collection[str] = frozenset()


class Task:
    """Declares itself and loads. One folder a task, under ``tasks/``.

    Options: a frozen dataclass; each field has a default and ``metadata={"help":
    ...}``. model_optional: ``load`` takes ``needs_model``; where it is False, every
    detector reads captions alone, and the model need not be found. progress: whether
    ``load`` may show bars; a run with ``--quiet`` sets it to False.
    """

    info: ClassVar[TaskInfo]
    Options: ClassVar[type] = NoOptions
    model_optional: ClassVar[bool] = False
    progress: bool = True

    def __init__(self, options: Any = None) -> None:
        """options: of ``Options``; None: its defaults."""
        self.options: Any = self.Options() if options is None else options

    def load(
        self,
        profile: str,
        *,
        control: bool = False,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> LoadedTask:
        """Examples, training images, and how to load the model.

        profile: one of ``info.profiles``. control: score the same examples by a model
        that never saw the training images. Raises :class:`~membench.errors.UserError`,
        in one line, for what it cannot load.
        """
        raise NotImplementedError

    def resources(self) -> list[Resource]:
        """What these options need from the network: ``membench download``.

        Empty where all ships with the task.
        """
        return []

    @classmethod
    def train(
        cls,
        out: Path,
        parts: Sequence[str] | None,
        options: Sequence[str],
        *,
        profile: str = "mini",
        progress: bool = True,
        tracker: Tracker | None = None,
    ) -> None:
        """``membench train``: makes the task's models under ``out`` by its own recipe.

        parts: of the recipe; None: all. options: ``key=value`` of the recipe. tracker:
        is told the loss.
        """
        raise UserError(f"task {cls.info.name} has no training recipe")


def missing(cls: type) -> list[str]:
    """What a class lacks of a task, by name."""
    own = vars(Task)
    return [
        name
        for name in ("info", "load")
        if inspect.getattr_static(cls, name, None) in (None, own.get(name))
    ]


def _declared(info: TaskInfo, name: str) -> None:
    """Raises TypeError for a declaration of other types than TaskInfo says."""
    version, profiles = info.version, info.profiles
    for what, right in (
        ("version", isinstance(version, int) and not isinstance(version, bool) and version >= 1),
        ("profiles", isinstance(profiles, tuple) and all(isinstance(p, str) for p in profiles)),
        ("space", isinstance(info.space, Space)),
        ("sampling", isinstance(info.sampling, Mapping)),
        ("examples", info.examples in ("prompts", "images")),
    ):
        if not right or (what == "profiles" and not profiles):
            raise TypeError(f"{name}.info.{what} is {getattr(info, what)!r}; see TaskInfo")


@functools.cache
def adopted(cls: type) -> type[Task]:
    """The class itself, or, of a plain class with ``info`` and ``load``, one that has
    the base class's defaults, too.

    Raises TypeError, in one line, naming what is missing or of another kind.
    """
    name = cls.__name__
    if lacks := missing(cls):
        raise TypeError(f"{name} lacks {', '.join(lacks)}")
    plain = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    found: type[Task] = cls if issubclass(cls, Task) else type(name, (cls, Task), plain)
    if not isinstance(found.info, TaskInfo):
        raise TypeError(f"{name}.info is {found.info!r}, not membench.task.TaskInfo")
    _declared(found.info, name)
    if not (isinstance(found.Options, type) and is_dataclass(found.Options)):
        raise TypeError(f"{name}.Options is not a dataclass")
    keywords: dict[str, Any] = dict.fromkeys(("control", "device", "dtype", "batch_size"))
    keywords |= {"needs_model": True} if found.model_optional else {}
    try:
        inspect.signature(found.load).bind(None, "mini", **keywords)
    except TypeError as error:
        raise TypeError(
            f"{name}.load takes other arguments than (profile, *, {', '.join(keywords)}): {error}"
        ) from None
    return found
