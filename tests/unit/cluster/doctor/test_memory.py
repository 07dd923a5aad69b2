from pathlib import Path

import pytest

from cluster.doctor.memory import free_memory_gb


def machine(root: Path, available_kb: int) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal:  99999999 kB\nMemAvailable:  {available_kb} kB\nHugePages_Free: 0\n")
    return root


def group(folder: Path, *, stat: str, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in {**files, "stat": stat}.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def test_without_a_container_the_machine_s_own_memory_counts(tmp_path: Path) -> None:
    assert free_memory_gb(machine(tmp_path, 8_000_000)) == pytest.approx(8.192)
    assert free_memory_gb(tmp_path / "elsewhere") is None


def test_a_container_s_limit_counts_and_pages_of_files_that_it_can_give_back_are_free(tmp_path: Path) -> None:
    machine(tmp_path, 8_000_000)
    stat = "anon 1500000000\ninactive_file 900000000"
    group(tmp_path / "sys/fs/cgroup", max="3000000000", current="2500000000", stat=stat)
    assert free_memory_gb(tmp_path) == pytest.approx(1.4)


def test_the_older_generation_of_control_groups_is_read_too(tmp_path: Path) -> None:
    machine(tmp_path, 8_000_000)
    stat = "inactive_file 1\ntotal_inactive_file 900000000"
    group(tmp_path / "sys/fs/cgroup/memory", limit_in_bytes="3000000000", usage_in_bytes="2500000000", stat=stat)
    assert free_memory_gb(tmp_path) == pytest.approx(1.4)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_a_container_without_a_limit_has_the_machine_s_memory(tmp_path: Path, limit: str) -> None:
    machine(tmp_path, 8_000_000)
    group(tmp_path / "sys/fs/cgroup", max=limit, current="2500000000", stat="")
    assert free_memory_gb(tmp_path) == pytest.approx(8.192)
