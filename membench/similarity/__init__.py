"""How generated and training images are compared; every measure ends in the same frame of matches."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: Columns of a frame of matches, with their types. ``rank`` 0 is the nearest training image of a generated one.
MATCH_COLUMNS = {"generated": np.int32, "training": np.int32, "similarity": np.float32, "rank": np.int32}


def matches_frame(generated: np.ndarray, training: np.ndarray, similarity: np.ndarray, *, higher_is_closer: bool) -> pd.DataFrame:
    """A frame of matches from its pairs, [p] each, in any order.

    generated, training: positions in the two sets of images. similarity: a similarity, or a distance when
    ``higher_is_closer`` is False. Returns the columns of ``MATCH_COLUMNS``, ordered by generated image and rank; ranks
    follow closeness as stored (float32), ties the lower training position. Raises ValueError for NaN.
    """
    stored = np.asarray(similarity, dtype=np.float32)
    if np.isnan(stored).any():
        raise ValueError("a similarity is NaN")
    order = np.lexsort((training, -stored if higher_is_closer else stored, generated))
    rows = np.asarray(generated)[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    columns = (rows, np.asarray(training)[order], stored[order], rank)
    return pd.DataFrame({name: column.astype(kind) for (name, kind), column in zip(MATCH_COLUMNS.items(), columns, strict=True)})
