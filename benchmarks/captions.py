"""What captions alone reach on the published prompt sets: the tables of
docs/captions.md.

python benchmarks/captions.py FOLDER: where the sets' files lie, under the names that
their authors gave them, at any depth. Memorized prompts of each set against each source
of negatives: AUROC of the three caption controls with 95 % intervals over groups of
near-duplicate captions, and what n-grams seem to reach where near-duplicates may lie on
both sides of a fold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from membench.boards.captions import reached
from membench.datasets.prompts import read_prompt_file, to_examples
from membench.metrics.captions import case_share, ngram_scores
from membench.metrics.detection import tpr_at_fpr
from membench.reports.output import markdown
from membench.reports.text import interval
from membench.similarity.near_duplicates import merged

MEMORIZED = {
    "SD 1, 500": "memorized_laion_prompts.csv",
    "SD 1, 345": "sd1_mem345.txt",
    "SD 2, 219": "sd2_mem219.txt",
}
NEGATIVES = {
    "LAION": "unmemorized_laion_prompts.csv",
    "COCO": "coco2014_val_10000.csv",
    "GPT-4": "group_nomem500.txt",
}
FILES = (*MEMORIZED.values(), *NEGATIVES.values())


def pair(folder: Path, memorized: str, negatives: str) -> pd.DataFrame:
    """The prompts of two files as a run stores them: columns id, prompt, label, group.

    A caption that stands twice is one prompt.
    """
    files = {
        1: next(folder.rglob(MEMORIZED[memorized])),
        0: next(folder.rglob(NEGATIVES[negatives])),
    }
    examples = to_examples(
        prompt for label, file in files.items() for prompt in read_prompt_file(file, label=label)
    )
    rows = [(e.id, e.condition.prompt, e.memorized, e.group) for e in examples]
    return pd.DataFrame(rows, columns=["id", "prompt", "label", "group"])


def row(rows: pd.DataFrame) -> dict[str, str]:
    """Counts, and what each control reaches, as text."""
    of = {name: rows[rows.label == label] for name, label in (("memorized", 1), ("negatives", 0))}
    cells = {
        f"{name} (groups)": f"{len(part):,} ({part.group.nunique():,})" for name, part in of.items()
    }
    cells |= {found.by: interval(found.auroc, found.low, found.high) for found in reached(rows)}
    labels = rows.label.to_numpy()
    tpr = tpr_at_fpr(case_share(rows.prompt.tolist()), labels, 0.01)
    cells["caption_case TPR@1%FPR"] = "n/a" if tpr is None else f"{tpr:.3f}"
    apart = ngram_scores(rows.prompt.tolist(), labels, rows.id.tolist())
    return cells | {"n-grams, groups ignored": f"{roc_auc_score(labels, apart):.3f}"}


def table(folder: Path) -> Iterator[dict[str, str]]:
    """A row a pair of sets."""
    for memorized in MEMORIZED:
        for negatives in NEGATIVES:
            yield {
                "memorized set": memorized,
                "negatives of": negatives,
                **row(pair(folder, memorized, negatives)),
            }


def of_letters(folder: Path) -> str:
    """What capitals reach as a share of the letters alone, in place of all characters:
    a sentence.
    """
    rows = pair(folder, "SD 1, 500", "LAION")
    share = np.array(
        [sum(map(str.isupper, text)) / max(1, sum(map(str.isalpha, text))) for text in rows.prompt]
    )
    labels = rows.label.to_numpy()
    return (
        "SD 1, 500 against LAION by the share of the letters that are capitals: AUROC"
        f" {roc_auc_score(labels, share):.3f}, TPR {tpr_at_fpr(share, labels, 0.01):.3f} at 1 % FPR"
    )


def one_brand(folder: Path) -> str:
    """What n-grams reach where the brand that has most of the memorized prompts is one
    group: a sentence.
    """
    rows = pair(folder, "SD 1, 500", "LAION")
    brand = rows.prompt.str.startswith("Shaw Floors") & (rows.label == 1)
    groups = merged(rows.group.tolist(), rows.group.where(~brand, "Shaw Floors").tolist())
    found = roc_auc_score(
        rows.label, ngram_scores(rows.prompt.tolist(), rows.label.tolist(), groups)
    )
    return (
        f'SD 1, 500 against LAION, the {brand.sum()} prompts that begin with "Shaw Floors", in'
        f" {rows.group[brand].nunique()} groups, as one: caption_ngrams {found:.3f}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if absent := [name for name in FILES if not any(Path(sys.argv[1]).rglob(name))]:
        sys.exit(f"{sys.argv[1]} holds no {', no '.join(absent)}")
    found = pd.DataFrame(table(Path(sys.argv[1])))
    print(markdown(found))
    print(of_letters(Path(sys.argv[1])))
    print(one_brand(Path(sys.argv[1])))
