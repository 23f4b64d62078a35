"""Origins that only a proxy leads to, and what is said when it does not. Credentials of proxies and
origins go to whom they belong."""

import os
import time

from harness import process, suite, trees
from harness.granary import Granary
from harness.minio import Minio
from harness.nginx import Proxy, Static
from harness.recorder import BODY, Recorder
from harness.tinyproxy import Tinyproxy

# What ends at once takes less, also on a busy machine; what is retried takes more.
SOON = 20


class Proxied(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.objects = {**trees.samples(30, 50_000), "deep/1/2/f": b"5", "odd/with space.bin": b"1"}
        root = cls.shared.directory("root")
        trees.write_objects(root, cls.objects)
        cls.plain = Static(cls.shared, root)
        cls.secure = Static(cls.shared, root, tls=True, name="secure")
        cls.minio = Minio(cls.shared)
        cls.minio.fill("proxied", cls.objects)
        cls.s3_secure = Proxy(cls.shared, cls.minio.port, name="s3-secure", tls=True)
        cls.proxy = Tinyproxy(cls.shared, [cls.secure.port, cls.s3_secure.port])

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.minio.environment())
        self.proxy.requests()

    def origins(self):
        """Name, URL, flags, what the proxy is asked for, what errors call it."""
        tls, s3 = self.secure, self.s3_secure
        return [
            ("http", self.plain.url + "/", [], f"GET {self.plain.url}/deep/1/2/f", self.plain.url),
            ("https", tls.url + "/", ["--ca-file", tls.ca_file], f"CONNECT localhost:{tls.port}",
             tls.url),
            ("s3 by http", "s3://proxied", ["--endpoint", self.minio.endpoint],
             f"GET {self.minio.endpoint}/proxied/deep/1/2/f", "s3://proxied"),
            ("s3 by https", "s3://proxied", ["--endpoint", s3.endpoint, "--ca-file", s3.ca_file],
             f"CONNECT localhost:{s3.port}", "s3://proxied"),
        ]

    def read_all(self):
        for key, body in self.objects.items():
            self.assertEqual((self.mount / key).read_bytes(), body)

    def refused(self, url, *flags, environment):
        """The line of an `up` that must fail, soon."""
        began = time.monotonic()
        done = self.granary.run("up", url, self.mount, *self.granary.directories(), *flags,
                                check=False, environment=environment)
        self.assertNotEqual(done.returncode, 0)
        self.assertLess(time.monotonic() - began, SOON)
        lines = process.error_lines(done.stderr)
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertEqual(self.granary.processes(), [])
        return lines[0]

    def test_every_kind_of_origin_is_reached_through_the_proxy_of_the_environment(self):
        for name, url, flags, asked, _ in self.origins():
            with self.subTest(name):
                server = self.granary.up(url, self.mount, "--name", "d", *flags,
                                         environment=self.proxy.environment())
                self.read_all()
                self.assertIn(asked, self.proxy.requests())
                server.close()
                self.forget()

    def forget(self):
        """The next `up` is another host."""
        self.granary.close()
        self.granary = Granary(self.work, f"g{len(os.listdir(self.work.path))}",
                               self.minio.environment())

    def test_no_proxy_leaves_hosts_out(self):
        wrong = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
        by_environment = {**wrong, "no_proxy": "example.com,localhost,127.0.0.1"}
        for name, url, flags, *_ in self.origins():
            for how, environment, more in (
                    ("environment", by_environment, []),
                    ("flag", wrong, ["--no-proxy", "localhost,127.0.0.1"])):
                with self.subTest(name, how=how):
                    server = self.granary.up(url, self.mount, "--name", "d", *flags, *more,
                                             environment=environment)
                    self.read_all()
                    server.close()
                    self.forget()
        self.assertEqual(self.proxy.requests(), [])

    def test_a_proxy_that_is_down_is_named_with_the_origin(self):
        port = process.free_port()
        url = f"http://ann:hush-hush@127.0.0.1:{port}"
        for name, origin, flags, _, shown in self.origins():
            with self.subTest(name):
                text = self.refused(origin, *flags,
                                    environment={"http_proxy": url, "https_proxy": url})
                self.assertIn(shown, text)
                self.assertIn(f"proxy http://127.0.0.1:{port}", text)
                self.assertNotIn("hush", text)

    def test_a_proxy_that_refuses_is_named_with_its_status(self):
        for name, origin, flags, _, shown in self.origins():
            with self.subTest(name):
                text = self.refused(origin, *flags,
                                    environment=self.proxy.environment("not-it"))
                self.assertIn(shown, text)
                self.assertRegex(text, r"40[17]")
                self.assertIn(f"proxy http://{self.proxy.address}", text)
                self.assertNotIn("not-it", text)

    def test_a_tunnel_that_the_proxy_does_not_make_is_told(self):
        elsewhere = Tinyproxy(self.work, [1])
        for name, origin, flags, asked, shown in self.origins():
            if not asked.startswith("CONNECT"):
                continue
            with self.subTest(name):
                text = self.refused(origin, *flags, environment=elsewhere.environment())
                self.assertIn(shown, text)
                self.assertIn("403", text)
                self.assertIn(f"proxy http://{elsewhere.address}", text)

    def test_a_proxy_that_makes_no_sense_is_told_without_its_password(self):
        for variable in ("http_proxy", "https_proxy"):
            for value in ("ftp://ann:hush-hush@127.0.0.1:1", "http://ann:hush-hush@[::1",
                          "http://ann:hush-hush@host:99999"):
                for url in (self.plain.url + "/", "s3://proxied"):
                    with self.subTest(variable, value=value, url=url):
                        text = self.refused(url, "--endpoint", self.minio.endpoint,
                                            environment={variable: value})
                        self.assertIn(variable.replace("_", "-"), text)
                        self.assertNotIn("hush", text)

    def test_a_proxy_that_goes_away_ends_reads_with_its_name_and_never_its_password(self):
        for name, origin, flags, _, shown in self.origins():
            with self.subTest(name):
                proxy = Tinyproxy(self.work, [self.secure.port, self.s3_secure.port],
                                  name=name.replace(" ", "-"))
                server = self.granary.up(origin, self.mount, "--name", "d", "--log-level", "debug",
                                         "--read-timeout", "3", *flags,
                                         environment=proxy.environment())
                self.assertEqual((self.mount / "deep/1/2/f").read_bytes(), b"5")
                proxy.server.close()
                with self.assertRaises(OSError):
                    (self.mount / "odd/with space.bin").read_bytes()
                suite.wait_until(lambda: self.granary.stat("d")["last_error"], 20, "told")
                self.assertRegex(server.output(), f"{shown}.*proxy http://{proxy.address}")
                self.assert_secret(proxy.password)
                server.close()
                self.forget()

    def assert_secret(self, secret):
        shown = self.granary.ask("dataset", "stat", "d", "-o", "json").stdout.encode()
        shown += self.granary.ask("status", "-o", "json").stdout.encode()
        shown += b"".join(log.read_bytes() for log in self.work.path.glob("*.log"))
        shown += b"".join(p.read_bytes() for p in self.granary.state.rglob("*") if p.is_file())
        shown += b"".join(p.read_bytes() for p in self.granary.store_files())
        self.assertIn(b"proxied" if b"s3://" in shown else b"localhost", shown)
        self.assertNotIn(secret.encode(), shown)

    def test_a_second_up_hands_a_new_proxy_to_the_running_one(self):
        for name, origin, flags, asked, _ in self.origins():
            with self.subTest(name):
                old, new = (Tinyproxy(self.work, [self.secure.port, self.s3_secure.port],
                                      name=f"{age}-{name}".replace(" ", "-"))
                            for age in ("old", "new"))
                self.granary.up(origin, self.mount, "--name", "d", "--read-timeout", "5", *flags,
                                environment=old.environment())
                old.server.close()
                other = self.work.directory("other")
                self.granary.run("up", origin, other, *self.granary.directories(), "--name", "d",
                                 *flags, environment=new.environment())
                suite.wait_until(self.is_readable, 30, "read through the new proxy")
                self.assertIn(asked, new.requests())
                self.forget()

    def is_readable(self):
        try:
            return (self.mount / "deep/1/2/f").read_bytes() == b"5"
        except OSError:
            return False


class Redirected(suite.Case):
    """Credentials stay with the server that they are for."""

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)

    def read(self, url, **environment):
        self.granary.up(url, self.mount, "--name", "d", environment=environment)
        self.assertEqual((self.mount / "file").read_bytes(), BODY)

    def test_user_password_and_token_go_to_the_first_server_only(self):
        for number, (credentials, kind) in enumerate((
                ({"GRANARY_HTTP_USER": "ann", "GRANARY_HTTP_PASSWORD": "hush"}, "Basic "),
                ({"GRANARY_HTTP_TOKEN": "hush"}, "Bearer "))):
            for host in ("127.0.0.1", "localhost"):
                with self.subTest(kind, host=host):
                    other = Recorder(self.work)
                    first = Recorder(self.work, f"http://{host}:{other.port}")
                    self.granary = Granary(self.work, f"{host}-{number}")
                    self.read(f"http://127.0.0.1:{first.port}/", **credentials)
                    self.assertTrue(first.values("Authorization"))
                    self.assertTrue(first.values("Authorization")[0].startswith(kind))
                    self.assertEqual(len(first.values("Authorization")), len(first.headers))
                    self.assertTrue(other.headers)
                    self.assertEqual(other.values("Authorization"), [])
                    self.granary.close()

    def test_those_of_the_proxy_go_to_the_proxy_only(self):
        other = Recorder(self.work)
        proxy = Recorder(self.work, f"http://localhost:{other.port}")
        self.read("http://origin.invalid/", http_proxy=f"http://ann:hush@127.0.0.1:{proxy.port}",
                  no_proxy="localhost", GRANARY_HTTP_TOKEN="tok")
        self.assertTrue(proxy.values("Proxy-Authorization"))
        self.assertEqual(proxy.values("Authorization")[0], "Bearer tok")
        self.assertTrue(other.headers)
        self.assertEqual(other.values("Proxy-Authorization"), [])
        self.assertEqual(other.values("Authorization"), [])


if __name__ == "__main__":
    suite.main()
