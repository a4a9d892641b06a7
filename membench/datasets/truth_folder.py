"""The images that a folder of ground truth holds, in whichever layout it has, and what
each is said to be.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from membench.datasets.img2dataset import read_downloads
from membench.datasets.prompts import read_prompt_file
from membench.errors import UserError
from membench.fetching.download_status import STATUS, StatusTable
from membench.storage.reading import read_text

TRUTH, FOLDERS = "truth.csv", "gt_images"

LAYOUTS = (
    f"{STATUS} of a download, img2dataset's output, {FOLDERS}/INDEX/*.png, INDEX.jpg, or {TRUTH}"
    " with columns prompt,file"
)

# What lies beside images, as img2dataset writes it
BESIDE = frozenset({".csv", ".json", ".jsonl", ".md", ".parquet", ".txt"})


@dataclass(frozen=True)
class TruthImage:
    """A file and what it is said to be: a key (LAION index, example id or prompt),
    addresses, captions. sha256: "" where not known.
    """

    path: Path
    key: str = ""
    urls: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    sha256: str = ""


def listed(folder: Path) -> list[TruthImage]:
    """All images of the folder's layout, whether or not a prompt has them."""
    if (folder / TRUTH).is_file():
        return list(_truth(folder))
    if (folder / STATUS).is_file():
        rows = StatusTable(folder).rows.values()
        return [
            TruthImage(folder / r.file, r.id.partition("/")[0], (r.url,), (), r.sha256)
            for r in rows
            if r.status == "ok"
        ]
    if downloads := read_downloads(folder):  # their keys are running numbers, no index
        return [TruthImage(d.path, "", (d.url,), (d.caption,)) for d in downloads]
    told = _json_lines(folder)
    place = folder / FOLDERS if (folder / FOLDERS).is_dir() else folder
    found = []
    for entry in _entries(place):
        key = entry.name if entry.is_dir() else entry.stem
        urls, texts = told.get(key, ((), ()))
        found += [
            TruthImage(file, key, urls, texts)
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


def _truth(folder: Path) -> Iterator[TruthImage]:
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
            if None in row:
                raise UserError(
                    f"{path}, line {reader.line_num}: more fields than the header has; quote a"
                    " prompt that holds ','"
                )
            prompt, name = (row["prompt"] or "").strip(), (row["file"] or "").strip()
            if not (prompt and name):
                raise UserError(
                    f"{path}, line {reader.line_num}: the {'file' if prompt else 'prompt'} is empty"
                )
            yield TruthImage(folder / name, texts=(prompt,))
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
