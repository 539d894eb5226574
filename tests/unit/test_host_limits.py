"""Where control groups are made and what is written to them, against trees of ordinary files."""

import os
from pathlib import Path

import pytest

from toft.host import limits

GIB = 1 << 30


def lay_out(root: Path, groups: str, mounts: list[tuple[str, Path, str, str]]) -> str:
    """Write what /proc would say; return where."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    lines = [
        f"31 23 0:28 {top} {at} rw,relatime - {kind} {kind} {options}" for top, at, kind, options in mounts
    ]
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return str(root / "proc")


def version_2(root: Path, own: str = "/app.slice/node.service", top: str = "/") -> tuple[str, Path]:
    tree = root / "cgroup"
    inside = own.removeprefix(top.rstrip("/"))
    (tree / inside.strip("/")).mkdir(parents=True)
    (tree / inside.strip("/")).parent.joinpath("cgroup.subtree_control").write_text("cpu memory pids\n")
    return lay_out(root, f"0::{own}\n", [(top, tree, "cgroup2", "rw,nsdelegate")]), tree


def version_1(root: Path) -> tuple[str, Path]:
    tree = root / "cgroup"
    for name in ("memory/jobs/7", "pids"):
        (tree / name).mkdir(parents=True)
    mounts = [("/", tree / name, "cgroup", f"rw,{name}") for name in ("memory", "pids", "cpu")]
    return lay_out(root, "4:memory:/jobs/7\n8:pids:/\n0::/\n", mounts), tree


def test_version_2_groups_are_made_beside_our_own_which_has_processes_in_it(tmp_path: Path) -> None:
    proc, tree = version_2(tmp_path)
    group = limits.Groups(proc=proc).make(7, GIB, 20)
    ours = tree / f"app.slice/toft-{os.getpid()}"
    assert (ours / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (ours / "7/memory.max").read_text() == str(GIB)
    assert (ours / "7/memory.swap.max").read_text() == "0"
    assert (ours / "7/pids.max").read_text() == "20"
    assert group.mechanisms == {"memory": "cgroup v2", "pids": "cgroup v2"}


def test_version_2_is_found_inside_a_container_that_sees_a_part_of_the_tree(tmp_path: Path) -> None:
    proc, tree = version_2(tmp_path, own="/pods/1/node", top="/pods/1")
    limits.Groups(proc=proc).make(1, GIB, None)
    assert (tree / f"toft-{os.getpid()}/1/memory.max").read_text() == str(GIB)


@pytest.mark.parametrize(("name", "text"), [("memory.max", "4096"), ("cpu.max", "50000 100000")])
def test_a_worker_does_not_escape_the_limits_of_its_node(tmp_path: Path, name: str, text: str) -> None:
    proc, tree = version_2(tmp_path)
    (tree / "app.slice/node.service" / name).write_text(text)
    assert limits.Groups(proc=proc).make(7, GIB, None).mechanisms == {"memory": "rlimit"}
    (tree / "app.slice/node.service" / name).write_text("max 100000")
    assert limits.Groups(proc=proc).make(7, GIB, None).mechanisms == {"memory": "cgroup v2"}


def test_version_2_evidence_is_the_kernels_counter(tmp_path: Path) -> None:
    proc, tree = version_2(tmp_path)
    group = limits.Groups(proc=proc).make(7, GIB, None)
    ours = tree / f"app.slice/toft-{os.getpid()}/7"
    (ours / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    (ours / "memory.peak").write_text("1073741824\n")
    assert group.evidence() == {
        "mechanism": "cgroup v2",
        "oom_kills": 2,
        "memory_peak_bytes": GIB,
        "memory_limit_bytes": GIB,
    }


def test_version_1_has_a_group_in_each_hierarchy_a_limit_needs(tmp_path: Path) -> None:
    proc, tree = version_1(tmp_path)
    groups = limits.Groups(proc=proc)
    group = groups.make(3, GIB, 5)
    assert (tree / f"memory/jobs/7/toft-{os.getpid()}/3/memory.limit_in_bytes").read_text() == str(GIB)
    assert (tree / f"pids/toft-{os.getpid()}/3/pids.max").read_text() == "5"
    assert group.mechanisms == {"memory": "cgroup v1", "pids": "cgroup v1"}
    groups.make(4, GIB, None)
    assert not (tree / f"pids/toft-{os.getpid()}/4").exists()


def test_a_worker_without_limits_costs_nothing(tmp_path: Path) -> None:
    proc, tree = version_1(tmp_path)
    group = limits.Groups(proc=proc).make(3, None, None)
    assert group.mechanisms == {}
    assert group.evidence() == {}
    assert list(tree.rglob("toft-*")) == []


@pytest.mark.parametrize("mounts", [[], [("/", Path("/nowhere/at/all"), "cgroup", "rw,memory")]])
def test_resource_limits_hold_where_no_group_can_be_made(
    tmp_path: Path, mounts: list[tuple[str, Path, str, str]]
) -> None:
    proc = lay_out(tmp_path, "4:memory:/\n0::/\n", mounts)
    assert limits.Groups(proc=proc).make(1, GIB, 9).mechanisms == {"memory": "rlimit", "pids": "rlimit"}


def test_groups_of_dead_keepers_are_removed(tmp_path: Path) -> None:
    proc, tree = version_1(tmp_path)
    (tmp_path / "proc/1234").mkdir()
    for pid in (1234, 99999):
        (tree / f"memory/jobs/7/toft-{pid}/1").mkdir(parents=True)
    limits.Groups(proc=proc).remove_stale()
    assert [path.name for path in (tree / "memory/jobs/7").iterdir()] == ["toft-1234"]
