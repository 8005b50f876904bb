"""Runs the conversion on Apache Flink: job server, cluster and Python workers in one command."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from fcnseg.cli.command import parse_known, run_or_exit
from fcnseg.errors import InputError

from .. import convert_ct
from ..worker_pool import worker_pool

# The path to which `mvn dependency:get` downloads.
_MAVEN = Path("~/.m2/repository/org/apache/beam").expanduser()


@dataclasses.dataclass(frozen=True)
class Flink:
    """Converts CT volumes and their labels on Apache Flink, as `fcnseg convert` does.

    Every other flag goes to that command. Beam's job server is started, with a cluster inside it
    unless there is one already, and a pool of Python workers on this machine.
    """

    jar: Path | None = None
    """Beam's job server for Flink; by default the one downloaded by Maven, else Beam downloads its
    own from Maven Central."""
    flink_version: str = "1.20"
    """Version of Flink of the job server, and of an external cluster."""
    master: str = "[local]"
    """host:port of a Flink cluster, whose task managers must reach the workers on this machine."""
    parallelism: int = 2
    """Number of shards written at a time, each by a Python process."""
    log: Path | None = None
    """File for the output of the Python workers."""

    def run(self, convert_args: Sequence[str] = ()) -> None:
        """Runs the conversion and waits for it.

        Raises:
            InputError: If Java or the jar is missing, or whatever the conversion raises.
        """
        if shutil.which("java") is None:
            raise InputError("Flink needs Java 11 or 17, and there is no command java")
        if self.jar is not None and not self.jar.is_file():
            raise InputError(f"jar must be Beam's job server for Flink, got no file: {self.jar}")
        with worker_pool(log=self.log) as workers:
            convert_ct.main([*convert_args, *self.beam_args(workers)])

    def beam_args(self, workers: str) -> list[str]:
        """Makes the flags of this setup for Beam.

        Args:
            workers: Address of the pool of workers.
        """
        jar = self.jar or fetched_jar(self.flink_version)
        return [
            "--runner=FlinkRunner",
            f"--flink_version={self.flink_version}",
            f"--flink_master={self.master}",
            *([] if jar is None else [f"--flink_job_server_jar={jar}"]),
            f"--parallelism={self.parallelism}",
            "--environment_type=EXTERNAL",
            f"--environment_config={workers}",
        ]


def fetched_jar(flink_version: str, *, repository: Path = _MAVEN) -> Path | None:
    """Finds the job server downloaded by Maven, the newest if there are several."""
    folder = repository / f"beam-runners-flink-{flink_version}-job-server"
    jars = sorted(folder.glob("*/*.jar"), key=lambda jar: [*map(int, jar.parent.name.split("."))])
    return jars[-1] if jars else None


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.
    """

    def work() -> None:
        command, convert_args = parse_known(Flink, argv, prog=prog)
        command.run(convert_args)

    run_or_exit(work)


if __name__ == "__main__":
    main()
