"""From chat messages to tokens, as verl does it: the chat template's text, and its tokens without further special ones.

A tokenizer is one of ``transformers``.
"""

from collections.abc import Sequence
from typing import Any

from data_prep.common.chat_template import chat_template_variables
from data_prep.common.errors import InputError

Messages = list[dict[str, str]]


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model's folder or hub id.

    Raises:
        InputError: there is none, or the tokenizer has no chat template.
    """
    from transformers import AutoTokenizer  # takes seconds to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cannot load the tokenizer of {name}: {reason}; check the name, the folder and the network, and log in "
            "with hf auth login where the model is gated"
        ) from error
    if not tokenizer.chat_template:
        raise InputError(f"the tokenizer of {name} has no chat template; choose an instruct model")
    return tokenizer


def prompt_tokens(tokenizer: Any, prompts: Sequence[Messages]) -> list[list[int]]:
    """The tokens of each prompt, up to where the model's response begins."""
    texts = tokenizer.apply_chat_template(
        list(prompts), add_generation_prompt=True, tokenize=False, **chat_template_variables()
    )
    return text_tokens(tokenizer, texts)


def text_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of bare texts."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


class TokenCounter:
    """Lengths in tokens."""

    unit = "tokens"

    def __init__(self, tokenizer: str):
        self._tokenizer = load_tokenizer(tokenizer)

    def prompts(self, prompts: Sequence[Messages]) -> list[int]:
        """Lengths of prompts, the chat template applied."""
        return list(map(len, prompt_tokens(self._tokenizer, prompts)))

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Lengths of bare texts."""
        return list(map(len, text_tokens(self._tokenizer, texts)))


class WordCounter:
    """The same in words, where the tokenizer is not known."""

    unit = "words"

    def prompts(self, prompts: Sequence[Messages]) -> list[int]:
        return [sum(self.texts([message["content"] for message in prompt])) for prompt in prompts]

    def texts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]
