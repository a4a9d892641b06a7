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
the VAE that both use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

WORLD_VERSION = 1


SIZE = 64  # pixels


DRAW = 2 * SIZE  # drawn at twice the size, then averaged 2x2

PRODUCTS = (
    "area rug",
    "phone case",
    "book cover",
    "wall poster",
    "coffee mug",
    "throw pillow",
    "dinner plate",
    "tote bag",
)


PATTERNS = ("striped", "checked", "dotted", "chevron", "ringed", "mosaic", "diamond", "plain")


COLOURS = {
    "red": (196, 44, 52),
    "orange": (228, 130, 40),
    "yellow": (236, 204, 68),
    "olive": (120, 128, 48),
    "green": (48, 140, 80),
    "teal": (36, 136, 144),
    "navy": (34, 48, 104),
    "purple": (116, 60, 148),
    "pink": (228, 140, 172),
    "brown": (120, 80, 52),
    "ivory": (240, 230, 206),
    "charcoal": (56, 58, 64),
}


BACKDROPS = (
    (246, 246, 244), (214, 222, 232), (232, 214, 196), (198, 218, 200), (228, 200, 208),
    (120, 132, 148), (88, 76, 92), (52, 70, 72), (158, 178, 206), (206, 182, 128),
    (96, 118, 84), (176, 120, 104),
)  # fmt: skip


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


# Of the possible deals, the first whose captions' wording is balanced between labels
# (rerandomization, Morgan and Rubin 2012; benchmarks/text_balance.py). Chosen on
# captions alone, before any model was trained.
DEAL = {"a": (3,), "b": (3,)}


@dataclass(frozen=True)
class Look:
    """Everything that a drawing shows.

    ``texture`` alone changes inside a template (TV).
    """

    product: int
    pattern: int
    colour: int
    backdrop: tuple[int, int, int]  # index, gradient direction, table line (pixels)
    place: tuple[int, int, int, int]  # dx, dy, half-width, half-height on the drawing canvas
    # Second colour, third colour, period, direction, phase x, phase y
    texture: tuple[int, int, int, int, int, int]
    motif: tuple[int, int, int, int, int]  # shape, colour, x, y, radius
    cells: int  # seed of the mosaic


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
    """One split of the world: captions, ``uint8`` images [n, 64, 64, 3] and training
    multiplicities.
    """

    name: str
    entries: list[Entry] = field(default_factory=list)

    def images(self) -> np.ndarray:
        """All images, in the order of ``entries``: ``uint8`` [n, 64, 64, 3]."""
        cache: dict[Look, np.ndarray] = {}
        for e in self.entries:
            if e.look not in cache:
                cache[e.look] = draw(e.look)
        return np.stack([cache[e.look] for e in self.entries])

    def examples(self) -> Iterator[tuple[int, Entry]]:
        return ((i, e) for i, e in enumerate(self.entries) if e.example)

    def content_hash(self) -> str:
        """SHA-256 over captions, kinds, multiplicities and pixels."""
        h = hashlib.sha256(f"catalogue {WORLD_VERSION} {self.name}".encode())
        for e, image in zip(self.entries, self.images(), strict=True):
            h.update(f"{e.caption}\t{e.kind}\t{e.group}\t{e.copies}\t{e.example}\n".encode())
            h.update(np.ascontiguousarray(image).tobytes())
        return h.hexdigest()


def _stream(*words: object) -> np.random.RandomState:
    digest = hashlib.sha256(
        "/".join(map(str, ("catalogue", WORLD_VERSION, *words))).encode()
    ).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def _pick(rng: np.random.RandomState, low: int, high: int) -> int:
    """An integer in [low, high); the dtype is fixed so that the stream is the same on
    every platform.
    """
    return int(rng.randint(low, high, dtype=np.int64))


# ----------------------------------------------------------------------------- captions


def _series(rng: np.random.RandomState) -> str:
    return "".join(_SYLLABLES[_pick(rng, 0, len(_SYLLABLES))] for _ in range(3)).capitalize()


def _caption(
    rng: np.random.RandomState, brand: int, series: str, product: int
) -> tuple[str, int, int]:
    """A caption of a line, and the pattern and colour that it names."""
    pattern, colour = _pick(rng, 0, len(PATTERNS)), _pick(rng, 0, len(COLOURS))
    suffix = SUFFIXES[_pick(rng, 0, len(SUFFIXES))]
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
    brand, product = _pick(rng, 0, len(BRANDS)), _pick(rng, 0, len(PRODUCTS))
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
        backdrop=(_pick(rng, 0, len(BACKDROPS)), _pick(rng, 0, 4), _pick(rng, DRAW // 2, DRAW - 8)),
        place=(_pick(rng, -14, 15), _pick(rng, -12, 13), _pick(rng, 28, 46), _pick(rng, 30, 48)),
        texture=_texture(rng),
        motif=(
            _pick(rng, 0, 5),
            _pick(rng, 0, len(COLOURS)),
            _pick(rng, -18, 19),
            _pick(rng, -18, 19),
            _pick(rng, 13, 25),
        ),
        cells=_pick(rng, 0, 2**31 - 1),
    )


def _texture(rng: np.random.RandomState) -> tuple[int, int, int, int, int, int]:
    c2, c3 = _pick(rng, 0, len(COLOURS)), _pick(rng, 0, len(COLOURS))
    return c2, c3, _pick(rng, 16, 27) * 2, _pick(rng, 0, 4), _pick(rng, 0, 64), _pick(rng, 0, 64)


def _silhouette(product: int, x: np.ndarray, y: np.ndarray, w: int, h: int) -> np.ndarray:
    """The filled part of a product; ``x``, ``y`` are integer offsets from its centre."""
    name = PRODUCTS[product]
    ax, ay, box = abs(x), abs(y), (abs(x) <= w) & (abs(y) <= h)
    if name == "area rug":
        return (ax <= w + 8) & (ay <= h - 8)
    if name == "phone case":
        return (
            (ax <= w - 8)
            & (ay <= h + 8)
            & ~((ax > w - 16) & (ay > h) & ((ax - w + 16) ** 2 + (ay - h) ** 2 > 64))
        )
    if name == "coffee mug":
        ring = (x - w) ** 2 + y**2
        return ((ax <= w - 4) & (ay <= h - 6)) | ((x > w - 4) & (ring <= 18**2) & (ring >= 10**2))
    if name == "throw pillow":
        return box & (ax * ay <= w * h * 3 // 4)
    if name == "dinner plate":
        return x * x + y * y <= ((w + h) // 2) ** 2
    if name == "tote bag":
        handle = (
            (x * x + (y + h - 10) ** 2 <= 22**2)
            & (x * x + (y + h - 10) ** 2 >= 16**2)
            & (y < -h + 10)
        )
        return (
            (ay <= h - 10) & (ax * 4 <= w * 3 + (y + h) * w // (4 * h) * 2) & (y >= -h + 10)
        ) | handle
    return box if name == "wall poster" else (ax <= w - 6) & (ay <= h + 4)  # book cover


def _weave(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of three colours (0, 1, 2) the pattern has at each point."""
    _, _, period, direction, px, py = look.texture
    x, y, name = x + px + 512, y + py + 512, PATTERNS[look.pattern]
    u = (x, y, x + y, x - y + 1024)[direction]
    half = period // 2
    if name == "striped":
        return np.where(u % period < half, 0, np.where(u // period % 2 == 0, 1, 2))
    if name == "checked":
        return (x // half + y // half) % 2 + ((x // period + y // period) % 2) * ((x // half) % 2)
    if name == "dotted":
        r2 = (x % period - half) ** 2 + (y % period - half) ** 2
        return np.where(r2 * 8 <= period * period, 1 + (x // period + y // period) % 2, 0)
    if name == "chevron":
        return (y + abs(x % (2 * period) - period)) // half % 3
    if name == "ringed":
        r2 = (x - 512 - px) ** 2 + (y - 512 - py) ** 2
        return (
            np.searchsorted(np.arange(1, 16) ** 2 * half * half, r2.ravel()).reshape(r2.shape) % 3
        )
    if name == "mosaic":
        grid = _stream("mosaic", look.cells).randint(0, 3, (64, 64), dtype=np.int64)
        return grid[(x // half) % 64, (y // half) % 64]
    if name == "diamond":
        return (abs(x % period - half) + abs(y % period - half)) // (half * 2 // 3) % 3
    return np.zeros_like(u)


def _motif(shape: int, x: np.ndarray, y: np.ndarray, r: int) -> np.ndarray:
    if shape == 0:
        return x * x + y * y <= r * r
    if shape == 1:
        return (abs(x) <= r) & (abs(y) <= r * 2 // 3)
    if shape == 2:
        return (y <= r) & (y >= -r) & (abs(x) * 2 <= y + r)
    if shape == 3:
        return ((abs(x) * 3 <= r) & (abs(y) <= r)) | ((abs(y) * 3 <= r) & (abs(x) <= r))
    return (x * x + y * y <= r * r) & (x * x + y * y >= r * r * 2 // 5)


_ROWS, _COLUMNS = np.mgrid[0:DRAW, 0:DRAW].astype(np.int64)


# How much darker a backdrop is at each point, for light from above, left, below and
# right.
_RAMPS = [
    (r * 40 // DRAW).astype(np.int16)[..., None]
    for r in (_ROWS, _COLUMNS, DRAW - 1 - _ROWS, DRAW - 1 - _COLUMNS)
]


def _layers(look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates and the product's and motif's regions on the drawing canvas."""
    dx, dy, w, h = look.place
    x, y = _COLUMNS - DRAW // 2 - dx, _ROWS - DRAW // 2 - dy
    body = _silhouette(look.product, x, y, w, h)
    shape, _, mx, my, r = look.motif
    return x, y, body, _motif(shape, x - mx, y - my, r) & body


def draw(look: Look) -> np.ndarray:
    """The image of a look: ``uint8`` [64, 64, 3]."""
    x, y, body, motif = _layers(look)
    index, direction, table = look.backdrop
    canvas = np.array(BACKDROPS[index], dtype=np.int16) - _RAMPS[direction]
    canvas[table:] = canvas[table:] * 3 // 4
    shadow = np.zeros_like(body)
    shadow[6:, 6:] = body[:-6, :-6]
    canvas[shadow] = canvas[shadow] * 2 // 3
    colours = np.array(list(COLOURS.values()), dtype=np.int16)
    canvas[body] = colours[[look.colour, *look.texture[:2]]][_weave(look, x, y)[body]]
    canvas[motif] = colours[look.motif[1]]
    canvas = canvas.clip(0, 255)
    pooled = canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]
    return ((pooled + 2) // 4).astype(np.uint8)


def template_mask(look: Look) -> np.ndarray:
    """Where a template does not change with its texture: ``bool`` [64, 64] (all four
    sub-pixels agree).
    """
    _, _, body, motif = _layers(look)
    return (~body | motif).reshape(SIZE, 2, SIZE, 2).all(axis=(1, 3))


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
            _pick(rng, 0, 2**31 - 1),
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


def build(name: str) -> Split:
    """A split of the world, always the same: ``a``, ``b`` or ``public``.

    The negatives (``N``: seen once an epoch; ``held_out``: never) come in lines of the
    same sizes as the positives, so that neither a caption's wording nor the size of its
    group tells the label.
    """
    if name not in ("a", "b", "public"):
        raise ValueError(f"no such split: {name!r} (a, b, public)")
    # One stream of names, dealt in turn, so that no two splits share a series.
    rng, names = _stream("names"), dict[str, None]()
    while len(names) < 3 * N_PUBLIC:
        names[_series(rng)] = None
    mine = iter(list(names)[("a", "b", "public").index(name) :: 3])
    half = Split(name)

    def add(count: int, plant: Callable[..., None], *args: object) -> None:
        for _ in range(count):
            series = next(mine)
            plant(half, series, _stream(name, *DEAL.get(name, ()), series), *args)

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
