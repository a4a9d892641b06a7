"""Stable Diffusion behind the one door: text in, latents through the U-Net, images by
the VAE where somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError
from membench.models.adapters import add_loras, add_words
from membench.models.autoencoder import LatentStates
from membench.models.changes import NONE, Changes, read_part
from membench.models.conditioning import Conditioning
from membench.models.config_fields import check_types
from membench.models.denoiser import Denoiser
from membench.models.loading import halvings, layout, load_network, loading, torch_dtype
from membench.models.part_files import tensor_files
from membench.models.pipeline_kinds import SD, XL, Kind, check_kind
from membench.models.proof import AGAIN, _name, _same, _way_out, prove, prove_vae
from membench.models.scheduler_config import read_scheduler
from membench.models.stable_diffusion_folder import (
    image_size,
    latent_size,
    weight_files,
    zero_null,
)
from membench.models.text_encoding import TextEncoding
from membench.models.tokenizer_files import load_tokenizer
from membench.models.weight_files import check_header, check_tensors
from membench.types import Condition


class LatentDenoiser(LatentStates):
    """The U-Net of a StableDiffusionPipeline or a StableDiffusionXLPipeline, with its
    text encoders and, for detectors that decode, its VAE.

    pipeline: a :class:`TextToImage`, whose VAE is loaded when it is first asked for, or
    diffusers' own. XL is told that its image has the model's own size and is not
    cropped, as its pipeline does by default.
    """

    takes_text = True

    def __init__(self, pipeline: Any, *, batch_size: int = 64) -> None:
        unet = pipeline.unet
        super().__init__(
            unet,
            pipeline.scheduler,
            shape=(unet.config.in_channels, *latent_size(unet.config)),
            batch_size=batch_size,
        )
        self.pipeline = pipeline
        kind = SD if getattr(pipeline, "text_encoder_2", None) is None else XL
        self.text = TextEncoding(
            [getattr(pipeline, name) for name in kind.encoders],
            [getattr(pipeline, name) for name in kind.tokenizers],
            zero_null=kind is XL and pipeline.config["force_zeros_for_empty_prompt"],
        )
        self.tokenizer = pipeline.tokenizer
        # Then what it returns is laid out anew, so that sums over an image are made in
        # one order.
        self._channels_last = any(not p.is_contiguous() for p in unet.parameters())
        # One row on the device: every step of every image asks for it
        self._null: Conditioning | None = None
        # Original size, upper left corner of the crop, size: height and width of each
        self.sizes = (*self.pixels(), 0, 0, *self.pixels()) if kind is XL else ()

    def pixels(self) -> tuple[int, int]:
        """Height and width of its images."""
        if isinstance(self.pipeline, TextToImage):
            return self.pipeline.size
        factor = halvings(self.pipeline.vae.config)
        return self.shape[1] * factor, self.shape[2] * factor

    @property
    def vae(self) -> Any:
        return self.pipeline.vae

    @property
    def truncated(self) -> set[str]:
        """Prompts longer than the tokenizer's limit."""
        return self.text.truncated

    def _forward(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Conditioning
    ) -> torch.Tensor:
        if condition.pooled is None:
            eps = self._run(x, t, condition.embeddings).sample
        else:
            # Whole numbers up to 4096, which half precision cannot hold: the network
            # embeds them in float32.
            sizes = torch.tensor(self.sizes, dtype=torch.float32, device=x.device)
            told = {"text_embeds": condition.pooled, "time_ids": sizes.expand(len(x), -1)}
            eps = self._run(x, t, condition.embeddings, added_cond_kwargs=told).sample
        return eps.contiguous() if self._channels_last else eps

    def condition(self, conditions: Sequence[Condition]) -> Conditioning:
        """Text embeddings [n, tokens, d]; each distinct prompt is encoded once.

        The null condition is the empty prompt.
        """
        with torch.no_grad():
            prompts = [c.prompt or "" for c in conditions]
            if not prompts:
                return Conditioning(None)
            if any(prompts):
                return self.text(prompts).to(self.device)
            if self._null is None:
                self._null = self.text([""]).to(self.device)
            return self._null.tile(len(prompts))

    def token_counts(self, conditions: Sequence[Condition]) -> list[int]:
        limit = self.tokenizer.model_max_length
        return [min(n, limit) for n in self.text.lengths([c.prompt or "" for c in conditions])]


@dataclass
class TextToImage:
    """The parts that a :class:`LatentDenoiser` needs. size: height and width in pixels
    of what it generates. text_encoder_2, tokenizer_2: of Stable Diffusion XL, else None.
    config: what its model_index.json would say.
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    load_vae: Callable[[], Any]
    size: tuple[int, int]
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    config: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def vae(self) -> Any:
        """Loaded when it is first asked for: a detector that neither decodes nor
        encodes does without. Raises :class:`UserError`.
        """
        return self.load_vae()


def load_text_to_image(
    folder: Path, *, device: str = "cpu", dtype: str = "float32", changes: Changes = NONE
) -> TextToImage:
    """Loads U-Net, text encoders and tokenizers, and a DDIM scheduler made from the
    model's own configuration; the VAE when it is asked for.

    Any Stable Diffusion 1.x, 2.x or XL, with what is laid over it. The text embeddings
    of 1.x and 2.x are the text encoder's ``last_hidden_state``, as diffusers' own
    pipeline takes it (that Stable Diffusion 2 uses the last but one layer of OpenCLIP
    is in its weights, which end there). Raises :class:`UserError`, naming the file, for
    another kind of pipeline, a missing part, damaged weights or shapes that do not fit.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch_dtype(dtype)  # refused before anything is read
    weight_files(folder, changes)
    kind = check_kind(folder, changes)
    vae = folder / "vae"
    for file in tensor_files(changes.weights(folder, "vae")):
        check_header(file)  # the rest of it when it is loaded
    check_types(vae / "config.json", read_part(folder, "vae"), AutoencoderKL)
    # A change is made in float32: in half precision it would be rounded twice
    first = ("cpu", "float32") if changes.loras else (device, dtype)
    networks = {"unet": _load(folder, "unet", UNet2DConditionModel, *first, changes)}
    loaders = (CLIPTextModel, CLIPTextModelWithProjection)
    for name, loader in zip(kind.encoders, loaders, strict=False):
        networks[name] = _load(folder, name, loader, *first, changes)
    encoders = [networks[name] for name in kind.encoders]
    _check_widths(folder, networks["unet"], encoders)
    tokenizers = [
        load_tokenizer(
            folder / name, encoder.config.vocab_size, encoder.config.max_position_embeddings
        )
        for name, encoder in zip(kind.tokenizers, encoders, strict=True)
    ]
    if changes.loras:
        add_loras(networks, changes.loras, folder)
        for name, network in networks.items():  # in place
            with loading(folder / name):
                network.to(torch_dtype(dtype))
            _placed(network, name, device, dtype)
    add_words(encoders, tokenizers, changes.words, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    second: dict[str, Any] = {}
    if kind is XL:
        one, two = (tokenizer.model_max_length for tokenizer in tokenizers)
        if one != two:
            raise UserError(
                f"{folder}: its tokenizers cut prompts to {one} and {two} tokens, but the two text"
                " encoders' embeddings stand side by side; get the tokenizers again"
            )
        second = {"text_encoder_2": encoders[1], "tokenizer_2": tokenizers[1]}
    return TextToImage(
        unet=networks["unet"],
        text_encoder=networks["text_encoder"],
        tokenizer=tokenizers[0],
        scheduler=read_scheduler(file, latent=kind is SD),
        load_vae=lambda: _load_vae(folder, kind, device, dtype, changes),
        size=image_size(folder, changes),
        config={"force_zeros_for_empty_prompt": zero_null(folder)},
        **second,
    )


def _check_widths(folder: Path, unet: Any, encoders: Sequence[Any]) -> None:
    widths = unet.config.cross_attention_dim
    given = sum(encoder.config.hidden_size for encoder in encoders)
    if {*(widths if isinstance(widths, list | tuple) else (widths,))} != {given}:
        one = len(encoders) == 1
        raise UserError(
            f"{folder}: the U-Net wants text embeddings of width {widths}, the text"
            f" encoder{'' if one else 's'} give{'s' if one else ''} {given}"
        )


def _load_vae(folder: Path, kind: Kind, device: str, dtype: str, changes: Changes) -> Any:
    """force_upcast: the VAE of Stable Diffusion XL overflows in float16, and its own
    pipeline decodes in float32 where the file says so.
    """
    from diffusers import AutoencoderKL

    upcast = kind is XL and dtype == "float16" and read_part(folder, "vae").get("force_upcast")
    vae = _load(folder, "vae", AutoencoderKL, device, "float32" if upcast else dtype, changes)
    prove_vae(vae, folder / "vae")
    return vae


def _load(
    folder: Path, part: str, loader: Any, device: str, dtype: str, changes: Changes = NONE
) -> Any:
    """The part on the device, in evaluation mode. Raises :class:`UserError`."""
    place = changes.place(folder, part)
    weights = changes.weights(folder, part)
    for file in tensor_files(weights):
        check_tensors(file)
    model = load_network(
        place,
        loader,
        read_part(folder, part, changes),
        torch_dtype=torch_dtype(dtype),
        use_safetensors=True,
        variant=weights.variant or None,
    )
    try:
        return _placed(model, part, device, dtype)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{place} does not fit on {device} as {dtype}: take a smaller --dtype, or"
            " another device"
        ) from None


def _placed(model: Any, part: str, device: str, dtype: str) -> Any:
    kind = torch_dtype(dtype)
    model = model.to(torch.device(device)).eval().requires_grad_(False)
    text = part.startswith("text_encoder")
    return model if text else model.to(memory_format=layout(device, kind))


PROMPTS = ("a red circle", "two blue boats")


def prove_text(model: LatentDenoiser, folder: Path) -> None:
    """Raises :class:`UserError` unless two prompts have different embeddings, and
    predictions that are finite and differ.
    """
    with loading(folder / "text_encoder", "evaluated"), torch.no_grad():
        told = model.text.embed(PROMPTS)
    for part in (told.embeddings, told.pooled):
        if part is None:
            continue
        if not bool(part.isfinite().all()):
            raise UserError(
                f"{folder / 'text_encoder'} returns NaN or infinity as {_name(model.dtype)};"
                f" {_way_out(model.dtype)}"
            )
        if _same(part[0], part[1]):
            raise UserError(
                f"{folder / 'text_encoder'} makes the same embedding of {PROMPTS[0]!r} and"
                f" {PROMPTS[1]!r}, so no prompt could be told from another; {AGAIN}"
            )
    conditions = [told[slice(i, i + 1)].to(model.device) for i in range(len(PROMPTS))]
    prove(
        model, folder / "unet", conditions, f"whether it is told {PROMPTS[0]!r} or {PROMPTS[1]!r}"
    )


def load_model(
    folder: Path, device: str, dtype: str, batch_size: int, changes: Changes = NONE
) -> Denoiser:
    model = LatentDenoiser(
        load_text_to_image(folder, device=device, dtype=dtype, changes=changes),
        batch_size=batch_size,
    )
    prove_text(model, folder)
    return model
