"""Which categories of a moderation API or a guard model stand for which policies: a YAML file of
the user's, or a shipped one."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies import PolicyError, PolicyFileError, PolicyLibrary, PolicySet
from policies.document import read_document
from policies.schema import Identifier

SHIPPED = {"openai": Path(__file__).with_name("openai.yaml")}
"""By name."""

Category = Annotated[str, Field(min_length=1, max_length=200)]


class Categories(BaseModel):
    """What to ask of a server, and what to make of its categories."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, min_length=1, max_length=256)
    """What the server is asked for; its own choice where it is missing."""
    policies: dict[Identifier, Annotated[tuple[Category, ...], Field(min_length=1)]] = Field(
        min_length=1
    )
    """By policy id, the categories that stand for it: of an API the highest score counts, of a
    guard the probability that its answer names one of them."""

    def covered(self, policy_set: PolicySet, library: PolicyLibrary) -> PolicySet:
        """The set, less the policies that no category stands for.

        Raises:
            UnknownPolicy: a policy of this file is not loaded.
            PolicyError: no policy is left.
        """
        for policy_id in self.policies:
            library.policy(policy_id)
        rules = tuple(rule for rule in policy_set.policies if rule.id in self.policies)
        if not rules:
            raise PolicyError(
                f"no policy of the set {policy_set.id!r} has categories; those that have:"
                f" {', '.join(sorted(self.policies))}"
            )
        return policy_set.model_copy(update={"policies": rules})


def read_categories(name: str) -> Categories:
    """A shipped file by its name, or one by its path.

    Raises:
        PolicyFileError: unreadable, or not of this format; names the key.
    """
    path = SHIPPED.get(name, Path(name))
    document = read_document(path)
    try:
        return Categories.model_validate(document.data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise PolicyFileError(
            path,
            document.line_of(first["loc"]),
            first["msg"],
            key=".".join(map(str, first["loc"])) or None,
        ) from exc
