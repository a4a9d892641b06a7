"""Where a data set's images are, in the layouts in which people keep them: each image
with its captions and its class, nothing decoded yet.

- a folder of images, nested at will, with ``metadata.csv``, ``.jsonl`` or ``.parquet``
  (file_name, text), or a ``.txt`` or ``.json`` beside each image, or a folder a class
  (Hugging Face's imagefolder; the files of img2dataset; CelebA's two layouts);
- WebDataset's shards ``*.tar``, which img2dataset writes, too;
- Parquet with a column of images (Hugging Face's data sets);
- CIFAR-10 and CIFAR-100, unpacked or not (:mod:`membench.datasets.cifar`).

Hidden files, such as the ``._*`` that macOS puts beside each, count for nothing.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from membench.datasets.beside import caption_beside
from membench.datasets.cifar import find_cifar, read_cifar
from membench.datasets.inside import IMAGE_BYTES, bytes_inside, is_inside
from membench.datasets.items import Bad, Item
from membench.datasets.parquet_images import has_images, parquet_items
from membench.datasets.records import read_records
from membench.datasets.webdataset import tar_items
from membench.errors import UserError

IMAGES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".jpe", ".png", ".tif", ".tiff", ".webp"}
)
# Pictures, too, which no decoder here takes: each is told of, since a model may have seen it
UNREAD = frozenset(
    {".cr2", ".dng", ".exr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".nef", ".pbm"}
    | {".pgm", ".ppm", ".psd", ".svg", ".tga"}
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.json")
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
FOLDERS = ("imagefolder", "folder")  # kinds of sources
OWN = ("audit.json", "copies.parquet", "samples.parquet", "run.json")
LAYOUTS = (
    "a folder of images (with metadata.csv or .jsonl, captions beside them, or a folder a class),"
    " WebDataset's .tar, Parquet with a column of images, or CIFAR's archives"
)


@dataclass(frozen=True)
class Source:
    """kind: the layout. classes: names of all classes by number, where the data list
    them.
    """

    kind: str
    items: list[Item]
    bad: list[Bad] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def find_items(place: Path, captions: Path | None = None) -> Source:
    """The images at a place: a folder or an archive. captions: a table of file names
    and captions, in place of what the data say (:func:`membench.datasets.records`).

    Raises :class:`UserError` for a place that is not there or holds no image.
    """
    links: list[Path] = []
    files = _files(place, links)
    outside = {f for f in files if f != place and f.is_symlink() and not is_inside(place, f)}
    lost = [f for f in links if not f.exists()]
    outside |= {f for f in links if f not in lost and not is_inside(place, f)}
    source = _listed(place, [f for f in files if f not in outside])
    source.bad[:0] = [
        *(Bad(_below(place, f), "a link out of the folder; copy it") for f in sorted(outside)),
        *(Bad(_below(place, f), "a link to nothing; fetch it") for f in lost if _is_data(f)),
    ]
    if source.kind in FOLDERS:
        source.bad[:0] = [
            Bad(_below(place, f), f"{f.suffix} is not read; save it as PNG")
            for f in files
            if f.suffix.lower() in UNREAD
        ]
    if captions is not None:
        source = _with_captions(source, captions)
    if not source.items:
        why = f" ({source.bad[0].name}: {source.bad[0].why})" if source.bad else ""
        raise UserError(f"data: {place} holds no image{why}; expected is {LAYOUTS}")
    return source


def _is_data(file: Path) -> bool:
    """Whether a file of this name would be one of the data's."""
    held = IMAGES | UNREAD | {".parquet", ".tar"}
    return file.suffix.lower() in held or file.name.lower() in METADATA


def state_of(place: Path, captions: Path | None = None) -> list[tuple[str, int, int, int, int]]:
    """(name, bytes, ns of the last change, ns of the last change of that or anything
    else, inode) of each file of the data, hidden ones left out, and of each link to a
    folder or to nothing: what has to stay while they are read. The time of a file's
    contents can be set back (``cp -p``, ``rsync -t``), that of its status cannot.

    Raises :class:`UserError` as :func:`find_items`.
    """
    found: list[tuple[str, int, int, int, int]] = []
    links: list[Path] = []
    files = [*_files(place, links), *([captions] if captions else [])]
    asked = [(f, Path.stat) for f in files] + [(f, Path.lstat) for f in links]
    for file, ask in asked:
        try:
            status = ask(file)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror or error}") from None
        times = status.st_mtime_ns, status.st_ctime_ns
        found.append((str(file), status.st_size, *times, status.st_ino))
    return found


def _files(place: Path, links: list[Path] | None = None) -> list[Path]:
    """The files of the data. links: as :func:`visible`."""
    if not place.exists():
        raise UserError(f"data: {place} is not there; expected is {LAYOUTS}")
    if place.is_file():
        return [place]
    if own := [name for name in OWN if (place / name).is_file()]:
        raise UserError(
            f"data: {place} is membench's own output ({own[0]}): images that a model has generated,"
            " not those that it was trained on"
        )
    return visible(place, links)


def _listed(place: Path, files: Sequence[Path]) -> Source:
    if cifar := find_cifar(place):
        if not is_inside(place, cifar):
            raise UserError(f"data: {cifar} leads out of {place}; name it itself")
        return _cifar(cifar)
    images = [f for f in files if f.suffix.lower() in IMAGES]
    if images and place.is_dir():
        return _folder(place, files, images)
    if tars := [f for f in files if f.suffix.lower() == ".tar"]:
        return Source("WebDataset", *tar_items(place, tars, IMAGES))
    if tables := [f for f in files if f.suffix.lower() == ".parquet" and has_images(f)]:
        return Source("Parquet", *parquet_items(place, tables))
    return Source("folder", [])


def visible(folder: Path, links: list[Path] | None = None) -> list[Path]:
    """All plain files below a folder, in the order of their names, without hidden files
    and folders. links: gets the links to folders, which are not followed, and those to
    nothing, in a circle among them.

    Raises :class:`UserError` for a folder that cannot be read.
    """
    found = []

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from None

    for top, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        if links is not None:
            links += [linked for f in folders if (linked := Path(top) / f).is_symlink()]
        found += [Path(top) / n for n in sorted(names) if not n.startswith(".")]
    if links is not None:
        links += [f for f in found if f.is_symlink() and not f.exists()]
    return [f for f in found if f.is_file()]


# ----------------------------------------------------------------------------- a folder


def _folder(root: Path, files: Sequence[Path], images: Sequence[Path]) -> Source:
    names = {_below(root, f): f for f in images}
    texts: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, str] = {}
    bad: list[Bad] = []
    tables = [f for f in files if f.name.lower() in METADATA]
    for table in tables:
        _read_table(root, table, names, texts, labels, bad)
    if not tables:
        for name, file in names.items():
            texts[name] += caption_beside(root, file, name, bad)
    if not any(texts.values()) and not labels:
        labels = _classes(names)
    items = [
        Item(
            name,
            partial(bytes_inside, root, f, IMAGE_BYTES, "an image"),
            tuple(dict.fromkeys(texts.get(name, ()))),
            labels.get(name),
        )
        for name, f in names.items()
    ]
    return Source("imagefolder", items, bad)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _read_table(
    root: Path,
    table: Path,
    names: dict[str, Path],
    texts: dict[str, list[str]],
    labels: dict[str, str],
    bad: list[Bad],
) -> None:
    """Adds a table's captions and classes; its file names are those below its folder."""
    at, above = _below(root, table), table.parent.relative_to(root).as_posix()
    spelled = _spelled({name: name for name in names})
    for record in read_records(table):
        name = record.text("file").replace("\\", "/").removeprefix("./")
        full = name if above == "." else f"{above}/{name}"
        full = spelled.get(full) or spelled.get(_composed(full), full)
        if record.error or not name:
            bad.append(Bad(f"{at}, {record.where}", record.error or "names no file"))
        elif full not in names:
            bad.append(Bad(f"{at}, {record.where}", f"{name[:100]} is not there"))
        else:
            texts[full] += record.texts()
            label = record.label()
            if label and labels.setdefault(full, label) != label:
                bad.append(Bad(f"{at}, {record.where}", _other_class(name, labels[full], label)))


T = TypeVar("T")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _spelled(known: Mapping[str, T]) -> dict[str, T]:
    """What is known by a name, by its composed form (NFC), too, where that is of one alone:
    a Mac may write the names of files decomposed, and a table made elsewhere composed.
    """
    forms = Counter(map(_composed, known))
    alone = {form: of for name, of in known.items() if forms[form := _composed(name)] == 1}
    return alone | dict(known)


def _other_class(name: str, first: str, label: str) -> str:
    return f"{name[:100]} is of class {first[:60]!r} before, and of {label[:60]!r} here"


def _classes(names: dict[str, Path]) -> dict[str, str]:
    """The class of each image, where each lies in a folder of one: the first folder of
    its path that does not name a split, if there are two and more of them.
    """
    found = {}
    for name in names:
        parts = [p for p in PurePosixPath(name).parts[:-1] if p.lower() not in SPLITS]
        if not parts:
            return {}
        found[name] = parts[0]
    return found if len(set(found.values())) > 1 else {}


# ------------------------------------------------------------------------------ the rest


def _cifar(place: Path) -> Source:
    batches = read_cifar(place)
    names = dict(enumerate(batches.classes))

    def one(row: int) -> Callable[[], np.ndarray]:
        return lambda: batches.images[row]

    items = [
        Item(f"train/{row:05d}", one(row), (), names.get(int(label), str(label)), int(label))
        for row, label in enumerate(batches.labels)
    ]
    return Source(place.name or place.resolve().name, items, classes=tuple(batches.classes))


def _with_captions(source: Source, file: Path) -> Source:
    """The source with the captions of a table: its file names are paths below the data
    or longer ones that end with these, or, where they name no folder and are unique,
    names with or without their endings.
    """
    whole: dict[str, int] = {}
    for i, item in enumerate(source.items):
        whole.setdefault(item.name, i)
    by_name = dict(whole)
    for short in (_last, _stem):
        counts = Counter(short(item.name) for item in source.items)
        for i, item in enumerate(source.items):
            if counts[short(item.name)] == 1:
                by_name.setdefault(short(item.name), i)
    by_name, whole = _spelled(by_name), _spelled(whole)
    texts: dict[int, list[str]] = defaultdict(list)
    labels: dict[int, str] = {}
    bad, known = list(source.bad), 0
    for record in read_records(file):
        name = record.text("file").replace("\\", "/").removeprefix("./")
        name = name if name in by_name else _composed(name)
        place = by_name.get(name)
        if place is None and "/" in name:  # a longer path; not the same name elsewhere
            tails = (name[at + 1 :] for at, sign in enumerate(name) if sign == "/")
            place = next((whole[tail] for tail in tails if tail in whole), None)
        if record.error or not name:
            bad.append(Bad(f"{file.name}, {record.where}", record.error or "names no file"))
        elif place is None:
            bad.append(Bad(f"{file.name}, {record.where}", f"{name[:100]} is not there"))
        else:
            known += 1
            texts[place] += record.texts()
            label = record.label()
            if label and labels.setdefault(place, label) != label:
                why = _other_class(name, labels[place], label)
                bad.append(Bad(f"{file.name}, {record.where}", why))
    if not known:
        raise UserError(
            f"captions: {file} names no image of the data"
            f" ({bad[-1].name}: {bad[-1].why}); it needs columns file_name and text"
            if bad
            else f"captions: {file} holds no row"
        )
    items = [
        replace(
            item,
            texts=tuple(dict.fromkeys(texts.get(i, ()))),
            label=labels.get(i, item.label),
            number=item.number if labels.get(i, item.label) == item.label else None,
        )
        for i, item in enumerate(source.items)
    ]
    return replace(source, items=items, bad=bad)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return _last(name).rsplit(".", 1)[0]
