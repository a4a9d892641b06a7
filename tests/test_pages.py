"""Pages answer: the verdict and its colour by one rule, every example to be looked up,
what each detector reaches beside the other model, and links that lead somewhere.
"""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from boards import COPIED, make
from sklearn.metrics import roc_auc_score
from test_report import NASTY, NEAREST, make_run, page, sure, without_script

from membench.boards.board import board as made_board
from membench.boards.collect import about
from membench.boards.counterparts import counterparts
from membench.boards.judged import against
from membench.boards.papers import about_detectors
from membench.boards.verdict import CONTROL, MIRROR, Reached, verdict
from membench.metrics.mirror import mirrored_auroc, over_control
from membench.reports.board_page import write_board
from membench.reports.board_parts import Board
from membench.reports.detector_cost import detector_cost_plot, evaluated
from membench.reports.dot_plot import UNSEEN, dot_plot, unseen_columns
from membench.reports.drawing import inline
from membench.reports.kinds import kind_lines
from membench.reports.page_boards import page_boards
from membench.reports.run_end import as_json, run_end
from membench.reports.run_page import WORDS, render, rule, tone
from membench.reports.run_tables import run_table
from membench.runs.finished import Run, per_example
from membench.runs.nearest import example_images, mistakes
from membench.types import Condition, Example

GOOD = Reached("d", (0.95, 0.93, 0.97), 0.47)


@pytest.mark.parametrize(
    ("reached", "other", "difference", "level", "colour", "words"),
    [
        (GOOD, 0.49, (0.46, 0.42, 0.5), "finds", "finds", "not explained by content. At 1 % false"),
        (GOOD, 0.94, (0.01, -0.01, 0.03), "content", "not", "content alone explains it"),
        (GOOD, 0.85, (0.1, -0.06, 0.26), "unsure", "not", "0.100 [-0.060, 0.260], so that content"),
        (GOOD, None, None, "open", "neutral", "Only the control model can tell whether content"),
        (Reached("d", (0.55, 0.49, 0.59), 0), 0.3, (0.25, 0.2, 0.3), "chance", "not", "chance is"),
        (Reached("d", (0.55, 0.3, 0.8), 0), 0.3, (0.25, 0, 0.5), "few", "not", "is not shown to"),
        (Reached("d", (0.9, np.nan, np.nan), 0.4), None, None, "few", "neutral", "few groups"),
    ],
)
def test_the_verdict_follows_the_intervals(
    reached, other, difference, level, colour, words
) -> None:
    found = verdict(reached, "captions", CONTROL, other, difference)
    assert (found.level, tone(found)) == (level, colour)
    assert words in found.text
    assert rule(found).startswith({"finds": "Green", "not": "Amber", "neutral": "Grey"}[colour])


def test_the_verdict_is_the_sentence_of_the_issue() -> None:
    found = verdict(GOOD, "captions", CONTROL, 0.49, (0.46, 0.42, 0.5))
    assert found.text == (
        "d finds memorized captions: AUROC 0.950 [0.930, 0.970]; on the control model 0.490: not"
        " explained by content. At 1 % false alarms it finds 47 %"
    )


def frame(scores: list[float], labels: list[int]) -> pd.DataFrame:
    ids = [str(i) for i in range(len(scores))]
    same = {"id": ids, "group": ids, "kind": "x", "status": "ok"}
    return pd.DataFrame({"score": scores, "label": labels, **same})


def test_the_difference_to_the_control_is_paired() -> None:
    labels = [0, 0, 1, 1]
    model, control = frame([1, 2, 3, 4], labels), frame([1, 3, 2, 4], labels)
    assert over_control([(model, control)])[0] == pytest.approx(0.25)  # 4 of 4 pairs less 3
    assert over_control([(control, control)]) == (0, 0, 0)
    assert over_control([(model, control), (control, control)])[0] == pytest.approx(0.125)
    late = control.assign(status=["ok", "failed", "ok", "ok"])
    assert over_control([(model, late)])[0] == 0  # of what both have scored
    assert over_control([(model, control.assign(status="failed"))]) is None


def on(run: Run, half: str, scores: pd.DataFrame) -> Run:
    hashes = run.info["hashes"] | {"weights": half * 64} if "hashes" in run.info else {}
    parts = run.info["key_parts"]
    parts = parts | {"hashes": parts["hashes"] | {"weights": half * 64}}
    info = run.info | {"key_parts": parts, "task_options_passed": [f"half={half}"]}
    return dataclasses.replace(
        run, path=run.path / half, info=info | {"hashes": hashes}, scores=scores
    )


def test_a_run_is_judged_against_the_mirror_model(tmp_path) -> None:
    run = make_run(tmp_path, n=80, images=False)
    a = on(run, "a", run.scores)
    b = on(run, "b", run.scores.assign(label=1 - run.scores.label, score=run.scores.score[::-1]))
    row = mirrored_auroc(a.scores, b.scores).iloc[0]
    found = against(a, [b])
    assert f"AUROC {row.a:.3f} [{row.a_low:.3f}, {row.a_high:.3f}]" in found.text
    assert f"{MIRROR}, which has seen the others, {1 - row.b:.3f}" in found.text
    assert found.difference == pytest.approx((row.a + row.b - 1, 2 * row.low - 1, 2 * row.high - 1))
    assert "the AUROC of the tables is against all negatives, held-out ones too" in rule(found)
    assert f"AUROC {row.b:.3f}" in against(b, [a]).text
    other_seed = dataclasses.replace(b, info=b.info | {"seed": 8})
    assert against(a, [other_seed]).difference is None


def of_model(root, weights: str, noise: float, *, control: bool = False, **more) -> Run:
    """A scored run on a model of these weights; noise: how much hides its labels."""
    random = np.random.default_rng(ord(weights))
    hashes = {"data": "d" * 64, "prompts": "p" * 64, "weights": weights * 64}
    return make(
        root,
        [None] * 60,
        control=control,
        more_parts={"hashes": hashes},
        change=lambda s: s.assign(score=s.label + noise * random.normal(size=len(s))),
        extra={"task_options_passed": [f"model={weights}"]},
        **more,
    )


def test_a_run_is_judged_by_its_own_model_s_scores(tmp_path) -> None:
    """Two models with the same data and one control have one pair key."""
    good, bad = of_model(tmp_path, "a", 0.3), of_model(tmp_path, "e", 99.0)
    control = of_model(tmp_path, "b", 99.0, control=True)
    assert [run.path for run in counterparts([good])] == [control.path]
    assert {run.path for run in counterparts([control])} == {good.path, bad.path}
    for run, own in ((good, "finds memorized"), (bad, "is not shown to find")):
        wanted = over_control([(run.scores, control.scores)])
        assert against(run, counterparts([run])).difference == pytest.approx(wanted)
        text = run_end([run], tmp_path, None)
        assert text.startswith(f"random {own}") and text.count("\nrandom ") <= 1
    # Both at once: each row by its own model
    first = run_end([good, bad], tmp_path, None)
    assert first.startswith("random finds memorized")


def test_a_run_as_json_has_each_metric_that_is_one_number(tmp_path) -> None:
    run = make_run(tmp_path)
    [told] = json.loads(as_json([run]))
    whole = run.metrics[(run.metrics.subset == "all") & run.metrics.band.isna()]
    assert (whole.metric == "rarefaction").sum() > 1
    single = whole[whole.metric != "rarefaction"]
    assert single.metric.is_unique and list(told["metrics"]) == single.metric.tolist()
    for row in single.itertuples():
        numbers = [np.nan if x is None else x for x in told["metrics"][row.metric]]
        np.testing.assert_array_equal(numbers, [row.value, row.low, row.high])


def test_mistakes_are_the_worst_and_keep_their_images() -> None:
    scores = frame([float(i) for i in range(40)], [0, 1] * 20)
    alarms, misses = mistakes(scores)
    assert alarms.score.tolist() == [38, 36, 34, 32, 30, 28, 26, 24]
    assert misses.score.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    image = np.zeros((8, 8, 3), np.uint8)
    examples = [
        Example(Condition(name, image=image if name != "1" else None), 0, "x", "g", "s")
        for name in ("38", "1", "20")
    ]
    assert example_images(scores, examples).training_id.tolist() == ["38"]


def test_every_example_stands_in_the_table_without_a_script(tmp_path) -> None:
    run = make_run(tmp_path, n=60)
    own = pd.DataFrame({"training_id": ["0000"], "image": [NEAREST.image[0]]})
    run = dataclasses.replace(run, nearest=pd.concat([NEAREST, own]))
    html = page(run)
    sure(html)
    table = without_script(html).partition('id="examples">')[2].partition("</table>")[0]
    rows = table.split("<tr>")[2:]
    assert len(rows) == 60 and "<button" not in table and "hidden" not in table
    places = [int(re.search('data-sort="([0-9]+)"', row)[1]) for row in rows]
    assert places == list(range(1, 61))
    given = run.scores.sort_values("score", ascending=False)
    for row, score, label in zip(rows, given.score, given.label, strict=True):
        assert f"{score:.4g}</td>" in row
        assert f"<td>{'memorized' if label else 'not memorized'}</td>" in row
        assert row.count('alt="generated"') == 1 and row.count('alt="training image"') == 1
    assert sum('alt="the example"' in row for row in rows) == 1
    assert NASTY not in table


def test_the_page_begins_with_the_verdict(tmp_path) -> None:
    html = page(make_run(tmp_path))
    order = ('class="verdict neutral"', 'class="pairs first"', "<h2>Detection", ">False alarms <")
    places = [html.index(word) for word in (*order, ">Misses <", "<h2>Examples</h2>")]
    assert places == sorted(places)
    top = html[places[0] : places[2]]
    assert top.count('alt="generated"') == 4 and "Grey: this detector has no run" in top


def test_what_is_not_judged_says_so(tmp_path) -> None:
    """An attack has no AUROC to judge, and a control run is what others are judged by."""
    attack = make(tmp_path, [0, 1, *[None] * 6], scored=False)
    assert rule(against(attack, [])) == "" and WORDS[against(attack, []).level] != "No AUROC"
    control = make(tmp_path, [0, *[None] * 7], scored=False, control=True)
    found = against(attack, counterparts([attack]))
    assert "25.0 % of them copies" in found.text
    assert found.text.endswith("; from the control model 12.5 %") and rule(found) == ""
    scored = make(tmp_path / "scored", [None] * 8, control=True)
    for run in (control, scored):
        judged = against(run, counterparts([run]))
        assert judged.level == "control" and tone(judged) == "neutral"
        assert "no run on" not in rule(judged) and "not judged itself" in rule(judged)
    assert "from the control model" in against(control, []).text
    assert "has no run on" not in render(attack) and "from the control model 12.5" in render(attack)


def seeds_row(detector: str, auroc: float, **more) -> dict:
    ends = {"auroc": auroc, "auroc_low": auroc - 0.02, "auroc_high": auroc + 0.02}
    given = {"detector": detector, "options": "", "status": "complete", "captions_auroc": 0.61}
    given["control"] = False
    return given | ends | more


@pytest.mark.parametrize(
    ("failed", "attack", "said"),
    [
        (2, True, "random extracted 6 images, 66.7 % of them copies of training images"),
        (0, False, "random extracted 8 images by the task's own sampling, so that they say"),
        (8, True, "random extracted 8 images, none of which could be compared"),
    ],
)
def test_the_page_of_an_extraction_says_what_the_run_ends_with(
    tmp_path, failed: int, attack: bool, said: str
) -> None:
    """Of 8 images of which 2 failed, 4 of the other 6 are copies."""
    copied = [0, 0, 1, None, 2, None, 3, None]
    run = make(tmp_path, copied, scored=False, failed=failed, extra={"attack": attack})
    text = against(run, []).text
    assert text.startswith(said)
    end = run_end([run], tmp_path, None)
    assert f"{text}.\n" in end
    if failed == 2:
        assert "6       66.7 [" in end and "8" not in end.split("AMS copies %")[1].split("[")[0]
        assert "extraction, 6 images" in run_table([run])


def test_runs_that_failed_on_different_examples_have_no_difference(tmp_path) -> None:
    """Of 20 memorized ones the model's run has lost ten, and the control's the others."""

    def losing(first: int):
        def change(scores: pd.DataFrame) -> pd.DataFrame:
            lost = (scores.label == 1) & scores.index.isin(range(first, first + 20))
            scores = scores.assign(score=scores.label * 5.0 + scores.index * 0.01)
            scores.loc[lost, ["score", "png_bits"]] = np.nan
            return scores.assign(
                status=np.where(lost, "failed", "ok"), error=np.where(lost, "NaN", None)
            )

        return change

    extra = {"failed": {"scores": 10, "samples": 0}, "status": "partial"}
    runs = [
        make(tmp_path, [None] * 40, control=control, change=losing(first), extra=extra)
        for control, first in ((False, 0), (True, 20))
    ]
    found = against(runs[0], runs)
    assert found.level == "open" and found.difference is None
    assert f"{found.text}." in run_end(runs, tmp_path, None)


def test_a_limited_run_with_failed_rows_says_both(tmp_path) -> None:
    extra = {"n_task_examples": 800, "status": "partial"}
    run = make(tmp_path, COPIED, failed=2, extra=extra)
    assert run_end([run], tmp_path, None).startswith("PARTIAL (8 of 800 examples, 2 failed rows;")
    assert "PARTIAL RUN (8 of 800 examples, 2 failed rows)" in run_table([run])


def test_a_dot_is_where_the_number_is() -> None:
    rows = pd.DataFrame([seeds_row("one", 0.7), seeds_row("two", 0.9), seeds_row("png_size", 0.55)])
    unseen = pd.DataFrame({"unseen": [0.5, np.nan, np.nan]})
    unseen = unseen.assign(unseen_low=unseen.unseen - 0.1, unseen_high=unseen.unseen + 0.1)
    plot = dot_plot(rows, unseen.assign(unseen_on=[CONTROL, None, None]))
    lines = {line.name: line for line in plot.lines}
    model, other = lines["the model"], lines["the control model"]
    assert MIRROR not in lines
    assert [name for _, name in plot.y.at] == ["two", "one"]  # best first
    assert model.x.tolist() == [0.9, 0.7] and model.low.tolist() == pytest.approx([0.88, 0.68])
    assert other.x[1] == 0.5 and np.isnan(other.x[0]) and other.hollow and not model.hollow
    assert lines["captions alone 0.610"].x.tolist() == [0.61, 0.61]
    assert lines["PNG size alone 0.550"].x.tolist() == [0.55, 0.55]
    assert "one" in inline(plot) and dot_plot(rows[2:], unseen.assign(unseen_on=None)) is None
    # Of a board of control runs the filled dots are the control model's
    alone = pd.DataFrame(np.nan, index=rows.index, columns=UNSEEN).assign(unseen_on=None)
    names = [line.name for line in dot_plot(rows.assign(control=True), alone).lines]
    assert "the control model" in names and "the model" not in names


def test_both_dots_are_of_the_same_examples(tmp_path) -> None:
    """The mirror's scores under the row's own labels, held-out negatives too; and where a
    control model was asked, that one.
    """
    run = make_run(tmp_path, n=90, images=False)
    ids = run.scores.id.to_numpy()
    part = np.arange(len(ids)) % 3  # seen by a, by b, by neither
    random = np.random.default_rng(0)
    of = run.scores.assign(status="ok", group=ids)
    a = on(run, "a", of.assign(label=(part == 0) * 1, score=random.normal((part == 0) * 1.0)))
    b = on(run, "b", of.assign(label=(part == 1) * 1, score=random.normal((part == 1) * 1.0)))
    rows = pd.DataFrame([{"settings": about(r)["settings"], "control": False} for r in (a, b)])
    found = unseen_columns(rows, [a, b])
    assert found.unseen_on.tolist() == [MIRROR, MIRROR]
    for at, (own, other) in enumerate(((a, b), (b, a))):
        wanted = roc_auc_score(own.scores.label, other.scores.score)
        assert found.unseen[at] == pytest.approx(wanted)
        assert found.unseen_low[at] < wanted < found.unseen_high[at]
    apart = dataclasses.replace(b, scores=b.scores.assign(score=-a.scores.label.astype(float)))
    found = unseen_columns(rows[:1], [a, apart])  # no error: of 30 and 60 groups a bound
    assert (found.unseen[0], found.unseen_low[0]) == (0, 0)
    assert found.unseen_high[0] == pytest.approx(1 - 0.025 ** (1 / 30))
    asked = rows.assign(control_auroc=[0.4, np.nan], control_auroc_low=0.3, control_auroc_high=0.5)
    found = unseen_columns(asked, [a, b])
    assert found.unseen_on.tolist() == [CONTROL, MIRROR] and found.unseen[0] == 0.4


def test_the_cost_plot_has_each_detector_where_its_numbers_are() -> None:
    """The line is the best of what costs as much or less: a dearer detector that is worse
    does not lower it.
    """
    rows = pd.DataFrame(
        [
            seeds_row("dear", 0.7),
            seeds_row("cheap", 0.8),
            seeds_row("free", 0.5),
            seeds_row("no", 0.9),
        ]
    )
    evaluations = pd.Series([100.0, 4.0, 0.0, np.nan])
    plot = detector_cost_plot(rows, evaluations)
    lines = {line.name: line for line in plot.lines}
    assert {name: (line.x.tolist(), line.y.tolist()) for name, line in lines.items()} == {
        "free": ([0.0], [0.5]),
        "cheap": ([4.0], [0.8]),
        "dear": ([100.0], [0.7]),
        "best so far": ([0.0, 4.0, 100.0, 130.0], [0.5, 0.8, 0.8, 0.8]),
    }
    assert lines["dear"].low.tolist() == pytest.approx([0.68])
    assert [x for x, _ in plot.x.at] == [0.0, 1.0, 10.0, 100.0]
    assert "cheap" in inline(plot)
    assert detector_cost_plot(rows[:1], evaluations[:1]) is None
    assert detector_cost_plot(rows[2:], evaluations[2:]) is None


def test_costs_of_a_row_are_those_of_its_runs(tmp_path) -> None:
    """Means over seeds; what it generates to score by counts, what another does not."""
    runs = [
        make_run(tmp_path / f"{detector}{seed}", n=40, images=False, detector=detector, seed=seed)
        for detector in ("cfg_norm", "dsm")
        for seed in (0, 1)
    ]
    settings = [about(run)["settings"] for run in runs]
    rows = pd.DataFrame(
        [
            seeds_row("cfg_norm", 0.7, settings=settings[0]),
            seeds_row("flipd", 0.7, settings="another"),
        ]
    )
    found = evaluated(rows, runs)
    wanted = np.mean([per_example(r, "forwards") + per_example(r, "jvps") for r in runs[:2]])
    assert found.iloc[0] == pytest.approx(wanted) and np.isnan(found.iloc[1])


def test_two_versions_of_a_detector_have_costs_and_links_of_their_own(tmp_path) -> None:
    """They are called alike, and are two rows of a board."""
    runs = [
        make(tmp_path, COPIED, price=price, images=True, more_parts={"detector_version": version})
        for version, price in ((1, 10), (2, 30))
    ]
    found = made_board(runs, "seeds")
    [board] = page_boards(found)
    own = {about(run)["settings"]: run for run in runs}
    of_rows = [own[settings] for settings in found.frame.settings]
    assert list(board.links) == [run.path for run in of_rows] and len(of_rows) == 2
    wanted = [per_example(run, "forwards") for run in of_rows]
    assert evaluated(found.frame, runs).tolist() == wanted and wanted[0] != wanted[1]


def test_links_lead_to_pages_and_to_papers_alone(tmp_path) -> None:
    run = make_run(tmp_path / "runs" / "a b", n=40, images=False, detector="cfg_norm")
    (tmp_path / "runs" / "a b").mkdir(parents=True)
    # Its captions, which the page shows, hold no address
    run = dataclasses.replace(run, scores=run.scores.assign(prompt="a mug"))
    page(run)
    rows = pd.DataFrame({"detector": ["cfg_norm", "x"], "AUROC": ["0.9", "n/a"]})
    board = Board("a_task v1", "b", rows, runs=[0], links=[run.path, None])
    out = tmp_path / "out"
    html = write_board([run], [board], out, plots=False).read_text(encoding="utf-8")
    links = re.findall(r'<a [^>]*?href="([^"]*)"', html)
    inside = [link for link in links if not link.startswith("https://arxiv.org/abs/")]
    # Of its row, of its mistakes, and of the list of runs
    assert inside == ["../runs/a%20b/report.html"] * 3
    assert (out / inside[0].replace("%20", " ")).is_file()
    assert re.findall(r"https?://[^ \"<]*", without_script(html)) == [
        link for link in links if link not in inside
    ]
    assert "Norm of the text-conditional noise prediction" in html


def test_papers_are_read_from_docstrings() -> None:
    of = {d.detector: d for d in about_detectors(["cfg_norm", "dcs", "nobodys", "cfg_norm"])}
    assert list(of) == ["cfg_norm", "dcs"]
    assert of["cfg_norm"].name == "Norm of the text-conditional noise prediction"
    assert of["cfg_norm"].paper == "Wen et al., ICLR 2024" and of["cfg_norm"].arxiv == "2407.21720"
    assert of["dcs"].arxiv == "2305.08694"


def test_letters_are_spelled_out() -> None:
    assert [line[:22] for line in kind_lines(["TV", "MV", "x4"])] == [
        "MV, matching verbatim:",
        "TV, template verbatim:",
    ]
