"""What a data set is written in, and how long its texts are."""

from __future__ import annotations

import pytest

from layerfusion.texts.languages import NOT_TOLD, language_of, writing_of

SAID = {
    "Where is the book that I gave to you?": "English",
    "Wo ist das Buch, das ich dir nicht gegeben habe?": "German",
    "Où est la bibliothèque de l’université ? Elle n’est pas dans la rue": "French",
    "¿Dónde está la biblioteca de los libros?": "Spanish",
    "O livro não está na mesa, mas no chão": "Portuguese",
    "Il gatto non è nel giardino": "Italian",
    "Ik heb het boek niet op de tafel gezien": "Dutch",
    "Książka nie jest na stole, ale to jest moja książka": "Polish",
    "Bu kitap çok güzel ama daha pahalı": "Turkish",
    "Tôi không biết một điều này": "Vietnamese",
    "Привет, мы были там": "Russian",
    "Привіт, ми їхали": "Ukrainian",
    "مرحبا كيف حالك اليوم": "Arabic",
    "سلام حال شما چطور است": "Persian",
    "今天天气很好，我们去公园": "Chinese",
    "今日はとても暑いです": "Japanese",
    "오늘 날씨가 좋네요": "Korean",
    "สวัสดีครับ วันนี้อากาศดี": "Thai",
    "नमस्ते आप कैसे हैं": "Hindi",
    "Včeraj sem napisal komentar, pa ga ponovim": "Slovenian",
}


@pytest.mark.parametrize("text", SAID)
def test_a_sentence_tells_its_language(text: str) -> None:
    assert language_of(text) == SAID[text]
    assert language_of(text.upper()) == SAID[text]


@pytest.mark.parametrize("text", ["", "  ", "😀😀 :-)", "12345 %", "lol ok", "\ud800", "x1 y2"])
def test_what_tells_nothing_is_not_told(text: str) -> None:
    assert language_of(text) == NOT_TOLD


def test_a_data_set_is_described_by_the_texts_that_tell_their_language() -> None:
    texts = [f"this is the text of number {n}" for n in range(60)]
    texts += [f"ni{n} xo{n}" for n in range(20)]
    writing = writing_of(texts)
    assert writing.languages == {"English": 0.75, NOT_TOLD: 0.25}
    assert writing.words == "English (100%); the middle one has 7 words, 95 of 100 have at most 7"
    assert writing_of(texts[::-1]) == writing
    assert writing_of(texts * 2) == writing  # a text that occurs twice is one text


def test_texts_without_spaces_are_counted_in_characters() -> None:
    mixed = [f"这是第{n}个句子" for n in range(100, 150)]
    mixed += [f"this is the sentence of number {n}" for n in range(50)]
    writing = writing_of(mixed)
    assert writing.languages == {"Chinese": 0.5, "English": 0.5}
    assert not writing.spaced
    assert writing.words.startswith("Chinese (50%), English (50%); the middle one has ")
    assert writing.words.endswith(" characters, 95 of 100 have at most 33")


def test_texts_that_mostly_tell_nothing_are_said_to_do_so() -> None:
    writing = writing_of(["this is the only one", *(f"x{n}" for n in range(3))])
    assert writing.words.startswith("English (100%) of the 25% that tell their language; ")
    assert writing_of(["x1", "x2"]).words.startswith("in no language that can be told; ")
