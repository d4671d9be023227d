#!/usr/bin/env python3
"""The commands as an administrator uses them: mount, umount, fstab lines, signals, nfs-cachefs-ctl.

Usage: mount_command_test.py DIRECTORY_OF_THE_BINARIES [unittest arguments]

Runs in a mount namespace of its own with the mount helper put into /sbin there, so it neither
needs an installation nor leaves a mount behind. Needs root.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PATIENCE_S = 60  # far longer than anything here takes; a failing test ends all the same
MIB = 1 << 20
PROJECT = pathlib.Path(__file__).resolve().parent.parent
BINARIES = pathlib.Path("/nonexistent")
SYSTEM_LOG = []  # lines


def enter_namespace():
    """Starts this program anew in a private mount namespace."""
    if os.environ.get("NCFS_TEST_NAMESPACE") == "1":
        return
    os.environ["NCFS_TEST_NAMESPACE"] = "1"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])


def forget_other_mounts():
    """What others have mounted is in this namespace, too: it would be listed and kept alive."""
    for line in reversed(pathlib.Path("/proc/mounts").read_text().splitlines()):
        words = line.split()
        if words[2] == "fuse.cachefs":
            run("umount", "--lazy", words[1].encode().decode("unicode_escape"))


def cover(place, original):
    """Puts an empty directory with links to all that was there over `place`."""
    original.mkdir()
    run("mount", "--rbind", place, original)
    run("mount", "-t", "tmpfs", "tmpfs", place)
    for name in os.listdir(original):
        (place / name).symlink_to(original / name)


def catch_system_log(directory):
    """Collects what daemons send to the system log."""
    cover(pathlib.Path("/dev"), directory / "dev")
    with contextlib.suppress(FileNotFoundError):
        pathlib.Path("/dev/log").unlink()
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind("/dev/log")

    def receive():
        while True:
            SYSTEM_LOG.append(receiver.recv(65536).decode(errors="replace").rstrip("\n\0"))

    threading.Thread(target=receive, daemon=True).start()


def put_helpers_into_sbin(directory):
    """mount(8) looks for helpers in /sbin only."""
    sbin = pathlib.Path("/sbin").resolve()
    cover(sbin, directory / "sbin")
    for name in ("mount.cachefs", "mount.fuse.cachefs"):
        with contextlib.suppress(FileNotFoundError):
            (sbin / name).unlink()
        (sbin / name).symlink_to(BINARIES / "nfs-cachefs")
    # Control sockets of other daemons must not be seen.
    run("mount", "-t", "tmpfs", "tmpfs", "/run")


def run(*arguments, check=True, **options):
    result = subprocess.run([str(argument) for argument in arguments], text=True, timeout=PATIENCE_S,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{arguments}: {result.returncode}: {result.stderr}{result.stdout}")
    return result


def control(*arguments, check=True):
    return run(BINARIES / "nfs-cachefs-ctl", *arguments, check=check)


def durable_blocks(sidecar):
    """How many blocks a sidecar vouches for; its layout is in engine/format.h."""
    path_bytes = int.from_bytes(sidecar[12:16], "little")
    size = int.from_bytes(sidecar[32:40], "little")
    block_size = int.from_bytes(sidecar[64:72], "little")
    blocks = -(-size // block_size)
    bitmap = sidecar[72 + path_bytes:72 + path_bytes + -(-blocks // 64) * 8]
    return int.from_bytes(bitmap, "little").bit_count()


def is_running(pid):
    """Whether any thread still runs. A zombie that nobody waits for has ended, too."""
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
    return False


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true: {what}")
        time.sleep(0.01)


def mount_line(mountpoint):
    """The line of /proc/mounts for the topmost mount there, split into words; or None."""
    lines = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    found = [words for words in lines if words[1] == str(mountpoint)]
    return found[-1] if found else None


class MountTestCase(unittest.TestCase):
    """A backend with some files, and mounts of it that are gone after every test."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ncfs-mount-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.pids = []
        self.addCleanup(self.clean_up)
        for name in ("backend/models", "mnt", "other"):
            (self.directory / name).mkdir(parents=True)
        self.backend = self.directory / "backend"
        self.mnt = self.directory / "mnt"
        self.write("small", b"hello\n")
        self.write("models/big", os.urandom(3 * MIB))
        self.options = (f"nfs_backend={self.backend},cache_dir={self.directory}/cache,"
                        "cache_size_gb=1")

    def write(self, name, content):
        path = self.backend / name
        path.write_bytes(content)
        # Older than the time in which timestamps prove nothing.
        os.utime(path, (time.time() - 3600, time.time() - 3600))

    def clean_up(self):
        for directory in (self.mnt, self.directory / "other"):
            while mount_line(directory):
                run("umount", "--lazy", directory)
        for pid in self.pids:
            with contextlib.suppress(AssertionError):
                wait_until(lambda pid=pid: not is_running(pid), "the daemon has ended")
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)

    def mount(self, more="", source="cachefs", where=None, check=True):
        where = where or self.mnt
        options = self.options + ("," + more if more else "")
        result = run("mount", "-t", "cachefs", "-o", options, source, where, check=check)
        if result.returncode == 0:
            self.note_daemon(where)
        return result

    def note_daemon(self, where=None):
        self.pids.append(self.status(where)["pid"])
        return self.pids[-1]

    def status(self, where=None):
        return json.loads(control("status", where or self.mnt, "--json").stdout)

    def is_dead(self):
        try:
            self.mnt.stat()
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    def assert_ended(self, pid):
        wait_until(lambda: not is_running(pid), "the daemon has ended")

    def assert_one_line(self, text, expected):
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn(expected, text)


class MountCommandTest(MountTestCase):
    def test_mount_answers_at_once_and_umount_ends_the_daemon(self):
        self.mount("allow_other")
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
        self.assertEqual((self.mnt / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())
        words = mount_line(self.mnt)
        self.assertEqual(words[0], "cachefs")
        self.assertEqual(words[2], "fuse.cachefs")
        for option in ("nosuid", "nodev", "allow_other", "default_permissions"):
            self.assertIn(option, words[3].split(","))
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])
        self.assertEqual(os.listdir("/run/nfs-cachefs"), [])

    def test_as_many_files_are_open_as_the_descriptors_allow(self):
        seen = len(SYSTEM_LOG)
        run("prlimit", "--nofile=1200:1200", "mount", "-t", "cachefs", "-o", self.options,
            "cachefs", self.mnt)
        limits = pathlib.Path(f"/proc/{self.note_daemon()}/limits").read_text(encoding="utf-8")
        descriptors = int(re.search(r"Max open files +(\d+)", limits)[1])
        count = (descriptors - 512) // 2
        with contextlib.ExitStack() as held:
            def hold():
                descriptor = os.open(self.mnt / "small", os.O_RDONLY)
                held.callback(os.close, descriptor)
            if descriptors > 1200:
                # The daemon may raise its limit, and has.
                self.assertGreater(count, 100_000)
                return
            for _ in range(count):
                hold()
            for _ in range(3):
                with self.assertRaises(OSError) as refused:
                    hold()
                self.assertEqual(refused.exception.errno, errno.ENFILE)
            # Everything but opening goes on.
            self.assertEqual((self.mnt / "models/big").stat().st_size, 3 * MIB)
            (self.mnt / "made").mkdir()
            (self.mnt / "made").rename(self.mnt / "moved")
            (self.mnt / "moved").rmdir()
            control("cache", "warm", "--wait", self.mnt / "models/big")
        # Files are closed some time after close(2).
        def can_open():
            with contextlib.suppress(OSError):
                return (self.mnt / "small").read_bytes() == b"hello\n"
            return False
        wait_until(can_open, "files can be opened again")
        run("umount", self.mnt)
        def logged(text):
            return sum(text in line for line in SYSTEM_LOG[seen:])
        wait_until(lambda: logged(f"unmounted {self.mnt}"), "the whole log has come")
        self.assertEqual(logged("files and directories are open"), 1)

    def test_an_fstab_line_with_all_generic_options(self):
        fstab = self.directory / "fstab"
        fstab.write_text(
            f"models {self.mnt} cachefs {self.options},defaults,direct_io=true,ro,user,noatime,"
            "_netdev,nofail,x-systemd.requires=/mnt,x-systemd.automount,X-mount.foo,comment=hello,"
            "allow_other 0 0\n")
        run("mount", "-a", "-T", fstab)
        self.note_daemon()
        words = mount_line(self.mnt)
        self.assertEqual(words[0], "models")
        for option in ("ro", "noexec", "nosuid", "nodev", "noatime"):
            self.assertIn(option, words[3].split(","))
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
        run("mount", "-a", "-T", fstab)  # mounts nothing twice
        run("umount", self.mnt)
        self.assertIsNone(mount_line(self.mnt))

    def test_a_backend_with_a_comma_in_its_name(self):
        strange = self.directory / "back,end"
        strange.mkdir()
        (strange / "file").write_text("x")
        for written in (str(strange).replace(",", "\\,"), f'"{strange}"'):
            self.mount(f"nfs_backend={written}")
            self.assertEqual(os.listdir(self.mnt), ["file"])
            run("umount", self.mnt)

    def test_a_relative_mount_point_is_meant_from_where_the_command_is_given(self):
        run(BINARIES / "nfs-cachefs", "-o", self.options, "cachefs", "mnt", cwd=self.directory)
        self.note_daemon()
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")

    def test_wrong_options_are_one_clear_line_and_leave_nothing(self):
        (self.directory / "file").write_text("x")
        cases = [
            ("cache_sise=5G", 1, "unknown option 'cache_sise' (did you mean 'cache_size'?)"),
            ("eviction=mru", 1, "option eviction=mru: must be lru, lfu, arc or s3fifo"),
            ("max_concurrent=0", 1, "option max_concurrent=0: must be a whole number from 1 to 64"),
            ("cache_size=1G", 1, "only one of them"),
            ("block_size_mb=16,buffer_mb=64", 1, "option buffer_mb=64: must be at least 8 blocks"),
            ("nfs_backend=/nonexistent", 32, "option nfs_backend=/nonexistent: No such file"),
            (f"nfs_backend={self.directory}/file", 32, "not a directory"),
            (f"cache_dir={self.backend}/cache", 32, "lies inside nfs_backend="),
            (f"cache_dir={self.directory}/missing/cache", 32, "parent directory does not exist"),
            (f"cache_dir={self.backend.parent}", 32, "lies inside cache_dir="),
        ]
        for options, exit_status, text in cases:
            with self.subTest(options):
                result = self.mount(options, check=False)
                self.assertEqual(result.returncode, exit_status, result.stderr)
                self.assert_one_line(result.stderr, text)
                self.assertIsNone(mount_line(self.mnt))

    def test_a_missing_mount_point_and_a_missing_argument(self):
        helper = "/sbin/mount.cachefs"
        result = run(helper, "cachefs", "/nonexistent", "-o", self.options, check=False)
        self.assertEqual(result.returncode, 32)
        self.assert_one_line(result.stderr, "mount point /nonexistent: No such file")
        result = run(helper, "cachefs", check=False)
        self.assertEqual(result.returncode, 1)
        self.assert_one_line(result.stderr, "directory is required")

    def test_only_root_may_mount(self):
        result = run("setpriv", "--reuid", "65534", "--clear-groups", BINARIES / "nfs-cachefs",
                     "-o", self.options, "cachefs", self.mnt, check=False)
        self.assertEqual(result.returncode, 1)
        self.assert_one_line(result.stderr, "only root")

    def test_fake_mounts_check_everything_and_mount_nothing(self):
        run("mount", "-f", "-t", "cachefs", "-o", self.options, "cachefs", self.mnt)
        self.assertIsNone(mount_line(self.mnt))
        self.assertFalse((self.directory / "cache").exists())
        result = run("/sbin/mount.cachefs", "cachefs", self.mnt, "-f", "-o",
                     self.options + ",nfs_backend=/nonexistent", check=False)
        self.assertEqual(result.returncode, 32)

    def test_sloppy_mounts_ignore_unknown_options(self):
        self.assertEqual(self.mount("vers=4.2", check=False).returncode, 1)
        run("mount", "-s", "-t", "cachefs", "-o", self.options + ",vers=4.2", "cachefs", self.mnt)
        self.note_daemon()

    def test_one_cache_and_one_mount_point_serve_one_mount(self):
        self.mount()
        result = self.mount(where=self.directory / "other", check=False)
        self.assertEqual(result.returncode, 32)
        self.assert_one_line(result.stderr, f"in use by another daemon (process {self.pids[0]})")
        result = self.mount(f"cache_dir={self.directory}/cache2", check=False)
        self.assertEqual(result.returncode, 32)
        self.assert_one_line(result.stderr, "already mounted")

    def test_remounting_is_refused_with_a_reason(self):
        self.mount()
        result = run("mount", "-o", "remount,noexec", self.mnt, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assert_one_line(result.stderr, "remount is not supported")

    def test_mounting_again_at_once_waits_for_the_old_daemon(self):
        self.write("models/huge", os.urandom(64 * MIB))
        self.mount()
        for _ in range(5):
            with open(self.mnt / "models/huge", "rb") as file:
                file.read(MIB)
            run("umount", self.mnt)
            self.mount()
        self.assertEqual((self.mnt / "models/huge").read_bytes(),
                         (self.backend / "models/huge").read_bytes())

    def test_sigterm_unmounts_though_a_file_is_open(self):
        self.mount()
        descriptor = os.open(self.mnt / "small", os.O_RDONLY)
        os.kill(self.pids[0], signal.SIGTERM)
        self.assert_ended(self.pids[0])
        with self.assertRaises(OSError) as raised:  # the daemon is not there to be told
            os.close(descriptor)
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        self.assertIsNone(mount_line(self.mnt))
        self.assertEqual(os.listdir("/run/nfs-cachefs"), [])

    def test_the_daemon_answers_and_ends_while_its_backend_hangs(self):
        # The backend is another mount, whose daemon is stopped.
        beneath = self.directory / "other"
        self.mount(where=beneath)
        server = self.pids[0]
        self.options = (f"nfs_backend={beneath},cache_dir={self.directory}/cache2,cache_size_gb=1,"
                        "backend_timeout_s=2,entry_timeout=0,attr_timeout=0")
        self.mount()
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
        self.addCleanup(os.kill, server, signal.SIGCONT)  # before everything is unmounted
        os.kill(server, signal.SIGSTOP)
        callers = [subprocess.Popen(["stat", self.mnt / f"absent{number}"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   for number in range(40)]
        for words in (("status",), ("metrics", "export"), ("config", "show"), ("warm", "list")):
            self.assertNotEqual(control(*words, self.mnt).stdout, "", words)

        def state():
            return self.status()["health"]["backends"][0]["state"]

        wait_until(lambda: state() == "down", "the backend is down")
        for caller in callers:
            self.assertNotEqual(caller.wait(timeout=PATIENCE_S), 0)
        checks = json.loads(control("health", "check", self.mnt, "--json", check=False).stdout)
        self.assertIn("down", json.dumps(checks))
        self.assertIn("down for", control("status", self.mnt).stdout)
        os.kill(self.pids[1], signal.SIGTERM)
        wait_until(lambda: mount_line(self.mnt) is None, "unmounted")
        wait_until(lambda: len(os.listdir("/run/nfs-cachefs")) == 1, "the control socket is gone")
        # What still keeps it is a file system that lets nobody be killed who waits for it.
        os.kill(server, signal.SIGCONT)
        self.assert_ended(self.pids[1])

    def backend_state(self):
        return self.status()["health"]["backends"][0]["state"]

    def assert_all_fails(self, error):
        for call in (lambda: os.listdir(self.mnt), lambda: os.stat(self.mnt / "small"),
                     lambda: os.mkdir(self.mnt / "new"), lambda: os.statvfs(self.mnt)):
            with self.assertRaises(OSError) as raised:
                call()
            self.assertEqual(raised.exception.errno, error)

    def test_a_backend_that_does_not_answer_is_awaited_with_offline_start_only(self):
        beneath = self.directory / "other"
        self.mount(where=beneath)
        server = self.pids[0]
        self.options = (f"nfs_backend={beneath},cache_dir={self.directory}/cache2,cache_size_gb=1,"
                        "backend_timeout_s=2")
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        run("umount", self.mnt)
        self.assert_ended(self.pids[1])
        self.addCleanup(os.kill, server, signal.SIGCONT)  # before everything is unmounted
        os.kill(server, signal.SIGSTOP)
        failed = self.mount(check=False)
        self.assertEqual(failed.returncode, 32)
        self.assert_one_line(failed.stderr, f"option nfs_backend={beneath}: no answer within 2 "
                                            "seconds (backend_timeout_s)")
        self.mount("offline_start=true")
        self.assertEqual(self.backend_state(), "down")
        self.assert_all_fails(errno.ETIMEDOUT)
        wait_until(lambda: self.status()["state"] == "running", "recovered")
        told = control("invalidate", self.mnt, check=False)
        self.assertNotEqual(told.returncode, 0)
        self.assertEqual(self.status()["cache"]["objects_cached"], 2)
        os.kill(server, signal.SIGCONT)
        wait_until(lambda: self.backend_state() == "up", "the backend is up")
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
        self.assertEqual((self.mnt / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())
        self.assertEqual(self.status()["backend_reads"]["bytes"], 0)
        self.assertEqual(os.stat(self.mnt).st_ino, os.stat(beneath).st_ino)
        os.mkdir(self.mnt / "new")
        run("umount", self.mnt)
        self.assert_ended(self.pids[2])

    def test_offline_start_awaits_what_fstab_names_to_be_mounted(self):
        place = self.directory / "other"
        fstab = self.directory / "fstab"
        fstab.write_text(f"server:/export {place} nfs defaults,_netdev 0 0\n")
        run(BINARIES / "nfs-cachefs", "-o",
            f"nfs_backend={place}/models,cache_dir={self.directory}/cache,cache_size_gb=1,"
            "offline_start=true", "cachefs", self.mnt, check=False)
        self.assertIsNone(mount_line(self.mnt))  # such a name may be wrong
        run(BINARIES / "nfs-cachefs", "-o",
            f"nfs_backend={place},cache_dir={self.directory}/cache,cache_size_gb=1,"
            "offline_start=true", "cachefs", self.mnt,
            env={**os.environ, "LIBMOUNT_FSTAB": str(fstab)})
        self.note_daemon()
        self.assertEqual(self.backend_state(), "down")
        self.assert_all_fails(errno.ETIMEDOUT)
        run("mount", "--bind", self.backend, place)
        self.addCleanup(run, "umount", "--lazy", place)
        wait_until(lambda: self.backend_state() == "up", "the backend is up")
        self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
        self.assertEqual(sorted(os.listdir(self.mnt)), ["models", "small"])
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])

    def test_in_the_foreground_it_logs_to_stderr_and_ends_well_on_sigint(self):
        with subprocess.Popen([BINARIES / "nfs-cachefs", "-f", "-o", self.options, "cachefs",
                               self.mnt], stderr=subprocess.PIPE, text=True) as daemon:
            self.pids.append(daemon.pid)
            self.assertIn(f"mounted {self.backend} on {self.mnt}", daemon.stderr.readline())
            self.assertEqual((self.mnt / "small").read_bytes(), b"hello\n")
            daemon.send_signal(signal.SIGINT)
            _, log = daemon.communicate(timeout=PATIENCE_S)
            self.assertEqual(daemon.returncode, 0)
            self.assertIn(f"unmounted {self.mnt}", log)
        self.assertIsNone(mount_line(self.mnt))

    def test_the_system_log_tells_of_mounts_and_of_every_hit_and_miss(self):
        seen = len(SYSTEM_LOG)
        self.mount("log_level=debug")
        (self.mnt / "models/big").read_bytes()
        control("cache", "warm", "--wait", self.mnt)
        (self.mnt / "models/big").read_bytes()
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])
        ident = rf"cachefs\[{self.pids[0]}\]: "
        for expected in (f"mounted {self.backend} on {self.mnt}", "CACHE_MISS models/big",
                         "CACHE_HIT models/big", f"unmounted {self.mnt}"):
            wait_until(lambda text=expected: any(
                re.search(ident + re.escape(text), line) for line in SYSTEM_LOG[seen:]),
                       f"a line with {expected!r} in {SYSTEM_LOG[seen:]}")

    def test_what_the_daemon_fails_for_is_in_the_system_log_too(self):
        seen = len(SYSTEM_LOG)
        self.mount("nfs_backend=/nonexistent", check=False)
        wait_until(lambda: any("/nonexistent: No such file" in line for line in SYSTEM_LOG[seen:]),
                   "the reason is logged")

    def test_a_killed_daemon_is_told_about_and_the_cache_goes_on(self):
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        os.kill(self.pids[0], signal.SIGKILL)
        self.assert_ended(self.pids[0])
        listed = control("list", check=False)
        self.assertEqual(listed.returncode, 2)
        self.assertIn("its daemon does not run", listed.stdout)
        self.assertEqual(control("status", self.mnt, check=False).returncode, 2)
        wait_until(self.is_dead, "the kernel has forgotten what the daemon told it")
        # Its remains are taken away.
        self.mount()
        self.assertFalse(self.is_dead())
        wait_until(lambda: self.status()["state"] == "running", "recovered")
        self.assertEqual((self.mnt / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())
        self.assertEqual(self.status()["backend_reads"]["bytes"], 0)

    def test_a_copy_that_was_killed_goes_on_from_its_last_durable_block(self):
        # Larger than what is copied between two checkpoints (256 MiB).
        with open(self.backend / "models/huge", "wb") as file:
            for number in range(640):
                file.write(os.urandom(4096) + number.to_bytes(4, "little") * ((MIB - 4096) // 4))
        os.sync()
        time.sleep(2.1)  # what is younger than two seconds is not copied
        durable = 640
        for _ in range(20):  # the copy may be done before it is killed: then once more
            self.mount()
            pid = self.pids[-1]
            control("cache", "warm", self.mnt / "models/huge")
            wait_until(lambda: self.sidecars(), "some blocks are durable")
            os.kill(pid, signal.SIGKILL)
            self.assert_ended(pid)
            durable = durable_blocks(self.sidecars()[0].read_bytes())
            if durable < 640:
                break
            run("umount", "--lazy", self.mnt)
            shutil.rmtree(self.directory / "cache")
        self.assertGreater(durable, 0)
        self.assertLess(durable, 640)
        self.mount()
        wait_until(lambda: self.status()["cache"]["objects_cached"] == 1, "the copy was resumed")
        self.assertEqual(self.status()["backend_reads"]["bytes"], (640 - durable) * MIB)
        run("cmp", self.backend / "models/huge", self.mnt / "models/huge")

    def test_damaged_and_strange_files_in_the_cache_are_told_about_and_not_used(self):
        for number in range(4):
            self.write(f"models/{number}", os.urandom(5000))
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])
        precious = self.directory / "precious"
        precious.write_bytes(b"x" * 5000)
        shard = self.sidecars()[0].parent
        (shard / "notes.txt").write_text("mine")
        damages = {
            "random": lambda path: path.write_bytes(os.urandom(200)),
            "directory": lambda path: (path.unlink(), path.mkdir()),
            "link": lambda path: (path.unlink(), path.symlink_to(precious)),
            "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
        }
        damaged = dict(zip(damages, self.sidecars()))
        for name, path in damaged.items():
            damages[name](path)
        seen = len(SYSTEM_LOG)
        self.mount()
        wait_until(lambda: self.status()["state"] == "running", "recovered")
        for name in ("small", "models/big", *(f"models/{number}" for number in range(4))):
            self.assertEqual((self.mnt / name).read_bytes(), (self.backend / name).read_bytes())
        control("cache", "warm", "--wait", self.mnt)
        self.assertEqual(self.status()["cache"]["objects_cached"], 6)
        self.assertEqual(precious.read_bytes(), b"x" * 5000)
        self.assertTrue((shard / "notes.txt").exists() and damaged["directory"].is_dir())
        for name in ("random", "link", "fifo"):
            self.assertFalse(damaged[name].is_symlink() or damaged[name].exists(), name)
        for path in (shard / "notes.txt", *damaged.values()):
            wait_until(lambda text=f"{path.parent.name}/{path.stem}": any(
                text in line for line in SYSTEM_LOG[seen:]), f"a line about {path}")

    def sidecars(self):
        return list(self.directory.glob("cache/objects/*/*.meta"))

    def test_warming_tells_honest_totals(self):
        (self.backend / "link").symlink_to("small")
        (self.backend / "models/a.tmp").write_bytes(b"t" * 2048)
        self.mount("min_file_size=1K,exclude=/models/*.tmp")
        told = control("cache", "warm", "--wait", self.mnt).stdout
        self.assertRegex(told, r"4 files .* found .*: 1 files \(3.0 MiB\) copied, 0 files \(0 B\) "
                               r"already cached, 3 files \(2.0 KiB\) skipped, 0 files")
        self.assertIn("skipped 1 files: symbolic link", told)
        self.assertIn("skipped 1 files: left out by include or exclude", told)
        with open(self.mnt / "models/a.tmp", "rb") as excluded:
            self.assertEqual(excluded.read(), b"t" * 2048)
            self.assertIn("left out by include or exclude",
                          control("ls", self.mnt / "models/a.tmp").stdout)
        told = control("cache", "warm", "--wait", self.mnt / "models/big").stdout
        self.assertRegex(told, r"0 files \(0 B\) copied, 1 files \(3.0 MiB\) already cached")
        status = self.status()
        self.assertEqual(status["cache"]["objects_cached"], 1)
        self.assertEqual(status["backend_reads"]["bytes"], 3 * MIB + 2048)
        self.assertEqual((self.mnt / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())
        self.assertEqual(self.status()["opens"]["hits"], 1)

    def test_plain_tools_see_and_change_what_is_cached(self):
        self.mount("allow_other")
        big = self.mnt / "models/big"

        def told(name):
            return os.getxattr(big, "user.cachefs." + name).decode()

        wait_until(lambda: self.status()["state"] == "running", "recovered")
        self.assertEqual((told("state"), told("percent")), ("absent", "0"))
        os.setxattr(big, "user.cachefs.pinned", b"1")
        wait_until(lambda: told("state") == "complete", "the pinned file is cached")
        self.assertEqual((told("percent"), told("tier"), told("pinned")), ("100", "disk", "1"))
        self.assertGreaterEqual(int(told("age")), 3600)
        self.assertEqual(self.status()["cache"]["pinned_files"], 1)
        os.setxattr(big, "user.cachefs.pinned", b"0")
        self.assertEqual(os.listxattr(big), [])
        tree = self.mnt / "models"
        os.setxattr(tree, "curvefs.warmup.op", f"add\nsingle\n/models\ndisk\n{self.mnt}\n/".encode())
        wait_until(lambda: os.getxattr(tree, "curvefs.warmup.op") == b"finished", "warmed")
        job, = self.status()["warm_jobs"]
        self.assertEqual((job["paths"], job["already_cached"]["files"]), (["models"], 1))

    def test_a_warm_up_goes_on_after_the_daemon_was_killed(self):
        # A file of the future may change again unseen: its copy waits, and the warm-up with it.
        big = self.backend / "models/big"
        os.utime(big, (time.time() + 7200, time.time() + 7200))
        self.mount()
        control("cache", "warm", self.mnt)
        wait_until(lambda: self.status()["warm_jobs"][0]["state"] == "copying", "all is found")
        os.kill(self.pids[0], signal.SIGKILL)
        self.assert_ended(self.pids[0])
        run("umount", "--lazy", self.mnt)
        os.utime(big, (time.time() - 3600, time.time() - 3600))
        self.mount()
        wait_until(lambda: self.status()["warm_jobs"][0]["state"] == "done", "it has ended")
        job, = self.status()["warm_jobs"]
        self.assertEqual((job["id"], job["restarts"], job["paths"]), (1, 1, [""]))
        self.assertEqual((job["found"]["files"], job["failed"]["files"]), (2, 0))
        self.assertEqual(job["copied"]["files"] + job["already_cached"]["files"], 2)
        self.assertEqual(self.status()["cache"]["objects_cached"], 2)

    def test_verifying_removes_what_the_cache_disk_has_changed(self):
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        told = control("cache", "verify", "--wait", self.mnt).stdout
        self.assertRegex(told, r" found: .* intact, 0 files \(0 B\) damaged and removed, 0 files")
        data = max((self.directory / "cache").rglob("*.data"),
                   key=lambda path: path.stat().st_size)
        with data.open("r+b") as file:
            file.seek(1234567)
            byte = file.read(1)
            file.seek(1234567)
            file.write(bytes([byte[0] ^ 1]))
        result = control("cache", "verify", "--wait", check=False)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("1 files (3.0 MiB) damaged and removed", result.stdout)
        self.assertEqual(self.status()["integrity"]["damaged_files"], 1)
        self.assertIn("1 mismatches, 1 damaged files removed", control("status").stdout)
        self.assertEqual((self.mnt / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())

    def test_the_limit_is_changed_while_mounted(self):
        for name in ("a", "b", "c"):
            self.write(name, os.urandom(10 * MIB))
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        for size, text in (("5X", "must be a size"), ("1M", "at least 16 blocks")):
            result = control("limit", self.mnt, size, check=False)
            self.assertEqual(result.returncode, 1)
            self.assert_one_line(result.stderr, text)
        told = control("limit", self.mnt, "24M").stdout
        self.assertIn("the limit is 24.0 MiB until the next mount, it was 1.0 GiB", told)
        wait_until(lambda: self.status()["cache"]["used_bytes"] <= 24 * MIB, "evicted")
        self.assertEqual(self.status()["cache"]["limit_bytes"], 24 * MIB)
        control("limit", self.mnt, "1G")
        told = control("cache", "warm", "--wait", self.mnt).stdout
        self.assertIn("0 files (0 B) failed", told.replace("0 files failed", "0 files (0 B) failed"))
        self.assertEqual(self.status()["cache"]["objects_cached"], 5)

    def test_pinned_files_stay_until_they_are_unpinned(self):
        self.mount()
        control("cache", "warm", "--wait", self.mnt)
        control("cache", "pin", "--wait", self.mnt / "models")
        told = control("cache", "evict", self.mnt).stdout
        self.assertIn("1 files (6 B) evicted", told)
        self.assertIn("1 files (3.0 MiB) pinned", told)
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])
        self.mount()
        wait_until(lambda: self.status()["state"] == "running", "recovered")
        self.assertEqual(self.status()["cache"]["pinned_files"], 1)
        self.assertIn("1 pinned", control("status", self.mnt).stdout)
        self.assertIn("0 files (0 B) evicted",
                      control("cache", "clean", "--older-than", "0s", self.mnt).stdout)
        self.assertIn("1 files", control("cache", "unpin", self.mnt).stdout)
        with open(self.mnt / "models/big", "rb"):
            self.assertIn("1 files (3.0 MiB) in use", control("cache", "evict", self.mnt).stdout)

        def evicted():
            control("cache", "evict", self.mnt / "models")
            return self.status()["cache"]["objects_cached"] == 0
        wait_until(evicted, "the kernel has told of the close and the file is evicted")
        self.assertEqual(control("cache", "clean", "--older-than", "7", check=False).returncode, 1)

    def test_no_load_makes_the_cache_exceed_its_limit(self):
        limit = 24 * MIB
        image = self.directory / "image"
        with open(image, "wb") as file:
            file.truncate(96 * MIB)
        disk = self.directory / "disk"
        disk.mkdir()
        if run("mkfs.ext4", "-q", "-F", image, check=False).returncode != 0:
            self.skipTest("mkfs.ext4 does not work here")
        result = run("mount", "-o", "loop", image, disk, check=False)
        if result.returncode != 0:
            self.skipTest(f"no loop device can be mounted here: {result.stderr.strip()}")
        self.addCleanup(run, "umount", "--lazy", disk, check=False)
        contents = {f"load{number}": os.urandom(4 * MIB) for number in range(12)}
        for name, content in contents.items():
            self.write(name, content)
        self.options = f"nfs_backend={self.backend},cache_dir={disk}/cache,cache_size=24M"
        self.mount()

        def free():
            space = os.statvfs(disk)
            return space.f_bfree * space.f_frsize

        def occupied():
            inodes = {}
            for path in disk.glob("cache/objects/*/*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    inodes[status.st_ino] = status.st_blocks * 512
            return sum(inodes.values())
        empty = free()
        wrong = []

        def read(first):
            names = list(contents)
            for name in (names[first:] + names[:first]) * 2:
                if (self.mnt / name).read_bytes() != contents[name]:
                    wrong.append(name)
        readers = [threading.Thread(target=read, args=(first,)) for first in (0, 4, 8)]
        for reader in readers:
            reader.start()
        largest = 0
        # The copies go on after the readers; a file that finds everything in use is not kept until it
        # is read again.
        deadline = time.monotonic() + PATIENCE_S
        while any(reader.is_alive() for reader in readers) or (
                self.status()["cache"]["evictions"] == 0 and time.monotonic() < deadline):
            largest = max(largest, empty - free(), occupied())
            if not any(reader.is_alive() for reader in readers):
                read(0)
        for reader in readers:
            reader.join()
        self.assertEqual(wrong, [])
        self.assertLessEqual(largest, limit)
        self.assertGreater(self.status()["cache"]["evictions"], 0)
        run("umount", self.mnt)
        self.assert_ended(self.pids[0])

    def test_warming_in_the_background_is_seen_in_status(self):
        self.mount()
        told = control("cache", "warm", self.mnt / "models").stdout
        self.assertIn("warm-up 1 started", told)
        wait_until(lambda: self.status()["warm_jobs"][0]["state"] == "done", "warmed")
        self.assertIn("warm-up       1: done, 1 of 1 files", control("status").stdout)

    def test_warming_finds_the_mount_behind_links_binds_and_relative_paths(self):
        self.mount()
        (self.directory / "link").symlink_to(self.mnt / "models")
        run("mount", "--bind", self.mnt / "models", self.directory / "other")
        for path in (self.directory / "link/big", self.directory / "other/big"):
            self.assertIn("1 files (3.0 MiB)", control("cache", "warm", "--wait", path).stdout)
        result = run(BINARIES / "nfs-cachefs-ctl", "cache", "warm", "--wait", "big",
                     cwd=self.mnt / "models")
        self.assertIn("1 files (3.0 MiB) already cached", result.stdout)
        # The bind is no mount of its own.
        self.assertEqual(len(json.loads(control("list", "--json").stdout)), 1)

    def test_wrong_paths_and_failing_files_have_their_exit_status(self):
        deep = self.backend / "deep" / "/".join(["d"] * 140)
        deep.mkdir(parents=True)
        self.mount()
        cases = [
            (("cache", "warm", self.mnt / "nothing"), 1, "No such file or directory"),
            (("cache", "warm", self.backend), 2, "not in a cachefs mount"),
            (("status", "/"), 2, "not in a cachefs mount"),
            (("cache",), 1, "--help"),
            (("frobnicate",), 1, "--help"),
        ]
        for arguments, exit_status, text in cases:
            with self.subTest(arguments):
                result = control(*arguments, check=False)
                self.assertEqual(result.returncode, exit_status)
                self.assert_one_line(result.stderr, text)
        result = control("cache", "warm", "--wait", self.mnt, check=False)
        self.assertEqual(result.returncode, 3)
        self.assertIn("1 files (0 B) failed", result.stdout)
        self.assertIn("failed: deep/d/d", result.stdout)

    def test_without_mounts_the_control_command_says_so(self):
        self.assertEqual(control("list").stdout, "no cachefs is mounted\n")
        self.assertEqual(json.loads(control("list", "--json").stdout), [])
        self.assertEqual(control("status", check=False).returncode, 2)

    def test_every_option_of_the_help_is_in_the_manual_and_the_readme(self):
        text = run(BINARIES / "nfs-cachefs", "--help").stdout
        options = re.findall(r"^  ([a-z_]+)(?:=[A-Z]+)?   *\w", text.partition("Mount options")[2],
                             re.MULTILINE)
        self.assertGreaterEqual(len(options), 15)
        manual = (PROJECT / "tools/man/man8/nfs-cachefs.8").read_text()
        readme = (PROJECT / "README.md").read_text()
        for option in options:
            self.assertIn(f".It Cm {option}", manual)
            self.assertIn(f"| `{option}`", readme)


def main():
    global BINARIES
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    enter_namespace()
    BINARIES = pathlib.Path(sys.argv.pop(1)).resolve()
    run("mount", "--make-rprivate", "/")
    forget_other_mounts()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ncfs-mount-test-", dir="/var/tmp"))
    try:
        catch_system_log(directory)
        put_helpers_into_sbin(directory)
        program = unittest.main(exit=False, verbosity=2)
    finally:
        # The system's own directories are mounted in there: nothing is removed recursively.
        for place in (pathlib.Path("/sbin").resolve(), "/dev", directory / "sbin",
                      directory / "dev"):
            run("umount", "--lazy", place, check=False)
        for name in ("sbin", "dev", "."):
            with contextlib.suppress(FileNotFoundError):
                (directory / name).resolve().rmdir()
    if not program.result.wasSuccessful():
        print("\nThe daemons said:", *SYSTEM_LOG, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
