"""Names and colours of classes in the file formats of viewers."""

from __future__ import annotations

from collections.abc import Sequence

from fcnseg.figures.palette import organ_rgb

SLICER_FILE = "organs.ctbl"
"""3D Slicer's colour table, in the folder of the masks."""

_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
"""


def itk_snap_label_descriptions(class_names: Sequence[str]) -> str:
    """Formats ITK-SNAP's label descriptions, the text of a `.label` file.

    Args:
        class_names: By class id, background first.
    """
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for class_id, name in enumerate(class_names[1:], start=1):
        red, green, blue = organ_rgb(class_id)
        plain = name.replace('"', "'")  # the format cannot escape a quote
        lines.append(f'{class_id:5} {red:5}{green:5}{blue:5}        1  1  1    "{plain}"')
    return _SNAP_HEADER + "\n".join(lines) + "\n"


def slicer_colours(class_names: Sequence[str]) -> str:
    """Formats 3D Slicer's colour table, a `.ctbl` file; spaces in names become underscores.

    Args:
        class_names: By class id, background first.
    """
    lines = ["# Color table file", "0 background 0 0 0 0"]
    for class_id, name in enumerate(class_names[1:], start=1):
        red, green, blue = organ_rgb(class_id)
        lines.append(f"{class_id} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"
