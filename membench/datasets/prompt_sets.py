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

from membench.datasets.known_sets import KNOWN, KnownSet
from membench.datasets.prompts import Prompt, read_prompt_file
from membench.datasets.twins import plain
from membench.errors import UserError, listed, unknown_name
from membench.storage.hashing import file_hash, json_hash
from membench.types import UNLABELLED

if TYPE_CHECKING:
    from membench.fetching.resources import Resource

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[^@:]+)(?:@(?P<revision>[\w./-]+))?")
_FILE_ENDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")


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
    wanted = [names] if os.path.isfile(names) else listed(names, "prompts")
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
        from membench.fetching.hub import check_file_name

        check_file_name(file)
        return KnownSet(name, name, None, file, "see its page", repo=repo, revision=revision)
    if (
        os.path.exists(name)
        or name.lower().endswith(_FILE_ENDS)
        or name.startswith((".", "/", "~"))
    ):
        raise UserError(
            f"prompts file {name} is a folder; name its files, with commas between"
            if os.path.isdir(name)
            else f"prompts file {name}"
            f" {'is not a file' if os.path.exists(name) else 'does not exist'}"
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
