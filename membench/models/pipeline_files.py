"""The files of a Stable Diffusion pipeline's repository that membench reads,
as patterns.
"""

from __future__ import annotations

# The folders are named because a repository may also hold whole checkpoints at its top.
PATTERNS = (
    "model_index.json",
    "scheduler/*.json",
    *(f"{part}/*.{end}" for part in ("tokenizer", "tokenizer_2") for end in ("json", "txt")),
    *(
        f"{part}/*.{end}"
        for part in ("text_encoder", "text_encoder_2", "unet", "vae")
        for end in ("json", "safetensors")
    ),
)

# Parts that are never loaded.
IGNORE = ("safety_checker/*", "feature_extractor/*")

# What stable_diffusion_folder and tokenizer_files want of a folder; A|B: either will
# do.
REQUIRED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json|tokenizer/vocab.json",
    "tokenizer/tokenizer.json|tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model*.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model*.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model*.safetensors",
)
