"""Every malformed case is rejected with its code, and the good ones beside it arrive."""

from __future__ import annotations

import csv
import json
import re

import pytest
from malformed import MALFORMED, ODD, make_files
from small_cases import LABEL_MAP

from fcnseg.conversion.rejects import CODES
from fcnseg.errors import DatasetError
from fcnseg.records import read_dataset_info
from pipelines.convert_ct import ConvertCt


def convert(folder, spoils, **flags):
    """Converts cases; returns their files, the rejects by case, and the ids that arrive."""
    files = {
        name: make_files(folder / name.replace(" ", "_"), spoil) for name, spoil in spoils.items()
    }
    with open(folder / "cases.csv", "w", newline="") as file:
        rows = [(name, of.image, of.label) for name, of in files.items()]
        csv.writer(file).writerows([("case_id", "image", "label"), *rows])
    (folder / "label_map.yaml").write_text(LABEL_MAP)
    command = ConvertCt(
        cases=f"{folder}/cases.csv",
        label_map=f"{folder}/label_map.yaml",
        output=f"{folder}/out",
        spacing_mm=(10.0, 7.5, 7.5),
        **flags,
    )
    with pytest.raises(DatasetError, match=r"rejected \d+ of \d+ cases"):
        command.run()
    lines = (folder / "out" / "rejects.jsonl").read_text().splitlines()
    rejects = {reject["case_id"]: reject for reject in map(json.loads, lines)}
    assert len(rejects) == len(lines)
    splits = read_dataset_info(folder / "out").splits.values()
    return files, rejects, {case_id for split in splits for case_id in split.case_ids}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """What becomes of all malformed and all odd cases in one run."""
    spoils = {name: case.spoil for name, case in MALFORMED.items()}
    return convert(tmp_path_factory.mktemp("cases"), spoils | {n: s for n, (s, _) in ODD.items()})


def test_at_least_so_many_ways_to_be_malformed_are_known():
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_case_is_rejected_with_its_code(converted, name):
    files, rejects, arrived = converted
    wanted, found = MALFORMED[name], rejects[name]
    assert (found["code"], found["stage"]) == (wanted.code, wanted.stage), found["reason"]
    assert re.search(wanted.reason, found["reason"])
    assert "\n" not in found["reason"]
    assert found["file"] == str(files[name].named(wanted.blamed))
    assert name not in arrived


def test_the_good_cases_beside_them_arrive(converted):
    _, rejects, arrived = converted
    assert arrived == ODD.keys()
    assert rejects.keys() == MALFORMED.keys()


def test_every_code_is_the_outcome_of_a_malformed_case():
    elsewhere = {"missing_extra", "unexpected_error"}  # below
    assert {case.code for case in MALFORMED.values()} | elsewhere == CODES.keys()
