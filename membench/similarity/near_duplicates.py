"""Groups of near-duplicate examples, by text and by image.

Intervals resample whole groups, since near-duplicates are not independent.

Both groupings are single linkage: whatever a chain of similar pairs connects is one
group. That joins too much rather than too little, which widens intervals; a group split
by mistake would make them too narrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from membench.similarity.squares import squared_distances
from membench.storage.hashing import json_hash

if TYPE_CHECKING:
    from scipy.sparse import csr_array

JACCARD = 0.5  # of trigrams; see text_groups
RMS = 0.1  # of pixels in [0, 1]; see image_groups
_ROWS = 256  # compared at once with all rows that follow

Pairs = tuple[np.ndarray, np.ndarray]


def text_groups(texts: Sequence[str], *, threshold: float = JACCARD) -> list[str]:
    """The group of each text: single linkage of pairs with a Jaccard similarity of
    their sets of character trigrams >= threshold.

    A text is lower-cased (``str.lower``) and stripped; punctuation and inner white
    space stay as they are. Its set holds every run of three characters, without
    padding; that of a shorter text, also of an empty one, holds the text itself, so
    that it is similar to its equals alone. Jaccard similarity: what two sets share over
    what either has, in [0, 1]. At 0.5 the 500 prompts for Stable Diffusion 1 that
    Webster (2023, arXiv 2305.08694) found make 349 groups, and the 219 for Stable
    Diffusion 2 make 141. One brand is not one group: the 148 of the 500 that begin with
    "Shaw Floors" lie in 92, since they share little but that.

    Names are "text/" and 16 hex digits, a hash of the group's smallest text:
    independent of the order of the texts. Raises ValueError for a threshold outside (0,
    1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, but must lie in (0, 1]")
    plain = [text.lower().strip() for text in texts]
    unique = sorted(set(plain))
    if not unique:
        return []
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer

    found = csr_array(CountVectorizer(analyzer=_trigrams, dtype=np.int32).fit_transform(unique))
    groups = dict(
        zip(
            unique,
            _named("text", _components(len(unique), _similar_texts(found, threshold)), unique),
            strict=True,
        )
    )
    return [groups[text] for text in plain]


def _trigrams(text: str) -> set[str]:
    """Every run of three characters of a text; the text itself if it is shorter."""
    return {text[i : i + 3] for i in range(len(text) - 2)} or {text}


def image_groups(images: np.ndarray, *, threshold: float = RMS) -> list[str]:
    """The group of each of images ``uint8`` [n, h, w, 3]: single linkage of pairs with
    a root-mean-square pixel distance <= threshold.

    The distance, in [0, 1], is that of whole images with pixels in [0, 1]: L2 over the
    root of the number of values. Exact. Carlini et al. (2023) call two images
    near-duplicates up to 0.15, but of the largest distance over 16 tiles, which is
    stricter than of the whole; and single linkage chains. Of the first 3,000 test
    images of CIFAR-10, all different images, 0.15 puts 611 into one group, 0.1 at most
    10. Of the images that the mini model of cifar10 makes, 0.1 joins 93 % of the pairs
    that are copies of one training image, and of the pairs that it joins 1 in 7,468 is
    not. It joins hardly any that celeba's mini model generates, where the nearest
    copies of one training image lie 0.1 apart and more.

    Names are "image/" and 16 hex digits, from the group's smallest hash of an image:
    independent of the order of the images. Raises ValueError for another array or a
    threshold outside [0, 1].
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"expected uint8 [n, h, w, 3], got {images.dtype} {list(images.shape)}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, but must lie in [0, 1]")
    keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    return _named("image", _components(len(images), _similar_images(images, threshold)), keys)


def merged(*groupings: Sequence[str]) -> list[str]:
    """The finest grouping that is coarser than each of the given ones, [n] each: rows
    that any of them puts together are together, and so are rows that a chain of such
    pairs connects.

    Names are "merged/" and 16 hex digits, from the names of the group's parts:
    independent of the order of the rows. Raises ValueError for no grouping and for
    lengths that differ.
    """
    if not groupings or len({len(groups) for groups in groupings}) > 1:
        raise ValueError(f"groupings of lengths {[len(groups) for groups in groupings]}")
    first = [
        np.unique(np.asarray(groups, dtype=str), return_index=True, return_inverse=True)[1:]
        for groups in groupings
    ]
    n = len(groupings[0])
    # Each row with the first of its group
    edges = [(np.arange(n), start[member]) for start, member in first]
    return _named("merged", _components(n, edges), list(zip(*groupings, strict=True)))


def by_label(groups: Sequence[str], labels: Sequence[int]) -> list[str]:
    """The groups, [n], of which those that hold several labels are split into one a
    label, called "<group>/label=<label>".

    Detection metrics resample memorized and other examples apart, so no group may hold
    both. A memorized prompt and a negative that is its near-duplicate thus count as
    independent. Where their scores rise and fall together, intervals of AUROC and the
    like are wider than need be, not narrower; within a class groups stay whole. The
    development half of ``balanced_accuracy`` may hold one of the two and the test half
    the other. Raises ValueError for lengths that differ, and if a new name is that of
    another group.
    """
    held: dict[str, set[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        held.setdefault(group, set()).add(int(label))
    new = [
        f"{g}/label={int(label)}" if len(held[g]) > 1 else g
        for g, label in zip(groups, labels, strict=True)
    ]
    if taken := sorted(
        {name for name, group in zip(new, groups, strict=True) if name != group} & set(held)
    ):
        raise ValueError(f"there is a group {taken[0]!r} already")
    return new


def _similar_texts(sets: csr_array, threshold: float) -> Iterable[Pairs]:
    """Pairs of rows of 0 and 1 [n, trigrams] with a Jaccard similarity >= threshold, a
    block of rows at a time.
    """
    from scipy.sparse import coo_array

    size = sets.sum(axis=1)
    for start in range(0, sets.shape[0], _ROWS):
        shared = coo_array(sets[start : start + _ROWS] @ sets[start:].T)
        i, j = shared.row + start, shared.col + start
        similar = shared.data / (size[i] + size[j] - shared.data) >= threshold
        yield i[similar], j[similar]


def _similar_images(images: np.ndarray, threshold: float) -> Iterable[Pairs]:
    """Pairs of images with a root-mean-square distance <= threshold, a block of images
    at a time.
    """
    for start in range(0, len(images), _ROWS):
        squares = squared_distances(images[start : start + _ROWS], images[start:])
        i, j = np.nonzero(np.sqrt(squares / images[0].size) / 255 <= threshold)
        yield i + start, j + start


def _components(n: int, blocks: Iterable[Pairs]) -> np.ndarray:
    """The connected component, int [n], of each of n rows.

    Holds the edges of one block at a time, however many there are in all.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    component = np.arange(n)
    for i, j in blocks:
        graph = coo_array((np.ones(len(i), dtype=bool), (component[i], component[j])), shape=(n, n))
        component = connected_components(graph, directed=False)[1][component]
    return component


def _named(kind: str, component: np.ndarray, keys: Sequence) -> list[str]:
    """A name of each row's component, from its smallest key.

    Rows of one key must be of one component.
    """
    smallest: dict[int, str | tuple[str, ...]] = {}
    for c, key in zip(component.tolist(), keys, strict=True):
        smallest[c] = min(smallest.get(c, key), key)
    names = {c: f"{kind}/{json_hash(key)[:16]}" for c, key in smallest.items()}
    return [names[c] for c in component.tolist()]
