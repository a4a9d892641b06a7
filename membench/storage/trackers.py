"""Scalars of long work, told to the tracker that a user watches: TensorBoard, Weights &
Biases or MLflow. Each is an extra, imported when it is asked for.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from membench.errors import UserError
from membench.types import Tracker

# By name the module that is imported
KINDS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
PROJECT = "membench"


class _Adapter(ABC):
    """Leaves out what is not finite, for every tracker alike."""

    def scalar(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            self._put(name, value, step)

    @abstractmethod
    def _put(self, name: str, value: float, step: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class TensorBoard(_Adapter):
    """Event files in a folder, shown by ``tensorboard --logdir``."""

    def __init__(self, module: Any, folder: Path, name: str) -> None:
        self._writer = module.SummaryWriter(log_dir=str(folder / name))

    def _put(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB(_Adapter):
    """A run of Weights & Biases. Each scalar has a step of its own, since one step for
    all of a run may only grow.
    """

    def __init__(self, module: Any, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run = module.init(project=PROJECT, name=name, dir=str(folder))
        self._known: set[str] = set()

    def _put(self, name: str, value: float, step: int) -> None:
        if name not in self._known:
            self._known.add(name)
            self._run.define_metric(name, step_metric=f"{name}_step")
        self._run.log({name: value, f"{name}_step": step})

    def close(self) -> None:
        self._run.finish()


class MLflow(_Adapter):
    """A run of MLflow, where its own settings (``MLFLOW_TRACKING_URI``) say."""

    def __init__(self, module: Any, folder: Path, name: str) -> None:
        del folder  # MLflow knows its own
        self._client = module.MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        of = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(of, run_name=name).info.run_id

    def _put(self, name: str, value: float, step: int) -> None:
        self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


_ADAPTERS: dict[str, Callable[[Any, Path, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def open_tracker(kind: str, folder: Path, what: str) -> Tracker:
    """The tracker of that name (``KINDS``), for one session.

    folder: for what it keeps on this machine. what: the work, the first word of the
    session's name. Raises :class:`UserError` where its package is missing.
    """
    if kind == "tensorboard":
        import torch

        _ = torch.utils  # executes a torch that was put off (cli.main) before a part of it
    try:
        module = importlib.import_module(KINDS[kind])
    except ImportError:
        raise UserError(
            f"--log {kind} needs a package that is not installed: pip install 'membench[{kind}]'"
        ) from None
    return _ADAPTERS[kind](module, folder, f"{what}-{datetime.now():%Y%m%d-%H%M%S}")
