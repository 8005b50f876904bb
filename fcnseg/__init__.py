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
# Nor does it keep the memory of large tensors by itself: it returns that of each to the system and
# asks for zeroed pages again, a third of a training step's CPU time (64^3, batch 2: 26 and 16 s),
# where keeping it takes 4.7 GB instead of 3.6 GB.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

__version__ = version("fcnseg")
