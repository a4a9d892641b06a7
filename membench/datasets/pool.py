"""The examples of a task whose examples are images: a fixed pool that its model has
generated.

Image i of a pool is sampled from the noise of hash("pool", seed, i), told class i mod
classes (or nothing), as the task samples; its label is 1 where its nearest training
image is a copy by the task's criterion. Each keeps its noise and its class, so that
detectors that follow a trajectory and detectors that look at the image score the same
example. A pool is made once, then read from the cache. It is generated in float32,
whatever --dtype scores it.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim
from membench.similarity.criterion import Match, by_pixels
from membench.storage.cache import cache_root, check_proof, is_proved, prove_written
from membench.storage.files import CACHE, DamagedFile, locked
from membench.storage.hashing import content_key, json_hash
from membench.storage.images import png_image, pngs
from membench.storage.sealed import read_sealed, write_sealed
from membench.storage.tables import read_table, write_table
from membench.types import Condition, Example, Space, Training

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1

# Images through the network at once, whatever --batch-size: a batch's shape changes the
# last bits
BLOCK = 64


@dataclass(frozen=True)
class PoolSpec:
    """All that decides a pool. classes: how many labels are dealt in turn; 0: of
    the unconditional model.
    """

    n: int
    seed: int
    classes: int
    sampling: Mapping[str, Any]
    space: Space
    weights: str
    data: str

    def key(self) -> str:
        # What the space calls a copy is applied when the pool is read: it is not in the
        # key.
        parts = {
            **asdict(self),
            "space": self.space.id,
            "sampling": dict(self.sampling),
            "version": VERSION,
        }
        return content_key(json.loads(json.dumps(parts)))

    def conditions(self) -> list[Condition]:
        """What each image is generated from, without the images."""
        return [
            Condition(
                str(i),
                class_label=i % self.classes if self.classes else None,
                start=("pool", str(self.seed), str(i)),
            )
            for i in range(self.n)
        ]


def read_pool(
    spec: PoolSpec,
    model: Callable[[], Denoiser],
    training: Training,
    *,
    match: Match | None = None,
    progress: bool = True,
) -> list[Example]:
    """The pool's examples, from the cache; generated and kept there if they are not in
    it. Raises :class:`UserError`.

    match: how images are compared with ``training``; None: by normalised L2.
    """
    key = spec.key()
    file = cache_root() / "pools" / f"{key}.parquet"
    if not is_proved(file):
        with locked(file, progress):
            if not is_proved(file):  # another process may have made it while we waited
                print(
                    f"membench: generating the pool of {spec.n} images that detectors will score,"
                    f" kept in {file}",
                    file=sys.stderr,
                )
                write_pool(file, spec, model(), training, match=match, progress=progress)
                prove_written(file)
    frame = read_table(file, "pool")
    check_proof(file)  # a table may be whole, and another's
    return _examples(frame, spec.space, training)


def write_pool(
    file: Path,
    spec: PoolSpec,
    model: Denoiser,
    training: Training,
    *,
    match: Match | None = None,
    progress: bool = True,
) -> None:
    """Generates the pool, finds each image's nearest training image and writes both.

    Blocks made before an interruption are kept.
    """
    if spec.n < 2:
        raise UserError(f"a pool of {spec.n}: detection needs at least 2 images")
    conditions = spec.conditions()
    model.batch_size = BLOCK
    blocks = [
        file.with_name(f".{file.stem}-{spec.key()}-{start}.npy")
        for start in range(0, spec.n, BLOCK)
    ]
    made: list[np.ndarray] = []
    for k, block in enumerate(tqdm(blocks, desc="pool", unit="batch", disable=not progress)):
        asked = conditions[k * BLOCK : (k + 1) * BLOCK]
        try:
            part = np.load(io.BytesIO(read_sealed(block)), allow_pickle=False)
        except (FileNotFoundError, DamagedFile):
            part = generate(model, asked, spec.sampling)
            held = io.BytesIO()
            np.save(held, part)
            write_sealed(block, held.getbuffer(), advice=CACHE)
        made.append(part)
    images = np.concatenate(made)
    found = (match or by_pixels(training.images))(images, None).sort_values("generated")
    import pandas as pd

    frame = pd.DataFrame(
        {
            "index": np.arange(spec.n),
            "label": pd.array([c.class_label for c in conditions], dtype="Int32"),
            "start": [json.dumps(c.start) for c in conditions],
            "training": found.training.to_numpy(),
            "training_id": [training.ids[k] for k in found.training],
            "similarity": found.similarity.to_numpy(),
            "image": pngs(list(images)),
        }
    )
    parts = {**asdict(spec), "space": spec.space.id, "sampling": dict(spec.sampling)}
    write_table(
        file,
        frame,
        "pool",
        {"key": spec.key(), "parts": json.dumps(parts, sort_keys=True)},
        advice=CACHE,
    )
    for block in blocks:
        block.unlink()


def generate(
    model: Denoiser, conditions: Sequence[Condition], sampling: Mapping[str, Any]
) -> np.ndarray:
    """The images of conditions that know their noise, as the task samples: ``uint8``
    [n, h, w, 3].
    """
    x = model.starts([(c, 0) for c in conditions], seed=0)
    x = ddim(
        model,
        x,
        model.condition(conditions),
        steps=int(sampling["steps"]),
        guidance=float(sampling["guidance"]),
    )
    images = model.decode(x)
    if not bool(x.isfinite().all()):
        raise UserError("the model returned NaN while the pool was generated; try --dtype float32")
    return images


def _examples(frame: pd.DataFrame, space: Space, training: Training) -> list[Example]:
    """kind: that of the copied image, "novel" otherwise; negatives in the widest band
    are "near miss", others "far".
    """
    import pandas as pd

    sign = 1 if space.higher_is_closer else -1
    edge = space.bands[-1].low if space.higher_is_closer else space.bands[-1].high  # of the loosest
    # As every metric of extraction counts: limits rounded as the similarities are stored
    best = frame.similarity.to_numpy(dtype=np.float32)
    copies, near = (sign * best >= sign * np.float32(limit) for limit in (space.copy, edge))
    examples = []
    for row, copied, close in zip(frame.itertuples(), copies, near, strict=True):
        start, label = tuple(json.loads(row.start)), None if pd.isna(row.label) else int(row.label)
        name = json_hash([row.image.hex(), label, start])[:16]
        source = "pool" if copied else "near miss" if close else "far"
        examples.append(
            Example(
                Condition(name, None, png_image(row.image), label, start),
                int(copied),
                training.kinds[row.training] if copied else "novel",
                # Images near one image are not independent; intervals want groups of
                # one label.
                training.groups[row.training] if copied else f"not {training.groups[row.training]}",
                source,
                float(row.similarity),
                row.training_id,
            )
        )
    return examples
