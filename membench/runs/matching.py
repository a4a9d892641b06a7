"""Generated images against the training set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from membench.errors import UserError
from membench.metrics.regions import in_region
from membench.runs.images import Images
from membench.similarity.criterion import by_pixels
from membench.storage.images import png_image
from membench.storage.tables import SCHEMAS
from membench.task import LoadedTask
from membench.types import Space

DECODED = 1024  # images in memory at once while they are compared


def match(
    samples: pd.DataFrame, images: Images, task: LoadedTask
) -> tuple[pd.DataFrame, np.ndarray]:
    """The matches table, and each image's similarity to the nearest of its own prompt's
    training images, float64 [n].

    samples: those that did not fail, of :class:`membench.runs.images.Samples`.
    Matches: every generated-training pair within the space's floor, and the nearest of
    each image. The similarity is NaN where the task does not know the prompt's own
    images. Images are decoded in blocks: those of a whole run would not fit in
    memory. Raises UserError for images of another size.
    """
    ids, own = task.training.ids, np.full(len(samples), np.nan)
    frames = [SCHEMAS["matches"].empty_table().to_pandas()] if samples.empty else []
    criterion = task.match or by_pixels(task.training.images)
    for start in range(0, len(samples), DECODED):
        part = samples.iloc[start : start + DECODED]
        try:  # of other sizes than the training images, or than one another
            decoded = np.stack([png_image(images[place]) for place in part.index])
            found = criterion(decoded, task.info.space.floor)
        except ValueError as error:
            raise UserError(
                f"the generated images cannot be compared with the training images: {error}; a"
                " detector extracts images of the size that its model decodes"
            ) from error
        frames.append(
            pd.DataFrame(
                {
                    "sample_id": part.sample_id.to_numpy()[found.generated],
                    "training_id": [ids[int(k)] for k in found.training],
                    "training": found.training,
                    "similarity": found.similarity,
                    "rank": found["rank"],
                }
            )
        )
        if task.owners:
            own[start : start + DECODED] = criterion.own(
                decoded, [task.owners.get(name, ()) for name in part.condition]
            )
    return pd.concat(frames, ignore_index=True), own


def copied(images: np.ndarray, task: LoadedTask) -> np.ndarray:
    """The position of the training image that each of ``images`` (``uint8`` [n, h, w,
    3]) copies, by the task's own measure and threshold; -1 where it copies none. int [n].
    """
    found = (task.match or by_pixels(task.training.images))(images, None)
    near = found.sort_values("generated")
    close = in_region(near.similarity.to_numpy(), task.info.space, task.info.space.copy)
    return np.where(close, near.training.to_numpy(), -1)


def with_truth(samples: pd.DataFrame, own: np.ndarray, space: Space) -> pd.DataFrame:
    """The samples with a label of each image: whether it is a copy of its own prompt's
    image. own: of :func:`match`, of those that did not fail.
    """
    similarity = pd.Series(own, index=samples.index[samples.status == "ok"]).reindex(samples.index)
    copied = pd.Series(
        in_region(similarity.fillna(0.0).to_numpy(), space, space.copy), index=samples.index
    )
    return samples.assign(
        truth_similarity=similarity, truth_label=copied.astype(float).where(similarity.notna())
    )
