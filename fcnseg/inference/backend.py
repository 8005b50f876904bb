"""The runtimes that compute windows."""

from __future__ import annotations

from typing import Literal

Backend = Literal["tensorflow", "openvino"]
"""TensorFlow, or OpenVINO (extra `openvino`), which is faster on CPUs."""
