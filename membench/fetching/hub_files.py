"""Which files of a repository are wanted: of one variant, and never a pickle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath, PureWindowsPath

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")

# A weight file's variant, in a name or in an index's: model.fp16.safetensors,
# model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json.
VARIANTS = ("fp16", "bf16", "non_ema")
VARIANT = re.compile(rf"\.({'|'.join(VARIANTS)})[.-]")
SAME_MODEL = ("", "fp16", "bf16")


def of_variant(files: Sequence[str], variant: str) -> list[str]:
    """Of each folder the weight files that are read, and all others.

    variant: that one where the folder has it, else the plain files. "": the plain
    files, else fp16, else bf16: second copies are not fetched.
    """
    kinds: dict[str, set[str]] = {}
    for file in files:
        if is_weight(file):
            kinds.setdefault(str(PurePosixPath(file).parent), set()).add(variant_of(file))
    order = (variant, "") if variant else SAME_MODEL
    chosen = {place: next((v for v in order if v in has), "") for place, has in kinds.items()}
    return [
        file
        for file in files
        if not is_weight(file) or variant_of(file) == chosen[str(PurePosixPath(file).parent)]
    ]


def is_weight(file: str) -> bool:
    return file.endswith((".safetensors", ".bin")) or ".safetensors.index." in file


def variant_of(file: str) -> str:
    found = VARIANT.search(PurePosixPath(file).name)
    return found[1] if found else ""


def pickled(files: Sequence[str], patterns: Sequence[str], ignore: Sequence[str] = ()) -> list[str]:
    """Pickles in those folders whose safetensors the patterns ask for, but which hold
    none that are wanted.
    """
    bad = []
    for file in files:
        path = PurePosixPath(file)
        if path.suffix not in PICKLES or any(fnmatchcase(file, p) for p in ignore):
            continue
        if not is_wanted(str(path.parent / "model.safetensors"), patterns, ignore):
            continue  # of no interest, such as a whole checkpoint beside a pipeline's folders
        beside = [
            f
            for f in files
            if PurePosixPath(f).parent == path.parent and f.endswith(".safetensors")
        ]
        if not any(is_wanted(f, patterns, ignore) for f in beside):
            bad.append(file)
    return bad


def is_wanted(file: str, patterns: Sequence[str], ignore: Sequence[str]) -> bool:
    return any(fnmatchcase(file, p) for p in patterns) and not any(
        fnmatchcase(file, p) for p in ignore
    )


def leads_out(file: str) -> bool:
    """Whether a name is no path in a repository on every system: absolute, or with ``..``."""
    parts = file.split("/")
    return (
        PurePosixPath(file).is_absolute()
        or ".." in file.replace("\\", "/").split("/")
        or any(PureWindowsPath(part).anchor for part in parts)
    )


def bins(pattern: str) -> str:
    return pattern.replace(".safetensors", ".bin")


def with_bins(patterns: Sequence[str]) -> list[str]:
    return [bins(p) for p in patterns]
