#!/usr/bin/python3
"""The control API of a real mount, held against its description.

Usage: api_test.py DIRECTORY_OF_THE_BINARIES [unittest arguments]

Every reply is validated against the schema that openapi.json gives for its operation and status,
with members forbidden that the schema does not name; every operation has to be asked for once.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import sys
import tarfile
import time
import urllib.parse

sys.dont_write_bytecode = True
import jsonschema  # noqa: E402
import mount_command_test as commands  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402


class SocketConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=commands.PATIENCE_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(commands.PATIENCE_S)
        self.sock.connect(str(self.path))


def is_free(port):
    with socket.socket() as probe:
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def closed(schema):
    """The schema with no other members allowed than it names."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(value) for name, value in schema.items()}
    if "properties" in result:
        result.setdefault("additionalProperties", False)
    return result


class ApiTest(commands.MountTestCase):
    asked = set()  # (method, pattern, status) over all tests

    def setUp(self):
        super().setUp()
        self.mount()
        self.socket = next(commands.pathlib.Path("/run/nfs-cachefs").iterdir())
        self.document = self.raw("GET", "/v1/openapi.json")[2]

    def raw(self, method, target, body=None):
        connection = SocketConnection(self.socket)
        connection.request(method, target, body=None if body is None else json.dumps(body))
        reply = connection.getresponse()
        content_type = reply.headers.get_content_type()
        text = reply.read()
        connection.close()
        return reply.status, content_type, json.loads(text) if "json" in content_type else text

    def pattern_of(self, target):
        path = urllib.parse.urlsplit(target).path
        parts = path.split("/")
        for pattern in self.document["paths"]:
            names = pattern.split("/")
            if len(names) == len(parts) and all(
                    name == part or name.startswith("{") for name, part in zip(names, parts)):
                return pattern
        raise AssertionError(f"{target} is not described")

    def ask(self, method, target, body=None, expect=200):
        """The reply, which has the expected status and is as described."""
        status, content_type, reply = self.raw(method, target, body)
        self.assertEqual(status, expect, reply)
        pattern = self.pattern_of(target)
        responses = self.document["paths"][pattern][method.lower()]["responses"]
        self.assertIn(str(status), responses, f"{method} {pattern} may not answer this")
        schema = responses[str(status)]["content"][content_type]["schema"]
        if content_type == "application/json":
            components = closed(self.document["components"])
            # The document does not describe itself.
            whole = schema if target == "/v1/openapi.json" else {"components": components,
                                                                 **closed(schema)}
            jsonschema.Draft202012Validator(whole).validate(reply)
        self.asked.add((method.lower(), pattern))
        return reply

    def finish(self, target, *running):
        reply = {}

        def has_ended():
            reply.update(self.ask("GET", target))
            return reply["state"] not in running

        commands.wait_until(has_ended, f"{target} has ended")
        return reply

    def test_the_document_is_consistent(self):
        document = self.document
        self.assertEqual(document["openapi"], "3.1.0")
        for schema in document["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)
        identifiers = []
        for pattern, operations in document["paths"].items():
            for operation in operations.values():
                identifiers.append(operation["operationId"])
                parameters = {item["name"] for item in operation.get("parameters", [])
                              if item["in"] == "path"}
                self.assertEqual({name[1:-1] for name in pattern.split("/") if "{" in name},
                                 parameters, pattern)
        self.assertEqual(len(identifiers), len(set(identifiers)))

        def references(value):
            if isinstance(value, dict):
                if "$ref" in value:
                    yield value["$ref"]
                for item in value.values():
                    yield from references(item)
            if isinstance(value, list):
                for item in value:
                    yield from references(item)

        used = {name.rpartition("/")[2] for name in references(document)}
        self.assertEqual(used, set(document["components"]["schemas"]))

    def test_every_operation_answers_as_described(self):
        self.assertEqual(self.document, json.loads(
            (commands.PROJECT / "fuse_adapter/openapi.json").read_text()))
        self.ask("GET", "/v1/status")
        self.ask("GET", "/v1/health")
        self.assertEqual(self.ask("GET", "/healthz"), b"ok\n")
        self.ask("GET", "/metrics")
        job = self.ask("POST", "/v1/warm", {"paths": [str(self.mnt)], "pin": True,
                                            "bytes_per_second": 100 << 20}, expect=202)
        self.assertEqual(job["bytes_per_second_max"], 100 << 20)
        self.ask("POST", "/v1/warm", {"paths": [str(self.mnt)], "bytes_per_second": 1}, expect=400)
        done = self.finish(f"/v1/warm/{job['id']}", "measuring", "walking", "copying")
        self.assertEqual(done["copied"]["files"], 2)
        (self.mnt / "small").read_bytes()
        self.assertEqual(self.ask("GET", "/v1/warm")["jobs"], [done])
        self.assertEqual(self.ask("DELETE", f"/v1/warm/{job['id']}"), done)
        job = self.ask("POST", "/v1/verify", {}, expect=202)
        done = self.finish(f"/v1/verify/{job['id']}", "running")
        self.assertEqual(done["intact"]["files"], 2)
        self.assertEqual(self.ask("GET", "/v1/verify")["jobs"], [done])
        status = self.ask("GET", "/v1/status")
        self.assertEqual(status["opens"]["hits"], 1)
        self.assertEqual(status["cache"]["pinned_files"], 2)
        paths = {"paths": [str(self.mnt)]}
        invalidated = self.ask("POST", "/v1/invalidate", paths)
        self.assertEqual((invalidated["kept"]["files"], invalidated["complete"]), (2, True))
        self.assertEqual(self.ask("POST", "/v1/unpin", paths)["unpinned"]["files"], 2)
        evicted = []  # what was just read is in use for another moment

        def is_empty():
            evicted.append(self.ask("POST", "/v1/evict", paths)["evicted"]["files"])
            return sum(evicted) == 2

        commands.wait_until(is_empty, "both files were evicted")
        self.assertEqual(self.ask("PUT", "/v1/limit", {"size": "500M"})["limit_bytes"], 500 << 20)
        target = "/v1/files?" + urllib.parse.urlencode({"path": self.mnt, "limit": 1})
        self.ask("GET", target)
        self.ask("GET", "/v1/files?limit=0", expect=400)
        self.ask("GET", "/v1/config")
        (self.mnt / "small").read_bytes()
        self.assertEqual(self.ask("GET", "/v1/hot-files")["files"][0]["path"], "small")
        self.assertEqual(self.ask("PUT", "/v1/log-level", {"level": "debug"})["previous"], "info")
        self.ask("PUT", "/v1/log-level", {"level": "loud"}, expect=400)
        self.assertEqual(self.ask("PUT", "/v1/access-log", {"on": True}),
                         {"on": True, "previous": False})
        self.assertEqual(self.ask("PUT", "/v1/copy-rate", {"mebibytes_per_second": 5}),
                         {"bytes_per_second": 5 << 20, "previous": None})
        self.ask("PUT", "/v1/copy-rate", {"mebibytes_per_second": 1000001}, expect=400)
        self.ask("GET", "/v1/openapi.json")
        described = {(method, pattern) for pattern, operations in self.document["paths"].items()
                     for method in operations}
        self.assertEqual(described - self.asked, set())

    def metrics(self):
        """The families that a parser of Prometheus makes of /metrics, by name."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics").decode())
        return {family.name: family for family in families}

    @staticmethod
    def value(families, name, **labels):
        family = name[:-6] if name.endswith("_total") else name
        found = [sample.value for sample in families[family].samples
                 if sample.name == name and labels.items() <= sample.labels.items()]
        return sum(found)

    def test_metrics_are_what_prometheus_reads_and_count_what_happened(self):
        (self.mnt / "models/big").read_bytes()
        commands.control("cache", "warm", "--wait", self.mnt)
        for _ in range(3):
            (self.mnt / "models/big").read_bytes()
        families = self.metrics()
        for name, family in families.items():
            self.assertIn(family.type, ("counter", "gauge", "histogram"), name)
            self.assertTrue(family.documentation.endswith("."), name)
            for sample in family.samples:
                if not name.startswith("process_") or sample.labels:
                    self.assertEqual(sample.labels["mountpoint"], str(self.mnt))
        status = self.ask("GET", "/v1/status")
        self.assertEqual(self.value(families, "nfs_cachefs_opens_total", result="hit"), 3)
        self.assertEqual(self.value(families, "nfs_cachefs_opens_total", result="miss"), 1)
        self.assertEqual(self.value(families, "nfs_cachefs_copies_total", result="finished"), 2)
        self.assertEqual(self.value(families, "nfs_cachefs_cache_used_bytes"),
                         status["cache"]["used_bytes"])
        self.assertEqual(self.value(families, "nfs_cachefs_backend_read_bytes_total"),
                         status["backend_reads"]["bytes"])
        for bytes_name, metric in (("bytes", "prefetched"), ("used_bytes", "prefetched_used"),
                                   ("wasted_bytes", "prefetched_wasted")):
            for reason, counts in status["prefetch"].items():
                self.assertEqual(
                    self.value(families, f"nfs_cachefs_{metric}_bytes_total", reason=reason),
                    counts[bytes_name])
        for histogram, labels in (("open", {"result": "hit"}), ("copy", {}),
                                  ("read", {"source": "backend"})):
            name = f"nfs_cachefs_{histogram}_duration_seconds"
            samples = [sample for sample in families[name].samples
                       if labels.items() <= sample.labels.items()]
            buckets = [sample.value for sample in samples if sample.name == name + "_bucket"]
            count, = (sample.value for sample in samples if sample.name == name + "_count")
            self.assertEqual(buckets, sorted(buckets))
            self.assertEqual(buckets[-1], count)
        self.assertEqual(commands.control("metrics", "export").stdout.splitlines()[0],
                         "# HELP nfs_cachefs_build_info Constant 1; the label is the version.")

    def test_dashboard_and_alerts_use_only_metrics_that_there_are(self):
        families = self.metrics()
        known = set()
        for name, family in families.items():
            known |= {name} | {sample.name for sample in family.samples}
        monitoring = commands.PROJECT / "tools/monitoring"
        dashboard = json.loads((monitoring / "dashboard.json").read_text())
        self.assertGreater(len(dashboard["panels"]), 5)
        for file in ("dashboard.json", "alerts.yml"):
            used = set(re.findall(r"nfs_cachefs_\w+", (monitoring / file).read_text()))
            self.assertGreater(len(used), 5)
            self.assertEqual(used - known, set(), file)
        # The labels and the values that are asked for.
        for file in ("dashboard.json", "alerts.yml"):
            text = (monitoring / file).read_text().replace('\\"', '"')
            for name, label, value in re.findall(
                    r'(nfs_cachefs_\w+)\{[^}]*?(\w+)="(\w+)"', text):
                samples = families[name.removesuffix("_total")].samples
                self.assertIn(value, {sample.labels.get(label) for sample in samples}, name)

    def test_metrics_are_told_over_tcp_when_asked_for(self):
        # Below the ports that others are given without asking.
        port = next(port for port in range(20000 + os.getpid() % 10000, 32768) if is_free(port))
        other = self.directory / "other"
        self.mount(f"cache_dir={self.directory}/cache2,metrics_listen=127.0.0.1:{port}",
                   where=other)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=commands.PATIENCE_S)
        for target, status in (("/metrics", 200), ("/healthz", 200), ("/v1/status", 403)):
            connection.request("GET", target)
            reply = connection.getresponse()
            text = reply.read().decode()
            self.assertEqual(reply.status, status)
            if target == "/metrics":
                self.assertIn(f'nfs_cachefs_cache_limit_bytes{{mountpoint="{other}"}}', text)
        connection.close()
        told = commands.control("metrics", "export").stdout
        self.assertEqual(told.count("# TYPE nfs_cachefs_opens_total counter"), 1)
        self.assertEqual(told.count("nfs_cachefs_recovering{"), 2)

    def test_the_health_check_tells_what_is_wrong_by_its_exit_status(self):
        told = commands.control("health", "check", self.mnt)
        self.assertIn(": ok\n", told.stdout)
        commands.control("cache", "pin", "--wait", self.mnt)
        commands.control("limit", self.mnt, "16M")
        self.write("models/pinned", bytes(12 << 20))
        commands.control("cache", "pin", "--wait", self.mnt / "models", check=False)
        wrong = commands.control("health", "check", self.mnt, "--strict", check=False)
        self.assertEqual(wrong.returncode, 3, wrong.stdout)
        self.assertRegex(wrong.stdout, r"warning +pins .*\n +-> unpin")
        self.assertEqual(commands.control("health", "check", self.mnt).returncode, 0)
        state, = json.loads(commands.control("health", "check", self.mnt, "--json").stdout)
        self.assertEqual(state["state"], "warning")
        self.assertRegex(told.stdout, r"ok +cache_mount +\w+, rw")
        commands.control("log-level", self.mnt, "debug")
        told = commands.control("health", "check", self.mnt).stdout
        self.assertRegex(told, r"warning +logging .*\n +-> nfs-cachefs-ctl log-level")

    def test_files_are_listed_and_explained(self):
        self.write("models/a b+%", bytes(5000))
        commands.control("cache", "pin", "--wait", self.mnt / "models")
        listed, = json.loads(commands.control("ls", "--json").stdout)
        self.assertEqual([(file["path"], file["state"], file["pinned"])
                          for file in listed["files"]],
                         [("models/a b+%", "complete", True), ("models/big", "complete", True)])
        missing = commands.control("ls", self.mnt / "models/missing", check=False)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("models/missing: neither in the cache nor on the backend", missing.stderr)
        told = commands.control("ls", self.mnt / "models/a b+%").stdout
        self.assertRegex(told, r"complete +100.0 % +4.9 KiB +yes +.* models/a b\+%")
        self.assertNotIn("big", told)
        self.assertIn("come from the cache",
                      commands.control("explain", self.mnt / "models/big").stdout)
        self.assertIn("knows nothing", commands.control("explain", self.mnt / "small").stdout)
        result = commands.control("explain", self.mnt, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("a directory", result.stderr)

    def test_a_dry_run_tells_whether_it_fits_and_copies_nothing(self):
        told = commands.control("cache", "warm", "--dry-run", self.mnt).stdout
        self.assertIn("2 files (3.0 MiB), of these 2 (3.0 MiB) are to be copied\n", told)
        self.assertIn("fits; 1021.0 MiB would stay free\n", told)
        self.assertEqual(self.ask("GET", "/v1/warm")["jobs"], [])
        commands.control("cache", "warm", "--wait", self.mnt / "models")
        commands.control("limit", self.mnt, "16M")
        self.write("huge", bytes(14 << 20))
        told = commands.control("cache", "warm", "--dry-run", self.mnt / "huge").stdout
        self.assertRegex(told, r"fits; about 1\.\d MiB of other files would be evicted\n"
                               r"  probably models/big\n")
        plan = commands.control("cache", "warm", "--dry-run", "--json", self.mnt, check=False)
        self.assertEqual(plan.returncode, 3, plan.stderr)
        row, = json.loads(plan.stdout)
        self.assertEqual((row["files"], row["files_to_copy"], row["fits"]), (3, 2, False))

    def test_what_does_not_fit_is_refused_unless_as_much_as_fits_will_do(self):
        for name in ("one", "two"):
            self.write(f"models/{name}", bytes(8 << 20))
        commands.control("limit", self.mnt, "16M")
        for wait in ((), ("--wait",)):
            refused = commands.control("cache", "warm", *wait, self.mnt / "models", check=False)
            self.assertEqual(refused.returncode, 3, refused.stderr)
            self.assertRegex(refused.stdout, r"needs 19\.\d MiB, the cache holds 16\.0 MiB")
        for job in self.ask("GET", "/v1/warm")["jobs"]:
            self.assertEqual((job["state"], job["found"]["files"]), ("refused", 0))
        self.assertEqual(self.ask("GET", "/v1/status")["backend_reads"]["bytes"], 0)
        commands.control("cache", "warm", "--wait", "--best-effort", self.mnt / "models",
                         check=False)
        last = self.ask("GET", "/v1/warm")["jobs"][-1]
        self.assertEqual((last["state"], last["found"]["files"]), ("done", 3))
        # What is pinned elsewhere leaves less, what is pinned here does not.
        commands.control("cache", "pin", "--wait", self.mnt / "models/one")
        self.assertEqual(commands.control("cache", "warm", "--wait", self.mnt / "models/two",
                                          check=False).returncode, 3)
        commands.control("cache", "warm", "--wait", self.mnt / "models/one")

    def test_levels_and_limits_are_changed_by_config_set(self):
        seen = len(commands.SYSTEM_LOG)
        self.assertIn("level debug until the next mount, it was info",
                      commands.control("log-level", self.mnt, "debug").stdout)
        (self.mnt / "small").read_bytes()
        commands.wait_until(lambda: any("CACHE_MISS small" in line
                                        for line in commands.SYSTEM_LOG[seen:]),
                            "the miss is logged")
        commands.control("config", "set", self.mnt, "cache_size", "64M")
        commands.control("config", "set", self.mnt, "copy_rate_mb", "2")
        told = commands.control("config", "show", self.mnt).stdout
        self.assertRegex(told, r"\* copy_rate_mb +2 +hot +\(default 0\)")
        # A block at once, and the others at their time. Not above the ceiling of all.
        begun = time.monotonic()
        told = commands.control("cache", "warm", "--wait", "--rate", "100",
                                self.mnt / "models/big").stdout
        self.assertIn("1 files (3.0 MiB) copied", told)
        self.assertGreater(time.monotonic() - begun, 0.8)
        commands.control("config", "set", self.mnt, "copy_rate_mb", "0")
        wrong = commands.control("config", "set", self.mnt, "copy_rate_mb", "fast", check=False)
        self.assertEqual(wrong.returncode, 1)
        told = commands.control("config", "show", self.mnt).stdout
        self.assertRegex(told, r"\* cache_size +67108864B +hot")
        self.assertRegex(told, r"\* log_level +debug +hot +\(default info\)")
        self.assertRegex(told, r"  eviction +lru")
        self.assertRegex(told, r"  cto +yes *\n")
        self.assertRegex(told, r"  nocto +no *\n")
        for name, text in (("eviction", "is changed only by mounting again"),
                           ("evicton", "there is no such option")):
            result = commands.control("config", "set", self.mnt, name, "arc", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{text}", result.stderr)
            self.assertIn("while mounted: cache_size, copy_rate_mb, log_level, access_log",
                          result.stderr)

    def test_the_configuration_shows_what_a_profile_has_decided(self):
        other = self.directory / "other"
        self.mount(f"cache_dir={self.directory}/cache2,profile=static,attr_timeout=7", where=other)
        told = commands.control("config", "show", other).stdout
        for line in (r"\* profile +static +\(default normal\)",
                     r"\* entry_timeout +3600 +\(default 1\)",
                     r"\* attr_timeout +7 +\(default 1\)",
                     r"\* nocto +yes +\(default no\)"):
            self.assertRegex(told, line)

    def test_the_level_comes_from_the_environment_and_the_journal_gets_the_log(self):
        commands.run("umount", self.mnt)
        command = [str(word) for word in (commands.BINARIES / "nfs-cachefs", "-f", "-o",
                                          self.options, "cachefs", self.mnt)]
        seen = len(commands.SYSTEM_LOG)
        with open(self.directory / "stderr", "w+b") as stream:
            status = os.fstat(stream.fileno())
            environment = {**os.environ, "CACHEFS_LOG": "debug",
                           "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            with commands.subprocess.Popen(command, stderr=stream, env=environment) as daemon:
                self.pids.append(daemon.pid)
                commands.wait_until(lambda: commands.mount_line(self.mnt), "mounted")
                (self.mnt / "small").read_bytes()
                commands.run("umount", self.mnt)
                self.assertEqual(daemon.wait(timeout=commands.PATIENCE_S), 0)
            stream.seek(0)
            self.assertEqual(stream.read(), b"")
        for text in ("mounted ", "CACHE_MISS small"):
            commands.wait_until(
                lambda text=text: any(f"cachefs[{daemon.pid}]: {text}" in line
                                      for line in commands.SYSTEM_LOG[seen:]), f"{text} is logged")
        wrong = commands.run(*command, check=False, env={**os.environ, "CACHEFS_LOG": "loud"})
        self.assertEqual(wrong.returncode, 1)
        self.assert_one_line(wrong.stderr, "CACHEFS_LOG=loud: must be trace, debug")

    def test_what_is_invalidated_is_asked_for_again_and_dropped_only_if_outdated(self):
        other = self.directory / "other"
        # Without it nothing would be asked for as long as the test takes.
        self.mount(f"cache_dir={self.directory}/cache2,profile=static,entry_timeout=86400,"
                   "attr_timeout=86400,negative_timeout=86400", where=other)
        for name in ("models/a", "models/b"):
            self.write(name, b"old" * 1000)
        commands.control("cache", "warm", "--wait", other)
        for name in ("models/a", "models/b", "models/big", "small"):
            (other / name).read_bytes()
        self.assertFalse((other / "models/new").exists())
        self.write("models/a", b"new")
        (self.backend / "models/b").unlink()
        self.write("models/new", b"x")
        # Is believed from memory until it is invalidated.
        self.assertEqual((other / "models/a").stat().st_size, 3000)
        self.assertFalse((other / "models/new").exists())

        row, = json.loads(commands.control("invalidate", "--json", other / "models",
                                           other / "models/new").stdout)
        self.assertEqual((row["kept"]["files"], row["kept"]["bytes"]), (1, 3 << 20))
        self.assertEqual((row["dropped"]["files"], row["dropped"]["bytes"]), (2, 6000))
        self.assertEqual((row["failed"]["files"], row["complete"]), (0, True))
        self.assertGreaterEqual(row["names"], 4)
        self.assertEqual((other / "models/a").stat().st_size, 3)
        self.assertEqual((other / "models/a").read_bytes(), b"new")
        self.assertEqual((other / "models/new").read_bytes(), b"x")
        self.assertFalse((other / "models/b").exists())
        hits = self.status(other)["opens"]["hits"]
        self.assertEqual((other / "models/big").read_bytes(),
                         (self.backend / "models/big").read_bytes())
        self.assertEqual(self.status(other)["opens"]["hits"], hits + 1)
        told = commands.control("invalidate", other / "models/big").stdout
        self.assertIn("1 files (3.0 MiB) up to date and kept, 0 files (0 B) outdated", told)

    def test_cleaning_drops_by_path_by_age_or_everything(self):
        commands.control("cache", "warm", "--wait", self.mnt)
        for arguments in ((), ("--all", "--older-than", "7d"), ("--all", "--path", self.mnt),
                          ("--path", self.mnt, self.mnt)):
            refused = commands.control("cache", "clean", *arguments, check=False)
            self.assertEqual(refused.returncode, 1, arguments)
        self.assertIn("0 files (0 B) evicted", commands.control(
            "cache", "clean", "--older-than", "7d", "--path", self.mnt / "small").stdout)
        self.assertIn("1 files (6 B) evicted", commands.control(
            "cache", "clean", "--path", self.mnt / "small").stdout)
        self.assertIn("1 files (3.0 MiB) evicted",
                      commands.control("cache", "clean", "--all", self.mnt).stdout)

    def test_every_open_is_logged_when_the_access_log_is_switched_on(self):
        seen = len(commands.SYSTEM_LOG)
        commands.control("cache", "warm", "--wait", self.mnt)
        (self.mnt / "small").read_bytes()
        told = commands.control("config", "set", self.mnt, "access_log", "true").stdout
        self.assertIn("every open is logged", told)
        self.write("strange\nname", b"x")
        (self.mnt / "models/big").read_bytes()
        (self.mnt / "strange\nname").read_bytes()
        lines = []

        def is_logged():
            lines[:] = [line.partition("]: ")[2] for line in commands.SYSTEM_LOG[seen:]
                        if "CACHE_" in line]
            return len(lines) == 2

        commands.wait_until(is_logged, "both opens are logged")
        self.assertRegex(lines[0], r"^CACHE_HIT models/big cached, size=3145728 mode=\w+ uid=0 "
                                   rf"pid={os.getpid()}$")
        self.assertIn(r"CACHE_MISS strange\x0aname ", lines[1])
        self.assertRegex(commands.control("config", "show", self.mnt).stdout,
                         r"\* access_log +true +hot +\(default false\)")
        wrong = commands.control("config", "set", self.mnt, "access_log", "loud", check=False)
        self.assertEqual(wrong.returncode, 1)
        self.assert_one_line(wrong.stderr, "must be true or false")

    def test_top_tells_rates_and_hot_files_and_what_it_cannot_count(self):
        commands.control("cache", "warm", "--wait", self.mnt)
        with commands.subprocess.Popen(
                [commands.BINARIES / "nfs-cachefs-ctl", "top", "--json", "--interval", "0.2",
                 self.mnt], stdout=commands.subprocess.PIPE, text=True) as live:
            try:
                live.stdout.readline()
                for _ in range(5):
                    (self.mnt / "models/big").read_bytes()
                # In which of the next intervals they are seen is a matter of time.
                seen = 0.0
                while seen < 4.9:
                    row, = json.loads(live.stdout.readline())
                    seen += row["rates"]["opens_hit"] * row["rates"]["seconds"]
            finally:
                live.terminate()
        hot, = row["hot_files"]
        self.assertEqual((hot["path"], hot["size_bytes"]), ("models/big", 3 << 20))
        self.assertIn(hot["opens"], range(1, 6))  # fewer only when a minute has passed
        told = commands.control("top", "--once", "--interval", "0.1").stdout
        self.assertRegex(told, r" +\d +3\.0 MiB  models/big\n")
        self.assertIn("uncounted", told)
        self.assertNotIn("\033", told)
        nobody = commands.run("setpriv", "--reuid", "65534", "--clear-groups",
                              commands.BINARIES / "nfs-cachefs-ctl", "top", "--once",
                              "--interval", "0.1")
        self.assertIn("only root is told names", nobody.stdout)

    def test_a_debug_bundle_holds_all_but_contents_and_on_demand_no_names(self):
        # The journal of the machine that tests is not ours to read, and would be another each time.
        programs = self.directory / "programs"
        programs.mkdir()
        message = {"MESSAGE": "copy failed: models/big: broken", "CACHEFS_EVENT": "copy failed",
                   "CACHEFS_PATH": "models/big", "_PID": "7", "__REALTIME_TIMESTAMP": "0"}
        (programs / "messages").write_text(json.dumps(message) + "\n")
        script = programs / "journalctl"
        script.write_text('#!/bin/sh\ncase "$*" in\n'
                          f'*-k*) echo "nfs: server not responding"; echo "usb: secret device";;\n'
                          f'*) cat {programs}/messages;;\nesac\n')
        script.chmod(0o755)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.write("models/big", b"CONTENT OF A FILE" * 1000)
        commands.control("cache", "warm", "--wait", self.mnt)
        (self.mnt / "models/big").read_bytes()

        def bundle(name, *options):
            output = self.directory / name
            told = commands.run(commands.BINARIES / "nfs-cachefs-ctl", "debug", "bundle",
                                "--output", output, *options, env=environment).stdout
            self.assertEqual(output.stat().st_mode & 0o777, 0o600)
            with tarfile.open(output) as archive:
                texts = {member.name.partition("/")[2]: archive.extractfile(member).read().decode()
                         for member in archive if member.isfile()}
            return told, texts

        told, texts = bundle("a.tar.gz")
        self.assertIn("with names of files but nothing of what is in them", told)
        for name in ("status", "config", "health", "warm", "hot-files", "files-1"):
            json.loads(texts[f"mount-1/{name}.json"])
        self.assertIn("nfs_cachefs_opens_total", texts["mount-1/metrics.txt"])
        self.assertIn(str(self.mnt), texts["mountinfo"])
        self.assertIn("Max open files", texts["mount-1/process/limits"])
        self.assertIn("copy failed: models/big: broken", texts["log.txt"])
        self.assertEqual(texts["kernel.txt"], "nfs: server not responding\n")
        self.assertIn("models/big", texts["mount-1/files-1.json"])
        manifest = json.loads(texts["manifest.json"])
        self.assertIn("mount-1/status.json", manifest["files"])
        self.assertNotIn("CONTENT OF A FILE", "".join(texts.values()))

        _, texts = bundle("b.tar.gz", "--anonymize")
        for name, text in texts.items():
            self.assertNotIn("models", text, name)
        self.assertRegex(texts["log.txt"], r"copy failed: n\d+/n\d+ bytes")
        wrong = commands.control("debug", "bundle", "-o", self.directory / "a.tar.gz", check=False)
        self.assertEqual(wrong.returncode, 1)
        self.assert_one_line(wrong.stderr, "a.tar.gz: File exists")

    def test_journald_is_told_with_fields(self):
        place = commands.pathlib.Path("/run/systemd/journal/socket")  # of this namespace
        place.parent.mkdir(parents=True)
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(commands.shutil.rmtree, "/run/systemd")
        self.addCleanup(journal.close)
        journal.bind(str(place))
        journal.settimeout(commands.PATIENCE_S)
        other = self.directory / "other"
        self.mount(f"cache_dir={self.directory}/cache2,log_level=debug", where=other)
        self.write("two\nlines", b"12345")
        (other / "two\nlines").read_bytes()

        def fields(message):
            result = {}
            while message:
                line, _, message = message.partition(b"\n")
                name, equals, value = line.partition(b"=")
                if not equals:
                    length = int.from_bytes(message[:8], "little")
                    value, message = message[8:8 + length], message[8 + length + 1:]
                result[name.decode()] = value.decode()
            return result

        def next_of(event):
            while True:
                message = fields(journal.recv(65536))
                self.assertEqual(message["SYSLOG_IDENTIFIER"], "cachefs")
                self.assertEqual(message["CACHEFS_MOUNT"], str(other))
                if message.get("CACHEFS_EVENT") == event:
                    return message

        miss = next_of("CACHE_MISS")
        self.assertEqual(miss["CACHEFS_PATH"], "two\nlines")
        self.assertEqual(miss["CACHEFS_BYTES"], "5")
        self.assertEqual(miss["CACHEFS_CALLER_UID"], "0")
        self.assertEqual(miss["PRIORITY"], "7")
        self.assertIn("CACHE_MISS two\\x0alines ", miss["MESSAGE"])
        commands.control("cache", "warm", other / "small")
        copied = {next_of("copy finished")["CACHEFS_PATH"] for _ in range(2)}
        self.assertEqual(copied, {"two\nlines", "small"})

    def test_errors_are_as_described(self):
        self.ask("GET", "/v1/warm/1", expect=404)
        self.ask("DELETE", "/v1/warm/1", expect=404)
        self.ask("GET", "/v1/verify/1", expect=404)
        for target in ("/v1/warm", "/v1/evict", "/v1/unpin", "/v1/invalidate"):
            self.ask("POST", target, {"paths": ["/etc"]}, expect=400)
        self.ask("POST", "/v1/warm", {"paths": [f"{self.mnt}/missing"]}, expect=422)
        self.ask("PUT", "/v1/limit", {"size": "1K"}, expect=400)

    def test_other_users_may_look_but_not_touch(self):
        def as_nobody(*arguments):
            return commands.run("setpriv", "--reuid", "65534", "--clear-groups",
                                commands.BINARIES / "nfs-cachefs-ctl", *arguments, check=False)

        commands.control("cache", "warm", "--wait", self.mnt)
        seen = as_nobody("status", "--json")
        self.assertEqual(seen.returncode, 0, seen.stderr)
        status = json.loads(seen.stdout)[0]
        self.assertEqual(status["warm_jobs"][0]["copied"]["files"], 2)
        self.assertEqual(status["warm_jobs"][0]["paths"], [])
        self.assertEqual(as_nobody("list").returncode, 0)
        self.assertEqual(as_nobody("health", "check").returncode, 0)
        self.assertIn("nfs_cachefs_opens_total", as_nobody("metrics", "export").stdout)
        for arguments in (("warm", "list"), ("cache", "verify"),
                          ("cache", "clean", "--older-than", "7d")):
            refused = as_nobody(*arguments)
            self.assertEqual(refused.returncode, 4, arguments)
            self.assertIn("permission denied", refused.stderr)


if __name__ == "__main__":
    commands.main()
