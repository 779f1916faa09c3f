"""Errors as OpenAI's clients read them: a status, and an object under ``error``."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse, Response

from ssasr.errors import EngineBusy, EngineError, SsasrError
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault

RETRY_SECONDS = 5
"""What ``Retry-After`` says: a place comes free when a session or a file ends."""
TYPES: Mapping[int, str] = MappingProxyType({401: "authentication_error", 429: "rate_limit_error"})
"""Other statuses are the client's fault (``invalid_request_error``) or ours (``server_error``)."""


class ApiError(SsasrError):
    """What a request is answered with instead."""

    def __init__(self, status: int, code: str, text: str, param: str | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.param = status, code, text, param

    def body(self) -> dict[str, object]:
        kind = TYPES.get(self.status) or (
            "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {
                "message": self.text, "type": kind, "param": self.param, "code": self.code
            }
        }  # fmt: skip

    def response(self) -> Response:
        later = self.status in (429, 503)
        headers = {"retry-after": str(RETRY_SECONDS)} if later else None
        return JSONResponse(self.body(), self.status, headers)


def invalid(param: str, text: str) -> ApiError:
    return ApiError(400, "invalid_value", text, param)


def over_capacity() -> ApiError:
    text = "All places are taken; try again later"
    return ApiError(429, "rate_limit_exceeded", text)


def going_down() -> ApiError:
    return ApiError(503, "server_shutting_down", "The server is shutting down")


def of_fault(fault: ClientFault) -> ApiError:
    """What a session would have been closed with."""
    if fault.code is CloseCode.UNAUTHORIZED:
        return ApiError(401, "invalid_api_key", fault.text)
    if fault.code is CloseCode.TOO_MANY_SESSIONS:
        return over_capacity()
    if fault.code is CloseCode.GOING_AWAY:
        return going_down()
    if fault.code is CloseCode.TRY_AGAIN_LATER:
        return ApiError(503, "overloaded", fault.text)
    return ApiError(400, "invalid_value", fault.text)


def of_engine(error: EngineError) -> ApiError:
    if isinstance(error, EngineBusy):
        return over_capacity()
    return ApiError(503, "engine_unavailable", "No engine of this model can be reached")
