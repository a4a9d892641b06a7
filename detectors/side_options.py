"""Options of SIDE, the values that the paper states, and the files that options name."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from membench.storage.hashing import file_hash, json_hash
from membench.storage.reading import expanded

from .surrogate.teacher import teacher_files

PER_CLUSTER = 16  # synthetic images for each cluster, where the number of clusters is not given
# Pixels a side that a classifier looks at on a laptop; the latents of the mini
# sd_webster have 8
FEW = 16

# What the paper states (section 5.1, Algorithm 1); what it leaves open keeps the
# default.
PAPER = {
    "clusters": 100,
    "min_members": 1,
    "keep": 1.0,
    "cohesion": 0.5,
    "train_on": "all",
    "features": "sscd",
    "synthetic": 50_000,
    "generations": 50_000,
    "blocks": (3, 4, 6, 3),
    "stem": 1,
    "classifier_rate": 1e-4,
    "classifier_steps": 50_000,
    "lora_rank": 512,
    "lora_rate": 1e-5,
    "lora_steps": 50_000,
}

# What one kind of label or of surrogate reads and the other does not
OF_CLUSTERS = (
    "features",
    "features_weights",
    "clusters",
    "min_members",
    "keep",
    "cohesion",
    "train_on",
)
OF_CLASSIFIER = ("blocks", "stem", "classifier_steps", "classifier_rate")
OF_LORA = ("lora_rank", "lora_steps", "lora_rate", "lora_start")


def stride_to_few(pixels: int) -> int:
    """The stride that leaves at most ``FEW`` of so many pixels a side."""
    return -(-pixels // FEW)


@dataclass(frozen=True)
class SideOptions:
    source: Literal["null", "conditions"] = field(
        default="null",
        metadata={
            "help": (
                "generate the synthetic images from the null condition or from the task's"
                " conditions"
            )
        },
    )
    synthetic: int = field(default=1600, metadata={"help": "N_syn, synthetic images", "min": 2})
    features: Literal["bottleneck", "sscd", "sscd-int8", "clip", "pixels"] = field(
        default="bottleneck",
        metadata={
            "help": "what is clustered; bottleneck: the target's own middle block; the paper: sscd"
        },
    )
    features_weights: str = field(
        default="",
        metadata={
            "help": (
                "weights of sscd (a file, or a variant such as disc_mixup) or clip (MODEL:TAG or"
                " MODEL:FILE)"
            )
        },
    )
    clusters: int = field(
        default=0, metadata={"help": "K of k-means; 0: synthetic / 16; the paper: 100", "min": 0}
    )
    min_members: int = field(
        default=5,
        metadata={
            "help": (
                "drop clusters of fewer images, before they are ranked; the paper has no such rule"
            ),
            "min": 1,
        },
    )
    keep: float = field(
        default=0.15,
        metadata={
            "help": (
                "share of the clusters to keep, those of highest cohesion, in (0, 1]; the paper: 1"
            )
        },
    )
    cohesion: float = field(
        default=-1.0,
        metadata={
            "help": (
                "tau: of those that keep leaves, drop clusters below this mean cosine; -1: none;"
                " the paper: 0.5"
            ),
            "min": -1.0,
            "max": 1.0,
        },
    )
    train_on: Literal["all", "kept"] = field(
        default="kept",
        metadata={
            "help": (
                "train on the kept clusters' images alone, or on all, each with its nearest kept"
                " cluster (the paper)"
            )
        },
    )
    labels: Literal["clusters", "teacher", "oracle"] = field(
        default="clusters",
        metadata={
            "help": (
                "pseudo-labels; or the output of a given classifier to distil (the method's first"
                " version); oracle, an upper line: which training image each copies"
            )
        },
    )
    teacher: str = field(
        default="",
        metadata={
            "help": "folder of an image classifier in transformers' layout, for labels=teacher"
        },
    )
    surrogate: Literal["auto", "classifier", "lora"] = field(
        default="auto",
        metadata={"help": "auto: lora for text-to-image models, classifier otherwise"},
    )
    guidance: float = field(
        default=10.0,
        metadata={"help": "lambda, weight of the classifier's gradient; lora has none", "min": 0.0},
    )
    generations: int = field(default=1000, metadata={"help": "N_G, images to extract", "min": 1})
    count_synthetic: bool = field(
        default=False,
        metadata={
            "help": (
                "extract the synthetic images too, beside N_G guided ones: an attacker has them"
            )
        },
    )
    blocks: tuple[int, ...] = field(
        default=(1, 1, 1, 1),
        metadata={
            "help": (
                "classifier: residual blocks of its four stages; ResNet-34 (the paper): 3,4,6,3"
            ),
            "min": 1,
        },
    )
    stem: int = field(
        default=0,
        metadata={
            "help": (
                "classifier: stride of its first convolution; 0: what leaves at most 16 pixels a"
                " side"
            ),
            "min": 0,
            "max": 16,
        },
    )
    classifier_steps: int = field(
        default=400, metadata={"help": "training steps of the classifier", "min": 1}
    )
    classifier_rate: float = field(
        default=1e-3,
        metadata={"help": "its learning rate; the paper: 1e-4", "min": 1e-9, "max": 1.0},
    )
    lora_rank: int = field(default=32, metadata={"help": "LoRA rank; the paper: 512", "min": 1})
    lora_steps: int = field(default=100, metadata={"help": "training steps of LoRA", "min": 1})
    lora_rate: float = field(
        default=5e-3,
        metadata={"help": "its learning rate; the paper: 1e-5", "min": 1e-9, "max": 1.0},
    )
    lora_start: Literal["zero", "token"] = field(
        default="zero",
        metadata={
            "help": (
                "what is learned of a label begins at zero, the null condition, or at random, as"
                " long as a token's embedding"
            )
        },
    )
    batch: int = field(
        # Batch normalisation takes two
        default=64,
        metadata={"help": "training batch of either surrogate", "min": 2},
    )
    draws: int = field(
        default=1,
        metadata={"help": "an example's own generations, for its score", "min": 1, "max": 1000},
    )
    neighbours: int = field(
        default=50,
        metadata={
            "help": (
                "n of the score's normalised distance, at most the images there are; Carlini et"
                " al.: 50"
            ),
            "min": 2,
        },
    )
    steps: int = field(default=0, metadata={"help": "DDIM steps; 0: the task's own", "min": 0})

    def __post_init__(self) -> None:
        needed = self.k * self.min_members
        if self.labels == "clusters" and needed > self.synthetic:
            raise ValueError(
                f"clusters={self.k} of at least min_members={self.min_members} images need"
                f" synthetic={needed}, not {self.synthetic}; raise synthetic, or lower clusters or"
                " min_members"
            )
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep:g}: the share of clusters to keep lies in (0, 1]")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"guidance={self.guidance}: lambda is a finite number >= 0")
        if not -1 <= self.cohesion <= 1:
            raise ValueError(f"cohesion={self.cohesion}: a mean cosine lies in [-1, 1]")
        if len(self.blocks) != 4:
            raise ValueError(
                f"blocks={','.join(map(str, self.blocks))}: name four stages, such as 3,4,6,3"
            )
        if (self.labels == "teacher") != bool(self.teacher):
            raise ValueError("labels=teacher and teacher=FOLDER go together")

    @property
    def k(self) -> int:
        """K, the number of clusters."""
        return self.clusters or max(1, self.synthetic // PER_CLUSTER)


def read_files(options: SideOptions) -> dict[str, str]:
    """Hashes of the files that the options name, for a run's key; what is missing is
    refused where it is read.
    """
    found: dict[str, str] = {}
    if options.labels == "teacher":
        files = teacher_files(options.teacher)
        if all(file.is_file() for file in files):
            found["teacher"] = json_hash([file_hash(file) for file in files])
    elif options.features in ("sscd", "sscd-int8", "clip"):
        named = options.features_weights
        name = named.partition(":")[2] if options.features == "clip" else named
        # A tag, and the name of a variant, are no files of the user's
        if name and (file := expanded(name)).is_file():
            found["features_weights"] = file_hash(file)
    return found
