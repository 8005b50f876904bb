"""Splits of a dataset with too few cases, and the ways out."""

from __future__ import annotations

from collections.abc import Collection

from fcnseg.records.dataset_info import SPLITS, DatasetInfo

# With one or two cases a score depends on the cases more than on the network; our own choice.
FEW_CASES = 2
_FOLDS = 5  # nnU-Net
# The flags of the conversion by which a split gets more cases.
_FLAGS = {
    "train": "lower fractions",
    "validation": "another --validation_fraction",
    "test": "another --test_fraction",
}


def find_small_splits(
    info: DatasetInfo, *, needed: Collection[str] = ("train", "validation")
) -> dict[str, str]:
    """Finds the splits with one or two cases, and needed ones with none.

    Args:
        info: Manifest of the dataset.
        needed: Splits of which an empty one is found too.

    Returns:
        By split, one line with its name, its number of cases, and the ways out.
    """
    total = sum(split.cases for split in info.splits.values())
    found: dict[str, str] = {}
    for name in SPLITS:
        cases = info.splits[name].cases
        if cases > FEW_CASES or (not cases and name not in needed):
            continue
        found[name] = f"{name} has {cases} of {total} cases: {way_out(info, name)}"
    return found


def way_out(info: DatasetInfo, split: str) -> str:
    """Names the flags that give a split more cases, if there are enough for that.

    Args:
        info: Manifest of the dataset.
        split: One of `SPLITS`.
    """
    if sum(each.cases for each in info.splits.values()) <= FEW_CASES:
        return "convert more cases"
    convert = f"convert with {_FLAGS[split]}, another --split_seed or other splits in the list"
    dealt = info.splits["train"].cases + info.splits["validation"].cases
    if split == "test" or dealt < 2:
        return convert
    return f"{convert}, or train with --fold 0 --folds {min(_FOLDS, dealt)}"
