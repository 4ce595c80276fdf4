"""The option `--max-flips` of `wardgate policies diff`: how many changed verdicts are too many."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import typer

if TYPE_CHECKING:
    from evals.blast_radius import Radius

MaxFlipsOption = Annotated[
    str | None,
    typer.Option(
        "--max-flips",
        help="Exit 1 if a policy changes more verdicts than this on a data set, or than this"
        " share: 20, 0.01 or 1%. Without --data, on the examples.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """A policy that changes too much on some data."""

    data: str
    policy: str
    why: str
    """In a line."""


@dataclass(frozen=True, slots=True)
class FlipLimit:
    """A number of verdicts, or a share of the records."""

    text: str
    """As it was given."""
    value: float
    is_share: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """`20`, `0.01` or `1%`. Raises `BadParameter`."""
        if re.fullmatch(r"\d+", text):
            return cls(text, int(text), is_share=False)
        found = re.fullmatch(r"(\d*\.?\d+)(%?)", text)
        share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
        if share > 1.0:
            raise typer.BadParameter(
                f"{text!r} is neither a number of verdicts nor a share of them: expected, say, 20,"
                " 0.01 or 1%",
                param_hint="--max-flips",
            )
        return cls(text, share, is_share=True)

    def exceeded(self, radii: "Sequence[Radius]") -> list[Exceeded]:
        """Where more verdicts change, or a record can no longer be scored."""
        found = []
        for each in radii:
            turned = each.turned
            if each.only_old_scored:
                problem = f"{each.only_old_scored} records can no longer be scored"
            elif turned.num_flips > (self.value * turned.n if self.is_share else self.value):
                problem = (
                    f"{turned.num_flips} of {turned.n} verdicts change; --max-flips is {self.text}"
                )
            else:
                continue
            why = f"{each.policy} on {each.data}: {problem}"
            found.append(Exceeded(data=each.data, policy=each.policy, why=why))
        return found
