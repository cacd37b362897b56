"""A thing has exactly one name, and a wrong one is refused with what would be right."""

from __future__ import annotations

import pytest

from identity.names import (
    AttributionIndexName,
    AttributionName,
    BaseModelName,
    BatchName,
    ContributorName,
    DatanetName,
    EvaluationName,
    EvaluationReportName,
    GatePolicyName,
    GatePolicyVersionName,
    InferenceName,
    InvalidName,
    ModelName,
    ModelVersionName,
    PromotionName,
    PromotionOverrideName,
    RecordName,
    ResourceName,
    RewardRootName,
    SnapshotName,
    TrainingRunName,
    parse_any,
)

HEX, ULID = "0a" * 32, "01JDGXG4ZXQ8V5E7YB1T3M9KCN"
NAMES: dict[str, ResourceName] = {
    "datanets/threat-intel": DatanetName("threat-intel"),
    "datanets/threat-intel/contributors/eset": ContributorName("threat-intel", "eset"),
    f"datanets/threat-intel/records/{HEX}": RecordName("threat-intel", HEX),
    "datanets/threat-intel/snapshots/3": SnapshotName("threat-intel", 3),
    "baseModels/smollm2-135m": BaseModelName("smollm2-135m"),
    f"trainingRuns/{ULID}": TrainingRunName(ULID),
    "models/tactics": ModelName("tactics"),
    "models/tactics/versions/2": ModelVersionName("tactics", 2),
    f"evaluations/{ULID}": EvaluationName(ULID),
    f"promotionOverrides/{ULID}": PromotionOverrideName(ULID),
    "models/tactics/promotions/3": PromotionName("tactics", 3),
    "gatePolicies/default": GatePolicyName("default"),
    "gatePolicies/default/versions/1": GatePolicyVersionName("default", 1),
    f"evaluationReports/{HEX}": EvaluationReportName(HEX),
    f"inferences/{ULID}": InferenceName(ULID),
    f"attributions/{ULID}": AttributionName(ULID),
    f"attributionIndexes/{HEX}": AttributionIndexName(HEX),
    "batches/0": BatchName(0),
    "rewardRoots/1": RewardRootName(1),
}


@pytest.mark.parametrize("text", NAMES)
def test_names_are_parsed_and_formatted(text: str) -> None:
    assert str(NAMES[text]) == text
    assert type(NAMES[text]).parse(text) == NAMES[text]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SnapshotName, "datanets/a/snapshots/03"),
        (SnapshotName, "datanets/a/snapshots/-1"),
        (SnapshotName, "datanets/a/snapshot/3"),
        (SnapshotName, "datanets/a/snapshots/3/"),
        (SnapshotName, "datanets//snapshots/3"),
        (DatanetName, "datanets/ a"),
        (DatanetName, "datanets/" + "a" * 129),
        (DatanetName, "datanets/a\n"),
        (RecordName, "datanets/a/records/" + "A" * 64),
        (InferenceName, "inferences/" + ULID.lower()),
    ],
)
def test_another_spelling_is_refused(kind: type[ResourceName], text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        kind.parse(text)
    assert kind.pattern() in str(caught.value)


def test_a_name_cannot_be_built_from_a_wrong_part() -> None:
    with pytest.raises(InvalidName, match="datanet 'a/b'"):
        DatanetName("a/b")
    with pytest.raises(InvalidName):
        SnapshotName("a", -1)


def test_a_name_of_several_kinds_is_read_as_the_kind_whose_form_it_has() -> None:
    assert parse_any("models/m/versions/2", ModelVersionName, BaseModelName) == ModelVersionName("m", 2)
    assert parse_any("baseModels/tiny", ModelVersionName, BaseModelName) == BaseModelName("tiny")


def test_a_name_of_no_kind_is_refused_by_the_kind_it_comes_close_to_or_else_by_all() -> None:
    with pytest.raises(InvalidName, match="leading zeros") as close:
        parse_any("models/m/versions/02", ModelVersionName, BaseModelName)
    assert close.value.kind == "model version"
    with pytest.raises(InvalidName) as none:
        parse_any("things/1", ModelVersionName, BaseModelName)
    assert none.value.template == "models/{model}/versions/{version} or baseModels/{base_model}"


def test_the_id_is_the_last_segment() -> None:
    assert (SnapshotName("threat-intel", 3).id, DatanetName("threat-intel").id) == ("3", "threat-intel")


@pytest.mark.parametrize(("kind", "shown"), [(AttributionName, "an attribution"), (BatchName, "a batch")])
def test_an_error_names_the_kind_with_its_article(kind: type[ResourceName], shown: str) -> None:
    with pytest.raises(InvalidName, match=f"is not the name of {shown}: "):
        kind.parse("nothing")
