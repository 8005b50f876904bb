"""Shows patches before and after augmentation: `fcnseg preview --help`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.config import PRESETS, AugmentationConfig, Config
from fcnseg.errors import InputError
from fcnseg.figures.formats import png_of
from fcnseg.figures.page import check_page_extras, render
from fcnseg.figures.slices import draw_slices
from fcnseg.records import Dataset, DatasetInfo
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole
from fcnseg.volumes import Volume

logger = logging.getLogger(__name__)

_LINE = {"linewidths": 1.2}


class Patch(NamedTuple):
    """A patch.

    Attributes:
        hu: HU (z, y, x).
        label: Class indices (z, y, x).
        case_id: Id of its case.
    """

    hu: np.ndarray
    label: np.ndarray
    case_id: str


@dataclasses.dataclass(frozen=True)
class PreviewCommand:
    """Shows patches of a dataset before and after augmentation, with outlines, on one page."""

    directory: Annotated[Location, tyro.conf.Positional]
    """Folder of records."""
    output: Path
    """HTML file to write, with all pictures embedded."""
    config: ConfigFlags = PRESETS["roth2018"]
    """Configuration; each flag overrides one of its values."""
    count: int = 6
    """Number of patches."""
    step: int = 0
    """First training step shown: exactly the patches of that step in a run with the same seed."""
    overwrite: bool = False
    """Replace a page that exists already."""

    def run(self) -> None:
        """Writes the page."""
        check_output_file(self.output)
        check_free([self.output], overwrite=self.overwrite)
        load_tensorflow()
        check_page_extras()
        for name, least in (("count", 1), ("step", 0)):
            if getattr(self, name) < least:
                rule = f"{name} must be {'at least 1' if least else '0 or more'}"
                raise InputError(f"{rule}, got {getattr(self, name)}")
        dataset = Dataset.open(self.directory)
        pairs = patch_pairs(dataset, self.config, count=self.count, step=self.step)
        page = preview_html(pairs, dataset.info, self.config.augmentation)
        write_whole(self.output, page)
        logger.info(f"{len(pairs)} patches are in {self.output}")


def patch_pairs(
    dataset: Dataset, config: Config, *, count: int, step: int = 0
) -> list[tuple[Patch, Patch]]:
    """Reads patches before and after augmentation.

    Args:
        dataset: A finished dataset.
        config: All settings.
        count: Number of patches.
        step: Training step of the first.

    Raises:
        DatasetError: If the dataset cannot be trained on, or a file is broken.
    """
    from fcnseg.sampling import make_training_dataset
    from fcnseg.sampling.damaged_files import naming_broken_files

    drawn = [
        make_training_dataset(
            dataset,
            config.patches,
            seed=config.training.seed,
            augmentation=augmentation,
            start_step=step,
            with_case_ids=True,
        )
        .unbatch()
        .take(count)
        .as_numpy_iterator()
        for augmentation in (
            AugmentationConfig(),
            dataclasses.replace(config.augmentation, run_on="host"),
        )
    ]
    with naming_broken_files(dataset):
        patches = [
            [Patch(batch.hu[..., 0], batch.label, case_id.decode()) for batch, case_id in each]
            for each in drawn
        ]
    return list(zip(*patches, strict=True))


def preview_html(
    pairs: Sequence[tuple[Patch, Patch]], info: DatasetInfo, augmentation: AugmentationConfig
) -> str:
    """Makes the page.

    Args:
        pairs: Patches before and after augmentation.
        info: Manifest of their dataset.
        augmentation: Augmentation of the second of each pair.
    """
    return render(
        "preview.html",
        augmentation=_changed(augmentation),
        organs=info.class_names[1:],
        patches=[_drawn_patch(pair, info) for pair in pairs],
    )


def _changed(augmentation: AugmentationConfig) -> str:
    """The augmentation settings that differ from the default, which augments nothing."""
    default = AugmentationConfig()
    values = {
        field.name: getattr(augmentation, field.name)
        for field in dataclasses.fields(default)
        if getattr(augmentation, field.name) != getattr(default, field.name)
    }
    return "; ".join(f"{name} {value}" for name, value in values.items())


def _drawn_patch(pair: tuple[Patch, Patch], info: DatasetInfo) -> dict[str, object]:
    """A patch as cut from the volume, and as the network sees it."""
    pictures = {
        title: _png(patch, info, title)
        for patch, title in zip(pair, ("before", "after"), strict=True)
    }
    return {"case_id": pair[0].case_id, **pictures}


def _png(patch: Patch, info: DatasetInfo, title: str) -> bytes:
    affine = np.diag([*info.spacing_mm[::-1], 1.0])
    middle = np.array(patch.hu.shape) // 2
    outlines = [(Volume(patch.label, affine), _LINE)]
    return png_of(draw_slices(Volume(patch.hu, affine), outlines, middle, title=title))
