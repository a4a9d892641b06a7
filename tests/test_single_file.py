"""A checkpoint in one .safetensors file over a base: diffusers' own pipeline from the
same file is the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import save_tiny_pipeline
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from foreign_models import copy_of, edit, ours, own_pipeline, save_tiny_xl, theirs
from one_file import save_one_file
from safetensors.torch import load_file, save_file

import membench
from membench.errors import UserError
from membench.models.given import folder_of
from membench.models.single_file import unpacked
from membench.models.stable_diffusion_folder import folder_hash


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(the pipeline, it in one file, a base of other weights)."""
    root = tmp_path_factory.mktemp("one")
    whole = save_tiny_pipeline(root / "whole", "epsilon")
    file = save_one_file(own_pipeline(whole), root / "style.safetensors")
    base = save_tiny_pipeline(root / "base", "epsilon")
    for weights in base.rglob("*.safetensors"):
        save_file(
            {k: v * 0.5 if v.is_floating_point() else v for k, v in load_file(weights).items()},
            weights,
        )
    return whole, file, base


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_samples_what_diffusers_samples_from_the_file(made: tuple[Path, Path, Path]) -> None:
    whole, file, base = made
    folder = unpacked(file, base)
    _, x, images = ours(folder)
    reference = StableDiffusionPipeline.from_single_file(
        str(file), config=str(base), local_files_only=True, safety_checker=None
    )
    wanted = theirs(reference, x)
    assert np.abs(images.astype(int) - wanted).max() <= 1
    # The weights are the file's, and not the base's
    assert np.array_equal(images, ours(whole)[2])
    assert np.abs(images.astype(int) - ours(base)[2]).max() > 1
    assert unpacked(file, base) == folder  # made once


@pytest.mark.parametrize("place", ["weights", "header"])
def test_what_is_damaged_in_the_cache_is_made_again(
    made: tuple[Path, Path, Path], place: str
) -> None:
    """Of a file and of an object, which is stored there, too."""
    whole, file, base = made
    for get in (lambda: unpacked(file, base), lambda: folder_of(own_pipeline(whole))):
        folder = get()
        before = folder_hash(folder)
        [weights] = (folder / "unet").glob("*.safetensors")
        data = bytearray(weights.read_bytes())
        data[-100 if place == "weights" else 9] ^= 1
        weights.write_bytes(data)
        assert get() == folder and folder_hash(folder) == before


@pytest.mark.parametrize("kind", ["2", "xl"])
def test_other_stable_diffusions_in_one_file(kind: str, tmp_path: Path) -> None:
    """2.x, whose text encoder has open_clip's names, and XL with both."""
    if kind == "2":
        whole, base = (save_tiny_pipeline(tmp_path / x, "v_prediction") for x in "ab")
        pipeline: type = StableDiffusionPipeline
    else:
        whole = save_tiny_xl(tmp_path / "a", pooled=24)
        base = save_tiny_xl(tmp_path / "b", pooled=24, seed=5)
        pipeline = StableDiffusionXLPipeline
    for weights in base.rglob("*.safetensors"):
        halved = {k: v / 2 if v.is_floating_point() else v for k, v in load_file(weights).items()}
        save_file(halved, weights)
    file = save_one_file(own_pipeline(whole), tmp_path / "style.safetensors", kind)
    _, x, images = ours(unpacked(file, base))
    reference = pipeline.from_single_file(str(file), config=str(base), local_files_only=True)
    assert np.abs(images.astype(int) - theirs(reference, x)).max() <= 1
    assert np.abs(images.astype(int) - ours(whole)[2]).max() <= 1  # the way there and back
    assert np.abs(images.astype(int) - ours(base)[2]).max() > 1


def test_half_precision_stays(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, file, base = made
    half = tmp_path / "half.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}, half
    )
    folder = unpacked(half, base)
    assert folder != unpacked(file, base)
    [weights] = (folder / "unet").glob("*.safetensors")
    assert {t.dtype for t in load_file(weights).values()} == {torch.float16}


def scored(tmp_path: Path, *settings: str, control: bool = False) -> Any:
    """A run of two prompts."""
    (tmp_path / "mine.txt").write_text("a red mug\ntwo blue boats\n")
    return membench.run(
        "cfg_norm",
        "sd_webster",
        "full",
        options=["draws=1", "images=0"],
        task_options=[*settings, f"prompts={tmp_path / 'mine.txt'}"],
        control=control,
        out=tmp_path / "runs",
        progress=False,
    )


def test_through_the_task(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, file, base = made
    run = scored(tmp_path, f"model={file}", f"base={base}")
    assert run.info["hashes"]["weights"] == folder_hash(unpacked(file, base))
    assert run.info["model_name"] == "style.safetensors"


EMPTY = torch.zeros(0)
V, ZERO = {"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("held", "notes", "scheduler", "told"),
    [
        ({"v_pred": EMPTY}, {}, {}, "prediction v, .* prediction_type=epsilon"),
        ({}, {"modelspec.prediction_type": "v"}, {}, "prediction v, .* prediction_type=epsilon"),
        ({}, {"modelspec.prediction_type": "epsilon"}, V, "prediction epsilon, .*=v_prediction"),
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {}, V, "ztsnr.* rescale_betas_zero_snr=false"),
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {}, V | ZERO, ""),
        ({"v_pred": EMPTY}, {"modelspec.prediction_type": "v"}, V, ""),
        ({}, {"modelspec.prediction_type": "epsilon"}, {}, ""),
    ],
)
def test_a_file_that_says_what_it_predicts(
    made: tuple[Path, Path, Path],
    tmp_path: Path,
    held: dict[str, torch.Tensor],
    notes: dict[str, str],
    scheduler: dict[str, object],
    told: str,
) -> None:
    """It is sampled by the scheduler of the base, which has to agree."""
    _, plain, base = made
    file, over = tmp_path / "said.safetensors", copy_of(base, tmp_path / "over")
    save_file(load_file(plain) | held, file, metadata=notes)
    edit(over / "scheduler" / "scheduler_config.json", **scheduler)
    if told:
        with pytest.raises(UserError, match=told) as raised:
            unpacked(file, over)
        assert "\n" not in str(raised.value)
    else:
        assert (unpacked(file, over) / "model_index.json").is_file()


def test_what_training_counted_is_no_quantised_weight(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, plain, base = made
    counts = {
        "model_ema.num_updates": torch.tensor(5, dtype=torch.int32),
        "model_ema.decay": torch.tensor(0.99),
    }
    save_file(load_file(plain) | counts, tmp_path / "ema.safetensors")
    weights = "unet/diffusion_pytorch_model.safetensors"
    got, want = (unpacked(f, base) / weights for f in (tmp_path / "ema.safetensors", plain))
    assert got.read_bytes() == want.read_bytes()


def test_what_does_not_fit_is_one_line(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, file, base = made
    tensors = load_file(file)
    cut = tmp_path / "cut.safetensors"
    save_file({k: v for k, v in tensors.items() if "input_blocks.1." not in k}, cut)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-8])
    wider = save_tiny_pipeline(tmp_path / "wider", "epsilon")
    edit(wider / "unet" / "config.json", block_out_channels=[16, 32])
    lora = tmp_path / "lora.safetensors"
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, lora)
    for given, over, told in (
        (cut, base, "base"),
        (damaged, base, "damaged or cut short"),
        (file, wider, "does not fit the base"),
        (lora, base, "is a LoRA"),
    ):
        with pytest.raises(UserError, match=told) as raised:
            unpacked(given, over)
        assert "\n" not in str(raised.value)
    for settings, told in (
        ([f"model={file}"], "sd_webster.base="),
        ([f"model={base}", f"base={base}"], "base=.* is for a model that is one file"),
    ):
        with pytest.raises(UserError, match=told):
            membench.run("cfg_norm", "sd_webster", "full", task_options=settings, out=tmp_path)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("first_stage_model.", "holds no vae"),
        ("cond_stage_model.", "holds no text_encoder"),
        ("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "it lacks weights"),
    ],
)
def test_a_file_without_a_part(
    made: tuple[Path, Path, Path], tmp_path: Path, without: str, words: str
) -> None:
    """Diffusers' own words were about tensors of a device meta, or code that cannot help."""
    _, file, base = made
    save_file(
        {k: v for k, v in load_file(file).items() if not k.startswith(without)},
        tmp_path / "less.safetensors",
    )
    with pytest.raises(UserError, match=words):
        unpacked(tmp_path / "less.safetensors", base)


@pytest.mark.parametrize(
    "part", ["model.diffusion_model.label_emb.0.0", "first_stage_model.encoder.x"]
)
def test_layers_that_the_base_lacks_are_not_left_out(
    made: tuple[Path, Path, Path], tmp_path: Path, part: str
) -> None:
    """A deeper network, or one that is told more, over a base of the same widths."""
    _, file, base = made
    more = tmp_path / "more.safetensors"
    save_file(load_file(file) | {f"{part}.weight": torch.ones(2, 2)}, more)
    with pytest.raises(UserError, match="of another architecture"):
        unpacked(more, base)
    # Of training, and no part of what draws
    kept = tmp_path / "kept.safetensors"
    save_file(load_file(file) | {"first_stage_model.loss.logvar": torch.ones(2)}, kept)
    assert unpacked(kept, base).is_dir()


def test_files_that_are_no_checkpoint_in_one_file(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    whole, file, base = made
    pickled = tmp_path / "model.ckpt"
    torch.save(load_file(file), pickled)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "style.safetensors").write_bytes(file.read_bytes())
    weights = whole / "unet" / "diffusion_pytorch_model.safetensors"
    over = f"base={base}"
    for given, words in (
        ([f"model={pickled}", over], "pickled"),
        ([f"model={weights}", over], "no checkpoint in one file: it holds conv_in.bias"),
        ([f"model={weights}"], "no checkpoint in one file: it holds conv_in.bias"),
        ([f"model={tmp_path / 'no.safetensors'}", over], "no.safetensors is not there"),
        ([f"model={tmp_path / 'folder'}", over], "name the file itself"),
        ([f"model={whole / 'model_index.json'}"], "is a file, and no .safetensors"),
    ):
        with pytest.raises(UserError, match=words):
            membench.run("cfg_norm", "sd_webster", "full", task_options=given, out=tmp_path)
    with pytest.raises(UserError, match="is a file: give the folder"):
        membench.run("loss", "cifar10", model=file, out=tmp_path)


def test_a_control_model_in_one_file(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Its base is the model's own; the model itself may be a folder."""
    whole, file, base = made
    settings = [f"model={whole}", f"control_model={file}", f"base={base}"]
    run = scored(tmp_path, *settings, control=True)
    assert run.info["hashes"]["weights"] == folder_hash(unpacked(file, base))
