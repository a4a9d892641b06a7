"""Which folders are Stable Diffusion 1.x or 2.x, which of their files are read, and
what becomes of them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PNDM, ROOT, save_tiny_pipeline
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.loading import layout
from membench.models.narrow import SIDE, narrowed
from membench.models.part_files import part_weights
from membench.models.pipeline_kinds import check_kind
from membench.models.sampling import timesteps
from membench.models.scheduler_config import read_scheduler
from membench.models.stable_diffusion_folder import (
    folder_hash,
    image_size,
    latent_size,
    weight_files,
)
from membench.runs.execute import execute_all
from membench.runs.spec import Spec
from membench.storage import cache
from membench.storage.cache import remembered_hash
from membench.storage.hashing import file_hash
from membench.types import Condition

DIFFUSERS, CLIP = "diffusion_pytorch_model", "model"


@pytest.fixture
def folder(tmp_path: Path, tiny_pipeline_folder: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_pipeline_folder, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    """None drops a setting."""
    config = json.loads(file.read_text()) | values
    file.write_text(
        json.dumps(
            {key: value for key, value in config.items() if value is not None or key not in values}
        )
    )


def eps(folder: Path) -> torch.Tensor:
    model = LatentDenoiser(load_text_to_image(folder))
    x = model.noise([("a", 0), ("b", 0)], seed=0)
    return model.eps(
        x, 500, model.condition([Condition("a", "red mug"), Condition("b", "teal rug")])
    )


# -------------------------------------------------------------------------- which kinds


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("StableDiffusionXLInpaintPipeline", "9 channels"),
        ("StableDiffusionXLImg2ImgPipeline", "refiner"),
        ("LDMPipeline", "takes no text"),
        ("StableDiffusion3Pipeline", "flow matching"),
        ("FluxPipeline", "flow matching"),
        ("PixArtAlphaPipeline", "T5"),
        ("StableDiffusionInpaintPipeline", "9 channels"),
        ("StableDiffusionUpscalePipeline", "low-resolution"),
        ("StableDiffusionDepth2ImgPipeline", "depth map"),
        ("StableDiffusionInstructPix2PixPipeline", "wants an image"),
        ("LatentConsistencyModelPipeline", "distilled"),
        ("DDPMPipeline", "pixel model"),
        ("AltDiffusionPipeline", "none of them"),
    ],
)
def test_other_pipelines_are_refused_by_name(folder: Path, name: str, words: str) -> None:
    change(folder / "model_index.json", _class_name=name)
    with pytest.raises(UserError) as error:
        load_text_to_image(folder)
    assert name in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("unet", {"in_channels": 9}, "9 channels and gives 4"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type=text_time"),
        ("unet", {"num_class_embeds": 1000}, "num_class_embeds=1000"),
        ("unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ("unet", {"sample_size": None}, "sample_size"),
        ("vae", {"latent_channels": 16}, "latent channels"),
        ("vae", {"shift_factor": 0.1}, "shift_factor"),
    ],
)
def test_a_network_that_is_told_more_is_refused(
    folder: Path, part: str, values: dict[str, Any], words: str
) -> None:
    change(folder / part / "config.json", **values)
    with pytest.raises(UserError, match=words):
        load_text_to_image(folder)


def test_another_text_encoder_is_refused(folder: Path) -> None:
    change(folder / "model_index.json", text_encoder=["transformers", "T5EncoderModel"])
    with pytest.raises(
        UserError, match="its text_encoder is of class T5EncoderModel, not CLIPTextModel"
    ):
        check_kind(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sd.safetensors", ["from_single_file", "--model FOLDER"]),
        ("sd.ckpt", ["pickled", "any code"]),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_in_one_file(
    tmp_path: Path, name: str, words: list[str], inside: bool
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        folder_hash(tmp_path if inside else tmp_path / name)
    assert all(word in str(error.value) for word in [name, *words])


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        load_text_to_image(tmp_path)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        load_text_to_image(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"unet lacks config.json"):
        load_text_to_image(folder)


# -------------------------------------------------------------------------- which files


def test_a_pickle_is_refused_with_the_reason(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").rename(
        folder / "text_encoder" / "pytorch_model.bin"
    )
    with pytest.raises(
        UserError,
        match=(
            r"text_encoder holds pickled weights only \(pytorch_model.bin\).* any"
            r" code.*safe_serialization"
        ),
    ):
        load_text_to_image(folder)


def test_weights_of_another_name_are_not_taken_for_the_models(folder: Path) -> None:
    (folder / "unet" / f"{DIFFUSERS}.safetensors").rename(
        folder / "unet" / f"{DIFFUSERS}.non_ema.safetensors"
    )
    with pytest.raises(
        UserError, match=r"lacks diffusion_pytorch_model.safetensors \(there is .*non_ema"
    ):
        load_text_to_image(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_missing_tensor_is_not_made_up(folder: Path, part: str) -> None:
    [file] = part_weights(folder, part).files
    tensors = load_file(file)
    tensors.pop(next(name for name in sorted(tensors) if name.endswith("weight")))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{part} lacks 1 tensors"):
        load_text_to_image(folder).vae  # noqa: B018 - loads it


def variant_of(folder: Path, variant: str | None, shard: str | None) -> None:
    """Saves all three parts again, as diffusers and transformers write them."""
    for part, loader in (
        ("unet", UNet2DConditionModel),
        ("text_encoder", CLIPTextModel),
        ("vae", AutoencoderKL),
    ):
        model = loader.from_pretrained(folder / part)
        for file in part_weights(folder, part).files:
            file.unlink()
        sizes = {"max_shard_size": shard} if shard else {}
        model.to(torch.float16 if variant else torch.float32).save_pretrained(
            folder / part, variant=variant, safe_serialization=True, **sizes
        )


@pytest.mark.parametrize(("variant", "shard"), [(None, "20KB"), ("fp16", None), ("fp16", "20KB")])
def test_shards_and_half_precision_files_load_as_their_libraries_write_them(
    folder: Path, variant: str | None, shard: str | None
) -> None:
    before, plain = eps(folder), folder_hash(folder)
    variant_of(folder, variant, shard)
    unet = part_weights(folder, "unet")
    assert unet.variant == (variant or "") and (len(unet.files) > 2) == bool(shard)
    files = set(weight_files(folder))
    on_disk = {
        f
        for part in ("unet", "text_encoder", "vae")
        for f in (folder / part).iterdir()
        if f.name != "config.json"
    }
    assert files == on_disk
    torch.testing.assert_close(eps(folder), before, rtol=0, atol=1e-2 if variant else 0)
    assert folder_hash(folder) != plain


def test_plain_weights_go_before_half_precision(folder: Path) -> None:
    """As from_pretrained without a variant; half precision and training weights beside
    them change neither file nor hash.
    """
    before, files = folder_hash(folder), weight_files(folder)
    for part, stem in (("unet", DIFFUSERS), ("text_encoder", CLIP), ("vae", DIFFUSERS)):
        for other in ("fp16", "non_ema"):
            (folder / part / f"{stem}.{other}.safetensors").write_bytes(b"other")
    (folder / "unet" / "optimizer.bin").write_bytes(b"other")
    assert folder_hash(folder) == before and weight_files(folder) == files and len(files) == 3


def test_a_lost_shard_is_named(folder: Path) -> None:
    variant_of(folder, None, "20KB")
    lost = part_weights(folder, "unet").files[-1]
    lost.unlink()
    with pytest.raises(UserError, match=f"{lost.name} is missing"):
        load_text_to_image(folder)
    index = folder / "unet" / f"{DIFFUSERS}.safetensors.index.json"
    change(index, weight_map={"conv_in.weight": "../../elsewhere.safetensors"})
    with pytest.raises(UserError, match="not a safetensors file beside it"):
        load_text_to_image(folder)


def test_what_decides_a_prediction_decides_the_hash(folder: Path) -> None:
    before = folder_hash(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert folder_hash(moved) == before
    change(moved / "vae" / "config.json", _name_or_path="/somewhere")
    assert folder_hash(moved) == before
    change(moved / "vae" / "config.json", scaling_factor=0.5)
    assert folder_hash(moved) != before


def test_hidden_files_do_not_count(folder: Path, tmp_path: Path) -> None:
    """macOS puts ``._NAME`` beside each file that is copied to a disk of another kind
    or into an archive.
    """
    before = folder_hash(folder)
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7")
        (file.parent / ".DS_Store").write_bytes(b"\0")
    assert folder_hash(folder) == before
    for file in (folder / "unet").glob("diffusion_pytorch_model*"):
        file.unlink()
    with pytest.raises(UserError, match="has no safetensors file"):
        folder_hash(folder)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "._sd.safetensors").write_bytes(b"\0\5\x16\7")
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        folder_hash(tmp_path / "alone")


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "REMEMBERED_FROM", 10)
    read: list[Path] = []
    monkeypatch.setattr(cache, "file_hash", lambda file: read.append(file) or file_hash(file))
    file, link = tmp_path / "weights", tmp_path / "link"
    file.write_bytes(b"0123456789")
    link.symlink_to(file)  # as the hub's cache does
    # Too young to be sure of
    assert remembered_hash(link) == file_hash(file) and not (tmp_path / "cache").exists()
    monkeypatch.setattr(cache, "RACY", 0)
    assert {remembered_hash(f) for f in (file, link, file)} == {file_hash(file)} and len(read) == 2
    stat = file.stat()
    file.write_bytes(b"9876543210")  # the same size, and the time of change set back
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert remembered_hash(link) == file_hash(file) and len(read) == 3
    [note] = (tmp_path / "cache").rglob("*.json")
    note.write_text("[")
    assert remembered_hash(link) == file_hash(file) and len(read) == 4
    (tmp_path / "small").write_bytes(b"1")
    remembered_hash(tmp_path / "small")
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1
    monkeypatch.setenv("MEMBENCH_CACHE", str(file / "no folder"))
    assert remembered_hash(file) == file_hash(file)  # without a cache, too


# ---------------------------------------------------------------------------- schedules


def test_stable_diffusion_s_own_schedule_gives_the_papers_timesteps(folder: Path, capfd) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    model = LatentDenoiser(load_text_to_image(folder))
    assert timesteps(model, 50) == list(range(981, 0, -20))
    assert model.scheduler.config.prediction_type == "epsilon"
    # Rombach et al. (2022): betas are the squares of 1,000 even steps.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(model.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-5, atol=0)
    assert float(model.scheduler.final_alpha_cumprod) == float(model.scheduler.alphas_cumprod[0])
    assert "skip_prk_steps" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers tells what it corrects
@pytest.mark.parametrize(
    "left_out",
    [{"clip_sample", "set_alpha_to_one"}, {"steps_offset"}, {"steps_offset", "clip_sample"}],
)
def test_what_a_schedule_leaves_open_is_as_the_pipeline_corrects_it(
    folder: Path, left_out: set[str]
) -> None:
    """DDIM's own defaults would clip latents; ``set_alpha_to_one`` is False by PNDM's."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({key: value for key, value in PNDM.items() if key not in left_out}))
    ours = read_scheduler(file, latent=True)
    full = DDIMScheduler(
        **{
            key: value
            for key, value in PNDM.items()
            if key not in ("_class_name", "_diffusers_version", "skip_prk_steps")
        }
    )
    # Which fields diffusers filled in by itself is bookkeeping of its own: ours names
    # every field.
    assert dict(ours.config) == {
        key: value for key, value in full.config.items() if key != "_use_default_values"
    }
    theirs = StableDiffusionPipeline.from_pretrained(
        folder, scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    )
    for name in ("clip_sample", "steps_offset"):
        assert theirs.scheduler.config[name] == ours.config[name]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"},
            "pure noise .*rescale_betas_zero_snr",
        ),
        ({"beta_schedule": "cosine"}, "cosine"),
        ({"timestep_spacing": "odd"}, "odd"),
    ],
)
def test_a_schedule_that_ddim_cannot_follow(
    folder: Path, values: dict[str, Any], words: str
) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **values)
    with pytest.raises(UserError, match=words):
        load_text_to_image(folder)


def test_a_flow_has_no_betas(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text(
        '{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}'
    )
    told = "of class FlowMatchEulerDiscreteScheduler, which has no betas"
    with pytest.raises(UserError, match=told):
        load_text_to_image(folder)


def test_trailing_steps_end_as_diffusers_does(folder: Path) -> None:
    change(folder / "scheduler" / "scheduler_config.json", timestep_spacing="trailing")
    model = LatentDenoiser(load_text_to_image(folder))
    assert timesteps(model, 4) == [999, 749, 499, 249]


# ---------------------------------------------------------------------------- the parts


def test_the_vae_is_loaded_by_what_decodes_and_by_nothing_else(folder: Path) -> None:
    pipeline = load_text_to_image(folder)
    model = LatentDenoiser(pipeline)
    x = model.noise([("a", 0)], seed=0)
    model.guided(x, 500, model.condition([Condition("a", "a mug")]), 3.0)
    assert "vae" not in vars(pipeline) and pipeline.size == image_size(folder) == (64, 64)
    assert model.decode(x).shape == (1, 64, 64, 3)
    assert "vae" in vars(pipeline) and model.vae is pipeline.vae


def test_detectors_that_need_no_image_load_no_vae_and_encode_each_prompt_once(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Three detectors of one command: 5 prompts and the empty one go through the text
    encoder in blocks, once in all.
    """
    seen: list[int] = []
    vaes: list[int] = []
    forward, load = CLIPTextModel.forward, AutoencoderKL.from_pretrained
    monkeypatch.setattr(
        CLIPTextModel,
        "forward",
        lambda self, ids, **more: seen.append(len(ids)) or forward(self, ids, **more),
    )
    monkeypatch.setattr(
        AutoencoderKL,
        "from_pretrained",
        lambda *args, **more: vaes.append(1) or load(*args, **more),
    )
    names = ("cfg_norm", "score_norm", "dcs")
    options = [f"model={folder}"]
    specs = [
        Spec(name, "sd_webster", options=("images=0",), task_options=options, limit=5)
        for name in names
    ]
    runs = execute_all(specs, tmp_path / "runs", progress=False).runs
    assert [len(run.scores) for run in runs] == [5, 5, 5]
    # Two that prove the model; 5 prompts in one block; the empty one, when it is first
    # asked for.
    assert seen == [2, 32, 32] and not vaes
    assert load_text_to_image(folder).vae is not None and vaes == [1]


def test_a_vae_is_checked_before_it_is_needed(folder: Path) -> None:
    [file] = part_weights(folder, "vae").files
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cut short"):
        load_text_to_image(folder)
    file.write_bytes(whole)
    change(folder / "vae" / "config.json", block_out_channels=[4, 4, 8, 16])
    pipeline = load_text_to_image(folder)
    with pytest.raises(UserError, match="vae cannot be loaded"):
        LatentDenoiser(pipeline).decode(torch.zeros(1, 4, 8, 8))


def test_text_embeddings_are_kept_on_the_host_bit_for_bit(folder: Path) -> None:
    """What is asked for is what the text encoder says to a block of 32, whoever asks
    and in whatever order.
    """
    pipeline = load_text_to_image(folder)
    model = LatentDenoiser(pipeline)
    prompts = ["red mug", "", "teal rug", "red mug"]
    got = model.condition([Condition(p or "n", p) for p in prompts]).embeddings
    ids = pipeline.tokenizer(
        ["red mug", "", "teal rug", *[""] * 29],
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        expected = pipeline.text_encoder(ids).last_hidden_state[[0, 1, 2, 0]]
    assert got is not None and torch.equal(got, expected)
    assert all(
        row.device.type == "cpu" and row.untyped_storage().nbytes() == expected[:1].nbytes
        for row in (told.embeddings for told in model.text.known.values())
    )
    null = model.condition([Condition("null")] * 2).embeddings
    assert null is not None and null.is_contiguous() and torch.equal(null, expected[[1, 1]])
    assert torch.equal(model.null_like(model.condition([]), 3).embeddings, expected[[1, 1, 1]])


def test_a_vae_of_the_first_releases_loads(folder: Path) -> None:
    """Stable Diffusion 1.4's VAE names its attention query, key, value and proj_attn."""
    config = json.loads((folder / "vae" / "config.json").read_text())
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(config | {"mid_block_add_attention": True}).eval()
    vae.save_pretrained(folder / "vae")
    [file] = part_weights(folder, "vae").files
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, old in names.items():
        tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    assert sum("query" in name for name in tensors) == 4
    save_file(tensors, file, metadata={"format": "pt"})
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(load_text_to_image(folder).vae.decode(z).sample, vae.decode(z).sample)


def test_a_tokenizer_of_the_hub_s_layout(folder: Path) -> None:
    """vocab.json and merges.txt in place of tokenizer.json, and no word about a limit."""
    prompts = ["Norlund teal rug, 5x8", "a red mug " * 60]
    before = load_text_to_image(folder)
    limit = before.text_encoder.config.max_position_embeddings
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=None)
    after = load_text_to_image(folder)
    assert after.tokenizer.model_max_length == limit
    ids = [
        p.tokenizer(prompts, padding="max_length", truncation=True, max_length=limit).input_ids
        for p in (before, after)
    ]
    assert ids[0] == ids[1]


def test_latents_that_are_not_square(tmp_path: Path) -> None:
    folder = save_tiny_pipeline(tmp_path / "wide", "epsilon")
    change(folder / "unet" / "config.json", sample_size=[8, 12])
    model = LatentDenoiser(load_text_to_image(folder))
    x = model.noise([("a", 0)], seed=0)
    assert x.shape == (1, 4, 8, 12) and image_size(folder) == (64, 96)
    images = model.decode(x)
    assert images.shape == (1, 64, 96, 3) and model.encode(images).shape == x.shape


@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers tells what it corrects
@pytest.mark.parametrize(
    ("release", "size", "side"),
    [("0.6.0", 32, 64), ("0.8.1", [8, 12], None), ("0.9.0", 8, 8), ("0.11.0.dev0", 8, 8)],
)
def test_a_size_that_the_first_releases_ignored(
    tmp_path: Path, release: str, size: Any, side: int | None
) -> None:
    folder = save_tiny_pipeline(tmp_path / "old", "epsilon")
    change(folder / "unet" / "config.json", _diffusers_version=release, sample_size=size)
    model = LatentDenoiser(load_text_to_image(folder))
    wanted = (side, side) if side else tuple(size)
    assert model.shape[1:] == wanted
    assert model.pixels() == image_size(folder) == tuple(8 * pixels for pixels in wanted)
    assert narrowed(model).shape[1:] == (SIDE, SIDE)
    theirs = StableDiffusionPipeline.from_pretrained(folder).unet.config["sample_size"]
    assert theirs == (side or size)


def test_xl_is_of_its_own_size_whatever_wrote_it() -> None:
    unet = {"sample_size": 8, "_diffusers_version": "0.8.1", "addition_embed_type": "text_time"}
    assert latent_size(unet) == (8, 8)


@pytest.mark.parametrize(("batch_size", "sizes"), [(64, [2, 2, 1]), (1, [1] * 5)])
def test_a_vae_takes_fewer_pictures_at_once_than_the_network(
    folder: Path, monkeypatch, batch_size: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("membench.models.autoencoder.PIXELS", {"cpu": 2 * 64 * 64 + 1})
    model = LatentDenoiser(load_text_to_image(folder), batch_size=batch_size)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for name, rows in seen.items():
        getattr(model.vae, name).register_forward_pre_hook(
            lambda module, args, rows=rows: rows.append(len(args[0]))
        )
    images = model.decode(torch.zeros(5, 4, 8, 8))
    model.encode(images)
    assert seen == {"encoder": sizes, "decoder": sizes} and (
        model.cost.encodes,
        model.cost.decodes,
    ) == (5, 5)


@pytest.mark.parametrize(
    ("device", "dtype", "last"),
    [
        ("cpu", torch.float32, False),
        ("cpu", torch.bfloat16, False),
        ("cuda", torch.float32, False),
        ("cuda:1", torch.float16, True),
        ("cuda", torch.bfloat16, True),
    ],
)
def test_channels_last_in_half_precision_on_a_gpu(
    device: str, dtype: torch.dtype, last: bool
) -> None:
    assert layout(device, dtype) == (torch.channels_last if last else torch.contiguous_format)


def test_predictions_are_contiguous_whatever_the_memory_format(folder: Path) -> None:
    pipeline = load_text_to_image(folder)
    plain = LatentDenoiser(pipeline)
    x = plain.noise([("a", 0), ("b", 0)], seed=0)
    condition = plain.condition([Condition("a", "red mug"), Condition("b", "rug")])
    before = plain.eps(x, 500, condition)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    model = LatentDenoiser(pipeline)
    after = model.eps(x, 500, condition)
    assert not pipeline.unet(x, 500, condition.embeddings).sample.is_contiguous()
    assert after.is_contiguous() and model._channels_last and not plain._channels_last
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_number_types_reach_every_part(folder: Path, dtype: str) -> None:
    pipeline = load_text_to_image(folder, dtype=dtype)
    kind = getattr(torch, dtype)
    assert {pipeline.unet.dtype, pipeline.text_encoder.dtype, pipeline.vae.dtype} == {kind}
    assert LatentDenoiser(pipeline).condition([Condition("a", "a mug")]).embeddings.dtype == kind
    with pytest.raises(UserError, match="unknown dtype 'float8'"):
        load_text_to_image(folder, dtype="float8")


def test_the_shipped_models_load_without_a_word(capfd) -> None:
    for name in ("a", "b"):
        assert (
            load_text_to_image(
                ROOT / "tasks" / "data" / "sd_webster" / name
            ).tokenizer.model_max_length
            == 24
        )
    assert isinstance(CLIPTokenizer, type) and not capfd.readouterr().err
