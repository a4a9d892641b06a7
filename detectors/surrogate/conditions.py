"""Surrogate conditions: part 1 of SIDE's Algorithm 1 (Chen et al., AAAI 2026, arXiv
2410.02467v7), up to the labels.

Sample N_syn images from the target model, describe them by features, cluster, drop
loose clusters, and label each image with its nearest remaining centroid. Nothing here
knows a training image or a label of the task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from membench.errors import UserError, reason
from membench.features.loading import load_features
from membench.models.denoiser import Denoiser
from membench.models.internals import bottleneck
from membench.models.sampling import ddim, step_forwards
from membench.seeds import generator
from membench.storage.files import atomic_write
from membench.storage.hashing import json_hash, tensor_hash
from membench.storage.workspace import Stage, Workspace
from membench.types import Condition, Cost

NULL = Condition("null")
BLOCK = 64  # images a file: what an interruption costs at most

# Features whose cosine means little before centring: activations and pixels all point
# the same way.
CENTRED = ("bottleneck", "pixels")
PROOF = "sha256"  # the note of a file's checksum


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str] | None = None
) -> None:
    """A safetensors file with a checksum, atomically: what is left of a killed stage goes
    on from it. Raises :class:`UserError` if the disk refuses.
    """
    from safetensors.torch import save

    held = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    data = save(held, {**(notes or {}), PROOF: _proof(held, notes or {})})
    atomic_write(path, lambda temporary: temporary.write_bytes(data))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What :func:`write_tensors` wrote.

    Raises :class:`UserError` for a damaged or missing file, and one that is not what was
    written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            notes = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or missing ({reason(error)}); delete {path.parent} and run again"
        ) from None
    if notes.pop(PROOF, "") != _proof(held, notes):
        raise UserError(f"{path} is not what was written; delete {path.parent} and run again")
    return held, notes


def _proof(tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> str:
    return json_hash([tensor_hash(tensors), notes])


@dataclass(frozen=True)
class Synthetic:
    """D_syn: final states x0 [n, *shape], float32, on the CPU, and the stage that holds
    them.
    """

    x0: torch.Tensor
    stage: Stage

    def only(self, chosen: np.ndarray) -> Synthetic:
        """The images that ``chosen`` (bool [n]) names, under a key of their own."""
        key = json_hash([self.stage.key, np.flatnonzero(chosen).tolist()])
        return Synthetic(self.x0[torch.from_numpy(chosen)], replace(self.stage, key=key))


def synthesize_forwards(
    model: Denoiser, conditions: Sequence[Condition], n: int, *, steps: int, guidance: float
) -> int:
    """Target evaluations that :func:`synthesize` takes."""
    return n * steps * step_forwards(model.condition(list(conditions[:1])), guidance)


def synthesize(
    model: Denoiser,
    conditions: Sequence[Condition],
    workspace: Workspace,
    *,
    n: int,
    seed: int,
    steps: int,
    guidance: float,
) -> Synthetic:
    """Line 1: n images from the target model itself, over the conditions in turn, by
    DDIM. Continues after an interruption.

    Their noises are their own: no other detector generates these images. Raises
    :class:`UserError` for NaN from the network.
    """
    rows = [(conditions[i % len(conditions)], i // len(conditions)) for i in range(n)]

    def block(part: list[tuple[Condition, int]]) -> torch.Tensor:
        x = model.noise([(f"synthetic/{c.id}", draw) for c, draw in part], seed)
        x = ddim(model, x, model.condition([c for c, _ in part]), steps=steps, guidance=guidance)
        if not bool(x.isfinite().all()):
            raise UserError(
                "the target model returned NaN while SIDE generated its synthetic images; try"
                " --dtype float32"
            )
        return x

    def make(folder: Path) -> tuple[Cost, float]:
        cost, seconds = Cost(), 0.0
        with tqdm(total=n, desc="synthetic", unit="img", disable=not workspace.progress) as bar:
            for start in range(0, n, BLOCK):
                file = folder / f"{start:06d}.safetensors"
                if not file.exists():
                    before, began = replace(model.cost), time.monotonic()
                    x0 = block(rows[start : start + BLOCK])
                    notes = {
                        "cost": json.dumps(asdict(model.cost - before)),
                        "seconds": str(time.monotonic() - began),
                    }
                    write_tensors(file, {"x0": x0}, notes)
                notes = read_tensors(file)[1]
                cost, seconds = (
                    cost + Cost(**json.loads(notes["cost"])),
                    seconds + float(notes["seconds"]),
                )
                bar.update(min(BLOCK, n - start))
        return cost, seconds

    parts = {
        "n": n,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "conditions": [c.id for c in conditions],
    }
    stage = workspace.stage("synthetic", parts, make)
    files = [stage.path / f"{start:06d}.safetensors" for start in range(0, n, BLOCK)]
    return Synthetic(torch.cat([read_tensors(file)[0]["x0"] for file in files]), stage)


def describe(
    model: Denoiser,
    synthetic: Synthetic,
    workspace: Workspace,
    *,
    features: str,
    weights: str,
    seed: int,
) -> np.ndarray:
    """Line 2: features float32 [n, d] of D_syn, unit length.

    ``bottleneck``: the target's own middle block, T/10 noised.

    CENTRED features lose their mean over D_syn first, or every cosine would be near 1.
    """
    x0, extract = synthetic.x0, None
    if features != "bottleneck":
        extract = load_features(
            features, weights, device=str(model.device), batch_size=model.batch_size
        )

    def make(folder: Path) -> tuple[Cost, float]:
        before, began, found = replace(model.cost), time.monotonic(), []
        for start in tqdm(
            range(0, len(x0), BLOCK), desc="features", unit="block", disable=not workspace.progress
        ):
            part = x0[start : start + BLOCK]
            if extract is None:
                noise = torch.stack(
                    [
                        torch.randn(model.shape, generator=generator(seed, "features", start + i))
                        for i in range(len(part))
                    ]
                )
                t = model.steps // 10
                x = model.noised(part, noise, torch.full((len(part),), t)).to(model.device)
                found.append(bottleneck(model, x, t).cpu())
            else:
                found.append(torch.from_numpy(extract(model.decode(part.to(model.device)))))
        write_tensors(folder / "features.safetensors", {"z": torch.cat(found).float()})
        return model.cost - before, time.monotonic() - began

    name = features if extract is None else extract.id
    stage = workspace.stage(
        "features", {"synthetic": synthetic.stage.key, "features": name, "seed": seed}, make
    )
    z = read_tensors(stage.path / "features.safetensors")[0]["z"].numpy()
    if features in CENTRED:
        z = z - z.mean(axis=0)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Clusters:
    """What k-means found, and which clusters remain.

    labels: int [n], positions in ``kept``, of the nearest remaining centroid. members:
    bool [n], whether an image's own cluster remains. kept: int, numbers of the
    remaining clusters (of K), ascending. cohesion: float [K], of all clusters; -inf
    where k-means left one empty. sizes: int [K].
    """

    labels: np.ndarray
    members: np.ndarray
    kept: np.ndarray
    cohesion: np.ndarray
    sizes: np.ndarray


def cluster(
    z: np.ndarray,
    *,
    k: int,
    seed: int,
    min_members: int = 1,
    keep: float = 1.0,
    cohesion: float = -1.0,
) -> Clusters:
    """Lines 3 to 5: k-means with K clusters, those that remain, and for each image the
    nearest of them.

    z: float [n, d], rows of unit length. Cohesion of a cluster: mean cosine of its
    members with its centroid. A cluster remains if all three filters let it pass:

    - it has at least ``min_members`` images (a single image has cohesion 1 whatever it
      shows);
    - it is among the ``keep`` share (0 to 1) of highest cohesion of those with enough
      images, rounded, at least one;
    - its cohesion is at least ``cohesion`` (the paper's tau).

    Nearest is by L2, which is what k-means minimizes. Raises :class:`UserError` for k >
    n and where no cluster is left.
    """
    from sklearn.cluster import KMeans

    if k > len(z):
        raise UserError(
            f"SIDE cannot make {k} clusters of {len(z)} synthetic images; lower clusters or raise"
            " synthetic"
        )
    fitted = KMeans(k, n_init=4, random_state=seed % 2**32).fit(z.astype(np.float64))
    centroids, own = fitted.cluster_centers_, fitted.labels_
    cosine = (z * centroids[own]).sum(axis=1) / np.maximum(
        np.linalg.norm(centroids[own], axis=1), 1e-12
    )
    # k-means leaves clusters empty where fewer than k images differ.
    sizes = np.bincount(own, minlength=k)
    means = np.where(
        sizes > 0, np.bincount(own, cosine, minlength=k) / np.maximum(sizes, 1), -np.inf
    )

    large = np.flatnonzero(sizes >= max(min_members, 1))
    if not len(large):
        raise UserError(
            f"none of {k} clusters has min_members={min_members} images, so SIDE has no condition"
            f" to guide by; the largest has {sizes.max()}. Lower min_members or clusters, or raise"
            " synthetic"
        )
    count = max(1, int(keep * len(large) + 0.5))
    tightest = large[np.argsort(-means[large], kind="stable")[:count]]
    kept = np.sort(tightest[means[tightest] >= cohesion])
    if not len(kept):
        shown = ", ".join(f"{v:.3f}" for v in means[tightest][:10])
        raise UserError(
            f"no cluster reaches cohesion {cohesion:g}, so SIDE has no condition to guide by; the"
            f" highest of {k}: {shown}. Lower cohesion, raise clusters, or choose other features"
        )
    from scipy.spatial.distance import cdist

    labels = cdist(z, centroids[kept], "sqeuclidean").argmin(axis=1)
    return Clusters(labels, np.isin(own, kept), kept, means, sizes)
