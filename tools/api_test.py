#!/usr/bin/env python3
"""The control API of a real mount, held against its description.

Usage: api_test.py DIRECTORY_OF_THE_BINARIES [unittest arguments]

Every reply is validated against the schema that openapi.json gives for its operation and status,
with members forbidden that the schema does not name; every operation has to be asked for once.
"""

import http.client
import json
import socket
import sys
import urllib.parse

sys.dont_write_bytecode = True
import jsonschema  # noqa: E402
import mount_command_test as commands  # noqa: E402


class SocketConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=commands.PATIENCE_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(commands.PATIENCE_S)
        self.sock.connect(str(self.path))


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
        if schema.get("type") == "object":  # anything
            return reply
        if content_type == "application/json":
            components = closed(self.document["components"])
            whole = {"components": components, **closed(schema)}
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
        job = self.ask("POST", "/v1/warm", {"paths": [str(self.mnt)], "pin": True}, expect=202)
        done = self.finish(f"/v1/warm/{job['id']}", "walking", "copying")
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
        self.assertEqual(self.ask("POST", "/v1/unpin", paths)["unpinned"]["files"], 2)
        evicted = []  # what was just read is in use for another moment

        def is_empty():
            evicted.append(self.ask("POST", "/v1/evict", paths)["evicted"]["files"])
            return sum(evicted) == 2

        commands.wait_until(is_empty, "both files were evicted")
        self.assertEqual(self.ask("PUT", "/v1/limit", {"size": "500M"})["limit_bytes"], 500 << 20)
        described = {(method, pattern) for pattern, operations in self.document["paths"].items()
                     for method in operations}
        self.assertEqual(described - self.asked, {("get", "/v1/openapi.json")})

    def test_errors_are_as_described(self):
        self.ask("GET", "/v1/warm/1", expect=404)
        self.ask("DELETE", "/v1/warm/1", expect=404)
        self.ask("GET", "/v1/verify/1", expect=404)
        for target in ("/v1/warm", "/v1/evict", "/v1/unpin"):
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
        for arguments in (("warm", "list"), ("cache", "verify"),
                          ("cache", "clean", "--older-than", "7d")):
            refused = as_nobody(*arguments)
            self.assertEqual(refused.returncode, 4, arguments)
            self.assertIn("permission denied", refused.stderr)


if __name__ == "__main__":
    commands.main()
