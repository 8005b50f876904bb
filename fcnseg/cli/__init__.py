"""The commands: `python -m fcnseg COMMAND`, one module each."""

import os

# TensorFlow reads this on import. What it logs is for its developers: its errors are exceptions
# too, and training names its devices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# By default TensorFlow takes nearly all memory of each GPU when it starts, and a second command, or
# a trial of a search, finds none. The user's own value is kept.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
