"""Models and data sets of the Hugging Face hub: what is in its cache first, without a
network; else fetched; every refusal one line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from membench.errors import UserError
from membench.fetching import net

T = TypeVar("T")


HOME = "https://huggingface.co"


PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")

# What membench reads of a StableDiffusionPipeline. The folders are named because a
# repository may also hold whole checkpoints at its top.
PIPELINE_PATTERNS = (
    "model_index.json",
    "scheduler/*.json",
    *(f"{part}/*.{end}" for part in ("tokenizer", "tokenizer_2") for end in ("json", "txt")),
    *(
        f"{part}/*.{end}"
        for part in ("text_encoder", "text_encoder_2", "unet", "vae")
        for end in ("json", "safetensors")
    ),
)


# Parts that are never loaded.
PIPELINE_IGNORE = ("safety_checker/*", "feature_extractor/*")


# A weight file's variant, in a name or in an index's: model.fp16.safetensors,
# model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json.
VARIANT = re.compile(r"\.(fp16|bf16|non_ema)[.-]")


SAME_MODEL = ("", "fp16", "bf16")


# What membench.models (stable_diffusion_folder, tokenizer_files) want of a folder; A|B:
# either will do.
PIPELINE_REQUIRED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json|tokenizer/vocab.json",
    "tokenizer/tokenizer.json|tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model*.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model*.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model*.safetensors",
)


class Incomplete(UserError):
    """A snapshot is in the hub's cache, but not all of it, and the rest is not to be
    fetched.
    """


def of_variant(files: Sequence[str], variant: str) -> list[str]:
    """Of each folder the weight files that are read, and all others.

    variant: that one where the folder has it, else the plain files. "": the plain
    files, else fp16, else bf16: second copies are not fetched.
    """
    kinds: dict[str, set[str]] = {}
    for file in files:
        if _is_weight(file):
            kinds.setdefault(str(PurePosixPath(file).parent), set()).add(_variant(file))
    order = (variant, "") if variant else SAME_MODEL
    chosen = {place: next((v for v in order if v in has), "") for place, has in kinds.items()}
    return [
        file
        for file in files
        if not _is_weight(file) or _variant(file) == chosen[str(PurePosixPath(file).parent)]
    ]


def _is_weight(file: str) -> bool:
    return file.endswith((".safetensors", ".bin")) or ".safetensors.index." in file


def _variant(file: str) -> str:
    found = VARIANT.search(PurePosixPath(file).name)
    return found[1] if found else ""


def parse_model_name(name: str) -> tuple[str, str]:
    """``ID`` or ``ID@REVISION`` -> (hub id, revision or "").

    Raises :class:`UserError` for what is not a hub id.
    """
    repo_id, at, revision = name.partition("@")
    if not _is_id(repo_id) or (at and not revision):
        raise UserError(
            f"model {name!r} is neither a folder nor a hub id such as google/ddpm-cifar10-32 (or"
            " ID@REVISION)"
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
        return folder
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
    where ``*`` takes in ``/``). required: patterns, or several with ``|`` between, that
    each match a file of a whole snapshot, as do the names in an index of shards; a
    snapshot that an interrupted download left is completed. variant: which of several
    copies of the weights (:func:`of_variant`). Weights are safetensors: a
    repository one of whose folders in question holds a pickle (``.bin``, ``.ckpt``,
    ...) in their place is refused before anything is fetched, unless ``pickles``: the
    caller then reads ``*.bin``, tensors only. local_only: as under ``--offline``.
    advice: what to do, put after "not in the hub's cache" and after a failure.

    Raises :class:`UserError` for a repository, revision or file that does not exist, a
    gated repository, a pickle, a snapshot that is not cached where the network is
    forbidden or fails, and a full disk; :class:`Incomplete`, file by file, for one that
    is cached in part.
    """
    found, lost = _cached_folder(repo_id, revision, patterns, ignore, required, variant)
    if found and lost and pickles:
        bins = _cached_folder(
            repo_id, revision, _with_bins(patterns), ignore, [_bins(p) for p in required], variant
        )
        found, lost = bins if not bins[1] else (found, lost)
    if found and not lost:
        return found
    if local_only or net.offline():
        if found:
            files = ", ".join(need.replace("|", " or ") for need in lost)
            raise Incomplete(
                f"{_name('model', repo_id, revision)} is in the hub's cache in part: {files}"
                f" {'is' if len(lost) == 1 else 'are'} missing, {_why_not()}{_then(advice)}"
            )
        raise UserError(
            f"{_name('model', repo_id, revision)} is not in the hub's cache,"
            f" {_why_not()}{_then(advice)}"
        )
    return _asked(
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
                    f"membench: {choices[0][0]}: its mirror {_at(repo_id, revision)} {how}",
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

    what = f"{filename} of {_name(repo_type, repo_id, revision)}"

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
                f"{_name(repo_type, repo_id, revision)} has no file {filename}: see"
                f" {_page(repo_type, repo_id)}/tree/{revision or 'main'}"
            )
        return get(local=False)

    if not _is_id(repo_id):
        raise UserError(f"{repo_id!r} is not a hub id such as owner/name")
    try:
        return get(local=True)
    except LocalEntryNotFoundError:
        if local_only or net.offline():
            raise UserError(
                f"{what} is not in the hub's cache, {_why_not()}{_then(advice)}"
            ) from None
    return _asked(repo_type, repo_id, revision, advice, fetch)


# ---------------------------------------------------------------------------- snapshots


def _cached_folder(
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
    wanted = of_variant([f for f in files if _wanted(f, patterns, ignore)], variant)
    # huggingface_hub misses every file that it has seen in the repository's list and
    # that is not ignored. Older versions kept no such list: an interrupted download
    # then looks like a whole one.
    chosen = {str(PurePosixPath(f).parent) for f in wanted if _is_weight(f) and _variant(f)}
    beside = [f"*.{v}{end}*" for v in ("fp16", "bf16", "non_ema") for end in ".-"]
    unwanted = [*ignore, *beside, *(f"{place}/*.safetensors*" for place in chosen)]
    if _snapshot(repo_id, revision, patterns, unwanted) is None:
        return None, []
    needs = required or (
        ["*.safetensors"] if any(p.endswith(".safetensors") for p in patterns) else ["*"]
    )
    return folder, [
        *(need for need in needs if not _met(need, wanted)),
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


def _met(need: str, files: Sequence[str]) -> bool:
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
                f"{_name('model', repo_id, revision)} has {', '.join(bad[:3])} and no safetensors"
                " beside it: a pickle can run any code when it is loaded, so membench refuses it;"
                " save it anew as safetensors (pipeline.save_pretrained), or take another copy"
            )
        patterns, required = _with_bins(patterns), [_bins(p) for p in required]
    wanted = of_variant([f for f in files if _wanted(f, patterns, ignore)], variant)
    if missing := [need for need in required or patterns[:1] if not _met(need, wanted)]:
        lost = ", ".join(missing).replace("|", " or ")
        raise UserError(
            f"{_name('model', repo_id, revision)} holds no {lost}: it is not a model of the kind"
            " that membench loads here"
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


def pickled(files: Sequence[str], patterns: Sequence[str], ignore: Sequence[str] = ()) -> list[str]:
    """Pickles in those folders whose safetensors the patterns ask for, but which hold
    none that are wanted.
    """
    bad = []
    for file in files:
        path = PurePosixPath(file)
        if path.suffix not in PICKLES or any(fnmatchcase(file, p) for p in ignore):
            continue
        if not _wanted(str(path.parent / "model.safetensors"), patterns, ignore):
            continue  # of no interest, such as a whole checkpoint beside a pipeline's folders
        beside = [
            f
            for f in files
            if PurePosixPath(f).parent == path.parent and f.endswith(".safetensors")
        ]
        if not any(_wanted(f, patterns, ignore) for f in beside):
            bad.append(file)
    return bad


def _wanted(file: str, patterns: Sequence[str], ignore: Sequence[str]) -> bool:
    return any(fnmatchcase(file, p) for p in patterns) and not any(
        fnmatchcase(file, p) for p in ignore
    )


def _bins(pattern: str) -> str:
    return pattern.replace(".safetensors", ".bin")


def _with_bins(patterns: Sequence[str]) -> list[str]:
    return [_bins(p) for p in patterns]


# ------------------------------------------------------------------------------- errors


def _asked(kind: str, repo_id: str, revision: str, advice: str, call: Callable[[], T]) -> T:
    """What ``call`` returns; what the hub refuses becomes one line."""
    from huggingface_hub import errors

    what = _name(kind, repo_id, revision)
    page = _page(kind, repo_id)
    try:
        return call()
    except errors.GatedRepoError:
        line = (
            f"{what} is gated: accept its terms at {page}, then log in (`hf auth login`) or set"
            " HF_TOKEN"
        )
    except errors.RepositoryNotFoundError:
        line = (
            f"the hub has no {kind} {repo_id}, or it is private (the hub does not tell): see"
            f" {page}; for a private one, `hf auth login`"
        )
    except errors.DisabledRepoError:
        line = f"{what} cannot be fetched: its repository is disabled on the hub"
    except errors.RevisionNotFoundError:
        line = f"{kind} {repo_id} has no revision {revision or 'main'}: see {page}/commits"
    # The hub's word for: not cached, and asking failed
    except errors.LocalEntryNotFoundError as error:
        line = f"{what} cannot be fetched: {_cause(error.__cause__ or error)}"
    except errors.EntryNotFoundError:
        line = f"{what} lacks a file that it lists; try again later, or see {page}"
    except errors.OfflineModeIsEnabled:
        line = f"{what} is not in the hub's cache, {_why_not()}"
    # HTTPError: the base of the client's own, connections and time-outs among them
    except (errors.HTTPError, OSError) as error:
        line = f"{what} cannot be fetched: {_cause(error)}"
    raise UserError(line + _then(advice)) from None


def _cause(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    if response is not None:
        status = response.status_code
        if status == 401:
            return (
                "the hub rejects the token (HTTP 401): log in anew (`hf auth login`) or mend"
                " HF_TOKEN"
            )
        return f"the hub answers HTTP {status} {response.reason_phrase}".rstrip() + (
            "; try again later" if status >= 500 or status == 429 else ""
        )
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EROFS,
        errno.EPERM,
    ):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; make room, or set HF_HOME to another folder"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{HOME.removeprefix('https://')} cannot be reached ({first})"


def _is_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def _at(repo_id: str, revision: str) -> str:
    return f"{repo_id}@{revision}" if revision else repo_id


def _name(kind: str, repo_id: str, revision: str) -> str:
    return f"{kind} {_at(repo_id, revision)}"


def _page(kind: str, repo_id: str) -> str:
    return f"{HOME}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"


def _why_not() -> str:
    return "and --offline forbids to fetch it" if net.offline() else "and it was not to be fetched"


def _then(advice: str) -> str:
    return f"; {advice}" if advice else ""
