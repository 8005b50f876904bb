"""The versions of one served model: found on disk, loaded, served, and let go."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2

from fcnseg.errors import ModelError
from fcnseg.saved_model import SavedModelSession, StatusError

logger = logging.getLogger(__name__)

State = get_model_status_pb2.ModelVersionStatus.State


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """Where a version stands, as `GetModelStatus` tells it.

    Attributes:
        state: LOADING, AVAILABLE or END.
        error_code: Name of a canonical code, `OK` if nothing went wrong.
        error_message: Why it could not be loaded.
    """

    state: int
    error_code: str = "OK"
    error_message: str = ""


class ModelVersions:
    """Serves the newest version in a folder whose children are named by integers.

    A new version is loaded before the old one is let go, and requests that run on the old one end
    on it. `poll` belongs to one thread, `session` and `statuses` to any.
    """

    def __init__(self, name: str, base_path: Path) -> None:
        """Knows no version until `poll` is called.

        Args:
            name: Name that requests ask for.
            base_path: Folder of the versions.
        """
        self.name = name
        self.base_path = base_path
        self._statuses: dict[int, VersionStatus] = {}
        self._served: tuple[int, SavedModelSession] | None = None
        self._stopped = threading.Event()

    def poll(self) -> None:
        """Loads the newest version if it is not the one that is served."""
        folders = _version_folders(self.base_path)
        if not folders:
            logger.warning("no version of %s in %s", self.name, self.base_path)
            return
        newest = max(folders)
        status = self._statuses.get(newest)
        if status and (status.state == State.AVAILABLE or status.error_code != "OK"):
            return
        self._set(newest, VersionStatus(State.LOADING))
        try:
            session = SavedModelSession(folders[newest])
        except ModelError as error:
            logger.error("version %d of %s is not served: %s", newest, self.name, error)
            self._set(newest, VersionStatus(State.END, "INVALID_ARGUMENT", str(error)))
            return
        self._serve(newest, session)

    def poll_until_stopped(self, interval_s: float) -> None:
        """Polls every `interval_s` seconds until `stop` is called."""
        while not self._stopped.wait(interval_s):
            self.poll()

    def stop(self) -> None:
        """Ends `poll_until_stopped`."""
        self._stopped.set()

    def session(self, name: str, version: int | None = None) -> tuple[int, SavedModelSession]:
        """The model that a request asks for.

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
        """Where versions stand: one, or all that were ever known.

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
        """Why versions could not be loaded."""
        return [status.error_message for status in self._statuses.values() if status.error_message]

    def _serve(self, version: int, session: SavedModelSession) -> None:
        """Puts a version in the place of the one before, which its last request closes."""
        before, self._served = self._served, (version, session)
        self._set(version, VersionStatus(State.AVAILABLE))
        logger.info("version %d of %s is served", version, self.name)
        if before is not None:
            self._set(before[0], VersionStatus(State.END))

    def _set(self, version: int, status: VersionStatus) -> None:
        # Readers in other threads hold the old dictionary, which never changes.
        self._statuses = {**self._statuses, version: status}


def _check_name(name: str) -> None:
    if not name:
        raise StatusError("INVALID_ARGUMENT", "ModelSpec has no name specified.")


def _version_folders(base_path: Path) -> dict[int, Path]:
    if not base_path.is_dir():
        return {}
    children = [child for child in base_path.iterdir() if child.is_dir()]
    return {int(child.name): child for child in children if child.name.isdecimal()}
