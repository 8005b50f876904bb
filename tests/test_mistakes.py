"""What users get wrong ends each command with one line and status 2, and leaves nothing behind.

The mistakes that a module's own tests have are not here again.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from small_records import write_small_dataset

from fcnseg.cli.bench import BenchCommand
from fcnseg.cli.command import run_command, run_or_exit
from fcnseg.cli.compare import CompareCommand
from fcnseg.cli.evaluate import EvaluateCommand
from fcnseg.cli.main import entries
from fcnseg.cli.phantom import PhantomCommand
from fcnseg.cli.plan import PlanCommand
from fcnseg.cli.predict import PredictCommand
from fcnseg.cli.preview import PreviewCommand
from fcnseg.cli.summary import SummaryCommand
from fcnseg.cli.train import TrainCommand
from pipelines.convert_ct import main as convert
from pipelines.inspect import Inspect
from serving.client import ClientCommand
from tuning.report import ReportCommand

COMMANDS = {
    "bench": BenchCommand,
    "compare": CompareCommand,
    "evaluate": EvaluateCommand,
    "inspect": Inspect,
    "phantom": PhantomCommand,
    "plan": PlanCommand,
    "predict": PredictCommand,
    "preview": PreviewCommand,
    "report": ReportCommand,
    "segment": ClientCommand,
    "summary": SummaryCommand,
    "train": TrainCommand,
}

# A command, and a part of the line that it ends with. FILE is a file, FOLDER one that is empty.
MISTAKES = {
    "train --config FILE --data RECORDS --run_dir NEW": "dictionary or an instance of Config",
    "train --config FOLDER --data RECORDS --run_dir NEW": "config must be a YAML file or one of",
    "train --config BINARY --data RECORDS --run_dir NEW": "is not valid YAML: 'utf-8' codec",
    "train --config demo --data FILE --run_dir NEW": "no such folder of records: FILE",
    "train --config demo --data FILE/below --run_dir NEW": "no such folder of records: FILE/below",
    "train --config demo --data RECORDS --run_dir NEW --folds 3": "fold and folds belong together",
    "train --config demo --data RECORDS --run_dir NEW --fold 3 --folds 3": "fold must be 0 to 2",
    "train --config demo --data RECORDS --run_dir NEW --devices 0": "devices must be 1 to 1",
    "train --config demo --data RECORDS --run_dir FILE": "run_dir must be a folder, got the file",
    "train --config demo --data RECORDS --run_dir FILE/below": "run_dir must be a folder that can",
    "predict --run_dir FILE --images FOLDER --output NEW": "no volume",
    "predict --run_dir FILE --images FILE --output NEW": "no such run folder: FILE",
    "predict --run_dir FILE --images FOLDER --output NEW --dilation_voxels -1": "must be 0 to 512",
    "predict --run_dir FILE --images FOLDER --output NEW --dilation_voxels 513": "must be 0 to 512",
    "predict --run_dir FILE --images FOLDER --output NEW --flips z z": "flips must name each axis",
    "evaluate --masks FILE --labels FOLDER --label_map MAP --output NEW": "no such folder: FILE",
    "evaluate --masks FOLDER --labels FOLDER --label_map MAP --output NEW": "no volume",
    "evaluate --masks MASKS --labels MASKS --label_map MAP --output FILE": "output must be a f",
    "evaluate --masks MASKS --labels MASKS --label_map MAP --output FILE/b": "output must be a f",
    "evaluate --masks MASKS --labels MASKS --label_map FOLDER --output NEW": "label map FOLDER",
    "evaluate --masks MASKS --labels MASKS --label_map BINARY --output NEW": "label map BINARY",
    "evaluate --masks MASKS --labels MASKS --label_map FILE --output NEW": "has the keys classes",
    "evaluate --masks M --labels M --label_map MAP --output NEW --workers -1": "workers must be 0",
    "evaluate --masks MASKS --labels MASKS --label_map MAP --output NEW --tolerance_mm nan": "tole",
    "compare --first FOLDER --second FOLDER --output NEW": "evaluation.json cannot be read",
    "compare --first FILE --second FILE --output NEW": "evaluation.json cannot be read",
    "plan --data FILE --memory_gib 4 --output NEW": "no such folder of records: FILE",
    "plan --data RECORDS --memory_gib 4 --output FOLDER": "output must be a file, got the folder",
    "plan --data RECORDS --memory_gib 4 --output FILE/below": "output must be in a folder that is",
    "plan --data RECORDS --memory_gib 4 --output NEW --config nope": "config must be a YAML file",
    "preview RECORDS --output FILE/below": "output must be in a folder that is there",
    "preview RECORDS --output FOLDER": "output must be a file, got the folder",
    "preview FILE --output NEW": "no such folder of records: FILE",
    "preview RECORDS --output NEW --count 0": "count must be at least 1, got 0",
    "preview RECORDS --output NEW --step -1": "step must be 0 or more, got -1",
    "report FILE": "no search in FILE: search.json is missing",
    "report FOLDER": "no search in FOLDER: search.json is missing",
    "summary --config demo --num_classes 0": "num_classes must be at least 2",
    "summary --config demo --spacing_mm nan 1 1": "spacing_mm must be three positive numbers",
    "summary --config demo --spacing_mm inf 1 1": "spacing_mm must be three positive numbers",
    "summary --config FILE": "Input should be a dictionary",
    "phantom --cases 0 --output NEW": "cases must be at least 1, got 0",
    "phantom --cases 1 --output FILE": "output must be a folder, got the file",
    "phantom --cases 1 --output FILE/below": "output must be a folder that can be written to",
    "phantom --cases 1 --output NEW --seed -1": "seed must be 0 or more, got -1",
    "inspect FILE": "no such folder of records: FILE",
    "inspect FILE --verify": "no such folder of records: FILE",
    "inspect FOLDER --verify": "COMPLETED is missing",
    "convert CASES --output FILE": "output must be a folder, got the file FILE",
    "convert CASES --output FILE/below": "output must be a folder that can be written to",
    "convert CASES --output NEW --runner Nope": "runner must be one of Beam's, got Nope",
    "convert CASES --output NEW --direct_num_workers -3": "direct_num_workers must be 0 .*, got -3",
    "convert CASES --output NEW --shard_mib 0": "shard_mib must be positive, got 0",
    "convert CASES --output NEW --nonsense 1": "unknown flag: --nonsense 1",
    "convert --case FILE --label_map MAP --output NEW": "--case FILE; did you mean --cases or --cl",
    "convert CASES --output NEW --runer DirectRunner": "did you mean --runner.$",
    "convert CASES --output NEW --runner FlinkRuner": "got FlinkRuner; did you mean FlinkRunner",
    "convert CASES --output NEW --runner FlinkRunner --spacing_m 1 1 1": "mean --spacing_mm",
    "convert CASES --output NEW --runner FlinkRunner --label-mapp=a": "did you mean --label_map",
    "convert FILE --label_map MAP --output NEW": "unknown flag: FILE",
    "convert --images FOLDER --label FOLDER --label_map MAP --output NEW": "did you mean --labels",
    "convert CASES --output nope://x/y": "nope://x/y",
    "convert --cases FILE --output NEW": "label_map must be a YAML file with",
    "convert --images FOLDER --labels FOLDER --output NEW": "label_map must be a YAML file with",
    "convert CASES --classes liver --output NEW": "--classes goes with --totalsegmentator, without",
    "convert --dataset FILE --classes a --output NEW": "--classes goes with --totalsegmentator",
    "convert CASES --output NEW --write_label_map FILE": "FILE is there already: give --overwrite",
    "convert CASES --output NEW --write_label_map FOLDER": "write_label_map must be a file",
    "convert CASES --output NEW --write_label_map FILE/below": "write_label_map must be in",
    "convert CASES --output FILE --write_label_map NEW": "output must be a folder, got the file",
    "convert --label_map MAP --cases BINARY --output NEW": "cannot read BINARY",
    "convert --label_map MAP --cases FOLDER --output NEW": "a CSV file, got the folder FOLDER:",
    "convert --label_map MAP --dataset FILE --output NEW": "FILE is no dataset.json",
    "convert --dataset FILE --output NEW": "FILE is no dataset.json",
    "convert --dataset FILE/below --output NEW": "FILE/below",
    "convert --label_map MAP --dataset FOLDER --output NEW": "dataset.json, got the folder",
    "convert --dataset FOLDER --output NEW": "a dataset.json, got the folder FOLDER$",
    "convert --dataset DATASET --output NEW": "did you mean --dataset DATASET/dataset.json",
    "convert --label_map MAP --totalsegmentator FILE --output NEW": "FILE",
    "convert --totalsegmentator FILE --output NEW": "no such folder: FILE",
    "convert --totalsegmentator FOLDER --output NEW": "no SUBJECT/segmentations/NAME.nii",
    "convert --totalsegmentator FILE/below --output NEW": "no such folder: FILE/below",
    "convert --label_map FOLDER --cases FILE --output NEW": "label map FOLDER cannot be read",
    "convert --label_map SCALAR --cases FILE --output NEW": "got 3: write .liver: .3..",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "map.yaml").write_text("classes: {background: [0], liver: [1]}\n")
    (folder / "scalar.yaml").write_text("classes: {background: [0], liver: 3}\n")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.json").write_text("{}")
    (folder / "masks").mkdir()
    (folder / "masks" / "a.nii.gz").write_bytes(b"")
    (folder / "cases.csv").write_text("case_id,image,label\na,a.nii,b.nii\n")
    return {
        "RECORDS": str(write_small_dataset(folder / "records")),
        "CASES": f"--label_map {folder}/map.yaml --cases {folder}/cases.csv",
        "BINARY": str(folder / "binary"),
        "FOLDER": str(folder / "empty"),
        "FILE": str(folder / "file"),
        "MASKS": str(folder / "masks"),
        "MAP": str(folder / "map.yaml"),
        "SCALAR": str(folder / "scalar.yaml"),
        "DATASET": str(folder / "dataset"),
    }


def with_paths(text, places):
    for name, path in places.items():
        text = text.replace(name, path)
    return text


def is_left(folder):
    """What is in a folder, with what it was before; empty folders aside."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_ends_with_a_line_and_leaves_nothing(line, places, tmp_path, capfd):
    name, *argv = with_paths(line.replace("NEW", str(tmp_path / "new")), places).split()
    before = is_left(tmp_path.parent)
    with pytest.raises(SystemExit) as caught:
        convert(argv) if name == "convert" else run_command(COMMANDS[name], argv)
    assert caught.value.code == 2
    lines = capfd.readouterr().err.splitlines()
    errors = [text for text in lines if text.startswith("error: ")]
    assert len(errors) == 1
    assert lines == errors or name != "convert"
    assert re.search(with_paths(MISTAKES[line], places), errors[0]), errors[0]
    assert is_left(tmp_path.parent) == before


# What each command finds in its output, OUT, and would replace.
REPLACED = {
    "bench --data RECORDS --config demo --output OUT": "OUT",
    "compare --first FOLDER --second FOLDER --output OUT": "OUT/comparison.csv",
    "convert CASES --output OUT": "OUT/train-00000-of-00001.tfrecord",
    "evaluate --masks MASKS --labels MASKS --label_map MAP --output OUT": "OUT/evaluation.json",
    "inspect RECORDS --output OUT": "OUT",
    "phantom --cases 1 --output OUT": "OUT/cases.csv",
    "plan --data RECORDS --memory_gib 4 --output OUT": "OUT",
    "preview RECORDS --output OUT": "OUT",
    "report FOLDER --output OUT": "OUT",
    "segment --server 127.0.0.1:1 --images MASKS --output OUT": "OUT/a.nii.gz",
}
# Commands without --overwrite: hours of training are not deleted by a flag.
NEVER_REPLACE = {
    "completion": "writes to stdout",
    "export": "publishes the next version",
    "flink": "takes the flags of convert",
    "rollback": "renames a version",
    "search": "output must be new or empty",
    "report": "shows a search as it is now",
    "serve": "writes no file",
    "summary": "writes no file",
    "train": "run_dir must be new or empty, or of the same run with --resume",
}
ELSEWHERE = {"predict"}  # in test_predict.py and test_unseen.py, as it needs a network


@pytest.mark.parametrize("line", REPLACED)
def test_what_is_there_is_replaced_only_when_told_to(line, places, tmp_path, capfd):
    places = places | {"OUT": str(tmp_path / "out")}
    name, *argv = with_paths(line, places).split()
    found = Path(with_paths(REPLACED[line], places))
    found.parent.mkdir(exist_ok=True)
    found.write_text("precious")
    with pytest.raises(SystemExit) as caught:
        convert(argv) if name == "convert" else run_command(COMMANDS[name], argv)
    assert caught.value.code == 2
    (error,) = [text for text in capfd.readouterr().err.splitlines() if "error: " in text]
    assert "--overwrite" in error
    assert str(tmp_path / "out") in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [found]
    assert found.read_text() == "precious"


def test_each_command_is_in_one_of_these_tables():
    replaced = {line.split()[0] for line in REPLACED}
    assert sorted([*replaced, *NEVER_REPLACE, *ELSEWHERE]) == sorted(entries())
    for name, entry in entries().items():
        module = importlib.import_module(entry.module)
        flags = vars(getattr(module, entry.command or entry.work))["__dataclass_fields__"]
        assert ("overwrite" in flags) == (name not in NEVER_REPLACE), name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(13, "Permission denied", "/data/a"),
            "error: Permission denied: /data/a\n",
        ),
        (OSError(28, "No space left on device", "/a"), "error: No space left on device: /a\n"),
    ],
)
def test_error_of_a_file_that_nobody_foresaw_names_it(capsys, error, line):
    def fail():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_or_exit(fail)
    assert caught.value.code == 2
    assert capsys.readouterr().err == line


def test_other_errors_keep_their_traceback():
    def fail():
        raise ConnectionResetError("by peer")

    with pytest.raises(ConnectionResetError):
        run_or_exit(fail)
