"""The Denoiser and the sampler against closed forms and against diffusers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import pixel_unet, save_tiny_pipeline, slow
from diffusers import DDIMScheduler, StableDiffusionPipeline

from membench.errors import UserError
from membench.models.internals import bottleneck
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.loading import in_full
from membench.models.pixel import PixelDenoiser
from membench.models.sampling import ddim, ddim_step, timesteps
from membench.models.schedule import PARAMETERISATIONS
from membench.seeds import seed_of
from membench.types import Condition

MEAN, STD = 0.3, 0.5


class GaussianNetwork(torch.nn.Module):
    """The exact denoiser of data N(MEAN, STD^2 I), in any parameterisation."""

    def __init__(self, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.scheduler, self.kind = scheduler, scheduler.config.prediction_type
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor, t: int) -> SimpleNamespace:
        self.batches.append(len(x))
        abar = self.scheduler.alphas_cumprod[t]
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        eps = sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        x0 = (x - sigma * eps) / alpha
        return SimpleNamespace(
            sample={"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[
                self.kind
            ]
        )


def gaussian(kind: str, batch_size: int = 64) -> PixelDenoiser:
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    return PixelDenoiser(
        GaussianNetwork(scheduler), scheduler, shape=(1, 4, 4), batch_size=batch_size
    )


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize("t", [0, 1, 500, 981, 999])
def test_every_parameterisation_gives_the_closed_form_epsilon(kind: str, t: int) -> None:
    model = gaussian(kind)
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    abar = float(model.scheduler.alphas_cumprod[t])
    alpha, sigma = abar**0.5, (1 - abar) ** 0.5
    expected = sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    got = model.eps(x, t, model.condition([Condition("a")] * 3))
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_step_equals_the_schedulers(kind: str, to_one: bool) -> None:
    scheduler = DDIMScheduler(
        prediction_type=kind, clip_sample=False, set_alpha_to_one=to_one, steps_offset=1
    )
    network = GaussianNetwork(scheduler)
    model = PixelDenoiser(network, scheduler, shape=(1, 4, 4))
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    times = timesteps(model, 10)
    for t, before in zip(times, [*times[1:], None], strict=True):
        expected = scheduler.step(network(x, t).sample, t, x, eta=0.0).prev_sample
        got = ddim_step(model, x, model.prediction(x, t, model.condition([])), t, before)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
        x = expected


def test_ddim_carries_noise_to_the_gaussian() -> None:
    """The probability-flow ODE of a Gaussian is linear: x_T to MEAN + STD x_T, up to
    the discretisation.
    """
    model = gaussian("epsilon")
    x = model.noise([("e", k) for k in range(64)], seed=0)
    end = ddim(model, x, model.condition([]), steps=500, guidance=1.0)
    torch.testing.assert_close(end, MEAN + STD * x, rtol=0, atol=0.02)


def test_fifty_steps_begin_at_981_and_one_step_is_not_the_first_of_fifty(
    tiny_pipeline_folder,
) -> None:
    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    assert timesteps(model, 50)[:2] == [981, 961]
    assert timesteps(model, 50)[-1] == 1
    # The trap: a one-step scheduler looks at the wrong end
    with pytest.raises(UserError, match="begin at timestep 1 of 1000"):
        timesteps(model, 1)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_chunks_count_images_and_respect_the_batch_size(batch_size: int) -> None:
    model = gaussian("epsilon", batch_size)
    x = torch.randn(11, 1, 4, 4)
    model.eps(x, 500, model.condition([]))
    assert model.cost.forwards == 11
    assert max(model.network.batches) <= batch_size


def test_noise_depends_on_seed_id_and_draw_alone() -> None:
    model = gaussian("epsilon")
    together = model.noise([("a", 0), ("b", 0), ("a", 1)], seed=3)
    assert torch.equal(model.noise([("b", 0)], seed=3)[0], together[1])
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(model.noise([("a", 0)], seed=4)[0], together[0])
    # A stored number is only worth its noise: this must not change with a new version.
    assert seed_of(0, "x", 1) == 1957787265336337047
    expected = torch.randn((1, 4, 4), generator=torch.Generator().manual_seed(1957787265336337047))
    assert torch.equal(model.noise([("x", 1)], seed=0)[0], expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_guided_sampling_gives_the_pipelines_own_images(kind: str, tmp_path) -> None:
    """Same noise, same prompts: our images are those of diffusers'
    StableDiffusionPipeline.
    """
    folder = save_tiny_pipeline(tmp_path / kind, kind)
    model = LatentDenoiser(load_text_to_image(folder), batch_size=3)
    prompts = ["Norlund teal rug", "a red mug"]
    x = model.noise([("p", 0), ("q", 0)], seed=0)
    conditions = [Condition(p, p) for p in prompts]
    ours = model.decode(ddim(model, x, model.condition(conditions), steps=7, guidance=7.5))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompts, num_inference_steps=7, guidance_scale=7.5, latents=x, output_type="np"
    ).images
    assert np.abs(ours.astype(int) - (theirs * 255).round().astype(int)).max() <= 1
    assert model.cost.forwards == 2 * 7 * 2
    assert model.cost.decodes == 2


def test_pair_is_null_and_conditional(tiny_pipeline_folder) -> None:
    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=3)
    conditions = [Condition("a", "red mug"), Condition("b", "teal rug")]
    x = model.noise([("a", 0), ("b", 0)], seed=0)
    null, conditional = model.eps_pair(x, 981, model.condition(conditions))
    assert model.cost.forwards == 4
    torch.testing.assert_close(
        null, model.eps(x, 981, model.condition([Condition("n")] * 2)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        conditional, model.eps(x, 981, model.condition(conditions)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.guided(x, 981, model.condition(conditions), 3.0),
        null + 3.0 * (conditional - null),
        rtol=1e-5,
        atol=1e-5,
    )


def test_v_prediction_differences_shrink_by_alpha(tiny_pipeline_folder) -> None:
    """eps_c - eps_0 = alpha_t (v_c - v_0): the same weights read as v give a norm
    smaller by 0.068 at t = 981.
    """
    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    condition = model.condition([Condition("a", "red mug")])
    x = model.noise([("a", 0)], seed=0)
    null, conditional = model.eps_pair(x, 981, condition)
    raw = [
        model.network(x, 981, c.embeddings).sample
        for c in (model.null_like(condition, 1), condition)
    ]
    alpha = float(model.alphas_cumprod[981]) ** 0.5
    assert 0.06 < alpha < 0.08
    torch.testing.assert_close(conditional - null, alpha * (raw[1] - raw[0]), rtol=1e-3, atol=1e-6)


def test_a_pixel_unet_is_unconditional() -> None:
    model = PixelDenoiser(pixel_unet(), DDIMScheduler(), shape=(3, 8, 8))
    images = model.decode(
        ddim(model, model.noise([("a", 0)], seed=0), model.condition([]), steps=2, guidance=1.0)
    )
    assert images.shape == (1, 8, 8, 3) and images.dtype == np.uint8
    with pytest.raises(UserError, match="takes no text"):
        model.condition([Condition("a", "a rug")])
    with pytest.raises(UserError, match="no condition"):
        model.eps_pair(model.noise([("a", 0)], seed=0), 5, model.condition([]))


def test_refusals() -> None:
    model = gaussian("epsilon")
    with pytest.raises(UserError, match=r"timestep 1000 is outside .*999"):
        model.alpha_sigma(1000)
    with pytest.raises(UserError, match="choose 1 to 1000"):
        timesteps(model, 0)
    with pytest.raises(ValueError, match="the model wants"):
        model.eps(torch.zeros(1, 3, 4, 4), 5, model.condition([]))
    with pytest.raises(UserError, match="predicts 'flow'"):
        PixelDenoiser(
            model.network,
            SimpleNamespace(config=SimpleNamespace(prediction_type="flow")),
            shape=(1, 4, 4),
        )


@slow
def test_compiled_evaluations_are_the_networks_own(tiny_pipeline_folder) -> None:
    """With dynamo's own interpreter as back end, which needs no compiler.

    One graph for all timesteps; hooks and derivatives do without.
    """
    torch._dynamo.reset()
    graphs: list[int] = []

    def interpreted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        graphs.append(len(inputs))
        return graph.forward

    plain, model = (
        LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=4) for _ in range(2)
    )
    model.compile(interpreted)
    x = model.noise([("a", 0), ("b", 0)], seed=0)
    told = model.condition([Condition("a", "red mug"), Condition("b", "teal rug")])
    for t in (981, 500, 1):
        torch.testing.assert_close(
            model.eps(x, t, told), plain.eps(x, t, told), rtol=1e-5, atol=1e-6
        )
    assert len(graphs) == 1
    assert torch.equal(bottleneck(model, x, 100), bottleneck(plain, x, 100))
    assert torch.equal(model.raw_eps(x, 500, told), plain.raw_eps(x, 500, told))
    assert len(graphs) == 1 and model.cost.forwards == 8


def test_a_network_with_an_adapter_is_not_compiled(tiny_pipeline_folder) -> None:
    """Its layers are other ones now, and are switched on and off."""
    from peft import LoraConfig

    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    model.compile(lambda graph, inputs: pytest.fail("compiled"))
    model.network.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "a")
    assert (
        model.eps(torch.zeros(1, *model.shape), 500, model.condition([Condition("a", "mug")]))
        .isfinite()
        .all()
    )


def test_a_compiler_that_fails_is_one_line() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, t: int) -> SimpleNamespace:
            return SimpleNamespace(sample=self.layer(x))

    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        raise RuntimeError("no compiler\nmore lines")

    torch._dynamo.reset()
    model = PixelDenoiser(Scaled(), DDIMScheduler(), shape=(1, 4, 4))
    model.compile(broken)
    with pytest.raises(UserError, match=r"^--compile does not work here \(.*\); leave it out$"):
        model.eps(torch.zeros(1, *model.shape), 500, model.condition([]))


def test_float32_is_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's default is TF32 for convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    in_full(torch.device("cpu"))
    assert torch.backends.cudnn.allow_tf32
    in_full(torch.device("cuda", 1))
    assert not torch.backends.cudnn.allow_tf32
