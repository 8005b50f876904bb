"""Evaluation of masks against labels: scores per organ, a report, the comparison of two runs.

It does not need TensorFlow, and needs surface-distance, matplotlib and jinja2 only when a surface
is scored, a picture drawn or a page written.
"""

from fcnseg.evaluation.cases import CaseFiles, CaseVolumes, pair_files, pair_masks, read_case
from fcnseg.evaluation.comparison import Comparison, Difference, compare
from fcnseg.evaluation.evaluation import CSV_FILE, JSON_FILE, LOST_DICE, Evaluation, csv_text
from fcnseg.evaluation.metric_facts import METRICS, Metric, Summary
from fcnseg.evaluation.pictures import draw_case, write_picture
from fcnseg.evaluation.report import HTML_FILE, report_html
from fcnseg.evaluation.scores import DEFAULT_TOLERANCE_MM, OrganScores, score_organs

__all__ = [
    "CSV_FILE",
    "DEFAULT_TOLERANCE_MM",
    "HTML_FILE",
    "JSON_FILE",
    "LOST_DICE",
    "METRICS",
    "CaseFiles",
    "CaseVolumes",
    "Comparison",
    "Difference",
    "Evaluation",
    "Metric",
    "OrganScores",
    "Summary",
    "compare",
    "csv_text",
    "draw_case",
    "pair_files",
    "pair_masks",
    "read_case",
    "report_html",
    "score_organs",
    "write_picture",
]
