"""Every example of a run, to be looked up: its score, its images, and the nearest
training image; and those that the detector has most wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from membench.reports.gallery import as_base64, extracted, measure_word
from membench.reports.kinds import kind_name
from membench.reports.run_plots import LABELS
from membench.runs.finished import Run
from membench.runs.nearest import WRONG, mistakes

SHOWN = 4  # images of an example in the table
THUMB, CARD = 44, 128  # pixels
MOST_THUMBS = 600  # in the table, about 7 kB each, so that the page stays below 10 MB
MOST_ROWS = 5000


@dataclass(frozen=True)
class Cell:
    """sort: what a column is sorted by, where that is not the text; empty: the text.
    images: (base64 of a picture, what it is).
    """

    text: str
    sort: str = ""
    images: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Examples:
    """header: (title, whether it holds numbers, whether its few values are offered to
    choose from). rows: highest score first.
    """

    header: Sequence[tuple[str, bool, bool]]
    rows: Sequence[Sequence[Cell]]
    note: str


@dataclass(frozen=True)
class Card:
    """An example that the detector has wrong."""

    text: str
    about: str
    images: Sequence[tuple[str, str]]


def examples(run: Run, frame: pd.DataFrame, stored: Mapping[str, bytes]) -> Examples | None:
    """The table of all scored examples; None without any.

    frame: of ``nearest.frame_of``, images nearest first. stored: of ``stored_nearest``.
    """
    good = _ranked(run)
    if good.empty:
        return None
    has_images = len(frame) > 0
    # Of the rows that are shown alone: a frame for each example of a large run takes
    # more memory than making the run did
    of_shown = frame[frame.condition.isin(good.id[:MOST_ROWS])]
    by_example = dict(tuple(of_shown.groupby("condition", sort=False)))
    header = [("rank", True, False), ("example", False, False), ("label", False, True)]
    header += [("kind", False, True), ("score", True, False)]
    if has_images:
        word = measure_word(run.space)
        header += [(f"nearest {word}", True, False), ("copies", True, False)]
        header += [("images", False, False), ("nearest training image", False, False)]
    rows, left, seen = [], MOST_THUMBS, []
    for r in good[:MOST_ROWS].itertuples():
        own = _own(r, stored, THUMB)
        row = [
            Cell(f"{r.place:,}", str(r.place)),
            Cell(_text(r), images=own),
            Cell(LABELS[int(r.label)]),
            Cell(kind_name(r.kind)),
            Cell(f"{r.score:.4g}", repr(float(r.score))),
        ]
        if has_images:
            mine = by_example.get(r.id, frame[:0])
            shown = mine[: max(0, min(SHOWN, left))]
            left -= (len(shown) + 1) * (len(mine) > 0)
            seen.append((row, mine, shown))
        rows.append(row)
    every = frame.loc[[at for _, _, shown in seen for at in shown.index]]
    thumbs = dict(zip(every.index, extracted(every, THUMB), strict=True))  # each file read once
    for row, mine, shown in seen:
        row += _image_cells(mine, [thumbs[at] for at in shown.index], stored)
    return Examples(header, rows, _note(len(good), has_images, left))


def compared(settings: Mapping[str, Sequence[Run]]) -> Examples | None:
    """Every example of a board with its score under each detector, of its lowest seed;
    None where fewer than two have scored.

    Highest mean rank first, as the scores themselves do not compare. settings: of
    ``board_plots.settings_of``.
    """
    scored = {name: good for name, (run, *_) in settings.items() if len(good := _ranked(run))}
    if len(scored) < 2:
        return None
    about = pd.concat(scored.values()).drop_duplicates("id").set_index("id")
    score = pd.DataFrame({name: good.set_index("id").score for name, good in scored.items()})
    order = score.rank(pct=True).mean(axis=1).sort_values(ascending=False, kind="stable").index
    header = [("place", True, False), ("example", False, False), ("label", False, True)]
    header += [("kind", False, True), *((name, True, False) for name in score)]
    rows = []
    for place, id_ in enumerate(order[:MOST_ROWS], 1):
        r = about.loc[id_]
        row = [Cell(f"{place:,}", str(place))]
        row += [Cell(r.prompt if isinstance(r.prompt, str) else str(id_))]
        row += [Cell(LABELS[int(r.label)]), Cell(kind_name(r.kind))]
        for value in score.loc[id_]:
            row.append(Cell("n/a") if math.isnan(value) else Cell(f"{value:.4g}", repr(value)))
        rows.append(row)
    note = "Highest mean rank over the detectors first; of each its lowest seed."
    if len(order) > MOST_ROWS:
        note += f" {MOST_ROWS:,} of {len(order):,} examples."
    return Examples(header, rows, note)


def _note(count: int, images: bool, left: int) -> str:
    note = "Highest score first."
    if images:
        note += f" Images: of each example the {SHOWN} nearest to a training image."
        if left < 0:
            note += f" The page holds about {MOST_THUMBS:,} of them; further down there are none."
    if count > MOST_ROWS:
        note += f" {MOST_ROWS:,} of {count:,} examples; scores.parquet has all."
    return note


def _image_cells(
    mine: pd.DataFrame, thumbs: Sequence[str], stored: Mapping[str, bytes]
) -> list[Cell]:
    """thumbs: of the example's own images, none where the page has no room left."""
    if mine.empty:
        return [Cell(""), Cell(""), Cell("none"), Cell("")]
    first = mine.iloc[0]
    training = as_base64(stored.get(first.training_id), THUMB) if thumbs else ""
    beside = [(training, "training image")] if training else []
    return [
        Cell(f"{first.similarity:.3f}", repr(float(first.similarity))),
        Cell(f"{int(mine.copied.sum())} of {len(mine)}", str(int(mine.copied.sum()))),
        Cell("", str(len(mine)), [(image, "generated") for image in thumbs if image]),
        Cell(str(first.training_id), images=beside),
    ]


def wrong(
    run: Run,
    frame: pd.DataFrame,
    stored: Mapping[str, bytes],
    *,
    most: int = WRONG,
    side: int = CARD,
) -> list[tuple[str, str, list[Card]]]:
    """(title, note, cards) of the false alarms and of the misses, at most ``most`` each,
    worst first; empty where the run has no examples of both labels. side: of the
    pictures, in pixels.
    """
    good = _ranked(run)
    if not {0, 1} <= set(good.label):
        return []
    place = good.set_index("id").place
    alarms, misses = (rows[:most] for rows in mistakes(run.scores))
    notes = (
        "Not memorized, yet with the highest scores.",
        f"Memorized, yet with the lowest scores.{_missed(run, good)}",
    )
    nearest = frame[frame.condition.isin([*alarms.id, *misses.id])].drop_duplicates("condition")
    nearest = nearest.assign(generated=extracted(nearest, side))
    found = []
    for title, note, rows in zip(("False alarms", "Misses"), notes, (alarms, misses), strict=True):
        cards = []
        for r in rows.itertuples():
            # A kind alone would not say it: of what the mirror model has seen, it is "TV"
            about = f"{LABELS[int(r.label)]} · {kind_name(r.kind)} · score {r.score:.4g}"
            about += f" · rank {place[r.id]:,} of {len(good):,}"
            mine = nearest[nearest.condition == r.id]
            pictures = _pictures(r, mine, stored, side)
            cards.append(Card(_text(r), about, pictures))
        found.append((title, note, cards))
    return found


def _missed(run: Run, good: pd.DataFrame) -> str:
    m = run.metrics
    tpr = m[(m.metric == "tpr_at_fpr_0.01") & (m.subset == "all") & m.band.isna()].value
    if not len(tpr) or not math.isfinite(tpr.iloc[0]):
        return ""
    many = int((good.label == 1).sum())
    return f" At 1 % false alarms {round((1 - tpr.iloc[0]) * many):,} of {many:,} are missed."


def _pictures(row: object, mine: pd.DataFrame, stored: Mapping[str, bytes], side: int) -> list:
    found = list(_own(row, stored, side))
    for r in mine.itertuples():
        found.append((r.generated, "generated"))
        found.append((as_base64(stored.get(r.training_id), side), "its nearest training image"))
    return [pair for pair in found if pair[0]]


def _ranked(run: Run) -> pd.DataFrame:
    """The scored examples, highest first, ties by id, with ``place`` from 1."""
    good = run.scored.sort_values(["score", "id"], ascending=[False, True], ignore_index=True)
    return good.assign(place=good.index + 1)


def _text(row: object) -> str:
    """The caption; of an example that is an image its id."""
    return row.prompt if isinstance(row.prompt, str) else str(row.id)  # type: ignore[attr-defined]


def _own(row: object, stored: Mapping[str, bytes], side: int) -> list[tuple[str, str]]:
    """The example itself, where it is an image that the run has stored."""
    picture = as_base64(stored.get(row.id), side)  # type: ignore[attr-defined]
    return [(picture, "the example")] if picture else []
