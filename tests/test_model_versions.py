"""Versions on disk: which is served, which is tried again, and when."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import shutil
import threading
import time

import numpy as np
import pytest
from half_plus_two import write_half_plus_two
from tensorflow_serving.apis import model_pb2

from fcnseg.errors import ModelError
from fcnseg.saved_model.session import StatusError
from serving import model_versions
from serving.model_versions import LoadOptions, ModelVersions, State, latest
from serving.served_models import ModelServerConfig, ServedModels, config_of_one


@dataclasses.dataclass
class FakeSession:
    """Loads what holds a file `whole`; anything else fails."""

    folder: object
    attempts = 0

    def __post_init__(self):
        FakeSession.attempts += 1
        if not (self.folder / "whole").exists():
            raise ModelError(f"not a SavedModel: {self.folder}")
        self.is_closed = False

    def close(self):
        self.is_closed = True


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(model_versions, "SavedModelSession", FakeSession)
    FakeSession.attempts = 0
    write_version(tmp_path, 1)
    return tmp_path


def write_version(base, version, *names):
    (base / str(version)).mkdir(exist_ok=True)
    for name in names or ("whole",):
        (base / str(version) / name).write_text(name)


def served(versions):
    return versions.session("m")[0]


def poll(versions, times=1):
    for _ in range(times):
        versions.poll()
    return served(versions)


def test_version_is_served_once_its_copy_is_complete(base):
    versions = ModelVersions("m", base)
    assert poll(versions) == 1
    write_version(base, 2, "half")
    assert poll(versions) == 1
    status = versions.statuses("m", 2)[2]
    assert (status.state, status.error_code) == (State.END, "INVALID_ARGUMENT")
    assert "not a SavedModel" in status.error_message
    write_version(base, 2, "half", "more")
    attempts = FakeSession.attempts
    assert poll(versions) == 1
    assert FakeSession.attempts == attempts  # the copy may be under way
    write_version(base, 2, "whole")
    assert poll(versions, 2) == 2
    assert FakeSession.attempts == attempts + 1
    assert versions.statuses("m", 2)[2].error_message == ""
    assert versions.statuses("m", 1)[1].state == State.END


def test_version_that_was_taken_away_and_brought_again_is_served(base):
    versions = ModelVersions("m", base)
    write_version(base, 2, "half")
    with pytest.raises(StatusError):
        poll(versions)
    shutil.rmtree(base / "2")
    assert poll(versions) == 1
    write_version(base, 2)
    assert poll(versions) == 2


def test_older_version_is_served_where_the_newest_is_taken_away(base):
    versions = ModelVersions("m", base)
    write_version(base, 2)
    assert poll(versions) == 2
    shutil.rmtree(base / "2")
    assert poll(versions) == 1
    shutil.rmtree(base)
    assert poll(versions) == 1  # all stay if the disk is gone
    base.mkdir()
    with pytest.raises(StatusError, match=r"Latest\(m\)"):
        poll(versions)
    assert versions.statuses("m", 1)[1].state == State.END


def test_version_is_closed_after_its_last_call(base):
    versions = ModelVersions("m", base)
    poll(versions)
    with versions.call(1) as (version, session):
        assert version == 1
        write_version(base, 2)
        assert poll(versions) == 2
        assert versions.statuses("m", 1)[1].state == State.UNLOADING
        assert not session.is_closed
        with versions.call(None) as (newest, _):
            assert newest == 2
        with pytest.raises(StatusError, match=r"Specific\(m, 1\)"), versions.call(1):
            pass
    assert session.is_closed
    assert versions.statuses("m", 1)[1].state == State.END


def test_calls_on_a_retired_version_are_cancelled_too(base):
    versions = ModelVersions("m", base)
    poll(versions)
    with versions.call(1) as (_, session):
        write_version(base, 2)
        poll(versions)
        assert not session.is_closed
        versions.cancel_calls()
        assert session.is_closed
    assert not versions._retired


def test_version_that_is_loaded_again_stays_available(base):
    """Its first session is closed while the second one is served."""
    versions = ModelVersions("m", base)
    poll(versions)
    with versions.call(1):
        write_version(base, 2)
        poll(versions)
        shutil.rmtree(base / "2")
        assert poll(versions) == 1
    assert versions.statuses("m", 1)[1].state == State.AVAILABLE


def test_calls_on_a_model_that_was_dropped_twice_are_cancelled_too(base):
    models, sessions = ServedModels(), []
    none = ModelServerConfig(model_config_list={})
    with contextlib.ExitStack() as calls:
        for _ in range(2):
            for config in (config_of_one("m", base), none):
                models.reload(config)
                models.poll()
                if models.names:
                    model, version = models.find(model_pb2.ModelSpec(name="m"))
                    sessions.append(calls.enter_context(model.call(version))[1])
        assert models.statuses("m", 1)[1].state == State.UNLOADING
        assert [session.is_closed for session in sessions] == [False, False]
        models.cancel_calls()
        assert [session.is_closed for session in sessions] == [True, True]


def test_old_version_stays_while_the_new_one_cannot_be_loaded(base):
    versions = ModelVersions("m", base)
    poll(versions)
    write_version(base, 2, "half")
    shutil.rmtree(base / "1")  # no longer there, but all that can be served
    assert poll(versions) == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (latest, [3]),
        (functools.partial(latest, number=2), [2, 3]),
        (functools.partial(latest, number=9), [1, 2, 3]),
        (list, [1, 2, 3]),
        (frozenset({1, 7}).intersection, [1]),
    ],
)
def test_policy_chooses_the_versions(base, policy, expected):
    for version in (2, 3):
        write_version(base, version)
    versions = ModelVersions("m", base, policy=policy)
    poll(versions)
    assert versions.served_versions == expected
    assert served(versions) == expected[-1]


@pytest.mark.parametrize("retries", [0, 5])
def test_files_that_rest_are_tried_some_times(base, retries):
    """As TensorFlow Serving does: a first time, and so many times after it."""
    write_version(base, 2, "half")
    versions = ModelVersions("m", base, options=LoadOptions(retries, retry_interval_s=0))
    for _ in range(10):
        versions.poll()
    assert FakeSession.attempts == 1 + retries


def test_tries_are_an_interval_apart(base, monkeypatch):
    now = 100.0
    monkeypatch.setattr(model_versions.time, "monotonic", lambda: now)
    write_version(base, 2, "half")
    versions = ModelVersions("m", base)
    for seconds, attempts in ((0, 1), (59, 1), (60, 2), (119, 2), (120, 3), (1000, 4), (1059, 4)):
        now = 100.0 + seconds
        versions.poll()
        assert FakeSession.attempts == attempts, seconds


def test_log_tells_of_each_try(base, caplog):
    write_version(base, 2, "half")
    versions = ModelVersions("m", base, options=LoadOptions(1, retry_interval_s=0))
    for _ in range(3):
        versions.poll()
    first, second = caplog.messages
    assert first.startswith("version 2 of m is not served: not a SavedModel: ")
    assert first.endswith("(try 1 of 2; it begins again when files change)")
    assert second.endswith("(try 2 of 2; it begins again when files change)")


def test_names_that_are_no_versions_are_passed_over(base):
    for name in ("١٢", "99999999999999999999", "-3", "2.5", ".tmp-7"):
        write_version(base, name)
    assert poll(ModelVersions("m", base)) == 1


@pytest.mark.parametrize("fault", [KeyError("node"), TypeError("a\nb"), MemoryError()])
def test_fault_of_loading_is_not_the_end_of_polling(base, fault, monkeypatch):
    def fail(folder):
        raise fault

    versions = ModelVersions("m", base)
    assert poll(versions) == 1
    write_version(base, 2)
    monkeypatch.setattr(model_versions, "SavedModelSession", fail)
    assert poll(versions) == 1
    assert versions.statuses("m", 2)[2].error_code == "INTERNAL"


def test_polling_goes_on_after_a_fault(base, monkeypatch, caplog):
    models, polled = ServedModels(), []
    models.reload(config_of_one("m", base))

    def poll_and_fail(self):
        polled.append(1)
        if len(polled) == 3:
            models.stop()
        raise OSError("the disk is gone")

    monkeypatch.setattr(ModelVersions, "poll", poll_and_fail)
    thread = threading.Thread(target=models.poll_until_stopped, args=(1e-3,))
    with caplog.at_level(logging.CRITICAL):
        thread.start()
        thread.join(timeout=30)
    assert len(polled) == 3


def test_model_is_available_once_all_its_versions_are(base):
    write_version(base, 2)
    versions = ModelVersions("m", base, policy=list)
    seen = []

    def load(folder):
        seen.append(versions.is_available)
        return FakeSession(folder)

    versions._options = LoadOptions(load=load)
    poll(versions)
    assert (seen, versions.is_available) == ([False, False], True)


def test_failed_version_that_is_no_longer_wanted_is_not_tried_again(base):
    write_version(base, 2, "half")
    versions = ModelVersions("m", base)
    with pytest.raises(StatusError):
        poll(versions)
    assert versions.next_retry_s > 0
    write_version(base, 3)
    assert poll(versions) == 3
    assert versions.next_retry_s == math.inf


@pytest.mark.parametrize("interval_s", [0, 1000.0])
def test_failed_loads_are_tried_again_whatever_the_interval_of_polls(base, interval_s):
    write_version(base, 2, "half")
    models = ServedModels(LoadOptions(retries=2, retry_interval_s=0.1))
    models.reload(config_of_one("m", base))
    thread = threading.Thread(target=models.poll_until_stopped, args=(interval_s,))
    thread.start()
    try:
        with pytest.raises(StatusError, match="Some models did not become available: {m}"):
            models.wait_until_available()
        assert FakeSession.attempts == 3
        write_version(base, 3)  # is not looked for
        time.sleep(0.3)
        assert FakeSession.attempts == 3
    finally:
        models.stop()
        thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", "variables"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, None])
def test_copy_of_a_real_model_that_is_under_way(tmp_path, name, share):
    """Files that are missing, or cut: refused, and served when they are complete."""
    base = tmp_path / "models"
    base.mkdir()
    write_half_plus_two(base / "1")
    shutil.copytree(base / "1", base / "2")
    path = base / "2" / name
    if name == "variables":
        (path,) = path.glob("*.data-*")
    content = path.read_bytes()
    path.unlink() if share is None else path.write_bytes(content[: int(share * len(content))])
    versions = ModelVersions("m", base)
    versions.poll()
    assert versions.statuses("m", 2)[2].state == State.END
    path.write_bytes(content)
    assert poll(versions, 2) == 2
    _, session = versions.session("m")
    outputs = session.run("serving_default", {"x": np.array([2], np.float32)})
    np.testing.assert_array_equal(outputs["y"], [3])
