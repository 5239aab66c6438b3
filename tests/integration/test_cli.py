"""The command line in a process of its own: help, bad input, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gossamer.cli import main
from gossamer.cli import one_line as told_in_one_line
from gossamer.errors import GossamerWarning


def gossamer(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::UserWarning:gossamer", "-m", "gossamer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)  # type: ignore[call-overload]


def one_line(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What the command says, asked in this process through the door that the console script takes."""
    ended = main(arguments)
    errors = capfd.readouterr().err
    assert ended == code, errors
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    return lines[0]


def test_help_lists_the_verbs_and_is_light() -> None:
    result = gossamer("--help")
    assert result.returncode == 0
    assert "demo" in result.stdout
    code = "import sys; from gossamer.cli import main; main(['--help']); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith("False")


def test_no_verb_prints_help() -> None:
    said = gossamer()
    assert "Usage" in said.stdout + said.stderr


def test_an_unknown_option_leaves_with_2() -> None:
    assert gossamer("demo", "--sed", "1").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sum", "36-28"], "sum '36-28': expected two numbers and a plus sign. Write for example 36+28"),
        (
            ["--sum", "136+28"],
            "sum '136+28': expected operands of at most 2 digits. Write for example 36+28",
        ),
        (["--digits", "9"], "digits=9 is out of range: expected 1 to 3. Pass a value in that range"),
        (["--steps", "0"], "steps=0 is out of range: expected 1 to 10000000. Pass a value in that range"),
        (
            ["--ceiling", "mse=1"],
            "ceiling kind='mse' is not known: expected one of kl, delta_ce, loss, fvu, cosine, pairwise. "
            "Choose one of them",
        ),
    ],
)
def test_bad_input_is_one_line_and_2(
    arguments: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert one_line(capfd, "demo", "--out", str(tmp_path / "out"), *arguments) == f"gossamer: {said}."
    assert not (tmp_path / "out" / "report.json").exists()


def test_an_unwritable_folder_is_one_line_and_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in one_line(capfd, "demo", "--out", str(tmp_path / "file" / "out"))


def test_another_run_s_folder_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.json").write_text('{"seed": 7}')
    said = one_line(capfd, "demo", "--out", str(tmp_path), "--seed", "1")
    assert "seed 7, now 1" in said
    assert "Choose another --out" in said


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX; comes back on such a system")
def test_ctrl_c_leaves_a_folder_that_can_be_continued(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gossamer", "demo", "--out", str(tmp_path), "--digits", "1"]
    command += [
        "--base-steps",
        "60",
        "--steps",
        "10",
        "--tries",
        "1",
        "--restarts",
        "0",
    ]  # seconds, where the signal takes a tenth of one
    # A shell's background jobs ignore the signal, and so would what they start.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "work" / "base").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert not (tmp_path / "report.json").is_file(), "the run was done before the signal"
    assert process.returncode == 130
    assert "run the same command again to continue" in errors
    assert main(command[3:]) in (0, 1)  # 1: so short a run misses its ceiling, and says so
    assert (tmp_path / "report.json").is_file()


def test_a_warning_of_ours_is_one_line() -> None:
    assert told_in_one_line("torn", GossamerWarning, "trainer.py", 7) == "gossamer: warning: torn\n"
    assert "trainer.py:7: UserWarning: other" in told_in_one_line("other", UserWarning, "trainer.py", 7)
