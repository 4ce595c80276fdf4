"""Which policies a request is judged by: the operator's, and whatever the caller adds.

A caller may ask for more policies, never for fewer.
"""

from collections.abc import Iterable

from policies import Action, PolicyLibrary, PolicyRule, PolicySet

ADDED_THRESHOLD = 0.5
"""Threshold of a policy that a caller adds by its id; its action is `flag`."""


def add_policies(
    library: PolicyLibrary,
    base: PolicySet,
    policy_ids: Iterable[str] = (),
    set_id: str | None = None,
) -> PolicySet:
    """The operator's set with the caller's policies behind it.

    Args:
        library: the loaded policies.
        base: the operator's set; its rules stay as they are.
        policy_ids: added with `ADDED_THRESHOLD`.
        set_id: another policy set, whose rules are added with its own thresholds.

    Raises:
        UnknownPolicy: an id that is not loaded; names the known ones.
    """
    rules = {rule.id: rule for rule in base.policies}
    if set_id is not None:
        for rule in library.policy_set(set_id).policies:
            rules.setdefault(rule.id, rule)
    for policy_id in policy_ids:
        library.policy(policy_id)
        added = PolicyRule(id=policy_id, threshold=ADDED_THRESHOLD, action=Action.FLAG)
        rules.setdefault(policy_id, added)
    if len(rules) == len(base.policies):
        return base
    return base.model_copy(update={"policies": tuple(rules.values())})
