"""A network to masks: a scan of any orientation and spacing, and a mask on exactly its grid.

Run after 02_train.py: `python -m examples.04_predict`.
"""

from pathlib import Path

from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.volumes import list_volumes, read_ct, write_mask

WORK = Path("build/examples")


def main() -> None:
    model, info = load_run(WORK / "run")
    print("classes:", ", ".join(info.class_names), "at", info.spacing_mm, "mm")
    segmenter = make_segmenter(model, info)
    (WORK / "masks").mkdir()
    for case_id, path in list_volumes(WORK / "scans/images").items():
        volume = read_ct(path)
        mask = predict_volume(segmenter, volume)
        write_mask(mask, WORK / "masks" / f"{case_id}.nii.gz", like=volume)
        print(case_id, volume.orientation, mask.shape, f"{(mask > 0).mean():.1%} organs")


if __name__ == "__main__":
    main()
