"""Features against loops and against a network written from the formulas; weights that must be refused."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from torchvision.models import resnet50

from membench.errors import UserError
from membench.features import load_features
from membench.hashing import file_hash

TINY = "membench-tiny"  # a CLIP model of 32 x 32 pixels


def pictures(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(256, size=(n, 5, 4, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) for c in coarse])


def refused(name: str, weights: object = "", match: str | None = None, **settings) -> str:
    with pytest.raises(UserError, match=match) as caught:
        load_features(name, str(weights), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# pixels


def loop_area(image: np.ndarray) -> np.ndarray:
    """Area averages in [-1, 1], pixel by pixel."""
    h, w, _ = image.shape
    rows, columns = min(h, 32), min(w, 32)
    out = np.zeros((rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            top, bottom, left, right = i * h / rows, (i + 1) * h / rows, j * w / columns, (j + 1) * w / columns
            for y in range(int(top), min(h, int(np.ceil(bottom)))):
                for x in range(int(left), min(w, int(np.ceil(right)))):
                    share = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                    out[i, j] += share * (image[y, x] / 255 * 2 - 1)
    return (out * rows * columns / (h * w)).ravel()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (45, 20), (33, 70), (3, 2)])
def test_pixels_are_area_averages(height, width):
    images = np.random.default_rng(1).integers(256, size=(3, height, width, 3)).astype(np.uint8)
    got = load_features("pixels", batch_size=2)(images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [loop_area(i) for i in images], atol=2e-6)


def test_small_pictures_keep_their_pixels(recwarn):
    images = np.array([0, 255], np.uint8).repeat(32 * 32 * 3).reshape(2, 32, 32, 3)
    images.setflags(write=False)  # as those of a memory map are
    np.testing.assert_array_equal(load_features("pixels")(images[::-1]), [[1] * 3072, [-1] * 3072])
    assert not recwarn.list


# SSCD


def convolution(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """x [c, h, w], w [d, c, k, k], padding k // 2."""
    k = w.shape[-1]
    x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    h, v = ((side - k) // stride + 1 for side in x.shape[1:])
    moved = [x[:, i : i + h * stride : stride, j : j + v * stride : stride].reshape(len(x), -1) for i in range(k) for j in range(k)]
    return sum(w[:, :, n // k, n % k] @ m for n, m in enumerate(moved)).reshape(len(w), h, v)


def slow_sscd(state: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """ResNet-50 (stride in the 3 x 3 convolution), GeM pooling with p = 3, one linear layer, L2 norm 1."""

    def conv_bn(x: np.ndarray, conv: str, bn: str, stride: int = 1) -> np.ndarray:
        mean, var, scale, shift = (state[f"{bn}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias"))
        return (convolution(x, state[f"{conv}.weight"], stride) - mean) / np.sqrt(var + 1e-5) * scale + shift

    steps = [transforms.Resize([288, 288]), transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    x = transforms.Compose(steps)(Image.fromarray(image)).numpy()  # the authors' README
    x = np.maximum(conv_bn(x, "conv1", "bn1", 2), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)))  # zeros do for a maximum of values >= 0
    x = np.max([x[:, i : i + 144 : 2, j : j + 144 : 2] for i in range(3) for j in range(3)], axis=0)
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = np.maximum(conv_bn(x, f"{at}.conv1", f"{at}.bn1"), 0)
            y = np.maximum(conv_bn(y, f"{at}.conv2", f"{at}.bn2", stride), 0)
            y = conv_bn(y, f"{at}.conv3", f"{at}.bn3")
            shortcut = conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if block == 0 else x
            x = np.maximum(y + shortcut, 0)
    assert x.shape == (2048, 9, 9)
    pooled = (np.maximum(x, 1e-6).astype(np.float64) ** 3).mean(axis=(1, 2)) ** (1 / 3)
    out = state["fc.weight"] @ pooled + state["fc.bias"]
    return out / np.linalg.norm(out)


@pytest.fixture(scope="module")
def resnet() -> dict[str, torch.Tensor]:
    """A ResNet-50 with 512 outputs and every parameter and statistic random."""
    torch.manual_seed(0)
    state = resnet50(num_classes=512).state_dict()
    for name, value in state.items():
        if "bn" in name or "downsample.1" in name:
            kind = name.rpartition(".")[2]
            if kind in ("weight", "running_var"):
                value.uniform_(0.5, 1.5)
            elif kind in ("bias", "running_mean"):
                value.normal_(0, 0.1)
    return state


@pytest.mark.parametrize(("ending", "prefix", "scale"), [(".torchvision.pt", "backbone.", 1.0), (".safetensors", "", 1e-6)])
def test_sscd_equals_a_network_written_from_the_formulas(tmp_path, resnet, ending, prefix, scale):
    state = {k: v.clone() for k, v in resnet.items()}
    for name in state:  # the small scale brings the pooled values near the clamp at 1e-6
        if re.fullmatch(r"layer4\.\d\.(bn3|downsample\.1)\.(weight|bias)|fc\.bias", name):
            state[name] *= scale
    file = tmp_path / f"sscd{ending}"
    stored = {prefix + k: v for k, v in state.items()}
    save_file(stored, file) if ending == ".safetensors" else torch.save(stored, file)
    image = pictures(1, 40, 56)
    sscd = load_features("sscd", str(file))
    got = sscd(image)
    assert got.dtype == np.float32 and got.shape == (1, 512)
    np.testing.assert_allclose(np.linalg.norm(got), 1, atol=1e-6)
    np.testing.assert_allclose(got[0], slow_sscd({k: v.numpy() for k, v in state.items()}, image[0]), atol=1e-5)
    assert sscd.id == f"sscd-{file_hash(file)[:12]}-square288"


def script(file: Path, module: torch.nn.Module, how: str = "trace") -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        traced = torch.jit.trace(module.eval(), torch.rand(1, 3, 288, 288)) if how == "trace" else torch.jit.script(module.train())
        torch.jit.save(traced, str(file))
    return file


@pytest.mark.parametrize("how", ["trace", "script"])
def test_sscd_torchscript(tmp_path, recwarn, how):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 9, stride=9), torch.nn.BatchNorm2d(4), torch.nn.AvgPool2d(8), torch.nn.Flatten())
    images = pictures(5, 288, 288)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.tensor(((images / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    file = script(tmp_path / "sscd_disc_mixup.torchscript.pt", module, how)
    recwarn.clear()
    batches = [load_features("sscd", str(file), batch_size=b)(images) for b in (64, 2, 1)]
    assert not recwarn.list
    for got in batches:
        np.testing.assert_allclose(got, module.eval()(x).detach(), atol=1e-5)


def test_sscd_refuses_other_files(tmp_path, resnet):
    message = refused("sscd")
    assert "--set features_weights=PATH" in message and "sscd_disc_mixup" in message and "facebookresearch/sscd-copy-detection" in message
    refused("sscd", tmp_path / "none.pt", "no weights file")
    torch.save({k: v for k, v in resnet.items() if k != "layer3.2.bn1.weight"}, tmp_path / "lacks.pt")
    refused("sscd", tmp_path / "lacks.pt", "does not fit")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("sscd", tmp_path / "list.pt", "does not fit")
    save_file(resnet, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:5000])
    refused("sscd", tmp_path / "cut.safetensors", "damaged")
    refused("sscd", script(tmp_path / "image.pt", torch.nn.Conv2d(3, 3, 1)), "one vector an image")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "image.pt").read_bytes()[:900])
    refused("sscd", tmp_path / "cut.pt", "damaged")


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "torchscript"])
@pytest.mark.parametrize("name", ["sscd", "clip"])
def test_code_in_a_pickle_is_not_run(tmp_path, tiny_clip, name, kind):
    marker, file = tmp_path / "ran", tmp_path / "evil.pt"
    payload = {"conv1.weight": torch.zeros(1), "state_dict": Evil(marker)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(payload))
    elif kind == "torchscript":
        with zipfile.ZipFile(file, "w") as archive:
            for member in ("constants.pkl", "data.pkl"):
                archive.writestr(f"evil/{member}", pickle.dumps(Evil(marker)))
            archive.writestr("evil/version", "3\n")
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=kind == "torch")
    refused(name, file if name == "sscd" else f"{TINY}:{file}")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # the pickle does what it is there for


# CLIP


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    """Random weights of a CLIP model of two small layers, which open_clip knows by name while the tests run."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(0)
    state = open_clip.create_model(TINY).state_dict()
    save_file(state, folder / "tiny.safetensors")
    torch.save({"epoch": 3, "state_dict": state}, folder / "tiny.pt")
    return folder


def open_clip_says(source: object, images: np.ndarray) -> np.ndarray:
    model, _, preprocess = open_clip.create_model_and_transforms(TINY, pretrained=str(source))
    with torch.no_grad():
        return model.eval().encode_image(torch.stack([preprocess(Image.fromarray(i)) for i in images])).numpy()


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_clip_equals_open_clip(tiny_clip, file):
    images = pictures(5, 50, 70)
    clip = load_features("clip", f"{TINY}:{tiny_clip / file}")
    got = clip(images)
    assert got.shape == (5, 16) and got.dtype == np.float32
    np.testing.assert_allclose(got, open_clip_says(tiny_clip / "tiny.safetensors", images), atol=1e-5)
    for batch_size in (1, 3):
        again = load_features("clip", f"{TINY}:{tiny_clip / file}", batch_size=batch_size)(images)
        np.testing.assert_allclose(again, got, atol=1e-5)
    assert clip.id.startswith(f"clip-{TINY}-{file_hash(tiny_clip / file)[:12]}-shortest32x32-")


def test_a_tag_brings_its_preprocessing(tiny_clip, monkeypatch):
    tag = {"file": str(tiny_clip / "tiny.safetensors"), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    tags = {"squashed": tag | {"resize_mode": "squash"}, "grey": tag, "fast": tag | {"quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, tags)
    images = pictures(2, 50, 70)
    clip, plain = load_features("clip", f"{TINY}:squashed"), load_features("clip", f"{TINY}:{tiny_clip / 'tiny.safetensors'}")
    np.testing.assert_allclose(clip(images), open_clip_says("squashed", images), atol=1e-5)
    assert np.abs(clip(images) - plain(images)).max() > 0.01
    assert len({clip.id, plain.id, load_features("clip", f"{TINY}:grey").id}) == 3
    refused("clip", f"{TINY}:fast", f"another activation.*{TINY}-quickgelu:fast")
    refused("clip", f"{TINY}:squashd", "Did you mean 'squashed'")


def test_clip_refuses(tiny_clip, tmp_path, monkeypatch):
    for weights in ("", "ViT-B-32", "ViT-B-32:", ":openai"):
        refused("clip", weights, "MODEL:TAG")
    refused("clip", "ViT-B-33:openai", "unknown CLIP model 'ViT-B-33'. Did you mean 'ViT-B-32'")
    refused("clip", "ViT-B/32:laion2b_s34b_b79", "Did you mean 'laion2b_s34b_b79k'")
    refused("clip", "ViT-B-32:openai", "take ViT-B-32-quickgelu:openai")
    refused("clip", f"{TINY}:{tmp_path / 'none.pt'}", "no file and no tag")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # conftest: no network
    refused("clip", "ViT-B-32:laion2b_s34b_b79k", "cannot be downloaded")
    file = tmp_path / "cut.safetensors"
    file.write_bytes((tiny_clip / "tiny.safetensors").read_bytes()[:3000])
    refused("clip", f"{TINY}:{file}", "damaged")
    save_file({"visual.proj": torch.zeros(2, 2)}, file)
    refused("clip", f"{TINY}:{file}", "does not fit")


# all


def test_other_errors(tmp_path):
    refused("ssdc", "", "unknown features 'ssdc'. Did you mean 'sscd'")
    refused("pixels", "some.pt", "no weights")
    refused("pixels", device="cuda:99", match="device 'cuda:99'")
    with pytest.raises(ValueError, match="batch_size"):
        load_features("pixels", batch_size=0)
    images = pictures(2, 8, 8)
    for bad in (images.astype(np.float32), images[0], images[..., :1], images[:0], images[:, :0]):
        with pytest.raises(ValueError, match="uint8"):
            load_features("pixels")(bad)


def test_features_that_are_not_finite_are_refused(tmp_path):
    class Root(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)).sqrt()

    file = script(tmp_path / "root.pt", Root())
    images = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (250, 255, 0, 200)])
    with pytest.raises(UserError, match="image 2 of 4") as caught:
        load_features("sscd", str(file), batch_size=1)(images)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_the_model_runs_on_the_device(tmp_path, resnet, tiny_clip):
    torch.save(resnet, tmp_path / "sscd.pt")
    for name, weights in (("pixels", ""), ("sscd", tmp_path / "sscd.pt"), ("clip", f"{TINY}:{tiny_clip / 'tiny.safetensors'}")):
        features = load_features(name, str(weights), device="meta")  # has shapes but no values to bring back
        with pytest.raises(NotImplementedError, match="meta"):
            features(pictures(1, 8, 8))
