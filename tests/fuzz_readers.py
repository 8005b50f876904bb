"""Reads many changed files between good ones, and compares each with an independent reader.

    python tests/fuzz_readers.py --count 20000 --seed 1

Readers run in a process of their own, so a crash is seen. A fault is: the process ends or hangs; an
error that is no code; a good volume that is read wrongly after a bad one; voxels or a grid that no
independent reader finds in the file. Prints a JSON line with the counts; the files of faults are
kept where --keep says.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import AFFINE, FORMATS, SHAPE, Mutated, mutate
from fuzz_referees import held_by

from fcnseg.codes import CODES
from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.volumes import AIR_HU, Geometry, Volume, read_ct, read_geometry, write_volume

PATIENCE = 60.0  # seconds for one file
LARGEST_MM = 1e-3  # of a corner, against an independent reader


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What our reader made of a file: a code, a volume, or a fault."""

    code: str = ""
    array: np.ndarray | None = None
    affine: np.ndarray | None = None
    fault: str = ""


@dataclasses.dataclass
class Report:
    """What became of all files."""

    seed: int
    files: Counter[str] = dataclasses.field(default_factory=Counter)
    records: Counter[str] = dataclasses.field(default_factory=Counter)
    codes: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: list[str] = dataclasses.field(default_factory=list)


class Isolated:
    """A function of a path that runs in another process, which starts again where it ends."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(self.function, other), daemon=True)
        self.process.start()
        other.close()

    def send(self, path: Path) -> None:
        self.pipe.send(str(path))

    def receive(self) -> Any:
        """The answer; text that begins with `ended` where the process ended or hangs."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self.pipe.poll(PATIENCE):
                return self.pipe.recv()
        self.process.join(1)
        status = self.process.exitcode
        self.close()
        self.start()
        return f"ended: status {status}" if status is not None else "ended: it hangs"

    def close(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def serve(function: Callable[[str], Any], pipe: Any) -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries say there what they raise too
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        pipe.send(function(path))


def read(path: str) -> Outcome:
    """Our reader on a file, and on a good one of another patient after it."""
    outcome = _read(path)
    good = Path(path).parent.parent / "good.nii.gz"
    if good.exists() and not np.array_equal(read_ct(good).array, good_voxels()):
        return Outcome(fault="the next good volume is read wrongly")
    return outcome


def _read(path: str) -> Outcome:
    try:
        with opened(path) as local:
            grid: Geometry = read_geometry(local)
            volume = read_ct(local)
    except CaseError as error:
        is_good = error.code in CODES and "\n" not in str(error) and str(error).encode()
        return Outcome(error.code) if is_good else Outcome(fault=f"bad reject: {error!r}")
    except Exception as error:  # each is a fault
        return Outcome(fault=f"{type(error).__name__}: {error}")
    codes = [finding.code for finding in volume.findings if finding.code in CODES]
    if codes:
        return Outcome(codes[0])
    if grid.shape != volume.shape or not np.array_equal(grid.affine, volume.affine):
        return Outcome(fault="read_geometry and read_ct differ")
    return Outcome(array=volume.array, affine=volume.affine)


def independent(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """What others make of the file."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(held_by(Path(path)))


def is_same(outcome: Outcome, held: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether voxels and corners are those of another reader; padding may have become air."""
    values, affine = held
    if outcome.array is None or values.shape != outcome.array.shape:
        return False
    limits = np.iinfo(np.int16)
    expected = np.clip(np.rint(np.asarray(values, np.float64)), limits.min, limits.max)
    is_right = (outcome.array == expected) | (outcome.array == AIR_HU)
    corners = [Geometry(outcome.array.shape, one).corners_mm() for one in (outcome.affine, affine)]
    most = LARGEST_MM * max(1.0, float(np.abs(corners[1]).max()) / 1000)
    return bool(is_right.all()) and bool(np.abs(corners[0] - corners[1]).max() <= most)


def good_voxels() -> np.ndarray:
    return np.random.default_rng(99).integers(-1000, 3000, SHAPE).astype(np.int16)


def fuzz(count: int, *, seed: int, keep: Path | None = None, first: int = 0) -> Report:
    """Reads so many changed files.

    Args:
        count: How many.
        seed: Of the changes.
        keep: Folder for the files of faults.
        first: Number of the first.
    """
    report = Report(seed)
    ours, others = Isolated(read), Isolated(independent)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        write_volume(Volume(good_voxels(), AFFINE), Path(folder) / "good.nii.gz")
        for index in range(first, first + count):
            mutated = mutate(index, seed=seed)
            path = mutated.write(Path(folder) / str(index))
            for reader in (ours, others):
                reader.send(path)
            fault = _judge(mutated, ours.receive(), others.receive(), report)
            if fault:
                report.faults.append(f"{index} {mutated.kind}: {fault}")
                if keep is not None:
                    shutil.copytree(Path(folder) / str(index), keep / str(index))
            shutil.rmtree(Path(folder) / str(index))
    for reader in (ours, others):
        reader.close()
    return report


def _judge(mutated: Mutated, outcome: Any, held: Any, report: Report) -> str:
    """Counts an outcome, and says what is wrong with it, if anything is."""
    name = mutated.kind.split()[0]
    report.files[name] += 1
    if isinstance(outcome, str):
        return outcome
    if outcome.fault:
        return str(outcome.fault)
    if outcome.code:
        report.codes[f"{name} {outcome.code}"] += 1
        return ""
    report.records[name] += 1
    if isinstance(held, str):
        return f"no independent reader: {held}"
    if any(is_same(outcome, one) for one in held):
        return ""
    return f"not what {len(held)} independent readers find"


def main() -> int:
    """Runs the fuzz and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000, help=f"over {', '.join(FORMATS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    report = fuzz(given.count, seed=given.seed, keep=given.keep, first=given.first)
    sys.stdout.write(json.dumps(vars(report), indent=1, sort_keys=True) + "\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
