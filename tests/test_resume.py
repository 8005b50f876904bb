"""Jobs that are killed and go on: the output is that of an undisturbed run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from killed_job import run_and_kill
from small_cases import write_cases

from fcnseg.beam import progress
from fcnseg.beam.job_state import STATE, Output, job_text
from fcnseg.beam.progress import JobProgress, Watch
from fcnseg.beam.shard_writer import ShardWriter
from fcnseg.conversion.shards import SizedCase, plan_shards
from fcnseg.errors import DatasetError, InputError
from pipelines.convert_ct import ConvertCt

# Records of 14 MB, each in a shard of its own: long enough on the way to be met there.
FLAGS = {"spacing_mm": (0.6, 0.6, 0.6), "shard_mib": 1}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("in"))


@pytest.fixture(scope="module")
def undisturbed(cases, tmp_path_factory):
    """What a run makes that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    job(cases, folder).run()
    return contents(folder)


def job(cases: Path, output: Path, **flags) -> ConvertCt:
    return ConvertCt(
        cases=str(cases),
        label_map=str(cases.with_name("label_map.yaml")),
        output=str(output),
        **{**FLAGS, **flags},
    )


def argv(cases: Path, output: Path) -> list[str]:
    label_map = cases.with_name("label_map.yaml")
    return [
        *("--cases", f"{cases}", "--label_map", f"{label_map}", "--output", f"{output}"),
        *("--spacing_mm", "0.6", "0.6", "0.6", "--shard_mib", "1"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("*.tfrecord")}


# Each: what the output folder looks like when the job is killed.
MOMENTS = {
    "nothing is planned": lambda out: (out / STATE / "job.json").exists(),
    "the first shard is on its way": lambda out: any(out.glob(".tmp-*/*.tfrecord")),
    "a shard is noted": lambda out: any((out / STATE).glob("train-*.json")),
    "a shard is whole": lambda out: len(shards(out)) >= 1,
    "all but one are whole": lambda out: len(shards(out)) >= 5,
    "the manifest is written": lambda out: (out / "dataset_info.json").exists(),
}


def kill_at(moment, cases, output, *more) -> bool:
    return run_and_kill([*argv(cases, output), *more], when=lambda: MOMENTS[moment](output))


def check_resumed(cases, output, undisturbed) -> None:
    """Nothing half is to be seen, and going on leaves whole shards alone and ends all the same."""
    left = {name: path.stat().st_ino for name, path in shards(output).items()}
    for name, path in shards(output).items():
        assert path.read_bytes() == undisturbed[name]
    job(cases, output, resume=True).run()
    assert contents(output) == undisturbed
    assert left.items() <= {n: path.stat().st_ino for n, path in shards(output).items()}.items()


def test_a_killed_job_goes_on(cases, tmp_path, undisturbed):
    output = tmp_path / "out"
    assert kill_at("a shard is whole", cases, output)
    assert not (output / "COMPLETED").exists()
    with pytest.raises(DatasetError, match="--resume continues an interrupted job"):
        job(cases, output).run()
    check_resumed(cases, output, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "a shard is whole"])
def test_a_job_killed_at_any_moment_goes_on(cases, tmp_path, undisturbed, moment):
    output = tmp_path / "out"
    kill_at(moment, cases, output)
    check_resumed(cases, output, undisturbed)


@pytest.mark.slow
def test_a_job_killed_again_and_again_goes_on(cases, tmp_path, undisturbed):
    output = tmp_path / "out"
    kill_at("a shard is noted", cases, output)
    for count in (2, 4):
        resumed = [*argv(cases, output), "--resume"]
        run_and_kill(resumed, when=lambda count=count: len(shards(output)) >= count)
    check_resumed(cases, output, undisturbed)


@pytest.mark.slow
def test_a_job_of_two_processes_killed_goes_on(cases, tmp_path, undisturbed):
    output = tmp_path / "out"
    assert kill_at("a shard is whole", cases, output, "--direct_num_workers=2")
    check_resumed(cases, output, undisturbed)


# -- what is not gone on with


def stop_before_planning(job: ConvertCt) -> Output:
    """Leaves in the output folder what a job leaves that is killed at once."""
    preprocessing = job.preprocessing()
    settings = job.job(job.list_cases(preprocessing.label_map), preprocessing)
    output = Output(job.output, job_text(settings))
    assert output.prepare(overwrite=False, resume=False)
    return output


OTHERS = {
    "spacing_mm": ({"spacing_mm": (1.0, 1.0, 1.0)}, r"spacing_mm was \[0.6, .* and is \[1.0,"),
    "seed": ({"split_seed": 3}, "split_seed was 0 and is 3 now"),
    "tolerance": (
        {"geometry_tolerance_mm": 0.5},
        "checks.geometry_tolerance_mm was 0.01 and is 0.5 now",
    ),
    "record size": ({"max_record_mib": 7}, "max_record_mib was 512 and is 7 now"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_job_does_not_go_on(cases, tmp_path, name):
    stop_before_planning(job(cases, tmp_path / "out"))
    flags, message = OTHERS[name]
    with pytest.raises(DatasetError, match=message):
        job(cases, tmp_path / "out", **flags, resume=True).run()


def test_other_cases_or_classes_are_another_job(cases, tmp_path):
    stop_before_planning(job(cases, tmp_path / "out"))
    fewer = cases.with_name("fewer.csv")
    fewer.write_text("\n".join(cases.read_text().splitlines()[:-1]))
    classes = tmp_path / "classes.yaml"
    classes.write_text("classes:\n  background: [0]\n  spleen: [1, 2]\n  liver: [5]\n")
    for flags, what in (
        ({"cases": str(fewer)}, "cases: others were listed"),
        ({"label_map": str(classes)}, "label_map was"),
    ):
        other = dataclasses.replace(job(cases, tmp_path / "out", resume=True), **flags)
        with pytest.raises(DatasetError, match=f"but {what}"):
            other.run()


def test_there_is_nothing_to_go_on_with_in_a_folder_of_something_else(cases, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds none: --overwrite"):
        job(cases, tmp_path / "out", resume=True).run()


@pytest.mark.parametrize("flag", ["resume", "validate_only"])
def test_overwriting_goes_with_nothing_that_keeps(cases, tmp_path, flag):
    with pytest.raises(InputError, match="--overwrite goes with neither"):
        job(cases, tmp_path / "out", overwrite=True, **{flag: True}).run()


def test_going_on_in_an_empty_folder_is_a_first_run(cases, tmp_path, undisturbed):
    job(cases, tmp_path / "out", resume=True).run()
    assert contents(tmp_path / "out") == undisturbed


def test_going_on_with_a_finished_output_does_nothing(cases, tmp_path, caplog):
    coarse = {"spacing_mm": (10.0, 10.0, 10.0)}
    job(cases, tmp_path / "out", **coarse).run()
    before = contents(tmp_path / "out")
    caplog.set_level("INFO")
    job(cases, tmp_path / "out", **coarse, resume=True).run()
    assert "is complete already" in caplog.text
    assert contents(tmp_path / "out") == before


# -- shards one by one


@pytest.fixture
def writing(cases, tmp_path):
    """The writer of a job that has just begun, and its planned shards."""
    coarse = job(cases, tmp_path / "out", spacing_mm=(10.0, 10.0, 10.0))
    output = stop_before_planning(coarse)
    preprocessing = coarse.preprocessing()
    sized = [
        SizedCase(case, "train", 2**20)  # each takes a shard
        for case in coarse.list_cases(preprocessing.label_map).cases
    ]
    shards = plan_shards(sized, shard_bytes=2**20, seed=0)
    output.write_plan(shards)
    return ShardWriter(preprocessing, output, 2**30), shards


def test_a_shard_that_is_whole_is_not_made_again(writing):
    writer, (shard, *_) = writing
    written = writer.write(shard)
    path = Path(writer.output.folder) / shard.name
    inode = path.stat().st_ino
    assert writer.write(shard) == written
    assert path.stat().st_ino == inode
    path.unlink()  # noted and not there: as a job leaves it that is killed between the two
    assert writer.write(shard) == written
    assert path.exists()


def test_a_shard_is_made_again_when_its_rejected_case_is_repaired(writing):
    writer, (shard, *_) = writing
    (case,) = shard.cases
    image = Path(case.image)
    whole = image.read_bytes()
    image.write_bytes(whole[:3000])
    try:
        rejected = writer.write(shard)
        assert [reject.case_id for reject in rejected.rejects] == [case.case_id]
        path = Path(writer.output.folder) / shard.name
        inode = path.stat().st_ino
        assert writer.write(shard) == rejected  # still broken: nothing is written
        assert path.stat().st_ino == inode
    finally:
        image.write_bytes(whole)
    repaired = writer.write(shard)
    assert [facts.case_id for facts in repaired.cases] == [case.case_id]
    assert not repaired.rejects
    assert writer.write(shard) == repaired
    assert path.stat().st_size == repaired.info.bytes


@pytest.mark.parametrize("content", [b"", bytes(300), b'{"key": 1}'], ids=len)
def test_a_shard_whose_note_or_file_is_broken_is_made_again(writing, content):
    writer, (shard, *_) = writing
    written = writer.write(shard)
    path = Path(writer.output.folder) / shard.name
    whole = path.read_bytes()
    (note,) = Path(writer.output.state).glob(f"{path.stem}.json")
    for broken in (path, note):
        broken.write_bytes(content)
        assert writer.write(shard) == written
        assert path.read_bytes() == whole
    Path(writer.output.state, "plan.json").write_bytes(content)
    assert writer.output.read_plan() is None


@pytest.mark.parametrize("content", [b"", bytes(300), b"[1]"], ids=len)
def test_a_job_whose_note_is_broken_says_what_to_do(cases, tmp_path, content):
    stop_before_planning(job(cases, tmp_path / "out"))
    (tmp_path / "out" / ".state" / "job.json").write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"incomplete or corrupt job state: .*job\.json: .*--overwrite"
    ):
        job(cases, tmp_path / "out", resume=True).run()


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_shard_is_made_again_when_a_file_of_its_case_is_replaced(writing, which):
    writer, (shard, *_) = writing
    written = writer.write(shard)
    path = Path(writer.output.folder) / shard.name
    inode = path.stat().st_ino
    file = Path(getattr(shard.cases[0], which))
    file.write_bytes(file.read_bytes())
    assert writer.write(shard) == written
    assert path.stat().st_ino != inode


def test_a_shard_of_other_cases_is_made_again(writing):
    writer, (shard, other, *_) = writing
    writer.write(shard)
    written = writer.write(dataclasses.replace(shard, cases=other.cases))
    assert [case.case_id for case in written.cases] == [other.cases[0].case_id]


def test_progress_is_told_from_the_folder_alone(writing, cases):
    writer, shards = writing
    image = cases.parent / "images" / f"{shards[1].cases[0].case_id}.nii.gz"
    content = image.read_bytes()
    watch = Watch(writer.output, cases=8)  # one more has a bad header
    assert str(watch.look(0.0)) == ("cases 2 of 8, rejected 2, shards 0 of 6, 0.0 MB/s")
    first = writer.write(shards[0])
    try:
        image.write_bytes(content[:3000])
        writer.write(shards[1])
    finally:
        image.write_bytes(content)
    assert watch.look(2.0) == JobProgress(
        cases=8,
        done=4,
        rejected=3,
        shards=(2, 6),
        mb_per_second=first.info.bytes / 1e6 / 2,
        seconds_left=pytest.approx((6 * 2**20 - first.info.bytes) / (first.info.bytes / 2)),
    )
    temporary = Path(writer.output.folder) / ".tmp-of-another"
    temporary.mkdir()
    (temporary / "train-00002-of-00006.tfrecord").write_bytes(bytes(10**6))
    assert watch.look(2.0).mb_per_second == pytest.approx((first.info.bytes + 10**6) / 1e6 / 2)


def test_progress_begins_with_what_was_there(writing):
    writer, shards = writing
    writer.write(shards[0])
    watch = Watch(writer.output, cases=6)
    assert watch.look(0.0).mb_per_second == 0
    written = writer.write(shards[1])
    assert watch.look(1.0).mb_per_second == pytest.approx(written.info.bytes / 1e6)


def test_progress_of_a_validation_is_told_by_shards(writing):
    writer, shards = writing
    output = dataclasses.replace(writer.output, validate_only=True)
    watch = Watch(output, cases=6)
    watch.look(0.0)
    for shard in shards[:2]:
        dataclasses.replace(writer, output=output).write(shard)
    assert not list(Path(output.folder).glob("*.tfrecord"))
    assert str(watch.look(4.0)) == "cases 2 of 6, rejected 0, shards 2 of 6, 0:08 min left"


def test_before_the_plan_nobody_knows(cases, tmp_path):
    output = stop_before_planning(job(cases, tmp_path / "out"))
    assert Watch(output, cases=6).look() is None


def test_a_line_now_and_then_where_there_is_no_terminal(writing, caplog):
    writer, _ = writing
    caplog.set_level("INFO")
    with progress.shown(writer.output, cases=6, every_s=0.01):
        deadline = time.monotonic() + 10
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages[:2] == ["cases 0 of 6, rejected 0, shards 0 of 6, 0.0 MB/s"] * 2


def test_one_live_line_on_a_terminal(writing, monkeypatch, capsys):
    writer, _ = writing
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown(writer.output, cases=6, every_s=0.3):
        time.sleep(0.8)
    shown = capsys.readouterr().err
    assert "reading the headers of 6 cases" in shown
    assert "cases 0 of 6, rejected 0, shards 0 of 6" in shown
    assert "\r" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0:07 min"), (187, "3:07 min"), (3600 * 5 + 120, "5 h 02 min")]
)
def test_time_left_is_told_for_people(seconds, text):
    found = JobProgress(9, 3, 1, (1, 3), 12.34, seconds)
    assert str(found) == f"cases 3 of 9, rejected 1, shards 1 of 3, 12.3 MB/s, {text} left"
