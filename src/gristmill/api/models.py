"""``/v1/models``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.exchange import host, reply
from gristmill.engines.errors import unknown_model
from gristmill.inference.endpoints import offered
from gristmill.wire.models import Model, ModelList, ModelOffer

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models the engine serves", openapi_extra=described(answer=ModelList))
async def list_models(request: Request) -> Response:
    return reply(ModelList([_present(request, name) for name in host(request).dispatcher.models]))


# A model's name may hold slashes, as hub names do.
@router.get("/{name:path}", summary="Retrieve a model", openapi_extra=described(answer=Model))
async def retrieve(request: Request, name: str) -> Response:
    served = host(request).dispatcher.models
    if name not in served:
        raise unknown_model(name, tuple(served))
    return reply(_present(request, name))


def _present(request: Request, name: str) -> Model:
    dispatcher = host(request).dispatcher
    computing = dispatcher.engine.capabilities.computing
    return Model(
        id=name,
        created=request.app.state.started_at,
        max_model_len=dispatcher.engine.capabilities.context_length,
        root=dispatcher.models[name],
        gristmill=ModelOffer(
            list(offered(dispatcher.endpoints)),
            None if computing is None else computing.on,
            None if computing is None else computing.advice,
        ),
    )
