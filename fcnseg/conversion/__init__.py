"""Scans and label files to training records, as Apache Beam transforms.

Without TensorFlow: a worker needs no more than the extra `pipelines`.
"""

from __future__ import annotations

import logging

from fcnseg.errors import require_extra

# Importing Beam says on the root logger that Google's apitools are missing, and so configures
# logging for the whole process; a handler that is there already keeps it silent.
_silent = logging.NullHandler()
logging.getLogger().addHandler(_silent)
require_extra("apache_beam", "pipelines")
logging.getLogger().removeHandler(_silent)
