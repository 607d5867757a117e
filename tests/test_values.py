"""What the ground hands from hand to hand can't be altered on the way, nor grow a field by a slip of the pen."""

import dataclasses
import pkgutil
from importlib import import_module
from typing import Any

import pytest

from dispatcher import ground

MODULES = [import_module(f"{ground.__name__}.{found.name}") for found in pkgutil.iter_modules(ground.__path__)]
CLASSES = [one for module in MODULES for one in vars(module).values() if isinstance(one, type)]
# What a reader of settings writes its faults into.
WRITTEN_INTO = {"Report"}
VALUES = sorted(
    {one for one in CLASSES if dataclasses.is_dataclass(one) and one.__name__ not in WRITTEN_INTO},
    key=lambda one: one.__name__,
)


def test_the_values_of_the_ground_are_found() -> None:
    assert {"CryptoReading", "Delays", "Interval", "Rule", "Spelling"} <= {one.__name__ for one in VALUES}


@pytest.mark.parametrize("value", VALUES, ids=lambda one: one.__name__)
def test_a_value_of_the_ground_is_frozen_and_has_no_field_but_its_own(value: Any) -> None:
    bare = object.__new__(value)
    assert not hasattr(bare, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(bare, dataclasses.fields(value)[0].name, None)
