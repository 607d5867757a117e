"""The vault against NIST's vectors; what it refuses and how it says so; one key file whoever starts when."""

import base64
import hashlib
import os
import stat
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.errors import ConfigError, DispatcherError, Unfit
from dispatcher.seal import vault as room
from dispatcher.seal.vault import MasterKey, Vault, VaultError, read_or_make_key_file, too_open, write_new

RAW = bytes(range(32))
KEY = MasterKey.parse(RAW.hex())
OTHER = MasterKey.parse("ff" * 32)
ABOUT = "operators/acme/token"
SECRET = b"the-token-of-acme"


# The master key


@pytest.mark.parametrize(
    "text", [RAW.hex(), RAW.hex().upper(), base64.b64encode(RAW).decode(), f"  {RAW.hex()}\r\n"], ids=range(4)
)
def test_a_master_key_is_read_from_both_spellings(text: str) -> None:
    assert MasterKey.parse(text) == KEY
    assert MasterKey.parse(KEY.reveal()) == KEY


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "replace-me", "0" * 63, "0" * 65, "0" * 62, "g" * 64, "投" * 64, "投" * 44, "\ud800", "=" * 44),
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(bytes(16)).decode(),
        base64.b64encode(RAW).decode().rstrip("="),
        "!" + base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        " ".join(f"{one:02x}" for one in RAW),
    ],
)
def test_what_is_no_master_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(Unfit) as refused:
        MasterKey.parse(text)
    assert refused.value.mend == "`dispatcher init` makes one"
    assert not text.strip() or text.strip() not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_master_key_is_not_printed_by_accident() -> None:
    for shown in (repr(KEY), str(KEY), f"{KEY}", f"{KEY!r}", repr([KEY]), repr({"key": KEY}), repr(Vault(KEY))):
        assert RAW.hex() not in shown
        assert KEY.reveal() not in shown
        assert repr(RAW)[2:20] not in shown
    assert repr(KEY) == f"MasterKey({KEY.key_id})"


def test_a_master_keys_id_tells_it_from_the_next_and_is_no_part_of_it() -> None:
    assert KEY.key_id == MasterKey.parse(RAW.hex()).key_id != OTHER.key_id
    assert len(KEY.key_id) == 8
    assert set(KEY.key_id) <= set("0123456789abcdef")
    assert KEY.key_id not in RAW.hex()
    # Nobody finds it in a table of hashes that were made for something else.
    assert KEY.key_id != hashlib.blake2b(RAW, digest_size=4).hexdigest()


def test_a_master_keys_id_stays_what_it_is_or_nothing_that_was_stored_could_be_found() -> None:
    assert KEY.key_id == hashlib.blake2b(RAW, digest_size=4, person=b"master-key-id").hexdigest() == "ea014bb0"


def test_each_fresh_master_key_is_another() -> None:
    keys = [MasterKey.fresh() for _ in range(20)]
    assert len({key.reveal() for key in keys}) == len({key.key_id for key in keys}) == 20
    assert all(MasterKey.parse(key.reveal()) == key for key in keys)


# Lock and unlock


@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_was_locked_is_unlocked_for_what_it_belongs_to(plaintext: bytes, about: str) -> None:
    vault = Vault(KEY)
    assert vault.unlock(vault.lock(plaintext, about), about) == plaintext
    assert Vault(OTHER, KEY).unlock(vault.lock(plaintext, about), about) == plaintext


def test_a_sealed_text_is_the_keys_id_and_base64url_of_nonce_ciphertext_and_tag() -> None:
    key_id, _, text = Vault(KEY).lock(SECRET, ABOUT).partition(".")
    assert key_id == KEY.key_id
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert len(raw) == 12 + len(SECRET) + 16
    assert AESGCM(RAW).decrypt(raw[:12], raw[12:], ABOUT.encode()) == SECRET


def nist() -> Iterator[dict[str, bytes]]:
    """NIST's vectors for AES-256-GCM with a nonce of 96 bits and a tag of 128 whose additional data is text."""
    with cryptography_vectors.open_vector_file("ciphers/AES/GCM/gcmDecrypt256.rsp", "r") as file:
        text: str = file.read()
    for section in text.split("[Keylen = 256]")[1:]:
        if "[IVlen = 96]" in section and "[Taglen = 128]" in section:
            for block in section.split("\n\n"):
                pairs = [row.partition(" = ") for row in block.splitlines() if " = " in row and not row.startswith("[")]
                vector = {name: value.strip() for name, _, value in pairs}
                if "Count" in vector and "FAIL" not in block and not vector["AAD"]:
                    names = ("Key", "IV", "CT", "Tag", "PT")
                    yield {name: bytes.fromhex(vector[name]) for name in names}


def test_nists_vectors_are_unlocked_to_the_letter() -> None:
    vectors = list(nist())
    assert len(vectors) >= 10
    for vector in vectors:
        key = MasterKey.parse(vector["Key"].hex())
        text = base64.urlsafe_b64encode(vector["IV"] + vector["CT"] + vector["Tag"]).decode().rstrip("=")
        assert Vault(key).unlock(f"{key.key_id}.{text}", "") == vector["PT"]


def test_the_same_secret_is_another_text_each_time() -> None:
    vault = Vault(KEY)
    sealed = {vault.lock(b"the same", ABOUT) for _ in range(50)}
    assert len({text[9:25] for text in sealed}) == 50
    assert {vault.unlock(text, ABOUT) for text in sealed} == {b"the same"}


def told(vault: Vault, sealed: str, about: str = ABOUT) -> str:
    """Why it isn't opened; nothing of the secret, the text or the key is in the error's whole trace."""
    with pytest.raises(VaultError) as refused:
        vault.unlock(sealed, about)
    assert isinstance(refused.value, DispatcherError)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    trace = "".join(traceback.format_exception(refused.value))
    assert SECRET.decode() not in trace
    assert KEY.reveal() not in trace
    assert len(sealed) < 20 or sealed[9:] not in trace
    return str(refused.value)


def test_a_sealed_text_that_was_moved_to_another_row_is_refused() -> None:
    sealed = Vault(KEY).lock(SECRET, ABOUT)
    for elsewhere in ("operators/brook/token", "", ABOUT + " ", ABOUT.upper()):
        assert told(Vault(KEY), sealed, elsewhere) == (
            "it was changed since it was sealed, or was sealed for another place;"
            " put back what stood there, or set it anew"
        )


@given(st.data())
def test_no_character_of_a_sealed_text_can_be_changed(data: st.DataObject) -> None:
    vault = Vault(KEY, OTHER)
    sealed = vault.lock(data.draw(st.binary(max_size=20)), ABOUT)
    place = data.draw(st.integers(0, len(sealed) - 1))
    sign = data.draw(st.characters().filter(lambda one: one != sealed[place]))
    assert told(vault, sealed[:place] + sign + sealed[place + 1 :])


@pytest.mark.parametrize("size", range(3))
def test_a_sealed_text_has_one_spelling(size: int) -> None:
    """The last character has bits that decode to nothing: two spellings would be one text to AES, two to a database."""
    vault = Vault(KEY)
    sealed = vault.lock(b"x" * size, ABOUT)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    assert all(told(vault, sealed[:-1] + sign) for sign in letters if sign != sealed[-1])
    assert told(vault, sealed + "=" * (-len(sealed[9:]) % 4 or 4))


def test_a_sealed_text_under_a_key_that_is_not_given_names_the_key_and_where_to_give_it() -> None:
    sealed = Vault(KEY).lock(SECRET, ABOUT)
    assert told(Vault(OTHER), sealed) == (
        f"it is sealed under master key {KEY.key_id}, which is not given;"
        " give it as secrets.master_key or secrets.former_master_key"
    )


def test_a_sealed_text_that_claims_another_key_than_its_own_is_refused() -> None:
    sealed = Vault(KEY).lock(SECRET, ABOUT)
    assert "was changed" in told(Vault(KEY, OTHER), OTHER.key_id + sealed[8:])


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "00000000", "00000000.", "00000000.AAAA", "00000000." + "A" * 37, "投" * 50, "\ud800"),
        *("GGGGGGGG." + "A" * 40, "00000000." + "A" * 40 + "\n", "00000000 " + "A" * 40, "0000000." + "A" * 40),
        SECRET.decode(),
    ],
)
def test_what_is_no_sealed_text_is_refused_and_not_shown(text: str) -> None:
    said = told(Vault(KEY), text)
    assert said == "it is no sealed text, or was cut off; put back what stood there, or set it anew"


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{8}\.[A-Za-z0-9_-]{0,60}", fullmatch=True))
def test_any_text_is_refused_as_a_vault_error(text: str) -> None:
    with pytest.raises(VaultError):
        Vault(KEY, OTHER).unlock(text, ABOUT)


@pytest.mark.parametrize("length", range(1, 46))
def test_a_sealed_text_that_was_cut_off_is_refused(length: int) -> None:
    sealed = Vault(KEY).lock(SECRET, ABOUT)
    assert told(Vault(KEY), sealed[:length])


# The exchange of the master key


def test_after_the_exchange_the_former_key_opens_and_the_current_one_locks() -> None:
    old, new = Vault(KEY), Vault(OTHER, KEY)
    sealed = old.lock(SECRET, ABOUT)
    assert (old.current_id, new.current_id) == (KEY.key_id, OTHER.key_id)
    assert old.is_current(sealed)
    assert not new.is_current(sealed)
    again = new.lock(new.unlock(sealed, ABOUT), ABOUT)
    assert new.is_current(again)
    assert Vault(OTHER).unlock(again, ABOUT) == SECRET


def test_what_is_no_sealed_text_is_not_current() -> None:
    assert not any(Vault(KEY).is_current(text) for text in ("", "投", KEY.key_id, SECRET.decode()))


def test_the_same_key_as_current_and_former_is_one_key() -> None:
    vault = Vault(KEY, KEY, OTHER)
    assert vault.unlock(vault.lock(SECRET, ABOUT), ABOUT) == SECRET


def test_the_key_schedule_is_made_once_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []

    def counted(raw: bytes) -> AESGCM:
        made.append(raw)
        return AESGCM(raw)

    monkeypatch.setattr(room, "AESGCM", counted)
    vault = Vault(KEY, OTHER)
    for _ in range(5):
        vault.unlock(vault.lock(SECRET, ABOUT), ABOUT)
    assert sorted(made) == [RAW, b"\xff" * 32]


def test_several_threads_use_one_vault() -> None:
    vault = Vault(KEY)

    def there_and_back(number: int) -> bool:
        text = f"{number}" * 100
        return all(vault.unlock(vault.lock(text.encode(), text), text) == text.encode() for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(32)))


# The key's file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


def alone(file: Path) -> bool:
    """Nothing but this file is in its folder."""
    return [one.name for one in file.parent.iterdir()] == [file.name]


def test_a_key_file_is_made_once_for_its_owner_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        key = read_or_make_key_file(file, make=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == key.reveal() + "\n"
    assert read_or_make_key_file(file, make=True) == read_or_make_key_file(file, make=False) == key
    assert alone(file)


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("text", [RAW.hex(), f"\n  {base64.b64encode(RAW).decode()}\r\n\n"])
def test_a_key_file_that_was_written_by_hand_is_read_and_left_as_it_is(file: Path, text: str, make: bool) -> None:
    file.write_bytes(text.encode())
    assert read_or_make_key_file(file, make=make) == KEY
    assert file.read_bytes() == text.encode()


def refused(file: Path, *, make: bool) -> str:
    with pytest.raises(ConfigError) as error:
        read_or_make_key_file(file, make=make)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    (fault,) = error.value.faults
    assert fault.where == str(file)
    return str(fault)


def test_a_missing_key_file_is_not_replaced_where_something_is_stored_under_it(file: Path) -> None:
    told = f"{file}: is missing: without it what is stored can't be read; put the file back, or name the one that has"
    assert refused(file, make=False).startswith(f"{told} the key in secrets.master_key_file (`dispatcher init` makes")
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("make", [True, False])
def test_a_link_to_a_volume_that_is_not_there_is_a_missing_key_file(file: Path, make: bool) -> None:
    file.symlink_to(file.parent / "volume" / "key")
    assert "is missing" in refused(file, make=make)
    assert file.is_symlink()
    assert alone(file)


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("content", [b"", b"\n", b"replace-me", RAW, "投".encode() * 20, b"\xff" * 44])
def test_an_unfit_key_file_is_refused_and_neither_shown_nor_replaced(file: Path, content: bytes, make: bool) -> None:
    file.write_bytes(content)
    said = refused(file, make=make)
    assert "is no master key" in said
    assert "put the right file back" in said
    assert "replace-me" not in said
    assert file.read_bytes() == content


@pytest.mark.parametrize("make", [True, False])
def test_a_key_file_that_cannot_be_read_is_refused_with_the_systems_reason(file: Path, make: bool) -> None:
    file.mkdir()
    assert "can't be read (Is a directory)" in refused(file, make=make)


def test_a_key_file_that_cannot_be_made_is_refused_with_the_systems_reason(tmp_path: Path) -> None:
    assert "can't be made (No such file or directory)" in refused(tmp_path / "nowhere" / "master.key", make=True)


@pytest.mark.parametrize(
    ("mode", "open_"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o601, True)]
)
def test_a_key_file_that_others_can_read_is_told(file: Path, mode: int, open_: bool) -> None:
    file.write_text(RAW.hex())
    file.chmod(mode)
    assert too_open(file) is open_


def test_processes_that_start_at_once_end_with_one_key(file: Path) -> None:
    start = threading.Barrier(16)

    def begin(_: int) -> str:
        start.wait(60)
        return read_or_make_key_file(file, make=True).reveal()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(begin, range(16))) == {file.read_text().strip()}
    assert alone(file)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk and gets a name, in its order."""
    seen: list[str] = []

    def watch(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            seen.append("fsync folder" if folder else name)
            return act(*arguments)

        return call

    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, watch(name, getattr(os, name)))
    return seen


def test_a_key_is_on_disk_before_its_name_and_its_name_before_anybody_has_it(file: Path, steps: list[str]) -> None:
    write_new(file, "text")
    assert steps == ["fsync", "link", "fsync folder"]


def test_who_comes_second_takes_the_winners_key_and_sees_it_on_disk_first(
    file: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def too_late(source: Path, target: Path) -> None:
        """The winner has just made its file, and its folder isn't on disk yet."""
        file.write_text(KEY.reveal())
        link(source, target)

    monkeypatch.setattr(os, "link", too_late)
    assert read_or_make_key_file(file, make=True) == KEY
    assert steps == ["fsync", "link", "fsync folder"]
    assert alone(file)


def test_who_comes_right_after_sees_the_winners_key_on_disk_first(file: Path, steps: list[str]) -> None:
    file.write_text(KEY.reveal())
    assert read_or_make_key_file(file, make=True) == KEY
    assert steps == ["fsync folder"]


def test_a_key_in_a_folder_that_cannot_be_opened_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(KEY.reveal())

    def forbidden(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "fsync", forbidden)
    assert read_or_make_key_file(file, make=True) == KEY


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_full_disk_leaves_no_half_written_key(file: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        assert "can't be made (No space left on device)" in refused(file, make=True)
    assert not list(file.parent.iterdir())
    assert read_or_make_key_file(file, make=True)


def test_what_stands_there_is_never_overwritten(file: Path) -> None:
    file.write_text("theirs")
    with pytest.raises(FileExistsError):
        write_new(file, "ours")
    assert file.read_text() == "theirs"
    assert alone(file)
