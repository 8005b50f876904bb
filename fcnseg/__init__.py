"""fcnseg: 3D fully convolutional segmentation of abdominal CT, from scans to a served model.

Importing the package is fast and silent: TensorFlow, Beam and matplotlib are imported by the
modules that need them, never here.
"""

from __future__ import annotations

import os
from importlib.metadata import version

# TensorFlow reads this on import. By itself it uses oneDNN only where a CPU has AVX512-VNNI or
# newer; on one with AVX2 a training step takes a quarter of the CPU time with it (demo's network).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = version("fcnseg")
