"""Log lines on standard error, in the form TensorFlow writes them."""

import datetime
import sys
import threading

_lock = threading.Lock()


def _write(level, source, message):
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    with _lock:
        sys.stderr.write(f"{now}: {level} {source}] {message}\n")
        sys.stderr.flush()


def info(source, message):
    _write("I", source, message)


def warning(source, message):
    _write("W", source, message)


def error(source, message):
    _write("E", source, message)
