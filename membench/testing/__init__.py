"""Checks of somebody's own detector or task: all that the harness relies on, on tiny
models, in seconds.

    from membench.testing import check_detector
    check_detector(MyDetector)

Each check raises :class:`Broken` with one line that names the rule. Nothing is
downloaded.
"""

from membench.testing.detectors import check_detector
from membench.testing.rules import Broken
from membench.testing.tasks import check_task
from membench.testing.tiny import tiny_pixel_model, tiny_text_model

__all__ = ["Broken", "check_detector", "check_task", "tiny_pixel_model", "tiny_text_model"]
