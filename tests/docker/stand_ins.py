#!/usr/bin/env python3
"""Local stand-ins for public images, for machines that cannot pull any.

    stand_ins.py IMAGE...    make those that are missing or outdated; prints one line for each image made
    stand_ins.py --remove    remove every image made here

A stand-in is made from this machine's own Debian packages and Rust toolchain, in the public image's layout and under
its very name, so that the compose files and the Dockerfile that users get are what the tests run. The programs are the
real ones: redis-server, Prometheus, Python, rustc. An image that is there without our label came from a registry and
is left alone.
"""

import glob
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LABEL = "slotway.stand-in"
REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = """dash env cat ls cp mv rm mkdir rmdir ln chmod chown touch id head tail wc tr sort cut date sleep timeout
    uname basename dirname readlink mktemp sed grep getent hostname true false find xargs expr printf test setpriv mawk
    ps kill""".split()
LIBRARIES = f"/usr/lib/{os.uname().machine}-linux-gnu"

REDIS_ENTRYPOINT = """#!/bin/sh
# As the public image does: the server runs as the user redis, with /data its own.
set -e
case $1 in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown -R redis:redis .
    exec setpriv --reuid redis --regid redis --clear-groups -- "$0" "$@"
fi
exec "$@"
"""


class Tree:
    """The files of an image, collected as a tar archive; later additions of the same path are ignored."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w")
        self.seen = set()
        for name in ("bin", "sbin", "lib", "lib64"):
            self.link(f"/{name}", f"usr/{name}")
        for name in ("/root", "/etc", "/run", "/var/run"):
            self.directory(name)
        self.directory("/tmp", mode=0o1777)
        self.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\nredis:x:999:999::/data:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        self.text("/etc/group", "root:x:0:\nredis:x:999:\nnogroup:x:65534:\n")
        self.programs(*TOOLS)
        self.link("/usr/bin/sh", "dash")
        self.link("/usr/bin/awk", "mawk")
        self.paths(*glob.glob(f"{LIBRARIES}/libnss_*.so.2"), *glob.glob(f"{LIBRARIES}/libresolv.so.2"))

    def add(self, info, content=None):
        info.name = info.name.lstrip("/")
        if info.name in self.seen:
            return
        self.seen.add(info.name)
        info.uname = info.gname = ""
        self.tar.addfile(info, content)

    def directory(self, path, mode=0o755, owner=0):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
        self.add(info)

    def link(self, path, target):
        info = tarfile.TarInfo(path)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.add(info)

    def text(self, path, text, mode=0o644):
        info = tarfile.TarInfo(path)
        info.mode, info.size = mode, len(text.encode())
        self.add(info, io.BytesIO(text.encode()))

    def paths(self, *paths, at=None):
        """Files, links (with what they point to) and directories from this machine, at the same place."""
        for path in map(str, paths):
            if not os.path.lexists(path):
                continue
            place = re.sub(r"^/(s?bin|lib|lib64)/", r"/usr/\1/", at(path) if at else path)
            info = self.tar.gettarinfo(path, arcname=place)
            if info is None:
                continue
            info.uid = info.gid = 0
            if info.islnk():  # gettarinfo turns a second hard link into a reference; keep the bytes instead
                info.type, info.size = tarfile.REGTYPE, os.path.getsize(path)
            if info.issym():
                self.add(info)
                self.paths(os.path.realpath(path), at=at)
            elif info.isreg():
                with open(path, "rb") as content:
                    self.add(info, content)
            elif info.isdir():
                self.add(info)

    def programs(self, *names):
        """Programs by name or path, with the shared libraries they link to."""
        for name in names:
            path = name if name.startswith("/") else output("sh", "-c", f"command -v {name} || true").strip()
            if not path.startswith("/"):
                if name in ("true", "false", "printf", "test", "kill"):
                    path = f"/usr/bin/{name}"
                else:
                    sys.exit(f"stand-ins: {name} is not installed on this machine (see .ci for the Debian packages)")
            self.paths(path)
            self.libraries(path)

    def libraries(self, *paths):
        for path in paths:
            listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
            self.paths(*re.findall(r"(/\S+)(?= \()", listed))

    def packages(self, *names, skip=r"$^"):
        """All files of installed Debian packages, but documentation, and the libraries of their programs."""
        listed = output("dpkg-query", "-L", *names).split("\n")
        unwanted = re.compile(r"^/usr/share/(doc|man|locale|info|lintian|bash-completion)|__pycache__|" + skip)
        files = [path for path in listed if path.startswith("/") and not unwanted.search(path)]
        self.paths(*(path for path in files if not os.path.isdir(path) or os.path.islink(path)))
        for path in files:
            if os.path.isfile(path) and open(path, "rb").read(4) == b"\x7fELF":
                self.libraries(path)

    def everything(self, root, at, skip=r"$^"):
        """A whole directory, at another place."""
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if not re.search(skip, path):
                    self.paths(path, at=lambda p: p.replace(str(root), at, 1))

    def import_as(self, image, fingerprint, *instructions):
        self.tar.close()
        changes = [f"LABEL {LABEL}={fingerprint}", *instructions]
        flags = [flag for change in changes for flag in ("--change", change)]
        subprocess.run(["docker", "import", *flags, "-", image], input=self.bytes.getbuffer(), check=True, stdout=subprocess.DEVNULL)


def output(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def redis(image, fingerprint):
    tree = Tree()
    tree.programs("redis-server", "redis-cli", "redis-benchmark")
    tree.text("/usr/local/bin/docker-entrypoint.sh", REDIS_ENTRYPOINT, mode=0o755)
    tree.directory("/data", owner=999)
    tree.import_as(
        image, fingerprint, "VOLUME /data", "WORKDIR /data", "EXPOSE 6379",
        'ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["redis-server"]',
    )  # fmt: skip


def rust(image, fingerprint):
    """The toolchain, a C compiler and the crates of Cargo.lock: the build inside asks no registry."""
    subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=REPOSITORY, check=True)
    tree = Tree()
    compiler = output("sh", "-c", "readlink -f $(command -v cc)").strip()
    version = re.search(r"gcc-(\d+)", compiler).group(1)
    tree.packages(
        f"gcc-{version}", f"cpp-{version}", f"libgcc-{version}-dev", "libc6-dev", "linux-libc-dev", "binutils",
        "binutils-common", f"binutils-{os.uname().machine.replace('_', '-')}-linux-gnu", "libcrypt-dev",
        skip=r"/(lto1|lib[atlhw]*san\..*|libubsan.*|gcov.*)$",
    )  # fmt: skip
    tree.libraries(output(compiler, "-print-prog-name=cc1").strip())
    for name in ("cc", "gcc"):
        tree.link(f"/usr/bin/{name}", os.path.basename(compiler))
    sysroot = output("rustc", "--print", "sysroot", cwd=REPOSITORY).strip()
    tree.everything(sysroot, "/usr/local", skip=r"/share/|rust-analyzer|clippy|rustdoc|miri|rust-gdb|rust-lldb|\.so\.debug")
    tree.libraries(f"{sysroot}/bin/rustc", f"{sysroot}/bin/cargo")
    cargo_home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    for part in ("cache", "index"):
        tree.everything(f"{cargo_home}/registry/{part}", f"/usr/local/cargo/registry/{part}")
    tree.import_as(
        image, fingerprint, "ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true PATH=/usr/local/bin:/usr/bin",
        'CMD ["bash"]',
    )  # fmt: skip


def prometheus(image, fingerprint):
    tree = Tree()
    for name in ("prometheus", "promtool"):
        tree.programs(name)
    tree.directory("/etc/prometheus")
    tree.directory("/prometheus", owner=65534)
    tree.import_as(
        image, fingerprint, "USER nobody", "EXPOSE 9090", "VOLUME /prometheus", "WORKDIR /prometheus",
        'ENTRYPOINT ["/bin/prometheus"]',
        'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
    )  # fmt: skip


def python(image, fingerprint):
    """Python with pip, and what the example application requires already installed."""
    tree = Tree()
    tree.packages(
        "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3-pip", "python3-setuptools",
        "python3-wheel", "python3-pkg-resources", "python3-distutils", "python3-lib2to3", "media-types",
        skip="EXTERNALLY-MANAGED|/test/|/idlelib/|/config-3",
    )  # fmt: skip
    for name in ("python", "python3"):
        tree.link(f"/usr/bin/{name}", "python3.11")
    with tempfile.TemporaryDirectory() as folder:
        requirements = REPOSITORY / "deploy/sidecar/requirements.txt"
        command = ["/usr/bin/python3", "-m", "pip", "install", "--quiet", "--target", folder, "-r", str(requirements)]
        subprocess.run(command, check=True)
        tree.everything(folder, "/usr/lib/python3/dist-packages")
    tree.import_as(image, fingerprint, "ENV PIP_NO_INDEX=1 PATH=/usr/local/bin:/usr/bin", 'CMD ["python3"]')


def debian(image, fingerprint):
    """dpkg with a database of no packages, and what it calls."""
    tree = Tree()
    tree.packages("dpkg")
    tree.programs("tar", "diff", "ldconfig", "start-stop-daemon", "gzip", "sha256sum")
    for name in ("info", "updates", "parts", "alternatives", "triggers"):
        tree.directory(f"/var/lib/dpkg/{name}")
    tree.text("/var/lib/dpkg/status", "")
    tree.directory("/var/log")
    tree.text("/etc/debian_version", "12\n")
    tree.import_as(image, fingerprint, 'CMD ["sh"]')


RECIPES = {"redis": redis, "valkey/valkey": redis, "rust": rust, "prom/prometheus": prometheus, "python": python, "debian": debian}
INGREDIENTS = {"rust": ["Cargo.lock"], "python": ["deploy/sidecar/requirements.txt"]}


def fingerprint_of(name):
    parts = [Path(__file__).read_bytes()] + [(REPOSITORY / path).read_bytes() for path in INGREDIENTS.get(name, [])]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def present(image):
    """None if there is no such image, else its stand-in fingerprint, "" for one that came from a registry."""
    command = ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.strip().replace("<no value>", "") if asked.returncode == 0 else None


def make(image):
    name = image.rsplit(":", 1)[0]
    if name not in RECIPES:
        sys.exit(f"stand-ins: no recipe for {image}; known: {', '.join(RECIPES)}")
    fingerprint = fingerprint_of(name)
    if present(image) in (fingerprint, ""):
        return
    RECIPES[name](image, fingerprint)
    print(f"stand-in made: {image}")


def remove():
    images = output("docker", "image", "ls", "--quiet", "--filter", f"label={LABEL}").split()
    if images:
        subprocess.run(["docker", "image", "rm", "--force", *set(images)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1:] == ["--remove"]:
        remove()
    else:
        for wanted in sys.argv[1:]:
            make(wanted)
