"""A shell completes commands and their flags."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from fcnseg.cli.completion import completion_script
from fcnseg.cli.main import entries


@pytest.fixture(scope="module")
def script():
    return completion_script()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fcnseg tr", {"train"}),
        ("fcnseg train --run", {"--run_dir"}),
        ("fcnseg train --loss.na", {"--loss.name"}),
        ("fcnseg convert --spacing", {"--spacing_mm"}),
        ("fcnseg serve --model_b", {"--model_base_path"}),
        ("fcnseg nothing --", set()),
    ],
)
def test_bash_completes(script, words, expected):
    line = (
        f"{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _fcnseg;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


def test_each_command_is_completed(script):
    for name in entries():
        (words,) = re.findall(rf'^      {name}\) words="(.*)" ;;$', script, re.MULTILINE)
        flags = words.split()
        assert "--help" in flags
        assert len(set(flags)) == len(flags)  # none from the text that describes another
