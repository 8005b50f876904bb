"""Masks against labels: Dice of each organ and case, and a picture.

Run after 04_predict.py: `python -m examples.05_evaluate`.
"""

from pathlib import Path

from fcnseg.evaluation import Evaluation, pair_files, read_case, write_picture
from fcnseg.volumes import LabelMap

WORK = Path("build/examples")


def main() -> None:
    label_map = LabelMap.read(WORK / "scans/label_map.yaml")
    names = label_map.class_names
    files = pair_files(WORK / "masks", WORK / "scans/labels", WORK / "scans/images")
    cases = [read_case(case_files, label_map) for case_files in files]
    evaluation = Evaluation(names[1:], {case.case_id: case.scores(names) for case in cases})
    for organ, scores in evaluation.classes.items():
        print(f"{organ:<12}", scores.dice)
    write_picture(cases[0], WORK / "overlay.png", names)


if __name__ == "__main__":
    main()
