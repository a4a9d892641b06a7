"""A checkpoint in one file, in Stable Diffusion's original names, as a pipeline's
folder: diffusers' own conversion, with the configurations and tokenizers of a base
that is at hand, so that nothing is fetched and no class is taken from a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.models.loading import quiet
from membench.models.pipeline_kinds import ENCODERS, XL, Kind, check_kind
from membench.models.scheduler_config import read_scheduler
from membench.models.stable_diffusion_folder import zero_null
from membench.models.weight_files import (
    ORIGINAL,
    check_tensors,
    refuse_adapter,
    refuse_no_checkpoint,
    tensor_names,
)
from membench.storage.cache import cache_root, remembered_hash
from membench.storage.cached_folders import cached_folder
from membench.storage.hashing import json_hash

VERSION = 2  # of what is written: raise it with every change of it


def unpacked(file: Path, base: Path) -> Path:
    """The folder of the checkpoint in the cache, made once a file and base, and again
    where it is damaged; weights as the file has them, in its precision.

    base: a pipeline's folder of the same architecture, of which configurations,
    scheduler and tokenizers are taken, and no weight. Raises :class:`UserError` for a
    file that is damaged or an adapter, and one that does not fit the base.
    """
    refuse_adapter(file, [file])
    refuse_no_checkpoint(file)
    check_tensors(file)
    kind = check_kind(base)
    if missing := next((f for f in _configs(base, kind) if not f.is_file()), None):
        raise UserError(f"{missing} is missing: the base of a checkpoint in one file needs it")
    _check_prediction(file, base)
    configs = {str(f.relative_to(base)): remembered_hash(f) for f in _configs(base, kind)}
    key = json_hash([VERSION, remembered_hash(file), configs, zero_null(base)])[:16]
    return cached_folder(
        cache_root() / "unpacked" / key, lambda aside: _unpack(file, base, kind, aside)
    )


def _configs(base: Path, kind: Kind) -> list[Path]:
    """What is taken of the base: JSON and the tokenizers' words."""
    parts = [base / part / "config.json" for part in kind.parts]
    words = [f for name in kind.tokenizers for f in sorted((base / name).glob("[!.]*.*"))]
    return [*parts, base / "scheduler" / "scheduler_config.json", *words]


def _check_prediction(file: Path, base: Path) -> None:
    """Raises :class:`UserError` where the file says of its prediction or its noise
    something else than the base's scheduler, by which it is sampled: most say nothing.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        names, notes = set(opened.keys()), opened.metadata() or {}
    told = notes.get("modelspec.prediction_type", "").strip().lower()
    wanted = "v" if "v_pred" in names else told
    config = read_scheduler(base / "scheduler" / "scheduler_config.json", latent=True).config
    found, zero = config.prediction_type, bool(config.rescale_betas_zero_snr)
    if wanted and wanted[0] != found[0]:  # v or v_prediction, eps or epsilon
        said, has = f"prediction {wanted[:20]}", f"prediction_type={found}"
    elif "ztsnr" in names and not zero:
        said, has = "a schedule that ends in pure noise (ztsnr)", "rescale_betas_zero_snr=false"
    else:
        return
    raise UserError(
        f"{file} says that it is of {said}, and the scheduler of the base {base} has {has}; name a"
        " base that agrees, --set sd_webster.base=FOLDER"
    )


def _unpack(file: Path, base: Path, kind: Kind, folder: Path) -> None:
    import diffusers
    import torch

    loader = getattr(diffusers, kind.name)
    with tempfile.TemporaryDirectory() as aside:
        staged = Path(aside)
        for config in _configs(base, kind):
            (to := staged / config.relative_to(base)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config, to)
        (staged / "model_index.json").write_text(json.dumps(_index(base, kind)))
        try:
            with quiet():
                made = loader.from_single_file(
                    str(file),
                    config=str(staged),
                    local_files_only=True,
                )
        # Diffusers has many ways to say that names or shapes do not fit
        except Exception as error:
            _refuse_part_missing(file, kind)
            why = " ".join(str(error).split())[:200]
            if "meta tensor" in why:  # of which there were no numbers
                why = "it lacks weights that the base has"
            raise UserError(
                f"{file} does not fit the base {base} ({why}); name a base of its own architecture,"
                " --set sd_webster.base=FOLDER"
            ) from error
        for part in kind.parts:
            network = getattr(made, part)
            if any(p.device == torch.device("meta") for p in network.parameters()):
                raise UserError(
                    f"{file} lacks weights of the {part} that the base {base} has; name a base of"
                    " its own architecture, --set sd_webster.base=FOLDER"
                )
        _refuse_more(file, base, made)
        for part in kind.parts:  # the argument's name is another in each diffusers
            getattr(made, part).to(_precision(file))
        with quiet():
            made.save_pretrained(folder, safe_serialization=True)
    for config in _configs(base, kind):
        if config.parent.name == "scheduler" or config.parent.name in kind.tokenizers:
            shutil.copyfile(config, folder / config.relative_to(base))


def _refuse_part_missing(file: Path, kind: Kind) -> None:
    """Raises :class:`UserError` for a file without one of the parts, as those are that
    are saved without a VAE.
    """
    names = tensor_names(file)
    if lost := [p for p in kind.parts if not any(n.startswith(ORIGINAL[p]) for n in names)]:
        raise UserError(
            f"{file} holds no {lost[0]} ({ORIGINAL[lost[0]][-1]}...), and membench takes no weights"
            " from the base: build the pipeline in diffusers, from_single_file(FILE,"
            f" {lost[0]}=...), save it with save_pretrained, and give --model FOLDER"
        )


def _refuse_more(file: Path, base: Path, made: Any) -> None:
    """Raises :class:`UserError` where the file has more layers than the base, which
    diffusers leaves out: its names and diffusers' stand one for one in the U-Net and
    in the VAE.
    """
    starts = {
        "unet": ORIGINAL["unet"],
        "vae": tuple(
            f"first_stage_model.{x}" for x in ("encoder.", "decoder.", "quant_conv.", "post_quant_")
        ),
    }
    names = tensor_names(file)
    for part, start in starts.items():
        held, wanted = (
            sum(n.startswith(start) for n in names),
            len(getattr(made, part).state_dict()),
        )
        if held > wanted:
            raise UserError(
                f"{file} holds {held} tensors of its {part}, and that of the base {base} has"
                f" {wanted}: it is of another architecture; name a base of its own, --set"
                " sd_webster.base=FOLDER"
            )


def _index(base: Path, kind: Kind) -> dict[str, Any]:
    """model_index.json of the parts that membench reads, whatever the base's own names."""
    parts = {part: ["transformers", ENCODERS[part]] for part in kind.encoders}
    parts |= {part: ["transformers", "CLIPTokenizer"] for part in kind.tokenizers}
    return {
        "_class_name": kind.name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        **parts,
        **({"force_zeros_for_empty_prompt": zero_null(base)} if kind is XL else {}),
        **{name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")},
    }


def _precision(file: Path) -> Any:
    """The type of the file's largest tensor: some keep a few small ones in float32."""
    import torch
    from safetensors import safe_open

    types = {"F16": torch.float16, "BF16": torch.bfloat16}
    with safe_open(file, framework="pt") as tensors:
        slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118
        largest = max(slices, key=lambda s: torch.Size(s.get_shape()).numel())
        return types.get(str(largest.get_dtype()), torch.float32)
