"""What users get wrong ends each command with one line and status 2, and leaves nothing behind.

The mistakes that a module's own tests have are not here again.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from small_cases import write_cases
from small_models import write_run
from small_records import write_small_dataset

from fcnseg.cli.command import run_or_exit
from fcnseg.cli.main import entries, main

# A command, and a part of the line that it ends with. FILE is a file, FOLDER one that is empty. The
# tyro that tensorflow-addons allows tells no types of missing flags.
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
    "evaluate --masks MASKS --labels DRAWN --label_map MAP --output FILE": "output must be a f",
    "evaluate --masks MASKS --labels DRAWN --label_map MAP --output FILE/b": "output must be a f",
    "evaluate --masks MASKS --labels DRAWN --label_map FOLDER --output NEW": "label map FOLDER",
    "evaluate --masks MASKS --labels DRAWN --label_map BINARY --output NEW": "label map BINARY",
    "evaluate --masks MASKS --labels DRAWN --label_map FILE --output NEW": "has the keys classes",
    "evaluate --masks M --labels M --label_map MAP --output NEW --workers -1": "workers must be 0",
    "evaluate --masks MASKS --labels DRAWN --label_map MAP --output NEW --tolerance_mm nan": "tole",
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
    "convert --totalsegmentator FOLDER --output NEW": "no SUBJE.T/segmentations/NAME.nii",
    "convert --totalsegmentator FILE/below --output NEW": "no such folder: FILE/below",
    "convert --label_map FOLDER --cases FILE --output NEW": "label map FOLDER cannot be read",
    "convert --label_map SCALAR --cases FILE --output NEW": "got 3: write .liver: .3..",
}


MISTAKES |= {
    # -- Flags
    "train": r"missing: --data( PATH)?, --run_dir( PATH)?, --config( STR)?; --help describes all f",
    "train --config demo --data RECORDS": "missing: --run_dir( PATH)?",
    "train --config": "--config must have 1 value, got nothing",
    "train --config demo --dat RECORDS --run_dir NEW": "--dat; did you mean --data.$",
    "train --config demo --data RECORDS --rundir NEW": "unknown flag: --rundir; did you mean --run",
    "train --config demo --data RECORDS --run_dir NEW --trainning.epochs 3": "mean --training.epoc",
    "train --config demo --data RECORDS --run_dir NEW --epochs 3": "did you mean --training.epochs",
    "train --config demo --data RECORDS --run_dir NEW --lr 1e-3": "unknown flag: --lr$",
    "train --config demo --data RECORDS --run_dir NEW --resume yes": "unexpected argument: yes",
    "train --config demo --data= --run_dir NEW": "a value must not be empty, got '' after --data",
    "predict --run RUN --images SCANS/images --output NEW": "unknown flag: --run; did you mean --r",
    "evaluate --mask MASKS --labels MASKS --label_map MAP --output NEW": "--mask; did you mean --m",
    "compare FOLDER FOLDER --output NEW": "missing: --first( PATH)?, --second( PATH)?",
    "plan --data RECORDS --output NEW": "memory_gib must be given, unless device is cpu",
    "plan --data RECORDS --output NEW --device cpu": "seconds_per_case must be given where device",
    "plan --data RECORDS --output NEW --device gpu": "--device must be .*cpu.*, got gpu",
    "plan --data RECORDS --output NEW --seconds_per_case 9": "applies to device cpu alone, got 9.0",
    "plan --data RECORDS --output NEW --memory_gib 4 --backend openvino": "backend applies to dev",
    "plan --data RECORDS --output NEW --device cpu --seconds_per_case 0": "and finite, got 0",
    "plan --data RECORDS --output NEW --device cpu --seconds_per_case nan": "and finite, got nan",
    "plan --data RECORDS --output NEW --device cpu --seconds_per_case inf": "and finite, got inf",
    "plan --data RECORDS --output NEW --device cpu --seconds_per_case 9 --memory_gib 0": "got 0",
    "plan --data RECORDS --output NEW --memory_gib inf": "memory_gib must be positive and finite",
    "plan --data RECORDS --output NEW --memory_gib nan": "memory_gib must be positive and finite",
    "plan --data RECORDS --memory_gib 4GiB --output NEW": "--memory_gib must be .*FLOAT, got",
    "plan --data RECORDS --memory_gib 4 --output NEW --precision fp16": "--precision must be one o",
    "phantom --case 1 --output NEW": "unknown flag: --case; did you mean --cases",
    "phantom --cases one --output NEW": "--cases must be INT, got one",
    "summary --config demo --spacing 1 1 1": "did you mean --spacing_mm",
    "summary --config demo --spacing_mm 1 1": "--spacing_mm must (be|have) .*, got 1 1",
    "summary --config demo --num_classes two": "--num_classes must be INT, got two",
    "summary demo": "missing: --config( STR)?",
    "inspect": "missing: PATH; --help",
    "inspect --directory RECORDS": "unknown flag: --directory",
    "inspect RECORDS FOLDER": "unexpected argument: FOLDER",
    "preview RECORDS": "missing: --output( PATH)?",
    "preview RECORDS --output NEW --count six": "--count must be INT, got six",
    "bench --config demo": "missing: --data( PATH)?",
    "bench --data RECORDS --config demo --step 3": "unknown flag: --step; did you mean --steps",
    "completion": "missing: {bash,zsh}",
    "completion fish": r"(shell|\{bash,zsh\}) must be one of bash, zsh, got fish",
    "convert": "missing: --output( STR)?",
    "convert CASES --ouput NEW": "unknown flag: --ouput; did you mean --output",
    "convert CASES --output NEW --spacing_mm 1 1": "--spacing_mm must have 3 values, got 1 1",
    "convert CASES --output NEW --spacing_mm 1mm 1mm 1mm": "must be FLOAT FLOAT FLOAT, got 1mm 1mm",
    "convert CASES --output NEW --on_mismatch resample": "must be one of reject, resample_label, t",
    "search --data RECORDS --config demo --space SPACE --output NEW": "max_trials or max_hours",
    "report": "missing: PATH",
    "report RUN": "RUN",
    "report FILE": "FILE",
    "export --run RUN --model_dir NEW": "unknown flag: --run; did you mean --run_dir",
    "rollback": "missing: ",
    "segment --server 127.0.0.1:1 --image CT --output NEW": "unknown flag: --image; did you mean",
    "flink --jar FILE/below": "Java|no file: FILE/below",
    # -- Settings
    "train --config Demo --data RECORDS --run_dir NEW": "config must be a YAML file or one of the",
    "train --config demo --data RECORDS --run_dir NEW --training.epochs 2.5": "must be INT, got 2",
    "train --config demo --data RECORDS --run_dir NEW --training.epochs 0": "greater than 0, got 0",
    "train --config demo --data RECORDS --run_dir NEW --training.learning_rate nan": "finite numbe",
    "train --config demo --data RECORDS --run_dir NEW --training.optimizer adm": "adm; did you mea",
    "train --config demo --data RECORDS --run_dir NEW --model.hu_window 300 -100": "with low < hig",
    "train --config demo --data RECORDS --run_dir NEW --model.filters a b": "--model.filters must",
    "train --config demo --data RECORDS --run_dir NEW --patches.size 32 32": "must have 3 values,",
    "train --config demo --data RECORDS --run_dir NEW --patches.size 33 33 33": "that fit: 32 and",
    "train --config demo --data RECORDS --run_dir NEW --inference.overlap 32 9 9": "smaller than p",
    "train --config demo --data RECORDS --run_dir NEW --loss.class_weights 1 2": "must be 3 number",
    "train --config demo --data RECORDS --run_dir NEW --loss.ignore_label 7": "of a class, 0 to 2,",
    "train --config KEYS --data RECORDS --run_dir NEW": "unknown key 'epoch' in training; known: e",
    "train --config TYPES --data RECORDS --run_dir NEW": "training.epochs: .*valid integer.*, got",
    "train --config BROKEN --data RECORDS --run_dir NEW": "BROKEN is not valid YAML: ",
    "train --config MAP --data RECORDS --run_dir NEW": "unknown section 'classes'; known: model",
    "train --config LONG --data RECORDS --run_dir NEW": "an instance of Config, got 'x{96}[.]{3} ",
    "summary --config demo --model.norm bach": "must be one of .*; did you mean batch",
    "search --data RECORDS --config demo --space FILE --max_trials 0 --output NEW": "max_trials mu",
    "search --data RECORDS --config demo --space MAP --max_trials 2 --output NEW": "classes",
    "search --data RUN --config demo --space SPACE --max_trials 2 --output NEW": "not a finished d",
    "search --data RECORDS --config demo --space SPACE --max_trials 2 --output FILE": "be a folder",
    # -- Folders and files of another kind
    "train --config demo --data RUN --run_dir NEW": "RUN is not a finished dataset: COMPLETED is m",
    "train --config demo --data SCANS --run_dir NEW": "not a finished dataset: COMPLETED is missin",
    "train --config demo --data RECORDS --run_dir RUN": "with a finished run in it",
    "train --config demo --data RECORDS --run_dir RECORDS": "with other files in it",
    "train --config demo --data RECORDS --run_dir RUN --resume": "resume needs what the run in",
    "train --config demo --data RECORDS --run_dir NEW --devices GPU:7": "devices must be among .*G",
    "train --config demo --data RECORDS --run_dir NEW --fold 0 --folds 50": "folds must be at most",
    "predict --run_dir RECORDS --images SCANS/images --output NEW": "RECORDS is not a finished run",
    "predict --run_dir UNFINISHED --images SCANS/images --output NEW": "run.json is missing",
    "predict --run_dir RUN --images SCANS --output NEW": "no volume .* in folder SCANS",
    "predict --run_dir RUN --images FILE/below --output NEW": "images must be a volume or a folder",
    "predict --run_dir RUN --images SCANS/images --output FILE": "output must be a folder, got the",
    "predict --run_dir RUN --images SCANS/images --output SCANS/images": "is no mask of fcnseg",
    "predict --run_dir RUN --images SCANS/images --output SCANS/labels --overwrite": "is no mask",
    "predict --run_dir RUN --images SCANS/images --output NEW --accept nothing": "accept must be o",
    "predict --run_dir RUN --images SCANS/images --output NEW --dicom_seg": "for images of DICOM a",
    "predict --run_dir RUN --images SCANS/images --output NEW --flips w": "w",
    "evaluate --masks SCANS/labels --labels SCANS/images LABELS --output NEW --workers 1": "label",
    "evaluate --masks SCANS/labels --labels FOLDER LABELS --output NEW": "no volume|no label",
    "evaluate --masks MASKS --labels DRAWN LABELS --output NEW --organ_tolerance_mm lver 5": "lver",
    "evaluate --masks MASKS --labels DRAWN --label_map RUN/config.yaml --output NEW": "has the key",
    "evaluate --masks MASKS --labels MASKS LABELS --output NEW": "must be two files, got MASKS",
    "compare --first RUN --second RECORDS --output NEW": "evaluation.json cannot be read",
    "plan --data RUN --memory_gib 4 --output NEW": "RUN is not a finished dataset",
    "plan --data RECORDS --memory_gib 4 --output /proc/x": "in a folder that can be written to",
    "phantom --cases 1 --output /proc/x": "output must be a folder that can be written to, got /pr",
    "phantom --cases 1 --output SCANS --overwrite": "SCANS",
    "phantom --cases 1 --output NEW --variety 10": "variety must be a number from 1 to 3, got 10",
    "phantom --cases 1 --output s3://bucket/scans": "a path on this machine, without a scheme",
    "inspect RUN": "RUN is not a finished dataset",
    "inspect RECORDS --output NEW": "RECORDS has no fingerprint: convert the cases again",
    "preview RUN --output NEW": "RUN is not a finished dataset",
    "preview RECORDS --output /proc/x": "output must be in a folder that can be written to",
    "bench --data RUN --config demo": "RUN is not a finished dataset",
    "bench --data RECORDS --config demo --steps 0": "steps must be at least 1, got 0",
    "bench --data RECORDS --config demo --output /proc/x": "in a folder that can be written to",
    "convert CASES --output /proc/x": "output must be a folder that can be written to",
    "convert CASES --output RUN": "RUN",
    "convert CASES --output RUN --overwrite": "must be empty or of a conversion, got RUN",
    "convert CASES --output RUN --resume": "RUN",
    "convert CASES --output NEW --spacing_mm 0.0015 0.0015 0.0015": "in mm, 0.2 to 100, got",
    "convert CASES --output NEW --spacing_mm 1500 700 700": "in mm, 0.2 to 100, got",
    "convert CASES --output NEW --validation_fraction 20": "their sum must be below 1, got 20",
    "convert CASES --output NEW --max_reject_fraction 5": "max_reject_fraction must be from 0 to 1",
    "convert CASES --output NEW --accept all": "accept must be of",
    "convert --cases SCANS/label_map.yaml --label_map MAP --output NEW": "case_id",
    "convert --cases SCANS/cases.csv --label_map SCANS/cases.csv --output NEW": "label map SCANS/c",
    "convert --cases SCANS/cases.csv --images SCANS/images --label_map MAP --output NEW": "images",
    "convert --images SCANS/images --label_map MAP --output NEW": "labels",
    "convert --images RUN --labels RUN --label_map MAP --output NEW": "no volume",
    "convert --cases FILE/below --label_map MAP --output NEW": "FILE/below",
    "export --run_dir UNFINISHED --model_dir NEW": "run.json is missing",
    "export --run_dir RECORDS --model_dir NEW": "RECORDS is not a finished run",
    "export --run_dir FILE/below --model_dir NEW": "no such run folder",
    "rollback --model_dir RUN": "RUN",
    "serve --model_base_path RUN --port 0 --rest_api_port 0": "must be given, got none",
    "serve --model_base_path RUN --port grpc": "grpc",
    "serve": "model_base_path|model_config_file",
    "segment --server localhost --images CT --output NEW": "HOST:PORT.*localhost",
    "segment --server localhost:grpc --images CT --output NEW": "HOST:PORT.*localhost:grpc",
    "segment --server localhost:85000 --images CT --output NEW": "HOST:PORT|85000",
    "segment --server ftp://localhost:85 --images CT --output NEW": "ftp",
    "segment --server 127.0.0.1:1 --images FILE/below.nii --output NEW": "FILE/below.nii",
    "segment --server 127.0.0.1:1 --images FOLDER --output NEW": "no volume",
    "segment --server 127.0.0.1:1 --images SCANS/images --output SCANS/images --overwrite": "is no",
    "segment --server 127.0.0.1:1 --images CT --output NEW --in_flight 0": "in_flight must be 1",
    "segment --server 127.0.0.1:1 --images CT --output NEW": "127.0.0.1:1",
}
# Errors of single cases are logged before the line.
ALL_CASES = {
    "evaluate --masks SCANS/labels --labels SCANS/images LABELS --output NEW --workers 1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mistakes")


@pytest.fixture(scope="module")
def places(folder):
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "map.yaml").write_text("classes: {background: [0], liver: [1]}\n")
    (folder / "scalar.yaml").write_text("classes: {background: [0], liver: 3}\n")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.json").write_text("{}")
    for name in ("masks", "drawn"):
        (folder / name).mkdir()
        (folder / name / "a.nii.gz").write_bytes(b"")
    (folder / "cases.csv").write_text("case_id,image,label\na,a.nii,b.nii\n")
    (folder / "keys.yaml").write_text("training: {epoch: 3}\n")
    (folder / "types.yaml").write_text("training: {epochs: ten}\n")
    (folder / "broken.yaml").write_text("training: {epochs: 3\n")
    (folder / "long.yaml").write_text("x" * 5000)
    (folder / "space.yaml").write_text("training.learning_rate: {float: [0.001, 0.01]}\n")
    scans = write_cases(folder / "scans").parent
    return {
        "LABELS": f"--label_map {scans}/label_map.yaml",
        "SCANS": str(scans),
        "CT": f"{scans}/images/case_00.nii.gz",
        "RUN": str(write_run(folder / "run")),
        "UNFINISHED": str(write_run(folder / "unfinished", finished=False)),
        "KEYS": str(folder / "keys.yaml"),
        "TYPES": str(folder / "types.yaml"),
        "BROKEN": str(folder / "broken.yaml"),
        "LONG": str(folder / "long.yaml"),
        "SPACE": str(folder / "space.yaml"),
        "RECORDS": str(write_small_dataset(folder / "records")),
        "CASES": f"--label_map {folder}/map.yaml --cases {folder}/cases.csv",
        "BINARY": str(folder / "binary"),
        "FOLDER": str(folder / "empty"),
        "FILE": str(folder / "file"),
        "MASKS": str(folder / "masks"),
        "DRAWN": str(folder / "drawn"),
        "MAP": str(folder / "map.yaml"),
        "SCALAR": str(folder / "scalar.yaml"),
        "DATASET": str(folder / "dataset"),
    }


def with_paths(text, places):
    for name, path in places.items():
        text = text.replace(name, path)
    return text


def is_left(*folders):
    """Files in folders, with the times of their last changes; empty folders aside."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_ends_with_a_line_and_leaves_nothing(line, folder, places, tmp_path, capfd):
    name, *argv = with_paths(line.replace("NEW", str(tmp_path / "new")), places).split()
    before = is_left(folder, tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([name, *argv])
    assert caught.value.code == 2
    lines = capfd.readouterr().err.splitlines()
    errors = [text for text in lines if text.startswith("error: ")]
    assert len(errors) == 1
    assert lines == errors or line in ALL_CASES
    assert re.search(with_paths(MISTAKES[line], places), errors[0]), errors[0]
    assert is_left(folder, tmp_path) == before


# What each command finds in its output, OUT, and would replace.
REPLACED = {
    "bench --data RECORDS --config demo --output OUT": "OUT",
    "compare --first FOLDER --second FOLDER --output OUT": "OUT/comparison.csv",
    "convert CASES --output OUT": "OUT/train-00000-of-00001.tfrecord",
    "evaluate --masks MASKS --labels DRAWN --label_map MAP --output OUT": "OUT/evaluation.json",
    "inspect RECORDS --output OUT": "OUT",
    "phantom --cases 1 --output OUT": "OUT/cases.csv",
    "plan --data RECORDS --memory_gib 4 --output OUT": "OUT",
    "preview RECORDS --output OUT": "OUT",
    "report FOLDER --output OUT": "OUT",
    "predict --run_dir RUN --images CT --output OUT": "OUT/volumes.csv",
    "segment --server 127.0.0.1:1 --images CT --output OUT": "OUT/volumes.csv",
}
# Commands without --overwrite: hours of training are not deleted by a flag.
NEVER_REPLACE = {
    "completion": "writes to stdout",
    "export": "publishes the next version",
    "flink": "takes the flags of convert",
    "rollback": "renames a version",
    "search": "output must be new or empty",
    "serve": "writes no file",
    "summary": "writes no file",
    "train": "run_dir must be new or empty, or of the same run with --resume",
}


@pytest.mark.parametrize("line", REPLACED)
def test_what_is_there_is_replaced_only_when_told_to(line, places, tmp_path, capfd):
    places = places | {"OUT": str(tmp_path / "out")}
    name, *argv = with_paths(line, places).split()
    found = Path(with_paths(REPLACED[line], places))
    found.parent.mkdir(exist_ok=True)
    found.write_text("precious")
    with pytest.raises(SystemExit) as caught:
        main([name, *argv])
    assert caught.value.code == 2
    (error,) = [text for text in capfd.readouterr().err.splitlines() if "error: " in text]
    assert "--overwrite" in error
    assert str(tmp_path / "out") in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [found]
    assert found.read_text() == "precious"


def test_each_command_is_in_one_of_these_tables():
    replaced = {line.split()[0] for line in REPLACED}
    assert sorted([*replaced, *NEVER_REPLACE]) == sorted(entries())
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
