"""rest.fal.ai and the CDN: tokens, uploads, and the files themselves."""

from __future__ import annotations

import mimetypes
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.answers import Refused, detail
from sandbox.auth import check_key
from sandbox.queue_api import read_json
from sandbox.storage import CDN_URL, PendingUpload, StoredFile, url_path
from sandbox.world import World

WITHOUT_KEY = "Authorization header is required"
# What a wrong signature is told is not on record. [?]
FORBIDDEN = detail(403, "Forbidden")


class RestApi:
    """rest.fal.ai: hands out what the other hosts want to see."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        return [
            Route("/storage/auth/token", self.cdn_token, methods=["POST"]),
            Route("/storage/upload/initiate", self.initiate_upload, methods=["POST"]),
            Route("/storage/upload/initiate-multipart", self.initiate_multipart, methods=["POST"]),
            Route("/tokens/", self.token, methods=["POST"]),
            Route("/tokens/realtime", self.realtime_token, methods=["POST"]),
        ]

    async def cdn_token(self, request: Request) -> Response:
        check_key(request.headers, WITHOUT_KEY)
        _check_storage_type(request)
        token = f"sandbox-cdn-{uuid.uuid4().hex}"
        self._world.cdn_tokens.add(token)
        now = datetime.now(UTC)
        body = {
            "token": token,
            "token_type": "Bearer",
            "base_url": CDN_URL,
            "created_at": now.isoformat(),
            # With an offset, not a Z, which fromisoformat reads since Python 3.11 only.
            "expires_at": (now + timedelta(days=30)).isoformat(),
        }
        return JSONResponse(body)

    async def initiate_upload(self, request: Request) -> Response:
        """The way of fal's JavaScript client: a URL that takes the file without a key."""
        pending = await self._expected_upload(request)
        return JSONResponse({"upload_url": pending.signed_url, "file_url": pending.url})

    async def initiate_multipart(self, request: Request) -> Response:
        """The same for a large file: the parts' numbers are appended to the URL's path."""
        pending = await self._expected_upload(request)
        return JSONResponse({"upload_url": pending.signed_parts_url, "file_url": pending.url})

    async def _expected_upload(self, request: Request) -> PendingUpload:
        check_key(request.headers, WITHOUT_KEY)
        _check_storage_type(request)
        body = await read_json(request)
        name = body.get("file_name", "upload.bin")
        content_type = body.get("content_type", "application/octet-stream")
        return self._world.storage.expect(name, content_type)

    async def token(self, request: Request) -> Response:
        check_key(request.headers, WITHOUT_KEY)
        body = await read_json(request)
        return JSONResponse(self._issue(body, "token_expiration"))

    async def realtime_token(self, request: Request) -> Response:
        check_key(request.headers, WITHOUT_KEY)
        body = await read_json(request)
        return JSONResponse({"token": self._issue(body, "duration")})

    def _issue(self, body: Mapping[str, object], lifetime_field: str) -> str:
        apps = body.get("allowed_apps")
        lifetime = body.get(lifetime_field, 120)
        if not isinstance(apps, list) or not isinstance(lifetime, (int, float)):
            raise Refused(detail(422, "allowed_apps is missing"))
        return self._world.tokens.issue(map(str, apps), lifetime)


def _check_storage_type(request: Request) -> None:
    """fal has turned off all others; fal-client's fallback still asks for gcs."""
    if request.query_params.get("storage_type") != "fal-cdn-v3":
        raise Refused(detail(400, "Invalid storage type"))


class CdnApi:
    """v3.fal.media and v3b.fal.media."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def routes(self) -> list[BaseRoute]:
        parts = "/{path:path}/multipart/{upload_id}"
        return [
            Route("/files/upload", self.upload, methods=["POST"]),
            Route("/files/upload/multipart", self.start_multipart, methods=["POST"]),
            Route(f"{parts}/complete", self.complete_multipart, methods=["POST"]),
            Route(f"{parts}/{{number:int}}", self.upload_part, methods=["PUT"]),
            Route("/files/{path:path}", self.put_signed, methods=["PUT"]),
            Route("/files/{path:path}", self.download, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        self._check_token(request)
        name, content_type = _described(request)
        content = self._world.script.kept(await request.body())
        file = self._world.storage.keep_upload(name, content_type, content)
        return JSONResponse({"access_url": file.url, "uploaded": True})

    async def start_multipart(self, request: Request) -> Response:
        self._check_token(request)
        pending = self._world.storage.expect(*_described(request))
        return JSONResponse({"access_url": pending.url, "uploadId": pending.upload_id})

    async def upload_part(self, request: Request) -> Response:
        pending = self._pending_upload(request)
        number = request.path_params["number"]
        content = await request.body()
        etag = pending.add(number, content, self._world.script.kept(content))
        return JSONResponse({"partNumber": number, "etag": etag}, headers={"ETag": etag})

    async def complete_multipart(self, request: Request) -> Response:
        """Put together the parts that the client lists; it may list them in any order."""
        pending = self._pending_upload(request)
        body = await read_json(request)
        listed = {part["partNumber"]: part["etag"] for part in body["parts"]}
        if listed != pending.etags:
            raise Refused(detail(400, "Parts do not match"))
        self._keep(pending, pending.content)
        del self._world.storage.pending[pending.upload_id]
        return JSONResponse({"access_url": pending.url})

    async def put_signed(self, request: Request) -> Response:
        """Take a whole file from whoever has the URL that was handed out for it."""
        pending = self._expected_at(request)
        if pending is None or not _is_signed(request, pending):
            raise Refused(FORBIDDEN)
        self._keep(pending, self._world.script.kept(await request.body()))
        return Response()

    def _expected_at(self, request: Request) -> PendingUpload | None:
        """The upload that was announced for the path."""
        for pending in self._world.storage.pending.values():
            if url_path(pending.url) == request.scope["path"]:
                return pending
        return None

    def _keep(self, pending: PendingUpload, content: bytes) -> None:
        storage = self._world.storage
        storage.keep_upload(pending.name, pending.content_type, content, pending.url)

    async def download(self, request: Request) -> Response:
        """Whoever knows the URL may read."""
        file = self._world.storage.at_path(request.scope["path"])
        if file is None:
            raise Refused(detail(404, "Not Found"))
        await run_in_threadpool(lambda: file.content)  # drawing takes a moment
        return _served(file, request.headers.get("range", ""))

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self._world.cdn_tokens:
            # What fal says here is not on record. [?]
            raise Refused(detail(401, "Invalid token"))

    def _pending_upload(self, request: Request) -> PendingUpload:
        """The upload of the path, for a caller with a token or with the URL's signature."""
        signed = "signature" in request.query_params
        if not signed:
            self._check_token(request)
        pending = self._world.storage.pending.get(request.path_params["upload_id"])
        if pending is None:
            raise Refused(detail(404, "Upload not found"))
        if signed and not _is_signed(request, pending):
            raise Refused(FORBIDDEN)
        return pending


def _is_signed(request: Request, pending: PendingUpload) -> bool:
    return request.query_params.get("signature") == pending.signature


def _described(request: Request) -> tuple[str, str]:
    """The name and type that the headers give the file."""
    content_type = request.headers.get("content-type", "application/octet-stream")
    extension = mimetypes.guess_extension(content_type) or ".bin"
    name = request.headers.get("x-fal-file-name", f"upload{extension}")
    return name, content_type


def _served(file: StoredFile, asked: str) -> Response:
    """The file, or the one range of its bytes that was asked for."""
    headers = {"Content-Type": file.content_type, "Accept-Ranges": "bytes"}
    total = len(file.content)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if match is None or not any(match.groups()):
        return Response(file.content, headers=headers)
    start, end = _bounds(match[1], match[2], total)
    if start >= end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{total}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
    return Response(file.content[start:end], 206, headers)


def _bounds(first: str, last: str, total: int) -> tuple[int, int]:
    """Where the range begins and ends; without a first byte, it is so many of the last."""
    if not first:
        return max(0, total - int(last)), total
    if not last:
        return int(first), total
    return int(first), min(int(last) + 1, total)
