"""How the documentation is built: Sphinx with what it brings along, nothing fetched from anywhere."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "Ropewalk"
author = "The Ropewalk developers"
copyright = f"2026, {author}"
release = _project["version"]

exclude_patterns = ["_build"]
nitpicky = False

html_theme = "alabaster"
html_theme_options = {
    "description": _project["description"],
    "fixed_sidebar": True,
}
