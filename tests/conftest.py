"""What all tests share: small records, and the real scans, where they are at hand."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from object_store import Objects
from small_records import write_small_dataset

sys.modules["openvino_telemetry"] = None  # else each import of OpenVINO by a test is reported
# Graphs are millions of small objects, which live long: by default a tenth of a test's time goes
# into looking for those that do not.
gc.set_threshold(50_000, 20, 100)
# An example may take any time, as machines are shared.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

ROOT = Path(__file__).parent.parent
# On the line of tensorflow-addons these take a minute or more, and do not depend on it much.
SLOW_ON_THE_OLD_LINE = {
    f"test_{name}.py"
    for name in (
        *("averaging", "cascade", "centres", "client_command", "convert_ct", "damage", "data"),
        *("dataset_cases", "dicom_outputs", "evaluate", "export_memory", "folds", "full_disk"),
        *("ignored", "inspect", "local_server", "out_of_memory", "phantom", "plan", "predict"),
        *("predict_dicom", "probabilities", "regions", "round_trip", "segment_nifti"),
        *("tensorboard", "timing", "unseen", "validation_loss"),
    )
}
# Files that take minutes, the longest first, so that no worker begins with one at the end.
LONGEST = [
    f"test_{name}.py"
    for name in (
        *("tuning", "learning", "training_resume", "training", "walks", "bench_gpu", "tutorial"),
        *("openvino_backend", "serving", "openvino_masks", "conformance", "full_disk"),
        *("tensorboard", "training_killed", "export", "regions", "export_memory"),
        *("examples", "out_of_memory", "accumulation", "cascade", "client_command", "timing"),
        *("folds", "interrupts", "probabilities", "ignored", "predict_dicom", "predict", "data"),
    )
]
REAL_DATA = Path(os.environ.get("FCNSEG_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items):
    """Orders the files by their time, and marks what is slow on the old line alone."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    if importlib.util.find_spec("tensorflow_addons") is None:
        return
    for item in items:
        if item.path.name in SLOW_ON_THE_OLD_LINE and not item.get_closest_marker("slow"):
            item.add_marker("slow")
            item.add_marker("slow_on_the_old_line")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Three cases to train on and one for validation; a test that changes them makes its own."""
    return write_small_dataset(tmp_path_factory.mktemp("data") / "records")


@pytest.fixture(scope="module")
def segmenter_of_run(run_dir):
    """A segmenter of the network in the `run_dir` of a test file."""
    from fcnseg.inference import load_run, make_segmenter

    return make_segmenter(*load_run(run_dir))


@pytest.fixture
def shared_segmenter(segmenter_of_run, monkeypatch):
    """Makes the command take the segmenter of `run_dir` that is there: it need not be traced."""
    monkeypatch.setattr("fcnseg.inference.make_segmenter", lambda *_, **__: segmenter_of_run)


@pytest.fixture
def objects():
    """An empty object store, whose URLs begin with memory://."""
    store = Objects()
    store.empty()
    yield store
    store.empty()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of small real scans; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        reason = f"no real scans: {REAL_DATA} is absent (set FCNSEG_REAL_DATA)"
        if os.environ.get("FCNSEG_REQUIRE_REAL_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return REAL_DATA
