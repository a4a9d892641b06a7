"""DDIM from the formulas, and the grid of schedules on which membench's is compared
with it.

``python tests/schedules.py`` runs the whole grid and prints how many are equal and how
many refused. Nothing here calls a scheduler of diffusers: betas, timesteps and steps
are written from the papers in double precision. What a network is given and returns is
single precision, on both sides.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim, timesteps
from membench.models.scheduler_config import read_scheduler

SHAPE = (2, 3, 2)
LIMITS: tuple[dict[str, Any], ...] = (
    {"clip_sample": False},
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 2.0},
    {"thresholding": True, "clip_sample": False},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.4},
)
BETAS: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": True},
)
STEPS = {4: (1, 3, 4), 10: (6, 10), 100: (7, 60), 1000: (1, 10, 61)}


def grid() -> Iterator[dict[str, Any]]:
    """Every combination: the fields of a scheduler_config.json, and ``steps``,
    ``latent``, ``guided`` of the sampling.
    """
    fields = (
        [
            {"num_train_timesteps": total, "steps": n}
            for total, steps in STEPS.items()
            for n in steps
        ],
        [{"timestep_spacing": s} for s in ("leading", "trailing", "linspace")],
        [
            {"steps_offset": 0, "set_alpha_to_one": True},
            {"steps_offset": 1, "set_alpha_to_one": False},
        ],
        LIMITS,
        [{"rescale_betas_zero_snr": zero} for zero in (False, True)],
        [{"prediction_type": kind} for kind in ("epsilon", "v_prediction", "sample")],
        BETAS,
        [
            {"latent": False, "guided": False},
            {"latent": False, "guided": True},
            {"latent": True, "guided": False},
        ],
    )
    for parts in itertools.product(*fields):
        yield {key: value for part in parts for key, value in part.items()}


# ------------------------------------------------------------------------- the formulas


def betas(c: dict[str, Any]) -> np.ndarray:
    total = c["num_train_timesteps"]
    if c.get("trained_betas"):
        found = np.asarray(trained(total))
    elif c["beta_schedule"] == "linear":
        found = np.linspace(c["beta_start"], c["beta_end"], total)
    elif c["beta_schedule"] == "scaled_linear":
        found = np.linspace(c["beta_start"] ** 0.5, c["beta_end"] ** 0.5, total) ** 2
    elif c["beta_schedule"] == "sigmoid":
        found = c["beta_start"] + (c["beta_end"] - c["beta_start"]) / (
            1 + np.exp(-np.linspace(-6, 6, total))
        )
    else:  # Nichol and Dhariwal 2021, equation 17
        bar = np.cos((np.arange(total + 1) / total + 0.008) / 1.008 * np.pi / 2) ** 2
        found = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    if c.get("rescale_betas_zero_snr"):  # Lin et al. 2023, algorithm 1
        root = np.sqrt(np.cumprod(1 - found))
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        found = 1 - np.concatenate([root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2])
    return found


def trained(total: int) -> list[float]:
    """Betas that no formula of a scheduler gives."""
    return [0.002 + 0.02 * (k / total) ** 2 + 0.001 * (k % 2) for k in range(total)]


def positions(c: dict[str, Any]) -> list[Fraction]:
    """Lin et al. 2023, table 2, before rounding.

    Leading spacing is whole from the start.
    """
    total, n = c["num_train_timesteps"], c["steps"]
    if c["timestep_spacing"] == "leading":
        up = [Fraction(k * (total // n) + c["steps_offset"]) for k in range(n)]
    elif c["timestep_spacing"] == "trailing":
        up = [total - k * Fraction(total, n) - 1 for k in reversed(range(n))]
    else:
        up = [k * Fraction(total - 1, max(n - 1, 1)) for k in range(n)]
    return up[::-1]


def rounded(times: list[int], c: dict[str, Any]) -> bool:
    """Whether these are the positions, rounded.

    Of two neighbours of a half either may be taken: diffusers rounds floats.
    """
    wanted = positions(c)
    return len(times) == len(wanted) and all(
        abs(t - p) <= Fraction(1, 2) for t, p in zip(times, wanted, strict=True)
    )


def refusal(c: dict[str, Any]) -> str:
    """The field that a refusal has to name, "" where the schedule can be followed."""
    if c["prediction_type"] == "epsilon" and c["rescale_betas_zero_snr"]:
        return "rescale_betas_zero_snr"
    total, n, first = c["num_train_timesteps"], c["steps"], positions(c)[0]
    if first > total - 1:
        return "steps_offset"
    few = min(2 * total / n, total / 2)  # spacings below T that few steps may begin
    return "" if total - 1 - first <= max(few, total / 10) else "timestep_spacing"


def limit(x0: np.ndarray, c: dict[str, Any]) -> np.ndarray:
    if c.get("thresholding"):
        out = np.empty_like(x0)
        for i, image in enumerate(x0):
            s = np.quantile(np.abs(image), c.get("dynamic_thresholding_ratio", 0.995))
            s = min(max(s, 1.0), c.get("sample_max_value", 1.0))
            out[i] = np.clip(image, -s, s) / s
        return out
    if c.get("clip_sample"):
        r = c.get("clip_sample_range", 1.0)
        return np.clip(x0, -r, r)
    return x0


Predict = Callable[[np.ndarray, float, float], np.ndarray]


def slow_ddim(
    x: np.ndarray,
    times: list[int],
    abar: np.ndarray,
    c: dict[str, Any],
    network: Predict,
    guide: Predict | None = None,
) -> np.ndarray:
    """Song et al. 2021, equation 12 with eta = 0. abar: the table; x [n, *shape]: what
    sampling starts from.
    """
    for k, t in enumerate(times):
        a, s = math.sqrt(abar[t]), math.sqrt(1 - abar[t])
        if k + 1 < len(times):
            bar = abar[times[k + 1]]
        else:
            bar = 1.0 if c["set_alpha_to_one"] else abar[0]
        raw = network(x, a, s)
        if c["prediction_type"] == "v_prediction":
            x0, eps = a * x - s * raw, a * raw + s * x
        elif c["prediction_type"] == "sample":
            x0, eps = raw, (x - a * raw) / s
        else:
            x0, eps = (x - s * raw) / a, raw
        if guide is not None and a > 0:
            eps = single(single(eps) - single(guide(x, a, s)))
            x0 = limit((x - s * eps) / a, c)
            eps = (x - a * x0) / s
        else:
            x0 = limit(x0, c)
        x = single(math.sqrt(bar) * x0 + math.sqrt(1 - bar) * eps)
    return x


def single(x: np.ndarray) -> np.ndarray:
    """Rounded to single precision."""
    return x.astype(np.float32).astype(np.float64)


# --------------------------------------------------------------------- the same network


MEANS, STDS = (np.linspace(lo, hi, 12).reshape(SHAPE) for lo, hi in ((-1.6, 1.5), (0.2, 0.9)))


def gaussian(kind: str) -> Predict:
    """The exact prediction for data N(MEANS, STDS^2), some of which lie outside [-1,
    1].
    """

    def predict(x: np.ndarray, a: float, s: float) -> np.ndarray:
        eps = s * (x - a * MEANS) / (a**2 * STDS**2 + s**2)
        x0 = MEANS + a * STDS**2 * (x - a * MEANS) / (a**2 * STDS**2 + s**2)
        return single({"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[kind])

    return predict


def push(x: np.ndarray, a: float, s: float) -> np.ndarray:
    """What guidance takes from eps: bounded, and other for each pixel."""
    return 0.2 * a * s * np.tanh(x - MEANS[::-1])


class Analytic(Denoiser):
    """membench's own door to the same network."""

    def __init__(self, scheduler: Any, predict: Predict) -> None:
        super().__init__(torch.nn.Linear(1, 1), scheduler, shape=SHAPE)
        self.predict = predict

    def _forward(self, x: torch.Tensor, t: Any, condition: Conditioning) -> torch.Tensor:
        return torch.from_numpy(self.predict(x.double().numpy(), *self.alpha_sigma(int(t)))).float()

    def condition(self, conditions: Any) -> Conditioning:
        return Conditioning(None)


@dataclass(frozen=True)
class Outcome:
    """error: largest difference of any pixel from the formulas; None where membench
    refused, in the words of ``refused``.
    """

    error: float | None
    refused: str = ""


def config(c: dict[str, Any]) -> dict[str, Any]:
    """The scheduler_config.json of a combination."""
    found = {k: v for k, v in c.items() if k not in ("steps", "latent", "guided")} | {
        "_class_name": "DDIMScheduler"
    }
    if c.get("trained_betas"):
        found["trained_betas"] = trained(c["num_train_timesteps"])
    return found


def compare(c: dict[str, Any], file: Path) -> Outcome:
    """Both samplers on one combination, which is written to ``file``."""
    file.write_text(json.dumps(config(c)))
    start = np.random.default_rng(5).standard_normal((3, *SHAPE)).astype(np.float32)
    predict = gaussian(c["prediction_type"])
    try:
        model = Analytic(read_scheduler(file, latent=c["latent"]), predict)

        def correct(x: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
            pushed = push(x.double().numpy(), *model.alpha_sigma(t))
            return eps - torch.from_numpy(pushed).float()

        got = ddim(
            model,
            torch.from_numpy(start),
            model.condition([]),
            steps=c["steps"],
            guidance=1.0,
            correct=correct if c["guided"] else None,
        )
    except UserError as error:
        return Outcome(None, str(error))
    times = timesteps(model, c["steps"])
    if not rounded(times, c):
        return Outcome(math.inf)
    table = model.alphas_cumprod.numpy()
    wanted = slow_ddim(
        start.astype(np.float64), times, table, c, predict, push if c["guided"] else None
    )
    return Outcome(float(np.abs(got.numpy() - wanted).max()))


def followed(c: dict[str, Any]) -> dict[str, Any]:
    """The combination as a loader takes it: of latents, as StableDiffusionPipeline
    corrects them.
    """
    return c | ({"clip_sample": False, "steps_offset": 1} if c["latent"] else {})


def main() -> None:
    counts: Counter[str] = Counter()
    worst, wrong = 0.0, []
    with TemporaryDirectory() as folder:
        for c in grid():
            wanted = followed(c)
            found, field = compare(wanted, Path(folder) / "scheduler_config.json"), refusal(wanted)
            if found.error is None:
                counts[
                    f"refused for {field}"
                    if field and field in found.refused
                    else "refused for no reason"
                ] += 1
            elif found.error <= 1e-5 and not field:
                counts["equal"] += 1
                worst = max(worst, found.error)
            else:
                counts["DIFFERENT"] += 1
                wrong.append((found, c))
    print(
        f"{sum(counts.values()):,} combinations: "
        + ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
    )
    print(f"largest difference of the equal ones: {worst:.1e}")
    for found, c in wrong[:10]:
        print(found, c)


if __name__ == "__main__":
    main()
