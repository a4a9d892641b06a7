"""Names of states and keys of conditions: the memo finds by them what it finds by
content, reads no number, and is never given the answer to something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMScheduler, UNet2DModel

from membench.models import memo, names
from membench.models.conditioning import Conditioning, stacked
from membench.models.internals import bottleneck
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.memo import Memo
from membench.models.names import digests, names_of
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim, timesteps
from membench.types import Condition

CONDITIONS = [Condition("a", "Norlund teal rug"), Condition("b", "a red mug")]
ROWS = [(c, draw) for c in CONDITIONS for draw in (0, 1)]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline_folder):
    return load_text_to_image(tiny_pipeline_folder)


@pytest.fixture
def model(pipeline, monkeypatch) -> LatentDenoiser:
    """On a device whose states cannot be read at once."""
    monkeypatch.setattr(names, "READABLE", ())
    monkeypatch.setattr("membench.models.denoiser.READABLE", ())
    model = LatentDenoiser(pipeline)
    model.memo = Memo()
    return model


def follow(model: LatentDenoiser, rows=ROWS, seed=0, steps=5, guidance=7.5, **how) -> torch.Tensor:
    told = model.condition([c for c, _ in rows])
    return ddim(model, model.starts(rows, seed), told, steps=steps, guidance=guidance, **how)


# ------------------------------------------------------------------------------- states


def test_a_trajectory_is_shared_and_no_state_is_read(model, monkeypatch) -> None:
    first = follow(model)
    spent = model.cost.forwards
    monkeypatch.setattr(memo, "digests", lambda *_: pytest.fail("a state was read"))
    assert torch.equal(follow(model), first)
    # Part of the rows, and the noise's own evaluation
    assert torch.equal(follow(model, ROWS[1:3]), first[1:3])
    x, told = model.starts(ROWS, 0), model.condition([c for c, _ in ROWS])
    model.eps_pair(x, timesteps(model, 5)[0], told)
    assert model.cost.forwards - model.cost.shared == spent == len(model.memo) == 2 * 5 * len(ROWS)


def test_by_name_as_by_content(model, monkeypatch) -> None:
    named = follow(model), model.cost.shared
    monkeypatch.setattr(names, "READABLE", ("cpu",))
    model.memo = Memo()
    assert names_of(model.starts(ROWS, 0)) is None
    assert torch.equal(follow(model), named[0]) and model.cost.shared == named[1] == 0
    model.memo = None
    torch.testing.assert_close(follow(model), named[0], **CLOSE)


CHANGED: dict[str, Callable[[LatentDenoiser], torch.Tensor]] = {
    "seed": lambda model: follow(model, seed=1),
    "draw": lambda model: follow(model, [(c, draw + 2) for c, draw in ROWS]),
    "steps": lambda model: follow(model, steps=4),
    "guidance": lambda model: follow(model, guidance=7.0),
    "prompt": lambda model: follow(model, [(replace(c, prompt="plate"), k) for c, k in ROWS]),
    "start": lambda model: follow(model, [(replace(c, start=("s",)), k) for c, k in ROWS]),
}


@pytest.mark.parametrize("what", CHANGED)
def test_another_trajectory_has_other_names(model, what: str) -> None:
    """What the memo gives is what the network says without it."""
    follow(model)
    found = CHANGED[what](model)
    model.memo = None
    torch.testing.assert_close(found, CHANGED[what](model), **CLOSE)


@pytest.mark.parametrize("what", ["guidance", "prompt", "t", "before"])
def test_a_step_is_named_by_all_that_makes_it(model, what: str) -> None:
    x, told = model.starts(ROWS, 0), model.condition([c for c, _ in ROWS])
    other = model.condition([CONDITIONS[1]] * 4) if what == "prompt" else told
    step = {"t": 981, "before": 961, "guidance": 7.5}
    changed = step | ({what: 1} if what in step else {})
    a = names.stepped(x, told.keys, *step.values())
    b = names.stepped(x, other.keys, *changed.values())
    assert a is not None and b is not None and len(set(a)) == len(ROWS)
    assert [i for i in range(4) if a[i] == b[i]] == ([2, 3] if what == "prompt" else [])
    assert names.stepped(x, told.keys, *step.values()) == a


@pytest.mark.parametrize("change", ["in place", "through a view", "computed"])
def test_a_state_that_was_changed_has_no_name(model, change: str) -> None:
    told, x = model.condition([c for c, _ in ROWS]), model.starts(ROWS, 0)
    assert names_of(x) == digests(x)
    model.eps(x, 500, told)
    if change == "in place":
        x *= 1.5
    elif change == "through a view":
        x[1:].view(-1)[0] = 3.0
    else:
        x = x * 1.5
    assert names_of(x) is None
    found, model.memo = model.eps(x, 500, told), None
    torch.testing.assert_close(found, model.eps(x, 500, told), **CLOSE)


def test_what_a_gradient_corrects_has_no_name(model) -> None:
    plain = follow(model)
    pushed = follow(model, correct=lambda x, t, eps: eps + 0.1)
    assert names_of(plain) is not None and names_of(pushed) is None
    assert not torch.allclose(plain, pushed)


def test_two_models_call_their_states_differently(model, monkeypatch) -> None:
    """From one noise, under one condition: what the other one made is another state."""
    other = LatentDenoiser(model.pipeline)
    monkeypatch.setattr(other, "_forward", lambda x, t, condition: -model._forward(x, t, condition))
    seen: list[tuple[int, torch.Tensor]] = []
    told, x = model.condition([c for c, _ in ROWS]), model.starts(ROWS, 0)
    follow(model)
    how = {"steps": 5, "guidance": 7.5, "visit": lambda k, t, x, *_: seen.append((t, x))}
    ddim(other, x, told, **how)
    t, state = seen[2]
    found, model.memo = model.eps(state, t, told), None
    torch.testing.assert_close(found, model.eps(state, t, told), **CLOSE)


def test_guidance_1_of_one_prediction_and_of_two_are_two_states(model) -> None:
    """They differ in the last bits, so that by content neither is the other."""
    plain = follow(model, guidance=1.0)
    watched = follow(model, guidance=1.0, observe=lambda *_: None)
    assert set(names_of(plain)).isdisjoint(names_of(watched))
    assert names_of(follow(model, guidance=1.0)) == names_of(plain)


def test_noise_is_what_torch_draws(model) -> None:
    """Row by row into one tensor: the numbers of a tensor of its own."""
    from membench.seeds import generator

    want = [torch.randn(model.shape, generator=generator(3, c.id, k)) for c, k in ROWS]
    assert torch.equal(model.noise([(c.id, k) for c, k in ROWS], 3), torch.stack(want))
    assert torch.equal(model.starts(ROWS, 3), torch.stack(want))


# --------------------------------------------------------------------------- conditions


def of_content(condition: Conditioning) -> list[bytes] | None:
    return Conditioning(condition.embeddings, condition.pooled).keyed().keys


@pytest.mark.parametrize("pooled", [False, True])
def test_keys_go_with_their_rows(pooled: bool) -> None:
    told = Conditioning(torch.randn(3, 4, 2), torch.randn(3, 5) if pooled else None).keyed()
    other = Conditioning(torch.randn(3, 4, 2), torch.randn(3, 5) if pooled else None).keyed()
    one = told[slice(1, 2)]
    for found in (
        told,
        one,
        told[torch.tensor([2, 0])],
        told[torch.tensor([True, False, True])],
        told.repeat(2),
        told.tile(2),
        one.expand(4),
        told.beside(other),
        told.to(torch.device("cpu")),
        told.copied("cpu"),
        stacked([one, other[slice(0, 1)]]),
    ):
        assert found.keys and len(set(found.keys)) > 0
        assert found.keys == of_content(found)


def test_what_is_told_something_else_loses_its_keys() -> None:
    told = Conditioning(torch.randn(2, 4, 2)).keyed()
    assert told.keys is not None
    moved = replace(told, embeddings=told.embeddings + 1)
    assert moved.keys is None and told.where(torch.tensor([True, False])).keys is None
    assert told.beside(moved).keys is None and stacked([told, moved]).keys is None
    part = told[slice(0, 1)]
    told.embeddings[0] = 0  # part is a view of it
    assert told.keys is None and part.keys is None
    assert Conditioning(None).keys == [] == Conditioning(None).keyed().keys


def test_prompts_and_classes_have_keys_and_inference_mode_does_without(pipeline) -> None:
    model = LatentDenoiser(pipeline)
    told = model.condition([CONDITIONS[0], Condition("null"), CONDITIONS[0]])
    assert told.keys == of_content(told) and told.keys[0] == told.keys[2] != told.keys[1]
    assert model.null_like(told, 2).keys == [told.keys[1]] * 2
    with torch.inference_mode():
        assert LatentDenoiser(pipeline).condition(CONDITIONS).keys is None


# -------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("side", "rows", "n"), [(8, 40, 40), (32, 32, 40), (64, 16, 33), (96, 6, 13), (256, 2, 3)]
)
def test_pixels_on_a_processor_go_through_the_network_a_few_at_a_time(
    side: int, rows: int, n: int, monkeypatch
) -> None:
    torch.manual_seed(0)
    shape = (3, side, side)
    unet = UNet2DModel(
        sample_size=side,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
        layers_per_block=1,
    )
    model = PixelDenoiser(unet, DDIMScheduler(), shape=shape, batch_size=64)
    forward, seen = model._forward, []
    monkeypatch.setattr(model, "_forward", lambda x, *a: (seen.append(len(x)), forward(x, *a))[1])
    x = torch.randn(n, *shape)
    found = model.eps(x, 10, model.condition([]))
    assert seen == [rows] * (n // rows) + [n % rows] * (n % rows > 0)
    model.quickest = 40
    torch.testing.assert_close(model.eps(x, 10, model.condition([])), found, **CLOSE)


@pytest.mark.parametrize(("side", "n"), [(32, 50), (64, 20)])
def test_features_are_of_all_rows_where_few_go_through_at_a_time(side: int, n: int) -> None:
    """A hook sees each call of the network, and the last one is of the last rows alone."""
    torch.manual_seed(0)
    shape = (3, side, side)
    model = PixelDenoiser(pixel_unet(side), DDIMScheduler(), shape=shape, batch_size=64)
    assert model.rows_at_once < n < model.batch_size
    x = torch.randn(n, *shape)
    found = bottleneck(model, x, 10)
    each = torch.cat([bottleneck(model, x[i : i + 1], 10) for i in range(n)])
    torch.testing.assert_close(found, each, **CLOSE)
