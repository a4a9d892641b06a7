"""CelebA: which faces that a pixel model generates are copies of its training set?

The mini profile is drawn (faces.py): 24 people as the condition, images shown 1 to 64
times, a UNet2DModel that was trained on them, and a control model that was not. The
full profile reads the data set in its official layout (data.py), a subset of the images
too, and asks any UNet2DModel of 64x64 or 128x128 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from membench.errors import UserError
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Training

from ..pixels.mirror_task import MirrorOptions, load_mirror, mirror_parts, refuse_mirror_options
from ..pixels.task import full_setting, load_setting, mini_setting, pixel_space
from .data import read_celeba
from .faces import MIRROR, WORLD

DATA = Path(__file__).resolve().parent.parent / "data" / "celeba"


RUNGS = (2500, 3000, 3500, 4000, 5000)  # steps of the snapshots of a mirror pair's models


IDENTITIES = 10_177  # identity k of the file, 1 to 10,177, is class k - 1 of a model


@dataclass(frozen=True)
class CelebaOptions(MirrorOptions):
    size: Literal[64, 128] = field(
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
        version=1,
        summary=(
            "CelebA (mini: drawn faces), generated faces that are copies of training images against"
            " others"
        ),
        profiles=("mini", "full"),
        space=pixel_space(64),
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
        o = self.options
        if profile == "mini" and (o.examples == "training" or o.models):
            return load_mirror(
                self.info,
                MIRROR,
                DATA,
                RUNGS,
                o,
                control=control,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
            )
        refuse_mirror_options(self.info, o)
        if profile == "mini":
            setting = mini_setting(self.info, WORLD, DATA, o, control)
        elif o.examples == "training":
            raise UserError(
                "examples=training is for --profile mini: of a model of real faces no mirror is"
                " known; choose examples=auto"
            )
        else:
            setting = full_setting(self.info, "", IDENTITIES, o.size, self.training, o, control)
        return load_setting(
            setting, o, control=control, device=device, dtype=dtype, batch_size=batch_size
        )

    def training(self, folder: Path) -> Training:
        """The aligned, cropped images of a split.

        One person's photographs are one group: they are not independent.
        """
        data = read_celeba(
            Path(self.options.data_root), self.options.size, training=self.options.split == "train"
        )
        for note in data.notes:
            print(f"membench: {note}", file=sys.stderr)
        return Training(
            images=lambda: data.images,
            ids=data.names,
            copies=[1] * len(data.names),
            groups=[
                str(who) if who >= 0 else name
                for who, name in zip(data.identities, data.names, strict=True)
            ],
            hash=json_hash([data.key, list(data.names)]),
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
    ) -> None:
        """``membench train celeba``: the recipe that made the shipped models."""
        from membench.options import parse_options

        from ..pixels.train import FACES, MirrorRecipe, PixelRecipe, train_mirror, train_world

        if profile != "mini":
            raise UserError(
                "celeba has a recipe for --profile mini only; train on real faces with diffusers"
                " and give the model with --model"
            )
        if halves := mirror_parts(parts, options):
            base = {"channels": FACES["channels"], "steps": RUNGS[-1], "rungs": RUNGS}
            train_mirror(
                MIRROR,
                out,
                halves,
                parse_options(MirrorRecipe, options, owner="recipe of celeba", base=base),
                progress,
            )
            return
        train_world(
            cls,
            WORLD,
            out,
            parts,
            parse_options(PixelRecipe, options, owner="recipe of celeba", base=FACES),
            progress,
        )
