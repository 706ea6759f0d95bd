"""What makes times noisy is read from /proc and /sys; each cause comes alone, with what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.measure.disturbance import disturbances

CPU = "sys/devices/system/cpu"


@pytest.fixture
def look(tmp_path):
    """Write files below a root, and say what disturbs a case of two threads on four cores there."""

    def run(files=(), *, threads=2, cores=4, variables=(), gpu_users=""):
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return disturbances(
            tmp_path, threads=threads, cores=cores, variables=dict(variables), gpu_users=lambda: gpu_users
        )

    return run


def test_a_system_that_says_nothing_has_nothing(look):
    """No files, as on another system, and a quiet Linux that has them all: nothing is found."""
    assert look() == ()
    quiet = {
        f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
        f"{CPU}/intel_pstate/no_turbo": "1\n",
        f"{CPU}/cpufreq/boost": "0\n",
        f"{CPU}/smt/active": "0\n",
        "proc/loadavg": "0.12 0.5 3.0 1/200 4242\n",
        "proc/meminfo": "MemTotal: 100 kB\nSwapTotal:      2097148 kB\nSwapFree:       2097000 kB\n",
        "proc/stat": "cpu  100 0 100 9000 0 0 0 1 0 0\ncpu0 100 0 100 9000 0 0 0 1 0 0\n",
        "proc/cpuinfo": "model name\t: Abacus\nflags\t\t: fpu sse2\n",
        "proc/self/cgroup": "0::/here\n",
        "sys/fs/cgroup/here/cpu.max": "max 100000\n",
    }
    assert look(quiet, variables={"OMP_NUM_THREADS": "4"}) == ()


@pytest.mark.parametrize(
    ("files", "name", "found", "remedy"),
    [
        (
            {f"{CPU}/cpu{i}/cpufreq/scaling_governor": kind for i, kind in enumerate(["powersave", "performance"])},
            "clock",
            "powersave on 1 of 2 cores",
            "--governor performance",
        ),
        ({f"{CPU}/intel_pstate/no_turbo": "0\n"}, "turbo", "warms", "echo 1 > /sys/devices/system/cpu/intel_pstate"),
        ({f"{CPU}/cpufreq/boost": "1\n"}, "turbo", "warms", "echo 0 > /sys/devices/system/cpu/cpufreq/boost"),
        ({"proc/loadavg": "3.44 2.2 1.9 5/400 77\n"}, "load", "3.4 over", "top"),
        ({"proc/meminfo": "SwapTotal:  1048576 kB\nSwapFree:  524288 kB\n"}, "swap", "512 MiB", "swapoff"),
        ({"proc/stat": "cpu  50 0 0 45 0 0 0 5 0 0\n"}, "steal", "5.0 %", "host"),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor lahf_lm\n"}, "host", "virtual machine", "more rounds"),
        ({"sys/hypervisor/type": "xen\n"}, "host", "virtual machine", "more rounds"),
        ({f"{CPU}/smt/active": "1\n"}, "SMT", "share one core", "real cores"),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "250000 100000\n",
            },
            "quota",
            "2.5 of 4 cores",
            "--cpus",
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n2:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            "quota",
            "3 of 4 cores",
            "--cpus",
        ),
    ],
)
def test_each_is_found_alone_with_what_to_do(look, files, name, found, remedy):
    """One cause, one line, and what it says stands in it."""
    [seen] = look(files)
    assert seen.name == name
    assert found in seen.found
    assert remedy in seen.remedy
    assert "\n" not in seen.found + seen.remedy


def test_more_threads_than_cores_are_said(look):
    """Those of a case against cores and quota; those of variables against cores; words are no numbers."""
    [case] = look(threads=8)
    assert (case.found, case.remedy) == ("8 on 4 cores", "threads: 4 in suites")
    quota = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}
    assert [seen.found for seen in look(quota)] == ["the container may use 1.5 of 4 cores", "2 on 1.5 cores"]


def test_variables_that_ask_for_too_many_threads_are_named(look):
    """Each that is larger than the cores; what is no number is left alone."""
    variables = {"OMP_NUM_THREADS": "16", "MKL_NUM_THREADS": "many", "NUMBA_NUM_THREADS": "4"}
    [seen] = look(variables=variables)
    assert seen.found == "OMP_NUM_THREADS is 16 on 4 cores"
    assert "unset OMP_NUM_THREADS" in seen.remedy


def test_others_on_a_gpu_are_counted(look):
    """By the driver's list of processes."""
    assert [seen.found for seen in look(gpu_users="4242\n")] == ["1 process computes on a GPU already"]
    assert [seen.found for seen in look(gpu_users="4242\n77\n")] == ["2 processes compute on a GPU already"]


NAMES = ["proc/loadavg", "proc/meminfo", "proc/stat", "proc/cpuinfo", "proc/self/cgroup", "sys/fs/cgroup/cpu.max"]
NAMES += [f"{CPU}/smt/active", f"{CPU}/cpufreq/boost", f"{CPU}/cpu0/cpufreq/scaling_governor"]


@given(texts=st.lists(st.text(max_size=40), min_size=len(NAMES), max_size=len(NAMES)))
def test_nonsense_is_no_failure(texts, tmp_path_factory):
    """Whatever stands in those files, looking at them ends."""
    root = tmp_path_factory.mktemp("root")
    for name, text in zip(NAMES, texts, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    disturbances(root, threads=2, cores=4, variables={}, gpu_users=lambda: "")


def test_this_machine_can_be_looked_at():
    """With its own files and the driver, where there is one."""
    for seen in disturbances(threads=2):
        assert seen.name
        assert seen.found
        assert seen.remedy
