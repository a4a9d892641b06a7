"""SIDE: surrogate conditional data extraction (Chen et al., AAAI 2026, arXiv
2410.02467v7), Algorithm 1.

Part 1 makes conditions for a model that has none: sample N_syn images from the model
itself, cluster them, drop loose clusters (and, by default, small ones: membench's own),
and train a surrogate on the cluster labels. Part 2 generates N_G images, each guided to
a cluster c that is drawn uniformly:

    eps^ = eps(x_t, t) - sqrt(1 - abar_t) lambda grad log p_t(c | x_t)    (surrogate=classifier)
    eps^ = eps_{theta + LoRA}(x_t, t, c)                                  (surrogate=lora)

White box: it needs weights and gradients of the surrogate, and no training image and no
label.

Two more things are membench's own. *Confidence* of an image: minus its
distance to the nearest synthetic image of its cluster, in the model's own space: what
the model generates twice is more surely memorized. *Score* of an example: minus
Carlini's normalised distance from the example (an image, or what the model generates
for a prompt) to the nearest extracted image, d_1 / mean(d_1 .. d_n): how densely the
attack's images gather around what the model generates for it, whatever the contrast of
the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch

from membench.detector import Detector
from membench.errors import UserError
from membench.features.loading import load_features
from membench.models.denoiser import Denoiser
from membench.models.sampling import ddim
from membench.options import changed, refuse_unread
from membench.seeds import seed_of
from membench.similarity.search import nearest
from membench.storage.pixels import Pixels
from membench.storage.workspace import Workspace
from membench.types import Access, Condition, Request, Sample

from .base import drawn_pixels, own_images, samples
from .prepared import each_once
from .side_options import (
    OF_CLASSIFIER,
    OF_CLUSTERS,
    OF_LORA,
    PAPER,
    SideOptions,
    read_files,
    stride_to_few,
)
from .surrogate.conditions import NULL, synthesize, synthesize_forwards
from .surrogate.labels import by_clusters, by_oracle, by_teacher
from .surrogate.teacher import teacher_of

SYNTHETIC = Condition("synthetic")  # of D_syn, where it counts as images


class Side(Detector):
    Options: ClassVar[type] = SideOptions
    version = 3
    access = Access(gradients=True, images=True)  # LoRA trains through the target
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
        {"mini": {}, "paper": PAPER, "full": PAPER}
    )
    attack = True
    alone = True  # LoRA changes the network while it generates
    timed = True  # the baseline of the conditional attack has a classifier that knows no timestep

    def __init__(self, options: SideOptions, *, seed: int, sampling: Mapping[str, Any]) -> None:
        super().__init__(options, seed=seed, sampling=sampling)
        self.reads = read_files(options)
        self.steps = options.steps or int(sampling["steps"])
        # Of the task's own sampling, for images of its conditions
        self.weight = float(sampling["guidance"])
        self._pixels: Pixels | None = None
        if options.labels == "oracle":
            self.access = replace(self.access, training_data=True)

    def show(self, copied: Callable[[np.ndarray], np.ndarray]) -> None:
        self.copied = copied

    def check(self, model: Denoiser, conditions: Sequence[Condition]) -> None:
        o = self.options
        if not (model.has_null or model.takes_text):
            raise UserError(
                "this model has no null class, whose predictions SIDE guides; choose another"
                " detector"
            )
        # Before the images are generated that it shall describe
        if o.labels == "clusters" and o.features in ("sscd", "sscd-int8", "clip"):
            load_features(o.features, o.features_weights)
        if o.labels == "teacher":
            teacher_of(model, o.teacher)
        if self._kind(model) == "lora":
            from .surrogate.lora import refuse_unadaptable

            refuse_unadaptable(model)
            why = "surrogate=lora has no classifier to be guided by"
            refuse_unread(o, ("guidance",), why)
            own, other = OF_LORA, OF_CLASSIFIER
        else:
            why = "surrogate=classifier has no LoRA; leave it out"
            own, other = OF_CLASSIFIER, OF_LORA
        # Settings of several tasks may be of both
        if o.surrogate != "auto" or not changed(o, own):
            refuse_unread(o, other, why, self.presets)
        if o.labels != "clusters":
            read = ("min_members",) if o.labels == "oracle" else ()
            unread = [name for name in OF_CLUSTERS if name not in read]
            refuse_unread(o, unread, f"labels={o.labels} makes no clusters", self.presets)
        elif o.features == "bottleneck":
            why = "features=bottleneck are the model's own; choose sscd, sscd-int8 or clip"
            refuse_unread(o, ("features_weights",), why)
        if self.examples == "images":
            refuse_unread(o, ("draws",), "an example that is an image is scored as it is")

    # ----------------------------------------------------- part 1: surrogate conditions

    def prepare(
        self, model: Denoiser, conditions: Sequence[Condition], workspace: Workspace
    ) -> dict[str, Any]:
        o = self.options
        source, weight = self._source(model, conditions)
        synthetic = synthesize(
            model,
            source,
            workspace,
            n=o.synthetic,
            seed=self.seed,
            steps=self.steps,
            guidance=weight,
        )
        self.synthetic = synthetic
        facts: dict[str, Any] = {
            "surrogate": self._kind(model),
            "labels": o.labels,
            "synthetic images": o.synthetic,
        }
        if o.labels == "clusters":
            labelled = by_clusters(model, synthetic, workspace, o, self.seed)
        elif o.labels == "oracle":
            labelled = by_oracle(model, synthetic, self.copied, o.min_members)
        else:
            labelled = by_teacher(model, synthetic, workspace, o.teacher)
        facts |= labelled.facts
        synthetic = labelled.synthetic
        self.x0, self.labels = synthetic.x0, labelled.labels
        training: dict[str, Any] = {"batch": o.batch, "seed": self.seed}
        if self._kind(model) == "lora":
            from .surrogate.lora import train_lora

            self.adapter = train_lora(
                model,
                synthetic,
                labelled.labels,
                workspace,
                rank=o.lora_rank,
                steps=o.lora_steps,
                rate=o.lora_rate,
                start=o.lora_start,
                **training,
            )
        else:
            from .surrogate.classifier import train_classifier

            self.classifier = train_classifier(
                model,
                synthetic,
                labelled.targets,
                workspace,
                blocks=o.blocks,
                timed=self.timed,
                stem=o.stem or stride_to_few(model.shape[-1]),
                steps=o.classifier_steps,
                rate=o.classifier_rate,
                **training,
            )
        return facts

    def preparation_forwards(self, model: Denoiser, conditions: Sequence[Condition]) -> int:
        o = self.options
        source, weight = self._source(model, conditions)
        forwards = synthesize_forwards(
            model, source, o.synthetic, steps=self.steps, guidance=weight
        )
        forwards += o.synthetic if o.labels == "clusters" and o.features == "bottleneck" else 0
        return forwards + (o.lora_steps * o.batch if self._kind(model) == "lora" else 0)

    def _source(
        self, model: Denoiser, conditions: Sequence[Condition]
    ) -> tuple[Sequence[Condition], float]:
        """Conditions to generate synthetic images from, and the weight of
        classifier-free guidance.
        """
        if self.options.source == "conditions":
            return each_once(conditions), self.weight
        if not model.has_null:
            raise UserError(
                "this model has no null condition to sample from; choose source=conditions"
            )
        return [NULL], 1.0

    def _kind(self, model: Denoiser) -> str:
        auto = "lora" if model.takes_text else "classifier"
        return auto if self.options.surrogate == "auto" else self.options.surrogate

    # --------------------------------------------------------------- part 2: extraction

    def plan(self, conditions: Sequence[Condition]) -> list[Request]:
        """N_G images; the target cluster of each is uniform over those that remain, a
        function of seed and draw alone. With ``count_synthetic`` D_syn before them.
        """
        count = int(self.labels.max()) + 1
        kept = len(self.synthetic.x0) if self.options.count_synthetic else 0
        return [Request(SYNTHETIC, k) for k in range(kept)] + [
            Request(Condition(f"cluster-{seed_of(self.seed, 'cluster', k) % count:04d}"), k)
            for k in range(self.options.generations)
        ]

    def image_forwards(self, model: Denoiser, request: Request) -> int:
        return 0 if request.condition == SYNTHETIC else self.steps

    def extract(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        had = [r for r in requests if r.condition == SYNTHETIC]
        guided = [r for r in requests if r.condition != SYNTHETIC]
        found = (
            iter(self._had(model, had) if had else []),
            iter(self._guided(model, guided) if guided else []),
        )
        return [next(found[r.condition != SYNTHETIC]) for r in requests]

    def _had(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        """Synthetic images as images of the attack, whose evaluations the preparation
        has counted. Confidence: minus the RMS distance to the nearest other one.
        """
        rows = torch.tensor([r.draw for r in requests])
        x = self.synthetic.x0[rows]
        distance = torch.cdist(x.flatten(1), self.synthetic.x0.flatten(1))
        distance[torch.arange(len(rows)), rows] = math.inf
        near = distance.min(dim=1).values / math.sqrt(x[0].numel())
        x = x.to(model.device)
        return samples(requests, x, model.decode(x), (-near).tolist())

    def _guided(self, model: Denoiser, requests: Sequence[Request]) -> list[Sample]:
        c = torch.tensor(
            [int(r.condition.id.removeprefix("cluster-")) for r in requests], device=model.device
        )
        x = model.noise([("side", r.draw) for r in requests], self.seed)
        if self._kind(model) == "lora":
            with self.adapter.adapted():
                x = ddim(model, x, self.adapter.condition(c), steps=self.steps, guidance=1.0)
        else:
            null = model.condition([NULL] * len(x))

            def correct(x_t: torch.Tensor, t: int, eps: torch.Tensor) -> torch.Tensor:
                sigma = model.alpha_sigma(t)[1]
                return eps - sigma * self.options.guidance * self._gradient(model, x_t, t, eps, c)

            x = ddim(
                model,
                x,
                null,
                steps=self.steps,
                guidance=1.0,
                correct=correct if self.options.guidance else None,
            )
        images = model.decode(x)
        return [
            Sample(r.condition, r.draw, image, confidence)
            for r, image, confidence in zip(
                requests, images, self._confidence(x.cpu(), c.cpu()), strict=True
            )
        ]

    def _gradient(
        self, model: Denoiser, x: torch.Tensor, t: int, eps: torch.Tensor, c: torch.Tensor
    ) -> torch.Tensor:
        """grad log p_t(c | x_t)."""
        from .surrogate.classifier import log_prob_gradient

        return log_prob_gradient(self.classifier, x, t, c, model.cost, model.batch_size)

    def _confidence(self, x: torch.Tensor, c: torch.Tensor) -> list[float]:
        nearest_of = [
            (
                float((self.x0[self.labels == label] - row).flatten(1).norm(dim=1).min())
                if bool(row.isfinite().all())
                else math.nan
            )
            for row, label in zip(x.float(), c, strict=True)
        ]
        return [-d / math.sqrt(x[0].numel()) for d in nearest_of]

    # ------------------------------------------------------------------------ detection

    def score(
        self,
        model: Denoiser,
        conditions: Sequence[Condition],
        extracted: Mapping[str, Sequence[Sample]],
    ) -> list[float]:
        if self._pixels is None:
            self._pixels = drawn_pixels(extracted)
        if not len(self._pixels):
            return [math.nan] * len(conditions)
        if self.examples == "images":
            images, finite, n = own_images(conditions), np.ones(len(conditions), bool), 1
        else:
            n = self.options.draws
            rows = [(c, draw) for c in conditions for draw in range(n)]
            x = model.noise([(c.id, draw) for c, draw in rows], self.seed)
            x = ddim(
                model,
                x,
                model.condition([c for c, _ in rows]),
                steps=self.steps,
                guidance=self.weight,
            )
            images, finite = model.decode(x), x.flatten(1).isfinite().all(dim=1).cpu().numpy()
        near = nearest(images, self._pixels, min(self.options.neighbours, len(self._pixels)))[
            0
        ].astype(np.float64)
        distance = near[:, 0] / np.maximum(near.mean(axis=1), 1e-12)
        distance[~finite] = math.nan
        return (-distance.reshape(len(conditions), n).mean(axis=1)).tolist()
