"""Decisions: what an answer was, and what to do next. Values and pure functions; no I/O, no clock, no Twisted.

`now` and chance are arguments, so that every policy can be tested as a table of (state, input, decision).
"""
