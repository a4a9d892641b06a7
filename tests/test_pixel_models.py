"""Pixel models: what a class-conditional network is told, its sampler against
diffusers', and folders that are whole or are not.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from membench.errors import UserError
from membench.models.internals import bottleneck
from membench.models.part_files import Weights
from membench.models.pixel import (
    PixelDenoiser,
    classes_of,
    find_model,
    load_pixel_model,
    pixel_hash,
)
from membench.models.pixel_files import Parts, model_config, parts_of
from membench.models.sampling import ddim
from membench.seeds import seed_of
from membench.types import Condition

CLASSES, SIDE = 3, 8
WEIGHTS = "diffusion_pytorch_model.safetensors"


def network(embeddings: int | None, seed: int = 0, **changes: Any) -> UNet2DModel:
    settings = {k: v for k, v in pixel_unet().config.items() if not k.startswith("_")}
    torch.manual_seed(seed)
    return UNet2DModel(**settings | {"num_class_embeds": embeddings, **changes}).eval()


def conditional(
    kind: str = "epsilon", *, null: bool = True, clip: bool = False, batch_size: int = 64
) -> PixelDenoiser:
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=clip)
    return PixelDenoiser(
        network(CLASSES + null),
        scheduler,
        shape=(3, SIDE, SIDE),
        classes=CLASSES,
        batch_size=batch_size,
    )


def told(*labels: int | None) -> list[Condition]:
    return [Condition(f"c{i}", class_label=label) for i, label in enumerate(labels)]


# --------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_pair_and_guidance_are_the_networks_own_with_those_labels(kind: str) -> None:
    model = conditional(kind, batch_size=3)
    labels, t = [0, 2, None, 1], 700
    x = model.noise([("x", k) for k in range(4)], seed=0)
    condition = model.condition(told(*labels))

    def by_hand(classes: list[int]) -> torch.Tensor:
        with torch.no_grad():
            raw = model.network(x, t, torch.tensor(classes)).sample
        abar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # DDPM's betas
        abar = float((1 - abar).cumprod(0)[t])
        return raw if kind == "epsilon" else abar**0.5 * raw + (1 - abar) ** 0.5 * x

    wanted = by_hand([0, 2, CLASSES, 1]), by_hand([CLASSES] * 4)
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(model.eps(x, t, condition), wanted[0], **close)
    assert model.cost.forwards == 4
    null, conditioned = model.eps_pair(x, t, condition)
    assert model.cost.forwards == 12
    torch.testing.assert_close(null, wanted[1], **close)
    torch.testing.assert_close(conditioned, wanted[0], **close)
    torch.testing.assert_close(
        model.guided(x, t, condition, 2.5), wanted[1] + 2.5 * (wanted[0] - wanted[1]), **close
    )
    assert not torch.allclose(wanted[0][0], wanted[1][0], atol=1e-2)  # a label says something
    torch.testing.assert_close(null[2], conditioned[2], **close)  # no label: the null class


def test_what_a_network_can_be_told() -> None:
    scheduler = DDIMScheduler()
    unconditional = PixelDenoiser(pixel_unet(), scheduler, shape=(3, SIDE, SIDE))
    with_null, without = conditional(), conditional(null=False)
    found = [
        (m.has_condition, m.has_null, m.takes_text) for m in (unconditional, with_null, without)
    ]
    assert found == [(False, True, False), (True, True, False), (True, False, False)]
    assert with_null.condition(told(0, None, 2)).embeddings.tolist() == [0, CLASSES, 2]
    assert without.condition(told(2, 0)).embeddings.tolist() == [2, 0]
    assert unconditional.condition(told(None)).embeddings is None


@pytest.mark.parametrize("label", [-1, CLASSES, CLASSES + 1])
@pytest.mark.parametrize("null", [True, False])
def test_a_label_that_the_model_has_not_learned(label: int, null: bool) -> None:
    """The null class is asked for by giving no label: the label after the last is
    somebody's mistake.
    """
    with pytest.raises(UserError, match=f"class {label}: .*classes 0 to 2"):
        conditional(null=null).condition(told(0, label))


def test_no_text_and_no_null_class() -> None:
    for model in (
        conditional(),
        PixelDenoiser(pixel_unet(), DDIMScheduler(), shape=(3, SIDE, SIDE)),
    ):
        with pytest.raises(UserError, match="no text"):
            model.condition([Condition("a", "a rug")])
    model = conditional(null=False)
    x, condition = model.noise([("a", 0)], seed=0), model.condition(told(1))
    for refused in (
        lambda: model.condition(told(1, None)),
        lambda: model.eps_pair(x, 5, condition),
        lambda: model.guided(x, 5, condition, 2.0),
        lambda: bottleneck(model, x, 5),
    ):
        with pytest.raises(UserError, match="no null class"):
            refused()
    model.guided(x, 5, condition, 1.0)  # a plain prediction needs none
    assert model.cost.forwards == 1


def test_an_image_starts_from_its_own_noise_at_draw_0_only() -> None:
    model = conditional()
    own = Condition("a", start=("pool", "7", "3"))
    found = model.starts([(own, 0), (own, 1), (Condition("a"), 0), (Condition("b"), 2)], seed=5)
    words = [("pool", "7", "3"), (5, "a", 1), (5, "a", 0), (5, "b", 2)]
    for row, seed in zip(found, words, strict=True):
        assert torch.equal(
            row,
            torch.randn((3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed_of(*seed))),
        )
    # Of the image, not of the run
    assert torch.equal(model.starts([(own, 0)], seed=6)[0], found[0])
    assert model.starts([], seed=0).shape == (0, 3, SIDE, SIDE)


def test_a_bare_condition_says_what_the_model_is_told_and_no_more() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert Condition("x", None, image, 4, ("pool", "0", "1")).bare == Condition(
        "class/4", class_label=4
    )
    assert Condition("x", None, image, None, ("pool", "0", "1")).bare == Condition("unconditional")
    assert Condition("x", None, image, 0).bare == Condition("class/0", class_label=0)
    assert Condition("x", "a rug", image).bare == Condition("prompt/a rug", "a rug")
    for condition in (Condition("x", "a rug"), Condition("y", class_label=4)):
        assert condition.bare is condition


# ------------------------------------------------------------------------------ sampler


def loop(
    model: PixelDenoiser,
    x: torch.Tensor,
    labels: list[int],
    steps: int,
    guidance: float,
    clip: bool = True,
) -> torch.Tensor:
    """diffusers' own sampler, guided in the network's own prediction, in which it is
    linear too.
    """
    scheduler = DDIMScheduler.from_config(dict(model.scheduler.config) | {"clip_sample": clip})
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            null, conditioned = (
                model.network(x, t, torch.tensor(c)).sample for c in ([CLASSES] * len(x), labels)
            )
            x = scheduler.step(null + guidance * (conditioned - null), t, x, eta=0.0).prev_sample
    return x


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_ddim_gives_the_images_of_diffusers_own_scheduler(guidance: float) -> None:
    model = conditional("v_prediction", clip=True, batch_size=2)
    labels = [2, 0, 1]
    x = model.noise([("x", k) for k in range(3)], seed=0)
    got = ddim(model, x, model.condition(told(*labels)), steps=7, guidance=guidance)
    wanted = loop(model, x, labels, 7, guidance)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    # It did clip
    assert (wanted - loop(model, x, labels, 7, guidance, clip=False)).abs().max() > 0.05
    # And did look at the labels
    assert (wanted - loop(model, x, [0, 1, 2], 7, guidance)).abs().max() > 0.01


# ------------------------------------------------------------------------------ folders


def saved(folder: Path, embeddings: int | None = CLASSES + 1, **changes: Any) -> Path:
    """unet/ and scheduler/, as diffusers saves a pipeline."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", beta_end=0.03)
    DDIMPipeline(unet=network(embeddings, **changes), scheduler=scheduler).save_pretrained(
        folder, safe_serialization=True
    )
    return folder


def flat(folder: Path) -> Path:
    """As the hub keeps google/ddpm-cifar10-32: everything in one folder, a scheduler of
    2022 that samples otherwise.
    """
    network(None).save_pretrained(folder, safe_serialization=True)
    schedule = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
    }
    schedule |= {
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "trained_betas": None,
        "variance_type": "fixed_large",
    }
    (folder / "scheduler_config.json").write_text(json.dumps(schedule))
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"} | parts))
    return folder


def test_a_pipelines_folder(tmp_path) -> None:
    folder = saved(tmp_path / "m")
    assert parts_of(folder) == Parts(
        folder / "unet",
        folder / "scheduler",
        None,
        (Weights("", (folder / "unet" / WEIGHTS,)),),
    )
    assert classes_of(folder, CLASSES, SIDE) == CLASSES
    model = load_pixel_model(folder, CLASSES, batch_size=5)
    assert (model.classes, model.has_null, model.shape, model.batch_size, model.dtype) == (
        3,
        True,
        (3, 8, 8),
        5,
        torch.float32,
    )
    assert (
        isinstance(model.scheduler, DDIMScheduler)
        and model.scheduler.config.prediction_type == "v_prediction"
    )
    abar = (1 - torch.linspace(1e-4, 0.03, 1000, dtype=torch.float64)).cumprod(0)
    torch.testing.assert_close(model.alphas_cumprod, abar, rtol=1e-4, atol=1e-7)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    raw = network(CLASSES + 1)(x, 9, torch.tensor([1, 3])).sample
    torch.testing.assert_close(
        model.network(x, 9, torch.tensor([1, 3])).sample, raw, rtol=1e-5, atol=1e-5
    )
    assert (
        not any(p.requires_grad for p in model.network.parameters()) and not model.network.training
    )
    assert load_pixel_model(folder, CLASSES, dtype="bfloat16").dtype == torch.bfloat16


def test_the_hubs_old_flat_folder(tmp_path) -> None:
    folder = flat(tmp_path / "m")
    assert parts_of(folder) == Parts(folder, folder, None, (Weights("", (folder / WEIGHTS,)),))
    assert classes_of(folder, 10, SIDE) == 0
    model = load_pixel_model(folder, 0)
    assert not model.has_condition and isinstance(model.scheduler, DDIMScheduler)
    config = model.scheduler.config
    assert (config.prediction_type, config.clip_sample, config.beta_end) == ("epsilon", True, 0.02)
    theirs = DDPMScheduler.from_pretrained(folder)
    assert torch.equal(model.alphas_cumprod.float(), theirs.alphas_cumprod)
    images = model.decode(
        ddim(model, model.noise([("a", 0)], seed=0), model.condition([]), steps=2, guidance=1.0)
    )
    assert images.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("embeddings", [None, 10, 11])
def test_networks_without_classes_with_them_and_with_a_null_class(
    tmp_path, embeddings: int | None
) -> None:
    folder = saved(tmp_path / "m", embeddings)
    classes = classes_of(folder, 10, SIDE)
    model = load_pixel_model(folder, classes)
    assert (classes, model.has_null) == {None: (0, True), 10: (10, False), 11: (10, True)}[
        embeddings
    ]


def test_the_hash_is_of_weights_configuration_and_schedule(tmp_path) -> None:
    folder = saved(tmp_path / "m")
    first = pixel_hash(folder)
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "training.json").write_text("{}")
    edit(copy / "unet" / "config.json", _name_or_path="once/was/here")
    assert pixel_hash(copy) == first
    seen = {first}
    for change in (
        lambda: edit(copy / "scheduler" / "scheduler_config.json", prediction_type="epsilon"),
        lambda: edit(copy / "unet" / "config.json", sample_size=16),
        lambda: poke(copy / "unet" / WEIGHTS, 0.5),
        # As DPM-Solver stores it, in a word that is no JSON
        lambda: edit(copy / "scheduler" / "scheduler_config.json", lambda_min_clipped=-math.inf),
        lambda: edit(copy / "scheduler" / "scheduler_config.json", lambda_min_clipped=-5.1),
    ):
        change()
        seen.add(pixel_hash(copy))
    assert len(seen) == 6


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def poke(file: Path, value: float) -> None:
    tensors = load_file(file)
    tensors["conv_in.bias"][0] = value
    save_file(tensors, file, metadata={"format": "pt"})


def drop(file: Path) -> None:
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


class Trap:
    """Whoever unpickles it runs its code."""

    sprung = False

    def __reduce__(self):
        return exec, ("from test_pixel_models import Trap; Trap.sprung = True",)


def as_bin(folder: Path, held: object) -> None:
    torch.save(held, folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / UNET).unlink()


def test_weights_of_the_oldest_pipelines_are_read_as_tensors_only(tmp_path) -> None:
    folder = saved(tmp_path / "m")
    safe = load_pixel_model(folder, CLASSES)
    as_bin(folder, load_file(folder / UNET))
    found = load_pixel_model(folder, CLASSES)
    for name, tensor in safe.network.state_dict().items():
        assert torch.equal(tensor, found.network.state_dict()[name])
    assert len(pixel_hash(folder)) == 64 and not Trap.sprung


CONFIG, UNET, SCHEDULE = "unet/config.json", f"unet/{WEIGHTS}", "scheduler/scheduler_config.json"
BROKEN = {
    "no network": (lambda f: shutil.rmtree(f / "unet"), ["no UNet2DModel", "config.json"]),
    "no weights": (lambda f: (f / UNET).unlink(), ["unet", f"lacks {WEIGHTS}"]),
    "no schedule": (
        lambda f: shutil.rmtree(f / "scheduler"),
        ["scheduler_config.json", "noise schedule"],
    ),
    "pickled code": (
        lambda f: as_bin(f, Trap()),
        ["diffusion_pytorch_model.bin", "more than tensors"],
    ),
    "pickled list": (
        lambda f: as_bin(f, [1, 2]),
        ["diffusion_pytorch_model.bin", "not a dictionary of tensors"],
    ),
    "pickled nan": (
        lambda f: as_bin(f, {"conv_in.bias": torch.full((8,), float("nan"))}),
        ["conv_in.bias", "NaN"],
    ),
    "not torch's": (
        lambda f: (f / UNET).rename(f / "unet" / "diffusion_pytorch_model.bin"),
        ["more than tensors"],
    ),
    "nan": (lambda f: poke(f / UNET, float("nan")), [WEIGHTS, "NaN"]),
    "infinite": (lambda f: poke(f / UNET, float("inf")), [WEIGHTS, "infinite"]),
    "truncated": (lambda f: cut(f / UNET), [WEIGHTS, "cut short"]),
    "empty weights": (lambda f: (f / UNET).write_bytes(b""), [WEIGHTS, "cut short"]),
    "a tensor is missing": (lambda f: drop(f / UNET), ["conv_in.weight"]),
    "other class": (
        lambda f: edit(f / CONFIG, _class_name="UNet2DConditionModel"),
        ["UNet2DConditionModel", "not UNet2DModel"],
    ),
    "no JSON": (lambda f: (f / CONFIG).write_text('{"_class'), [CONFIG, "no JSON"]),
    "JSON of a list": (lambda f: (f / CONFIG).write_text("[1, 2]"), [CONFIG, "no JSON object"]),
    "schedule no JSON": (lambda f: (f / SCHEDULE).write_text("beta"), ["scheduler_config.json"]),
    "other size": (lambda f: edit(f / CONFIG, sample_size=16), ["generates 16x16", "data are 8x8"]),
    "no size": (lambda f: edit(f / CONFIG, sample_size=None), ["sample_size is missing"]),
    "not square": (lambda f: edit(f / CONFIG, sample_size=[8, 16]), ["[8, 16]", "square"]),
    "size of words": (lambda f: edit(f / CONFIG, sample_size="8"), ["sample_size is '8'"]),
    "size of sizes": (lambda f: edit(f / CONFIG, sample_size=[[8], [8]]), ["[[8], [8]]"]),
    "levels": (
        lambda f: edit(f / CONFIG, time_embedding_type="fourier"),
        ["time_embedding_type is 'fourier'"],
    ),
    "levels of nothing": (
        lambda f: edit(f / CONFIG, time_embedding_type="x"),
        ["time_embedding_type is 'x'"],
    ),
    "two channels": (
        lambda f: edit(f / CONFIG, in_channels=2, out_channels=2),
        ["of 2 channels", "8x8 of 3"],
    ),
    "a variance that no scheduler names": (
        lambda f: edit(f / CONFIG, out_channels=6),
        ["6 channels for 3", "variance_type"],
    ),
    "more channels": (lambda f: edit(f / CONFIG, out_channels=5), ["3 channels and gives 5"]),
    "no decoder": (
        lambda f: edit(f / "model_index.json", _class_name="LDMPipeline"),
        ["latent model", "vqvae"],
    ),
    "too many classes": (
        lambda f: edit(f / CONFIG, num_class_embeds=CLASSES + 2),
        [f"one of {CLASSES + 2} classes", f"data have {CLASSES}"],
    ),
    "too few classes": (
        lambda f: edit(f / CONFIG, num_class_embeds=CLASSES - 1),
        [f"one of {CLASSES - 1} classes"],
    ),
    "told something else": (
        lambda f: edit(f / CONFIG, num_class_embeds=None, class_embed_type="timestep"),
        ["class_embed_type is 'timestep'"],
    ),
    "other width": (lambda f: edit(f / CONFIG, block_out_channels=[8, 16]), ["cannot be loaded"]),
    "classes do not fit the weights": (
        lambda f: edit(f / CONFIG, num_class_embeds=CLASSES),
        ["cannot be loaded"],
    ),
    "variance exploding": (
        lambda f: (f / SCHEDULE).write_text('{"_class_name": "ScoreSdeVeScheduler"}'),
        ["ScoreSdeVeScheduler", "no betas"],
    ),
    "flow": (lambda f: edit(f / SCHEDULE, prediction_type="flow"), ["flow"]),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_folder_that_does_not_do(tmp_path, how: str) -> None:
    """One line that names the file or the number; nothing is loaded with weights that
    are not there.
    """
    folder = saved(tmp_path / "m")
    damage, words = BROKEN[how]
    damage(folder)
    with pytest.raises(UserError) as error:
        load_pixel_model(folder, classes_of(folder, CLASSES, SIDE))
    text = str(error.value)
    assert ("\n" not in text and str(folder) in text) or how == "flow", text
    assert all(word in text for word in words), text
    assert not Trap.sprung


def test_unknown_dtype(tmp_path) -> None:
    with pytest.raises(UserError, match=r"unknown dtype 'float8': choose float32"):
        load_pixel_model(saved(tmp_path / "m"), CLASSES, dtype="float8")
    assert model_config(tmp_path / "m")["num_class_embeds"] == CLASSES + 1


def test_a_model_is_what_the_task_says_of_it(tmp_path) -> None:
    """labels=class of an unconditional model, and a control model that is told
    something else, are refused before anything is drawn.
    """
    from membench.similarity.spaces import pixel_space
    from membench.tasks.pixels.task import PixelOptions, Setting, load_setting

    bare, knows = saved(tmp_path / "bare", None), saved(tmp_path / "knows")
    info, training = (
        SimpleNamespace(name="t", space=pixel_space(SIDE), sampling={}),
        SimpleNamespace(),
    )
    settings = {
        "control": False,
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 4,
        "progress": False,
    }

    def load(folder: Path, asked: Path, **options: Any) -> None:
        load_setting(
            Setting(info, "full", folder, asked, CLASSES, SIDE, training),
            PixelOptions(**options),
            **settings,
        )

    with pytest.raises(UserError, match=r"labels=class, but .*bare is unconditional"):
        load(bare, bare, labels="class")
    with pytest.raises(UserError, match="not told the same"):
        load(knows, bare)


# ---------------------------------------------------------------------------------- hub


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, whatever the environment was when huggingface_hub read
    it; a try to connect fails the test.
    """
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tmp_path / "hub"
    assert not tried


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch, offline) -> None:
    (tmp_path / "google" / "ddpm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (
        find_model("google/ddpm") == Path("google/ddpm") and find_model(str(tmp_path)) == tmp_path
    )


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "./no/where",
        "/no/where",
        "a/b/c",
        "a/b c",
        "a/b--c",
        "a/b..c",
        "a/b-",
        "-a/b",
        "a/..",
        "a/" + "b" * 100,
    ],
)
def test_neither_a_folder_nor_an_id(name: str, offline) -> None:
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        find_model(name)


def test_a_hub_id_offline(offline) -> None:
    with pytest.raises(
        UserError,
        match=(
            r"model google/ddpm-cifar10-32 is not in the hub's cache, and --offline forbids"
            r" .*--model FOLDER"
        ),
    ):
        find_model("google/ddpm-cifar10-32")
    cache = offline / "models--google--ddpm-cifar10-32"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    flat(cache / "snapshots" / ("0" * 40))
    folder = find_model("google/ddpm-cifar10-32")
    assert (
        folder == cache / "snapshots" / ("0" * 40)
        and load_pixel_model(folder, classes_of(folder, 10, SIDE)).classes == 0
    )
