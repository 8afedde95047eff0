"""Refusals of requests, with their HTTP status. All have one JSON form: {"error": sentence, "code": word}."""

from utils.errors import InputError

CODES = {
    400: "invalid",
    404: "not_found",
    405: "not_allowed",
    409: "stopped",
    413: "too_large",
    415: "wrong_type",
    429: "too_many",
    500: "failed",
    503: "full",
}


class Refused(InputError):
    """A request is not served.

    Args:
        message: Sentence for the visitor.
        status: HTTP status, a key of ``CODES``.
        retry_after: Seconds after which the request can be sent again; None if that is of no use.
    """

    def __init__(self, message: str, status: int, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def problem(error: InputError) -> dict[str, str]:
    """Return the JSON form of an error."""
    status = error.status if isinstance(error, Refused) else 400
    return {"error": str(error), "code": CODES[status]}
