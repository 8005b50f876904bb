"""Facts of a trained model for its users: stored next to the weights, and served."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Literal

import pydantic

from fcnseg import __version__
from fcnseg.errors import InputError, first_finding

MODEL_INFO_FILE = "model_info.json"


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """The facts that turn a network into a segmentation of CT.

    Attributes:
        class_names: Class names in the order of the network's output, background first.
        spacing_mm: Spacing (z, y, x) of the grid that the network works on.
        hu_window: HU that the network maps to 0 and 1.
        window: Voxels (z, y, x) of the network's input window.
        overlap: Voxels (z, y, x) by which neighbouring windows overlap at least.
        batch_size: Windows per call of the network.
        max_voxels: Voxels above which an input is refused.
        skip_air: True if air around the body becomes background without being computed; older
            models, without this entry, compute it.
        orientation: Directions of increasing x, y and z in the arrays that the model takes and
            gives.
        fcnseg_version: The version that trained it.
        networks_sha256: SHA-256 of each network in an export, as `predict` records them; empty in a
            run folder.
        flips: Axes whose flips an export averages too.
        precision: Precisions of the layers of an export; empty in a run folder.
    """

    class_names: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    hu_window: tuple[float, float]
    window: tuple[int, int, int]
    overlap: tuple[int, int, int]
    batch_size: int
    max_voxels: int
    skip_air: bool = False
    orientation: Literal["RAS"] = "RAS"
    fcnseg_version: str = __version__
    networks_sha256: tuple[str, ...] = ()
    flips: tuple[Literal["z", "y", "x"], ...] = ()
    precision: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    @property
    def digest(self) -> str:
        """SHA-256 of all of these facts but the version; a fact that has its default is left out.

        So the digest of a model stays when another version of fcnseg knows more facts.
        """
        facts = pydantic.TypeAdapter(ModelInfo).dump_json(
            self, exclude={"fcnseg_version"}, exclude_defaults=True
        )
        return hashlib.sha256(facts).hexdigest()

    def to_json(self) -> str:
        """One JSON object."""
        return pydantic.TypeAdapter(ModelInfo).dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "model info") -> ModelInfo:
        """Reads what `to_json` wrote.

        Raises:
            InputError: If the text is not of this form.
        """
        try:
            return pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            raise InputError(f"{source} is not a model's info: {first_finding(error)}") from error

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> ModelInfo:
        """Reads the model info of a run folder.

        Raises:
            InputError: If it is missing or not of this form.
        """
        path = Path(folder) / MODEL_INFO_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"no model info: {path}") from error
        return cls.from_json(text, source=str(path))
