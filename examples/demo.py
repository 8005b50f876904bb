"""The whole line in one folder: from scans to records, a search, a model, a server and its masks.

Each step is the command that a user would run; what it prints goes to a file of `logs/`.

    python -m examples.demo --output build/demo
    python -m examples.demo --output build/demo --image ct.nii.gz --label label.nii.gz \
        --label_map organs.yaml

With phantoms the Dice table is of patients that the model has not seen. With one scan it is of the
very scan that it was trained on: this shows that the line is right, not that the model is good.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Column, Table

from fcnseg.cli.command import run_command
from fcnseg.config import PRESETS, Config, override, read_config, write_config
from fcnseg.errors import InputError
from fcnseg.evaluation import JSON_FILE, METRICS, Evaluation
from fcnseg.figures.page import environment
from fcnseg.records import read_dataset_info
from fcnseg.volumes import case_id_of, list_volumes, read_ct, to_canonical

MARKER = ".fcnseg-demo"
"""In a folder that a demo made, so that the next one may start over in it."""

DICE_WANTED = 0.80
"""Mean over organs below which the demo fails."""

ORGAN_DICE_WANTED = 0.60
"""Dice of an organ below which the demo fails: a mean can hide one that is lost."""

PAGE = Path(__file__).with_name("demo.html")

Row = tuple[str, str]

console = Console(markup=False)


class StepError(InputError):
    """A step of the demo failed; the end of its log says why."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What one kind of demo does differently.

    Attributes:
        cases_csv: List of cases to convert.
        label_map: Their label map.
        images: Folder of the scans.
        labels: Folder of their labels.
        spacing_mm: (z, y, x) of the records.
        split_flags: How cases are split.
        config: What to train.
    """

    cases_csv: Path
    label_map: Path
    images: Path
    labels: Path
    spacing_mm: tuple[float, float, float]
    split_flags: tuple[str, ...]
    config: Config


@dataclasses.dataclass(frozen=True)
class DemoCommand:
    """Walks the whole line on phantoms, or on one scan, into one folder with a page to open."""

    output: Path
    """Folder for everything; an earlier demo in it is replaced."""
    image: Path | None = None
    """A CT scan, instead of phantoms; with --label and --label_map."""
    label: Path | None = None
    """Its label volume."""
    label_map: Path | None = None
    """YAML file: the classes in order, each with the ids that make it."""

    def run(self) -> None:
        """Does the steps, shows their times and the Dice table, and writes the page."""
        scan = [path for path in (self.image, self.label, self.label_map) if path]
        if len(scan) not in (0, 3):
            raise InputError("--image, --label and --label_map go together")
        Demo(fresh_folder(self.output)).walk(scan)


class Demo:
    """The steps, one after the other, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def walk(self, scan: Sequence[Path]) -> None:
        """From scans to the page; raises `StepError` where the Dice is below what is wanted.

        Args:
            scan: Image, label and label map, or nothing for phantoms.
        """
        scenario = self.one_scan(*scan) if scan else self.phantoms()
        self.convert(scenario)
        self.train(scenario)
        self.serve(scenario)
        self.evaluate(scenario)
        check_dice(self.report())

    def phantoms(self) -> Scenario:
        """Makes phantoms; those of the test split are for the server."""
        scans = self.folder / "scans"
        self.job("phantoms", "fcnseg", "phantom", "--cases", 14, "--output", scans, "--seed", 0)
        return Scenario(
            cases_csv=scans / "cases.csv",
            label_map=scans / "label_map.yaml",
            images=scans / "images",
            labels=scans / "labels",
            spacing_mm=(4.0, 4.0, 4.0),
            split_flags=("--validation_fraction", "0.15", "--test_fraction", "0.2"),
            config=PRESETS["demo"],
        )

    def one_scan(self, image: Path, label: Path, label_map: Path) -> Scenario:
        """Lists one scan twice, for training and for validation, at its own spacing."""
        scans = self.folder / "scans"
        copies = []
        for source, kind in ((image, "images"), (label, "labels")):
            suffix = source.name.removeprefix(case_id_of(source)).removeprefix("_0000")
            (scans / kind).mkdir(parents=True)
            copies.append(shutil.copy(source, scans / kind / f"scan{suffix}"))
        with (scans / "cases.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case_id", "image", "label", "patient_id", "split"])
            # One patient under two names: nothing is claimed of other patients here.
            for split, pair in (("train", (image, label)), ("validation", copies)):
                writer.writerow([split, *(Path(path).resolve() for path in pair), split, split])
        canonical = to_canonical(read_ct(image))
        size = [min(48, max(16, length // 8 * 8)) for length in canonical.shape]
        settings = {"patches.size": size}
        return Scenario(
            cases_csv=scans / "cases.csv",
            label_map=label_map,
            images=scans / "images",
            labels=scans / "labels",
            spacing_mm=canonical.spacing,
            split_flags=(),
            config=override(PRESETS["demo"], settings),
        )

    def convert(self, scenario: Scenario) -> None:
        """Scans to records, by Beam."""
        self.job(
            *("convert", "pipelines.convert_ct", "--cases", scenario.cases_csv),
            *("--label_map", scenario.label_map, "--output", self.folder / "records"),
            *("--spacing_mm", *scenario.spacing_mm, *scenario.split_flags),
        )

    def train(self, scenario: Scenario) -> None:
        """A search of three short trials, then one training with the best of them, and export.

        The search is over the overlap of windows: trials so short cannot tell how to train.
        """
        short = {"training.epochs": 1, "training.steps_per_epoch": 20}
        write_config(override(scenario.config, short), self.folder / "search_base.yaml")
        space = {"inference.overlap": {"choice": [[4, 4, 4], [8, 8, 8], [12, 12, 12]]}}
        (self.folder / "search_space.yaml").write_text(yaml.safe_dump(space))
        records, search = self.folder / "records", self.folder / "search"
        self.job(
            *("search", "tuning.search", "--data", records, "--max_trials", 3),
            *("--config", self.folder / "search_base.yaml"),
            *("--space", self.folder / "search_space.yaml", "--output", search),
        )
        best = read_config(search / "best.yaml")
        config = dataclasses.replace(scenario.config, inference=best.inference)
        write_config(config, self.folder / "train.yaml")
        run = self.folder / "run"
        self.job(
            *("train", "fcnseg", "train", "--config", self.folder / "train.yaml"),
            *("--data", records, "--run_dir", run),
        )
        self.job(
            "export", "serving.export", "--run_dir", run, "--model_dir", self.folder / "models"
        )

    def serve(self, scenario: Scenario) -> None:
        """Sends the held-out scans to a model server, which gives back their masks."""
        held_out = read_dataset_info(self.folder / "records").splits["test"].case_ids
        with self.timed("serve"), self.server() as address:
            images = list_volumes(scenario.images)
            rows = [f"{case_id},{images[case_id].resolve()}" for case_id in held_out or images]
            cases = self.folder / "held_out.csv"
            cases.write_text("\n".join(["case_id,image", *rows]) + "\n")
            self.call(
                *("serve", "serving.client", "--server", address, "--model_name", "fcnseg"),
                *("--cases", cases, "--output", self.folder / "masks"),
            )

    @contextmanager
    def server(self) -> Iterator[str]:
        """A model server on this machine while it is needed; yields its address."""
        command = [sys.executable, "-m", "serving.server", "--model_name", "fcnseg"]
        command += ["--model_base_path", str(self.folder / "models")]
        command += ["--port=-1", "--rest_api_port=-1"]
        with self.log("server").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            ready = re.search(r"at (\S+) \(gRPC\)", next(iter(process.stdout or ()), ""))
            if ready is None:
                raise StepError(f"the server did not start, see {self.log('server')}")
            yield ready[1]
        finally:
            process.terminate()
            process.wait()

    def evaluate(self, scenario: Scenario) -> None:
        """Compares the masks with the labels."""
        self.job(
            *("evaluate", "fcnseg", "evaluate", "--masks", self.folder / "masks"),
            *("--labels", scenario.labels, "--label_map", scenario.label_map),
            *("--images", scenario.images, "--output", self.folder / "evaluation"),
        )

    def report(self) -> Evaluation:
        """Shows times and Dice, writes the page; returns the evaluation."""
        text = (self.folder / "evaluation" / JSON_FILE).read_bytes()
        evaluation = Evaluation.from_json(text)
        times, dice = self.times(), dice_of_organs(evaluation)
        console.print(terminal_table("Time", ("step", "seconds"), times))
        cases = ", ".join(evaluation.cases)
        title = "Dice of the served masks"
        console.print(terminal_table(title, ("organ", "Dice"), dice, caption=cases))
        pictures = sorted((self.folder / "evaluation" / "pictures").glob("*.png"))
        page = environment().from_string(PAGE.read_text(encoding="utf-8"))
        html = page.render(
            times=times, dice=dice, cases=cases, pictures=[picture.name for picture in pictures]
        )
        (self.folder / "index.html").write_text(html, encoding="utf-8")
        console.print(f"open {self.folder / 'index.html'}")
        return evaluation

    def times(self) -> list[Row]:
        """Seconds of each step, and of all."""
        rows = [*self.seconds.items(), ("all", sum(self.seconds.values()))]
        return [(step, f"{seconds:.1f}") for step, seconds in rows]

    def job(self, step: str, module: str, *flags: object) -> None:
        """Runs a command of fcnseg as a step of its own."""
        with self.timed(step):
            self.call(step, module, *flags)

    def call(self, step: str, module: str, *flags: object) -> None:
        """Runs a command of fcnseg; what it prints goes to the step's log."""
        with self.log(step).open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", module, *map(str, flags)], stdout=log, stderr=log
            )
        if done.returncode:
            end = self.log(step).read_text().strip().splitlines()[-1:]
            raise StepError(f"step {step} failed, see {self.log(step)}: {' '.join(end)}")

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Takes the time of a step and shows it."""
        started = time.perf_counter()
        with console.status(f"{step} ..."):
            yield
        self.seconds[step] = time.perf_counter() - started
        console.print(f"{step:<12}{self.seconds[step]:7.1f} s")

    def log(self, step: str) -> Path:
        """File for what a step prints."""
        return self.folder / "logs" / f"{step}.txt"


def check_dice(evaluation: Evaluation) -> None:
    """Raises `StepError` if the mean Dice, or that of an organ, is below what is wanted."""
    mean = evaluation.mean_dice or 0.0
    if mean < DICE_WANTED:
        raise StepError(f"mean Dice must be at least {DICE_WANTED}, got {mean:.4f}")
    organs = {organ: scores.dice or 0.0 for organ, scores in evaluation.classes.items()}
    worst = min(organs, key=organs.__getitem__)
    if organs[worst] < ORGAN_DICE_WANTED:
        raise StepError(
            f"Dice of {worst} must be at least {ORGAN_DICE_WANTED}, got {organs[worst]:.4f}"
        )


def dice_of_organs(evaluation: Evaluation) -> list[Row]:
    """Dice of each organ, mean over cases, and the mean over organs."""
    values = [(organ, scores.dice) for organ, scores in evaluation.classes.items()]
    rows = [*values, ("mean", evaluation.mean_dice)]
    return [(organ, METRICS["dice"].format(dice)) for organ, dice in rows]


def terminal_table(
    title: str, header: Row, rows: Sequence[Row], *, caption: str | None = None
) -> Table:
    """A table of names and numbers, of which the last row sums up the others."""
    table = Table(header[0], Column(header[1], justify="right"), title=title, caption=caption)
    for row in rows:
        table.add_row(*row)
    table.rows[-1].style = "bold"
    return table


def fresh_folder(folder: Path) -> Path:
    """An empty folder; what an earlier demo left in it goes, anything else is refused."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise InputError(f"output must be new, empty or an earlier demo's folder, got {folder}")
        shutil.rmtree(folder)
    (folder / "logs").mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def main() -> None:
    """Runs the command."""
    run_command(DemoCommand)


if __name__ == "__main__":
    main()
