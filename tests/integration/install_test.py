"""`./dev install` and `uninstall`: everything is where people look for it, and nothing stays."""

import os
import stat
import subprocess

from harness import suite, trees
from harness.granary import Granary

DEV = suite.ROOT / "dev"


class Install(suite.Case):
    def setUp(self):
        super().setUp()
        if os.path.realpath(suite.BINARY) != str(suite.ROOT / "build/granary"):
            self.skipTest("installs build/granary, which is not the one under test")
        self.prefix = self.work.path / "prefix"

    def dev(self, *arguments, check=True, cwd=None, **environment):
        done = subprocess.run([DEV, *arguments], capture_output=True, text=True, check=False,
                              cwd=cwd or self.work.path, stdin=subprocess.DEVNULL, timeout=120,
                              env={**Granary(self.work).environment, **environment})
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def install(self, *arguments, **more):
        return self.dev("install", "--no-build", "--prefix", self.prefix, *arguments, **more)

    def uninstall(self, **more):
        return self.dev("uninstall", "--prefix", self.prefix, **more)

    def files(self, root):
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def test_everything_is_where_people_look_for_it(self):
        self.install()
        files = self.files(self.prefix)
        commands = subprocess.run([suite.BINARY, "--help"], capture_output=True, text=True,
                                  check=True).stdout
        self.assertIn("  dataset add ", commands)
        for name in ("bin/granary", "sbin/mount.granary", "share/man/man1/granary.1",
                     "share/man/man1/granary-dataset-add.1",
                     "share/bash-completion/completions/granary", "share/doc/granary/LICENSE",
                     "share/doc/granary/licences.md"):
            self.assertIn(name, files)
        for name in ("bin/granary", "sbin/mount.granary"):
            self.assertEqual(stat.S_IMODE((self.prefix / name).stat().st_mode), 0o755)
        said = subprocess.run([self.prefix / "bin/granary", "version"], capture_output=True,
                              text=True, check=True).stdout
        self.assertIn("granary ", said)
        subprocess.run(["bash", "-n", self.prefix / "share/bash-completion/completions/granary"],
                       check=True)

    def test_uninstall_leaves_nothing(self):
        self.install()
        self.install()  # a second one knows the directories of the first
        self.uninstall()
        self.assertFalse(self.prefix.exists(), list(self.work.path.rglob("*")))
        again = self.uninstall(check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("nothing of granary is installed", again.stderr)

    def test_uninstall_leaves_what_is_not_ours(self):
        others = self.prefix / "share/man/man1/granary-of-somebody-else.1"
        trees.write(others, b"x")
        (self.prefix / "bin").mkdir()
        self.install()
        trees.write(self.prefix / "sbin/another", b"x")
        self.uninstall()
        self.assertEqual(self.files(self.prefix),
                         ["sbin/another", "share/man/man1/granary-of-somebody-else.1"])
        # It was there before, and empty.
        self.assertTrue((self.prefix / "bin").is_dir())
        self.assertFalse((self.prefix / "share/doc").exists())

    def test_a_package_is_made_below_destdir(self):
        root = self.work.directory("root")
        self.dev("install", "--no-build", "--prefix", "/usr", DESTDIR=str(root))
        self.assertIn("usr/bin/granary", self.files(root))
        # Where mount(8) looks.
        helper = root / "sbin/mount.granary"
        self.assertIn("exec '/usr/bin/granary' ", helper.read_text())
        self.dev("uninstall", "--prefix", "/usr", DESTDIR=str(root))
        self.assertEqual(list(root.rglob("*")), [])

    def test_names_are_relative_to_where_one_stands(self):
        self.dev("install", "--no-build", "--prefix", "here", cwd=self.work.path)
        self.assertTrue((self.work.path / "here/bin/granary").exists())
        self.dev("uninstall", "--prefix", "here", cwd=self.work.path)
        self.assertFalse((self.work.path / "here").exists())

    def test_an_install_that_fails_leaves_nothing_and_says_what_to_do(self):
        # A file where a directory has to be, after the program was put there.
        trees.write(self.prefix / "share", b"in the way")
        done = self.install(check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nothing was installed", done.stderr)
        self.assertEqual(self.files(self.prefix), ["share"])
        self.assertEqual(self.dev("install", "--prefix", "", check=False).returncode, 1)
        self.assertEqual(self.dev("install", "--fly", check=False).returncode, 1)

    def test_the_helper_of_mount_finds_its_granary(self):
        self.install()
        origin, first, second = (self.work.directory(name) for name in ("o", "mnt", "other"))
        trees.write(origin / "file", b"content")
        granary = Granary(self.work)
        granary.up(origin, first, "--name", "d")
        subprocess.run([self.prefix / "sbin/mount.granary", "d", second, "-o",
                        f"rw,_netdev,state-dir={granary.state}"], env=granary.environment,
                       check=True, capture_output=True, timeout=60)
        self.assertEqual((second / "file").read_bytes(), b"content")
        command = subprocess.run(["pgrep", "-af", str(second)], capture_output=True, text=True,
                                 check=True).stdout
        self.assertIn(f"{self.prefix}/bin/granary mount", command)


if __name__ == "__main__":
    suite.main()
