"""SIDE's conditions against slow versions written by hand: synthetic images, features,
clusters, a teacher's output.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from surrogates import ABAR, gaussian, synthetic

from membench.detectors.surrogate import conditions
from membench.detectors.surrogate.conditions import (
    Synthetic,
    cluster,
    describe,
    synthesize,
    synthesize_forwards,
)
from membench.detectors.surrogate.teacher import teach
from membench.errors import UserError
from membench.models.latent import LatentDenoiser, load_text_to_image
from membench.models.sampling import ddim
from membench.seeds import generator
from membench.storage.workspace import Workspace
from membench.types import Condition, Cost


@pytest.fixture
def model(tiny_pipeline_folder: Path) -> LatentDenoiser:
    return LatentDenoiser(load_text_to_image(tiny_pipeline_folder), batch_size=3)


# --------------------------------------------------------------------- synthetic images

RUG, MUG = Condition("rug", "a teal rug"), Condition("mug", "a red mug")


def test_synthetic_images_are_the_models_own_over_the_conditions_in_turn(
    model, workspace, monkeypatch
) -> None:
    monkeypatch.setattr(conditions, "BLOCK", 2)
    settings = {"n": 5, "seed": 3, "steps": 4, "guidance": 2.0}
    found = synthesize(model, [RUG, MUG], workspace, **settings)
    assert found.x0.dtype == torch.float32 and found.x0.shape == (5, *model.shape)
    assert model.cost == workspace.cost == Cost(forwards=5 * 4 * 2)
    assert synthesize_forwards(model, [RUG, MUG], 5, steps=4, guidance=2.0) == 40
    assert synthesize_forwards(model, [Condition("null")], 5, steps=4, guidance=1.0) == 20
    for i, (condition, draw) in enumerate([(RUG, 0), (MUG, 0), (RUG, 1), (MUG, 1), (RUG, 2)]):
        noise = torch.randn(model.shape, generator=generator(3, f"synthetic/{condition.id}", draw))
        slow = ddim(model, noise[None], model.condition([condition]), steps=4, guidance=2.0)
        torch.testing.assert_close(found.x0[i], slow[0], rtol=1e-3, atol=1e-4)
    # The order decides which images are generated, so another order is another stage.
    other = synthesize(model, [MUG, RUG], workspace, **settings)
    assert other.stage.key != found.stage.key and not torch.equal(other.x0, found.x0)


def test_interrupted_synthesis_goes_on_where_it_was(
    tiny_pipeline_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(conditions, "BLOCK", 2)
    calls: list[int] = []

    def watched(model, x, *args, **settings):
        calls.append(len(x))
        if len(calls) == 2 and "broken" in str(workspace.root):
            raise KeyboardInterrupt
        return ddim(model, x, *args, **settings)

    monkeypatch.setattr(conditions, "ddim", watched)

    def draw() -> Synthetic:
        model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
        return synthesize(model, [Condition("null")], workspace, n=5, seed=3, steps=3, guidance=1.0)

    workspace = Workspace(tmp_path / "whole", {"weights": "w"})
    whole = draw()
    assert calls == [2, 2, 1] and whole.stage.cost == Cost(forwards=15)
    calls.clear()
    workspace = Workspace(tmp_path / "broken", {"weights": "w"})
    with pytest.raises(KeyboardInterrupt):
        draw()
    calls[:] = [0, 0]  # as two calls before
    workspace = Workspace(workspace.root, {"weights": "w"})
    resumed = draw()
    assert calls[2:] == [2, 1]
    assert (
        torch.equal(resumed.x0, whole.x0)
        and resumed.stage.cost == whole.stage.cost
        and workspace.cost == whole.stage.cost
    )
    first = float(conditions.read_tensors(resumed.stage.path / "000000.safetensors")[1]["seconds"])
    assert resumed.stage.seconds >= first > 0


def test_an_interrupted_stage_proves_what_it_goes_on_from(
    tiny_pipeline_folder, tmp_path, monkeypatch
) -> None:
    """A bit of a block's values or of its cost, where the file still reads well."""
    monkeypatch.setattr(conditions, "BLOCK", 2)
    workspace = Workspace(tmp_path, {"weights": "w"})
    settings = {"n": 4, "seed": 3, "steps": 2, "guidance": 1.0}
    model = LatentDenoiser(load_text_to_image(tiny_pipeline_folder))
    stage = synthesize(model, [Condition("null")], workspace, **settings).stage.path
    file = stage / "000000.safetensors"
    whole = file.read_bytes()
    for damaged in (
        whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
        whole.replace(b'forwards\\": 4', b'forwards\\": 5'),
    ):
        assert damaged != whole
        file.write_bytes(damaged)
        (stage / "stage.json").unlink(missing_ok=True)  # as if killed before it
        with pytest.raises(UserError, match=r"000000\.safetensors is not what was written; delete"):
            synthesize(model, [Condition("null")], workspace, **settings)


def test_nan_from_the_network_stops_the_synthesis(model, workspace) -> None:
    model.network.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"returned NaN .*--dtype float32"):
        synthesize(model, [Condition("null")], workspace, n=2, seed=3, steps=2, guidance=1.0)
    assert not list(workspace.root.glob("*/*.safetensors"))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_file_is_told_in_one_line(damage, model, workspace) -> None:
    settings = {"n": 2, "seed": 3, "steps": 2, "guidance": 1.0}
    found = synthesize(model, [Condition("null")], workspace, **settings)
    file = found.stage.path / "000000.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        file.unlink()
    with pytest.raises(
        UserError,
        match=r"000000.safetensors is not what was prepared; delete .*synthetic-\w+ and run again",
    ) as error:
        synthesize(model, [Condition("null")], workspace, **settings)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- clusters and features


def blobs() -> np.ndarray:
    """Six directions, three of them loose, as unit vectors."""
    rng = np.random.default_rng(0)
    rows = [
        centre + width * rng.normal(size=(9, 5))
        for centre, width in zip(rng.normal(size=(6, 5)), (0.1, 1.5, 0.1, 2, 0.3, 1.5), strict=True)
    ]
    z = np.concatenate(rows).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_clusters_equal_plain_loops() -> None:
    z, k, tau, seed = blobs(), 7, 0.9, 3 * 2**31 + 5
    found = cluster(z, k=k, cohesion=tau, seed=seed)
    fitted = KMeans(k, n_init=4, random_state=seed % 2**32).fit(z.astype(np.float64))
    kept = []
    for c in range(k):
        centroid, cosines = fitted.cluster_centers_[c], []
        for row, label in zip(z, fitted.labels_, strict=True):
            if label == c:
                cosines.append(
                    sum(a * b for a, b in zip(row, centroid, strict=True))
                    / sum(b * b for b in centroid) ** 0.5
                )
        assert found.cohesion[c] == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
        if sum(cosines) / len(cosines) >= tau:
            kept.append(c)
    assert 1 < len(kept) < k and found.kept.tolist() == kept
    dropped = 0
    for row, label, own in zip(z, found.labels, fitted.labels_, strict=True):
        distances = [
            sum((a - b) ** 2 for a, b in zip(row, fitted.cluster_centers_[c], strict=True))
            for c in kept
        ]
        assert label == distances.index(min(distances))
        dropped += own not in kept
    assert dropped  # members of dropped clusters got a label too
    exact = float(found.cohesion.max())
    # The threshold itself is enough
    assert len(cluster(z, k=k, cohesion=exact, seed=seed).kept) == 1


def tight_blobs() -> np.ndarray:
    """Four directions of 6, 2, 7 and 8 unit vectors; the widths decide which cluster is
    tightest. The two are equal.
    """
    rng, rows = np.random.default_rng(1), []
    for i, (n, width) in enumerate([(6, 0.4), (2, 0.0), (7, 0.05), (8, 0.1)]):
        rows.append(np.eye(4)[i] + width * rng.normal(size=(n, 4)))
    z = np.concatenate(rows).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, {0, 1, 2, 3}),
        ({"keep": 0.5}, {1, 2}),  # two equal images are the tightest cluster there is
        ({"min_members": 3}, {0, 2, 3}),
        ({"min_members": 3, "keep": 0.5}, {2, 3}),  # half of three, rounded up
        ({"min_members": 3, "keep": 0.4}, {2}),
        ({"min_members": 3, "keep": 0.01}, {2}),  # at least one
        ({"min_members": 8}, {3}),
        ({"min_members": 3, "keep": 1.0, "cohesion": 0.97}, {2, 3}),
        ({"min_members": 3, "keep": 0.01, "cohesion": 0.97}, {2}),  # both must let it pass
    ],
)
def test_the_tightest_clusters_of_enough_images_remain(
    settings: dict[str, float], groups: set[int]
) -> None:
    z, group = tight_blobs(), np.repeat(np.arange(4), [6, 2, 7, 8])
    found = cluster(z, k=4, seed=0, **settings)
    assert set(group[found.members]) == groups and found.members.sum() == sum(
        [6, 2, 7, 8][g] for g in groups
    )
    assert len(found.kept) == len(groups) and sorted(found.sizes) == [2, 6, 7, 8]
    for g in groups:  # its own images are its label's, and so are the nearest of the others
        assert len(set(found.labels[group == g])) == 1
    assert set(found.labels) == set(range(len(groups)))


def test_no_cluster_is_large_enough() -> None:
    message = (
        r"none of 4 clusters has min_members=9 images, .*the largest has 8\. Lower min_members or"
        r" clusters"
    )
    with pytest.raises(UserError, match=message):
        cluster(tight_blobs(), k=4, seed=0, min_members=9)


def test_images_of_some_clusters_have_a_key_of_their_own() -> None:
    whole = synthetic(gaussian(4, 1, 2, 2))
    first, second = (
        whole.only(np.array(chosen))
        for chosen in ([True, False, True, False], [True, False, False, True])
    )
    assert torch.equal(first.x0, whole.x0[[0, 2]]) and torch.equal(second.x0, whole.x0[[0, 3]])
    assert len({whole.stage.key, first.stage.key, second.stage.key}) == 3


def test_no_cluster_left_and_more_clusters_than_images_are_refused() -> None:
    z = blobs()
    highest = cluster(z, k=7, cohesion=-1, seed=0).cohesion.max()
    with pytest.raises(
        UserError, match=rf"no cluster reaches cohesion 0\.9999.* highest of 7: {highest:.3f}, 0\."
    ):
        cluster(z, k=7, cohesion=0.9999, seed=0)
    with pytest.raises(UserError, match="cannot make 55 clusters of 54 synthetic images"):
        cluster(z, k=55, cohesion=0.5, seed=0)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fewer_different_images_than_clusters() -> None:
    z = np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 1, 0]]
    found = cluster(z, k=4, cohesion=-1, seed=0)
    assert len(found.kept) == 2 and np.isneginf(found.cohesion).sum() == 2
    assert sorted(set(found.labels)) == [0, 1] and (found.labels == found.labels[0]).tolist() == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def unit_and_centred(z: np.ndarray) -> np.ndarray:
    z = z - z.mean(axis=0)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_bottleneck_features_equal_slow_ones(model, workspace, monkeypatch) -> None:
    monkeypatch.setattr(conditions, "BLOCK", 2)
    x0 = gaussian(5, *model.shape)
    found = describe(model, synthetic(x0), workspace, features="bottleneck", weights="", seed=7)
    assert model.cost == workspace.cost == Cost(forwards=5)
    kept: list[torch.Tensor] = []
    model.network.mid_block.register_forward_hook(lambda module, args, out: kept.append(out))
    null = model.condition([Condition("n", "")]).embeddings
    for i in range(5):
        noise = torch.randn(model.shape, generator=generator(7, "features", i))
        model.network(
            (ABAR[100].sqrt() * x0[i] + (1 - ABAR[100]).sqrt() * noise)[None].float(), 100, null
        )
    slow = torch.stack([k[0].flatten(1).mean(dim=1) for k in kept]).numpy()
    np.testing.assert_allclose(found, unit_and_centred(slow), atol=2e-4)


def test_pixel_features_are_centred_unit_and_of_the_decoded_images(model, workspace) -> None:
    x0 = gaussian(4, *model.shape)
    found = describe(model, synthetic(x0), workspace, features="pixels", weights="", seed=7)
    assert workspace.cost == Cost(decodes=4)
    slow = model.decode(x0).reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4)).reshape(4, -1) / 127.5 - 1
    np.testing.assert_allclose(found, unit_and_centred(slow), atol=1e-4)


# ------------------------------------------------------------------------------ teacher


def save_teacher(folder: Path, **settings) -> Path:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    network = ResNetForImageClassification(config).eval()
    network.classifier[1].weight.data.mul_(20)  # or all images would look alike to it
    network.save_pretrained(folder, **settings)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875).save_pretrained(folder)
    return folder


def test_the_teachers_own_probabilities(model, workspace, tmp_path) -> None:
    from transformers import AutoImageProcessor, ResNetForImageClassification

    folder, x0 = save_teacher(tmp_path / "teacher"), 3 * gaussian(5, *model.shape)
    found = teach(model, synthetic(x0), workspace, str(folder))
    assert workspace.cost == model.cost == Cost(decodes=5, surrogate_forwards=5)
    network, processor = (
        ResNetForImageClassification.from_pretrained(folder).eval(),
        AutoImageProcessor.from_pretrained(folder),
    )
    for row, image in zip(found, model.decode(x0), strict=True):
        with torch.no_grad():
            logits = network(processor(images=[image], return_tensors="pt")["pixel_values"]).logits[
                0
            ]
        torch.testing.assert_close(row, logits.softmax(dim=0), rtol=1e-3, atol=1e-5)
    assert float((found[0] - found[1]).abs().max()) > 1e-3
    again = teach(model, synthetic(x0), workspace, str(folder))
    assert torch.equal(again, found) and workspace.cost == Cost(decodes=10, surrogate_forwards=10)


@pytest.mark.parametrize(
    "damage", ["missing", "no_processor", "pickled", "cut", "headless", "no_json"]
)
def test_a_teacher_that_is_none_is_refused_in_one_line(damage, model, workspace, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "teacher"
    if damage != "missing":
        save_teacher(folder)
    weights = folder / "model.safetensors"
    if damage == "no_processor":
        (folder / "preprocessor_config.json").unlink()
    elif damage == "pickled":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "headless":  # such as a backbone: its last layer would be random
        save_file(
            {k: v for k, v in load_file(weights).items() if "classifier" not in k},
            weights,
            {"format": "pt"},
        )
    elif damage == "no_json":
        (folder / "config.json").write_text("{")
    with pytest.raises(UserError) as error:
        teach(model, synthetic(gaussian(2, *model.shape)), workspace, str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert ("is missing; save model and image processor" in str(error.value)) == (
        damage in ("missing", "no_processor", "pickled")
    )
    assert not list(workspace.root.glob("*/*.safetensors"))
