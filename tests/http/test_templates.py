"""Pages of Jinja2."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import TemplateRuntimeError

from ropewalk import Principal, Response, Service, get
from ropewalk.errors import ConfigurationError
from ropewalk.http.sessions import Session
from ropewalk.http.templates import Templates


class Rooms(Service):
    """Has addresses."""

    @get("/rooms/<int:room_id>")
    async def read(self, room_id: int) -> str:
        return ""


@pytest.fixture
def write(tmp_path):
    """`write(name, text)`: a template, then the Templates of its folder."""

    def write(name: str, text: str, **options: object) -> Templates:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return Templates(tmp_path, **options)

    return write


def test_a_page_is_a_reply_of_html(write):
    pages = write("hello.html", "<p>Grüß {{ name }}</p>")

    assert Response("<p>Grüß Ada</p>", 200, [("content-type", "text/html; charset=utf-8")]) == pages.page(
        "hello.html", name="Ada"
    )


def test_status_and_headers_are_the_callers(write):
    page = write("gone.html", "gone").page("gone.html", status=410, headers=[("cache-control", "no-store")])

    assert (
        410,
        [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-store")],
    ) == (page.status, page.headers)


@pytest.mark.parametrize("name", ["page.html", "page.txt", "mail/page.j2"])
def test_everything_is_escaped_whatever_the_file_is_called(write, name):
    pages = write(name, "{{ value }}")

    assert "&lt;script&gt;&#34;&amp;&#39;" == pages.render(name, value="<script>\"&'")


def test_a_name_nobody_gave_is_an_error(write):
    with pytest.raises(UndefinedError, match="'prise' is undefined"):
        write("bill.html", "{{ prise }}").page("bill.html", price=3)


def test_nobody_is_the_current_user_unless_the_page_is_told_who(write):
    pages = write("who.html", "{{ principal.subject if principal is defined else 'nobody was named' }}")

    assert "nobody was named" == pages.render("who.html")
    assert "ada" == pages.render("who.html", principal=Principal(subject="ada"))


def test_a_page_names_operations_and_no_paths(write):
    pages = write("rooms.html", '<a href="{{ path_for("read", room_id=3) }}">', service=Rooms())

    assert '<a href="/rooms/3">' == pages.render("rooms.html")


def test_a_page_may_be_given_the_service_itself(write):
    pages = write("rooms.html", '<a href="{{ path_for(rooms.read, room_id=3) }}">')

    assert '<a href="/rooms/3">' == pages.render("rooms.html", rooms=Rooms())


def test_a_name_without_a_service_says_what_to_write(write):
    with pytest.raises(TypeError, match=r"needs to know whose: `Templates\(folder, self\)`"):
        write("rooms.html", '{{ path_for("read", room_id=3) }}').render("rooms.html")


def test_the_field_of_a_form_is_not_escaped_and_holds_the_sessions_token(write, sessions):
    page = write("form.html", "{{ csrf_field() }}").render("form.html", session=Session(sessions=sessions))

    assert page.startswith('<input type="hidden" name="csrf_token" value="')
    assert len('<input type="hidden" name="csrf_token" value="">') + 56 == len(page)


def test_a_form_without_a_session_says_what_to_write(write):
    with pytest.raises(TemplateRuntimeError, match=r'`page\("form.html", session=session, \.\.\.\)`'):
        write("form.html", "{{ csrf_field() }}").render("form.html")


def test_flashes_are_shown_once(write):
    session = Session()
    session.flash("Saved <b>")
    pages = write("page.html", "{% for message in session.flashes() %}[{{ message }}]{% endfor %}")

    assert ["[Saved &lt;b&gt;]", ""] == [pages.render("page.html", session=session) for _ in range(2)]


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Expected a folder of templates; there is none at .*/pages\."):
        Templates(tmp_path / "pages")
