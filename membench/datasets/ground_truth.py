"""The training images that memorized prompts return, from a folder: which image
belongs to which prompt, and its pixels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import stat
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from membench.datasets.img2dataset import member_bytes, read_downloads
from membench.datasets.prompts import Prompt, example_id, read_prompt_file
from membench.errors import UserError
from membench.fetching.download_status import STATUS, StatusTable
from membench.fetching.image_download import Link
from membench.storage.cache import cached_array
from membench.storage.hashing import json_hash
from membench.storage.images import NotAnImage, TooManyPixels, decode, square
from membench.storage.reading import read_text

TRUTH, FOLDERS = "truth.csv", "gt_images"

LAYOUTS = (
    f"{STATUS} of a download, img2dataset's output, {FOLDERS}/INDEX/*.png, INDEX.jpg, or {TRUTH}"
    " with columns prompt,file"
)

# What lies beside images, as img2dataset writes it
BESIDE = frozenset({".csv", ".json", ".jsonl", ".md", ".parquet", ".txt"})
MAX_BYTES = 64 << 20  # of an image's file
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


@dataclass(frozen=True)
class _Picture:
    """A file and what it is said to be: a key (LAION index, example id or prompt),
    addresses, captions. sha256: "" where not known.
    """

    path: Path
    key: str = ""
    urls: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    sha256: str = ""


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
    - the output of img2dataset, as files or tar archives (:mod:`membench.img2dataset`):
      images of status "success", by address and caption;
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
    pictures = _listed(folder)
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


# ------------------------------------------------------------------------------ layouts


def _listed(folder: Path) -> list[_Picture]:
    """All images of the folder's layout, whether or not a prompt has them."""
    if (folder / TRUTH).is_file():
        return list(_truth(folder))
    if (folder / STATUS).is_file():
        rows = StatusTable(folder).rows.values()
        return [
            _Picture(folder / r.file, r.id.partition("/")[0], (r.url,), (), r.sha256)
            for r in rows
            if r.status == "ok"
        ]
    if downloads := read_downloads(folder):  # their keys are running numbers, no index
        return [_Picture(d.path, "", (d.url,), (d.caption,)) for d in downloads]
    told = _json_lines(folder)
    place = folder / FOLDERS if (folder / FOLDERS).is_dir() else folder
    found = []
    for entry in _entries(place):
        key = entry.name if entry.is_dir() else entry.stem
        urls, texts = told.get(key, ((), ()))
        found += [
            _Picture(file, key, urls, texts)
            for file in (_entries(entry) if entry.is_dir() else [entry])
            if not file.is_dir()
        ]
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(
            p
            for p in folder.iterdir()
            if not p.name.startswith(".") and p.suffix.lower() not in BESIDE
        )
    except OSError as error:
        raise UserError(f"ground truth: cannot read {folder}: {error.strerror or error}") from error


def _truth(folder: Path) -> Iterator[_Picture]:
    path = folder / TRUTH
    try:
        text = read_text(path)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if lacking := {"prompt", "file"} - set(reader.fieldnames or []):
            raise UserError(
                f"{path} has no column {' and '.join(sorted(lacking))}; it has"
                f" {', '.join(reader.fieldnames or [])}"
            )
        for row in reader:
            prompt, name = (row["prompt"] or "").strip(), (row["file"] or "").strip()
            if not (prompt and name):
                raise UserError(
                    f"{path}, line {reader.line_num}: the {'file' if prompt else 'prompt'} is empty"
                )
            yield _Picture(folder / name, texts=(prompt,))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _json_lines(folder: Path) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """(addresses, captions) by index, of the one JSON-lines file beside the folders of
    images, if there is one.
    """
    files = [path for path in sorted(folder.glob("*.jsonl")) if not path.name.startswith(".")]
    told: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    if len(files) == 1 and (folder / FOLDERS).is_dir():
        for row in read_prompt_file(files[0]):
            urls, texts = told.get(row.index, ((), ()))
            told[row.index] = (*urls, *filter(None, [row.url])), (*texts, row.text)
    return told


# ------------------------------------------------------------------------------- owners


def _owned(
    pictures: Sequence[_Picture], prompts: Sequence[Prompt]
) -> list[tuple[_Picture, set[str]]]:
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
        if (
            path.parent.resolve(strict=True).is_relative_to(folder.resolve())
            and (data := member_bytes(path, MAX_BYTES)) is not None
        ):
            return data
        if not path.resolve(strict=True).is_relative_to(folder.resolve()):
            raise UserError(f"{path} lies outside {folder}; copy the image into the folder")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a file; remove it")
        if status.st_size > MAX_BYTES:
            raise UserError(
                f"{path} has {status.st_size:,} bytes, more than the {MAX_BYTES:,} of a"
                " ground-truth image; make it smaller"
            )
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; mend or remove it"
        ) from None


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
