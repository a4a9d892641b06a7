"""The numbers of the recipe behind the pixel models, of one and of a mirror pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from membench.seeds import LARGEST_SEED

from .labels import Labels


@dataclass(frozen=True)
class PixelRecipe:
    """All numbers of the recipe.

    A checkpoint remembers them and refuses others (but for the step count and the
    device).
    """

    steps: int = field(
        default=4000,
        metadata={"help": "training steps in all; more goes on from the checkpoint", "min": 1},
    )
    batch: int = field(default=32, metadata={"help": "images a step", "min": 1})
    rate: float = field(
        default=1e-3,
        metadata={"help": "learning rate after 200 steps of warm-up", "min": 0.0, "max": 10.0},
    )
    label_dropout: float = field(
        default=0.1,
        metadata={"help": "share of labels that become the null class", "min": 0.0, "max": 1.0},
    )
    labels: Labels = field(default="class", metadata={"help": "what the model is told of an image"})
    perturb: float = field(
        default=0.0,
        metadata={
            "help": "share of labels that become a random one, anew each time an image is shown",
            "min": 0.0,
            "max": 1.0,
        },
    )
    flip: bool = field(default=False, metadata={"help": "mirror each image with probability 1/2"})
    channels: tuple[int, ...] = field(
        default=(16, 32, 64, 64),
        metadata={"help": "of each resolution, each half the one before", "min": 8},
    )
    layers: int = field(default=1, metadata={"help": "residual blocks a resolution", "min": 1})
    seed: int = field(
        default=0,
        metadata={"help": "of weights, batches and noise", "min": 0, "max": LARGEST_SEED},
    )
    rungs: tuple[int, ...] = field(
        default=(), metadata={"help": "steps whose weights are kept, each under step-N", "min": 1}
    )
    grid_every: int = field(
        default=1000, metadata={"help": "steps between two grids of samples; 0: none", "min": 0}
    )
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1 ..."})


@dataclass(frozen=True)
class MirrorRecipe(PixelRecipe):
    """Of one half of a mirror pair (mirror.py)."""

    label_dropout: float = field(
        default=0.3,
        metadata={"help": "share of labels that become the null class", "min": 0.0, "max": 1.0},
    )
    world: int = field(
        default=0,
        metadata={
            "help": "seed of the generator; 0: the development world",
            "min": 0,
            "max": LARGEST_SEED,
        },
    )
