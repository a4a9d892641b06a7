"""CelebA (Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015) in its
official layout, whole or any part of it; also as torchvision unpacks it, and as Kaggle
has it, with CSV annotations.

The crop is that of StyleGAN (``create_celeba``: cx = 89, cy = 121, half a side of 64
pixels) and of DDIM, whose CelebA 64x64 is the usual one: columns 25 to 152 and rows 57
to 184 of the aligned 178 x 218 images. As in DDIM the 128 x 128 crop is then resized
by Pillow's bilinear filter, which is antialiased (torchvision's ``Resize`` of a Pillow
image).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from membench.errors import UserError, reason
from membench.storage import host
from membench.storage.cache import cached_array
from membench.storage.hashing import content_key

HOME = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

FOLDER, IDENTITY, ATTRIBUTES, PARTITION = (
    "img_align_celeba",
    "identity_CelebA.txt",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)

WIDTH, HEIGHT = 178, 218  # of the aligned images
CROP = (25, 57, 153, 185)  # left, upper, right, lower; the latter two excluded
BLOCK = 512  # images read at once
DIGEST = 16  # bytes of an image's BLAKE2b


@dataclass(frozen=True, eq=False)
class CelebA:
    """n annotated images, in the order of their file names, each with what is known
    of it.

    images: ``uint8`` [n, size, size, 3], a read-only memory map. key: its content key,
    the same wherever the same files lie. identities: int64 [n], -1 where unknown.
    names: the files'. partition: int8 [n], 0 train, 1 validation, 2 test, -1 unknown.
    attributes: int8 [n, 40], 1 and -1 as in the file, 0 where unknown; None and no
    attribute_names without the file. notes: what is missing or left out, a line each.
    """

    images: np.ndarray
    key: str
    identities: np.ndarray
    names: tuple[str, ...]
    partition: np.ndarray
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """An annotation file. rows: the row of a file name in values, int32 [m, columns]."""

    rows: dict[str, int]
    values: np.ndarray

    def of(self, names: tuple[str, ...], unknown: int) -> np.ndarray:
        """[n, columns], ``unknown`` for names that the file does not hold."""
        rows = np.array([self.rows.get(name, -1) for name in names])
        return np.where(
            rows[:, None] < 0, unknown, self.values[rows] if len(self.values) else unknown
        )


def read_celeba(root: Path, size: int, *, training: bool = False, progress: bool = True) -> CelebA:
    """Every image in ``root/img_align_celeba`` that an annotation file names, cropped
    and resized to size x size pixels.

    training: of the training split only.

    Each of the three annotation files may be missing; without any, all images are
    taken. The pixels are kept by :func:`membench.storage.cache.cached_array` under the
    BLAKE2b of the files' bytes; these digests are kept too, under the files' names,
    sizes and times (modification and inode change, ns), so that a folder that nobody
    touched is not read again.

    Raises :class:`UserError` for a folder of another layout, an annotation line that is
    malformed, and an image that cannot be decoded or is not an aligned one; ValueError
    for ``size`` < 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}, but must be at least 1")
    root = _home(root)
    folder = _image_folder(root)
    found = _listing(root)
    tables, attribute_names = _tables(root)
    annotated = set().union(*(t.rows for t in tables.values())) if tables else set(found)
    names = tuple(sorted(annotated & found.keys()))
    if not names:
        raise UserError(
            f"none of the {len(found)} images in {folder} is named in"
            f" {', '.join(sorted(tables))}; {_layout()}"
        )
    if training:
        if PARTITION not in tables:
            raise UserError(
                f"{root} lacks {PARTITION}, which says what the training split is; get it, or"
                " choose split=all"
            )
        split = tables[PARTITION].of(names, -1)[:, 0]
        names = tuple(name for name, part in zip(names, split, strict=True) if part == 0)
        if not names:
            raise UserError(
                f"no image in {folder} is of the training split of {PARTITION}; choose split=all"
            )
    notes = [
        f"{file} is not there" for file in (IDENTITY, ATTRIBUTES, PARTITION) if file not in tables
    ]
    notes += _counted(len(annotated - found.keys()), "annotated image", "not there and left out")
    notes += _counted(len(found.keys() - annotated), "image", "without annotation and left out")
    for file, table in tables.items():
        notes += _counted(len(set(names) - table.rows.keys()), "image", f"not named in {file}")

    key, images = _images(folder, names, [found[name] for name in names], size, progress)

    def known(file: str, unknown: int) -> np.ndarray:
        return (
            tables[file].of(names, unknown) if file in tables else np.full((len(names), 1), unknown)
        )

    return CelebA(
        images=images,
        key=key,
        identities=known(IDENTITY, -1)[:, 0].astype(np.int64),
        names=names,
        partition=known(PARTITION, -1)[:, 0].astype(np.int8),
        attributes=known(ATTRIBUTES, 0).astype(np.int8) if ATTRIBUTES in tables else None,
        attribute_names=attribute_names,
        notes=tuple(notes),
    )


def _home(root: Path) -> Path:
    """Where the data set lies: in the folder, or in its ``celeba``, as torchvision
    keeps it.
    """
    inner = root / "celeba"
    return inner if not (root / FOLDER).is_dir() and (inner / FOLDER).is_dir() else root


def _image_folder(root: Path) -> Path:
    """The folder of the images; Kaggle's archive has it twice, one in the other."""
    inner = root / FOLDER / FOLDER
    return inner if inner.is_dir() else root / FOLDER


def _layout() -> str:
    return (
        f"expected are {FOLDER}/*.jpg, {IDENTITY}, {ATTRIBUTES} and {PARTITION} of {HOME} side by"
        " side"
    )


def _counted(n: int, what: str, how: str) -> list[str]:
    return [f"{n} {what}{' is' if n == 1 else 's are'} {how}"] if n else []


def _listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size in bytes, modification and inode change in ns of each image, by its name;
    hidden files, such as the ``._*`` that macOS puts beside each, are none.
    """
    try:
        with os.scandir(_image_folder(root)) as entries:
            stats = {
                e.name: e.stat()
                for e in entries
                if e.name.lower().endswith(".jpg") and e.name[0] != "."
            }
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{root} holds no {FOLDER}; {_layout()}") from None
    except OSError as error:
        raise UserError(f"cannot read {root / FOLDER}: {error.strerror or error}") from error
    if not stats:
        raise UserError(f"{root / FOLDER} holds no .jpg; {_layout()}")
    return {name: (s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in stats.items()}


# -------------------------------------------------------------------------- annotations


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read ({reason(error)}); fetch it again from {HOME}"
        ) from error
    if file.suffix == ".csv":  # no cell of theirs is quoted or holds a space
        lines = [line.replace(",", " ") for line in lines]
    return lines


def _file(root: Path, name: str) -> Path:
    """An annotation file: the official ``.txt`` or Kaggle's ``.csv``."""
    table = (root / name).with_suffix(".csv")
    return table if table.is_file() and not (root / name).is_file() else root / name


def _tables(root: Path) -> tuple[dict[str, _Table], tuple[str, ...]]:
    """The annotation files that are there, by name, and the attributes' names."""
    tables: dict[str, _Table] = {}
    names: tuple[str, ...] = ()
    for name, column, valid in (
        (IDENTITY, "identity", lambda v: 0 <= v < 2**31),
        (PARTITION, "partition", lambda v: v in (0, 1, 2)),
    ):
        if (file := _file(root, name)).is_file():
            skip = int(file.suffix == ".csv")  # its header
            tables[name] = _annotations(file, _lines(file), (column,), valid, skip=skip)
    if (file := _file(root, ATTRIBUTES)).is_file():
        lines, count = _lines(file), None
        if file.suffix == ".csv":
            names = tuple((lines[0] if lines else "").split()[1:])
        else:
            count, names = _attribute_header(file, lines)
        skip = 1 if file.suffix == ".csv" else 2
        tables[ATTRIBUTES] = _annotations(
            file, lines, names, lambda v: v in (-1, 1), skip=skip, count=count
        )
    return tables, names


def _attribute_header(file: Path, lines: list[str]) -> tuple[int, tuple[str, ...]]:
    """How many images the first line announces, and the attributes that the second
    names.
    """
    count, names, *_ = [*lines[:2], "", ""]
    if not count.strip().isdecimal():
        raise UserError(
            f"{file}, line 1: expected the number of images, not {count.strip()[:60]!r}; fetch it"
            f" again from {HOME}"
        )
    if not names.split() or len(set(names.split())) < len(names.split()):
        raise UserError(
            f"{file}, line 2: expected the attributes' names, not {names.strip()[:60]!r}; fetch it"
            f" again from {HOME}"
        )
    return int(count), tuple(names.split())


def _annotations(
    file: Path,
    lines: list[str],
    columns: tuple[str, ...],
    valid: Callable[[int], bool],
    *,
    skip: int = 0,
    count: int | None = None,
) -> _Table:
    """Lines of a file name and one whole number a column. skip: lines of the header.
    count: of images, as the header announces it.

    Raises :class:`UserError` with file and line number for any other line, and for a
    name that stands twice.
    """
    rows: dict[str, int] = {}
    values = np.empty((len(lines), len(columns)), np.int32)
    # One look at each text of a number: the official file holds eight million, of two
    # kinds
    known: dict[str, int] = {}
    for number, line in enumerate(lines[skip:], 1 + skip):
        name, *numbers = line.split() or [""]
        if not name:
            continue
        if len(numbers) != len(columns):
            expected = f"a file name and {len(columns)} number{'s' * (len(columns) > 1)}"
            raise UserError(
                f"{file}, line {number}: expected {expected}, not {line.strip()[:60]!r}; fetch it"
                f" again from {HOME}"
            )
        if name in rows:
            raise UserError(
                f"{file}, line {number}: {name} stands there twice; fetch it again from {HOME}"
            )
        for text in dict.fromkeys(numbers):
            if text in known:
                continue
            if not (text.removeprefix("-").isdecimal() and valid(int(text))):
                what = columns[numbers.index(text)]
                raise UserError(
                    f"{file}, line {number}: {what} cannot be {text[:60]!r}; fetch it again from"
                    f" {HOME}"
                )
            known[text] = int(text)
        values[len(rows)] = [known[text] for text in numbers]
        rows[name] = len(rows)
    if count is not None and count != len(rows):
        raise UserError(
            f"{file}: its first line announces {count} images, but {len(rows)} follow; fetch it"
            f" again from {HOME}"
        )
    return _Table(rows, values[: len(rows)])


# ------------------------------------------------------------------------------- images


def _images(
    folder: Path,
    names: tuple[str, ...],
    stats: list[tuple[int, int, int]],
    size: int,
    progress: bool,
) -> tuple[str, np.ndarray]:
    """(content key, pixels ``uint8`` [n, size, size, 3]) of the images."""

    def read(make: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
        # Threads, since Pillow and hashlib let go of the interpreter; map keeps the
        # order, and with it which error comes first.
        with ThreadPoolExecutor(min(8, host.cores())) as pool:
            for start in range(0, len(names), BLOCK):
                yield np.stack(
                    list(pool.map(lambda name: make(folder / name), names[start : start + BLOCK]))
                )

    state = hashlib.sha256(
        repr([str(folder.resolve()), *zip(names, stats, strict=True)]).encode()
    ).hexdigest()
    parts = {"folder": state, "digest": f"blake2b-{DIGEST}"}
    digests = cached_array(
        "celeba-digests",
        parts,
        (len(names), DIGEST),
        np.uint8,
        lambda: read(_digest),
        progress=progress,
    )
    contents = hashlib.sha256(digests.tobytes()).hexdigest()
    pixels = {"files": contents, "crop": CROP, "resize": "pillow-bilinear", "size": size}
    shape = (len(names), size, size, 3)
    images = cached_array(
        "celeba",
        pixels,
        shape,
        np.uint8,
        lambda: read(lambda file: _picture(file, size)),
        progress=progress,
    )
    return content_key(pixels), images


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error


def _digest(file: Path) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(_bytes(file), digest_size=DIGEST).digest(), np.uint8)


def _picture(file: Path, size: int) -> np.ndarray:
    """``uint8`` [size, size, 3]."""
    try:
        with Image.open(io.BytesIO(_bytes(file)), formats=("JPEG",)) as image:
            if image.size != (WIDTH, HEIGHT):
                raise UserError(
                    f"{file} is {image.width} x {image.height}, not {WIDTH} x {HEIGHT}: take the"
                    f" aligned images of {HOME}"
                )
            return np.asarray(
                image.convert("RGB").crop(CROP).resize((size, size), Image.Resampling.BILINEAR)
            )
    # Whatever Pillow raises for damage
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = re.sub(r" ?<_io\.BytesIO[^>]*>", "", " ".join(str(error).split()))[:100]
        raise UserError(
            f"{file} is not a whole JPEG ({why}); fetch it again, or delete it, and it counts as"
            " missing"
        ) from error
