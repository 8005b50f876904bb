"""The commands: `python -m fcnseg COMMAND`, one module each."""

import os

# TensorFlow reads this on import. What it logs is for its developers: its errors are exceptions
# too, and training names its devices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
