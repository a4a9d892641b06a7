"""The hub's cache: the snapshot of a repository that it holds, and what this lacks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from membench.fetching.hub_files import VARIANTS, is_wanted, is_weight, of_variant, variant_of
from membench.storage.reading import parse_json

# Of shards: model.safetensors.index.json, model.safetensors.index.fp16.json
INDEX = re.compile(r"\.index\.(\w+\.)?json$")


def cached_folder(
    repo_id: str,
    revision: str,
    patterns: Sequence[str],
    ignore: Sequence[str],
    required: Sequence[str],
    variant: str,
) -> tuple[Path | None, list[str]]:
    """The cached snapshot, if there is any, and what it lacks."""
    folder = _snapshot(repo_id, revision, [], [])
    if folder is None:
        return None, []
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("[!.]*") if p.is_file()]
    wanted = of_variant([f for f in files if is_wanted(f, patterns, ignore)], variant)
    # huggingface_hub misses every file that it has seen in the repository's list and
    # that is not ignored. Older versions kept no such list: an interrupted download
    # then looks like a whole one.
    chosen = {str(PurePosixPath(f).parent) for f in wanted if is_weight(f) and variant_of(f)}
    beside = [f"*.{v}{end}*" for v in VARIANTS if v != variant for end in ".-"]
    unwanted = [*ignore, *beside, *(f"{place}/*.safetensors*" for place in chosen)]
    if _snapshot(repo_id, revision, patterns, unwanted) is None:
        return None, []
    needs = required or (
        ["*.safetensors"] if any(p.endswith(".safetensors") for p in patterns) else ["*"]
    )
    # Else plain files that were fetched before hide that the hub has what is asked for
    absent = variant and all(variant_of(f) != variant for f in wanted if is_weight(f))
    return folder, [
        *unmet(needs, wanted),
        *_lost_shards(folder, wanted),
        *([f"*.{variant}.safetensors"] if absent else []),
    ]


def _snapshot(
    repo_id: str, revision: str, patterns: Sequence[str], ignore: Sequence[str]
) -> Path | None:
    """The cached snapshot, if it is whole as far as these files go."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision or None,
                allow_patterns=[*patterns],
                ignore_patterns=[*ignore],
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None


def unmet(required: Sequence[str], files: Sequence[str]) -> list[str]:
    """The patterns of ``required`` that no file matches. ``A|B``: either will do;
    ``A => B``: B where a file matches A.
    """
    lost = []
    for need in required:
        condition, _, wanted = need.rpartition(" => ")
        if (not condition or _met(condition, files)) and not _met(wanted, files):
            lost.append(wanted)
    return lost


def _met(need: str, files: Sequence[str]) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in need.split("|") for file in files)


def _lost_shards(folder: Path, files: Sequence[str]) -> list[str]:
    """Files that an index of shards among ``files`` names and that are not there."""
    lost: list[str] = []
    for index in (file for file in files if INDEX.search(file)):
        # A damaged index is told when it is read
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            names = parse_json((folder / index).read_bytes())["weight_map"].values()
            beside = PurePosixPath(index).parent
            lost += [
                str(beside / name)
                for name in sorted({str(n) for n in names})
                if str(beside / name) not in files
            ]
    return lost
