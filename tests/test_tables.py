"""Numbers in tables on the terminal stay in one piece, however narrow it is."""

from __future__ import annotations

import itertools

import pytest
from rich.table import Table as RichTable

from fcnseg.cli.bench import StepTimes, _table
from fcnseg.cli.compare import difference_table
from fcnseg.cli.evaluate import score_table
from fcnseg.cli.tables import print_table
from fcnseg.config import PRESETS
from fcnseg.evaluation import Evaluation, OrganScores, compare
from pipelines.dataset_tables import Table
from tuning.tables import make_table

ORGANS = ("portal_vein_and_splenic_vein", "inferior_vena_cava", "gallbladder")


def make_evaluation(
    shift: float = 0.0, *, organs=ORGANS, prefix="case_of_a_long_name"
) -> Evaluation:
    cases = {
        f"{prefix}_{number:03d}": {
            organ: OrganScores(
                dice=0.123456 + shift + number / 10,
                surface_dice=0.23456 + number / 20,
                hausdorff_distance_95_mm=123.456 + 1000 * number,
                reference_ml=1.0,
                mask_ml=1.0,
            )
            for organ in organs
        }
        for number in range(3)
    }
    return Evaluation(organs, cases, dict.fromkeys(organs, 3.0))


def make_tables() -> dict[str, RichTable]:
    first, second = make_evaluation(), make_evaluation(0.05)
    wide = Table(
        "Cases",
        ("case", *(f"class {number}" for number in range(12)), "warnings"),
        tuple((f"liver_{row:03d}", *["1234567.89"] * 12, "thick_slices") for row in range(2)),
    )
    return {
        "evaluate": score_table(first),
        "compare": difference_table(compare(first, second, names=("first", "second"))),
        "bench": _table(StepTimes(123456.7, 234567.8, 345678.9), PRESETS["demo"]),
        "inspect": wide.for_terminal(),
    }


@pytest.mark.parametrize(("name", "columns"), [*itertools.product(make_tables(), (40, 80, 100))])
def test_each_cell_is_whole(name, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    table = make_tables()[name]
    print_table(table)
    said = capsys.readouterr().out
    numbers = [
        cell
        for column in table.columns
        for cell in map(str, column.cells)
        if column.justify == "right" and cell
    ]
    assert len(numbers) > 5
    for number in numbers:
        assert number in said
    assert "…" not in said


def test_usual_names_fit_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    usual = {"organs": ("liver", "gallbladder"), "prefix": "liver"}
    first, second = make_evaluation(**usual), make_evaluation(0.05, **usual)
    print_table(difference_table(compare(first, second, names=("first", "second"))))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80


def test_brackets_are_no_markup(capsys):
    """Names may have them, and errors of TensorFlow do: [/job:localhost/replica:0]."""
    names = {"organs": ("[bold]", "[/job:a]"), "prefix": "[/x]"}
    first, second = make_evaluation(**names), make_evaluation(0.05, **names)
    print_table(score_table(first))
    print_table(difference_table(compare(first, second, names=("first", "second"))))
    rows = [("[red]case", "[/job:b]")]
    print_table(Table("Cases", ("case", "warnings"), tuple(rows)).for_terminal())
    print_table(make_table(("trial", "error"), [("0", "no [/job:c] device")], title="Failures"))
    said = capsys.readouterr().out
    for name in ("[bold]", "[/job:a]", "[/x]_000", "[red]case", "[/job:b]", "no [/job:c] device"):
        assert name in said
