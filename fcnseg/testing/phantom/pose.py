"""How a patient lies in the scanner, where it is to differ from what was drawn with the patient."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from fcnseg.testing.phantom.anatomy import Patient
from fcnseg.volumes.volume import Triple

CENTRE_MM = (0.0, 45.0, 12.0)
"""x, y, z of the middle of the field of view, in the scanner's frame; a patient is turned about it.
"""


@dataclasses.dataclass(frozen=True)
class Pose:
    """A turn, a growth and a shift of the whole patient; by default none.

    Attributes:
        turn_degrees: About z, y and x; x first, then y and z.
        scale: By which factor the patient grows.
        shift_mm: Along z, y and x.
    """

    turn_degrees: Triple = (0.0, 0.0, 0.0)
    scale: float = 1.0
    shift_mm: Triple = (0.0, 0.0, 0.0)

    def of(self, patient: Patient) -> Patient:
        """The patient in this pose, which comes on top of the patient's own."""
        turn = Rotation.from_euler("xyz", self.turn_degrees[::-1], degrees=True).as_matrix()
        move = self.scale * turn
        centre = np.array(CENTRE_MM)
        shift = move @ patient.shift + (centre - move @ centre) + self.shift_mm[::-1]
        return dataclasses.replace(patient, pose=move @ patient.pose, shift=shift)
