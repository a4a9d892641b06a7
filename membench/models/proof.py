"""What a loaded model has to show before anything is measured with it: that it runs,
stays finite, and heeds what it is told.

A file that is whole may still be another model's, or all zeros; then every score is the
same number, and no table says so. Two evaluations settle it. They are counted nowhere,
draw from no global generator and leave nothing behind in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError
from membench.models.autoencoder import means
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.loading import halvings, loading

# Of the largest value: what is the same but for the rounding of float32 is the same.
SAME = 2.0**-22
AGAIN = "get the model again"


def prove_vae(vae: Any, folder: Path) -> None:
    """Raises :class:`UserError` unless the round trip of two small images is finite and
    does not end in the same image twice.

    In half precision some VAEs overflow: those decode once more in float32 (latent.py),
    so they are asked in that, too.
    """
    side = 8 * halvings(vae.config)
    ramp = torch.linspace(-1, 1, side).expand(3, side, side)
    images = torch.stack([ramp, ramp.transpose(1, 2)]).to(vae.device)
    back = _round_trip(vae, images, folder)
    if not bool(back.isfinite().all()) and vae.dtype != torch.float32:
        kind = vae.dtype
        back = _round_trip(vae.float(), images, folder)
        vae.to(kind)  # half to single to half is exact
    if not bool(back.isfinite().all()):
        raise UserError(
            f"{folder} returns NaN or infinity for an image that it encodes and decodes; {AGAIN}"
        )
    if _same(back[0], back[1]):
        raise UserError(f"{folder} decodes different images to the same one; {AGAIN}")


def _round_trip(vae: Any, images: torch.Tensor, folder: Path) -> torch.Tensor:
    with loading(folder, "evaluated"), torch.no_grad():
        back = vae.decode(means(vae, images.to(vae.dtype))).sample
        if back.shape != images.shape:
            raise ValueError(f"images of {[*images.shape[1:]]} come back as {[*back.shape[1:]]}")
        return back.float()


def prove(model: Denoiser, where: Path, conditions: Sequence[Conditioning], how: str) -> None:
    """Raises :class:`UserError` unless predictions are finite, differ between two noises
    and, if two conditions are given, between these.

    One at a time: rows of one batch may round apart, the same row twice does not. Of the
    network's own output: eps made from a v of zeros would follow the noise.
    """
    asked = [(0, condition) for condition in conditions] + [(1, conditions[0])]
    t, found = model.steps // 2, []
    for noise, condition in asked:
        x = model.noise([("proof", noise)], 0)
        with loading(where, "evaluated"), torch.no_grad():
            found.append(model.raw_prediction(x, t, condition))
            if found[-1].shape != x.shape:
                raise ValueError(
                    f"noise of {[*x.shape[1:]]} becomes a prediction of {[*found[-1].shape[1:]]}"
                )
    if not all(bool(made.isfinite().all()) for made in found):
        raise UserError(
            f"{where} predicts NaN or infinity as {_name(model.dtype)}; {_way_out(model.dtype)}"
        )
    first, *others, of_noise = found
    for other, what in (*((of, how) for of in others), (of_noise, "whatever noise it is given")):
        if _same(first, other):
            raise UserError(
                f"{where} predicts the same {what}, so it cannot be asked what it has memorized;"
                f" {AGAIN}"
            )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a.float() - b.float()).abs().max()) <= SAME * float(
        torch.maximum(a.abs().max(), b.abs().max())
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _way_out(dtype: torch.dtype) -> str:
    return (
        AGAIN
        if dtype == torch.float32
        else "take --dtype float32 or bfloat16"
        if dtype == torch.float16
        else "take --dtype float32"
    )
