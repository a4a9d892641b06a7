"""Options of the task ``sd_webster``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..shared import models_option, world_option


@dataclass(frozen=True)
class SdWebsterOptions:
    model: str = field(
        default="",
        metadata={
            "help": (
                "folder, hub id (ID@REVISION) or short name (sd-1.4, sd-2.1 ...) of a"
                " Stable Diffusion, 1.x, 2.x or XL; A,B: B where A is not to be had; empty: the"
                " one that ships (mini), CompVis/stable-diffusion-v1-4 (full)"
            )
        },
    )
    prompts: str = field(
        default="",
        metadata={
            "help": (
                "prompt sets or files, A,B; rows whose label no column or known set says are"
                " memorized where negatives names others, and else unlabelled; empty: the"
                " catalogue's examples (mini), hintersdorf (full)"
            )
        },
    )
    negatives: str = field(
        default="",
        metadata={
            "help": (
                "the same, of prompts that are not memorized; empty: laion (full, where prompts is"
                " empty, too)"
            )
        },
    )
    sets: str = field(
        default="",
        metadata={
            "help": (
                "what the published tables call prompts and negatives that are files of one's own,"
                " such as 'webster500 vs 500 Gustavosta': names the data of a run on boards"
            ),
            "full": True,
        },
    )
    unet: str = field(
        default="",
        metadata={
            "help": (
                "a fine-tuned U-Net over the model: the folder checkpoint-N of a training, or the"
                " folder unet inside it"
            ),
            "full": True,
        },
    )
    base: str = field(
        default="",
        metadata={
            "help": (
                "of a model that is one FILE.safetensors: folder, hub id or short name of a"
                " pipeline of its architecture, for configurations and tokenizers"
            ),
            "full": True,
        },
    )
    lora: str = field(
        default="",
        metadata={
            "help": (
                "LoRAs over the model, FILE or FILE:SCALE, A,B; added to its weights in this order"
            ),
            "full": True,
        },
    )
    textual_inversion: str = field(
        default="",
        metadata={
            "help": "learned words (learned_embeds.safetensors), FILE or FILE:WORD, A,B",
            "full": True,
        },
    )
    variant: str = field(
        default="",
        metadata={
            "help": (
                "which weight files: fp16, bf16 or non_ema; empty: the plain ones, else fp16 or"
                " bf16"
            ),
            "full": True,
        },
    )
    half: Literal["a", "b"] = field(
        default="a",
        metadata={
            "help": "mini: the half that the model saw; the other half's model is its mirror"
        },
    )
    world: int = world_option("number of the mirror pair")
    models: str = models_option()
    examples: Literal["auto", "half", "mirror"] = field(
        default="auto",
        metadata={
            "help": (
                "mini: the captions of both halves, of which the model's own are memorized"
                " (mirror), or those of one half; auto: mirror, for a model or prompts of one's"
                " own half"
            )
        },
    )
    control_model: str = field(
        default="",
        metadata={
            "help": "a model of the same kind that never saw the prompts' images, for --control",
            "full": True,
        },
    )
    ground_truth: str = field(
        default="",
        metadata={
            "help": (
                "the memorized prompts' training images: a folder, or urls (membench download"
                " sd_webster --images); empty: extracted images are compared with nothing"
            ),
            "full": True,
        },
    )
    reference: str = field(
        default="",
        metadata={
            "help": (
                "descriptors of the training set, or of a part of it, to compare extracted images"
                " with: FILE.npy, FILE.parquet or a folder of them; in place of ground_truth"
            ),
            "full": True,
        },
    )
    reference_search: Literal["exact", "ivfpq"] = field(
        default="exact",
        metadata={
            "help": "every descriptor, in blocks, or candidates of a FAISS index: a lower bound",
            "full": True,
        },
    )
    reference_index: str = field(
        default="",
        metadata={
            "help": "a FAISS index of these descriptors; empty: one is built and kept (ivfpq)",
            "full": True,
        },
    )
    reference_probes: int = field(
        default=32,
        metadata={"help": "lists of the index that a query looks into", "min": 1, "full": True},
    )
    criterion: Literal["sscd", "sscd-int8", "clip"] = field(
        default="sscd",
        metadata={
            "help": "cosine of which features makes a copy of a ground-truth image",
            "full": True,
        },
    )
    criterion_weights: str = field(
        default="",
        metadata={
            "help": (
                "of sscd a file or a variant's name, of clip MODEL:TAG or MODEL:FILE; empty:"
                " disc_mixup"
            ),
            "full": True,
        },
    )
    criterion_preprocess: str = field(
        default="",
        metadata={
            "help": (
                "how an image is brought to SSCD's size; published papers differ; empty: the"
                " authors' own"
            ),
            "full": True,
        },
    )
    steps: int = field(
        default=50,
        metadata={"help": "DDIM steps of extracted images", "min": 1, "max": 1000, "full": True},
    )
    guidance: float = field(
        default=7.5, metadata={"help": "their guidance weight", "min": 0.0, "full": True}
    )
