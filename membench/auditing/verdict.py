"""What an audit has found, as numbers and sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from membench import __version__
from membench.auditing.estimate import total
from membench.auditing.found import Audit
from membench.auditing.judge import (
    GUIDED,
    OWN,
    Judgement,
    flag_of,
    p_values,
    random_share,
    rate,
)
from membench.metrics.unique import Interval


def numbers_of(audit: Audit) -> dict[str, float]:
    """The numbers that ``--fail-on`` may name (``settings.NUMBERS``); NaN: this audit has
    none.
    """
    j = judged(audit)
    hit, asked = random_share(j)
    ranked = ranking(audit)
    return {
        "copies": float(len(j.returned)),
        "captions": float(_returning(j)),
        "share": hit / asked if asked else float("nan"),
        "share_high": rate(hit, asked)[1] if asked else float("nan"),
        "estimate": estimated(audit)[0],
        "flagged": float(ranked["flagged"]) if ranked["unseen"] and ranked["scored"] else np.nan,
    }


def estimated(audit: Audit) -> tuple[float, Interval | None]:
    """How many training images would come back, at least, and the interval."""
    m = audit.material
    return total(judged(audit), len(m.ids), len(m.prompts))


def judged(audit: Audit) -> Judgement:
    """Of an audit that is no dry run."""
    assert audit.judgement is not None, "a dry run has no outcome"
    return audit.judgement


def _own(j: Judgement) -> pd.DataFrame:
    return j.images[j.images.asked.isin(OWN)]


def _asked(j: Judgement) -> pd.DataFrame:
    """The images of the data's own captions, and of unseen ones that a rare word called."""
    images = j.images
    return images[images.asked.isin(OWN) | (images.called & images["copy"])]


def _returning(j: Judgement) -> int:
    images = _asked(j)
    return int(images.condition[images.counts].nunique())


def ranking(audit: Audit) -> dict[str, Any]:
    """How the ranking fares against captions that the model cannot have seen: those
    whose rare words called an image are left out, for they are no chance.
    """
    j = judged(audit)
    unseen = j.images[(j.images.asked == "unseen")]
    called = set(unseen.condition[unseen["copy"] & unseen.called])
    null = np.array([s for i, s in audit.unseen_scores.items() if i not in called])
    scores = {i: s for i, s in audit.scores.items() if s == s}
    null = null[np.isfinite(null)] if len(null) else null
    if not len(null) or not scores:
        return {"scored": len(scores), "unseen": len(null), "flagged": 0, "expected": None}
    values = p_values(np.array(list(scores.values())), null)
    flag, above = flag_of(len(null))
    flagged = {i for i, p in zip(scores, values, strict=True) if p <= flag}
    images = _own(j)
    hit = set(images.condition[images.counts])
    asked = set(images.condition)
    return {
        "scored": len(scores),
        "unseen": len(null),
        "above": above,
        "flagged": len(flagged),
        "expected": round(flag * len(scores), 1),
        "flagged_asked": len(flagged & asked),
        "flagged_returned": len(flagged & hit),
        "others_asked": len(asked - flagged),
        "others_returned": len(hit - flagged),
    }


def answer(audit: Audit) -> str:
    """One or two sentences: what came back."""
    j, numbers = judged(audit), numbers_of(audit)
    n, of = int(numbers["copies"]), len(audit.material.ids)
    made = len(_asked(j))
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
        # Of those the mirror returns, too, some images are copies
        but = " that the mirror does not return, too" if j.shared else ""
        text = (
            f"No training image came back: of {made:,} images that were generated, none is a copy"
            f" of one of the {of:,} training images{but}."
        )
    if j.suspect:
        text += " The mirror may have seen these images, so it does not tell."
    elif n and not any(c.used for c in j.controls):
        text += " There is no control, so chance resemblance is not excluded."
    return text


def sentences(audit: Audit) -> list[str]:
    """What else there is to say of it, a sentence each."""
    j, found = judged(audit), []
    hit, asked = random_share(j)
    if asked:
        low, high = rate(hit, asked)
        found.append(
            f"Of {asked:,} captions taken at random, {hit:,} returned a copy:"
            f" {100 * hit / asked:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of all captions."
        )
    value, ends = estimated(audit)
    plain = "plain images" if (j.images.asked == GUIDED).any() else "all images"
    when, source = (
        ("if every caption were asked once", "Chao and Lin, a lower bound, from random captions")
        if asked
        else ("in the end", f"Chao1, a lower bound, from {plain}")
    )
    if ends:
        found.append(
            f"At least {value:,.0f} [{ends[0]:,.0f}, {ends[1]:,.0f}] training images would come"
            f" back {when} ({source})."
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
        n, more = len(j.shared), " more" if len(j.returned) else ""
        come, they = (
            ("training image comes", "it does") if n == 1 else ("training images come", "they do")
        )
        found.append(
            f"{n:,}{more} {come} back from the mirror, too, which says nothing of this model;"
            f" {they} not count."
        )
    called = int(((j.images.asked == "unseen") & j.images.called & j.images["copy"]).sum())
    if called:
        found.append(
            f"{called:,} images of unseen captions are copies, too: a rare word is enough to call"
            " these training images."
        )
    r = ranking(audit)
    if r["unseen"] and r["scored"]:
        found.append(
            f"{r['flagged']:,} of {r['scored']:,} captions score above {r['above']}"
            f" unseen ones (by chance: {r['expected']:g});"
            f" of {r['flagged_asked']:,} of them that were asked, {r['flagged_returned']:,}"
            f" returned a copy, of {r['others_asked']:,} others {r['others_returned']:,}."
        )
    return found


def card(audit: Audit) -> str:
    """A paragraph for a model card, in Markdown."""
    j, s = judged(audit), audit.settings
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
