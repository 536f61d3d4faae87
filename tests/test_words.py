"""What people type: the word list that ships, what it makes of a text, and where a run keeps both."""

import json
import shutil
from dataclasses import dataclass, replace
from importlib import resources
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamfusion import generate, provenance
from dreamfusion.config import Config
from dreamfusion.config.distill import DistillConfig
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.diffusion.priors import WordListedEncoder, open_prior, understood, understood_negative, words_of
from dreamfusion.embedded.model_card import describe
from dreamfusion.errors import UserError
from dreamfusion.loop import prompt_table
from dreamfusion.words import Understood, WordList, read_words, understand
from first_prompts import ANSWERS, PROMPTS, answers
from gaussian_prior import GaussianPrior
from test_cli import call
from training.nouns import learned, nouns

FOLDER = Path(str(resources.files("dreamfusion.embedded").joinpath("weights")))
CARD = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
WORDS = read_words(FOLDER / "words.ini")
MEANING = {word: noun for noun, words in WORDS.lines["nouns"].items() for word in words}
NOUNS = list(WORDS.lines["nouns"])


def caption(text: str) -> str:
    return understand(text, WORDS).caption


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        understand(text, WORDS)
    return str(caught.value)


# The list


def test_the_list_is_of_the_cards_nouns_colours_and_views():
    assert set(NOUNS) == set(CARD["nouns"])
    assert set(WORDS.lines["colours"]) == set(CARD["colours"])
    assert set(WORDS.lines["views"]["words"]) == set(CARD["view_words"].values())


def test_it_knows_beside_which_nouns_an_adjective_was_learned():
    taught = {(row.adjective, row.noun) for row in learned(nouns()) if row.adjective}
    listed = {(adjective, noun) for adjective, its in WORDS.lines["learned"].items() for noun in its}
    assert listed == taught
    assert set(WORDS.lines["adjectives"]) == set(WORDS.lines["learned"])


def test_a_noun_has_four_words_on_average_and_each_means_one_noun_that_it_is_not():
    words = list(chain.from_iterable(WORDS.lines["nouns"].values()))
    assert len(words) >= 4 * len(NOUNS)
    assert all(WORDS.lines["nouns"].values())
    assert len(set(words)) == len(words)
    assert not set(words) & set(NOUNS)


def test_no_word_of_a_noun_hides_a_colour_that_would_be_understood():
    """A red fox is a fox that is red."""
    known = {*NOUNS, *MEANING}
    for word in MEANING:
        first, _, rest = word.partition(" ")
        assert first not in CARD["colours"] or rest not in known


def test_every_word_means_its_noun_in_the_singular_and_in_the_plural():
    for word, noun in MEANING.items():
        assert caption(f"a {word}") == caption(f"{word.upper()}s") == caption(f"a {noun}s")
        assert understand(f"a {word}", WORDS).notes == (f"{word}: {noun}",)


def test_every_noun_is_taken_as_it_is_and_in_the_plural():
    for noun in NOUNS:
        adjectives = [adjective for adjective in WORDS.lines["learned"] if WORDS.learned(adjective, noun)]
        looks = [f"a {look} {noun}" for look in (*CARD["colours"], *adjectives)]
        for text in (noun, f"a {noun}", f"the {noun}", f"a {noun}, back view, untextured", *looks):
            assert understand(text, WORDS) == Understood(text)
        plural = f"{noun[:-1]}ies" if noun.endswith(("ry", "ly")) else f"{noun}s"
        assert words_of(caption(plural))[1:] == words_of(noun)


def test_every_shade_means_its_colour():
    for colour, shades in WORDS.lines["colours"].items():
        for shade in shades:
            assert words_of(caption(f"a {shade} wardrobe")) == ["a" if colour != "orange" else "an", colour, "wardrobe"]
            assert colour in caption(f"a dark {shade} wardrobe")


def test_what_is_left_out_changes_nothing():
    for phrase in chain.from_iterable(WORDS.lines["left out"].values()):
        assert caption(f"a {phrase} fox") == caption(f"fox, {phrase}") == "a fox"
        assert caption(f"a {phrase} of a crimson fox") == "a red fox"


def test_what_is_outside_is_told_by_nouns_near_it_and_is_none_itself():
    for near, words in WORDS.lines["outside"].items():
        assert set(near.split(", ")) <= set(NOUNS)
        for word in words:
            assert word not in NOUNS
            assert word not in MEANING
            said = refusal(f"a {word}")
            assert f"nearest in meaning: {near}" in said, said
            assert "spelled like" not in said


def test_it_is_shown():
    told = describe()
    for part in ("nouns (239)", "couch, settee", "crimson, scarlet", "dslr photo"):
        assert part in told


def test_the_first_prompts_are_answered_as_written_down():
    """After a change of the list: `python tests/first_prompts.py`, and look at the difference."""
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    assert len(set(prompts)) == 200
    assert answers() == ANSWERS.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "content",
    [
        "couch",
        "[nouns]\nsofa: couch",
        "[nouns]\nsofa: couch\nsofa: settee",
        (FOLDER / "words.ini").read_text(encoding="utf-8").replace("\nwords:", "\nword:", 1),
        (FOLDER / "words.ini").read_text(encoding="utf-8").replace("couch,", ",", 1),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, content):
    (tmp_path / "words.ini").write_text(content)
    with pytest.raises(UserError, match=r"words\.ini"):
        read_words(tmp_path / "words.ini")


# What it makes of a text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a couch", "a sofa"),
        ("COUCHES", "a sofa"),
        ("a DSLR photo of a hamburger", "a hamburger"),
        ("low-poly fox", "a fox"),
        ("a navy blue couch", "a blue sofa"),
        ("a couch, crimson", "a red sofa"),
        ("a couch, front view", "a sofa, front view"),
        ("an automobile that is red", "a red car"),
        ("hotdog", "a hot dog"),
        ("a hot-dog", "a hot-dog"),
        ("cup cake", "a cupcake"),
        ("ham burger", "a hamburger"),
        ("a black bird", "a black bird"),
        ("a bluebird", "a bird"),
        ("a round table", "a round table"),
        ("a circular table", "a round table"),
        ("a cross", "a cross"),
        ("a corn", "a corn"),
        ("an orange cat", "an orange cat"),
        ("an orange tree", "an orange tree"),
        ("a white house", "a white house"),
        ("a golden retriever", "a dog"),
        ("a golden dog", "a yellow dog"),
        ("a gold coin", "a golden coin"),
        ("a golden crown", "a golden crown"),
        ("a wooden chair", "a wooden chair"),
        ("a wooden horse", "a horse"),
        ("a fall tree", "an autumn tree"),
        ("a stone", "a rock"),
        ("a stone gate", "a stone gate"),
        ("a rose", "a flower"),
        ("a rose vase", "a pink vase"),
        ("a pink rose", "a pink flower"),
        ("an emerald", "a gem"),
        ("an emerald vase", "a green vase"),
        ("a lemon", "a lemon"),
        ("a lemon vase", "a yellow vase"),
        ("a lemon yellow vase", "a yellow vase"),
        ("a chocolate bar", "a chocolate bar"),
        ("a chocolate pig", "a brown pig"),
        ("a light", "a lamp"),
        ("a light blue lamp", "a blue lamp"),
        ("a fire engine red truck", "a red truck"),
        ("a fire engine", "a fire truck"),
        ("a bat", "a bat"),
        ("a bowl of soup", "a soup"),
        ("a bunch of grapes", "a grape"),
        ("a cactus in a pot", "a potted cactus"),
        ("a car, a red sports car", "a red car"),
        ("one cat", "a cat"),
        ("can you make me a pizza, please?", "a pizza"),
        ("T-Rex", "a dinosaur"),
    ],
)
def test_what_is_understood(text, expected):
    assert caption(text) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("two red apples", ["one thing at a time", 'make "a red apple"', "dreamfusion compose"]),
        ("3 cats", ["one thing at a time", 'make "a cat"']),
        ("a cat on a chair", ["one thing at a time", 'make "a cat" and "a chair"', "dreamfusion compose"]),
        ("a red cat and a navy dog", ['make "a red cat" and "a blue dog"']),
        ("a cat a dog", ['make "a cat" and "a dog"']),
        ("an orange", ["'orange' (nearest in meaning: apple, pear, lemon)"]),
        ("a bowl of orange", ["'orange' (nearest in meaning: apple", 'try "a bowl"']),
        ("a crane", ["'crane' (nearest in meaning: bird"]),
        ("a baseball bat", ["'baseball bat' (nearest in meaning: sword"]),
        ("fish tank", ["'fish tank' (nearest in meaning: crab"]),
        ("a squirrel", ["'squirrel' (nearest in meaning: beaver, rat, bunny)", "--prior FOLDER"]),
        ("squirrels", ["'squirrels' (nearest in meaning: beaver"]),
        ("a squirell", ["spelled like squirrel; nearest in meaning: beaver"]),
        ("a hamburgar", ["'hamburgar' (spelled like hamburger): try \"a hamburger\""]),
        ("a crimson hamburgar", ['try "a red hamburger"']),
        ("a sleeping cat", ["'sleeping' (it learned no poses and actions): try \"a cat\""]),
        ("a marble fox", ["'marble' (it learned no such materials): try \"a fox\""]),
        ("a rainbow fish", ["'rainbow' (it learned no such patterns and wear): try \"a fish\""]),
        ("a rainbow", ["'rainbow' (nearest in meaning: mountain"]),
        ("a car made out of sushi", ["'made out of sushi': try \"a car\""]),
        ("a black and white cow", ["one colour", 'try "a black cow" or "a white cow"']),
        ("something cool", ["knows no thing in 'something cool'"]),
        ("red", ["knows no thing"]),
        ("", ["knows no thing"]),
        ("a bear", ["nearest in meaning: polar bear, panda, koala"]),
        ("xyzzy", ["does not know 'xyzzy': use words it knows"]),
    ],
)
def test_what_is_refused_says_what_to_do(text, parts):
    said = refusal(text)
    assert all(part in said for part in parts), said
    assert "\n" not in said


def test_what_is_otherwise_than_typed_is_noted():
    said = understand("A highly detailed 3D model of a Navy couch, wooden", WORDS)
    assert said.caption == "a blue sofa"
    assert said.notes == ("Navy: blue", "couch: sofa", "left out: highly detailed, 3D model of, wooden")
    assert understand("A Red CHAIR!", WORDS).notes == ()


anything = st.lists(st.sampled_from([*sorted(WORDS.readings), "a", "an", "zorgle", "Ünïcode", "'s", "!", ","]))


@settings(max_examples=150, deadline=None)
@given(anything | st.text().map(lambda text: [text]))
def test_a_caption_is_of_the_priors_words_and_means_itself(texts):
    try:
        said = understand(" ".join(texts), WORDS)
    except UserError:
        return
    assert set(words_of(said.caption)) <= set(CARD["vocabulary"])
    assert understand(said.caption, WORDS).caption == said.caption
    assert understand(said.caption, WORDS).notes == ()


# Where it is used


@dataclass(frozen=True, eq=False)
class Listed(GaussianPrior):
    """A prior with the shipped list."""

    words: WordList | None = WORDS
    vocabulary: frozenset[str] | None = frozenset(CARD["vocabulary"])


@pytest.fixture
def listed(disc_prior) -> Listed:
    return Listed(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size)


def test_a_prior_without_a_list_is_given_what_was_typed(disc_prior, tiny_config):
    assert not isinstance(disc_prior, WordListedEncoder)
    assert understood(disc_prior, "two squirrels on a couch").caption == "two squirrels on a couch"
    with pytest.raises(UserError, match="'couch'"):
        understood(replace(disc_prior, vocabulary=frozenset({"a", "cow"})), "a couch")
    assert prompt_table(replace(tiny_config, prompt="a couch"), disc_prior).prompt == "a couch"


def test_a_folder_brings_its_own_list(tmp_path):
    """As every prior does that `python -m training` made: none, unless the file is put beside the card."""
    for path in FOLDER.iterdir():
        if path.name != "words.ini":
            (tmp_path / path.name).symlink_to(path)
    assert open_prior(str(tmp_path)).words is None
    text = (FOLDER / "words.ini").read_text(encoding="utf-8").replace("sofa: couch", "sofa: canape")
    (tmp_path / "words.ini").write_text(text, encoding="utf-8")
    assert understood(open_prior(str(tmp_path)), "a canape").caption == "a sofa"
    assert understood(open_prior("embedded"), "a couch").caption == "a sofa"


def test_a_negative_prompt_may_be_any_words_that_are_known(listed):
    assert understood_negative(listed, "").caption == ""
    assert understood_negative(listed, "red").caption == "red"
    assert understood_negative(listed, "a cat, a dog").caption == "a cat, a dog"
    assert understood_negative(listed, "a couch").caption == "a sofa"
    with pytest.raises(UserError, match="blurry"):
        understood_negative(listed, "blurry")


def test_a_run_records_what_was_typed_and_what_was_understood(listed, tiny_config, tmp_path):
    told = list[str]()
    config = replace(tiny_config, prompt="a navy couch", negative="a puppy", distill=DistillConfig(guidance_scale=2.0))
    job = generate.create_run(config, tmp_path / "run", prior=listed, say=told.append)
    assert told == ["navy: blue; couch: sofa", "puppy: dog"]
    assert job.prompts.captions[0].startswith("a blue sofa, ")
    assert job.prompts.captions[-1] == "a dog"
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["prompt"], written["negative"]) == ("a navy couch", "a puppy")
    assert written["understood"] == [["a navy couch", "a blue sofa"], ["a puppy", "a dog"]]
    assert from_json(Config, to_json(job.run.config)) == job.run.config
    facts = provenance.metadata(job.run.config, 0)
    assert (facts["prompt"], facts["understood as"]) == ("a navy couch", "a blue sofa")


def test_a_prompt_of_the_priors_own_words_is_recorded_as_ever(listed, tiny_config, tmp_path):
    job = generate.create_run(replace(tiny_config, prompt="a blue sofa"), tmp_path / "run", prior=listed)
    assert job.run.config.understood == ()
    assert provenance.metadata(job.run.config, 0)["understood as"] == ""


def test_a_resumed_run_keeps_the_caption_it_began_with(listed, tiny_config, tmp_path):
    """Also where the list has changed since; what is typed anew is understood anew."""
    generate.create_run(replace(tiny_config, prompt="a couch"), tmp_path / "run", prior=listed)
    lines = {**WORDS.lines, "nouns": {**WORDS.lines["nouns"], "sofa": ("settee",), "chair": ("couch",)}}
    changed = replace(listed, words=WordList(lines))
    told = list[str]()
    job = generate.resume_run(tmp_path / "run", "cpu", prior_now=changed)
    assert job.prompts.prompt == "a sofa"
    assert prompt_table(job.run.config, changed, told.append).prompt == "a sofa"
    assert told == []
    assert prompt_table(replace(job.run.config, prompt="a Couch"), changed).prompt == "a chair"


def test_an_evaluation_judges_by_what_was_understood(listed, tiny_config, tmp_path):
    """It takes the caption from the run's own configuration."""
    config = replace(tiny_config, prompt="a couch")
    assert config.caption(config.prompt) == "a couch"
    generate.create_run(config, tmp_path / "run", prior=listed)
    written = generate.config_of(tmp_path / "run")
    assert written.caption(written.prompt) == "a sofa"


def test_the_command_says_what_it_understood_and_the_page_too(tiny_prior, tiny_config, tmp_path, capsys):
    prior, out = tmp_path / "prior", tmp_path / "out"
    shutil.copytree(tiny_prior, prior)
    shutil.copy(FOLDER / "words.ini", prior)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(to_json(replace(tiny_config, steps=1, prior=str(prior)))))
    assert call("generate", "two couches", "--config", str(settings), "--out", str(out)) == 2
    assert '"a sofa"' in capsys.readouterr().err
    assert not out.exists()
    assert call("generate", "a navy couch", "--config", str(settings), "--out", str(out)) == 0
    said = capsys.readouterr().err.splitlines()
    header = f"'a navy couch', understood as 'a blue sofa', 1 steps, seed 0, into {out}"
    assert said.index("navy: blue; couch: sofa") == said.index(header) - 1
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<title>a navy couch" in page
    assert "<dd>a blue sofa</dd>" in page
