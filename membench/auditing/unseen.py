"""Captions that a model cannot have seen: the training captions' words, exchanged.

Each word of a caption gives way to the word at the same place of another caption, so
that wording, length and the rarity of words stay and the caption is new. What such a
caption returns by chance is a false alarm. A rare word may call a memorized image by
itself, though: a series name is enough for the image of a catalogue. That is no chance,
so it is not counted as one (:class:`Callers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from membench.datasets.prompts import example_id, read_prompt_file
from membench.errors import UserError
from membench.seeds import seed_of
from membench.types import Condition

RARE = 0.02  # of the captions: a word in no more of them may call an image by itself
TRIES = 20  # for each caption that is wanted


def unseen_captions(
    known: Sequence[str], file: Path | None, count: int, seed: int
) -> list[Condition]:
    """Those of a file (``--unseen``); None: up to ``count`` that are made of ``known``.

    Raises :class:`UserError` for a file that holds one of ``known``.
    """
    if file is None:
        texts = exchanged(known, count, seed)
    else:
        texts = list(dict.fromkeys(p.text for p in read_prompt_file(file)))
        if both := sorted(set(texts) & set(known)):
            raise UserError(
                f"--unseen {file}: {len(both)} of its captions are training captions, such as"
                f" {both[0][:60]!r}; give captions that the model has not seen"
            )
    return [Condition(example_id(text), text) for text in texts]


def exchanged(captions: Sequence[str], count: int, seed: int) -> list[str]:
    """Up to ``count`` different captions that none of ``captions`` is; fewer where
    their words do not make so many.

    The same for the same set of captions, whatever their order.
    """
    known = sorted(set(captions))
    split = [text.split() for text in known]
    longest = max((len(words) for words in split), default=0)
    if len(known) < 2 or longest < 2:
        return []
    random = np.random.RandomState(seed_of("exchanged captions", seed) % 2**32)
    # At each place, the words of every caption that is long enough
    at = [[words[i] for words in split if len(words) > i] for i in range(longest)]
    taken = {plain(text) for text in known}
    found: dict[str, str] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        length = len(split[random.randint(len(split))])
        words = [at[i][random.randint(len(at[i]))] for i in range(length)]
        text = " ".join(words)
        if plain(text) not in taken:
            found.setdefault(plain(text), text)
    return list(found.values())


def plain(text: str) -> str:
    """A caption without case and spacing."""
    return " ".join(text.lower().split())


def words_of(text: str) -> set[str]:
    """Its words, without case and the punctuation around them."""
    return {word for raw in text.lower().split() if (word := raw.strip(".,;:!?\"'()[]"))}


class Callers:
    """Which captions share a rare word with an image's own captions.

    captions: of each image. A word is rare where no more than ``RARE`` of the different
    captions hold it.
    """

    def __init__(self, captions: Sequence[Iterable[str]]) -> None:
        every = {text for texts in captions for text in texts}
        counts = Counter(word for text in every for word in words_of(text))
        most = max(1.0, RARE * len(every))
        self._rare = {word for word, n in counts.items() if n <= most}
        self._captions = captions

    def calls(self, caption: str, image: int) -> bool:
        """Whether the caption shares a rare word with a caption of the image."""
        own = words_of(caption) & self._rare
        return any(own & words_of(text) for text in self._captions[image])
