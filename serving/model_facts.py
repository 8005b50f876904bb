"""Information of a server on its model: the status of versions, and the metadata of a version."""

from __future__ import annotations

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from fcnseg.saved_model.session import StatusError

from .model_versions import ModelVersions

SIGNATURE_DEF = "signature_def"


def wanted_version(spec: model_pb2.ModelSpec) -> int | None:
    """Gives the version that a request asks for, None for the newest.

    Raises:
        StatusError: If it asks by a label, which this server does not support.
    """
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        raise StatusError(
            "INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}"
        )
    return int(spec.version.value) if choice == "version" else None


def model_status(
    versions: ModelVersions, spec: model_pb2.ModelSpec
) -> get_model_status_pb2.GetModelStatusResponse:
    """Gives the status of one version, or of all versions so far, newest first.

    Raises:
        StatusError: If there is no such version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    statuses = versions.statuses(spec.name, wanted_version(spec))
    for version, status in sorted(statuses.items(), reverse=True):
        entry = response.model_version_status.add(version=version, state=status.state)
        entry.status.error_code = error_codes_pb2.Code.Value(status.error_code)
        entry.status.error_message = status.error_message
    return response


def model_metadata(
    versions: ModelVersions, spec: model_pb2.ModelSpec
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Gives the signatures of a version.

    Raises:
        StatusError: If it is not served.
    """
    version, session = versions.session(spec.name, wanted_version(spec))
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in session.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = spec.name
    response.model_spec.version.value = version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response
