"""The client of a served model and the messages it sends, without TensorFlow."""

from fcnseg.client.client import SegmentationClient
from fcnseg.client.endpoint import Credentials
from fcnseg.client.failures import ServerError, TooBusyError
from fcnseg.client.served_model import ModelMetadata, VersionStatus

__all__ = [
    "Credentials",
    "ModelMetadata",
    "SegmentationClient",
    "ServerError",
    "TooBusyError",
    "VersionStatus",
]
