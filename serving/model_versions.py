"""The versions of a served model: found on disk, loaded, served, and released."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2

from fcnseg.errors import ModelError, one_line
from fcnseg.saved_model.session import SavedModelSession, StatusError

logger = logging.getLogger(__name__)

# TensorFlow Serving's defaults: --max_num_load_retries and --load_retry_interval_micros.
LOAD_RETRIES = 5
LOAD_RETRY_INTERVAL_S = 60.0

_MAX_VERSION = 2**63 - 1  # int64 in the API

State = get_model_status_pb2.ModelVersionStatus.State


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of a version, as `GetModelStatus` reports it.

    Attributes:
        state: LOADING, AVAILABLE or END.
        error_code: Name of a canonical code, `OK` if nothing went wrong.
        error_message: Reason why it could not be loaded.
    """

    state: int
    error_code: str = "OK"
    error_message: str = ""


_Files = frozenset[tuple[str, int, int]]  # name, bytes, time of the last change


@dataclasses.dataclass(frozen=True)
class _Failure:
    """A version that could not be loaded.

    Attributes:
        attempts: Number of attempts with these files.
        at: Time of the last attempt, by the monotonic clock.
        files: Files in its folder at that time.
        seen: Files in its folder at the last poll.
    """

    attempts: int
    at: float
    files: _Files
    seen: _Files


class ModelVersions:
    """Serves the newest version in a folder whose children are named by integers.

    A new version is loaded before the old one is released, and requests that run on the old one
    finish on it. One that cannot be loaded is retried: some times at an interval, and whenever its
    files have changed and then rested from one poll to the next, as at the end of a copy. `poll`
    belongs to one thread, `session` and `statuses` to any.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        *,
        load_retries: int = LOAD_RETRIES,
        load_retry_interval_s: float = LOAD_RETRY_INTERVAL_S,
    ) -> None:
        """Starts without versions; `poll` finds them.

        Args:
            name: Name of the model in requests.
            base_path: Folder of the versions.
            load_retries: Maximum number of retries of a version whose files do not change.
            load_retry_interval_s: Seconds between these retries.
        """
        self.name = name
        self.base_path = base_path
        self._statuses: dict[int, VersionStatus] = {}
        self._load_retries = load_retries
        self._load_retry_interval_s = load_retry_interval_s
        self._failures: dict[int, _Failure] = {}
        self._served: tuple[int, SavedModelSession] | None = None
        self._stopped = threading.Event()

    def poll(self) -> None:
        """Loads the newest version if it is not being served."""
        folders = _version_folders(self.base_path)
        self._failures = {v: failure for v, failure in self._failures.items() if v in folders}
        if not folders:
            logger.warning("no version of %s in %s", self.name, self.base_path)
            return
        newest = max(folders)
        if self._served is not None and self._served[0] == newest:
            return
        files = _files(folders[newest])
        if self._is_due(newest, files):
            self._load(newest, folders[newest], files)

    def poll_until_stopped(self, interval_s: float) -> None:
        """Polls every `interval_s` seconds until `stop` is called."""
        while not self._stopped.wait(interval_s):
            self._poll_or_log()

    def stop(self) -> None:
        """Ends `poll_until_stopped`."""
        self._stopped.set()

    def session(self, name: str, version: int | None = None) -> tuple[int, SavedModelSession]:
        """Gives the model that a request asks for.

        Args:
            name: The model's name.
            version: A version, or None for the newest.

        Returns:
            The version and its loaded model.

        Raises:
            StatusError: If it is not served.
        """
        _check_name(name)
        served = self._served
        if name != self.name or served is None or version not in (None, served[0]):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise StatusError("NOT_FOUND", f"Servable not found for request: {wanted}")
        return served

    def statuses(self, name: str, version: int | None = None) -> dict[int, VersionStatus]:
        """Gives the states of versions: one, or all versions so far.

        Raises:
            StatusError: If the model or the version is unknown.
        """
        _check_name(name)
        known = self._statuses if name == self.name else {}
        if version is None and not known:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in known:
            raise StatusError("NOT_FOUND", f"Could not find version {version} of model {name}")
        return known if version is None else {version: known[version]}

    def failures(self) -> list[str]:
        """Gives the reasons why versions could not be loaded."""
        return [status.error_message for status in self._statuses.values() if status.error_message]

    def _poll_or_log(self) -> None:
        try:
            self.poll()
        except Exception:  # otherwise no version would ever be found again
            logger.exception("the versions of %s could not be looked at", self.name)

    def _is_due(self, version: int, files: _Files) -> bool:
        """Tells whether a version whose folder contains these files is to be loaded now."""
        failure = self._failures.get(version)
        if failure is None:
            return True
        if files == failure.files:
            is_time = time.monotonic() - failure.at >= self._load_retry_interval_s
            return is_time and failure.attempts <= self._load_retries
        if files == failure.seen:
            del self._failures[version]
            return True
        self._failures[version] = dataclasses.replace(failure, seen=files)
        return False

    def _load(self, version: int, folder: Path, files: _Files) -> None:
        """Loads and serves a version, or records why it cannot be."""
        self._set(version, VersionStatus(State.LOADING))
        try:
            session = SavedModelSession(folder)
        except Exception as error:  # an incomplete file may cause any error
            code = "INVALID_ARGUMENT" if isinstance(error, ModelError) else "INTERNAL"
            self._note_failure(version, files, code, one_line(error))
        else:
            self._failures.pop(version, None)
            self._serve(version, session)

    def _note_failure(self, version: int, files: _Files, code: str, reason: str) -> None:
        before = self._failures.get(version)
        attempts = 1 if before is None else before.attempts + 1
        self._failures[version] = _Failure(attempts, time.monotonic(), files, files)
        self._set(version, VersionStatus(State.END, code, reason))
        logger.error(
            "version %d of %s is not served: %s (try %d of %d; it begins again when files change)",
            version,
            self.name,
            reason,
            attempts,
            self._load_retries + 1,
        )

    def _serve(self, version: int, session: SavedModelSession) -> None:
        """Replaces the version before, which its last request closes."""
        before, self._served = self._served, (version, session)
        self._set(version, VersionStatus(State.AVAILABLE))
        logger.info("version %d of %s is served", version, self.name)
        if before is not None:
            self._set(before[0], VersionStatus(State.END))

    def _set(self, version: int, status: VersionStatus) -> None:
        # Readers in other threads hold the old dictionary, which is never modified.
        self._statuses = {**self._statuses, version: status}


def _check_name(name: str) -> None:
    if not name:
        raise StatusError("INVALID_ARGUMENT", "ModelSpec has no name specified.")


def _version_folders(base_path: Path) -> dict[int, Path]:
    if not base_path.is_dir():
        return {}
    try:
        children = [child for child in base_path.iterdir() if child.is_dir()]
    except OSError as error:
        logger.error("the folder of versions cannot be read: %s", one_line(error))
        return {}
    numbers = {
        int(child.name): child
        for child in children
        if child.name.isascii() and child.name.isdecimal()
    }
    return {number: child for number, child in numbers.items() if number <= _MAX_VERSION}


def _files(folder: Path) -> _Files:
    """The files in a folder, with all facts that reveal an unfinished copy."""
    found = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # it was deleted meanwhile
                status = path.stat()
                found.add((str(path), status.st_size, status.st_mtime_ns))
    return frozenset(found)
