"""Run folders: under which key a run is kept, and how it survives a kill, a full disk
and a second process.

``<root>/<task>/<profile>/<detector>/<key>/`` holds run.json and, at the end, scores,
samples, matches and metrics as Parquet; until then ``shards/<phase>-00003.parquet``
keeps what is done.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from filelock import BaseFileLock

from membench.errors import UserError
from membench.runs.images import Samples
from membench.runs.stored import ID_COLUMNS, ended, read_info, verify_ids
from membench.storage.files import (
    DamagedFile,
    disk_errors,
    remove_partial,
    take_lock,
    write_json,
)
from membench.storage.reading import is_amount
from membench.storage.streams import write_groups
from membench.storage.tables import SCHEMA_VERSION, joined, read_notes, read_table, write_table


class RunFolder:
    """One run's folder, locked against other processes until it is closed: ``with
    RunFolder.open(...) as folder``.

    run: what run.json holds. A phase is "samples" or "scores"; the work of a phase is
    stored shard by shard.
    """

    def __init__(
        self, path: Path, key: str, key_parts: Mapping[str, Any], lock: BaseFileLock | None
    ) -> None:
        self.path = path
        self.run: dict[str, Any] = {}
        self._keys = {
            "schema_version": SCHEMA_VERSION,
            "key": key,
            "key_parts": json.loads(json.dumps(key_parts)),
        }
        self._lock = lock

    @classmethod
    def open(
        cls,
        root: Path,
        task: str,
        profile: str,
        detector: str,
        key: str,
        key_parts: Mapping[str, Any],
    ) -> RunFolder:
        """Makes the folder, or takes an earlier run up again.

        Raises UserError if another process holds it, it holds a run of other parts, or
        the disk refuses.
        """
        path = root / task / profile / detector / key
        lock = take_lock(
            path / ".lock", f"another process is writing to {path}; wait until it ends, or end it"
        )
        folder = cls(path, key, key_parts, lock)
        try:
            folder._resume()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def attach(
        cls,
        root: Path,
        task: str,
        profile: str,
        detector: str,
        key: str,
        key_parts: Mapping[str, Any],
    ) -> RunFolder:
        """The folder of a run that another process holds open, for a worker of its own
        that reads and writes shards, and nothing else.

        Takes no lock and touches no file.
        """
        return cls(root / task / profile / detector / key, key, key_parts, None)

    @property
    def title(self) -> str:
        """``<task>/<profile>/<detector>/<key>``."""
        return "/".join(self.path.parts[-4:])

    @property
    def key_parts(self) -> dict[str, Any]:
        """All that changes the run's output, as JSON has it."""
        return dict(self._keys["key_parts"])

    def _resume(self) -> None:
        remove_partial(self.path)
        if (self.path / "run.json").exists():
            self.run = read_info(self.path)
            old, new = self.run.get("key_parts"), self._keys["key_parts"]
            if not isinstance(old, dict) or not isinstance(self.run.get("earlier", []), list):
                raise DamagedFile(
                    f"{self.path / 'run.json'} is damaged; delete {self.path} and run again"
                )
            if differing := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
                raise UserError(
                    f"{self.path} holds a run with other {', '.join(differing)}; move it away or"
                    " choose another --runs"
                )
            if self.complete:  # killed after run.json: nothing reads them any more
                self.cleanup_shards()

    def close(self) -> None:
        """Lets other processes in."""
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Removes the folder if nothing has begun in it."""
        if not self.run and {p.name for p in self.path.iterdir()} == {".lock"}:
            (self.path / ".lock").unlink()
            self.path.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complete(self) -> bool:
        """Whether all that this key asks for is done ("partial", by ``--limit`` or
        failures, is done too) and still there.
        """
        return ended(self.path, self.run)

    def start(self, info: Mapping[str, Any]) -> None:
        """Writes run.json, status "running".

        Where a resumed run's info differs, the earlier one is kept in "earlier".
        """
        changed = {
            k: self.run[k]
            for k in info
            if k in self.run and self.run[k] != json.loads(json.dumps(info[k]))
        }
        earlier = [*self.run.get("earlier", []), *([changed] if changed else [])]
        self._record({**info, "status": "running", "earlier": earlier})

    def _record(self, fields: Mapping[str, Any]) -> None:
        self.run = json.loads(json.dumps({**self.run, **fields, **self._keys}))
        write_json(self.path / "run.json", self.run)

    def _shard(self, phase: str, index: int) -> Path:
        return self.path / "shards" / f"{phase}-{index:05d}.parquet"

    def _shards(self, phase: str) -> list[Path]:
        found = (self.path / "shards").glob(f"{phase}-*.parquet")
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def shard_done(self, phase: str, index: int) -> bool:
        """Whether the shard is there and can be read; a damaged one is deleted, with a
        warning on stderr.
        """
        shard = self._shard(phase, index)
        if not shard.exists():
            return False
        try:
            read_table(shard, phase)
            _cost(shard)
        except DamagedFile:
            print(
                f"membench: {shard} is damaged; it is deleted and computed again", file=sys.stderr
            )
            shard.unlink()
            return False
        return True

    def write_shard(
        self,
        phase: str,
        index: int,
        frame: pd.DataFrame | pa.Table,
        cost: Mapping[str, float] | None = None,
    ) -> None:
        """Stores the index-th part of a phase, and what it cost (counts, seconds) in
        the same file.
        """
        write_table(self._shard(phase, index), frame, phase, {"cost": json.dumps(dict(cost or {}))})

    def read_shards(self, phase: str, expected: Iterable[str] | None = None) -> pd.DataFrame:
        """All rows done so far, in the order of the shards; of samples,
        :meth:`read_samples`.

        Raises UserError if one is damaged or the ids are not as expected.
        """
        frame = joined((read_table(shard, phase) for shard in self._shards(phase)), phase)
        verify_ids(frame, phase, self.path / "shards", expected)
        return frame

    def read_samples(self, expected: Iterable[str] | None = None) -> Samples:
        """All samples done so far, in the order of the shards, of which one is in memory
        at once. Raises UserError as :meth:`read_shards`, and if the disk refuses.
        """
        shards = (read_table(shard, "samples") for shard in self._shards("samples"))
        found = Samples.of(shards, self.path)
        verify_ids(found.rows, "samples", self.path / "shards", expected)
        return found

    def costs(self) -> dict[str, dict[str, Any]]:
        """What each phase has cost so far, summed over its shards, those of earlier
        sessions included.
        """
        total: dict[str, Counter[str]] = {}
        for phase in ID_COLUMNS:
            for shard in self._shards(phase):
                total.setdefault(phase, Counter()).update(_cost(shard))
        return {phase: dict(cost) for phase, cost in total.items()}

    def finish(
        self, tables: Mapping[str, pd.DataFrame], samples: Samples, info: Mapping[str, Any]
    ) -> None:
        """Writes the tables and the samples, rows sorted by id, then run.json, then
        deletes the shards. tables: but the samples; info: "status" and the totals.

        Raises UserError if an id stands twice or the disk refuses.
        """
        notes = {"run": self._keys["key"]}
        verify_ids(samples.rows, "samples", self.path)
        for name, frame in tables.items():
            if name in ID_COLUMNS:
                verify_ids(frame, name, self.path)
                frame = frame.sort_values(ID_COLUMNS[name])
            write_table(self.path / f"{name}.parquet", frame, name, notes)
        write_groups(self.path / "samples.parquet", samples.groups(), "samples", notes)
        # Of tables that were there before, perhaps by an older membench: it is written anew
        with disk_errors(self.path, what="report.html"):
            (self.path / "report.html").unlink(missing_ok=True)
        self._record(info)
        self.cleanup_shards()

    def cleanup_shards(self) -> None:
        """Deletes the shards: their rows are in the tables."""
        shutil.rmtree(self.path / "shards", ignore_errors=True)


def _cost(shard: Path) -> dict[str, float]:
    """What a shard cost. Raises DamagedFile for one that does not say."""
    try:
        cost = json.loads(read_notes(shard).get("cost", ""))
    except (ValueError, RecursionError):
        cost = None
    if not isinstance(cost, dict) or not all(map(is_amount, cost.values())):
        raise DamagedFile(f"{shard} is damaged (it does not say what it cost); delete it")
    return cost
