"""The tables in the documents are what their Parquet files say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scripts import script

from membench.metrics.trainings import over_trainings

ROOT = Path(__file__).resolve().parent.parent


tables, picture, figures = (
    script(f"results/{name}.py") for name in ("tables", "picture", "figures")
)


@pytest.mark.parametrize("name", tables.FILES)
def test_the_tables_of_a_document_are_those_of_its_parquet(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert (
        len(tables.BLOCK.findall(text))
        == text.count("<!-- ") - text.count("<!-- end -->")
        == text.count("<!-- end -->")
        > 0
    )
    assert tables.rewritten(text) == text, "the Parquet changed: python results/tables.py"


def test_a_changed_number_is_seen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = tables.BLOCK.search(text)[0]
    digit = next(i for i, c in enumerate(block) if c.isdigit() and block[i - 1] == ".")
    changed = text.replace(
        block, block[:digit] + str((int(block[digit]) + 1) % 10) + block[digit + 1 :]
    )
    assert changed != text and tables.rewritten(changed) == tables.rewritten(text)


def test_a_board_of_an_earlier_commit_is_described_as_today(tmp_path: Path) -> None:
    """Its rows, and the hash of them, are as they were."""
    file = tmp_path / "attacks.parquet"
    table = pq.read_table(ROOT / "results" / "attacks.parquet")
    fields = [of.with_metadata({**of.metadata, b"description": b"old"}) for of in table.schema]
    old = pa.schema(fields, table.schema.metadata)
    pq.write_table(table.cast(old), file)
    assert tables.described(file) and not tables.described(file)
    found = pq.read_table(file)
    assert found.equals(table) and found.schema.equals(table.schema, check_metadata=True)


def test_a_table_may_show_some_detectors() -> None:
    whole = tables.mirrored("results/worlds.parquet cifar10").splitlines()
    some = tables.mirrored("results/worlds.parquet cifar10 png_size,membership").splitlines()
    assert some[2:] == [row for row in whole if row.split()[1] in ("membership", "png_size")]
    with pytest.raises(ValueError, match=r"worlds\.parquet has no dsm, los on cifar10"):
        tables.mirrored("results/worlds.parquet cifar10 los,loss,dsm")


def test_the_picture_shows_what_its_parquet_says() -> None:
    with Image.open(picture.PICTURE) as image:
        told = image.info["Description"]
    assert told == picture.said(pd.read_parquet(picture.BOARD)), "python results/picture.py"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_of_the_pages_shows_what_its_parquet_says(name: str) -> None:
    with Image.open(figures.FOLDER / f"{name}.png") as image:
        told = image.info["Description"]
    assert told == figures.said(figures.FIGURES[name]()), "python results/figures.py"
    page = "questions" if name == "labels" else "findings"
    assert f"(figures/{name}.png)" in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert len(told.split()) > 20


def test_the_picture_has_a_dot_for_each_detector() -> None:
    board = pd.read_parquet(picture.BOARD)
    black = np.zeros((8, 8, 3), np.uint8)
    figure = picture.draw([(black, black)] * 2, board)
    names = [
        label.get_text() for part in figure.subfigs[1].axes for label in part.get_yticklabels()
    ]
    shown = board[(board.kind == "all") & board.task.isin(picture.TASKS)]
    assert sorted(names) == sorted(shown.detector) and set(shown.task) == set(picture.TASKS)


@pytest.mark.parametrize(
    ("task", "page"), [("cifar10", "worlds"), ("sd_webster", "worlds_sd_webster")]
)
def test_what_tuning_promised_and_gave_is_what_the_parquets_say(task: str, page: str) -> None:
    results = ROOT / "results"
    tried = pd.read_parquet(results / f"tuned_{task}.parquet")
    worlds = pd.read_parquet(results / f"{page}.parquet").query("kind == 'all'")
    each = pd.read_parquet(results / f"{page}_each.parquet").query("kind == 'all'")
    text = (results / f"{page}.md").read_text(encoding="utf-8")
    for board in (worlds, each):
        board["setting"] = [
            (row.detector, tables.parsed(row.detector, row.options)) for row in board.itertuples()
        ]
    for name, of in tried.groupby("detector"):
        first, best = of[of.number == 0].iloc[0], of[of.chosen].iloc[0]
        mine = worlds.set_index("setting").mirrored
        plain, tuned = ((name, tables.parsed(name, row.options)) for row in (first, best))
        told = [f"{first.auroc:.3f}", f"{best.auroc:.3f}"]
        if plain not in mine:
            assert f"| {name} | {' | '.join(told)} | not run |  |  |" in text
            continue
        told.append(f"{mine[plain]:.3f}")
        if best.number == 0:
            told = [told[0], "the defaults", told[2], "the defaults", ""]
        else:
            before, after = (
                each[each.setting == asked]
                .sort_values("weights")[["auroc_a", "auroc_b"]]
                .to_numpy()
                .ravel()
                for asked in (plain, tuned)
            )
            low, high = over_trainings(after - before)
            gain = f"{(after - before).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
            told += [f"{mine[tuned]:.3f}", gain]
        assert f"| {name} | {' | '.join(told)} |" in text


def test_what_combined_gains_is_told_by_kind() -> None:
    results = ROOT / "results"
    each = pd.read_parquet(results / "worlds_each.parquet").sort_values(["weights", "kind"])
    text = " ".join((results / "worlds.md").read_text(encoding="utf-8").split())
    single = each[(each.detector == "membership") & each.options.str.contains("test=sima")]
    combined = each[each.detector == "combined"]
    for kind, words in (
        ("x4", "at 4 times, by {}"),
        ("x1", "at images shown once it gains {}"),
        ("near", "at near-duplicates {}"),
    ):
        ours, best = (
            of[of.kind == kind][["auroc_a", "auroc_b"]].to_numpy().ravel()
            for of in (combined, single)
        )
        low, high = over_trainings(ours - best)
        assert words.format(f"{(ours - best).mean():.3f} [{low:.3f}, {high:.3f}]") in text
    every = pd.read_parquet(results / "worlds.parquet").set_index(["detector", "options", "kind"])
    noises = every.loc["loss", "images=0 noises=16", "all"]
    five = every.mirrored["loss", "images=0", "all"]
    assert abs(noises.mirrored - five) < 0.002
    assert f"has what it has with five ({noises.mirrored:.3f} and {five:.3f})" in text
    ends = f"{noises.behind:.3f} [{noises.behind_low:.3f}, {noises.behind_high:.3f}] ahead of it"
    assert ends in text
    near = pd.read_parquet(results / "worlds.parquet").query("kind == 'near'").mirrored
    assert f"({near.max():.3f} and {near.nlargest(2).iloc[1]:.3f})" in text


def test_where_pia_is_lost_is_told_as_the_parquet_has_it() -> None:
    text = " ".join((ROOT / "results" / "celeba_worlds.md").read_text(encoding="utf-8").split())
    found = pd.read_parquet(ROOT / "results" / "first_prediction.parquet")
    mean = found.groupby(["task", "first"])[["pia", "sima"]].mean()
    assert f"tells them with {mean.sima['celeba', 0]:.3f} (SimA at t = 0)" in text
    scenes = mean.loc["cifar10"]
    assert scenes.sima.is_monotonic_increasing and scenes.pia.idxmin() == 100
    assert f"down to {scenes.pia[100]:.3f} at t = 100" in text
    for task, each in (("cifar10", "100 scenes"), ("celeba", "20 faces")):
        of = found[found.task == task]
        assert set(of.memorized) == set(of.others) == {int(each.split()[0])} and each in text
    assert (found.norm_memorized < 0.6 * found.norm_noise).all()  # nowhere is it noise


def test_what_sides_clusters_hold_is_told_as_the_parquet_has_it() -> None:
    text = " ".join((ROOT / "results" / "surrogates.md").read_text(encoding="utf-8").split())
    found = {
        task: pd.read_parquet(ROOT / "results" / f"clusters_{task}.parquet")
        for task in ("sd_webster", "cifar10")
    }

    def share(task: str) -> pd.Series:
        of = found[task]
        return (of.copies / of.images).set_axis(
            pd.MultiIndex.from_frame(of[["features", "clusters", "keep"]])
        )

    first = {task: of.iloc[0] for task, of in found.items()}
    for task, words in (
        ("sd_webster", "the copies among 1,600 images are of {1} training images"),
        ("cifar10", "where {0:.1f} % of 1,600 images are copies of {1} training images"),
    ):
        of = first[task]
        assert of.synthetic == 1600
        part = 100 * of.synthetic_copies / of.synthetic
        assert words.format(part, of.synthetic_different) in text
    assert first["sd_webster"].synthetic_copies < 2 * first["sd_webster"].synthetic_different
    assert f"for the {first['sd_webster'].synthetic_twice} images that are copied twice" in text
    defaults = ("bottleneck", 100, 0.15)
    assert f"and {100 * share('sd_webster')[defaults]:.0f} % of the images of the kept" in text
    assert f"defaults; {100 * share('sd_webster').max():.0f} % at most under another" in text
    assert f"it is {100 * share('cifar10')[defaults]:.0f} %" in text


def test_what_captions_models_draw_and_return_is_told_as_the_parquet_has_it() -> None:
    page = ROOT / "docs" / "design" / "mini-world.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    base = pd.read_parquet(ROOT / "results" / "development_base.parquet").set_index("weights")
    back = pd.read_parquet(ROOT / "results" / "development_returned.parquet")
    halves = back[["half", "weights"]].drop_duplicates().sort_values("half")
    a, b = (base.loc[key] for key in halves.weights)
    shares = " / ".join(f"{100 * of.ams_cumulative:.1f}" for of in (a, b))
    assert f"in {shares} % of 300 images from the null condition" in text
    assert f"(of {a.unique_copies:.0f} / {b.unique_copies:.0f} different ones)" in text
    assert (a.n_g, b.n_g, a.control_ams, b.control_ams) == (300, 300, 0, 0)


def test_what_is_told_of_faces_is_their_boards() -> None:
    board = pd.read_parquet(ROOT / "results" / "celeba_worlds.parquet")
    board = board.set_index(["detector", "options", "kind"])

    def told(row: pd.Series, name: str = "mirrored") -> str:
        return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"

    page, findings, readme = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("results/celeba_worlds.md", "docs/findings.md", "README.md")
    )
    plain = board.xs("images=0", level="options")
    norm, clid, loss = (plain.loc[name, "all"] for name in ("cfg_norm", "clid", "loss"))
    assert f"it has {told(norm)}" in findings and told(norm) in readme and told(norm) in page
    assert f"The loss has {told(loss)} there" in findings
    assert f"`clid` leads with {told(clid)}" in findings
    [combined] = board.loc["combined"].query("kind == 'all'").iloc
    others = board.xs("all", level="kind").drop(index=["combined", "clid"], level="detector")
    assert combined.mirrored > clid.mirrored > others.mirrored.max()
    assert f"not ahead of it here ({told(clid, 'behind')})" in page and clid.behind_low < 0
    once = plain.xs("x1", level="kind").mirrored
    assert f"`clid` has {once['clid']:.3f}, the loss {once['loss']:.3f}" in page
    pia, sima = (
        board.loc["membership", f"images=0{more}", "all"] for more in ("", " t=300 test=sima")
    )
    assert f"`membership` ({told(pia)})" in page and f"has {told(sima)}" in page
    rows = dict(re.findall(r"\| (\w+) (?:\| [\d.]+ ){4}\| ([+-][\d.]+ \[[^\]]+\]) \|", page))
    for name, words in (
        ("membership", "gains {}"),
        ("representation", "`representation` {}"),
        ("flipd", "on scenes ({})"),
    ):
        assert words.format(rows[name]) in findings
    assert {name for name, gain in rows.items() if "-" not in gain} == {
        "membership",
        "representation",
    }
    assert "+" not in rows["flipd"]


def test_a_threshold_is_told_to_be_of_its_model() -> None:
    """More false alarms on half a than the share that it was set for on half b."""
    found = pd.read_parquet(ROOT / "results" / "adaptive.parquet")
    assert (found.false_alarms / found.negatives > 0.01).all()
    text = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
    assert "more of half a's negatives than the 1 % that it was set for" in text
