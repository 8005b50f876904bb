"""The file to which a conversion writes the label map that it takes."""

from __future__ import annotations

import dataclasses

from fcnseg.storage import files
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole
from fcnseg.volumes import LabelMap


@dataclasses.dataclass(frozen=True)
class LabelMapFile:
    """A YAML file, which `LabelMap.read` reads back.

    Attributes:
        path: Path on any file system; None to write none.
        label_map: Its content.
        overwrite: Replace another file of that name; one with the same content is kept.

    Raises:
        InputError: If the file cannot be written, or another one is there.
    """

    path: str | None
    label_map: LabelMap
    overwrite: bool

    def __post_init__(self) -> None:
        if self.path is None:
            return
        check_output_file(self.path, argument="write_label_map")
        if not self._is_written():
            check_free([self.path], overwrite=self.overwrite)

    def write(self) -> None:
        """Writes the file, unless it has the content already."""
        if self.path is not None and not self._is_written():
            write_whole(self.path, self.label_map.to_yaml())

    def _is_written(self) -> bool:
        text = self.label_map.to_yaml().encode()
        return files.size(str(self.path)) == len(text) and files.read_bytes(str(self.path)) == text
