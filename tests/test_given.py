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
from foreign_models import ours, own_pipeline, save_tiny_xl
from safetensors.torch import save_file

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
