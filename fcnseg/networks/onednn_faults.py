"""Networks that TensorFlow's oneDNN computes wrongly in bfloat16, and CPUs on which it does.

Seen with TensorFlow 2.21 on CPUs with AVX512-BF16 or AMX: results contain earlier contents of the
memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from fcnseg.config import ModelConfig
from fcnseg.networks.levels import levels_of
from fcnseg.volumes import Shape

_CPU_FLAGS = ("avx512_bf16", "amx_bf16")


def is_affected(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the CPU computes in bfloat16 and oneDNN is on; False where it is not Linux."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false"):
        return False
    try:
        flags = cpuinfo.read_text().split()
    except OSError:  # not Linux: no such TensorFlow
        return False
    return any(flag in flags for flag in _CPU_FLAGS)


def has_narrow_stride(config: ModelConfig, patch_size: Shape) -> bool:
    """Tells whether a convolution with a stride along x gives one voxel along x.

    Its output is wrong, for any number of samples. Wider ones are right, as are poolings, which
    networks without residual blocks have instead.

    Args:
        config: The network.
        patch_size: Voxels (z, y, x) of the input.
    """
    width = patch_size[2]
    for level in levels_of(config):
        width = -(-width // level.stride[2])
        if level.residual_blocks and level.stride[2] > 1 and width == 1:
            return True
    return False
