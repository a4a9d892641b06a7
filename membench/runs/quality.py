"""``membench run --quality``: a finished run's stored images against training images and
images that the model never saw, by one or more extractors, and by what a classifier
learns from them.

The figures are no part of a run's key, for they change nothing of it: they stand in a
file of their own, and a run that is finished gets them by the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from membench.errors import UserError, unknown_name
from membench.features.loading import EXTRACTORS, load_features
from membench.metrics.names import CLASSIFIER
from membench.metrics.quality import (
    SEPARATOR,
    Described,
    QualityRow,
    TooFewImages,
    quality_rows,
)
from membench.models.denoiser import Denoiser
from membench.models.downstream import downstream_accuracy
from membench.models.internals import bottleneck
from membench.plain import say
from membench.runs.finished import Run
from membench.runs.images import stored_images
from membench.runs.quality_file import FILE, read_quality
from membench.storage.images import png_image
from membench.storage.pixels import Chosen, Pixels, Rows
from membench.storage.tables import write_table
from membench.task import LoadedTask

NAMES = ("bottleneck", *EXTRACTORS, CLASSIFIER)
MOST = 5000  # images of each set, since memory and time grow with their square
Extract = Callable[[Rows], np.ndarray]


@dataclass(frozen=True)
class Asked:
    """Features that were asked for. id: with their weights; extract: ``uint8`` [n, h, w,
    3] to float [n, d].
    """

    id: str
    extract: Extract

    def rows(self, sets: Sets) -> list[QualityRow]:
        described = [
            None if x is None else Described(self.id, self.extract(x))
            for x in (sets.images, sets.training, sets.held_out)
        ]
        return quality_rows(*described)  # type: ignore[arg-type]  # but the last none is None


@dataclass(frozen=True)
class Classifier:
    """A classifier of the images (:mod:`membench.models.downstream`)."""

    device: str
    progress: bool = False
    id: str = CLASSIFIER

    def rows(self, sets: Sets) -> list[QualityRow]:
        """``downstream``: trained on the run's images, ``downstream_training``: on as many
        training images where there are as many, both tested on held-out ones. None for
        images that were not generated from two classes or more.
        """
        told = sets.told
        if told is None or len(np.unique(told)) < 2:
            return []
        some = np.random.default_rng(0).permutation(len(sets.training))[: len(sets.images)]
        assert sets.held_out is not None and sets.held_out_classes is not None
        found = []
        for name, images, classes in (
            ("downstream", sets.images[:], told),
            ("downstream_training", sets.training[:][some], sets.training_classes[some]),
        ):
            value, error = downstream_accuracy(
                images,
                classes,
                sets.held_out,
                sets.held_out_classes,
                device=self.device,
                progress=self.progress,
            )
            found.append(
                QualityRow(
                    f"{name}{SEPARATOR}{self.id}", value, error, len(images), len(sets.held_out)
                )
            )
        return found


@dataclass(frozen=True)
class Sets:
    """What is compared, ``uint8`` [n, h, w, 3] each, and their classes [n] where they
    are known. told: the classes that the images were generated from.
    """

    images: Rows
    training: Rows
    held_out: np.ndarray | None
    told: np.ndarray | None
    training_classes: np.ndarray
    held_out_classes: np.ndarray | None


def check_names(asked: Sequence[str]) -> None:
    """Raises :class:`UserError` for a name that is none; nothing is loaded."""
    for text in asked:
        if (name := text.partition(":")[0]) not in NAMES:
            raise unknown_name("features", name, NAMES, f"--quality {'|'.join(NAMES)}")
    if len(set(asked)) < len(asked):
        raise UserError(f"--quality {','.join(asked)}: name each features once")


def features_of(
    asked: Sequence[str], task: LoadedTask, device: str, batch_size: int, progress: bool = False
) -> list[Asked | Classifier]:
    """The extractors ``NAME`` or ``NAME:WEIGHTS``. ``bottleneck``: the middle block of the
    task's own model, at a tenth of its timesteps, without a condition; its figures
    compare runs on that model alone. ``classifier``: no features, but what is learnt from
    the images.

    Raises :class:`UserError` for a task whose training images are not known, and for
    weights that cannot be loaded.
    """
    check_names(asked)
    if asked and not task.training.ids:
        raise UserError(
            "--quality compares images with training images, and none are known of this model;"
            " leave it out"
        )
    found: list[Asked | Classifier] = []
    for text in asked:
        name, _, weights = text.partition(":")
        if name == CLASSIFIER:
            if not (task.training.classes and task.held_out_classes):
                raise UserError(
                    f"--quality {text} needs the classes of training and held-out images, and of"
                    " this model's they are not known; leave it out"
                )
            found.append(Classifier(device, progress))
            continue
        if name == "bottleneck":
            if weights:
                raise UserError(f"--quality {text}: bottleneck is of the task's own model")
            found.append(_of_model(task))
        else:
            features = load_features(
                name,
                weights,
                device=device,
                batch_size=batch_size or 64,
                option=f"--quality {name}:",
            )
            found.append(Asked(features.id, features))
    return found


def _of_model(task: LoadedTask) -> Asked:
    held: list[Denoiser] = []

    def extract(images: Rows) -> np.ndarray:
        if not held:
            held.append(task.model())
        model, found = held[0], []
        t = model.steps // 10
        for start in range(0, len(images), model.batch_size):
            x0 = model.encode(images[start : start + model.batch_size])
            noise = model.noise([(f"quality/{start + i}", 0) for i in range(len(x0))], 0)
            x = model.noised(x0, noise.to(x0.device), torch.full((len(x0),), t)).to(model.device)
            found.append(bottleneck(model, x, t).cpu().numpy())
        return np.concatenate(found)

    return Asked(f"bottleneck-{task.hashes['weights'][:8]}", extract)


def measure(run: Run, task: LoadedTask, asked: Sequence[Asked | Classifier]) -> None:
    """Adds the figures of a run to its folder, but those that stand there.

    Of the run a fixed random sample of ``MOST`` images is taken; of the training images
    one of as many as there are held-out ones. Raises :class:`UserError` for images of
    other sizes than the training images where the features need one size.
    """
    kept = read_quality(run)
    held = {metric.partition(SEPARATOR)[2] for metric in kept.metric}
    missing = [of for of in asked if of.id not in held]
    if not missing:
        return
    name = f"{run.info['detector']} on {run.info['task']}"
    if not run.n_ok:
        say(f"{name} has extracted no images, so it has no figures of quality")
        return
    sets = _sets(run, task)
    if sets.held_out is None:
        say(f"{name}: no held-out images are known, so quality is against training images alone")
    frames = [kept]
    for of in missing:
        try:
            rows = of.rows(sets)
        except TooFewImages as error:
            raise UserError(f"--quality: {name}: {error}; extract more images") from None
        except ValueError as error:
            raise UserError(f"--quality {of.id}: {name}: {error}") from None
        if not rows:
            say(f"{name}: its images were not generated from classes, so no classifier learns them")
            continue
        if any(row.metric.startswith("fd_shrunk") for row in rows):
            say(
                f"{name}, {of.id}: no more images than features ({rows[0].n} generated and"
                f" {rows[0].reference} training images), so covariances are shrunk"
            )
        frames.append(pd.DataFrame([asdict(row) for row in rows]))
    if not (frames := [f for f in frames if len(f)]):
        return
    table = pd.concat(frames, ignore_index=True)
    write_table(run.path / FILE, table, "quality", {"run": run.info["key"]})


def _sets(run: Run, task: LoadedTask) -> Sets:
    good = run.drawn
    # By chance: they lie in the order of their conditions
    good = good.iloc[np.sort(np.random.default_rng(0).permutation(len(good))[:MOST])]
    stored = stored_images(run.path, good.sample_id)  # in the order of the samples
    try:
        images = Pixels(png_image(png) for _, png in stored)
    except ValueError:
        raise UserError("--quality needs images of one size, and this run has several") from None
    most = min(MOST, len(task.training.ids))
    unseen = None if task.held_out is None else task.held_out(most)
    size = most if unseen is None else len(unseen)
    # As many as there are held-out ones, by chance: they lie in the order of their kinds
    rows = np.sort(np.random.default_rng(0).permutation(len(task.training.ids))[:size])
    classes = task.held_out_classes
    return Sets(
        images,
        Chosen(task.training.images(), rows),
        unseen,
        _told(task, good.condition.tolist()),
        np.asarray(task.training.classes)[rows] if task.training.classes else np.array([], int),
        None if unseen is None or classes is None else np.asarray(classes(len(unseen))),
    )


def _told(task: LoadedTask, conditions: Sequence[str]) -> np.ndarray | None:
    """The class that each image was generated from; None where one has none."""
    classes: dict[str, int] = {}
    for example in task.examples:
        c = example.condition
        if c.class_label is not None:
            classes |= {c.id: c.class_label, c.bare.id: c.class_label}
    if not all(name in classes for name in conditions):
        return None
    return np.array([classes[name] for name in conditions])
