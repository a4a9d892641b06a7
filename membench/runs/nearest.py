"""The images that a run keeps beside its own, since its pages show them: training
images, and examples that are images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from membench.errors import UserError
from membench.metrics.regions import in_region
from membench.plain import say
from membench.runs.finished import Run
from membench.storage.files import check_own
from membench.storage.images import png_bytes
from membench.storage.tables import read_table
from membench.types import Example, Space

NEAREST, NEAR_MISSES, FAILURES = 24, 12, 12  # pairs in the gallery
SIDE = 192  # pixels; larger images are stored and shown smaller, so that the page stays below 10 MB
WRONG = 8  # false alarms and misses on a page, each

# Training images that a run keeps: those of its own gallery, and the next nearest,
# which a page of several runs may show
STORED = 128


def frame_of(run: Run) -> pd.DataFrame:
    """A row an extracted image that has not failed: its sample, its nearest training
    image, its kind and whether it is a copy.

    Nearest first; ties by sample_id. Columns of samples and matches, ``copied``, ``kind``
    and ``folder``, where the images are.
    """
    space, good = run.space, run.drawn
    frame = good.merge(run.matches[run.matches["rank"] == 0].drop(columns="rank"), on="sample_id")
    frame["copied"] = in_region(frame.similarity.to_numpy(), space, space.copy)
    kind = frame.condition.map(run.scores.set_index("id").kind.astype(object)).astype(object)
    told = frame.condition.where(
        frame.condition.str.startswith("class/"), "unconditional"
    ).str.replace("/", " ")
    frame["folder"] = str(run.path)
    frame["kind"] = kind.fillna(told.where(frame.prompt.isna(), "kind unknown"))
    return nearest_first(frame, space)


def nearest_table(run: Run, training: np.ndarray) -> pd.DataFrame:
    """Columns training_id and image (PNG bytes, no side longer than SIDE): the training
    images that pages of this run show.

    Of the run's own gallery first, then of the next nearest pairs; at most STORED.
    training: ``uint8`` [n, h, w, 3], in the order of ``matches.training``; n = 0 where
    the reference set has no images: then there are no rows.
    """
    if not len(training):
        return pd.DataFrame({"training_id": [], "image": []})
    frame = frame_of(run)
    kept = pd.concat([*chosen_pairs(frame)[:3], frame]).drop_duplicates("training_id")[:STORED]
    images = [small_png(Image.fromarray(training[row]), SIDE) for row in kept.training]
    return pd.DataFrame({"training_id": kept.training_id.to_list(), "image": images})


def mistakes(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(false alarms, misses): the WRONG rows that are not memorized and score highest,
    and those that are and score lowest, worst first. scores: of a run; failed ones are
    left out.
    """
    good = scores[(scores.status == "ok") & scores.score.notna()].sort_values("id")
    ordered = good.sort_values("score", kind="stable")
    return ordered[ordered.label == 0][::-1][:WRONG], ordered[ordered.label == 1][:WRONG]


def example_images(scores: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """The rows of :func:`mistakes` that are images, as :func:`nearest_table`, by the ids
    of the examples.
    """
    wrong = set(pd.concat(mistakes(scores)).id)
    found = {
        e.id: small_png(Image.fromarray(e.condition.image), SIDE)
        for e in examples
        if e.id in wrong and e.condition.image is not None
    }
    return pd.DataFrame({"training_id": list(found), "image": list(found.values())})


def stored_nearest(run: Run) -> dict[str, bytes]:
    """The PNG of each training image, and of each example, that a run has stored, by
    its id; none of an older run, or, with a line on stderr, a damaged file.
    """
    table, path = run.nearest, run.path / "nearest.parquet"
    try:
        if table is None:
            check_own(path)
            table = (
                read_table(path, "nearest")
                if path.exists()
                else pd.DataFrame({"training_id": [], "image": []})
            )
    except UserError as error:
        say(f"shown without training images: {error}")
        return {}
    return dict(zip(table.training_id, table.image, strict=True))


def nearest_first(frame: pd.DataFrame, space: Space) -> pd.DataFrame:
    """The frame by nearness; ties by sample_id, then in the order that they have."""
    return frame.sort_values(
        ["similarity", "sample_id"],
        ascending=[not space.higher_is_closer, True],
        ignore_index=True,
        kind="stable",
    )


def chosen_pairs(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """The nearest, the near misses and the failures, and how the failures were chosen;
    ``place``: among all.
    """
    frame = frame.assign(place=np.arange(len(frame)) + 1)
    nearest, others = frame[:NEAREST], frame[NEAREST:][~frame.copied[NEAREST:]]
    missed, left = others[:NEAR_MISSES], others[NEAR_MISSES:]
    if left.confidence.nunique() > 1:
        failed = left.sort_values("confidence", ascending=False, kind="stable")[:FAILURES]
        why = "The most confident of the other images that are not copies."
    else:
        failed = middle_rows(left, FAILURES)
        why = (
            "From the middle of the other images that are not copies; all have the same confidence."
        )
    return nearest, missed, failed, why


def middle_rows(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    return frame[max(0, (len(frame) - count) // 2) :][:count]


def small_png(image: Image.Image, side: int) -> bytes:
    """The PNG, no side longer than ``side``."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    return png_bytes(np.asarray(small))
