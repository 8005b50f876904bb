"""All steps on S3: a server with its API on the loopback."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from killed_job import run_and_kill
from small_cases import SPACING_MM, write_cases

from fcnseg.cli.command import parse
from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.errors import InputError, OutputError
from fcnseg.runs.run_folder import read_run
from fcnseg.storage import files
from fcnseg.storage.file_systems import RemotePath, close_all
from fcnseg.storage.whole_file import atomic_write, check_output_folder, write_whole
from pipelines.convert_ct import ConvertCt, main
from pipelines.inspect import Inspect

boto3 = pytest.importorskip("boto3", reason="moto, a server of S3, comes with the extra dev")
moto_server = pytest.importorskip("moto.server")

BUCKET = "hospital"


@pytest.fixture(scope="module")
def endpoint():
    """URL of the server."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint, monkeypatch):
    """A client of an empty bucket, whose place and credentials are in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    close_all()
    yield client
    close_all()
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


def upload(client, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*.*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder)}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def download(client, prefix: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    return {
        item["Key"].removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=item["Key"])[
            "Body"
        ].read()
        for item in listed
    }


@pytest.fixture
def jobs(client, tmp_path):
    """The same job on local files and on S3, and the folder of the local input."""
    cases = write_cases(tmp_path / "in", 3)
    upload(client, tmp_path / "in", "scans")
    local = ConvertCt(
        cases=str(cases),
        label_map=f"{tmp_path}/in/label_map.yaml",
        output=f"{tmp_path}/out",
        spacing_mm=SPACING_MM,
    )
    remote = dataclasses.replace(
        local,
        cases=f"s3://{BUCKET}/scans/cases.csv",
        label_map=f"s3://{BUCKET}/scans/label_map.yaml",
        output=f"s3://{BUCKET}/records/v1",
    )
    return local, remote


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(1, id="in this process"),
        pytest.param(2, id="in two others", marks=pytest.mark.slow),
    ],
)
def test_s3_holds_the_same_bytes_as_a_folder(client, jobs, tmp_path, caplog, workers):
    local, remote = jobs
    local.run()
    flags = [f"--direct_num_workers={workers}"]
    remote.run(flags)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert expected["rejects.jsonl"] == b""  # S3 takes no empty upload
    found = download(client, "records/v1")
    jobs_of = [json.loads(folder.pop("COMPLETED")) for folder in (expected, found)]
    assert jobs_of[0] | {"cases": jobs_of[1]["cases"]} == jobs_of[1]  # which have other paths
    paths = [folder.pop("case_files.csv").decode() for folder in (expected, found)]
    assert paths[0].replace(f"{tmp_path}/in", f"s3://{BUCKET}/scans") == paths[1]
    assert found == expected

    caplog.set_level("INFO")
    remote.run(flags)
    assert f"s3://{BUCKET}/records/v1 is complete already" in caplog.text


@pytest.mark.slow
def test_a_killed_job_on_s3_goes_on(client, jobs):
    _, remote = jobs
    remote = dataclasses.replace(remote, shard_mib=1, spacing_mm=(1.0, 1.0, 1.0))
    remote.run()
    whole = download(client, "records/v1")

    def keys() -> list[str]:
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix="again/").get("Contents", [])
        return [item["Key"] for item in listed]

    again = dataclasses.replace(remote, output=f"s3://{BUCKET}/again")
    argv = ["--cases", again.cases, "--label_map", again.label_map, "--output", again.output]
    argv += ["--shard_mib", "1", "--spacing_mm", "1", "1", "1"]
    assert run_and_kill(argv, when=lambda: any(key.endswith(".tfrecord") for key in keys()))
    assert "again/COMPLETED" not in keys()
    dataclasses.replace(again, resume=True).run()
    assert download(client, "again") == whole


def test_a_reject_names_the_object(client, jobs, capsys):
    _, remote = jobs
    client.put_object(Bucket=BUCKET, Key="scans/images/case_01.nii.gz", Body=b"junk")
    argv = ["--cases", remote.cases, "--label_map", remote.label_map, "--output", remote.output]
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    line = json.loads(download(client, "records/v1")["rejects.jsonl"])
    assert line["file"] == f"s3://{BUCKET}/scans/images/case_01.nii.gz"
    assert line["file"] in capsys.readouterr().err


def test_a_folder_is_copied_with_all_that_is_in_it(client):
    content = {"series/0001.dcm": b"a" * 100, "series/deep/0002.dcm": b"b" * 100}
    for name, data in content.items():
        client.put_object(Bucket=BUCKET, Key=name, Body=data)
    client.put_object(Bucket=BUCKET, Key="series_2/0001.dcm", Body=b"c")
    with opened(f"s3://{BUCKET}/series") as folder:
        found = {str(path.relative_to(folder.parent)): path for path in folder.rglob("*.dcm")}
        assert {name: path.read_bytes() for name, path in found.items()} == content
    assert not folder.exists()
    with pytest.raises(CaseError, match="no such file: s3://hospital/none") as error:
        opened(f"s3://{BUCKET}/none").__enter__()
    assert error.value.code == "file_missing"


def test_what_belongs_to_a_header_is_copied_with_it(client):
    for name in ("a.mhd", "a.raw", "ab.raw"):
        client.put_object(Bucket=BUCKET, Key=f"scans/{name}", Body=name.encode())
    with opened(f"s3://{BUCKET}/scans/a.mhd") as path:
        assert sorted(other.name for other in path.parent.iterdir()) == ["a.mhd", "a.raw"]


# Steps of a few voxels, each of which draws random numbers and moves all state there is.
TRAINING = """
model: {filters: [2, 4], dropout: 0.3}
patches: {size: [8, 12, 12], batch_size: 2, samples_per_volume: 2, shuffle_buffer: 4}
training: {epochs: 2, steps_per_epoch: 4, validate_every: 1, checkpoint_every: 3}
inference: {overlap: [2, 4, 4], batch_size: 2}
"""


def without_times(files):
    """Contents of files by name, but for the time that each case took."""
    cases = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    timed = {name: case | {"seconds": case["seconds"].keys()} for name, case in cases.items()}
    return files | timed


@pytest.mark.slow
def test_every_step_reads_and_writes_s3(client, jobs, tmp_path, monkeypatch, caplog):
    """Records are inspected and trained on, images predicted, masks scored: as on local files."""
    pytest.importorskip("tensorflow")
    from small_runs import assert_same_runs, stop_after  # imports TensorFlow

    from fcnseg.cli.evaluate import EvaluateCommand
    from fcnseg.cli.predict import PredictCommand
    from fcnseg.cli.train import TrainCommand
    from fcnseg.training import TrainingStoppedError

    monkeypatch.setenv("FCNSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.yaml").write_text(TRAINING)
    caplog.set_level("INFO")

    def run(command, flags: str) -> None:
        parse(command, flags.format(here=tmp_path, there=f"s3://{BUCKET}").split()).run()

    for job in jobs:
        dataclasses.replace(job, validation_fraction=0.5, split_seed=1).run()
    run(Inspect, "{there}/records/v1 --verify")
    run(Inspect, "{there}/records/v1 --cases 2")
    assert b"case_0" in download(client, "records/v1")["inspect.html"]

    caplog.clear()
    train = "--config {here}/config.yaml --data "
    run(TrainCommand, f"{train} {{here}}/out --run_dir {{here}}/local")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 5)
        with pytest.raises(TrainingStoppedError):
            run(TrainCommand, f"{train} {{there}}/records/v1 --run_dir {{here}}/run")
    run(TrainCommand, f"{train} {{there}}/records/v1 --run_dir {{here}}/run --resume")
    assert_same_runs(tmp_path / "local", tmp_path / "run")
    assert read_run(tmp_path / "run").data == f"s3://{BUCKET}/records/v1"
    assert caplog.text.count("copying ") <= 1  # by the first run, if inspecting had left any out

    predict = "--run_dir {here}/run --images "
    run(PredictCommand, f"{predict} {{here}}/in/images --output {{here}}/masks")
    run(PredictCommand, f"{predict} {{there}}/scans/images --output {{there}}/masks")
    local = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    assert without_times(download(client, "masks")) == without_times(local)
    run(PredictCommand, f"{predict} {{there}}/scans/images --output {{there}}/masks --resume")
    assert "left out: 3 cases that are complete" in caplog.text
    with pytest.raises(InputError, match=rf"s3://{BUCKET}/masks/case_00.nii.gz is there already"):
        run(PredictCommand, f"{predict} {{there}}/scans/images --output {{there}}/masks")

    places = "--masks {0}/masks --labels {1}/labels --images {1}/images"
    for name, masks, scans in (
        ("here", tmp_path, tmp_path / "in"),
        ("there", f"s3://{BUCKET}", f"s3://{BUCKET}/scans"),
    ):
        flags = places.format(masks, scans)
        flags += f" --label_map {scans}/label_map.yaml --output {tmp_path}/{name} --workers 1"
        run(EvaluateCommand, flags)
    for name in ("evaluation.json", "evaluation.csv"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_one_client_serves_all_files(client, tmp_path):
    """A client takes a third of a second of the processor: one a file would be felt."""
    for number in range(40):
        client.put_object(Bucket=BUCKET, Key=f"series/{number}.dcm", Body=b"slice")
    with opened(f"s3://{BUCKET}/series") as folder, ThreadPoolExecutor(8) as pool:
        assert len(list(folder.iterdir())) == 40
        urls = [f"s3://{BUCKET}/series/{number}.dcm" for number in range(40)]
        assert list(pool.map(files.read_bytes, urls)) == [b"slice"] * 40
        systems = set(pool.map(lambda url: id(RemotePath.of(url).file_system), urls))
    assert len(systems) == 1


def test_names_with_characters_of_patterns_are_names(client):
    for name in ("a[1]*.nii", "a1.nii", "what?.nii"):
        with atomic_write(f"s3://{BUCKET}/scans/{name}") as unfinished:
            unfinished.write_text(name)
    folder = f"s3://{BUCKET}/scans"
    assert set(files.children(folder)) == {"a[1]*.nii", "a1.nii", "what?.nii"}
    with files.local_copy(f"{folder}/a[1]*.nii") as path:
        assert path.read_text() == "a[1]*.nii"
    files.delete([f"{folder}/a[1]*.nii", f"{folder}/what?.nii"])
    assert files.list_folder(folder) == [f"{folder}/a1.nii"]


def test_a_failed_write_leaves_the_object_that_was_there(client):
    place = f"s3://{BUCKET}/run.json"
    write_whole(place, "before")

    def fail():
        with atomic_write(place) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_text(place) == "before"
    assert [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == [
        "run.json"
    ]


def test_what_the_store_refuses_is_one_line(client):
    with pytest.raises(OutputError, match=r"^cannot write s3://nowhere/a: .*bucket"):
        write_whole("s3://nowhere/a", "")
    with pytest.raises(InputError, match=r"^no such file: s3://nowhere/a$"):
        files.read_text("s3://nowhere/a")
    with pytest.raises(InputError, match=r"^output must be a folder that can be written to, got"):
        check_output_folder("s3://nowhere/a", argument="output")
