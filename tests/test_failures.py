"""A conversion that cannot write ends with one line, wherever its workers are."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from small_cases import write_cases

from fcnseg.errors import InputError, OutputError
from pipelines.convert_ct import ConvertCt
from pipelines.failures import WorkerError, naming_failures

FROM_A_WORKER = """Traceback (most recent call last):
  raise OutputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
fcnseg.errors.OutputError: cannot write /out/a.tfrecord: No space left on device

During handling of the above exception, another exception occurred:
fcnseg.errors.OutputError: cannot write /out/a.tfrecord: No space left on device [while running \
'Write/Map(write)']
"""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            RuntimeError(FROM_A_WORKER),
            OutputError,
            r"^cannot write /out/a\.tfrecord: No space left on device$",
        ),
        (OutputError("cannot write a: full [while running 'W']"), OutputError, "^cannot write a: "),
        (InputError("cases must be there"), InputError, "^cases must be there$"),
        (RuntimeError("anything else"), RuntimeError, "^anything else$"),
    ],
)
def test_worker_that_could_not_write_is_heard(error, kind, message):
    with pytest.raises(kind, match=message), naming_failures():
        raise error


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, "was ended by SIGKILL, as when memory runs out; --resume"),
        (-11, "was ended by SIGSEGV; "),
        (3, "ended with status 3; "),
    ],
)
def test_worker_that_is_killed_is_one_line(capfd, status, words):
    def end():  # as Beam does
        raise RuntimeError(f"Worker subprocess exited with return code {status}")

    def work():
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        raise RuntimeError("Channel closed prematurely.")

    with pytest.raises(WorkerError, match=words), naming_failures():
        work()
    assert capfd.readouterr().err == ""


def convert(tmp_path):
    cases = write_cases(tmp_path / "in", count=1)
    return ConvertCt(
        cases=str(cases),
        label_map=str(cases.with_name("label_map.yaml")),
        output=str(tmp_path / "out"),
        spacing_mm=(10.0, 7.5, 7.5),
        validation_fraction=0.0,
    )


def test_conversion_to_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    job, fsync = convert(tmp_path), os.fsync

    def fill_the_disk(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".tfrecord":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_the_disk)
        with pytest.raises(OutputError, match=r"^cannot write .*\.tfrecord: No space left on dev"):
            job.run()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".state", "case_files.csv"}


def test_output_below_a_file_is_named(tmp_path):
    job = convert(tmp_path)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="output must be a folder, got the file .*out"):
        job.run()
