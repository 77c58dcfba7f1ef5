import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest
from service.http.multipart import MAX_FIELD_BYTES, MAX_FRAME_BYTES, MAX_PARTS, Form, FormReader, boundary_of
from service.wire import memory
from tests.serving import BOUNDARY, open_descriptors

B = BOUNDARY.encode()


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *headers])
    return b"--" + B + b"\r\n" + head.encode("latin-1") + b"\r\n\r\n" + content + b"\r\n"


def file_part(content: bytes = b"sound", filename: str = "a.wav") -> bytes:
    return part(f'name="file"; filename="{filename}"', content, "Content-Type: audio/wav")


def body(*parts: bytes, end: bytes = b"--" + B + b"--\r\n") -> bytes:
    return b"".join(parts) + end


def read(data: bytes, step: int = 65_536, boundary: bytes = B) -> tuple[dict[str, str], bytes]:
    with Form() as form:
        reader = FormReader(boundary, form)
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
        reader.finish()
        return form.fields, bytes(memory.read_all(form.fd))


def refused(data: bytes, step: int = 65_536) -> BadRequest:
    before = open_descriptors()
    with pytest.raises(BadRequest) as caught:
        read(data, step)
    assert open_descriptors() == before
    return caught.value


def test_a_field_comes_more_than_once_where_it_is_a_list_and_only_there():
    for name, lists in (("a", ("a",)), ("a[]", ())):
        data = body(*(part(f'name="{name}"', text) for text in (b"x", b"", b"y")), file_part())
        for step in (1, 65_536):
            with Form(lists=lists) as form:
                reader = FormReader(B, form)
                for start in range(0, len(data), step):
                    reader.feed(data[start : start + step])
                reader.finish()
                assert form.fields == {name: "x,,y"}
    assert refused(body(part('name="a"', b"x"), file_part(), part('name="a"', b"y"))).param == "a"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 65_536])
def test_fields_and_file_come_out_whatever_the_pieces(step):
    content = bytes(range(256)) + b"\r\n--frontie\r\n--" + b"\r\n\r\n"
    data = body(part('name="task"', b"translate"), file_part(content), part('name="prompt"', "häuser".encode()))
    assert read(data, step) == ({"task": "translate", "prompt": "häuser"}, content)


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=400).filter(lambda data: b"\r\n--" + B not in b"\r\n" + data + b"\r\n"),
    prompt=st.text(max_size=50).filter(lambda text: BOUNDARY not in text),
    step=st.integers(1, 100),
)
def test_any_content_is_kept_byte_for_byte(content, prompt, step):
    data = body(part('name="prompt"', prompt.encode("utf-8", "surrogatepass")), file_part(content))
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        assert refused(data).param == "prompt"
    else:
        assert read(data, step) == ({"prompt": prompt}, content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 300))
def test_random_bytes_are_refused_in_our_words(data, step):
    refused(data, step)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.integers(1, 64))
def test_one_changed_byte_is_a_form_or_a_refusal(position, value, step):
    data = bytearray(body(part('name="task"', b"translate"), file_part(b"sound" * 20)))
    data[position % len(data)] = value
    with contextlib.suppress(BadRequest):
        read(bytes(data), step)


def test_the_closing_line_break_is_optional():
    assert read(body(file_part(), end=b"--" + B + b"--"))[1] == b"sound"


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"", None),
        (body(), "file"),
        (body(part('name="task"', b"translate")), "file"),
        (body(file_part(b"")), "file"),
        (body(file_part(), file_part()), "file"),
        (body(part('name="file"', b"sound")), "file"),
        (body(file_part(filename="")), "file"),
        (body(file_part(), part('name="task"', b"a"), part('name="task"', b"b")), "task"),
        (body(file_part(), part('name="other"; filename="b.wav"', b"x")), "other"),
        (body(file_part(), part('name="prompt"', b"\xff\xfe")), "prompt"),
        (body(file_part(), part('name="prompt"', b"x" * (MAX_FIELD_BYTES + 1))), "prompt"),
        (body(file_part(), part("filename=x", b"a")), None),
        (body(file_part(), part(f'name="{"n" * 101}"', b"a")), None),
        (body(file_part(), part('name="a\x01b"', b"a")), None),
        (body(file_part(), part('name="a"', b"a", "Content-Transfer-Encoding: base64")), None),
        (body(file_part(), part('name="a"', b"a", "X: 1", "x: 2")), None),
        (body(file_part(), part('name="a"', b"a").replace(b"form-data", b"attachment")), None),
        (body(file_part(), part('name="a"', b"a", "X: " + "y" * 9000)), None),
        (body(file_part(), part('name="a"', b"a", *[f"X{n}: " + "y" * 3000 for n in range(4)])), None),
        (body(file_part(), part('name="a"', b"a", *[f"X{n}: y" for n in range(500)])), None),
        (b"preamble" + body(file_part()), "file"),
        (b"\r\n" * 100_000 + body(file_part()), None),
        (b"x" * 100_000 + body(file_part()), None),
        (body(file_part()) + b"epilogue" * 100_000, None),
        (body(file_part())[:-10], None),
        (body(file_part()).replace(b"\r\n", b"\n"), None),
        (body(*[part(f'name="f{n}"', b"a") for n in range(10_000)], file_part()), None),
        (body(file_part((b"\r\n--" + B + b"x") * 10_000)), None),
    ],
)
def test_what_is_no_proper_form_is_refused_quickly_and_leaves_nothing(data, param):
    started = time.process_time()
    assert refused(data).param == param
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("step", [1, 2, 7, 65_536])
def test_what_precedes_the_first_delimiter_says_nothing_and_has_a_bound(step):
    most = MAX_FRAME_BYTES - len(b"\r\n" * 2)  # its own end of line, and that of the closing delimiter
    for preamble in (b"Two parts.\r\n", b"\r\nno line of --frontier\r\n", b"--fron\r\n", b"x" * most + b"\r\n"):
        assert read(preamble + body(file_part()), step) == ({}, b"sound")
    for preamble in (b"\r\nno line of its own ", b"x" * (most + 1) + b"\r\n", b"\n"):
        refused(preamble + body(file_part()), step)


@pytest.mark.parametrize("blank", [b"", b"\r\n" * 500, b"Two parts.\r\n"])
def test_a_form_may_be_cut_anywhere(blank):
    content = b"x" * 5000
    data = blank + body(part('name="task"', b"translate"), file_part(content))
    for first in (*range(len(blank), len(blank) + 120), *range(len(data) - 60, len(data))):
        with Form() as form:
            reader = FormReader(B, form)
            reader.feed(data[:first])
            reader.feed(data[first:])
            reader.finish()
            assert (form.fields, bytes(memory.read_all(form.fd))) == ({"task": "translate"}, content)


@pytest.mark.parametrize("step", [1, 700, 65_536])
@pytest.mark.parametrize("end", [b"--" + B + b"--", b"--" + B + b"--\r\n"])
def test_what_surrounds_the_parts_is_bounded_however_it_comes(step, end):
    parts = file_part(b"sound --" + B + b"-- is no end")
    assert read(b"\r\n" * 500 + parts + end, step) == read(parts + end + b"e" * 1000, step)
    refused(b"\r\n" * 520 + parts + end, step)
    refused(parts + end + b"e" * 1030, step)
    refused(b"\r\n" * 260 + parts + end + b"e" * 510, step)
    refused(end + b"e" * 1030, step)


def test_as_many_parts_as_allowed_are_taken():
    fields = [part(f'name="f{n}"', b"a") for n in range(MAX_PARTS - 1)]
    assert len(read(body(*fields, file_part()))[0]) == MAX_PARTS - 1


def test_headers_of_a_part_come_in_any_order_and_each_with_its_own_value():
    head = [b"Content-Type: audio/wav", b"Content-Transfer-Encoding: binary", b"X-Other: 1"]
    for at in range(4):
        lines = [*head[:at], b'Content-Disposition: form-data; name="file"; filename="a.wav"', *head[at:]]
        data = b"--" + B + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\nsound\r\n"
        assert read(body(part(f'name="{"n" * 100}"', b"x"), data)) == ({"n" * 100: "x"}, b"sound")


def test_a_filename_may_come_in_the_extended_form_alone():
    spellings = ("filename*=utf-8''h%C3%A4user.wav", "FileName* = UTF-8'de'h%C3%A4user.wav", 'filename=""; filename*=a')
    for extended in spellings:
        assert read(body(part(f'name="file"; {extended}', b"sound")))[1] == b"sound"
    for nothing in ("filename*=", "filename*=; x=y", "filenamex*=a"):
        assert refused(body(part(f'name="file"; {nothing}', b"sound"))).param == "file"


def test_a_filename_may_be_anything():
    for name in ("..\\\\..\\\\etc", "a/b/c", "naïve.wav", "semi;colon", 'quo\\"te', " "):
        assert read(body(file_part(filename=name)))[1] == b"sound"


@pytest.mark.parametrize("step", [1, 700, 65_536])
def test_a_file_name_may_be_as_long_as_headers_may(step):
    assert read(body(file_part(filename="n" * 8000)), step)[1] == b"sound"
    assert str(refused(body(file_part(filename="n" * 8200)), step)) == "A part's headers are too long."


@pytest.mark.parametrize(
    "content_type", [b"multipart/form-data; boundary=abc", b'multipart/form-data; charset=utf-8; boundary="abc"']
)
def test_the_boundary_is_read(content_type):
    assert boundary_of(content_type) == b"abc"


@pytest.mark.parametrize(
    "parameter",
    [b"", b"; boundary", b"; boundary=", b'; boundary=""', b"; boundary=" + b"a" * 71, b"; boundary=a\xffb",
     b'; boundary="a "', b"; boundary=a\x00b", b"; boundary*=utf-8''abc"],
)  # fmt: skip
def test_an_unusable_boundary_is_refused(parameter):
    with pytest.raises(BadRequest):
        boundary_of(b"multipart/form-data" + parameter)
