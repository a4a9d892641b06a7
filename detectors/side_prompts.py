"""SIDE without the model's weights (Chen et al., AAAI 2026, appendix): a genetic
algorithm over prompts, whose fitness is the surrogate's class probability.

The paper states a population of 50 and 40,000 queries, and no more: neither where
prompts come from nor how they are changed. Here

- queries with the task's captions give the synthetic images, and k-means on their
  pixels the pseudo-labels (nothing of the network is seen); the surrogate is a
  classifier of clean images, as nothing is noised;
- a generation of prompts is asked once each, with noise of its own, and the fitness of
  a prompt is p(c | its image);
- the fittest ``elite`` share goes on as it is; a child's parents win tournaments of
  two; with probability ``crossover`` the child is the first words of one and the last
  words of the other, else one of them; then each word is replaced with probability
  ``mutation`` by a word of the captions;
- the first generation are captions, drawn uniformly with replacement; each of
  ``targets`` clusters, drawn uniformly, has a population of its own.

Every image that was asked for is an image of the attack: N_G is the number of queries,
synthetic ones included, so it stands beside as many random captions (``random`` with
``at_most``). Confidence: the class probability; of a synthetic image 0. Score of a
prompt: the surest class of one more query, as membench has it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch

from membench.errors import UserError
from membench.models.denoiser import Denoiser
from membench.models.image_values import from_uint8
from membench.models.sampling import ddim, step_forwards
from membench.options import refuse_unread
from membench.seeds import seed_of
from membench.storage.workspace import Workspace
from membench.types import Access, Condition, Cost, Sample

from .prepared import Prepared, each_once
from .side_options import stride_to_few
from .surrogate.conditions import (
    BLOCK,
    Synthetic,
    cluster,
    describe,
    read_tensors,
    synthesize,
    synthesize_forwards,
    write_tensors,
)
from .surrogate.genetic import bred


@dataclass(frozen=True)
class SidePromptsOptions:
    synthetic: int = field(
        default=800, metadata={"help": "queries with captions, for the surrogate", "min": 2}
    )
    clusters: int = field(
        default=50, metadata={"help": "K of k-means, on pixels; the paper: 100", "min": 1}
    )
    min_members: int = field(
        default=5, metadata={"help": "drop clusters of fewer images", "min": 1}
    )
    keep: float = field(
        default=0.15, metadata={"help": "share of the tightest clusters to keep, in (0, 1]"}
    )
    targets: int = field(default=2, metadata={"help": "clusters to search prompts for", "min": 1})
    population: int = field(
        default=50, metadata={"help": "prompts of a generation; the paper: 50", "min": 2}
    )
    rounds: int = field(default=8, metadata={"help": "generations of prompts", "min": 1})
    elite: float = field(
        default=0.2,
        metadata={"help": "share that goes on as it is", "min": 0.0, "max": 1.0},
    )
    crossover: float = field(
        default=0.5, metadata={"help": "probability of two parents", "min": 0.0, "max": 1.0}
    )
    mutation: float = field(
        default=0.05,
        metadata={"help": "probability of another word, word by word", "min": 0.0, "max": 1.0},
    )
    classifier_steps: int = field(
        default=400, metadata={"help": "training steps of the surrogate", "min": 1}
    )
    # Batch normalisation takes two
    batch: int = field(default=64, metadata={"help": "its training batch", "min": 2})

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep:g}: the share of clusters to keep lies in (0, 1]")
        if (needed := self.clusters * self.min_members) > self.synthetic:
            raise ValueError(
                f"clusters={self.clusters} of at least min_members={self.min_members} images need"
                f" synthetic={needed}, not {self.synthetic}"
            )

    @property
    def queries(self) -> int:
        """Images that are asked for, the synthetic ones included."""
        return self.synthetic + self.targets * self.population * self.rounds


class SidePrompts(Prepared):
    """SIDE by queries alone: a genetic algorithm over prompts (Chen et al., AAAI 2026)."""

    Options: ClassVar[type] = SidePromptsOptions
    version = 2
    access = Access()

    def __init__(
        self, options: SidePromptsOptions, *, seed: int, sampling: Mapping[str, Any]
    ) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.steps, self.weight = int(sampling["steps"]), float(sampling["guidance"])

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        if not model.takes_text or any(c.prompt is None for c in conditions):
            raise UserError("it searches prompts, and this model is not told any; choose side")
        o = self.options
        if o.rounds == 1:
            why = "the only generation are captions as they are; choose rounds=2 or more"
            refuse_unread(o, ("elite", "crossover", "mutation"), why)
        elif round(o.elite * o.population) == o.population:
            why = f"elite={o.elite:g} leaves no place for a child; lower it"
            refuse_unread(o, ("crossover", "mutation"), why)

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        o, captions = self.options, each_once(conditions)
        synthetic = synthesize(
            model,
            captions,
            workspace,
            n=o.synthetic,
            seed=self.seed,
            steps=self.steps,
            guidance=self.weight,
        )
        z = describe(model, synthetic, workspace, features="pixels", weights="", seed=self.seed)
        found = cluster(z, k=o.clusters, min_members=o.min_members, keep=o.keep, seed=self.seed)
        self.classifier = self._surrogate(model, synthetic, found.members, found.labels, workspace)
        asked = [(captions[i % len(captions)], i // len(captions)) for i in range(o.synthetic)]
        states, sure = [synthetic.x0], [0.0] * o.synthetic
        targets = [seed_of(self.seed, "target", k) % len(found.kept) for k in range(o.targets)]
        for k, target in enumerate(targets):
            prompts, x0, fitness = self._search(
                model, [str(c.prompt) for c in captions], target, k, synthetic, workspace
            )
            asked += [(Condition(f"search-{k}", prompt), i) for i, prompt in enumerate(prompts)]
            states.append(x0)
            sure += fitness
        self.keep(asked, torch.cat(states), sure)
        last = np.ma.masked_invalid(sure[o.synthetic :]).reshape(o.targets, o.rounds, -1)
        return {
            "queries": o.queries,
            "clusters kept": len(found.kept),
            "targets": targets,
            "mean fitness of each generation": last.mean(axis=2).round(4).tolist(),
        }

    def _surrogate(
        self,
        model: Denoiser,
        synthetic: Synthetic,
        members: np.ndarray,
        labels: np.ndarray,
        workspace: Workspace,
    ) -> torch.nn.Module:
        """A classifier of clean pixels, trained on the kept clusters' images."""
        from .surrogate.classifier import train_classifier

        kept = synthetic.only(members)
        images = torch.cat([_pixels(model, part) for part in kept.x0.split(BLOCK)])
        seen: Any = SimpleNamespace(
            shape=tuple(images.shape[1:]), device=model.device, steps=model.steps
        )
        own = torch.from_numpy(labels[members])
        return train_classifier(
            seen,
            replace(kept, x0=images),
            torch.nn.functional.one_hot(own).float(),
            workspace,
            blocks=(1, 1, 1, 1),
            timed=False,
            stem=stride_to_few(images.shape[-1]),
            steps=self.options.classifier_steps,
            batch=self.options.batch,
            rate=1e-3,
            seed=self.seed,
        )

    def _search(
        self,
        model: Denoiser,
        captions: Sequence[str],
        target: int,
        number: int,
        synthetic: Synthetic,
        workspace: Workspace,
    ) -> tuple[list[str], torch.Tensor, list[float]]:
        """Prompts, final states and fitness of all queries of one search, in order.
        Continues after an interruption with the generation that it was in.
        """
        o = self.options
        rng = np.random.RandomState(seed_of(self.seed, "search", number) % 2**32)
        words = sorted({word for caption in captions for word in caption.split()})

        def make(folder: Path) -> tuple[Cost, float]:
            total, seconds = Cost(), 0.0
            prompts = [captions[rng.randint(len(captions))] for _ in range(o.population)]
            for generation in range(o.rounds):
                file = folder / f"{generation:04d}.safetensors"
                if not file.exists():
                    before, began = replace(model.cost), time.monotonic()
                    x0, fitness = self._ask(model, prompts, target, number, generation)
                    notes = {
                        "prompts": json.dumps(prompts),
                        "cost": json.dumps(vars(model.cost - before)),
                        "seconds": str(time.monotonic() - began),
                    }
                    write_tensors(file, {"x0": x0, "fitness": fitness}, notes)
                held, notes = read_tensors(file)
                total = total + Cost(**json.loads(notes["cost"]))
                seconds += float(notes["seconds"])
                prompts = bred(
                    json.loads(notes["prompts"]),
                    held["fitness"].tolist(),
                    words,
                    rng,
                    elite=o.elite,
                    crossover=o.crossover,
                    mutation=o.mutation,
                )
            return total, seconds

        parts = {
            "version": self.version,
            "synthetic": synthetic.stage.key,
            "target": target,
            "number": number,
            "options": {**vars(o)},
        }
        stage = workspace.stage("search", parts, make)
        prompts: list[str] = []
        states, fitness = [], []
        for generation in range(o.rounds):
            held, notes = read_tensors(stage.path / f"{generation:04d}.safetensors")
            prompts += json.loads(notes["prompts"])
            states.append(held["x0"])
            fitness += [float(v) for v in held["fitness"]]
        return prompts, torch.cat(states), fitness

    def _ask(
        self, model: Denoiser, prompts: Sequence[str], target: int, number: int, generation: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final states [n, *shape] of a query each, and p(target | image) [n]."""
        keys = [(f"search-{number}", generation * len(prompts) + i) for i in range(len(prompts))]
        x = self._sampled(model, keys, [Condition(f"prompt/{p}", p) for p in prompts])
        fitness = self._probabilities(model, x)[:, target]
        return x.cpu(), fitness

    def _sampled(
        self, model: Denoiser, keys: Sequence[tuple[str, int]], conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Final states [n, *shape] of the noises of these names and draws."""
        x, told = model.noise(keys, self.seed), model.condition(conditions)
        return ddim(model, x, told, steps=self.steps, guidance=self.weight)

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        captions, o = each_once(conditions), self.options
        price = self.steps * step_forwards(model.condition(captions[:1]), self.weight)
        made = synthesize_forwards(
            model, captions, o.synthetic, steps=self.steps, guidance=self.weight
        )
        return made + (o.queries - o.synthetic) * price

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        x = self._sampled(model, [(c.id, 0) for c in conditions], conditions)
        return self._probabilities(model, x).max(dim=1).values.tolist()

    def _probabilities(self, model: Denoiser, x: torch.Tensor) -> torch.Tensor:
        """p(c | image) of the images of states [n, *shape]: [n, classes], on the CPU; NaN
        where there is no state to decode, of which ``decode`` makes an image all the same.
        """
        found = []
        for part in x.split(BLOCK):
            images = _pixels(model, part).to(model.device)
            with torch.no_grad():
                logits = self.classifier(images, torch.zeros(len(images), device=model.device))
            finite = part.flatten(1).isfinite().all(dim=1, keepdim=True)
            found.append(logits.float().softmax(dim=1).where(finite, math.nan).cpu())
        model.cost.surrogate_forwards += len(x)
        return torch.cat(found)


def _pixels(model: Denoiser, x: torch.Tensor) -> torch.Tensor:
    """The images of states [n, *shape] in [-1, 1]: float32 [n, 3, h, w]."""
    return from_uint8(model.decode(x.to(model.device)))
