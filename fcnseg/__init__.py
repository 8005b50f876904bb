"""fcnseg: 3D fully convolutional segmentation of abdominal CT, from scans to a served model.

Importing the package is fast and silent: TensorFlow, Beam and matplotlib are imported by the
modules that need them, never here.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("fcnseg")
