"""SIDE's memorization divergence on the mini models, where it is known what is
memorized.

For each rung of ``cifar10`` and each epsilon: the divergence of images shown 64 times
and once, pointwise and of the set, under the model that was trained on
them and under its mirror. The model is unconditional (the null class). Writes
OUT/divergence.parquet; what is finished is found again.

    python benchmarks/divergence.py --out OUT --rungs 1,3,5

or of two models of real CIFAR-10 (``membench train cifar10 --profile full``, the second
with ``skip=N``):

    python benchmarks/divergence.py --out OUT --data-root DATA --model FOLDER --mirror FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from membench.detectors.likelihood import Likelihood
from membench.metrics.divergence import memorization_divergence, pointwise_divergence
from membench.reports.output import markdown
from membench.task import LoadedTask
from membench.tasks.cifar10.task import Cifar10, Cifar10Options
from membench.tasks.shared import HALVES, mirror_of
from membench.types import Condition

KINDS = ("x64", "x1")


def models(rung: int, args: argparse.Namespace) -> dict[str, LoadedTask]:
    """By half: the task with its model, and the examples of both halves."""
    options = Cifar10Options(rung=rung, examples="training")
    if args.model:
        options = replace(
            options, model=args.model, control_model=args.mirror, data_root=args.data_root
        )
    task, profile = Cifar10(options), "full" if args.model else "mini"
    return {"a": task.load(profile), "b": task.load(profile, control=True)}


def measured(
    rung: int,
    half: str,
    loaded: LoadedTask,
    asked: str,
    kind: str,
    epsilon: float,
    args: argparse.Namespace,
) -> dict[str, object]:
    """One row: images of ``kind`` in ``half``, under the model of half ``asked``."""
    planted = [e for e in loaded.examples if e.source == half]
    rows = [i for i, e in enumerate(planted) if e.kind == kind][: args.images]
    model = loaded.model()
    options = Likelihood.Options(
        steps=args.steps, probes=args.probes, tolerance=1e9, condition="unconditional"
    )
    detector = Likelihood(options, seed=0, sampling={"steps": 1, "guidance": 1.0})
    points = model.encode(np.stack([planted[i].condition.image for i in rows]))
    names = [f"{half}/{i}/{k}" for i in rows for k in range(args.noises)]
    noise = model.noise([(name, 0) for name in names], 0)
    noised = points.repeat_interleave(args.noises, dim=0) + epsilon * noise
    told = detector.told(model, [Condition(name) for name in names])
    log_p = detector.log_p(model, noised, told, names).view(len(rows), args.noises).numpy()
    size = points[0].numel()
    each = pointwise_divergence(log_p, epsilon, size)
    of_set, error = memorization_divergence(
        points.flatten(1).numpy(),
        noised.view(len(rows), args.noises, size).numpy(),
        log_p,
        epsilon,
    )
    return {
        "rung": rung,
        "half": half,
        "model": "own" if asked == half else "mirror",
        "kind": kind,
        "epsilon": epsilon,
        "images": len(rows),
        "pointwise": float(each.mean()),
        "set": of_set,
        "error": error,
    }


def asked(args: argparse.Namespace, loaded: Mapping[str, LoadedTask]) -> dict[str, object]:
    """What rows must agree in to stand in one table, beside rung, kind and epsilon."""
    weights = ",".join(str(loaded[half].hashes["weights"])[:8] for half in HALVES)
    return {name: getattr(args, name) for name in ("noises", "steps", "probes")} | {
        "most": args.images,
        "weights": weights,
    }


def kept(found: Sequence[Mapping[str, object]], settings: Mapping[str, object]) -> set[tuple]:
    """Rung, half, model, kind and epsilon of the rows that were measured so."""
    names = ("rung", "half", "model", "kind", "epsilon")
    same = (row for row in found if settings.items() <= row.items())
    return {tuple(row[name] for name in names) for row in same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rungs", default="1,3,5")
    parser.add_argument("--epsilons", default="0.02,0.05,0.1,0.2,0.5")
    parser.add_argument("--images", type=int, default=20, help="of a kind and half")
    parser.add_argument("--noises", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="of the flow")
    parser.add_argument("--probes", type=int, default=2)
    parser.add_argument("--model", default="", help="of real images; its training.json beside it")
    parser.add_argument("--mirror", default="", help="the same recipe on other images")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if bool(args.model) != bool(args.mirror):
        parser.error("--model and --mirror go together")
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "divergence.parquet"
    found = pd.read_parquet(file).to_dict("records") if file.exists() else []
    own: list[dict[str, object]] = []  # of these settings
    for rung in (int(r) for r in args.rungs.split(",")):
        loaded = models(rung, args)
        settings = asked(args, loaded)
        done = kept(found, settings)
        own += [row for row in found if settings.items() <= row.items() and row["rung"] == rung]
        for half in HALVES:
            for model, of in (("own", half), ("mirror", mirror_of(half))):
                for kind in KINDS:
                    for epsilon in (float(e) for e in args.epsilons.split(",")):
                        if (rung, half, model, kind, epsilon) not in done:
                            row = measured(rung, half, loaded[of], of, kind, epsilon, args)
                            found.append(row | settings)
                            own.append(found[-1])
                pd.DataFrame(found).to_parquet(file)
                print(f"rung {rung}, half {half}, {model}", flush=True)
    table = pd.DataFrame(own).pivot_table(
        index=["rung", "kind", "epsilon"], columns="model", values=["pointwise", "set"]
    )
    table.columns = [f"{value}, {model}" for value, model in table.columns]
    print(markdown(table.round(0).astype(int).reset_index().astype(str)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
