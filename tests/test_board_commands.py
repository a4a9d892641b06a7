"""``membench leaderboard`` and ``membench report`` as a user meets them: one line for
each mistake, and nothing lost.
"""

from __future__ import annotations

import io
import json
import random
import re
import shlex
import shutil
from html import unescape
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from boards import COPIED, make
from conftest import ROOT

from membench.boards import published, published_table
from membench.boards.board import board as board_of
from membench.boards.board import of_frame, read
from membench.boards.collect import collect
from membench.boards.identity import boards
from membench.boards.published_table import with_published
from membench.boards.saved import COLUMNS, OF_RUNS
from membench.boards.seeds import over_seeds
from membench.cli.main import main
from membench.errors import UserError
from membench.reports import board_page
from membench.reports.drawing import KINDS
from membench.reports.output import write_boards
from membench.reports.page_boards import page_boards
from membench.runs.finished import Found, read_runs
from membench.storage import hashing


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors with two seeds each, a control run of the first, and an extraction
    alone.
    """
    root = tmp_path_factory.mktemp("made") / "runs"
    for seed in range(2):
        make(root, COPIED, seed=seed)
        make(root, [0] * 8, detector="side", seed=seed, options=("k=2",))
    make(root, [None] * 8, control=True)
    make(root, [0, 1], detector="alone", scored=False)
    return root


@pytest.fixture(scope="module")
def found(runs: Path) -> Found:
    return read_runs(runs)


@pytest.fixture(scope="module")
def board(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stored") / "board.parquet"
    assert (
        main(
            [
                "leaderboard",
                "--runs",
                str(runs),
                "--by",
                "seeds",
                "--format",
                "parquet",
                "--output",
                str(made),
            ]
        )
        == 0
    )
    return made


def command(*words: object) -> int:
    return main(["leaderboard", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs a command that must fail, and returns its one line."""
    capsys.readouterr()
    assert command(*words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("membench: ") and err.count("\n") == 1, err
    return err


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--band", "a=0.5:0.6", "--band", "b=0.55:1"],
            "bands a [0.5, 0.6) and b [0.55, 1) overlap",
        ),
        (["--band", "a=0.6:0.5"], "reversed"),
        (["--band", "a=0.5:0.6", "--band", "a=0.7:0.8"], "--band a stands twice"),
        (["--band", "a=-1:0.5"], "-1 lies outside the range of l2, 0 and more"),
        (["--band", "a=0.5:1.6"], "pairs beyond 1.4 of l2 are not stored"),
        (["--band", "wide"], "cannot read --band 'wide'"),
        (["--band", "a=0.5:0.6", "--by", "summary"], ""),
        (["--copy", "nan"], "--copy nan: nan lies outside the range of l2"),
        (["--copy", "many"], "--copy: invalid float value: 'many'"),
        (["--copy", "2"], "pairs beyond 1.4"),
        *(
            (["--band", "a=0.5:0.6", "--by", by], f"--by {by} shows scores alone")
            for by in ("mirror", "worlds", "kind", "source", "example", "difference", "leaders")
        ),
        *(
            (["--copy", "0.4", "--by", by], f"--by {by} shows none here")
            for by in ("mirror", "kind", "example", "difference")
        ),
        (["--task", "u"], "--task u: no finished run of it here. There are runs of t"),
        (
            ["--detector", "random,sied"],
            (
                "--detector sied: no finished run of it here. Did you mean 'side'? There are runs"
                " of alone, random, side"
            ),
        ),
        (["--detector", ","], "--detector ',' has an empty item"),
        (
            ["--groups", "txt", "--by", "seeds"],
            (
                "unknown grouping 'txt'. Did you mean 'text'? Choose from task, text, image,"
                " text+image"
            ),
        ),
        (["--groups", "txt"], "unknown grouping 'txt'"),
        (
            ["--groups", "text"],
            "--groups text is for --by seeds, kind, source, difference, leaders and summary",
        ),
        (["--groups", "text", "--by", "band"], "--groups text is for --by seeds"),
        (
            ["--by", "kinds"],
            "invalid choice: 'kinds' (choose from 'run', 'seeds', 'mirror', 'worlds', 'kind',",
        ),
        (
            ["--kinds"],
            (
                "unknown option --kinds. Did you mean '--wide' or '--runs' or '--band'? See:"
                " membench leaderboard --help"
            ),
        ),
        (
            ["--out", "x.csv"],
            "unknown option --out. Did you mean '--output' or '--groups' or '--format'? See:",
        ),
        (["--by", "leaders", "--format", "csv"], "for numbers: --by difference --format csv"),
        (["--format", "parquet"], "--format parquet needs --output FILE.parquet"),
        (
            ["--detector", "alone", "--by", "difference"],
            "no two detectors have scored the same examples",
        ),
        (["--detector", "alone", "--by", "kind"], "no run has scores of both labels"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_mistake_is_one_line(
    runs: Path, found: Found, monkeypatch, capsys, words: list[str], told: str
) -> None:
    monkeypatch.setattr("membench.cli.finished.read_runs", lambda roots, verified: found)
    if told:
        assert told in refused(capsys, "--runs", runs, *words)
    else:
        # As asked, not the bands
        assert command("--runs", runs, *words) == 0 and "summary" in capsys.readouterr().out


def test_folders_that_are_none(runs: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "none", tmp_path / "file"):
        error = refused(capsys, "--runs", runs, path)
        assert (
            f"--runs {path} is not a folder, so there are no finished runs. Make one: membench run"
            in error
        )
    (tmp_path / "empty").mkdir()
    assert f"no finished runs under {tmp_path}/empty. Make one" in refused(
        capsys, "--runs", tmp_path / "empty"
    )


def newer(folder: Path) -> str:
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"schema_version": 99}))
    return "was written by a newer membench (schema 99"


def damaged(folder: Path) -> str:
    path = folder / "scores.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data[:-3]))
    return "scores.parquet is damaged"


@pytest.mark.parametrize(
    ("how", "view"),
    [
        (newer, []),
        (damaged, ["--by", "seeds"]),
        (newer, ["--by", "band"]),
        (damaged, ["--by", "summary"]),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out_and_the_others_are_shown(
    runs: Path, tmp_path: Path, capsys, how, view: list[str]
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    bad = next((tmp_path / "runs").glob("t/mini/side/*"))
    told = how(bad)
    assert command("--runs", tmp_path / "runs", *view) == 2
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert first.startswith("membench: left out: ") and str(bad) in first and told in first
    assert (
        last
        == "membench: 1 run folder could not be read, see above (--keep-going: exit 0 all the same)"
    )
    assert "random" in out and "side" in out  # the other seed of it
    assert command("--runs", tmp_path / "runs", *view, "--keep-going") == 0
    again = capsys.readouterr()
    assert again.out == out and again.err.splitlines() == [first]


def test_no_run_that_can_be_read(runs: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("t/mini/*/*"):
        newer(folder)
    assert command("--runs", tmp_path / "runs", "--keep-going") == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.count("membench: left out: ") == 6
        and err.endswith("membench: none of the run folders could be read, see above\n")
    )


def test_one_key_with_other_numbers_is_a_bug_and_equal_ones_count_once(
    runs: Path, tmp_path: Path, capsys
) -> None:
    shutil.copytree(runs, tmp_path / "again")
    assert command("--runs", runs, "--format", "csv") == 0
    once = capsys.readouterr().out
    assert command("--runs", runs, tmp_path / "again", "--format", "csv") == 0
    assert capsys.readouterr().out == once
    path = next((tmp_path / "again").glob("t/mini/side/*/scores.parquet"))
    held = pq.read_table(path)
    scores = held["score"].to_pylist()
    scores[0] += 0.5
    at = held.column_names.index("score")
    pq.write_table(held.set_column(at, held.schema.field(at), [scores]), path)
    assert command("--runs", runs, tmp_path / "again", "--format", "csv") == 2
    shown, error = capsys.readouterr()
    assert (
        "are one run (key" in error
        and "with different numbers (score of c0: 0 and 0.5)" in error
        and "report it" in error
    )
    before, after = (pd.read_csv(io.StringIO(text)).detector for text in (once, shown))
    assert sorted([*after, "side"]) == sorted(before)  # the others are shown
    assert str(path.parent) in error and str(runs / Path(*path.parts[-5:-1])) in error


# ------------------------------------------------------------------------ what is shown


def renamed(path: Path, task: str) -> None:
    """Calls the task of a run.json otherwise, key and tables alike."""
    info = json.loads(path.read_text())
    parts = info["key_parts"] | {"task": task}
    key = hashing.content_key(parts)
    path.write_text(json.dumps(info | {"task": task, "key_parts": parts, "key": key}))
    for table in path.parent.glob("*.parquet"):
        held = pq.read_table(table)
        pq.write_table(
            held.replace_schema_metadata({**held.schema.metadata, b"run": key.encode()}), table
        )


def numbers(capsys: pytest.CaptureFixture[str], *words: object) -> pd.DataFrame:
    capsys.readouterr()
    assert command(*words, "--format", "json") == 0
    return pd.DataFrame(json.loads(capsys.readouterr().out))


def test_tasks_and_detectors_are_chosen(runs: Path, capsys) -> None:
    assert set(
        numbers(capsys, "--runs", runs, "--detector", "side, random", "--task", "t").detector
    ) == {"side", "random"}
    assert (
        len(numbers(capsys, "--runs", runs)) == 6
        and len(numbers(capsys, "--runs", runs, "--by", "seeds")) == 4
    )


def test_bands_and_copies_are_counted_anew(runs: Path, capsys) -> None:
    """Copies lie at 0.5, the other images at 1.2."""
    frame = numbers(
        capsys,
        "--runs",
        runs,
        "--band",
        "a=0:0.5",
        "--band",
        "b=0.5:1.3",
        "--copy",
        "0.4",
        "--detector",
        "random",
    )
    model = frame[~frame.control & (frame.seed == 0)].set_index(["band", "form"])
    assert model.ams.to_dict() == {
        ("a", "banded"): 0,
        ("a", "cumulative"): 0.75,
        ("b", "banded"): 1,
        ("b", "cumulative"): 1,
    } | {("", "cumulative"): 0}
    assert model.edge.dropna().to_dict() == {
        ("a", "cumulative"): 0.5,
        ("b", "cumulative"): 1.3,
        ("", "cumulative"): 0.4,
    }
    assert model.ums["b", "banded"] == 4 / 8 and model.ums_nearest["a", "cumulative"] == 3 / 8
    assert model.ams_high["a", "banded"] > 0  # no image is not [0, 0]
    own = numbers(capsys, "--runs", runs, "--by", "band", "--detector", "random")
    assert set(own.band) == {"high", "low", ""} and own[
        (own.band == "") & ~own.control
    ].ams.tolist() == [0.75, 0.75]
    assert command("--runs", runs, "--by", "band") == 0
    text = capsys.readouterr().out
    assert (
        "copies (to 1)" in text
        and "to the end of low (1.4)" in text
        and "75.00 [" in text
        and "UMS depends on N_G" in text
    )
    seeds = numbers(capsys, "--runs", runs, "--by", "seeds", "--copy", "0.4")
    assert set(seeds.ams_cumulative) == {0.0}


def test_differences_published_and_kinds(runs: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    frame = numbers(capsys, "--runs", runs, "--by", "difference")
    assert set(frame.metric) <= {"auroc", "average_precision", "tpr_at_fpr_0.01"} and set(
        frame.seeds
    ) == {2}
    assert (frame.difference == 0).all()  # the two score alike
    assert (
        command("--runs", runs, "--by", "difference") == 0
        and "differences in auroc" in capsys.readouterr().out
    )
    kinds = numbers(capsys, "--runs", runs, "--by", "kind", "--groups", "text")
    assert set(kinds.kind) == {"all", "MV"}
    with monkeypatch.context() as patch:
        patch.setattr(published_table, "PUBLISHED", tmp_path / "published.parquet")
        assert "published.parquet is not there" in refused(
            capsys, "--runs", runs, "--by", "published"
        )
    shutil.copytree(runs, tmp_path / "runs")
    assert "nothing published is known of t" in refused(
        capsys, "--runs", tmp_path / "runs", "--by", "published"
    )
    for path in (tmp_path / "runs").glob("*/*/*/*/run.json"):
        renamed(path, "sd_webster")
    assert (
        command("--runs", tmp_path / "runs", "--by", "published") == 0
        and "not measured here" in capsys.readouterr().out
    )


def test_boards_that_differ_in_their_similarity_alone_are_both_shown(
    runs: Path, tmp_path: Path, capsys
) -> None:
    """Each under a title of its own, and the output says what differs."""
    found = read_runs(runs).runs
    other = [run for run in found if run.info["detector"] == "side"]
    info = [run.info | {"space": run.info["space"] | {"id": "other"}} for run in other]
    mixed = collect(
        [
            *[run for run in found if run not in other],
            *[type(r)(**vars(r) | {"info": i}) for r, i in zip(other, info, strict=True)],
        ]
    )
    titles = [title for title, _ in boards(mixed)]
    assert (
        len(titles) == len(set(titles)) == 3
        and sum(", similarity " in title for title in titles) == 2
    )
    write_boards(of_frame(mixed, "run"), "md", None)
    text = capsys.readouterr().out
    assert (
        "| side | k=2 |" in text
        and "| random |" in text
        and re.search(r"not comparable with the first board .*: other space \(", text)
    )


# ----------------------------------------------------------------- a stored leaderboard


def test_a_stored_leaderboard_is_shown_as_the_runs_are(
    runs: Path, board: Path, tmp_path: Path, capsys
) -> None:
    for words in (["--by", "seeds"], ["--by", "summary"], ["--by", "seeds", "--detector", "side"]):
        texts = []
        for source in (runs, board):
            capsys.readouterr()
            assert command("--runs", source, "--format", "md", *words) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
    one = tmp_path / "one.parquet"  # its ending names the format
    assert command("--runs", runs, "--output", one) == 0
    texts = []
    for source in (runs, one):
        capsys.readouterr()
        assert command("--runs", source) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_a_file_that_is_no_leaderboard(board: Path, runs: Path, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.parquet"
    assert (
        f"{bad} is not there; make it: membench leaderboard --by seeds --format parquet"
        in refused(capsys, "--runs", bad)
    )
    bad.write_bytes(board.read_bytes()[:-100])
    assert f"{bad} is damaged or not Parquet" in refused(capsys, "--runs", bad)
    bad.write_text("text")
    assert "damaged or not Parquet" in refused(capsys, "--runs", bad)
    part = pd.read_parquet(board).assign(captions_auroc=0.9, captions_low=0.8, captions_high=1.0)
    part.drop(columns="captions_by", errors="ignore").to_parquet(bad)
    assert "has no column captions_by" in refused(capsys, "--runs", bad)
    published = refused(capsys, "--runs", ROOT / "results" / "published.parquet")
    assert (
        "is not a leaderboard of this membench: it has no column ams_cumulative, " in published
        and published.endswith(" more\n")
    )
    assert "holds no differences of this membench" in refused(
        capsys, "--runs", board, "--by", "difference"
    )
    for word in (
        "--by=kind",
        "--by=band",
        "--by=published",
        "--copy=0.5",
        "--copy=0",
        "--band=a=0:1",
        "--groups=text",
    ):
        by = ["--by=seeds"] if word == "--groups=text" else []
        assert "needs the folders of its runs" in refused(capsys, "--runs", board, word, *by)
    assert "--detector sied: no finished run" in refused(
        capsys, "--runs", board, "--detector", "sied"
    )
    runs_board = tmp_path / "runs.parquet"
    assert command("--runs", runs, "--format", "parquet", "--output", runs_board) == 0
    assert "--by summary is over seeds" in refused(capsys, "--runs", runs_board, "--by", "summary")


@pytest.mark.parametrize("seeds", [True, False])
def test_a_leaderboard_with_the_columns_that_are_asked_for_is_shown(
    runs: Path, tmp_path: Path, capsys, seeds: bool
) -> None:
    """One of another membench, that lacks any of them, is refused; what lacks others
    only is shown, without a traceback.
    """
    path = tmp_path / "board.parquet"
    assert (
        command(
            "--runs",
            runs,
            "--format",
            "parquet",
            "--output",
            path,
            *(["--by", "seeds"] if seeds else []),
        )
        == 0
    )
    frame, needed = (
        pd.read_parquet(path),
        sorted(COLUMNS | {"seeds"} if seeds else COLUMNS | OF_RUNS),
    )
    frame[needed].to_parquet(path)
    capsys.readouterr()
    assert (
        command("--runs", path, "--format", "md") == 0 and "| random |" in capsys.readouterr().out
    )
    for column in needed[::7]:
        if column != "seeds":
            frame[needed].drop(columns=column).to_parquet(path)
            assert f"it has no column {column}\n" in refused(capsys, "--runs", path)


# ------------------------------------------------------------------------------- report


def test_the_report_of_runs(runs: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """With a damaged run, which is named; these runs have stored no training images,
    which is said. The plots are drawn in test_board_report.py.
    """
    monkeypatch.setattr(board_page, "draw", lambda plots, kind, heading: kind.encode())
    monkeypatch.setattr("membench.reports.page.inline", lambda plot: plot.slug)
    shutil.copytree(runs, tmp_path / "runs")
    bad = next((tmp_path / "runs").glob("t/mini/alone/*"))
    damaged(bad)
    words = [
        "report",
        "--runs",
        str(tmp_path / "runs"),
        "--output",
        str(tmp_path / "page"),
        "--format",
        "md",
        "--detector",
        "random",
        "--pdf",
    ]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (
        str(bad) in err
        and "have stored no training images" in (tmp_path / "page" / "report.html").read_text()
    )
    assert "3 runs on 2 boards written to" in err and (tmp_path / "page" / "report.html").is_file()
    assert out == (tmp_path / "page" / "report.md").read_text() and "random" in out
    page = tmp_path / "page"
    made = {kind: [*(page / "plots").glob(f"*.{kind}")] for kind in KINDS}
    assert len(made["svg"]) and len({len(files) for files in made.values()}) == 1
    # The command that it names makes it again
    [command] = re.findall(r"\n    (membench report .*)\n", out)
    files = {path: path.read_bytes() for path in page.rglob("*") if path.is_file()}
    shutil.rmtree(page)
    assert main(shlex.split(command)[1:]) == 2
    assert {path: path.read_bytes() for path in page.rglob("*") if path.is_file()} == files
    assert main([*words[:5], "--copy", "nan"]) == 2 and "--copy nan" in capsys.readouterr().err


def test_the_command_of_a_page_holds_what_was_given(
    runs: Path, tmp_path: Path, monkeypatch
) -> None:
    """And no folder that nobody named."""
    monkeypatch.setattr(board_page, "draw", lambda plots, kind, heading: kind.encode())
    monkeypatch.setattr("membench.reports.page.inline", lambda plot: "")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs, "results/runs")
    anew = ["--band", "a=0:0.6", "--copy", "0.4", "--groups", "text"]
    for words in (
        [],
        ["--task", "t", "--detector", "random", *anew],
        ["--runs", "results/runs/t", "results/runs", "--output", "a page"],
    ):
        assert main(["report", *words]) == 0
        page = Path("a page" if "a page" in words else "results/report")
        command = shlex.join(["membench", "report", *words])
        assert f"\n    {command}\n" in (page / "report.md").read_text()
        html = re.sub(r"</?span>", "", unescape((page / "report.html").read_text()))
        assert f"<code>{command} </code>" in html and str(tmp_path) not in html


def test_the_boards_of_a_page(runs: Path) -> None:
    found = read_runs(runs).runs
    made = board_of(found, "seeds", compare=["auroc"])
    model, control = page_boards(made)
    assert (
        (model.slug, control.slug) == ("t-mini", "t-mini-control")
        and control.control
        and not model.control
    )
    shown = [run for part in made.parts for run in part.runs]
    assert (
        {shown[i].info["control"] for i in model.runs} == {False}
        and len(model.runs) == 5
        and len(control.runs) == 1
    )
    (title, body, note), *attacks = model.tables
    assert attacks and all(name.startswith("Attacks: ") for name, _, _ in attacks)
    assert (
        "better" in title
        and set(body.better) | set(body.worse) == {"random", "side k=2"}
        and "Holm" in note
        and control.tables == []
    )
    assert model.rows.detector.tolist() == sorted(
        model.rows.detector, key=["random", "side", "alone"].index
    )


# --------------------------------------------------------------------------- one by one


def test_a_published_number_stands_beside_the_same_setting_only(runs: Path) -> None:
    """A made-up board of the model and data of a real row has it; of another model,
    other data or the mini profile it has not.
    """
    known = published.read(ROOT / "results" / "published.csv")
    row = known[
        (known.detector == "cfg_norm")
        & (known.metric == "auroc")
        & known.paper.str.startswith("Jeon")
    ].iloc[0]
    frame = over_seeds(collect(runs))
    frame = frame[(frame.detector == "random") & ~frame.control].assign(
        detector="cfg_norm", task=row.task, resolved=row.options
    )
    full = frame.assign(profile="full", model=row.model, data_name=row.data)
    [found] = with_published(full).itertuples()
    assert found.reported_auroc == row.value and "Jeon" in found.reported_source
    for other in (
        full.assign(model="another/model"),
        full.assign(profile="mini"),
        full.assign(data_name="other prompts"),
    ):
        assert "reported_auroc" not in with_published(other)


def test_a_bit_that_changed_is_noticed_wherever_it_lies(board: Path, tmp_path: Path) -> None:
    """In a cell, a column's name or what holds them: the board is the same, or refused."""
    whole, bad, rng = board.read_bytes(), tmp_path / "bad.parquet", random.Random(4)
    wanted, refused = read(board, "seeds").frame, 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        bad.write_bytes(bytes(damaged))
        try:
            assert read(bad, "seeds").frame.equals(wanted)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def test_an_edited_board_is_refused_and_a_frame_of_ones_own_is_not(
    board: Path, tmp_path: Path
) -> None:
    table, edited = pq.read_table(board), tmp_path / "edited.parquet"
    row = table.column_names.index("auroc")
    better = table.set_column(row, table.schema.field(row), [[0.999] * len(table)])
    pq.write_table(better, edited)
    with pytest.raises(UserError, match="its rows are not those that were written"):
        read(edited, "seeds")
    table.to_pandas().to_parquet(edited)
    assert read(edited, "seeds").frame.equals(read(board, "seeds").frame)
