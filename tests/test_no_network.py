from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

ELSEWHERE = ("192.0.2.1", 80)  # set aside for documentation: nobody is there


def test_connecting_to_another_machine_is_forbidden() -> None:
    with socket.socket() as mine, pytest.raises(RuntimeError, match=r"tests reach no network.*192\.0\.2\.1"):
        mine.connect(ELSEWHERE)
    with socket.socket() as mine, pytest.raises(RuntimeError, match="tests reach no network"):
        mine.connect_ex(ELSEWHERE)
    with socket.socket(type=socket.SOCK_DGRAM) as mine, pytest.raises(RuntimeError, match="tests reach no network"):
        mine.sendto(b"x", ELSEWHERE)


def test_names_are_not_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"api\.openai\.com"):
        socket.getaddrinfo("api.openai.com", 443)


def test_this_machine_may_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]) as mine:
        assert mine.getpeername()[0] == "127.0.0.1"


def test_processes_that_tests_start_are_held_to_it_too() -> None:
    code = "import socket; socket.getaddrinfo('example.com', 80)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "tests reach no network" in done.stderr


def test_no_key_of_the_person_running_the_tests_is_seen() -> None:
    kept = {name for name in os.environ if name.endswith("_API_KEY") or name.startswith("CORPUSGEN_")}
    assert kept <= {"CORPUSGEN_CACHE", "CORPUSGEN_SIGNING_KEY", "CORPUSGEN_TERMS", "CORPUSGEN_TEACHERS"}
    assert os.environ["CORPUSGEN_CACHE"] == "off"
