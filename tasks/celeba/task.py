"""CelebA: which faces has a pixel model memorized?

The mini profile is drawn (faces.py): 24 people as the condition, images shown 1 to 64
times, in two halves, and a UNet2DModel trained on each (docs/design/mirror-pairs.md).
The full profile reads the data set in its official layout (data.py), a subset of the images
too, and asks any UNet2DModel of 64x64, 128x128 or 256x256 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from membench.errors import UserError
from membench.similarity.spaces import pixel_space
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Tracker, Training

from ..pixels.mirror_task import MirrorOptions, halves_of, load_mirror, refuse_mirror_options
from ..pixels.task import full_setting, load_setting
from .data import read_celeba
from .faces import WORLD

DATA = Path(__file__).resolve().parent.parent / "data" / "celeba"

# Of the mini profile's models: channels of each resolution, and the steps of the one
# snapshot that is kept
CHANNELS = (8, 16, 32, 64, 64)
RUNGS = (3000,)
IDENTITIES = 10_177  # identity k of the file, 1 to 10,177, is class k - 1 of a model


@dataclass(frozen=True)
class CelebaOptions(MirrorOptions):
    size: Literal[64, 128, 256] = field(
        default=64,
        metadata={"help": "pixels a side of model and data (--profile full)", "full": True},
    )
    split: Literal["train", "all"] = field(
        default="train",
        metadata={"help": "what the model was trained on (--profile full)", "full": True},
    )


class Celeba(Task):
    info = TaskInfo(
        name="celeba",
        version=2,
        profiles=("mini", "full"),
        space=pixel_space(WORLD.size),
        examples="images",
        sampling={"steps": 20, "guidance": 1.0},
    )
    Options = CelebaOptions

    def load(
        self,
        profile: str,
        *,
        control: bool = False,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> LoadedTask:
        """The pool of the model, or the images of both halves of a mirror pair, as
        examples; with ``control`` the same examples, scored by a model that never saw
        the training images.
        """
        how: dict[str, Any] = {
            "control": control,
            "device": device,
            "dtype": dtype,
            "batch_size": batch_size,
        }
        o = self.options
        if profile == "mini":
            return load_mirror(
                self.info,
                WORLD,
                DATA,
                RUNGS,
                o,
                **how,
                progress=self.progress,
            )
        refuse_mirror_options(o)
        if o.examples == "training":
            raise UserError(
                "examples=training is for --profile mini: of a model of real faces no mirror is"
                " known; choose examples=auto"
            )
        setting = full_setting(self.info, "", IDENTITIES, o.size, self.training, o, control)
        return load_setting(setting, o, **how, progress=self.progress)

    def training(self, folder: Path) -> Training:
        """The aligned, cropped images of a split.

        One person's photographs are one group: they are not independent.
        """
        data = read_celeba(
            Path(self.options.data_root),
            self.options.size,
            training=self.options.split == "train",
            progress=self.progress,
        )
        for note in data.notes:
            print(f"membench: {note}", file=sys.stderr)
        return Training(
            images=lambda: data.images,
            ids=data.names,
            copies=data.copies.tolist(),
            groups=[
                str(who) if who >= 0 else name
                for who, name in zip(data.identities, data.names, strict=True)
            ],
            hash=json_hash(
                [data.key, list(data.names)]
                + ([data.copies.tolist()] if data.copies.max() > 1 else [])
            ),
        )

    @classmethod
    def train(
        cls,
        out: Path,
        parts: Sequence[str] | None,
        options: Sequence[str],
        *,
        profile: str = "mini",
        progress: bool = True,
        tracker: Tracker | None = None,
    ) -> None:
        """``membench train celeba``: the recipe that made the shipped models."""
        from membench.options import parse_options

        from ..pixels.recipe import MirrorRecipe
        from ..pixels.train import train_mirror

        if profile != "mini":
            raise UserError(
                "celeba has a recipe for --profile mini only; train on real faces with diffusers"
                " and give the model with --model"
            )
        halves = halves_of(cls.info, parts)
        base = {"channels": CHANNELS, "steps": RUNGS[-1], "rungs": RUNGS, "label_dropout": 0.1}
        recipe = parse_options(MirrorRecipe, options, owner="recipe of celeba", base=base)
        train_mirror(WORLD, out, halves, recipe, progress, tracker)
