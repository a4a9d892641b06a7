"""Bright Ending and the attention's entropy, by an explicit processor and diffusers'
scheduler.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from membench.detectors.attention_entropy import AttentionEntropy
from membench.detectors.bright_ending import BrightEnding, finest_layers
from membench.detectors.cfg_norm import CfgNorm
from membench.errors import UserError
from membench.models import internals
from membench.models.internals import attention_layers
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.memo import Memo
from membench.registry import detectors
from membench.seeds import generator
from membench.testing import tiny_pixel_model
from membench.types import Access, Condition

SAMPLING = {"steps": 4, "guidance": 3.0}
CONDITIONS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
]
DOWN = "down_blocks.1.attentions.0"


def attentive(folder: Any, **options: Any) -> LatentDenoiser:
    """Random weights attend to all tokens alike, at any noise and timestep; with longer keys
    it matters which.
    """
    model = LatentDenoiser(load_text_to_image(folder), **options)
    with torch.no_grad():
        for layer in attention_layers(model).values():
            layer.to_k.weight.mul_(10)
    return model


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return attentive(tiny_pipeline_folder, batch_size=4)


class Explicit:
    """An attention processor written out; keeps [n, heads, pixels, tokens] under a
    name.
    """

    def __init__(self, name: str, kept: dict[str, torch.Tensor]) -> None:
        self.name, self.kept = name, kept

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None, temb=None):
        told = encoder_hidden_states
        q, k, v = attn.to_q(hidden), attn.to_k(told), attn.to_v(told)
        size, out, maps = q.shape[-1] // attn.heads, torch.zeros_like(q), []
        for h in range(attn.heads):
            part = slice(h * size, (h + 1) * size)
            scores = torch.einsum("npd,ntd->npt", q[..., part], k[..., part]) / size**0.5
            maps.append(scores.softmax(dim=-1))
            out[..., part] = torch.einsum("npt,ntd->npd", maps[-1], v[..., part])
        self.kept[self.name] = torch.stack(maps, dim=1)
        return attn.to_out[1](attn.to_out[0](out))


class Slow:
    """One prompt and one draw at a time."""

    def __init__(self, folder: Any) -> None:
        self.model = attentive(folder)
        self.kept: dict[str, torch.Tensor] = {}
        self.known: dict[tuple[Any, ...], list[Any]] = {}
        before = dict(self.model.network.attn_processors)
        self.model.network.set_attn_processor(
            {
                k: Explicit(k.split(".transformer")[0], self.kept) if ".attn2." in k else p
                for k, p in before.items()
            }
        )

    def steps(self, c: Condition, draw: int, seed: int, trajectory: int, guidance: float):
        """Of each step the two eps and the maps of the conditional prediction; computed
        once, for several tests read one trajectory.
        """
        key = (c.id, draw, seed, trajectory, guidance)
        if key not in self.known:
            self.known[key] = list(self.walk(c, draw, seed, trajectory, guidance))
        return self.known[key]

    def walk(self, c: Condition, draw: int, seed: int, trajectory: int, guidance: float):
        scheduler = DDIMScheduler.from_config(self.model.scheduler.config)
        scheduler.set_timesteps(trajectory)
        x = torch.randn(1, *self.model.shape, generator=generator(seed, c.id, draw))
        null, told = self.model.condition([Condition("null")]), self.model.condition([c])
        for t in scheduler.timesteps.tolist():
            with torch.no_grad():
                u = self.model.raw_prediction(x, t, null)
                v = self.model.raw_prediction(x, t, told)
            abar = float(scheduler.alphas_cumprod[t])
            eps = [(abar**0.5 * raw + (1 - abar) ** 0.5 * x).double() for raw in (u, v)]
            yield eps[0], eps[1], dict(self.kept)
            x = scheduler.step(u + guidance * (v - u), t, x).prev_sample

    def end(self, c: Condition) -> int:
        """The place of the end token: the first of its id after the words."""
        ids = self.model.tokenizer(c.prompt).input_ids
        return ids.index(self.model.tokenizer.eos_token_id, 1)


@pytest.fixture(scope="module")
def slow(tiny_pipeline_folder) -> Slow:
    return Slow(tiny_pipeline_folder)


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [DOWN]),
        (
            {"layers": (DOWN, "up_blocks.0.attentions.1"), "steps": 3},
            [DOWN, "up_blocks.0.attentions.1"],
        ),
    ],
)
def test_bright_ending_is_its_formula(model, slow: Slow, options: dict, layers: list[str]) -> None:
    given = {"draws": 2, "trajectory": 6, "steps": 6, "guidance": 4.0} | options
    detector = BrightEnding(BrightEnding.Options(**given), seed=7, sampling=SAMPLING)
    detector.check(model, CONDITIONS)
    got = detector.score(model, CONDITIONS, {})
    assert model.cost.forwards == 3 * 2 * (2 * 6 + 1) and model.cost.decodes == 0
    for c, value in zip(CONDITIONS, got, strict=True):
        found = []
        for draw in (0, 1):
            steps = slow.steps(c, draw, 7, 6, 4.0)
            maps = [
                steps[-1][2][layer][0].mean(dim=0)[:, slow.end(c)].view(4, 4) for layer in layers
            ]
            m = sum(np.kron(one.numpy(), np.ones((2, 2))) for one in maps) / len(maps)
            norms = [
                ((c_eps - u)[0].numpy() * m).ravel() for u, c_eps, _ in steps[: given["steps"]]
            ]
            found.append(np.mean([math.sqrt((n**2).sum()) for n in norms]) / m.mean())
        assert value == pytest.approx(np.mean(found), rel=1e-4)


def test_where_the_map_is_flat_bright_ending_is_the_guidance_norm(model) -> None:
    """Keys of zero: every token has the same weight, 1 / tokens, at every pixel."""
    with torch.no_grad():
        for layer in attention_layers(model).values():
            layer.to_k.weight.zero_()
    way = {"draws": 2, "trajectory": 6, "steps": 6, "guidance": 4.0}
    bright = BrightEnding(BrightEnding.Options(**way), seed=1, sampling=SAMPLING)
    norm = CfgNorm(CfgNorm.Options(**way), seed=1, sampling=SAMPLING)
    assert bright.score(model, CONDITIONS, {}) == pytest.approx(
        norm.score(model, CONDITIONS, {}), rel=1e-5
    )


def test_evaluations_are_those_of_the_guidance_norm(model) -> None:
    """Beside it, one forward of the attention a draw is all that is new."""
    way = {"draws": 2, "trajectory": 6, "steps": 6, "guidance": 4.0}
    model.memo = Memo()
    CfgNorm(CfgNorm.Options(**way), seed=1, sampling=SAMPLING).score(model, CONDITIONS, {})
    before = model.cost.forwards - model.cost.shared
    bright = BrightEnding(BrightEnding.Options(**way), seed=1, sampling=SAMPLING)
    bright.score(model, CONDITIONS, {})
    assert model.cost.forwards - model.cost.shared - before == 3 * 2


def test_the_finest_down_layers_are_those_of_the_first_block_that_has_any() -> None:
    sd1 = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in (0, 1)]
    rest = ["mid_block.attentions.0", "up_blocks.1.attentions.0"]
    assert finest_layers([*sd1, *rest]) == sd1[:2] and finest_layers(rest) == []


def entropy(a: np.ndarray) -> float:
    return -sum(float(w) * math.log(w) for w in a)


@pytest.mark.parametrize(("variant", "signed"), [("E", False), ("D", False), ("D", True)])
def test_entropies_are_their_formulas(model, slow: Slow, variant: str, signed: bool) -> None:
    options = {
        "variant": variant,
        "signed": signed,
        "draws": 2,
        "trajectory": 13,
        "layer": DOWN,
    } | ({"guidance": 4.0} if variant == "D" else {})
    detector = AttentionEntropy(AttentionEntropy.Options(**options), seed=7, sampling=SAMPLING)
    detector.check(model, CONDITIONS)
    got = detector.score(model, CONDITIONS, {})
    assert model.cost.forwards == 3 * 2 * (1 if variant == "E" else 2 * 13 + 11)
    for c, value in zip(CONDITIONS, got, strict=True):
        found = []
        for draw in (0, 1):
            steps = slow.steps(c, draw, 7, 13, 4.0)
            if variant == "E":
                found.append(entropy(steps[0][2][DOWN][0].mean(dim=(0, 1)).numpy()))
                continue
            a = [
                np.mean([layer[0].mean(dim=(0, 1)).numpy() for layer in maps.values()], axis=0)
                for _, _, maps in steps
            ]
            tails = [entropy(row[slow.end(c) :]) for row in a]
            change = np.mean(tails[3:]) - tails[0]
            found.append(
                np.mean([entropy(row) for row in a[3:]]) + (change if signed else abs(change))
            )
        assert value == pytest.approx(np.mean(found), rel=1e-4)


@pytest.mark.parametrize("variant", ["E", "D"])
def test_uniform_attention_has_the_entropy_of_its_tokens(model, variant: str) -> None:
    with torch.no_grad():
        for layer in attention_layers(model).values():
            layer.to_k.weight.zero_()
    options = AttentionEntropy.Options(variant=variant, layer=DOWN, trajectory=4)  # type: ignore[arg-type]
    got = AttentionEntropy(options, seed=0, sampling=SAMPLING).score(model, CONDITIONS, {})
    assert got == pytest.approx([math.log(model.tokenizer.model_max_length)] * 3, rel=1e-5)


@pytest.mark.parametrize("variant", ["E", "D"])
def test_tokens_without_any_attention_add_nothing(model, monkeypatch, variant: str) -> None:
    """A weight of exactly 0, as half precision has it, is 0 ln 0 = 0 and not NaN."""

    def half(full: torch.Tensor) -> torch.Tensor:
        weights = torch.zeros_like(full)
        weights[..., :2] = 0.5
        return weights

    plain = internals._weights
    monkeypatch.setattr(internals, "_weights", lambda *args: half(plain(*args)))
    options = AttentionEntropy.Options(variant=variant, layer=DOWN, trajectory=4)  # type: ignore[arg-type]
    got = AttentionEntropy(options, seed=0, sampling=SAMPLING).score(model, CONDITIONS, {})
    assert got == pytest.approx([math.log(2)] * 3, rel=1e-6)


WAY: dict[str, Any] = {"trajectory": 4, "guidance": 3.0, "images": 2}
BRIGHT = BrightEnding.Options(draws=1, steps=4, **WAY)
MADE = [
    lambda: BrightEnding(BRIGHT, seed=0, sampling=SAMPLING),
    lambda: AttentionEntropy(
        AttentionEntropy.Options(layer=DOWN, **WAY), seed=0, sampling=SAMPLING
    ),
    lambda: AttentionEntropy(
        AttentionEntropy.Options(variant="D", **WAY), seed=0, sampling=SAMPLING
    ),
]


@pytest.mark.parametrize("make", MADE)
def test_an_extracted_image_is_the_trajectorys_end_and_as_sure_as_its_score(model, make) -> None:
    detector = make()
    requests = detector.plan(CONDITIONS)
    drawn = detector.extract(model, requests)
    assert model.cost.forwards == sum(detector.image_forwards(model, r) for r in requests)
    scores = detector.score(model, CONDITIONS, {})
    assert [s.confidence for s in drawn[:3]] == pytest.approx(scores, rel=1e-4)
    plain = CfgNorm(CfgNorm.Options(), seed=0, sampling=SAMPLING).extract(model, requests)
    for ours, theirs in zip(drawn, plain, strict=True):
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1


@pytest.mark.parametrize("make", MADE)
def test_a_nan_stays_in_its_own_row(model, make, monkeypatch) -> None:
    poisoned, forward = model.condition(CONDITIONS[1:2]).embeddings, model._forward

    def broken(x, t, condition):
        hit = (condition.embeddings == poisoned).flatten(1).all(dim=1)
        return forward(torch.where(hit.view(-1, 1, 1, 1), torch.nan, x), t, condition)

    monkeypatch.setattr(model, "_forward", broken)
    found = make().score(model, CONDITIONS, {})
    assert [math.isfinite(value) for value in found] == [True, False, True]


def test_what_does_not_suit_is_refused_in_one_line(model) -> None:
    def refusal(cls: type, model: Any, sampling: dict[str, Any] = SAMPLING, **options: Any) -> str:
        conditions = (
            CONDITIONS
            if model.takes_text
            else [Condition("c", None, np.zeros((8, 8, 3), np.uint8), 1, ("a",))]
        )
        with pytest.raises(UserError) as error:
            cls(cls.Options(**options), seed=0, sampling=sampling).check(model, conditions)
        assert "\n" not in str(error.value)
        return str(error.value)

    for cls in (BrightEnding, AttentionEntropy):
        assert "takes no captions" in refusal(
            cls, tiny_pixel_model(3), SAMPLING | {"examples": "images"}
        )
        assert cls.access == Access(internals=True)
    lacks = "this model has no cross-attention layer 'down_blocks.1.attentions.1'; it has "
    assert refusal(AttentionEntropy, model).startswith(lacks + DOWN)
    assert "no cross-attention layer 'nowhere'" in refusal(BrightEnding, model, layers=("nowhere",))
    with pytest.raises(ValueError, match="steps=50 is more than trajectory=10"):
        BrightEnding.Options(trajectory=10)
    for options in ({"signed": True, "layer": DOWN}, {"guidance": 3.0, "layer": DOWN}):
        assert "variant=E looks at the first step" in refusal(AttentionEntropy, model, **options)
    other = {"variant": "D", "layer": "mid_block.attentions.0"}
    assert "variant=D takes all layers" in refusal(AttentionEntropy, model, **other)
    preset = detectors().load("attention_entropy").presets["mini"]
    AttentionEntropy(
        AttentionEntropy.Options(**preset, variant="D"), seed=0, sampling=SAMPLING
    ).check(model, CONDITIONS)
    AttentionEntropy(AttentionEntropy.Options(**preset), seed=0, sampling=SAMPLING).check(
        model, CONDITIONS
    )
