"""State machines, progress files, base models."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from servicekit.errors import StartupError
from trainer.base_models import BaseModels
from trainer.contract.failure import describe
from trainer.contract.progress import FILE_NAME, ProgressWriter, read_progress
from trainer.entities import IllegalMove, JobState, VersionState, check_job_move, check_version_move


def test_final_job_states_are_left_by_no_move() -> None:
    for before, after in product(JobState, JobState):
        if before.final:
            with pytest.raises(IllegalMove):
                check_job_move(before, after)


def test_only_judged_versions_are_promoted_and_only_promoted_ones_retired() -> None:
    allowed = []
    for before, after in product(VersionState, VersionState):
        try:
            check_version_move(before, after)
            allowed.append((before, after))
        except IllegalMove:
            pass
    assert (VersionState.TRAINED, VersionState.PROMOTED) not in allowed
    assert [before for before, after in allowed if after is VersionState.RETIRED] == [VersionState.PROMOTED]


def test_progress_is_read_from_where_the_reader_was(tmp_path: Path) -> None:
    with ProgressWriter(tmp_path) as progress:
        progress.report("training", 1, 10, "step", {"step": 1, "loss": 2.0})
        lines, offset = read_progress(tmp_path)
        assert [line.done for line in lines] == [1]
        progress.report("training", 2, 10, "step")
        lines, offset = read_progress(tmp_path, offset)
        assert [line.done for line in lines] == [2]
        assert lines[0].eta_s >= 0
    assert read_progress(tmp_path, offset) == ([], offset)


def test_half_a_line_of_a_killed_job_is_skipped(tmp_path: Path) -> None:
    with ProgressWriter(tmp_path) as progress:
        progress.report("training", 1, 2, "step")
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"stage": "trai')
    assert len(read_progress(tmp_path)[0]) == 1
    with ProgressWriter(tmp_path) as progress:
        progress.report("training", 2, 2, "step")
    assert [line.done for line in read_progress(tmp_path)[0]] == [1, 2]


def test_a_failure_is_described_by_its_innermost_cause() -> None:
    class WorkersFailed(Exception):
        def __init__(self) -> None:
            super().__init__("wrapped")
            self.worker_failures = {0: ValueError("no record in the train split")}

    assert describe(WorkersFailed()) == "ValueError: no record in the train split"


def test_an_unknown_base_model_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="gpt-9"):
        BaseModels(tmp_path, ["gpt-9"])
