"""Finished runs read back: what is left out, what counts once, and what is a bug to
report.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from boards import COPIED, make

from membench.errors import UserError
from membench.runs.finished import Run, difference, load, read_runs
from membench.storage.tables import SCHEMAS, read_table


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make(tmp_path_factory.mktemp("one"), COPIED, failed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make(tmp_path_factory.mktemp("other"), COPIED, detector="side")


def copied_to(run: Run, root: Path) -> Path:
    """A copy of a run's folder under another root, with the same key."""
    folder = root / Path(*run.path.parts[-4:])
    shutil.copytree(run.path, folder)
    return folder


def altered(folder: Path, table: str, column: str, row: int, change: float) -> None:
    """Adds to one number of a stored table."""
    path = folder / f"{table}.parquet"
    held = pq.read_table(path)
    values = held[column].to_pylist()
    values[row] += change
    at = held.column_names.index(column)
    pq.write_table(
        held.set_column(
            at, held.schema.field(column), pa.array(values, held.schema.field(column).type)
        ),
        path,
    )


def test_a_run_and_its_copies_count_once(one: Run, other: Run, tmp_path: Path) -> None:
    copied_to(other, tmp_path / "b")
    copied_to(one, tmp_path / "a")
    copied_to(one, tmp_path / "b")
    found = read_runs([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert [run.info["detector"] for run in found.runs] == [
        "random",
        "side",
    ] and found.problems == []
    assert found.runs[0].path.is_relative_to(tmp_path / "a")
    assert [run.path for run in read_runs(tmp_path / "b").runs] == sorted(
        run.path for run in read_runs(tmp_path / "b").runs
    )


@pytest.mark.parametrize(
    ("table", "column", "row", "change", "told"),
    [
        ("scores", "score", 2, 0.01, "score of c2: 1.2 and 1.21"),
        ("samples", "confidence", 1, 0.01, "confidence of c1/0: 0.5 and 0.51"),
        ("metrics", "low", 0, 0.001, ""),  # of intervals nothing is said
        ("scores", "score", 2, 1e-7, ""),  # another machine's kernels
        ("matches", "similarity", 0, 0.005, ""),  # a grey level
    ],
)
def test_two_runs_of_one_key(
    one: Run, tmp_path: Path, table: str, column: str, row: int, change: float, told: str
) -> None:
    copied_to(one, tmp_path / "a")
    altered(copied_to(one, tmp_path / "b"), table, column, row, change)
    roots = [tmp_path / "a", tmp_path / "b"]
    if not told:
        assert len(read_runs(roots).runs) == 1
        return
    found = read_runs(roots)
    [problem] = found.problems
    assert not found.runs and "a bug in membench or a changed file, please report it" in problem
    assert one.info["key"] in problem and told in problem and "\n" not in problem
    assert all(str(root) in problem for root in roots)


def test_differences_that_are_no_numbers(one: Run) -> None:
    assert difference(one, one) == ""
    shuffled = replace(
        one,
        scores=one.scores.sample(frac=1, random_state=1),
        matches=one.matches.sample(frac=1, random_state=1),
    )
    assert difference(one, shuffled) == ""
    assert difference(one, replace(one, scores=one.scores.iloc[1:])) == "scores of other examples"
    assert difference(one, replace(one, samples=one.samples.iloc[1:])) == "samples of other images"
    failed = one.scores.assign(score=one.scores.score.where(one.scores.index != 3))
    assert difference(one, replace(one, scores=failed)) == "score of c3: 1 and nan"
    assert difference(replace(one, scores=failed), replace(one, scores=failed)) == ""
    # Of a membench that had not yet thought of it
    fewer = one.metrics[one.metrics.metric != "auroc"]
    assert (
        difference(one, replace(one, metrics=fewer))
        == ""
        == difference(replace(one, metrics=fewer), one)
    )


# --------------------------------------------------------------------- what is left out


def newer(folder: Path) -> None:
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"schema_version": 99}))


def newer_table(folder: Path) -> None:
    path = folder / "scores.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"schema_version": "99"}), path)


def cut(folder: Path) -> None:
    path = folder / "matches.parquet"
    path.write_bytes(path.read_bytes()[:-40])


def lost(folder: Path) -> None:
    (folder / "metrics.parquet").unlink()


def no_json(folder: Path) -> None:
    (folder / "run.json").write_text('{"schema_version": 1, "sta')


def lacking(folder: Path) -> None:
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps({name: value for name, value in info.items() if name not in ("space", "phases")})
    )


def twice(folder: Path) -> None:
    path = folder / "scores.parquet"
    held = pq.read_table(path)
    pq.write_table(
        pa.concat_tables([held, held.slice(0, 1)]).replace_schema_metadata(held.schema.metadata),
        path,
    )


DAMAGE = {
    newer: ("run.json", "newer membench"),
    newer_table: ("scores.parquet", "newer membench"),
    cut: ("matches.parquet", "damaged"),
    lost: ("metrics.parquet", "is not there"),
    no_json: ("run.json", "damaged"),
    lacking: ("run.json", "lacks space, phases"),
    twice: ("c0", "stands twice"),
}


@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
def test_what_cannot_be_read_is_named_and_the_others_stay(
    one: Run, other: Run, tmp_path: Path, how
) -> None:
    bad, good = copied_to(one, tmp_path), copied_to(other, tmp_path)
    how(bad)
    found = read_runs(tmp_path)
    assert [run.path for run in found.runs] == [good]
    [problem] = found.problems
    assert (
        str(bad) in problem and all(word in problem for word in DAMAGE[how]) and "\n" not in problem
    )
    with pytest.raises(UserError, match=re.escape(str(bad))):
        load(bad)
    shutil.rmtree(good)
    alone = read_runs(tmp_path)
    assert alone.runs == [] and alone.problems == [problem]


def test_a_run_that_has_not_ended_is_no_run_and_no_problem(one: Run, tmp_path: Path) -> None:
    folder = copied_to(one, tmp_path)
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"status": "running"}))
    (folder / "scores.parquet").unlink()
    with pytest.raises(UserError, match=r"no finished runs under .*Make one: membench run"):
        read_runs(tmp_path)
    assert read_runs([tmp_path, one.path.parents[3]]).problems == []


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=f"no finished runs under {tmp_path}, {tmp_path}/b. Make one"
    ):
        read_runs([tmp_path, tmp_path / "b"])


# ------------------------------------------------------------------------------ one run


def test_found_leaves_failed_images_out_and_numbers_the_rest(tmp_path: Path) -> None:
    run = make(tmp_path, [0, 1, None, 2], failed=1)
    samples = run.samples.iloc[::-1]  # whatever the order of rows
    # Also of the image that failed
    matches = pd.concat([run.matches, run.matches.assign(sample_id="c3/0")])
    good, found = replace(run, samples=samples, matches=matches.iloc[::-1]).found()
    assert good.sample_id.tolist() == ["c2/0", "c1/0", "c0/0"] and good.index.tolist() == [0, 1, 2]
    assert set(zip(found.sample_id, found.generated, strict=True)) == {
        ("c2/0", 0),
        ("c1/0", 1),
        ("c0/0", 2),
    }
    assert len(found) == 3 and found.generated.dtype == np.int32


def test_images_are_read_only_when_asked_for(one: Run) -> None:
    stored = pq.read_table(one.path / "samples.parquet").to_pandas().set_index("sample_id").image
    assert len(stored) > 2
    assert list(load(one.path).samples) == [n for n in SCHEMAS["samples"].names if n != "image"]
    asked = stored.index[[2, 0]]
    assert one.images(asked) == stored[asked].to_dict()
    assert one.images([]) == one.images(["none/0"]) == {}


def test_a_table_without_a_column_that_it_should_hold_is_another_table(
    one: Run, tmp_path: Path
) -> None:
    held = pq.read_table(one.path / "samples.parquet")
    pq.write_table(held.drop_columns(["image"]), tmp_path / "samples.parquet")
    pq.write_table(
        held.rename_columns(["picture" if n == "image" else n for n in held.column_names]),
        tmp_path / "other.parquet",
    )
    for name in ("samples", "other"):
        with pytest.raises(UserError, match="is not a samples table"):
            read_table(tmp_path / f"{name}.parquet", "samples", without=("image",))
    assert pc.count(held["image"]).as_py() == len(held)


def test_one_runs_own_folder_and_those_between_are_read(one: Run) -> None:
    """A finished run was said to be none."""
    for root in (one.path, *one.path.parents[:4]):
        assert [run.path for run in read_runs(root).runs] == [one.path]
