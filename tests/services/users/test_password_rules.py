"""Which passwords are refused, and that good ones are not."""

import os
import time

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.services.password_rules import validate_password
from machpay_gateway.services.users import random_password

WHO = {"email": "ada.lovelace@example.org", "account": "Acme Incorporated"}
COMMON = [
    "123456789012",
    "password1234",
    "Password1234!",
    "P@ssw0rd1234",
    "qwertyuiop12",
    "1q2w3e4r5t6y",
    "letmeinletmein",
    "iloveyou1234",
    "abcdefghijkl",
    "aaaaaaaaaaaa",
    "abcabcabcabc",
    "Summer2026!!",
    "Welcome2026!",
    "admin1234567",
    "000000000000",
    "20261129202611",
    "fortnite1234",  # of words that zxcvbn does not know
    "contraseña12",
    "1q2w3e4r5t6y7u8i9o",
    "telechargement",  # listed: foreign words that look like ones that do not belong together
    "ICHLIEBEDICH",
]
CONTEXTUAL = [
    "ada.lovelace@example.org", "ADA.LOVELACE@EXAMPLE.ORG", "ada.lovelace", "adalovelaceexampleorg", "lovelace-2026",
    "ada-example-2026", "ecalevol.ada1", "Example.org2026", "acme incorporated", "AcmeIncorporated1!",
    "acme-acme-acme", "4cme-inc0rporated", "machpay12345", "MachPay2026!!", "m4chp4y-2026!", "machpay-gateway",
    "MachPayConsole",
]  # fmt: skip
GOOD = [
    "correct horse battery", "blue fish runs quickly", "mein hund frisst blau", "gK7#mQ2!xZ9p", "f3a9c1d2e4b57708",
    "machpay correct horse battery", "пароль из четырёх слов", "龍が空を飛ぶ夏の夜に鳴く",
]  # fmt: skip


@pytest.mark.parametrize("password", [*COMMON, *CONTEXTUAL])
def test_it_is_refused_with_a_way_out_and_is_not_repeated(password: str) -> None:
    with pytest.raises(InputError, match=r"several words|use 12 to 1024") as refused:
        validate_password(password, **WHO)
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", GOOD)
def test_it_is_accepted(password: str) -> None:
    assert validate_password(password, **WHO) == password


def test_random_ones_are_accepted() -> None:
    for password in (random_password(), os.urandom(6).hex() + "-x", os.urandom(500).hex()):
        assert validate_password(password, **WHO) == password


@pytest.mark.parametrize("password", ["a" * 1024, "password" * 128, "1" * 1024, "@4" * 512, "lI1|" * 256], ids=str)
def test_a_long_one_takes_no_longer_than_a_hash(password: str) -> None:
    validate_password("correct horse battery")  # loads the words
    before = time.thread_time()
    with pytest.raises(InputError):
        validate_password(password, **WHO)
    assert time.thread_time() - before < 0.5
