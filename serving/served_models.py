"""All models of a server: added, changed and taken away by a `ModelServerConfig`."""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from fcnseg.saved_model.session import StatusError

from .admission import Call
from .model_versions import LoadOptions, ModelVersions, Policy, State, latest
from .statuses import invalid, stopping

logger = logging.getLogger(__name__)

PLATFORM = "tensorflow"
_WAIT_S = 0.05  # between looks at models that are being loaded

ModelServerConfig: TypeAlias = model_server_config_pb2.ModelServerConfig


def config_of_one(name: str, base_path: Path) -> ModelServerConfig:
    """Makes the configuration of a server of one model."""
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path.absolute()), model_platform=PLATFORM
    )
    return config


_OTHER_CONFIG = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList"
    " to another."
)


class ServedModels:
    """The models of a server, by name, and the labels of their versions."""

    def __init__(
        self, options: LoadOptions | None = None, *, allow_labels_of_unavailable: bool = False
    ) -> None:
        """Starts without models; `reload` adds them.

        Args:
            options: How a version is loaded.
            allow_labels_of_unavailable: Let a new label name a version that is not served yet.
        """
        self._options = options
        self._allow_labels_of_unavailable = allow_labels_of_unavailable
        self._lock = threading.Lock()  # of `reload`
        self._config = ModelServerConfig()
        self._models: dict[str, ModelVersions] = {}
        self._ended: dict[str, ModelVersions] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._is_stopped = threading.Event()
        self._is_changed = threading.Event()  # or stopped

    def reload(self, config: ModelServerConfig) -> None:
        """Serves the models of a configuration instead of those before, from the next poll on.

        Raises:
            StatusError: If it is not a list of models that can be served, a label names a version
                that is not served, or it is empty and another came before.
        """
        _check(config)
        with self._lock:
            before, now = (each.WhichOneof("config") for each in (self._config, config))
            if before is not None and now != before:
                raise StatusError("FAILED_PRECONDITION", _OTHER_CONFIG)
            listed = config.model_config_list.config
            self._labels = self._checked_labels(listed)
            models = {entry.name: self._model(entry) for entry in listed}
            known = {**self._ended, **self._models}
            self._models = models
            self._ended = {name: model for name, model in known.items() if name not in models}
            if config != self._config:
                self._config = config
                self._is_changed.set()

    def poll(self) -> None:
        """Looks for new versions of all models; a fault of one is logged."""
        for model in list(self._ended.values()):
            model.release_all()
        for model in list(self._models.values()):
            _do_or_log(model.poll, model.name)

    def wait_until_available(
        self, names: Collection[str] | None = None, call: Call | None = None
    ) -> None:
        """Waits until each model has a version, as those that poll find them.

        Args:
            names: Names of models; all if None.
            call: The call that waits, if one does.

        Raises:
            StatusError: If a model cannot be loaded, after all retries, or is no longer to be
                served, the call has ended, or the server stops.
        """
        while not self._is_stopped.wait(_WAIT_S):
            if call is not None:
                call.check()
            listed = self._models
            gone = set(names or ()) - set(listed)
            if gone:
                raise StatusError(
                    "ABORTED", f"Another configuration has replaced the models {sorted(gone)}"
                )
            models = [model for name, model in listed.items() if names is None or name in names]
            failed = [model for model in models if model.has_failed]
            if failed:
                raise _unavailable(failed)
            if all(model.is_available for model in models):
                return
        raise stopping()

    def poll_until_stopped(self, interval_s: float) -> None:
        """Polls at once, after each change by `reload`, and at intervals, until `stop` is called.

        Loads that failed are tried again at their own times.

        Args:
            interval_s: Seconds between polls; 0 for no further one.
        """
        self._is_changed.set()
        left_s = interval_s = interval_s if interval_s > 0 else math.inf
        while not self._is_stopped.is_set():
            if self._is_changed.is_set() or left_s <= 0:
                self._is_changed.clear()
                self.poll()
                polled = time.monotonic()
            else:
                for model in list(self._models.values()):
                    _do_or_log(model.retry, model.name)
            left_s = interval_s - (time.monotonic() - polled)
            retry_s = min((m.next_retry_s for m in list(self._models.values())), default=left_s)
            self._is_changed.wait(min(max(min(left_s, retry_s), _WAIT_S), threading.TIMEOUT_MAX))

    def stop(self) -> None:
        """Ends polling and waiting."""
        self._is_stopped.set()
        self._is_changed.set()

    def cancel_calls(self) -> None:
        """Ends the calls that still run, of all models."""
        for model in (*self._models.values(), *self._ended.values()):
            model.cancel_calls()

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Waits for `stop` for some seconds, and tells whether it was called."""
        return self._is_stopped.wait(timeout_s)

    def served_versions(self, name: str) -> list[int]:
        """Gives the versions of a model that are served."""
        return self._models[name].served_versions

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._models)

    def find(self, spec: model_pb2.ModelSpec) -> tuple[ModelVersions, int | None]:
        """Gives the model that a request asks for, and the version, None for the newest.

        Raises:
            StatusError: If it names no model that is known, or no label.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        version = int(spec.version.value) if spec.HasField("version") else None
        if spec.WhichOneof("version_choice") == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        model = self._models.get(spec.name)
        return (ModelVersions(spec.name, Path()) if model is None else model), version

    def statuses(self, name: str, version: int | None) -> dict[int, Any]:
        """Gives the states of all versions of a model so far, or of one.

        Raises:
            StatusError: If the model or the version is unknown.
        """
        model = self._models.get(name) or self._ended.get(name) or ModelVersions(name, Path())
        return model.statuses(name, version)

    def _model(self, entry: Any) -> ModelVersions:
        """The model of an entry: that of before, if there was one of this name."""
        policy, path = _policy(entry), Path(entry.base_path)
        before = self._models.get(entry.name) or self._ended.get(entry.name)
        if before is None:
            return ModelVersions(entry.name, path, policy=policy, options=self._options)
        before.policy, before.base_path = policy, path
        return before

    def _checked_labels(self, listed: Any) -> dict[str, dict[str, int]]:
        labels: dict[str, dict[str, int]] = {}
        for entry in listed:
            for label, version in entry.version_labels.items():
                known = self._labels.get(entry.name, {}).get(label, version)
                is_new = known == version and self._allow_labels_of_unavailable
                if not is_new and not self._is_available(entry.name, version):
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {entry.name},"
                        " which is not currently available for inference",
                    )
                labels.setdefault(entry.name, {})[label] = version
        return labels

    def _is_available(self, name: str, version: int) -> bool:
        try:
            statuses = self.statuses(name, version)
        except StatusError:
            return False
        return bool(statuses[version].state == State.AVAILABLE)


def _do_or_log(work: Callable[[], None], name: str) -> None:
    try:
        work()
    except Exception:  # otherwise no version would ever be found again
        logger.exception("the versions of %s could not be looked at", name)


def _check(config: ModelServerConfig) -> None:
    names = set()
    for entry in config.model_config_list.config:
        if entry.name in names:
            raise invalid(f"Illegal to list model {entry.name} multiple times in config list")
        names.add(entry.name)
        if not Path(entry.base_path).is_absolute():
            raise invalid(
                f"Expected model {entry.name} to have an absolute path or URI; got"
                f" base_path()={entry.base_path}"
            )
        platform = entry.model_platform or (PLATFORM if entry.model_type == 1 else "")
        if not platform:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
                " ModelServerConfig::model_platform."
            )
        if platform != PLATFORM:
            raise invalid(f"Model {entry.name} requests unsupported platform {platform}")


def _policy(entry: Any) -> Policy:
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return list
    if kind == "specific":
        return functools.partial(_specific, wanted=frozenset(policy.specific.versions))
    return functools.partial(latest, number=max(1, policy.latest.num_versions))


def _specific(versions: Collection[int], *, wanted: frozenset[int]) -> Collection[int]:
    return wanted.intersection(versions)


def _unavailable(models: list[ModelVersions]) -> StatusError:
    reasons = "; ".join(reason for model in models for reason in model.failures())
    names = ", ".join(model.name for model in models)
    return StatusError("UNKNOWN", f"Some models did not become available: {{{names}}}: {reasons}")
