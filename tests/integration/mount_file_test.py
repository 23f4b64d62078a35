"""A mounted directory equals the directory: names, attributes, and bytes however they are read."""

import errno
import os
import stat
import subprocess

from harness import compare, page_cache, readers, suite, trees, workspace
from harness.granary import Granary, xattr


class MountedDirectory(suite.Case):
    """One awkward tree, mounted once; every test looks at it in another way."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.origin = cls.shared.directory("origin")
        trees.awkward(cls.origin)
        cls.mount = cls.shared.directory("mnt")
        cls.granary = Granary(cls.shared)
        cls.server = cls.granary.up(f"file://{cls.origin}", cls.mount, "--name", "awkward",
                                    "--cache-size", "8G" if suite.LARGE else "1G")

    def test_attributes_are_those_of_the_origin(self):
        compare.assert_same_attributes(self, self.origin, self.mount)

    def test_diff_finds_nothing(self):
        compare.assert_diff_finds_nothing(self, self.origin, self.mount)

    def test_checksums_are_equal_cold_and_warm(self):
        expected = {path.replace(os.fsencode(self.origin), os.fsencode(self.mount), 1):
                    compare.digest(path) for path in compare.files(self.origin)}
        for seed in (1, 2):
            page_cache.drop(self.mount)
            readers.assert_clean(self, readers.epoch(expected, seed))

    def test_mapped_files_are_equal(self):
        for name in ("sizes/1.bin", "sizes/65537.bin", f"sizes/{trees.BLOCK + 1}.bin", "large.bin"):
            compare.assert_mapped_same(self, self.origin / name, self.mount / name)

    def test_random_preads_of_16_processes_at_once_are_equal(self):
        page_cache.drop(self.mount)
        for name in ("large.bin", f"sizes/{3 * trees.BLOCK + 12345}.bin"):
            self.assertEqual(compare.random_preads(self.origin / name, self.mount / name), 0)

    def test_direct_reads_are_equal(self):
        name = f"sizes/{trees.BLOCK + 1}.bin"
        done = subprocess.run(["dd", f"if={self.mount / name}", "iflag=direct", "bs=64k",
                               "status=none"], capture_output=True, check=True)
        self.assertEqual(done.stdout, (self.origin / name).read_bytes())

    def test_reads_past_the_end_are_empty(self):
        handle = os.open(self.mount / "sizes/4096.bin", os.O_RDONLY)
        self.addCleanup(os.close, handle)
        self.assertEqual(os.pread(handle, 10, 4096), b"")
        self.assertEqual(os.pread(handle, 10, 1 << 40), b"")
        self.assertEqual(os.pread(handle, 100, 4090), (self.origin / "sizes/4096.bin")
                         .read_bytes()[4090:])

    def test_writing_is_refused_as_on_a_read_only_filesystem(self):
        path = self.mount / "sizes/1.bin"
        attempts = {
            "open": lambda: os.open(path, os.O_WRONLY),
            "create": lambda: os.open(self.mount / "new", os.O_CREAT | os.O_WRONLY),
            "mkdir": lambda: os.mkdir(self.mount / "new"),
            "unlink": lambda: os.unlink(path),
            "rename": lambda: os.rename(path, self.mount / "new"),
            "chmod": lambda: os.chmod(path, 0o600),
            "truncate": lambda: os.truncate(path, 0),
            "symlink": lambda: os.symlink("a", self.mount / "new"),
            "utime": lambda: os.utime(path),
            "setxattr": lambda: os.setxattr(path, "user.new", b"x"),
        }
        for name, attempt in attempts.items():
            with self.subTest(name), self.assertRaises(OSError) as caught:
                attempt()
            self.assertEqual(caught.exception.errno, errno.EROFS, name)

    def test_what_is_not_there_is_not_found(self):
        for name in (b"nothing", b"sizes/nothing", b"\xff", b"sizes/1.bin/below"):
            with self.subTest(name), self.assertRaises(OSError) as caught:
                os.stat(os.fsencode(self.mount) + b"/" + name)
            self.assertIn(caught.exception.errno, (errno.ENOENT, errno.ENOTDIR))

    def test_statfs_counts_the_dataset(self):
        st = os.statvfs(self.mount)
        listing = compare.entries(self.origin).values()
        size = sum(e.st_size for e in listing if stat.S_ISREG(e.st_mode))
        self.assertEqual(st.f_blocks, -(-size // st.f_frsize))
        self.assertEqual(st.f_bfree, 0)
        self.assertEqual(st.f_namemax, 255)
        self.assertGreaterEqual(st.f_files, len(listing) - 1)
        self.assertTrue(st.f_flag & os.ST_RDONLY)

    def test_xattrs_name_dataset_snapshot_and_cached_fraction(self):
        path = self.mount / "sizes" / f"{2 * trees.BLOCK}.bin"
        self.assertEqual(xattr(path, "dataset"), "awkward")
        self.assertEqual(xattr(path, "snapshot"), "1")
        path.read_bytes()
        suite.wait_until(lambda: float(xattr(path, "cached")) == 1, 10, "cached wholly")
        with self.assertRaises(OSError) as caught:
            os.getxattr(path, "user.other")
        self.assertEqual(caught.exception.errno, errno.ENODATA)

    def test_copies_take_no_xattrs_along(self):
        source = self.mount / "sizes"
        for command in (["cp", "-a", "--preserve=all"], ["rsync", "-aX"],
                        ["tar", "--xattrs", "--xattrs-include=*", "-C"]):
            with self.subTest(command[0]):
                suite.tool(command[0])
                target = self.work.directory(command[0])
                if command[0] == "tar":
                    done = subprocess.run([*command, source, "-cf", target / "all.tar", "."],
                                          capture_output=True, text=True, check=True)
                    subprocess.run([*command, target, "-xf", target / "all.tar"], check=True)
                else:
                    done = subprocess.run([*command, f"{source}/.", target], check=True,
                                          capture_output=True, text=True)
                self.assertEqual(done.stderr, "")
                copies = list(target.glob("*.bin"))
                self.assertGreater(len(copies), 5)
                self.assertEqual([os.listxattr(path) for path in copies if os.listxattr(path)], [])

    def test_an_entry_keeps_its_inode_number(self):
        path = self.mount / "many/000001.txt"
        before = os.stat(path).st_ino
        page_cache.drop(self.mount)
        self.assertEqual(os.stat(path).st_ino, before)
        listed = {e.name: e.inode() for e in os.scandir(self.mount / "many")}
        self.assertEqual(listed["000001.txt"], before)

    def test_a_second_user_reads_what_the_modes_allow(self):
        self.need_root()
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        good = subprocess.run([*user, "cat", self.mount / "modes/644"], capture_output=True,
                              check=True)
        self.assertEqual(good.stdout, b"mode 644")
        refused = subprocess.run([*user, "cat", self.mount / "modes/600"], capture_output=True,
                                 check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"Permission denied", refused.stderr)

    def test_a_private_mount_namespace_reads_it(self):
        self.need_root()
        done = subprocess.run(["unshare", "--mount", "cat", self.mount / "modes/644"],
                              capture_output=True, check=True)
        self.assertEqual(done.stdout, b"mode 644")


class Selection(suite.Case):
    """What of a directory becomes part of the dataset."""

    def test_sockets_and_links_out_of_the_tree_are_left_out_with_a_report(self):
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        trees.write(origin / "kept", b"kept")
        os.mkfifo(origin / "pipe")
        os.symlink("/etc/passwd", origin / "absolute")
        os.symlink("../../etc/passwd", origin / "out")
        granary = Granary(self.work)
        granary.up(f"file://{origin}", mount, "--name", "d")
        self.assertEqual(os.listdir(mount), ["kept"])
        skipped = granary.stat("d")["skipped"]
        self.assertEqual(sum(entry["count"] for entry in skipped), 3, skipped)

    def test_include_and_exclude_patterns_select_files(self):
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        for name in ("a.jpg", "a.tmp", "deep/b.jpg", "deep/b.png", "skip/c.jpg"):
            trees.write(origin / name, b"x")
        granary = Granary(self.work)
        granary.up(origin, mount, "--name", "d", "--include", "*.jpg", "--exclude", "skip/")
        self.assertEqual(sorted(compare.files(mount)),
                         [os.fsencode(mount / "a.jpg"), os.fsencode(mount / "deep/b.jpg")])

    def test_a_file_that_changes_under_the_mount_fails_and_is_never_served(self):
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        for name in ("same", "changed", "gone"):
            trees.write(origin / name, name.encode() * 100)
        granary = Granary(self.work)
        granary.up(origin, mount, "--name", "d", "--read-timeout", "5")
        (origin / "changed").write_bytes(b"other" * 140)
        (origin / "gone").unlink()
        for name in ("changed", "gone"):
            with self.subTest(name), self.assertRaises(OSError) as caught:
                (mount / name).read_bytes()
            self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertEqual((mount / "same").read_bytes(), b"same" * 100)
        stat_ = granary.settled_stat("d")
        self.assertGreaterEqual(stat_["failed_reads"], 2)
        self.assertRegex(stat_["last_error"], "(changed|gone): .*dataset refresh d")


class Listings(suite.Case):
    """What a process does with the names of one directory says what it gets of the next."""

    DIRECTORIES, FILES = 12, 400

    def setUp(self):
        super().setUp()
        origin, self.mount = self.work.directory("origin"), self.work.directory("mnt")
        for number in range(self.DIRECTORIES * self.FILES):
            trees.write(origin / f"{number % self.DIRECTORIES}" / f"{number}", b"")
        self.granary = Granary(self.work)
        self.granary.up(f"file://{origin}", self.mount, "--name", "d")

    def lookups_of(self, *command):
        page_cache.drop()  # and what the kernel knows of names
        before = self.granary.client_metric('requests_total{dataset="d",op="lookup"}')
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return self.granary.client_metric('requests_total{dataset="d",op="lookup"}') - before

    def test_names_alone_cost_no_lookups(self):
        self.need_root()
        self.assertLess(self.lookups_of("find", self.mount, "-type", "f"), 50)

    def test_who_looks_at_each_file_soon_gets_them_with_the_names(self):
        self.need_root()
        for command in (["find", self.mount, "-size", "+1"], ["du", "-s", self.mount],
                        ["rsync", "-r", "--list-only", f"{self.mount}/"]):
            with self.subTest(command[0]):
                self.assertLess(self.lookups_of(*command), 3 * self.FILES)


class Unprivileged(suite.Case):
    """A user without root mounts through fusermount3."""

    def test_a_user_mounts_reads_and_unmounts(self):
        self.need_root()
        suite.tool("fusermount3")
        if not os.stat("/dev/fuse").st_mode & stat.S_IWOTH:
            self._open_device_to_everybody()
        origin = self.work.directory("origin")
        trees.write(origin / "file", b"as nobody")
        home = self.work.directory("home")
        mount = self.work.directory("mnt")
        for path in (home, mount):
            os.chown(path, 65534, 65534)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
        environment = {**Granary(self.work).environment, "HOME": str(home)}

        def granary(*arguments):
            return subprocess.run([*user, suite.BINARY, *arguments], env=environment, text=True,
                                  capture_output=True, check=False, timeout=60)

        done = granary("up", origin, mount, "--daemon", "--cache-size", "100M")
        self.assertEqual((done.returncode, done.stderr.count("granary:")), (0, 0), done.stderr)
        seen = subprocess.run([*user, "cat", mount / "file"], capture_output=True, check=True)
        self.assertEqual(seen.stdout, b"as nobody")
        # Without allow-other not even root may look.
        with self.assertRaises(PermissionError):
            (mount / "file").read_bytes()
        self.assertEqual(granary("umount", mount).returncode, 0)
        self.assertEqual(os.listdir(mount), [])

    def _open_device_to_everybody(self):
        """A device node of mode 0666, in this test's mount namespace only."""
        if not workspace.private_namespace():
            self.skipTest("/dev/fuse is for root only")
        node = self.work.path / "fuse"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        node.chmod(0o666)
        subprocess.run(["mount", "--bind", node, "/dev/fuse"], check=True)
        self.addCleanup(subprocess.run, ["umount", "/dev/fuse"], check=True)


if __name__ == "__main__":
    suite.main()
