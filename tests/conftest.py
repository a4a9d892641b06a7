"""Small real pipelines, built once: the mini recipe's own modules, narrower, with
random weights.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from membench.storage.workspace import Workspace


os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: the workers' thread pools would fight for the same
    # cores, and be slower than one worker alone.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
if os.environ.get("MEMBENCH_ROUNDING"):
    import rounding

    rounding.install()
ROOT = Path(__file__).resolve().parent.parent
# scheduler/scheduler_config.json of CompVis/stable-diffusion-v1-4: of another class
# than DDIM, from whose settings the papers made theirs.
PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

# Files that take most of the time, the longest first. xdist hands out first the files
# of most tests, which are quick ones: a worker would end with one of these while the
# other has nothing left to do.
LONGEST = (
    "test_malformed.py",
    "test_contracts.py",
    "test_first_run.py",
    "test_mini_model.py",
    "test_board_commands.py",
    "test_audit.py",
    "test_ray.py",
    "test_easiest_attacks.py",
    "test_foreign_folder.py",
    "test_cli.py",
    "test_side.py",
    "test_notebooks.py",
    "test_ablate.py",
    "test_site.py",
    "test_packaging.py",
)

slow = pytest.mark.skipif(
    os.environ.get("MEMBENCH_SLOW") != "1", reason="takes a quarter of a minute: MEMBENCH_SLOW=1"
)


def pytest_configure() -> None:
    """Collecting makes 800,000 objects that stay; looking through them for cycles, time
    and again, was a quarter of its time.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if missing := [name for name in LONGEST if not (here / name).exists()]:
        raise pytest.UsageError(f"LONGEST of conftest.py names {missing}, which are not there")
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test survives a power cut, and 30,000 waits for the disk take minutes. What is
    put on disk in which order is seen by tests that put their own in this one's place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--offline`` sets these for the rest of the process: each test begins with the
    first alone, whatever ran before.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline with random weights in the hub's layout, v-prediction,
    fp32, as if trained on the catalogue.
    """
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny", "v_prediction")
    shutil.copy(ROOT / "tasks" / "data" / "sd_webster" / "a" / "training.json", folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Stages of a model whose weights are called w."""
    from membench.storage.workspace import Workspace

    return Workspace(tmp_path / "prepared", {"weights": "w"})


def save_tiny_pipeline(folder: Path, prediction_type: str) -> Path:
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # tests read stderr
    tokenizer = CLIPTokenizer.from_pretrained(
        ROOT / "tasks" / "data" / "sd_webster" / "a" / "tokenizer"
    )
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def pixel_unet(side: int = 8) -> UNet2DModel:
    """A small unconditional one for side x side pixels, with random weights."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=side,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
    )
