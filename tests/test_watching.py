"""What docs/watching.md says is typed into a shell, and does it."""

from pathlib import Path

from tests.test_docs import ORDER, ROOT, blocks, commands, desk

PAGE = (ROOT / "docs" / "watching.md").read_text("utf-8")


def test_the_pages_commands_do_what_it_says(tmp_path: Path) -> None:
    typed = [command for block in blocks(PAGE, "sh") for command in commands(block)]
    assert len(typed) == 8
    with desk(tmp_path, "retry = { delays = [] }\n") as place:
        place.type("dispatcher run &")
        place.type("dispatcher enqueue spins.ndjson")
        place.wait("dead")
        said = {}
        for command in typed:
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            said[command] = done.stdout
    assert "Booked: no" in said[f"dispatcher explain acme {ORDER}"]
    assert "1 " in said["dispatcher stats"]


def test_the_page_is_not_longer_than_a_reader_likes() -> None:
    assert len(PAGE.encode()) < 9_000
