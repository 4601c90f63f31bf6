"""Questions leave this machine and its private networks only with --allow_remote."""

import ipaddress
import socket

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from data_prep.common.errors import InputError
from recipes.evaluation.server_address import check_address, is_private

RFC_1918 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
PRIVATE_NETWORKS = (*RFC_1918, "127.0.0.0/8", "169.254.0.0/16", "fc00::/7", "fe80::/10")


def url(ip) -> str:
    return f"http://[{ip}]:8000/v1" if ip.version == 6 else f"http://{ip}:8000/v1"


@given(st.sampled_from(PRIVATE_NETWORKS).flatmap(lambda network: st.ip_addresses(network=network)))
def test_private_addresses_are_taken(ip):
    check_address(url(ip), allow_remote=False)


@given(st.ip_addresses())
@example(ipaddress.ip_address("8.8.8.8"))
@example(ipaddress.ip_address("172.15.255.255"))
@example(ipaddress.ip_address("172.32.0.0"))
@example(ipaddress.ip_address("11.0.0.0"))
@example(ipaddress.ip_address("2606:4700:4700::1111"))
def test_global_addresses_are_refused_and_taken_with_allow_remote(ip):
    assume(ip.is_global)
    with pytest.raises(InputError, match=r"is outside this machine .* the questions would leave it.* --allow_remote"):
        check_address(url(ip), allow_remote=False)
    check_address(url(ip), allow_remote=True)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_written_as_ipv6_is_what_it_is(ip):
    assert is_private(f"::ffff:{ip}") == is_private(str(ip))


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("::1", True),
        ("0.0.0.0", True),  # vLLM prints it; connections to it stay here
        ("::ffff:127.0.0.1", True),
        ("fe80::1%lo", True),
        ("::ffff:8.8.8.8", False),
        ("100.64.0.1", False),  # shared by a provider's customers
        ("2001:0:808:808::1", False),  # Teredo: an IPv4 address of anywhere
        ("2002:808:808::1", False),  # 6to4
        ("64:ff9b::808:808", False),  # NAT64
        ("64:ff9b:1::808:808", False),
        ("203.0.113.7", False),
        ("255.255.255.255", False),
    ],
)
def test_unusual_addresses(address, private):
    assert is_private(address) == private


def resolve_to(monkeypatch, *addresses: str) -> None:
    def getaddrinfo(host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_all_addresses_of_a_name_must_be_private(monkeypatch):
    resolve_to(monkeypatch, "10.0.0.7", "192.168.1.1")
    check_address("http://gpu.hospital.example/v1", allow_remote=False)
    resolve_to(monkeypatch, "10.0.0.7", "93.184.216.34")
    with pytest.raises(InputError, match=r"gpu\.hospital\.example \(93\.184\.216\.34\) is outside"):
        check_address("http://gpu.hospital.example/v1", allow_remote=False)


def test_an_unknown_name_is_refused_and_looked_up_by_nobody_with_allow_remote(monkeypatch):
    def fail(host, port, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InputError, match=r"host absent\.example is not known here \(.*not known\); check the address"):
        check_address("http://absent.example/v1", allow_remote=False)
    check_address("https://absent.example/v1", allow_remote=True)  # a proxy may know it


def test_numbers_that_the_system_reads_as_an_address_are_judged_as_that_address():
    check_address("http://2130706433:8000/v1", allow_remote=False)  # 127.0.0.1
    with pytest.raises(InputError, match=r"134744072 \(8\.8\.8\.8\) is outside"):
        check_address("http://134744072/v1", allow_remote=False)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:8000/v1", "localhost", "", "ftp://127.0.0.1/v1", "http://", "http:///v1", "file:///etc/passwd"),
        *("http://user:secret@127.0.0.1/v1", "http://127.0.0.1@evil.example/v1", r"http://127.0.0.1\@evil.example/v1"),
        *("http://127.0.0.1/v1?key=secret", "http://127.0.0.1/v1#secret", "http://127.0.0.1 .evil.example/v1"),
        *("http://127.0.0.1/v1\n", "http://127.0.0.1\t/v1", "http://１２７.0.0.1/v1", "http://127.0.0.1:port/v1"),
        *(
            "http://127.0.0.1:99999/v1",
            "http://[::::]/v1",
            "http://[127.0.0.1]/v1",
            "http://127.0.0.01/v1",
            "http://0.0.0/v1:",
        ),
    ],
)
@pytest.mark.parametrize("allow_remote", [False, True])
def test_only_plain_addresses_are_taken_and_no_secret_is_repeated(address, allow_remote):
    with pytest.raises(InputError, match="--server is no plain address; give one such as http://127") as raised:
        check_address(address, allow_remote)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text())
def test_no_text_gets_past_by_accident(text):
    with pytest.raises(InputError):
        check_address(f"http://{text}@127.0.0.1/v1", allow_remote=False)
