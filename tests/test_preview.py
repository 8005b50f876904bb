"""The page that shows patches before and after augmentation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from small_records import write_small_dataset

from fcnseg.cli.command import parse, run_command
from fcnseg.cli.preview import PreviewCommand, patch_pairs
from fcnseg.config import PRESETS
from fcnseg.records import Dataset

SMALL = "--patches.size 16 20 24 --patches.shuffle_buffer 2 --inference.overlap 0 0 0".split()
NEAR = "--augmentation.translation_voxels 2 2 2".split()  # more would reach beyond so small a case


def test_page_shows_each_patch_twice(tmp_path):
    folder = write_small_dataset(tmp_path / "records")
    output = tmp_path / "page.html"
    run_command(
        PreviewCommand, [str(folder), "--output", str(output), "--count", "2", *SMALL, *NEAR]
    )
    text = output.read_text()
    assert text.count("data:image/png;base64,") == 4
    assert len(re.findall(r"Patch \d, case case_\d", text)) == 2
    assert "deformation_voxels (4.0, 4.0, 4.0)" in text  # of the paper, by default
    assert "spleen" in text
    pictures = re.findall(r"base64,([^\"]+)", text)
    assert len(set(pictures)) == 4


@pytest.mark.slow
def test_the_same_places_before_and_after(tmp_path):
    folder = write_small_dataset(tmp_path / "records")
    still = ["--config", "demo", *SMALL, "--augmentation.brightness_hu", "50"]
    command = parse(
        PreviewCommand,
        [str(folder), "--output", "-", *still, "--augmentation.intensity_probability", "1"],
    )
    pairs = patch_pairs(Dataset.open(folder), command.config, count=command.count)
    assert len(pairs) == 6
    for before, after in pairs:
        np.testing.assert_array_equal(before.label, after.label)
        assert before.case_id == after.case_id
        (shift,) = np.unique((after.hu - before.hu)[before.hu > -800])
        assert 0 < abs(shift) <= 50


def test_paper_is_the_default_and_flags_override_it(tmp_path):
    command = parse(
        PreviewCommand, ["records", "--output", "page.html", "--patches.samples_per_volume", "2"]
    )
    assert command.config.augmentation == PRESETS["roth2018"].augmentation
    assert command.config.patches.samples_per_volume == 2


def test_missing_folder_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_command(PreviewCommand, [str(tmp_path / "nowhere"), "--output", "page.html"])
    assert "no such folder of records" in capsys.readouterr().err
