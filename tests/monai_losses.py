"""Values of MONAI's and PyTorch's losses, to compare ours with.

In an environment with monai, `python tests/monai_losses.py` writes the table again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "monai_losses.json"
CLASSES = 4
WEIGHTS = [1.0, 2.0, 3.0, 0.5]

VOXELS_ALIKE = {"class_balance": 0.0}  # MONAI and PyTorch have no other

# Name -> our loss and its settings, for what `values_of_monai` gives under the same name.
CASES = {
    "dice": ("dice", {}),
    "dice, per sample": ("dice", {"batch_dice": False}),
    "dice, organs alone": ("dice", {"include_background": False}),
    "dice, weighed": ("dice", {"class_weights": WEIGHTS}),
    "dice, ignoring": ("dice", {"ignore_label": 2}),
    "dice and cross-entropy": ("dice_cross_entropy", {**VOXELS_ALIKE}),
    "dice and cross-entropy, per sample, organs alone": (
        "dice_cross_entropy",
        {**VOXELS_ALIKE, "batch_dice": False, "include_background": False},
    ),
    "tversky": ("tversky", {"alpha": 0.3, "beta": 0.7}),
    "tversky, organs alone": ("tversky", {"alpha": 0.6, "beta": 0.2, "include_background": False}),
    "cross-entropy": ("cross_entropy", {**VOXELS_ALIKE}),
    "cross-entropy, weighed": ("cross_entropy", {**VOXELS_ALIKE, "class_weights": WEIGHTS}),
    "cross-entropy, weighed, ignoring": (
        "cross_entropy",
        {**VOXELS_ALIKE, "class_weights": WEIGHTS, "ignore_label": 2},
    ),
    "cross-entropy, smoothed": ("cross_entropy", {**VOXELS_ALIKE, "label_smoothing": 0.1}),
    "cross-entropy, smoothed, weighed, ignoring": (
        "cross_entropy",
        {**VOXELS_ALIKE, "label_smoothing": 0.3, "class_weights": WEIGHTS, "ignore_label": 2},
    ),
    "dice and cross-entropy, smoothed": (
        "dice_cross_entropy",
        {**VOXELS_ALIKE, "label_smoothing": 0.1},
    ),
    "top-k cross-entropy, smoothed": (
        "top_k_cross_entropy",
        {"fraction": 0.1, "label_smoothing": 0.1},
    ),
    "focal": ("focal", {"gamma": 2.0}),
    "focal, weighed": ("focal", {"gamma": 1.5, "class_weights": WEIGHTS}),
    "top-k cross-entropy": ("top_k_cross_entropy", {"fraction": 0.1}),
}


def make_case() -> tuple[np.ndarray, np.ndarray]:
    """Class indices (2, 5, 6, 7) and logits (2, 5, 6, 7, 4)."""
    rng = np.random.default_rng(2018)
    reference = rng.integers(0, CLASSES, (2, 5, 6, 7))
    return reference, rng.normal(0, 2, (*reference.shape, CLASSES)).astype(np.float32)


def values_of_monai() -> dict[str, float]:
    """MONAI's value in each case, without the smoothing that ours do not have."""
    import torch
    from monai import losses

    reference, logits = make_case()
    y = torch.tensor(reference)
    x = torch.moveaxis(torch.tensor(logits), -1, 1)
    weights = torch.tensor(WEIGHTS)
    # MONAI takes the mean over classes of what is weighed, ours a weighted mean.
    share = CLASSES / weights.sum()
    options = {"softmax": True, "to_onehot_y": True, "smooth_nr": 0.0, "smooth_dr": 1e-12}
    batch, organs = {"batch": True}, {"include_background": False}
    cross_entropy = torch.nn.functional.cross_entropy
    # What is ignored is cut out before MONAI sees it; three classes are left of four columns.
    rest = y != 2
    kept_x = x.movedim(1, -1)[rest].T[None, :, None, None]
    kept_y = y[rest][None, None, None]
    dice_of_rest = losses.DiceLoss(**options, **batch, reduction="none")(kept_x, kept_y[:, None])
    voxels = cross_entropy(x, y, reduction="none").flatten(1)
    smoothed = cross_entropy(x, y, reduction="none", label_smoothing=0.1).flatten(1)
    weighed_rest = {"weight": weights, "ignore_index": 2}
    focal = {"use_softmax": True, "to_onehot_y": True}
    values = {
        "dice": losses.DiceLoss(**options, **batch)(x, y[:, None]),
        "dice, per sample": losses.DiceLoss(**options)(x, y[:, None]),
        "dice, organs alone": losses.DiceLoss(**options, **batch, **organs)(x, y[:, None]),
        "dice, weighed": share * losses.DiceLoss(**options, **batch, weight=weights)(x, y[:, None]),
        "dice, ignoring": dice_of_rest.flatten()[[0, 1, 3]].mean(),
        "dice and cross-entropy": losses.DiceCELoss(**options, **batch)(x, y[:, None]),
        "dice and cross-entropy, per sample, organs alone": (
            # Its cross-entropy would leave the background out as well.
            losses.DiceLoss(**options, **organs)(x, y[:, None]) + cross_entropy(x, y)
        ),
        "tversky": losses.TverskyLoss(**options, **batch, alpha=0.3, beta=0.7)(x, y[:, None]),
        "tversky, organs alone": losses.TverskyLoss(
            **options, **batch, **organs, alpha=0.6, beta=0.2
        )(x, y[:, None]),
        "cross-entropy": cross_entropy(x, y),
        "cross-entropy, weighed": cross_entropy(x, y, weight=weights),
        "cross-entropy, weighed, ignoring": cross_entropy(x, y, **weighed_rest),
        "cross-entropy, smoothed": cross_entropy(x, y, label_smoothing=0.1),
        "cross-entropy, smoothed, weighed, ignoring": cross_entropy(
            x, y, **weighed_rest, label_smoothing=0.3
        ),
        "dice and cross-entropy, smoothed": losses.DiceCELoss(
            **options, **batch, label_smoothing=0.1
        )(x, y[:, None]),
        "top-k cross-entropy, smoothed": (
            smoothed.topk(round(0.1 * smoothed.shape[1])).values.mean()
        ),
        # Its mean is also over the classes that are not the voxel's own, where it is 0.
        "focal": CLASSES * losses.FocalLoss(**focal, gamma=2.0)(x, y[:, None]),
        "focal, weighed": (
            (CLASSES * y.numel() / weights[y].sum())
            * losses.FocalLoss(**focal, gamma=1.5, weight=WEIGHTS)(x, y[:, None])
        ),
        "top-k cross-entropy": voxels.topk(round(0.1 * voxels.shape[1])).values.mean(),
    }
    return {name: float(value) for name, value in values.items()}


if __name__ == "__main__":
    import monai
    import torch

    versions = {"monai": monai.__version__, "torch": torch.__version__}
    content = {"versions": versions, "values": values_of_monai()}
    TABLE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
