"""The catalogue world: deterministic, disjoint halves, and captions that do not tell
the label.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from membench.metrics.captions import ngram_scores
from membench.tasks.sd_webster import catalogue, products
from membench.tasks.sd_webster.options import SdWebsterOptions
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.world import DATA, catalogue_examples, unique_images


@pytest.fixture(scope="module")
def half() -> catalogue.Split:
    return catalogue.build("a")


def test_the_world_is_the_one_that_the_models_were_trained_on() -> None:
    """Golden hashes over every caption and pixel: another platform or numpy must draw
    the same bytes.
    """
    for name in ("a", "b"):
        report = json.loads((DATA / name / "training.json").read_text())
        assert catalogue.build(name).content_hash() == report["data_hash"] == GOLDEN[name]


def test_a_picture_is_the_same_in_every_order(half: catalogue.Split) -> None:
    pick = [half.entries[i].look for i in (500, 3, 120)]
    first = [products.draw(look) for look in pick]
    again = [products.draw(look) for look in reversed(pick)]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))


def test_what_is_planted(half: catalogue.Split) -> None:
    kinds = {
        k: [e for e in half.entries if e.kind == k] for k in ("MV", "TV", "RV", "N", "held_out")
    }
    assert [len(kinds[k]) for k in ("MV", "TV", "RV")] == [120, 140, 140]
    assert len(kinds["N"]) + len(kinds["held_out"]) >= 400
    assert {e.copies for e in kinds["MV"]} == {catalogue.DUPLICATES}
    assert {e.copies for e in kinds["held_out"]} == {0}
    copies = unique_images(half)
    for e in kinds["RV"]:  # its own image is shown once, another of its line forty times
        assert copies[e.look] == 1
        line = [o for o in half.entries if o.group == e.group and o.kind == "line"]
        assert {o.look for o in line} == {line[0].look} and copies[
            line[0].look
        ] == catalogue.DUPLICATES
    for e in kinds["TV"][:20]:  # one layout, forty textures
        line = [o for o in half.entries if o.group == e.group]
        assert len({o.look for o in line}) == catalogue.DUPLICATES
        mask = products.template_mask(e.look)
        assert mask.mean() > 0.3
        assert all(
            np.array_equal(products.draw(o.look)[mask], products.draw(e.look)[mask])
            for o in line[:5]
        )


def test_the_halves_share_no_series_no_caption_and_no_picture(half: catalogue.Split) -> None:
    others = [catalogue.build("b"), catalogue.build("public")]
    for other in others:
        assert not {e.group for e in half.entries} & {e.group for e in other.entries}
        assert not {e.caption for e in half.entries} & {e.caption for e in other.entries}
        assert not {e.look for e in half.entries} & {e.look for e in other.entries}
    assert len({e.caption for e in half.entries}) == len(half.entries)


@pytest.mark.parametrize("number", sorted(catalogue.DEALS))
@pytest.mark.parametrize("name", ["a", "b"])
def test_captions_do_not_tell_the_label(name: str, number: int) -> None:
    """Character 3-grams, cross-validated by group, and the share of capital letters:
    AUROC 0.5 +- 0.08.
    """
    examples = list(catalogue_examples(catalogue.build(name, number)))
    prompts, labels = (
        [e.condition.prompt for e in examples],
        np.array([e.memorized for e in examples]),
    )
    groups = [e.group for e in examples]
    assert labels.sum() >= 400 and (1 - labels).sum() >= 400
    capitals = [sum(c.isupper() for c in p) / sum(c.isalpha() for c in p) for p in prompts]
    assert abs(roc_auc_score(labels, capitals) - 0.5) <= 0.08
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False),
        LogisticRegression(C=10, max_iter=1000),
    )
    guess = cross_val_predict(
        model,
        prompts,
        labels,
        groups=groups,
        cv=GroupKFold(10, shuffle=True, random_state=0),
        method="decision_function",
    )
    assert abs(roc_auc_score(labels, guess) - 0.5) <= 0.08


def test_that_classifier_can_tell_where_there_is_something_to_tell() -> None:
    """The control of the control: the same classifier finds a planted difference in
    wording.
    """
    examples = SdWebster(SdWebsterOptions(examples="half")).load("mini").examples
    labels = np.array([e.memorized for e in examples])
    prompts = [
        e.condition.prompt.replace("area rug", "carpet") if e.memorized else e.condition.prompt
        for e in examples
    ]
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)),
        LogisticRegression(C=10, max_iter=1000),
    )
    guess = cross_val_predict(
        model,
        prompts,
        labels,
        groups=[e.group for e in examples],
        cv=GroupKFold(10),
        method="decision_function",
    )
    assert roc_auc_score(labels, guess) > 0.55


class Halves:
    """Planted captions of a world, to tell half a from half b."""

    def __init__(self, number: int = 0) -> None:
        rows = [
            (e, int(name == "a"))
            for name in ("a", "b")
            for e in catalogue_examples(catalogue.build(name, number))
            if e.memorized
        ]
        self.prompts = [e.condition.prompt or "" for e, _ in rows]
        self.groups = [e.group for e, _ in rows]
        self.kind = {e.group: e.kind for e, _ in rows}
        self.half = {e.group: half for e, half in rows}

    def off(self, half: dict[str, int], prompts: list[str]) -> float:
        """How far from 0.5 naive Bayes on 3-grams is, cross-validated by group."""
        labels = [half[group] for group in self.groups]
        return abs(roc_auc_score(labels, ngram_scores(prompts, labels, self.groups)) - 0.5)

    def dealt(self, seed: int) -> dict[str, int]:
        """Groups dealt to the halves anew, within their kind."""
        draws, found = np.random.RandomState(seed), {}
        for kind in sorted(set(self.kind.values())):
            groups = [group for group in self.half if self.kind[group] == kind]
            halves = draws.permutation([self.half[group] for group in groups])
            found |= dict(zip(groups, halves, strict=True))
        return found


@pytest.mark.parametrize("number", sorted(catalogue.DEALS))
def test_captions_do_not_tell_the_half(number: int) -> None:
    """As little as they tell the label; a word that one half alone has would be found."""
    world = Halves(number)
    assert world.off(world.half, world.prompts) <= 0.08
    marked = [
        f"{p} new" if world.half[group] else p
        for p, group in zip(world.prompts, world.groups, strict=True)
    ]
    assert world.off(world.half, marked) > 0.3


def test_captions_of_the_halves_are_exchangeable() -> None:
    """The permutation test: dealt anew, they part as far from 0.5."""
    world = Halves()
    chance = [world.off(world.dealt(seed), world.prompts) for seed in range(19)]
    assert world.off(world.half, world.prompts) < max(chance) < 0.15


GOLDEN = {
    "a": "435861ad6a2926ab0e3fc25f7a65a643a3b4c8836418eaa6af361f76bae377ab",
    "b": "7dcd103e4c48c753679e7e48b4289650e99b50501af512414b01d609db9719c8",
}
