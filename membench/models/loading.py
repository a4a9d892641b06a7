"""Checks that every loader of a model needs: device, dtype, whole and finite tensors."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from membench.errors import UserError, reason
from membench.models.config_fields import check_ranges, check_types
from membench.models.weight_files import refuse_left_over, refuse_pointer
from membench.storage.hashing import json_hash

PLAIN = (ValueError, RuntimeError, OSError)  # whose messages are sentences


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def loading(what: str | Path, verb: str = "loaded") -> Iterator[None]:
    """Raises :class:`UserError` for whatever goes wrong in it, naming ``what``.

    The libraries' own warnings and reports are left out.

    Their errors have no common base: a wrong word in a configuration is a KeyError, a
    ZeroDivisionError or an AttributeError, and tokenizers raises a bare Exception.
    Nothing but loading, and the first evaluation that proves it, belongs in it.
    """
    with quiet():
        try:
            yield
        except UserError:
            raise
        except torch.OutOfMemoryError:
            raise UserError(
                f"{what} does not fit on the device: take a smaller --dtype, or another device"
            ) from None
        except Exception as error:
            name = "" if isinstance(error, PLAIN) else f"{type(error).__name__}: "
            raise UserError(f"{what} cannot be {verb}: {name}{first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' warnings and progress bars."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    before = [(library, library.get_verbosity()) for library in (diffusers, transformers)]
    for library, _ in before:
        library.set_verbosity(library.CRITICAL)
    transformers.disable_progress_bar()  # membench shows its own
    diffusers.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in before:
            library.set_verbosity(level)


def load_network(folder: Path, loader: Any, config: dict[str, Any], **how: Any) -> Any:
    """``loader.from_pretrained(folder, ...)``, from local files, with every tensor from
    them and all of them used.

    config: its config.json. Raises :class:`UserError`, naming the file.
    """
    if loader.__module__.startswith("diffusers"):  # transformers checks types itself
        check_types(folder / "config.json", config, loader)
    with loading(folder):
        network, report = loader.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **how,
        )
    if wrong := sorted(report["mismatched_keys"]):
        name, there, wanted = wrong[0]
        raise UserError(
            f"{folder} cannot be loaded: its tensor {name} is of shape {[*there]}, and config.json"
            f" wants {[*wanted]}; get the model again"
        )
    if missing := sorted(report["missing_keys"]):  # the libraries would make them up
        raise UserError(
            f"{folder} lacks {len(missing)} tensors, such as {missing[0]}; get the weights again"
        )
    refuse_left_over(folder, network, report["unexpected_keys"])
    return network


def read_config(file: Path) -> dict[str, Any]:
    """Raises :class:`UserError` if the file is no JSON object."""
    try:
        refuse_pointer(file)
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{file} is no JSON ({reason(error)}); get the model again") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} holds no JSON object; get the model again")
    return config


def network_config(file: Path) -> dict[str, Any]:
    """A network's configuration. Raises :class:`UserError` as :func:`read_config`, for a
    shape out of range, quantised weights, and what a library would load beside them.
    """
    config = read_config(file)
    refuse_quantised_config(file, config)
    _refuse_more(file, config)
    check_ranges(file, config)
    return config


# By torch alone; any other is a package's, or, as "owner/name", code from the hub
ATTENTION = (None, "eager", "sdpa")


def _refuse_more(file: Path, config: dict[str, Any]) -> None:
    """Raises :class:`UserError` for what transformers would load beside the weights: an
    adapter in the same folder, which would change them unseen, and code for attention.
    """
    if (file.parent / "adapter_config.json").exists():
        raise UserError(
            f"{file.parent} holds an adapter (adapter_config.json) beside its weights; merge it"
            " into them, or remove it"
        )
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        if config.get(key) not in ATTENTION:
            raise UserError(
                f"{file}: {key} is {str(config[key])[:80]!r}, but membench runs no code for"
                " attention from elsewhere; remove it"
            )


def halvings(decoder: Mapping[str, Any]) -> int:
    """How many pixels a side one latent of a decoder of this configuration stands for."""
    return 2 ** (len(decoder.get("block_out_channels", (64,))) - 1)


def refuse_quantised_config(file: Path, config: dict[str, Any]) -> None:
    """Raises :class:`UserError` if the network's weights are to be read by a
    quantisation's own library.
    """
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{file} has a quantization_config: quantised weights are not read; get the model in"
            " float32, float16 or bfloat16"
        )


def config_hash(file: Path) -> str:
    """Of a configuration without the folder that it was once loaded from.

    Raises :class:`UserError` if it is no JSON.
    """
    config = {k: v for k, v in read_config(file).items() if k != "_name_or_path"}
    return json_hash(_in_words(config))


def _in_words(value: Any) -> Any:
    """Infinities as text: JSON has no word for them, and DPM-Solver's
    ``lambda_min_clipped`` is one.
    """
    if isinstance(value, dict):
        return {key: _in_words(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_words(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


DTYPES = ("float32", "float16", "bfloat16")


def torch_dtype(name: str) -> torch.dtype:
    """Raises :class:`UserError` for a name that is none of ``DTYPES``."""
    if name not in DTYPES:
        raise UserError(f"unknown dtype {name!r}: choose {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found


def layout(device: str, dtype: torch.dtype) -> torch.memory_format:
    """Channels last where it is faster: the tensor cores of a GPU convolve half
    precision in that order.
    """
    fast = torch.device(device).type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return torch.channels_last if fast else torch.contiguous_format


def check_device(name: str) -> None:
    """Raises :class:`UserError` if torch has no such device here, or one that holds no
    numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.ones(1, device=name).item()
        if (device := torch.device(name)).type == "cpu" and device.index:
            raise RuntimeError("there is one processor, called cpu")
    # Torch's ways to say no; ImportError: of a device that another package would add
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        why = first_line(error).rstrip(".")
        if why.startswith("Expected one of"):  # all that torch was ever built for
            why = "torch knows no such name; write auto, cpu, cuda, cuda:1 or mps"
        raise UserError(
            f"device {name!r} cannot be used here: {why}. See: membench doctor"
        ) from None
    in_full(torch.device(name))


def in_full(device: torch.device) -> None:
    """Float32 means float32 on a GPU from now on: PyTorch's default is that
    convolutions round what they multiply to 10 bits of mantissa (TF32), which drowns a
    central difference and is 100 times what a GPU may differ from the CPU by.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
