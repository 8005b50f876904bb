"""Names of the classes of a mask: written into it, and read from it or from files next to it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib

from fcnseg.conversion.rejects import CaseError
from fcnseg.figures.palette import organ_rgb
from fcnseg.storage import files
from fcnseg.volumes import LabelMap, Segment, case_id_of
from fcnseg.volumes.label_map import BACKGROUND

SNAP_FILE = "organs.label"
"""ITK-SNAP's label descriptions, in the folder of the masks."""

_CARET = 30  # code of a NIfTI extension with Connectome Workbench's XML

NamesById = dict[int, str]


def workbench_table(class_names: Sequence[str]) -> str:
    """Writes the XML that Connectome Workbench stores in NIfTI extensions; background is left out.

    Args:
        class_names: By class id, background first.
    """
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for class_id, name in enumerate(class_names[1:], start=1):
        red, green, blue = (f"{part / 255:.3f}" for part in organ_rgb(class_id))
        colour = {"Red": red, "Green": green, "Blue": blue, "Alpha": "1"}
        ElementTree.SubElement(table, "Label", {"Key": str(class_id), **colour}).text = name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    return ElementTree.tostring(root, encoding="unicode")


def segments_of(class_names: Sequence[str]) -> tuple[Segment, ...]:
    """Makes the segments that classes have in DICOM, with the colours of the palette.

    Args:
        class_names: By class id, background first.
    """
    return tuple(
        Segment(class_id, name, organ_rgb(class_id))
        for class_id, name in enumerate(class_names[1:], start=1)
    )


def read_class_names(mask: Path, header: nib.Nifti1Header | None) -> NamesById | None:
    """Reads the names of a mask's classes by id, background left out.

    Args:
        mask: The file, on this machine; `CASE.json` and `organs.label` next to it are used if the
            file itself contains no names.
        header: The mask's, if it is NIfTI.

    Returns:
        The names; None if there are none, as for masks of other programs.
    """
    return (
        _names_inside(header)
        or _names_in_json(mask.with_name(f"{case_id_of(mask)}.json"))
        or _names_in_snap(mask.with_name(SNAP_FILE))
        or None
    )


def names_beside(mask: str) -> list[str]:
    """Paths of the files next to a mask, on any file system, that may name its classes."""
    folder = files.parent(mask)
    return [files.join(folder, name) for name in (f"{case_id_of(mask)}.json", SNAP_FILE)]


def label_map_of_mask(
    mask: str | os.PathLike[str], names: NamesById | None, wanted: Sequence[str]
) -> LabelMap:
    """Makes the map from the ids of a mask to the order of a label map.

    Args:
        mask: The file to blame.
        names: Names from `read_class_names`; without names, ids are class indices.
        wanted: Class names of the label map, background first.

    Raises:
        CaseError: If the mask names other classes.
    """
    if names is None:
        return LabelMap.consecutive(wanted)
    if sorted(names.values()) != sorted(wanted[1:]):
        in_order = [names[class_id] for class_id in sorted(names)]
        raise CaseError(
            "class_names_differ",
            f"the classes of a mask must be those of the label map, got {', '.join(in_order)} in"
            f" the mask and {', '.join(wanted[1:])} in the label map",
            file=str(mask),
        )
    ids = {name: class_id for class_id, name in names.items()}
    return LabelMap({BACKGROUND: (0,), **{name: (ids[name],) for name in wanted[1:]}})


def _names_inside(header: nib.Nifti1Header | None) -> NamesById:
    found: NamesById = {}
    for extension in [] if header is None else header.extensions:
        if extension.get_code() == _CARET:
            with contextlib.suppress(ElementTree.ParseError, ValueError, TypeError):
                found |= dict(_labels_in(extension.content))
    return found


def _labels_in(xml: bytes) -> Iterator[tuple[int, str]]:
    for label in ElementTree.fromstring(xml.rstrip(b"\0").decode()).iter("Label"):
        class_id = int(label.get("Key", ""))
        if class_id != 0:
            yield class_id, (label.text or "").strip()


def _names_in_json(path: Path) -> NamesById:
    """Reads the organs whose volumes prediction wrote, in the order of their ids."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(enumerate(map(str, dict(content["volumes_ml"])), start=1))
    return {}


def _names_in_snap(path: Path) -> NamesById:
    """Reads the labels of ITK-SNAP: the id comes first in a line, the name last."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [shlex.split(line) for line in lines if line.strip() and line.strip()[0] != "#"]
        return {int(row[0]): row[-1] for row in rows if int(row[0]) != 0}
    return {}
