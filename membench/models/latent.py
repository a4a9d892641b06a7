"""Stable Diffusion behind the one door: text in, latents through the U-Net, images by
the VAE where somebody asks for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.config_fields import check_types
from membench.models.denoiser import Denoiser, from_uint8, same_size, to_uint8
from membench.models.loading import layout, load_network, loading, torch_dtype
from membench.models.proof import AGAIN, _name, _same, _way_out, prove, prove_vae
from membench.models.scheduler_config import read_scheduler
from membench.models.stable_diffusion_folder import (
    image_size,
    latent_size,
    part_config,
    part_weights,
    weight_files,
)
from membench.models.tokenizer_files import load_tokenizer
from membench.models.weight_files import check_header, check_tensors
from membench.types import Condition

ENCODE_BLOCK = 32  # prompts


# Through a VAE at once: 64 images of 64x64, on a GPU 8 of 512x512
PIXELS = {"cpu": 64 * 64 * 64, "cuda": 8 * 512 * 512}


class LatentDenoiser(Denoiser):
    """A StableDiffusionPipeline's U-Net, with its text encoder and, for detectors that
    decode, its VAE.

    pipeline: a :class:`TextToImage`, whose VAE is loaded when it is first asked for, or
    diffusers' own. Text embeddings are kept on the host, where those of 10,000 prompts
    (2.4 GB in float32 for Stable Diffusion 1) crowd out no batch.
    """

    takes_text = True

    def __init__(self, pipeline: Any, *, batch_size: int = 64) -> None:
        unet = pipeline.unet
        super().__init__(
            unet,
            pipeline.scheduler,
            shape=(unet.config.in_channels, *latent_size(unet.config.sample_size)),
            batch_size=batch_size,
        )
        self.tokenizer, self.text_encoder, self._pipeline = (
            pipeline.tokenizer,
            pipeline.text_encoder,
            pipeline,
        )
        # Then what it returns is laid out anew, so that sums over an image are made in
        # one order.
        self._channels_last = any(not p.is_contiguous() for p in unet.parameters())
        self._exact_vae: Any = None
        self._prompts: dict[str, torch.Tensor] = {}
        # [1, tokens, d] on the device: every step of every image asks for it
        self._null: torch.Tensor | None = None
        # Prompts longer than the tokenizer's limit, cut as diffusers does
        self.truncated: set[str] = set()

    @property
    def vae(self) -> Any:
        return self._pipeline.vae

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        eps = self._run(x, t, condition.embeddings).sample
        return eps.contiguous() if self._channels_last else eps

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        """Text embeddings [n, tokens, d]; each distinct prompt is encoded once.

        The null condition is the empty prompt.
        """
        with torch.no_grad():
            prompts = [c.prompt or "" for c in conditions]
            if not prompts:
                return Conditioning(None)
            self._encode_new(prompts)
            if any(prompts):
                return Conditioning(
                    torch.stack([self._prompts[p] for p in prompts]).to(self.device)
                )
            if self._null is None:
                self._null = self._prompts[""][None].to(self.device)
            return Conditioning(self._null.repeat(len(prompts), 1, 1))

    def _encode_new(self, prompts: Sequence[str]) -> None:
        new = [p for p in dict.fromkeys(prompts) if p not in self._prompts]
        limit = self.tokenizer.model_max_length
        for start in range(0, len(new), ENCODE_BLOCK):
            block = new[start : start + ENCODE_BLOCK]
            lengths = [len(ids) for ids in self.tokenizer(block, truncation=False).input_ids]
            self.truncated.update(p for p, n in zip(block, lengths, strict=True) if n > limit)
            # Always ENCODE_BLOCK rows: the last bits of an embedding depend on the
            # shape of its batch.
            hidden = self.embed(block + [""] * (ENCODE_BLOCK - len(block)))
            self._prompts.update(zip(block, hidden[: len(block)].to("cpu", copy=True), strict=True))

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        """Text embeddings [n, tokens, d] of one batch of prompts, which nothing
        remembers.
        """
        limit = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=limit,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

    def token_counts(self, conditions: Sequence[Condition]) -> list[int]:
        limit = self.tokenizer.model_max_length
        found = self.tokenizer([c.prompt or "" for c in conditions], truncation=False).input_ids
        return [min(len(ids), limit) for ids in found]

    def ready_images(self) -> None:
        """Loads the VAE, so that one that does not do is refused before an image is
        generated for it.
        """
        _ = self.vae

    def decode(self, x: torch.Tensor) -> np.ndarray:
        """By the VAE; what overflows there in half precision once more in float32.

        Rows that stay NaN become NaN in ``x``, too.
        """
        with torch.no_grad():
            factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
            self.cost.decodes += len(x)
            return self.halving(
                "images",
                self._at_once(self.shape[1] * factor * self.shape[2] * factor),
                lambda n: self._decoded(x, n),
            )

    def _decoded(self, x: torch.Tensor, most: int) -> np.ndarray:
        images = []
        with self.refusals():
            for part in x.split(most):
                scaled = part / self.vae.config.scaling_factor
                out = self.vae.decode(scaled.to(self.dtype)).sample
                if len(bad := _not_finite(out)) and self.dtype != torch.float32:
                    self._exact_vae = self._exact_vae or copy.deepcopy(self.vae).float()
                    out = out.float()
                    out[bad] = self._exact_vae.decode(scaled[bad].float()).sample
                    bad = _not_finite(out)
                part[bad] = torch.nan  # a view: the caller sees which images have failed
                images.append(to_uint8(out))
        return np.concatenate(images)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """The mean of the VAE's posterior, scaled as the U-Net was trained."""
        with torch.no_grad():
            x = from_uint8(images).to(self.device, self.dtype)
            latents = self.halving(
                "images",
                self._at_once(images.shape[1] * images.shape[2]),
                lambda n: self._encoded(x, n),
            )
            same_size(images, tuple(latents.shape[1:]), self.shape)
            self.cost.encodes += len(images)
            return latents

    def _encoded(self, x: torch.Tensor, most: int) -> torch.Tensor:
        with self.refusals():
            return (
                torch.cat([self.vae.encode(p).latent_dist.mean.float() for p in x.split(most)])
                * self.vae.config.scaling_factor
            )

    def _at_once(self, pixels: int) -> int:
        """Images of so many pixels through the VAE at once: its activations are
        larger by far than the U-Net's.
        """
        return max(1, min(self.batch_size, PIXELS.get(self.device.type, PIXELS["cpu"]) // pixels))


def _not_finite(images: torch.Tensor) -> torch.Tensor:
    """Positions of the images [n, 3, h, w] that hold NaN or infinity."""
    return (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten()


@dataclass
class TextToImage:
    """The parts that a :class:`LatentDenoiser` needs. size: height and width in pixels
    of what it generates.
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    load_vae: Callable[[], Any]
    size: tuple[int, int]

    @cached_property
    def vae(self) -> Any:
        """Loaded when it is first asked for: a detector that neither decodes nor
        encodes does without. Raises :class:`UserError`.
        """
        return self.load_vae()


def load_text_to_image(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> TextToImage:
    """Loads U-Net, text encoder and tokenizer, and a DDIM scheduler made from the
    model's own configuration; the VAE when it is asked for.

    Any Stable Diffusion 1.x or 2.x. Its text embeddings are the text encoder's
    ``last_hidden_state``, as diffusers' own pipeline takes it (that Stable Diffusion 2
    uses the last but one layer of OpenCLIP is in its weights, which end there). Raises
    :class:`UserError`, naming the file, for another kind of pipeline, a missing part,
    damaged weights or shapes that do not fit.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch_dtype(dtype)  # refused before anything is read
    weight_files(folder)
    for file in _tensors(folder, "vae"):  # the rest of it when it is loaded
        check_header(file)
    check_types(folder / "vae" / "config.json", part_config(folder, "vae"), AutoencoderKL)
    unet = _load(folder, "unet", UNet2DConditionModel, device, dtype)
    text_encoder = _load(folder, "text_encoder", CLIPTextModel, device, dtype)
    widths, given = unet.config.cross_attention_dim, text_encoder.config.hidden_size
    if {*(widths if isinstance(widths, list | tuple) else (widths,))} != {given}:
        raise UserError(
            f"{folder}: the U-Net wants text embeddings of width {widths}, the text encoder gives"
            f" {given}"
        )
    words = text_encoder.config
    return TextToImage(
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(
            folder / "tokenizer", words.vocab_size, words.max_position_embeddings
        ),
        scheduler=read_scheduler(folder / "scheduler" / "scheduler_config.json", latent=True),
        load_vae=lambda: _load_vae(folder, device, dtype),
        size=image_size(folder),
    )


def _load_vae(folder: Path, device: str, dtype: str) -> Any:
    from diffusers import AutoencoderKL

    vae = _load(folder, "vae", AutoencoderKL, device, dtype)
    prove_vae(vae, folder / "vae")
    return vae


def _tensors(folder: Path, part: str) -> list[Path]:
    return [file for file in part_weights(folder, part).files if file.suffix == ".safetensors"]


def _load(folder: Path, part: str, loader: Any, device: str, dtype: str) -> Any:
    """The part on the device, in evaluation mode. Raises :class:`UserError`."""
    for file in _tensors(folder, part):
        check_tensors(file)
    kind = torch_dtype(dtype)
    variant = part_weights(folder, part).variant or None
    try:
        model = load_network(
            folder / part,
            loader,
            part_config(folder, part),
            torch_dtype=kind,
            use_safetensors=True,
            variant=variant,
        )
        model = model.to(torch.device(device)).eval().requires_grad_(False)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{folder / part} does not fit on {device} as {dtype}: take a smaller --dtype, or"
            " another device"
        ) from None
    return model if part == "text_encoder" else model.to(memory_format=layout(device, kind))


PROMPTS = ("a red circle", "two blue boats")


def prove_text(model: LatentDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless two prompts have different embeddings, and
    predictions that are finite and differ.
    """
    with loading(folder / "text_encoder", "evaluated"), torch.no_grad():
        embeddings = model.embed(PROMPTS)
    if not bool(embeddings.isfinite().all()):
        raise UserError(
            f"{folder / 'text_encoder'} returns NaN or infinity as {_name(model.dtype)};"
            f" {_way_out(model.dtype)}"
        )
    if _same(embeddings[0], embeddings[1]):
        raise UserError(
            f"{folder / 'text_encoder'} makes the same embedding of {PROMPTS[0]!r} and"
            f" {PROMPTS[1]!r}, so no prompt could be told from another; {AGAIN}"
        )
    conditions = [Conditioning(row[None].to(model.device)) for row in embeddings]
    prove(
        model, folder / "unet", conditions, f"whether it is told {PROMPTS[0]!r} or {PROMPTS[1]!r}"
    )


def load_model(folder: Path, device: str, dtype: str, batch_size: int) -> Denoiser:
    model = LatentDenoiser(
        load_text_to_image(folder, device=device, dtype=dtype), batch_size=batch_size
    )
    prove_text(model, folder)
    return model
