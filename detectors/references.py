"""Reference prompts: not memorized, for a detector to compare others with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from membench.datasets.prompts import example_id, read_prompt_file
from membench.datasets.twins import BUT_FOR, plain
from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.storage.files import write_json
from membench.storage.hashing import json_hash
from membench.storage.workspace import Workspace
from membench.types import Condition, Cost

AT_ONCE = 64  # references in one batch
LEAST = 2  # of which there is a spread

# Plain scenes: no name, title or product that one image could belong to. Short, for the
# tokenizers of small models.
NEUTRAL = (
    "a wooden bench by a pond",
    "two cups of tea on a kitchen table",
    "a grey cat asleep on a folded blanket",
    "rain on the window of a slow train",
    "a bicycle by a brick wall",
    "a bowl of green pears in morning light",
    "snow on the roof of a small farmhouse",
    "an old man feeding pigeons in a square",
    "a red umbrella left open on a balcony",
    "a dirt road between fields of barley",
    "three boats tied to a pier at low tide",
    "a child drawing with chalk",
    "a stack of firewood under a tin roof",
    "a lighthouse above dark rocks at dusk",
    "a plate of pancakes with blueberries",
    "a brown dog running through shallow water",
    "a desk with an open notebook and a lamp",
    "a market stall with onions and garlic",
    "a stone bridge over a river in spring",
    "a knitted scarf drying on a line",
    "an empty room with two chairs",
    "a hot air balloon far above a valley",
    "a loaf of bread on a cutting board",
    "a gravel path through a bamboo grove",
    "a tent beside a lake under many stars",
    "a blue door in a whitewashed wall",
    "a woman mending a watch",
    "a flock of geese over a frozen marsh",
    "a jar of honey next to a window",
    "a tram on a wide road at night",
    "a potted fern on a marble stair",
    "a sheep standing in a foggy pasture",
    "a row of coats on iron hooks",
    "a sandy beach after a storm",
    "a soup pot steaming on a stove",
    "a wooden fence covered with ivy",
    "a goat looking over a low stone wall",
    "a paper boat floating in a puddle",
    "a windmill on a hill in summer haze",
    "a basket of linen on the grass",
    "a hiker resting below a pine tree",
    "a fishing net spread out to dry",
    "an attic room with a round window",
    "a pile of smooth pebbles near a stream",
    "a bus stop in heavy snow at dawn",
    "a violin lying on a velvet chair",
    "a vegetable garden behind a brick house",
    "a rowing boat half hidden in reeds",
    "a clay jug with dried wheat",
    "a long hall with sun on the floor",
)


def read_references(file: str) -> tuple[str, ...]:
    """The prompts of a file of any format, each once; of no file NEUTRAL.

    Raises :class:`UserError` for what cannot be read, a prompt that the file itself
    calls memorized, and fewer than LEAST.
    """
    if not file:
        return NEUTRAL
    rows = read_prompt_file(Path(file))
    if memorized := [row for row in rows if row.label == 1]:
        many = "1 prompt" if len(memorized) == 1 else f"{len(memorized)} prompts"
        raise UserError(
            f"references={file}: it calls {many} memorized ({memorized[0].where} is the first); "
            "give prompts that are not"
        )
    texts = tuple(dict.fromkeys(row.text for row in rows))
    if len(texts) < LEAST:
        raise UserError(f"references={file}: {len(texts)} prompt; give at least {LEAST}")
    return texts


def refuse_examples(texts: Sequence[str], conditions: Sequence[Condition]) -> None:
    """Raises :class:`UserError` for a reference that is an example of the task."""
    examples = {plain(c.prompt) for c in conditions if c.prompt is not None}
    if found := [text for text in texts if plain(text) in examples]:
        many = "1 reference prompt is an example" if len(found) == 1 else None
        many = many or f"{len(found)} reference prompts are examples"
        raise UserError(
            f"{many} of this task, {BUT_FOR} ({found[0][:60]!r}), and may be memorized; "
            "give references that are none"
        )


def reference_conditions(texts: Sequence[str]) -> list[Condition]:
    """With the ids that the same prompts have as examples, and so the same noises."""
    return [Condition(example_id(text), text) for text in texts]


def over_references(
    model: Denoiser,
    workspace: Workspace,
    texts: Sequence[str],
    parts: Mapping[str, Any],
    measure: Callable[[Sequence[tuple[Condition, int]]], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (n - 1) over the references, [k] each.

    measure: of (condition, noise) rows, [n, k]; each reference has noise 0. A stage of
    the workspace that is made once for these ``texts`` and ``parts``. Raises
    :class:`UserError` where nothing can be compared with the result.
    """

    def make(folder: Path) -> tuple[Cost, float]:
        began, before = time.monotonic(), replace(model.cost)
        rows = [(c, 0) for c in reference_conditions(texts)]
        batches = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        values = torch.cat([measure(batch).cpu() for batch in batches]).double()
        mean, spread = values.mean(dim=0), values.std(dim=0)
        if not bool((spread.isfinite() & (spread > 0)).all()):
            raise UserError(
                "what the reference prompts give is not finite, or all alike, so nothing can be "
                "compared with it; choose other references, or statistic=plain"
            )
        write_json(folder / "usual.json", {"mean": mean.tolist(), "spread": spread.tolist()})
        return model.cost - before, time.monotonic() - began

    stage = workspace.stage("references", {**parts, "prompts": json_hash(list(texts))}, make)
    found = json.loads((stage.path / "usual.json").read_bytes())
    mean, spread = (torch.tensor(found[key], dtype=torch.float64) for key in ("mean", "spread"))
    return mean, spread
