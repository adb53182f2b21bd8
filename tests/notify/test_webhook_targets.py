"""Where webhooks may go."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.notify import target
from gristmill.notify.addresses import AllowedHosts, is_public
from gristmill.notify.target import TargetRefused
from gristmill.user_error import UserError

#: Each another way to write, or to reach, what is not public.
REFUSED = """
http://127.0.0.1/ http://127.1/ http://0x7f.1/ http://0x7f000001/ http://2130706433/ http://0177.0.0.1/
http://0/ http://１２７.０.０.１/ http://127。0。0。1/ http://127.0.0.1./ http://%31%32%37.0.0.1/ http://127%2e0.0.1/
http://1.1.1.1.1/ http://[::1]/ http://[::]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/
http://[::127.0.0.1]/ http://[::ffff:0:127.0.0.1]/ http://[64:ff9b::7f00:1]/ http://[64:ff9b::10.0.0.1]/
http://[64:ff9b:1::7f00:1]/ http://[2002:7f00:1::]/ http://[2001::1]/ http://[fe80::1]/
http://[fe80::1%25eth0]/ http://[fe80::1%eth0]/ http://[fec0::1]/ http://[fd00:ec2::254]/ http://[ff02::1]/
http://[2001:db8::1]/ http://0.0.0.0/ http://10.0.0.1/ http://172.16.0.1/ http://192.168.1.1/
http://169.254.169.254/latest/meta-data http://168.63.129.16/ http://100.100.100.200/ http://192.0.0.192/
http://198.18.0.1/ http://192.0.2.1/ http://224.0.0.1/ http://240.0.0.1/ http://255.255.255.255/
http://localhost/ http://LOCALHOST./ http://a.localhost/ http://ⓛocalhost/ http://u:p@a.example/
http://127.0.0.1:80@a.example/ http://a@b@c/ http://a.example/#x http://a.example:0/ http://a.example:99999/
http://a.example:25/ http://a.example:443a/ http://a.example:80:80/ http://a..b/ http://-a.b/ http://[::1
http:///x //a.example a.example ftp://a.example file:///etc/passwd javascript:alert(1)
""".split()  # noqa: SIM905
ODD = [
    "",
    "http://a b/",
    "http://a.example\\@127.0.0.1/",
    "http:/\\127.0.0.1",
    "http://a.example\n/",
    "http://loca\u200bl/",
]
TAKEN = {
    "https://a.example/hook?x=1": "https://a.example:443",
    "https://A.EXAMPLE.:8443/": "https://a.example:8443",
    "http://8.8.8.8/": "http://8.8.8.8:80",
    "http://[2606:4700::1111]:8080/x": "http://[2606:4700::1111]:8080",
    "http://[64:ff9b::8.8.8.8]/": "http://[64:ff9b::808:808]:80",
    "https://bücher.example/ü": "https://xn--bcher-kva.example:443",
    "http://a_b.example/": "http://a_b.example:80",
}


def check(url: str, *allowed: str) -> target.Target:
    found = target.read(url)
    target.check(found, AllowedHosts.of(allowed))
    return found


@pytest.mark.parametrize("url", [*REFUSED, *ODD])
def test_what_is_no_url_of_a_public_host_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(TargetRefused, match=r"\.$"):
        check(url)


@pytest.mark.parametrize("url", TAKEN)
def test_public_hosts_are_taken_and_grouped_by_where_they_are(url: str) -> None:
    assert check(url).origin == TAKEN[url]


@given(st.text())
def test_nothing_that_is_given_as_a_url_fails_otherwise(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.example:{text}", f"https://[{text}]/"):
        try:
            found = check(url)
        except TargetRefused:
            continue
        assert found.url.startswith(("http://", "https://")) and found.host


@given(st.ip_addresses(v=4) | st.sampled_from([ip_address("127.0.0.1"), ip_address("8.8.8.8")]))
def test_an_ipv4_address_is_the_same_whatever_it_is_written_as(address: IPv4Address) -> None:
    number = int(address)
    others = [0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80]
    assert {is_public(IPv6Address(each)) for each in others} == {is_public(address)}


@pytest.mark.parametrize(
    ("entry", "taken", "refused"),
    [
        (
            "127.0.0.1",
            ["http://127.0.0.1:9/", "http://[::ffff:127.0.0.1]/", "http://localhost/"],
            ["http://127.0.0.2/"],
        ),
        ("127.0.0.1:9000", ["http://127.0.0.1:9000/"], ["http://127.0.0.1:9001/", "http://127.0.0.1/"]),
        ("10.0.0.0/8", ["http://10.1.2.3/"], ["http://11.0.0.1:25/", "http://192.168.0.1/", "http://10.1/"]),
        ("fd00::/8", ["http://[fd00::1]/"], ["http://[fe80::1]/"]),
        ("[::1]:9000", ["http://[::1]:9000/"], ["http://[::1]:9001/"]),
        ("localhost", ["http://localhost:9/", "http://localhost./"], ["http://127.0.0.1/", "http://a.localhost/"]),
        ("Mail.Example:25", ["http://mail.example:25/"], ["http://mail.example:26/"]),
        ("*", ["http://127.0.0.1:22/", "http://[::1]/", "http://a.localhost/"], ["http://0x7f.1/", "ftp://a.example/"]),
    ],
)
def test_what_is_allowed_is_taken_and_nothing_beside_it(entry: str, taken: list[str], refused: list[str]) -> None:
    for url in taken:
        check(url, entry)
    for url in refused:
        with pytest.raises(TargetRefused):
            check(url, entry)


@pytest.mark.parametrize(
    "entry", ["", "http://a.example", "a b", "10.0.0.1/8", "a:0", "a:99999", "0x7f.1", "[::1", "1:2:3"]
)
def test_what_cannot_be_allowed_is_told(entry: str) -> None:
    with pytest.raises(UserError, match="--allow-webhook-host takes a name"):
        AllowedHosts.of([entry])


def test_a_password_in_a_query_is_not_shown() -> None:
    assert target.shown("https://a.example/x?token=secret") == "https://a.example/x?..."
    assert target.shown("https://a.example/x") == "https://a.example/x"
