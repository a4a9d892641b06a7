"""The catalogue world: seeded drawings of shop products with alt-text captions (mini
``sd_webster``).

Webster (2023, arXiv 2305.08694) found that Stable Diffusion memorizes product
catalogues: the same image under one caption (MV), one layout with changing textures
under many captions (TV), and captions that return the image of another pair (RV).
This module draws such a world, so that all of it is known for certain. Everything is
integer arithmetic on numpy's frozen ``RandomState`` streams (NEP 19), so that a half
has the same bytes on every platform; a test holds its content hash.

Three disjoint *splits* share the grammar, the palette and nothing else (no series name,
no image): ``a`` trains the model, ``b`` the control model, ``public`` the tokenizer and
the VAE that both use. Other worlds have halves of their own and the same public split;
their halves share no caption and no image with it or with another world's, but a few
names of series occur twice by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from .products import (
    BACKDROPS,
    COLOURS,
    DRAW,
    PATTERNS,
    PRODUCTS,
    WORLD_VERSION,
    Look,
    draw,
    pick,
    stream,
)

BRANDS = (
    "Orvella", "Norlund", "Casamia", "Tavish", "Brightlane", "Solmara", "Hearthco",
    "Pellworth", "Ardenne", "Lumora", "Wexford", "Marlowe", "Fenwick", "Alpina",
    "Rosedale", "Kestrel",
)  # fmt: skip

SUFFIXES = (
    "5x8", "8x10", "2x3", "Small", "Medium", "Large", "Set of 2", "Set of 4",
    "by Studio Nine", "by Anna Weir", "by Leo Hart", "in Matte", "in Gloss",
    "Home Decor", "Gift Idea", "New Season", "Online Sale", "Free Shipping",
)  # fmt: skip

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]

# What is planted in each half. A line is a product line: captions that share brand,
# series and product.
N_MV, N_TV_LINES, N_RV_LINES = 120, 28, 35
TV_CAPTIONS, RV_CAPTIONS = 5, 4  # examples per line
DUPLICATES = 40  # training rows of one memorized image (or of one template)
N_EXTRA_SINGLETONS = 1000
N_PUBLIC = 6000

# Of each world's possible deals, the first whose captions' wording is balanced between
# labels (rerandomization, Morgan and Rubin 2012; benchmarks/text_balance.py). Chosen on
# captions alone, before any model was trained. 0 is the development world.
DEALS = {0: {"a": 3, "b": 3}, 1: {"a": 12, "b": 1}, 2: {"a": 1, "b": 9}}


@dataclass(frozen=True)
class Entry:
    """One caption with the image it shows, and how many training rows it has (0: held
    out).
    """

    caption: str
    look: Look
    # MV, TV, RV, line (a duplicated row of a TV or RV line that is not an example), N,
    # held_out, extra
    kind: str
    group: str  # the series name: captions of one line share it
    copies: int
    example: bool


@dataclass
class Split:
    """One split of a world: captions, ``uint8`` images [n, 64, 64, 3] and training
    multiplicities. number: the world's.
    """

    name: str
    entries: list[Entry] = field(default_factory=list)
    number: int = 0

    def images(self) -> np.ndarray:
        """All images, in the order of ``entries``: ``uint8`` [n, 64, 64, 3]."""
        drawn: dict[Look, np.ndarray] = {}
        for e in self.entries:
            if e.look not in drawn:
                drawn[e.look] = draw(e.look)
        return np.stack([drawn[e.look] for e in self.entries])

    def examples(self) -> Iterator[tuple[int, Entry]]:
        return ((i, e) for i, e in enumerate(self.entries) if e.example)

    def content_hash(self) -> str:
        """SHA-256 over captions, kinds, multiplicities and pixels."""
        return self._hash(np.ascontiguousarray(image).tobytes() for image in self.images())

    def entries_hash(self) -> str:
        """The same over what is drawn in place of the pixels: without drawing it."""
        return self._hash(repr(e.look).encode() for e in self.entries)

    def _hash(self, shown: Iterable[bytes]) -> str:
        number = f" {self.number}" if self.number else ""
        h = hashlib.sha256(f"catalogue {WORLD_VERSION} {self.name}{number}".encode())
        for e, of in zip(self.entries, shown, strict=True):
            h.update(f"{e.caption}\t{e.kind}\t{e.group}\t{e.copies}\t{e.example}\n".encode())
            h.update(of)
        return h.hexdigest()


# ----------------------------------------------------------------------------- captions


def _series(rng: np.random.RandomState) -> str:
    return "".join(_SYLLABLES[pick(rng, 0, len(_SYLLABLES))] for _ in range(3)).capitalize()


def _caption(
    rng: np.random.RandomState, brand: int, series: str, product: int
) -> tuple[str, int, int]:
    """A caption of a line, and the pattern and colour that it names."""
    pattern, colour = pick(rng, 0, len(PATTERNS)), pick(rng, 0, len(COLOURS))
    suffix = SUFFIXES[pick(rng, 0, len(SUFFIXES))]
    words = (
        f"{BRANDS[brand]} {series} {list(COLOURS)[colour]} {PATTERNS[pattern]} {PRODUCTS[product]},"
        f" {suffix}"
    )
    return words, pattern, colour


def _line(
    rng: np.random.RandomState, series: str, n: int
) -> tuple[int, list[tuple[str, int, int]]]:
    """The product of a line and ``n`` different captions of it, each with its pattern
    and colour.
    """
    brand, product = pick(rng, 0, len(BRANDS)), pick(rng, 0, len(PRODUCTS))
    captions: dict[str, tuple[str, int, int]] = {}
    while len(captions) < n:
        caption = _caption(rng, brand, series, product)
        captions.setdefault(caption[0], caption)
    return product, list(captions.values())


# ----------------------------------------------------------------------------- images


def _look(rng: np.random.RandomState, product: int, pattern: int, colour: int) -> Look:
    return Look(
        product,
        pattern,
        colour,
        backdrop=(pick(rng, 0, len(BACKDROPS)), pick(rng, 0, 4), pick(rng, DRAW // 2, DRAW - 8)),
        place=(pick(rng, -14, 15), pick(rng, -12, 13), pick(rng, 28, 46), pick(rng, 30, 48)),
        texture=_texture(rng),
        motif=(
            pick(rng, 0, 5),
            pick(rng, 0, len(COLOURS)),
            pick(rng, -18, 19),
            pick(rng, -18, 19),
            pick(rng, 13, 25),
        ),
        cells=pick(rng, 0, 2**31 - 1),
    )


def _texture(rng: np.random.RandomState) -> tuple[int, int, int, int, int, int]:
    c2, c3 = pick(rng, 0, len(COLOURS)), pick(rng, 0, len(COLOURS))
    return c2, c3, pick(rng, 16, 27) * 2, pick(rng, 0, 4), pick(rng, 0, 64), pick(rng, 0, 64)


# ------------------------------------------------------------------------------- halves


def _mv(half: Split, series: str, rng: np.random.RandomState) -> None:
    product, [(caption, pattern, colour)] = _line(rng, series, 1)
    half.entries.append(
        Entry(caption, _look(rng, product, pattern, colour), "MV", series, DUPLICATES, True)
    )


def _tv(half: Split, series: str, rng: np.random.RandomState) -> None:
    product, captions = _line(rng, series, DUPLICATES)
    layout = _look(rng, product, 0, 0)
    for i, (caption, pattern, colour) in enumerate(captions):
        look = Look(
            product,
            pattern,
            colour,
            layout.backdrop,
            layout.place,
            _texture(rng),
            layout.motif,
            pick(rng, 0, 2**31 - 1),
        )
        example = i < TV_CAPTIONS
        half.entries.append(Entry(caption, look, "TV" if example else "line", series, 1, example))


def _rv(half: Split, series: str, rng: np.random.RandomState) -> None:
    # One image under ten captions of the line; the RV captions have other images of
    # their own, shown once.
    product, captions = _line(rng, series, 10 + RV_CAPTIONS)
    shown = _look(rng, product, *captions[0][1:])
    for caption, _, _ in captions[:10]:
        half.entries.append(Entry(caption, shown, "line", series, DUPLICATES // 10, False))
    for caption, pattern, colour in captions[10:]:
        half.entries.append(
            Entry(caption, _look(rng, product, pattern, colour), "RV", series, 1, True)
        )


def _independent(half: Split, series: str, rng: np.random.RandomState, n: int, kind: str) -> None:
    """A line whose captions each have an image of their own: never a reason to
    memorize.
    """
    product, captions = _line(rng, series, n)
    for caption, pattern, colour in captions:
        entry = Entry(
            caption,
            _look(rng, product, pattern, colour),
            kind,
            series,
            copies=0 if kind == "held_out" else 1,
            example=kind != "extra",
        )
        half.entries.append(entry)


@cache
def _names(*world: str) -> tuple[str, ...]:
    """One stream of names, dealt in turn, so that no two halves of a world share a
    series, nor world 0 and the public split.
    """
    rng, names = stream(*world, "names"), dict[str, None]()
    while len(names) < 3 * N_PUBLIC:
        names[_series(rng)] = None
    return tuple(names)


def build(name: str, number: int = 0) -> Split:
    """A split of world ``number``, always the same: ``a``, ``b`` or ``public``, which all
    worlds share.

    The negatives (``N``: seen once an epoch; ``held_out``: never) come in lines of the
    same sizes as the positives, so that neither a caption's wording nor the size of its
    group tells the label. Raises ValueError for another name, or a world that was not
    dealt.
    """
    if name not in ("a", "b", "public"):
        raise ValueError(f"no such split: {name!r} (a, b, public)")
    if number not in DEALS:
        raise ValueError(f"no such world: {number} (of {', '.join(map(str, DEALS))})")
    number = 0 if name == "public" else number
    world = (f"world {number}",) if number else ()
    mine = iter(_names(*world)[("a", "b", "public").index(name) :: 3])
    half = Split(name, number=number)
    deal = () if name == "public" else (DEALS[number][name],)

    def add(count: int, plant: Callable[..., None], *args: object) -> None:
        for _ in range(count):
            series = next(mine)
            plant(half, series, stream(*world, name, *deal, series), *args)

    if name == "public":
        add(N_PUBLIC, _independent, 1, "extra")
        return half
    add(N_MV, _mv)
    add(N_TV_LINES, _tv)
    add(N_RV_LINES, _rv)
    for kind in ("N", "held_out"):
        add(N_MV // 2, _independent, 1, kind)
        add(N_TV_LINES // 2, _independent, TV_CAPTIONS, kind)
        add((N_RV_LINES + 1) // 2, _independent, RV_CAPTIONS, kind)
    add(N_EXTRA_SINGLETONS, _independent, 1, "extra")
    return half
