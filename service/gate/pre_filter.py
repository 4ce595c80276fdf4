"""The pre-filter: each content of a request is checked, up to the first that does not pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from moderation.errors import ContentError
from service.errors import content_at
from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import Item


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """What the checks of a request came to."""

    items: tuple[Item, ...]
    checks: tuple[Check, ...]
    """One an item, in order; none after one that did not pass."""
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
    checker: Checker, items: Sequence[Item], *, key: str, check_system_prompts: bool = True
) -> PromptCheck:
    """Checks a request; each content has the deadline of a check to itself.

    Args:
        checker: what checks.
        items: see `Dialect.items`.
        key: who asks; see `Caller`.
        check_system_prompts: whether those are checked as well.

    Raises:
        EngineOverloaded, EngineClosed: see `Checker.check`.
        BadRequest: a content that cannot be judged; names it.
    """
    exempt = () if check_system_prompts else tuple(item for item in items if item.is_system)
    checked = tuple(item for item in items if check_system_prompts or not item.is_system)
    checks: list[Check] = []
    for item in checked:
        try:
            check = await checker.check(item.content, key=key, admitted=bool(checks))
        except ContentError as exc:
            where = item.where if item.index is None else f"{item.where}.content"
            raise content_at(exc, where) from exc
        checks.append(check)
        if not check.passed:
            break
    return PromptCheck(checked, tuple(checks), exempt)
