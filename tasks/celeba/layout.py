"""CelebA as it lies on a disk: folder, identities, attributes, partition, in the official
and other layouts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from membench.errors import UserError, reason

HOME = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


FOLDER, IDENTITY, ATTRIBUTES, PARTITION = (
    "img_align_celeba",
    "identity_CelebA.txt",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)


def home(root: Path) -> Path:
    """Where the data set lies: in the folder, or in its ``celeba``, as torchvision
    keeps it.
    """
    inner = root / "celeba"
    return inner if not (root / FOLDER).is_dir() and (inner / FOLDER).is_dir() else root


def image_folder(root: Path) -> Path:
    """The folder of the images; Kaggle's archive has it twice, one in the other."""
    inner = root / FOLDER / FOLDER
    return inner if inner.is_dir() else root / FOLDER


def expected() -> str:
    """What a user is told of the layout."""
    return (
        f"expected are {FOLDER}/*.jpg, {IDENTITY}, {ATTRIBUTES} and {PARTITION} of {HOME} side by"
        " side"
    )


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


def counted(n: int, what: str, how: str) -> list[str]:
    """A note of n things; none of no thing."""
    return [f"{n} {what}{' is' if n == 1 else 's are'} {how}"] if n else []


def listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size in bytes, modification and inode change in ns of each image, by its name;
    hidden files, such as the ``._*`` that macOS puts beside each, are none.
    """
    try:
        with os.scandir(image_folder(root)) as entries:
            images = [e for e in entries if e.name.lower().endswith(".jpg") and e.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{root} holds no {FOLDER}; {expected()}") from None
    except OSError as error:
        raise UserError(f"cannot read {root / FOLDER}: {error.strerror or error}") from error
    if not images:
        raise UserError(f"{root / FOLDER} holds no .jpg; {expected()}")
    found = {}
    for image in images:
        try:
            s = image.stat()
        except OSError as error:
            lost = isinstance(error, FileNotFoundError) and image.is_symlink()
            why = "a link to nothing" if lost else error.strerror or error
            raise UserError(
                f"{image.path} cannot be read ({why}); fetch it again from {HOME}"
            ) from None
        found[image.name] = (s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return found


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


def read_tables(root: Path) -> tuple[dict[str, _Table], tuple[str, ...]]:
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


def _is_number(text: str) -> bool:
    """Whether it is a whole number, and of a length that Python reads."""
    return text.isdecimal() and len(text) <= 20


def _attribute_header(file: Path, lines: list[str]) -> tuple[int, tuple[str, ...]]:
    """How many images the first line announces, and the attributes that the second
    names.
    """
    count, names, *_ = [*lines[:2], "", ""]
    if not _is_number(count.strip()):
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
            if not (_is_number(text.removeprefix("-")) and valid(int(text))):
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
