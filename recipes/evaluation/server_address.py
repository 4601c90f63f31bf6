"""Whether what a server is sent stays on this machine and in private networks."""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from data_prep.common.errors import InputError

# Two programs may read an unusual address in two ways, so only plain ones are taken. A user or a query may hold a key,
# and results.json records the address.
_PLAIN = re.compile(
    r"https?://(?P<host>[\w.-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?(?:/[\w./~%-]*)?", re.ASCII | re.IGNORECASE
)
# This machine, RFC 1918, RFC 4193 and link-local. ``is_private`` of ``ipaddress`` is wider and differs between releases
# of Python: it has held Teredo's addresses and IPv4 addresses written as IPv6, which lead anywhere.
_PRIVATE = [
    ip_network(network)
    for network in (
        *("127.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "::/128", "fc00::/7", "fe80::/10"),
    )
]
LEAVES = (
    "the questions would leave it: for real data the schema with frequent values of patients' records, and ECG "
    "contexts. Add --allow_remote if the licence of the data permits it"
)


def check_address(url: str, allow_remote: bool) -> None:
    """Check that ``url`` is a plain address and, unless ``allow_remote``, that all addresses of its host are private.

    The name is resolved here and again at each connection: this is no protection from a name server that lies. A server
    here that passes questions on is not noticed either.

    Raises:
        InputError: it is not, or its host is not known.
    """
    host = _host(url)
    if not host:
        raise InputError(
            "--server is no plain address; give one such as http://127.0.0.1:8000/v1, without user, password and "
            "query (the key is read from OPENAI_API_KEY)"
        )
    if allow_remote:
        return  # nothing is resolved: only a proxy may know the name
    try:
        found = sorted({info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError) as error:
        raise InputError(f"--server {url}: host {host} is not known here ({error}); check the address") from error
    if outside := [address for address in found if not is_private(address)]:
        named = "" if outside == [host] else f" ({outside[0]})"
        raise InputError(f"--server {url}: {host}{named} is outside this machine and its private networks; {LEAVES}")


def _host(url: str) -> str | None:
    """The host of a plain address, without brackets; None if ``url`` is none."""
    match = _PLAIN.fullmatch(url)
    if not match or int(match["port"] or 0) > 65_535:
        return None
    host = match["host"]
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        return str(IPv4Address(host)) if re.fullmatch(r"\d+(\.\d+){3}", host) else host
    except ValueError:
        return None


def is_private(address: str) -> bool:
    """Whether an IP address is this machine's or a private network's."""
    ip = ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in _PRIVATE)
