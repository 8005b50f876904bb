"""The same cases on every engine give the same bytes; each runs as a user would call it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
)

from fcnseg.records import read_dataset_info
from fcnseg.testing.phantom import write_phantoms
from pipelines.flink.__main__ import Flink, fetched_jar
from pipelines.runners import beam_options
from pipelines.worker_pool import free_port, wait_until_it_listens, worker_pool

ROOT = Path(__file__).parent.parent
PRISM = shutil.which(os.environ.get("FCNSEG_PRISM") or "prism")
FLINK_JAR = os.environ.get("FCNSEG_FLINK_JAR") or fetched_jar("1.20")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Five phantoms, one of them cut short."""
    folder = tmp_path_factory.mktemp("phantoms") / "in"
    list(write_phantoms(5, folder))
    image = folder / "images" / "phantom_002.nii.gz"
    image.write_bytes(image.read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def expected(phantoms, tmp_path_factory):
    """What one process makes of them."""
    output = tmp_path_factory.mktemp("reference") / "out"
    convert(phantoms, output, temporary=output.parent / "tmp")
    info = read_dataset_info(output)
    assert sum(split.cases for split in info.splits.values()) == 4
    assert sum(len(split.shards) for split in info.splits.values()) >= 3
    assert len((output / "rejects.jsonl").read_text().splitlines()) == 1
    return contents(output)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, folders too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def convert(
    phantoms: Path, output: Path, *beam_args: str, temporary: Path, module="pipelines.convert_ct"
) -> None:
    """Runs the command as a user does, with a folder of its own for temporary files."""
    temporary.mkdir()
    flags = {
        "cases": phantoms / "cases.csv",
        "label_map": phantoms / "label_map.yaml",
        "output": output,
        "shard_mib": 1,  # a shard or two a case, so that workers have something to share
        "validation_fraction": 0.4,
        "max_reject_fraction": 0.5,
    }
    argv = [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in flags.items())]
    done = subprocess.run(
        [*argv, "--spacing_mm", "3", "3", "3", *beam_args],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.dask
def test_dask_on_this_machine(phantoms, expected, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    convert(phantoms, tmp_path / "out", "--runner=DaskRunner", temporary=tmp_path / "tmp")
    assert contents(tmp_path / "out") == expected
    assert contents(tmp_path / "tmp") == {}


@pytest.mark.slow
@pytest.mark.dask
def test_dask_on_a_cluster_of_two_workers(phantoms, expected, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path / "dask"
    ) as cluster:
        convert(
            phantoms,
            tmp_path / "out",
            "--runner=DaskRunner",
            f"--dask_client_address={cluster.scheduler_address}",
            "--dask_npartitions=4",
            temporary=tmp_path / "tmp",
        )
    assert contents(tmp_path / "out") == expected
    assert contents(tmp_path / "tmp") == {}


@pytest.mark.slow
@pytest.mark.prism
@pytest.mark.skipif(PRISM is None, reason="no prism: set FCNSEG_PRISM or put it on the PATH")
def test_prism(phantoms, expected, tmp_path):
    prism = ["--runner=PrismRunner", f"--prism_location={PRISM}"]
    convert(phantoms, tmp_path / "out", *prism, temporary=tmp_path / "tmp")
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.flink
@pytest.mark.skipif(FLINK_JAR is None, reason="no job server for Flink: set FCNSEG_FLINK_JAR")
def test_flink(phantoms, expected, tmp_path):
    jar = f"--jar={FLINK_JAR}"
    convert(phantoms, tmp_path / "out", jar, temporary=tmp_path / "tmp", module="pipelines.flink")
    assert contents(tmp_path / "out") == expected


def test_flink_is_told_where_all_is(tmp_path):
    """What Beam's runner for Flink parses; that Flink runs it is shown where its jar is."""
    jar = tmp_path / "beam-runners-flink-1.20-job-server" / "2.77.0" / "server.jar"
    for version in ("2.9.0", "2.77.0"):
        (jar.parents[1] / version).mkdir(parents=True)
        (jar.parents[1] / version / "server.jar").touch()
    assert fetched_jar("1.20", repository=tmp_path) == jar
    assert fetched_jar("1.19", repository=tmp_path) is None

    options = beam_options(Flink(jar=jar).beam_args("localhost:1234"))
    flink, portable = options.view_as(FlinkRunnerOptions), options.view_as(PortableOptions)
    assert (flink.flink_master, flink.flink_version) == ("[local]", "1.20")
    assert (flink.flink_job_server_jar, flink.parallelism) == (str(jar), 2)
    assert portable.environment_type == "EXTERNAL"
    assert portable.environment_config == "localhost:1234"


# -- what the documentation says


def engines_in_the_docs() -> list[str]:
    page = (ROOT / "docs/engines.md").read_text().replace("\\\n", " ")
    found = re.findall(r'^ENGINE="(.+?)"', page, re.MULTILINE)
    assert found
    return found


@pytest.mark.parametrize("flags", engines_in_the_docs())
def test_flags_in_the_docs_are_beams(flags):
    """Beam ignores flags it does not know, so a wrong one would never be told."""
    if "Dask" in flags:
        pytest.importorskip("apache_beam.runners.dask.dask_runner", reason="needs the extra dask")
    parsers = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    assert parsers[0].parse_known_args(shlex.split(flags))[1] == []


def test_the_worker_image_takes_files_that_are_there():
    dockerfile = (ROOT / "pipelines/Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in re.findall(r"^COPY [^-].*", dockerfile, re.MULTILINE)]
    assert ["fcnseg"] in copied
    assert all((ROOT / name).exists() for names in copied for name in names)
    (beam,) = re.findall(r"^ARG BEAM=(\d+\.\d+)", dockerfile, re.MULTILINE)
    assert f"apache-beam>={beam}" in (ROOT / "setup.cfg").read_text()


# -- the way that Flink and Spark go: a job service, and workers that have only the wheel


@contextlib.contextmanager
def job_service(log: Path):
    """Beam's own job service, in Python."""
    port = free_port()
    argv = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
    with log.open("wb") as said:
        service = subprocess.Popen([*argv, f"--port={port}"], stdout=said, stderr=said)
        try:
            wait_until_it_listens(port, service, name="the job service")
            yield f"localhost:{port}"
        finally:
            service.terminate()
            service.wait(30)


@pytest.fixture
def wheel_only(tmp_path, monkeypatch):
    """An environment in which `fcnseg` can be imported and `pipelines` cannot."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "fcnseg", site / "fcnseg", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "pipelines.py").write_text("raise ImportError('a worker has only the wheel')")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(site)


@pytest.mark.slow
def test_workers_of_another_process_need_only_the_wheel(phantoms, expected, wheel_only, tmp_path):
    with (
        job_service(tmp_path / "service.log") as service,
        worker_pool(log=tmp_path / "pool.log") as workers,
        pytest.MonkeyPatch.context() as job,
    ):
        job.delenv("PYTHONPATH")
        convert(
            phantoms,
            tmp_path / "out",
            "--runner=PortableRunner",
            f"--job_endpoint={service}",
            "--environment_type=EXTERNAL",
            f"--environment_config={workers}",
            temporary=tmp_path / "tmp",
        )
    assert "Starting worker with command" in (tmp_path / "pool.log").read_text()
    assert contents(tmp_path / "out") == expected
