import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from small_cases import LABEL_MAP, write_case, write_cases
from without_tensorflow import run_without_tensorflow

from fcnseg.beam.job_state import Output
from fcnseg.conversion.rejects import opened
from fcnseg.errors import DatasetError, InputError
from fcnseg.records import SPLITS, Record, read_cases, read_dataset_info, read_tfrecord
from fcnseg.records.decoding import decode_record
from fcnseg.records.small_splits import find_small_splits
from fcnseg.volumes import read_ct, read_geometry, read_label, write_volume
from pipelines.convert_ct import ConvertCt, main
from pipelines.runners import beam_options, local_runner

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path / "in")


def command(cases: Path, output: Path, **flags) -> ConvertCt:
    return ConvertCt(
        cases=str(cases),
        label_map=str(cases.with_name("label_map.yaml")),
        output=str(output),
        **{"spacing_mm": (10.0, 7.5, 7.5), "test_fraction": 0.3, **flags},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_case_arrives_once_in_the_split_of_its_patient(cases, tmp_path):
    command(cases, tmp_path / "out").run()

    info = read_dataset_info(tmp_path / "out")
    patients = {}
    for split in SPLITS:
        records = [
            decode_record(data)
            for shard in info.splits[split].shards
            for data in read_tfrecord(tmp_path / "out" / shard.name)
        ]
        ids = [record["case_id"].numpy().decode() for record in records]
        assert tuple(sorted(ids)) == info.splits[split].case_ids
        assert len(ids) == info.splits[split].cases
        histogram = sum((record["class_histogram"].numpy() for record in records), np.zeros(3))
        assert tuple(histogram) == info.splits[split].class_histogram
        for record in records:
            patients.setdefault(record["patient_id"].numpy(), set()).add(split)
    assert sum(split.cases for split in info.splits.values()) == 6
    assert len(patients) == 3
    assert all(len(splits) == 1 for splits in patients.values())
    assert info.class_names == ("background", "liver", "spleen")
    assert info.spacing_mm == (10.0, 7.5, 7.5)


def test_paths_may_be_urls_of_local_files(tmp_path, capsys):
    """As flags and in the list of cases; the records are those of plain paths."""
    cases = write_cases(tmp_path / "in 1", count=3)
    command(cases, tmp_path / "out").run()
    root = (tmp_path / "in 1").as_uri()
    assert root.startswith("file:///")
    assert "%20" in root
    rows = (
        cases.read_text()
        .replace(",images/", f",{root}/images/")
        .replace(",labels/", f",{root}/labels/")
    )
    cases.with_name("urls.csv").write_text(rows)
    flags = {"label_map": f"{root}/label_map.yaml", "output": f"{tmp_path.as_uri()}/of urls"}
    dataclasses.replace(command(cases, tmp_path), cases=f"{root}/urls.csv", **flags).run()
    folders = {"images": f"{root}/images", "labels": f"{root}/labels", "cases": None}
    flags |= {"output": f"FILE://localhost{tmp_path}/of folders"}
    dataclasses.replace(command(cases, tmp_path), **folders, **flags).run()

    wanted = {case.case_id: case.image.tobytes() for case in records_of(tmp_path / "out")}
    for name in ("of urls", "of folders"):
        found = {case.case_id: case.image.tobytes() for case in records_of(tmp_path / name)}
        assert found == wanted
    with pytest.raises(SystemExit) as caught:
        main(["--cases", "file://elsewhere/cases.csv", "--label_map", "m", "--output", "o"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: a file URL must be file:///FOLDER/NAME, got file://elsewhere/cases.csv"
    )


def records_of(folder: Path) -> list[Record]:
    return [case for path in sorted(folder.glob("*.tfrecord")) for case in read_cases(path)]


def test_the_manifest_describes_the_files(cases, tmp_path):
    import google_crc32c

    command(cases, tmp_path / "out").run()

    files = contents(tmp_path / "out")
    info = read_dataset_info(tmp_path / "out")
    shards = [shard for split in info.splits.values() for shard in split.shards]
    assert files.keys() == {shard.name for shard in shards} | {
        "dataset_info.json",
        "case_files.csv",
        "rejects.jsonl",
        "COMPLETED",
    }
    for shard in shards:
        assert shard.bytes == len(files[shard.name])
        assert shard.crc32c == f"{google_crc32c.value(files[shard.name]):08x}"


# One case a shard, so that workers have something to share.
FINE = {"spacing_mm": (1.5, 1.5, 1.5), "shard_mib": 1}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The list of cases, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("reference")
    cases = write_cases(folder / "in")
    command(cases, folder / "out", **FINE).run()
    return cases, contents(folder / "out")


@pytest.mark.parametrize(
    "beam_args",
    [
        ["--direct_num_workers=2"],
        ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
        ["--direct_runner_bundle_repeat=1"],
        ["--runner=BundleBasedDirectRunner"],
    ],
    ids=["two processes", "two threads", "all work done twice", "another runner"],
)
def test_bytes_depend_on_no_runner_and_no_order(reference, tmp_path, beam_args):
    cases, expected = reference
    header, *rows = cases.read_text().splitlines()
    turned = cases.with_name("turned.csv")
    turned.write_text("\n".join([header, *reversed(rows)]))

    command(turned, tmp_path / "out", **FINE).run(beam_args)

    assert len(expected) == 6 + 4
    assert contents(tmp_path / "out") == expected


def test_folders_give_the_same_records_as_a_list(cases, tmp_path):
    rows = [f"case_{n:02d},images/case_{n:02d}.nii.gz,labels/case_{n:02d}.nii.gz" for n in range(6)]
    cases.write_text("\n".join(["case_id,image,label", *rows]))
    command(cases, tmp_path / "list").run()
    ConvertCt(
        images=f"{cases.parent}/images",
        labels=f"{cases.parent}/labels",
        label_map=f"{cases.parent}/label_map.yaml",
        output=f"{tmp_path}/folders",
        spacing_mm=(10.0, 7.5, 7.5),
        test_fraction=0.3,
    ).run()
    assert contents(tmp_path / "list") == contents(tmp_path / "folders")


# -- label maps that the dataset gives


def write_dataset_json(cases: Path) -> Path:
    """A dataset.json of nnU-Net v2 beside the list of cases, which holds the same."""
    names = [path.name.removesuffix(".nii.gz") for path in (cases.parent / "images").iterdir()]
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 5, "spleen": [1, 2]},
        "dataset": {
            name: {"images": [f"images/{name}.nii.gz"], "label": f"labels/{name}.nii.gz"}
            for name in names
        },
    }
    cases.with_name("dataset.json").write_text(json.dumps(content))
    return cases.with_name("dataset.json")


def test_a_dataset_json_needs_no_label_map(cases, tmp_path, caplog):
    caplog.set_level("INFO")
    taken = tmp_path / "taken.yaml"
    source = {"dataset": str(write_dataset_json(cases)), "output": str(tmp_path / "out")}
    job = ConvertCt(**source, spacing_mm=(10.0, 7.5, 7.5), write_label_map=str(taken))
    job.run()
    info = read_dataset_info(tmp_path / "out")
    assert info.class_names == ("background", "spleen", "liver")  # by their ids
    assert sum(split.cases for split in info.splits.values()) == 6
    assert all(sum(split.class_histogram) for split in info.splits.values() if split.cases)

    # The map that was taken gives the same job; the file is kept, and no other is replaced.
    before = taken.stat().st_mtime_ns
    dataclasses.replace(job, label_map=str(taken)).run()
    assert caplog.text.count("is complete already") == 1
    assert taken.stat().st_mtime_ns == before
    text = taken.read_text()
    taken.write_text("mine")
    with pytest.raises(InputError, match=r"taken\.yaml is there already: give --overwrite"):
        job.run()
    assert taken.read_text() == "mine"
    dataclasses.replace(job, overwrite=True).run()
    assert taken.read_text() == text


def test_a_label_map_wins_over_the_names_of_a_dataset(cases, tmp_path):
    job = dataclasses.replace(
        command(cases, tmp_path / "out"), cases=None, dataset=str(write_dataset_json(cases))
    )
    job.run()
    assert read_dataset_info(tmp_path / "out").class_names == ("background", "liver", "spleen")
    cases.with_name("label_map.yaml").write_text("classes: {background: [0], liver: [5]}")
    with pytest.raises(InputError, match=r"must list each id of .*it lacks 1 \(spleen\), 2"):
        dataclasses.replace(job, output=str(tmp_path / "other")).run()
    assert not (tmp_path / "other").exists()


def test_masks_need_no_label_map(cases, tmp_path):
    for n in range(3):
        subject = tmp_path / "ts" / f"s{n}"
        (subject / "segmentations").mkdir(parents=True)
        shutil.copy(cases.parent / f"images/case_0{n}.nii.gz", subject / "ct.nii.gz")
        label = read_label(cases.parent / f"labels/case_0{n}.nii.gz")
        for name, ids in (("spleen", (1, 2)), ("liver", (5,)), ("lung", ())):
            mask = label.with_array(np.isin(label.array, ids).astype(np.uint8))
            write_volume(mask, subject / "segmentations" / f"{name}.nii.gz")
    source = {"totalsegmentator": str(tmp_path / "ts"), "spacing_mm": (10.0, 7.5, 7.5)}
    all_masks = ConvertCt(**source, output=str(tmp_path / "all"))
    all_masks.run()
    info = read_dataset_info(tmp_path / "all")
    assert info.class_names == ("background", "liver", "lung", "spleen")

    chosen = ConvertCt(**source, classes=("spleen", "liver"), output=str(tmp_path / "two"))
    chosen.run()
    two = read_dataset_info(tmp_path / "two")
    assert two.class_names == ("background", "spleen", "liver")
    voxels = [
        dict(zip(each.class_names, each.splits["train"].class_histogram, strict=True))
        for each in (info, two)
    ]
    assert voxels[0] == {**voxels[1], "lung": 0}
    with pytest.raises(DatasetError, match="another job: label_map was"):
        dataclasses.replace(all_masks, output=chosen.output).run()


# -- rejects


def spoil(cases: Path, case_id: str) -> Path:
    image = cases.parent / "images" / f"{case_id}.nii.gz"
    image.write_bytes(image.read_bytes()[:3000])
    return image


def test_good_cases_are_written_and_bad_ones_named(cases, tmp_path):
    image = spoil(cases, "case_02")
    (cases.parent / "labels" / "case_04.nii.gz").unlink()

    with pytest.raises(DatasetError, match=r"rejected 2 of 6 cases.*first:.*\(case case_02\)"):
        command(cases, tmp_path / "out").run()

    info = read_dataset_info(tmp_path / "out")
    converted = {case_id for split in info.splits.values() for case_id in split.case_ids}
    assert converted == {"case_00", "case_01", "case_03", "case_05"}
    first, second = map(json.loads, (tmp_path / "out" / "rejects.jsonl").read_text().splitlines())
    assert first.keys() == {"case_id", "stage", "code", "reason", "file", "detail"}
    assert (first["stage"], first["code"], first["file"]) == ("convert", "unreadable", str(image))
    assert (second["case_id"], second["stage"], second["code"]) == (
        "case_04",
        "inspect",
        "file_missing",
    )


def test_a_share_of_rejects_may_be_allowed(cases, tmp_path, caplog):
    spoil(cases, "case_02")
    command(cases, tmp_path / "out", max_reject_fraction=0.2).run()
    assert "rejected 1 of 6 cases" in caplog.text


def test_without_a_good_case_there_is_no_dataset(cases, tmp_path):
    for index in range(6):
        spoil(cases, f"case_{index:02d}")
    with pytest.raises(DatasetError, match="rejected 6 of 6 cases"):
        command(cases, tmp_path / "out", max_reject_fraction=1.0).run()
    with pytest.raises(DatasetError, match="COMPLETED is missing"):
        read_dataset_info(tmp_path / "out")
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) == 6


def test_a_wrong_place_in_the_list_rejects_a_case_and_the_rest_goes_on(cases, tmp_path):
    with cases.open("a") as file:
        file.write("case_00,images/case_01.nii.gz,labels/case_01.nii.gz,p0\n")
    with pytest.raises(DatasetError, match=r"rejected 2 of 7 cases.*first:.*\[duplicate_case\]"):
        command(cases, tmp_path / "out").run()
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["list", "list"]
    assert sum(split.cases for split in read_dataset_info(tmp_path / "out").splits.values()) == 5


def test_a_list_of_nothing_good_makes_no_dataset(cases, tmp_path):
    rows = cases.read_text().splitlines()[:2]
    cases.write_text("\n".join([*rows, rows[1]]))
    with pytest.raises(DatasetError, match="rejected 2 of 2 cases"):
        command(cases, tmp_path / "out").run()
    assert contents(tmp_path / "out").keys() == {"case_files.csv", "rejects.jsonl"}


# -- splits of few cases

WAYS_OUT = "convert with another --validation_fraction, another --split_seed or other splits in"
TEST_WAYS_OUT = "convert with another --test_fraction, another --split_seed or other splits in the"
# Each: flags, the split of each case in the list, and the warnings.
SMALL = {
    "all by chance in train": (
        {"validation_fraction": 0.001},
        [],
        [f"validation has 0 of 6 cases: {WAYS_OUT} the list, or train with --fold 0 --folds 5"],
    ),
    "all for training by wish": ({"validation_fraction": 0.0}, [], []),
    "no test by chance": (
        {"validation_fraction": 0.0, "test_fraction": 0.001},
        [],
        [f"test has 0 of 6 cases: {TEST_WAYS_OUT} list"],
    ),
    "none to train on": (
        {"validation_fraction": 0.998, "test_fraction": 0.001},
        ["validation"] * 4 + ["test"] * 2,
        ["train has 0 of 6 cases: convert with lower", f"test has 2 of 6 cases: {TEST_WAYS_OUT}"],
    ),
    "few in the list": (
        {},
        ["train"] * 4 + ["validation"] * 2,
        [f"validation has 2 of 6 cases: {WAYS_OUT}"],
    ),
    "enough": ({}, ["train"] * 3 + ["validation"] * 3, []),
    "without labels": ({"images_only": True, "validation_fraction": 0.001}, [], []),
}


@pytest.mark.parametrize("name", SMALL)
def test_splits_of_few_cases_are_said(cases, tmp_path, caplog, name):
    flags, splits, warnings = SMALL[name]
    _, *rows = cases.read_text().splitlines()
    rows = [row[: row.rindex(",")] for row in rows]  # each a patient of its own
    named = [f"{row},{split}" for row, split in zip(rows, splits or [""] * 6, strict=True)]
    cases.write_text("\n".join(["case_id,image,label,split", *named]))
    command(cases, tmp_path / "out", **{"test_fraction": 0.0, **flags}).run()
    said = [record.message for record in caplog.records if " cases: " in record.message]
    assert len(said) == len(warnings)
    for message, beginning in zip(said, warnings, strict=True):
        assert message.startswith(beginning)


# -- validation alone


def test_validation_writes_the_report_and_nothing_else(cases, tmp_path, caplog):
    caplog.set_level("INFO")
    spoil(cases, "case_02")
    with pytest.raises(DatasetError, match="rejected 1 of 6 cases"):
        command(cases, tmp_path / "report", validate_only=True).run()
    assert "checked 6 cases: 5 good, warnings" in caplog.text
    report = contents(tmp_path / "report")
    assert report.keys() == {"rejects.jsonl", "warnings.jsonl"}
    with pytest.raises(DatasetError, match="rejected 1 of 6 cases"):
        command(cases, tmp_path / "out").run()
    assert contents(tmp_path / "out")["rejects.jsonl"] == report["rejects.jsonl"]

    # The report is made again, and gives way to a conversion.
    write_case(cases.parent, "case_02", seed=2, shape=(14, 14, 16))
    command(cases, tmp_path / "report", validate_only=True).run()
    assert contents(tmp_path / "report")["rejects.jsonl"] == b""
    command(cases, tmp_path / "report").run()
    assert read_dataset_info(tmp_path / "report").splits["train"].cases > 0


def test_a_dataset_is_not_replaced_by_a_report(cases, tmp_path):
    command(cases, tmp_path / "out").run()
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="output must be empty"):
        command(cases, tmp_path / "out", validate_only=True).run()
    assert contents(tmp_path / "out") == before


# -- what is in the records


def records_in(folder: Path) -> dict[str, Record]:
    return {
        record.case_id: record
        for split in read_dataset_info(folder).splits.values()
        for shard in split.shards
        for record in read_cases(folder / shard.name)
    }


def test_a_large_case_takes_several_records_and_reads_as_if_it_took_one(cases, tmp_path):
    command(cases, tmp_path / "whole", **FINE).run()
    command(cases, tmp_path / "divided", **FINE, max_record_mib=1).run()
    whole, divided = (read_dataset_info(tmp_path / name) for name in ("whole", "divided"))
    sizes = {name: 3 * record.image.size for name, record in records_in(tmp_path / "whole").items()}
    large = {name for name, size in sizes.items() if size > 2**20}
    assert 0 < len(large) < 6
    assert {name for split in divided.splits.values() for name in split.divided} == large
    assert not any(split.divided for split in whole.splits.values())
    assert divided.fingerprint == whole.fingerprint
    joined = records_in(tmp_path / "divided")
    for name, record in records_in(tmp_path / "whole").items():
        np.testing.assert_array_equal(joined[name].image, record.image)
        np.testing.assert_array_equal(joined[name].label, record.label)


def test_images_alone_become_records_without_labels(cases, tmp_path):
    (cases.parent / "labels" / "case_04.nii.gz").unlink()  # it is not looked at
    command(cases, tmp_path / "out", images_only=True).run()
    info = read_dataset_info(tmp_path / "out")
    assert not info.labelled
    assert sum(split.cases for split in info.splits.values()) == 6
    (record, *_) = read_cases(tmp_path / "out" / info.splits["train"].shards[0].name)
    assert record.label is None
    assert info.fingerprint.foreground_hu is None


def test_the_fingerprint_tells_of_files_and_records(cases, tmp_path):
    command(cases, tmp_path / "out").run()
    info = read_dataset_info(tmp_path / "out")
    found = info.fingerprint
    records = records_in(tmp_path / "out").values()
    assert found.hu.voxels == sum(record.image.size for record in records)
    hu = np.concatenate([record.image.ravel() for record in records])
    assert found.hu.mean == pytest.approx(hu.mean(dtype=float))
    assert [case.case_id for case in found.cases] == [f"case_{n:02d}" for n in range(6)]
    assert found.orientations == {"LPS": 6}
    assert [item.voxels for item in found.classes] == list(
        sum(np.array(split.class_histogram) for split in info.splits.values())
    )


# -- what Beam counts


def test_beam_counts_cases_rejects_bytes_and_time_of_each_stage(cases, tmp_path):
    spoil(cases, "case_02")
    (cases.parent / "labels" / "case_04.nii.gz").unlink()
    job = command(cases, tmp_path / "out")
    pipeline = beam.Pipeline(runner=local_runner(PipelineOptions([])))
    preprocessing = job.preprocessing()
    listed = job.list_cases(preprocessing.label_map)
    job.build(pipeline, listed, preprocessing, output=Output(str(tmp_path / "out"), "{}"))
    metrics = pipeline.run().metrics().query()
    counted = {counter.key.metric.name: counter.committed for counter in metrics["counters"]}
    info = read_dataset_info(tmp_path / "out")
    shards = [shard for split in info.splits.values() for shard in split.shards]
    assert counted == {
        "inspect_cases": 6,
        "inspect_rejects": 1,
        "inspect_rejects_file_missing": 1,
        "convert_cases": 5,
        "convert_rejects": 1,
        "convert_rejects_unreadable": 1,
        "convert_bytes": sum(shard.bytes for shard in shards),
    }
    spread = {item.key.metric.name: item.committed for item in metrics["distributions"]}
    assert spread["inspect_milliseconds"].count == 6
    assert spread["convert_milliseconds"].count == 5


# -- the output folder


def test_a_finished_output_stays_unless_it_is_to_be_overwritten(cases, tmp_path, caplog):
    caplog.set_level("INFO")
    command(cases, tmp_path / "out").run()
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    command(cases, tmp_path / "out").run()
    assert "is complete already" in caplog.text
    assert contents(tmp_path / "out") == before | {"notes.txt": b"mine"}

    command(cases, tmp_path / "out", spacing_mm=(20.0, 20.0, 20.0), overwrite=True).run()
    assert read_dataset_info(tmp_path / "out").spacing_mm == (20.0, 20.0, 20.0)
    assert (tmp_path / "out" / "notes.txt").exists()


FEWER, TURNED = "fewer.csv", "turned.csv"
# The flags that determine nothing of the output.
FREE = {
    *("output", "images", "labels", "dataset", "totalsegmentator", "classes", "write_label_map"),
    *("validate_only", "overwrite", "resume", "max_reject_fraction"),
}
OTHER_JOBS = {
    "spacing_mm": ({"spacing_mm": (20.0, 20.0, 20.0)}, r"spacing_mm was \[10.0, 7.5, 7.5\] and is"),
    "split_seed": ({"split_seed": 7}, "split_seed was 0 and is 7 now"),
    "accept": (
        {"accept": ("label_empty",)},
        r'checks.accept was \[\] and is \["label_empty"\] now',
    ),
    "validation_fraction": (
        {"validation_fraction": 0.5},
        "validation_fraction was 0.2 and is 0.5 now",
    ),
    "test_fraction": ({"test_fraction": 0.0}, "test_fraction was 0.3 and is 0.0 now"),
    "on_mismatch": (
        {"on_mismatch": "trust_image"},
        'checks.on_mismatch was "reject" and is "trust_image" now',
    ),
    "geometry_tolerance_mm": (
        {"geometry_tolerance_mm": 1.0},
        "checks.geometry_tolerance_mm was 0.01 and is 1.0 now",
    ),
    "max_case_voxels": ({"max_case_voxels": 10**6}, "checks.max_case_voxels was 1073741824 and"),
    "shard_mib": ({"shard_mib": 64}, "shard_mib was 128 and is 64 now"),
    "max_record_mib": ({"max_record_mib": 64}, "max_record_mib was 512 and is 64 now"),
    "ignored": ({"label_map": "ignored.yaml"}, r"ignored was \[\] and is \[9\] now"),
    "unlisted": ({"label_map": "unlisted.yaml"}, 'unlisted was "reject" and is "background" now'),
    "patients": ({"cases": "patients.csv"}, "cases: others were listed, or other files, patients"),
    "splits": ({"cases": "splits.csv"}, "cases: others were listed, or other files, patients"),
    "label_map": ({"label_map": "other.yaml"}, "label_map was .*liver.* and is .*spleen"),
    "cases": ({"cases": FEWER}, "cases: others were listed"),
    "images_only": ({"images_only": True}, "(cases|images_only)"),
}


def beside(cases: Path, flags: dict) -> dict:
    """The flags, with the paths of files that lie beside the list of cases."""
    return {
        flag: str(cases.with_name(value)) if flag in ("cases", "label_map") else value
        for flag, value in flags.items()
    }


@pytest.mark.parametrize("name", OTHER_JOBS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_output_of_another_job_is_refused(finished, name, resume):
    cases, output = finished
    before = contents(output)
    flags, difference = OTHER_JOBS[name]
    other = dataclasses.replace(command(cases, output, resume=resume), **beside(cases, flags))
    with pytest.raises(DatasetError, match=f"finished dataset of another job: {difference}"):
        other.run()
    assert contents(output) == before


def test_table_of_other_jobs_is_complete():
    of_table = {flag for flags, _ in OTHER_JOBS.values() for flag in flags}
    assert of_table == ConvertCt.__dataclass_fields__.keys() - FREE


# The same job in other words; none of these changes a byte of the output.
SAME_JOBS = {
    "order of the cases": {"cases": TURNED},
    "max_reject_fraction": {"max_reject_fraction": 0.5},
    "resume": {"resume": True},
}


@pytest.mark.parametrize("name", SAME_JOBS)
def test_a_finished_output_is_of_the_same_job_in_other_words(finished, caplog, name):
    cases, output = finished
    caplog.set_level("INFO")
    before = contents(output)
    dataclasses.replace(command(cases, output), **beside(cases, SAME_JOBS[name])).run()
    assert "is complete already" in caplog.text
    assert contents(output) == before


def test_a_finished_output_tells_again_of_its_rejects(cases, tmp_path, caplog):
    caplog.set_level("INFO")
    spoil(cases, "case_02")
    for attempt in range(2):
        with pytest.raises(DatasetError, match=r"rejected 1 of 6 cases.*first:.*case_02\)"):
            command(cases, tmp_path / "out").run()
        assert caplog.text.count("complete already") == attempt
    before = contents(tmp_path / "out")
    write_case(cases.parent, "case_02", seed=2, shape=(14, 14, 16))
    command(cases, tmp_path / "out", resume=True, max_reject_fraction=0.2).run()
    assert "whose files were repaired needs --overwrite, which converts all" in caplog.text
    assert contents(tmp_path / "out") == before
    command(cases, tmp_path / "out", overwrite=True).run()
    info = read_dataset_info(tmp_path / "out")
    assert sum(split.cases for split in info.splits.values()) == 6


def test_a_scan_under_two_names_is_asked_for(cases, tmp_path, caplog):
    command(cases, tmp_path / "out").run()
    assert "is it one scan" not in caplog.text
    for folder in ("images", "labels"):
        shutil.copy(cases.parent / folder / "case_02.nii.gz", cases.parent / folder / "copy.nii.gz")
    with cases.open("a") as file:
        file.write("copy,images/copy.nii.gz,labels/copy.nii.gz,another\n")
    command(cases, tmp_path / "again").run()
    assert re.search(r"cases case_02 \(\w+\), copy \(\w+\) have the same size", caplog.text)


@pytest.mark.parametrize("which", ["images", "labels"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_output_of_replaced_files_is_refused(cases, tmp_path, which, resume):
    output = tmp_path / "out"
    command(cases, output).run()
    before = contents(output)
    file = cases.parent / which / "case_02.nii.gz"
    file.write_bytes(file.read_bytes())
    with pytest.raises(DatasetError, match=rf"must not be newer .*, got {file}: .*--overwrite"):
        command(cases, output, resume=resume).run()
    assert contents(output) == before
    command(cases, output, overwrite=True).run()
    command(cases, output).run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A list of cases, beside it another one and another label map, and the finished output."""
    folder = tmp_path_factory.mktemp("finished")
    cases = write_cases(folder)
    cases.with_name(FEWER).write_text("\n".join(cases.read_text().splitlines()[:-1]))
    other = "classes:\n  background: [0]\n  spleen: [1, 2]\n  liver: [5]\n"
    cases.with_name("other.yaml").write_text(other)
    cases.with_name("ignored.yaml").write_text(LABEL_MAP + "ignored: [9]\n")
    cases.with_name("unlisted.yaml").write_text(LABEL_MAP + "unlisted: background\n")
    header, *rows = cases.read_text().splitlines()
    cases.with_name("patients.csv").write_text(cases.read_text().replace(",p2", ",p1"))
    split = [f"{header},split", *(f"{row},train" for row in rows)]
    cases.with_name("splits.csv").write_text("\n".join(split))
    cases.with_name(TURNED).write_text("\n".join([header, *reversed(rows)]))
    command(cases, folder / "out").run()
    return cases, folder / "out"


def test_of_an_older_output_as_much_is_compared_as_it_tells(finished, tmp_path, caplog):
    cases, output = finished
    older = shutil.copytree(output, tmp_path / "older")
    (older / "COMPLETED").write_bytes(b"")
    caplog.set_level("INFO")
    command(cases, older).run()
    assert "is complete already" in caplog.text
    with pytest.raises(DatasetError, match="split_seed was 0 and is 1 now"):
        command(cases, older, split_seed=1).run()


@pytest.mark.parametrize("content", [b"[1]", b"null", b'{"schema": ', bytes(300)], ids=len)
def test_a_marker_that_is_not_whole_says_what_to_do(finished, tmp_path, content):
    cases, output = finished
    broken = shutil.copytree(output, tmp_path / "broken")
    (broken / "COMPLETED").write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"incomplete or corrupt job state: .*COMPLETED: .*--overwrite"
    ):
        command(cases, broken).run()


def test_an_unfinished_output_is_refused_and_can_be_overwritten(cases, tmp_path):
    output = tmp_path / "out [1]"  # characters that a pattern would take for its own
    command(cases, output).run()
    whole = contents(output)
    (output / "COMPLETED").unlink()
    (output / ".tmp-1").mkdir()
    (output / ".tmp-1" / "0-train-00000-of-00001.tfrecord").write_bytes(b"half")
    (output / "train-00007-of-00008.tfrecord").write_bytes(b"old")

    with pytest.raises(DatasetError, match=rf"got {re.escape(str(output))} with .*--overwrite"):
        command(cases, output).run()
    command(cases, output, overwrite=True).run()
    assert contents(output) == whole


def test_a_job_that_dies_leaves_nothing_that_looks_whole(cases, tmp_path):
    # The disk is full, as far as this process can tell: no file grows beyond 8 KiB.
    script = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
from fcnseg.volumes import read_ct, read_geometry
from pipelines.convert_ct import main
main({argv(cases, tmp_path / "out")})
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "File too large" in result.stderr
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in left)
    assert names == [".state/job.json", ".state/plan.json", "case_files.csv"]  # to resume


# -- flags


def argv(cases: Path, output: Path, *more: str) -> list[str]:
    label_map = cases.with_name("label_map.yaml")
    return ["--cases", f"{cases}", "--label_map", f"{label_map}", "--output", f"{output}", *more]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--spacing_mn", "1", "1", "1"], "unknown flag: --spacing_mn 1 1 1"),
        (["--spacing_mm", "1", "1", "1", "1"], "unknown flag: 1"),
        (["--spacing_mm", "1", "0", "1"], "in mm, 0.2 to 100, got (1.0, 0.0, 1.0)"),
        (["--images", "images"], "or from --totalsegmentator, one of them"),
        (["--validation_fraction", "1"], "must be below 1, got 1.0 and 0.0"),
        (["--shard_mib", "0"], "shard_mib must be positive, got 0"),
        (["--max_reject_fraction", "7"], "max_reject_fraction must be from 0 to 1, got 7.0"),
        (["--cases", "missing.csv"], "no such file: missing.csv"),
        (["--label_map", "missing.yaml"], "label map missing.yaml cannot be read"),
        (["--s3_endpoint_url", "http://a"], "does not apply: set AWS_ENDPOINT_URL_S3 in the"),
        (["--hdfs_host", "a"], "--hdfs_host does not apply: set FSSPEC_HDFS_HOST in"),
        (["--s3_disable_ssl"], "--s3_disable_ssl does not apply: set FSSPEC_S3_USE_SSL in"),
        (["--output", "nowhere://out"], "no file system opens nowhere://, got nowhere://out"),
        (["--output", __file__], f"output must be a folder, got the file {__file__}"),
    ],
)
def test_a_wrong_flag_is_one_line_and_an_exit_status(cases, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as exit_info:
        main(argv(cases, tmp_path / "out", *flags))
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_info.value.code == 2
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_images_and_labels_go_together(tmp_path):
    with pytest.raises(InputError, match="--images and --labels go together"):
        ConvertCt(images="images", label_map="map.yaml", output=str(tmp_path / "out")).run()


def test_the_command_runs_where_tensorflow_cannot_be_imported(cases, tmp_path):
    result = run_without_tensorflow("pipelines.convert_ct", *argv(cases, tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1].startswith("records are in ")
    # Splits, warnings, small splits, the folder; nothing of Beam's.
    info = read_dataset_info(tmp_path / "out")
    small = find_small_splits(info)
    assert len(result.stderr.splitlines()) == 3 + 1 + len(small) + 1
    assert sum(s.cases for s in info.splits.values()) == 6


def test_help_names_every_flag():
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.convert_ct", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(ConvertCt.__dataclass_fields__) <= set(re.findall(r"--(\w+)", result.stdout))


def test_no_runner_is_fetched_from_the_network():
    """DirectRunner would fetch Prism; ours is taken unless the user names one."""
    assert type(local_runner(PipelineOptions([]))).__name__ == "FnApiRunner"
    assert local_runner(PipelineOptions(["--runner=DirectRunner"])) is None


# Options of runners in other languages, which Beam for Python does not know, and of Dask.
OF_RUNNERS = [
    *(
        "--numberOfExecutionRetries=2",
        "--maxParallelism=4",
        "--checkpointingInterval=9",
        "--jobName=a",
    ),
    *("--sparkMaster=local", "--checkpointDir=/a", "--stateBackend=b", "--filesToStage=c"),
    *("--npartitions=4", "--dask_client_address=a:1", "--autoBalanceWriteFilesShardingEnabled"),
]


@pytest.mark.parametrize("flag", OF_RUNNERS)
def test_options_of_a_named_runner_are_left_to_it(flag):
    known = ConvertCt.__dataclass_fields__
    assert beam_options(["--runner=FlinkRunner", flag], known=known) is not None
    with pytest.raises(InputError, match=f"unknown flag: {flag}"):
        beam_options(["--environment_type=LOOPBACK", flag], known=known)


@pytest.mark.parametrize("name", ConvertCt.__dataclass_fields__)
@pytest.mark.parametrize("runner", ["--runner=FlinkRunner", "--direct_num_workers=2"])
def test_a_flag_with_a_slip_never_reaches_the_runner(name, runner):
    known = ConvertCt.__dataclass_fields__
    for slip in (name[:-1], name[0] + name):
        for flag in ([f"--{slip}=a"], [f"--{slip.replace('_', '-')}", "a"]):
            with pytest.raises(InputError, match=f"did you mean .*--{name}"):
                beam_options([runner, *flag], known=known)


# -- other file systems


@pytest.fixture
def store(cases, objects):
    """The cases in an object store."""
    # Longer than what is copied to read a header.
    write_case(cases.parent, "case_00", seed=0, shape=(90, 90, 90))
    objects.update(
        {
            f"memory://scans/{path.relative_to(cases.parent)}": path.read_bytes()
            for path in cases.parent.rglob("*.*")
        }
    )
    return objects


REMOTE = {
    "cases": "memory://scans/cases.csv",
    "label_map": "memory://scans/label_map.yaml",
    "output": "memory://records/v1",
}


def test_an_object_store_holds_the_same_bytes_as_a_folder(cases, store, tmp_path, caplog):
    caplog.set_level("INFO")
    local, remote = command(cases, tmp_path / "out"), command(cases, tmp_path / "out")
    remote = dataclasses.replace(remote, **REMOTE)
    local.run()
    remote.run()
    records = {
        path.removeprefix("memory://records/v1/"): content
        for path, content in store.items()
        if path.startswith("memory://records/")
    }
    local_files = contents(tmp_path / "out")
    here, there = (json.loads(of.pop("COMPLETED")) for of in (local_files, records))
    assert here | {"cases": there["cases"]} == there  # whose paths are others
    paths = (
        local_files.pop("case_files.csv").decode().replace(str(tmp_path / "in"), "memory://scans")
    )
    assert records.pop("case_files.csv").decode() == paths
    assert records == local_files

    remote.run()
    assert "memory://records/v1 is complete already" in caplog.text
    dataclasses.replace(remote, overwrite=True).run()
    assert json.loads(store["memory://records/v1/COMPLETED"])["split_seed"] == 0


def test_no_more_of_a_large_file_is_copied_than_holds_its_header(store):
    name = "memory://scans/images/case_00.nii.gz"
    with opened(name, header_only=True) as path:
        assert path.stat().st_size == 2**20 < len(store[name])
        assert read_geometry(path).shape == (90, 90, 90)


def test_rejects_name_the_file_in_the_store_not_a_copy_of_it(cases, store, tmp_path):
    image, label = "memory://scans/images/case_02.nii.gz", "memory://scans/labels/case_04.nii.gz"
    store[image] = store[image][:3000]
    store[label] = b"junk"
    remote = dataclasses.replace(command(cases, tmp_path / "out"), **REMOTE)
    with pytest.raises(DatasetError, match="rejected 2 of 6 cases"):
        remote.run()
    lines = store["memory://records/v1/rejects.jsonl"].decode().splitlines()
    for line, file in zip(map(json.loads, lines), (image, label), strict=True):
        assert line["file"] == file
        assert file in line["reason"]
        assert "/tmp" not in line["reason"]


# -- real scans


@pytest.mark.real_data
def test_a_real_scan_arrives_with_all_its_organs(real_data, tmp_path):
    scan = real_data / "abdomen_ct_sm"
    (tmp_path / "cases.csv").write_text(
        f"case_id,image,label\nabdomen,{scan}/ct.nii.gz,{scan}/label.nii.gz\n"
    )
    ConvertCt(
        cases=f"{tmp_path}/cases.csv",
        label_map=f"{real_data}/organs7.yaml",
        output=f"{tmp_path}/out",
        spacing_mm=(3.0, 3.0, 3.0),
        validation_fraction=0,
    ).run()

    info = read_dataset_info(tmp_path / "out")
    (data,) = read_tfrecord(tmp_path / "out" / info.splits["train"].shards[0].name)
    record = decode_record(data)
    source = read_ct(scan / "ct.nii.gz")
    # 3 mm isotropic and RAS already, as its README says: nothing is to change.
    np.testing.assert_array_equal(record["image"], source.array)
    assert info.class_names[1:] == (
        "artery",
        "vein",
        "liver",
        "spleen",
        "stomach",
        "gallbladder",
        "pancreas",
    )
    assert min(info.splits["train"].class_histogram) > 0
