"""What every bench here needs: commands, an empty page cache, and readers, each of which returns a
rate."""

import json
import mmap
import pathlib
import os
import subprocess
import time

MIB = 1 << 20
PATIENCE_S = 1800  # for one command; large files on slow disks take minutes


def run(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, text=True,
                          stdout=subprocess.PIPE, timeout=PATIENCE_S)


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_sequentially(path):
    """MiB/s of a plain reader with a buffer of 1 MiB."""
    buffer = bytearray(MIB)
    total = 0
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total / MIB / (time.perf_counter() - start)


def read_mapped(path):
    """MiB/s of copying out of a shared mapping, 1 MiB at a time."""
    start = time.perf_counter()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        size = len(mapping)
        for offset in range(0, size, MIB):
            mapping[offset:offset + MIB]
    return size / MIB / (time.perf_counter() - start)


def fio_random_reads(path, seconds, depth, direct):
    """IOPS of random reads of 4 KiB."""
    output = run("fio", "--name=random", f"--filename={path}", "--readonly", "--rw=randread",
                 "--bs=4k", "--ioengine=" + ("psync" if depth == 1 else "libaio"),
                 f"--iodepth={depth}", f"--direct={int(direct)}", "--time_based",
                 f"--runtime={round(seconds * 1000)}ms", "--randrepeat=1", "--norandommap",
                 "--invalidate=0", "--output-format=json").stdout
    return json.loads(output[output.index("{"):])["jobs"][0]["read"]["iops"]
