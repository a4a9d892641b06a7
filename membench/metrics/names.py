"""Every metric in one table: what it is called, its range, and which board shows it.

A new metric touches its own module, this table, its test and docs/metrics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Board = Literal["detection", "extraction", "images", "quality"]


@dataclass(frozen=True)
class MetricInfo:
    """A metric of ``metrics.parquet``.

    title: heads a table's column. about: what it is, for the column dictionary. low,
    high: its range. better: which way is better for a detector or attack. scale: on
    which its interval over seeds is made. board: where it is shown; images: of
    generated images by themselves; quality: of all of them together, against training
    and held-out images (``quality.parquet``). column: ``always`` and ``supported``
    (where the data support it) have a column in the tables of that board and an
    interval over seeds; ``number`` is in the leaderboard's numbers alone, as a mean
    over seeds; ``never`` is in the file alone. paired: whether two detectors are compared by it.
    swept: whether the ablation of an option shows it.
    """

    name: str
    title: str
    about: str
    low: float = 0.0
    high: float = 1.0
    better: Literal["higher", "lower", "neither"] = "higher"
    scale: Literal["linear", "logit"] = "linear"
    board: Board = "detection"
    column: Literal["always", "supported", "number", "never"] = "never"
    paired: bool = False
    swept: bool = True


METRICS = (
    MetricInfo(
        "auroc", "AUROC", "area under the ROC curve", scale="logit", column="always", paired=True
    ),
    MetricInfo(
        "auroc_complexity_matched",
        "AUROC matched",
        "AUROC over pairs of images of like PNG size",
        scale="logit",
        column="always",
    ),
    MetricInfo(
        "tpr_at_fpr_0.01",
        "TPR@1%FPR",
        "true-positive rate at a false-positive rate of 1 %",
        column="always",
        paired=True,
    ),
    MetricInfo(
        "tpr_at_fpr_0.001",
        "TPR@0.1%FPR",
        "true-positive rate at a false-positive rate of 0.1 %",
        column="supported",
    ),
    MetricInfo(
        "average_precision", "AP", "average precision", scale="logit", column="always", paired=True
    ),
    MetricInfo(
        "ams_cumulative",
        "AMS copies %",
        "share of images that are copies",
        board="extraction",
        column="always",
    ),
    MetricInfo(
        "ums_cumulative",
        "UMS copies %",
        "different training images copied, over images",
        high=math.inf,
        board="extraction",
        column="always",
    ),
    MetricInfo(
        "own_copies",
        "own copies %",
        "share of images that copy an image of their own prompt",
        board="images",
        column="always",
        swept=False,
    ),
    MetricInfo(
        "prompts_returned",
        "prompts returned %",
        "share of prompts with such an image",
        board="images",
        column="always",
        swept=False,
    ),
    MetricInfo(
        "auroc_of_generations",
        "AUROC of images",
        "AUROC of the confidence for such images against the others",
        board="images",
        column="always",
    ),
    MetricInfo(
        "ums_nearest_cumulative",
        "UMS nearest %",
        "as UMS of copies, but only the nearest training image of each image counts",
        board="extraction",
        column="number",
    ),
    MetricInfo(
        "unique_per_1000_evaluations",
        "unique per 1,000 evaluations",
        "different training images copied per 1,000 evaluations of the network",
        high=math.inf,
        board="extraction",
        column="number",
    ),
    MetricInfo(
        "chao1_estimate",
        "Chao1",
        "estimated lower bound of the training images that more images of the same kind would copy"
        " in all",
        high=math.inf,
        board="extraction",
        column="number",
        swept=False,
    ),
    *(
        MetricInfo(
            f"best_p{q}",
            f"best p{q}",
            f"percentile {q} of each image's similarity or distance to the nearest training image,"
            " as it is: of a distance, a high one is far",
            low=-math.inf,
            high=math.inf,
            better="neither",
            board="extraction",
            column="number",
        )
        for q in (50, 75, 90, 95, 99)
    ),
    MetricInfo(
        "ams", "AMS %", "share of images whose similarity lies in a band", board="extraction"
    ),
    MetricInfo(
        "ums",
        "UMS %",
        "different training images matched in a band, over images",
        high=math.inf,
        board="extraction",
    ),
    MetricInfo(
        "ums_nearest",
        "UMS nearest %",
        "as UMS of a band, but only the nearest training image of each image counts",
        board="extraction",
    ),
    MetricInfo(
        "balanced_accuracy",
        "balanced accuracy",
        "at a threshold chosen on other groups",
        swept=False,
    ),
    MetricInfo(
        "spearman_png_bits",
        "Spearman of score with PNG size",
        "rank correlation of the score with the PNG size",
        low=-1.0,
        better="neither",
        swept=False,
    ),
    *(
        MetricInfo(
            f"precision_at_{k}",
            f"precision at {k}",
            f"share of copies among the {k} images of the highest confidence",
            board="extraction",
            column="number",
            swept=False,
        )
        for k in (10, 50, 100)
    ),
    MetricInfo(
        "rarefaction",
        "rarefaction",
        "expected different training images copied by n of the images",
        high=math.inf,
        board="extraction",
        swept=False,
    ),
    MetricInfo(
        "extracted_share",
        "extracted share",
        "share of the training images shown that often that were copied",
        board="extraction",
        swept=False,
    ),
    MetricInfo(
        "copies_per_image",
        "copies an image",
        "mean copies of a training image shown that often",
        high=math.inf,
        board="extraction",
        swept=False,
    ),
)


CLASSIFIER = "classifier"  # in the place of features, in downstream's name


def _quality(
    name: str,
    title: str,
    about: str,
    better: Literal["higher", "lower", "neither"] = "neither",
    high: float = math.inf,
    low: float = 0.0,
) -> MetricInfo:
    return MetricInfo(name, title, about, low, high, better, board="quality", swept=False)


QUALITY = (
    *(
        metric
        for key, of in (("training", "training images"), ("held_out", "held-out images"))
        for metric in (
            _quality(f"fd_{key}", "FD", f"Frechet distance to {of}", "lower"),
            _quality(
                f"fd_shrunk_{key}",
                "FD shrunk",
                f"the same of shrunk covariances, from no more images than features, to {of}",
                "lower",
            ),
            _quality(f"kid_{key}", "KID", f"kernel distance to {of}", "lower", low=-math.inf),
            _quality(f"precision_{key}", "precision", f"share near {of}", "higher", 1.0),
            _quality(f"recall_{key}", "recall", f"share of {of} that are near", "higher", 1.0),
            _quality(
                f"density_{key}",
                "density",
                f"balls around {of} that hold an image, mean over images, over 5",
                "higher",
            ),
            _quality(f"coverage_{key}", "coverage", "share of such balls with any", "higher", 1.0),
        )
    ),
    *(
        _quality(
            f"{name}_excess",
            f"{title} excess",
            f"{title} to held-out images less that to training images: above 0 where nearer to"
            " these",
            low=-math.inf,
        )
        for name, title in (("fd", "FD"), ("fd_shrunk", "FD shrunk"))
    ),
    _quality(
        "c_t",
        "C_T",
        "z: far below 0 where nearer to training images than held-out images are",
        low=-math.inf,
    ),
    _quality(
        "fld", "FLD", "feature likelihood divergence of held-out images", "lower", low=-math.inf
    ),
    _quality(
        "fld_gap",
        "FLD gap",
        "that of training images less that of held-out images: far below 0 for copies",
        low=-math.inf,
    ),
    _quality(
        "downstream",
        "downstream",
        "share of held-out images whose class a classifier names that was trained on the images",
        "higher",
        1.0,
    ),
    _quality(
        "downstream_training",
        "downstream, training",
        "the same of a classifier trained on as many training images",
        "higher",
        1.0,
    ),
)
METRICS = (*METRICS, *QUALITY)
INFO = {metric.name: metric for metric in METRICS}


def titles(board: Board, column: str = "always") -> dict[str, str]:
    """Title of each metric that a board's tables show."""
    return {m.name: m.title for m in METRICS if m.board == board and m.column == column}


DETECTION = titles("detection")
RARE = titles("detection", "supported")
GENERATIONS = titles("images")
COPIES = titles("extraction")
NUMBERS = titles("extraction", "number")
PAIRED = tuple(m.name for m in METRICS if m.paired)
SWEPT = tuple(m.name for m in METRICS if m.swept)
