"""The tokenizer of the victim of ``scenes_vqa``: whole words from a closed list, as a class of transformers."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from leakgauge.benchmarks.tasks.drawn_scenes.questions import ANSWERS

PAD, BOS, EOS, IMAGE, UNKNOWN = "<pad>", "<bos>", "<eos>", "<image>", "<unk>"
SPECIAL = (PAD, BOS, EOS, IMAGE, UNKNOWN)
QUESTION_WORDS = (
    *("how", "many", "are", "there", "what", "colour", "shape", "is", "the", "a", "thing", "things", "?"),
    *("small", "large", "circles", "squares", "triangles", "left", "right", "of", "above", "below"),
)
VOCABULARY = (*SPECIAL, *QUESTION_WORDS, *ANSWERS)
"""Every token, in the order of its number; a change of order needs new weights."""
PAD_ID, BOS_ID, EOS_ID, IMAGE_ID = (VOCABULARY.index(token) for token in (PAD, BOS, EOS, IMAGE))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the tokenizer: words and question marks apart, padded on the left as generation needs it."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE],
        padding_side="left",
    )


def prompt(question: str, image_tokens: int) -> str:
    """Returns the text before the answer: the start, a placeholder for every image token, and the question."""
    return BOS + IMAGE * image_tokens + " " + question


def word_list(text: str) -> list[str]:
    """Returns the words of a question, the question mark among them."""
    return text.replace("?", " ?").split()


def word_ids(text: str) -> list[int]:
    """Returns the token numbers of a question alone, as the tokenizer gives them.

    Raises:
        ValueError: A word is not in the vocabulary.
    """
    return [VOCABULARY.index(word) for word in word_list(text)]
