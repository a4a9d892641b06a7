"""The prompts that the full profile of ``sd_webster`` asks about, and what a run says of
their labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from membench.datasets.prompts import Prompt, to_examples
from membench.types import Example

if TYPE_CHECKING:
    from membench.datasets.prompt_sets import PromptSet

    from .options import SdWebsterOptions


PROMPTS, NEGATIVES = "hintersdorf", "laion"

# How published tables word the sets (results/published.csv).
WORDS = {
    **dict.fromkeys(("hintersdorf", "wen"), "webster500"),
    **{
        "ren-sd1": "webster345",
        "ren-sd2": "webster219",
        "laion": "500 LAION",
        "ren-gpt4": "500 GPT-4",
        "gustavosta": "500 Gustavosta",
    },
}


def negatives_of(o: SdWebsterOptions) -> str:
    """LAION's captions beside the default prompts only: a file of one's own may bring
    its negatives itself.
    """
    return o.negatives or ("" if o.prompts else NEGATIVES)


def chosen_prompts(
    positives: str, negatives: str
) -> tuple[list[Example], list[Prompt], dict[str, Any]]:
    """(examples, the rows that they were made from, where those are from).

    Both are comma-separated sets or files.

    A row that has no label of its own is memorized if ``negatives`` names others, and
    unlabelled if not, which the provenance's "notes" say. A negative that is a
    positive, too, is left out, and counted. Raises :class:`UserError` as
    :func:`membench.datasets.prompt_sets.read` does.
    """
    from membench.datasets import prompt_sets

    sets = prompt_sets.read(positives, label=1 if negatives else None) if positives else []
    others = prompt_sets.read(negatives, label=0) if negatives else []
    both = prompt_sets.together(sets, others)
    prompts = [p for s in both for p in s.prompts]
    name = " vs ".join(filter(None, (_words(sets), _words(others))))
    notes = list(_label_notes(both))
    provenance = {"sets": name, "prompts": [s.provenance for s in both]}
    return to_examples(prompts), prompts, provenance | ({"notes": notes} if notes else {})


def _label_notes(sets: Sequence[PromptSet]) -> Iterator[str]:
    """What a run says of labels that no row of a file states: where they are from, or
    that they are unknown.
    """
    for s in sets:
        told, unknown = s.provenance, s.provenance["unlabelled"]
        if told["same_as"]:
            word = "memorized" if told["label"] else "not memorized"
            yield (
                f"{s.name}: these are the prompts of {told['same_as']}; those without a label are"
                f" taken as {word}"
            )
        if unknown:
            advice = (
                "; give the file a column label (1 memorized, 0 not), or name prompts that are not"
                " memorized with --negatives, beside which those of --prompts are the memorized"
                " ones"
            )
            yield (
                f"{s.name}: {unknown:,} of {len(s.prompts):,} prompts are unlabelled: nothing says"
                " whether they are memorized. They are scored, and detection metrics leave them"
                f" out{'' if 'repo' in told or 'url' in told else advice}"
            )


def _words(sets: Sequence[PromptSet]) -> str:
    """A file that holds the prompts of a known set is called like it."""
    return "+".join(WORDS.get(s.provenance["same_as"] or s.name, s.name) for s in sets)
