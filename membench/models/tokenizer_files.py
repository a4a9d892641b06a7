"""CLIP's tokenizer from its files, with the proof that none of them is missing a part.

What a library does with half a tokenizer is silent: without a vocabulary every prompt
has the same tokens, with half of the merges other tokens than the model was trained
with, and with another padding token other embeddings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from membench.errors import UserError, reason
from membench.models.loading import loading, read_config
from membench.models.weight_files import refuse_pointer

AGAIN = "get the tokenizer again"
PADDING = "Stable Diffusion 1.x pads with <|endoftext|>, 2.x with !"
PROOF = ("a red circle", "two blue boats", "")  # of which no two may have the same tokens


def load_tokenizer(folder: Path, vocabulary: int, positions: int) -> Any:
    """The tokenizer in ``folder``, cut to at most ``positions`` tokens.

    vocabulary, positions: how many of each the text encoder has embeddings for. Raises
    :class:`UserError`, naming the file, for a tokenizer that lacks a file or a part of
    one, or is another text encoder's.
    """
    from transformers import CLIPTokenizer

    named = named_specials(folder)
    check_files(folder)
    with loading(folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        built = json.loads(tokenizer.backend_tokenizer.to_str())
        entries = tokenizer.get_vocab()
    made = _check_vocabulary(folder, built, entries, vocabulary)
    for role, token in named.items():
        if getattr(tokenizer, role) != token or token not in entries:
            raise UserError(f"{folder}: its {role} {token!r} is not in the vocabulary; {AGAIN}")
    _check_ends(folder, tokenizer.bos_token, tokenizer.eos_token, made)
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 3:
        raise UserError(
            f"{folder / 'tokenizer_config.json'}: model_max_length is {limit!r}, but a prompt takes"
            f" at least 3 tokens; {AGAIN}"
        )
    # Some tokenizers name no limit, and some one that the text encoder has no positions
    # for.
    tokenizer.model_max_length = int(min(limit, positions))
    # It would foretell indexing errors of a long prompt, which is cut here, and counted.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    _prove(folder, tokenizer)
    return tokenizer


def check_files(folder: Path) -> None:
    """Raises :class:`UserError` if a file is missing, empty or no JSON: tokenizer.json,
    or vocab.json and merges.txt.
    """
    whole, vocab, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    needed = [whole] if whole.is_file() else [vocab, merges]
    if missing := [file.name for file in needed if not file.is_file()]:
        also = "" if whole.is_file() else " (nor is there a tokenizer.json, which would hold both)"
        raise UserError(f"{folder} lacks {' and '.join(missing)}{also}; {AGAIN}")
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".txt"):
            refuse_pointer(file)
    for file in needed:
        if file is merges:
            _check_merges(file)
        elif not read_config(file):
            raise UserError(f"{file} is empty; {AGAIN}")


def _check_merges(file: Path) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError) as error:
        raise UserError(f"{file} cannot be read ({reason(error)}); {AGAIN}") from None
    pairs = [line for line in lines if line.strip() and not line.startswith("#version")]
    if not pairs:
        raise UserError(f"{file} is empty; {AGAIN}")
    if odd := next((line for line in pairs if len(line.split()) != 2), None):
        raise UserError(
            f"{file} is cut short or damaged: {odd[:40]!r} is not a pair of tokens; {AGAIN}"
        )


def named_specials(folder: Path) -> dict[str, str]:
    """The special tokens that the configuration names, pad_token among them.

    Raises :class:`UserError` where it does not.

    A library fills in the padding token of Stable Diffusion 1.x, which for 2.x gives
    other embeddings without a word.
    """
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        raise UserError(
            f"{folder} lacks tokenizer_config.json, which names the padding token; {AGAIN}"
        )
    given = read_config(settings)
    # As transformers reads them: the older file goes first, as that of Stable Diffusion
    # 2 has to.
    if "added_tokens_decoder" not in given and (folder / "special_tokens_map.json").is_file():
        given |= read_config(folder / "special_tokens_map.json")
    found: dict[str, str] = {}
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = given.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None and (role == "pad_token" or role in given):
            how = f" ({PADDING})" if role == "pad_token" else ""
            raise UserError(f"{settings} names no {role}{how}; {AGAIN}")
        if token is not None and not (isinstance(token, str) and token):
            raise UserError(f"{settings}: {role} is {str(token)[:40]!r}, not a token; {AGAIN}")
        if token is not None:
            found[role] = token
    return found


def _check_ends(folder: Path, begin: str, end: str, made: set[str]) -> None:
    """Raises :class:`UserError` where a prompt would begin or end with a piece of a word,
    or begin as it ends: every text has tokens then, and none those of training.
    """
    for role, token in (("bos_token", begin), ("eos_token", end)):
        if len(token.removesuffix("</w>")) == 1 or token in made:
            raise UserError(
                f"{folder}: its {role} is {token[:40]!r}, a piece of words, where CLIP has"
                f" <|startoftext|> and <|endoftext|>; {AGAIN}"
            )
    if begin == end:
        raise UserError(
            f"{folder}: its bos_token and its eos_token are both {begin[:40]!r}, where CLIP has"
            f" <|startoftext|> and <|endoftext|>; {AGAIN}"
        )


def _check_vocabulary(
    folder: Path, built: dict[str, Any], entries: dict[str, int], vocabulary: int
) -> set[str]:
    """The tokens that the merges make. Raises :class:`UserError`."""
    model = built["model"]
    if model.get("type") != "BPE":
        raise UserError(
            f"{folder} is a tokenizer of type {model.get('type')}, not CLIP's (BPE); {AGAIN}"
        )
    ids = set(entries.values())
    top = max(ids, default=0)
    padded = top + 1 == len(ids) and _is_padded(len(ids), vocabulary)
    if top >= vocabulary or (len(ids) < vocabulary and not padded):
        raise UserError(
            f"{folder} has {len(ids)} tokens, numbered to {top}, and the text"
            f" encoder embeddings for {vocabulary}: the vocabulary is cut short, or another"
            f" model's; {AGAIN}"
        )
    # The library gives a token without a number the next one, which here has a row
    if padded and (unknown := sorted(entries.keys() - _numbered(folder, built))):
        raise UserError(
            f"{folder}: none of its files gives {unknown[0]!r} a number, so its embedding would be"
            f" one that no token was trained with; {AGAIN}"
        )
    # CLIP's vocabulary is single characters and what the merges make of them.
    end = str(model.get("end_of_word_suffix") or "")
    made = {
        "".join(pair) if isinstance(pair, list) else pair.replace(" ", "")
        for pair in model["merges"]
    }
    added = {
        "<|startoftext|>",
        "<|endoftext|>",
        *(token["content"] for token in built["added_tokens"]),
    }
    unmade = [
        token
        for token in model["vocab"]
        if len(token.removesuffix(end)) > 1 and token not in made | added
    ]
    if unmade:
        raise UserError(
            f"{folder}: {len(unmade)} tokens of the vocabulary, such as {unmade[0]!r}, come from no"
            f" merge: the merges are cut short; {AGAIN}"
        )
    _check_order(folder, model)
    return made


def _is_padded(tokens: int, vocabulary: int) -> bool:
    """Whether embeddings for so many tokens are those of ``tokens``, with rows behind
    them that no token has: as few as make a multiple of a number that is fast
    (``resize_token_embeddings(pad_to_multiple_of=64)``).

    CLIP's 49,408 tokens are a multiple of each already: beside them one more row is
    that of a token which its tokenizer lacks.
    """
    return any(tokens < vocabulary == -(-tokens // n) * n for n in (8, 16, 32, 64))


def _numbered(folder: Path, built: dict[str, Any]) -> set[str]:
    """The tokens that a tokenizer's own files number."""
    found = {*built["model"]["vocab"]}
    for name in ("tokenizer.json", "added_tokens.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        held = read_config(folder / name)
        if name == "added_tokens.json":
            found |= {*held}
        added = held.get("added_tokens" if name == "tokenizer.json" else "added_tokens_decoder")
        rows = added.values() if isinstance(added, dict) else added or ()
        found |= {str(row.get("content")) for row in rows if isinstance(row, dict)}
    return found


def _check_order(folder: Path, model: dict[str, Any]) -> None:
    """Raises :class:`UserError` where a merge makes a token that is numbered before the
    one that the merge above it makes.

    A vocabulary numbers its tokens as the merges make them, and which merge is first
    decides what a text becomes: with lines exchanged the tokens are other ones.
    """
    above = ""
    seen: set[str] = set()
    for pair in model["merges"]:
        token = "".join(pair) if isinstance(pair, list) else pair.replace(" ", "")
        if token in seen or token not in model["vocab"]:
            continue
        seen.add(token)
        if above and model["vocab"][token] < model["vocab"][above]:
            raise UserError(
                f"{folder}: the merge of {token!r} comes after that of {above!r}, and in the"
                f" vocabulary before it: the merges are out of order; {AGAIN}"
            )
        above = token


def _prove(folder: Path, tokenizer: Any) -> None:
    """Raises :class:`UserError` unless prompts become: begin, tokens of their own, end,
    padding.
    """
    limit = tokenizer.model_max_length
    with loading(folder, "used"):
        rows = tokenizer(
            list(PROOF), padding="max_length", max_length=limit, truncation=True
        ).input_ids
        begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    for prompt, row in zip(PROOF, rows, strict=True):
        length = row.index(end, 1) if end in row[1:] else 0
        inner, rest = row[1:length], row[length + 1 :]
        special = {begin, end, tokenizer.unk_token_id}
        if (
            not length
            or row[0] != begin
            or len(row) != limit
            or bool(inner) != bool(prompt)
            or special & {*inner}
            or {*rest} - {pad}
        ):
            raise UserError(
                f"{folder} makes {row[:6]} of {prompt!r}, which is not: begin, the prompt's tokens,"
                f" end, padding; {AGAIN}"
            )
    if len({tuple(row) for row in rows}) < len(rows):
        raise UserError(
            f"{folder} makes the same tokens of {PROOF[0]!r} and {PROOF[1]!r}: its vocabulary is"
            f" missing; {AGAIN}"
        )
