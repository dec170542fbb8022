"""The page that lies beside a checkpoint: every rule that makes rows is explained to its reader."""

import pytest
from test_initialization_properties import ALL, complete
from vector_samples import sample_inputs

from vocabtransfer.initialization import METHODS
from vocabtransfer.initialization.dictionary import SHORTER
from vocabtransfer.initialization.inner_lexicon import FUSED
from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.pipeline.page import RULES
from vocabtransfer.surgery.trained_rows import MADE_ROOM


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return complete(sample_inputs())


@pytest.mark.parametrize("name", ALL)
def test_every_rule_of_a_method_is_explained(name: str, inputs: TransferInputs) -> None:
    assert METHODS[name](inputs).token_map.counts_by_rule().keys() <= {*RULES, "none"}


def test_rules_that_few_builds_meet_are_explained() -> None:
    assert {SHORTER, FUSED, MADE_ROOM} <= RULES.keys()


def test_explanations_are_sentences() -> None:
    assert all(said[0].isupper() and said.endswith(".") for said in RULES.values())
