"""A network to a SavedModel that TensorFlow Serving serves.

Run after 02_train.py: `python -m examples.06_export`.
"""

from pathlib import Path

import numpy as np

from fcnseg.saved_model.export import export_run
from fcnseg.saved_model.session import SavedModelSession

WORK = Path("build/examples")


def main() -> None:
    # Checked in the server's runtime before it appears under its version number.
    version = export_run(WORK / "run", WORK / "models")
    print("published:", version)

    session = SavedModelSession(version)  # as the server loads it
    print("signatures:", sorted(session.signatures))
    air = np.full((10, 20, 30), -1024, np.int16)
    spacing = np.array([5.0, 3.0, 3.0], np.float32)
    reply = session.run("segment_volume", {"volume": air, "spacing": spacing})
    print("voxels of each class in air:", reply["voxel_counts"])


if __name__ == "__main__":
    main()
