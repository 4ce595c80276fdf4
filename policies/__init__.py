"""What may not be said or shown: policies in YAML, their schema, loading and linting."""

from policies.errors import PolicyError, PolicyFileError, UnknownPolicy
from policies.loader import PolicyLibrary, load_file, load_library
from policies.schema import Action, Policy, PolicyRule, PolicySet, Surface

__all__ = [
    "Action",
    "Policy",
    "PolicyError",
    "PolicyFileError",
    "PolicyLibrary",
    "PolicyRule",
    "PolicySet",
    "Surface",
    "UnknownPolicy",
    "load_file",
    "load_library",
]
