"""The errors of the Daytona loopback server."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from daytona_loopback_sandbox import Sandbox, now


class ApiError(Exception):
    """An answer other than success, in Daytona's JSON error envelope."""

    def __init__(self, status: HTTPStatus, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or status.name

    def envelope(self, request: web.Request) -> dict[str, object]:
        """Return the body of the answer."""
        return {
            "statusCode": int(self.status),
            "message": self.message,
            "code": self.code,
            "source": "DAYTONA_API" if request.path.startswith("/api/") else "DAYTONA_DAEMON",
            "path": request.path,
            "timestamp": now(),
        }


def file_error(sandbox: Sandbox, error: OSError) -> ApiError:
    """Return the answer to a request that failed at a sandbox's file."""
    message = sandbox.paths.to_virtual(str(error).encode()).decode()
    if isinstance(error, FileNotFoundError):
        return ApiError(HTTPStatus.NOT_FOUND, message, "FILE_NOT_FOUND")
    if isinstance(error, PermissionError):
        return ApiError(HTTPStatus.FORBIDDEN, message, "FILE_ACCESS_DENIED")
    return ApiError(HTTPStatus.BAD_REQUEST, message)
