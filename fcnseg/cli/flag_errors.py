"""Command lines that a command cannot take, each said in one line.

tyro says it in a box of several lines, which this module reads.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

from fcnseg.errors import InputError, did_you_mean

_FLAG = re.compile(r"--?[A-Za-z]")
_IN_BOX = re.compile(r"^[│ ] (.*?) *│?$", re.MULTILINE)  # without a border on an ASCII terminal
_RULER = re.compile(r"─+|-+")
_INVOCATION = re.compile(r" {4}(?=\S)")  # an argument in a box; its help is indented further
# The second form of a message is that of the tyro that tensorflow-addons allows.
_REQUIRED = "The following arguments are required: "
_TOO_FEW = (
    re.compile(r"Missing value for argument '(?P<flag>.+)'\. Expected (?P<count>\d+) values"),
    re.compile(r"Argument (?P<flag>\S+): expected (?P<count>\d+) arguments?"),
)
_NO_CHOICE = (
    re.compile(
        r"invalid choice '(?P<value>.*)' for argument '(?P<flag>.+)'\."
        r" Expected one of \((?P<choices>.+)\)"
    ),
    re.compile(
        r"Argument (?P<flag>\S+): invalid choice: '(?P<value>.*)' \(choose from (?P<choices>.+)\)"
    ),
)


def check_words(words: Sequence[str]) -> None:
    """Checks that no word of a command line is empty, as one of an unset variable of a shell.

    Raises:
        InputError: If one is.
    """
    for before, word in zip(["", *words], words, strict=False):
        if not word or (_FLAG.match(word) and word.endswith("=")):
            flag = word.rstrip("=") or before
            after = f" after {flag}" if _FLAG.match(flag) else ""
            raise InputError(f"a value must not be empty, got ''{after}")


def unknown_words(words: Sequence[str], known: Collection[str]) -> InputError:
    """The error for words that no flag takes.

    Args:
        words: The words; if some are flags, the others are their values.
        known: Flags of the command, as `--run_dir`.
    """
    flags = [word.partition("=")[0] for word in words if _FLAG.match(word)]
    if not flags:
        return InputError(f"unexpected argument: {' '.join(words)}")
    return InputError(f"unknown flag: {' '.join(flags)}{_near(flags[0], known)}")


def rejected(
    words: Sequence[str], said: str, known: Collection[str], *, others_pass: bool
) -> InputError:
    """The error for a command line that tyro rejects.

    Args:
        words: The command line.
        said: Text of tyro.
        known: Flags of the command, as `--run_dir`.
        others_pass: True if flags that the command does not know are for another program.
    """
    unknown = [word for word in words if _FLAG.match(word) and not _is_known(word, known)]
    if others_pass:  # the other program's, unless it is nearly one of the command's
        unknown = [word for word in unknown if _near(word, known)]
    if unknown:
        return unknown_words(unknown, known)
    first, *others = _paragraphs(said)
    message = " ".join(map(str.strip, first)).rstrip(".")
    missing = message.removeprefix(_REQUIRED) if message.startswith(_REQUIRED) else ""
    if first[0].startswith("Missing from"):
        missing = ", ".join(line.strip() for line in first if _INVOCATION.match(line))
    if missing:
        return InputError(f"missing: {missing}; --help describes all flags")
    takes = [line.strip() for each in others for line in each if _INVOCATION.match(line)]
    return InputError(_wrong_value(message, takes, words))


def _wrong_value(message: str, takes: Sequence[str], words: Sequence[str]) -> str:
    """The flag, its rule and its values, as far as tyro's message has them.

    Args:
        message: The message.
        takes: The flag with its type, if the message has them.
        words: The command line.
    """
    if found := _fullmatch(_TOO_FEW, message):
        flag, count = found["flag"], found["count"]
        return f"{flag} must have {count} value{'s' * (count != '1')}, got {_values(flag, words)}"
    if found := _fullmatch(_NO_CHOICE, message):
        value, names = found["value"], found["choices"].replace("'", "").split(", ")
        near = did_you_mean(value, names)
        return f"{found['flag']} must be one of {', '.join(names)}, got {value}{near}"
    if message.startswith("Error parsing") and takes:
        flag, _, kind = takes[0].partition(" ")
        return f"{flag} must be {kind}, got {_values(flag, words)}"
    return message


def _fullmatch(patterns: Sequence[re.Pattern[str]], message: str) -> re.Match[str] | None:
    return next(filter(None, (each.fullmatch(message) for each in patterns)), None)


def _values(flag: str, words: Sequence[str]) -> str:
    """The values that a flag has on a command line, as one text."""
    index = next((i for i, word in enumerate(words) if _name(word) == flag), len(words))
    inline = words[index].partition("=")[2] if index < len(words) else ""
    values = itertools.takewhile(lambda word: not _FLAG.match(word), words[index + 1 :])
    return inline or " ".join(values) or "nothing"


def _paragraphs(said: str) -> list[list[str]]:
    """The lines of a box between its rulers; all lines if there is no box."""
    paragraphs: list[list[str]] = [[]]
    for line in _IN_BOX.findall(said) or said.splitlines():
        if _RULER.fullmatch(line):
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    return [each for each in paragraphs if each] or [["the command line is wrong"]]


def _is_known(word: str, known: Collection[str]) -> bool:
    return word == "-h" or (word.startswith("--") and _name(word) in known)


def _name(word: str) -> str:
    """The flag of a word, as the help has it."""
    return f"--{word.partition('=')[0].lstrip('-').replace('-', '_')}"


def _near(word: str, known: Collection[str]) -> str:
    """The known flags nearest to a misspelt one; settings of a configuration by their key too."""
    name = _name(word)[2:]
    names = [flag[2:] for flag in known]
    near = did_you_mean(name, names, prefix="--")
    if near or "." in name:
        return near
    settings = [each for each in names if each.rpartition(".")[2].startswith(name)]
    return f"; did you mean {' or '.join('--' + each for each in settings[:3])}?" * bool(settings)
