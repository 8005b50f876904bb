"""Ctrl-C ends each command that takes long: status 130, no traceback, nothing half written."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from small_models import write_run

from fcnseg.cli.main import entries, main
from fcnseg.storage.file_systems import UNFINISHED
from fcnseg.testing.phantom import write_phantoms

pytestmark = pytest.mark.slow


class Interrupted(NamedTuple):
    """A command, when it gets the signal, and what it may leave.

    Attributes:
        flags: Its flags; IN is the folder of the inputs, OUT that of the output, PORT a server.
        when: A pattern of a file in OUT, PORT for a connection to the server, or seconds.
        left: Patterns of the files in OUT that may be there afterwards: all of them whole.
        says: The end of its last line.
    """

    flags: str
    when: str | float
    left: tuple[str, ...] = ()
    says: str = "interrupted"


CASES = "--cases IN/cases.csv --label_map IN/label_map.yaml"
RESUMED = ("*.tfrecord", "case_files.csv", ".state/*.json")
RUN = ("checkpoint.npz", "config.yaml", "history.csv", "model_info.json", "tensorboard/*")
COMMANDS = {
    "phantom": Interrupted("--cases 50 --output OUT", "images/*", ("images/*", "labels/*")),
    "convert": Interrupted(
        f"{CASES} --output OUT --spacing_mm 0.7 0.7 0.7 --shard_mib 1 --direct_num_workers 2",
        f"{UNFINISHED}*",
        RESUMED,
    ),
    "inspect": Interrupted("IN/records --output OUT/page.html", 1.0),
    "preview": Interrupted("IN/records --output OUT/page.html --count 5000", 8.0),
    "bench": Interrupted("--data IN/records --config demo --steps 100000", 15.0),
    "train": Interrupted(
        "--data IN/records --config demo --run_dir OUT --training.epochs 1000",
        "history.csv",
        (*RUN, "best.keras"),
        "stopped by SIGINT; --resume continues the run",
    ),
    "search": Interrupted(
        "--data IN/records --config demo --space IN/space.yaml --max_trials 3 --output OUT",
        "logs/0.log",
        ("devices.json", "logs/*", "outcomes/*", "search.json", "trials.json", "trials/*/*"),
        "the same command resumes it",
    ),
    "predict": Interrupted("--run_dir IN/run --images IN/images --output OUT", 15.0, ("*",)),
    "evaluate": Interrupted(
        "--masks IN/masks --labels IN/labels --label_map IN/label_map.yaml --output OUT/new",
        f"new/{UNFINISHED}*",
    ),
    "export": Interrupted("--run_dir IN/run --model_dir OUT", f"{UNFINISHED}*"),
    "segment": Interrupted("--server 127.0.0.1:PORT --images IN/images --output OUT", "PORT"),
}
SHORT = {
    *("compare", "completion", "plan", "report", "rollback", "summary"),
    "flink",  # as convert
    "serve",  # ends a server as usual, with status 0: tests/test_local_server.py
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    list(write_phantoms(3, folder))
    (folder / "masks").mkdir()
    for label in (folder / "labels").iterdir():
        (folder / "masks" / label.name).write_bytes(label.read_bytes())
    (folder / "space.yaml").write_text("training.learning_rate: {float: [0.001, 0.01]}\n")
    write_run(folder / "run", spacing_mm=(3.0, 3.0, 3.0), max_voxels=10**8)
    flags = f"{CASES} --output IN/records --spacing_mm 6 6 6".replace("IN", str(folder))
    main(["convert", *flags.split()])
    return folder


def wait_for(
    when: str | float, output: Path, server: socket.socket, process: subprocess.Popen
) -> contextlib.AbstractContextManager[object]:
    """Waits until a command is at work; gives the connection to the server, to be closed."""
    if isinstance(when, float):
        time.sleep(when)
        return contextlib.nullcontext()
    if when == "PORT":
        server.settimeout(120)
        return server.accept()[0]
    while not any(output.glob(when)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return contextlib.nullcontext()


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_a_command(name, inputs, tmp_path):
    flags, when, left, says = COMMANDS[name]
    output = tmp_path / "out"
    output.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = {"IN": inputs, "OUT": output, "PORT": server.getsockname()[1]}
        for word, place in places.items():
            flags = flags.replace(word, str(place))
        process = subprocess.Popen(
            [sys.executable, "-m", "fcnseg", name, *flags.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with wait_for(when, output, server, process):
            assert process.poll() is None, process.stderr.read()
            os.killpg(process.pid, signal.SIGINT)  # all of its processes, as a terminal does
            said, errors = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT), errors  # which a shell calls 130 too
    assert "Traceback" not in said + errors
    assert any(line.endswith(says) for line in errors.splitlines()), errors
    files = {path for path in output.rglob("*") if path.is_file()}
    assert files <= {path for pattern in left for path in output.glob(pattern)}
    assert not any(UNFINISHED in str(path) for path in files)


def test_each_command_is_in_one_of_these_tables():
    assert sorted([*COMMANDS, *SHORT]) == sorted(entries())
