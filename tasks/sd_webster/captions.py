"""Captions that are perturbed while a model is trained, as in the mitigations of
Somepalli et al., "Understanding and Mitigating Copying in Diffusion Models" (NeurIPS
2023): a random token is inserted, or a random word replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Perturbation = Literal["insert", "replace"]


def inserted(caption: str, tokens: Sequence[str], gen: torch.Generator) -> str:
    """The caption with one of ``tokens``, as text, before, between or after its words."""
    words = caption.split()
    place = _below(len(words) + 1, gen)
    return " ".join([*words[:place], tokens[_below(len(tokens), gen)], *words[place:]])


def replaced(caption: str, words: Sequence[str], gen: torch.Generator) -> str:
    """The caption with one of its words, chosen at random, become one of ``words``. An
    empty caption stays as it is.
    """
    own = caption.split()
    if own:
        own[_below(len(own), gen)] = words[_below(len(words), gen)]
    return " ".join(own)


def _below(n: int, gen: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=gen))
