"""The parts of the mini Stable Diffusion: tokenizer, VAE, U-Net, text encoder, scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import catalogue, products

TOKENS = 24  # CLIP has 77; no caption of the catalogue is longer than 24


VOCABULARY = 1200


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer (normalizer, splitter, byte-pair encoding), its merges learned
    from the public split's captions.
    """
    clip = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(unk_token=clip.eos_token, end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = (
        clip.backend_tokenizer.normalizer,
        clip.backend_tokenizer.pre_tokenizer,
    )
    # Each printable character as a word of its own, so that no prompt of a user's holds
    # an unknown token.
    texts = [e.caption for e in catalogue.build("public").entries]
    texts += [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[clip.bos_token, clip.eos_token, *_letters(bpe, texts)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [
        tuple(line.split())
        for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _letters(bpe: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Every letter, and those that end a word, in order: the trainer numbers the latter as
    it meets them, which is another order in each process, and of merges that are equally
    frequent the lower numbers come first.
    """
    splits = (
        bpe.pre_tokenizer.pre_tokenize_str(bpe.normalizer.normalize_str(text)) for text in texts
    )
    ends = {f"{word[-1]}</w>" for split in splits for word, _ in split}
    return sorted(pre_tokenizers.ByteLevel.alphabet()) + sorted(ends)


def make_vae() -> AutoencoderKL:
    """64x64x3 to 8x8x4 and back, the ratios of Stable Diffusion's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=products.SIZE,
        mid_block_add_attention=False,
    )


def make_unet() -> UNet2DConditionModel:
    """3.2 M parameters on 8x8x4 latents; cross-attention at 4x4 and in the middle."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(48, 96, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule (scaled linear, 0.00085 to 0.012) with v as the
    target.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
