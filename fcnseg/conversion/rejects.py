"""Cases that cannot be converted: each is recorded with a stable code, and the others continue."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcnseg.codes import Code, RejectCode
from fcnseg.errors import FcnsegError, GeometryError, InputError, LabelError, one_line
from fcnseg.storage import files
from fcnseg.volumes.formats.dicom.files import begins_dicom
from fcnseg.volumes.formats.reading import HEADERS_ALONE

_OF_READING: dict[type[FcnsegError], RejectCode] = {
    GeometryError: "bad_geometry",
    LabelError: "label_not_integral",
}
_HEAD = 2**20  # bytes of a remote file that contain its header, compressed or not; not for DICOM


class CaseError(InputError):
    """A case breaks a rule.

    Attributes:
        code: One of `fcnseg.codes.CODES`.
        file: Path of the file to blame.
        detail: Further details for diagnosis.
    """

    def __init__(self, code: Code, reason: str, *, file: str, detail: str = "") -> None:
        super().__init__(reason, code=code)
        self.file = file
        self.detail = detail

    def about(self, copy: str, path: str) -> CaseError:
        """Copies the error for the remote file of which a local copy was read."""
        texts = (text.replace(copy, path) for text in (str(self), self.file, self.detail))
        reason, file, detail = texts
        return CaseError(self.code or "unreadable", reason, file=file, detail=detail)


@dataclasses.dataclass(frozen=True, order=True)
class Reject:
    """One line of the rejects file.

    Attributes:
        case_id: Name of the case.
        stage: `list` (of cases), `inspect` (headers) or `convert` (voxels); or `evaluate`.
        code: One of `fcnseg.codes.CODES`, for programs.
        reason: One line for people.
        file: The file to blame; empty if it is not known.
        detail: Further details for diagnosis; may be empty.
    """

    case_id: str
    stage: str
    code: Code
    reason: str
    file: str
    detail: str

    @classmethod
    def of(cls, error: Exception, *, case_id: str, stage: str) -> Reject:
        """Makes the reject of a case from an exception."""
        if isinstance(error, CaseError):
            code = error.code or "unexpected_error"
            return cls(case_id, stage, code, str(error), error.file, error.detail)
        last = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{Path(last.filename).name}:{last.lineno} in {last.name}"
        reason = f"{type(error).__name__}: {one_line(error)}"
        return cls(case_id, stage, "unexpected_error", reason, "", detail)

    def __str__(self) -> str:
        return f"{self.reason} [{self.code}] (case {self.case_id})"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Reject:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(line))


def explain(error: Exception) -> str:
    """Explains on one line why a command skips a case: the reason, its code, and the detail.

    Args:
        error: The error of the case.
    """
    if isinstance(error, FcnsegError | OSError) and not isinstance(error, CaseError):
        code = getattr(error, "code", None)
        return f"{one_line(error)} [{code}]" if code else one_line(error)
    reject = Reject.of(error, case_id="", stage="")
    detail = f"; {reject.detail}" if reject.detail else ""
    return f"{reject.reason} [{reject.code}]{detail}"


@dataclasses.dataclass(frozen=True, order=True)
class CaseWarning:
    """A fact about a case that is converted all the same.

    Attributes:
        case_id: Name of the case.
        code: One word for programs: one of `fcnseg.codes.WARNINGS`, or of `CODES` where accepted.
        reason: One line for people.
        file: The file to look at.
    """

    case_id: str
    code: Code
    reason: str
    file: str


@contextlib.contextmanager
def opened(path: str, *, header_only: bool = False, beside: Sequence[str] = ()) -> Iterator[Path]:
    """Opens a case's volume as a local path.

    Args:
        path: The volume, a file or a folder, on any file system.
        header_only: Only headers are needed, so no more of remote files is copied; DICOM is copied
            completely, as headers of single frames may take megabytes.
        beside: Paths of files in the same folder that are needed too, if they exist.

    Yields:
        A local path.

    Raises:
        CaseError: If there is no such file, or reading it inside this context fails.
    """
    local = Path(path)
    try:
        if files.is_local(path) and not local.exists():
            raise CaseError("file_missing", f"no such file: {path}", file=path)
        head = _HEAD if header_only else None
        copied = files.local_copy(
            path, beside=[*_data_of(path), *beside], head=head, copied_whole=begins_dicom
        )
        with copied as local:
            yield local
    except CaseError as error:
        if files.is_local(path):
            raise
        raise error.about(str(local), path) from error
    except FcnsegError as error:
        code = getattr(error, "code", None) or _OF_READING.get(type(error), "unreadable")
        raise CaseError(code, str(error).replace(str(local), path), file=path) from error


def _data_of(path: str) -> list[str]:
    """Data files in a store that belong to a header: those of its name but for the suffix."""
    stem, suffix = os.path.splitext(path)
    if files.is_local(path) or suffix.lower() not in HEADERS_ALONE:
        return []
    found = files.list_folder(files.parent(path))
    return [other for other in found if other.startswith(f"{stem}.")]
