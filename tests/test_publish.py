"""What would be uploaded, without a network; and a piece for a model card."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from boards import COPIED, make

from membench.cli.main import main
from membench.fetching import publish
from membench.fetching.publish import push


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("made") / "runs"
    for seed in (0, 1):
        make(root, COPIED, seed=seed)
        make(root, COPIED, detector="side", seed=seed, options=("clusters=2",))
    return str(root)


def test_a_dry_run_writes_what_would_be_uploaded(
    runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "push", lambda *_, **__: pytest.fail("it asked the network"))
    words = ["leaderboard", "--runs", runs, "--by", "seeds", "--push-to-hub", "me/board"]
    assert main([*words, "--dry-run", "--output", str(tmp_path / "up")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "nothing was uploaded" in err
    names = {path.name for path in (tmp_path / "up").iterdir()}
    assert names == {"leaderboard.parquet", "runs.yaml", "README.md"}
    frame = pd.read_parquet(tmp_path / "up" / "leaderboard.parquet")
    card = (tmp_path / "up" / "README.md").read_text()
    assert card.startswith("---\nlicense: ") and "| side clusters=2 |" in card
    assert [name for name in frame if f"| `{name}` |" not in card] == []  # every column
    assert "clusters: 2" in (tmp_path / "up" / "runs.yaml").read_text()


def test_a_card_for_a_model(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--runs", runs, "--by", "seeds", "--format", "card"]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("## Memorization\n") and "| detector | AUROC | TPR@1%FPR | eval/ex |" in out
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--push-to-hub", "board"], "--push-to-hub board: it must be OWNER/NAME"),
        (["--push-to-hub", "a/b", "--by", "leaders"], "--by leaders makes others"),
        (["--dry-run"], "--dry-run is for --push-to-hub"),
        (["--push-to-hub", "a/b", "--dry-run"], "needs --output DIR"),
    ],
)
def test_mistakes(
    runs: str, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["leaderboard", "--runs", runs, *words]) == 2
    assert told in capsys.readouterr().err


def test_no_token_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(publish.net, "offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(Exception, match="me/board: there is no token; hf auth login"):
        push("me/board", {"a": tmp_path / "a"}, message="m")
