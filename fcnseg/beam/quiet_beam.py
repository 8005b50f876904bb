"""Apache Beam, imported without its log line."""

from __future__ import annotations

import logging

from fcnseg.errors import require_extra

# Importing Beam logs on the root logger that Google's apitools are missing, and thereby configures
# logging for the whole process; a handler that exists already keeps it silent.
_silent = logging.NullHandler()
logging.getLogger().addHandler(_silent)
try:
    require_extra("apache_beam", "pipelines")
finally:
    logging.getLogger().removeHandler(_silent)

import apache_beam as beam  # noqa: E402  the extra is installed

__all__ = ["beam"]
