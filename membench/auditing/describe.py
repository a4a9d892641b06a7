"""The plan of an audit in words."""

from __future__ import annotations

from collections.abc import Sequence

from membench.auditing.found import Audit
from membench.auditing.guided import MOST
from membench.auditing.judge import GUIDED
from membench.similarity.spaces import pixel_space
from membench.types import Condition

# Training images below which the 50 nearest, which scale Carlini's distance, are all
# kinds of images
FEW = 200


def describe(found: Audit, unseen: Sequence[Condition], evaluations: int, price: int) -> None:
    """Fills the plan of an audit, and what is known beforehand not to be judged.

    evaluations: what the budget is worth. price: evaluations for an image.
    """
    m, model, data, how = found.material, found.model, found.material.data, found.sampling
    told = {
        "text": "told a caption",
        "class": f"told one of {model.embeddings} classes",
        "unconditional": "told nothing",
    }[model.kind]
    repeated = [n for n in m.copies if n > 1]
    near = "not searched" if m.near is None else f"{m.near:,}"
    found.plan = [
        ("model", f"{model.name}, {told}, {model.side}x{model.side} pixels"),
        ("mirror", found.mirror.name if found.mirror else "none"),
        ("data", f"{data.kind}, {data.rows:,} images, {len(data.ids):,} different"),
        ("size of the images", f"{data.size[0]}x{data.size[1]}"),
        ("near-duplicates", near),
        ("left to compare with", f"{len(m.ids):,} training images"),
        (
            "shown more than once",
            f"{len(repeated):,}" + (f", up to {max(m.copies)} times" if repeated else ""),
        ),
        ("captions" if model.kind == "text" else "classes", f"{len(m.prompts):,}"),
        ("unseen captions", f"{len(unseen):,}"),
        ("left out", f"{len(data.bad):,}"),
        ("compared by", found.space.id),
        ("sampling", f"DDIM, {how['steps']} steps, guidance {how['guidance']:g}"),
        ("budget", f"{evaluations:,} evaluations"),
        ("images that it pays for", f"at most {evaluations // price:,}, {price} each"),
    ]
    if found.settings.attack == GUIDED:
        guided = f"side: up to {MOST:,} of them plain, for the surrogate; the rest guided"
        found.plan.append(("attack", guided))
    lines = found.not_judged
    if data.bad:
        shown = "; ".join(f"{b.name} ({b.why})" for b in data.bad[:3])
        more = f" and {len(data.bad) - 3:,} more" if len(data.bad) > 3 else ""
        what = "image or row" if len(data.bad) == 1 else "images or rows"
        lines.append(f"{len(data.bad):,} {what} that cannot be read: {shown}{more}")
    if m.near is None:
        lines.append("near-duplicates: too many images to search; equal images are one")
    if len(m.ids) < FEW and found.space == pixel_space(model.side):
        lines.append(
            "likeness: the distance is relative to the 50 nearest training images, and there are"
            f" only {len(m.ids):,}, so a mere likeness may be called a copy; look at the pairs"
        )
    if m.too_long:
        lines.append(f"{m.too_long:,} captions that are too long")
    if model.kind == "text" and not m.prompts:
        lines.append(
            "captions: the data have none, so the model is asked the empty prompt alone; give"
            " --captions FILE"
        )
    elif model.kind == "text" and (bare := sum(not c for c in m.captions)):
        lines.append(f"{bare:,} training images without a caption: nothing asks for them")
    if found.mirror is None and not unseen:
        lines.append("false alarms: there is no control; give --mirror")
