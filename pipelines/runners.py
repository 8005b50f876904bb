"""Selection of the Beam runner of a job, by Beam's own flags."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    AzureOptions,
    DirectOptions,
    GoogleCloudOptions,
    HadoopFileSystemOptions,
    PipelineOptions,
    S3Options,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from fcnseg.beam.local_worker import worker_command
from fcnseg.errors import InputError, did_you_mean, one_line


def beam_options(beam_args: Sequence[str], *, known: Iterable[str] = ()) -> PipelineOptions:
    """Parses the flags that are not fcnseg's own.

    Args:
        beam_args: The flags.
        known: Names of the job's own flags, of which a misspelt one is not Beam's.

    Raises:
        InputError: If Beam does not know one either; the options of a named runner are left to it,
            unless one is nearly the name of another flag. Also if Beam has no runner of the name, a
            number of workers is negative, or a flag is for a store client of Beam's own, which is
            not used.
    """
    options = PipelineOptions(list(beam_args))
    _check_no_store_flag(options)
    _check_job_labels(options)
    runner = options.view_as(StandardOptions).runner
    if runner is not None:
        _check_runner(runner)
    _check_flags(beam_args, known, runner=runner)
    workers = options.view_as(DirectOptions).direct_num_workers
    if workers < 0:
        raise InputError(f"direct_num_workers must be 0 (one a core) or more, got {workers}")
    return options


def _check_job_labels(options: PipelineOptions) -> None:
    """Checks that `--label`, which is Dataflow's for KEY=VALUE, is not meant for `--labels`."""
    for label in options.view_as(GoogleCloudOptions).labels or ():
        if "=" not in label:
            raise InputError(f"unknown flag: --label {label}; did you mean --labels?")


def _check_flags(beam_args: Sequence[str], known: Iterable[str], *, runner: str | None) -> None:
    """Checks the flags that Beam does not know; a runner may have its own, unlike the job's."""
    parsers: list[argparse.ArgumentParser] = []
    of_beam = PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    names = {*known, *(of_beam if runner is None else ())}
    unknown = parsers[0].parse_known_args(list(beam_args))[1]
    for flag in unknown:
        name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
        near = did_you_mean(name, names, prefix="--") if flag.startswith("--") else ""
        if near:
            given = flag if runner else " ".join(unknown)
            raise InputError(f"unknown flag: {given}{near}")
    if unknown and runner is None:
        raise InputError(f"unknown flag: {' '.join(unknown)} (--help lists the known ones)")


# Flags for Beam's own clients of stores, and the equivalent variables of the clients in use.
_STORE_FLAGS = {
    S3Options: {
        "s3_access_key_id": "AWS_ACCESS_KEY_ID",
        "s3_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "s3_session_token": "AWS_SESSION_TOKEN",
        "s3_endpoint_url": "AWS_ENDPOINT_URL_S3",
        "s3_region_name": "AWS_DEFAULT_REGION",
        "s3_verify": "AWS_CA_BUNDLE",
        "s3_api_version": "FSSPEC_S3_CLIENT_KWARGS",
        "s3_disable_ssl": "FSSPEC_S3_USE_SSL",
    },
    AzureOptions: {
        "azure_connection_string": "AZURE_STORAGE_CONNECTION_STRING",
        "blob_service_endpoint": "AZURE_STORAGE_CONNECTION_STRING",
        "azure_managed_identity_client_id": "AZURE_CLIENT_ID",
    },
    HadoopFileSystemOptions: {
        "hdfs_host": "FSSPEC_HDFS_HOST",
        "hdfs_port": "FSSPEC_HDFS_PORT",
        "hdfs_user": "FSSPEC_HDFS_USER",
        "hdfs_full_urls": "FSSPEC_HDFS_HOST",
    },
}


def _check_no_store_flag(options: PipelineOptions) -> None:
    for kind, variables in _STORE_FLAGS.items():
        given = options.view_as(kind).get_all_options(drop_default=True)
        for name, variable in variables.items():
            if name in given:
                raise InputError(
                    f"--{name} does not apply: set {variable} in the environment of the job and of"
                    " its workers"
                )


def _check_runner(name: str) -> None:
    if "dask" in name.casefold():  # `pipelines.runner_setup` knows its short name, Beam does not
        return
    try:
        beam.runners.create_runner(name)
    except (AttributeError, ImportError, ValueError) as error:
        reason = one_line(error)
        near = did_you_mean(name, re.findall(r"\w+Runner\b", reason)) or f": {reason}"
        raise InputError(f"runner must be one of Beam's, got {name}{near}") from error


# Settings of glibc's allocator in workers: they keep the memory of a large array for the next one,
# instead of returning it to the system and requesting zeroed pages again. Without them two workers
# slow each other down: 0.31 s a case instead of 0.27, with the same peak (measured).
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}


def local_runner(options: PipelineOptions) -> beam.runners.PipelineRunner | None:
    """Gives the local runner, in one process or several; None if the user names another.

    Beam's own choice, `DirectRunner`, first downloads the runner Prism.
    """
    if options.view_as(StandardOptions).runner is not None:
        return None
    environment = _worker_environment(options.view_as(DirectOptions))
    worker = options.view_as(WorkerOptions)
    # A step that fails logs its traceback in each process, beside the error that ends the job.
    worker.default_sdk_harness_log_level = worker.default_sdk_harness_log_level or "CRITICAL"
    logging.getLogger("apache_beam").setLevel(worker.default_sdk_harness_log_level)
    # Like DirectRunner without Prism: the flags reach the workers, as file systems require.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(
        environment, provision_info=fn_runner.ExtendedProvisionInfo(provision)
    )


def _worker_environment(direct: DirectOptions) -> SubprocessSDKEnvironment | None:
    """Prepares workers in processes of their own, if there are several; None for this process."""
    if direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory":
        direct.direct_running_mode = "multi_processing"  # in memory only one would work
    if direct.direct_running_mode != "multi_processing":
        return None
    for name, value in _KEEP_MEMORY.items():  # workers inherit them; this process has begun
        os.environ.setdefault(name, value)
    direct.direct_running_mode = "in_memory"  # or Beam takes workers of its own
    return SubprocessSDKEnvironment.from_command_string(worker_command())
