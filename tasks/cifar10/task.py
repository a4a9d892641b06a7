"""CIFAR-10: which images has a pixel model memorized?

The mini profile is drawn (scenes.py): ten classes, images shown 1 to 64 times, in two
halves, and a class-conditional UNet2DModel trained on each (docs/design/mirror-pairs.md).
The full profile is the real data set and any UNet2DModel of 32x32 pixels:
unconditional like google/ddpm-cifar10-32, or one of ``membench train cifar10 --profile
full``, whose training.json says which images it saw.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from membench.datasets.trained_on import hash_with_labels, was_told_classes
from membench.errors import UserError, unknown_name
from membench.similarity.spaces import pixel_space
from membench.storage.hashing import json_hash
from membench.task import LoadedTask, Task, TaskInfo
from membench.types import Tracker, Training

from ..pixels.mirror import Pair
from ..pixels.mirror_task import (
    MirrorOptions,
    halves_of,
    load_mirror,
    mirror_examples,
    of_mirror,
    refuse_mirror_options,
    refuse_pool_options,
)
from ..pixels.task import compared, found, full_setting, load_setting, loaded, unique
from ..shared import mirror_of
from .data import CLASSES, read_cifar10
from .mirror import real_pair
from .scenes import WORLD
from .trained import read_trained, record_of, snapshot

DATA = Path(__file__).resolve().parent.parent / "data" / "cifar10"
DEFAULT_MODEL = "google/ddpm-cifar10-32"
SIZE = 32
# Of the mini profile's models: channels of each resolution, and the steps of the five
# snapshots
CHANNELS = (16, 32, 64)
RUNGS = (1800, 2000, 2400, 3000, 6000)


@dataclass(frozen=True)
class Cifar10Options(MirrorOptions):
    trained_on: str = field(
        default="",
        metadata={
            "help": (
                "training.json that names the model's images; empty: the model's own, or all 50,000"
                " where it has none"
            ),
            "full": True,
        },
    )


class Cifar10(Task):
    info = TaskInfo(
        name="cifar10",
        version=2,
        profiles=("mini", "full"),
        space=pixel_space(WORLD.size),
        examples="images",
        sampling={"steps": 20, "guidance": 1.0},
    )
    Options = Cifar10Options

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
        from membench.models.pixel import classes_of

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
        refuse_mirror_options(o, but=("half", "rung"))
        if o.rung and not o.model:
            raise UserError(
                f"rung={o.rung} with --profile full: of a model of your own, which membench train"
                " cifar10 --profile full --set rungs=STEP,STEP wrote; name it: --model FOLDER"
            )
        if o.half == "b" and not (o.examples == "training" and o.model and o.control_model):
            raise UserError(
                "half=b with --profile full asks the mirror of a pair: --model FOLDER --set"
                " cifar10.control_model=FOLDER --set cifar10.examples=training"
            )
        if o.examples == "training":
            refuse_pool_options(self.info, o, but=("model",))
        turned = replace(o, model=o.control_model, control_model=o.model)
        setting = full_setting(
            self.info,
            DEFAULT_MODEL,
            len(CLASSES),
            SIZE,
            self.training,
            o if o.half == "a" else turned,
            control,
            snapshot=lambda folder: snapshot(folder, o.rung),
            seen=self._seen,
        )
        setting = replace(
            setting, held_out=self.unseen, held_out_classes=lambda n: self._unseen(n)[1].tolist()
        )
        if o.examples == "training":
            pair = self.pair()
            told = classes_of(setting.asked, len(CLASSES), SIZE, o.variant)
            examples = mirror_examples(pair, o.half)
            return loaded(
                compared(setting, o, device, batch_size, self.progress),
                examples,
                told,
                o.variant,
                **how,
                control_saw=of_mirror(examples, o.half),
            )
        return load_setting(setting, o, **how, progress=self.progress)

    @cached_property
    def _official(self) -> tuple[np.ndarray, np.ndarray]:
        """CIFAR-10's training set, whose 180 MB are read and proved once a task."""
        return read_cifar10(Path(self.options.data_root))

    def unseen(self, n: int) -> np.ndarray:
        """The first n images of a fixed permutation of CIFAR-10's test set."""
        return self._unseen(n)[0]

    def _unseen(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        images, classes = read_cifar10(Path(self.options.data_root), train=False)
        rows = np.random.default_rng(0).permutation(len(images))[:n]
        return images[rows], classes[rows]

    def pair(self) -> Pair:
        """The parts of CIFAR-10 that the model and its mirror were trained on, as halves
        ``a`` and ``b``.
        """
        o = self.options
        if not o.control_model:
            raise UserError(
                "examples=training compares a model with its mirror: membench train cifar10"
                " --profile full --set skip=N, then --set cifar10.control_model=FOLDER"
            )
        images, classes = self._official
        folders = {
            half: snapshot(found(model or DEFAULT_MODEL, o.variant), o.rung)
            for half, model in (("a", o.model), ("b", o.control_model))
        }
        records = {half: self._record(half, folder) for half, folder in folders.items()}
        return real_pair(images, classes, records["a"], records["b"], rung=o.rung)

    def training(self, folder: Path) -> Training:
        """The training images of a model: the subset that its training.json names, or
        the whole training set.
        """
        images, classes = self._official
        file = self._record(self.options.half, folder)
        if not file.is_file():
            if self.options.model:
                print(
                    f"membench: {folder} has no training.json: taken to be trained on all of"
                    " CIFAR-10's training set",
                    file=sys.stderr,
                )
            rows, copies = (found.tolist() for found in unique(images))
        else:
            advice = "give --set cifar10.trained_on=FILE"
            trained = read_trained(file, len(images), advice)
            rows, copies = trained.rows, trained.copies
        shown = images[rows]
        return Training(
            images=lambda: shown,
            ids=[_id(row) for row in rows],
            copies=[int(n) for n in copies],
            hash=hash_with_labels(
                json_hash(
                    ["CIFAR-10, training set", [int(r) for r in rows], [int(n) for n in copies]]
                ),
                file,
            ),
            classes=classes[rows].tolist() if was_told_classes(file) else (),
        )

    def _record(self, half: str, folder: Path) -> Path:
        """The file that says which images a half's model was trained on; what the user
        names is of the model, not of its control.
        """
        if not self.options.trained_on or half == "b":
            return record_of(folder)
        named = Path(self.options.trained_on)
        if not named.is_file():
            raise UserError(f"trained_on={named} is not there")
        return named

    def _seen(self, control: Path) -> set[str]:
        """Ids of the images that a control's training.json names; empty without one."""
        file = self._record(mirror_of(self.options.half), control)
        if not file.is_file():
            return set()
        images, _ = self._official
        advice = "choose another control_model"
        return {_id(row) for row in read_trained(file, len(images), advice).rows}

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
        """``membench train cifar10``: the shipped models, or with ``--profile full`` a
        memorizing model of real images.
        """
        from membench.options import parse_options

        from ..pixels.recipe import MirrorRecipe
        from ..pixels.train import train_mirror
        from .train import train_subset

        if profile == "mini":
            halves = halves_of(cls.info, parts)
            base = {"channels": CHANNELS, "steps": RUNGS[-1], "rungs": RUNGS}
            recipe = parse_options(MirrorRecipe, options, owner="recipe of cifar10", base=base)
            train_mirror(WORLD, out, halves, recipe, progress, tracker)
        elif parts:
            raise unknown_name("part", parts[0], (), "membench train cifar10 --help")
        else:
            train_subset(out, options, progress, tracker)


def _id(row: int) -> str:
    """Of an image of CIFAR-10's training set."""
    return f"train/{row:05d}"
