"""Surface scores: of drawn masks, and against the packages whose definitions they keep."""

import importlib.util
import warnings

import numpy as np
import pytest
from scipy import ndimage

from fcnseg.evaluation import score_organs
from fcnseg.volumes import LabelMap, read_label


def cube(shape=(20, 20, 20), corner=(5, 5, 5), size=(8, 8, 8)):
    array = np.zeros(shape, dtype=np.uint8)
    box = np.s_[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1], corner[2] :]
    array[box][:, :, : size[2]] = 1
    return array


def score(reference, mask, spacing=(1.0, 1.0, 1.0), tolerance_mm=2.0):
    [scores] = score_organs(
        reference, mask, num_classes=2, spacing=spacing, tolerances_mm=[tolerance_mm]
    )
    return scores


# A cube moved along one axis by n voxels: no element is farther than n times the spacing there.
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_distances_are_in_mm_of_each_axis(axis, steps):
    spacing = (5.0, 0.7, 1.3)
    scores = score(cube(), np.roll(cube(), steps, axis), spacing)
    assert scores.hausdorff_distance_mm == pytest.approx(steps * spacing[axis])
    assert scores.dice == pytest.approx((8 - steps) / 8)
    assert scores.iou == pytest.approx((8 - steps) / (8 + steps))
    assert scores.volume_difference_ml == 0


def test_equal_masks_are_perfect():
    scores = score(cube(), cube(), tolerance_mm=0.0)
    assert (scores.dice, scores.iou, scores.precision, scores.recall) == (1, 1, 1, 1)
    assert scores.surface_dice == 1
    assert scores.hausdorff_distance_mm == scores.mean_surface_distance_mm == 0


def edge_voxels_assd(reference, mask):
    """The usual average symmetric surface distance, in voxels, between edge voxels."""
    edges = [array & ~ndimage.binary_erosion(array) for array in (reference > 0, mask > 0)]
    distances = [ndimage.distance_transform_edt(~other)[own] for own, other in (edges, edges[::-1])]
    return np.concatenate(distances).mean()


def test_mean_surface_distance_is_between_corners_not_edge_voxels():
    """Of two voxels side by side four of eight corners are shared and four are a voxel away."""
    reference, mask = cube(size=(1, 1, 1)), cube(corner=(5, 5, 6), size=(1, 1, 1))
    assert score(reference, mask).mean_surface_distance_mm == (4 * 0 + 4 * 1) / 8
    assert edge_voxels_assd(reference, mask) == 1
    # Along slices of 5 mm the four corners are 5 mm away; all eight have the same area.
    above = cube(corner=(6, 5, 5), size=(1, 1, 1))
    assert score(reference, above, (5.0, 1.0, 1.0)).mean_surface_distance_mm == pytest.approx(2.5)


def test_mean_surface_distance_beside_assd():
    """The examples of docs/evaluation.md."""
    z, y, x = np.ogrid[:31, :31, :31]
    ball, moved = (
        ((z - c) ** 2 + (y - c) ** 2 + (x - c) ** 2 <= 100).astype(np.uint8) for c in (15, 15.5)
    )
    assert score(ball, moved).mean_surface_distance_mm == pytest.approx(0.25, abs=0.01)
    assert edge_voxels_assd(ball, moved) == pytest.approx(0.51, abs=0.01)
    longer = cube(size=(8, 8, 9))
    ours = score(cube(), longer).mean_surface_distance_mm
    assert ours == pytest.approx(edge_voxels_assd(cube(), longer), rel=0.03)


def test_the_tolerance_is_the_border_of_what_is_right():
    reference, mask = cube(size=(8, 8, 8)), cube(size=(8, 8, 11))  # one face of six is 3 mm away
    assert score(reference, mask, tolerance_mm=3.0).surface_dice == 1
    assert 0.7 < score(reference, mask, tolerance_mm=2.9).surface_dice < 0.95


def test_a_small_island_far_away_is_in_hd_and_not_in_hd95():
    mask = cube()
    mask[18, 18, 18] = 1  # 6 steps along each axis from the last corner of the cube
    scores = score(cube(), mask)
    assert scores.hausdorff_distance_mm == pytest.approx(6 * np.sqrt(3))
    assert scores.hausdorff_distance_95_mm == 0


def test_a_mask_at_the_edge_of_the_volume_has_a_closed_surface():
    inside = score(cube(), np.roll(cube(), 2, 0))
    edge = cube(shape=(10, 8, 8), corner=(0, 0, 0))
    at_edge = score(edge, np.roll(edge, 2, 0))
    assert at_edge == inside


def test_volumes_are_in_ml():
    scores = score(cube(size=(10, 10, 10)), cube(size=(10, 10, 5)), (1.0, 2.0, 5.0))
    assert scores.reference_ml == pytest.approx(10.0)  # 1000 voxels of 10 mm³
    assert scores.mask_ml == pytest.approx(5.0)
    assert scores.volume_difference_ml == pytest.approx(-5.0)
    assert scores.relative_volume_difference == pytest.approx(-0.5)
    assert (scores.precision, scores.recall) == (1.0, 0.5)


NOTHING = np.zeros((20, 20, 20), dtype=np.uint8)


def test_a_missed_organ_scores_zero_and_has_no_distance():
    scores = score(cube(), NOTHING)
    assert scores.is_false_negative
    assert (scores.dice, scores.iou, scores.recall, scores.surface_dice) == (0, 0, 0, 0)
    assert scores.precision is scores.hausdorff_distance_95_mm is None
    assert scores.mean_surface_distance_mm is scores.hausdorff_distance_mm is None
    assert scores.relative_volume_difference == -1


def test_an_invented_organ_scores_zero_and_has_no_distance():
    scores = score(NOTHING, cube())
    assert scores.is_false_positive
    assert (scores.dice, scores.iou, scores.precision, scores.surface_dice) == (0, 0, 0, 0)
    assert scores.recall is scores.hausdorff_distance_95_mm is None
    assert scores.volume_difference_ml == pytest.approx(0.512)
    assert scores.relative_volume_difference is None


def test_an_organ_in_neither_has_no_score():
    scores = score(NOTHING, NOTHING)
    assert set(vars(scores).values()) == {None}
    assert not scores.is_false_negative
    assert not scores.is_false_positive


def blobs(seed, num_classes=4, shape=(24, 30, 36)):
    """Smooth organs that touch each other and the volume's edges."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 3) for _ in range(num_classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def scores_of_the_package(reference, mask, spacing, tolerance_mm):
    """HD95, HD, mean distance and surface Dice by surface-distance alone, on whole volumes."""
    import surface_distance

    with warnings.catch_warnings():
        # surface-distance 0.1 calls scipy.ndimage.filters, which scipy 1.8 renamed.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = surface_distance.compute_surface_distances(reference, mask, spacing)
    return (
        surface_distance.compute_robust_hausdorff(found, 95),
        surface_distance.compute_robust_hausdorff(found, 100),
        np.mean(surface_distance.compute_average_surface_distance(found)),
        surface_distance.compute_surface_dice_at_tolerance(found, tolerance_mm),
    )


def assert_same_as_the_package(reference, mask, spacing, tolerance_mm, num_classes, threads=1):
    tolerances = [tolerance_mm] * (num_classes - 1)
    scores = score_organs(
        reference,
        mask,
        num_classes=num_classes,
        spacing=spacing,
        tolerances_mm=tolerances,
        threads=threads,
    )
    for index, ours in enumerate(scores, start=1):
        theirs = scores_of_the_package(reference == index, mask == index, spacing, tolerance_mm)
        assert (
            ours.hausdorff_distance_95_mm,
            ours.hausdorff_distance_mm,
            ours.mean_surface_distance_mm,
            ours.surface_dice,
        ) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.9)])
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_are_those_of_surface_distance(seed, spacing, threads):
    reference, mask = blobs(seed), blobs(seed + 100)
    assert_same_as_the_package(reference, mask, spacing, 1.4, num_classes=4, threads=threads)


@pytest.fixture
def two_models(real_data):
    """Class indices by a 1.5 mm and a 3 mm model, and the spacing."""
    label_map = LabelMap.read(real_data / "organs7.yaml")
    files = ("label.nii.gz", "label_fast.nii.gz")
    reference, mask = (read_label(real_data / "abdomen_ct_sm" / name) for name in files)
    return label_map.apply(reference.array), label_map.apply(mask.array), reference.spacing


@pytest.mark.real_data
@pytest.mark.parametrize("tolerance_mm", [2.0, 3.0])
def test_a_real_scan_scores_as_in_surface_distance(two_models, tolerance_mm):
    assert_same_as_the_package(*two_models, tolerance_mm, num_classes=8)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_scan_scores_as_in_monai(two_models):
    """Dice, and surface Dice by surface elements; MONAI's HD95 is another definition."""
    if importlib.util.find_spec("monai") is None:
        pytest.skip("monai is not installed: it is a peer to compare with, no dependency")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and MONAI warn of is theirs
        import torch
        from monai.metrics import compute_dice, compute_surface_dice

        reference, mask, spacing = two_models
        hot = [
            torch.stack([torch.tensor(p == i) for i in range(8)])[None] for p in (mask, reference)
        ]
        dice = compute_dice(*hot, include_background=False)[0].tolist()
        surface_dice = compute_surface_dice(*hot, [2.0] * 7, spacing=spacing, use_subvoxels=True)
    scores = score_organs(reference, mask, num_classes=8, spacing=spacing)
    assert [s.dice for s in scores] == pytest.approx(dice, abs=1e-4)
    assert [s.surface_dice for s in scores] == pytest.approx(surface_dice[0].tolist(), abs=1e-4)
