"""Commands: parsing of flags, logging, and the exit on a user's mistake.

A command is a frozen dataclass whose fields are its flags and whose `run()` does the work, so that
it can be called in-process too, without a command line.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import pydantic
import tyro

from fcnseg.cli.flag_errors import check_words, rejected, unknown_words
from fcnseg.config import PRESETS, Config, config_error, read_config
from fcnseg.config.renamed import with_new_flags
from fcnseg.errors import NO_SPACE, FcnsegError, InputError
from fcnseg.storage.file_urls import local_path

# The form that pathlib leaves of gs:// and similar; longer than a drive letter of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

# One flag for each boolean, that which changes it. Beside tensorflow-addons there is only a tyro
# that has no such option, and offers both.
_FLAGS: tuple[Any, ...] = (
    (tyro.conf.FlagCreatePairsOff,) if hasattr(tyro.conf, "FlagCreatePairsOff") else ()
)

USER_ERROR_STATUS = FcnsegError.exit_status
_BROKEN_PIPE_STATUS = 141  # what a shell reports for SIGPIPE, which Windows has not
INTERRUPTED_STATUS = 128 + signal.SIGINT  # what a shell reports for a process ended by Ctrl-C


Location = Annotated[str | Path, tyro.conf.arg(metavar="PATH")]
"""Type of a command's field for a file or folder on any file system: a path, or a URL such as
s3://bucket/folder. A field of the type `Path` is always a local path."""

ConfigFlags = Annotated[Config, tyro.conf.arg(name="")]
"""Type of a command's field `config`. On the command line `--config` names a YAML file or a preset,
and a flag `--section.key` overrides each of its values."""


class Command(Protocol):
    """A command: flags as fields, the work in `run`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self) -> None:
        """Does the work of the job."""


CommandT = TypeVar("CommandT", bound=Command)
ErrorT = TypeVar("ErrorT", bound=BaseException)
ResultT = TypeVar("ResultT")


def run_command(
    command: type[CommandT], argv: Sequence[str] | None = None, *, prog: str | None = None
) -> None:
    """Parses the flags of a command and runs it.

    Args:
        command: A dataclass with a `run` method; its docstring is the help text.
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.
    """
    run_or_exit(lambda: parse(command, argv, prog=prog).run())


def run_or_exit(work: Callable[[], ResultT]) -> ResultT:
    """Runs a command's work, and gives what it returns.

    An error of fcnseg becomes one line on stderr and its exit status, and so does Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    atexit.register(gc.freeze)  # else Python's last look at TensorFlow's objects takes seconds
    try:
        with _quiet_when_interrupted():
            return work()
    except FcnsegError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    except BaseException as error:
        if _was_interrupted(error):
            sys.stderr.write("interrupted\n")
            sys.exit(INTERRUPTED_STATUS)
        if isinstance(error, BrokenPipeError):  # as of `fcnseg train --help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
            sys.exit(_BROKEN_PIPE_STATUS)
        if isinstance(error, OSError) and error.filename is not None:  # an unexpected error
            sys.stderr.write(f"error: {error.strerror}: {error.filename}\n")
            sys.exit(USER_ERROR_STATUS)
        if isinstance(error, OSError) and error.errno in NO_SPACE:  # as of `fcnseg ... > /dev/full`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
            sys.stderr.write(f"error: {error.strerror}: standard output, or a file\n")
            sys.exit(USER_ERROR_STATUS)
        raise


@contextlib.contextmanager
def _quiet_when_interrupted() -> Iterator[None]:
    """Silences logs and threads after a Ctrl-C: Beam and gRPC report its consequences at length.

    Only possible in the main thread of a process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        logging.disable(logging.CRITICAL)
        threading.excepthook = lambda _: None
        raise KeyboardInterrupt

    hook, before = threading.excepthook, signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        threading.excepthook = hook
        logging.disable(logging.NOTSET)


def _was_interrupted(error: BaseException) -> bool:
    """Tells whether Ctrl-C caused an error: Beam raises another one if it hits a step of a job."""
    return _behind(error, KeyboardInterrupt) is not None


def _behind(error: BaseException | None, kind: type[ErrorT]) -> ErrorT | None:
    """Finds an error by type in the chain of causes of an error, itself included."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def parse(
    command: type[CommandT], argv: Sequence[str] | None = None, *, prog: str | None = None
) -> CommandT:
    """Parses the flags of a command.

    Args:
        command: A dataclass; one with a field `config` of the type `ConfigFlags` has the flag
            `--config` and one for each value of a configuration.
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.

    Raises:
        ConfigError: If a setting is out of range, or the configuration cannot be read.
        InputError: If a flag is unknown or missing, has a value that it does not take, or a path is
            not on this machine.
    """
    parsed, unknown = _parse_words(command, argv, prog=prog)
    if unknown:
        raise unknown_words(unknown, flag_names(command))
    values = {name: _located(value) for name, value in vars(parsed).items()}
    located = command(**{field.name: values[field.name] for field in dataclasses.fields(command)})
    _check_local(located)
    return located


def parse_known(
    command: type[CommandT], argv: Sequence[str] | None = None, *, prog: str | None = None
) -> tuple[CommandT, list[str]]:
    """Parses the flags of a job that passes unknown flags on to another program.

    Args:
        command: A dataclass.
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.

    Returns:
        The job, and the other flags unchanged.

    Raises:
        InputError: If a flag of the job is missing, or has a value that it does not take.
    """
    return _parse_words(command, argv, prog=prog, others_pass=True)


def _parse_words(
    command: type[Any],
    argv: Sequence[str] | None,
    *,
    prog: str | None,
    others_pass: bool = False,
) -> tuple[Any, list[str]]:
    """Parses the flags of a command, and gives the words that it does not know."""
    argv = list(sys.argv[1:] if argv is None else argv)
    check_words(argv)
    options: dict[str, Any] = {
        "prog": prog or program_name(),
        "args": argv,
        "config": _FLAGS,
        "use_underscores": True,
        "return_unknown_args": True,
    }
    parsed_class = command
    if "config" in {field.name for field in dataclasses.fields(command)}:
        options["args"] = argv = with_new_flags(argv)
        parsed_class, options["default"] = _with_config_flag(command, argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: tuple[Any, list[str]] = tyro.cli(parsed_class, **options)
    except pydantic.ValidationError as error:
        raise config_error(error, source="command line") from error
    except (SystemExit, IndexError) as stopped:  # the tyro beside addons expects a message
        if getattr(stopped, "code", USER_ERROR_STATUS) in (0, None):  # after --help
            raise
        finding = _behind(stopped, pydantic.ValidationError)  # in a section of the configuration
        if finding is not None:
            raise config_error(finding, source="command line") from finding
        known = flag_names(command)
        raise rejected(argv, said.getvalue(), known, others_pass=others_pass) from stopped
    return parsed


def flag_names(command: type[Any]) -> list[str]:
    """Lists the flags in the help of a command, those of a configuration's values included."""
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said), _one_column():
        _parse_words(command, ["--help"], prog=None)
    # A line of help that begins with another flag is indented further.
    return re.findall(r"^[│ ] ?(?:-h, )?(--[\w.]*\w)(?![\w.])", said.getvalue(), re.MULTILINE)


@contextlib.contextmanager
def _one_column() -> Iterator[None]:
    """Makes tyro write the groups of flags one below the other, as on a narrow terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _located(value: Any) -> Any:
    """The value of a flag; a file:// URL becomes its path."""
    return local_path(value) if isinstance(value, str) else value


def _check_local(command: Command) -> None:
    """Checks that no path has a scheme such as gs://, which would name a local folder."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and _SCHEME.match(str(path)):
                raise InputError(
                    f"{field.name} must be a path on this machine, without a scheme, got"
                    f" {str(path).replace(':/', '://', 1)}"
                )


def program_name() -> str | None:
    """The name under which this process was called, for `--help`: `python -m` and the module."""
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _with_config_flag(command: type[Any], argv: Sequence[str]) -> tuple[type[Any], Any]:
    """The command with the flag `--config`, its defaults taken from that flag in `argv`."""
    fields = dataclasses.fields(command)
    default = next(field.default for field in fields if field.name == "config")
    preset = next((name for name, config in PRESETS.items() if config is default), None)
    flag = Annotated[str, tyro.conf.arg(name="config", help="YAML file, or the name of a preset.")]
    with_flag: type[Any] = dataclasses.make_dataclass(
        command.__name__,
        [("config_source", flag, dataclasses.field(kw_only=True))],
        bases=(command,),
        namespace={"__doc__": command.__doc__},
        frozen=True,
    )
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", default=preset, nargs="?")
    source = finder.parse_known_args(argv)[0].config
    required = [
        field.name
        for field in fields
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    values: dict[str, Any] = dict.fromkeys(required, tyro.MISSING)
    values["config"] = Config() if source is None else read_config(source)
    values["config_source"] = tyro.MISSING if source is None else source
    return with_flag, with_flag(**values)
