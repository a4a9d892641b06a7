"""The training images that memorized prompts return, from a folder: which image
belongs to which prompt, and its pixels.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from membench.datasets.img2dataset import member_bytes
from membench.datasets.inside import (
    IMAGE_BYTES,
    UNREADABLE,
    bytes_inside,
    is_inside,
    unreadable,
)
from membench.datasets.prompts import Prompt, example_id
from membench.datasets.truth_folder import LAYOUTS, TruthImage, listed
from membench.errors import UserError
from membench.fetching.download_status import STATUS
from membench.fetching.image_download import Link
from membench.storage.cache import cached_array
from membench.storage.hashing import json_hash
from membench.storage.images import NotAnImage, TooManyPixels, decode, square

MAX_BYTES = IMAGE_BYTES
VERSION = 1  # goes up when the same files give other pixels


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """n different images, in the order of their SHA-256.

    images: gives them, ``uint8`` [n, side, side, 3], a read-only memory map. ids: the
    first 16 hex digits of each file's SHA-256. owners: by example id, the positions of
    its images, ascending; no entry for an example without one. hash: of the files'
    bytes, the side and the owners, wherever the folder lies; images: the same without
    owners. missing: a prompt for each example without an image. copies: 1 each, since
    nobody has counted how often the training set holds them.
    """

    images: Callable[[], np.ndarray]
    ids: tuple[str, ...]
    owners: Mapping[str, list[int]]
    hash: str
    pictures: str
    missing: tuple[Prompt, ...]
    copies: tuple[int, ...]


def links_of(prompts: Iterable[Prompt]) -> list[Link]:
    """What to download for prompts: each address once, in their order of ids and
    addresses.

    The id is the prompt's index, else its example id; the second and further addresses
    of an id get "/2", "/3" ... Prompts without an address give none.
    """
    urls: dict[str, set[str]] = defaultdict(set)
    known: set[str] = set()
    for key, url in sorted({(p.index or example_id(p.text), p.url) for p in prompts if p.url}):
        if url not in known:
            known.add(url)
            urls[key].add(url)
    return [
        Link(f"{key}/{i}" if i > 1 else key, url)
        for key in sorted(urls)
        for i, url in enumerate(sorted(urls[key]), 1)
    ]


def read_ground_truth(
    folder: str | Path,
    prompts: Sequence[Prompt],
    side: int,
    *,
    root: Path | None = None,
    progress: bool = False,
) -> GroundTruth:
    """The images in a folder that belong to prompts, ``side`` x ``side`` pixels.

    The first of these layouts that is there is read:

    - ``truth.csv`` with columns prompt and file (below the folder), a row a pair;
    - what :func:`membench.fetching.image_download.download_images` made: images of
      status "ok", by address, then by id;
    - the output of img2dataset, as files or tar archives
      (:mod:`membench.datasets.img2dataset`): images of status "success", by address and
      caption;
    - the folders of Wen et al. (2024), ``gt_images/<index>/*.png`` with one or several
      images each, with or without their JSON lines (caption, index, url) beside
      ``gt_images``; also without the folder ``gt_images``;
    - files ``<index>.<extension>``, among such folders or alone.

    index: the prompt's, which is LAION's, or its example id. Where prompts with and
    without an address share an index, it is that of the former, and an image with a
    known address belongs to the former only: COCO's captions are numbered, too. A
    prompt may have several images, and an image several prompts; files of equal
    bytes are one image. Images of no prompt are not read. Prompts without an image
    are counted on stderr, in one line.

    Each image is turned by its EXIF orientation, put on white where it is
    transparent, and cut to its centred square, which is resized by Pillow's Lanczos
    filter (:func:`membench.storage.images.square`). Stable Diffusion was trained on
    squares of images whose shorter edge was resized to the side; its crops and filter
    may have differed, which a similarity of copies must bear anyway. The pixels are
    kept by :func:`membench.storage.cache.cached_array`. root: default its cache.
    progress: a bar on stderr.

    Raises :class:`UserError`, which names the file, for a folder that is missing, empty
    or without an image of these prompts, a file that is damaged, too big, no image
    or not what was downloaded, a link out of the folder, and a malformed table;
    ValueError for ``side`` < 1.
    """
    if side < 1:
        raise ValueError(f"side is {side}, but must be at least 1")
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"ground truth: {folder} is not a folder; expected is one with {LAYOUTS}")
    pictures = listed(folder)
    if not pictures and (folder / STATUS).is_file():
        raise UserError(
            f"ground truth: of the images that {folder} was to hold none came; fetch them again,"
            " or give a folder that has some"
        )
    if not pictures:
        raise UserError(f"ground truth: {folder} holds no image; expected are {LAYOUTS}")
    owned = _owned(pictures, prompts)
    if not owned:
        raise UserError(
            f"ground truth: none of the {len(pictures)} images in {folder} belongs to a prompt;"
            f" expected are {LAYOUTS}"
        )

    files: dict[str, Path] = {}
    owners_of: dict[str, set[str]] = defaultdict(set)
    for picture, examples in tqdm(
        owned, desc="ground truth", unit="", disable=not progress, delay=1
    ):
        digest = hashlib.sha256(_bytes(folder, picture.path)).hexdigest()
        if picture.sha256 not in ("", digest):
            raise UserError(
                f"{picture.path} is not what was downloaded (by its SHA-256); delete it and"
                " download it again"
            )
        files.setdefault(digest, picture.path)
        owners_of[digest] |= examples
    digests = sorted(files)
    owners: dict[str, list[int]] = defaultdict(list)
    for position, digest in enumerate(digests):
        for example in owners_of[digest]:
            owners[example].append(position)

    def squares() -> Iterator[np.ndarray]:
        for digest in digests:
            yield _pixels(folder, files[digest], digest, side)[None]

    parts = {"version": VERSION, "side": side, "files": digests}
    shape = (len(digests), side, side, 3)
    images = cached_array(
        "ground-truth", parts, shape, np.uint8, squares, root=root, progress=progress
    )
    missing = _missing(prompts, owners)
    _tell(prompts, missing, len(pictures) - len(owned))
    return GroundTruth(
        images=lambda: images,
        ids=tuple(digest[:16] for digest in digests),
        owners=dict(sorted(owners.items())),
        hash=json_hash(parts | {"owners": owners}),
        pictures=json_hash(parts),
        missing=missing,
        copies=(1,) * len(digests),
    )


# ------------------------------------------------------------------------------- owners


def _owned(
    pictures: Sequence[TruthImage], prompts: Sequence[Prompt]
) -> list[tuple[TruthImage, set[str]]]:
    """The images that have prompts, each with the ids of these."""
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for p in prompts:
        example = example_id(p.text)
        ids["text", p.text].add(example)
        ids["id", example].add(example)
        if p.url:
            ids["url", p.url].add(example)
        if p.index:
            ids["index of an address" if p.url else "bare index", p.index].add(example)

    def of(kind: str, value: str) -> set[str]:
        return ids.get((kind, value), set())

    found = []
    for picture in pictures:
        examples = of("id", picture.key) | of("index of an address", picture.key)
        examples = examples.union(
            *(of("url", url) for url in picture.urls), *(of("text", text) for text in picture.texts)
        )
        if not (picture.urls or of("index of an address", picture.key)):
            examples |= of("bare index", picture.key)
        if examples:
            found.append((picture, examples))
    return found


def _missing(prompts: Sequence[Prompt], owners: Mapping[str, list[int]]) -> tuple[Prompt, ...]:
    different: dict[str, Prompt] = {}
    for p in prompts:
        different.setdefault(example_id(p.text), p)
    return tuple(p for example, p in different.items() if example not in owners)


def _tell(prompts: Sequence[Prompt], missing: Sequence[Prompt], foreign: int) -> None:
    told = []
    if missing:
        kinds = ", ".join(
            f"{kind} {n}" for kind, n in sorted(Counter(p.kind for p in missing).items())
        )
        told.append(
            f"{len(missing)} of {len({p.text for p in prompts})} prompts have no ground-truth"
            f" image ({kinds})"
        )
    if foreign:
        told.append(
            f"{foreign} ground-truth image{'' if foreign == 1 else 's'} of no prompt left out"
        )
    if told:
        print(f"membench: {'; '.join(told)}", file=sys.stderr)


# ------------------------------------------------------------------------------- pixels


def _bytes(folder: Path, path: Path) -> bytes:
    """An image's file, which must be a plain one inside the folder, or inside an
    archive there.
    """
    try:
        data = member_bytes(path, MAX_BYTES) if is_inside(folder, path.parent) else None
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    if data is not None:
        return data
    return bytes_inside(folder, path, MAX_BYTES, "a ground-truth image")


def _pixels(folder: Path, path: Path, digest: str, side: int) -> np.ndarray:
    data = _bytes(folder, path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path} changed while it was read; run again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            return square(decode(data)[0], side)
    except TooManyPixels as error:
        raise UserError(f"{path} has {error}; make it smaller") from None
    except NotAnImage as error:
        raise UserError(
            f"{path} cannot be read as an image ({error}); replace or remove it"
        ) from None
