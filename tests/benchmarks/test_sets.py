"""The held-out sets: look-alikes are labelled in full and hold every policy, policies of one's own
have texts of both kinds, of three answers to a prompt one is harmful; all are far from training."""

from collections import Counter
from pathlib import Path

import pytest

from evals.records import Record, read_records
from moderation.training.written import custom_records, written_records
from policies import load_library

SETS = Path(__file__).parents[2] / "benchmarks" / "sets"
LOOK_ALIKES = SETS / "look_alikes.jsonl"
OWN_POLICIES = SETS / "own_policies.jsonl"
ANSWERS = SETS / "answers.jsonl"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return read_records(LOOK_ALIKES)  # which refuses an id that stands twice


def folded(text: str) -> str:
    return " ".join(text.casefold().split())


def grams(text: str) -> set[str]:
    """The runs of five characters of a folded text; all of it where it is shorter."""
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def test_a_look_alike_violates_no_policy_at_all(records: list[Record]) -> None:
    benign = [record for record in records if record.id.startswith("benign_")]
    assert len(benign) >= 200
    nothing = dict.fromkeys(load_library().policies, False)
    assert [record.id for record in benign if record.labels != nothing] == []


def test_a_twin_violates_something_and_is_harmful_unless_it_only_injects(
    records: list[Record],
) -> None:
    twins = [record for record in records if record.id.startswith("twin_")]
    assert len(twins) >= 100
    for record in twins:
        violated = {policy for policy, violates in record.labels.items() if violates}
        assert violated, record.id
        harm = None if violated - {"any_harm"} == {"prompt_injection"} else True
        assert record.labels.get("any_harm") is harm, record.id


def test_every_policy_is_violated_often_enough_to_be_measured(records: list[Record]) -> None:
    violated = Counter(
        policy for record in records for policy, violates in record.labels.items() if violates
    )
    assert violated.keys() == load_library().policies.keys()
    assert min(violated.values()) >= 6


def test_each_policy_of_ones_own_has_violations_near_misses_and_other_texts() -> None:
    ours = load_library([SETS / "own_policies"]).policies.keys() - load_library().policies.keys()
    counts: dict[str, Counter[bool]] = {}
    for record in read_records(OWN_POLICIES):
        [(policy, violates)] = record.labels.items()
        counts.setdefault(policy, Counter())[violates] += 1
    assert counts == {policy: Counter({True: 20, False: 24}) for policy in ours}
    assert len(ours) >= 18


def test_no_policy_of_ones_own_is_trained_with() -> None:
    ours = {path.stem for path in (SETS / "own_policies").glob("*.yaml")}
    trained = {tag.rsplit(":", 1)[1] for record in custom_records() for tag in record.tags or ()}
    assert ours & {name.removeprefix("not ") for name in trained} == set()


def test_of_three_answers_to_a_prompt_one_is_harmful() -> None:
    by_prompt: dict[str | None, list[bool]] = {}
    violated: Counter[str] = Counter()
    policies = load_library().policies.keys() - {"prompt_injection"}  # which has none for answers
    for record in read_records(ANSWERS):
        harm = record.labels["any_harm"]
        by_prompt.setdefault(record.prompt, []).append(harm)
        violated.update(policy for policy, violates in record.labels.items() if violates)
        assert harm or record.labels == dict.fromkeys(policies, False), record.id
    assert all(sorted(kinds) == [False, False, True] for kinds in by_prompt.values())
    assert len(by_prompt) == 120
    assert violated.keys() == policies
    assert min(violated.values()) >= 12


@pytest.mark.parametrize("path", [LOOK_ALIKES, OWN_POLICIES, ANSWERS], ids=lambda path: path.stem)
def test_no_text_is_like_another_or_like_one_that_is_trained_on(path: Path) -> None:
    records = read_records(path)
    own = {record.id: grams(folded(record.text)) for record in records}
    holders: dict[str, list[str]] = {}  # of a run of characters: the records that have it
    for id_, runs in own.items():
        for run in runs:
            holders.setdefault(run, []).append(id_)

    def near(runs: set[str]) -> set[str]:
        """The records that share at least half of all runs (Jaccard)."""
        known = runs & holders.keys()
        if 2 * len(known) < len(runs):
            return set()
        shared = Counter(id_ for run in known for id_ in holders[run])
        return {id_ for id_, both in shared.items() if 3 * both >= len(runs) + len(own[id_])}

    assert [near(runs) for runs in own.values()] == [{id_} for id_ in own]
    exact = {folded(record.text) for record in records}
    trained = {folded(text) for r in written_records() for text in (r.text, r.prompt or "")}
    assert exact & trained == set()
    assert [text for text in trained if near(grams(text))] == []
