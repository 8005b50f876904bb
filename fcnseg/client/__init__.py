"""The client of a served model and the messages it sends, without TensorFlow."""

from fcnseg.client.client import SegmentationClient, ServerError

__all__ = ["SegmentationClient", "ServerError"]
