"""An object store in this process's memory, as fsspec has one: for tests of what lies elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

import fsspec

SCHEME = "memory://"


class Objects(MutableMapping[str, bytes]):
    """Contents of the store by their URLs, such as memory://scans/a.nii."""

    def __init__(self) -> None:
        self._files = fsspec.filesystem("memory")

    def __getitem__(self, url: str) -> bytes:
        return self._files.cat_file(url)

    def __setitem__(self, url: str, content: bytes) -> None:
        self._files.pipe_file(url, content)

    def __delitem__(self, url: str) -> None:
        self._files.rm_file(url)

    def __iter__(self) -> Iterator[str]:
        return (f"{SCHEME}{name.lstrip('/')}" for name in list(self._files.store))

    def __len__(self) -> int:
        return len(self._files.store)

    def fill(self, content: Mapping[str, bytes]) -> None:
        """Puts this into the store, and nothing else."""
        self.empty()
        self.update(content)

    def empty(self) -> None:
        """Takes everything out."""
        self._files.store.clear()
        self._files.pseudo_dirs[:] = [""]
