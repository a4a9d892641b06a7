"""A data set as its owner keeps it, read once: its different images at a model's size,
how often each stands in it, and what is told of each.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from membench.datasets.class_numbers import number_classes
from membench.datasets.items import Bad, Item
from membench.datasets.sources import find_items, state_of
from membench.errors import UserError
from membench.storage.cache import cache_root, check_proof, is_proved, prove
from membench.storage.files import CACHE, disk_errors, locked, replacing, write_json
from membench.storage.hashing import content_key, json_hash
from membench.storage.images import NotAnImage, TooManyPixels, decode, square
from membench.storage.reading import is_text, parse_json

VERSION = 4  # goes up when the same files give another collection
HASHED = 2  # of the hash, which is of what a collection holds
NAMED = 5  # file names that are kept of one image


@dataclass(frozen=True)
class Collection:
    """n different images, in the order of their first files.

    images: gives them, ``uint8`` [n, side, side, 3], a read-only memory map. ids: the
    first 16 hex digits of the SHA-256 of their pixels. files: some of the names of
    each, the first first. copies: how many files are this image. captions, labels: of
    each; the label a number of ``classes`` or None. classes: names by number, those
    without an image, too, where the data list them. unclear: why the numbers may not be
    the model's; "" where they are given, or the places of plain names. rows: images in
    all. size: median width and height of the files. bad: what was left out. hash: of
    pixels, copies, captions and classes, wherever the data lie and whatever hidden files
    lie beside them.
    """

    kind: str
    images: Callable[[], np.ndarray]
    ids: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    copies: tuple[int, ...]
    captions: tuple[tuple[str, ...], ...]
    labels: tuple[int | None, ...]
    classes: dict[int, str]
    unclear: str
    rows: int
    size: tuple[int, int]
    bad: tuple[Bad, ...]
    hash: str


def read_collection(
    place: Path,
    side: int,
    *,
    captions: Path | None = None,
    max_bad: float = 0.01,
    progress: bool = False,
) -> Collection:
    """The images at a place, each cut to its centred square of ``side`` pixels
    (:func:`membench.storage.images.square`), with their captions and classes.

    Images of equal pixels are one, and counted. An image or a row that cannot be read
    is left out; more than ``max_bad`` of them (a share below 1, or a number) are too
    many. What was read is kept in the cache, by the files' names, sizes, times and
    inodes.

    Raises :class:`UserError` where nothing or too little can be read, and where the
    files change meanwhile.
    """
    state = state_of(place, captions)
    key = content_key(
        {
            "version": VERSION,
            "place": str(place.resolve()),
            "captions": str(captions.resolve()) if captions else "",
            "side": side,
            "state": json_hash(state),
        }
    )
    note = cache_root() / "collections" / f"{key}.json"
    pixels = note.with_suffix(".u8")
    found = _known(note, pixels)
    if found is None:
        with locked(note, progress):
            found = _known(note, pixels)
            if found is None:
                what = pixels.name
                with replacing(pixels, what=what, advice=CACHE, is_locked=True) as temporary:
                    found = _read(place, captions, side, temporary, max_bad, progress)
                    if state_of(place, captions) != state:
                        raise UserError(
                            f"data: {place} changed while it was read; run again when nothing"
                            " writes to it"
                        )
                    prove(pixels, temporary)
                write_json(note, {"found": found, "hash": json_hash(found)}, advice=CACHE)
    return _opened(found, pixels, side, max_bad)


def _known(note: Path, pixels: Path) -> dict[str, Any] | None:
    """What is told of a collection that has been read; None where none has, or where
    the note is not what was written.
    """
    try:
        held = parse_json(note.read_bytes())
        whole = is_proved(pixels) and json_hash(held["found"]) == held["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(held["found"]) if whole else None


def _read(
    place: Path, captions: Path | None, side: int, target: Path, max_bad: float, progress: bool
) -> dict[str, Any]:
    """Writes the different squares one after another, and returns what is told of
    them.
    """
    source = find_items(place, captions)
    rows: dict[str, int] = {}
    files: list[list[str]] = []
    copies: list[int] = []
    texts: list[dict[str, None]] = []
    numbers, classes, unclear = number_classes(source.items, source.classes)
    labels: list[int | None] = []
    sizes: list[tuple[int, int]] = []
    bad = list(source.bad)
    same: dict[bytes, str] = {}  # of a file's bytes, the pixels' digest: nothing is decoded twice
    # Of gigabytes; what is read says its own errors
    with disk_errors(target.parent, advice=CACHE), open(target, "wb") as out:
        bar = tqdm(source.items, desc="data", unit="img", disable=not progress, delay=1)
        for number, item in zip(numbers, bar, strict=True):
            try:
                if not all(map(is_text, (*item.texts, item.label or ""))):
                    raise NotAnImage("its caption or class holds half a surrogate pair")
                digest, image, size = _square(item, side, same)
            except (NotAnImage, TooManyPixels, OSError, UserError) as error:
                bad.append(Bad(item.name, str(getattr(error, "strerror", None) or error)))
                if len(bad) > _allowed(max_bad, len(source.items)):
                    raise _too_many(bad, len(source.items)) from None
                continue
            at = rows.setdefault(digest, len(copies))
            if at == len(copies):
                assert image is not None  # a digest is new where its pixels are
                out.write(image.tobytes())
                files.append([])
                copies.append(0)
                texts.append({})
                labels.append(number)
            copies[at] += 1
            files[at] += [_told(item.name)] if len(files[at]) < NAMED else []
            texts[at].update(dict.fromkeys(item.texts))
            sizes += [size] if size else []
    return {
        "kind": source.kind,
        "digests": list(rows),
        "files": files,
        "copies": copies,
        "captions": [list(t) for t in texts],
        "labels": labels,
        "classes": sorted(classes.items()),
        "unclear": unclear,
        "items": len(source.items),
        "rows": sum(copies),
        "size": np.median(sizes, axis=0).astype(int).tolist() if sizes else [side, side],
        "bad": [asdict(Bad(_told(b.name), _told(b.why))) for b in bad],
    }


def _told(name: str) -> str:
    """A file's name as text: what is not UTF-8 in it as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def _square(
    item: Item, side: int, same: dict[bytes, str]
) -> tuple[str, np.ndarray | None, tuple[int, int] | None]:
    """(digest of the pixels, the square, the image's width and height); None for bytes
    that have been seen.
    """
    data = item.read()
    key = b""
    if isinstance(data, np.ndarray):
        image = Image.fromarray(data)
    else:
        key = hashlib.sha256(data).digest()
        if key in same:
            return same[key], None, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            image = decode(data)[0]
    pixels = square(image, side) if image.size != (side, side) else np.asarray(image)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if key:
        same[key] = digest
    return digest, pixels, image.size


def _allowed(max_bad: float, rows: int) -> float:
    return max_bad if max_bad >= 1 else max_bad * rows


def _too_many(bad: Sequence[Bad], rows: int) -> UserError:
    return UserError(
        f"data: {len(bad)} of {rows} images and rows cannot be read, such as {bad[0].name}"
        f" ({bad[0].why}); mend them, or allow more with --max-bad"
    )


def _opened(found: dict[str, Any], pixels: Path, side: int, max_bad: float) -> Collection:
    n = len(found["digests"])
    bad = tuple(Bad(**b) for b in found["bad"])
    if not n:
        why = f" ({bad[0].name}: {bad[0].why})" if bad else ""
        raise UserError(f"data: no image can be read{why}")
    if len(bad) > _allowed(max_bad, found["items"]):
        raise _too_many(bad, found["items"])
    check_proof(pixels)
    images = np.memmap(pixels, np.uint8, "r", shape=(n, side, side, 3))
    told = [found[k] for k in ("digests", "copies", "captions", "labels", "classes")]
    return Collection(
        kind=found["kind"],
        images=lambda: images,
        ids=tuple(d[:16] for d in found["digests"]),
        files=tuple(tuple(f) for f in found["files"]),
        copies=tuple(found["copies"]),
        captions=tuple(tuple(c) for c in found["captions"]),
        labels=tuple(found["labels"]),
        classes=dict(map(tuple, found["classes"])),
        unclear=found["unclear"],
        rows=found["rows"],
        size=(found["size"][0], found["size"][1]),
        bad=bad,
        hash=json_hash([HASHED, side, *told]),
    )
