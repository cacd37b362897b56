"""Jobs on Ray, by its Jobs REST API. The control plane holds no Ray: a Ray of another version is only another server."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from servicekit import crash
from servicekit.http_client import HttpClient, HttpError
from trainer.jobs.runner import JobStatus, RunnerUnavailable

crash.primitive(__name__)

CALL_TIMEOUT_S = 20.0
"""For a whole call. Ray waits up to 10 s for an agent that takes a job, longer on a busy machine."""
_MAX_ANSWER_BYTES = 1 << 20

_FORWARDED = ("OPENLEDGER_COMPUTE", "OMP_NUM_THREADS")
"""Variables of the control plane that its jobs should see."""

_ALWAYS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads of a matrix product that wait for each other sleep instead of spinning: on a busy machine, training was
several times faster, on an idle one equally fast."""

_STATUS = {
    "PENDING": JobStatus.RUNNING,
    "RUNNING": JobStatus.RUNNING,
    "SUCCEEDED": JobStatus.SUCCEEDED,
    "FAILED": JobStatus.FAILED,
    "STOPPED": JobStatus.STOPPED,
}


class RayJobs:
    """A JobRunner. Safe for several threads."""

    def __init__(
        self,
        address: str,
        token: Callable[[], str | None] = lambda: None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """`token` is asked before each call, so that a token that was replaced is used at once."""
        self._address = address.rstrip("/")
        self._token = token
        self._client = HttpClient(timeout_s, _MAX_ANSWER_BYTES)

    def submit(self, id_: str, command: Sequence[str]) -> None:
        """See JobRunner. Ray refuses an id that it knows, whatever the wording: then the job is there already."""
        forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
        job = {
            "entrypoint": shlex.join(command),
            "submission_id": id_,
            "runtime_env": {"env_vars": {**_ALWAYS, **forwarded}},
        }
        with crash.step("submit job"):
            code, answer = self._exchange("POST", "/api/jobs/", job)
        if code != HTTPStatus.OK and self.status(id_) is JobStatus.UNKNOWN:
            raise self._refused("POST /api/jobs/", code, answer)

    def status(self, id_: str) -> JobStatus:
        """See JobRunner."""
        code, answer = self._exchange("GET", f"/api/jobs/{id_}")
        if code == HTTPStatus.NOT_FOUND:
            return JobStatus.UNKNOWN
        if code == HTTPStatus.OK:
            try:
                return _STATUS[json.loads(answer)["status"]]
            except (ValueError, KeyError, TypeError):
                pass
        raise self._refused(f"GET /api/jobs/{id_}", code, answer)

    def stop(self, id_: str) -> None:
        """See JobRunner."""
        if self.status(id_) is JobStatus.RUNNING:
            with crash.step("stop job"):
                code, answer = self._exchange("POST", f"/api/jobs/{id_}/stop")
            if code not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                raise self._refused(f"POST /api/jobs/{id_}/stop", code, answer)

    def cores(self) -> int:
        """See JobRunner. Ray says what its nodes had when they joined; jobs that run do not count against it."""
        code, answer = self._exchange("GET", "/api/v0/nodes")
        if code == HTTPStatus.OK:
            try:
                nodes = json.loads(answer)["data"]["result"]["result"]
                alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
                return int(sum(resources.get("CPU", 0) for resources in alive))
            except (ValueError, KeyError, TypeError, AttributeError):
                pass
        raise self._refused("GET /api/v0/nodes", code, answer)

    def _exchange(
        self, method: str, path: str, content: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """Returns the status code and the body, within the deadline even when the answer comes byte by byte."""
        try:
            token = self._token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = self._client.exchange(method, f"{self._address}{path}", headers=headers, json=content)
        except HttpError as error:
            raise self._unavailable(f"{method} {path}: {error.reason}") from error
        return answer.status, answer.body

    def _refused(self, call: str, code: int, answer: bytes) -> RunnerUnavailable:
        lines = (
            answer.decode(errors="replace").strip().splitlines()
        )  # Ray answers with a traceback: its last line says why
        return self._unavailable(f"{call} answered {code}: {lines[-1] if lines else 'nothing'}"[:500])

    def _unavailable(self, reason: str) -> RunnerUnavailable:
        return RunnerUnavailable(f"Ray at {self._address}: {reason}")
