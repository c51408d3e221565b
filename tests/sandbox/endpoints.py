"""Endpoint ids: `owner/app`, and what may follow."""

from __future__ import annotations

from typing import NamedTuple

NAMESPACES = ("workflows", "comfy")


class EndpointId(NamedTuple):
    """`fal-ai/flux/dev` is the app `fal-ai/flux` and its path `/dev`."""

    app: str
    path: str

    @classmethod
    def parse(cls, text: str) -> EndpointId:
        segments = text.strip("/").split("/")
        size = 3 if segments[0] in NAMESPACES else 2
        path = "/".join(segments[size:])
        return cls("/".join(segments[:size]), f"/{path}" if path else "")

    @property
    def alias(self) -> str:
        """The segment by which fal calls an app in its errors and tokens."""
        return self.app.split("/")[-1]

    @property
    def namespaced(self) -> bool:
        return self.app.split("/")[0] in NAMESPACES

    @property
    def is_workflow(self) -> bool:
        return self.app.split("/")[0] == "workflows"

    def __str__(self) -> str:
        return self.app + self.path
