"""CelebA: which faces that a pixel model draws are copies of its training set?

The mini profile is drawn (faces.py): 24 people as the condition, pictures shown 1 to 64 times, a UNet2DModel that was trained on
them, and a control model that was not. The full profile reads the data set in its official layout (celeba_data.py), a subset of the
images too, and asks any UNet2DModel of 64x64 or 128x128 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from membench.errors import UserError
from membench.hashing import json_hash
from membench.pool import Training
from membench.types import LoadedTask, TaskInfo

from .celeba_data import read_celeba
from .faces import WORLD
from .pixels import PixelOptions, full_setting, load_setting, mini_setting, pixel_space

DATA = Path(__file__).resolve().parent / "data" / "celeba"
IDENTITIES = 10_177


@dataclass(frozen=True)
class CelebaOptions(PixelOptions):
    size: Literal[64, 128] = field(default=64, metadata={"help": "pixels a side of model and data (--profile full)"})
    split: Literal["train", "all"] = field(default="train", metadata={"help": "what the model was trained on (--profile full)"})


class Celeba:
    info = TaskInfo(
        name="celeba",
        version=1,
        summary="CelebA (mini: drawn faces), generated faces that are copies of training images against others",
        profiles=("mini", "full"),
        space=pixel_space(64),
        sampling={"steps": 20, "guidance": 1.0},
    )
    Options = CelebaOptions

    def __init__(self, options: CelebaOptions = CelebaOptions()) -> None:
        self.options = options

    def load(self, profile: str, *, control: bool = False, device: str = "cpu", dtype: str = "float32", batch_size: int = 64) -> LoadedTask:
        """The pool of the model as examples; with ``control`` the same pool, scored by a model that never saw the training images."""
        o = self.options
        if profile == "mini":
            setting = mini_setting(self.info, WORLD, DATA, o, control)
        else:
            setting = full_setting(self.info, "", IDENTITIES, o.size, self.training, o, control)
        return load_setting(setting, o, control=control, device=device, dtype=dtype, batch_size=batch_size)

    def training(self, folder: Path) -> Training:
        """The aligned, cropped images of a split. One person's photographs are one group: they are not independent."""
        data = read_celeba(Path(self.options.data_root), self.options.size)
        for note in data.notes:
            print(f"membench: {note}", file=sys.stderr)
        rows = np.flatnonzero(data.partition == 0) if self.options.split == "train" else np.arange(len(data.names))
        if not len(rows):
            raise UserError(
                f"no image in {self.options.data_root} is of the training split; give list_eval_partition.txt, or choose split=all"
            )
        # The official split is a stretch of the names: a view, so that nothing is read before it is compared.
        stretch = len(rows) == rows[-1] - rows[0] + 1
        images = data.images[rows[0] : rows[-1] + 1] if stretch else data.images[rows]
        return Training(
            images=lambda: images,
            ids=[data.names[row] for row in rows],
            copies=[1] * len(rows),
            kinds=["x1"] * len(rows),
            groups=[str(data.identities[row]) if data.identities[row] >= 0 else data.names[row] for row in rows],
            hash=json_hash([data.key, self.options.split]),
        )

    @staticmethod
    def train(out: Path, parts: Sequence[str] | None, options: Sequence[str], *, profile: str = "mini", progress: bool = True) -> None:
        """``membench train celeba``: the recipe that made the shipped models."""
        from membench.options import parse_options

        from .pixel_train import FACES, PixelRecipe, train_world

        if profile != "mini":
            raise UserError(
                "celeba has a recipe for --profile mini only; train on real faces with diffusers and give the model with --model"
            )
        train_world(Celeba, WORLD, out, parts, parse_options(PixelRecipe, options, owner="recipe of celeba", base=FACES), progress)
