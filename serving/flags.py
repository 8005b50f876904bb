"""The flags of TensorFlow Serving, and what the local server does with each."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from fcnseg.errors import InputError

logger = logging.getLogger(__name__)

HONOURED, IGNORED, REFUSED = "honoured", "ignored", "refused"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of the real server.

    Attributes:
        use: `honoured` (a field of the command), `ignored` with a warning, or `refused`.
        reason: Why it is not honoured.
        is_bool: The flag alone means true.
        harmless: Values that change nothing, so that they are taken without a word.
    """

    use: str = HONOURED
    reason: str = ""
    is_bool: bool = False
    harmless: tuple[str, ...] = ()


def _honoured(*, is_bool: bool = False) -> Flag:
    return Flag(is_bool=is_bool)


def _ignored(reason: str, *, is_bool: bool = False) -> Flag:
    return Flag(IGNORED, reason, is_bool=is_bool)


def _refused(reason: str, *harmless: str, is_bool: bool = False) -> Flag:
    return Flag(REFUSED, reason, is_bool=is_bool, harmless=("", *harmless))


_THREADS = "calls at once are those of --max_running_calls"
_BATCHING = "calls run one by one, which gives the same answers"
_POOLS = "TensorFlow chooses the number of threads"
_LITE = "TensorFlow Lite models are not served"
_CREDENTIALS = "connections are not encrypted: put a proxy such as nginx before the server"

FLAGS: dict[str, Flag] = {
    "port": _honoured(),
    "grpc_socket_path": _honoured(),
    "rest_api_port": _honoured(),
    "rest_api_num_threads": _ignored(_THREADS),
    "rest_api_timeout_in_ms": _honoured(),
    "rest_api_enable_cors_support": _honoured(is_bool=True),
    "enable_batching": _ignored(_BATCHING, is_bool=True),
    "allow_version_labels_for_unavailable_models": _honoured(is_bool=True),
    "batching_parameters_file": _ignored(_BATCHING),
    "enable_per_model_batching_parameters": _ignored(_BATCHING, is_bool=True),
    "model_config_file": _honoured(),
    "model_config_file_poll_wait_seconds": _honoured(),
    "model_name": _honoured(),
    "model_base_path": _honoured(),
    "num_load_threads": _ignored("versions are loaded one after the other, beside the calls"),
    "num_unload_threads": _ignored("the last call on a version releases it"),
    "max_num_load_retries": _honoured(),
    "load_retry_interval_micros": _honoured(),
    "file_system_poll_wait_seconds": _honoured(),
    "flush_filesystem_caches": _ignored("the system drops its caches itself", is_bool=True),
    "tensorflow_session_parallelism": _ignored(_POOLS),
    "tensorflow_session_config_file": _refused("sessions have TensorFlow's own settings"),
    "tensorflow_intra_op_parallelism": _ignored(_POOLS),
    "tensorflow_inter_op_parallelism": _ignored(_POOLS),
    "use_alts_credentials": _refused(_CREDENTIALS, "false", is_bool=True),
    "ssl_config_file": _refused(_CREDENTIALS),
    "platform_config_file": _refused("the only platform is tensorflow, with its own settings"),
    "per_process_gpu_memory_fraction": _ignored("TensorFlow takes GPU memory as it needs it"),
    "saved_model_tags": _refused("models are loaded by the tag serve", "serve"),
    "grpc_channel_arguments": _honoured(),
    "grpc_max_threads": _ignored(_THREADS),
    "enable_model_warmup": _honoured(is_bool=True),
    "num_request_iterations_for_warmup": _honoured(),
    "version": _honoured(is_bool=True),
    "monitoring_config_file": _honoured(),
    "remove_unused_fields_from_bundle_metagraph": _ignored("the graph is kept", is_bool=True),
    "prefer_tflite_model": _refused(_LITE, "false", is_bool=True),
    "num_tflite_pools": _ignored(_LITE),
    "num_tflite_interpreters_per_pool": _ignored(_LITE),
    "enable_signature_method_name_check": _honoured(is_bool=True),
    "xla_cpu_compilation_enabled": _refused("models must run without XLA", "false", is_bool=True),
    "xla_gpu_compilation_enabled": _refused("models must run without XLA", "false", is_bool=True),
    "enable_profiler": _ignored("there is no profiler service", is_bool=True),
    "thread_pool_factory_config_file": _refused("sessions have TensorFlow's own threads"),
    "mixed_precision": _refused("the precision is chosen when a model is exported"),
    "skip_initialize_tpu": _ignored("TPUs are not used", is_bool=True),
    "enable_grpc_healthcheck_service": _honoured(is_bool=True),
    "enable_serialization_as_tensor_content": _honoured(is_bool=True),
}

# Flags that an empty value leaves as they are by default.
_TEXTS = {"grpc_socket_path", "model_config_file", "model_base_path", "monitoring_config_file"}
_TEXTS |= {"grpc_channel_arguments"}
# Names under which some versions of the real server have a flag.
_ALIASES = {"enable_cors_support": "rest_api_enable_cors_support"}
_TRUE, _FALSE = ("true", "1", ""), ("false", "0")


def for_command(argv: Sequence[str], *, warn: Callable[[str], None] = logger.warning) -> list[str]:
    """Turns arguments of the real server into those of the command.

    `--flag`, `--flag=true`, `--flag=value` and, unlike the real server, `--flag value` are taken.

    Args:
        argv: Arguments.
        warn: Is called with each flag that is ignored.

    Returns:
        Arguments without flags that are ignored, a flag of true or false in the command's form.

    Raises:
        InputError: If a flag is refused, or its value is neither true nor false.
    """
    kept: list[str] = []
    left = list(argv)
    while left:
        argument = left.pop(0)
        name, has_value, value = argument.removeprefix("--").partition("=")
        name = _ALIASES.get(name, name)
        flag = FLAGS.get(name) if argument.startswith("--") else None
        if flag is None:
            kept.append(argument)
            continue
        if not has_value and not flag.is_bool and left and not left[0].startswith("--"):
            value = left.pop(0)
            has_value = "="
        if has_value and not value and name in _TEXTS:
            continue  # its default
        value = _as_bool(name, value) if flag.is_bool else value
        kept += _taken(name, flag, value, has_value=bool(has_value), warn=warn)
    return kept


def _as_bool(name: str, value: str) -> str:
    if value.lower() in _TRUE:
        return "true"
    if value.lower() in _FALSE:
        return "false"
    raise InputError(f"{name} must be true or false, got {value}")


def _taken(
    name: str, flag: Flag, value: str, *, has_value: bool, warn: Callable[[str], None]
) -> list[str]:
    if flag.use == REFUSED and value not in flag.harmless:
        raise InputError(f"{name} must be left out, got {value}: {flag.reason}")
    if flag.use == IGNORED:
        warn(f"--{name} is ignored: {flag.reason}")
    if flag.use != HONOURED:
        return []
    if flag.is_bool:
        return [f"--{name}", "True" if value == "true" else "False"]
    return [f"--{name}", value] if has_value else [f"--{name}"]
