"""A TorchScript model in a process of its own.

A TorchScript file is a program. It cannot call Python, but it can open files and write
to them, already while it is loaded. So a child process loads and runs it, which can open
no file and no socket any more before it looks at the first byte of it. On a GPU the
driver itself opens files, so there the child may, and can only not make files or grow
them.

The child is this module, run by ``python -m``. It reads from its standard input: a line
of JSON, the bytes of the model, then images; it answers each with vectors or an error.
A tensor is a line of its shape and its float32 values, an error a line of text, in JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO

import torch

import membench
from membench.errors import UserError


class ProgramFailed(UserError):
    """What a model's program raised, or that it ended its process."""


class Apart:
    """Images float32 [n, 3, side, side] to vectors [n, d], by the TorchScript model of a
    file. The child ends with this object.

    device: the child's. Raises :class:`ProgramFailed` where the model cannot be loaded or
    fails.
    """

    def __init__(self, file: Path, device: str) -> None:
        self._file, model = file, file.read_bytes()
        home = str(Path(membench.__file__).resolve().parents[1])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "membench.features.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.sep,  # not the user's, for relative names
            env={**os.environ, "PYTHONPATH": path},
        )
        weakref.finalize(self, _end, self._child)
        given = {"device": device, "threads": torch.get_num_threads(), "bytes": len(model)}
        self._ask(json.dumps(given).encode() + b"\n" + model)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors on the device of ``x``."""
        return self._ask(_packed(x)).to(x.device)

    def _ask(self, message: bytes) -> torch.Tensor:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(message)
            self._child.stdin.flush()
            answer = _unpacked(self._child.stdout)
        except (BrokenPipeError, EOFError):
            code = self._child.wait()
            raise ProgramFailed(f"{self._file} ended its process (exit code {code})") from None
        if isinstance(answer, str):
            raise ProgramFailed(f"{self._file} failed: {answer}")
        return answer


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # a rest that nobody reads
                pipe.close()


def _packed(x: torch.Tensor) -> bytes:
    values = x.detach().to("cpu", torch.float32).contiguous()
    return json.dumps(list(x.shape)).encode() + b"\n" + values.numpy().tobytes()


def _unpacked(pipe: IO[bytes]) -> torch.Tensor | str:
    """A tensor, or the text of an error."""
    if isinstance(shape := json.loads(_line(pipe)), str):
        return shape
    values = bytearray(_read(pipe, 4 * math.prod(shape)))
    flat = torch.frombuffer(values, dtype=torch.float32) if values else torch.empty(0)
    return flat.reshape(shape)


def _line(pipe: IO[bytes]) -> bytes:
    if not (line := pipe.readline(4096)).endswith(b"\n"):
        raise EOFError
    return line


def _read(pipe: IO[bytes], size: int) -> bytes:
    if len(data := pipe.read(size)) < size:
        raise EOFError
    return data


def _warm(device: str) -> None:
    """Loads what torch loads late, while files can be opened."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    x = torch.zeros(2, 3, 16, 16)
    # Scripted, not traced: tracing imports sympy, half a second of each start
    scripted, file = torch.jit.script(net.eval()), io.BytesIO()
    torch.jit.save(scripted, file)
    model = torch.jit.load(io.BytesIO(file.getvalue()), map_location=device)
    for _ in range(3):  # the executor rewrites the graph at the second run
        torch.nn.functional.normalize(
            model(x.to(device)).flatten(1) @ torch.ones(8 * 196, 4).to(device)
        )


def _confine(device: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if device == "cpu":
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _serve() -> None:
    """What the child does, until its input ends."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the model prints

    def answer(message: bytes) -> None:
        answers.write(message)
        answers.flush()

    with torch.no_grad():
        given = json.loads(_line(asked))
        torch.set_num_threads(given["threads"])
        _warm(given["device"])
        _confine(given["device"])
        try:
            data = io.BytesIO(_read(asked, given["bytes"]))
            model = torch.jit.load(data, map_location=given["device"]).eval()
            answer(_packed(torch.empty(0)))
            while True:
                x = _unpacked(asked)
                assert not isinstance(x, str)  # the other side sends no errors
                out = model(x.to(given["device"]))
                if not isinstance(out, torch.Tensor):
                    raise TypeError(f"it gives a {type(out).__name__}, not vectors")
                answer(_packed(out))
        except EOFError:
            return
        except Exception as error:  # whatever a damaged file or another program raises
            *_, last = str(error).strip().splitlines() or [type(error).__name__]
            # Before the last line stands where in the program it was
            answer(json.dumps(last.strip()[:200]).encode() + b"\n")


if __name__ == "__main__":
    _serve()
