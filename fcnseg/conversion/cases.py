"""Cases: the image, label, patient and split of each."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable

from fcnseg.codes import Code
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import InputError, format_names
from fcnseg.storage import files


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan and its label.

    Attributes:
        case_id: Name of the case, unique in a dataset.
        image: Path of the CT volume, a file or a folder of DICOM files, on any file system that
            Beam opens.
        label: Path of the label volume, or of a folder of binary masks, one per class; None if the
            case has no label.
        patient_id: Name of the patient; all cases of one are in one split.
        split: One of `SPLITS`, or None to derive it from the patient's hash.
        series_uid: The series to read if the image is a folder that contains several.
    """

    case_id: str
    image: str
    label: str | None
    patient_id: str
    split: str | None = None
    series_uid: str | None = None


@dataclasses.dataclass(frozen=True)
class CaseList:
    """The valid and invalid entries of a list of cases.

    Attributes:
        cases: By case id.
        rejects: Entries that cannot be a case, or that conflict with another one.
    """

    cases: tuple[Case, ...]
    rejects: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        """Number of entries listed."""
        return len(self.cases) + len(self.rejects)


def check_cases(cases: Iterable[Case], *, source: str, rejects: Iterable[Reject] = ()) -> CaseList:
    """Checks the rules that concern several cases at once.

    Args:
        cases: The cases in any order.
        source: Origin of the cases, for error messages.
        rejects: Rejects that the list contains already.

    Returns:
        The list. Cases with the same id are all rejected, as it is ambiguous which is meant; so are
        those of one image with several patients, and those of a patient in two splits. A split
        given for one case of a patient applies to all of them.

    Raises:
        InputError: If nothing is listed.
    """
    cases, found = sorted(cases, key=lambda case: (case.case_id, case.image)), list(rejects)
    if not cases and not found:
        raise InputError(f"no cases in {source}")
    splits_of: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits_of[case.patient_id] |= {case.split} if case.split else set()
    times = Counter(case.case_id for case in cases)
    patients_of: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for case in cases:
        patients_of[case.image, case.series_uid].add(case.patient_id)
    good = []
    for case in cases:
        splits = sorted(splits_of[case.patient_id])
        patients = sorted(patients_of[case.image, case.series_uid])
        if times[case.case_id] > 1:
            reason = f"case_id must be unique, got {case.case_id} {times[case.case_id]} times"
            found.append(listed_wrong(case, "duplicate_case", f"{reason} in {source}"))
        elif len(patients) > 1:
            reason = f"an image must be of one patient, got {case.image} of "
            where = f"{format_names(patients)} in {source}"
            found.append(listed_wrong(case, "duplicate_case", reason + where))
        elif len(splits) > 1:
            reason = f"a patient must be in one split, got {case.patient_id} in "
            where = f"{' and '.join(splits)} in {source}"
            found.append(listed_wrong(case, "patient_in_two_splits", reason + where))
        else:
            good.append(dataclasses.replace(case, split=splits[0] if splits else None))
    return CaseList(tuple(good), tuple(sorted(found)))


def changed_since(output: str, cases: Iterable[Case]) -> list[str]:
    """Lists the files of cases that were modified after an output was made from them.

    Args:
        output: Path of the output.
        cases: The cases.

    Returns:
        Paths of images and labels, in the order of the cases; none of an object store.
    """
    made = files.modified(output)
    if made is None:
        return []
    paths = (path for case in cases for path in (case.image, case.label) if path is not None)
    return [path for path in paths if (files.modified(path) or made) > made]


def listed_wrong(case: Case, code: Code, reason: str) -> Reject:
    """The reject of a case whose entry in the list is invalid."""
    return Reject(case.case_id, "list", code, reason, case.image, "")
