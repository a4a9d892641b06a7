"""The tables of results/cifar10_pair.md that no one command makes, from the runs of its
commands: attacks run by run, the ladder of half a, and what perturbed labels do.

    python benchmarks/pair.py RUNS --output FOLDER

Of several folders that with figures of quality stands first: of a run that is in two of
them the first one counts.

Writes cifar10_pair_attacks.parquet, cifar10_pair_ladder.parquet,
cifar10_pair_perturbed.parquet and cifar10_pair_perturbed_detectors.parquet.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from membench.boards.collect import collect
from membench.boards.identity import given
from membench.boards.ladder import ladder
from membench.boards.mirror import half_of
from membench.boards.quality import with_quality
from membench.metrics.mirror import mirrored_over_seeds
from membench.runs.finished import Run, read_runs
from membench.runs.ladder import Rung
from membench.storage.files import atomic_write

PIXELS = "@pixels-area32"  # features of the quality figures
AT = "4"  # rung on which perturbed labels are compared: as many steps as they were trained
MANY = "generations=1980"  # plain images that SIDE's evaluations pay for


class Told(NamedTuple):
    """A run, and what its settings say."""

    run: Run
    half: str
    rung: str
    perturb: float
    options: str


def told(runs: list[Run]) -> Iterator[Told]:
    for run in runs:
        if run.info["status"] == "complete":
            _, _, share = given(run.info, "model").partition("perturbed")
            options = " ".join(run.info["options_passed"])
            rung = given(run.info, "rung") or "0"
            yield Told(run, half_of(run), rung, float(share or 0), options)


def attacks(found: list[Told]) -> pd.DataFrame:
    """A row a run of plain unconditional images or of SIDE, on a rung."""
    rows = []
    for of in found:
        info = of.run.info
        plain = info["detector"] == "random" and "extraction=unconditional" in of.options
        if of.perturb or of.rung == "0" or not (plain or info["detector"] == "side"):
            continue
        [row] = collect([of.run]).itertuples()
        rows.append(
            {
                "half": of.half,
                "rung": int(of.rung),
                "attack": info["detector"],
                "labels": "" if plain else info["key_parts"]["options"]["labels"],
                "control": info["control"],
                "seed": info["seed"],
                "images": int(row.n_ok),
                "ams": row.ams_cumulative,
                "ams_low": row.ams_cumulative_low,
                "ams_high": row.ams_cumulative_high,
                "different": int(row.unique_copies),
                "weights": row.weights,
            }
        )
    by = ["half", "rung", "attack", "labels", "control", "images", "seed"]
    return pd.DataFrame(rows).sort_values(by, ignore_index=True)


def rungs(found: list[Told]) -> list[Rung]:
    """Half a's: SIDE, where there is one, beside as many plain images as it pays for, else
    300 of the model alone.
    """
    usual = [
        of
        for of in found
        if of.half == "a" and of.rung != "0" and not of.perturb and "oracle" not in of.options
    ]
    with_side = {of.rung for of in usual if of.run.info["detector"] == "side"}
    chosen: dict[str, list[Run]] = {}
    for of in usual:
        name, control = of.run.info["detector"], of.run.info["control"]
        plain = name == "random" and "generations=" in of.options
        many = MANY in of.options
        wanted = many if of.rung in with_side else not many and not control
        if name == "side" or (plain and wanted):
            chosen.setdefault(of.rung, []).append(of.run)
    return [Rung(rung, runs, ()) for rung, runs in sorted(chosen.items())]


def perturbed(found: list[Told]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of models with and without perturbed labels: images and their quality, and AUROC
    of two detectors.
    """
    of = {
        (t.perturb, t.half, t.run.info["detector"], t.options): t.run
        for t in found
        if t.rung == AT and not t.run.info["control"] and t.run.info["seed"] == 0
    }
    images, detected = [], []
    for share in sorted({share for share, *_ in of}):
        for half in "ab":
            for way, options in (
                ("labels", "at_most=300"),
                ("null", "extraction=unconditional generations=300"),
            ):
                run = of[share, half, "random", options]
                row = with_quality(collect([run]), [run]).iloc[0]
                images.append(
                    {
                        "perturb": share,
                        "half": half,
                        "from": way,
                        "ams": row.ams_cumulative,
                        "ams_low": row.ams_cumulative_low,
                        "ams_high": row.ams_cumulative_high,
                        "ums_nearest": row.ums_nearest_cumulative,
                        "fd_held_out": row["fd_shrunk_held_out" + PIXELS],
                        "kid_held_out": row["kid_held_out" + PIXELS],
                        "kid_held_out_error": row["kid_held_out_error" + PIXELS],
                        "fld_gap": row["fld_gap" + PIXELS],
                        "accuracy": row.get("downstream@classifier"),
                        "accuracy_error": row.get("downstream_error@classifier"),
                        "weights": row.weights,
                    }
                )
        for name in ("loss", "flipd"):
            a, b = (of[share, half, name, "images=0"] for half in "ab")
            for row in mirrored_over_seeds([(a.scores, b.scores)]).itertuples():
                detected.append(
                    {
                        "perturb": share,
                        "detector": name,
                        "kind": row.kind,
                        "mirrored": row.mirrored,
                        "low": row.low,
                        "high": row.high,
                    }
                )
    return pd.DataFrame(images), pd.DataFrame(detected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("results"))
    args = parser.parse_args()
    found = list(told(read_runs(args.runs).runs))
    images, detected = perturbed(found)
    for name, frame in (
        ("attacks", attacks(found)),
        ("ladder", ladder(rungs(found), "rung")),
        ("perturbed", images),
        ("perturbed_detectors", detected),
    ):
        file = args.output / f"cifar10_pair_{name}.parquet"
        atomic_write(file, lambda temporary, frame=frame: frame.to_parquet(temporary))
        print(f"{file}: {len(frame)} rows")


if __name__ == "__main__":
    main()
