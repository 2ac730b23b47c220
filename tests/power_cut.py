"""A fault-injecting file layer: what a disk may hold after a power cut at any moment of what this process writes.

What was flushed (fsync) is on the disk: of a file its bytes, of a folder its names. Whether anything else got there
before the power went is open: the disk may have all new names and none of their bytes, which leaves empty files, or
the old names, or something between.
"""

import os


class _Node:
    """A file or a folder: what was flushed of it. The open descriptor keeps its inode from being used again."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_RDONLY)
        self.is_folder = os.path.isdir(path)
        self.flushed = {} if self.is_folder else b""


class Disk:
    """Watches a folder, and keeps what the disk may hold at each moment in `moments`.

    Args:
        root: The folder, empty at first.
        monkeypatch: pytest's fixture.
    """

    def __init__(self, root, monkeypatch):
        self.root, self.nodes, self.moments = os.path.realpath(root), {}, []
        self.watching = True
        fsync = os.fsync

        def flushing(descriptor):
            fsync(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if self.watching and (path + os.sep).startswith(self.root + os.sep):
                node = self._node(path)
                if node.is_folder:
                    node.flushed = self._names(path)
                else:
                    with open(path, "rb") as file:
                        node.flushed = file.read()
                self._remember("fsync", path)

        monkeypatch.setattr(os, "fsync", flushing)
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def close(self):
        self.watching = False
        for node in self.nodes.values():
            os.close(node.descriptor)

    def write(self, moment, folder, chance=None, names="new"):
        """Makes what the disk may hold after a cut at a moment.

        Args:
            moment: One of `moments`.
            folder: Where to write it.
            chance: A `random.Random` that decides for each folder and file, or None.
            names: Without `chance`: "new", all names and only the flushed bytes; or "old", only what was flushed.
        """
        _, tree = moment
        self._write(tree, folder, lambda: chance.random() < 0.5 if chance else names == "new")

    def _write(self, tree, folder, is_new):
        _, current, flushed = tree
        os.mkdir(folder)
        for name, child in (current if is_new() else flushed).items():
            path = os.path.join(folder, name)
            if child[0].is_folder:
                self._write(child, path, is_new)
            else:
                with open(path, "wb") as file:
                    file.write(child[1])

    def _watched(self, name, function):
        def watched(*arguments, **options):
            function(*arguments, **options)
            if self.watching and self.root in os.path.realpath(os.fspath(arguments[0])):
                self._remember(name, os.fspath(arguments[0]))

        return watched

    def _remember(self, operation, path):
        tree = self._tree(self._node(self.root), {})
        self.moments.append((f"{operation} {os.path.relpath(path, self.root)}", tree))

    def _tree(self, node, known):
        """(node, names now, names flushed), each name with its tree; a file is (node, bytes flushed)."""
        if node in known:
            return known[node]
        if not node.is_folder:
            known[node] = node, node.flushed
        else:
            path = os.readlink(f"/proc/self/fd/{node.descriptor}")
            now = self._names(path) if os.path.isdir(path) else {}  # removed by now
            both = [{name: self._tree(child, known) for name, child in each.items()} for each in (now, node.flushed)]
            known[node] = node, *both
        return known[node]

    def _names(self, folder):
        found = {}
        for entry in list(os.scandir(folder)):
            if entry.is_dir() or entry.is_file():
                found[entry.name] = self._node(entry.path)
        return found

    def _node(self, path):
        found = os.stat(path)
        if found.st_ino not in self.nodes:
            self.nodes[found.st_ino] = _Node(path)
        return self.nodes[found.st_ino]
