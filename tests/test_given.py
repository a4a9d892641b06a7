"""Pipelines that are given as objects: which of them share a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixel_unet, save_tiny_pipeline
from diffusers import DDIMScheduler, LDMPipeline, VQModel
from diffusers.models.attention_processor import AttnProcessor
from foreign_models import ours, own_pipeline, save_tiny_xl
from peft import LoraConfig
from safetensors.torch import save_file

from membench.errors import UserError
from membench.models.given import folder_of
from membench.models.pipeline_kinds import XL, check_kind
from membench.models.pixel_files import parts_of
from membench.models.stable_diffusion_folder import folder_hash


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("given") / "base", "epsilon")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pipelines_that_differ_in_a_learned_word_have_their_own_folders(
    base: Path, tmp_path: Path
) -> None:
    save_file({"x": torch.full((16,), 0.3)}, tmp_path / "word.safetensors")
    folders = {}
    for word in ("<one>", "<two>"):
        pipeline = own_pipeline(base)
        pipeline.load_textual_inversion(str(tmp_path / "word.safetensors"), token=word)
        folders[word] = folder_of(pipeline)
    assert folders["<one>"] != folders["<two>"]
    for word, folder in folders.items():
        words = own_pipeline(folder).tokenizer.get_vocab()
        assert {"<one>", "<two>"} & {*words} == {word}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "pad_token", "a</w>"),
        lambda t: t.add_tokens(["<more>"]),
        lambda t: setattr(t, "model_max_length", 20),
    ],
)
def test_what_a_tokenizer_does_counts(base: Path, change: Callable[[Any], Any]) -> None:
    pipeline = own_pipeline(base)
    before = folder_of(pipeline)
    change(pipeline.tokenizer)
    assert folder_of(pipeline) != before


def test_what_a_tokenizer_was_used_for_does_not(base: Path) -> None:
    pipeline = own_pipeline(base)
    folder = folder_of(pipeline)
    before = folder_hash(folder)
    pipeline.tokenizer(["a mug"], padding="max_length", max_length=9, truncation=True)
    assert folder_of(pipeline) == folder
    shutil.rmtree(folder)
    assert folder_hash(folder_of(pipeline)) == before
    assert np.array_equal(ours(folder)[2], ours(base)[2])


def test_all_that_the_tasks_read_can_be_given(tmp_path: Path) -> None:
    assert check_kind(folder_of(own_pipeline(save_tiny_xl(tmp_path / "xl")))) is XL
    decoder = VQModel(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=2,
        num_vq_embeddings=8,
    )
    latent = LDMPipeline(decoder, pixel_unet(), DDIMScheduler())
    assert parts_of(folder_of(latent)).decoder is not None


def test_a_network_alone_has_no_schedule(cache: Path) -> None:
    with pytest.raises(UserError, match=r"DDPMPipeline\(unet, scheduler\)"):
        folder_of(pixel_unet())
    assert not cache.exists()


def other_attention(pipeline: Any) -> None:
    class Halved(AttnProcessor):
        def __call__(self, *args: Any, **more: Any) -> torch.Tensor:
            return super().__call__(*args, **more) / 2

    pipeline.unet.set_attn_processor(Halved())


def other_layer(pipeline: Any) -> None:
    """As ToMe merges tokens: the class of a layer is replaced, its weights stay."""
    layer = pipeline.unet.mid_block

    class Merged(type(layer)):
        def forward(self, *args: Any, **more: Any) -> torch.Tensor:
            return super().forward(*args, **more) / 2

    layer.__class__ = Merged


def other_network(pipeline: Any) -> None:
    """A class of one's own, which makes itself from its configuration."""

    class Own(type(pipeline.unet)):
        pass

    pipeline.unet.__class__ = Own


def other_forward(pipeline: Any) -> None:
    """As DeepCache does."""
    forward = pipeline.unet.mid_block.forward
    pipeline.unet.mid_block.forward = lambda *args, **more: forward(*args, **more) / 2


def seamless(pipeline: Any) -> None:
    """As scripts for tiles do."""
    for layer in pipeline.unet.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "circular"


def wrapped(pipeline: Any) -> None:
    pipeline.unet = torch.nn.DataParallel(pipeline.unet)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (seamless, "in conv_in, padding_mode=circular"),
        (lambda p: setattr(p.unet, "conv_act", torch.nn.ReLU()), "in conv_act, a ReLU"),
        (lambda p: setattr(p.unet.conv_norm_out, "eps", 0.1), "conv_norm_out, eps=0.1"),
        (lambda p: setattr(p.text_encoder.final_layer_norm, "eps", 0.1), "text_encoder is not"),
        (lambda p: p.unet.to("meta"), "its unet has weights that are not in memory"),
        (lambda p: setattr(p, "vae", None), "its vae is None"),
        (lambda p: setattr(p, "tokenizer", None), "its tokenizer is None"),
        (wrapped, "its unet is wrapped in a DataParallel"),
        (lambda p: p.unet.add_adapter(LoraConfig(target_modules=["to_q"])), "unload_lora"),
        (lambda p: p.fuse_qkv_projections(), "unfuse_qkv"),
        (lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6), "disable_freeu"),
        (other_attention, "Halved"),
        (other_layer, "Merged"),
        (other_network, "a layer test_given.Own"),
        (other_forward, "the forward of a UNetMidBlock2DCrossAttn"),
        (lambda p: p.vae.decoder.register_forward_hook(lambda *_: None), "hook of a Decoder"),
    ],
)
def test_what_would_not_be_stored_is_refused(
    base: Path, cache: Path, change: Callable[[Any], Any], words: str
) -> None:
    """It was left out in silence, or the stored folder was called damaged."""
    pipeline = own_pipeline(base)
    change(pipeline)
    with pytest.raises(UserError, match=words) as refused:
        folder_of(pipeline)
    assert "\n" not in str(refused.value) and not cache.exists()


def test_how_attention_is_computed_is_nothing_to_store(base: Path) -> None:
    folder = folder_of(own_pipeline(base))
    pipeline = own_pipeline(base)
    pipeline.enable_attention_slicing("max")
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    pipeline.disable_freeu()
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.unet.enable_gradient_checkpointing()
    pipeline.unet = torch.compile(pipeline.unet)
    pipeline.vae.compile()
    assert folder_of(pipeline) == folder
