"""Jobs on Ray, by its Jobs API. Importing this module is cheap; Ray is imported at the first call."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from servicekit import crash
from trainer.jobs.runner import JobStatus, RunnerUnavailable

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

crash.primitive(__name__)
T = TypeVar("T")

_PASSED_ON = ("OPENLEDGER_COMPUTE", "OMP_NUM_THREADS")
"""Variables of the service that its jobs should see."""

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
    """A JobRunner. Not thread-safe: one reconciler owns it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: JobSubmissionClient | None = None

    def submit(self, id_: str, command: Sequence[str]) -> None:
        """See JobRunner."""
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        runtime_env = {"env_vars": {**_ALWAYS, **passed_on}}

        def submit(client: JobSubmissionClient) -> None:
            try:
                with crash.step("submit job"):
                    client.submit_job(
                        entrypoint=shlex.join(command), submission_id=id_, runtime_env=runtime_env
                    )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise

        self._call(submit)

    def status(self, id_: str) -> JobStatus:
        """See JobRunner."""

        def status(client: JobSubmissionClient) -> JobStatus:
            try:
                return _STATUS[str(client.get_job_status(id_).value)]
            except RuntimeError as error:
                if "does not exist" in str(error):
                    return JobStatus.UNKNOWN
                raise

        return self._call(status)

    def stop(self, id_: str) -> None:
        """See JobRunner."""
        if self.status(id_) is JobStatus.RUNNING:
            with crash.step("stop job"):
                self._call(lambda client: client.stop_job(id_))

    def _call(self, use: Callable[[JobSubmissionClient], T]) -> T:
        """Connects at first use and again after a failure: a restarted Ray is another server."""
        from ray.job_submission import JobSubmissionClient

        try:
            if self._client is None:
                self._client = JobSubmissionClient(self._address)
            return use(self._client)
        except (RuntimeError, ConnectionError, OSError) as error:
            self._client = None
            raise RunnerUnavailable(f"Ray at {self._address}: {error}") from error
