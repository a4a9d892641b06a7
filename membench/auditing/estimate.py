"""How many training images would come back, at least, of which some have.

Random captions are drawn without replacement. Where each returns an image of its own,
none comes back twice however many there are, and Chao1, which expects repeats of a
large share, would call for f1² / 2 images. So the share of the captions that was asked
counts (Chao and Lin, Biometrics 68:912, 2012).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from membench.auditing.judge import UNTOLD, Judgement
from membench.metrics.unique import Interval, chao1, chao1_interval


def total(judgement: Judgement, training: int, captions: int) -> tuple[float, Interval | None]:
    """Training images that would come back, at least, and the interval of the estimate:
    of random captions, if every caption were asked once; of a model that takes none, in
    the end, from the images that are not guided.

    training, captions: how many there are; no more than ``training`` come back. No
    fewer come back than have, from whatever was asked; where the estimate is below
    that, or nothing is a fair sample, there is no interval.
    """
    images, least = judgement.images, float(len(judgement.returned))
    of_captions = bool(images.random.any())
    images = images[images.random] if of_captions else images[images.asked.isin(UNTOLD)]
    counts = images[images.counts].groupby("training").size().to_numpy()
    if not len(counts):
        return least, None
    if of_captions:
        value, ends = without_replacement(counts, len(images), captions)
    else:
        value, ends = chao1(counts, len(images)), chao1_interval(counts, len(images))
    if value < least or ends is None:
        return least, None
    # Whole images: 10.1 at least is 10 at least
    low, high = max(float(np.floor(ends[0])), least), float(np.ceil(ends[1]))
    return min(value, training), (min(low, training), min(high, training))


def without_replacement(
    counts: np.ndarray, asked: int, captions: int, level: float = 0.95
) -> tuple[float, Interval | None]:
    """Lower bound on the training images that all captions would return, of which
    ``asked`` were drawn without replacement, and its interval; None where all were.

    counts: int [returned], how many of the asked captions returned each training image.
    With q = asked / captions, f1 and f2 images returned once and twice:
    S + f1² / (2 f2 asked / (asked - 1) + f1 q / (1 - q)). At q -> 0 it is Chao1; where
    every caption returns an image of its own it is S / q. The interval is log-normal, as
    Chao1's; its variance is that of the delta method over f1, f2 ..., sum g² f - value,
    g the derivatives of the value, which is homogeneous of degree 1. That none came back
    twice is no certainty: f2 varies as if it were 1 at least, or 77 % of the intervals
    would hold 50 images of two captions each.
    """
    seen, q = float(len(counts)), min(1.0, asked / captions)
    if q == 1:
        return seen, None
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    if not once:
        return seen, chao1_interval(counts, asked)
    a, b = 2 * asked / max(asked - 1, 1), q / (1 - q)
    below = a * twice + b * once
    missing = once**2 / below
    by_once = 1 + (2 * once * below - b * once**2) / below**2
    by_twice = 1 - a * once**2 / below**2
    variance = once * by_once**2 + max(twice, 1.0) * by_twice**2 - once - twice - missing
    z = float(ndtri((1 + level) / 2))
    spread = float(np.exp(z * np.sqrt(np.log1p(max(variance, 0.0) / missing**2))))
    most = seen + captions - asked  # a caption returns one image at most
    return seen + missing, (seen + missing / spread, min(seen + missing * spread, most))
