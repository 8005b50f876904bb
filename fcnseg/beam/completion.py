"""The last outputs of a job: the report, the manifest, and the marker of a complete dataset."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence

import numpy as np

from fcnseg.beam.job_state import WARNINGS_FILE, Output, WrittenShard
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.statistics import HuCounts, fingerprint_of
from fcnseg.records import (
    COMPLETED_FILE,
    INFO_FILE,
    REJECTS_FILE,
    SPLITS,
    DatasetInfo,
    SplitInfo,
)


def finish_validation(
    output: Output, shards: Sequence[WrittenShard], rejects: Iterable[Reject]
) -> None:
    """Writes the report of a validation-only job: rejects and warnings, one per line."""
    output.write_report(REJECTS_FILE, _lines(reject.to_json() for reject in sorted(rejects)))
    warnings = sorted(
        (case.case_id, finding.code, finding.reason)
        for shard in shards
        for case in shard.cases
        for finding in case.warnings
    )
    names = ("case_id", "code", "reason")
    output.write_report(
        WARNINGS_FILE,
        _lines(
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in warnings
        ),
    )


def finish_dataset(
    output: Output,
    shards: Sequence[WrittenShard],
    rejects: Iterable[Reject],
    *,
    preprocessing: Preprocessing,
    seed: int,
    labelled: bool,
) -> None:
    """Writes the rejects and, if any case is valid, the manifest and finally the marker."""
    output.write_report(REJECTS_FILE, _lines(reject.to_json() for reject in sorted(rejects)))
    if not any(shard.cases for shard in shards):
        return
    label_map = preprocessing.label_map
    counts = (HuCounts.from_mapping(shard.hu_counts) for shard in shards)
    info = DatasetInfo(
        spacing_mm=preprocessing.spacing_mm,
        class_names=label_map.class_names,
        label_map=label_map.to_mapping(),
        seed=seed,
        labelled=labelled,
        splits={
            split: _split_info(
                [shard for shard in shards if shard.split == split], label_map.num_classes
            )
            for split in SPLITS
        },
        fingerprint=fingerprint_of(
            [case for shard in shards for case in shard.cases],
            functools.reduce(HuCounts.__add__, counts, HuCounts.none()),
            class_names=label_map.class_names,
            spacing_mm=preprocessing.spacing_mm,
        ),
    )
    output.delete_shards(but=[shard.info.name for shard in shards])
    output.write_report(INFO_FILE, info.to_json())
    output.write_report(COMPLETED_FILE, output.job + "\n")


def _split_info(shards: Sequence[WrittenShard], num_classes: int) -> SplitInfo:
    cases = [case for shard in shards for case in shard.cases]
    histogram = np.zeros(num_classes, dtype=np.int64)
    for case in cases:
        histogram += case.class_voxels
    return SplitInfo(
        cases=len(cases),
        case_ids=tuple(sorted(case.case_id for case in cases)),
        shards=tuple(sorted((shard.info for shard in shards), key=lambda info: info.name)),
        class_histogram=tuple(histogram.tolist()),
        divided=tuple(sorted(case_id for shard in shards for case_id in shard.divided)),
    )


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
