"""Setup and teardown of runners for the time of a job."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from types import ModuleType

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from fcnseg.extras import require_extra

from .runners import local_runner

_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"  # Beam has no short name for it
# Shards are assigned to workers at random, so some get several: a few per worker keep all busy.
_PARTITIONS = 16


@contextlib.contextmanager
def prepared_runner(options: PipelineOptions) -> Iterator[beam.runners.PipelineRunner | None]:
    """Prepares the runner that the flags name.

    Args:
        options: The flags; missing ones that the runner needs are added.

    Yields:
        The runner, or None if Beam is to make it from the flags.

    Raises:
        MissingExtraError: If Dask is requested and not installed.
    """
    standard = options.view_as(StandardOptions)
    if standard.runner in ("DaskRunner", "dask", _DASK):
        standard.runner = _DASK
        with _dask(options):
            yield None
    else:
        yield local_runner(options)


@contextlib.contextmanager
def _dask(options: PipelineOptions) -> Iterator[None]:
    """Adds Dask's flags, and starts a local cluster unless they name another."""
    dask, distributed = require_extra("dask"), require_extra("distributed")
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it logs each connection
    logging.getLogger("apache_beam.runners.dask").setLevel(logging.ERROR)
    flags = options.view_as(require_extra("apache_beam.runners.dask.dask_runner").DaskOptions)
    if flags.npartitions is None and flags.partition_size is None:
        flags.npartitions = _PARTITIONS
    with contextlib.ExitStack() as stack:
        if flags.address is None and flags.scheduler_file is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fcnseg-dask-"))
            stack.enter_context(dask.config.set(temporary_directory=folder))
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    threads_per_worker=1,  # reading and resampling hold the GIL
                    dashboard_address=None,
                )
            )
            flags.address = cluster.scheduler_address
        stack.callback(_close_clients, distributed)
        yield


def _close_clients(distributed: ModuleType) -> None:
    """Closes the client that Beam's runner leaves open."""
    with contextlib.suppress(ValueError):  # there is none if the job ended early
        distributed.default_client().close()
