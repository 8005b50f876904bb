"""The tutorial's commands run one after the other, and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import write_dicom, write_nnunet

from fcnseg.testing.phantom import ORGANS, make_phantom
from fcnseg.volumes import read_label
from pipelines.worker_pool import free_port

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/tutorial.md").read_text()
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "@@ block "
# A server in the background is waited for, until it says that it serves.
WAIT = "> serve.log 2>&1 &\nuntil grep -q ^serving serve.log; do sleep 1; done\ncat serve.log\n"


def steps() -> list[tuple[str, str]]:
    """The blocks of commands, each with what it prints according to the page."""
    found: list[tuple[str, str]] = []
    for kind, content in BLOCK.findall(PAGE):
        if kind == "sh":
            found.append((content, ""))
        elif found and not content.startswith("hospital/"):  # files, not output
            found[-1] = (found[-1][0], content)
    return found


def script(port: int, rest_port: int) -> str:
    """All commands as one script, in which each block has its mark."""
    text = ""
    for number, (commands, _) in enumerate(steps()):
        commands = commands.replace(":8500", f":{port}")
        if commands.endswith("&\n"):
            ports = f"--port {port} --rest_api_port {rest_port}"
            commands = commands.removesuffix("&\n") + f"{ports} {WAIT}"
        text += f"echo '{MARK}{number}'\n{commands}"
    return f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{text}"


def words_of(text: str) -> list[str]:
    """Words without numbers, which differ between machines, and so may the organ that is worst."""
    text = re.sub("|".join(ORGANS), "organ", text)
    text = re.sub(r"\d+(?:[.,]\d+)*", "#", text)
    words = re.sub(r"[^\w#/.:,()-]+", " ", text).split()
    return [word for word in words if re.search(r"[a-z]", word)]


def is_said(words: list[str], said: list[str]) -> bool:
    return any(said[k : k + len(words)] == words for k in range(len(said) + 1))


def test_the_page_is_read():
    assert len(steps()) > 10
    assert sum(bool(output) for _, output in steps()) > 8


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A folder with the data of the page, and what each block printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    scans = {
        f"abdomen_{n:03d}": make_phantom([7, n], spacing=(4.0, 3.0, 3.0), orientation="LPS")
        for n in range(1, 13)
    }
    write_nnunet(folder / "Dataset001_Abdomen", scans, ORGANS)
    write_dicom(folder / "hospital", scans, ORGANS)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script(free_port(), free_port())],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return folder, [part.partition("\n")[2] for part in done.stdout.split(MARK)[1:]]


@pytest.mark.slow
@pytest.mark.serving
@pytest.mark.timeout(3600)
def test_each_command_prints_what_the_page_says(walked):
    folder, printed = walked
    assert len(printed) == len(steps())
    for (commands, output), said in zip(steps(), printed, strict=True):
        found = words_of(said.replace(f"{folder}/", ""))
        for paragraph in re.split(r"\n(?=\S)", output):
            assert is_said(words_of(paragraph), found), f"{commands}\n{paragraph}\n{said}"


@pytest.mark.slow
@pytest.mark.serving
@pytest.mark.timeout(3600)
def test_the_served_masks_are_those_of_the_prediction(walked):
    folder, _ = walked
    for served, predicted in (
        ("served/abdomen_002.nii.gz", "masks/abdomen_002.nii.gz"),
        ("served_dicom/abdomen_002.nii.gz", "for_pacs/abdomen_002.nii.gz"),
    ):
        one, other = (read_label(folder / name).array for name in (served, predicted))
        np.testing.assert_array_equal(one, other)
    for name in ("for_pacs/abdomen_002.seg.dcm", "for_pacs/abdomen_002.rtstruct.dcm"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "served_dicom/abdomen_002.seg.dcm").stat().st_size > 0
