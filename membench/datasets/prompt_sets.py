"""Published prompt sets by short name, files and hub data sets, behind one loader:
where they come from, content hashes, labels.

None ships with membench: some have no licence, and the others are a small download.
docs/design/prompt-sets.md says how labels, repeated prompts and prompts of two sets are
dealt with.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.datasets.prompts import UNLABELLED, Prompt, read_prompt_file
from membench.datasets.twins import plain
from membench.errors import UserError, unknown_name
from membench.storage.hashing import file_hash, json_hash

if TYPE_CHECKING:
    from membench.fetching.resources import Resource

GITHUB = "https://raw.githubusercontent.com"
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^@:]+)(?:@(?P<revision>[\w./-]+))?")
_FILE_ENDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class KnownSet:
    """A published set. label: of rows whose kind does not give one; None: as the caller
    says. url: at a full commit; else repo (a hub data set), file and revision (empty:
    main). sha256, md5: of the file; empty where no digest of the very bytes is at hand.
    rows: as many as the set must have; 0 where that is not known for certain. first:
    rows that are read, from the start; None is all. texts: :func:`texts_hash` of its
    prompts, by which a copy is known under any name and in any format; empty where it
    is not known.
    """

    name: str
    what: str
    label: int | None
    file: str
    licence: str
    url: str = ""
    repo: str = ""
    revision: str = ""
    sha256: str = ""
    md5: str = ""
    rows: int = 0
    first: int | None = None
    texts: str = ""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one set, one a row of its file. provenance, JSON: name, file,
    sha256, url or repo and revision, licence ("" of a file), label (what rows without
    one of their own got), same_as (of a file: the known set that has the same prompts,
    which gave that label, or ""), rows (read), unlabelled (prompts whose label is
    unknown), repeated (prompts whose text stands in an earlier one), left_out (rows of
    another label, of a set asked for as negatives), dropped (see :func:`together`).
    """

    name: str
    prompts: tuple[Prompt, ...]
    provenance: dict[str, Any]


def _webster(name: str, file: str, md5: str, what: str) -> KnownSet:
    # The MD5 are those of another project that downloads the files; they pin the bytes,
    # since no revision of the data set is known here.
    path = f"groundtruth_parquets/{file}_groundtruth.parquet"
    return KnownSet(
        name,
        f"Webster's prompts for {what}",
        UNLABELLED,
        path,
        "none stated",
        repo="fraisdufour/templates-verbs",
        md5=md5,
    )


def _hintersdorf(
    name: str, file: str, what: str, label: int, rows: int, sha256: str, texts: str
) -> KnownSet:
    commit = "c8de0c620ec511cdb9e937905d1503cd9758910b"
    place = f"ml-research/localizing_memorization_in_diffusion_models/{commit}/prompts"
    return KnownSet(
        name,
        what,
        label,
        file,
        "MIT",
        url=f"{GITHUB}/{place}/{file}",
        sha256=sha256,
        rows=rows,
        texts=texts,
    )


def _ren(
    name: str, file: str, what: str, label: int, rows: int, sha256: str, texts: str
) -> KnownSet:
    place = "renjie3/MemAttn/b1d476c36624a74e10145f889ce1d8268588f5c3/prompt"
    return KnownSet(
        name,
        what,
        label,
        file,
        "MIT",
        url=f"{GITHUB}/{place}/{file}",
        sha256=sha256,
        rows=rows,
        texts=texts,
    )


# The prompts of Wen's and of Hintersdorf's list
_SD1_500 = "de66d4ad44e6fc33b157db2c7b1dd2f4cecd5fad5b8ab5e2fffda96bc116a27d"

_ALL = (
    _webster(
        "webster-sd1", "sdv1_bb_edge", "72c2dded275dda496de9c3f7c33c4f3d", "Stable Diffusion 1"
    ),
    _webster(
        "webster-sd2", "sdv2_bb_edge", "c700ae1d156a9330940d339a24740ed1", "Stable Diffusion 2"
    ),
    _webster(
        "webster-realistic-vision",
        "realistic_vision_sdv1_edge",
        "d4ce3781e41efb78289c936d87a79edf",
        "Realistic Vision",
    ),
    _webster(
        "webster-deep-if", "deep_if_sdv1_wb", "b21661ba27499b23cde515988292266e", "DeepFloyd IF"
    ),
    _webster(
        "webster-midjourney", "midjourney", "0c4329ae105832ce94d032e2c3012f25", "Midjourney v4"
    ),
    KnownSet(
        "wen",
        "Wen's 500 memorized prompts of Stable Diffusion 1",
        1,
        "sdv1_500_memorized.jsonl",
        "none: all rights reserved",
        url=f"{GITHUB}/YuxinWenRick/diffusion_memorization/ca60157f40a5d3bc41763e922ce27187fdf1adc4/examples/sdv1_500_memorized.jsonl",
        rows=500,
        texts=_SD1_500,
    ),
    _hintersdorf(
        "hintersdorf",
        "memorized_laion_prompts.csv",
        "Hintersdorf's 500 memorized prompts of Stable Diffusion 1",
        1,
        500,
        "0b527a5965dc463e7a3e0d234ff7fd5489b1a76869c456dbb209dc753cb4af25",
        _SD1_500,
    ),
    _hintersdorf(
        "laion",
        "unmemorized_laion_prompts.csv",
        "Hintersdorf's 500 LAION captions that are not memorized",
        0,
        500,
        "f453b418cc157864baacbf68d97447273feac41e8066b2ead6b307bf795988e1",
        "c8501a03402070111d7dad9d3f723794c7eef235370c9b272d84d484e0765956",
    ),
    _hintersdorf(
        "coco",
        "coco2014_val_10000.csv",
        "Hintersdorf's 10,000 captions of COCO 2014",
        0,
        10_000,
        "5445e449c60fd6b326a05c79a683c4d64620b0330a372de843eb6b9dbe5901e3",
        "06cd1df76a22e456c552b36f9238f4a30d333ef5459410e1cccb07c2d299191f",
    ),
    _ren(
        "ren-sd1",
        "sd1_mem345.txt",
        "Ren's 345 memorized prompts of Stable Diffusion 1",
        1,
        345,
        "70f370c4728aecd18e0db95dc58e9741b0f1a278dbfddb31d7d0754f69f8d069",
        "7f82e721aeb892158f7f9ff7baa5dcfc550898c8972589a9fe33e5bbd47a1754",
    ),
    _ren(
        "ren-sd2",
        "sd2_mem219.txt",
        "Ren's 219 memorized prompts of Stable Diffusion 2",
        1,
        219,
        "5776ec85cc25fde8c4843af990041a85813c3af7cb817c45dabb1a1bb9b6356f",
        "5ecb94f761ece862b771bdf58947576c8151517d91af71b1e6733eb0a3503e19",
    ),
    _ren(
        "ren-gpt4",
        "group_nomem500.txt",
        "Ren's 500 prompts that GPT-4 wrote",
        0,
        500,
        "4e0de75ae37b4fb2f8676026d876d9f4b03267a90041af4069d74b912e588c2d",
        "a336c8c0b7194108242ce52c9c9e8f6ade00a7f92a6f7d1aef44ac05b034e16a",
    ),
    # Wen's negatives: of the split "test", which is this file, the first 500.
    KnownSet(
        "gustavosta",
        "500 prompts of Lexica users (Gustavosta's test split)",
        0,
        "data/eval.parquet",
        "unknown",
        repo="Gustavosta/Stable-Diffusion-Prompts",
        revision="f40484704ca5bdeb389483123ba017897f1bfcdc",
        first=500,
    ),
)

KNOWN: dict[str, KnownSet] = {known.name: known for known in _ALL}


def resource(name: str) -> Resource:
    """How to find and fetch a set: a short name, or a hub data set's file,
    ``owner/name:file`` or ``owner/name:file@revision``.

    Files of GitHub lie in ``<cache_root()>/prompts``, those of the hub in its own
    cache. Their checksum is compared at every call. Raises :class:`UserError` for
    another name, with those that are near.
    """
    from membench.fetching.resources import Resource

    known = _known(name)

    def find() -> Path | None:
        if known.url:
            # Checks what is there; no network
            return _fetched(known) if _cache_path(known).exists() else None
        from membench.fetching.hub import hub_file

        try:
            path = hub_file(known.repo, known.file, known.revision, local_only=True)
        except UserError:
            return None
        return _checked(known, path)

    note = ", ".join(
        filter(
            None,
            (known.revision and f"revision {known.revision[:12]}", f"licence: {known.licence}"),
        )
    )
    command = f"membench download sd_webster --prompts {name}"
    return Resource(name, f"prompt set {known.what}", find, lambda: _fetched(known), command, note)


def texts_hash(prompts: Iterable[Prompt]) -> str:
    """SHA-256 of the different texts, whatever their order, file format and other
    columns.
    """
    return json_hash(sorted({prompt.text for prompt in prompts}))


def read(names: str, *, label: int | None = None) -> list[PromptSet]:
    """The sets in a comma-separated list of short names (KNOWN), paths of prompts
    files, and hub data sets (see :func:`resource`). What exists as a path is one,
    whatever else it could be. What is missing is fetched, all of it or none.

    label: the role of the sets, given to rows that have no label from a column or a
    published kind (:func:`membench.datasets.prompts.read_prompt_file`) nor from a known
    set, whose label a copy under another name keeps. None: no role is known, and such
    rows are unlabelled. 0 asks for negatives: rows of another label are left out, with
    a line on stderr, so that "webster-sd1" gives its N. 1 asks for memorized prompts;
    rows of label 0 among them stay.

    Raises :class:`UserError` for an unknown name, a set given twice, a file that cannot
    be read, fetched or is of another number of rows than its authors state, for
    negatives of which none are left, and for memorized prompts that are all labelled as
    not memorized.
    """
    wanted = [names] if os.path.isfile(names) else [name.strip() for name in names.split(",")]
    if not all(wanted):
        raise UserError(
            f"prompts {names!r}: an empty name; give short names, files or owner/name:file, with"
            " commas between"
        )
    titles = [name if name in KNOWN or ":" in name else os.path.basename(name) for name in wanted]
    # Metrics are made by source, so each needs its own name
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise UserError(
            f"prompts {names!r} has two sets called {min(twice)}; leave one out, or rename a file"
        )
    remote = [name for name in wanted if not os.path.isfile(name)]
    from membench.fetching.resources import ensure

    # All names are looked up before anything is fetched
    paths = ensure([resource(name) for name in remote])
    return [_prompt_set(name, paths.get(name), label) for name in wanted]


def together(positives: Sequence[PromptSet], negatives: Sequence[PromptSet]) -> list[PromptSet]:
    """Positives and negatives as one list, for
    :func:`membench.datasets.prompts.to_examples` of all their prompts.

    A negative whose text is among the positives with another label, or is a memorized
    one but for case, white space or Unicode form (:mod:`membench.datasets.twins`), is
    dropped, with a line on stderr, and counted in its set's provenance.

    Raises :class:`UserError` for a text with two labels among the positives, naming
    both sets: which of them is right is not for membench to say. Sets without any
    prompt left are refused too.
    """
    label: dict[str, tuple[int, str]] = {}
    for one in positives:
        for prompt in one.prompts:
            before, where = label.setdefault(prompt.text, (prompt.label, one.name))
            if before != prompt.label:
                text = (
                    f"the prompt {prompt.text[:60]!r} has label {before} in {where} and"
                    f" {prompt.label} in {one.name}"
                )
                raise UserError(f"{text}; give one of the two, or the other as --negatives")
    memorized = {plain(text) for text, (value, _) in label.items() if value == 1}
    kept: list[PromptSet] = list(positives)
    for one in negatives:
        clear = tuple(
            p
            for p in one.prompts
            if label.get(p.text, (p.label, ""))[0] == p.label and plain(p.text) not in memorized
        )
        if not clear:
            raise UserError(
                f"{one.name}: each of its prompts is among those of --prompts with another label;"
                " give other negatives"
            )
        if dropped := len(one.prompts) - len(clear):
            print(
                f"membench: {one.name}: {_count(dropped)} among those of --prompts too; dropped"
                " from the negatives",
                file=sys.stderr,
            )
        kept.append(replace(one, prompts=clear, provenance={**one.provenance, "dropped": dropped}))
    return kept


def _known(name: str) -> KnownSet:
    """The set of a short name, or one made up for a file of the hub."""
    if name in KNOWN:
        return KNOWN[name]
    if match := _HUB_ID.fullmatch(name):
        repo, file, revision = match["repo"], match["file"], match["revision"] or ""
        return KnownSet(name, name, None, file, "see its page", repo=repo, revision=revision)
    if (
        os.path.exists(name)
        or name.lower().endswith(_FILE_ENDS)
        or name.startswith((".", "/", "~"))
    ):
        raise UserError(
            f"prompts file {name} {'is not a file' if os.path.exists(name) else 'does not exist'}"
        )
    if "/" in name:
        raise UserError(
            f"prompts file {name} does not exist; a hub data set needs its file too:"
            f" {name.partition(':')[0]}:FILE"
        )
    raise unknown_name(
        "prompt set",
        name,
        KNOWN,
        f"the short names {', '.join(KNOWN)}; or give a file, or owner/name:file",
    )


def _prompt_set(name: str, fetched: Path | None, label: int | None) -> PromptSet:
    known = _known(name) if fetched else None
    path = fetched or Path(name)
    title = known.name if known else path.name
    first, fixed, same = known.first if known else None, known.label if known else None, ""
    otherwise = fixed if fixed is not None else UNLABELLED if label is None else label
    rows = read_prompt_file(path, label=otherwise, source=title, first=first)
    if known and len(rows) != (stated := known.rows or first or len(rows)):
        raise UserError(
            f"{title}: {path} has {len(rows)} prompts, not {stated}; delete it, and it is fetched"
            " anew"
        )
    if fixed is None and (published := _published(rows)) and published.label is not None:
        same, otherwise = published.name, published.label
        rows = read_prompt_file(path, label=otherwise, source=title)
    prompts = [p for p in rows if p.label == 0] if label == 0 else rows
    what = f" (they are those of {same})" if same else ""
    if not prompts:
        raise UserError(
            f"{title} gives no negatives: none of its {len(rows)} prompts{what} is labelled as not"
            " memorized"
        )
    if label == 1 and all(p.label == 0 for p in rows):
        advice = "beside --negatives, --prompts names memorized ones; give it to --negatives"
        raise UserError(
            f"{title} gives no memorized prompts: all its {len(rows)}{what} are labelled as not"
            f" memorized; {advice}"
        )
    if left_out := len(rows) - len(prompts):
        print(
            f"membench: {title}: {_count(left_out)} not labelled as negatives; left out",
            file=sys.stderr,
        )
    provenance = {
        "name": title,
        "file": known.file if known else path.name,
        "sha256": file_hash(path),
        **({"url": known.url} if known and known.url else {}),
        **(
            {"repo": known.repo, "revision": known.revision or "main"}
            if known and known.repo
            else {}
        ),
        "licence": known.licence if known else "",
        "label": otherwise,
        "same_as": same,
        "rows": len(rows),
        "unlabelled": sum(p.label == UNLABELLED for p in prompts),
        "repeated": len(prompts) - len({p.text for p in prompts}),
        "left_out": left_out,
        "dropped": 0,
    }
    return PromptSet(title, tuple(prompts), provenance)


def _published(rows: Sequence[Prompt]) -> KnownSet | None:
    """The known set, all of which has one label, with these very prompts."""
    found = texts_hash(rows)
    return next(
        (known for known in KNOWN.values() if known.texts == found and known.label in (0, 1)), None
    )


def _count(n: int) -> str:
    return f"{n} {'prompt is' if n == 1 else 'prompts are'}"


def _cache_path(known: KnownSet) -> Path:
    from membench.storage.cache import cache_root

    return cache_root() / "prompts" / known.file


def _fetched(known: KnownSet) -> Path:
    if known.url:
        from membench.fetching.net import fetch

        return fetch(known.url, _cache_path(known), sha256=known.sha256, progress=True)
    from membench.fetching.hub import hub_file

    return _checked(known, hub_file(known.repo, known.file, known.revision))


def _checked(known: KnownSet, path: Path) -> Path:
    """The hub's file, if it has the MD5.

    Another one is what its authors put there since.
    """
    if (
        known.md5
        and (md5 := hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()) != known.md5
    ):
        advice = (
            f"take the file as it is now by {known.repo}:{known.file}, or of a revision by"
            " ...@REVISION"
        )
        raise UserError(f"{path} has MD5 {md5}, but {known.name} is {known.md5}; {advice}")
    return path
