"""What a file is, by its content. GGUF is loaded, safetensors is shared too; what can carry programs is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from pares.errors import BrokenModelFile, NotFound, NotSupported
from pares.inference.gguf import MAGIC, Header, check_loadable, read_header
from pares.swarm.safetensors import MAX_HEADER_BYTES, read_tensors

HEAD_BYTES = 64
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
MODEL_SUFFIXES = PICKLES | {".gguf", ".safetensors", ".ggml"}

_PICKLE_HINT = "Such a file can run any program when it is opened. Get the model as GGUF."
_CONVERT_HINT = "Convert it with llama.cpp's convert_hf_to_gguf.py, or get the model as GGUF."
_GGML_MAGICS = (b"lmgg", b"fmgg", b"tjgg", b"algg")


class FileFacts(NamedTuple):
    """What the list shows of a model file."""

    kind: Literal["model", "adapter"]
    size: int
    title: str
    licence: str
    architecture: str
    parameters: int
    quantization: str
    is_blob: bool
    """Its name is a hash, as in Ollama's store: the title says more."""


def describe(path: Path) -> FileFacts:
    """Look at a file's header; blocking. Raises NotFound, NotSupported, BrokenModelFile for what cannot be used."""
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would wait for its writer for ever
            raise BrokenModelFile(f"{path} is not a file.", hint="Name a .gguf file.")
        with path.open("rb") as file:
            refuse_other_formats(file.read(HEAD_BYTES), path.name)
        header = read_header(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return FileFacts(
        kind=kind_of(header),
        size=header.file_bytes,
        title=header.name,
        licence=header.licence,
        architecture=header.architecture,
        parameters=header.parameters,
        quantization=header.quantization,
        is_blob=path.name.startswith("sha256-"),
    )


def model_files(folder: Path) -> tuple[Path, ...]:
    """Files below a folder that are, or pretend to be, models. Links to folders are not followed."""
    return tuple(
        sorted(
            Path(root, name)
            for root, _, names in os.walk(folder)
            for name in names
            if Path(name).suffix.lower() in MODEL_SUFFIXES or name.startswith("sha256-")
        )
    )


def require_shareable(path: Path) -> Literal["gguf", "safetensors"]:
    """What may be published, kept and given away: a sound GGUF or safetensors file, whatever it is called; blocking.

    Raises NotFound, NotSupported, BrokenModelFile.
    """
    try:
        if path.exists() and not path.is_file():
            raise BrokenModelFile(f"{path} is not a file.", hint="Name a .gguf or .safetensors file.")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if _is_safetensors(head):
            read_tensors(path)
            return "safetensors"
        refuse_other_formats(head, path.name)
        read_header(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return "gguf"


def kind_of(header: Header) -> Literal["model", "adapter"]:
    """What it can be used as. Raises NotSupported, BrokenModelFile for a file that cannot be used here."""
    if header.is_adapter and header.architecture and header.tensors:
        return "adapter"
    check_loadable(header)
    return "model"


def refuse_other_formats(head: bytes, name: str) -> None:
    """Raise NotSupported or BrokenModelFile, with the reason, unless these first bytes may be those of a GGUF."""
    if head.startswith(MAGIC):
        return
    if head.startswith(b"PK\x03\x04"):
        raise NotSupported(f"{name} is a zip archive, as PyTorch's pickle files are.", hint=_PICKLE_HINT)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise NotSupported(f"{name} is a Python pickle.", hint=_PICKLE_HINT)
    if _is_safetensors(head):
        raise NotSupported(f"{name} is in the safetensors format.", hint=_CONVERT_HINT)
    if head.startswith(_GGML_MAGICS):
        raise NotSupported(f"{name} is in llama.cpp's old GGML format.", hint="Get the model as GGUF.")
    if head.startswith(b"version https://git-lfs"):
        raise BrokenModelFile(f"{name} is a Git LFS pointer, not the model.", hint="Run `git lfs pull` there.")
    if head.lstrip()[:1] == b"<":
        raise BrokenModelFile(f"{name} is a web page, not a model.", hint="Check the address.")
    if Path(name).suffix.lower() in PICKLES:
        raise NotSupported(f"{name} has the suffix of pickle files.", hint=_PICKLE_HINT)
    raise BrokenModelFile(f"{name} is not a GGUF file: it begins with {head[:4]!r}.", hint="Name a .gguf file.")


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def _unreadable(path: Path, error: OSError) -> NotFound:
    return NotFound(f"{path} cannot be read ({error.strerror}).", hint="Check the path and its permissions.")
