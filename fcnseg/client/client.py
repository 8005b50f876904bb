"""A client of a served model, for TensorFlow Serving, the local server and others of their API.

Nothing of it needs TensorFlow.
"""

from __future__ import annotations

import gzip
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.client.body import body_region, resample_region
from fcnseg.client.endpoint import Credentials, Endpoint
from fcnseg.client.failures import CallError, ServerError, TooBusyError, explained
from fcnseg.client.grpc_transport import GrpcTransport
from fcnseg.client.rest_transport import RestTransport
from fcnseg.client.served_model import (
    AVAILABLE,
    DEFAULT_SIGNATURE,
    MODEL_INFO,
    SEGMENT_NIFTI,
    SEGMENT_VOLUME,
    ModelMetadata,
    ModelSpec,
    VersionStatus,
)
from fcnseg.client.tensors import bytes_scalar
from fcnseg.client.transport import Arrays, Transport
from fcnseg.client.window_sums import Progress, segment_windows
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.errors import FcnsegError, InputError
from fcnseg.runs.model_info import ModelInfo
from fcnseg.volumes import (
    AIR_HU,
    Volume,
    case_id_of,
    from_canonical,
    resample_image,
    resample_label_back,
    to_canonical,
)
from fcnseg.volumes.tiling import Tiling

TIMEOUT_S = 600.0  # a whole scan takes minutes on a CPU
_LONGEST_S = 10**6  # what timers of the system take
RETRY_S = 120.0  # as long as a few scans take, and as a server restarts
STATUS_TIMEOUT_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0  # between two attempts; it doubles
_POLL_S = 0.5
# Statuses while a server starts, or has no such version, or no such label.
_NOT_READY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND", "INVALID_ARGUMENT")

ResultT = TypeVar("ResultT")


class SegmentationClient:
    """Segments volumes with a served model.

    A context manager: the connection is closed when the block ends. Threads may share a client.

    A request is sent again only if the server has surely not begun it: it was busy, or it could not
    be reached though it had answered before. One that ran out of time, or whose connection broke,
    is not: the server may still work on it, or it may be what ended the server.
    """

    def __init__(
        self,
        server: str,
        *,
        model_name: str = "fcnseg",
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retry_s: float = RETRY_S,
        credentials: Credentials = Credentials(),
    ) -> None:
        """Makes a client; nothing is sent yet.

        Args:
            server: `HOST:PORT` of the server's gRPC interface, or a URL: `grpc://HOST:PORT`,
                `grpcs://HOST:PORT`, `http://HOST:PORT` (REST) or `https://HOST`.
            model_name: Name of the model on the server.
            version: Version of the model; the newest by default.
            label: Label of the version, instead of its number.
            timeout_s: Seconds to wait for an answer, new attempts included.
            retry_s: Seconds for which a request is sent again; 0 to send it once.
            credentials: User, password and certificates.

        Raises:
            InputError: If the address is of another form, the seconds are none, or there are
                certificates for a connection without TLS.
        """
        endpoint = Endpoint.parse(server)
        if not 0 < timeout_s <= _LONGEST_S:
            raise InputError(
                f"timeout_s must be positive and at most {_LONGEST_S}, got {timeout_s}"
            )
        if credentials.ca_file is not None and not endpoint.has_tls:
            raise InputError(f"ca_file goes with grpcs:// and https://, got {server}")
        self.server = str(endpoint)
        self.model = ModelSpec(model_name, version, label)
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self._is_rest = endpoint.is_rest
        kind = RestTransport if endpoint.is_rest else GrpcTransport
        self._transport: Transport = kind(endpoint, credentials)
        self._has_answered = False
        self._closed = threading.Event()

    def __enter__(self) -> SegmentationClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls that run in other threads fail at once."""
        self._closed.set()
        self._transport.close()

    def status(self) -> tuple[VersionStatus, ...]:
        """Requests the states of the model's versions, newest first.

        Raises:
            ServerError: If there is no answer, or no such model.
        """
        timeout_s = min(self.timeout_s, STATUS_TIMEOUT_S)
        found = self._once(
            lambda left: self._transport.status(self.model, timeout_s=left), timeout_s
        )
        return tuple(sorted(found, key=lambda each: each.version, reverse=True))

    def wait_until_ready(self, timeout_s: float = 60.0) -> VersionStatus:
        """Waits until a version of the model is served.

        Args:
            timeout_s: Seconds to wait; 0 to ask once.

        Returns:
            The version that is: that of the label, or the newest.

        Raises:
            ServerError: If there is none in time, with the last state; or the server does not let
                the client in.
        """
        ends = time.monotonic() + timeout_s
        while True:
            try:
                states = self.status()
                ready = self._ready_of(states)
                reason = "; ".join(map(str, states)) or "it has no version"
            except ServerError as error:
                if error.status not in _NOT_READY:
                    raise
                ready, reason = None, str(error)
            if ready is not None:
                return ready
            if time.monotonic() + _POLL_S > ends:
                raise ServerError(f"{self._name} is not ready: {reason}", status="UNAVAILABLE")
            time.sleep(_POLL_S)

    def pin_version(self) -> int:
        """Sends all further requests to the version that answers now, whatever is published later.

        Returns:
            Its number.

        Raises:
            ServerError: If there is no answer, or no such model.
        """
        version = self.metadata().version
        self.model = ModelSpec(self.model.name, version)
        return version

    def metadata(self) -> ModelMetadata:
        """Requests the signatures of the model, and the version that answers.

        Raises:
            ServerError: If there is no answer, or no such model.
        """
        timeout_s = min(self.timeout_s, STATUS_TIMEOUT_S)
        return self._once(
            lambda left: self._transport.metadata(self.model, timeout_s=left), timeout_s
        )

    def model_info(self) -> ModelInfo:
        """Requests the classes, spacing and window of the served model.

        Raises:
            ServerError: If there is no answer, or the model is not one of fcnseg's.
        """
        return self._model_info(self.model)

    def _model_info(self, model: ModelSpec) -> ModelInfo:
        outputs = self._predict(MODEL_INFO, {"unused": np.zeros((), np.int32)}, model=model)
        try:
            return ModelInfo.from_json(outputs["info_json_bytes"].item(), source=self._name)
        except (KeyError, ValueError) as error:
            raise ServerError(f"{self._name} is not a model of fcnseg: {error}") from error

    def segment(
        self, image: Volume | str | Path, *, accept: Sequence[str] = ()
    ) -> npt.NDArray[np.uint8]:
        """Segments a volume of any orientation and spacing on the server.

        Args:
            image: HU int16 (z, y, x), or a CT in any format (docs/formats.md): a file or a folder
                of DICOM slices on this machine.
            accept: Codes of implausible findings to accept, as in the conversion.

        Returns:
            Class ids (z, y, x) on the image's own grid; `model_info` contains their names.

        Raises:
            InputError: If the image cannot be read, cannot be a CT, or is refused, as for too many
                voxels.
            ServerError: If there is no answer, or not a mask.
        """
        volume = _checked(image, accept)
        canonical = to_canonical(volume)
        # As a file an image is a quarter of its numbers in JSON; but the server checks it by the
        # codes that were accepted at export.
        if self._is_rest and not accept and SEGMENT_NIFTI in self.metadata().signatures:
            labels = self._labels_of_nifti(canonical)
        else:
            spacing = np.array(canonical.spacing, np.float32)
            inputs = {"volume": canonical.array, "spacing": spacing}
            labels = self._predict(SEGMENT_VOLUME, inputs).get("labels")
        if labels is None or labels.dtype != np.uint8 or labels.shape != canonical.shape:
            raise ServerError(f"{self._name} gave no mask of shape {canonical.shape}")
        return from_canonical(labels, volume).astype(np.uint8, copy=False)

    def segment_tiled(
        self,
        image: Volume | str | Path,
        *,
        info: ModelInfo | None = None,
        accept: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Segments a volume window by window, with the signature `serving_default` alone.

        Any server of this API runs it, also one that knows a network only, and memory there is
        that of a batch of windows. It takes longer than `segment`: probabilities travel.

        Args:
            image: As in `segment`.
            info: Facts of the model; asked for by default, which takes the signature `model_info`.
            accept: As in `segment`.
            progress: Is called with the number of windows that are done, and of all.

        Returns:
            Class ids (z, y, x) on the image's own grid.

        Raises:
            InputError: If the image cannot be read, cannot be a CT, or is refused.
            ServerError: If there is no answer, or not probabilities.
        """
        volume = _checked(image, accept)
        metadata = self.metadata()
        model = ModelSpec(self.model.name, metadata.version)  # all windows go to one network
        info = info or self._model_info(model)
        canonical = to_canonical(volume)
        canonical = canonical.with_array(np.maximum(canonical.array, AIR_HU))
        network = resample_image(canonical, info.spacing_mm)
        body = region = None
        if info.skip_air:
            body = body_region(canonical.array)
            region = resample_region(body, canonical, info.spacing_mm)
        predict = self._patch_predictor(model, metadata, info)
        air = np.full((1, *info.window, 1), AIR_HU, np.float32)
        tiling = Tiling(info.window, predict(air).shape[1:4], info.overlap)
        ids = segment_windows(
            network.array,
            predict,
            tiling,
            region=region,
            batch_size=info.batch_size,
            progress=progress,
        )
        labels = resample_label_back(network.with_array(ids), canonical).array
        labels = labels if body is None else labels * body
        return from_canonical(labels, volume).astype(np.uint8, copy=False)

    def _patch_predictor(
        self, model: ModelSpec, metadata: ModelMetadata, info: ModelInfo
    ) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        """The network on the server as a function; its input and output may have any name."""
        signature = metadata.signatures.get(DEFAULT_SIGNATURE)
        if signature is None or len(signature.inputs) != 1 or len(signature.outputs) != 1:
            raise ServerError(
                f"{self._name} has no signature {DEFAULT_SIGNATURE} from patches to probabilities"
            )
        (taken,), (given,) = signature.inputs, signature.outputs

        def predict(patches: npt.NDArray[Any]) -> npt.NDArray[Any]:
            tiles = self._predict(DEFAULT_SIGNATURE, {taken: patches}, model=model).get(given)
            sizes = (len(patches), info.num_classes)
            if tiles is None or tiles.ndim != 5 or (len(tiles), tiles.shape[-1]) != sizes:
                shape = None if tiles is None else tiles.shape
                raise ServerError(
                    f"{self._name} gave no probabilities of {sizes[1]} classes for {sizes[0]}"
                    f" windows: their shape is {shape}"
                )
            return tiles

        return predict

    def _labels_of_nifti(self, canonical: Volume) -> npt.NDArray[Any] | None:
        """Segments a volume in the network's orientation as a NIfTI file."""
        file = nib.Nifti1Image(canonical.array.T, canonical.affine).to_bytes()
        outputs = self._predict(SEGMENT_NIFTI, {"nifti_bytes": bytes_scalar(file)})
        try:
            content = outputs["labels_nifti_bytes"].item()
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj).T
        except (nib.filebasedimages.ImageFileError, LookupError, ValueError, OSError) as error:
            raise ServerError(f"{self._name} gave no NIfTI: {error}") from error

    def _ready_of(self, states: Sequence[VersionStatus]) -> VersionStatus | None:
        """The version that answers; the states are of all versions, also if a label is asked for.

        Raises:
            ServerError: If no version has the label.
        """
        served = [each for each in states if each.state == AVAILABLE]
        if self.model.label is not None and served:
            version = self.metadata().version
            served = [each for each in served if each.version == version]
        return served[0] if served else None

    def _states(self) -> tuple[VersionStatus, ...]:
        """The states of all versions of the model; none if the server does not know it."""
        try:
            return self._transport.status(
                ModelSpec(self.model.name), timeout_s=min(self.timeout_s, STATUS_TIMEOUT_S)
            )
        except CallError:
            return ()

    @property
    def _name(self) -> str:
        return f"{self.model} at {self.server}"

    def _predict(
        self, signature_name: str, inputs: Arrays, *, model: ModelSpec | None = None
    ) -> Arrays:
        """Runs a signature, of the client's model by default, again where that is safe."""
        ends = time.monotonic() + self.timeout_s
        gives_up = time.monotonic() + min(self.retry_s, self.timeout_s)
        wait = _FIRST_WAIT_S
        while True:
            try:
                return self._once(
                    lambda left: self._transport.predict(
                        model or self.model, signature_name, inputs, timeout_s=left
                    ),
                    ends - time.monotonic(),
                )
            except ServerError as error:
                pause = wait * random.uniform(0.5, 1.0)  # so that many clients do not come at once
                if not self._is_worth_repeating(error) or time.monotonic() + pause > gives_up:
                    raise
                if self._closed.wait(pause):
                    raise
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _is_worth_repeating(self, error: ServerError) -> bool:
        cause = error.__cause__
        is_unsent = isinstance(cause, CallError) and not cause.is_begun
        is_away = error.status == "UNAVAILABLE" and self._has_answered
        return isinstance(error, TooBusyError) or (is_unsent and is_away)

    def _once(self, call: Callable[[float], ResultT], timeout_s: float) -> ResultT:
        """Makes one call, and turns its failure into an error for the user."""
        try:
            result = call(timeout_s)
        except CallError as error:
            self._has_answered |= error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")
            raise self._explained(error, timeout_s) from error
        except InputError as error:
            raise self._unreadable(error) from error
        self._has_answered = True
        return result

    def _unreadable(self, error: InputError) -> FcnsegError:
        return ServerError(f"{self._name} gave what is no tensor: {error}")

    def _explained(self, error: CallError, timeout_s: float) -> ServerError | InputError:
        if error.code == "NOT_FOUND":
            states = self._states()
            served = [str(each.version) for each in states if each.state == AVAILABLE]
            if states and not served:
                reason = "; ".join(map(str, states))
                return ServerError(f"{self._name} is not ready: {reason}", status=error.code)
            if states and self.model.version is not None:
                reason = f"no {self._name}: the server has version {', '.join(served)}"
                return ServerError(reason, status=error.code)
        return explained(error, server=self.server, model=self._name, timeout_s=timeout_s)


def _checked(image: Volume | str | Path, accept: Sequence[str]) -> Volume:
    """Reads an image if it is a path, and checks that it can be a CT.

    Raises:
        InputError: If it cannot be read, or cannot be a CT.
    """
    gate = Gate(CheckOptions(accept=tuple(accept)))
    if not isinstance(image, Volume):
        case_id = case_id_of(image)
        gate.inspect(str(image), case_id=case_id)
        return gate.read(str(image), case_id=case_id)[0]
    if image.array.dtype != np.int16:
        raise InputError(f"volume must be HU as int16, got {image.array.dtype}")
    given = image.array.view()
    given.flags.writeable = False  # the caller's array is kept: padding becomes air in a copy
    return gate.check(image.with_array(given), case_id="")[0]
