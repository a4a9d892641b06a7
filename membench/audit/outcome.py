"""What an audit has found, as numbers, sentences and tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from membench import __version__
from membench.audit.audit import Audit
from membench.audit.judge import FLAG, OWN, Judgement, p_values, random_share, rate, total
from membench.plain import for_spreadsheet
from membench.storage.files import atomic_write, write_json
from membench.storage.images import png_bytes
from membench.storage.provenance import commit, versions
from membench.storage.tables import write_table

SHOWN = 192  # pixels a side of the images in copies.parquet
SCHEMA_VERSION = 1
LISTED = 1000  # training images in audit.json


def numbers_of(audit: Audit) -> dict[str, float]:
    """The numbers that ``--fail-on`` may name (``settings.NUMBERS``)."""
    j = _judged(audit)
    hit, asked = random_share(j)
    return {
        "copies": float(len(j.returned)),
        "captions": float(_returning(j)),
        "share": hit / asked if asked else float("nan"),
        "share_high": rate(hit, asked)[1] if asked else float("nan"),
        "estimate": float(total(j)[0]),
        "flagged": float(ranking(audit)["flagged"]),
    }


def _judged(audit: Audit) -> Judgement:
    assert audit.judgement is not None, "a dry run has no outcome"
    return audit.judgement


def _own(j: Judgement) -> pd.DataFrame:
    return j.images[j.images.asked.isin(OWN)]


def _returning(j: Judgement) -> int:
    images = _own(j)
    hit = images["copy"] & ~images.training.isin(j.shared)
    return int(images.condition[hit].nunique())


def ranking(audit: Audit) -> dict[str, Any]:
    """How the ranking fares against captions that the model cannot have seen: those
    whose rare words called an image are left out, for they are no chance.
    """
    j = _judged(audit)
    unseen = j.images[(j.images.asked == "unseen")]
    called = set(unseen.condition[unseen["copy"] & unseen.called])
    null = np.array([s for i, s in audit.unseen_scores.items() if i not in called])
    scores = {i: s for i, s in audit.scores.items() if s == s}
    null = null[np.isfinite(null)] if len(null) else null
    if not len(null) or not scores:
        return {"scored": len(scores), "unseen": len(null), "flagged": 0, "expected": None}
    values = p_values(np.array(list(scores.values())), null)
    # 1 / (1 + m) is the least that m captions can give
    flagged = {
        i for i, p in zip(scores, values, strict=True) if p <= max(FLAG, 1 / (1 + len(null)))
    }
    images = _own(j)
    hit = set(images.condition[images["copy"]])
    asked = set(images.condition)
    return {
        "scored": len(scores),
        "unseen": len(null),
        "flagged": len(flagged),
        "expected": round(max(FLAG, 1 / (1 + len(null))) * len(scores), 1),
        "flagged_asked": len(flagged & asked),
        "flagged_returned": len(flagged & hit),
        "others_asked": len(asked - flagged),
        "others_returned": len(hit - flagged),
    }


def answer(audit: Audit) -> str:
    """One or two sentences: what came back."""
    j, numbers = _judged(audit), numbers_of(audit)
    n, of = int(numbers["copies"]), len(audit.material.ids)
    made = len(_own(j))
    if n:
        word = "caption" if audit.model.kind == "text" else "class"
        told = (
            f", from {int(numbers['captions']):,} {word}"
            f"{'' if numbers['captions'] == 1 else 'es' if word == 'class' else 's'}"
            if audit.material.prompts
            else ""
        )
        text = (
            f"{n:,} of {of:,} training images came back{told}, in {made:,} images that were"
            " generated."
        )
    else:
        text = (
            f"No training image came back: of {made:,} images that were generated, none is a copy"
            f" of one of the {of:,} training images."
        )
    if j.suspect:
        text += " The mirror may have seen these images, so it does not tell."
    elif not any(c.used for c in j.controls):
        text += " There is no control, so chance resemblance is not excluded."
    return text


def sentences(audit: Audit) -> list[str]:
    """What else there is to say of it, a sentence each."""
    j, found = _judged(audit), []
    hit, asked = random_share(j)
    if asked:
        low, high = rate(hit, asked)
        found.append(
            f"Of {asked:,} captions taken at random, {hit:,} returned a copy:"
            f" {100 * hit / asked:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of all captions."
        )
    value, ends = total(j)
    if value and ends:
        found.append(
            f"At least {value:,.0f} [{ends[0]:,.0f}, {ends[1]:,.0f}] training images would come"
            " back if the same were asked for ever (Chao1, a lower bound)."
        )
    if j.limit is not None:
        found.append(
            f"By chance, fewer than {100 * j.limit:.1f} % of images would be called copies (95 %;"
            f" none of {sum(c.images for c in j.controls if c.used):,} images of the controls is)."
        )
    if j.tightened:
        found.append(
            f"A copy is what is nearer than every image of the {j.tightened}: {j.threshold:.3f} in"
            f" place of the published {j.published:g}."
        )
    if j.shared:
        found.append(
            f"{len(j.shared):,} more come back from the mirror, too, which says nothing of this"
            " model; they do not count."
        )
    called = int(((j.images.asked == "unseen") & j.images.called & j.images["copy"]).sum())
    if called:
        found.append(
            f"{called:,} images of unseen captions are copies, too: a rare word is enough to call"
            " these training images."
        )
    r = ranking(audit)
    if r["unseen"]:
        found.append(
            f"{r['flagged']:,} of {r['scored']:,} captions score above all but 1 % of"
            f" {r['unseen']:,} unseen ones (by chance: {r['expected']:g});"
            f" of {r['flagged_asked']:,} of them that were asked, {r['flagged_returned']:,}"
            f" returned a copy, of {r['others_asked']:,} others {r['others_returned']:,}."
        )
    return found


def returned_table(audit: Audit) -> pd.DataFrame:
    """A row a training image that came back, nearest first: ``file``, ``copies`` in the
    data, ``times`` it came back ``of`` images of the captions that returned it, the
    ``rate`` with its interval ``low`` and ``high``, ``best`` similarity, ``caption``
    that returned it first, ``own`` (whether one of its own did).
    """
    j, m = _judged(audit), audit.material
    rows = []
    images = j.images[j.images["copy"] & j.images.asked.isin((*OWN, "unseen"))]
    by_training = dict(list(images.groupby("training")))
    for row in j.returned.itertuples():
        low, high = rate(row.times, row.asked_times)
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
                "rate": row.times / row.asked_times,
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
    return pd.DataFrame(rows, columns=[*columns, "caption", "captions", "own", "mirror"])


def _words(audit: Audit, condition: Any) -> str:
    if condition.prompt:
        return str(condition.prompt)
    if condition.class_label is None:
        return ""
    names = audit.material.data.classes
    label = int(condition.class_label)
    return names[label] if label < len(names) else f"class {label}"


def copies_table(audit: Audit) -> pd.DataFrame:
    """``copies.parquet``: a row a generated image that is a copy, with both images."""
    j, m = _judged(audit), audit.material
    images = j.images[j.images["copy"] & j.images.asked.isin((*OWN, "unseen"))]
    images = images[~images.training.isin(j.shared) & ((images.asked != "unseen") | images.called)]
    training = m.images()
    rows = []
    for row in images.itertuples():
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


def card(audit: Audit) -> str:
    """A paragraph for a model card, in Markdown."""
    j, s = _judged(audit), audit.settings
    controls = " and ".join(f"{c.images:,} images of {c.name}" for c in j.controls if c.used)
    lines = [
        "**Memorization.** "
        + answer(audit)
        + f" Audited with membench {__version__}: {len(_own(j)):,} images"
        + f" ({audit.sampling['steps']} steps, guidance {audit.sampling['guidance']:g}, seed"
        + f" {s.seed}) compared with the training images by {audit.space.id} (a copy:"
        + f" {'≥' if audit.space.higher_is_closer else '≤'} {j.threshold:.3g}),"
        + (f" against {controls}." if controls else " without a control."),
        *sentences(audit)[:2],
        "What was not asked for may come back all the same.",
    ]
    return " ".join(lines) + "\n"


def record(audit: Audit) -> dict[str, Any]:
    """``audit.json``."""
    j, s, data = _judged(audit), audit.settings, audit.material.data
    value, ends = total(j)
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
        "estimate": {"chao1": value, "interval": ends},
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


def _subject(subject: Any) -> dict[str, Any]:
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
