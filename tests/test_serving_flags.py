"""Flags of the real server: taken as it takes them, ignored with a warning, or refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fcnseg.errors import InputError
from serving.flags import FLAGS, HONOURED, IGNORED, REFUSED, for_command
from serving.options import ServerOptions
from serving.server import ServerCommand, serve

# As `tensorflow_model_server --help` of 2.19 lists them.
REAL = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models
batching_parameters_file enable_per_model_batching_parameters model_config_file
model_config_file_poll_wait_seconds model_name model_base_path num_load_threads num_unload_threads
max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_session_config_file
tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism use_alts_credentials
ssl_config_file platform_config_file per_process_gpu_memory_fraction saved_model_tags
grpc_channel_arguments grpc_max_threads enable_model_warmup num_request_iterations_for_warmup
version monitoring_config_file remove_unused_fields_from_bundle_metagraph prefer_tflite_model
num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler
thread_pool_factory_config_file mixed_precision skip_initialize_tpu
enable_grpc_healthcheck_service enable_serialization_as_tensor_content
""".split()


def test_all_flags_of_the_real_server_are_in_the_table():
    assert list(FLAGS) == REAL
    assert {flag.use for flag in FLAGS.values()} == {HONOURED, IGNORED, REFUSED}
    for name, flag in FLAGS.items():
        assert bool(flag.reason) == (flag.use != HONOURED), name


def test_flags_that_are_honoured_are_those_of_the_command():
    fields = {field.name: field for field in dataclasses.fields(ServerCommand)}
    honoured = {name for name, flag in FLAGS.items() if flag.use == HONOURED}
    assert honoured <= fields.keys()
    for name in honoured:
        assert FLAGS[name].is_bool == isinstance(fields[name].default, bool), name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--port=85"], ["--port", "85"]),
        (["--port", "85"], ["--port", "85"]),
        (["--port=-1"], ["--port", "-1"]),
        (["--port", "-1"], ["--port", "-1"]),
        (["--enable_model_warmup"], ["--enable_model_warmup", "True"]),
        (["--enable_model_warmup=true"], ["--enable_model_warmup", "True"]),
        (["--enable_model_warmup=False"], ["--enable_model_warmup", "False"]),
        (["--enable_model_warmup=0"], ["--enable_model_warmup", "False"]),
        (["--enable_cors_support"], ["--rest_api_enable_cors_support", "True"]),
        (["--model_name=a=b"], ["--model_name", "a=b"]),
        (["--model_name="], ["--model_name", ""]),
        (["--model_name"], ["--model_name"]),  # the command says what is wrong
        (["--saved_model_tags=serve", "--host", "x"], ["--host", "x"]),
        (["--xla_gpu_compilation_enabled=false"], []),
        (["--ssl_config_file="], []),
        (["--model_config_file=", "--grpc_socket_path=", "--monitoring_config_file="], []),
        (["--help"], ["--help"]),
    ],
)
def test_flag_is_taken(given, expected):
    assert for_command(given, warn=pytest.fail) == expected


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.use == IGNORED])
def test_flag_is_ignored_with_a_warning(name):
    warnings = []
    given = f"--{name}=true" if FLAGS[name].is_bool else f"--{name}=4"
    assert for_command([given, "--port=1"], warn=warnings.append) == ["--port", "1"]
    assert warnings == [f"--{name} is ignored: {FLAGS[name].reason}"]


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.use == REFUSED])
def test_flag_is_refused_with_its_reason(name):
    value = "true" if FLAGS[name].is_bool else "a"
    message = f"{name} must be left out, got {value}: {FLAGS[name].reason}"
    with pytest.raises(InputError, match=re.escape(message)):
        for_command([f"--{name}={value}"])


def test_flag_of_true_or_false_takes_no_other_value():
    with pytest.raises(InputError, match="enable_batching must be true or false, got maybe"):
        for_command(["--enable_batching=maybe"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "model_base_path or model_config_file must be given"),
        (["--model_base_path=x", "--ssl_config_file=y"], "ssl_config_file must be left out"),
        (["--model_config_file=absent"], "model_config_file must be a ModelServerConfig"),
        (["--model_base_path=x", "--port=7", "--rest_api_port=7"], "must not be port, got 7"),
        (["--model_base_path=x", "--port=0", "--rest_api_port=0"], "must be given, got none"),
        (["--model_base_path=x", "--max_running_calls=0"], "max_running_calls must be at least 1"),
        (["--model_base_path=x", "--idle_seconds=0"], "idle_seconds must be positive, got 0"),
        (["--model_base_path=x", "--idle_seconds=nan"], "idle_seconds must be positive, got nan"),
        (
            ["--model_base_path=x", "--grace_seconds=nan"],
            "grace_seconds must be a number from 0 up, got nan",
        ),
        (
            ["--model_base_path=x", "--port=65536"],
            "port must be 0 to 65535, or -1 for a free one, got 65536",
        ),
        (
            ["--model_base_path=x", "--rest_api_port=-7"],
            "rest_api_port must be 0 to 65535, or -1 for a free one, got -7",
        ),
        (
            ["--model_base_path=x", "--file_system_poll_wait_seconds=nan"],
            "file_system_poll_wait_seconds must be a number, got nan",
        ),
        (["--model_base_path=x", "--grace_seconds=-1"], "must be a number from 0 up, got -1"),
        (["--model_base_path=x", "--grace_seconds=inf"], "must be a number from 0 up, got inf"),
        (
            ["--model_base_path=x", "--rest_api_timeout_in_ms=2147483648"],
            "rest_api_timeout_in_ms must be an integer of 32 bits, got 2147483648",
        ),
        (  # before it waits for a model
            ["--model_base_path=.", "--monitoring_config_file=absent"],
            "monitoring_config_file must be a MonitoringConfig in text form, got absent",
        ),
        (["--model_base_path=x", "--grpc_channel_arguments=a"], "must be key=value, got a"),
    ],
)
def test_mistake_ends_the_command_with_one_line(flags, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        serve([*flags, *([] if "port" in str(flags) else ["--rest_api_port=-1"])])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_channel_arguments_are_numbers_where_they_look_so(tmp_path):
    options = ServerOptions(tmp_path, grpc_channel_arguments="grpc.a_ms=-20,grpc.b=x=y")
    assert options.channel_arguments() == [("grpc.a_ms", -20), ("grpc.b", "x=y")]


def test_versions_are_printed(capsys):
    serve(["--version"])
    assert "TensorFlow Library: 2." in capsys.readouterr().out


def test_page_lists_the_flags():
    page = (Path(__file__).parent.parent / "docs/local_server.md").read_text()
    uses = {HONOURED: "honoured", IGNORED: "ignored with a warning", REFUSED: "refused"}
    rows = [
        f"| `{name}` | {uses[flag.use]}{f': {flag.reason}' if flag.reason else ''} |"
        for name, flag in FLAGS.items()
    ]
    assert "\n".join(rows) in page
    limits = dict(re.findall(r"\| `--(\w+)` \| (\d+) \|", page))
    defaults = {field.name: field.default for field in dataclasses.fields(ServerOptions)}
    assert len(limits) == 6
    assert {name: float(defaults[name]) for name in limits} == {
        name: float(value) for name, value in limits.items()
    }
