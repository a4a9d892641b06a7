"""Prompts to what a text-to-image U-Net is told of them, by CLIP text encoders.

Stable Diffusion 1.x and 2.x: the last hidden states of one encoder. XL: those before
the last layer of two encoders side by side, and the second one's projected, pooled
embedding (Podell et al. 2023, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from membench.models.conditioning import Conditioning, stacked

BLOCK = 32  # prompts


class TextEncoding:
    """The text encoders of a pipeline with their tokenizers.

    zero_null: whether the empty prompt, which is the null condition, is told as zeros.
    Embeddings are kept on the host, where those of 10,000 prompts (2.4 GB in float32
    for Stable Diffusion 1) crowd out no batch.
    """

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any], zero_null: bool) -> None:
        self.encoders, self.tokenizers, self.zero_null = encoders, tokenizers, zero_null
        # Prompts longer than the tokenizer's limit, cut as diffusers does
        self.truncated: set[str] = set()
        self.known: dict[str, Conditioning] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """On the host; each distinct prompt is encoded once."""
        new = [p for p in dict.fromkeys(prompts) if p not in self.known]
        limit = self.tokenizers[0].model_max_length
        for start in range(0, len(new), BLOCK):
            block = new[start : start + BLOCK]
            lengths = self.lengths(block)
            self.truncated.update(p for p, n in zip(block, lengths, strict=True) if n > limit)
            # Always BLOCK rows: the last bits of an embedding depend on the shape of
            # its batch.
            found = self.embed(block + [""] * (BLOCK - len(block)))
            for i, prompt in enumerate(block):
                self.known[prompt] = found[slice(i, i + 1)].copied("cpu").keyed()
        return stacked([self.known[p] for p in prompts])

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt by the first tokenizer, begin and end included, uncut."""
        tokenizer = self.tokenizers[0]
        return [
            len(ids) for ids in tokenizer(_words(prompts, tokenizer), truncation=False).input_ids
        ]

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Of one batch of prompts, which nothing remembers; on the encoders' device."""
        if len(self.encoders) == 1:
            return Conditioning(self._encoded(0, prompts).last_hidden_state)
        outputs = [self._encoded(i, prompts) for i in range(len(self.encoders))]
        told = Conditioning(
            torch.cat([out.hidden_states[-2] for out in outputs], dim=-1), outputs[-1].text_embeds
        )
        if self.zero_null and not all(prompts):
            keep = torch.tensor([bool(p) for p in prompts], device=told.embeddings.device)  # type: ignore[union-attr]
            return told.where(keep)
        return told

    def _encoded(self, which: int, prompts: Sequence[str]) -> Any:
        tokenizer, encoder = self.tokenizers[which], self.encoders[which]
        tokens = tokenizer(
            _words(prompts, tokenizer),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        alone = len(self.encoders) == 1
        # As diffusers' pipelines do: XL's never looks at this setting
        masked = alone and getattr(encoder.config, "use_attention_mask", False)
        return encoder(
            tokens.input_ids.to(encoder.device),
            attention_mask=tokens.attention_mask.to(encoder.device) if masked else None,
            output_hidden_states=not alone,
        )


def _words(prompts: Sequence[str], tokenizer: Any) -> list[str]:
    """A learned word of several vectors becomes its several tokens, as in diffusers."""
    from diffusers.loaders import TextualInversionLoaderMixin

    return TextualInversionLoaderMixin().maybe_convert_prompt(list(prompts), tokenizer)
