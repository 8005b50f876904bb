"""Evaluation of masks against labels: scores per organ, tables and pictures.

It knows no TensorFlow, and asks for matplotlib only when a picture is drawn.
"""

from fcnseg.evaluation.cases import Case, CaseFiles, pair_files, read_case
from fcnseg.evaluation.evaluation import CSV_FILE, JSON_FILE, Evaluation
from fcnseg.evaluation.palette import organ_colour
from fcnseg.evaluation.pictures import draw_case, write_picture
from fcnseg.evaluation.scores import OrganScores, score_organs

__all__ = [
    "CSV_FILE",
    "JSON_FILE",
    "Case",
    "CaseFiles",
    "Evaluation",
    "OrganScores",
    "draw_case",
    "organ_colour",
    "pair_files",
    "read_case",
    "score_organs",
    "write_picture",
]
