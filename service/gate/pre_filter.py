"""The pre-filter: each content of a request is checked, up to the first that does not pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from moderation.errors import ContentError
from service.errors import content_at
from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import Item
from service.gate.redaction import Redaction, redactions_of


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """What the checks of a request came to."""

    items: tuple[Item, ...]
    checks: tuple[Check, ...]
    """One an item, in order; none after one that did not pass and is not redacted."""
    redactions: tuple[Redaction, ...] = ()
    """What has to be replaced so that all of it may pass; nothing where that cannot be."""
    given: "PromptCheck | None" = None
    """Where something was replaced, what the checks of the request as it was sent came to; these
    are then the checks of what was made of it."""
    exempt: tuple[Item, ...] = ()
    """System prompts that the settings leave unchecked."""

    @property
    def passed(self) -> bool:
        """Whether the generator may read the request."""
        return all(check.passed for check in self.checks)

    @property
    def decisive(self) -> Check | None:
        """The check that did not pass, else the last one; None where there was nothing to check."""
        return self.checks[-1] if self.checks else None


async def check_prompt(
    checker: Checker,
    items: Sequence[Item],
    *,
    key: str,
    redacts: bool = False,
    admitted: bool = False,
    check_system_prompts: bool = True,
) -> PromptCheck:
    """Checks a request; each content has the deadline of a check to itself.

    Args:
        checker: what checks.
        items: see `Dialect.items`.
        key: who asks; see `Caller`.
        redacts: whether to find out what has to be replaced, so that the request may pass.
        admitted: see `Caller`; what follows the first check always is.
        check_system_prompts: whether those are checked as well.

    Raises:
        EngineOverloaded, EngineClosed: see `Checker.check`.
        BadRequest: a content that cannot be judged; names it.
    """
    exempt = () if check_system_prompts else tuple(item for item in items if item.is_system)
    checked = tuple(item for item in items if check_system_prompts or not item.is_system)
    checks: list[Check] = []
    redactions: list[Redaction] = []
    for item in checked:
        try:
            check = await checker.check(item.content, key=key, admitted=admitted or bool(checks))
        except ContentError as exc:
            where = item.where if item.index is None else f"{item.where}.content"
            raise content_at(exc, where) from exc
        checks.append(check)
        if not check.passed:
            found = redactions_of(item, check) if redacts else []
            redactions += found
            if not found:
                redactions.clear()  # it does not pass in any form
                break
    return PromptCheck(checked, tuple(checks), tuple(redactions), exempt=exempt)
