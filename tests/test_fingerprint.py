import dataclasses
import functools
import json

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_records import CLASSES, make_record

from fcnseg.codes import Finding
from fcnseg.conversion.statistics import HuCounts, case_facts, fingerprint_of
from fcnseg.records.fingerprint import Fingerprint


def add(counts):
    return functools.reduce(HuCounts.__add__, counts, HuCounts.none())


@pytest.fixture(scope="module")
def records():
    return [make_record(f"case_{n}", seed=n, organs=(1, 2)[: n % 3]) for n in range(5)]


def fingerprint(records):
    facts = [case_facts(record, "train") for record in records]
    counts = add(HuCounts.of(record) for record in records)
    return fingerprint_of(facts, counts, class_names=CLASSES, spacing_mm=(2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def parts(records):
    facts = [case_facts(record, "train") for record in records]
    return fingerprint(records), facts, [HuCounts.of(record) for record in records]


def test_hu_are_those_of_numpy(records):
    """The figures from all voxels at once, as nobody could hold them for ten thousand scans."""
    found = fingerprint(records)
    hu = np.concatenate([record.image.ravel() for record in records])
    label = np.concatenate([record.label.ravel() for record in records])
    for statistics, values in ((found.hu, hu), (found.foreground_hu, hu[label > 0])):
        assert statistics.voxels == len(values)
        assert statistics.mean == pytest.approx(values.mean(dtype=float), rel=1e-12)
        assert statistics.std == pytest.approx(values.std(dtype=float), rel=1e-12)
        shares = [0, 0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995, 1]
        expected = np.quantile(values, shares, method="nearest")
        assert dataclasses.astuple(statistics.quantiles) == pytest.approx(expected, abs=1)
        edges = statistics.first_hu + 10 * np.arange(len(statistics.histogram) + 1)
        np.testing.assert_array_equal(statistics.histogram, np.histogram(values, edges)[0])
        assert sum(statistics.histogram) == len(values)
        assert statistics.histogram[0] > 0 < statistics.histogram[-1]


def test_classes_are_counted_in_voxels_ml_and_cases(records):
    background, liver, spleen = fingerprint(records).classes
    assert [item.name for item in (background, liver, spleen)] == list(CLASSES)
    # Cases 1 and 4 have the liver alone, case 2 has both, cases 0 and 3 have none.
    assert (background.cases, liver.cases, spleen.cases) == (5, 3, 1)
    assert spleen.voxels == 5 * 6 * 7
    assert spleen.volume_ml.minimum == spleen.volume_ml.maximum == 5 * 6 * 7 * 0.008
    assert liver.volume_ml.median == 10 * 12 * 14 * 0.008


def test_a_class_that_no_case_has_and_a_dataset_without_labels():
    empty = dataclasses.replace(make_record("a", seed=0, organs=()), label=None)
    found = fingerprint([empty])
    assert found.foreground_hu is None
    assert [item.volume_ml for item in found.classes[1:]] == [None, None]


# Axis order of a file whose i runs to inferior, j to anterior, k to left.
SIDEWAYS = np.array([[0.0, 0, -3, 9], [0, 0.5, 0, 9], [-2, 0, 0, 9], [0, 0, 0, 1]])


def test_spacing_and_size_of_a_file_are_told_in_canonical_orientation():
    record = dataclasses.replace(
        make_record("a", seed=0), source_shape=(40, 50, 60), source_affine=SIDEWAYS
    )
    facts = case_facts(record, "test", [Finding("thick_slices", "why")])
    assert facts.orientation == "IAL"
    assert facts.source_spacing_mm == (2.0, 0.5, 3.0)
    assert facts.source_shape == (60, 50, 40)  # k is the first axis of (z, y, x) and runs along x
    assert facts.split == "test"
    found = fingerprint_of([facts], HuCounts.of(record), class_names=CLASSES, spacing_mm=(2, 2, 2))
    assert [item.median for item in found.source_spacing_mm] == [2.0, 0.5, 3.0]
    assert found.orientations == {"IAL": 1}
    assert found.warnings == {"thick_slices": 1}


@settings(max_examples=20)
@given(order=st.permutations(range(5)), cut=st.integers(0, 5))
def test_the_order_of_summing_up_changes_nothing(parts, order, cut):
    expected, facts, counts = parts
    turned = [counts[index] for index in order]
    found = fingerprint_of(
        [facts[index] for index in order],
        add([add(turned[cut:]), add(turned[:cut])]),
        class_names=CLASSES,
        spacing_mm=(2.0, 2.0, 2.0),
    )
    assert found == expected


@pytest.mark.parametrize("hu", [-32768, 32767])
def test_the_ends_of_int16_are_counted(hu):
    record = make_record("a", seed=0)
    record = dataclasses.replace(record, image=np.full(record.shape, hu, np.int16))
    found = fingerprint([record]).hu
    assert (found.mean, found.std) == (hu, 0)
    assert found.first_hu <= hu < found.first_hu + 10


@settings(max_examples=20)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=30))
def test_counts_go_through_json(values):
    record = make_record("a", seed=0)
    image = np.resize(np.array(values, np.int16), record.shape)
    counts = HuCounts.of(dataclasses.replace(record, image=image))
    again = HuCounts.from_mapping(json.loads(json.dumps(counts.to_mapping())))
    np.testing.assert_array_equal(again.everywhere, counts.everywhere)
    np.testing.assert_array_equal(again.foreground, counts.foreground)


def test_the_fingerprint_of_an_earlier_manifest_is_read(records):
    found = fingerprint(records)
    form = pydantic.TypeAdapter(Fingerprint)
    text = form.dump_json(found).decode()
    assert text.count('"std":') == 2  # of all voxels, and of those of organs
    assert form.validate_json(text) == found
    assert form.validate_json(text.replace('"std":', '"deviation":')) == found
