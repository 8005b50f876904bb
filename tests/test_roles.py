"""The variables of a search on several machines are right, or a line says which one is not."""

from __future__ import annotations

import pytest

from fcnseg.errors import InputError
from tuning.roles import number_and_count, role
from tuning.supervisor import SupervisorCommand

IP, PORT, NAME = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"
GIVEN = {IP: "10.0.0.1", PORT: "8000", NAME: "pod-0"}


def set_variables(monkeypatch, variables):
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (GIVEN, "worker"),
        ({**GIVEN, NAME: "chief"}, "chief"),
        ({**GIVEN, NAME: "node.local_1-0"}, "worker"),
    ],
)
def test_a_role_is_that_of_the_variables(monkeypatch, variables, expected):
    set_variables(monkeypatch, variables)
    assert role() == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({IP: "10.0.0.1"}, f"{PORT} must be set to the address of the chief"),
        ({IP: "10.0.0.1", NAME: "chief"}, f"{PORT} must be set"),
        ({PORT: "8000", NAME: "pod-0"}, f"{IP} must be set"),
        ({NAME: "pod-0"}, f"{IP} must be set"),
        ({**GIVEN, PORT: "http"}, f"{PORT} must be from 1 to 65535, got http"),
        ({**GIVEN, PORT: "65536"}, f"{PORT} must be from 1 to 65535, got 65536"),
        ({**GIVEN, NAME: "search-chief-0"}, f"{NAME} of a worker must not contain chief, got sea"),
        ({**GIVEN, NAME: ""}, f"{NAME} must be chief, or letters, digits and . _ -, got ''"),
        ({**GIVEN, NAME: "a/b"}, f"{NAME} must be chief, or letters, digits and . _ -, got 'a/b'"),
        ({IP: "10.0.0.1", PORT: "8000"}, f"{NAME} must be chief, or letters, .* got ''"),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(monkeypatch, variables, message):
    set_variables(monkeypatch, variables)
    with pytest.raises(InputError, match=message):
        role()


@pytest.mark.parametrize(
    ("variables", "changes", "message"),
    [
        ({IP: "10.0.0.1"}, {}, f"{PORT} must be set"),
        ({PORT: "8000"}, {}, f"{IP} must be set"),
        (GIVEN, {"name": "search-chief"}, "name of a worker must not contain chief, got search-"),
        (GIVEN, {"workers": 0}, "workers must be at least 1, got 0"),
        (GIVEN, {"command": ()}, "command must follow --, got none"),
    ],
)
def test_a_supervisor_starts_nothing_that_can_be_no_worker(
    monkeypatch, variables, changes, message
):
    set_variables(monkeypatch, variables)
    fields = {"command": ("false",), "name": "node", **changes}
    with pytest.raises(InputError, match=message):
        SupervisorCommand(**fields).run()


def test_a_worker_is_alone_on_its_machine_unless_a_supervisor_says_so(monkeypatch):
    assert number_and_count() == (0, 1)
    monkeypatch.setenv("FCNSEG_WORKER_NUMBER", "1")
    monkeypatch.setenv("FCNSEG_WORKER_COUNT", "4")
    assert number_and_count() == (1, 4)
