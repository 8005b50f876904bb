"""The errors that fcnseg raises for its users' mistakes.

Each is also the builtin error that a caller would expect, and each message names the argument, the
rule, the value and, where there is one, the case.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pydantic

    from fcnseg.codes import Code

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk, or of a quota that is used up."""
_LONGEST = 100  # characters of a value in a message: the input may be a file
_NEAR = 0.7  # least similarity of `difflib` to suggest a name; its own default suggests odd ones


class FcnsegError(Exception):
    """Base of every error that fcnseg raises on purpose.

    Attributes:
        exit_status: Exit status of a job that ends with it.
    """

    exit_status: int = 2  # the exit status of argparse for a wrong flag: the same for both


class InputError(FcnsegError, ValueError):
    """A file, folder or argument that the user gave breaks a rule.

    Attributes:
        code: Stable code for programs, one of `fcnseg.codes.CODES`; None if the type of the error
            says enough.
    """

    def __init__(self, message: str, *, code: Code | None = None) -> None:
        super().__init__(message)
        self.code = code


class GeometryError(InputError):
    """Shape, spacing, origin or direction of a volume is wrong, or differs from another's."""


class LabelError(InputError):
    """A label volume holds values that its label map does not allow."""


class ConfigError(InputError):
    """A configuration has an unknown key or a value out of range."""


class DatasetError(InputError):
    """A folder of records is missing, unfinished or of another schema."""


class ModelError(InputError):
    """A network cannot be built, or cannot take an input of the given shape."""


class OutputError(FcnsegError, OSError):
    """A file cannot be written: the disk is full, or its folder is not writable."""


class MissingExtraError(FcnsegError, ImportError):
    """An optional dependency is not installed."""

    code = "missing_extra"


def one_line(error: BaseException) -> str:
    """The message of another library's error on one line."""
    return " ".join(str(error).split())


def format_names(names: Sequence[object], *, most: int = 3) -> str:
    """Formats the first few of some names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def did_you_mean(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Formats the known names nearest to a misspelt one as the end of an error message.

    Args:
        name: The unknown name.
        known: The names that exist.
        prefix: Text before each suggested name, as `--` of flags.

    Returns:
        `; did you mean ...?`, or an empty text if none is near.

    >>> did_you_mean("livr", ["liver", "spleen"]), did_you_mean("x", ["liver"])
    ('; did you mean liver?', '')
    """
    by_folded = {each.casefold(): each for each in sorted(known)}
    wrong = name.casefold()
    near = difflib.get_close_matches(wrong, by_folded, cutoff=_NEAR)
    near = near or [each for each in by_folded if each.startswith(wrong)][:3]
    return f"; did you mean {' or '.join(prefix + by_folded[each] for each in near)}?" * bool(near)


def first_finding(error: pydantic.ValidationError) -> str:
    """The first finding of a validation as one line: the key, the rule and the value."""
    finding, *others = error.errors()
    *place, kind = finding["loc"] or ("",)
    if str(kind).startswith("literal["):  # the error of another member of the union may be clearer
        alternatives = [each for each in others if each["loc"][: len(place)] == tuple(place)]
        finding = max([finding, *alternatives], key=lambda each: len(each["loc"]))
    key = ".".join(str(part) for part in finding["loc"])
    rule = finding["msg"].removeprefix("Value error, ")
    where = f"{key}: " if key else ""
    says_it_all = finding["type"] in (
        "value_error",
        "missing",
    )  # the input of a missing key is its parent
    value = "" if says_it_all else f", got {_shortened(repr(finding['input']))}"
    return f"{where}{rule}{value}"


def _shortened(text: str) -> str:
    """A text, cut where it is too long for a message."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
