"""Cases: which image and label make each, of which patient, in which split."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable

from fcnseg.codes import Code
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import InputError


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan and its label.

    Attributes:
        case_id: Name of the case, unique in a dataset.
        image: Path of the CT volume, a file or a folder of DICOM files, on any file system that
            Beam opens.
        label: Path of the label volume, or of a folder of binary masks, one a class; None where the
            case has no label.
        patient_id: Name of the patient; all cases of one are in one split.
        split: One of `SPLITS`, or None where the patient's hash decides.
        series_uid: Which series is meant where the image is a folder that holds several.
    """

    case_id: str
    image: str
    label: str | None
    patient_id: str
    split: str | None = None
    series_uid: str | None = None


@dataclasses.dataclass(frozen=True)
class CaseList:
    """What a list of cases comes to.

    Attributes:
        cases: By case id.
        rejects: What is listed and cannot be a case, or cannot be one beside another.
    """

    cases: tuple[Case, ...]
    rejects: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        """How many were listed."""
        return len(self.cases) + len(self.rejects)


def check_cases(cases: Iterable[Case], *, source: str, rejects: Iterable[Reject] = ()) -> CaseList:
    """Checks what concerns several cases at once.

    Args:
        cases: The cases in any order.
        source: Where they come from, for errors.
        rejects: What the list holds beside them.

    Returns:
        The list. Cases with one id are all rejected, as nobody knows which is meant; so are the
        cases of a patient in two splits. A split that is named for one case of a patient holds for
        all.

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
    good = []
    for case in cases:
        splits = sorted(splits_of[case.patient_id])
        if times[case.case_id] > 1:
            reason = f"case_id must be unique, got {case.case_id} {times[case.case_id]} times"
            found.append(listed_wrong(case, "duplicate_case", f"{reason} in {source}"))
        elif len(splits) > 1:
            reason = f"a patient must be in one split, got {case.patient_id} in "
            where = f"{' and '.join(splits)} in {source}"
            found.append(listed_wrong(case, "patient_in_two_splits", reason + where))
        else:
            good.append(dataclasses.replace(case, split=splits[0] if splits else None))
    return CaseList(tuple(good), tuple(sorted(found)))


def listed_wrong(case: Case, code: Code, reason: str) -> Reject:
    """The reject of a case whose place in the list is wrong."""
    return Reject(case.case_id, "list", code, reason, case.image, "")
