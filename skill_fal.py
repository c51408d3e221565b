#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "fal-client>=1.0.3,<1.1",
#     "httpx>=0.27,<1",
#     "Pillow>=10.3",
# ]
# ///
"""Images and videos from any fal.ai model: generate, follow, fetch, upload, look up.

stdout carries data only: one JSON document, or JSON Lines from stream-*, batch-* and
realtime, or MEDIA:/path lines with --media, or plain lines from the commands that have --json.
stderr carries progress and notes. A failure leaves one last line there: {"error": {"type",
"message", "model"?, "request_id"?, "status"?, "retryable", "hint"?, "details"?}}, or plain
`error:` and `hint:` lines on a terminal.

Exit status: 0 done · 1 fal refused, or the command failed · 2 bad usage, nothing was sent ·
3 no usable key, or a locked account · 4 fal not reached, or the connection broke ·
5 a time limit ran out · 130 interrupted · 141 the reader of stdout went away ·
143 terminated.

The key is read from the environment: FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET.

"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import importlib
import operator
import os
import sys
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from types import SimpleNamespace

__version__ = "1.0.0"


class Lazy:
    """A module imported at its first use: what needs no network starts as fast as Python."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


TYPE_CHECKING = False  # as typing has it, whose import would take 2 ms of a start's 30
if TYPE_CHECKING:
    import argparse
    import asyncio
    import base64
    import difflib
    import email.utils as email_utils
    import fcntl
    import gc
    import hashlib
    import ipaddress
    import json
    import logging
    import math
    import mimetypes
    import random
    import re
    import select
    import shlex
    import shutil
    import signal
    import tempfile
    import traceback
    import urllib.parse as urls
    import warnings
    from typing import IO, Any, NoReturn, TypeGuard, TypeVar

    import fal_client
    import httpx
    import websockets
    from PIL import Image, ImageOps

    Arguments = Mapping[str, Any]
    Fields = dict[str, Any]
    Operation = TypeVar("Operation", bound=Callable[..., Any])
else:
    _names = """
        argparse asyncio base64 difflib fal_client fcntl gc hashlib httpx ipaddress json logging
        math mimetypes random re select shlex shutil signal tempfile traceback warnings
        websockets
    """
    globals().update((name, Lazy(name)) for name in _names.split())
    email_utils, urls = Lazy("email.utils"), Lazy("urllib.parse")
    Image, ImageOps = Lazy("PIL.Image"), Lazy("PIL.ImageOps")


# Vocabulary


class Exit:
    """What the exit status of the command means; plain numbers, as importing enum takes 2 ms."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CREDENTIALS = 3
    NETWORK = 4
    TIMEOUT = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class Failure(Exception):
    """Everything that a user, the network or fal can cause, ready to be shown.

    `type` is a short name, fal's own where fal gives one; `status` is an HTTP status;
    `retryable` says whether the same command may succeed if it is repeated as it is;
    `details` holds {"field", "message", "type"} for each thing that went wrong; `unprinted`
    is what models had answered already.
    """

    model: str | None = None
    request_id: str | None = None
    unprinted: Sequence[Any] = ()
    told = False  # whether `retryable` is fal's word and not ours
    doubt = False  # whether something may be running that nobody has the request id of

    def __init__(
        self,
        type: str,
        message: str,
        exit: int = Exit.FAILED,
        retryable: bool = False,
        *,
        status: int | None = None,
        hint: str | None = None,
        details: list[Fields] | None = None,
    ) -> None:
        super().__init__(message)
        self.type, self.message, self.exit, self.retryable = type, message, exit, retryable
        self.status, self.hint, self.details = status, hint, details

    def about(self, job: Job) -> Failure:
        """Say which job failed, as far as that is not known yet."""
        self.model = self.model or job.model
        self.request_id = self.request_id or job.request_id
        self.unprinted = self.unprinted or job.unprinted
        self.hint = self.hint or (job.hint if self.exit in GIVEN_UP else None)
        self.retryable = self.retryable and (self.told or not job.paid)
        self.doubt = self.doubt or (job.state == "sent" and not self.request_id)
        return self

    def as_dict(self) -> Fields:
        return present(
            type=self.type,
            message=self.message,
            model=self.model,
            request_id=self.request_id,
            status=self.status,
            retryable=self.retryable,
            hint=self.hint or advice(self),
            details=self.details,
        )


class Job:
    """A request to fal: how far it got, and who is told.

    `state` is new, sent, refused (fal has surely not taken it), accepted (by fal, and billed),
    cancelled or done; what is sent and nothing more is in doubt. `failed` tells that fal called
    an accepted job a failure. A `watched` job is cancelled at fal when it is given up;
    `deadline` is when the time runs out, in the event loop's seconds.
    """

    state = "new"
    failed = False
    watched = False
    deadline: float | None = None
    index: int | None = None  # in its batch
    arguments: Any = None  # as they were sent
    response: Any = None
    unprinted: Sequence[Any] = ()  # answers that are paid for
    saving: Saving | None = None
    saved: Any = None  # where an earlier run saved which files
    hint: str | None = None  # for those who give it up
    line: Mapping[str, Any] = {}  # what a batch prints of it in any case
    lost: Sequence[str] = ()  # request ids of what a batch could not print

    def __init__(
        self,
        model: str | None = None,
        request_id: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.request_id = model, request_id
        self.progress = progress or Progress()
        self.record: Callable[..., None] = lambda state, **facts: None
        self.units: dict[str, float] = {}  # billed by fal, by the path of the answer that told

    @property
    def paid(self) -> bool:
        """Whether a repetition is a second job."""
        return self.state not in ("new", "refused")

    def becomes(self, state: str, **facts: Any) -> None:
        self.state = state
        self.record(state, **facts)

    def accepted(self, request_id: str) -> None:
        if (self.state, self.request_id) != ("accepted", request_id):
            self.request_id = request_id
            self.becomes("accepted", request_id=request_id)
            self.progress.say(f"request id {request_id}")

    def answered(self, response: Any) -> None:
        """The model's response is here: it can be printed whatever happens from now on."""
        self.response, self.unprinted = response, [response]
        self.becomes("done", result=response)


def usage(message: str, hint: str | None = None) -> Failure:
    """A mistake in the command line or in what it names; nothing was sent."""
    return Failure("usage_error", message, Exit.USAGE, hint=hint)


class Flag(SimpleNamespace):
    """One flag of the command line. Rows that share a `dest` are alternatives."""

    group: str
    name: str
    help: str
    dest: str
    options: Fields


class Task(SimpleNamespace):
    """What each generation command does with one kind of model."""

    suffix: str
    models: Mapping[str, str]
    flags: tuple[Flag, ...]
    build: Callable[..., Fields]
    varied: str  # the argument that a batch has many of
    many: tuple[Flag, ...]  # alternatives, each of which gives a list
    example: str
    batch_example: str

    @property
    def shared(self) -> tuple[Flag, ...]:
        """The flags whose values all jobs of a batch share."""
        return tuple(flag for flag in self.flags if flag.dest != self.varied)

    def catalog(self) -> list[dict[str, str]]:
        """List well-known models of the task: endpoint, tab, title. Others work as well."""
        return [{"endpoint_id": name, "title": title} for name, title in self.models.items()]


class Command(SimpleNamespace):
    """A subcommand: its operation gives a document, or yields lines."""

    name: str
    operation: Callable[..., Any]
    flags: tuple[Flag, ...]
    help: str
    example: str
    text: Callable[[Any], str] | None  # how the document reads without --json


# Models: endpoint and title, in the order of list-t2i and list-i2v.
# Any other endpoint works as well.

TEXT_TO_IMAGE_MODELS: dict[str, str] = {
    "fal-ai/nano-banana-2": "Nano Banana 2 (Gemini Flash Image)",
    "fal-ai/nano-banana-pro": "Nano Banana Pro",
    "fal-ai/gemini-3.1-flash-image-preview": "Gemini 3.1 Flash Image Preview",
    "fal-ai/flux-2-flex": "FLUX 2 Flex",
    "fal-ai/flux/dev": "FLUX Dev",
    "fal-ai/flux/schnell": "FLUX Schnell",
    "fal-ai/flux-pro/v1.1-ultra": "FLUX Pro 1.1 Ultra",
    "fal-ai/flux-pro/v1.1": "FLUX Pro 1.1",
    "fal-ai/flux-pro": "FLUX Pro",
    "fal-ai/flux-pro/new": "FLUX Pro New",
    "fal-ai/flux-realism": "FLUX Realism",
    "fal-ai/flux-lora": "FLUX LoRA",
    "fal-ai/flux-lora-fill": "FLUX LoRA Fill",
    "fal-ai/flux-differential-diffusion": "FLUX Differential Diffusion",
    "fal-ai/flux-krea-lora/stream": "FLUX Krea LoRA (stream)",
    "fal-ai/recraft/v4/pro/text-to-image": "Recraft V4 Pro",
    "fal-ai/recraft/v4/text-to-image": "Recraft V4",
    "fal-ai/recraft/v4/pro/text-to-vector": "Recraft V4 Pro (vector)",
    "fal-ai/recraft/v4/text-to-vector": "Recraft V4 (vector)",
    "fal-ai/recraft-v3": "Recraft V3",
    "fal-ai/recraft/v3/text-to-image": "Recraft V3",
    "fal-ai/stable-diffusion-v35-large": "Stable Diffusion 3.5 Large",
    "fal-ai/stable-diffusion-v35-large/turbo": "Stable Diffusion 3.5 Large Turbo",
    "fal-ai/stable-diffusion-v35-medium": "Stable Diffusion 3.5 Medium",
    "fal-ai/stable-cascade": "Stable Cascade",
    "fal-ai/bytedance/seedream/v5/lite/text-to-image": "Seedream 5.0 Lite",
    "fal-ai/bitdance": "BitDance",
    "fal-ai/qwen-image": "Qwen-Image",
    "fal-ai/ideogram/v2": "Ideogram V2",
    "fal-ai/ideogram/v2/turbo": "Ideogram V2 Turbo",
    "bria/fibo/generate": "Bria Fibo Generate",
    "imagineart/imagineart-1.5-preview/text-to-image": "ImagineArt 1.5",
    "fal-ai/aura-flow": "AuraFlow",
    "fal-ai/kolors": "Kolors",
    "fal-ai/fooocus": "Fooocus",
}
IMAGE_TO_VIDEO_MODELS: dict[str, str] = {
    "fal-ai/veo3.1/image-to-video": "Veo 3.1 (Google)",
    "fal-ai/veo3.1/fast/image-to-video": "Veo 3.1 Fast",
    "fal-ai/veo3.1/reference-to-video": "Veo 3.1 Reference-to-Video",
    "fal-ai/veo3.1/first-last-frame-to-video": "Veo 3.1 First-Last Frame",
    "fal-ai/veo3.1/fast/first-last-frame-to-video": "Veo 3.1 Fast First-Last Frame",
    "fal-ai/sora-2/image-to-video": "Sora 2 (OpenAI)",
    "fal-ai/sora-2/image-to-video/pro": "Sora 2 Pro",
    "fal-ai/kling-video/o3/standard/image-to-video": "Kling O3 (Standard)",
    "fal-ai/kling-video/v3/pro/image-to-video": "Kling V3 Pro",
    "fal-ai/kling-video/v2.5-turbo/pro/image-to-video": "Kling V2.5 Turbo Pro",
    "fal-ai/kling-video/v2.1/master/image-to-video": "Kling V2.1 Master",
    "fal-ai/kling-video/v2.1/pro/image-to-video": "Kling V2.1 Pro",
    "fal-ai/kling-video/v2/master/image-to-video": "Kling V2 Master",
    "fal-ai/kling-video/v1.5/pro/image-to-video": "Kling V1.5 Pro",
    "fal-ai/kling-video/v1/pro/image-to-video": "Kling V1 Pro",
    "fal-ai/kling-video/v1/standard/image-to-video": "Kling V1 Standard",
    "fal-ai/minimax-video/image-to-video": "MiniMax Video",
    "fal-ai/minimax/hailuo-02/standard/image-to-video": "MiniMax Hailuo-02",
    "fal-ai/runway-gen3/turbo/image-to-video": "Runway Gen-3 Turbo",
    "fal-ai/ltx-2-19b/image-to-video": "LTX-2 19B",
    "fal-ai/ltx-video-13b-distilled/image-to-video": "LTX Video 13B Distilled",
    "fal-ai/wan/v2.2-a14b/image-to-video": "Wan V2.2",
    "fal-ai/wan/v2.2-a14b/image-to-video/lora": "Wan V2.2 + LoRA",
    "fal-ai/wan/v2.1/image-to-video": "Wan V2.1",
    "fal-ai/pixverse/v5/image-to-video": "PixVerse V5",
    "fal-ai/cosmos-predict-2.5/image-to-video": "Cosmos Predict 2.5 (NVIDIA)",
    "fal-ai/vidu/q3/image-to-video/turbo": "Vidu Q3 Turbo",
    "decart/lucy-i2v": "Lucy (Decart)",
    "decart/lucy-14b/image-to-video": "Lucy 14B (Decart)",
    "fal-ai/luma-dream-machine/image-to-video": "Luma Dream Machine",
    "fal-ai/hunyuan-video/image-to-video": "HunyuanVideo",
    "fal-ai/cogvideox-5b/image-to-video": "CogVideoX-5B",
    "fal-ai/stable-video": "Stable Video",
    "fal-ai/heygen/avatar4/image-to-video": "HeyGen Avatar 4",
    "fal-ai/creatify/aurora": "Creatify Aurora",
    "veed/fabric-1.0": "VEED Fabric 1.0",
    "fal-ai/bytedance/omnihuman/v1.5": "Omnihuman V1.5",
    "fal-ai/ai-avatar/single-text": "MultiTalk Avatar",
}

# What fal accepts and answers

PROGRAM = "skill_fal.py"
KEYS_PAGE = "https://fal.ai/dashboard/keys"
BILLING_PAGE = "https://fal.ai/dashboard/billing"
REQUESTS_PAGE = "https://fal.ai/dashboard/requests"
MODELS_URL = "https://api.fal.ai/v1/models"
MODELS_PAGE_SIZE = 50  # fal documents no maximum for `limit`, only that there is one
PRICES_URL = f"{MODELS_URL}/pricing"

# Where the key may go, and where a POST costs nothing; elsewhere it starts a job.
FAL_DOMAINS = (".fal.run", ".falrun.com", ".fal.ai")
FREE_HOSTS = (".fal.ai", ".fal.media")

# Seconds between attempts while fal says that it is busy, and in all; Retry-After overrules them.
BACKOFF = (1, 2, 4, 8, 16, 29)
BUSY_LIMIT = 60.0
FREE_LINES = 30  # of progress, before stderr gets terse if it is not a terminal
SILENCE = 10  # seconds until somebody who waits for an answer is told so

# fal's queue headers, for the calls whose fal-client signature lacks the keyword.
QUEUE_HEADERS = {
    "hint": "X-Fal-Runner-Hint",
    "priority": "X-Fal-Queue-Priority",
    "start_timeout": "X-Fal-Request-Start-Timeout",
}

# Anything a header or a URL can carry as it is.
VISIBLE = r"[\x21-\x7e]+"
PATH_PATTERN = r"\w[\w.-]*(/\w[\w.-]*)*"
NO_FALLBACK: Any = {"fallback_repository": []}  # fal-client's own cannot work since 2026

# The first bytes of the media that models take and return, by content type.
SIGNATURES = {
    "image/jpeg": rb"\xff\xd8\xff",
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF.{4}WEBP",
    "image/bmp": rb"BM.{4}\0{4}",
    "image/tiff": rb"II\*\0|MM\0\*",
    "image/avif": rb".{4}ftypavi[fs]",
    "image/heic": rb".{4}ftyp(hei[cx]|mif1)",
    "audio/mp4": rb".{4}ftypM4A",
    "video/mp4": rb".{4}ftyp",
    "video/webm": rb"\x1a\x45\xdf\xa3",
    "audio/mpeg": rb"ID3|\xff[\xf2\xf3\xfb]",
    "audio/wav": rb"RIFF.{4}WAVE",
    "audio/ogg": rb"OggS",
    "audio/flac": rb"fLaC",
}
BINARY = "application/octet-stream"  # which says nothing

# The last word of a field's name, before `url`: of those that hold the URL of a file, and of
# those that never do.
FILE_WORDS = (
    "(image|video|audio|file|mask|thumbnail|frame|picture|clip|output|result|preview|asset)s?"
    "|gif|svg|model|mesh|media|music|sound|speech|voice|zip"
)
PAGE_WORDS = (
    "(page|doc|site|website|link|source|citation|term)s?"
    "|documentation|homepage|web|webhook|status|cancel|response|license|help|share"
)

# Of one file: bytes at most, hosts that may hand it on, and seconds between attempts at it.
MAX_BYTES = 2 * 1024**3
MAX_REDIRECTS = 5
FILE_BACKOFF = (0.2, 0.5, 1.0)


# Values that flags take: each function reads the text after a flag or refuses it.


def read_text(source: str) -> str:
    """The whole of a text file, or of stdin for `-`."""
    try:
        if source == "-":
            return read_bytes("-").decode("utf-8-sig")
        with open(os.path.expanduser(source), encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise usage(f"cannot read {source}: {exc}") from exc


def prompt_text(text: str) -> str:
    """A prompt; `-` reads it from stdin."""
    return prompt_file("-") if text == "-" else plain_text(text)


def prompt_file(source: str) -> str:
    return plain_text(read_text(source).strip())


def plain_text(text: str) -> str:
    if not text.strip():
        raise usage("the text is empty")
    if text == "-":
        raise usage("- does not stand for stdin here")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise usage("the text is not valid UTF-8") from exc
    return text


def json_object(text: str) -> Fields:
    """A JSON object: the text itself, `@file`, or `-` for stdin."""
    if text == "-" or text.startswith("@"):
        text = read_text(text.removeprefix("@"))
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as exc:
        raise usage(f"not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise usage(f"must be a JSON object, not {text.strip()[:40]}")
    return value


def number(text: str) -> int | float:
    """A finite number, left an integer if it is written as one."""
    try:
        value = float(text)
    except ValueError as exc:
        raise usage(f"not a number: {text}") from exc
    if not abs(value) < 1e100:  # nor infinite, nor NaN
        raise usage(f"not a number to be used: {text}")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else value


def above(limit: int, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A number that must be greater than the limit."""

    def checked(text: str) -> Any:
        value = read(text)
        if value <= limit:
            raise usage(f"must be greater than {limit}: {text}")
        return value

    return checked


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """A text that matches the whole pattern."""

    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise usage(f"not {what}: {text!r}")
        return text

    return checked


positive_int = above(0, int)
positive = above(0, number)
above_1 = above(1, number)
visible_text = matching(VISIBLE, "visible ASCII")
request_id_text = matching(r"[\w-]+", "a request id")
path_text = matching(f"/?{PATH_PATTERN}", "a path")
mime_type = matching(r"[\w.+-]+/[\w.+-]+(; ?[\x21-\x7e]+)*", "a MIME type")


def endpoint(text: str) -> str:
    """owner/app[/path]; the namespaces `workflows` and `comfy` come before the owner."""
    text = text.strip().strip("/")
    least = 3 if text.startswith(("workflows/", "comfy/")) else 2
    known = re.fullmatch(PATH_PATTERN, text, re.ASCII) and len(text) < 500
    if known and len(text.split("/")) >= least:
        return text
    raise usage(f"not an endpoint, owner/app[/path]: {text!r}", near_models(text))


def web_url(text: str) -> str:
    if not (re.fullmatch(VISIBLE, text) and re.match(r"https?://[^/]", text, re.I)):
        raise usage(f"not an http(s) URL: {text!r}")
    return text


def local_file(path: str) -> str:
    """A file that can be read; `~` is the home folder."""
    path = os.path.expanduser(path)
    if not os.path.exists(path):
        raise usage(f"no such file: {path}")
    if os.path.isdir(path) or not os.access(path, os.R_OK):
        raise usage(f"not a readable file: {path}")
    return path


def file_or_stdin(path: str) -> str:
    return path if path == "-" else local_file(path)


def picture(source: str) -> str:
    """An http(s) URL, a data URI, or a local picture, which is uploaded when it is needed."""
    return media_file(source, "image/")


def media_file(source: str, kind: str = "") -> str:
    """A URL, or a local file that is a picture, a clip or a sound."""
    if is_remote(source):
        return source
    path = local_file(source)
    content_type = media_type(first_bytes(path)) if os.path.isfile(path) else None
    if content_type is None or not content_type.startswith(kind):
        what = "a picture" if kind else "a media file"
        raise usage(f"not {what}: {path}", "upload-file uploads files of any kind.")
    return path


def journal_place(path: str) -> str:
    """The name of a file, new or not, in a folder that exists."""
    path = os.path.expanduser(path)
    folder = os.path.dirname(os.path.abspath(path))
    if path in ("", "-") or not os.path.isdir(folder):
        raise usage(f"not a file name in a folder that exists: {path!r}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise usage(f"not a file: {path}")
    return path


class Target:
    """Where files go: a folder (it exists, or the text ends in /), a file name, or a template."""

    FIELDS = ("index", "name", "ext", "request_id", "model", "seed", "prompt", "date")

    def __init__(self, text: str) -> None:
        path = os.path.expanduser(text)
        self.text, self.asked = text, ""
        if os.path.isdir(path):
            self._parts = [os.path.join(path, ""), "model", ""]
        else:
            path += "{model}" if path.endswith(("/", os.sep)) else ""
            extension = re.search(r"(?<=[^/])\.[^./{}]*$", path)
            self.asked = extension[0] if extension else ""
            self._parts = re.split(r"\{(\w+)\}", path.removesuffix(self.asked))
        self._named = path.endswith(".{ext}")
        self.file = path if len(self._parts) == 1 else None  # the name, if it is known already
        self.folder = os.path.abspath(os.path.dirname(self._parts[0]))
        self._check(path)

    def _check(self, path: str) -> None:
        if path.strip() in ("", "-") or re.search(r"[\0-\x1f\x7f-\x9f\u2028\u2029]", path):
            raise usage(f"not a folder or a file name: {path!r}")
        if len(os.fsencode(os.path.basename(path))) > 200:
            raise usage(f"the name is too long: {path!r}")
        braces = re.search("[{}]", "".join(self._parts[::2])) and not os.path.isdir(path)
        if braces or set(self._parts[1::2]) - {*self.FIELDS}:
            fields = ", ".join(f"{{{name}}}" for name in self.FIELDS)
            raise usage(f"not a template: {path!r}", f"The fields are {fields}.")
        folder = self.folder
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise usage(f"cannot write to {folder}")

    def place(self, values: Mapping[str, str], extension: str) -> tuple[str, str]:
        """The path of a file without its extension, and the extension."""
        fields = {**values, "ext": extension[1:]}
        words = (fields[part] if at % 2 else part for at, part in enumerate(self._parts))
        path = "".join(words)
        if self._named:
            path, extension = os.path.splitext(path)
        folder, name = os.path.split(os.path.abspath(path))
        return os.path.join(folder, shortened(name, 200)), extension


def shortened(text: str, most: int) -> str:
    """The start of a short text, in so many bytes."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text


# Flags: one row each. A command takes rows, and forwards what it took.


def flag(
    group: str,
    name: str,
    help: str,
    read: Callable[[str], Any] | None = None,
    *,
    dest: str = "",
    **options: Any,
) -> Flag:
    """A row for argparse: `read` makes the value of the text, which goes on as keyword `dest`;
    a flag with nothing to read is a switch.

    The name may be followed by what --help shows in the place of the value.
    """
    name, _, metavar = name.partition(" ")
    dest = dest or name[2:].replace("-", "_")
    if read:
        options |= {"type": partial(read_value, name, read), "metavar": metavar}
    elif not options:
        options = {"action": "store_true"}
    return Flag(group=group, name=name, help=help, dest=dest, options=options)


def read_value(name: str, read: Callable[[str], Any], text: str) -> Any:
    """The value that a flag is given, or a Failure that names the flag."""
    try:
        return read(text)
    except ValueError as exc:
        raise usage(f"argument {name}: {exc}") from exc
    except Failure as failure:
        raise usage(f"argument {name}: {failure.message}", failure.hint) from failure


def taken(values: Fields, flags: Iterable[Flag]) -> Fields:
    """What the flags have among the values, which they are taken out of."""
    return {flag.dest: values.pop(flag.dest) for flag in flags if flag.dest in values}


request_flag = partial(flag, "request")
argument_flag = partial(
    flag, "model arguments (what is not given is not sent: the model's own default applies)"
)
delivery_flag = partial(flag, "queue and delivery")
file_flag = partial(flag, "file")
output_flag = partial(flag, "output")
search_flag = partial(flag, "search")

required_flag = partial(flag, "request", required=True)
MODEL = required_flag(
    "--model ENDPOINT", "endpoint, owner/app[/path]: see list-t2i and list-models", endpoint
)
REQUEST_ID = required_flag(
    "--request-id ID", "request id, as printed by submit-* or on stderr", request_id_text
)

PROMPT = partial(argument_flag, "--prompt TEXT", "what to show; - reads it from stdin", prompt_text)
PROMPT_FILE = argument_flag(
    "--prompt-file FILE", "file to read the prompt from; - is stdin", prompt_file, dest="prompt"
)
NEGATIVE_PROMPT = argument_flag("--negative-prompt TEXT", "what to leave out", plain_text)
SEED = argument_flag("--seed N", "the same seed and prompt give the same result", int)
EXTRA_JSON = argument_flag(
    "--extra-json JSON",
    "further arguments, merged last: a JSON object, @file, or - for stdin",
    json_object,
)
ARGUMENTS_JSON = argument_flag(
    "--arguments-json JSON",
    "a JSON object, @file, or - for stdin",
    json_object,
    required=True,
    dest="arguments",
)
SIZE = (
    argument_flag("--width N", "in pixels, or the nearest that the model offers", positive_int),
    argument_flag("--height N", "in pixels, or the nearest that the model offers", positive_int),
)
GUIDANCE = (
    argument_flag("--guidance-scale X", "how closely to follow the prompt", number),
    argument_flag("--num-inference-steps N", "denoising steps", positive_int),
)
TEXT_TO_IMAGE = (
    PROMPT(required=True),
    PROMPT_FILE,
    NEGATIVE_PROMPT,
    *SIZE,
    argument_flag("--num-images N", "how many images", positive_int),
    SEED,
    *GUIDANCE,
    EXTRA_JSON,
)
IMAGE_TO_VIDEO = (
    argument_flag(
        "--image-url SOURCE",
        "URL, data URI, or local picture (is uploaded): the first starts the clip, a second"
        " ends it; models that take a list get all",
        picture,
        action="append",
        required=True,
    ),
    PROMPT(),
    PROMPT_FILE,
    NEGATIVE_PROMPT,
    argument_flag("--duration SECONDS", "length, one that the model offers", positive),
    *SIZE,
    SEED,
    *GUIDANCE,
    EXTRA_JSON,
)
CHECKS = (
    request_flag("--dry-run", "print the request and send nothing"),
    request_flag("--strict", "fail on flags that the model lacks"),
    request_flag("--no-schema", "send the flags as they are, unchecked"),
    request_flag(
        "--max-cost USD", "send nothing if fal's estimate is above it, or unknown", positive
    ),
)

PATH = delivery_flag("--path PATH", "sub-path of the endpoint", path_text)
CLIENT_TIMEOUT = delivery_flag(
    "--client-timeout SECONDS",
    "give up then (status 5); subscribe-* and batch-* cancel their jobs",
    positive,
)
QUEUE = (
    PATH,
    delivery_flag(
        "--hint TEXT", "requests with the same hint prefer the same runner", visible_text
    ),
    delivery_flag(
        "--priority",
        "place in the queue; rush is sent as normal, the highest there is",
        choices=("normal", "low", "rush"),
    ),
    delivery_flag(
        "--start-timeout SECONDS", "more than 1; the job must start within this time", above_1
    ),
    CLIENT_TIMEOUT,
)
WEBHOOK_URL = delivery_flag("--webhook-url URL", "URL that fal posts the result to", web_url)
KEEP = delivery_flag("--keep", "leave jobs running at fal if this command is stopped")
SAVE = (
    output_flag(
        "--output WHERE",
        "save all files of the result, and add downloaded_files to the JSON: a folder (it exists,"
        " or ends in /), a file name, or a template with {index}, {name}, {ext}, {request_id},"
        " {model}, {seed}, {prompt}, {date}",
        Target,
    ),
    output_flag("--overwrite", "replace files that exist"),
    output_flag("--max-bytes N", "refuse larger files (default 2147483648)", positive_int),
    output_flag(
        "--media",
        "print MEDIA:/path for each saved file instead of the JSON; without --output they are"
        " saved to the current folder",
    ),
    output_flag(
        "--metadata",
        "write beside each file a .json with what made it: model, arguments, seed, ...",
    ),
)
AGAIN = (
    delivery_flag(
        "--journal FILE",
        "record each job on disk as it goes; the same command then goes on where it stopped",
        journal_place,
    ),
    delivery_flag(
        "--retry-unknown",
        "with --journal: submit jobs again of which fal may have taken the first request",
    ),
    delivery_flag("--retry-failed", "with --journal: submit jobs again that failed"),
)
BATCH = (
    KEEP,
    delivery_flag("--concurrency N", "jobs under way at once (default 4)", positive_int),
    *AGAIN,
    *SAVE,
)
NO_WAIT = delivery_flag("--no-wait", "fail at once if the job has not ended")
ROUNDS = delivery_flag("--rounds N", "how often to send the arguments (default 1)", positive_int)

FILE = file_flag("--file FILE", "file to read", local_file, required=True)
FILE_OR_STDIN = file_flag("--file FILE", "file to read; - is stdin", file_or_stdin, required=True)
CONTENT_TYPE = file_flag("--content-type TYPE", "MIME type of the bytes", mime_type, required=True)
IMAGE_FORMAT = file_flag(
    "--format",
    "format to convert to (default jpeg, which has no transparency)",
    choices=("jpeg", "jpg", "png", "webp"),
)

JSON = output_flag("--json", "print JSON")
QUIET = output_flag("--quiet", "no progress and no notes on stderr")

JOB_EXAMPLE = "--model fal-ai/flux/dev --request-id 764cabcf-b745-4b3e-ae38-1200304cf45b"
IMAGE_EXAMPLE = "--file photo.jpg --format webp"
RAW_EXAMPLE = "--file data.bin --content-type application/octet-stream"

URL_TEXT, DATA_TEXT = operator.itemgetter("url"), operator.itemgetter("data_uri")


# Arguments: from flags to what the model is sent


def present(**values: Any) -> Fields:
    """The keywords that have a value."""
    return {name: value for name, value in values.items() if value is not None}


def _build_t2i_arguments(
    prompt: str | None = None, *, extra_json: Arguments | None = None, **same: Any
) -> Fields:
    """Text-to-image arguments for want of a schema; width and height become `image_size`."""
    return {**present(prompt=prompt), **sized("image_size", same), **(extra_json or {})}


def _build_i2v_arguments(
    image_url: str | Sequence[str], *, extra_json: Arguments | None = None, **same: Any
) -> Fields:
    """Image-to-video arguments for want of a schema; width and height become `video_size`."""
    first, *others = as_list(image_url)
    if others:
        raise usage("where a second --image-url goes, only the model's schema can tell")
    return {"image_url": first, **sized("video_size", same), **(extra_json or {})}


def sized(name: str, flags: Fields) -> Fields:
    """The flags, width and height as one object."""
    size = {side: flags.pop(side, None) for side in ("width", "height")}
    if (size["width"] is None) != (size["height"] is None):
        raise usage("--width and --height go together")
    return present(**flags, **{name: present(**size) or None})


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def batch_file(flags: Sequence[Flag], varied: str, source: str) -> list[Fields]:
    """The jobs of a batch, one a line: what varies as it is, or a JSON object with any flags
    by their names and with `extra` for what has no flag.
    """
    known = {flag.dest: flag for flag in reversed(flags)}  # of two rows the first
    known["extra"] = known.pop("extra_json")
    jobs = []
    for number, line in enumerate(read_text(source).split("\n"), 1):
        if line := line.strip():
            try:
                row = json_object(line) if starts_json(line) else {varied: line}
                jobs.append({name: flag_value(known, name, value) for name, value in row.items()})
                if varied not in row:
                    raise usage(f"{varied} is missing")
            except Failure as failure:
                message = f"{source}, line {number}: {failure.message}"
                raise usage(message, failure.hint) from failure
    if not jobs:
        raise usage(f"{source} holds no jobs")
    return jobs


def starts_json(line: str) -> bool:
    """Whether a line is meant as JSON; a prompt may start with a word in brackets."""
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(line), (dict, list))
    return line.startswith("{") or line == "["


def flag_value(flags: Mapping[str, Flag], name: str, value: Any) -> Any:
    """What a flag takes, though it stands in JSON."""
    if name not in flags:
        near = did_you_mean(name, flags)
        raise usage(f"no such argument: {name}", near or "What has no flag goes into extra.")
    if isinstance(value, list) and flags[name].options.get("action") == "append":
        return [flag_value(flags, name, item) for item in value]
    if value is None or isinstance(value, (bool, list)):
        raise usage(f"{name}: not a value: {json.dumps(value)}")
    if value == "-":
        raise usage(f"{name}: - does not stand for stdin here")
    return flags[name].options["type"](value if isinstance(value, str) else json.dumps(value))


T2I = Task(
    suffix="t2i",
    models=TEXT_TO_IMAGE_MODELS,
    flags=TEXT_TO_IMAGE,
    build=_build_t2i_arguments,
    varied="prompt",
    many=(
        argument_flag("--prompts TEXT", "one job each", plain_text, nargs="+", required=True),
        argument_flag(
            "--prompts-file FILE",
            'a prompt a line, or JSON with the flags of one job, such as {"prompt": "A cat",'
            ' "num_images": 2, "extra": {}}; - is stdin',
            partial(batch_file, TEXT_TO_IMAGE, "prompt"),
            dest="prompts",
        ),
    ),
    example='--model fal-ai/flux/dev --prompt "A lighthouse at dusk"',
    batch_example='--model fal-ai/flux/schnell --prompts "A red car" "A blue boat"',
)
I2V = Task(
    suffix="i2v",
    models=IMAGE_TO_VIDEO_MODELS,
    flags=IMAGE_TO_VIDEO,
    build=_build_i2v_arguments,
    varied="image_url",
    many=(
        argument_flag(
            "--image-urls SOURCE",
            "starting images, one job each",
            picture,
            nargs="+",
            required=True,
        ),
        argument_flag(
            "--image-urls-file FILE",
            'an image a line, or JSON with the flags of one job, such as {"image_url": "a.png",'
            ' "duration": 5, "extra": {}}; - is stdin',
            partial(batch_file, IMAGE_TO_VIDEO, "image_url"),
            dest="image_urls",
        ),
    ),
    example='--model fal-ai/minimax-video/image-to-video --image-url photo.jpg --prompt "It rains"',
    batch_example="--model fal-ai/runway-gen3/turbo/image-to-video --image-urls a.png b.png"
    ' --prompt "It rains"',
)


# The connection to fal


def api_key() -> str:
    """The key from the environment, without the white space that pasting leaves around it."""
    key, *pair = (os.environ.get(f"FAL_KEY{part}", "").strip() for part in ("", "_ID", "_SECRET"))
    key = key or ":".join(pair if all(pair) else ())
    if not key:
        raise Failure("credentials_missing", "no fal.ai key: FAL_KEY is not set", Exit.CREDENTIALS)
    if not re.fullmatch(VISIBLE, key):
        raise Failure(
            "credentials_malformed",
            "the key in FAL_KEY holds white space or characters that no key has",
            Exit.CREDENTIALS,
        )
    return key


def is_paid(request: httpx.Request) -> bool:
    return request.method == "POST" and not request.url.host.endswith(FREE_HOSTS)


def refuse_strangers(host: str) -> None:
    """Keep the key from hosts that an answer names and that are not fal's."""
    own = (fal_client.auth.FAL_RUN_HOST, fal_client.auth.FAL_QUEUE_RUN_HOST)  # user's settings
    if not f".{host}".endswith(FAL_DOMAINS) and host not in map(host_of, own):
        raise Failure("unexpected_answer", f"fal's answer leads to {host}, which is not fal's")


def is_queued(request: httpx.Request) -> bool:
    return request.url.host == host_of(fal_client.auth.FAL_QUEUE_RUN_HOST)


def host_of(setting: str) -> str:
    return setting.partition(":")[0]


class PaidOnce:
    """An httpx transport under fal-client's that keeps it from paying twice.

    fal-client 1.0.3 repeats any POST up to ten times when the connection drops, when reading
    times out, and on 408, 409 and the gateway's 5xx; each repetition can start, and bill,
    another job. A Failure raised here is none of the errors that it repeats for. Repeated are
    only requests that fal has surely not taken, since it was not reached or said that it is
    busy, and those that only read.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._reached = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        refuse_strangers(request.url.host)
        left, job, pays = BUSY_LIMIT, CURRENT.get(), is_paid(request)
        for backoff in (*BACKOFF, 0):
            response = await self._answer(request, job)
            busy = is_busy(request, response)
            if not (busy or (pays and response.status_code >= 300)):
                return response
            await response.aread()
            if pays and (busy or is_refusal(response)):
                job.becomes("refused")
            failure = answer_failure(response, response.text)
            wait = asked_wait(response.headers, backoff)
            if busy and wait > left and pays:
                failure.hint = f"fal asks to wait {wait:.0f} s: repeat the command then."
            if not busy or wait > left or not backoff:
                raise failure
            left -= wait
            said = f"fal is busy (HTTP {response.status_code})"
            note(f"{said}: asking again in {wait:.0f} s, for {left:.0f} s more at most")
            await asyncio.sleep(wait)
        raise AssertionError(request)

    async def _answer(self, request: httpx.Request, job: Job) -> httpx.Response:
        """fal's answer; whatever is raised that is no Failure makes fal-client ask again."""
        pays = is_paid(request)
        if pays:
            job.becomes("sent")
        send = self._submit if pays and is_queued(request) else self._send
        patience = f"{request.url.host} has not answered for {SILENCE} s: still waiting"
        reminder = asyncio.get_running_loop().call_later(SILENCE, note, patience)
        try:
            return await send(request, job)
        except httpx.RequestError as exc:
            unsent = isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            if pays and unsent:
                job.becomes("refused")
            again = self._reached if unsent else not pays
            if again:
                note(f"{request.url.host}: {words(exc)}: trying again")
                raise
            raise explain(exc) or exc from exc
        finally:
            reminder.cancel()

    async def _submit(self, request: httpx.Request, job: Job) -> httpx.Response:
        """Hear fal out even when the command is stopped: a job is cancelled by its request id."""
        sending = asyncio.ensure_future(self._send(request, job))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await insist(sending, job, 0.3)
            raise

    async def _send(self, request: httpx.Request, job: Job) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        self._reached = True
        units = as_number(response.headers.get("x-fal-billable-units"))
        if units is not None and 0 <= units < 1e100:
            job.units[request.url.path] = units
        if is_paid(request) and (response.status_code >= 300 or not is_stream(request)):
            learn_id(job, response)
            await response.aread()  # here, where a connection that breaks is not tried again
            learn_id(job, response)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def learn_id(job: Job, response: httpx.Response) -> None:
    """Take the request id of a queued job from the head of the answer, or from its body."""
    told = response.headers.get("x-fal-request-id")
    with contextlib.suppress(httpx.ResponseNotRead, ValueError, KeyError, TypeError):
        told = told or response.json()["request_id"]
    known = isinstance(told, str) and re.fullmatch(r"[\w-]+", told)
    if not (known and is_queued(response.request)):
        return
    if response.status_code < 300:
        job.accepted(told)
    elif response.status_code >= 500:
        job.request_id = told


def is_stream(request: httpx.Request) -> bool:
    return "text/event-stream" in request.headers["accept"]


def is_busy(request: httpx.Request, response: httpx.Response) -> bool:
    """Whether fal did not take the request and may take the next; the gateway's pages and
    a runner that went away say nothing of the kind. Looks at a job only read.
    """
    status, headers = response.status_code, response.headers
    if request.method == "GET":
        return request.url.path.endswith("/status") and (status == 429 or status >= 500)
    spoken = "json" in headers.get("content-type", "") and told_retry(headers) is not False
    ran = headers.get("x-fal-error-type") == "runner_disconnected"
    return is_paid(request) and (status == 429 or (status == 503 and spoken and not ran))


def is_refusal(response: httpx.Response) -> bool:
    """Whether fal has surely not taken the request, or says itself that it may be repeated."""
    status, headers = response.status_code, response.headers
    never_started = "x-fal-request-timeout-type" in headers
    refused = 400 <= status < 500 and status not in (408, 409)
    return refused or never_started or told_retry(headers) is True


def asked_wait(headers: Mapping[str, str], backoff: float) -> float:
    """Seconds that fal asks to wait, as a number or a date, or else the backoff with a jitter."""
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", asked):
        return float(asked)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email_utils.parsedate_to_datetime(asked).timestamp() - time.time(), 0.0)
    return backoff * random.uniform(0.7, 1.0)


class Connection:
    """fal-client's shared async client, opened anew for each event loop that uses it.

    fal-client 1.0.3 keeps the connections of the first event loop for ever, so a second
    asyncio.run fails, and it offers no way to close them.
    """

    CACHED = ("_client", "_auth", "_token_manager")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._users = loop, 0
        if not self._users:
            self._forget()
            fal_client.async_client.key = api_key()
            try:
                client = await fal_client.async_client._client
            except (ValueError, ImportError) as exc:  # such as a proxy that httpx cannot use
                raise usage(f"the network's settings cannot be used: {exc}") from exc
            fal_client.client.MULTIPART_MAX_CONCURRENCY = 2  # ten take some 400 MB
            client._transport = PaidOnce(client._transport)  # type: ignore[assignment]
            logging.getLogger("fal_client.client").addFilter(as_note)
        self._users += 1

    async def close(self) -> None:
        self._users -= 1
        if not self._users:
            await (await fal_client.async_client._client).aclose()
            self._forget()

    def _forget(self) -> None:
        for name in self.CACHED:
            vars(fal_client.async_client).pop(name, None)


def as_note(record: logging.LogRecord) -> bool:
    """fal-client logs when it turns to its backup hosts; Python would print that on stderr."""
    note(record.getMessage())
    return False


CONNECTION = Connection()
CURRENT: contextvars.ContextVar[Job] = contextvars.ContextVar("job")  # the session's


@contextlib.contextmanager
def failures(job: Job) -> Iterator[None]:
    """Let whatever goes wrong while talking to fal leave as a Failure about this job."""
    try:
        yield
    except Exception as exc:
        try:
            failure = explain(exc)
        except Exception:  # an error answer that cannot be read either
            failure = None
        raise (failure or unexpected_answer(exc)).about(job) from exc


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@contextlib.asynccontextmanager
async def time_limit(deadline: float | None) -> AsyncIterator[None]:
    """Raise TimeoutError when what is inside takes longer (asyncio.timeout needs Python 3.11)."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    timer = loop.call_at(deadline, task.cancel) if deadline and task else None
    try:
        yield
    except asyncio.CancelledError:
        if timer and timer.when() <= loop.time():
            raise TimeoutError from None
        raise
    finally:
        if timer:
            timer.cancel()


@contextlib.asynccontextmanager
async def fal_session(job: Job, seconds: float | None = None) -> AsyncIterator[None]:
    """Have fal_client's async functions ready for one job, for so many seconds at most."""
    with failures(job):
        await CONNECTION.open()
        CURRENT.set(job)
        if seconds:
            job.deadline = soon(seconds)
        try:
            async with time_limit(job.deadline if seconds else None):
                yield
        except (asyncio.CancelledError, TimeoutError):
            console.job = job  # a second signal ends the command while this is cancelled
            await abandon(job)
            raise
        finally:
            console.job = job  # sessions inside others end before them
            await CONNECTION.close()


async def abandon(job: Job) -> None:
    """Cancel at fal what nobody waits for any longer."""
    if job.state == "sent":
        console.doubtful += 1
    if job.state != "accepted" or not (job.model and job.request_id):
        return
    console.running.append(job.request_id)
    if job.watched and await insist(cancel_job(job.model, job.request_id), job, 0.6):
        console.running.remove(job.request_id)
        console.cancelled.append(job.request_id)
        job.becomes("cancelled")


async def insist(awaitable: Awaitable[Any], job: Job, late: float) -> Any:
    """What it gives within 3 seconds, or `late` if time is up, though the task is cancelled;
    the two things that are insisted on when time is up fit into the promised second.
    """
    over = job.deadline and asyncio.get_running_loop().time() >= job.deadline
    work = asyncio.ensure_future(asyncio.wait_for(awaitable, late if over else 3))
    with contextlib.suppress(Exception, asyncio.CancelledError):
        return await asyncio.shield(work)
    return None


@contextlib.asynccontextmanager
async def platform(key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client for fal's platform API, which is no part of fal-client."""
    headers = {"Authorization": f"Key {key}"} if key else {}
    with failures(Job()):
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            yield client


async def pages(client: httpx.AsyncClient, url: str, name: str, **params: Any) -> list[Fields]:
    """What all pages of an answer hold under the name."""
    rows: list[Fields] = []
    seen: set[str] = set()
    while True:
        response = await client.get(url, params=params)
        page = response.raise_for_status().json()
        rows += (row for row in page[name] if isinstance(row, dict))
        cursor = page.get("next_cursor")
        if not cursor or cursor in seen:
            return rows
        seen.add(cursor)
        params["cursor"] = cursor


# Operations: each is a command; its keywords are the flags, and its docstring is the help.
# They can be imported, too; whatever goes wrong, they raise Failure.

COMMANDS: dict[str, Command] = {}


def command(
    name: str, *flags: Flag, example: str, text: Callable[[Any], str] | None = None
) -> Callable[[Operation], Operation]:
    """Register an operation as a subcommand."""

    def register(operation: Operation) -> Operation:
        lines = (operation.__doc__ or "").strip().splitlines()
        help = "\n".join(line.strip() for line in lines)
        COMMANDS[name] = Command(
            name=name, operation=operation, flags=flags, help=help, example=example, text=text
        )
        return operation

    return register


def generation(verb: str, *flags: Flag, example: str = "") -> Callable[[Operation], Operation]:
    """Register an operation on a model and its arguments as verb-t2i and verb-i2v."""

    def register(operation: Operation) -> Operation:
        for task in (T2I, I2V):
            bound = partial(generate, verb, operation, task)
            bound.__doc__ = operation.__doc__
            rows = (MODEL, *CHECKS, *task.flags, *flags)
            words = f"{task.example} {example}".strip()
            command(f"{verb}-{task.suffix}", *rows, example=words)(bound)
        return operation

    return register


def generate(
    verb: str, operation: Operation, task: Task, *, model: str, dry_run: bool, **flags: Any
) -> Any:
    """Call an operation with what the flags ask of the model, or show what it would send."""
    own, checks = taken(flags, task.flags), taken(flags, CHECKS)
    request = Request(verb=verb, task=task, asked=own, **checks)
    return plan(model, request, **flags) if dry_run else operation(model, request, **flags)


class Request(SimpleNamespace):
    """What flags ask of a model: arguments, once the model's schema is known."""

    verb: str
    task: Task
    asked: Arguments
    strict = False
    no_schema = False
    max_cost: float | None = None
    found: ModelSchema | None = None

    async def schema(self, model: str) -> ModelSchema:
        if not self.found:
            self.found = ModelSchema() if self.no_schema else await fetch_schema(model)
        return self.found

    def fit(self, found: ModelSchema) -> Fit:
        """The arguments; raises a Failure that tells all problems at once."""
        it = None
        if found.input is not None:
            with contextlib.suppress(Exception):  # a document may be anything
                it = fit(self.asked, found.input, self.strict)
        it = it or self.unchecked()
        if found.deprecated:
            it.notes.append("fal calls the model deprecated")
        if self.verb == "stream" and found.input and not found.streams:
            it.notes.append("fal does not list the model among those that stream")
        if it.problems:
            message = "; ".join(f"{one['field']}: {one['message']}" for one in it.problems)
            raise Failure("invalid_arguments", message, Exit.USAGE, details=it.problems)
        with_media(media_file, it.arguments)
        return it

    def unchecked(self) -> Fit:
        """The flags as they are, for want of a schema."""
        it = Fit({})
        it.arguments = self.task.build(**self.asked)
        if not self.no_schema:
            it.notes.append("fal did not tell the model's arguments: they were not checked")
        return it


def with_media(change: Callable[[str], Any], value: Any, field: str = "") -> Any:
    """The value with a change made to all that its *_url and *_urls fields name, at any depth."""
    if isinstance(value, Mapping):
        return {name: with_media(change, item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_media(change, item, field) for item in value]
    named = isinstance(value, str) and value != "" and field.endswith(("_url", "_urls"))
    return change(value) if named else value


async def prepared(
    model: str, arguments: Arguments | Request, uploads: Uploads | None = None
) -> Fields:
    """The arguments to send, fitted to the model's schema, local files uploaded."""
    if isinstance(arguments, Request):
        it = arguments.fit(await arguments.schema(model))
        for text in it.notes:
            note(text)
        if arguments.max_cost is not None:
            await affordable(model, [it], arguments.max_cost)
        arguments = it.arguments
    job = CURRENT.get()
    job.arguments = await (uploads or Uploads()).replace(arguments)
    return dict(job.arguments)


async def plan(
    model: str,
    request: Request,
    webhook_url: str | None = None,
    keep: bool = False,
    quoted: tuple[Any, list[str]] | None = None,
    **options: Any,
) -> Fields:
    """What --dry-run shows: the request as it would be sent, but for the key and the uploads.

    In a batch, the estimate beside each request is for all jobs that would be submitted.
    """
    how = settings(Job(), options)
    found = await request.schema(how.endpoint(model))
    it = request.fit(found)
    estimate, notes = quoted or await quote(how.endpoint(model), [it], request.max_cost)
    host = "fal.run" if request.verb in ("run", "stream") else "queue.fal.run"
    path = how.sub_path(model, "/stream" if request.verb == "stream" else "").lstrip("/")
    query = f"?{urls.urlencode({'fal_webhook': webhook_url})}" if webhook_url else ""
    return {
        "endpoint": model,
        "url": f"https://{host}/{model}{path and '/' + path}{query}",
        "headers": how.headers(*QUEUE_HEADERS),
        "arguments": it.arguments,
        "notes": it.notes + notes,
        "schema": found.state,
        "estimate": estimate,
    }


class Delivery:
    """How a request reaches its model; the keywords are those of the queue flags.

    `path` is added to the endpoint; `hint` prefers the runner that served it before; `priority`
    is normal or low, and rush is sent as normal; `start_timeout` is in seconds, above 1, until
    fal must have started; `client_timeout` in seconds, until the operation gives up.
    """

    def __init__(
        self,
        path: str | None = None,
        hint: str | None = None,
        priority: Any = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> None:
        if priority == "rush":
            note("fal's queue has nothing above normal priority: rush is sent as normal")
            priority = "normal"
        self.path, self.hint, self.priority = path, hint, priority
        self.start_timeout, self.client_timeout = start_timeout, client_timeout

    def headers(self, *names: str) -> dict[str, str]:
        """fal's headers for options that fal-client's signature lacks."""
        values = {name: getattr(self, name) for name in names}
        return {QUEUE_HEADERS[name]: str(value) for name, value in present(**values).items()}

    def endpoint(self, model: str) -> str:
        """The endpoint that the path leads to, which has the schema."""
        return f"{model}/{self.path.strip('/')}" if self.path else model

    def sub_path(self, model: str, default: str = "") -> str:
        """The path to add; /stream and /realtime are not added twice."""
        path = default if self.path is None else self.path
        twice = default and model.endswith(default) and path.strip("/") == default[1:]
        return "" if twice else path


class Saving:
    """What becomes of the files of a result; the keywords are those of the output flags.

    `output` is a folder, a file name or a template, `max_bytes` the most that a file may have;
    with `media`, files go to the current folder if nothing else is said, and of a stream only the
    last event counts.
    """

    def __init__(
        self,
        output: str | Target | None = None,
        overwrite: bool = False,
        max_bytes: int | None = None,
        media: bool = False,
        metadata: bool = False,
    ) -> None:
        output = "." if output is None and media else output
        if output is None and (overwrite or max_bytes or metadata):
            raise usage("--overwrite, --max-bytes and --metadata need --output or --media")
        self.target = Target(output) if isinstance(output, str) else output
        self.overwrite, self.media, self.metadata = overwrite, media, metadata
        self.max_bytes = max_bytes or MAX_BYTES
        self._names: set[str] = set()
        file = self.target.file if self.target else None
        if file and not self._is_free(file):
            hint = "Name another file, or add --overwrite."
            raise usage(f"argument --output: {file} exists already and is not overwritten", hint)

    def _is_free(self, path: str) -> bool:
        """Whether a file may get the name; what is no file is never replaced."""
        plain = os.path.islink(path) or os.path.isfile(path)
        return not os.path.lexists(path) or (plain and self.overwrite)

    def claim(self, stem: str, *extensions: str) -> list[str]:
        """The first names that are all free, stem.ext, stem-2.ext, ...: no command gives one twice,
        not even where upper and lower case are the same.
        """
        for count in range(1, 1_000_000):
            numbered = f"{stem}-{count}" if count > 1 else stem
            paths = [numbered + extension for extension in extensions]
            names = {path.casefold() for path in paths}
            if names.isdisjoint(self._names) and all(map(self._is_free, paths)):
                with contextlib.suppress(FileExistsError):
                    for path in paths if not self.overwrite else ():
                        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
                    self._names |= names
                    return paths
        raise FileExistsError(f"no free name for {stem}")

    def release(self, paths: Sequence[str]) -> None:
        """Leave nothing under names that could not be given after all."""
        for path in paths if not self.overwrite else ():
            with contextlib.suppress(OSError):
                os.unlink(path)


def settings(job: Job, options: Fields) -> Delivery:
    """How to reach the model; what the options say of files becomes the job's."""
    files = taken(options, SAVE)
    job.saving = job.saving or Saving(**files)
    return Delivery(**options)


@generation("submit", *QUEUE, WEBHOOK_URL, example="--priority low")
async def submit_job(
    model: str, arguments: Arguments | Request, *, webhook_url: str | None = None, **delivery: Any
) -> Fields:
    """Queue a job and give its request id at once: {"request_id", "model"}.

    `status`, `result` and `cancel` take it from there.
    """
    how, job = Delivery(**delivery), Job(model)
    async with fal_session(job, how.client_timeout):
        handle = await fal_client.submit_async(
            model,
            await prepared(how.endpoint(model), arguments),
            path=how.sub_path(model),
            hint=how.hint,
            webhook_url=webhook_url,
            priority=how.priority,
            start_timeout=how.start_timeout,
        )
        job.accepted(handle.request_id)
    return {"request_id": job.request_id, "model": model}


@generation("subscribe", *QUEUE, KEEP, *SAVE, example="--output results/")
async def subscribe_job(
    model: str,
    arguments: Arguments | Request,
    *,
    keep: bool = False,
    job: Job | None = None,
    uploads: Uploads | None = None,
    **options: Any,
) -> Any:
    """Queue a job, follow it on stderr, and give the model's response.

    A job that is given up (Ctrl-C, SIGTERM, --client-timeout) is cancelled at fal.
    """
    job = job or Job(model)
    how = settings(job, options)
    job.watched, limit = not keep, how.client_timeout
    async with fal_session(job, limit):
        response = await fal_client.subscribe_async(
            model,
            await prepared(how.endpoint(model), arguments, uploads),
            path=how.sub_path(model),
            hint=how.hint,
            with_logs=True,
            interval=0,  # job.progress.follow waits instead, longer as the job grows older
            on_enqueue=job.accepted,
            on_queue_update=job.progress.follow,
            priority=how.priority,
            start_timeout=how.start_timeout,
            # fal-client sends it as the start timeout too, and that must be above 1 s;
            # the session holds the limit in any case.
            client_timeout=limit if limit and limit > 1 and not keep else None,
        )
        job.answered(response)
        return await save_media(job, response)


@generation("run", *QUEUE, *SAVE)
async def run_job(model: str, arguments: Arguments | Request, **options: Any) -> Any:
    """Run a model in a single HTTP call, without the queue, and give its response.

    For quick models: a response that is lost on the way cannot be fetched again.
    """
    job = Job(model)
    how = settings(job, options)
    async with fal_session(job, how.client_timeout):
        response = await fal_client.run_async(
            model,
            await prepared(how.endpoint(model), arguments),
            path=how.sub_path(model),
            timeout=how.client_timeout,
            start_timeout=how.start_timeout,
            hint=how.hint,
            headers=how.headers("priority"),
        )
        job.answered(response)
        return await save_media(job, response)


@generation("stream", *QUEUE, *SAVE)
async def stream_job(
    model: str, arguments: Arguments | Request, **options: Any
) -> AsyncGenerator[Any, None]:
    """Run a model that streams: one line of JSON for each event.

    The last event is the whole response, whose files --output saves. Few models stream; --path
    replaces /stream.
    """
    job, previews = Job(model), not options.get("media")
    how = settings(job, options)
    wanted = job.saving and job.saving.target
    async with fal_session(job, how.client_timeout):
        events: Any = fal_client.stream_async(
            model,
            await prepared(how.endpoint(model), arguments),
            path=how.sub_path(model, "/stream"),
            timeout=how.client_timeout,
            headers=how.headers("hint", "priority", "start_timeout"),
        )
        count = 0
        async with contextlib.aclosing(events):
            try:
                async for event in events:
                    held, job.response, count = job.response, event, count + 1
                    job.unprinted = [event] if wanted else []
                    if not wanted:
                        yield event
                    elif count > 1 and previews:
                        yield held
            except json.JSONDecodeError as exc:
                # How some models end a stream; fal-client reads all as JSON.
                if exc.doc != "[DONE]":
                    raise
        if not count:
            raise Failure("connection_lost", "the stream ended without an event", Exit.NETWORK)
        job.state = "done"
        if wanted:
            event, job.unprinted = await save_media(job, job.response), []
            yield event


def status_fields(status: fal_client.Status) -> Fields:
    """A status in fal's own words; `error` and `error_type` only where the job failed."""
    if isinstance(status, fal_client.Queued):
        return {"status": "IN_QUEUE", "queue_position": status.position, "logs": []}
    name = "COMPLETED" if isinstance(status, fal_client.Completed) else "IN_PROGRESS"
    fields = present(**vars(status))
    logs = fields.pop("logs", None)
    return {"status": name, "logs": logs if isinstance(logs, list) else [], **fields}


@command("status", MODEL, REQUEST_ID, CLIENT_TIMEOUT, example=JOB_EXAMPLE)
async def check_status(
    model: str, request_id: str, *, client_timeout: float | None = None
) -> Fields:
    """Show where a job is: {"request_id", "model", "status", "logs", ...}.

    The status is IN_QUEUE, IN_PROGRESS or COMPLETED. A job that failed is COMPLETED too, with
    an "error" and perhaps an "error_type".
    """
    async with fal_session(Job(model, request_id), client_timeout):
        status = await fal_client.status_async(model, request_id, with_logs=True)
        return {"request_id": request_id, "model": model, **status_fields(status)}


@command(
    "result",
    MODEL,
    REQUEST_ID,
    NO_WAIT,
    CLIENT_TIMEOUT,
    *SAVE,
    example=f"{JOB_EXAMPLE} --output pictures/",
)
async def fetch_result(
    model: str,
    request_id: str,
    *,
    no_wait: bool = False,
    client_timeout: float | None = None,
    job: Job | None = None,
    **saving: Any,
) -> Any:
    """Fetch the model's response to a job; waits for the job to end.

    fal keeps responses for a limited time.
    """
    job = job or Job(model, request_id)
    settings(job, saving)
    async with fal_session(job, client_timeout):
        return await save_media(job, await follow(job, no_wait))


async def follow(job: Job, no_wait: bool = False) -> Any:
    """Tell how a job is getting on, and give the model's response when it has ended."""
    model, request_id = str(job.model), str(job.request_id)
    while True:
        status = await fal_client.status_async(model, request_id, with_logs=True)
        if no_wait and not isinstance(status, fal_client.Completed):
            state = status_fields(status)["status"]
            raise Failure("not_finished", f"the job is {state}", retryable=True)
        await job.progress.follow(status)
        if isinstance(status, fal_client.Completed):
            job.failed = bool(status.error)
            break
    job.answered(await fal_client.result_async(model, request_id))
    return job.response


@command("cancel", MODEL, REQUEST_ID, CLIENT_TIMEOUT, example=JOB_EXAMPLE)
async def cancel_job(model: str, request_id: str, *, client_timeout: float | None = None) -> Fields:
    """Cancel a job: {"request_id", "model", "status": "CANCELLATION_REQUESTED"}.

    A job that waits never runs; one that runs is asked to stop, which it may ignore.
    """
    async with fal_session(Job(model, request_id), client_timeout):
        await fal_client.cancel_async(model, request_id)
    return {"request_id": request_id, "model": model, "status": "CANCELLATION_REQUESTED"}


async def uploaded(upload: Callable[..., Awaitable[str]], *what: Any) -> str:
    """The URL of what one of fal-client's functions uploads."""
    async with fal_session(Job()):
        return web_url(await upload(*what, **NO_FALLBACK))


@command("upload-file", FILE, example="--file photo.jpg", text=URL_TEXT)
async def upload_file(file: str) -> Fields:
    """Upload a file of any kind to fal's CDN and give its URL, which is public."""
    name = portable_name(file)
    with contextlib.ExitStack() as stack:
        if name != os.path.basename(file):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            file = shutil.copyfile(file, f"{folder}/{name}")
        return {"url": await uploaded(fal_client.upload_file_async, file)}


@command("upload-image", FILE, IMAGE_FORMAT, example=IMAGE_EXAMPLE, text=URL_TEXT)
async def upload_image(file: str, *, format: str = "jpeg") -> Fields:
    """Convert a picture, turn it upright, upload it, and give its URL, which is public."""
    return {"url": await uploaded(fal_client.upload_image_async, *open_image(file, format))}


@command("upload-raw", FILE_OR_STDIN, CONTENT_TYPE, example=RAW_EXAMPLE, text=URL_TEXT)
async def upload_raw(file: str, *, content_type: str) -> Fields:
    """Upload bytes under a content type of your own and give their URL, which is public."""
    with open_bytes(file) as source:
        data, name = Parts(source).whole_or_parts(), portable_name(file)
        return {"url": await uploaded(fal_client.upload_async, data, content_type, name)}


@command("encode-file", FILE, example="--file photo.jpg", text=DATA_TEXT)
def encode_file(file: str) -> Fields:
    """Give a file as a data URI, its content type told from its name; nothing is sent."""
    return {"data_uri": fal_client.encode_file(file)}  # type: ignore[arg-type]


@command("encode-image", FILE, IMAGE_FORMAT, example=IMAGE_EXAMPLE, text=DATA_TEXT)
def encode_image(file: str, *, format: str = "jpeg") -> Fields:
    """Convert a picture, turn it upright, and give it as a data URI; nothing is sent."""
    return {"data_uri": fal_client.encode_image(*open_image(file, format))}


@command("encode-raw", FILE_OR_STDIN, CONTENT_TYPE, example=RAW_EXAMPLE, text=DATA_TEXT)
def encode_raw(file: str, *, content_type: str) -> Fields:
    """Give bytes under a content type of your own as a data URI; nothing is sent."""
    return {"data_uri": fal_client.encode(read_bytes(file), content_type)}


@command(
    "realtime",
    MODEL,
    ARGUMENTS_JSON,
    SEED,
    EXTRA_JSON,
    ROUNDS,
    PATH,
    CLIENT_TIMEOUT,
    *SAVE,
    example='--model fal-ai/flux/schnell --arguments-json \'{"prompt": "A glowing orb"}\'',
)
async def realtime_session(
    model: str,
    arguments: Arguments,
    *,
    seed: int | None = None,
    extra_json: Arguments | None = None,
    rounds: int = 1,
    path: str | None = None,
    client_timeout: float | None = None,
    **saving: Any,
) -> AsyncGenerator[Any, None]:
    """Send arguments over a WebSocket, once a round: one line of JSON for each answer.

    Binary values in an answer are printed as data URIs. --path replaces /realtime.
    """
    message = {**arguments, **present(seed=seed), **(extra_json or {})}
    # A redirect would hand the arguments to a stranger; fal-client has no option against it.
    websockets.connect.process_redirect = lambda _, exc: exc  # type: ignore
    job = Job(model)
    job.arguments = message
    path = settings(job, {"path": path, **saving}).sub_path(model, "/realtime")
    async with (
        fal_session(job, client_timeout),
        fal_client.realtime_async(model, path=path) as connection,
    ):
        connection._ws.close_timeout = 1  # seconds, not 10; fal-client has no option for it
        for answered in range(rounds):
            # What fal said before it closed the connection tells more than that it is closed.
            with contextlib.suppress(websockets.ConnectionClosed):
                await connection.send(message)
                job.becomes("sent")
            answer = await connection.recv()
            if answer is None:
                said = f"fal closed the connection after {answered} of {rounds} answers"
                raise Failure("connection_lost", said, Exit.NETWORK)
            # fal-client hands on a refusal like any answer
            if isinstance(answer, dict) and answer.get("status") == "error":
                raise fal_client.client.RealtimeError(str(answer.get("error")))
            job.answered(answer)
            answer, job.unprinted = await save_media(job, answer), []
            yield answer


@command(
    "batch-t2i", MODEL, *CHECKS, *T2I.many, *T2I.shared, *QUEUE, *BATCH, example=T2I.batch_example
)
def batch_text_to_image(
    model: str, prompts: Sequence[str | Arguments], **options: Any
) -> AsyncGenerator[Fields, None]:
    """Run one job for each prompt: {"index", "prompt", "request_id", "result" or "error"} each.

    Lines come as jobs end. A job that fails takes no other with it; the exit status is then 1.
    """
    return run_batch(T2I, model, prompts, **options)


@command(
    "batch-i2v", MODEL, *CHECKS, *I2V.many, *I2V.shared, *QUEUE, *BATCH, example=I2V.batch_example
)
def batch_image_to_video(
    model: str, image_urls: Sequence[str | Arguments], **options: Any
) -> AsyncGenerator[Fields, None]:
    """Run one job for each image: {"index", "image_url", "request_id", "result" or "error"} each.

    Lines come as jobs end. A job that fails takes no other with it; the exit status is then 1.
    """
    return run_batch(I2V, model, image_urls, **options)


async def run_batch(
    task: Task,
    model: str,
    items: Sequence[str | Arguments],
    *,
    concurrency: int = 4,
    client_timeout: float | None = None,
    dry_run: bool = False,
    max_cost: float | None = None,
    keep: bool = False,
    **options: Any,
) -> AsyncGenerator[Fields, None]:
    """Yield each job's line as it ends, and raise a Failure at last if any job failed."""
    own, checks = taken(options, task.flags), taken(options, CHECKS)
    asked = [batch_job(task, own, item) for item in items]
    requests = [Request(verb="batch", task=task, asked=one, **checks) for one in asked]
    batch, again = Job(model), Again(**taken(options, AGAIN))
    endpoint = settings(batch, options).endpoint(model)
    jobs = batch_jobs(batch, asked, keep)
    with contextlib.closing(Journal(again.journal, dry_run)) as book:
        for job in jobs:
            book.attach(job, endpoint)
        due = [one for one, job in zip(requests, jobs, strict=True) if again.is_due(job)]
        if dry_run:
            quoted = await quote(endpoint, await fit_all(endpoint, requests, due), max_cost)
            for index, request in enumerate(requests):
                yield {"index": index, **await plan(model, request, quoted=quoted, **options)}
            return
        batch.hint = again.announce(jobs)
        async with fal_session(batch, client_timeout):
            fits = await fit_all(endpoint, requests, due)
            estimate = None if max_cost is None else await affordable(endpoint, fits, max_cost)
            subscribe = partial(subscribe_job, model, uploads=Uploads(), keep=keep, **options)
            slots = asyncio.Semaphore(concurrency)
            work = [
                batch_line(task.varied, job, slots, partial(subscribe, request), again)
                for job, request in zip(jobs, requests, strict=True)
            ]
            async with contextlib.aclosing(as_they_end(batch, jobs, work, estimate)) as lines:
                async for line in lines:
                    yield line


def batch_job(task: Task, shared: Arguments, item: str | Arguments) -> Fields:
    """The flags of one job of a batch, its own and those of all."""
    own: Fields = dict(item) if isinstance(item, Mapping) else {task.varied: item}
    extra = {**shared.get("extra_json", {}), **own.pop("extra", {})}
    return {**shared, **own, **present(extra_json=extra or None)}


def batch_jobs(batch: Job, asked: Sequence[Arguments], keep: bool) -> list[Job]:
    pace, jobs = Pace(), []
    for index, one in enumerate(asked):
        job = Job(batch.model, progress=Progress(f"[{index}] ", pace))
        job.index, job.arguments, job.saving, job.watched = index, one, batch.saving, not keep
        jobs.append(job)
    return jobs


async def fit_all(endpoint: str, requests: Sequence[Request], due: Sequence[Request]) -> list[Fit]:
    """What is to be submitted, fitted to the schema; all requests share it."""
    found = await requests[0].schema(endpoint)
    for request in requests:
        request.found = found
    return [request.fit(found) for request in due]


def summary(jobs: Sequence[Job], tally: Mapping[str, int], estimate: Any) -> str:
    """What became of a batch's jobs; skipped are those whose result the journal had."""
    parts = [f"{tally[name]} {name}" for name in ("done", "failed", "skipped")]
    if units := [one for job in jobs for one in job.units.values()]:
        parts.append(f"{sum(units):.12g} billable units")
    if estimate:
        parts.append(f"estimated at {estimate['total_cost']:.12g} USD")
    return f"jobs: {', '.join(parts)}"


AGAIN_HINT = (
    "Repeating the command costs nothing for jobs that fal has; --retry-failed submits those that"
    " failed again, --retry-unknown those in doubt, for money."
)


class Again:
    """What a batch does with jobs that its journal knows."""

    def __init__(
        self, journal: str | None = None, retry_unknown: bool = False, retry_failed: bool = False
    ) -> None:
        if (retry_unknown or retry_failed) and not journal:
            raise usage("--retry-unknown and --retry-failed need --journal")
        self.journal, self.unknown, self.failed = journal, retry_unknown, retry_failed

    def is_due(self, job: Job) -> bool:
        """Whether the job will be submitted, as far as can be told without asking fal."""
        known = {"done": False, "accepted": self.failed, "sent": self.unknown}
        return known.get(job.state, True)

    def announce(self, jobs: Sequence[Job]) -> str | None:
        """Say what the journal knows; returns the hint for those who give the batch up."""
        states = collections.Counter(job.state for job in jobs)
        if len(jobs) > states["new"]:
            asked = states["accepted"] + states["cancelled"]
            free = states["new"] + states["refused"]
            found = f"{states['done']} done, {asked} to look up, {states['sent']} in doubt"
            more = ", and again what has failed" if self.failed else ""
            note(f"journal: {found}, {free} to submit{more}")
        return "Repeat the command: it goes on where it stopped." if self.journal else None

    async def settle(self, job: Job, submit: Callable[..., Awaitable[Any]]) -> Any:
        """A job's response: from the journal, by its request id, or for money."""
        if job.state == "done":
            async with fal_session(job):
                return await save_media(job, job.response)
        if job.state == "sent" and not self.unknown:
            said = "an earlier run did not hear fal's answer: whether fal has the job is unknown"
            hint = f"If it is not at {REQUESTS_PAGE}, submit it with --retry-unknown."
            raise Failure("unknown_outcome", said, hint=hint)
        if job.state in ("accepted", "cancelled"):
            try:
                job.progress.say(f"request id {job.request_id}")
                return await fetch_result(str(job.model), str(job.request_id), job=job)
            except Failure as failure:
                over = job.failed or failure.status == 404
                if not (over and (self.failed or job.state == "cancelled")):
                    raise
        job.state, job.request_id, job.failed = "new", None, False
        return await submit(job=job)


async def batch_line(
    varied: str,
    job: Job,
    slots: asyncio.Semaphore,
    submit: Callable[..., Awaitable[Any]],
    again: Again,
) -> Fields:
    """What is printed of a job: one job that fails takes no other with it."""
    job.line = {"index": job.index, varied: job.arguments[varied]}
    outcome: Fields = {}
    async with slots:
        try:
            outcome = {"result": await again.settle(job, submit)}
        except Failure as failure:
            failure.about(job)
            if failure.unprinted:
                outcome = {"result": failure.unprinted[0]}
            outcome["error"] = failure.as_dict()
    return {**job.line, "request_id": job.request_id, **outcome}


async def as_they_end(
    batch: Job, jobs: Sequence[Job], work: Iterable[Coroutine[Any, Any, Any]], estimate: Any
) -> AsyncGenerator[Fields, None]:
    """Yield each job's line as it ends; what has not ended when nobody listens is cancelled.
    Raises a Failure at last if any job failed.
    """
    kept, tally = {job.index for job in jobs if job.state == "done"}, collections.Counter[str]()
    tasks = [asyncio.create_task(one) for one in work]
    try:
        for ended in asyncio.as_completed(tasks):
            line = await ended
            end = "skipped" if line["index"] in kept else "done"
            tally["failed" if "error" in line else end] += 1
            yield line
            jobs[line["index"]].unprinted = ()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # what was paid for when the batch was stopped while files were being saved
        left = [(job, document) for job in jobs for document in job.unprinted]
        batch.unprinted = [
            {**job.line, "request_id": job.request_id, "result": document} for job, document in left
        ]
        batch.lost = [str(job.request_id) for job, _ in left]
        batch.progress.say(summary(jobs, tally, estimate))
    if failed := tally["failed"]:
        message = f"{failed} of {len(jobs)} jobs failed: see their lines"
        raise Failure("batch_failed", message, hint=AGAIN_HINT if batch.hint else None)


def catalog_text(rows: Any) -> str:
    return "\n".join(f"{row['endpoint_id']}\t{row['title']}" for row in rows)


def tabbed(*columns: Any) -> str:
    """One line of text, whatever a server has put into its columns."""
    return "\t".join(printable(str(column)) for column in columns)


for _task in (T2I, I2V):
    command(f"list-{_task.suffix}", example="--json", text=catalog_text)(_task.catalog)


async def fetch_models(
    *, category: str | None = None, search: str | None = None, include_deprecated: bool = False
) -> list[Fields]:
    """All models that fal lists: {"endpoint_id", "metadata"?} each.

    fal's model search takes the filters and works without a key; a key only raises its rate
    limit (https://docs.fal.ai/platform-apis/v1/models).
    """
    status = None if include_deprecated else "active"
    params = present(category=category, q=search, status=status, limit=MODELS_PAGE_SIZE)
    key = None
    with contextlib.suppress(Failure):
        key = api_key()
    async with platform(key) as client:
        return await pages(client, MODELS_URL, "models", **params)


async def fetch_prices(endpoints: Sequence[str]) -> list[Fields]:
    """Prices that fal names: {"endpoint_id", "unit_price", "unit", "currency"} each."""
    async with platform(api_key()) as client:
        found = await priced(client, endpoints)
    known = {row["endpoint_id"] for row in found}
    missing = [f"fal names no price of {name}" for name in endpoints if name not in known]
    if not found:
        hint = f"It may stand on the model's page, https://fal.ai/models/{endpoints[0]}"
        raise Failure("not_found", "; ".join(missing), hint=hint)
    for text in missing:
        note(text)
    return sorted(found, key=lambda row: endpoints.index(row["endpoint_id"]))


async def priced(client: httpx.AsyncClient, endpoints: Sequence[str]) -> list[Fields]:
    rows = await pages(client, PRICES_URL, "prices", endpoint_id=list(dict.fromkeys(endpoints)))
    known = [row for row in rows if row.get("endpoint_id") in endpoints]
    return [
        row
        for number, row in enumerate(known)
        if row.get("unit_price") is not None and row not in known[:number]
    ]


def models_text(found: Any) -> str:
    """One line a model, endpoint, category and title; or one a category, with its count."""
    if isinstance(found, dict) and "properties" in found:
        fields = found["properties"].items()
        return "\n".join(field_line(name, field, found) for name, field in fields)
    if isinstance(found, dict):
        return "\n".join(tabbed(name, count) for name, count in found.items())
    priced = any("unit_price" in row for row in found)
    return "\n".join(map(price_line if priced else model_line, found))


def field_line(name: str, field: Fields, schema: Fields) -> str:
    """name, type, required or default, what is allowed, and a line of description."""
    kinds = [str(option.get("type", "any")) for option in options(field)]
    default = f"default {json.dumps(field['default'])}" if "default" in field else "optional"
    needed = "required" if name in schema.get("required", ()) else default
    allowed = ", ".join(map(json.dumps, offers(field))) or span(field)
    kind = "|".join(dict.fromkeys(kinds))
    return tabbed(name, kind, needed, allowed, field.get("description", ""))


def model_line(model: Fields) -> str:
    facts = metadata(model)
    title = str(facts.get("display_name") or "")
    if facts.get("status") == "deprecated":
        title += " [deprecated]"
    return tabbed(model.get("endpoint_id"), category_of(model), title)


def price_line(price: Fields) -> str:
    return tabbed(*map(price.get, ("endpoint_id", "unit_price", "unit", "currency")))


@command(
    "list-models",
    search_flag("--category NAME", "such as text-to-image or image-to-video", plain_text),
    search_flag("--search TEXT", "words to look for in names and descriptions", plain_text),
    search_flag("--include-deprecated", "deprecated models too"),
    search_flag(
        "--schema ENDPOINT", "show what this model takes: name, type, default, ...", endpoint
    ),
    search_flag(
        "--price ENDPOINT",
        "show what these models cost: endpoint, unit price, unit, currency (needs the key)",
        endpoint,
        nargs="+",
    ),
    output_flag("--categories", "only count the models of each category"),
    example="--category image-to-video --search kling",
    text=models_text,
)
async def list_models(
    *,
    categories: bool = False,
    schema: str | None = None,
    price: Sequence[str] = (),
    **filters: Any,
) -> Any:
    """List fal's models, live and without a key: endpoint, tab, category, tab, title.

    With --json, all that fal says about each; of --schema, the JSON Schema of the input.
    """
    if schema:
        found = await fetch_schema(schema)
        if found.input is None:
            message = f"fal does not tell what {schema} takes"
            raise Failure("not_found", message, hint=near_models(schema))
        return found.input
    if price:
        return await fetch_prices(price)
    models = await fetch_models(**filters)
    if not models:
        note("no model matches; --categories shows the categories there are")
    return count_categories(models) if categories else models


# Schemas: what fal says that a model takes


class ModelSchema(SimpleNamespace):
    """A model's input as JSON Schema, its references resolved; None if fal does not tell."""

    input: Fields | None = None
    state = "none"  # or fresh, or stale: kept from a day or more ago
    deprecated = False
    streams = False


async def fetch_schema(model: str) -> ModelSchema:
    """What the model takes, from a copy of at most a day, from fal, or else from an older copy."""
    kept, age = read_kept(model)
    found = schema_of(kept, model, "fresh")
    if found.input is not None and 0 <= age < 86400:
        return found
    row = None
    with contextlib.suppress(Exception):  # whatever fails, the user's request goes on without
        params = {"endpoint_id": model, "expand": "openapi-3.0"}
        async with time_limit(soon(10)), httpx.AsyncClient() as client:
            response = await client.get(MODELS_URL, params=params)
            answer = response.raise_for_status().json()
        row = next(row for row in answer["models"] if row["endpoint_id"] == model)
    found = schema_of(row, model, "fresh")
    if found.input is None:
        return schema_of(kept, model, "stale")
    keep(model, row)
    return found


def schema_of(row: Any, model: str, state: str) -> ModelSchema:
    """The input is the body of the document's POST on the endpoint, never a guess by name."""
    with contextlib.suppress(Exception):  # a document may be anything
        document = row["openapi"]
        body = document["paths"][f"/{model}"]["post"]["requestBody"]["content"]
        schema = resolve(body["application/json"]["schema"], document)
        facts = metadata(row)
        if isinstance(schema["properties"], dict):
            return ModelSchema(
                input=schema,
                state=state,
                deprecated=facts.get("status") == "deprecated",
                streams=bool(facts.get("stream_url")),
            )
    return ModelSchema()


def resolve(node: Any, document: Fields, seen: tuple[str, ...] = ()) -> Any:
    """The node with its references replaced; one that leads back to itself allows anything."""
    if isinstance(node, list):
        return [resolve(item, document, seen) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("$ref"), str):
        if name in seen:
            return {}
        target: Any = document
        for part in name.removeprefix("#/").split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part, {}) if isinstance(target, dict) else {}
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return resolve({**target, **beside}, document, (*seen, name))
    whole = {key: resolve(value, document, seen) for key, value in node.items()}
    for part in whole.pop("allOf", ()):
        whole = {**part, **whole}
    return whole


def cache_file(model: str) -> str:
    """Where the model's document is kept: in the user's cache folder."""
    places = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~")}
    place = os.environ.get("XDG_CACHE_HOME") or places.get(sys.platform, "~/.cache")
    return os.path.join(os.path.expanduser(place), "fal-skill", model.replace("/", "~") + ".json")


def read_kept(model: str) -> tuple[Any, float]:
    """The copy of a model's row and its age in seconds; None if there is none of use."""
    with contextlib.suppress(Exception):  # torn, foreign or unreadable
        path = cache_file(model)
        if os.path.isfile(path):  # opening a pipe would wait for ever
            with open(path, encoding="utf-8") as file:
                row = json.load(file)
            if row["endpoint_id"] == model:
                return row, time.time() - os.path.getmtime(path)
    return None, 0.0


def keep(model: str, row: Any) -> None:
    """Write the copy whole or not at all; a home that cannot be written to is no problem."""
    with contextlib.suppress(OSError):
        path = cache_file(model)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.{os.urandom(4).hex()}"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(row, file)
        os.replace(part, path)


# Fitting: from what the user asked to what the model's own schema takes

# The names that models give to what a flag sets; the first that the model has is used.
NAMES = {
    "prompt": ("prompt",),
    "negative_prompt": ("negative_prompt",),
    "num_images": ("num_images",),
    "seed": ("seed",),
    "guidance_scale": ("guidance_scale", "cfg_scale", "guidance"),
    "num_inference_steps": ("num_inference_steps", "steps_num", "num_steps", "steps"),
}
FIRST_IMAGE = (
    *("image_url", "start_image_url", "first_frame_url"),
    *("first_frame_image_url", "first_image_url", "input_image_url"),
)
LAST_IMAGE = (
    *("end_image_url", "tail_image_url", "last_frame_url"),
    *("last_frame_image_url", "last_image_url"),
)
IMAGE_LISTS = ("image_urls", "input_image_urls", "reference_image_urls")
SIZES = ("image_size", "video_size")
LENGTHS = ("duration", "duration_seconds", "seconds")
FRAMES = ("num_frames", "frames_per_second", "fps", "frame_rate", "export_fps")
PRESETS = {  # fal's names for sizes, in pixels
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


class Fit:
    """The arguments for a model, built up from what the user asked; it knows no model by name.

    `notes` tell what became something else; `problems` are {"field", "message", "type"} each.
    """

    def __init__(self, schema: Fields, strict: bool = False) -> None:
        self.fields: Fields = schema.get("properties", {})
        self.required: list[str] = schema.get("required", [])
        self.schema, self.strict = schema, strict
        self.arguments: Fields = {}
        self.notes: list[str] = []
        self.problems: list[Fields] = []

    def first(self, names: Iterable[str]) -> str | None:
        """The first of the names that the model has."""
        return next((name for name in names if name in self.fields), None)

    def refuse(self, field: str, message: str, type: str) -> None:
        self.problems.append({"field": field, "message": message, "type": type})

    def lacks(self, flag: str, why: str = "") -> None:
        """Leave out what the model has not; unknown fields are ignored by fal, and billed."""
        if self.strict:
            self.refuse(flag, f"the model has no such argument{why}", "unknown_field")
        else:
            self.notes.append(f"the model has no {flag}: it is not sent{why}")


def fit(asked: Mapping[str, Any], schema: Fields, strict: bool = False) -> Fit:
    """Arguments, notes and problems for what the flags asked; pure, and the same every time."""
    it, rest = Fit(schema, strict), dict(asked)
    extra = rest.pop("extra_json", {})
    fit_size(it, rest.pop("width", None), rest.pop("height", None))
    fit_images(it, as_list(rest.pop("image_url", [])))
    fit_length(it, rest.pop("duration", None))
    for flag, value in rest.items():
        name = it.first(NAMES[flag])
        if name is None:
            it.lacks(flag)
        else:
            it.arguments[name] = value
    for name in extra:
        if name in it.arguments:
            it.notes.append(f"{name} is sent as --extra-json has it")
        elif name not in it.fields:
            near = did_you_mean(name, it.fields) or "fal ignores what a model does not know."
            it.notes.append(f"the model has no {name}: it is sent all the same. {near}")
    it.arguments |= extra
    unprompted = "prompt" in it.required and "prompt" not in it.arguments
    if unprompted and not check("", it.fields["prompt"]):
        it.arguments["prompt"] = ""
        it.notes.append("the model requires a prompt: an empty one is sent")
    it.problems += check(it.arguments, {**schema, "type": "object"})
    return it


def fit_images(it: Fit, sources: list[str]) -> None:
    """The first picture starts the clip, the second ends it; a list takes all of them."""
    singles = [name for name in (it.first(FIRST_IMAGE), it.first(LAST_IMAGE)) if name]
    many = it.first(IMAGE_LISTS)
    if len(sources) <= len(singles) and it.first(FIRST_IMAGE):
        it.arguments |= dict(zip(singles, sources, strict=False))
    elif many:
        it.arguments[many] = sources
    elif singles:
        it.refuse(singles[0], f"takes {len(singles)} image(s), not {len(sources)}", "too_long")
    elif sources:  # what is left of the request without them is not what was asked
        it.refuse("image_url", "the model takes no image", "no_image")


def fit_length(it: Fit, seconds: float | None) -> None:
    """Seconds in the model's own type: "5", "8s", 5 or 5.0."""
    name = it.first(LENGTHS)
    if seconds is None:
        return
    if name is None:
        frames = [f"{name} {span(it.fields[name])}" for name in FRAMES if name in it.fields]
        why = f"; use --extra-json with {', '.join(frames)}" if frames else ""
        return it.lacks("duration", why)
    offered = offers(it.fields[name])
    kinds = {option.get("type") for option in options(it.fields[name])}
    whole = int(seconds) if seconds == int(seconds) else seconds
    value = whole if kinds & {"integer", "number"} or offered else str(whole)
    it.arguments[name] = next((one for one in offered if in_seconds(one) == seconds), value)


def fit_size(it: Fit, width: int | None, height: int | None) -> None:
    """Pixels as the model takes them: an object, a preset, a shape with a resolution, or bare."""
    name, sides = it.first(SIZES), present(width=width, height=height)
    if not sides:
        return
    if name and any("width" in option.get("properties", ()) for option in options(it.fields[name])):
        it.arguments[name] = sides
        if len(sides) == 1:
            it.notes.append(f"one side is given: the other is the model's default for {name}")
    elif it.fields.keys() & {"width", "height"}:
        it.arguments |= {side: value for side, value in sides.items() if side in it.fields}
        for side in (side for side in sides if side not in it.fields):
            it.lacks(side)
    elif not (name or it.first(("aspect_ratio", "resolution"))):
        it.lacks("size")
    elif not (width and height):
        it.refuse("size", "the model takes shapes: give both --width and --height", "missing")
    else:
        fit_shape(it, width, height)


def fit_shape(it: Fit, width: int, height: int) -> None:
    """The nearest preset; or the nearest aspect_ratio and the nearest resolution."""
    became, exact, whole = {}, True, False
    for name in (*SIZES, "aspect_ratio", "resolution"):
        measure = resolution_of if name == "resolution" else shape_of
        measured = {one: measure(one, width, height) for one in offers(it.fields.get(name, {}))}
        fits = {one: distance for one, distance in measured.items() if distance is not None}
        if fits:
            best = min(fits, key=lambda one: fits[one])
            became[name], exact = best, exact and max(fits[best]) < 0.001
        elif name == "aspect_ratio" and name in it.fields and not measured:  # any text
            became[name], whole = f"{width}x{height}", True
    it.arguments |= became
    # a shape alone says nothing of the pixels, and a resolution alone nothing of the shape
    whole = whole or len(became) > 1 or bool(became.keys() & set(SIZES))
    if not became:
        it.lacks("size")
    elif not (whole and exact):
        shown = " and ".join(f"{name} {value}" for name, value in became.items())
        it.notes.append(f"{width}x{height} becomes {shown}")


def shape_of(label: Any, width: int, height: int) -> tuple[float, float] | None:
    """How far "16:9", "1024x768" or a preset is from the size, in shape and in pixels."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([:x*]) ?(\d+(?:\.\d+)?)", str(label))
    if not found and label not in PRESETS:
        return None
    wide, tall = (float(found[1]), float(found[3])) if found else PRESETS[label]
    ratio = wide / tall * height / width
    pixels = 1.0 if found and found[2] == ":" else wide * tall / (width * height)
    return abs(math.log(ratio)), abs(math.log(pixels))


def resolution_of(label: Any, width: int, height: int) -> tuple[float, ...] | None:
    """How far "720p" (short side), "2K" (of 1024² or of a frame's width) or "4MP" is away."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(p|k|mp)", str(label).lower())
    if not found:
        return None
    asked: dict[str, tuple[float, ...]] = {
        "p": (min(width, height),),
        "k": (math.sqrt(width * height) / 1024, max(width, height) / 960),  # 3840x2160 is 4K
        "mp": (width * height / 1e6,),
    }
    return (min(abs(math.log(float(found[1]) / one)) for one in asked[found[2]]),)


def options(schema: Mapping[str, Any]) -> list[Fields]:
    """The alternatives that a schema leaves, or itself."""
    if isinstance(kinds := schema.get("type"), list):
        return [{**schema, "type": kind} for kind in kinds]
    return schema.get("anyOf") or schema.get("oneOf") or [dict(schema)]


def offers(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a field offers; none if it takes a range, or any text."""
    return [one for option in options(schema) for one in option.get("enum") or consts(option)]


def consts(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else []


def in_seconds(label: Any) -> float | None:
    """5, "5" or "5s" as seconds; None for "auto" and the like."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?s?", str(label))
    return float(found[1]) if found else None


def span(schema: Mapping[str, Any]) -> str:
    """The limits of a number, as far as the schema tells."""
    bounds = [option for option in options(schema) if "minimum" in option or "maximum" in option]
    return f"{bounds[0].get('minimum', '')}..{bounds[0].get('maximum', '')}" if bounds else ""


def check(value: Any, schema: Mapping[str, Any], field: str = "") -> list[Fields]:
    """What fal's pydantic would find wrong with a value: {"field", "message", "type"} each."""
    if value is None and schema.get("nullable"):
        return []
    if (alternatives := options(schema)) != [schema]:
        found = [check(value, option, field) for option in alternatives]
        return min(found, key=lambda one: (bool(one) and one[0]["type"] == "wrong_type", len(one)))
    offered, kind = schema.get("enum") or consts(schema), schema.get("type", "any")
    if offered and not any(same(value, one) for one in offered):
        shown = ", ".join(json.dumps(one) for one in offered)
        message = f"not one of {shown}; the closest is {json.dumps(closest(value, offered))}"
        return [problem(field, value, message, "literal_error")]
    if kind in TYPES and not TYPES[kind](value):
        return [problem(field, value, f"not {kind}", "wrong_type")]
    problems = [
        problem(field, value, f"{says} {schema[name]}", name)
        for name, (measure, holds, says) in LIMITS.items()
        if name in schema and (size := measure(value)) is not None
        if not holds(size, schema[name])
    ]
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        problems += [problem(dotted(field, name), None, "required", "missing") for name in missing]
        known = schema.get("properties", {})
        parts = [(name, item, known[name]) for name, item in value.items() if name in known]
    else:
        items = value if isinstance(value, list) else []
        parts = [(index, item, schema.get("items", {})) for index, item in enumerate(items)]
    return problems + [
        bad for name, item, part in parts for bad in check(item, part, dotted(field, name))
    ]


def closest(value: Any, offered: list[Any]) -> Any:
    """The nearest number, or the likest word."""
    numbers = {one: in_seconds(one) for one in offered}
    near = [one for one in offered if numbers[one] is not None]
    if near and (wanted := in_seconds(value)) is not None:
        return min(near, key=lambda one: abs(numbers[one] - wanted))  # type: ignore[operator]
    return max(offered, key=lambda one: difflib.SequenceMatcher(None, str(one), str(value)).ratio())


def same(value: Any, offered: Any) -> bool:
    """5 and 5.0 are the same to pydantic, 5 and "5" are not, nor are 1 and True."""
    return bool(value == offered) and type(value) in {int: (int, float), float: (int, float)}.get(
        type(offered), (type(offered),)
    )


def problem(field: str, value: Any, message: str, type: str) -> Fields:
    given = "" if value is None else f"{json.dumps(value, ensure_ascii=False)[:80]} is "
    return {"field": field, "message": given + message, "type": type}


def dotted(field: str, name: Any) -> str:
    return f"{field}.{name}" if field else str(name)


def as_number(value: Any) -> float | None:
    """A number, or the text of one, which pydantic takes for a number too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        return float(value)
    return None


def length_of(kind: Any, value: Any) -> int | None:
    return len(value) if isinstance(value, kind) else None


TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: (
        (as_number(value) or 0.0).is_integer() and as_number(value) is not None
    ),
    "number": lambda value: as_number(value) is not None,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


LIMITS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], bool], str]] = {
    "minimum": (as_number, operator.ge, "below"),
    "maximum": (as_number, operator.le, "above"),
    "exclusiveMinimum": (as_number, operator.gt, "not above"),
    "exclusiveMaximum": (as_number, operator.lt, "not below"),
    "minLength": (partial(length_of, str), operator.ge, "shorter than"),
    "maxLength": (partial(length_of, str), operator.le, "longer than"),
    "minItems": (partial(length_of, list), operator.ge, "fewer items than"),
    "maxItems": (partial(length_of, list), operator.le, "more items than"),
}


# Prices: what fal expects jobs to cost

# By fal's name for what it bills, without a plural s: the arguments that tell how much of it a
# job takes, and how much where neither they nor the model's defaults tell.
UNITS: dict[str, tuple[tuple[str, ...], float]] = {
    "image": ((*NAMES["num_images"], "max_images"), 1),
    "second": (LENGTHS, 0),
}


async def estimated(endpoint: str, fits: Sequence[Fit]) -> Fields:
    """What jobs may cost: {"jobs", "total_cost", "currency", "basis"}.

    That is what as many calls of the model cost in the past, or what the arguments come to by
    the price of a unit, whichever is more.
    """
    if not fits:
        return {"jobs": 0, "total_cost": 0, "currency": "USD", "basis": "nothing to submit"}
    jobs, key = len(fits), api_key()
    calls = {endpoint: {"call_quantity": jobs}}
    body = {"estimate_type": "historical_api_price", "endpoints": calls}
    try:
        async with platform(key) as client:
            asked = priced(client, [endpoint]), client.post(f"{PRICES_URL}/estimate", json=body)
            async with time_limit(soon(10)):
                rows, answer = await asyncio.gather(*asked)
            history = dollars(answer.raise_for_status().json(), "total_cost")
            if not rows:
                raise Failure("not_found", "fal names no price")
            row = max(rows, key=lambda one: dollars(one, "unit_price"))
            costs = {**by_history(row, fits, history), **by_unit(row, fits, history)}
            costs = {basis: round(cost, 9) for basis, cost in costs.items()}  # 3 x 0.1 is 0.3
            basis = max(costs, key=costs.__getitem__)
    except Failure as failure:
        said = f"the price of {jobs} job(s) of {endpoint} is not known: {failure.message}"
        retry = failure.retryable
        raise Failure("price_unknown", said, Exit.USAGE, retry, status=failure.status) from failure
    return {"jobs": jobs, "total_cost": costs[basis], "currency": "USD", "basis": basis}


def unit_of(price: Arguments) -> str:
    return str(price.get("unit")).strip().lower().removesuffix("s")


def by_history(price: Arguments, fits: Sequence[Fit], history: float) -> dict[str, float]:
    """What as many calls did cost; more if more than one image is asked for of each, unless the
    price of an image tells that better.
    """
    images = sum(told(it, *UNITS["image"]) for it in fits)
    if images <= len(fits) or unit_of(price) == "image":
        return {"historical price": history}
    return {f"historical price x {images:.12g} images": history / len(fits) * images}


def by_unit(price: Arguments, fits: Sequence[Fit], history: float) -> dict[str, float]:
    """What the arguments come to, as far as they tell how much of the price's unit they take."""
    unit, each = unit_of(price), dollars(price, "unit_price")
    quantities = [told(it, *UNITS.get(unit, ((), 0))) for it in fits]
    if each and not (history or all(quantities)):
        raise Failure("not_found", "fal has no history of it")
    return {f"{sum(quantities):.12g} x {each:.12g} USD per {unit}": sum(quantities) * each}


def told(it: Fit, names: Iterable[str], least: float) -> float:
    """The largest number that the names have in the arguments, or by the model's defaults."""
    fields = {name: field for name, field in it.fields.items() if isinstance(field, dict)}
    found = []
    for name in names:
        value = it.arguments.get(name, fields.get(name, {}).get("default"))
        number = as_number(value) if as_number(value) is not None else in_seconds(value)
        if number is None and name in it.arguments:
            raise Failure("unexpected_answer", f"{name} is no number: {json.dumps(value)[:80]}")
        found += [] if number is None else [number]
    return max(found, default=least)


def dollars(row: Arguments, name: str) -> float:
    amount, currency = as_number(row.get(name)), row.get("currency")
    if amount is None or not 0 <= amount < 1e100 or currency != "USD":
        message = f"fal's {name} is {row.get(name)} {currency}, which is no sum in USD"
        raise Failure("unexpected_answer", message)
    return amount


async def affordable(endpoint: str, fits: Sequence[Fit], limit: float | None) -> Fields:
    """The estimate for jobs; a Failure if it is above the limit."""
    found = await estimated(endpoint, fits)
    if limit is None or found["total_cost"] <= limit:
        return found
    cost = f"{found['total_cost']:.12g} USD ({found['basis']})"
    message = f"{len(fits)} job(s) may cost {cost}, more than --max-cost {limit}: nothing was sent"
    rows = [{"field": name, "message": str(found[name]), "type": "estimate"} for name in found]
    raise Failure("over_budget", message, Exit.USAGE, details=rows)


async def quote(
    endpoint: str, fits: Sequence[Fit], limit: float | None
) -> tuple[Fields | None, list[str]]:
    """The estimate for a dry run, or why there is none; only a limit insists on one."""
    try:
        return await affordable(endpoint, fits, limit), []
    except Failure as failure:
        if limit is not None:
            raise
        return None, [f"no estimate: {failure.message}"]


# Journal: what a batch knows of its jobs after it was killed


# What must be known of a job in each state.
JOURNAL_STATES = {
    "sent": "state",
    "refused": "state",
    "accepted": "request_id",
    "cancelled": "request_id",
    "done": "result",
}


class Journal:
    """A file that tells of each job how far it got; one process at a time works on it.

    Each step is a line of JSON, on disk before the next step is taken: {"job", "state", "at"},
    after sent with "model" and "about", after accepted with "request_id", after done with
    "result" and then "saved", its files. `job` is made of the endpoint and the arguments, local
    files by their content, so that a changed list finds its jobs again.
    Without a path nothing is kept.
    """

    START = b'{"job": "'

    def __init__(self, path: str | None, dry: bool = False) -> None:
        self._known: dict[str, Fields] = {}
        self._twins: collections.Counter[str] = collections.Counter()
        self._file = -1
        if path and not (dry and not os.path.exists(path)):
            self._open(path)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _open(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise usage(f"another process works on the journal {path}") from exc
        except (OSError, ImportError) as exc:  # Windows has no fcntl
            raise usage(f"cannot use the journal {path}: {words(exc)}") from exc
        content = read_bytes(path)
        if content[: len(self.START)] != self.START[: len(content)]:
            raise usage(f"not a journal: {path}")
        whole, _, torn = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                step = json.loads(line)
                known = self._known.setdefault(step["job"], {})
                known.update(step)
                known[JOURNAL_STATES[known["state"]]]
            except (ValueError, KeyError, TypeError, RecursionError) as exc:
                raise usage(f"line {number} of the journal {path} cannot be read") from exc
        os.ftruncate(self._file, len(content) - len(torn))
        if not whole:
            sync_folder(path)

    def attach(self, job: Job, endpoint: str) -> None:
        """Set a job to where the journal has it; what it becomes is recorded from then on."""
        if self._file < 0:
            return
        asked = job.arguments
        content = json.dumps([endpoint, with_media(file_digest, asked)], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:32]
        self._twins[name] += 1
        name += f"-{self._twins[name]}"  # twins are told apart by their order
        known = self._known.get(name, {})
        job.state, job.request_id = known.get("state", "new"), known.get("request_id")
        job.response, job.saved = known.get("result"), known.get("saved")
        topic = redact(str(asked.get("image_url") or asked.get("prompt")))[:200]
        job.record = partial(self._record, name, {"model": endpoint, "about": topic})

    def _record(self, name: str, about: Fields, state: str, **facts: Any) -> None:
        facts = about if state == "sent" else facts
        try:
            self._write({"job": name, "state": state, "at": utc_now(), **facts})
        except OSError as exc:
            message = f"the journal cannot be written to: {words(exc)}"
            if state == "sent":
                raise Failure("journal_failed", f"{message}; the job was not sent") from exc
            note(message)

    def _write(self, step: Fields) -> None:
        """Put a line on disk, whole or not at all."""
        line = f"{json_text(step)}\n".encode(errors="backslashreplace")
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise


def sync_folder(path: str) -> None:
    """Put a new file's name on disk as well."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    with contextlib.suppress(OSError):  # not every file system can
        os.fsync(folder)
    os.close(folder)


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def file_digest(source: str) -> str:
    """The same for the same picture, whatever its name."""
    if is_remote(source):
        return source
    return "sha256:" + hashlib.sha256(read_bytes(os.path.expanduser(source))).hexdigest()


# Files


def is_remote(source: str) -> bool:
    return re.match(r"https?://|data:", source, re.I) is not None


def first_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)


def media_type(head: bytes) -> str | None:
    """The content type that the first bytes of a file show."""
    matches = (name for name, start in SIGNATURES.items() if re.match(start, head, re.DOTALL))
    return next(matches, None)


def portable_name(path: str) -> str:
    """A file name that a header can carry: fal-client 1.0.3 fails on any that is not ASCII."""
    return re.sub(r"[^\w.-]+", "_", os.path.basename(path), flags=re.ASCII).lstrip(".") or "file"


def read_bytes(path: str) -> bytes:
    """The bytes of a file, or of stdin for `-`."""
    if path == "-":
        return sys.stdin.buffer.read() if sys.stdin else b""
    with open(path, "rb") as file:
        return file.read()


def open_bytes(path: str) -> IO[bytes]:
    """A file to read and to seek in; stdin, for `-`, by way of a temporary one."""
    if path != "-":
        return open(path, "rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115
    if sys.stdin:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return file


class Parts:
    """What fal-client cuts into parts as if it were bytes: a file, each part read in its turn."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        gc.collect()  # httpx leaves the parts that were sent in reference cycles
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        return self._file.read(stop - start)

    def whole_or_parts(self) -> Any:
        """What fal-client takes: bytes, unless there are so many that it cuts them."""
        return self if len(self) > fal_client.client.MULTIPART_THRESHOLD else self[:]


async def _maybe_upload(source: str) -> str:
    """A URL for a media file: a local one is uploaded, anything else is a URL already."""
    path = media_file(source)
    if is_remote(path):
        return path
    data = read_bytes(path)
    content_type, name = str(media_type(data[:32])), portable_name(path)
    return await uploaded(fal_client.upload_async, data, content_type, name)


def source_key(source: str) -> str:
    """The same for all ways of naming a file."""
    return source if is_remote(source) else os.path.realpath(os.path.expanduser(source))


class Uploads:
    """Uploads each local picture once, however many jobs name it."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[str]] = {}

    async def url(self, source: str) -> str:
        key = source_key(source)
        if key not in self._under_way:
            # a task of its own: its session must not be CURRENT for what the job sends
            self._under_way[key] = asyncio.ensure_future(_maybe_upload(source))
        return await asyncio.shield(self._under_way[key])

    async def replace(self, arguments: Arguments) -> Fields:
        """The arguments with a URL in place of each local file that they name."""
        sources: dict[str, str] = {}
        with_media(lambda source: sources.setdefault(source, source), arguments)
        urls = await asyncio.gather(*map(self.url, sources))
        done = dict(zip(sources, urls, strict=True))
        return dict(with_media(done.__getitem__, arguments))


def open_image(file: str, format: str) -> tuple[Image.Image, str]:
    """A picture upright as its EXIF orientation says, with Pillow's name of its new format."""
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
    except (ImportError, Failure):
        raise
    except Exception as exc:  # Pillow's readers raise anything over a broken file
        raise usage(f"not a picture that Pillow can read: {file}: {words(exc)}") from exc
    if format not in ("jpeg", "jpg"):
        return image, format
    if image.has_transparency_data:
        note("JPEG has no transparency: the picture is laid on white")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB"), "jpeg"


class Media(SimpleNamespace):
    """A file of a response: where it stands there, its URL or its bytes, and what is told of it."""

    field: str
    source: str | bytes
    content_type: str
    name: str

    @property
    def is_data(self) -> bool:
        return isinstance(self.source, bytes) or self.source[:5].lower() == "data:"


def find_media(
    value: Any, field: str = "", name: str = "", about: Mapping[Any, Any] = {}
) -> Iterator[Media]:
    """Every file that a response names or holds, in the response's order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            whole = field and key in ("url", "content") and isinstance(item, (str, bytes))
            inner = name if name.endswith("urls") else str(key)
            yield from find_media(item, field if whole else dotted(field, key), inner, value)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from find_media(item, dotted(field, index), name, about)
    elif isinstance(value, bytes) or (
        isinstance(value, str) and is_file(value, field, name, about)
    ):
        content_type, file_name = str(about.get("content_type") or ""), about.get("file_name")
        path = urls.unquote(re.split("[?#]", value)[0]) if is_link(value) else ""
        last = re.split(r"[/\\]", str(file_name or path))[-1]
        yield Media(field=field, source=value, content_type=content_type, name=last)


def is_link(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(r"https?://\S+", value, re.I) is not None


def is_file(text: str, field: str, name: str, about: Mapping[Any, Any]) -> bool:
    """Whether a text is the URL of a file, as far as the names around it tell: a link to a page
    is not, and a text that holds a link neither.
    """
    if re.match(r"data:[\w.+-]+/[\w.+-]+[^,\s]*,\S", text, re.I):
        return True
    if name == "url" and about.keys() & {"content_type", "file_name", "file_size"}:
        return text != ""
    if not is_link(text) or re.match(r"https?://[\w.-]+\.fal\.media/", text, re.I):
        return is_link(text)
    label = next((part for part in reversed(field.split(".")) if not part.isdigit()), "")
    word = re.sub(r"(_?url|_uri|_link)s?$", "", label, flags=re.I).rpartition("_")[2]
    named = not word or name.endswith("urls") or re.fullmatch(FILE_WORDS, word, re.I)
    page = re.fullmatch(PAGE_WORDS, word) or re.search(r"\.html?($|[?#])", text, re.I)
    return bool(named and not page)


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts(item)


class Saved(list):  # type: ignore[type-arg]
    """The files of a response that are saved; no answer from fal can hold one."""


def saved_paths(document: Any) -> list[str]:
    """The paths of what was saved of a response, or of that in a line of a batch."""
    for place in (document, document.get("result")) if isinstance(document, dict) else ():
        files = place.get("downloaded_files") if isinstance(place, dict) else None
        if isinstance(files, Saved):
            return [file["path"] for file in files]
    return []


def kept_files(job: Job, target: Target) -> list[Fields]:
    """What an earlier run saved at the same place, if it is there still."""
    place, files = job.saved or ("", [])
    there = place == target.text and all(size_of(file["path"]) == file["bytes"] for file in files)
    return list(files) if there else []


def size_of(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else -1


def fetch_again(job: Job, saving: Saving, target: Target, saved: Sequence[Any]) -> str | None:
    """The command that fetches the files of a job as this one would have."""
    if not job.request_id:
        return None
    where = target.text if job.index is None else target.text.replace("{index}", str(job.index))
    if target.file and saved:  # which has the name now
        where = os.path.join(os.path.dirname(where), "") or "./"
    words = ["result", "--model", job.model, "--request-id", job.request_id, "--output", where]
    switches = {
        "--overwrite": saving.overwrite,
        "--metadata": saving.metadata,
        "--media": saving.media,
    }
    words += [name for name, wanted in switches.items() if wanted]
    return f"Fetch them again: {command_line(*words)}"


async def save_media(job: Job, response: Any) -> Any:
    """The response, with "downloaded_files" once its files are saved where the user asked."""
    if not (job.saving and job.saving.target):
        return response
    saved, lost = Saved(), []
    own = response if isinstance(response, dict) else {"response": response}
    document = {**own, "downloaded_files": saved}
    job.unprinted, target = [document], job.saving.target
    saved += kept_files(job, target)
    if saved:
        if job.saving.metadata:
            note("files that an earlier run has saved get no metadata now")
        return document
    job.hint = fetch_again(job, job.saving, target, ())
    sent, known = set(texts(job.arguments)), set()
    async with httpx.AsyncClient(timeout=60) as client:
        for media in find_media(response):
            if media.source in known or media.source in sent:
                continue
            known.add(media.source)
            try:
                with failures(Job()):
                    saved.append(await save_file(client, media, job, job.saving, len(known) - 1))
            except Failure as failure:
                told = {"message": failure.message, "type": failure.type}
                lost.append({"field": redact(short_url(media))[:500], **told})
    if lost:
        message = f"{len(lost)} of {len(known)} files could not be saved"
        hint = fetch_again(job, job.saving, target, saved)
        raise Failure("download_failed", message, hint=hint, details=lost)
    job.record("done", saved=[target.text, saved])
    return document


async def save_file(
    client: httpx.AsyncClient, media: Media, job: Job, saving: Saving, number: int
) -> Fields:
    """Save one file: {"path", "url", "content_type", "bytes", "field"}."""
    target = saving.target
    assert target
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(contextlib.closing(PartFile(target.folder, saving.max_bytes)))
        told = part.decode(media.source) if media.is_data else await fetch(client, media, part)
        part.finish(told)
        kinds = (media_type(part.head), told, media.content_type)
        content_type = next((kind for kind in kinds if kind and kind != BINARY), BINARY)
        extension = extension_for(content_type, target.asked, media.name)
        facts = {"url": short_url(media, content_type), "field": media.field}
        stem, extension = target.place(name_values(media, job, number), extension)
        os.makedirs(os.path.dirname(stem), exist_ok=True)
        parts = {extension: part}
        if saving.metadata:
            beside = stack.enter_context(contextlib.closing(PartFile(target.folder, sys.maxsize)))
            beside.write((json_text(origin(job, facts), 2) + "\n").encode())
            beside.finish()
            parts[".meta.json" if extension == ".json" else ".json"] = beside
        paths = saving.claim(stem, *parts)
        try:
            for one, path in zip(parts.values(), paths, strict=True):
                one.keep(path)
        except OSError as exc:
            saving.release(paths)
            raise Failure("write_failed", f"the file cannot be written: {words(exc)}") from exc
    if target.asked not in ("", extension):
        note(f"{target.text} is saved as {paths[0]}")
    return {"path": paths[0], "content_type": content_type, "bytes": part.size, **facts}


def short_url(media: Media, content_type: str = BINARY) -> str:
    """The URL, or the head of a data URI without the data."""
    if isinstance(media.source, bytes):
        return f"data:{content_type};base64,…"
    return f"{media.source.partition(',')[0][:100]},…" if media.is_data else media.source


def origin(job: Job, facts: Fields) -> Fields:
    """What it takes to make a file again."""
    tool = {"name": PROGRAM, "version": __version__}
    known = {"model": job.model, "request_id": job.request_id, "arguments": job.arguments}
    return {**known, "seed": fact(job, "seed"), "time": utc_now(), **facts, "tool": tool}


def fact(job: Job, name: str) -> Any:
    """A field of the job's response, or else of its arguments."""
    own = job.response if isinstance(job.response, dict) else {}
    return own[name] if own.get(name) is not None else (job.arguments or {}).get(name)


def name_values(media: Media, job: Job, number: int) -> dict[str, str]:
    """The values of the fields of --output, but for {ext}: none of them leads to a folder."""
    values = {
        "index": number if job.index is None else job.index,
        "name": os.path.splitext(media.name)[0],
        "request_id": job.request_id,
        "model": job.model,
        "seed": fact(job, "seed"),
        "prompt": str(fact(job, "prompt") or "none")[:50],
        "date": utc_now()[:10],
    }
    return {
        name: safe_name("none" if value is None else str(value)) for name, value in values.items()
    }


def safe_name(text: str) -> str:
    """A text as a part of a file name: visible, no path, and no device of Windows'."""
    name = shortened(re.sub(r"[^\w.-]+", "-", redact(text)[:200]), 80).strip("-.") or "none"
    return f"_{name}" if re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name, re.I) else name


def extension_for(content_type: str, asked: str, name: str) -> str:
    """The one asked for if it suits the content or nobody knows better; else the content's."""
    if asked and content_type == mimetypes.guess_type(f"x{asked}")[0]:
        return asked
    known = mimetypes.guess_extension(content_type)
    if not known and content_type in SIGNATURES:
        known = f".{content_type.partition('/')[2]}"
    if known and content_type != BINARY:
        return known
    told = re.fullmatch(r".+(\.[A-Za-z0-9]{1,12})", name, re.DOTALL)
    return asked or (told[1].lower() if told else ".bin")


async def refuse_private(client: httpx.AsyncClient, url: httpx.URL) -> None:
    """Keep answers from sending this program to its own machine, or to its neighbours."""
    host = url.raw_host.decode().rstrip(".").lower()
    allowed = url.scheme in ("http", "https") and host != "" and not url.userinfo
    try:
        addresses = [ipaddress.ip_address(host)]
    except ValueError:
        addresses = []
        # the system takes 127.1 and 0x7f.1 for addresses, too
        numeric = re.search(r"(^|\.)(\d+|0x[0-9a-f]*)$", host)
        local = host.endswith((".localhost", ".local", ".internal"))
        allowed = allowed and "." in host and not (numeric or local)
        if allowed and client._transport_for_url(url) is client._transport:  # no proxy's business
            found = await asyncio.get_running_loop().getaddrinfo(host, url.port or 443)
            addresses = [ipaddress.ip_address(one[4][0]) for one in found]
    for one in addresses:
        allowed = allowed and one.is_global and not (one.is_multicast or one.is_reserved)
    if not allowed:
        raise Failure("refused_url", f"not a public http(s) URL: {str(url)[:200]}")


@contextlib.asynccontextmanager
async def opened(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]
) -> AsyncIterator[httpx.Response]:
    """The answer that the URL leads to, each hop checked; no cookie is kept or handed on."""
    for _ in range(MAX_REDIRECTS + 1):
        await refuse_private(client, url)
        client.cookies.clear()
        async with client.stream("GET", url, headers=headers) as response:
            if not response.has_redirect_location:
                yield response
                return
            url = url.join(response.headers["location"])
    raise Failure("refused_url", f"more than {MAX_REDIRECTS} redirects")


async def fetch(client: httpx.AsyncClient, media: Media, part: PartFile) -> str:
    """Stream a file into its part; returns its content type. What breaks is taken up again."""
    for backoff in (*FILE_BACKOFF, None):
        try:
            async with opened(client, httpx.URL(str(media.source)), part.wanted()) as response:
                part.begin(response)
                async for chunk in response.aiter_bytes():
                    part.write(chunk)
            part.check()
            break
        except Exception as exc:
            failure = explain(exc)
            if backoff is None or not (failure and failure.retryable):
                raise
        await asyncio.sleep(backoff)
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


class PartFile:
    """A file that gets its name only when it is complete."""

    def __init__(self, folder: str, most: int) -> None:
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, f".{os.urandom(8).hex()}.part")
        self._file = open(self._path, "xb")  # noqa: SIM115
        self._most = most
        self._restart()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, where closing writes what is left
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.head, self.size = b"", 0
        self._total: int | None = None
        self._resume: dict[str, str] | None = None  # headers that go with Range

    def wanted(self) -> dict[str, str]:
        """The headers that ask for what is still missing."""
        headers = {"Accept-Encoding": "identity"}
        if self.size and self._resume is not None:
            return {**headers, "Range": f"bytes={self.size}-", **self._resume}
        return headers

    def begin(self, response: httpx.Response) -> None:
        """Go on where the answer does, or start over; refuse what is too large at once."""
        headers, status = response.headers, response.status_code
        if (
            headers.get("content-encoding", "identity") != "identity"
        ):  # a few bytes may be gigabytes
            raise Failure("unexpected_answer", "the file came packed, which was not asked for")
        start = f"bytes {self.size}-"
        if status == 206 and self.size and headers.get("content-range", "").startswith(start):
            total = headers["content-range"].rpartition("/")[2]
        else:
            self._restart()
            total = headers.get("content-length", "")
            if status != 200:
                busy = status in (206, 408, 416, 425, 429) or status >= 500
                message = f"{response.url.host} answered HTTP {status}"
                raise Failure("http_error", message, retryable=busy)
            etag = headers.get("etag", "W/")
            total = "" if "transfer-encoding" in headers else total
            if not etag.startswith("W/"):
                self._resume = {"If-Range": etag}
            elif headers.get("accept-ranges") == "bytes":
                self._resume = {}
        self._total = int(total) if re.fullmatch(r"\d{1,18}", total) else None
        self._measure(self._total or 0)

    def _measure(self, size: int) -> None:
        if size > self._most:
            raise Failure("too_large", f"the file has more than {self._most} bytes (--max-bytes)")

    def check(self) -> None:
        """Whether all of it is here."""
        if self._total not in (None, self.size):
            message = f"{self.size} of {self._total} bytes came"
            raise Failure("connection_lost", message, retryable=True)

    def write(self, chunk: bytes) -> None:
        self._measure(self.size + len(chunk))
        self.head += chunk[: 32 - len(self.head)]
        self.size += len(chunk)
        try:
            self._file.write(chunk)
        except OSError as exc:
            raise Failure("write_failed", f"the file cannot be written: {words(exc)}") from exc

    def decode(self, source: str | bytes) -> str:
        """Write bytes, or those of a data URI; returns the content type that it tells."""
        if isinstance(source, bytes):
            self.write(source)
            return ""
        header, _, payload = source[5:].partition(",")
        raw = urls.unquote_to_bytes(payload)
        try:
            packed = header.lower().endswith(";base64")
            self.write(base64.b64decode(b"".join(raw.split()), validate=True) if packed else raw)
        except ValueError as exc:
            raise Failure("unexpected_answer", f"the data URI is broken: {words(exc)}") from exc
        return header.partition(";")[0]

    def finish(self, told: str = "") -> None:
        """Put it on disk whole, unless it is none of what was asked for."""
        if not self.size or (told == "text/html" and not media_type(self.head)):
            what = "a web page came in its place" if self.size else "the file is empty"
            raise Failure("unexpected_answer", what)
        try:
            self._file.close()
        except OSError as exc:
            raise Failure("write_failed", f"the file cannot be written: {words(exc)}") from exc

    def keep(self, path: str) -> None:
        """Give the file its name; a link of that name is replaced, not followed."""
        os.replace(self._path, path)


# Model search


def count_categories(models: Iterable[Fields]) -> dict[str, int]:
    """How many models each category has, the largest first."""
    counts = collections.Counter(map(category_of, models))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def metadata(model: Fields) -> Fields:
    """fal leaves the metadata of some models out."""
    found = model.get("metadata")
    return found if isinstance(found, dict) else {}


def category_of(model: Fields) -> str:
    return str(metadata(model).get("category") or "uncategorised")


def did_you_mean(text: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(text, list(known), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else None


def near_models(text: str) -> str:
    """A hint for an endpoint that does not exist."""
    near = did_you_mean(text, (*TEXT_TO_IMAGE_MODELS, *IMAGE_TO_VIDEO_MODELS))
    word = text.rpartition("/")[2] or text
    search = f"Search fal's models: {command_line('list-models', '--search', word)}"
    return f"{near} {search}" if near else search


# Failures


def answer_failure(response: Any, text: str) -> Failure:
    """What an error answer says, in any of the shapes that fal's hosts use."""
    status, headers = response.status_code, response.headers
    unexpected = ("unexpected_answer", Exit.FAILED, False)
    type, exit, retryable = STATUSES.get(status) or STATUSES.get(status // 100, unexpected)
    try:
        own_type, message, details = refusal(json.loads(redact(text)))
    except ValueError:  # a gateway's HTML page
        own_type, message, details = None, f"fal's gateway answered HTTP {status}", None
        if status in (502, 503, 504):
            type, exit = "gateway_error", Exit.NETWORK
    told = told_retry(headers)
    if headers.get("x-fal-request-timeout-type"):  # it did not start in time, and never will
        exit, told = Exit.TIMEOUT, True
    if message.startswith("User is locked"):  # seen in 2026; nothing but the text tells
        own_type = "account_locked"
    type = own_type or headers.get("x-fal-error-type") or type
    retryable = retryable if told is None else told
    failure = Failure(type, message, exit, retryable, status=status, details=details)
    failure.told = told is not None
    return failure


def told_retry(headers: Mapping[str, str]) -> bool | None:
    """fal's own word on whether a repetition may help, if it says one."""
    said = headers.get("x-fal-retryable") or headers.get("x-fal-needs-retry")
    return said.lower() in ("true", "1") if said else None


def refusal(body: Any) -> tuple[str | None, str, list[Fields] | None]:
    """Type, message and details of an error body; any of fal's fields may be missing or odd."""
    body = body if isinstance(body, dict) else {"detail": body}
    if isinstance(body.get("error"), dict):  # api.fal.ai
        body = {"error_type": body["error"].get("type"), "detail": body["error"].get("message")}
    if (word := body.get("status")) in QUEUE_WORDS:
        return word.lower(), QUEUE_WORDS[word], None
    said = next(
        (body[key] for key in ("detail", "error", "status", "message") if body.get(key)), ""
    )
    if isinstance(said, list):  # the model refused its arguments
        details = [detail(item) for item in said]
        message = "; ".join(f"{item['field']}: {item['message']}".lstrip(": ") for item in details)
        return details[0]["type"], message, details
    message = said if isinstance(said, str) else json.dumps(said)
    type = body.get("error_type")
    return type if isinstance(type, str) else None, message or "fal gave no reason", None


def detail(item: Any) -> Fields:
    """An item of a 422's `detail`, flattened; the field without its leading "body"."""
    item = item if isinstance(item, dict) else {"msg": item}
    where = item.get("loc")
    names = [str(name) for name in where] if isinstance(where, list) else []
    return {
        "field": ".".join(names[1:] if names[:1] == ["body"] else names),
        "message": str(item.get("msg") or "refused"),
        "type": str(item.get("type") or "invalid_arguments"),
    }


# What fal's queue says in a word.
QUEUE_WORDS = {
    "NOT_FOUND": "fal knows no such request",
    "ALREADY_COMPLETED": "the job has ended already",
}

# What an HTTP status means where the answer does not say more; a digit stands for its class.
STATUSES: dict[int, tuple[str, int, bool]] = {
    401: ("unauthorized", Exit.CREDENTIALS, False),
    403: ("forbidden", Exit.CREDENTIALS, False),
    404: ("not_found", Exit.FAILED, False),
    408: ("request_timeout", Exit.FAILED, True),
    422: ("invalid_arguments", Exit.FAILED, False),
    429: ("rate_limited", Exit.FAILED, True),
    499: ("client_cancelled", Exit.FAILED, False),
    4: ("bad_request", Exit.FAILED, False),
    5: ("server_error", Exit.FAILED, True),
}


def http_failure(exc: Any) -> Failure:
    return answer_failure(exc.response, exc.response.text)


def handshake_failure(exc: Any) -> Failure:
    """The answer to a WebSocket upgrade that fal refused."""
    return answer_failure(exc.response, (exc.response.body or b"").decode(errors="replace"))


def realtime_failure(exc: Any) -> Failure:
    """An error frame, or the end of the connection; idle ones end after about 30 s."""
    if exc.error in ("CONNECTION_CLOSED", "TIMEOUT"):
        return BROKEN(exc)
    if exc.error == "Unauthorized":
        return Failure("unauthorized", words(exc), Exit.CREDENTIALS)
    return Failure("realtime_error", words(exc))


def missing_package(exc: Any) -> Failure | None:
    package = PACKAGES.get((exc.name or "").partition(".")[0])
    return usage(f"{package} is not installed: pip install {package}") if package else None


def stop_failure(exc: Any) -> Failure:
    """What the first signal to the command meant; without one, Ctrl-C came before its time."""
    return (INTERRUPTED if console.stopped in (None, signal.SIGINT) else TERMINATED)(exc)


def row(
    type: str, message: str, exit: int = Exit.FAILED, retryable: bool = False
) -> Callable[[Any], Failure]:
    """A Failure whose message tells what the exception says in place of {}."""
    return lambda exc: Failure(type, message.format(words(exc)), exit, retryable=retryable)


def words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


PACKAGES = {"fal_client": "fal-client", "httpx": "httpx", "PIL": "Pillow"}
UNREACHABLE = row("unreachable", "fal could not be reached: {}", Exit.NETWORK, True)
OUT_OF_TIME = row("timeout", "the time limit ran out", Exit.TIMEOUT)
INTERRUPTED = row("interrupted", "interrupted", Exit.INTERRUPTED)
TERMINATED = row("terminated", "terminated", Exit.TERMINATED)
BROKEN = row("connection_lost", "the connection to fal broke: {}", Exit.NETWORK, True)

# By full class name, so that nothing is imported to look one up. The most derived class wins.
# What is not here is a bug of ours and keeps its traceback.
FAILURES: dict[str, Callable[[Any], Failure | None]] = {
    "fal_client.client.FalClientHTTPError": http_failure,
    "fal_client.client.FalClientTimeoutError": OUT_OF_TIME,
    "fal_client.client.RealtimeError": realtime_failure,
    "httpx.HTTPStatusError": http_failure,
    "httpx.ConnectError": UNREACHABLE,
    "httpx.ConnectTimeout": UNREACHABLE,
    "httpx.ProxyError": UNREACHABLE,
    "httpx.TimeoutException": row("timeout", "fal did not answer in time: {}", Exit.TIMEOUT, True),
    "httpx.HTTPError": BROKEN,
    "httpx_sse._exceptions.SSEError": row("not_a_stream", "the model did not answer with a stream"),
    "websockets.exceptions.InvalidStatus": handshake_failure,
    "websockets.exceptions.InvalidHandshake": UNREACHABLE,
    "websockets.exceptions.WebSocketException": BROKEN,
    "asyncio.exceptions.TimeoutError": OUT_OF_TIME,  # Python 3.10
    "builtins.TimeoutError": OUT_OF_TIME,
    "builtins.ConnectionError": UNREACHABLE,
    "socket.gaierror": UNREACHABLE,
    "ssl.SSLError": UNREACHABLE,
    "builtins.OSError": lambda exc: usage(words(exc)) if exc.filename else BROKEN(exc),
    "builtins.RecursionError": row("unexpected_answer", "the JSON is nested too deeply"),
    "builtins.ModuleNotFoundError": missing_package,
    "builtins.KeyboardInterrupt": stop_failure,
    "asyncio.exceptions.CancelledError": stop_failure,
}

# Where the job's end is not known.
GIVEN_UP = (Exit.TIMEOUT, Exit.INTERRUPTED, Exit.TERMINATED)

HINTS = {
    "credentials_missing": f"Make a key at {KEYS_PAGE} and set FAL_KEY to it.",
    "credentials_malformed": f"Copy the key again from {KEYS_PAGE} into FAL_KEY.",
    "unauthorized": f"Check FAL_KEY: keys are made at {KEYS_PAGE}.",
    "forbidden": f"See at {KEYS_PAGE} what the key may be used for.",
    "account_locked": f"Top up or unlock the account at {BILLING_PAGE}.",
    "unreachable": "Check the network and HTTPS_PROXY, then repeat the command.",
    "rate_limited": "Wait a little, then repeat the command.",
    "already_completed": "Fetch the response with the command result.",
    "not_finished": "Repeat the command later, or without --no-wait to wait.",
    "download_failed": "The response is on stdout: fetch the URLs in it with another tool.",
    "not_a_stream": "Use subscribe-* for models that do not stream.",
    "content_policy_violation": "Reword the prompt, or use another picture.",
    "over_budget": "Ask for less, or whoever pays for more; list-models --price compares models.",
    "price_unknown": "Without --max-cost there is no limit: ask whoever pays.",
}


def explain(exc: BaseException) -> Failure | None:
    """The Failure behind an exception; None for a bug of ours."""
    if isinstance(exc, Failure):
        return exc
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(exc).__mro__)
    known = next((FAILURES[name] for name in names if name in FAILURES), None)
    return known(exc) if known else None


def unexpected_answer(exc: Exception) -> Failure:
    """fal-client 1.0.3 reads answers without checking them: KeyError, ValueError and so on."""
    message = f"fal gave an answer that cannot be read: {type(exc).__name__}: {words(exc)}"
    return Failure("unexpected_answer", message)


def advice(failure: Failure) -> str | None:
    """The next thing to do."""
    lost = failure.exit in (Exit.NETWORK, *GIVEN_UP) or failure.status == 429
    if lost and failure.model and failure.request_id and not failure.retryable:
        place = ("--model", failure.model, "--request-id", failure.request_id)
        return f"Look the job up: {command_line('result', *place)}"
    if failure.type in HINTS:
        return HINTS[failure.type]
    if failure.doubt:
        return f"What was sent may be running, and be billed: look at {REQUESTS_PAGE} first."
    if failure.exit == Exit.CREDENTIALS:
        return HINTS["unauthorized"]
    if failure.message.startswith("Path "):
        return f"{near_models(str(failure.model))} Few models stream or are realtime."
    if failure.status == 404 and failure.request_id:
        return "Check --model and --request-id; fal keeps results for a limited time."
    if failure.status == 404 and failure.model:
        return near_models(failure.model)
    if failure.type == "invalid_arguments" and failure.exit == Exit.USAGE:
        return f"What the model takes: {command_line('list-models', '--schema', failure.model)}"
    if failure.status == 422 and failure.model:
        return f"The model's arguments are described at https://fal.ai/models/{failure.model}/api"
    return None


def command_line(*words: Any) -> str:
    """A command that can be pasted into the shell that this one was started from."""
    return shlex.join([sys.executable, sys.argv[0], *map(str, words)])


# Output: the only code that writes to stdout and stderr


def redact(text: str) -> str:
    """The text without the key, whole or its secret half, as it is or inside JSON."""
    key, secret = (os.environ.get(name, "").strip() for name in ("FAL_KEY", "FAL_KEY_SECRET"))
    for word in (key, secret, key.rpartition(":")[2]):
        if len(word) >= 8:
            for form in (word, json.dumps(word)[1:-1]):
                text = text.replace(form, "[FAL_KEY]")
    return text


def printable(text: str) -> str:
    """Text from a server on one line, unable to steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


MARK = "MEDIA:"  # a line that starts with it has a chat agent send a file


def unmarked(text: str) -> str:
    """The text with no line that a chat agent takes for a file to send."""
    if MARK not in text.upper():
        return text
    return re.sub(r"(?im)^(\s*media):", r"\1 :", text)


def jsonable(value: Any, content_type: Any = None) -> Any:
    """A value that JSON can hold and that does not tell the key: bytes, which fal sends for
    images, become data URIs of the type told beside them; NaN and infinities become null.
    """
    if isinstance(value, Mapping):
        told = value.get("content_type")
        return {redact(str(name)): jsonable(item, told) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes):
        told = content_type if isinstance(content_type, str) else media_type(value[:32])
        return fal_client.encode(value, told or BINARY)
    if isinstance(value, float) and value - value != 0:
        return None
    return value if value is None or isinstance(value, (int, float)) else redact(str(value))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in UTF-8, but for what ends a line or steers a terminal, which is escaped."""
    text = json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return re.sub(
        "[\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: f"\\u{ord(found[0]):04x}", text
    )


class Pace:
    """How often to look at jobs.

    The end of a lone job is noticed within 5 % of its age, 0.1 s at least and 5 s at most. Jobs
    of a batch share that pace: as they are alike, they take turns until the first of them has
    ended, and what it took tells when to look at the others.
    """

    def __init__(self) -> None:
        self.followed = 0
        self._least: float | None = None  # seconds that the quickest job took
        self._news: asyncio.Event | None = None

    async def wait(self, age: float) -> None:
        """Until the next look at a job of that age in seconds."""
        turn = min(max(age * 0.05, 0.1), 5.0)
        if self._least is not None:
            return await asyncio.sleep(max(turn, min(self._least - age, 5.0)))
        self._news = self._news or asyncio.Event()
        news = asyncio.ensure_future(self._news.wait())
        try:  # not wait_for, which may swallow a cancellation before Python 3.12
            await asyncio.wait({news}, timeout=min(turn * self.followed, 5.0))
        finally:
            news.cancel()

    def ended(self, age: float) -> None:
        """A job has ended well at that age."""
        self._least = min(age, self._least or age)
        if self._news:
            self._news.set()


class Progress:
    """Tells how one job is getting on, each log line once, and waits between the looks at it."""

    def __init__(self, label: str = "", pace: Pace | None = None) -> None:
        self._label, self._pace = label, pace or Pace()
        self._state = ""
        self._seen: set[tuple[str, str]] = set()
        self._started: float | None = None

    def say(self, text: str) -> None:
        console.line(self._label + text)

    async def follow(self, status: fal_client.Status) -> None:
        """Report, then wait until it is time to look again."""
        if self._started is None:
            self._started = time.monotonic()
            self._pace.followed += 1
        age = time.monotonic() - self._started
        self._update(status, age)
        if not isinstance(status, fal_client.Completed):
            return await self._pace.wait(age)
        self._pace.followed -= 1
        if not status.error:
            self._pace.ended(age)

    def _update(self, status: fal_client.Status, age: float) -> None:
        fields = status_fields(status)
        for entry in fields["logs"]:
            self._log(entry)
        ended = isinstance(status, fal_client.Completed)
        state = fields["status"].lower().replace("_", " ")
        if fields.get("error"):
            state = "failed"
        if position := fields.get("queue_position"):
            state += f", {position} ahead"
        if console.is_terminal():
            state += f", {age:.0f} s"
        if state != self._state and (ended or console.has_room()):
            self._state = state
            console.state(self._label + state)

    def _log(self, entry: Any) -> None:
        """fal's list of logs is a window that slides: known lines are told by their content."""
        entry = entry if isinstance(entry, dict) else {"message": entry}
        key = str(entry.get("timestamp")), str(entry.get("message"))
        if key not in self._seen:
            self._seen.add(key)
            if not console.has_room():
                return note("further lines of the log are left out; the command status shows them")
            for line in key[1].splitlines():
                self.say(f"| {line}")


class Console:
    """stdout for data; stderr for progress, notes and the last word on a failure.

    Silent about progress until start(), so that an importer's stderr stays its own.
    """

    def __init__(self) -> None:
        self.quiet = True
        self.job = Job()  # the one that a failure of the whole command is about
        self.cancelled: list[str] = []
        self.running: list[str] = []
        self.doubtful = 0  # jobs of which nobody knows whether fal has them
        self.stopped: int | None = None  # the signal that stops the command
        self.notes: set[str] = set()
        self.media = False
        self.indent: int | None = 2
        self.writing = False
        self._live = False
        self._lines, self._spoke, self._started = 0, 0.0, time.monotonic()

    def start(self) -> None:
        self.__init__()  # type: ignore[misc]
        self.quiet = False
        sys.setrecursionlimit(10_000)  # answers may be nested as deep as json reads them
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever started Python
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
            stream = getattr(sys, name)
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")

    def emit(self, document: Any, indent: int | None = None, whole: bool = False) -> None:
        """JSON; or, with --media, the files that were saved, if any and if all is told by that."""
        paths = saved_paths(document) if self.media else []
        self._print("\n".join(f"{MARK}{path}" for path in paths))
        if whole or not paths or "error" in document:
            self._print(unmarked(json_text(document, indent)))

    def emit_text(self, text: str) -> None:
        self._print(unmarked(redact(text)))

    def _print(self, text: str) -> None:
        self._end_live()
        try:
            self._put(sys.stdout, text + "\n" if text else "")
        except BrokenPipeError:
            raise
        except OSError as exc:
            silence(sys.stdout)
            raise Failure("output_failed", f"stdout cannot be written to: {exc}") from exc

    def _put(self, stream: Any, text: str) -> None:
        self.writing = True
        try:
            stream.write(text)
            stream.flush()
        except KeyboardInterrupt:  # nobody reads, and nobody waits for that any longer
            silence(stream)
            raise
        finally:
            self.writing = False

    def show(self, document: Any, as_text: Callable[[Any], str] | None = None) -> None:
        if as_text:
            self.emit_text(as_text(document))
        else:
            self.emit(document, self.indent)

    def line(self, text: str) -> None:
        """A line of progress or a note."""
        if not self.quiet:
            self._end_live()
            self._write(redact(printable(text)))

    def state(self, text: str) -> None:
        """What a job is at: one line that changes on a terminal, or else a line."""
        if self.quiet or not self.is_terminal():
            return self.line(text)
        self._write(redact(f"\r{printable(text)}\x1b[K"), end="")
        self._live = True

    def fail(self, failure: Failure) -> None:
        """The last line: JSON for a program, words for a person."""
        self._end_live()
        shown = failure.as_dict()
        if not sys.stderr.isatty():
            return self._write(json_text({"error": shown}))
        self._write(redact(f"{self.red('error:')} {printable(failure.message)}"))
        if "hint" in shown:
            self._write(redact(f"hint: {printable(shown['hint'])}"))

    def job_report(self) -> str:
        """What became of the jobs that were not followed to their end."""
        told = ""
        if self.cancelled:
            told += f"; fal was asked to cancel {', '.join(self.cancelled)}"
        if self.running:
            told += f"; not cancelled: {', '.join(self.running)}"
        if self.doubtful:
            told += f"; {self.doubtful} more may be running: fal's answer did not come"
        return told

    def farewell(self) -> None:
        """What is worth knowing when the reader of stdout has left."""
        told = self.job_report()
        if self.job.lost:
            told += f"; not printed: {', '.join(self.job.lost)}"
        if self.quiet and self.job.request_id and not told:
            told = f"request id {self.job.request_id}"
        self.quiet = False
        if told:
            self.line(told.removeprefix("; "))

    def has_room(self) -> bool:
        """Whether stderr takes another line: fewer as time goes by, if no person watches."""
        now = time.monotonic()
        pause = max(1.0, (self._spoke - self._started) / 10)
        if self._lines >= FREE_LINES and now - self._spoke < pause and not self.is_terminal():
            return False
        self._lines, self._spoke = self._lines + 1, now
        return True

    def is_terminal(self) -> bool:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def red(self, text: str) -> str:
        coloured = self.is_terminal() and not os.environ.get("NO_COLOR")
        return f"\x1b[31m{text}\x1b[0m" if coloured else text

    def _end_live(self) -> None:
        if self._live:
            self._live = False
            self._write("\r\x1b[K", end="")

    def _write(self, text: str, end: str = "\n") -> None:
        try:
            self._put(sys.stderr, unmarked(text) + end)
        except OSError:  # nobody reads it any longer
            silence(sys.stderr)


def silence(stream: Any) -> None:
    """Send what is left in the stream's buffer nowhere, or Python fails on it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


console = Console()


def note(text: str) -> None:
    """Say on stderr what is done differently from what was asked."""
    if text not in console.notes:
        console.notes.add(text)
        console.line(f"note: {text}")


# The command line


def new_parser(**options: Any) -> argparse.ArgumentParser:
    """A parser whose complaints are Failures."""

    class Parser(argparse.ArgumentParser):
        def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
            sys.stdout.flush()  # --help into a closed pipe fails here and not at Python's end
            super().exit(status, message)

        def error(self, message: str) -> NoReturn:
            dashes = "expected one argument" in message or "expected at least one" in message
            hint = "A value that starts with a dash is written --flag=VALUE." if dashes else None
            raise usage(message, hint)

    # argparse's own way to find the width imports shutil and four compression modules
    width = os.get_terminal_size(1).columns - 2 if os.isatty(1) else 98
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=28, width=width)
    return Parser(allow_abbrev=False, formatter_class=layout, **options)


def read_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> Fields:
    """The values of the flags by `dest`."""
    try:
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            near = did_you_mean(unknown[0], parser._option_string_actions)
            raise usage(f"unrecognized arguments: {' '.join(unknown)}", near)
        return vars(args)
    except Failure as failure:
        failure.hint = failure.hint or f"See {parser.prog} --help."
        raise


def overview_parser() -> argparse.ArgumentParser:
    """What stands before a command: --help, which lists the commands, and --version."""
    summaries = (f"  {row.name:<15}{row.help.partition(chr(10))[0]}" for row in COMMANDS.values())
    parser = new_parser(
        prog=PROGRAM,
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description=__doc__,
        epilog="\n".join(("commands, each with a --help of its own:", *summaries)),
    )
    name = partial(read_value, "COMMAND", command_name)
    parser.add_argument("command", metavar="COMMAND", type=name, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def command_name(text: str) -> str:
    if text not in COMMANDS:
        raise usage(f"no such command: {text}", did_you_mean(text, COMMANDS))
    return text


def command_parser(command: Command) -> argparse.ArgumentParser:
    """The flags of one command, in their groups; rows that share a `dest` exclude each other."""
    name = f"{PROGRAM} {command.name}"
    example = f"example:\n  python {name} {command.example}".rstrip()
    parser = new_parser(prog=name, description=command.help.replace("%", "%%"), epilog=example)
    groups: Fields = {}
    for rows in alternatives((*command.flags, *([JSON] if command.text else []), QUIET)):
        title = rows[0].group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        place, options = groups[title], {}
        if len(rows) > 1:
            needed = any(row.options.get("required") for row in rows)
            place = place.add_mutually_exclusive_group(required=needed)
            options = {"required": False}
        for row in rows:
            place.add_argument(row.name, help=row.help, dest=row.dest, **row.options | options)
    return parser


def alternatives(flags: Iterable[Flag]) -> list[tuple[Flag, ...]]:
    """The flags, those with one `dest` together."""
    rows: dict[str, tuple[Flag, ...]] = {}
    for flag in flags:
        rows[flag.dest] = (*rows.get(flag.dest, ()), flag)
    return list(rows.values())


def parse(argv: Sequence[str]) -> tuple[Command, Fields]:
    """The command and the values of its flags. No other command's parser is built, and none at
    all where there is nothing to parse: argparse takes a third of what starting Python takes.
    """
    if argv and argv[0] in COMMANDS:
        command, words = COMMANDS[argv[0]], argv[1:]
        needed = any(flag.options.get("required") for flag in command.flags)
        return command, read_flags(command_parser(command), words) if words or needed else {}
    read_flags(overview_parser(), argv[:1])  # --help, --version, or what is wrong
    raise AssertionError(argv)


def perform(command: Command, flags: Fields) -> None:
    console.quiet = flags.pop("quiet", False)
    console.job = Job(flags.get("model"), flags.get("request_id"))
    console.media = flags.get("media", False)
    as_text = None if flags.pop("json", False) else command.text
    if flags and not sys.warnoptions:  # fal-client and Pillow warn programmers, not users
        warnings.simplefilter("ignore")
    outcome = command.operation(**present(**flags))
    if hasattr(outcome, "__await__") or hasattr(outcome, "__aiter__"):
        asyncio.run(deliver(outcome, as_text))
    else:
        console.show(outcome, as_text)


async def deliver(outcome: Any, as_text: Callable[[Any], str] | None) -> None:
    # websockets leaves errors in callbacks when a proxy hangs up; asyncio would print them.
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    # asyncio.run would wait for a thread that hangs in getaddrinfo, long after the time limit.
    loop.shutdown_default_executor = no_wait  # type: ignore[method-assign]
    with stopping_on_signals():
        if hasattr(outcome, "__await__"):
            return console.show(await outcome, as_text)
        console.indent = None
        async with contextlib.aclosing(outcome) as lines:
            async for line in lines:
                console.emit(line)


def is_stuck() -> bool:
    """Whether stdout or stderr waits for a reader that does not read."""
    streams = (sys.stdout, sys.stderr)
    with contextlib.suppress(OSError, ValueError):  # no file, or Windows
        return len(select.select([], streams, [], 0)[1]) < len(streams)
    return False


def leave_at_once() -> None:
    """End the process, with a last word unless a write is what hangs."""
    failure = stop_failure(KeyboardInterrupt())
    try:
        if not console.writing:
            conclude(failure)
    finally:
        os._exit(failure.exit)


async def no_wait(*_: Any) -> None:
    """Leave threads to themselves."""


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Cancel the running task at the first Ctrl-C, SIGTERM or SIGHUP; leave at the second."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop(number: int, frame: Any) -> None:
        if console.stopped:
            leave_at_once()
        console.stopped = number
        loop.call_soon_threadsafe(task.cancel)  # type: ignore[union-attr]
        if console.writing and is_stuck():  # only an exception ends a write
            raise KeyboardInterrupt

    handlers = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            with contextlib.suppress(ValueError):  # not in the main thread
                handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit status."""
    console.start()
    try:
        perform(*parse(sys.argv[1:] if argv is None else argv))
        return Exit.DONE
    except BrokenPipeError:
        silence(sys.stdout)
        console.farewell()
        return Exit.BROKEN_PIPE
    except SystemExit:  # --help, --version
        raise
    except BaseException as exc:
        return conclude(exc)


def conclude(exc: BaseException) -> int:
    """Print what was paid for all the same, then why it failed; returns the exit status."""
    failure = explain(exc)
    if failure is None:
        console.quiet = False
        for line in "".join(traceback.format_exception(exc)).splitlines():
            console.line(line)
        failure = Failure("internal_error", f"a bug in {PROGRAM}: {words(exc)}")
    failure.about(console.job)
    if console.running:
        failure.request_id = console.running[0]
    failure.message += console.job_report()
    failure.doubt = failure.doubt or console.doubtful > 0
    try:
        for document in failure.unprinted:
            console.emit(document, console.indent, whole=True)
    except BrokenPipeError:
        silence(sys.stdout)
    except (Failure, RecursionError):
        pass  # it says that stdout cannot be written to, and this failure came first
    console.fail(failure)
    return failure.exit


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    os._exit(exit_status)  # taking Python down in good order is a tenth of what list-t2i takes
