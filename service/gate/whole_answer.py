"""A whole answer is checked, and redacted where that lets it pass."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.gate.checks import Check, Checker
from service.gate.dialects.dialect import Field, Json
from service.gate.redaction import RedactedText, Redactor, policies_of


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """What became of an answer."""

    answer: Json
    """With what violates replaced, in the choices that then pass."""
    given: dict[Field, Check]
    """The checks of the answer as it came."""
    checks: dict[Field, Check]
    """Those of what it says now."""
    redacted: list[RedactedText]
    """What was replaced."""

    @property
    def blocked(self) -> dict[Field, Check]:
        """The checks that did not pass."""
        return {name: check for name, check in self.checks.items() if not check.passed}


async def check_whole(
    checker: Checker,
    redactor: Redactor,
    answer: Json,
    texts: Mapping[Field, str],
    *,
    asked: str | None,
    key: str,
) -> WholeAnswer:
    """Checks an answer; what is made of it is judged once more.

    Args:
        checker: what checks.
        redactor: what replaces.
        answer: as it came.
        texts: in it.
        asked: what it is an answer to.
        key: who asks; see `Caller`.

    Raises:
        EngineClosed: the service is stopping.
    """
    given = await checker.check_texts(texts, asked=asked, key=key)
    rewritten = redactor.rewritten(texts, given)
    again = await checker.check_texts(rewritten, asked=asked, key=key)
    left = given | again
    replaced = [
        RedactedText(name, policies_of(given[name].verdict))
        for name, check in again.items()
        if check.passed
    ]
    for each in replaced:
        made = redactor.put(answer, each.field, rewritten[each.field])
        assert made is not None, "it says something"
        answer = made
        left = {
            name: check for name, check in left.items() if not redactor.repeats(name, each.field)
        }
    return WholeAnswer(answer, given, left, replaced)
