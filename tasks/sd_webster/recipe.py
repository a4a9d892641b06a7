"""The numbers of the recipe behind the mini models (train.py)."""

from __future__ import annotations

from dataclasses import dataclass, field

from membench.seeds import LARGEST_SEED

from .captions import Perturbation

RATE = {"min": 0.0, "max": 10.0}


@dataclass(frozen=True)
class Recipe:
    """All numbers of the recipe.

    A checkpoint remembers them and refuses others (but for ``steps``).
    """

    vae_steps: int = field(default=10000, metadata={"help": "steps of the VAE", "min": 1})
    vae_batch: int = field(default=16, metadata={"help": "images a step of the VAE", "min": 1})
    vae_rate: float = field(default=2e-3, metadata={"help": "its learning rate", **RATE})
    kl_weight: float = field(default=3e-5, metadata={"help": "of the VAE's prior", "min": 0.0})
    steps: int = field(default=3500, metadata={"help": "steps of a half", "min": 1})
    batch: int = field(default=64, metadata={"help": "images a step", "min": 1})
    rate: float = field(default=1e-3, metadata={"help": "learning rate of a half", **RATE})
    caption_dropout: float = field(
        default=0.1,
        metadata={"help": "share of captions that become the empty one", "min": 0.0, "max": 1.0},
    )
    perturb: float = field(
        default=0.0,
        metadata={
            "help": "share of captions that are perturbed, anew each time they are shown",
            "min": 0.0,
            "max": 1.0,
        },
    )
    perturbation: Perturbation = field(
        default="insert",
        metadata={"help": "insert: a random token; replace: a random word by another"},
    )
    seed: int = field(
        default=0,
        metadata={"help": "of weights, batches and noise", "min": 0, "max": LARGEST_SEED},
    )
    world: int = field(
        default=0,
        metadata={
            "help": (
                "number of the mirror pair; 0: the development world. Others take the tokenizer and"
                " the VAE that ship, which have seen neither half of any world"
            ),
            "min": 0,
            "max": LARGEST_SEED,
        },
    )
    start: str = field(
        default="",
        metadata={"help": "folder of finished pipelines a and b, to go on from"},
    )
