"""Options that an audit would not read: refused before any work."""

from __future__ import annotations

from dataclasses import fields

from membench.auditing.settings import Settings, option_of
from membench.auditing.subject import Subject
from membench.errors import UserError

PIXELS_TO = 128  # pixels a side up to which "auto" compares pixels


def refuse_unread(settings: Settings, model: Subject, *, asked: bool) -> None:
    """Raises :class:`UserError` for an option that is not at its default and that nothing
    reads. asked: whether there is something to ask the model: captions or classes.
    """
    defaults = {f.name: f.default for f in fields(Settings)}

    def refuse(names: tuple[str, ...], why: str) -> None:
        for name in names:
            if getattr(settings, name) != defaults[name]:
                raise UserError(f"{option_of(name)} is not read here: {why}; leave it out")

    if not asked:
        why = f"{model.name} is asked nothing"
        refuse(("unseen", "draws", "screen", "guidance"), why)
    elif model.kind != "text":
        refuse(("unseen", "draws", "screen"), f"{model.name} is told classes, no captions")
    if by_pixels(settings, model.side):
        refuse(("similarity_weights",), f"images of {model.side} pixels are compared by pixels")


def by_pixels(settings: Settings, side: int) -> bool:
    """Whether images of so many pixels a side are compared by their pixels."""
    return settings.similarity == "l2" or (settings.similarity == "auto" and side <= PIXELS_TO)
