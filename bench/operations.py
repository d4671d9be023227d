"""What `run` measures of names, attributes, small files and writing. Each returns a rate.

All of it goes through one process that waits for each answer: what an operation costs is then what
is measured, not how many run side by side.
"""

import contextlib
import ctypes
import errno
import os
import random
import resource
import time

from readers import MIB

SMALL_FILE_BYTES = 16 * 1024
PAGE = 4096
# Longer than names and attributes are believed without asking by any file system compared here
# whose answers may be compared with ours.
TIMEOUTS_S = 1.2


def forget_names(mountpoint):
    """The kernel asks the file system anew for every name and attribute, if it is one of FUSE."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        types = [line.split()[2] for line in mounts if line.split()[1] == str(mountpoint)]
    if not types[-1].startswith("fuse"):
        return  # to remount what is bound there would change the file system it comes from
    flags = 0x20 | 0x2 | 0x4  # MS_REMOUNT, which drops all names, and MS_NOSUID | MS_NODEV as before
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(mountpoint), None, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), "remount", str(mountpoint))


def forget_content(paths):
    """The next reader gets what is in the files from the disk."""
    for path in paths:
        with opened(path, os.O_RDONLY) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def opened(path, flags, mode=0o644):
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Stopwatch:
    """Ends with the last close, which belongs to the work."""

    def __init__(self):
        self.start = time.perf_counter()

    def rate(self, amount):
        return amount / (time.perf_counter() - self.start)


def write_sequentially(path, size, flags=os.O_WRONLY, sync=False):
    """MiB/s of writing 1 MiB at a time."""
    buffer = random.Random(2).randbytes(MIB)
    watch = Stopwatch()
    with opened(path, flags) as descriptor:
        for offset in range(0, size, MIB):
            assert os.pwrite(descriptor, buffer, offset) == MIB
        if sync:
            os.fsync(descriptor)
    return watch.rate(size / MIB)


def write_new(path, size, sync=False, flags=os.O_WRONLY):
    """The same into a file that is not there yet, and is not afterwards."""
    rate = write_sequentially(path, size, flags | os.O_CREAT | os.O_EXCL, sync)
    flush(path)
    os.unlink(path)
    return rate


def flush(path):
    """What one writer left to be written is not to slow down the next."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def write_randomly(path, count):
    """Writes per second of 4 KiB at places all over a file."""
    source = random.Random(3)
    buffer = source.randbytes(PAGE)
    places = [source.randrange(os.path.getsize(path) // PAGE) * PAGE for _ in range(count)]
    watch = Stopwatch()
    with opened(path, os.O_WRONLY) as descriptor:
        for place in places:
            assert os.pwrite(descriptor, buffer, place) == PAGE
    return watch.rate(count)


FILES_PER_DIRECTORY = 1000


def make_many(directory, count, with_content):
    """Files of 1 byte, the first `with_content` of them, and empty ones."""
    for start in range(0, count, FILES_PER_DIRECTORY):
        parent = directory / f"{start // FILES_PER_DIRECTORY:04}"
        parent.mkdir(parents=True)
        for index in range(start, min(start + FILES_PER_DIRECTORY, count)):
            with opened(parent / f"{index:07}", os.O_WRONLY | os.O_CREAT) as descriptor:
                if index < with_content:
                    os.write(descriptor, b"1")


def paths_of_many(directory, count):
    for index in range(count):
        yield f"{directory}/{index // FILES_PER_DIRECTORY:04}/{index:07}"


@contextlib.contextmanager
def held_open(paths):
    """Has all of them open at once, in as many processes as their limits need; yields how many, and
    the errors of the others."""
    paths = list(paths)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    share = max(1, limit - 100)  # for what else a process has open
    children, opened_files, errors = [], 0, set()
    try:
        for start in range(0, len(paths), share):
            done, told = os.pipe()
            wait, end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(end)
                hold(paths[start:start + share], told, wait)
            os.close(told)
            os.close(wait)
            children.append((child, end))
            with open(done, encoding="ascii") as answer:
                count, *failed = answer.read().split()
            opened_files += int(count)
            errors.update(failed)
        yield opened_files, sorted(errors)
    finally:
        for _, end in children:
            os.close(end)
        for child, _ in children:
            os.waitpid(child, 0)


def hold(paths, told, wait):
    """In a process of its own, until `wait` is closed at its other end."""
    try:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        count, errors = 0, set()
        for path in paths:
            try:
                os.open(path, os.O_RDONLY)
                count += 1
            except OSError as error:
                errors.add(errno.errorcode[error.errno])
        os.write(told, " ".join([str(count), *errors]).encode())
        os.close(told)
        os.read(wait, 1)
    finally:
        os._exit(0)


def create_and_remove(directory, count):
    """Files per second, each created, closed and, when all are there, removed."""
    paths = [directory / f"new-{index:06}" for index in range(count)]
    watch = Stopwatch()
    for path in paths:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    for path in paths:
        os.unlink(path)
    return watch.rate(count)


def stat_all(paths):
    """Files per second."""
    watch = Stopwatch()
    for path in paths:
        os.lstat(path)
    return watch.rate(len(paths))


def read_small_files(paths):
    """Files per second of open, read, close."""
    watch = Stopwatch()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 2 * SMALL_FILE_BYTES)
        os.close(descriptor)
    return watch.rate(len(paths))


def wait_for_timeouts():
    time.sleep(TIMEOUTS_S)
