#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
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

Exit status: 0 done · 1 fal refused, the job failed, or the machine did · 2 bad usage, nothing
was sent · 3 no usable key, or a locked account · 4 fal not reached, or the connection broke ·
5 a time limit ran out · 130 interrupted · 141 the reader of stdout went away ·
143 terminated.

The key is read from the environment: FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET.

*-t2i takes any model that starts from words, *-i2v any that starts from a picture.

The map of this file. Each section is opened by a ruled comment. Tables and pure things come
first, the wire in the middle, the commands after what they call. Output and failures serve all.

    The start             lazy imports, and Ctrl-C while Python starts
    Vocabulary            exit statuses, failures, jobs, what became of them, flags and commands
    What fal offers       tables: models, hosts, limits, media types, what can go wrong
    Flags                 readers of values, a row for each flag, files of jobs, the two tasks
    Schemas and fitting   reading what a model takes, arguments made of what the user asked
    The wire              HTTP clients, fal-client's innards, paying once, sessions
    Records               steps on disk: what a batch knows of its jobs, the list of all jobs
    Files to send         written whole or not at all, pictures read, files uploaded
    Files in answers      what JSON names and holds, and where the user wants it
    Fetching and saving   files of a response, under free names
    Results to look at    the gallery of a command's jobs: a page, or a contact sheet
    Search and prices     models, what they take, prices, estimates
    Jobs and batches      options, orders, following a job, many jobs at once
    All in order          what --check looks at, and what is wrong with it
    Commands              one function each; they call the sections above
    Failures              from an exception or an answer to a Failure, what to do next
    Output                text made safe, the console, progress and its pace
    Command line          parsers, signals, main
"""

from __future__ import annotations

import os
import signal
import sys


def leave(number: int, frame: object) -> None:
    os._exit(128 + number)


# Until main() minds signals, Ctrl-C ends the command without a traceback. An importer's program
# keeps its own way.
is_command = __name__ == "__main__" or "skill-fal" in os.path.basename(sys.argv[0])
if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)

if sys.version_info < (3, 11):  # noqa: UP036
    import json

    found = sys.version.split()[0]
    error = {
        "type": "usage_error",
        "message": "Python 3.11 or newer is needed, and this is " + found,
        "retryable": False,
        "hint": "Install a newer Python, or run the script with uv, which brings one:"
        " uv run skill_fal.py",
    }
    if "--check" in sys.argv[1:2]:
        problem = {"what": error["message"], "hint": error["hint"]}
        document = {"ok": False, "python": {"version": found}, "problems": [problem]}
        sys.stdout.write(json.dumps(document) + "\n")
    sys.stderr.write(json.dumps({"error": error}) + "\n")
    sys.exit(2)

import argparse
import base64
import bisect
import collections
import contextlib
import contextvars
import errno
import fractions
import functools
import importlib
import importlib.util
import io
import itertools
import json
import math
import operator
import re
import shlex
import stat
import string
import time
import urllib.parse
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from enum import Enum, IntEnum, StrEnum
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeGuard, TypeVar

__version__ = "1.1.0"


class Lazy:
    """A module that is imported at its first use, for what most commands do without."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if self._name not in sys.modules:
            with any_home():
                importlib.import_module(self._name)
        return getattr(sys.modules[self._name], attribute)


@contextlib.contextmanager
def any_home() -> Iterator[None]:
    """Have a home folder, be it one that is not there: fal-client 1.0.3 is not imported without."""
    if os.path.expanduser("~") != "~":
        yield
        return
    os.environ["HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["HOME"]


if TYPE_CHECKING:
    import asyncio
    import csv
    import datetime
    import difflib
    import email.utils as email_utils
    import fcntl
    import gc
    import hashlib
    import html
    import http.cookiejar as cookiejar
    import importlib.metadata as distributions
    import ipaddress
    import logging
    import mimetypes
    import random
    import shutil
    import socket
    import sqlite3
    import ssl
    import tempfile
    import traceback
    import unicodedata
    import urllib.request as urllib_request

    import fal_client
    import httpx
    import httpx_sse
    import PIL
    import pillow_heif
    import websockets
    from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps, PngImagePlugin

    IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
else:
    asyncio = Lazy("asyncio")
    cookiejar = Lazy("http.cookiejar")
    csv = Lazy("csv")
    datetime = Lazy("datetime")
    difflib = Lazy("difflib")
    distributions = Lazy("importlib.metadata")
    email_utils = Lazy("email.utils")
    fal_client = Lazy("fal_client")
    fcntl = Lazy("fcntl")  # which Windows has not
    gc = Lazy("gc")
    hashlib = Lazy("hashlib")
    html = Lazy("html")
    httpx = Lazy("httpx")
    httpx_sse = Lazy("httpx_sse")  # which fal-client reads streams with
    Image = Lazy("PIL.Image")
    ImageChops = Lazy("PIL.ImageChops")
    ImageDraw = Lazy("PIL.ImageDraw")
    ImageFont = Lazy("PIL.ImageFont")
    ImageOps = Lazy("PIL.ImageOps")
    ipaddress = Lazy("ipaddress")
    logging = Lazy("logging")
    mimetypes = Lazy("mimetypes")
    PIL = Lazy("PIL")
    pillow_heif = Lazy("pillow_heif")  # which reads HEIC, where it is installed
    PngImagePlugin = Lazy("PIL.PngImagePlugin")
    random = Lazy("random")
    shutil = Lazy("shutil")
    socket = Lazy("socket")
    sqlite3 = Lazy("sqlite3")
    ssl = Lazy("ssl")
    tempfile = Lazy("tempfile")
    traceback = Lazy("traceback")
    unicodedata = Lazy("unicodedata")
    urllib_request = Lazy("urllib.request")
    websockets = Lazy("websockets")

Arguments = Mapping[str, Any]  # of a model, by name; or what the user asked, by flag
Fields = dict[str, Any]
Operation = TypeVar("Operation", bound=Callable[..., Any])


# ---------------------------------------------------------------------------------------------
# Vocabulary: exit statuses, failures, jobs, and what the command knows of its jobs.
# ---------------------------------------------------------------------------------------------


class Exit(IntEnum):
    """What the exit status of the command means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CREDENTIALS = 3
    NETWORK = 4
    TIMEOUT = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


# The statuses that leave open how a job ended.
GIVEN_UP = (Exit.TIMEOUT, Exit.INTERRUPTED, Exit.TERMINATED)


class ErrorKind(NamedTuple):
    """What a kind of failure means: a row of ERRORS.

    `retryable` says whether the same command may succeed if it is repeated as it is; `hint` is
    the next thing to do, where it is the same for all failures of the kind.
    """

    exit: Exit = Exit.FAILED
    retryable: bool = False
    hint: str | None = None


class Failure(Exception):
    """Everything that the user, the machine, the network or fal can cause, ready to be shown.

    `type` is a key of ERRORS, until answer_failure puts fal's own word there; `status` is an HTTP
    status; `retryable` overrules that of the kind;
    `details` holds {"field", "message", "type"} for each thing that went wrong; `job` is the job
    that it happened to.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        hint: str | None = None,
        details: list[Fields] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        meaning = ERRORS[kind]
        if retryable is None:
            retryable = meaning.retryable
        self.type = kind
        self.message = message
        self.exit = meaning.exit
        self.retryable = retryable
        self.status = status
        self.hint = hint
        self.details = details
        self.job: Job | None = None
        self.is_fals_word = False  # an answer of fal's says so, and no gateway's page
        self.retry_is_fals_word = False  # `retryable` is what fal says, and no guess of ours
        self.job_is_gone = False  # in fal's own word

    @property
    def model(self) -> str | None:
        return self.job.model if self.job else None

    @property
    def request_id(self) -> str | None:
        return self.job.request_id if self.job else None

    def happened_to(self, job: Job) -> Failure:
        """Name the job, unless one with a model is named already."""
        if self.model is None:
            self.job = job
            if job.paid and self.exit == Exit.USAGE:  # which promises that nothing was sent
                self.exit = Exit.FAILED
        return self

    def as_dict(self) -> Fields:
        """The error object of the last line, amended by what is known of the job."""
        return present(
            type=cut(self.type),
            message=cut(self.message),
            model=self.model,
            request_id=self.request_id,
            status=self.status,
            retryable=self.may_be_repeated(),
            hint=advice(self),
            details=self._bounded_details(),
        )

    def _bounded_details(self) -> list[Fields] | None:
        """As many of the details as a reader can take, the long ones cut."""
        if self.details is None:
            return None
        rows = []
        room = MAX_DETAILS
        for details_row in self.details:
            row = {name: cut(text, room // 2) for name, text in details_row.items()}
            room -= 50 + sum(map(len, row.values()))  # with the names and quotes around them
            if room <= 0:
                break
            rows.append(row)
        return rows

    def may_be_repeated(self) -> bool:
        """Whether a repetition may help and costs nothing, as far as fal does not decide."""
        if not self.retryable:
            return False
        if self.retry_is_fals_word or self.job is None:
            return True
        return not self.job.paid


def present(**values: Any) -> Fields:
    """The keywords that have a value."""
    return {name: value for name, value in values.items() if value is not None}


class JobState(StrEnum):
    """How far a request came; SENT and no further is what is in doubt."""

    NEW = "new"  # this command has sent nothing for it, be it that it only looks at the job
    SENT = "sent"
    REFUSED = "refused"  # fal has not taken it, or ended it at once
    ACCEPTED = "accepted"  # by fal, and billed
    CANCELLED = "cancelled"
    DONE = "done"
    # Nobody goes on from these two: they are told to the list of jobs.
    FAILED = "failed"
    LOST = "lost"  # fal's answer did not come, or fal does not know the job any longer


class Job:
    """The state of one request to fal, and who is told of it."""

    def __init__(
        self,
        model: str | None = None,
        request_id: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.endpoint = model  # with what --path adds to it
        self.request_id = request_id
        self.answer_id: str | None = None  # that fal gives a call outside the queue
        self.index: int | None = None  # its place in a batch
        self.state = JobState.NEW
        self.failed = False  # fal called the accepted job a failure
        self.taken_now = False  # by fal, since this command began
        self.sent_at = 0.0  # in seconds since 1970, be it by an earlier run
        self.is_looked_for = False  # on the account, since fal's answer did not come
        self.refused = False  # by the model, in its last word on the job
        self.last_status: Fields | None = None  # by which the job has ended
        self.unknown_since: float | None = None  # in the event loop's seconds; see known_word
        self.patience = LOOK_LIMIT  # seconds for which looks that make no sense are repeated
        self.cancelled_if_given_up = False
        self.deadline: float | None = None  # in the event loop's seconds
        self.asked: Arguments = {}  # by the user, by flag
        self.arguments: Arguments = {}  # what the user asked, then what was sent
        self.uploads: dict[str, str] = {}  # URLs, by local file; by content if of an earlier run
        self.response: Any = None
        self.raw_response: Any = None  # see set_aside
        self.unprinted: list[Any] = []  # answers that are paid for, or a report of what is wrong
        self.units: dict[str, float] = {}  # billed by fal, by the path of the answer that said so
        self.price: Price | None = None  # of a unit, if fal's list was asked
        self.saving: Saving | None = None
        self.saved: Any = None  # where an earlier run saved which files
        self.hint: str | None = None  # for those who give the job up
        self.progress = progress or Progress()
        self.records: list[Callable[..., None]] = []  # told what the job becomes

    @property
    def paid(self) -> bool:
        """Whether a repetition is a second job."""
        return self.state not in (JobState.NEW, JobState.REFUSED)

    @property
    def in_doubt(self) -> bool:
        return self.state == JobState.SENT and not self.request_id

    @property
    def billable_units(self) -> float | None:
        """The units of the job's own answers: it may be another than what was sent before."""
        request_id = self.request_id or ""
        units = [units for path, units in self.units.items() if request_id in path]
        return sum(units) if units else None

    @property
    def list_price(self) -> float | None:
        """What the units come to by fal's list, in USD; None if either is not known."""
        if self.price is None or self.billable_units is None:
            return None
        return round(self.price.cost_of(self.billable_units), 9)

    def becomes(self, state: JobState, **facts: Any) -> None:
        self.state = state
        self.tell(state, **facts)

    def tell(self, state: JobState, **facts: Any) -> None:
        """Tell all records a step of the job's, on disk before this returns."""
        for record in self.records:
            record(state, **facts)

    def fails(self, failure: Failure) -> None:
        """Tell all records what went wrong, and what it means for the job; and show it."""
        state = self._state_after(failure)
        if state is not None:
            error = {"type": failure.type, "message": cut(failure.message)}
            self.tell(state, error=error)
        if self.saving is not None:
            self.saving.show(self, failure)

    def _state_after(self, failure: Failure) -> JobState | None:
        """Where a failure leaves the job; None if it tells nothing about the job."""
        is_refused_by_model = self.state == JobState.ACCEPTED and failure.status == 422
        if self.state == JobState.DONE:
            return JobState.DONE
        if failure.is_fals_word and (self.failed or is_refused_by_model):
            return JobState.CANCELLED if failure.type == "client_cancelled" else JobState.FAILED
        if failure.job_is_gone:
            return JobState.LOST
        if self.state == JobState.NEW:
            return None
        if self.state == JobState.SENT:
            return JobState.FAILED if failure.is_fals_word else JobState.LOST
        if self.state == JobState.REFUSED:
            return JobState.FAILED
        return self.state

    def ended(self, status: fal_client.Status) -> None:
        """Tell the records that the job has ended, if it has, where nobody fetches its response."""
        if not isinstance(status, fal_client.Completed):
            return
        if not self.failed:
            self.becomes(JobState.DONE)
            return
        kind = str(status.error_type or "failed")
        self.tell(JobState.FAILED, error={"type": kind, "message": cut(str(status.error))})

    def accepted(self, request_id: str) -> None:
        if (self.state, self.request_id) == (JobState.ACCEPTED, request_id):
            return
        self.request_id = request_id
        RUN.request_ids.add(request_id)
        self.taken_now = True
        self.becomes(JobState.ACCEPTED, request_id=request_id)
        self.progress.say(f"request id {request_id}")

    def answered(self, response: Any) -> None:
        """The model's response is here: it can be printed whatever happens from now on."""
        self.response = self.take_back(response)
        self.unprinted = [self.response]
        self.becomes(JobState.DONE, result=self.response)

    def set_aside(self, answer: Any) -> None:
        """Keep an answer that nests too deeply for fal-client, or that is no JSON that can be
        read. fal-client is given {} in its place; take_back undoes that.
        """
        self.raw_response = answer

    def take_back(self, response: Any) -> Any:
        """What fal-client makes of an answer, or in its place what was set aside."""
        if self.raw_response is None:
            return response
        note("the response nests too deeply, or cannot be read: it is printed as it came")
        raw_response, self.raw_response = self.raw_response, None
        return raw_response

    def was_printed(self) -> None:
        self.unprinted = []

    def forget(self) -> None:
        """Start over, as if nothing had been sent."""
        self.state = JobState.NEW
        self.request_id = None
        self.failed = False
        self.taken_now = False
        self.refused = False
        self.last_status = None
        self.unknown_since = None
        self.raw_response = None


class Run:
    """What became of the jobs of this command: written by sessions, read by its last word."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.job = Job()  # the one that the command is about
        self.stopped_by: int | None = None  # a signal
        self.stopped_at = 0.0  # in the monotonic clock's seconds
        self.followed: list[Job] = []  # those of open sessions
        self.cancelled: list[str] = []  # request ids
        self.running: list[Job] = []  # given up, and not cancelled
        self.history = History()
        self.request_ids: set[str] = set()  # of its jobs, and of all that its journal knows
        self.jobs_in_doubt = 0  # nobody knows whether fal has them
        self.unprinted_ids: list[str] = []  # of jobs that a batch could not print

    @property
    def left_running(self) -> list[Job]:
        """Jobs that fal has and nobody waits for: given up, or about to be when the command is
        left at once.
        """
        known_ids = {job.request_id for job in self.running}
        known_ids.update(self.cancelled)
        jobs = list(self.running)
        for job in self.followed:
            if job.state == JobState.ACCEPTED and job.request_id not in known_ids:
                jobs.append(job)
        return jobs

    def report(self) -> str:
        """What became of the jobs that were not followed to their end, to add to a message."""
        parts = [""]
        if self.cancelled:
            parts.append(f"fal was asked to cancel {', '.join(self.cancelled)}")
        if self.left_running:
            request_ids = ", ".join(str(job.request_id) for job in self.left_running)
            parts.append(f"not cancelled: {request_ids}")
        if self.jobs_in_doubt:
            parts.append(f"{self.jobs_in_doubt} more may be running: fal's answer did not come")
        return "; ".join(parts)


def usage_error(message: str, hint: str | None = None) -> Failure:
    """A mistake in the command line or in what it names; nothing was sent."""
    return Failure("usage_error", message, hint=hint)


class FileType(NamedTuple):
    """A row of FILE_TYPES."""

    content_type: str  # or the name of a family
    extensions: str  # the usual one first
    signature: bytes | None = None  # an expression for the first bytes
    within: str = ""  # the content type or family of all such files
    is_harmless: bool = True  # to open: a server may choose the extension


class PictureRoom(NamedTuple):
    """A row of PICTURE_ROOMS."""

    modes: tuple[str, ...]
    max_side: int  # pixels
    has_clear_colour: bool = False  # a colour, or an entry of a palette, may be transparent


class Flag(NamedTuple):
    """One flag of the command line. Flags that share a `dest` are alternatives."""

    group: str  # the heading that it stands under in --help
    name: str
    metavar: str  # what --help shows in the place of the value
    help: str
    dest: str  # the keyword that the value goes on as
    read: Callable[[str], Any] | None = None  # makes the value of the text; a switch has none
    names: tuple[str, ...] = ()  # that models give to what it sets; the first they have is used
    like: str = ""  # the expression that other names of it match
    is_text: bool = False  # it sets a text, and else a number
    required: bool = False
    unless: str = ""  # the flag beside which it is not required
    action: Any = None  # these two as argparse has them
    nargs: str | None = None

    @property
    def takes_many(self) -> bool:
        return self.action == "append" or self.nargs == "+"

    def keywords(self) -> Fields:
        """What argparse is told of the flag, beside its name."""
        if self.read is None:
            default = None if self.names else False  # what is not given is not sent to models
            return {
                "help": self.help,
                "dest": self.dest,
                "required": self.required,
                "action": "store_true",
                "default": default,
            }
        return {
            "help": self.help,
            "dest": self.dest,
            "required": self.required,
            "metavar": self.metavar,
            "type": functools.partial(read_value, self.name, self.read),
            "action": self.action,
            "nargs": self.nargs,
        }


class Task(NamedTuple):
    """What each generation command does with one kind of model."""

    suffix: str
    models: Mapping[str, str]  # titles by endpoint
    flags: tuple[Flag, ...]
    build: Callable[..., Fields]
    about: str  # which models it takes
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
        return [
            {"endpoint_id": endpoint, "title": title} for endpoint, title in self.models.items()
        ]


class Command(NamedTuple):
    """A subcommand: its operation gives a document, or yields lines."""

    name: str
    operation: Callable[..., Any]
    flags: tuple[Flag, ...]
    help: str
    example: str
    text: Callable[[Any], str] | None  # how the document reads without --json


# ---------------------------------------------------------------------------------------------
# What fal offers and says: models, hosts, limits, media types.
# ---------------------------------------------------------------------------------------------

# Models: endpoint and title, in the order of list-t2i and list-i2v. Any other endpoint works
# as well.

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

# Hosts, limits and media types

PROGRAM = "skill_fal.py"
KEYS_PAGE = "https://fal.ai/dashboard/keys"
BILLING_PAGE = "https://fal.ai/dashboard/billing"
REQUESTS_PAGE = "https://fal.ai/dashboard/requests"
MODELS_URL = "https://api.fal.ai/v1/models"
MODELS_PAGE_SIZE = 50  # fal documents no maximum for `limit`, only that there is one
PRICES_URL = f"{MODELS_URL}/pricing"
REQUESTS_URL = f"{MODELS_URL}/requests/by-endpoint"
MEDIA_HOSTS = ("v3.fal.media", "v3b.fal.media")  # of uploads and results (2026)

# Where the key may go, and where the tokens for uploads may, too.
KEY_DOMAINS = (".fal.run", ".falrun.com", ".fal.ai")
TOKEN_DOMAINS = (*KEY_DOMAINS, ".fal.media")

# What tells of a job in the body of an answer, in any spelling, be that readable as JSON or not.
JOB_IN_BODY = (
    r'"[\w-]{0,99}((request|job)[ _-]?id|(status|response|cancel)_?url|queue_?position'
    r'|billable_?units?)\\*"\s{0,9}:|"IN_(QUEUE|PROGRESS)\\*"|/requests/\w'
)
# HTTP statuses by which a server says that it has not taken a request; by 408, 409, 429, and by
# those of gateways that somebody hung up on (444, 460, 499) it does not.
PLAIN_REFUSALS = (*range(400, 408), 410, 411, *range(413, 419), 421, 422, 424, 426, 428, 431, 451)
# Those of fal's own 503 that come before a runner has the request.
BEFORE_A_RUNNER = (
    "runner_scheduling_failure",
    "runner_connection_refused",
    "runner_connection_timeout",
)

# Seconds between attempts while fal says that it is busy, and in all; Retry-After overrules them.
BACKOFF = (1, 2, 4, 8, 16, 29)
BUSY_LIMIT = 60.0
# The same for what costs nothing: looks at jobs, and uploads. The last is repeated; a command that
# only asks waits for a few seconds, and so does a batch for a job that fal seems to have forgotten.
FREE_BACKOFF = (0.2, 0.5, 1, 2, 4, 8)
LOOK_LIMIT = 120.0
GLANCE_LIMIT = 5.0
UPLOAD_LIMIT = 60.0
FREE_TIMEOUT = 30.0  # seconds for one answer about a job, and for a token

# Seconds for an answer, and for a cancellation, when a time limit has run out.
LATE_ANSWER = 0.3
LATE_CANCELLATION = 0.6
SILENCE = 10  # seconds until somebody who waits for an answer is told so
MAX_DEPTH = 300  # levels of JSON that are walked; programs that read it stop at 256 to 10,000
MAX_ANSWER_BYTES = 256 * 1024**2  # of what is no file: one answer may hold a few as data URIs
MAX_EVENT_BYTES = 64 * 1024**2  # of a stream

# Anything a header or a URL can carry as it is.
VISIBLE = r"[\x21-\x7e]+"
MODEL_PAGE = (
    r"https?://(?:www\.)?fal\.ai/models/(?P<endpoint>[^?#]+?)(?:/(?:api|playground|examples))?/?"
    r"(?:[?#].*)?"
)
PATH_PATTERN = r"\w[\w.-]*(/\w[\w.-]*)*"
REQUEST_ID_PATTERN = r"[A-Za-z0-9][\w-]{0,199}"
NO_FALLBACK: Any = {"fallback_repository": []}  # fal-client's own cannot work since 2026

# What files are. Bytes, servers or names may tell no more than a wider type or family that a row is
# `within`. The first row whose signature fits counts. What is not harmless, or in no row, a system
# may open by running it.

BINARY = "application/octet-stream"  # which says nothing
TEXT = "text/plain"
JSON_TEXT = "application/json"
XML = "application/xml"
ZIP = "application/zip"
SVG = "image/svg+xml"
GZIP = "application/gzip"
PAGE = "text/html"
PAGE_EXTENSIONS = (".html", ".htm", ".xhtml", ".xht", ".shtml")
GALLERY_PAGES = (".html", ".htm")
GALLERY_SHEETS = (".png", ".jpg", ".jpeg")
# Containers whose first bytes may leave open what is in them, with the usual content.
FAMILIES = {
    "iso media": "video/mp4",
    "matroska": "video/webm",
    "ogg": "audio/ogg",
    "id3": "audio/mpeg",
    "asf": "video/x-ms-wmv",
}
HEAD_BYTES = 1024  # as many as signatures look at: an XML prolog may come before what an SVG is

FILE_TYPES = (
    # Pictures
    FileType("image/jpeg", ".jpg .jpeg .jpe .jfif", rb"\xff\xd8\xff"),
    FileType("image/png", ".png .apng", rb"\x89PNG\r\n\x1a\n"),
    FileType("image/gif", ".gif", rb"GIF8[79]a"),
    FileType("image/webp", ".webp", rb"RIFF.{4}WEBP"),
    FileType("image/bmp", ".bmp .dib", rb"BM.{4}\0{4}"),
    FileType("image/x-canon-cr2", ".cr2", rb"II\*\0.{4}CR", "image/tiff"),
    FileType("image/tiff", ".tiff .tif", rb"II[*+]\0|MM\0[*+]"),
    FileType("image/x-adobe-dng", ".dng", None, "image/tiff"),
    FileType("image/x-nikon-nef", ".nef", None, "image/tiff"),
    FileType("image/x-sony-arw", ".arw", None, "image/tiff"),
    FileType(
        "image/avif",
        ".avif .avifs",
        rb".{4}ftyp(avi[fs]|(mif1|msf1|miaf).{4}(.{4}){0,9}?avi[fs])",
        "iso media",
    ),
    FileType("image/heic", ".heic .heif .hif", rb".{4}ftyp(he[iv][cmsx]|mif1|msf1)", "iso media"),
    FileType("image/x-canon-cr3", ".cr3", rb".{4}ftypcrx ", "iso media"),
    FileType("image/jxl", ".jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    FileType("image/jp2", ".jp2 .jpx .jpf .j2k .j2c", rb"\0{3}\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    FileType("image/x-exr", ".exr", rb"v/1\x01"),
    FileType("image/vnd.radiance", ".hdr", rb"#\?(RADIANCE|RGBE)\n"),
    FileType("image/vnd.adobe.photoshop", ".psd .psb", rb"8BPS\0[\x01\x02]"),
    FileType("image/x-icon", ".ico", rb"\0\0\x01\0[^\0]\0"),
    FileType("image/vnd.ms-dds", ".dds", rb"DDS \|\0{3}"),
    FileType("image/ktx2", ".ktx2", rb"\xabKTX 20\xbb"),
    FileType("image/qoi", ".qoi", rb"qoif"),
    FileType("image/x-tga", ".tga"),
    FileType("image/x-portable-anymap", ".pnm .ppm .pgm .pbm .pfm"),
    # Clips
    FileType(
        "video/quicktime",
        ".mov .qt",
        rb".{4}ftypqt  |[\0-\x08\x0e-\x1f].{3}(moov|mdat|wide|free|skip|pnot)",
        "iso media",
    ),
    FileType("video/mp4", ".mp4 .mp4v", None, "iso media"),
    FileType("video/x-m4v", ".m4v", rb".{4}ftypM4V", "video/mp4"),
    FileType("video/3gpp2", ".3g2 .3gpp2", rb".{4}ftyp3g2", "iso media"),
    FileType("video/3gpp", ".3gp .3gpp", rb".{4}ftyp3g[eghprs\d]", "iso media"),
    FileType("video/mj2", ".mj2", rb".{4}ftypmjp2", "iso media"),
    FileType("video/webm", ".webm", rb"\x1a\x45\xdf\xa3.{0,64}?\x42\x82.{1,8}?webm", "matroska"),
    FileType(
        "video/x-matroska",
        ".mkv .mk3d",
        rb"\x1a\x45\xdf\xa3.{0,64}?\x42\x82.{1,8}?matr",
        "matroska",
    ),
    FileType("video/x-msvideo", ".avi", rb"RIFF.{4}AVI "),
    FileType("video/x-ms-wmv", ".wmv .asf", None, "asf"),
    FileType("video/x-flv", ".flv", rb"FLV\x01"),
    FileType("video/mpeg", ".mpg .mpeg .mpe .m2v .vob", rb"\0\0\x01[\xb3\xba]"),
    FileType(
        "video/mp2t",
        ".ts .m2ts .mts",
        rb"G[\0-\x1f@-_].{186}G[\0-\x1f@-_].{186}(G|\Z)|.{4}G.{191}G.{191}G",
    ),
    FileType("video/ogg", ".ogv", rb"OggS.{24}(\x80theora|fishead\0)", "ogg"),
    FileType("application/mxf", ".mxf", rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02"),
    # Sounds
    FileType("audio/wav", ".wav .wave", rb"(RIFF|RIFX|RF64|BW64).{4}WAVE"),
    FileType(
        "audio/mpeg", ".mp3 .mp2 .mpga", rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xfd][\x10-\xeb]", "id3"
    ),
    FileType("audio/aac", ".aac .adts", rb"\xff[\xf0\xf1\xf8\xf9][\0-\xbf]|ADIF", "id3"),
    FileType("audio/flac", ".flac", rb"fLaC", "id3"),
    FileType("audio/aiff", ".aiff .aif .aifc", rb"FORM.{4}AIF[FC]"),
    FileType("audio/mp4", ".m4a .m4b", rb".{4}ftypM4[AB]", "iso media"),
    FileType("audio/webm", ".weba .webm", None, "video/webm"),
    FileType("audio/x-matroska", ".mka", None, "video/x-matroska"),
    FileType("audio/x-ms-wma", ".wma", None, "asf"),
    FileType("audio/ogg", ".ogg .oga", rb"OggS.{24}(OpusHead|\x01vorbis|Speex|\x7fFLAC)", "ogg"),
    FileType("audio/opus", ".opus", None, "audio/ogg"),
    FileType("audio/x-speex", ".spx", None, "audio/ogg"),
    FileType("audio/amr", ".amr .awb", rb"#!AMR"),
    FileType("audio/midi", ".mid .midi", rb"MThd\0{3}\x06"),
    FileType("audio/basic", ".au .snd", rb"\.snd\0\0"),
    FileType("audio/x-caf", ".caf", rb"caff\0\x01"),
    # Shapes
    FileType("model/gltf-binary", ".glb", rb"glTF"),
    FileType("model/vrm", ".vrm", None, "model/gltf-binary"),
    FileType("model/gltf+json", ".gltf", None, JSON_TEXT),
    FileType("model/obj", ".obj", None, TEXT),
    FileType("model/mtl", ".mtl", None, TEXT),
    FileType("model/stl", ".stl", None, TEXT),
    FileType("model/x-ply", ".ply", rb"ply\r?\n", TEXT),
    FileType("model/x-fbx", ".fbx", rb"Kaydara FBX Binary", TEXT),
    FileType("model/vnd.usdz+zip", ".usdz", None, ZIP),
    FileType("model/3mf", ".3mf", None, ZIP),
    FileType("model/vnd.usda", ".usda", rb"#usda ", TEXT),
    FileType("model/vnd.usd", ".usd .usdc", rb"PXR-USDC", TEXT),
    FileType("model/vnd.collada+xml", ".dae", None, XML),
    FileType("model/x-alembic", ".abc", rb"Ogawa"),
    FileType("model/x-draco", ".drc", rb"DRACO"),
    FileType("model/x-spz", ".spz", None, GZIP),
    FileType("model/x-splat", ".splat .ksplat"),
    FileType("model/x-bvh", ".bvh", None, TEXT),
    # Weights and data
    FileType("application/x-safetensors", ".safetensors"),
    FileType("application/x-gguf", ".gguf", rb"GGUF"),
    FileType("application/x-onnx", ".onnx"),
    FileType("application/x-npy", ".npy", rb"\x93NUMPY"),
    FileType("application/x-npz", ".npz", None, ZIP),
    FileType("application/pdf", ".pdf", rb"%PDF-"),
    FileType("font/otf", ".otf", rb"OTTO"),
    FileType("font/ttf", ".ttf", rb"\0\x01\0\0\0|true\0"),
    FileType("font/woff2", ".woff2", rb"wOF2"),
    FileType("font/woff", ".woff", rb"wOFF"),
    FileType("application/x-7z-compressed", ".7z", rb"7z\xbc\xaf\x27\x1c"),
    FileType("application/x-tar", ".tar", rb".{257}ustar"),
    FileType(GZIP, ".gz .tgz", rb"\x1f\x8b\x08"),
    FileType(ZIP, ".zip", rb"PK(\x03\x04|\x05\x06)"),
    # Texts
    FileType(
        SVG,
        ".svg",
        rb"(\xef\xbb\xbf)?\s*"
        rb"((<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>[]*(\[[^]]*\])?\s*>)\s*)*<(svg:)?svg[\s/>]",
        XML,
    ),
    FileType("application/jsonl", ".jsonl .ndjson", None, JSON_TEXT),
    FileType(JSON_TEXT, ".json", None, TEXT),
    FileType("text/csv", ".csv", None, TEXT),
    FileType("text/tab-separated-values", ".tsv", None, TEXT),
    FileType("application/x-subrip", ".srt", None, TEXT),
    FileType("text/vtt", ".vtt", rb"(\xef\xbb\xbf)?WEBVTT\s", TEXT),
    FileType("text/x-ssa", ".ass .ssa", None, TEXT),
    FileType("application/ttml+xml", ".ttml", None, XML),
    FileType("text/x-lrc", ".lrc", None, TEXT),
    FileType("text/markdown", ".md", None, TEXT),
    FileType(TEXT, ".txt"),
    # Families
    FileType("iso media", "", rb".{4}ftyp"),
    FileType("matroska", "", rb"\x1a\x45\xdf\xa3"),
    FileType("ogg", "", rb"OggS"),
    FileType("id3", "", rb"ID3"),
    FileType("asf", "", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    # What may be sent, and what no server may choose
    FileType(PAGE, " ".join(PAGE_EXTENSIONS), None, TEXT, is_harmless=False),
    FileType(XML, ".xml", None, TEXT, is_harmless=False),
    FileType("text/javascript", ".js .mjs", None, TEXT, is_harmless=False),
    FileType("text/css", ".css", None, TEXT, is_harmless=False),
    FileType("text/x-python", ".py", None, TEXT, is_harmless=False),
    FileType("application/yaml", ".yaml .yml", None, TEXT, is_harmless=False),
    FileType("application/rtf", ".rtf", None, TEXT, is_harmless=False),
    FileType("application/epub+zip", ".epub", None, ZIP, is_harmless=False),
    FileType(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".docx",
        None,
        ZIP,
        is_harmless=False,
    ),
    FileType(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xlsx",
        None,
        ZIP,
        is_harmless=False,
    ),
    FileType(
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ".pptx",
        None,
        ZIP,
        is_harmless=False,
    ),
)
# Other names of content types, as they stand without `x-`.
TYPE_NAMES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/apng": "image/png",
    "image/heif": "image/heic",
    "image/heic-sequence": "image/heic",
    "image/heif-sequence": "image/heic",
    "image/avif-sequence": "image/avif",
    "image/ms-bmp": "image/bmp",
    "image/jpx": "image/jp2",
    "image/j2c": "image/jp2",
    "image/aces": "image/x-exr",
    "image/hdr": "image/vnd.radiance",
    "image/psd": "image/vnd.adobe.photoshop",
    "image/vnd.microsoft.icon": "image/x-icon",
    "video/avi": "video/x-msvideo",
    "video/vnd.avi": "video/x-msvideo",
    "video/matroska": "video/x-matroska",
    "video/ms-asf": "video/x-ms-wmv",
    "video/mp2p": "video/mpeg",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/aacp": "audio/aac",
    "audio/m4a": "audio/mp4",
    "audio/3gpp": "video/3gpp",
    "audio/3gpp2": "video/3gpp2",
    "application/ogg": "ogg",
    "application/mp4": "iso media",
    "model/gltf": "model/gltf+json",
    "model/ply": "model/x-ply",
    "application/ply": "model/x-ply",
    "application/sla": "model/stl",
    "model/x.stl-ascii": "model/stl",
    "model/x.stl-binary": "model/stl",
    "application/vnd.ms-pki.stl": "model/stl",
    "application/vnd.ms-package.3dmanufacturing-3dmodel+xml": "model/3mf",
    "model/vnd.pixar.usd": "model/vnd.usd",
    "application/zip-compressed": ZIP,
    "application/ndjson": "application/jsonl",
    "application/jsonlines": "application/jsonl",
    "application/srt": "application/x-subrip",
    "text/srt": "application/x-subrip",
    "text/ass": "text/x-ssa",
    "text/json": JSON_TEXT,
    "text/xml": XML,
    "application/xhtml+xml": PAGE,
    "application/javascript": "text/javascript",
    "image/svg": SVG,
}

# The last mark of a picture and how many bytes it takes with what belongs to it.
PICTURE_ENDS = {
    "image/png": (b"IEND", 8),
    "image/jpeg": (b"\xff\xd9", 2),
    "image/gif": (b"\0;", 2),
}
MARK_BYTES = 32  # of the start of a clip or a sound: text that comes behind them is no part of it
HEAD_OF_SOUND = 128  # bytes at most of a sound beside its samples, names of programs included
TEXT_BYTES = bytes([*range(0x20, 0x7F), *b"\t\n\r"])

# Pillow's names of the formats that pictures are read in, and the most that one may have.
PICTURE_FORMATS = {
    "image/jpeg": ("JPEG", "MPO"),
    "image/png": ("PNG",),
    "image/gif": ("GIF",),
    "image/webp": ("WEBP",),
    "image/bmp": ("BMP",),
    "image/tiff": ("TIFF",),
    "image/avif": ("AVIF",),
    "image/heic": ("HEIF",),
    "image/jp2": ("JPEG2000",),
}
MAX_PIXELS = 100_000_000

# What a format of pictures can hold, by Pillow's name of it.
PICTURE_ROOMS = {
    "JPEG": PictureRoom(("L", "RGB"), 65_500),
    "PNG": PictureRoom(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), 2**31 - 1, True),
    "WEBP": PictureRoom(("RGB", "RGBA"), 16_383),
    "AVIF": PictureRoom(("RGB", "RGBA"), 65_536),
    "GIF": PictureRoom(("1", "L", "P", "RGB", "RGBA"), 65_535, True),
    "BMP": PictureRoom(("1", "L", "P", "RGB"), 2**31 - 1),
    "TIFF": PictureRoom(
        ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
        2**31 - 1,
    ),
}
# The modes that hold a picture of a mode without loss, the smallest first.
WIDER_MODES = {
    "1": ("1", "L", "RGB"),
    "L": ("L", "RGB"),
    "P": ("P", "RGB"),
    "LA": ("LA", "RGBA"),
    "RGB": ("RGB",),
    "RGBA": ("RGBA",),
    "I;16": ("I;16",),
}
# What stands for modes that have no place there; RGB stands for the rest.
PLAIN_MODES = {
    "La": "LA",
    "RGBa": "RGBA",
    "PA": "RGBA",
}
DEEP_MODES = ("I;16", "I", "F")  # of more than 8 bits, which Pillow cuts off instead of scaling
WHITE_OF_8_BITS = 255
WHITE_OF_16_BITS = 65_535
PROFILE_HEAD_BYTES = 128
# What a colour profile says that it is for, by mode.
PROFILE_SPACES = {
    "1": b"GRAY",
    "L": b"GRAY",
    "LA": b"GRAY",
    "I;16": b"GRAY",
    "P": b"RGB ",
    "RGB": b"RGB ",
    "RGBA": b"RGB ",
    "CMYK": b"CMYK",
    "LAB": b"Lab ",
}

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


FILE_HINT = "Name the local file itself: it is uploaded."
# What is refused may be a secret, to which no hint may show another way.
NOT_MEDIA_HINT = (
    "Check the path: only pictures, clips and sounds go along with a job. Whether another file may"
    " become public is for the user to say."
)
MAX_TEXT_BYTES = 64 * 1024**2  # of a file of prompts or of JSON

# The marks that text files begin with, by encoding; UTF-16's is the beginning of UTF-32's.
BYTE_ORDER_MARKS = {
    "utf-8": b"\xef\xbb\xbf",
    "utf-32-le": b"\xff\xfe\x00\x00",
    "utf-32-be": b"\x00\x00\xfe\xff",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
}
UTF_8_HINT = (
    "Save it as UTF-8: in PowerShell with Out-File -Encoding utf8, in Excel as CSV UTF-8, in"
    " Notepad under Encoding."
)

# What no prompt holds: control characters, but for tabs and line ends (U+0085 is one, too), and how
# those are called that messages name.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
CONTROL_NAMES = {
    "\x00": "null",
    "\x07": "bell",
    "\x08": "backspace",
    "\x0b": "vertical tab",
    "\x0c": "form feed",
    "\x1b": "escape",
    "\x7f": "delete",
    "\x9b": "escape",
}

# What shells, terminals and editors put around words, or in the place of other characters.
# Quotes by those that open them; what English opens with, German closes with.
QUOTES = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u201c": "\u201d",
    "\u201d": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u2018": "\u2019",
    "\u2019": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u00ab": "\u00bb",
}
CURLY_QUOTES = re.compile("[\u00ab\u00bb\u2018-\u201f\u2039\u203a\u301d-\u301f\uff02]")
DASHES = "\u00ad\u2010-\u2015\u2043\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d"
ODD_SPACES = "\u00a0\u2007\u202f\u3000"  # no shell ends a word at them
NOT_SEEN = "\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # directions, zero width
WAYS_TO_GIVE_JSON = (
    'Write the object into a file and name it, as in --extra-json "@args.json"; or, to generate,'
    " set values one by one with --arg NAME=VALUE."
)

# Of one file: bytes at most, hosts that may hand it on, and seconds between attempts at it.
MAX_BYTES = 2 * 1024**3
MAX_REDIRECTS = 5
FILE_BACKOFF = (0.2, 0.5, 1.0)


# Keys

KEY_VARIABLES = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")

# How a variable is called that may hold a key: FAL_API_KEY, FALAI_TOKEN, VITE_FAL_KEY, ...
KEY_NAME = (
    r"(?:\w+_)?FAL(?:_?AI)?(?:_\w+?)?_?(?:API_?)?(?:KEY|TOKEN|SECRET|CREDENTIALS?)"
    r"(?:_(?:ID|SECRET|FILE|PATH|\d))?"
)
FILE_VARIABLE_ENDINGS = ("_FILE", "_PATH")  # of variables that name a file which holds the key
ID_VARIABLE_ENDING = "_ID"  # of variables that hold the half of it that is no secret

PLACEHOLDER = (
    r"^[<\[{(].*[>\]})]$|\byour\b|^your|your[-_]|[-_ ]here$|\*\*\*|\.\.\.|…|•"
    r"|^[x:-]+$|change[-_]?me|replace[-_]?me"
    r"|^(fal[-_])?key[-_]id:(fal[-_])?key[-_]secret$|^((my|the)[-_])?(fal[-_]?)?(ai[-_]?)?(api[-_]?)?(key|token|secret)$"
)

# What makes a value no key, by how the message goes on. Quotes and backslashes may belong to one,
# so that only their places tell.
KEY_PROBLEMS = {
    "has something unseen before or after it, such as a byte order mark": rf"[{NOT_SEEN}]",
    "has the name of a variable before it": r"^(export\s+|set\s+|\$env:)?[A-Za-z]\w*\s*=\s*[^=\s]",
    "is the reference to a variable, which nobody has replaced": r"^(\$[({]?\w|%\w+%$|\$?\{\{)",
    "is a placeholder, not a key": PLACEHOLDER,
    "has a word before it, as in a header": r"^[\w-]+:?\s+\S",
    "has a quote at its start that does not belong there": r"^[\"'`\u2018-\u201f\u00ab]",
    "ends with a backslash and a letter, which stand for a line end": r"\\[rnt]$",
    "is a URL": r"^[a-z]+://",
    "ends with a mark that belongs to no key": r"[,;]$",
    "holds white space or characters that no key has": r"[^\x21-\x7e]",
}


# What can go wrong

KEY_HINT = f"Check FAL_KEY: keys are made at {KEYS_PAGE}."
IN_DOUBT_HINT = f"What was sent may be running, and be billed: look at {REQUESTS_PAGE} first."

# A failure of any other type comes from fal, in fal's own words.
ERRORS: dict[str, ErrorKind] = {
    # The user's things. Nothing was sent.
    "usage_error": ErrorKind(Exit.USAGE),
    "invalid_arguments": ErrorKind(Exit.USAGE),
    "over_budget": ErrorKind(
        Exit.USAGE,
        hint="Ask for fewer or cheaper files (list-models --price compares models), or ask"
        " whoever pays for a higher limit.",
    ),
    "price_unknown": ErrorKind(
        Exit.USAGE, hint="Without --max-cost there is no limit: ask whoever pays."
    ),
    # The key and the account.
    "credentials_missing": ErrorKind(
        Exit.CREDENTIALS, hint=f"Make a key at {KEYS_PAGE} and set FAL_KEY to it."
    ),
    "credentials_malformed": ErrorKind(
        Exit.CREDENTIALS, hint=f"Copy the key again from {KEYS_PAGE} into FAL_KEY."
    ),
    "unauthorized": ErrorKind(Exit.CREDENTIALS, hint=KEY_HINT),
    "forbidden": ErrorKind(
        Exit.CREDENTIALS, hint=f"See at {KEYS_PAGE} what the key may be used for."
    ),
    "account_locked": ErrorKind(
        Exit.CREDENTIALS, hint=f"Top up or unlock the account at {BILLING_PAGE}."
    ),
    # The network.
    "unreachable": ErrorKind(
        Exit.NETWORK,
        retryable=True,
        hint="Check the network and HTTPS_PROXY, then repeat the command.",
    ),
    "connection_lost": ErrorKind(Exit.NETWORK, retryable=True),
    "gateway_error": ErrorKind(Exit.NETWORK, retryable=True),
    "certificate_refused": ErrorKind(Exit.NETWORK),
    "proxy_refused": ErrorKind(Exit.NETWORK),
    # Time, and signals.
    "timeout": ErrorKind(Exit.TIMEOUT),
    "interrupted": ErrorKind(Exit.INTERRUPTED),
    "terminated": ErrorKind(Exit.TERMINATED),
    # fal, and its models.
    "server_error": ErrorKind(retryable=True),
    "request_timeout": ErrorKind(retryable=True),
    "rate_limited": ErrorKind(retryable=True, hint="Wait a little, then repeat the command."),
    "bad_request": ErrorKind(),
    "not_found": ErrorKind(),
    "client_cancelled": ErrorKind(),
    "already_completed": ErrorKind(),
    "content_policy_violation": ErrorKind(hint="Reword the prompt, or use another picture."),
    "not_a_stream": ErrorKind(hint="Use subscribe-* for models that do not stream."),
    "stream_failed": ErrorKind(),
    "realtime_error": ErrorKind(),
    "unexpected_answer": ErrorKind(),
    # Jobs and batches.
    "not_finished": ErrorKind(
        retryable=True, hint="Repeat the command later, or without --no-wait to wait."
    ),
    "unknown_outcome": ErrorKind(),
    "batch_failed": ErrorKind(),
    # Files.
    "download_failed": ErrorKind(
        hint="The response is on stdout: fetch the URLs in it with another tool."
    ),
    "refused_url": ErrorKind(),
    "too_large": ErrorKind(),
    "http_error": ErrorKind(),
    "write_failed": ErrorKind(),
    "journal_failed": ErrorKind(),
    "output_failed": ErrorKind(),
    # The machine, and this program.
    "machine_error": ErrorKind(),
    "internal_error": ErrorKind(),
}

# What the system says that a machine has no more of, in its own word, and what to do about it.
MACHINE_LIMITS = {
    "EMFILE": "Raise the limit of open files (ulimit -n), or ask for fewer things at once.",
    "ENFILE": "Close other programs: the machine has too many files open.",
    "ENOMEM": "Close other programs: the machine has no memory left.",
    "ENOBUFS": "Close other programs: the machine has no memory left for connections.",
    "EADDRNOTAVAIL": "Close other programs, or wait: the machine has no free port left.",
    "EAGAIN": "Close other programs, or raise their limit (ulimit -u).",
    "ENOSPC": "Free some space on the disk.",
    "EFBIG": "Choose a place for large files, or raise the limit (ulimit -f).",
    "EDQUOT": "Free some space on the disk, of which you have a share.",
}

# What an HTTP status means where the answer does not say more.
STATUSES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    408: "request_timeout",
    422: "invalid_arguments",
    429: "rate_limited",
    499: "client_cancelled",
}

# What fal's queue says in a word.
QUEUE_WORDS = {
    "NOT_FOUND": "fal knows no such request",
    "ALREADY_COMPLETED": "the job has ended already",
}
JOB_WORDS = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")


# ---------------------------------------------------------------------------------------------
# Flags: what each reads, a row for each, and the files of jobs that a batch reads.
# ---------------------------------------------------------------------------------------------


def home_path(path: str) -> str:
    """A path with the home folder in place of `~`; a usage error where there is no home."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise usage_error(f"there is no home folder for {path!r}: HOME is not set")
    return expanded


def absolute_path(path: str) -> str:
    """The whole path, which leads on where the current folder is deleted from under the command."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError as exc:
        hint = "Change to a folder that exists, or name the whole path."
        raise usage_error("the current folder is not there any more", hint) from exc


def cannot_read(source: str, exc: OSError) -> Failure:
    """Why a file is not read: the user's fault, or that of a machine that is out of something."""
    return machine_failure(exc) or usage_error(f"cannot read {source}: {reason_of(exc)}")


# Values that flags take: each function reads the text after a flag, or refuses it.


def read_value(name: str, read: Callable[[str], Any], text: str) -> Any:
    """The value that a flag is given, or a Failure that names the flag."""
    try:
        return read(text)
    except ValueError as exc:
        raise usage_error(f"argument {name}: {exc}") from exc
    except Failure as failure:
        raise usage_error(f"argument {name}: {failure.message}", failure.hint) from failure


def read_text(source: str) -> str:
    """The whole of a text file, or of stdin for `-`, its lines ended by a line feed."""
    name = name_of_source(source)
    try:
        with open_text(source) as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as exc:
        raise cannot_read(name, exc) from exc
    if len(content) > MAX_TEXT_BYTES:
        raise usage_error(f"more than {MAX_TEXT_BYTES} bytes of text: {name}")
    text = decoded(content, name)
    text = text.rstrip("\x1a")  # by which DOS tools mark the end
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # old Macs have the latter
    return re.sub("^\ufeff", "", text, flags=re.MULTILINE)  # files that are joined have several


def name_of_source(source: str) -> str:
    """What messages call a file, or stdin."""
    if source == "-":
        return "stdin"
    return source


def decoded(content: bytes, source: str) -> str:
    """The text that the bytes are, in UTF-8 if no mark of theirs says otherwise."""
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        place = f"byte {exc.start + 1}, in line {line}"
        message = f"cannot read {source}: it is not {encoding.upper()} text ({place})"
        raise usage_error(message, UTF_8_HINT) from exc


def encoding_of(content: bytes) -> str:
    """What the mark at the start tells; or where the null bytes stand, which UTF-8 has none of."""
    for encoding, byte_order_mark in BYTE_ORDER_MARKS.items():
        if content.startswith(byte_order_mark):
            return encoding
    firsts, seconds = content[0::2], content[1::2]
    if len(firsts) == len(seconds):
        if 2 * seconds.count(0) > len(seconds) and 0 not in firsts:
            return "utf-16-le"
        if 2 * firsts.count(0) > len(firsts) and 0 not in seconds:
            return "utf-16-be"
    return "utf-8"


def open_text(source: str) -> IO[bytes]:
    if source != "-":
        return open(home_path(local_path(source)), "rb")
    return stdin_bytes()


def read_prompt(text: str) -> str:
    """A prompt; `-` reads it from stdin."""
    if text == "-":
        return read_prompt_file("-")
    return read_plain_text(text)


def read_prompt_file(source: str) -> str:
    """A prompt without what stands around it, of which the last line's end is not worth a word."""
    text = read_text(source)
    prompt = text.strip()
    if prompt and prompt != text.removesuffix("\n"):
        note(f"{name_of_source(source)}: blanks and line ends around the prompt are left out")
    return read_plain_text(prompt)


def read_plain_text(text: str) -> str:
    if not text.strip():
        raise usage_error("the text is empty")
    if text == "-":
        raise usage_error("- does not stand for stdin here")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise usage_error("the text is not valid UTF-8") from exc
    refuse_control_characters(text)
    return text


def refuse_control_characters(text: str) -> None:
    """Of no use to a model; they come of wrong encodings and of copies from terminals."""
    match = CONTROL.search(text)
    if match is None:
        return
    name = CONTROL_NAMES.get(match[0], "control")
    line = text.count("\n", 0, match.start()) + 1
    column = match.start() - text.rfind("\n", 0, match.start())
    hint = "Take it out: of control characters, texts hold tabs and line ends alone."
    if name == "null":
        hint = f"Texts in UTF-16 hold it. {UTF_8_HINT}"
    raise usage_error(
        f"the text holds U+{ord(match[0]):04X}, the {name} character, as character {column} of"
        f" line {line}",
        hint,
    )


def read_json(text: str) -> Any:
    """What a text holds that can be sent as JSON."""
    try:
        if nests_deeply(text):
            raise usage_error(f"the JSON nests more than {MAX_DEPTH} levels deep")
        value = json.loads(text, object_pairs_hook=without_repeated_keys)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as exc:
        raise usage_error(f"not valid JSON: {exc}") from exc
    return value


def json_or_none(text: str | bytes) -> Any:
    """What a text holds that may be JSON; None, as for null, if it is none or nests too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> Fields:
    """The object that JSON tells; of a repeated key nobody knows which value is meant."""
    values: Fields = {}
    for name, value in pairs:
        if name in values:
            raise usage_error(f"the JSON has the key {name[:80]!r} twice")
        values[name] = value
    return values


def read_json_object(text: str) -> Fields:
    """A JSON object: the text itself, `@file`, or `-` for stdin."""
    named = without_quotes(text.strip())  # which cmd.exe leaves around '@file'
    if text == "-" or named.startswith("@"):
        source = named.removeprefix("@")
        content = read_text(source)
        with naming(name_of_source(source)):
            return json_object(content)
    try:
        return json_object(text)
    except Failure as failure:
        failure.hint = failure.hint or json_hint(text)
        raise


def json_object(text: str) -> Fields:
    """A text of JSON as an object, all of whose texts can be sent."""
    value = read_json(text)
    if not isinstance(value, dict):
        raise usage_error(f"must be a JSON object, not {text.strip()[:40]}")
    refuse_control_characters_in(value)
    return value


def refuse_control_characters_in(value: Any) -> None:
    """Of all texts in a value, which the refusal names."""
    for leaf in leaves(value):
        if isinstance(leaf.value, str):
            with naming(leaf.field):
                refuse_control_characters(leaf.value)


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Have a Failure say where in the user's things it is."""
    try:
        yield
    except Failure as failure:
        raise usage_error(f"{place}: {failure.message}", failure.hint) from failure


def json_hint(text: str) -> str:
    """What to do about JSON on the command line that is none: shells and editors change quotes."""
    cause = "Shells change quotes."
    if CURLY_QUOTES.search(text):
        cause = "Its quotes are curly, and JSON takes straight ones."
    elif text.lstrip().startswith("'"):
        cause = "The single quotes have come along, which cmd.exe takes for a part of the text."
    elif '\\"' in text:
        cause = "Its quotes have backslashes before them, which not every shell takes away."
    elif "{" in text and '"' not in text:
        cause = "It has no double quotes: PowerShell and cmd.exe take them away."
    return f"{cause} {WAYS_TO_GIVE_JSON}"


def hint_on_spoilt_json(values: Iterable[Any]) -> str | None:
    """What to do about values of --arg that look like JSON, and are none."""
    for value in values:
        is_meant = isinstance(value, str) and value.lstrip("'").startswith(("{", "["))
        if is_meant and not json_readings(value):
            return json_hint(value)
    return None


def read_named_value(text: str) -> tuple[str, str]:
    """NAME=VALUE, in which the value may be anything."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise usage_error(f"not NAME=VALUE: {text[:80]!r}")
    refuse_control_characters(value)
    if value.lstrip().startswith(("{", "[", '"')):
        refuse_bad_json(value)
    return name, value


def refuse_bad_json(text: str) -> None:
    """Refuse a text that may be JSON, if it is, for repeated keys and control characters."""
    try:
        value = json.loads(text, object_pairs_hook=without_repeated_keys)
    except (ValueError, RecursionError):  # it is none, or is read by nobody
        return
    refuse_control_characters_in(value)


class NamedValues(argparse.Action):
    """Collects NAME=VALUE by the names; one that comes again has a list of its values."""

    def __call__(self, parser: Any, namespace: Any, pair: Any, option_string: Any = None) -> None:
        name, value = pair
        values = dict(getattr(namespace, self.dest) or {})
        if name in values:
            value = [*as_list(values[name]), value]
        setattr(namespace, self.dest, {**values, name: value})


def read_number(text: str) -> int | float:
    """A finite number, left an integer if it is written as one."""
    try:
        value = float(text)
    except ValueError as exc:
        raise usage_error(f"not a number: {text}") from exc
    if not abs(value) < 1e100:  # nor infinite, nor NaN
        raise usage_error(f"not a number to be used: {text}")
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return value


def read_whole_number(text: str) -> int:
    """An integer of any length that Python reads."""
    try:
        return int(text)
    except ValueError as exc:
        raise usage_error(f"not a whole number: {text[:80]}") from exc


def read_above(limit: int, read: Callable[[str], Any], text: str) -> Any:
    """A number that must be greater than the limit."""
    value = read(text)
    if value <= limit:
        raise usage_error(f"must be greater than {limit}: {text}")
    return value


def read_choice(*choices: str) -> Callable[[str], str]:
    """A reader of one word out of a few."""

    def read(text: str) -> str:
        if text not in choices:
            listed = ", ".join(map(repr, choices))
            raise usage_error(f"invalid choice: {text!r} (choose from {listed})")
        return text

    return read


def read_matching(pattern: str, description: str, text: str) -> str:
    """A text that matches the whole pattern."""
    if not re.fullmatch(pattern, text, re.ASCII):
        raise usage_error(f"not {description}: {text!r}")
    return text


read_positive_int = functools.partial(read_above, 0, read_whole_number)
read_positive = functools.partial(read_above, 0, read_number)
read_above_1 = functools.partial(read_above, 1, read_number)
read_visible_text = functools.partial(read_matching, VISIBLE, "visible ASCII")
read_request_id = functools.partial(read_matching, REQUEST_ID_PATTERN, "a request id")
read_path = functools.partial(read_matching, f"/?{PATH_PATTERN}", "a path")
read_mime_type = functools.partial(
    read_matching,
    r"[\w.+-]+/[\w.+-]+(; ?[\x21-\x7e]+)*",
    "a MIME type",
)


def read_endpoint(text: str) -> str:
    """owner/app[/path], or the model's page; the namespaces `workflows` and `comfy` come before
    the owner.
    """
    page = re.fullmatch(MODEL_PAGE, text.strip(), re.I)
    if page is not None:
        text = page["endpoint"]
    text = text.strip().strip("/")
    parts_needed = 2
    if text.startswith(("workflows/", "comfy/")):
        parts_needed = 3
    is_path = len(text) < 500 and re.fullmatch(PATH_PATTERN, text, re.ASCII)
    if not is_path or len(text.split("/")) < parts_needed:
        raise usage_error(f"not an endpoint, owner/app[/path]: {text!r}", near_models(text))
    return text


def read_web_url(text: str) -> str:
    if not (re.fullmatch(VISIBLE, text) and re.match(r"https?://[^/]", text, re.I)):
        raise usage_error(f"not an http(s) URL: {text!r}")
    refuse_local_url(text, hint="fal calls it from outside: it takes a public address.")
    return text


def read_local_file(path: str) -> str:
    """The path of a file that can be read; `~` is the home folder."""
    path = home_path(local_path(path))
    if not os.path.exists(path):
        raise usage_error(f"no such file: {path}")
    mode = os.stat(path).st_mode
    has_no_end = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    if has_no_end or os.path.isdir(path) or not os.access(path, os.R_OK):
        raise usage_error(f"not a readable file: {path}")
    return path


def read_file_or_stdin(path: str) -> str:
    if path == "-":
        return path
    return read_local_file(path)


def read_picture(source: str) -> str:
    """An http(s) URL, a data URI, or a local picture, which is uploaded when it is needed."""
    address = without_quotes(source.strip())
    if is_remote(address):
        refuse_local_url(address)
        refuse_data_without_comma(address)
        return address
    path = read_local_file(source)
    with reading(path), open_regular_file(path) as file:
        content_type = media_type(file.read(HEAD_BYTES))
    if content_type is None:
        raise usage_error(f"not a picture: {path}", NOT_MEDIA_HINT)
    if not content_type.startswith("image/"):
        hint = "--arg NAME=FILE sends it, by the name that the model has for it."
        raise usage_error(f"not a picture, but {content_type}: {path}", hint)
    return path


def refuse_data_without_comma(address: str) -> None:
    if address[:5].lower() == "data:" and "," not in address:
        raise usage_error(f"not a data URI, for it holds no data: {address[:80]}")


def read_journal_path(path: str) -> str:
    """The name of a file, new or not, in a folder that exists."""
    path = home_path(path)
    folder = os.path.dirname(absolute_path(path))
    if path in ("", "-") or not os.path.isdir(folder):
        raise usage_error(f"not a file name in a folder that exists: {path!r}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise usage_error(f"not a file: {path}")
    return path


def read_gallery_path(path: str) -> str:
    """The name of a page or a picture to be, in a folder that is there or can be made."""
    path = home_path(path)
    check_output_path(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in (*GALLERY_PAGES, *GALLERY_SHEETS):
        extensions = ", ".join((*GALLERY_PAGES, *GALLERY_SHEETS))
        raise usage_error(f"the name ends in none of {extensions}: {path!r}")
    check_folder(os.path.dirname(absolute_path(path)))
    return path


def read_output_place(text: str) -> Target:
    """A folder, a file name or a template; see Target."""
    return Target(text)


# Flags: one row each. A command takes rows, and forwards what it took. A row that is added to
# TEXT_TO_IMAGE or IMAGE_TO_VIDEO is read, checked, sent and shown in --help everywhere.


def new_flag(
    group: str,
    name: str,
    help_text: str,
    read: Callable[[str], Any] | None = None,
    *,
    dest: str = "",
    **keywords: Any,
) -> Flag:
    """A row: the name may be followed by what --help shows in the place of the value, and what
    `read` makes of the text goes on as keyword `dest`. A flag with nothing to read is a switch.
    """
    name, _, metavar = name.partition(" ")
    dest = dest or name.removeprefix("--").replace("-", "_")
    return Flag(
        group=group,
        name=name,
        metavar=metavar,
        help=help_text,
        dest=dest,
        read=read,
        **keywords,
    )


def argument_flag(
    name: str,
    help_text: str,
    read: Callable[[str], Any] | None = None,
    *,
    names: tuple[str, ...] = (),
    **keywords: Any,
) -> Flag:
    """A row for an argument of models, which has the flag's name if no other `names` are given."""
    group = "model arguments (what is not given is not sent: the model's own default applies)"
    argument = new_flag(
        group,
        name,
        help_text,
        read,
        **keywords,
    )
    return argument._replace(names=names or (argument.dest,))


request_flag = functools.partial(new_flag, "request")
delivery_flag = functools.partial(new_flag, "queue and delivery")
file_flag = functools.partial(new_flag, "file")
output_flag = functools.partial(new_flag, "output")
search_flag = functools.partial(new_flag, "search")
required_flag = functools.partial(request_flag, required=True)

MODEL = required_flag(
    "--model ENDPOINT", "endpoint, owner/app[/path]: see list-t2i and list-models", read_endpoint
)
REQUEST_ID = required_flag(
    "--request-id ID",
    "request id, as printed by submit-* or on stderr; last is that of the newest job",
    read_request_id,
)
MODEL_OF_JOB = request_flag(
    "--model ENDPOINT", "the job's endpoint, unless list-jobs knows the job", read_endpoint
)

PROMPT = argument_flag(
    "--prompt TEXT",
    "what to show; - reads it from stdin",
    read_prompt,
    like=r"((user|text|input|edit(ing)?|main|positive|scene|image|video)_)?(prompts?|instructions?"
    r"|descriptions?|captions?|texts?|scripts?)|(text|prompt)_(input|text)|query",
    is_text=True,
    unless="--arg",
)
PROMPT_FILE = argument_flag(
    "--prompt-file FILE",
    "file to read the prompt from, without blanks and line ends around it; - is stdin",
    read_prompt_file,
    dest="prompt",
    unless="--arg",
)
EXTRA_JSON = argument_flag(
    "--extra-json JSON",
    "further arguments, merged last: a JSON object, @file, or - for stdin",
    read_json_object,
)
ARGUMENTS_JSON = argument_flag(
    "--arguments-json JSON",
    "arguments as they are, which nobody checks, nor the flags beside them, which overrule them: a"
    " JSON object, @file, or - for stdin",
    read_json_object,
    dest="arguments",
)
IMAGE_URL = argument_flag(
    "--image-url SOURCE",
    "URL, data URI, or local picture (is uploaded): the first starts the clip, a second ends it;"
    " models that take a list get all",
    read_picture,
    action="append",
    unless="--arg",
)
ARG = argument_flag(
    "--arg NAME=VALUE",
    "any argument by the model's own name, in its type; local media files are uploaded",
    read_named_value,
    action=NamedValues,
)
# All that a model can be asked; the two tasks differ in what they require.
MODEL_FLAGS = (
    PROMPT,
    PROMPT_FILE,
    IMAGE_URL,
    argument_flag(
        "--negative-prompt TEXT",
        "what to leave out",
        read_plain_text,
        like=r"(neg(ative)?|n)_(prompts?|texts?|descriptions?)|negative|prompt_negative",
        is_text=True,
    ),
    argument_flag(
        "--duration SECONDS",
        "length, one that the model offers; of models that count frames, as many as it takes",
        read_positive,
        names=("duration", "duration_seconds", "seconds"),
        like=r"((video|clip|output|target|total|generation|audio|music|song|track|max)_)?"
        r"(duration|length)(_in)?"
        r"(_(s|secs?|seconds|ms))?|(num|video|total)_seconds|seconds_total",
    ),
    argument_flag(
        "--width N", "in pixels, or the nearest that the model offers", read_positive_int
    ),
    argument_flag(
        "--height N", "in pixels, or the nearest that the model offers", read_positive_int
    ),
    argument_flag(
        "--aspect-ratio W:H",
        "shape, such as 16:9, or the nearest that the model offers",
        read_visible_text,
    ),
    argument_flag(
        "--resolution NAME",
        "such as 720p, 1080p, 2K or 1MP, or the nearest that the model offers",
        read_visible_text,
    ),
    argument_flag(
        "--num-images N",
        "how many images",
        read_positive_int,
        like=r"(num(ber)?(_of)?|n|max|total)_(images?|outputs|results|samples|generations|variations"
        r"|variants|pictures|videos)|n|batch_size|(images?|output|result|sample)_count|variations"
        r"|series_amount",
    ),
    argument_flag(
        "--seed N",
        "the same seed and prompt give the same result",
        read_whole_number,
        like=r"(random|noise|rng|manual|generator|generation|base|global|initial)_seed"
        r"|seed_(value|number)",
    ),
    argument_flag(
        "--guidance-scale X",
        "how closely to follow the prompt",
        read_number,
        names=("guidance_scale", "cfg_scale", "guidance"),
        like=r"((text|prompt|true|real)_)?(guidance|guide|cfg)(_(scale|strength|value|weight))?"
        r"|classifier_free_guidance(_scale)?|(guidance|cfg)_scale_text",
    ),
    argument_flag(
        "--num-inference-steps N",
        "denoising steps",
        read_positive_int,
        names=("num_inference_steps", "steps_num", "num_steps", "steps"),
        like=r"((num(ber)?|n)_)?(of_)?((inference|infer|sampl(e|ing|er)|denois(e|ing)|diffusion"
        r"|ddim)_)?steps?"
        r"(_(num|count))?",
    ),
    ARG,
    EXTRA_JSON,
)


def requiring(dest: str) -> tuple[Flag, ...]:
    """The flags of all models, one of which is required."""
    return tuple(flag._replace(required=flag.dest == dest) for flag in MODEL_FLAGS)


TEXT_TO_IMAGE = requiring("prompt")
IMAGE_TO_VIDEO = requiring("image_url")
FLAGS_BY_DEST = {flag.dest: flag for flag in reversed(MODEL_FLAGS)}  # of two rows the first

CHECKS = (
    request_flag("--dry-run", "print the request and send nothing"),
    request_flag("--strict", "fail on flags that the model lacks"),
    request_flag("--no-schema", "send the flags as they are, unchecked"),
    request_flag(
        "--max-cost USD", "send nothing if fal's estimate is above it, or unknown", read_positive
    ),
)

PATH = delivery_flag("--path PATH", "sub-path of the endpoint", read_path)
CLIENT_TIMEOUT = delivery_flag("--client-timeout SECONDS", "give up then (status 5)", read_positive)


def giving_up(consequence: str) -> Flag:
    """--client-timeout of a command, with what becomes of the job then."""
    return CLIENT_TIMEOUT._replace(help=f"{CLIENT_TIMEOUT.help}; {consequence}")


LEAVING_THE_JOB = giving_up("a job that fal has goes on, and is billed")
LOOKING_ON = giving_up("the job goes on")
CANCELLING = giving_up("a job that fal has is cancelled, unless --keep is given")
QUEUE = (
    PATH,
    delivery_flag(
        "--hint TEXT", "requests with the same hint prefer the same runner", read_visible_text
    ),
    delivery_flag(
        "--priority {normal,low,rush}",
        "place in the queue; rush is sent as normal, the highest there is",
        read_choice("normal", "low", "rush"),
    ),
    delivery_flag(
        "--start-timeout SECONDS", "more than 1; the job must start within this time", read_above_1
    ),
)
WEBHOOK_URL = delivery_flag("--webhook-url URL", "URL that fal posts the result to", read_web_url)
KEEP = delivery_flag("--keep", "leave jobs running at fal if this command is stopped")
SAVE = (
    output_flag(
        "--output WHERE",
        "save all files of the result, and add downloaded_files to the JSON: a folder (it exists,"
        " or ends in /), a file name, or a template with {index}, {name}, {ext}, {request_id},"
        " {model}, {seed}, {prompt}, {date}",
        read_output_place,
    ),
    output_flag("--overwrite", "replace files that exist"),
    output_flag("--max-bytes N", "refuse larger files (default 2147483648)", read_positive_int),
    output_flag(
        "--media",
        "print MEDIA:/path for each saved file instead of the JSON; without --output they are"
        " saved to the current folder",
    ),
    output_flag(
        "--metadata",
        "write beside each file a .json with what made it: model, arguments, seed, ...",
    ),
    output_flag(
        "--gallery FILE",
        "show the saved files with their prompts in one page (FILE ends in .html) or picture (.png,"
        " .jpg), written anew as each job ends; comes again for both; without --output they are"
        " saved to the current folder",
        read_gallery_path,
        action="append",
    ),
)
AGAIN = (
    delivery_flag(
        "--journal FILE",
        "record each job on disk as it goes; the same command then goes on where it stopped",
        read_journal_path,
    ),
    delivery_flag(
        "--retry-unknown",
        "with --journal: submit jobs again that fal may have, but that the account does not list",
    ),
    delivery_flag("--retry-failed", "with --journal: submit jobs again that failed"),
)
BATCH = (
    KEEP,
    delivery_flag("--concurrency N", "jobs under way at once (default 4)", read_positive_int),
    *AGAIN,
    *SAVE,
)
NO_LOGS = output_flag("--no-logs", "the status alone, without the lines that the job has logged")
NO_WAIT = delivery_flag("--no-wait", "fail at once if the job has not ended")
ROUNDS = delivery_flag(
    "--rounds N", "how often to send the arguments (default 1)", read_positive_int
)

FILE = file_flag("--file FILE", "file to read", read_local_file, required=True)
FILE_OR_STDIN = file_flag(
    "--file FILE", "file to read; - is stdin", read_file_or_stdin, required=True
)
CONTENT_TYPE = file_flag(
    "--content-type TYPE", "MIME type of the bytes", read_mime_type, required=True
)
IMAGE_FORMAT = file_flag(
    "--format {jpeg,jpg,png,webp}",
    "format to convert to (default jpeg, which has no transparency)",
    read_choice("jpeg", "jpg", "png", "webp"),
)

JSON = output_flag("--json", "print JSON")
QUIET = output_flag("--quiet", "no progress and no notes on stderr")

JOB_EXAMPLE = "--model fal-ai/flux/dev --request-id 764cabcf-b745-4b3e-ae38-1200304cf45b"
IMAGE_EXAMPLE = "--file photo.jpg --format webp"
RAW_EXAMPLE = "--file data.bin --content-type application/octet-stream"

url_text, data_uri_text = operator.itemgetter("url"), operator.itemgetter("data_uri")


# Arguments: from flags to what the model is sent


def _build_t2i_arguments(prompt: str | None = None, **flags: Any) -> Fields:
    """Text-to-image arguments for want of a schema; width and height become `image_size`."""
    return unchecked_arguments("image_size", **present(prompt=prompt), **flags)


def _build_i2v_arguments(image_url: str | Sequence[str] = (), **flags: Any) -> Fields:
    """Image-to-video arguments for want of a schema; width and height become `video_size`."""
    return unchecked_arguments("video_size", image_url=image_url, **flags)


def unchecked_arguments(
    size_name: str,
    *,
    image_url: str | Sequence[str] = (),
    arg: Arguments | None = None,
    extra_json: Arguments | None = None,
    **flags: Any,
) -> Fields:
    """The flags under their own names; what --arg says is read as JSON if it is JSON."""
    sources = as_list(image_url)
    if len(sources) > 1:
        raise usage_error("where a second --image-url goes, only the model's schema can tell")
    arguments: Fields = {}
    if sources:
        arguments["image_url"] = sources[0]
    arguments.update(with_size(size_name, flags))
    for name, value in (arg or {}).items():
        arguments[name] = as_json(value)
    arguments.update(extra_json or {})
    return arguments


def as_json(value: Any) -> Any:
    """What --arg says where nobody knows what is wanted: JSON if it is JSON, else text."""
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, str):
        return next(iter(json_readings(value)), value)
    return value


def with_size(name: str, flags: Arguments) -> Fields:
    """The flags that have a value, width and height as one object of that name."""
    arguments = present(**flags)
    width = arguments.pop("width", None)
    height = arguments.pop("height", None)
    if (width is None) != (height is None):
        raise usage_error("--width and --height go together")
    if width is not None:
        arguments[name] = {"width": width, "height": height}
    return arguments


def as_list(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value]


# Files of jobs: what a batch reads, one job a line, a row or an item


def read_jobs(flags: Sequence[Flag], varied: str, source: str) -> list[Fields]:
    """The jobs of a batch: what varies as it is, or an object with any flags by their names and
    with `extra` for what has no flag.
    """
    by_name = {flag.dest: flag for flag in reversed(flags)}  # of two rows the first
    by_name["extra"] = by_name.pop("extra_json")
    by_name["arg"] = by_name["arg"]._replace(read=read_json_object)
    text = read_text(source)
    source_name = name_of_source(source)
    if source.lower().endswith(TABLE_EXTENSIONS):
        places = rows_of_table(by_name, text, source_name)
    elif is_whole_list(text):
        places = items_of_list(text, source_name)
    else:
        places = lines_of_text(text, source_name)
    jobs = []
    for place, entry in places:
        with naming(f"{source_name}, {place}"):
            jobs.append(read_job(by_name, varied, entry))
    if not jobs:
        raise usage_error(f"{source_name} holds no jobs")
    return jobs


# Where in a file a job stands, and what stands there: a text, or values by the flags' names.
Places = list[tuple[str, Any]]


def read_job(flags: Mapping[str, Flag], varied: str, entry: Any) -> Fields:
    """The values of a job by the flags' names."""
    values = entry
    if isinstance(entry, Line):
        values = entry.values(varied)
    elif isinstance(entry, str):
        values = {varied: entry}
    if not isinstance(values, dict):
        raise usage_error(f"must be a JSON object or a text, not {json.dumps(values)[:40]}")
    job = {name: read_json_value(flags, name, value) for name, value in values.items()}
    if varied not in job and "arg" not in job:
        raise usage_error(f"{varied} is missing")
    return job


class Line(str):
    """A line of a file of jobs, which may be JSON."""

    def values(self, varied: str) -> Fields:
        if not starts_json(self):
            return {varied: str(self)}
        if self == "{":
            hint = "A job is on one line (jq -c writes it so), or the file is one list of jobs."
            raise usage_error("not valid JSON: the object goes on in the next line", hint)
        return json_object(self)


def starts_json(line: str) -> bool:
    """Whether a line is meant as JSON; a prompt may start with a word in brackets."""
    value = json_or_none(line)
    if value is None:
        return line.startswith("{") or line == "["
    return isinstance(value, (dict, list))


def lines_of_text(text: str, source: str) -> Places:
    """The lines that are no comments, without quotes that a spreadsheet has put around them."""
    if is_whole_object(text):
        return [(f"line {first_line(text)}", Line(text.strip()))]
    comments = 0
    places: Places = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if re.match(r"#(\s|$)", line):
            comments += 1
        elif line:
            places.append((f"line {number}", Line(line)))
    if comments:
        note(f"{source}: {number_of(comments, 'line')} left out as comments (# and a space)")
    return without_quotes_of_spreadsheet(places, source)


def first_line(text: str) -> int:
    """The line in which a text begins, after blank ones."""
    return text.count("\n", 0, len(text) - len(text.lstrip())) + 1


def without_quotes_of_spreadsheet(places: Places, source: str) -> Places:
    """The lines as the cells were: a spreadsheet puts those with a comma or a quote in quotes, and
    doubles quotes in them.

    A prompt may be in quotes for a reason. A spreadsheet is told by a doubled quote, or by all
    lines being in quotes, if there are several.
    """
    quoted = [line for _, line in places if is_quoted_cell(line)]
    has_doubled_quotes = any('""' in line[1:-1] for line in quoted)
    is_all_quoted = len(places) > 1 and len(quoted) == len(places)
    if not (has_doubled_quotes or is_all_quoted):
        return places
    as_cells: Places = []
    for place, line in places:
        if is_quoted_cell(line):
            line = Line(line[1:-1].replace('""', '"').strip())
        as_cells.append((place, line))
    note(f"{source}: quotes around {number_of(len(quoted), 'line')} are left out")
    return as_cells


def is_quoted_cell(line: str) -> bool:
    """Whether a line is as a spreadsheet writes a lone cell that holds a comma or a quote."""
    return re.fullmatch('"([^"]|"")+"', line) is not None


def is_whole_object(text: str) -> bool:
    """Whether a file is one JSON object, on several lines perhaps."""
    return text.lstrip().startswith("{") and isinstance(json_or_none(text), dict)


def is_whole_list(text: str) -> bool:
    """Whether a file is meant as one JSON list; lines of prompts may start with brackets."""
    text = text.strip()
    if not text.startswith("["):
        return False
    if re.match(r"""\[\s*(\n|$|\{\s*["\n]|["'][^\n]*["'],\s*\n)""", text):
        return True
    if re.match(r"\[\s*\{", text) and text.endswith("]"):
        return True
    return isinstance(json_or_none(text), list)


def items_of_list(text: str, source: str) -> Places:
    with naming(source):
        items = read_json(text)
    return [(f"item {number}", item) for number, item in enumerate(items, 1)]


TABLE_EXTENSIONS = (".csv", ".tsv", ".tab")
DELIMITERS = ",;\t|"  # Excel writes semicolons where numbers have a decimal comma
NO_DELIMITER = "\x1f"  # which no text holds


def rows_of_table(flags: Mapping[str, Flag], text: str, source: str) -> Places:
    """The rows of a spreadsheet under the names of its first row; empty cells are left out."""
    delimiter, table = delimiter_of(text)
    first_number = 1 + text.count("\n") - table.count("\n")
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    places: Places = []
    try:
        for number, row in enumerate(reader, first_number):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            with naming(f"{source}, row {number}"):
                if not columns:
                    columns = columns_of_table(flags, cells)
                else:
                    places.append((f"row {number}", values_of_row(flags, columns, cells)))
    except csv.Error as exc:
        hint = 'A text with quotes in it stands in quotes, and they are doubled: "a ""big"" cat".'
        reason = str(exc).replace(NO_DELIMITER, "the end")
        message = f"{source}, line {reader.line_num}: not valid CSV: {reason}"
        raise usage_error(message, hint) from exc
    return places


def delimiter_of(text: str) -> tuple[str, str]:
    """What stands between the cells of a table, and the table: Excel may name it before, and else
    it is what there is most of between the names of the first row. A lone column needs none.
    """
    named = re.match(r"sep=(.)\n", text)
    if named is not None:
        return named[1], text[named.end() :]
    first_row = text.lstrip("\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=first_row.count)
    if delimiter not in first_row:
        return NO_DELIMITER, text
    return delimiter, text


def columns_of_table(flags: Mapping[str, Flag], cells: Sequence[str]) -> list[str]:
    """The flags that the first row names: `Num Images` and `--num-images` are `num_images`."""
    columns: list[str] = []
    for cell in cells:
        name = re.sub(r"[\s-]+", "_", cell.lower().lstrip("-"))
        if name and name not in flags:
            near = did_you_mean(name, flags)
            hint = "The first row names flags, such as prompt,seed,num_images."
            raise usage_error(f"no such column: {cell[:80]}", near or hint)
        if name and name in columns:
            raise usage_error(f"the column {name} is there twice")
        columns.append(name)
    return columns


def values_of_row(
    flags: Mapping[str, Flag], columns: Sequence[str], cells: Sequence[str]
) -> Fields:
    """The cells that are not empty by the names of their columns, switches as true or false."""
    values: Fields = {}
    for number, cell in enumerate(cells, 1):
        if not cell:
            continue
        if number > len(columns) or not columns[number - 1]:
            raise usage_error(
                f"cell {number} has no name in the first row: {cell[:80]}",
                "A text that holds the delimiter stands in quotes.",
            )
        name = columns[number - 1]
        values[name] = cell
        is_switch = flags[name].read is None
        if is_switch and cell.lower() in ("true", "false"):
            values[name] = cell.lower() == "true"
    return values


def read_json_value(flags: Mapping[str, Flag], name: str, value: Any) -> Any:
    """What a flag makes of a value that stands in JSON."""
    if name not in flags:
        near = did_you_mean(name, flags)
        raise usage_error(f"no such argument: {name}", near or "What has no flag goes into extra.")
    flag = flags[name]
    if isinstance(value, list) and flag.takes_many:
        return [read_json_value(flags, name, item) for item in value]
    if isinstance(value, bool) and flag.read is None:
        return value
    if value is None or isinstance(value, (bool, list)) or flag.read is None:
        raise usage_error(f"{name}: not a value: {json.dumps(value)}")
    if value == "-":
        raise usage_error(f"{name}: - does not stand for stdin here")
    if not isinstance(value, str):
        value = json.dumps(value)
    return read_value(flag.name, flag.read, value)


# The two kinds of models

T2I = Task(
    suffix="t2i",
    models=TEXT_TO_IMAGE_MODELS,
    flags=TEXT_TO_IMAGE,
    build=_build_t2i_arguments,
    about="t2i takes any model that starts from words, be it for pictures or for clips; pictures\n"
    "to edit go with --image-url.",
    varied="prompt",
    many=(
        argument_flag(
            "--prompts TEXT",
            "one job each",
            read_plain_text,
            nargs="+",
            required=True,
        ),
        argument_flag(
            "--prompts-file FILE",
            'a prompt a line, or JSON with the flags of one job, such as {"prompt": "A cat",'
            ' "num_images": 2, "extra": {}}; or a JSON list, or a .csv with such names in its first'
            " row; - is stdin",
            functools.partial(read_jobs, TEXT_TO_IMAGE, "prompt"),
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
    about="i2v takes any model that starts from a picture, be it for clips or pictures.",
    varied="image_url",
    many=(
        argument_flag(
            "--image-urls SOURCE",
            "starting images, one job each",
            read_picture,
            nargs="+",
            required=True,
        ),
        argument_flag(
            "--image-urls-file FILE",
            'an image a line, or JSON with the flags of one job, such as {"image_url": "a.png",'
            ' "duration": 5, "extra": {}}; or a JSON list, or a .csv with such names in its first'
            " row; - is stdin",
            functools.partial(read_jobs, IMAGE_TO_VIDEO, "image_url"),
            dest="image_urls",
        ),
    ),
    example='--model fal-ai/minimax-video/image-to-video --image-url photo.jpg --prompt "It rains"',
    batch_example="--model fal-ai/runway-gen3/turbo/image-to-video --image-urls a.png b.png"
    ' --prompt "It rains"',
)


# ---------------------------------------------------------------------------------------------
# Schemas and fitting: what fal says that a model takes, and what was asked in the model's words.
# Documents come from outside: reading lets only well-typed keywords through, and not too many.
# Fitting trusts what was read and asks nobody; an exception in it is a mistake of ours.
# ---------------------------------------------------------------------------------------------


MAX_SCHEMA_VALUES = 20_000  # JSON values of a schema whose references are replaced
MAX_SCHEMA_DEPTH = 60  # of schemas, and of values within schemas
MAX_REFERENCE = 1000  # characters
MAX_LIKENESS = 200  # characters of a text that are compared with another's
MAX_COMPARED = 500  # texts


class ModelSchema(NamedTuple):
    """What a model takes, as far as fal tells.

    `input_schema` is JSON Schema without references. Where it is None, `reason` is the Failure
    that says why, unless nobody asked fal. `state` is fresh, stale (a copy of a day or more ago)
    or none.
    """

    input_schema: Fields | None = None
    state: str = "none"
    deprecated: bool = False
    streams: bool = False
    reason: Failure | None = None

    @property
    def unchecked_note(self) -> str | None:
        """Why arguments are not checked; None if fal was not asked or did answer."""
        if self.reason is None:
            return None
        hint = "With --strict nothing is sent unchecked."
        if self.reason.type == "not_found" and self.reason.hint:
            hint = self.reason.hint
        return f"the model's arguments were not checked: {self.reason.message}. {hint}"


def read_model_schema(model_row: Any, model: str) -> ModelSchema:
    """What a row of fal's model search says of the model's input; the row may be any JSON.

    The input is the body of the document's POST on the endpoint, never a guess by name.
    """
    document = descend(model_row, ["openapi"])
    request_body = descend(document, ["paths", f"/{model}", "post", "requestBody"])
    body_schema = descend(request_body, ["content", "application/json", "schema"])
    input_schema = SchemaReader(document).read(body_schema)
    if "properties" not in input_schema:
        return ModelSchema()
    for name in input_schema.get("required", []):
        input_schema["properties"].setdefault(name, {})  # there is such a field, of any type
    facts = model_metadata(model_row)
    return ModelSchema(
        input_schema=input_schema,
        state="fresh",
        deprecated=facts.get("status") == "deprecated",
        streams=bool(facts.get("stream_url")),
    )


def descend(value: Any, names: Iterable[str]) -> Any:
    """What JSON objects inside each other hold under the names; None if one of them does not."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


class SchemaReader:
    """Reads schemas of one document: replaces references, and drops keywords of a wrong type.

    A document of 3 kB can unfold to 2^20 schemas. Both depth and number of what is read are
    bounded; a schema beyond that, or a reference that leads back to itself, allows anything.
    """

    def __init__(self, document: Any) -> None:
        self.document = document
        self.room = MAX_SCHEMA_VALUES

    def read(self, node: Any, depth: int = 0, references: tuple[str, ...] = ()) -> Fields:
        """A node of the document as a schema, {} for anything.

        `references` are those that led here.
        """
        self.room -= 1
        if self.room < 0 or depth > MAX_SCHEMA_DEPTH or not isinstance(node, dict):
            return {}
        schema = self._read_keywords(node, depth, references)
        reference = node.get("$ref")
        if is_reference(reference) and reference not in references:
            target = self._find(reference)
            schema = {**self.read(target, depth + 1, (*references, reference)), **schema}
        for part in schema.pop("allOf", []):
            schema = both_schemas(part, schema)
        return with_plain_bounds(with_flat_choices(schema))

    def _read_keywords(self, node: Fields, depth: int, references: tuple[str, ...]) -> Fields:
        schema: Fields = {}
        for keyword, value in node.items():
            if keyword in SCHEMA_KEYWORDS and isinstance(value, dict):
                schema[keyword] = self.read(value, depth + 1, references)
            elif keyword in SCHEMA_LIST_KEYWORDS and isinstance(value, list) and value:
                schema[keyword] = [self.read(item, depth + 1, references) for item in value]
            elif keyword in SCHEMA_MAP_KEYWORDS and isinstance(value, dict):
                schema[keyword] = {
                    name: self.read(item, depth + 1, references) for name, item in value.items()
                }
            elif is_well_typed(keyword, value) and self._take_line(value, depth):
                schema[keyword] = value
        return schema

    def _find(self, reference: str) -> Any:
        """What a JSON pointer such as #/components/schemas/Input leads to."""
        names = reference.removeprefix("#/").split("/")
        unescaped = [name.replace("~1", "/").replace("~0", "~") for name in names]
        return descend(self.document, unescaped)

    def _take_line(self, value: Any, depth: int) -> bool:
        """Whether a value can be kept as a whole; it is counted in any case."""
        self.room -= 1
        if self.room < 0 or depth > MAX_SCHEMA_DEPTH:
            return False
        if isinstance(value, dict):
            return all(self._take_line(item, depth + 1) for item in value.values())
        if isinstance(value, list):
            return all(self._take_line(item, depth + 1) for item in value)
        return not isinstance(value, float) or math.isfinite(value)


def with_flat_choices(schema: Fields) -> Fields:
    """A choice between choices as one choice."""
    for keyword in ("anyOf", "oneOf"):
        parts: list[Fields] = []
        for part in schema.get(keyword, []):
            inner = part.keys() & {"anyOf", "oneOf"}
            is_choice_alone = len(inner) == 1 and not part.keys() - inner - NOT_CHECKED
            parts += subschemas(part) if is_choice_alone else [part]
        if parts:
            schema[keyword] = parts
    return schema


NOT_CHECKED = {"title", "description", "default", "examples"}


def with_plain_bounds(schema: Fields) -> Fields:
    """OpenAPI 3.0's `exclusiveMinimum: true` as the number that JSON Schema has since 2019."""
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):
            is_exclusive = schema.pop(exclusive)
            if is_exclusive and inclusive in schema:
                schema[exclusive] = schema.pop(inclusive)
    return schema


def both_schemas(schema: Fields, other: Fields) -> Fields:
    """A schema for what fulfils both; where they differ, the other has the last word."""
    both = {**schema, **other}
    if "properties" in schema and "properties" in other:
        both["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        both["required"] = list(dict.fromkeys(schema["required"] + other["required"]))
    return both


def is_well_typed(keyword: str, value: Any) -> bool:
    """Whether JSON Schema allows the value for a keyword that holds no schema."""
    if keyword in KEYWORD_TYPES:
        return KEYWORD_TYPES[keyword](value)
    return keyword not in SCHEMA_HOLDERS


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_reference(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_REFERENCE


def is_type_name(value: Any) -> bool:
    return is_text(value) or (is_texts(value) and value != [])


def is_choice(value: Any) -> bool:
    return isinstance(value, list) and value != []


def is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def is_bound(value: Any) -> bool:
    """Whether it is a number; a bool is an int in Python."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_bound_or_boolean(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def is_divisor(value: Any) -> bool:
    return is_bound(value) and value > 0


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def is_count(value: Any) -> bool:
    return is_bound(value) and value >= 0 and value == value // 1


# Keywords that hold a schema, a list of schemas, and schemas by name.
SCHEMA_KEYWORDS = ("items", "additionalProperties", "not")
SCHEMA_LIST_KEYWORDS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMA_MAP_KEYWORDS = ("properties", "patternProperties")

# What is none of the shapes above under one of these keywords is ill-typed.
SCHEMA_HOLDERS = ("$ref", *SCHEMA_KEYWORDS, *SCHEMA_LIST_KEYWORDS, *SCHEMA_MAP_KEYWORDS)

# What other keywords may hold; one that is not here may hold anything, as `default` may.
KEYWORD_TYPES: dict[str, Callable[[Any], bool]] = {
    "additionalProperties": is_boolean,
    "type": is_type_name,
    "enum": is_choice,
    "nullable": is_boolean,
    "required": is_texts,
    "title": is_text,
    "description": is_text,
    "format": is_text,
    "pattern": is_text,
    "minimum": is_bound,
    "maximum": is_bound,
    "exclusiveMinimum": is_bound_or_boolean,  # OpenAPI 3.0 has it beside `minimum`
    "exclusiveMaximum": is_bound_or_boolean,
    "multipleOf": is_divisor,
    "minLength": is_count,
    "maxLength": is_count,
    "minItems": is_count,
    "maxItems": is_count,
    "minProperties": is_count,
    "maxProperties": is_count,
    "uniqueItems": is_boolean,
    "examples": is_list,
}


# What schemas say, and whether a value fulfils one


def subschemas(schema: Fields) -> list[Fields]:
    """The schemas of which a value must fulfil one; none if there is no such choice."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return list(schema[keyword])
    return []


def variants(schema: Fields) -> list[Fields]:
    """The schemas that a value can choose from, be it one."""
    return subschemas(schema) or [schema]


def type_names(schema: Fields) -> list[str]:
    """The types that a schema allows; none if it allows any."""
    names = schema.get("type", [])
    if isinstance(names, str):
        return [names]
    return list(names)


def literals(schema: Fields) -> list[Any]:
    """The values that a schema lists, its alternatives aside."""
    if "enum" in schema:
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    return []


def offered_values(schema: Fields) -> list[Any]:
    """The values that a field offers; none if it takes a range, or any text."""
    values = []
    for variant in variants(schema):
        values += literals(variant)
    return values


def limits_text(schema: Fields) -> str:
    """The limits of a number, as far as the schema tells."""
    for variant in variants(schema):
        if "minimum" in variant or "maximum" in variant:
            return f"{variant.get('minimum', '')}..{variant.get('maximum', '')}"
    return ""


def violations(value: Any, schema: Fields, field: str = "") -> list[Fields]:
    """What fal's pydantic would find wrong with a value: {"field", "message", "type"} each."""
    if value is None and schema.get("nullable"):
        return []
    choices = [part for part in subschemas(schema) if type_names(part) != ["null"]]
    if subschemas(schema):
        beside = {key: item for key, item in schema.items() if key not in ("anyOf", "oneOf")}
        nearest = violations_of_nearest(value, subschemas(schema), field)
        if nearest and choices and all(literals(part) for part in choices):
            message = choice_message(value, offered_values(schema))
            return [value_problem(field, value, message, "literal_error")]
        return nearest or violations(value, beside, field)
    listed = literals(schema)
    if listed and not is_listed(value, listed):
        message = choice_message(value, listed)
        return [value_problem(field, value, message, "literal_error")]
    kinds = type_names(schema)
    if kinds and not any(has_type(value, kind) for kind in kinds):
        message = f"not {' or '.join(kinds)}"
        return [value_problem(field, value, message, "wrong_type")]
    problems = violated_limits(value, schema, field)
    if isinstance(value, dict):
        problems += violations_in_object(value, schema, field)
    if isinstance(value, list):
        problems += violations_in_list(value, schema, field)
    return problems


def violations_of_nearest(value: Any, schemas: list[Fields], field: str) -> list[Fields]:
    """The problems with the schema that was most likely meant: one of the right type."""

    def unlikelihood(problems: list[Fields]) -> tuple[bool, int]:
        is_wrong_type = bool(problems) and problems[0]["type"] == "wrong_type"
        return is_wrong_type, len(problems)

    problems_by_schema = []
    for schema in schemas:
        problems_by_schema.append(violations(value, schema, field))
    return min(problems_by_schema, key=unlikelihood)


def violated_limits(value: Any, schema: Fields, field: str) -> list[Fields]:
    problems = []
    for keyword, (measure, holds, relation) in LIMITS.items():
        if keyword not in schema:
            continue
        size = measure(value)
        if size is not None and not holds(size, schema[keyword]):
            message = f"{relation} {schema[keyword]}"
            problems.append(value_problem(field, value, message, keyword))
    return problems


def violations_in_object(value: Fields, schema: Fields, field: str) -> list[Fields]:
    """Fields that are missing, then what is wrong with those that the schema describes."""
    problems = []
    for name in schema.get("required", []):
        if name not in value:
            problems.append(value_problem(dotted(field, name), None, "required", "missing"))
    fields = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    for name, item in value.items():
        if name in fields:
            problems += violations(item, fields[name], dotted(field, name))
        elif isinstance(others, dict):
            problems += violations(item, others, dotted(field, name))
        elif not others:
            problems.append(
                value_problem(dotted(field, name), None, "not allowed", "extra_forbidden")
            )
    return problems


def violations_in_list(values: list[Any], schema: Fields, field: str) -> list[Fields]:
    problems: list[Fields] = []
    if "items" not in schema:
        return problems
    for index, item in enumerate(values):
        item_field = dotted(field, index)
        problems += violations(item, schema["items"], item_field)
    return problems


def value_problem(field: str, value: Any, message: str, problem_type: str) -> Fields:
    """A problem whose message starts with the value, unless that is None."""
    if value is not None:
        shown = redact(json.dumps(value, ensure_ascii=False))
        message = f"{shown[:80]} is {message}"
    return {"field": field, "message": message, "type": problem_type}


def dotted(field: str, name: Any) -> str:
    return f"{field}.{name}" if field else str(name)


def closest_value(value: Any, offered: list[Any]) -> Any:
    """The nearest number, or the likest word."""
    wanted = in_seconds(value)
    distances = []
    for candidate in offered:
        seconds = in_seconds(candidate)
        if wanted is not None and seconds is not None:
            distances.append((abs(seconds - wanted), candidate))
    if distances:
        return min(distances, key=lambda pair: pair[0])[1]

    def likeness(candidate: Any) -> float:
        texts = (str(candidate)[:MAX_LIKENESS], str(value)[:MAX_LIKENESS])
        return difflib.SequenceMatcher(None, *texts).ratio()

    return max(offered[:MAX_COMPARED], key=likeness)


def choice_message(value: Any, listed: list[Any]) -> str:
    shown = ", ".join(json.dumps(literal) for literal in listed)
    nearest = closest_value(value, listed)
    return f"not one of {cut(shown, 1000)}; the closest is {cut(json.dumps(nearest), 200)}"


def is_listed(value: Any, listed: list[Any]) -> bool:
    return any(is_same_value(value, literal) for literal in listed)


def is_same_value(value: Any, literal: Any) -> bool:
    """5 and 5.0 are the same to pydantic, 5 and "5" are not, nor are 1 and True."""
    are_numbers = is_bound(value) and is_bound(literal)
    if not are_numbers and type(value) is not type(literal):
        return False
    if isinstance(value, (list, dict)):  # 1 and True are the same to Python in these
        return as_text_of_json(value) == as_text_of_json(literal)
    return bool(value == literal)


def has_type(value: Any, kind: str) -> bool:
    """Whether a value is of JSON Schema's type; of a type that is unknown, anything is."""
    return kind not in JSON_TYPES or JSON_TYPES[kind](value)


def as_number(value: Any) -> float | None:
    """A number, or the text of one, which pydantic takes for a number too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        return float(value)
    return None


def is_whole_number(value: Any) -> bool:
    parsed = as_number(value)
    return parsed is not None and parsed.is_integer()


def text_length(value: Any) -> int | None:
    return len(value) if isinstance(value, str) else None


def item_count(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def property_count(value: Any) -> int | None:
    return len(value) if isinstance(value, dict) else None


def is_multiple(number: float, divisor: float) -> bool:
    """As far as floats can tell: 0.3 is a multiple of 0.1."""
    try:
        quotient = number / divisor
    except OverflowError:
        return True
    return not math.isfinite(quotient) or math.isclose(
        quotient, round(quotient), rel_tol=1e-9, abs_tol=1e-9
    )


def short_text(value: Any) -> str | None:
    """A text on which no pattern takes long; longer ones are left to fal."""
    return value if isinstance(value, str) and len(value) <= MAX_LIKENESS else None


def matches_pattern(text: str, pattern: str) -> bool:
    """Whether a text holds what the pattern says, unless the pattern is one that could take for
    ever, or that Python does not read.
    """
    repeats = len(re.findall(r"[*+}]", pattern))
    if repeats > 2 or re.search(r"\)[*+{]", pattern) or len(pattern) > MAX_REFERENCE:
        return True
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return True


def as_items(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) else None


def with_integers(value: Any) -> Any:
    """A value with 1 in place of 1.0, which is the same in JSON."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    if isinstance(value, dict):
        return {name: with_integers(item) for name, item in value.items()}
    return value


def as_text_of_json(value: Any) -> str:
    """The same for what is the same in JSON."""
    return json.dumps(with_integers(value), sort_keys=True)


def are_unique(items: list[Any], is_wanted: bool) -> bool:
    texts = [as_text_of_json(item) for item in items]
    return not is_wanted or len(set(texts)) == len(texts)


JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": is_text,
    "integer": is_whole_number,
    "number": lambda value: as_number(value) is not None,
    "boolean": is_boolean,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}

# By keyword: what is measured of a value (None: nothing), how it must compare, what it is if not.
LIMITS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], bool], str]] = {
    "minimum": (as_number, operator.ge, "below"),
    "maximum": (as_number, operator.le, "above"),
    "exclusiveMinimum": (as_number, operator.gt, "not above"),
    "exclusiveMaximum": (as_number, operator.lt, "not below"),
    "minLength": (text_length, operator.ge, "shorter than"),
    "maxLength": (text_length, operator.le, "longer than"),
    "minItems": (item_count, operator.ge, "fewer items than"),
    "maxItems": (item_count, operator.le, "more items than"),
    "minProperties": (property_count, operator.ge, "fewer properties than"),
    "maxProperties": (property_count, operator.le, "more properties than"),
    "multipleOf": (as_number, is_multiple, "no multiple of"),
    "pattern": (short_text, matches_pattern, "not as the pattern says:"),
    "uniqueItems": (as_items, are_unique, "not of different items:"),
}


MEASURE = r"\d{1,9}(?:\.\d{1,9})?"  # a number in a label, too short to be too large for a float

# What the fields of a model are for, as far as names, types, examples and descriptions tell


class ModelField(NamedTuple):
    """A field of a model's input."""

    name: str
    schema: Fields
    is_required: bool

    @property
    def words(self) -> list[str]:
        return words_of(self.name)

    @property
    def description(self) -> str:
        return str(self.schema.get("description") or self.schema.get("title") or "")

    @property
    def default(self) -> Any:
        return self.schema.get("default")

    def takes(self, *kinds: str) -> bool:
        """Whether a value may be of one of the types; a field without types takes any."""
        for variant in variants(self.schema):
            allowed = type_names(variant)
            if not allowed or any(kind in allowed for kind in kinds):
                return True
        return False


def shown_values(schema: Fields) -> list[Any]:
    """The default, None if there is none, and the examples."""
    return [schema.get("default"), *as_list(schema.get("examples", []))]


def words_of(text: str) -> list[str]:
    """The words of a name or a description: image_url and imageUrl are image and url."""
    spaced = re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", text[:MAX_REFERENCE])
    return [word for word in re.split(r"[^a-z\d]+", spaced.lower()) if word]


def fields_of(schema: Fields) -> list[ModelField]:
    """The fields of an object, in their order."""
    required = schema.get("required", [])
    properties = schema.get("properties", {})
    return [ModelField(name, field, name in required) for name, field in properties.items()]


def find_field(fields: Sequence[ModelField], flag: Flag) -> ModelField | None:
    """The field that a flag sets: of the names that models use for it, the first; or else the
    only field, or the only required one, whose words and type say so.
    """
    named = find_named(fields, flag.names)
    if named is not None:
        return named
    likely = [field for field in fields if suits(field, flag)]
    required = [field for field in likely if field.is_required]
    if len(required or likely) != 1:
        return None
    return (required or likely)[0]


def suits(field: ModelField, flag: Flag) -> bool:
    """Whether a field is what a flag sets, as far as its name and its type tell."""
    if not flag.like or not re.fullmatch(flag.like, "_".join(field.words)):
        return False
    if not flag.is_text and offered_values(field.schema):
        return shows_numbers(field)
    if not flag.is_text:
        return field.takes("integer", "number") or shows_numbers(field)
    return not offered_values(field.schema) and takes_text(field)


def takes_text(field: ModelField) -> bool:
    """Whether a field takes a text, or a list of texts."""
    for variant in variants(field.schema):
        items = variant.get("items", {})
        lists_texts = "array" in type_names(variant) and "string" in (
            type_names(items) or ["string"]
        )
        if takes_free_text(variant) or (lists_texts and "properties" not in items):
            return True
    return False


# What a file is, by a word of its field's name or description.
FILE_KINDS = {
    "image": r"images?|imgs?|gifs?|photos?|pictures?|(key)?frames?|portraits?|selfie|screenshot"
    r"|thumbnail|masks?",
    "video": r"videos?|clips?|movie|footage",
    "audio": r"audios?|song|music|voiceover|speech",
    "other": r"loras?|models?|weights|checkpoint|embeddings?|vae|zip|archive|webhook|callback|page"
    r"|site|website|font",
}
FILE_EXTENSIONS = {
    "image": r"\.(png|jpe?g|webp|gif|avif|bmp|tiff?|heic)\b",
    "video": r"\.(mp4|mov|webm|mkv|avi)\b",
    "audio": r"\.(mp3|wav|m4a|ogg|flac|aac)\b",
    "other": r"\.(zip|tar|safetensors|ckpt|pt|bin|json|ttf)\b",
}
COUNT_WORDS = r"num(ber)?|n|max|min|count|total"
# The last word of the name of a field that takes a URL, whatever of.
URL_WORDS = r"ur[li]s?|files?|source|src|links?"


def file_kind(field: ModelField) -> str | None:
    """What kind of file a field takes the URL of: a key of FILE_KINDS; None if it takes none."""
    is_free = any(takes_free_text(variant) for variant in variants(field.schema))
    if not is_free or not field.words:
        return None
    named = kind_by_words(reversed(field.words))  # the last word counts: model_image is an image
    if any(re.fullmatch(COUNT_WORDS, word) for word in field.words):
        return None
    last_words = [word for word in field.words if not word.isdigit()][-1:]
    is_noun = kind_by_words(last_words) in ("image", "video", "audio")
    is_url = any(re.fullmatch(URL_WORDS, word) for word in last_words)
    if not (is_noun or is_url or is_url_by_schema(field)):
        return None
    described = kind_by_words(words_of(field.description))
    if re.search(r"\b(zip|archive|tar)\b", field.description, re.I):
        return "other"
    return kind_by_examples(field.schema) or named or described or "other"


def is_url_by_schema(field: ModelField) -> bool:
    """Whether the format or an example says that a text is a URL."""
    if re.search(r"\bURLs?\b", field.description[:40], re.I):
        return True
    for variant in variants(field.schema):
        if variant.get("format") in ("uri", "url", "uri-reference"):
            return True
    return any(is_link(example) for example in as_list(field.schema.get("examples", [])))


def takes_free_text(schema: Fields) -> bool:
    """Whether any text will do, as a URL must be."""
    kinds = {*type_names(schema)}
    if not kinds:
        return not literals(schema) and not {"properties", "items"} & schema.keys()
    return not literals(schema) and "string" in kinds <= {"string", "null"}


def kind_by_words(words: Iterable[str]) -> str | None:
    """The kind of file that the first word names that names any."""
    for word in words:
        for kind, pattern in FILE_KINDS.items():
            if re.fullmatch(pattern, word):
                return kind
    return None


def kind_by_examples(schema: Fields) -> str | None:
    for text in shown_values(schema):
        for kind, pattern in FILE_EXTENSIONS.items():
            if isinstance(text, str) and re.search(pattern, text[:MAX_REFERENCE], re.I):
                return kind
    return None


# Pictures: which field takes those that --image-url gives

FIRST_WORDS = r"start|first|begin(ning)?|initial|opening|head"
LAST_WORDS = r"end|last|tail|final|ending|closing"
# Of names that say no more than that it is the picture to start from.
PLAIN_WORDS = (
    rf"{FIRST_WORDS}|{URL_WORDS}|images?|imgs?|photos?|pictures?|frames?|inputs?|init|base|original"
    r"|main|data|\d+"
)
FURTHER_WORDS = r"second|third|fourth|[2-9]"
# Of names of lists that are the model's main pictures, too.
REFERENCE_WORDS = r"references?|refs?|subjects?"
# Of names of pictures that go with another one.
MASK_WORDS = r"masks?|control(net)?|depth|pose|canny|adapters?"
MAX_NAMED = 10  # fields that a message names


class PictureField(NamedTuple):
    """A field that takes pictures: one or a list, as URLs or as objects that hold one."""

    field: ModelField
    is_list: bool
    key: str | None = None  # of the URL in an object
    takes_one: bool = False  # beside a list, just one
    beside: Fields = {}  # what an object needs besides, by its defaults  # noqa: RUF012

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def is_required(self) -> bool:
        return self.field.is_required

    def has(self, pattern: str) -> bool:
        """Whether its name has a word of the pattern."""
        return any(re.fullmatch(pattern, word) for word in self.field.words)

    def consists_of(self, *patterns: str) -> bool:
        """Whether its name has words of the patterns alone."""
        return all(re.fullmatch("|".join(patterns), word) for word in self.field.words)

    @property
    def is_plain(self) -> bool:
        """Whether it is the model's main picture, or its main list of pictures."""
        if self.is_list:
            return self.consists_of(PLAIN_WORDS, REFERENCE_WORDS)
        return self.consists_of(PLAIN_WORDS)

    @property
    def is_first_frame(self) -> bool:
        return not self.is_list and self.is_plain and self.has(FIRST_WORDS)

    @property
    def is_last_frame(self) -> bool:
        is_frame = self.consists_of(PLAIN_WORDS, LAST_WORDS) and self.has(LAST_WORDS)
        return is_frame and not self.is_list

    @property
    def is_second(self) -> bool:
        """Whether it is another picture that is like the first."""
        is_like = self.consists_of(PLAIN_WORDS, FURTHER_WORDS) and not self.is_list
        return is_like and (self.is_required or self.has(FURTHER_WORDS))

    def value(self, sources: Sequence[str]) -> Any:
        """The pictures as the field takes them."""
        items: list[Any] = list(sources)
        if self.key is not None:
            items = [{self.key: source, **self.beside} for source in sources]
        if self.is_list and not (self.takes_one and len(items) == 1):
            return items
        return items[0]


def picture_fields(fields: Iterable[ModelField]) -> list[PictureField]:
    found = []
    for field in fields:
        picture_field = as_picture_field(field)
        if picture_field is not None:
            found.append(picture_field)
    return found


def unknown_files(fields: Iterable[ModelField]) -> list[PictureField]:
    """The required files of which nothing says what they are."""
    found = []
    for field in fields:
        is_untold = file_kind(field) == "other" and kind_by_words(field.words) is None
        if field.is_required and is_untold:
            found.append(PictureField(field, is_list=False))
    return found


def as_picture_field(field: ModelField) -> PictureField | None:
    """How a field takes pictures; None if it takes none, or more than just their URLs."""
    takes_one = file_kind(field) == "image"
    for variant in variants(field.schema):
        takes_list = "array" in type_names(variant)
        item = field._replace(schema=variant)
        if takes_list:
            item = item_of(field, variant)
        if takes_list and file_kind(item) == "image":
            return PictureField(field, takes_list, takes_one=takes_one)
        key = picture_key(item)
        is_meant = field.is_required or kind_by_words(field.words) == "image"
        if key is not None and is_meant:
            return PictureField(field, takes_list, key, beside=required_defaults(item.schema))
    if takes_one:
        return PictureField(field, is_list=False)
    return None


def required_defaults(schema: Fields) -> Fields:
    defaults = {}
    for field in fields_of(schema):
        if field.is_required and "default" in field.schema:
            defaults[field.name] = field.default
    return defaults


def item_of(field: ModelField, variant: Fields) -> ModelField:
    """What a list holds, as a field that is described as the list is."""
    items = variant.get("items", {})
    described = {"description": field.description, **items}
    return field._replace(schema=described)


def picture_key(field: ModelField) -> str | None:
    """Where an object holds its only picture; None if it does not, or cannot do without more."""
    if not field.schema.get("properties"):
        return None
    keys = []
    for inner in fields_of(field.schema):
        whole_name = inner._replace(name=f"{field.name}_{inner.name}")
        is_plain = bool(inner.words) and re.fullmatch(PLAIN_WORDS, inner.words[-1])
        if is_plain and file_kind(whole_name) == "image":
            keys.append(inner.name)
        elif inner.is_required and "default" not in inner.schema:
            return None
    if len(keys) != 1:
        return None
    return keys[0]


def fit_pictures(fitted: Fit, sources: list[str]) -> None:
    """The first picture starts the clip, the second ends it; a list takes all of them."""
    if not sources:
        return
    pictures = picture_fields(fitted.free_fields()) or unknown_files(fitted.free_fields())
    places = places_of_pictures(pictures, sources)
    if places and is_beside_other_files(fitted, places[0][0]):
        places = []
    room = sum(len(placed) for _, placed in places)
    if room < len(sources):
        fitted.settle(*(picture_field.name for picture_field in pictures))
        refuse_pictures(fitted, pictures, places, len(sources))
        return
    for picture_field, placed in places:
        fitted.arguments[picture_field.name] = picture_field.value(as_files(placed))


def refuse_pictures(
    fitted: Fit,
    pictures: Sequence[PictureField],
    places: Sequence[tuple[PictureField, list[str]]],
    count: int,
) -> None:
    """Say where pictures go that no field takes for --image-url."""
    if not places:
        fitted.settle(*(field.name for field in fitted.free_fields() if file_kind(field)))
        fitted.refuse("image_url", no_place_message(fitted, pictures), "no_image")
        return
    taken = [picture_field.name for picture_field, _ in places]
    others = [picture_field for picture_field in pictures if picture_field.name not in taken]
    message = f"takes {len(taken)} image(s), not {count}"
    if others:
        message += f"; others go with {ways_to_set_pictures(others)}"
    fitted.refuse(taken[0], message, "too_long")


def is_beside_other_files(fitted: Fit, picture_field: PictureField) -> bool:
    """Whether a picture of a special name only adds to a clip or a sound that is required."""
    if picture_field.is_required or picture_field.is_plain:
        return False
    return any(
        field.is_required and file_kind(field) in ("video", "audio")
        for field in fitted.model_fields
    )


def places_of_pictures(
    pictures: Sequence[PictureField], sources: list[str]
) -> list[tuple[PictureField, list[str]]]:
    """Which fields take which pictures, as many as there is room for; none if it is not clear
    which field is meant.
    """
    chief = main_picture(pictures, len(sources))
    if chief is None:
        return []
    if chief.is_list:
        return [(chief, sources)]
    others = [other for other in pictures if other != chief]
    rest = list_of_the_rest(others, len(sources))
    if rest is not None:
        return [(chief, sources[:1]), (rest, sources[1:])]
    singles = [other for other in others if other.is_last_frame]
    if not singles:
        singles = [other for other in others if other.is_second]
    places = []
    for picture_field, source in zip([chief, *singles], sources, strict=False):
        places.append((picture_field, [source]))
    return places


def main_picture(pictures: Sequence[PictureField], count: int) -> PictureField | None:
    """The field of the first picture. What is required goes before what is not, and what has a
    plain name before a frame; several that need a choice are left to the user.
    """
    required = [candidate for candidate in pictures if candidate.is_required]
    plain = [candidate for candidate in required or pictures if candidate.is_plain]
    singles = [candidate for candidate in plain if not candidate.is_list]
    lists = [candidate for candidate in plain if candidate.is_list]
    optional = [candidate for candidate in pictures if candidate.is_plain]
    if len(required) == 1 and not (required[0].has("masks?") and optional):
        return required[0]
    if required:
        return first_of(singles, lists, optional)
    unframed = [candidate for candidate in singles if not candidate.is_first_frame]
    has_end = any(candidate.is_last_frame for candidate in pictures)
    if count > 1 and not (count == 2 and has_end):
        return first_of(lists, singles)
    alone = [
        candidate for candidate in pictures if len(pictures) == 1 and not candidate.has(MASK_WORDS)
    ]
    return first_of(unframed, lists, singles, alone)


def list_of_the_rest(others: Sequence[PictureField], count: int) -> PictureField | None:
    """The list that takes all pictures but the first; none if two of them are a clip's frames."""
    if count == 1 or (count == 2 and any(other.is_last_frame for other in others)):
        return None
    lists = [other for other in others if other.is_list and other.is_plain]
    required = [other for other in lists if other.is_required]
    return first_of(required, lists)


def first_of(*choices: Sequence[PictureField]) -> PictureField | None:
    for choice in choices:
        if choice:
            return choice[0]
    return None


def no_place_message(fitted: Fit, pictures: Sequence[PictureField]) -> str:
    """Which of the model's own names takes a picture, or what it starts from instead."""
    if pictures:
        return f"the model's pictures have other names: {ways_to_set_pictures(pictures)}"
    for field in fitted.free_fields():
        example = example_with_picture(field)
        if example is not None:
            return f"the model takes images in --arg {field.name}='{json.dumps(example)}' alone"
    given = picture_fields(fitted.model_fields)
    if given:
        return f"the model takes no further image: --arg has {given[0].name}"
    files = [field for field in fitted.free_fields() if field.is_required and file_kind(field)]
    if files:
        ways = " and ".join(f"--arg {field.name}=FILE" for field in files[:MAX_NAMED])
        return f"the model takes no image, but {ways}"
    return "the model takes no image"


def ways_to_set_pictures(pictures: Sequence[PictureField]) -> str:
    names = [picture_field.name for picture_field in pictures[:MAX_NAMED]]
    return " or ".join(f"--arg {name}=FILE" for name in names)


def example_with_picture(field: ModelField) -> Any:
    """What a field takes that holds pictures among other things; None if it holds none."""
    for variant in variants(field.schema):
        items = variant.get("items", {})
        if "array" in type_names(variant) and items:
            example = example_with_picture(field._replace(schema=items))
            if example is not None:
                return [example]
        example = {}
        has_picture = False
        for inner in fields_of(variant):
            is_picture = file_kind(inner._replace(name=f"{field.name}_{inner.name}")) == "image"
            if is_picture or (inner.is_required and "default" not in inner.schema):
                example[inner.name] = "FILE" if is_picture else "VALUE"
            has_picture = has_picture or is_picture
        if has_picture:
            return example
    return None


# Sizes: what a label says, and which fields say a size


class Extent(NamedTuple):
    """What is told of a size: width by height, and how many pixels there may be in all."""

    ratio: float | None = None
    pixels: tuple[float, ...] = ()  # in all; several where a label has several meanings
    sides: tuple[int, int] | None = None
    short_side: float | None = None

    @property
    def orientation(self) -> int:
        """1 for landscape, -1 for portrait, 0 for a square or what is not told."""
        ratio = self.ratio or 1.0
        return (ratio > 1.001) - (ratio < 0.999)

    def shape_distance(self, other: Extent) -> float:
        """How far another is from it in shape; ties of labels are ties here."""
        if not (self.ratio and other.ratio):
            return 0.0
        return round(abs(math.log(self.ratio / other.ratio)), 4)

    def pixel_distance(self, other: Extent) -> float:
        """How far another is from it in pixels; its second meaning counts if it is meant."""
        distances = []
        for pixels in other.pixels:
            if self.pixels:
                distances.append(round(abs(math.log(self.pixels[0] / pixels)), 4))
        meant = [distance for distance in distances if distance < 0.1]
        return next(iter(meant or distances), 0.0)


PRESETS = {  # fal's names for sizes, in pixels
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
SHAPES = {  # of names that say no more
    "square": 1.0,
    "portrait": 9 / 16,
    "vertical": 9 / 16,
    "landscape": 16 / 9,
    "horizontal": 16 / 9,
    "widescreen": 16 / 9,
}
RESOLUTIONS = {"sd": "480p", "hd": "720p", "fhd": "1080p", "qhd": "1440p", "uhd": "4k"}
USUAL_RATIOS = "21:9 2:1 16:9 3:2 4:3 5:4 1:1 4:5 3:4 2:3 9:16 9:21"
USUAL_SHORT_SIDES = (360, 480, 540, 576, 720, 768, 1080, 1440, 2160)
MEGA = 1024**2  # pixels of what models call 1K, or 1 MP
USUAL_PIXELS = float(MEGA)  # of a size of which only the shape is told
SHORT_NUMBER = r"\d{1,2}(?:\.\d{1,2})?"  # of a ratio; what is longer is pixels


def extent_of_sides(width: int, height: int) -> Extent:
    pixels = float(width * height)
    return Extent(width / height, (pixels,), (width, height))


def side_in_pixels(value: Any) -> int:
    """A width or a height as a whole number; 0 if it is none."""
    pixels = as_number(value)
    if pixels is None or not 0 < pixels < 1e9:
        return 0
    return int(pixels)


def extent_of(label: Any, is_shape: bool = False) -> Extent | None:
    """What a label says of a size: "16:9", "1024x768", "landscape_4_3", "720p", "2K", "1MP".

    Where it is known to be a shape, 16x9 is one, too.
    """
    text = str(label)[:60].strip().lower().replace("\u00d7", "x")
    text = RESOLUTIONS.get(text, text)
    if text in PRESETS and not is_shape:
        return extent_of_sides(*PRESETS[text])
    return extent_in_pixels(text) or extent_in_words(text, is_shape)


def extent_in_pixels(text: str) -> Extent | None:
    """Sides, a short side, or a number of pixels, wherever in the label they stand."""
    match = re.search(r"(?<!\d)(\d{2,5}) ?[x*:] ?(\d{2,5})(?!\d)", text)
    if match and min(int(match[1]), int(match[2])) >= 64:  # what is less is a ratio
        return extent_of_sides(int(match[1]), int(match[2]))
    match = re.search(rf"(?<![\d.])({MEASURE}) ?(p|k|mp|megapixels?)(?![a-z\d])", text)
    if match is None or not float(match[1]):
        return None
    return extent_of_resolution(float(match[1]), match[2])


def extent_of_resolution(quantity: float, unit: str) -> Extent:
    """720p is the short side, of a frame or of a square; 2K the side of a square, or a frame."""
    square = quantity**2 * MEGA
    if unit == "p":
        return Extent(pixels=(quantity**2 * 16 / 9,), short_side=quantity)
    if unit == "k" and quantity >= 4:  # 3840x2160 is 4K, and 4096x4096 too
        return Extent(pixels=(square, quantity**2 * 960 * 540))
    if unit == "k":
        return Extent(pixels=(square,))
    return Extent(pixels=(quantity * MEGA,))


def extent_in_words(text: str, is_shape: bool) -> Extent | None:
    """A shape that is told by a ratio, a word, or a word and a ratio."""
    if text in SHAPES:
        return Extent(SHAPES[text])
    is_named = text.startswith(("portrait", "landscape", "square"))
    between = "[:/]"
    if is_shape or is_named:
        between = "[:/x_-]"
    pattern = rf"(?<![\d.])({SHORT_NUMBER}) ?{between} ?({SHORT_NUMBER})(?![\d.])"
    match = re.search(pattern, text)
    if match is None or not (float(match[1]) and float(match[2])):
        return None
    ratio = float(match[1]) / float(match[2])
    if text.startswith("portrait"):
        ratio = min(ratio, 1 / ratio)
    if text.startswith("landscape"):
        ratio = max(ratio, 1 / ratio)
    return Extent(ratio)


class SizeField(NamedTuple):
    """A field that says a size, or a part of one.

    `labels` are what it offers; `sides` are the schemas of a width and a height, which it takes
    as an object or as a list; `key` is that of the object that holds the label; `text` is how
    free text says it.
    """

    field: ModelField
    labels: list[tuple[Any, Extent]]
    sides: tuple[Fields, Fields] | None = None
    takes_list: bool = False
    key: str | None = None
    text: str | None = None
    separator: str = "x"

    @property
    def name(self) -> str:
        return self.field.name

    def is_called(self, word: str) -> bool:
        return word in self.field.words

    @property
    def is_whole(self) -> bool:
        """Whether one label says both shape and pixels."""
        return self.text == SIDES_TEXT or any(extent.sides for _, extent in self.labels)

    @property
    def is_shape(self) -> bool:
        if self.is_whole:
            return False
        return self.text == RATIO_TEXT or any(extent.ratio for _, extent in self.labels)

    @property
    def is_resolution(self) -> bool:
        if self.text == RESOLUTION_TEXT:
            return True
        return any(extent.pixels and not extent.ratio for _, extent in self.labels)

    def answers(self, flag: str) -> bool:
        """Whether it says what --aspect-ratio or --resolution asks, be it among more."""
        if flag == "aspect_ratio":
            return self.is_whole or self.is_shape
        return self.is_whole or self.is_resolution

    @property
    def default(self) -> Extent:
        """The size that the model has if it is told none, as far as it tells."""
        value = self.field.default
        if isinstance(value, dict) and self.key is not None:
            value = value.get(self.key)
        if isinstance(value, list) and self.takes_list and len(value) == 2:
            value = {"width": value[0], "height": value[1]}
        if not isinstance(value, dict):
            return extent_of(value) or Extent()
        width, height = side_in_pixels(value.get("width")), side_in_pixels(value.get("height"))
        if not (width and height):
            return Extent()
        return extent_of_sides(width, height)

    def value(self, label: Any) -> Any:
        if self.key is not None:
            return {self.key: label}
        return label

    def value_of_sides(self, sides: Mapping[str, int]) -> Any:
        if self.takes_list:
            return list(sides.values())
        return dict(sides)


# What text says a size where any text goes: a shape, pixels, or a resolution.
RATIO_TEXT = "16:9"
SIDES_TEXT = "1024x768"
RESOLUTION_TEXT = "720p"
# Words of names of fields whose sizes are not those of the result.
OTHER_SIZES = (
    r"input|source|ref(erence)?|mask|det(ect|ection)?|tiles?|patch|window|grid|cell|crop|thumbnail"
    r"|upscale|processing|operating|max|min|original|face|dwpose|texture"
)
SIZE_WORDS = r"sizes?|resolution|dimensions?|aspect|ratio|shape|format|canvas|orientation"
OUTPUT_WORDS = r"width|height|image|video|output|target"


def as_size_field(field: ModelField) -> SizeField | None:
    """How a field says a size, told by what it takes; None if it says none."""
    if any(re.fullmatch(OTHER_SIZES, word) for word in field.words):
        return None
    size_field = SizeField(field, labels=[])
    for variant in variants(field.schema):
        properties = variant.get("properties", {})
        offered = literals(variant)
        if {"width", "height"} <= properties.keys():
            size_field = size_field._replace(sides=(properties["width"], properties["height"]))
        elif is_pair_of_sides(field, variant):
            items = variant["items"]
            size_field = size_field._replace(sides=(items, items), takes_list=True)
        elif len(properties) == 1:
            ((key, inner),) = properties.items()
            offered = offered_values(inner)
            if size_labels(field, offered):
                size_field = size_field._replace(key=key)
        size_field = size_field._replace(
            labels=[*size_field.labels, *size_labels(field, offered)],
        )
    if not size_field.labels and size_field.sides is None:
        size_field = with_free_text(size_field)
    if not (size_field.labels or size_field.sides or size_field.text):
        return None
    return size_field


def is_pair_of_sides(field: ModelField, variant: Fields) -> bool:
    """Whether a list is [width, height]."""
    items = variant.get("items", {})
    has_numbers = "array" in type_names(variant) and takes_numbers(items)
    has_two = variant.get("minItems") == variant.get("maxItems") == 2
    is_described = re.search(r"\bwidth\b.{0,20}\bheight\b", field.description, re.I) is not None
    is_shown = any(isinstance(pair, list) and len(pair) == 2 for pair in shown_values(field.schema))
    return has_numbers and names_a_size(field) and (has_two or is_described or is_shown)


def takes_numbers(schema: Fields) -> bool:
    return not {"integer", "number"}.isdisjoint(type_names(schema))


def size_labels(field: ModelField, offered: Iterable[Any]) -> list[tuple[Any, Extent]]:
    """The offered values that are sizes, as far as most of them are."""
    is_shape = "ratio" in field.words
    values = [value for value in offered if value is not None]
    labels = []
    for value in values:
        extent = extent_of(value, is_shape)
        if extent is None and is_short_side(field, value):
            extent = extent_of(f"{value}p")
        if extent is not None:
            labels.append((value, extent))
    others = [value for value in values if "auto" not in str(value).lower()]
    are_words = all(str(label).lower() in SHAPES for label, _ in labels)
    if 2 * len(labels) < len(others) or (are_words and not names_a_size(field)):
        return []
    return labels


def is_short_side(field: ModelField, value: Any) -> bool:
    """Whether a bare number such as 512 is a resolution."""
    names_side = "resolution" in field.words or "size" in field.words
    return names_side and re.fullmatch(r"\d{3,4}", str(value)) is not None


def names_a_size(field: ModelField) -> bool:
    return any(re.fullmatch(SIZE_WORDS, word) for word in field.words)


def with_free_text(size_field: SizeField) -> SizeField:
    """How free text says a size, as its default, examples, description or pattern show; be it in
    an object that holds nothing else.
    """
    field = size_field.field
    for variant in variants(field.schema):
        if len(variant.get("properties", {})) == 1:
            ((key, inner),) = variant["properties"].items()
            size_field = size_field._replace(key=key)
            field = field._replace(schema=inner)
    is_free = any(takes_free_text(variant) for variant in variants(field.schema))
    if not is_free or not names_a_size(field):
        return size_field
    described = re.findall(r"\d+ ?[:x\u00d7*] ?\d+", field.description[:MAX_REFERENCE])
    for shown in (*shown_values(field.schema), *described):
        extent = extent_of(shown)
        if str(shown) in PRESETS:
            labels = [(name, extent_of_sides(*sides)) for name, sides in PRESETS.items()]
            return size_field._replace(labels=labels)
        if extent is not None and extent.sides:
            separator = re.sub(r"[\d ]", "", str(shown))[:1] or "x"
            return size_field._replace(text=SIDES_TEXT, separator=separator)
        if extent is not None and extent.ratio:
            return size_field._replace(text=RATIO_TEXT)
        if extent is not None:
            return size_field._replace(text=RESOLUTION_TEXT)
    patterns = "".join(str(variant.get("pattern", "")) for variant in variants(field.schema))
    if ":" in patterns or "ratio" in field.words:
        return size_field._replace(text=RATIO_TEXT)
    if re.search(r"\\d.{0,8}[x*]", patterns):
        return size_field._replace(text=SIDES_TEXT, separator="*" if r"\*" in patterns else "x")
    return size_field


def side_fields(fields: Sequence[ModelField]) -> dict[str, ModelField]:
    """The numbers that models take as `width` and `height`, by these."""
    sides: dict[str, ModelField] = {}
    for field in fields:
        is_output = all(re.fullmatch(OUTPUT_WORDS, word) for word in field.words)
        if is_output and field.takes("integer", "number", "string"):
            for side in ("width", "height"):
                if side in field.words:
                    sides.setdefault(side, field)
    return sides


def names_of_flags() -> set[str]:
    """The names of fields that other flags than those for sizes set."""
    flags = [flag for flag in FLAGS_BY_DEST.values() if flag.dest not in SIZE_FLAGS]
    return {name for flag in flags for name in flag.names}


class Canvas:
    """All that a model has to say a size with; the fields with the shortest names go first."""

    def __init__(self, fields: Sequence[ModelField]) -> None:
        names_of_others = names_of_flags()
        self.fields: list[SizeField] = []
        for field in fields:
            size_field = as_size_field(field)
            if size_field is not None and field.name not in names_of_others:
                self.fields.append(size_field)
        self.fields.sort(key=lambda size_field: len(size_field.field.words))
        self.sides = side_fields(fields)

    def first(self, has: Callable[[SizeField], bool]) -> SizeField | None:
        return next(filter(has, self.fields), None)

    @property
    def in_pixels(self) -> SizeField | None:
        """The field that takes a width and a height."""
        return self.first(lambda size_field: size_field.sides is not None)

    @property
    def whole(self) -> SizeField | None:
        return self.first(lambda size_field: size_field.is_whole)

    @property
    def shape(self) -> SizeField | None:
        named = self.first(lambda size_field: size_field.is_shape and size_field.is_called("ratio"))
        return named or self.first(lambda size_field: size_field.is_shape)

    @property
    def resolution(self) -> SizeField | None:
        return self.first(lambda size_field: size_field.is_resolution)

    @property
    def limits(self) -> tuple[Fields, Fields] | None:
        """The schemas of a width and a height, if the model takes these."""
        if self.in_pixels is not None:
            return self.in_pixels.sides
        if len(self.sides) == 2:
            return self.sides["width"].schema, self.sides["height"].schema
        return None

    @property
    def has_own_shape(self) -> bool:
        """Whether the model decides on the shape, as by that of a picture, if it is told none."""
        return any("auto" in str(size_field.field.default) for size_field in self.fields)

    @property
    def default(self) -> Extent:
        """The model's own size, as far as its defaults tell."""
        whole = Extent()
        for extent in (*(size_field.default for size_field in self.fields), self.default_sides()):
            whole = completed(whole, extent)
        return whole

    def default_sides(self) -> Extent:
        sides = []
        for name in ("width", "height"):
            if name in self.sides:
                sides.append(side_in_pixels(self.sides[name].default))
        if len(sides) < 2 or min(sides) <= 0:
            return Extent()
        return extent_of_sides(*sides)


def completed(wish: Extent, default: Extent) -> Extent:
    """A wish with the model's own shape or number of pixels for what it leaves open."""
    return wish._replace(ratio=wish.ratio or default.ratio, pixels=wish.pixels or default.pixels)


def fit_size(fitted: Fit, sizes: Arguments) -> None:
    """Width and height, or a shape and a resolution, as the model says sizes: in numbers, by
    names, or by a shape and a resolution.
    """
    if not sizes:
        return
    canvas = Canvas(fitted.free_fields())
    sides = {name: sizes[name] for name in ("width", "height") if name in sizes}
    words = {name: sizes[name] for name in ("aspect_ratio", "resolution") if name in sizes}
    given = []
    if not canvas.fields and not canvas.sides:
        given = Canvas(fitted.model_fields).fields
    if given:
        flags = " and ".join(map(flag_name, sizes))
        fitted.notes.append(f"{flags}: --arg has {given[0].name}, which is sent as it is")
    elif sides:
        fit_sides(fitted, canvas, sides)
    elif words:
        fit_words(fitted, canvas, words)


def fit_sides(fitted: Fit, canvas: Canvas, sides: Mapping[str, int]) -> None:
    """Pixels as they are where the model takes pixels, or else what is nearest of its labels."""
    shown = " ".join(f"--{side} {pixels}" for side, pixels in sides.items())
    size_field = canvas.in_pixels
    if size_field is not None and not (size_field.takes_list and len(sides) == 1):
        fitted.set_size(size_field.field, size_field.value_of_sides(sides))
        if len(sides) == 1:
            fitted.notes.append(f"{shown}: the other side is the model's default")
    elif canvas.sides:
        for side, pixels in sides.items():
            fit_side(fitted, canvas, side, pixels)
    elif not canvas.fields:
        fitted.leave_out(*sides)
    elif len(sides) == 1:
        fitted.settle(*(size_field.name for size_field in canvas.fields))
        fitted.refuse("size", "the model takes shapes: give both --width and --height", "missing")
    else:
        fit_sides_to_labels(fitted, canvas, sides, shown)


def fit_side(fitted: Fit, canvas: Canvas, side: str, pixels: int) -> None:
    if side in canvas.sides:
        fitted.set_size(canvas.sides[side], adapted(pixels, canvas.sides[side].schema))
    else:
        fitted.leave_out(side)


def fit_sides_to_labels(fitted: Fit, canvas: Canvas, sides: Mapping[str, int], shown: str) -> None:
    """A label for all of it, or one for the shape and one for the pixels."""
    wish = extent_of_sides(sides["width"], sides["height"])
    targets = [canvas.shape, canvas.resolution]
    has_whole = canvas.whole is not None and nearest_label(canvas.whole, wish, []) is not None
    if has_whole or not any(targets):
        targets = [canvas.whole]
    fit_nearest(fitted, targets, wish, shown)
    if not has_whole and canvas.shape is None:
        fitted.notes[-1] += "; the shape is not sent, for the model takes none"


def fit_words(fitted: Fit, canvas: Canvas, words: Mapping[str, str]) -> None:
    """A shape and a resolution in the model's own words, or as the pixels that they come to."""
    wish = Extent()
    open_words = {}
    for name, text in words.items():
        has_own_word = fit_own_word(fitted, canvas, name, text)
        extent = extent_asked(name, text)
        if extent.ratio and name == "aspect_ratio":
            wish = wish._replace(ratio=extent.ratio)
        if extent.pixels and name == "resolution":
            wish = extent._replace(ratio=wish.ratio or extent.ratio)
        if not has_own_word and extent == Extent():
            fitted.settle(*(size_field.name for size_field in canvas.fields))
            fitted.refuse(name, no_such_size_message(canvas, name, text), "literal_error")
            return
        if not has_own_word:
            open_words[name] = text
    if wish.sides and [*open_words] == ["resolution"] == [*words]:
        width, height = wish.sides
        fit_sides(fitted, canvas, {"width": width, "height": height})
    elif open_words:
        fit_wish(fitted, canvas, wish, open_words)


def extent_asked(name: str, text: str) -> Extent:
    """What a flag's text says, nothing of it if it is not what the flag is for."""
    if name == "resolution" and re.fullmatch(r"\d{3,4}", text):
        text = f"{text}p"
    extent = extent_of(text, is_shape=name == "aspect_ratio") or Extent()
    if name == "aspect_ratio":
        return Extent(extent.ratio)
    return extent if extent.pixels else Extent()


def fit_own_word(fitted: Fit, canvas: Canvas, name: str, text: str) -> bool:
    """Send what the model itself calls so, such as `auto`, or any text where any goes; returns
    whether it does.
    """
    is_of_flag = extent_asked(name, text) != Extent() or text == "auto"
    for size_field in canvas.fields:
        if size_field.name in fitted.arguments or not size_field.answers(name):
            continue
        labels = offered_values(size_field.field.schema)
        if size_field.text in (RATIO_TEXT, RESOLUTION_TEXT) and is_of_flag:
            labels = [text]
        for label in labels:
            if str(label).lower() == text.lower():
                fitted.set_size(size_field.field, size_field.value(label))
                return True
    return False


def no_such_size_message(canvas: Canvas, name: str, text: str) -> str:
    offered = []
    for size_field in canvas.fields:
        if size_field.answers(name):
            offered += [str(label) for label, _ in size_field.labels]
    if not offered:
        return f"{text} is no size"
    return f"{text} is none of {cut(', '.join(offered), 1000)}"


def fit_wish(fitted: Fit, canvas: Canvas, wish: Extent, words: Mapping[str, str]) -> None:
    """What --aspect-ratio and --resolution ask: by a label for each, in pixels, or by a label
    that says both.
    """
    parts = {"aspect_ratio": canvas.shape, "resolution": canvas.resolution}
    targets = [parts[name] for name in words]
    shown = flags_in_words(words)
    whole = canvas.whole
    if None in targets and not wish.ratio and canvas.has_own_shape:
        fitted.leave_out("resolution", advice_text="; give --aspect-ratio, too")
        return
    told = completed(wish, canvas.default)
    if None not in targets:
        fit_nearest(fitted, targets, wish, shown, words)
    elif whole is not None and (has_label_of_shape(whole, wish) or canvas.limits is None):
        fit_nearest(fitted, [whole], told, shown, words)
    elif canvas.limits is not None:
        fit_pixels(fitted, canvas, told, shown)
    else:
        for name in words:
            if parts[name] is None:
                fitted.leave_out(name)
        served = {name: text for name, text in words.items() if parts[name] is not None}
        fit_nearest(fitted, targets, wish, flags_in_words(served), served)


def flags_in_words(words: Mapping[str, Any]) -> str:
    return " ".join(f"{flag_name(name)} {text}" for name, text in words.items())


def has_label_of_shape(size_field: SizeField, wish: Extent) -> bool:
    """Whether there is a label of the shape that is wanted, where only a shape is."""
    if wish.pixels or not wish.ratio:
        return False
    shapes = [extent for _, extent in size_field.labels if extent.ratio]
    return any(wish.shape_distance(extent) < 0.01 for extent in shapes)


def fit_pixels(fitted: Fit, canvas: Canvas, wish: Extent, shown: str) -> None:
    """The width and the height that a shape and a number of pixels come to."""
    assert canvas.limits
    width, height = sides_within(wish, *canvas.limits)
    sides = {"width": width, "height": height}
    if canvas.in_pixels is not None:
        fitted.set_size(canvas.in_pixels.field, canvas.in_pixels.value_of_sides(sides))
    else:
        for side, pixels in sides.items():
            fit_side(fitted, canvas, side, pixels)
    fitted.notes.append(f"{shown} becomes {width}x{height}")


def sides_of(wish: Extent) -> tuple[float, float]:
    """Width and height in pixels; a frame of so many lines is 16:9 if nobody says otherwise."""
    ratio = wish.ratio or 1.0
    short_side = wish.short_side
    if short_side and wish.ratio is None:
        ratio = 16 / 9
    is_frame = abs(math.log(max(ratio, 1 / ratio) * 9 / 16)) < 0.01
    if is_frame and len(wish.pixels) > 1:  # 4K
        short_side = math.sqrt(wish.pixels[1] * 9 / 16)
    if short_side:
        return short_side * max(ratio, 1.0), short_side * max(1 / ratio, 1.0)
    pixels = (*wish.pixels, USUAL_PIXELS)[0]
    return math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)


def sides_within(wish: Extent, *schemas: Fields) -> tuple[int, int]:
    """The sides in whole steps, of the same shape as far as the limits let them; never more
    pixels than were asked for.
    """
    sides = sides_of(wish)
    scale = 1.0
    for side, schema in zip(sides, schemas, strict=True):
        lowest, highest = range_of(schema)
        scale = max(scale, lowest / side)
        scale = min(scale, highest / side)
    width, height = (
        whole_side(side * scale, schema) for side, schema in zip(sides, schemas, strict=True)
    )
    return width, height


def range_of(schema: Fields) -> tuple[float, float]:
    """The least and the most that a number may be; 0 and infinity where nothing is said."""
    lowest, highest = 0.0, math.inf
    for variant in variants(schema):
        lowest = max(lowest, variant.get("minimum", 0.0))
        highest = min(highest, variant.get("maximum", math.inf))
    return lowest, highest


def nearest_offered(number: float, schema: Fields) -> int | None:
    """Of the numbers that a field offers, the nearest; None if it takes a range."""
    offered = [as_number(value) for value in offered_values(schema)]
    numbers = [value for value in offered if value is not None]
    if not numbers:
        return None
    return int(min(numbers, key=lambda value: abs(value - number)))


def whole_side(side: float, schema: Fields) -> int:
    """A side in steps of the schema's or of 8 pixels, not above it; or the nearest offered one."""
    offered = nearest_offered(side, schema)
    if offered is not None:
        return offered
    step = 8
    for variant in variants(schema):
        if variant.get("multipleOf", 0) > 1:
            step = math.ceil(variant["multipleOf"])
    return max(int(side / step + 1e-6), 1) * step


def fit_nearest(
    fitted: Fit,
    targets: Sequence[SizeField | None],
    wish: Extent,
    shown: str,
    words: Mapping[str, str] | None = None,
) -> None:
    """The nearest label of each field; whatever becomes other words than the user's is told."""
    labels = {}
    own_words = [text.lower() for text in (words or {}).values()]
    for size_field in targets:
        if size_field is None:
            continue
        label = nearest_label(size_field, wish, own_words)
        if label is None:
            thing = "shape" if wish.ratio else "size"
            fitted.notes.append(
                f"{shown}: {size_field.name} offers nothing of that {thing}: its default applies"
            )
        else:
            fitted.set_size(size_field.field, size_field.value(label))
            labels[size_field.name] = label
    if not all(str(label).lower() in own_words for label in labels.values()):
        became = " and ".join(f"{name} {label}" for name, label in labels.items())
        fitted.notes.append(f"{shown} becomes {became}")


def nearest_label(size_field: SizeField, wish: Extent, own_words: Sequence[str]) -> Any:
    """The label that is nearest in shape, a tie by orientation, then in pixels. Where no label
    lies as the wish does: `auto`, or None if the default is to be left.
    """
    if size_field.text is not None:
        return size_in_words(size_field, wish, own_words)
    told = [pair for pair in size_field.labels if bool(pair[1].ratio) == bool(wish.ratio)]
    candidates = []
    for label, extent in told or size_field.labels:
        is_turned = extent.orientation not in (0, wish.orientation)
        if not (is_turned and wish.ratio):
            distance = (
                wish.shape_distance(extent),
                wish.ratio is not None and extent.orientation != wish.orientation,
                wish.pixel_distance(extent),
                str(label).lower() not in own_words,
            )
            candidates.append((distance, label))
    if candidates:
        return min(candidates, key=operator.itemgetter(0))[1]
    autos = [label for label in offered_values(size_field.field.schema) if label == "auto"]
    return next(iter(autos), None)


def size_in_words(size_field: SizeField, wish: Extent, own_words: Sequence[str]) -> str | None:
    """A size for a field that takes any text; None if the text cannot tell what is wanted."""
    if size_field.text == RESOLUTION_TEXT:
        return resolution_in_words(wish, own_words)
    if size_field.text == SIDES_TEXT:
        width, height = wish.sides or sides_within(wish, {}, {})
        return f"{width}{size_field.separator}{height}"
    for word in own_words:
        if re.fullmatch(rf"{MEASURE}:{MEASURE}", word):
            return word
    ratio = wish.ratio or 1.0
    for usual in USUAL_RATIOS.split():
        extent = extent_of(usual) or Extent()
        if Extent(ratio).shape_distance(extent) < 0.02:
            return usual
    fraction = fractions.Fraction(ratio).limit_denominator(100)
    return f"{fraction.numerator}:{fraction.denominator}"


def resolution_in_words(wish: Extent, own_words: Sequence[str]) -> str | None:
    for word in own_words:
        if (extent_of(word) or Extent()).pixels:
            return word
    if wish.sides and min(wish.sides) in USUAL_SHORT_SIDES:
        return f"{min(wish.sides)}p"
    return None


# Lengths: seconds, or frames at a rate

FRAMES_LIKE = r"((num(ber)?|total|max|output|n)_)?(of_)?(video_)?frames|(video_)?frame_(count|num)"
RATE_LIKE = (
    r"((target|output|video|export|sample)_)?(fps|framerate|frame_rate|frames_per_second)(_output)?"
)


def fit_length(fitted: Fit, seconds: float | None) -> None:
    """Seconds in the model's own type, "5", "8s", 5 or 5.0, or as a number of frames."""
    if seconds is None:
        return
    field = find_field(fitted.free_fields(), FLAGS_BY_DEST["duration"])
    frames = find_like(fitted.free_fields(), FRAMES_LIKE)
    if field is not None and counts_frames(fitted, field):
        fit_frames(fitted, field, seconds)
    elif field is not None:
        amount = seconds * 1000 if "ms" in field.words else seconds
        fitted.set_found("duration", field, length_value(amount, field.schema))
    elif frames is not None:
        fit_frames(fitted, frames, seconds)
    else:
        fitted.leave_out("duration")


def counts_frames(fitted: Fit, field: ModelField) -> bool:
    """Whether a length is one in frames, as its description or a large default beside a rate
    tells.
    """
    description = field.description[:MAX_REFERENCE].lower()
    if "second" in description:
        return False
    has_rate = find_like(fitted.model_fields, RATE_LIKE) is not None
    return "frame" in description or (has_rate and (as_number(field.default) or 0) >= 60)


def find_like(fields: Iterable[ModelField], pattern: str) -> ModelField | None:
    """The first number whose name matches the expression."""
    for field in fields:
        is_number = field.takes("integer", "number", "string") and file_kind(field) is None
        if is_number and re.fullmatch(pattern, "_".join(field.words)):
            return field
    return None


def shows_numbers(field: ModelField) -> bool:
    """Whether a field that takes text takes numbers, as its values and its default show."""
    shown = (*shown_values(field.schema), *offered_values(field.schema))
    return any(as_number(value) is not None or in_seconds(value) for value in shown)


def find_named(fields: Sequence[ModelField], names: Iterable[str]) -> ModelField | None:
    """The field of the first of the names that the model has."""
    by_name = {field.name: field for field in fields}
    for name in names:
        if name in by_name:
            return by_name[name]
    return None


def fit_frames(fitted: Fit, frames: ModelField, seconds: float) -> None:
    """As many frames as the model's rate makes of the seconds, in its steps."""
    rate = frame_rate(fitted, frames)
    if rate is None:
        way = f"; its length is --arg {frames.name}=N {limits_text(frames.schema)}"
        fitted.leave_out("duration", advice_text=way.rstrip())
        return
    number = nearest_number(round(seconds * rate), frames)
    lowest, highest = range_of_frames(frames)
    if not lowest <= number <= highest:
        fitted.settle(frames.name)
        limit = f"below {lowest:g}" if number < lowest else f"above {highest:g}"
        message = f"{seconds:g} s are {number} frames at {rate:g} a second, {limit}"
        fitted.refuse(frames.name, message, "duration")
        return
    fitted.arguments[frames.name] = adapted(number, frames.schema)
    fitted.notes.append(
        f"--duration {seconds:g} becomes {frames.name} {number}: {number / rate:.3g} s at"
        f" {rate:g} frames a second"
    )


def frame_rate(fitted: Fit, frames: ModelField) -> float | None:
    """Frames a second: those that are sent, or the model's default, or what it says in words."""
    rate_field = find_like(fitted.model_fields, RATE_LIKE)
    if rate_field is not None:
        sent = {**fitted.arguments, **fitted.extra}
        rate = as_number(sent.get(rate_field.name, rate_field.default))
        if rate is not None and 0 < rate < 1000:
            return rate
    description = frames.description[:MAX_REFERENCE].lower()
    match = re.search(r"(\d{1,3}) ?(?:fps|frames ?(?:per|a|/) ?second)", description)
    if match is None or not int(match[1]):
        return None
    return float(match[1])


def nearest_number(number: int, field: ModelField) -> int:
    """The nearest that the field offers, or takes by its step; what is less than a step beyond a
    limit is the last step within it.
    """
    offered = nearest_offered(number, field.schema)
    if offered is not None:
        return offered
    step, start = step_of(field)
    lowest, highest = range_of_frames(field)
    number = round((number - start) / step) * step + start
    if lowest - step <= number < lowest:
        number += step
    if highest < number <= highest + step:
        number -= step
    return number


def range_of_frames(field: ModelField) -> tuple[float, float]:
    """The least and the most that the field takes, as keywords or the description say."""
    lowest, highest = range_of(field.schema)
    match = re.search(r"between (\d{1,5}) (?:and|to) (\d{1,5})", field.description[:MAX_REFERENCE])
    if match is None:
        return lowest, highest
    return max(lowest, float(match[1])), min(highest, float(match[2]))


def step_of(field: ModelField) -> tuple[int, int]:
    """The step of a whole number and where it starts, as `multipleOf` or words such as 8n+1 say."""
    description = field.description[:MAX_REFERENCE].lower()
    plus_one = r"\b(\d{1,2}) ?\*? ?[nkx] ?\+ ?1\b|\bmultiple of (\d{1,2}),? plus (?:1|one)\b"
    match = re.search(plus_one, description)
    if match is not None:
        match = re.search(r"(\d+)", match[0])
    if match is not None and int(match[1]):
        return int(match[1]), 1
    match = re.search(r"\bmultiples? of (\d{1,3})\b", description)
    if match is not None and int(match[1]):
        return int(match[1]), 0
    for variant in variants(field.schema):
        if variant.get("multipleOf", 0) >= 1:
            return int(variant["multipleOf"]), 0
    return 1, 0


def length_value(seconds: float, schema: Fields) -> Any:
    """The offered value that means so many seconds, or else a number, or its text."""
    labels = offered_values(schema)
    for label in labels:
        if in_seconds(label) == seconds:
            return label
    if seconds == int(seconds):
        seconds = int(seconds)
    if labels:
        return seconds
    has_unit = any(re.fullmatch(rf"{MEASURE} ?s", str(text)) for text in shown_values(schema))
    if has_unit and not is_of(seconds, schema):
        return f"{seconds}s"
    return adapted(seconds, schema)


def in_seconds(label: Any) -> float | None:
    """5, "5" or "5s" as seconds; None for "auto" and the like."""
    match = re.fullmatch(rf"({MEASURE}) ?(?:s|secs?|seconds?)?", str(label))
    if match is None:
        return None
    return float(match[1])


# Values in the type that a field takes


def adapted(value: Any, schema: Fields) -> Any:
    """A value in the type that the schema takes, as it is if none will do: 4 may have to be "4",
    and one value a list of it.
    """
    for candidate in (value, in_other_type(value), [value]):
        if candidate is not None and is_of(candidate, schema):
            return candidate
    for label in offered_values(schema):
        if is_bound(value) and as_number(label) == value:  # "2.0" is 2
            return label
    return value


def in_other_type(value: Any) -> Any:
    """The number that a text is, or the text of a number."""
    if isinstance(value, str):
        try:
            return read_number(value)
        except Failure:
            return None
    if is_bound(value):
        return json.dumps(value)
    return None


def is_of(value: Any, schema: Fields) -> bool:
    """Whether a value is right, and in the very type: "5" is no number here."""
    if value is None and schema.get("nullable"):
        return True
    for variant in variants(schema):
        if is_of_type(value, variant) and not violations(value, variant):
            return True
    return False


def is_of_type(value: Any, schema: Fields) -> bool:
    """Whether a value has one of the types, without the conversions that pydantic makes."""
    kinds = type_names(schema)
    if isinstance(value, str):
        return not kinds or "string" in kinds
    return not kinds or any(has_type(value, kind) for kind in kinds)


def typed(value: Any, schema: Fields) -> Any:
    """What --arg says, in the type that the schema takes: text where text is wanted, else JSON."""
    candidates = readings(value, schema)
    if all(not type_names(variant) for variant in variants(schema)):
        candidates = [*candidates[1:], value]  # nobody says what is wanted
    for candidate in candidates:
        if is_of(candidate, schema):
            return candidate
    for candidate in candidates:  # what is wrong in it is told in its own type
        is_typed = any(is_of_type(candidate, variant) for variant in variants(schema))
        if is_typed and candidate is not value:
            return candidate
    return value


def readings(value: Any, schema: Fields) -> list[Any]:
    """What a value of --arg may mean, the likeliest first."""
    found = [value]
    if isinstance(value, str):
        found += json_readings(value)
    other = in_other_type(value)
    if other is not None:
        found.append(other)
    for variant in variants(schema):
        if "array" in type_names(variant):
            items = variant.get("items", {})
            items_read = [typed(item, items) for item in as_list(value)]
            if isinstance(value, list):
                found.insert(0, items_read)
            else:
                found.append(items_read)
        key = only_key(variant)
        is_json_text = isinstance(value, (dict, list)) or str(value).lstrip()[:1] in ("{", "[")
        if key is not None and not is_json_text:
            found.append({key: typed(value, variant["properties"][key])})
    return found


def only_key(schema: Fields) -> str | None:
    """The property of an object that alone is required, or that alone is there."""
    properties = schema.get("properties", {})
    keys = [name for name in schema.get("required", []) if name in properties] or [*properties]
    if len(keys) != 1:
        return None
    return str(keys[0])


def json_readings(text: str) -> list[Any]:
    """What a text is as JSON, and a word as it is written elsewhere."""
    try:
        return [read_json(text)]
    except Failure:
        words: dict[str, list[Any]] = {"true": [True], "false": [False], "none": [None]}
        return words.get(text.lower(), [])


# Fitting: from what the flags ask to the arguments of the model


class Fit:
    """The arguments for a model, built up from what the user asked; it knows no model by name.

    `notes` tell what became something else; `problems` are {"field", "message", "type"} each.
    `extra` is what --extra-json says, which is sent in any case.
    """

    def __init__(
        self, schema: Fields, strict: bool = False, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.schema = schema
        self.strict = strict
        self.extra = extra or {}
        self.fields: Fields = schema.get("properties", {})
        self.model_fields = fields_of(schema)
        self.arguments: Fields = {}
        self.notes: list[str] = []
        self.problems: list[Fields] = []
        self.local_files: list[str] = []  # that are to be uploaded
        self._settled: set[str] = set()

    def free_fields(self) -> list[ModelField]:
        """The fields that have no value yet; what --arg sets is no flag's any longer."""
        return [field for field in self.model_fields if field.name not in self.arguments]

    def refuse(self, field: str, message: str, problem_type: str) -> None:
        self.problems.append({"field": field, "message": message, "type": problem_type})

    def settle(self, *names: str) -> None:
        """Say no more of these fields: what is wrong with them is told already."""
        self._settled.update(names)

    def leave_out(self, *flags: str, advice_text: str = "") -> None:
        """Send nothing that the model has not; fal ignores unknown fields, and bills the job."""
        for flag in flags:
            if self.strict:
                message = f"the model has no such argument{advice_text}"
                self.refuse(flag, message, "unknown_field")
        if not self.strict:
            names = " and ".join(map(flag_name, flags))
            self.notes.append(f"the model takes no {names}: it is not sent{advice_text}")

    def set_found(self, flag: str, field: ModelField, value: Any) -> None:
        """Send what a flag asks, and tell if the model's name for it was found by its words."""
        self.arguments[field.name] = value
        if field.name not in FLAGS_BY_DEST[flag].names:
            self.notes.append(f"{flag_name(flag)} becomes {field.name}")

    def set_size(self, field: ModelField, value: Any) -> None:
        """Send a size, and show the limits that stand in words alone."""
        self.arguments[field.name] = value
        limits = size_limits_in_words(field)
        if limits and not is_listed(value, offered_values(field.schema)):
            self.notes.append(f"{field.name} has limits: {limits}")

    def violations(self) -> list[Fields]:
        """What is wrong with the arguments, but for what is told already."""
        found = []
        for problem in violations(self.arguments, {**self.schema, "type": "object"}):
            name = problem["field"].partition(".")[0]
            if problem["type"] == "missing" and problem["field"] in self.fields:
                name = problem["field"]
                problem["message"] += f": {self.way_to_set(name)}"
            if name not in self._settled:
                found.append(problem)
        return found

    def way_to_set(self, name: str) -> str:
        """How a field is given on the command line."""
        flag = flags_by_field(self.schema).get(name)
        if flag is not None:
            return flag
        field = next(field for field in self.model_fields if field.name == name)
        items = [item_of(field, variant) for variant in variants(field.schema)]
        kinds = {file_kind(field), *map(file_kind, items)}
        value = "VALUE" if kinds <= {None, "other"} else "FILE"
        return f"--arg {name}={value}"


def fit_arguments(asked: Mapping[str, Any], schema: Fields, strict: bool = False) -> Fit:
    """Arguments, notes and problems for what the flags asked; pure, and the same every time."""
    simple = dict(asked)
    extra = simple.pop("extra_json", {})
    fitted = Fit(schema, strict, extra)
    fit_own_names(fitted, simple.pop("arg", {}))
    sizes = {name: simple.pop(name) for name in SIZE_FLAGS if name in simple}
    fit_pictures(fitted, as_list(simple.pop("image_url", [])))
    fit_size(fitted, sizes)
    fit_length(fitted, simple.pop("duration", None))
    for flag, value in simple.items():
        fit_simple(fitted, flag, value)
    add_extra(fitted)
    add_defaults(fitted)
    add_empty_prompt(fitted)
    fitted.problems += fitted.violations()
    return fitted


def fit_own_names(fitted: Fit, values: Mapping[str, Any]) -> None:
    """What --arg gives under the model's own names, in the types of these."""
    by_name = {field.name: field for field in fitted.model_fields}
    for name, value in values.items():
        if name in by_name:
            fitted.arguments[name] = as_files_of(by_name[name], typed(value, by_name[name].schema))
        else:
            fitted.refuse(name, no_such_name_message(fitted, name), "unknown_field")


def no_such_name_message(fitted: Fit, name: str) -> str:
    """What the model may call it instead, be it that a flag would have found it."""
    near = did_you_mean(name, fitted.fields)
    for flag in FLAGS_BY_DEST.values():
        is_its_name = name in flag.names or bool(flag.like and re.fullmatch(flag.like, name))
        field = find_field(fitted.model_fields, flag)
        if is_its_name and field is not None:
            near = f"Did you mean {field.name}?"
    listed = near or f"It has {cut(', '.join(fitted.fields), 1000)}."
    return f"the model has no such argument. {listed}"


def as_files_of(field: ModelField, value: Any) -> Any:
    """A value in which paths stand as files to be uploaded, where the schema has URLs of files."""
    if isinstance(value, str):
        return as_files(value) if file_kind(field) else value
    for variant in variants(field.schema):
        if isinstance(value, list) and "items" in variant:
            item = field._replace(schema=variant["items"])
            return [as_files_of(item, element) for element in value]
        if isinstance(value, dict) and "properties" in variant:
            inner = {inner.name: inner for inner in fields_of(variant)}
            marked = dict(value)
            for key in inner.keys() & value.keys():
                named = inner[key]._replace(name=f"{field.name}_{key}")
                marked[key] = as_files_of(named, value[key])
            return marked
    return value


def as_files(value: Any) -> Any:
    """The paths among the values as files that are to be uploaded."""
    if isinstance(value, list):
        return [as_files(item) for item in value]
    if isinstance(value, str) and is_remote(value):
        return RemoteFile(value)
    if isinstance(value, str):
        return LocalFile(local_path(value))
    return value


def fit_simple(fitted: Fit, flag: str, value: Any) -> None:
    """A value under the name that the model has for it, in the type that it takes."""
    field = find_field(fitted.model_fields, FLAGS_BY_DEST[flag])
    if field is None:
        fitted.leave_out(flag)
    elif field.name in fitted.arguments:
        fitted.notes.append(f"{flag_name(flag)} is not sent: --arg has {field.name}")
    else:
        fitted.set_found(flag, field, adapted(value, field.schema))


def add_extra(fitted: Fit) -> None:
    """What --extra-json says overrules the flags, and is sent though the model may not know it,
    unless the model says that it refuses what it does not know.
    """
    is_closed = fitted.schema.get("additionalProperties") is False
    for name in fitted.extra:
        near = did_you_mean(name, fitted.fields)
        if name in fitted.arguments:
            fitted.notes.append(f"{name} is sent as --extra-json has it")
        elif name not in fitted.fields and is_closed:
            message = f"the model has no such argument, and refuses others. {near or ''}".strip()
            fitted.settle(name)
            fitted.refuse(name, message, "unknown_field")
        elif name not in fitted.fields:
            consequence = near or "fal ignores what a model does not know."
            fitted.notes.append(
                f"the model has no {name}: it is sent all the same. {consequence}",
            )
    fitted.arguments.update(fitted.extra)


def add_defaults(fitted: Fit) -> None:
    """Some models require what they have a default for."""
    for field in fitted.free_fields():
        if not field.is_required or "default" not in field.schema:
            continue
        if file_kind(field) is None and as_picture_field(field) is None:
            fitted.arguments[field.name] = field.default


def add_empty_prompt(fitted: Fit) -> None:
    """Some models require a prompt and are content with an empty one."""
    field = find_field(fitted.model_fields, FLAGS_BY_DEST["prompt"])
    if field is None or not field.is_required or field.name in fitted.arguments:
        return
    if fitted.strict or violations("", field.schema):
        return
    fitted.arguments[field.name] = ""
    fitted.notes.append(
        f"the model requires its {field.name}: an empty one is sent, which the model may refuse;"
        f" {fitted.way_to_set(field.name)} says what to make"
    )


# By what a size is asked.
SIZE_FLAGS = ("width", "height", "aspect_ratio", "resolution")


def flag_name(dest: str) -> str:
    """A flag as it is typed."""
    if dest in FLAGS_BY_DEST:
        return str(FLAGS_BY_DEST[dest].name)
    return f"--{dest.replace('_', '-')}"


def size_limits_in_words(field: ModelField) -> str:
    """The description of a size that tells limits which no keyword does; empty if it tells none."""
    texts = [field.description]
    for variant in variants(field.schema):
        for inner in fields_of(variant):
            texts.append(inner.description)
    limits = [text for text in texts if re.search(LIMITS_IN_WORDS, text[:MAX_REFERENCE], re.I)]
    return cut(" ".join(dict.fromkeys(limits)), 500)


LIMITS_IN_WORDS = (
    r"\b(multiples? of|divisible by|between|at (least|most)|exceed|must (be|not)|max(imum)?"
    r"|min(imum)?|(more|less|larger|smaller|greater) than|(no|not) (more|less|larger|smaller)|up to"
    r"|range|from|steps?)\b[^.]{0,80}\d|\[\d+, ?\d+\]"
)


def flags_by_field(schema: Fields) -> dict[str, str]:
    """Which flag sets a field of the model, by the field's name, as far as one does."""
    fields = fields_of(schema)
    ways: dict[str, str] = {}
    for flag in FLAGS_BY_DEST.values():
        field = find_field(fields, flag)
        if field is not None:
            ways.setdefault(field.name, flag.name)
    pictures = picture_fields(fields)
    for picture_field, _ in places_of_pictures(pictures, ["first"]):
        ways[picture_field.name] = "--image-url"
    for picture_field, _ in places_of_pictures(pictures, ["first", "second"]):
        ways.setdefault(picture_field.name, "--image-url (the second)")
    canvas = Canvas(fields)
    for size_field in canvas.fields:
        flags = []
        if size_field.sides or size_field.answers("aspect_ratio"):
            flags += ["--width and --height", "--aspect-ratio"]
        if size_field.is_resolution:
            flags.append("--resolution")
        ways.setdefault(size_field.name, ", ".join(flags))
    for side, field in canvas.sides.items():
        ways.setdefault(field.name, f"--{side}")
    frames = find_like(fields, FRAMES_LIKE)
    if frames is not None and find_field(fields, FLAGS_BY_DEST["duration"]) is None:
        ways.setdefault(frames.name, "--duration")
    return ways


def schema_text(schema: Fields) -> str:
    """One line a field of a model's input, as it was read."""
    ways = flags_by_field(schema)
    return "\n".join(field_line(field, ways) for field in fields_of(schema))


def kinds_in_words(schema: Fields) -> list[str]:
    """The types that a schema allows, of a list with what is in it, of an object with its names."""
    kinds = []
    for kind in type_names(schema) or ["any"]:
        if kind == "array" and schema.get("items"):
            kind = f"array of {' or '.join(kinds_in_words(schema['items']))}"
        if kind == "object" and schema.get("properties"):
            kind = f"object of {', '.join(schema['properties'])}"
        kinds.append(kind)
    return kinds


def field_line(field: ModelField, ways: Mapping[str, str]) -> str:
    """name, type, required or default, what is allowed, the flag that sets it, and a line of
    description.
    """
    kinds: list[str] = []
    for variant in variants(field.schema):
        kinds += kinds_in_words(variant)
    if field.is_required:
        need = "required"
    elif "default" in field.schema:
        need = f"default {json.dumps(field.default)}"
    else:
        need = "optional"
    allowed = ", ".join(json.dumps(value) for value in offered_values(field.schema))
    return tabbed(
        field.name,
        "|".join(dict.fromkeys(kinds)),
        need,
        allowed or limits_text(field.schema),
        ways.get(field.name) or f"--arg {field.name}=",
        field.description,
    )


# ---------------------------------------------------------------------------------------------
# The wire: HTTP clients, paying once, and sessions that give their jobs up in good order.
# ---------------------------------------------------------------------------------------------

# The job of the session that a request belongs to.
CURRENT_JOB: contextvars.ContextVar[Job] = contextvars.ContextVar("current_job")


def api_key() -> str:
    """The key from the environment, without the white space and quotes that pasting and env files
    leave around it.
    """
    key, key_id, secret = (key_in(name) for name in KEY_VARIABLES)
    names = "FAL_KEY"
    if not key and key_id and secret:
        key, names = f"{key_id}:{secret}", "FAL_KEY_ID and FAL_KEY_SECRET"
    if not key:
        hint = hint_on_other_keys(bool(key_id), bool(secret))
        raise Failure("credentials_missing", "no fal.ai key: FAL_KEY is not set", hint=hint)
    for problem, pattern in KEY_PROBLEMS.items():
        if re.search(pattern, key, re.I):
            hint = (
                f"Set {names} to the key alone, as {KEYS_PAGE} gives it: without Key or Bearer"
                " before it, a variable's name, or marks around it."
            )
            raise Failure("credentials_malformed", f"the key in {names} {problem}", hint=hint)
    return key


def key_in(variable: str) -> str:
    """The value of a variable, as an env file means it that docker reads with its quotes."""
    return without_quotes(os.environ.get(variable, "").strip()).strip()


def hint_on_other_keys(has_id: bool, has_secret: bool) -> str | None:
    """What to do where FAL_KEY is not set, and half of it is, or a variable of another name."""
    if has_id != has_secret:
        missing = "FAL_KEY_ID"
        if has_id:
            missing = "FAL_KEY_SECRET"
        return f"Half of it is set: set {missing}, too, or FAL_KEY to a key of {KEYS_PAGE}."
    names = other_key_variables()
    if not names:
        return None
    value = f"${names[0]}"
    if names[0].upper().endswith(FILE_VARIABLE_ENDINGS):
        value = f"$(cat {value})"
    listed = ", ".join(names)
    return f'Not read: {listed}. If it is a key of {KEYS_PAGE}: export FAL_KEY="{value}"'


def other_key_variables() -> list[str]:
    """The variables that other tools read a key of fal's from, or might."""
    names = []
    for name in os.environ:
        if "FAL" not in name.upper():  # which is quicker than to match
            continue
        if name in KEY_VARIABLES or name.upper().endswith(ID_VARIABLE_ENDING):
            continue
        if re.fullmatch(KEY_NAME, name, re.I) and key_in(name):
            names.append(name)
    return names


# The user's network, as the environment describes it. What can be understood is used; what cannot
# is a usage error that names the variable.

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
# The other programs that trust certificates of one's own: curl, requests, Node.js.
OTHER_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


class Proxy(NamedTuple):
    """A proxy of the user's: the variable that names it, its URL, and that without the password."""

    variable: str
    url: str  # user and password are percent-encoded
    place: str

    @property
    def is_socks(self) -> bool:
        return self.url.startswith("socks")


class ProxySetting(NamedTuple):
    """What is said of the proxy for a URL, which may be no proxy."""

    variable: str
    setting: str
    is_left_out: bool  # since NO_PROXY names the host


def proxy_setting_for(url: httpx.URL) -> ProxySetting | None:
    """The setting that is for a URL, by the environment or else the system."""
    settings = urllib_request.getproxies()
    for kind in (url.scheme, "all"):
        if settings.get(kind):
            is_left_out = is_exempt(url, settings.get("no", ""))
            return ProxySetting(proxy_variable(kind), settings[kind], is_left_out)
    return None


def proxy_for(url: httpx.URL) -> Proxy | None:
    """The proxy that leads to a URL; None where the way is direct."""
    found = proxy_setting_for(url)
    if found is None or found.is_left_out:
        return None
    return read_proxy(found.variable, found.setting)


def proxy_variable(kind: str) -> str:
    """The name of the variable that is read for URLs of a scheme; lower case comes first."""
    name = f"{kind}_proxy"
    if name in os.environ:
        return name
    names = [variable for variable in os.environ if variable.lower() == name]
    return next(iter(names), "the system's proxy")


def read_proxy(variable: str, setting: str) -> Proxy:
    """A proxy of a scheme that can be used, at a place that can be one."""
    scheme, user_info, place = parts_of_proxy(setting)
    hint = f"Write {variable}=http://HOST:PORT, or unset it."
    if scheme not in PROXY_SCHEMES:
        schemes = ", ".join(f"{name}://" for name in PROXY_SCHEMES)
        message = f"{variable} names a {scheme[:20]}:// proxy, and not one of {schemes}"
        raise usage_error(message, hint)
    if not is_host_and_port(place):  # which is not shown: it may be a password
        raise usage_error(f"{variable} names no proxy: it has no HOST:PORT", hint)
    return Proxy(variable, f"{scheme}://{encoded_user(user_info)}{place}", f"{scheme}://{place}")


def parts_of_proxy(setting: str) -> tuple[str, str, str]:
    """Scheme, USER:PASSWORD and HOST:PORT of a proxy as people write it: in quotes, without a
    scheme, a password with any characters.
    """
    text = setting.strip().strip("'\"").strip()
    scheme = "http"
    start = re.match(r"([a-z][a-z0-9+.-]*)://", text, re.I)
    if start is not None:
        scheme = start[1].lower()
        text = text[start.end() :]
    user_info, _, place = text.rpartition("@")
    return scheme, user_info, place.rstrip("/")


def is_host_and_port(place: str) -> bool:
    """Whether it is HOST or HOST:PORT, an IPv6 address in brackets."""
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?", place, re.I)
    return match is not None and int(match[2] or 1) in range(1, 65536)


def encoded_user(user_info: str) -> str:
    """USER:PASSWORD@ as a URL has it, be it percent-encoded already or not."""
    if not user_info:
        return ""
    user, colon, password = user_info.partition(":")
    return f"{percent_encoded(user)}{colon}{percent_encoded(password)}@"


def percent_encoded(word: str) -> str:
    return urllib.parse.quote(urllib.parse.unquote(word), safe="")


def is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host, or the system does where no variable speaks of proxies."""
    host = url.host.rstrip(".").lower()
    port = url.port or 443
    if url.port is None and url.scheme == "http":
        port = 80
    if not urllib_request.getproxies_environment():
        return bool(urllib_request.proxy_bypass(host))
    return any(exempts(entry, host, port) for entry in re.split(r"[\s,;]+", no_proxy))


def exempts(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means a host: a name and what is below it, an address or a
    network, each perhaps with a port. Of what is none of these nothing is known.
    """
    entry = entry.strip("'\"").lower()
    with_port = re.fullmatch(r"(\[.+\]|[^:]+):(\d+)", entry)
    if with_port:
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    if entry == "*":
        return True
    address = literal_address(host)
    if address is not None:
        return address in network_of(entry.strip("[]"))
    name = entry.removeprefix("*").strip(".")
    return name != "" and f".{host}".endswith(f".{name}")


def network_of(text: str) -> Container[IPAddress]:
    """The addresses that a text means, be it a network or one address; none for another text."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ()


def require_package(package: str, module: str, proxy: Proxy) -> None:
    """SOCKS needs a package that neither httpx nor websockets brings."""
    if importlib.util.find_spec(module) is None:
        raise usage_error(
            f"{proxy.variable} names {proxy.place}, and for SOCKS a package is missing",
            f'pip install "{package}", or set {proxy.variable} to an HTTP proxy.',
        )


def tls_context() -> ssl.SSLContext:
    """The one TLS context of a command: to make one takes as long as importing a library."""
    return tls_context_of(
        os.environ.get("SSL_CERT_FILE", ""),
        os.environ.get("SSL_CERT_DIR", ""),
        os.environ.get("SSLKEYLOGFILE", ""),
    )


@functools.cache
def tls_context_of(certificates: str, folders: str, key_log: str) -> ssl.SSLContext:
    """A context for the values of the three variables; without certificates, for httpx's own."""
    if key_log:
        check_key_log(key_log)
    if certificates:
        return context_of_file(certificates, folders)
    if folders:
        check_certificate_folders(folders)
        return ssl.create_default_context(capath=folders)
    return httpx.create_ssl_context(trust_env=False)


def check_key_log(path: str) -> None:
    """Python writes to it whenever a context is made."""
    try:
        with open(path, "a"):
            pass
    except OSError as exc:
        raise certificates_error("SSLKEYLOGFILE", path, "cannot be written to") from exc


def context_of_file(path: str, folders: str) -> ssl.SSLContext:
    """The certificates of a file, and those of folders, which may be missing beside it."""
    path = os.path.expanduser(local_path(path))
    if not os.path.lexists(path):
        raise certificates_error("SSL_CERT_FILE", path, "is not there")
    if os.path.isdir(path):
        raise certificates_error("SSL_CERT_FILE", path, "is a folder, which SSL_CERT_DIR takes")
    if not os.path.isfile(path):  # a pipe, which nobody may ever write into
        raise certificates_error("SSL_CERT_FILE", path, "is no file")
    try:
        return ssl.create_default_context(cafile=path, capath=folders or None)
    except ssl.SSLError as exc:
        reason = "holds no certificates (PEM), or a broken one"
        raise certificates_error("SSL_CERT_FILE", path, reason) from exc
    except OSError as exc:
        raise certificates_error("SSL_CERT_FILE", path, "cannot be read") from exc


def check_certificate_folders(folders: str) -> None:
    """OpenSSL finds a certificate by the hash that its file is called by, as c_rehash names it."""
    for folder in folders.split(os.pathsep):
        for name in names_in(folder):
            if re.fullmatch(r"[0-9a-f]{8}\.\d+", name):
                return
    raise certificates_error("SSL_CERT_DIR", folders, "holds no certificates")


def names_in(folder: str) -> list[str]:
    """The names of what is in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def certificates_error(variable: str, path: str, reason: str) -> Failure:
    hint = f"Unset {variable}, or set it to what is there."
    return usage_error(f"{variable} names {path}, which {reason}", hint)


class Roads:
    """An httpx transport that sends each request on the way that the user's network has for it:
    directly, or by a proxy.
    """

    def __init__(self) -> None:
        self.direct = httpx.AsyncHTTPTransport(verify=tls_context(), trust_env=False)
        self._by_proxy: dict[str, httpx.AsyncHTTPTransport] = {}

    def road_to(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        proxy = proxy_for(url)
        if proxy is None:
            return self.direct
        if proxy.url not in self._by_proxy:
            self._by_proxy[proxy.url] = self._road_by(proxy)
        return self._by_proxy[proxy.url]

    def _road_by(self, proxy: Proxy) -> httpx.AsyncHTTPTransport:
        if proxy.is_socks:
            require_package("httpx[socks]", "socksio", proxy)
        own_tls = None
        if proxy.url.startswith("https:"):
            own_tls = tls_context()
        return httpx.AsyncHTTPTransport(
            verify=tls_context(),
            trust_env=False,
            proxy=httpx.Proxy(proxy.url, ssl_context=own_tls),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.road_to(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        for road in (self.direct, *self._by_proxy.values()):
            await road.aclose()


def web_client(transport: Any) -> httpx.AsyncClient:
    """An HTTP client that takes no cookies, nor anything but its roads from the environment.

    Cookies are kept by the host of a URL: where that is an address, as of `direct`, other hosts at
    it would be sent them.
    """
    client = httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        timeout=60,
    )
    client.cookies.jar.set_policy(cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return client


class Connection:
    """The HTTP clients of an event loop, open for as long as somebody uses them.

    `web` carries no key: model search, downloads, and the way of fal-client's requests, which
    bring their own. `direct` goes by no proxy, for hosts whose addresses were checked.
    """

    web: httpx.AsyncClient
    direct: httpx.AsyncClient

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0
        self._keyed = False

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lend `web`, and close it when the last user is done."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._users = 0
        if self._users == 0:
            roads = Roads()
            roads.road_to(httpx.URL(MODELS_URL))  # what cannot be used is told before all else
            self.web = web_client(roads)
            self.direct = web_client(roads.direct)
            self._keyed = False
        self._users += 1
        try:
            yield self.web
        finally:
            self._users -= 1
            if self._users == 0:
                await self.web.aclose()
                if self._keyed:
                    release_fal_client()

    @contextlib.asynccontextmanager
    async def opened_with_key(self) -> AsyncIterator[None]:
        """Have fal-client's functions ready to be called, with the key from the environment."""
        async with self.opened():
            if not self._keyed:
                equip_fal_client(self.web, api_key())
                self._keyed = True
            yield


CONNECTION = Connection()


# fal-client 1.0.3: what is done behind its back. tests/test_innards.py says in a sentence which
# of these lost its footing when an upgrade takes it away.
#
# - It repeats any POST up to ten times, and each may be billed: PaidOnce stands in the way.
# - It keeps the clients of its first event loop for ever, and offers no way to close them.
# - It makes a TLS context for each of its clients, and allows an upload token 5 seconds.
# - It sends ten parts of a large upload at once, which takes 400 MB.
# - It looks once more at a job that has ended, and reads no status that lacks a key: see _ask.
# - It follows the redirects of WebSockets, which would hand the arguments to a stranger.
# - It logs when it turns to its backup hosts, which Python would print on stderr.


def equip_fal_client(web: httpx.AsyncClient, key: str) -> None:
    """Have fal-client's shared async client send what it sends through `web`, paying once."""
    client = fal_client.async_client
    innards = fal_client.client
    client.key = key
    backup = innards.AsyncBackupDomainTransport(transport=httpx.AsyncBaseTransport())
    backup._client = web
    headers = {"User-Agent": innards.USER_AGENT}
    keyed = httpx.AsyncClient(
        transport=PaidOnce(backup),  # type: ignore[arg-type]
        headers={"Authorization": f"Key {key}", **headers},
        timeout=client.default_timeout,
    )
    uploading = httpx.AsyncClient(
        transport=ThroughAtLast(web),  # type: ignore[arg-type]
        headers=headers,
        timeout=client.default_timeout,
    )
    tokens = innards.AsyncCDNTokenManager(fal_client.auth.AuthCredentials("Key", key))
    refresh = functools.partial(fetch_upload_token, uploading, tokens)
    tokens._refresh_token = refresh  # type: ignore[method-assign]
    vars(client).update(
        _client=settled(keyed),
        _token_manager=settled(tokens),
        _cdn_client=functools.partial(contextlib.nullcontext, uploading),
    )
    innards.MULTIPART_MAX_CONCURRENCY = 2
    innards._connect_async_ws = connect_websocket
    logging.getLogger("fal_client.client").addFilter(as_note)


def release_fal_client() -> None:
    """Let go of the clients: they are of no use in the next event loop."""
    for name in ("_client", "_token_manager", "_cdn_client"):
        vars(fal_client.async_client).pop(name, None)


def settled(value: Any) -> asyncio.Future[Any]:
    """What can be awaited any number of times, as fal-client does with its cached properties."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


async def fetch_upload_token(client: httpx.AsyncClient, tokens: Any) -> Any:
    """A token for fal's CDN, as fal-client's own method gives it; asked for until it is one."""
    patience = Patience()
    while True:
        response = await client.post(
            tokens._url,
            headers=tokens._headers,
            json={},
            timeout=FREE_TIMEOUT,
        )
        token = upload_token(response.raise_for_status())
        if token:
            break
        failure = Failure("unexpected_answer", "fal gave no token for uploads of any use")
        if not await patience.lasts(failure, UPLOAD_LIMIT):
            raise failure
    keep_secret(token.token)
    refuse_strangers(httpx.URL(token.base_upload_url), TOKEN_DOMAINS)
    return token


def upload_token(response: httpx.Response) -> Any:
    """What an answer holds as fal-client's token; None if that is of no use."""
    answer = json_of(response)
    if not is_link(descend(answer, ["base_url"])):
        return None
    try:
        return fal_client.client.CDNToken(
            token=read_visible_text(answer["token"]),
            token_type=read_visible_text(answer["token_type"]),
            base_upload_url=read_visible_text(answer["base_url"]),
            expires_at=datetime.datetime.fromisoformat(answer["expires_at"]),
        )
    except (KeyError, TypeError, ValueError, Failure):
        return None


@contextlib.asynccontextmanager
async def connect_websocket(url: str, headers: dict[str, str] | None = None) -> AsyncIterator[Any]:
    """A WebSocket that follows no redirect, and takes a second to close and not ten."""
    target = httpx.URL(url)
    keep_secret(target.params.get("fal_jwt_token", ""))
    connecting = websockets.connect(
        url,
        additional_headers=headers,
        open_timeout=fal_client.client.REALTIME_OPEN_TIMEOUT,
        close_timeout=1,
        max_size=None,
        ssl=tls_context(),
        proxy=proxy_of_websockets(target),
    )
    connecting.process_redirect = lambda exc: exc  # type: ignore[method-assign]
    try:
        websocket = await connecting
    except OSError as exc:
        raise failure_behind(exc, target) or unreachable_failure(exc, target) from exc
    try:
        yield websocket
    finally:
        await websocket.close()


def proxy_of_websockets(target: httpx.URL) -> str | None:
    """The URL of the proxy that leads to a wss:// URL."""
    proxy = proxy_on_the_way(target)
    if proxy is None:
        return None
    if proxy.is_socks:
        require_package("python-socks[asyncio]", "python_socks", proxy)
    return proxy.url


def as_note(record: logging.LogRecord) -> bool:
    """Say what fal-client logs, and keep it from Python's own handler."""
    note(record.getMessage())
    return False


def fal_settings() -> list[httpx.URL]:
    """Where the user's FAL_RUN_HOST and FAL_QUEUE_RUN_HOST lead, or fal-client's defaults."""
    settings = (fal_client.auth.FAL_RUN_HOST, fal_client.auth.FAL_QUEUE_RUN_HOST)
    return [httpx.URL(f"https://{setting}") for setting in settings]


def refuse_strangers(url: httpx.URL, domains: tuple[str, ...]) -> None:
    """Keep the key and tokens of ours from clear text, and from any place that an answer names
    and that is neither fal's nor the user's own setting.
    """
    places = [(setting.host, setting.port) for setting in fal_settings()]
    is_set = (url.host, url.port) in places
    is_fals = f".{url.host}".endswith(domains) and url.port is None
    if url.scheme == "https" and not url.userinfo and (is_fals or is_set):
        return
    place = f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}"
    raise Failure("unexpected_answer", f"fal's answer leads to {place}, which is not fal's")


class Call:
    """A request of fal-client's, for a job: what it asks, and whether it is on its way.

    It pays if it may start a job: any POST with the key does, but for one that asks for a token.
    """

    def __init__(self, request: httpx.Request, job: Job) -> None:
        _, queue = fal_settings()
        self.request = request
        self.job = job
        self.is_token = request.url == f"{fal_client.client.REST_URL}/tokens/"
        self.pays = request.method == "POST" and not self.is_token
        self.submits = self.pays and request.url.host == queue.host
        self.is_look = request.method == "GET"
        self.is_status = self.is_look and request.url.path.endswith("/status")
        self.is_stream = "text/event-stream" in request.headers["accept"]
        self.is_sent = False
        request.extensions["trace"] = self._trace

    async def _trace(self, step: str, facts: Fields) -> None:
        """Notice when the request is handed to the wire; what has not been is surely not sent.

        httpcore reports each step that it takes. A proxy is sent a CONNECT first, which asks fal
        for nothing.
        """
        is_head = step.endswith("send_request_headers.started")
        if not is_head or facts["request"].method == b"CONNECT" or self.is_sent:
            return
        if self.pays:
            self.job.sent_at = time.time()
            self.job.becomes(JobState.SENT)
        self.is_sent = True


class PaidOnce:
    """An httpx transport under fal-client's that keeps it from paying twice.

    fal-client 1.0.3 repeats any POST up to ten times when the connection drops, when reading
    times out, and on 408, 409 and the gateway's 5xx; each repetition can start, and bill,
    another job. A Failure raised here is none of the errors that it repeats for. Repeated are
    only requests that fal has surely not taken, since they were not sent or fal said that it is
    busy, and those that only read.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._reached = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """fal's answer; while fal says that it is busy, it is asked again."""
        refuse_strangers(request.url, KEY_DOMAINS)
        call = Call(request, CURRENT_JOB.get())
        if call.is_look or call.is_token:
            return await self._ask(request, call.job)
        seconds_left = BUSY_LIMIT
        for backoff in (*BACKOFF, math.inf):
            call = Call(request, CURRENT_JOB.get())
            response = await self._answer(call)
            verdict = verdict_on(call, response)
            record_verdict(call, verdict)
            if verdict == Verdict.FINE:
                return response
            seconds = math.inf
            if verdict == Verdict.BUSY and backoff < math.inf:
                seconds = seconds_to_wait(response.headers, backoff)
            if seconds > seconds_left:
                raise verdict_failure(call, verdict, response, seconds)
            seconds_left -= seconds
            note(
                f"fal is busy (HTTP {response.status_code}): asking again in {seconds:.0f} s,"
                f" for {seconds_left:.0f} s more at most"
            )
            await asyncio.sleep(seconds)
        raise AssertionError("nobody waits after the last attempt")

    async def _ask(self, request: httpx.Request, job: Job) -> httpx.Response:
        """fal's answer about a job, or a token: that costs nothing, and is asked for until it makes
        sense.

        A job that has ended is not looked at again: fal-client 1.0.3 does so before it fetches a
        response.
        """
        if job.last_status and request.url.path.endswith("/status"):
            return status_for_fal_client(request, job.last_status)
        request.extensions["timeout"] = httpx.Timeout(FREE_TIMEOUT).as_dict()
        patience = Patience()
        while True:
            call = Call(request, job)
            response: httpx.Response | None = None
            try:
                response = await self._answer(call)
                failure = oddity(call, response)
            except httpx.RequestError as exc:
                failure = explain(exc)
            if response is not None and failure is None:
                return answer_for_fal_client(call, response)
            assert failure
            if not await patience.lasts(failure, look_limit(call, failure), response):
                return last_resort(call, response, failure)

    async def _answer(self, call: Call) -> httpx.Response:
        """fal's answer. Whatever is raised that is no Failure makes fal-client ask again."""
        host = call.request.url.host
        send = self._submit if call.submits else self._send
        try:
            with reminder(f"{host} has not answered for {SILENCE} s: still waiting"):
                return await send(call)
        except httpx.RequestError as exc:
            if call.is_sent and call.pays:
                raise explain(exc) or exc from exc
            if not call.is_sent and not self._reached:
                raise unsent_failure(exc) from exc
            if not (call.is_look or call.is_token):
                note(f"{host}: {reason_of(exc)}: trying again")
            raise

    async def _submit(self, call: Call) -> httpx.Response:
        """Hear fal out even when the command is stopped: a job is cancelled by its request id.

        What is not on its way by then is not sent any more.
        """
        sending = asyncio.ensure_future(self._send(call))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            if call.is_sent:
                response = await insist(sending, call.job, LATE_ANSWER)
                if response is not None:
                    record_verdict(call, verdict_on(call, response))
            else:
                sending.cancel()
                await asyncio.wait([sending])
            raise

    async def _send(self, call: Call) -> httpx.Response:
        """The answer, read whole here, where a connection that breaks is not tried again; a
        stream of events is left to be read.
        """
        response = await self._transport.handle_async_request(call.request)
        self._reached = True
        units = billable_units(response)
        if units is not None:
            call.job.units[call.request.url.path] = units
        if call.pays and not call.submits:
            call.job.answer_id = response.headers.get("x-fal-request-id")
        if call.is_stream and response.is_success:
            return await opened_stream(call, response)
        if call.submits:
            learn_request_id(call.job, response, is_whole=False)  # the rest may not come
        response = await read_whole(response)
        if call.submits:
            learn_request_id(call.job, response, is_whole=True)
            refuse_urls_of_others(call.job, response)
        elif not call.is_look:
            response = readable(call, response)
        return response

    async def aclose(self) -> None:
        """Leave the connections to whoever opened them."""


def readable(call: Call, response: httpx.Response) -> httpx.Response:
    """What fal-client can read of a model's answer; the rest, which is paid for, is kept."""
    if response.is_success and is_cut_off(response):
        call.job.unprinted = [response.text]
    elif response.is_success and is_unreadable(response):
        call.job.set_aside(as_it_came(response))
        return httpx.Response(response.status_code, json={}, request=call.request)
    return response


def is_unreadable(response: httpx.Response) -> bool:
    """Whether an answer is no JSON that fal-client or we can read: it nests too deeply, has a
    number of thousands of digits, characters that are not UTF-8, or is none at all. A page of a
    gateway's, and nothing, are no answers of a model.
    """
    is_page = "text/html" in response.headers.get("content-type", "").lower()
    if is_page or not response.content.strip():
        return False
    return nests_deeply(response.text) or json_of(response) is None


def is_cut_off(response: httpx.Response) -> bool:
    """Whether an answer is the start of some JSON: no whole response, but paid for."""
    text = response.text.strip()
    is_json_start = text.startswith(("{", "[", '"')) and not text.endswith(("}", "]"))
    return is_json_start and json_of(response) is None


def as_it_came(response: httpx.Response) -> Any:
    """What can be printed of an answer that cannot be read: its JSON as it is, its text, or its
    bytes, of which a data URI is made.
    """
    if is_bracketed(response.text):
        return Raw(response.text)
    try:
        return response.content.decode()
    except UnicodeDecodeError:
        content_type = response.headers.get("content-type", BINARY)
        return {"content_type": content_type, "content": response.content}


async def opened_stream(call: Call, response: httpx.Response) -> httpx.Response:
    """A stream of events; what is paid for and is none is printed all the same."""
    content_type = response.headers.get("content-type", "").lower()
    if not content_type.startswith("text/event-stream"):
        response = await read_whole(response)
        if is_unreadable(response):
            call.job.unprinted = [as_it_came(response)]
        elif json_of(response) is not None:
            call.job.unprinted = [json_of(response)]
        call.job.becomes(JobState.DONE, result=next(iter(call.job.unprinted), None))
        return response
    return httpx.Response(
        response.status_code,
        headers={"content-type": content_type},
        content=json_events(call.job, response),
        request=call.request,
    )


async def json_events(job: Job, response: httpx.Response) -> AsyncIterator[bytes]:
    """The events of a stream that hold JSON, for fal-client, which gives a stream up over anything
    else: heartbeats in words, events without data, a byte order mark.

    An event of the type `error` is a Failure; no form of it is documented.
    """
    unread = UnreadBytes()
    content_type = {"content-type": response.headers["content-type"].lower()}
    stream = httpx.Response(200, headers=content_type, content=unread.of(response))
    stream.encoding = "utf-8-sig"  # event streams are UTF-8, perhaps with a mark
    words, broken = "", ""
    has_json = False
    async for event in httpx_sse.EventSource(stream).aiter_sse():
        unread.size = 0
        if event.event == "error":
            raise stream_failure(event.data)
        if nests_deeply(event.data):
            has_json = True
            job.set_aside(Raw(event.data))
            yield b"data: {}\n\n"
        elif is_json(event.data):
            has_json = True
            yield b"data: " + event.data.replace("\n", " ").encode() + b"\n\n"
        elif event.data.strip() not in ("", "[DONE]"):
            words = cut(event.data.strip(), 80)
            if words[0] in '{["' or "\ufffd" in words:
                broken = words
            note(f"the stream holds an event that is no JSON: {words}")
    if broken or (words and not has_json):
        raise Failure("unexpected_answer", f"an event cannot be read as JSON: {broken or words}")


class UnreadBytes:
    """How many bytes of a stream have come, unpacked, since its last event: they are in memory."""

    def __init__(self) -> None:
        self.size = 0

    async def of(self, response: httpx.Response) -> AsyncIterator[bytes]:
        async for chunk in response.aiter_bytes():
            self.size += len(chunk)
            if self.size > MAX_EVENT_BYTES:
                message = f"an event of the stream has more than {MAX_EVENT_BYTES} bytes"
                raise Failure("unexpected_answer", message)
            yield chunk
        yield b"\n\n"  # which ends an event that fal did not end before it hung up


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class Through:
    """An httpx transport that sends what it is given by another client, to fal's hosts, and
    reads the answers whole.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        refuse_strangers(request.url, TOKEN_DOMAINS)
        return await read_whole(await self._client.send(request, stream=True))

    async def aclose(self) -> None:
        """Leave the connections to whoever opened them."""


class ThroughAtLast(Through):
    """Sends again, for a minute, what costs nothing and fal did not answer or was too busy for."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__(client)
        self._reached = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        patience = Patience()
        while True:
            response: httpx.Response | None = None
            try:
                response = await super().handle_async_request(request)
                self._reached = True
                failure = hiccup(response)
            except httpx.RequestError as exc:
                failure = explain(exc)
            if response is not None and failure is None:
                return response
            assert failure
            is_offline = failure.type == "unreachable" and not self._reached
            if is_offline or not await patience.lasts(failure, UPLOAD_LIMIT, response):
                raise failure


def hiccup(response: httpx.Response) -> Failure | None:
    """What an answer says that may be another one if what costs nothing is repeated."""
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        return answer_failure(response, response.text)
    return None


async def read_whole(response: httpx.Response) -> httpx.Response:
    """An answer with its body, unpacked: a few bytes may unpack to gigabytes."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            await response.aclose()
            message = f"an answer of fal's has more than {MAX_ANSWER_BYTES} bytes"
            raise Failure("unexpected_answer", message)
        chunks.append(chunk)
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=b"".join(chunks),
        request=response.request,
    )


@contextlib.contextmanager
def reminder(text: str) -> Iterator[None]:
    """Say the text if what is inside takes longer than somebody waits in peace."""
    timer = asyncio.get_running_loop().call_later(SILENCE, note, text)
    try:
        yield
    finally:
        timer.cancel()


def learn_request_id(job: Job, response: httpx.Response, is_whole: bool) -> None:
    """Take the request id of a queued job from the body of the answer, or as long as that has
    not come from its head. Raises a Failure if fal has taken the job under no id of any use.
    """
    request_id = response.headers.get("x-fal-request-id")
    if is_whole and (response.is_success or not is_request_id(request_id)):
        request_id = descend(json_of(response), ["request_id"])
    if is_request_id(request_id):
        job.accepted(request_id)
    elif is_whole and response.is_success:
        message = "fal may have the job, but gave no id that can be one"
        raise Failure("unexpected_answer", message)


def refuse_urls_of_others(job: Job, response: httpx.Response) -> None:
    """Look no job up under the URL of another: fal's have the request id in them."""
    answer = json_of(response)
    for name in ("status_url", "response_url", "cancel_url"):
        url = descend(answer, [name])
        is_of_job = is_text(url) and f"/requests/{job.request_id}/" in f"{url}/"
        if response.is_success and is_text(url) and not is_of_job:
            message = f"fal gave a {name} that is not of the job"
            raise Failure("unexpected_answer", message)


def is_request_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(REQUEST_ID_PATTERN, value, re.ASCII) is not None


def json_of(response: httpx.Response) -> Any:
    """What the body holds; None if that cannot be read as JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def billable_units(response: httpx.Response) -> float | None:
    """What fal bills for an answer, if it tells."""
    units = as_number(response.headers.get("x-fal-billable-units"))
    if units is None or not 0 <= units < 1e100:
        return None
    return units


def names_a_job(call: Call, response: httpx.Response) -> bool:
    """Whether an answer tells of a job, by its id or by what is billed: then fal has it, whatever
    the status says.
    """
    if has_headers_of_a_job(response) or call.job.state == JobState.ACCEPTED:
        return True
    text = response.text
    if json_of(response) is not None:
        text = json.dumps(json_of(response))  # in one spelling, whatever escapes it came with
    return re.search(JOB_IN_BODY, text, re.I) is not None


class Verdict(Enum):
    """What an answer means for the request, and so for the user's money."""

    FINE = "fal-client reads it"
    BUSY = "fal has not taken the request, and may take the next"
    REFUSED = "fal has not taken it, or ended it at once"
    IN_DOUBT = "fal may have taken it"


def verdict_on(call: Call, response: httpx.Response) -> Verdict:
    if is_busy(call, response):
        return Verdict.BUSY
    if not call.pays or response.status_code < 300:
        return Verdict.FINE
    if is_refusal(call, response):
        return Verdict.REFUSED
    return Verdict.IN_DOUBT


def record_verdict(call: Call, verdict: Verdict) -> None:
    """A job that fal has not taken may be submitted again."""
    if call.pays and verdict in (Verdict.BUSY, Verdict.REFUSED):
        call.job.becomes(JobState.REFUSED)


def verdict_failure(
    call: Call, verdict: Verdict, response: httpx.Response, seconds: float
) -> Failure:
    """What an answer says that is not fine; `seconds` is how long fal asks to wait, if it does."""
    failure = answer_failure(response, response.text)
    if verdict == Verdict.IN_DOUBT and call.submits:
        failure.retry_is_fals_word = failure.is_fals_word = False  # fal may have the job
    if call.pays and math.isfinite(seconds):
        failure.hint = f"fal asks to wait {seconds:.0f} s: repeat the command then."
    return failure


def is_busy(call: Call, response: httpx.Response) -> bool:
    """Whether fal did not take the request and may take the next.

    The gateway's pages and a runner that went away say nothing of the kind.
    """
    status = response.status_code
    if not call.pays or status not in (429, 503) or names_a_job(call, response):
        return False
    return status == 429 or is_fals_own_503(response)


def is_fals_own_503(response: httpx.Response) -> bool:
    """Whether fal's servers speak, of a request that no runner has had."""
    headers = response.headers
    if "json" not in headers.get("content-type", ""):
        return False
    for word in (headers.get("x-fal-error-type"), descend(json_of(response), ["error_type"])):
        if str(word).startswith("runner_") and word not in BEFORE_A_RUNNER:
            return False
    return retry_by_fal(headers) is not False


def is_refusal(call: Call, response: httpx.Response) -> bool:
    """Whether an answer that is no success, nor says that fal is busy, leaves no job behind."""
    is_plain_no = response.status_code in PLAIN_REFUSALS
    if names_a_job(call, response):
        return is_plain_no and not call.submits  # outside the queue that job has ended so
    if "x-fal-request-timeout-type" in response.headers:  # it never started
        return True
    return is_plain_no or retry_by_fal(response.headers) is True


def seconds_to_wait(headers: Mapping[str, str], backoff: float) -> float:
    """What fal asks for, as a number or a date, or else the backoff with a jitter."""
    asked = headers.get("retry-after", "").strip()[:100]
    if re.fullmatch(r"\d{1,9}", asked):
        return float(asked)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email_utils.parsedate_to_datetime(asked)
        return max(date.timestamp() - time.time(), 0.0)
    return backoff * random.uniform(0.7, 1.0)


# Looks: what fal answers about a job, told apart by whether it makes sense.


class Patience:
    """Repeats what costs nothing: quickly at first, then every few seconds."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._tries = 0

    async def lasts(
        self, failure: Failure, limit: float, response: httpx.Response | None = None
    ) -> bool:
        """Wait until it is time to try again, and return True; False at once if the limit, in
        seconds, would be exceeded.

        What took longer than that has a second try in any case, unless fal asks for a wait.
        """
        self._tries += 1
        backoff = FREE_BACKOFF[min(self._tries, len(FREE_BACKOFF)) - 1]
        asked = 0.0  # by fal
        if response is not None:
            asked = seconds_to_wait(response.headers, 0)
        seconds = max(asked, backoff * random.uniform(0.7, 1.0))
        spent = asyncio.get_running_loop().time() - self._began
        if spent + seconds > limit and (asked > limit or self._tries > 1):
            return False
        note(f"{cut(failure.message, 200)}: asking again, for {limit:.0f} s at most")
        await asyncio.sleep(seconds)
        return True


def look_limit(call: Call, failure: Failure) -> float:
    """Seconds for which it is repeated. A job of an earlier run may be gone for good."""
    if call.is_token:
        return UPLOAD_LIMIT
    if failure.status == 404 and not call.job.taken_now:
        return min(call.job.patience, GLANCE_LIMIT)
    return call.job.patience


def oddity(call: Call, response: httpx.Response) -> Failure | None:
    """Why an answer about a job makes no sense, or none yet; None for fal's word on the job."""
    if call.is_token:
        return hiccup(response) or token_oddity(response)
    if response.is_success:
        reason = oddity_of_success(call, response)
        if reason is None:
            return None
        return Failure("unexpected_answer", reason, retryable=True)
    if is_last_word(call, response):
        return None
    failure = answer_failure(response, response.text)
    if not is_json(response.text) and response.is_error:
        failure = Failure("gateway_error", failure.message, status=response.status_code)
    failure.retryable = True
    failure.retry_is_fals_word = failure.is_fals_word = False  # it is no word on the job
    return failure


def token_oddity(response: httpx.Response) -> Failure | None:
    """fal-client 1.0.3 takes any text for a token, be it empty, or why fal gives none."""
    if response.is_error:
        return None
    token = json_of(response)
    if not is_text(token):
        token = descend(token, ["token"])
    if is_text(token) and re.fullmatch(VISIBLE, token):
        return None
    return Failure("unexpected_answer", "fal gave no token of any use")


def oddity_of_success(call: Call, response: httpx.Response) -> str | None:
    if call.is_status:
        return status_oddity(response)
    return response_oddity(response)


def status_oddity(response: httpx.Response) -> str | None:
    answer = json_of(response)
    if not isinstance(answer, dict):
        return f"fal gave no status of the job that can be read (HTTP {response.status_code})"
    if not (isinstance(answer.get("status"), str) and answer["status"].strip()):
        return "fal gave a status of the job that says nothing"
    return None


def response_oddity(response: httpx.Response) -> str | None:
    """Models may answer with texts and pictures, too: then fal's own headers, or the type of the
    content, vouch for them.
    """
    answer = json_of(response)
    if is_status_of_job(response):
        return "fal gave a status in place of the model's response"
    if answer is not None or response.content.strip() == b"null":
        return None
    if is_cut_off(response):
        return "fal gave no more than the start of the model's response"
    if is_unreadable(response) and (is_vouched_for(response) or is_bracketed(response.text)):
        return None
    return f"fal gave no response of the model that can be read (HTTP {response.status_code})"


def is_status_of_job(response: httpx.Response) -> bool:
    """Whether it is what fal answers when it is asked how a job is getting on."""
    answer = json_of(response)
    if not isinstance(answer, dict) or answer.get("status") not in JOB_WORDS:
        return False
    return response.status_code == 202 or "status_url" in answer or "queue_position" in answer


def is_vouched_for(response: httpx.Response) -> bool:
    """Whether its headers tell that it is what a model made."""
    if has_headers_of_a_job(response):
        return True
    content_type = response.headers.get("content-type", "")
    return re.match("image/|video/|audio/", content_type, re.I) is not None


def has_headers_of_a_job(response: httpx.Response) -> bool:
    """Whether fal tells the id of a job beside an answer, or what is billed for it."""
    headers = response.headers
    return bool(headers.get("x-fal-request-id") or headers.get("x-fal-billable-units"))


def is_bracketed(text: str) -> bool:
    """Whether it looks like whole JSON."""
    text = text.strip()
    return text.startswith(("{", "[")) and text.endswith(("}", "]"))


def is_last_word(call: Call, response: httpx.Response) -> bool:
    """Whether an error answer would be the same again: fal refuses the key, or knows no such job,
    or the model has refused it.
    """
    status = response.status_code
    if not response.is_error or not gives_a_reason(response):
        return False
    if status in (401, 403):
        return True
    if status == 404:
        return is_unknown_for_good(call, response)
    if call.is_status:
        return status in (405, 410)
    if status < 500:
        is_early = status == 400 and "in progress" in str(detail_of(response))
        return not is_early and status not in (408, 409, 425, 429)
    if isinstance(detail_of(response), list) or call.job.failed:  # the model's own word
        return True
    has_timed_out = "x-fal-request-timeout-type" in response.headers
    return has_timed_out or retry_by_fal(response.headers) is not None


def gives_a_reason(response: httpx.Response) -> bool:
    """Whether an error answer is JSON that says what is wrong."""
    answer = json_of(response)
    if not isinstance(answer, dict):
        return False
    return bool(answer.get("detail") or answer.get("error") or is_text(answer.get("status")))


def detail_of(response: httpx.Response) -> Any:
    """What fal calls the reason of an error answer; None without one."""
    return descend(json_of(response), ["detail"])


def is_unknown_for_good(call: Call, response: httpx.Response) -> bool:
    """Whether a 404 stays one: fal may not know at once, nor at each of its places, what it has
    taken.
    """
    if call.job.state not in (JobState.ACCEPTED, JobState.CANCELLED):
        return True
    return not call.is_status and str(detail_of(response)).startswith("Path ")


def answer_for_fal_client(call: Call, response: httpx.Response) -> httpx.Response:
    """An answer that makes sense, as fal-client reads it; the job learns what that says of it."""
    if call.is_token:
        return response
    if response.is_error:
        is_about_key = response.status_code in (401, 403)
        call.job.refused = not call.is_status and not is_about_key
        return response
    if not call.is_status:
        return readable(call, response)
    status = dict(json_of(response))
    status["status"] = known_word(call.job, response)
    if status["status"] == "COMPLETED":
        call.job.failed = bool(status.get("error"))
        call.job.last_status = status
    return status_for_fal_client(call.request, status)


def status_for_fal_client(request: httpx.Request, status: Fields) -> httpx.Response:
    """fal-client 1.0.3 wants all the keys that fal documents."""
    content = json.dumps({"queue_position": None, "logs": None, **status})
    return httpx.Response(200, content=content.encode(), request=request)


def known_word(job: Job, response: httpx.Response) -> str:
    """The word for a job's status that fal-client knows.

    What nobody knows is taken for IN_PROGRESS. If fal keeps to it, with the HTTP status of what has
    ended (200; until then it is 202), the job has ended.
    """
    word: str = json_of(response)["status"].strip().upper()
    if word in JOB_WORDS:
        job.unknown_since = None
        return word
    note(f"fal calls the job {printable(word)[:80]}, which nobody knows: taken for in progress")
    now = asyncio.get_running_loop().time()
    job.unknown_since = job.unknown_since or now
    if response.status_code == 200 and now - job.unknown_since > LOOK_LIMIT:
        return "COMPLETED"
    return "IN_PROGRESS"


def last_resort(call: Call, response: httpx.Response | None, failure: Failure) -> httpx.Response:
    """What is left of an answer that never made sense: a text, perhaps, that is paid for."""
    if response is not None and call.is_look and not call.is_status:
        text = readable(call, response)
        if text is not response:
            return text
    raise failure


# Sessions: what is inside may talk to fal for one job; whatever goes wrong leaves as a Failure.


@contextlib.contextmanager
def failures(job: Job) -> Iterator[None]:
    """Let whatever goes wrong while talking to fal leave as a Failure that names the job."""
    try:
        yield
    except Exception as exc:
        failure = explain(exc)
        if failure is None and not is_raised_by(TALKERS, exc):
            if job.state == JobState.ACCEPTED:
                RUN.running.append(job)
            raise  # a bug of ours, which keeps its traceback
        if failure is None:
            failure = unexpected_answer(exc)
        failure.happened_to(job)
        job.fails(failure)
        raise failure from exc


# The packages that read what fal answers, and those that read pictures.
TALKERS = ("fal_client", "httpx", "httpcore", "httpx_sse", "h11", "websockets", "msgpack")
PICTURE_READERS = ("PIL", "pillow_heif")


def is_raised_by(packages: Container[str], exc: Exception) -> bool:
    """Whether one of the packages raised it, or what that calls, and no line of ours."""
    is_theirs = False
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module in (__name__, "__main__"):
            is_theirs = False
        elif module.partition(".")[0] in packages:
            is_theirs = True
    return is_theirs


def seconds_from_now(seconds: float) -> float:
    """A deadline, in the event loop's seconds."""
    return asyncio.get_running_loop().time() + seconds


@contextlib.asynccontextmanager
async def fal_session(job: Job, seconds: float | None = None) -> AsyncIterator[None]:
    """Have fal_client's async functions ready for one job, for so many seconds at most."""
    with completing_galleries(job), failures(job):
        async with CONNECTION.opened_with_key():
            if CURRENT_JOB.get(None) is None:
                RUN.job = job
            CURRENT_JOB.set(job)
            if seconds:
                job.deadline = seconds_from_now(seconds)
            RUN.followed.append(job)
            try:
                async with asyncio.timeout(seconds):
                    yield
            except (asyncio.CancelledError, TimeoutError):
                await give_up(job)
                raise
            finally:
                RUN.followed.remove(job)


async def give_up(job: Job) -> None:
    """Cancel at fal what nobody waits for any longer, and record what became of it."""
    if job.state == JobState.SENT:
        RUN.jobs_in_doubt += 1
    if job.state != JobState.ACCEPTED or not (job.model and job.request_id):
        return
    RUN.running.append(job)
    if not job.cancelled_if_given_up:
        return
    if await insist(request_cancellation(job.model, job.request_id), job, LATE_CANCELLATION):
        RUN.running.remove(job)
        RUN.cancelled.append(job.request_id)
        job.becomes(JobState.CANCELLED)


async def insist(awaitable: Awaitable[Any], job: Job, late_seconds: float) -> Any:
    """What it gives within 3 seconds although the task is cancelled; None if it gives nothing.

    When the job's time is up there are `late_seconds`: the two things that are insisted on then
    fit into the second that a time limit may be late.
    """
    seconds = 3.0
    if job.deadline and asyncio.get_running_loop().time() >= job.deadline:
        seconds = late_seconds
    work = asyncio.ensure_future(asyncio.wait_for(awaitable, seconds))
    with contextlib.suppress(Exception, asyncio.CancelledError):
        return await asyncio.shield(work)
    return None


@contextlib.asynccontextmanager
async def platform(key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client for fal's platform API, which is no part of fal-client."""
    headers = {}
    if key:
        headers["Authorization"] = f"Key {key}"
    with failures(Job()):
        async with CONNECTION.opened() as web:
            yield httpx.AsyncClient(
                transport=Through(web),  # type: ignore[arg-type]
                headers=headers,
                timeout=60,
            )


# ---------------------------------------------------------------------------------------------
# Records: what is known of jobs after a command was killed. A record is a file of steps; a step
# is one line of JSON, on disk before the next step of the job is taken.
# ---------------------------------------------------------------------------------------------


class StepFile:
    """A file of steps: the one format, and the only writer, of all that is kept of jobs.

    It is locked while it is open, so that one process at a time appends to it: a journal for as
    long as its batch runs, a shared file, which many commands append to, for a step. `kind` is
    what messages call the file. Whatever cannot be used as one is a usage error. To be read it
    need not be open; what only reads neither makes, locks nor alters it.
    """

    # What every step starts with: it tells a record from any other file.
    START = b'{"job": "'
    STEP = rb'\{"job": "[0-9a-f]{32}-\d+", "state": "'

    def __init__(self, path: str, kind: str, is_shared: bool = False) -> None:
        self._path = path
        self._kind = kind
        self._is_shared = is_shared
        self._file = -1

    def open(self, seconds: float = 0.0) -> None:
        """Make the file if there is none, and lock it until it is closed; others that have it
        locked are waited for so long.
        """
        try:
            while self._file < 0:
                self._file = os.open(self._path, self._flags(), 0o600)
                self._refuse_other_places()
                self._lock(seconds)
                if self._was_replaced():
                    self.close()
        except BlockingIOError as exc:
            self.close()
            raise usage_error(f"another process works on the {self._kind} {self._path}") from exc
        except (OSError, ImportError) as exc:  # Windows has no fcntl
            self.close()
            message = f"cannot use the {self._kind} {self._path}: {reason_of(exc)}"
            raise usage_error(message) from exc

    def _flags(self) -> int:
        """How it is opened. A link that lies where the user has named no file is not followed."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)  # which only Windows has
        if self._is_shared:
            flags |= getattr(os, "O_NOFOLLOW", 0)
        return flags

    def _lock(self, seconds: float) -> None:
        """Keep others out. Windows and some file systems have no such lock: what is shared goes
        without, a step at a time, and a journal is refused.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            except (OSError, ImportError):
                if not self._is_shared:
                    raise
                return

    def _was_replaced(self) -> bool:
        """Whether somebody has rewritten the file before it was locked; see drop_oldest."""
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return True

    def _refuse_other_places(self) -> None:
        """What the shell has redirected stdout or stderr to would be overwritten by them; a pipe
        keeps nothing.
        """
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise usage_error(f"not a file: {self._path}")
        for stream in (sys.stdout, sys.stderr):
            if is_same_file(stream, self._file):
                raise usage_error(f"the {self._kind} {self._path} is where the output goes")

    def close(self) -> None:
        """Give the lock back as well."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def lines(self) -> list[bytes]:
        """The lines that are whole: a last one that is torn is left out."""
        with reading(self._path), open_regular_file(self._path) as file:
            content = file.read()
        lines = content.split(b"\n")
        torn = lines.pop()
        has_steps = re.match(self.STEP, content) is not None
        is_torn_start = not lines and self._is_torn_step(torn)
        if not (has_steps or is_torn_start or self._is_shared):
            raise usage_error(f"not a {self._kind}: {self._path}")
        return lines

    def _is_torn_step(self, line: bytes) -> bool:
        """Whether it is the start of a step, however short."""
        if len(line) <= len(self.START):
            return self.START.startswith(line)
        digits = "[0-9a-f]{32}"
        pattern = rf'\{{"job": "([0-9a-f]{{0,32}}|{digits}-\d*|{digits}-\d+"(, .*)?)'.encode()
        return re.fullmatch(pattern, line, re.DOTALL) is not None

    def unreadable(self, line_number: int) -> Failure:
        return usage_error(f"line {line_number} of the {self._kind} {self._path} cannot be read")

    def mend(self) -> None:
        """End the last line, so that nothing is glued to it: a step that is torn, since whoever
        wrote it was killed, is cut off.
        """
        end = os.lseek(self._file, 0, os.SEEK_END)
        torn = self._torn_line(end)
        if not self._is_torn_step(torn.rstrip(b"\0")):  # which a power cut leaves
            os.write(self._file, b"\n")
        elif torn:
            os.ftruncate(self._file, end - len(torn))
        if len(torn) == end:
            sync_folder(self._path)

    def append(self, step: Fields) -> None:
        """Put a step on disk, whole or not at all; raises OSError."""
        line = f"{json_text(step)}\n".encode(errors="backslashreplace")
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while line:
                written = os.write(self._file, line)
                line = line[written:]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise

    def drop_oldest(self, limit: int, rest: int) -> None:
        """Once the file has more bytes than the limit, rewrite it with so many bytes at most: the
        jobs of which something was told last stay. Whoever waits for the lock sees that the file
        was replaced.
        """
        if os.lseek(self._file, 0, os.SEEK_END) <= limit:
            return
        with open_regular_file(self._path) as file:
            steps = re.findall(self.STEP + rb".*\n", file.read())
        kept = jobs_told_last(steps, rest)
        with PartFile(os.path.dirname(self._path), mode=0o600) as part:
            for step in steps:
                if start_of_step(step) in kept:
                    part.write(step)
            part.finish(sync=True)
            if os.name == "nt":  # which replaces no open file, and has no lock to give back
                self.close()
            part.rename(self._path)

    def _torn_line(self, end: int) -> bytes:
        """What stands behind the last line end of a file of so many bytes."""
        torn = b""
        size = 1
        while len(torn) < end:
            size = min(size, end)
            os.lseek(self._file, -size, os.SEEK_END)
            _, line_end, torn = os.read(self._file, size).rpartition(b"\n")
            if line_end:
                return torn
            size *= 1024
        return torn


def start_of_step(line: bytes) -> bytes:
    """The part of a line that names the job."""
    return line[: line.find(b",")]


def jobs_told_last(steps: Sequence[bytes], room: int) -> set[bytes]:
    """The jobs of the last steps, by how these start, whose steps have so many bytes at most."""
    sizes: collections.Counter[bytes] = collections.Counter()
    for step in steps:
        sizes[start_of_step(step)] += len(step)
    kept: set[bytes] = set()
    for start in dict.fromkeys(map(start_of_step, reversed(steps))):
        room -= sizes[start]
        if room < 0:
            break
        kept.add(start)
    return kept


def is_same_file(stream: Any, file: int) -> bool:
    """Whether a stream of ours writes to an open file."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.fstat(file))
    except (AttributeError, ValueError, OSError):  # closed, or in memory
        return False


def sync_folder(path: str) -> None:
    """Put a new file's name on disk as well, where the system can."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_uploads(value: Any) -> dict[str, str]:
    """What a journal holds of uploads: URLs by the digests of the files."""
    if not isinstance(value, dict):
        return {}
    return {digest: url for digest, url in value.items() if is_text(url)}


def is_list_of_saved(value: Any) -> bool:
    """Whether it is what a journal holds of saved files: the place and {"path", "bytes"} each."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        return False
    return all(is_text(descend(file, ["path"])) for file in value[1])


ISO_TIME = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> str:
    return time.strftime(ISO_TIME, time.gmtime())


# What must be known of a job in each state.
JOURNAL_STATES: dict[str, str] = {
    JobState.SENT: "state",
    JobState.REFUSED: "state",
    JobState.ACCEPTED: "request_id",
    JobState.CANCELLED: "request_id",
    JobState.DONE: "result",
}


class Journal:
    """What a batch knows of its jobs: how far each of them got, in this run and in those before.

    A step is {"job", "state", "at"}, after sent with "model", "about" and the "uploads" by
    content, after accepted with "request_id", after done with "result" and then "saved", its
    files, and with "billable_units" once fal has told them. `job` is made of the endpoint and the
    arguments, local files by their content, so that a changed list finds its jobs again. Without
    a path nothing is kept, nor by a dry run that finds no file.
    """

    def __init__(self, path: str | None, dry: bool = False) -> None:
        self._steps: StepFile | None = None
        self._facts: dict[str, Fields] = {}  # of each job, by its name
        self._twins: collections.Counter[str] = collections.Counter()
        self._is_kept = path is not None and (os.path.exists(path) or not dry)
        if path is None or not self._is_kept:
            return
        steps = StepFile(path, "journal")
        self._steps = steps
        try:
            if not dry:
                steps.open()
            for line_number, line in enumerate(steps.lines(), 1):
                if not self._learn(json_or_none(line)):
                    raise steps.unreadable(line_number)
            if not dry:
                steps.mend()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._steps:
            self._steps.close()

    def _learn(self, step: Any) -> bool:
        """Take in a step of an earlier run; returns whether it is one."""
        if not (isinstance(step, dict) and isinstance(step.get("job"), str)):
            return False
        facts = self._facts.setdefault(step["job"], {})
        state = step.get("state")
        if state == JobState.SENT:  # another attempt: nothing that was before holds for it
            facts.clear()
        facts.update(step)
        request_id = facts.get("request_id")
        if request_id is not None and not is_request_id(request_id):
            return False
        if request_id is not None:
            RUN.request_ids.add(request_id)
        return isinstance(state, str) and JOURNAL_STATES.get(state) in facts

    def attach(self, job: Job, endpoint: str, digest: Callable[[str], str]) -> None:
        """Set a job to where the journal has it; what it becomes is recorded from then on.

        `digest` gives the same for the same picture, and for a URL the URL.
        """
        if not self._is_kept:
            return
        arguments = with_media(digest, with_local_files(job.arguments))
        content = json.dumps([endpoint, arguments], sort_keys=True)
        name = self._name(content)
        facts = self._facts.get(name, {})
        job.state = JobState(facts.get("state", JobState.NEW))
        job.request_id = facts.get("request_id")
        job.response = facts.get("result")
        if isinstance(facts.get("raw_result"), str):
            job.response = Raw(facts["raw_result"])
        units = as_number(facts.get("billable_units"))
        if job.state == JobState.DONE and job.request_id and units is not None:
            job.units[job.request_id] = units  # nobody asks fal about the job again
        if is_list_of_saved(facts.get("saved")):
            job.saved = facts["saved"]
        if job.state == JobState.SENT:
            job.sent_at = read_time(facts.get("at")) or time.time()
            job.uploads = read_uploads(facts.get("uploads"))
        topic = str(job.arguments.get("image_url") or job.arguments.get("prompt"))
        about = {"model": endpoint, "about": redact(topic)[:MAX_ABOUT]}

        def what_is_sent() -> Fields:
            uploads = {digest(source): url for source, url in job.uploads.items()}
            return {**about, "uploads": uploads} if uploads else about

        # Before the list of all jobs: what cannot be recorded here is not sent.
        job.records.insert(0, functools.partial(self._record, job, name, what_is_sent))

    def _name(self, content: str) -> str:
        """The name of the next job of this content; twins are told apart by their order."""
        digest = hashlib.sha256(content.encode()).hexdigest()[:32]
        self._twins[digest] += 1
        return f"{digest}-{self._twins[digest]}"

    def _record(
        self,
        job: Job,
        name: str,
        what_is_sent: Callable[[], Fields],
        state: str,
        **facts: Any,
    ) -> None:
        """Append a step of a job; a job that cannot be recorded is not sent. What failed is looked
        up again by the next run, and so not recorded.
        """
        assert self._steps
        if "error" in facts:
            return
        if state == JobState.SENT:
            facts = what_is_sent()
        else:
            facts.update(present(billable_units=job.billable_units))
        if isinstance(facts.get("result"), Raw):  # not to be read back as JSON
            facts = {"result": None, "raw_result": str(facts["result"])}
        try:
            self._steps.append({"job": name, "state": state, "at": utc_now(), **facts})
        except OSError as exc:
            message = f"the journal cannot be written to: {reason_of(exc)}"
            if state == JobState.SENT:
                raise Failure("journal_failed", f"{message}; the job was not sent") from exc
            note(message)


# The list of all jobs

LOCK_PATIENCE = 5.0  # seconds that a step waits for other commands' steps
MAX_HISTORY_BYTES = 19_500_000  # of the list; what is added to it then is far below the rest
HISTORY_BYTES_KEPT = 15_000_000  # once it has more
MAX_KEPT_RESPONSE = 64 * 1024  # bytes of JSON
MAX_ABOUT = 200  # characters
HISTORY_LEEWAY = 5.0  # seconds between a step of the journal's and the list's own
MAX_WORD = 4000  # characters of a response's text without a space: URLs are shorter, data longer

# What list-jobs calls the states that steps tell.
HISTORY_STATES: dict[str, str] = {
    JobState.SENT: "unknown",
    JobState.LOST: "unknown",
    JobState.ACCEPTED: "submitted",
    JobState.DONE: "done",
    JobState.REFUSED: "failed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
HISTORY_ENDS = ("done", "failed", "cancelled")


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


class History:
    """The list of all jobs that commands of this user have sent: a file of steps as a journal is,
    in the user's state folder. FAL_SKILL_HISTORY=0 keeps it from growing.

    A step is {"job", "state", "at"}, after sent with "model", "command" and "about", later with
    "request_id", "result", "saved", "billable_units" or "error". `job` is invented. A list that
    cannot be written to costs a note and nothing else.
    """

    # What a step may tell of a job, and what it must be to be believed.
    FACTS: Mapping[str, Callable[[Any], bool]] = {
        "model": is_text,
        "command": is_text,
        "about": is_text,
        "request_id": is_request_id,
        "saved": is_list_of_saved,
        "billable_units": is_bound,
        "error": is_object,
        "result": lambda value: True,
    }

    def __init__(self) -> None:
        self.command: str | None = None  # whose jobs are recorded; an importer's are not
        self._lines: dict[bytes, list[bytes]] | None = None  # of each job, by how they start
        self._facts_read: dict[bytes, Fields] = {}  # of the jobs that were asked for
        self._seconds_to_lock = LOCK_PATIENCE
        self._is_broken = False

    def attach(self, job: Job) -> None:
        """Record what becomes of a job from now on."""
        if self.command:
            job.records.append(JobRecord(self, job))

    @property
    def is_off(self) -> bool:
        return os.environ.get("FAL_SKILL_HISTORY", "").strip() == "0"

    def append(self, step: Fields) -> None:
        """Put a step on disk, if that can be done, whoever else appends to the list."""
        start = StepFile.START + step["job"].encode() + b'"'
        if start in self._facts_read:
            self._learn(self._facts_read[start], step)
        if self.is_off:
            return
        try:
            path = self._path()
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with contextlib.closing(StepFile(path, "list of jobs", is_shared=True)) as steps:
                steps.open(self._seconds_to_lock)
                steps.mend()
                steps.append(step)
                steps.drop_oldest(MAX_HISTORY_BYTES, HISTORY_BYTES_KEPT)
        except (OSError, Failure) as exc:
            self._seconds_to_lock = 0.0  # each job of a batch would wait as long
            if not self._is_broken:
                note(f"the job is not in the list of jobs: {reason_of(exc)}")
            self._is_broken = True

    def _path(self) -> str:
        folder = user_folder(STATE_FOLDER)
        if folder is None:
            raise usage_error("there is no home folder for the list of jobs")
        return os.path.join(folder, "jobs.jsonl")

    def jobs(self) -> Iterator[Fields]:
        """What is known of each job, the newest first; a usage error if the list cannot be read."""
        for start in reversed(self._read()):
            facts = self._facts(start)
            if "model" in facts:
                yield facts

    def find(self, request_id: str | None) -> Fields | None:
        """What is known of a job; None if the list does not know it, or cannot be read."""
        if request_id is None:
            return None
        fact = f'"request_id": "{request_id}"'.encode()
        try:
            jobs = self._read()
        except Failure as failure:
            note(failure.message)
            return None
        for start in reversed(jobs):
            if any(fact in line for line in jobs[start]):  # to parse all of them takes a second
                facts = self._facts(start)
                if "model" in facts and facts.get("request_id") == request_id:
                    return facts
        return None

    def has(self, request_id: str) -> bool:
        """Whether the list, as other commands have left it by now, has the id of a job."""
        fact = f'"request_id": "{request_id}"'.encode()
        try:
            lines = StepFile(self._path(), "list of jobs", is_shared=True).lines()
        except (OSError, Failure):  # there is none yet, or none that can be read
            return False
        return any(fact in line for line in lines)

    def find_unknown(self, model: str | None, about: str, sent_at: float) -> Fields | None:
        """What is known of a job without an id that was sent at about this time."""
        try:
            jobs = list(self._read())
        except Failure:
            return None
        for start in reversed(jobs):
            facts = self._facts(start)
            submitted_at = read_time(facts.get("submitted_at"))
            if submitted_at is None or "request_id" in facts:
                continue
            if submitted_at < sent_at - HISTORY_LEEWAY:
                return None
            is_same = (facts.get("model"), facts.get("about")) == (model, about)
            if is_same and submitted_at <= sent_at + HISTORY_LEEWAY:
                return facts
        return None

    def _read(self) -> dict[bytes, list[bytes]]:
        """The lines of each job, in the order in which the jobs were sent."""
        if self._lines is not None:
            return self._lines
        self._lines = {}
        path = self._path()
        if not os.path.lexists(path):
            return self._lines
        for line in StepFile(path, "list of jobs", is_shared=True).lines():
            if line.startswith(StepFile.START):
                self._lines.setdefault(start_of_step(line), []).append(line)
            else:
                self._say_damaged()
        return self._lines

    def _facts(self, start: bytes) -> Fields:
        """What the steps of a job tell of it, those of this command included."""
        if start in self._facts_read:
            return self._facts_read[start]
        facts = self._facts_read[start] = {}
        for line in self._read()[start]:
            step = json_or_none(line)
            if is_history_step(step):
                self._learn(facts, step)
            else:
                self._say_damaged()
        return facts

    def _say_damaged(self) -> None:
        note(f"lines of the list of jobs cannot be read, and are left out: {self._path()}")

    def _learn(self, facts: Fields, step: Fields) -> None:
        """Take in a step."""
        state = step["state"]
        if state == JobState.SENT:
            facts.setdefault("submitted_at", step["at"])
        if state == JobState.DONE:
            facts.pop("error", None)
        if HISTORY_STATES[state] not in HISTORY_ENDS:
            facts.pop("ended_at", None)
        elif facts.get("state") != state:
            facts["ended_at"] = step["at"]
        facts["job"] = step["job"]
        facts["state"] = state
        for name, is_fact in self.FACTS.items():
            if name in step and is_fact(step[name]):
                facts[name] = step[name]


def is_history_step(step: Any) -> bool:
    if not (is_object(step) and is_text(step.get("job")) and is_text(step.get("at"))):
        return False
    state = step.get("state")
    return isinstance(state, str) and state in HISTORY_STATES


class JobRecord:
    """What the list is told of one job, as a step each time."""

    def __init__(self, history: History, job: Job) -> None:
        self._history = history
        self._job = job
        self._name: str | None = None  # of the job in the list
        self._state = ""  # that the list knows

    def __call__(self, state: JobState, **facts: Any) -> None:
        if state == JobState.SENT:
            self._begin()
            facts = self._what_is_sent()
        elif self._name is None and not self._find():
            if state != JobState.ACCEPTED:
                return
            self._begin_again()
        if self._tells_nothing(state, facts):
            return
        self._state = state
        facts = self._without_files(facts)
        facts.update(present(billable_units=self._job.billable_units))
        if state != JobState.SENT and is_request_id(self._job.answer_id):
            facts["request_id"] = self._job.answer_id
        self._history.append({"job": self._name, "state": state, "at": utc_now(), **facts})

    def _begin(self) -> None:
        """Give the job a name in the list. A request that fal was too busy for is no job."""
        if self._state != JobState.REFUSED:
            self._name = f"{os.urandom(16).hex()}-1"

    def _find(self) -> bool:
        """Look up a job that this command has not sent; returns whether the list knows it."""
        facts = self._history.find(self._job.request_id)
        if facts is None:
            return False
        self._name = facts["job"]
        self._state = facts["state"]
        return True

    def _begin_again(self) -> None:
        """Have a place in the list for a job of an earlier run that was found on the account."""
        job = self._job
        sent = self._what_is_sent()
        unknown = self._history.find_unknown(job.endpoint, sent["about"], job.sent_at)
        if unknown is not None:
            self._name = unknown["job"]
            return
        self._begin()
        self._history.append({"job": self._name, "state": JobState.SENT, "at": utc_now(), **sent})

    def _tells_nothing(self, state: JobState, facts: Fields) -> bool:
        """Whether the list knows as much: commands may look at a job any number of times."""
        if state == JobState.LOST and self._state == JobState.DONE:
            return True
        if state != self._state:
            return False
        return state in (JobState.FAILED, JobState.LOST) or not facts

    def _without_files(self, facts: Fields) -> Fields:
        """The facts of a step with no more of files in them than the list keeps."""
        lean = dict(facts)
        if "error" in facts:
            message = without_data(facts["error"]["message"])
            lean["error"] = {**facts["error"], "message": message}
        if "result" in facts:
            lean["result"] = kept_response(facts["result"], self._job.arguments)
        return lean

    def _what_is_sent(self) -> Fields:
        return {
            "model": self._job.endpoint,
            "command": self._history.command,
            "about": topic_of(self._job.asked, self._job.arguments),
        }


def topic_of(asked: Arguments, arguments: Any) -> str:
    """The start of the prompt of a job, or else of the address of its picture."""
    return whole_topic_of(asked, arguments)[:MAX_ABOUT]


def whole_topic_of(asked: Arguments, arguments: Any) -> str:
    """The prompt of a job, or else the address of its picture."""
    texts = [
        asked.get("prompt"),
        descend(arguments, ["prompt"]),
        *as_list(asked.get("image_url")),
        next(media_sources(arguments), None),
    ]
    for text in texts:
        if is_text(text) and text.strip():
            return without_data(redact(text))
    return ""


def without_data(text: str) -> str:
    """The text with the heads of its data URIs alone."""
    uri = re.match(r"data:[^\s,]{0,200},", text, re.I)
    if uri is not None:  # whatever its data look like
        return f"{uri[0]}…"
    return re.sub(r"(data:[\w.+/;=-]{0,200},)[^\s\"'<>)]+", r"\1…", text, flags=re.I)


def kept_response(response: Any, arguments: Arguments) -> Any:
    """What the list keeps of a response: no picture that is in it, and of a large one no more than
    the addresses of its files.
    """
    if isinstance(response, Raw):
        return {"left_out": "a response that cannot be read"}
    kept = without_pictures(response)
    size = bytes_as_json(kept)
    if size <= MAX_KEPT_RESPONSE:
        return kept
    files = [
        present(
            url=media.short_url(), content_type=media.content_type or None, file_name=media.name
        )
        for media in new_media(response, arguments)
    ]
    mark = {"left_out": f"all of {size} bytes but the files' addresses", "files": files}
    while bytes_as_json(mark) > MAX_KEPT_RESPONSE:
        del files[len(files) // 2 :]
    return mark


def without_pictures(value: Any) -> Any:
    """A response with the heads alone of what is a file and no address."""
    if isinstance(value, Mapping):
        return {name: without_pictures(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_pictures(item) for item in value]
    if isinstance(value, bytes):
        return f"data:{media_type(value[:HEAD_BYTES]) or BINARY};base64,…"
    if not isinstance(value, str):
        return value
    text = without_data(value)
    if len(text) > MAX_WORD and not re.search(r"\s", text):
        return f"{redact(text)[:40]}…"  # no half of a key, which nobody would know again
    return text


def bytes_as_json(value: Any) -> int:
    return len(json_text(value).encode(errors="backslashreplace"))


def job_document(facts: Fields) -> Fields:
    """What list-jobs tells of a job."""
    names = ("request_id", "model", "command", "submitted_at", "ended_at", "about")
    document = {name: facts.get(name) for name in names}
    _, files = facts.get("saved") or ("", [])
    return {
        **document,
        "state": HISTORY_STATES[facts["state"]],
        "files": files,
        "billable_units": facts.get("billable_units"),
        "error": facts.get("error"),
        "result": facts.get("result"),
    }


def matches(job: Fields, model: str | None, words: str) -> bool:
    """Whether a job is of the model and has all the words."""
    endpoint = job.get("model")
    if model is not None and not f"{endpoint}/".startswith(f"{model}/"):
        return False
    text = f"{job.get('about')} {endpoint} {job.get('request_id')}".lower()
    return all(word in text for word in words.lower().split())


# ---------------------------------------------------------------------------------------------
# Files to send: written whole or not at all, pictures read, files uploaded.
# ---------------------------------------------------------------------------------------------


class UserFolder(NamedTuple):
    """A folder of the program's own: the variable that names its place, and the usual places."""

    variable: str
    macos: str
    elsewhere: str


CACHE_FOLDER = UserFolder("XDG_CACHE_HOME", "~/Library/Caches", "~/.cache")
STATE_FOLDER = UserFolder("XDG_STATE_HOME", "~/Library/Application Support", "~/.local/state")

FILE_FACTS = ("content_type", "file_name", "file_size")  # what fal tells beside a file's URL
MAX_COUNT = 1_000_000  # of files with one name
MAX_KEY = 200  # characters of a key that are looked at


def user_folder(folder: UserFolder) -> str | None:
    """Where a folder of the program's own is, or could be made; None without a home."""
    places = {"darwin": folder.macos, "win32": os.environ.get("LOCALAPPDATA", "~")}
    place = os.environ.get(folder.variable) or places.get(sys.platform, folder.elsewhere)
    path = os.path.expanduser(place)
    if not os.path.isabs(path):  # the standard has relative ones ignored; `~` is no folder
        return None
    if place.startswith("~") and not os.path.isdir(os.path.expanduser("~")):
        return None
    return os.path.join(path, "fal-skill")


class PartFile:
    """A file that gets its name only when it is complete; until then it has a hidden one, in the
    folder that it is made for, and is deleted when the block ends.

    Of what is in it, `size` is the number of bytes and `head` the first of them. A disk that
    takes no more raises OSError.
    """

    def __init__(self, folder: str, mode: int = 0o666) -> None:
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, f".{os.urandom(8).hex()}.part")
        opener = functools.partial(os.open, mode=mode)
        self._file = open(self._path, "xb", opener=opener)  # noqa: SIM115
        self.size = 0
        self.head = b""

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, where closing writes what is left
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def write(self, chunk: bytes) -> None:
        self.head += chunk[: HEAD_BYTES - len(self.head)]
        self.size += len(chunk)
        self._file.write(chunk)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self.head = b""

    def finish(self, sync: bool = False) -> None:
        """Hand what is still in memory to the system, or to the disk: all of it, or this fails."""
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def rename(self, path: str) -> None:
        """Give a finished file its name; a link of that name is replaced, not followed."""
        try:
            os.replace(self._path, path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            self._copy(path)

    def _copy(self, path: str) -> None:
        """Get to another disk, as whole as here."""
        with open(self._path, "rb") as file, PartFile(os.path.dirname(path)) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.finish()
            copy.rename(path)


class FileSource(str):
    """What names a file in an argument, whatever the argument's name."""


class LocalFile(FileSource):
    """The path of a file that is to be uploaded."""


class RemoteFile(FileSource):
    """The URL of a file, or its data URI."""


def is_remote(source: str) -> bool:
    return re.match(r"https?://|data:", source, re.I) is not None


def local_path(source: str) -> str:
    """The path that a source names, be it written as a file: URL. One that names no file may be as
    a terminal, a file manager or an editor has put it.
    """
    spellings = [source]
    if not is_remote(source) and len(source) < MAX_REFERENCE:
        spellings = spellings_of_path(source)
    for spelling in spellings:
        path = path_of_url(spelling)
        if os.path.lexists(os.path.expanduser(path)):
            return path
    return path_of_url(source)


def path_of_url(source: str) -> str:
    """A path, be it written as a file: URL."""
    url = re.fullmatch(r"file:(?://(?:localhost)?)?(/.*)", source, re.I)
    if url is None:
        return source
    return urllib.parse.unquote(url[1])


def spellings_of_path(source: str) -> list[str]:
    """The path as it is; without white space and what is not seen around it, as Windows copies it;
    without PowerShell's `&` before it and quotes; without backslashes before characters, or with
    them between folders; with letters and their accents as one or as two, as macOS has them.
    """
    bare = re.sub(rf"^[\s{NOT_SEEN}]+|[\s{NOT_SEEN}]+$", "", source)
    outer = re.sub(r"^& +", "", bare)
    inner = without_quotes(outer)
    spellings = [source, bare, inner, inner.strip()]
    with contextlib.suppress(ValueError):  # a quote without its match
        words = shlex.split(outer)
        if len(words) == 1:
            spellings += words
    spellings += [re.sub(r"\\(.)", r"\1", inner), inner.replace("\\", "/")]
    return spellings + [unicodedata.normalize(form, inner) for form in ("NFC", "NFD")]


def without_quotes(text: str) -> str:
    """The text without the one pair of quotes that it stands in."""
    if len(text) >= 2 and text[-1] in QUOTES.get(text[0], ""):
        return text[1:-1]
    return text


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Let what the disk does not give leave as a Failure that names the file."""
    try:
        yield
    except OSError as exc:
        raise cannot_read(path, exc) from exc


def open_regular_file(path: str) -> IO[bytes]:
    """A file of a disk to read; a pipe or a device, which may have no end, is a usage error."""
    with reading(path):
        file = open(path, "rb", opener=open_at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise usage_error(f"not a file: {path}")
    return file


def open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody who writes into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows has not


def proven_type(head: bytes) -> FileType | None:
    """What the first bytes of a file prove it to be: a type or a family."""
    for file_type in FILE_TYPES:
        if file_type.signature and re.match(file_type.signature, head, re.DOTALL):
            return file_type
    return None


def type_called(content_type: str) -> FileType | None:
    """The row of a content type, however it is written; None for one that says nothing."""
    name = content_type.partition(";")[0].strip().lower()
    plain = name.replace("/x-", "/")
    for spelling in (name, plain, plain.replace("/", "/x-")):
        row = row_of_type(TYPE_NAMES.get(spelling, spelling))
        if row is not None:
            return row
    return None


def row_of_type(content_type: str) -> FileType | None:
    """The row that is called just so; None if there is none."""
    for file_type in FILE_TYPES:
        if file_type.content_type == content_type:
            return file_type
    return None


def type_named(name: str) -> FileType | None:
    """The row that the extension of a file's name stands in."""
    _, dot, ending = name.rpartition(".")
    extension = dot + ending.lower()
    for file_type in FILE_TYPES:
        if extension in file_type.extensions.split():
            return file_type
    return None


def is_within(narrow: FileType, wide: FileType) -> bool:
    """Whether all that the narrow type tells of a file is true if it is of the wide one, too."""
    outer = row_of_type(narrow.within)
    while outer is not None:
        if outer == wide:
            return True
        outer = row_of_type(outer.within)
    return False


def file_types(
    head: bytes, content_types: Iterable[str] = (), names: Iterable[str] = ()
) -> list[FileType]:
    """What a file is, from the widest type to the narrowest; nothing if nobody knows.

    What its first bytes prove comes first, then what it is said to be, then how it is called, in
    the order of who knows best. Each claim counts as far as it is narrower than those before it.
    """
    claims = [proven_type(head), *map(type_called, content_types), *map(type_named, names)]
    believed: list[FileType] = []
    for claim in claims:
        if claim is None or (claim.content_type == TEXT and has_binary(head)):
            continue
        if not believed or is_within(claim, believed[-1]):
            believed.append(claim)
    if believed and believed[-1].content_type in FAMILIES:
        usual = type_called(FAMILIES[believed[-1].content_type])
        assert usual
        believed.append(usual)
    return believed


def has_binary(head: bytes) -> bool:
    """Whether no text starts so, be it in UTF-16."""
    marks = (BYTE_ORDER_MARKS["utf-16-le"], BYTE_ORDER_MARKS["utf-16-be"])
    return b"\0" in head and not head.startswith(marks)


def content_type_for(head: bytes, name: str = "") -> str:
    """The content type of a file of that name; of an empty one nothing is known."""
    if not head:
        return BINARY
    types = file_types(head, names=[name])
    if not types:
        return BINARY
    return types[-1].content_type


def media_type(head: bytes) -> str | None:
    """The content type of a picture, a clip or a sound, if the first bytes prove it to be one."""
    content_type = content_type_for(head)
    if content_type == SVG:  # a text, which may hold anything
        return None
    if not content_type.startswith(("image/", "video/", "audio/")):
        return None
    return content_type


def portable_name(path: str) -> str:
    """A file name that a header can carry: fal-client 1.0.3 fails on any that is not ASCII."""
    name = re.sub(r"[^\w.-]+", "_", os.path.basename(path), flags=re.ASCII)
    return name.lstrip(".") or "file"


def read_bytes(path: str) -> bytes:
    """The bytes of a file, or of stdin for `-`."""
    with reading(path), open_bytes(path) as file:
        return file.read()


def open_bytes(path: str) -> IO[bytes]:
    """A file to read and to seek in; stdin, for `-`, or a pipe by way of a temporary one."""
    if path == "-":
        return copied_to_disk(path, stdin_bytes())
    with reading(path):
        file = open(path, "rb")  # noqa: SIM115
    if file.seekable():
        return file
    with file:
        return copied_to_disk(path, file)


def stdin_bytes() -> IO[bytes]:
    if sys.stdin is None:
        raise usage_error("stdin is closed: there is nothing to read")
    return sys.stdin.buffer


def copied_to_disk(path: str, source: IO[bytes]) -> IO[bytes]:
    """A temporary file of all that can be read."""
    file = tempfile.TemporaryFile()
    with reading(path):
        shutil.copyfileobj(source, file, 1 << 20)
    file.seek(0)
    return file


@contextlib.contextmanager
def file_for_fal_client(path: str) -> Iterator[Any]:
    """The path of a file under a name that a header can carry, of which fal-client can tell what
    it is; of what has another name, or is a pipe, that of a copy.
    """
    name = portable_name(path)
    with contextlib.ExitStack() as stack:
        if name != os.path.basename(path) or not os.path.isfile(path):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            with reading(path), open(path, "rb") as source, open(f"{folder}/{name}", "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            path = f"{folder}/{name}"
        stack.enter_context(reading(path))
        with open(path, "rb") as file:
            content_type = content_type_for(file.read(HEAD_BYTES), name)
        stack.enter_context(type_by_name(name, content_type))
        yield path


@contextlib.contextmanager
def type_by_name(name: str, content_type: str) -> Iterator[None]:
    """Have Python's mimetypes tell a content type of a name: fal-client 1.0.3 goes by them, and
    they go by the machine's own tables.
    """
    mimetypes.init()
    extension = os.path.splitext(name)[1].lower()
    types, encodings = mimetypes.types_map, mimetypes.encodings_map
    saved_types, saved_encodings = dict(types), dict(encodings)
    encodings.pop(extension, None)
    types[extension] = content_type
    try:
        yield
    finally:
        for table, saved in ((types, saved_types), (encodings, saved_encodings)):
            table.clear()
            table.update(saved)


class MediaFile(NamedTuple):
    """A local file to be sent: what was checked is what is sent. The digest is that of the file
    as it is on the disk, of which the content may be a copy that is made for sending.
    """

    content: bytes
    content_type: str
    digest: str
    name: str


# The content types that are proven of what was read to its end, by digest: each content is read
# once.
TYPES_READ: dict[str, str] = {}


def open_media_file(path: str) -> MediaFile:
    """A picture, a clip or a sound, which is media to its end and not by its first bytes alone."""
    path = home_path(local_path(path))
    with reading(path), open_regular_file(path) as file:
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    is_new = digest not in TYPES_READ
    if is_new:
        TYPES_READ[digest] = read_to_the_end(path, content)
    name = portable_name(path)
    content_type = content_type_for(content[:HEAD_BYTES], name)
    copy = copy_for_sending(path, content, TYPES_READ[digest], is_new)
    if copy is not None:
        content, content_type = copy
        extension = content_type.rpartition("/")[2].replace("jpeg", "jpg")
        name = f"{os.path.splitext(name)[0]}.{extension}"
    return MediaFile(content, content_type, digest, name)


# Formats of pictures that most models read.
COMMON_FORMATS = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif")
ORIENTATION, GPS = 0x0112, 0x8825  # EXIF's numbers
UPRIGHT = 1
MAX_EXIF = 65_000  # bytes that JPEG has room for


def copy_for_sending(
    path: str, content: bytes, content_type: str, is_told: bool
) -> tuple[bytes, str] | None:
    """A copy of a picture that lies on its side, or tells where it was taken, or that no model
    may read: upright, without the place, as JPEG. None for what is sent byte for byte.
    """
    if not readable_formats(content_type):
        if is_told and is_rare_format(content_type):
            say_rare_format(path, content_type)
        return None
    with picture(path, io.BytesIO(content)) as image:
        changes = changes_for_sending(image, content_type)
        if is_told and is_rare_format(content_type) and content_type != "image/heic":
            say_rare_format(path, content_type)
        if not changes:
            return None
        if has_frames(image):
            if is_told:
                note(f"{path}: an animation is sent as it is, with what it tells of its place")
            return None
        if is_told:
            note(f"{path}: {', '.join(changes)}")
        return upright_copy(path, image, content_type, is_told)


def changes_for_sending(image: Image.Image, content_type: str) -> list[str]:
    """What is to be told of the copy that is sent; nothing if none is needed."""
    changes = []
    if content_type == "image/heic":
        changes.append("sent as JPEG")
    if orientation_of(image) != UPRIGHT:
        changes.append("turned upright")
    if tells_place(image):
        changes.append("sent without the place where it was taken")
    return changes


def orientation_of(image: Image.Image) -> int:
    """EXIF's number for how a picture lies; whatever is none counts as upright."""
    orientation = image.getexif().get(ORIENTATION)
    if isinstance(orientation, int) and 2 <= orientation <= 8:
        return orientation
    return UPRIGHT


def is_rare_format(content_type: str) -> bool:
    """Whether it is one of pictures that not every model reads."""
    return content_type.startswith("image/") and content_type not in COMMON_FORMATS


def say_rare_format(path: str, content_type: str) -> None:
    help_text = ""
    if content_type == "image/heic":
        help_text = ", and it may tell where it was taken; with pillow-heif it is sent as JPEG"
    name = re.split("[/.-]", content_type)[-1].upper()
    note(f"{path}: only some models read {name}{help_text}")


def tells_place(image: Image.Image) -> bool:
    """Whether a picture holds the place where it was taken, in EXIF or in XMP."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return bool(image.getexif().get_ifd(GPS)) or b"exif:GPS" in xmp


def has_frames(image: Image.Image) -> bool:
    return getattr(image, "n_frames", 1) > 1 and image.format != "MPO"


def upright_copy(
    path: str, image: Image.Image, content_type: str, is_told: bool
) -> tuple[bytes, str]:
    """A picture as its EXIF orientation means it, with its colours and without its place."""
    image_format = str(image.format)
    if image_format not in PICTURE_ROOMS:  # MPO, HEIF
        image_format, content_type = "JPEG", "image/jpeg"
    keywords = present(dpi=image.info.get("dpi"))
    if image_format in ("JPEG", "WEBP"):
        keywords["quality"] = 95
    upright = upright_picture(image)
    exif = upright.getexif()
    for number in (ORIENTATION, GPS):
        if number in exif:
            del exif[number]
    exif_bytes = exif.tobytes()
    if len(exif_bytes) <= MAX_EXIF:
        keywords["exif"] = exif_bytes
    return encoded_picture(path, upright, image_format, is_told, **keywords), content_type


# Numbers of TIFF's tags, and the value of the latter by which the least number is white.
BITS, PHOTOMETRIC, WHITE_IS_LEAST = 258, 262, 0


def upright_picture(image: Image.Image) -> Image.Image:
    """A picture as its EXIF orientation means it, and with greys of 16 bits as its file means them:
    Pillow 13.0 reads a TIFF that counts from white, or in 12 bits, as if it did not.
    """
    upright = ImageOps.exif_transpose(image)
    tags = getattr(image, "tag_v2", {})
    if upright.mode == "I;16" and tags.get(BITS) == (12,):
        upright = upright.convert("I").point(lambda grey: grey * (65_535 / 4095) + 0.5)
        upright = upright.convert("I;16")
    if upright.mode == "I;16" and tags.get(PHOTOMETRIC) == WHITE_IS_LEAST:
        upright = upright.convert("I").point(lambda grey: grey * -1 + 65_535).convert("I;16")
    return upright


def encoded_picture(
    path: str, image: Image.Image, image_format: str, is_told: bool, **keywords: Any
) -> bytes:
    """A picture in a format, with what it tells of its colours, and of itself what is given."""
    check_size(path, image, image_format)
    fitted, losses = in_mode_for(image, image_format)
    if is_told:
        for loss in losses:
            note(f"{path}: {loss}")
    profile = image.info.get("icc_profile")
    if is_profile_for(profile, image) and is_profile_for(profile, fitted):
        keywords["icc_profile"] = profile
    for name in ("icc_profile", "exif", "xmp", "XML:com.adobe.xmp", "dpi"):
        fitted.info.pop(name, None)  # which some of Pillow's writers would take
    buffer = io.BytesIO()
    try:
        fitted.save(buffer, image_format, **keywords)
    except Exception as exc:  # Pillow's writers raise anything over what a format has no room for
        message = f"the picture cannot be made {image_format}: {path}: {reason_of(exc)}"
        raise usage_error(message, "Convert it to another format.") from exc
    return buffer.getvalue()


def check_size(path: str, image: Image.Image, image_format: str) -> None:
    """Refuse a picture that a format has no room for."""
    side = max(image.size)
    limit = PICTURE_ROOMS[image_format].max_side
    if side <= limit:
        return
    others = []
    for name in ("jpeg", "png", "webp"):
        if side <= PICTURE_ROOMS[name.upper()].max_side:
            others.append(f"--format {name}")
    message = (
        f"{image_format} holds {limit} pixels a side at most, and the picture has {image.width} x"
        f" {image.height}: {path}"
    )
    raise usage_error(message, f"Make it smaller, or take {' or '.join(others)}.")


def is_profile_for(profile: Any, image: Image.Image) -> bool:
    """Whether a colour profile is one of the colours that the picture's mode has."""
    if not isinstance(profile, bytes) or len(profile) <= PROFILE_HEAD_BYTES:
        return False
    return profile[16:20] == PROFILE_SPACES.get(image.mode)


def in_mode_for(image: Image.Image, image_format: str) -> tuple[Image.Image, list[str]]:
    """A picture in a mode that a format has room for, and what it loses by that: transparency, or
    the scale of greys that have none of their own.
    """
    losses: list[str] = []
    room = PICTURE_ROOMS[image_format]
    if is_held(image, room):
        return image, losses
    image = in_known_mode(image)
    if image.mode in DEEP_MODES:
        low, high = range_of_greys(image)
        white = white_of(room)
        if image.mode != "I;16":
            losses.append(f"its greys from {low:g} to {high:g} become 0 to {white}")
        image = scaled_greys(image, low, high, white)
    if image.has_transparency_data and not is_held(image, room):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA") and "RGBA" not in room.modes:
        if not is_opaque(image):
            losses.append(f"{image_format} has no transparency: the picture is laid on white")
            image = on_white(image)
        return image.convert("RGB"), losses
    return image.convert(mode_in_room(image.mode, room)), losses


def in_known_mode(image: Image.Image) -> Image.Image:
    """A picture in a mode of the tables, as near to its own as there is."""
    if image.mode.startswith("I;16"):
        return image.convert("I").convert("I;16")  # whatever the order of its bytes
    if image.mode in WIDER_MODES or image.mode in DEEP_MODES:
        return image
    return image.convert(PLAIN_MODES.get(image.mode, "RGB"))


def mode_in_room(mode: str, room: PictureRoom) -> str:
    """The smallest mode of a format's that holds a picture of a mode; RGB if none does."""
    for wider in WIDER_MODES[mode]:
        if wider in room.modes:
            return wider
    return "RGB"


def white_of(room: PictureRoom) -> int:
    """The lightest grey that a format has room for."""
    if "I;16" in room.modes:
        return WHITE_OF_16_BITS
    return WHITE_OF_8_BITS


def is_opaque(image: Image.Image) -> bool:
    """Whether a picture could be transparent, and is so nowhere."""
    return image.getchannel("A").getextrema() == (255, 255)


def is_held(image: Image.Image, room: PictureRoom) -> bool:
    """Whether a format has room for a picture as it is."""
    if image.mode not in room.modes:
        return False
    has_alpha = image.mode in ("LA", "PA", "RGBA")
    return has_alpha or room.has_clear_colour or not image.has_transparency_data


def range_of_greys(image: Image.Image) -> tuple[float, float]:
    """The darkest and the lightest grey that 16 bits have; of 32, which have no fixed scale, those
    of the picture. Greys without a number or an end do not count.
    """
    if image.mode == "I;16":
        return 0.0, float(WHITE_OF_16_BITS)
    extrema: Any = image.getextrema()
    if all(map(math.isfinite, extrema)):
        return extrema[0], extrema[1]
    greys = memoryview(image.tobytes()).cast("f")
    low = min(filter(math.isfinite, greys), default=0.0)
    high = max(filter(math.isfinite, greys), default=0.0)
    return low, high


def scaled_greys(image: Image.Image, low: float, high: float, white: int) -> Image.Image:
    """The greys between these two as those from 0 to white, in 8 bits or in 16."""
    clear_grey = image.info.get("transparency")
    if image.mode == "I;16":
        image = image.convert("I")
    factor = white / ((high - low) or 1.0)
    offset = -low * factor
    if image.mode == "I":
        offset += 0.5  # it is cut to a whole number
    greys = image.point(lambda grey: grey * factor + offset)
    if white == WHITE_OF_16_BITS:
        whole = greys.convert("I")
        if image.mode == "F":  # what is endless became the least whole number
            whole.paste(white, mask=image.point(lambda grey: grey * 1 - high).convert("L"))
        return whole.convert("I;16")
    greys = greys.convert("L")
    if not isinstance(clear_grey, int):
        return greys
    return Image.merge("LA", (greys, mask_without(image, clear_grey)))


def mask_without(image: Image.Image, grey: int) -> Image.Image:
    """A mask that is clear where a picture of whole numbers has that grey, and opaque elsewhere.

    Of such pictures Pillow takes no functions but those that multiply and add, and cuts what is
    below 0 or above 255 when it makes 8 bits of them.
    """
    above = image.point(lambda value: value - grey).convert("L")
    below = image.point(lambda value: value * -1 + grey).convert("L")
    difference = ImageChops.lighter(above, below)
    return difference.point([0, *[255] * 255])


def read_to_the_end(path: str, content: bytes) -> str:
    """The content type of a file that is what its first bytes say; else a usage error."""
    content_type = media_type(content[:HEAD_BYTES])
    if content_type is None:
        raise usage_error(f"not a media file: {path}", NOT_MEDIA_HINT)
    if b"PRIVATE KEY-----" in content:
        raise usage_error(f"a private key stands in the file: {path}")
    if readable_formats(content_type):
        with picture(path, io.BytesIO(content)) as image:
            image.load()
        if is_mostly_text(behind_the_end(content_type, content), at_least=8):
            raise usage_error(f"text stands behind the picture: {path}")
    elif is_mostly_text(content[MARK_BYTES:]) and not is_silent(content):
        raise usage_error(f"not a media file, but text behind the start of one: {path}")
    return content_type


def behind_the_end(content_type: str, content: bytes) -> bytes:
    """What follows a picture in its file; Pillow does not look at it."""
    if content_type in PICTURE_ENDS:
        mark, length = PICTURE_ENDS[content_type]
        return content[content.rfind(mark) + length :]
    if content_type == "image/webp":
        return content[int.from_bytes(content[4:8], "little") + 8 :]
    if content_type == "image/bmp":
        return content[int.from_bytes(content[2:6], "little") or len(content) :]
    return b""


def is_mostly_text(content: bytes, at_least: int = 1) -> bool:
    """Whether nearly all of it is text, zeros and such aside, of so many bytes at least."""
    rest = content.replace(b"\0", b"").replace(b"\xff", b"").strip()
    if len(rest) < at_least:
        return False
    others = rest.translate(None, delete=TEXT_BYTES)
    controls = others.translate(None, delete=bytes(range(0x80, 0x100)))
    is_in_ascii = len(others) * 20 < len(rest)
    return is_in_ascii or (len(controls) * 20 < len(rest) and is_utf8(rest))


def is_silent(content: bytes) -> bool:
    """Whether there is nothing but zeros behind a head, as in a sound that has no sound."""
    return len(content.replace(b"\0", b"")) < min(HEAD_OF_SOUND, len(content) // 8)


def is_utf8(content: bytes) -> bool:
    """Whether bytes are text of any script, but for a character that their start has cut."""
    try:
        content.lstrip(bytes(range(0x80, 0xC0))).decode()
    except UnicodeDecodeError:
        return False
    return True


def readable_formats(content_type: str | None) -> list[str]:
    """Pillow's names of the formats of a content type, as far as this Pillow has them."""
    names = PICTURE_FORMATS.get(content_type or "", ())
    if content_type == "image/heic":
        with contextlib.suppress(ImportError):  # an extra that users install
            pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in names if name in Image.OPEN]


@contextlib.contextmanager
def picture(path: str, file: IO[bytes]) -> Iterator[Image.Image]:
    """A picture of one of the formats that are meant: Pillow reads others by starting programs.

    Whatever Pillow raises over it is a usage error: its readers raise anything over a broken file.
    """
    try:
        formats = readable_formats(media_type(file.read(HEAD_BYTES)))
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture that is odd is no news; a broken one raises
            image = Image.open(file, formats=formats)
            if image.width * image.height > MAX_PIXELS:
                raise usage_error(f"the picture has more than {MAX_PIXELS} pixels: {path}")
            yield image
    except (ImportError, MemoryError, Failure):
        raise
    except PIL.UnidentifiedImageError as exc:
        raise usage_error(f"not a picture that Pillow can read: {path}") from exc
    except Exception as exc:
        if not isinstance(exc, OSError) and not is_raised_by(PICTURE_READERS, exc):
            raise  # a bug of ours, which keeps its traceback
        message = f"not a picture that Pillow can read: {path}: {reason_of(exc)}"
        raise machine_failure(exc) or usage_error(message) from exc


class ConvertedPicture:
    """What fal-client saves as if it were a picture of Pillow's: one in its new format already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def save(self, file: IO[bytes], **_: Any) -> None:
        file.write(self._content)


def converted_picture(path: str, format_name: str) -> tuple[Any, str]:
    """A picture upright as its EXIF orientation says, in another format, and fal-client's name of
    that.
    """
    image_format = {"jpg": "JPEG"}.get(format_name, format_name.upper())
    with open_regular_file(path) as file, picture(path, file) as image:
        check_size(path, image, image_format)
        if has_frames(image):
            note(f"{path}: only the first of its pictures is converted")
        upright = upright_picture(image)
        content = encoded_picture(path, upright, image_format, is_told=True)
    return ConvertedPicture(content), image_format.lower()


def on_white(image: Image.Image) -> Image.Image:
    """A picture with white where it is transparent."""
    background = Image.new("RGBA", image.size, "white")
    foreground = image.convert("RGBA")
    return Image.alpha_composite(background, foreground)


# Uploading


class Parts:
    """What fal-client cuts into parts as if it were bytes: a file, each part read in its turn."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        with reading(path):
            self._size = file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        gc.collect()  # httpx leaves the parts that were sent in reference cycles
        start, stop, _ = part.indices(self._size)
        with reading(self._path):
            self._file.seek(start)
            return self._file.read(stop - start)

    def whole_or_parts(self) -> Any:
        """What fal-client takes: bytes, unless there are so many that it cuts them."""
        if len(self) > fal_client.client.MULTIPART_THRESHOLD:
            return self
        return self[:]


async def uploaded(upload: Callable[..., Awaitable[str]], *content: Any) -> str:
    """The URL of what one of fal-client's functions uploads."""
    async with fal_session(Job()):
        url = await upload(*content, **NO_FALLBACK)
        if not is_whole_url(url) or not url.isascii():
            shown = redact(str(url))[:80]
            raise Failure("unexpected_answer", f"fal gave no URL for the upload: {shown}")
        return url


async def _maybe_upload(source: str, digest: str | None = None) -> str:
    """A URL for a media file: a local one is uploaded, anything else is a URL already.

    A file whose content has not the digest any longer is not sent.
    """
    if is_remote(source):
        return source
    file = open_media_file(source)
    if digest not in (None, file.digest):
        raise usage_error(f"the file has changed since the command began: {source}")
    return await uploaded(fal_client.upload_async, file.content, file.content_type, file.name)


def source_key(source: str) -> str:
    """The same for all ways of naming a file."""
    if is_remote(source):
        return source
    return os.path.realpath(os.path.expanduser(local_path(source)))


def has_failed(task: asyncio.Task[str]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


class Uploads:
    """Uploads each local picture once, however many jobs name it, as it was when a journal's name
    for its job was made of it. What failed for one job is tried again for the next.
    """

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}  # by what names a file
        self._under_way: dict[tuple[str, str | None], asyncio.Task[str]] = {}  # by file and digest

    def digest(self, source: str) -> str:
        """The same for the same picture, whatever its name."""
        if is_remote(source):
            return source
        if source not in self._digests:
            self._digests[source] = open_media_file(source).digest
        return f"sha256:{self._digests[source]}"

    async def url(self, source: str) -> str:
        digest = self._digests.get(source)
        key = (source_key(source), digest)
        if key not in self._under_way or has_failed(self._under_way[key]):
            # A task of its own: its session must not be the one of what the job sends. All jobs
            # are stopped at once, and then it is, too.
            self._under_way[key] = asyncio.ensure_future(_maybe_upload(source, digest))
        return await self._under_way[key]

    async def urls(self, sources: Sequence[str]) -> dict[str, str]:
        """The URL of each of these local files."""
        uploaded_urls = await asyncio.gather(*map(self.url, sources))
        return dict(zip(sources, uploaded_urls, strict=True))


def with_urls(urls: Mapping[str, str], arguments: Arguments) -> Fields:
    """The arguments with a URL in place of each local file that they name."""
    return dict(with_media(lambda source: urls.get(source, source), arguments))


# ---------------------------------------------------------------------------------------------
# Files in answers: what JSON names and holds, and where the user wants it.
# ---------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """A value that holds no others, and where in some JSON it stands.

    What holds others is one on the way. A path is made when it is asked for: to have it for each
    level would take the square of the depth.
    """

    outer: Leaf | None  # what holds it
    key: Any  # or the index, under which it is held
    name: str  # the last key on the way that is no index
    value: Any
    around: Mapping[Any, Any]  # the mapping that holds it, by way of lists perhaps

    @property
    def path(self) -> list[Any]:
        """The keys and indexes that lead to it."""
        path = []
        node = self
        while node.outer is not None:
            path.append(node.key)
            node = node.outer
        path.reverse()
        return path

    @property
    def field(self) -> str:
        """The way to it as one text, of long keys their ends."""
        return ".".join(str(key)[-MAX_KEY:] for key in self.path)


def leaves(value: Any) -> Iterator[Leaf]:
    """Every leaf of a value, in order and at any depth, without recursion."""
    levels = [
        iter(
            [
                Leaf(
                    None,
                    None,
                    "",
                    value,
                    {},
                )
            ]
        )
    ]
    while levels:
        for node in levels[-1]:
            if isinstance(node.value, (Mapping, list, tuple)):
                levels.append(children(node))
                break
            yield node
        else:
            levels.pop()


def children(node: Leaf) -> Iterator[Leaf]:
    """What a mapping or a list holds, be it leaves or not."""
    if isinstance(node.value, Mapping):
        for key, item in node.value.items():
            yield Leaf(
                node,
                key,
                str(key),
                item,
                around=node.value,
            )
    else:
        for index, item in enumerate(node.value):
            yield Leaf(
                node,
                index,
                node.name,
                item,
                around=node.around,
            )


def is_media_source(name: str, value: Any) -> bool:
    """Whether an argument of that name is a media file to be sent: a path or a URL."""
    if isinstance(value, FileSource):
        return True
    return isinstance(value, str) and value != "" and name.endswith(("_url", "_urls"))


def media_sources(arguments: Any) -> Iterator[str]:
    """All that the *_url and *_urls fields of arguments name, at any depth."""
    for leaf in leaves(arguments):
        if is_media_source(leaf.name, leaf.value):
            yield leaf.value


def local_media(arguments: Any) -> list[str]:
    """Each local file among them once."""
    sources = [source for source in media_sources(arguments) if not is_remote(source)]
    return list(dict.fromkeys(sources))


def with_media(change: Callable[[str], Any], value: Any, name: str = "") -> Any:
    """The arguments with a change made to each of their media sources."""
    if isinstance(value, Mapping):
        return {key: with_media(change, item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_media(change, item, name) for item in value]
    if is_media_source(name, value):
        return change(value)
    return value


def with_local_files(asked: Arguments) -> Fields:
    """What the flags ask, with each value of --arg that is the name of a media file as a file."""
    marked = dict(asked)
    if "arg" in marked:
        marked["arg"] = {name: marked_files(value) for name, value in marked["arg"].items()}
    return marked


def marked_files(value: Any) -> Any:
    if isinstance(value, list):
        return [marked_files(item) for item in value]
    if isinstance(value, str) and is_media_file(value):
        return LocalFile(local_path(value))
    return value


def is_media_file(source: str) -> bool:
    """Whether it is the name of a file that starts as media do."""
    if is_remote(source) or not 0 < len(source) < MAX_REFERENCE:
        return False
    try:
        path = home_path(local_path(source))
        with reading(path), open_regular_file(path) as file:
            return media_type(file.read(HEAD_BYTES)) is not None
    except (Failure, ValueError):  # no such file; a null character
        return False


class Media(NamedTuple):
    """A file of a response: where it stands there, its URL or its bytes, and what is told of it."""

    field: str
    source: str | bytes
    content_type: str  # empty if it is not told
    name: str

    @property
    def is_called_a_page(self) -> bool:
        page = type_called(PAGE)
        return page in (type_called(self.content_type), type_named(self.name))

    @property
    def is_data(self) -> bool:
        return isinstance(self.source, bytes) or self.source[:5].lower() == "data:"

    def short_url(self, content_type: str = BINARY) -> str:
        """The URL, or the head of a data URI without the data."""
        if isinstance(self.source, bytes):
            return f"data:{content_type};base64,…"
        if self.is_data:
            header = self.source.partition(",")[0]
            return f"{cut(header, 100)},…"
        return self.source


def find_media(response: Any) -> Iterator[Media]:
    """Every file that a response names or holds, in the response's order."""
    for leaf in leaves(response):
        if is_file(leaf):
            yield media_of(leaf)


def media_of(leaf: Leaf) -> Media:
    return Media(
        field=media_field(leaf),
        source=leaf.value,
        content_type=str(leaf.around.get("content_type") or ""),
        name=media_name(leaf),
    )


def has_files(response: Any) -> bool:
    return next(find_media(response), None) is not None


def new_media(response: Any, arguments: Any) -> Iterator[Media]:
    """Each file of a response once, but for those that the arguments had named."""
    seen: set[str | bytes] = set(texts_in(arguments))
    for media in find_media(response):
        if media.source not in seen:
            seen.add(media.source)
            yield media


def texts_in(value: Any) -> Iterator[str]:
    for leaf in leaves(value):
        if isinstance(leaf.value, str):
            yield leaf.value


def media_field(leaf: Leaf) -> str:
    """Where a file stands: {"url": ...} and {"content": ...} stand for the file as a whole."""
    file = leaf.outer
    if file is not None and file.outer is not None and leaf.key in ("url", "content"):
        return file.field
    return leaf.field


def media_name(leaf: Leaf) -> str:
    """The name that the response gives a file, or else the last part of its URL's path."""
    path = str(leaf.around.get("file_name") or "")
    if not path and is_link(leaf.value):
        quoted = re.split("[?#]", leaf.value, maxsplit=1)[0]
        path = urllib.parse.unquote(quoted)
    return path.replace("\\", "/").rpartition("/")[2]


def is_link(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(r"https?://\S+", value, re.I) is not None


def is_whole_url(value: Any) -> bool:
    """Whether it is an http(s) URL of a host, which has no user."""
    if not is_link(value):
        return False
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, UnicodeError):  # the latter over a name in foreign letters
        return False
    is_host = re.fullmatch(r"[\w.:-]+", url.host) is not None
    return is_host and not url.userinfo and (url.port or 1) in range(1, 65536)


def is_file(leaf: Leaf) -> bool:
    """Whether a leaf is a file or the URL of one, as far as the names around it tell: a link to a
    page is not, and a text that holds a link neither.

    The expressions here and below take a time that is linear in the length of a text.
    """
    text = leaf.value
    if isinstance(text, bytes):
        return True
    if not isinstance(text, str):
        return False
    if re.match(r"data:[\w.+-]+/[\w.+-][^,\s]*,\S", text, re.I):
        return True
    has_facts = leaf.name == "url" and any(fact in leaf.around for fact in FILE_FACTS)
    if has_facts and telling_name(leaf) == "url":
        return text != ""
    if not is_link(text):
        return False
    if re.match(r"https?://[\w.-]+\.fal\.media/", text, re.I):
        return True
    word = field_word(media_field(leaf))
    if re.fullmatch(PAGE_WORDS, word) or re.search(r"\.html?($|[?#])", text, re.I):
        return False
    names_a_file = re.fullmatch(FILE_WORDS, word, re.I) is not None
    return names_a_file or word == "" or telling_name(leaf).endswith("urls")


def telling_name(leaf: Leaf) -> str:
    """The key that tells what a leaf is: the first that ends in `urls`, or else the last."""
    for key in leaf.path:
        if str(key).endswith("urls"):
            return str(key)
    return leaf.name


def field_word(field: str) -> str:
    """The last word of a field's name before `url`: `image` for images.0.preview_image_url."""
    tail = field[-MAX_KEY:]  # keys may be of any length, words are not
    labels = [part for part in tail.split(".") if not part.isdigit()]
    if not labels:
        return ""
    label = re.sub(r"(_?url|_uri|_link)s?$", "", labels[-1], flags=re.I)
    return label.rpartition("_")[2]


# What a response tells beside its files

# Words in the name of a boolean by which a content checker speaks; and those by which a setting
# is told, or that nothing was found.
CHECKER_WORDS = (
    "nsfw|nudity|flagged|unsafe|moderat(ed|ion)|censored|filtered|blocked|redacted|inappropriate"
    "|harmful|offensive|sensitive|violat(es|ed|ions?)"
)
SETTING_WORDS = (
    "enabled?|disabled?|use|uses|allow(ed|s)?|skip(ped)?|check(er|ed|s)?|filter|filters|block"
    "|tolerance|threshold|level|mode|passed|passes|ok|free|no|non|not|without|case|time"
)
# Names under which a result tells what went wrong, and texts there that say that nothing did.
ERROR_NAMES = (
    r"(\w+_)?(errors?|failures?|exceptions?)"
    r"(_(messages?|msg|texts?|details?|descriptions?|reasons?|types?|codes?))?"
)
NO_ERRORS = ("", "none", "null", "no", "no error", "no errors", "ok", "success", "false", "0")
# The last word of the names of fields that hold files of one medium.
MEDIUM_WORDS = {
    "video": "(video|clip|movie)s?",
    "image": "(image|picture|photo|thumbnail|mask|frame)s?",
    "audio": "(audio|sound|voice)s?|music|speech",
}
MAX_FLAGS = 200  # that are looked at
MAY_MOVE = ("image/gif", "image/webp")  # pictures that may stand in a clip's place


def oddities(job: Job) -> Iterator[str]:
    """What is not as it seems in the response to a job that was done."""
    response, arguments = job.response, job.arguments
    yield from flagged_in_words(response, arguments)
    errors = list(itertools.islice(errors_in(response, arguments), MAX_NAMED))
    if errors:
        texts = "; ".join(errors)
        yield f"the job is done, but its response tells of an error: {cut(texts, 500)}"
    medium = medium_asked_of(str(job.endpoint))
    if medium is not None and lacks(medium, response, arguments):
        yield f"{job.endpoint} is for {medium}s, and the response holds none"
    if job.saving and job.saving.target and next(new_media(response, arguments), None) is None:
        yield "the response holds no file to save"


def flagged_in_words(response: Any, arguments: Any) -> Iterator[str]:
    fields = list(flagged_files(response, arguments).values())
    if fields:
        pronoun = "it" if len(fields) == 1 else "they"
        names = ", ".join(fields[:MAX_NAMED])
        if len(fields) > MAX_NAMED:
            names += f" and {len(fields) - MAX_NAMED} more"
        yield f"fal's content checker flagged {names}: {pronoun} may be black"
        return
    for flag in flags_in(response, arguments)[:1]:
        yield f"fal's content checker flagged the result: {cut(flag.field, 100)}"


def flagged_files(response: Any, arguments: Any) -> dict[str | bytes, str]:
    """The field of each file that a content checker has flagged, by the file's source."""
    fields: dict[str | bytes, str] = {}
    flags = flags_in(response, arguments)
    if not flags:
        return fields
    named = set(texts_in(arguments))
    files = [media for media in find_media(response) if media.source not in named]
    for flag in flags:
        for media in files_of_flag(flag, files):
            fields.setdefault(media.source, media.field)
    return fields


def flags_in(response: Any, arguments: Any) -> list[Leaf]:
    """The flags of a content checker that are true, but for settings that come back."""
    settings = {leaf.name for leaf in leaves(arguments) if leaf.value is True}
    flags = (
        leaf
        for leaf in leaves(response)
        if leaf.value is True and leaf.name not in settings and is_flag_name(leaf.name)
    )
    return list(itertools.islice(flags, MAX_FLAGS))


@functools.lru_cache(maxsize=1000)
def is_flag_name(name: str) -> bool:
    words = words_of(name)
    if any(re.fullmatch(SETTING_WORDS, word) for word in words):
        return False
    return any(re.fullmatch(CHECKER_WORDS, word) for word in words)


def files_of_flag(flag: Leaf, files: Sequence[Media]) -> list[Media]:
    """The files beside a flag, or beside what holds it. One of a list of flags is about the file
    that has its place in the list beside it.
    """
    number: Any = None
    node = flag
    while node.outer is not None:
        if not isinstance(node.outer.value, Mapping):
            number = node.key
        node = node.outer
        if not isinstance(node.value, Mapping):
            continue
        place = node.field
        beside = [media for media in files if place in ("", media.field) or is_in(media, place)]
        if beside and number is None:
            return beside
        if beside:
            return files_at(number, beside, place)
    return []


def is_in(media: Media, place: str) -> bool:
    return media.field.startswith(f"{place}.")


def files_at(number: int, files: Sequence[Media], place: str) -> list[Media]:
    """Those that have the place in a list of files; where there is no list, each is the first."""
    numbers = [number_in_list(media.field.removeprefix(place)) for media in files]
    if numbers == [None] * len(files):
        return list(files) if number == 0 else []
    return [media for media, at in zip(files, numbers, strict=True) if at == number]


def number_in_list(field: str) -> int | None:
    return next((int(key) for key in field.split(".") if key.isdecimal()), None)


def errors_in(response: Any, arguments: Any) -> Iterator[str]:
    """The texts that a response has under names of errors, and the names."""
    sent = set(texts_in(arguments))
    for leaf in leaves(response):
        text = leaf.value
        if not isinstance(text, str) or text in sent or text.strip().lower() in NO_ERRORS:
            continue
        if any(is_error_name(str(key)) for key in leaf.path):
            yield f"{leaf.field}: {cut(text.strip(), 300)}"


@functools.lru_cache(maxsize=1000)
def is_error_name(name: str) -> bool:
    return re.fullmatch(ERROR_NAMES, "_".join(words_of(name))) is not None


def medium_asked_of(endpoint: str) -> str | None:
    """What an endpoint makes, video or image, if its path says so: the last word on it counts."""
    parts = [words_of(part) for part in endpoint.split("/")]
    words = [word for part in parts for word in part]
    if any(re.fullmatch("train(er|ing)?", word) for word in words):
        return None
    for part in reversed(parts):
        for before, word in reversed(list(itertools.pairwise(["", *part]))):
            if before == "to":
                return word if word in ("video", "image") else None
            if re.fullmatch(r"[a-z]2[vi]", word):
                return {"v": "video", "i": "image"}[word[-1]]
    is_of_clips = any(re.fullmatch("(video|audio|music|speech|voice|sound)s?", w) for w in words)
    return "image" if parts[-1] == ["edit"] and not is_of_clips else None


def lacks(medium: str, response: Any, arguments: Any) -> bool:
    """Whether nothing in a response can be a file of the medium."""
    sent = set(texts_in(arguments))
    for leaf in leaves(response):
        if not isinstance(leaf.value, (str, bytes)) or leaf.value in sent:
            continue
        is_candidate = is_file(leaf) or may_be_file(leaf.value)
        if is_candidate and medium_of(media_of(leaf)) in (medium, None):
            return False
    return True


def may_be_file(value: str | bytes) -> bool:
    """Whether it is an address of any kind, or so long a word that it may be a file's data."""
    is_text_of_file = r"[a-z][\w+.-]*:/\S+|\S{1000,}"
    return isinstance(value, bytes) or re.fullmatch(is_text_of_file, value, re.I) is not None


def medium_of(media: Media) -> str | None:
    """Such as image: by what the file is said to be, then by its name, then by its field's."""
    head = None
    if isinstance(media.source, bytes):
        head = media_type(media.source[:HEAD_BYTES])
    elif media.is_data:
        head = re.split("[;,]", media.source[5:300], maxsplit=1)[0]
    named = type_named(media.name)
    for content_type in (head, media.content_type, named and named.content_type):
        medium = medium_of_type(content_type or "")
        if medium is not None:
            return medium
    word = field_word(media.field)
    for medium, names in MEDIUM_WORDS.items():
        if re.fullmatch(names, word, re.I):
            return medium
    return None


def medium_of_type(content_type: str) -> str | None:
    """The first part of a content type, unless it leaves open what the file shows."""
    row = type_called(content_type)
    name = row.content_type if row else content_type.lower()
    name = FAMILIES.get(name, name)
    medium = name.partition("/")[0]
    if name in MAY_MOVE or medium not in ("image", "video", "audio", "model", "text"):
        return None
    return medium


# Where files go


class Target:
    """Where files go: a folder (it exists, or the text ends in /), a file name, or a template.

    `text` is what the user wrote, `asked` the extension in it, with its dot; `file` is the path
    of the file if it is known already, and `named_file` that path if it has the extension, too;
    `folder` is the folder that exists before all names are known.
    """

    FIELDS = ("index", "name", "ext", "request_id", "model", "seed", "prompt", "date")

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = ""
        path = home_path(text)
        check_output_path(path)
        if os.path.isdir(path):
            self._parts = [(os.path.join(path, ""), "model")]  # braces in it are no fields
        else:
            if path.endswith(("/", os.sep)):
                path += "{model}"
            extension = os.path.splitext(path)[1]
            if not set(extension) & set("{}"):
                self.asked = extension
            self._parts = self._parse(path)
        self._names_extension = path.endswith(".{ext}")
        fields = [field for _, field in self._parts if field]
        self.file = None if fields else path
        self.named_file = absolute_path(path) if self.asked and not fields else None
        self.folder = absolute_path(os.path.dirname(self._parts[0][0]))
        check_folder(self.folder)

    def _parse(self, path: str) -> list[tuple[str, str]]:
        """The literal texts of a template, without its extension, and the fields behind them."""
        template = path.removesuffix(self.asked)
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError:
            parsed = []
        parts = [(literal, field or "") for literal, field, _, _ in parsed]
        # nothing but literals and {field}: no {{, no {field:width}, no {}
        rebuilt = ""
        for literal, field in parts:
            rebuilt += literal
            if field:
                rebuilt += "{" + field + "}"
        unknown_fields = {field for _, field in parts} - {"", *self.FIELDS}
        if rebuilt != template or unknown_fields:
            fields = ", ".join(f"{{{name}}}" for name in self.FIELDS)
            raise usage_error(f"not a template: {path!r}", f"The fields are {fields}.")
        return parts

    def place(self, values: Mapping[str, str], extension: str) -> tuple[str, str]:
        """The path of a file without its extension, and the extension."""
        values = {**values, "ext": extension[1:], "": ""}
        path = ""
        for literal, field in self._parts:
            path += literal
            path += values[field]
        if self._names_extension:
            path, extension = os.path.splitext(path)
        folder, name = os.path.split(absolute_path(path))
        return os.path.join(folder, shortened(name, 200)), extension


def check_output_path(path: str) -> None:
    """Refuse what no file can be called, or what would break the lines that tell of it."""
    if path.strip() in ("", "-") or re.search(r"[\0-\x1f\x7f-\x9f\u2028\u2029]", path):
        raise usage_error(f"not a folder or a file name: {path!r}")
    if len(os.fsencode(os.path.basename(path))) > 200:
        raise usage_error(f"the name is too long: {path!r}")


def check_folder(folder: str) -> None:
    """Refuse a folder that neither can be written to nor made."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise usage_error(f"cannot write to {folder}")


def shortened(text: str, max_bytes: int) -> str:
    """The start of a text, in so many bytes at most."""
    size = 0
    for index, character in enumerate(text):
        size += len(os.fsencode(character))
        if size > max_bytes:
            return text[:index]
    return text


class Saving:
    """What becomes of the files of a result; the keywords are those of the output flags.

    `output` is a folder, a file name or a template, `max_bytes` the most that a file may have;
    with `media` or a `gallery` (or several), files go to the current folder if nothing else is
    said, and with `media` only the last event of a stream counts.
    """

    def __init__(
        self,
        output: str | Target | None = None,
        overwrite: bool = False,
        max_bytes: int | None = None,
        media: bool = False,
        metadata: bool = False,
        gallery: str | Sequence[str] = (),
    ) -> None:
        if output is None and (media or gallery):
            output = "."
        if output is None and (overwrite or max_bytes or metadata):
            raise usage_error(
                "--overwrite, --max-bytes and --metadata need --output, --media or --gallery"
            )
        self.target = Target(output) if isinstance(output, str) else output
        self.overwrite = overwrite
        self.max_bytes = max_bytes or MAX_BYTES
        self.media = media
        self.metadata = metadata
        self._names: set[str] = set()  # given to files by this command, in folded case
        self._reserved: list[str] = []  # of the names that are being given
        self._counts: dict[str, int] = {}  # by a folded name: no lower number of it is free
        self.galleries = [Gallery(path, overwrite) for path in dict.fromkeys(as_list(gallery))]
        self._names.update(gallery.path.casefold() for gallery in self.galleries)
        file = self.target.file if self.target else None
        if file and absolute_path(file).casefold() in self._names:
            raise usage_error(f"--output and --gallery name the same file: {file}")
        if file and not self._is_free(absolute_path(file)):
            hint = "Name another file, or add --overwrite."
            raise usage_error(
                f"argument --output: {file} exists already and is not overwritten", hint
            )

    def publish(self, stem: str, parts: Mapping[str, PartFile]) -> list[str]:
        """Give complete files, by their extensions, the first name that is free for all of them:
        stem.ext, stem-2.ext, ...; returns their paths.
        """
        with writing():
            paths = self._claim(stem, list(parts))
            try:
                for part, path in zip(parts.values(), paths, strict=True):
                    part.rename(path)
            except OSError:
                self._release(paths)
                raise
            remember_as_ours(paths)
            return paths

    def show(self, job: Job, failure: Failure | None = None) -> None:
        """Show in galleries what became of a job: nothing of one that was not sent, or goes on."""
        is_known = job.paid or job.request_id is not None or job.index is not None
        is_over = failure is not None and failure.type != "not_finished"
        if self.galleries and (failure is None or (is_over and is_known)):
            entry = gallery_entry(job, failure)
            for gallery in self.galleries:
                gallery.show(job.index, entry)

    def keep(self, files: Iterable[Fields]) -> None:
        """Give none of these names away: they are those of other jobs' files."""
        self._names.update(file["path"].casefold() for file in files)

    def may_replace(self, path: str) -> bool:
        """Whether --overwrite holds for a file: the user has named it, or an earlier run of ours
        has written it. What else has a name that a server chose is not replaced.
        """
        if not self.overwrite or not (os.path.islink(path) or os.path.isfile(path)):
            return False
        is_named = self.target is not None and path == self.target.named_file
        return is_named or is_ours(path)

    def _claim(self, stem: str, extensions: Sequence[str]) -> list[str]:
        """Paths that nobody else has: no command gives a name twice, not even where upper and
        lower case are the same.
        """
        first = max(self._first_count(stem, extension) for extension in extensions)
        for count in range(first, MAX_COUNT):
            paths = [numbered(stem, count) + extension for extension in extensions]
            if all(map(self._is_free, paths)):
                with contextlib.suppress(FileExistsError):
                    self._reserve(paths)
                    self._names.update(path.casefold() for path in paths)
                    return paths
        raise FileExistsError(f"no free name for {stem}")

    def _first_count(self, stem: str, extension: str) -> int:
        """The first number that is free for an extension; it is looked for where the last search
        has ended, so that many files of one name do not take the square of their number.
        """
        name = (stem + extension).casefold()
        count = self._counts.get(name, 1)
        while count < MAX_COUNT and not self._is_free(numbered(stem, count) + extension):
            count += 1
        self._counts[name] = count
        return count

    def _is_free(self, path: str) -> bool:
        """Whether a file may get the name."""
        if path.casefold() in self._names:
            return False
        return not os.path.lexists(path) or self.may_replace(path)

    def _reserve(self, paths: Sequence[str]) -> None:
        """Hold names against other commands, by empty files: all of them or none."""
        self._reserved = []
        try:
            for path in paths:
                if not self.may_replace(path):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
                    self._reserved.append(path)
        except OSError:
            self._release(self._reserved)
            raise

    def _release(self, paths: Sequence[str]) -> None:
        """Leave no empty file under names that could not be given after all."""
        for path in paths:
            if path in self._reserved:
                with contextlib.suppress(OSError):
                    os.unlink(path)


# What earlier runs have saved: a small database of path, size and time, the latest of them. Where
# it cannot be had, nothing counts as ours.


MAX_REMEMBERED = 20_000


@contextlib.contextmanager
def saved_files() -> Iterator[sqlite3.Connection]:
    """The database, which has a folder; an sqlite3.Error or an OSError where it cannot be had."""
    path = os.path.join(user_folder(STATE_FOLDER) or "/", "saved.sqlite")
    with contextlib.closing(sqlite3.connect(path, timeout=0.2)) as database, database:
        database.execute(
            "create table if not exists saved"
            " (number integer primary key, path text unique, bytes integer, mtime integer)"
        )
        yield database


def remember_as_ours(paths: Iterable[str]) -> None:
    """Remember files as they are now; a home that cannot be written to is no problem."""
    folder = user_folder(STATE_FOLDER)
    if folder is None:
        return
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError, ImportError, sqlite3.Error), saved_files() as database:
        for path in paths:
            facts = os.stat(path)
            database.execute(
                "insert or replace into saved (path, bytes, mtime) values (?, ?, ?)",
                (os.fsencode(path), facts.st_size, facts.st_mtime_ns),
            )
        database.execute(
            "delete from saved where number <= (select max(number) from saved) - ?",
            (MAX_REMEMBERED,),
        )


def is_ours(path: str) -> bool:
    """Whether a file is as an earlier run has saved it."""
    if not os.path.isdir(user_folder(STATE_FOLDER) or ""):
        return False
    with contextlib.suppress(OSError, ImportError, sqlite3.Error), saved_files() as database:
        query = "select bytes, mtime from saved where path = ?"
        row = database.execute(query, (os.fsencode(path),)).fetchone()
        facts = os.lstat(path)
        return bool(row == (facts.st_size, facts.st_mtime_ns))
    return False


def numbered(stem: str, count: int) -> str:
    """The stem of the first, the second, ... file of a name."""
    if count == 1:
        return stem
    return f"{stem}-{count}"


def name_values(media: Media, job: Job, index: int) -> dict[str, str]:
    """The values of the fields of --output, but for {ext}: none of them leads to a folder.

    `index` is that of the file in its response; the files of a batch have that of their job.
    """
    if job.index is not None:
        index = job.index
    values = {
        "index": index,
        "name": os.path.splitext(media.name)[0],
        "request_id": job.request_id,
        "model": job.model,
        "seed": answered_or_sent(job, "seed"),
        "prompt": redact(str(answered_or_sent(job, "prompt") or "none")[:1000])[:50],
        "date": utc_now()[:10],
    }
    return {name: safe_name(value) for name, value in values.items()}


def answered_or_sent(job: Job, name: str) -> Any:
    """A field of the job's response, or else of its arguments."""
    value = None
    if isinstance(job.response, dict):
        value = job.response.get(name)
    if value is None and job.arguments:
        value = job.arguments.get(name)
    return value


def safe_name(value: Any) -> str:
    """A value as a part of a file name: visible, no path, and no device of Windows'."""
    if value is None:
        return "none"
    if isinstance(value, list):
        value = value[:20]
    visible = re.sub(r"[^\w.-]+", "-", redact(str(value)[:1000])[:200])
    name = shortened(visible, 80).strip("-.") or "none"
    if re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name, re.I):
        return f"_{name}"
    return name


def extension_for(types: Sequence[FileType], asked: str, name: str) -> str:
    """The extension asked for, if a type that holds has it; else the usual one of the narrowest
    type that a server may choose.
    """
    for file_type in types:
        if asked.lower() in file_type.extensions.split():
            return asked
    if types and types[-1].content_type == PAGE:
        note(f"a page that a browser would run is saved as .html.txt: {printable(name)}")
        return ".html.txt"
    for file_type in reversed(types):
        if file_type.is_harmless and file_type.extensions:
            return file_type.extensions.split()[0]
    return ".bin"


# ---------------------------------------------------------------------------------------------
# Fetching and saving: files of a response are fetched, and published under free names.
# ---------------------------------------------------------------------------------------------


# Addresses: what an answer may lead to, and what fal can reach. This keeps answers from sending the
# program to its own machine, or to its neighbours.


async def public_addresses(url: httpx.URL) -> list[str]:
    """The addresses that a URL is fetched from; none where its host is fal's own, or is left to a
    proxy. Raises a Failure where an address, or the name, is not public.
    """
    host = url.raw_host.decode().rstrip(".").lower()
    literal = literal_address(host)
    if url.scheme not in ("http", "https") or host == "" or url.userinfo:
        raise refused_url(url, "it is no http(s) URL of a host")
    if literal is not None:
        refuse_address(url, literal)
    elif not is_public_name(host):
        raise refused_url(url, f"{host} is a name of a local network")
    if is_of_fal(url) or proxy_for(url) is not None:
        return []
    if literal is not None:
        return [str(literal)]
    return [str(address) for address in await addresses_by_name(url, host)]


def is_of_fal(url: httpx.URL) -> bool:
    """Whether it leads to a host of fal's, which proves by its certificate that it is the one."""
    return url.scheme == "https" and url.port is None and f".{url.host}".endswith(TOKEN_DOMAINS)


async def addresses_by_name(url: httpx.URL, host: str) -> list[IPAddress]:
    """What the user's network answers for a public name, be that the way into a tunnel.

    VPNs that answer for every name give addresses of the network for benchmarks (RFC 2544), and
    unique-local ones beside them.
    """
    addresses = await resolve_host(url, host)
    if any(map(is_in_tunnel, addresses)):
        return [address for address in addresses if judged_in_tunnel(url, address)]
    doubtful = [address for address in addresses if not is_public_address(address)]
    prefixes: list[ipaddress.IPv6Network] = []
    if any(address.version == 6 for address in doubtful):
        prefixes = await nat64_prefixes()
    for address in doubtful:
        refuse_address(url, embedded_by(prefixes, address) or address)
    return addresses


def is_in_tunnel(address: IPAddress) -> bool:
    return address in ipaddress.ip_network(TUNNEL)


def judged_in_tunnel(url: httpx.URL, address: IPAddress) -> bool:
    """Whether an address among a tunnel's is to be connected to. Unique-local ones, which a VPN
    gives beside its own, are left out; what leads home is refused.
    """
    if is_in_tunnel(address):
        return True
    if address in ipaddress.ip_network(UNIQUE_LOCAL):
        return False
    refuse_address(url, address)
    return True


def refuse_local_url(source: str, hint: str = FILE_HINT) -> None:
    """fal fetches what a URL names, and cannot reach this machine or its neighbours."""
    if not is_link(source):
        return
    try:
        host = (urllib.parse.urlsplit(source).hostname or "").rstrip(".")
    except ValueError as exc:
        raise usage_error(f"not a URL: {redact(source)[:200]}") from exc
    literal = literal_address(host)
    is_reachable = is_public_name(host)
    if literal is not None:
        is_reachable = is_public_address(literal)
    if not is_reachable:
        place = re.sub("//[^/@]*@", "//", source)  # no password
        raise usage_error(f"fal cannot reach {place[:200]}", hint)


def refused_url(url: httpx.URL, reason: str) -> Failure:
    shown = redact(str(url))[:200]
    return Failure("refused_url", f"not a public http(s) URL: {shown}: {reason}")


def refuse_address(url: httpx.URL, address: IPAddress) -> None:
    """Raise a Failure where not everybody can reach an address that a URL leads to."""
    if is_public_address(address):
        return
    kind = kind_of_address(address)
    reason = f"{url.host} is at {address}, {kind}"
    if literal_address(url.host) is not None:
        reason = f"{address} is {kind}"
    raise refused_url(url, reason)


def literal_address(host: str) -> IPAddress | None:
    """The address that a host is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# Of networks at home and at work; a proxy inside one would know them.
LOCAL_DOMAINS = (
    ".localhost",
    ".localdomain",
    ".local",
    ".internal",
    ".intranet",
    ".lan",
    ".home",
    ".home.arpa",
    ".corp",
    ".private",
    ".svc",
)


def is_public_name(host: str) -> bool:
    """Whether a name may be one of the internet's, and is none of a local network."""
    if "." not in host or host.endswith(LOCAL_DOMAINS):
        return False
    # The system takes 127.1 and 0x7f.1 for addresses, too.
    is_numeric = re.search(r"(^|\.)(\d+|0x[0-9a-f]*)$", host) is not None
    return not is_numeric


async def resolve_host(url: httpx.URL, host: str) -> list[IPAddress]:
    """The addresses of a name, in the order in which they are to be tried."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, url.port or 443)
    except UnicodeError as exc:  # a label that is empty, or too long
        raise refused_url(url, "no host can have the name") from exc
    addresses = [ipaddress.ip_address(address[0]) for _, _, _, _, address in infos]
    return list(dict.fromkeys(addresses))


# Networks that Python calls global, or its older versions do: of protocols, of documents, of relays
# to IPv6, and the addresses under which clouds tell their machines secrets.
NOT_PUBLIC = ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20")
# IPv6 networks: all that is public, and those whose addresses hold an IPv4 address at their end
# (RFC 6052, RFC 8215).
GLOBAL_UNICAST = "2000::/3"
NAT64 = ("64:ff9b::/96", "64:ff9b:1::/96")
TUNNEL = "198.18.0.0/15"
UNIQUE_LOCAL = "fc00::/7"

# What a network is, for those who read why an address is refused; the first that holds it counts.
KINDS_OF_ADDRESSES = {
    "0.0.0.0/32": "what name servers say that block a name",
    "::/128": "what name servers say that block a name",
    "127.0.0.0/8": "this machine itself",
    "::1/128": "this machine itself",
    "169.254.0.0/16": "a link-local address",
    "fe80::/10": "a link-local address",
    "10.0.0.0/8": "a private address",
    "172.16.0.0/12": "a private address",
    "192.168.0.0/16": "a private address",
    UNIQUE_LOCAL: "a private (unique-local) address",
    "100.64.0.0/10": "an address inside a provider's network or a VPN (RFC 6598)",
    TUNNEL: "an address of tunnels and benchmarks (RFC 2544)",
}


def kind_of_address(address: IPAddress) -> str:
    """Why an address is not public, in words."""
    wrapped = wrapped_address(address)
    if wrapped is not None:
        return f"a way to {wrapped}, {kind_of_address(wrapped)}"
    for network, kind in KINDS_OF_ADDRESSES.items():
        if address in ipaddress.ip_network(network):
            return kind
    return "not a public address"


# Gateways of a provider's from IPv6 to IPv4 embed the one in the other's addresses (RFC 6052). What
# prefix they have is learned by a name that has these two IPv4 addresses alone (RFC 7050).
NAT64_NAME = "ipv4only.arpa"
NAT64_ANSWERS = ("192.0.0.170", "192.0.0.171")
NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)  # bits of a prefix


async def nat64_prefixes() -> list[ipaddress.IPv6Network]:
    """The networks that lead to IPv4 here; none where nobody tells."""
    try:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(NAT64_NAME, 443, family=socket.AF_INET6)
    except OSError:
        return []
    prefixes = []
    for _, _, _, _, place in infos:
        address = ipaddress.ip_address(place[0])
        for length in NAT64_LENGTHS:
            if str(embedded_address(address, length)) in NAT64_ANSWERS:
                prefixes.append(ipaddress.IPv6Network((address, length), strict=False))
    return prefixes


def embedded_by(
    prefixes: Iterable[ipaddress.IPv6Network], address: IPAddress
) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a gateway of these prefixes finds in an address."""
    for prefix in prefixes:
        if address in prefix:
            return embedded_address(address, prefix.prefixlen)
    return None


def embedded_address(address: IPAddress, length: int) -> ipaddress.IPv4Address:
    """The four octets behind a prefix of so many bits; the ninth of the address, which is zero, is
    none of them.
    """
    octets = address.packed
    if length < 96:
        octets = octets[:8] + octets[9:]
    start = length // 8
    return ipaddress.IPv4Address(octets[start : start + 4])


def is_public_address(address: IPAddress) -> bool:
    """Whether anybody can reach an address; one that wraps an IPv4 address is what that is."""
    wrapped = wrapped_address(address)
    if wrapped is not None:
        return is_public_address(wrapped)
    if address.version == 6 and address not in ipaddress.ip_network(GLOBAL_UNICAST):
        return False
    if any(address in ipaddress.ip_network(network) for network in NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def wrapped_address(address: IPAddress) -> IPAddress | None:
    """The IPv4 address that an IPv6 address leads to by way of a gateway."""
    if address.version == 4:
        return None
    is_isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE
    is_nat64 = any(address in ipaddress.ip_network(network) for network in NAT64)
    if is_nat64 or is_isatap:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


# Fetching one file


@contextlib.asynccontextmanager
async def opened(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]
) -> AsyncIterator[httpx.Response]:
    """The answer that the URL leads to, each hop checked; no cookie is kept or handed on."""
    for _ in range(MAX_REDIRECTS + 1):
        response = await request_file(client, url, headers)
        async with contextlib.aclosing(response):
            if not response.has_redirect_location:
                yield response
                return
            url = url.join(response.headers["location"])
    raise Failure("refused_url", f"more than {MAX_REDIRECTS} redirects")


async def request_file(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str]
) -> httpx.Response:
    """The head of the answer of a public host. It is connected to at an address that was checked,
    since its name may lead elsewhere the next time.
    """
    addresses = await public_addresses(url)
    if not addresses:
        request = client.build_request("GET", url, headers=headers)
        return await client.send(request, stream=True)
    direct = CONNECTION.direct
    for address in addresses:
        request = direct.build_request(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode(), **headers},
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        try:
            return await direct.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            failed = exc
    raise failed


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Let what the disk refuses leave as a Failure that says so."""
    try:
        yield
    except OSError as exc:
        message = f"the file cannot be written: {reason_of(exc)}"
        raise Failure("write_failed", message) from exc


class Download:
    """A file on its way into a PartFile, over as many answers as it takes.

    A transfer that broke goes on where it stopped only if the host can tell that the file is
    still the same, by a strong ETag.
    """

    def __init__(self, part: PartFile, max_bytes: int) -> None:
        self.part = part
        self._max_bytes = max_bytes
        self._total: int | None = None  # bytes, if the host tells
        self._etag: str | None = None  # of what is in the part, if it is a strong one

    def request_headers(self) -> dict[str, str]:
        """The headers that ask for what is still missing."""
        headers = {"Accept-Encoding": "identity"}
        if self.part.size and self._etag is not None:
            headers["Range"] = f"bytes={self.part.size}-"
            headers["If-Range"] = self._etag
        return headers

    def begin(self, response: httpx.Response) -> None:
        """Go on where the answer does, or start over; refuse what is too large at once."""
        if response.headers.get("content-encoding", "identity") != "identity":
            # a few bytes may be gigabytes
            raise Failure("unexpected_answer", "the file came packed, which was not asked for")
        if self._is_rest(response):
            return
        self._start_over(response)
        total = response.headers.get("content-length", "")
        if "transfer-encoding" in response.headers:
            total = ""
        self._total = None
        if re.fullmatch(r"\d{1,18}", total):
            self._total = int(total)
            self._measure(self._total)

    def _is_rest(self, response: httpx.Response) -> bool:
        """Whether the answer goes on behind the last byte that came, in the same file."""
        is_same = self._etag is not None and response.headers.get("etag") == self._etag
        if response.status_code != 206 or not is_same:
            return False
        content_range = str(response.headers.get("content-range", ""))
        total = "*"
        if self._total is not None:
            total = str(self._total)
        goes_on = content_range.startswith(f"bytes {self.part.size}-")
        return self.part.size > 0 and goes_on and content_range.endswith(f"/{total}")

    def _start_over(self, response: httpx.Response) -> None:
        """Drop what came before, for an answer that is the whole file or no file at all."""
        self.part.restart()
        self._etag = None
        status = response.status_code
        if status != 200:
            retryable = status in (206, 408, 416, 425, 429) or status >= 500
            message = f"{response.request.headers['host']} answered HTTP {status}"
            raise Failure("http_error", message, retryable=retryable)
        etag = response.headers.get("etag", "")
        if re.fullmatch(r'"[^"]+"', etag):
            self._etag = etag

    def write(self, chunk: bytes) -> None:
        self._measure(self.part.size + len(chunk))
        with writing():
            self.part.write(chunk)

    def _measure(self, size: int) -> None:
        if size > self._max_bytes:
            message = f"the file has more than {self._max_bytes} bytes (--max-bytes)"
            raise Failure("too_large", message)

    def check_total(self) -> None:
        """Refuse to take a file for complete whose end is missing."""
        if self._total not in (None, self.part.size):
            message = f"{self.part.size} of {self._total} bytes came"
            raise Failure("connection_lost", message)


async def fetch(client: httpx.AsyncClient, url: str, download: Download) -> str:
    """Stream a file; returns the content type that its host tells. What breaks is taken up
    again.
    """
    for seconds in FILE_BACKOFF:
        try:
            return await fetch_once(client, url, download)
        except Exception as exc:
            failure = explain(exc)
            if failure is None or not failure.retryable:
                raise
        await asyncio.sleep(seconds)
    return await fetch_once(client, url, download)


async def fetch_once(client: httpx.AsyncClient, url: str, download: Download) -> str:
    async with opened(client, httpx.URL(url), download.request_headers()) as response:
        download.begin(response)
        async for chunk in response.aiter_bytes():
            download.write(chunk)
    download.check_total()
    content_type = str(response.headers.get("content-type", ""))
    return content_type.partition(";")[0].strip().lower()


def receive_data_uri(source: str, download: Download) -> str:
    """Decode a data URI into a file, piece by piece; returns the content type that it tells."""
    comma = source.find(",")
    header = source[len("data:") : comma]
    pieces = unquoted(source, comma + 1)
    if header.lower().endswith(";base64"):
        pieces = from_base64(pieces)
    try:
        for piece in pieces:
            download.write(piece)
    except ValueError as exc:
        message = f"the data URI is broken: {reason_of(exc)}"
        raise Failure("unexpected_answer", message) from exc
    return header.partition(";")[0]


PIECE = 1 << 16  # characters of a data URI that are decoded at once


def unquoted(source: str, start: int) -> Iterator[bytes]:
    """What is percent-encoded from there on."""
    while start < len(source):
        end = start + PIECE
        for escape in (end - 2, end - 1):  # not to be torn apart
            if source[escape : escape + 1] == "%":
                end = escape
                break
        yield urllib.parse.unquote_to_bytes(source[start:end])
        start = end


def from_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes behind base64, white space aside; a ValueError if it is none."""
    rest = b""
    for piece in pieces:
        rest += b"".join(piece.split())
        whole = len(rest) // 4 * 4
        yield base64.b64decode(rest[:whole], validate=True)
        rest = rest[whole:]
    yield base64.b64decode(rest, validate=True)


# Saving the files of a response


SAVED_FILES = "downloaded_files"  # under which a document lists what was saved


def name_in_document(name: Any, answer: Mapping[Any, Any]) -> Any:
    """The name of a field of an answer: none of them passes for our list of saved files."""
    if name != SAVED_FILES:
        return name
    while name in answer:
        name = f"model_{name}"
    return name


class Saved(list[Fields]):
    """The files of a response that are saved; no answer from fal can hold one."""


async def save_media(job: Job) -> Any:
    """The job's response, with "downloaded_files" once its files are saved where the user asked;
    notes tell what is odd in it.
    """
    response = job.response
    saving = job.saving
    if not isinstance(response, Raw):
        for text in oddities(job):
            job.progress.note(text)
    if saving is None or saving.target is None:
        return response
    saved = Saved()
    document = {"response": response}
    if isinstance(response, dict):
        document = {name_in_document(name, response): value for name, value in response.items()}
    document[SAVED_FILES] = saved
    job.unprinted = [document]
    saved += earlier_files(job, saving)
    if not saved:
        await save_all(job, saving, saving.target, saved)
    elif saving.metadata:
        note("files that an earlier run has saved get no metadata now")
    saving.show(job)
    return document


async def save_all(job: Job, saving: Saving, target: Target, saved: Saved) -> None:
    """Save the files of a job's response; a Failure if any is lost."""
    job.hint = fetch_hint(job, saving, target)
    lost = await save_files(job, saving, job.response, saved)
    if lost:
        raise lost_files_failure(job, saving, target, saved, lost)
    job.tell(JobState.DONE, saved=[target.text, saved])


def lost_files_failure(
    job: Job, saving: Saving, target: Target, saved: Saved, lost: list[Fields]
) -> Failure:
    """What is told of files that could not be saved, with the command that fetches them, unless
    it would be refused the same files again.
    """
    kinds = {lost_file["type"] for lost_file in lost}
    hint = None
    if kinds != {"refused_url"}:
        hint = fetch_hint(
            job,
            saving,
            target,
            has_file=bool(saved),
            elsewhere="write_failed" in kinds,
        )
    if hint is None and "refused_url" in kinds:
        hint = "The response is on stdout. What was refused is for the user to look at first."
    message = f"{len(lost)} of {len(saved) + len(lost)} files could not be saved"
    return Failure("download_failed", message, hint=hint, details=lost)


async def save_files(job: Job, saving: Saving, response: Any, saved: Saved) -> list[Fields]:
    """Add the files of a response to those that are saved; returns {"field", "message", "type"}
    for each that is lost.
    """
    lost: list[Fields] = []
    flagged = flagged_files(response, job.arguments)
    async with CONNECTION.opened() as client:
        for media in new_media(response, job.arguments):
            index = len(saved) + len(lost)
            try:
                with failures(Job()):
                    saved.append(
                        await save_file(
                            client,
                            media,
                            job,
                            saving,
                            index,
                        )
                    )
                if media.source in flagged:
                    saved[-1]["flagged"] = True
            except Failure as failure:
                lost_file = {
                    "field": redact(media.short_url())[:500],
                    "message": failure.message,
                    "type": failure.type,
                }
                lost.append(lost_file)
    return lost


async def save_file(
    client: httpx.AsyncClient, media: Media, job: Job, saving: Saving, index: int
) -> Fields:
    """Save one file: {"path", "url", "content_type", "bytes", "field"}."""
    target = saving.target
    assert target
    with writing():
        part = PartFile(target.folder)
    with part:
        declared_type = await receive(client, media, Download(part, saving.max_bytes))
        told_types = (declared_type, media.content_type)
        types = file_types(part.head, told_types, (target.asked, media.name))
        content_type = types[-1].content_type if types else first_telling(*told_types)
        extension = target.asked
        if not extension or file_types(part.head, told_types):
            extension = extension_for(types, target.asked, media.name)
        stem, extension = target.place(name_values(media, job, index), extension)
        facts = {"url": media.short_url(content_type), "field": media.field}
        path = publish_with_metadata(
            part,
            stem,
            extension,
            saving,
            origin(job, facts),
        )
    if target.asked not in ("", extension):
        note(f"{target.text} is saved as {path}")
    return {
        "path": path,
        "content_type": content_type,
        "bytes": part.size,
        **facts,
    }


async def receive(client: httpx.AsyncClient, media: Media, download: Download) -> str:
    """Fetch or decode a file whole; returns its content type as told, or an empty text."""
    content_type = ""
    if isinstance(media.source, bytes):
        download.write(media.source)
    elif media.is_data:
        content_type = receive_data_uri(media.source, download)
    else:
        content_type = await fetch(client, media.source, download)
    part = download.part
    if not part.size:
        raise Failure("unexpected_answer", "the file is empty")
    is_page = type_called(content_type) == type_called(PAGE) and not proven_type(part.head)
    if is_page and not (media.is_data or media.is_called_a_page):
        raise Failure("unexpected_answer", "a web page came in its place")
    with writing():
        part.finish()
    return content_type


def first_telling(*content_types: str | None) -> str:
    """The first content type that says something."""
    for content_type in content_types:
        if content_type and content_type != BINARY:
            return content_type
    return BINARY


def publish_with_metadata(
    part: PartFile, stem: str, extension: str, saving: Saving, provenance: Fields
) -> str:
    """Give a file its name, and its metadata, if they are asked for, the one beside it."""
    folder = os.path.dirname(stem)
    with writing():
        os.makedirs(folder, exist_ok=True)
    if not saving.metadata:
        return saving.publish(stem, {extension: part})[0]
    metadata_extension = ".json"
    beside = stem + metadata_extension
    is_taken = saving.overwrite and os.path.lexists(beside) and not saving.may_replace(beside)
    if extension.lower() == ".json" or is_taken:
        metadata_extension = ".meta.json"
    with writing(), PartFile(folder) as metadata_part:
        metadata_part.write((json_text(provenance, 2) + "\n").encode())
        metadata_part.finish()
        return saving.publish(stem, {extension: part, metadata_extension: metadata_part})[0]


def origin(job: Job, facts: Fields) -> Fields:
    """What it takes to make a file again."""
    return {
        "model": job.model,
        "request_id": job.request_id,
        "arguments": job.arguments,
        "seed": answered_or_sent(job, "seed"),
        "billable_units": job.billable_units,
        "list_price_usd": job.list_price,
        "time": utc_now(),
        **facts,
        "tool": {"name": PROGRAM, "version": __version__},
    }


# What was saved, and how to fetch it again


def saved_in(document: Any) -> list[Fields]:
    """What was saved of a response, or of that in a line of a batch."""
    if not isinstance(document, dict):
        return []
    for holder in (document, document.get("result")):
        if isinstance(holder, dict):
            files = holder.get(SAVED_FILES)
            if isinstance(files, Saved):
                return files
    return []


def earlier_files(job: Job, saving: Saving) -> list[Fields]:
    """What an earlier run saved at the same place, if all of it is still as it was."""
    place, files = job.saved or ("", [])
    if saving.target is None or place != saving.target.text:
        return []
    for file in files:
        path = file["path"]
        if not os.path.isfile(path) or os.path.getsize(path) != file.get("bytes"):
            return []
    return list(files)


def fetch_hint(
    job: Job,
    saving: Saving,
    target: Target,
    has_file: bool = False,
    elsewhere: bool = False,
) -> str | None:
    """The command that fetches the files of a job as this one would have; `has_file` tells that
    some of them are saved, `elsewhere` that the place cannot be written to.
    """
    if not job.request_id:
        return None
    output = target.text
    if elsewhere:
        output = os.path.join(tempfile.gettempdir(), "")
    if job.index is not None:
        output = output.replace("{index}", str(job.index))
    if target.file and has_file:  # which has the name now
        output = os.path.join(os.path.dirname(output), "") or "./"
    flags = ["--output", output]
    if saving.overwrite:
        flags.append("--overwrite")
    if saving.metadata:
        flags.append("--metadata")
    if saving.media:
        flags.append("--media")
    return f"Fetch them again: {result_command(job.model, job.request_id, *flags)}"


# ---------------------------------------------------------------------------------------------
# Results to look at: the gallery of a command's jobs, as a page or as a contact sheet. Texts in it
# come from strangers: they are escaped, and the page runs nothing.
# ---------------------------------------------------------------------------------------------

GALLERY_MARK = f"gallery of {PROGRAM}"  # among the first bytes of a file of ours
MARK_WITHIN = 4096  # bytes
GALLERY_SHARE = 0.05  # of the time goes into writing a gallery, at most
MAX_SHOWN = 5000  # characters of a text
MAX_HEADING = 140

# What browsers show in a page; clips and sounds they play as far as they can.
PICTURES_OF_BROWSERS = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "image/avif",
    "image/bmp",
    SVG,
    "image/x-icon",
)

# What steers the direction of a text, or is no character that can be shown; a mark stands for it.
STEERING = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)

GALLERY_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f5f5f3; --card: #ffffff; --ink: #1d1f21; --dim: #5c6166; --line: #dcdcd8;
  --link: #0b57b0; --bad: #a3231a; --shade: #ececea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141517; --card: #1e2023; --ink: #e9e9e7; --dim: #a4a9ae; --line: #34373b;
    --link: #8bbcff; --bad: #ff9a8f; --shade: #111214;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem clamp(0.75rem, 2.5vw, 2rem) 3rem; max-width: 120rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere;
}
header { margin: 0 0 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
header p { margin: 0.1rem 0 0; color: var(--dim); }
main {
  display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
}
main.lone { grid-template-columns: minmax(0, 1fr); }
article {
  min-width: 0; overflow: hidden; display: flex; flex-direction: column;
  background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
.files {
  display: grid; gap: 1px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr));
}
.lone .files { grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
figure {
  margin: 0; min-width: 0; display: flex; flex-direction: column;
  box-shadow: 0 0 0 1px var(--line);
}
.view {
  display: flex; flex: 1; align-items: center; justify-content: center;
  background: var(--shade);
}
.view a { min-width: 0; }
img, video { display: block; width: 100%; height: auto; max-height: 80vh; object-fit: contain; }
audio { width: calc(100% - 1rem); margin: 1rem 0.5rem; }
figcaption { padding: 0.45rem 0.9rem; font-size: 0.8125rem; color: var(--dim); }
.size { white-space: nowrap; }
.text { padding: 0.7rem 0.9rem 0.9rem; border-top: 1px solid var(--line); }
.failed .text { border-top: 0; }
.failed .files + .text { border-top: 1px solid var(--line); }
h2 { font-size: 1rem; font-weight: 600; line-height: 1.35; margin: 0; }
.number {
  display: inline-block; min-width: 1.6em; padding: 0 0.4em; margin-inline-end: 0.15em;
  border-radius: 0.8em; background: var(--ink); color: var(--card);
  font-size: 0.8125rem; text-align: center; font-variant-numeric: tabular-nums;
}
summary { cursor: pointer; color: var(--link); font-size: 0.8125rem; margin-top: 0.3rem; }
details p {
  margin: 0.4rem 0 0; padding: 0.5rem 0.7rem; max-height: 16rem; overflow: auto;
  white-space: pre-wrap; background: var(--shade); border-radius: 0.4rem; font-size: 0.875rem;
}
.wrong { margin: 0.5rem 0 0; color: var(--bad); font-weight: inherit; }
strong.wrong { display: block; margin: 0.2rem 0 0; }
.hint { margin: 0.2rem 0 0; color: var(--dim); font-size: 0.875rem; }
dl {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.1rem 0.8rem;
  margin: 0.6rem 0 0; font-size: 0.8125rem;
}
dt { color: var(--dim); }
dd { margin: 0; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 0.2rem; }
.view a:focus-visible { outline-offset: -3px; }
"""

GALLERY_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{mark}">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{summary}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>Results</h1>
<p>{summary}</p>
</header>
<main{form}>
{articles}
</main>
</body>
</html>
"""


class GalleryFile(NamedTuple):
    """A file that was saved, as a gallery shows it."""

    path: str
    content_type: str
    size: int  # bytes
    pixels: tuple[int, int] | None  # width and height, where Pillow can tell
    number: int  # as {index} in --output
    is_flagged: bool  # by the model's content checker

    @property
    def name(self) -> str:
        """As it may be shown."""
        return redact(os.path.basename(self.path))


class GalleryEntry(NamedTuple):
    """What a gallery shows of a job, or of one answer to it; the texts are as strangers have
    written them, but without secrets.
    """

    label: str  # the number of a job of a batch
    topic: str  # the prompt, if there is any
    facts: Mapping[str, str]  # in words, by their names
    files: Sequence[GalleryFile]
    error: str | None = None
    hint: str | None = None


def gallery_entry(job: Job, failure: Failure | None) -> GalleryEntry:
    """What there is to show of a job that has ended, or failed."""
    label = ""
    if job.index is not None:
        label = str(job.index)
    sources = as_list(job.asked.get("image_url") or [])
    facts = {
        "Made from": ", ".join(map(without_data, sources)),
        "Endpoint": job.endpoint,
        "Seed": answered_or_sent(job, "seed"),
        "Request id": job.request_id or job.answer_id,
        "Billed": billed_in_words(job),
    }
    words = {name: cut(str(fact)) for name, fact in facts.items() if fact not in (None, "")}
    saved = []
    for document in job.unprinted[:1]:
        saved = saved_in(document)
    files = [gallery_file(job, facts, position) for position, facts in enumerate(saved)]
    entry = GalleryEntry(label, topic_in_gallery(job), words, files)
    if failure is None:
        return entry
    hint = advice(failure)
    if hint is not None:
        hint = redact(hint)
    return entry._replace(error=reasons_of(failure), hint=hint)


def reasons_of(failure: Failure) -> str:
    """What went wrong, with the reasons that its details alone tell."""
    texts = [failure.message]
    for row in failure.details or []:
        if row["message"] not in failure.message:
            texts.append(row["message"])
    return cut("; ".join(texts))


def gallery_file(job: Job, facts: Arguments, position: int) -> GalleryFile:
    """A row of the saved files, and what the file itself tells."""
    number = position
    if job.index is not None:
        number = job.index
    return GalleryFile(
        path=facts["path"],
        content_type=str(facts.get("content_type")),
        size=facts["bytes"],
        pixels=pixels_in_file(facts["path"]),
        number=number,
        is_flagged=bool(facts.get("flagged")),
    )


def topic_in_gallery(job: Job) -> str:
    """The prompt of a job, or what else it is about, as far as anybody knows."""
    topic = whole_topic_of(job.asked, job.arguments)
    if not topic and isinstance(job.response, dict):
        topic = whole_topic_of(job.response, {})
    if not topic and job.index is None:
        known = RUN.history.find(job.request_id) or {}
        topic = str(known.get("about") or "")
    return cut(topic, MAX_SHOWN)


def pixels_in_file(path: str) -> tuple[int, int] | None:
    """Width and height of a picture; None for what is none, or none that is read here."""
    try:
        with open_regular_file(path) as file, picture(path, file) as image:
            return image.size
    except Failure:
        return None


class Gallery:
    """A file that shows what became of the jobs of a command, as a page or as a contact sheet.

    It is written anew as each job ends, whole or not at all. No more than GALLERY_SHARE of the time
    goes into that: a job that ends too soon after the last writing waits for its turn, or for the
    end of the command. What cannot be written costs a note, and the command's exit status.
    """

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self.path = absolute_path(read_gallery_path(path))
        self.failure: Failure | None = None
        self.expected = 1  # jobs
        self.shows_files = False
        self._overwrite = overwrite
        self._failed: dict[int, bool] = {}  # by the places of the entries
        self._is_due = False
        self._may_write_at = 0.0  # in the event loop's seconds
        self._turn: asyncio.TimerHandle | None = None
        self._view: Page | Sheet = Page(os.path.dirname(self.path))
        if path.lower().endswith(GALLERY_SHEETS):
            self._view = Sheet(path)
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        """Leave alone what is no gallery of ours."""
        if not os.path.lexists(self.path) or self._overwrite:
            return
        with open_regular_file(self.path) as file:
            if GALLERY_MARK.encode() in file.read(MARK_WITHIN):
                return
        hint = "Name another file, or add --overwrite."
        raise usage_error(f"{self.path} is no gallery, and is not overwritten", hint)

    def show(self, index: int | None, entry: GalleryEntry) -> None:
        """Show what became of a job, by its index in a batch; the last word on it counts."""
        place = self._place_of(index)
        self._failed[place] = entry.error is not None
        self._view.add(place, entry)
        self.shows_files = self.shows_files or bool(entry.files)
        self._is_due = True
        self._write_in_turn()

    def _place_of(self, index: int | None) -> int:
        """The place of a job's entry: its index in a batch, elsewhere behind the entries so far.
        Where the last of these is a failure, it is of the same job, and gives its place away.
        """
        if index is not None:
            return index
        last = len(self._failed) - 1
        if self._failed.get(last):
            return last
        return last + 1

    def _write_in_turn(self) -> None:
        loop = asyncio.get_running_loop()
        if self._turn is None and loop.time() < self._may_write_at:
            self._turn = loop.call_at(self._may_write_at, self.complete)
        elif self._turn is None:
            self.complete()

    def complete(self) -> None:
        """Write what is not written yet."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if not self._is_due:
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.failure = None
        try:
            self._write()
        except (OSError, Failure) as exc:
            message = f"the gallery cannot be written: {reason_of(exc)}"
            note(message)
            self.failure = Failure("write_failed", message)
        self._is_due = False
        self._may_write_at = loop.time() + (loop.time() - began) / GALLERY_SHARE

    def _write(self) -> None:
        self._refuse_foreign()
        content = self._view.content(self._summary())
        with PartFile(os.path.dirname(self.path)) as part:
            part.write(content)
            part.finish()
            part.rename(self.path)

    def _summary(self) -> str:
        """How many jobs have ended, and how."""
        ended = len(self._failed)
        text = number_of(ended, "job")
        if ended < self.expected:
            text = f"{ended} of {number_of(self.expected, 'job')}"
        failed = sum(self._failed.values())
        if failed:
            text += f", {failed} failed"
        return f"{text} · {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"


@contextlib.contextmanager
def completing_galleries(job: Job) -> Iterator[None]:
    """Have the galleries of a command complete when its job ends, or all jobs of its batch."""
    galleries: list[Gallery] = []
    if job.index is None and job.saving is not None:
        galleries = job.saving.galleries
    try:
        yield
    finally:
        for gallery in galleries:
            gallery.complete()
    for gallery in galleries:
        if gallery.failure is not None:
            raise gallery.failure.happened_to(job)


# A page


class Page:
    """A gallery for browsers, which needs nothing but the files: links to them are relative to the
    page's folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._articles: dict[int, str] = {}

    def add(self, place: int, entry: GalleryEntry) -> None:
        self._articles[place] = article(entry, self._folder)

    def content(self, summary: str) -> bytes:
        form = ""
        if len(self._articles) == 1:
            form = ' class="lone"'
        text = GALLERY_PAGE.format(
            mark=GALLERY_MARK,
            policy=gallery_policy(),
            style=GALLERY_STYLE,
            summary=as_html(summary),
            form=form,
            articles="\n".join(self._articles[place] for place in sorted(self._articles)),
        )
        return text.encode()


def gallery_policy() -> str:
    """What the page may do: show files beside it, on a disk or on a server, in its own style."""
    digest = base64.b64encode(hashlib.sha256(GALLERY_STYLE.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src 'self' file:; media-src 'self' file:;"
        f" style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def as_html(text: str) -> str:
    """A text of whoever has written it, for a page: it ends no element, attribute or direction."""
    return html.escape(STEERING.sub(mark_of_character, text.replace("\r\n", "\n")))


def mark_of_character(match: re.Match[str]) -> str:
    return f"[U+{ord(match[0]):04X}]"


def article(entry: GalleryEntry, folder: str) -> str:
    """One job: its files, what it is about, what went wrong, and facts."""
    form = ""
    if entry.error is not None:
        form = ' class="failed"'
    parts = [f"<article{form}>"]
    if entry.files:
        figures = "\n".join(figure(file, entry, folder) for file in entry.files)
        parts.append(f'<div class="files">\n{figures}\n</div>')
    parts += ['<div class="text">', heading(entry)]
    if len(entry.topic) > MAX_HEADING:
        parts.append(
            "<details><summary>The whole prompt</summary>"
            f'<p dir="auto">{as_html(entry.topic)}</p></details>'
        )
    if entry.error is not None:
        parts.append(f'<p class="wrong">Failed: <bdi>{as_html(entry.error)}</bdi></p>')
    if entry.hint is not None:
        parts.append(f'<p class="hint"><bdi>{as_html(entry.hint)}</bdi></p>')
    if not entry.files and entry.error is None:
        parts.append('<p class="hint">The answer has no file.</p>')
    parts += [fact_list(entry.facts), "</div>", "</article>"]
    return "\n".join(parts)


def heading(entry: GalleryEntry) -> str:
    """The number of a job of a batch, and the start of what the job is about."""
    number = ""
    if entry.label:
        number = f'<span class="number">{entry.label}</span> '
    topic = entry.topic or "Without a prompt"
    if len(topic) > MAX_HEADING:
        topic = f"{topic[:MAX_HEADING].rstrip()}…"
    return f"<h2>{number}<bdi>{as_html(topic)}</bdi></h2>"


def fact_list(facts: Mapping[str, str]) -> str:
    rows = [f"<dt>{name}</dt><dd><bdi>{as_html(words)}</bdi></dd>" for name, words in facts.items()]
    return f"<dl>{''.join(rows)}</dl>"


def figure(file: GalleryFile, entry: GalleryEntry, folder: str) -> str:
    """A file as a browser shows or plays it, and a link to it."""
    link = html.escape(relative_url(file.path, folder))
    way = ""
    if file.content_type == SVG:
        way = " download"
    words = [f'<a href="{link}"{way}><bdi>{as_html(file.name)}</bdi></a>']
    if len(entry.files) > 1 and not entry.label:
        words.insert(0, f'<span class="number">{file.number}</span>')
    words.append(f'<span class="size">{", ".join(size_of_file(file))}</span>')
    if file.is_flagged:
        words.append('<strong class="wrong">Flagged by the content checker</strong>')
    lines = [f"<figcaption>{' '.join(words)}</figcaption>"]
    view = view_of_file(file, link, as_html(entry.topic or file.name))
    if view:
        lines.insert(0, f'<div class="view">{view}</div>')
    return "\n".join(["<figure>", *lines, "</figure>"])


def view_of_file(file: GalleryFile, link: str, words: str) -> str:
    """What shows or plays a file; nothing for what browsers do not know."""
    medium = file.content_type.partition("/")[0]
    if medium == "video":
        attributes = 'controls muted playsinline preload="metadata"'
        return f'<video {attributes} src="{link}" aria-label="{words}"></video>'
    if medium == "audio":
        return f'<audio controls preload="metadata" src="{link}" aria-label="{words}"></audio>'
    if file.content_type not in PICTURES_OF_BROWSERS:
        return ""
    sides = ""
    if file.pixels:
        sides = ' width="{}" height="{}"'.format(*file.pixels)
    image = f'<img src="{link}" alt="{words}"{sides} loading="lazy">'
    if file.content_type == SVG:
        return image  # opened by itself, it may run what a stranger has written
    return f'<a href="{link}" tabindex="-1">{image}</a>'


def relative_url(path: str, folder: str) -> str:
    """The way from a folder to a file, whatever characters are in it."""
    try:
        way = os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows'
        place = redact(path).replace(os.sep, "/")
        return "file:///" + urllib.parse.quote(os.fsencode(place), safe="/:")
    return urllib.parse.quote(os.fsencode(redact(way).replace(os.sep, "/")))


def size_of_file(file: GalleryFile) -> list[str]:
    """Such as 1024 x 768 and 31 kB."""
    words = []
    if file.pixels:
        words.append("{} x {}".format(*file.pixels))
    amount, unit = float(file.size), "B"
    for larger in ("kB", "MB", "GB"):
        if amount >= 999.5:
            amount, unit = amount / 1000, larger
    words.append(f"{amount:.3g} {unit}")
    return words


# A contact sheet

SHEET_SIDE = 2048  # pixels at most
LARGEST_TILE, SMALLEST_TILE = 512, 72
TILE_GAP = 8
MAX_TILES = 1100  # more than ever fit
MAX_SHEET_BYTES = 4_500_000  # of a PNG in all colours: some models that look at it take no more
SHEET_COLOURS = {
    "paper": "#f5f5f3",
    "ink": "#1d1f21",
    "tile": "#dededa",
    "failed": "#f3d3cf",
}


class Tile(NamedTuple):
    """A place of a contact sheet: a picture, or a text in its place."""

    caption: str
    thumbnail: Image.Image | None = None
    text: str = ""
    colour: str = "tile"


class SheetGrid(NamedTuple):
    """How a contact sheet is divided."""

    columns: int
    rows: int
    width: int  # of a picture, at most
    height: int

    @property
    def lines(self) -> int:
        """Those of a caption."""
        if self.width < 120:
            return 1
        return 2

    @property
    def text_size(self) -> int:
        return max(11, min(self.width // 20, 22))

    @property
    def step(self) -> tuple[int, int]:
        """From one tile to the next, across and down."""
        caption = round(self.lines * self.text_size * 1.3) + 4
        return self.width + TILE_GAP, self.height + caption + TILE_GAP

    @property
    def size(self) -> tuple[int, int]:
        across, down = self.step
        return self.columns * across + TILE_GAP, self.rows * down + TILE_GAP

    def is_within_sheet(self) -> bool:
        return max(self.size) <= SHEET_SIDE

    def corner(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.columns)
        across, down = self.step
        return TILE_GAP + column * across, TILE_GAP + row * down


def sheet_grid(count: int, shape: float) -> SheetGrid:
    """The grid with the largest tiles that has a place for all, or else for as many as can still be
    seen; `shape` is the height of the tallest picture by its width.
    """
    for width in range(LARGEST_TILE, SMALLEST_TILE - 1, -4):
        height = round(width * shape)
        grids = []
        for columns in range(1, min(count, SHEET_SIDE // SMALLEST_TILE) + 1):
            grid = SheetGrid(columns, -(-count // columns), width, height)
            if height <= LARGEST_TILE and grid.is_within_sheet():
                grids.append(grid)
        if grids:
            return min(grids, key=lambda grid: abs(grid.size[0] - grid.size[1]))
    smallest = SheetGrid(1, 1, SMALLEST_TILE, round(SMALLEST_TILE * shape))
    across, down = smallest.step
    room = SHEET_SIDE - TILE_GAP
    return smallest._replace(columns=room // across, rows=room // down)


class Sheet:
    """A gallery in one picture. Pictures are read one at a time, and thumbnails alone are kept, no
    larger than the tiles that they had last.
    """

    def __init__(self, name: str) -> None:
        self._is_png = name.lower().endswith(".png")
        self._tiles: dict[int, list[Tile]] = {}

    def add(self, place: int, entry: GalleryEntry) -> None:
        side = 0  # of what nobody will see
        if place < MAX_TILES:
            side = round(SHEET_SIDE / math.sqrt(len(self._tiles) + 1))
        self._tiles[place] = tiles_of(entry, min(side, LARGEST_TILE))

    def content(self, summary: str) -> bytes:
        """All tiles that can still be seen; the last of them tells how many are left out."""
        tiles = [tile for place in sorted(self._tiles) for tile in self._tiles[place]]
        grid = sheet_grid(len(tiles), shape_of(tiles))
        room = grid.columns * grid.rows
        if len(tiles) > room:
            left_out = len(tiles) - room + 1
            tiles = [*tiles[: room - 1], Tile("", text=f"{left_out} more")]
        image = Image.new("RGB", grid.size, SHEET_COLOURS["paper"])
        font = sheet_font(grid.text_size)
        for place, tile in enumerate(tiles):
            draw_tile(image, grid, grid.corner(place), tile, font)
        return self._encoded(image)

    def _encoded(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        if not self._is_png:
            image.save(buffer, "JPEG", quality=88, comment=GALLERY_MARK)
            return buffer.getvalue()
        facts = PngImagePlugin.PngInfo()
        facts.add_text("Software", GALLERY_MARK)
        image.save(buffer, "PNG", pnginfo=facts, compress_level=4)
        if buffer.tell() > MAX_SHEET_BYTES:
            buffer = io.BytesIO()
            image.quantize(palette=image.quantize(256)).save(buffer, "PNG", pnginfo=facts)
        return buffer.getvalue()


def tiles_of(entry: GalleryEntry, side: int) -> list[Tile]:
    """A tile for each file of a job, or one that says why there is none."""
    tiles = []
    for file in entry.files:
        caption = f"{file.number}: {entry.topic}"
        thumbnail = thumbnail_of(file.path, side)
        tiles.append(Tile(caption, thumbnail, file.name))
    caption = f"{entry.label}: {entry.topic}".removeprefix(": ")
    if entry.error is not None:
        tiles.append(Tile(caption, text=f"failed: {entry.error}", colour="failed"))
    elif not tiles:
        tiles.append(Tile(caption, text="no file"))
    return tiles


def thumbnail_of(path: str, side: int) -> Image.Image | None:
    """A small copy of a picture, upright and on white; None if it cannot be read."""
    if not side:
        return None
    size = (side, side)
    try:
        with open_regular_file(path) as file, picture(path, file) as image:
            image.draft(None, size)  # which reads a JPEG in less than its size
            if image.mode in ("L", "LA", "RGB", "RGBA"):
                image.thumbnail(size)
            upright, _ = in_mode_for(upright_picture(image), "JPEG")
            upright.thumbnail(size)
            return upright.convert("RGB")
    except (Failure, MemoryError):
        return None


def shape_of(tiles: Iterable[Tile]) -> float:
    """The height by the width that the tiles need: that of the tallest picture, within reason."""
    shapes = [tile.thumbnail.height / tile.thumbnail.width for tile in tiles if tile.thumbnail]
    return min(max(0.5, max(shapes, default=0.75)), 1.8)


def sheet_font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):  # a Pillow that draws no letters but its own
        return ImageFont.load_default()


def draw_tile(
    image: Image.Image, grid: SheetGrid, corner: tuple[int, int], tile: Tile, font: Any
) -> None:
    """A picture, or a box with a text in it, and the caption below."""
    left, top = corner
    drawing = ImageDraw.Draw(image)
    if tile.thumbnail is not None:
        tile.thumbnail.thumbnail((grid.width, grid.height))
        width, height = tile.thumbnail.size
        place = (left + (grid.width - width) // 2, top + (grid.height - height) // 2)
        image.paste(tile.thumbnail, place)
    else:
        box = (left, top, left + grid.width - 1, top + grid.height - 1)
        drawing.rectangle(box, SHEET_COLOURS[tile.colour])
        lines = max(1, int((grid.height - 8) / (grid.text_size * 1.3)))
        text = text_in_lines(tile.text, font, grid.width - 12, lines)
        drawing.multiline_text((left + 6, top + 4), text, SHEET_COLOURS["ink"], font)
    caption = text_in_lines(tile.caption, font, grid.width, grid.lines)
    drawing.multiline_text((left, top + grid.height + 2), caption, SHEET_COLOURS["ink"], font)


def text_in_lines(text: str, font: Any, width: int, most_lines: int) -> str:
    """The start of a text, in so many lines of so many pixels."""
    rest = drawable(text, font)
    lines: list[str] = []
    while rest and len(lines) < most_lines:
        line = line_within(rest, font, width)
        rest = rest[len(line) :].lstrip()
        lines.append(line.rstrip())
    if rest and lines:
        lines[-1] = lines[-1][:-1] + ".."
    return "\n".join(lines)


def line_within(text: str, font: Any, width: int) -> str:
    """As many words of a text as fit, or as many characters of the first; one at least."""
    counts = range(2, min(len(text), width) + 1)  # a character is a pixel wide at least
    count = 1 + bisect.bisect_right(counts, width, key=lambda end: font.getlength(text[:end]))
    if count >= len(text) or text[count] == " ":
        return text[:count]
    words = text[:count].rpartition(" ")[0]
    return words or text[:count]


def drawable(text: str, font: Any) -> str:
    """The start of a text on one line; question marks stand for what Pillow's own letters lack."""
    line = " ".join(printable(text[:400]).split())
    if not hasattr(font, "font_variant"):  # Pillow's own letters
        return line.encode("latin-1", "replace").decode("latin-1")
    return line


# ---------------------------------------------------------------------------------------------
# Search and prices: which models fal has, what they take, and what jobs are expected to cost.
# fal's platform API tells; looking models up needs no key, asking for prices does.
# ---------------------------------------------------------------------------------------------

COPY_IS_FRESH = 86400  # seconds that the copy of a document is used without asking fal
LOOK_UP_TIME = 10  # seconds for asking fal for a document, both attempts together
MAX_PAGES = 1000  # of one answer; all models of fal's are about 30 pages in 2026
ESTIMATE_LIMIT = 10.0  # seconds to wait for what jobs may cost


# What models take, with a copy for a day


async def fetch_schema(model: str, asked: Arguments | None = None) -> ModelSchema:
    """What the model takes, from a copy of at most a day, from fal, or else from an older copy.
    `asked`, by flag, chooses which models a failure suggests.
    """
    model_row, age = read_copy(model)
    copied = read_model_schema(model_row, model)
    if copied.input_schema is not None and 0 <= age < COPY_IS_FRESH:
        return copied
    try:
        model_row = await look_up(model)
    except Failure as failure:
        if failure.exit == Exit.USAGE:  # the network's settings, which nothing gets by
            raise
        reason = failure
    else:
        fetched = read_model_schema(model_row, model)
        if fetched.input_schema is not None:
            store_copy(model, model_row)
            return fetched
        reason = await unknown_model(model, model_row, asked or {})
    if copied.input_schema is not None:
        return copied._replace(state="stale")
    return ModelSchema(reason=reason)


async def unknown_model(model: str, model_row: Any, asked: Arguments) -> Failure:
    """Why there is no schema though fal has answered; what the model may be called instead."""
    if model_row is not None:
        hint = f"Its page may tell: https://fal.ai/models/{model}/api"
        return Failure("not_found", f"fal does not tell what {model} takes", hint=hint)
    message = f"fal's model search does not know {model}"
    likely = None
    with contextlib.suppress(Failure, TimeoutError):  # it only helps
        categories = await likely_endpoints(model)
        likely = did_you_mean(model, models_alike(model, categories, asked))
    return Failure("not_found", message, hint=likely or search_advice(model))


async def likely_endpoints(model: str) -> dict[str, str]:
    """The endpoints that fal's search finds by the family of one that does not exist, each with
    its category.
    """
    family = model.split("/")[1]
    query: Fields = {"q": family, "limit": MODELS_PAGE_SIZE}
    async with asyncio.timeout(LOOK_UP_TIME), platform(None) as client:
        response = await client.get(MODELS_URL, params=query)
        answer = response.raise_for_status().json()
    model_rows = descend(answer, ["models"])
    if not isinstance(model_rows, list):
        return {}
    categories = {}
    for model_row in model_rows:
        endpoint = descend(model_row, ["endpoint_id"])
        if is_text(endpoint):
            categories[endpoint] = category_of(model_row)
    return categories


async def look_up(model: str) -> Any:
    """The row of fal's model search, with the model's document; None if fal knows no such model.

    A second attempt is made with the key, if there is one, since that raises the rate limit.
    The Failure of the first attempt is raised if both fail.
    """
    deadline = seconds_from_now(LOOK_UP_TIME)
    try:
        return await request_row(model, None, deadline)
    except Failure as failure:
        if seconds_from_now(0) >= deadline:
            raise
        first_failure = failure
    key = None
    with contextlib.suppress(Failure):
        key = api_key()
    try:
        return await request_row(model, key, deadline)
    except Failure:
        raise first_failure from None


async def request_row(model: str, key: str | None, deadline: float) -> Any:
    """One attempt at the look-up; the deadline is in the event loop's seconds."""
    params = {"endpoint_id": model, "expand": "openapi-3.0"}
    try:
        async with asyncio.timeout_at(deadline), platform(key) as client:
            response = await client.get(MODELS_URL, params=params)
            if response.status_code == 404:
                return None
            answer = response.raise_for_status().json()
    except TimeoutError as exc:
        message = f"fal did not answer within {LOOK_UP_TIME} s"
        raise Failure("timeout", message, retryable=True) from exc
    model_rows = descend(answer, ["models"])
    if not isinstance(model_rows, list):
        message = "fal gave an answer that cannot be read: it lists no models"
        raise Failure("unexpected_answer", message)
    for model_row in model_rows:
        if descend(model_row, ["endpoint_id"]) == model:
            return model_row
    return None


def cache_file(model: str) -> str | None:
    """Where the copy of the model's row is; None if there is no place for it."""
    folder = user_folder(CACHE_FOLDER)
    if folder is None:
        return None
    return os.path.join(folder, model.replace("/", "~") + ".json")


def read_copy(model: str) -> tuple[Any, float]:
    """The copy of a model's row and its age in seconds; None if there is none of use."""
    path = cache_file(model)
    # torn, foreign or unreadable; ValueError is JSON, UTF-8 and a null character in the path
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path and os.path.isfile(path):  # opening a pipe would wait for ever
            with open(path, encoding="utf-8") as file:
                model_row = json.load(file)
            if descend(model_row, ["endpoint_id"]) == model:
                return model_row, time.time() - os.path.getmtime(path)
    return None, 0.0


def store_copy(model: str, model_row: Any) -> None:
    """Keep a model's row; a home that cannot be written to is no problem."""
    path = cache_file(model)
    if path is None:
        return
    with contextlib.suppress(OSError, RecursionError):
        content = json.dumps(model_row).encode()
        with PartFile(os.path.dirname(path)) as part:
            part.write(content)
            part.finish()
            part.rename(path)


# Models and prices


def catalog_text(models: Any) -> str:
    return "\n".join(f"{model['endpoint_id']}\t{model['title']}" for model in models)


def models_text(document: Any) -> str:
    """What list-models prints without --json: fields, counts, prices or models, one a line."""
    if isinstance(document, dict) and isinstance(document.get("properties"), dict):
        return schema_text(document)
    if isinstance(document, dict):
        return counts_text(document)
    if any("unit_price" in entry for entry in document):
        return prices_text(document)
    return search_text(document)


def counts_text(counts: Mapping[str, int]) -> str:
    """One line a category: its name and how many models it has."""
    return "\n".join(tabbed(category, count) for category, count in counts.items())


def prices_text(prices: Iterable[Fields]) -> str:
    """One line a price: endpoint, unit price, unit, currency."""
    columns = ("endpoint_id", "unit_price", "unit", "currency")
    return "\n".join(tabbed(*map(price.get, columns)) for price in prices)


def search_text(models: Iterable[Fields]) -> str:
    """One line a model: endpoint, category, title."""
    return "\n".join(map(model_line, models))


def model_line(model: Fields) -> str:
    facts = model_metadata(model)
    title = str(facts.get("display_name") or "")
    if facts.get("status") == "deprecated":
        title += " [deprecated]"
    return tabbed(model.get("endpoint_id"), category_of(model), title)


def tabbed(*columns: Any) -> str:
    """One line of text, whatever a server has put into its columns."""
    return "\t".join(printable(str(column)) for column in columns)


async def fetch_input_schema(model: str) -> Fields:
    """The JSON Schema of what a model takes; raises a Failure if fal does not tell."""
    schema = await fetch_schema(model)
    if schema.input_schema is None:
        assert schema.reason
        raise schema.reason
    return schema.input_schema


async def fetch_models(
    *,
    category: str | None = None,
    search: str | None = None,
    include_deprecated: bool = False,
    limit: float = math.inf,
) -> list[Fields]:
    """All models that fal lists, or pages of them to a limit: {"endpoint_id", "metadata"?} each.

    fal's model search takes the filters and works without a key; a key only raises its rate
    limit (https://docs.fal.ai/platform-apis/v1/models).
    """
    query = present(category=category, q=search, limit=MODELS_PAGE_SIZE)
    if not include_deprecated:
        query["status"] = "active"
    key = None
    with contextlib.suppress(Failure):
        key = api_key()
    async with platform(key) as client:
        return await fetch_pages(client, MODELS_URL, "models", query, limit)


async def why_no_model(
    *, category: str | None = None, search: str | None = None, include_deprecated: bool = False
) -> str:
    """What of the filters no model matches, and what to do."""
    if category and (search is None or await is_empty(category, include_deprecated)):
        near = did_you_mean(category, KINDS) or "--categories alone shows those there are."
        return f"fal lists no models of the category {category!r}. {near}"
    if search is None:
        return "fal lists no models"
    if category:
        return (
            f"no model of the category {category} matches {search!r}: search for fewer or other"
            " words, without --search, or without --category"
        )
    return f"no model matches {search!r}: search for fewer or other words"


async def is_empty(category: str, include_deprecated: bool) -> bool:
    """Whether fal says that a category has no models."""
    with contextlib.suppress(Failure):  # it only helps
        return not await fetch_models(
            category=category, include_deprecated=include_deprecated, limit=1
        )
    return False


async def fetch_requests(model: str, limit: int, start: float) -> list[Fields]:
    """The requests of the account to a model, with what went in and came out, as fal lists them:
    those since a start in seconds since 1970; without one it lists those of a day (2026).
    """
    query: Fields = {
        "endpoint_id": model,
        "limit": min(limit, 100),  # the most that fal takes
        "start": time.strftime(ISO_TIME, time.gmtime(start)),
        "expand": "payloads",
    }
    async with platform(api_key()) as client:
        rows = await fetch_pages(client, REQUESTS_URL, "items", query, limit)
    return rows[:limit]


async def fetch_pages(
    client: httpx.AsyncClient,
    url: str,
    name: str,
    query: Fields,
    limit: float = math.inf,
) -> list[Fields]:
    """What all pages of an answer hold under the name, or as many as it takes to the limit.

    A cursor that comes again ends the answer; a Failure is raised if it has no end at all.
    """
    entries: list[Fields] = []
    cursors: set[str] = set()
    for _ in range(MAX_PAGES):
        response = await client.get(url, params=query)
        page = response.raise_for_status().json()
        if not (isinstance(page, dict) and isinstance(page.get(name), list)):
            message = f"fal gave an answer that cannot be read: it has no list of {name}"
            raise Failure("unexpected_answer", message)
        entries += [entry for entry in page[name] if isinstance(entry, dict)]
        cursor = str(page.get("next_cursor") or "")
        if cursor == "" or cursor in cursors or len(entries) >= limit:
            return entries
        cursors.add(cursor)
        query = {**query, "cursor": cursor}
    message = f"fal's list of {name} has no end: it went on after {MAX_PAGES} pages"
    raise Failure("unexpected_answer", message)


def count_categories(models: Iterable[Fields]) -> dict[str, int]:
    """How many models each category has, the largest first."""
    counts = collections.Counter(map(category_of, models))
    by_name = sorted(counts.items())
    return dict(sorted(by_name, key=operator.itemgetter(1), reverse=True))


def category_of(model: Fields) -> str:
    return str(model_metadata(model).get("category") or "uncategorised")


def model_metadata(model: Fields) -> Fields:
    """fal leaves the metadata of some models out."""
    facts = model.get("metadata")
    if isinstance(facts, dict):
        return facts
    return {}


# What models make of what, as fal's categories and many endpoints have it.
KINDS = tuple(
    f"{source}-to-{result}"
    for source in ("text", "image", "video", "audio")
    for result in ("image", "video", "audio", "speech", "text", "3d", "json", "music")
)


def near_models(text: str, asked: Arguments | None = None) -> str:
    """A hint for an endpoint that does not exist."""
    categories = {
        **dict.fromkeys(TEXT_TO_IMAGE_MODELS, "text-to-image"),
        **dict.fromkeys(IMAGE_TO_VIDEO_MODELS, "image-to-video"),
    }
    near = did_you_mean(text, models_alike(text, categories, asked or {}), likeness=0.8)
    if near:
        return f"{near} {search_advice(text)}"
    return search_advice(text)


def models_alike(
    text: str, categories: Mapping[str, str | None], asked: Arguments
) -> Iterator[str]:
    """The models, by category, of the kind that an endpoint tells, or else that start from what
    the flags give. What kind a model is of is not always told.
    """
    wanted = kinds_in(text) or kinds_from(asked)
    for endpoint, category in categories.items():
        kinds = kinds_in(f"{endpoint}/{category}")
        if not wanted or not kinds or kinds & wanted:
            yield endpoint


def kinds_from(asked: Arguments) -> set[str]:
    """The kinds that start from what the flags give; none if they give nothing."""
    if asked.get("image_url"):
        return {kind for kind in KINDS if kind.startswith("image-")}
    if asked.get("prompt"):
        return {kind for kind in KINDS if kind.startswith("text-")}
    return set()


def kinds_in(endpoint: str) -> set[str]:
    """The kinds that stand in an endpoint, be they misspelt."""
    kinds = set()
    for part in endpoint.split("/"):
        if "-to-" in part[:MAX_LIKENESS]:
            kinds.update(difflib.get_close_matches(part[:MAX_LIKENESS], KINDS, n=1, cutoff=0.85))
    return kinds


def search_advice(model: str) -> str:
    last_part = model.rpartition("/")[2] or model
    return f"Search fal's models: {command_line('list-models', '--search', last_part)}"


def did_you_mean(text: str, candidates: Iterable[str], likeness: float = 0.6) -> str | None:
    near = difflib.get_close_matches(
        text[:MAX_LIKENESS],
        [candidate for candidate in candidates if len(candidate) <= MAX_LIKENESS],
        n=3,
        cutoff=likeness,
    )
    if not near:
        return None
    return f"Did you mean {' or '.join(near)}?"


async def fetch_prices(endpoints: Sequence[str]) -> list[Fields]:
    """Prices that fal names, in the order of the endpoints: {"endpoint_id", "unit_price", "unit",
    "currency"} each. Notes tell which are missing; a Failure is raised if all are.
    """
    positions = {name: position for position, name in enumerate(dict.fromkeys(endpoints))}
    async with platform(api_key()) as client:
        prices = await fetch_named_prices(client, list(positions))
    prices = [price for price in prices if price.get("unit_price") is not None]
    named = {price["endpoint_id"] for price in prices}
    missing = [f"fal names no price of {name}" for name in positions if name not in named]
    if not prices:
        hint = f"It may stand on the model's page, https://fal.ai/models/{endpoints[0]}"
        raise Failure("not_found", "; ".join(missing), hint=hint)
    for text in missing:
        note(text)
    return sorted(prices, key=lambda price: positions[price["endpoint_id"]])


async def fetch_named_prices(
    client: httpx.AsyncClient,
    endpoints: Sequence[str],
) -> list[Fields]:
    """The prices of the endpoints, each told once."""
    query = {"endpoint_id": endpoints}
    prices: dict[str, Fields] = {}
    for price in await fetch_pages(client, PRICES_URL, "prices", query):
        if price.get("endpoint_id") in endpoints:
            prices.setdefault(json.dumps(price, sort_keys=True), price)
    return list(prices.values())


class Estimate(NamedTuple):
    """What jobs may cost together, and what that was worked out from."""

    jobs: int
    total_cost: float
    currency: str
    basis: str


async def quote(
    endpoint: str, fits: Sequence[Fit], limit: float | None
) -> tuple[Fields | None, list[str]]:
    """The estimate for a dry run, or why there is none; only a limit insists on one."""
    try:
        reckoning = await reckoned(endpoint, fits, limit)
    except Failure as failure:
        if limit is not None:
            raise
        return None, [f"no estimate: {failure.message}"]
    return reckoning.estimate._asdict(), []


async def affordable(endpoint: str, fits: Sequence[Fit], limit: float) -> Reckoning:
    """What jobs that are about to be sent may cost. A note tells where it is not known whether
    they will cost more.
    """
    reckoning = await reckoned(endpoint, fits, limit)
    if reckoning.unknown:
        note(f"--max-cost holds by an estimate that may be too low: {reckoning.basis}")
    return reckoning


async def reckoned(endpoint: str, fits: Sequence[Fit], limit: float | None) -> Reckoning:
    """What jobs may cost; a Failure if it is above the limit, in USD."""
    if not fits:
        return Reckoning([], "nothing to submit")
    forecast = await fetch_forecast(endpoint, fits)
    reckoning = forecast.dearest._replace(price=forecast.only_price)
    estimate = reckoning.estimate
    if limit is None or reckoning.total <= limit:
        return reckoning
    cost = f"{estimate.total_cost:.12g} USD ({estimate.basis})"
    message = (
        f"{number_of(len(fits), 'job')} may cost {cost}, more than --max-cost {limit}: nothing was"
        f" sent; {forecast.room_in(limit)}"
    )
    details = [
        {"field": field, "message": str(value), "type": "estimate"}
        for field, value in estimate._asdict().items()
    ]
    raise Failure("over_budget", message, details=details)


async def fetch_forecast(endpoint: str, fits: Sequence[Fit]) -> Forecast:
    """What fal tells of the costs of such jobs. Raises a Failure where it does not tell."""
    key = api_key()
    demands = [Demand(fitted, endpoint) for fitted in fits]
    try:
        price_rows, history = await fetch_prices_and_history(key, endpoint, len(fits))
        quantities = []
        for price_row in price_rows:
            price = read_price(price_row)
            quantities.append((price, [quantity_of(demand, price.unit) for demand in demands]))
        forecast = Forecast(quantities, history / len(fits))
        forecast.check()
    except Failure as failure:
        jobs = f"{number_of(len(fits), 'job')} of {endpoint}"
        message = f"the price of {jobs} is not known: {failure.message}"
        raise Failure(
            "price_unknown",
            message,
            status=failure.status,
            retryable=failure.retryable,
        ) from failure
    return forecast


async def fetch_prices_and_history(
    key: str, endpoint: str, calls: int
) -> tuple[list[Fields], float]:
    """The prices of units that fal names, and what so many calls did cost, in USD."""
    question = {
        "estimate_type": "historical_api_price",
        "endpoints": {endpoint: {"call_quantity": calls}},
    }
    async with platform(key) as client:
        async with asyncio.timeout(ESTIMATE_LIMIT):
            prices, response = await asyncio.gather(
                fetch_named_prices(client, [endpoint]),
                client.post(f"{PRICES_URL}/estimate", json=question),
            )
        answer = response.raise_for_status().json()
        if not isinstance(answer, dict):
            message = "fal gave an answer that cannot be read: it is no estimate"
            raise Failure("unexpected_answer", message)
        history = dollars(answer, "total_cost")
        if not prices:
            raise Failure("not_found", "fal names no price")
        return prices, history


def dollars(facts: Arguments, name: str) -> float:
    """The amount that stands under the name; a Failure if it is no sum in USD."""
    amount, currency = as_number(facts.get(name)), facts.get("currency")
    if amount is None or not 0 <= amount < 1e100 or currency != "USD":
        message = f"fal's {name} is {facts.get(name)} {currency}, which is no sum in USD"
        raise Failure("unexpected_answer", message)
    return amount


# What jobs come to, by the list and by what calls did cost


class Price(NamedTuple):
    """What fal's list says of an endpoint: so many USD for one unit."""

    unit: Unit
    amount: float

    def cost_of(self, units: float) -> float:
        """What so many units cost, in USD."""
        return units * self.amount

    @property
    def words(self) -> str:
        return f"{self.amount:.12g} USD {self.unit.words}"


def read_price(price_row: Arguments) -> Price:
    """A row of fal's list; a Failure if it is no sum in USD."""
    return Price(unit_of(price_row.get("unit")), dollars(price_row, "unit_price"))


class Reckoning(NamedTuple):
    """What each of the jobs may cost in USD, and what that was worked out from; `unknown` is why
    nobody knows whether it is more; `price` is that of fal's list, if it has one and no more.
    """

    costs: list[float]
    basis: str
    unknown: str = ""
    price: Price | None = None

    @property
    def total(self) -> float:
        return round(math.fsum(self.costs), 9)  # 3 x 0.1 is 0.3

    @property
    def estimate(self) -> Estimate:
        return Estimate(
            jobs=len(self.costs),
            total_cost=self.total,
            currency="USD",
            basis=self.basis,
        )

    def jobs_within(self, limit: float) -> int:
        """How many of the jobs, in their order, cost no more together."""
        number = 0
        total = 0.0
        for cost in self.costs:
            total += cost
            if round(total, 9) > limit:
                break
            number += 1
        return number


HISTORY_ALONE = "from history alone"


class Forecast(NamedTuple):
    """What is known of the costs of jobs: how much they take of the unit of each price, and what
    a call of the model did cost on average.
    """

    quantities: list[tuple[Price, list[Quantity]]]
    average: float

    @property
    def only_price(self) -> Price | None:
        if len(self.quantities) > 1:
            return None
        return self.quantities[0][0]

    def check(self) -> None:
        """Raise a Failure where neither a price nor history tells what a job costs."""
        for price, quantities in self.quantities:
            reason = unknown_among(quantities)
            if reason and price.amount and not self.average:
                raise Failure("not_found", f"fal has no history of it, and {reason}")

    def reckonings(self) -> list[Reckoning]:
        reckonings = []
        for price, quantities in self.quantities:
            reckonings.append(by_list_price(price, quantities, self.average))
            reckonings.append(by_history(price, quantities, self.average))
        return reckonings

    @property
    def dearest(self) -> Reckoning:
        """Of two that come to the same, that by the list. It tells what is not known, be it of
        another price.
        """
        dearest = max(self.reckonings(), key=lambda reckoning: reckoning.total)
        for _, quantities in self.quantities:
            reason = unknown_among(quantities)
            if reason and not dearest.unknown:
                basis = f"{dearest.basis}, or more: {reason}"
                dearest = dearest._replace(basis=basis, unknown=reason)
        return dearest

    def room_in(self, limit: float) -> str:
        """How many of the jobs would fit into a limit; or of the one job's images, how many."""
        _, quantities = self.quantities[0]
        if len(quantities) > 1:
            number = min(reckoning.jobs_within(limit) for reckoning in self.reckonings())
            jobs = f"{len(quantities)} jobs"
            return f"{number or 'none'} of the {jobs} would fit into {money(limit)} USD"
        (quantity,) = quantities
        if quantity.results == 1:
            return f"it does not fit into {money(limit)} USD"
        fewer = self._results_within(quantity.results, limit)
        things = number_of(quantity.results, quantity.thing)
        return f"{fewer or 'none'} of its {things} would fit into {money(limit)} USD"

    def _results_within(self, results: float, limit: float) -> int:
        """How many of the one job's results would fit into a limit that all of them exceed."""
        fewer = int(results * limit / self.dearest.total)
        if fewer and self.of_results(fewer).dearest.total > limit:  # a unit at least is billed
            return 0
        return fewer

    def of_results(self, results: int) -> Forecast:
        """The same for jobs that make so many results each."""
        fewer = []
        for price, quantities in self.quantities:
            fewer.append((price, [quantity._replace(results=results) for quantity in quantities]))
        return self._replace(quantities=fewer)


def by_history(price: Price, quantities: Sequence[Quantity], average: float) -> Reckoning:
    """What as many calls did cost; more if more than one image is asked for of each, unless the
    price of an image tells that better.
    """
    costs = [quantity.results * average for quantity in quantities]
    basis = results_in_words(quantities)
    if price.unit.noun == "image":
        costs = [average] * len(quantities)
        basis = calls_in_words(len(quantities))
    reason = unknown_among(quantities)
    if reason:
        basis += f", {HISTORY_ALONE}: {reason}"
    return Reckoning(costs, basis, reason)


def by_list_price(price: Price, quantities: Sequence[Quantity], average: float) -> Reckoning:
    """What the units come to that the jobs take. Of a job of which nobody knows these, what
    history tells, and no less than the units that it takes at least.
    """
    costs = []
    by_units = []
    in_history = []
    for quantity in quantities:
        cost = price.cost_of(quantity.units)
        past = average * quantity.results
        if quantity.unknown and past > cost:
            in_history.append(quantity)
            cost = past
        else:
            by_units.append(quantity)
        costs.append(cost)
    parts = []
    if by_units:
        parts.append(f"{quantities_in_words(by_units)} x {price.words}")
    if in_history:
        parts.append(f"{results_in_words(in_history)}, {HISTORY_ALONE}")
    basis = " + ".join(parts)
    reason = unknown_among(quantities)
    if reason:
        basis += f": {reason}"
    return Reckoning(costs, basis, reason)


def unknown_among(quantities: Iterable[Quantity]) -> str:
    """Why it is not known how much a job takes; empty if it is of all."""
    for quantity in quantities:
        if quantity.unknown:
            return quantity.unknown
    return ""


def calls_in_words(calls: int) -> str:
    return f"what {number_of(calls, 'call')} cost on average in the past"


def results_in_words(quantities: Sequence[Quantity]) -> str:
    results = sum(quantity.results for quantity in quantities)
    if results <= len(quantities):
        return calls_in_words(len(quantities))
    things = number_of(results, quantities[0].thing)
    return f"{things} x what a call cost on average in the past"


def quantities_in_words(quantities: Sequence[Quantity]) -> str:
    """2 clips x 8 s; what several jobs take alike is told once."""
    counts: dict[tuple[str, str], float] = {}
    for quantity in quantities:
        alike = (quantity.thing, quantity.words)
        counts[alike] = counts.get(alike, 0) + quantity.results
    parts = []
    for (thing, words), count in counts.items():
        parts.append(" x ".join(filter(None, [number_of(count, thing), words])))
    if len(parts) == 1:
        return parts[0]
    if len(parts) <= MAX_NAMED:
        return f"({' + '.join(parts)})"
    units = math.fsum(quantity.units for quantity in quantities)
    return f"{len(quantities)} jobs of {units:.12g} units in all"


def number_of(count: float, thing: str) -> str:
    if count == 1:
        return f"1 {thing}"
    return f"{count:.12g} {thing}s"


def money(amount: float) -> str:
    """With two decimals, or more where there are."""
    amount = round(amount, 9)  # 3 x 0.1 is 0.3
    return max(f"{amount:.2f}", f"{amount:.12g}", key=len)


# What was billed


def billed_in_words(job: Job) -> str | None:
    """The units that fal told of a job, in its list's word if the list was asked, and what they
    come to by it; None if fal told none.
    """
    units = job.billable_units
    if units is None:
        return None
    if job.price is None:
        return number_of(units, "unit")
    return f"{job.price.unit.billed(units)}, {money(job.price.cost_of(units))} USD by fal's list"


MAX_PRICED = 50  # endpoints in one question to fal's pricing API (2026)
COSTS_BASIS = "a reckoning of billed units by fal's list prices of today, and not the bill"


async def costs_of(jobs: Iterable[Fields]) -> list[Fields]:
    """What jobs of the list come to by day and endpoint, the newest day first, and in all."""
    groups: dict[tuple[str, str], list[float | None]] = {}
    for job in jobs:
        day = str(job.get("submitted_at") or "-")[:10]
        groups.setdefault((day, job["model"]), []).append(job.get("billable_units"))
    if not groups:
        return []
    priced = [endpoint for (_, endpoint), units in groups.items() if any_known(units)]
    prices = await fetch_list_prices(list(dict.fromkeys(priced)))
    rows = [
        cost_row(day, endpoint, units, prices.get(endpoint))
        for (day, endpoint), units in groups.items()
    ]
    rows.sort(key=lambda row: str(row["day"]), reverse=True)
    total = total_of_costs(rows)
    if total["unknown"]:
        note(
            f"{total['unknown']} of {total['jobs']} jobs are in no sum: fal has told no units of"
            " them, as of no call of realtime; --live asks about those that have not ended"
        )
    note(f"costs are {COSTS_BASIS}, which is at {BILLING_PAGE}")
    return [*rows, total]


def any_known(units: Iterable[float | None]) -> bool:
    return any(number is not None for number in units)


def cost_row(
    day: str, endpoint: str, units: Sequence[float | None], price_row: Fields | None
) -> Fields:
    """What the jobs of a day and endpoint took: units and USD are None if nobody knows them."""
    known = [number for number in units if number is not None]
    total = round(math.fsum(known), 9) if known else None
    usd = None
    if total is not None and price_row is not None:
        usd = round(total * dollars(price_row, "unit_price"), 9)
    return {
        "day": day,
        "endpoint": endpoint,
        "jobs": len(units),
        "units": total,
        "unit": price_row.get("unit") if price_row else None,
        "usd": usd,
        "unknown": len(units) - len(known),
    }


def total_of_costs(rows: Sequence[Fields]) -> Fields:
    """The last row. Units are of many kinds, and have no sum."""
    sums = [row["usd"] for row in rows if row["usd"] is not None]
    return {
        "day": "total",
        "endpoint": None,
        "jobs": sum(row["jobs"] for row in rows),
        "units": None,
        "unit": None,
        "usd": round(math.fsum(sums), 9) if sums else None,
        "unknown": sum(row["unknown"] for row in rows),
        "basis": COSTS_BASIS,
    }


def costs_text(rows: Iterable[Fields]) -> str:
    """One line a day and endpoint: day, endpoint, jobs, units, unit, USD; the last is the total."""
    lines = []
    for row in rows:
        units = "-" if row["units"] is None else f"{row['units']:.12g}"
        usd = "-" if row["usd"] is None else money(row["usd"])
        columns = [row["day"], row["endpoint"] or "-", row["jobs"], units, row["unit"] or "-", usd]
        lines.append(tabbed(*columns))
    return "\n".join(lines)


async def fetch_list_prices(endpoints: Sequence[str]) -> dict[str, Fields]:
    """The one price in USD of each endpoint; a note tells of those that have none."""
    price_rows: list[Fields] = []
    if endpoints:
        async with platform(api_key()) as client:
            for start in range(0, len(endpoints), MAX_PRICED):
                some = endpoints[start : start + MAX_PRICED]
                price_rows += await fetch_known_prices(client, some)
    prices = {}
    for endpoint in endpoints:
        own_rows = [row for row in price_rows if row["endpoint_id"] == endpoint]
        reason = why_no_price(own_rows)
        if reason:
            note(f"{reason} of {endpoint}: what its jobs come to is not known")
        else:
            prices[endpoint] = own_rows[0]
    return prices


def why_no_price(price_rows: Sequence[Fields]) -> str | None:
    """Why an endpoint has no price that a unit could be reckoned by; None if it has one."""
    if len(price_rows) > 1:
        return "fal names several prices"
    try:
        for price_row in price_rows:
            dollars(price_row, "unit_price")
            return None
    except Failure as failure:
        return failure.message
    return "fal names no price"


async def fetch_known_prices(client: httpx.AsyncClient, endpoints: Sequence[str]) -> list[Fields]:
    """The prices of those endpoints that fal knows, be it that one that it does not know makes
    fal refuse them all.
    """
    try:
        return await fetch_named_prices(client, endpoints)
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code != 404:
            raise
    if len(endpoints) == 1:
        return []
    middle = len(endpoints) // 2
    first = await fetch_known_prices(client, endpoints[:middle])
    return first + await fetch_known_prices(client, endpoints[middle:])


# Units: what fal's names for them mean


class Measured(NamedTuple):
    """How much of something each result of a job takes: so much, in words; or nobody knows, and
    `words` say why. Then it takes `at_least` so much all the same.
    """

    amount: float | None
    words: str = ""
    at_least: float = 0.0

    @property
    def known(self) -> float:
        """What it takes in any case."""
        if self.amount is None:
            return self.at_least
        return self.amount


class Unit(NamedTuple):
    """What fal bills by: a number of what the noun says, of each thing that a job makes.

    `base` is how much of what is measured the noun means, as 60 seconds are a minute; `is_whole`
    if a part of a unit with a number counts as one.
    """

    noun: str
    thing: str  # empty for an image or a clip, whichever the job makes
    measure: Callable[[Demand], Measured]
    base: float = 1.0
    number: float = 1.0
    is_whole: bool = False

    @property
    def size(self) -> float:
        return self.base * self.number

    @property
    def name(self) -> str:
        if self.number == 1:
            return self.noun
        return number_of(self.number, self.noun)

    def in_words(self, amount: float) -> str:
        """So many units."""
        if self.number != 1 or self.measure is not_measured:
            return f"{amount:.4g} x {self.name}"
        return number_of(round(amount, 4), self.noun)

    def billed(self, units: float) -> str:
        """So many units, in words and to the last digit, as they are billed."""
        if self.number != 1 or self.measure is not_measured:
            return f"{units:.12g} x {self.name}"
        return number_of(units, self.noun)

    @property
    def words(self) -> str:
        if self.number != 1 or self.measure is not_measured:
            return f"per {self.name}"
        if self.noun.startswith(("a", "e", "i", "o", "hour")):
            return f"an {self.noun}"
        return f"a {self.noun}"


class Quantity(NamedTuple):
    """How much of a unit a job takes: so much of it for each of its results, and one in all at
    least. `words` tell how much a result takes; `unknown` why nobody knows whether it is more.
    """

    results: float
    per_result: float
    thing: str
    words: str
    unknown: str = ""

    @property
    def units(self) -> float:
        return max(self.results * self.per_result, 1.0)


def quantity_of(demand: Demand, unit: Unit) -> Quantity:
    """How much of a unit a job takes.

    Of units such as 5 seconds each result takes whole ones; it is not known whether fal bills
    parts of them.
    """
    results = demand.results
    thing = unit.thing or demand.thing
    measured = unit.measure(demand)
    if measured.amount is None:
        return quantity_at_least(unit, results, thing, measured)
    words = measured.words
    per_result = round(measured.amount / unit.size, 9)
    if unit.is_whole and unit.number != 1:
        per_result = math.ceil(per_result)
        words += f" (taken as {unit.in_words(per_result)})"
    elif per_result * results < 1:
        words = f"{words} (taken as {unit.in_words(1)})".strip()
    quantity = with_surcharges(demand, Quantity(results, per_result, thing, words))
    tier = dearer_tier(demand)
    if tier and unit.noun != "megapixel":
        quantity = quantity._replace(unknown=f"{tier} may cost more than the list tells")
    return quantity


def quantity_at_least(unit: Unit, results: float, thing: str, measured: Measured) -> Quantity:
    """What results take at least of which nobody knows how much they take."""
    per_result = measured.at_least / unit.size
    words = f"{unit.in_words(per_result)} at least"
    if per_result * results < 1:
        words = f"{unit.in_words(1)} in all at least"
    return Quantity(results, per_result, thing, words, unknown=measured.words)


def dearer_tier(demand: Demand) -> str:
    """The resolution that is asked for, if it is above the model's own: fal's list has one price,
    and some models take double for 4K (2026).
    """
    asked_sizes = Canvas(demand.named_fields).fields
    asked_by_name = {size_field.name: size_field for size_field in asked_sizes}
    for size_field in Canvas(demand.fitted.model_fields).fields:
        name = size_field.name
        is_asked = name in demand.arguments and name in asked_by_name
        if not is_asked or not size_field.is_resolution:
            continue
        usual = max(extent_held(size_field).pixels, default=0.0)
        asked = max(extent_held(asked_by_name[name]).pixels, default=0.0)
        if usual and asked > 1.01 * usual:
            return f"{name} {str(demand.arguments[name])[:40]}"
    return ""


def with_surcharges(demand: Demand, quantity: Quantity) -> Quantity:
    """What fields ask that change the price by their own description, as a detail pass may."""
    for field in demand.fitted.model_fields:
        words = surcharge_in_words(demand, field)
        if not words:
            continue
        factor = largest_factor(words)
        if factor <= 1:
            reason = f"the model says that {field.name} changes the price"
            return quantity._replace(unknown=reason)
        shown = f"{factor:.12g} ({field.name} may change the price)"
        quantity = quantity._replace(
            per_result=quantity.per_result * factor,
            words=" x ".join(filter(None, [quantity.words, shown])),
        )
    return quantity


def largest_factor(text: str) -> float:
    """The largest of the factors that a text names; 0 if it names none."""
    factors = [0.0]
    for word in factors_in(text):
        factors.append(FACTOR_WORDS.get(word) or as_number(word) or 0.0)
    return max(factors)


def surcharge_in_words(demand: Demand, field: ModelField) -> str:
    """What a description says of a price that is higher for what is sent; empty if nothing.

    Where it names one of the values that are offered, the others are not meant.
    """
    value = demand.arguments.get(field.name)
    if value is None or value is False or is_same_value(value, field.default):
        return ""
    sentences = re.split(r"(?<=[.!])\s", field.description[:MAX_REFERENCE].lower())
    words = " ".join(text for text in sentences if re.search(PRICE_WORDS, text))
    is_dearer = re.search(DEARER_WORDS, words) is not None or factors_in(words) != []
    if not is_dearer:
        return ""
    has_values = any(is_named_in(words, offered) for offered in offered_values(field.schema))
    if has_values and not is_named_in(words, value):
        return ""
    return words


def is_named_in(text: str, value: Any) -> bool:
    """Whether the first word of a value stands in a text, be it as "8s"."""
    words = words_of(str(value))
    if not words:
        return False
    return re.search(rf"\b{re.escape(words[0])}s?\b", text) is not None


def factors_in(text: str) -> list[str]:
    """2 of "2x" or "2.0 times", or a word such as double."""
    words = "|".join(FACTOR_WORDS)
    pairs = re.findall(rf"\b({MEASURE}) ?(?:x|times)\b|\b({words})", text)
    return [number or word for number, word in pairs]


PRICE_WORDS = r"(?<!at the )\bcosts?\b|\b(pric(e|es|ed|ing)|charge[sd]?|bill(s|ed|ing)?)\b"
DEARER_WORDS = r"\b(more|extra|additional|higher|surcharge|dearer|increas\w+|multipl\w+)\b"
FACTOR_WORDS = {"double": 2.0, "twice": 2.0, "triple": 3.0}


# What a job asks for, as far as its arguments tell

MEGAPIXEL = 1_000_000  # pixels
SOLD_AS_ONE = 1024 * 1024
MAX_AMOUNT = 1e9  # of anything that an argument asks for; what is more is a mistake
COUNT_FIELDS = (
    *FLAGS_BY_DEST["num_images"].names,
    "max_images",
    "num_videos",
    "num_outputs",
    "num_samples",
    "num_images_per_prompt",
    "num_results",
    "num_generations",
    "num_variations",
    "number_of_images",
    "image_count",
    "series_amount",
    "batch_size",
    "n",
)
FACTOR_LIKE = (
    r"((up)?scal(e|ing)|upsampl(e|ing)|resiz(e|ing)|enlarge(ment)?|magnification)_(factor|by)"
    r"|upscal(e|ing)|outscale"
)
# The last words of names of texts that are read aloud or written about.
TEXT_WORDS = (
    r"texts?|prompts?|scripts?|lyrics|inputs?|contents?|transcripts?|dialogues?|speech|messages?"
    r"|sentences?|captions?|descriptions?|instructions?|query"
)


class Demand:
    """What a job asks of a model: what it sends, and the model's defaults for what it leaves out.

    `held` has that as the defaults of its fields, so that whatever reads a model's defaults reads
    what holds for this job. What is sent though the schema has no such field is among them, and in
    `unnamed`: fal ignores it, unless its document is not complete.
    """

    def __init__(self, fitted: Fit, endpoint: str = "") -> None:
        self.fitted = fitted
        self.arguments = fitted.arguments
        self.endpoint = endpoint
        properties = {}
        for name in {**fitted.fields, **fitted.arguments}:
            schema = fitted.fields.get(name, {})
            if name in fitted.arguments or "default" in schema:
                schema = schema_holding(schema, fitted.arguments.get(name, schema.get("default")))
            properties[name] = schema
        self.unnamed: set[str] = set()
        if fitted.fields:
            self.unnamed.update(properties.keys() - fitted.fields.keys())
        self.held = Fit({"properties": properties})
        self.held.arguments = fitted.arguments

    @property
    def fields(self) -> list[ModelField]:
        return self.held.model_fields

    def amount(self, field: ModelField) -> float | None:
        """The number that a field has, None if nobody gave it any. Raises a Failure for an
        argument that is none above 0.
        """
        amount = amount_in(field.default)
        if amount is None and field.name in self.arguments:
            refuse_amount(field.name, field.default)
        return amount

    @functools.cached_property
    def results(self) -> float:
        """How many results the job makes: what its arguments count is multiplied."""
        like = str(FLAGS_BY_DEST["num_images"].like)
        count = 1.0
        for field in self.fields:
            amount = None
            if field.name in COUNT_FIELDS:
                amount = self.amount(field)
            elif re.fullmatch(like, "_".join(field.words)):
                amount = amount_in(field.default)  # --num-images may have been sent so
            if amount is not None and amount % 1:
                refuse_amount(field.name, field.default)
            count *= amount or 1.0
        return count

    @property
    def thing(self) -> str:
        """What the model makes, as far as its name and its fields tell."""
        is_named = any(re.fullmatch(r"videos?|\w2v", word) for word in words_of(self.endpoint))
        if is_named or self.frame_fields or length_fields(self):
            return "clip"
        return "image"

    @property
    def named_fields(self) -> list[ModelField]:
        return [field for field in self.fields if field.name not in self.unnamed]

    @property
    def frame_fields(self) -> list[ModelField]:
        return [field for field in self.fields if find_like([field], FRAMES_LIKE) is not None]

    @functools.cached_property
    def rate(self) -> float | None:
        """Frames a second, if anything tells."""
        for field in self.frame_fields:
            rate = frame_rate(self.held, field)
            if rate is not None:
                return rate
        return frame_rate(self.held, ModelField("frames", {}, is_required=False))

    def media(self, *kinds: str) -> list[str]:
        """The pictures, clips or sounds that are sent."""
        sources = []
        for leaf in leaves(self.arguments):
            if not is_media_source(leaf.name, leaf.value):
                continue
            kind = kind_by_examples({"default": leaf.value})
            kind = kind or kind_by_words(reversed(words_of(leaf.name)))
            if kind in kinds:
                sources.append(leaf.value)
        return sources


def schema_holding(schema: Fields, value: Any) -> Fields:
    """A schema with a value as its default; what an object leaves out has the schema's defaults."""
    holding = dict(schema)
    if isinstance(value, dict):
        defaults = {}
        for variant in variants(schema):
            for inner in fields_of(variant):
                if "default" in inner.schema:
                    defaults[inner.name] = inner.default
        value = {**defaults, **value}
        if not schema:
            holding["properties"] = {name: {} for name in value}
    elif isinstance(value, list) and not schema:
        holding.update(type="array", items={"type": "number"})
    elif not schema and has_type(value, "boolean"):
        holding["type"] = "boolean"
    elif not schema and is_bound(value):
        holding["type"] = "number"
    holding["default"] = value
    return holding


def amount_in(value: Any) -> float | None:
    """A number or a text such as "5s", if it is above 0 and none that is absurd."""
    amount = as_number(value) or in_seconds(value) or 0.0
    if 0 < amount < MAX_AMOUNT:
        return amount
    return None


def refuse_amount(name: str, value: Any) -> NoReturn:
    shown = json_text(value)[:80]
    raise Failure("unexpected_answer", f"{name} is no number to be billed by: {shown}")


# Measures: how much of something each result of a job takes


def not_measured(demand: Demand) -> Measured:
    return Measured(None, "how much of that unit a job takes is not known before it has run")


def one_result(demand: Demand) -> Measured:
    return Measured(1.0)


def one_unit(demand: Demand) -> Measured:
    return Measured(1.0, "1 unit (what a unit is fal does not say)")


def seconds_of(demand: Demand) -> Measured:
    """The longest of the lengths that are told: in seconds, in shots, or in frames at a rate."""
    lengths: list[Measured] = []
    seconds = max([*lengths_in_seconds(demand), length_of_shots(demand)])
    if seconds:
        lengths.append(Measured(seconds, f"{seconds:.12g} s"))
    frames = most_frames(demand)
    if frames and demand.rate:
        words = f"{frames / demand.rate:.4g} s ({frames:.12g} frames at {demand.rate:.4g} a second)"
        lengths.append(Measured(frames / demand.rate, words))
    if not lengths:
        return Measured(None, "how long the result will be is not known")
    longest = max(lengths, key=lambda length: length.amount or 0.0)
    return unless_decided_by_media(demand, longest)


def unless_decided_by_media(demand: Demand, length: Measured) -> Measured:
    """A length, unless it is a default that may not hold for what is sent, as of an avatar, or
    stands where the model may not read it.
    """
    names = [field.name for field in (*length_fields(demand), *demand.frame_fields)]
    is_asked_for = any(name in demand.arguments for name in names)
    if names and demand.unnamed.issuperset(names):
        reason = f"the model names no {names[0]}"
    elif is_asked_for or not demand.media("video", "audio"):
        return length
    else:
        reason = "a clip or a sound that is sent decides how long the result will be"
    return Measured(None, reason, at_least=length.known)


def length_fields(demand: Demand) -> list[ModelField]:
    flag = FLAGS_BY_DEST["duration"]
    fields = []
    for field in demand.fields:
        is_like = re.fullmatch(str(flag.like), "_".join(field.words)) is not None
        if field.name in flag.names or is_like:
            fields.append(field)
    return fields


def is_in_frames(demand: Demand, field: ModelField) -> bool:
    """Whether a length is one in frames, as the model's own field of that name tells."""
    own_field = find_named(demand.fitted.model_fields, [field.name])
    return own_field is not None and counts_frames(demand.fitted, own_field)


def lengths_in_seconds(demand: Demand) -> list[float]:
    """The lengths that fields tell; one that a name of --duration does must be a number."""
    lengths = []
    for field in length_fields(demand):
        if is_in_frames(demand, field):
            continue
        seconds = clock_in_seconds(field.default)
        if seconds is None and field.name in FLAGS_BY_DEST["duration"].names:
            seconds = demand.amount(field)
        elif seconds is None:
            seconds = amount_in(field.default)
        if "ms" in field.words:
            seconds = (seconds or 0.0) / 1000
        lengths.append(seconds or 0.0)
    return lengths


def clock_in_seconds(value: Any) -> float | None:
    """01:30 or 00:01:30 as seconds, None for what is no such text."""
    match = re.fullmatch(r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2})", str(value)[:20])
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def length_of_shots(demand: Demand) -> float:
    """What the shots of a list last together, as each tells."""
    seconds = 0.0
    for leaf in leaves(demand.arguments):
        is_of_a_shot = leaf.outer is not None and leaf.outer.outer is not None
        if is_of_a_shot and leaf.name in FLAGS_BY_DEST["duration"].names:
            seconds += amount_in(leaf.value) or 0.0
    return seconds


def most_frames(demand: Demand) -> float:
    """The largest number of frames that a field tells; 0 if none does."""
    fields = [field for field in length_fields(demand) if is_in_frames(demand, field)]
    fields += demand.frame_fields
    numbers = [demand.amount(field) or 0.0 for field in fields]
    return max(numbers, default=0.0)


def frames_of(demand: Demand) -> Measured:
    """The number of frames; or as many as the rate makes of the seconds."""
    numbers = [most_frames(demand)]
    seconds = seconds_of(demand).amount
    if seconds and demand.rate:
        numbers.append(math.ceil(round(seconds * demand.rate, 6)))
    frames = max(numbers)
    if not frames:
        return Measured(None, "how many frames the result will have is not known")
    return unless_decided_by_media(demand, Measured(frames, f"{frames:.12g} frames"))


def steps_of(demand: Demand) -> Measured:
    flag = FLAGS_BY_DEST["num_inference_steps"]
    steps = 0.0
    for field in demand.fields:
        if field.name in flag.names or re.fullmatch(str(flag.like), "_".join(field.words)):
            steps = max(steps, demand.amount(field) or 0.0)
    if not steps:
        return Measured(None, "how many steps it takes is not known")
    return Measured(steps, f"{steps:.12g} steps")


def characters_of(demand: Demand) -> Measured:
    """The length of the texts that are sent.

    It is taken by the share: fal's 1000 characters are the scale of a small price, and its bills
    have parts of them (2026).
    """
    texts = {field.name: field.default for field in demand.fields}
    length = 0
    for leaf in leaves(texts):
        if isinstance(leaf.value, str) and is_counted_text(leaf.name, leaf.value):
            length += len(leaf.value)
    if not length:
        return Measured(None, "no text is sent that could be counted")
    return Measured(length, number_of(length, "character"))


def is_counted_text(name: str, text: str) -> bool:
    """Whether a text is one that is read aloud or written about, as its name tells."""
    words = words_of(name)
    if not words or "negative" in words or not re.fullmatch(TEXT_WORDS, words[-1]):
        return False
    return not is_media_source(name, text)


def megapixels_of(demand: Demand) -> Measured:
    """The pixels of each result, in millions: of an image, or of all frames of a clip."""
    pixels = pixels_of_result(demand)
    if pixels is None:
        return Measured(None, "the size of the result is not known")
    if demand.thing == "image":
        return megapixels_in(pixels)
    frames = frames_of(demand)
    if frames.amount is None:
        return Measured(None, frames.words, at_least=pixels / MEGAPIXEL)
    measured = megapixels_in(pixels * frames.amount)
    return measured._replace(words=f"{frames.words} x {pixels / MEGAPIXEL:.3g} megapixels")


def megapixels_in(pixels: float) -> Measured:
    """The megapixels that fal bills: it rounds up, as its pages on Flux say, and sells 1024 x 1024
    as one (2026). Where the plain millions are more, they count.
    """
    millions = pixels / MEGAPIXEL
    whole = math.ceil(pixels / SOLD_AS_ONE)
    if whole < millions:
        return Measured(millions, f"{millions:.3g} megapixels")
    if whole == millions:
        return Measured(whole, number_of(whole, "megapixel"))
    return Measured(whole, f"{millions:.3g} megapixels rounded up to {whole}")


def processed_megapixels_of(demand: Demand) -> Measured:
    """The pixels of the pictures that are sent and those of the result. Where the model has no
    size for it, only the former are told.
    """
    result = megapixels_of(demand)
    if demand.media("video"):
        reason = "the size of a clip that is sent is not known"
        return Measured(None, reason, at_least=result.known)
    sizes = [pixels_of_picture(source) for source in demand.media("image")]
    sent = math.fsum(megapixels_in(pixels or 0.0).amount or 0.0 for pixels in sizes)
    if None in sizes:
        reason = "the size of a picture that is not here is not known"
        return Measured(None, reason, at_least=sent + result.known)
    if not sent:
        return result
    sent_in_words = f"{number_of(sent, 'megapixel')} sent"
    if result.amount is not None:
        return Measured(sent + result.amount, f"({sent_in_words} + {result.words})")
    if may_have_a_size(demand) or demand.thing == "clip":
        return Measured(None, result.words, at_least=sent + result.known)
    return Measured(sent, sent_in_words)


def may_have_a_size(demand: Demand) -> bool:
    """Whether the model has fields for a size, or its schema is not known."""
    canvas = Canvas(demand.fields)
    return not demand.fitted.fields or bool(canvas.fields or canvas.sides)


def pixels_of_result(demand: Demand) -> float | None:
    """The pixels of an image or a frame; None if the model decides, or nothing tells.

    Of several sizes that are told the largest counts, and a factor by which it grows.
    """
    pixels = pixels_told(demand)
    factors = [1.0]
    for field in demand.named_fields:
        is_factor = re.fullmatch(FACTOR_LIKE, "_".join(field.words)) is not None
        is_scale = pixels is None and field.words == ["scale"] and demand.media("image") != []
        if is_factor or is_scale:
            factors.append(amount_in(str(field.default).strip(" xX")) or 1.0)
    if len(factors) > 1:
        for source in demand.media("image"):
            size = pixels_of_picture(source)
            if size is None and pixels is None:
                return None
            pixels = max(pixels or 0.0, size or 0.0)
    if pixels is None:
        return None
    return pixels * max(factors) ** 2


def pixels_told(demand: Demand) -> float | None:
    """The pixels that the fields for sizes come to; the largest if they tell several sizes."""
    canvas = Canvas(demand.named_fields)
    extents = [extent_held(size_field) for size_field in canvas.fields]
    for field in canvas.sides.values():
        if field.default is not None:
            demand.amount(field)
    extents.append(canvas.default_sides())
    ratios = [extent.ratio for extent in extents if extent.ratio]
    has_own_shape = canvas.has_own_shape or demand.media("image", "video") != []
    sizes = []
    for extent in extents:
        if extent.short_side and not ratios and has_own_shape:
            continue
        if extent.short_side and not extent.sides:
            width, height = sides_of(extent._replace(ratio=next(iter(ratios), None)))
            sizes.append(width * height)
        else:
            sizes += extent.pixels
    return max(sizes, default=None)


def extent_held(size_field: SizeField) -> Extent:
    """What the value of a field says of a size."""
    value = size_field.field.default
    if isinstance(value, dict):
        for side in ("width", "height"):
            if side in value and amount_in(value[side]) is None:
                refuse_amount(f"{size_field.name}.{side}", value[side])
    for label, extent in size_field.labels:
        if is_same_value(label, value):
            return extent
    return size_field.default


def pixels_of_picture(source: str) -> float | None:
    """The pixels of a picture that is here; None if it is elsewhere, or cannot be read."""
    if is_remote(source):
        return None
    path = home_path(local_path(source))
    try:
        with open_regular_file(path) as file, picture(path, file) as image:
            return float(image.width * image.height)
    except Failure:
        return None


# Units by the words of fal's names for them

# Of the things that a job makes.
MEDIA_NOUNS = (
    r"images?|pictures?|photos?|videos?|clips?|movies?|films?|footage|animations?|gifs?|audios?"
    r"|music|songs?|tracks?|sounds?|speech|voiceovers?"
)
JOB_NOUNS = r"generations?|requests?|calls?|runs?|jobs?|outputs?|results?|predictions?"
# Words beside a unit's noun that change nothing about it.
FILLER_WORDS = r"of|an?|the|each|and|in|one|part|for|api|generated|produced|output|resulting|final"


class UnitRow(NamedTuple):
    """A kind of unit: the words that name it, those that may stand beside them, and what it is.

    `needs` are words of which one must be there; `scales` multiply the number in the name.
    """

    words: str
    beside: str
    unit: Unit
    needs: str = ""
    scales: Mapping[str, float] = {}


THOUSANDS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6}
PROCESSED_WORDS = r"processed|processing|input"
MEGAPIXEL_WORDS = r"megapixels?|mps?|mpx|mpix"
SECOND = Unit("second", "clip", seconds_of, is_whole=True)

# The first row of which a word stands in the name is meant, if all other words may stand beside.
# Tokens, credits, compute seconds and seconds of what is sent are in none: who could count them?
UNITS = (
    UnitRow(
        MEGAPIXEL_WORDS,
        rf"{PROCESSED_WORDS}|total|{MEDIA_NOUNS}",
        Unit("megapixel", "", processed_megapixels_of),
        needs=PROCESSED_WORDS,
    ),
    UnitRow(MEGAPIXEL_WORDS, MEDIA_NOUNS, Unit("megapixel", "", megapixels_of)),
    UnitRow(
        r"characters?|chars?",
        r"texts?|input|prompts?|speech|spoken",
        Unit("character", "result", characters_of),
        scales=THOUSANDS,
    ),
    UnitRow(r"hours?|hrs?", MEDIA_NOUNS, SECOND._replace(noun="hour", base=3600.0)),
    UnitRow(r"minutes?|mins?", MEDIA_NOUNS, SECOND._replace(noun="minute", base=60.0)),
    UnitRow(r"seconds?|secs?", MEDIA_NOUNS, SECOND),
    UnitRow(r"milliseconds?|ms", MEDIA_NOUNS, SECOND._replace(noun="millisecond", base=0.001)),
    UnitRow(r"frames?", MEDIA_NOUNS, Unit("frame", "clip", frames_of, is_whole=True)),
    UnitRow(r"steps?", r"inference|denoising|sampling|diffusion", Unit("step", "", steps_of)),
    UnitRow(MEDIA_NOUNS, JOB_NOUNS, Unit("", "", one_result)),
    UnitRow(JOB_NOUNS, JOB_NOUNS, Unit("", "", one_result)),
    UnitRow(r"units?", f"{MEDIA_NOUNS}|{JOB_NOUNS}", Unit("unit", "result", one_unit)),
)
CURRENCY_BEFORE = r"(?:usd|us|dollars?)?\W*(?:\d+(?:\.\d+)?)?\W*(?:usd|us|dollars?)?\W*(?:per\b|/)"
NUMBER_OR_WORD = r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|[^\W\d_]+|/"
MAX_UNIT_NAME = 60  # characters


def unit_of(name: Any) -> Unit:
    """What fal means by a unit of that name. A number in the name is the unit's size; what is not
    understood to its last word is not measured.
    """
    text = str(name).strip().lower()
    unknown = Unit(text[:MAX_UNIT_NAME] or "unit", "", not_measured)
    if not isinstance(name, str) or len(text) > MAX_UNIT_NAME:
        return unknown
    parts = re.findall(NUMBER_OR_WORD, without_currency(text))
    words = [part for part in parts if not part[0].isdigit()]
    words = [word for word in words if not re.fullmatch(FILLER_WORDS, word)] or words
    for row in UNITS:
        nouns = [word for word in words if re.fullmatch(row.words, word)]
        others = [word for word in words if word not in nouns]
        if not nouns or not may_stand_beside(row, others):
            continue
        number = number_of_unit(parts, nouns[0])
        if number is None:
            return unknown
        scale = math.prod(row.scales.get(word, 1.0) for word in words)
        return unit_of_row(row, nouns, number * scale)
    return unknown


def without_currency(name: str) -> str:
    """The name of a unit without the "$0.05 per" that may come before, in its usual spelling."""
    plain = re.sub(rf"^\W*{CURRENCY_BEFORE}", "", name).replace("(s)", "")
    plain = re.sub(r"mega[\s_-]+pixel", "megapixel", plain)
    return re.sub(r"^([\d.]*)\s*s$", r"\1 second", plain)


def number_of_unit(parts: Sequence[str], noun: str) -> float | None:
    """The one number before the noun, 1 without any; None if a name has numbers that are not so."""
    numbers = [part for part in parts if part[0].isdigit()]
    if not numbers:
        return 1.0
    if len(numbers) > 1 or parts.index(numbers[0]) > parts.index(noun):
        return None
    return float(numbers[0].replace(",", "")) or None


def may_stand_beside(row: UnitRow, words: Sequence[str]) -> bool:
    if row.needs and not any(re.fullmatch(row.needs, word) for word in words):
        return False
    return all(word in row.scales or re.fullmatch(row.beside, word) for word in words)


def unit_of_row(row: UnitRow, nouns: Sequence[str], number: float) -> Unit:
    if row.unit.noun:
        return row.unit._replace(number=number)
    noun = nouns[-1].removesuffix("s")
    return row.unit._replace(noun=noun, thing=noun, number=number)


# ---------------------------------------------------------------------------------------------
# Jobs and batches: what is asked of a model and how, following a job, many jobs at once.
# ---------------------------------------------------------------------------------------------


class Options:
    """The keywords that all generation commands share.

    `path` is added to the endpoint; `hint` prefers the runner that served it before; `priority`
    is normal or low, and rush is sent as normal; `start_timeout` is in seconds, above 1, until
    fal must have started; `client_timeout` in seconds, until the operation gives up;
    `webhook_url` is where fal posts the result; `keep` leaves a job running that is given up.
    The others tell what becomes of the files of a result, see Saving.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        hint: str | None = None,
        priority: Any = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
        webhook_url: str | None = None,
        keep: bool = False,
        **saving: Any,
    ) -> None:
        if priority == "rush":
            note("fal's queue has nothing above normal priority: rush is sent as normal")
            priority = "normal"
        self.path = path
        self.hint = hint
        self.priority = priority
        self.start_timeout = start_timeout
        self.client_timeout = client_timeout
        self.webhook_url = webhook_url
        self.keep = keep
        self.saving = Saving(**saving)

    def new_job(self, model: str, progress: Progress | None = None) -> Job:
        """A job with these options, which the list of jobs knows once it is sent."""
        job = Job(model, progress=progress)
        job.endpoint = self.endpoint(model)
        job.saving = self.saving
        job.cancelled_if_given_up = not self.keep
        RUN.history.attach(job)
        return job

    def headers(self) -> dict[str, str]:
        """What fal's queue is told beside the request; fal-client has no keyword for some of it."""
        values = {
            "X-Fal-Runner-Hint": self.hint,
            "X-Fal-Queue-Priority": self.priority,
            "X-Fal-Request-Start-Timeout": self.start_timeout,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def endpoint(self, model: str) -> str:
        """The endpoint that the path leads to, which has the schema."""
        if not self.path:
            return model
        return f"{model}/{self.path.strip('/')}"

    def sub_path(self, model: str, default: str = "") -> str:
        """The path to add; /stream and /realtime are not added twice."""
        path = self.path
        if path is None:
            path = default
        if default and model.endswith(default) and path.strip("/") == default.strip("/"):
            return ""
        return path


class Route(NamedTuple):
    """Where the requests of a verb go, and the sub-path that they have by default."""

    host: str
    path: str = ""
    scheme: str = "https"


ROUTES = {
    "submit": Route("queue.fal.run"),
    "subscribe": Route("queue.fal.run"),
    "batch": Route("queue.fal.run"),
    "run": Route("fal.run"),
    "stream": Route("fal.run", "/stream"),
    "realtime": Route("fal.run", "/realtime", "wss"),
}


class Order(NamedTuple):
    """What the flags ask of a model: arguments, once the model's schema is known.

    `arguments` are the model's already, as --arguments-json has them: they and the flags beside
    them are sent unchecked. `rounds` is how often the arguments are sent.
    """

    verb: str
    task: Task
    asked: Arguments
    strict: bool = False
    no_schema: bool = False
    max_cost: float | None = None
    arguments: Arguments | None = None
    rounds: int = 1

    async def schema(self, endpoint_id: str) -> ModelSchema:
        """What the endpoint takes, or else the model whose stream or WebSocket it is."""
        if self.no_schema or self.arguments is not None:
            return ModelSchema()
        schema = await fetch_schema(endpoint_id, self.asked)
        path = ROUTES[self.verb].path
        model = endpoint_id.removesuffix(path)
        is_unknown = schema.reason is not None and schema.reason.type == "not_found"
        if is_unknown and path and model != endpoint_id and "/" in model:
            schema_of_model = await fetch_schema(model)
            if schema_of_model.input_schema is not None:
                return schema_of_model
        return schema

    def fit(self, schema: ModelSchema) -> Fit:
        """The arguments; raises a Failure that tells all problems at once."""
        fitted = self._fitted_or_unchecked(schema)
        if schema.deprecated:
            fitted.notes.append("fal calls the model deprecated")
        if self.verb == "stream" and schema.input_schema and not schema.streams:
            fitted.notes.append("fal does not list the model among those that stream")
        if fitted.problems:
            messages = (f"{row['field']}: {row['message']}" for row in fitted.problems)
            raise Failure(
                "invalid_arguments",
                "; ".join(messages),
                hint=hint_on_spoilt_json(self.asked.get("arg", {}).values())
                or hint_on_count(self.task, fitted),
                details=fitted.problems,
            )
        for name, value in self.asked.get("arg", {}).items():
            sent = fitted.arguments.get(name)
            if sent == value and type(sent) is str and is_media_file(sent):
                fitted.notes.append(f"{name} is sent as text, not as the file {value}")
        for source in media_sources(fitted.arguments):
            if is_remote(source):
                refuse_local_url(source)
                continue
            open_media_file(source)
            if source not in fitted.local_files:
                fitted.local_files.append(source)
        fitted.arguments = {**(self.arguments or {}), **fitted.arguments}
        return fitted

    def _fitted_or_unchecked(self, schema: ModelSchema) -> Fit:
        """The arguments checked; or as they are for want of a schema, which --strict forbids."""
        if schema.input_schema is not None:
            return fit_arguments(self.asked, schema.input_schema, self.strict)
        if self.strict and schema.reason is not None:
            raise schema.reason
        unchecked = Fit({})
        unchecked.arguments = self.task.build(**self.asked)
        if schema.unchecked_note is not None:
            unchecked.notes.append(schema.unchecked_note)
        return unchecked


MAX_JOBS_IN_HINT = 100


def hint_on_count(task: Task, fitted: Fit) -> str | None:
    """How to have more images than one job makes: by a batch, if that is all that is wrong."""
    field = find_field(fitted.model_fields, FLAGS_BY_DEST["num_images"])
    if field is None or {problem["field"] for problem in fitted.problems} != {field.name}:
        return None
    images = fitted.arguments.get(field.name)
    if not isinstance(images, int):
        return None
    for jobs in range(2, MAX_JOBS_IN_HINT + 1):
        count, rest = divmod(images, jobs)
        if rest == 0 and not violations(count, field.schema):
            return (
                f"One job does not make {images}. A batch does: batch-{task.suffix} with the same"
                f" value {jobs} times after {task.many[0].name}, --num-images {count} and no --seed"
            )
    return None


def new_order(verb: str, task: Task, asked: Arguments, checks: Arguments) -> Order:
    """An order of what the flags ask, if they go together."""
    in_pixels = [name for name in ("width", "height") if name in asked]
    in_words = [name for name in ("aspect_ratio", "resolution") if name in asked]
    if in_pixels and in_words:
        flags = " ".join(map(flag_name, (*in_pixels, *in_words)))
        raise usage_error(f"a size is said in one way, not by all of {flags}")
    if checks.get("strict") and "arguments" in checks:
        raise usage_error("--strict checks arguments, and those of --arguments-json go unchecked")
    return Order(verb, task, asked, **checks)


def take(values: Fields, flags: Iterable[Flag]) -> Fields:
    """What the flags have among the values, which they are taken out of."""
    return {flag.dest: values.pop(flag.dest) for flag in flags if flag.dest in values}


def generate(
    verb: str,
    operation: Callable[..., Any],
    task: Task,
    *,
    model: str,
    dry_run: bool = False,
    **values: Any,
) -> Any:
    """Call an operation with what the flags ask of the model, or show what it would send."""
    asked = take(values, task.flags)
    checks = take(values, (*CHECKS, ARGUMENTS_JSON, ROUNDS))
    order = new_order(verb, task, asked, checks)
    if dry_run:
        return plan_order(model, order, Options(**values))
    return operation(model, order, **values)


async def plan_order(model: str, order: Order, options: Options) -> Fields:
    """What --dry-run shows: the request as it would be sent, but for the key and the uploads."""
    endpoint_id = options.endpoint(model)
    with failures(Job(model)):
        async with asyncio.timeout(options.client_timeout):
            schema = await order.schema(endpoint_id)
            fitted = order.fit(schema)
            calls = [fitted] * order.rounds
            estimate, notes = await quote(endpoint_id, calls, order.max_cost)
    return plan_document(
        model,
        order,
        options,
        schema,
        fitted,
        estimate,
        notes,
    )


def plan_document(
    model: str,
    order: Order,
    options: Options,
    schema: ModelSchema,
    fitted: Fit,
    estimate: Fields | None,
    notes: list[str],
) -> Fields:
    route = ROUTES[order.verb]
    url = f"{route.scheme}://{route.host}/{model}"
    path = options.sub_path(model, route.path).lstrip("/")
    if path:
        url += f"/{path}"
    if options.webhook_url:
        url += f"?{urllib.parse.urlencode({'fal_webhook': options.webhook_url})}"
    return {
        "endpoint": model,
        "url": url,
        "headers": options.headers(),
        "arguments": fitted.arguments,
        "notes": fitted.notes + notes_on_uploads(fitted) + notes,
        "schema": schema.state,
        "estimate": estimate,
    }


def notes_on_uploads(fitted: Fit) -> list[str]:
    """What a dry run leaves out."""
    notes = []
    for path in fitted.local_files:
        notes.append(f"without --dry-run, {path} is uploaded, and its public URL is sent")
    return notes


async def arguments_to_send(
    job: Job,
    arguments: Arguments | Order,
    options: Options,
    uploads: Uploads,
) -> Fields:
    """The arguments fitted to the model, within the budget, local files uploaded."""
    if isinstance(arguments, Order):
        order = arguments
        job.asked = order.asked
        endpoint_id = options.endpoint(str(job.model))
        fitted = order.fit(await order.schema(endpoint_id))
        say_notes(fitted)
        if order.max_cost is not None:
            calls = [fitted] * order.rounds
            reckoning = await affordable(endpoint_id, calls, order.max_cost)
            job.price = reckoning.price
        arguments = fitted.arguments
        local_files = fitted.local_files
    else:
        local_files = local_media(arguments)
    job.uploads = await uploads.urls(local_files)
    job.arguments = with_urls(job.uploads, arguments)
    return job.arguments


def say_notes(fitted: Fit) -> None:
    for text in fitted.notes:
        note(text)


async def submit(
    job: Job,
    arguments: Arguments | Order,
    options: Options,
    uploads: Uploads,
) -> None:
    """Queue a job, in its session."""
    to_send = await arguments_to_send(job, arguments, options, uploads)
    try:
        await fal_client.submit_async(
            str(job.model),
            to_send,
            webhook_url=options.webhook_url,
            path=options.sub_path(str(job.model)),
            headers=options.headers(),
        )
    except Failure as failure:
        await find_if_lost(job, failure)


async def submit_and_follow(
    job: Job,
    arguments: Arguments | Order,
    options: Options,
    uploads: Uploads,
    seconds: float | None = None,
) -> Any:
    """Queue a job, follow it to its end, save its files, and give the response."""
    model = str(job.model)
    async with fal_session(job, seconds):
        to_send = await arguments_to_send(job, arguments, options, uploads)
        try:
            response = await fal_client.subscribe_async(
                model,
                to_send,
                with_logs=True,
                interval=0,  # job.progress.follow waits instead, longer as the job grows older
                on_queue_update=job.progress.follow,
                path=options.sub_path(model),
                headers=options.headers(),
            )
        except Failure as failure:
            await find_if_lost(job, failure)
            response = await response_of(job)
        job.answered(response)
        return await save_media(job)


async def follow_and_fetch(job: Job, no_wait: bool = False, seconds: float | None = None) -> Any:
    """Tell how a job is getting on, and give its response when it has ended, files saved."""
    if no_wait:
        job.patience = GLANCE_LIMIT
    async with fal_session(job, seconds):
        job.answered(await response_of(job, no_wait))
        return await save_media(job)


async def response_of(job: Job, no_wait: bool = False) -> Any:
    """Follow a job in its session to its end, for its response."""
    model, request_id = str(job.model), str(job.request_id)
    while True:
        status = await fal_client.status_async(model, request_id, with_logs=True)
        if no_wait and not isinstance(status, fal_client.Completed):
            raise Failure("not_finished", f"the job is {status_fields(status)['status']}")
        await job.progress.follow(status)  # which waits, longer as the job grows older
        if isinstance(status, fal_client.Completed):
            return await fal_client.result_async(model, request_id)


# Lost jobs: submitted, but fal's answer did not come. The account's requests tell of them.

LOST_LOOKS = (2, 5, 10)  # seconds until each look, for fal may list a job late
LOST_PATIENCE = 10.0  # seconds that a look may take
LOST_LEEWAY = 60.0  # seconds by which fal's clock may be behind ours
MAX_LOST_ROWS = 1000  # requests since then, of which it must be the only one


async def find_if_lost(job: Job, failure: Failure) -> None:
    """Look for a job of which fal's answer did not come, so that it can be gone on with. Any other
    failure is raised again; in no case is the job sent again.
    """
    if not job.in_doubt:
        raise failure
    await find_lost(job, failure, LOST_LOOKS)


async def find_lost(job: Job, failure: Failure, looks: Sequence[float]) -> None:
    """Accept the one request of the account that can be a lost job. If there is none, or are
    several, or the account cannot be asked, the failure is raised, which then says so.
    """
    search = AccountSearch(job)
    job.is_looked_for = True
    try:
        await search.run(looks)
    finally:
        job.is_looked_for = False
    if job.state != JobState.ACCEPTED:
        failure.message += f"; {search.outcome}"
        failure.details = search.details() or failure.details
        raise failure
    note(f"the account lists the job: going on with request id {job.request_id}")


class AccountSearch:
    """A search of the account's requests for a lost job.

    It is a request to the same endpoint, sent since a minute before the job was, with the job's
    arguments, that is no other job of ours. Nobody has seen the rows that fal lists (2026):
    whatever is odd in one makes it another request.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._start = job.sent_at - LOST_LEEWAY
        model = str(job.endpoint)
        self._schema = read_model_schema(read_copy(model)[0], model).input_schema or {}
        self._found: list[str] = []
        self._is_over = False
        self.outcome = "the time limit left no time to look for the job on the account"

    async def run(self, looks: Sequence[float]) -> None:
        """Look after so many seconds each, as the job's time limit allows."""
        began = seconds_from_now(0)
        note("fal's answer did not come: looking for the job on the account")
        for seconds in looks:
            pause = began + seconds - seconds_from_now(0)
            if pause >= self._seconds_left():
                return
            await asyncio.sleep(max(pause, 0.0))
            await self._look()
            if self._is_over:
                return

    def _seconds_left(self) -> float:
        if self._job.deadline is None:
            return math.inf
        return self._job.deadline - LATE_ANSWER - seconds_from_now(0)

    async def _look(self) -> None:
        seconds = min(LOST_PATIENCE, self._seconds_left())
        try:
            async with asyncio.timeout(seconds):
                rows = await fetch_requests(str(self._job.endpoint), MAX_LOST_ROWS, self._start)
            with failures(Job()):  # rows may nest too deeply to be compared
                self.choose(rows)
        except TimeoutError:
            self.outcome = self._not_asked(f"fal did not answer within {seconds:.0f} s")
        except Failure as failure:
            self.outcome = self._not_asked(failure.message)
            self._is_over = failure.status in PLAIN_REFUSALS

    def _not_asked(self, reason: str) -> str:
        return f"the account could not be asked for the job: {reason}"

    def choose(self, rows: Sequence[Fields]) -> None:
        """Accept what can only be the job."""
        self._found = list(dict.fromkeys(row["request_id"] for row in rows if self._may_be(row)))
        shown = ", ".join(self._found)
        if len(rows) >= MAX_LOST_ROWS:
            self.outcome = f"the account has too many requests to tell which is the job: {shown}"
        elif not self._found:
            since = time.strftime(ISO_TIME, time.gmtime(self._start))
            self.outcome = f"until now the account lists no such request since {since}"
        elif len(self._found) > 1:
            self.outcome = f"the account lists several requests that may be the job: {shown}"
        elif self._has_twin():
            self.outcome = f"what the account lists may be another job of this command: {shown}"
        else:
            self._is_over = True
            self._job.accepted(self._found[0])

    def details(self) -> list[Fields]:
        """The requests that the job may be."""
        return [value_problem("request_id", None, each, "candidate") for each in self._found]

    def _may_be(self, row: Fields) -> bool:
        request_id = row.get("request_id")
        if not is_request_id(request_id):
            return False
        if row.get("endpoint_id") not in (None, self._job.endpoint):
            return False
        sent_at = time_of_request(row)
        if sent_at is None or sent_at < self._start:
            return False
        if not is_echo(read_payload(row.get("json_input")), self._job.arguments, self._schema):
            return False
        return request_id not in RUN.request_ids and not RUN.history.has(request_id)

    def _has_twin(self) -> bool:
        """Whether an equal job waits for fal's answer: what is listed may be that one."""
        for job in RUN.followed:
            is_waiting = job.in_doubt and not job.is_looked_for
            is_like = is_echo(job.arguments, self._job.arguments, self._schema)
            if is_waiting and job.endpoint == self._job.endpoint and is_like:
                return True
        return False


def read_time(value: Any) -> float | None:
    """Seconds since 1970; None if it is no time in ISO 8601. Without a zone it is in UTC."""
    if not is_text(value):
        return None
    try:
        moment = datetime.datetime.fromisoformat(value.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def read_payload(value: Any) -> Any:
    """What went in or came out, be it as JSON in a text; None if that cannot be read."""
    if not is_text(value):
        return value
    return json_or_none(value)


def time_of_request(row: Fields) -> float | None:
    """When a request of the account was sent, or else began, in seconds since 1970."""
    return read_time(row.get("sent_at")) or read_time(row.get("started_at"))


def is_echo(listed: Any, sent: Any, schema: Fields) -> bool:
    """Whether fal lists what was sent, be it with null and the model's defaults besides."""
    if isinstance(sent, (list, tuple)):
        is_as_long = isinstance(listed, (list, tuple)) and len(listed) == len(sent)
        return is_as_long and all(map(functools.partial(is_echo, schema={}), listed, sent))
    if isinstance(sent, str):  # be it one that names a file, which is a type of its own
        return isinstance(listed, str) and listed == sent
    if not isinstance(sent, Mapping):
        return is_same_value(listed, sent)
    if not isinstance(listed, Mapping):
        return False
    fields: Fields = schema.get("properties", {})
    for name in {**sent, **listed}:
        value = listed.get(name)
        field = fields.get(name, {})
        if name in sent and not is_echo(value, sent[name], field):
            return False
        is_default = value is None or is_same_value(value, field.get("default"))
        if name not in sent and not is_default:
            return False
    return True


def job_of_list(model: str, request_id: str) -> Job:
    """A job that somebody has submitted; if it is in the list, the list learns of its end."""
    job = Job(model, request_id)
    RUN.history.attach(job)
    return job


def with_known_job(values: Fields) -> Fields:
    """The flags with the endpoint and the id of the job that they mean, as the list has them."""
    request_id = values.get("request_id")
    model = values.get("model")
    if request_id == "last":
        known = newest_job(model)
    elif request_id and not model:
        known = RUN.history.find(request_id)
    else:
        return values
    if known is None:
        message = f"the list of jobs does not know the job {request_id}"
        if request_id == "last":
            message = "the list of jobs has none that was queued"
        hint = f"Add --model, its endpoint, or choose from the list: {command_line('list-jobs')}"
        raise usage_error(message, hint)
    return {
        **values,
        "model": read_endpoint(known["model"]),
        "request_id": known["request_id"],
    }


def newest_job(model: str | None) -> Fields | None:
    """The newest job of the list that went to the queue; it may lack an id, and no other does."""
    for known in RUN.history.jobs():
        if not went_to_queue(known) or not matches(known, model, ""):
            continue
        if "request_id" not in known:
            state = HISTORY_STATES[known["state"]]
            message = f"the newest job has no request id: its state is {state}"
            raise usage_error(message, f"Choose from the list: {command_line('list-jobs')}")
        return known
    return None


def went_to_queue(job: Fields) -> bool:
    """Whether a job of the list can be followed by its request id."""
    return not str(job.get("command")).startswith(("run", "stream", "realtime"))


async def request_cancellation(model: str, request_id: str, seconds: float | None = None) -> Fields:
    """Ask fal to cancel a job, and give what `cancel` prints."""
    async with fal_session(Job(model, request_id), seconds):
        await fal_client.cancel_async(model, request_id)
    return {
        "request_id": request_id,
        "model": model,
        "status": "CANCELLATION_REQUESTED",
    }


async def fetch_or_recall(job: Job, no_wait: bool, seconds: float | None) -> Any:
    """A job's response, files saved: from fal, or from the list if fal knows it no longer."""
    try:
        return await follow_and_fetch(job, no_wait, seconds)
    except Failure as failure:
        known = RUN.history.find(job.request_id) or {}
        if failure.status not in (404, 410) or known.get("result") is None:
            raise
    note("fal has forgotten the job: this is the response that the list of jobs kept")
    job.response = known["result"]
    job.unprinted = [job.response]
    async with fal_session(job, seconds):
        return await save_media(job)


LIVE_CONCURRENCY = 8  # jobs that are asked about at once
ACCOUNT_SPAN = 30 * 86400  # seconds of the account's requests that are listed


async def look_at_all(jobs: Iterable[Fields]) -> None:
    """Ask fal about jobs of the list that have not ended; what it says is recorded, and a job that
    cannot be asked about costs a note.
    """
    slots = asyncio.Semaphore(LIVE_CONCURRENCY)
    jobs = list(jobs)
    async with fal_session(Job()):
        for job in jobs:
            if is_unheard_of(job):
                await settle(job, jobs)
        looks = [
            look_at(job_of_list(job["model"], job["request_id"]), slots)
            for job in jobs
            if job["state"] == JobState.ACCEPTED and "request_id" in job
        ]
        await asyncio.gather(*looks)


def is_unheard_of(job: Fields) -> bool:
    """Whether a job of the list went to the queue, and nobody heard of its request id."""
    is_in_doubt = job["state"] in (JobState.SENT, JobState.LOST) and "request_id" not in job
    return is_in_doubt and went_to_queue(job) and bool(job.get("about"))


async def settle(job: Fields, jobs: Sequence[Fields]) -> None:
    """Tell the list the request id of a job whose command was killed before it heard of one: that
    of the one request of the account that can be it. Where there are several, or several such
    jobs, nothing is guessed.
    """
    twins = [other for other in jobs if is_unheard_of(other) and is_about_the_same(other, job)]
    sent_at = read_time(job.get("submitted_at"))
    if sent_at is None or len(twins) > 1:
        return
    try:
        rows = await fetch_requests(job["model"], MAX_LOST_ROWS, sent_at - LOST_LEEWAY)
    except Failure as failure:
        note(f"the account could not be asked for what is unknown: {failure.message}")
        return
    request_ids = [row["request_id"] for row in rows if may_be_of_list(row, job, sent_at)]
    if len(request_ids) == 1 and len(rows) < MAX_LOST_ROWS:
        step = {"job": job["job"], "state": JobState.ACCEPTED, "at": utc_now()}
        RUN.history.append({**step, "request_id": request_ids[0]})


def may_be_of_list(row: Fields, job: Fields, sent_at: float) -> bool:
    """Whether a request of the account was sent within a minute of a job of the list, is about the
    same, and is no other job of the list.
    """
    listed_at = time_of_request(row)
    if listed_at is None or abs(listed_at - sent_at) > LOST_LEEWAY:
        return False
    if topic_of({}, read_payload(row.get("json_input"))) != job["about"]:
        return False
    request_id = row.get("request_id")
    return is_request_id(request_id) and RUN.history.find(request_id) is None


def is_about_the_same(job: Fields, other: Fields) -> bool:
    return (job.get("model"), job.get("about")) == (other.get("model"), other.get("about"))


async def look_at(job: Job, slots: asyncio.Semaphore) -> None:
    """Ask about one job; a response that is there is fetched as well, for fal forgets it."""
    model, request_id = str(job.model), str(job.request_id)
    job.patience = GLANCE_LIMIT
    async with slots:
        try:
            async with fal_session(job):
                status = await fal_client.status_async(model, request_id)
                if isinstance(status, fal_client.Completed):
                    job.answered(await fal_client.result_async(model, request_id))
        except Failure as failure:
            if failure.exit == Exit.CREDENTIALS:
                raise
            if not job.failed:
                note(f"{request_id}: {failure.message}")


def account_document(row: Fields) -> Fields:
    """What list-jobs tells of a request that fal lists; it is ours if the list has it, too.

    Nobody has seen these rows (2026): whatever is missing or odd in them is not told.
    """
    request_id = row.get("request_id")
    if not is_request_id(request_id):
        request_id = None
    known = RUN.history.find(request_id)
    job = job_document(known or {"state": JobState.SENT})
    state, error = outcome_of_request(row)
    told = present(
        request_id=request_id,
        model=text_or_none(row.get("endpoint_id")),
        state=state,
        submitted_at=text_or_none(row.get("sent_at")) or text_or_none(row.get("started_at")),
        ended_at=text_or_none(row.get("ended_at")),
        about=topic_of({}, row.get("json_input")) or None,
        result=row.get("json_output") if state == "done" else None,
    )
    return {**job, **told, "error": error, "ours": known is not None}


def outcome_of_request(row: Fields) -> tuple[str, Fields | None]:
    """The state and the error of a request that fal lists."""
    status = row.get("status_code")
    if isinstance(status, bool) or not isinstance(status, int):
        return ("unknown" if row.get("ended_at") else "submitted"), None
    if status < 300:
        return "done", None
    refusal = read_refusal(row.get("json_output"))
    error = {"type": refusal.type or status_kind(status), "message": cut(refusal.message)}
    return ("cancelled" if status == 499 else "failed"), error


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def list_text(rows: Sequence[Fields]) -> str:
    """What list-jobs prints without --json: jobs, or what they come to."""
    if rows and "usd" in rows[0]:
        return costs_text(rows)
    return jobs_text(rows)


def jobs_text(jobs: Iterable[Fields]) -> str:
    """One line a job: request id, when, state, endpoint, what it is about; of fal's list those
    that are ours are marked.
    """
    lines = []
    for job in jobs:
        columns = [job["request_id"] or "-", job["submitted_at"] or "-", job["state"]]
        columns += [job["model"] or "-", job["about"] or ""]
        if job.get("ours"):
            columns.append("ours")
        lines.append(tabbed(*columns))
    return "\n".join(lines)


def status_fields(status: fal_client.Status) -> Fields:
    """A status in fal's own words; `error` and `error_type` only where the job failed."""
    if isinstance(status, fal_client.Queued):
        return present(status="IN_QUEUE", queue_position=status.position, logs=[])
    name = "IN_PROGRESS"
    if isinstance(status, fal_client.Completed):
        name = "COMPLETED"
    fields = present(**vars(status))
    logs = fields.pop("logs", None)
    if not isinstance(logs, list):
        logs = []
    return {"status": name, "logs": logs, **fields}


class NextStep(Enum):
    """What a batch does next with a job."""

    PRINT = "print the response that the journal has"
    LOOK_UP = "look it up at fal, by its request id"
    SUBMIT = "submit it"
    REFUSE = "leave it to the user whether to submit it"


# By how far a job got, in an earlier run or in this one.
NEXT_STEPS = {
    JobState.NEW: NextStep.SUBMIT,
    JobState.SENT: NextStep.REFUSE,
    JobState.REFUSED: NextStep.SUBMIT,
    JobState.ACCEPTED: NextStep.LOOK_UP,
    JobState.CANCELLED: NextStep.LOOK_UP,
    JobState.DONE: NextStep.PRINT,
}


class PastJobs:
    """What a batch does with the jobs that its journal knows."""

    def __init__(
        self,
        journal: str | None = None,
        retry_unknown: bool = False,
        retry_failed: bool = False,
    ) -> None:
        if (retry_unknown or retry_failed) and not journal:
            raise usage_error("--retry-unknown and --retry-failed need --journal")
        self.journal = journal
        self.retry_unknown = retry_unknown
        self.retry_failed = retry_failed

    def next_step(self, job: Job) -> NextStep:
        step = NEXT_STEPS[job.state]
        if step == NextStep.REFUSE and self.retry_unknown:
            return NextStep.SUBMIT
        return step

    def is_due(self, job: Job) -> bool:
        """Whether the job may be submitted, as far as can be told without asking fal."""
        step = self.next_step(job)
        if step == NextStep.LOOK_UP:
            return self._is_submitted_if_lost(job)
        return step == NextStep.SUBMIT

    def is_due_after(self, job: Job, failure: Failure) -> bool:
        """Whether a job that was looked up, and failed or is gone, is submitted anew.

        Both its status and its response must say that it failed, and nothing else may be what
        has failed: a gateway, the network, or the reading of a response that is there. What ran
        on though it was cancelled is a failed job like any other.
        """
        if job.state == JobState.DONE:
            return False
        if failure.job_is_gone or (job.failed and failure.type == "client_cancelled"):
            return self._is_submitted_if_lost(job)
        return self.retry_failed and job.failed and failure.is_fals_word

    def _is_submitted_if_lost(self, job: Job) -> bool:
        return self.retry_failed or job.state == JobState.CANCELLED

    def announce(self, jobs: Sequence[Job]) -> None:
        """Say what the journal knows."""
        if all(job.state == JobState.NEW for job in jobs):
            return
        steps = collections.Counter(NEXT_STEPS[job.state] for job in jobs)
        text = (
            f"journal: {steps[NextStep.PRINT]} done, {steps[NextStep.LOOK_UP]} to look up,"
            f" {steps[NextStep.REFUSE]} in doubt, {steps[NextStep.SUBMIT]} to submit"
        )
        if self.retry_failed:
            text += ", and again what has failed"
        note(text)


class BatchEntry:
    """One job of a batch, what is asked of it, and what is printed of it in any case."""

    def __init__(self, job: Job, order: Order, line: Fields) -> None:
        self.job = job
        self.order = order
        self.line = line
        self.fitted: Fit | None = None


class Batch:
    """Many jobs of one model at once: one that fails takes no other with it."""

    def __init__(
        self,
        model: str,
        orders: Sequence[Order],
        options: Options,
        past: PastJobs,
        concurrency: int,
    ) -> None:
        self.model = model
        self.options = options
        self.past = past
        self.job = Job(model)  # stands for all of them where a failure needs one
        self.job.saving = options.saving
        self.reckoning: Reckoning | None = None
        self._slots = asyncio.Semaphore(concurrency)
        self.uploads = Uploads()
        self._schema = ModelSchema()
        self._skipped: set[int | None] = set()  # whose results the journal had
        self._tally: collections.Counter[str] = collections.Counter()
        self._failures: list[Failure] = []
        for gallery in options.saving.galleries:
            gallery.expected = len(orders)
            if past.journal and absolute_path(past.journal) == gallery.path:
                raise usage_error("--journal and --gallery name the same file")
        pace = Pace()
        self.entries = [self._entry(index, order, pace) for index, order in enumerate(orders)]
        if past.journal:
            self.job.hint = "Repeat the command: it goes on where it stopped."

    def _entry(self, index: int, order: Order, pace: Pace) -> BatchEntry:
        job = self.options.new_job(self.model, Progress(f"[{index}] ", pace))
        job.index = index
        job.asked = order.asked
        job.arguments = order.asked
        varied = order.task.varied
        return BatchEntry(job, order, {"index": index, varied: order.asked.get(varied)})

    @property
    def endpoint(self) -> str:
        return self.options.endpoint(self.model)

    @property
    def jobs(self) -> list[Job]:
        return [entry.job for entry in self.entries]

    @property
    def due(self) -> list[BatchEntry]:
        """The jobs that may be submitted, and billed."""
        return [entry for entry in self.entries if self.past.is_due(entry.job)]

    async def fit(self) -> ModelSchema:
        """Fit what may be submitted to the one schema of all."""
        self._schema = await self.entries[0].order.schema(self.endpoint)
        for entry in self.due:
            entry.fitted = entry.order.fit(self._schema)
        return self._schema

    @property
    def fitted(self) -> list[Fit]:
        return [entry.fitted for entry in self.entries if entry.fitted]

    async def plans(self, max_cost: float | None) -> AsyncIterator[Fields]:
        """What --dry-run shows; the estimate is for all jobs that would be submitted."""
        with failures(self.job):
            async with asyncio.timeout(self.options.client_timeout):
                schema = await self.fit()
                estimate, notes = await quote(self.endpoint, self.fitted, max_cost)
        for index, entry in enumerate(self.entries):
            fitted = entry.fitted or entry.order.fit(schema)
            document = plan_document(
                self.model,
                entry.order,
                self.options,
                schema,
                fitted,
                estimate,
                notes,
            )
            yield {"index": index, **document}

    async def prepare(self, max_cost: float | None) -> None:
        """Find out whether all of it may be sent, before any of it is."""
        await self.fit()
        for fitted in self.fitted:
            say_notes(fitted)
        if max_cost is not None:
            self.reckoning = await affordable(self.endpoint, self.fitted, max_cost)
            for job in self.jobs:
                job.price = self.reckoning.price

    async def lines(self) -> AsyncGenerator[Fields, None]:
        """Yield each job's line as it ends; raise a Failure at last if any job failed.

        What has not ended when nobody listens any longer is cancelled.
        """
        self._skipped = {job.index for job in self.jobs if job.state == JobState.DONE}
        tasks = [asyncio.create_task(self._line(entry)) for entry in self.entries]
        try:
            for ended in asyncio.as_completed(tasks):
                line = await ended
                self._count(line)
                self._say_whose_files(line)
                yield line
                self.entries[line["index"]].job.was_printed()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._keep_unprinted()
            self.job.progress.say(self._summary())
        if self._tally["failed"]:
            raise self._failure()

    async def _line(self, entry: BatchEntry) -> Fields:
        """What is printed of a job when it has ended."""
        job = entry.job
        outcome: Fields = {}
        async with self._slots:
            try:
                outcome["result"] = await self._response(entry)
            except Failure as failure:
                failure.happened_to(job)
                if job.unprinted:
                    outcome["result"] = job.unprinted[0]
                outcome["error"] = failure.as_dict()
                self._failures.append(failure)
        return {**entry.line, "request_id": job.request_id, **outcome}

    async def _response(self, entry: BatchEntry) -> Any:
        """A job's response: from the journal, by its request id, or for money."""
        job = entry.job
        job.deadline = self.job.deadline
        if job.state == JobState.SENT:
            await self._find_lost(entry)
        step = self.past.next_step(job)
        if step == NextStep.PRINT:
            async with fal_session(job):
                return await save_media(job)
        if step == NextStep.LOOK_UP:
            job.progress.say(f"request id {job.request_id}")
            try:
                return await follow_and_fetch(job)
            except Failure as failure:
                if not self.past.is_due_after(job, failure):
                    raise
        job.forget()
        assert entry.fitted, "what is not due is not submitted"
        return await submit_and_follow(job, entry.fitted.arguments, self.options, self.uploads)

    async def _find_lost(self, entry: BatchEntry) -> None:
        """Find on the account what an earlier run has submitted and did not hear of; otherwise the
        user decides, by --retry-unknown, whether it is submitted again.
        """
        job = entry.job
        failure = Failure(
            "unknown_outcome",
            "an earlier run did not hear fal's answer: whether fal has the job is unknown",
            hint=f"If it is not at {REQUESTS_PAGE}, submit it with --retry-unknown.",
        )
        looks: Sequence[float] = LOST_LOOKS
        if time.time() - job.sent_at > LOST_LEEWAY:
            looks = (0,)
        async with fal_session(job):
            try:
                job.arguments = self._arguments_sent(entry)
                await find_lost(job, failure, looks)
            except Failure as reason:
                if reason is not failure:
                    failure.message += f"; what it was sent is unknown: {reason.message}"
                if failure.details or not self.past.retry_unknown:
                    raise failure from None

    def _arguments_sent(self, entry: BatchEntry) -> Fields:
        """What an earlier run has sent for a job: local files went as their URLs in the journal."""
        fitted = entry.fitted or entry.order.fit(self._schema)
        urls = {}
        for source in media_sources(fitted.arguments):
            digest = self.uploads.digest(source)
            if digest in entry.job.uploads:
                urls[source] = entry.job.uploads[digest]
            elif not is_remote(source):
                raise usage_error("the journal does not tell where its files were uploaded to")
        return with_urls(urls, fitted.arguments)

    def _count(self, line: Fields) -> None:
        end = "done"
        if "error" in line:
            end = "failed"
        elif line["index"] in self._skipped:
            end = "skipped"
        self._tally[end] += 1

    def _say_whose_files(self, line: Fields) -> None:
        """Tell the files of a job from others' where the line is not printed."""
        if self.options.saving.media:
            for file in saved_in(line):
                self.jobs[line["index"]].progress.say(f"saved {file['path']}")

    def _keep_unprinted(self) -> None:
        """Hold on to what was paid for when the batch was stopped before it was printed."""
        for entry in self.entries:
            for response in entry.job.unprinted:
                request_id = str(entry.job.request_id)
                line = {
                    **entry.line,
                    "request_id": request_id,
                    "result": response,
                }
                self.job.unprinted.append(line)
                RUN.unprinted_ids.append(request_id)

    def _summary(self) -> str:
        """What became of the jobs; skipped are those whose result the journal had."""
        parts = []
        for end in ("done", "failed", "skipped"):
            parts.append(f"{self._tally[end]} {end}")
        told = [job.units.values() for job in self.jobs if job.index not in self._skipped]
        if any(told):
            units = sum(itertools.chain.from_iterable(told))
            parts.append(f"{number_of(units, 'billable unit')}{self._list_price_of(units)}")
        if self.reckoning:
            parts.append(f"estimated at {self.reckoning.total:.12g} USD")
        return f"jobs: {', '.join(parts)}"

    def _list_price_of(self, units: float) -> str:
        """What the units come to, in words, if fal's list was asked for the price of one."""
        if self.reckoning is None or self.reckoning.price is None:
            return ""
        return f" ({money(self.reckoning.price.cost_of(units))} USD by fal's list)"

    def _failure(self) -> Failure:
        hint = None
        if self.past.journal:
            hint = " ".join(self._ways_to_go_on())
        message = f"{self._tally['failed']} of {len(self.entries)} jobs failed: see their lines"
        return Failure("batch_failed", message, hint=hint)

    def _ways_to_go_on(self) -> Iterator[str]:
        """What can be done about the failures that there are, each of them in one way."""
        ways = collections.defaultdict(list)
        for failure in self._failures:
            ways[way_after(failure)].append(failure)
        for way, advice_text in WAYS_AFTER_FAILURES.items():
            if ways[way]:
                yield advice_text.format(jobs_in_words(ways[way]))


NEVER_TAKEN = (400, 404, 413, 422)  # statuses of requests that fail again as they are
# What to do about failed jobs of a batch that has a journal.
WAYS_AFTER_FAILURES = {
    "repeat": "Repeating the command goes on with {}, and costs nothing for what fal has.",
    "submit": "Repeating the command submits {} again, for money: fal calls that cancelled.",
    "retry failed": "--retry-failed submits {} again, for money.",
    "retry unknown": "--retry-unknown submits {} again, for money.",
    "change": "Change {} first: the same fails again.",
}


def way_after(failure: Failure) -> str:
    """Which of these ways a job that failed may go."""
    is_failed = failure.job is not None and failure.job.failed
    if failure.type == "unknown_outcome":
        return "retry unknown"
    if failure.type == "client_cancelled":
        return "submit"
    if failure.job_is_gone or (is_failed and failure.retryable):
        return "retry failed"
    if is_failed or failure.status in NEVER_TAKEN:
        return "change"
    return "repeat"


def jobs_in_words(failures_of_jobs: Iterable[Failure]) -> str:
    """Which jobs of the batch they are, as the lines number them."""
    indexes = sorted(failure.job.index or 0 for failure in failures_of_jobs if failure.job)
    word = "job" if len(indexes) == 1 else "jobs"
    return cut(f"{word} {', '.join(map(str, indexes))}", 100)


async def run_batch(
    task: Task,
    model: str,
    items: Sequence[str | Arguments],
    *,
    concurrency: int = 4,
    dry_run: bool = False,
    **values: Any,
) -> AsyncGenerator[Fields, None]:
    """Yield each job's line as it ends, and raise a Failure at last if any job failed."""
    shared = take(values, task.flags)
    checks = take(values, CHECKS)
    past = PastJobs(**take(values, AGAIN))
    options = Options(**values)
    orders = [
        new_order("batch", task, flags_of_one_job(task, shared, item), checks) for item in items
    ]
    batch = Batch(
        model,
        orders,
        options,
        past,
        concurrency,
    )
    max_cost = checks.get("max_cost")
    with contextlib.closing(Journal(past.journal, dry_run)) as journal:
        for job in batch.jobs:
            journal.attach(job, batch.endpoint, batch.uploads.digest)
            options.saving.keep(earlier_files(job, options.saving))
        if dry_run:
            async for document in batch.plans(max_cost):
                yield document
            return
        if past.journal:
            past.announce(batch.jobs)
        async with fal_session(batch.job, options.client_timeout):
            await batch.prepare(max_cost)
            async with contextlib.aclosing(batch.lines()) as lines:
                async for line in lines:
                    yield line


def flags_of_one_job(task: Task, shared: Arguments, item: str | Arguments) -> Fields:
    """The flags of one job of a batch, its own and those of all."""
    flags: Fields = {task.varied: item}
    if isinstance(item, Mapping):
        flags = dict(item)
    merged = {
        "extra_json": {**shared.get("extra_json", {}), **flags.pop("extra", {})},
        "arg": {**shared.get("arg", {}), **flags.pop("arg", {})},
    }
    flags = {**shared, **flags}
    flags.update({name: values for name, values in merged.items() if values})
    return flags


# ---------------------------------------------------------------------------------------------
# Whether all is in order: what --check looks at. Nothing that is billed is asked for; the key
# goes to fal's API and queue, and nothing else of the user's goes anywhere.
# ---------------------------------------------------------------------------------------------

CHECK_TIME = 10  # seconds for the key, and for each host; all of them are asked side by side
NOBODYS_REQUEST = "00000000-0000-0000-0000-000000000000"
GATEWAY_STATUSES = (502, 503, 504)  # of a host that is reached, and behind which is nobody
HOST_VARIABLES = ("FAL_RUN_HOST", "FAL_QUEUE_RUN_HOST")  # which fal-client reads
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Package(NamedTuple):
    """A package that is imported: its name, the module, and the versions that will do."""

    name: str
    module: str
    versions: str = ""  # any, if empty
    is_needed: bool = True


PACKAGES = (
    Package("fal-client", "fal_client", ">=1.0.3,<1.1"),
    Package("httpx", "httpx", ">=0.27,<1"),
    Package("Pillow", "PIL.Image", ">=10.3"),
)
OPTIONAL_PACKAGES = (
    Package("pillow-heif", "pillow_heif", ">=0.18", is_needed=False),  # HEIC
    Package("socksio", "socksio", is_needed=False),  # SOCKS
    Package("python-socks", "python_socks", is_needed=False),  # SOCKS for realtime
)
PACKAGES_HINT = (
    "All that is needed: python3 -m pip install -r requirements.txt; or uv run skill_fal.py."
)


class Trouble(NamedTuple):
    """What a check has come upon, and the host that it happened with, if it is about one."""

    failure: Failure
    host: str = ""

    @property
    def rank(self) -> int:
        """Its place among others: as a command would meet them, and what stops most comes first."""
        ranks = (Exit.USAGE, Exit.CREDENTIALS, Exit.NETWORK)
        if self.failure.exit in ranks:
            return ranks.index(self.failure.exit)
        return len(ranks)


Checks = Sequence[Awaitable["Trouble | None"]]  # each as trouble_with gives it


async def check_all() -> Fields:
    """Tell whether all is in order: packages, the key, the network, and places on disk.

    It is what to run when nothing works, and what to send with a report: {"ok", "version",
    "python", "packages", "key", "network", "folders", "history", "problems"}, where each of the
    problems is {"what", "hint"}. Nothing is billed or written, and nothing of yours is sent but
    the key to fal. No key and no password is told, and the home folder is shown as ~.

    Exit status: 0 all is in order · 2 a package, a variable or a folder is wrong · 3 the key is
    missing or refused, or the account is locked · 4 a host is not reached. If there are several
    it is the least: without packages and settings no host is asked. 1 is what fal or the machine
    fails by in another way.
    """
    report = blank_report()
    troubles: list[Trouble] = []
    for stage in STAGES:
        found = await troubles_in(stage(report))
        troubles += found
        if found:
            break
    troubles += await troubles_in(checks_of_machine(report))
    troubles.sort(key=operator.attrgetter("rank"))
    report["ok"] = not troubles
    report["problems"] = problems_of(troubles)
    if troubles:
        RUN.job.unprinted = [report]
        raise troubles[0].failure
    return report


def blank_report() -> Fields:
    """What is known before anything is looked at; what stays null was not found out."""
    variable = None
    if key_in("FAL_KEY"):
        variable = "FAL_KEY"
    elif key_in("FAL_KEY_ID") and key_in("FAL_KEY_SECRET"):
        variable = "FAL_KEY_ID and FAL_KEY_SECRET"
    certificates: Fields = {}
    for name in CERTIFICATE_VARIABLES:
        certificates[name] = without_home(os.environ.get(name, "")) or None
    history = "on"
    if RUN.history.is_off:
        history = "off"
    return {
        "ok": None,
        "version": __version__,
        "python": {
            "version": sys.version.split()[0],
            "executable": without_home(sys.executable or ""),
            "platform": sys.platform,
        },
        "packages": {},
        "key": {"variable": variable, "accepted": None, "may_ask_prices": None},
        "network": {"proxy": None, "certificates": certificates, "hosts": {}},
        "folders": {},
        "history": history,
        "problems": [],
    }


def checks_of_packages(report: Fields) -> Checks:
    return [trouble_with(check_package(row, report["packages"])) for row in PACKAGES]


def checks_of_settings(report: Fields) -> Checks:
    return [
        trouble_with(check_proxy(report["network"])),
        trouble_with(check_certificates()),
        trouble_with(check_host_variables()),
    ]


def checks_of_fal(report: Fields) -> Checks:
    checks = [trouble_with(ask_about_key(report["key"]))]
    for url in hosts_of_fal():
        check = check_host(url, report["network"]["hosts"])
        checks.append(trouble_with(check, url.netloc.decode()))
    return checks


def checks_of_machine(report: Fields) -> Checks:
    """What needs nothing else to be in order."""
    checks = [trouble_with(check_form_of_key())]
    for row in OPTIONAL_PACKAGES:
        checks.append(trouble_with(check_package(row, report["packages"])))
    folders = {"state": STATE_FOLDER, "cache": CACHE_FOLDER}
    if RUN.history.is_off:
        del folders["state"]  # which holds little else
    for name, folder in folders.items():
        checks.append(trouble_with(check_user_folder(name, folder, report["folders"])))
    return checks


# Each needs that the ones before it have found no trouble.
STAGES = (checks_of_packages, checks_of_settings, checks_of_fal)


async def troubles_in(checks: Checks) -> list[Trouble]:
    """What checks come upon that are made side by side, in their order."""
    outcomes = await asyncio.gather(*checks)
    return [trouble for trouble in outcomes if trouble is not None]


async def trouble_with(check: Awaitable[None], host: str = "") -> Trouble | None:
    """What a check comes upon; a bug of ours keeps its traceback."""
    try:
        with failures(Job()):
            await check
    except Failure as failure:
        return Trouble(failure, host)
    return None


def problems_of(troubles: Sequence[Trouble]) -> list[Fields]:
    """Each thing that is wrong, with all the hosts that it is wrong with, and what to do."""
    hosts = [host for _, host in troubles if host]
    by_text: dict[tuple[str, str], list[str]] = {}
    for failure, host in troubles:
        hint = advice(failure) or "Wait a little, then look again."
        names = by_text.setdefault((message_for_any(hosts, failure), hint), [])
        if host:
            names.append(host)
    problems = []
    for (message, hint), names in by_text.items():
        if names:
            message = f"{', '.join(names)}: {message}"
        problems.append({"what": without_home(cut(message)), "hint": without_home(hint)})
    return problems


def message_for_any(hosts: Iterable[str], failure: Failure) -> str:
    """What went wrong, in words that are the same for each of the hosts."""
    message = failure.message
    for host in sorted(hosts, key=len, reverse=True):  # queue.fal.run before fal.run
        message = message.replace(host, "the server")
    return message


def without_home(text: str) -> str:
    """The text, with the user's home folder as `~`: its name is often that of a person."""
    home = os.path.expanduser("~").rstrip(os.sep)
    if not os.path.isabs(home):
        return text
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)


async def check_package(package: Package, facts: Fields) -> None:
    """Whether a package has a version that will do and, if it is needed, can be imported."""
    row: Fields = {"version": None, "needed": package.is_needed}
    facts[package.name] = row
    with contextlib.suppress(distributions.PackageNotFoundError):
        row["version"] = distributions.version(package.name)
    if package.versions:
        row["wanted"] = package.versions
    version = row["version"]
    if version and not is_version_among(version, package.versions):
        message = f"{package.name} is {version}, and {package.versions} is needed"
        remedy = f'pip install "{package.name}{package.versions}".'
        raise usage_error(message, f"{remedy} {PACKAGES_HINT}")
    if not package.is_needed:
        return
    try:
        with any_home():
            importlib.import_module(package.module)
    except Exception as exc:  # anything, if it is for another Python or was only half installed
        raise import_failure(package, exc) from exc


def import_failure(package: Package, exc: Exception) -> Failure:
    """Why a package is not imported: it is not there, needs another that is not, or is broken."""
    failure = None
    if isinstance(exc, ModuleNotFoundError):
        failure = missing_package(exc)
    message = f"{package.name} cannot be imported: {type(exc).__name__}: {exc}"
    return failure or usage_error(message, f"Install it anew. {PACKAGES_HINT}")


def is_version_among(version: str, versions: str) -> bool:
    """Whether a version is one of those that a text such as ">=1.0.3,<1.1" means."""
    for limit in filter(None, versions.split(",")):
        is_least = limit.startswith(">=")
        if (numbers_of(version) >= numbers_of(limit.lstrip("<>="))) != is_least:
            return False
    return True


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what marks it as one that is not final."""
    match = re.match(r"\d+(\.\d+)*", version)
    if match is None:
        return ()
    return tuple(map(int, match[0].split(".")))


async def check_proxy(facts: Fields) -> None:
    """Whether a proxy is one that can be used; most hosts are reached by the same."""
    proxy = proxy_for(httpx.URL(MODELS_URL))
    if proxy is None:
        return
    facts["proxy"] = {"variable": proxy.variable, "place": proxy.place}
    if proxy.is_socks:
        require_package("httpx[socks]", "socksio", proxy)


async def check_certificates() -> None:
    """Whether the variables lead to certificates."""
    tls_context()


async def check_host_variables() -> None:
    """Whether the user's own places for fal's hosts are places."""
    for variable in HOST_VARIABLES:
        place = os.environ.get(variable)
        if place is not None and not is_place(place):
            hint = f"Write {variable}=HOST or HOST:PORT, or unset it."
            raise usage_error(f"{variable} names no host", hint)


def is_place(text: str) -> bool:
    """Whether a URL can be made of it."""
    try:
        httpx.URL(f"https://{text}")
    except httpx.InvalidURL:
        return False
    return is_host_and_port(text)


def hosts_of_fal() -> list[httpx.URL]:
    """Where commands turn to: jobs, files, models and media."""
    urls = [
        *fal_settings(),
        httpx.URL(fal_client.client.REST_URL),
        httpx.URL(MODELS_URL),
        *(httpx.URL(f"https://{host}") for host in MEDIA_HOSTS),
    ]
    return list(dict.fromkeys(url.copy_with(path="/", query=None) for url in urls))


async def check_host(url: httpx.URL, facts: Fields) -> None:
    """Whether a host answers, whatever, to somebody who shows no key."""
    row: Fields = {"reached": False}
    facts[url.netloc.decode()] = row
    proxy = proxy_for(url)
    if proxy is not None:
        row.update(proxy=proxy.variable)
    async with in_time(url), CONNECTION.opened() as web:
        response = await web.head(url)
    row.update(reached=True, status=response.status_code)
    if response.status_code in GATEWAY_STATUSES:
        raise answer_failure(response, "")


@contextlib.asynccontextmanager
async def in_time(url: httpx.URL) -> AsyncIterator[None]:
    """Wait for the answer of a host for a bounded time."""
    try:
        async with asyncio.timeout(CHECK_TIME):
            yield
    except TimeoutError as exc:
        late = TimeoutError(f"no answer came within {CHECK_TIME} s")
        raise unreachable_failure(late, url) from exc


async def check_form_of_key() -> None:
    """Whether there is a key that can be one."""
    api_key()


async def ask_about_key(facts: Fields) -> None:
    """Have fal say whether the key is good. Prices are free and take a key; a key that may not
    see them may still look at a job, here at one that nobody has.
    """
    model = next(iter(TEXT_TO_IMAGE_MODELS))
    async with in_time(httpx.URL(MODELS_URL)), platform(api_key()) as client:
        refusal = refusal_of_key(await client.get(PRICES_URL, params={"endpoint_id": model}))
        facts["may_ask_prices"] = verdict_of(refusal)
        if refusal is not None and refusal.type != "account_locked":
            refusal = refusal_of_key(await client.get(url_of_nobodys_job(model)))
    facts["accepted"] = verdict_of(refusal)
    if refusal is not None:
        raise refusal


def verdict_of(refusal: Failure | None) -> bool | None:
    """Whether fal takes the key; None if what it says is about something else."""
    if refusal is None:
        return True
    if refusal.exit == Exit.CREDENTIALS:
        return False
    return None


def refusal_of_key(answer: httpx.Response) -> Failure | None:
    """Why an answer does not say that the key is good; one that knows no such job does."""
    if answer.is_success:
        return None
    failure = answer_failure(answer, answer.text)
    if failure.job_is_gone:
        return None
    return failure


def url_of_nobodys_job(model: str) -> httpx.URL:
    _, queue = fal_settings()
    owner, app = model.split("/")[:2]
    return queue.copy_with(path=f"/{owner}/{app}/requests/{NOBODYS_REQUEST}/status")


async def check_user_folder(name: str, folder: UserFolder, facts: Fields) -> None:
    """Whether a folder of the program's own can be written to, or made."""
    hint = f"Set {folder.variable} to a folder that can be written to."
    if folder is STATE_FOLDER:
        hint += " FAL_SKILL_HISTORY=0 does without a list of jobs."
    path = user_folder(folder)
    row: Fields = {"path": path, "writable": False}
    facts[name] = row
    if path is None:
        raise usage_error(f"there is no home for the {name} folder", hint)
    row["path"] = without_home(path)
    try:
        check_folder(path)
    except Failure as failure:
        raise usage_error(f"{name} folder: {failure.message}", hint) from failure
    row["writable"] = True


# ---------------------------------------------------------------------------------------------
# Commands: each is one function; its keywords are the flags, and its docstring is the help.
# They can be imported, too; whatever goes wrong, they raise Failure.
# ---------------------------------------------------------------------------------------------

COMMANDS: dict[str, Command] = {}


def command(
    name: str,
    *flags: Flag,
    example: str,
    text: Callable[[Any], str] | None = None,
) -> Callable[[Operation], Operation]:
    """Register an operation as a subcommand."""

    def register(operation: Operation) -> Operation:
        COMMANDS[name] = Command(
            name=name,
            operation=operation,
            flags=flags,
            help=help_of(operation),
            example=example,
            text=text,
        )
        return operation

    return register


def help_of(operation: Callable[..., Any]) -> str:
    """The docstring, without the spaces before its lines."""
    lines = (operation.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines)


def generation(verb: str, *flags: Flag, example: str = "") -> Callable[[Operation], Operation]:
    """Register an operation on a model and its arguments as verb-t2i and verb-i2v."""

    def register(operation: Operation) -> Operation:
        for task in (T2I, I2V):
            operation_on_task = functools.partial(generate, verb, operation, task)
            operation_on_task.__doc__ = f"{(operation.__doc__ or '').strip()}\n\n{task.about}"
            add = command(
                f"{verb}-{task.suffix}",
                MODEL,
                *CHECKS,
                *task.flags,
                *flags,
                example=f"{task.example} {example}".strip(),
            )
            add(operation_on_task)
        return operation

    return register


@generation("submit", *QUEUE, LEAVING_THE_JOB, WEBHOOK_URL, example="--priority low")
async def submit_job(model: str, arguments: Arguments | Order, **keywords: Any) -> Fields:
    """Queue a job and give its request id at once: {"request_id", "model"}.

    `status`, `result` and `cancel` take it from there.
    """
    options = Options(**keywords)
    job = options.new_job(model)
    job.cancelled_if_given_up = False
    async with fal_session(job, options.client_timeout):
        await submit(job, arguments, options, Uploads())
    return {"request_id": job.request_id, "model": model}


@generation(
    "subscribe",
    *QUEUE,
    CANCELLING,
    KEEP,
    *SAVE,
    example="--output results/",
)
async def subscribe_job(model: str, arguments: Arguments | Order, **keywords: Any) -> Any:
    """Queue a job, follow it on stderr, and give the model's response.

    A job that is given up (Ctrl-C, SIGTERM, --client-timeout) is cancelled at fal.
    """
    options = Options(**keywords)
    return await submit_and_follow(
        options.new_job(model),
        arguments,
        options,
        Uploads(),
        options.client_timeout,
    )


@generation("run", *QUEUE, LEAVING_THE_JOB, *SAVE)
async def run_job(model: str, arguments: Arguments | Order, **keywords: Any) -> Any:
    """Run a model in a single HTTP call, without the queue, and give its response.

    For quick models: a response that is lost on the way cannot be fetched again.
    """
    options = Options(**keywords)
    job = options.new_job(model)
    async with fal_session(job, options.client_timeout):
        response = await fal_client.run_async(
            model,
            await arguments_to_send(job, arguments, options, Uploads()),
            path=options.sub_path(model),
            timeout=options.client_timeout,
            headers=options.headers(),
        )
        job.answered(response)
        return await save_media(job)


@generation("stream", *QUEUE, LEAVING_THE_JOB, *SAVE)
async def stream_job(
    model: str, arguments: Arguments | Order, **keywords: Any
) -> AsyncGenerator[Any, None]:
    """Run a model that streams: one line of JSON for each event.

    The last event is the whole response, whose files --output saves. Few models stream; --path
    replaces /stream.
    """
    options = Options(**keywords)
    job = options.new_job(model)
    async with fal_session(job, options.client_timeout):
        events: Any = fal_client.stream_async(
            model,
            await arguments_to_send(job, arguments, options, Uploads()),
            path=options.sub_path(model, ROUTES["stream"].path),
            timeout=options.client_timeout,
            headers=options.headers(),
        )
        async with contextlib.aclosing(stream_events(job, events)) as documents:
            async for document in documents:
                yield document
        job.becomes(JobState.DONE, result=job.response)
        document = await save_media(job)
        if options.saving.target:
            job.was_printed()
            yield document


async def stream_events(job: Job, events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """What is printed of the events: all, but for the last one where files are to be saved.

    With --media, what is printed is the files of the last event alone.
    """
    assert job.saving
    count = 0
    async with contextlib.aclosing(events) as open_events:  # type: ignore[type-var]
        async for event in open_events:
            earlier = job.response
            event = job.take_back(event)
            count += 1
            if not job.saving.target:
                job.response = event
                yield event
                continue
            other = earlier
            if earlier is None or has_files(event) or not has_files(earlier):
                job.response = event
            else:  # a mark of the end, perhaps; what is saved is the last event with files
                other = event
            job.unprinted = [job.response]
            if count > 1 and not job.saving.media:
                yield other
    if not count:
        raise Failure("connection_lost", "the stream ended without an event")


@command(
    "status",
    MODEL_OF_JOB,
    REQUEST_ID,
    NO_LOGS,
    LOOKING_ON,
    example=JOB_EXAMPLE,
)
async def check_status(
    model: str, request_id: str, *, no_logs: bool = False, client_timeout: float | None = None
) -> Fields:
    """Show where a job is: {"request_id", "model", "status", "logs", ...}.

    The status is IN_QUEUE, IN_PROGRESS or COMPLETED. A job that failed is COMPLETED too, with
    an "error" and perhaps an "error_type".
    """
    job = job_of_list(model, request_id)
    job.patience = GLANCE_LIMIT
    async with fal_session(job, client_timeout):
        status = await fal_client.status_async(model, request_id, with_logs=not no_logs)
        job.ended(status)
        fields = status_fields(status)
        if no_logs:
            del fields["logs"]
        return {
            "request_id": request_id,
            "model": model,
            **fields,
        }


@command(
    "result",
    MODEL_OF_JOB,
    REQUEST_ID,
    NO_WAIT,
    LOOKING_ON,
    *SAVE,
    example=f"{JOB_EXAMPLE} --output pictures/",
)
async def fetch_result(
    model: str,
    request_id: str,
    *,
    no_wait: bool = False,
    client_timeout: float | None = None,
    **saving: Any,
) -> Any:
    """Fetch the model's response to a job; waits for the job to end.

    fal keeps responses for a limited time; the list of jobs has those that came
    here once.
    """
    job = job_of_list(model, request_id)
    job.saving = Saving(**saving)
    return await fetch_or_recall(job, no_wait, client_timeout)


@command(
    "cancel",
    MODEL_OF_JOB,
    REQUEST_ID,
    LOOKING_ON,
    example=JOB_EXAMPLE,
)
async def cancel_job(model: str, request_id: str, *, client_timeout: float | None = None) -> Fields:
    """Cancel a job: {"request_id", "model", "status": "CANCELLATION_REQUESTED"}.

    A job that waits never runs; one that runs is asked to stop, which it may ignore.
    """
    document = await request_cancellation(model, request_id, client_timeout)
    job_of_list(model, request_id).becomes(JobState.CANCELLED)
    look = job_command("status", model, request_id, "--no-logs")
    note(f"it may end all the same, and is billed then; how it ended: {look}")
    return document


@command("upload-file", FILE, example="--file photo.jpg", text=url_text)
async def upload_file(file: str) -> Fields:
    """Upload a file of any kind to fal's CDN and give its URL, which is public."""
    with file_for_fal_client(file) as path:
        return {"url": await uploaded(fal_client.upload_file_async, path)}


@command(
    "upload-image",
    FILE,
    IMAGE_FORMAT,
    example=IMAGE_EXAMPLE,
    text=url_text,
)
async def upload_image(file: str, *, format: str = "jpeg") -> Fields:
    """Convert a picture, turn it upright, upload it, and give its URL, which is public."""
    return {"url": await uploaded(fal_client.upload_image_async, *converted_picture(file, format))}


@command(
    "upload-raw",
    FILE_OR_STDIN,
    CONTENT_TYPE,
    example=RAW_EXAMPLE,
    text=url_text,
)
async def upload_raw(file: str, *, content_type: str) -> Fields:
    """Upload bytes under a content type of your own and give their URL, which is public."""
    with open_bytes(file) as source:
        data, name = Parts(file, source).whole_or_parts(), portable_name(file)
        return {"url": await uploaded(fal_client.upload_async, data, content_type, name)}


@command("encode-file", FILE, example="--file photo.jpg", text=data_uri_text)
def encode_file(file: str) -> Fields:
    """Give a file as a data URI, its content type told from what it is; nothing is sent."""
    with file_for_fal_client(file) as path:
        return {"data_uri": fal_client.encode_file(path)}


@command(
    "encode-image",
    FILE,
    IMAGE_FORMAT,
    example=IMAGE_EXAMPLE,
    text=data_uri_text,
)
def encode_image(file: str, *, format: str = "jpeg") -> Fields:
    """Convert a picture, turn it upright, and give it as a data URI; nothing is sent."""
    return {"data_uri": fal_client.encode_image(*converted_picture(file, format))}


@command(
    "encode-raw",
    FILE_OR_STDIN,
    CONTENT_TYPE,
    example=RAW_EXAMPLE,
    text=data_uri_text,
)
def encode_raw(file: str, *, content_type: str) -> Fields:
    """Give bytes under a content type of your own as a data URI; nothing is sent."""
    return {"data_uri": fal_client.encode(read_bytes(file), content_type)}


@command(
    "realtime",
    MODEL,
    *CHECKS,
    *requiring(""),
    ARGUMENTS_JSON,
    ROUNDS,
    PATH,
    LEAVING_THE_JOB,
    *SAVE,
    example='--model fal-ai/flux/schnell --prompt "A glowing orb" --rounds 3',
)
def realtime(model: str, **values: Any) -> Any:
    """Send arguments over a WebSocket, once a round: one line of JSON for each answer.

    Binary values in an answer are printed as data URIs. --path replaces /realtime.
    """
    if "seed" in values and values.get("rounds", 1) > 1:
        note("each of the rounds costs a call, and all are alike: they have one --seed")
    content = ("prompt", "image_url", "arg", "extra_json", "arguments")
    if not any(name in values for name in content):
        message = "one of --prompt, --image-url, --arg and --arguments-json is required"
        raise usage_error(message, "See realtime --help.")
    return generate("realtime", realtime_session, T2I, model=model, **values)


async def realtime_session(
    model: str,
    arguments: Arguments | Order,
    *,
    seed: int | None = None,
    extra_json: Arguments | None = None,
    rounds: int = 1,
    **keywords: Any,
) -> AsyncGenerator[Any, None]:
    """Yield the answer to each round, its files saved."""
    if isinstance(arguments, Order):
        rounds = arguments.rounds
    else:
        arguments = {**arguments, **present(seed=seed), **(extra_json or {})}
    options = Options(**keywords)
    job = options.new_job(model)
    path = options.sub_path(model, ROUTES["realtime"].path)
    async with fal_session(job, options.client_timeout):
        await arguments_to_send(job, arguments, options, Uploads())
        async with fal_client.realtime_async(model, path=path) as connection:
            for answered in range(rounds):
                answer = await realtime_round(job, connection)
                if answer is None:
                    raise Failure(
                        "connection_lost",
                        f"fal closed the connection after {answered} of {rounds} answers",
                    )
                job.answered(answer)
                document = await save_media(job)
                job.was_printed()
                yield document


async def realtime_round(job: Job, connection: fal_client.AsyncRealtimeConnection) -> Any:
    """The answer to one message; None if fal has closed the connection."""
    # What fal said before it closed the connection tells more than that it is closed.
    job.becomes(JobState.SENT)
    with contextlib.suppress(websockets.ConnectionClosed):
        await connection.send(dict(job.arguments))
    answer: Any = await connection.recv()
    # fal-client hands on a refusal like any answer
    if isinstance(answer, dict) and answer.get("status") == "error":
        raise fal_client.client.RealtimeError(str(answer.get("error")))
    return answer


@command(
    "batch-t2i",
    MODEL,
    *CHECKS,
    *T2I.many,
    *T2I.shared,
    *QUEUE,
    CANCELLING,
    *BATCH,
    example=T2I.batch_example,
)
def batch_text_to_image(
    model: str, prompts: Sequence[str | Arguments], **options: Any
) -> AsyncGenerator[Fields, None]:
    """Run one job for each prompt: {"index", "prompt", "request_id", "result" or "error"} each.

    Lines come as jobs end. A job that fails takes no other with it; the exit status is then 1.
    With --media, MEDIA lines come as jobs end too, those of one job together: before them, stderr
    says which job saved which file, and {index} in --output puts that into its name.
    """
    return run_batch(T2I, model, prompts, **options)


@command(
    "batch-i2v",
    MODEL,
    *CHECKS,
    *I2V.many,
    *I2V.shared,
    *QUEUE,
    CANCELLING,
    *BATCH,
    example=I2V.batch_example,
)
def batch_image_to_video(
    model: str, image_urls: Sequence[str | Arguments], **options: Any
) -> AsyncGenerator[Fields, None]:
    """Run one job for each image: {"index", "image_url", "request_id", "result" or "error"} each.

    Lines come as jobs end. A job that fails takes no other with it; the exit status is then 1.
    With --media, MEDIA lines come as jobs end too, those of one job together: before them, stderr
    says which job saved which file, and {index} in --output puts that into its name.
    """
    return run_batch(I2V, model, image_urls, **options)


for _task in (T2I, I2V):
    command(
        f"list-{_task.suffix}",
        example="--json",
        text=catalog_text,
    )(_task.catalog)


@command(
    "list-models",
    search_flag("--category NAME", "such as text-to-image or image-to-video", read_plain_text),
    search_flag("--search TEXT", "words to look for in names and descriptions", read_plain_text),
    search_flag("--include-deprecated", "deprecated models too"),
    search_flag(
        "--schema ENDPOINT", "show what this model takes: name, type, default, ...", read_endpoint
    ),
    search_flag(
        "--price ENDPOINT",
        "show what these models cost: endpoint, unit price, unit, currency (needs the key)",
        read_endpoint,
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
        return await fetch_input_schema(schema)
    if price:
        return await fetch_prices(price)
    models = await fetch_models(**filters)
    if not models:
        note(await why_no_model(**filters))
    if categories:
        return count_categories(models)
    return models


@command(
    "list-jobs",
    search_flag(
        "--limit N",
        "jobs at most, the newest (default 20, with --costs all)",
        read_positive_int,
    ),
    search_flag("--model ENDPOINT", "jobs of this endpoint alone", read_endpoint),
    search_flag(
        "--search WORDS",
        "jobs with all these words in what they are about, endpoint or request id",
        read_plain_text,
    ),
    search_flag(
        "--live",
        "ask fal how unfinished ones are getting on, and who the unknown ones are, and record it",
    ),
    search_flag(
        "--costs",
        "sum up billed units by day (UTC) and endpoint, and what they come to by fal's list prices"
        " of today, which is not the bill: day, endpoint, jobs, units, unit, USD (needs the key)",
    ),
    search_flag(
        "--account",
        "with --model: the requests of the whole account as fal lists them, of 30 days",
    ),
    example="--limit 5",
    text=list_text,
)
async def list_jobs(
    *,
    limit: int | None = None,
    model: str | None = None,
    search: str = "",
    live: bool = False,
    costs: bool = False,
    account: bool = False,
) -> list[Fields]:
    """List the jobs that were sent from here: request id, when, state, endpoint, what about.

    The newest come first; the state is submitted, done, failed, cancelled or unknown. With
    --json, all that is known, responses too. FAL_SKILL_HISTORY=0 keeps jobs out of the list.
    """
    if account and (live or costs or not model):
        message = "--account needs --model, which fal asks for, and goes without --live and --costs"
        raise usage_error(message)
    newest = limit or 20
    if account:
        rows = await fetch_requests(str(model), newest, time.time() - ACCOUNT_SPAN)
        jobs = [job for job in map(account_document, rows) if matches(job, None, search)]
    else:
        matching = (facts for facts in RUN.history.jobs() if matches(facts, model, search))
        known = list(itertools.islice(matching, limit if costs else newest))
        if live:
            await look_at_all(known)
        jobs = await costs_of(known) if costs else list(map(job_document, known))
    if not jobs:
        note("no job matches")
    return jobs


CHECK = Command("--check", check_all, (), help_of(check_all), "", None)


# ---------------------------------------------------------------------------------------------
# Failures: from an exception or an error answer to a Failure, and what to do next.
# ---------------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """What the body of an error answer says; any of fal's fields may be missing or odd."""

    type: str | None  # in fal's word
    message: str
    details: list[Fields] | None = None
    job_is_gone: bool = False
    is_page: bool = False  # of a gateway, in HTML


def answer_failure(response: Any, text: str) -> Failure:
    """What an error answer says, in any of the shapes that fal's hosts use."""
    headers = response.headers
    refusal = refusal_in(response, redact(text))
    kind = kind_of_answer(response.status_code, refusal)
    failure = Failure(
        kind,
        refusal.message,
        status=response.status_code,
        details=refusal.details,
    )
    failure.is_fals_word = not refusal.is_page
    failure.job_is_gone = refusal.job_is_gone and response.status_code == 404
    if kind != "account_locked":
        failure.type = refusal.type or headers.get("x-fal-error-type") or kind
    if failure.exit == Exit.USAGE:  # which promises that nothing was sent
        failure.exit = Exit.FAILED
    retry = retry_by_fal(headers)
    if headers.get("x-fal-request-timeout-type"):  # it did not start in time, and never will
        failure.exit = Exit.TIMEOUT
        retry = True
    if retry is not None:
        failure.retryable = retry
        failure.retry_is_fals_word = True
    return failure


def refusal_in(response: Any, text: str) -> Refusal:
    """What the text of an answer says, be it an event, JSON, or a gateway's page."""
    if "event-stream" in response.headers.get("content-type", ""):
        return read_event_refusal("".join(re.findall("(?m)^data:(.*)$", text)))
    if is_json(text):
        return read_refusal(json.loads(text))
    message = f"fal's gateway answered HTTP {response.status_code}"
    return Refusal(None, message, is_page=True)


def kind_of_answer(status: int, refusal: Refusal) -> str:
    """The row of ERRORS for an error answer."""
    if refusal.message.startswith("User is locked"):  # nothing but the text says so (2026)
        return "account_locked"
    if refusal.is_page and status in (502, 503, 504):
        return "gateway_error"
    return status_kind(status)


def status_kind(status: int) -> str:
    """The type of failure that an HTTP status stands for."""
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return "bad_request"
    if 500 <= status < 600:
        return "server_error"
    return "unexpected_answer"


def retry_by_fal(headers: Mapping[str, str]) -> bool | None:
    """fal's own word on whether a repetition may help; None if it says nothing."""
    answer = headers.get("x-fal-retryable") or headers.get("x-fal-needs-retry")
    if not answer:
        return None
    return answer.lower() in ("true", "1")


def read_refusal(body: Any) -> Refusal:
    """Type, message and details of an error body, in whichever of its shapes."""
    if not isinstance(body, dict):
        body = {"detail": body}
    if isinstance(body.get("error"), dict):  # api.fal.ai
        error = body["error"]
        body = {"error_type": error.get("type"), "detail": error.get("message")}
    word = body.get("status")
    if isinstance(word, str) and word in QUEUE_WORDS:
        return Refusal(word.lower(), QUEUE_WORDS[word], job_is_gone=word == "NOT_FOUND")
    reasons = (body.get(key) for key in ("detail", "error", "status", "message"))
    reason = next(filter(None, reasons), "")
    if isinstance(reason, list):  # the model refused its arguments
        details = [read_detail(item) for item in reason]
        messages = (f"{detail['field']}: {detail['message']}".lstrip(": ") for detail in details)
        return Refusal(details[0]["type"], "; ".join(messages), details)
    if not isinstance(reason, str):
        reason = json.dumps(reason)
    fal_type = body.get("error_type")
    if not isinstance(fal_type, str):
        fal_type = None
    return Refusal(fal_type, reason or "fal gave no reason")


def read_detail(item: Any) -> Fields:
    """An item of a 422's `detail`, flattened; the field without its leading "body"."""
    if not isinstance(item, dict):
        item = {"msg": item}
    location = item.get("loc")
    if not isinstance(location, list):
        location = []
    names = [str(name) for name in location]
    if names[:1] == ["body"]:
        del names[0]
    return {
        "field": ".".join(names),
        "message": str(item.get("msg") or "refused"),
        "type": str(item.get("type") or "invalid_arguments"),
    }


def read_event_refusal(data: str) -> Refusal:
    """Type, message and details of an error that is told as an event, in JSON or in words."""
    data = redact(data).strip()
    if is_json(data):
        return read_refusal(json.loads(data))
    return Refusal(None, data or "fal gave no reason")


def stream_failure(data: str) -> Failure:
    """What an event says that is called an error."""
    refusal = read_event_refusal(data)
    failure = Failure("stream_failed", refusal.message, details=refusal.details)
    failure.type = refusal.type or failure.type
    failure.is_fals_word = True
    return failure


def http_failure(exc: Any) -> Failure:
    text = ""
    with contextlib.suppress(httpx.StreamError):  # of a stream nothing may have been read
        text = exc.response.text
    return answer_failure(exc.response, text)


def handshake_failure(exc: Any) -> Failure:
    """The answer to a WebSocket upgrade that fal refused."""
    response = exc.response
    text = ""
    if response.body:
        text = response.body.decode(errors="replace")
    return answer_failure(response, text)


def realtime_failure(exc: Any) -> Failure:
    """An error frame, or the end of the connection; idle ones end after about 30 s (2026)."""
    if exc.error in ("CONNECTION_CLOSED", "TIMEOUT"):
        return connection_failure(exc)
    if exc.error == "Unauthorized":
        return Failure("unauthorized", reason_of(exc))
    failure = Failure("realtime_error", reason_of(exc))
    failure.is_fals_word = True
    return failure


def unreachable_failure(exc: BaseException, target: httpx.URL | None = None) -> Failure:
    url = target or url_asked(exc)
    proxy = proxy_on_the_way(url)
    way = ""
    if proxy is not None:
        way = f" through the proxy {proxy.place} ({proxy.variable})"
        if proxy.url.startswith("https:") and "WRONG_VERSION_NUMBER" in reason_of(exc):
            return proxy_without_tls(proxy)
    message = f"fal could not be reached{way}: {reason_of(exc)}"
    return Failure("unreachable", message, hint=hint_on_no_proxy(url))


def hint_on_no_proxy(url: httpx.URL | None) -> str | None:
    """What to do where a proxy might have led to a URL."""
    if url is None:
        return None
    found = proxy_setting_for(over_http(url))
    if found is None or not found.is_left_out:
        return None
    return f"NO_PROXY keeps {url.host} from {found.variable}: correct it if the proxy is the way."


def proxy_without_tls(proxy: Proxy) -> Failure:
    """Most proxies are asked in plain HTTP for a tunnel, in which TLS leads to fal."""
    return Failure(
        "proxy_refused",
        f"the proxy {proxy.place} ({proxy.variable}) speaks no TLS",
        hint=f"Write http:// in {proxy.variable}: what goes to fal is encrypted all the same.",
    )


def proxy_on_the_way(target: httpx.URL | None) -> Proxy | None:
    """The proxy that leads to a URL, be it one of WebSockets; None for an unknown URL."""
    if target is None:
        return None
    return proxy_for(over_http(target))


def over_http(url: httpx.URL) -> httpx.URL:
    """The URL by which a proxy is chosen for one that may be a WebSocket's."""
    return url.copy_with(scheme=url.scheme.replace("ws", "http"))


def url_asked(exc: BaseException) -> httpx.URL | None:
    """The URL of the request that one of httpx's exceptions is about."""
    request: httpx.Request | None = getattr(exc, "_request", None)  # `request` would raise
    if request is None:
        return None
    # The host by its name: what was checked is connected to by its address.
    return request.url.copy_with(netloc=request.headers["host"].encode())


def unsent_failure(exc: httpx.RequestError) -> Failure:
    """Why a request did not get as far as fal."""
    return failure_behind(exc) or refusal_of_proxy(exc) or unreachable_failure(exc)


def proxy_failure(exc: BaseException) -> Failure:
    return refusal_of_proxy(exc) or unreachable_failure(exc)


def refusal_of_proxy(exc: BaseException) -> Failure | None:
    """What a proxy says that will not let the user through; None for what may pass by itself."""
    response = getattr(exc, "response", None)  # of websockets
    reason = reason_of(exc)
    if response is not None:
        reason = f"{response.status_code} {response.reason_phrase}"
    if "Proxy" not in type(exc).__name__ or not re.match(r"4\d\d\b", reason):
        return None
    proxy = proxy_on_the_way(url_asked(exc))
    variable = "HTTPS_PROXY"
    if proxy is not None:
        variable = proxy.variable
    hint = f"Ask whoever runs the proxy that {variable} names."
    if reason.startswith("407"):
        hint = f"Write user and password into {variable}: http://USER:PASSWORD@HOST:PORT."
    return Failure("proxy_refused", f"the proxy lets nothing through: {reason}", hint=hint)


def failure_behind(exc: BaseException, target: httpx.URL | None = None) -> Failure | None:
    """What has caused a library's exception, where that tells more: a certificate, the machine."""
    for cause in causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return certificate_failure(cause, target or url_asked(exc))
        failure = machine_failure(cause)
        if failure is not None:
            return failure
    return None


def causes(exc: BaseException) -> Iterator[BaseException]:
    """An exception and all that it was raised from. httpcore 1.0 cuts the chain, and leaves what
    it has translated among the arguments; anyio gives a group for several addresses.
    """
    yield exc
    inner = [exc.__cause__, *exc.args]
    inner += getattr(exc, "exceptions", ())
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from causes(cause)


def certificate_failure(exc: ssl.SSLCertVerificationError, target: httpx.URL | None) -> Failure:
    """A certificate that nobody vouches for, as a network has it that opens what passes."""
    host = "the server"
    if target is not None:
        host = target.host
    hint = "A network may open what passes: name a file of its certificates in SSL_CERT_FILE."
    others = [variable for variable in OTHER_CERTIFICATES if leads_to_a_file(variable)]
    if others and not os.environ.get("SSL_CERT_FILE"):
        path = os.environ[others[0]]
        hint = f"{others[0]} names certificates of your own: set SSL_CERT_FILE to {path}, too."
    if exc.verify_code in (X509_NOT_YET_VALID, X509_EXPIRED):
        hint = f"Check the clock of this machine. {hint}"
    message = f"the certificate of {host} does not verify: {exc.verify_message or reason_of(exc)}"
    return Failure("certificate_refused", message, hint=hint)


# OpenSSL's numbers (x509_vfy.h).
X509_NOT_YET_VALID, X509_EXPIRED = 9, 10


def leads_to_a_file(variable: str) -> bool:
    return os.path.isfile(os.environ.get(variable, ""))


def machine_failure(exc: BaseException) -> Failure | None:
    """What the machine has no more of; None for all else that an exception may be about."""
    message = f"this machine refuses: {reason_of(exc)}"
    if isinstance(exc, MemoryError):
        return Failure("machine_error", message, hint=MACHINE_LIMITS["ENOMEM"])
    if isinstance(exc, RuntimeError) and "new thread" in reason_of(exc):
        return Failure("machine_error", message, hint=MACHINE_LIMITS["EAGAIN"])
    if not isinstance(exc, OSError):
        return None
    name = errno.errorcode.get(exc.errno or 0)
    if name not in MACHINE_LIMITS:
        return None
    return Failure("machine_error", message, hint=MACHINE_LIMITS[name])


def connection_failure(exc: BaseException) -> Failure:
    return Failure("connection_lost", f"the connection to fal broke: {reason_of(exc)}")


def protocol_failure(exc: BaseException) -> Failure:
    """httpx has one word for a host that hangs up and for one that redirects to no URL."""
    if "location header" in reason_of(exc):
        return Failure("unexpected_answer", reason_of(exc))
    return connection_failure(exc)


def no_answer_failure(exc: BaseException) -> Failure:
    message = f"fal did not answer in time: {reason_of(exc)}"
    return Failure("timeout", message, retryable=True)


def time_limit_failure(exc: BaseException) -> Failure:
    return Failure("timeout", "the time limit ran out")


def not_a_stream_failure(exc: BaseException) -> Failure:
    return Failure("not_a_stream", "the model did not answer with a stream")


def nesting_failure(exc: BaseException) -> Failure:
    return Failure("unexpected_answer", "the JSON is nested too deeply")


def system_failure(exc: Any) -> Failure:
    """What the system says of a file that the user named, or else of the machine, which is out of
    nothing: see explain. Connections have their own exceptions.
    """
    if exc.filename:
        return usage_error(reason_of(exc))
    return Failure("machine_error", f"this machine refuses: {reason_of(exc)}")


def missing_package(exc: Any) -> Failure | None:
    module = (exc.name or "").partition(".")[0]
    for package in PACKAGES:
        if module == package.module.partition(".")[0]:
            message = f"{package.name} is not installed: pip install {package.name}"
            return usage_error(message, PACKAGES_HINT)
    return None


def stop_failure(exc: BaseException) -> Failure:
    """What the first signal to the command meant; without one, Ctrl-C came before its time."""
    if RUN.stopped_by in (None, signal.SIGINT):
        return Failure("interrupted", "interrupted")
    return Failure("terminated", "terminated")


def reason_of(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


# By full class name, so that nothing is imported to look one up. The most derived class wins.
# What is not here is a bug of ours and keeps its traceback.
EXCEPTIONS: dict[str, Callable[[Any], Failure | None]] = {
    "fal_client.client.FalClientHTTPError": http_failure,
    "fal_client.client.RealtimeError": realtime_failure,
    "httpx.HTTPStatusError": http_failure,
    "httpx.ConnectError": unreachable_failure,
    "httpx.ConnectTimeout": unreachable_failure,
    "httpx.ProxyError": proxy_failure,
    "httpx.RemoteProtocolError": protocol_failure,
    "httpx.TimeoutException": no_answer_failure,
    "httpx.HTTPError": connection_failure,
    "httpx_sse._exceptions.SSEError": not_a_stream_failure,
    "websockets.exceptions.InvalidStatus": handshake_failure,
    "websockets.exceptions.ProxyError": proxy_failure,
    "websockets.exceptions.InvalidHandshake": unreachable_failure,
    "websockets.exceptions.WebSocketException": connection_failure,
    "builtins.TimeoutError": time_limit_failure,
    "builtins.ConnectionError": unreachable_failure,
    "socket.gaierror": unreachable_failure,
    "ssl.SSLError": unreachable_failure,
    "builtins.OSError": system_failure,
    "builtins.RecursionError": nesting_failure,
    "builtins.MemoryError": machine_failure,
    "builtins.RuntimeError": machine_failure,
    "builtins.ModuleNotFoundError": missing_package,
    "builtins.KeyboardInterrupt": stop_failure,
    "asyncio.exceptions.CancelledError": stop_failure,
}


def explain(exc: BaseException) -> Failure | None:
    """The Failure behind an exception; None for a bug of ours."""
    if isinstance(exc, Failure):
        return exc
    for kind in type(exc).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name in EXCEPTIONS:
            return failure_behind(exc) or EXCEPTIONS[name](exc)
    return None


def unexpected_answer(exc: Exception) -> Failure:
    """fal-client 1.0.3 reads answers without checking them: KeyError, ValueError and so on."""
    kind = type(exc).__name__
    message = f"fal gave an answer that cannot be read: {kind}: {reason_of(exc)}"
    return Failure("unexpected_answer", message)


def advice(failure: Failure) -> str | None:
    """The next thing to do: what the failure says itself, or what follows from its kind and its
    job. What is wrong with the machine or the network hides no job that fal has.
    """
    has_job = leaves_a_job(failure)
    if failure.hint and not (has_job and failure.type in CAUSES_HERE):
        return failure.hint
    if failure.exit in GIVEN_UP and failure.job and failure.job.hint:
        return failure.job.hint
    if has_job:
        fetching = result_command(failure.model, failure.request_id)
        remedy = remedy_for(failure)
        if remedy:
            return f"{remedy} Then look the job up: {fetching}"
        return f"Look the job up: {fetching}"
    if failure.job and failure.job.in_doubt:
        return IN_DOUBT_HINT
    if failure.type in ERRORS and ERRORS[failure.type].hint:
        return ERRORS[failure.type].hint
    if failure.exit == Exit.CREDENTIALS:
        return hint_on_the_key(failure)
    return advice_on_the_model(failure)


# The types of failures whose hints are about the machine or the network.
CAUSES_HERE = ("unreachable", "machine_error", "proxy_refused", "certificate_refused")


def remedy_for(failure: Failure) -> str | None:
    """What has to be done before a job can be looked up; None if nothing has."""
    if failure.type in CAUSES_HERE:
        return failure.hint
    if failure.exit == Exit.CREDENTIALS:
        return hint_on_the_key(failure)
    return None


def hint_on_the_key(failure: Failure) -> str:
    kind = ERRORS.get(failure.type)
    if kind is None or not kind.hint:
        return KEY_HINT
    return kind.hint


def leaves_a_job(failure: Failure) -> bool:
    """Whether fal has a job whose response did not come, nor the model's refusal."""
    job = failure.job
    if not (job and job.model and job.request_id) or job.refused:
        return False
    if job.state in (JobState.ACCEPTED, JobState.CANCELLED):
        return job.taken_now or not failure.job_is_gone
    if job.state != JobState.NEW or failure.may_be_repeated():
        return False
    return failure.exit in (Exit.NETWORK, *GIVEN_UP) or failure.type == "unexpected_answer"


def advice_on_the_model(failure: Failure) -> str | None:
    """What to do when the endpoint, its path, or its arguments are wrong."""
    model = failure.model
    asked: Arguments = {}
    if failure.job is not None:
        asked = failure.job.asked
    if failure.type == "already_completed" and failure.request_id:
        return f"What it made, if it did: {result_command(model, failure.request_id)}"
    if failure.message.startswith("Path "):
        near = near_models(str(model), asked)
        if re.match(r"Path \S*/(stream|realtime)\b", failure.message):
            return f"Few models stream or are realtime. {near}"
        return near
    if failure.status == 404 and failure.request_id:
        return "Check --model and --request-id; fal keeps results for a limited time."
    if failure.status == 404 and model:
        return near_models(model, asked)
    if failure.type == "invalid_arguments" and failure.exit == Exit.USAGE:
        return f"What the model takes: {command_line('list-models', '--schema', model)}"
    if failure.status == 422 and model:
        return f"The model's arguments are described at https://fal.ai/models/{model}/api"
    return None


def result_command(model: Any, request_id: Any, *flags: str) -> str:
    """The command that fetches a job's response."""
    return job_command("result", model, request_id, *flags)


def job_command(name: str, model: Any, request_id: Any, *flags: str) -> str:
    return command_line(
        name,
        "--model",
        model,
        "--request-id",
        request_id,
        *flags,
    )


def command_line(*arguments: Any) -> str:
    """A command that can be pasted into the shell that this one was started from."""
    program = [sys.argv[0]]
    if sys.argv[0].endswith(".py"):
        program.insert(0, sys.executable)
    return shlex.join([*program, *map(str, arguments)])


# ---------------------------------------------------------------------------------------------
# Output: text made safe, the console, progress and its pace. Nothing else writes to stdout or
# stderr.
# ---------------------------------------------------------------------------------------------

# A line that starts with it has a chat agent send a file.
MARK = "MEDIA:"

# What ends a line, steers a terminal, or is not seen: control characters, marks of direction, zero
# width, fillers, variation selectors, tags, surrogates, private use. JSON lets it stand.
UNSEEN = re.compile(
    "[\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)
MAX_LINE = 1200  # characters of a message, or of a line for people
MAX_NOTES = 50  # lines
MAX_DETAILS = 3000  # characters of what a failure says went wrong

PROXY_VARIABLES = ("https_proxy", "http_proxy", "all_proxy")  # in any case, as Python reads them

# Tokens that fal gave for this command; see keep_secret.
tokens_of_ours: list[str] = []


def keep_secret(token: str) -> None:
    """Have a token of ours appear in no output, as if it were the key."""
    if token not in tokens_of_ours:
        tokens_of_ours.append(token)


def redact(text: str) -> str:
    """The text without keys, whole or their secret halves, as they are or inside JSON; without
    tokens made of them, and passwords of proxies.
    """
    return without_secrets(text, secrets_now())


def without_secrets(text: str, secrets: Sequence[tuple[str, str]]) -> str:
    for form, name in secrets:
        text = text.replace(form, name)
    return text


def secrets_now() -> list[tuple[str, str]]:
    """What no output may hold, and what stands in its place. To read the environment takes longer
    than to look through a text for them.
    """
    keys = [os.environ.get(name, "") for name in ("FAL_KEY", "FAL_KEY_SECRET")]
    for name in other_key_variables():
        if not name.upper().endswith(FILE_VARIABLE_ENDINGS):
            keys.append(os.environ[name])
    return forms_of_secrets(
        tuple(keys),
        tuple(value for name, value in os.environ.items() if name.lower() in PROXY_VARIABLES),
        tuple(tokens_of_ours),
    )


@functools.lru_cache(maxsize=4)
def forms_of_secrets(
    keys: tuple[str, ...], proxies: tuple[str, ...], tokens: tuple[str, ...]
) -> list[tuple[str, str]]:
    """The forms in which a secret may be told; what is shorter than eight characters is none."""
    names: list[tuple[str, str]] = []
    for key in keys:
        names += [(word, "[FAL_KEY]") for word in words_of_key(key)]
    for token in tokens:
        names.append((token, "[token]"))
    for proxy in proxies:
        names += [(word, "[password]") for word in words_of_password(proxy)]
    forms = []
    for word, name in names:
        if len(word) >= 8:
            forms.append((word, name))
            forms.append((json.dumps(word)[1:-1], name))
    return forms


def words_of_password(proxy: str) -> list[str]:
    """The password of a proxy as it is set and as it is sent, and what URLs cut it to."""
    _, user_info, _ = parts_of_proxy(proxy)
    password = user_info.partition(":")[2]
    plain = urllib.parse.unquote(password)
    return [password, plain, percent_encoded(password), *re.split("[#/?]", password)]


def words_of_key(key: str) -> list[str]:
    """A key as it is set, as it is used, and what in it may be the key alone: without names,
    words and marks around it. Names of variables are no secret.
    """
    whole = key.strip()
    words = [whole, without_quotes(whole).strip()]
    for word in re.split(rf"[\s=,;<>(){{}}\"'`\\{NOT_SEEN}]+|[^\x00-\x7f]+", whole):
        if not re.fullmatch(rf"\W*{KEY_NAME}\W*", word, re.I):
            words.append(word)
    words += [word.rpartition(":")[2] for word in words]
    return [word for word in words if word not in KEYS_PAGE]  # which hints have to name


def printable(text: str) -> str:
    """Text from a server on one line of bounded length, unable to steer the terminal."""
    characters = []
    for character in UNSEEN.sub(" ", cut(text)):
        if not character.isprintable():
            character = " "
        characters.append(character)
    return "".join(characters)


def cut(text: str, length: int = MAX_LINE) -> str:
    """The text without secrets, or its start if it is too long to be read."""
    text = redact(text)
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text)} characters)"


def unmarked(text: str) -> str:
    """The text with no line that a chat agent takes for a file to send."""
    if MARK not in text.upper():
        return text
    return re.sub(r"(?im)^([^\S\n]*media):", r"\1 :", text)


class Raw(str):
    """JSON as it came, which nests more deeply than programs read, or is read by none."""

    def on_one_line(self) -> str:
        """The text without line ends, which JSON has between values, nor our name for files."""
        text = " ".join(redact(self).splitlines())
        return text.replace(f'"{SAVED_FILES}"', f'"model_{SAVED_FILES}"')


# A text, of which no way back is kept in memory, or a bracket.
JSON_TOKEN = r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]'


def nests_deeply(text: str) -> bool:
    """Whether JSON nests more deeply than MAX_DEPTH."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in re.finditer(JSON_TOKEN, text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            return True
    return False


class JsonPaper(NamedTuple):
    """What a document is written on: without these secrets, and with room for Raw."""

    secrets: list[tuple[str, str]]
    raw: dict[str, Raw]  # by the placeholders in the document


def jsonable(value: Any, paper: JsonPaper, content_type: Any = None) -> Any:
    """A value that JSON can hold and that does not tell the key.

    Bytes, which fal sends for images, become data URIs of the type told beside them; NaN and
    infinities become null; of Raw there is a placeholder. What an answer calls by the name of our
    list of files gets another name.
    """
    if isinstance(value, Mapping):
        content_type = value.get("content_type")
        fields = {}
        for name, item in value.items():
            if not isinstance(item, Saved):
                name = name_in_document(name, value)
            shown = without_secrets(str(name), paper.secrets)
            fields[shown] = jsonable(item, paper, content_type)
        return fields
    if isinstance(value, (list, tuple)):
        return [jsonable(item, paper) for item in value]
    if isinstance(value, bytes):
        if not isinstance(content_type, str):
            content_type = content_type_for(value[:HEAD_BYTES])
        return fal_client.encode(value, content_type)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Raw):
        placeholder = os.urandom(16).hex()
        paper.raw[placeholder] = value
        return placeholder
    return without_secrets(str(value), paper.secrets)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in UTF-8; what ends a line, steers a terminal or is not seen is escaped."""
    paper = JsonPaper(secrets_now(), {})
    text = json.dumps(
        jsonable(value, paper),
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
    )
    for placeholder, raw_text in paper.raw.items():
        text = text.replace(f'"{placeholder}"', raw_text.on_one_line())
    return UNSEEN.sub(escape_in_json, text)


def escape_in_json(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


class Console:
    """stdout for data; stderr for progress, notes and the last word on a failure.

    Silent about progress until start(), so that an importer's stderr stays its own.
    """

    def __init__(self) -> None:
        self.quiet = True
        self.forget()

    def forget(self) -> None:
        self.media = False  # print the files that were saved in place of the JSON
        self.indent: int | None = 2
        self.writing_to: IO[str] | None = None
        self.is_output_lost = False
        self._notes: set[str] = set()
        self._live = False  # whether the cursor stands in a line that changes
        self._lines = 0  # of progress
        self._last_line_at = 0.0

    def start(self) -> None:
        """Make stdout and stderr ready for a command."""
        self.forget()
        self.quiet = False
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by whoever started Python
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
            stream = getattr(sys, name)
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor
                os.set_blocking(stream.fileno(), True)  # or a pipe takes 64 KiB and no more

    def show(self, document: Any, as_text: Callable[[Any], str] | None = None) -> None:
        """Print the one document of a command, as JSON or as text for people; a list that is empty
        has no line.
        """
        if as_text is None:
            self.emit(document)
            return
        text = as_text(document)
        if text:
            self._print(unmarked(redact(text)))

    def emit(self, document: Any, whole: bool = False) -> None:
        """Print JSON; or, with --media, the files that were saved if that tells all."""
        files: list[Fields] = []
        if self.media:
            files = saved_in(document)
        for file in files:
            self.hand_over(file["path"])
        if whole or not files or "error" in document:
            self._print(unmarked(json_text(document, self.indent)))

    def hand_over(self, path: str) -> None:
        """Print the line that has a chat agent send a file."""
        self._print(f"{MARK}{path}")

    def _print(self, text: str) -> None:
        self._end_live_line()
        with self.printing():
            self._write(sys.stdout, f"{text}\n")

    @contextlib.contextmanager
    def printing(self) -> Iterator[None]:
        """Let a disk that takes no more leave as a Failure."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as exc:
            self.is_output_lost = True
            silence(sys.stdout)
            raise Failure("output_failed", f"stdout cannot be written to: {exc}") from exc

    def line(self, text: str) -> None:
        """A line of progress or a note."""
        if not self.quiet:
            self._end_live_line()
            self._tell(redact(printable(text)))

    def note(self, text: str) -> None:
        """Say, once, what is done differently from what was asked."""
        if text in self._notes or len(self._notes) > MAX_NOTES:
            return
        self._notes.add(text)
        if len(self._notes) > MAX_NOTES:
            text = "further notes are left out"
        self.line(f"note: {text}")

    def state(self, text: str) -> None:
        """What a job is at: one line that changes on a terminal, or else a line."""
        if self.quiet or not self.is_terminal():
            self.line(text)
            return
        self._tell(redact(f"\r{printable(text)}\x1b[K"), end="")
        self._live = True

    def fail(self, failure: Failure) -> None:
        """The last line: JSON for a program, words for a person."""
        self._end_live_line()
        error = failure.as_dict()
        if not sys.stderr.isatty():
            self._tell(json_text({"error": error}))
            return
        self._tell(redact(f"{self._red('error:')} {printable(failure.message)}"))
        if "hint" in error:
            self._tell(redact(f"hint: {printable(error['hint'])}"))

    def take_line(self) -> bool:
        """Whether stderr takes another line of progress: without end if a person watches.

        Elsewhere there are 30 lines at once, then one in 15 seconds, and 90 in all.
        """
        now = time.monotonic()
        if not self.is_terminal():
            if self._lines >= 90:
                return False
            if self._lines >= 30 and now - self._last_line_at < 15:
                return False
        self._lines += 1
        self._last_line_at = now
        return True

    def is_terminal(self) -> bool:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def _red(self, text: str) -> str:
        if not self.is_terminal() or os.environ.get("NO_COLOR"):
            return text
        return f"\x1b[31m{text}\x1b[0m"

    def _end_live_line(self) -> None:
        if self._live:
            self._live = False
            self._tell("\r\x1b[K", end="")

    def _tell(self, text: str, end: str = "\n") -> None:
        try:
            self._write(sys.stderr, unmarked(text) + end)
        except OSError:  # nobody reads it any longer
            silence(sys.stderr)

    def _write(self, stream: Any, text: str) -> None:
        self.writing_to = stream
        try:
            stream.write(text)
            stream.flush()
        finally:
            self.writing_to = None


def silence(stream: Any) -> None:
    """Send what is left in the stream's buffer nowhere, or Python fails on it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


console = Console()
note = console.note


SHORTEST_TURN, LONGEST_TURN = 0.1, 5.0  # seconds between two looks at a job


def turn_at(age: float) -> float:
    """Seconds until the next look at a job that is followed for so many seconds."""
    return min(max(age * 0.05, SHORTEST_TURN), LONGEST_TURN)


class Pace:
    """How often to look at jobs.

    The end of a lone job is noticed within 5 % of its age, 0.1 s at least and 5 s at most. Jobs
    of a batch share that pace: as they are alike, they take turns until the first of them has
    ended, and what it took tells when to look at the others.
    """

    def __init__(self) -> None:
        self.followed = 0  # jobs that are looked at in turn
        self._quickest: float | None = None  # seconds that the quickest job took
        self._ended: asyncio.Event | None = None

    async def wait(self, age: float) -> None:
        """Until the next look at a job of that age in seconds."""
        turn = turn_at(age)
        if self._quickest is not None:
            await asyncio.sleep(max(turn, min(self._quickest - age, LONGEST_TURN)))
            return
        if self._ended is None:
            self._ended = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(turn * self.followed, LONGEST_TURN)):
                await self._ended.wait()

    def ended(self, age: float) -> None:
        """A job has ended well at that age."""
        if self._quickest is None or age < self._quickest:
            self._quickest = age
        if self._ended:
            self._ended.set()


class Progress:
    """Tells how one job is getting on, each log line once, and waits between the looks at it."""

    def __init__(self, label: str = "", pace: Pace | None = None) -> None:
        self._label = label
        self._pace = pace or Pace()
        self._state = ""
        self._seen: set[tuple[str, str]] = set()
        self._started: float | None = None

    def say(self, text: str) -> None:
        console.line(self._label + text)

    def note(self, text: str) -> None:
        note(self._label + text)

    async def follow(self, status: fal_client.Status) -> None:
        """Report, then wait until it is time to look again."""
        if self._started is None:
            self._started = time.monotonic()
            self._pace.followed += 1
        age = time.monotonic() - self._started
        self._report(status, age)
        if not isinstance(status, fal_client.Completed):
            await self._pace.wait(age)
            return
        self._started = None  # a job that is submitted again is followed anew
        self._pace.followed -= 1
        if not status.error:
            self._pace.ended(age)

    def _report(self, status: fal_client.Status, age: float) -> None:
        fields = status_fields(status)
        for entry in fields["logs"]:
            self._report_log(entry)
        state = state_in_words(fields)
        if console.is_terminal():
            state += f", {age:.0f} s"
        ended = fields["status"] == "COMPLETED"
        if state != self._state and (ended or console.take_line()):
            self._state = state
            console.state(self._label + state)

    def _report_log(self, entry: Any) -> None:
        """fal's list of logs is a window that slides: known lines are told by their content."""
        if not isinstance(entry, dict):
            entry = {"message": entry}
        message = str(entry.get("message"))
        key = (str(entry.get("timestamp")), message)
        if key in self._seen:
            return
        self._seen.add(key)
        for line in message.splitlines():
            if not console.take_line():
                note("further lines of the log are left out; the command status shows them")
                return
            self.say(f"| {line}")


def state_in_words(fields: Fields) -> str:
    """Such as "in queue, 3 ahead"."""
    if fields.get("error_type") == "client_cancelled":
        return "cancelled"
    if fields.get("error"):
        return "failed"
    state: str = fields["status"].lower().replace("_", " ")
    if fields.get("queue_position"):
        state += f", {fields['queue_position']} ahead"
    return state


RUN = Run()


# ---------------------------------------------------------------------------------------------
# The command line: parsers, signals, and main.
# ---------------------------------------------------------------------------------------------


FEWEST_COLUMNS = 40  # of a terminal for which --help is laid out


def help_width() -> int:
    """Columns for --help; some terminals say that they have none, and hardly any are no use."""
    columns = shutil.get_terminal_size().columns
    return columns if columns >= FEWEST_COLUMNS else 80


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are Failures."""

    def __init__(self, **settings: Any) -> None:
        layout = functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28, width=help_width() - 2
        )
        super().__init__(
            allow_abbrev=False,
            formatter_class=layout,
            **settings,
        )

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        with console.printing():  # --help into a closed pipe fails here and not at Python's end
            sys.stdout.flush()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        hint = None
        if "expected one argument" in message or "expected at least one" in message:
            hint = "A value that starts with a dash is written --flag=VALUE."
        elif message.startswith("unrecognized arguments: "):
            hint = self._hint_on_surplus(message.split()[2:])
        raise usage_error(message, hint)

    def _hint_on_surplus(self, words: Sequence[str]) -> str | None:
        """What words may be that belong to no flag."""
        for word in words:
            flag = flag_meant(word, self._option_string_actions, is_surplus=True)
            if flag is not None:
                return f"Did you mean {flag}?"
        wants_text = any(action.nargs != 0 for action in self._actions)
        if not wants_text or words[0].startswith("-"):
            return None
        return 'A text with spaces is one argument, in double quotes: "A red car".'

    def read(self, argv: Sequence[str]) -> Fields:
        """The values of the flags by `dest`."""
        try:
            self._refuse_unknown_flags(argv)
            refuse_split_text(argv)
            return vars(self.parse_args(argv))
        except Failure as failure:
            if not failure.hint:
                failure.hint = f"See {self.prog} --help."
            raise

    def _refuse_unknown_flags(self, argv: Sequence[str]) -> None:
        """Name a misspelt flag before argparse says that the right one is missing, or takes one
        with other dashes for a text.
        """
        flags = self._option_string_actions
        for word in argv:
            name = word.partition("=")[0]
            if name in flags:
                continue
            flag = flag_meant(word, flags)
            if flag is not None:
                hint = f"Did you mean {flag}?"
                if not name.isascii():
                    hint += " What stands there is no plain hyphen, or no plain space."
                elif re.search(r"\s", word):
                    hint += " Its value is a word of its own."
                raise usage_error(f"unrecognized arguments: {word[:80]}", hint)
            if re.fullmatch(r"--[A-Za-z][\w-]*", name):
                raise usage_error(f"unrecognized arguments: {word}", did_you_mean(name, flags))


def flag_meant(word: str, flags: Iterable[str], is_surplus: bool = False) -> str | None:
    """The flag that a word is but for dashes, case, and spaces that belong to no flag: editors
    make one long dash of two hyphens, other programs' flags have one hyphen, Windows' a slash.

    A text may start like that, so that a word is no flag if a text could go on as it does; a word
    that is surplus belongs to no text.
    """
    start = f"[-{DASHES}]+"
    after = rf"\s*|=.*|:\S*|[{NOT_SEEN}{ODD_SPACES}].*"
    if is_surplus:
        start = f"/|{start}"
    if is_surplus or word.startswith("--"):
        after = rf"{after}|\s.*"
    form = rf"[{NOT_SEEN}\s]*(?:{start})([A-Za-z][\w{DASHES}-]*)(?:{after})"
    match = re.fullmatch(form, word, re.DOTALL)
    if match is None:
        return None
    flag = "--" + re.sub(f"[_{DASHES}]", "-", match[1]).lower()
    if flag not in flags:
        return None
    return flag


def refuse_split_text(argv: Sequence[str]) -> None:
    """A text in quotes of which the shell has made several words, that could be several prompts:
    cmd.exe takes double quotes alone for quotes, and no shell takes curly ones.
    """
    for start, word in enumerate(argv):
        value = word
        if word.startswith("--"):
            value = word.partition("=")[2]
        closing = QUOTES.get(value[:1], "")
        is_closed = len(value) > 1 and value[-1] in closing
        if not closing or is_closed or re.search(r"\s", value):
            continue
        more = words_until(closing, argv[start + 1 :])
        if more:
            text = " ".join([value, *more])
            raise usage_error(
                f"the shell has made several words of one text: {text[:80]}",
                f'Put it in straight double quotes: "A red car". {WAYS_TO_GIVE_JSON}',
            )


def words_until(closing: str, words: Sequence[str]) -> list[str]:
    """The words up to one that ends with such a quote, if no flag or whole text comes before."""
    for count, word in enumerate(words, 1):
        if word.startswith("--") or re.search(r"\s", word):
            break
        if word[-1:] and word[-1] in closing:
            return list(words[:count])
    return []


def overview_parser() -> Parser:
    """What stands before a command: --help, which lists the commands, --version and --check."""
    summaries = []
    for entry in COMMANDS.values():
        summary = entry.help.splitlines()[0]
        summaries.append(f"  {entry.name:<15}{summary}")
    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s [-h] [--version] [--check] COMMAND ...",
        description=str(__doc__).partition("\nThe map of this file")[0].rstrip(),
        epilog="\n".join(("commands, each with a --help of its own:", *summaries)),
    )
    parser.add_argument(
        "command",
        metavar="COMMAND",
        type=functools.partial(read_value, "COMMAND", command_name),
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {__version__}",
    )
    parser.add_argument(
        CHECK.name,
        action="store_true",
        help="tell whether all is in order, as JSON (with a --help of its own)",
    )
    return parser


def command_name(text: str) -> str:
    if text not in COMMANDS:
        raise usage_error(f"no such command: {text}", did_you_mean(text, COMMANDS))
    return text


def command_parser(entry: Command, argv: Sequence[str] = ()) -> Parser:
    """The flags of one command, in their groups; rows that share a `dest` exclude each other."""
    prog = f"{PROGRAM} {entry.name}"
    parser = Parser(
        prog=prog,
        description=entry.help.replace("%", "%%"),
        epilog=f"example:\n  python {prog} {entry.example}".rstrip(),
    )
    given = {word.partition("=")[0] for word in argv}
    flags = [
        flag._replace(required=flag.required and flag.unless not in given) for flag in entry.flags
    ]
    if entry.text:
        flags.append(JSON)
    flags.append(QUIET)
    groups: dict[str, Any] = {}
    for rows in alternatives(flags):
        title = rows[0].group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_flags(groups[title], rows)
    return parser


def add_flags(group: Any, rows: Sequence[Flag]) -> None:
    """One flag, or several of which one may be given."""
    if len(rows) == 1:
        (row,) = rows
        group.add_argument(row.name, **row.keywords())
        return
    required = any(row.required for row in rows)
    exclusive = group.add_mutually_exclusive_group(required=required)
    for row in rows:
        exclusive.add_argument(row.name, **{**row.keywords(), "required": False})


def alternatives(flags: Iterable[Flag]) -> list[list[Flag]]:
    """The flags, those with one `dest` together."""
    by_dest: dict[str, list[Flag]] = {}
    for row in flags:
        by_dest.setdefault(row.dest, []).append(row)
    return list(by_dest.values())


def parse(argv: Sequence[str]) -> tuple[Command, Fields]:
    """The command and the values of its flags."""
    entries = {CHECK.name: CHECK, **COMMANDS}
    if not argv or argv[0] not in entries:
        overview_parser().read(argv[:1])  # --help, --version, or what is wrong
        raise AssertionError(argv)
    entry = entries[argv[0]]
    console.quiet = QUIET.name in argv  # for notes on files that are read with the flags
    return entry, command_parser(entry, argv[1:]).read(argv[1:])


def perform(entry: Command, values: Fields) -> None:
    """Run a command and print what it gives."""
    console.quiet = values.pop("quiet")
    console.media = bool(values.get("media"))
    RUN.history.command = entry.name
    values = with_known_job(values)
    RUN.job = Job(values.get("model"), values.get("request_id"))
    as_text = entry.text
    if values.pop("json", False):
        as_text = None
    if not sys.warnoptions:  # fal-client and Pillow warn programmers, not users
        warnings.simplefilter("ignore")
    outcome = entry.operation(**present(**values))
    if hasattr(outcome, "__await__") or hasattr(outcome, "__aiter__"):
        with saying_what_is_billed():
            asyncio.run(deliver(outcome, as_text))
        hand_over_galleries()
    else:
        console.show(outcome, as_text)


def hand_over_galleries() -> None:
    """With --media, print at last the lines of galleries that show a file and could be written."""
    saving = RUN.job.saving
    if not console.media or saving is None:
        return
    for gallery in saving.galleries:
        if gallery.shows_files and gallery.failure is None:
            console.hand_over(gallery.path)


@contextlib.contextmanager
def saying_what_is_billed() -> Iterator[None]:
    """Tell at the end what fal billed for the job that the command is about; of one that failed,
    if that is anything.
    """
    is_done = False
    try:
        yield
        is_done = True
    finally:
        billed = billed_in_words(RUN.job)
        if billed and (is_done or RUN.job.billable_units):
            console.line(f"billed: {billed}")


async def deliver(outcome: Any, as_text: Callable[[Any], str] | None) -> None:
    """Print a document that is awaited, or lines as they come, until a signal stops it."""
    loop = asyncio.get_running_loop()
    # websockets leaves errors in callbacks when a proxy hangs up; asyncio would print them.
    loop.set_exception_handler(lambda *_: None)
    # asyncio.run would wait for a thread that hangs in getaddrinfo, long after the time limit.
    loop.shutdown_default_executor = leave_threads  # type: ignore[method-assign]
    with stopping_on_signals():
        if hasattr(outcome, "__await__"):
            console.show(await outcome, as_text)
            return
        console.indent = None
        async with contextlib.aclosing(outcome) as lines:
            async for line in lines:
                console.emit(line)


async def leave_threads(*_: Any) -> None:
    """Leave threads to themselves."""


# Seconds within which several signals are one wish: a shell's and its parent's Ctrl-C, SIGTERM
# and SIGHUP of a service that ends.
ONE_STOP = 1.0


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Cancel the running task at the first Ctrl-C, SIGTERM or SIGHUP; leave at a later one."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task

    def stop(number: int, frame: Any) -> None:
        if RUN.stopped_by is None:
            RUN.stopped_by, RUN.stopped_at = number, time.monotonic()
            loop.call_soon_threadsafe(task.cancel)
        elif time.monotonic() - RUN.stopped_at >= ONE_STOP:
            leave_at_once()

    handlers = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is None or signal.getsignal(number) == signal.SIG_IGN:  # as nohup has it
            continue
        with contextlib.suppress(ValueError):  # not in the main thread
            handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def leave_at_once() -> NoReturn:
    """End the process, with a last word where no write hangs."""
    failure = stop_failure(KeyboardInterrupt())
    try:
        add_what_became_of_jobs(failure)
        if console.writing_to is None:
            print_what_is_paid_for()
        failure.hint = failure.hint or hint_on_unprinted()
        if console.writing_to is not sys.stderr:
            console.fail(failure)
    finally:
        os._exit(failure.exit)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit status."""
    if argv is None:
        argv = sys.argv[1:]
    RUN.begin()
    console.start()
    try:
        perform(*parse(argv))
        return Exit.DONE
    except BrokenPipeError:
        silence(sys.stdout)
        say_what_nobody_read()
        return Exit.BROKEN_PIPE
    except SystemExit:  # --help, --version
        raise
    except BaseException as exc:
        return conclude(exc)


def conclude(exc: BaseException) -> int:
    """Print what was paid for all the same, then why it failed; returns the exit status."""
    failure = explain(exc)
    if failure is None:
        failure = bug_failure(exc)
    add_what_became_of_jobs(failure)
    print_what_is_paid_for()
    failure.hint = failure.hint or hint_on_unprinted()
    console.fail(failure)
    return failure.exit


def add_what_became_of_jobs(failure: Failure) -> None:
    """Name the job that a failure is about, and those that were given up with it."""
    failure.happened_to(RUN.job)
    if failure.exit in GIVEN_UP and not failure.hint:
        failure.hint = RUN.job.hint  # now, for a job that still runs may take its place below
    if RUN.left_running:
        failure.job = RUN.left_running[0]
    if RUN.jobs_in_doubt and not failure.hint and not leaves_a_job(failure):
        failure.hint = IN_DOUBT_HINT
    failure.message += RUN.report()


def print_what_is_paid_for() -> None:
    if console.is_output_lost:
        return
    try:
        for document in RUN.job.unprinted:
            console.emit(document, whole=True)
        RUN.job.was_printed()
        RUN.unprinted_ids = []
        hand_over_galleries()
    except BrokenPipeError:
        silence(sys.stdout)
    except (Failure, RecursionError):
        pass  # stdout cannot be written to; the failure that is being told came first


def hint_on_unprinted() -> str | None:
    """How to get the responses that are paid for and could not be printed."""
    request_ids = list(RUN.unprinted_ids)
    if RUN.job.unprinted and RUN.job.request_id:
        request_ids.append(RUN.job.request_id)
    if not request_ids:
        return None
    return RUN.job.hint or f"Look the job up: {result_command(RUN.job.model, request_ids[0])}"


def bug_failure(exc: BaseException) -> Failure:
    """A mistake of ours, with its traceback."""
    console.quiet = False
    for line in "".join(traceback.format_exception(exc)).splitlines():
        console.line(line)
    return Failure("internal_error", f"a bug in {PROGRAM}: {reason_of(exc)}")


def say_what_nobody_read() -> None:
    """What is worth knowing when the reader of stdout has left."""
    text = RUN.report()
    if RUN.unprinted_ids:
        text += f"; not printed: {', '.join(RUN.unprinted_ids)}"
    if console.quiet and RUN.job.request_id and not text:
        text = f"request id {RUN.job.request_id}"
    console.quiet = False
    failure = Failure("output_failed", "nobody reads stdout").happened_to(RUN.job)
    if RUN.left_running:
        failure.job = RUN.left_running[0]
    hint = hint_on_unprinted()
    if leaves_a_job(failure):
        hint = hint or advice(failure)
    for line in (text.removeprefix("; "), hint):
        if line:
            console.line(line)


def run_as_command() -> NoReturn:
    """Run the command line of this process, and end it with the exit status.

    Python would first join all threads, and one may hang in getaddrinfo long after the time
    limit.
    """
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_as_command()
