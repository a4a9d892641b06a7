"""A finished run under other bands or another copy threshold, from what it has stored.

No network evaluation, and nothing is written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from membench.errors import UserError
from membench.metrics.complexity import complexity_table
from membench.metrics.intervals import detection_table
from membench.metrics.multiplicity import COPIES, SHARE
from membench.metrics.names import METRICS
from membench.metrics.regions import far_edge, in_region
from membench.metrics.table import extraction_table, long_form
from membench.runs.finished import Run, evaluations
from membench.types import Band, Space

# Made of the stored images, matches and ground truth alone
REMADE = {m.name for m in METRICS if m.board in ("extraction", "images")} - {SHARE, COPIES}


def parse_bands(texts: Sequence[str]) -> tuple[Band, ...]:
    """``["high=0:0.7", "low=1:1.4"]``.

    Raises :class:`UserError` for what cannot be read, is reversed, stands twice or
    overlaps.
    """
    bands = []
    for text in texts:
        name, equals, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        try:
            band = Band(name.strip(), float(low), float(high))
        except ValueError:
            equals = ""
        if not (equals and colon and name.strip()):
            raise UserError(
                f"cannot read --band {text!r}; write --band NAME=LOW:HIGH, such as --band"
                " high=0.6:1"
            )
        if not (math.isfinite(band.low) and math.isfinite(band.high)):
            raise UserError(f"--band {text}: its ends must be finite numbers")
        if band.low > band.high:
            raise UserError(
                f"--band {text} is reversed: write the lower end first, --band"
                f" {band.name}={band.high:g}:{band.low:g}"
            )
        if band.low == band.high:
            raise UserError(f"--band {text} is empty: its ends are the same")
        bands.append(band)
    names = [band.name for band in bands]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--band {twice[0]} stands twice; give each band one name and one range")
    ordered = sorted(bands, key=lambda band: band.low)
    for first, second in itertools.pairwise(ordered):
        if second.low < first.high:
            raise UserError(
                f"bands {first.name} [{first.low:g}, {first.high:g}) and {second.name}"
                f" [{second.low:g}, {second.high:g}) overlap: an image would count twice"
            )
    return tuple(bands)


def rebanded(space: Space, bands: Sequence[Band], copy: float | None) -> Space:
    """The space with other bands (none: its own) and copy threshold.

    Raises :class:`UserError` for one outside the similarity's range.

    The range of a cosine is [-1, 1], of a distance [0, inf). Pairs beyond
    ``space.floor`` are not stored, which AMS can do without and UMS cannot: a band that
    reaches there is refused.
    """
    least, most = (-1.0, 1.0) if space.higher_is_closer else (0.0, math.inf)
    values = [
        (f"--band {band.name}={band.low:g}:{band.high:g}", end)
        for band in bands
        for end in (band.low, band.high)
    ]
    for what, value in [*values, *([] if copy is None else [(f"--copy {copy:g}", copy)])]:
        if not least <= value <= most:
            span = "-1 to 1" if space.higher_is_closer else "0 and more"
            raise UserError(f"{what}: {value:g} lies outside the range of {space.id}, {span}")
        if (value < space.floor) if space.higher_is_closer else (value > space.floor):
            raise UserError(
                f"{what}: pairs beyond {space.floor:g} of {space.id} are not stored, so {value:g}"
                " cannot be counted"
            )
    return replace(
        space, bands=tuple(bands) or space.bands, copy=space.copy if copy is None else copy
    )


def rescored(run: Run, bands: Sequence[Band], copy: float | None) -> Run:
    """The run as if its task had had these bands (none: its own) and this copy
    threshold (None: its own).

    Extraction is counted anew. Where the copy threshold changes, so do the labels of
    examples that are images (:func:`relabelled`), and detection with them;
    ``extracted_share`` and ``copies_per_image`` fall away: which training image is
    of which kind is not stored. Raises UserError for bands that the run's similarity cannot
    have.
    """
    space = rebanded(run.space, bands, copy)
    if space == run.space:
        return run
    samples, matches = run.found()
    seed, metrics, scores = run.info["seed"], run.metrics, run.scores
    spent = evaluations(run, "prepare", "samples")
    new = extraction_table(samples, matches, space, run.examples, evaluations=spent, seed=seed)
    # Also what cannot be made anew, such as an AUROC of images that all are copies now
    kept = ~metrics.metric.isin([*REMADE, *(row.name for row in new)])
    if space.copy != run.space.copy:
        kept &= ~metrics.metric.isin([SHARE, COPIES])
        if scores.similarity.notna().any():
            scores = relabelled(scores, space)
            detected = _detected(scores, seed)
            kept &= ~metrics.metric.isin([row.name for row in detected]) & ~metrics.metric.isin(
                metrics.metric[_of_labels(metrics)]
            )
            new = [*detected, *new]
    table = pd.concat([metrics[kept], long_form(new)], ignore_index=True)
    return replace(run, info=run.info | {"space": asdict(space)}, scores=scores, metrics=table)


def relabelled(scores: pd.DataFrame, space: Space) -> pd.DataFrame:
    """Scores with the labels of examples that are images made anew: memorized where the
    nearest training image is a copy in this space.

    One that becomes a copy has the kind of the examples that were copies of the same
    image ("copy" where there are none: the kind of an image is not stored) and the
    group of its image. One that ceases to be is "novel", a "near miss" within the
    space's loosest band and "far" beyond it, in a group apart from that image's
    copies. Examples without a similarity, or a label, keep all.
    """
    known = scores.similarity.notna().to_numpy()
    kinds = scores[known & (scores.label == 1)].drop_duplicates("nearest").set_index("nearest").kind
    edges = [far_edge(space, band) for band in space.bands]
    near = np.zeros(len(scores), dtype=bool)
    near[known] = in_region(
        scores.similarity[known].to_numpy(),
        space,
        min(edges) if space.higher_is_closer else max(edges),
    )
    copied = np.zeros(len(scores), dtype=bool)
    copied[known] = in_region(scores.similarity[known].to_numpy(), space, space.copy)
    gained, lost = known & copied & (scores.label == 0), known & ~copied & (scores.label == 1)
    new = scores.copy()
    new["label"] = np.where(gained | lost, copied, scores.label).astype(scores.label.dtype)
    new.loc[gained, "kind"], new.loc[lost, "kind"] = (
        scores.nearest[gained].map(kinds).fillna("copy"),
        "novel",
    )
    new.loc[gained, "source"], new.loc[lost, "source"] = (
        "pool",
        np.where(near[lost], "near miss", "far"),
    )
    new.loc[gained, "group"] = scores.group[gained].str.removeprefix("not ")
    new.loc[lost, "group"] = "not " + scores.group[lost]
    return new


def _of_labels(metrics: pd.DataFrame) -> pd.Series:
    return metrics.metric.str.match("auroc|average_precision|tpr_at_fpr|balanced_accuracy")


def _detected(scores: pd.DataFrame, seed: int) -> list:
    labelled = scores[(scores.label >= 0) & (scores.status == "ok")]
    rows = detection_table(labelled, seed=seed) if labelled.label.nunique() == 2 else []
    return [*rows, *complexity_table(scores, seed=seed)]
