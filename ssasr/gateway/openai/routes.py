"""The addresses under ``/v1`` that OpenAI's clients ask for, beside the WebSocket."""

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ssasr.gateway.auth.access import Access
from ssasr.gateway.openai.errors import ApiError
from ssasr.gateway.openai.files import FileEndpoint, Jobs
from ssasr.gateway.openai.models import ModelNames

OWNER = "ssasr"


def openai_routes(jobs: Jobs, access: Access, names: ModelNames, most: int) -> list[BaseRoute]:
    """``most``: bytes of a file."""
    models = Models(access, names)
    return [
        Route("/v1/audio/transcriptions", FileEndpoint(jobs, names, most), methods=["POST"]),
        Route(
            "/v1/audio/translations",
            FileEndpoint(jobs, names, most, translation=True),
            methods=["POST"],
        ),
        Route("/v1/models", models.every),
        Route("/v1/models/{name:path}", models.one),
    ]


@frozen
class Models:
    """What whoever has a key may ask for."""

    access: Access
    names: ModelNames

    async def every(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        listed = [_described(name) for name in self.names.served]
        return JSONResponse({"object": "list", "data": listed})

    async def one(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        name = str(request.path_params["name"])
        if name not in self.names.served:
            text = f"The model {name!r} does not exist or is not served here"
            return ApiError(404, "model_not_found", text, "model").response()
        return JSONResponse(_described(name))

    def _refused(self, request: Request) -> Response | None:
        if self.access.identify(request.headers.get("authorization")) is not None:
            return None
        return ApiError(401, "invalid_api_key", "Unauthorized: Invalid API key").response()


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}
