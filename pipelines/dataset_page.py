"""One page on a dataset with its histograms and pictures, that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fcnseg.figures.formats import png_of
from fcnseg.figures.page import render
from fcnseg.figures.slices import add_legend, draw_slices, middle_of
from fcnseg.records import Record
from fcnseg.volumes import Volume, Zyx

from .dataset_plots import hu_plot, spacing_plot, volume_plot
from .dataset_tables import WORDY, case_table, tables_of
from .inspected_dataset import InspectedDataset

_LINE = {"linewidths": 1.3}


def dataset_html(dataset: InspectedDataset, cases: Iterable[Record]) -> str:
    """Renders the complete page.

    Args:
        dataset: The dataset to describe.
        cases: Cases to draw.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
    """
    plots = {
        "HU": hu_plot(dataset.fingerprint),
        "Files: spacing and size": spacing_plot(dataset.fingerprint),
    }
    if dataset.organs:
        plots["Classes"] = volume_plot(dataset)
    return render(
        "dataset.html",
        folder=dataset.name,
        facts=_facts(dataset),
        tables=tables_of(dataset),
        plots=plots,
        wordy=WORDY,
        pictures=[
            {
                "case_id": case.case_id,
                "png": draw_record(case, dataset.info.class_names),
                "volumes": _volumes(case, dataset),
            }
            for case in cases
        ],
        cases=case_table(dataset),
    )


def draw_record(record: Record, class_names: Sequence[str]) -> bytes:
    """Draws three slices of a case through the centre of its organs, as PNG.

    Args:
        record: The case.
        class_names: Class names in order, background first; those of the case are in the legend.
    """
    image = Volume(record.image, record.affine)
    unlabelled = np.zeros(image.shape, np.uint8)
    label = image.with_array(unlabelled if record.label is None else record.label)
    figure = draw_slices(image, [(label, _LINE)], middle_of(label), title=record.case_id)
    present = [index for index in np.flatnonzero(record.class_histogram).tolist() if index > 0]
    add_legend(figure, {index: class_names[index] for index in present})
    return png_of(figure)


def _facts(dataset: InspectedDataset) -> list[tuple[str, str]]:
    fingerprint = dataset.fingerprint
    orientations = ", ".join(f"{name} {n}" for name, n in fingerprint.orientations.items())
    spacing = f"{Zyx(dataset.info.spacing_mm):g}"
    return [
        ("cases", str(len(fingerprint.cases))),
        ("rejected", str(len(dataset.rejects))),
        ("with warnings", str(sum(bool(case.warnings) for case in fingerprint.cases))),
        ("spacing of the records (z, y, x), mm", spacing),
        ("orientation of the files", orientations),
    ]


def _volumes(case: Record, dataset: InspectedDataset) -> str:
    """The volumes of a case's organs."""
    volumes = case.class_histogram[1:] * dataset.voxel_ml
    return ", ".join(
        f"{organ} {ml:,.0f} ml" for organ, ml in zip(dataset.organs, volumes, strict=False) if ml
    )
