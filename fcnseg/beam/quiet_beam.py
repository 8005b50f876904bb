"""Apache Beam, imported without its log lines."""

from __future__ import annotations

import logging

from fcnseg.extras import require_extra

# Importing Beam logs on the root logger that packages of Google are missing, and thereby configures
# logging for the whole process unless it has a handler already.
_silent = logging.NullHandler()
_disabled = logging.root.manager.disable
logging.root.addHandler(_silent)
logging.disable(logging.WARNING)
try:
    require_extra("apache_beam")
finally:
    logging.disable(_disabled)
    logging.root.removeHandler(_silent)

import apache_beam as beam  # noqa: E402  the extra is installed

__all__ = ["beam"]
