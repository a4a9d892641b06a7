"""What a score costs: each prompt-level detector on mini sd_webster with its defaults,
then all of them in one command.

    python benchmarks/detectors.py [--limit 128] [--bundle 4] [--batch-size 64]

Counts and times are per scored example; where a detector scores by its own images,
drawing them is in. The last column is the time over that of one forward of the bare
network, so that machines compare. Each detector runs alone, then all together: what
that takes stands over the slowest alone. normal_bundle (4 D forwards an image) runs on
a few examples only and not with the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from membench.models.denoiser import Denoiser
from membench.models.derivative import choose, quadratic_forms
from membench.models.trace import random_probes
from membench.runs.execute import execute_all
from membench.runs.finished import Run, per_example, spent
from membench.runs.spec import Spec
from membench.tasks.sd_webster.task import SdWebster
from membench.tasks.sd_webster.world import training_images_of
from membench.types import Condition

DETECTORS = ("random", "cfg_norm", "score_norm", "flipd", "dcs", "edge", "png_size")
PHASES = ("samples", "scores")
PROBES = 4  # flipd's default


def fastest(acts: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each act, the least of ``repeats`` turns: in turns, so that a busy
    machine slows them alike.
    """
    found = dict.fromkeys(acts, float("inf"))
    for turn in range(repeats + 1):
        for name, act in acts.items():
            start = time.perf_counter()
            act()
            if turn:  # the first turn warms up
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def evaluations(model: Denoiser, n: int, repeats: int) -> tuple[float, dict[str, float]]:
    """Seconds of the bare network an image, and times of ``n`` derivatives over those
    of ``n`` forwards of the same batch.
    """
    names = [str(k) for k in range(n)]
    x, t = model.noise([(name, 0) for name in names], 0), model.timestep(0.3)
    told = model.condition([Condition("x", "Orvella Basto teal striped area rug, 5x8")] * n)

    def forms(count: int, how: Literal["jvp", "difference"]) -> Callable[[], object]:
        vectors = random_probes(model.shape, names, 0, count, "rademacher")
        return lambda: quadratic_forms(model, x, t, told, vectors, count, how)

    @torch.no_grad()
    def bare() -> None:
        model.network(x, t, told.embeddings)

    acts: dict[str, Callable[[], object]] = {
        "bare": bare,
        "forward": lambda: model.eps(x, t, told),
        "difference": forms(1, "difference"),
    }
    if choose(model, "auto") == "jvp":
        acts |= {"jvp": forms(1, "jvp"), "jvps": forms(PROBES, "jvp")}
    seconds = fastest(acts, repeats)
    ratios: dict[str, float] = {
        name: seconds[name] / seconds["forward"]
        for name in ("jvp", "jvps", "difference")
        if name in seconds
    }
    return seconds["bare"] / n, ratios


def timed(specs: list[Spec]) -> tuple[list[Run], float]:
    """Runs in a temporary folder, and the seconds that all of it took."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        return execute_all(specs, Path(out), progress=False).runs, time.perf_counter() - start


def evaluating(runs: list[Run]) -> float:
    """Seconds really spent in generating images and scoring, each shared evaluation
    once.
    """
    phases = [run.info["phases"].get(phase, {}) for run in runs for phase in PHASES]
    return sum(cost.get("seconds", 0.0) - cost.get("shared_seconds", 0.0) for cost in phases)


def row(run: Run, bare: float, mark: str = "") -> str:
    n, phases = len(run.scores), PHASES if run.info["access"]["images"] else ("scores",)
    each = sum(run.info["phases"].get(phase, {}).get("seconds", 0.0) for phase in phases) / n
    forwards, jvps, decodes = (per_example(run, what) for what in ("forwards", "jvps", "decodes"))
    cells = (
        f"{forwards:>9,.0f}{jvps:>6,.0f}{decodes:>9,.0f}{1e3 * each:>10,.1f}{each / bare:>10,.1f}"
    )
    return f"{run.info['detector'] + mark:<16}{n:>9}{cells}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--bundle", type=int, default=4, help="examples of normal_bundle")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="of the timed evaluations")
    args = parser.parse_args()
    training_images_of()  # drawn once a process: the first detector must not pay for all
    model = SdWebster().load("mini", batch_size=args.batch_size).model()
    bare, ratios = evaluations(model, args.batch_size, args.repeats)
    print(
        f"one forward of the bare network: {1e3 * bare:.3f} ms an image in batches of"
        f" {args.batch_size}"
    )
    if "jvp" in ratios:
        print(
            f"v'Jv by one JVP, eps with it: {ratios['jvp']:.2f} forwards; by {PROBES} JVPs at once:"
            f" {ratios['jvps'] / PROBES:.2f} each"
        )
    print(f"v'Jv by a central difference, with eps: {ratios['difference']:.2f} forwards\n")

    print(
        f"{'detector':<16}{'examples':>9}{'forwards':>9}{'JVPs':>6}"
        f"{'decodes':>9}{'ms':>10}{'in fwd':>10}"
    )
    specs = [
        Spec(name, "sd_webster", limit=args.limit, batch_size=args.batch_size) for name in DETECTORS
    ]
    alone: dict[str, tuple[float, float]] = {}
    for spec in specs:
        [run], wall = timed([spec])
        alone[spec.detector] = (evaluating([run]), wall)
        print(row(run, bare), flush=True)
    [run], _ = timed(
        [Spec("normal_bundle", "sd_webster", limit=args.bundle, batch_size=args.batch_size)]
    )
    print(row(run, bare, " *"))
    print(f"* on {args.bundle} examples, not with the others\n", flush=True)

    runs, wall = timed(specs)
    asked, shared = (sum(spent(run, what) for run in runs) for what in ("forwards", "shared"))
    print(
        f"{len(runs)} detectors in one command: {asked:,} forwards asked for, {shared:,}"
        f" ({100 * shared / asked:.0f} %) shared"
    )
    for what, together, each in (
        (
            "images and scores",
            evaluating(runs),
            {name: seconds for name, (seconds, _) in alone.items()},
        ),
        ("whole command", wall, {name: seconds for name, (_, seconds) in alone.items()}),
    ):
        slowest = max(each, key=lambda name: each[name])
        over = f"{together / each[slowest]:.2f} x {slowest} ({each[slowest]:.1f} s)"
        print(
            f"{what}: {together:.1f} s, {over}, {together / sum(each.values()):.2f} x one after"
            f" another ({sum(each.values()):.1f} s)"
        )


if __name__ == "__main__":
    main()
