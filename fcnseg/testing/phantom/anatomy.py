"""The upper abdomen as solids: the common anatomy, and its variation between patients.

The patient frame is in mm, x to the patient's right, y to anterior, z to superior (RAS), with its
origin in the middle of the first lumbar vertebra. Sizes are those of a mid-sized adult, rounded.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from fcnseg.testing.phantom._shapes import (
    Ellipsoid,
    Grown,
    HalfSpace,
    Intersection,
    Lobed,
    Outside,
    Ribs,
    Solid,
    Stack,
    Tube,
    Union,
)
from fcnseg.testing.phantom.variety import check_variety, widened
from fcnseg.volumes.label_map import BACKGROUND

ORGANS = ("artery", "vein", "liver", "spleen", "stomach", "gallbladder", "pancreas")
"""The labelled organs in the order of their ids, from 1; artery is the aorta, vein the inferior
vena cava with the portal, splenic and superior mesenteric vein."""
CLASS_NAMES = (BACKGROUND, *ORGANS)
Size = int | tuple[int, ...]

# Usual attenuation in the portal-venous phase (about 70 s after injection), mid-range of the values
# in radiology reports. Organs that enhance vary with the patient's dose and timing.
HU = {
    "aorta": 150.0,
    "cava": 140.0,
    "portal": 165.0,
    "liver": 110.0,
    "spleen": 122.0,
    "pancreas": 98.0,
    "kidney": 190.0,
    "renal pelvis": 60.0,
    "heart": 145.0,
    "heart muscle": 90.0,
    "gut wall": 85.0,
    "gut content": 25.0,
    "gallbladder": 10.0,
    "muscle": 60.0,
    "skin": 20.0,
    "fat": -102.0,
    "visceral fat": -95.0,
    "cortical bone": 480.0,
    "marrow": 185.0,
    "disc": 85.0,
    "spinal canal": 30.0,
    "lung": -840.0,
    "gas": -960.0,
}
# Tissues that the contrast medium reaches, and the HU that each loses in about the 20 s after the
# portal-venous phase, or gains in as long before it.
_ENHANCING = {
    "aorta": 30.0,
    "cava": 0.0,  # still filling while the others wash out
    "portal": 10.0,
    "liver": -2.0,
    "spleen": 12.0,
    "pancreas": 10.0,
    "kidney": 10.0,
    "heart": 25.0,
    "heart muscle": 10.0,
}
_NO_GALLBLADDER = 1 / 8  # in varied patients: about one adult in eight has had it removed


@dataclasses.dataclass(frozen=True)
class Tissue:
    """A solid and its contents.

    Attributes:
        solid: Shape and position of the tissue.
        layers: (depth below the surface in mm, HU) from the outside inwards.
        label: Its id, 0 if not labelled, None to keep the id of the tissue around it.
    """

    solid: Solid
    layers: tuple[tuple[float, float], ...]
    label: int | None = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Patient:
    """One patient: tissues in painting order, their deformation, and the patient's position.

    Attributes:
        tissues: Tissues, each painted over the ones before.
        waves: Wave vectors (n, 3) in radians per mm of the smooth deformation of all tissues.
        phases: Phases (n,) in radians.
        amplitudes: Amplitudes (n, 3) in mm.
        pose: Matrix (3, 3) from patient frame to scanner frame: rotation and scale.
        shift: Translation (3,) in mm, added after `pose`.
        noise_hu: Standard deviation of the noise.
    """

    tissues: tuple[Tissue, ...]
    waves: npt.NDArray[np.float64]
    phases: npt.NDArray[np.float64]
    amplitudes: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    noise_hu: float


class Variation:
    """Random draws about the typical anatomy, in one fixed order.

    Attributes:
        variety: Factor of the usual range of the draws.
        has_gallbladder: False if it was removed, which needs a variety above 1.
    """

    def __init__(self, rng: np.random.Generator, variety: float) -> None:
        self._rng = rng
        self.variety = variety
        # Draws that only varied patients have are from a separate generator, so that the usual
        # patients do not change.
        extra = rng.spawn(1)[0]
        phase = (variety - 1) * extra.uniform(-1, 1)
        self.has_gallbladder = extra.random() >= min(variety - 1, 1) * _NO_GALLBLADDER
        dose = self.between(0.92, 1.08)
        self._hu = {
            name: value * (dose if name in _ENHANCING else 1)
            + self.between(-4, 4)
            - phase * _ENHANCING.get(name, 0)
            for name, value in HU.items()
        }

    def between(
        self, low: float, high: float, *, least: float = -np.inf, most: float = np.inf
    ) -> float:
        """Draws uniformly from a range, widened for varied patients within possible values."""
        return float(self._rng.uniform(*widened(low, high, self.variety, least=least, most=most)))

    def triple(self, low: float, high: float) -> npt.NDArray[np.float64]:
        """Draws three values from such ranges."""
        return np.array([self.between(low, high) for _ in range(3)])

    def anywhere(self, low: float, high: float) -> float:
        """Draws uniformly from the same range for all patients."""
        return float(self._rng.uniform(low, high))

    def normal(self, spread: float, reach: float, size: Size) -> npt.NDArray[np.float64]:
        """Draws normally about 0, clipped at `reach`; spread and reach grow with variety."""
        reach *= self.variety
        return np.clip(self._rng.normal(0, spread * self.variety, size), -reach, reach)

    def tissue(
        self,
        solid: Solid,
        outer: str,
        *inner: tuple[float, str],
        organ: str | None = BACKGROUND,
    ) -> Tissue:
        """Fills a solid with the patient's HU of the name in `HU`; see `Tissue`."""
        layers = [(0.0, outer), *inner]
        label = None if organ is None else CLASS_NAMES.index(organ)
        return Tissue(solid, tuple((depth, self._hu[name]) for depth, name in layers), label)

    def place(self, spread_mm: float, *parts: Ellipsoid | Tube) -> tuple[Solid, ...]:
        """Moves and scales parts of one organ together, and bends tubes slightly more."""
        shift = self.normal(spread_mm, 2 * spread_mm, 3)
        scale = float(
            np.clip(self._rng.normal(1, 0.05 * self.variety), *widened(0.9, 1.1, self.variety))
        )
        return tuple(self._place(part, shift, scale) for part in parts)

    def _place(self, part: Ellipsoid | Tube, shift: npt.NDArray[np.float64], scale: float) -> Solid:
        radii = np.multiply(part.radii, scale)
        if isinstance(part, Ellipsoid):
            turn = np.add(part.turn, self.triple(-6, 6))
            return Ellipsoid(np.add(part.centre, shift), radii, turn)
        bends = self.normal(1.5, 3, (len(part.path), 3))
        return Tube(np.add(part.path, bends) + shift, radii)


def draw_patient(rng: np.random.Generator, *, variety: float = 1.0) -> Patient:
    """Draws a patient; equal generators give equal patients.

    Args:
        rng: Generator of all draws.
        variety: Variation between patients, 1 as usual, at most 3.

    Raises:
        InputError: If `variety` is out of range.
    """
    vary = Variation(rng, check_variety(variety))
    cavity = Ellipsoid(
        (0, 50, 0),
        (
            vary.between(126, 140, least=116),  # narrower ones would cut off the organs at the side
            vary.between(80, 90, least=76),
            np.inf,
        ),
    )
    chest = _chest(vary, cavity)
    tissues = (
        *_body(vary, cavity),
        *_gut(vary),
        *_kidneys(vary),
        *chest.tissues,
        _spleen(vary, chest.below_diaphragm),
        *_liver(vary, chest.below_diaphragm),
        *_stomach(vary, chest.below_diaphragm),
        *_pancreas_and_vessels(vary),
        *_skeleton(vary, cavity),
    )
    bending = min(variety, 2.5)  # larger ones would fold organs over themselves
    wavelengths = rng.uniform(90, 220, 6)  # mm: bends organs as a whole, keeps their kind of shape
    directions = rng.normal(size=(6, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Patient(
        tissues=tissues,
        waves=directions * (2 * np.pi / wavelengths)[:, None],
        phases=rng.uniform(0, 2 * np.pi, 6),
        amplitudes=bending * np.clip(rng.normal(0, 1.6, (6, 3)), -3, 3),
        pose=_pose(vary),
        shift=vary.triple(-8, 8),
        noise_hu=vary.between(11, 16, least=5),  # noise of 3-5 mm slices at clinical dose
    )


def _pose(vary: Variation) -> npt.NDArray[np.float64]:
    turn = Rotation.from_euler("xyz", vary.triple(-5, 5), degrees=True).as_matrix()
    return turn @ np.diag(vary.between(0.92, 1.06) * vary.triple(0.97, 1.03))


def _body(vary: Variation, cavity: Ellipsoid) -> tuple[Tissue, ...]:
    """Skin, fat, muscle wall and the fat between the organs."""
    fat = vary.between(9, 24, least=3, most=45)
    wall = Ellipsoid((0, 44, 0), np.add(cavity.radii, (13, 16, 0)))
    skin = Ellipsoid((0, 44 + fat / 3, 0), np.add(wall.radii, (fat, 1.2 * fat, 0)))
    spine_muscles = Union(
        [Ellipsoid((side * 33, -42, 0), (30, 20, np.inf)) for side in (-1, 1)], softness=8
    )
    psoas = Union(
        [
            Tube([(side * 24, -8, 10), (side * 38, -5, -60), (side * 48, 5, -180)], (6, 18, 24))
            for side in (-1, 1)
        ]
    )
    return (
        vary.tissue(skin, "skin", (2, "fat")),
        vary.tissue(wall, "muscle"),
        vary.tissue(cavity, "visceral fat"),
        vary.tissue(Union((spine_muscles, psoas)), "muscle"),
    )


def _skeleton(vary: Variation, wall: Ellipsoid) -> tuple[Tissue, ...]:
    """Discs, vertebrae with their arches, the spinal canal and the ribs."""
    column = Ellipsoid((0, 0, 0), (22, 16, np.inf))
    body = Intersection((column, HalfSpace((0, 0, 1), -14), HalfSpace((0, 0, -1), -14)), softness=5)
    arch = Union(
        (
            Ellipsoid((0, -25, -2), (19, 14, 12)),
            Ellipsoid((0, -48, -8), (4, 19, 10)),
            Tube([(-42, -29, 0), (-15, -24, 0), (15, -24, 0), (42, -29, 0)], (4, 6, 6, 4)),
        ),
        softness=4,
    )
    ribs = Ribs(
        Ellipsoid(wall.centre, np.add(wall.radii, (6, 6, 0))),
        period=vary.between(27, 31),
        drop=vary.between(70, 90),
        lowest=vary.between(10, 20),
        radii=(4, 7),
    )
    return (
        vary.tissue(Grown(column, -1), "disc"),
        vary.tissue(
            Stack(Union((body, arch), softness=3), period=34), "cortical bone", (2.5, "marrow")
        ),
        vary.tissue(Ellipsoid((0, -25, 0), (11, 8, np.inf)), "spinal canal"),
        vary.tissue(ribs, "cortical bone", (2, "marrow")),
    )


@dataclasses.dataclass(frozen=True)
class _Chest:
    below_diaphragm: Solid
    tissues: tuple[Tissue, ...]


def _chest(vary: Variation, cavity: Ellipsoid) -> _Chest:
    """Lung bases about the domes of the diaphragm, and the heart on top of it."""
    (right,) = vary.place(4, Ellipsoid((60, 62, 8), (84, 95, 96)))
    (left,) = vary.place(4, Ellipsoid((-60, 62, 2), (84, 95, 92)))
    domes = Union((right, left), softness=12)
    lungs = Intersection((Grown(cavity, -1), HalfSpace((0, 0, 1), 22), Outside(domes)), softness=4)
    mediastinum = Ellipsoid((0, 45, 120), (26, 90, 200))
    (heart,) = vary.place(4, Ellipsoid((-28, 95, 138), (62, 46, 40), (0, 20, 0)))
    return _Chest(
        below_diaphragm=Intersection((Grown(domes, -2), Grown(cavity, -2)), softness=6),
        tissues=(
            vary.tissue(Intersection((lungs, Outside(mediastinum))), "lung"),
            vary.tissue(
                Intersection((heart, Outside(domes), Grown(cavity, -2))),
                "heart muscle",
                (8, "heart"),
            ),
        ),
    )


def _liver(vary: Variation, below_diaphragm: Solid) -> tuple[Tissue, ...]:
    """Liver with its hepatic veins, which belong to its label, and the gallbladder."""
    fundus = vary.between(13, 17, least=9)
    right, tip, left, gallbladder = vary.place(
        4,
        Ellipsoid((74, 48, 38), (66, 82, 70)),
        Ellipsoid((96, 32, -12), (32, 48, 58)),
        Ellipsoid((6, 98, 52), (78, 34, 34), (0, -14, 12)),
        Tube([(52, 66, 2), (60, 84, -14), (68, 102, -32)], (5, 11, fundus)),
    )
    (hilum,) = vary.place(3, Ellipsoid((-2, 36, -6), (54, 54, 48)))
    liver = Intersection(
        (Union((right, tip, left), softness=14), Outside(hilum), below_diaphragm), softness=8
    )
    veins = Union(
        (
            Tube([(26, 40, 84), (60, 40, 72), (105, 30, 55)], (6, 4, 2.5)),
            Tube([(26, 40, 84), (50, 70, 70), (80, 95, 45)], (6, 4, 2.5)),
        )
    )
    tissues = (
        vary.tissue(liver, "liver", organ="liver"),
        vary.tissue(Intersection((veins, liver)), "portal", organ=None),
        vary.tissue(gallbladder, "gallbladder", organ="gallbladder"),
    )
    return tissues if vary.has_gallbladder else tissues[:-1]


def _spleen(vary: Variation, below_diaphragm: Solid) -> Tissue:
    outline, gastric_face = vary.place(
        4, Ellipsoid((-98, 8, 44), (37, 48, 53), (0, 0, 24)), Ellipsoid((-54, 28, 48), (32, 40, 70))
    )
    spleen = Intersection((outline, Outside(gastric_face), below_diaphragm), softness=6)
    return vary.tissue(spleen, "spleen", organ="spleen")


def _stomach(vary: Variation, below_diaphragm: Solid) -> tuple[Tissue, ...]:
    """The stomach from fundus to pylorus, and gas under its front wall, part of its label."""
    path = [(-55, 18, 88), (-66, 32, 70), (-64, 62, 42), (-48, 92, 12), (-12, 100, -8)]
    radii = np.array([20, 33, 31, 25, 19, 9]) * vary.between(0.8, 1.1, least=0.5)
    (tube,) = vary.place(4, Tube([*path, (22, 88, -6)], radii))
    stomach = Intersection((tube, below_diaphragm), softness=6)
    gas = Intersection((Grown(stomach, -4), HalfSpace((0, 1, 0), vary.between(100, 118))))
    return (
        vary.tissue(stomach, "gut wall", (4, "gut content"), organ="stomach"),
        vary.tissue(gas, "gas", organ=None),
    )


def _pancreas_and_vessels(vary: Variation) -> tuple[Tissue, ...]:
    """The pancreas with the veins behind it, and the two great vessels before the spine."""
    head, body, splenic_vein, portal, right_branch, left_branch, mesenteric = vary.place(
        3,
        Tube([(34, 44, -46), (33, 48, -28), (18, 54, -12)], (10, 15, 11)),
        Tube([(18, 54, -12), (-8, 62, 0), (-38, 54, 10), (-76, 26, 28)], (11, 9, 10.5, 9.5)),
        Tube([(8, 46, -6), (-18, 50, 4), (-44, 42, 13), (-82, 18, 34)], (5.5, 5, 5, 4)),
        Tube([(8, 46, -6), (24, 52, 14), (46, 54, 34)], (7, 7.5, 7)),
        Tube([(46, 54, 34), (64, 50, 42), (86, 46, 48)], (6, 5.5, 4)),
        Tube([(46, 54, 34), (30, 74, 46), (14, 86, 54)], (6, 5, 3.5)),
        Tube([(8, 46, -6), (6, 50, -40), (4, 56, -80)], (6, 5.5, 5)),
    )
    (aorta,) = vary.place(
        2,
        Tube([(-16, 24, 170), (-16, 30, 60), (-14, 31, 0), (-8, 30, -160)], (12.5, 11.5, 10.5, 9)),
    )
    (cava,) = vary.place(
        2, Tube([(22, 52, 112), (26, 38, 80), (24, 30, 0), (20, 28, -160)], (14, 13, 11, 10))
    )
    tributaries = (portal, splenic_vein, right_branch, left_branch, mesenteric)
    return (
        vary.tissue(Lobed(Union((head, body), softness=5), 1.6, 14), "pancreas", organ="pancreas"),
        vary.tissue(Union(tributaries), "portal", organ="vein"),
        vary.tissue(cava, "cava", organ="vein"),
        vary.tissue(aorta, "aorta", organ="artery"),
    )


def _kidneys(vary: Variation) -> tuple[Tissue, ...]:
    """Kidneys: not labelled, and as bright as labelled organs."""
    tissues = []
    for side, z in ((1, -34), (-1, -26)):
        outline, sinus = vary.place(
            4,
            Ellipsoid((side * 64, -2, z), (28, 26, 52), (0, side * 8, side * 30)),
            Ellipsoid((side * 50, 6, z), (20, 9, 24), (0, 0, side * 30)),
        )
        tissues += [
            vary.tissue(outline, "kidney"),
            vary.tissue(sinus, "visceral fat", (5, "renal pelvis")),
        ]
    return tuple(tissues)


def _gut(vary: Variation) -> tuple[Tissue, ...]:
    """Colon, duodenum and loops of small bowel: not labelled, with the stomach's HU."""
    colon = (
        [(104, 40, -120), (104, 42, -78), (98, 50, -66)],
        [(92, 70, -66), (45, 108, -62), (0, 116, -58), (-60, 100, -36), (-100, 50, 0)],
        [(-108, 30, -4), (-112, 20, -60), (-108, 15, -130)],
    )
    duodenum = [(24, 88, -6), (44, 72, -10), (56, 48, -30), (46, 34, -62), (0, 44, -70)]
    loops = [
        [
            (vary.anywhere(-85, 50 - 15 * row), vary.anywhere(50, 105), vary.anywhere(-15, 15) + z)
            for _ in range(4)
        ]
        for row, z in enumerate((-125, -110, -95, -80, -50, -30))
    ]
    tubes = [(path, 17.0, 2.0) for path in colon] + [(duodenum, 11.0, 3.0)]
    tissues = []
    for path, radius, thickness in tubes + [(loop, 13.0, 3.0) for loop in loops]:
        (tube,) = vary.place(3, Tube(path, [radius] * len(path)))
        tissues.append(vary.tissue(tube, "gut wall", (thickness, "gut content")))
        if radius > 15:
            front = HalfSpace((0, 1, 0), float(np.mean(path, axis=0)[1]) + vary.between(-5, 10))
            tissues.append(vary.tissue(Intersection((Grown(tube, -thickness), front)), "gas"))
    return tuple(tissues)
