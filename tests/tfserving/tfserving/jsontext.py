"""JSON as the real server reads and writes it: RapidJSON's error texts and the layout of its pretty writer."""

import json
import re

import numpy as np

from tfserving.status import invalid

_DECODER = json.JSONDecoder(object_pairs_hook=dict)
_MOST_SHOWN = 256
# Python's complaint → RapidJSON's.
_TEXTS = (
    ("Expecting value", "Invalid value."),
    ("Expecting property name", "Missing a name for object member."),
    ("Illegal trailing comma before end of object", "Missing a name for object member."),
    ("Expecting ':' delimiter", "Missing a colon after a name of object member."),
    ("Unterminated string", "Missing a closing quotation mark in string."),
    ("Invalid control character", "Invalid encoding in string."),
    ("Invalid \\uXXXX escape", "Incorrect hex digit after \\u escape in string."),
    ("Invalid \\escape", "Invalid escape character in string."),
)


def _innermost(text):
    """The bracket that is open at the end of `text`."""
    opened = []
    for found in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if found in "[{":
            opened.append(found)
        elif found in "]}" and opened:
            opened.pop()
    return opened[-1] if opened else ""


def _reason(error, text):
    if error.msg.startswith("Expecting ',' delimiter"):
        what = "or } after an object member" if _innermost(text[: error.pos]) == "{" else "or ] after an array element"
        return f"Missing a comma {what}.", error.pos
    for start, reason in _TEXTS:
        if error.msg.startswith(start):
            return reason, len(text) if start == "Unterminated string" else error.pos
    return "Unspecific syntax error.", error.pos


def parse(body):
    """The object in a request's body; what follows it is not looked at."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", errors="replace").lstrip("\ufeff")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    if start == len(text):
        raise invalid(f"JSON Parse error: The document is empty. at offset: {len(body)}")
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        reason, at = _reason(error, text)
        raise invalid(f"JSON Parse error: {reason} at offset: {len(text[:at].encode())}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: Terminate parsing due to Handler error. at offset: 0") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shown(value)} Is not object")
    return value


def kind(value):
    """The name of a value's JSON type in error messages."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    return {dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def decimal(value):
    """A float as short as it can be without another value, never without a point or exponent."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "-Infinity" if value < 0 else "Infinity"
    single = isinstance(value, np.float32)
    text = f"{float(value):.6g}"
    if (np.float32(text) if single else float(text)) != value:
        text = f"{float(value):.{9 if single else 17}g}"
    return text if "." in text or "e" in text else text + ".0"


class Writer:
    """RapidJSON's PrettyWriter: four spaces, and arrays on one line while `single_line` is set."""

    def __init__(self):
        self.parts, self.single_line, self._levels = [], False, []

    def _prefix(self):
        if not self._levels:
            return
        level = self._levels[-1]
        in_array, count = level
        if in_array:
            if count:
                self.parts.append(", " if self.single_line else ",")
            if not self.single_line:
                self._newline()
        elif count % 2:
            self.parts.append(": ")
        else:
            if count:
                self.parts.append(",")
            self._newline()
        level[1] += 1

    def _newline(self):
        self.parts.append("\n" + "    " * len(self._levels))

    def raw(self, text):
        self._prefix()
        self.parts.append(text)

    def string(self, text):
        self.raw(json.dumps(text, ensure_ascii=False))

    def start(self, is_array):
        self.raw("[" if is_array else "{")
        self._levels.append([is_array, 0])

    def end(self):
        is_array, count = self._levels.pop()
        if count and not (is_array and self.single_line):
            self._newline()
        self.parts.append("]" if is_array else "}")

    def value(self, value):
        """Any value that came out of a JSON document."""
        if isinstance(value, dict):
            self.start(False)
            for name, member in value.items():
                self.string(name)
                self.value(member)
            self.end()
        elif isinstance(value, list):
            self.start(True)
            for element in value:
                self.value(element)
            self.end()
        elif isinstance(value, str):
            self.string(value)
        else:
            self.raw(json.dumps(value))

    def text(self):
        return "".join(self.parts)


def shown(value):
    """A value in an error message; cut where it is long."""
    writer = Writer()
    writer.single_line = True
    writer.value(value)
    return writer.text()[:_MOST_SHOWN]


def error(message):
    """The body of an answer that is an error."""
    writer = Writer()
    writer.value({"error": message})
    return writer.text()
