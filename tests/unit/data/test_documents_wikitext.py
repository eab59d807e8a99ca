"""WikiText comes back as articles of ordinary text."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.data.documents import articles, detokenized, load_documents
from keeptune.errors import SourceError, SourceNotFound

PUBLISHED = """ 
 = Du Fu ( poet ) = 
 
 He was a well @-@ known poet ; " his <unk> " cost 1 @,@ 500 coins ( 2 @.@ 5 % ) . 
 
 = = Life = = 
 
 It wasn 't Chang 's , and they 'd say : ' no ' . 
 
 = X = 
 
 One – two / three , $ 5 . 
"""


def test_articles_end_where_the_next_title_stands() -> None:
    assert dict(articles(PUBLISHED)) == {
        "Du Fu ( poet )": (
            "= Du Fu (poet) =\n\n"
            'He was a well-known poet; "his <unk>" cost 1,500 coins (2.5%).\n\n'
            "= = Life = =\n\n"
            "It wasn 't Chang's, and they'd say: 'no'.\n"
        ),
        "X": "= X =\n\nOne–two/three, $5.\n",
    }


@pytest.mark.parametrize("word", ["don n't", "it 's", "we 've"])
def test_contractions_are_joined(word: str) -> None:
    assert detokenized(f"and {word} so") == f"and {word.replace(' ', '')} so\n"


def test_a_file_is_a_document_an_article(tmp_path: Path) -> None:
    file = tmp_path / "wiki.test.tokens"
    file.write_text(PUBLISHED)
    documents = load_documents(f"wikitext:{file}")
    assert documents["document"] == ["1 Du Fu ( poet )", "2 X"]
    assert documents["text"][1].endswith("$5.\n")
    with pytest.raises(SourceNotFound, match="no WikiText file"):
        load_documents(f"wikitext:{tmp_path / 'no'}")
    file.write_text("no titles here\n")
    with pytest.raises(SourceError, match="no documents"):
        load_documents(f"wikitext:{file}")
