"""Every metric in one table: what it is called, its range, and which board shows it.

A new metric touches its own module, this table, its test and docs/metrics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Board = Literal["detection", "extraction", "images"]


@dataclass(frozen=True)
class MetricInfo:
    """A metric of ``metrics.parquet``.

    title: heads a table's column. low, high: its range. better: which way is better for a detector or attack.
    scale: on which its interval over seeds is made. board: where it is shown; images: of generated images by themselves.
    column: whether every table of that board has it, or only where the data support it.
    """

    name: str
    title: str
    about: str
    low: float = 0.0
    high: float = 1.0
    better: Literal["higher", "lower", "neither"] = "higher"
    scale: Literal["linear", "logit"] = "linear"
    board: Board = "detection"
    column: Literal["always", "supported", "never"] = "never"


METRICS = (
    MetricInfo("auroc", "AUROC", "area under the ROC curve", scale="logit", column="always"),
    MetricInfo(
        "auroc_complexity_matched",
        "AUROC matched",
        "AUROC over pairs of images of like PNG size",
        scale="logit",
        column="always",
    ),
    MetricInfo("tpr_at_fpr_0.01", "TPR@1%FPR", "true-positive rate at a false-positive rate of 1 %", column="always"),
    MetricInfo("tpr_at_fpr_0.001", "TPR@0.1%FPR", "true-positive rate at a false-positive rate of 0.1 %", column="supported"),
    MetricInfo("average_precision", "AP", "average precision", scale="logit", column="always"),
    MetricInfo("ams_cumulative", "AMS copies %", "share of images that are copies", board="extraction", column="always"),
    MetricInfo(
        "ums_cumulative",
        "UMS copies %",
        "different training images copied, over images",
        high=math.inf,
        board="extraction",
        column="always",
    ),
    MetricInfo("own_copies", "own copies %", "share of images that copy an image of their own prompt", board="images", column="always"),
    MetricInfo(
        "prompts_returned",
        "prompts returned %",
        "share of prompts with such an image",
        board="images",
        column="always",
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
        "as UMS, but only the nearest training image of each image counts",
        board="extraction",
    ),
    MetricInfo(
        "unique_per_1000_evaluations",
        "unique per 1,000 evaluations",
        "different training images copied per 1,000 evaluations of the network",
        high=math.inf,
        board="extraction",
    ),
    MetricInfo(
        "chao1_estimate",
        "Chao1",
        "lower bound of how many training images the attack can return at all",
        high=math.inf,
        board="extraction",
    ),
    MetricInfo("best_p50", "best p50", "median of the best similarity or distance", low=-math.inf, high=math.inf, better="neither", board="extraction"),
    MetricInfo(
        "best_p95",
        "best p95",
        "95th percentile of the best similarity or distance, from far to near",
        low=-math.inf,
        high=math.inf,
        better="neither",
        board="extraction",
    ),
)
INFO = {metric.name: metric for metric in METRICS}


def titles(board: Board, column: str = "always") -> dict[str, str]:
    """Title of each metric that a board's tables show."""
    return {m.name: m.title for m in METRICS if m.board == board and m.column == column}


DETECTION = titles("detection")
RARE = titles("detection", "supported")
GENERATIONS = titles("images")
COPIES = titles("extraction")
