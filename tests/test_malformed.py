"""Every malformed case is rejected with its code, and the good ones beside it arrive."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from malformed import MALFORMED, ODD, UNLUCKY, UNREADABLE, Files, Malformed, make_files, no_spoil
from small_cases import LABEL_MAP

from fcnseg.codes import ACCEPTABLE, CODES, WARNINGS, commands_of
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import CaseError
from fcnseg.errors import DatasetError
from fcnseg.evaluation.cases import CaseFiles, read_case
from fcnseg.records import read_dataset_info
from fcnseg.volumes import LabelMap, read_label, write_mask
from fcnseg.volumes.formats.raw_voxels import FileVoxels
from pipelines.convert_ct import ConvertCt

LABELS = LabelMap.from_mapping(yaml.safe_load(LABEL_MAP))

COLUMNS = ("case_id", "image", "label", "patient_id", "split")

SMALL_AND_LARGE = {"accept": ("field_of_view_implausible",), "max_case_voxels": 2**62}


@dataclasses.dataclass
class Outcome:
    """What became of a list of cases: their files, their rejects, the others' warnings."""

    files: dict[str, Files]
    rejects: dict[str, list[dict[str, str]]]
    warnings: dict[str, set[str]]


def convert(folder: Path, malformed: dict[str, Malformed], odd, **flags) -> Outcome:
    """Converts malformed and odd cases of one list."""
    spoils = {name: case.spoil for name, case in malformed.items()} | odd
    files = {name: make_files(folder / re.sub(r"\W", "_", name), spoils[name]) for name in spoils}
    with open(folder / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name, of in files.items():
            for row in malformed[name].rows if name in malformed else ({},):
                writer.writerow({"case_id": name, "image": of.image, "label": of.label} | row)
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
    return outcome(folder / "out", files)


def outcome(folder: Path, files: dict[str, Files]) -> Outcome:
    rejects = defaultdict(list)
    for reject in map(json.loads, (folder / "rejects.jsonl").read_text().splitlines()):
        rejects[reject["case_id"].removesuffix(" again")].append(reject)
    cases = read_dataset_info(folder).fingerprint.cases
    return Outcome(
        files, rejects, {case.case_id: {odd.code for odd in case.warnings} for case in cases}
    )


def check_rejects(name: str, wanted: Malformed, found: Outcome) -> None:
    rejects = found.rejects[name]
    assert len(rejects) == len(wanted.rows)
    for reject in rejects:
        assert reject["code"] == wanted.code, reject["reason"]
        assert reject["stage"] in wanted.stage.split(" or ")
        assert re.search(wanted.reason, reject["reason"])
        assert "\n" not in reject["reason"]
        file = found.files[name].named(wanted.blamed) if wanted.blamed else ""
        assert reject["file"] == str(file)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """What becomes of all malformed and all odd cases in one run."""
    odd = {name: spoil for name, (spoil, _) in ODD.items()}
    return convert(tmp_path_factory.mktemp("cases"), MALFORMED, odd)


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory):
    """What becomes of all that no reader takes, in another run."""
    folder = tmp_path_factory.mktemp("unreadable")
    return convert(folder, UNREADABLE, {"good": no_spoil}, **SMALL_AND_LARGE)


def test_at_least_so_many_ways_to_be_malformed_are_known():
    assert len(MALFORMED | UNREADABLE) >= 100


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_case_is_rejected_with_its_code(converted, name):
    check_rejects(name, MALFORMED[name], converted)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_no_reader_takes_is_rejected_with_its_code(unreadable, name):
    check_rejects(name, UNREADABLE[name], unreadable)


def test_the_good_cases_beside_them_arrive(converted, unreadable):
    assert converted.warnings.keys() == ODD.keys()
    assert converted.rejects.keys() == MALFORMED.keys()
    assert unreadable.warnings.keys() == {"good"}
    assert unreadable.rejects.keys() == UNREADABLE.keys()


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_told_with_the_case(converted, name):
    _, codes = ODD[name]
    assert converted.warnings[name] == codes | {"thick_slices"}


READ = FileVoxels.read


def read_with_little_memory(self):
    if "no_memory" in self.path:
        raise MemoryError("no room for voxels")
    return READ(self)


def test_a_poor_machine_rejects_what_it_cannot_do_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setattr(FileVoxels, "read", read_with_little_memory)
    found = convert(tmp_path, UNLUCKY, {"good": no_spoil}, **SMALL_AND_LARGE)
    for name, wanted in UNLUCKY.items():
        check_rejects(name, wanted, found)
    assert found.rejects.keys() == UNLUCKY.keys()
    assert found.warnings.keys() == {"good"}


# -- the other commands: the gate that predict and the client read images by, and evaluate


def codes_of_gate(image: Path) -> set[str]:
    """What predict and the client say of an image."""
    try:
        gate = Gate(CheckOptions(**SMALL_AND_LARGE))
        gate.inspect(str(image), case_id="case")
        _, warnings = gate.read(str(image), case_id="case")
    except CaseError as error:
        return {error.code}
    return {warning.code for warning in warnings}


def codes_of_evaluation(mask: Path, files: Files) -> set[str]:
    """What evaluate says of a case, whose mask is the good label."""
    try:
        case = read_case(CaseFiles("case", mask, files.label), LABELS)
    except CaseError as error:
        return {error.code}
    return {warning.code for warning in case.warnings}


# Tried with codes accepted that `convert` above rejects them for.
SKIPPED = {"unexpected_error", "missing_extra", "file_missing", "too_large"}


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mask")
    label = read_label(make_files(folder, no_spoil).label)
    write_mask(LABELS.apply(label.array), folder / "case.nii.gz", like=label)
    return folder / "case.nii.gz"


@pytest.mark.parametrize("name", [*MALFORMED, *UNREADABLE])
def test_the_other_commands_give_the_codes_that_the_page_says(mask, tmp_path, name):
    case = (MALFORMED | UNREADABLE)[name]
    if case.stage == "list" or case.code in SKIPPED | set(SMALL_AND_LARGE["accept"]):
        return
    files = make_files(tmp_path / "case", case.spoil)
    commands = commands_of(case.code)
    if case.blamed == "image":
        assert case.code in codes_of_gate(files.image)
        assert {"predict", "client"} <= set(commands)
    else:
        found = codes_of_evaluation(mask, files)
        assert case.code in found
        assert "evaluate" in commands


def test_every_code_is_the_outcome_of_a_case():
    cases = [*MALFORMED.values(), *UNREADABLE.values(), *UNLUCKY.values()]
    assert {case.code for case in cases} == {c for c in CODES if "convert" in commands_of(c)}
    odd = set.union(*(codes for _, codes in ODD.values()))
    # Of a reader's or of another grid's warnings tell test_dicom.py and test_labels.py.
    elsewhere = {code for code in WARNINGS if code.startswith(("dicom_", "label_"))}
    assert odd | elsewhere | {"thick_slices"} == WARNINGS.keys()


# -- what the user accepts


def test_what_is_accepted_arrives_with_a_warning(tmp_path):
    accepted = {name: case for name, case in MALFORMED.items() if case.code in ACCEPTABLE}
    assert {case.code for case in accepted.values()} == set(ACCEPTABLE)
    rejected = {"cut": MALFORMED["image cut"]}
    found = convert(
        tmp_path,
        rejected,
        {name: case.spoil for name, case in accepted.items()},
        accept=ACCEPTABLE,
    )
    assert found.rejects.keys() == rejected.keys()
    for name, case in accepted.items():
        assert case.code in found.warnings[name]
