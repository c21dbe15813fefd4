"""Small tokenizers of the kinds that backbones have, made on the spot: no files, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import NFKC, BertNormalizer, Nmt
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from lpt.data.templates import Encoded, Encoder, Template

SENTENCES = (
    "a good film with a great cast and a terrible plot",
    "the food was great and the room was bad",
    "they are good people but it was a terrible day",
    "It was a great day . It was terrible .",
    "No one asked , but Yes they are great .",
)
WORDS = tuple(dict.fromkeys(" ".join(SENTENCES).lower().split()))
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIALS = ("<pad>", "<s>", "</s>")


def wordpiece(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A masked model's tokenizer as BERT's: lower case, word pieces, [CLS] text [SEP].

    Letters and ascii signs are pieces, so that a word that is not listed falls apart.
    """
    signs = [chr(i) for i in range(33, 127) if not chr(i).isupper()]
    pieces = [*BERT_SPECIALS, *words, *signs, *(f"##{sign}" for sign in signs)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, BERT_SPECIALS, strict=True))
    )


def byte_bpe(**special: str | AddedToken) -> PreTrainedTokenizerFast:
    """A byte-level BPE as GPT-2's, trained on `SENTENCES`; special tokens as given."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    masked = "mask_token" in special
    trainer = BpeTrainer(
        vocab_size=400,
        min_frequency=1,
        special_tokens=[*SPECIALS, *(["<mask>"] if masked else [])],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if masked:
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special)


def roberta_like() -> PreTrainedTokenizerFast:
    """A masked model's byte-level BPE whose mask takes the space before it, as RoBERTa's."""
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return byte_bpe(bos_token="<s>", eos_token="</s>", mask_token=mask)


def causal() -> PreTrainedTokenizerFast:
    """A causal model's byte-level BPE with start and end tokens."""
    return byte_bpe(bos_token="<s>", eos_token="</s>")


def unigram(*more: str) -> PreTrainedTokenizerFast:
    """A masked model's as XLM-RoBERTa's: wide letters become narrow, special tokens are pieces.

    Args:
        more: Further pieces.
    """
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = ["\u2581", "\u2581great", "\u2581bad", "\u2581a", *map(chr, range(33, 127)), *more]
    vocab = [(piece, 0.0) for piece in special] + [(piece, -5.0) for piece in pieces]
    tokenizer = Tokenizer(Unigram(vocab, unk_id=3))
    tokenizer.normalizer = Normalizers([Nmt(), NFKC()])
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = MetaspaceDecoder()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=mask, **names)


def normalized_special_tokens() -> PreTrainedTokenizerFast:
    """A BERT tokenizer that looks for special tokens in lower case."""
    tokenizer = wordpiece()
    mask, sep = (AddedToken(f"[{n}]", special=True, normalized=True) for n in ("MASK", "SEP"))
    tokenizer.add_special_tokens({"mask_token": mask, "sep_token": sep})
    return tokenizer


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "wordpiece": wordpiece,
    "roberta": roberta_like,
    "unigram": unigram,
    "normalized": normalized_special_tokens,
    "causal": causal,
    "start only": lambda: byte_bpe(bos_token="<s>"),
    "end only": lambda: byte_bpe(eos_token="</s>"),  # as Qwen's
    # As GPT-2's: the end token is also the unknown token, which never occurs.
    "one for all": lambda: byte_bpe(bos_token="</s>", eos_token="</s>", unk_token="</s>"),
}


@cache
def tokenizer_named(name: str) -> PreTrainedTokenizerFast:
    """One of `MAKERS`; shared, so not to be changed."""
    return MAKERS[name]()


def kind_of(name: str) -> Literal["masked", "causal"]:
    """The kind of model that has this tokenizer."""
    return "masked" if tokenizer_named(name).mask_token else "causal"


@cache
def encoder_named(
    name: str,
    template: str,
    label_words: tuple[str, ...] = ("great", "bad"),
    max_length: int = 500,
) -> Encoder:
    """An encoder with one of `MAKERS`."""
    parsed = Template.parse(template, kind_of(name))
    return Encoder(tokenizer_named(name), parsed, label_words, max_length)


def longest(encoded: Encoded, i: int) -> int:
    """Tokens of the longest sequence of example i."""
    parts = encoded.label_parts[i] if encoded.label_parts else [[]]
    return len(encoded.context[i]) + max(map(len, parts))
