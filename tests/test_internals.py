"""Attention maps, features and token counts, read without changing the network or its
numbers.
"""

from __future__ import annotations

import re

import pytest
import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser, OutOfMemory
from membench.models.internals import attention, attention_layers, bottleneck, features, named_layer
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.memo import Memo
from membench.testing import tiny_pixel_model, tiny_text_model
from membench.types import Condition

PROMPTS = [Condition("p", "Norlund teal rug"), Condition("q", "a red mug"), Condition("r", "plate")]
LAYERS = [
    "down_blocks.1.attentions.0",
    "mid_block.attentions.0",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
]


@pytest.fixture
def model(tiny_pipeline_folder) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=2)


class Explicit:
    """An attention processor written out, that keeps its weights."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        self.kept = kept

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None, temb=None):
        told = hidden if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden), attn.to_k(told), attn.to_v(told)
        out, maps = torch.zeros_like(q), []
        size = q.shape[-1] // attn.heads
        for h in range(attn.heads):
            part = slice(h * size, (h + 1) * size)
            weights = torch.softmax(
                torch.einsum("npd,ntd->npt", q[..., part], k[..., part]) / size**0.5, dim=-1
            )
            out[..., part] = torch.einsum("npt,ntd->npd", weights, v[..., part])
            maps.append(weights)
        self.kept.append(torch.stack(maps, dim=1))
        return attn.to_out[1](attn.to_out[0](out))


def test_the_maps_are_those_of_an_explicit_processor_in_the_order_of_calls(model) -> None:
    x, c = model.noise([(p.id, 0) for p in PROMPTS], 0), model.condition(PROMPTS)
    assert list(attention_layers(model)) == LAYERS
    maps = attention(model, x, 500, c, LAYERS)
    assert model.cost.forwards == 3
    plain = model.eps(x, 500, c)
    kept: list[torch.Tensor] = []
    before = dict(model.network.attn_processors)
    model.network.set_attn_processor(
        {k: Explicit(kept) if ".attn2." in k else p for k, p in before.items()}
    )
    by_hand = model.to_eps(model._forward(x, 500, c), x, 500)
    model.network.set_attn_processor(dict(before))
    torch.testing.assert_close(by_hand, plain, rtol=1e-5, atol=1e-6)
    assert len(kept) == 4
    for name, want in zip(LAYERS, kept, strict=True):
        torch.testing.assert_close(maps[name], want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(maps[name].sum(dim=-1), torch.ones(maps[name].shape[:-1]))
    assert maps[LAYERS[0]].shape == (3, 2, 16, model.tokenizer.model_max_length)


def test_reading_changes_nothing(model) -> None:
    """Neither processors nor hooks nor numbers, past the memo and the compiled network."""
    x, c = model.noise([("a", 0), ("b", 0)], 0), model.condition(PROMPTS[:2])
    plain = attention(model, x, 500, c, LAYERS[:1])[LAYERS[0]]
    eps, pooled = model.eps(x, 500, c), features(model, x, 500, c, "mid_block", "max")
    model.memo = Memo()
    model.eps(x, 500, c)  # remembered
    model.compile(lambda graph, inputs: graph.forward)  # type: ignore[arg-type]
    processors = dict(model.network.attn_processors)
    assert torch.equal(attention(model, x, 500, c, LAYERS[:1])[LAYERS[0]], plain)
    assert torch.equal(features(model, x, 500, c, "mid_block", "max"), pooled)
    assert len(model.memo) == 2 and model.network.attn_processors == processors
    assert not any(m._forward_hooks for m in model.network.modules())
    model.memo = None
    torch.testing.assert_close(model.eps(x, 500, c), eps, rtol=1e-5, atol=1e-6)


def test_hooks_go_when_the_evaluation_fails(model, monkeypatch) -> None:
    x, c = model.noise([("a", 0)], 0), model.condition(PROMPTS[:1])

    def broken(*given):
        raise RuntimeError("a kernel")

    monkeypatch.setattr(model, "_forward", broken)
    for read in (lambda: attention(model, x, 5, c, LAYERS), lambda: bottleneck(model, x, 5)):
        with pytest.raises(RuntimeError, match="a kernel"):
            read()
    assert not any(m._forward_hooks for m in model.network.modules())


def test_maps_are_reduced_part_by_part_and_halved_where_they_do_not_fit(model, monkeypatch) -> None:
    x, c = model.noise([(p.id, 0) for p in PROMPTS], 0), model.condition(PROMPTS)
    whole = attention(model, x, 500, c, LAYERS)
    seen, forward = [], model._forward

    def reduce(maps: torch.Tensor) -> torch.Tensor:
        seen.append(len(maps))
        return maps.mean(dim=1)

    found = attention(model, x, 500, c, LAYERS[:2], reduce)
    assert seen == [2, 2, 1, 1]
    torch.testing.assert_close(found[LAYERS[1]], whole[LAYERS[1]].mean(dim=1), rtol=1e-5, atol=1e-6)

    def small(y, t, told):
        if len(y) > 1:
            raise OutOfMemory("out of memory")
        return forward(y, t, told)

    monkeypatch.setattr(model, "_forward", small)
    before = model.cost.forwards
    halves = attention(model, x, 500, c, LAYERS[:1])
    assert model.cost.forwards - before == 3
    torch.testing.assert_close(halves[LAYERS[0]], whole[LAYERS[0]], rtol=1e-4, atol=1e-6)


def test_features_are_the_last_output_of_a_layer_pooled(model) -> None:
    """A resnet calls its activation twice; the second is what its second convolution is
    given.
    """
    x, c = model.noise([(p.id, 0) for p in PROMPTS], 0), model.condition(PROMPTS)
    name = "up_blocks.0.resnets.0"
    given: list[torch.Tensor] = []
    handle = model.network.get_submodule(f"{name}.conv2").register_forward_pre_hook(
        lambda m, args: given.append(args[0])
    )
    whole = features(model, x, 100, c, f"{name}.nonlinearity", "none")
    handle.remove()
    torch.testing.assert_close(whole, torch.cat(given))
    assert model.cost.forwards == 3
    for pool, want in (("max", whole.amax(dim=(2, 3))), ("mean", whole.mean(dim=(2, 3)))):
        torch.testing.assert_close(features(model, x, 100, c, f"{name}.nonlinearity", pool), want)  # type: ignore[arg-type]


def test_the_bottleneck_is_one_case(model) -> None:
    x = model.noise([("a", 0), ("b", 0)], 0)
    null = model.condition([Condition("null")] * 2)
    assert torch.equal(
        bottleneck(model, x, 100), features(model, x, 100, null, "mid_block", "mean")
    )


def test_token_counts_include_both_ends_and_stop_at_the_limit(model) -> None:
    limit = model.tokenizer.model_max_length
    conditions = [Condition("null"), Condition("a", "a red mug"), Condition("b", "mug " * 200)]
    ids = model.tokenizer("a red mug").input_ids
    assert model.token_counts(conditions) == [2, len(ids), limit]
    assert ids[0] == model.tokenizer.bos_token_id and ids[-1] == model.tokenizer.eos_token_id
    assert "a red mug" not in model.truncated and "mug " * 200 not in model.truncated


# ----------------------------------------------------------------------------- refusals


def refused(model: Denoiser, layers: list[str]) -> str:
    x = model.noise([("a", 0)], 0)
    condition = model.condition([Condition("a", "mug")]) if model.takes_text else Conditioning(None)
    with pytest.raises(UserError) as error:
        attention(model, x, 5, condition, layers)
    assert model.cost.forwards == 0 and "\n" not in str(error.value)
    return str(error.value)


def test_a_layer_that_the_network_lacks_is_answered_by_the_names_that_it_has(model) -> None:
    text = refused(model, ["down_blocks.7.attentions.0"])
    wanted = "this model has no cross-attention layer 'down_blocks.7.attentions.0'; it has "
    assert text == wanted + ", ".join(LAYERS)
    with pytest.raises(UserError, match=re.escape("it has down_blocks.0.resnets.0.nonlinearity, ")):
        named_layer(model, "up_blocks.9.resnets.0.nonlinearity")
    with pytest.raises(
        UserError, match=re.escape("no layer 'nothing'; it has down_blocks.0.resnets.0, ")
    ):
        named_layer(model, "nothing")
    with pytest.raises(UserError, match=r"no layer ''"):
        named_layer(model, "")
    with pytest.raises(UserError, match="returns no feature map"):
        features(
            model,
            model.noise([("a", 0)], 0),
            5,
            model.condition(PROMPTS[:1]),
            "time_embedding",
            "mean",
        )


def test_a_network_without_cross_attention_says_so() -> None:
    assert "has no cross-attention layers" in refused(tiny_pixel_model(0), LAYERS)
    with pytest.raises(UserError, match="takes no text, so its conditions have no tokens"):
        tiny_pixel_model(3).token_counts([Condition("a", class_label=0)])


def test_quantised_fused_and_compiled_networks_are_refused() -> None:
    model = tiny_text_model()
    layers = list(attention_layers(model))
    layer = attention_layers(model)[layers[0]]
    layer.fused_projections = True
    assert "has fused projections" in refused(model, layers[:1])
    layer.fused_projections = False
    layer.to_q.weight = torch.nn.Parameter(
        torch.zeros(16, 16, dtype=torch.int8), requires_grad=False
    )
    assert f"layer {layers[0]} is quantised" in refused(model, layers[:1])
    model = tiny_text_model()
    model.network = torch.compile(model.network, backend="eager")  # type: ignore[assignment]
    assert "was compiled before membench saw it" in refused(model, layers[:1])
