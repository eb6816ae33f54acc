"""Code as what it does: its syntax tree without docstrings and comments, and the digest of that.

What is said to readers changes no digest; an operator, a name or a number does.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path


def bare_tree(source: bytes) -> ast.Module:
    """Return the syntax tree of a module's source without its docstrings.

    Comments are in no tree. The text below an assignment, which documents it, goes as well.

    Raises:
        SyntaxError: the source is no Python.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return tree


def tree_digest(tree: ast.AST) -> str:
    """Return the SHA-256 (hex) of a syntax tree; line numbers do not count.

    A minor version of Python may write a tree otherwise, so digests of two are not compared.
    """
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a source file's bare tree.

    Raises:
        OSError: it cannot be read.
    """
    now = path.stat()
    return _digest_of(path, now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino)


@lru_cache(maxsize=1024)
def _digest_of(path: Path, *_of_the_file: int) -> str:
    """Return a file's digest, once while the file is what it was (times, size, inode)."""
    return tree_digest(bare_tree(path.read_bytes()))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
