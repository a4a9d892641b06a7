"""Which number a class has in a model: the one that the data give it, and only where
they give none the place of its name among the sorted ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from membench.datasets.items import Item
from membench.storage.reading import is_text


def number_classes(
    items: Sequence[Item], declared: Sequence[str] = ()
) -> tuple[list[int | None], dict[int, str], str]:
    """(number of each item's class, name by number, why the numbers are not certain or
    "").

    An item's own number counts, then the place of its label among the declared names,
    then a label that is a whole number, so that a class without images shifts no other.
    A number below 0 is no class, as Hugging Face writes what is not known. Labels that
    are plain names are numbered in their order.
    """
    places = {name: n for n, name in reversed(list(enumerate(declared)))}
    places |= {i.label: i.number for i in items if i.label is not None and i.number is not None}
    labels = [i.label if is_text(i.label or "") else None for i in items]
    found = [
        None if label is None else _number(item, label, places)
        for item, label in zip(items, labels, strict=True)
    ]
    bare = {x for x, n in zip(labels, found, strict=True) if x is not None and n is None}
    if not bare:
        names = {n: name for n, name in enumerate(declared) if is_text(name)}
        unclear = ""
        for label, n in zip(labels, found, strict=True):
            if label is None or n is None or n < 0:
                continue
            if names.setdefault(n, label) != label and whole_number(label) is None:
                if whole_number(names[n]) is None:
                    unclear = f"class {n} is called {names[n][:60]!r} and {label[:60]!r}"
                names[n] = label
        return (
            [None if n is None or n < 0 else n for n in found],
            dict(sorted(names.items())),
            unclear,
        )
    numbered = {x for x, n in zip(labels, found, strict=True) if x is not None and n is not None}
    unclear = ""
    if numbered:
        unclear = f"{min(numbered)[:60]!r} has a number of its own, {min(bare)[:60]!r} has none"
    order = sorted(bare | numbered)
    at = {name: n for n, name in enumerate(order)}
    return [None if x is None else at[x] for x in labels], dict(enumerate(order)), unclear


def _number(item: Item, label: str, places: dict[str, int]) -> int | None:
    if item.number is not None:
        return item.number
    return places.get(label, whole_number(label))


def whole_number(text: str) -> int | None:
    """The whole number that a label is; None for a name, and for one of ten digits and
    more, which numbers no class.
    """
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None
