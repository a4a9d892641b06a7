"""Stable Diffusion as people have it: each layout draws what diffusers' own pipeline
draws, and what is laid over a base is in force, whole and in the hash.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import foreign_models as foreign
import numpy as np
import pytest
import torch
from conftest import save_tiny_pipeline
from foreign_models import edit, ours, own_pipeline, save_lora, theirs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from membench.errors import UserError
from membench.models.changes import NONE, Changes, read_changes
from membench.models.latent import LatentDenoiser, load_model, load_text_to_image
from membench.models.pipeline_kinds import check_kind
from membench.models.stable_diffusion_folder import folder_hash
from membench.types import Condition

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2")
CONVOLUTION = (*ATTENTION, "resnets.0.conv1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("sd") / "base", "epsilon")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.save_tiny_xl(tmp_path_factory.mktemp("xl") / "xl")


def same(folder: Path, pipeline: Any, changes: Changes = NONE) -> LatentDenoiser:
    """Images within one grey level of the pipeline's, and both predictions to 1e-5."""
    model, x, images = ours(folder, changes)
    wanted = theirs(pipeline, x)
    assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 1 and wanted.std() > 5
    told = [foreign.PROMPTS, "cpu", 1, True]
    if "XL" in type(pipeline).__name__:
        yes, no, pooled, null = pipeline.encode_prompt(told[0], None, *told[1:])
        sizes = pipeline._get_add_time_ids((64, 64), (0, 0), (64, 64), yes.dtype, 20)
        added = [{"text_embeds": p, "time_ids": sizes.repeat(len(x), 1)} for p in (null, pooled)]
    else:
        (yes, no), added = pipeline.encode_prompt(*told), [None, None]
    pair = model.prediction_pair(x, 500, model.condition(foreign.conditions()))
    for got, embedding, more in zip(pair, (no, yes), added, strict=True):
        with torch.no_grad():
            raw = pipeline.unet(x, 500, embedding, added_cond_kwargs=more).sample
        torch.testing.assert_close(got, raw, rtol=1e-5, atol=1e-5 * float(raw.abs().max()))
    return model


# -------------------------------------------------------------------- Stable Diffusion XL


def test_a_text_encoder_that_is_told_which_tokens_are_padding(tmp_path: Path, base: Path) -> None:
    folder = foreign.copy_of(base, tmp_path / "masked")
    edit(folder / "text_encoder" / "config.json", use_attention_mask=True)
    masked = same(folder, own_pipeline(folder)).condition(foreign.conditions())
    plain = LatentDenoiser(load_text_to_image(base)).condition(foreign.conditions())
    assert not torch.allclose(masked.embeddings, plain.embeddings, atol=1e-2)


def test_xl_masks_no_padding_whatever_its_encoder_says(tmp_path: Path, xl: Path) -> None:
    folder = foreign.copy_of(xl, tmp_path / "masked")
    edit(folder / "text_encoder" / "config.json", use_attention_mask=True)
    same(folder, own_pipeline(folder))


@pytest.mark.parametrize("zeros", [True, False])
def test_stable_diffusion_xl(tmp_path: Path, xl: Path, zeros: bool) -> None:
    folder = foreign.copy_of(xl, tmp_path / "xl")
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=zeros)
    model = same(folder, own_pipeline(folder))
    null = model.condition([Condition("null")])
    assert null.pooled is not None and null.embeddings is not None
    assert (float(null.pooled.abs().max()) == 0) is zeros
    assert null.embeddings.shape == (1, 24, 40) and null.pooled.shape == (1, 20)
    # The pooled embedding and the sizes say something, each for itself
    told = model.condition(foreign.conditions()[:1])
    x = model.noise([("x", 0)], 0)
    eps = model.eps(x, 500, told)
    other = model.condition(foreign.conditions()[1:])
    mixed = type(told)(told.embeddings, other.pooled)
    assert (model.eps(x, 500, mixed) - eps).abs().max() > 1e-4
    model.sizes = (128, 128, 0, 0, 64, 64)
    assert (model.eps(x, 500, told) - eps).abs().max() > 1e-4


def test_xl_clips_its_latents_where_its_file_says_so(tmp_path: Path, xl: Path) -> None:
    """As its own pipeline does: that of 1.x and 2.x alone corrects such a file."""
    folder = foreign.copy_of(xl, tmp_path / "xl")
    file = folder / "scheduler" / "scheduler_config.json"
    edit(file, _class_name="DDIMScheduler", clip_sample=True)
    edit(folder / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    _, x, images = ours(folder)
    pipeline = own_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        foreign.PROMPTS,
        num_inference_steps=5,
        guidance_scale=3.0,
        latents=x.clone(),
        output_type="pil",
    ).images
    assert np.abs(images.astype(int) - np.stack(drawn)).max() <= 1


def test_xl_shares_evaluations_by_all_that_it_is_told(xl: Path) -> None:
    from membench.models.memo import Memo

    model = LatentDenoiser(load_text_to_image(xl))
    x, told = model.noise([("x", 0)], 0), model.condition(foreign.conditions()[:1])
    other = type(told)(told.embeddings, model.condition(foreign.conditions()[1:]).pooled)
    model.memo = Memo()
    first, second = model.eps(x, 9, told), model.eps(x, 9, other)
    assert not torch.equal(first, second) and model.cost.shared == 0
    assert torch.equal(model.eps(x, 9, told), first) and model.cost.shared == 1


def test_the_vae_of_xl_decodes_in_float32_where_its_file_says_so(tmp_path: Path, xl: Path) -> None:
    """It overflows in float16; of Stable Diffusion 1.x and 2.x nobody heeds the field."""
    assert json.loads((xl / "vae" / "config.json").read_text())["force_upcast"]
    assert load_text_to_image(xl, dtype="float16").vae.dtype == torch.float32
    assert load_text_to_image(xl, dtype="bfloat16").vae.dtype == torch.bfloat16
    folder = foreign.copy_of(xl, tmp_path / "xl")
    edit(folder / "vae" / "config.json", force_upcast=False)
    assert load_text_to_image(folder, dtype="float16").vae.dtype == torch.float16


def absent(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_2")


def unnamed(folder: Path) -> None:
    absent(folder)
    (folder / "model_index.json").unlink()


def null_entry(folder: Path) -> None:
    edit(folder / "model_index.json", text_encoder_2=[None, None])


def refiner(folder: Path) -> None:
    edit(folder / "unet" / "config.json", projection_class_embeddings_input_dim=5 * 8 + 20)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (absent, ["text_encoder_2 is missing", "two text encoders"]),
        (unnamed, ["text_encoder_2 is missing", "two text encoders"]),
        (null_entry, ["no text_encoder_2", "needs both"]),
        (refiner, ["six sizes", "refiner"]),
        (lambda f: shutil.rmtree(f / "tokenizer_2"), ["tokenizer_2 is missing"]),
    ],
)
def test_xl_that_is_not_whole(tmp_path: Path, xl: Path, damage: Any, words: list[str]) -> None:
    folder = foreign.copy_of(xl, tmp_path / "xl")
    damage(folder)
    with pytest.raises(UserError) as error:
        load_text_to_image(folder)
    assert all(w in str(error.value) for w in words) and "\n" not in str(error.value)


# ------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("which", ["base", "xl"])
def test_a_pipeline_without_model_index(
    tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    bare = foreign.copy_of(folder, tmp_path / "bare")
    (bare / "model_index.json").unlink()
    assert folder_hash(bare) == folder_hash(folder)
    x = torch.ones(1, 4, 8, 8)
    eps = [
        m.eps(x, 9, m.condition(foreign.conditions()[:1]))
        for m in (LatentDenoiser(load_text_to_image(f)) for f in (folder, bare))
    ]
    assert torch.equal(*eps)


def test_a_fine_tuned_unet_over_its_base(tmp_path: Path, base: Path) -> None:
    """As diffusers' train_text_to_image.py leaves it: checkpoint-N/unet and much else."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(5)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(base / "unet"))
    unet.save_pretrained(tmp_path / "checkpoint-50" / "unet", safe_serialization=True)
    (tmp_path / "checkpoint-50" / "optimizer.bin").write_bytes(b"")
    changes = read_changes(unet=str(tmp_path / "checkpoint-50"))
    assert changes == read_changes(unet=str(tmp_path / "checkpoint-50" / "unet"))
    same(base, own_pipeline(base, unet=unet), changes)
    whole = foreign.copy_of(base, tmp_path / "whole")
    unet.save_pretrained(whole / "unet", safe_serialization=True)
    assert folder_hash(base, changes) == folder_hash(whole) != folder_hash(base)
    with pytest.raises(UserError, match=r"no text encoder.*--model BASE --set sd_webster.unet="):
        load_text_to_image(tmp_path / "checkpoint-50")


def test_variants_are_other_files_and_other_hashes(tmp_path: Path, base: Path) -> None:
    folder = foreign.copy_of(base, tmp_path / "m")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    moved = {n: t * 1.5 for n, t in load_file(file).items()}
    save_file(moved, file.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    raw = read_changes(variant="non_ema")
    same(folder, own_pipeline(folder, variant="non_ema"), raw)
    assert folder_hash(folder) == folder_hash(base) != folder_hash(folder, raw)
    with pytest.raises(UserError, match="no weights of variant=fp16"):
        load_text_to_image(folder, changes=read_changes(variant="fp16"))
    with pytest.raises(UserError, match="variant=ema: membench knows fp16, bf16, non_ema"):
        read_changes(variant="ema")
    held = {n: t.bfloat16() for n, t in load_file(file).items()}
    save_file(held, file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    file.unlink()  # then bf16 is what there is
    assert torch.equal(
        load_text_to_image(folder).unet.conv_in.weight, held["conv_in.weight"].float()
    )


def test_zero_terminal_snr_with_v_prediction(tmp_path: Path) -> None:
    folder = save_tiny_pipeline(tmp_path / "zero", "v_prediction")
    edit(
        folder / "scheduler" / "scheduler_config.json",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    model = same(folder, own_pipeline(folder))
    assert model.alpha_sigma(model.steps - 1) == (0, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [("SD3Transformer2DModel", "flow matching"), ("FluxTransformer2DModel", "flow matching")],
)
def test_a_rectified_flow_is_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(UserError, match=f"{name}: .*{words}"):
        load_text_to_image(tmp_path)


# ---------------------------------------------------------------------------------- LoRA


def test_loras_with_scales_are_what_diffusers_makes_of_them(tmp_path: Path, base: Path) -> None:
    """Two at once, one as diffusers saves it and one as kohya's scripts do, of rank 3
    with alpha 2, which some of them save as a whole number.
    """
    pipeline = own_pipeline(base)
    one = save_lora(
        tmp_path / "one" / "pytorch_lora_weights.safetensors", pipeline, {"unet": CONVOLUTION}
    )
    two = save_lora(
        tmp_path / "two.safetensors", pipeline, {"unet": ATTENTION}, rank=3, seed=1, alpha=2
    )
    for file, name in ((one, "a"), (two, "b")):
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    pipeline.set_adapters(["a", "b"], [0.75, -0.5])
    changes = read_changes(lora=f"{one.parent}:0.75,{two}:-0.5")
    model = same(base, pipeline, changes)
    assert not hasattr(model.network, "peft_config")  # a plain network, which SIDE can adapt
    hashes = [
        folder_hash(base, read_changes(lora=text))
        for text in ("", f"{one}", f"{one}:0.75", f"{one}:0.75,{two}:-0.5", f"{two}")
    ]
    assert len({*hashes}) == 5 and folder_hash(base, changes) == hashes[3]


def test_a_folder_that_peft_saved_is_told_how_to_merge(tmp_path: Path, base: Path) -> None:
    """It does not say of which part it is; the advice to give it as a LoRA was refused."""
    name = "base_model.model.down_blocks.1.attentions.0.proj_in.lora_A.weight"
    save_file({name: torch.ones(2, 16)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge_and_unload"):
        load_model(base, "cpu", "float32", 1, read_changes(lora=str(tmp_path)))
    with pytest.raises(UserError, match="merge_and_unload") as refused:
        check_kind(tmp_path)
    assert "sd_webster.lora" not in str(refused.value)


@pytest.mark.parametrize("alpha", [None, 4.0])
def test_a_lora_of_the_text_encoder_is_what_peft_makes_of_it(
    tmp_path: Path, base: Path, alpha: float | None
) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    plain = load_text_to_image(base)
    file = save_lora(
        tmp_path / "te.safetensors", plain, {"text_encoder": ("q_proj", "fc1")}, alpha=alpha
    )
    config = LoraConfig(r=2, lora_alpha=int(alpha or 2), target_modules=["q_proj", "fc1"])
    inject_adapter_in_model(config, plain.text_encoder)
    held = load_file(file)
    names = [n for n, m in plain.text_encoder.named_modules() if hasattr(m, "lora_A")]
    state = {}
    for name in names:
        key = (
            f"text_encoder.{name}"
            if alpha is None
            else f"lora_te_text_model_{name.replace('.', '_')}"
        )
        ends = ("lora_A", "lora_B") if alpha is None else ("lora_down", "lora_up")
        state |= {
            f"{name}.lora_{ab}.weight": held[f"{key}.{end}.weight"]
            for ab, end in zip("AB", ends, strict=True)
        }
    set_peft_model_state_dict(plain.text_encoder, state)
    wanted = LatentDenoiser(plain).text.embed(foreign.PROMPTS).embeddings
    changed = LatentDenoiser(load_text_to_image(base, changes=read_changes(lora=str(file))))
    got = changed.text.embed(foreign.PROMPTS).embeddings
    assert got is not None and wanted is not None and names
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    before = LatentDenoiser(load_text_to_image(base)).text.embed(foreign.PROMPTS).embeddings
    assert before is not None and (got - before).abs().max() > 1e-2


def test_an_alpha_that_peft_keeps_beside_the_tensors(tmp_path: Path, base: Path) -> None:
    pipeline = load_text_to_image(base)
    file = save_lora(tmp_path / "a.safetensors", pipeline, {"unet": ("to_q",)}, rank=4)
    told = {
        "unet.r": 4,
        "unet.lora_alpha": 8,
        "unet.alpha_pattern": {"n2.to_q": 9, "attn2.to_q": 2},
    }
    noted = tmp_path / "noted.safetensors"
    for rslora in (False, True):
        notes = json.dumps(told | {"unet.use_rslora": rslora})
        save_file(load_file(file), noted, metadata={"lora_adapter_metadata": notes})
        got = load_text_to_image(base, changes=read_changes(lora=str(noted))).unet.state_dict()
        plain = pipeline.unet.state_dict()
        full = load_text_to_image(base, changes=read_changes(lora=str(file))).unet.state_dict()
        for name in (n for n in plain if n.endswith("to_q.weight")):
            times = (2 if "attn2" in name else 8) / (2 if rslora else 4)
            moved = plain[name] + times * (full[name] - plain[name])
            torch.testing.assert_close(got[name], moved, rtol=1e-4, atol=1e-5)


def test_half_precision_rounds_a_lora_once(base: Path, good_lora: Path) -> None:
    changes = read_changes(lora=str(good_lora))
    exact = load_text_to_image(base, changes=changes).unet.state_dict()
    half = load_text_to_image(base, changes=changes, dtype="bfloat16").unet.state_dict()
    assert all(torch.equal(half[n], t.bfloat16()) for n, t in exact.items())


@pytest.fixture(scope="module")
def good_lora(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Of some layers of the base."""
    file = tmp_path_factory.mktemp("lora") / "a.safetensors"
    return save_lora(file, load_text_to_image(base), {"unet": ("to_q",)})


def rename(file: Path, old: str, new: str) -> None:
    save_file({n.replace(old, new): t for n, t in load_file(file).items()}, file)


def set_all(file: Path, ending: str, value: Any) -> None:
    save_file({n: value(t) if n.endswith(ending) else t for n, t in load_file(file).items()}, file)


def notes(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def set_notes(file: Path, notes: str) -> None:
    save_file(load_file(file), file, metadata={"lora_adapter_metadata": notes})


PATTERN = '{"unet.lora_alpha": 4, "unet.alpha_pattern": {"%s": 2}}'
LORAS: dict[str, tuple[Any, list[str]]] = {
    "another model's layer": (
        lambda f: rename(f, "down_blocks.1", "down_blocks.7"),
        ["another architecture", "down_blocks.7"],
    ),
    "another width": (
        lambda f: set_all(f, "lora_A.weight", lambda t: t[:, :5].contiguous()),
        ["another architecture", "[16, 16]"],
    ),
    "half of a pair": (
        lambda f: save_file({n: t for n, t in load_file(f).items() if "lora_A" in n}, f),
        ["lacks the up matrix"],
    ),
    "all zero": (lambda f: set_all(f, "lora_B.weight", torch.zeros_like), ["changes nothing"]),
    "nan": (lambda f: set_all(f, "lora_B.weight", lambda t: t * float("nan")), ["NaN"]),
    "lokr": (lambda f: rename(f, "lora_A", "lokr_w1"), ["not a plain LoRA", "lokr_w1"]),
    "another part": (
        lambda f: rename(f, "unet.", "transformer."),
        ["transformer.", "not a tensor of a LoRA"],
    ),
    "second encoder": (
        lambda f: rename(f, "unet.", "text_encoder_2."),
        ["another architecture", "text_encoder_2"],
    ),
    "a factor that is a number": (
        lambda f: set_all(f, "lora_A.weight", lambda t: t[0, 0].clone()),
        ["factor of unet.", "shape [], which is no matrix"],
    ),
    "a factor that is a vector": (
        lambda f: set_all(f, "lora_B.weight", lambda t: t[0].clone()),
        ["factor of unet.", "shape [2], which is no matrix"],
    ),
    "rank 0": (
        lambda f: save_file(
            {n: t[:0] if "lora_A" in n else t[:, :0].clone() for n, t in load_file(f).items()}, f
        ),
        ["factor of unet.", "which is no matrix"],
    ),
    "half of a pair with settings": (
        lambda f: (
            set_notes(f, '{"unet.lora_alpha": 4, "unet.use_rslora": true}'),
            save_file(
                {n: t for n, t in load_file(f).items() if "lora_B" in n}, f, metadata=notes(f)
            ),
        ),
        ["lacks the down matrix"],
    ),
    **{
        f"settings {told[-40:]}": (partial(set_notes, notes=told), words)
        for told, words in (
            ("[" * 200_000, ["lora_adapter_metadata cannot be read", "nested too deep"]),
            ("[]", ["lora_adapter_metadata cannot be read", "no JSON object"]),
            (f'{{"unet.lora_alpha": {"9" * 400}}}', ["lora_adapter_metadata cannot be read"]),
            ('{"unet.lora_alpha": NaN}', ["its change of unet.", "infinite"]),
            ('{"unet.lora_alpha": 1e45}', ["its change of unet.", "infinite"]),
            (PATTERN % "(.*)*to_q", ["(.*)*to_q of alpha_pattern is not a layer's name"]),
            (PATTERN % ("(a+)+$" * 20), ["of alpha_pattern is not a layer's name"]),
        )
    },
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:-8]), ["cut short"]),
}


@pytest.mark.parametrize("how", LORAS)
def test_a_lora_that_does_not_do(tmp_path: Path, base: Path, good_lora: Path, how: str) -> None:
    file = tmp_path / "a.safetensors"
    shutil.copyfile(good_lora, file)
    damage, words = LORAS[how]
    damage(file)
    with pytest.raises(UserError) as error:
        load_text_to_image(base, changes=read_changes(lora=str(file)))
    text = str(error.value)
    assert str(file) in text and all(w in text for w in words) and "\n" not in text, text


def test_what_is_written_wrongly_is_one_line(tmp_path: Path, base: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    for settings, words in (
        ({"lora": "no.safetensors"}, "lora=no.safetensors is not there"),
        ({"lora": "a.safetensors:much"}, "'much' is not a scale"),
        ({"lora": str(tmp_path / "a.bin")}, "pickled"),
        ({"lora": str(tmp_path)}, "holds no pytorch_lora_weights.safetensors"),
        ({"unet": str(tmp_path)}, "holds no U-Net"),
        ({"unet": str(base / "vae")}, "is of class AutoencoderKL"),
        ({"textual_inversion": "no.safetensors"}, "is not there"),
    ):
        with pytest.raises(UserError, match=words):
            read_changes(**settings)


# ------------------------------------------------------------------------- learned words


def test_a_learned_word_of_several_vectors(tmp_path: Path, base: Path, monkeypatch: Any) -> None:
    torch.manual_seed(3)
    one, two = tmp_path / "one", tmp_path / "two.safetensors"
    one.mkdir()
    save_file({"<cat>": torch.randn(3, 16)}, one / "learned_embeds.safetensors")
    save_file({"emb_params": torch.randn(1, 16)}, two)
    monkeypatch.setattr(foreign, "PROMPTS", ["a <cat> mug", "two sty boats"])
    pipeline = own_pipeline(base)
    pipeline.load_textual_inversion(str(one))
    pipeline.load_textual_inversion(load_file(two)["emb_params"], token="sty")
    changes = read_changes(textual_inversion=f"{one},{two}:sty")
    state = torch.get_rng_state()
    model = same(base, pipeline, changes)
    assert torch.equal(torch.get_rng_state(), state)
    plain = LatentDenoiser(load_text_to_image(base))
    counts = [m.token_counts(foreign.conditions()[:1])[0] for m in (model, plain)]
    assert model.tokenizer.convert_tokens_to_ids("<cat>_2") and counts[0] != counts[1]
    assert folder_hash(base, changes) != folder_hash(base)


def test_learned_words_for_both_encoders_of_xl(tmp_path: Path, xl: Path, monkeypatch: Any) -> None:
    torch.manual_seed(3)
    file = tmp_path / "w.safetensors"
    save_file({"clip_l": torch.randn(2, 16), "clip_g": torch.randn(2, 24)}, file)
    monkeypatch.setattr(foreign, "PROMPTS", ["a <s> mug", "two blue boats"])
    pipeline, held = own_pipeline(xl), load_file(file)
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        pipeline.load_textual_inversion(
            held[name],
            token="<s>",
            text_encoder=getattr(pipeline, f"text_encoder{end}"),
            tokenizer=getattr(pipeline, f"tokenizer{end}"),
        )
    same(xl, pipeline, read_changes(textual_inversion=f"{file}:<s>"))


@pytest.mark.parametrize(
    ("held", "word", "told"),
    [
        ({"<cat>": torch.ones(1, 24)}, "", "width 24, and that of .* has 16"),
        ({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 24)}, "", "for 2 text encoders"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "", "holds 2 tensors"),
        ({"<cat>": torch.ones(1, 16)}, ":a</w>", "a</w> is a token already"),
        ({"<cat>": torch.full((1, 16), float("nan"))}, "", "NaN"),
        *(
            (held, "", r"has the shape \[.*\], which is no vector of a word")
            for held in (
                {"<cat>": torch.ones(())},
                {"<cat>": torch.ones(0, 16)},
                {"clip_l": torch.ones(()), "clip_g": torch.ones(24)},
                {"clip_l": torch.ones(2, 3, 16), "clip_g": torch.ones(2, 24)},
            )
        ),
    ],
)
def test_words_that_do_not_do(
    tmp_path: Path, base: Path, held: dict[str, torch.Tensor], word: str, told: str
) -> None:
    save_file(held, tmp_path / "w.safetensors")
    changes = read_changes(textual_inversion=f"{tmp_path / 'w.safetensors'}{word}")
    with pytest.raises(UserError, match=told):
        load_text_to_image(base, changes=changes)


def test_tokenizers_of_two_lengths(tmp_path: Path) -> None:
    """It ended in torch's words about sizes of tensors."""
    folder = foreign.save_tiny_xl(tmp_path / "xl")
    edit(folder / "tokenizer_2" / "tokenizer_config.json", model_max_length=20)
    with pytest.raises(UserError, match="cut prompts to 24 and 20 tokens"):
        load_model(folder, "cpu", "float32", 1)
