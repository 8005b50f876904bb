"""Segments CT volumes with a served model: `fcnseg segment --help`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.markup import escape
from rich.progress import Progress

from fcnseg.cli.command import Location, run_command
from fcnseg.cli.image_source import ImageSource
from fcnseg.cli.progress import progress_of_tasks
from fcnseg.client import Credentials, SegmentationClient, ServerError
from fcnseg.client.client import TIMEOUT_S
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import explain
from fcnseg.errors import InputError
from fcnseg.masks.case_outputs import CaseOutputs
from fcnseg.masks.mask_folder import MaskFolder
from fcnseg.records.dataset_info import Split
from fcnseg.runs import ModelInfo
from fcnseg.storage.whole_file import check_output_folder
from fcnseg.volumes import Volume

logger = logging.getLogger(__name__)

PASSWORD_VARIABLE = "FCNSEG_PASSWORD"
"""Environment variable with the password of `--user`: flags are seen by all users of a machine."""
_MOST_IN_FLIGHT = 64


@dataclasses.dataclass(frozen=True)
class ClientCommand:
    """Segments CT volumes with a served model and writes their masks."""

    server: str
    """HOST:PORT of the server's gRPC interface, or a URL: grpcs://HOST:PORT, http://HOST:PORT
    (REST), https://HOST."""
    output: Location
    """Folder for the masks: CASE.nii.gz, on exactly the grid of its image, and organ volumes; it
    may be in an object store."""
    images: Location | None = None
    """A volume of any format (docs/formats.md), a folder of DICOM slices, or a folder of either;
    it may be in an object store."""
    data: Location | None = None
    """Folder of records, instead of --images: the cases of --split, or of a fold, from the files
    that they were converted from."""
    split: Split | None = None
    """Cases of --data to segment."""
    fold: int | None = None
    """Number of a fold of --data, from 0, as in training."""
    folds: int | None = None
    """Number of folds."""
    cases: Location | None = None
    """CSV file as in the conversion, instead of --images; its labels are not needed."""
    dataset: Location | None = None
    """dataset.json of the Medical Segmentation Decathlon or of nnU-Net, instead of --images."""
    totalsegmentator: Location | None = None
    """Folder of TotalSegmentator's dataset, instead of --images: SUBJECT/ct.nii.gz."""
    model_name: str = "fcnseg"
    """Name of the model on the server."""
    version: int | None = None
    """Version of the model; the newest by default."""
    label: str | None = None
    """Label of the version, instead of its number."""
    tiled: bool = False
    """Send windows instead of whole volumes: slower, needs less memory on the server, and any
    server of this API runs it."""
    model_info: Path | None = None
    """File model_info.json of the run, for a server that has the network alone (with tiled)."""
    in_flight: int = 2
    """Cases at a time: while the server computes one, others are read, sent and written."""
    timeout_s: float = TIMEOUT_S
    """Seconds to wait for the answer to a request."""
    wait_s: float = 0.0
    """Seconds to wait until the server is ready."""
    user: str = ""
    """User name that the server asks for; the password is in the variable FCNSEG_PASSWORD."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust for grpcs:// and https://; those of the system by default."""
    dicom_seg: bool = False
    """Write each mask as a DICOM Segmentation too, CASE.seg.dcm; all images must be DICOM."""
    rtstruct: bool = False
    """Write each mask as an RT Structure Set too, CASE.rtstruct.dcm; all images must be DICOM."""
    overwrite: bool = False
    """Replace masks that exist already."""
    resume: bool = False
    """Skip cases that are complete, and segment the others; needs the same model and flags as
    before."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""

    def run(self) -> None:
        """Segments each volume; one that fails does not stop the others."""
        if not 0 < self.in_flight <= _MOST_IN_FLIGHT:
            raise InputError(f"in_flight must be 1 to {_MOST_IN_FLIGHT}, got {self.in_flight}")
        if self.model_info is not None and not self.tiled:
            raise InputError(f"model_info goes with tiled, got {self.model_info} without it")
        if not 0 <= self.wait_s < math.inf:
            raise InputError(f"wait_s must be a number from 0 up, got {self.wait_s}")
        CheckOptions(accept=self.accept)  # a mistake would fail every case
        masks = self._masks()
        masks.check_dicom()
        masks.check_free()
        with self._client() as client:
            client.wait_until_ready(self.wait_s)
            version = client.pin_version()  # so that all masks are of one network
            info = self._info(client)
            made_with = self._made_with(version, info)
            others, todo = masks.others(made_with), masks.todo(made_with)
            check_output_folder(os.fspath(self.output), argument="output")
            worker = _CaseWorker(client, info, made_with, self.accept, is_tiled=self.tiled)
            reasons = _reasons(worker, client, todo, self.in_flight)
        masks.write_tables(info.class_names, others=others)
        masks.report_failures(reasons)

    def _client(self) -> SegmentationClient:
        password = os.environ.get(PASSWORD_VARIABLE, "")
        return SegmentationClient(
            self.server,
            model_name=self.model_name,
            version=self.version,
            label=self.label,
            timeout_s=self.timeout_s,
            credentials=Credentials(self.user, password, self.ca_file),
        )

    def _info(self, client: SegmentationClient) -> ModelInfo:
        """The facts of the model, from a file or from the server."""
        if self.model_info is None:
            return client.model_info()
        try:
            text = self.model_info.read_bytes()
        except OSError as error:
            raise InputError(
                f"model_info must be a file, got {self.model_info}: {error.strerror}"
            ) from error
        return ModelInfo.from_json(text, source=str(self.model_info))

    def _made_with(self, version: int, info: ModelInfo) -> dict[str, Any]:
        """Provenance of the masks, as CASE.json contains it; images have their own entry."""
        made_with: dict[str, Any] = {
            "model_name": self.model_name,
            "version": version,
            "model_info_sha256": info.digest,
            "fcnseg_version": info.fcnseg_version,
        }
        if info.networks_sha256:
            made_with["networks_sha256"] = list(info.networks_sha256)
        for name in ("label", "tiled", "dicom_seg", "rtstruct"):
            if getattr(self, name):
                made_with[name] = getattr(self, name)
        return made_with

    def _masks(self) -> MaskFolder:
        """The masks to write.

        Raises:
            InputError: If there is not one source of images, or a flag does not go with it.
        """
        source = ImageSource.of(self)
        return MaskFolder.of(
            source.list_cases(source.open_dataset()),
            os.fspath(self.output),
            overwrite=self.overwrite,
            resume=self.resume,
            with_dicom_seg=self.dicom_seg,
            with_rtstruct=self.rtstruct,
        )


@dataclasses.dataclass(frozen=True)
class _CaseWorker:
    """Segments cases, in any number of threads.

    Attributes:
        client: A client that all share.
        info: Facts of the model.
        made_with: Provenance of the masks.
        accept: Codes of implausible findings to accept.
        is_tiled: True to send windows.
    """

    client: SegmentationClient
    info: ModelInfo
    made_with: Mapping[str, Any]
    accept: tuple[str, ...]
    is_tiled: bool

    def segment(self, case: CaseOutputs, progress: Callable[[float], None]) -> None:
        """Writes the files of one case.

        Args:
            case: The case.
            progress: Is called with the fraction of the windows that are done.
        """
        image = case.read(Gate(CheckOptions(accept=self.accept)))
        mask = self._mask(image.volume, progress)
        case.clear()
        case.write(mask, image, class_names=self.info.class_names, made_with=self.made_with)

    def _mask(self, volume: Volume, progress: Callable[[float], None]) -> npt.NDArray[np.uint8]:
        if not self.is_tiled:
            return self.client.segment(volume, accept=self.accept)
        return self.client.segment_tiled(
            volume,
            info=self.info,
            accept=self.accept,
            progress=lambda done, total: progress(done / total),
        )


def _reasons(
    worker: _CaseWorker,
    client: SegmentationClient,
    todo: Mapping[str, CaseOutputs],
    in_flight: int,
) -> dict[str, str | None]:
    """Segments cases, and gives the reason of each one's failure, or None.

    Cases that are not begun when the model is gone are left for `--resume`.
    """
    reasons: dict[str, str | None] = {}
    pool = concurrent.futures.ThreadPoolExecutor(in_flight)
    with progress_of_tasks() as bar:
        task = bar.add_task("volumes", total=len(todo))
        try:
            for case_id, error in _finished(pool, worker, todo, bar):
                bar.update(task, completed=len(reasons) + 1)
                reasons[case_id] = None if error is None else explain(error)
        except BaseException:
            client.close()  # ends the calls that run
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    left = [case_id for case_id in todo if case_id not in reasons]
    if left:
        logger.error(
            "the model is gone: %d cases not begun; --resume continues with the same version, once"
            " it is served again, and --overwrite begins with another one",
            len(left),
        )
    return reasons


def _finished(
    pool: concurrent.futures.ThreadPoolExecutor,
    worker: _CaseWorker,
    todo: Mapping[str, CaseOutputs],
    bar: Progress,
) -> Iterator[tuple[str, Exception | None]]:
    """Yields each case id, with its error if there is one, as soon as it is done.

    Once the model is gone, no other case is begun.
    """
    is_gone = threading.Event()

    def segment(case: CaseOutputs) -> bool:
        if is_gone.is_set():
            return False
        task = bar.add_task(f"  {escape(case.case_id)}", total=1.0 if worker.is_tiled else None)
        try:
            worker.segment(case, lambda share: bar.update(task, completed=share))
        except ServerError as error:
            if error.is_gone:
                is_gone.set()
            raise
        finally:
            bar.remove_task(task)
        return True

    futures = {pool.submit(segment, case): case_id for case_id, case in todo.items()}
    for future in concurrent.futures.as_completed(futures):
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        if error is not None or future.result():
            yield futures[future], error


def main() -> None:
    """Runs the command."""
    run_command(ClientCommand)


if __name__ == "__main__":
    main()
