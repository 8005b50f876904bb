"""The description of a network that was published for OpenVINO, in the folder of its version."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pydantic

from fcnseg.errors import InputError, first_finding

PUBLISHED_FILE = "network.json"


@dataclasses.dataclass(frozen=True)
class PublishedNetwork:
    """A network for OpenVINO as it was published.

    Attributes:
        precision: Precision in which its layers predict unless another is asked for; layers in int8
            stay so.
        sha256: Digest of its files, as `Run.network_digest` gives it.
    """

    precision: Literal["float32", "bfloat16"]
    sha256: str

    def write(self, version: Path) -> None:
        """Writes the description into the folder of a version."""
        text = pydantic.TypeAdapter(PublishedNetwork).dump_json(self, indent=2).decode()
        (version / PUBLISHED_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, version: Path) -> PublishedNetwork:
        """Reads the description of a version.

        Raises:
            InputError: If it is missing or not of this form.
        """
        path = version / PUBLISHED_FILE
        try:
            return pydantic.TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"incomplete version for OpenVINO: {path} is missing") from error
        except pydantic.ValidationError as error:
            raise InputError(f"{path} describes no network: {first_finding(error)}") from error
