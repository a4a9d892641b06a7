"""What a loaded model has to show before anything is measured with it: that it runs, stays finite, and heeds what it is told.

A file that is whole may still be another model's, or all zeros; then every score is the same number, and no table says so. Two
evaluations settle it. They are counted nowhere, draw from no global generator and leave nothing behind in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from membench.denoiser import Conditioning, Denoiser, PixelDenoiser
from membench.errors import UserError
from membench.loading import loading

if TYPE_CHECKING:
    from membench.latent_denoiser import LatentDenoiser

PROMPTS = ("a red circle", "two blue boats")
# Of the largest value: what is the same but for the rounding of float32 is the same.
SAME = 2.0**-22
AGAIN = "get the model again"


def prove_text(model: LatentDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless two prompts have different embeddings, and predictions that are finite and differ."""
    with loading(folder / "text_encoder", "evaluated"), torch.no_grad():
        embeddings = model.embed(PROMPTS)
    if not bool(embeddings.isfinite().all()):
        raise UserError(f"{folder / 'text_encoder'} returns NaN or infinity as {_name(model.dtype)}; {_way_out(model.dtype)}")
    if _same(embeddings[0], embeddings[1]):
        raise UserError(
            f"{folder / 'text_encoder'} makes the same embedding of {PROMPTS[0]!r} and {PROMPTS[1]!r}, "
            f"so no prompt could be told from another; {AGAIN}"
        )
    conditions = [Conditioning(row[None].to(model.device)) for row in embeddings]
    _prove(model, folder / "unet", conditions, f"whether it is told {PROMPTS[0]!r} or {PROMPTS[1]!r}")


def prove_pixels(model: PixelDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless predictions are finite and differ between two classes, or, without classes, two noises."""
    if not model.classes:
        return _prove(model, folder, [Conditioning(None)] * 2, "whatever noise it is given", noises=2)
    told = [0, min(1, model.classes - 1 + model.has_null)]  # of one class alone, the null class beside it
    conditions = [Conditioning(torch.tensor([label], device=model.device)) for label in told]
    noises = 1 if told[0] != told[1] else 2
    return _prove(model, folder, conditions, f"whether it is told class {told[0]} or {told[1]}", noises=noises)


def prove_vae(vae: Any, folder: Path) -> None:
    """Raises :class:`UserError` unless the round trip of two small images is finite and does not end in the same image twice.

    In half precision some VAEs overflow: those decode once more in float32 (latent_denoiser.py), so they are asked in that, too.
    """
    side = 8 * 2 ** (len(vae.config.block_out_channels) - 1)
    ramp = torch.linspace(-1, 1, side).expand(3, side, side)
    images = torch.stack([ramp, ramp.transpose(1, 2)]).to(vae.device)
    back = _round_trip(vae, images, folder)
    if not bool(back.isfinite().all()) and vae.dtype != torch.float32:
        kind = vae.dtype
        back = _round_trip(vae.float(), images, folder)
        vae.to(kind)  # half to single to half is exact
    if not bool(back.isfinite().all()):
        raise UserError(f"{folder} returns NaN or infinity for an image that it encodes and decodes; {AGAIN}")
    if _same(back[0], back[1]):
        raise UserError(f"{folder} decodes different images to the same one; {AGAIN}")


def _round_trip(vae: Any, images: torch.Tensor, folder: Path) -> torch.Tensor:
    with loading(folder, "evaluated"), torch.no_grad():
        back = vae.decode(vae.encode(images.to(vae.dtype)).latent_dist.mean).sample
        if back.shape != images.shape:
            raise ValueError(f"images of {[*images.shape[1:]]} come back as {[*back.shape[1:]]}")
        return back.float()


def _prove(model: Denoiser, where: Path, conditions: Sequence[Conditioning], how: str, *, noises: int = 1) -> None:
    """One at a time: rows of one batch may round apart, the same row twice does not."""
    t, found = model.steps // 2, []
    for i, condition in enumerate(conditions):
        x = model.noise([("proof", min(i, noises - 1))], 0)
        with loading(where, "evaluated"), torch.no_grad():
            found.append(model.raw_eps(x, t, condition))
            if found[-1].shape != x.shape:
                raise ValueError(f"noise of {[*x.shape[1:]]} becomes a prediction of {[*found[-1].shape[1:]]}")
    if not all(bool(eps.isfinite().all()) for eps in found):
        raise UserError(f"{where} predicts NaN or infinity as {_name(model.dtype)}; {_way_out(model.dtype)}")
    if _same(*found):
        raise UserError(f"{where} predicts the same {how}, so it cannot be asked what it has memorized; {AGAIN}")


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a.float() - b.float()).abs().max()) <= SAME * float(torch.maximum(a.abs().max(), b.abs().max()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _way_out(dtype: torch.dtype) -> str:
    return AGAIN if dtype == torch.float32 else "take --dtype float32 or bfloat16" if dtype == torch.float16 else "take --dtype float32"
