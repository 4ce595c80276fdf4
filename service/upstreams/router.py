"""Which upstream answers a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import ModelNotFound
from service.upstreams.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Router:
    """The upstreams of a service."""

    by_model: Mapping[str, Upstream]
    default: Upstream | None
    """Answers every model that no other is named for."""

    def upstream_of(self, model: object) -> Upstream:
        """The upstream that answers a model. Raises `ModelNotFound`."""
        found = self.by_model.get(model) if isinstance(model, str) else None
        if (found := found or self.default) is None:
            known = ", ".join(self.by_model) or "none"
            raise ModelNotFound(f"no upstream answers that model; known: {known}")
        return found

    @property
    def model_names(self) -> list[str]:
        """The models that are known by name."""
        default = [self.default.model_name] if self.default and self.default.model_name else []
        return [*dict.fromkeys([*default, *self.by_model])]
