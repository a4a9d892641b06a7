"""Published numbers: the file is right, and stands beside a measured number of the same
setting only.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from membench.boards.published import SCHEMA, build, ordered, read
from membench.boards.published_table import published_table
from membench.boards.reported import with_reported
from membench.errors import UserError
from membench.registry import detectors, tasks

RESULTS = Path(__file__).parents[1] / "results"
CSV, PARQUET = RESULTS / "published.csv", RESULTS / "published.parquet"

V14 = "CompVis/stable-diffusion-v1-4"
JEON = "webster500 vs 500 COCO+Lexica+Tuxemon+GPT-4"
DETECTION = {
    "task": "sd_webster",
    "profile": "full",
    "model": V14,
    "data": JEON,
    "detector": "cfg_norm",
    "metric": "auroc",
    "value": 0.9,
}
DETECTION |= {
    "options": '{"steps": 1, "draws": 4}',
    "paper": "A",
    "source": "t1",
    "evidence": "paper",
}
EXTRACTION = {
    "task": "celeba",
    "profile": "full",
    "model": "m",
    "data": "CelebA",
    "detector": "side",
    "paper": "B",
    "source": "t2",
}
EXTRACTION |= {
    "options": '{"generations": 100}',
    "evidence": "paper",
    "similarity": "cosine/sscd",
    "n_generated": "100",
}
HIGH = EXTRACTION | {
    "metric": "ams",
    "band": "high",
    "band_from": 0.6,
    "band_to": 1.0,
    "value": 0.02,
}
RUN = {
    "task": "sd_webster",
    "profile": "full",
    "model": V14,
    "data_name": JEON,
    "detector": "cfg_norm",
}
RUN |= {
    "resolved": '{"draws": 4, "steps": 1, "guidance": 7.5}',
    "auroc": 0.85,
    "tpr_at_fpr_0.01": 0.5,
}
ATTACK = {
    "task": "celeba",
    "profile": "full",
    "model": "m",
    "data_name": "CelebA",
    "detector": "side",
    "space": "cosine/sscd-0123-square288",
}
ATTACK |= {
    "resolved": '{"generations": 100}',
    "bands": '{"low": [0.4, 0.5], "high": [0.6, 1.0]}',
    "ams_in_high": 0.03,
    "best_p95": 0.5,
}


@pytest.fixture
def write(tmp_path):
    def make(*rows: dict[str, Any]) -> Path:
        path = tmp_path / "p.csv"
        pd.DataFrame([{name: row.get(name, "") for name in SCHEMA.names} for row in rows]).to_csv(
            path, index=False
        )
        return path

    return make


def beside(write, run: dict[str, Any], *rows: dict[str, Any]) -> pd.Series:
    return with_reported(pd.DataFrame([run]), read(write(*rows))).iloc[0]


# ----------------------------------------------------------------------------- the file


def test_the_parquet_is_made_from_the_csv(tmp_path):
    ours, made = read(PARQUET), read(CSV)
    pd.testing.assert_frame_equal(ours, made)
    pd.testing.assert_frame_equal(ordered(made), made)  # the CSV is sorted
    build(CSV, tmp_path / "new" / "p.parquet")
    assert pq.read_table(tmp_path / "new" / "p.parquet").equals(pq.read_table(PARQUET))
    assert pq.read_schema(PARQUET).equals(SCHEMA)


def test_order_is_by_size_of_numbers_and_bands_whatever_the_order_of_rows(write):
    rows = [DETECTION | {"options": json.dumps({"draws": n})} for n in (4, 16, 1)]
    rows += [
        HIGH | {"band": band, "band_from": "", "band_to": "", "metric": m}
        for m in ("ums", "ams")
        for band in ("mid", "high", "low")
    ]
    found = ordered(read(write(*rows)))
    assert (found.metric + found.band).tolist() == [
        "amslow",
        "amsmid",
        "amshigh",
        "umslow",
        "umsmid",
        "umshigh",
        *["auroc"] * 3,
    ]
    assert [json.loads(options)["draws"] for options in found.options[6:]] == [1, 4, 16]
    pd.testing.assert_frame_equal(ordered(read(write(*rows[::-1]))), found)


@pytest.mark.parametrize(
    ("task", "data", "detector", "low", "mid", "high", "p95"),
    [  # Chen et al., Table 1: AMS/UMS in per cent
        ("cifar10", "CIFAR-10", "random", (2.470, 1.770), (0.910, 0.710), (0.510, 0.420), 1.85),
        ("cifar10", "CIFAR-10", "side", (7.830, 2.730), (3.830, 1.190), (2.610, 0.760), 1.41),
        (
            "celeba",
            "CelebA-HQ-FI",
            "carlini_conditional",
            (15.010, 2.624),
            (1.310, 0.554),
            (0.090, 0.082),
            0.485,
        ),
        ("celeba", "CelebA-HQ-FI", "side", (23.266, 4.198), (2.227, 0.842), (0.141, 0.148), 0.543),
        ("celeba", "CelebA-25000", "side", (20.527, 11.446), (1.842, 1.164), (0.030, 0.030), 0.542),
        (
            "celeba",
            "CelebA",
            "carlini_conditional",
            (4.682, 4.706),
            (0.098, 0.098),
            (0.0, 0.0),
            0.436,
        ),
        ("sd_webster", "LAION-5B", "side", (2.221, 0.013), (0.805, 0.007), (0.131, 0.006), 0.394),
    ],
)
def test_side_table_1(task, data, detector, low, mid, high, p95):
    frame = read(CSV)
    part = frame[
        (frame.task == task)
        & (frame.data == data)
        & (frame.detector == detector)
        & frame.paper.str.contains("SIDE")
    ]
    assert len(part) == 7 and set(part.evidence) == {"paper"}
    for band, (ams, ums) in {"low": low, "mid": mid, "high": high}.items():
        values = part[part.band == band].set_index("metric").value
        assert values["ams"] == pytest.approx(ams / 100, abs=1e-12) and values[
            "ums"
        ] == pytest.approx(ums / 100, abs=1e-12)
    assert part[part.metric == "best_p95"].value.tolist() == [p95]
    assert part[part.band == "low"].band_from.isna().all()  # its lower end is not stated
    assert part.band_to.notna().any() == (data != "CIFAR-10")  # nor any band of L2


def test_side_is_whole_and_says_how_many_images():
    part = (frame := read(CSV))[frame.source == "arXiv 2410.02467v7, Table 1"]
    assert len(part) == 5 * 3 * 7
    images = {
        "CIFAR-10": 10_000,
        "CelebA-HQ-FI": 51_200,
        "CelebA-25000": 50_000,
        "CelebA": 5_120,
        "LAION-5B": 512_000,
    }
    for row in part.itertuples():
        assert row.n_generated == images[row.data] == json.loads(row.options)["generations"]


@pytest.mark.parametrize(
    ("model", "detector", "options", "auroc", "tpr"),
    [  # Jeon et al., Table 1
        (V14, "cfg_norm", {"steps": 1, "draws": 1}, 0.976, 0.896),
        (V14, "cfg_norm", {"steps": 5, "draws": 16}, 0.998, 0.982),
        (V14, "cfg_norm", {"steps": 50, "draws": 4}, 0.996, 0.982),
        ("stabilityai/stable-diffusion-2", "cfg_norm", {"steps": 5, "draws": 1}, 0.969, 0.885),
        ("stabilityai/stable-diffusion-2", "cfg_norm", {"steps": 50, "draws": 16}, 0.991, 0.945),
        (V14, "random", {"draws": 16}, 0.940, 0.232),
        (V14, "bright_ending", {"draws": 4}, 0.997, 0.980),
        (V14, "sharpness", {"draws": 1}, 0.987, 0.908),
        ("stabilityai/stable-diffusion-2", "sharpness", {"draws": 4}, 0.991, 0.895),
        (V14, "attention_entropy", {"variant": "E"}, 0.846, 0.116),
    ],
)
def test_jeon_table_1(model, detector, options, auroc, tpr):
    frame = read(CSV)
    part = frame[
        (frame.paper == "Jeon et al. 2025") & (frame.model == model) & (frame.detector == detector)
    ]
    part = part[[options.items() <= json.loads(stated).items() for stated in part.options]]
    assert dict(zip(part.metric, part.value, strict=True)) == {
        "auroc": auroc,
        "tpr_at_fpr_0.01": tpr,
    }
    assert set(part.n_positive) == {500 if model == V14 else 219} and set(part.n_negative) == {500}
    assert ("inferred" in part.note.iloc[0]) == (detector == "cfg_norm")


def test_wen_the_second_replication_and_the_control():
    frame = read(CSV)

    def values(paper: str, detector: str, data: str, **options: Any) -> dict[str, float]:
        part = frame[(frame.paper == paper) & (frame.detector == detector) & (frame.data == data)]
        part = part[[json.loads(stated) == options for stated in part.options]]
        return dict(zip(part.metric, part.value, strict=True))

    notebook = values(
        "Wen et al. 2024",
        "cfg_norm",
        "webster500 vs 500 Gustavosta",
        draws=4,
        steps=50,
        trajectory=50,
        guidance=7.5,
    )
    assert notebook == {"auroc": 0.994, "tpr_at_fpr_0.01": 0.982, "best_balanced_accuracy": 0.990}
    wen = "webster500 vs 2,000 LAION+COCO+Lexica+random strings"
    assert values("Wen et al. 2024", "cfg_norm", wen, draws=None, steps=None) == {
        "auroc": 0.999,
        "tpr_at_fpr_0.01": 0.988,
    }
    other = "500 memorized vs 500 others, not stated which"
    assert values("anonymous 2026 (DSM)", "cfg_norm", other, draws=1, steps=1) == {
        "auroc": 0.9406,
        "tpr_at_fpr_0.01": 0.734,
    }
    assert values("membench", "caption_case", JEON) == {"auroc": 0.989, "tpr_at_fpr_0.01": 0.934}
    assert values("membench", "caption_case", "webster500 vs 500 LAION") == {
        "auroc": 0.794,
        "tpr_at_fpr_0.01": 0.026,
    }


def test_a_number_of_anisotropy_is_of_the_weights_of_its_model():
    """The authors' script sets them by hand: a run with others reproduces nothing."""
    sd2 = "stabilityai/stable-diffusion-2"
    weights = {V14: (1, 2), sd2: (1, 0.1), "Realistic Vision 5.1": (2, 1)}
    rows = (frame := read(CSV))[frame.detector == "anisotropy"]
    assert set(rows.model) == set(weights)
    for row in rows.itertuples():
        options = json.loads(row.options)
        assert (options.get("gamma1"), options.get("gamma2")) == weights[row.model], row
    data = rows.data[rows.model == sd2].iloc[0]
    run = RUN | {"model": sd2, "data_name": data, "detector": "anisotropy"}
    for gamma2, known in ((0.1, True), (2.0, False)):
        resolved = json.dumps({"draws": 1, "gamma1": 1.0, "gamma2": gamma2})
        found = with_reported(pd.DataFrame([run | {"resolved": resolved}]), frame)
        assert math.isnan(found.reported_auroc.iloc[0]) != known


def test_norms_over_several_steps_of_a_v_model_are_never_reproduced():
    """The authors' code takes norms of v, which weigh steps otherwise than those of eps;
    what the rerun took is not stated. At one step v is a constant factor.
    """
    frame = read(CSV)
    rows = frame[frame.model.str.startswith("stabilityai/stable-diffusion-2")]
    rows = rows[rows.detector.isin(["cfg_norm", "bright_ending"])]
    several = rows[[json.loads(o)["steps"] > 1 for o in rows.options]]
    assert 0 < len(several) < len(rows)
    for row in rows.itertuples():
        resolved = {"draws": 4, "guidance": 7.5, "trajectory": 50} | json.loads(row.options)
        run = RUN | {"model": row.model, "data_name": row.data, "detector": row.detector}
        run |= {"resolved": json.dumps({**resolved, "prediction": "eps"})}
        found = with_reported(pd.DataFrame([run]), rows)
        assert math.isnan(found.reported_auroc.iloc[0]) == (json.loads(row.options)["steps"] > 1)


def test_names_are_those_of_membench_where_it_has_them():
    """Of a detector that membench has, an option is membench's or the row can match no
    run.
    """
    frame, seen = read(CSV), set()
    assert set(frame.task) <= set(tasks().names())
    # Settings that membench's cfg_norm and bright_ending cannot be put to
    unknown = {"prompt", "step_index", "prediction"}
    for detector, options in (
        frame[["detector", "options"]].drop_duplicates().itertuples(index=False)
    ):
        if detector in detectors().names():
            fields = set(detectors().load(detector).Options.__dataclass_fields__)
            assert set(json.loads(options)) <= fields | unknown, (detector, options)
            seen.add(detector)
    known = {"side", "random", "carlini_conditional", "cfg_norm", "caption_case"}
    known |= {"sharpness", "hessian_difference", "bright_ending", "attention_entropy"}
    assert seen == known | {"representation", "dsm", "anisotropy", "update_norm", "p_laplace"}


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": "97.6"}, "value 97.6 is outside [0, 1]; write a share, not per cent"),
        ({"value": "-0.1"}, "outside [0, 1]"),
        ({"value": "nan"}, "value is nan, not a finite number"),
        ({"value": "inf"}, "not a finite number"),
        ({"value": ".9 "}, None),
        ({"value": "high"}, "value is 'high', not a number"),
        ({"value": ""}, "value is empty"),
        ({"profile": "mini"}, "profile is 'mini'; it must be one of full"),
        ({"metric": "auc"}, "metric is 'auc'; it must be one of auroc"),
        ({"evidence": "rumour"}, "evidence is 'rumour'"),
        ({"options": "steps=1"}, "is no JSON object; write {}"),
        ({"options": "[1]"}, "is no JSON object"),
        ({"options": '{"a": NaN}'}, "is no JSON object"),
        ({"n_positive": "2.5"}, "n_positive is 2.5, not a whole number above 0"),
        ({"n_negative": "0"}, "not a whole number above 0"),
        ({"model": " m"}, "model begins or ends with a space"),
        ({"band": "low"}, "auroc needs no band"),
        ({"similarity": "cosine/sscd"}, "auroc needs no similarity"),
        (HIGH | {"value": "2.0"}, "value 2 is outside [0, 1]; write a share, not per cent"),
        (HIGH | {"band": ""}, "ams needs a band, one of low, mid, high"),
        (HIGH | {"band_from": "0.7", "band_to": "0.6"}, "the band from 0.7 to 0.6 is empty"),
        (HIGH | {"band_from": "", "band_to": "0.6"}, None),
        (HIGH | {"similarity": ""}, "ams needs a similarity"),
        (EXTRACTION | {"metric": "best_p95", "value": "1.85"}, "value 1.85 is outside [-1, 1]"),
        (EXTRACTION | {"metric": "best_p95", "value": "1.85", "similarity": "normalised-l2"}, None),
    ],
)
def test_rows_are_checked(write, change, says):
    path = write(DETECTION | {"source": "another"}, DETECTION | change)
    if says is None:
        assert len(read(path)) == 2
        return
    with pytest.raises(UserError) as error:
        read(path)
    assert (
        str(error.value).startswith(f"{path}, row 2 (")
        and says in str(error.value)
        and "\n" not in str(error.value)
    )


def test_one_source_says_a_thing_once(write):
    # Two sources may differ
    assert len(read(write(DETECTION, DETECTION | {"source": "t2", "value": 0.8}))) == 2
    # The same options, written in another way
    twice = DETECTION | {"options": '{"draws":4,"steps":1}', "value": 0.8}
    with pytest.raises(
        UserError, match=r"row 3.*the same number from the same source as row 1; delete one"
    ):
        read(write(DETECTION, DETECTION | {"paper": "B"}, twice))


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(UserError, match="is not there"):
        read(tmp_path / "no.csv")
    path = write(DETECTION)
    frame = pd.read_csv(path)
    frame.drop(columns="evidence").assign(grade="P").to_csv(path, index=False)
    with pytest.raises(UserError, match="columns missing or unknown: evidence, grade"):
        read(path)
    (tmp_path / "p.parquet").write_bytes(PARQUET.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"p\.parquet cannot be read"):
        read(tmp_path / "p.parquet")
    (tmp_path / "out.parquet").write_bytes(b"older")
    with pytest.raises(UserError):
        build(path, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == b"older"


# ----------------------------------------------------------------------- beside a board


def test_reported_beside_measured(write):
    tpr = DETECTION | {"metric": "tpr_at_fpr_0.01", "value": 0.4}
    row = beside(write, RUN, DETECTION, tpr, HIGH)
    assert row["reported_auroc"] == 0.9 and row["reported_tpr_at_fpr_0.01"] == 0.4
    assert row["reported_source"] == "A, t1 (paper)"
    assert row["auroc"] == 0.85 and "reported_ams_in_high" not in row


@pytest.mark.parametrize(
    "change",
    [
        {"task": "celeba"},
        {"profile": "mini"},
        {"model": "stabilityai/stable-diffusion-2"},
        {"model": None},
        {"data_name": "webster500 vs 500 LAION"},
        {"data_name": math.nan},
        {"detector": "dcs"},
        {"resolved": '{"draws": 16, "steps": 1}'},
        {"resolved": '{"draws": 4}'},
        {"resolved": '{"draws": 4, "steps": true}'},
        {"control": True},
        {"status": "partial"},
    ],
)
def test_one_thing_that_differs_is_another_setting(write, change):
    assert (
        beside(write, RUN | {"control": False, "status": "complete"}, DETECTION)["reported_auroc"]
        == 0.9
    )
    row = beside(write, RUN | change, DETECTION)
    assert math.isnan(row["reported_auroc"]) and row["reported_source"] == ""


def test_options_are_a_subset_and_null_is_never_the_same(write):
    assert beside(write, RUN, DETECTION | {"options": "{}"})["reported_auroc"] == 0.9
    assert (
        beside(write, RUN, DETECTION | {"options": '{"guidance": 7.5, "draws": 4.0}'})[
            "reported_auroc"
        ]
        == 0.9
    )
    for resolved in (RUN["resolved"], '{"draws": 4, "steps": null}'):
        row = beside(
            write,
            RUN | {"resolved": resolved},
            DETECTION | {"options": '{"draws": 4, "steps": null}'},
        )
        assert math.isnan(row["reported_auroc"])
    lists = DETECTION | {"options": '{"blocks": [3, 4]}'}
    assert beside(write, RUN | {"resolved": '{"blocks": [3, 4]}'}, lists)["reported_auroc"] == 0.9
    assert math.isnan(
        beside(write, RUN | {"resolved": '{"blocks": [4, 3]}'}, lists)["reported_auroc"]
    )


def test_a_mini_run_never_matches_the_published_file():
    """Even with the model, data, detector and options of a published row."""
    frame = read(PARQUET)
    whole = frame.rename(columns={"data": "data_name", "options": "resolved"})[
        ["task", "profile", "model", "data_name", "detector", "resolved"]
    ]
    board = whole.drop_duplicates().assign(auroc=0.5)
    assert with_reported(board, frame).reported_auroc.notna().sum() > 30
    mini = with_reported(board.assign(profile="mini"), frame)
    assert mini.reported_auroc.isna().all() and (mini.reported_source == "").all()
    assert (
        published_table(frame, board.assign(profile="mini")).measured == "not measured here"
    ).all()


@pytest.mark.parametrize("missing", ["model", "data_name", "resolved", "profile"])
def test_a_board_without_a_column_matches_nothing(write, missing):
    board = pd.DataFrame([RUN, RUN], index=[7, 3]).drop(columns=missing)
    found = with_reported(board, read(write(DETECTION)))
    assert (
        found.reported_auroc.isna().all()
        and found.reported_source.tolist() == ["", ""]
        and found.index.tolist() == [7, 3]
    )
    assert published_table(read(write(DETECTION)), board).measured.tolist() == ["not measured here"]


def test_the_best_evidence_counts_and_the_others_are_named(write):
    grades = {"third_party": 0.6, "computed": 0.7, "code": 0.8, "paper": 0.9}
    rows = [
        DETECTION | {"evidence": grade, "value": value, "source": grade}
        for grade, value in grades.items()
    ]
    for given in (rows, rows[::-1]):
        row = beside(write, RUN, *given)
        assert row["reported_auroc"] == 0.9
        expected = (
            "A, paper (paper); also AUROC 0.8 by A, code (code or data); also AUROC 0.7 by A,"
            " computed (computed)"
        )
        assert (
            row["reported_source"] == f"{expected}; also AUROC 0.6 by A, third_party (third party)"
        )
    row = beside(write, RUN, *rows[:2], rows[0] | {"metric": "tpr_at_fpr_0.01", "value": 0.1})
    assert row["reported_auroc"] == 0.7 and row["reported_tpr_at_fpr_0.01"] == 0.1
    assert row["reported_source"].startswith(
        "A, computed (computed); A, third_party (third party); also AUROC 0.6"
    )


def test_bands_and_similarities_must_be_the_same(write):
    low = HIGH | {"band": "low", "band_from": "", "band_to": 0.5}
    p95 = EXTRACTION | {"metric": "best_p95", "value": 0.54}
    rows = (HIGH, low, p95)
    row = beside(write, ATTACK | {"ams_in_low": 0.1}, *rows)
    assert row["reported_ams_in_high"] == 0.02 and row["reported_best_p95"] == 0.54
    assert math.isnan(row["reported_ams_in_low"])  # where it begins was never stated
    row = beside(write, ATTACK | {"bands": '{"high": [0.65, 1.0]}'}, *rows)
    assert math.isnan(row["reported_ams_in_high"]) and row["reported_best_p95"] == 0.54
    for change in ({"space": "normalised-l2/pixels64/alpha0.5/n50"}, {"space": None}):
        row = beside(write, ATTACK | change, *rows)
        assert math.isnan(row["reported_ams_in_high"]) and math.isnan(row["reported_best_p95"])
    unknown = {name: value for name, value in ATTACK.items() if name != "bands"}
    assert math.isnan(beside(write, unknown, *rows)["reported_ams_in_high"])
    # Another N_G
    assert math.isnan(
        beside(write, ATTACK | {"resolved": '{"generations": 50}'}, *rows)["reported_ams_in_high"]
    )


# ------------------------------------------------------------------------------ as text


def test_text_of_the_published_file():
    frame = read(PARQUET)
    text = published_table(frame, None)
    assert (text.measured == "not measured here").all() and not text.isna().any().any()
    side = text[text.source == "arXiv 2410.02467v7, Table 1"]
    assert len(side) == 15  # five data sets, three methods
    row = side[(side.data == "CIFAR-10") & (side.detector == "side")].iloc[0]
    assert (
        row["metric"] == "AMS/UMS % low, mid, high; p95 L2"
        and row.reported == "7.83/2.73, 3.83/1.19, 2.61/0.76; 1.41"
    )
    assert "generations=10000" in row.options and row.evidence == "paper" and "bands" in row.note
    wen = text[text.source.str.startswith("headline")].iloc[0]
    assert (
        wen.options == "draws=? steps=?"
        and wen["metric"] == "AUROC / TPR@1%FPR"
        and wen.reported == "0.999 / 0.988"
    )
    only = published_table(frame, None, ["cifar10"])
    assert set(only.data) == {"CIFAR-10"} and len(only) == 4
    assert published_table(frame, None, []).columns.tolist() == text.columns.tolist()
    pd.testing.assert_frame_equal(published_table(frame.sample(frac=1, random_state=0), None), text)


def test_measured_values_in_the_text(write):
    tpr = DETECTION | {"metric": "tpr_at_fpr_0.01", "value": 0.4}
    frame = read(write(DETECTION, tpr, HIGH, HIGH | {"metric": "ums", "value": 0.01}))
    board = pd.DataFrame(
        [
            RUN,
            RUN | {"auroc": 0.87, "tpr_at_fpr_0.01": np.nan},
            RUN | {"profile": "mini", "auroc": 0.1},
            ATTACK,
        ]
    )
    text = published_table(frame, board).set_index("detector")
    assert (
        text.measured["cfg_norm"] == "0.85 / 0.5 or 0.87 / n/a (2 boards)"
        and text.reported["cfg_norm"] == "0.9 / 0.4"
    )
    assert (
        text.measured["side"] == "3/n/a"
        and text.reported["side"] == "2/1"
        and text["metric"]["side"] == "AMS/UMS % high"
    )
    none = published_table(frame, pd.DataFrame([RUN]).drop(columns=["auroc", "tpr_at_fpr_0.01"]))
    assert (none.measured == "not measured here").all()
