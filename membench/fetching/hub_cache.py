"""The hub's cache: the snapshot of a repository that it holds, and what this lacks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from membench.fetching.hub_files import is_wanted, is_weight, of_variant, variant_of


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
    beside = [f"*.{v}{end}*" for v in ("fp16", "bf16", "non_ema") for end in ".-"]
    unwanted = [*ignore, *beside, *(f"{place}/*.safetensors*" for place in chosen)]
    if _snapshot(repo_id, revision, patterns, unwanted) is None:
        return None, []
    needs = required or (
        ["*.safetensors"] if any(p.endswith(".safetensors") for p in patterns) else ["*"]
    )
    return folder, [
        *(need for need in needs if not met(need, wanted)),
        *_lost_shards(folder, wanted),
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


def met(need: str, files: Sequence[str]) -> bool:
    """Whether a file matches a pattern of ``need``, ``A|B``."""
    return any(fnmatchcase(file, pattern) for pattern in need.split("|") for file in files)


def _lost_shards(folder: Path, files: Sequence[str]) -> list[str]:
    """Files that an index of shards among ``files`` names and that are not there."""
    lost: list[str] = []
    for index in (file for file in files if file.endswith(".index.json")):
        # A damaged index is told when it is read
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            names = json.loads((folder / index).read_bytes())["weight_map"].values()
            beside = PurePosixPath(index).parent
            lost += [
                str(beside / name)
                for name in sorted({str(n) for n in names})
                if str(beside / name) not in files
            ]
    return lost
