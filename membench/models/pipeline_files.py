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

# Of Stable Diffusion XL alone
_SECOND = "text_encoder_2/*|tokenizer_2/* => "

# What stable_diffusion_folder and tokenizer_files want of a folder; A|B: either will
# do; A => B: B where A is there.
REQUIRED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json|tokenizer/vocab.json",
    "tokenizer/tokenizer.json|tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model*.safetensors",
    f"{_SECOND}tokenizer_2/tokenizer_config.json",
    f"{_SECOND}tokenizer_2/tokenizer.json|tokenizer_2/vocab.json",
    f"{_SECOND}tokenizer_2/tokenizer.json|tokenizer_2/merges.txt",
    f"{_SECOND}text_encoder_2/config.json",
    f"{_SECOND}text_encoder_2/model*.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model*.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model*.safetensors",
)
