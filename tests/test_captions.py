"""Scores of captions by hand and by a second implementation; detectors that see no
model; the line that captions draw on a board.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make
from scripts import script

from membench import api, registry
from membench.boards import board as boards
from membench.boards import captions
from membench.boards.board import of_frame
from membench.boards.captions import best, reached, with_captions
from membench.boards.collect import collect
from membench.boards.resampling import Resampler
from membench.boards.seeds import over_seeds
from membench.cli.main import main
from membench.detector import Detector
from membench.detectors.captions import CaptionCase, CaptionNgrams
from membench.errors import UserError
from membench.metrics.captions import case_share, dealt, length, ngram_scores
from membench.metrics.detection import tpr_at_fpr
from membench.metrics.intervals import detection_table
from membench.metrics.levels import two_level_interval
from membench.reports.board_tables import captions_lines
from membench.reports.output import write_boards
from membench.reports.page_boards import page_boards
from membench.reports.run_tables import run_table
from membench.reports.seeds_tables import seeds_tables, summary_tables
from membench.runs import execute
from membench.runs.execute import execute_all
from membench.runs.finished import Run, read_runs
from membench.runs.job import load_task
from membench.runs.shards import NoModel
from membench.runs.spec import Spec
from membench.similarity.near_duplicates import text_groups
from membench.types import Access, Condition, sees

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT.parent / "shared" / "data" / "prompts"
published = pytest.mark.skipif(
    not PROMPTS.is_dir(), reason="the published prompts are not beside the checkout"
)
CONTROLS = ("caption_case", "caption_length", "caption_ngrams")


def auroc(labels, scores) -> float:
    """The share of pairs in the right order, ties half, pair by pair."""
    positive, negative = (
        [s for s, a in zip(scores, labels, strict=True) if a == label] for label in (1, 0)
    )
    return sum((p > n) + (p == n) / 2 for p in positive for n in negative) / (
        len(positive) * len(negative)
    )


# --------------------------------------------------------------------------- the scores


def test_case_and_length_by_hand():
    # The last is a title-case letter, which is not upper-case
    texts = ["AbC d", "", "no capitals", "ÉA", "1 2!", "ǅ"]
    assert case_share(texts).tolist() == [2 / 5, 0, 0, 1, 0, 0]
    assert length(texts).tolist() == [5, 0, 11, 2, 4, 1]
    assert case_share([]).shape == length([]).shape == (0,)


def bayes(texts: list[str], labels: list[int], text: str) -> float:
    """Log-odds of ``text``, trained on ``texts``, by counting."""

    def grams(t: str) -> list[str]:
        t = re.sub(r"\s\s+", " ", t.lower())
        return [t[i : i + 3] for i in range(len(t) - 2)]

    counts = {
        value: Counter(
            g for t, label in zip(texts, labels, strict=True) if label == value for g in grams(t)
        )
        for value in (0, 1)
    }
    known = set(counts[0]) | set(counts[1])
    total = {value: sum(counts[value].values()) + len(known) for value in (0, 1)}
    return sum(
        math.log((counts[1][g] + 1) / total[1]) - math.log((counts[0][g] + 1) / total[0])
        for g in grams(text)
        if g in known
    )


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    """60 texts in 24 groups; two groups of unlabelled texts, one of which has a
    labelled member too.
    """
    rng = np.random.default_rng(3)
    words = ["Shaw", "floor", "oak", "a  dog", "Red", "x", "on the mat", "EST.", "wall art"]
    texts = [" ".join(rng.choice(words, 4)) for _ in range(60)]
    groups = [f"g{i}" for i in rng.integers(24, size=60)]
    label_of = {f"g{i}": int(i % 3 == 0) for i in range(24)}
    labels = [label_of[g] for g in groups]
    texts += ["Shaw oak wall", "never seen Ω", "on"]
    groups += ["g0", "new", "new"]
    labels += [-1, -1, -1]
    return pd.DataFrame(
        {"id": [f"e{i:02}" for i in range(63)], "prompt": texts, "label": labels, "group": groups}
    )


def test_ngrams_are_naive_bayes_on_the_other_folds(world):
    texts, labels, groups = (world[name].tolist() for name in ("prompt", "label", "group"))
    known = [i for i, label in enumerate(labels) if label >= 0]
    found = ngram_scores(texts, labels, groups)
    fold = dealt([labels[i] for i in known], [groups[i] for i in known], 5)
    for i in range(len(texts)):
        train = [j for j in known if fold[groups[j]] != fold.get(groups[i], -1)]
        assert groups[i] not in {groups[j] for j in train}
        assert found[i] == pytest.approx(
            bayes([texts[j] for j in train], [labels[j] for j in train], texts[i]), abs=1e-9
        )
    assert len({fold[g] for g in fold}) == 5 and found[-1] == 0.0  # "on" has no trigram


def test_ngrams_do_not_depend_on_the_order_of_the_rows(world):
    order = np.random.default_rng(0).permutation(len(world))
    for seed in (0, 1):
        one, other = (
            ngram_scores(w.prompt.tolist(), w.label.tolist(), w.group.tolist(), seed=seed)
            for w in (world, world.iloc[order])
        )
        assert np.array_equal(one[order], other)
    assert not np.array_equal(
        one, ngram_scores(world.prompt.tolist(), world.label.tolist(), world.group.tolist(), seed=0)
    )


def test_folds_keep_groups_whole_and_labels_even():
    rng = np.random.default_rng(1)
    groups = [f"g{i}" for i in rng.zipf(1.6, 600).clip(max=200)]
    labels = [int(g[1:]) % 2 for g in groups]
    fold = dealt(labels, groups, 4)
    rows = np.zeros((4, 2), dtype=int)
    for g, label in zip(groups, labels, strict=True):
        rows[fold[g], label] += 1
    largest = {
        value: max(Counter(g for g in groups if int(g[1:]) % 2 == value).values())
        for value in (0, 1)
    }
    for value in (0, 1):
        assert (
            rows[:, value].max() - rows[:, value].min() <= largest[value]
            and (rows[:, value] > 0).all()
        )
    # A group of both labels goes where there is least of both; by hand: b and w fill
    # folds 0 and 1 before m.
    by_hand = dealt([1, 1, 1, 0, 0, 0, 1, 0], ["b", "b", "b", "w", "w", "w", "m", "m"], 2)
    assert by_hand["b"] == by_hand["w"] == 0 and by_hand["m"] == 1


def test_ngrams_do_not_learn_from_their_own_group():
    """Texts of a group share a word that tells nothing of other groups, so that only a
    leak can separate the labels.
    """
    rng = np.random.default_rng(5)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, 12)) for _ in range(80)]
    texts, groups, labels = [], [], []
    for i, word in enumerate(words):
        texts += [f"{word} {k}" for k in range(4)]
        groups += [f"g{i}"] * 4
        labels += [i % 2] * 4
    assert abs(auroc(labels, ngram_scores(texts, labels, groups)) - 0.5) < 0.12
    assert auroc(labels, ngram_scores(texts, labels, [str(i) for i in range(len(texts))])) > 0.99


def test_ngrams_with_fewer_groups_than_folds(world):
    texts, labels, groups = (
        ["abc", "abd", "xyz", "xyw", "abc xyz"],
        [1, 1, 0, 0, -1],
        ["p", "q", "r", "s", "t"],
    )
    # 2 folds, so that either trains on one text of each label
    found = ngram_scores(texts, labels, groups)
    fold = dealt(labels[:4], groups[:4], 2)
    assert fold["p"] != fold["q"] and fold["r"] != fold["s"]
    for i in range(4):
        train = [j for j in range(4) if fold[groups[j]] != fold[groups[i]]]
        assert found[i] == pytest.approx(
            bayes([texts[j] for j in train], [labels[j] for j in train], texts[i])
        )
    assert found[4] == pytest.approx(bayes(texts[:4], labels[:4], texts[4]), abs=1e-12)
    assert ngram_scores(["", "a", "b", "ab"], [1, 1, 0, 0], list("pqrs")).tolist() == [0, 0, 0, 0]
    # Trigrams in a text that trains nothing, or is scored itself, alone
    texts = ["ab", "cd", "ef", "gh", "a long one"]
    assert ngram_scores(texts, [1, 1, 0, 0, -1], list("pqrst")).tolist() == [0] * 5


@pytest.mark.parametrize(
    "labels",
    [[1, 1, 1, 1], [0, 0, -1, -1], [1, 0, 0, 0]],
    ids=["one label", "one and unknown", "one group"],
)
def test_ngrams_refuse_what_cannot_be_cross_validated(labels):
    with pytest.raises(UserError, match="2 groups of each label"):
        ngram_scores(["abc"] * 4, labels, list("pqrs"))


def test_ngrams_refuse_what_is_wrong():
    with pytest.raises(ValueError, match="2 texts, 1 labels"):
        ngram_scores(["a", "b"], [1], ["g", "h"])
    with pytest.raises(ValueError, match="labels must be"):
        ngram_scores(["a", "b"], [1, 2], ["g", "h"])
    with pytest.raises(ValueError, match="folds"):
        ngram_scores(["a", "b"], [1, 0], ["g", "h"], folds=1)


# ----------------------------------------------------------------------------- the line


def test_what_captions_reach_is_what_a_run_of_the_controls_stores(world):
    found = {r.by: r for r in reached(world)}
    assert tuple(found) == CONTROLS
    by = {"caption_case": case_share(world.prompt), "caption_length": length(world.prompt)}
    by["caption_ngrams"] = ngram_scores(world.prompt, world.label, world.group)
    for name, scores in by.items():
        frame = world.assign(score=scores, kind="k", source="s", status="ok")[
            world.label >= 0
        ].sort_values("id")
        [stored] = [m for m in detection_table(frame) if m.name == "auroc" and m.subset == "all"]
        assert (found[name].auroc, found[name].low, found[name].high) == pytest.approx(
            (stored.value, stored.low, stored.high), abs=1e-12
        )
        assert found[name].auroc == pytest.approx(auroc(frame.label, frame.score))
    top = best(reached(world))
    assert top is not None and top.auroc == max(r.auroc for r in found.values())
    # Kept, whatever the order of the rows
    assert reached(world.sample(frac=1, random_state=1)) is reached(world)


def test_groups_of_the_line_are_those_asked_for_and_folds_those_of_the_task(world):
    pairs = pd.Series(
        [f"{'m' if label == 1 else 'n'}{i % 4}" for i, label in enumerate(world.label)], world.index
    )
    ours, asked = reached(world), reached(world, pairs)
    assert [r.auroc for r in ours] == [r.auroc for r in asked]
    assert all((a.low, a.high) != (b.low, b.high) for a, b in zip(ours, asked, strict=True))


def test_without_prompts_or_labels_there_is_no_line(world):
    assert (
        reached(world.assign(prompt=None))
        == ()
        == reached(world.assign(label=1))
        == reached(world[:0])
    )
    # A group a label: no folds, and no interval
    few = world[world.label >= 0].assign(group=lambda w: w.label.astype(str))
    found = reached(few)
    assert [r.by for r in found] == ["caption_case", "caption_length"] and all(
        math.isnan(r.low) for r in found
    )


def shouted(run: Run) -> Run:
    """The run with captions in capitals where the example is memorized."""
    prompt = [f"MUG {i}" if label else f"a mug {i}" for i, label in enumerate(run.scores.label)]
    return replace(run, scores=run.scores.assign(prompt=prompt))


def test_a_board_says_what_captions_reach_and_warns(tmp_path, capsys):
    runs = [
        shouted(make(tmp_path, COPIED, detector="one")),
        shouted(make(tmp_path, COPIED, detector="two", seed=1)),
    ]
    frame = collect(runs)
    assert (
        (frame.captions_auroc == 1.0).all()
        and (frame.captions_by == "caption_case").all()
        and (frame.captions_low < 0.5).all()  # of four groups a label
    )
    expected = "captions alone reach AUROC 1.000 [0.398, 1.000] (caption_case;"
    write_boards(of_frame(frame, "run"), "md", None)
    out = capsys.readouterr().out
    assert out.count(expected) == 1 and out.count("WARNING: captions alone exceed AUROC 0.6") == 1
    seeds = over_seeds(frame, runs)
    assert seeds.captions_auroc.tolist() == [1.0, 1.0]
    notes = {"seeds": next(seeds_tables(seeds))[2], "summary": next(summary_tables(seeds))[2]}
    assert any(note.startswith(expected) for note in notes["seeds"]) and any(
        note.startswith(f"t: {expected}") for note in notes["summary"]
    )
    assert expected in run_table(runs) and run_table(runs[:1]).count("WARNING") == 1
    # A run that scores nothing has the board's line; an older stored leaderboard has
    # none, and is read.
    more = collect([*runs, make(tmp_path, COPIED, detector="three", scored=False)])
    assert (more.captions_auroc == 1.0).all()
    assert list(captions_lines(frame.drop(columns=list(captions.COLUMNS)))) == []


def test_captions_that_tell_nothing_are_no_warning(tmp_path):
    run = make(tmp_path, COPIED)  # all are "a mug"
    frame = collect([run])
    assert frame.captions_auroc.tolist() == [0.5]
    assert [line.partition(" (")[0] for line in captions_lines(frame)] == [
        "captions alone reach AUROC 0.500 [0.500, 0.500]"
    ]
    silent = collect([replace(run, scores=run.scores.assign(prompt=None))])
    assert (
        silent.captions_auroc.isna().all()
        and silent.captions_by.isna().all()
        and list(captions_lines(silent)) == []
    )


def test_the_line_of_a_board_is_under_the_groups_asked_for(tmp_path):
    run = make(tmp_path, COPIED * 3)
    texts = [
        f"{'Big' if i % 4 == 1 else 'small'} mug number {i // 6}" for i in range(len(run.scores))
    ]
    run = replace(run, scores=run.scores.assign(prompt=texts))
    task, text = (
        with_captions(collect([run]), [run], groups).iloc[0] for groups in ("task", "text")
    )
    assert task.captions_auroc == text.captions_auroc and (
        task.captions_low,
        task.captions_high,
    ) != (text.captions_low, text.captions_high)


def test_the_page_shows_the_line(tmp_path):
    [board] = page_boards(boards.board([shouted(make(tmp_path, COPIED))], "seeds"))
    assert any(note.startswith("captions alone reach AUROC 1.000") for note in board.notes)


def test_sources_are_rows_of_their_own(tmp_path, capsys):
    def of_sources(scores: pd.DataFrame) -> pd.DataFrame:
        number = scores.id.str.removeprefix("c").astype(int)  # the even ones are not memorized
        scores = scores.assign(
            source=np.where(scores.label == 1, "planted", "s" + (number % 4).astype(str))
        )
        return scores.assign(score=scores.score + (scores.source == "s2") * 0.9)

    for seed in (0, 1):
        scores = make(tmp_path, COPIED * 6, seed=seed, change=of_sources).scores
    out = tmp_path / "sources.parquet"
    assert (
        main(
            [
                "leaderboard",
                "--by",
                "source",
                "--runs",
                str(tmp_path),
                "--format",
                "parquet",
                "--output",
                str(out),
            ]
        )
        == 0
    )
    frame = pd.read_parquet(out).set_index("source")
    assert set(frame.index) == {"all", "s0", "s2"} and (frame.seeds == 2).all()
    for source in ("s0", "s2"):
        part = scores[(scores.label == 1) | (scores.source == source)]
        assert frame.auroc[source] == pytest.approx(auroc(part.label, part.score))
        drawn = [
            of["auroc"]
            for of in Resampler().detection(read_runs(tmp_path).runs, f"source={source}")
        ]
        expected = two_level_interval(
            [d.value for d in drawn], np.stack([d.resampled for d in drawn]), logit=True
        )
        assert (frame.auroc_low[source], frame.auroc_high[source]) == pytest.approx(
            expected
        ) and expected[0] < frame.auroc[source]
    assert frame.auroc["s2"] < frame.auroc["all"] < frame.auroc["s0"]
    assert main(["leaderboard", "--by", "source", "--runs", str(tmp_path), "--format", "md"]) == 0
    assert "| detector | options | source | seeds |" in capsys.readouterr().out


# ---------------------------------------------------------------------------- detectors


@pytest.fixture
def plain(monkeypatch):
    """Runs of the mini task whose model must not be loaded, and without reports."""
    monkeypatch.setattr(api, "write_report", lambda *_: None)
    original = load_task

    def no_model():
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(
        execute, "load_task", lambda spec, **more: replace(original(spec, **more), model=no_model)
    )


def spec(detector: str, **changes) -> Spec:
    return Spec(detector, "sd_webster", **{"limit": 130, **changes})


def test_the_controls_load_no_model_and_cost_nothing(plain, tmp_path):
    runs = execute_all([spec(name) for name in CONTROLS], tmp_path, progress=False).runs
    scores = {name: run.scores.set_index("id") for name, run in zip(CONTROLS, runs, strict=True)}
    rows = scores["caption_ngrams"]
    assert (
        np.array_equal(scores["caption_case"].score, case_share(rows.prompt)) and len(rows) == 130
    )
    assert np.array_equal(scores["caption_length"].score, length(rows.prompt))
    assert np.array_equal(
        rows.score, ngram_scores(rows.prompt.tolist(), rows.label.tolist(), rows.group.tolist())
    )
    for run in runs:
        assert run.samples.empty and all(
            not cost.get("forwards") for cost in run.info["phases"].values()
        )
        assert run.info["access"]["model"] is False and "access" not in run.info["key_parts"]
    frame = collect(runs).set_index("detector")
    assert frame.sees.to_dict() == {name: "condition" for name in CONTROLS[:2]} | {
        "caption_ngrams": "condition+labels"
    }
    assert (
        frame.captions_auroc.max() == frame.auroc.max()
        and frame.captions_by.iloc[0] == frame.auroc.idxmax()
    )
    assert frame.captions_low.iloc[0] == frame.auroc_low[frame.auroc.idxmax()]


def test_a_killed_run_of_the_control_that_learns_ends_with_the_same_scores(
    plain, tmp_path, monkeypatch
):
    [whole] = execute_all([spec("caption_ngrams")], tmp_path / "whole", progress=False).runs
    original, calls = CaptionNgrams.score, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionNgrams, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            execute_all([spec("caption_ngrams")], tmp_path / "cut", progress=False)
    [resumed] = execute_all([spec("caption_ngrams")], tmp_path / "cut", progress=False).runs
    pd.testing.assert_frame_equal(whole.scores, resumed.scores)


def test_beside_others_the_model_is_loaded_and_nothing_else_changes(
    tmp_path, monkeypatch, tiny_pipeline_folder
):
    monkeypatch.setattr(api, "write_report", lambda *_: None)
    own = {"limit": 8, "task_options": [f"model={tiny_pipeline_folder}"]}
    asked = [spec("caption_case", **own), spec("cfg_norm", options=["images=0", "draws=1"], **own)]
    both = execute_all(asked, tmp_path / "both", progress=False).runs
    alone = [execute_all([one], tmp_path / "alone", progress=False).runs[0] for one in asked]
    for a, b in zip(both, alone, strict=True):
        assert a.path.name == b.path.name
        pd.testing.assert_frame_equal(a.scores, b.scores)
    assert (
        both[1].info["phases"]["scores"]["forwards"] == 16
        and not both[1].info["phases"]["scores"]["shared"]
    )
    assert not both[0].info["phases"]["scores"]["forwards"]
    # As an older membench wrote it: keys of run.json that are compared when a run is
    # resumed.
    assert both[1].info["access"] == {
        "gradients": False,
        "images": False,
        "training_data": False,
        "labels": False,
        "model": True,
    }


def test_what_does_not_suit_them_is_told_in_a_line(plain, tmp_path, capsys):
    for detector in (CaptionCase, CaptionNgrams):
        with pytest.raises(UserError, match="no captions to read"):
            detector(detector.Options(), seed=0, sampling={}).check(
                NoModel(), [Condition("a", "a mug"), Condition("b", class_label=3)]
            )
    code = main(
        [
            "run",
            "--detector",
            "caption_case",
            "--task",
            "sd_webster",
            "--extract-only",
            "--quiet",
            "--runs",
            str(tmp_path),
        ]
    )
    told = capsys.readouterr().err
    assert (
        code == 2
        and told.count("\n") == 1
        and "caption_case: it sees no model, so it extracts no image" in told
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a mug\na rug\n")
    specs = [spec(name, task_options=[f"prompts={prompts}"], limit=None) for name in CONTROLS]
    found = execute_all(specs, tmp_path, progress=False, skip=True)
    assert [run.info["detector"] for run in found.runs] == ["caption_case", "caption_length"]
    assert [(s.detector, s.reason.partition(" need")[0]) for s in found.skipped] == [
        ("caption_ngrams", "n-grams of captions")
    ]


@dataclass(frozen=True)
class Options:
    pass


class Blind(Detector):
    """A plug-in that declares what it does not keep to."""

    Options, version, access = Options, 1, Access(model=False)

    def plan(self, conditions):
        return []

    def extract(self, model, requests):
        return []

    def score(self, model, conditions, extracted):
        return [float(model.condition(conditions).shape[0])] * len(conditions)


class Unfit(Blind):
    access = Access(labels=True, model=False)


@pytest.mark.parametrize(
    ("detector", "error"),
    [
        (Blind, "Access.model=False. asks for the model's 'condition'"),
        (Unfit, "Unfit declares .* has no fit"),
    ],
)
def test_a_plug_in_that_breaks_its_word_is_told(
    plain, tmp_path, monkeypatch, detector: type, error: str
):
    original: Callable = registry.Registry.load
    monkeypatch.setattr(
        registry.Registry,
        "load",
        lambda self, name: detector if name == "caption_case" else original(self, name),
    )
    with pytest.raises(UserError, match=error) as caught:
        execute_all([spec("caption_case")], tmp_path, progress=False)
    assert "\n" not in str(caught.value)


def test_labels_are_for_those_who_declare_them(plain, tmp_path, monkeypatch):
    """``fit`` alone gives no detector labels."""
    fitted = []
    monkeypatch.setattr(
        CaptionCase, "fit", lambda self, *given: fitted.append(given), raising=False
    )
    execute_all([spec("caption_case")], tmp_path, progress=False)
    assert not fitted


def test_what_is_seen_in_words():
    assert sees(
        {
            "gradients": False,
            "images": False,
            "training_data": False,
            "labels": False,
            "model": True,
        }
    ) == ["outputs"]
    assert sees(Access(gradients=True, images=True).record()) == ["outputs", "gradients", "images"]
    assert sees(Access(labels=True, model=False).record()) == ["condition", "labels"]
    assert Access(internals=True).record() == {**Access().record(), "internals": True}
    assert sees(Access(internals=True).record()) == ["outputs", "internals"]
    assert sees(Access(references=True).record()) == ["outputs", "references"]
    nothing = dict.fromkeys(("gradients", "images", "training_data", "labels"), False)
    assert Access().record() == {**nothing, "model": True}


# ---------------------------------------------------------------- the published prompts


@published
def test_the_survey_s_figures_on_the_real_prompts():
    """Upper-case share: AUROC 0.794 and a TPR of 0.026 at 1 % FPR; 349 clusters."""
    rows = script("benchmarks/captions.py").pair(PROMPTS, "SD 1, 500", "LAION")
    assert rows.label.value_counts().to_dict() == {1: 500, 0: 500}
    assert (
        len(set(text_groups(rows.prompt[rows.label == 1].tolist())))
        == rows.group[rows.label == 1].nunique()
        == 349
    )
    found = {r.by: r for r in reached(rows)}
    assert found["caption_case"].auroc == pytest.approx(0.794, abs=0.001)
    assert found["caption_case"].auroc == pytest.approx(auroc(rows.label, case_share(rows.prompt)))
    assert tpr_at_fpr(case_share(rows.prompt), rows.label.to_numpy(), 0.01) == pytest.approx(0.026)
    assert (
        best(tuple(found.values())).by == "caption_ngrams"
        and 0.93 < found["caption_ngrams"].auroc < 0.98
    )
    # Prompts of one product line are no independent evidence: the interval is wider
    # than one that takes them for that.
    alone = {r.by: r for r in reached(rows.assign(group=rows.id))}
    width = {
        name: (of[name].high - of[name].low)
        for name, of in (("caption_case", found), ("caption_case", alone))
    }
    assert found["caption_case"].high - found["caption_case"].low > 1.2 * (
        alone["caption_case"].high - alone["caption_case"].low
    ), width


@published
@pytest.mark.parametrize(
    ("memorized", "negatives"), [("SD 1, 500", "LAION"), ("SD 2, 219", "GPT-4")]
)
def test_the_page_s_table_is_what_the_command_prints(memorized: str, negatives: str):
    maker = script("benchmarks/captions.py")
    cells = {
        "memorized set": memorized,
        "negatives of": negatives,
        **maker.row(maker.pair(PROMPTS, memorized, negatives)),
    }
    assert maker.markdown(pd.DataFrame([cells])).splitlines()[-1] in (
        ROOT / "docs" / "captions.md"
    ).read_text(encoding="utf-8")
