"""Int8 for OpenVINO: near float32, refused where it loses Dice, and without telemetry."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import CROP, in_bfloat16, make_hu, write_run
from small_records import make_record, write_dataset
from small_runs import make_config

from fcnseg.cli.command import run_or_exit
from fcnseg.cli.main import main
from fcnseg.cli.predict import PredictCommand
from fcnseg.config import ModelConfig, override
from fcnseg.errors import DatasetError, InputError, ModelError
from fcnseg.inference import load_run, load_runs, make_segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.records import Dataset, Fold
from fcnseg.runs import Run, read_run
from fcnseg.sampling import make_volume_dataset
from fcnseg.saved_model.dice_lost import Int8Dice, check_dice
from fcnseg.saved_model.export import export_run
from fcnseg.saved_model.options import ExportOptions
from fcnseg.training import train
from fcnseg.training.callbacks import Validation
from fcnseg.training.preemption import StopRequest
from fcnseg.training.pretrained import load_pretrained
from fcnseg.volumes import Volume, write_volume
from serving.export import ExportCommand

openvino = pytest.importorskip("openvino", reason="extra openvino")
pytest.importorskip("nncf", reason="extra int8")

from fcnseg.inference import computed_precision  # noqa: E402
from fcnseg.inference.computed_precision import openvino_core  # noqa: E402
from fcnseg.inference.openvino_backend import (  # noqa: E402
    graph_with_rounded_kernels,
    openvino_graph,
)
from fcnseg.inference.openvino_network import OpenvinoNetwork  # noqa: E402
from fcnseg.inference.quantization import quantized  # noqa: E402

WINDOW = (16, 16, 16)
NETWORKS = {
    "batch norm": ModelConfig(filters=(4, 8, 12)),
    "instance norm, residual blocks": ModelConfig(
        filters=(4, 8),
        norm="instance",
        activation="leaky_relu",
        residual_blocks=(1, 2),
        widen="first",
    ),
    "group norm": ModelConfig(filters=(8, 16), norm="group"),
    "linear upsampling": ModelConfig(filters=(4, 8), upsampling="linear"),
    "pyramid": ModelConfig(filters=(4, 8), pyramid=2),
}
INT8 = ExportOptions(
    backend="openvino",
    precision="int8",
    calibration_windows=16,
    max_dice_loss=0.05,  # of eight channels a voxel or two of the small organs may change
)


def operations(graph, kind):
    return [each for each in graph.get_ordered_ops() if each.get_type_name() == kind]


def weights_of(operation):
    """The type of the constant that an operation's weights begin with."""
    node = operation.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_element_type()


def has_kernels_in_bfloat16(graph):
    nodes = [each.input_value(1).get_node() for each in operations(graph, "Convolution")]
    kernels = [node.get_data() for node in nodes]
    return all(np.array_equal(kernel, in_bfloat16(kernel)) for kernel in kernels)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_convolutions_but_the_first_and_the_last_are_in_int8(name):
    keras.utils.set_random_seed(0)
    model = build_fcn(NETWORKS[name], num_classes=3)
    windows = [make_hu((1, *WINDOW, 1), seed=seed).astype(np.float32) for seed in range(4)]
    graph = openvino_graph(model, WINDOW)
    in_int8 = quantized(graph, windows, count=len(windows))
    first, *between, last = map(weights_of, operations(in_int8, "Convolution"))
    assert {first, last} == {openvino.Type.f32}
    assert {*between} == {openvino.Type.i8}
    assert not operations(graph, "FakeQuantize")  # it stays as it was
    rounded = graph_with_rounded_kernels(in_int8)
    assert [*map(weights_of, operations(rounded, "Convolution"))] == [
        *map(weights_of, operations(in_int8, "Convolution"))
    ]
    found, expected = (
        OpenvinoNetwork(each).predictor()(tf.constant(windows[0])).numpy()
        for each in (in_int8, graph)
    )
    assert 1e-4 < np.abs(found - expected).mean() < 0.02


def test_an_instance_norm_stays_one_operation():
    model = build_fcn(NETWORKS["instance norm, residual blocks"], num_classes=3)
    windows = [make_hu((1, *WINDOW, 1)).astype(np.float32)]
    in_int8 = quantized(openvino_graph(model, WINDOW), windows, count=1)
    assert operations(in_int8, "MVN")
    assert not operations(in_int8, "ReduceMean")


SIGNALLED = """
import gc, os, signal
import numpy as np
from fcnseg.config import ModelConfig
from fcnseg.inference.openvino_backend import openvino_graph, predictor_of
from fcnseg.inference.quantization import quantized
from fcnseg.networks.build import build_fcn

signal.signal(signal.SIGTERM, lambda *_: print("stopped"))
model = build_fcn(ModelConfig(filters=(2, 4)), num_classes=2)
windows = [np.zeros((1, 4, 4, 4, 1), np.float32)]
in_int8 = quantized(openvino_graph(model, (4, 4, 4)), windows, count=1)
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
predictor = predictor_of(in_int8, "float32")
del predictor, in_int8
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_a_signal_is_handled_after_nncf_has_deleted_its_cores():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "stopped\nstopped\n"), done.stderr


SILENT = """
import sys
from fcnseg.extras import require_extra
package = require_extra(sys.argv[1])
assert sys.modules["openvino_telemetry"] is None
if package.__name__ == "nncf":
    from nncf.telemetry import telemetry
    assert type(telemetry).__module__ == "unittest.mock", telemetry
"""


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_no_use_is_reported(tmp_path, package):
    """The package that sends counts uses in the home folder first; tests switch it off too."""
    switches = ("CI", "NNCF_CI", "NNCF_DEV", "TF_BUILD", "JENKINS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    argv = [sys.executable, "-c", SILENT, package]
    subprocess.run(argv, check=True, env={**environment, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    made = [make_record(f"case_{seed}", seed=seed) for seed in range(5)]
    folder = tmp_path_factory.mktemp("int8") / "records"
    return write_dataset(folder, {"train": [made[:3]], "validation": [made[3:]]})


@pytest.fixture(scope="module")
def run_dir(records, tmp_path_factory):
    """A network that has learnt the organs of the records."""
    config = make_config(
        ModelConfig(filters=(4, 8)), epochs=2, steps_per_epoch=60, learning_rate=2e-2
    )
    return train(config, records, tmp_path_factory.mktemp("int8") / "run").run_dir


@pytest.fixture(scope="module")
def version(run_dir, tmp_path_factory):
    return export_run(run_dir, tmp_path_factory.mktemp("int8") / "models", options=INT8)


def make_windows_of_a_scan():
    image = make_record("case_9", seed=9).image
    windows = [image[z : z + 8, 6:18, 8:20] for z in (0, 6)]
    return np.stack(windows)[..., np.newaxis].astype(np.float32)


@pytest.mark.slow
def test_a_version_is_what_model_server_loads(version, run_dir):
    """By the names of tensors that TensorFlow's export has too."""
    graph = openvino_core().read_model(version / "network.xml")
    assert graph.input().get_names() == {"patches"}
    assert graph.output().get_names() == {"probabilities"}
    assert operations(graph, "FakeQuantize")
    windows = make_windows_of_a_scan()
    found = openvino_core().compile_model(graph, "CPU")(windows)["probabilities"]
    expected = tf.nn.softmax(load_run(run_dir)[0](windows, training=False)).numpy()
    assert np.abs(found - expected).mean() < 0.02


def test_the_card_has_the_dice_of_both_precisions(version, run_dir):
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert [each["organ"] for each in card["int8_dice"]] == ["liver", "spleen", "mean"]
    *organs, mean = (each["float32"] for each in card["int8_dice"])
    assert mean == pytest.approx(np.mean(organs))
    assert mean > 0.8
    assert mean == pytest.approx(read_run(run_dir).best_dice, abs=1e-3)
    assert all(0 < abs(each["float32"] - each["int8"]) < 0.05 for each in card["int8_dice"])
    assert card["settings"]["precision"] == "int8"
    page = (version / "assets.extra" / "model_card.md").read_text()
    assert f"| mean | {mean:.4f} | {card['int8_dice'][-1]['int8']:.4f} |" in page


def test_a_run_of_a_fold_is_compared_on_the_cases_of_its_fold(run_dir, records, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run_dir, other)
    dataclasses.replace(read_run(run_dir), fold=0, folds=2).write(other)
    loose = dataclasses.replace(INT8, max_dice_loss=1.0)
    version = export_run(other, tmp_path / "models", options=loose)
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    validation = Validation(
        make_segmenter(*load_run(run_dir)),
        make_volume_dataset(Dataset.open(records), "validation", fold=Fold(0, 2)),
        every=1,
        stop=StopRequest(),
    )
    mean, *organs = validation.score()
    expected = pytest.approx([*organs, mean], abs=1e-3)
    assert [each["float32"] for each in card["int8_dice"]] == expected
    assert mean != pytest.approx(read_run(run_dir).best_dice, abs=1e-3)  # of other cases


def with_a_large_channel(model, factor=30):
    """Multiplies a channel, and divides the weights that take it: in float32 nothing changes.

    In int8 the others share the range of this channel, and have some eight values.
    """
    weights = dict(zip((each.path for each in model.weights), model.get_weights(), strict=True))
    for name in ("encoder_0_0/norm/gamma", "encoder_0_0/norm/beta"):
        weights[name][0] *= factor
    weights["encoder_0_1/kernel"][..., 0, :] /= factor
    model.set_weights(list(weights.values()))


def test_int8_that_loses_dice_is_refused(run_dir, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run_dir, other)
    model, _ = load_run(run_dir)
    windows = make_hu((2, 8, 12, 12, 1)).astype(np.float32)
    before = model(windows, training=False)
    with_a_large_channel(model)
    np.testing.assert_allclose(model(windows, training=False), before, atol=1e-4)
    model.save(other / "best.keras")
    loss = r"liver -?0\.\d{4}, spleen 0\.\d{4}, mean 0\.\d{4}"
    message = f"int8 may lose 0.005 of an organ's validation Dice, got {loss}; nothing is published"
    options = dataclasses.replace(INT8, max_dice_loss=ExportOptions().max_dice_loss)
    with pytest.raises(ModelError, match=f"^{message}$"):
        export_run(other, tmp_path / "models", options=options)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((0.9, 0.8), (0.895, 0.81), None),
        ((0.9, 0.8), (0.8949, 0.81), "got liver 0.0051, spleen -0.0100"),
        ((0.9, 0.8), (0.9, 0.0), "got liver 0.0000, spleen 0.8000"),
        ((0.9, math.nan), (0.9, math.nan), None),
        ((0.9, math.nan), (0.9, 0.0), "got liver 0.0000, spleen 1.0000"),  # in a mask alone
        ((0.9, math.nan), (0.1, math.nan), "got liver 0.8000, spleen in no validation case"),
        ((math.nan, math.nan), (math.nan, math.nan), "got liver in no validation case, spleen in"),
        ((0.9, 0.0), (0.9, math.nan), None),  # a false positive less
    ],
)
def test_the_loss_of_each_organ_counts(before, after, message):
    organs = list(map(Int8Dice.of, ("liver", "spleen"), before, after))
    if message is None:
        check_dice(organs, max_dice_loss=0.005 + 1e-12)
    else:
        with pytest.raises(ModelError, match=message):
            check_dice(organs, max_dice_loss=0.005)


def test_organs_that_were_not_compared_are_named(caplog):
    organs = [Int8Dice("liver", 0.9, 0.9), Int8Dice("spleen", None, None)]
    check_dice(organs, max_dice_loss=0.005)
    assert "int8 is not checked for what no validation case has: spleen" in caplog.text
    caplog.clear()
    check_dice(organs[:1], max_dice_loss=0.005)
    assert not caplog.text


@pytest.mark.slow
def test_the_command_predicts_with_a_version(version, run_dir, tmp_path):
    scan = make_record("case_9", seed=9)
    write_volume(Volume(scan.image, scan.affine), tmp_path / "image.nii.gz")
    masks = {}
    for name, folder in {"int8": version, "float32": run_dir}.items():
        PredictCommand(
            (folder,),
            images=tmp_path / "image.nii.gz",
            output=tmp_path / name,
            accept=CROP,
            backend="openvino",
            flips=("x",),
            coarse_run_dir=folder,
        ).run()
        masks[name] = np.asarray(nib.load(tmp_path / name / "image.nii.gz").dataobj)
    assert len(np.unique(masks["int8"])) > 1
    assert (masks["int8"] == masks["float32"]).mean() > 0.98
    for name, (folder, precision) in {
        "int8": (version, computed_precision.precision_by_openvino("bfloat16")),
        "float32": (run_dir, "float32"),
    }.items():
        made_with = json.loads((tmp_path / name / "image.json").read_text())["made_with"]
        assert made_with["networks_sha256"] == [Run.open(folder).network_digest()]
        assert made_with["precision"] == precision


def test_a_version_in_float32_is_the_network_of_the_run(run_dir, tmp_path):
    ExportCommand((run_dir,), tmp_path / "models", backend="openvino", overlap=(1, 2, 3)).run()
    run = Run.open(tmp_path / "models" / "1")
    assert run.info.overlap == (1, 2, 3)
    windows = make_hu((2, 8, 12, 12, 1)).astype(np.float32)
    found = OpenvinoNetwork.read(run.network_path).predictor()(tf.constant(windows)).numpy()
    expected = tf.nn.softmax(load_run(run_dir)[0](windows, training=False)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    card = json.loads((run.folder / "assets.extra" / "model_card.json").read_text())
    assert card["int8_dice"] == []


def test_a_version_for_openvino_needs_openvino(version, tmp_path):
    message = (
        "version for OpenVINO, which fcnseg predict --backend openvino alone takes: give the run"
    )
    refusals = {
        "predict": lambda: load_runs([version]),
        "export": lambda: export_run(version, tmp_path),
        "export for OpenVINO": lambda: export_run(version, tmp_path, options=INT8),
        "train": lambda: load_pretrained(None, version, read_run(version).config.model),
    }
    for refused in refusals.values():
        with pytest.raises(InputError, match=message):
            refused()
    (network,), info = load_runs([version], backend="openvino")
    with pytest.raises(ModelError, match="needs the backend openvino, got tensorflow"):
        make_segmenter(network, info)


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def flip_bits(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)


NOT_PUBLISHED = "incomplete or corrupt network: .*/network.xml: its SHA-256 is not that in network"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("network.xml", cut, NOT_PUBLISHED),
        ("network.bin", cut, NOT_PUBLISHED),
        ("network.bin", flip_bits, NOT_PUBLISHED),
        ("network.bin", Path.unlink, "incomplete or corrupt network: .*network.bin"),
        ("network.json", Path.unlink, "incomplete version for OpenVINO: .*network.json is missing"),
        ("network.json", cut, "network.json describes no network: "),
    ],
)
def test_a_version_with_a_damaged_file_is_refused(version, tmp_path, name, damage, message):
    broken = tmp_path / "1"
    shutil.copytree(version, broken)
    damage(broken / name)
    with pytest.raises(InputError, match=message):
        load_runs([broken], backend="openvino")


def test_a_file_that_openvino_does_not_read_is_named(tmp_path):
    (tmp_path / "network.xml").write_text("<net>")
    with pytest.raises(InputError, match=f"not a network of OpenVINO: {tmp_path}/network.xml: "):
        OpenvinoNetwork.read(tmp_path / "network.xml")


@pytest.mark.parametrize(
    ("trained", "exported", "expected"),
    [
        ("float32", None, "float32"),
        ("mixed_float16", None, "float32"),
        ("mixed_bfloat16", None, "bfloat16"),
        ("mixed_bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
    ],
)
def test_a_version_predicts_in_its_own_precision(run_dir, tmp_path, trained, exported, expected):
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    manifest = read_run(run_dir)
    config = override(manifest.config, {"training.precision": trained})
    dataclasses.replace(manifest, config=config).write(run)
    options = ExportOptions(backend="openvino", precision=exported)
    version = export_run(run, tmp_path / "models", options=options)
    (network,), _ = load_runs([version], backend="openvino")
    assert network.precision == expected
    assert has_kernels_in_bfloat16(network.graph) == (expected == "bfloat16")
    (other,), _ = load_runs([version], backend="openvino", precision="bfloat16")
    assert other.precision == "bfloat16"
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["settings"]["precision"] == expected


def test_bfloat16_is_recorded_where_the_cpu_computes_in_it(monkeypatch):
    class Core:
        def get_property(self, *_):
            return ["FP32", "INT8"]

    monkeypatch.setattr(computed_precision, "openvino_core", Core)
    assert computed_precision.precision_by_openvino("bfloat16") == "float32"


def test_a_model_has_versions_for_one_runtime(version, run_dir):
    with pytest.raises(InputError, match="must have versions for tensorflow alone, got .*/1 for"):
        export_run(run_dir, version.parent)
    other = version.parent.parent / "other"
    (other / "1").mkdir(parents=True)
    (other / "1" / "saved_model.pb").touch()
    with pytest.raises(InputError, match="must have versions for openvino alone, got .*/1 for"):
        export_run(run_dir, other, options=INT8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision int8 needs the backend openvino, got tensorflow"),
        ({"backend": "openvino", "flips": ("x",)}, "flips does not apply to the backend openvino"),
        ({"backend": "openvino", "max_memory_gib": 8.0}, "max_memory_gib does not apply to the"),
        ({"backend": "openvino", "accept": CROP}, "accept does not apply to the backend openvino"),
        ({"backend": "openvino", "data": "records"}, "data applies to the precision int8 alone"),
        ({"calibration_windows": 0}, "calibration_windows must be 1 or more, got 0"),
        ({"max_dice_loss": -0.1}, "max_dice_loss must be 0 to 1, got -0.1"),
        ({"max_dice_loss": math.nan}, "max_dice_loss must be 0 to 1, got nan"),
    ],
)
def test_options_that_do_not_fit_openvino_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ExportOptions(**options)


def test_other_records_than_those_of_the_run_are_refused(run_dir, dataset, tmp_path):
    options = dataclasses.replace(INT8, data=str(dataset))
    with pytest.raises(InputError, match=f"data must be the records that {run_dir} was trained on"):
        export_run(run_dir, tmp_path, options=options)


def test_records_that_are_elsewhere_now_are_asked_for(run_dir, tmp_path, monkeypatch):
    other = tmp_path / "run"
    shutil.copytree(run_dir, other)
    dataclasses.replace(read_run(run_dir), data="records").write(other)
    monkeypatch.chdir(tmp_path)
    message = f"data must name the records of {other} now: no such folder of records: records"
    with pytest.raises(DatasetError, match=f"^{message}$"):
        export_run(other, tmp_path / "models", options=INT8)


@pytest.mark.parametrize("precision", [None, "int8"])
def test_an_overlap_as_wide_as_a_window_is_refused_before_the_work(run_dir, tmp_path, precision):
    data = "/nowhere" if precision == "int8" else None
    options = dataclasses.replace(INT8, precision=precision, overlap=(1, 2, 99), data=data)
    with pytest.raises(ModelError, match=r"overlap must be smaller than .*, got \(1, 2, 99\) and"):
        export_run(run_dir, tmp_path / "models", options=options)
    assert list((tmp_path / "models").iterdir()) == []


def test_several_runs_are_refused(run_dir, tmp_path):
    with pytest.raises(InputError, match="for OpenVINO must be of one run, got 2"):
        export_run([run_dir, run_dir], tmp_path, options=INT8)


@pytest.mark.parametrize(("package", "extra"), [("openvino", "openvino"), ("nncf", "int8")])
def test_a_missing_package_is_named_before_the_work(monkeypatch, capsys, tmp_path, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    run = write_run(tmp_path / "run")
    argv = f"export --run_dir {run} --model_dir {tmp_path / 'm'} --backend openvino"
    with pytest.raises(SystemExit) as caught:
        run_or_exit(lambda: main([*argv.split(), "--precision", "int8"]))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{package} is not installed: it comes with fcnseg's extra {extra}, " in line
    assert not (tmp_path / "m").exists()
