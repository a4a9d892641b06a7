"""What an audit is and has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from membench.auditing.judge import Judgement
from membench.auditing.material import Material
from membench.auditing.settings import Settings
from membench.auditing.subject import Subject
from membench.types import Condition, Space


@dataclass
class Audit:
    """What an audit is and has found. plan: for people, (what, how much) lines. A dry
    run ends with it: then ``judgement`` is None.
    """

    settings: Settings
    model: Subject
    mirror: Subject | None
    material: Material
    space: Space
    sampling: dict[str, Any]
    key: str
    plan: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    unseen_scores: dict[str, float] = field(default_factory=dict)
    prompts: dict[str, Condition] = field(default_factory=dict)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    judgement: Judgement | None = None
    evaluations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
