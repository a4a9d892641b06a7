"""What the hub says when it refuses, as one line with a way out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from membench.errors import UserError
from membench.fetching import net

HOME = "https://huggingface.co"
T = TypeVar("T")


def ask_hub(kind: str, repo_id: str, revision: str, advice: str, call: Callable[[], T]) -> T:
    """What ``call`` returns; what the hub refuses becomes one line."""
    from huggingface_hub import errors

    what = repo_name(kind, repo_id, revision)
    page = page_of(kind, repo_id)
    try:
        return call()
    except errors.GatedRepoError:
        line = (
            f"{what} is gated: accept its terms at {page}, then log in (`hf auth login`) or set"
            " HF_TOKEN"
        )
    except errors.RepositoryNotFoundError:
        line = (
            f"the hub has no {kind} {repo_id}, or it is private (the hub does not tell): see"
            f" {page}; for a private one, `hf auth login`"
        )
    except errors.DisabledRepoError:
        line = f"{what} cannot be fetched: its repository is disabled on the hub"
    except errors.RevisionNotFoundError:
        line = f"{kind} {repo_id} has no revision {revision or 'main'}: see {page}/commits"
    # The hub's word for: not cached, and asking failed
    except errors.LocalEntryNotFoundError as error:
        line = f"{what} cannot be fetched: {_cause(error.__cause__ or error)}"
    except errors.EntryNotFoundError:
        line = f"{what} lacks a file that it lists; try again later, or see {page}"
    except errors.OfflineModeIsEnabled:
        line = f"{what} is not in the hub's cache, {why_not()}"
    # HTTPError: the base of the client's own, connections and time-outs among them
    except (errors.HTTPError, OSError) as error:
        line = f"{what} cannot be fetched: {_cause(error)}"
    raise UserError(line + advice_line(advice)) from None


def _cause(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    if response is not None:
        status = response.status_code
        if status == 401:
            return (
                "the hub rejects the token (HTTP 401): log in anew (`hf auth login`) or mend"
                " HF_TOKEN"
            )
        return f"the hub answers HTTP {status} {response.reason_phrase}".rstrip() + (
            "; try again later" if status >= 500 or status == 429 else ""
        )
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EROFS,
        errno.EPERM,
    ):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; make room, or set HF_HOME to another folder"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{HOME.removeprefix('https://')} cannot be reached ({first})"


def is_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def at_revision(repo_id: str, revision: str) -> str:
    return f"{repo_id}@{revision}" if revision else repo_id


def repo_name(kind: str, repo_id: str, revision: str) -> str:
    return f"{kind} {at_revision(repo_id, revision)}"


def page_of(kind: str, repo_id: str) -> str:
    return f"{HOME}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"


def why_not() -> str:
    return "and --offline forbids to fetch it" if net.offline() else "and it was not to be fetched"


def advice_line(advice: str) -> str:
    return f"; {advice}" if advice else ""
