"""The page that compares us with FastAPI tells the truth: both document the same, and ours is not longer."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "examples" / "compared"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of_code(name: str) -> int:
    """Lines that hold code or a docstring of an operation; not blank, not a comment, not the file's own docstring."""
    text = (HERE / f"{name}.py").read_text("utf-8")
    first = ast.parse(text).body[0]
    lines = text.splitlines()[first.end_lineno :]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def test_ours_is_not_longer() -> None:
    assert lines_of_code("with_ropewalk") <= lines_of_code("with_fastapi")


def test_both_have_the_same_operations_documented() -> None:
    pytest.importorskip("httpx")
    from ropewalk.http.openapi import document
    from ropewalk.service import describe

    ours = document(describe(load("with_ropewalk").Stays), public=True)
    theirs = load("with_fastapi").app.openapi()

    assert {(path, method) for path, item in ours["paths"].items() for method in item} == {
        (path, method) for path, item in theirs["paths"].items() for method in item
    }
    assert ours["paths"]["/stays"]["post"]["summary"] == "Book a stay."
