"""What a service that shows pages imports: `from ropewalk.http.pages import Session, Static, Templates, redirect`."""

from __future__ import annotations

from .cors import CORS
from .csrf import field as csrf_field
from .csrf import token as csrf_token
from .paths import path_for
from .redirect import redirect
from .sessions import Session
from .static import Static
from .templates import Templates

__all__ = ["CORS", "Session", "Static", "Templates", "csrf_field", "csrf_token", "path_for", "redirect"]
