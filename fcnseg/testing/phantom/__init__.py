"""Phantoms: synthetic portal-venous CT of the upper abdomen with labels of the seven organs.

It serves the demo, tests and benchmarks. A patient is drawn in millimetres (`anatomy`, built from
`_shapes`), positioned (`pose`) and then rendered on any grid (`rendering`).
"""

from fcnseg.testing.phantom.anatomy import ORGANS
from fcnseg.testing.phantom.pose import Pose
from fcnseg.testing.phantom.rendering import make_phantom
from fcnseg.testing.phantom.writing import LABEL_MAP, write_phantoms

__all__ = ["LABEL_MAP", "ORGANS", "Pose", "make_phantom", "write_phantoms"]
