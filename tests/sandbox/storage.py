"""The files on fal's CDN: uploads as they came, results drawn when somebody fetches them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote, unquote, urlsplit

CDN_URL = "https://v3b.fal.media"


@dataclass
class StoredFile:
    """A file with a URL; its content is made at the first look."""

    name: str
    content_type: str
    url: str
    make: Callable[[], bytes]

    @cached_property
    def content(self) -> bytes:
        return self.make()


def _secret() -> str:
    return uuid.uuid4().hex


@dataclass
class PendingUpload:
    """A file that is still to come, at once or in parts. Its signature stands for a key."""

    name: str
    content_type: str
    url: str
    upload_id: str = field(default_factory=_secret)
    signature: str = field(default_factory=_secret)
    parts: dict[int, bytes] = field(default_factory=dict)
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def signed_url(self) -> str:
        return f"{self.url}?signature={self.signature}"

    @property
    def signed_parts_url(self) -> str:
        # Where fal has the parts sent is not on record; clients take any URL. [?]
        return f"{self.url}/multipart/{self.upload_id}?signature={self.signature}"

    def add(self, number: int, content: bytes, kept: bytes) -> str:
        """Take a part, of which only `kept` is remembered; returns its etag."""
        digest = hashlib.md5(content).hexdigest()
        etag = f'"{digest}"'
        self.parts[number] = kept
        self.etags[number] = etag
        return etag

    @property
    def content(self) -> bytes:
        return b"".join(self.parts[number] for number in sorted(self.parts))


class Storage:
    """Files by the path of their URL. They outlive a reset, as URLs outlive requests."""

    def __init__(self) -> None:
        self.files: dict[str, StoredFile] = {}
        self.uploads: list[StoredFile] = []
        self.pending: dict[str, PendingUpload] = {}

    def expect(self, name: str, content_type: str) -> PendingUpload:
        """Make room for an upload that somebody announces."""
        pending = PendingUpload(name, content_type, self.reserve_url(name))
        self.pending[pending.upload_id] = pending
        return pending

    def reserve_url(self, name: str) -> str:
        """A URL like fal's: a folder of eight hexadecimal digits, an id before the name."""
        folder = uuid.uuid4().hex[:8]
        file_id = uuid.uuid4().hex[:20]
        return f"{CDN_URL}/files/b/{folder}/{file_id}_{quote(name)}"

    def keep(
        self, name: str, content_type: str, make: Callable[[], bytes], url: str | None = None
    ) -> StoredFile:
        url = url or self.reserve_url(name)
        file = StoredFile(url.rpartition("/")[2], content_type, url, make)
        self.files[url_path(url)] = file
        return file

    def keep_upload(
        self, name: str, content_type: str, content: bytes, url: str | None = None
    ) -> StoredFile:
        file = self.keep(name, content_type, lambda: content, url)
        self.uploads.append(StoredFile(name, content_type, file.url, lambda: content))
        return file

    def at_path(self, path: str) -> StoredFile | None:
        return self.files.get(path)

    def read(self, url: object) -> bytes | None:
        """What a URL holds, if it is a data URI or a file of ours."""
        if not isinstance(url, str):
            return None
        if url.startswith("data:"):
            return _data_uri_content(url)
        if not url.startswith("https://v3"):
            return None
        file = self.at_path(url_path(url))
        return file.content if file else None


def data_uri(content: bytes, content_type: str) -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def url_path(url: str) -> str:
    """The path of a URL, as it reads once it has arrived."""
    return unquote(urlsplit(url).path)


def _data_uri_content(uri: str) -> bytes | None:
    try:
        return base64.b64decode(uri.partition(",")[2])
    except binascii.Error:
        return None
