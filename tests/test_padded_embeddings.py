"""A text encoder whose embeddings were padded to a multiple of a number, as
``resize_token_embeddings(pad_to_multiple_of=64)`` does after a word was added.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import ours, own_pipeline, save_tiny, theirs
from test_whole_models import slow_tokenizer
from transformers import CLIPTextModel

from membench.errors import UserError
from membench.models.latent import load_model

TOKENS = 1200  # of the tiny model: a multiple of 8 and 16, and of no larger of them


def padded(folder: Path, rows: int) -> Path:
    """A tiny pipeline with so many embeddings."""
    save_tiny(folder)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    torch.manual_seed(5)
    encoder.resize_token_embeddings(rows, mean_resizing=False)
    encoder.save_pretrained(folder / "text_encoder")
    return folder


def test_padded_embeddings_draw_what_diffusers_draws(tmp_path: Path) -> None:
    folder = padded(tmp_path / "m", 1216)  # 19 x 64
    model, x, images = ours(folder)
    assert model.text.encoders[0].config.vocab_size == 1216
    wanted = theirs(own_pipeline(folder), x)
    assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 1 and wanted.std() > 5


@pytest.mark.parametrize("rows", [1201, 1208, 1224, 1280])
def test_more_embeddings_than_padding_makes_are_of_another_tokenizer(
    tmp_path: Path, rows: int
) -> None:
    with pytest.raises(UserError, match=rf"1200 tokens.* encoder embeddings for {rows}"):
        load_model(padded(tmp_path / "m", rows), "cpu", "float32", 4)


def test_a_hole_in_the_numbers_is_no_padding(tmp_path: Path) -> None:
    """The last token lost its number to one beyond it: of a token in between nothing
    is known.
    """
    folder = padded(tmp_path / "m", 1216)
    file = folder / "tokenizer" / "tokenizer.json"
    held = json.loads(file.read_text())
    last = max(held["model"]["vocab"], key=held["model"]["vocab"].get)
    held["model"]["vocab"][last] = TOKENS + 3
    file.write_text(json.dumps(held))
    with pytest.raises(UserError, match="numbered to 1203"):
        load_model(folder, "cpu", "float32", 4)


def test_a_token_that_no_file_numbers_takes_no_row_of_the_padding(tmp_path: Path) -> None:
    """Where there is no row to spare, its number is beyond the embeddings."""
    folder = padded(tmp_path / "m", 1216)
    slow_tokenizer(folder, pad_token="<pad>")
    with pytest.raises(UserError, match="none of its files gives '<pad>' a number"):
        load_model(folder, "cpu", "float32", 4)
    (folder / "tokenizer" / "added_tokens.json").write_text(json.dumps({"<pad>": TOKENS}))
    model = load_model(folder, "cpu", "float32", 4)
    assert model.tokenizer.pad_token_id == TOKENS
