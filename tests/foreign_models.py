"""Tiny random models in the layouts that people have, and what diffusers' own pipelines
make of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT, save_tiny_pipeline
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from membench.models.changes import NONE, Changes
from membench.models.latent import LatentDenoiser, load_model
from membench.models.sampling import ddim
from membench.types import Condition

PROMPTS = ["a red mug", "two blue boats"]


def save_tiny_xl(folder: Path, *, seed: int = 0, pooled: int = 20, **index: Any) -> Path:
    """A StableDiffusionXLPipeline; pooled: width of the pooled caption; index: changes of
    its model_index.json.
    """
    torch.manual_seed(seed)
    words = CLIPTokenizer.from_pretrained(
        ROOT / "tasks" / "data" / "sd_webster" / "a" / "tokenizer"
    )
    settings = dict(
        vocab_size=len(words),
        intermediate_size=32,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    one = CLIPTextModel(CLIPTextConfig(hidden_size=16, num_hidden_layers=2, **settings))
    two = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=24, num_hidden_layers=2, projection_dim=pooled, **settings)
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=40,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + pooled,
    )
    StableDiffusionXLPipeline(
        vae=tiny_vae(scaling_factor=0.13025),
        text_encoder=one,
        text_encoder_2=two,
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    edit(folder / "model_index.json", **index)
    # The second pads with "!" in the published model, which here is another token
    edit(folder / "tokenizer_2" / "tokenizer_config.json", pad_token="a</w>")
    return folder


def tiny_vae(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
        **settings,
    )


def edit(file: Path, **values: Any) -> None:
    """None drops a setting."""
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def save_lora(
    file: Path,
    pipeline: Any,
    layers: dict[str, tuple[str, ...]],
    *,
    rank: int = 2,
    seed: int = 0,
    alpha: float | None = None,
) -> Path:
    """A LoRA as kohya's scripts save it where ``alpha`` is given, else as diffusers do,
    of all layers of each part whose names end so.
    """
    torch.manual_seed(seed)
    held: dict[str, torch.Tensor] = {}
    for part, ends in layers.items():
        for name, module in getattr(pipeline, part).named_modules():
            if not name.endswith(ends) or not hasattr(module, "weight"):
                continue
            out, *given = module.weight.shape
            up = torch.randn(out, rank, *[1] * (len(given) - 1)) / 4
            down = torch.randn(rank, *given) / 4
            if alpha is None:
                held |= {f"{part}.{name}.lora_B.weight": up, f"{part}.{name}.lora_A.weight": down}
            else:
                short = {"unet": "lora_unet", "text_encoder": "lora_te"}[part]
                # As the text encoder's layers were called when kohya named them
                old = "text_model." if part == "text_encoder" else ""
                key = f"{short}_{(old + name.removeprefix(old)).replace('.', '_')}"
                held |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
                held[f"{key}.alpha"] = torch.tensor(alpha)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(held, file, metadata={"format": "pt"})
    return file


# ------------------------------------------------------------------ both ways to sample


def theirs(pipeline: Any, x: torch.Tensor, steps: int = 5, guidance: float = 3.0) -> np.ndarray:
    """diffusers' own pipeline with its DDIM, from given noise: ``uint8`` images."""
    scheduler = pipeline.scheduler.config
    # Latents have no range; a file that does not say so leaves DDIM's default
    pipeline.scheduler = DDIMScheduler.from_config(scheduler, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        eta=0.0,
        latents=x.clone(),
        output_type="pil",
    ).images
    return np.stack([np.asarray(image) for image in images])


def ours(
    folder: Path, changes: Changes = NONE, steps: int = 5, guidance: float = 3.0
) -> tuple[LatentDenoiser, torch.Tensor, np.ndarray]:
    """(model, noise, images) of ``PROMPTS``."""
    model = load_model(folder, "cpu", "float32", 4, changes)
    x = model.noise([("x", k) for k in range(len(PROMPTS))], seed=0)
    end = ddim(model, x, model.condition(conditions()), steps=steps, guidance=guidance)
    return model, x, model.decode(end)


def conditions() -> list[Condition]:
    return [Condition(p, p) for p in PROMPTS]


def own_pipeline(folder: Path, **more: Any) -> Any:
    return DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, safety_checker=None, **more
    )


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def save_tiny(folder: Path, prediction: str = "epsilon") -> Path:
    return save_tiny_pipeline(folder, prediction)
