"""The hub, and the only code that opens a connection (wheel.py lets pip open one).

`huggingface_hub` owns address (HF_ENDPOINT), token (HF_TOKEN), proxies and what the hub's errors mean. Files are
received here, because its own downloads begin anew in each process, check no sha256, and describe this machine.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status

from octavo import __version__
from octavo.errors import PullError, UnreachableError
from octavo.pull.catalogue import Reference
from octavo.pull.files import HubFile
from octavo.storage import storage_errors

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUSY = (408, 429, 500, 502, 503, 504)
_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further try, as long as tries bring nothing."""


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """A hub that speaks the protocol of huggingface.co."""

    def __init__(self) -> None:
        self.endpoint = constants.ENDPOINT

    def snapshot(self, reference: Reference) -> Snapshot:
        """What the repository holds at that revision. Raises PullError; UnreachableError where nobody answered."""
        revision = quote(reference.revision, safe="")
        with self._told(reference):
            response = get_session().get(
                f"{self.endpoint}/api/models/{reference.repository}/revision/{revision}",
                params={"blobs": "true"},
                headers=self._headers(),
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
            hf_raise_for_status(response)
        try:
            values = response.json()
            commit = values["sha"]
            files = tuple(_hub_file(file) for file in values["siblings"])
            if not _COMMIT.fullmatch(commit):
                raise ValueError(f"{commit!r} is no commit")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PullError(
                f"{self.endpoint} does not answer as a hub does ({error!r}): check HF_ENDPOINT and the proxy"
            ) from error
        return Snapshot(reference.repository, commit, files)

    def fetch(self, snapshot: Snapshot, file: HubFile, folder: Path, arrived: Callable[[int], None]) -> None:
        """Receive a file into `folder`, going on where an earlier try ended; it gets its name once it is verified.

        `arrived` is told how many of its bytes are here. Raises PullError, StorageError.
        """
        path = folder / file.local_name
        if path.is_file() and path.stat().st_size == file.bytes:
            arrived(file.bytes)
            return
        part = path.with_name(f"{path.name}.part")
        tries = 0
        while True:
            before = _size(part)
            try:
                # The hub's errors are OSErrors too, so they are told apart first.
                with storage_errors(part), self._told(Reference(snapshot.repository)):
                    self._receive(
                        f"{snapshot.repository}/resolve/{snapshot.commit}/{quote(file.name)}", file, part, arrived
                    )
                break
            except UnreachableError as error:
                tries = 1 if _size(part) > before else tries + 1
                if tries > len(_WAITS_SECONDS):
                    raise UnreachableError(
                        f"{error}; {_size(part):,} of {file.bytes:,} bytes of {file.name} are kept: "
                        "the same command goes on from there"
                    ) from error
                time.sleep(_WAITS_SECONDS[tries - 1])
        file.check(part, self.endpoint)
        with storage_errors(path):
            os.replace(part, path)

    def _receive(self, place: str, file: HubFile, part: Path, arrived: Callable[[int], None]) -> None:
        """One request: what is missing of `file`, appended to `part`."""
        have = _size(part)
        if have > file.bytes:  # of another file, by whatever accident
            have = 0
        elif have == file.bytes and part.exists():
            return
        headers = self._headers() | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", f"{self.endpoint}/{place}", headers=headers, timeout=timeout) as response:
            if response.status_code == 416:
                part.unlink()
                raise UnreachableError(f"{self.endpoint} does not go on from byte {have}")
            hf_raise_for_status(response)
            if response.status_code != 206:  # the whole file comes, whatever was asked for
                have = 0
            with open(part, "r+b" if have else "wb") as output:
                output.seek(have)
                arrived(have)
                for chunk in response.iter_bytes():
                    have += len(chunk)
                    if have > file.bytes:
                        break
                    output.write(chunk)
                    arrived(have)
                output.flush()
                os.fsync(output.fileno())
        if have > file.bytes:
            part.unlink()
            raise PullError(
                f"{file.name}: more than the {file.bytes:,} bytes that {self.endpoint} states; it was removed"
            )
        if have < file.bytes:
            raise UnreachableError(f"{self.endpoint} ended the transfer early")

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"octavo/{__version__}"}
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        return headers | ({"Authorization": f"Bearer {token}"} if token else {})

    @contextmanager
    def _told(self, reference: Reference) -> Iterator[None]:
        """Errors of a request, in one line that says what to do."""
        repository = reference.repository
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise UnreachableError(f"{self.endpoint} may not be asked: HF_HUB_OFFLINE is set") from error
        except GatedRepoError as error:
            raise PullError(
                f"{repository} wants its licence accepted: do so at {self.endpoint}/{repository}, then set HF_TOKEN to "
                f"a token of that account ({self.endpoint}/settings/tokens)"
            ) from error
        except RepositoryNotFoundError as error:
            raise PullError(
                f"{self.endpoint} has no repository {repository}, or shows it to its owner only: check the name; if it "
                "is private or gated, set HF_TOKEN to a token that may read it"
            ) from error
        except RevisionNotFoundError as error:
            raise PullError(f"{repository} has no revision {reference.revision!r}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in _BUSY:
                raise UnreachableError(f"{self.endpoint} is busy (status {status})") from error
            if status == 401:
                raise PullError(
                    f"{self.endpoint} does not accept the token: set HF_TOKEN to a valid one, or unset it"
                ) from error
            raise PullError(f"{self.endpoint} refuses {repository} (status {status})") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreachableError(f"{self.endpoint} was not reached ({reason})") from error


def _hub_file(values: dict[str, Any]) -> HubFile:
    lfs = values.get("lfs")
    return HubFile(
        name=values["rfilename"],
        bytes=int(values["size"]),
        sha256=lfs["sha256"] if lfs else None,
        git_sha1=None if lfs else values["blobId"],
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
