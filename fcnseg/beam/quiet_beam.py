"""Apache Beam, imported without its log line."""

from __future__ import annotations

import logging

from fcnseg.errors import require_extra

# Importing Beam says on the root logger that Google's apitools are missing, and so configures
# logging for the whole process; a handler that is there already keeps it silent.
_silent = logging.NullHandler()
logging.getLogger().addHandler(_silent)
try:
    require_extra("apache_beam", "pipelines")
finally:
    logging.getLogger().removeHandler(_silent)

import apache_beam as beam  # noqa: E402  the extra is there

__all__ = ["beam"]
