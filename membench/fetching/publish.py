"""A leaderboard on the Hugging Face hub: a data set repository of one Parquet file and
its card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from membench.errors import UserError
from membench.fetching import net

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_repository(name: str) -> None:
    """Raises :class:`UserError` for what is not ``OWNER/NAME``."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--push-to-hub {name[:60]}: it must be OWNER/NAME, a data set repository")


def push(name: str, files: Mapping[str, Path], *, message: str) -> str:
    """Uploads files, by their names in the repository, in one commit; makes the
    repository if it is not there. Returns its address.

    Raises :class:`UserError` without a token, when offline, and where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(name)
    if net.offline():
        raise UserError(f"--push-to-hub {name}: the network is forbidden (--offline)")
    if get_token() is None:
        raise UserError(
            f"--push-to-hub {name}: there is no token; hf auth login, or set HF_TOKEN to one that"
            " may write"
        )
    api = HfApi()
    adds = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
    try:
        api.create_repo(name, repo_type="dataset", exist_ok=True)
        api.create_commit(name, adds, commit_message=message, repo_type="dataset")
    except (HfHubHTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--push-to-hub {name}: the hub refused: {first}") from error
    return f"https://huggingface.co/datasets/{name}"
