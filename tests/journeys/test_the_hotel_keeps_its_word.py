"""Every service of the hotel against its own OpenAPI document, by schemathesis, in all its phases."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

ROOT = Path(__file__).parents[2]
SERVICES = ("booking-ui", "hotels", "reservations", "payments", "users", "receipts", "notifications")
SECRET = "schemathesis asks, and this signs what it says"


@pytest.fixture(scope="module")
def hotel(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], int]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """The hotel in one process: the file its log goes to, and where each service answers."""
    folder = tmp_path_factory.mktemp("hotel")
    port = free_ports(len(SERVICES) + 2)  # the clock, which has no operation to ask for, and the public one
    log = folder / "log.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "ROPEWALK_PUBLIC__BOOKING_UI": f"tcp:{port + len(SERVICES) + 1}:interface=127.0.0.1",
        "ROPEWALK_PAYMENTS__LATENCY": "0",
        "ROPEWALK_PAYMENTS__SLOW": "0",
        "ROPEWALK_AUTH__JWT_KEY": SECRET,
        "ROPEWALK_DRAIN__DELAY": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "ropewalk"),
                *(str(ROOT / "examples/hotel/system.toml"), "--port", str(port), "--data", str(folder / "data")),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/health/ready", process, log)
            yield log, {name: f"http://127.0.0.1:{port + number}" for number, name in enumerate(SERVICES)}
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    pytest.fail(f"the hotel did not start:\n{log.read_text()}")


def bearer() -> str:
    claims = {"sub": "1", "scope": "", "exp": int(time.time()) + 3600}
    return "Bearer " + jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


@pytest.mark.long
@pytest.mark.parametrize("service", SERVICES)
def test_no_server_error_and_no_undocumented_answer(
    hotel: tuple[Path, dict[str, str]], service: str, tmp_path: Path
) -> None:
    log, address = hotel
    began = log.stat().st_size
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{address[service]}/openapi.json",
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15"),
            *("--generation-deterministic", "--continue-on-failure", "--no-color", "--workers", "1"),
            *("--header", f"Authorization: {bearer()}"),
            # Rules that no schema can say (a night that is over, a password like the name) refuse by a declared 422.
            *("--exclude-checks", "positive_data_acceptance"),
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )

    errors = [line for line in log.read_bytes()[began:].splitlines() if b'"level":"error"' in line]
    assert (done.returncode, errors) == (0, []), done.stdout.decode()[-6000:]
