"""What an audit has found, as tables and files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from membench import __version__
from membench.auditing.found import Audit
from membench.auditing.judge import random_share, rate
from membench.auditing.subject import Subject
from membench.auditing.verdict import (
    answer,
    card,
    estimated,
    judged,
    numbers_of,
    ranking,
    sentences,
)
from membench.datasets.collection import Collection
from membench.errors import UserError
from membench.plain import for_spreadsheet
from membench.storage.files import atomic_write, write_json
from membench.storage.images import png_bytes
from membench.storage.provenance import commit, versions
from membench.storage.tables import write_table

SHOWN = 192  # pixels a side of the images in copies.parquet
SCHEMA_VERSION = 1
LISTED = 1000  # training images in audit.json


def refuse_other(folder: Path, model: Subject, data: Collection) -> None:
    """Raises :class:`UserError` where the folder holds the audit of another model or of
    other data, which this one would overwrite: the last names of two folders may agree.
    """
    try:
        held = json.loads((folder / "audit.json").read_bytes())
        weights, name = held["model"]["weights"], str(held["model"]["name"])
        of, place = held["data"]["hash"], str(held["data"]["place"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or not ours
        return
    if weights != model.weights:
        other = f"another model, {name[:200]}"
    elif of != data.hash:
        other = f"other data, {place[:200]}"
    else:
        return
    raise UserError(f"{folder} holds the audit of {other}; choose another --output, or delete it")


def returned_table(audit: Audit) -> pd.DataFrame:
    """A row a training image that came back, nearest first: ``file``, ``copies`` in the
    data, ``times`` it came back ``of`` images of the captions that returned it, the
    ``rate`` with its interval ``low`` and ``high``, ``best`` similarity, ``caption``
    that returned it first, ``own`` (whether one of its own did). Captions stand here
    because they returned it, so where each was asked once there is no rate: it could be
    1 alone.
    """
    j, m = judged(audit), audit.material
    rows = []
    by_training = dict(list(j.images[j.images.counts].groupby("training")))
    for row in j.returned.itertuples():
        several = row.asked_times > row.conditions
        low, high = rate(row.times, row.asked_times) if several else (None, None)
        part = by_training[row.training]
        conditions = [audit.prompts[c] for c in part.condition.unique()]
        own = any(row.training in m.prompts.get(c, ()) for c in conditions)
        rows.append(
            {
                "training_id": m.ids[row.training],
                "file": m.files[row.training][0],
                "copies": m.copies[row.training],
                "times": row.times,
                "of": row.asked_times,
                "rate": row.times / row.asked_times if several else None,
                "low": low,
                "high": high,
                "best": row.best,
                "caption": _words(audit, conditions[0]),
                "captions": row.conditions,
                "own": own,
                "mirror": bool(part.mirrored.any()),
            }
        )
    columns = ["training_id", "file", "copies", "times", "of", "rate", "low", "high", "best"]
    columns += ["caption", "captions", "own", "mirror"]
    return pd.DataFrame(rows, columns=columns, dtype=object)  # a None stays one


def _words(audit: Audit, condition: Any) -> str:
    if condition.prompt:
        return str(condition.prompt)
    if condition.class_label is None:
        return ""
    label = int(condition.class_label)
    return audit.material.data.classes.get(label, f"class {label}")


def copies_table(audit: Audit) -> pd.DataFrame:
    """``copies.parquet``: a row a generated image that is a copy, with both images."""
    j, m = judged(audit), audit.material
    training = m.images()
    rows = []
    for row in j.images[j.images.counts].itertuples():
        condition = audit.prompts[row.condition]
        rows.append(
            {
                "training_id": m.ids[row.training],
                "file": m.files[row.training][0],
                "copies": m.copies[row.training],
                "similarity": row.similarity,
                "asked": row.asked,
                "prompt": _words(audit, condition) or None,
                "own": row.training in m.prompts.get(condition, ()),
                "draw": row.draw,
                "mirror": row.mirrored,
                "image": _small(audit.pictures[int(row.Index)]),
                "training_image": _small(np.asarray(training[row.training])),
            }
        )
    names = ["training_id", "file", "copies", "similarity", "asked", "prompt", "own", "draw"]
    frame = pd.DataFrame(rows, columns=[*names, "mirror", "image", "training_image"])
    return frame.astype({"own": bool, "mirror": bool}).sort_values(
        "similarity", ascending=not audit.space.higher_is_closer, ignore_index=True
    )


def _small(image: np.ndarray) -> bytes:
    shown = Image.fromarray(image)
    shown.thumbnail((SHOWN, SHOWN))
    return png_bytes(np.asarray(shown))


def record(audit: Audit) -> dict[str, Any]:
    """``audit.json``."""
    j, s, data = judged(audit), audit.settings, audit.material.data
    value, ends = estimated(audit)
    hit, asked = random_share(j)
    listed = returned_table(audit)[:LISTED]
    return {
        "schema_version": SCHEMA_VERSION,
        "membench": __version__,
        "commit": commit(),
        "versions": versions(),
        "key": audit.key,
        "answer": answer(audit),
        "sentences": sentences(audit),
        "numbers": {k: None if v != v else v for k, v in numbers_of(audit).items()},
        "model": _subject(audit.model),
        "mirror": _subject(audit.mirror) if audit.mirror else None,
        "data": {
            "place": str(s.data),
            "kind": data.kind,
            "rows": data.rows,
            "different": len(data.ids),
            "compared": len(audit.material.ids),
            "captions": len(audit.material.prompts),
            "hash": data.hash,
            "left_out": [f"{b.name}: {b.why}" for b in data.bad[:LISTED]],
        },
        "similarity": {
            "space": audit.space.id,
            "higher_is_closer": audit.space.higher_is_closer,
            "published": j.published,
            "threshold": j.threshold,
            "tightened_by": j.tightened or None,
            "chance_limit": j.limit,
        },
        "controls": [{**vars(c), "interval": rate(c.within, c.images)} for c in j.controls],
        "mirror_suspect": j.suspect,
        "shared_with_mirror": [audit.material.files[t][0] for t in j.shared],
        "random": {
            "returned": hit,
            "asked": asked,
            "interval": rate(hit, asked) if asked else None,
        },
        "estimate": {"at_least": value, "interval": ends},
        "ranking": ranking(audit),
        "images": {str(k): int(v) for k, v in j.images.groupby("asked").size().items()},
        "returned": listed.to_dict("records"),
        "not_judged": audit.not_judged,
        "warnings": audit.warnings,
        "plan": [list(line) for line in audit.plan],
        "sampling": audit.sampling,
        "seed": s.seed,
        "dtype": s.dtype,
        "budget": s.budget,
        "evaluations": audit.evaluations,
        "seconds": audit.seconds,
        "model_card": card(audit),
    }


def _subject(subject: Subject) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(subject).items()}


def write_outcome(audit: Audit, folder: Path) -> dict[str, Any]:
    """Writes ``audit.json``, ``copies.parquet``, ``returned.csv`` and ``model_card.md``
    into the folder, and returns the first. Raises :class:`UserError` if the disk
    refuses.
    """
    told = record(audit)
    write_table(folder / "copies.parquet", copies_table(audit), "audit_copies")
    text = io.StringIO()
    for_spreadsheet(returned_table(audit)).to_csv(text, index=False, lineterminator="\n")
    _text(folder / "returned.csv", text.getvalue())
    _text(folder / "model_card.md", told["model_card"])
    write_json(folder / "audit.json", told)
    return told


def _text(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
