"""Models on the Hugging Face hub: ids, downloads into its cache, and uploads; errors are one sentence.

A model is given as a folder, as ``user/name`` or as ``user/name@revision``; a folder that exists wins, in the working
directory or shipped with the code (``utils.paths``). The cache, the token, HF_HUB_OFFLINE and HF_ENDPOINT are those of
``huggingface_hub``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from utils.errors import InputError, reason_of, shown
from utils.paths import find_shipped

LOG_IN = "log in with `hf auth login`"


class HubId(NamedTuple):
    """Name of a repository on the hub, with a branch, tag or commit."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def parse_hub_id(source: str | Path) -> HubId | None:
    """Return the hub id that ``source`` spells, user/name or user/name@revision; None if it is a path.

    A relative path whose first folder exists is a mistyped path, unless it names a revision.
    """
    repository, at, revision = str(source).partition("@")
    user, _, name = repository.partition("/")
    if os.path.exists(find_shipped(source)) or not (user and name) or "/" in name or (at and not revision):
        return None
    if not at and os.path.exists(user):
        return None
    try:
        validate_repo_id(repository)
    except HFValidationError:
        return None
    return HubId(repository, revision or None)


def check_source(source: str | Path, kind: str) -> None:
    """Raise InputError unless ``source`` is a folder or a hub id.

    Args:
        kind: Noun of what is expected there, for the message: "checkpoint".
    """
    if not os.path.isdir(find_shipped(source)) and parse_hub_id(source) is None:
        raise InputError(
            f"there is no {kind} folder {shown(source, 200)}; give a folder, or the id user/name of a model on the "
            "Hugging Face hub"
        )


def find_folder(source: str | Path, files: Sequence[str], kind: str, revision: str | None = None, **download) -> Path:
    """Return a folder that exists, or the folder in the cache of a repository of the hub, downloaded if needed.

    Args:
        source: Folder or hub id.
        files: Patterns of the files to download; no others are.
        kind: Noun of what is expected there, for the message: "checkpoint".
        revision: Branch, tag or commit, in place of one in ``source``.
        download: More arguments of ``huggingface_hub.snapshot_download``.

    Raises:
        InputError: it is neither, or it cannot be downloaded and is not in the cache.
    """
    check_source(source, kind)
    if (hub_id := parse_hub_id(source)) is None:
        if revision is not None:
            raise InputError(f"{shown(source, 200)} is a folder, which has no revision {revision}; leave one out")
        return find_shipped(source)
    if revision is not None:
        hub_id = hub_id._replace(revision=revision)
    with hub_errors(hub_id, f"there is no {kind} folder {shown(hub_id, 120)}, and "):
        return Path(
            snapshot_download(hub_id.repository, revision=hub_id.revision, allow_patterns=list(files), **download)
        )


def upload_files(
    files: Mapping[str, Path | bytes],
    hub_id: HubId,
    replaced: Sequence[str],
    private: bool = False,
    message: str = "Upload model",
    token: str | None = None,
) -> str:
    """Upload files in one commit, and create the repository and the branch if they do not exist.

    Args:
        files: Path or content of each file, by its name in the repository.
        hub_id: Repository; its revision is a branch.
        replaced: Patterns of files that are removed from the repository unless they are in ``files``.
        private: Make the repository private if it is created.
        message: Message of the commit.
        token: Access token; by default, that of ``hf auth login``.

    Returns:
        Address of the commit.

    Raises:
        InputError: the hub refuses it or cannot be reached.
    """
    api = HfApi(token=token)
    repository, branch = hub_id
    with hub_errors(hub_id):
        api.create_repo(repository, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        stale = [
            name
            for name in api.list_repo_files(repository, revision=branch)
            if name not in files and any(fnmatch(name, pattern) for pattern in replaced)
        ]
        changes: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in stale]
        changes += [CommitOperationAdd(name, str(f) if isinstance(f, Path) else f) for name, f in files.items()]
        return str(api.create_commit(repository, changes, commit_message=message, revision=branch).commit_url)


@contextmanager
def hub_errors(hub_id: HubId, before: str = "") -> Iterator[None]:
    """Turn every exception of ``huggingface_hub`` about a repository into an InputError of one sentence.

    Args:
        hub_id: Repository.
        before: Beginning of the sentence if there is no such repository or the hub cannot be reached.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library lets many kinds of its HTTP client through
        raise InputError(_sentence(hub_id, error, before)) from error


def _sentence(hub_id: HubId, error: BaseException, before: str) -> str:
    """Describe an error of the hub, and the remedy."""
    name, hub = shown(hub_id, 120), f"the hub {constants.ENDPOINT}"
    if isinstance(error, LocalEntryNotFoundError):  # not in the cache, and the hub gives this reason
        error = error.__cause__ or OfflineModeIsEnabled()
    match error:
        case GatedRepoError():
            page = f"{constants.ENDPOINT}/{hub_id.repository}"
            return f"{name} is gated on the Hugging Face hub: accept its conditions on {page}, and {LOG_IN}"
        case RepositoryNotFoundError():
            return f"{before}{hub} has no model {name}, or it is private: check the name, or {LOG_IN}"
        case RevisionNotFoundError():
            return f"{hub_id.repository} has no revision {shown(hub_id.revision, 60)}; give a branch, tag or commit"
        case LocalTokenNotFoundError():
            return f"{name} needs an access token of {hub}: {LOG_IN}"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"{hub} does not permit access to {name}: {LOG_IN} with a token that permits it"
        case HfHubHTTPError():
            return f"{hub} answers with status {error.response.status_code} about {name}; try again later"
        case OfflineModeIsEnabled():
            return f"{before}HF_HUB_OFFLINE forbids to download {name}, which is not in the cache; unset it"
        case OSError(errno=int()) if not isinstance(error, ConnectionError):
            return f"{name} cannot be stored in {constants.HF_HUB_CACHE} ({reason_of(error)}); free some space there"
        case ValueError():
            return f"{hub} refuses {name}: {shown(' '.join(str(error).split()), 200)}; correct it"
    reason = shown(" ".join(str(error).split()) or type(error).__name__, 100)
    return f"{before}{hub} cannot be reached for {name} ({reason}); check the path and the network"
