"""What every command does alike: local paths, outputs that stay, and Ctrl-C."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from small_cases import write_cases

from fcnseg.cli import main
from fcnseg.cli.command import INTERRUPTED_STATUS, USER_ERROR_STATUS, parse, run_command
from fcnseg.errors import InputError
from fcnseg.testing.phantom import LABEL_MAP
from fcnseg.volumes import Volume, write_volume

NOWHERE = Path("nowhere")

# Each: a command, and flags of which one is not on this machine.
LOCAL = {
    "predict run": (
        "fcnseg.cli.predict.PredictCommand",
        "--run_dir a {} --images i --output masks",
    ),
    "evaluate": (
        "fcnseg.cli.evaluate.EvaluateCommand",
        "--masks m --labels l --label_map map.yaml --output {}",
    ),
    "compare": ("fcnseg.cli.compare.CompareCommand", "--first a --second {} --output out"),
    "client": ("serving.client.ClientCommand", "--server s:1 --images i --output o --ca_file {}"),
    "train": ("fcnseg.cli.train.TrainCommand", "--config fcn_s --data d --run_dir {}"),
}
PATHS = {
    "gs://bucket/ct": "gs://bucket/ct",
    "s3://bucket/a/b": "s3://bucket/a/b",
    "file:///data/ct": "file://data/ct",
    "https://example.org/ct.nii.gz": "https://example.org/ct.nii.gz",
}


# Flags that take files of any file system, by the field.
ANYWHERE = {
    "data": ("fcnseg.cli.train.TrainCommand", "--config fcn_s --data {} --run_dir run"),
    "images": ("fcnseg.cli.predict.PredictCommand", "--run_dir run --images {} --output masks"),
    "output": ("fcnseg.cli.predict.PredictCommand", "--run_dir run --images i --output {}"),
    "masks": (
        "fcnseg.cli.evaluate.EvaluateCommand",
        "--masks {} --labels l --label_map map.yaml --output out",
    ),
    "labels": (
        "fcnseg.cli.evaluate.EvaluateCommand",
        "--masks m --labels {} --label_map map.yaml --output out",
    ),
    "directory": ("pipelines.inspect.Inspect", "{}"),
}


def command_of(name):
    module, _, command = name.rpartition(".")
    return getattr(importlib.import_module(module), command)


@pytest.mark.parametrize("field", ANYWHERE)
def test_a_path_may_be_elsewhere(field):
    command, flags = ANYWHERE[field]
    for path, means in {
        "s3://bucket/a//b": "s3://bucket/a//b",
        "gs://bucket/ct": "gs://bucket/ct",
        "file:///data/a%20b": "/data/a b",
        "data/ct": "data/ct",
    }.items():
        parsed = parse(command_of(command), flags.format(path).split())
        assert getattr(parsed, field) == means


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LOCAL)
def test_a_path_that_is_not_here_is_refused_in_one_line(tmp_path, monkeypatch, capsys, name, path):
    monkeypatch.chdir(tmp_path)
    command, flags = LOCAL[name]
    with pytest.raises(SystemExit) as caught:
        run_command(command_of(command), flags.format(path).split())
    assert caught.value.code == USER_ERROR_STATUS
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.endswith(f"a path on this machine, without a scheme, got {PATHS[path]}\n")
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


# -- The console script

COMMANDS = {name: entry for group in main.COMMANDS.values() for name, entry in group.items()}


def test_each_module_of_commands_is_listed():
    modules = {path.stem for path in Path(main.__file__).parent.glob("*.py")}
    of_jobs = {name for name, entry in COMMANDS.items() if ".jobs." in entry.module}
    shared = {
        *("command", "flag_errors", "image_source", "progress", "quiet", "scored_cases"),
        *("stopwatch", "tables", "unseen"),
    }
    assert modules - shared - {"__init__", "main"} == set(COMMANDS) - of_jobs


def test_the_list_of_commands_tells_what_each_does(capsys):
    main.main(["--help"])
    said = capsys.readouterr().out
    main.main([])
    assert capsys.readouterr().out == said
    for name in COMMANDS:
        assert f"  {name} " in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_it(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main([name, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fcnseg {name} ")
    entry = COMMANDS[name]
    assert hasattr(importlib.import_module(entry.module), entry.work)
    assert entry.help.split()[0] in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "error: unknown command 'trian'; did you mean train?\n"),
        (["x", "--help"], f"error: unknown command 'x'; known: {', '.join(COMMANDS)}\n"),
    ],
)
def test_an_unknown_command_is_refused_with_the_known_ones(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(argv)
    assert caught.value.code == USER_ERROR_STATUS
    assert capsys.readouterr().err == message


def test_a_command_needs_its_configuration():
    with pytest.raises(TypeError, match="config"):
        command_of("fcnseg.cli.train.TrainCommand")(data=NOWHERE, run_dir=NOWHERE)


# -- Outputs

# Each command that writes: its class, the flags that it needs, and what of its output is there.
WRITING = {
    "plan": ("fcnseg.cli.plan.PlanCommand", {"data": NOWHERE, "memory_gib": 1.0}, ""),
    "bench": ("fcnseg.cli.bench.BenchCommand", {"data": NOWHERE, "config": "demo"}, ""),
    "preview": ("fcnseg.cli.preview.PreviewCommand", {"directory": NOWHERE}, ""),
    "inspect": ("pipelines.inspect.Inspect", {"directory": NOWHERE}, ""),
    "phantom": ("fcnseg.cli.phantom.PhantomCommand", {"cases": 1}, "cases.csv"),
    "compare": (
        "fcnseg.cli.compare.CompareCommand",
        {"first": NOWHERE, "second": NOWHERE},
        "comparison.json",
    ),
    "evaluate": (
        "fcnseg.cli.evaluate.EvaluateCommand",
        {"masks": NOWHERE, "labels": NOWHERE, "label_map": NOWHERE},
        "evaluation.json",
    ),
}
# They refuse an output too, each in its way: tests of their own tell.
ELSEWHERE = {"convert_ct", "predict", "client", "train", "search"}


@pytest.mark.parametrize("name", WRITING)
def test_an_output_that_is_there_stays_unless_it_may_be_replaced(tmp_path, name):
    path, flags, inside = WRITING[name]
    command_class = command_of(path)
    output = tmp_path / "output"
    precious = output / inside if inside else output
    precious.parent.mkdir(exist_ok=True)
    precious.write_bytes(b"precious")
    with pytest.raises(InputError, match="--overwrite") as caught:
        command_class(output=output, **flags).run()
    assert str(output) in str(caught.value)
    assert precious.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_every_command_with_an_output_can_overwrite():
    for path, _, _ in WRITING.values():
        command_class = command_of(path)
        fields = {field.name: field.default for field in dataclasses.fields(command_class)}
        assert fields["overwrite"] is False


# -- Ctrl-C


@dataclasses.dataclass(frozen=True)
class LongCommand:
    """Is interrupted."""

    def run(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_ends_a_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(LongCommand, [])
    assert caught.value.code == INTERRUPTED_STATUS == 130
    assert capsys.readouterr().err == "interrupted\n"


@dataclasses.dataclass(frozen=True)
class JobCommand:
    """Is interrupted in a step, for which its engine raises an error of its own."""

    def run(self) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("KeyboardInterrupt [while running 'Write']") from error


def test_ctrl_c_in_a_step_of_a_job_is_one_too(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(JobCommand, [])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("where", ["entries", "importlib"])
def test_ctrl_c_while_a_command_is_imported_ends_it_too(monkeypatch, capsys, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    stand_in = types.SimpleNamespace(import_module=interrupt)
    monkeypatch.setattr(main, where, interrupt if where == "entries" else stand_in)
    with pytest.raises(SystemExit) as caught:
        main.main(["plan", "--help"])
    assert caught.value.code == INTERRUPTED_STATUS
    assert capsys.readouterr().err == "interrupted\n"


def interrupted(argv: list[str], *, when) -> tuple[int, list[str]]:
    """Status and last lines of a command that gets a SIGINT, its whole group as from a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", *argv],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not when():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_an_evaluation(tmp_path, workers):
    rng = np.random.default_rng(0)
    volume = Volume(np.uint8(rng.random((150, 200, 200)) < 0.3), np.diag([2.0, 2.0, 2.0, 1.0]))
    for folder in ("masks", "labels"):
        (tmp_path / folder).mkdir()
        for case in range(3):
            write_volume(volume, tmp_path / folder / f"case_{case}.nii")
    names = ", ".join(f"{name}: [{index}]" for index, name in enumerate(LABEL_MAP.class_names))
    (tmp_path / "map.yaml").write_text(f"classes: {{{names}}}\n")
    flags = {"masks": "masks", "labels": "labels", "label_map": "map.yaml", "output": "out"}
    argv = [part for flag, value in flags.items() for part in (f"--{flag}", str(tmp_path / value))]
    status, said = interrupted(
        ["fcnseg", "evaluate", *argv, "--workers", str(workers)],
        when=lambda: any((tmp_path / "out").glob(".tmp-*/pictures")),
    )
    assert (status, said[-1]) == (130, "interrupted")
    assert "Traceback" not in "\n".join(said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_conversion_that_can_be_resumed(tmp_path, workers):
    cases, output = write_cases(tmp_path / "in"), tmp_path / "out"
    argv = ["--cases", str(cases), "--label_map", str(cases.with_name("label_map.yaml"))]
    argv += ["--output", str(output), "--spacing_mm", "0.6", "0.6", "0.6", "--shard_mib", "1"]
    argv += [f"--direct_num_workers={workers}"]
    job = ["pipelines.convert_ct", *argv]
    status, said = interrupted(job, when=lambda: any((output / ".state").glob("train-*.json")))
    assert (status, said[-1]) == (130, "interrupted")
    assert said == ["interrupted"]
    assert not (output / "COMPLETED").exists()
    assert not list(output.glob(".tmp-*"))
    assert subprocess.run([sys.executable, "-m", *job, "--resume"], check=False).returncode == 0


@pytest.mark.parametrize(("before", "after"), [(None, "true"), ("false", "false")])
def test_a_command_takes_memory_of_a_gpu_as_it_needs_it(before, after):
    """Unless the user says otherwise; TensorFlow itself takes nearly all at its start."""
    variable = "TF_FORCE_GPU_ALLOW_GROWTH"
    environment = {name: value for name, value in os.environ.items() if name != variable}
    if before is not None:
        environment[variable] = before
    script = f"import os, serving.export; print(os.environ['{variable}'])"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after
