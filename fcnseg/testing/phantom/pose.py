"""The pose of a patient in the scanner, in addition to the pose drawn with the patient."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from fcnseg.testing.phantom.anatomy import Patient
from fcnseg.volumes import Triple

CENTRE_MM = (0.0, 45.0, 12.0)
"""x, y, z of the middle of the field of view, in the scanner's frame; the centre of rotation.
"""


@dataclasses.dataclass(frozen=True)
class Pose:
    """A rotation, scaling and translation of the complete patient; by default none.

    Attributes:
        turn_degrees: Rotation about z, y and x; x first, then y and z.
        scale: Scale of the patient.
        shift_mm: Translation along z, y and x.
    """

    turn_degrees: Triple = (0.0, 0.0, 0.0)
    scale: float = 1.0
    shift_mm: Triple = (0.0, 0.0, 0.0)

    def of(self, patient: Patient) -> Patient:
        """Gives the patient in this pose, applied after the patient's own."""
        turn = Rotation.from_euler("xyz", self.turn_degrees[::-1], degrees=True).as_matrix()
        move = self.scale * turn
        centre = np.array(CENTRE_MM)
        shift = move @ patient.shift + (centre - move @ centre) + self.shift_mm[::-1]
        return dataclasses.replace(patient, pose=move @ patient.pose, shift=shift)
