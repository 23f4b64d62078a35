"""The services as other programs see them: any gRPC client, other users, other hosts, garbage."""

import json
import os
import secrets
import socket
import subprocess

from harness import process, suite, trees
from harness.granary import Granary

PROTO = suite.ROOT / "proto"


class Rpc(suite.Case):
    def setUp(self):
        super().setUp()
        self.origin = self.work.directory("origin")
        trees.write_objects(self.origin, trees.samples(20, 1000))
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)
        self.token = self.work.path / "token"
        self.token.write_text(secrets.token_hex(16) + "\n")
        self.port = process.free_port()
        self.server = self.granary.up(
            self.origin, self.mount, "--name", "d", "--listen", f"127.0.0.1:{self.port}",
            "--token-file", self.token)
        self.socket = self.granary.state / "granary.sock"

    def call(self, method, proto, message=None, check=True):
        """Over the unix socket, by grpcurl; the reply as JSON."""
        done = subprocess.run(
            [suite.tool("grpcurl"), "-plaintext", "-unix", "-max-time", "20", "-import-path",
             PROTO, "-proto", proto, "-d", json.dumps(message or {}), self.socket, method],
            capture_output=True, text=True, check=False)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)
        return done

    def assert_healthy(self):
        self.assertTrue(self.server.running(), self.server.output())
        self.assertEqual(len(self.granary.status()["mounts"]), 1)
        os.listdir(self.mount)

    def test_health_answers(self):
        reply = self.call("grpc.health.v1.Health/Check", "grpc/health/v1/health.proto")
        self.assertEqual(reply, {"status": "SERVING"})

    def test_datasets_are_listed(self):
        reply = self.call("granary.v1.DatasetService/List", "granary/v1/dataset.proto")
        self.assertEqual([d["name"] for d in reply["datasets"]], ["d"])
        self.assertEqual(reply["datasets"][0]["files"], "20")

    def test_an_unknown_dataset_is_not_found(self):
        done = self.call("granary.v1.DatasetService/Get", "granary/v1/dataset.proto",
                         {"name": "unknown"}, check=False)
        self.assertIn("NotFound", done.stderr)

    def test_an_unknown_method_is_unimplemented_at_once(self):
        proto = self.work.directory("proto") / "other.proto"
        proto.write_text('syntax = "proto3"; package granary.v1;\nmessage None {}\n'
                         "service Other { rpc Call(None) returns (None); }\n")
        done = subprocess.run(
            [suite.tool("grpcurl"), "-plaintext", "-unix", "-max-time", "20", "-import-path",
             proto.parent, "-proto", "other.proto", self.socket, "granary.v1.Other/Call"],
            capture_output=True, text=True, check=False)
        self.assertIn("Unimplemented", done.stderr)

    def test_absurd_requests_are_refused_and_harm_nobody(self):
        for message in ({"dataset_id": 2**64 - 1, "entry": 2**32 - 1, "block": 2**64 - 1,
                         "offset": 2**32 - 1, "len": 2**32 - 1},
                        {"manifest_digest": "../../etc/passwd", "len": 1},
                        {"manifest_digest": "x" * 100_000}):
            done = self.call("granary.v1.BlockService/Read", "granary/v1/block.proto", message,
                             check=False)
            self.assertNotEqual(done.returncode, 0)
        for digest in ("../../../etc/passwd", "", "a" * 10_000, "nope"):
            done = self.call("granary.v1.ClusterService/FetchManifest",
                             "granary/v1/cluster.proto", {"digest": digest}, check=False)
            self.assertNotEqual(done.returncode, 0, digest)
        self.assert_healthy()

    def test_an_oversized_message_is_refused(self):
        done = subprocess.run(
            [suite.tool("grpcurl"), "-plaintext", "-unix", "-max-time", "20", "-import-path",
             PROTO, "-proto", "granary/v1/dataset.proto", "-d", "@", self.socket,
             "granary.v1.DatasetService/Get"],
            input=json.dumps({"name": "x" * (80 << 20)}), capture_output=True, text=True,
            check=False)
        self.assertRegex(done.stderr, "ResourceExhausted|InvalidArgument")
        self.assert_healthy()

    def test_garbage_on_the_sockets_harms_nobody(self):
        chance = trees.noise("garbage", 1 << 16)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for path in (self.socket, self.granary.cache / "lease.sock",
                     self.granary.state / "granary.metrics.sock"):
            for body in (b"", b"\0", b"GET / HTTP/1.0\r\n\r\n", chance, preface + chance,
                         preface + b"\0\0\4\1\4\0\0\0\1" + chance[:100]):
                kind = (socket.SOCK_SEQPACKET if path.name == "lease.sock"
                        else socket.SOCK_STREAM)
                with socket.socket(socket.AF_UNIX, kind) as client:
                    client.settimeout(2)
                    client.connect(str(path))
                    try:
                        client.sendall(body)
                        client.shutdown(socket.SHUT_WR)
                        client.recv(100)
                    except OSError:
                        pass
        self.assert_healthy()
        self.assertEqual(len((self.mount / "class1/000001.jpg").read_bytes()), 1000)

    def test_another_user_at_the_socket_is_refused(self):
        self.need_root()
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run([*user, suite.BINARY, "status", "--state-dir", self.granary.state],
                              env=self.granary.environment, capture_output=True, text=True,
                              check=False, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(process.error_lines(done.stderr)), 1, done.stderr)
        # Not by the folder's mode alone.
        self.granary.state.chmod(0o755)
        again = subprocess.run([*user, suite.BINARY, "status", "--state-dir", self.granary.state],
                               env=self.granary.environment, capture_output=True, text=True,
                               check=False, timeout=60)
        self.assertNotEqual(again.returncode, 0)

    def test_tcp_wants_the_right_token(self):
        address = f"127.0.0.1:{self.port}"
        good = self.granary.run("status", "--master", address, "--token-file", self.token, "-o",
                                "json")
        self.assertEqual(len(json.loads(good.stdout)["datasets"]), 1)
        wrong = self.work.path / "wrong"
        wrong.write_text(secrets.token_hex(16))
        for flags in ([], ["--token-file", wrong]):
            done = self.granary.run("status", "--master", address, *flags, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertRegex(done.stderr, "(?i)token")
            self.assertEqual(len(process.error_lines(done.stderr)), 1, done.stderr)

    def test_a_mount_over_tcp_reads(self):
        other = self.work.directory("other")
        away = Granary(self.work, "away")
        server = away.start("mount", "d", other, "--state-dir", away.state, "--master",
                            f"127.0.0.1:{self.port}", "--token-file", self.token)
        away.wait_mounted(server, other)
        for key, body in trees.samples(20, 1000).items():
            self.assertEqual((other / key).read_bytes(), body)

    def test_a_group_may_be_let_in(self):
        self.need_root()
        mount = self.work.directory("shared")
        shared = Granary(self.work, "shared-state")
        shared.up(self.origin, mount, "--group", "nogroup")
        seen = (shared.state / "granary.sock").stat()
        self.assertEqual((oct(seen.st_mode & 0o777), seen.st_gid), ("0o660", 65534))


if __name__ == "__main__":
    suite.main()
