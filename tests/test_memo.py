"""The memo: every evaluation once, whoever asks, and the answers that the network gives
without it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import pixel_unet
from diffusers import DDIMScheduler

from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.models.internals import bottleneck
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.memo import Memo
from membench.models.pixel import PixelDenoiser
from membench.types import Condition, Cost

PROMPTS = [
    Condition("p", "Norlund teal rug"),
    Condition("q", "a red mug"),
    Condition("r", "plate"),
    Condition("s"),
]
ROW = 4 * 8 * 8 * 4  # bytes of one answer of the tiny pipeline
# A row's last bits depend on the batch that it is evaluated in
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline_folder):
    return load_text_to_image(tiny_pipeline_folder)


@pytest.fixture
def model(pipeline) -> LatentDenoiser:
    model = LatentDenoiser(pipeline)
    model.memo = Memo()
    return model


@pytest.fixture
def batches(model, monkeypatch) -> list[int]:
    return watched(model, monkeypatch)


def watched(model: Denoiser, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each batch that goes through the network, filled as it does."""
    forward, seen = model._forward, []

    def counted(x, t, condition):
        seen.append(len(x))
        return forward(x, t, condition)

    monkeypatch.setattr(model, "_forward", counted)
    return seen


def noise(n: int, seed: int = 0, shape: tuple[int, ...] = (4, 8, 8)) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def alone(model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning) -> torch.Tensor:
    """What the network says without a memo; its cost is not counted."""
    memo, cost = model.memo, model.cost
    model.memo, model.cost = None, Cost()
    try:
        return model.eps(x, t, condition)
    finally:
        model.memo, model.cost = memo, cost


def test_what_has_been_asked_is_not_evaluated_again(model, batches) -> None:
    x, told = noise(4), model.condition(PROMPTS)
    first = model.eps(x, 500, told)
    assert batches == [4] and (
        model.cost.forwards,
        model.cost.shared,
        model.cost.shared_seconds,
    ) == (4, 0, 0.0)
    order = torch.tensor([3, 1, 0, 2])
    assert torch.equal(model.eps(x[order], 500, told[order]), first[order])
    assert batches == [4] and (model.cost.forwards, model.cost.shared) == (8, 4)
    assert model.cost.shared_seconds > 0 and len(model.memo) == 4
    torch.testing.assert_close(first, alone(model, x, 500, told), **CLOSE)


def test_equal_rows_of_one_batch_are_evaluated_once(model, batches) -> None:
    x, told = noise(3), model.condition(PROMPTS[:3])
    rows = torch.tensor([0, 1, 0, 2, 2, 0])
    got = model.eps(x[rows], 500, told[rows])
    assert (
        batches == [3]
        and (model.cost.forwards, model.cost.shared) == (6, 3)
        and model.cost.shared_seconds > 0
    )
    assert (
        torch.equal(got[0], got[2]) and torch.equal(got[0], got[5]) and torch.equal(got[3], got[4])
    )
    torch.testing.assert_close(got, alone(model, x[rows], 500, told[rows]), **CLOSE)


def test_a_batch_of_known_and_new_rows_keeps_their_order(model, batches) -> None:
    x, told = noise(4), model.condition(PROMPTS)
    model.eps(x[1:3], 500, told[1:3])
    got = model.eps(x, 500, told)
    assert batches == [2, 2] and (model.cost.forwards, model.cost.shared) == (6, 2)
    torch.testing.assert_close(got, alone(model, x, 500, told), **CLOSE)


@pytest.mark.parametrize("other", ["t", "prompt", "null", "x", "one bit of x"])
def test_whatever_the_network_is_told_makes_another_evaluation(model, batches, other: str) -> None:
    x, t, told = noise(1), 500, model.condition(PROMPTS[:1])
    model.eps(x, t, told)
    if other == "t":
        t = 501
    elif other in ("prompt", "null"):
        told = model.condition([PROMPTS[1] if other == "prompt" else PROMPTS[3]])
    elif other == "x":
        x = noise(1, seed=1)
    else:
        x = x.clone()
        x[0, 0, 0, 0] = torch.nextafter(x[0, 0, 0, 0], torch.tensor(math.inf))
    got = model.eps(x, t, told)
    assert batches == [1, 1] and model.cost.shared == 0 and len(model.memo) == 2
    torch.testing.assert_close(got, alone(model, x, t, told), **CLOSE)


def test_each_distinct_evaluation_goes_through_the_network_exactly_once(model, batches) -> None:
    """Random batches of 6 states, 3 timesteps and 4 prompts, as several detectors would
    ask for them.
    """
    x, told = noise(6), model.condition(PROMPTS)
    rng, asked, seen = np.random.default_rng(0), 0, set()
    for _ in range(25):
        n, t = int(rng.integers(1, 9)), int(rng.choice([1, 500, 981]))
        rows, prompts = (torch.from_numpy(rng.integers(0, high, n)) for high in (6, 4))
        got = model.eps(x[rows], t, told[prompts])
        torch.testing.assert_close(got, alone(model, x[rows], t, told[prompts]), **CLOSE)
        del batches[-1]  # the evaluation without a memo
        asked += n
        seen |= {(r, t, p) for r, p in zip(rows.tolist(), prompts.tolist(), strict=True)}
    assert sum(batches) == len(seen) == len(model.memo) < asked
    assert (model.cost.forwards, model.cost.shared) == (asked, asked - len(seen))


def test_a_pair_shares_its_null_half_with_whoever_asked_for_it(model, batches) -> None:
    x, told = noise(2), model.condition(PROMPTS[:2])
    null = model.eps(x, 500, model.null_like(told, 2))
    pair = model.eps_pair(x, 500, told)
    guided = model.guided(x, 500, told, 7.5)
    assert batches == [2, 2] and (model.cost.forwards, model.cost.shared) == (10, 6)
    assert torch.equal(pair[0], null) and torch.equal(guided, pair[0] + 7.5 * (pair[1] - pair[0]))


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, 0), (ROW - 1, 0), (ROW, 1), (3 * ROW - 1, 2), (3 * ROW, 3)]
)
def test_what_does_not_fit_is_forgotten_and_computed_again(
    model, batches, limit: int, kept: int
) -> None:
    model.memo = Memo(limit)
    x, told = noise(5), model.condition([PROMPTS[0]] * 5)
    want = alone(model, x, 500, told)
    del batches[:]
    torch.testing.assert_close(model.eps(x, 500, told), want, **CLOSE)
    assert len(model.memo) == kept and batches == [5]
    if kept:  # the youngest are those that stay
        torch.testing.assert_close(
            model.eps(x[5 - kept :], 500, told[5 - kept :]), want[5 - kept :], **CLOSE
        )
        assert batches == [5]
    for rows in ([4, 0, 1], [0, 0, 3], [2, 4, 2, 1]):
        torch.testing.assert_close(
            model.eps(x[rows], 500, told[torch.tensor(rows)]), want[rows], **CLOSE
        )
        assert len(model.memo) <= kept
    assert model.cost.forwards - model.cost.shared == sum(batches)


def test_a_row_that_is_asked_for_again_while_it_is_pushed_out_is_still_answered(
    model, batches
) -> None:
    model.memo = Memo(2 * ROW)
    x, told = noise(4), model.condition([PROMPTS[0]] * 4)
    want = alone(model, x, 500, told)
    model.eps(x[:2], 500, told[:2])
    # Rows 2 and 3 take the place of 0 and 1
    torch.testing.assert_close(model.eps(x, 500, told), want, **CLOSE)
    assert batches == [4, 2, 2] and model.cost.shared == 2


def test_nan_stays_in_its_own_rows_and_is_an_answer_like_any_other(model, monkeypatch) -> None:
    forward, poisoned = model._forward, model.condition(PROMPTS[1:2]).embeddings

    def broken(x, t, condition):
        hit = (condition.embeddings == poisoned).flatten(1).all(dim=1)
        return torch.where(hit[:, None, None, None], math.nan, forward(x, t, condition))

    monkeypatch.setattr(model, "_forward", broken)
    batches = watched(model, monkeypatch)
    x, told = noise(4), model.condition([PROMPTS[i] for i in (0, 1, 2, 0)])
    x[3, 0, 0, 0] = math.nan  # a state that has failed already
    for _ in range(2):
        got = model.eps(x, 500, told)
        assert got.isfinite().flatten(1).all(dim=1).tolist() == [True, False, True, False]
        assert got[1].isnan().all()
    assert batches == [4] and model.cost.shared == 4


def test_an_unconditional_model_shares_too(monkeypatch) -> None:
    torch.manual_seed(0)
    model = PixelDenoiser(pixel_unet(), DDIMScheduler(), shape=(3, 8, 8), batch_size=2)
    model.memo, batches = Memo(), watched(model, monkeypatch)
    x, told = noise(3, shape=(3, 8, 8)), model.condition([])
    want = alone(model, x, 10, told)
    del batches[:]
    torch.testing.assert_close(model.eps(x[[0, 1, 0]], 10, told), want[[0, 1, 0]], **CLOSE)
    torch.testing.assert_close(model.eps(x, 10, told), want, **CLOSE)
    assert batches == [2, 1] and (model.cost.forwards, model.cost.shared) == (6, 3)
    model.eps(x, 11, told)
    assert batches == [2, 1, 2, 1]


def test_clear_forgets(model, batches) -> None:
    x, told = noise(2), model.condition(PROMPTS[:2])
    model.memo = Memo(2 * ROW)
    for _ in range(3):
        model.eps(x, 500, told)
        model.eps(x, 500, told)  # the limit is free again too, or this would be evaluated
        model.memo.clear()
        assert len(model.memo) == 0
    assert batches == [2, 2, 2] and (model.cost.forwards, model.cost.shared) == (12, 6)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (64, [5])])
def test_no_more_rows_than_the_batch_size_go_through_the_network_at_once(
    pipeline, monkeypatch, batch_size: int, sizes: list[int]
) -> None:
    model = LatentDenoiser(pipeline, batch_size=batch_size)
    model.memo, batches = Memo(), watched(model, monkeypatch)
    x, told = noise(7), model.condition([PROMPTS[i % 3] for i in range(7)])
    model.eps(x[[1, 3]], 500, told[torch.tensor([1, 3])])
    del batches[:]
    got = model.eps(x, 500, told)
    assert batches == sizes  # of the five new rows
    torch.testing.assert_close(got, alone(model, x, 500, told), **CLOSE)


def test_an_answer_that_is_changed_in_place_is_the_callers_own(model) -> None:
    x, told = noise(2), model.condition(PROMPTS[:2])
    first = model.eps(x, 500, told)
    want = first.clone()
    first.zero_()
    model.eps(x, 500, told).mul_(2)
    assert torch.equal(model.eps(x, 500, told), want)


def test_a_network_that_fails_leaves_nothing_behind(model, monkeypatch) -> None:
    forward, x, told = model._forward, noise(3), model.condition(PROMPTS[:3])
    model.eps(x[:1], 500, told[:1])

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "_forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.eps(x, 500, told)
    assert len(model.memo) == 1
    monkeypatch.setattr(model, "_forward", forward)
    torch.testing.assert_close(model.eps(x, 500, told), alone(model, x, 500, told), **CLOSE)


@pytest.mark.parametrize("t", [np.int64(500), torch.tensor(500)])
def test_a_timestep_taken_from_an_array_is_the_same_timestep(model, batches, t) -> None:
    x, told = noise(1), model.condition(PROMPTS[:1])
    assert torch.equal(model.eps(x, t, told), model.eps(x, 500, told)) and batches == [1]


def test_a_memo_takes_no_activation_from_the_bottleneck(model) -> None:
    """What the memo remembers has gone through the network before the hook was there."""
    x, model.memo = noise(2), None
    plain = bottleneck(model, x, 100)
    model.memo = Memo()
    model.eps(x, 100, model.condition([Condition("null")] * 2))
    assert torch.allclose(bottleneck(model, x, 100), plain, **CLOSE) and len(model.memo) == 2
