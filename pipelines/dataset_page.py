"""One page on a dataset with its histograms and pictures, that needs no other file."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence

import numpy as np

from fcnseg.errors import require_extra
from fcnseg.figures.page import page, picture, section, table, tiles
from fcnseg.figures.palette import organ_colour
from fcnseg.figures.slices import draw_slices, middle_of
from fcnseg.records import Record
from fcnseg.volumes import Volume
from pipelines.dataset import Dataset
from pipelines.dataset_plots import hu_plot, spacing_plot, volume_plot
from pipelines.dataset_tables import WORDY, Table, case_table, tables_of

_LINE = {"linewidths": 1.3}
_READING = (
    "Slices through the centre of all organs, as the network is given them. R and L are the"
    " patient's right and left, A and P anterior and posterior, S and I superior and inferior: the"
    " liver belongs at R, the spine at P. Grey is the soft tissue window, -160 to 240 HU."
)


def dataset_html(dataset: Dataset, cases: Iterable[Record]) -> str:
    """The whole page.

    Args:
        dataset: What to tell of.
        cases: Those to draw.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    plots = {
        "HU": hu_plot(dataset.fingerprint),
        "Files: spacing and size": spacing_plot(dataset.fingerprint),
    }
    if dataset.organs:
        plots["Classes"] = volume_plot(dataset)
    all_cases = _html(case_table(dataset))
    return page(
        f"Dataset {dataset.name}",
        tiles(_facts(dataset)),
        *(section(t.title, _html(t), plots.get(t.title, "")) for t in tables_of(dataset)),
        section(
            "Pictures",
            f'<p class="quiet">{html.escape(_READING)}</p>',
            *(_figure(case, dataset) for case in cases),
        ),
        section("Cases", f"<details><summary>All cases</summary>{all_cases}</details>"),
    )


def draw_record(record: Record, class_names: Sequence[str]) -> bytes:
    """Three slices of a case through the centre of its organs, as PNG.

    Args:
        record: The case.
        class_names: In order, background first; those that the case has are in the legend.
    """
    image = Volume(record.image, record.affine)
    unlabelled = np.zeros(image.shape, np.uint8)
    label = image.with_array(unlabelled if record.label is None else record.label)
    figure = draw_slices(image, [(label, _LINE)], middle_of(label), title=record.case_id)
    line = require_extra("matplotlib.lines", "evaluation").Line2D
    handles = [
        line([], [], color=organ_colour(index), lw=3, label=class_names[index])
        for index in np.flatnonzero(record.class_histogram).tolist()
        if index > 0
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=9, fontsize=8, frameon=False
        )
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white")
    return stream.getvalue()


def _facts(dataset: Dataset) -> list[tuple[str, str]]:
    fingerprint = dataset.fingerprint
    orientations = ", ".join(f"{name} {n}" for name, n in fingerprint.orientations.items())
    spacing = " x ".join(f"{step:g}" for step in dataset.info.spacing_mm)
    return [
        ("cases", str(len(fingerprint.cases))),
        ("rejected", str(len(dataset.rejects))),
        ("with warnings", str(sum(bool(case.warnings) for case in fingerprint.cases))),
        ("spacing of the records (z, y, x), mm", spacing),
        ("orientation of the files", orientations),
    ]


def _figure(case: Record, dataset: Dataset) -> str:
    """The picture of a case, and the volumes of its organs."""
    png = draw_record(case, dataset.info.class_names)
    volumes = case.class_histogram[1:] * dataset.ml_per_voxel
    told = ", ".join(
        f"{organ} {ml:,.0f} ml" for organ, ml in zip(dataset.organs, volumes, strict=False) if ml
    )
    drawn = picture(png, alt=f"slices of {case.case_id} with outlines of its organs")
    return f'{drawn}<p class="quiet">{html.escape(told)}</p>'


def _html(told: Table) -> str:
    rows = [
        [_cell(heading, text) for heading, text in zip(told.header, row, strict=True)]
        for row in told.rows
    ]
    return table(told.header, rows)


def _cell(heading: str, text: str) -> str:
    escaped = html.escape(text)
    return f'<td class="left">{escaped}</td>' if heading in WORDY else escaped
