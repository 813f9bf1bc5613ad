"""Registries: names users type, mapped to the classes that bear them."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from tools.errors import UserError

T = TypeVar("T")


class UnknownNameError(UserError, KeyError):
    """A name that is not in a registry; the text lists those that are."""

    def __str__(self) -> str:
        return self.args[0]


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes of one kind by name, sorted; a look-up that fails lists the known names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str, cls: type[T]) -> None:
        """Record a class; a name used twice is an error at import."""
        if name in self._classes:
            raise ImportError(f"{self.kind} {name!r} is defined by {self._classes[name]} and again by {cls}")
        self._classes[name] = cls

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._classes[name]
        except KeyError:
            raise UnknownNameError(f"unknown {self.kind} {name!r}, expected one of: {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)


def import_modules(package: str, path: list[str]) -> None:
    """Import every module of a package, so that its classes register; `template` is there to be copied only."""
    for module in pkgutil.iter_modules(path):
        if module.name != "template":
            importlib.import_module(f"{package}.{module.name}")
