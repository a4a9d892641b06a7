"""Groups of near-duplicates against loops over all pairs, hand-made cases and the real
prompts.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import frames
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from boards import make
from conftest import ROOT

from membench.boards.board import board
from membench.boards.groups import regrouped
from membench.boards.resampling import Resampler
from membench.datasets.prompts import read_prompts
from membench.errors import UserError
from membench.metrics.detection import check
from membench.similarity import near_duplicates
from membench.similarity.near_duplicates import by_label, image_groups, merged, text_groups
from membench.storage.images import png_bytes

PROMPTS = ROOT.parent / "shared" / "data" / "prompts"


def parts(names: Sequence) -> set[frozenset[int]]:
    """The partition of rows that names describe."""
    return {frozenset(i for i, name in enumerate(names) if name == group) for group in set(names)}


def linked(rows: Sequence, together: Callable) -> set[frozenset[int]]:
    """Single linkage by asking of every pair."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(rows)))
    graph.add_edges_from(
        (i, j) for i, j in itertools.combinations(range(len(rows)), 2) if together(rows[i], rows[j])
    )
    return {frozenset(part) for part in nx.connected_components(graph)}


def jaccard(a: str, b: str) -> float:
    a, b = a.lower().strip(), b.lower().strip()
    if len(a) < 3 or len(b) < 3:
        return float(a == b)
    x, y = ({t[i : i + 3] for i in range(len(t) - 2)} for t in (a, b))
    return len(x & y) / len(x | y)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a / 255 - b / 255) ** 2)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 1])
def test_texts_as_all_pairs_say(monkeypatch, seed, threshold):
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)  # several blocks
    rng = np.random.default_rng(seed)
    letters = list("ab A\t\néß")
    texts = ["".join(rng.choice(letters, int(size))) for size in rng.integers(0, 12, 60)]
    expected = linked(texts, lambda a, b: jaccard(a, b) >= threshold)
    assert parts(text_groups(texts, threshold=threshold)) == expected and 1 < len(expected) < 60


def test_texts_by_hand():
    # abcd has the trigrams abc, bcd; abcde has cde too: 2 of 3 are shared. abcdefg
    # shares 3 of its 5 with abcde, 2 with abcd.
    texts = ["abcd", "abcde", "abcdefg"]
    assert parts(text_groups(texts, threshold=0.7)) == {
        frozenset([0]),
        frozenset([1]),
        frozenset([2]),
    }
    assert parts(text_groups(texts, threshold=2 / 3)) == {frozenset([0, 1]), frozenset([2])}
    # By way of the second: 2 of 5 is below
    assert parts(text_groups(texts, threshold=0.6)) == {frozenset([0, 1, 2])}
    assert parts(text_groups(["abcd", "abcdefg"], threshold=0.6)) == {
        frozenset([0]),
        frozenset([1]),
    }


def test_short_empty_and_equal_texts():
    texts = ["", "  ", "a", "A ", "ab", "abc", "ABC", "a b"]
    assert parts(text_groups(texts)) == {frozenset(x) for x in ([0, 1], [2, 3], [4], [5, 6], [7])}
    assert text_groups([]) == []


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_that_means_nothing(threshold):
    with pytest.raises(ValueError, match="threshold"):
        text_groups(["a"], threshold=threshold)


def test_names_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    texts = [
        f"{line}, size {n}"
        for line in ("teal area rug", "canvas tote bag", "poster of Rome", "coffee mug")
        for n in range(5)
    ]
    images = rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    images[10:] = images[:10] ^ 1
    rows = rng.permutation(20)
    by_text, by_image = text_groups(texts), image_groups(images)
    both = merged(by_text, by_image)
    assert text_groups([texts[i] for i in rows]) == [by_text[i] for i in rows]
    assert image_groups(images[rows]) == [by_image[i] for i in rows]
    assert merged([by_text[i] for i in rows], [by_image[i] for i in rows]) == [
        both[i] for i in rows
    ]
    assert len(set(by_text)) == 4 and len(set(by_image)) == 10 and len(set(both)) == 2
    assert set(text_groups(texts[:5])) == {by_text[0]}  # nor on what else is there


@pytest.mark.parametrize("seed", range(4))
def test_images_as_all_pairs_say(monkeypatch, seed):
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    rng = np.random.default_rng(seed)
    centres = rng.integers(60, 196, (6, 5, 4, 3))
    images = (
        centres[rng.integers(6, size=40)]
        + rng.normal(0, 1, (40, 5, 4, 3)) * rng.integers(2, 60, (40, 1, 1, 1))
    ).clip(0, 255)
    images = images.astype(np.uint8)
    for threshold in (0.05, 0.1, 0.2):
        expected = linked(images, lambda a, b, threshold=threshold: rms(a, b) <= threshold)
        assert (
            parts(image_groups(images, threshold=threshold)) == expected and 1 < len(expected) < 40
        )
    assert image_groups(images) == image_groups(images, threshold=0.1)


def test_images_by_hand():
    # 0.2, 0.2 and 0.4 apart
    grey = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 51, 102, 204)])
    assert parts(image_groups(grey, threshold=0.2)) == {frozenset([0, 1, 2]), frozenset([3])}
    assert (
        len(set(image_groups(grey, threshold=0.199))) == 4
        and len(set(image_groups(grey, threshold=0.4))) == 1
    )
    half = grey[:2].copy()
    half[1, 1] = 0  # half of the pixels differ by 0.2
    assert (
        len(set(image_groups(half, threshold=0.1415))) == 1
        and len(set(image_groups(half, threshold=0.1414))) == 2
    )
    equal = grey[[3, 0, 3]]
    assert parts(image_groups(equal, threshold=0)) == {frozenset([0, 2]), frozenset([1])}
    assert image_groups(grey[:0]) == []


def test_images_of_another_kind():
    for images in (
        np.zeros((2, 4, 4, 3)),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 1), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8"):
            image_groups(images)
    with pytest.raises(ValueError, match="threshold"):
        image_groups(np.zeros((2, 4, 4, 3), np.uint8), threshold=25)


@pytest.mark.parametrize("seed", range(6))
def test_merged_as_all_pairs_say(seed):
    rng = np.random.default_rng(seed)
    given = [[f"g{i}" for i in rng.integers(0, 25, 40)] for _ in range(3)]
    for some in (given[:1], given[:2], given):
        rows = list(zip(*some, strict=True))
        expected = linked(rows, lambda a, b: any(x == y for x, y in zip(a, b, strict=True)))
        assert parts(merged(*some)) == expected
    assert len(parts(merged(*given[:2]))) < len(parts(given[0]))


def test_merged_keeps_the_names_of_two_groupings_apart():
    """One word may stand in both and mean different groups."""
    assert parts(merged(["x", "y", "z"], ["p", "x", "p"])) == {frozenset([0, 2]), frozenset([1])}


def test_merging_nothing_or_unequal_lengths():
    for given in ([], [["a"], ["a", "b"]]):
        with pytest.raises(ValueError, match="lengths"):
            merged(*given)


def test_labels_are_kept_apart():
    names = ["rug", "mug", "rug", "rug", "mug", "rug"]
    new = by_label(names, [1, 0, 0, 1, 0, -1])
    assert new == ["rug/label=1", "mug", "rug/label=0", "rug/label=1", "mug", "rug/label=-1"]
    with pytest.raises(ValueError, match="both labels"):
        check(np.arange(5), np.array([1, 0, 0, 1, 0]), np.array(names[:5]))
    check(np.arange(5), np.array([1, 0, 0, 1, 0]), np.array(new[:5]))
    with pytest.raises(ValueError, match="already"):
        by_label(["rug", "rug", "rug/label=1"], [0, 1, 1])
    with pytest.raises(ValueError):
        by_label(names, [1])


def run_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Eight examples under an index of their own. a and b: like prompts. b and c: like
    images. d: a prompt and a failed image. e: c's image, but no prompt. f and g:
    neither; g's label differs. h: an image of its own, but no prompt.
    """
    scores = frames.scores(*"abcdefgh").set_index(pd.Index(range(10, 90, 10)))
    scores["prompt"] = [
        "teal striped rug, 5x8",
        "teal striped rug, 8x10",
        "plain mug",
        "a poster of Rome",
        None,
        None,
        None,
        None,
    ]
    scores["group"] = ["A", "B", "B", "A", "A", "F", "F", "A"]
    scores["label"] = [1, 1, 1, 1, 1, 1, 0, 1]
    shades = {
        "a/0": 0,
        "b/10": 0,
        "b/2": 100,
        "c/0": 103,
        "d/0": 0,
        "e/5": 105,
        "h/0": 200,
        "other/0": 0,
    }
    samples = frames.samples(*shades)
    samples["image"] = [png_bytes(np.full((4, 4, 3), shade, np.uint8)) for shade in shades.values()]
    failed = samples["sample_id"] == "d/0"
    return scores, samples.assign(
        status=np.where(failed, "failed", "ok"), image=samples["image"].where(~failed, None)
    )


def grouped(scores, samples, how):
    """The new groups; images are read from the table."""

    def images(ids):
        held = {} if samples is None else dict(zip(samples.sample_id, samples.image, strict=True))
        return [(name, held[name]) for name in ids if held[name] is not None]

    return regrouped(scores, samples, how, images)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("task", ["adeh", "bc", "fg"]),
        ("text", ["ab", "c", "d", "eh", "f", "g"]),
        ("image", ["a", "bce", "d", "f", "g", "h"]),
        ("text+image", ["abce", "d", "f", "g", "h"]),
    ],
)
def test_new_groups_of_stored_tables(how, expected):
    scores, samples = run_tables()
    found = grouped(scores, samples, how)
    assert {
        frozenset(scores["id"].to_numpy()[list(part)]) for part in parts(found.tolist())
    } == set(map(frozenset, expected))
    assert found.index.equals(scores.index) and found.name == "group"
    # e and h of "text" and d of "image" keep the stored group A, which a left. It joins
    # nothing in "text+image", where they have a part.
    kept = {"text": {50: "A"}, "image": {40: "A"}}.get(how, {})
    assert all(found[i] == name for i, name in kept.items())
    if how != "task":
        assert found[60] == "F/label=1" and found[70] == "F/label=0"
    shuffled = grouped(
        scores.sample(frac=1, random_state=1), samples.sample(frac=1, random_state=2), how
    )
    assert shuffled.sort_index().equals(found)


def test_near_duplicates_of_both_labels_stay_apart():
    scores, samples = run_tables()
    scores.loc[20, "label"] = 0  # b, like a by text, like c and e by image
    for how in ("text", "image", "text+image"):
        found = grouped(scores, samples, how)
        assert (found == found[20]).sum() == 1
        check(np.arange(8), scores["label"].to_numpy(), found.to_numpy())
    # A, c and e, linked by b alone
    assert parts(grouped(scores, samples, "text+image").tolist()) >= {frozenset([0, 2, 4])}


def test_groups_that_cannot_be_had():
    scores, samples = run_tables()
    with pytest.raises(
        UserError, match=r"'txt'\. Did you mean 'text'.*task, text, image, text\+image"
    ):
        grouped(scores, samples, "txt")
    for none in (
        None,
        samples[:0],
        samples[samples["condition"] == "other"],
        samples.assign(status="failed"),
    ):
        for how in ("image", "text+image"):
            with pytest.raises(UserError, match="no example has an extracted image"):
                grouped(scores, none, how)
    for how in ("text", "text+image"):
        with pytest.raises(UserError, match="no example has a prompt"):
            grouped(scores.assign(prompt=None), samples, how)
    assert grouped(scores, None, "text").nunique() == 6


def test_a_prompts_file_without_groups_is_grouped_by_text(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "prompt,label,group\nteal striped area rug 5x8,1,\nteal striped area rug 8x10,1,\nteal"
        " striped area rug 9x12,0,\nplain mug,0,\nteal striped area rug 2x3,1,mine\n"
    )
    found = read_prompts(path)
    rug, mug = text_groups(
        [
            "teal striped area rug 5x8",
            "teal striped area rug 8x10",
            "teal striped area rug 9x12",
            "plain mug",
        ]
    )[::3]
    assert [e.group for e in found] == [
        f"{rug}/label=1",
        f"{rug}/label=1",
        f"{rug}/label=0",
        mug,
        "mine",
    ]
    assert [e.memorized for e in found] == [1, 1, 0, 0, 1] and found[
        3
    ].condition.prompt == "plain mug"
    plain = tmp_path / "mine.txt"
    plain.write_text("teal striped area rug 5x8\n\nplain mug\nteal striped area rug 8x10\n")
    assert parts([e.group for e in read_prompts(plain)]) == {frozenset([0, 2]), frozenset([1])}


def captions(name: str) -> list[str]:
    with open(PROMPTS / "hintersdorf2024" / name, encoding="utf-8", newline="") as file:
        return [row["Caption"] for row in csv.DictReader(file, delimiter=";")]


def test_a_group_of_both_labels_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("prompt,label,group\na red mug,1,g\na blue rug,0,g\n")
    with pytest.raises(UserError, match=r"group 'g' holds memorized and other prompts"):
        read_prompts(path)
    path.write_text("prompt,label,group\na red mug,1,g\na blue rug,,g\nfloors,0,h\n")
    assert [e.group for e in read_prompts(path)] == ["g", "g", "h"]


@pytest.mark.skipif(
    not PROMPTS.is_dir(), reason="the published prompts are not beside the checkout"
)
def test_the_published_prompts():
    webster = captions("memorized_laion_prompts.csv")
    sd2 = [
        line
        for line in (
            Path(PROMPTS / "memattn_ren2024" / "sd2_mem219.txt")
            .read_text(encoding="utf-8")
            .splitlines()
        )
        if line.strip()
    ]
    assert (len(webster), len(sd2)) == (500, 219)
    assert (len(set(text_groups(webster))), len(set(text_groups(sd2)))) == (349, 141)
    floors = [
        group
        for group, text in zip(text_groups(webster), webster, strict=True)
        if text.startswith("Shaw Floors")
    ]
    assert (len(floors), len(set(floors))) == (148, 92)
    assert parts(text_groups(sd2[:80])) == linked(sd2[:80], lambda a, b: jaccard(a, b) >= 0.5)
    others = captions("unmemorized_laion_prompts.csv")
    joined = text_groups(webster + others)
    # No group holds both
    assert len(set(joined)) == 848 and by_label(joined, [1] * 500 + [0] * 500) == joined


def test_shares_of_copies_are_over_the_groups_asked_for(tmp_path):
    """All images of one prompt are copies: two groups of it, not eight images."""
    run = make(tmp_path, [0, 0, 0, 0, None, None, None, None])
    words = ["teal striped area rug"] * 4 + ["a plain white mug"] * 4
    run = dataclasses.replace(run, samples=run.samples.assign(prompt=words))
    spread = {
        how: Resampler(how).copies(run, run.space).resampled.std() for how in ("task", "text")
    }
    # Of n independent parts that are each a copy or not: sd 0.5 / sqrt(n)
    assert spread["task"] == pytest.approx(0.5 / np.sqrt(8), rel=0.1)
    assert spread["text"] == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    with pytest.raises(UserError, match="--groups text is for --by seeds, kind"):
        board([run], "attack", groups="text")
