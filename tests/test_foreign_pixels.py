"""Pixel models as people have them: latent ones with their decoder, grey ones, learned
variances, variants and shards; each draws what diffusers draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixel_unet
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    LDMPipeline,
    UNet2DModel,
    VQModel,
)
from foreign_models import edit
from safetensors.torch import load_file, save_file

from membench.auditing.subject import find_subject
from membench.errors import UserError
from membench.models.pixel import (
    LatentImages,
    PixelDenoiser,
    classes_of,
    load_pixel_model,
    pixel_hash,
)
from membench.models.sampling import ddim

SIDE, UNET = 8, "unet/diffusion_pytorch_model.safetensors"


def network(**changes: Any) -> UNet2DModel:
    settings = {k: v for k, v in pixel_unet().config.items() if not k.startswith("_")}
    torch.manual_seed(0)
    return UNet2DModel(**settings | changes).eval()


def images_of(folder: Path, **how: Any) -> tuple[PixelDenoiser, torch.Tensor, np.ndarray]:
    model = load_pixel_model(folder, 0, **how)
    x = model.noise([("x", k) for k in range(2)], seed=0)
    end = ddim(model, x, model.condition([]), steps=4, guidance=1.0)
    return model, x, model.decode(end)


def decoder(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    settings = dict(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8),
        norm_num_groups=2,
        latent_channels=3,
        scaling_factor=0.5,
        mid_block_add_attention=False,
    )
    if kind == "kl":
        return AutoencoderKL(**settings)
    model = VQModel(num_vq_embeddings=32, **settings)
    # Codes as long as latents, as trained ones are: else scaling would not matter
    torch.nn.init.normal_(model.quantize.embedding.weight)
    return model


@pytest.fixture(scope="module", params=["vq", "kl"])
def latent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CompVis/ldm-celebahq-256's layout; for a VAE the folder is called vae, too."""
    folder = tmp_path_factory.mktemp("ldm") / "m"
    LDMPipeline(
        vqvae=decoder(request.param),
        unet=network(),
        scheduler=DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False
        ),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def test_latents_are_decoded_as_diffusers_does(latent: Path, monkeypatch: Any) -> None:
    model, x, images = images_of(latent)
    assert isinstance(model, LatentImages) and model.latents
    assert classes_of(latent, 10, 4 * SIDE) == 0
    with pytest.raises(UserError, match="generates 32x32"):  # and not its latents' 8x8
        classes_of(latent, 10, SIDE)
    pipeline = LDMPipeline.from_pretrained(latent, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    module = "diffusers.pipelines.deprecated.latent_diffusion_uncond"
    monkeypatch.setattr(
        f"{module}.pipeline_latent_diffusion_uncond.randn_tensor", lambda *_, **__: x.clone()
    )
    wanted = pipeline(batch_size=2, num_inference_steps=4, output_type="pil").images
    wanted = np.stack([np.asarray(image) for image in wanted])
    assert images.shape == (2, 32, 32, 3) and wanted.std() > 5
    assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 1
    assert model.cost.decodes == 2 and model.encode(images).shape == (2, 3, SIDE, SIDE)


def test_the_decoder_is_part_of_the_model(latent: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(latent, tmp_path / "m"))
    first = pixel_hash(copy)
    assert first == pixel_hash(latent)
    edit(copy / "vqvae" / "config.json", scaling_factor=0.7)
    assert pixel_hash(copy) != first
    edit(copy / "vqvae" / "config.json", latent_channels=4)
    with pytest.raises(UserError, match=r"3 channels are not the latent channels of vqvae \(4\)"):
        classes_of(copy, 10, 32)
    edit(copy / "vqvae" / "config.json", latent_channels=3, latents_mean=[0.1] * 3)
    with pytest.raises(UserError, match="latents_mean: its latents are shifted"):
        load_pixel_model(copy, 0)
    shutil.rmtree(copy / "vqvae")
    with pytest.raises(UserError, match=r"latent model, and its decoder .*vqvae is missing"):
        load_pixel_model(copy, 0)


def saved(folder: Path, scheduler: Any = None, **changes: Any) -> Path:
    scheduler = scheduler or DDIMScheduler()
    DDIMPipeline(unet=network(**changes), scheduler=scheduler).save_pretrained(
        folder, safe_serialization=True
    )
    return folder


def test_the_size_may_be_written_as_height_and_width(tmp_path: Path) -> None:
    for name, size in (("one", SIDE), ("two", [SIDE, SIDE])):
        folder = tmp_path / name
        DDIMPipeline(unet=network(), scheduler=DDIMScheduler()).save_pretrained(folder)
        edit(folder / "unet" / "config.json", sample_size=size)
        assert classes_of(folder, 0, SIDE) == 0
        assert find_subject(str(folder)).side == SIDE
    (_, _, one), (_, _, two) = (images_of(tmp_path / name) for name in ("one", "two"))
    assert (one == two).all()


def test_an_audit_of_latents_is_of_images(latent: Path) -> None:
    """The U-Net of 8 x 8 latents draws 32 x 32 pixels, which the data are cut to."""
    subject = find_subject(str(latent))
    assert subject.side == 4 * SIDE
    model = subject.load(0, device="cpu", dtype="float32", batch_size=2)
    assert model.decode(model.noise([("x", 0)], seed=0)).shape == (1, 4 * SIDE, 4 * SIDE, 3)


def test_a_grey_model(tmp_path: Path, monkeypatch: Any) -> None:
    folder = saved(tmp_path / "m", in_channels=1, out_channels=1)
    model, x, images = images_of(folder)
    pipeline = DDIMPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        "diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: x.clone()
    )
    wanted = np.stack([np.asarray(i) for i in pipeline(batch_size=2, num_inference_steps=4).images])
    assert wanted.shape == (2, SIDE, SIDE) and images.shape == (2, SIDE, SIDE, 3)
    for channel in range(3):
        assert np.abs(images[..., channel].astype(int) - wanted.astype(int)).max() <= 1
    torch.testing.assert_close(
        model.encode(images), torch.from_numpy(images[..., 0])[:, None] / 127.5 - 1
    )


def test_a_learned_variance_is_left_out_and_the_mean_is_diffusers(tmp_path: Path) -> None:
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    folder = saved(tmp_path / "m", scheduler, out_channels=6)
    model = load_pixel_model(folder, 0)
    x, t = model.noise([("x", 0)], 0), 400
    with torch.no_grad():
        both = network(out_channels=6)(x, t).sample
    theirs = scheduler.step(both, t, x).pred_original_sample
    x0, eps = model.x0_eps(model.prediction(x, t, model.condition([])), x, t)
    torch.testing.assert_close(x0, theirs, rtol=1e-4, atol=1e-4)
    assert eps.shape == x.shape
    edit(folder / "scheduler" / "scheduler_config.json", variance_type="fixed_small")
    with pytest.raises(UserError, match=r"6 channels for 3.*variance_type.*'fixed_small'"):
        load_pixel_model(folder, 0)


@pytest.mark.parametrize("how", [{"variant": "fp16"}, {"max_shard_size": "20KB"}])
def test_variants_and_shards(tmp_path: Path, how: dict[str, str]) -> None:
    folder = saved(tmp_path / "m")
    plain = load_file(folder / UNET)
    (folder / UNET).unlink()
    net = network()
    (net.half() if "variant" in how else net).save_pretrained(folder / "unet", **how)
    files = sorted(f.name for f in (folder / "unet").glob("*.safetensors"))
    assert UNET.partition("/")[2] not in files and (len(files) > 1) == ("max_shard_size" in how)
    found = load_pixel_model(folder, 0).network.state_dict()
    for name, tensor in plain.items():
        wanted = tensor.half().float() if "variant" in how else tensor
        assert torch.equal(found[name], wanted)
    first = pixel_hash(folder)
    held = load_file(folder / "unet" / files[-1])
    save_file({n: t + 1 for n, t in held.items()}, folder / "unet" / files[-1])
    assert pixel_hash(folder) != first


def test_training_weights_only_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    held = {n: t + 1 for n, t in load_file(folder / UNET).items()}
    save_file(held, folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    plain, raw = load_pixel_model(folder, 0), load_pixel_model(folder, 0, variant="non_ema")
    torch.testing.assert_close(raw.network.conv_in.bias, plain.network.conv_in.bias + 1)
    assert pixel_hash(folder) != pixel_hash(folder, "non_ema")
    with pytest.raises(UserError, match="no weights of variant=bf16"):
        load_pixel_model(folder, 0, variant="bf16")
