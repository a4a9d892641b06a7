"""Where commands keep what they make unless an option says otherwise. Imports nothing."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("results/runs")
REPORT = Path("results/report")
