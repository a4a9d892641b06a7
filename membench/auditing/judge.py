"""What the images say: which are copies, judged against images that cannot be.

Two controls hold no copy. What a caption that the model cannot have seen returns is
none, unless one of its rare words calls the image (:mod:`membench.auditing.unseen`); what
the mirror returns is none, for it never saw the data. The threshold of a copy is the
published one or, where an image of a control lies within it, just beyond the nearest of
these: no image of a control is called a copy.

A mirror that returns several of the images may have seen them. It then is no control:
it sets no threshold, and what it returns, too, is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from membench.metrics.regions import in_region
from membench.metrics.unique import Interval, zero_limit
from membench.types import Space

UNTOLD = ("class", "unconditional")  # of a model without captions: draws that are alike
GUIDED = "side"
OWN = ("top", "random", *UNTOLD, GUIDED)  # what asks the model for its own
SUSPECT_SHARE, SUSPECT_IMAGES = 0.01, 2  # of a mirror's images, and different ones


@dataclass(frozen=True)
class Control:
    """Images that are no copies. within: how many the published threshold would call
    one. used: whether it sets the threshold.
    """

    name: str
    images: int
    within: int
    nearest: float | None
    used: bool


@dataclass(frozen=True)
class Judgement:
    """threshold: of a copy, at most as far as ``published``; tightened: the control
    that made it so, or "". images: all of them, with ``copy``, ``mirrored`` where the
    mirror returns the same training image, and ``counts`` where it is a copy of one
    that is not shared. returned: a row a training image that came back. shared:
    training images that a mirror that is a control returns, too, and that are therefore
    not among them. suspect: different training images that the mirror returns, of a
    mirror that may have seen them; else 0. limit: the share of images that would be
    called copies by chance is below this (95 %); None without a control.
    """

    threshold: float
    published: float
    tightened: str
    controls: list[Control]
    images: pd.DataFrame
    returned: pd.DataFrame
    shared: list[int]
    suspect: int
    limit: float | None


def judge(images: pd.DataFrame, space: Space) -> Judgement:
    """Judges images, a row each: ``asked`` ("top", "random", "class", "unconditional",
    "side", "unseen", "mirror"), ``random`` (of the random control group), ``condition``,
    ``training`` (the nearest), ``similarity`` to it, and ``called``, of an unseen
    caption whether a rare word of it calls that image.
    """
    within = in_region(images.similarity.to_numpy(), space, space.copy)
    unseen = ((images.asked == "unseen") & ~images.called).to_numpy()
    mirror = (images.asked == "mirror").to_numpy()
    mirrored = set(images.training[mirror & within].tolist())
    suspect = len(mirrored) if _suspect(int((mirror & within).sum()), mirror, mirrored) else 0
    controls = [
        _control(name, images, rows, within, space, used)
        for name, rows, used in (
            ("unseen captions", unseen, True),
            ("mirror", mirror, not suspect),
        )
        if rows.any()
    ]
    threshold, tightened = _threshold(controls, space)
    copy = in_region(images.similarity.to_numpy(), space, threshold)
    # Of unseen captions, those whose word calls the image: no other reaches the threshold
    found = copy & ~mirror
    shared = sorted(set(images.training[found]) & mirrored) if not suspect else []
    images = images.assign(
        copy=copy,
        mirrored=images.training.isin(mirrored),
        counts=found & ~images.training.isin(shared),
    )
    counted = [c for c in controls if c.used]
    return Judgement(
        threshold=threshold,
        published=space.copy,
        tightened=tightened,
        controls=controls,
        images=images,
        returned=_returned(images, space),
        shared=shared,
        suspect=suspect,
        limit=zero_limit(sum(c.images for c in counted)) if counted else None,
    )


def _suspect(times: int, mirror: np.ndarray, different: set[int]) -> bool:
    return len(different) >= SUSPECT_IMAGES and times >= SUSPECT_SHARE * mirror.sum()


def _control(
    name: str,
    images: pd.DataFrame,
    rows: np.ndarray,
    within: np.ndarray,
    space: Space,
    used: bool,
) -> Control:
    values = images.similarity.to_numpy()[rows]
    nearest = float(values.max() if space.higher_is_closer else values.min())
    return Control(name, int(rows.sum()), int((rows & within).sum()), nearest, used)


def _threshold(controls: Sequence[Control], space: Space) -> tuple[float, str]:
    """The loosest threshold up to the published one that no image of a control
    reaches, and the control that set it.
    """
    sign = 1 if space.higher_is_closer else -1
    reached = [c for c in controls if c.used and c.within and c.nearest is not None]
    if not reached:
        return space.copy, ""
    hardest = max(reached, key=lambda c: sign * (c.nearest or 0.0))
    beyond = np.nextafter(np.float32(hardest.nearest), np.float32(sign * np.inf))
    return float(beyond), hardest.name


def _returned(images: pd.DataFrame, space: Space) -> pd.DataFrame:
    """A row a training image: ``times`` it came back in ``asked_times`` images of the
    conditions that returned it, how many ``conditions``, the ``best`` similarity;
    nearest first.
    """
    asked = images[images.asked != "mirror"].groupby("condition").size()
    rows = []
    for training, part in images[images.counts].groupby("training"):
        conditions = part.condition.unique()
        best = part.similarity.max() if space.higher_is_closer else part.similarity.min()
        row = (training, len(part), int(asked[conditions].sum()), len(conditions), float(best))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=["training", "times", "asked_times", "conditions", "best"])
    return frame.sort_values("best", ascending=not space.higher_is_closer, ignore_index=True)


def rate(times: int, of: int) -> Interval:
    """The exact 95 % interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    found = binomtest(times, of).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def random_share(judgement: Judgement) -> tuple[int, int]:
    """(conditions that returned a copy, conditions) of the random control group."""
    part = judgement.images[judgement.images.random]
    return int(part.condition[part.counts].nunique()), int(part.condition.nunique())


FLAG = 100  # one of so many unseen captions scores as high as a flagged one


def flag_of(unseen: int) -> tuple[float, str]:
    """The p-value up to which a score is flagged, and what it then is above, in words:
    of few unseen captions the least that there is, which is above them all.
    """
    as_high = max(1, (1 + unseen) // FLAG)  # the score itself is one of them
    words = f"all but 1 % of {unseen:,}" if as_high > 1 else f"all {unseen:,}"
    return as_high / (1 + unseen), words


def p_values(scores: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Of each score, the share of unseen captions that score as high, (1 + k) / (1 + m):
    in (0, 1]; higher scores, lower values.
    """
    ordered = np.sort(unseen)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + above) / (1 + len(ordered))
