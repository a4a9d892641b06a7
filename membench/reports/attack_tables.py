"""The board of attacks as text: several narrow tables, each for one question."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pandas as pd

from membench.boards.identity import marked
from membench.boards.quality import MIRROR, features_of
from membench.metrics.extraction import CONFIDENT, PERCENTILES
from membench.metrics.names import CLASSIFIER
from membench.reports.seeds_tables import of_control
from membench.reports.text import interval, number


def attack_tables(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(what it shows, text, notes) of one board's rows of ``boards.attacks``: copies on
    the model and on its mirror, different images at equal N_G and cost, bands, the images
    that the attack is surest of, and what it costs.
    """
    names = short_names(part)
    yield "copies", _copies(part, names), list(_notes(part, names))
    yield (
        "different training images",
        _unique(part, names),
        [
            "UMS and its excess depend on N_G: compare them at one N_G. Copied @: expected"
            " different training images among as many images (rarefaction), or among the images"
            " that this many evaluations pay for, preparation included"
            + ("; >=: they pay for more than the run has" if part.equal_cost_capped.any() else "")
        ],
    )
    yield "in each band", _bands(part, names), ["in: in the band; to: up to its far edge. In %"]
    yield (
        "confidence and similarity",
        _confidence(part, names),
        [
            "precision: share of copies among the k images of the highest confidence (an attack"
            " without an opinion of its images has the share of all). p: percentile of each"
            f" image's nearest, {part.space_id.iloc[0]}"
        ],
    )
    for features in features_of(part):
        if features == CLASSIFIER:
            yield _downstream(part, names)
        else:
            yield from _quality(part, names, features)
    yield (
        "cost",
        _cost(part, names),
        [
            "evaluations of the target model, but surrogate: forwards and backwards of networks"
            " that the attack trains itself"
        ],
    )


def _downstream(part: pd.DataFrame, names: list[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """Of the attacks whose images have classes."""

    def share(row: pd.Series, name: str) -> str:
        value, error = (row.get(f"{name}{end}@{CLASSIFIER}", math.nan) for end in ("", "_error"))
        return f"{number(value, 3)} ± {number(error, 3)}"

    return (
        "what a classifier learns from the images",
        pd.DataFrame(
            [
                {
                    "attack": name,
                    "accuracy": share(row, "downstream"),
                    "mirror's": number(row.get(f"{MIRROR}downstream@{CLASSIFIER}", math.nan), 3),
                    "training images'": share(row, "downstream_training"),
                    "AMS %": _percent(row.ams_cumulative),
                }
                for name, (_, row) in zip(names, part.iterrows(), strict=True)
                if pd.notna(row[f"downstream@{CLASSIFIER}"])
            ]
        ),
        [
            "accuracy on held-out images of a classifier that was trained on the images alone, on"
            " those of the mirror model, or on as many training images; means over seeds; ±:"
            " standard error of a run"
        ],
    )


def _quality(
    part: pd.DataFrame, names: list[str], features: str
) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """What the images are worth, by one kind of features, and how near they are to the
    training images.
    """
    rows = [row for _, row in part.iterrows()]

    def of(row: pd.Series, name: str) -> float:
        return float(row.get(f"{name}@{features}", math.nan))

    def distance(row: pd.Series, against: str) -> str:
        if pd.notna(value := of(row, f"fd_shrunk_{against}")):
            return f"{number(value, 2)}*"
        return number(of(row, f"fd_{against}"), 2)

    def beside(row: pd.Series, name: str, mark: str = "") -> str:
        values = of(row, name), of(row, f"control_{name}")
        return " / ".join(number(v, 1) + (mark if pd.notna(v) else "") for v in values)

    shrunk = "fd_shrunk_excess"
    few = ["*: of shrunk covariances, since there are no more images than features"] * any(
        pd.notna(of(row, "fd_shrunk_training")) for row in rows
    )
    yield (
        f"quality by {features}",
        pd.DataFrame(
            [
                {
                    "attack": name,
                    "against": against.replace("_", "-"),
                    "FD": distance(row, against),
                    "KID": (
                        f"{number(of(row, f'kid_{against}'), 4)}"
                        f" ± {number(of(row, f'kid_{against}_error'), 4)}"
                    ),
                    "precision": number(of(row, f"precision_{against}"), 2),
                    "recall": number(of(row, f"recall_{against}"), 2),
                    "density": number(of(row, f"density_{against}"), 2),
                    "coverage": number(of(row, f"coverage_{against}"), 2),
                }
                for name, row in zip(names, rows, strict=True)
                for against in ("training", "held_out")
            ]
        ),
        [
            "against as many training images as held-out ones; means over seeds; ±: standard"
            " error of a run. Figures of other features do not compare",
            *few,
        ],
    )
    yield (
        f"copying by {features}",
        pd.DataFrame(
            {
                "attack": names,
                "AMS %": [_percent(r.ams_cumulative) for r in rows],
                "FD excess / mirror": [
                    beside(r, "fd_excess") if pd.isna(of(r, shrunk)) else beside(r, shrunk, "*")
                    for r in rows
                ],
                "C_T / mirror": [beside(r, "c_t") for r in rows],
                "FLD gap / mirror": [beside(r, "fld_gap") for r in rows],
                "FLD": [number(of(r, "fld"), 1) for r in rows],
            }
        ),
        [
            "FD excess: held-out less training. C_T: z, far below 0 where images are nearer to"
            " training images than held-out ones are. FLD gap: far below 0 for copies. Smooth"
            " images are near to all: it counts what the mirror's do not show",
        ],
    )


def attack_names(part: pd.DataFrame) -> tuple[list[str], str]:
    """A name for each row (the attack, and the options in which rows differ), and the
    options that all rows have.
    """
    words = [options.split() for options in part.options]
    alike = [word for word in words[0] if all(word in own for own in words)]
    if len(part) == 1:
        alike = []
    return [
        " ".join([marked(name, status), *(word for word in own if word not in alike)])
        for name, status, own in zip(part.detector, part.status, words, strict=True)
    ], " ".join(alike)


def short_names(part: pd.DataFrame) -> list[str]:
    """The attack of each row, with a number where several rows are of one."""
    held = part.detector.tolist()
    return [
        marked(name if held.count(name) == 1 else f"{name} {held[: i + 1].count(name)}", status)
        for i, (name, status) in enumerate(zip(held, part.status, strict=True))
    ]


def _share(row: pd.Series, name: str) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=100, digits=1)


def _percent(value: float, digits: int = 1) -> str:
    return number(100 * value, digits)


def _copies(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    rows = [row for _, row in part.iterrows()]
    return pd.DataFrame(
        {
            "attack": names,
            "AMS %": [_share(r, "ams_cumulative") for r in rows],
            "mirror %": [of_control(_share(r, "control_ams"), r) for r in rows],
            "excess %": [_share(r, "excess_ams") for r in rows],
            "N_G": [number(r.n_g) for r in rows],
            "seeds": [_seeds(r) for r in rows],
        }
    )


def _seeds(row: pd.Series) -> str:
    held = int(row.control_seeds)
    return f"{row.seeds}" if held in (0, row.seeds) else f"{row.seeds} ({held} mirror)"


def _unique(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    rows = [row for _, row in part.iterrows()]
    first = rows[0]
    return pd.DataFrame(
        {
            "attack": names,
            "UMS %": [_share(r, "ums_cumulative") for r in rows],
            "excess %": [_share(r, "excess_ums") for r in rows],
            "nearest %": [_percent(r.ums_nearest_cumulative) for r in rows],
            f"@{first.equal_n:,.0f} img": [number(r.copied_at_equal_n, 1) for r in rows],
            f"@{first.equal_cost:,.0f} eval": [
                (">=" if r.equal_cost_capped else "") + number(r.copied_at_equal_cost, 1)
                for r in rows
            ],
            "per 1k eval": [number(r.unique_per_1000_evaluations, 2) for r in rows],
        }
    )


def _bands(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    bands = json.loads(part.bands.iloc[0])
    lines = []
    for name, (_, row) in zip(names, part.iterrows(), strict=True):
        for band in bands:
            line = {"attack": name, "band": band}
            for title, metric in (("AMS", "ams"), ("UMS", "ums"), ("nearest", "ums_nearest")):
                line[f"{title} in"] = _percent(row[f"{metric}_in_{band}"], 2)
                line[f"{title} to"] = _percent(row[f"{metric}_to_{band}"], 2)
            lines.append(line)
    return pd.DataFrame(lines)


def _confidence(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    out = pd.DataFrame({"attack": names})
    for k in CONFIDENT:
        out[f"prec@{k}"] = [_percent(v) for v in part[f"precision_at_{k}"]]
    for q in PERCENTILES:
        out[f"p{q}"] = [number(v, 2) for v in part[f"best_p{q}"]]
    return out


def _cost(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    # A stored board may be older than the column
    prepared = part.get("prepare_evaluations", part.prepare_forwards)
    return pd.DataFrame(
        {
            "attack": names,
            "prepare": [number(v) for v in prepared],
            "extract": [number(v) for v in part.sample_evaluations],
            "bwd": [number(v) for v in part.backwards],
            "surrogate": [number(v) for v in part.surrogate_forwards + part.surrogate_backwards],
            "seconds": [number(v) for v in part.seconds],
        }
    )


def _notes(part: pd.DataFrame, names: list[str]) -> Iterator[str]:
    yield (
        "AMS: share of images that copy a training image. mirror: the same attack on the model"
        " that never saw them, against the same images; excess: model less mirror. 95 % intervals"
        " over groups of images and seeds"
    )
    for name, options in zip(names, part.options, strict=True):
        yield f"{name}: {options or 'its defaults'}"
    if part.excess_ams.isna().any():
        yield "n/a: no run of these settings on one control model (membench run ... --control)"
