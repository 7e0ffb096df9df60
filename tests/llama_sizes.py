"""What llama.cpp itself says that it allocates, in a process of its own: `python llama_sizes.py < cases.json`.

Each case is a path and a `memory.Load` with `cells`; the answer is one object with `kv`, `compute` and `logits` in
bytes for each. Weights are not read (`no_alloc`), so models of any size can be asked about.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MIB = 1 << 20
SIZES = {
    "kv": re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB"),
    "compute": re.compile(r"compute buffer size = +([\d.]+) MiB"),
    "logits": re.compile(r"output buffer size = +([\d.]+) MiB"),
}


def llama_sizes(cases: Sequence[tuple[Path, dict[str, Any]]]) -> list[dict[str, float]]:
    """Ask llama.cpp in a child process."""
    asked = json.dumps([(str(path), load) for path, load in cases])
    command = [sys.executable, __file__]
    answer = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=50, check=True)
    sizes: list[dict[str, float]] = json.loads(answer.stdout)
    return sizes


def main() -> None:
    """The child."""
    import llama_cpp.llama_cpp as llama

    lines: list[str] = []

    def keep(level: int, line: bytes, _: object) -> None:
        lines.append(line.decode())

    callback = llama.llama_log_callback(keep)
    llama.llama_log_set(callback, None)
    answers = []
    for path, load in json.load(sys.stdin):
        lines.clear()
        weights = llama.llama_model_default_params()
        weights.n_gpu_layers, weights.no_alloc, weights.load_mode = 0, True, llama.LLAMA_LOAD_MODE_NONE
        model = llama.llama_model_load_from_file(path.encode(), weights)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = load["cells"], load["sequences"]
        params.n_batch = params.n_ubatch = load["ubatch"]
        params.n_outputs_max = load["outputs"]
        params.kv_unified = params.swa_full = True
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.type_k = llama.GGML_TYPE_Q8_0 if load["key_type"] == "q8_0" else llama.GGML_TYPE_F16
        context = llama.llama_init_from_model(model, params)
        said = "".join(lines)
        answers.append({name: MIB * sum(map(float, find.findall(said))) for name, find in SIZES.items()})
        llama.llama_free(context)
        llama.llama_model_free(model)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
