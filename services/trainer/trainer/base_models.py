"""Base models that can be tuned: registered by a file each, imported once by a job at Ray."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from identity.names import BaseModelName
from servicekit.errors import FailedPrecondition, NotFound, StartupError
from servicekit.lists import INTEGER, TEXT, Field, Listing, Page, Query, resource
from trainer.contract import base_models
from trainer.contract.base_models import IMPORTABLE, BaseModel, ImportJob
from trainer.contract.failure import clear_failure, read_failure
from trainer.contract.files import IMPORT_BASE_MODEL, JOB_FILE, command, write_json
from trainer.job_handlers import Locations
from trainer.jobs.runner import JobRunner, JobStatus, RunnerUnavailable

logger = logging.getLogger(__name__)

LISTING = Listing(
    fields={
        "name": Field(lambda model: model.id, resource(BaseModelName, lambda name: name.base_model)),
        "display_name": Field(lambda model: model.display_name, TEXT),
        "digest": Field(lambda model: model.digest, TEXT),
        "licence": Field(lambda model: model.licence, TEXT),
        "parameter_count": Field(lambda model: model.parameter_count, INTEGER),
    },
    key=[lambda model: model.id],
)
"""What base models are filtered and sorted by."""


class ImportFailed(RuntimeError):
    """A base model could not be imported; the message says why."""


class BaseModels:
    """The registered base models of a state folder, and those that are being imported."""

    def __init__(self, state_dir: Path, offered: Sequence[str]) -> None:
        """Raises StartupError for a model that is neither packaged nor registered."""
        known = {*IMPORTABLE, *(path.stem for path in base_models.registry_folder(state_dir).glob("*.json"))}
        if unknown := sorted(set(offered) - known):
            raise StartupError(
                f"base model {unknown[0]!r} cannot be imported; there are {', '.join(sorted(known))}"
            )
        self._state_dir = state_dir
        self._offered = offered

    def registered(self) -> Sequence[BaseModel]:
        """Returns all registered models, by id."""
        folder = base_models.registry_folder(self._state_dir)
        return [base_models.read(path) for path in sorted(folder.glob("*.json"))]

    def list(self, query: Query) -> Page[BaseModel]:
        """Returns a page of the registered models, by id. Raises InvalidArgument."""
        return LISTING.page_of(self.registered(), query, bytes_of=_bytes)

    def get(self, name: BaseModelName) -> BaseModel:
        """Returns a registered model. Raises NotFound, or FailedPrecondition while it is being imported."""
        path = base_models.registered_path(self._state_dir, name.base_model)
        if path.is_file():
            return base_models.read(path)
        if name.base_model in self._offered:
            raise FailedPrecondition(
                "BASE_MODEL_IMPORTING",
                f"base model {str(name)!r} is being imported; try again in a minute",
                subject=str(name),
            )
        raise NotFound("base model", str(name))

    def missing(self) -> Sequence[str]:
        """Returns the models that are offered and not registered yet."""
        return [
            name for name in self._offered if not base_models.registered_path(self._state_dir, name).is_file()
        ]

    def register(self, model: BaseModel) -> None:
        """Registers a model that an import has published."""
        base_models.register(model, self._state_dir)


class Importer:
    """Has Ray import what is missing. Keeps nothing between two steps but which attempt it follows."""

    def __init__(
        self, models: BaseModels, runner: JobRunner, jobs_dir: Path, python: str, locations: Locations
    ) -> None:
        self._models = models
        self._runner = runner
        self._jobs_dir = jobs_dir
        self._python = python
        self._locations = locations
        self._attempts: dict[str, int] = {}

    def step(self) -> None:
        """Submits or follows the import of each missing model.

        Raises ImportFailed when an import ended without a result; the next step tries again. A Ray that does not answer
        is no failure: the next step asks again.
        """
        try:
            for id_ in self._models.missing():
                self._follow(id_, self._jobs_dir / f"import-{id_}")
        except RunnerUnavailable as error:
            logger.debug("Ray does not answer; base models wait", extra={"error": str(error)[:300]})

    def _follow(self, id_: str, folder: Path) -> None:
        """A job without a status is one that Ray never had or forgot: submitting it again finishes the same import."""
        attempt = self._attempts.setdefault(id_, 1)
        submission = f"import-{id_}-{attempt}"
        status = self._runner.status(submission)
        if (model := base_models.result(folder)) is not None:
            self._models.register(model)
            logger.info("imported a base model", extra={"base_model": id_, "digest": model.digest})
        elif status is JobStatus.UNKNOWN:
            clear_failure(folder)
            write_json(
                folder / JOB_FILE,
                ImportJob(
                    id=id_, object_store=self._locations.object_store, cache_dir=self._locations.cache_dir
                ),
            )
            self._runner.submit(submission, command(self._python, IMPORT_BASE_MODEL, folder))
            logger.info("importing a base model", extra={"base_model": id_, "job": submission})
        elif status is not JobStatus.RUNNING:
            self._attempts[id_] += 1
            reason = read_failure(folder) or f"its job ended as {status} and left no reason"
            raise ImportFailed(f"base model {id_!r} could not be imported: {reason}")


def _bytes(model: BaseModel) -> int:
    """Size of a model in a response."""
    return len(f"{model.id}{model.digest}{model.display_name}{model.licence}{model.source}".encode()) + 100
