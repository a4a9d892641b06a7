"""What a network holds inside: attention maps and features of its named layers.

Hooks read them, which change neither a weight, a processor nor a number: past the memo,
whose answers have no inside, and past the compiled network, which calls no hook.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from membench.errors import UserError
from membench.models.conditioning import Conditioning
from membench.models.denoiser import Denoiser
from membench.types import Condition

Pool = Literal["mean", "max", "none"]

Reduce = Callable[["torch.Tensor"], "torch.Tensor"]

FIRST_BLOCK = ".transformer_blocks.0.attn2"
SHOWN = 20  # names of layers in a refusal


# ---------------------------------------------------------------------------- attention


def attention_layers(model: Denoiser) -> dict[str, Any]:
    """The cross-attention layers of a text-to-image U-Net by name, in the order of its
    calls.

    A layer is called like its transformer ("down_blocks.1.attentions.1"), of which one
    with several blocks has several. Raises :class:`UserError` where there is none to
    read.
    """
    if hasattr(model.network, "_orig_mod"):
        raise UserError(
            "this network was compiled before membench saw it, so its attention cannot be "
            "read; give the plain one"
        )
    paths = [path for path, _ in model.network.named_modules() if path.endswith(".attn2")]
    if not paths:
        raise UserError("this model has no cross-attention layers, so there is no attention map")
    called = ("down_blocks", "mid_block", "up_blocks")
    paths.sort(key=lambda path: called.index(path.split(".")[0]))  # stable
    return {path.removesuffix(FIRST_BLOCK): model.network.get_submodule(path) for path in paths}


def named_attention(model: Denoiser, names: Sequence[str]) -> dict[str, Any]:
    """Those of :func:`attention_layers` that are named; each must be one that can be
    read.
    """
    layers = attention_layers(model)
    for name in names:
        if name not in layers:
            raise UserError(
                f"this model has no cross-attention layer {name!r}; it has {', '.join(layers)}"
            )
        weight = getattr(layers[name].to_q, "weight", None)
        if not (isinstance(weight, torch.Tensor) and weight.is_floating_point()):
            raise UserError(
                f"layer {name} is quantised, so its attention cannot be read; load the model "
                "as float32, float16 or bfloat16"
            )
        if getattr(layers[name], "fused_projections", False):
            raise UserError(f"layer {name} has fused projections; call unfuse_qkv_projections()")
    return {name: layers[name] for name in names}


def attention(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    layers: Sequence[str],
    reduce: Reduce = lambda maps: maps,
) -> dict[str, torch.Tensor]:
    """Softmax of q k' / sqrt(d) at (x, t, c): {layer: [n, heads, pixels, tokens]},
    float32.

    reduce: applied to a layer's map of a part of the rows, as soon as it is there:
    whole maps of Stable Diffusion's first layer take 10 MB a row. Costs n forwards. Of
    a batch whose maps do not fit, half is tried. Raises :class:`UserError` as
    :func:`named_attention`.
    """
    read = named_attention(model, layers)

    def compute(most: int) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
        for start in range(0, len(x), most):
            rows = slice(start, start + most)
            parts: dict[torch.nn.Module, torch.Tensor] = {}
            with torch.no_grad(), model.refusals():
                projections = [p for layer in read.values() for p in (layer.to_q, layer.to_k)]
                _evaluate(model, x[rows], t, condition[rows], projections, parts.__setitem__)
                for name, layer in read.items():
                    queries, keys = (parts.pop(p) for p in (layer.to_q, layer.to_k))
                    found[name].append(reduce(_weights(layer, queries, keys)))
        return {name: torch.cat(maps) for name, maps in found.items()}

    return model.halving("attention maps", model.rows_at_once, compute)


def _weights(layer: Any, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[n, heads, pixels, tokens] of projections [n, pixels, heads d] and [n, tokens,
    heads d].
    """
    q, k = (p.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for p in (queries, keys))
    if layer.norm_q is not None:
        q = layer.norm_q(q)
    if layer.norm_k is not None:
        k = layer.norm_k(k)
    return (layer.scale * q.float() @ k.float().transpose(-1, -2)).softmax(dim=-1)


# ----------------------------------------------------------------------------- features


def named_layer(model: Denoiser, name: str) -> torch.nn.Module:
    """The module of that name. Raises :class:`UserError` with the names that there are."""
    layers = dict(model.network.named_modules())
    if name and name in layers:
        return layers[name]
    # Those that are called alike, or the blocks: a U-Net has hundreds of modules.
    last = name.rpartition(".")[2]
    alike = [path for path in layers if path.rpartition(".")[2] == last]
    blocks = [
        p
        for p in layers
        if p == "mid_block" or p.split(".")[-2:-1] in (["resnets"], ["attentions"])
    ]
    known = alike or blocks or [path for path in layers if path]
    shown = difflib.get_close_matches(name, known, SHOWN, 0) if len(known) > SHOWN else known
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    raise UserError(f"this model has no layer {name!r}; it has {', '.join(shown)}{more}")


def features(
    model: Denoiser, x: torch.Tensor, t: int, condition: Conditioning, layer: str, pool: Pool
) -> torch.Tensor:
    """What the named layer returns at (x, t, c), over space pooled: [n, channels],
    float32.

    Of a layer that runs several times in an evaluation the last output counts. pool
    "none": as it is. Costs n forwards. Raises :class:`UserError` for a layer that the
    network lacks or that returns no map [n, channels, h, w].
    """
    module = named_layer(model, layer)
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, len(x), model.rows_at_once):
            rows = slice(start, start + model.rows_at_once)
            outputs: dict[torch.nn.Module, Any] = {}
            _evaluate(model, x[rows], t, condition[rows], [module], outputs.__setitem__)
            found.append(_pooled(outputs.get(module), layer, pool))
    return torch.cat(found)


def _pooled(out: Any, layer: str, pool: Pool) -> torch.Tensor:
    first = out[0] if isinstance(out, tuple) and out else getattr(out, "sample", out)
    if not isinstance(first, torch.Tensor) or (pool != "none" and first.ndim != 4):
        raise UserError(f"layer {layer} returns no feature map; choose a resnet or a block")
    if pool == "none":
        return first.float()
    return first.float().mean(dim=(2, 3)) if pool == "mean" else first.float().amax(dim=(2, 3))


def bottleneck(model: Denoiser, x: torch.Tensor, t: int) -> torch.Tensor:
    """Features after the middle block under the null condition, averaged over space."""
    if not isinstance(getattr(model.network, "mid_block", None), torch.nn.Module):
        raise UserError(
            "this model has no middle block to take features from; choose features=pixels, "
            "sscd or clip"
        )
    null = model.condition([Condition("null")] * len(x))
    return features(model, x, t, null, "mid_block", "mean")


def _evaluate(
    model: Denoiser,
    x: torch.Tensor,
    t: int,
    condition: Conditioning,
    modules: Sequence[torch.nn.Module],
    see: Callable[[torch.nn.Module, Any], None],
) -> None:
    """One call of the plain network, so of at most ``model.rows_at_once`` rows;
    ``see(module, output)`` whenever one of the modules has run.
    """
    assert len(x) <= model.rows_at_once, "a module's output would be of the last call alone"

    def hook(module: torch.nn.Module, args: Any, out: Any) -> None:
        see(module, out)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with model.uncompiled():
            model.prediction(x, t, condition, remember=False)
    finally:
        for handle in handles:
            handle.remove()
