"""The thing to measure against: llama.cpp's C API in the plainest loop, nothing of Pares in it.

`python bench/bare.py MODEL --streams N --tokens N --threads N` decodes greedily and prints tokens per second as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time

import llama_cpp.llama_cpp as c
import numpy as np

PROMPT = b"Once upon a time, in a small village by the sea, there lived"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split-kv", action="store_true", help="cells of its own for each sequence")
    parser.add_argument("--prompt-tokens", type=int, default=0)
    args = parser.parse_args()
    silent = c.llama_log_callback(lambda level, text, user: None)
    c.llama_log_set(silent, None)
    c.llama_backend_init()
    model = c.llama_model_load_from_file(args.model.encode(), c.llama_model_default_params())
    params = c.llama_context_default_params()
    params.n_ctx = 2048 * args.streams
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max = args.streams
    params.n_threads = params.n_threads_batch = args.threads
    params.kv_unified = not args.split_kv
    context = c.llama_init_from_model(model, params)
    vocab = c.llama_model_get_vocab(model)
    size = c.llama_vocab_n_tokens(vocab)
    buffer = (c.llama_token * 256)()
    count = c.llama_tokenize(vocab, PROMPT, len(PROMPT), buffer, 256, True, True)
    prompt = list(buffer[:count])
    if args.prompt_tokens:
        prompt = (prompt * (args.prompt_tokens // count + 1))[: args.prompt_tokens]
    batch = c.llama_batch_init(512, 0, 1)

    def run(rows: list[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        assert c.llama_decode(context, batch) == 0

    def argmax(row: int) -> int:
        pointer = ctypes.cast(c.llama_get_logits_ith(context, row), ctypes.POINTER(ctypes.c_float))
        return int(np.ctypeslib.as_array(pointer, (size,)).argmax())

    began = time.perf_counter()
    tokens = []
    for sequence in range(args.streams):
        for start in range(0, len(prompt), 512):
            part = prompt[start : start + 512]
            last = start + len(part) == len(prompt)
            run([(t, start + i, sequence, last and i == len(part) - 1) for i, t in enumerate(part)])
        tokens.append(argmax(-1))
    prefilled = time.perf_counter()
    for step in range(args.tokens - 1):
        run([(token, len(prompt) + step, sequence, True) for sequence, token in enumerate(tokens)])
        tokens = [argmax(row) for row in range(args.streams)]
    ended = time.perf_counter()
    print(
        json.dumps(
            {
                "decode": args.streams * (args.tokens - 1) / (ended - prefilled),
                "prefill": args.streams * len(prompt) / (prefilled - began),
            }
        )
    )


if __name__ == "__main__":
    main()
