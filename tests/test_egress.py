"""Which addresses may be called: the public internet in every way of writing it, and nothing else unasked."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.egress import may_call, parse_address
from tests.ground import acme_with, config_with, faults_of

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2400:cb00::1",
    "::ffff:8.8.8.8",
]

NOT_PUBLIC = {
    "this network": ["0.0.0.0", "0.1.2.3", "0.255.255.255"],
    "loopback": ["127.0.0.1", "127.0.0.2", "127.255.255.255", "::1"],
    "private": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf::1", "fe80::1%eth0"],
    "metadata": ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "169.254.170.2", "100.100.100.200"],
    "carrier-grade NAT": ["100.64.0.0", "100.64.0.1", "100.127.255.255"],
    "protocol assignments": ["192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.255"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1"],
    "6to4 relay": ["192.88.99.1"],
    "benchmarking": ["198.18.0.0", "198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "250.1.2.3", "255.255.255.254", "255.255.255.255"],
    "unspecified": ["::"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:192.168.1.1", "::ffff:0.0.0.0"],
    "compatible": ["::127.0.0.1", "::7f00:1", "::10.0.0.1", "::8.8.8.8"],
    "translated": ["::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::1"],
    "Teredo": ["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ORCHID": ["2001:10::1", "2001:20::1"],
    "unique local": ["fc00::1", "fd12:3456:789a::1", "fdff:ffff::1"],
    "site-local": ["fec0::1", "feff::1"],
    "discard": ["100::1", "100:0:0:1::1"],
    "segment routing": ["5f00::1"],
}


def url_faults(url: str, allow: str = "[]") -> list[str]:
    """The faults of a configuration with this notice_url."""
    text = acme_with("").replace("https://acme.example/Demo/notice", url.replace("\\", "\\\\"))
    return [str(fault) for fault in faults_of(f"egress.allow = {allow}\n{text}").values()]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_called(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert may_call(address, ())


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in NOT_PUBLIC.items() for text in texts])
def test_an_address_that_is_not_on_the_public_internet_may_not_be_called(kind: str, text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not may_call(address, ()), f"{kind} {text}"


@pytest.mark.parametrize(
    ("allow", "text", "may"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("127.0.0.0/8", "10.0.0.1", False),
        ("10.1.0.0/16", "10.1.255.255", True),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("169.254.169.254/32", "169.254.169.254", True),
        ("169.254.169.254/32", "169.254.169.253", False),
        ("::1/128", "::1", True),
        ("::1/128", "127.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fc00::1", False),
        ("64:ff9b::/96", "64:ff9b::127.0.0.1", True),
        ("10.0.0.0/8", "8.8.8.8", True),
    ],
)
def test_what_is_allowed_by_name_may_be_called_and_no_more(allow: str, text: str, may: bool) -> None:
    address = parse_address(text)
    assert address is not None
    assert may_call(address, [ip_network("192.0.2.0/24"), ip_network(allow)]) is may


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_mapped_into_ipv6_is_judged_as_itself(address: object) -> None:
    plain, mapped = parse_address(str(address)), parse_address(f"::ffff:{address}")
    assert plain is not None
    assert plain == mapped


@pytest.mark.parametrize("network", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16"])
@given(data=st.data())
def test_no_address_of_a_private_network_may_be_called(network: str, data: st.DataObject) -> None:
    address = parse_address(str(data.draw(st.ip_addresses(network=network))))
    assert address is not None
    assert not may_call(address, ())


@pytest.mark.parametrize("text", ["acme.example", "", "1.2.3", "0177.0.0.1", "2130706433", "0x7f.1", "1.2.3.4.5", ":"])
def test_what_is_no_address_is_a_name(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("text", ["8.8.8.8%41", "1.1.1.1%00.acme.example", "1.1.1.1%"])
def test_a_percent_sign_belongs_to_no_ipv4_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.example/Demo/notice",
        "https://ACME.example/",
        "https://acme.example:8443/notice?game=1",
        "https://xn--fiq228c.example/notice",
        "https://a_b.example/notice",
        "https://8.8.8.8/notice",
        "https://[2001:4860:4860::8888]:443/notice",
        "https://[::ffff:8.8.8.8]/notice",
        "https://10.acme.example/notice",
        "http://acme.example/notice",
    ],
)
def test_a_url_that_means_the_same_to_everyone_is_taken(url: str) -> None:
    assert url_faults(url) == []


@pytest.mark.parametrize(
    "url",
    [
        *("https://2130706433/", "https://017700000001/", "https://0x7f000001/", "https://0X7F.0.0.1/"),
        *("https://0177.0.0.1/", "https://127.1/", "https://127.0.1/", "https://0/", "https://0x/", "https://1.1.1/"),
        *("https://127.0.0.0x1/", "https://00000177.0.0.1/", "https://8.8.8.8.8/", "https://acme.example.1/"),
        *("https://256.1.1.1/", "https://134744072/", "https://010.8.8.8/"),
        *("https://user@acme.example/", "https://user:geheim@acme.example/", "https://@acme.example/"),
        *("https://8.8.8.8@127.0.0.1/", "https://acme.example:x@127.0.0.1/", "https://127.0.0.1\\@acme.example/"),
        *("https://acme。example/", "https://acme．example/", "https://acme｡example/", "https://127。0。0。1/"),
        *("https://１２７.0.0.1/", "https://①②⑦.0.0.1/", "https://中文.example/", "https://аcme.example/"),
        *("https://acme.example./", "https://127.0.0.1./", "https://acme..example/", "https://.acme.example/"),
        *("https://%31%32%37.0.0.1/", "https://127.0.0.1%2f/", "https://acme%2eexample/", "https://acme.example%00/"),
        *("https://8.8.8.8%41/", "https://1.1.1.1%00.acme.example/", "https://[2606:4700::1%25eth0]/"),
        *("https://[v1.acme]/", "https://[acme.example]/", "https://[8.8.8.8]/", "https://[::1/", "https://::1/"),
        *("https://acme.example:0/", "https://acme.example:65536/", "https://acme.example:port/"),
        *("https:///notice", "https:acme.example", "https://", "//acme.example/", "acme.example", "", "/notice"),
        *("ftp://acme.example/", "file:///etc/passwd", "gopher://acme.example/", "javascript:1", "unix:///socket"),
        *(
            "https://acme.example/通知",
            "https://acme.example/#a",
            "https://acme example/",
            " https://acme.example/",
            "https://acme.example/\\tb",
        ),
        *("https://-acme.example/", "https://acme-.example/", "https://acme$.example/", "https://acme;b.example/"),
    ],
)
def test_a_url_that_could_mean_two_things_is_refused_at_configuration(url: str) -> None:
    (fault,) = url_faults(url.replace("\\t", "\t"))
    assert fault.startswith("operators.acme.notice_url: ")
    assert "geheim" not in fault


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"),
        *("[::1]", "[::ffff:127.0.0.1]", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        "[::127.0.0.1]",
    ],
)
def test_a_url_with_an_address_outside_the_public_internet_is_refused_with_what_to_allow(host: str) -> None:
    (fault,) = url_faults(f"https://{host}:8443/notice")
    assert "is not on the public internet" in fault
    assert "egress.allow" in fault
    everything = '["0.0.0.0/0", "::/0"]'
    assert url_faults(f"https://{host}:8443/notice", everything) == []


LITERALS = [text for texts in NOT_PUBLIC.values() for text in texts if "%" not in text]


@pytest.mark.parametrize("text", LITERALS)
@pytest.mark.parametrize("key", ["notice_url", "callback_url", "oauth.token_url"])
def test_each_such_address_in_any_url_is_refused_with_its_key_and_what_to_allow(text: str, key: str) -> None:
    address = parse_address(text)
    url = f"https://{f'[{text}]' if ':' in text else text}:8443"
    given = f'{key} = "{url}"' if key != "oauth.token_url" else ""
    oauth = (
        f'oauth = {{ token_url = "{url}", client_id = "a", client_secret = "b" }}\nauth = "oauth2"' if not given else ""
    )
    acme = acme_with(f"{given}\n{oauth}")
    acme = acme.replace('notice_url = "https://acme.example/Demo/notice"\n', "") if key == "notice_url" else acme
    acme = acme.replace('token = "the-token-of-acme"\n', "") if oauth else acme
    faults = faults_of(acme)
    assert list(faults) == [f"operators.acme.{key}"]
    assert faults[f"operators.acme.{key}"].fault == f"{address} is not on the public internet"
    assert faults[f"operators.acme.{key}"].mend == f'if it is meant, add it to egress.allow, like ["{address}"]'
    assert faults_of(f'egress.allow = ["{address}"]\n{acme}') == {}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "Localhost", "a.localhost", "acme.example.localhost"])
def test_a_name_of_this_machines_own_is_refused_unless_its_address_is_allowed(host: str) -> None:
    (fault,) = url_faults(f"http://{host}:8080/")
    assert "is not on the public internet" in fault
    assert 'egress.allow, like ["127.0.0.1"]' in fault
    assert url_faults(f"http://{host}:8080/", '["10.0.0.0/8"]') == [fault]
    for allow in ("127.0.0.1", "127.0.0.0/8", "::1"):
        assert url_faults(f"http://{host}:8080/", f'["{allow}"]') == []


@pytest.mark.parametrize("host", ["localhost.example", "localhosts", "mylocalhost", "localhost-1.example"])
def test_a_name_that_only_looks_like_this_machines_own_is_any_name(host: str) -> None:
    assert url_faults(f"https://{host}/") == []


def test_a_url_that_our_own_client_could_not_read_is_refused_at_configuration() -> None:
    (fault,) = url_faults(f"https://acme.example/{'a' * 70_000}")
    assert "write at most 4096" in fault
    assert url_faults(f"https://acme.example/{'a' * 4_000}") == []


@pytest.mark.parametrize(
    ("allow", "inside", "beside"),
    [
        ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
        ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
        ("169.254.169.254/32", "169.254.169.254", "169.254.169.253"),
        ("fd12::/64", "[fd12::ffff]", "[fd12:0:0:1::]"),
        ("192.168.0.0/24", "[::ffff:192.168.0.1]", "[::ffff:192.168.1.1]"),
        ("127.0.0.0/8", "127.9.9.9", "[::1]"),
    ],
)
def test_what_is_allowed_is_taken_at_configuration_and_its_neighbour_is_not(
    allow: str, inside: str, beside: str
) -> None:
    assert url_faults(f"https://{inside}/", f'["{allow}"]') == []
    assert url_faults(f"https://{beside}/", f'["{allow}"]') != []


def test_what_the_fault_says_to_allow_is_enough() -> None:
    (fault,) = url_faults("https://[fd00::1]/notice")
    assert 'like ["fd00::1"]' in fault
    assert url_faults("https://[fd00::1]/notice", '["fd00::1"]') == []


def test_what_is_allowed_is_kept_in_the_configuration() -> None:
    config = config_with('egress.allow = ["127.0.0.0/8", "::1/128"]\n' + acme_with(""))
    assert config.allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
