"""Folders of the cache, each proved by the SHA-256 of its files and made again where it
is not what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from membench.errors import UserError
from membench.storage.cache import remembered_hash
from membench.storage.files import CACHE, DamagedFile, atomic_folder
from membench.storage.hashing import files_hashes
from membench.storage.reading import parse_json

PROOF = ".sha256.json"  # in the folder; hidden files are no part of what is proved


def cached_folder(path: Path, make: Callable[[Path], object]) -> Path:
    """The folder ``path``, which ``make`` has filled, now or before. It is proved each
    time that it is asked for; files that are large and have not changed, once
    (:func:`remembered_hash`).

    make: fills the empty folder that it is given; what it makes may be deleted at any
    time. Of two processes at once, the second waits. Raises UserError if the disk
    refuses.
    """

    def proved(aside: Path) -> None:
        make(aside)
        (aside / PROOF).write_text(json.dumps(files_hashes(aside, remembered_hash)))

    if not _is_proved(path):
        atomic_folder(path, proved, is_whole=_is_proved, advice=CACHE)
    return path


def check_folder(folder: Path) -> Path:
    """A folder that a user names, or a part of one. Raises DamagedFile for one of the
    cache that is not what was written there, and UserError for one of the hub's cache
    that holds snapshots; of other folders nothing is known.
    """
    for place in (folder, folder.absolute().parent):
        if (place / PROOF).is_file() and not _is_proved(place):
            raise DamagedFile(
                f"{place} is a folder of membench's cache and not what was written there: delete"
                " it, and it is made again; to keep it as it is, copy it without its"
                f" {PROOF}"
            )
    if (folder / "snapshots").is_dir() and (folder / "blobs").is_dir():
        found = sorted(p for p in (folder / "snapshots").glob("[!.]*") if p.is_dir())
        raise UserError(
            f"{folder} is a repository of the Hugging Face hub's cache; give its snapshot, "
            + (str(found[0]) if found else "of which there is none yet")
        )
    return folder


def _is_proved(folder: Path) -> bool:
    try:
        return bool(
            parse_json((folder / PROOF).read_bytes()) == files_hashes(folder, remembered_hash)
        )
    except (OSError, ValueError, UserError):  # none, or damaged itself
        return False
