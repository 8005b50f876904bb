"""A full disk ends a command with one line and status 2; what is there is whole, or not there."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import pytest
from small_cases import write_cases
from small_models import write_run

from fcnseg.storage.file_systems import UNFINISHED

# As a disk with this room for each file: writes beyond it fail, as on a full one.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from fcnseg.cli.main import main
main(sys.argv[2:])
"""
CONVERT = "convert --cases {0}/cases.csv --label_map {0}/label_map.yaml --output {0}/out"
# Each command, the bytes that a file may have, and a file that ends it when all is well.
COMMANDS = {
    "phantom --cases 1 --output {0}/out": (20_000, "cases.csv"),
    "export --run_dir {0}/run --model_dir {0}/out": (20_000, "1/saved_model.pb"),
    CONVERT: (2000, "COMPLETED"),
    f"{CONVERT} --direct_num_workers 2": (2000, "COMPLETED"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_run(folder / "run")
    write_cases(folder)
    return folder


def run(line, folder, *, most):
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(most), *line.format(folder).split()],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_full_disk_is_one_line_and_the_command_works_afterwards(line, inputs):
    most, last = COMMANDS[line]
    output = inputs / "out"
    shutil.rmtree(output, ignore_errors=True)
    done = run(line, inputs, most=most)
    assert done.returncode == 2, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert [text for text in done.stderr.splitlines() if text] == errors[:1], done.stderr
    assert "cannot write" in errors[0]
    assert os.strerror(27) in errors[0]  # EFBIG, where a disk that is full has ENOSPC
    assert not (output / last).exists()
    assert not [path for path in output.rglob("*") if ".tmp-" in path.name]
    again = {"phantom": " --overwrite", "convert": " --resume"}.get(line.split()[0], "")
    done = run(line + again, inputs, most=resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr
    assert UNFINISHED not in done.stdout + done.stderr  # a temporary file is not the user's
    assert (output / last).exists()
