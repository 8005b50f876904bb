"""How commands take their flags: paths of other machines are refused in one line."""

from __future__ import annotations

import importlib

import pytest

from fcnseg.command import USER_ERROR_STATUS, run_command

# Each: a command, and flags of which one is not on this machine.
COMMANDS = {
    "predict images": (
        "fcnseg.predict.PredictCommand",
        "--run_dir run --images {} --output masks",
    ),
    "predict run": ("fcnseg.predict.PredictCommand", "--run_dir a {} --images i --output masks"),
    "predict output": ("fcnseg.predict.PredictCommand", "--run_dir run --images i --output {}"),
    "evaluate": (
        "fcnseg.evaluate.EvaluateCommand",
        "--masks m --labels {} --label_map map.yaml --output out",
    ),
    "compare": ("fcnseg.compare.CompareCommand", "--first a --second {} --output out"),
    "inspect": ("pipelines.inspect.Inspect", "{}"),
    "client": ("serving.client.ClientCommand", "--server s:1 --image {} --output mask.nii"),
    "train": ("fcnseg.train.TrainCommand", "--config fcn_s --data {} --run_dir run"),
}
PATHS = {
    "gs://bucket/ct": "gs://bucket/ct",
    "s3://bucket/a/b": "s3://bucket/a/b",
    "file:///data/ct": "file://data/ct",
    "https://example.org/ct.nii.gz": "https://example.org/ct.nii.gz",
}


def command_of(name):
    module, _, command = name.rpartition(".")
    return getattr(importlib.import_module(module), command)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_that_is_not_here_is_refused_in_one_line(tmp_path, monkeypatch, capsys, name, path):
    monkeypatch.chdir(tmp_path)
    command, flags = COMMANDS[name]
    with pytest.raises(SystemExit) as caught:
        run_command(command_of(command), flags.format(path).split())
    assert caught.value.code == USER_ERROR_STATUS
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.endswith(f"a path on this machine, without a scheme, got {PATHS[path]}\n")
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
