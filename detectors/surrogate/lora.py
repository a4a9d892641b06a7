"""SIDE's surrogate for text-to-image models: LoRA (Hu et al. 2022, through ``peft``) on
the U-Net, conditioned on the pseudo-label.

The base weights are frozen and come back, bit for bit, outside :meth:`Adapter.adapted`.
A pseudo-label enters where a caption does: as the null caption's embedding plus a
vector of its own, which is learned too. (SIDE says that the model is conditioned on y,
not how.) Both the vectors and LoRA's second factors start at zero, so that training
starts from the null condition itself and each step is one away from what the model
generates there; ``start="token"`` begins with random vectors as long as a token's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.training import Plan, fit
from membench.storage.hashing import tensor_hash
from membench.storage.workspace import Workspace
from membench.types import Cost

from .classifier import ADAMW
from .conditions import NULL, Synthetic, read_tensors, write_tensors

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]  # diffusers' own recipe for text-to-image LoRA
NAME = "membench"


def refuse_unadaptable(model: Denoiser) -> None:
    """Raises :class:`UserError` for a model that no adapter fits."""
    if not model.takes_text or not hasattr(model.network, "add_adapter"):
        raise UserError("surrogate=lora needs a text-to-image model; choose surrogate=classifier")


class Adapter:
    """A U-Net with LoRA weights that are off, and the label vectors [classes, d]."""

    def __init__(
        self, model: Denoiser, classes: int, rank: int, seed: int, start: str = "zero"
    ) -> None:
        refuse_unadaptable(model)
        told = model.condition([NULL])
        null, self.pooled = told.embeddings, told.pooled
        assert null is not None  # the model takes text
        network: Any = model.network
        self.network, self.null = network, null.float()
        if NAME in getattr(network, "peft_config", {}):
            network.delete_adapters(NAME)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.add_adapter(
                LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    init_lora_weights="gaussian",
                    target_modules=PROJECTIONS,
                ),
                NAME,
            )
        # Zero, as LoRA's own offset: labels part by their images' gradients. With a random
        # vector, as long as a token on average, the condition is one that the model never
        # saw, before anything is learned.
        labels = torch.zeros(classes, self.null.shape[-1])
        if start == "token":
            source = torch.Generator().manual_seed(seed)
            length = self.null[0].norm(dim=1).mean().cpu()
            labels = torch.randn(labels.shape, generator=source) * length / labels.shape[1] ** 0.5
        labels = labels.to(model.device)
        self.labels = nn.Embedding.from_pretrained(labels, freeze=False)
        network.disable_adapters()

    @contextmanager
    def adapted(self) -> Iterator[None]:
        """The LoRA weights are in force."""
        self.network.enable_adapters()
        try:
            yield
        finally:
            self.network.disable_adapters()

    def condition(self, labels: torch.Tensor) -> Conditioning:
        """The network's input for pseudo-labels [n]."""
        pooled = None if self.pooled is None else self.pooled.expand(len(labels), -1)
        embeddings = (self.null + self.labels(labels)[:, None]).to(self.network.dtype)
        return Conditioning(embeddings, pooled)

    def state(self) -> dict[str, torch.Tensor]:
        return {"labels": self.labels.weight} | {
            f"lora.{k}": v
            for k, v in get_peft_model_state_dict(self.network, adapter_name=NAME).items()
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.labels.weight.data.copy_(state["labels"])
        lora = {k.removeprefix("lora."): v for k, v in state.items() if k.startswith("lora.")}
        set_peft_model_state_dict(self.network, lora, adapter_name=NAME)


def train_lora(
    model: Denoiser,
    synthetic: Synthetic,
    labels: torch.Tensor,
    workspace: Workspace,
    *,
    rank: int,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    start: str = "zero",
) -> Adapter:
    """The model's own diffusion loss on D_syn, conditioned on the pseudo-labels [n].

    AdamW. Continues after an interruption.

    Its evaluations are the target's: the whole U-Net runs, forwards and backwards.
    """
    adapter = Adapter(model, int(labels.max()) + 1, rank, seed, start)
    x0, device = synthetic.x0, model.device

    def loss(step: int, gen: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(x0), (batch,), generator=gen)
        t = torch.randint(model.steps, (batch,), generator=gen)
        noise = torch.randn((batch, *model.shape), generator=gen)
        return model.diffusion_loss(
            x0[index].to(device),
            noise.to(device),
            t.to(device),
            adapter.condition(labels[index].to(device)),
        )

    def make(folder: Path) -> tuple[Cost, float]:
        trained = nn.ModuleDict({"network": model.network, "labels": adapter.labels})
        with adapter.adapted():
            for name, parameter in model.network.named_parameters():
                parameter.requires_grad_("lora_" in name)
            plan = Plan("lora", {"lora": trained}, loss, steps, lambda step: rate, seed, **ADAMW)
            report = fit(plan, folder, progress=workspace.progress)
        write_tensors(folder / "lora.safetensors", adapter.state())
        (folder / "lora.checkpoint").unlink()
        return Cost(forwards=steps * batch, backwards=steps * batch), report["seconds"]

    training = {
        "rank": rank,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "seed": seed,
        "start": start,
    }
    stage = workspace.stage(
        "lora",
        {"synthetic": synthetic.stage.key, "labels": tensor_hash({"labels": labels}), **training},
        make,
    )
    adapter.load(read_tensors(stage.path / "lora.safetensors")[0])
    model.network.eval().requires_grad_(False)
    return adapter
