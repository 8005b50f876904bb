"""A command line that a command cannot take is said in one line, with the nearest known flag."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from fcnseg.cli.command import ConfigFlags, flag_names, parse, parse_known
from fcnseg.cli.flag_errors import rejected
from fcnseg.config import PRESETS
from fcnseg.errors import InputError


@dataclasses.dataclass(frozen=True)
class SmallCommand:
    """Takes a flag of each kind."""

    folder: Annotated[str, tyro.conf.Positional]
    """The folder."""
    output: str
    """The output, for which another flag may be needed:
    --overwrite."""
    size: tuple[int, int]
    """Two numbers."""
    kind: Literal["first", "second"] = "first"
    """One of two."""
    share: float | None = None
    """A number."""
    cases: tuple[int, ...] = ()
    """Any number of them."""
    config: ConfigFlags = PRESETS["demo"]
    """Settings."""
    overwrite: bool = False
    """A switch."""

    def run(self):
        raise AssertionError


# The tyro that tensorflow-addons allows tells no types of missing flags.
OUTPUT, SIZE = (
    ("--output STR", "--size INT INT")
    if hasattr(tyro.conf, "FlagCreatePairsOff")
    else ("--output", "--size")
)
GOOD = "in --output out --size 1 2"
LONG = "/a" * 60
# A command line, and the error.
WRONG = {
    "": f"missing: STR, {OUTPUT}, {SIZE}; --help describes all flags",
    "in --output out": f"missing: {SIZE}; --help describes all flags",
    "in --ouput out --size 1 2": "unknown flag: --ouput; did you mean --output?",
    f"{GOOD} --out-put=x": "unknown flag: --out-put; did you mean --output?",
    f"{GOOD} --over": "unknown flag: --over; did you mean --overwrite?",
    f"{GOOD} --zzz 1 --yyy=2": "unknown flag: --zzz --yyy",
    f"{GOOD} -size 1 2": "unknown flag: -size; did you mean --size?",
    f"{GOOD} --training.epoch 3": "unknown flag: --training.epoch; did you mean --training.epochs",
    f"{GOOD} --epochs 3": "unknown flag: --epochs; did you mean --training.epochs?",
    f"{GOOD} --Output x": "unknown flag: --Output; did you mean --output?",
    f"{GOOD} {LONG} two": f"unexpected argument: {LONG} two",
    f"{GOOD} --overwrite yes": "unexpected argument: yes",
    "in --output out --size 1": "--size must have 2 values, got 1",
    "in --output out --size": "--size must have 2 values, got nothing",
    "in --output out --size a b": "--size must be INT INT, got a b",
    "in --size 1 2 --output": "--output must have 1 value, got nothing",
    f"{GOOD} --kind frist": "--kind must be one of first, second, got frist; did you mean first?",
    f"{GOOD} --share=20%": "--share must be {None}|FLOAT, got 20%",
    f"{GOOD} --cases 1 x --overwrite": "--cases must be [INT [INT ...]], got 1 x",
    f"{GOOD} --training.epochs 2.5": "--training.epochs must be INT, got 2.5",
    f"{GOOD} --loss.name dise": "--loss.name must be one of dice, ",
    f"{GOOD} --config": "--config must have 1 value, got nothing",
    f"{GOOD} --kind=": "a value must not be empty, got '' after --kind",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_line_says_what_is_wrong(line, capsys):
    with pytest.raises(InputError) as caught:
        parse(SmallCommand, line.split())
    assert str(caught.value).startswith(WRONG[line])
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_the_line_is_the_same_on_any_terminal(encoding):
    script = "import test_flag_errors as t, sys; t.parse(t.SmallCommand, sys.argv[1:])"
    for line in ("in --output out", "in --output out --size a b", f"{GOOD} --training.epochs x"):
        done = subprocess.run(
            [sys.executable, "-c", script, *line.split()],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
        said = WRONG.get(line, "--training.epochs must be INT, got x")
        assert done.stderr.splitlines()[-1] == f"fcnseg.errors.InputError: {said}"


def test_an_empty_value_is_named_by_its_flag():
    with pytest.raises(InputError, match="got '' after --output$"):
        parse(SmallCommand, ["in", "--output", "", "--size", "1", "2"])
    with pytest.raises(InputError, match="got ''$"):
        parse(SmallCommand, ["", "--output", "out", "--size", "1", "2"])


def test_flags_of_another_program_pass_unless_one_is_nearly_known():
    known, others = parse_known(SmallCommand, [*GOOD.split(), "--region", "x"])
    assert (known.output, others) == ("out", ["--region", "x"])
    with pytest.raises(InputError, match=f"missing: {SIZE}"):
        parse_known(SmallCommand, "in --output out --region x".split())
    with pytest.raises(InputError, match="unknown flag: --sizes; did you mean --size"):
        parse_known(SmallCommand, "in --output out --sizes 1 2".split())


def test_hyphens_in_flags_are_as_good():
    assert parse(SmallCommand, f"{GOOD} --training.steps-per-epoch 3".split()).config.training == (
        dataclasses.replace(PRESETS["demo"].training, steps_per_epoch=3)
    )


@pytest.mark.parametrize("columns", ["40", "80", "250"])
def test_the_flags_of_a_command_are_those_of_its_help(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)  # tyro writes groups of flags side by side in 250
    names = flag_names(SmallCommand)
    assert {"--training.epochs", "--augmentation.flip", "--inference.overlap"} <= set(names)
    assert names[:4] == ["--help", "--output", "--size", "--kind"]
    assert sorted(names) == sorted(set(names))
    assert all(re.fullmatch(r"--[a-z_.0-9]*[a-z0-9]", name) for name in names)


def test_a_text_of_another_form_becomes_a_line_too():
    said = "Parsing error:\nargument --size: expected 2 arguments.\n"
    error = rejected(["--size", "1"], said, ["--size"], others_pass=False)
    assert str(error) == "Parsing error: argument --size: expected 2 arguments"
    assert str(rejected([], "", [], others_pass=False)) == "the command line is wrong"
