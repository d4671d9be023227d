#!/usr/bin/python3
"""Debian's Prometheus reads the metrics of a real mount, and evaluates the rules and the dashboard.

Usage: prometheus_test.py DIRECTORY_OF_THE_BINARIES [unittest arguments]

Needs the package prometheus, for prometheus and promtool.
"""

import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
import api_test  # noqa: E402
import mount_command_test as commands  # noqa: E402

MONITORING = commands.PROJECT / "tools/monitoring"


def free_port(start):
    return next(port for port in range(start, 32768) if api_test.is_free(port))


class PrometheusTest(commands.MountTestCase):
    def test_the_metrics_pass_promtool(self):
        self.mount()
        (self.mnt / "small").read_bytes()
        commands.control("cache", "warm", "--wait", self.mnt)
        (self.mnt / "models/big").read_bytes()
        metrics = commands.control("metrics", "export").stdout
        checked = commands.run("promtool", "check", "metrics", input=metrics, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))

    def test_the_rules_pass_promtool(self):
        commands.run("promtool", "check", "rules", MONITORING / "alerts.yml")

    def test_prometheus_scrapes_and_evaluates_rules_and_dashboard(self):
        metrics_port = free_port(20000 + os.getpid() % 6000)
        port = free_port(metrics_port + 1)
        self.mount(f"metrics_listen=127.0.0.1:{metrics_port}")
        (self.mnt / "small").read_bytes()
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{MONITORING}/alerts.yml']\n"
            "scrape_configs:\n"
            "  - job_name: nfs-cachefs\n"
            f"    static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]\n")
        server = subprocess.Popen(
            ["prometheus", f"--config.file={configuration}",
             f"--storage.tsdb.path={self.directory}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

        def ask(what, **parameters):
            query = urllib.parse.urlencode(parameters)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}?{query}",
                                        timeout=commands.PATIENCE_S) as reply:
                return json.load(reply)["data"]

        def value(query):
            try:
                result = ask("query", query=query)["result"]
            except OSError:  # not ready yet
                return None
            return float(result[0]["value"][1]) if result else None

        commands.wait_until(lambda: value("nfs_cachefs_opens_total") is not None, "scraped")
        self.assertEqual(value('up{job="nfs-cachefs"}'), 1.0)
        self.assertEqual(value('nfs_cachefs_opens_total{result="miss"}'), 1.0)
        self.assertEqual(value("nfs_cachefs_cache_limit_bytes"), float(1 << 30))

        def rules():
            return [rule for group in ask("rules")["groups"] for rule in group["rules"]]

        commands.wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()),
                            "all rules were evaluated")
        self.assertGreater(len(rules()), 5)
        for rule in rules():
            self.assertEqual((rule["health"], rule["state"]), ("ok", "inactive"), rule["name"])
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 5)
        for expression in expressions:
            # Grafana's variables stand for these.
            for variable, meaning in ((r"\$__rate_interval", "1m"), (r"\$__interval", "1m"),
                                      (r"\$\{?\w+\}?", ".*")):
                expression = re.sub(variable, meaning, expression)
            ask("query", query=expression)  # an error would be HTTP status 400


if __name__ == "__main__":
    commands.main()
