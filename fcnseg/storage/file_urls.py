"""Paths given as URLs of local files."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import url2pathname

from fcnseg.errors import InputError

_SCHEME = "file://"


def local_path(path: str) -> str:
    """Gives the path that a `file://` URL means; any other path unchanged.

    >>> local_path("file:///data/scan%201.nii.gz"), local_path("gs://bucket/scan.nii.gz")
    ('/data/scan 1.nii.gz', 'gs://bucket/scan.nii.gz')

    Raises:
        InputError: If the URL names another machine.
    """
    if not path.lower().startswith(_SCHEME):
        return path
    url = urlsplit(path)
    if url.netloc not in ("", "localhost") or url.query or url.fragment or not url.path:
        raise InputError(f"a file URL must be file:///FOLDER/NAME, got {path}")
    return url2pathname(url.path)
