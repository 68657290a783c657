"""What was configured, and where each value came from; and one clear line for whatever cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from klein import Klein

from ropewalk import Contract, Secret, Service, Settings, get
from ropewalk.errors import ConfigurationError
from ropewalk.runtime.check import problems, settings_rows
from ropewalk.runtime.config import Config, load
from ropewalk.runtime.settings import load as load_settings
from ropewalk.service import describe

HERE = __name__


class Bank(Settings):
    url: str = "https://bank.example"
    key: Secret = Secret("none")


class PaymentsSettings(Settings):
    currency: str = "EUR"
    retries: int = 3
    api_key: Secret
    bank: dict[str, int] = {}


class Payments(Service):
    def __init__(self, settings: PaymentsSettings) -> None:
        self.settings = settings


class BookingUI(Service):
    @get("/")
    async def page(self) -> str: ...


class Promised(Contract): ...


raw_app = Klein()
number = 3


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Config]:
    """`written(toml, environment={}, overrides={})`: the configuration of a system file of these lines."""

    def write(toml: str, environment: dict[str, str] | None = None, overrides: dict[str, Any] | None = None) -> Config:
        path = tmp_path / "system.toml"
        path.write_text(toml.replace("HERE", HERE), "utf-8")
        return load(str(path), environment or {}, overrides)

    return write


SERVICES = """
[services]
booking-ui = "HERE:BookingUI"
payments = "HERE:Payments"
"""


def refusal(call: Callable[[], Any], folder: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        call()
    return str(refused.value).replace(str(folder), "DIR").replace(HERE, "HERE")


# -- layers


def test_each_layer_wins_over_those_before_it_and_is_remembered(written, tmp_path):
    config = written(
        SERVICES
        + '[system]\nname = "hotel"\n[log]\nlevel = "debug"\n[drain]\ndelay = 2\nlimit = 3\n[settings.payments]\n'
        'currency = "USD"\nretries = 1\napi_key = "a"\n',
        {
            "ROPEWALK_DRAIN__LIMIT": "4.5",
            "ROPEWALK_DRAIN__DELAY": "5",
            "ROPEWALK_PAYMENTS__RETRIES": "7",
            "ROPEWALK_PUBLIC__BOOKING_UI": "tcp:8080",
            "HOME": "/root",
        },
        {"drain": {"delay": 6.0}},
    )
    file = str(tmp_path / "system.toml")

    got = {name: (value, origin) for name, value, origin in config.rows()}

    assert {
        "system.name": ("hotel", file),
        "system.secret": ("-", "default"),
        "log.level": ("debug", file),
        "drain.delay": ("6.0", "command line"),
        "drain.limit": ("4.5", "ROPEWALK_DRAIN__LIMIT"),
        "public.booking-ui": ("tcp:8080", "ROPEWALK_PUBLIC__BOOKING_UI"),
        "adapters.store": ("sqlite", "default"),
        "cors.origins": ("-", "default"),
        "processes": ("-", "default"),
    }.items() <= got.items()
    assert [
        ("currency", "USD", file),
        ("retries", "7", "ROPEWALK_PAYMENTS__RETRIES"),
        ("api_key", "**********", file),
        ("bank", "-", "default of PaymentsSettings"),
    ] == settings_rows(config, "payments", Payments)
    assert PaymentsSettings(currency="USD", retries=7, api_key="a") == load_settings(
        PaymentsSettings, "payments", config.settings_of("payments"), config.origins
    )
    assert "HOME" not in config.environment


def test_rows_come_in_the_file_s_order_and_each_once(written):
    names = [name for name, _, _ in written(SERVICES).rows()]

    assert (["system.name", "system.secret", "services.booking-ui", "services.payments"], len(names)) == (
        names[:4],
        len(set(names)),
    )


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("ROPEWALK_SYSTEM__NAME", "x", ("system", "name"), "x"),
        ("ROPEWALK_LOG__JSON_LINES", "true", ("log", "json_lines"), True),
        ("ROPEWALK_CORS__ORIGINS", '["https://a"]', ("cors", "origins"), ("https://a",)),
        ("ROPEWALK_ADAPTERS__STORE", "postgresql://db", ("adapters", "store"), "postgresql://db"),
        ("ROPEWALK_SETTINGS__PAYMENTS", '{"currency": "USD"}', ("settings", "payments"), {"currency": "USD"}),
        ("ROPEWALK_SETTINGS__PAYMENTS__CURRENCY", "USD", ("settings", "payments"), {"currency": "USD"}),
        ("ROPEWALK_PAYMENTS__BANK__LIMIT", "3", ("settings", "payments"), {"bank": {"limit": "3"}}),
        ("ROPEWALK_BOOKING_UI__TITLE", "[not json", ("settings", "booking-ui"), {"title": "[not json"}),
        ("ROPEWALK_INSTANCES__BOOKING_UI", '["http://a"]', ("instances", "booking-ui"), ("http://a",)),
    ],
)
def test_a_variable_says_by_its_name_what_it_sets(written, variable, value, path, expected):
    got: Any = written(SERVICES, {variable: value}).file
    for name in path:
        got = got[name] if isinstance(got, dict) else getattr(got, name)

    assert expected == got


def test_variables_without_a_section_are_somebody_else_s(written):
    assert "system" == written(SERVICES, {"ROPEWALK_REQUIRED": "redis", "ROPEWALK": "x"}).file.system.name


def test_a_process_has_a_short_form(written):
    config = written(SERVICES + '[processes]\nweb = ["booking-ui"]\ncore = { services = ["payments"], workers = 2 }\n')

    assert [("web", ("booking-ui",), 1), ("core", ("payments",), 2)] == [
        (name, section.services, section.workers) for name, section in config.file.processes.items()
    ]


def test_the_folder_of_the_file_comes_first_on_the_path(written, tmp_path):
    sys.path.append(str(tmp_path))

    config = written(SERVICES)

    assert (str(tmp_path), 1, tmp_path) == (sys.path[0], sys.path.count(str(tmp_path)), config.folder)


# -- one service instead of a file


def test_a_service_is_a_system_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    config = load(f"{HERE}:BookingUI", {})

    assert ("booking-ui", ("booking-ui",), tmp_path, str(tmp_path)) == (
        config.file.system.name,
        config.services,
        config.folder,
        sys.path[0],
    )
    assert BookingUI is config.service_class("booking-ui")


def test_a_klein_application_is_a_service_without_operations():
    config = load(f"{HERE}:raw_app", {})
    cls = config.service_class("raw-app")

    assert (("raw-app",), "raw-app", {}, raw_app) == (
        config.services,
        describe(cls).name,
        describe(cls).operations,
        cls().app,
    )
    assert cls is config.service_class("raw-app")


# -- whatever is wrong is one line that says where


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("services = 3", "DIR/system.toml: [services]: Input should be a valid dictionary (got 3)."),
        ("", "DIR/system.toml: [services]: Field required."),
        ("[services]\n=", None),
        (SERVICES + "[systen]\n", "DIR/system.toml: [systen]: Extra inputs are not permitted."),
        (SERVICES + '[system]\nnam = "x"', "DIR/system.toml: [system] nam: Extra inputs are not permitted."),
        (
            SERVICES + "[drain]\ndelay = -1",
            "DIR/system.toml: [drain] delay: Input should be greater than or equal to 0 (got -1).",
        ),
        (
            SERVICES + '[log]\nlevel = "loud"',
            "DIR/system.toml: [log] level: String should match pattern '^(debug|info|warning|error)$' (got 'loud').",
        ),
        (
            '[services]\nPayments = "HERE:Payments"',
            "DIR/system.toml: [services] Payments: String should match pattern '^[a-z][a-z0-9]*(-[a-z0-9]+)*$' "
            "(got 'Payments').",
        ),
        (
            '[services]\npayments = "HERE"',
            r"DIR/system.toml: [services] payments: String should match pattern '^[A-Za-z_][\w.]*:[A-Za-z_]\w*$' "
            "(got 'HERE').",
        ),
        (
            SERVICES + '[public]\nui = "tcp:1"',
            "DIR/system.toml: [public] ui: no such service; [services] has: booking-ui, payments.",
        ),
        (
            SERVICES + "[settings.pay]\nx = 1",
            "DIR/system.toml: [settings] pay: no such service; [services] has: booking-ui, payments.",
        ),
        (
            SERVICES + '[processes]\nweb = ["ui"]',
            "DIR/system.toml: [processes] web: no such service 'ui'; [services] has: booking-ui, payments.",
        ),
        (
            SERVICES + '[processes]\na = ["payments", "booking-ui"]\nb = ["payments"]',
            "DIR/system.toml: [processes]: payments is in a and in b; a service has one place.",
        ),
        (
            SERVICES + '[processes]\na = ["payments"]',
            "DIR/system.toml: [processes]: booking-ui has no process; name it in one.",
        ),
        (
            SERVICES + '[processes]\na = { services = ["payments", "booking-ui"], workers = 0 }',
            "DIR/system.toml: [processes] a.workers: Input should be greater than or equal to 1 (got 0).",
        ),
        (
            SERVICES + '[edges."payments -> bank"]\ntimeout = 1',
            'DIR/system.toml: [edges."payments -> bank"]: expected "caller -> callee" of [services]: booking-ui, payments.',
        ),
        (
            SERVICES + '[edges."payments -> booking-ui"]\ntimeout = 0',
            "DIR/system.toml: [edges] payments -> booking-ui.timeout: Input should be greater than 0 (got 0).",
        ),
        (
            SERVICES + '[provide]\n"ports.IMailer" = "mail:SMTP"',
            r"DIR/system.toml: [provide] ports.IMailer: String should match pattern '^[A-Za-z_][\w.]*:[A-Za-z_]\w*$' "
            "(got 'ports.IMailer').",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(written, tmp_path, toml, message):
    said = refusal(lambda: written(toml), tmp_path)

    assert "\n" not in said
    assert message in (None, said)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "ROPEWALK_DRAIN__DELAY",
            "soon",
            "ROPEWALK_DRAIN__DELAY: [drain] delay: Input should be a valid number, unable to parse string as a number "
            "(got 'soon').",
        ),
        (
            "ROPEWALK_PAYMENT__X",
            "1",
            "ROPEWALK_PAYMENT__X: there is no section or service 'PAYMENT'; there are: ADAPTERS, AUTH, BOOKING_UI, CORS, "
            "DRAIN, EDGES, INSTANCES, LIMITS, LOG, PAYMENTS, PROCESSES, PROVIDE, PROXIES, PUBLIC, RECORDS, "
            "SERVICES, SETTINGS, SYSTEM.",
        ),
        (
            "ROPEWALK_LOG__LEVELS",
            "info",
            "ROPEWALK_LOG__LEVELS: [log] levels: Extra inputs are not permitted.",
        ),
    ],
)
def test_a_wrong_variable_is_named(written, tmp_path, variable, value, message):
    assert message == refusal(lambda: written(SERVICES, {variable: value}), tmp_path)


def test_a_wrong_word_on_the_command_line_is_named(written, tmp_path):
    assert "command line: [drain] limit: Input should be greater than or equal to 0 (got -1.0)." == refusal(
        lambda: written(SERVICES, {}, {"drain": {"limit": -1.0}}), tmp_path
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.toml", "nowhere.toml: no such file. Give a system file, or a service as `package.module:Service`."),
        ("nowhere", "'nowhere' is neither a file nor a service like `package.module:Service`."),
        ("DIR", "DIR: [Errno 21] Is a directory: 'DIR'"),
        ("no_such_module:X", "no_such_module:X: there is no module 'no_such_module' on 'DIR' and sys.path."),
        (f"{HERE}:Nothing", "HERE:Nothing: the module HERE has no 'Nothing'."),
        (f"{HERE}:number", "HERE:number: expected a Service class or a Klein application, got 3."),
        (
            f"{HERE}:Promised",
            "HERE:Promised: expected a Service class or a Klein application, got a Contract, not a Service.",
        ),
    ],
)
def test_a_target_that_is_none_is_refused(monkeypatch, tmp_path, target, message):
    monkeypatch.chdir(tmp_path)

    assert message == refusal(lambda: load(target.replace("DIR", str(tmp_path)), {}), tmp_path)


def test_what_a_module_itself_lacks_is_told_by_its_own_traceback(monkeypatch, tmp_path):
    (tmp_path / "lacking.py").write_text("import no_such_module\n")
    (tmp_path / "broken.py").write_text("from ropewalk import Service\nService.nothing\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModuleNotFoundError):
        load("lacking:X", {})
    with pytest.raises(AttributeError, match="nothing"):
        load("broken:X", {})


# -- secrets

SECRETS = (
    SERVICES
    + """
[system]
secret = "S3CRET"
[auth]
jwt_key = "S3CRET"
[adapters]
store = "postgresql://hotel:S3CRET@db/hotel"
[settings.payments]
api_key = "S3CRET"
"""
)


def test_a_secret_never_prints(written):
    config = written(SECRETS, {"ROPEWALK_PAYMENTS__API_KEY": "S3CRET", "ROPEWALK_SYSTEM__SECRET": "S3CRET"})
    settings = load_settings(PaymentsSettings, "payments", config.settings_of("payments"), config.origins)

    printed = [repr(config), str(config), repr(config.file), repr(settings), str(settings)]
    printed += [str(row) for row in (*config.rows(), *settings_rows(config, "payments", Payments))]

    assert [] == [text for text in printed if "S3CRET" in text]
    assert "postgresql://hotel:***@db/hotel" in {value for _, value, _ in config.rows()}
    assert "S3CRET" == settings.api_key.get_secret_value()


@pytest.mark.parametrize(
    ("toml", "environment"),
    [
        (SERVICES + '[system]\nsecret = ["S3CRET"]', {}),
        (SERVICES + '[system]\npassword = "S3CRET"', {}),
        (SERVICES + '[auth]\njwt_kee = "S3CRET"', {}),
        (SERVICES + '[settings]\npayments = "S3CRET"', {}),
        (SERVICES + '[adapters]\nstore = 3\nbroker = "redis://x:S3CRET@y"', {}),
        (SERVICES, {"ROPEWALK_SETTINGS__PAYMENTS": "S3CRET"}),
        (SERVICES, {"ROPEWALK_SYSTEM__SECRETS": "S3CRET"}),
    ],
)
def test_an_error_tells_no_secret(written, tmp_path, toml, environment):
    assert "S3CRET" not in refusal(lambda: written(toml, environment), tmp_path)


# -- a service's own settings


@pytest.mark.parametrize(
    ("toml", "environment", "message"),
    [
        ("", {}, "[settings.payments] api_key: Field required."),
        (
            '[settings.payments]\napi_key = "S3CRET"\nretries = "many"',
            {},
            "DIR/system.toml: [settings.payments] retries: Input should be a valid integer, unable to parse string as an "
            "integer.",
        ),
        (
            '[settings.payments]\napi_key = "x"',
            {"ROPEWALK_PAYMENTS__RETRIES": "S3CRET"},
            "ROPEWALK_PAYMENTS__RETRIES: [settings.payments] retries: Input should be a valid integer, unable to parse "
            "string as an integer.",
        ),
        (
            '[settings.payments]\napi_key = "x"\napi_kee = "S3CRET"',
            {},
            "DIR/system.toml: [settings.payments] api_kee: Extra inputs are not permitted.",
        ),
        (
            '[settings.payments]\napi_key = "x"\nbank = { limit = "S3CRET" }',
            {},
            "DIR/system.toml: [settings.payments] bank.limit: Input should be a valid integer, unable to parse string as an "
            "integer.",
        ),
    ],
)
def test_wrong_settings_are_one_line_that_names_field_and_origin(written, tmp_path, toml, environment, message):
    config = written(SERVICES + toml, environment)

    def filled() -> Settings:
        return load_settings(PaymentsSettings, "payments", config.settings_of("payments"), config.origins)

    assert message == refusal(filled, tmp_path)
    assert [f"payments: {message}"] == [line.replace(str(tmp_path), "DIR") for line in problems(config)]


def test_settings_are_made_by_hand_in_a_test_and_cannot_be_changed():
    settings = PaymentsSettings(api_key="x")

    assert ("EUR", 3) == (settings.currency, settings.retries)
    with pytest.raises(ValueError, match="frozen"):
        settings.currency = "USD"


def test_settings_of_a_service_do_not_come_from_variables_by_themselves(monkeypatch):
    monkeypatch.setenv("CURRENCY", "USD")
    monkeypatch.setenv("ROPEWALK_PAYMENTS__CURRENCY", "USD")

    assert "EUR" == PaymentsSettings(api_key="x").currency
