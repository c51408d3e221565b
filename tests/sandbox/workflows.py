"""Workflows: models in a row under one name, which tell of each step while they run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping

from sandbox.answers import Answer, Json
from sandbox.endpoints import EndpointId
from sandbox.jobs import Models

# The model behind each node. Any workflow may exist, and in the sandbox all are this one. [?]
STEPS = {"sketch": "fal-ai/flux/schnell", "picture": "fal-ai/flux/dev"}


async def workflow_events(
    models: Models, arguments: Mapping[str, Json], seconds: float
) -> AsyncIterator[Json]:
    """Two events for each step, and at the end the output; a step that fails is the last."""
    # What a workflow takes is its author's affair; here it is passed on to every step. [?]
    passed_on = {**arguments, "prompt": str(arguments.get("prompt") or "")}
    output: Json = None
    for node_id, app_id in STEPS.items():
        request_id = str(uuid.uuid4())
        yield {"type": "submit", "node_id": node_id, "app_id": app_id, "request_id": request_id}
        await asyncio.sleep(seconds / len(STEPS))
        answer = await models.run(EndpointId.parse(app_id), passed_on)
        if not answer.ok:
            yield _error(node_id, request_id, answer)
            return
        output = answer.body
        yield {"type": "completion", "node_id": node_id, "output": output}
    yield {"type": "output", "output": output}


def _error(node_id: str, request_id: str, answer: Answer) -> dict[str, Json]:
    return {
        "type": "error",
        "node_id": node_id,
        "message": f"Error while fetching the result of the request {request_id}",
        "error": {"status": answer.status, "body": answer.body},
    }
