"""A SavedModel behind a server, and a client without TensorFlow that sends it a scan.

Run after 06_export.py: `python -m examples.07_serve`.
"""

from pathlib import Path

from fcnseg.client import SegmentationClient
from fcnseg.volumes import read_ct, write_mask
from serving.local_server import LocalServer
from serving.server import ServerCommand

WORK = Path("build/examples")


def main() -> None:
    command = ServerCommand(
        model_base_path=WORK / "models", model_name="fcnseg", port=-1, rest_api_port=-1
    )
    with LocalServer(command) as server:
        print(server)
        with SegmentationClient(f"127.0.0.1:{server.grpc_port}") as client:
            print("classes:", client.model_info().class_names)
            volume = read_ct(WORK / "scans/images/phantom_003.nii.gz")
            mask = client.segment(volume)
        write_mask(mask, WORK / "served_mask.nii.gz", like=volume)
        print("mask of", mask.shape, "voxels, classes", sorted(set(mask.ravel().tolist())))


if __name__ == "__main__":
    main()
