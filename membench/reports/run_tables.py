"""What ``membench run`` prints of finished runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from membench.boards.captions import best, line_columns, reached
from membench.boards.identity import asked, common, marked, mixed
from membench.metrics.names import COPIES, DETECTION, GENERATIONS
from membench.plain import plain
from membench.reports.board_tables import captions_lines
from membench.reports.lines import folded, width
from membench.reports.run_summary import run_summary
from membench.reports.terminal import table
from membench.reports.text import interval, number, with_more
from membench.runs.finished import PER_EXAMPLE, Run, evaluations, per_example, spent

SIZE_CORRELATION = "Spearman of score with PNG size"


def run_table(runs: Sequence[Run]) -> str:
    """Of one run detection per subset, extraction per band and in percentiles; of
    several a row a run. Then costs and files.
    """
    # A detector that is named twice is one run
    runs = list({run.path: run for run in runs}.values())
    parts = _whole(runs[0]) if len(runs) == 1 else _side_by_side(runs)
    told = [*_one_class(runs), *_captions(runs), *map(run_summary, runs)]
    told += [] if len(runs) == 1 else [_shared(runs)]
    lines = [part for text in told for line in text.split("\n") for part in folded(line, width())]
    return "\n".join([*parts, *lines])


def _captions(runs: Sequence[Run]) -> Iterator[str]:
    """The line that captions alone reach, of the first run that has scored prompts."""
    for run in runs:
        if (line := best(reached(run.scores))) is not None:
            yield "".join(f"{plain(text)}\n" for text in captions_lines(line_columns(line)))
            return


def _one_class(runs: Sequence[Run]) -> Iterator[str]:
    """Why there is no detection, where prompts or images were scored and one of the
    labels is missing; else how many have none.
    """
    for run in runs:
        labels = run.scores.label[run.scores.status == "ok"]
        if len(labels) and not {0, 1} <= set(labels):
            counts = [
                f"{int((labels == value).sum()):,} {word}"
                for value, word in ((1, "memorized"), (0, "not"), (-1, "unlabelled"))
            ]
            how = "AUROC needs both labels (--negatives names prompts that are not memorized)"
            yield f"no detection: of the examples scored {', '.join(counts)}; {how}\n"
            return
        if unknown := int((labels < 0).sum()):
            yield (
                f"of {len(labels):,} examples scored {unknown:,} are unlabelled; detection metrics"
                " leave them out\n"
            )
            return


def _where(runs: Sequence[Run]) -> str:
    infos = [run.info for run in runs]
    return f"{infos[0]['task']} ({common(infos)})"


def _whole(run: Run) -> Iterator[str]:
    info, m, what = run.info, run.metrics, f"{run.info['detector']} on {_where([run])}"
    detection = detection_rows(m)
    if len(detection):
        yield table(f"{what}: detection, 95 % intervals over groups", detection)
    if correlation := size_correlation(m):
        yield f"{SIZE_CORRELATION}: {correlation}\n"
    extraction = extraction_rows(m)
    if len(extraction):
        yield table(
            f"{what}: extraction, {len(run.drawn):,} images, {info['space']['id']}, in %, 95 %"
            " intervals over groups",
            extraction,
        )
    own = generation_rows(m)
    if len(own):
        yield table(
            f"{what}: images against their own prompt's training images, 95 % intervals over"
            " groups",
            own,
        )
    percentiles = _percentile_rows(m)
    if len(percentiles):
        nearer = "higher = nearer" if info["space"]["higher_is_closer"] else "lower = nearer"
        yield table(
            f"{what}: percentiles of each image's best similarity, {info['space']['id']}"
            f" ({nearer})",
            percentiles,
        )


def _side_by_side(runs: Sequence[Run]) -> Iterator[str]:
    """Detection and extraction, a row a run; the tables of each alone are in its
    report.
    """
    scored, drawn = [], []
    names = with_more(
        [run.info["detector"] for run in runs],
        [" ".join([asked(run.info), *run.info["task_options_passed"]]).strip() for run in runs],
    )
    infos = [run.info for run in runs]
    for run, told, more in zip(runs, names, mixed(infos), strict=True):
        m, name = run.metrics, {"detector": marked(f"{told} {more}".strip(), run.info["status"])}
        overall = m[(m.subset == "all") & m.band.isna()]
        cells = {
            DETECTION[r.metric]: interval(r.value, r.low, r.high)
            for r in overall[overall.metric.isin(DETECTION)].itertuples()
        }
        kinds = m[(m.metric == "auroc") & m.subset.str.startswith("kind=")]
        of_kinds = {
            f"AUROC {r.subset.removeprefix('kind=')}": interval(r.value, float("nan"), float("nan"))
            for r in kinds.itertuples()
        }
        if cells:
            costs = {title: number(per_example(run, what)) for what, title in PER_EXAMPLE.items()}
            rho = {"rho PNG": size_correlation(m).partition(" ")[0] or "n/a"}
            scored.append(
                name
                | {title: cells.get(title, "n/a") for title in DETECTION.values()}
                | of_kinds
                | rho
                | costs
            )
        copies = {
            COPIES[r.metric]: _percent(r) for r in overall[overall.metric.isin(COPIES)].itertuples()
        }
        if copies:
            drawn.append(
                name
                | {"images": number(len(run.drawn))}
                | copies
                | {"seconds": number(run.info["seconds"])}
            )
    if scored:
        yield table(
            f"{_where(runs)}: detection, 95 % intervals over groups",
            pd.DataFrame(scored).fillna("n/a"),
        )
    if drawn:
        yield table(
            f"{_where(runs)}: extraction, {runs[0].info['space']['id']}, 95 % intervals over"
            " groups",
            pd.DataFrame(drawn),
        )


def _shared(runs: Sequence[Run]) -> str:
    """How often a network evaluation served more than one run."""
    asked, shared = sum(map(evaluations, runs)), sum(spent(run, "shared") for run in runs)
    share = f" ({100 * shared / asked:.0f} %)" if asked else ""
    return (
        f"the {len(runs)} runs need {asked:,} network evaluations; {shared:,}{share} were shared"
        " when they were made\n"
    )


def detection_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a subset, as text."""
    rows = []
    for subset, part in m[m.metric.isin(DETECTION)].groupby("subset", sort=False):
        cells = {DETECTION[r.metric]: interval(r.value, r.low, r.high) for r in part.itertuples()}
        rows.append(
            {
                "subset": subset,
                "n": int(part.n.iloc[0]),
                **{title: cells.get(title, "n/a") for title in DETECTION.values()},
            }
        )
    return pd.DataFrame(rows)


def size_correlation(m: pd.DataFrame) -> str:
    """Spearman's rho of score with PNG size, as text; empty for a run without sizes."""
    return "".join(
        interval(r.value, r.low, r.high, digits=2)
        for r in m[m.metric == "spearman_png_bits"].itertuples()
    )


def extraction_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a band, in the band and up to its far edge; then the copies (by the task's
    threshold) of each kind. As text.
    """
    overall = m[(m.subset == "all") & m.metric.str.match("ams|ums")]
    rows = []
    for band, part in overall[overall.band.notna()].groupby("band", sort=False):
        cells = {r.metric: _percent(r) for r in part.itertuples()}
        edge = part.threshold.dropna().iloc[0]
        rows.append({"images": "all", "region": str(band), **_pick(cells, "")})
        rows.append(
            {
                "images": "all",
                "region": f"to the end of {band} ({edge:g})",
                **_pick(cells, "_cumulative"),
            }
        )
    copies = m[m.metric.str.match("ams_cum|ums_cum|ums_nearest_cum") & m.band.isna()]
    for subset, part in copies.groupby("subset", sort=False):
        cells = {r.metric: _percent(r) for r in part.itertuples()}
        rows.append(
            {
                "images": str(subset),
                "region": f"copies ({part.threshold.iloc[0]:g})",
                **_pick(cells, "_cumulative"),
            }
        )
    return pd.DataFrame(rows)


def generation_rows(m: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of prompt: how often a prompt gave back its own image.

    As text; empty where no ground truth is known.
    """
    rows = []
    for subset, part in m[m.metric.isin(GENERATIONS)].groupby("subset", sort=False):
        scale = {name: 100 if title.endswith("%") else 1 for name, title in GENERATIONS.items()}
        cells = {
            r.metric: interval(
                r.value,
                r.low,
                r.high,
                scale=scale[r.metric],
                digits=1 if scale[r.metric] == 100 else 3,
            )
            for r in part.itertuples()
        }
        rows.append(
            {
                "images": subset,
                "n": int(part.n.max()),
                **{title: cells.get(name, "n/a") for name, title in GENERATIONS.items()},
            }
        )
    return pd.DataFrame(rows)


def _percentile_rows(m: pd.DataFrame) -> pd.DataFrame:
    found = m[(m.subset == "all") & m.metric.str.match("best_p")]
    return pd.DataFrame(
        [{r.metric.removeprefix("best_"): f"{r.value:.3f}" for r in found.itertuples()}]
        if len(found)
        else []
    )


def _percent(r: Any) -> str:
    return interval(r.value, r.low, r.high, scale=100, digits=2)


def _pick(cells: dict[str, str], suffix: str) -> dict[str, str]:
    return {
        title: cells[name + suffix]
        for title, name in (("AMS %", "ams"), ("UMS %", "ums"), ("UMS nearest %", "ums_nearest"))
    }
