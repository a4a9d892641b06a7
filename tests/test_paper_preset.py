"""The preset of SIDE's paper as a whole, on stand-ins small enough for a test: SSCD
features, every cluster that is tight enough, labels for all images, ResNet-34 on pixels
and LoRA on a text-to-image model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from memorizer import IMAGES, pixels
from safetensors.torch import save_file
from torchvision.models import resnet50

from membench.detectors.side import Side
from membench.detectors.side_options import PAPER
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.storage.workspace import Workspace

SAMPLING = {"steps": 4, "guidance": 3.0}
# Sizes alone; every choice that the paper states stays
STAND_IN = {"clusters": 6, "synthetic": 8, "generations": 5, "batch": 4}
OF_CLASSIFIER, OF_LORA = {"classifier_steps": 2}, {"lora_rank": 2, "lora_steps": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SSCD of random weights."""
    file = tmp_path_factory.mktemp("sscd") / "sscd.safetensors"
    torch.manual_seed(0)
    save_file(resnet50(num_classes=512).state_dict(), file)
    return str(file)


def whole(
    model: Any, weights: str, workspace: Workspace, sizes: dict[str, int]
) -> tuple[Side, dict[str, Any]]:
    options = Side.Options(**{**PAPER, **STAND_IN, **sizes, "features_weights": weights})
    attack = Side(options, seed=0, sampling=SAMPLING)
    attack.check(model, [])
    facts = attack.prepare(model, [], workspace)
    requests = attack.plan([])
    samples = attack.extract(model, requests)
    assert len(samples) == STAND_IN["generations"] and facts["features"] == "sscd"
    # The paper drops clusters by cohesion alone, and trains on every image
    assert facts["clusters kept"] == sum(v >= 0.5 for v in facts["cohesion"])
    assert len(attack.labels) == STAND_IN["synthetic"]
    return attack, facts


def test_on_pixels_the_surrogate_is_a_resnet_34_that_knows_the_timestep(
    weights: str, workspace: Workspace
) -> None:
    w = pixels(clip=True, alone=True)
    attack, facts = whole(w.model, weights, workspace, OF_CLASSIFIER)
    assert facts["surrogate"] == "classifier" and len(IMAGES) < STAND_IN["clusters"]
    convolutions = [
        name
        for name, module in attack.classifier.named_modules()
        if isinstance(module, torch.nn.Conv2d) and "downsample" not in name
    ]
    assert len(convolutions) + 1 == 34  # and the linear layer
    assert attack.classifier.time is not None
    assert attack.classifier.resnet.conv1.stride == (1, 1)


def test_on_text_it_is_lora(weights: str, workspace: Workspace, tiny_pipeline_folder: Path) -> None:
    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    _, facts = whole(model, weights, workspace, OF_LORA)
    assert facts["surrogate"] == "lora"
    assert workspace.cost.decodes == STAND_IN["synthetic"]  # what SSCD has looked at
    assert workspace.cost.backwards == OF_LORA["lora_steps"] * STAND_IN["batch"]
