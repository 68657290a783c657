"""Draws a receipt as PDF: of the same paper the same bytes. Whoever only writes one down need not import what draws."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from msgspec import Struct

_LINE = 8  # millimetres


class Paper(Struct, frozen=True):
    """What a receipt says, as text."""

    title: str
    issuer: str
    made_at: datetime  # the date of the document, too
    facts: tuple[tuple[str, str], ...]  # (name, value)
    amounts: tuple[tuple[str, str], ...]  # (name, amount), the last one the sum


def draw(paper: Paper) -> bytes:
    """The PDF, one page of A4."""
    from fpdf import FPDF  # a quarter of a second, which only a worker process has to spend

    pdf = FPDF(format="A4", unit="mm")
    pdf.set_creation_date(paper.made_at)  # else that of now, and no two were the same
    pdf.set_title(_drawable(paper.title))
    pdf.set_author(_drawable(paper.issuer))
    pdf.core_fonts_encoding = "cp1252"
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    pdf.cell(0, _LINE, _drawable(paper.issuer), align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", "B", 20)
    pdf.cell(0, 3 * _LINE, _drawable(paper.title), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", size=11)
    for name, value in paper.facts:
        pdf.set_text_color(110)
        pdf.cell(40, _LINE, _drawable(name))
        pdf.set_text_color(0)
        pdf.multi_cell(0, _LINE, _drawable(value), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(_LINE)
    for index, (name, amount) in enumerate(paper.amounts):
        last = index == len(paper.amounts) - 1
        pdf.set_font("Helvetica", "B" if last else "", 11)
        pdf.cell(130, _LINE, _drawable(name), border="T")
        pdf.cell(0, _LINE, _drawable(amount), border="T", align="R", new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def _drawable(text: str) -> str:
    """`text` in the characters of PDF's built-in fonts (Windows-1252): without an accent it may have, "?" failing that.

    >>> _drawable("Kraków, Łódź, Žižkov €")
    'Kraków, Lódz, Žižkov €'
    """
    return "".join(_character(c) for c in unicodedata.normalize("NFC", text))


def _character(c: str) -> str:
    for form in (c, _STROKED.get(c, ""), unicodedata.normalize("NFKD", c)[:1]):
        try:
            if form and form.encode("cp1252"):
                return form
        except UnicodeEncodeError:
            continue
    return "?"


_STROKED = {"Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "Ħ": "H", "ħ": "h"}  # which Unicode does not take apart
