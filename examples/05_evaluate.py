"""Masks against labels: scores of each organ and case, and a picture.

Run after 04_predict.py: `python -m examples.05_evaluate`.
"""

from pathlib import Path

from fcnseg.evaluation import (
    DEFAULT_TOLERANCE_MM,
    Evaluation,
    pair_files,
    read_case,
    write_picture,
)
from fcnseg.volumes import LabelMap

WORK = Path("build/examples")


def main() -> None:
    label_map = LabelMap.read(WORK / "scans/label_map.yaml")
    tolerances_mm = dict.fromkeys(label_map.class_names[1:], DEFAULT_TOLERANCE_MM)
    files = pair_files(WORK / "masks", WORK / "scans/labels", WORK / "scans/images")
    cases = [read_case(case_files, label_map) for case_files in files]
    scores = {case.case_id: case.scores(tolerances_mm) for case in cases}
    evaluation = Evaluation(tuple(tolerances_mm), scores, tolerances_mm)
    for organ, means in evaluation.classes.items():
        print(f"{organ:<12} Dice {means.dice}, surface Dice {means.surface_dice}")
    write_picture(cases[0], WORK / "overlay.png", scores[cases[0].case_id])


if __name__ == "__main__":
    main()
