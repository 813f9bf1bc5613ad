import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    line = "--sizes 7,2,50 --rounds 1 --threads 1 --no-peers --rules median --attacks little --output"
    command = [sys.executable, str(ROOT / "benchmarks" / "aggregators.py"), *line.split(), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_prints_tables_and_writes_all_times(tmp_path: Path) -> None:
    done = benchmark("made/anew", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "## n, f, d = (7, 2, 50)" in done.stdout
    results = json.loads((tmp_path / "made" / "anew" / "results.json").read_text(encoding="utf-8"))
    assert results["tables"][0]["rows"][0]["label"] == "median"


def test_folder_that_cannot_be_written_to_is_one_line_before_anything_is_timed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = benchmark("file/folder", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "benchmarks/aggregators.py: --output: cannot write results.json in file/folder: Not a directory; "
        "name another folder\n"
    )
