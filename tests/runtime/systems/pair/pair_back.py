"""The service behind."""

from pair_words import WORD

from ropewalk import Service, get


class Back(Service, name="back", version="1.0.0"):
    """Knows one word."""

    @get("/word")
    async def word(self) -> str:
        """It."""
        return WORD
