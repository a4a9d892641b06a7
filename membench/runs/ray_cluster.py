"""A Ray cluster: how it is reached or started, and how many workers fit into it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from tqdm.auto import tqdm

from membench.errors import UserError
from membench.storage.files import abandoned, take_lock

STORE = 80 << 20  # bytes of Ray's object store, which nothing is put into: its smallest
PREFIX, LOCK = "mb-", ".lock"  # of a folder of Ray's files
QUIET: dict[str, Any] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": "ERROR",
}


# Ray's own switch for machines on their own, named after where it is the default: the
# node's address is the loopback device's, and nothing listens on another. Read on import
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def imported(alone: bool) -> Any:
    """Ray. alone: for a cluster of this process's own, which no other machine reaches."""
    if alone:
        os.environ.setdefault(LOOPBACK, "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read on import: Ray would report home
    # Silences a warning of what is to change
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray; pip install 'membench[ray]'") from None
    return ray


def reach(address: str) -> None:
    """Raises :class:`UserError` unless something listens there: Ray itself would try
    for minutes.
    """
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal() or "/" in host:
        raise UserError(
            f"--address {address}: it must be host:port or auto; start membench on a machine of the"
            " cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: nothing answers there ({error}); start a cluster with: ray start"
            " --head"
        ) from None


def join(ray: Any, address: str) -> None:
    """Connects to a running cluster. Raises :class:`UserError` if it cannot be used."""
    try:
        with _quiet():
            ray.init(address=address, **QUIET)
    # None was found; another version of Ray or Python; no token
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        why = str(error).strip().splitlines()[0].rstrip(".")
        hint = (
            "start one with: ray start --head, and set RAY_AUTH_MODE=token if it asks for its token"
        )
        raise UserError(
            f"--address {address}: no Ray cluster that can be used ({why}); {hint}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing reaches stderr: of a cluster that refuses us Ray's library writes twenty
    lines there itself, past Python, and its settings do not stop it.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def start(ray: Any, cores: int, folder: str) -> None:
    """Starts one on this machine, whose files go into ``folder``. Raises
    :class:`UserError` if that cannot be.
    """
    try:
        ray.init(num_cpus=cores, object_store_memory=STORE, _temp_dir=folder, **QUIET)
    # No room in /dev/shm, no port, no home to keep its token in; of a machine too busy to
    # start in time Ray says it by a bare Exception
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"Ray cannot be started here ({why}); leave --executor ray out, or mend that"
        ) from error


def room(nodes: Sequence[Mapping[str, Any]], needs: Mapping[str, int]) -> int:
    """How many workers the living nodes hold."""
    living = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(
        min(int(has.get(what, 0) // number) for what, number in needs.items()) for has in living
    )


def own_folder() -> tuple[Path, BaseFileLock]:
    """A new folder for Ray's files, and its lock, held as long as this process lives.
    Folders of drivers that were killed are removed.
    """
    # Paths of Ray's sockets may have 107 bytes
    place = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 30 else "/tmp")
    ours = (
        file
        for file in place.glob(f"{PREFIX}*/{LOCK}")
        if not file.parent.is_symlink() and file.lstat().st_uid == os.geteuid()
    )
    for file in abandoned(ours):
        shutil.rmtree(file.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    return folder, take_lock(folder / LOCK, "")


def tell(line: str) -> None:
    tqdm.write(f"membench: {line}", file=sys.stderr)
