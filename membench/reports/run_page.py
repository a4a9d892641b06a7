"""``report.html`` of one run: a page that opens anywhere, with no network and no other
file. The verdict first, then curves and mistakes; the rest is folded.

The functions here say what is on the page, ``templates/report.html`` how it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from membench.boards.judged import judged
from membench.boards.verdict import MIRROR, Level, Verdict
from membench.metrics.names import COPIES, DETECTION
from membench.reports.examples import examples, wrong
from membench.reports.gallery import copy_words, first_pairs, measure_word, of_run
from membench.reports.kinds import kind_lines
from membench.reports.multiplicity import multiplicity
from membench.reports.page import Section, Table, rendered
from membench.reports.run_about import about
from membench.reports.run_plots import histogram_plot, rarefaction_plot, run_roc, size_plot
from membench.reports.run_summary import ground_truth_line, reference_line
from membench.reports.run_tables import (
    SIZE_CORRELATION,
    detection_rows,
    extraction_rows,
    generation_rows,
    size_correlation,
)
from membench.reports.text import interval
from membench.runs.check import NOT_COMPARED
from membench.runs.finished import Run, evaluations
from membench.runs.nearest import frame_of, stored_nearest
from membench.storage.files import atomic_write
from membench.types import Space

WORDS: dict[Level, str] = {
    "finds": "Finds memorization",
    "content": "Explained by content",
    "unsure": "Not told from content",
    "chance": "No better than chance",
    "few": "Too few examples to tell",
    "open": "Open: no other model asked",
    "attack": "What was extracted",
    "control": "The control model",
    "none": "No AUROC",
}

PAIRS = 4  # beside the verdict


OWN_NOTE = (
    "own copies: images that copy an image of their own prompt. prompts returned: prompts with"
    " such an image among theirs. "
)


OWN_NOTE += "AUROC of images: does the detector's confidence tell those images from the others?"


def write_report(run: Run) -> Path:
    """Writes ``report.html`` into the run's folder, whole or not at all, and returns
    its path. Raises UserError if the disk refuses.
    """
    path, page = run.path / "report.html", render(run)
    atomic_write(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def render(run: Run) -> str:
    """The page as text; the same for the same run and run of its control (or, of a
    control run, of the model).
    """
    info = run.info
    why = (
        [f"{info['n_examples']} of {info['n_task_examples']} examples"]
        if info["n_examples"] < info["n_task_examples"]
        else []
    )
    why += [f"{n} failed {name}" for name, n in info["failed"].items() if n]
    frame, stored = frame_of(run), stored_nearest(run)
    found = judged(run)
    return rendered(
        "report.html",
        info=info,
        finished=info.get("finished", ""),
        partial=(
            "" if info["status"] == "complete" else ", ".join(why) or f"status {info['status']}"
        ),
        verdict=found.text,
        word=WORDS[found.level],
        tone=tone(found),
        rule=rule(found),
        pairs=first_pairs(frame, stored, PAIRS),
        facts=headline(run),
        sections=[detection(run), extraction(run)],
        wrong=wrong(run, frame, stored),
        examples=examples(run, frame, stored),
        kinds=kind_lines(run.scores.kind),
        folded=[gallery(run, frame, stored), about(info)],
    )


def tone(verdict: Verdict) -> str:
    """The colour of a verdict: ``finds``, ``not`` or ``neutral``, by :func:`rule`."""
    if verdict.difference is None:
        return "neutral"
    return "finds" if verdict.level == "finds" else "not"


def rule(verdict: Verdict) -> str:
    """What the colour says, with the numbers that it follows; empty where nothing is
    judged.
    """
    other = verdict.other
    if verdict.level in ("attack", "none"):
        return ""
    if verdict.level == "control":
        return (
            "Grey: a run on the control model is what runs on the model are compared with, and is"
            " not judged itself."
        )
    if verdict.difference is None:
        return f"Grey: this detector has no run on {other} here, so content alone may explain it."
    value, low, high = verdict.difference
    numbers = interval(value, low, high)
    colour = "Green" if verdict.level == "finds" else "Amber"
    # The page shows another AUROC below, of other negatives
    of = (
        " Both are of what either model has seen, each half against the other; the AUROC of the"
        " tables is against all negatives, held-out ones too."
        if other == MIRROR
        else ""
    )
    return (
        f"{colour}: AUROC here less AUROC on {other}, on the same examples, is {numbers}. Green"
        " where this interval lies above 0 and that of the AUROC above 0.5; amber where not; grey"
        f" without a run on {other}.{of}"
    )


def headline(run: Run) -> list[tuple[str, str]]:
    """What people look for first; only what the run has."""
    m, info = (
        run.metrics[(run.metrics.subset == "all") & run.metrics.band.isna()].set_index("metric"),
        run.info,
    )
    good, scored = run.n_ok, int((run.scores.status == "ok").sum())
    facts = [("images", f"{good:,}")] if good else []
    for name, title in (DETECTION | COPIES).items():
        if name in m.index:
            row, percent = m.loc[name], name in COPIES
            facts.append(
                (
                    title,
                    interval(
                        row.value,
                        row.low,
                        row.high,
                        scale=100 if percent else 1,
                        digits=1 if percent else 3,
                    ),
                )
            )
    if correlation := size_correlation(run.metrics):
        facts.append(("Spearman, PNG size", correlation))
    if good:
        facts.append(
            ("training images copied", f"{round(m.value['ums_nearest_cumulative'] * good):,}")
        )
    facts += [
        ("network evaluations", f"{evaluations(run):,}"),
        ("seconds", f"{info['seconds']:,.0f}"),
    ]
    return [("examples scored", f"{scored:,} of {info['n_task_examples']:,}"), *facts]


# ---------------------------------------------------------------- detection, extraction


def detection(run: Run) -> Section:
    good = run.scored
    positives, negatives = (int((good.label == label).sum()) for label in (1, 0))
    absent = ""
    if good.empty:
        none = (
            "Extraction only: no example was scored."
            if run.info.get("extract_only")
            else "This run has no scores."
        )
        absent = f"All {len(run.scores)} scores failed." if len(run.scores) else none
    elif not positives or not negatives:
        unknown = len(good) - positives - negatives
        others = f", {unknown} are unlabelled" if unknown else ""
        absent = (
            f"Detection needs scored examples of both labels; here {positives} are memorized and"
            f" {negatives} are not{others}."
        )
    note = (
        "Brackets: 95 % intervals over groups; n/a: the data cannot support it. kind: these"
        " positives against the negatives of "
    )
    note += "that kind, where there are any, or all of them. "
    note += (
        "source: all positives against these negatives. AUROC matched: over pairs of like PNG size."
        " It is well below AUROC where a "
    )
    note += (
        "detector ranks visual complexity, and the memorized images happen to be simpler or more"
        " complex than the others."
    )
    table = _table("", detection_rows(run.metrics), note)
    plots = [
        *([] if absent else [run_roc(good[good.label >= 0])]),
        *([] if good.empty else [histogram_plot(good)]),
    ]
    sized, correlation = good[good.png_bits.notna()], size_correlation(run.metrics)
    plots += (
        [size_plot(sized, f"{SIZE_CORRELATION}: {correlation}.")]
        if len(sized) and correlation
        else []
    )
    intro = "Which examples are memorized? A higher score says: memorized."
    return Section("Detection", intro, [table] if table.rows else [], plots, absent=absent)


def extraction(run: Run) -> Section:
    space, m = run.space, run.metrics
    intro = f"Which training images came back? {_measure(space)}"
    if truth := run.info.get("provenance", {}).get("ground_truth"):
        intro += f" {ground_truth_line(truth).capitalize()}."
    if reference := run.info.get("provenance", {}).get("reference"):
        intro += f" {reference_line(reference).capitalize()}."
    if not run.n_ok:
        why = (
            f"All {len(run.samples)} images failed."
            if len(run.samples)
            else "This run has no images: its detector extracted none."
        )
        if (run.samples.status == NOT_COMPARED).any():
            why = (
                f"{len(run.samples):,} images were generated and compared with nothing: the task"
                " was given no ground-truth images."
            )
        return Section("Extraction", intro, absent=why)
    whole = m[(m.subset == "all") & m.band.isna()]
    more = whole[whole.metric.str.match("best_p|precision_at|unique_per")]
    names = more.metric.replace(
        {
            "best_p": f"{measure_word(space)} to the nearest, percentile ",
            "precision_at_": "share of copies, most confident ",
        },
        regex=True,
    )
    names = names.str.replace("_", " ")
    values = ["n/a" if pd.isna(value) else f"{value:.4g}" for value in more.value]
    note = (
        "AMS: the share of images in the region. UMS: different training images in it over"
        " images; nearest: one image an image."
    )
    tables = [
        _table("", extraction_rows(m), note),
        Table("", ("metric", "value"), list(zip(names, values, strict=True))),
    ]
    own = generation_rows(m)
    if len(own):
        tables.append(_table("Against the prompt's own training images", own, OWN_NOTE))
    plots, below = multiplicity(run, copy_words(space))
    plots = [rarefaction_plot(whole[whole.metric == "rarefaction"].sort_values("n")), *plots]
    return Section("Extraction", intro, tables, plots, below)


def _measure(space: Space) -> str:
    closer = "higher" if space.higher_is_closer else "lower"
    return (
        f"Measure: {space.id}, a {measure_word(space)}, {closer} = closer ({space.source}). Copy:"
        f" {copy_words(space)}."
    )


def _table(title: str, frame: pd.DataFrame, note: str) -> Table:
    """Of a frame of text; a value that should have an interval and has none says so."""
    bare = {*DETECTION.values(), "AMS %", "UMS %", "UMS nearest %"}
    rows = [
        [
            f"{cell} [n/a]" if name in bare and cell != "n/a" and "[" not in cell else str(cell)
            for name, cell in zip(frame, row, strict=True)
        ]
        for row in frame.to_numpy().tolist()
    ]
    return Table(title, list(frame), rows, note)


def gallery(run: Run, frame: pd.DataFrame, stored: Mapping[str, bytes]) -> Section:
    """Pairs of an extracted image and its nearest: the nearest, near misses (the next
    that are not copies), failures; none twice. frame, stored: of ``runs.nearest``.
    """
    if frame.empty:
        return Section("Gallery", absent="This run has no images to show.", folded=True)
    intro, galleries = of_run(frame, run.space, stored)
    return Section("Gallery", intro, galleries=galleries, folded=True)
