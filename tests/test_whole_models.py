"""A model that is not whole is refused in one line, whatever is missing; one that is
whole proves it.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pipelines import change
from test_pixel_models import CLASSES, SIDE, conditional, saved

from membench.errors import UserError
from membench.models.latent import PROMPTS, LatentDenoiser, load_model
from membench.models.pipeline_kinds import check_kind
from membench.models.pixel import PixelDenoiser, classes_of, load_pixel_model, prove_pixels
from membench.models.stable_diffusion_folder import folder_hash
from membench.types import Condition, Cost

UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model",
    "text_encoder/model",
    "vae/diffusion_pytorch_model",
)
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1059962\n"
)
Damage = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path, tiny_pipeline_folder: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline_folder, tmp_path / "model"))


def load(folder: Path) -> LatentDenoiser:
    """With everything that a run may ask of it."""
    model = load_model(folder, "cpu", "float32", 4)
    assert isinstance(model, LatentDenoiser)
    model.ready_images()
    return model


def tensors(
    name: str, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / f"{name}.safetensors"
        save_file(edit(load_file(file)), file, metadata={"format": "pt"})

    return damage


def each(
    edit: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda held: {name: edit(tensor).contiguous() for name, tensor in held.items()}


def config(part: str, **values: Any) -> Damage:
    """null is written as null."""

    def damage(folder: Path) -> None:
        file = folder / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return damage


def slow_tokenizer(folder: Path, **specials: str | None) -> None:
    """vocab.json and merges.txt in place of tokenizer.json, as Stable Diffusion 1.x has
    them.
    """
    where = folder / "tokenizer"
    model = json.loads((where / "tokenizer.json").read_text())["model"]
    (where / "tokenizer.json").unlink()
    (where / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (where / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    named = (
        {f"{role}_token": "<|endoftext|>" for role in ("eos", "unk", "pad")}
        | {"bos_token": "<|startoftext|>"}
        | specials
    )
    (where / "special_tokens_map.json").write_text(json.dumps(named))
    (where / "tokenizer_config.json").write_text(
        json.dumps(named | {"model_max_length": 24, "tokenizer_class": "CLIPTokenizer"})
    )


def slow(damage: Damage, **specials: str | None) -> Damage:
    def both(folder: Path) -> None:
        slow_tokenizer(folder, **specials)
        damage(folder / "tokenizer")

    return both


def cut_merges(folder: Path, lines: int, letters: int = 0) -> None:
    kept = "\n".join((folder / "merges.txt").read_text().splitlines()[:lines]) + "\n"
    (folder / "merges.txt").write_text(kept[: len(kept) - letters])


def exchange_merges(folder: Path, first: int, second: int) -> None:
    lines = (folder / "merges.txt").read_text().splitlines()
    lines[first], lines[second] = lines[second], lines[first]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def exchange_in_json(folder: Path) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    held = json.loads(file.read_text())
    merges = held["model"]["merges"]
    merges[5], merges[6] = merges[6], merges[5]
    file.write_text(json.dumps(held))


def cut_vocabulary(folder: Path) -> None:
    held = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(dict(list(held.items())[:600])))


def shrink(folder: Path) -> None:
    """A tokenizer whose files fit each other and not the text encoder."""
    file = folder / "tokenizer" / "tokenizer.json"
    held = json.loads(file.read_text())
    merges = held["model"]["merges"][:100]
    made = {"".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in merges}
    kept = [
        t
        for t in held["model"]["vocab"]
        if len(t.removesuffix("</w>")) == 1 or t in made or t.startswith("<|")
    ]
    held["model"] |= {"merges": merges, "vocab": {token: i for i, token in enumerate(kept)}}
    file.write_text(json.dumps(held))


def only(folder: Path, name: str, held: dict[str, torch.Tensor]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    save_file(held, folder / name)


def names_no(*roles: str) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "tokenizer" / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | dict.fromkeys(roles)))

    return damage


def wrong(**values: Any) -> Damage:
    return lambda f: change(f / "tokenizer" / "tokenizer_config.json", **values)


def pointer(name: str) -> Damage:
    return lambda f: (f / name).write_bytes(POINTER)


def half(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for n, t in held.items()}


def blind(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A U-Net whose cross-attention says nothing."""
    return {n: t * 0 if "attn2.to_out" in n else t for n, t in held.items()}


def hollow(name: str) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / f"{name}.safetensors"
        held = file.read_bytes()
        file.write_bytes(held[:-5000] + bytes(5000))

    return damage


def move(file: Path) -> None:
    file.rename(file.with_name("moved.txt"))


def link(file: Path, to: Path) -> None:
    move(file)
    file.symlink_to(to)


LORA = {"unet.down_blocks.0.attentions.0.lora_A.weight": torch.zeros(4, 4)}
TOKENIZER = {
    "no tokenizer.json": (
        lambda f: (f / "tokenizer" / "tokenizer.json").unlink(),
        "lacks vocab.json and merges.txt",
    ),
    "no vocabulary": (slow(lambda t: (t / "vocab.json").unlink()), "lacks vocab.json"),
    "no merges": (slow(lambda t: (t / "merges.txt").unlink()), "lacks merges.txt"),
    "empty vocabulary": (
        slow(lambda t: (t / "vocab.json").write_text("")),
        "vocab.json is no JSON",
    ),
    "a vocabulary of nothing": (
        slow(lambda t: (t / "vocab.json").write_text("{}")),
        "vocab.json is empty",
    ),
    "a list for a vocabulary": (
        slow(lambda t: (t / "vocab.json").write_text('["a"]')),
        "vocab.json holds no JSON object",
    ),
    "empty merges": (slow(lambda t: (t / "merges.txt").write_text("")), "merges.txt is empty"),
    "merges of a heading": (
        slow(lambda t: (t / "merges.txt").write_text("#version: 0.2\n")),
        "merges.txt is empty",
    ),
    "merges cut in a line": (
        slow(lambda t: cut_merges(t, 300, 2)),
        "tokenizer cannot be loaded|merges are cut",
    ),
    "merges cut at a line": (slow(lambda t: cut_merges(t, 300)), "the merges are cut short"),
    "one merge is lost": (slow(lambda t: cut_merges(t, 874)), "the merges are cut short"),
    "two merges exchanged": (
        slow(lambda t: exchange_merges(t, 40, 700)),
        "the merges are out of order",
    ),
    "neighbouring merges exchanged": (
        slow(lambda t: exchange_merges(t, 1, 2)),
        "the merges are out of order",
    ),
    "merges of tokenizer.json exchanged": (exchange_in_json, "the merges are out of order"),
    "merges of binary": (
        slow(lambda t: (t / "merges.txt").write_bytes(b"\xff\xfe\x00")),
        "merges.txt cannot be read",
    ),
    "vocabulary cut short": (slow(cut_vocabulary), "tokenizer cannot be loaded"),
    "vocabulary cut in a line": (
        slow(lambda t: (t / "vocab.json").write_bytes((t / "vocab.json").read_bytes()[:900])),
        "no JSON",
    ),
    "tokenizer.json cut short": (
        lambda f: (f / "tokenizer" / "tokenizer.json").write_text('{"model": {'),
        "no JSON",
    ),
    "tokenizer.json of nothing": (
        lambda f: (f / "tokenizer" / "tokenizer.json").write_text("{}"),
        "tokenizer.json is empty",
    ),
    "vocabulary behind a pointer": (slow(pointer("vocab.json")), "git lfs pull"),
    "merges behind a pointer": (slow(pointer("merges.txt")), "git lfs pull"),
    "tokenizer behind a pointer": (pointer("tokenizer/tokenizer.json"), "git lfs pull"),
    "a smaller model's": (shrink, "the text encoder embeddings for 1200"),
    "no tokenizer_config.json": (
        lambda f: (f / "tokenizer" / "tokenizer_config.json").unlink(),
        "lacks tokenizer_config.json",
    ),
    "an empty tokenizer_config.json": (
        lambda f: (f / "tokenizer" / "tokenizer_config.json").write_text("{}"),
        "names no pad_token",
    ),
    "no padding token": (slow(lambda t: None, pad_token=None), "names no pad_token"),
    "no begin": (names_no("bos_token"), "names no bos_token"),
    "no end": (names_no("eos_token"), "names no eos_token"),
    "a letter for a begin": (wrong(bos_token="!"), "bos_token is '!', a piece of words"),
    "a word for an end": (wrong(eos_token="red</w>"), "eos_token is 'red</w>', a piece of words"),
    "an end for a begin": (wrong(bos_token="<|endoftext|>"), "are both '<|endoftext|>'"),
    "a padding token that is not there": (wrong(pad_token="<pad>"), "1201 tokens"),
    "a padding token of a number": (wrong(pad_token=5), "pad_token is '5'"),
    "a length of text": (wrong(model_max_length="x"), "model_max_length"),
    "no length": (wrong(model_max_length=-1), "model_max_length is -1"),
    "a length of one": (wrong(model_max_length=1), "model_max_length is 1"),
}
PARTS = {
    "text encoder without its config": (
        lambda f: (f / "text_encoder" / "config.json").unlink(),
        "text_encoder lacks config.json",
    ),
    "VAE without its config": (
        lambda f: (f / "vae" / "config.json").unlink(),
        "vae lacks config.json",
    ),
    "config behind a pointer": (pointer("vae/config.json"), "git lfs pull"),
    "weights behind a pointer": (pointer(f"{UNET}.safetensors"), "git lfs pull"),
    "VAE behind a pointer": (pointer(f"{VAE}.safetensors"), "git lfs pull"),
    "model_index.json behind a pointer": (pointer("model_index.json"), "git lfs pull"),
    "deep JSON": (
        lambda f: (f / "unet" / "config.json").write_text("[" * 100_000),
        "config.json is no JSON",
    ),
    "fp8": (tensors(UNET, half), "stored as F8_E4M3: fp8 or quantised"),
    "fp8 text encoder": (tensors(TEXT, half), "fp8 or quantised"),
    "fp8 VAE": (tensors(VAE, half), "fp8 or quantised"),
    "int8": (tensors(TEXT, each(lambda t: t.to(torch.int8))), "stored as I8"),
    "a download broken off": (hollow(UNET), "unet.*ends in 4,096 bytes of zeros"),
    "a download of the VAE broken off": (hollow(VAE), "vae.*ends in 4,096 bytes of zeros"),
    "a link to nothing": (
        lambda f: link(f / f"{UNET}.safetensors", f / "nowhere"),
        r"model\.safetensors is a link to nothing",
    ),
    "a folder for weights": (
        lambda f: (move(f / f"{TEXT}.safetensors"), (f / f"{TEXT}.safetensors").mkdir()),
        r"model\.safetensors is not a file",
    ),
    "no class of a pipeline": (
        lambda f: (f / "model_index.json").write_text("{}"),
        "model_index.json names no _class_name",
    ),
    "no tensor": (tensors(VAE, lambda held: {}), "holds no tensor"),
    "quantised": (
        config("unet", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "quantization_config",
    ),
    "quantised text encoder": (
        config("text_encoder", quantization_config=5),
        "quantization_config",
    ),
    "LoRA": (
        lambda f: only(f, "pytorch_lora_weights.safetensors", LORA),
        "LoRA or another adapter",
    ),
    "LoRA by another name": (
        lambda f: only(f, "style.safetensors", LORA),
        "LoRA or another adapter",
    ),
    "a learned word": (
        lambda f: only(f, "learned_embeds.safetensors", {"<cat>": torch.zeros(16)}),
        "textual inversion",
    ),
    "a whole checkpoint": (
        lambda f: only(f, "sd.safetensors", {"model.diffusion_model.x": torch.zeros(1)}),
        "sd_webster.base=",
    ),
    "U-Net of another class": (
        config("unet", _class_name="UNet3DConditionModel"),
        "unet/config.json is of class UNet3DConditionModel",
    ),
    "VAE of another class": (
        config("vae", _class_name="AutoencoderTiny"),
        "vae/config.json is of class AutoencoderTiny",
    ),
    "text encoder of another class": (
        config("text_encoder", architectures=["T5EncoderModel"]),
        "is of class T5EncoderModel",
    ),
    "text encoder of another type": (config("text_encoder", model_type="bert"), "is of type bert"),
    "told by another encoder": (config("unet", encoder_hid_dim=16), "another encoder's embeddings"),
    "a word for a size": (config("unet", sample_size="8"), "sample_size is '8'"),
    "one number in a list": (config("unet", sample_size=[8]), "not one number or two"),
    "a size of truth": (config("unet", sample_size=True), "sample_size is 'True'"),
    "no end of size": (config("unet", sample_size=10**9), "sample_size"),
    "a number for a list": (config("unet", block_out_channels=5), "block_out_channels is '5'"),
    "an empty list": (config("unet", block_out_channels=[]), "block_out_channels is '\\[\\]'"),
    "an object for a list": (config("unet", block_out_channels={"a": 1}), "block_out_channels"),
    "negative layers": (config("unet", layers_per_block=-1), "layers_per_block is '-1'"),
    "a million layers": (config("unet", layers_per_block=10**6), "layers_per_block"),
    "null layers": (config("unet", layers_per_block=None), "layers_per_block is 'None'"),
    "another activation": (config("unet", act_fn="evil"), "unet cannot be loaded"),
    "a number for an activation": (config("unet", act_fn=3), "act_fn is '3'"),
    "another block": (config("unet", down_block_types=["Evil", "Evil"]), "unet cannot be loaded"),
    "no blocks": (config("unet", down_block_types=None), "down_block_types is 'None'"),
    "no groups": (config("unet", norm_num_groups=0), "norm_num_groups"),
    "groups that do not divide": (config("unet", norm_num_groups=3), "unet cannot be loaded"),
    "a word for dropout": (config("unet", dropout="x"), "dropout is 'x'"),
    "cross-attention of no width": (
        config("unet", cross_attention_dim=None),
        "cross_attention_dim is 'None'",
    ),
    "cross-attention of another width": (config("unet", cross_attention_dim=32), "shape"),
    "other channels": (
        config("unet", in_channels=5, out_channels=5),
        "not the VAE's latent channels",
    ),
    "VAE of other channels": (config("vae", latent_channels="4"), "latent_channels is '4'"),
    "no scale": (config("vae", scaling_factor=None), "scaling_factor is 'None'"),
    "a scale of zero": (config("vae", scaling_factor=0), "scaling_factor is '0'"),
    "a scale of nan": (config("vae", scaling_factor=float("nan")), "scaling_factor is 'nan'"),
    "a scale of text": (config("vae", scaling_factor="x"), "scaling_factor is 'x'"),
    "VAE of forty blocks": (config("vae", block_out_channels=[4] * 40), "block_out_channels"),
    # With the package kernels, transformers would run what the hub holds under that name
    "attention from the hub": (
        config("text_encoder", attn_implementation="evil/kernel"),
        "attn_implementation is 'evil/kernel'",
    ),
    # With peft, transformers would lay it over the weights, which the model's hash is of
    "an adapter beside the weights": (
        lambda f: (f / "text_encoder" / "adapter_config.json").write_text("{}"),
        "text_encoder holds an adapter",
    ),
    "an index that is a link to nothing": (
        lambda f: (
            (f / "model_index.json").unlink(),
            (f / "model_index.json").symlink_to("../blobs/0"),
        ),
        "model_index.json is a link to nothing",
    ),
    "no hidden size": (config("text_encoder", hidden_size=0), "hidden_size is '0'"),
    "no layers": (config("text_encoder", num_hidden_layers=0), "num_hidden_layers is '0'"),
    "heads that do not divide": (
        config("text_encoder", num_attention_heads=3),
        "text_encoder cannot be loaded",
    ),
    "another size of vocabulary": (
        config("text_encoder", vocab_size=1199),
        "token_embedding.weight is of shape",
    ),
    "other positions": (
        config("text_encoder", max_position_embeddings=20),
        "position_embedding.weight is of shape",
    ),
    "no end of vocabulary": (config("text_encoder", vocab_size=10**12), "vocab_size"),
    "another activation of the text encoder": (
        config("text_encoder", hidden_act="evil"),
        "text_encoder cannot be loaded: KeyError",
    ),
}


def deaf_to_noise(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return held | {"conv_in.weight": held["conv_in.weight"] * 0}


PROVED = {
    "deaf to noise": (tensors(UNET, deaf_to_noise), "predicts the same whatever noise it is given"),
    "zeros": (tensors(UNET, each(torch.zeros_like)), "predicts the same whether it is told"),
    "deaf to prompts": (
        tensors(UNET, blind),
        "predicts the same whether it is told 'a red circle' or 'two blue boats'",
    ),
    "a text encoder of zeros": (tensors(TEXT, each(torch.zeros_like)), "the same embedding"),
    "overflow": (
        tensors(UNET, each(lambda t: torch.full_like(t, 1e30))),
        "predicts NaN or infinity as float32",
    ),
    "overflow of the text encoder": (
        tensors(TEXT, each(lambda t: t * 1e30)),
        "text_encoder returns NaN or infinity",
    ),
    "overflow of the VAE": (tensors(VAE, each(lambda t: t * 1e30)), "vae returns NaN or infinity"),
    "a VAE of zeros": (
        tensors(VAE, each(torch.zeros_like)),
        "decodes different images to the same one",
    ),
}


@pytest.mark.parametrize("how", [*TOKENIZER, *PARTS, *PROVED])
def test_a_pipeline_that_is_not_whole(folder: Path, how: str) -> None:
    damage, words = (TOKENIZER | PARTS | PROVED)[how]
    damage(folder)
    with pytest.raises(UserError, match=words) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["circle", "nothing", "folder"])
def test_a_file_that_cannot_be_read_is_named_before_anything_is_loaded(folder, how) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    file.unlink()
    if how == "folder":
        file.mkdir()
    else:
        file.symlink_to(file if how == "circle" else folder / "nowhere")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read \(.*get it again"):
        folder_hash(folder)


def deeper(folder: Path) -> None:
    """Twice the layers of text encoder in the files, which its configuration does not
    name.
    """
    held = load_file(folder / f"{TEXT}.safetensors")
    more = {name.replace("layers.0", "layers.1"): tensor.clone() for name, tensor in held.items()}
    save_file(more | held, folder / f"{TEXT}.safetensors", metadata={"format": "pt"})


def test_layers_that_the_configuration_leaves_out_are_not_passed_over(folder: Path) -> None:
    """A text encoder of half its layers loads, and gives other embeddings; tensors of
    something else do no harm.
    """
    tensors(TEXT, lambda held: held | {"text_projection.weight": torch.zeros(2, 2)})(folder)
    tensors(UNET, lambda held: held | {"foreign.weight": torch.zeros(2)})(folder)
    load(folder)
    deeper(folder)
    with pytest.raises(
        UserError,
        match=(
            r"text_encoder holds 16 tensors that its config.json builds no layer for, such as"
            r" .*layers.1"
        ),
    ):
        load(folder)


def test_published_layouts_are_whole(folder: Path) -> None:
    """vocab.json and merges.txt; special tokens as objects; null for a switch, and a
    shift of 0; half precision; position_ids among the weights.
    """
    before = load(folder).text.embed(PROMPTS).embeddings
    slow_tokenizer(folder)
    file = folder / "tokenizer" / "tokenizer_config.json"
    end = {
        "__type": "AddedToken",
        "content": "<|endoftext|>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": end, "unk_token": end}))
    config("unet", upcast_attention=None, mid_block_only_cross_attention=None, foreign=5)(folder)
    config("vae", shift_factor=0.0)(folder)
    tensors(
        TEXT, lambda held: held | {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    )(folder)
    torch.testing.assert_close(load(folder).text.embed(PROMPTS).embeddings, before, rtol=0, atol=0)
    tensors(UNET, each(lambda t: t.half()))(folder)
    load(folder)


def test_a_padding_token_of_its_own(folder: Path) -> None:
    """Stable Diffusion 2 pads with "!", as its special_tokens_map.json says, whatever
    its tokenizer_config.json does.
    """
    (folder / "tokenizer" / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    tokenizer = load(folder).tokenizer
    ids = tokenizer("red", padding="max_length", max_length=8).input_ids
    assert ids[-1] == tokenizer.get_vocab()["!"] != tokenizer.eos_token_id


def test_the_proof_is_counted_nowhere_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    state = torch.get_rng_state()
    evaluate = LatentDenoiser._forward
    monkeypatch.setattr(
        LatentDenoiser,
        "_forward",
        lambda self, x, t, c: seen.append(len(x)) or evaluate(self, x, t, c),
    )
    model = load(folder)
    assert (
        seen == [1, 1, 1]
        and model.cost == Cost()
        and not model.text.known
        and not model.truncated
        and model.memo is None
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_a_vae_is_loaded_before_images_are_drawn_for_it(folder: Path, tmp_path: Path) -> None:
    """Its tensors are read when images are asked for, and refused then: no evaluation
    is made for a run that cannot end.
    """
    from membench.api import run

    tensors(VAE, each(lambda t: t * 1e30))(folder)
    settings: dict[str, Any] = {"task_options": [f"model={folder}"], "limit": 2, "progress": False}
    with pytest.raises(UserError, match="vae returns NaN or infinity"):
        run("random", "sd_webster", out=tmp_path / "images", **settings)
    assert not [*(tmp_path / "images").rglob("*.parquet")]
    assert (
        len(
            run(
                "cfg_norm",
                "sd_webster",
                options=["images=0", "draws=1"],
                out=tmp_path / "scores",
                **settings,
            ).scores
        )
        == 2
    )


def test_a_model_of_another_size_is_compared_with_nothing(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The mini profile's images are of 64x64: against them a larger image is not a copy
    and no failure.
    """
    from membench.api import run

    config("unet", sample_size=16)(folder)
    (tmp_path / "mine.csv").write_text("prompt,label\na red circle,1\na blue square,0\n")
    options = [f"model={folder}", f"prompts={tmp_path / 'mine.csv'}"]
    found = run(
        "cfg_norm",
        "sd_webster",
        options=["images=1", "draws=1"],
        task_options=options,
        out=tmp_path / "out",
        progress=False,
    )
    assert len(found.scores) == 2 and len(found.samples) and not len(found.matches)
    assert not found.metrics.metric.str.startswith(("ams", "ums")).any()
    assert "generates images of 128x128" in capfd.readouterr().err


# ------------------------------------------------------------------------- pixel models

PIXELS = {
    "fp8": (tensors(UNET, half), "fp8 or quantised"),
    "behind a pointer": (pointer(f"{UNET}.safetensors"), "git lfs pull"),
    "config behind a pointer": (pointer("unet/config.json"), "git lfs pull"),
    "quantised": (
        config("unet", quantization_config={"quant_method": "gguf"}),
        "quantization_config",
    ),
    "a word for a size": (config("unet", sample_size="8"), "sample_size is '8'"),
    "a word for classes": (config("unet", num_class_embeds="4"), "num_class_embeds is '4'"),
    "no channels": (config("unet", block_out_channels=["a", "b"]), "block_out_channels"),
    "no layers": (config("unet", layers_per_block=None), "layers_per_block is 'None'"),
    "identity": (config("unet", class_embed_type="identity"), "class_embed_type is 'identity'"),
    "timestep": (config("unet", class_embed_type="timestep"), "class_embed_type is 'timestep'"),
    "classes left out": (
        config("unet", num_class_embeds=None),
        "builds no layer for, such as class_embedding.weight",
    ),
    "heads of no width": (config("unet", attention_head_dim=0), "attention_head_dim"),
    "zeros": (
        tensors(UNET, each(torch.zeros_like)),
        "predicts the same whether it is told class 0 or 1",
    ),
    "deaf to noise": (tensors(UNET, deaf_to_noise), "predicts the same whatever noise it is given"),
    "deaf to classes": (
        tensors(
            UNET, lambda held: held | {"class_embedding.weight": held["class_embedding.weight"] * 0}
        ),
        "predicts the same whether it is told class 0 or 1",
    ),
    "overflow": (
        tensors(UNET, each(lambda t: torch.full_like(t, 1e30))),
        "predicts NaN or infinity",
    ),
    "LoRA": (lambda f: only(f, "adapter.safetensors", LORA), "LoRA or another adapter"),
}


def load_pixels(folder: Path) -> PixelDenoiser:
    return load_pixel_model(folder, classes_of(folder, CLASSES, SIDE))


@pytest.mark.parametrize("how", PIXELS)
def test_a_pixel_model_that_is_not_whole(tmp_path: Path, how: str) -> None:
    damage, words = PIXELS[how]
    folder = saved(tmp_path / "m")
    damage(folder)
    with pytest.raises(UserError, match=words) as error:
        load_pixels(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_an_unconditional_pixel_model_heeds_its_noise(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", None)
    assert load_pixels(folder).cost == Cost()
    tensors(UNET, each(torch.zeros_like))(folder)
    with pytest.raises(UserError, match="predicts the same whatever noise it is given"):
        load_pixels(folder)


def test_half_precision_that_overflows_is_named_with_the_way_out() -> None:
    model = conditional()
    with torch.no_grad():
        model.network.conv_in.bias.fill_(3e38)
        model.network.conv_in.weight.fill_(3e38)
    with pytest.raises(UserError, match="predicts NaN or infinity as float32"):
        prove_pixels(model, Path("m"))
    model = conditional()
    model.network.half()
    model.dtype = torch.float16
    model.network.conv_out.weight.data.fill_(6e4)
    with pytest.raises(UserError, match="as float16; take --dtype float32 or bfloat16"):
        prove_pixels(model, Path("m"))


# ---------------------------------------------------------------------------- at random

VALUES = [
    None,
    True,
    -1,
    0,
    1,
    3,
    7,
    8.5,
    10**9,
    float("nan"),
    1e-30,
    "8",
    "x",
    "",
    [],
    [8],
    [8, 16],
    ["a"],
    {},
    {"a": 1},
]


def mutate(held: Any, rng: random.Random) -> Any:
    """One value of a JSON object replaced, scaled or dropped."""
    key = rng.choice(sorted(held))
    value, how = held[key], rng.randrange(5)
    if how == 0:
        return {k: v for k, v in held.items() if k != key}
    if how == 1 and isinstance(value, list) and value:
        return held | {
            key: rng.choice(
                [value[:-1], [*value, value[-1]], value[::-1], [*value[:-1], rng.choice(VALUES)]]
            )
        }
    if how <= 2 and isinstance(value, int | float) and not isinstance(value, bool):
        return held | {key: rng.choice([value * 2, value + 1, value - 1, -value, value / 2])}
    return held | {key: rng.choice(VALUES)}


def damaged(folder: Path, names: list[str], rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2])):
        file = folder / rng.choice(names)
        if rng.random() < 0.1:
            data = file.read_bytes()
            file.write_bytes(
                rng.choice([b"", POINTER, data[: rng.randrange(len(data))], b"[]", b"null"])
            )
        else:
            file.write_text(json.dumps(mutate(json.loads(file.read_bytes()), rng)))


def outcome(
    folder: Path, names: list[str], rng: random.Random, evaluate: Callable[[Path], torch.Tensor]
) -> str:
    """ "works", with predictions that are finite and differ, or "refused", in one line.

    Anything else fails the test.
    """
    try:
        damaged(folder, names, rng)
    # A second one of a file that is no JSON, or an empty object, any more
    except (ValueError, IndexError):
        return "refused"
    try:
        a, b = evaluate(folder)
    except UserError as error:
        assert "\n" not in str(error)
        return "refused"
    assert a.isfinite().all() and b.isfinite().all() and not torch.allclose(a, b, rtol=0, atol=1e-7)
    return "works"


def told_two_prompts(folder: Path) -> torch.Tensor:
    check_kind(folder)
    model = load(folder)
    x = model.noise([("x", 0)], 0).repeat(2, 1, 1, 1)
    model.decode(x[:1])
    return model.eps(
        x, model.steps // 3, model.condition([Condition("a", "teal rug"), Condition("b", "a mug")])
    )


def told_two_classes(folder: Path) -> torch.Tensor:
    model = load_pixels(folder)
    rows = [("x", 0)] * 2 if model.classes else [("x", 0), ("y", 0)]
    told = (
        [Condition("a", class_label=0), Condition("b", class_label=2)]
        if model.classes
        else [Condition("a"), Condition("b")]
    )
    return model.eps(model.noise(rows, 0), model.steps // 3, model.condition(told))


TEXT_FILES = [
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "model_index.json",
]


def fuzz(
    whole: Path,
    scratch: Path,
    names: list[str],
    seeds: range,
    evaluate: Callable[[Path], torch.Tensor],
) -> dict[str, int]:
    counts = {"works": 0, "refused": 0}
    for seed in seeds:
        for name in names:  # the weights stay
            shutil.copyfile(whole / name, scratch / name)
        try:
            counts[outcome(scratch, names, random.Random(seed), evaluate)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return counts


def test_damage_at_random_to_a_pipeline(folder: Path, tiny_pipeline_folder: Path) -> None:
    counts = fuzz(tiny_pipeline_folder, folder, TEXT_FILES, range(40), told_two_prompts)
    assert counts["works"] >= 5 and counts["refused"] >= 10, counts


def test_damage_at_random_to_a_pixel_model(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole")
    scratch = Path(shutil.copytree(whole, tmp_path / "m"))
    counts = fuzz(whole, scratch, ["unet/config.json"], range(40), told_two_classes)
    assert counts["works"] >= 3 and counts["refused"] >= 10, counts
