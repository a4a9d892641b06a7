"""Weight files before a library reads them: whole, finite, and of numbers that are the
weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from membench.errors import UserError, reason
from membench.storage.reading import IS_POINTER, POINTER

# Of safetensors; all else is an index or a quantised weight, whose scale only the
# library that made it knows.
FLOATS = ("F64", "F32", "F16", "BF16")

# In the names of tensors that are added to those of a model.
ADAPTERS = ("lora_", ".lora.", "lora.down", "lora.up", "hada_w", "lokr_w", ".oft_", "dora_scale")
# Whole numbers, and no weights; .alpha: of a LoRA, which some scripts save as one
COUNTS = ("position_ids", "num_batches_tracked", "num_updates", ".alpha")
AGAIN = "get the weights again"
PEFT = (
    "merge what peft has saved, pipeline.unet = PeftModel.from_pretrained(pipeline.unet,"
    " ADAPTER).merge_and_unload(), and give the saved pipeline, --model FOLDER"
)


def refuse_pointer(file: Path) -> None:
    """Raises :class:`UserError` if the file is Git LFS's stand-in for the real one."""
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            raise UserError(f"{file} {IS_POINTER}")


def check_header(file: Path) -> None:
    """Raises :class:`UserError` for a safetensors file that is cut short or holds
    quantised weights; reads its header alone.
    """
    from safetensors import SafetensorError, safe_open

    refuse_pointer(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - it is not a mapping
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or cut short ({reason(error)}); {AGAIN}") from None
    if not kinds:
        raise UserError(f"{file} holds no tensor; {AGAIN}")
    for name, kind in kinds.items():
        refuse_quantised(file, name, str(kind), kind in FLOATS)


def refuse_quantised(file: Path, name: str, kind: str, floating: bool) -> None:
    """Raises :class:`UserError` unless the tensor is of a float type that networks
    compute in, or a count by its name.
    """
    if not floating and not name.endswith(COUNTS):
        raise UserError(
            f"{file}: tensor {name} is stored as {kind}: fp8 or quantised weights are not read; "
            "get the model in float32, float16 or bfloat16"
        )


def check_tensors(file: Path) -> None:
    """Raises :class:`UserError` as :func:`check_header`, for NaN or infinity, and for an
    end of zeros behind numbers: a download that was broken off in a file of the full
    size.
    """
    from safetensors import SafetensorError, safe_open

    check_header(file)
    hollow = _ends_in_zeros(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                if hollow and bool(tensor.any()):
                    raise UserError(
                        f"{file} ends in {END:,} bytes of zeros, as a download that was broken off;"
                        f" {AGAIN}"
                    )
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise UserError(f"{file}: tensor {name} holds NaN or infinite values; {AGAIN}")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or cut short ({reason(error)}); {AGAIN}") from None


END = 4096  # bytes


def _ends_in_zeros(file: Path) -> bool:
    """Whether the last END bytes are zeros, which those of a trained network are not."""
    with file.open("rb") as stream:
        stream.seek(-min(END, file.stat().st_size), 2)
        return not any(stream.read())


def tensor_names(file: Path) -> list[str]:
    """Names of a safetensors file's tensors; none of what is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError):
        return []


def refuse_adapter(given: Path, files: Sequence[Path]) -> None:
    """Raises :class:`UserError` if a file is an adapter (LoRA and its kin) or a learned
    word: a change to a model, not a model.
    """
    for file in files:
        names = tensor_names(file) if file.suffix == ".safetensors" else []
        lora = file.name in ("adapter_config.json", "pytorch_lora_weights.bin") or any(
            mark in n.lower() for n in names for mark in ADAPTERS
        )
        if lora:
            raise UserError(
                f"{given} is a LoRA or another adapter ({file.name}), a change to a model, not a"
                " model: "
                + (
                    PEFT
                    if file.name == "adapter_config.json"
                    else f"give its base, --model BASE --set sd_webster.lora={given}"
                )
            )
        if file.name.startswith("learned_embeds") or names == ["emb_params"]:
            raise UserError(
                f"{given} is a learned word (textual inversion, {file.name}), not a model: give its"
                f" base, --model BASE --set sd_webster.textual_inversion={given}"
            )


# How the names of tensors begin in a checkpoint in one file, by part
ORIGINAL = {
    "unet": ("model.diffusion_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
    "vae": ("first_stage_model.",),
}
ZIPPED = (b"PK", b"\x80")  # as torch.save begins, today and before


def refuse_no_checkpoint(file: Path) -> None:
    """Raises :class:`UserError` for a file that is pickled, whatever its name, or holds
    no part of Stable Diffusion in its original names, such as the weights of one part
    of a pipeline.
    """
    with file.open("rb") as stream:
        head = stream.read(9)
        # Of safetensors the first eight bytes are a number, and may be any
        if head.startswith(ZIPPED) and not head.endswith(b"{"):
            raise UserError(
                f"{file} is a checkpoint in one file, pickled: reading it could run any code, so"
                " membench refuses it; get the model as safetensors"
            )
    starts = tuple(start for names in ORIGINAL.values() for start in names)
    names = tensor_names(file)
    if names and not any(name.startswith(starts) for name in names):
        raise UserError(
            f"{file} is no checkpoint in one file: it holds {min(names)[:80]}, and nothing in"
            " Stable Diffusion's original names (model.diffusion_model....); of a pipeline in parts"
            " give the folder that holds model_index.json"
        )


def check_pickle(file: Path) -> None:
    """Refuses a file of torch's that holds anything but tensors, or NaN: it is read
    with ``weights_only=True``, here and by diffusers.
    """
    import torch

    refuse_pointer(file)
    try:
        tensors = torch.load(file, weights_only=True, map_location="cpu")
    # Torch has many ways to say so, and some of them advise to load the file unsafely
    except Exception as error:
        raise UserError(
            f"{file} is damaged or holds more than tensors, which membench does not read; get"
            " safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(t, torch.Tensor) for t in tensors.values()
    ):
        raise UserError(f"{file} is not a dictionary of tensors; {AGAIN}")
    for name, tensor in tensors.items():
        plain = tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        refuse_quantised(file, str(name), str(tensor.dtype).removeprefix("torch."), plain)
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{file}: tensor {name} holds NaN or infinite values; {AGAIN}")


def refuse_left_over(where: Path, network: object, unexpected: Iterable[str]) -> None:
    """Raises :class:`UserError` if the files hold tensors of a part that the network
    has: config.json then builds less than was trained.

    Tensors of something else (a projection that is not used, a discriminator) are
    passed over.
    """
    if lost := sorted(name for name in unexpected if hasattr(network, name.partition(".")[0])):
        raise UserError(
            f"{where} holds {len(lost)} tensors that its config.json builds no layer for, such as"
            f" {lost[0]}; get the model again"
        )
