"""The page on metrics names every metric that a run stores, and every column of a board
that people see.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from boards import COPIED, make
from modules_page import PAGE as MODULES
from modules_page import page as page_of_modules
from scipy.stats import t as student
from scipy.stats.contingency import odds_ratio

from membench.boards.board import of_frame
from membench.boards.collect import collect
from membench.boards.seeds import over_seeds
from membench.metrics.names import DETECTION, RARE
from membench.metrics.trainings import over_trainings
from membench.reports.output import write_boards

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "metrics.md"


def words_of(path: str) -> str:
    """A page of the repository, on one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


def test_every_metric_has_its_place_on_the_page(tmp_path):
    run = make(tmp_path, [*COPIED, *range(10, 20)] * 6)
    names = {re.sub(r"_cumulative$", "", name) for name in run.metrics.metric}
    names |= {*DETECTION, *RARE, "extracted_share", "copies_per_image"}
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    # Written as a range
    named |= {f"best_p{q}" for q in (50, 75, 90, 95, 99)} | {
        f"precision_at_{k}" for k in (10, 50, 100)
    }
    assert len(names) > 15 and names <= named, sorted(names - named)


def test_every_module_has_its_place_on_the_page():
    assert MODULES.read_text(encoding="utf-8") == page_of_modules(), "python tests/modules_page.py"
    empty = [row for row in page_of_modules().splitlines() if row.endswith("|  |")]
    assert not empty, f"modules without a docstring: {empty}"


def test_the_sample_row_of_the_page_is_a_board_s(tmp_path, capsys):
    make(tmp_path, COPIED)
    make(tmp_path, COPIED, control=True)
    write_boards(of_frame(over_seeds(collect(tmp_path)), "seeds"), "md", None)
    titles = {
        cell.strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| detector")
        for cell in line.split("|")
    }
    [sample] = re.findall(
        r"^\| detector \| options .*$", PAGE.read_text(encoding="utf-8"), flags=re.M
    )
    assert {cell.strip() for cell in sample.split("|")} - {"…"} <= titles


@pytest.mark.parametrize("page", ["docs/findings.md", "docs/questions.md"])
def test_side_s_factor_is_that_of_the_ladder(page):
    """A factor that rests on few plain copies is named with its counts and how far it goes."""
    frame = pd.read_parquet(ROOT / "results" / "ladder.parquet")
    own = frame[~frame.control].set_index(["value", "detector"])
    each = pd.read_parquet(ROOT / "results" / "ladder_each.parquet")
    first = each[each.rung == 1].assign(copies=lambda rows: (rows.ams * rows.n_g).round())
    sums = first.groupby("attack")[["copies", "n_g"]].sum().astype(int)
    (side, of_side), (plain, of_plain) = sums.loc["side"], sums.loc["random"]
    odds = odds_ratio([[side, of_side - side], [plain, of_plain - plain]])
    low, factor = odds.confidence_interval(0.95).low, side / of_side / (plain / of_plain)
    text = words_of(page)
    assert f"some {round(factor, -1):.0f} times" in text
    counts = f"{side} of {of_side} against {plain} of {of_plain:,}"
    assert f"({counts}: anything from {low:.0f} up)" in text
    last = own.ams_cumulative["5", "side"] / own.ams_cumulative["5", "random"]
    assert f"{last:.1f} times" in text
    if page.endswith("questions.md"):
        assert f"where {100 * own.ams_cumulative['5', 'random']:.0f} % are" in text


def test_no_finding_meets_what_would_refute_it():
    """Of finding 4 and 5, by the tables they rest on."""
    text = words_of("docs/findings.md")
    assert "a detector with an AUROC clearly above 0.5 at 16 times whose AUROC" in text
    pairs = pd.read_parquet(ROOT / "results" / "mirror_development.parquet")
    pairs = pairs[pairs.task == "cifar10"].set_index(["detector", "kind"])
    clear = [d for d in pairs.index.unique("detector") if pairs.mirrored_low[d, "x16"] > 0.5]
    assert clear and all(pairs.mirrored[d, "x1"] < pairs.mirrored[d, "x16"] for d in clear)
    gains = ladder_gains()
    for base, ams, different, _ in gains:
        if base < 0.1:
            assert ams[1] > 0
        if base > 0.3:
            assert different[2] < 0
    assert [
        round(100 * base) for base, _, different, _ in gains if different[1] < 0 < different[2]
    ] == [
        0,
        6,
        17,
    ]
    assert "at base rates of 6 and 17 % there is no clear difference" in text


LEADS = ["ams", "copied_at_300", "copied_at_cost"]


def ladder_gains():
    """Of each rung: plain sampling's share of copies, and SIDE's lead by the same seed in
    copies of 100, and in different training images among 300 and at equal evaluations:
    mean and Student's interval.
    """
    each = pd.read_parquet(ROOT / "results" / "ladder_each.parquet")
    found = []
    for _, rung in each.groupby("rung"):
        of = rung.pivot(index="seed", columns="attack", values=LEADS)
        leads = []
        for what in LEADS:
            lead = (100 if what == "ams" else 1) * (of[what, "side"] - of[what, "random"])
            half = student.ppf(0.975, len(lead) - 1) * lead.sem()
            leads.append((lead.mean(), lead.mean() - half, lead.mean() + half))
        found.append((of["ams", "random"].mean(), *leads))
    return found


def test_leads_by_the_same_seed_are_those_of_their_file():
    page, questions, findings = map(
        words_of, ("results/ladder.md", "docs/questions.md", "docs/findings.md")
    )
    gains = ladder_gains()
    assert [at_cost[1] > 0 for *_, at_cost in gains] == [True, False, False, False, False]
    for _, ams, different, at_cost in gains:
        for lead, pages in (
            (ams, (page, questions, findings)),
            (different, (page, findings)),
            (at_cost, (page,)),
        ):
            told = "{:.1f} [{:.1f}, {:.1f}]".format(*lead)
            words = told.replace(" [", " points [")
            fewer = f"{-lead[0]:.1f} fewer [{-lead[2]:.1f}, {-lead[1]:.1f}]"
            assert all(told in p or words in p or fewer in p for p in pages), told
    frame = pd.read_parquet(ROOT / "results" / "ladder.parquet")
    mirror = frame[frame.control & (frame.detector == "side")]
    assert not mirror.ams_cumulative.any()
    drawn = f"{(mirror.n_g * mirror.seeds).sum():,.0f}"
    assert f"none of SIDE's {drawn} images" in page
    assert all(f"none of {drawn}" in p for p in (questions, findings))
    for row in frame[~frame.control].itertuples():
        told = [
            f"{100 * getattr(row, f'ams_cumulative{end}'):.1f}" for end in ("", "_low", "_high")
        ]
        assert f"{told[0]} % [{told[1]}, {told[2]}]" in questions or (
            f"{told[0]} [{told[1]}, {told[2]}]" in questions
        )
        assert told[0] in findings


def test_what_true_labels_change_is_that_of_both_ladders():
    """By the same seed; of copies and of different training images."""
    oracle = pd.read_parquet(ROOT / "results" / "ladder_oracle.parquet")
    oracle = oracle[oracle.detector == "side"].set_index("value")
    each = pd.read_parquet(ROOT / "results" / "ladder_each.parquet")
    clusters = each[(each.attack == "side") & (each.seed == 0)].set_index("rung")
    assert list(oracle.index) == ["3", "4", "5"] and set(oracle.seed_list) == {"0"}
    questions, page = words_of("docs/questions.md"), words_of("results/ladder.md")
    ams = [f"{100 * v:.1f}" for v in oracle.ams_cumulative]
    found = [f"{v:.0f}" for v in oracle.unique_copies]
    own = [(f"{100 * clusters.ams[k]:.1f}", f"{clusters.unique_copies[k]}") for k in (3, 4, 5)]
    assert "{}, {} and {} % copies of {}, {} and {} training".format(*ams, *found) in questions
    of, images = zip(*own, strict=True)
    assert "{}, {} and {} of {}, {} and {}".format(*of, *images) in questions
    (a, b), (c, d), (e, f) = own
    assert f"{a} % copies of {b} training images on rung 3, {c} of {d} on rung 4 and {e}" in page
    assert f"{e} of {f} on rung 5" in page
    assert 0.25 < 1 - float(e) / float(ams[2]) < 0.35 and 0.2 < 1 - float(f) / float(found[2]) < 0.3


def test_tries_are_told_as_they_were():
    """How many, of how many examples, and that they are no whole runs."""
    tries = pd.read_parquet(ROOT / "results" / "tuned_cifar10.parquet")
    assert set(tries.status) == {"partial"} and tries.n.nunique() == 1
    counts = tries.groupby("detector").size()
    assert counts["clid"] == 5 and counts.drop("clid").eq(6).all()
    own = tries[tries.detector == "score_norm"].set_index("number").auroc
    assert own[5] == own[0]
    for page in ("docs/findings.md", "results/worlds.md"):
        text = words_of(page)
        assert f"{tries.n.iloc[0]:.0f} examples" in text and "PARTIAL" in text
        assert "`clid` has five" in text and "`score_norm` repeats its defaults" in text


def test_what_labels_do_is_that_of_the_trainings():
    """Copies of each kind and way; and by the same seed, what the text says of a pair."""
    frame = pd.read_parquet(ROOT / "results" / "labels.parquet")
    assert not frame.dirty.any() and frame.groupby(["labels", "from"]).seed.nunique().eq(3).all()
    questions, page = words_of("docs/questions.md"), words_of("results/labels.md")
    shares = frame.pivot(index="seed", columns=["labels", "from"], values="ams")
    for column in shares:
        low, high = over_trainings(shares[column].tolist(), logit=True)
        told = f"{100 * shares[column].mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        assert told in questions or told.replace(" %", "") in questions, (column, told)
    for one, other in (
        (("random", "labels"), ("class", "labels")),
        (("cluster", "labels"), ("class", "labels")),
        (("class", "labels"), ("none", "null")),
        (("class", "null"), ("none", "null")),
        (("random", "null"), ("none", "null")),
        (("none", "SIDE"), ("none", "null")),
    ):
        more = 100 * (shares[one] - shares[other])
        low, high = over_trainings(more.tolist())
        assert f"{more.mean():.1f} [{low:.1f}, {high:.1f}]" in page, (one, other)


def test_what_perturbing_costs_is_that_of_the_trainings():
    frame = pd.read_parquet(ROOT / "results" / "perturbed_labels.parquet")
    frame = frame[(frame.labels == "class") & (frame["from"] == "labels") & (frame.side == 16)]
    plain, perturbed = (
        frame[frame.perturb == share].set_index(["half", "seed"]).accuracy for share in (0.0, 0.3)
    )
    less = (perturbed - plain).dropna()
    told = re.search(r"paired: (\S+), (\S+) and (\S+)\)", words_of("docs/questions.md"))
    assert sorted(map(float, told.groups())) == pytest.approx(sorted(less), abs=6e-4)
    assert f"from {plain.mean():.3f} to {perturbed.mean():.3f}" in words_of("docs/questions.md")
    assert less.index.get_level_values("half").value_counts().max() == 2


def test_the_line_of_captions_is_that_of_the_mini_catalogue():
    """On each board of differences every example of it counts."""
    compared = pd.read_parquet(ROOT / "results" / "differences.parquet")
    [n] = set(compared.n[compared.task == "sd_webster"])
    assert f"the {n:,.0f} examples of the mini catalogue" in words_of("docs/captions.md")


def test_the_divergence_of_real_images_is_that_of_its_file():
    frame = pd.read_parquet(ROOT / "results" / "cifar10_pair_divergence.parquet")
    found = frame.groupby(["rung", "kind", "epsilon", "model"]).pointwise.mean().round()
    text = (ROOT / "results" / "cifar10_pair.md").read_text(encoding="utf-8")
    for rung in (1, 6):
        for kind, words in (("x1", "once"), ("x64", "64 times")):
            cells = [
                f"{found[rung, kind, e, 'own']:.0f} / {found[rung, kind, e, 'mirror']:.0f}"
                for e in (0.03, 0.1, 0.3)
            ]
            assert f"| {rung} | {words} | {' | '.join(cells)} |" in text
            for model in ("own", "mirror"):
                assert f"{found[rung, kind, 0.1, model]:.0f}" in words_of("docs/questions.md")


@pytest.mark.parametrize("page", ["docs/findings.md", "docs/questions.md"])
def test_side_on_real_images_is_that_of_its_file(page):
    frame = pd.read_parquet(ROOT / "results" / "cifar10_pair_ladder.parquet")
    rows = frame[frame.value.isin(["2", "4"])].set_index(["value", "detector", "control"])
    text = words_of(page)
    for key in rows.index:
        row = rows.loc[key]
        least, most = 100 * row.ams_cumulative_low, 100 * row.ams_cumulative_high
        told = f"{100 * row.ams_cumulative:.1f} % [{least:.1f}, {most:.1f}]"
        assert key[1:] == ("random", True) or told in text or told.replace(" %", "") in text
        assert key[2] or f"{row.copied_at_equal_n:.1f}" in text
    side = rows.loc["2", "side", False].ams_cumulative, rows.loc["4", "side", False].ams_cumulative
    plain = [rows.loc[value, "random", False].ams_cumulative for value in "24"]
    assert [round(s / p) for s, p in zip(side, plain, strict=True)] == [5, 2]  # README.md


def test_perturbed_labels_of_real_images_are_those_of_their_files():
    frame = pd.read_parquet(ROOT / "results" / "cifar10_pair_perturbed.parquet")
    page = (ROOT / "results" / "cifar10_pair.md").read_text(encoding="utf-8")
    told = words_of("docs/questions.md")
    of = frame.set_index(["half", "perturb", "from"])
    for half in "ab":
        for share, words in ((0.0, "as they are"), (0.3, "30 % perturbed")):
            classes, null = of.loc[half, share, "labels"], of.loc[half, share, "null"]
            cells = [
                f"{100 * r.ams:.1f} [{100 * r.ams_low:.1f}, {100 * r.ams_high:.1f}]"
                for r in (classes, null)
            ]
            cells += [f"{classes.fd_held_out:.1f}"]
            cells += [f"{classes.accuracy:.3f} ± {classes.accuracy_error:.3f}"]
            assert f"| {half} | {words} | {' | '.join(cells)} |" in page
            assert f"{100 * classes.ams:.1f}" in told and f"{100 * null.ams:.1f}" in told
    seen = pd.read_parquet(ROOT / "results" / "cifar10_pair_perturbed_detectors.parquet")
    seen = seen.set_index(["perturb", "detector", "kind"]).mirrored
    for share, words in ((0.0, "as they are"), (0.3, "30 % perturbed")):
        found = [
            f"{seen[share, name, kind]:.3f}"
            for name in ("loss", "flipd")
            for kind in ("x1", "x4", "x16", "x64")
        ]
        assert f"| {words} | {' | '.join(found)} |" in page
        assert found[2] in told and found[3] in told


def test_single_attacks_on_real_images_are_those_of_their_file():
    """The base rates of half b, and one seed of SIDE alone."""
    frame = pd.read_parquet(ROOT / "results" / "cifar10_pair_attacks.parquet")
    text = words_of("results/cifar10_pair.md")
    plain = frame[(frame.attack == "random") & (frame.half == "b") & ~frame.control]
    rates = [f"{100 * ams:.1f}" for ams in plain.sort_values("rung").ams]
    assert len(rates) == 6 and f"{', '.join(rates[:5])} and {rates[5]} % are copies" in text
    side = frame[(frame.attack == "side") & (frame.half == "a") & (frame.seed == 0)]
    side = side[~side.control].set_index(["labels", "rung"])
    told = {
        key: f"{100 * row.ams:.1f} % [{100 * row.ams_low:.1f}, {100 * row.ams_high:.1f}]"
        for key, row in side.iterrows()
    }
    assert f"one alone ({told['clusters', 4]})" in text
    questions = words_of("docs/questions.md")
    other = frame[(frame.half == "b") & (frame.images == 300)].set_index(["rung", "attack"])
    for key in ((rung, attack) for rung in (2, 4) for attack in ("side", "random")):
        row = other.loc[key]
        share = f"{100 * row.ams:.1f} % [{100 * row.ams_low:.1f}, {100 * row.ams_high:.1f}]"
        assert f"{share} of {row.different:.0f}" in text and share in questions
    for rung in (2, 4):
        assert told["oracle", rung] in text and told["oracle", rung] in questions
        assert told["clusters", rung].replace(" %", "") in questions
    truth, found = (
        side.different.loc[labels, [2, 4]].tolist() for labels in ("oracle", "clusters")
    )
    assert "training images there are {} and {}, of clusters {} and {}".format(*truth, *found) in (
        questions
    )


def interval_of(frame, name):
    row = frame.squeeze()
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_what_captions_alone_reach_is_that_of_the_board(page):
    board = pd.read_parquet(ROOT / "results" / "sd_webster_full_captions.parquet")
    board = board[board.detector == "caption_ngrams"].set_index("data_name")
    text = words_of(page)
    for sets in ("webster500 vs 500 LAION",):
        assert interval_of(board.loc[sets], "auroc") in text


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_the_loss_on_real_images_is_that_of_the_board(page):
    board = pd.read_parquet(ROOT / "results" / "cifar10_pair.parquet")
    board = board[board.detector == "loss"].set_index("kind")
    text = words_of(page)
    assert interval_of(board.loc["all"], "mirrored") in text
    kinds = [f"{board.mirrored[kind]:.3f}" for kind in ("x1", "x4", "x16", "x64")]
    assert f"{', '.join(kinds[:-1])} and {kinds[-1]}" in text


def test_what_is_told_of_further_worlds_is_their_board_s():
    board = pd.read_parquet(ROOT / "results" / "worlds.parquet")
    board = board[(board.options == "images=0") | (board.detector == "combined")]
    board = board.set_index(["detector", "kind"])
    text = words_of("docs/findings.md")
    for name in ("loss", "cfg_norm", "combined"):
        assert interval_of(board.loc[name, "all"], "mirrored") in text
    kinds = [f"{board.mirrored['loss', kind]:.3f}" for kind in ("x1", "x4", "x16", "x64")]
    assert "{} for images shown once, {} at 4 times, {} at 16 and {} at 64".format(*kinds) in text
    every = pd.read_parquet(ROOT / "results" / "worlds.parquet").query("kind == 'all'")
    best = every[every.detector != "combined"].sort_values("mirrored").iloc[-1:]
    for page in ("README.md", "docs/findings.md", "results/worlds.md"):
        assert interval_of(best, "behind") in words_of(page)


def test_what_is_told_of_tuning_on_captions_is_the_page_s():
    text, page = words_of("docs/findings.md"), words_of("results/worlds_sd_webster.md")
    gains = dict(re.findall(r"\| (\w+) (?:\| [\d.]+ ){4}\| ([+-][\d.]+ \[[^\]]+\]) \|", page))
    ahead = {name for name, gain in gains.items() if "[+" in gain}
    assert len(gains) == 8 and len(ahead) == 7
    for name in ahead:
        assert f"`{name}` {gains[name]}" in text
    board = pd.read_parquet(ROOT / "results" / "worlds_sd_webster.parquet")
    board = board[board.kind == "all"].set_index(["detector", "options"])
    default = (
        board.mirrored["cfg_norm", "images=0"] - board.mirrored["bright_ending", "draws=1 images=0"]
    )
    tuned = board.behind["bright_ending", "draws=1 images=0 steps=5"]
    assert f"is {default:.3f} behind `cfg_norm`, as tuned {tuned:.3f}" in text
    [best] = board[board.behind.isna()].index
    assert best == ("cfg_norm", "images=0 steps=5")
    assert f"`bright_ending` from {board.mirrored['bright_ending', 'draws=1 images=0']:.3f}" in (
        words_of("README.md")
    )
    [combined] = board.loc["combined"].mirrored
    noises = board.mirrored["cfg_norm", "draws=23 images=0"]
    assert f"`combined` ({combined:.3f}) is not clearly ahead" in page
    assert f"23 noises: {noises:.3f};" in page
    each = pd.read_parquet(ROOT / "results" / "worlds_sd_webster_each.parquet")
    each = each[each.kind == "all"].set_index(["detector", "options"]).sort_values("examples")
    default, taught = (
        each.loc[rows, ["auroc_a", "auroc_b"]].to_numpy().ravel()
        for rows in (("cfg_norm", "images=0"), "combined")
    )
    many, best, hessian = (
        each.loc[rows, ["auroc_a", "auroc_b"]].to_numpy().ravel()
        for rows in (
            ("cfg_norm", "draws=23 images=0"),
            ("cfg_norm", "images=0 steps=5"),
            ("hessian_difference", "images=0"),
        )
    )

    def ahead_by(one, other):
        low, high = over_trainings(one - other)
        return f"{(one - other).mean():.3f} [{low:.3f}, {high:.3f}]"

    assert over_trainings(taught - default)[0] < 0 and f"(by {ahead_by(taught, default)})" in page
    assert f"by {ahead_by(taught, many)})" in page
    assert f"and {ahead_by(best, taught)} behind five steps" in page
    assert f"(`hessian_difference` is {ahead_by(default, hessian)} behind it)" in page
    tried = pd.read_parquet(ROOT / "results" / "tuned_sd_webster.parquet")
    tuned = tried[tried.chosen & (tried.number > 0)].detector
    rows = board[board.index.get_level_values(0).isin(tuned) & (board.behind > 0)]
    rows = rows[~rows.index.get_level_values(1).isin(["images=0", "draws=1 images=0"])]
    near = rows.drop(("cfg_norm", "draws=23 images=0")).behind.sort_values()
    *near, last = near
    assert len(near) == 6 and f"six others there are {near[0]:.3f} to {near[-1]:.3f};" in page
    assert f"`attention_entropy` is {last:.3f} behind" in page
    wide = (board.highest - board.lowest).nlargest(2).index
    assert set(wide.get_level_values(0)) == {"attention_entropy"}
    ranges = [f"{board.lowest[k]:.3f} to {board.highest[k]:.3f}" for k in wide]
    assert f"({', '.join(ranges)})" in page
    second = board.behind.nsmallest(1).index[0]
    row = board.loc[second]
    told = f"{row.behind:.3f} [{row.behind_low:.3f}, {row.behind_high:.3f}] behind it"
    assert f"`{second[0]}` is {told}" in words_of("README.md")


def test_what_is_told_of_captions_is_the_board_s():
    board = pd.read_parquet(ROOT / "results" / "worlds_sd_webster.parquet")
    board = board[(board.kind == "all") & (board.options == "images=0")]
    text = words_of("docs/findings.md")
    assert interval_of(board[board.detector == "cfg_norm"].iloc[0], "mirrored") in text


def test_what_the_worlds_models_return_is_as_it_was_counted():
    results, text = ROOT / "results", words_of("results/worlds_sd_webster.md")
    base = pd.read_parquet(results / "worlds_sd_webster_base.parquet")
    base = base.sort_values("ams_cumulative", ascending=False)
    shares = [f"{100 * share:.1f}" for share in base.ams_cumulative]
    images = [f"{share * n:.0f}" for share, n in zip(base.ums_cumulative, base.n_g, strict=True)]
    told = (
        "Of 300 unconditional images each {}, {}, {} and {} % are copies, of {}, {}, {} and {}"
        " different"
    )
    assert told.format(*shares, *images) in text and set(base.n_g) == {300}
    assert (base.control_ams == 0).all() and len(base) == 4
    asked = pd.read_parquet(results / "worlds_sd_webster_returned.parquet")
    of = asked.groupby(["kind", "source"])[["n", "returned", "own"]].sum()
    for (kind, source), column, words in (
        (("MV", "catalogue"), "own", "{} of {} MV captions return their image"),
        (("RV", "catalogue"), "returned", "{} of {} RV captions some"),
        (("TV", "catalogue"), "returned", "{} of {} TV captions"),
        (("held_out", "held_out"), "returned", "{} of {} held-out ones"),
    ):
        row = of.loc[kind, source]
        assert words.format(row[column], row.n) in text
    others = of.xs("mirror", level="source").sum()
    assert f"captions {others.returned} of {others.n}." in text
    nearest = asked[(asked.kind == "MV") & asked.shown].own_distance
    assert f"nearest {nearest.min():.2f} to {nearest.max():.2f};" in text


def test_what_is_told_of_faces_is_the_board_s():
    board = pd.read_parquet(ROOT / "results" / "mirror_development.parquet")
    board = board[(board.task == "celeba") & (board.kind == "all")].set_index("detector")
    text = words_of("results/mirror_development.md")
    for name in ("clid", "loss", "cfg_norm"):
        assert f"({interval_of(board.loc[name], 'mirrored')})" in text
    assert board.mirrored.idxmax() == "clid" and board.mirrored_high["cfg_norm"] < 0.5


def test_what_a_reference_model_gains_is_the_board_s():
    board = pd.read_parquet(ROOT / "results" / "calibrated.parquet").query("source == 'held_out'")
    text = words_of("results/mirror_development.md")
    for name, task in (("loss", "cifar10"), ("cfg_norm", "sd_webster")):
        of = board[board.task == task]
        models = of[of.detector == name]
        # Half a, then b, as the development board names its models
        pair = pd.read_parquet(ROOT / "results" / "mirror_development.parquet")
        order = pair[pair.task == task].data.iloc[0].split("|")
        models, calibrated = (
            rows.set_index("data").loc[order] for rows in (models, of[of.detector == "calibrated"])
        )
        cells = [
            " / ".join(interval_of(row, "auroc") for _, row in rows.iterrows())
            for rows in (models, calibrated)
        ]
        assert f"| {name} | {task} | {cells[0]} | {cells[1]} |" in text
        gains = (calibrated.auroc - models.auroc).tolist()
        assert min(gains) > 0.1 if name == "loss" else max(gains) < 0


def test_published_orders_are_those_of_the_papers_and_of_the_board():
    rows = pd.read_csv(ROOT / "results" / "published.csv", dtype=str, keep_default_na=False)
    rows = rows[rows.metric == "auroc"]
    board = pd.read_parquet(ROOT / "results" / "worlds_sd_webster.parquet")
    board = board[(board.kind == "all") & board.options.isin(["images=0", "draws=1 images=0"])]
    ours, text = board.set_index("detector").mirrored, words_of("results/worlds_sd_webster.md")
    jeon = {
        "sharpness": ({"draws": 4, "steps": 1}, "Jeon"),
        "cfg_norm": ({"draws": 4, "steps": 1}, "Jeon"),
        "bright_ending": ({"draws": 1, "steps": 50}, "Jeon"),
        "attention_entropy": ({"variant": "E"}, "Jeon"),
    }
    dsm = {
        "hessian_difference": ({"draws": 1}, "DSM"),
        "dsm": ({"step": 0}, "DSM"),
        "cfg_norm": ({"draws": 1, "steps": 1}, "DSM"),
    }
    for title, model, wanted in (
        ("Jeon et al. 2025, Stable Diffusion 1.4", "CompVis/stable-diffusion-v1-4", jeon),
        ("Jeon et al. 2025, Stable Diffusion 2", "stabilityai/stable-diffusion-2", jeon),
        ("anonymous 2026 (DSM), Stable Diffusion 1.5", "Stable Diffusion 1.5", dsm),
    ):
        found = {}
        for name, (options, paper) in wanted.items():
            of = rows[rows.paper.str.contains(paper) & (rows.model == model)]
            [value] = [
                row.value
                for row in of[of.detector == name].itertuples()
                if options.items() <= json.loads(row.options).items()
            ]
            found[name] = float(value)
        cells = [
            ", ".join(f"{n} {v:.3f}" for n, v in sorted(of.items(), key=lambda x: -x[1]))
            for of in (found, {name: ours[name] for name in wanted})
        ]
        assert f"| {title} | {cells[0]} | {cells[1]} |" in text


def test_how_many_detectors_tuning_helps_is_counted_on_the_pages():
    words = {2: "two", 5: "five", 7: "seven", 8: "eight"}
    counts = []
    for page in ("results/worlds.md", "results/worlds_sd_webster.md"):
        gains = re.findall(r"\| ([+-][\d.]+ \[([+-])[\d.]+, [+-][\d.]+\]) \|", words_of(page))
        counts.append((words[sum(low == "+" for _, low in gains)], words[len(gains)]))
    (images, of_images), (captions, of_captions) = counts
    told = f"help {images} of {of_images} image detectors and {captions} of"
    assert f"{told} {of_captions} caption detectors" in words_of("README.md")


def copied(name):
    """Of a sweep of one option of SIDE: its values' shares of copies in %, and different
    training images.
    """
    frame = pd.read_parquet(ROOT / "results" / "ablations" / f"{name}.parquet")
    [option] = frame.attrs["swept"]
    rows = frame[(frame.threshold == frame.attrs["space"]["copy"]) & frame.band.isna()]
    of = rows.pivot(index=option, columns="metric", values="value")
    return 100 * of.ams_cumulative, 300 * of.ums_cumulative


def test_side_s_baseline_was_given_as_many_settings_and_none_is_ahead_of_plain_sampling():
    page = words_of("results/surrogates.md")
    frame = pd.read_parquet(ROOT / "results" / "ablations" / "carlini_conditional-guidance.parquet")
    rows = frame[(frame.threshold == frame.attrs["space"]["copy"]) & frame.band.isna()]
    found = rows[rows.metric == "ams_cumulative"].set_index(["guidance", "at"]).value
    plain = copied("side-guidance")[0][0.0]
    assert len(found) == 16 and "no setting of sixteen" in page
    assert 100 * found.max() <= plain and f"(λ = 0: {plain:.1f} %)" in page
    low, high = rows[
        (rows.metric == "ams_cumulative") & (rows.guidance == 1.0) & (rows["at"] == "xt")
    ][["low", "high"]].iloc[0]
    assert low < found.max() < high  # its defaults
    # Each option's values; each sweep has the defaults once, and cohesion's is at keep=1
    tried = [f"side-{name}" for name in ("guidance", "keep", "clusters", "features", "cohesion")]
    assert sum(len(copied(name)[0]) for name in tried) - 3 - 1 == 14
    assert "was given fourteen" in page


def test_what_side_s_options_change_is_told_as_it_is():
    page = words_of("results/surrogates.md")
    rates, steps, ranks = (copied(f"side-lora-{name}")[0] for name in ("rate", "steps", "rank"))
    starts = copied("side-lora-start")[0]
    settings = [*rates, *steps.drop(100), *ranks.drop(32), starts["token"]]
    base = float(re.search(r"where (\S+) % of 1,600 unconditional", page)[1])
    assert len(settings) == 11 and "**No setting of eleven makes more" in page
    assert max(settings) < base
    frame = pd.read_parquet(ROOT / "results" / "ablations" / "side-lora-steps.parquet")
    rows = frame[(frame.threshold == frame.attrs["space"]["copy"]) & frame.band.isna()]
    rows = rows[rows.metric == "ams_cumulative"].set_index("lora_steps")
    assert rows.value[100] == rates[0.005] / 100 == ranks[32] / 100
    assert max(settings) / 100 < rows.high[100]  # of the defaults
    copies, different = copied("side-guidance")
    assert copies[10.0] < copies[30.0] < copies[100.0]
    assert (different.loc[3.0:].diff().dropna() < 0).all()
    kept, tau = copied("side-keep")[0], copied("side-cohesion")[0]
    assert f"({kept[1.0]:.1f} %)" in page and kept[1.0] == tau[-1.0] < 25 < min(kept.drop(1.0))
    assert f"{tau[0.9]:.0f}" == f"{kept[0.15]:.0f}"
    teachers = pd.read_parquet(ROOT / "results" / "teachers.parquet")
    for row in teachers.itertuples():
        low, high = 100 * row.ams_cumulative_low, 100 * row.ams_cumulative_high
        told = rf"{100 * row.ams_cumulative:.1f}( %)? \[{low:.1f}, {high:.1f}\]"
        assert re.search(told, words_of("docs/questions.md"))
        assert re.search(told, words_of("docs/design/side.md"))
    asked = pd.read_parquet(ROOT / "results" / "side_prompts.parquet").set_index("detector")
    for name, times in (("side_prompts", "different"), ("random", "")):
        row = asked.loc[name]
        low, high = 100 * row.ams_cumulative_low, 100 * row.ams_cumulative_high
        told = f"{100 * row.ams_cumulative:.1f} % [{low:.1f}, {high:.1f}]"
        assert told in words_of("docs/questions.md")
        assert f" of {row.unique_copies:.0f} {times}".rstrip() in words_of("docs/questions.md")
    oracle = pd.read_parquet(ROOT / "results" / "side_sd_webster_oracle.parquet").iloc[0]
    low, high = 100 * oracle.ams_cumulative_low, 100 * oracle.ams_cumulative_high
    told = f"{100 * oracle.ams_cumulative:.1f} % [{low:.1f}, {high:.1f}]"
    assert told in words_of("docs/questions.md") and told in page
    assert f"of its images copies, of {oracle.unique_copies:.0f} of the 27" in page
    plain = pd.read_parquet(ROOT / "results" / "side_sd_webster.parquet").set_index("detector")
    side, random = plain.loc["side"], plain.loc["random"]
    assert side.control_ams == random.control_ams == 0
    assert side.seeds == random.seeds == 3
    # "no more copies", and not fewer either
    assert side.ams_cumulative_low < random.ams_cumulative < side.ams_cumulative_high
    for row, words in (
        (side, f"of {side.copied_at_equal_n:.0f} different training images"),
        (random, f"{random.copied_at_equal_n:.0f} different ones in 1,000"),
    ):
        low, high = 100 * row.ams_cumulative_low, 100 * row.ams_cumulative_high
        told = f"{100 * row.ams_cumulative:.1f} % [{low:.1f}, {high:.1f}]"
        assert told in words_of("docs/questions.md") and words in words_of("docs/questions.md")
        assert told.replace(" %", "") in words_of("docs/findings.md").replace(" %", "")
