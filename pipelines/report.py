"""Final report of a job on the terminal, and its failure criterion."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping

from fcnseg.beam.job_state import WARNINGS_FILE
from fcnseg.codes import Code
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import DatasetError
from fcnseg.records import INFO_FILE, REJECTS_FILE, DatasetInfo
from fcnseg.records.same_scans import find_same_scans
from fcnseg.records.small_splits import find_small_splits
from fcnseg.storage import files

logger = logging.getLogger(__name__)


def report_dataset(
    folder: str, *, cases: int, max_reject_fraction: float, splits: Collection[str] = ()
) -> None:
    """Reports the numbers of converted and rejected cases, and splits with too few.

    Args:
        folder: The output.
        splits: Splits that must not be empty.
        cases: Number of cases listed.
        max_reject_fraction: Share of them that may be rejected.

    Raises:
        DatasetError: If none is valid, or more are rejected than allowed.
    """
    rejects = _rejects(folder)
    if len(rejects) < cases:
        info = DatasetInfo.from_json(files.read_text(files.join(folder, INFO_FILE)))
        for split, content in info.splits.items():
            size = sum(shard.bytes for shard in content.shards) / 1e6
            logger.info(
                f"{split}: cases {content.cases}, shards {len(content.shards)}, {size:.1f} MB"
            )
        if info.fingerprint and info.fingerprint.warnings:
            logger.info(f"warnings, see {INFO_FILE}: {_counts(info.fingerprint.warnings)}")
        if info.labelled:
            for small in find_small_splits(info, needed=splits).values():
                logger.warning(small)
            for same in find_same_scans(info):
                logger.warning(same)
        logger.info(f"records are in {folder}")
    _judge(rejects, folder, cases=cases, max_reject_fraction=max_reject_fraction)


def report_complete(folder: str, *, cases: int, max_reject_fraction: float) -> None:
    """Reports that the output of a job is there already, and which of its cases are not.

    Args:
        folder: The output.
        cases: Number of cases listed.
        max_reject_fraction: Share of them that may be rejected.

    Raises:
        DatasetError: If more are rejected than allowed, as in the run that wrote the output.
    """
    logger.info(f"{folder} is complete already; --overwrite makes it again")
    rejects = _rejects(folder) if files.exists(files.join(folder, REJECTS_FILE)) else []
    if rejects:
        logger.warning(
            "a rejected case whose files were repaired needs --overwrite, which converts all cases"
            " again"
        )
    _judge(rejects, folder, cases=cases, max_reject_fraction=max_reject_fraction)


def report_validation(folder: str, *, cases: int, max_reject_fraction: float) -> None:
    """Reports the findings of a validation-only job; see `report_dataset`."""
    rejects = _rejects(folder)
    warnings = len(files.read_text(files.join(folder, WARNINGS_FILE)).splitlines())
    logger.info(f"checked {cases} cases: {cases - len(rejects)} good, warnings {warnings}")
    logger.info(f"the report is in {folder}")
    _judge(rejects, folder, cases=cases, max_reject_fraction=max_reject_fraction)


def _rejects(folder: str) -> list[Reject]:
    lines = files.read_text(files.join(folder, REJECTS_FILE)).splitlines()
    return [Reject.from_json(line) for line in lines]


def _judge(rejects: list[Reject], folder: str, *, cases: int, max_reject_fraction: float) -> None:
    """Prints the first reject as the last line, as it is the one to look at."""
    if not rejects:
        return
    if len(rejects) > 1:
        codes = Counter(reject.code for reject in rejects)
        logger.warning(f"rejects by code: {_counts(dict(codes.most_common()))}")
    path = files.join(folder, REJECTS_FILE)
    message = f"rejected {len(rejects)} of {cases} cases, see {path}; first: {rejects[0]}"
    if len(rejects) == cases or len(rejects) > max_reject_fraction * cases:
        raise DatasetError(message)
    logger.warning(message)


def _counts(by_code: Mapping[Code, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in by_code.items())
