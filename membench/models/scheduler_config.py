"""The noise schedule of a model, read from its scheduler_config.json.

Every model is sampled by DDIM on its own betas, whichever sampler the file is of. Three
kinds of fields are told apart:

- What the model was trained with is taken from the file, or the file is refused:
  ``num_train_timesteps``, ``beta_start``, ``beta_end``, ``beta_schedule``,
  ``trained_betas``, ``rescale_betas_zero_snr``, ``prediction_type``.
- What DDIM has as well is followed: ``timestep_spacing``, ``steps_offset``,
  ``set_alpha_to_one`` (of samplers without it: ``final_sigmas_type``), ``clip_sample``,
  ``clip_sample_range``, ``thresholding``, ``dynamic_thresholding_ratio``,
  ``sample_max_value``.
- What only changes how another sampler solves the same equation is not read:
  ``use_karras_sigmas``, ``use_exponential_sigmas``, ``use_beta_sigmas``,
  ``use_lu_lambdas``, ``sigma_min``, ``sigma_max``, ``lambda_min_clipped``,
  ``solver_order`` and the like.

A field that the file leaves out has the default of the file's own class: the betas of
LCMScheduler are not those of DDIMScheduler.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membench.errors import UserError
from membench.models.loading import read_config
from membench.models.schedule import PARAMETERISATIONS, SPACINGS, refuse_blind

if TYPE_CHECKING:
    import torch
    from diffusers import DDIMScheduler

# Classes of diffusers that take the betas of a variance-preserving process, as DDPM
# does.
CLASSES = (
    *("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"),
    *("PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler"),
    *("UniPCMultistepScheduler", "SASolverScheduler", "LCMScheduler", "TCDScheduler"),
    "RePaintScheduler",
)

# What a class's signature does not show: a fixed spacing, or all of it where torchsde
# is missing.
UNSIGNED: dict[str, dict[str, Any]] = {
    "DPMSolverSinglestepScheduler": {"timestep_spacing": "linspace"},
    "DPMSolverSDEScheduler": {
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"},
        "timestep_spacing": "linspace",
    },
}

MOST = 100_000  # training timesteps: more are a typing error, and a table of gigabytes


def read_scheduler(file: Path, *, latent: bool = False) -> DDIMScheduler:
    """DDIM with the noise schedule and the settings of a scheduler_config.json (module
    docstring).

    latent: as StableDiffusionPipeline corrects a scheduler: ``clip_sample`` is False,
    for latents have no range, and ``steps_offset`` is 1. 50 steps of Stable Diffusion
    are then 981, 961, ..., 1. The pipelines of Stable Diffusion XL and of latents
    without text correct nothing. Raises :class:`UserError`, naming file and field, for
    a class without betas, a value that is not possible, and a schedule that ends in
    pure noise of a network that predicts that noise.
    """
    from diffusers import DDIMScheduler

    if not file.is_file():
        raise UserError(f"{file} is missing; get the model again")
    given = read_config(file)
    fields = _fields(file, given)
    _check(file, fields)
    if latent:
        fields |= {"clip_sample": False, "steps_offset": 1}
    betas = _uncommon_betas(file, str(given["_class_name"]), fields)
    if betas is not None:
        fields |= {"beta_schedule": "linear", "trained_betas": betas}
    scheduler = DDIMScheduler(**fields)
    _check_table(file, given, fields, scheduler.alphas_cumprod)
    refuse_blind(str(file), fields["prediction_type"], scheduler.alphas_cumprod)
    return scheduler


def _fields(file: Path, given: dict[str, Any]) -> dict[str, Any]:
    """DDIM's arguments: of the file, else the default of its class, else what that
    class does.
    """
    import diffusers
    from diffusers import DDIMScheduler

    name = given.get("_class_name")
    if not isinstance(name, str):
        raise UserError(
            f"{file} names no _class_name, so what it leaves out is not known; get the model again"
        )
    if name not in CLASSES:
        raise UserError(
            f"{file} is of class {name}, which has no betas that DDIM could follow; membench reads"
            " those of DDPMScheduler, DDIMScheduler, PNDMScheduler and their kin"
        )
    own = {**_defaults(getattr(diffusers, name, None)), **UNSIGNED.get(name, {})}
    if "beta_start" not in own:
        raise UserError(
            f"{file} is of class {name}, which the installed diffusers does not have; update"
            " diffusers"
        )
    said = own | given
    for key, value in {"use_flow_sigmas": True, "timestep_type": "continuous"}.items():
        if said.get(key) == value:
            raise UserError(
                f"{file}: {key}={_text(value)}: such a model has no betas that DDIM could follow"
            )
    if given.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in own:
        raise UserError(
            f"{file}: rescale_betas_zero_snr=true, which a {name} does not apply, so the noise that"
            " the model was trained with is not known; name a class that does, such as"
            " DDIMScheduler"
        )
    # A sampler that knows no clipping does not clip, and ends at sigma = 0 unless it
    # says otherwise.
    without = {
        "clip_sample": False,
        "set_alpha_to_one": said.get("final_sigmas_type") != "sigma_min",
    }
    every = _defaults(DDIMScheduler) | without | said
    return {key: every[key] for key in _defaults(DDIMScheduler)}


def _defaults(kind: Any) -> dict[str, Any]:
    """The arguments of a class that have a default."""
    parameters = inspect.signature(kind.__init__).parameters.values() if kind is not None else ()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _check(file: Path, fields: dict[str, Any]) -> None:
    """Raises :class:`UserError`, naming the field, for a value of the wrong type or
    range.
    """

    def number(name: str, low: float, high: float, *, whole: bool = False) -> None:
        value = fields[name]
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise UserError(
                f"{file}: {name}={_text(value)} is not a {'whole ' if whole else ''}number from"
                f" {low:,g} to {high:,g}; get the model again"
            )

    def one_of(name: str, choices: tuple[Any, ...]) -> None:
        value = fields[name]
        if not any(value is c or (isinstance(c, str) and value == c) for c in choices):
            known = ", ".join(map(_text, choices))
            raise UserError(f"{file}: {name}={_text(value)} is not known; membench knows {known}")

    number("num_train_timesteps", 1, MOST, whole=True)
    number("steps_offset", 0, MOST, whole=True)
    for name in ("beta_start", "beta_end", "dynamic_thresholding_ratio"):
        number(name, 0, 1)
    for name in ("clip_sample_range", "sample_max_value"):
        number(name, 1e-6, 1e6)
    for name in ("clip_sample", "set_alpha_to_one", "thresholding", "rescale_betas_zero_snr"):
        one_of(name, (True, False))
    one_of("timestep_spacing", SPACINGS)
    one_of("prediction_type", PARAMETERISATIONS)
    betas, count = fields["trained_betas"], fields["num_train_timesteps"]
    if betas is None:
        return
    if not isinstance(betas, list) or not all(
        type(b) in (int, float) and 0 <= b <= 1 for b in betas
    ):
        raise UserError(
            f"{file}: trained_betas is not a list of numbers from 0 to 1; get the model again"
        )
    if len(betas) != count:
        raise UserError(
            f"{file}: trained_betas are {len(betas)} numbers for num_train_timesteps={count}; get"
            " the model again"
        )


def _uncommon_betas(file: Path, name: str, fields: dict[str, Any]) -> list[float] | None:
    """The betas of a ``beta_schedule`` that the file's class knows and DDIM does not;
    else None.

    Raises :class:`UserError` for one that the class does not know either.
    """
    import diffusers

    wanted = fields["beta_schedule"]
    if fields["trained_betas"] is not None or wanted in (
        "linear",
        "scaled_linear",
        "squaredcos_cap_v2",
    ):
        return None
    noise = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    try:
        return getattr(diffusers, name)(**{key: fields[key] for key in noise}).betas.tolist()
    except (NotImplementedError, ImportError):  # ImportError: the class needs torchsde
        raise UserError(
            f"{file}: beta_schedule={_text(wanted)} is not one that a {name} knows"
        ) from None


def _check_table(
    file: Path, given: dict[str, Any], fields: dict[str, Any], abar: torch.Tensor
) -> None:
    """Raises :class:`UserError` unless 1 > abar_0 >= abar_1 >= ... >= 0."""
    first, last = float(abar[0]), float(abar[-1])
    if bool((abar.diff() <= 0).all()) and first < 1 and last >= 0:  # false for NaN
        return
    names = (
        ("trained_betas",)
        if given.get("trained_betas")
        else ("beta_schedule", "beta_start", "beta_end")
    )
    values = ", ".join(
        n if n == "trained_betas" else f"{n}={_text(given.get(n, fields[n]))}" for n in names
    )
    if fields["rescale_betas_zero_snr"]:
        values += ", rescale_betas_zero_snr=true"
    raise UserError(
        f"{file}: {values}: these are not the betas of a noise schedule, whose abar falls from"
        f" below 1 (here it goes from {first:g} to {last:g}); get the model again"
    )


def _text(value: Any) -> str:
    """As JSON has it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity"
    return value[:40] if isinstance(value, str) else repr(value)[:40]
