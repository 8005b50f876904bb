"""The conversion on S3: a server with its API on the loopback."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import boto3
import pytest
from killed_job import run_and_kill
from moto.server import ThreadedMotoServer
from small_cases import SPACING_MM, write_cases

from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.storage.file_systems import close_all
from pipelines.convert_ct import ConvertCt, main

BUCKET = "hospital"


@pytest.fixture(scope="module")
def endpoint():
    """URL of the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
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
    with pytest.raises(SystemExit):
        main(argv)
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
