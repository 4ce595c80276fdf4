"""The conversion of the embedded base: complete or not at all, whatever happens on the way.

Most tests give `ensure_base` a quick writer; joining and checking the package's chunks is real.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from moderation.embedded.base import (
    Report,
    base_directory,
    ensure_base,
    verify,
    write_in_child,
)
from moderation.errors import ModelUnavailable

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def write_quickly(gguf: Path, out: Path, report: Report) -> None:
    assert gguf.stat().st_size > 200_000_000, "the joined weights"
    for name in FILES:
        (out / name).write_text(name)
    report("written")


def visible(cache: Path) -> list[str]:
    """What stands in a cache apart from its lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_conversion_appears_whole_and_is_done_once(tmp_path: Path) -> None:
    told: list[str] = []
    folder = ensure_base(tmp_path / "deep" / "cache", report=told.append, write=write_quickly)
    assert folder == base_directory(tmp_path / "deep" / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS.json", *FILES]
    assert visible(folder.parent) == [folder.name]
    assert "written" in told
    before = folder.stat()
    assert ensure_base(tmp_path / "deep" / "cache", write=refuse_to_write) == folder
    assert folder.stat() == before


def refuse_to_write(gguf: Path, out: Path, report: Report) -> None:
    raise AssertionError("converted twice")


def test_the_files_of_a_shared_cache_can_be_read_by_others(tmp_path: Path) -> None:
    def write_privately(gguf: Path, out: Path, report: Report) -> None:
        write_quickly(gguf, out, report)
        (out / FILES[1]).chmod(0o600)

    folder = ensure_base(tmp_path, write=write_privately)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    folder = fake_checkpoint(tmp_path)
    (folder / name).write_text("changed")
    with pytest.raises(ModelUnavailable, match=rf"{name} has changed .*; delete .* to convert"):
        ensure_base(tmp_path, write=refuse_to_write)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS.json"])
def test_a_missing_file_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    folder = fake_checkpoint(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelUnavailable, match=r"is incomplete .*; delete it to convert"):
        ensure_base(tmp_path, write=refuse_to_write)


def test_checksums_that_leave_a_file_out_are_refused(tmp_path: Path) -> None:
    folder = fake_checkpoint(tmp_path)
    (folder / "SHA256SUMS.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"does not name config\.json"):
        verify(folder)


def fake_checkpoint(cache: Path) -> Path:
    """A directory that passes `verify`, without the half second of joining the weights."""
    from hashlib import sha256

    folder = base_directory(cache)
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    sums = {name: sha256(name.encode()).hexdigest() for name in FILES}
    (folder / "SHA256SUMS.json").write_text(json.dumps(sums))
    return folder


def test_a_cache_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ModelUnavailable, match=r"cannot write .*: Not a directory; it needs 900 MiB"
    ):
        ensure_base(tmp_path / "file" / "cache", write=refuse_to_write)


def test_a_read_only_cache_is_a_clear_error() -> None:
    """`/proc` refuses everybody, root too."""
    with pytest.raises(ModelUnavailable, match=r"cannot write .*set WARDGATE_CACHE_DIR"):
        ensure_base(Path("/proc/wardgate"), write=refuse_to_write)


def test_a_converted_base_is_read_from_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path)
    ensure_base(tmp_path, write=refuse_to_write)
    assert visible(tmp_path) == [base_directory(tmp_path).name]
    assert not list(tmp_path.glob("*.lock")), "reading takes no lock"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("megabytes", [100, 300])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, megabytes: int) -> None:
    """A limit on file sizes makes writing fail for real: of the joined weights, or of the model."""
    code = """
        import resource, sys
        from pathlib import Path
        from moderation.embedded.base import ensure_base
        from moderation.errors import ModelUnavailable

        limit = int(sys.argv[2]) * 2**20
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        def write(gguf, out, report):
            with (out / "model.safetensors").open("wb") as file:
                for _ in range(536):
                    file.write(bytes(2**20))

        try:
            ensure_base(Path(sys.argv[1]), write=write)
        except ModelUnavailable as exc:
            print(exc)
    """
    done = run_python(code, str(tmp_path), str(megabytes))
    assert done.stdout.startswith(f"cannot write the converted model to {tmp_path}: File too large")
    assert "free some space or set WARDGATE_CACHE_DIR" in done.stdout
    assert visible(tmp_path) == []


def test_a_child_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "base.gguf").write_bytes(b"GGUF, but no more")
    with pytest.raises(
        ModelUnavailable, match=r"converting Gemma 3 270M failed: \w+.*it needs 900"
    ):
        write_in_child(tmp_path / "base.gguf", tmp_path / "out", print)


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    def write_and_stop(gguf: Path, out: Path, report: Report) -> None:
        write_quickly(gguf, out, report)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_base(tmp_path, write=write_and_stop)
    assert visible(tmp_path) == []


SLOW_START = """
    import sys, time
    from pathlib import Path
    from moderation.embedded.base import ensure_base

    def write(gguf, out, report):
        (out / "model.safetensors").write_text("half")
        print("writing", flush=True)
        time.sleep(300)

    ensure_base(Path(sys.argv[1]), write=write)
"""


def test_a_killed_conversion_is_invisible_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SLOW_START), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.kill()
    (leftover,) = visible(tmp_path)
    assert leftover.endswith(".part")
    assert not base_directory(tmp_path).exists()
    folder = ensure_base(tmp_path, write=write_quickly)
    assert visible(tmp_path) == [folder.name]


def test_the_converting_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Its stdin closes when the parent dies; a child that went on would fill the disk."""
    (tmp_path / "out").mkdir()
    (tmp_path / "base.gguf").write_bytes(b"")
    code = """
        import sys, time
        from moderation.embedded import convert

        def never_done(gguf, out):
            print("started", flush=True)
            time.sleep(300)

        convert.main(never_done)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), "base.gguf", "out"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "started\n"
        child.stdin.close()
        assert child.wait(timeout=30) == 1


def test_two_processes_starting_at_once_convert_once(tmp_path: Path) -> None:
    """The real conversion is what `cache_dir` holds: the first test of a new machine that needs it
    converts it, and each load checks its golden vectors."""
    code = """
        import sys, time
        from pathlib import Path
        from moderation.embedded.base import ensure_base
        from tests.moderation.test_embedded_base import write_quickly

        def write(gguf, out, report):
            write_quickly(gguf, out, report)
            time.sleep(2)

        print(ensure_base(Path(sys.argv[1]), report=lambda what: print(what), write=write))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [child.communicate(timeout=300)[0].splitlines() for child in children]
    folder = base_directory(tmp_path)
    assert [output[-1] for output in outputs] == [str(folder)] * 2
    assert sum("written" in output for output in outputs) == 1
    assert visible(tmp_path) == [folder.name]
