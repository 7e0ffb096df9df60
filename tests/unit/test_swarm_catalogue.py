from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest

from pares.errors import BadRequest
from pares.inference.gguf import check_loadable, read_header
from pares.inference.memory import estimate
from pares.swarm import catalogue
from pares.swarm.catalogue import builtin
from pares.swarm.names import clean_name
from pares.swarm.settings import Settings
from pares.swarm.sources import Sources


def test_the_catalogue_is_the_pinned_one() -> None:
    data = resources.files("pares.swarm").joinpath(catalogue.FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == catalogue.SHA256


def test_every_offer_can_be_found_and_had() -> None:
    offers = list(builtin())
    sources = Sources(Settings(), builtin())
    names = [name.casefold() for name in builtin().names()]
    assert len(names) == len(set(names))
    assert len({offer.sha256 for offer in offers}) == len(offers)
    assert [offer.name for offer in offers if offer.starter] == ["smollm2-135m-instruct"]
    for offer in offers:
        check_loadable(offer.header())
        for name in (offer.name, *offer.aliases, offer.name.upper()):
            assert clean_name(name) == name
            assert sources.find(f"{name}:latest" if ":" not in name else name).offer is offer
        assert len(sources.find(offer.name).origins) == bool(offer.wheels) + len(offer.sources) > 0
        assert not offer.wheels or sum(wheel.size for wheel in offer.wheels) == offer.size
        assert all(source.startswith("hf:") and "@" in source for source in offer.sources), "pinned to a revision"


@pytest.mark.parametrize("name", ["smollm2", "gemma3:270m"])
def test_what_is_estimated_beforehand_is_what_the_file_says(name: str, smollm2: Path, gemma: Path) -> None:
    offer = builtin().find(name)
    assert offer is not None
    header = read_header(smollm2 if name == "smollm2" else gemma)
    told = offer.header()
    assert header.file_bytes == offer.size
    assert (header.parameters, header.quantization) == (offer.shape.parameters, offer.quantization)
    for fact in ("architecture", "block_count", "context_length", "embedding_length", "head_counts", "vocab_size"):
        assert getattr(told, fact) == getattr(header, fact), fact
    for cells in (2048, 8192):
        before, after = estimate(told, cells=cells).total, estimate(header, cells=cells).total
        assert abs(before - after) < 0.05 * after


def test_what_is_no_source_is_refused() -> None:
    sources = Sources(Settings(), builtin())
    for text in ("https://h/m.gguf#md5=1", "hf:nothing", "~\0", "?"):
        with pytest.raises(BadRequest):
            sources.find(text)
