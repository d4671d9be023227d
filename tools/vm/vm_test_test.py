"""What tools/vm-test makes of its arguments, of README.md and of a build, without a machine."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True


def load():
    loader = importlib.machinery.SourceFileLoader("vm_test", str(TOOLS / "vm-test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("vm_test", loader))
    loader.exec_module(module)
    return module


vm_test = load()


class Arguments(unittest.TestCase):
    def test_defaults_are_the_release_build_both_kernels_and_the_whole_scenario(self):
        arguments = vm_test.parse([])
        self.assertEqual(arguments.build, TOOLS.parent / "build" / "release")
        self.assertEqual((arguments.kernel, arguments.steps), ("both", []))
        self.assertFalse(arguments.install)

    def test_unknown_kernels_are_refused(self):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            vm_test.parse(["--kernel", "7.0"])

    def test_every_step_is_a_check_of_the_guest(self):
        checks = (vm_test.GUEST / "checks").read_text(encoding="utf-8")
        known = set(re.findall(r"^check_(\w+)\(\)", checks, re.MULTILINE))
        steps = {step.split()[0] for step in vm_test.SCENARIO} - {"reboot", "power_cut"}
        self.assertEqual(steps - known, set())
        self.assertEqual(known - steps, {"all_equal", "power_off", "shell"})

    def test_the_scripts_of_the_guest_are_bash(self):
        for name in ("agent", "checks"):
            subprocess.run(["bash", "-n", vm_test.GUEST / name], check=True)


class Fstab(unittest.TestCase):
    def test_is_that_of_the_readme_on_the_disks_of_the_guest(self):
        readme = (TOOLS.parent / "README.md").read_text(encoding="utf-8")
        lines = [line.split() for line in vm_test.fstab(readme).splitlines()]
        self.assertTrue(all(len(fields) == 6 for fields in lines))
        by_place = {fields[1]: fields for fields in lines}
        self.assertEqual(list(by_place),
                         ["/", "/srv/export", "/mnt/nfs", "/mnt/nvme", "/mnt/cached"])
        source, _, kind, options, _, _ = by_place["/mnt/cached"]
        self.assertEqual((source, kind), ("cachefs", "cachefs"))
        readme_line = next(line for line in readme.splitlines() if line.startswith("    cachefs "))
        self.assertTrue(options.startswith(readme_line.split()[3] + ","))
        self.assertEqual(by_place["/mnt/nfs"][0], "127.0.0.1:/srv/export")
        self.assertEqual(by_place["/mnt/nvme"][0], "LABEL=ncfs-cache")

    def test_a_readme_without_the_lines_is_an_error(self):
        with self.assertRaisesRegex(vm_test.Failed, "fstab line"):
            vm_test.fstab("    10.20.66.201:/share  /mnt/nfs  nfs  defaults  0 0\n")


class Payload(unittest.TestCase):
    def test_holds_what_the_guest_needs(self):
        with tempfile.TemporaryDirectory() as name:
            place = pathlib.Path(name)
            for binary in ("nfs-cachefs", "nfs-cachefs-ctl"):
                (place / binary).write_text("#!/bin/true\n", encoding="utf-8")
                (place / binary).chmod(0o755)
            vm_test.make_payload(place / "payload.tar", place)
            with tarfile.open(place / "payload.tar") as archive:
                names = archive.getnames()
                helper = archive.getmember("usr/sbin/mount.cachefs")
                exports = archive.extractfile("etc/exports").read().decode()
                agent = archive.getmember("usr/local/lib/vm-test/agent")
        self.assertEqual(helper.linkname, "/usr/local/bin/nfs-cachefs")
        self.assertIn("usr/local/bin/nfs-cachefs-ctl", names)
        self.assertIn("etc/fstab", names)
        self.assertIn("root_squash", exports)
        self.assertTrue(agent.mode & 0o100)

    def test_missing_binaries_are_an_error(self):
        with tempfile.TemporaryDirectory() as name, self.assertRaisesRegex(vm_test.Failed, "build"):
            vm_test.make_payload(pathlib.Path(name) / "payload.tar", pathlib.Path(name))


class Table(unittest.TestCase):
    def test_shows_medians(self):
        report = vm_test.Report()
        with contextlib.redirect_stdout(io.StringIO()):
            report.begin("table")
            for line in ("value nfs cold 5", "value nfs cold 1", "value nfs cold 2", "ok",
                         "not ok", "value fsc warm 7.5"):
                report.add(line)
        self.assertEqual(vm_test.table(report),
                         ["|  | cold | warm |", "| nfs | 2 | - |", "| fsc | - | 7.5 |"])
        self.assertEqual((report.count("ok"), report.count("not ok")), (1, 1))


if __name__ == "__main__":
    unittest.main()
