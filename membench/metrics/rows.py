"""One number of a run, in long form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A row of ``metrics.parquet``.

    band: the band of similarity, or None. threshold: what the metric was cut at (a
    similarity, a distance, a false positive rate, a score), or None. value: None where
    the data cannot support it. low, high: the interval, None where there is none. n:
    how many examples or images it rests on. subset: ``all``, ``kind=...`` or
    ``source=...``.
    """

    name: str
    band: str | None
    threshold: float | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    subset: str = "all"
