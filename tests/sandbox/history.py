"""What fal remembers of an account's requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sandbox.answers import Answer, Json
from sandbox.endpoints import EndpointId
from sandbox.jobs import Job


@dataclass
class PastRequest:
    """A request that a runner took on. While it still runs, it has no answer."""

    request_id: str
    endpoint: EndpointId
    arguments: Json
    sent_at: float
    started_at: float
    # Whether the caller lets fal keep what goes in and comes out.
    stored: bool = True
    ended_at: float | None = None
    answer: Answer | None = None

    @classmethod
    async def of_job(cls, job: Job) -> PastRequest:
        past = cls(
            request_id=job.request_id,
            endpoint=job.endpoint,
            arguments=job.arguments,
            sent_at=job.submitted_at,
            started_at=job.started_at,
            stored=may_store(job.headers.get("x-fal-store-io")),
        )
        if job.status == "COMPLETED":
            past.ended_at = job.finished_at
            past.answer = await job.outcome()
        return past

    def end(self, answer: Answer) -> None:
        self.ended_at = time.time()
        self.answer = answer

    @property
    def billable_units(self) -> float:
        headers = self.answer.headers if self.answer else {}
        return float(headers.get("X-Fal-Billable-Units", 0))

    @property
    def duration(self) -> float | None:
        """The seconds from the sending to the end; what fal counts is not on record. [?]"""
        return None if self.ended_at is None else round(self.ended_at - self.sent_at, 3)

    @property
    def verdict(self) -> str | None:
        """One of fal's three words; which statuses each of them means is a guess. [?]"""
        if self.answer is None:
            return None
        if self.answer.ok:
            return "success"
        return "user_error" if self.answer.status < 500 else "error"

    def item(self, with_payloads: bool) -> dict[str, Json]:
        """How fal lists it."""
        item = {
            "request_id": self.request_id,
            "endpoint_id": str(self.endpoint),
            "started_at": timestamp(self.started_at),
            "sent_at": timestamp(self.sent_at),
            "ended_at": None,
            "status_code": None,
            "duration": self.duration,
        }
        if self.ended_at is not None and self.answer is not None:
            item["ended_at"] = timestamp(self.ended_at)
            item["status_code"] = self.answer.status
        # Whether fields that are not stored are null or left out is not on record. [?]
        if with_payloads and self.stored:
            item["json_input"] = self.arguments
            item["json_output"] = self.answer.body if self.answer else None
        return item


def may_store(header: str | None) -> bool:
    """What the caller's X-Fal-Store-IO says; everything is stored by default."""
    return header != "0"


def timestamp(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
