"""A pipeline as one file in Stable Diffusion's original names: the way back from
diffusers' layout, written from the two layouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    # XL alone: sizes and the pooled caption
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def save_one_file(pipeline: Any, file: Path, kind: str = "1") -> Path:
    """A pipeline of Stable Diffusion ``1``, ``2`` or ``xl``, whose U-Net may have any
    blocks. 2 and the second encoder of XL have open_clip's names.
    """
    held = {
        **{f"model.diffusion_model.{k}": v for k, v in _unet(pipeline.unet)},
        **{f"first_stage_model.{k}": v for k, v in _vae(pipeline.vae)},
    }
    first = pipeline.text_encoder.state_dict().items()
    if kind == "2":
        held |= {f"cond_stage_model.model.{k}": v for k, v in _open_clip(dict(first))}
    else:
        home = "cond_stage_model" if kind == "1" else "conditioner.embedders.0"
        for name, tensor in first:
            # Without text_model in newer versions of transformers
            held[f"{home}.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    if kind == "xl":
        second = pipeline.text_encoder_2.state_dict()
        held |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip(second)}
    save_file({k: v.contiguous() for k, v in held.items()}, file, metadata={"format": "pt"})
    return file


def _open_clip(held: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """A text encoder of transformers in open_clip's names, query, key and value in one."""
    held = {name.removeprefix("text_model."): tensor for name, tensor in held.items()}
    for name, tensor in held.items():
        if name == "text_projection.weight":
            yield "text_projection", tensor.T
        elif name == "embeddings.position_embedding.weight":
            yield "positional_embedding", tensor
        elif name.endswith(("q_proj.weight", "q_proj.bias")):
            start, _, end = name.partition("self_attn.q_proj.")
            parts = [held[f"{start}self_attn.{x}_proj.{end}"] for x in "qkv"]
            place = start.replace("encoder.layers", "transformer.resblocks")
            yield f"{place}attn.in_proj_{end}", torch.cat(parts)
        elif not re.search(r"[kv]_proj\.|position_ids", name):
            name = name.replace("encoder.layers", "transformer.resblocks")
            for theirs, ours in OPEN_CLIP.items():
                name = name.replace(theirs, ours)
            yield name, tensor


def _unet(unet: Any) -> Iterator[tuple[str, torch.Tensor]]:
    layers = unet.config.layers_per_block
    for name, tensor in unet.state_dict().items():
        block = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
        if block:
            way, i, what, j, rest = block.groups()
            each = layers + 1
            if way == "down":
                at = 1 + int(i) * each + (layers if what == "downsamplers" else int(j))
                place = f"input_blocks.{at}.{1 if what == 'attentions' else 0}"
            else:
                at = int(i) * each + (layers if what == "upsamplers" else int(j))
                attends = "CrossAttn" in unet.config.up_block_types[int(i)]
                where = {"resnets": 0, "attentions": 1, "upsamplers": 2 if attends else 1}[what]
                place = f"output_blocks.{at}.{where}"
            rest = f"op.{rest.removeprefix('conv.')}" if what == "downsamplers" else rest
        else:
            ours = next(key for key in UNET if name.startswith(f"{key}."))
            place, rest, what = UNET[ours], name.removeprefix(f"{ours}."), ours.split(".")[-2:][0]
        if what == "resnets":
            layer, _, end = rest.rpartition(".")
            rest = f"{RESNET[layer]}.{end}"
        yield f"{place}.{rest}", tensor


def _vae(vae: Any) -> Iterator[tuple[str, torch.Tensor]]:
    last = len(vae.config.block_out_channels) - 1
    for name, tensor in vae.state_dict().items():
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
        name = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name
        )
        yield (
            name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out"),
            tensor,
        )
