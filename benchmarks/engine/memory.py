"""The resident memory of a process, and the highest, which Linux keeps and lets be reset."""

from contextlib import suppress
from pathlib import Path


def forget_peak(pid: int | str = "self") -> None:
    """Sets the highest resident memory back to the present one; does nothing where it cannot."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int | str = "self") -> int:
    """MiB of resident memory at most since `forget_peak`; 0 where the system does not tell."""
    return status_mib(pid, "VmHWM")


def resident_mib(pid: int | str = "self") -> int:
    """MiB of resident memory now; 0 where the system does not tell."""
    return status_mib(pid, "VmRSS")


def status_mib(pid: int | str, name: str) -> int:
    """MiB of a field of the process's status, such as `VmRSS`; 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) // 1024
    return 0
