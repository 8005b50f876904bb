"""Configurations proposed for datasets of all kinds within budgets of all sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
import yaml
from small_records import write_small_dataset

from fcnseg.cli.plan import PlanCommand
from fcnseg.config import PRESETS, Config, config_to_mapping, override, read_config
from fcnseg.conversion.statistics import HuCounts, fingerprint_of
from fcnseg.errors import ConfigError, DatasetError, InputError
from fcnseg.networks import model_summary, output_shape, plan_model
from fcnseg.planning import (
    candidates,
    commented_yaml,
    propose,
    propose_in_time,
    target_spacing,
)
from fcnseg.planning.spacing import coarse_spacing, median_shape, spacing_advice
from fcnseg.records import COMPLETED_FILE, INFO_FILE, DatasetInfo, SplitInfo
from fcnseg.records.fingerprint import CaseFacts
from fcnseg.testing.phantom import write_phantoms
from pipelines.convert_ct import ConvertCt

CLASSES = ("background", "liver", "spleen")


def dataset(files, *, spacing_mm, split="train", organs=True) -> DatasetInfo:
    """A manifest of cases of which there is nothing else.

    Args:
        files: Spacing in mm and voxels of each file, both (z, y, x).
        spacing_mm: Of the records.
    """
    cases = [
        CaseFacts(
            case_id=f"case_{number:03d}",
            split=split,
            orientation="LPS",
            source_spacing_mm=spacing,
            source_shape=shape,
            shape=tuple(
                round(n * old / new) for n, old, new in zip(shape, spacing, spacing_mm, strict=True)
            ),
            class_voxels=(9000, 700, 301),
        )
        for number, (spacing, shape) in enumerate(files)
    ]
    everywhere, foreground = np.zeros((2, 2**16), np.int64)
    everywhere[2**15 - 1000] = 9000
    if organs:
        # 1001 voxels of -500, -499, ..., 500 HU: rank 5 of them is -495, rank 995 is 495.
        foreground[2**15 - 500 : 2**15 + 501] = 1
    counts = HuCounts(everywhere + foreground, foreground)
    empty = SplitInfo(cases=0, case_ids=(), shards=(), class_histogram=(0, 0, 0))
    return DatasetInfo(
        spacing_mm=spacing_mm,
        class_names=CLASSES,
        label_map={},
        seed=0,
        splits=dict.fromkeys(("train", "validation", "test"), empty)
        | {split: dataclasses.replace(empty, cases=len(cases))},
        fingerprint=fingerprint_of(cases, counts, class_names=CLASSES, spacing_mm=spacing_mm),
    )


THIN = [((1.0, 0.8, 0.8), (300 + number, 512, 512)) for number in range(20)]
THICK = [((5.0, 0.8, 0.8), (90 + number, 512, 512)) for number in range(20)]
DATASETS = {
    "thin slices, isotropic records": dataset(THIN, spacing_mm=(1.5, 1.5, 1.5)),
    "thin slices as they are": dataset(THIN, spacing_mm=(1.0, 0.8, 0.8)),
    "thick slices": dataset(THICK, spacing_mm=(5.0, 0.8, 0.8)),
    "tiny": dataset([((3.0, 3.0, 3.0), (20, 24, 28))] * 3, spacing_mm=(3.0, 3.0, 3.0)),
    "one slab of five slices": dataset([((8.0, 2.0, 2.0), (5, 200, 200))], spacing_mm=(8, 2, 2)),
    "huge field of view": dataset([((0.5, 1.0, 1.0), (2400, 700, 700))], spacing_mm=(0.5, 1, 1)),
    "sagittal": dataset([((0.9, 0.9, 6.0), (256, 256, 60))] * 9, spacing_mm=(0.9, 0.9, 6.0)),
}
BUDGETS_GIB = (0.5, 1, 2, 4, 8, 11, 16, 24, 40, 80, 640)


def plan(name, memory_gib, *, base="fcn_m"):
    return propose(DATASETS[name], PRESETS[base], base_name=base, memory_gib=memory_gib)


@pytest.mark.parametrize("name", DATASETS)
def test_what_holds_of_every_plan(name):
    for memory_gib in BUDGETS_GIB:
        found = plan(name, memory_gib)
        config = found.config
        model, patches = config.model, config.patches
        summary = model_summary(
            model, num_classes=3, patch_size=patches.size, batch_size=patches.batch_size
        )
        assert summary.training_bytes == found.training_bytes <= memory_gib * 2**30
        assert output_shape(model, patches.size) == patches.size  # its strides divide the patch
        spacing = DATASETS[name].spacing_mm
        assert plan_model(model, spacing, patches.size) == model
        assert model.hu_window == config.augmentation.gamma_window == (-495, 495)
        assert config.inference.overlap == tuple(length // 2 for length in patches.size)
        assert patches.batch_size >= 2
        shuffled = 3 * patches.shuffle_buffer * 3 * math.prod(patches.size)
        assert patches.shuffle_buffer == 1 or shuffled <= 2 * 2**30
        assert max(model.filters) <= 320
        assert model.filters[0] in (8, 16, 24, 32)


@pytest.mark.parametrize("base", ["fcn_m", "roth2018"])
@pytest.mark.parametrize("name", DATASETS)
def test_more_memory_never_proposes_less(name, base):
    configs = [plan(name, memory_gib, base=base).config for memory_gib in BUDGETS_GIB]
    for less, more in itertools.pairwise(configs):
        assert all(a <= b for a, b in zip(less.patches.size, more.patches.size, strict=True))
        assert less.model.depth <= more.model.depth
        assert all(a <= b for a, b in zip(less.model.filters, more.model.filters, strict=False))
        if less.model == more.model and less.patches.size == more.patches.size:
            assert less.patches.batch_size <= more.patches.batch_size


@pytest.mark.parametrize("name", DATASETS)
def test_candidates_only_shrink_and_each_fits_its_network(name):
    info = DATASETS[name]
    shape = info.fingerprint.cases[0].shape
    found = list(candidates(PRESETS["fcn_m"].model, info.spacing_mm, shape))
    assert len(set(found)) == len(found)
    assert found[-1].model.filters[0] == 8
    for each, after in itertools.pairwise(found):
        assert output_shape(each.model, each.patch_size) == each.patch_size
        assert all(a >= b for a, b in zip(each.patch_size, after.patch_size, strict=True))
        assert each.model.filters[0] >= after.model.filters[0]


def test_equal_input_gives_equal_text():
    first, second = (plan("thick slices", 8) for _ in range(2))
    assert first == second
    texts = [
        commented_yaml(each.config, each.reasons, notes=each.notes) for each in (first, second)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("cases", "is_small"), [(0, True), (1, True), (2, True), (3, False)])
def test_small_validation_split_is_said(cases, is_small):
    info = DATASETS["tiny"]
    validation = dataclasses.replace(info.splits["validation"], cases=cases)
    info = dataclasses.replace(info, splits=info.splits | {"validation": validation})
    found = propose(info, PRESETS["fcn_m"], base_name="fcn_m", memory_gib=8)
    notes = [note for note in found.notes if note.startswith("Splits: ")]
    assert len(notes) == is_small
    for note in notes:
        assert note.startswith(f"Splits: validation has {cases} of {3 + cases} cases: convert with")
        assert note.endswith(f"or train with --fold 0 --folds {min(5, 3 + cases)}.")


# Name, GiB -> patch, batch, channels at the top. Reasoned from the rules, not copied from a run.
EXAMPLES = {
    # 20 x 24 x 28 voxels are halved twice, to 5 x 6 x 7, so 4 divides them: nothing to shorten.
    # 5 % of 3 x 13440 voxels are less than one patch, so the batch is the least.
    ("tiny", 80): ((20, 24, 28), 2, 32),
    # Slices wait twice, then 12 -> 6; five slices are too few and are filled up with air to 12.
    # In-plane 200 is halved five times in six levels, to 6.25, so 32 divides 224.
    ("one slab of five slices", 640): ((12, 224, 224), 2, 32),
    # 2400 x 700 x 700 is longer than the cube in mm of 256^3 voxels along z and x alike: an edge of
    # (256^3 * 0.5)^(1/3) = 203.2 mm is 406 x 203 x 203 voxels. z is halved alone first, then four
    # times with the others, so 32 divides z, and 16 the others.
    ("huge field of view", 640): ((416, 208, 208), None, 32),
}


@pytest.mark.parametrize(("name", "memory_gib"), EXAMPLES)
def test_patch_and_batch_of_datasets_that_can_be_reckoned(name, memory_gib):
    patch, batch_size, filters = EXAMPLES[name, memory_gib]
    config = plan(name, memory_gib).config
    assert config.patches.size == patch
    assert batch_size in (None, config.patches.batch_size)
    assert config.model.filters[0] == filters


@pytest.mark.parametrize(
    ("name", "thick", "kernel", "stride"),
    [
        # Slices of 5 mm wait until 0.8 has become 3.2 mm; so do the sagittal ones of 6 mm.
        ("thick slices", 0, (1, 3, 3), (1, 2, 2)),
        ("sagittal", 2, (3, 3, 1), (2, 2, 1)),
    ],
)
def test_patch_and_network_take_the_shape_of_the_case(name, thick, kernel, stride):
    config = plan(name, 11).config
    fine = [length for axis, length in enumerate(config.patches.size) if axis != thick]
    assert min(fine) > 3 * config.patches.size[thick]
    assert config.model.kernels[0] == kernel
    assert config.model.strides[0] == stride


def test_batch_is_at_most_a_twentieth_of_the_voxels():
    files = [((3.0, 3.0, 3.0), (64, 64, 64))] * 100
    info = dataset(files, spacing_mm=(3.0, 3.0, 3.0))
    found = propose(info, PRESETS["fcn_m"], base_name="fcn_m", memory_gib=640)
    assert found.config.patches.size == (64, 64, 64)
    assert found.config.patches.batch_size == 5  # 5 % of 100 cases, each as large as a patch
    assert found.reasons["patches.batch_size"].startswith("5.0% of the voxels")
    fewer = propose(info, PRESETS["fcn_m"], base_name="fcn_m", memory_gib=6)
    assert fewer.config.patches.batch_size == 4  # more than the least, less than the share
    assert fewer.reasons["patches.batch_size"] == "as many as fit the budget"
    one_more = dataclasses.replace(
        fewer.config.patches, batch_size=fewer.config.patches.batch_size + 1
    )
    needed = model_summary(
        fewer.config.model,
        num_classes=3,
        patch_size=one_more.size,
        batch_size=one_more.batch_size,
    )
    assert needed.training_bytes > 6 * 2**30


def test_half_precision_makes_room():
    half = override(PRESETS["fcn_m"], {"training.precision": "mixed_bfloat16"})
    info = DATASETS["thin slices as they are"]
    found = propose(info, half, base_name="fcn_m", memory_gib=8)
    whole = plan("thin slices as they are", 8)
    assert math.prod(found.config.patches.size) > math.prod(whole.config.patches.size)


def files_of(*spacings, shape=(100, 512, 512)):
    return dataset([(spacing, shape) for spacing in spacings], spacing_mm=(1.5, 1.5, 1.5))


# Spacings of the files -> what to convert to.
TARGETS = {
    "median of each axis": ([(1.0, 0.7, 0.7), (2.0, 0.8, 0.8), (1.5, 0.9, 0.9)], (1.5, 0.8, 0.8)),
    # 5 / 0.8 > 3: the tenth percentile of 1, 5, 5, 5, 5, four tenths of the way from 1 to 5.
    "thin ones among thick": ([(1.0, 0.8, 0.8)] + [(5.0, 0.8, 0.8)] * 4, (2.6, 0.8, 0.8)),
    "all thick": ([(5.0, 0.8, 0.8)] * 4, (5.0, 0.8, 0.8)),
    # The tenth percentile is 0.5, but slices are not to be thinner than the other axes are coarse.
    "no thinner than the others": ([(0.5, 0.8, 0.8)] * 2 + [(5.0, 0.8, 0.8)] * 5, (0.8, 0.8, 0.8)),
    "three digits": ([(1.25, 0.7421875, 0.7421875)], (1.25, 0.742, 0.742)),
    # 2.4 mm is no three times 0.8: as it is.
    "not that thick": ([(1.0, 0.8, 0.8), (2.4, 0.8, 0.8), (2.4, 0.8, 0.8)], (2.4, 0.8, 0.8)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_spacing_that_files_ask_for(name):
    spacings, expected = TARGETS[name]
    assert target_spacing(files_of(*spacings).fingerprint.cases) == expected


@pytest.mark.parametrize(
    ("depths", "median"),
    [((40, 90, 70), 70), ((40, 90), 65), ((40, 41), 41), ((30, 40, 60, 90), 50)],
)
def test_median_of_an_even_number_of_cases_is_the_mean_of_the_middle_two(depths, median):
    spacing = (1.5, 1.5, 1.5)
    info = dataset([(spacing, (depth, 50, 60)) for depth in depths], spacing_mm=spacing)
    assert median_shape(case.shape for case in info.fingerprint.cases) == (median, 50, 60)


def test_voxels_are_counted_after_resampling_to_the_medians():
    """Files of 600 and of 60 slices, 330 in the median, are 109 slices of 2.75 mm."""
    files = [((0.5, 0.8, 0.8), (600, 512, 512))] * 2 + [((5.0, 0.8, 0.8), (60, 512, 512))] * 2
    info = dataset(files, spacing_mm=(1.5, 1.5, 1.5))
    assert target_spacing(info.fingerprint.cases) == (0.8, 0.8, 0.8)


def test_thick_slices_that_are_many_stay():
    """A long axis of 5 mm has as many voxels as the others: it is not what limits the detail."""
    thin_and_thick = [(1.0, 0.8, 0.8)] + [(5.0, 0.8, 0.8)] * 4
    info = files_of(*thin_and_thick, shape=(400, 512, 512))
    assert target_spacing(info.fingerprint.cases) == (5.0, 0.8, 0.8)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((1.0, 0.8, 0.8), "the records' spacing fits, each axis within 25%"),
        ((1.2, 0.7, 0.8), "the records' spacing fits, each axis within 25%"),
        ((1.0, 1.5, 1.5), "records are too coarse along y, x: convert again with --spacing_mm 1"),
        ((0.5, 0.8, 1.5), "too coarse along x and finer than needed along z"),
        ((0.5, 0.5, 0.5), "records are finer than needed along z, y, x: convert again with"),
    ],
)
def test_advice_on_the_spacing_of_the_records(records, expected):
    advice = spacing_advice(records, (1.0, 0.8, 0.8))
    assert expected in advice
    assert ("--spacing_mm 1 0.8 0.8" in advice) == ("fits" not in advice)


def test_a_small_patch_in_a_large_case_names_the_spacing_of_a_coarse_stage():
    notes = plan("thin slices as they are", 8).notes
    assert "a coarse stage sees more" in notes[-1]
    # A patch of an eighth of what is wanted covers it at twice the spacing.
    assert coarse_spacing((1.0, 0.8, 0.8), 0.03125, wanted=0.25) == (2.0, 1.6, 1.6)
    assert "coarse" not in plan("tiny", 80).notes[-1]


REFUSED_DATA = {
    "labels": {"labelled": False},
    "fingerprint": {"fingerprint": None},
    "organs": {"fingerprint": dataset(THIN, spacing_mm=(1.5, 1.5, 1.5), organs=False).fingerprint},
    "the train split": {
        "fingerprint": dataset(THIN, spacing_mm=(1.5, 1.5, 1.5), split="test").fingerprint
    },
}


@pytest.mark.parametrize("lacks", REFUSED_DATA)
def test_datasets_that_cannot_be_planned_for(lacks):
    info = dataclasses.replace(DATASETS["tiny"], **REFUSED_DATA[lacks])
    with pytest.raises(DatasetError, match=lacks):
        propose(info, PRESETS["fcn_m"], base_name="fcn_m", memory_gib=8)


def test_cases_that_are_not_trained_on_have_no_say():
    info = DATASETS["thick slices"]
    strange = dataclasses.replace(
        info.fingerprint.cases[0],
        split="test",
        source_spacing_mm=(9.0, 9.0, 9.0),
        shape=(1, 1, 1),
    )
    more = dataclasses.replace(
        info,
        fingerprint=dataclasses.replace(
            info.fingerprint, cases=(*info.fingerprint.cases, *[strange] * 50)
        ),
    )
    found = propose(more, PRESETS["fcn_m"], base_name="fcn_m", memory_gib=8)
    assert found == plan("thick slices", 8)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("memory_gib", [-1, 0, 1e-3, math.nan])
def test_what_the_smallest_network_needs_is_told_and_enough(name, memory_gib):
    with pytest.raises(ConfigError, match="memory_gib must be at least") as refused:
        plan(name, memory_gib)
    enough = float(str(refused.value).split()[5].rstrip(","))
    assert plan(name, enough).config.model.filters[0] == 8
    with pytest.raises(ConfigError, match="memory_gib must be at least"):
        plan(name, enough - 0.002)


@pytest.mark.parametrize("name", DATASETS)
def test_with_any_memory_the_dataset_alone_limits_patch_and_batch(name):
    assert plan(name, math.inf).config == plan(name, 1e6).config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.padding": "valid"}, r"model.padding must be same .* got valid \(config mine\)"),
        ({"model.pyramid": 2}, "model.pyramid must be 1 .* got 2"),
        (
            {"model.deep_supervision": 1, "loss.level_weights": [1, 2]},
            "loss.level_weights must be ",
        ),
    ],
)
def test_networks_that_cannot_be_planned(changes, message):
    base = override(Config(), changes)
    with pytest.raises(ConfigError, match=message):
        propose(DATASETS["tiny"], base, base_name="mine", memory_gib=8)


@pytest.mark.parametrize("base", ["fcn_l", "roth2018", "demo"])
@pytest.mark.parametrize("name", ["thick slices", "tiny"])
def test_the_file_reads_back_with_a_reason_above_each_value(name, base, tmp_path):
    found = plan(name, 6, base=base)
    path = tmp_path / "plan.yaml"
    path.write_text(commented_yaml(found.config, found.reasons, notes=found.notes))
    assert read_config(path) == found.config
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 102
    for section, values in yaml.safe_load(path.read_text()).items():
        start = lines.index(f"{section}:")
        for key in values:
            place = next(n for n in range(start, len(lines)) if lines[n].startswith(f"  {key}:"))
            assert lines[place - 1].startswith("  # ")
    kept = config_to_mapping(found.config)["training"]
    assert kept == config_to_mapping(PRESETS[base])["training"]


def command(folder, **changes):
    settings = {"data": folder, "memory_gib": 1.0, "output": folder / "plan.yaml"} | changes
    return PlanCommand(**settings)


def write_info(info, folder):
    folder.mkdir()
    (folder / INFO_FILE).write_text(info.to_json())
    (folder / COMPLETED_FILE).touch()
    return folder


def test_the_command_writes_the_plan_and_tells_of_the_spacing(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = write_info(DATASETS["thin slices, isotropic records"], tmp_path / "records")
    command(folder, precision="mixed_bfloat16").run()
    config = read_config(folder / "plan.yaml")
    assert config.training.precision == "mixed_bfloat16"
    assert "too coarse along z, y, x: convert again with --spacing_mm 1 0.8 0.8" in caplog.text
    assert "  # asked for by --precision\n" in (folder / "plan.yaml").read_text()


def test_the_command_needs_a_dataset_with_a_fingerprint_and_a_place(tmp_path):
    folder = write_small_dataset(tmp_path / "records")
    with pytest.raises(DatasetError, match="fingerprint"):
        command(folder).run()
    with pytest.raises(InputError, match="output must be in a folder that is there"):
        command(folder, output=tmp_path / "none" / "plan.yaml").run()
    with pytest.raises(DatasetError, match="no such folder"):
        command(tmp_path / "none", output=tmp_path / "plan.yaml").run()


@dataclasses.dataclass
class Reckoned:
    """A CPU whose times follow from the work: multiply-adds of a window, voxels of a file."""

    macs_per_second: float = 1e11

    def window_seconds(self, config):
        summary = model_summary(config.model, num_classes=3, patch_size=config.patches.size)
        return summary.macs / self.macs_per_second

    def other_seconds(self, config, *, shape, spacing_mm):
        assert min(spacing_mm) > 0
        return math.prod(shape) / 1e8


def plan_in_time(info, seconds, *, base="fast", **how):
    stopwatch = Reckoned()
    return propose_in_time(
        info, PRESETS[base], base_name=base, seconds_per_case=seconds, stopwatch=stopwatch, **how
    )


@dataclasses.dataclass
class SlowAround(Reckoned):
    """A CPU on which all else takes the less time the wider the overlap of windows is."""

    def other_seconds(self, config, *, shape, spacing_mm):
        part = config.inference.overlap[0] / config.patches.size[0]
        return 1000 * (1 - part)


def test_the_fastest_is_that_of_the_least_time_of_network_and_all_else():
    info, base = DATASETS["thin slices, isotropic records"], PRESETS["fcn_s"]

    def plan_of(seconds):
        return propose_in_time(
            info, base, base_name="s", seconds_per_case=seconds, stopwatch=SlowAround()
        )

    with pytest.raises(ConfigError, match="seconds_per_case must be at least") as refused:
        plan_of(1e-3)
    enough = float(str(refused.value).split()[5].rstrip(","))
    assert plan_of(enough).config.inference.overlap[0] > 0
    with pytest.raises(ConfigError, match="seconds_per_case must be at least"):
        plan_of(0.95 * enough)


def seconds_of(config, info):
    """Time of the median case by the clock of `Reckoned`, from the configuration alone."""
    window = config.patches.size
    shape = median_shape(case.shape for case in info.fingerprint.cases)
    counts = [
        1 + max(0, math.ceil((length - size) / (size - overlap)))
        for length, size, overlap in zip(shape, window, config.inference.overlap, strict=True)
    ]
    others = median_shape(case.source_shape for case in info.fingerprint.cases)
    return math.prod(counts) * Reckoned().window_seconds(config) + math.prod(others) / 1e8


SECONDS = (0.2, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 100000)


@pytest.mark.parametrize("memory_gib", [None, 8])
@pytest.mark.parametrize("base", ["fast", "fcn_s", "fcn_m"])
@pytest.mark.parametrize("name", DATASETS)
def test_more_time_never_proposes_less_and_is_kept(name, base, memory_gib):
    info, found = DATASETS[name], []
    for seconds in SECONDS:
        with contextlib.suppress(ConfigError):
            found.append(plan_in_time(info, seconds, base=base, memory_gib=memory_gib))
            assert seconds_of(found[-1].config, info) <= seconds
    assert found
    for less, more in itertools.pairwise([each.config for each in found]):
        assert less.model.filters[0] <= more.model.filters[0]
        if less.model == more.model:
            assert less.inference.overlap <= more.inference.overlap
    for each in found:
        config, usual = each.config, PRESETS[base]
        assert plan_model(config.model, info.spacing_mm, config.patches.size) == config.model
        assert memory_gib is None or each.training_bytes <= memory_gib * 2**30
        assert memory_gib is not None or config.patches.batch_size == usual.patches.batch_size
        assert config.model.filters[0] in (8, 16, 24, 32)
    # All the time there is: all that the base has.
    assert found[-1].config.model.filters[0] == usual.model.filters[0]
    part = usual.inference.overlap[0] / usual.patches.size[0]
    most = found[-1].config
    assert most.inference.overlap == tuple(int(part * length) for length in most.patches.size)


@pytest.mark.parametrize("base", ["fast", "fcn_m"])
@pytest.mark.parametrize("name", DATASETS)
def test_the_time_of_the_fastest_network_is_told_and_enough(name, base):
    info = DATASETS[name]
    with pytest.raises(ConfigError, match="seconds_per_case must be at least") as refused:
        plan_in_time(info, 1e-3, base=base)
    enough = float(str(refused.value).split()[5].rstrip(","))
    assert plan_in_time(info, enough, base=base).config.model.filters[0] == 8
    with pytest.raises(ConfigError, match="seconds_per_case must be at least"):
        plan_in_time(info, 0.9 * enough, base=base)


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (1.0, 0.8, 0.8)])
def test_records_that_are_too_fine_are_told_a_spacing_that_fits(spacing_mm):
    with pytest.raises(ConfigError, match="voxels; convert with --spacing_mm") as refused:
        plan_in_time(dataset(THIN, spacing_mm=spacing_mm), 3)
    words = str(refused.value).partition("--spacing_mm ")[2].partition(",")[0]
    coarser = tuple(map(float, words.split()))
    assert all(a < b for a, b in zip(spacing_mm, coarser, strict=True))
    assert max(coarser) <= 5
    plan_in_time(dataset(THIN, spacing_mm=coarser), 3 * 1.25)  # windows are whole numbers
    half = tuple(mm * 0.7 for mm in coarser)
    with pytest.raises(ConfigError, match="convert with"):
        plan_in_time(dataset(THIN, spacing_mm=half), 3)


def test_the_reasons_name_the_time_that_decides():
    info = DATASETS["thin slices, isotropic records"]
    reasons = {
        seconds: plan_in_time(info, seconds, base="fcn_s").reasons for seconds in (1000, 60, 30)
    }
    whole, quarter, narrow = reasons.values()
    assert whole["inference.overlap"] == "that part of a window which it is in fcn_s"
    assert whole["model.filters"].startswith("16 at the top as in fcn_s")
    assert quarter["inference.overlap"].startswith("a quarter of a window; with that of fcn_s a ca")
    assert narrow["model.filters"].startswith("8 at the top, doubled")
    assert narrow["model.filters"].endswith(" s or more")
    assert whole["patches.batch_size"] == "as in fcn_s, as no memory was given"
    limited = plan_in_time(info, 1000, base="fcn_s", memory_gib=8)
    assert limited.reasons["patches.size"].startswith("the largest that fits with 2 a step")
    assert "GiB of 8 GiB on each" in "".join(limited.notes)


def test_memory_that_is_too_small_is_told_before_anything_is_timed():
    for memory_gib in (0, 1e-3):
        with pytest.raises(ConfigError, match="memory_gib must be at least"):
            plan_in_time(DATASETS["tiny"], 1000, memory_gib=memory_gib)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [None, "openvino"])
def test_the_command_measures_on_this_cpu(backend, tmp_path, caplog):
    if backend:
        pytest.importorskip(backend, reason="extra openvino")
    caplog.set_level("INFO")
    folder = write_info(DATASETS["tiny"], tmp_path / "records")
    asked = {"memory_gib": None, "device": "cpu", "config": PRESETS["demo"], "backend": backend}
    command(folder, **asked, seconds_per_case=600.0).run()
    config = read_config(folder / "plan.yaml")
    assert config.model.filters[0] == 8
    assert config.patches.size == (20, 24, 28)  # the median case
    note = re.sub("\n# ", " ", (folder / "plan.yaml").read_text())
    time = re.search(
        r"takes about (\S+) s of 600 s, as measured .*: 1 windows of (\S+) s, and (\S+) s for", note
    )
    case, window, others = map(float, time.groups())
    assert case == pytest.approx(window + others, rel=0.06)
    assert 0 < window < 600
    with pytest.raises(ConfigError, match="seconds_per_case must be at least .* got 1e-06"):
        command(folder, **asked, seconds_per_case=1e-6, overwrite=True).run()


@pytest.mark.slow
def test_phantoms_are_converted_planned_and_trained_on(tmp_path):
    from fcnseg.training import train

    for _ in write_phantoms(4, tmp_path / "scans", seed=0):
        pass
    ConvertCt(
        cases=str(tmp_path / "scans/cases.csv"),
        label_map=str(tmp_path / "scans/label_map.yaml"),
        output=str(tmp_path / "records"),
        spacing_mm=(8.0, 8.0, 8.0),
        validation_fraction=0.3,
    ).run()
    command(tmp_path / "records", memory_gib=0.25, config=PRESETS["demo"]).run()
    planned = read_config(tmp_path / "records/plan.yaml")
    low, high = planned.model.hu_window
    assert low < 0 < 100 < high < 500  # portal-venous organs, with some gas in the stomach
    once = {"training.epochs": 1, "training.steps_per_epoch": 1, "patches.shuffle_buffer": 2}
    result = train(override(planned, once), tmp_path / "records", tmp_path / "run")
    assert math.isfinite(result.history["loss"][0])
    assert result.best_epoch == 1
