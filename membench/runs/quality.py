"""``membench run --quality``: a finished run's stored images against training images and
images that the model never saw, by one or more extractors.

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
from membench.metrics.quality import SEPARATOR, Described, TooFewImages, quality_rows
from membench.models.denoiser import Denoiser
from membench.models.internals import bottleneck
from membench.plain import say
from membench.runs.finished import Run
from membench.runs.images import stored_images
from membench.runs.quality_file import FILE, read_quality
from membench.storage.images import png_image
from membench.storage.tables import write_table
from membench.task import LoadedTask

NAMES = ("bottleneck", *EXTRACTORS)
MOST = 5000  # images of each set, since memory and time grow with their square
Extract = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Asked:
    """Features that were asked for. id: with their weights; extract: ``uint8`` [n, h, w,
    3] to float [n, d].
    """

    id: str
    extract: Extract


def check_names(asked: Sequence[str]) -> None:
    """Raises :class:`UserError` for a name that is none; nothing is loaded."""
    for text in asked:
        if (name := text.partition(":")[0]) not in NAMES:
            raise unknown_name("features", name, NAMES, f"--quality {'|'.join(NAMES)}")
    if len(set(asked)) < len(asked):
        raise UserError(f"--quality {','.join(asked)}: name each features once")


def features_of(
    asked: Sequence[str], task: LoadedTask, device: str, batch_size: int
) -> list[Asked]:
    """The extractors ``NAME`` or ``NAME:WEIGHTS``. ``bottleneck``: the middle block of the
    task's own model, at a tenth of its timesteps, without a condition; its figures
    compare runs on that model alone.

    Raises :class:`UserError` for a task whose training images are not known, and for
    weights that cannot be loaded.
    """
    check_names(asked)
    if asked and not task.training.ids:
        raise UserError(
            "--quality compares images with training images, and none are known of this model;"
            " leave it out"
        )
    found = []
    for text in asked:
        name, _, weights = text.partition(":")
        if name == "bottleneck":
            if weights:
                raise UserError(f"--quality {text}: bottleneck is of the task's own model")
            found.append(_of_model(task))
        else:
            features = load_features(name, weights, device=device, batch_size=batch_size or 64)
            found.append(Asked(features.id, features))
    return found


def _of_model(task: LoadedTask) -> Asked:
    held: list[Denoiser] = []

    def extract(images: np.ndarray) -> np.ndarray:
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


def measure(run: Run, task: LoadedTask, asked: Sequence[Asked]) -> None:
    """Adds the figures of a run to its folder, but those that stand there.

    Of the run the first ``MOST`` images are taken; of the training images a fixed random
    sample, of as many as there are held-out ones. Raises :class:`UserError` for images of
    other sizes than the training images where the features need one size.
    """
    kept = read_quality(run)
    held = {metric.partition(SEPARATOR)[2] for metric in kept.metric}
    missing = [of for of in asked if of.id not in held]
    if not missing:
        return
    images = _images(run)
    name = f"{run.info['detector']} on {run.info['task']}"
    if not len(images):
        say(f"{name} has extracted no images, so it has no figures of quality")
        return
    most = min(MOST, len(task.training.ids))
    unseen = None if task.held_out is None else task.held_out(most)
    # As many, by chance: training images lie in the order of their kinds
    training = _some(task.training.images(), most if unseen is None else len(unseen))
    if unseen is None:
        say(f"{name}: no held-out images are known, so quality is against training images alone")
    frames = [kept]
    for of in missing:
        try:
            described = [
                None if x is None else Described(of.id, of.extract(x))
                for x in (images, training, unseen)
            ]
            rows = quality_rows(*described)  # type: ignore[arg-type]  # but the last none is None
        except TooFewImages as error:
            raise UserError(f"--quality: {name}: {error}; extract more images") from None
        except ValueError as error:
            raise UserError(f"--quality {of.id}: {error}") from None
        if any(row.metric.startswith("fd_shrunk") for row in rows):
            say(
                f"{name}, {of.id}: no more images than features ({rows[0].n} generated and"
                f" {rows[0].reference} training images), so covariances are shrunk"
            )
        frames.append(pd.DataFrame([asdict(row) for row in rows]))
    table = pd.concat([f for f in frames if len(f)], ignore_index=True)
    write_table(run.path / FILE, table, "quality", {"run": run.info["key"]})


def _images(run: Run) -> np.ndarray:
    """``uint8`` [n, h, w, 3], at most MOST, of one size."""
    good = run.samples[run.samples.status == "ok"].sample_id[:MOST]
    images = [png_image(image) for _, image in stored_images(run.path, good)]
    if len({image.shape for image in images}) > 1:
        raise UserError("--quality needs images of one size, and this run has several")
    return np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8)


def _some(images: np.ndarray, most: int) -> np.ndarray:
    order = np.random.default_rng(0).permutation(len(images))
    return images[np.sort(order[:most])]
