"""Lists of cases from the layouts in which scans and labels are stored: one module per layout."""

from fcnseg.conversion.case_lists.csv_file import cases_to_csv, read_cases_csv
from fcnseg.conversion.case_lists.dataset_json import (
    cases_of_dataset_json,
    label_map_of_dataset_json,
)
from fcnseg.conversion.case_lists.folders import cases_of_folders
from fcnseg.conversion.case_lists.totalsegmentator import (
    cases_of_totalsegmentator,
    label_map_of_totalsegmentator,
)

__all__ = [
    "cases_of_dataset_json",
    "cases_of_folders",
    "cases_of_totalsegmentator",
    "cases_to_csv",
    "label_map_of_dataset_json",
    "label_map_of_totalsegmentator",
    "read_cases_csv",
]
