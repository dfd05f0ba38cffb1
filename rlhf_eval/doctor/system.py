"""The machine around the GPUs: processors, memory, limits, compiler."""

import os
import platform
import resource
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.doctor.checks import Finding, failure, last_line, passed, warning
from rlhf_eval.runs.environment import variables

GIB = 2**30
LEAST_OPEN_FILES = 1024


def machine() -> Iterator[Finding]:
    """Operating system, and variables that change what is computed."""
    yield passed("platform", " ".join((platform.system(), platform.release(), platform.machine())))
    told = [f"{name}={value}" for name, value in variables().items()]
    yield passed("variables", " ".join(told) or "none that matters is set")


def processors(config: RunConfig | None) -> Iterator[Finding]:
    """CPUs that this process may use, and how many threads will want them."""
    cpus, threads = usable_cpus(), os.environ.get("OMP_NUM_THREADS")
    seen = f"{cpus} to be used of {os.cpu_count()}, OMP_NUM_THREADS={threads or '(not set)'}"
    if config is not None:
        here = config.accelerate.processes // config.accelerate.machines
        wanted = here * config.threads
        seen += f"; {here} training process{'es' if here > 1 else ''} of {config.threads} threads"
        if wanted > cpus:
            fewer = f"Set threads={cpus // here}, or ask" if cpus >= here else "Ask"
            yield warning("CPUs", seen, f"{fewer} for more CPUs.")
            return
    if threads and threads.isdecimal() and int(threads) > cpus:
        yield warning("CPUs", seen, f"export OMP_NUM_THREADS={cpus}")
    else:
        yield passed("CPUs", seen)


def memory() -> Iterator[Finding]:
    """Memory that is free for this process."""
    yield passed("memory", f"{available_memory() / GIB:,.1f} GiB available")


def open_files(config: RunConfig | None) -> Iterator[Finding]:
    """Files that a process may have open: every call to a judge or a server is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    calls = 0
    if config is not None:
        judges = (config.judge, *config.second_judges.values())
        calls = max(config.generation.concurrency, *(judge.concurrency for judge in judges))
    needed = max(LEAST_OPEN_FILES, 256 + 2 * calls)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield passed("open files", f"{soft} (ulimit -n)")
    else:
        cure = (
            f"ulimit -n {needed}"
            if hard == resource.RLIM_INFINITY or hard >= needed
            else "Have the hard limit raised."
        )
        yield warning("open files", f"{soft} of at most {hard} (ulimit -n), {needed} wanted", cure)


def compiler(deepspeed_on_cpu: bool, gpus: bool) -> Iterator[Finding]:
    """What compiles when a run begins: DeepSpeed's exchange between CPU processes, and Triton's kernels on a
    GPU.

    Args:
        deepspeed_on_cpu: whether the configuration needs the former.
    """
    cxx = os.environ.get("CXX", "c++")
    missing = [name for name in (cxx, "ninja") if which(name) is None]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python.h")
    if not missing:
        yield passed("compiler", f"{_version(cxx)}, ninja {_version('ninja')}, Python.h")
        return
    seen, cure = f"not found: {', '.join(missing)}", "apt-get install g++ ninja-build python3-dev"
    if deepspeed_on_cpu:
        yield failure("compiler", f"{seen}: DeepSpeed compiles its exchange between CPU processes", cure)
    else:
        user = "Triton (vLLM) compiles" if gpus else "DeepSpeed on the CPU (accelerate=zero2, zero3) compiles"
        yield warning("compiler", f"{seen}: {user} with it", cure)


def usable_cpus() -> int:
    """By affinity and by the quota of a control group."""
    cpus = len(os.sched_getaffinity(0))
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(cpus, int(quota) // int(period))) if quota.isdecimal() else cpus


def available_memory() -> int:
    """Bytes: what the kernel calls available, or less where a control group sets a limit."""
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    kib = next((int(words[1]) for words in lines if words[0] == "MemAvailable:"), 0)
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdecimal() and used.isdecimal():
        return min(kib * 1024, max(0, int(limit) - int(used)))
    return kib * 1024


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    return done.stdout.splitlines()[0] if done.stdout else last_line(done.stderr)
