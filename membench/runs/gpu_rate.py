"""GPU minutes of evaluations that were counted and not timed.

No GPU was measured: the rate is an assumption of docs/scale.md, a share of the peak in
half precision, dense, of the vendor's data sheet.
"""

from __future__ import annotations

GPU, PEAK, SHARE = "H100 SXM", 989e12, 0.3

TOLD = (
    f"GPU minutes are not measured: an assumed {SHARE:.0%} of an {GPU}'s {PEAK / 1e12:.0f} TFLOP/s"
    " in half precision (docs/scale.md)"
)


def gpu_seconds(flop: float) -> float:
    """Seconds of so many floating-point operations on that GPU."""
    return flop / (PEAK * SHARE)
