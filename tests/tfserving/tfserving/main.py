"""Starts the server as tensorflow_model_server does: load everything, then open the ports, then serve for ever."""

import os
import signal
import sys
import threading

from tfserving import flags


def _fail(status):
    sys.stdout.write(f"Failed to start server. Error: {status}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit, which would wait for threads that are loading models.
    os._exit(255)


def _session_config(options):
    from tfserving.protos import ConfigProto, read_text
    from tfserving.status import invalid

    config = ConfigProto()
    if options.tensorflow_session_config_file:
        read_text(options.tensorflow_session_config_file, config)
    intra, inter, both = (options.tensorflow_intra_op_parallelism, options.tensorflow_inter_op_parallelism,
                          options.tensorflow_session_parallelism)
    if intra > 0 and inter > 0 and both > 0:
        raise invalid("Either configure server_options.tensorflow_session_parallelism or "
                      "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
                      "separately. You cannot configure all.")
    if intra > 0 or inter > 0:
        config.intra_op_parallelism_threads, config.inter_op_parallelism_threads = intra, inter
    elif both:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = both
    return config


def _scheduler(options):
    from tfserving import batching
    from tfserving.protos import BatchingParameters, read_text
    from tfserving.status import invalid

    if not options.enable_batching:
        if options.batching_parameters_file:
            raise invalid("server_options.batching_parameters_file is set without setting "
                          "server_options.enable_batching to true.")
        return None
    parameters = BatchingParameters()
    if options.batching_parameters_file:
        read_text(options.batching_parameters_file, parameters)
    return batching.Scheduler(batching.Parameters(parameters, len(os.sched_getaffinity(0))))


def _first_config(options):
    from tfserving import log
    from tfserving.protos import ModelServerConfig, read_text

    if options.model_config_file:
        return read_text(options.model_config_file, ModelServerConfig())
    log.info("tensorflow_serving/model_servers/server.cc:77", "Building single TensorFlow model file config:  model_name: "
             f"{options.model_name} model_base_path: {options.model_base_path}")
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=options.model_name, base_path=options.model_base_path, model_platform="tensorflow")
    return config


def _check(options):
    from tfserving.status import invalid

    if not options.port and not options.grpc_socket_path:
        raise invalid("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
    if options.use_alts_credentials:
        raise invalid("the test model server has no ALTS credentials")
    if not options.model_base_path and not options.model_config_file:
        raise invalid("Both server_options.model_base_path and server_options.model_config_file are empty!")


def _monitoring(options):
    from tfserving.protos import MonitoringConfig, read_text

    config = MonitoringConfig()
    if options.monitoring_config_file and options.rest_api_port:
        read_text(options.monitoring_config_file, config)
    return config


def _start_rest(options, core, inference):
    from tfserving import log, rest

    source = "tensorflow_serving/model_servers/server.cc"
    if not options.rest_api_port:
        return
    if options.rest_api_port == options.port:
        log.error(f"{source}:452", "server_options.http_port cannot be same as grpc_port. Please use a different port for "
                  "HTTP/REST API. Skipped exporting HTTP/REST API.")
        return
    prometheus = _monitoring(options).prometheus_config
    if rest.serve(options, rest.Api(core, inference), prometheus):
        log.info(f"{source}:444", f"Exporting HTTP/REST API at:localhost:{options.rest_api_port} ...")
    else:
        log.error(f"{source}:447", f"Failed to start HTTP Server at localhost:{options.rest_api_port}")


def _serve(options):
    _check(options)
    # Read before TensorFlow is imported where it can be, and in the real server's order.
    config = _first_config(options)
    scheduler = _scheduler(options)
    session_config = _session_config(options)

    from tfserving import rpc, saved_model, warmup
    from tfserving.core import Core
    from tfserving.inference import Inference

    tags = options.saved_model_tags.split(",")

    def load(name, version, path):
        model = saved_model.SavedModel(name, version, path, tags, session_config, options.rest_api_timeout_in_ms)
        if options.enable_model_warmup:
            warmup.run(Inference(None, None, options), model, options)
        return model

    core = Core(load, options)
    inference = Inference(core, scheduler, options)
    core.reload(config)
    if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        arguments = (options.model_config_file, options.model_config_file_poll_wait_seconds)
        threading.Thread(target=core.poll_config, args=arguments, daemon=True).start()
    server = rpc.serve(options, core, inference)
    _start_rest(options, core, inference)
    server.wait_for_termination()


def main():
    # The real server dies of both signals at once, requests in flight or not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options, unknown, good = flags.parse(sys.argv[1:])
    if not good:
        sys.stdout.write(flags.usage(sys.argv[0]))
        sys.stdout.flush()
        os._exit(255)
    if options.version:
        sys.stdout.write("TensorFlow ModelServer: 2.21.0-test\nTensorFlow Library: 2.21.0\n")
        return
    if unknown:
        sys.stdout.write(f"unknown argument: {unknown}\n{flags.usage(sys.argv[0])}")
        sys.stdout.flush()
    from tfserving.status import Status

    try:
        _serve(options)
    except Status as status:
        _fail(status)
