import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from octavo.engine.detokenizer import Detokenizer
from octavo.engine.transcript import Transcript


class ByteTokenizer:
    """Byte-level vocabulary of the 256 bytes and a few merges that end inside a character."""

    def __init__(self):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        plain = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
        plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        plain.decoder = decoders.ByteLevel()
        pairs = [alphabet[plain.encode(text).ids[i]] for text, i in (("é", 0), ("€", 1), ("a", 0))]
        merges = [("a", pairs[0]), (pairs[1], alphabet[plain.encode("€").ids[2]])]
        vocabulary = {letter: index for index, letter in enumerate([*alphabet, *map("".join, merges)])}
        self.backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        self.backend.pre_tokenizer, self.backend.decoder = plain.pre_tokenizer, plain.decoder

    def encode(self, text):
        return self.backend.encode(text).ids

    def decode(self, ids):
        return self.backend.decode(list(ids))


class SpaceTokenizer:
    """Words with a leading space that the start of a text loses, as in SentencePiece vocabularies."""

    def decode(self, ids):
        return "".join([" one", " two", "three"][token] for token in ids).removeprefix(" ")


TOKENIZER = ByteTokenizer()


@given(st.text(max_size=30))
def test_pieces_add_up_and_never_hold_half_a_character(text):
    detokenizer = Detokenizer(TOKENIZER)
    shown = ""
    for token in TOKENIZER.encode(text):
        shown += detokenizer.add(token)
        assert text.startswith(shown)
    assert shown + detokenizer.flush() == text


@given(st.lists(st.integers(0, 257), max_size=30))
def test_any_bytes_add_up_to_what_the_whole_decodes_to(ids):
    detokenizer = Detokenizer(TOKENIZER)
    shown = "".join(map(detokenizer.add, ids))
    whole = TOKENIZER.decode(ids)
    assert whole.startswith(shown)
    assert shown + detokenizer.flush() == whole


def test_a_character_appears_with_its_last_byte_and_what_precedes_it_at_once():
    detokenizer = Detokenizer(TOKENIZER)
    ids = TOKENIZER.encode("aé")
    assert len(ids) == 2, "the first token is meant to be 'a' and half of 'é'"
    assert [detokenizer.add(token) for token in ids] == ["a", "é"]


def test_a_leading_space_is_lost_at_the_start_only():
    detokenizer = Detokenizer(SpaceTokenizer())
    assert [detokenizer.add(token) for token in (0, 1, 2, 0)] == ["one", " two", "three", " one"]


class TestTranscript:
    def read(self, text, stop):
        """Feed a text character by character; return what was shown after each, and the transcript."""
        transcript = Transcript(TOKENIZER, stop)
        shown = []
        for token in TOKENIZER.encode(text):
            transcript.add(token)
            shown.append(transcript.take())
            if transcript.stopped:
                break
        return shown, transcript

    def test_holds_back_what_may_become_a_stop_string(self):
        shown, transcript = self.read("x<1 </s> y", ["</s>"])
        assert shown == ["x", "", "<1", " ", "", "", "", ""]
        assert transcript.stopped
        assert transcript.text == "x<1 "

    def test_an_overlapping_start_is_found_again(self):
        shown, transcript = self.read("aabaabaac", ["aabaac"])
        assert "".join(shown) == transcript.text == "aab"

    def test_the_earliest_of_several_wins(self):
        # Both end with the same character; the longer one starts first.
        _, transcript = self.read("one two", ["wo", "e two"])
        assert transcript.text == "on"

    def test_stop_string_of_characters_of_several_bytes(self):
        _, transcript = self.read("5 € more", ["€"])
        assert transcript.text == "5 "

    def test_closing_shows_what_was_held_back(self):
        shown, transcript = self.read("ab<", ["</s>"])
        assert "".join(shown) == "ab"
        transcript.close()
        assert transcript.take() == "<"
        assert not transcript.stopped

    @pytest.mark.parametrize("stop", [[], ["zz"], ["b", "ab"]])
    @given(text=st.text(st.sampled_from("ab€<"), max_size=20))
    def test_shown_pieces_are_the_text_before_the_first_stop_string(self, stop, text):
        shown, transcript = self.read(text, stop)
        transcript.close()
        starts = [text.find(each) for each in stop if each in text]
        # Found as soon as complete: of "b" and "ab" the shorter never wins where both fit.
        assert transcript.text == (text[: min(starts)] if starts else text)
        assert "".join(shown) + transcript.take() == transcript.text
