import pytest

from policies import UnknownPolicy
from service.policy_choice import add_policies
from tests.service.scripted import LIBRARY

CLOSED = LIBRARY.policy_set("closed")


def test_nothing_added_leaves_the_operators_set_itself() -> None:
    assert add_policies(LIBRARY, CLOSED, ["harassment"], "closed") is CLOSED


def test_the_operators_rules_come_first_and_stay_as_they_are() -> None:
    made = add_policies(LIBRARY, CLOSED, ["any_harm"], "default")
    assert made.policies[0] == CLOSED.policies[0]
    assert made.policies[-1].id == "any_harm"
    assert {rule.id for rule in LIBRARY.policy_set("default").policies} < {
        rule.id for rule in made.policies
    }


def test_a_set_with_more_policies_has_another_hash() -> None:
    assert add_policies(LIBRARY, CLOSED, ["any_harm"]).hash != CLOSED.hash


@pytest.mark.parametrize(("ids", "set_id"), [(["nothing"], None), ([], "nothing")])
def test_unknown_ids_are_refused(ids: list[str], set_id: str | None) -> None:
    with pytest.raises(UnknownPolicy, match="'nothing'; known: "):
        add_policies(LIBRARY, CLOSED, ids, set_id)
