"""The hotel's face: pages that work without JavaScript, made of what the siblings say.

An operation here asks a sibling or two and fills a template; what guests type is read in `forms`, how values look is
told in `shown`. What a sibling may refuse is met by class, and becomes a sentence above the form that was sent, which
keeps what was typed. Whatever nobody meets becomes a page of its own, in `error_page`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from random import Random
from typing import Annotated, Any
from uuid import UUID

import msgspec
from treq.client import HTTPClient
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from ropewalk import (
    BadRequest,
    Client,
    DeadlineExceeded,
    Form,
    KeyReused,
    NotFound,
    Principal,
    Query,
    Response,
    RopewalkError,
    Service,
    Unauthorized,
    Unavailable,
    current_context,
    get,
    given,
    mount,
    post,
)
from ropewalk.context import enter_context, leave_context
from ropewalk.http.pages import Session, Static, Templates, path_for, redirect

from .catalogue import City
from .forms import LABELS, PRESSED, DatesForm, Errors, PaymentForm, Pressed, SearchForm, SignInForm, SignUpForm
from .hotels import Hotels
from .notifications import PAGE as MAILS
from .notifications import MailId, Notifications
from .receipts import NothingPaid, Receipts
from .reservations import NotInState, PaymentDeclined, PaymentUnavailable, Reservations, TooLate
from .rooms import PAGE as BOOKINGS
from .rooms import Reservation
from .shown import FILTERS, GLOBALS
from .today import read_clock
from .users import EmailTaken, User, Users, WrongCredentials
from .words import HotelId, Page, SoldOut, Stay, StayNotPossible

_log = Logger("hotel.booking_ui")
HERE = Path(__file__).parent
_ATTEMPT = re.compile("[0-9a-f]{32}")
DOWN = (Unavailable, DeadlineExceeded)  # a sibling does not answer

# What a browser is told of every page: it is nobody else's, and takes nothing from anywhere else.
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    ("cache-control", "no-store"),
    ("content-security-policy", _POLICY),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
)


class BookingUI(Service, name="booking-ui", version="1.0.0"):
    """The pages on which guests find a room, book it and cancel it."""

    def __init__(
        self,
        hotels: Annotated[Hotels, Client(timeout=3.0)],
        # Longer than a payment may take, and shorter than a page's own ten seconds: something is left to say so.
        reservations: Annotated[Reservations, Client(timeout=9.0)],
        users: Annotated[Users, Client(timeout=5.0)],
        receipts: Annotated[Receipts, Client(timeout=9.0)],
        notifications: Annotated[Notifications, Client(timeout=3.0)],
        http: HTTPClient,
        random: Random,
    ) -> None:
        self._hotels = hotels
        self._reservations = reservations
        self._users = users
        self._receipts = receipts
        self._notifications = notifications
        self._http = http
        self._random = random
        self._pages = Templates(HERE / "pages", self)
        self._pages.environment.filters.update(FILTERS)
        self._pages.environment.globals.update(GLOBALS)

    # -- finding a room

    @get("/", access="public")
    async def home(self, session: Session = given) -> Response:
        """Show the search and the cities."""
        today = await self._today()
        form = SearchForm().beginning(today)
        return self._page("home.html", session, place="home", form=form, today=today, cities=await self._cities())

    @get("/search", access="public", raises=DOWN)
    async def search(self, form: Annotated[SearchForm, Query], session: Session = given) -> Response:
        """Show the hotels that suit a search, a page at a time."""
        today = await self._today()
        form = form.beginning(today)
        search, errors = form.read(today)
        found, alert, status = None, "", 422
        if search is not None:
            try:
                found, status = await self._hotels.search(search), 200
            except StayNotPossible as error:
                errors = {"arrival": error.detail}
            except DOWN:
                alert, status = "The search cannot be reached at the moment. Please try again in a moment.", 503
        return self._page(
            "results.html",
            session,
            status,
            here=path_for(self.search, form=form),
            form=form,
            search=search,
            found=found,
            errors=errors,
            alert=alert,
            today=today,
            cities=await self._cities(),
        )

    @get("/hotels/<int:hotel_id>", access="public", raises=(NotFound, *DOWN))
    async def hotel(self, hotel_id: HotelId, form: Annotated[DatesForm, Query], session: Session = given) -> Response:
        """Show one hotel, and which of its rooms are free on some dates."""
        hotel = await self._hotels.read(hotel_id)
        today = await self._today()
        form = form.beginning(today)
        dates, errors = form.read(hotel_id, today)
        rooms: Any = hotel.suiting(dates.guests if dates else 1)
        free_known, alert = False, ""
        if dates is not None:
            try:
                rooms = await self._reservations.availability(hotel_id, dates.arrival, dates.nights, dates.guests)
                free_known = True
            except StayNotPossible as error:
                errors = {"arrival": error.detail}
            except DOWN:
                alert = "Which rooms are free cannot be told at the moment. Please try again in a moment."
        return self._page(
            "hotel.html",
            session,
            422 if errors else 200,
            here=path_for(self.hotel, hotel_id=hotel_id, form=form),
            hotel=hotel,
            form=form,
            dates=dates,
            rooms=rooms,
            free_known=free_known,
            errors=errors,
            alert=alert,
            today=today,
        )

    @get("/hotels/<int:hotel_id>/photo.svg", access="public", raises=(NotFound, *DOWN))
    async def photo(self, hotel_id: HotelId) -> Response:
        """Show a hotel's drawing."""
        return _passed_on(await self._hotels.photo(hotel_id))

    # -- booking it

    @get("/book", access="user", raises=(NotFound, *DOWN))
    async def payment(self, stay: Annotated[Stay, Query], session: Session = given) -> Response:
        """Ask who stays, and for a card."""
        form = PaymentForm(session.get("name", ""), session.get("email", ""))
        return await self._payment(stay, form, session)

    @post("/book", access="user", status=303, raises=(NotFound, *DOWN))
    async def book(
        self, stay: Annotated[Stay, Query], form: Annotated[PaymentForm, Form], session: Session = given
    ) -> Response:
        """Book and pay a stay; the form again when that did not work, with what was typed and why."""
        booking, errors = form.read(stay)
        if booking is None:
            return await self._payment(stay, form, session, 422, errors=errors, attempt=form.attempt)
        try:
            with _once(form.attempt):
                made = await self._reservations.book(booking)
        except PaymentDeclined as error:
            reason = str(error.members.get("reason", ""))
            why = "" if reason in ("", "card declined") else f" ({reason})"
            alert = f"Your card was declined{why}. Nothing was charged. Please try another card."
            return await self._payment(stay, form, session, 402, alert=alert)
        except KeyReused:
            alert = (
                "This form was sent before, with other details. Look at “My bookings” to see whether that was booked, "
                "and if not, send it again."
            )
            return await self._payment(stay, form, session, 409, alert=alert)
        except (SoldOut, StayNotPossible) as error:
            return await self._payment(stay, form, session, 409, alert=f"This cannot be booked: {error.detail}")
        except PaymentUnavailable as error:
            return await self._payment(stay, form, session, 503, alert=_unpaid(error), letter="d")
        except DOWN:
            alert = (
                "We cannot say at the moment whether this was booked. Look at “My bookings” in a few minutes: "
                "what is not there is not charged."
            )
            # The same attempt: should this one have gone through, pressing again books nothing more.
            return await self._payment(stay, form, session, 503, alert=alert, letter="d", attempt=form.attempt)
        session.flash("Your room is booked and paid. A confirmation lies in your mailbox.")
        return redirect(path_for(self.booking, reservation_id=made.id))

    @get("/bookings", access="user", raises=DOWN)
    async def bookings(self, page: Page = 1, session: Session = given) -> Response:
        """List the guest's own bookings, the latest arrival first."""
        mine = await self._reservations.mine(page)
        more = len(mine) == BOOKINGS
        return self._page("bookings.html", session, place="bookings", bookings=mine, page=page, more=more)

    @get("/bookings/<uuid:reservation_id>", access="user", raises=(NotFound, *DOWN))
    async def booking(self, reservation_id: UUID, session: Session = given) -> Response:
        """Show one of the guest's own bookings."""
        return self._booking(await self._reservations.read(reservation_id), session)

    @get("/bookings/<uuid:reservation_id>/receipt.pdf", access="user", raises=(NotFound, NothingPaid, *DOWN))
    async def receipt(self, reservation_id: UUID) -> Response:
        """Give the receipt of a booking: a PDF."""
        return _passed_on(await self._receipts.receipt(reservation_id))

    @get("/bookings/<uuid:reservation_id>/cancel", access="user", raises=(NotFound, *DOWN))
    async def cancel_page(self, reservation_id: UUID, session: Session = given) -> Response:
        """Ask whether a booking is really to be cancelled, and say what is given back."""
        booking = await self._reservations.read(reservation_id)
        if booking.state != "confirmed":
            return self._booking(booking, session, 409, "This booking cannot be cancelled.")
        return self._cancel(booking, await self._today(), session)

    @post("/bookings/<uuid:reservation_id>/cancel", access="user", status=303, raises=(NotFound, *DOWN))
    async def cancel(
        self, reservation_id: UUID, form: Annotated[Pressed, Form] = PRESSED, session: Session = given
    ) -> Response:
        """Cancel a booking."""
        try:
            await self._reservations.cancel(reservation_id)
        except (TooLate, NotInState) as error:
            return self._booking(await self._reservations.read(reservation_id), session, 409, error.detail)
        session.flash("The booking is cancelled.")
        return redirect(path_for(self.booking, reservation_id=reservation_id))

    # -- who one is

    @get("/sign-up", access="public")
    async def sign_up_page(self, next: str = "/", session: Session = given) -> Response:
        """Ask for name, address and password."""
        return self._sign_up(SignUpForm(), next, session)

    @post("/sign-up", access="public", status=303)
    async def sign_up(self, form: Annotated[SignUpForm, Form], next: str = "/", session: Session = given) -> Response:
        """Add a user, sign in and go back to where one came from."""
        person, errors = form.read()
        if person is None:
            return self._sign_up(form, next, session, 422, errors=errors)
        try:
            user = await self._users.sign_up(person)
        except EmailTaken:
            taken = {"email": "Somebody has signed up with this address before; is it you? Then sign in."}
            return self._sign_up(form, next, session, 409, errors=taken)
        except DOWN:
            return self._sign_up(form, next, session, 503, alert=_later("Signing up"))
        return _welcome(user, next, session)

    @get("/sign-in", access="public")
    async def sign_in_page(self, next: str = "/", session: Session = given) -> Response:
        """Ask for address and password."""
        return self._sign_in(SignInForm(), next, session)

    @post("/sign-in", access="public", status=303)
    async def sign_in(self, form: Annotated[SignInForm, Form], next: str = "/", session: Session = given) -> Response:
        """Sign in and go back to where one came from."""
        credentials, errors = form.read()
        if credentials is None:
            return self._sign_in(form, next, session, 422, errors=errors)
        try:
            user = await self._users.sign_in(credentials)
        except WrongCredentials as error:
            return self._sign_in(form, next, session, 422, alert=error.detail)
        except DOWN:
            return self._sign_in(form, next, session, 503, alert=_later("Signing in"))
        return _welcome(user, next, session)

    @post("/sign-out", access="public", status=303)
    async def sign_out(self, form: Annotated[Pressed, Form] = PRESSED, session: Session = given) -> Response:
        """Forget who this is."""
        session.clear()
        session.flash("You are signed out.")
        return redirect(path_for(self.home))

    # -- mail

    @get("/mailbox", access="user", raises=(NotFound, *DOWN))
    async def mailbox(self, page: Page = 1, principal: Principal = given, session: Session = given) -> Response:
        """List the mails this system sent to the guest, the newest first."""
        email = await self._email(principal)
        mails = await self._notifications.mailbox(email, page)
        more = len(mails) == MAILS
        return self._page("mailbox.html", session, place="mailbox", email=email, mails=mails, page=page, more=more)

    @get("/mailbox/<int:mail_id>", access="user", raises=(NotFound, *DOWN))
    async def mail(self, mail_id: MailId, principal: Principal = given, session: Session = given) -> Response:
        """Show one of these mails."""
        mail = await self._notifications.read(mail_id, await self._email(principal))
        return self._page("mail.html", session, place="mailbox", mail=mail)

    # -- beside the operations

    @mount("/static", access="public")
    def static(self) -> Static:
        """The style sheet and what else does not change."""
        return Static(HERE / "static", cache="public, max-age=300")

    def error_page(self, error: RopewalkError, request: IRequest) -> Response:
        """What a browser is shown instead of a problem document."""
        session = Session.of_request(request)
        # Whoever brought a token that is not believed would not be believed on the sign-in page either.
        if isinstance(error, Unauthorized) and request.getHeader("authorization") is None:
            return redirect(path_for(self.sign_in_page, next=request.uri.decode("latin-1")))
        letter, heading, text = _MISHAPS.get(error.status) or _MISHAPS[503 if error.status >= 500 else 400]
        if error.status in (403, 409):
            text = error.detail or text
        return self._page("mishap.html", session, error.status, letter=letter, heading=heading, text=text)

    # -- pages shown by several operations

    def _page(
        self,
        template: str,
        session: Session,
        status: int = 200,
        *,
        place: str = "",
        here: str = "/",
        errors: Errors | None = None,
        **values: Any,
    ) -> Response:
        """`place`: where it is in the menu; `here`: where signing in leads back to."""
        labels = list(LABELS.items())
        values |= {"session": session, "place": place, "here": here, "errors": errors or {}, "labels": labels}
        return self._pages.page(template, status, _HEADERS, **values)

    async def _payment(
        self,
        stay: Stay,
        form: PaymentForm,
        session: Session,
        status: int = 200,
        *,
        errors: Errors | None = None,
        alert: str = "",
        letter: str = "x",
        attempt: str = "",
    ) -> Response:
        """`attempt`: of the form that was sent, when that may still come to a booking."""
        hotel = await self._hotels.read(stay.hotel_id)
        room = hotel.room_kind(stay.kind)
        return self._page(
            "payment.html",
            session,
            status,
            errors=errors,
            alert=alert,
            letter=letter,
            hotel=hotel,
            room=room,
            total=room.price * stay.nights,
            stay=stay,
            back=DatesForm.of(stay),
            form=form,
            attempt=attempt if _ATTEMPT.fullmatch(attempt) else f"{self._random.getrandbits(128):032x}",
        )

    def _booking(self, booking: Reservation, session: Session, status: int = 200, alert: str = "") -> Response:
        return self._page("booking.html", session, status, place="bookings", booking=booking, alert=alert)

    def _cancel(self, booking: Reservation, today: date | None, session: Session) -> Response:
        back = None
        if today is not None:
            back = booking.total if today <= booking.free_until else booking.total - booking.price
        return self._page("cancel.html", session, place="bookings", booking=booking, back=back, alert="")

    def _sign_up(
        self,
        form: SignUpForm,
        next: str,
        session: Session,
        status: int = 200,
        *,
        errors: Errors | None = None,
        alert: str = "",
    ) -> Response:
        return self._page(
            "sign_up.html",
            session,
            status,
            place="sign-up",
            here=next,
            form=form,
            next=next,
            errors=errors,
            alert=alert,
        )

    def _sign_in(
        self,
        form: SignInForm,
        next: str,
        session: Session,
        status: int = 200,
        *,
        errors: Errors | None = None,
        alert: str = "",
    ) -> Response:
        return self._page(
            "sign_in.html",
            session,
            status,
            place="sign-in",
            here=next,
            form=form,
            next=next,
            errors=errors,
            alert=alert,
        )

    # -- what several operations ask

    async def _today(self) -> date | None:
        """The date; None when the clock does not answer, which no page needs to fail for."""
        try:
            return (await read_clock(self._http)).date()
        except RopewalkError as error:
            _log.warn("clock.silent error={error!r}", error=error)
            return None

    async def _cities(self) -> list[City]:
        try:
            return await self._hotels.cities()
        except DOWN as error:
            _log.warn("cities.unknown error={error!r}", error=error)
            return []

    async def _email(self, principal: Principal) -> str:
        """The address of a guest, which is not taken from the session: who brings a token has none."""
        try:
            user_id = UUID(principal.subject)
        except ValueError:
            raise NotFound("Nobody has signed up under this name.") from None
        return (await self._users.read(user_id)).email


# status: the flag, and what is said. What the flags mean is in the International Code of Signals.
_MISHAPS = {
    400: ("u", "That went wrong on the way", "What your browser sent cannot be read. Go back and try again."),
    401: ("l", "Who is it?", "What should tell us who you are is not valid, or no longer."),
    403: ("l", "Not this way", "This is not yours to do."),
    404: ("n", "Nothing lies here", "The page has moved, or never was. Perhaps the address was cut off."),
    409: ("n", "That does not go together", "Things have changed meanwhile. Go back and look again."),
    422: ("n", "Something is missing", "The address of this page is not complete. Go back and try again."),
    503: ("f", "We cannot do this at the moment", "A part of our house does not answer. Please try again in a moment."),
}


def _unpaid(error: PaymentUnavailable) -> str:
    """What to say of a payment that could not be made; nothing is promised that is not certain."""
    said = "Payments are not available at the moment. Your card was not charged. Please try again in a moment."
    if error.members.get("state") == "voiding":
        said += " Should a charge have gone through unnoticed after all, it is given back by itself."
    return said


def _later(what: str) -> str:
    return f"{what} is not possible at the moment. Please try again in a moment."


def _welcome(user: User, next: str, session: Session) -> Response:
    session.sign_in(str(user.id))
    session["name"], session["email"] = user.name, user.email
    session.flash(f"Welcome, {user.name}.")
    try:
        return redirect(next)
    except BadRequest:  # an address elsewhere, which nobody is sent to
        return redirect("/")


@contextmanager
def _once(attempt: str) -> Iterator[None]:
    """Calls siblings under the key of a form, so that a form sent twice does nothing twice."""
    key = attempt if _ATTEMPT.fullmatch(attempt) else None
    token = enter_context(msgspec.structs.replace(current_context(), key=key))
    try:
        yield
    finally:
        leave_context(token)


def _passed_on(response: Response) -> Response:
    """A sibling's document as it is, with those of its headers that are about it."""
    kept = ("content-type", "content-disposition", "cache-control")
    return Response(response.body, headers=[(name, value) for name, value in response.headers if name.lower() in kept])
