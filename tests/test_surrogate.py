"""SIDE's two surrogates, the classifier and LoRA, against slow versions written by
hand.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import save_tiny_pipeline
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.embeddings import get_timestep_embedding
from surrogates import ABAR, gaussian, synthetic
from torch import nn

from membench.detectors.side_options import stride_to_few
from membench.detectors.surrogate import classifier, lora
from membench.detectors.surrogate.classifier import (
    Classifier,
    TimeNorm,
    log_prob_gradient,
    train_classifier,
)
from membench.detectors.surrogate.conditions import Synthetic
from membench.detectors.surrogate.lora import Adapter, train_lora
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.pixel import PixelDenoiser
from membench.models.schedule import PARAMETERISATIONS
from membench.models.training import fit
from membench.types import Condition, Cost


@pytest.fixture
def model(tiny_pipeline_folder: Path) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=3)


def shaken(timed: bool = True, blocks: tuple[int, ...] = (2, 1, 1, 1)) -> Classifier:
    """A classifier whose running statistics and time weights are far from where they
    begin.
    """
    torch.manual_seed(0)
    net = Classifier(3, 4, blocks, timed=timed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for statistic in (module.running_mean, module.weight.data, module.bias.data):
                statistic.add_(0.3 * torch.randn_like(statistic))
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, TimeNorm):
            nn.init.normal_(module.affine.weight, std=0.3)
            nn.init.normal_(module.affine.bias, std=0.3)
    return net.eval().requires_grad_(False)


# --------------------------------------------------------------------------- classifier


@pytest.mark.parametrize("pixels", [1, 8, 15, 16, 17, 24, 28, 32, 33, 64, 96, 256])
def test_a_classifier_looks_at_no_more_than_sixteen_pixels_a_side(pixels: int) -> None:
    """And at no fewer than it must; sides of the shipped tasks keep their strides."""
    stride = stride_to_few(pixels)
    assert -(-pixels // stride) <= 16 and (stride == 1 or -(-pixels // (stride - 1)) > 16)
    if pixels in (8, 16, 32, 64):
        assert stride == max(1, pixels // 16)


def logits_by_hand(net: Classifier, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The timed ResNet, every block spelled out, in the precision of ``net``."""
    embedding = net.time(get_timestep_embedding(t, 128).to(x.dtype))

    def norm(bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            v[:, None, None] for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
        )
        return (x - mean) / (var + bn.eps).sqrt() * weight + bias

    x = F.relu(norm(net.resnet.bn1, net.resnet.conv1(x)))
    for layer in (net.resnet.layer1, net.resnet.layer2, net.resnet.layer3, net.resnet.layer4):
        for block in layer:
            scale, shift = block.bn1.affine(embedding)[..., None, None].tensor_split(2, dim=1)
            inner = F.relu((1 + scale) * norm(block.bn1.norm, block.conv1(x)) + shift)
            skip = (
                x if block.downsample is None else norm(block.downsample[1], block.downsample[0](x))
            )
            x = F.relu(norm(block.bn2, block.conv2(inner)) + skip)
    return net.resnet.fc(x.mean(dim=(2, 3)))


def test_time_enters_right_after_the_first_batch_norm_of_every_block() -> None:
    net, x, t = shaken(), gaussian(3, 3, 6, 6), torch.tensor([0, 300, 999])
    assert sum(isinstance(m, TimeNorm) for m in net.modules()) == 5
    torch.testing.assert_close(net(x, t), logits_by_hand(net, x, t), rtol=1e-4, atol=1e-4)
    assert (net(x, t) - net(x, t.flip(0))).abs()[[0, 2]].min() > 1e-3


def test_at_first_time_changes_nothing_and_without_time_there_is_none() -> None:
    torch.manual_seed(0)
    timed, plain = (Classifier(3, 4, (1, 1, 1, 1), timed=timed).eval() for timed in (True, False))
    assert not [name for name, _ in plain.named_parameters() if "time" in name or "affine" in name]
    shared = {
        k.replace("bn1.norm.", "bn1."): v
        for k, v in timed.state_dict().items()
        if "affine" not in k and not k.startswith("time.")
    }
    plain.load_state_dict(shared)
    x = gaussian(2, 3, 6, 6)
    assert torch.equal(timed(x, torch.tensor([3, 900])), plain(x, torch.tensor([0, 0])))


def test_the_gradient_is_the_gradient_of_log_p() -> None:
    """Central differences in double precision, through the network spelled out above."""
    net, x, labels = shaken(), gaussian(3, 3, 6, 6), torch.tensor([0, 3, 1])
    double, h = deepcopy(net).double(), 1e-6
    for t in (0, 300, 999):
        got = log_prob_gradient(net, x, t, labels, Cost(), batch_size=2)
        assert got.dtype == torch.float32 and got.shape == x.shape
        for row, label in enumerate(labels):
            for place in torch.randperm(
                x[0].numel(), generator=torch.Generator().manual_seed(t + row)
            )[:6]:
                step = torch.zeros(x[0].numel(), dtype=torch.float64)
                step[place] = h
                pair = x[row].double() + torch.stack([step, -step]).view(2, *x[0].shape)
                up, down = logits_by_hand(double, pair, torch.tensor([t, t])).log_softmax(dim=1)[
                    :, label
                ]
                assert float(got[row].flatten()[place]) == pytest.approx(
                    float(up - down) / (2 * h), rel=2e-3, abs=1e-5
                )
        assert got.abs().amax() > 1e-3  # else nothing was compared


def test_a_gradient_does_not_depend_on_its_batch_and_is_counted() -> None:
    net, x, labels, cost = shaken(), gaussian(5, 3, 6, 6), torch.tensor([0, 3, 1, 2, 0]), Cost()
    together = log_prob_gradient(net, x, 500, labels, cost, batch_size=2)
    assert cost == Cost(surrogate_forwards=5, surrogate_backwards=5)
    for row in range(5):
        alone = log_prob_gradient(net, x[row : row + 1], 500, labels[row : row + 1], cost)
        torch.testing.assert_close(together[row], alone[0], rtol=1e-3, atol=1e-6)
    assert cost.surrogate_forwards == 10


class Watched(nn.Module):
    """In the classifier's place: keeps what it is asked."""

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # noqa: RUF012 - emptied by the test

    def __init__(
        self, channels: int, classes: int, blocks: tuple[int, ...], *, timed: bool, stem: int = 1
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append((x.clone(), t.clone()))
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize("timed", [True, False])
def test_the_classifier_is_trained_on_the_models_own_forward_process(
    timed, model, workspace, monkeypatch
) -> None:
    """Constant images of +10 and -10 can be told apart at any t, so that the noise can
    be taken out again.
    """
    x0 = torch.tensor([10.0, -10.0])[:, None, None, None].expand(2, *model.shape).contiguous()
    Watched.seen.clear()
    targets: list[torch.Tensor] = []
    real = F.cross_entropy
    monkeypatch.setattr(classifier, "Classifier", Watched)
    monkeypatch.setattr(
        F, "cross_entropy", lambda logits, target: targets.append(target) or real(logits, target)
    )
    settings = {"blocks": (1, 1, 1, 1), "steps": 40, "batch": 64, "rate": 1e-3, "seed": 3}
    train_classifier(model, synthetic(x0), torch.eye(2), workspace, timed=timed, **settings)
    x, t = (torch.cat(part) for part in zip(*Watched.seen, strict=True))
    sign = x.mean(dim=(1, 2, 3)).sign()
    # Each image with its own label
    assert torch.equal(torch.cat(targets), torch.eye(2)[(sign < 0).long()])
    assert 0.45 < float((sign > 0).double().mean()) < 0.55
    if not timed:
        assert bool((t == 0).all()) and torch.equal(x, x0[(sign < 0).long()])
        return
    alpha, sigma = (v[t, None, None, None] for v in (ABAR.sqrt(), (1 - ABAR).sqrt()))
    noise = (x - alpha * 10 * sign[:, None, None, None]) / sigma
    late = noise[t > 20]  # where rounding is not divided by a small sigma
    assert float(late.mean()) == pytest.approx(0, abs=0.01) and float(late.std()) == pytest.approx(
        1, abs=0.01
    )
    assert float(noise.flatten(1).std(dim=1).sub(1).abs().max()) < 0.25  # every single image
    ranks = t.double().sort().values / 1000 - torch.arange(len(t)) / len(t)
    assert float(ranks.abs().max()) < 1.63 / len(t) ** 0.5  # Kolmogorov-Smirnov, 1 %
    assert len(torch.unique(x.flatten(1)[:, 0])) == len(x)  # new noise each time


def test_a_trained_classifier_tells_the_labels_and_stands_still(model, workspace) -> None:
    x0 = torch.cat(
        [gaussian(4, *model.shape) * 0.1 + 1, gaussian(4, *model.shape, seed=1) * 0.1 - 1]
    )
    targets = torch.eye(2).repeat_interleave(4, dim=0)
    settings = {
        "blocks": (1, 1, 1, 1),
        "timed": True,
        "steps": 24,
        "batch": 8,
        "rate": 1e-3,
        "seed": 3,
    }
    net = train_classifier(model, synthetic(x0), targets, workspace, **settings)
    assert (
        workspace.cost == Cost(surrogate_forwards=192, surrogate_backwards=192)
        and model.cost == Cost()
    )
    assert not net.training and not [p for p in net.parameters() if p.requires_grad]
    for t in (0, 200):
        x = model.noised(x0, gaussian(8, *model.shape, seed=2), torch.full((8,), t))
        assert net(x, torch.full((8,), t)).argmax(dim=1).tolist() == [0] * 4 + [1] * 4


# ---------------------------------------------------------------------- forward process


def test_one_class_would_guide_nothing_and_is_refused(model, workspace) -> None:
    """Its log-probability is 0 everywhere, and so is its gradient."""
    with pytest.raises(UserError, match="one class of images"):
        train_classifier(
            model,
            synthetic(torch.zeros(4, *model.shape)),
            torch.ones(4, 1),
            workspace,
            blocks=(1, 1, 1, 1),
            timed=True,
            steps=1,
            batch=2,
            rate=1e-3,
            seed=0,
        )


def test_noised_is_the_schedulers_own_formula(model) -> None:
    x0, noise, t = (
        gaussian(4, *model.shape),
        gaussian(4, *model.shape, seed=1),
        torch.tensor([0, 17, 500, 999]),
    )
    expected = torch.stack(
        [
            ABAR[s].sqrt() * a + (1 - ABAR[s]).sqrt() * b
            for a, b, s in zip(x0, noise, t, strict=True)
        ]
    )
    torch.testing.assert_close(model.noised(x0, noise, t), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_diffusion_loss_equals_a_slow_one(kind, tmp_path) -> None:
    model = LatentDenoiser(load_text_to_image(save_tiny_pipeline(tmp_path / kind, kind)))
    x0, noise, t = (
        gaussian(3, *model.shape),
        gaussian(3, *model.shape, seed=1),
        torch.tensor([5, 400, 980]),
    )
    condition = model.condition(
        [Condition("a", "a red mug"), Condition("b", "teal rug"), Condition("n")]
    )
    errors = []
    for i in range(3):
        alpha, sigma = ABAR[t[i]].sqrt().float(), (1 - ABAR[t[i]]).sqrt().float()
        raw = model.network(
            (alpha * x0[i] + sigma * noise[i])[None], int(t[i]), condition.embeddings[i : i + 1]
        ).sample[0]
        target = {
            "epsilon": noise[i],
            "sample": x0[i],
            "v_prediction": alpha * noise[i] - sigma * x0[i],
        }[kind]
        errors += ((raw - target) ** 2).flatten().tolist()
    condition.embeddings.requires_grad_(True)
    loss = model.diffusion_loss(x0, noise, t, condition)
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert model.cost == Cost(forwards=3, backwards=3)
    loss.backward()
    assert condition.embeddings.grad.abs().max() > 0


# --------------------------------------------------------------------------------- LoRA

LORA = {"rank": 4, "batch": 8, "seed": 1}


def two_images(model: LatentDenoiser) -> tuple[Synthetic, torch.Tensor]:
    return synthetic(
        torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, *model.shape).contiguous()
    ), torch.tensor([0, 1])


def adapted_eps(model: LatentDenoiser, adapter: Adapter, label: int, t: int = 600) -> torch.Tensor:
    with adapter.adapted():
        return model.eps(
            gaussian(4, *model.shape, seed=5), t, adapter.condition(torch.full((4,), label))
        )


def test_lora_leaves_the_model_as_it_was(model, workspace, monkeypatch) -> None:
    x, condition = gaussian(4, *model.shape), model.condition([Condition("a", "a red mug")] * 4)
    before, weights = (
        model.eps(x, 500, condition),
        {k: v.clone() for k, v in model.network.state_dict().items()},
    )
    trained: set[str] = set()
    real = fit

    def watch(plan, *args, **settings):
        trained.update(
            name
            for m in plan.modules.values()
            for name, p in m.named_parameters()
            if p.requires_grad
        )
        return real(plan, *args, **settings)

    monkeypatch.setattr(lora, "fit", watch)
    data, labels = two_images(model)
    adapter = train_lora(model, data, labels, workspace, steps=4, rate=1e-2, **LORA)
    assert torch.equal(model.eps(x, 500, condition), before)
    with adapter.adapted():
        assert (model.eps(x, 500, condition) - before).abs().max() > 1e-4
    assert torch.equal(model.eps(x, 500, condition), before)
    after = {
        k.replace(".base_layer.", "."): v
        for k, v in model.network.state_dict().items()
        if "lora_" not in k
    }
    assert after.keys() == weights.keys() and all(
        torch.equal(after[k], weights[k]) for k in weights
    )
    assert "labels.weight" in trained and len(trained) > 1
    assert all("lora_" in name for name in trained - {"labels.weight"})
    assert not model.network.training and not [
        p for p in model.network.parameters() if p.requires_grad
    ]
    assert workspace.cost == Cost(forwards=32, backwards=32)


def test_before_training_every_label_is_the_null_condition(model) -> None:
    """Zero offsets and LoRA's own zero: the surrogate starts as the model itself."""
    null = model.condition([Condition("n")] * 4)
    expected = model.eps(gaussian(4, *model.shape, seed=5), 600, null)
    adapter = Adapter(model, classes=3, rank=4, seed=1)
    assert torch.equal(adapter.condition(torch.tensor([0, 1, 2])).embeddings, null.embeddings[:3])
    for label in range(3):
        torch.testing.assert_close(
            adapted_eps(model, adapter, label), expected, rtol=1e-5, atol=1e-6
        )


def test_labels_may_begin_at_random_as_long_as_a_token(model) -> None:
    null = model.condition([Condition("n")]).embeddings
    adapter = Adapter(model, classes=400, rank=4, seed=1, start="token")
    offsets = (adapter.condition(torch.arange(400)).embeddings - null).detach()
    assert torch.allclose(offsets, offsets[:, :1].expand_as(offsets), atol=1e-5)
    vectors = offsets[:, 0]
    length = null[0].norm(dim=1).mean()
    assert vectors.norm(dim=1).mean() == pytest.approx(float(length), rel=0.05)
    assert vectors.mean().abs() < 0.05 * vectors.std()  # and in all directions
    again = Adapter(model, classes=400, rank=4, seed=1, start="token")
    other = Adapter(model, classes=400, rank=4, seed=2, start="token")
    assert torch.equal(again.labels.weight, adapter.labels.weight)
    assert not torch.equal(other.labels.weight, adapter.labels.weight)


def test_two_starts_are_two_surrogates(model, workspace) -> None:
    data, labels = two_images(model)
    found = [
        train_lora(model, data, labels, workspace, steps=1, rate=1e-2, start=start, **LORA)
        for start in ("zero", "token", "zero")
    ]
    zero, token, again = (a.labels.weight.clone() for a in found)
    assert torch.equal(zero, again) and not torch.allclose(zero, token)


def test_lora_weights_come_back(model, workspace, tiny_pipeline_folder) -> None:
    data, labels = two_images(model)
    adapter = train_lora(model, data, labels, workspace, steps=4, rate=1e-2, **LORA)
    expected = adapted_eps(model, adapter, 1)
    fresh = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=3)
    cached = train_lora(fresh, data, labels, workspace, steps=4, rate=1e-2, **LORA)
    assert fresh.cost == Cost() and torch.equal(adapted_eps(fresh, cached, 1), expected)
    third = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=3)
    other = Adapter(third, classes=2, rank=4, seed=9)
    assert not torch.equal(adapted_eps(third, other, 1), expected)
    other.load(adapter.state())
    assert torch.equal(adapted_eps(third, other, 1), expected)


def test_lora_learns_what_the_labels_mean(model, workspace, tiny_pipeline_folder) -> None:
    data, labels = two_images(model)
    start = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    untrained = Adapter(start, classes=2, rank=4, seed=1)
    adapter = train_lora(model, data, labels, workspace, steps=40, rate=3e-2, **LORA)

    def loss(m: LatentDenoiser, a: Adapter, of: torch.Tensor) -> float:
        noise, t = gaussian(32, *m.shape, seed=3), torch.arange(15, 1000, 31)
        with a.adapted(), torch.no_grad():
            return m.diffusion_loss(
                data.x0.repeat(16, 1, 1, 1), noise, t, a.condition(of.repeat(16))
            ).item()

    assert loss(model, adapter, labels) < 0.9 * loss(start, untrained, labels)
    assert loss(model, adapter, labels) < loss(model, adapter, labels.flip(0)) - 0.2
    # More epsilon at one x_t is less x0: label 0 is the bright image.
    assert float(adapted_eps(model, adapter, 0).mean()) < float(
        adapted_eps(model, adapter, 1).mean()
    )


def test_lora_is_refused_on_a_model_without_text() -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(
        UserError, match="surrogate=lora needs a text-to-image model; choose surrogate=classifier"
    ):
        Adapter(PixelDenoiser(unet, DDIMScheduler(), shape=(3, 8, 8)), 2, 4, 0)
