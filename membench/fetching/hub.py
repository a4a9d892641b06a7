"""Models and data sets of the Hugging Face hub: what is in its cache first, without a
network; else fetched; every refusal one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from membench.errors import UserError
from membench.fetching import net
from membench.fetching.hub_cache import cached_folder, unmet
from membench.fetching.hub_errors import (
    advice_line,
    ask_hub,
    at_revision,
    is_id,
    page_of,
    repo_name,
    why_not,
)
from membench.fetching.hub_files import (
    bins,
    is_wanted,
    leads_out,
    of_variant,
    pickled,
    with_bins,
)
from membench.storage.cached_folders import check_folder


class Incomplete(UserError):
    """A snapshot is in the hub's cache, but not all of it, and the rest is not to be
    fetched.
    """


def parse_model_name(name: str) -> tuple[str, str]:
    """``ID`` or ``ID@REVISION`` -> (hub id, revision or "").

    Raises :class:`UserError` for what is not a hub id.
    """
    repo_id, at, revision = name.partition("@")
    if not is_id(repo_id) or (at and not revision):
        _, url, there = name.partition("huggingface.co/")
        page = "/".join(there.split("/")[:2])
        raise UserError(
            f"model {name!r} is neither a folder nor a hub id such as google/ddpm-cifar10-32 (or"
            " ID@REVISION)" + (f"; did you mean {page}?" if url and is_id(page) else "")
        )
    return repo_id, revision


def model_folder(
    name: str,
    *,
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
    required: Sequence[str] = (),
    pickles: bool = False,
    variant: str = "",
    local_only: bool = False,
    advice: str = "",
) -> Path:
    """The folder called ``name`` if there is one, else that of the hub's model ``ID``
    or ``ID@REVISION``: see :func:`hub_folder`.
    """
    folder = Path(name)
    if folder.is_dir():
        return check_folder(folder)
    if folder.is_file():
        raise UserError(
            f"model {name} is a file: give the folder of the pipeline, with the configurations of"
            " its network and of its scheduler"
        )
    repo_id, revision = parse_model_name(name)
    return hub_folder(
        repo_id,
        revision,
        patterns=patterns,
        ignore=ignore,
        required=required,
        pickles=pickles,
        variant=variant,
        local_only=local_only,
        advice=advice,
    )


def hub_folder(
    repo_id: str,
    revision: str = "",
    *,
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
    required: Sequence[str] = (),
    pickles: bool = False,
    variant: str = "",
    local_only: bool = False,
    advice: str = "",
) -> Path:
    """The snapshot folder of a model repository: the cached one if it is whole, without
    any network; else it is fetched.

    A cached ``main`` is not compared with the hub's: name another revision to get
    another. patterns, ignore: which files (``fnmatch`` on the path in the repository,
    where ``*`` takes in ``/``). required: patterns (:func:`unmet`) that each match a
    file of a whole snapshot, as do the names in an index of shards; a snapshot that an
    interrupted download left is completed. variant: which of several copies of the
    weights (:func:`of_variant`); a snapshot that has none of it is completed, too.
    Weights are safetensors: a repository one of whose folders in question holds a
    pickle (``.bin``, ``.ckpt``, ...) in their place is refused before anything is
    fetched, unless ``pickles``: the caller then reads ``*.bin``, tensors only.
    local_only: as under ``--offline``.
    advice: what to do, put after "not in the hub's cache" and after a failure.

    Raises :class:`UserError` for a repository, revision or file that does not exist, a
    gated repository, a pickle, a snapshot that is not cached where the network is
    forbidden or fails, and a full disk; :class:`Incomplete`, file by file, for one that
    is cached in part.
    """
    found, lost = cached_folder(repo_id, revision, patterns, ignore, required, variant)
    if found and lost and pickles:
        other = cached_folder(
            repo_id, revision, with_bins(patterns), ignore, [bins(p) for p in required], variant
        )
        found, lost = other if not other[1] else (found, lost)
    if found and not lost:
        return found
    if local_only or net.offline():
        if found:
            files = ", ".join(need.replace("|", " or ") for need in lost)
            raise Incomplete(
                f"{repo_name('model', repo_id, revision)} is in the hub's cache in part: {files}"
                f" {'is' if len(lost) == 1 else 'are'} missing, {why_not()}{advice_line(advice)}"
            )
        raise UserError(
            f"{repo_name('model', repo_id, revision)} is not in the hub's cache,"
            f" {why_not()}{advice_line(advice)}"
        )
    return ask_hub(
        "model",
        repo_id,
        revision,
        advice,
        lambda: _fetch_folder(repo_id, revision, patterns, ignore, required, pickles, variant),
    )


def hub_folder_of(
    choices: Sequence[tuple[str, str]],
    *,
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
    required: Sequence[str] = (),
    variant: str = "",
    local_only: bool = False,
    advice: str = "",
) -> tuple[Path, str, str]:
    """(folder, id, revision) of the first of several equal repositories, (id, revision)
    each, that is cached, else that can be fetched.

    Says on stderr if it is not the first. Raises :class:`UserError` as
    :func:`hub_folder`; if none can be had, with the reason of each.
    """
    if not choices:
        raise ValueError("no repository to choose from")
    failures: list[str] = []
    refusal: type[UserError] = UserError
    for local in (True, False):
        if not local and (local_only or net.offline()):
            break
        failures = []
        for repo_id, revision in choices:
            try:
                folder = hub_folder(
                    repo_id,
                    revision,
                    patterns=patterns,
                    ignore=ignore,
                    required=required,
                    variant=variant,
                    local_only=local,
                    advice="" if failures else advice,
                )
            except UserError as error:
                failures.append(str(error))
                refusal = Incomplete if isinstance(error, Incomplete) else refusal
                continue
            if (repo_id, revision) != tuple(choices[0]):
                how = "is in the cache" if local else f"is taken ({failures[0]})"
                print(
                    f"membench: {choices[0][0]}: its mirror {at_revision(repo_id, revision)} {how}",
                    file=sys.stderr,
                )
            return folder, repo_id, revision
    raise refusal("; ".join(failures))


def hub_file(
    repo_id: str,
    filename: str,
    revision: str = "",
    *,
    repo_type: str = "dataset",
    local_only: bool = False,
    advice: str = "",
) -> Path:
    """One file of a repository (``repo_type``: dataset or model), from the cache, else
    fetched. Raises as :func:`hub_folder`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = f"{filename} of {repo_name(repo_type, repo_id, revision)}"

    def get(local: bool) -> Path:
        return Path(
            hf_hub_download(
                repo_id,
                filename,
                revision=revision or None,
                repo_type=repo_type,
                local_files_only=local,
            )
        )

    def fetch() -> Path:
        if filename not in _listing(repo_type, repo_id, revision):
            raise UserError(
                f"{repo_name(repo_type, repo_id, revision)} has no file {filename}: see"
                f" {page_of(repo_type, repo_id)}/tree/{revision or 'main'}"
            )
        return get(local=False)

    if not is_id(repo_id):
        raise UserError(f"{repo_id!r} is not a hub id such as owner/name")
    check_file_name(filename)
    try:
        return get(local=True)
    except LocalEntryNotFoundError:
        if local_only or net.offline():
            raise UserError(
                f"{what} is not in the hub's cache, {why_not()}{advice_line(advice)}"
            ) from None
    return ask_hub(repo_type, repo_id, revision, advice, fetch)


def check_file_name(filename: str) -> None:
    """Raises :class:`UserError` for what is no path in a repository, on any system."""
    if leads_out(filename):
        raise UserError(
            f"{filename[:100]!r} is no file of a hub repository; give its path in there, such as"
            " data/eval.parquet"
        )


# ---------------------------------------------------------------------------- snapshots


def _fetch_folder(
    repo_id: str,
    revision: str,
    patterns: Sequence[str],
    ignore: Sequence[str],
    required: Sequence[str],
    pickles: bool,
    variant: str,
) -> Path:
    from huggingface_hub import snapshot_download

    files = _listing("model", repo_id, revision)
    if bad := pickled(files, patterns, ignore):
        if not pickles:
            raise UserError(
                f"{repo_name('model', repo_id, revision)} has {', '.join(bad[:3])} and no"
                " safetensors beside it: a pickle can run any code when it is loaded, so membench"
                " refuses it; save it anew as safetensors (pipeline.save_pretrained), or take"
                " another copy"
            )
        patterns, required = with_bins(patterns), [bins(p) for p in required]
    wanted = of_variant([f for f in files if is_wanted(f, patterns, ignore)], variant)
    if missing := unmet(required or patterns[:1], wanted):
        lost = ", ".join(missing).replace("|", " or ")
        raise UserError(
            f"{repo_name('model', repo_id, revision)} holds no {lost}: it is not a model of the"
            " kind that membench loads here"
        )
    return Path(
        snapshot_download(
            repo_id,
            revision=revision or None,
            allow_patterns=wanted,
        )
    )


def _listing(kind: str, repo_id: str, revision: str) -> list[str]:
    """A repository's files, without hidden ones.

    Asked once, without huggingface_hub's own retries: where there is no network, that
    is said at once.
    """
    from huggingface_hub import HfApi

    info: Any = HfApi().repo_info(
        repo_id, repo_type=kind, revision=revision or None, timeout=net.TIMEOUT
    )
    return [
        file.rfilename
        for file in info.siblings or ()
        if PurePosixPath(file.rfilename).name[0] != "."
    ]
