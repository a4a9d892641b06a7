"""Names and titles of the metrics that tables show."""

from __future__ import annotations

DETECTION = {  # metrics in tables, and their titles
    "auroc": "AUROC",
    "auroc_complexity_matched": "AUROC matched",
    "tpr_at_fpr_0.01": "TPR@1%FPR",
    "average_precision": "AP",
}


RARE = {"tpr_at_fpr_0.001": "TPR@0.1%FPR"}  # shown where the negatives support it


GENERATIONS = {  # of images whose prompt's own training pictures are known: metrics/truth.py
    "own_copies": "own copies %",
    "prompts_returned": "prompts returned %",
    "auroc_of_generations": "AUROC of images",
}


COPIES = {"ams_cumulative": "AMS copies %", "ums_cumulative": "UMS copies %"}
