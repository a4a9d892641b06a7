"""Whether a run folder says one thing: its run.json, the key, and its tables.

What does not is left out of every board, and named.

A folder may come from anybody, and copying files between folders is an easy mistake.
Every field that a table or page reads has its type checked here, so that nothing beyond
needs to; what is stored twice must be equal; and the main numbers are computed again
from the scores and matches beside them. Somebody who forges all of it alike is not
found out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from membench.metrics.detection import of_kind
from membench.metrics.extraction import extraction_metrics
from membench.metrics.intervals import weighted_statistics
from membench.storage.hashing import json_hash
from membench.types import Space

# Status of an image where no training image is at hand: it is not a failure, and no
# metric counts it
NOT_COMPARED = "not compared"

# Between a stored metric and the same computed again: similarities are stored in single
# precision
TOLERANCE = 1e-6


def check_tables(info: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], space: Space) -> None:
    """Raises ValueError, in a few words, for tables that are not those of ``info`` (of
    :func:`check_info`), or not of one another.

    tables: scores, samples, matches and metrics, as ``stored.read_run`` reads them; the
    images themselves are not looked at.
    """
    scores, samples = tables["scores"], tables["samples"]
    _check_scores(info, scores)
    _check_owners(info.get("owners", {}))
    good = _check_samples(info, samples)
    if len(good) and not space.bands:
        raise ValueError("it compares images, and its space has no bands")
    matches = _check_matches(tables["matches"], good, space)
    evaluations = evaluations_of_images(info["phases"])
    _check_metrics(tables["metrics"], _computed(scores, matches, len(good), space, evaluations))


def evaluations_of_images(phases: Mapping[str, Mapping[str, Any]]) -> int:
    """Evaluations of the target of preparation and extraction, of the costs of a run's
    phases; a Jacobian-vector product is one, too.
    """
    of_images = [phases.get(phase, {}) for phase in ("prepare", "samples")]
    return sum(int(of.get(kind, 0)) for of in of_images for kind in ("forwards", "jvps"))


def _check_scores(info: Mapping[str, Any], scores: pd.DataFrame) -> None:
    rows = 0 if info.get("extract_only") else info["n_examples"]
    if len(scores) != rows:
        raise ValueError(f"it holds {len(scores):,} scores, and its run.json says {rows:,}")
    if rows and json_hash(sorted(scores.id)) != info["key_parts"]["examples"]:
        raise ValueError("its scores are of other examples than its key says")
    good = scores.status == "ok"
    if (~good).sum() != info["failed"]["scores"]:
        raise ValueError("it holds another number of failed scores than its run.json says")
    if not np.isfinite(scores.score[good]).all() or not scores.label.isin((-1, 0, 1)).all():
        raise ValueError("it holds a score that is not a number, or a label other than 1, 0 and -1")
    if (
        not (np.isfinite(scores.png_bits) | scores.png_bits.isna()).all()
        or (scores.png_bits < 0).any()
    ):
        raise ValueError("it holds an image size that is not a size")
    labelled = scores[good & (scores.label >= 0)]
    if (labelled.groupby("group").label.nunique() > 1).any():
        raise ValueError("it holds a group of examples with both labels")


def _check_owners(owners: Any) -> None:
    if not isinstance(owners, dict) or not all(
        isinstance(of, list) and len(of) == 2 and all(isinstance(word, str) for word in of)
        for of in owners.values()
    ):
        raise ValueError("its run.json says of an example no group and kind")


def _check_samples(info: Mapping[str, Any], samples: pd.DataFrame) -> pd.DataFrame:
    """The images that did not fail."""
    if len(samples) != info["n_images"]:
        raise ValueError(
            f"it holds {len(samples):,} images, and its run.json says {info['n_images']:,}"
        )
    if (samples.sample_id != samples.condition + "/" + samples.draw.astype(str)).any():
        raise ValueError("it holds an image whose id is not that of its condition and draw")
    good = samples[samples.status == "ok"]
    if (
        len(samples) - len(good) - (samples.status == NOT_COMPARED).sum()
        != info["failed"]["samples"]
    ):
        raise ValueError("it holds another number of failed images than its run.json says")
    if not np.isfinite(good.confidence).all():
        raise ValueError("it holds a confidence that is not a number")
    return good


def _check_matches(matches: pd.DataFrame, good: pd.DataFrame, space: Space) -> pd.DataFrame:
    """The matches, with the row of the image of each."""
    at = pd.Index(good.sample_id.astype(object)).get_indexer(matches.sample_id.astype(object))
    found = matches.assign(generated=at.astype(np.int32))
    first = found[found["rank"] == 0]
    if (at < 0).any() or not np.array_equal(np.sort(first.generated), np.arange(len(good))):
        raise ValueError("its matches are not of its images, each with one nearest training image")
    if (
        found.duplicated(["generated", "training"]).any()
        or (found.training < 0).any()
        or (found["rank"] < 0).any()
    ):
        raise ValueError("its matches name a pair twice, or a training image below 0")
    named = found[["training", "training_id"]].drop_duplicates()
    if named.training.duplicated().any() or named.training_id.duplicated().any():
        raise ValueError("its matches call one training image by two names")
    low, high = (-1.0, 1.0) if space.higher_is_closer else (0.0, np.inf)
    within = found.similarity.between(low, high) & np.isfinite(found.similarity)
    if not within.all():
        raise ValueError(f"its matches hold a similarity outside [{low:g}, {high:g}], or no number")
    return found


Row = tuple[str, str, str]  # metric, band ("" without one), subset


def _computed(
    scores: pd.DataFrame, matches: pd.DataFrame, images: int, space: Space, evaluations: int
) -> dict[Row, float]:
    """The metrics of detection, of all examples and of each part, and of extraction of
    all images.
    """
    found: dict[Row, float] = {}
    rows = scores[(scores.status == "ok") & (scores.label >= 0)]
    positive = (rows.label == 1).to_numpy()
    parts = {"all": np.ones(len(rows), dtype=bool)}
    parts |= {
        f"kind={kind}": of_kind(rows.label, rows.kind, kind)
        for kind in rows.kind[positive].unique()
    }
    parts |= {
        f"source={source}": positive | (rows.source == source).to_numpy()
        for source in rows.source[~positive].unique()
    }
    for subset, part in parts.items() if 0 < positive.sum() < len(rows) else ():
        weights = np.ones((1, int(part.sum())), dtype=np.int64)
        of = weighted_statistics(
            rows.score[part].to_numpy(), rows.label[part].to_numpy().astype(int), weights
        )
        found |= {(name, "", subset): float(values[0]) for name, values in of.items()}
    if images:
        metrics = extraction_metrics(matches, images, space, evaluations=evaluations or None)
        found |= {
            (m.name, m.band or "", "all"): m.value
            for m in metrics
            if m.value is not None and m.name != "rarefaction"
        }
    return found


def _check_metrics(metrics: pd.DataFrame, computed: Mapping[Row, float]) -> None:
    """Every stored value that was computed again is equal to it; a TPR that the
    negatives cannot support is stored without a value.
    """
    if (metrics.low > metrics.high).any():
        raise ValueError("its metrics hold an interval that ends below where it begins")
    names = zip(metrics.metric, metrics.band.fillna(""), metrics.subset, strict=True)
    seen = set()
    for row, value in zip(names, metrics.value, strict=True):
        if row[0] == "rarefaction":
            continue
        if row in seen:
            raise ValueError(f"its metrics hold {' '.join(filter(None, row))} twice")
        seen.add(row)
        name, again = " ".join(filter(None, row)), computed.get(row)
        if again is None and row[0] in COMPUTED:
            raise ValueError(f"its metrics hold {name}, which its tables do not support")
        if (
            again is not None
            and not math.isnan(value)
            and not math.isclose(value, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        ):
            raise ValueError(
                f"its metrics are not those of its tables: {name} is {value:.6g}, not {again:.6g}"
            )
    if missing := sorted(row for row in computed if row not in seen):
        raise ValueError(f"its metrics lack {' '.join(filter(None, missing[0]))}")


COMPUTED = ("auroc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")
