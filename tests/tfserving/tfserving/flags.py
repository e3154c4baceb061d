"""The command line, parsed as TensorFlow's flag library does: `--flag=value`, and a bare `--flag` for a boolean."""

import os
import sys

_CPUS = len(os.sched_getaffinity(0))

# Name: (type, default). Those the test server does not act on are taken all the same.
FLAGS = {
    "port": (int, 8500), "grpc_socket_path": (str, ""), "rest_api_port": (int, 0),
    "rest_api_num_threads": (int, 4 * _CPUS), "rest_api_timeout_in_ms": (int, 30000),
    "rest_api_enable_cors_support": (bool, False), "enable_batching": (bool, False),
    "allow_version_labels_for_unavailable_models": (bool, False), "batching_parameters_file": (str, ""),
    "enable_per_model_batching_parameters": (bool, False), "model_config_file": (str, ""),
    "model_config_file_poll_wait_seconds": (int, 0), "model_name": (str, "default"),
    "model_base_path": (str, ""), "num_load_threads": (int, 0), "num_unload_threads": (int, 0),
    "max_num_load_retries": (int, 5), "load_retry_interval_micros": (int, 60_000_000),
    "file_system_poll_wait_seconds": (int, 1), "flush_filesystem_caches": (bool, True),
    "tensorflow_session_parallelism": (int, 0), "tensorflow_session_config_file": (str, ""),
    "tensorflow_intra_op_parallelism": (int, 0), "tensorflow_inter_op_parallelism": (int, 0),
    "use_alts_credentials": (bool, False), "ssl_config_file": (str, ""), "platform_config_file": (str, ""),
    "per_process_gpu_memory_fraction": (float, 0.0), "saved_model_tags": (str, "serve"),
    "grpc_channel_arguments": (str, ""), "grpc_max_threads": (int, 4 * _CPUS),
    "enable_model_warmup": (bool, True), "num_request_iterations_for_warmup": (int, 0),
    "version": (bool, False), "monitoring_config_file": (str, ""),
    "remove_unused_fields_from_bundle_metagraph": (bool, True), "prefer_tflite_model": (bool, False),
    "num_tflite_pools": (int, _CPUS), "num_tflite_interpreters_per_pool": (int, 1),
    "enable_signature_method_name_check": (bool, False), "xla_cpu_compilation_enabled": (bool, False),
    "xla_gpu_compilation_enabled": (bool, False), "enable_profiler": (bool, True),
    "thread_pool_factory_config_file": (str, ""), "mixed_precision": (str, ""),
    "skip_initialize_tpu": (bool, False), "enable_grpc_healthcheck_service": (bool, False),
    "enable_serialization_as_tensor_content": (bool, False),
}

_NAMES = {int: "int32", str: "string", bool: "bool", float: "float"}


class Options:
    """One attribute for each flag."""


def usage(program):
    lines = [f"usage: {program}", "Flags:"]
    for name, (kind, default) in FLAGS.items():
        shown = f'"{default}"' if kind is str else str(default).lower() if kind is bool else default
        lines.append(f"\t{f'--{name}={shown}':<33}\t{_NAMES[kind]}")
    return "\n".join(lines) + "\n"


def _value(name, kind, text):
    if kind is bool:
        if text in ("", "true", "1"):
            return True
        if text in ("false", "0"):
            return False
        raise ValueError
    if kind is str:
        return text
    return kind(text)


def parse(arguments):
    """Returns the options, the first unknown argument and whether every value could be read."""
    options, unknown, good = Options(), None, True
    for name, (_, default) in FLAGS.items():
        setattr(options, name, default)
    for argument in arguments:
        name, equals, text = argument[2:].partition("=")
        known = FLAGS.get(name) if argument.startswith("--") else None
        if known is None or (not equals and known[0] is not bool):
            unknown = unknown or argument
            continue
        try:
            setattr(options, name, _value(name, known[0], text))
        except ValueError:
            sys.stderr.write(f"Couldn't interpret value ={text} for flag {name}.\n")
            good = False
    return options, unknown, good
