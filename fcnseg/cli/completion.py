"""Completion of commands and flags in a shell: `fcnseg completion --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from typing import Annotated, Literal

import tyro

from fcnseg.cli.command import flag_names
from fcnseg.cli.main import Entry, entries
from fcnseg.cli.quiet import quiet_stderr
from fcnseg.errors import MissingExtraError
from fcnseg.extras import naming_extras

_BASH = """\
_fcnseg() {{
  local words=
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _fcnseg fcnseg
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@dataclasses.dataclass(frozen=True)
class CompletionCommand:
    """Writes a script that completes commands and flags.

    For bash: fcnseg completion bash > ~/.local/share/bash-completion/completions/fcnseg

    For zsh, in .zshrc: eval "$(fcnseg completion zsh)"
    """

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]
    """The shell."""

    def run(self) -> None:
        """Writes the script to stdout."""
        script = completion_script()
        sys.stdout.write(script if self.shell == "bash" else _ZSH + script)


def completion_script() -> str:
    """Makes the script for bash; a command whose extra is not installed has no flags."""
    flags = {name: _flags_of(entry) for name, entry in entries().items()}
    cases = (f'      {name}) words="{" ".join(names)}" ;;' for name, names in flags.items())
    return _BASH.format(commands=" ".join(flags), cases="\n".join(cases))


def _flags_of(entry: Entry) -> list[str]:
    with contextlib.suppress(MissingExtraError), quiet_stderr(), naming_extras():
        module = importlib.import_module(entry.module)
        return flag_names(getattr(module, entry.command or entry.work))
    return []
