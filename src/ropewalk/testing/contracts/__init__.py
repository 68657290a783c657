"""What every adapter of a port keeps, as test suites: one class for each port, one module for each class.

    from ropewalk.testing.contracts import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make(self, tmp_path):
            async def make():
                return MyStore("my://store", tmp_path, reactor)

            return make

The pytest plugin of ropewalk drives their coroutines. Whoever writes an adapter subclasses them; memory and SQLite pass
them first.
"""

from __future__ import annotations

from .authenticator import AuthenticatorContract
from .broker import BrokerContract
from .store import StoreContract

__all__ = ["AuthenticatorContract", "BrokerContract", "StoreContract"]
