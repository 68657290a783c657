"""The one word."""

WORD = "hello"
