import pytest

from tools.registry import Registry, UnknownNameError


def test_names_are_sorted_and_found() -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("b", int)
    registry.register("a", str)
    assert list(registry) == ["a", "b"]
    assert len(registry) == 2
    assert registry["b"] is int
    assert "a" in registry
    assert "c" not in registry
    with pytest.raises(UnknownNameError) as error:
        registry["c"]
    assert str(error.value) == "unknown thing 'c', expected one of: a, b"


def test_name_used_twice() -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("a", str)
    with pytest.raises(ImportError, match="thing 'a' is defined by"):
        registry.register("a", int)
