"""XML of carts, reduced before it is parsed."""

from __future__ import annotations

import time

import pytest

from pulse_edge.ecg.xml_document import document_bytes, reduced_document, root_name
from pulse_edge.errors import RecordingError


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<RestingECG>", "RestingECG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<AnnotatedECG xmlns='x'>", "AnnotatedECG"),
        (b"<?xml version='1.0'?><hl7:AnnotatedECG/>", "AnnotatedECG"),
        (b"<!-- <RestingECG> --><restingecgdata\n>", "restingecgdata"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><RestingECG>', "RestingECG"),
        (b'<!DOCTYPE a SYSTEM "a>b.dtd"><RestingECG>', "RestingECG"),
        ("<?xml version='1.0' encoding='utf-16'?><RestingECG>".encode("utf-16"), "RestingECG"),
        ("<?xml version='1.0'?><RestingECG>".encode("utf-16-le"), "RestingECG"),
        ("<?xml version='1.0'?><RestingECG>".encode("utf-16-be"), "RestingECG"),
        (b"", ""),
        (b"text <RestingECG>", ""),
        (b"<", ""),
        (b"<RestingECG", ""),
        (b"<!-- <RestingECG>", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_root_tells_what_a_document_is(head: bytes, name: str) -> None:
    assert root_name(head) == name


def test_a_hostile_prolog_takes_no_time() -> None:
    begun = time.process_time()
    for head in (
        b"<!DOCTYPE " + b'"' * 16_000,
        b"<!DOCTYPE [" * 1500,
        b"<?" * 8000,
        b"<!--" * 4000,
    ):
        assert root_name(head) == ""
    assert time.process_time() - begun < 1


def test_only_what_is_asked_for_is_copied() -> None:
    data = (
        b"<r a='1'>x<p><name>N</name></p><w k='v'>1<l>2</l>3</w><w>4</w><d><s>5</s><n>N</n></d></r>"
    )
    root = reduced_document(data, ("w", "d/s"), "made")
    assert document_bytes(root) == b'<r a="1"><w k="v">1<l>2</l>3</w><w>4</w><d><s>5</s></d></r>'


def test_namespaces_are_left_out() -> None:
    data = b"<x:r xmlns:x='u' xmlns:i='v'><x:w i:type='t'>1</x:w></x:r>"
    assert document_bytes(reduced_document(data, ("w",), "made")) == b'<r><w type="t">1</w></r>'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'<!DOCTYPE r [<!ENTITY a "b">]><r>&a;</r>', "declares entities"),
        (
            b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/hostname">]><r>&a;</r>',
            "declares entities",
        ),
        (b'<!DOCTYPE r [<!ENTITY % a SYSTEM "http://x/">%a;]><r/>', "declares entities"),
        (
            b'<!DOCTYPE r [<!ENTITY a "aaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><r>&b;</r>',
            "declares entities",
        ),
        (b"<r>" + b"<w/>" * 50_001 + b"</r>", "over 50,000 XML elements"),
        (b"<r>" + b"<w>" * 65, "nested over 64 deep"),
        (b"<r><w></r>", "not well-formed XML"),
        (b"<r>", "not well-formed XML"),
        (b"", "not well-formed XML"),
        (b"<r>&unknown;</r>", "not well-formed XML"),
        (b"<?xml version='1.0' encoding='martian'?><r/>", "not well-formed XML"),
        (b"<r>\xff\xff</r>", "not well-formed XML"),
        (b" " * (8 << 20) + b"<r/>", "XML of over 8 MiB"),
    ],
    ids=[
        *("entity", "file", "parameter entity", "bomb", "elements", "depth", "order", "cut off"),
        *("empty", "unknown entity", "encoding", "bytes", "size"),
    ],
)
def test_hostile_documents_are_refused(data: bytes, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(RecordingError, match=message):
        reduced_document(data, ("w",), "made")
    assert time.process_time() - begun < 2


def test_a_document_type_without_entities_is_accepted() -> None:
    data = b'<!DOCTYPE r SYSTEM "file:///nowhere.dtd"><r><w>1</w></r>'
    assert reduced_document(data, ("w",), "made").findtext("w") == "1"
