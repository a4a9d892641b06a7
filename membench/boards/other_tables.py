"""What the columns hold of tables that are no leaderboards: those of a run's folder, of
tuning and of a sweep.
"""

from __future__ import annotations

#: By file of a run's folder: what a row is, and by column what it holds.
RUN_COLUMNS: dict[str, tuple[str, dict[str, str]]] = {
    "scores": (
        "one row an example",
        {
            "id": "id of the example, made from its content",
            "score": "higher is more memorized; missing where it failed",
            "label": "1 memorized, 0 not, -1 nothing says",
            "kind": "how the example was planted, or what published it",
            "group": "near-duplicate examples, which are resampled together",
            "source": "where the example is from: a half, a prompt set",
            "prompt": "caption; missing where the example is an image",
            "status": "ok, or failed",
            "error": "why it failed",
            "png_bits": (
                "size in bits of the example's PNG; of a prompt, mean over the images extracted"
                " for it"
            ),
            "similarity": (
                "of a generated image: similarity or distance to its nearest training image, from"
                " which its label was made"
            ),
            "nearest": "id of that training image",
        },
    ),
    "samples": (
        "one row an extracted image",
        {
            "sample_id": "id of the image within the run",
            "condition": (
                "what the model was told: id of a prompt of scores.parquet, class/N, unconditional"
            ),
            "draw": "number of the image among those of its condition",
            "prompt": "caption that it was generated from",
            "confidence": "higher is more surely a copy, as the attack says itself",
            "status": "ok, or failed",
            "image": "PNG bytes; missing where it failed",
            "truth_similarity": (
                "similarity or distance to the nearest training image of its own prompt, where"
                " these are at hand"
            ),
            "truth_label": "1 where that is a copy, 0 where not",
        },
    ),
    "matches": (
        (
            "one row a pair of an extracted and a training image: each within the floor of the"
            " similarity, and the nearest of each image"
        ),
        {
            "sample_id": "of samples.parquet",
            "training_id": "id of the training image",
            "training": "its number among the different training images, from 0",
            "similarity": "as it is: of a distance, low is near (space in run.json says which)",
            "rank": "0: the nearest training image of this image",
        },
    ),
    "metrics": (
        "one row a number",
        {
            "metric": "name, as in the last table",
            "band": "band of similarity; missing: not of a band, or all copies",
            "threshold": (
                "where it was cut: a similarity or distance, a false-positive rate, a score; of"
                " auroc_complexity_matched the number of classes of size"
            ),
            "subset": (
                "all; kind=KIND: memorized examples of that kind against the others of that kind"
                " (against all where there are none), images generated for that kind, or, of"
                " extracted_share and copies_per_image, training images of it; source=SOURCE:"
                " against the negatives of that source"
            ),
            "value": "missing where the data cannot support it",
            "low": "lower end of the 95 % interval; missing where there is none",
            "high": "upper end of it",
            "n": (
                "examples or images that it is computed from; of rarefaction the number of images"
                " that it is a prediction for"
            ),
        },
    ),
    "nearest": (
        "one row a training image that report.html shows",
        {"training_id": "of matches.parquet", "image": "PNG bytes, made smaller where large"},
    ),
    "quality": (
        "one row a number of --quality",
        {
            "metric": "name, and behind @ the features",
            "value": "the number",
            "error": "standard error; missing where there is none",
            "n": "generated images",
            "reference": "images that they are compared with",
        },
    ),
}

#: Of ``membench tune``, a row a try.
TUNED = {
    "task": "task",
    "detector": "detector",
    "number": "of the try, from 0: the defaults",
    "options": "all that were set",
    "auroc": "mirrored AUROC: mean of the two models of the development world",
    "low": "lower end of its 95 % interval",
    "high": "upper end of it",
    "auroc_a": "AUROC of the model of half a",
    "auroc_b": "AUROC of the model of half b",
    "tpr": "TPR at 1 % FPR, mean of the two models",
    "evaluations": "evaluations of the network for an example, mean",
    "n": "examples of both halves that both runs have scored",
    "status": "complete, partial (--limit, or failed examples), or refused",
    "error": "why the try was refused",
    "command": "what runs the same options on another world",
    "chosen": "whether it is its detector's highest auroc; of equal ones the first",
}

#: Of ``membench ablate --sweep``, a row a point, seed, model, metric and band.
SWEPT = {
    "seed": "seed of the run",
    "control": "whether the model is the control, which never saw the examples",
    "metric": "name, as in the last table",
    "band": "band of similarity; missing: not of a band, or all copies",
    "threshold": "where it was cut, as in metrics.parquet",
    "value": "missing where the data cannot support it",
    "low": "lower end of the 95 % interval; missing where there is none",
    "high": "upper end of it",
    "n": "examples or images that it is computed from",
    "forwards": "evaluations of the network in preparation and extraction",
    "jvps": "Jacobian-vector products there",
    "seconds": "wall-clock time of the run, all sessions",
    "run": "folder of the run",
    "status": "complete, partial (--limit, or failed examples), or refused",
    "error": "why the point was refused",
}

#: Of ``membench ablate`` without a sweep, after the first columns of ``--by run`` up to
#: ``settings``: a row a run, metric and region of thresholds.
THRESHOLDS = {
    "seed": "seed of the run",
    "status": "complete, or partial (--limit, or failed examples)",
    "higher_is_closer": "true of a similarity, false of a distance",
    "copy": "the task's own threshold of a copy",
    "metric": (
        "ams, ums, ums_nearest, or ums_equal_n: ums of as many images as the run of the board that"
        " has the fewest"
    ),
    "form": "cumulative or banded",
    "alpha": "lowest similarity; missing of a cumulative distance",
    "beta": "highest one, or largest distance; missing of a cumulative similarity",
    "value": "share of images (ams), different training images over images (ums)",
    "low": "lower end of the 95 % interval; missing where there is none",
    "high": "upper end of it",
    "n": "images that it is computed from",
}

#: Of ``membench ablate --sweep TASK.OPTION``, after the columns of ``--by seeds``; those
#: of ``NAME-auroc.parquet`` are of ``--by kind``.
CLIMBED = {
    "swept": "the task's option",
    "value": "its value",
    "base": (
        "base rate: share of copies among plain unconditional images of that model; missing in"
        " NAME-auroc where none were drawn"
    ),
    "base_low": "lower end of its 95 % interval; not in NAME-auroc",
    "base_high": "upper end of it; not in NAME-auroc",
}
