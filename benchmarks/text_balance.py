"""How the deal of each half of a world was chosen: the first one whose captions say
nothing of the label. ``python benchmarks/text_balance.py [--world N]``.

For each deal, the AUROC of two text-only classifiers (character 3-grams,
cross-validated by group, three fold seeds each), of the share of capital letters and of
the length; the first deal within 0.5 +- 0.04 on all of them is taken.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from membench.tasks.sd_webster import catalogue
from membench.tasks.sd_webster.world import catalogue_examples


def balance(half: catalogue.Split) -> dict[str, float]:
    """AUROC of each caption statistic between memorized and not memorized examples."""
    examples = list(catalogue_examples(half))
    text, label = [e.condition.prompt for e in examples], np.array([e.memorized for e in examples])
    groups = [e.group for e in examples]
    found = {
        "capitals": roc_auc_score(
            label, [sum(c.isupper() for c in t) / sum(c.isalpha() for c in t) for t in text]
        ),
        "length": roc_auc_score(label, [len(t) for t in text]),
    }
    for name, words, model in (
        (
            "logistic",
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False),
            LogisticRegression(C=10, max_iter=1000),
        ),
        ("bayes", CountVectorizer(analyzer="char", ngram_range=(3, 3)), MultinomialNB()),
    ):
        for seed in range(3):
            folds = GroupKFold(10, shuffle=True, random_state=seed)
            guess = cross_val_predict(
                make_pipeline(words, model),
                text,
                label,
                groups=groups,
                cv=folds,
                method="predict_proba",
            )[:, 1]
            found[f"{name}{seed}"] = roc_auc_score(label, guess)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=int, default=0)
    number = parser.parse_args().world
    catalogue.DEALS[number] = {}
    for name in ("a", "b"):
        for deal in range(200):
            catalogue.DEALS[number][name] = deal
            found = balance(catalogue.build(name, number))
            print(name, deal, " ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
            if max(abs(v - 0.5) for v in found.values()) <= 0.04:
                break
        else:
            sys.exit(f"no deal of half {name} is balanced")


if __name__ == "__main__":
    main()
