"""HTML pages: names from the user's files are escaped, and missing packages are asked for."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_cases import write_cases
from small_records import make_record, write_small_dataset

from examples.demo import Demo
from fcnseg.cli.compare import CompareCommand
from fcnseg.cli.evaluate import EvaluateCommand
from fcnseg.cli.preview import Patch, PreviewCommand, preview_html
from fcnseg.config import PRESETS
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import MissingExtraError
from fcnseg.evaluation import Evaluation, OrganScores, compare, report_html
from fcnseg.records import Dataset
from pipelines.convert_ct import ConvertCt
from pipelines.dataset_page import dataset_html
from pipelines.inspect import Inspect
from pipelines.inspected_dataset import InspectedDataset
from tuning.report import Summary
from tuning.trials import Outcome, Progress, Search, Trial, now

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "fcnseg/figures/templates"
PARTS = {"page.html", "macros.html"}  # what pages are made of

HOSTILE = "<b>&<i>\"'x$\\frac$"
PNG = b"\x89PNG"


def evaluation(dice: float) -> Evaluation:
    """Cases of which one is hostile, with a hostile organ that is lost, and a rejected case."""
    organs = {"liver": OrganScores(dice=dice), HOSTILE: OrganScores(dice=0.0, recall=0.0)}
    cases = {HOSTILE: organs, "case_1": organs}
    digests = dict.fromkeys(cases, "1")
    tolerances_mm = {"liver": 5.0, HOSTILE: 2.0}
    return Evaluation(tuple(organs), cases, tolerances_mm, digests, rejected={HOSTILE: HOSTILE})


def evaluation_page(_):
    return report_html(evaluation(0.5), dict.fromkeys((HOSTILE, "case_1"), PNG))


def comparison_page(_):
    return compare(evaluation(0.5), evaluation(0.75), names=(HOSTILE, "second")).to_html()


def preview_page(folder):
    info = Dataset.open(write_small_dataset(folder / "records")).info
    info = dataclasses.replace(info, class_names=("background", HOSTILE, "spleen"))
    patch = Patch(np.zeros((2, 3, 4)), np.zeros((2, 3, 4), np.uint8), HOSTILE)
    return preview_html([(patch, patch)], info, PRESETS["roth2018"].augmentation)


def dataset_page(folder):
    cases = write_cases(folder, count=3)
    label_map = cases.with_name("label_map.yaml")
    label_map.write_text(label_map.read_text().replace("liver", json.dumps(HOSTILE)))
    records = folder / "records"
    ConvertCt(
        cases=str(cases),
        label_map=str(label_map),
        output=str(records),
        spacing_mm=(2.0, 2.0, 2.0),
        validation_fraction=0.0,
        test_fraction=0.0,
    ).run()
    dataset = InspectedDataset.open(records)
    facts = tuple(dataclasses.replace(case, case_id=HOSTILE) for case in dataset.fingerprint.cases)
    dataset = dataclasses.replace(
        dataset,
        fingerprint=dataclasses.replace(dataset.fingerprint, cases=facts),
        rejects=(Reject(HOSTILE, "convert", "unreadable", "not a volume", file="", detail=""),),
    )
    return dataset_html(dataset, [make_record(HOSTILE, seed=0)])


def demo_page(folder):
    (folder / "evaluation/pictures").mkdir(parents=True)
    (folder / f"evaluation/pictures/{HOSTILE}.png").write_bytes(PNG)
    evaluation(0.5).write(folder / "evaluation")
    demo = Demo(folder)
    demo.seconds[HOSTILE] = 1.0
    demo.report()
    return (folder / "index.html").read_text()


def search_page(_):
    """A setting's values are names of the user's too, and a failure's reason is any text."""
    space = {"loss.name": {"choice": [HOSTILE, "dice"]}}
    search = Search("random", "val_dice", 0, space, PRESETS["demo"], "records", "0")
    trials = [
        Trial(str(number), {"loss.name": name}, {}, 15, began=now()).ended_with(outcome)
        for number, (name, outcome) in enumerate(
            [
                (HOSTILE, Outcome(0.5)),
                ("dice", Outcome(0.6)),
                ("dice", Outcome(None, error=HOSTILE)),
            ]
        )
    ]
    return Summary(search, Progress(tuple(trials), ended=HOSTILE)).to_html()


PAGES = {
    "evaluation.html": evaluation_page,
    "comparison.html": comparison_page,
    "preview.html": preview_page,
    "dataset.html": dataset_page,
    "search.html": search_page,
    "demo.html": demo_page,
}


class Text(HTMLParser):
    """All that a page shows, with the texts that stand for its pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.parts += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data):
        self.parts.append(data)


@pytest.mark.parametrize("name", PAGES)
def test_names_are_escaped_once(name, tmp_path):
    page = PAGES[name](tmp_path)
    assert HOSTILE in "".join(Text(page).parts)
    assert HOSTILE[:5] not in page
    assert "&amp;lt;" not in page  # escaped twice


def test_each_template_is_among_the_pages():
    templates = [*TEMPLATES.glob("*.html"), *(ROOT / "examples").glob("*.html")]
    assert {template.name for template in templates} - PARTS == set(PAGES)


def test_no_template_turns_escaping_off():
    for template in TEMPLATES.iterdir():
        assert not re.search(r"\bsafe\b|autoescape", template.read_text()), template


COMMANDS = {
    "evaluate": lambda folder: EvaluateCommand(
        folder, labels=folder, label_map=folder, output=folder / "out"
    ),
    "compare": lambda folder: CompareCommand(folder, folder, folder / "out"),
    "preview": lambda folder: PreviewCommand(folder, folder / "page.html"),
    "inspect": lambda folder: Inspect(folder),
}


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_pages_need_is_asked_for_before_work_begins(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"{module} is not installed: it comes with fcnseg's extra evaluation, pip install "
    with pytest.raises(MissingExtraError, match=message):
        COMMANDS[name](tmp_path).run()
