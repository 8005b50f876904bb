"""Beam's S3 client, mended for jobs of many files.

Beam makes a new boto3 client for each operation on a file, which takes a third of a second of the
processor (measured), and ends the upload of an empty file without a part, which S3 refuses. Here
all operations share one client, and an empty file is uploaded as one empty part.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client, messages


class Client(boto3_client.Client):
    """Beam's client, which also uploads empty files."""

    def complete_multipart_upload(self, request: Any) -> None:
        """Ends an upload."""
        if not request.parts:
            empty = messages.UploadPartRequest(
                request.bucket, request.object, request.upload_id, 1, b""
            )
            response = self.upload_part(empty)
            part = {"ETag": response.etag, "PartNumber": response.part_number}
            request.parts.append(part)
        super().complete_multipart_upload(request)


class _Clients:
    """Clients that share the connections of the first one for the same options."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._options: Any = None
        self._first: Client | None = None

    def __call__(self, options: Any) -> Client:
        """A client with a download state of its own."""
        with self._lock:  # boto3 clients may be shared among threads, but not made in several
            if self._first is None or options is not self._options:
                self._options, self._first = options, Client(options)
            return copy.copy(self._first)


def mend() -> None:
    """Lets Beam's file system for s3:// use these clients, in this process."""
    boto3_client.Client = _Clients()
