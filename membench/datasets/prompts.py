"""Prompts from files: the formats in which memorized prompts were published, a CSV of
one's own, and plain text.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from membench.datasets.prompt_formats import LONGEST, format_of
from membench.datasets.twins import BUT_FOR, Labelled
from membench.errors import UserError
from membench.storage.reading import is_text, shown
from membench.types import UNLABELLED, Condition, Example

# The label that a published kind stands for
KINDS = {"MV": 1, "TV": 1, "RV": 1, "VM": 1, "TM": 1, "N": 0}
_LABELS = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0", "": ""}
OTHERS = ("kind", "label", "similarity", "source", "group", "url", "index")  # but the prompt
LONGEST_WORD = 200  # characters of a kind or a source
_DEFAULT_KIND = {1: "memorized", 0: "N", UNLABELLED: "unlabelled"}


@dataclass(frozen=True)
class Prompt:
    """One row of a prompts file.

    label: 1 memorized, 0 not, -1 unknown (UNLABELLED). kind: Webster's (2023, arXiv
    2305.08694) MV, TV and RV (matching, template, retrieval verbatim) and N (none of
    them); Hintersdorf's (2024, arXiv 2406.02366) VM and TM, which are verbatim and
    template by another rule (VM where max_sscd >= 0.7) and so are kept apart; else what
    the file says, "memorized", "N" or "unlabelled". source: the file or set. group: the
    file's, or "". url, index: of its training image, the index being LAION's; ""
    where unknown. similarity: the largest SSCD between the image and generations that
    the set's authors report (max_sscd); None where they do not. where: the row of the
    file that it was read from, such as "line 3".
    """

    text: str
    label: int
    kind: str
    source: str
    group: str = ""
    url: str = ""
    index: str = ""
    similarity: float | None = None
    where: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """Source and row, for messages."""
        return ", ".join(filter(None, (self.source, self.where)))


def example_id(prompt: str) -> str:
    """16 hex digits of SHA-256: the same prompt has the same id, and so the same noise,
    in every file.
    """
    return hashlib.sha256(f"prompt\x1f{prompt}".encode()).hexdigest()[:16]


def read_prompts(path: Path) -> list[Example]:
    """Examples of a prompts file of any format: :func:`to_examples` of
    :func:`read_prompt_file`, which say what is refused.
    """
    return to_examples(read_prompt_file(path))


def read_prompt_file(
    path: str | Path, *, label: int = UNLABELLED, source: str = "", first: int | None = None
) -> list[Prompt]:
    """The prompts of a file, one a row, in its order.

    The format is told by what the file holds:

    - Parquet as Webster publishes it: caption, and if there index, url, overfit_type.
      Other columns are not read.
    - JSON lines as Wen et al. (2024) do: caption, index, url; they may have the other
      columns of the Parquet files. Lists of prompts that are not memorized are
      published with the same three keys, so the format says nothing about the label.
    - CSV as Hintersdorf et al. do: separated by ";", with Caption, URL, Index, and if
      there type, max_sscd.
    - CSV of one's own (".csv", ".tsv"; separated by commas, semicolons, tabs or bars):
      prompt, caption or text in any case, and if there label or memorized (1, 1.0,
      True, 0 ...), kind, group, source, url, index. ``urls`` may be a list as Python
      writes it, as in MemBench (Hong et al. 2024): a row an address. Rows without a
      word are skipped.
    - JSON: an array of captions or of objects, or a dictionary to them.
    - Anything else is text with a prompt a line; blank lines are skipped.

    A row's label is that of its column ``label``, else that of its kind, if that is one
    of KINDS: 1, and 0 for N ("not memorized *by Webster's rule*"). label (1, 0 or -1,
    unlabelled) is given to rows without either. source: of rows that do not say;
    default the file's name. first: read so many rows, and none that follow; None: all.

    Published files repeat captions (34 of COCO's 10,000): such rows are all returned,
    since each may have an image of its own. Raises :class:`UserError`, one line, for a
    file that is missing, empty, damaged or not UTF-8, a missing column,
    a row with too many fields, an empty prompt or one of more than LONGEST
    characters, a kind or source of more than LONGEST_WORD, NUL characters, another
    label than 0 or 1, another published kind than those of KINDS, a repeated prompt in
    text and in a CSV of one's own, and in any file one with two labels, and two with the
    labels 1 and 0 that are the same but for case, white space or Unicode form
    (:mod:`membench.datasets.twins`). ValueError for another ``label``.
    """
    if label not in (0, 1, UNLABELLED):
        raise ValueError(f"label is {label}, but must be 1, 0 or {UNLABELLED}")
    path = Path(path)
    if not is_text(source or path.name):
        raise UserError(f"prompts file {shown(path)}: its name is not UTF-8; rename it")
    found = format_of(path)
    prompts: list[Prompt] = []
    seen: dict[str, tuple[str, int]] = {}
    labelled = Labelled()
    for where, row in itertools.islice(found.rows, first):
        try:
            prompt = _prompt(row, label, source or path.name, found.published, where)
        except BadRow as error:
            raise UserError(f"{path}, {where}: {error}") from None
        before, its_label = seen.setdefault(prompt.text, (where, prompt.label))
        if before != where and not found.published:
            raise UserError(
                f"{path}, {where}: the prompt of {before} again; remove one ({prompt.text[:60]!r})"
            )
        if its_label != prompt.label:
            raise UserError(
                f"{path}, {where}: the prompt of {before} again, with another label; remove one"
                f" ({prompt.text[:60]!r})"
            )
        if twin := labelled.enter(prompt.text, prompt.label, where):
            both = f"{prompt.text[:60]!r} and {twin[0][:60]!r}"
            raise UserError(
                f"{path}, {where}: the prompt of {twin[1]} {BUT_FOR}, with another label; remove"
                f" one ({both})"
            )
        prompts.append(prompt)
    if not prompts:
        raise UserError(
            f"{path} has a header and no prompt"
            if path.suffix.lower() == ".csv"
            else f"{path} holds no prompt"
        )
    return prompts


def to_examples(prompts: Iterable[Prompt]) -> list[Example]:
    """An example for each different text, in the order of the first row that has it,
    which also gives kind, group and source.

    A row without a label is extracted from and scored, but takes no part in detection
    metrics. Those without a group are grouped with one another, by near-duplicate text
    and label (:func:`membench.similarity.near_duplicates.text_groups`, ``by_label``).
    Raises :class:`UserError` for a text with two labels, for two texts with the labels
    1 and 0 that are the same but for case, white space or Unicode form, and for a group
    that holds memorized and other prompts, which intervals cannot resample.
    """
    rows: dict[str, Prompt] = {}
    labels: dict[str, int] = {}
    labelled = Labelled()
    for row in prompts:
        first = rows.setdefault(row.text, row)
        if first.label != row.label:
            both = f"label {first.label} in {first.place} and {row.label} in {row.place}"
            raise UserError(f"the prompt {row.text[:60]!r} has {both}; remove one")
        if twin := labelled.enter(row.text, row.label, row.place):
            both = (
                f"label {1 - row.label} in {twin[1]} ({twin[0][:60]!r}) and {row.label} in"
                f" {row.place}"
            )
            raise UserError(f"the prompt {row.text[:60]!r} has, {BUT_FOR}, {both}; remove one")
        if (
            row.group
            and row.label != UNLABELLED
            and labels.setdefault(row.group, row.label) != row.label
        ):
            advice = "give those of each label a group of their own"
            raise UserError(
                f"{row.source}: group {row.group!r} holds memorized and other prompts; {advice}"
            )
    return _grouped(
        [
            Example(Condition(example_id(r.text), r.text), r.label, r.kind, r.group, r.source)
            for r in rows.values()
        ]
    )


def _grouped(examples: list[Example]) -> list[Example]:
    """The examples, in their order, those without a group in one by text and label."""
    alone = [i for i, example in enumerate(examples) if not example.group]
    if not alone:
        return examples
    # Imports scikit-learn and pandas
    from membench.similarity.near_duplicates import by_label, text_groups

    texts = [examples[i].condition.prompt or "" for i in alone]
    groups = by_label(text_groups(texts), [examples[i].memorized for i in alone])
    found = dict(zip(alone, groups, strict=True))
    return [
        replace(example, group=found.get(i, example.group)) for i, example in enumerate(examples)
    ]


class BadRow(Exception):
    """What is wrong with a row; its reader knows where the row stands."""


def _prompt(
    row: Mapping[str, Any], otherwise: int, source: str, published: bool, where: str
) -> Prompt:
    text = row["text"]
    if text is not None and not isinstance(text, str):
        raise BadRow(
            f"the prompt is not text but {type(text).__name__}; each prompt is a text, or has a"
            " row or an object of its own"
        )
    text = (text or "").strip()
    if not text:
        raise BadRow("the prompt is empty")
    if len(text) > LONGEST:  # not echoed
        raise BadRow(f"the prompt has {len(text):,} characters; it may have {LONGEST:,}")
    if "\0" in text or not is_text(text):
        raise BadRow(
            "the prompt holds a NUL character or half a surrogate pair, which is not a text"
        )
    told = {name: _string(name, row.get(name)) for name in OTHERS}
    for name in ("kind", "source"):
        if len(told[name]) > LONGEST_WORD:  # tables and plots name them
            raise BadRow(
                f"the {name} has {len(told[name]):,} characters; it may have {LONGEST_WORD}"
            )
    kind = told["kind"]
    kind = kind.upper() if kind.upper() in KINDS else kind
    label = _LABELS.get(told["label"].lower(), told["label"])
    if published and kind and not label and kind not in KINDS:
        raise BadRow(f"kind {kind[:20]!r}; it must be one of {', '.join(KINDS)}, or empty")
    if label not in ("", "0", "1"):
        raise BadRow(f"label {label[:20]!r}; write 1 (memorized), 0 (not) or nothing")
    value = int(label) if label else KINDS.get(kind, otherwise)
    similarity = told["similarity"]
    try:
        number = float(similarity) if similarity else None
    except ValueError:
        raise BadRow(f"max_sscd {similarity[:20]!r} is not a number") from None
    return Prompt(
        text,
        value,
        kind or _DEFAULT_KIND[value],
        told["source"] or source,
        told["group"],
        told["url"],
        told["index"],
        number,
        where,
    )


def _string(name: str, value: Any) -> str:
    """A value of a column but the prompt: "" where it is missing; whole numbers without
    ".0", which pandas adds to ones with gaps.
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool | float) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    if not is_text(text):
        raise BadRow(f"the {name} holds half a surrogate pair, which is not a text")
    return text
