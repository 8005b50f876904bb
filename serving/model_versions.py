"""The versions of a served model: found on disk, loaded, served, and released."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2

from fcnseg.errors import ModelError, one_line
from fcnseg.saved_model.session import SavedModelSession, StatusError
from fcnseg.saved_model.versions import list_versions

logger = logging.getLogger(__name__)

# TensorFlow Serving's defaults: --max_num_load_retries and --load_retry_interval_micros.
LOAD_RETRIES = 5
LOAD_RETRY_INTERVAL_S = 60.0

_WARNING_INTERVAL_S = 60.0  # between two warnings of a folder that has no versions

State = get_model_status_pb2.ModelVersionStatus.State

Policy = Callable[[Collection[int]], Collection[int]]
"""Chooses the versions to serve among those that are there."""


def latest(versions: Collection[int], *, number: int = 1) -> Collection[int]:
    """Chooses the newest versions."""
    return sorted(versions)[-number:]


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """Settings of the loading of a version.

    Attributes:
        retries: Maximum number of retries of a version whose files do not change.
        retry_interval_s: Seconds between these retries.
        load: Makes a session of a folder; an error of any type is a failed load.
    """

    retries: int = LOAD_RETRIES
    retry_interval_s: float = LOAD_RETRY_INTERVAL_S
    load: Callable[[Path], SavedModelSession] | None = None


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of a version, as `GetModelStatus` reports it.

    Attributes:
        state: LOADING, AVAILABLE, UNLOADING or END.
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
        at: Time of the last attempt, or of a change of its files, by the monotonic clock.
        files: Files in its folder at that time.
        seen: Files in its folder at the last poll.
    """

    attempts: int
    at: float
    files: _Files
    seen: _Files


class _Loaded:
    """A session that is closed once it is retired and its last call has ended."""

    def __init__(self, session: SavedModelSession, closed: Callable[[_Loaded], None]) -> None:
        self.session = session
        self._closed = closed
        self._lock = threading.Lock()
        self._calls = 0
        self._is_retired = False

    def enter(self) -> bool:
        """Counts a call; false if the session is no longer for use."""
        with self._lock:
            if self._is_retired:
                return False
            self._calls += 1
            return True

    def leave(self) -> None:
        """Counts a call that has ended."""
        with self._lock:
            self._calls -= 1
            is_last = self._is_retired and not self._calls
        if is_last:
            self._close()

    def retire(self) -> None:
        """Takes no further call."""
        with self._lock:
            was_retired, self._is_retired = self._is_retired, True
            is_idle = not self._calls
        if is_idle and not was_retired:
            self._close()

    def cancel(self) -> None:
        """Ends the calls that still run."""
        self.session.close()

    def _close(self) -> None:
        self.session.close()
        self._closed(self)


class ModelVersions:
    """Serves versions in a folder whose children are named by integers, by default the newest.

    A new version is loaded before the old one is released, and calls that run on the old one end
    on it, the last of which closes it. One that cannot be loaded is retried: some times at an
    interval, and whenever its files have changed and then rested from one poll to the next, as at
    the end of a copy. One whose folder is removed is released; if the base path cannot be read,
    all stay. `poll`, `retry` and `release_all` belong to one thread, all else to any.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        *,
        policy: Policy = latest,
        options: LoadOptions | None = None,
    ) -> None:
        """Starts without versions; `poll` finds them.

        Args:
            name: Name of the model in requests.
            base_path: Folder of the versions.
            policy: Chooses the versions to serve.
            options: How a version is loaded.
        """
        self.name = name
        self.base_path = base_path
        self.policy = policy
        self._options = options or LoadOptions()
        self._statuses: dict[int, VersionStatus] = {}
        self._statuses_lock = threading.Lock()
        self._failures: dict[int, _Failure] = {}
        self._found: dict[int, Path] = {}
        self._is_loading = False
        self._served: dict[int, _Loaded] = {}
        self._retired: set[_Loaded] = set()  # with calls that still run
        self._warned_at = -_WARNING_INTERVAL_S

    def poll(self) -> None:
        """Loads the versions that the policy chooses, then releases the others."""
        folders = self._folders()
        if folders is not None:
            self._found = folders
            self.retry()

    def retry(self) -> None:
        """Does the same with the versions that the last poll found."""
        self._is_loading = True
        try:
            self._serve(self._found)
        finally:
            self._is_loading = False

    def _serve(self, folders: dict[int, Path]) -> None:
        wanted = self.policy(folders) if folders else ()
        self._failures = {
            v: failure for v, failure in self._failures.items() if v in folders and v in wanted
        }
        for version in sorted(set(wanted) & set(folders) - set(self._served)):
            files = _files(folders[version])
            if self._is_due(version, files):
                self._load(version, folders[version], files)
        if not wanted or set(wanted) & set(self._served):
            for version in sorted(set(self._served) - set(wanted)):
                self._release(version)

    def release_all(self) -> None:
        """Takes no further calls: the model is no longer to be served, unless it comes back."""
        self._failures = {}
        for version in sorted(self._served):
            self._release(version)

    def cancel_calls(self) -> None:
        """Ends the calls that still run, on versions that are no longer served too."""
        for loaded in (*self._served.values(), *tuple(self._retired)):
            loaded.cancel()

    @property
    def is_available(self) -> bool:
        """True if a version is served, and no other one is about to be."""
        return bool(self._served) and not self._is_loading

    @property
    def served_versions(self) -> list[int]:
        """The versions that are served."""
        return sorted(self._served)

    @property
    def has_failed(self) -> bool:
        """True if nothing is served, and no version will be tried again as it is."""
        is_over = [f.attempts > self._options.retries for f in list(self._failures.values())]
        return not self._served and not self._is_loading and bool(is_over) and all(is_over)

    @property
    def next_retry_s(self) -> float:
        """Seconds until a version is to be tried again as it is; infinite if none is."""
        retries, interval_s = self._options.retries, self._options.retry_interval_s
        times = [f.at + interval_s for f in self._failures.values() if f.attempts <= retries]
        return min(times, default=math.inf) - time.monotonic()

    def session(self, name: str, version: int | None = None) -> tuple[int, SavedModelSession]:
        """Gives the model that a request asks for, to read its signatures.

        Args:
            name: The model's name.
            version: A version, or None for the newest.

        Returns:
            The version and its loaded model.

        Raises:
            StatusError: If it is not served.
        """
        found, loaded = self._loaded(name, version)
        return found, loaded.session

    @contextlib.contextmanager
    def call(self, version: int | None) -> Iterator[tuple[int, SavedModelSession]]:
        """Gives the model that a call runs on, which stays open to its end.

        Raises:
            StatusError: If it is not served.
        """
        found, loaded = self._loaded(self.name, version)
        while not loaded.enter():  # it was released at this moment: another one is served
            found, loaded = self._loaded(self.name, version)
        try:
            yield found, loaded.session
        finally:
            loaded.leave()

    def statuses(self, name: str, version: int | None = None) -> dict[int, VersionStatus]:
        """Gives the states of all versions so far, or of one.

        Raises:
            StatusError: If the model or the version is unknown.
        """
        known = self._statuses if name == self.name else {}
        if version is None and not known:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in known:
            raise StatusError("NOT_FOUND", f"Could not find version {version} of model {name}")
        return known if version is None else {version: known[version]}

    def failures(self) -> list[str]:
        """Gives the reasons why versions could not be loaded."""
        return [status.error_message for status in self._statuses.values() if status.error_message]

    def _loaded(self, name: str, version: int | None) -> tuple[int, _Loaded]:
        served = self._served if name == self.name else {}
        found = max(served, default=None) if version is None else version
        if found is None or found not in served:
            raise not_found(name, version)
        return found, served[found]

    def _folders(self) -> dict[int, Path] | None:
        """The folders of versions; None if the base path cannot be read."""
        folders = _version_folders(self.base_path)
        is_time = time.monotonic() - self._warned_at >= _WARNING_INTERVAL_S
        if not folders and is_time:
            self._warned_at = time.monotonic()
            logger.warning("no version of %s in %s", self.name, self.base_path)
        return folders

    def _is_due(self, version: int, files: _Files) -> bool:
        """Tells whether a version whose folder contains these files is to be loaded now."""
        failure = self._failures.get(version)
        if failure is None:
            return True
        if files == failure.files:
            is_time = time.monotonic() - failure.at >= self._options.retry_interval_s
            return is_time and failure.attempts <= self._options.retries
        if files == failure.seen:
            del self._failures[version]
            return True
        self._failures[version] = dataclasses.replace(failure, seen=files, at=time.monotonic())
        return False

    def _load(self, version: int, folder: Path, files: _Files) -> None:
        """Loads and serves a version, or records why it cannot be."""
        self._set(version, VersionStatus(State.LOADING))
        try:
            session = (self._options.load or SavedModelSession)(folder)
        except Exception as error:  # an incomplete file may cause any error
            is_expected = isinstance(error, ModelError | StatusError)
            code = "INVALID_ARGUMENT" if is_expected else "INTERNAL"
            self._note_failure(version, files, code, one_line(error))
        else:
            self._failures.pop(version, None)
            loaded = _Loaded(session, closed=functools.partial(self._note_closed, version))
            self._served = {**self._served, version: loaded}
            self._set(version, VersionStatus(State.AVAILABLE))
            logger.info("version %d of %s is served", version, self.name)

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
            self._options.retries + 1,
        )

    def _release(self, version: int) -> None:
        loaded = self._served[version]
        self._served = {v: other for v, other in self._served.items() if v != version}
        self._set(version, VersionStatus(State.UNLOADING))
        self._retired.add(loaded)
        loaded.retire()
        logger.info("version %d of %s is no longer served", version, self.name)

    def _note_closed(self, version: int, loaded: _Loaded) -> None:
        self._retired.discard(loaded)
        if self._statuses[version].state == State.UNLOADING:  # else it was loaded again meanwhile
            self._set(version, VersionStatus(State.END))

    def _set(self, version: int, status: VersionStatus) -> None:
        # Readers in other threads hold the old dictionary, which is never modified.
        with self._statuses_lock:
            self._statuses = {**self._statuses, version: status}


def not_found(name: str, version: int | None) -> StatusError:
    """Makes the error of a version that is not served, None for the newest."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError("NOT_FOUND", f"Servable not found for request: {wanted}")


def _version_folders(base_path: Path) -> dict[int, Path] | None:
    try:
        return list_versions(base_path)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.error("the folder of versions cannot be read: %s", one_line(error))
        return None


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
