"""The status of an operation: a code and a message, as TensorFlow writes them."""

# Code by name: the numbers are those of gRPC.
CODES = {
    "OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9,
    "ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14,
    "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}
NAMES = {number: name for name, number in CODES.items()}

# The HTTP status that REST answers with.
HTTP = {
    "OK": 200, "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500,
    "UNAVAILABLE": 503, "DATA_LOSS": 500, "UNAUTHENTICATED": 401,
}


class Status(Exception):
    """An error with a code; raised wherever the real server returns a Status that is not OK."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self):
        return f"{self.code}: {self.message}"

    def to_proto(self, proto):
        """Fills a tensorflow.serving.StatusProto."""
        proto.error_code = CODES[self.code]
        proto.error_message = self.message
        return proto


def invalid(message):
    return Status("INVALID_ARGUMENT", message)


def not_found(message):
    return Status("NOT_FOUND", message)


def failed_precondition(message):
    return Status("FAILED_PRECONDITION", message)


def of_exception(error):
    """The status of an exception of TensorFlow's Python session, whose errors carry the same codes."""
    if isinstance(error, Status):
        return error
    code = getattr(error, "error_code", None)
    message = getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        return Status(NAMES.get(code, "UNKNOWN"), message)
    return Status("INTERNAL", str(error))
