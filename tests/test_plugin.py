"""The door for adapters."""

from __future__ import annotations

import pytest

from ropewalk.errors import ConfigurationError
from ropewalk.plugin import AdapterMaker, find_adapter

MEMORY = AdapterMaker("memory", "registry", "ropewalk.memory:Registry")
CONSUL = AdapterMaker("consul", "registry", "ropewalk_nowhere.registry:make", "consul")
SQLITE = AdapterMaker("sqlite", "store", "ropewalk.memory.store:open_sqlite")


def test_an_adapter_is_found_by_its_name_or_by_the_scheme_of_its_url() -> None:
    assert find_adapter("registry", "memory", [MEMORY, CONSUL]) is MEMORY
    assert find_adapter("registry", "consul://host:8500", [MEMORY, CONSUL]) is CONSUL


def test_an_unknown_name_lists_what_there_is_and_what_to_install() -> None:
    with pytest.raises(ConfigurationError) as raised:
        find_adapter("registry", "consol", [MEMORY, CONSUL, SQLITE])

    assert str(raised.value) == (
        "No adapter named 'consol' for port 'registry'; found: consul, memory. Is `ropewalk[consol]` installed?"
    )


def test_two_adapters_of_one_name_are_refused_with_both_named() -> None:
    other = AdapterMaker("memory", "registry", "elsewhere:Registry")

    with pytest.raises(ConfigurationError, match=r"elsewhere:Registry and ropewalk\.memory:Registry"):
        find_adapter("registry", "memory", [MEMORY, other])


def test_an_adapter_whose_backend_is_missing_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"Is `ropewalk\[consul\]` installed\?"):
        CONSUL.load()


def test_the_built_in_store_is_declared_by_a_dropin() -> None:
    from ropewalk.memory.store import SQLiteStore

    assert find_adapter("store", "sqlite").load() is SQLiteStore
