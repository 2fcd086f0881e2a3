"""Write a tiny Llama model without weights, and a tokenizer of the 256 bytes.

python tiny_model.py DIRECTORY [ARCHITECTURE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def main(directory: str, architecture: str = "LlamaForCausalLM") -> None:
    """Write the model and the tokenizer; serve them with ``--load-format dummy``."""
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    into = Path(directory)
    into.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(into / "tokenizer.json"))
    config = {
        "architectures": [architecture],
        "model_type": "llama",
        "vocab_size": len(symbols),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
    # As transformers would write them, whose import takes seconds.
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (into / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
